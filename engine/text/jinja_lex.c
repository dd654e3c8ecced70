/* jinja_lex.c: template source to tokens, with white space control as in jinja2/lexer.py under trim_blocks=True,
 * lstrip_blocks=True: a block or comment tag alone on its line takes the line's white space before it and the newline after
 * it; `-` takes all white space on its side, `+` keeps it. */
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/text/jinja_ast.h"
#include "engine/text/jinja_unicode.h"
#include "engine/text/unicode.h"

void *compile_fail(struct compile *c, int line, const char *fmt, ...)
{
	char msg[800];
	va_list ap;

	if (!c->failed) {
		va_start(ap, fmt);
		vsnprintf(msg, sizeof(msg), fmt, ap);
		va_end(ap);
		c->failed = 1;
		err_set(c->err, ERR_MODEL, "chat template line %d: %s", line, msg);
	}
	return NULL;
}

struct lexer {
	struct compile *c;
	const char *s; /* newlines are \n */
	size_t n, at;
	int line;
	char *brackets; /* the closing brackets that are due */
	size_t n_brackets, cap_brackets;
};

static struct token *add_token(struct lexer *l, enum token_kind kind)
{
	struct token_array *a = &l->c->tokens;

	MEM_GROW(a->tokens, a->cap, a->n + 1);
	a->tokens[a->n] = (struct token){.kind = kind, .line = l->line, .value = jval_none()};
	return &a->tokens[a->n++];
}

static struct jval const_str(struct compile *c, const char *s, size_t n)
{
	struct jstr *t = arena_alloc(c->mem, sizeof(*t));

	*t = (struct jstr){.s = arena_strdup(c->mem, s, n), .n = n, .n_chars = utf8_count(s, n)};
	return (struct jval){.type = J_STR, .str = t};
}

static void advance(struct lexer *l, size_t to)
{
	for (; l->at < to; l->at++)
		l->line += l->s[l->at] == '\n';
}

static int starts_with(const struct lexer *l, size_t at, const char *what)
{
	size_t n = strlen(what);

	return l->n - at >= n && memcmp(l->s + at, what, n) == 0;
}

static size_t skip_space(const struct lexer *l, size_t at)
{
	while (at < l->n) {
		size_t next = at;

		if (!unicode_is_space(utf8_next(l->s, l->n, &next)))
			break;
		at = next;
	}
	return at;
}

/* End of a tag at `at`: "-%}" and white space, "%}" and one newline (trim), "+%}" (plus). 0 when it is not one. */
static size_t match_end(const struct lexer *l, size_t at, const char *close, int plus, int trim)
{
	if (at < l->n && l->s[at] == '-' && starts_with(l, at + 1, close))
		return skip_space(l, at + 3);
	if (plus && at < l->n && l->s[at] == '+' && starts_with(l, at + 1, close))
		return at + 3;
	if (!starts_with(l, at, close))
		return 0;
	at += 2;
	return trim && at < l->n && l->s[at] == '\n' ? at + 1 : at;
}

/* Template text from l->at up to a tag, shortened as the tag's sign asks. */
static void add_data(struct lexer *l, size_t to, char sign, int is_variable)
{
	size_t end = to, from = l->at;

	if (sign == '-') {
		while (end > from) {
			size_t before = end;

			if (!unicode_is_space(utf8_previous(l->s, &before)))
				break;
			end = before;
		}
	} else if (sign != '+' && !is_variable) {
		size_t line_start = end;

		while (line_start > from && l->s[line_start - 1] != '\n')
			line_start--;
		if ((line_start > from || from == 0 || l->s[from - 1] == '\n') && line_start < end && skip_space(l, line_start) >= end)
			end = line_start;
	}
	if (end > from)
		add_token(l, T_DATA)->value = const_str(l->c, l->s + from, end - from);
	advance(l, to);
}

static char tag_sign(const struct lexer *l, size_t at)
{
	return at < l->n && (l->s[at] == '-' || l->s[at] == '+') ? l->s[at] : 0;
}

/* "{% raw %}" at `at`: where it ends, else 0. */
static size_t match_raw(const struct lexer *l, size_t at)
{
	at += 2 + (tag_sign(l, at + 2) != 0);
	at = skip_space(l, at);
	if (!starts_with(l, at, "raw"))
		return 0;
	return match_end(l, skip_space(l, at + 3), "%}", 0, 0);
}

static int lex_raw(struct lexer *l)
{
	int line = l->line;

	for (size_t p = l->at; p + 1 < l->n; p++) {
		size_t q, end;

		if (!starts_with(l, p, "{%"))
			continue;
		q = skip_space(l, p + 2 + (tag_sign(l, p + 2) != 0));
		if (!starts_with(l, q, "endraw"))
			continue;
		end = match_end(l, skip_space(l, q + 6), "%}", 1, 1);
		if (!end)
			continue;
		add_data(l, p, tag_sign(l, p + 2), 0);
		advance(l, end);
		return 0;
	}
	compile_fail(l->c, line, "missing end of raw directive");
	return -1;
}

static int lex_comment(struct lexer *l)
{
	int line = l->line;

	for (size_t p = l->at; p < l->n; p++) {
		size_t end = match_end(l, p, "#}", 1, 1);

		if (end) {
			advance(l, end);
			return 0;
		}
	}
	compile_fail(l->c, line, "missing end of comment tag");
	return -1;
}

static int hex_value(char ch)
{
	return ch >= '0' && ch <= '9'   ? ch - '0'
	       : ch >= 'a' && ch <= 'f' ? ch - 'a' + 10
	       : ch >= 'A' && ch <= 'F' ? ch - 'A' + 10
	                                : -1;
}

/* One escape of a string literal, s[*i] being the character after the backslash. -1 after a failure. */
static int add_escape(struct lexer *l, const char *s, size_t n, size_t *i, struct buf *out)
{
	static const char names[] = "abfnrtv\\'\"", values[] = "\a\b\f\n\r\t\v\\'\"";
	char ch = s[*i];
	const char *known = ch ? strchr(names, ch) : NULL;
	int digits = ch == 'x' ? 2 : ch == 'u' ? 4 : ch == 'U' ? 8 : 0;
	uint32_t c = 0;

	if (known) {
		buf_addc(out, values[known - names]);
		(*i)++;
	} else if (ch == '\n') {
		(*i)++;
	} else if (ch >= '0' && ch <= '7') {
		for (int k = 0; k < 3 && *i < n && s[*i] >= '0' && s[*i] <= '7'; k++)
			c = c * 8 + (uint32_t)(s[(*i)++] - '0');
		utf8_add(out, (int32_t)c);
	} else if (digits) {
		(*i)++;
		for (; digits > 0; digits--, (*i)++) {
			if (*i >= n || hex_value(s[*i]) < 0)
				return compile_fail(l->c, l->line, "string with a truncated \\%c escape", ch), -1;
			c = c << 4 | (uint32_t)hex_value(s[*i]);
		}
		if (c > 0x10FFFF || (c >= 0xD800 && c < 0xE000))
			return compile_fail(l->c, l->line, "string with the escape \\%c%x, which is no character", ch, c), -1;
		utf8_add(out, (int32_t)c);
	} else if (ch == 'N') {
		return compile_fail(l->c, l->line, "string with a \\N{...} escape, which is not supported"), -1;
	} else if ((unsigned char)ch >= 0x80) {
		/* Jinja escapes what is not ASCII before it unescapes: the character comes out as text. */
		c = (uint32_t)utf8_next(s, n, i);
		buf_addf(out, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", c);
	} else {
		buf_addc(out, '\\');
		buf_addc(out, ch);
		(*i)++;
	}
	return 0;
}

/* 1: a string was read, 0: none here, -1: failure. */
static int lex_string(struct lexer *l)
{
	char quote = l->s[l->at];
	size_t end = l->at + 1, from = end;
	struct buf text = {0};
	int rc = 0;

	while (end < l->n && l->s[end] != quote)
		end += l->s[end] == '\\' ? 2 : 1;
	if (end >= l->n)
		return 0;
	for (size_t i = 0; i < end - from && rc == 0;) {
		const char *s = l->s + from;

		if (s[i] == '\\') {
			i++;
			rc = add_escape(l, s, end - from, &i, &text);
		} else {
			buf_addc(&text, s[i++]);
		}
	}
	if (rc == 0)
		add_token(l, T_STRING)->value = const_str(l->c, buf_str(&text), text.len);
	buf_release(&text);
	advance(l, end + 1);
	return rc == 0 ? 1 : -1;
}

/* Digits with single underscores between them. */
static size_t skip_digits(const struct lexer *l, size_t at, int base)
{
	size_t end = at;

	for (;;) {
		size_t p = end + (end > at && end < l->n && l->s[end] == '_');
		int v = p < l->n ? hex_value(l->s[p]) : -1;

		if (v < 0 || v >= base)
			return end;
		end = p + 1;
	}
}

/* 1, 0, -1 as lex_string. */
static int lex_number(struct lexer *l)
{
	const char *s = l->s;
	size_t at = l->at, whole = skip_digits(l, at, 10), end = whole, from = at;
	int base = 10, is_float = 0;
	char text[400];
	size_t n = 0;

	if (whole == at)
		return 0;
	if (!(at > 0 && s[at - 1] == '.')) {
		if (end + 1 < l->n && s[end] == '.' && skip_digits(l, end + 1, 10) > end + 1) {
			end = skip_digits(l, end + 1, 10);
			is_float = 1;
		}
		if (end < l->n && (s[end] | 32) == 'e') {
			size_t digits = end + 1 + (end + 1 < l->n && (s[end + 1] == '+' || s[end + 1] == '-'));

			if (skip_digits(l, digits, 10) > digits) {
				end = skip_digits(l, digits, 10);
				is_float = 1;
			}
		}
	}
	if (!is_float && s[at] == '0') {
		char kind = at + 1 < l->n ? (char)(s[at + 1] | 32) : 0;

		base = kind == 'x' ? 16 : kind == 'o' ? 8 : kind == 'b' ? 2 : 10;
		from = at + 2 + (base != 10 && at + 2 < l->n && s[at + 2] == '_');
		end = base == 10 ? 0 : skip_digits(l, from, base);
		if (base == 10 || end == from) {
			base = 10;
			from = at;
			end = skip_digits(l, at, 1); /* "007" is 0 and then a name that nobody expects */
		}
	}
	if (end - from >= sizeof(text))
		return compile_fail(l->c, l->line, "number of %zu digits", end - from), -1;
	for (size_t i = from; i < end; i++)
		if (s[i] != '_')
			text[n++] = s[i];
	text[n] = '\0';
	if (is_float) {
		add_token(l, T_FLOAT)->value = jval_float(strtod(text, NULL));
	} else {
		__int128 v = 0;

		for (size_t i = 0; i < n; i++)
			if (__builtin_mul_overflow(v, (__int128)base, &v) || __builtin_add_overflow(v, (__int128)hex_value(text[i]), &v))
				return compile_fail(l->c, l->line, "integer %s needs more than 128 bits", text), -1;
		add_token(l, T_INTEGER)->value = jval_int(v);
	}
	advance(l, end);
	return 1;
}

static int lex_name(struct lexer *l)
{
	size_t end = l->at;

	while (end < l->n) {
		size_t next = end;

		if (!unicode_is_word(utf8_next(l->s, l->n, &next)))
			break;
		end = next;
	}
	if (end == l->at)
		return 0;
	add_token(l, T_NAME)->value = const_str(l->c, l->s + l->at, end - l->at);
	advance(l, end);
	return 1;
}

static int lex_operator(struct lexer *l)
{
	static const struct {
		const char *text;
		enum token_kind kind;
	} operators[] = {
	    {"//", T_FLOORDIV}, {"**", T_POW},      {"==", T_EQ},    {"!=", T_NE},    {">=", T_GE},    {"<=", T_LE},
	    {"+", T_ADD},       {"-", T_SUB},       {"/", T_DIV},    {"*", T_MUL},    {"%", T_MOD},    {"~", T_TILDE},
	    {"[", T_LBRACKET},  {"]", T_RBRACKET},  {"(", T_LPAREN}, {")", T_RPAREN}, {"{", T_LBRACE}, {"}", T_RBRACE},
	    {">", T_GT},        {"<", T_LT},        {"=", T_ASSIGN}, {".", T_DOT},    {":", T_COLON},  {"|", T_PIPE},
	    {",", T_COMMA},     {";", T_SEMICOLON},
	};

	for (size_t i = 0; i < sizeof(operators) / sizeof(*operators); i++) {
		char ch = operators[i].text[0];

		if (!starts_with(l, l->at, operators[i].text))
			continue;
		if (strchr("([{", ch)) {
			MEM_GROW(l->brackets, l->cap_brackets, l->n_brackets + 1);
			l->brackets[l->n_brackets++] = ch == '(' ? ')' : ch == '[' ? ']' : '}';
		} else if (strchr(")]}", ch)) {
			if (l->n_brackets == 0)
				return compile_fail(l->c, l->line, "unexpected '%c'", ch), -1;
			if (l->brackets[--l->n_brackets] != ch)
				return compile_fail(l->c, l->line, "unexpected '%c', expected '%c'", ch, l->brackets[l->n_brackets]), -1;
		}
		add_token(l, operators[i].kind);
		advance(l, l->at + strlen(operators[i].text));
		return 1;
	}
	return 0;
}

/* The inside of {{ }} or {% %}, up to and with its end. */
static int lex_tag(struct lexer *l, int is_variable)
{
	while (l->at < l->n) {
		size_t end = l->n_brackets ? 0 : is_variable ? match_end(l, l->at, "}}", 0, 0) : match_end(l, l->at, "%}", 1, 1);
		size_t space;
		int rc;

		if (end) {
			add_token(l, is_variable ? T_VARIABLE_END : T_BLOCK_END);
			advance(l, end);
			return 0;
		}
		space = skip_space(l, l->at);
		if (space > l->at) {
			advance(l, space);
			continue;
		}
		rc = lex_number(l);
		if (rc == 0)
			rc = lex_name(l);
		if (rc == 0 && (l->s[l->at] == '"' || l->s[l->at] == '\''))
			rc = lex_string(l);
		if (rc == 0)
			rc = lex_operator(l);
		if (rc < 0)
			return -1;
		if (rc == 0) {
			size_t next = l->at;

			utf8_next(l->s, l->n, &next);
			compile_fail(l->c, l->line, "unexpected character '%.*s'", (int)(next - l->at), l->s + l->at);
			return -1;
		}
	}
	return 0;
}

static int lex_all(struct lexer *l)
{
	while (l->at < l->n) {
		const char *open = memchr(l->s + l->at, '{', l->n - l->at);
		size_t p = open ? (size_t)(open - l->s) : l->n, raw;
		char kind, sign;
		int rc;

		while (p + 1 < l->n && !(l->s[p] == '{' && strchr("%{#", l->s[p + 1]) && l->s[p + 1]))
			p++;
		if (p + 1 >= l->n) {
			add_token(l, T_DATA)->value = const_str(l->c, l->s + l->at, l->n - l->at);
			break;
		}
		kind = l->s[p + 1];
		sign = tag_sign(l, p + 2);
		raw = kind == '%' ? match_raw(l, p) : 0;
		add_data(l, p, sign, kind == '{');
		if (raw) {
			advance(l, raw);
			rc = lex_raw(l);
		} else {
			if (kind != '#')
				add_token(l, kind == '{' ? T_VARIABLE_BEGIN : T_BLOCK_BEGIN);
			advance(l, p + 2 + (sign != 0));
			rc = kind == '#' ? lex_comment(l) : lex_tag(l, kind == '{');
		}
		if (rc)
			return -1;
	}
	return 0;
}

int jinja_lex(struct compile *c, const char *source, size_t n)
{
	struct lexer l = {.c = c, .line = 1};
	char *s = xmalloc(n + 1);
	int rc = -1;

	/* \r\n and \r are newlines; the last newline of the file is dropped. */
	for (size_t i = 0; i < n; i++) {
		if (source[i] == '\r') {
			s[l.n++] = '\n';
			i += i + 1 < n && source[i + 1] == '\n';
		} else {
			s[l.n++] = source[i];
		}
	}
	if (l.n && s[l.n - 1] == '\n')
		l.n--;
	l.s = s;
	if (!utf8_valid(s, l.n))
		compile_fail(c, 1, "the template is not UTF-8");
	else
		rc = lex_all(&l);
	add_token(&l, T_EOF);
	free(l.brackets);
	free(s);
	return rc;
}
