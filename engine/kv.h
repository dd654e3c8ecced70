/* kv.h: which sequence's keys and values lie where.
 *
 * The backend owns the memory, this module the accounting. Keys and values of a sequence are kept in blocks of KV_BLOCK_TOKENS
 * positions; a block is an id with a reference count, and nobody keeps a pointer into the pool across steps. Full blocks whose
 * content is known (the token ids from position 0 to the block's end) can be entered into the radix tree, from where a
 * later sequence with the same first tokens takes them over:
 *
 *     root -- [system prompt block 0] -- [block 1] -+- [question A block 2]
 *                                                   +- [question B block 2] -- [block 3]
 *
 * A tree node is one block keyed by its KV_BLOCK_TOKENS ids under its parent; the tree itself holds one reference. A block
 * with only the tree's reference is cached but evictable: leaves first, least recently used first.
 *
 *     free --kv_pool_alloc--> held (refs >= 1) --kv_tree_insert--> held + in tree --kv_pool_unref--> cached (tree only)
 *       ^                        |  kv_pool_unref                                                       |  eviction
 *       +------------------------+------------------------------------------------------------------+
 *
 * One thread (the scheduler's). kv_check verifies every invariant and is called after each random step in tests.
 */
#ifndef TOKENMILL_ENGINE_KV_H
#define TOKENMILL_ENGINE_KV_H

#include <stddef.h>
#include <stdint.h>

enum { KV_BLOCK_TOKENS = 16 };

struct kv_pool;

struct kv_pool *kv_pool_new(int32_t n_blocks, int use_tree); /* use_tree 0: nothing is ever shared or cached */
void kv_pool_free(struct kv_pool *p);

/* A block with one reference, evicting a cached one if none is free; -1 when all are held. */
int32_t kv_pool_alloc(struct kv_pool *p);
void kv_pool_ref(struct kv_pool *p, int32_t block);
void kv_pool_unref(struct kv_pool *p, int32_t block);
/* Blocks that kv_pool_alloc could still give: free ones and evictable ones. */
int32_t kv_pool_available(const struct kv_pool *p);
int32_t kv_pool_n_blocks(const struct kv_pool *p);

/* Longest cached prefix of the ids, whole blocks only, at most max_blocks: blocks[] is filled, each with one more
 * reference (the caller's). Returns how many. */
int32_t kv_tree_match(struct kv_pool *p, const int32_t *ids, int32_t max_blocks, int32_t *blocks);
/* As kv_tree_match without taking references or touching recency. */
int32_t kv_tree_peek(const struct kv_pool *p, const int32_t *ids, int32_t max_blocks);
/* Enter the full blocks n_known..n_blocks-1 of a sequence whose first n_known are in the tree. Returns how many of the n_blocks are
 * in the tree afterwards (0 where the pool has no tree).
 *
 * Content may still be on its way if it is computed in the step that is being laid out: in each layer all keys and values of a
 * step are stored before any attention of that step reads, so a sequence can share blocks that another one fills in the same step.
 * Where the tree has another block with the same content: with may_replace that one takes the place of ours in blocks[] and ours is
 * freed (only for content that is computed: two sequences must not write one block); without, entering stops there. */
int32_t kv_tree_insert(struct kv_pool *p, const int32_t *ids, int32_t n_known, int32_t n_blocks, int may_replace, int32_t *blocks);

void kv_check(const struct kv_pool *p); /* BUG()s on a broken invariant */

#endif
