/* jinja_ast.h: a chat template taken apart: tokens, the tree, and where each name's value lives.
 *
 *     source --lex--> tokens --parse--> tree with names --scope_resolve--> tree whose names are (frames up, slot)
 *
 * The rules for names are those of Jinja's compiler (idtracking.py), which decides before anything runs, from the text
 * alone, whether a name in a block is the block's own variable (and how it starts out) or an outer one. A tree is never
 * changed once resolved; any number of threads may run it.
 */
#ifndef TOKENMILL_ENGINE_JINJA_AST_H
#define TOKENMILL_ENGINE_JINJA_AST_H

#include <stddef.h>
#include <stdint.h>

#include "base/errors.h"
#include "base/mem.h"
#include "engine/text/jinja_value.h"

enum token_kind {
	T_EOF,
	T_DATA,
	T_VARIABLE_BEGIN,
	T_VARIABLE_END,
	T_BLOCK_BEGIN,
	T_BLOCK_END,
	T_NAME,
	T_STRING,
	T_INTEGER,
	T_FLOAT,
	/* operators */
	T_ADD,
	T_SUB,
	T_MUL,
	T_DIV,
	T_FLOORDIV,
	T_MOD,
	T_POW,
	T_TILDE,
	T_LBRACKET,
	T_RBRACKET,
	T_LPAREN,
	T_RPAREN,
	T_LBRACE,
	T_RBRACE,
	T_EQ,
	T_NE,
	T_GT,
	T_GE,
	T_LT,
	T_LE,
	T_ASSIGN,
	T_DOT,
	T_COLON,
	T_PIPE,
	T_COMMA,
	T_SEMICOLON,
};

struct token {
	enum token_kind kind;
	int line;
	struct jval value; /* data, names, strings: J_STR; numbers */
};

struct token_array {
	struct token *tokens; /* the last one is T_EOF */
	size_t n, cap;
};

/* What compiling works with. */
struct compile {
	struct arena *mem; /* of the finished template */
	struct err *err;
	int failed;
	struct token_array tokens;
	size_t at;   /* next token */
	int depth;   /* of the parser's recursion */
	int in_loop; /* break and continue are allowed */
};
/* Sets *err (ERR_MODEL, "chat template line N: ..."). Returns NULL for the caller to return. */
void *compile_fail(struct compile *c, int line, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* -1 after compile_fail. */
int jinja_lex(struct compile *c, const char *source, size_t n);

enum node_kind {
	/* expressions; a, b, c: operands, items: the list of them */
	N_CONST, /* value */
	N_NAME,  /* name; up, slot */
	N_NSREF, /* name, attribute in value: a target of set */
	N_TUPLE,
	N_LIST, /* items */
	N_DICT, /* items: key, value, key, value, ... */
	N_NEG,
	N_POS,
	N_NOT, /* a */
	N_AND,
	N_OR,
	N_ADD,
	N_SUB,
	N_MUL,
	N_DIV,
	N_FLOORDIV,
	N_MOD,
	N_POW,     /* a, b */
	N_CONCAT,  /* items */
	N_COMPARE, /* a, then items with their operators in ops */
	N_COND,    /* a if b else c; c may be NULL */
	N_FILTER,  /* a (NULL: the block's text), name, filter, args */
	N_TEST,    /* a, name, test, args */
	N_CALL,    /* a, args */
	N_GETATTR, /* a, name */
	N_GETITEM, /* a, b */
	N_SLICE,   /* items of 3, each may be NULL; only as b of N_GETITEM */
	/* statements */
	N_OUTPUT,       /* items; N_CONST among them is template text or a literal */
	N_IF,           /* a, body, orelse; items: the elifs, N_IF with a and body */
	N_FOR,          /* a: target, b: iterable, c: condition or NULL, body, orelse; scope, else_scope, test_scope, test_target */
	N_SET,          /* a: target, b: value */
	N_SET_BLOCK,    /* a: target, c: filter or NULL, body, scope */
	N_MACRO,        /* name, a: where it is stored, items: parameters (names), defaults, body, scope */
	N_CALL_BLOCK,   /* b: the call, macro in a */
	N_FILTER_BLOCK, /* c: filter, body, scope */
	N_WITH,         /* items: targets, defaults: values, body, scope */
	N_GENERATION,   /* body, scope */
	N_BREAK,
	N_CONTINUE,
};

enum compare_op { CMP_EQ, CMP_NE, CMP_LT, CMP_LE, CMP_GT, CMP_GE, CMP_IN, CMP_NOT_IN };

struct node;
struct node_list {
	struct node **nodes;
	size_t n, cap;
};

struct call_args {
	struct node_list values;
	struct node_list keyword_values;
	const struct jstr **keyword_names;
	struct node *star, *star_star; /* *args, **kwargs; or NULL */
};

struct node {
	enum node_kind kind;
	int line;
	int height;          /* of the tree below; bounds the recursion of whatever walks over it */
	int up, slot;        /* N_NAME, N_NSREF: frames up, slot there */
	int recursive;       /* N_FOR; one that needs `loop` has slot_loop */
	int explicit_caller; /* N_MACRO: `caller` is among the parameters */
	int slot_loop, slot_caller, slot_kwargs, slot_varargs; /* in scope; -1: none */
	const struct jstr *name;
	struct jval value;
	struct node *a, *b, *c, *test_target;
	struct node_list items, defaults, body, orelse;
	enum compare_op *ops;
	struct call_args *args;
	const struct jfilter *filter;
	const struct jtest *test;
	struct scope *scope, *else_scope, *test_scope;
};

/* How a block's own variable starts out each time the block is entered. */
enum scope_load { LOAD_PARAMETER, LOAD_RESOLVE, LOAD_ALIAS, LOAD_UNDEFINED };
struct scope_slot {
	const struct jstr *name;
	enum scope_load load;
	int up, slot;           /* LOAD_ALIAS */
	int referenced, stored; /* while analysing: has a reference; was assigned */
};
struct scope {
	struct scope *parent;
	struct scope_slot *slots;
	int n_slots, cap;
};

struct chat_template {
	struct arena mem;
	struct node_list body;
	struct scope *root;
	const struct jstr **names; /* every variable that is read */
	size_t n_names, names_cap;
};

/* The parser: fills t->body; -1 after compile_fail. */
int jinja_parse(struct compile *c, struct chat_template *t);
/* Give every name its place; fills t->root and t->names. -1 after compile_fail. */
int scope_resolve(struct compile *c, struct chat_template *t);

/* Between jinja_parse.c (statements) and jinja_expr.c (expressions). NULL after a failure. */
struct node *node_new(struct compile *c, enum node_kind kind, int line);
void node_list_add(struct compile *c, struct node_list *l, struct node *n);
void node_set_height(struct compile *c, struct node *n, const struct node *child);
struct node *parse_expression(struct compile *c, int with_condexpr);
struct node *parse_primary(struct compile *c, int with_namespace);
struct node *parse_filter(struct compile *c, struct node *node, int start_inline);
enum tuple_flags { TUPLE_SIMPLE = 1, TUPLE_NO_COND = 2, TUPLE_PARENTHESES = 4, TUPLE_NAMESPACE = 8 };
/* end_name: a name that ends the tuple too ("in", "recursive"), or NULL. */
struct node *parse_tuple(struct compile *c, unsigned flags, const char *end_name);
const struct token *token_now(const struct compile *c);
const struct token *token_ahead(const struct compile *c);
const struct token *token_take(struct compile *c);
int token_is_name(const struct token *t, const char *name);
int token_skip_name(struct compile *c, const char *name);
int token_skip(struct compile *c, enum token_kind kind);
const struct token *token_expect(struct compile *c, enum token_kind kind); /* NULL after a failure */
const char *token_kind_name(enum token_kind kind);

#define JINJA_MAX_NESTING 200 /* of blocks and brackets */
#define JINJA_MAX_HEIGHT 500  /* of an expression's tree: a + b + ... */

#endif
