/* jinja_iter.c: walking over values. */
#include <string.h>

#include "engine/text/jinja_eval.h"
#include "engine/text/jinja_unicode.h"
#include "engine/text/jinja_value.h"

struct jiter *iter_new(struct render *r, int (*next)(struct render *, struct jiter *, struct jval *), const char *type_name)
{
	struct jiter *it = render_alloc(r, sizeof(*it));

	*it = (struct jiter){.next = next, .type_name = type_name, .source = jval_none()};
	return it;
}

static int next_item(struct render *r, struct jiter *it, struct jval *out)
{
	if (it->pos >= it->n)
		return 0;
	*out = it->items[it->pos++];
	return 1;
}

struct jiter *iter_over(struct render *r, const struct jval *items, size_t n, const char *type_name)
{
	struct jiter *it = iter_new(r, next_item, type_name);

	it->items = items;
	it->n = n;
	return it;
}

static int next_char(struct render *r, struct jiter *it, struct jval *out)
{
	const struct jstr *s = it->source.str;
	size_t from = it->pos;

	if (it->pos >= s->n)
		return 0;
	utf8_next(s->s, s->n, &it->pos);
	*out = jval_str_borrow(r, s->s + from, it->pos - from);
	return 1;
}

static int next_entry(struct render *r, struct jiter *it, struct jval *out)
{
	const struct jdict *d = it->source.dict;

	if (it->pos >= d->n)
		return 0;
	if (it->source.type == J_VALUES)
		*out = d->entries[it->pos].value;
	else if (it->source.type == J_ITEMS)
		*out = jval_pair(r, d->entries[it->pos].key, d->entries[it->pos].value);
	else
		*out = d->entries[it->pos].key;
	it->pos++;
	return 1;
}

static int next_in_range(struct render *r, struct jiter *it, struct jval *out)
{
	const struct jrange *g = it->source.range;

	if (it->pos >= (size_t)g->n)
		return 0;
	*out = jval_int((__int128)g->start + (__int128)g->step * (int64_t)it->pos++);
	return 1;
}

static int next_of_loop(struct render *r, struct jiter *it, struct jval *out)
{
	struct jval item;

	if (!loop_next(r, it->source.loop, &item))
		return 0;
	*out = jval_pair(r, item, it->source);
	return 1;
}

int jval_is_iterable(struct jval v)
{
	switch (v.type) {
	case J_UNDEFINED:
	case J_STR:
	case J_LIST:
	case J_TUPLE:
	case J_DICT:
	case J_KEYS:
	case J_VALUES:
	case J_ITEMS:
	case J_RANGE:
	case J_ITER:
	case J_LOOP:
		return 1;
	default:
		return 0;
	}
}

struct jiter *iter_open(struct render *r, struct jval v)
{
	struct jiter *it;

	if (r->failed)
		return NULL;
	switch (v.type) {
	case J_UNDEFINED:
		return iter_over(r, NULL, 0, "generator");
	case J_STR:
		it = iter_new(r, next_char, "str_iterator");
		break;
	case J_LIST:
	case J_TUPLE:
		return iter_over(r, v.list->items, v.list->n, "list_iterator");
	case J_DICT:
	case J_KEYS:
	case J_VALUES:
	case J_ITEMS:
		it = iter_new(r, next_entry, "dict_keyiterator");
		break;
	case J_RANGE:
		it = iter_new(r, next_in_range, "range_iterator");
		break;
	case J_ITER:
		return v.iter;
	case J_LOOP:
		it = iter_new(r, next_of_loop, "LoopContext");
		break;
	default:
		render_fail(r, "'%s' object is not iterable", jval_type_name(v));
		return NULL;
	}
	it->source = v;
	return it;
}

int iter_next(struct render *r, struct jiter *it, struct jval *out)
{
	int more;

	if (r->failed || !render_step(r, 1))
		return 0;
	/* Iterators are stacked by filters: as deep as a template likes. */
	if (r->depth >= JINJA_MAX_DEPTH) {
		render_fail(r, "nested too deeply");
		return 0;
	}
	r->depth += 2;
	more = it->next(r, it, out);
	r->depth -= 2;
	return more && !r->failed;
}

struct jlist *list_of(struct render *r, struct jval v)
{
	struct jlist *l = list_new(r, 0);
	struct jiter *it = iter_open(r, v);
	struct jval item;

	while (it && iter_next(r, it, &item))
		list_add(r, l, item);
	return l;
}
