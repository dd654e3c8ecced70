/* jinja_percent.c: "..." % args, Python's printf-style formatting. */
#include <ctype.h>
#include <math.h>
#include <string.h>

#include "engine/text/jinja_eval.h"
#include "engine/text/jinja_layout.h"
#include "engine/text/jinja_unicode.h"

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
		render_fail(p->r, "%%%c format: the number needs more than 128 bits", l->type);
	} else {
		if (!strchr("xXo", l->type))
			l->type = 'd';
		layout_add_integer(p->r, out, l, v.type == J_FLOAT ? (__int128)v.d : jval_as_int(v));
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
			layout_add_float(r, out, l, jval_as_double(v));
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
		layout_add_text(r, out, l, l->align ? l->align : '>', s.str);
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
	struct percent p = {
	    .r = r, .s = format.str->s, .n = format.str->n, .arg = arg, .values = &arg, .n_values = 1, .markup = format.flag};
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
