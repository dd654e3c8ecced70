/* jinja_filters_seq.c: filters on sequences. As in Jinja, map, select, reject, unique, batch, slice and items give iterators
 * that work when they are read, and only once. */
#include <string.h>

#include "engine/text/jinja_eval.h"
#include "engine/text/jinja_unicode.h"

static const struct jval missing = {.type = J_MISSING};

static struct jval f_length(struct render *r, struct jval v, const struct jargs *args)
{
	int64_t n;

	if (args_none(r, "length", args))
		return jval_none();
	n = jval_length(r, v);
	return n < 0 ? render_fail(r, "object of type '%s' has no len()", jval_type_name(v)) : jval_int(n);
}

static struct jval f_list(struct render *r, struct jval v, const struct jargs *args)
{
	return args_none(r, "list", args) ? jval_none() : jval_list(list_of(r, v));
}

static struct jval f_first(struct render *r, struct jval v, const struct jargs *args)
{
	struct jiter *it = args_none(r, "first", args) ? NULL : iter_open(r, v);
	struct jval item;

	if (it && iter_next(r, it, &item))
		return item;
	return r->failed ? jval_none() : jval_undefined_hint(r, "No first item, sequence was empty.");
}

/* What reversed() takes: anything with a length and an order. */
static int is_reversible(struct jval v)
{
	return jval_is_iterable(v) && v.type != J_ITER && v.type != J_LOOP;
}

static struct jval f_last(struct render *r, struct jval v, const struct jargs *args)
{
	struct jlist *l;

	if (args_none(r, "last", args))
		return jval_none();
	if (!is_reversible(v))
		return render_fail(r, "'%s' object is not reversible", jval_type_name(v));
	if (v.type == J_LIST || v.type == J_TUPLE)
		l = v.list;
	else
		l = list_of(r, v);
	return l->n ? l->items[l->n - 1] : jval_undefined_hint(r, "No last item, sequence was empty.");
}

/* What Python's reversed() of it calls itself when printed. */
static const char *reverse_iterator_name(enum jtype t)
{
	switch (t) {
	case J_DICT:
	case J_KEYS:
		return "dict_reversekeyiterator";
	case J_VALUES:
		return "dict_reversevalueiterator";
	case J_ITEMS:
		return "dict_reverseitemiterator";
	case J_RANGE:
		return "range_iterator";
	case J_LIST:
		return "list_reverseiterator";
	default:
		return "reversed";
	}
}

static struct jval f_reverse(struct render *r, struct jval v, const struct jargs *args)
{
	struct jlist *l, *back;

	if (args_none(r, "reverse", args))
		return jval_none();
	if (v.type == J_STR)
		return get_slice(r, v, jval_none(), jval_none(), jval_int(-1));
	if (!jval_is_iterable(v))
		return render_fail(r, "reverse: argument must be iterable");
	l = list_of(r, v);
	back = list_new(r, l->n);
	for (size_t i = l->n; i-- > 0;)
		list_add(r, back, l->items[i]);
	return is_reversible(v) ? jval_iter(iter_over(r, back->items, back->n, reverse_iterator_name(v.type))) : jval_list(back);
}

static struct jval f_join(struct render *r, struct jval v, const struct jargs *args)
{
	static const char *const names[] = {"d", "attribute"};
	const struct jstr *separator;
	struct buf text = {0};
	struct jiter *it;
	struct jval a[2], item;
	int n = 0;

	if (args_bind(r, "join", args, 0, names, 2, a))
		return jval_none();
	separator = jval_to_str(r, a[0].type == J_MISSING ? jval_strz(r, "") : a[0]);
	it = iter_open(r, v);
	while (it && iter_next(r, it, &item)) {
		if (n++)
			text_add_str(r, &text, separator);
		if (a[1].type != J_MISSING && a[1].type != J_NONE)
			item = get_path(r, item, a[1], missing);
		text_add_value(r, &text, item);
	}
	return jval_text(r, &text);
}

/* The key to compare by: the attribute, in lower case unless case counts. */
static struct jval sort_key(struct render *r, struct jval v, struct jval attribute, struct jval otherwise, int case_sensitive)
{
	if (attribute.type != J_MISSING && attribute.type != J_NONE)
		v = get_path(r, v, attribute, otherwise);
	if (v.type == J_STR && !case_sensitive)
		v = str_cased(r, v, UNICODE_LOWER);
	return v;
}

static int truth_of(struct render *r, struct jval v)
{
	return v.type != J_MISSING && jval_truth(r, v);
}

static struct jval f_sort(struct render *r, struct jval v, const struct jargs *args)
{
	static const char *const names[] = {"reverse", "case_sensitive", "attribute"};
	struct jlist *l, *keys, *paths = NULL;
	struct jval a[3];

	if (args_bind(r, "sort", args, 0, names, 3, a))
		return jval_none();
	l = list_of(r, v);
	keys = list_new(r, l->n);
	if (a[2].type == J_STR) {
		static const struct jstr comma = {.s = ",", .n = 1, .n_chars = 1};

		paths = str_split(r, a[2], &comma, -1, 0);
	}
	for (size_t i = 0; i < l->n && !r->failed; i++) {
		struct jlist *key = list_new(r, paths ? paths->n : 1);

		for (size_t k = 0; k < (paths ? paths->n : 1); k++)
			list_add(r, key, sort_key(r, l->items[i], paths ? paths->items[k] : a[2], missing, truth_of(r, a[1])));
		list_add(r, keys, jval_list(key));
	}
	if (!r->failed)
		jval_sort(r, keys->items, l->items, l->n, truth_of(r, a[0]));
	return jval_list(l);
}

static struct jval f_dictsort(struct render *r, struct jval v, const struct jargs *args)
{
	static const char *const names[] = {"case_sensitive", "by", "reverse"};
	struct jlist *l, *keys;
	struct jval a[3];
	int by_value;

	if (args_bind(r, "dictsort", args, 0, names, 3, a))
		return jval_none();
	by_value = jval_is_str(a[1], "value");
	if (a[1].type != J_MISSING && !by_value && !jval_is_str(a[1], "key"))
		return render_fail(r, "dictsort: you can only sort by either \"key\" or \"value\"");
	if (v.type == J_UNDEFINED)
		return render_fail_undefined(r, v);
	if (v.type != J_DICT)
		return render_fail(r, "dictsort: a dict is expected, not '%s'", jval_type_name(v));
	l = list_new(r, v.dict->n);
	keys = list_new(r, v.dict->n);
	for (size_t i = 0; i < v.dict->n && !r->failed; i++) {
		const struct jentry *e = &v.dict->entries[i];

		list_add(r, l, jval_pair(r, e->key, e->value));
		list_add(r, keys, sort_key(r, by_value ? e->value : e->key, missing, missing, truth_of(r, a[0])));
	}
	if (!r->failed)
		jval_sort(r, keys->items, l->items, l->n, truth_of(r, a[2]));
	return jval_list(l);
}

static struct jval extreme(struct render *r, struct jval v, const struct jargs *args, int largest)
{
	static const char *const names[] = {"case_sensitive", "attribute"};
	struct jval a[2], item, key, best = missing, best_key = missing;
	struct jiter *it;

	if (args_bind(r, largest ? "max" : "min", args, 0, names, 2, a))
		return jval_none();
	it = iter_open(r, v);
	while (it && iter_next(r, it, &item)) {
		key = sort_key(r, item, a[1], missing, truth_of(r, a[0]));
		if (best.type == J_MISSING || (largest ? jval_less(r, best_key, key) : jval_less(r, key, best_key))) {
			best = item;
			best_key = key;
		}
	}
	return best.type == J_MISSING ? jval_undefined_hint(r, "No aggregated item, sequence was empty.") : best;
}

static struct jval f_min(struct render *r, struct jval v, const struct jargs *args)
{
	return extreme(r, v, args, 0);
}

static struct jval f_max(struct render *r, struct jval v, const struct jargs *args)
{
	return extreme(r, v, args, 1);
}

static struct jval f_sum(struct render *r, struct jval v, const struct jargs *args)
{
	static const char *const names[] = {"attribute", "start"};
	struct jval a[2], item, total;
	struct jiter *it;

	if (args_bind(r, "sum", args, 0, names, 2, a))
		return jval_none();
	total = a[1].type == J_MISSING ? jval_int(0) : a[1];
	if (total.type == J_STR)
		return render_fail(r, "sum() can't sum strings");
	it = iter_open(r, v);
	while (it && iter_next(r, it, &item)) {
		if (a[0].type != J_MISSING && a[0].type != J_NONE)
			item = get_path(r, item, a[0], missing);
		if (r->failed)
			break;
		total = op_binary(r, N_ADD, total, item);
	}
	return total;
}

static struct jval f_groupby(struct render *r, struct jval v, const struct jargs *args)
{
	static const char *const names[] = {"attribute", "default", "case_sensitive"};
	struct jval a[3], otherwise;
	struct jlist *l, *keys, *out = list_new(r, 0);
	int case_sensitive;

	if (args_bind(r, "groupby", args, 1, names, 3, a))
		return jval_none();
	case_sensitive = truth_of(r, a[2]);
	otherwise = a[1].type == J_NONE ? missing : a[1];
	l = list_of(r, v);
	keys = list_new(r, l->n);
	for (size_t i = 0; i < l->n && !r->failed; i++)
		list_add(r, keys, sort_key(r, l->items[i], a[0], otherwise, case_sensitive));
	if (r->failed)
		return jval_none();
	jval_sort(r, keys->items, l->items, l->n, 0);
	for (size_t i = 0; i < l->n && !r->failed;) {
		struct jlist *group = list_new(r, 0);
		struct jval pair;
		size_t from = i;

		while (i < l->n && (i == from || jval_equal(r, keys->items[i], keys->items[from])) && !r->failed)
			list_add(r, group, l->items[i++]);
		pair = jval_pair(r, sort_key(r, l->items[from], a[0], otherwise, 1), jval_list(group));
		pair.flag = 1;
		list_add(r, out, pair);
	}
	return jval_list(out);
}

/* ---- iterators ---- */

static struct jval lazy(struct render *r, struct jval v, const struct jargs *args,
                        int (*next)(struct render *, struct jiter *, struct jval *), int mode)
{
	struct jiter *it = iter_new(r, next, "generator");

	it->source = v;
	it->args = args;
	it->mode = mode;
	return jval_iter(it);
}

/* The iterator behind, opened at the first item. NULL at the end or after a failure. */
static struct jiter *source_of(struct render *r, struct jiter *it)
{
	if (!it->from)
		it->from = iter_open(r, it->source);
	return it->from;
}

static const struct jargs *args_from(struct render *r, const struct jargs *args, size_t skip)
{
	struct jargs *rest = render_alloc(r, sizeof(*rest));

	*rest = *args;
	rest->values += skip;
	rest->n -= skip;
	return rest;
}

static const struct jval *keyword_of(const struct jargs *args, const char *name)
{
	for (size_t i = 0; i < args->n_keywords; i++)
		if (args->keywords[i].name->n == strlen(name) && memcmp(args->keywords[i].name->s, name, strlen(name)) == 0)
			return &args->keywords[i].value;
	return NULL;
}

static int next_mapped(struct render *r, struct jiter *it, struct jval *out)
{
	const struct jval *attribute = it->args->n ? NULL : keyword_of(it->args, "attribute"),
	                  *otherwise = keyword_of(it->args, "default");
	struct jval item;

	if (!it->from && !jval_truth(r, it->source))
		return 0;
	if (attribute && it->args->n_keywords > 1 + (otherwise != NULL))
		render_fail(r, "map got an unexpected keyword argument");
	if (!attribute && it->args->n == 0)
		render_fail(r, "map requires a filter argument");
	if (r->failed || !source_of(r, it) || !iter_next(r, it->from, &item))
		return 0;
	if (attribute)
		*out = get_path(r, item, *attribute, otherwise && otherwise->type != J_NONE ? *otherwise : missing);
	else
		*out = filter_call_named(r, it->args->values[0], item, args_from(r, it->args, 1));
	return !r->failed;
}

static struct jval f_map(struct render *r, struct jval v, const struct jargs *args)
{
	return lazy(r, v, args, next_mapped, 0);
}

enum { KEEP = 1, BY_ATTRIBUTE = 2 };

static int next_selected(struct render *r, struct jiter *it, struct jval *out)
{
	size_t at = it->mode & BY_ATTRIBUTE ? 1 : 0;

	if (!it->from && !jval_truth(r, it->source))
		return 0;
	if (it->args->n < at)
		render_fail(r, "missing parameter for attribute name");
	if (r->failed || !source_of(r, it))
		return 0;
	while (iter_next(r, it->from, out)) {
		struct jval tested = *out;
		int passes;

		if (at)
			tested = get_path(r, tested, it->args->values[0], missing);
		if (r->failed)
			return 0;
		if (it->args->n > at)
			passes = test_call_named(r, it->args->values[at], tested, args_from(r, it->args, at + 1));
		else
			passes = jval_truth(r, tested);
		if (r->failed)
			return 0;
		if (passes == (it->mode & KEEP))
			return 1;
	}
	return 0;
}

static struct jval f_select(struct render *r, struct jval v, const struct jargs *args)
{
	return lazy(r, v, args, next_selected, KEEP);
}

static struct jval f_reject(struct render *r, struct jval v, const struct jargs *args)
{
	return lazy(r, v, args, next_selected, 0);
}

static struct jval f_selectattr(struct render *r, struct jval v, const struct jargs *args)
{
	return lazy(r, v, args, next_selected, KEEP | BY_ATTRIBUTE);
}

static struct jval f_rejectattr(struct render *r, struct jval v, const struct jargs *args)
{
	return lazy(r, v, args, next_selected, BY_ATTRIBUTE);
}

static int next_unique(struct render *r, struct jiter *it, struct jval *out)
{
	struct jdict *seen = (struct jdict *)it->extra;
	struct jval key, v;

	if (!source_of(r, it))
		return 0;
	while (iter_next(r, it->from, out)) {
		key = sort_key(r, *out, it->items[1], missing, truth_of(r, it->items[0]));
		if (r->failed)
			return 0;
		if (!dict_find(r, seen, key, &v)) {
			dict_set(r, seen, key, jval_none());
			return !r->failed;
		}
	}
	return 0;
}

static struct jval f_unique(struct render *r, struct jval v, const struct jargs *args)
{
	static const char *const names[] = {"case_sensitive", "attribute"};
	struct jval *a = render_alloc(r, 2 * sizeof(*a)), out;

	if (args_bind(r, "unique", args, 0, names, 2, a))
		return jval_none();
	out = lazy(r, v, args, next_unique, 0);
	out.iter->items = a;
	out.iter->extra = dict_new(r);
	return out;
}

static int next_item_pair(struct render *r, struct jiter *it, struct jval *out)
{
	struct jval items = it->source;

	if (!it->from && items.type != J_UNDEFINED && items.type != J_DICT) {
		render_fail(r, "items: can only get item pairs from a mapping");
		return 0;
	}
	if (!it->from) {
		if (items.type == J_DICT)
			items.type = J_ITEMS;
		it->from = iter_open(r, items);
	}
	return it->from && iter_next(r, it->from, out);
}

static struct jval f_items(struct render *r, struct jval v, const struct jargs *args)
{
	return args_none(r, "items", args) ? jval_none() : lazy(r, v, args, next_item_pair, 0);
}

static int next_batch(struct render *r, struct jiter *it, struct jval *out)
{
	int64_t size = arg_int(r, "batch", it->items[0], 0);
	struct jlist *l = list_new(r, 0);
	struct jval item;

	if (r->failed || !source_of(r, it))
		return 0;
	/* mode: the item read ahead is in items[2]. Jinja compares for equality, so that a size below 1 gives odd results: */
	if (it->mode)
		list_add(r, l, it->items[2]);
	it->mode = 0;
	while (iter_next(r, it->from, &item)) {
		if ((int64_t)l->n == size) {
			((struct jval *)it->items)[2] = item;
			it->mode = 1;
			*out = jval_list(l);
			return 1;
		}
		list_add(r, l, item);
	}
	if (r->failed || l->n == 0)
		return 0;
	for (; it->items[1].type != J_MISSING && it->items[1].type != J_NONE && (int64_t)l->n < size && render_step(r, 1);)
		list_add(r, l, it->items[1]);
	*out = jval_list(l);
	return 1;
}

static struct jval f_batch(struct render *r, struct jval v, const struct jargs *args)
{
	static const char *const names[] = {"linecount", "fill_with"};
	struct jval *a = render_alloc(r, 3 * sizeof(*a)), out;

	if (args_bind(r, "batch", args, 1, names, 2, a))
		return jval_none();
	out = lazy(r, v, args, next_batch, 0);
	out.iter->items = a;
	return out;
}

static int next_slice(struct render *r, struct jiter *it, struct jval *out)
{
	int64_t slices = arg_int(r, "slice", it->items[0], 0), number = (int64_t)it->pos, size, extra, start, end;
	struct jlist *all, *l;

	if (!it->extra && !r->failed)
		it->extra = list_of(r, it->source);
	if (slices == 0)
		render_fail(r, "slice: division by zero");
	if (r->failed || number >= slices)
		return 0;
	all = (struct jlist *)it->extra;
	size = (int64_t)all->n / slices;
	extra = (int64_t)all->n % slices;
	start = number * size + (number < extra ? number : extra);
	end = start + size + (number < extra);
	l = list_new(r, 0);
	for (int64_t i = start; i < end; i++)
		list_add(r, l, all->items[i]);
	if (it->items[1].type != J_MISSING && it->items[1].type != J_NONE && number >= extra)
		list_add(r, l, it->items[1]);
	it->pos++;
	*out = jval_list(l);
	return 1;
}

static struct jval f_slice(struct render *r, struct jval v, const struct jargs *args)
{
	static const char *const names[] = {"slices", "fill_with"};
	struct jval *a = render_alloc(r, 2 * sizeof(*a)), out;

	if (args_bind(r, "slice", args, 1, names, 2, a))
		return jval_none();
	out = lazy(r, v, args, next_slice, 0);
	out.iter->items = a;
	return out;
}

const struct jfilter sequence_filters[] = {
    {"batch", f_batch},
    {"count", f_length},
    {"dictsort", f_dictsort},
    {"first", f_first},
    {"groupby", f_groupby},
    {"items", f_items},
    {"join", f_join},
    {"last", f_last},
    {"length", f_length},
    {"list", f_list},
    {"map", f_map},
    {"max", f_max},
    {"min", f_min},
    {"random", NULL},
    {"reject", f_reject},
    {"rejectattr", f_rejectattr},
    {"reverse", f_reverse},
    {"select", f_select},
    {"selectattr", f_selectattr},
    {"slice", f_slice},
    {"sort", f_sort},
    {"sum", f_sum},
    {"unique", f_unique},
    {NULL, NULL},
};
