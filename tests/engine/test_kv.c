/* Tests of kv.c: matching, sharing, eviction order, and thousands of random operations with kv_check after each. */
#include "engine/kv.h"
#include "tests/check.h"

static void ids_of(int32_t *ids, int n_blocks, int first)
{
	for (int i = 0; i < n_blocks * KV_BLOCK_TOKENS; i++)
		ids[i] = first + i;
}

TEST(match_and_share)
{
	struct kv_pool *p = kv_pool_new(8, 1);
	int32_t ids[4 * KV_BLOCK_TOKENS], a[4], b[4];

	ids_of(ids, 4, 100);
	for (int i = 0; i < 3; i++)
		a[i] = kv_pool_alloc(p);
	CHECK_INT(kv_tree_insert(p, ids, 0, 3, 1, a), 3);
	kv_check(p);
	CHECK_INT(kv_tree_peek(p, ids, 4), 3);
	CHECK_INT(kv_tree_match(p, ids, 4, b), 3);
	CHECK_INT(b[2], a[2]);
	CHECK_INT(kv_tree_match(p, ids, 2, b), 2);
	kv_pool_unref(p, b[1]);
	kv_pool_unref(p, b[0]);
	ids[KV_BLOCK_TOKENS] = -1;
	CHECK_INT(kv_tree_peek(p, ids, 4), 1);
	kv_check(p);
	kv_pool_free(p);
}

TEST(doubles_are_merged)
{
	struct kv_pool *p = kv_pool_new(8, 1);
	int32_t ids[2 * KV_BLOCK_TOKENS], a[2], b[2];

	ids_of(ids, 2, 7);
	for (int i = 0; i < 2; i++) {
		a[i] = kv_pool_alloc(p);
		b[i] = kv_pool_alloc(p);
	}
	CHECK_INT(kv_tree_insert(p, ids, 0, 2, 1, a), 2);
	/* Content that is still being written must not be replaced. */
	CHECK_INT(kv_tree_insert(p, ids, 0, 2, 0, b), 0);
	CHECK_INT(kv_pool_available(p), 4);
	CHECK_INT(kv_tree_insert(p, ids, 0, 2, 1, b), 2);
	CHECK_INT(b[0], a[0]);
	CHECK_INT(kv_pool_available(p), 6);
	kv_check(p);
	kv_pool_free(p);
}

TEST(leaves_go_first_and_oldest_first)
{
	struct kv_pool *p = kv_pool_new(4, 1);
	int32_t ids[2 * KV_BLOCK_TOKENS], other[2 * KV_BLOCK_TOKENS], a[2], b[2];

	ids_of(ids, 2, 0);
	ids_of(other, 2, 1000);
	for (int i = 0; i < 2; i++)
		a[i] = kv_pool_alloc(p);
	kv_tree_insert(p, ids, 0, 2, 1, a);
	kv_pool_unref(p, a[1]);
	kv_pool_unref(p, a[0]);
	for (int i = 0; i < 2; i++)
		b[i] = kv_pool_alloc(p);
	kv_tree_insert(p, other, 0, 2, 1, b);
	kv_pool_unref(p, b[1]);
	kv_pool_unref(p, b[0]);
	CHECK_INT(kv_pool_available(p), 4);
	CHECK(kv_pool_alloc(p) >= 0);
	kv_check(p);
	CHECK_INT(kv_tree_peek(p, ids, 2), 1);   /* its leaf is gone */
	CHECK_INT(kv_tree_peek(p, other, 2), 2);
	CHECK(kv_pool_alloc(p) >= 0);
	CHECK_INT(kv_tree_peek(p, ids, 2), 0);
	CHECK(kv_pool_alloc(p) >= 0);
	CHECK(kv_pool_alloc(p) >= 0);
	CHECK_INT(kv_pool_alloc(p), -1);
	kv_check(p);
	kv_pool_free(p);
}

enum { N_HELD = 12, N_LONGEST = 6 };

TEST(random_operations)
{
	struct kv_pool *p = kv_pool_new(40, 1);
	struct {
		int32_t ids[N_LONGEST * KV_BLOCK_TOKENS], blocks[N_LONGEST];
		int n, in_tree;
	} held[N_HELD];
	unsigned seed = 1;

	memset(held, 0, sizeof(held));
	for (int step = 0; step < 20000; step++) {
		int k = rand_r(&seed) % N_HELD;

		if (held[k].n == 0) {
			/* Few symbols: many common prefixes. */
			int n = 1 + rand_r(&seed) % N_LONGEST;

			for (int i = 0; i < n; i++)
				ids_of(held[k].ids + i * KV_BLOCK_TOKENS, 1, rand_r(&seed) % 2);
			held[k].in_tree = held[k].n = kv_tree_match(p, held[k].ids, n, held[k].blocks);
			while (held[k].n < n) {
				int32_t b = kv_pool_alloc(p);

				if (b < 0)
					break;
				held[k].blocks[held[k].n++] = b;
			}
		} else if (rand_r(&seed) % 2) {
			int n = held[k].in_tree + rand_r(&seed) % (held[k].n - held[k].in_tree + 1);

			held[k].in_tree = kv_tree_insert(p, held[k].ids, held[k].in_tree, n, rand_r(&seed) % 2, held[k].blocks);
		} else {
			while (held[k].n > 0)
				kv_pool_unref(p, held[k].blocks[--held[k].n]);
			held[k].in_tree = 0;
		}
		kv_check(p);
	}
	for (int k = 0; k < N_HELD; k++)
		while (held[k].n > 0)
			kv_pool_unref(p, held[k].blocks[--held[k].n]);
	kv_check(p);
	CHECK_INT(kv_pool_available(p), 40);
	kv_pool_free(p);
}

int main(void)
{
	RUN(match_and_share);
	RUN(doubles_are_merged);
	RUN(leaves_go_first_and_oldest_first);
	RUN(random_operations);
	return TEST_RESULT();
}
