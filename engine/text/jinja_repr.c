/* jinja_repr.c: values as text: Python's str and repr, and json.dumps. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/text/jinja_eval.h"
#include "engine/text/jinja_unicode.h"
#include "engine/text/jinja_value.h"

void text_add_int(struct buf *b, __int128 i)
{
	char digits[48];
	size_t at = sizeof(digits);
	unsigned __int128 u = i < 0 ? -(unsigned __int128)i : (unsigned __int128)i;

	do {
		digits[--at] = (char)('0' + (int)(u % 10));
		u /= 10;
	} while (u);
	if (i < 0)
		digits[--at] = '-';
	buf_add(b, digits + at, sizeof(digits) - at);
}

void text_add_float(struct buf *b, double d)
{
	char text[64], digits[32];
	int exponent, n = 0;

	if (isnan(d) || isinf(d)) {
		buf_adds(b, isnan(d) ? "nan" : d < 0 ? "-inf" : "inf");
		return;
	}
	for (int precision = 1; precision <= 17; precision++) {
		snprintf(text, sizeof(text), "%.*e", precision - 1, d);
		if (strtod(text, NULL) == d)
			break;
	}
	for (const char *p = text; *p && *p != 'e'; p++)
		if (*p >= '0' && *p <= '9')
			digits[n++] = *p;
	exponent = atoi(strchr(text, 'e') + 1);
	if (signbit(d))
		buf_addc(b, '-');
	/* float.__repr__: exponents below -4 and from 16 on are written as such. */
	if (exponent < -4 || exponent >= 16) {
		buf_addc(b, digits[0]);
		if (n > 1) {
			buf_addc(b, '.');
			buf_add(b, digits + 1, (size_t)n - 1);
		}
		buf_addf(b, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
		return;
	}
	if (exponent < 0) {
		buf_adds(b, "0.");
		for (int i = -1; i > exponent; i--)
			buf_addc(b, '0');
		buf_add(b, digits, (size_t)n);
		return;
	}
	for (int i = 0; i <= exponent; i++)
		buf_addc(b, i < n ? digits[i] : '0');
	buf_addc(b, '.');
	if (n > exponent + 1)
		buf_add(b, digits + exponent + 1, (size_t)(n - exponent - 1));
	else
		buf_addc(b, '0');
}

static void add_str_repr(struct render *r, struct buf *b, const struct jstr *s)
{
	char quote = memchr(s->s, '\'', s->n) && !memchr(s->s, '"', s->n) ? '"' : '\'';

	text_add(r, b, &quote, 1);
	for (size_t i = 0; i < s->n && !r->failed;) {
		size_t from = i;
		int32_t c = utf8_next(s->s, s->n, &i);
		char esc[16];

		if (c == quote || c == '\\')
			snprintf(esc, sizeof(esc), "\\%c", (char)c);
		else if (c == '\n' || c == '\r' || c == '\t')
			snprintf(esc, sizeof(esc), "\\%c", c == '\n' ? 'n' : c == '\r' ? 'r' : 't');
		else if (unicode_is_printable(c)) {
			text_add(r, b, s->s + from, i - from);
			continue;
		} else if (c < 0x100)
			snprintf(esc, sizeof(esc), "\\x%02x", (unsigned)c);
		else
			snprintf(esc, sizeof(esc), c < 0x10000 ? "\\u%04x" : "\\U%08x", (unsigned)c);
		text_adds(r, b, esc);
	}
	text_add(r, b, &quote, 1);
}

static void add_items(struct render *r, struct buf *b, const struct jlist *l, const char *open, const char *close)
{
	text_adds(r, b, open);
	for (size_t i = 0; i < l->n && !r->failed; i++) {
		if (i)
			text_adds(r, b, ", ");
		text_add_repr(r, b, l->items[i]);
	}
	text_adds(r, b, close);
}

static void add_dict(struct render *r, struct buf *b, const struct jdict *d, enum jtype as)
{
	text_adds(r, b, as == J_DICT ? "{" : "[");
	for (size_t i = 0; i < d->n && !r->failed; i++) {
		if (i)
			text_adds(r, b, ", ");
		if (as == J_ITEMS)
			text_adds(r, b, "(");
		if (as != J_VALUES)
			text_add_repr(r, b, d->entries[i].key);
		if (as == J_DICT || as == J_ITEMS)
			text_adds(r, b, as == J_DICT ? ": " : ", ");
		if (as != J_KEYS)
			text_add_repr(r, b, d->entries[i].value);
		if (as == J_ITEMS)
			text_adds(r, b, ")");
	}
	text_adds(r, b, as == J_DICT ? "}" : "]");
}

static void add_repr(struct render *r, struct buf *b, struct jval v)
{
	struct buf t = {0};

	switch (v.type) {
	case J_UNDEFINED:
		text_adds(r, b, "Undefined");
		break;
	case J_MISSING:
	case J_NONE:
		text_adds(r, b, "None");
		break;
	case J_BOOL:
		text_adds(r, b, v.flag ? "True" : "False");
		break;
	case J_INT:
		text_add_int(&t, v.i);
		break;
	case J_FLOAT:
		text_add_float(&t, v.d);
		break;
	case J_STR:
		text_adds(r, b, v.flag ? "Markup(" : "");
		add_str_repr(r, b, v.str);
		text_adds(r, b, v.flag ? ")" : "");
		break;
	case J_LIST:
		add_items(r, b, v.list, "[", "]");
		break;
	case J_TUPLE:
		add_items(r, b, v.list, "(", v.list->n == 1 ? ",)" : ")");
		break;
	case J_DICT:
		add_dict(r, b, v.dict, J_DICT);
		break;
	case J_KEYS:
	case J_VALUES:
	case J_ITEMS:
		buf_addf(&t, "%s(", jval_type_name(v));
		text_add(r, b, t.data, t.len);
		buf_reset(&t);
		add_dict(r, b, v.dict, v.type);
		text_adds(r, b, ")");
		break;
	case J_RANGE:
		buf_addf(&t, "range(%lld, %lld", (long long)v.range->start, (long long)(v.range->start + v.range->step * v.range->n));
		buf_addf(&t, v.range->step == 1 ? ")" : ", %lld)", (long long)v.range->step);
		break;
	case J_NAMESPACE:
		text_adds(r, b, "<Namespace ");
		add_dict(r, b, v.dict, J_DICT);
		text_adds(r, b, ">");
		break;
	case J_LOOP:
		buf_addf(&t, "<LoopContext %lld/%lld>", (long long)v.loop->index0 + 1, (long long)loop_length(r, v.loop));
		break;
	case J_MACRO:
		if (v.macro->node->name)
			buf_addf(&t, "<Macro '%.*s'>", (int)v.macro->node->name->n, v.macro->node->name->s);
		else
			buf_adds(&t, "<Macro anonymous>");
		break;
	case J_FUNCTION:
		buf_addf(&t, "<function %s>", v.function->name);
		break;
	case J_METHOD:
		buf_addf(&t, "<built-in method %s of %s object>", v.bound->method->name, jval_type_name(v.bound->self));
		break;
	default:
		buf_addf(&t, "<%s object>", jval_type_name(v));
	}
	if (t.len)
		text_add(r, b, t.data, t.len);
	buf_release(&t);
}

/* Data has no cycles except through namespaces, but may be nested as deeply as a template likes. */
static int enter(struct render *r)
{
	if (r->failed || !render_step(r, 1))
		return 0;
	if (r->depth >= JINJA_MAX_DEPTH) {
		render_fail(r, "data nested too deeply to print");
		return 0;
	}
	r->depth++;
	return 1;
}

void text_add_repr(struct render *r, struct buf *b, struct jval v)
{
	if (enter(r)) {
		add_repr(r, b, v);
		r->depth--;
	}
}

void text_add_value(struct render *r, struct buf *b, struct jval v)
{
	if (v.type == J_STR)
		text_add_str(r, b, v.str);
	else if (v.type != J_UNDEFINED && v.type != J_MISSING)
		text_add_repr(r, b, v);
}

const struct jstr *jval_to_str(struct render *r, struct jval v)
{
	static const struct jstr empty = {.s = ""};
	struct buf b = {0};

	if (v.type == J_STR)
		return v.str;
	text_add_value(r, &b, v);
	v = jval_text(r, &b);
	return v.type == J_STR ? v.str : &empty;
}

static void add_json_str(struct render *r, struct buf *b, const struct jstr *s, int ensure_ascii)
{
	text_adds(r, b, "\"");
	for (size_t i = 0; i < s->n && !r->failed;) {
		size_t from = i;
		int32_t c = utf8_next(s->s, s->n, &i);
		char esc[16];
		const char *known = c == '"'    ? "\\\""
		                    : c == '\\' ? "\\\\"
		                    : c == '\n' ? "\\n"
		                    : c == '\r' ? "\\r"
		                    : c == '\t' ? "\\t"
		                    : c == '\b' ? "\\b"
		                    : c == '\f' ? "\\f"
		                                : NULL;

		if (known) {
			text_adds(r, b, known);
		} else if (c >= 0x20 && (c < 0x80 || !ensure_ascii) && !(ensure_ascii && c == 0x7F)) {
			/* A run of plain characters at once. */
			while (i < s->n && (unsigned char)s->s[i] >= 0x20 && (unsigned char)s->s[i] < 0x7F && s->s[i] != '"' &&
			       s->s[i] != '\\')
				i++;
			text_add(r, b, s->s + from, i - from);
		} else {
			if (c < 0x10000)
				snprintf(esc, sizeof(esc), "\\u%04x", (unsigned)c);
			else
				snprintf(esc, sizeof(esc), "\\u%04x\\u%04x", 0xD800u + ((unsigned)(c - 0x10000) >> 10),
				         0xDC00u + ((unsigned)(c - 0x10000) & 0x3FF));
			text_adds(r, b, esc);
		}
	}
	text_adds(r, b, "\"");
}

static void json_newline(struct render *r, struct buf *b, const struct json_style *style, int level)
{
	if (!style->indent)
		return;
	text_adds(r, b, "\n");
	for (int i = 0; i < level && !r->failed; i++)
		text_add_str(r, b, style->indent);
}

static void add_json_number(struct render *r, struct buf *b, struct jval v)
{
	struct buf t = {0};

	if (v.type == J_INT)
		text_add_int(&t, v.i);
	else if (isnan(v.d) || isinf(v.d))
		buf_adds(&t, isnan(v.d) ? "NaN" : v.d < 0 ? "-Infinity" : "Infinity");
	else
		text_add_float(&t, v.d);
	text_add(r, b, t.data, t.len);
	buf_release(&t);
}

static void add_json(struct render *r, struct buf *b, struct jval v, const struct json_style *style, int level);

static void add_json_dict(struct render *r, struct buf *b, const struct jdict *d, const struct json_style *style, int level)
{
	size_t n = d->n;
	struct jval *keys = render_alloc(r, (n ? n : 1) * sizeof(*keys)), *values = render_alloc(r, (n ? n : 1) * sizeof(*values));

	if (!keys || !values)
		return;
	for (size_t i = 0; i < n; i++) {
		keys[i] = d->entries[i].key;
		values[i] = d->entries[i].value;
	}
	if (style->sort_keys)
		jval_sort(r, keys, values, n, 0);
	text_adds(r, b, "{");
	for (size_t i = 0; i < n && !r->failed; i++) {
		if (i)
			text_add_str(r, b, style->item_separator);
		json_newline(r, b, style, level + 1);
		switch (keys[i].type) {
		case J_STR:
			add_json_str(r, b, keys[i].str, style->ensure_ascii);
			break;
		case J_NONE:
		case J_BOOL:
		case J_INT:
		case J_FLOAT:
			text_adds(r, b, "\"");
			add_json(r, b, keys[i], style, level);
			text_adds(r, b, "\"");
			break;
		default:
			render_fail(r, "tojson: keys must be str, int, float, bool or None, not %s", jval_type_name(keys[i]));
		}
		text_add_str(r, b, style->key_separator);
		add_json(r, b, values[i], style, level + 1);
	}
	if (n)
		json_newline(r, b, style, level);
	text_adds(r, b, "}");
}

static void add_json(struct render *r, struct buf *b, struct jval v, const struct json_style *style, int level)
{
	if (!enter(r))
		return;
	switch (v.type) {
	case J_NONE:
		text_adds(r, b, "null");
		break;
	case J_BOOL:
		text_adds(r, b, v.flag ? "true" : "false");
		break;
	case J_INT:
	case J_FLOAT:
		add_json_number(r, b, v);
		break;
	case J_STR:
		add_json_str(r, b, v.str, style->ensure_ascii);
		break;
	case J_LIST:
	case J_TUPLE:
		text_adds(r, b, "[");
		for (size_t i = 0; i < v.list->n && !r->failed; i++) {
			if (i)
				text_add_str(r, b, style->item_separator);
			json_newline(r, b, style, level + 1);
			add_json(r, b, v.list->items[i], style, level + 1);
		}
		if (v.list->n)
			json_newline(r, b, style, level);
		text_adds(r, b, "]");
		break;
	case J_DICT:
		add_json_dict(r, b, v.dict, style, level);
		break;
	default:
		render_fail(r, "tojson: object of type %s is not JSON serializable", jval_type_name(v));
	}
	r->depth--;
}

void text_add_json(struct render *r, struct buf *b, struct jval v, const struct json_style *style)
{
	add_json(r, b, v, style, 0);
}
