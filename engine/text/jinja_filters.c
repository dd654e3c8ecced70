/* jinja_filters.c: finding filters, and those that work on single values: defaults, numbers, attributes, JSON. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/text/jinja_eval.h"

static struct jval f_abs(struct render *r, struct jval v, const struct jargs *args)
{
	if (args_none(r, "abs", args))
		return jval_none();
	if (v.type == J_FLOAT)
		return jval_float(fabs(v.d));
	if (jval_is_integer(v))
		return jval_as_int(v) < 0 ? op_unary(r, N_NEG, v) : jval_int(jval_as_int(v));
	if (v.type == J_UNDEFINED)
		return render_fail_undefined(r, v);
	return render_fail(r, "abs: bad operand type '%s'", jval_type_name(v));
}

static struct jval f_attr(struct render *r, struct jval v, const struct jargs *args)
{
	static const char *const names[] = {"name"};
	const struct jstr *s;
	struct jval name, found;

	if (args_bind(r, "attr", args, 1, names, 1, &name))
		return jval_none();
	s = arg_str(r, "attr", name);
	if (!s)
		return jval_none();
	/* Attributes only: a dict's members are none. */
	if (v.type == J_DICT && dict_find(r, v.dict, name, &found)) {
		struct jval empty = jval_dict(dict_new(r));

		found = get_attribute(r, empty, s);
		return found.type == J_METHOD ? get_attribute(r, v, s) : found;
	}
	return get_attribute(r, v, s);
}

static struct jval f_default(struct render *r, struct jval v, const struct jargs *args)
{
	static const char *const names[] = {"default_value", "boolean"};
	struct jval a[2];

	if (args_bind(r, "default", args, 0, names, 2, a))
		return jval_none();
	if (v.type == J_UNDEFINED || (a[1].type != J_MISSING && jval_truth(r, a[1]) && !jval_truth(r, v)))
		return a[0].type == J_MISSING ? jval_strz(r, "") : a[0];
	return v;
}

static int to_float(struct jval v, double *out)
{
	if (v.type == J_STR)
		return float_parse(v.str, out);
	if (!jval_is_number(v))
		return 0;
	*out = jval_as_double(v);
	return 1;
}

static struct jval f_float(struct render *r, struct jval v, const struct jargs *args)
{
	static const char *const names[] = {"default"};
	struct jval otherwise;
	double d;

	if (args_bind(r, "float", args, 0, names, 1, &otherwise))
		return jval_none();
	if (v.type == J_UNDEFINED)
		return render_fail_undefined(r, v);
	if (to_float(v, &d))
		return jval_float(d);
	return otherwise.type == J_MISSING ? jval_float(0) : otherwise;
}

static struct jval f_int(struct render *r, struct jval v, const struct jargs *args)
{
	static const char *const names[] = {"default", "base"};
	struct jval a[2], i;
	int64_t base;
	double d;

	if (args_bind(r, "int", args, 0, names, 2, a))
		return jval_none();
	base = arg_int(r, "int", a[1], 10);
	if (v.type == J_UNDEFINED)
		return render_fail_undefined(r, v);
	if (jval_is_integer(v))
		return jval_int(jval_as_int(v));
	if (v.type == J_STR && (base == 0 || (base >= 2 && base <= 36))) {
		i = int_parse(r, v.str, (int)base);
		if (i.type != J_MISSING)
			return i;
	}
	if (v.type == J_FLOAT && isinf(v.d))
		return render_fail(r, "int: cannot convert float infinity to integer");
	if (to_float(v, &d) && isfinite(d)) {
		if (fabs(d) >= 1e38)
			return render_fail(r, "int: the number needs more than 128 bits");
		return jval_int((__int128)d);
	}
	return a[0].type == J_MISSING ? jval_int(0) : a[0];
}

/* round(int, -digits) */
static struct jval round_int(struct render *r, __int128 i, int64_t digits)
{
	__int128 unit = 1, rest, down;

	for (; digits < 0; digits++)
		if (__builtin_mul_overflow(unit, (__int128)10, &unit))
			return jval_int(0);
	rest = i % unit;
	if (rest < 0)
		rest += unit;
	down = i - rest;
	if (rest > unit - rest || (rest == unit - rest && (down / unit) % 2 != 0))
		down += unit;
	return jval_int(down);
}

static struct jval f_round(struct render *r, struct jval v, const struct jargs *args)
{
	static const char *const names[] = {"precision", "method"};
	struct jval a[2];
	int64_t digits;
	double d, unit;

	if (args_bind(r, "round", args, 0, names, 2, a))
		return jval_none();
	digits = arg_int(r, "round", a[0], 0);
	if (a[1].type != J_MISSING && !jval_is_str(a[1], "common") && !jval_is_str(a[1], "ceil") && !jval_is_str(a[1], "floor"))
		return render_fail(r, "round: method must be common, ceil or floor");
	if (v.type == J_UNDEFINED)
		return render_fail_undefined(r, v);
	if (!jval_is_number(v))
		return render_fail(r, "round: type '%s' cannot be rounded", jval_type_name(v));
	if (r->failed)
		return jval_none();
	digits = digits > 400 ? 400 : digits < -400 ? -400 : digits;
	if (a[1].type == J_MISSING || jval_is_str(a[1], "common")) {
		if (v.type != J_FLOAT)
			return round_int(r, jval_as_int(v), digits);
		return jval_float(round_half_even(v.d, (int)digits));
	}
	unit = pow(10, (double)digits);
	d = jval_as_double(v) * unit;
	d = jval_is_str(a[1], "ceil") ? ceil(d) : floor(d);
	if (!isfinite(d) || unit == 0)
		return render_fail(r, "round: the number is out of range");
	return jval_float(d / unit);
}

/* transformers' override: json.dumps(x, ensure_ascii, indent, separators, sort_keys). */
static struct jval f_tojson(struct render *r, struct jval v, const struct jargs *args)
{
	static const char *const names[] = {"ensure_ascii", "indent", "separators", "sort_keys"};
	static const struct jstr comma = {.s = ",", .n = 1}, comma_blank = {.s = ", ", .n = 2}, colon_blank = {.s = ": ", .n = 2};
	struct json_style style = {.item_separator = &comma_blank, .key_separator = &colon_blank};
	struct jstr indent;
	struct buf blanks = {0}, text = {0};
	struct jval a[4];

	if (args_bind(r, "tojson", args, 0, names, 4, a))
		return jval_none();
	style.ensure_ascii = a[0].type != J_MISSING && jval_truth(r, a[0]);
	style.sort_keys = a[3].type != J_MISSING && jval_truth(r, a[3]);
	if (a[1].type == J_STR) {
		style.indent = a[1].str;
	} else if (a[1].type != J_MISSING && a[1].type != J_NONE) {
		int64_t n = arg_int(r, "tojson", a[1], 0);

		for (int64_t i = 0; i < n && !r->failed; i++)
			text_adds(r, &blanks, " ");
		indent = (struct jstr){.s = buf_str(&blanks), .n = blanks.len};
		style.indent = &indent;
	}
	if (style.indent)
		style.item_separator = &comma;
	if (a[2].type != J_MISSING && a[2].type != J_NONE) {
		struct jlist *l = list_of(r, a[2]);

		if (!r->failed && (l->n != 2 || l->items[0].type != J_STR || l->items[1].type != J_STR))
			render_fail(r, "tojson: separators must be two strings");
		if (!r->failed) {
			style.item_separator = l->items[0].str;
			style.key_separator = l->items[1].str;
		}
	}
	if (!r->failed)
		text_add_json(r, &text, v, &style);
	buf_release(&blanks);
	return jval_text(r, &text);
}

static const struct jfilter value_filters[] = {
    {"abs", f_abs}, {"attr", f_attr},   {"default", f_default}, {"d", f_default}, {"float", f_float},
    {"int", f_int}, {"round", f_round}, {"tojson", f_tojson},   {"pprint", NULL}, {NULL, NULL},
};

const struct jfilter *filter_find(const struct jstr *name)
{
	static const struct jfilter *const groups[] = {value_filters, text_filters, sequence_filters};

	for (int g = 0; g < 3; g++)
		for (const struct jfilter *f = groups[g]; f->name; f++)
			if (strlen(f->name) == name->n && memcmp(f->name, name->s, name->n) == 0)
				return f;
	return NULL;
}

struct jval filter_call_named(struct render *r, struct jval name, struct jval value, const struct jargs *args)
{
	const struct jfilter *f = name.type == J_STR ? filter_find(name.str) : NULL;
	const struct jstr *shown;

	if (f && f->call)
		return f->call(r, value, args);
	shown = jval_to_str(r, name);
	return render_fail(r, f ? "filter '%.*s' is not supported" : "no filter named '%.*s'",
	                   (int)(shown->n < 100 ? shown->n : 100), shown->s);
}
