/* root_hash.c: two batches of records: one is filled while the other is hashed. */
#include "queue/root_hash.h"

#include <stdlib.h>
#include <string.h>

#include "base/aside.h"
#include "base/buf.h"
#include "base/mem.h"
#include "queue/job_private.h"

#define BATCH_BYTES ((size_t)1 << 18)

struct item { /* its line is the next n bytes of the batch's text */
	unsigned char row[32], kind;
	size_t n;
};

struct batch {
	struct buf text;
	struct item *items;
	size_t n_items, cap;
};

struct root_hash {
	struct sha256 *sha; /* the thread's while it is at a batch */
	struct aside *aside;
	struct batch batches[2];
	int filling, hashing; /* which batch */
};

struct root_hash *root_hash_new(struct err *err)
{
	struct aside *a = aside_new(err);
	struct root_hash *h;

	if (!a)
		return NULL;
	h = xcalloc(1, sizeof(*h));
	h->aside = a;
	h->sha = sha256_new();
	return h;
}

void root_hash_free(struct root_hash *h)
{
	char hex[SHA256_HEX_BYTES];

	if (h)
		root_hash_finish(h, hex);
}

static void hash_batch(void *arg)
{
	struct root_hash *h = arg;
	struct batch *b = &h->batches[h->hashing];
	const char *line = buf_str(&b->text);
	unsigned char hash[32];

	for (size_t i = 0; i < b->n_items; i++) {
		const struct item *it = &b->items[i];

		sha256_bytes(line, it->n, hash);
		sha256_add(h->sha, it->row, 32);
		sha256_add(h->sha, &it->kind, 1);
		sha256_add(h->sha, hash, 32);
		line += it->n;
	}
	b->n_items = 0;
	buf_reset(&b->text);
}

static void hand_over(struct root_hash *h)
{
	aside_wait(h->aside);
	h->hashing = h->filling;
	h->filling = !h->filling;
	aside_start(h->aside, hash_batch, h);
}

void root_hash_add(struct root_hash *h, const unsigned char row[32], int is_error, const char *line, size_t n)
{
	struct batch *b = &h->batches[h->filling];
	struct item *it;

	MEM_GROW(b->items, b->cap, b->n_items + 1);
	it = &b->items[b->n_items++];
	memcpy(it->row, row, 32);
	it->kind = is_error != 0;
	it->n = n;
	buf_add(&b->text, line, n);
	if (b->text.len >= BATCH_BYTES)
		hand_over(h);
}

void root_hash_finish(struct root_hash *h, char hex[SHA256_HEX_BYTES])
{
	hand_over(h);
	aside_free(h->aside);
	sha256_finish(h->sha, hex);
	for (int i = 0; i < 2; i++) {
		buf_release(&h->batches[i].text);
		free(h->batches[i].items);
	}
	free(h);
}
