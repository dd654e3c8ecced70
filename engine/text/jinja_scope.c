/* jinja_scope.c: where each name's value lives, by the rules of jinja2/idtracking.py and compiler.py.
 *
 * Blocks that open a scope (for, macro, call, block set, filter, with, generation) are analysed before their statements are
 * resolved, so that a name's meaning does not depend on where in the block it stands:
 *
 *     read, and no outer block has it      own variable, starts from the context (LOAD_RESOLVE)
 *     read, an outer block has it          the outer one
 *     assigned, an outer block has it      own variable, starts as a copy (LOAD_ALIAS)
 *     assigned only, no outer block has it own variable, starts undefined (LOAD_UNDEFINED); but from the context if it
 *                                          is assigned in only some branch of an if (branch_update)
 */
#include <stdlib.h>
#include <string.h>

#include "engine/text/jinja_ast.h"
#include "engine/text/jinja_eval.h"

static int same_name(const struct jstr *a, const struct jstr *b)
{
	return a == b || (a->n == b->n && memcmp(a->s, b->s, a->n) == 0);
}

static int name_is(const struct jstr *a, const char *s)
{
	return a->n == strlen(s) && memcmp(a->s, s, a->n) == 0;
}

static struct scope *scope_new(struct compile *c, struct scope *parent)
{
	struct scope *s = arena_alloc(c->mem, sizeof(*s));

	*s = (struct scope){.parent = parent};
	return s;
}

static int slot_by_name(struct compile *c, struct scope *s, const struct jstr *name)
{
	for (int i = 0; i < s->n_slots; i++)
		if (same_name(s->slots[i].name, name))
			return i;
	if (s->n_slots == s->cap) {
		int cap = s->cap ? s->cap * 2 : 8;
		struct scope_slot *slots = arena_alloc(c->mem, (size_t)cap * sizeof(*slots));

		if (s->n_slots)
			memcpy(slots, s->slots, (size_t)s->n_slots * sizeof(*slots));
		s->slots = slots;
		s->cap = cap;
	}
	s->slots[s->n_slots] = (struct scope_slot){.name = name};
	return s->n_slots++;
}

static int find_reference(const struct scope *s, const struct jstr *name, int *up, int *slot)
{
	*up = 0;
	for (; s; s = s->parent, (*up)++)
		for (int i = 0; i < s->n_slots; i++)
			if (s->slots[i].referenced && same_name(s->slots[i].name, name)) {
				*slot = i;
				return 1;
			}
	return 0;
}

static int define(struct compile *c, struct scope *s, const struct jstr *name, enum scope_load load)
{
	int i = slot_by_name(c, s, name);

	s->slots[i].referenced = 1;
	s->slots[i].load = load;
	return i;
}

static int declare_parameter(struct compile *c, struct scope *s, const struct jstr *name)
{
	int i = define(c, s, name, LOAD_PARAMETER);

	s->slots[i].stored = 1;
	return i;
}

static void note_load(struct compile *c, struct scope *s, const struct jstr *name)
{
	int up, slot;

	if (!find_reference(s, name, &up, &slot))
		define(c, s, name, LOAD_RESOLVE);
}

/* Point a slot at the outer variable of the same name; 0 when there is none. */
static int alias_outer(struct scope *s, int i)
{
	int up, slot;

	if (!s->parent || !find_reference(s->parent, s->slots[i].name, &up, &slot))
		return 0;
	s->slots[i].load = LOAD_ALIAS;
	s->slots[i].up = up;
	s->slots[i].slot = slot;
	return 1;
}

static void note_store(struct compile *c, struct scope *s, const struct jstr *name)
{
	int i = slot_by_name(c, s, name);

	s->slots[i].stored = 1;
	if (s->slots[i].referenced)
		return;
	s->slots[i].referenced = 1;
	if (!alias_outer(s, i))
		s->slots[i].load = LOAD_UNDEFINED;
}

/* ---- analysis: what a block reads and assigns itself, not what blocks inside it do ---- */

static void analyse_body(struct compile *c, struct scope *s, const struct node_list *l);

static void analyse_expression(struct compile *c, struct scope *s, const struct node *n);

static void analyse_list(struct compile *c, struct scope *s, const struct node_list *l)
{
	for (size_t i = 0; i < l->n; i++)
		analyse_expression(c, s, l->nodes[i]);
}

static void analyse_expression(struct compile *c, struct scope *s, const struct node *n)
{
	if (!n)
		return;
	if (n->kind == N_NAME || n->kind == N_NSREF)
		note_load(c, s, n->name);
	analyse_expression(c, s, n->a);
	analyse_expression(c, s, n->b);
	analyse_expression(c, s, n->c);
	analyse_list(c, s, &n->items);
	if (n->args) {
		analyse_list(c, s, &n->args->values);
		analyse_list(c, s, &n->args->keyword_values);
		analyse_expression(c, s, n->args->star);
		analyse_expression(c, s, n->args->star_star);
	}
}

static void analyse_target(struct compile *c, struct scope *s, const struct node *n, int as_parameter)
{
	if (n->kind == N_TUPLE) {
		for (size_t i = 0; i < n->items.n; i++)
			analyse_target(c, s, n->items.nodes[i], as_parameter);
	} else if (n->kind == N_NSREF) {
		note_load(c, s, n->name);
	} else if (as_parameter) {
		declare_parameter(c, s, n->name);
	} else {
		note_store(c, s, n->name);
	}
}

struct snapshot {
	struct scope_slot *slots;
	int n;
};

static struct snapshot take_snapshot(const struct scope *s)
{
	struct snapshot snap = {xcalloc((size_t)s->n_slots, sizeof(*s->slots)), s->n_slots};

	if (s->n_slots)
		memcpy(snap.slots, s->slots, (size_t)s->n_slots * sizeof(*s->slots));
	return snap;
}

/* Back to a snapshot; names that came since keep their slots, unreferenced. */
static void restore_snapshot(struct scope *s, const struct snapshot *snap)
{
	for (int i = 0; i < s->n_slots; i++) {
		const struct jstr *name = s->slots[i].name;

		s->slots[i] = i < snap->n ? snap->slots[i] : (struct scope_slot){.name = name};
	}
}

static void analyse_if(struct compile *c, struct scope *s, const struct node *n)
{
	struct snapshot before, after[3];

	analyse_expression(c, s, n->a);
	before = take_snapshot(s);
	for (int k = 0; k < 3; k++) {
		restore_snapshot(s, &before);
		if (k == 1)
			for (size_t i = 0; i < n->items.n; i++)
				analyse_if(c, s, n->items.nodes[i]);
		else
			analyse_body(c, s, k == 0 ? &n->body : &n->orelse);
		after[k] = take_snapshot(s);
	}
	restore_snapshot(s, &before);
	for (int k = 0; k < 3; k++) {
		for (int i = 0; i < after[k].n; i++) {
			const struct scope_slot *a = &after[k].slots[i];

			if (a->referenced) {
				int stored = s->slots[i].stored;

				s->slots[i] = *a;
				s->slots[i].stored |= stored;
			}
		}
		free(after[k].slots);
	}
	for (int i = 0; i < s->n_slots; i++)
		if (s->slots[i].stored && !(i < before.n && before.slots[i].stored) && !alias_outer(s, i))
			s->slots[i].load = LOAD_RESOLVE;
	free(before.slots);
}

static void analyse_body(struct compile *c, struct scope *s, const struct node_list *l)
{
	for (size_t i = 0; i < l->n; i++) {
		const struct node *n = l->nodes[i];

		switch (n->kind) {
		case N_OUTPUT:
			analyse_list(c, s, &n->items);
			break;
		case N_IF:
			analyse_if(c, s, n);
			break;
		case N_FOR:
		case N_CALL_BLOCK:
			analyse_expression(c, s, n->b);
			break;
		case N_SET:
			analyse_expression(c, s, n->b);
			analyse_target(c, s, n->a, 0);
			break;
		case N_SET_BLOCK:
			analyse_target(c, s, n->a, 0);
			break;
		case N_MACRO:
			note_store(c, s, n->name);
			break;
		case N_FILTER_BLOCK:
			analyse_expression(c, s, n->c);
			break;
		case N_WITH:
			analyse_list(c, s, &n->defaults);
			break;
		default:
			break;
		}
	}
}

/* ---- which of the special names (loop; caller, kwargs, varargs) a body reads before it assigns them ---- */

struct special {
	const char *names[3];
	int shadowed[3], used[3];
	int stored; /* the first one was assigned somewhere */
};

static void look_body(struct special *p, const struct node_list *l);

static void look(struct special *p, const struct node *n, int is_target)
{
	if (!n)
		return;
	if (n->kind == N_NAME) {
		for (int k = 0; k < 3; k++)
			if (p->names[k] && name_is(n->name, p->names[k])) {
				if (is_target) {
					p->shadowed[k] = 1;
					p->stored |= is_target == 1 && k == 0;
				} else if (!p->shadowed[k]) {
					p->used[k] = 1;
				}
			}
		return;
	}
	if (n->kind == N_NSREF || n->kind == N_CONST)
		return;
	/* Targets come first; a macro's parameters and with's targets shadow, but count as no assignment (2). */
	if (n->kind == N_FOR || n->kind == N_SET || n->kind == N_SET_BLOCK)
		look(p, n->a, 1);
	else if (n->kind != N_MACRO)
		look(p, n->a, is_target);
	look(p, n->b, 0);
	if (n->kind != N_FOR && n->kind != N_FILTER_BLOCK)
		look(p, n->c, 0);
	for (size_t i = 0; i < n->items.n; i++)
		look(p, n->items.nodes[i], n->kind == N_MACRO || n->kind == N_WITH ? 2 : n->kind == N_TUPLE ? is_target : 0);
	if (n->args) {
		look_body(p, &n->args->values);
		look_body(p, &n->args->keyword_values);
		look(p, n->args->star, 0);
		look(p, n->args->star_star, 0);
	}
	look_body(p, &n->defaults);
	look_body(p, &n->body);
	look_body(p, &n->orelse);
	if (n->kind == N_FOR || n->kind == N_FILTER_BLOCK)
		look(p, n->c, 0);
}

static void look_body(struct special *p, const struct node_list *l)
{
	for (size_t i = 0; i < l->n; i++)
		look(p, l->nodes[i], 0);
}

/* ---- resolution ---- */

struct resolver {
	struct compile *c;
	struct chat_template *t;
};

static void resolve_body(struct resolver *v, struct scope *s, const struct node_list *l, int soft);
static void resolve_expression(struct resolver *v, struct scope *s, struct node *n, int soft);

static void note_name(struct resolver *v, const struct jstr *name)
{
	struct chat_template *t = v->t;

	for (size_t i = 0; i < t->n_names; i++)
		if (same_name(t->names[i], name))
			return;
	if (t->n_names == t->names_cap) {
		size_t cap = t->names_cap ? t->names_cap * 2 : 32;
		const struct jstr **names = arena_alloc(&t->mem, cap * sizeof(*names));

		if (t->n_names)
			memcpy(names, t->names, t->n_names * sizeof(*names));
		t->names = names;
		t->names_cap = cap;
	}
	t->names[t->n_names++] = name;
}

static void resolve_list(struct resolver *v, struct scope *s, const struct node_list *l, int soft)
{
	for (size_t i = 0; i < l->n; i++)
		resolve_expression(v, s, l->nodes[i], soft);
}

static void check_known(struct resolver *v, const struct node *n)
{
	if (n->kind == N_FILTER && (!n->filter || !n->filter->call))
		compile_fail(v->c, n->line, n->filter ? "filter '%.*s' is not supported" : "no filter named '%.*s'", (int)n->name->n,
		             n->name->s);
	if (n->kind == N_TEST && !n->test)
		compile_fail(v->c, n->line, "no test named '%.*s'", (int)n->name->n, n->name->s);
}

/* soft: inside an if, where an unknown filter or test fails when it is reached, not before. */
static void resolve_expression(struct resolver *v, struct scope *s, struct node *n, int soft)
{
	if (!n || v->c->failed)
		return;
	if (n->kind == N_NAME || n->kind == N_NSREF) {
		if (!find_reference(s, n->name, &n->up, &n->slot))
			compile_fail(v->c, n->line, "the name '%.*s' cannot be used here", (int)n->name->n, n->name->s);
		else
			note_name(v, n->name);
	}
	if (n->kind == N_COND)
		soft = 1;
	if (!soft)
		check_known(v, n);
	resolve_expression(v, s, n->a, soft);
	resolve_expression(v, s, n->b, soft);
	resolve_expression(v, s, n->c, soft);
	resolve_list(v, s, &n->items, soft);
	if (n->args) {
		resolve_list(v, s, &n->args->values, soft);
		resolve_list(v, s, &n->args->keyword_values, soft);
		resolve_expression(v, s, n->args->star, soft);
		resolve_expression(v, s, n->args->star_star, soft);
	}
}

static void resolve_target(struct resolver *v, struct scope *s, struct node *n)
{
	if (n->kind == N_TUPLE) {
		for (size_t i = 0; i < n->items.n; i++)
			resolve_target(v, s, n->items.nodes[i]);
	} else if (!find_reference(s, n->name, &n->up, &n->slot)) {
		compile_fail(v->c, n->line, "the name '%.*s' cannot be assigned here", (int)n->name->n, n->name->s);
	}
}

static struct node *copy_target(struct compile *c, const struct node *n)
{
	struct node *copy = node_new(c, n->kind, n->line);

	copy->name = n->name;
	for (size_t i = 0; i < n->items.n; i++)
		node_list_add(c, &copy->items, copy_target(c, n->items.nodes[i]));
	return copy;
}

static const struct jstr *constant_name(struct compile *c, const char *s)
{
	struct jstr *name = arena_alloc(c->mem, sizeof(*name));

	*name = (struct jstr){.s = s, .n = strlen(s), .n_chars = strlen(s)};
	return name;
}

static void resolve_for(struct resolver *v, struct scope *s, struct node *n, int soft)
{
	struct compile *c = v->c;
	struct special loop = {.names = {"loop"}}, whole = {.names = {"loop"}};

	look_body(&loop, &n->body);
	look(&whole, n, 0);
	if (whole.stored) {
		compile_fail(c, n->line, "cannot assign to special loop variable in for-loop");
		return;
	}
	n->scope = scope_new(c, s);
	n->else_scope = scope_new(c, s);
	if (n->recursive || loop.used[0])
		n->slot_loop = declare_parameter(c, n->scope, constant_name(c, "loop"));
	analyse_target(c, n->scope, n->a, 1);
	analyse_body(c, n->scope, &n->body);
	analyse_body(c, n->else_scope, &n->orelse);
	if (n->c) {
		n->test_scope = scope_new(c, s);
		n->test_target = copy_target(c, n->a);
		analyse_target(c, n->test_scope, n->test_target, 1);
		analyse_expression(c, n->test_scope, n->c);
		resolve_target(v, n->test_scope, n->test_target);
		resolve_expression(v, n->test_scope, n->c, 0);
	}
	resolve_expression(v, s, n->b, soft);
	resolve_target(v, n->scope, n->a);
	resolve_body(v, n->scope, &n->body, 0);
	resolve_body(v, n->else_scope, &n->orelse, 0);
}

/* The body of macro, call and generation: a function with parameters. */
static void resolve_function(struct resolver *v, struct scope *s, struct node *n)
{
	struct compile *c = v->c;
	struct special p = {.names = {"caller", "kwargs", "varargs"}};
	int own_kwargs = 0, own_varargs = 0;
	size_t caller_at = 0;

	n->scope = scope_new(c, s);
	for (size_t i = 0; i < n->items.n; i++) {
		const struct jstr *name = n->items.nodes[i]->name;

		declare_parameter(c, n->scope, name);
		own_kwargs |= name_is(name, "kwargs");
		own_varargs |= name_is(name, "varargs");
		if (name_is(name, "caller")) {
			n->explicit_caller = 1;
			caller_at = i;
		}
	}
	look_body(&p, &n->body);
	if (p.used[0] && n->explicit_caller && caller_at + n->defaults.n < n->items.n) {
		compile_fail(c, n->line, "the special \"caller\" argument must be omitted or be given a default");
		return;
	}
	if (p.used[0] && !n->explicit_caller)
		n->slot_caller = declare_parameter(c, n->scope, constant_name(c, "caller"));
	if (p.used[1] && !own_kwargs)
		n->slot_kwargs = declare_parameter(c, n->scope, constant_name(c, "kwargs"));
	if (p.used[2] && !own_varargs)
		n->slot_varargs = declare_parameter(c, n->scope, constant_name(c, "varargs"));
	analyse_list(c, n->scope, &n->defaults);
	analyse_body(c, n->scope, &n->body);
	for (size_t i = 0; i < n->items.n; i++)
		resolve_target(v, n->scope, n->items.nodes[i]);
	resolve_list(v, n->scope, &n->defaults, 0);
	resolve_body(v, n->scope, &n->body, 0);
}

static void resolve_with(struct resolver *v, struct scope *s, struct node *n, int soft)
{
	n->scope = scope_new(v->c, s);
	for (size_t i = 0; i < n->items.n; i++)
		analyse_target(v->c, n->scope, n->items.nodes[i], 1);
	analyse_body(v->c, n->scope, &n->body);
	resolve_list(v, s, &n->defaults, soft);
	for (size_t i = 0; i < n->items.n; i++)
		resolve_target(v, n->scope, n->items.nodes[i]);
	resolve_body(v, n->scope, &n->body, 0);
}

static void resolve_statement(struct resolver *v, struct scope *s, struct node *n, int soft)
{
	switch (n->kind) {
	case N_OUTPUT:
		resolve_list(v, s, &n->items, soft);
		break;
	case N_IF:
		resolve_expression(v, s, n->a, 1);
		resolve_body(v, s, &n->body, 1);
		resolve_body(v, s, &n->items, 1);
		resolve_body(v, s, &n->orelse, 1);
		break;
	case N_FOR:
		resolve_for(v, s, n, soft);
		break;
	case N_SET:
		resolve_expression(v, s, n->b, soft);
		resolve_target(v, s, n->a);
		break;
	case N_SET_BLOCK:
		n->scope = scope_new(v->c, s);
		analyse_body(v->c, n->scope, &n->body);
		resolve_body(v, n->scope, &n->body, 0);
		resolve_expression(v, n->scope, n->c, 0);
		resolve_target(v, s, n->a);
		break;
	case N_MACRO:
		resolve_function(v, s, n);
		resolve_target(v, s, n->a);
		break;
	case N_CALL_BLOCK:
		resolve_function(v, s, n->a);
		resolve_expression(v, s, n->b, soft);
		break;
	case N_GENERATION:
		resolve_function(v, s, n);
		break;
	case N_FILTER_BLOCK:
		n->scope = scope_new(v->c, s);
		analyse_body(v->c, n->scope, &n->body);
		analyse_expression(v->c, n->scope, n->c);
		resolve_body(v, n->scope, &n->body, 0);
		resolve_expression(v, n->scope, n->c, 0);
		break;
	case N_WITH:
		resolve_with(v, s, n, soft);
		break;
	default:
		break;
	}
}

static void resolve_body(struct resolver *v, struct scope *s, const struct node_list *l, int soft)
{
	for (size_t i = 0; i < l->n && !v->c->failed; i++)
		resolve_statement(v, s, l->nodes[i], soft);
}

int scope_resolve(struct compile *c, struct chat_template *t)
{
	struct resolver v = {.c = c, .t = t};

	t->root = scope_new(c, NULL);
	analyse_body(c, t->root, &t->body);
	resolve_body(&v, t->root, &t->body, 0);
	return c->failed ? -1 : 0;
}
