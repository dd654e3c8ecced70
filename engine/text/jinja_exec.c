/* jinja_exec.c: statements. */
#include <string.h>

#include "engine/text/jinja_eval.h"

struct frame *frame_new(struct render *r, const struct scope *s, struct frame *parent)
{
	struct frame *f = render_alloc(r, sizeof(*f) + (size_t)s->n_slots * sizeof(f->slots[0]));

	/* A scope of more variables than 64 KiB holds cannot be had once memory is short. */
	if (!f)
		return NULL;
	f->parent = parent;
	f->scope = s;
	memset(f->slots, 0, (size_t)s->n_slots * sizeof(f->slots[0]));
	return f;
}

static struct jval resolve(struct render *r, const struct jstr *name)
{
	struct jval v;

	return dict_find(r, r->vars, (struct jval){.type = J_STR, .str = name}, &v) ? v : global_find(r, name);
}

void frame_enter(struct render *r, struct frame *f)
{
	for (int i = 0; i < f->scope->n_slots; i++) {
		const struct scope_slot *s = &f->scope->slots[i];
		struct frame *from = f->parent;

		switch (s->load) {
		case LOAD_PARAMETER:
			break;
		case LOAD_RESOLVE:
			f->slots[i] = resolve(r, s->name);
			break;
		case LOAD_ALIAS:
			for (int up = s->up; up > 0; up--)
				from = from->parent;
			f->slots[i] = from->slots[s->slot];
			break;
		case LOAD_UNDEFINED:
			f->slots[i] = (struct jval){.type = J_MISSING};
			break;
		}
	}
}

static int assign_tuple(struct render *r, struct frame *f, const struct node *target, struct jval value)
{
	struct jlist *l = list_of(r, value);

	if (r->failed)
		return -1;
	if (l->n != target->items.n) {
		render_fail(r,
		            l->n < target->items.n ? "not enough values to unpack (expected %zu, got %zu)"
		                                   : "too many values to unpack (expected %zu, got %zu)",
		            target->items.n, l->n);
		return -1;
	}
	for (size_t i = 0; i < l->n; i++)
		if (assign(r, f, target->items.nodes[i], l->items[i]))
			return -1;
	return 0;
}

int assign(struct render *r, struct frame *f, const struct node *target, struct jval value)
{
	struct jval *slot;

	if (r->failed)
		return -1;
	if (target->kind == N_TUPLE)
		return assign_tuple(r, f, target, value);
	for (int up = target->up; up > 0; up--)
		f = f->parent;
	slot = &f->slots[target->slot];
	if (target->kind == N_NAME) {
		*slot = value;
		return 0;
	}
	if (slot->type != J_NAMESPACE) {
		render_fail(r, "cannot assign attribute on non-namespace object");
		return -1;
	}
	if (target->value.str->n && target->value.str->s[0] == '_') {
		render_fail(r, "a namespace cannot have the attribute '%.*s': it starts with an underscore", (int)target->value.str->n,
		            target->value.str->s);
		return -1;
	}
	dict_set(r, slot->dict, target->value, value);
	return r->failed ? -1 : 0;
}

/* What the statements write, as a string. */
static struct jval capture(struct render *r, struct frame *f, const struct node_list *body, enum flow *flow)
{
	struct buf text = {0}, *outer = r->out;

	r->out = &text;
	*flow = exec_body(r, f, body);
	r->out = outer;
	return jval_text(r, &text);
}

static void exec_output(struct render *r, struct frame *f, const struct node *n)
{
	for (size_t i = 0; i < n->items.n && !r->failed; i++) {
		struct jval v = eval(r, f, n->items.nodes[i]);

		if (!r->failed)
			text_add_value(r, r->out, v);
	}
}

static enum flow exec_if(struct render *r, struct frame *f, const struct node *n)
{
	struct jval test = eval(r, f, n->a);

	if (r->failed)
		return FLOW_NEXT;
	if (jval_truth(r, test))
		return exec_body(r, f, &n->body);
	for (size_t i = 0; i < n->items.n; i++) {
		test = eval(r, f, n->items.nodes[i]->a);
		if (r->failed)
			return FLOW_NEXT;
		if (jval_truth(r, test))
			return exec_body(r, f, &n->items.nodes[i]->body);
	}
	return exec_body(r, f, &n->orelse);
}

/* for ... if: an iterator over what passes the condition; extra is the condition's frame. */
struct loop_test {
	struct frame *frame;
	const struct node *node;
};

static int next_passing(struct render *r, struct jiter *it, struct jval *out)
{
	const struct loop_test *t = it->extra;

	while (iter_next(r, it->from, out)) {
		struct jval passes;

		if (assign(r, t->frame, t->node->test_target, *out))
			return 0;
		passes = eval(r, t->frame, t->node->c);
		if (r->failed)
			return 0;
		if (jval_truth(r, passes))
			return 1;
	}
	return 0;
}

static struct jval filtered(struct render *r, struct frame *f, const struct node *n, struct jval iterable)
{
	struct loop_test *t = render_alloc(r, sizeof(*t));
	struct jiter *from = iter_open(r, iterable), *it;

	t->node = n;
	t->frame = frame_new(r, n->test_scope, f);
	if (!from || !t->frame)
		return jval_none();
	frame_enter(r, t->frame);
	it = iter_new(r, next_passing, "generator");
	it->from = from;
	it->extra = t;
	return jval_iter(it);
}

int loop_next(struct render *r, struct jloop *l, struct jval *out)
{
	if (l->after.type != J_MISSING) {
		*out = l->after;
		l->after.type = J_MISSING;
	} else if (!iter_next(r, l->iter, out)) {
		return 0;
	}
	l->index0++;
	l->before = l->current;
	l->current = *out;
	return 1;
}

int64_t loop_length(struct render *r, struct jloop *l)
{
	if (l->length < 0)
		l->length = jval_length(r, l->iterable);
	if (l->length < 0) {
		struct jlist *rest = list_new(r, 0);
		struct jval v;

		while (iter_next(r, l->iter, &v))
			list_add(r, rest, v);
		l->iter = iter_over(r, rest->items, rest->n, "list_iterator");
		l->length = (int64_t)rest->n + l->index0 + 1 + (l->after.type != J_MISSING);
	}
	return l->length;
}

/* The iterations of a loop. *ran: a body ran to its end; Jinja's else looks at that, so that it also runs after a break or
 * continue in the first turn. */
static void iterate(struct render *r, struct frame *f, const struct node *n, struct jloop *loop, int *ran)
{
	struct frame *body = frame_new(r, n->scope, f);
	struct jval item;

	while (body && !r->failed && loop_next(r, loop, &item)) {
		enum flow flow;

		if (assign(r, body, n->a, item))
			return;
		if (n->slot_loop >= 0)
			body->slots[n->slot_loop] = (struct jval){.type = J_LOOP, .loop = loop};
		frame_enter(r, body);
		flow = exec_body(r, body, &n->body);
		if (flow == FLOW_BREAK)
			return;
		if (flow == FLOW_NEXT)
			*ran = 1;
	}
}

struct jval run_loop(struct render *r, struct frame *f, const struct node *n, struct jval iterable, int depth0)
{
	struct buf text = {0}, *outer = r->out;
	struct jloop *loop = render_alloc(r, sizeof(*loop));
	struct jval missing = {.type = J_MISSING};
	int ran = 0;

	if (n->c)
		iterable = filtered(r, f, n, iterable);
	*loop = (struct jloop){.iterable = iterable,
	                       .index0 = -1,
	                       .length = -1,
	                       .depth0 = depth0,
	                       .before = missing,
	                       .current = missing,
	                       .after = missing,
	                       .last_changed = missing,
	                       .node = n,
	                       .frame = f};
	loop->iter = iter_open(r, iterable);
	if (n->recursive)
		r->out = &text;
	if (loop->iter)
		iterate(r, f, n, loop, &ran);
	if (!r->failed && !ran && n->orelse.n) {
		struct frame *otherwise = frame_new(r, n->else_scope, f);

		if (otherwise) {
			frame_enter(r, otherwise);
			exec_body(r, otherwise, &n->orelse);
		}
	}
	r->out = outer;
	return n->recursive ? jval_text(r, &text) : jval_none();
}

static void exec_for(struct render *r, struct frame *f, const struct node *n)
{
	struct jval iterable = eval(r, f, n->b), text;

	if (r->failed)
		return;
	text = run_loop(r, f, n, iterable, 0);
	if (n->recursive && !r->failed)
		text_add_str(r, r->out, text.str);
}

static enum flow exec_set_block(struct render *r, struct frame *f, const struct node *n)
{
	struct frame *inner = frame_new(r, n->scope, f);
	enum flow flow = FLOW_NEXT;
	struct jval text;

	if (!inner)
		return flow;
	frame_enter(r, inner);
	text = capture(r, inner, &n->body, &flow);
	if (r->failed || flow != FLOW_NEXT)
		return flow;
	assign(r, f, n->a, n->c ? eval_filter(r, inner, n->c, text) : text);
	return flow;
}

static enum flow exec_filter_block(struct render *r, struct frame *f, const struct node *n)
{
	struct frame *inner = frame_new(r, n->scope, f);
	enum flow flow = FLOW_NEXT;
	struct jval text;

	if (!inner)
		return flow;
	frame_enter(r, inner);
	text = capture(r, inner, &n->body, &flow);
	if (r->failed || flow != FLOW_NEXT)
		return flow;
	text = eval_filter(r, inner, n->c, text);
	if (!r->failed)
		text_add_value(r, r->out, text);
	return flow;
}

static enum flow exec_with(struct render *r, struct frame *f, const struct node *n)
{
	struct frame *inner = frame_new(r, n->scope, f);

	if (!inner)
		return FLOW_NEXT;
	frame_enter(r, inner);
	for (size_t i = 0; i < n->items.n && !r->failed; i++)
		assign(r, inner, n->items.nodes[i], eval(r, f, n->defaults.nodes[i]));
	return r->failed ? FLOW_NEXT : exec_body(r, inner, &n->body);
}

static struct jval macro_new(struct render *r, struct frame *f, const struct node *n)
{
	struct jmacro *m = render_alloc(r, sizeof(*m));

	*m = (struct jmacro){.node = n, .frame = f};
	return (struct jval){.type = J_MACRO, .macro = m};
}

static void exec_call_block(struct render *r, struct frame *f, const struct node *n)
{
	struct jval caller = macro_new(r, f, n->a), callee = eval(r, f, n->b->a), text;
	const struct jargs *args = r->failed ? NULL : eval_args(r, f, n->b->args, caller);

	if (!args)
		return;
	text = call_value(r, callee, args);
	if (!r->failed)
		text_add_value(r, r->out, text);
}

static enum flow exec(struct render *r, struct frame *f, const struct node *n)
{
	struct frame *inner;

	switch (n->kind) {
	case N_OUTPUT:
		exec_output(r, f, n);
		break;
	case N_IF:
		return exec_if(r, f, n);
	case N_FOR:
		exec_for(r, f, n);
		break;
	case N_SET:
		assign(r, f, n->a, eval(r, f, n->b));
		break;
	case N_SET_BLOCK:
		return exec_set_block(r, f, n);
	case N_MACRO:
		assign(r, f, n->a, macro_new(r, f, n));
		break;
	case N_CALL_BLOCK:
		exec_call_block(r, f, n);
		break;
	case N_FILTER_BLOCK:
		return exec_filter_block(r, f, n);
	case N_WITH:
		return exec_with(r, f, n);
	case N_GENERATION:
		inner = frame_new(r, n->scope, f);
		if (inner) {
			frame_enter(r, inner);
			exec_body(r, inner, &n->body);
		}
		break;
	case N_BREAK:
		return FLOW_BREAK;
	case N_CONTINUE:
		return FLOW_CONTINUE;
	default:
		BUG("statement of kind %d", (int)n->kind);
	}
	return FLOW_NEXT;
}

enum flow exec_body(struct render *r, struct frame *f, const struct node_list *l)
{
	enum flow flow = FLOW_NEXT;

	for (size_t i = 0; i < l->n && flow == FLOW_NEXT && !r->failed; i++) {
		if (!render_enter(r, l->nodes[i]))
			break;
		flow = exec(r, f, l->nodes[i]);
		r->depth--;
	}
	return flow;
}
