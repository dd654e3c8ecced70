/* jinja_eval.c: expressions. */
#include <string.h>

#include "engine/text/jinja_eval.h"

int render_enter(struct render *r, const struct node *n)
{
	if (r->failed)
		return 0;
	r->line = n->line;
	if (!render_step(r, 1))
		return 0;
	if (r->depth >= JINJA_MAX_DEPTH) {
		render_fail(r, "the template nests too deeply");
		return 0;
	}
	r->depth++;
	return 1;
}

static struct jval eval_name(struct render *r, struct frame *f, const struct node *n)
{
	struct jval v;

	for (int up = n->up; up > 0; up--)
		f = f->parent;
	v = f->slots[n->slot];
	return v.type == J_MISSING ? jval_undefined_name(r, n->name) : v;
}

static struct jval eval_items(struct render *r, struct frame *f, const struct node *n)
{
	struct jlist *l = list_new(r, n->items.n);

	for (size_t i = 0; i < n->items.n && !r->failed; i++)
		list_add(r, l, eval(r, f, n->items.nodes[i]));
	return n->kind == N_TUPLE ? jval_tuple(l) : jval_list(l);
}

static struct jval eval_dict(struct render *r, struct frame *f, const struct node *n)
{
	struct jdict *d = dict_new(r);

	for (size_t i = 0; i + 1 < n->items.n && !r->failed; i += 2) {
		struct jval key = eval(r, f, n->items.nodes[i]), value = eval(r, f, n->items.nodes[i + 1]);

		dict_set(r, d, key, value);
	}
	return jval_dict(d);
}

static struct jval eval_concat(struct render *r, struct frame *f, const struct node *n)
{
	struct jval left = eval(r, f, n->items.nodes[0]);

	left = r->failed ? left : (struct jval){.type = J_STR, .str = jval_to_str(r, left)};
	for (size_t i = 1; i < n->items.n && !r->failed; i++) {
		struct jval v = eval(r, f, n->items.nodes[i]);

		if (!r->failed)
			left = str_concat(r, left, (struct jval){.type = J_STR, .str = jval_to_str(r, v)});
	}
	return left;
}

static int compare(struct render *r, enum compare_op op, struct jval a, struct jval b)
{
	switch (op) {
	case CMP_EQ:
		return jval_equal(r, a, b);
	case CMP_NE:
		return !jval_equal(r, a, b);
	case CMP_LT:
		return jval_less(r, a, b);
	case CMP_GT:
		return jval_less(r, b, a);
	case CMP_LE:
	case CMP_GE:
		return jval_at_most(r, op == CMP_LE ? a : b, op == CMP_LE ? b : a);
	case CMP_IN:
		return jval_contains(r, b, a);
	default:
		return !jval_contains(r, b, a);
	}
}

static struct jval eval_compare(struct render *r, struct frame *f, const struct node *n)
{
	struct jval left = eval(r, f, n->a);

	for (size_t i = 0; i < n->items.n && !r->failed; i++) {
		struct jval right = eval(r, f, n->items.nodes[i]);

		if (r->failed)
			break;
		if (!compare(r, n->ops[i], left, right))
			return jval_bool(0);
		left = right;
	}
	return jval_bool(1);
}

static struct jval eval_getitem(struct render *r, struct frame *f, const struct node *n)
{
	struct jval object = eval(r, f, n->a), part[3];

	if (n->b->kind != N_SLICE) {
		struct jval index = eval(r, f, n->b);

		return r->failed ? index : get_item(r, object, index);
	}
	for (int i = 0; i < 3; i++)
		part[i] = n->b->items.nodes[i] ? eval(r, f, n->b->items.nodes[i]) : jval_none();
	return r->failed ? jval_none() : get_slice(r, object, part[0], part[1], part[2]);
}

static const struct jargs no_args;

const struct jargs *eval_args(struct render *r, struct frame *f, const struct call_args *from, struct jval caller)
{
	struct jargs *args;
	struct jlist *values;
	struct jdict *more = NULL;
	size_t n_keywords = 0;

	if (!from && caller.type == J_MISSING)
		return &no_args;
	args = render_alloc(r, sizeof(*args));
	values = list_new(r, from ? from->values.n : 0);
	*args = (struct jargs){0};
	if (from) {
		struct jval v;

		for (size_t i = 0; i < from->values.n && !r->failed; i++)
			list_add(r, values, eval(r, f, from->values.nodes[i]));
		n_keywords = from->keyword_values.n;
		if (from->star && !r->failed) {
			struct jlist *l = list_of(r, eval(r, f, from->star));

			for (size_t i = 0; i < l->n; i++)
				list_add(r, values, l->items[i]);
		}
		if (from->star_star && !r->failed) {
			v = eval(r, f, from->star_star);
			if (v.type == J_DICT)
				more = v.dict;
			else if (!r->failed)
				render_fail(r, "argument after ** must be a mapping, not %s", jval_type_name(v));
		}
	}
	args->keywords = render_alloc(r, (n_keywords + (more ? more->n : 0) + 1) * sizeof(*args->keywords));
	if (r->failed || !args->keywords)
		return NULL;
	for (size_t i = 0; i < n_keywords; i++)
		args->keywords[args->n_keywords++] =
		    (struct jkeyword){from->keyword_names[i], eval(r, f, from->keyword_values.nodes[i])};
	if (caller.type != J_MISSING) {
		static const struct jstr caller_name = {.s = "caller", .n = 6, .n_chars = 6};

		args->keywords[args->n_keywords++] = (struct jkeyword){&caller_name, caller};
	}
	for (size_t i = 0; more && i < more->n; i++) {
		if (more->entries[i].key.type != J_STR) {
			render_fail(r, "keywords must be strings");
			return NULL;
		}
		args->keywords[args->n_keywords++] = (struct jkeyword){more->entries[i].key.str, more->entries[i].value};
	}
	args->values = values->items;
	args->n = values->n;
	return r->failed ? NULL : args;
}

struct jval eval_filter(struct render *r, struct frame *f, const struct node *n, struct jval value)
{
	const struct jargs *args;

	/* A block's filters: the innermost one gets the block's text. */
	if (n->a)
		value = n->a->kind == N_FILTER ? eval_filter(r, f, n->a, value) : eval(r, f, n->a);
	if (!n->filter || !n->filter->call)
		return render_fail(r, n->filter ? "filter '%.*s' is not supported" : "no filter named '%.*s'", (int)n->name->n,
		                   n->name->s);
	args = r->failed ? NULL : eval_args(r, f, n->args, (struct jval){.type = J_MISSING});
	r->line = n->line;
	return args ? n->filter->call(r, value, args) : jval_none();
}

static struct jval eval_test(struct render *r, struct frame *f, const struct node *n)
{
	struct jval value = eval(r, f, n->a);
	const struct jargs *args;

	if (!n->test)
		return render_fail(r, "no test named '%.*s'", (int)n->name->n, n->name->s);
	args = r->failed ? NULL : eval_args(r, f, n->args, (struct jval){.type = J_MISSING});
	return args ? jval_bool(n->test->call(r, value, args)) : jval_none();
}

static struct jval eval_call(struct render *r, struct frame *f, const struct node *n)
{
	struct jval callee = eval(r, f, n->a);
	const struct jargs *args = r->failed ? NULL : eval_args(r, f, n->args, (struct jval){.type = J_MISSING});

	r->line = n->line;
	return args ? call_value(r, callee, args) : jval_none();
}

static struct jval eval_cond(struct render *r, struct frame *f, const struct node *n)
{
	struct jval test = eval(r, f, n->b);

	if (r->failed)
		return test;
	if (jval_truth(r, test))
		return eval(r, f, n->a);
	if (n->c)
		return eval(r, f, n->c);
	return jval_undefined_hint(r, "the inline if-expression evaluated to false and no else section was defined");
}

static struct jval eval_logic(struct render *r, struct frame *f, const struct node *n)
{
	struct jval left = eval(r, f, n->a);

	if (r->failed || jval_truth(r, left) == (n->kind == N_OR))
		return left;
	return eval(r, f, n->b);
}

static struct jval eval_operator(struct render *r, struct frame *f, const struct node *n)
{
	struct jval a = eval(r, f, n->a), b = r->failed || !n->b ? jval_none() : eval(r, f, n->b);

	if (r->failed)
		return a;
	r->line = n->line;
	if (n->kind == N_NOT)
		return jval_bool(!jval_truth(r, a));
	return n->b ? op_binary(r, n->kind, a, b) : op_unary(r, n->kind, a);
}

static struct jval eval_getattr(struct render *r, struct frame *f, const struct node *n)
{
	struct jval object = eval(r, f, n->a);

	if (r->failed)
		return object;
	r->line = n->line;
	return get_attribute(r, object, n->name);
}

struct jval eval(struct render *r, struct frame *f, const struct node *n)
{
	struct jval v;

	if (n->kind == N_CONST)
		return n->value;
	if (!render_enter(r, n))
		return jval_none();
	switch (n->kind) {
	case N_NAME:
		v = eval_name(r, f, n);
		break;
	case N_GETATTR:
		v = eval_getattr(r, f, n);
		break;
	case N_GETITEM:
		v = eval_getitem(r, f, n);
		break;
	case N_TUPLE:
	case N_LIST:
		v = eval_items(r, f, n);
		break;
	case N_DICT:
		v = eval_dict(r, f, n);
		break;
	case N_CONCAT:
		v = eval_concat(r, f, n);
		break;
	case N_COMPARE:
		v = eval_compare(r, f, n);
		break;
	case N_COND:
		v = eval_cond(r, f, n);
		break;
	case N_AND:
	case N_OR:
		v = eval_logic(r, f, n);
		break;
	case N_FILTER:
		v = eval_filter(r, f, n, jval_none());
		break;
	case N_TEST:
		v = eval_test(r, f, n);
		break;
	case N_CALL:
		v = eval_call(r, f, n);
		break;
	default:
		v = eval_operator(r, f, n);
	}
	r->depth--;
	return r->failed ? jval_none() : v;
}
