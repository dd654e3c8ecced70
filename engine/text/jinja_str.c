/* jinja_str.c: the methods of str. Positions are code points, as in Python. A Markup string gives Markup and escapes what is
 * put into it, as markupsafe does. */
#include <stdlib.h>
#include <string.h>

#include "engine/text/jinja_eval.h"
#include "engine/text/jinja_unicode.h"

struct jval str_like(struct jval model, struct jval v)
{
	if (v.type == J_STR)
		v.flag = model.flag;
	return v;
}

struct jval str_part(struct render *r, struct jval s, size_t from, size_t to)
{
	return str_like(s, jval_str_borrow(r, s.str->s + from, to - from));
}

struct jval str_escape(struct render *r, struct jval v)
{
	const struct jstr *s;
	struct buf text = {0};

	if (v.type == J_STR && v.flag)
		return v;
	s = jval_to_str(r, v);
	for (size_t i = 0; i < s->n; i++) {
		char c = s->s[i];
		const char *e = c == '&'    ? "&amp;"
		                : c == '<'  ? "&lt;"
		                : c == '>'  ? "&gt;"
		                : c == '\'' ? "&#39;"
		                : c == '"'  ? "&#34;"
		                            : NULL;

		if (e ? text_adds(r, &text, e) : text_add(r, &text, &c, 1))
			break;
	}
	return jval_markup(jval_text(r, &text));
}

static int in_chars(const struct jstr *chars, int32_t c)
{
	if (!chars)
		return unicode_is_space(c);
	for (size_t i = 0; i < chars->n;)
		if (utf8_next(chars->s, chars->n, &i) == c)
			return 1;
	return 0;
}

struct jval str_strip(struct render *r, struct jval s, const struct jstr *chars, unsigned sides)
{
	const char *p = s.str->s;
	size_t from = 0, to = s.str->n;

	while ((sides & SIDE_LEFT) && from < to && render_step_bytes(r, chars ? 8 * chars->n : 0)) {
		size_t next = from;

		if (!in_chars(chars, utf8_next(p, to, &next)))
			break;
		from = next;
	}
	while ((sides & SIDE_RIGHT) && to > from && render_step_bytes(r, chars ? 8 * chars->n : 0)) {
		size_t before = to;

		if (!in_chars(chars, utf8_previous(p, &before)))
			break;
		to = before;
	}
	return str_part(r, s, from, to);
}

static struct jval strip_method(struct render *r, struct jval s, const struct jargs *args, unsigned sides)
{
	static const char *const names[] = {"/chars"};
	const struct jstr *chars = NULL;
	struct jval v;

	if (args_bind(r, "strip()", args, 0, names, 1, &v))
		return jval_none();
	if (v.type != J_MISSING && v.type != J_NONE) {
		chars = arg_str(r, "strip()", v);
		if (!chars)
			return jval_none();
	}
	return str_strip(r, s, chars, sides);
}

static struct jval m_strip(struct render *r, struct jval s, const struct jargs *args)
{
	return strip_method(r, s, args, SIDE_LEFT | SIDE_RIGHT);
}

static struct jval m_lstrip(struct render *r, struct jval s, const struct jargs *args)
{
	return strip_method(r, s, args, SIDE_LEFT);
}

static struct jval m_rstrip(struct render *r, struct jval s, const struct jargs *args)
{
	return strip_method(r, s, args, SIDE_RIGHT);
}

struct jval str_cased(struct render *r, struct jval s, int to)
{
	struct buf text = {0};

	unicode_add_all_cased(&text, s.str->s, s.str->n, (enum unicode_case)to);
	return str_like(s, jval_text(r, &text));
}

struct jval str_capitalize(struct render *r, struct jval s)
{
	const struct jstr *t = s.str;
	struct buf text = {0};

	for (size_t i = 0; i < t->n;) {
		size_t at = i;
		int32_t c = utf8_next(t->s, t->n, &i);

		unicode_add_cased(&text, t->s, t->n, at, c, at == 0 ? UNICODE_TITLE : UNICODE_LOWER);
	}
	return str_like(s, jval_text(r, &text));
}

static struct jval m_upper(struct render *r, struct jval s, const struct jargs *args)
{
	return args_none(r, "upper()", args) ? jval_none() : str_cased(r, s, UNICODE_UPPER);
}

static struct jval m_lower(struct render *r, struct jval s, const struct jargs *args)
{
	return args_none(r, "lower()", args) ? jval_none() : str_cased(r, s, UNICODE_LOWER);
}

static struct jval m_capitalize(struct render *r, struct jval s, const struct jargs *args)
{
	return args_none(r, "capitalize()", args) ? jval_none() : str_capitalize(r, s);
}

/* title(), swapcase() */
static struct jval recase(struct render *r, struct jval s, int swap)
{
	const struct jstr *t = s.str;
	struct buf text = {0};
	int in_word = 0;

	for (size_t i = 0; i < t->n;) {
		size_t at = i;
		int32_t c = utf8_next(t->s, t->n, &i);
		int cased = unicode_is_lower(c) || unicode_is_upper(c) || unicode_is_title(c);
		enum unicode_case to = swap      ? (unicode_is_upper(c) ? UNICODE_LOWER : UNICODE_UPPER)
		                       : in_word ? UNICODE_LOWER
		                                 : UNICODE_TITLE;

		if (swap && !unicode_is_upper(c) && !unicode_is_lower(c))
			buf_add(&text, t->s + at, i - at);
		else
			unicode_add_cased(&text, t->s, t->n, at, c, to);
		in_word = cased;
	}
	return str_like(s, jval_text(r, &text));
}

static struct jval m_title(struct render *r, struct jval s, const struct jargs *args)
{
	return args_none(r, "title()", args) ? jval_none() : recase(r, s, 0);
}

static struct jval m_swapcase(struct render *r, struct jval s, const struct jargs *args)
{
	return args_none(r, "swapcase()", args) ? jval_none() : recase(r, s, 1);
}

static int is_line_break(int32_t c)
{
	return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

struct jlist *str_lines(struct render *r, struct jval s, int keep_ends)
{
	const struct jstr *t = s.str;
	struct jlist *out = list_new(r, 0);

	for (size_t from = 0, at = 0; from < t->n && !r->failed;) {
		size_t end = at, next = at;
		int32_t c = 0;

		while (at < t->n && !is_line_break(c = utf8_next(t->s, t->n, &next)))
			at = next;
		end = at;
		if (at < t->n) {
			at = next;
			if (c == '\r' && at < t->n && t->s[at] == '\n')
				at++;
		}
		list_add(r, out, str_part(r, s, from, keep_ends ? at : end));
		from = at;
	}
	return out;
}

static struct jval m_splitlines(struct render *r, struct jval s, const struct jargs *args)
{
	static const char *const names[] = {"keepends"};
	struct jval v;

	if (args_bind(r, "splitlines()", args, 0, names, 1, &v))
		return jval_none();
	return jval_list(str_lines(r, s, v.type != J_MISSING && jval_truth(r, v)));
}

struct jval str_center(struct render *r, struct jval s, int64_t width, const struct jstr *fill, int to_left, int to_right)
{
	int64_t room = width - (int64_t)s.str->n_chars, left;
	struct buf text = {0};

	if (room <= 0)
		return s;
	/* str.center puts the odd blank on the left when the width is odd. */
	left = !to_left ? 0 : !to_right ? room : room / 2 + (room & width & 1);
	for (int64_t i = 0; i < left && !r->failed; i++)
		text_add_str(r, &text, fill);
	text_add_str(r, &text, s.str);
	for (int64_t i = left; to_right && i < room && !r->failed; i++)
		text_add_str(r, &text, fill);
	return str_like(s, jval_text(r, &text));
}

static struct jval pad_method(struct render *r, struct jval s, const struct jargs *args, int to_left, int to_right)
{
	static const char *const names[] = {"/width", "/fillchar"};
	static const struct jstr blank = {.s = " ", .n = 1, .n_chars = 1};
	const struct jstr *fill = &blank;
	struct jval v[2];
	int64_t width;

	if (args_bind(r, "center()", args, 1, names, 2, v))
		return jval_none();
	width = arg_int(r, "center()", v[0], 0);
	if (v[1].type != J_MISSING)
		fill = arg_str(r, "center()", v[1]);
	if (r->failed)
		return jval_none();
	if (fill->n_chars != 1)
		return render_fail(r, "the fill character must be exactly one character long");
	return str_center(r, s, width, fill, to_left, to_right);
}

static struct jval m_center(struct render *r, struct jval s, const struct jargs *args)
{
	return pad_method(r, s, args, 1, 1);
}

static struct jval m_ljust(struct render *r, struct jval s, const struct jargs *args)
{
	return pad_method(r, s, args, 0, 1);
}

static struct jval m_rjust(struct render *r, struct jval s, const struct jargs *args)
{
	return pad_method(r, s, args, 1, 0);
}

static struct jval m_zfill(struct render *r, struct jval s, const struct jargs *args)
{
	static const char *const names[] = {"/width"};
	static const struct jstr zero = {.s = "0", .n = 1, .n_chars = 1};
	int signed_text = s.str->n && (s.str->s[0] == '-' || s.str->s[0] == '+');
	struct buf text = {0};
	struct jval v, digits;
	int64_t width;

	if (args_bind(r, "zfill()", args, 1, names, 1, &v))
		return jval_none();
	width = arg_int(r, "zfill()", v, 0);
	if (r->failed)
		return jval_none();
	digits = str_center(r, str_part(r, s, (size_t)signed_text, s.str->n), width - signed_text, &zero, 1, 0);
	if (!signed_text || r->failed)
		return digits;
	buf_addc(&text, s.str->s[0]);
	text_add_str(r, &text, digits.str);
	return str_like(s, jval_text(r, &text));
}

static struct jval m_expandtabs(struct render *r, struct jval s, const struct jargs *args)
{
	static const char *const names[] = {"tabsize"};
	const struct jstr *t = s.str;
	struct buf text = {0};
	int64_t size, column = 0;
	struct jval v;

	if (args_bind(r, "expandtabs()", args, 0, names, 1, &v))
		return jval_none();
	size = arg_int(r, "expandtabs()", v, 8);
	for (size_t i = 0; i < t->n && !r->failed;) {
		size_t from = i;
		int32_t c = utf8_next(t->s, t->n, &i);

		if (c == '\t') {
			int64_t blanks = size > 0 ? size - column % size : 0;

			column += blanks;
			for (; blanks > 0 && !r->failed; blanks--)
				text_adds(r, &text, " ");
		} else {
			column = c == '\n' || c == '\r' ? 0 : column + 1;
			text_add(r, &text, t->s + from, i - from);
		}
	}
	return str_like(s, jval_text(r, &text));
}

/* All characters are of a class, and there is one. */
static struct jval all_method(struct render *r, struct jval s, const struct jargs *args, int (*is)(int32_t), int when_empty)
{
	if (args_none(r, "the method", args))
		return jval_none();
	for (size_t i = 0; i < s.str->n;)
		if (!is(utf8_next(s.str->s, s.str->n, &i)))
			return jval_bool(0);
	return jval_bool(s.str->n > 0 || when_empty);
}

static struct jval m_isdigit(struct render *r, struct jval s, const struct jargs *args)
{
	return all_method(r, s, args, unicode_is_digit, 0);
}

static struct jval m_isdecimal(struct render *r, struct jval s, const struct jargs *args)
{
	return all_method(r, s, args, unicode_is_decimal, 0);
}

static struct jval m_isalpha(struct render *r, struct jval s, const struct jargs *args)
{
	return all_method(r, s, args, unicode_is_alpha, 0);
}

static struct jval m_isalnum(struct render *r, struct jval s, const struct jargs *args)
{
	return all_method(r, s, args, unicode_is_alnum, 0);
}

static struct jval m_isspace(struct render *r, struct jval s, const struct jargs *args)
{
	return all_method(r, s, args, unicode_is_space, 0);
}

static struct jval m_isprintable(struct render *r, struct jval s, const struct jargs *args)
{
	return all_method(r, s, args, unicode_is_printable, 1);
}

static struct jval m_isascii(struct render *r, struct jval s, const struct jargs *args)
{
	return args_none(r, "isascii()", args) ? jval_none() : jval_bool(s.str->n == s.str->n_chars);
}

/* At least one cased character, and all of them of this case. */
static int all_cased(const struct jstr *s, int (*is)(int32_t), int (*is_other)(int32_t))
{
	int found = 0;

	for (size_t i = 0; i < s->n;) {
		int32_t c = utf8_next(s->s, s->n, &i);

		if (is_other(c) || unicode_is_title(c))
			return 0;
		found |= is(c);
	}
	return found;
}

int str_is_lower(const struct jstr *s)
{
	return all_cased(s, unicode_is_lower, unicode_is_upper);
}

int str_is_upper(const struct jstr *s)
{
	return all_cased(s, unicode_is_upper, unicode_is_lower);
}

static struct jval m_islower(struct render *r, struct jval s, const struct jargs *args)
{
	return args_none(r, "islower()", args) ? jval_none() : jval_bool(str_is_lower(s.str));
}

static struct jval m_isupper(struct render *r, struct jval s, const struct jargs *args)
{
	return args_none(r, "isupper()", args) ? jval_none() : jval_bool(str_is_upper(s.str));
}

static struct jval m_istitle(struct render *r, struct jval s, const struct jargs *args)
{
	int in_word = 0, found = 0;

	if (args_none(r, "istitle()", args))
		return jval_none();
	for (size_t i = 0; i < s.str->n;) {
		int32_t c = utf8_next(s.str->s, s.str->n, &i);
		int upper = unicode_is_upper(c) || unicode_is_title(c), lower = unicode_is_lower(c);

		if ((upper && in_word) || (lower && !in_word))
			return jval_bool(0);
		in_word = upper || lower;
		found |= in_word;
	}
	return jval_bool(found);
}

const struct jmethod str_methods[] = {
    {"strip", m_strip},           {"lstrip", m_lstrip},         {"rstrip", m_rstrip},
    {"splitlines", m_splitlines}, {"upper", m_upper},           {"lower", m_lower},
    {"title", m_title},           {"capitalize", m_capitalize}, {"swapcase", m_swapcase},
    {"center", m_center},         {"ljust", m_ljust},           {"rjust", m_rjust},
    {"zfill", m_zfill},           {"expandtabs", m_expandtabs}, {"format", format_braces},
    {"isdigit", m_isdigit},       {"isdecimal", m_isdecimal},   {"isalpha", m_isalpha},
    {"isalnum", m_isalnum},       {"isspace", m_isspace},       {"isprintable", m_isprintable},
    {"isascii", m_isascii},       {"islower", m_islower},       {"isupper", m_isupper},
    {"istitle", m_istitle},       {"casefold", NULL},           {"encode", NULL},
    {"format_map", NULL},         {"isidentifier", NULL},       {"isnumeric", NULL},
    {"maketrans", NULL},          {"translate", NULL},          {NULL, NULL},
};
