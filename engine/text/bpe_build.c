/* bpe_build.c: the tables that BPE needs, made once when a tokenizer is opened. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "engine/text/tokenizer_private.h"

#define MAX_SCORED_TOKEN 1024 /* bytes; every cut of a token is looked up */

void bpe_merges_reserve(struct bpe *b, size_t n)
{
	size_t slots = 16;

	while (slots < 2 * n)
		slots *= 2;
	free(b->merges);
	b->merges = xreallocarray(NULL, slots, sizeof(*b->merges));
	memset(b->merges, 0xFF, slots * sizeof(*b->merges));
	b->n_merge_slots = slots;
	b->n_merges = 0;
}

void bpe_add_merge(struct bpe *b, int32_t left, int32_t right, uint32_t rank, int32_t id)
{
	struct bpe_merge *m = (struct bpe_merge *)bpe_find_merge(b, (uint32_t)left, (uint32_t)right);

	if (!m) {
		uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right, h = pair * 0x9E3779B97F4A7C15u;
		size_t mask = b->n_merge_slots - 1, i = (size_t)(h >> 32 ^ h >> 8) & mask;

		if (2 * (b->n_merges + 1) > b->n_merge_slots)
			BUG("more merges than were reserved");
		while (b->merges[i].pair != UINT64_MAX)
			i = (i + 1) & mask;
		m = &b->merges[i];
		m->pair = pair;
		b->n_merges++;
	}
	m->rank = rank;
	m->id = id;
}

void bpe_release(struct bpe *b)
{
	vocab_release(&b->raw_words);
	vocab_release(&b->extra);
	free(b->merges);
	free(b->adjacent);
}

static int compare_scores(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;

	return x < y ? 1 : x > y ? -1 : 0;
}

static uint32_t rank_of(const float *sorted, size_t n, float score)
{
	size_t lo = 0, hi = n;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (sorted[mid] > score)
			lo = mid + 1;
		else
			hi = mid;
	}
	return (uint32_t)lo;
}

static int32_t find_scored_symbol(const struct bpe *b, const char *s, size_t n)
{
	int32_t id = vocab_find(b->vocab, s, n);

	if (id < 0) {
		id = vocab_find(&b->extra, s, n);
		if (id >= 0)
			id += b->n_tokens;
	}
	return id;
}

int bpe_build_from_scores(struct bpe *b, const float *scores, struct err *err)
{
	float *sorted = xreallocarray(NULL, b->vocab->n_ids + 1, sizeof(*sorted));
	size_t n_ids = b->vocab->n_ids, n_cuts = 0, n_unique = 0;

	b->by_score = 1;
	b->n_tokens = (int32_t)n_ids;
	for (size_t id = 0; id < n_ids; id++) {
		size_t n, size;
		const char *s = vocab_text(b->vocab, (int32_t)id, &n);

		if (isnan(scores[id]) || (s && n > MAX_SCORED_TOKEN)) {
			free(sorted);
			return err_set(err, ERR_MODEL,
			               isnan(scores[id]) ? "token %zu: score is not a number" : "token %zu: longer than 1024 bytes", id);
		}
		sorted[id] = scores[id];
		for (size_t i = 0; s && i < n; i += size) {
			size = utf8_size((unsigned char)s[i]);
			n_cuts += i > 0;
			if (size < n && vocab_find(b->vocab, s + i, size) < 0 && vocab_find(&b->extra, s + i, size) < 0)
				vocab_add(&b->extra, (int32_t)b->extra.n_ids, s + i, size);
		}
	}
	b->first_byte = b->n_tokens + (int32_t)b->extra.n_ids;
	qsort(sorted, n_ids, sizeof(*sorted), compare_scores);
	for (size_t i = 0; i < n_ids; i++)
		if (i == 0 || sorted[i] != sorted[n_unique - 1])
			sorted[n_unique++] = sorted[i];
	bpe_merges_reserve(b, n_cuts);
	for (size_t id = 0; id < n_ids; id++) {
		size_t n;
		const char *s = vocab_text(b->vocab, (int32_t)id, &n);
		uint32_t rank;

		/* The same text may stand at several ids: only the one that is found by its text can be reached. */
		if (!s || vocab_find(b->vocab, s, n) != (int32_t)id)
			continue;
		rank = rank_of(sorted, n_unique, scores[id]);
		for (size_t i = utf8_size((unsigned char)s[0]); i < n; i += utf8_size((unsigned char)s[i])) {
			int32_t left = find_scored_symbol(b, s, i), right = find_scored_symbol(b, s + i, n - i);

			if (left >= 0 && right >= 0)
				bpe_add_merge(b, left, right, rank, (int32_t)id);
		}
	}
	free(sorted);
	return 0;
}

/* The first or last character of a symbol; for raw words the byte that it stands for. */
static uint32_t edge_char(const struct bpe *b, int32_t id, int last)
{
	size_t n = 0, size, at = 0;
	const char *s =
	    b->by_score && id >= b->n_tokens ? vocab_text(&b->extra, id - b->n_tokens, &n) : vocab_text(b->vocab, id, &n);
	uint32_t c;

	if (!s || n == 0)
		return 0;
	if (last)
		for (at = n - 1; at > 0 && ((unsigned char)s[at] & 0xC0) == 0x80;)
			at--;
	c = utf8_get((const unsigned char *)s + at, &size);
	if (b->raw) {
		int byte = byte_alphabet_byte(c);

		return byte < 0 ? 0 : (uint32_t)byte;
	}
	return c;
}

/* Which characters meet inside a token. Only the seam of each merge matters: what is to the left and right of it is a
 * character, or the result of another merge. */
static void find_adjacent(struct bpe *b)
{
	b->adjacent = xcalloc((size_t)1 << BPE_ADJACENT_BITS >> 6, sizeof(*b->adjacent));
	b->can_cut = 1;
	for (size_t i = 0; i < b->n_merge_slots; i++) {
		int32_t left = (int32_t)(b->merges[i].pair >> 32), right = (int32_t)(b->merges[i].pair & 0xFFFFFFFFu);
		size_t bit;

		if (b->merges[i].pair == UINT64_MAX)
			continue;
		bit = hash_pair(edge_char(b, left, 1), edge_char(b, right, 0));
		b->adjacent[bit / 64] |= UINT64_C(1) << bit % 64;
	}
	/* Where a character can vanish, or becomes tokens that merge with others, its neighbours meet after all. */
	if (b->by_score)
		return;
	for (int c = 0; c < 256; c++)
		if (b->raw ? b->ascii_ids[c] < 0 : !b->byte_fallback || b->fallback_ids[c] < 0)
			b->can_cut = 0;
	for (size_t i = 0; i < b->n_merge_slots && b->can_cut && !b->raw; i++) {
		for (int side = 0; side < 2 && b->merges[i].pair != UINT64_MAX; side++) {
			int32_t id = (int32_t)(side ? b->merges[i].pair & 0xFFFFFFFFu : b->merges[i].pair >> 32);
			size_t n;
			const char *s = vocab_text(b->vocab, id, &n);

			if (s && n == 6 && memcmp(s, "<0x", 3) == 0)
				b->can_cut = 0;
		}
	}
}

void bpe_finish(struct bpe *b)
{
	for (int c = 0; c < 256; c++) {
		char text[8];
		size_t n;

		snprintf(text, sizeof(text), "<0x%02X>", (unsigned)c);
		b->fallback_ids[c] = vocab_find(b->vocab, text, 6);
		n = b->raw ? utf8_put(byte_alphabet_char((unsigned char)c), text) : 1;
		if (!b->raw)
			text[0] = (char)c;
		b->ascii_ids[c] = b->raw || c < 128 ? vocab_find(b->vocab, text, n) : -1;
	}
	if (b->raw && b->ignore_merges) {
		struct buf word = {0};

		vocab_reserve(&b->raw_words, b->vocab->n_texts);
		for (size_t id = 0; id < b->vocab->n_ids; id++) {
			size_t n;
			const char *s = vocab_text(b->vocab, (int32_t)id, &n);

			buf_reset(&word);
			if (s && vocab_find(b->vocab, s, n) == (int32_t)id && byte_alphabet_decode(s, n, &word) && word.len > 0)
				vocab_add(&b->raw_words, (int32_t)id, word.data, word.len);
		}
		buf_release(&word);
	}
	if (!b->merges)
		bpe_merges_reserve(b, 0);
	find_adjacent(b);
}
