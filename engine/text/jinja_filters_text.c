/* jinja_filters_text.c: filters on text. */
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "engine/text/jinja_eval.h"
#include "engine/text/jinja_unicode.h"

/* soft_str: str(v), Markup stays what it is. */
static struct jval soft(struct render *r, struct jval v)
{
	return v.type == J_STR ? v : (struct jval){.type = J_STR, .str = jval_to_str(r, v)};
}

static struct jval f_string(struct render *r, struct jval v, const struct jargs *args)
{
	return args_none(r, "string", args) ? jval_none() : soft(r, v);
}

static struct jval f_safe(struct render *r, struct jval v, const struct jargs *args)
{
	return args_none(r, "safe", args) ? jval_none() : jval_markup(soft(r, v));
}

static struct jval f_escape(struct render *r, struct jval v, const struct jargs *args)
{
	return args_none(r, "escape", args) ? jval_none() : str_escape(r, v);
}

static struct jval f_forceescape(struct render *r, struct jval v, const struct jargs *args)
{
	v = soft(r, v);
	v.flag = 0;
	return args_none(r, "forceescape", args) ? jval_none() : str_escape(r, v);
}

static struct jval f_upper(struct render *r, struct jval v, const struct jargs *args)
{
	return args_none(r, "upper", args) ? jval_none() : str_cased(r, soft(r, v), UNICODE_UPPER);
}

static struct jval f_lower(struct render *r, struct jval v, const struct jargs *args)
{
	return args_none(r, "lower", args) ? jval_none() : str_cased(r, soft(r, v), UNICODE_LOWER);
}

static struct jval f_capitalize(struct render *r, struct jval v, const struct jargs *args)
{
	return args_none(r, "capitalize", args) ? jval_none() : str_capitalize(r, soft(r, v));
}

static int separates_words(int32_t c)
{
	return c == '-' || c == '(' || c == '{' || c == '[' || c == '<' || unicode_is_space(c);
}

/* Words begin after - white space ( { [ <, unlike str.title. Jinja lowers the rest of a word by itself, so that what comes
 * before does not decide about a final sigma. */
static struct jval f_title(struct render *r, struct jval v, const struct jargs *args)
{
	const struct jstr *s = soft(r, v).str;
	struct buf text = {0};

	if (args_none(r, "title", args))
		return jval_none();
	for (size_t i = 0; i < s->n;) {
		size_t at = i, end;
		int32_t c = utf8_next(s->s, s->n, &i);
		int separator = separates_words(c);

		unicode_add_cased(&text, s->s, s->n, at, c, UNICODE_UPPER);
		for (end = i; end < s->n;) {
			size_t next = end;

			if (separates_words(utf8_next(s->s, s->n, &next)) != separator)
				break;
			end = next;
		}
		unicode_add_all_cased(&text, s->s + i, end - i, UNICODE_LOWER);
		i = end;
	}
	return jval_text(r, &text);
}

static struct jval f_trim(struct render *r, struct jval v, const struct jargs *args)
{
	static const char *const names[] = {"chars"};
	const struct jstr *chars = NULL;
	struct jval a;

	if (args_bind(r, "trim", args, 0, names, 1, &a))
		return jval_none();
	if (a.type != J_MISSING && a.type != J_NONE) {
		chars = arg_str(r, "trim", a);
		if (!chars)
			return jval_none();
	}
	return str_strip(r, soft(r, v), chars, SIDE_LEFT | SIDE_RIGHT);
}

static struct jval f_center(struct render *r, struct jval v, const struct jargs *args)
{
	static const char *const names[] = {"width"};
	static const struct jstr blank = {.s = " ", .n = 1, .n_chars = 1};
	struct jval a;
	int64_t width;

	if (args_bind(r, "center", args, 0, names, 1, &a))
		return jval_none();
	width = arg_int(r, "center", a, 80);
	return r->failed ? jval_none() : str_center(r, soft(r, v), width, &blank, 1, 1);
}

static struct jval f_replace(struct render *r, struct jval v, const struct jargs *args)
{
	static const char *const names[] = {"old", "new", "count"};
	const struct jstr *from, *to;
	int64_t count;
	struct jval a[3];

	if (args_bind(r, "replace", args, 2, names, 3, a))
		return jval_none();
	from = jval_to_str(r, a[0]);
	to = jval_to_str(r, a[1]);
	count = a[2].type == J_NONE ? -1 : arg_int(r, "replace", a[2], -1);
	v = soft(r, v);
	v.flag = 0;
	return r->failed ? jval_none() : str_replace(r, v, from, to, count);
}

static struct jval f_format(struct render *r, struct jval v, const struct jargs *args)
{
	struct jval arg;

	if (args->n && args->n_keywords)
		return render_fail(r, "format: cannot handle positional and keyword arguments at the same time");
	if (args->n_keywords) {
		struct jdict *d = dict_new(r);

		for (size_t i = 0; i < args->n_keywords; i++)
			dict_set(r, d, (struct jval){.type = J_STR, .str = args->keywords[i].name}, args->keywords[i].value);
		arg = jval_dict(d);
	} else {
		struct jlist *l = list_new(r, args->n);

		for (size_t i = 0; i < args->n; i++)
			list_add(r, l, args->values[i]);
		arg = jval_tuple(l);
	}
	return r->failed ? jval_none() : format_percent(r, soft(r, v), arg);
}

static struct jval f_indent(struct render *r, struct jval v, const struct jargs *args)
{
	static const char *const names[] = {"width", "first", "blank"};
	const struct jstr *indent;
	struct buf text = {0}, blanks = {0};
	struct jlist *lines;
	struct jval a[3], out;
	int first, blank;

	if (args_bind(r, "indent", args, 0, names, 3, a))
		return jval_none();
	if (v.type == J_UNDEFINED)
		return render_fail_undefined(r, v);
	if (v.type != J_STR)
		return render_fail(r, "indent: a string is expected, not '%s'", jval_type_name(v));
	if (a[0].type == J_STR) {
		indent = a[0].str;
	} else {
		int64_t width = arg_int(r, "indent", a[0], 4);

		for (int64_t i = 0; i < width && !r->failed; i++)
			text_adds(r, &blanks, " ");
		indent = jval_to_str(r, jval_text(r, &blanks));
	}
	first = a[1].type != J_MISSING && jval_truth(r, a[1]);
	blank = a[2].type != J_MISSING && jval_truth(r, a[2]);
	/* Jinja adds a newline before it takes the lines apart, so that an empty text has one (empty) line. */
	out = str_concat(r, v, jval_strz(r, "\n"));
	if (r->failed)
		return jval_none();
	lines = str_lines(r, out, 0);
	for (size_t i = 0; i < lines->n && !r->failed; i++) {
		if (i)
			text_adds(r, &text, "\n");
		if (i ? blank || lines->items[i].str->n : first)
			text_add_str(r, &text, indent);
		text_add_str(r, &text, lines->items[i].str);
	}
	out = jval_text(r, &text);
	return v.flag ? jval_markup(out) : out;
}

static struct jval f_truncate(struct render *r, struct jval v, const struct jargs *args)
{
	static const char *const names[] = {"length", "killwords", "end", "leeway"};
	struct jval a[4], cut, end;
	int64_t length, leeway, keep, n;
	size_t blank;

	if (args_bind(r, "truncate", args, 0, names, 4, a))
		return jval_none();
	length = arg_int(r, "truncate", a[0], 255);
	leeway = a[3].type == J_NONE ? 5 : arg_int(r, "truncate", a[3], 5);
	end = a[2].type == J_MISSING ? jval_strz(r, "...") : a[2];
	n = jval_length(r, end);
	keep = length - n;
	if (r->failed || n < 0 || keep < 0 || leeway < 0)
		return render_fail(r, "truncate: length %lld, leeway %lld", (long long)length, (long long)leeway);
	n = jval_length(r, v);
	if (n >= 0 && n <= (__int128)length + leeway)
		return v;
	if (v.type != J_STR || end.type != J_STR)
		return render_fail(r, "truncate: a string is expected, not '%s'", jval_type_name(v.type != J_STR ? v : end));
	cut = str_slice(r, v, 0, (size_t)keep);
	if (a[1].type != J_MISSING && jval_truth(r, a[1]))
		return op_binary(r, N_ADD, cut, end);
	for (blank = cut.str->n; blank > 0 && cut.str->s[blank - 1] != ' '; blank--)
		;
	if (blank > 0) {
		int flag = cut.flag;

		cut = jval_str_borrow(r, cut.str->s, blank - 1);
		cut.flag = (uint8_t)flag;
	}
	return op_binary(r, N_ADD, cut, end);
}

static struct jval f_wordcount(struct render *r, struct jval v, const struct jargs *args)
{
	const struct jstr *s = soft(r, v).str;
	int64_t n = 0;
	int in_word = 0;

	if (args_none(r, "wordcount", args))
		return jval_none();
	for (size_t i = 0; i < s->n;) {
		int word = unicode_is_word(utf8_next(s->s, s->n, &i));

		n += word && !in_word;
		in_word = word;
	}
	return jval_int(n);
}

static struct jval f_striptags(struct render *r, struct jval v, const struct jargs *args)
{
	static const struct {
		const char *name, *text;
	} entities[] = {{"&lt;", "<"},  {"&gt;", ">"},   {"&quot;", "\""},       {"&#34;", "\""},
	                {"&#39;", "'"}, {"&#x27;", "'"}, {"&nbsp;", "\xC2\xA0"}, {"&amp;", "&"}};
	const struct jstr *s = soft(r, v).str;
	struct buf plain = {0}, text = {0};
	struct jlist *words;
	struct jval out;

	if (args_none(r, "striptags", args))
		return jval_none();
	for (size_t i = 0; i < s->n;) {
		const char *close, *open = memchr(s->s + i, '<', s->n - i);
		size_t at = open ? (size_t)(open - s->s) : s->n;
		int comment = open && s->n - at >= 4 && memcmp(open, "<!--", 4) == 0;

		close = !open ? NULL : comment ? memmem(open + 4, s->n - at - 4, "-->", 3) : memchr(open, '>', s->n - at);
		if (!close)
			at = s->n;
		text_add(r, &plain, s->s + i, at - i);
		i = close ? (size_t)(close - s->s) + (comment ? 3 : 1) : s->n;
	}
	out = jval_text(r, &plain);
	if (r->failed)
		return out;
	words = str_split(r, out, NULL, -1, 0);
	for (size_t i = 0; i < words->n; i++) {
		const struct jstr *word = words->items[i].str;

		if (i)
			text_adds(r, &text, " ");
		for (size_t k = 0; k < word->n && !r->failed;) {
			size_t e = 0, n = sizeof(entities) / sizeof(*entities);

			while (e < n && !(word->n - k >= strlen(entities[e].name) &&
			                  memcmp(word->s + k, entities[e].name, strlen(entities[e].name)) == 0))
				e++;
			if (e < n)
				text_adds(r, &text, entities[e].text);
			else
				text_add(r, &text, word->s + k, 1);
			k += e < n ? strlen(entities[e].name) : 1;
		}
	}
	return jval_text(r, &text);
}

static void add_quoted(struct render *r, struct buf *out, const struct jstr *s, int in_query)
{
	for (size_t i = 0; i < s->n && !r->failed; i++) {
		unsigned char c = (unsigned char)s->s[i];
		char esc[4];

		if (isalnum(c) || (c && strchr("_.-~", c)) || (c == '/' && !in_query)) {
			text_add(r, out, &c, 1);
		} else {
			snprintf(esc, sizeof(esc), "%%%02X", c);
			text_adds(r, out, c == ' ' && in_query ? "+" : esc);
		}
	}
}

static struct jval f_urlencode(struct render *r, struct jval v, const struct jargs *args)
{
	struct buf text = {0};
	struct jiter *it;
	struct jval item;
	int n = 0;

	if (args_none(r, "urlencode", args))
		return jval_none();
	if (v.type == J_STR || !jval_is_iterable(v)) {
		add_quoted(r, &text, soft(r, v).str, 0);
		return jval_text(r, &text);
	}
	if (v.type == J_DICT)
		v.type = J_ITEMS;
	it = iter_open(r, v);
	while (it && iter_next(r, it, &item)) {
		struct jlist *pair = list_of(r, item);

		if (!r->failed && pair->n != 2)
			render_fail(r, "urlencode: pairs are expected");
		if (r->failed)
			break;
		if (n++)
			text_adds(r, &text, "&");
		add_quoted(r, &text, soft(r, pair->items[0]).str, 1);
		text_adds(r, &text, "=");
		add_quoted(r, &text, soft(r, pair->items[1]).str, 1);
	}
	return jval_text(r, &text);
}

static struct jval f_xmlattr(struct render *r, struct jval v, const struct jargs *args)
{
	static const char *const names[] = {"autospace"};
	struct buf text = {0};
	struct jval a;

	if (args_bind(r, "xmlattr", args, 0, names, 1, &a))
		return jval_none();
	if (v.type == J_UNDEFINED)
		return render_fail_undefined(r, v);
	if (v.type != J_DICT)
		return render_fail(r, "xmlattr: a dict is expected, not '%s'", jval_type_name(v));
	for (size_t i = 0; i < v.dict->n && !r->failed; i++) {
		struct jval key = v.dict->entries[i].key, value = v.dict->entries[i].value;

		if (value.type == J_NONE || value.type == J_UNDEFINED)
			continue;
		if (!arg_str(r, "xmlattr", key))
			break;
		for (size_t k = 0; k < key.str->n; k++)
			if (strchr(" \t\n\r\f\v/>=", key.str->s[k]) && key.str->s[k])
				render_fail(r, "xmlattr: invalid character in attribute name");
		if (text.len || a.type == J_MISSING || jval_truth(r, a))
			text_adds(r, &text, " ");
		text_add_str(r, &text, str_escape(r, key).str);
		text_adds(r, &text, "=\"");
		value = str_escape(r, value);
		if (!r->failed)
			text_add_str(r, &text, value.str);
		text_adds(r, &text, "\"");
	}
	return jval_text(r, &text);
}

static struct jval f_filesizeformat(struct render *r, struct jval v, const struct jargs *args)
{
	static const char *const names[] = {"binary"};
	static const char units[] = "kMGTPEZY";
	double bytes, base, unit;
	struct buf text = {0};
	struct jval a;
	int binary, i = 0;

	if (args_bind(r, "filesizeformat", args, 0, names, 1, &a))
		return jval_none();
	binary = a.type != J_MISSING && jval_truth(r, a);
	base = binary ? 1024 : 1000;
	if (v.type == J_UNDEFINED)
		return render_fail_undefined(r, v);
	if (jval_is_number(v))
		bytes = jval_as_double(v);
	else if (v.type != J_STR || !float_parse(v.str, &bytes))
		return render_fail(r, "filesizeformat: a number is expected");
	if (isnan(bytes) || (isinf(bytes) && bytes < 0))
		return render_fail(r, "filesizeformat: not a size");
	if (bytes == 1) {
		buf_adds(&text, "1 Byte");
	} else if (bytes < -1e38) {
		render_fail(r, "filesizeformat: the number needs more than 128 bits");
	} else if (bytes < base) {
		text_add_int(&text, (__int128)bytes);
		buf_adds(&text, " Bytes");
	} else {
		for (unit = base * base; i < 7 && bytes >= unit; i++)
			unit *= base;
		buf_addf(&text, "%.1f %c%sB", base * bytes / unit, binary && i == 0 ? 'K' : units[i], binary ? "i" : "");
	}
	return jval_text(r, &text);
}

const struct jfilter text_filters[] = {
    {"capitalize", f_capitalize},
    {"center", f_center},
    {"e", f_escape},
    {"escape", f_escape},
    {"forceescape", f_forceescape},
    {"filesizeformat", f_filesizeformat},
    {"format", f_format},
    {"indent", f_indent},
    {"lower", f_lower},
    {"replace", f_replace},
    {"safe", f_safe},
    {"string", f_string},
    {"striptags", f_striptags},
    {"title", f_title},
    {"trim", f_trim},
    {"truncate", f_truncate},
    {"upper", f_upper},
    {"urlencode", f_urlencode},
    {"urlize", NULL},
    {"wordcount", f_wordcount},
    {"wordwrap", filter_wordwrap},
    {"xmlattr", f_xmlattr},
    {NULL, NULL},
};
