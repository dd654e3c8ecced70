/* jinja_value.c: making, comparing, hashing and walking over values; failure and limits. */
#include "engine/text/jinja_value.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "engine/text/jinja_eval.h"
#include "engine/text/jinja_unicode.h"

struct jval render_fail(struct render *r, const char *fmt, ...)
{
	va_list ap;
	char msg[900];

	if (!r->failed) {
		va_start(ap, fmt);
		vsnprintf(msg, sizeof(msg), fmt, ap);
		va_end(ap);
		r->failed = 1;
		err_set(r->err, ERR_ROW, "chat template line %d: %s", r->line, msg);
	}
	return jval_none();
}

struct jval render_fail_plain(struct render *r, const char *msg, size_t n)
{
	if (!r->failed) {
		r->failed = 1;
		err_set(r->err, ERR_ROW, "%.*s", n < 4096 ? (int)n : 4096, msg);
	}
	return jval_none();
}

struct jval render_fail_undefined(struct render *r, struct jval v)
{
	const struct jundefined *u = v.undefined;
	struct buf name = {0};

	if (r->failed)
		return jval_none();
	if (u->hint) {
		render_fail(r, "%s", u->hint);
	} else if (!u->owner) {
		text_add_repr(r, &name, u->name);
		render_fail(r, "%s is undefined", buf_str(&name));
	} else {
		text_add_repr(r, &name, u->name);
		render_fail(r, u->name.type == J_STR ? "'%s object' has no attribute %s" : "%s object has no element %s", u->owner,
		            buf_str(&name));
	}
	buf_release(&name);
	return jval_none();
}

int render_step(struct render *r, uint64_t n)
{
	r->steps += n;
	if (r->steps <= r->max_steps)
		return 1;
	render_fail(r, "the template does more than %llu steps", (unsigned long long)r->max_steps);
	return 0;
}

#define SMALL_BYTES ((size_t)64 << 10)

void *render_alloc(struct render *r, size_t n)
{
	if (n > r->max_bytes || r->mem.total_bytes > r->max_bytes - n) {
		render_fail(r, "the template needs more than %zu MiB of memory", r->max_bytes >> 20);
		if (n > SMALL_BYTES)
			return NULL;
	}
	return arena_alloc(&r->mem, n);
}

int text_add(struct render *r, struct buf *b, const void *p, size_t n)
{
	if (r->failed)
		return -1;
	if (n > r->max_output || b->len > r->max_output - n) {
		render_fail(r, "the template makes a text of more than %zu bytes", r->max_output);
		return -1;
	}
	buf_add(b, p, n);
	return 0;
}

int text_adds(struct render *r, struct buf *b, const char *s)
{
	return text_add(r, b, s, strlen(s));
}

int text_add_str(struct render *r, struct buf *b, const struct jstr *s)
{
	return text_add(r, b, s->s, s->n);
}

struct jval jval_none(void)
{
	return (struct jval){.type = J_NONE};
}

struct jval jval_bool(int b)
{
	return (struct jval){.type = J_BOOL, .flag = b != 0};
}

struct jval jval_int(__int128 i)
{
	return (struct jval){.type = J_INT, .i = i};
}

struct jval jval_float(double d)
{
	return (struct jval){.type = J_FLOAT, .d = d};
}

struct jval jval_str_borrow(struct render *r, const char *s, size_t n)
{
	struct jstr *t = render_alloc(r, sizeof(*t));

	*t = (struct jstr){.s = s, .n = n, .n_chars = utf8_count(s, n)};
	return (struct jval){.type = J_STR, .str = t};
}

struct jval jval_str(struct render *r, const char *s, size_t n)
{
	char *p = render_alloc(r, n + 1);

	if (!p)
		return jval_none();
	if (n)
		memcpy(p, s, n);
	p[n] = '\0';
	return jval_str_borrow(r, p, n);
}

struct jval jval_strz(struct render *r, const char *s)
{
	return jval_str_borrow(r, s, strlen(s));
}

struct jval jval_text(struct render *r, struct buf *b)
{
	struct jval v = jval_str(r, buf_str(b), b->len);

	buf_release(b);
	return v;
}

struct jval jval_markup(struct jval v)
{
	if (v.type == J_STR)
		v.flag = 1;
	return v;
}

struct jval jval_list(struct jlist *l)
{
	return (struct jval){.type = J_LIST, .list = l};
}

struct jval jval_tuple(struct jlist *l)
{
	return (struct jval){.type = J_TUPLE, .list = l};
}

struct jval jval_pair(struct render *r, struct jval a, struct jval b)
{
	struct jlist *l = list_new(r, 2);

	list_add(r, l, a);
	list_add(r, l, b);
	return jval_tuple(l);
}

struct jval jval_dict(struct jdict *d)
{
	return (struct jval){.type = J_DICT, .dict = d};
}

struct jval jval_iter(struct jiter *it)
{
	return it ? (struct jval){.type = J_ITER, .iter = it} : jval_none();
}

static struct jval undefined_new(struct render *r, struct jundefined u)
{
	struct jundefined *p = render_alloc(r, sizeof(*p));

	*p = u;
	return (struct jval){.type = J_UNDEFINED, .undefined = p};
}

struct jval jval_undefined_hint(struct render *r, const char *fmt, ...)
{
	va_list ap;
	char msg[300];

	va_start(ap, fmt);
	vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	return undefined_new(r, (struct jundefined){.hint = arena_strdup(&r->mem, msg, strlen(msg))});
}

struct jval jval_undefined_name(struct render *r, const struct jstr *name)
{
	return undefined_new(r, (struct jundefined){.name = {.type = J_STR, .str = name}});
}

struct jval jval_undefined_member(struct render *r, struct jval owner, struct jval name)
{
	return undefined_new(r, (struct jundefined){.name = name, .owner = jval_type_name(owner)});
}

struct jval jval_undefined_unsafe(struct render *r, struct jval owner, const struct jstr *name)
{
	struct jval v = jval_undefined_hint(r, "access to attribute '%.*s' of '%s' object is unsafe", (int)(name->n < 100 ? name->n : 100),
	                                    name->s, jval_type_name(owner));

	((struct jundefined *)v.undefined)->security = 1;
	return v;
}

struct jlist *list_new(struct render *r, size_t cap)
{
	struct jlist *l = render_alloc(r, sizeof(*l));

	*l = (struct jlist){0};
	if (cap) {
		l->items = render_alloc(r, cap * sizeof(*l->items));
		l->cap = l->items ? cap : 0;
	}
	return l;
}

void list_add(struct render *r, struct jlist *l, struct jval v)
{
	if (l->n == l->cap) {
		size_t cap = l->cap ? l->cap * 2 : 8;
		struct jval *items = render_alloc(r, cap * sizeof(*items));

		if (!items)
			return;
		if (l->n)
			memcpy(items, l->items, l->n * sizeof(*items));
		l->items = items;
		l->cap = cap;
	}
	l->items[l->n++] = v;
}

/* Hashes agree for equal keys: 1, 1.0 and True are one key. 0 after a failure. */
static uint64_t jval_hash(struct render *r, struct jval v, int depth)
{
	uint64_t h;

	switch (v.type) {
	case J_STR:
		return hash64(v.str->s, v.str->n, 1);
	case J_BOOL:
	case J_INT: {
		__int128 i = jval_as_int(v);

		return hash64(&i, sizeof(i), 2);
	}
	case J_FLOAT:
		if (v.d == trunc(v.d) && fabs(v.d) < 1e38) {
			__int128 i = (__int128)v.d;

			return hash64(&i, sizeof(i), 2);
		}
		return hash64(&v.d, sizeof(v.d), 3);
	case J_TUPLE:
		if (depth > JINJA_MAX_DATA_DEPTH) {
			render_fail(r, "data nested too deeply");
			return 0;
		}
		h = 4;
		for (size_t i = 0; i < v.list->n; i++) {
			uint64_t x = jval_hash(r, v.list->items[i], depth + 1);

			h = hash64(&x, sizeof(x), h);
		}
		return h;
	case J_NONE:
	case J_UNDEFINED:
		return v.type;
	case J_LIST:
	case J_DICT:
	case J_KEYS:
	case J_ITEMS:
		render_fail(r, "unhashable type: '%s'", jval_type_name(v));
		return 0;
	default:
		return hash64(&v.iter, sizeof(v.iter), 5);
	}
}

static int hashable(struct jval v, int depth)
{
	switch (v.type) {
	case J_LIST:
	case J_DICT:
	case J_KEYS:
	case J_ITEMS:
		return 0;
	case J_TUPLE:
		for (size_t i = 0; i < v.list->n; i++)
			if (depth > JINJA_MAX_DATA_DEPTH || !hashable(v.list->items[i], depth + 1))
				return 0;
		return 1;
	default:
		return 1;
	}
}

int jval_is_hashable(struct jval v)
{
	return hashable(v, 0);
}

struct jdict *dict_new(struct render *r)
{
	struct jdict *d = render_alloc(r, sizeof(*d));

	*d = (struct jdict){0};
	return d;
}

static struct jentry *find_entry(struct render *r, const struct jdict *d, struct jval key, uint64_t hash)
{
	if (!d->index) {
		for (size_t i = 0; i < d->n; i++)
			if (d->entries[i].hash == hash && jval_equal(r, d->entries[i].key, key))
				return &d->entries[i];
		return NULL;
	}
	for (size_t at = hash & (d->n_index - 1); d->index[at]; at = (at + 1) & (d->n_index - 1)) {
		struct jentry *e = &d->entries[d->index[at] - 1];

		if (e->hash == hash && jval_equal(r, e->key, key))
			return e;
	}
	return NULL;
}

int dict_find(struct render *r, const struct jdict *d, struct jval key, struct jval *out)
{
	uint64_t hash = jval_hash(r, key, 0);
	struct jentry *e = r->failed ? NULL : find_entry(r, d, key, hash);

	if (!e)
		return 0;
	*out = e->value;
	return 1;
}

int dict_find_str(struct render *r, const struct jdict *d, const char *s, size_t n, struct jval *out)
{
	struct jstr t = {.s = s, .n = n};

	return dict_find(r, d, (struct jval){.type = J_STR, .str = &t}, out);
}

static void add_to_index(struct jdict *d, size_t i)
{
	size_t at = d->entries[i].hash & (d->n_index - 1);

	while (d->index[at])
		at = (at + 1) & (d->n_index - 1);
	d->index[at] = (uint32_t)i + 1;
}

void dict_set(struct render *r, struct jdict *d, struct jval key, struct jval value)
{
	uint64_t hash = jval_hash(r, key, 0);
	struct jentry *e;

	if (r->failed)
		return;
	e = find_entry(r, d, key, hash);
	if (e) {
		e->value = value;
		return;
	}
	if (d->n == d->cap) {
		size_t cap = d->cap ? d->cap * 2 : 4;
		struct jentry *entries = render_alloc(r, cap * sizeof(*entries));
		uint32_t *index = cap > 8 ? render_alloc(r, cap * 4 * sizeof(*index)) : NULL;

		if (!entries || (cap > 8 && !index) || cap > UINT32_MAX / 4)
			return;
		if (d->n)
			memcpy(entries, d->entries, d->n * sizeof(*entries));
		d->entries = entries;
		d->cap = cap;
		d->index = index;
		if (index) {
			d->n_index = cap * 4;
			memset(index, 0, d->n_index * sizeof(*index));
			for (size_t i = 0; i < d->n; i++)
				add_to_index(d, i);
		}
	}
	d->entries[d->n++] = (struct jentry){.key = key, .value = value, .hash = hash};
	if (d->index)
		add_to_index(d, d->n - 1);
}

struct jval jval_from_json(struct render *r, yyjson_val *v)
{
	size_t i, max;
	yyjson_val *key, *val;

	switch (yyjson_get_type(v)) {
	case YYJSON_TYPE_BOOL:
		return jval_bool(yyjson_get_bool(v));
	case YYJSON_TYPE_NUM:
		if (yyjson_is_uint(v))
			return jval_int(yyjson_get_uint(v));
		return yyjson_is_sint(v) ? jval_int(yyjson_get_sint(v)) : jval_float(yyjson_get_real(v));
	case YYJSON_TYPE_STR:
		return jval_str_borrow(r, yyjson_get_str(v), yyjson_get_len(v));
	case YYJSON_TYPE_ARR: {
		struct jlist *l = list_new(r, yyjson_arr_size(v));

		yyjson_arr_foreach(v, i, max, val)
			list_add(r, l, jval_from_json(r, val));
		return jval_list(l);
	}
	case YYJSON_TYPE_OBJ: {
		struct jdict *d = dict_new(r);

		yyjson_obj_foreach(v, i, max, key, val)
			dict_set(r, d, jval_from_json(r, key), jval_from_json(r, val));
		return jval_dict(d);
	}
	default:
		return jval_none();
	}
}

const char *jval_type_name(struct jval v)
{
	static const char *const names[] = {
		[J_MISSING] = "missing", [J_UNDEFINED] = "Undefined", [J_NONE] = "NoneType", [J_BOOL] = "bool", [J_INT] = "int",
		[J_FLOAT] = "float", [J_STR] = "str", [J_LIST] = "list", [J_TUPLE] = "tuple", [J_DICT] = "dict",
		[J_KEYS] = "dict_keys", [J_VALUES] = "dict_values", [J_ITEMS] = "dict_items", [J_RANGE] = "range",
		[J_NAMESPACE] = "Namespace", [J_ITER] = "generator", [J_MACRO] = "Macro", [J_FUNCTION] = "function",
		[J_METHOD] = "builtin_function_or_method", [J_LOOP] = "LoopContext", [J_CYCLER] = "Cycler", [J_JOINER] = "Joiner",
	};

	if (v.type == J_STR && v.flag)
		return "Markup";
	if (v.type == J_ITER)
		return v.iter->type_name;
	return names[v.type];
}

int jval_is_str(struct jval v, const char *s)
{
	size_t n = strlen(s);

	return v.type == J_STR && v.str->n == n && memcmp(v.str->s, s, n) == 0;
}

int jval_truth(struct render *r, struct jval v)
{
	switch (v.type) {
	case J_MISSING:
	case J_UNDEFINED:
	case J_NONE:
		return 0;
	case J_BOOL:
		return v.flag;
	case J_INT:
		return v.i != 0;
	case J_FLOAT:
		return v.d != 0;
	default: {
		int64_t n = jval_length(r, v);

		return n != 0;
	}
	}
}

int jval_is_integer(struct jval v)
{
	return v.type == J_INT || v.type == J_BOOL;
}

int jval_is_number(struct jval v)
{
	return v.type == J_FLOAT || jval_is_integer(v);
}

__int128 jval_as_int(struct jval v)
{
	return v.type == J_BOOL ? v.flag : v.i;
}

double jval_as_double(struct jval v)
{
	return v.type == J_FLOAT ? v.d : (double)jval_as_int(v);
}

int64_t jval_length(struct render *r, struct jval v)
{
	switch (v.type) {
	case J_UNDEFINED:
		return 0;
	case J_STR:
		return (int64_t)v.str->n_chars;
	case J_LIST:
	case J_TUPLE:
		return (int64_t)v.list->n;
	case J_DICT:
	case J_KEYS:
	case J_VALUES:
	case J_ITEMS:
		return (int64_t)v.dict->n;
	case J_RANGE:
		return v.range->n;
	case J_LOOP:
		return loop_length(r, v.loop);
	default:
		return -1;
	}
}

/* An int and a float are equal, or ordered, as exact numbers; -1, 0, 1, or 2 when the float is not a number. */
static int compare_numbers(struct jval a, struct jval b)
{
	if (a.type == J_FLOAT || b.type == J_FLOAT) {
		double x = jval_as_double(a), y = jval_as_double(b);

		if (isnan(x) || isnan(y))
			return 2;
		if (a.type != b.type && x == y && fabs(x) < 1e38) {
			__int128 i = a.type == J_FLOAT ? (__int128)x : jval_as_int(a), j = b.type == J_FLOAT ? (__int128)y : jval_as_int(b);

			return i < j ? -1 : i > j;
		}
		return x < y ? -1 : x > y;
	}
	return jval_as_int(a) < jval_as_int(b) ? -1 : jval_as_int(a) > jval_as_int(b);
}

static int compare_strings(const struct jstr *a, const struct jstr *b)
{
	/* UTF-8 orders as code points do. */
	int c = memcmp(a->s, b->s, a->n < b->n ? a->n : b->n);

	return c ? c : a->n < b->n ? -1 : a->n > b->n;
}

static int too_deep(struct render *r)
{
	if (r->depth < JINJA_MAX_DEPTH)
		return 0;
	render_fail(r, "nested too deeply");
	return 1;
}

static int dicts_equal(struct render *r, const struct jdict *a, const struct jdict *b)
{
	struct jval other;

	if (a->n != b->n)
		return 0;
	for (size_t i = 0; i < a->n; i++)
		if (!dict_find(r, b, a->entries[i].key, &other) || !jval_equal(r, a->entries[i].value, other))
			return 0;
	return 1;
}

int jval_equal(struct render *r, struct jval a, struct jval b)
{
	int equal = 1;

	if (jval_is_number(a) && jval_is_number(b))
		return compare_numbers(a, b) == 0;
	if (a.type != b.type)
		return 0;
	switch (a.type) {
	case J_STR:
		return a.str->n == b.str->n && memcmp(a.str->s, b.str->s, a.str->n) == 0;
	case J_UNDEFINED:
	case J_NONE:
		return 1;
	case J_LIST:
	case J_TUPLE:
	case J_DICT:
		if (a.list == b.list)
			return 1;
		if (too_deep(r) || !render_step(r, 1))
			return 0;
		r->depth++;
		if (a.type == J_DICT) {
			equal = dicts_equal(r, a.dict, b.dict);
		} else if (a.list->n != b.list->n) {
			equal = 0;
		} else {
			for (size_t i = 0; equal && i < a.list->n; i++)
				equal = render_step(r, 1) && jval_equal(r, a.list->items[i], b.list->items[i]);
		}
		r->depth--;
		return equal;
	case J_RANGE:
		return a.range->n == b.range->n && (a.range->n == 0 || a.range->start == b.range->start) &&
			(a.range->n <= 1 || a.range->step == b.range->step);
	case J_METHOD:
		return a.bound->method == b.bound->method && jval_same(a.bound->self, b.bound->self);
	default:
		return a.iter == b.iter;
	}
}

/* a < b, or a <= b where or_equal. */
static int ordered(struct render *r, struct jval a, struct jval b, int or_equal)
{
	int c;

	if (jval_is_number(a) && jval_is_number(b)) {
		c = compare_numbers(a, b);
		return c == -1 || (or_equal && c == 0);
	}
	if (a.type == J_STR && b.type == J_STR)
		return compare_strings(a.str, b.str) < or_equal;
	if (a.type == b.type && (a.type == J_LIST || a.type == J_TUPLE)) {
		size_t i = 0;

		if (too_deep(r) || !render_step(r, 1))
			return 0;
		r->depth++;
		while (i < a.list->n && i < b.list->n && !r->failed && jval_equal(r, a.list->items[i], b.list->items[i]))
			i++;
		if (i < a.list->n && i < b.list->n)
			c = ordered(r, a.list->items[i], b.list->items[i], or_equal);
		else
			c = a.list->n < b.list->n || (or_equal && a.list->n == b.list->n);
		r->depth--;
		return c;
	}
	if (a.type == J_UNDEFINED || b.type == J_UNDEFINED)
		render_fail_undefined(r, a.type == J_UNDEFINED ? a : b);
	else
		render_fail(r, "cannot order '%s' and '%s'", jval_type_name(a), jval_type_name(b));
	return 0;
}

int jval_less(struct render *r, struct jval a, struct jval b)
{
	return ordered(r, a, b, 0);
}

int jval_at_most(struct render *r, struct jval a, struct jval b)
{
	return ordered(r, a, b, 1);
}

int jval_same(struct jval a, struct jval b)
{
	if (a.type != b.type)
		return 0;
	switch (a.type) {
	case J_NONE:
		return 1;
	case J_BOOL:
		return a.flag == b.flag;
	case J_INT: /* CPython keeps one object for each of these */
		return a.i == b.i && a.i >= -5 && a.i <= 256;
	case J_FLOAT:
		return 0;
	case J_STR:
		return a.str->s == b.str->s && a.str->n == b.str->n;
	default:
		return a.iter == b.iter;
	}
}

int jval_contains(struct render *r, struct jval container, struct jval item)
{
	struct jval v;
	struct jiter *it;

	switch (container.type) {
	case J_STR:
		if (item.type != J_STR) {
			render_fail(r, "'in <string>' requires string as left operand, not %s", jval_type_name(item));
			return 0;
		}
		return memmem(container.str->s, container.str->n, item.str->s, item.str->n) != NULL;
	case J_DICT:
	case J_KEYS:
		return dict_find(r, container.dict, item, &v);
	case J_MISSING:
	case J_NONE:
	case J_BOOL:
	case J_INT:
	case J_FLOAT:
	case J_NAMESPACE:
	case J_MACRO:
	case J_FUNCTION:
	case J_METHOD:
	case J_CYCLER:
	case J_JOINER:
		render_fail(r, "argument of type '%s' is not iterable", jval_type_name(container));
		return 0;
	default:
		it = iter_open(r, container);
		while (it && iter_next(r, it, &v))
			if (jval_same(v, item) || jval_equal(r, v, item))
				return 1;
		return 0;
	}
}

/* Merge sort: stable, and stops early after a failure. Descending order keeps equal items in their order too. */
static void merge_sort(struct render *r, struct jval *keys, struct jval *items, struct jval *spare, size_t n, int reverse)
{
	size_t half = n / 2, i = 0, j = half, k = 0;
	struct jval *spare_items = spare + n;

	if (n < 2 || r->failed)
		return;
	merge_sort(r, keys, items, spare, half, reverse);
	merge_sort(r, keys + half, items + half, spare, n - half, reverse);
	while (i < half || j < n) {
		int right = i == half;

		if (i < half && j < n)
			right = reverse ? jval_less(r, keys[i], keys[j]) : jval_less(r, keys[j], keys[i]);
		if (r->failed || !render_step(r, 1))
			return;
		spare[k] = keys[right ? j : i];
		spare_items[k++] = items[right ? j++ : i++];
	}
	memcpy(keys, spare, n * sizeof(*keys));
	memcpy(items, spare_items, n * sizeof(*items));
}

void jval_sort(struct render *r, struct jval *keys, struct jval *items, size_t n, int reverse)
{
	struct jval *spare = render_alloc(r, (n ? n : 1) * 2 * sizeof(*spare));

	if (spare)
		merge_sort(r, keys, items, spare, n, reverse);
}
