/* jinja_format.c: "..." % args and "...".format(args). */
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/text/jinja_eval.h"
#include "engine/text/jinja_unicode.h"

/* How a number or text is to be laid out: both mini-languages come down to this. */
struct layout {
	int32_t fill;
	char align;     /* '<', '>', '^', '=' or 0 */
	char sign;      /* '+', ' ' or 0 */
	int alternate;  /* # */
	char grouping;  /* ',', '_' or 0 */
	int64_t width;
	int precision;  /* -1: none */
	char type;      /* 0: none */
};
#define MAX_PRECISION 2000

/* prefix (sign, 0x) and body, padded to the width; align '=' pads between the two. */
static void add_padded(struct render *r, struct buf *out, const struct layout *l, char align, const char *prefix, const char *body,
                       size_t n)
{
	int64_t room = l->width - (int64_t)strlen(prefix) - (int64_t)utf8_count(body, n), left, right;
	struct buf fill = {0};

	utf8_add(&fill, l->fill);
	if (room < 0)
		room = 0;
	left = align == '<' || align == '=' ? 0 : align == '^' ? room / 2 : room;
	right = align == '<' || align == '^' ? room - left : 0;
	for (int64_t i = 0; i < left && !r->failed; i++)
		text_add(r, out, fill.data, fill.len);
	text_adds(r, out, prefix);
	for (int64_t i = 0; align == '=' && i < room && !r->failed; i++)
		text_add(r, out, fill.data, fill.len);
	text_add(r, out, body, n);
	for (int64_t i = 0; i < right && !r->failed; i++)
		text_add(r, out, fill.data, fill.len);
	buf_release(&fill);
}

static void add_unsigned(struct buf *b, unsigned __int128 u, unsigned base, int upper)
{
	char digits[130];
	size_t at = sizeof(digits);

	do {
		digits[--at] = (upper ? "0123456789ABCDEF" : "0123456789abcdef")[u % base];
		u /= base;
	} while (u);
	buf_add(b, digits + at, sizeof(digits) - at);
}

/* Separators into the leading run of digits. */
static void group_digits(struct buf *b, char separator, int every)
{
	size_t n = 0;
	struct buf out = {0};

	while (n < b->len && isxdigit((unsigned char)b->data[n]))
		n++;
	for (size_t i = 0; i < n; i++) {
		if (i && (n - i) % (size_t)every == 0)
			buf_addc(&out, separator);
		buf_addc(&out, b->data[i]);
	}
	buf_add(&out, b->data + n, b->len - n);
	buf_release(b);
	*b = out;
}

static void add_integer(struct render *r, struct buf *out, const struct layout *l, __int128 i)
{
	unsigned __int128 u = i < 0 ? -(unsigned __int128)i : (unsigned __int128)i;
	unsigned base = l->type == 'x' || l->type == 'X' ? 16 : l->type == 'o' ? 8 : l->type == 'b' ? 2 : 10;
	char prefix[8] = "";
	struct buf digits = {0};

	if (i < 0 || l->sign)
		snprintf(prefix, sizeof(prefix), "%c", i < 0 ? '-' : l->sign);
	if (l->alternate && base != 10)
		snprintf(prefix + strlen(prefix), sizeof(prefix) - strlen(prefix), "0%c", l->type);
	add_unsigned(&digits, u, base, l->type == 'X');
	if (l->precision > (int)digits.len) { /* only %: minimal digits */
		struct buf padded = {0};

		for (int k = (int)digits.len; k < l->precision; k++)
			buf_addc(&padded, '0');
		buf_add(&padded, digits.data, digits.len);
		buf_release(&digits);
		digits = padded;
	}
	if (l->grouping)
		group_digits(&digits, l->grouping, base == 10 ? 3 : 4);
	add_padded(r, out, l, l->align ? l->align : '>', prefix, buf_str(&digits), digits.len);
	buf_release(&digits);
}

/* The digits of |d| as the type asks. */
static void add_float_digits(struct buf *b, const struct layout *l, double d)
{
	char format[16], type = l->type == 'n' ? 'g' : l->type;
	int precision = l->precision < 0 ? 6 : l->precision;

	if (isnan(d) || isinf(d)) {
		int upper = l->type == 'F' || l->type == 'E' || l->type == 'G';

		buf_adds(b, isnan(d) ? (upper ? "NAN" : "nan") : upper ? "INF" : "inf");
		return;
	}
	if (!type && l->precision < 0) {
		text_add_float(b, d);
		return;
	}
	if (!type) {
		/* As g, but with a digit after the point unless there is an exponent (format(3.0, ".3") is "3.0"). */
		size_t from = b->len;

		if (precision == 0)
			precision = 1;
		buf_addf(b, "%.*g", precision, d);
		if (!strpbrk(b->data + from, ".e"))
			buf_adds(b, ".0");
		return;
	}
	if (type == '%') {
		buf_addf(b, "%.*f%%", precision, d * 100);
		return;
	}
	snprintf(format, sizeof(format), "%%%s.*%c", l->alternate ? "#" : "", type);
	if ((type == 'g' || type == 'G') && precision == 0)
		precision = 1;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	buf_addf(b, format, precision, d);
#pragma GCC diagnostic pop
}

static void add_float(struct render *r, struct buf *out, const struct layout *l, double d)
{
	char prefix[2] = "";
	struct buf digits = {0};

	if ((signbit(d) && !isnan(d)) || l->sign)
		prefix[0] = signbit(d) && !isnan(d) ? '-' : l->sign;
	add_float_digits(&digits, l, fabs(d));
	if (l->grouping)
		group_digits(&digits, l->grouping, 3);
	add_padded(r, out, l, l->align ? l->align : '>', prefix, buf_str(&digits), digits.len);
	buf_release(&digits);
}

static void add_text(struct render *r, struct buf *out, const struct layout *l, char align, const struct jstr *s)
{
	size_t n = s->n;

	if (l->precision >= 0 && (size_t)l->precision < s->n_chars)
		n = utf8_offset(s->s, s->n, s->n_chars, (size_t)l->precision);
	add_padded(r, out, l, align, "", s->s, n);
}

/* ---- "..." % args ---- */

struct percent {
	struct render *r;
	const char *s;
	size_t n, at;
	struct jval arg;
	const struct jval *values;
	size_t n_values, used;
	int markup;
};

static int next_value(struct percent *p, struct jval *out)
{
	if (p->used >= p->n_values) {
		render_fail(p->r, "not enough arguments for format string");
		return -1;
	}
	*out = p->values[p->used++];
	return 0;
}

/* A number or `*`. */
static int64_t percent_number(struct percent *p)
{
	int64_t v = 0;

	if (p->at < p->n && p->s[p->at] == '*') {
		struct jval given;

		p->at++;
		return next_value(p, &given) ? 0 : arg_int(p->r, "* in a format string", given, 0);
	}
	while (p->at < p->n && isdigit((unsigned char)p->s[p->at])) {
		v = v * 10 + (p->s[p->at++] - '0');
		if (v > INT32_MAX) {
			render_fail(p->r, "width too big in a format string");
			return 0;
		}
	}
	return v;
}

static int percent_key(struct percent *p, struct jval *out)
{
	size_t from = p->at + 1, to = from;
	int open = 1;
	struct jval key;

	while (to < p->n && open) {
		open += p->s[to] == '(' ? 1 : p->s[to] == ')' ? -1 : 0;
		to++;
	}
	if (open) {
		render_fail(p->r, "incomplete format key");
		return -1;
	}
	if (p->arg.type != J_DICT) {
		render_fail(p->r, "format requires a mapping");
		return -1;
	}
	p->at = to;
	key = jval_str(p->r, p->s + from, to - 1 - from);
	if (!dict_find(p->r, p->arg.dict, key, out)) {
		render_fail(p->r, "format string: no key '%.*s'", (int)(to - 1 - from < 100 ? to - 1 - from : 100), p->s + from);
		return -1;
	}
	return 0;
}

static void percent_integer(struct percent *p, struct buf *out, struct layout *l, struct jval v)
{
	if (v.type == J_UNDEFINED) {
		render_fail_undefined(p->r, v);
	} else if (!jval_is_number(v) || (v.type == J_FLOAT && strchr("xXo", l->type))) {
		render_fail(p->r, "%%%c format: a number is required, not %s", l->type, jval_type_name(v));
	} else if (v.type == J_FLOAT && !(fabs(v.d) < 1e38)) {
		render_fail(p->r, "cannot convert the float to an integer");
	} else {
		if (!strchr("xXo", l->type))
			l->type = 'd';
		add_integer(p->r, out, l, v.type == J_FLOAT ? (__int128)v.d : jval_as_int(v));
	}
}

static void percent_convert(struct percent *p, struct buf *out, struct layout *l, struct jval v)
{
	struct render *r = p->r;
	struct buf text = {0};
	struct jval s;

	switch (l->type) {
	case 'd':
	case 'i':
	case 'u':
	case 'x':
	case 'X':
	case 'o':
		percent_integer(p, out, l, v);
		return;
	case 'e':
	case 'E':
	case 'f':
	case 'F':
	case 'g':
	case 'G':
		if (v.type == J_UNDEFINED)
			render_fail_undefined(r, v);
		else if (!jval_is_number(v))
			render_fail(r, "must be real number, not %s", jval_type_name(v));
		else
			add_float(r, out, l, jval_as_double(v));
		return;
	case 's':
		s = p->markup ? str_escape(r, v) : (struct jval){.type = J_STR, .str = jval_to_str(r, v)};
		break;
	case 'r':
		text_add_repr(r, &text, v);
		s = jval_text(r, &text);
		if (p->markup && !r->failed)
			s = str_escape(r, s);
		break;
	case 'c':
		if (v.type == J_STR && v.str->n_chars == 1) {
			s = v;
		} else if (jval_is_integer(v) && jval_as_int(v) >= 0 && jval_as_int(v) < 0x110000 &&
		           !(jval_as_int(v) >= 0xD800 && jval_as_int(v) < 0xE000)) {
			utf8_add(&text, (int32_t)jval_as_int(v));
			s = jval_text(r, &text);
		} else {
			render_fail(r, "%%c requires int or char");
			return;
		}
		l->precision = -1;
		break;
	default:
		render_fail(r, "unsupported format character '%c'", l->type);
		return;
	}
	if (!r->failed)
		add_text(r, out, l, l->align ? l->align : '>', s.str);
}

static void percent_item(struct percent *p, struct buf *out)
{
	struct layout l = {.fill = ' ', .precision = -1};
	struct jval v = {.type = J_MISSING};
	int zero = 0, left = 0;

	if (p->at < p->n && p->s[p->at] == '(' && percent_key(p, &v))
		return;
	for (; p->at < p->n && p->s[p->at] && strchr("-+ #0", p->s[p->at]); p->at++) {
		char c = p->s[p->at];

		left |= c == '-';
		zero |= c == '0';
		l.alternate |= c == '#';
		if (c == '+' || (c == ' ' && !l.sign))
			l.sign = c;
	}
	l.width = percent_number(p);
	if (l.width < 0) {
		left = 1;
		l.width = -l.width;
	}
	if (p->at < p->n && p->s[p->at] == '.') {
		int64_t precision;

		p->at++;
		precision = percent_number(p);
		if (precision > MAX_PRECISION)
			render_fail(p->r, "precision too big in a format string");
		l.precision = precision < 0 ? 0 : (int)precision;
	}
	while (p->at < p->n && p->s[p->at] && strchr("hlL", p->s[p->at]))
		p->at++;
	if (p->at >= p->n)
		render_fail(p->r, "incomplete format");
	if (p->r->failed)
		return;
	l.type = p->s[p->at++];
	if (l.type == '%') {
		text_adds(p->r, out, "%");
		return;
	}
	if (v.type == J_MISSING && next_value(p, &v))
		return;
	if (left)
		l.align = '<';
	else if (zero && l.type && strchr("diuxXoeEfFgG", l.type)) {
		l.align = '=';
		l.fill = '0';
	}
	percent_convert(p, out, &l, v);
}

struct jval format_percent(struct render *r, struct jval format, struct jval arg)
{
	struct percent p = {.r = r, .s = format.str->s, .n = format.str->n, .arg = arg, .values = &arg, .n_values = 1,
		.markup = format.flag};
	/* What Python takes for a mapping: anything with subscripts but str and tuple; its leftovers are no error. */
	int mapping = arg.type == J_DICT || arg.type == J_LIST || arg.type == J_RANGE || arg.type == J_UNDEFINED;
	struct buf out = {0};

	if (arg.type == J_TUPLE) {
		p.values = arg.list->items;
		p.n_values = arg.list->n;
	}
	while (p.at < p.n && !r->failed) {
		const char *next = memchr(p.s + p.at, '%', p.n - p.at);
		size_t to = next ? (size_t)(next - p.s) : p.n;

		text_add(r, &out, p.s + p.at, to - p.at);
		p.at = to;
		if (next) {
			p.at++;
			percent_item(&p, &out);
		}
	}
	if (!r->failed && p.used < p.n_values && !mapping)
		render_fail(r, "not all arguments converted during string formatting");
	arg = jval_text(r, &out);
	arg.flag = arg.type == J_STR ? format.flag : arg.flag;
	return arg;
}

/* ---- "...".format(args) ---- */

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
	if (i < n && (s[i] == '+' || s[i] == '-' || s[i] == ' ')) {
		l->sign = s[i] == '-' ? 0 : s[i];
		i++;
	}
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
		add_float(r, out, l, jval_as_double(v));
		return;
	}
	if (v.type == J_FLOAT) {
		if (l->type && l->type != 'n')
			render_fail(r, "unknown format code '%c' for object of type 'float'", l->type);
		else
			add_float(r, out, l, v.d);
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
		add_padded(r, out, l, l->align ? l->align : '<', "", text.data, text.len);
		buf_release(&text);
	} else if (l->type && !strchr("bdnoxX", l->type)) {
		render_fail(r, "unknown format code '%c' for object of type '%s'", l->type, jval_type_name(v));
	} else {
		add_integer(r, out, l, jval_as_int(v));
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
	add_text(r, out, &l, l.align == '=' || !l.align ? '<' : l.align, v.str);
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
