/* added.c: finds added tokens in a text, the longest at the leftmost place.
 *
 * The texts are kept sorted. From a place in the text the range of texts that agree so far is narrowed byte by byte; a text
 * that ends here is the first of its range. Two tables on the first and on the first two bytes turn away nearly every place.
 */
#include <stdlib.h>

#include "base/mem.h"
#include "engine/text/tokenizer_private.h"

struct added_set {
	const struct added_token **sorted;
	size_t n;
	uint32_t first[257];    /* tokens that begin with byte b: first[b] to first[b + 1] */
	unsigned char one[256]; /* there is a token of the one byte b */
	uint64_t two[65536 / 64];
};

static int compare_tokens(const void *a, const void *b)
{
	const struct added_token *x = *(const struct added_token *const *)a, *y = *(const struct added_token *const *)b;
	int c = memcmp(x->text, y->text, x->n < y->n ? x->n : y->n);

	if (c != 0)
		return c;
	if (x->n != y->n)
		return x->n < y->n ? -1 : 1;
	return x->id < y->id ? -1 : x->id > y->id;
}

struct added_set *added_set_new(const struct added_token *tokens, size_t n, int normalized)
{
	struct added_set *s = xcalloc(1, sizeof(*s));

	s->sorted = xreallocarray(NULL, n + 1, sizeof(*s->sorted));
	for (size_t i = 0; i < n; i++)
		if ((int)tokens[i].normalized == normalized)
			s->sorted[s->n++] = &tokens[i];
	if (s->n == 0) {
		added_set_free(s);
		return NULL;
	}
	qsort(s->sorted, s->n, sizeof(*s->sorted), compare_tokens);
	for (size_t i = 0; i < s->n; i++) {
		const unsigned char *p = (const unsigned char *)s->sorted[i]->text;
		unsigned pair = p[0] * 256u + (s->sorted[i]->n > 1 ? p[1] : 0);

		s->first[p[0] + 1] = (uint32_t)i + 1;
		if (s->sorted[i]->n == 1)
			s->one[p[0]] = 1;
		else
			s->two[pair / 64] |= UINT64_C(1) << pair % 64;
	}
	for (int b = 0; b < 256; b++)
		if (s->first[b + 1] < s->first[b])
			s->first[b + 1] = s->first[b];
	return s;
}

void added_set_free(struct added_set *s)
{
	if (!s)
		return;
	free(s->sorted);
	free(s);
}

/* The longest token that begins at p, or NULL. */
static const struct added_token *longest_at(const struct added_set *s, const unsigned char *p, const unsigned char *end)
{
	size_t lo = s->first[p[0]], hi = s->first[p[0] + 1], depth = 1;
	const struct added_token *best = NULL;

	while (lo < hi) {
		size_t a, b;

		while (lo < hi && s->sorted[lo]->n == depth)
			best = best && best->n == depth ? best : s->sorted[lo], lo++;
		if (p + depth == end)
			break;
		/* Among texts longer than depth: those with the next byte. */
		for (a = lo, b = hi; a < b;) {
			size_t mid = (a + b) / 2;

			if ((unsigned char)s->sorted[mid]->text[depth] < p[depth])
				a = mid + 1;
			else
				b = mid;
		}
		lo = a;
		for (b = hi; a < b;) {
			size_t mid = (a + b) / 2;

			if ((unsigned char)s->sorted[mid]->text[depth] <= p[depth])
				a = mid + 1;
			else
				b = mid;
		}
		hi = a;
		depth++;
	}
	return best;
}

static const struct added_token *find(const struct added_set *s, const char *text, size_t n, size_t from, size_t *at)
{
	const unsigned char *p = (const unsigned char *)text + from, *end = (const unsigned char *)text + n;

	for (; p < end; p++) {
		const struct added_token *t;

		if (s->first[p[0]] == s->first[p[0] + 1])
			continue;
		if (!s->one[p[0]]) {
			unsigned pair;

			if (p + 1 == end)
				continue;
			pair = p[0] * 256u + p[1];
			if (!(s->two[pair / 64] >> pair % 64 & 1))
				continue;
		}
		t = longest_at(s, p, end);
		if (t) {
			*at = (size_t)(p - (const unsigned char *)text);
			return t;
		}
	}
	return NULL;
}

static unsigned bits_before(const char *text, size_t at, size_t *start)
{
	size_t size;

	do
		at--;
	while (((unsigned char)text[at] & 0xC0) == 0x80);
	*start = at;
	return unicode_bits(utf8_get((const unsigned char *)text + at, &size));
}

static unsigned bits_after(const char *text, size_t at, size_t *next)
{
	size_t size;
	unsigned bits = unicode_bits(utf8_get((const unsigned char *)text + at, &size));

	*next = at + size;
	return bits;
}

int added_set_next(const struct added_set *s, const char *text, size_t n, int no_special, size_t *from, size_t done,
                   struct added_match *m)
{
	const struct added_token *t;
	size_t at, other;

	while ((t = find(s, text, n, *from, &at)) != NULL) {
		*from = at + t->n;
		if (no_special && t->special)
			continue;
		if (t->single_word && ((at > 0 && bits_before(text, at, &other) & UNICODE_RUST_WORD) ||
		                       (*from < n && bits_after(text, *from, &other) & UNICODE_RUST_WORD)))
			continue;
		m->id = t->id;
		m->start = at;
		m->end = *from;
		if (t->lstrip) {
			while (m->start > 0 && bits_before(text, m->start, &other) & UNICODE_SPACE)
				m->start = other;
			if (m->start < done)
				m->start = done;
		}
		if (t->rstrip)
			while (m->end < n && bits_after(text, m->end, &other) & UNICODE_SPACE)
				m->end = other;
		return 1;
	}
	return 0;
}
