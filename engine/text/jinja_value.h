/* jinja_value.h: the values a chat template computes with. They are Python's, as far as a template can see them.
 *
 * struct jval is passed by value; whatever it points to lives in the arena of the one rendering (struct render) or in the
 * compiled template (constants), is never changed after it was made (the sandbox that templates run in forbids it too) and
 * is never freed singly. Exceptions, because the language has them: namespaces, iterators, loops, cyclers, joiners.
 *
 * Failure is sticky: the first render_fail fills the caller's struct err and sets render.failed; whoever gets a value back
 * from something that can fail looks at `failed` before using it. A value returned after a failure is None and harmless.
 *
 * One rendering belongs to one thread.
 */
#ifndef TOKENMILL_ENGINE_JINJA_VALUE_H
#define TOKENMILL_ENGINE_JINJA_VALUE_H

#include <stddef.h>
#include <stdint.h>
#include <yyjson.h>

#include "base/buf.h"
#include "base/errors.h"
#include "base/mem.h"

enum jtype {
	J_MISSING, /* no value at all: an unset variable's slot, an argument not given */
	J_UNDEFINED,
	J_NONE,
	J_BOOL,
	J_INT, /* 128 bits; beyond that is an error, where Python goes on */
	J_FLOAT,
	J_STR,
	J_LIST,
	J_TUPLE,
	J_DICT,
	J_KEYS,
	J_VALUES,
	J_ITEMS, /* views of a dict */
	J_RANGE,
	J_NAMESPACE,
	J_ITER, /* what map, select, reverse, ... return: read once, no length */
	J_MACRO,
	J_FUNCTION, /* range, dict, namespace, raise_exception, ... */
	J_METHOD,   /* bound: ' a '.strip */
	J_LOOP,
	J_CYCLER,
	J_JOINER,
};

struct jval {
	uint8_t type;
	uint8_t flag; /* J_BOOL: the value; J_STR: 1 for Markup; J_TUPLE: 1 for a group of groupby */
	union {
		__int128 i;
		double d;
		const struct jstr *str;
		const struct jundefined *undefined;
		struct jlist *list; /* J_LIST, J_TUPLE */
		struct jdict *dict; /* J_DICT, its views, J_NAMESPACE */
		const struct jrange *range;
		struct jiter *iter;
		const struct jmacro *macro;
		const struct jfunction *function;
		const struct jbound *bound;
		struct jloop *loop;
		struct jcycler *cycler;
		struct jjoiner *joiner;
	};
};

/* Text: valid UTF-8, not NUL-terminated. Strings that grew by concatenation may share their bytes: `tail` says up to where
 * the block behind s is used and how much room it has, so that s = s + x in a loop does not copy s each time. */
struct jstr {
	const char *s;
	size_t n;       /* bytes */
	size_t n_chars; /* code points; what Python's len() says */
	struct jtail *tail;
};
struct jtail {
	size_t used, cap;
};

struct jundefined {
	const char *hint;  /* the message, or NULL: made from the next two */
	struct jval name;  /* the variable, attribute or index that was not there */
	const char *owner; /* type name of the object that lacks it; NULL for a variable */
	int security;      /* the sandbox hides it */
};

struct jlist {
	size_t n, cap;
	struct jval *items;
};

struct jentry {
	struct jval key, value;
	uint64_t hash;
};
struct jdict { /* insertion order, as Python's */
	size_t n, cap;
	struct jentry *entries;
	uint32_t *index; /* open addressing, entry + 1; NULL while small */
	size_t n_index;  /* power of two */
};

struct jrange {
	int64_t start, step, n;
};

struct jkeyword {
	const struct jstr *name;
	struct jval value;
};
struct jargs {
	size_t n, n_keywords;
	struct jval *values;
	struct jkeyword *keywords;
};

struct render;
struct jfunction {
	const char *name;
	struct jval (*call)(struct render *, const struct jargs *);
};
struct jmethod {
	const char *name;
	struct jval (*call)(struct render *, struct jval self, const struct jargs *); /* NULL: known, not supported */
};
struct jbound {
	const struct jmethod *method;
	struct jval self;
};

/* An iterator: next gives 1 and *out, 0 at the end or after a failure. */
struct jiter {
	int (*next)(struct render *, struct jiter *, struct jval *out);
	const char *type_name;
	struct jval source; /* what it walks over; kept for the iterators that filters make */
	struct jiter *from;
	const struct jval *items;
	size_t pos, n;
	const struct jargs *args;
	int mode;
	const void *extra;
};

struct jcycler {
	struct jlist *items;
	size_t pos;
};
struct jjoiner {
	struct jval separator;
	int used;
};

/* The state of one rendering. */
struct render {
	struct arena mem;
	size_t max_bytes;  /* of mem */
	size_t max_output; /* of any one text being built */
	uint64_t steps, max_steps;
	int depth;   /* nested evaluations */
	int n_calls; /* nested macro calls and recursive loops */
	int line;    /* of the template, for messages */
	int failed;
	struct err *err;
	struct buf *out; /* where output goes: the result or what a block captures */
	struct jdict *vars;
	int64_t now_unix_s;
};

/* Limits on recursion. A nested evaluation takes some hundred bytes of stack. */
#define JINJA_MAX_DEPTH 2400
#define JINJA_MAX_CALLS 200
#define JINJA_MAX_DATA_DEPTH 220

/* "chat template line 3: ..." unless something failed before. Returns None. */
struct jval render_fail(struct render *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* As above with the message as it stands. */
struct jval render_fail_plain(struct render *r, const char *msg, size_t n);
/* Use of something undefined. */
struct jval render_fail_undefined(struct render *r, struct jval v);
/* Count work; 0 once the limit is passed (and then failed). */
int render_step(struct render *r, uint64_t n);
/* Work on this many bytes, 64 to a step: an operation on a long string is not one step. */
int render_step_bytes(struct render *r, size_t n_bytes);

/* Never NULL for small n (up to 64 KiB). NULL after render_fail when the memory limit would be passed. */
void *render_alloc(struct render *r, size_t n);
/* buf_add with the output limit: -1 after render_fail when it would be passed. */
int text_add(struct render *r, struct buf *b, const void *p, size_t n);
int text_adds(struct render *r, struct buf *b, const char *s);
int text_add_str(struct render *r, struct buf *b, const struct jstr *s);

/* Making values. */
struct jval jval_none(void);
struct jval jval_bool(int b);
struct jval jval_int(__int128 i);
struct jval jval_float(double d);
struct jval jval_str(struct render *r, const char *s, size_t n);        /* copies */
struct jval jval_str_borrow(struct render *r, const char *s, size_t n); /* s must live as long as the rendering */
struct jval jval_strz(struct render *r, const char *s);                 /* borrows */
struct jval jval_text(struct render *r, struct buf *b);                 /* copies and releases b */
struct jval jval_list(struct jlist *l);
struct jval jval_tuple(struct jlist *l);
struct jval jval_pair(struct render *r, struct jval a, struct jval b);
struct jval jval_dict(struct jdict *d);
struct jval jval_iter(struct jiter *it);
struct jval jval_markup(struct jval str); /* the same text, marked safe */
struct jval jval_undefined_hint(struct render *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
struct jval jval_undefined_name(struct render *r, const struct jstr *name);
struct jval jval_undefined_member(struct render *r, struct jval owner, struct jval name);
struct jval jval_undefined_unsafe(struct render *r, struct jval owner, const struct jstr *name);
struct jval jval_from_json(struct render *r, yyjson_val *v);

struct jlist *list_new(struct render *r, size_t cap);
void list_add(struct render *r, struct jlist *l, struct jval v);
struct jdict *dict_new(struct render *r);
/* 1 and *out when found; 0 when not, or failed for a key that cannot be hashed. */
int dict_find(struct render *r, const struct jdict *d, struct jval key, struct jval *out);
void dict_set(struct render *r, struct jdict *d, struct jval key, struct jval value);

/* Asking values. */
const char *jval_type_name(struct jval v); /* Python's name of the type */
int jval_is_str(struct jval v, const char *s);
int jval_truth(struct render *r, struct jval v);
int jval_is_number(struct jval v);                    /* int, float, bool */
int jval_is_integer(struct jval v);                   /* int, bool */
__int128 jval_as_int(struct jval v);                  /* of jval_is_integer */
double jval_as_double(struct jval v);                 /* of jval_is_number */
int64_t jval_length(struct render *r, struct jval v); /* len(); -1 when it has none, without a failure */
int jval_equal(struct render *r, struct jval a, struct jval b);
int jval_less(struct render *r, struct jval a, struct jval b);    /* a < b; failed when Python would raise TypeError */
int jval_at_most(struct render *r, struct jval a, struct jval b); /* a <= b */
int jval_is_hashable(struct jval v);
int jval_same(struct jval a, struct jval b); /* Python's `is` */
int jval_contains(struct render *r, struct jval container, struct jval item);
/* Stable sort of items by keys (parallel arrays), as sorted(..., reverse=). */
void jval_sort(struct render *r, struct jval *keys, struct jval *items, size_t n, int reverse);

/* Iterators. NULL after a failure for what cannot be iterated. */
struct jiter *iter_open(struct render *r, struct jval v);
struct jiter *iter_new(struct render *r, int (*next)(struct render *, struct jiter *, struct jval *), const char *type_name);
struct jiter *iter_over(struct render *r, const struct jval *items, size_t n, const char *type_name);
int iter_next(struct render *r, struct jiter *it, struct jval *out);
int jval_is_iterable(struct jval v);
struct jlist *list_of(struct render *r, struct jval v); /* list(v); never NULL */

/* Text of values (jinja_repr.c). */
void text_add_value(struct render *r, struct buf *b, struct jval v); /* str(v) */
void text_add_repr(struct render *r, struct buf *b, struct jval v);  /* repr(v) */
void text_add_int(struct buf *b, __int128 i);
void text_add_float(struct buf *b, double d);                    /* repr(float): the shortest text that reads back as d */
const struct jstr *jval_to_str(struct render *r, struct jval v); /* str(v); never NULL */
struct json_style {
	int ensure_ascii, sort_keys;
	const struct jstr *indent; /* one level; NULL: all on one line */
	const struct jstr *item_separator, *key_separator;
};
void text_add_json(struct render *r, struct buf *b, struct jval v, const struct json_style *style);

#endif
