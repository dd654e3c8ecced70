/* regex_translate.c: Oniguruma's syntax (doc/RE of that project) to PCRE2's, one pass over the pattern. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/text/regex.h"
#include "engine/text/regex_set.h"
#include "engine/text/unicode.h"

#define MAX_PATTERN (1 << 16)
#define MAX_DEPTH 64
#define MAX_CLASSES 2000
#define MAX_TRANSLATED (16u << 20)

struct group_flags {
	int caseless;
	int dotall;
};

struct translation {
	const char *s; /* valid UTF-8 */
	size_t n, at;
	struct buf *out;
	struct err *err;
	struct group_flags flags[MAX_DEPTH];
	int depth;
	int n_classes;
	size_t atom;      /* where the last atom begins in out; SIZE_MAX: nothing that could be repeated */
	size_t inside[MAX_DEPTH]; /* where the group's content begins in out */
	int repeated;     /* the last atom has a quantifier */
	uint32_t before;  /* the literal before, for folds of two characters; 0 none */
};

static int refuse(struct translation *t, const char *what)
{
	return err_set(t->err, ERR_MODEL, "%s at byte %zu of the pattern", what, t->at + 1);
}

static int peek(const struct translation *t, size_t ahead)
{
	return t->at + ahead < t->n ? (unsigned char)t->s[t->at + ahead] : -1;
}

static uint32_t take_char(struct translation *t)
{
	size_t size;
	uint32_t c = utf8_get((const unsigned char *)t->s + t->at, &size);

	t->at += size;
	return c;
}

static int hex_value(int c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* After the backslash and the x or u. */
static int take_hex(struct translation *t, int kind, uint32_t *c)
{
	int braces = kind == 'x' && peek(t, 0) == '{', max = kind == 'u' ? 4 : braces ? 8 : 2, n = 0;

	*c = 0;
	t->at += (size_t)braces;
	while (n < max && hex_value(peek(t, 0)) >= 0) {
		*c = *c << 4 | (uint32_t)hex_value(peek(t, 0));
		t->at++;
		n++;
	}
	if (n == 0 || (kind == 'u' && n != 4) || (braces && peek(t, 0) != '}'))
		return refuse(t, "bad hexadecimal escape");
	t->at += (size_t)braces;
	/* \x80 to \xFF without braces are bytes for Oniguruma, not characters. */
	if (*c > UNICODE_MAX || (*c >= 0xD800 && *c <= 0xDFFF) || (kind == 'x' && !braces && *c > 0x7F))
		return refuse(t, "hexadecimal escape of no character");
	return 0;
}

/* After a backslash: 1 and *c for a single character, 2 with the set filled, -1. Used inside and outside of classes. */
static int take_escape(struct translation *t, uint32_t *c, struct char_set *set)
{
	static const char names[] = "tnrfvae", values[] = "\t\n\r\f\v\a\x1B";
	int kind = peek(t, 0), negate = 0;
	const char *at;
	size_t n;

	if (kind < 0)
		return refuse(t, "end of the pattern after a backslash");
	if (kind >= 0x80) {
		*c = take_char(t);
		return 1;
	}
	t->at++;
	if ((at = strchr(names, kind)) != NULL) {
		*c = (unsigned char)values[at - names];
		return 1;
	}
	switch (kind) {
	case 'x':
	case 'u':
		return take_hex(t, kind, c) != 0 ? -1 : 1;
	case 'S':
	case 's':
		char_set_add_flags(set, UNICODE_SPACE);
		negate = kind == 'S';
		break;
	case 'W':
	case 'w':
		char_set_add_flags(set, UNICODE_WORD);
		negate = kind == 'W';
		break;
	case 'D':
	case 'd':
		char_set_add_category(set, 1u << CAT_ND);
		negate = kind == 'D';
		break;
	case 'H':
	case 'h':
		char_set_add(set, '0', '9');
		char_set_add(set, 'a', 'f');
		char_set_add(set, 'A', 'F');
		negate = kind == 'H';
		break;
	case 'P':
	case 'p':
		if (peek(t, 0) != '{')
			return refuse(t, "\\p without braces");
		t->at++;
		negate = kind == 'P';
		if (peek(t, 0) == '^') {
			negate = !negate;
			t->at++;
		}
		for (n = 0; peek(t, n) >= 0 && peek(t, n) != '}';)
			n++;
		if (peek(t, n) < 0)
			return refuse(t, "\\p{ without }");
		if (char_set_add_property(set, t->s + t->at, n, t->err) != 0)
			return -1;
		t->at += n + 1;
		break;
	default:
		if ((kind >= '0' && kind <= '9') || (kind >= 'a' && kind <= 'z') || (kind >= 'A' && kind <= 'Z'))
			return err_set(t->err, ERR_MODEL, "unsupported escape \\%c at byte %zu of the pattern", kind, t->at);
		*c = (uint32_t)kind;
		return 1;
	}
	if (negate)
		char_set_negate(set);
	return 2;
}

/* One member of a class: a character (1), a set (2), -1. */
static int take_member(struct translation *t, uint32_t *c, struct char_set *set)
{
	if (peek(t, 0) == '\\') {
		t->at++;
		return take_escape(t, c, set);
	}
	*c = take_char(t);
	return 1;
}

static int take_posix(struct translation *t, struct char_set *set)
{
	static const char digit[] = "[:digit:]", space[] = "[:space:]", word[] = "[:word:]";

	if (t->n - t->at >= 9 && memcmp(t->s + t->at, digit, 9) == 0)
		char_set_add_category(set, 1u << CAT_ND);
	else if (t->n - t->at >= 9 && memcmp(t->s + t->at, space, 9) == 0)
		char_set_add_flags(set, UNICODE_SPACE);
	else if (t->n - t->at >= 8 && memcmp(t->s + t->at, word, 8) == 0) {
		char_set_add_flags(set, UNICODE_WORD);
		t->at--;
	} else {
		return refuse(t, "unsupported POSIX bracket");
	}
	t->at += 9;
	return 0;
}

static int take_class(struct translation *t, struct char_set *result, int *negated, int depth);

/* The members up to ] or &&, added to the set. */
static int take_members(struct translation *t, struct char_set *set, int depth)
{
	struct char_set *part = char_set_new();
	int first = 1, status = -1;

	for (;; first = 0) {
		int kind, c = peek(t, 0), inner_negated;
		uint32_t lo = 0, hi = 0;

		if (c < 0) {
			refuse(t, "class without ]");
			break;
		}
		if ((c == ']' && !first) || (c == '&' && peek(t, 1) == '&')) {
			status = 0;
			break;
		}
		if (c == '[') {
			memset(part, 0, sizeof(*part));
			if (peek(t, 1) == ':') {
				if (take_posix(t, part) != 0)
					break;
			} else {
				t->at++;
				if (take_class(t, part, &inner_negated, depth + 1) != 0)
					break;
				if (inner_negated)
					char_set_negate(part);
			}
			char_set_add_set(set, part);
			continue;
		}
		memset(part, 0, sizeof(*part));
		kind = take_member(t, &lo, part);
		if (kind < 0)
			break;
		if (kind == 2) {
			char_set_add_set(set, part);
			continue;
		}
		hi = lo;
		if (peek(t, 0) == '-' && peek(t, 1) >= 0 && peek(t, 1) != ']') {
			t->at++;
			if (peek(t, 0) == '[' || take_member(t, &hi, part) != 1) {
				refuse(t, "range without an end in a class");
				break;
			}
			if (hi < lo) {
				refuse(t, "empty range in a class");
				break;
			}
		}
		char_set_add(set, lo, hi);
	}
	free(part);
	return status;
}

/* After [. The outermost negation is left to the caller: under (?i) PCRE2 must fold first and negate then. */
static int take_class(struct translation *t, struct char_set *result, int *negated, int depth)
{
	struct char_set *part = NULL;
	int status = -1;

	*negated = 0;
	if (depth > 8 || ++t->n_classes > MAX_CLASSES)
		return refuse(t, "too many or too deeply nested classes");
	if (peek(t, 0) == '^') {
		*negated = 1;
		t->at++;
	}
	memset(result, 0, sizeof(*result));
	if (take_members(t, result, depth) != 0)
		goto out;
	while (peek(t, 0) == '&') {
		t->at += 2;
		if (!part)
			part = char_set_new();
		memset(part, 0, sizeof(*part));
		if (peek(t, 0) == ']' || take_members(t, part, depth) != 0) {
			refuse(t, "&& without a right side in a class");
			goto out;
		}
		char_set_intersect(result, part);
	}
	t->at++;
	status = 0;
out:
	free(part);
	return status;
}

static void begin_atom(struct translation *t)
{
	t->atom = t->out->len;
	t->repeated = 0;
	t->before = 0;
}

/* Under (?i) Oniguruma also lets one character stand for two (the sharp s for "ss"); PCRE2 does not. The letters that begin such
 * pairs in ASCII are f, s; outside of ASCII there are many. */
static int add_literal(struct translation *t, uint32_t c)
{
	uint32_t lower = c < 0x80 && c >= 'A' && c <= 'Z' ? c + 32 : c;
	uint32_t before = t->before;

	if (t->flags[t->depth].caseless) {
		if (c >= 0x80 || (before == 's' && (lower == 's' || lower == 't')) ||
		    (before == 'f' && (lower == 'f' || lower == 'i' || lower == 'l')))
			return refuse(t, "case-insensitive literal with folds of more than one character");
	}
	begin_atom(t);
	t->before = lower;
	if (c < 0x80 && !(c >= '0' && c <= '9') && !(lower >= 'a' && lower <= 'z')) {
		buf_addf(t->out, "\\x{%x}", c);
	} else {
		char bytes[4];

		buf_add(t->out, bytes, utf8_put(c, bytes));
	}
	return 0;
}

static void add_set(struct translation *t, const struct char_set *set, int negated)
{
	begin_atom(t);
	char_set_write(set, negated, t->out);
}

static int add_escape(struct translation *t)
{
	struct char_set *set;
	struct buf word = {0};
	uint32_t c = 0;
	int kind = peek(t, 1);

	t->at++;
	switch (kind) {
	case 'A':
	case 'z':
		t->at++;
		buf_addf(t->out, "\\%c", kind);
		t->atom = SIZE_MAX;
		t->before = 0;
		return 0;
	case 'Z':
		t->at++;
		buf_adds(t->out, "(?=\\n?\\z)");
		t->atom = SIZE_MAX;
		t->before = 0;
		return 0;
	case 'b':
	case 'B':
		t->at++;
		set = char_set_new();
		char_set_add_flags(set, UNICODE_WORD);
		char_set_write(set, 0, &word);
		buf_addf(t->out, kind == 'b' ? "(?:(?<=%s)(?!%s)|(?<!%s)(?=%s))" : "(?:(?<=%s)(?=%s)|(?<!%s)(?!%s))", buf_str(&word),
		         buf_str(&word), buf_str(&word), buf_str(&word));
		buf_release(&word);
		free(set);
		t->atom = SIZE_MAX;
		t->before = 0;
		return 0;
	default:
		break;
	}
	if (++t->n_classes > MAX_CLASSES)
		return refuse(t, "too many classes");
	set = char_set_new();
	kind = take_escape(t, &c, set);
	if (kind == 1)
		kind = add_literal(t, c) == 0 ? 0 : -1;
	else if (kind == 2)
		add_set(t, set, 0);
	free(set);
	return kind < 0 ? -1 : 0;
}

/* After "(?": i, m, x flags; 0 when this was such a group or switch, 1 when it is something else, -1. */
static int take_flags(struct translation *t)
{
	struct group_flags flags = t->flags[t->depth];
	size_t k = 0;
	int on = 1, c;

	for (;; k++) {
		c = peek(t, k);
		if (c == '-')
			on = 0;
		else if (c == 'i')
			flags.caseless = on;
		else if (c == 'm')
			flags.dotall = on;
		else
			break;
	}
	if (k == 0 || (c != ':' && c != ')'))
		return 1;
	t->at += k + 1;
	if (c == ':') {
		if (t->depth + 1 == MAX_DEPTH)
			return refuse(t, "groups nested too deeply");
		t->depth++;
		t->flags[t->depth] = flags;
		buf_adds(t->out, flags.caseless ? "(?i:" : "(?-i:");
		t->inside[t->depth] = t->out->len;
		return 0;
	}
	/* A switch holds up to the end of its group; further in, the two libraries bind alternatives to it differently. */
	if (t->out->len != t->inside[t->depth])
		return refuse(t, "switch of options that is not at the start of its group");
	t->flags[t->depth] = flags;
	buf_adds(t->out, flags.caseless ? "(?i)" : "(?-i)");
	t->inside[t->depth] = t->out->len;
	return 0;
}

/* Where each open group begins in out is kept by the caller. */
static int add_group(struct translation *t)
{
	static const char *const kinds[] = {"?:", "?=", "?!", "?>", "?<=", "?<!"};
	const char *emit = "(?:";
	int status;

	t->at++;
	if (peek(t, 0) == '?') {
		size_t i, n = 0;

		for (i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
			n = strlen(kinds[i]);
			if (t->n - t->at >= n && memcmp(t->s + t->at, kinds[i], n) == 0)
				break;
		}
		if (i < sizeof(kinds) / sizeof(kinds[0])) {
			buf_addc(t->out, '(');
			emit = kinds[i];
			t->at += n;
		} else if (peek(t, 1) == '<' || peek(t, 1) == '#') {
			char close = peek(t, 1) == '<' ? '>' : ')';
			const char *end = memchr(t->s + t->at, close, t->n - t->at);

			if (!end)
				return refuse(t, "group without an end");
			t->at = (size_t)(end - t->s) + 1;
			if (close == ')')
				return 0;
		} else {
			t->at++;
			status = take_flags(t);
			return status == 1 ? refuse(t, "unsupported kind of group") : status;
		}
	}
	if (t->depth + 1 == MAX_DEPTH)
		return refuse(t, "groups nested too deeply");
	t->depth++;
	t->flags[t->depth] = t->flags[t->depth - 1];
	buf_adds(t->out, emit);
	t->inside[t->depth] = t->out->len;
	return 0;
}

/* {n}, {n,}, {n,m}, {,m}: 1 with the length of the text; 0 when it is no interval (then { is a literal). */
static int peek_interval(const struct translation *t, size_t *length, long *min, long *max)
{
	size_t k = 1;
	int digits = 0;
	long v[2] = {0, -1};

	for (; peek(t, k) >= '0' && peek(t, k) <= '9' && digits < 6; k++, digits++)
		v[0] = v[0] * 10 + peek(t, k) - '0';
	if (peek(t, k) == ',') {
		int more = 0;

		k++;
		for (; peek(t, k) >= '0' && peek(t, k) <= '9' && more < 6; k++, more++)
			v[1] = (v[1] < 0 ? 0 : v[1] * 10) + peek(t, k) - '0';
		if (!digits && !more)
			return 0;
	} else {
		if (!digits)
			return 0;
		v[1] = v[0];
	}
	if (peek(t, k) != '}')
		return 0;
	*length = k + 1;
	*min = v[0];
	*max = v[1];
	return 1;
}

static void wrap_atom(struct translation *t)
{
	size_t n = t->out->len - t->atom;

	buf_adds(t->out, "(?:)");
	memmove(t->out->data + t->atom + 3, t->out->data + t->atom, n);
	memcpy(t->out->data + t->atom, "(?:", 3);
	t->out->data[t->out->len - 1] = ')';
}

static int add_quantifier(struct translation *t, int c)
{
	size_t length = 1;
	long min = 0, max = -1;

	if (t->atom == SIZE_MAX)
		return refuse(t, "nothing to repeat");
	if (t->repeated)
		wrap_atom(t); /* Oniguruma lets quantifiers follow each other */
	if (c == '{') {
		peek_interval(t, &length, &min, &max);
		if (max >= 0 && min > max)
			return refuse(t, "interval with its ends exchanged");
		if (min > 60000 || max > 60000)
			return refuse(t, "interval too large");
		if (max < 0)
			buf_addf(t->out, "{%ld,}", min);
		else
			buf_addf(t->out, "{%ld,%ld}", min, max);
	} else {
		buf_addc(t->out, (char)c);
	}
	t->at += length;
	/* {n}? is an optional {n} and {n,m}+ a repeated one; elsewhere ? is lazy and + possessive. */
	if (peek(t, 0) == '?' && !(c == '{' && max == min)) {
		buf_addc(t->out, '?');
		t->at++;
	} else if (peek(t, 0) == '+' && c != '{') {
		buf_addc(t->out, '+');
		t->at++;
	}
	t->repeated = 1;
	t->before = 0;
	return 0;
}

static int translate(struct translation *t)
{
	size_t opened[MAX_DEPTH];
	struct char_set *set = char_set_new();
	int status = -1;

	while (t->at < t->n) {
		int c = peek(t, 0), negated, depth = t->depth;
		size_t length, here = t->out->len;
		long min, max;

		if (t->out->len > MAX_TRANSLATED) {
			refuse(t, "pattern too large once translated");
			goto out;
		}
		if (c == '*' || c == '+' || c == '?' || (c == '{' && peek_interval(t, &length, &min, &max))) {
			if (add_quantifier(t, c) != 0)
				goto out;
			continue;
		}
		switch (c) {
		case '[':
			t->at++;
			if (take_class(t, set, &negated, 0) != 0)
				goto out;
			add_set(t, set, negated);
			break;
		case '\\':
			if (add_escape(t) != 0)
				goto out;
			break;
		case '(':
			if (add_group(t) != 0)
				goto out;
			if (t->depth > depth)
				opened[t->depth] = here;
			t->atom = SIZE_MAX;
			t->before = 0;
			break;
		case ')':
			if (t->depth == 0) {
				refuse(t, "unmatched )");
				goto out;
			}
			t->atom = opened[t->depth--];
			t->repeated = 0;
			t->before = 0;
			buf_addc(t->out, ')');
			t->at++;
			break;
		case '|':
			t->atom = SIZE_MAX;
			t->before = 0;
			buf_addc(t->out, '|');
			t->at++;
			break;
		case '^':
		case '$':
			t->atom = SIZE_MAX;
			t->before = 0;
			buf_adds(t->out, c == '^' ? "(?m:^)" : "(?m:$)");
			t->at++;
			break;
		case '.':
			begin_atom(t);
			buf_adds(t->out, t->flags[t->depth].dotall ? "(?s:.)" : "[^\\n]");
			t->at++;
			break;
		default:
			if (add_literal(t, take_char(t)) != 0)
				goto out;
		}
	}
	status = t->depth == 0 ? 0 : refuse(t, "group without an end");
out:
	free(set);
	return status;
}

int regex_translate(const char *pattern, size_t n, struct buf *out, struct err *err)
{
	struct translation t = {.s = pattern, .n = n, .out = out, .err = err, .atom = SIZE_MAX};

	unicode_init();
	if (n > MAX_PATTERN)
		return err_set(err, ERR_MODEL, "pattern has %zu bytes, limit is %d", n, MAX_PATTERN);
	if (!utf8_valid(pattern, n))
		return err_set(err, ERR_MODEL, "pattern is not UTF-8");
	return translate(&t);
}
