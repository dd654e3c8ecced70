/* bpe.c: one word to tokens: the pair of lowest rank is merged first, the leftmost of equals, until no pair is left.
 *
 * Short words are merged in a small array: finding the best pair is a scan. Long ones use a doubly linked list and a heap, so
 * that a word of a million letters costs n log n. A heap entry is stale when its place has another rank by now. Before that, a
 * long word is cut wherever two characters meet that never stand side by side inside a token: no merge can reach across.
 */
#include <stdlib.h>

#include "base/mem.h"
#include "engine/text/tokenizer_private.h"

#define SMALL_WORD 48 /* symbols */
#define CUT_FROM 32   /* bytes: shorter words are not worth cutting */

void bpe_scratch_init(struct bpe_scratch *s)
{
	*s = (struct bpe_scratch){.cache = word_cache_new()};
}

void bpe_scratch_release(struct bpe_scratch *s)
{
	free(s->symbols);
	free(s->heap);
	word_cache_free(s->cache);
}

static inline void add_symbol(struct bpe_scratch *s, size_t *n, int32_t id)
{
	MEM_GROW(s->symbols, s->cap_symbols, *n + 1);
	s->symbols[(*n)++].id = id;
}

/* The character's symbol; -1: there is none. */
static int32_t find_symbol(const struct bpe *b, const char *p, size_t size)
{
	int32_t id;

	if (size == 1)
		id = b->ascii_ids[(unsigned char)*p];
	else
		id = vocab_find(b->vocab, p, size);
	if (id < 0 && b->by_score) {
		id = vocab_find(&b->extra, p, size);
		if (id >= 0)
			id += b->n_tokens;
	}
	return id;
}

/* A character that is no token: its bytes' tokens. 0 when not all of them exist. */
static int add_fallback(const struct bpe *b, struct bpe_scratch *s, size_t *n, const char *p, size_t size)
{
	char bytes[4];

	if (b->by_score) {
		for (size_t i = 0; i < size; i++)
			add_symbol(s, n, b->first_byte + (unsigned char)p[i]);
		return 1;
	}
	if (!b->byte_fallback)
		return 0;
	if (b->raw) {
		size = utf8_put(byte_alphabet_char((unsigned char)*p), bytes);
		p = bytes;
	}
	for (size_t i = 0; i < size; i++)
		if (b->fallback_ids[(unsigned char)p[i]] < 0)
			return 0;
	for (size_t i = 0; i < size; i++)
		add_symbol(s, n, b->fallback_ids[(unsigned char)p[i]]);
	return 1;
}

/* The symbols of the word's characters. An unknown token waits until a known character follows or the word ends, past any byte
 * tokens in between: so does the tokenizers package. */
static int make_symbols(const struct bpe *b, struct bpe_scratch *s, const char *word, size_t len, size_t *n, struct err *err)
{
	int waiting = 0;

	*n = 0;
	for (size_t i = 0, size; i < len; i += size) {
		int32_t id;

		size = b->raw ? 1 : utf8_size((unsigned char)word[i]);
		id = find_symbol(b, word + i, size);
		if (id >= 0) {
			if (waiting)
				add_symbol(s, n, b->unk_id);
			waiting = 0;
			add_symbol(s, n, id);
			continue;
		}
		if (add_fallback(b, s, n, word + i, size))
			continue;
		if (b->unk_is_missing)
			return err_set(err, ERR_ROW, "text has a character that is not in the vocabulary, nor is the unknown token");
		if (b->unk_id < 0)
			continue;
		if (waiting && !b->fuse_unk)
			add_symbol(s, n, b->unk_id);
		waiting = 1;
	}
	if (waiting)
		add_symbol(s, n, b->unk_id);
	return 0;
}

static void add_id(const struct bpe *b, struct token_list *out, int32_t id)
{
	const char *text;
	size_t n;
	char byte;

	if (!b->by_score || id < b->n_tokens) {
		token_list_add(out, id);
		return;
	}
	if (id >= b->first_byte) {
		byte = (char)(id - b->first_byte);
		text = &byte;
		n = 1;
	} else {
		text = vocab_text(&b->extra, id - b->n_tokens, &n);
	}
	for (size_t i = 0; i < n; i++) {
		int32_t fallback = b->fallback_ids[(unsigned char)text[i]];

		if (fallback < 0)
			fallback = b->unk_id;
		if (fallback >= 0)
			token_list_add(out, fallback);
	}
}

static inline void set_pair(const struct bpe *b, int32_t left, int32_t right, uint32_t *rank, int32_t *merged)
{
	const struct bpe_merge *m = bpe_find_merge(b, (uint32_t)left, (uint32_t)right);

	*rank = m ? m->rank : UINT32_MAX;
	*merged = m ? m->id : -1;
}

static void merge_small(const struct bpe *b, const struct bpe_symbol *symbols, size_t n, struct token_list *out)
{
	int32_t ids[SMALL_WORD], merged[SMALL_WORD];
	uint32_t rank[SMALL_WORD];

	for (size_t i = 0; i < n; i++)
		ids[i] = symbols[i].id;
	for (size_t i = 0; i + 1 < n; i++)
		set_pair(b, ids[i], ids[i + 1], &rank[i], &merged[i]);
	rank[n - 1] = UINT32_MAX;
	merged[n - 1] = -1;
	while (n > 1) {
		size_t best = 0;

		for (size_t i = 1; i + 1 < n; i++)
			if (rank[i] < rank[best])
				best = i;
		if (rank[best] == UINT32_MAX)
			break;
		ids[best] = merged[best];
		n--;
		for (size_t i = best + 1; i < n; i++) {
			ids[i] = ids[i + 1];
			rank[i] = rank[i + 1];
			merged[i] = merged[i + 1];
		}
		if (best + 1 < n)
			set_pair(b, ids[best], ids[best + 1], &rank[best], &merged[best]);
		if (best > 0)
			set_pair(b, ids[best - 1], ids[best], &rank[best - 1], &merged[best - 1]);
	}
	for (size_t i = 0; i < n; i++)
		add_id(b, out, ids[i]);
}

static void heap_push(uint64_t *heap, size_t *n, uint64_t key)
{
	size_t i = (*n)++;

	while (i > 0 && heap[(i - 1) / 4] > key) {
		heap[i] = heap[(i - 1) / 4];
		i = (i - 1) / 4;
	}
	heap[i] = key;
}

static uint64_t heap_pop(uint64_t *heap, size_t *n)
{
	uint64_t top = heap[0], last = heap[--*n];
	size_t i = 0;

	for (;;) {
		size_t child = 4 * i + 1, least, end = child + 4 < *n ? child + 4 : *n;

		if (child >= *n)
			break;
		least = child;
		for (size_t c = child + 1; c < end; c++)
			if (heap[c] < heap[least])
				least = c;
		if (heap[least] >= last)
			break;
		heap[i] = heap[least];
		i = least;
	}
	if (*n > 0)
		heap[i] = last;
	return top;
}

static void merge_large(const struct bpe *b, struct bpe_scratch *s, size_t n, struct token_list *out)
{
	struct bpe_symbol *sym = s->symbols;
	size_t n_heap = 0;

	/* Each merge takes one symbol away and adds at most two pairs. */
	MEM_GROW(s->heap, s->cap_heap, 3 * n);
	for (size_t i = 0; i < n; i++) {
		sym[i].prev = (int32_t)i - 1;
		sym[i].next = i + 1 < n ? (int32_t)i + 1 : -1;
		sym[i].rank = UINT32_MAX;
		if (i + 1 < n)
			set_pair(b, sym[i].id, sym[i + 1].id, &sym[i].rank, &sym[i].merged);
		if (sym[i].rank != UINT32_MAX)
			heap_push(s->heap, &n_heap, (uint64_t)sym[i].rank << 32 | i);
	}
	while (n_heap > 0) {
		uint64_t top = heap_pop(s->heap, &n_heap);
		int32_t at = (int32_t)(top & 0xFFFFFFFFu), gone, prev;

		if (sym[at].rank != top >> 32)
			continue;
		gone = sym[at].next;
		sym[at].id = sym[at].merged;
		sym[at].next = sym[gone].next;
		sym[at].rank = UINT32_MAX;
		sym[gone].rank = UINT32_MAX;
		if (sym[at].next >= 0) {
			sym[sym[at].next].prev = at;
			set_pair(b, sym[at].id, sym[sym[at].next].id, &sym[at].rank, &sym[at].merged);
			if (sym[at].rank != UINT32_MAX)
				heap_push(s->heap, &n_heap, (uint64_t)sym[at].rank << 32 | (uint32_t)at);
		}
		prev = sym[at].prev;
		if (prev >= 0) {
			set_pair(b, sym[prev].id, sym[at].id, &sym[prev].rank, &sym[prev].merged);
			if (sym[prev].rank != UINT32_MAX)
				heap_push(s->heap, &n_heap, (uint64_t)sym[prev].rank << 32 | (uint32_t)prev);
		}
	}
	for (int32_t i = 0; i >= 0; i = sym[i].next)
		add_id(b, out, sym[i].id);
}

static int encode_part(const struct bpe *b, struct bpe_scratch *s, const char *word, size_t len, struct token_list *out,
                       struct err *err)
{
	size_t n, first = out->n;

	if (word_cache_find(s->cache, word, len, out))
		return 0;
	if (make_symbols(b, s, word, len, &n, err) != 0)
		return -1;
	if (n > SMALL_WORD)
		merge_large(b, s, n, out);
	else if (n > 0)
		merge_small(b, s->symbols, n, out);
	word_cache_add(s->cache, word, len, out->ids + first, out->n - first);
	return 0;
}

static inline int may_adjoin(const struct bpe *b, uint32_t left, uint32_t right)
{
	size_t bit = hash_pair(left, right);

	return b->adjacent[bit / 64] >> bit % 64 & 1;
}

int bpe_encode(const struct bpe *b, struct bpe_scratch *s, const char *word, size_t n, struct token_list *out, struct err *err)
{
	const unsigned char *p = (const unsigned char *)word;
	size_t from = 0, at, size;
	uint32_t left, right;

	if (b->ignore_merges) {
		int32_t id = vocab_find(b->raw ? &b->raw_words : b->vocab, word, n);

		if (id >= 0) {
			token_list_add(out, id);
			return 0;
		}
	}
	if (n < CUT_FROM || !b->can_cut)
		return encode_part(b, s, word, n, out, err);
	if (b->raw) {
		for (at = 1; at < n; at++) {
			if (may_adjoin(b, p[at - 1], p[at]))
				continue;
			if (encode_part(b, s, word + from, at - from, out, err) != 0)
				return -1;
			from = at;
		}
	} else {
		left = utf8_get(p, &size);
		for (at = size; at < n; at += size, left = right) {
			right = utf8_get(p + at, &size);
			if (may_adjoin(b, left, right))
				continue;
			if (encode_part(b, s, word + from, at - from, out, err) != 0)
				return -1;
			from = at;
		}
	}
	return encode_part(b, s, word + from, n - from, out, err);
}
