/* word_cache.c: the words of a text repeat, so most of them are looked up here instead of being merged again.
 *
 * Words of up to 15 bytes that became up to 4 tokens: a table of 32-byte entries, two to a cache line; a new word pushes the
 * first to second place. Words of up to 61 bytes and 16 tokens: one 128-byte entry for each hash. Entries carry the whole word,
 * so a hit is exact. 1.5 MiB in all, whatever the text.
 */
#include <stdlib.h>

#include "base/mem.h"
#include "engine/text/tokenizer_private.h"

#define N_SHORT (1u << 14) /* pairs */
#define N_LONG (1u << 12)
#define SHORT_BYTES 15
#define SHORT_IDS 4
#define LONG_BYTES 61
#define LONG_IDS 16

struct short_entry {
	uint64_t key[2];        /* the word, zeros, and its length in the last byte; 0 0 is free */
	int32_t ids[SHORT_IDS]; /* -1 after the last */
};
struct long_entry {
	unsigned char n, n_ids; /* n 0: free */
	char word[LONG_BYTES + 1];
	int32_t ids[LONG_IDS];
};
struct word_cache {
	_Alignas(64) struct short_entry shorts[N_SHORT][2];
	struct long_entry longs[N_LONG];
};

struct word_cache *word_cache_new(void)
{
	struct word_cache *c = aligned_alloc(64, sizeof(*c));

	if (!c)
		BUG("out of memory");
	memset(c, 0, sizeof(*c));
	return c;
}

void word_cache_free(struct word_cache *c)
{
	free(c);
}

static inline void make_key(const char *word, size_t n, uint64_t key[2])
{
	uint32_t a, b;

	if (n >= 8) {
		memcpy(&key[0], word, 8);
		memcpy(&key[1], word + n - 8, 8);
		key[1] = n == 8 ? 0 : key[1] >> 8 * (16 - n);
	} else {
		if (n >= 4) {
			memcpy(&a, word, 4);
			memcpy(&b, word + n - 4, 4);
			key[0] = a | (n == 4 ? 0 : (uint64_t)(b >> 8 * (8 - n)) << 32);
		} else {
			const unsigned char *p = (const unsigned char *)word;

			key[0] = p[0] | (uint64_t)p[n / 2] << 8 * (n / 2) | (uint64_t)p[n - 1] << 8 * (n - 1);
		}
		key[1] = 0;
	}
	key[1] |= (uint64_t)n << 56;
}

static inline size_t short_slot(const uint64_t key[2])
{
	uint64_t h = (key[0] ^ key[1] * 0x9E3779B97F4A7C15u) * 0xE7037ED1A0B428DBu;

	return (size_t)((h ^ h >> 29) * 0x9E3779B97F4A7C15u >> 50); /* 14 bits */
}

int word_cache_find(const struct word_cache *c, const char *word, size_t n, struct token_list *out)
{
	if (n <= SHORT_BYTES) {
		const struct short_entry *e;
		uint64_t key[2];

		make_key(word, n, key);
		e = c->shorts[short_slot(key)];
		if (e[0].key[0] != key[0] || e[0].key[1] != key[1]) {
			e++;
			if (e->key[0] != key[0] || e->key[1] != key[1])
				return 0;
		}
		MEM_GROW(out->ids, out->cap, out->n + SHORT_IDS);
		/* All four are copied, the count says how many hold. */
		memcpy(out->ids + out->n, e->ids, sizeof(e->ids));
		out->n += (size_t)(e->ids[0] >= 0) + (e->ids[1] >= 0) + (e->ids[2] >= 0) + (e->ids[3] >= 0);
		return 1;
	}
	if (n <= LONG_BYTES) {
		const struct long_entry *e = &c->longs[hash_text(word, n) & (N_LONG - 1)];

		if (e->n != n || memcmp(e->word, word, n) != 0)
			return 0;
		MEM_GROW(out->ids, out->cap, out->n + e->n_ids);
		memcpy(out->ids + out->n, e->ids, e->n_ids * sizeof(*e->ids));
		out->n += e->n_ids;
		return 1;
	}
	return 0;
}

void word_cache_add(struct word_cache *c, const char *word, size_t n, const int32_t *ids, size_t n_ids)
{
	if (n <= SHORT_BYTES && n_ids <= SHORT_IDS) {
		struct short_entry *e, made;

		make_key(word, n, made.key);
		for (size_t i = 0; i < SHORT_IDS; i++)
			made.ids[i] = i < n_ids ? ids[i] : -1;
		e = c->shorts[short_slot(made.key)];
		e[1] = e[0];
		e[0] = made;
	} else if (n > SHORT_BYTES && n <= LONG_BYTES && n_ids <= LONG_IDS) {
		struct long_entry *e = &c->longs[hash_text(word, n) & (N_LONG - 1)];

		e->n = (unsigned char)n;
		e->n_ids = (unsigned char)n_ids;
		memcpy(e->word, word, n);
		memcpy(e->ids, ids, n_ids * sizeof(*ids));
	}
}
