/* jinja_compare.c: equality, order, membership and sorting, by Python's rules. */
#include <math.h>
#include <string.h>

#include "engine/text/jinja_value.h"

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
		return a.str->n == b.str->n && render_step_bytes(r, a.str->n) && memcmp(a.str->s, b.str->s, a.str->n) == 0;
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
		return render_step_bytes(r, a.str->n) && compare_strings(a.str, b.str) < or_equal;
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
		if (!render_step_bytes(r, container.str->n))
			return 0;
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
