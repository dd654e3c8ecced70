/* jinja_attr.c: attributes, subscripts and slices, as ImmutableSandboxedEnvironment allows them: methods that would change a
 * list or dict, and names with a leading underscore, are there but hidden (undefined, and an error when used). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/text/jinja_eval.h"
#include "engine/text/jinja_unicode.h"

static int name_is(const struct jstr *a, const char *s)
{
	return a->n == strlen(s) && memcmp(a->s, s, a->n) == 0;
}

static struct jval dict_keys(struct render *r, struct jval self, const struct jargs *args)
{
	self.type = J_KEYS;
	return args_none(r, "keys()", args) ? jval_none() : self;
}

static struct jval dict_values(struct render *r, struct jval self, const struct jargs *args)
{
	self.type = J_VALUES;
	return args_none(r, "values()", args) ? jval_none() : self;
}

static struct jval dict_items(struct render *r, struct jval self, const struct jargs *args)
{
	self.type = J_ITEMS;
	return args_none(r, "items()", args) ? jval_none() : self;
}

static struct jval dict_copy(struct render *r, struct jval self, const struct jargs *args)
{
	return args_none(r, "copy()", args) ? jval_none() : self;
}

static struct jval dict_get(struct render *r, struct jval self, const struct jargs *args)
{
	static const char *const names[] = {"/key", "/default"};
	struct jval v[2], found;

	if (args_bind(r, "get()", args, 1, names, 2, v))
		return jval_none();
	if (dict_find(r, self.dict, v[0], &found))
		return found;
	return v[1].type == J_MISSING ? jval_none() : v[1];
}

static struct jval dict_fromkeys(struct render *r, struct jval self, const struct jargs *args)
{
	static const char *const names[] = {"/iterable", "/value"};
	struct jdict *d = dict_new(r);
	struct jval v[2], key;
	struct jiter *it;

	if (args_bind(r, "fromkeys()", args, 1, names, 2, v))
		return jval_none();
	it = iter_open(r, v[0]);
	while (it && iter_next(r, it, &key))
		dict_set(r, d, key, v[1].type == J_MISSING ? jval_none() : v[1]);
	return jval_dict(d);
}

static struct jval list_copy(struct render *r, struct jval self, const struct jargs *args)
{
	return args_none(r, "copy()", args) ? jval_none() : self;
}

static struct jval list_count(struct render *r, struct jval self, const struct jargs *args)
{
	static const char *const names[] = {"/value"};
	struct jlist *l = list_of(r, self);
	struct jval v;
	int64_t n = 0;

	if (args_bind(r, "count()", args, 1, names, 1, &v))
		return jval_none();
	for (size_t i = 0; i < l->n && render_step(r, 1); i++)
		n += jval_equal(r, l->items[i], v);
	return jval_int(n);
}

static struct jval list_index(struct render *r, struct jval self, const struct jargs *args)
{
	static const char *const names[] = {"/value", "/start", "/stop"};
	struct jlist *l = list_of(r, self);
	int64_t start, stop, n = (int64_t)l->n;
	struct jval v[3];

	if (args_bind(r, "index()", args, 1, names, 3, v))
		return jval_none();
	start = arg_int(r, "index()", v[1], 0);
	stop = arg_int(r, "index()", v[2], n);
	start = start < 0 ? (start + n < 0 ? 0 : start + n) : start;
	stop = stop < 0 ? stop + n : stop > n ? n : stop;
	for (int64_t i = start; i < stop && render_step(r, 1); i++)
		if (jval_equal(r, l->items[i], v[0]))
			return jval_int(i);
	return render_fail(r, "index(): the value is not in the %s", jval_type_name(self));
}

static struct jval float_is_integer(struct render *r, struct jval self, const struct jargs *args)
{
	double d = jval_as_double(self);

	return args_none(r, "is_integer()", args) ? jval_none() : jval_bool(isfinite(d) && d == trunc(d));
}

static struct jval cycler_next(struct render *r, struct jval self, const struct jargs *args)
{
	struct jcycler *c = self.cycler;
	struct jval v = c->items->items[c->pos];

	if (args_none(r, "next()", args))
		return jval_none();
	c->pos = (c->pos + 1) % c->items->n;
	return v;
}

static struct jval cycler_reset(struct render *r, struct jval self, const struct jargs *args)
{
	self.cycler->pos = 0;
	args_none(r, "reset()", args);
	return jval_none();
}

static struct jval loop_cycle(struct render *r, struct jval self, const struct jargs *args)
{
	if (args->n_keywords)
		return render_fail(r, "cycle() takes no keyword arguments");
	if (args->n == 0)
		return render_fail(r, "no items for cycling given");
	return args->values[(size_t)self.loop->index0 % args->n];
}

static struct jval loop_changed(struct render *r, struct jval self, const struct jargs *args)
{
	struct jlist *l = list_new(r, args->n);
	struct jval now = jval_tuple(l);

	if (args->n_keywords)
		return render_fail(r, "changed() takes no keyword arguments");
	for (size_t i = 0; i < args->n; i++)
		list_add(r, l, args->values[i]);
	if (self.loop->last_changed.type != J_MISSING && jval_equal(r, self.loop->last_changed, now))
		return jval_bool(0);
	self.loop->last_changed = now;
	return jval_bool(1);
}

static const struct jmethod dict_methods[] = {
    {"keys", dict_keys}, {"values", dict_values},     {"items", dict_items}, {"get", dict_get},
    {"copy", dict_copy}, {"fromkeys", dict_fromkeys}, {NULL, NULL},
};
static const struct jmethod list_methods[] = {{"count", list_count}, {"index", list_index}, {"copy", list_copy}, {NULL, NULL}};
static const struct jmethod tuple_methods[] = {{"count", list_count}, {"index", list_index}, {NULL, NULL}};
static const struct jmethod float_methods[] = {
    {"is_integer", float_is_integer},
    {"as_integer_ratio", NULL},
    {"conjugate", NULL},
    {"fromhex", NULL},
    {"hex", NULL},
    {NULL, NULL},
};
static const struct jmethod int_methods[] = {
    {"as_integer_ratio", NULL}, {"bit_count", NULL}, {"bit_length", NULL}, {"conjugate", NULL},
    {"from_bytes", NULL},       {"to_bytes", NULL},  {NULL, NULL},
};
static const struct jmethod view_methods[] = {{"isdisjoint", NULL}, {"mapping", NULL}, {NULL, NULL}};
static const struct jmethod cycler_methods[] = {{"next", cycler_next}, {"reset", cycler_reset}, {NULL, NULL}};
static const struct jmethod loop_methods[] = {{"cycle", loop_cycle}, {"changed", loop_changed}, {NULL, NULL}};
static const struct jmethod dict_class_methods[] = {{"fromkeys", dict_fromkeys}, {NULL, NULL}};

/* What jinja2.sandbox hides in an immutable environment. */
static const char *const dict_changers[] = {"clear", "pop", "popitem", "setdefault", "update", NULL};
static const char *const list_changers[] = {"append", "clear", "pop", "reverse", "insert", "sort", "extend", "remove", NULL};

static struct jval loop_attribute(struct render *r, struct jval loop, const struct jstr *name)
{
	struct jloop *l = loop.loop;

	if (name_is(name, "index"))
		return jval_int(l->index0 + 1);
	if (name_is(name, "index0"))
		return jval_int(l->index0);
	if (name_is(name, "first"))
		return jval_bool(l->index0 == 0);
	if (name_is(name, "length"))
		return jval_int(loop_length(r, l));
	if (name_is(name, "revindex"))
		return jval_int(loop_length(r, l) - l->index0);
	if (name_is(name, "revindex0"))
		return jval_int(loop_length(r, l) - l->index0 - 1);
	if (name_is(name, "depth"))
		return jval_int(l->depth0 + 1);
	if (name_is(name, "depth0"))
		return jval_int(l->depth0);
	if (name_is(name, "previtem"))
		return l->index0 == 0 ? jval_undefined_hint(r, "there is no previous item") : l->before;
	if (name_is(name, "last") || name_is(name, "nextitem")) {
		if (l->after.type == J_MISSING && !iter_next(r, l->iter, &l->after))
			l->after.type = J_MISSING;
		if (name_is(name, "last"))
			return jval_bool(l->after.type == J_MISSING);
		return l->after.type == J_MISSING ? jval_undefined_hint(r, "there is no next item") : l->after;
	}
	return (struct jval){.type = J_MISSING};
}

static struct jval macro_attribute(struct render *r, const struct node *n, const struct jstr *name)
{
	if (name_is(name, "name"))
		return n->name ? (struct jval){.type = J_STR, .str = n->name} : jval_none();
	if (name_is(name, "catch_kwargs"))
		return jval_bool(n->slot_kwargs >= 0);
	if (name_is(name, "catch_varargs"))
		return jval_bool(n->slot_varargs >= 0);
	if (name_is(name, "caller"))
		return jval_bool(n->slot_caller >= 0);
	if (name_is(name, "arguments")) {
		struct jlist *l = list_new(r, n->items.n);

		for (size_t i = 0; i < n->items.n; i++)
			list_add(r, l, (struct jval){.type = J_STR, .str = n->items.nodes[i]->name});
		return jval_list(l);
	}
	return (struct jval){.type = J_MISSING};
}

/* Plain values among the attributes; J_MISSING when there is none of this name. */
static struct jval data_attribute(struct render *r, struct jval v, const struct jstr *name)
{
	struct jval found;

	switch (v.type) {
	case J_NAMESPACE:
		if (dict_find(r, v.dict, (struct jval){.type = J_STR, .str = name}, &found))
			return found;
		break;
	case J_LOOP:
		return loop_attribute(r, v, name);
	case J_MACRO:
		return macro_attribute(r, v.macro->node, name);
	case J_TUPLE:
		if (v.flag && name_is(name, "grouper"))
			return v.list->items[0];
		if (v.flag && name_is(name, "list"))
			return v.list->items[1];
		break;
	case J_BOOL:
	case J_INT:
	case J_FLOAT:
		if (name_is(name, "real") || (v.type != J_FLOAT && name_is(name, "numerator")))
			return op_unary(r, N_POS, v);
		if (name_is(name, "imag"))
			return v.type == J_FLOAT ? jval_float(0) : jval_int(0);
		if (v.type != J_FLOAT && name_is(name, "denominator"))
			return jval_int(1);
		break;
	case J_RANGE:
		if (name_is(name, "start"))
			return jval_int(v.range->start);
		if (name_is(name, "step"))
			return jval_int(v.range->step);
		break;
	case J_CYCLER:
		if (name_is(name, "current"))
			return v.cycler->items->items[v.cycler->pos];
		if (name_is(name, "items"))
			return jval_tuple(v.cycler->items);
		if (name_is(name, "pos"))
			return jval_int((__int128)v.cycler->pos);
		break;
	case J_JOINER:
		if (name_is(name, "sep"))
			return v.joiner->separator;
		if (name_is(name, "used"))
			return jval_bool(v.joiner->used);
		break;
	default:
		break;
	}
	return (struct jval){.type = J_MISSING};
}

static const struct jmethod *methods_of(struct jval v)
{
	switch (v.type) {
	case J_STR:
		return str_methods;
	case J_DICT:
		return dict_methods;
	case J_LIST:
		return list_methods;
	case J_TUPLE:
	case J_RANGE:
		return tuple_methods;
	case J_KEYS:
	case J_VALUES:
	case J_ITEMS:
		return view_methods;
	case J_BOOL:
	case J_INT:
		return int_methods;
	case J_FLOAT:
		return float_methods;
	case J_CYCLER:
		return cycler_methods;
	case J_LOOP:
		return loop_methods;
	case J_FUNCTION:
		return strcmp(v.function->name, "dict") == 0 ? dict_class_methods : NULL;
	default:
		return NULL;
	}
}

static const struct jmethod *find_method(const struct jmethod *m, const struct jstr *name)
{
	for (; m && m->name; m++)
		if (name_is(name, m->name))
			return m;
	return NULL;
}

/* getattr(object, name): J_MISSING when Python would raise AttributeError. */
static struct jval own_attribute(struct render *r, struct jval v, const struct jstr *name)
{
	const char *const *hidden = v.type == J_DICT ? dict_changers : v.type == J_LIST ? list_changers : NULL;
	const struct jmethod *m = methods_of(v);
	struct jval found = data_attribute(r, v, name);

	if (found.type != J_MISSING)
		return found;
	m = find_method(m, name);
	if (!m && v.type == J_STR)
		m = find_method(str_find_methods, name);
	if (m) {
		struct jbound *b = render_alloc(r, sizeof(*b));

		*b = (struct jbound){.method = m, .self = v};
		return (struct jval){.type = J_METHOD, .bound = b};
	}
	for (; hidden && *hidden; hidden++)
		if (name_is(name, *hidden))
			return jval_undefined_unsafe(r, v, name);
	return (struct jval){.type = J_MISSING};
}

struct jval get_attribute(struct render *r, struct jval v, const struct jstr *name)
{
	struct jval found;

	if (v.type == J_UNDEFINED)
		return render_fail_undefined(r, v);
	found = own_attribute(r, v, name);
	if (found.type != J_MISSING)
		return found;
	if (v.type == J_DICT && dict_find(r, v.dict, (struct jval){.type = J_STR, .str = name}, &found))
		return found;
	return jval_undefined_member(r, v, (struct jval){.type = J_STR, .str = name});
}

struct jval str_slice(struct render *r, struct jval s, size_t from, size_t to)
{
	const struct jstr *t = s.str;
	size_t a = utf8_offset(t->s, t->n, t->n_chars, from), b;
	struct jval v;

	if (t->n != t->n_chars)
		render_step_bytes(r, t->n);
	if (t->n == t->n_chars)
		b = to < t->n ? to : t->n;
	else
		b = a + utf8_offset(t->s + a, t->n - a, SIZE_MAX, to - from);
	v = jval_str_borrow(r, t->s + a, b - a);
	v.flag = s.flag;
	return v;
}

/* object[index]: J_MISSING when Python would raise TypeError or LookupError. */
static struct jval own_item(struct render *r, struct jval v, struct jval index)
{
	struct jval found = {.type = J_MISSING};
	__int128 i, n;

	if (v.type == J_DICT) {
		if (!jval_is_hashable(index) || !dict_find(r, v.dict, index, &found))
			found.type = J_MISSING;
		return found;
	}
	if (v.type != J_STR && v.type != J_LIST && v.type != J_TUPLE && v.type != J_RANGE)
		return found;
	if (!jval_is_integer(index))
		return found;
	n = jval_length(r, v);
	i = jval_as_int(index);
	if (i < 0)
		i += n;
	if (i < 0 || i >= n)
		return found;
	if (v.type == J_STR)
		return str_slice(r, v, (size_t)i, (size_t)i + 1);
	if (v.type == J_RANGE)
		return jval_int(v.range->start + i * v.range->step);
	return v.list->items[i];
}

struct jval get_item(struct render *r, struct jval v, struct jval index)
{
	struct jval found;

	if (v.type == J_UNDEFINED)
		return render_fail_undefined(r, v);
	found = own_item(r, v, index);
	if (found.type == J_MISSING && index.type == J_STR)
		found = own_attribute(r, v, index.str);
	return found.type == J_MISSING ? jval_undefined_member(r, v, index) : found;
}

struct jval get_path(struct render *r, struct jval v, struct jval attr, struct jval otherwise)
{
	const struct jstr *s = attr.str;

	if (attr.type != J_STR) {
		if (attr.type != J_NONE)
			v = get_item(r, v, attr);
		return v.type == J_UNDEFINED && otherwise.type != J_MISSING ? otherwise : v;
	}
	for (size_t from = 0; from <= s->n && !r->failed;) {
		const char *dot = memchr(s->s + from, '.', s->n - from);
		size_t to = dot ? (size_t)(dot - s->s) : s->n, digits = from;
		struct jval part = jval_str_borrow(r, s->s + from, to - from);

		while (digits < to && s->s[digits] >= '0' && s->s[digits] <= '9')
			digits++;
		if (digits == to && to > from)
			part = int_parse(r, part.str, 10);
		v = get_item(r, v, part);
		if (v.type == J_UNDEFINED && otherwise.type != J_MISSING)
			v = otherwise;
		from = to + 1;
	}
	return v;
}

static int slice_bound(struct render *r, struct jval v, int64_t n, int64_t low, int64_t high, int64_t otherwise, int64_t *out)
{
	__int128 i;

	*out = otherwise;
	if (v.type == J_NONE)
		return 0;
	if (!jval_is_integer(v)) {
		render_fail(r, "slice indices must be integers or None, not '%s'", jval_type_name(v));
		return -1;
	}
	i = jval_as_int(v);
	if (i < 0)
		i += n;
	*out = i < low ? low : i > high ? high : (int64_t)i;
	return 0;
}

static struct jval slice_of_str(struct render *r, struct jval v, int64_t start, int64_t step, int64_t count)
{
	const struct jstr *t = v.str;
	struct buf text = {0};
	size_t *offsets;
	struct jval s;

	if (step == 1)
		return str_slice(r, v, (size_t)start, (size_t)(start + count));
	if (!render_step(r, t->n_chars))
		return jval_none();
	offsets = xcalloc(t->n_chars + 1, sizeof(*offsets));
	for (size_t i = 0, at = 0; at < t->n; offsets[++i] = at)
		utf8_next(t->s, t->n, &at);
	for (int64_t i = 0; i < count; i++) {
		size_t at = (size_t)(start + i * step);

		buf_add(&text, t->s + offsets[at], offsets[at + 1] - offsets[at]);
	}
	free(offsets);
	s = jval_text(r, &text);
	s.flag = v.flag;
	return s;
}

struct jval get_slice(struct render *r, struct jval v, struct jval from, struct jval to, struct jval by)
{
	int64_t n, start, stop, step = 1, count;
	struct jlist *l;

	if (v.type == J_UNDEFINED)
		return render_fail_undefined(r, v);
	if (v.type != J_STR && v.type != J_LIST && v.type != J_TUPLE && v.type != J_RANGE)
		return render_fail(r, "'%s' object cannot be sliced", jval_type_name(v));
	n = jval_length(r, v);
	if (by.type != J_NONE) {
		if (!jval_is_integer(by))
			return render_fail(r, "slice indices must be integers or None, not '%s'", jval_type_name(by));
		if (jval_as_int(by) == 0)
			return render_fail(r, "slice step cannot be zero");
		/* A step beyond the length takes one element, whatever its size. */
		step = jval_as_int(by) > n + 1 ? n + 1 : jval_as_int(by) < -n - 1 ? -n - 1 : (int64_t)jval_as_int(by);
	}
	if (slice_bound(r, from, n, step < 0 ? -1 : 0, step < 0 ? n - 1 : n, step < 0 ? n - 1 : 0, &start) ||
	    slice_bound(r, to, n, step < 0 ? -1 : 0, step < 0 ? n - 1 : n, step < 0 ? -1 : n, &stop))
		return jval_none();
	count = step > 0 ? (stop - start + step - 1) / step : (start - stop - step - 1) / -step;
	if (count < 0 || (step > 0 && start >= stop) || (step < 0 && start <= stop))
		count = 0;
	if (v.type == J_STR)
		return count ? slice_of_str(r, v, start, step, count)
		             : (struct jval){.type = J_STR, .flag = v.flag, .str = jval_strz(r, "").str};
	if (v.type == J_RANGE) {
		struct jrange *g = render_alloc(r, sizeof(*g));

		*g = (struct jrange){v.range->start + start * v.range->step, v.range->step * step, count};
		return (struct jval){.type = J_RANGE, .range = g};
	}
	l = list_new(r, (size_t)count);
	for (int64_t i = 0; i < count && render_step(r, 1); i++)
		list_add(r, l, v.list->items[start + i * step]);
	return v.type == J_LIST ? jval_list(l) : jval_tuple(l);
}
