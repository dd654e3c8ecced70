/* jinja_node.c: what both halves of the parser stand on: walking over tokens, making nodes. */
#include <string.h>

#include "engine/text/jinja_ast.h"

const struct token *token_now(const struct compile *c)
{
	return &c->tokens.tokens[c->at];
}

const struct token *token_ahead(const struct compile *c)
{
	return &c->tokens.tokens[c->at + 1 < c->tokens.n ? c->at + 1 : c->at];
}

const struct token *token_take(struct compile *c)
{
	const struct token *t = token_now(c);

	if (t->kind != T_EOF)
		c->at++;
	return t;
}

int token_is_name(const struct token *t, const char *name)
{
	return t->kind == T_NAME && jval_is_str(t->value, name);
}

int token_skip(struct compile *c, enum token_kind kind)
{
	if (token_now(c)->kind != kind)
		return 0;
	token_take(c);
	return 1;
}

int token_skip_name(struct compile *c, const char *name)
{
	if (!token_is_name(token_now(c), name))
		return 0;
	token_take(c);
	return 1;
}

const char *token_kind_name(enum token_kind kind)
{
	static const char *const names[] = {
	    [T_EOF] = "end of template",
	    [T_DATA] = "template text",
	    [T_VARIABLE_BEGIN] = "'{{'",
	    [T_VARIABLE_END] = "'}}'",
	    [T_BLOCK_BEGIN] = "'{%'",
	    [T_BLOCK_END] = "'%}'",
	    [T_NAME] = "a name",
	    [T_STRING] = "a string",
	    [T_INTEGER] = "an integer",
	    [T_FLOAT] = "a number",
	    [T_ADD] = "'+'",
	    [T_SUB] = "'-'",
	    [T_MUL] = "'*'",
	    [T_DIV] = "'/'",
	    [T_FLOORDIV] = "'//'",
	    [T_MOD] = "'%'",
	    [T_POW] = "'**'",
	    [T_TILDE] = "'~'",
	    [T_LBRACKET] = "'['",
	    [T_RBRACKET] = "']'",
	    [T_LPAREN] = "'('",
	    [T_RPAREN] = "')'",
	    [T_LBRACE] = "'{'",
	    [T_RBRACE] = "'}'",
	    [T_EQ] = "'=='",
	    [T_NE] = "'!='",
	    [T_GT] = "'>'",
	    [T_GE] = "'>='",
	    [T_LT] = "'<'",
	    [T_LE] = "'<='",
	    [T_ASSIGN] = "'='",
	    [T_DOT] = "'.'",
	    [T_COLON] = "':'",
	    [T_PIPE] = "'|'",
	    [T_COMMA] = "','",
	    [T_SEMICOLON] = "';'",
	};

	return names[kind];
}

const struct token *token_expect(struct compile *c, enum token_kind kind)
{
	const struct token *t = token_now(c);

	if (t->kind == kind)
		return token_take(c);
	if (t->kind == T_NAME)
		return compile_fail(c, t->line, "expected %s, got '%.*s'", token_kind_name(kind), (int)t->value.str->n,
		                    t->value.str->s);
	return compile_fail(c, t->line, "expected %s, got %s", token_kind_name(kind), token_kind_name(t->kind));
}

struct node *node_new(struct compile *c, enum node_kind kind, int line)
{
	struct node *n = arena_alloc(c->mem, sizeof(*n));

	memset(n, 0, sizeof(*n));
	n->kind = kind;
	n->line = line;
	n->slot_loop = n->slot_caller = n->slot_kwargs = n->slot_varargs = -1;
	n->height = 1;
	n->value = jval_none();
	return n;
}

void node_set_height(struct compile *c, struct node *n, const struct node *child)
{
	if (child && child->height >= n->height)
		n->height = child->height + 1;
	if (n->height > JINJA_MAX_HEIGHT)
		compile_fail(c, n->line, "expression of more than %d nested parts", JINJA_MAX_HEIGHT);
}

void node_list_add(struct compile *c, struct node_list *l, struct node *n)
{
	if (l->n == l->cap) {
		size_t cap = l->cap ? l->cap * 2 : 4;
		struct node **nodes = arena_alloc(c->mem, cap * sizeof(*nodes));

		if (l->n)
			memcpy(nodes, l->nodes, l->n * sizeof(*nodes));
		l->nodes = nodes;
		l->cap = cap;
	}
	l->nodes[l->n++] = n;
}
