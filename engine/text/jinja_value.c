/* jinja_value.c: making values and asking what they are; failure and limits. */
#include "engine/text/jinja_value.h"

#include <stdio.h>
#include <string.h>

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

int render_step_bytes(struct render *r, size_t n_bytes)
{
	return render_step(r, n_bytes >> 6);
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
	return render_step_bytes(r, n) ? 0 : -1;
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

	render_step_bytes(r, n);
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
	struct jval v = jval_undefined_hint(r, "access to attribute '%.*s' of '%s' object is unsafe",
	                                    (int)(name->n < 100 ? name->n : 100), name->s, jval_type_name(owner));

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

		yyjson_arr_foreach (v, i, max, val)
			list_add(r, l, jval_from_json(r, val));
		return jval_list(l);
	}
	case YYJSON_TYPE_OBJ: {
		struct jdict *d = dict_new(r);

		yyjson_obj_foreach (v, i, max, key, val)
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
	    [J_MISSING] = "missing",
	    [J_UNDEFINED] = "Undefined",
	    [J_NONE] = "NoneType",
	    [J_BOOL] = "bool",
	    [J_INT] = "int",
	    [J_FLOAT] = "float",
	    [J_STR] = "str",
	    [J_LIST] = "list",
	    [J_TUPLE] = "tuple",
	    [J_DICT] = "dict",
	    [J_KEYS] = "dict_keys",
	    [J_VALUES] = "dict_values",
	    [J_ITEMS] = "dict_items",
	    [J_RANGE] = "range",
	    [J_NAMESPACE] = "Namespace",
	    [J_ITER] = "generator",
	    [J_MACRO] = "Macro",
	    [J_FUNCTION] = "function",
	    [J_METHOD] = "builtin_function_or_method",
	    [J_LOOP] = "LoopContext",
	    [J_CYCLER] = "Cycler",
	    [J_JOINER] = "Joiner",
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
