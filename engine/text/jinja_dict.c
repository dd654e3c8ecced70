/* jinja_dict.c: dicts that keep the order of insertion, as Python's. */
#include <math.h>
#include <string.h>

#include "base/hash.h"
#include "engine/text/jinja_value.h"

/* Hashes agree for equal keys: 1, 1.0 and True are one key. 0 after a failure. */
static uint64_t jval_hash(struct render *r, struct jval v, int depth)
{
	uint64_t h;

	switch (v.type) {
	case J_STR:
		render_step_bytes(r, v.str->n);
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
