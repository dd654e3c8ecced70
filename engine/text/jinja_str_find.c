/* jinja_str_find.c: the methods of str that look for other strings: search, replace, split, join. */
#include <string.h>

#include "engine/text/jinja_eval.h"
#include "engine/text/jinja_unicode.h"

/* A prefix, or a tuple of them. */
static struct jval affix_method(struct render *r, struct jval s, const struct jargs *args, int at_end)
{
	static const char *const names[] = {"/prefix", "/start", "/end"};
	const char *what = at_end ? "endswith()" : "startswith()";
	const struct jval *choices;
	struct jval v[3], part = s;
	size_t n_choices;

	if (args_bind(r, what, args, 1, names, 3, v))
		return jval_none();
	if (v[1].type != J_MISSING || v[2].type != J_MISSING)
		part = get_slice(r, s, v[1].type == J_MISSING ? jval_none() : v[1], v[2].type == J_MISSING ? jval_none() : v[2],
		                 jval_none());
	choices = v[0].type == J_TUPLE ? v[0].list->items : &v[0];
	n_choices = v[0].type == J_TUPLE ? v[0].list->n : 1;
	for (size_t i = 0; i < n_choices && !r->failed; i++) {
		const struct jstr *x = arg_str(r, what, choices[i]);

		if (x && part.str->n >= x->n && memcmp(part.str->s + (at_end ? part.str->n - x->n : 0), x->s, x->n) == 0)
			return jval_bool(1);
	}
	return jval_bool(0);
}

static struct jval m_startswith(struct render *r, struct jval s, const struct jargs *args)
{
	return affix_method(r, s, args, 0);
}

static struct jval m_endswith(struct render *r, struct jval s, const struct jargs *args)
{
	return affix_method(r, s, args, 1);
}

static struct jval remove_affix(struct render *r, struct jval s, const struct jargs *args, int at_end)
{
	static const char *const names[] = {"/affix"};
	const struct jstr *x, *t = s.str;
	struct jval v;

	if (args_bind(r, at_end ? "removesuffix()" : "removeprefix()", args, 1, names, 1, &v))
		return jval_none();
	x = arg_str(r, "removeprefix()", v);
	if (!x || t->n < x->n || memcmp(t->s + (at_end ? t->n - x->n : 0), x->s, x->n) != 0)
		return s;
	return at_end ? str_part(r, s, 0, t->n - x->n) : str_part(r, s, x->n, t->n);
}

static struct jval m_removeprefix(struct render *r, struct jval s, const struct jargs *args)
{
	return remove_affix(r, s, args, 0);
}

static struct jval m_removesuffix(struct render *r, struct jval s, const struct jargs *args)
{
	return remove_affix(r, s, args, 1);
}

/* The first (or last) place of x in s[from..], byte offsets; SIZE_MAX when there is none. */
static size_t find_bytes(struct render *r, const char *s, size_t n, const struct jstr *x, int last)
{
	if (!last) {
		const char *p = memmem(s, n, x->s, x->n);

		render_step_bytes(r, p ? (size_t)(p - s) : n);
		return p ? (size_t)(p - s) : SIZE_MAX;
	}
	for (size_t i = n - x->n + 1; x->n <= n && i-- > 0 && render_step_bytes(r, 64 + x->n);)
		if (memcmp(s + i, x->s, x->n) == 0)
			return i;
	return SIZE_MAX;
}

/* find, rfind, index, rindex, count: the text, the window and what is looked for. -1 after a failure. */
static int search_args(struct render *r, struct jval s, const struct jargs *args, const char *what, struct jval *window,
                       int64_t *start, const struct jstr **x)
{
	static const char *const names[] = {"/sub", "/start", "/end"};
	int64_t n = (int64_t)s.str->n_chars, end;
	struct jval v[3];

	if (args_bind(r, what, args, 1, names, 3, v))
		return -1;
	*x = arg_str(r, what, v[0]);
	*start = v[1].type == J_NONE ? 0 : arg_int(r, what, v[1], 0);
	end = v[2].type == J_NONE ? n : arg_int(r, what, v[2], n);
	if (r->failed)
		return -1;
	if (*start < 0)
		*start = *start + n < 0 ? 0 : *start + n;
	end = end < 0 ? (end + n < 0 ? 0 : end + n) : end > n ? n : end;
	if (*start > end) {
		window->type = J_MISSING;
		return 0;
	}
	*window = str_slice(r, s, (size_t)*start, (size_t)end);
	return r->failed ? -1 : 0;
}

static struct jval find_method(struct render *r, struct jval s, const struct jargs *args, const char *what, int last, int must)
{
	const struct jstr *x;
	struct jval window;
	int64_t start;
	size_t at = SIZE_MAX;

	if (search_args(r, s, args, what, &window, &start, &x))
		return jval_none();
	if (window.type == J_STR)
		at = find_bytes(r, window.str->s, window.str->n, x, last);
	if (at != SIZE_MAX)
		return jval_int(start + (int64_t)utf8_count(window.str->s, at));
	return must ? render_fail(r, "substring not found") : jval_int(-1);
}

static struct jval m_find(struct render *r, struct jval s, const struct jargs *args)
{
	return find_method(r, s, args, "find()", 0, 0);
}

static struct jval m_rfind(struct render *r, struct jval s, const struct jargs *args)
{
	return find_method(r, s, args, "rfind()", 1, 0);
}

static struct jval m_index(struct render *r, struct jval s, const struct jargs *args)
{
	return find_method(r, s, args, "index()", 0, 1);
}

static struct jval m_rindex(struct render *r, struct jval s, const struct jargs *args)
{
	return find_method(r, s, args, "rindex()", 1, 1);
}

static struct jval m_count(struct render *r, struct jval s, const struct jargs *args)
{
	const struct jstr *x;
	struct jval window;
	int64_t start, count = 0;

	if (search_args(r, s, args, "count()", &window, &start, &x))
		return jval_none();
	if (window.type != J_STR)
		return jval_int(0);
	if (x->n == 0)
		return jval_int((int64_t)window.str->n_chars + 1);
	for (size_t at = 0, found; at <= window.str->n && render_step(r, 1); at += found + x->n, count++) {
		found = find_bytes(r, window.str->s + at, window.str->n - at, x, 0);
		if (found == SIZE_MAX)
			break;
	}
	return jval_int(count);
}

struct jval str_replace(struct render *r, struct jval s, const struct jstr *from, const struct jstr *to, int64_t count)
{
	const struct jstr *t = s.str;
	struct buf text = {0};
	size_t at = 0;

	while (count != 0 && at <= t->n && render_step(r, 1) && !r->failed) {
		const char *p;
		size_t found = at;

		if (from->n == 0) {
			/* Between all characters, at the start and at the end. */
			text_add_str(r, &text, to);
			if (at == t->n)
				break;
			utf8_next(t->s, t->n, &found);
			text_add(r, &text, t->s + at, found - at);
			at = found;
			count--;
			continue;
		}
		p = memmem(t->s + at, t->n - at, from->s, from->n);
		if (!p)
			break;
		found = (size_t)(p - t->s);
		text_add(r, &text, t->s + at, found - at);
		text_add_str(r, &text, to);
		at = found + from->n;
		count--;
	}
	text_add(r, &text, t->s + at, t->n - at);
	return str_like(s, jval_text(r, &text));
}

static struct jval m_replace(struct render *r, struct jval s, const struct jargs *args)
{
	static const char *const names[] = {"/old", "/new", "/count"};
	const struct jstr *from, *to;
	int64_t count;
	struct jval v[3];

	if (args_bind(r, "replace()", args, 2, names, 3, v))
		return jval_none();
	from = arg_str(r, "replace()", v[0]);
	to = s.flag ? str_escape(r, v[1]).str : arg_str(r, "replace()", v[1]);
	count = arg_int(r, "replace()", v[2], -1);
	return r->failed ? jval_none() : str_replace(r, s, from, to, count);
}

static struct jval m_join(struct render *r, struct jval s, const struct jargs *args)
{
	static const char *const names[] = {"/iterable"};
	struct buf text = {0};
	struct jiter *it;
	struct jval v, item;
	int n = 0;

	if (args_bind(r, "join()", args, 1, names, 1, &v))
		return jval_none();
	it = iter_open(r, v);
	while (it && iter_next(r, it, &item)) {
		const struct jstr *x = s.flag ? str_escape(r, item).str : arg_str(r, "join()", item);

		if (r->failed)
			break;
		if (n++)
			text_add_str(r, &text, s.str);
		text_add_str(r, &text, x);
	}
	return str_like(s, jval_text(r, &text));
}

static void reverse_items(struct jlist *l)
{
	for (size_t i = 0; i < l->n / 2; i++) {
		struct jval v = l->items[i];

		l->items[i] = l->items[l->n - 1 - i];
		l->items[l->n - 1 - i] = v;
	}
}

/* Words between white space, from the left; the last piece of a limited split keeps its trailing space. */
static void split_words(struct render *r, struct jval s, int64_t max, struct jlist *out)
{
	const struct jstr *t = s.str;
	size_t at = 0;

	for (;;) {
		size_t from, next = at;

		while (at < t->n && unicode_is_space(utf8_next(t->s, t->n, &next)))
			at = next;
		if (at == t->n || r->failed)
			return;
		from = at;
		if (max == 0) {
			list_add(r, out, str_part(r, s, from, t->n));
			return;
		}
		max--;
		for (next = at; at < t->n && !unicode_is_space(utf8_next(t->s, t->n, &next));)
			at = next;
		list_add(r, out, str_part(r, s, from, at));
	}
}

static void split_words_from_right(struct render *r, struct jval s, int64_t max, struct jlist *out)
{
	const char *p = s.str->s;
	size_t to = s.str->n;

	for (;;) {
		size_t before = to, end;

		while (to > 0 && unicode_is_space(utf8_previous(p, &before)))
			to = before;
		if (to == 0 || r->failed)
			break;
		end = to;
		if (max == 0) {
			list_add(r, out, str_part(r, s, 0, end));
			break;
		}
		max--;
		for (before = to; to > 0 && !unicode_is_space(utf8_previous(p, &before));)
			to = before;
		list_add(r, out, str_part(r, s, to, end));
	}
	reverse_items(out);
}

struct jlist *str_split(struct render *r, struct jval s, const struct jstr *x, int64_t max, int from_right)
{
	struct jlist *out = list_new(r, 0);
	size_t from = 0, to = s.str->n, at;

	if (!x) {
		if (from_right)
			split_words_from_right(r, s, max, out);
		else
			split_words(r, s, max, out);
		return out;
	}
	while (max != 0 && !r->failed && render_step(r, 1)) {
		at = find_bytes(r, s.str->s + from, to - from, x, from_right);
		if (at == SIZE_MAX)
			break;
		at += from;
		list_add(r, out, from_right ? str_part(r, s, at + x->n, to) : str_part(r, s, from, at));
		if (from_right)
			to = at;
		else
			from = at + x->n;
		max--;
	}
	list_add(r, out, str_part(r, s, from, to));
	if (from_right)
		reverse_items(out);
	return out;
}

static struct jval split_method(struct render *r, struct jval s, const struct jargs *args, int from_right)
{
	static const char *const names[] = {"sep", "maxsplit"};
	const struct jstr *x = NULL;
	struct jval v[2];
	int64_t max;

	if (args_bind(r, "split()", args, 0, names, 2, v))
		return jval_none();
	max = arg_int(r, "split()", v[1], -1);
	if (v[0].type != J_MISSING && v[0].type != J_NONE) {
		x = arg_str(r, "split()", v[0]);
		if (x && x->n == 0)
			return render_fail(r, "split(): empty separator");
	}
	return r->failed ? jval_none() : jval_list(str_split(r, s, x, max, from_right));
}

static struct jval m_split(struct render *r, struct jval s, const struct jargs *args)
{
	return split_method(r, s, args, 0);
}

static struct jval m_rsplit(struct render *r, struct jval s, const struct jargs *args)
{
	return split_method(r, s, args, 1);
}

static struct jval partition_method(struct render *r, struct jval s, const struct jargs *args, int last)
{
	static const char *const names[] = {"/sep"};
	struct jlist *l = list_new(r, 3);
	struct jval empty = str_part(r, s, 0, 0), v;
	const struct jstr *x;
	size_t at;

	if (args_bind(r, "partition()", args, 1, names, 1, &v))
		return jval_none();
	x = arg_str(r, "partition()", v);
	if (!x || x->n == 0)
		return render_fail(r, "partition(): empty separator");
	at = find_bytes(r, s.str->s, s.str->n, x, last);
	if (at == SIZE_MAX) {
		list_add(r, l, last ? empty : s);
		list_add(r, l, empty);
		list_add(r, l, last ? s : empty);
	} else {
		list_add(r, l, str_part(r, s, 0, at));
		list_add(r, l, str_part(r, s, at, at + x->n));
		list_add(r, l, str_part(r, s, at + x->n, s.str->n));
	}
	return jval_tuple(l);
}

static struct jval m_partition(struct render *r, struct jval s, const struct jargs *args)
{
	return partition_method(r, s, args, 0);
}

static struct jval m_rpartition(struct render *r, struct jval s, const struct jargs *args)
{
	return partition_method(r, s, args, 1);
}

const struct jmethod str_find_methods[] = {
    {"split", m_split},
    {"rsplit", m_rsplit},
    {"startswith", m_startswith},
    {"endswith", m_endswith},
    {"replace", m_replace},
    {"join", m_join},
    {"find", m_find},
    {"rfind", m_rfind},
    {"index", m_index},
    {"rindex", m_rindex},
    {"count", m_count},
    {"removeprefix", m_removeprefix},
    {"removesuffix", m_removesuffix},
    {"partition", m_partition},
    {"rpartition", m_rpartition},
    {NULL, NULL},
};
