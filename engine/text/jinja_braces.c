/* jinja_braces.c: "...".format(args), with the sandbox's rules for attributes in fields. */
#include <ctype.h>
#include <string.h>

#include "engine/text/jinja_eval.h"
#include "engine/text/jinja_layout.h"
#include "engine/text/jinja_unicode.h"

struct braces {
	struct render *r;
	const struct jargs *args;
	int next_auto; /* -1: fields are numbered by hand */
	int markup;
};

static void format_text(struct braces *b, const char *s, size_t n, struct buf *out, int depth);

/* [[fill]align][sign][#][0][width][,][.precision][type] */
static int parse_layout(struct render *r, const struct jstr *spec, struct layout *l)
{
	const char *s = spec->s;
	size_t n = spec->n, i = 0, after = 0;

	*l = (struct layout){.fill = ' ', .precision = -1};
	if (n)
		l->fill = utf8_next(s, n, &after);
	if (after < n && strchr("<>=^", s[after]) && s[after]) {
		l->align = s[after];
		i = after + 1;
	} else {
		l->fill = ' ';
		if (n && strchr("<>=^", s[0]) && s[0])
			l->align = s[i++];
	}
	if (i < n && (s[i] == '+' || s[i] == '-' || s[i] == ' '))
		l->sign = s[i++];
	if (i < n && s[i] == '#') {
		l->alternate = 1;
		i++;
	}
	if (i < n && s[i] == '0') {
		if (!l->align) {
			l->align = '=';
			l->fill = '0';
		}
		i++;
	}
	for (; i < n && isdigit((unsigned char)s[i]) && l->width < INT32_MAX; i++)
		l->width = l->width * 10 + (s[i] - '0');
	if (i < n && (s[i] == ',' || s[i] == '_'))
		l->grouping = s[i++];
	if (i < n && s[i] == '.') {
		size_t digits = ++i;

		l->precision = 0;
		for (; i < n && isdigit((unsigned char)s[i]) && l->precision <= MAX_PRECISION; i++)
			l->precision = l->precision * 10 + (s[i] - '0');
		if (i == digits || l->precision > MAX_PRECISION) {
			render_fail(r, "format specifier '%.*s': missing or too big precision", (int)(n < 100 ? n : 100), s);
			return -1;
		}
	}
	if (i < n)
		l->type = s[i++];
	if (i < n || l->width >= INT32_MAX) {
		render_fail(r, "invalid format specifier '%.*s'", (int)(n < 100 ? n : 100), s);
		return -1;
	}
	return 0;
}

static void format_number(struct render *r, struct buf *out, struct layout *l, struct jval v)
{
	if (l->type && strchr("eEfFgG%", l->type)) {
		layout_add_float(r, out, l, jval_as_double(v));
		return;
	}
	if (v.type == J_FLOAT) {
		if (l->type && l->type != 'n')
			render_fail(r, "unknown format code '%c' for object of type 'float'", l->type);
		else
			layout_add_float(r, out, l, v.d);
		return;
	}
	if (l->precision >= 0) {
		render_fail(r, "precision not allowed in integer format specifier");
	} else if (l->type == 'c') {
		struct buf text = {0};
		__int128 c = jval_as_int(v);

		if (c < 0 || c > 0x10FFFF || (c >= 0xD800 && c < 0xE000)) {
			render_fail(r, "%%c: not a character");
			return;
		}
		utf8_add(&text, (int32_t)c);
		layout_add_padded(r, out, l, l->align ? l->align : '<', "", text.data, text.len);
		buf_release(&text);
	} else if (l->type && !strchr("bdnoxX", l->type)) {
		render_fail(r, "unknown format code '%c' for object of type '%s'", l->type, jval_type_name(v));
	} else {
		layout_add_integer(r, out, l, jval_as_int(v));
	}
}

static void format_value(struct render *r, struct buf *out, struct jval v, const struct jstr *spec)
{
	struct layout l;

	if (spec->n == 0) {
		text_add_value(r, out, v);
		return;
	}
	if (v.type != J_STR && !jval_is_number(v)) {
		render_fail(r, "unsupported format string passed to %s.__format__", jval_type_name(v));
		return;
	}
	if (parse_layout(r, spec, &l))
		return;
	if (v.type != J_STR) {
		format_number(r, out, &l, v);
		return;
	}
	if ((l.type && l.type != 's') || l.sign || l.alternate || l.grouping || (l.align == '=' && l.fill != '0')) {
		render_fail(r, "invalid format specifier '%.*s' for a string", (int)(spec->n < 100 ? spec->n : 100), spec->s);
		return;
	}
	layout_add_text(r, out, &l, l.align == '=' || !l.align ? '<' : l.align, v.str);
}

/* "name.attr[index]" */
static struct jval find_field(struct braces *b, const char *s, size_t n)
{
	struct render *r = b->r;
	size_t i = 0;
	struct jval v = {.type = J_MISSING}, first;

	while (i < n && s[i] != '.' && s[i] != '[')
		i++;
	first = jval_str(r, s, i);
	if (r->failed)
		return first;
	if (i == 0 || int_parse(r, first.str, 10).type == J_INT) {
		__int128 index;

		if ((i == 0) != (b->next_auto >= 0) && !(b->next_auto == 0 && i > 0))
			return render_fail(r, "cannot switch between automatic and manual field numbering");
		index = i == 0 ? b->next_auto++ : int_parse(r, first.str, 10).i;
		if (i > 0)
			b->next_auto = -1;
		if (index < 0 || index >= (__int128)b->args->n)
			return render_fail(r, "replacement index out of range for the %zu arguments of format()", b->args->n);
		v = b->args->values[(size_t)index];
	} else {
		for (size_t k = 0; k < b->args->n_keywords; k++)
			if (b->args->keywords[k].name->n == i && memcmp(b->args->keywords[k].name->s, s, i) == 0)
				v = b->args->keywords[k].value;
		if (v.type == J_MISSING)
			return render_fail(r, "format(): no argument '%.*s'", (int)(i < 100 ? i : 100), s);
	}
	while (i < n && !r->failed) {
		size_t from = i + 1, to = from;
		struct jval part;

		if (s[i] != '.' && s[i] != '[')
			return render_fail(r, "only '.' or '[' may follow ']' in a format field");
		while (to < n && (s[i] == '[' ? s[to] != ']' : s[to] != '.' && s[to] != '['))
			to++;
		if (to == from || (s[i] == '[' && to == n))
			return render_fail(r, "empty or unclosed attribute in a format field");
		part = jval_str(r, s + from, to - from);
		if (r->failed)
			return part;
		if (s[i] == '[') {
			struct jval number = int_parse(r, part.str, 10);

			v = get_item(r, v, number.type == J_INT && isdigit((unsigned char)s[from]) ? number : part);
			to++;
		} else {
			v = get_attribute(r, v, part.str);
		}
		i = to;
	}
	return v;
}

/* The inside of {...}. */
static void format_field(struct braces *b, const char *s, size_t n, struct buf *out, int depth)
{
	struct render *r = b->r;
	size_t name = 0, spec_from = n;
	char conversion = 0;
	struct buf spec = {0}, text = {0};
	struct jval v, spec_str;
	int brackets = 0;

	while (name < n && (brackets || (s[name] != '!' && s[name] != ':'))) {
		brackets = s[name] == '[' ? 1 : s[name] == ']' ? 0 : brackets;
		name++;
	}
	if (name < n && s[name] == '!') {
		if (name + 1 >= n || (name + 2 < n && s[name + 2] != ':')) {
			render_fail(r, "format(): bad conversion in a field");
			return;
		}
		conversion = s[name + 1];
		spec_from = name + 3;
	} else if (name < n) {
		spec_from = name + 1;
	}
	v = find_field(b, s, name);
	if (conversion == 'r' || conversion == 'a' || conversion == 's') {
		if (conversion == 's')
			text_add_value(r, &text, v);
		else
			text_add_repr(r, &text, v);
		v = jval_text(r, &text);
	} else if (conversion) {
		render_fail(r, "format(): unknown conversion '%c'", conversion);
	}
	if (spec_from < n && !r->failed)
		format_text(b, s + spec_from, n - spec_from, &spec, depth + 1);
	spec_str = jval_text(r, &spec);
	if (r->failed)
		return;
	if (b->markup && depth == 0) {
		format_value(r, &text, v, spec_str.str);
		if (!(v.type == J_STR && v.flag)) {
			v = str_escape(r, jval_text(r, &text));
			if (!r->failed)
				text_add_str(r, out, v.str);
		} else {
			text_add(r, out, buf_str(&text), text.len);
			buf_release(&text);
		}
		return;
	}
	format_value(r, out, v, spec_str.str);
}

static void format_text(struct braces *b, const char *s, size_t n, struct buf *out, int depth)
{
	struct render *r = b->r;

	if (depth > 1) {
		render_fail(r, "format(): max string recursion exceeded");
		return;
	}
	for (size_t i = 0; i < n && !r->failed;) {
		size_t to = i;
		int open = 1;

		while (to < n && s[to] != '{' && s[to] != '}')
			to++;
		text_add(r, out, s + i, to - i);
		if (to == n)
			return;
		i = to + 1;
		if (i < n && s[i] == s[to]) {
			text_add(r, out, s + i, 1);
			i++;
			continue;
		}
		if (s[to] == '}') {
			render_fail(r, "format(): single '}' encountered in format string");
			return;
		}
		for (to = i; to < n; to++) {
			open += s[to] == '{' ? 1 : s[to] == '}' ? -1 : 0;
			if (!open)
				break;
		}
		if (open) {
			render_fail(r, "format(): expected '}' before end of string");
			return;
		}
		format_field(b, s + i, to - i, out, depth);
		i = to + 1;
	}
}

struct jval format_braces(struct render *r, struct jval format, const struct jargs *args)
{
	struct braces b = {.r = r, .args = args, .markup = format.flag};
	struct buf out = {0};
	struct jval v;

	format_text(&b, format.str->s, format.str->n, &out, 0);
	v = jval_text(r, &out);
	v.flag = v.type == J_STR ? format.flag : v.flag;
	return v;
}
