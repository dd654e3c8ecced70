/* jinja_expr.c: the expression grammar of jinja2/parser.py. Lowest first: inline if, or, and, not, comparison, + -, ~,
 * * / // %, **, unary; then postfix (attribute, subscript, call) and filters and tests. */
#include <string.h>

#include "engine/text/jinja_ast.h"
#include "engine/text/jinja_eval.h"

static struct node *node_binary(struct compile *c, enum node_kind kind, int line, struct node *a, struct node *b)
{
	struct node *n = node_new(c, kind, line);

	n->a = a;
	n->b = b;
	node_set_height(c, n, a);
	node_set_height(c, n, b);
	return c->failed ? NULL : n;
}

static struct node *add_item(struct compile *c, struct node *parent, struct node *item)
{
	if (!item)
		return NULL;
	node_list_add(c, &parent->items, item);
	node_set_height(c, parent, item);
	return c->failed ? NULL : item;
}

static struct node *parse_unary(struct compile *c, int with_filter);

static struct node *parse_pow(struct compile *c)
{
	int line = token_now(c)->line;
	struct node *left = parse_unary(c, 1);

	while (left && token_skip(c, T_POW)) {
		struct node *right = parse_unary(c, 1);

		left = right ? node_binary(c, N_POW, line, left, right) : NULL;
	}
	return left;
}

static struct node *parse_product(struct compile *c)
{
	int line = token_now(c)->line;
	struct node *left = parse_pow(c);

	while (left) {
		enum token_kind k = token_now(c)->kind;
		enum node_kind kind = k == T_MUL ? N_MUL : k == T_DIV ? N_DIV : k == T_FLOORDIV ? N_FLOORDIV : N_MOD;
		struct node *right;

		if (k != T_MUL && k != T_DIV && k != T_FLOORDIV && k != T_MOD)
			break;
		token_take(c);
		right = parse_pow(c);
		left = right ? node_binary(c, kind, line, left, right) : NULL;
	}
	return left;
}

static struct node *parse_concat(struct compile *c)
{
	int line = token_now(c)->line;
	struct node *first = parse_product(c), *n;

	if (!first || token_now(c)->kind != T_TILDE)
		return first;
	n = node_new(c, N_CONCAT, line);
	add_item(c, n, first);
	while (token_skip(c, T_TILDE))
		if (!add_item(c, n, parse_product(c)))
			return NULL;
	return n;
}

static struct node *parse_sum(struct compile *c)
{
	int line = token_now(c)->line;
	struct node *left = parse_concat(c);

	while (left && (token_now(c)->kind == T_ADD || token_now(c)->kind == T_SUB)) {
		enum node_kind kind = token_take(c)->kind == T_ADD ? N_ADD : N_SUB;
		struct node *right = parse_concat(c);

		left = right ? node_binary(c, kind, line, left, right) : NULL;
	}
	return left;
}

/* The comparison operator at hand, or -1; takes it. */
static int take_comparison(struct compile *c)
{
	const struct token *t = token_now(c);
	int op = t->kind == T_EQ          ? CMP_EQ
	         : t->kind == T_NE        ? CMP_NE
	         : t->kind == T_LT        ? CMP_LT
	         : t->kind == T_LE        ? CMP_LE
	         : t->kind == T_GT        ? CMP_GT
	         : t->kind == T_GE        ? CMP_GE
	         : token_is_name(t, "in") ? CMP_IN
	                                  : -1;

	if (op < 0 && token_is_name(t, "not") && token_is_name(token_ahead(c), "in")) {
		token_take(c);
		op = CMP_NOT_IN;
	}
	if (op >= 0)
		token_take(c);
	return op;
}

static struct node *parse_compare(struct compile *c)
{
	int line = token_now(c)->line, op;
	struct node *first = parse_sum(c), *n = NULL;
	size_t cap = 0;

	while (first && (op = take_comparison(c)) >= 0) {
		if (!n) {
			n = node_new(c, N_COMPARE, line);
			n->a = first;
			node_set_height(c, n, first);
		}
		if (!add_item(c, n, parse_sum(c)))
			return NULL;
		if (n->items.n > cap) {
			enum compare_op *ops = arena_alloc(c->mem, (cap ? cap * 2 : 4) * sizeof(*ops));

			if (cap)
				memcpy(ops, n->ops, cap * sizeof(*ops));
			cap = cap ? cap * 2 : 4;
			n->ops = ops;
		}
		n->ops[n->items.n - 1] = (enum compare_op)op;
	}
	return n && !c->failed ? n : c->failed ? NULL : first;
}

static struct node *parse_not(struct compile *c)
{
	int line = token_now(c)->line, n_not = 0;
	struct node *n;

	while (token_skip_name(c, "not"))
		n_not++;
	n = parse_compare(c);
	for (; n && n_not > 0; n_not--)
		n = node_binary(c, N_NOT, line, n, NULL);
	return n;
}

static struct node *parse_and(struct compile *c)
{
	int line = token_now(c)->line;
	struct node *left = parse_not(c);

	while (left && token_skip_name(c, "and")) {
		struct node *right = parse_not(c);

		left = right ? node_binary(c, N_AND, line, left, right) : NULL;
	}
	return left;
}

static struct node *parse_or(struct compile *c)
{
	int line = token_now(c)->line;
	struct node *left = parse_and(c);

	while (left && token_skip_name(c, "or")) {
		struct node *right = parse_and(c);

		left = right ? node_binary(c, N_OR, line, left, right) : NULL;
	}
	return left;
}

static struct node *parse_conditional(struct compile *c)
{
	int line = token_now(c)->line;
	struct node *value;

	value = parse_or(c);
	while (value && token_skip_name(c, "if")) {
		struct node *n = node_new(c, N_COND, line);

		n->a = value;
		n->b = parse_or(c);
		if (n->b && token_skip_name(c, "else"))
			n->c = parse_conditional(c);
		node_set_height(c, n, n->a);
		node_set_height(c, n, n->b);
		node_set_height(c, n, n->c);
		value = c->failed ? NULL : n;
	}
	return value;
}

struct node *parse_expression(struct compile *c, int with_condexpr)
{
	struct node *n = NULL;

	if (++c->depth > JINJA_MAX_NESTING)
		compile_fail(c, token_now(c)->line, "nested more than %d deep", JINJA_MAX_NESTING);
	else
		n = with_condexpr ? parse_conditional(c) : parse_or(c);
	c->depth--;
	return c->failed ? NULL : n;
}

struct node *parse_tuple(struct compile *c, unsigned flags, const char *end_name)
{
	int line = token_now(c)->line, is_tuple = 0;
	struct node *n = node_new(c, N_TUPLE, line);

	for (;;) {
		const struct token *t;
		struct node *item;

		if (n->items.n && !token_expect(c, T_COMMA))
			return NULL;
		t = token_now(c);
		if (t->kind == T_VARIABLE_END || t->kind == T_BLOCK_END || t->kind == T_RPAREN ||
		    (end_name && token_is_name(t, end_name)))
			break;
		item = flags & TUPLE_SIMPLE ? parse_primary(c, (flags & TUPLE_NAMESPACE) != 0)
		                            : parse_expression(c, !(flags & TUPLE_NO_COND));
		if (!add_item(c, n, item))
			return NULL;
		if (token_now(c)->kind != T_COMMA)
			break;
		is_tuple = 1;
	}
	if (!is_tuple && n->items.n)
		return n->items.nodes[0];
	if (!is_tuple && !(flags & TUPLE_PARENTHESES))
		return compile_fail(c, token_now(c)->line, "expected an expression, got %s", token_kind_name(token_now(c)->kind));
	return n;
}

static struct node *parse_list(struct compile *c)
{
	struct node *n = node_new(c, N_LIST, token_take(c)->line);

	while (token_now(c)->kind != T_RBRACKET) {
		if (n->items.n && !token_expect(c, T_COMMA))
			return NULL;
		if (token_now(c)->kind == T_RBRACKET)
			break;
		if (!add_item(c, n, parse_expression(c, 1)))
			return NULL;
	}
	token_take(c);
	return n;
}

static struct node *parse_dict(struct compile *c)
{
	struct node *n = node_new(c, N_DICT, token_take(c)->line);

	while (token_now(c)->kind != T_RBRACE) {
		if (n->items.n && !token_expect(c, T_COMMA))
			return NULL;
		if (token_now(c)->kind == T_RBRACE)
			break;
		if (!add_item(c, n, parse_expression(c, 1)) || !token_expect(c, T_COLON) || !add_item(c, n, parse_expression(c, 1)))
			return NULL;
	}
	token_take(c);
	return n;
}

static struct node *parse_strings(struct compile *c)
{
	const struct token *t = token_take(c);
	struct node *n = node_new(c, N_CONST, t->line);
	struct buf text = {0};
	struct jstr *s;

	n->value = t->value;
	if (token_now(c)->kind != T_STRING)
		return n;
	buf_add(&text, t->value.str->s, t->value.str->n);
	s = arena_alloc(c->mem, sizeof(*s));
	*s = *t->value.str;
	while (token_now(c)->kind == T_STRING) {
		t = token_take(c);
		buf_add(&text, t->value.str->s, t->value.str->n);
		s->n_chars += t->value.str->n_chars;
	}
	s->s = arena_strdup(c->mem, buf_str(&text), text.len);
	s->n = text.len;
	n->value.str = s;
	buf_release(&text);
	return n;
}

static struct node *parse_name(struct compile *c, int with_namespace)
{
	const struct token *t = token_take(c);
	struct node *n = node_new(c, N_CONST, t->line);

	if (token_is_name(t, "true") || token_is_name(t, "True")) {
		n->value = jval_bool(1);
	} else if (token_is_name(t, "false") || token_is_name(t, "False")) {
		n->value = jval_bool(0);
	} else if (!token_is_name(t, "none") && !token_is_name(t, "None")) {
		n->kind = N_NAME;
		n->name = t->value.str;
		if (with_namespace && token_skip(c, T_DOT)) {
			const struct token *attribute = token_expect(c, T_NAME);

			if (!attribute)
				return NULL;
			n->kind = N_NSREF;
			n->value = attribute->value;
		}
	}
	return n;
}

struct node *parse_primary(struct compile *c, int with_namespace)
{
	const struct token *t = token_now(c);
	struct node *n;

	switch (t->kind) {
	case T_NAME:
		return parse_name(c, with_namespace);
	case T_STRING:
		return parse_strings(c);
	case T_INTEGER:
	case T_FLOAT:
		n = node_new(c, N_CONST, t->line);
		n->value = token_take(c)->value;
		return n;
	case T_LPAREN:
		token_take(c);
		n = parse_tuple(c, TUPLE_PARENTHESES, NULL);
		return n && token_expect(c, T_RPAREN) ? n : NULL;
	case T_LBRACKET:
		return parse_list(c);
	case T_LBRACE:
		return parse_dict(c);
	default:
		return compile_fail(c, t->line, "unexpected %s", token_kind_name(t->kind));
	}
}

/* One index: an expression or a slice. */
static struct node *parse_index(struct compile *c)
{
	struct node *n, *first = NULL;
	int line = token_now(c)->line;

	if (token_now(c)->kind != T_COLON) {
		first = parse_expression(c, 1);
		if (!first || token_now(c)->kind != T_COLON)
			return first;
	}
	n = node_new(c, N_SLICE, line);
	node_list_add(c, &n->items, first);
	node_set_height(c, n, first);
	while (n->items.n < 3) {
		struct node *part = NULL;

		if (token_skip(c, T_COLON)) {
			enum token_kind k = token_now(c)->kind;

			if (k != T_COLON && k != T_RBRACKET && k != T_COMMA) {
				part = parse_expression(c, 1);
				if (!part)
					return NULL;
			}
		}
		node_list_add(c, &n->items, part);
		node_set_height(c, n, part);
	}
	return c->failed ? NULL : n;
}

static struct node *parse_subscript(struct compile *c, struct node *object)
{
	const struct token *t = token_take(c);
	struct node *index, *n, *tuple = NULL;

	if (t->kind == T_DOT) {
		const struct token *name = token_take(c);

		if (name->kind == T_NAME) {
			n = node_binary(c, N_GETATTR, t->line, object, NULL);
			if (n)
				n->name = name->value.str;
			return n;
		}
		if (name->kind != T_INTEGER)
			return compile_fail(c, name->line, "expected name or number after '.', got %s", token_kind_name(name->kind));
		index = node_new(c, N_CONST, name->line);
		index->value = name->value;
		return node_binary(c, N_GETITEM, t->line, object, index);
	}
	index = NULL;
	while (token_now(c)->kind != T_RBRACKET) {
		if (index && !token_expect(c, T_COMMA))
			return NULL;
		if (index && !tuple) {
			tuple = node_new(c, N_TUPLE, t->line);
			add_item(c, tuple, index);
		}
		index = parse_index(c);
		if (!index || (tuple && !add_item(c, tuple, index)))
			return NULL;
	}
	token_take(c);
	if (!index)
		index = node_new(c, N_TUPLE, t->line);
	if (tuple)
		for (size_t i = 0; i < tuple->items.n; i++)
			if (tuple->items.nodes[i]->kind == N_SLICE)
				return compile_fail(c, t->line, "a slice among several indexes is not supported");
	return node_binary(c, N_GETITEM, t->line, object, tuple ? tuple : index);
}

static int add_keyword(struct compile *c, struct call_args *args, const struct jstr *name, struct node *value)
{
	size_t n = args->keyword_values.n;
	const struct jstr **names = arena_alloc(c->mem, (n + 1) * sizeof(*names));

	for (size_t i = 0; i < n; i++) {
		names[i] = args->keyword_names[i];
		if (names[i]->n == name->n && memcmp(names[i]->s, name->s, name->n) == 0) {
			compile_fail(c, value->line, "keyword argument repeated: %.*s", (int)name->n, name->s);
			return -1;
		}
	}
	names[n] = name;
	args->keyword_names = names;
	node_list_add(c, &args->keyword_values, value);
	return 0;
}

/* parent: for its height. */
static struct call_args *parse_call_args(struct compile *c, struct node *parent)
{
	struct call_args *args = arena_alloc(c->mem, sizeof(*args));
	const struct token *open = token_take(c);
	int need_comma = 0, in_order;

	memset(args, 0, sizeof(*args));
	while (token_now(c)->kind != T_RPAREN) {
		const struct jstr *keyword = NULL;
		enum token_kind k;
		struct node *value;

		if (need_comma) {
			if (!token_expect(c, T_COMMA))
				return NULL;
			if (token_now(c)->kind == T_RPAREN)
				break;
		}
		need_comma = 1;
		k = token_now(c)->kind;
		if (k == T_MUL) {
			in_order = !args->star && !args->star_star;
			token_take(c);
		} else if (k == T_POW) {
			in_order = !args->star_star;
			token_take(c);
		} else if (k == T_NAME && token_ahead(c)->kind == T_ASSIGN) {
			in_order = !args->star_star;
			keyword = token_take(c)->value.str;
			token_take(c);
		} else {
			in_order = !args->star && !args->star_star && !args->keyword_values.n;
		}
		if (!in_order)
			return compile_fail(c, open->line, "invalid syntax for function call expression");
		value = parse_expression(c, 1);
		if (!value)
			return NULL;
		node_set_height(c, parent, value);
		if (k == T_MUL)
			args->star = value;
		else if (k == T_POW)
			args->star_star = value;
		else if (keyword && add_keyword(c, args, keyword, value))
			return NULL;
		else if (!keyword)
			node_list_add(c, &args->values, value);
	}
	token_take(c);
	return c->failed ? NULL : args;
}

static struct node *parse_call(struct compile *c, struct node *callee)
{
	struct node *n = node_binary(c, N_CALL, token_now(c)->line, callee, NULL);

	if (!n)
		return NULL;
	n->args = parse_call_args(c, n);
	return n->args ? n : NULL;
}

static struct node *parse_postfix(struct compile *c, struct node *n)
{
	while (n) {
		enum token_kind k = token_now(c)->kind;

		if (k == T_DOT || k == T_LBRACKET)
			n = parse_subscript(c, n);
		else if (k == T_LPAREN)
			n = parse_call(c, n);
		else
			break;
	}
	return n;
}

/* Names of filters and tests may have dots, says the grammar; none has. */
static const struct token *parse_callable_name(struct compile *c, const char *what)
{
	const struct token *name = token_expect(c, T_NAME);

	if (name && token_now(c)->kind == T_DOT)
		return compile_fail(c, name->line, "no %s named '%.*s. ...'", what, (int)name->value.str->n, name->value.str->s);
	return name;
}

struct node *parse_filter(struct compile *c, struct node *node, int start_inline)
{
	while (token_now(c)->kind == T_PIPE || start_inline) {
		const struct token *name;
		struct node *n;

		if (!start_inline)
			token_take(c);
		start_inline = 0;
		name = parse_callable_name(c, "filter");
		if (!name)
			return NULL;
		n = node_binary(c, N_FILTER, name->line, node, NULL);
		if (!n)
			return NULL;
		n->name = name->value.str;
		n->filter = filter_find(n->name);
		if (token_now(c)->kind == T_LPAREN) {
			n->args = parse_call_args(c, n);
			if (!n->args)
				return NULL;
		}
		node = n;
	}
	return node;
}

static int starts_test_argument(const struct compile *c)
{
	const struct token *t = token_now(c);

	switch (t->kind) {
	case T_NAME:
		return !token_is_name(t, "else") && !token_is_name(t, "or") && !token_is_name(t, "and");
	case T_STRING:
	case T_INTEGER:
	case T_FLOAT:
	case T_LBRACKET:
	case T_LBRACE:
		return 1;
	default:
		return 0;
	}
}

static struct node *parse_test(struct compile *c, struct node *node)
{
	int line = token_take(c)->line, negated = token_skip_name(c, "not");
	const struct token *name = parse_callable_name(c, "test");
	struct node *n, *argument;

	if (!name)
		return NULL;
	n = node_binary(c, N_TEST, line, node, NULL);
	if (!n)
		return NULL;
	n->name = name->value.str;
	n->test = test_find(n->name);
	if (token_now(c)->kind == T_LPAREN) {
		n->args = parse_call_args(c, n);
		if (!n->args)
			return NULL;
	} else if (starts_test_argument(c)) {
		if (token_is_name(token_now(c), "is"))
			return compile_fail(c, line, "you cannot chain multiple tests with is");
		argument = parse_primary(c, 0);
		argument = argument ? parse_postfix(c, argument) : NULL;
		if (!argument)
			return NULL;
		n->args = arena_alloc(c->mem, sizeof(*n->args));
		memset(n->args, 0, sizeof(*n->args));
		node_list_add(c, &n->args->values, argument);
		node_set_height(c, n, argument);
	}
	return negated ? node_binary(c, N_NOT, line, n, NULL) : c->failed ? NULL : n;
}

static struct node *parse_filters_and_tests(struct compile *c, struct node *n)
{
	while (n) {
		const struct token *t = token_now(c);

		if (t->kind == T_PIPE)
			n = parse_filter(c, n, 0);
		else if (token_is_name(t, "is"))
			n = parse_test(c, n);
		else if (t->kind == T_LPAREN)
			n = parse_call(c, n);
		else
			break;
	}
	return n;
}

static struct node *parse_unary(struct compile *c, int with_filter)
{
	const struct token *t = token_now(c);
	struct node *n;

	if (++c->depth > JINJA_MAX_NESTING)
		return compile_fail(c, t->line, "nested more than %d deep", JINJA_MAX_NESTING);
	if (t->kind == T_SUB || t->kind == T_ADD) {
		token_take(c);
		n = parse_unary(c, 0);
		n = n ? node_binary(c, t->kind == T_SUB ? N_NEG : N_POS, t->line, n, NULL) : NULL;
	} else {
		n = parse_primary(c, 0);
	}
	n = n ? parse_postfix(c, n) : NULL;
	n = n && with_filter ? parse_filters_and_tests(c, n) : n;
	c->depth--;
	return n;
}
