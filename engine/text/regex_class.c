/* regex_class.c: escapes and character classes of Oniguruma's syntax, worked out to sets of code points. */
#include <stdlib.h>
#include <string.h>

#include "engine/text/regex_parse.h"
#include "engine/text/unicode.h"

int translation_refuse(struct translation *t, const char *what)
{
	return err_set(t->err, ERR_MODEL, "%s at byte %zu of the pattern", what, t->at + 1);
}

uint32_t translation_take_char(struct translation *t)
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
	int braces = kind == 'x' && translation_peek(t, 0) == '{', max = kind == 'u' ? 4 : braces ? 8 : 2, n = 0;

	*c = 0;
	t->at += (size_t)braces;
	while (n < max && hex_value(translation_peek(t, 0)) >= 0) {
		*c = *c << 4 | (uint32_t)hex_value(translation_peek(t, 0));
		t->at++;
		n++;
	}
	if (n == 0 || (kind == 'u' && n != 4) || (braces && translation_peek(t, 0) != '}'))
		return translation_refuse(t, "bad hexadecimal escape");
	t->at += (size_t)braces;
	/* \x80 to \xFF without braces are bytes for Oniguruma, not characters. */
	if (*c > UNICODE_MAX || (*c >= 0xD800 && *c <= 0xDFFF) || (kind == 'x' && !braces && *c > 0x7F))
		return translation_refuse(t, "hexadecimal escape of no character");
	return 0;
}

int translation_take_escape(struct translation *t, uint32_t *c, struct char_set *set, int in_class)
{
	static const char names[] = "tnrfvae", values[] = "\t\n\r\f\v\a\x1B";
	int kind = translation_peek(t, 0), negate = 0;
	const char *at;
	size_t n;

	if (kind < 0)
		return translation_refuse(t, "end of the pattern after a backslash");
	if (kind >= 0x80) {
		*c = translation_take_char(t);
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
		char_set_add_word(set, in_class);
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
		if (translation_peek(t, 0) != '{')
			return translation_refuse(t, "\\p without braces");
		t->at++;
		negate = kind == 'P';
		if (translation_peek(t, 0) == '^') {
			negate = !negate;
			t->at++;
		}
		for (n = 0; translation_peek(t, n) >= 0 && translation_peek(t, n) != '}';)
			n++;
		if (translation_peek(t, n) < 0)
			return translation_refuse(t, "\\p{ without }");
		if (char_set_add_property(set, t->s + t->at, n, in_class, t->err) != 0)
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
	if (translation_peek(t, 0) == '\\') {
		t->at++;
		return translation_take_escape(t, c, set, 1);
	}
	*c = translation_take_char(t);
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
		char_set_add_word(set, 1);
		t->at--;
	} else {
		return translation_refuse(t, "unsupported POSIX bracket");
	}
	t->at += 9;
	return 0;
}

/* The members up to ] or &&, added to the set. */
static int take_members(struct translation *t, struct char_set *set, int depth)
{
	struct char_set *part = char_set_new();
	int first = 1, status = -1;

	for (;; first = 0) {
		int kind, c = translation_peek(t, 0), inner_negated;
		uint32_t lo = 0, hi = 0;

		if (c < 0) {
			translation_refuse(t, "class without ]");
			break;
		}
		if ((c == ']' && !first) || (c == '&' && translation_peek(t, 1) == '&')) {
			status = 0;
			break;
		}
		if (c == '[') {
			memset(part, 0, sizeof(*part));
			if (translation_peek(t, 1) == ':') {
				if (take_posix(t, part) != 0)
					break;
			} else {
				t->at++;
				if (translation_take_class(t, part, &inner_negated, depth + 1) != 0)
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
		if (translation_peek(t, 0) == '-' && translation_peek(t, 1) >= 0 && translation_peek(t, 1) != ']') {
			t->at++;
			if (translation_peek(t, 0) == '[' || take_member(t, &hi, part) != 1) {
				translation_refuse(t, "range without an end in a class");
				break;
			}
			if (hi < lo) {
				translation_refuse(t, "empty range in a class");
				break;
			}
		}
		char_set_add(set, lo, hi);
	}
	free(part);
	return status;
}

int translation_take_class(struct translation *t, struct char_set *result, int *negated, int depth)
{
	struct char_set *part = NULL;
	int status = -1;

	*negated = 0;
	if (depth > 8 || ++t->n_classes > REGEX_MAX_CLASSES)
		return translation_refuse(t, "too many or too deeply nested classes");
	if (translation_peek(t, 0) == '^') {
		*negated = 1;
		t->at++;
	}
	memset(result, 0, sizeof(*result));
	if (take_members(t, result, depth) != 0)
		goto out;
	while (translation_peek(t, 0) == '&') {
		t->at += 2;
		if (!part)
			part = char_set_new();
		memset(part, 0, sizeof(*part));
		if (translation_peek(t, 0) == ']' || take_members(t, part, depth) != 0) {
			translation_refuse(t, "&& without a right side in a class");
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
