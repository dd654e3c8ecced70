/* jinja_parse.c: the statements of a template. A recursive descent over the tokens, as jinja2/parser.py. */
#include <string.h>

#include "engine/text/jinja_ast.h"

/* Statements up to one of the end names (NULL-terminated; NULL: up to the end of the template), which becomes the current
 * token. -1 after a failure. */
static int parse_body(struct compile *c, struct node_list *body, const char *const *ends);

static const struct jstr *name_of(const struct token *t)
{
	return t->value.str;
}

/* "%}", statements, and the end name, which is returned taken. */
static const struct token *parse_block(struct compile *c, struct node_list *body, const char *const *ends)
{
	token_skip(c, T_COLON);
	if (!token_expect(c, T_BLOCK_END) || parse_body(c, body, ends))
		return NULL;
	return token_take(c);
}

static int can_assign(const struct node *n)
{
	if (n->kind == N_TUPLE) {
		for (size_t i = 0; i < n->items.n; i++)
			if (!can_assign(n->items.nodes[i]))
				return 0;
		return 1;
	}
	return n->kind == N_NAME || n->kind == N_NSREF;
}

static struct node *parse_target(struct compile *c, unsigned flags, const char *end_name)
{
	int line = token_now(c)->line;
	struct node *n = parse_tuple(c, TUPLE_SIMPLE | flags, end_name);

	if (n && !can_assign(n))
		return compile_fail(c, line, "cannot assign to this expression");
	return n;
}

static struct node *parse_name_target(struct compile *c)
{
	const struct token *t = token_expect(c, T_NAME);
	struct node *n;

	if (!t)
		return NULL;
	if (token_is_name(t, "true") || token_is_name(t, "false") || token_is_name(t, "none") || token_is_name(t, "True") ||
	    token_is_name(t, "False") || token_is_name(t, "None"))
		return compile_fail(c, t->line, "cannot assign to '%.*s'", (int)name_of(t)->n, name_of(t)->s);
	n = node_new(c, N_NAME, t->line);
	n->name = name_of(t);
	return n;
}

/* Is `loop` assigned to? Jinja forbids it in for (scope_resolve looks into the body). */
static int names_loop(const struct node *n)
{
	if (n->kind == N_TUPLE) {
		for (size_t i = 0; i < n->items.n; i++)
			if (names_loop(n->items.nodes[i]))
				return 1;
		return 0;
	}
	return n->kind == N_NAME && n->name->n == 4 && memcmp(n->name->s, "loop", 4) == 0;
}

static struct node *parse_for(struct compile *c)
{
	static const char *const ends[] = {"endfor", "else", NULL}, *const end[] = {"endfor", NULL};
	struct node *n = node_new(c, N_FOR, token_take(c)->line);
	const struct token *t;

	n->a = parse_target(c, 0, "in");
	if (!n->a)
		return NULL;
	if (names_loop(n->a))
		return compile_fail(c, n->line, "cannot assign to special loop variable in for-loop target");
	if (!token_skip_name(c, "in"))
		return compile_fail(c, token_now(c)->line, "expected 'in', got %s", token_kind_name(token_now(c)->kind));
	n->b = parse_tuple(c, TUPLE_NO_COND, "recursive");
	if (n->b && token_skip_name(c, "if"))
		n->c = parse_expression(c, 1);
	if (c->failed)
		return NULL;
	n->recursive = token_skip_name(c, "recursive");
	c->in_loop++;
	t = parse_block(c, &n->body, ends);
	c->in_loop--;
	if (t && token_is_name(t, "else") && !parse_block(c, &n->orelse, end))
		return NULL;
	return t ? n : NULL;
}

static struct node *parse_if(struct compile *c)
{
	static const char *const ends[] = {"elif", "else", "endif", NULL}, *const end[] = {"endif", NULL};
	struct node *top = node_new(c, N_IF, token_take(c)->line), *n = top;
	const struct token *t;

	for (;;) {
		n->a = parse_tuple(c, TUPLE_NO_COND, NULL);
		t = n->a ? parse_block(c, &n->body, ends) : NULL;
		if (!t || !token_is_name(t, "elif"))
			break;
		/* A chain, not a tree: elifs hang on the first if, so that a long chain is not deep. */
		n = node_new(c, N_IF, t->line);
		node_list_add(c, &top->items, n);
	}
	if (t && token_is_name(t, "else") && !parse_block(c, &top->orelse, end))
		t = NULL;
	return t ? top : NULL;
}

static struct node *parse_set(struct compile *c)
{
	static const char *const end[] = {"endset", NULL};
	struct node *n = node_new(c, N_SET, token_take(c)->line);

	n->a = parse_target(c, TUPLE_NAMESPACE, NULL);
	if (!n->a)
		return NULL;
	if (token_skip(c, T_ASSIGN)) {
		n->b = parse_tuple(c, 0, NULL);
		return n->b ? n : NULL;
	}
	n->kind = N_SET_BLOCK;
	n->c = parse_filter(c, NULL, 0);
	return !c->failed && parse_block(c, &n->body, end) ? n : NULL;
}

/* "(a, b=1)" into items and defaults. */
static int parse_signature(struct compile *c, struct node *n)
{
	if (!token_expect(c, T_LPAREN))
		return -1;
	while (token_now(c)->kind != T_RPAREN) {
		struct node *parameter, *value;

		if (n->items.n && !token_expect(c, T_COMMA))
			return -1;
		parameter = parse_name_target(c);
		if (!parameter)
			return -1;
		if (token_skip(c, T_ASSIGN)) {
			value = parse_expression(c, 1);
			if (!value)
				return -1;
			node_list_add(c, &n->defaults, value);
		} else if (n->defaults.n) {
			compile_fail(c, parameter->line, "non-default argument follows default argument");
			return -1;
		}
		for (size_t i = 0; i < n->items.n; i++)
			if (n->items.nodes[i]->name->n == parameter->name->n &&
			    memcmp(n->items.nodes[i]->name->s, parameter->name->s, parameter->name->n) == 0) {
				compile_fail(c, parameter->line, "duplicate argument '%.*s'", (int)parameter->name->n, parameter->name->s);
				return -1;
			}
		node_list_add(c, &n->items, parameter);
	}
	token_take(c);
	return 0;
}

/* The body of a macro is a function: no break out of it. */
static const struct token *parse_function_body(struct compile *c, struct node_list *body, const char *const *ends)
{
	int in_loop = c->in_loop;
	const struct token *t;

	c->in_loop = 0;
	t = parse_block(c, body, ends);
	c->in_loop = in_loop;
	return t;
}

static struct node *parse_macro(struct compile *c)
{
	static const char *const end[] = {"endmacro", NULL};
	struct node *n = node_new(c, N_MACRO, token_take(c)->line);

	n->a = parse_name_target(c);
	if (!n->a)
		return NULL;
	n->name = n->a->name;
	return parse_signature(c, n) == 0 && parse_function_body(c, &n->body, end) ? n : NULL;
}

static struct node *parse_call_block(struct compile *c)
{
	static const char *const end[] = {"endcall", NULL};
	struct node *n = node_new(c, N_CALL_BLOCK, token_take(c)->line);

	n->a = node_new(c, N_MACRO, n->line);
	if (token_now(c)->kind == T_LPAREN && parse_signature(c, n->a))
		return NULL;
	n->b = parse_expression(c, 1);
	if (!n->b)
		return NULL;
	if (n->b->kind != N_CALL)
		return compile_fail(c, n->line, "expected a call after 'call'");
	return parse_function_body(c, &n->a->body, end) ? n : NULL;
}

static struct node *parse_filter_block(struct compile *c)
{
	static const char *const end[] = {"endfilter", NULL};
	struct node *n = node_new(c, N_FILTER_BLOCK, token_take(c)->line);

	n->c = parse_filter(c, NULL, 1);
	return n->c && parse_block(c, &n->body, end) ? n : NULL;
}

static struct node *parse_with(struct compile *c)
{
	static const char *const end[] = {"endwith", NULL};
	struct node *n = node_new(c, N_WITH, token_take(c)->line);

	while (token_now(c)->kind != T_BLOCK_END) {
		struct node *target, *value;

		if (n->items.n && !token_expect(c, T_COMMA))
			return NULL;
		target = parse_target(c, 0, NULL);
		value = target && token_expect(c, T_ASSIGN) ? parse_expression(c, 1) : NULL;
		if (!value)
			return NULL;
		node_list_add(c, &n->items, target);
		node_list_add(c, &n->defaults, value);
	}
	return parse_block(c, &n->body, end) ? n : NULL;
}

static struct node *parse_print(struct compile *c)
{
	struct node *n = node_new(c, N_OUTPUT, token_take(c)->line);

	while (token_now(c)->kind != T_BLOCK_END) {
		struct node *item;

		if (n->items.n && !token_expect(c, T_COMMA))
			return NULL;
		item = parse_expression(c, 1);
		if (!item)
			return NULL;
		node_list_add(c, &n->items, item);
	}
	return n;
}

static struct node *parse_generation(struct compile *c)
{
	static const char *const end[] = {"endgeneration", NULL};
	struct node *n = node_new(c, N_GENERATION, token_take(c)->line);

	return parse_function_body(c, &n->body, end) ? n : NULL;
}

static struct node *parse_loop_control(struct compile *c)
{
	const struct token *t = token_take(c);
	struct node *n = node_new(c, token_is_name(t, "break") ? N_BREAK : N_CONTINUE, t->line);

	if (!c->in_loop)
		return compile_fail(c, t->line, "'%.*s' outside of a loop", (int)name_of(t)->n, name_of(t)->s);
	return n;
}

static struct node *parse_statement(struct compile *c)
{
	static const struct {
		const char *name;
		struct node *(*parse)(struct compile *);
	} statements[] = {
	    {"for", parse_for},
	    {"if", parse_if},
	    {"set", parse_set},
	    {"macro", parse_macro},
	    {"call", parse_call_block},
	    {"filter", parse_filter_block},
	    {"with", parse_with},
	    {"print", parse_print},
	    {"generation", parse_generation},
	    {"break", parse_loop_control},
	    {"continue", parse_loop_control},
	};
	static const char *const other_files[] = {"block", "extends", "include", "import", "from", "autoescape"};
	const struct token *t = token_now(c);

	if (t->kind != T_NAME)
		return compile_fail(c, t->line, "tag name expected, got %s", token_kind_name(t->kind));
	for (size_t i = 0; i < sizeof(statements) / sizeof(*statements); i++)
		if (token_is_name(t, statements[i].name))
			return statements[i].parse(c);
	for (size_t i = 0; i < sizeof(other_files) / sizeof(*other_files); i++)
		if (token_is_name(t, other_files[i]))
			return compile_fail(c, t->line, "the tag '%s' is not supported", other_files[i]);
	return compile_fail(c, t->line, "unknown tag '%.*s'", (int)name_of(t)->n, name_of(t)->s);
}

/* Template text and {{ }} in a row are one output. */
static void add_output(struct compile *c, struct node_list *body, struct node *item)
{
	struct node *last = body->n ? body->nodes[body->n - 1] : NULL;

	if (!last || last->kind != N_OUTPUT) {
		last = node_new(c, N_OUTPUT, item->line);
		node_list_add(c, body, last);
	}
	node_list_add(c, &last->items, item);
}

static int is_end(const struct token *t, const char *const *ends)
{
	for (; ends && *ends; ends++)
		if (token_is_name(t, *ends))
			return 1;
	return 0;
}

static int parse_body(struct compile *c, struct node_list *body, const char *const *ends)
{
	int open_line = token_now(c)->line, rc = -1;

	if (++c->depth > JINJA_MAX_NESTING) {
		compile_fail(c, open_line, "nested more than %d deep", JINJA_MAX_NESTING);
		return -1;
	}
	for (;;) {
		const struct token *t = token_now(c);
		struct node *n;

		if (t->kind == T_EOF) {
			if (ends)
				compile_fail(c, t->line, "unexpected end of template: '%s' is missing for the block of line %d", ends[0],
				             open_line);
			else
				rc = 0;
			break;
		}
		token_take(c);
		if (t->kind == T_DATA) {
			n = node_new(c, N_CONST, t->line);
			n->value = t->value;
			add_output(c, body, n);
		} else if (t->kind == T_VARIABLE_BEGIN) {
			n = parse_tuple(c, 0, NULL);
			if (!n || !token_expect(c, T_VARIABLE_END))
				break;
			add_output(c, body, n);
		} else {
			if (is_end(token_now(c), ends)) {
				rc = 0;
				break;
			}
			n = parse_statement(c);
			if (!n || !token_expect(c, T_BLOCK_END))
				break;
			node_list_add(c, body, n);
		}
	}
	c->depth--;
	return rc;
}

int jinja_parse(struct compile *c, struct chat_template *t)
{
	return parse_body(c, &t->body, NULL) == 0 && !c->failed ? 0 : -1;
}
