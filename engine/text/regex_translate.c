/* regex_translate.c: Oniguruma's syntax (doc/RE of that project) to PCRE2's, one pass over the pattern. */
#include <stdlib.h>
#include <string.h>

#include "engine/text/regex.h"
#include "engine/text/regex_parse.h"
#include "engine/text/unicode.h"

#define MAX_PATTERN (1 << 16)
#define MAX_TRANSLATED (16u << 20)

static void begin_atom(struct translation *t)
{
	t->atom = t->out->len;
	t->repeated = 0;
	t->before = 0;
}

/* Under (?i) Oniguruma also lets one character stand for two (the sharp s for "ss"); PCRE2 does not. The letters that begin
 * such pairs in ASCII are f, s; outside of ASCII there are many. */
static int add_literal(struct translation *t, uint32_t c)
{
	uint32_t lower = c < 0x80 && c >= 'A' && c <= 'Z' ? c + 32 : c;
	uint32_t before = t->before;

	if (t->flags[t->depth].caseless) {
		if (c >= 0x80 || (before == 's' && (lower == 's' || lower == 't')) ||
		    (before == 'f' && (lower == 'f' || lower == 'i' || lower == 'l')))
			return translation_refuse(t, "case-insensitive literal with folds of more than one character");
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
	int kind = translation_peek(t, 1);

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
		char_set_add_word(set, 0);
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
	if (++t->n_classes > REGEX_MAX_CLASSES)
		return translation_refuse(t, "too many classes");
	set = char_set_new();
	kind = translation_take_escape(t, &c, set, 0);
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
		c = translation_peek(t, k);
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
		if (t->depth + 1 == REGEX_MAX_DEPTH)
			return translation_refuse(t, "groups nested too deeply");
		t->depth++;
		t->flags[t->depth] = flags;
		buf_adds(t->out, flags.caseless ? "(?i:" : "(?-i:");
		t->inside[t->depth] = t->out->len;
		return 0;
	}
	/* A switch holds up to the end of its group; further in, the two libraries bind alternatives to it differently. */
	if (t->out->len != t->inside[t->depth])
		return translation_refuse(t, "switch of options that is not at the start of its group");
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
	if (translation_peek(t, 0) == '?') {
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
		} else if (translation_peek(t, 1) == '<' || translation_peek(t, 1) == '#') {
			char close = translation_peek(t, 1) == '<' ? '>' : ')';
			const char *end = memchr(t->s + t->at, close, t->n - t->at);

			if (!end)
				return translation_refuse(t, "group without an end");
			t->at = (size_t)(end - t->s) + 1;
			if (close == ')')
				return 0;
		} else {
			t->at++;
			status = take_flags(t);
			return status == 1 ? translation_refuse(t, "unsupported kind of group") : status;
		}
	}
	if (t->depth + 1 == REGEX_MAX_DEPTH)
		return translation_refuse(t, "groups nested too deeply");
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

	for (; translation_peek(t, k) >= '0' && translation_peek(t, k) <= '9' && digits < 6; k++, digits++)
		v[0] = v[0] * 10 + translation_peek(t, k) - '0';
	if (translation_peek(t, k) == ',') {
		int more = 0;

		k++;
		for (; translation_peek(t, k) >= '0' && translation_peek(t, k) <= '9' && more < 6; k++, more++)
			v[1] = (v[1] < 0 ? 0 : v[1] * 10) + translation_peek(t, k) - '0';
		if (!digits && !more)
			return 0;
	} else {
		if (!digits)
			return 0;
		v[1] = v[0];
	}
	if (translation_peek(t, k) != '}')
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
		return translation_refuse(t, "nothing to repeat");
	if (t->repeated)
		wrap_atom(t); /* Oniguruma lets quantifiers follow each other */
	if (c == '{') {
		peek_interval(t, &length, &min, &max);
		if (max >= 0 && min > max)
			return translation_refuse(t, "interval with its ends exchanged");
		if (min > 60000 || max > 60000)
			return translation_refuse(t, "interval too large");
		if (max < 0)
			buf_addf(t->out, "{%ld,}", min);
		else
			buf_addf(t->out, "{%ld,%ld}", min, max);
	} else {
		buf_addc(t->out, (char)c);
	}
	t->at += length;
	/* {n}? is an optional {n} and {n,m}+ a repeated one; elsewhere ? is lazy and + possessive. */
	if (translation_peek(t, 0) == '?' && !(c == '{' && max == min)) {
		buf_addc(t->out, '?');
		t->at++;
	} else if (translation_peek(t, 0) == '+' && c != '{') {
		buf_addc(t->out, '+');
		t->at++;
	}
	t->repeated = 1;
	t->before = 0;
	return 0;
}

static int translate(struct translation *t)
{
	size_t opened[REGEX_MAX_DEPTH];
	struct char_set *set = char_set_new();
	int status = -1;

	while (t->at < t->n) {
		int c = translation_peek(t, 0), negated, depth = t->depth;
		size_t length, here = t->out->len;
		long min, max;

		if (t->out->len > MAX_TRANSLATED) {
			translation_refuse(t, "pattern too large once translated");
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
			if (translation_take_class(t, set, &negated, 0) != 0)
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
				translation_refuse(t, "unmatched )");
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
			if (add_literal(t, translation_take_char(t)) != 0)
				goto out;
		}
	}
	status = t->depth == 0 ? 0 : translation_refuse(t, "group without an end");
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
