/* jinja_eval.h: running a template's tree: frames, calls, attributes, and the tables of filters, tests and methods.
 *
 * A frame holds the variables of one scope (jinja_ast.h) while its block runs. A macro keeps the frame it was defined in, as a
 * closure does; frames live in the arena until the rendering ends. */
#ifndef TOKENMILL_ENGINE_JINJA_EVAL_H
#define TOKENMILL_ENGINE_JINJA_EVAL_H

#include "engine/text/jinja_ast.h"
#include "engine/text/jinja_value.h"

struct frame {
	struct frame *parent;
	const struct scope *scope;
	struct jval slots[]; /* [scope->n_slots] */
};

struct jmacro {
	const struct node *node; /* N_MACRO */
	struct frame *frame;     /* where it was defined */
};

struct jloop {
	struct jiter *iter;
	struct jval iterable;
	int64_t index0, length; /* length -1: not known yet */
	int depth0;
	struct jval before, current, after, last_changed; /* J_MISSING: none */
	const struct node *node;                          /* N_FOR; for loop(...) when it is recursive */
	struct frame *frame;                              /* around the loop */
};
int64_t loop_length(struct render *r, struct jloop *l);
int loop_next(struct render *r, struct jloop *l, struct jval *out);

struct jfilter {
	const char *name;
	struct jval (*call)(struct render *, struct jval value, const struct jargs *); /* NULL: known, not supported */
};
struct jtest {
	const char *name;
	int (*call)(struct render *, struct jval value, const struct jargs *);
};
const struct jfilter *filter_find(const struct jstr *name);
const struct jtest *test_find(const struct jstr *name);
struct jval filter_call_named(struct render *r, struct jval name, struct jval value, const struct jargs *args);
int test_call_named(struct render *r, struct jval name, struct jval value, const struct jargs *args);

/* Groups of filters, in files of their own; each ends with a NULL name. */
extern const struct jfilter text_filters[], sequence_filters[];
struct jval filter_wordwrap(struct render *r, struct jval v, const struct jargs *args);

/* Expressions (jinja_eval.c) and statements (jinja_exec.c). */
struct jval eval(struct render *r, struct frame *f, const struct node *n);
struct jval eval_filter(struct render *r, struct frame *f, const struct node *n, struct jval value);
/* Values of call arguments; NULL after a failure. caller: passed as keyword `caller` unless J_MISSING. */
const struct jargs *eval_args(struct render *r, struct frame *f, const struct call_args *args, struct jval caller);
enum flow { FLOW_NEXT, FLOW_BREAK, FLOW_CONTINUE };
enum flow exec_body(struct render *r, struct frame *f, const struct node_list *l);
struct frame *frame_new(struct render *r, const struct scope *s, struct frame *parent);
void frame_enter(struct render *r, struct frame *f); /* variables that are no parameters take their first values */
struct jval run_loop(struct render *r, struct frame *f, const struct node *n, struct jval iterable, int depth0);
int assign(struct render *r, struct frame *f, const struct node *target, struct jval value);
int render_enter(struct render *r, const struct node *n); /* one level deeper; 0 after a failure */

/* Calls (jinja_call.c). */
struct jval call_value(struct render *r, struct jval callee, const struct jargs *args);
struct jval call_macro(struct render *r, const struct jmacro *m, const struct jargs *args);
struct jval global_find(struct render *r, const struct jstr *name); /* J_MISSING: there is none */
/* Python's rules for arguments: names[i] of the i-th parameter ("/x": not by keyword); out[i] is J_MISSING when not given.
 * -1 after a failure: too many, twice, unknown, or one of the first n_required missing. */
int args_bind(struct render *r, const char *what, const struct jargs *args, int n_required, const char *const *names, int n,
              struct jval *out);
int args_none(struct render *r, const char *what, const struct jargs *args);
/* An argument that must be an int; default when J_MISSING. */
int64_t arg_int(struct render *r, const char *what, struct jval v, int64_t otherwise);
const struct jstr *arg_str(struct render *r, const char *what, struct jval v); /* NULL after a failure */

/* Attributes and subscripts as the sandbox allows them (jinja_attr.c). */
struct jval get_attribute(struct render *r, struct jval object, const struct jstr *name);
struct jval get_item(struct render *r, struct jval object, struct jval index);
struct jval get_slice(struct render *r, struct jval object, struct jval start, struct jval stop, struct jval step);
/* attr: "a.b.0" or an int; default J_MISSING: none. */
struct jval get_path(struct render *r, struct jval object, struct jval attr, struct jval otherwise);
struct jval str_slice(struct render *r, struct jval s, size_t from, size_t to); /* characters from..to */

/* Operators (jinja_ops.c). */
struct jval op_binary(struct render *r, enum node_kind op, struct jval a, struct jval b);
struct jval op_unary(struct render *r, enum node_kind op, struct jval a);
struct jval str_concat(struct render *r, struct jval a, struct jval b);
struct jval int_parse(struct render *r, const struct jstr *s, int base); /* J_MISSING: not an int */
int float_parse(const struct jstr *s, double *out);                      /* float(str); 0: not one */
double round_half_even(double d, int digits);

/* Formatting (jinja_percent.c, jinja_braces.c). */
struct jval format_percent(struct render *r, struct jval format, struct jval arg);
struct jval format_braces(struct render *r, struct jval format, const struct jargs *args); /* str.format */

/* Methods of str (jinja_str.c, jinja_str_find.c); each table ends with a NULL name. */
extern const struct jmethod str_methods[], str_find_methods[];
struct jval str_like(struct jval model, struct jval v);                        /* v, Markup if the model is */
struct jval str_part(struct render *r, struct jval s, size_t from, size_t to); /* bytes from..to */
enum { SIDE_LEFT = 1, SIDE_RIGHT = 2 };
struct jval str_strip(struct render *r, struct jval s, const struct jstr *chars, unsigned sides);
struct jval str_cased(struct render *r, struct jval s, int to); /* enum unicode_case */
struct jval str_capitalize(struct render *r, struct jval s);
struct jval str_replace(struct render *r, struct jval s, const struct jstr *from, const struct jstr *to, int64_t count);
struct jval str_center(struct render *r, struct jval s, int64_t width, const struct jstr *fill, int to_left, int to_right);
struct jlist *str_lines(struct render *r, struct jval s, int keep_ends);
struct jlist *str_split(struct render *r, struct jval s, const struct jstr *separator, int64_t max, int from_right);
int str_is_lower(const struct jstr *s);
int str_is_upper(const struct jstr *s);
struct jval str_escape(struct render *r, struct jval v); /* markupsafe.escape */

#endif
