/* kv.c: block pool and radix tree. A tree node is its block: all node fields are arrays indexed by block id, and a hash table
 * finds the child of (parent, ids). Blocks that only the tree holds and that have no child are on a list, oldest
 * first, from which eviction takes. */
#include "engine/kv.h"

#include <stdlib.h>
#include <string.h>

#include "base/errors.h"
#include "base/hash.h"
#include "base/mem.h"

enum { NONE = -1 };

struct node {
	int32_t ids[KV_BLOCK_TOKENS];
	int32_t refs;       /* holders, the tree included; 0: free */
	int32_t in_tree;
	int32_t parent;     /* NONE: child of the root */
	int32_t n_children;
	int32_t older, newer; /* neighbours in the list of evictable leaves */
	int32_t listed;
	int32_t hash_next;  /* chain of the hash bucket */
	uint64_t last_used;
};

struct kv_pool {
	int32_t n_blocks;
	int use_tree;
	struct node *nodes;  /* [n_blocks] */
	int32_t *free_blocks; /* stack */
	int32_t n_free;
	int32_t n_cached;    /* blocks that only the tree holds */
	int32_t *buckets;    /* [n_buckets] heads of hash chains */
	uint32_t n_buckets;  /* power of two */
	int32_t oldest, newest;
	uint64_t now;        /* counts matches and releases: recency */
};

struct kv_pool *kv_pool_new(int32_t n_blocks, int use_tree)
{
	struct kv_pool *p = xcalloc(1, sizeof(*p));

	p->n_blocks = n_blocks;
	p->use_tree = use_tree;
	p->nodes = xcalloc((size_t)n_blocks, sizeof(*p->nodes));
	p->free_blocks = xreallocarray(NULL, (size_t)n_blocks, sizeof(*p->free_blocks));
	/* Low ids are given out first: the pages of an idle part of the pool are never touched. */
	for (int32_t i = 0; i < n_blocks; i++)
		p->free_blocks[i] = n_blocks - 1 - i;
	p->n_free = n_blocks;
	p->n_buckets = 16;
	while (p->n_buckets < (uint32_t)n_blocks)
		p->n_buckets *= 2;
	p->buckets = xreallocarray(NULL, p->n_buckets, sizeof(*p->buckets));
	for (uint32_t i = 0; i < p->n_buckets; i++)
		p->buckets[i] = NONE;
	p->oldest = p->newest = NONE;
	return p;
}

void kv_pool_free(struct kv_pool *p)
{
	if (!p)
		return;
	free(p->nodes);
	free(p->free_blocks);
	free(p->buckets);
	free(p);
}

static int32_t *bucket_of(const struct kv_pool *p, int32_t parent, const int32_t *ids)
{
	uint64_t h = hash64(ids, KV_BLOCK_TOKENS * sizeof(*ids), (uint64_t)(uint32_t)parent + 1);

	return &p->buckets[h & (p->n_buckets - 1)];
}

static int32_t child_find(const struct kv_pool *p, int32_t parent, const int32_t *ids)
{
	for (int32_t b = *bucket_of(p, parent, ids); b != NONE; b = p->nodes[b].hash_next)
		if (p->nodes[b].parent == parent && memcmp(p->nodes[b].ids, ids, sizeof(p->nodes[b].ids)) == 0)
			return b;
	return NONE;
}

static void list_remove(struct kv_pool *p, int32_t b)
{
	struct node *n = &p->nodes[b];

	if (!n->listed)
		return;
	if (n->older == NONE)
		p->oldest = n->newer;
	else
		p->nodes[n->older].newer = n->newer;
	if (n->newer == NONE)
		p->newest = n->older;
	else
		p->nodes[n->newer].older = n->older;
	n->listed = 0;
}

/* In order of last use. A block is mostly released at its newest moment, so the search starts at the newest end; a parent whose
 * last child was evicted belongs near the oldest end, and its age says where. */
static void list_insert(struct kv_pool *p, int32_t b)
{
	struct node *n = &p->nodes[b];
	int32_t older = p->newest;

	if (older != NONE && p->nodes[older].last_used > n->last_used) {
		int32_t newer = p->oldest;

		older = NONE;
		while (newer != NONE && p->nodes[newer].last_used <= n->last_used) {
			older = newer;
			newer = p->nodes[newer].newer;
		}
	}
	n->older = older;
	n->newer = older == NONE ? p->oldest : p->nodes[older].newer;
	if (n->older == NONE)
		p->oldest = b;
	else
		p->nodes[n->older].newer = b;
	if (n->newer == NONE)
		p->newest = b;
	else
		p->nodes[n->newer].older = b;
	n->listed = 1;
}

static void list_update(struct kv_pool *p, int32_t b)
{
	struct node *n = &p->nodes[b];
	int evictable = n->in_tree && n->refs == 1 && n->n_children == 0;

	if (evictable && !n->listed)
		list_insert(p, b);
	else if (!evictable)
		list_remove(p, b);
}

/* Take the oldest leaf out of the tree; it becomes free. */
static void evict_one(struct kv_pool *p)
{
	int32_t b = p->oldest, *link;
	struct node *n;

	if (b == NONE)
		BUG("%d blocks are cached but none is a leaf", p->n_cached);
	n = &p->nodes[b];
	list_remove(p, b);
	for (link = bucket_of(p, n->parent, n->ids); *link != b; link = &p->nodes[*link].hash_next)
		;
	*link = n->hash_next;
	n->in_tree = 0;
	n->refs = 0;
	p->n_cached--;
	p->free_blocks[p->n_free++] = b;
	if (n->parent != NONE) {
		p->nodes[n->parent].n_children--;
		list_update(p, n->parent);
	}
}

int32_t kv_pool_alloc(struct kv_pool *p)
{
	int32_t b;

	if (p->n_free == 0) {
		if (p->n_cached == 0)
			return NONE;
		evict_one(p);
	}
	b = p->free_blocks[--p->n_free];
	p->nodes[b] = (struct node){.refs = 1, .parent = NONE, .older = NONE, .newer = NONE, .hash_next = NONE};
	return b;
}

void kv_pool_ref(struct kv_pool *p, int32_t block)
{
	struct node *n = &p->nodes[block];

	if (n->in_tree && n->refs == 1)
		p->n_cached--;
	n->refs++;
	list_update(p, block);
}

void kv_pool_unref(struct kv_pool *p, int32_t block)
{
	struct node *n = &p->nodes[block];

	if (n->refs <= n->in_tree)
		BUG("block %d is released once too often", block);
	n->refs--;
	if (n->refs == 0) {
		p->free_blocks[p->n_free++] = block;
	} else if (n->in_tree && n->refs == 1) {
		p->n_cached++;
		n->last_used = ++p->now;
		list_update(p, block);
	}
}

int32_t kv_pool_available(const struct kv_pool *p)
{
	return p->n_free + p->n_cached;
}

int32_t kv_pool_n_blocks(const struct kv_pool *p)
{
	return p->n_blocks;
}

int32_t kv_tree_match(struct kv_pool *p, const int32_t *ids, int32_t max_blocks, int32_t *blocks)
{
	int32_t n = 0, parent = NONE;

	for (; p->use_tree && n < max_blocks; n++) {
		int32_t b = child_find(p, parent, ids + (size_t)n * KV_BLOCK_TOKENS);

		if (b == NONE)
			break;
		kv_pool_ref(p, b);
		p->nodes[b].last_used = ++p->now;
		blocks[n] = parent = b;
	}
	return n;
}

int32_t kv_tree_peek(const struct kv_pool *p, const int32_t *ids, int32_t max_blocks)
{
	int32_t n = 0, parent = NONE;

	for (; p->use_tree && n < max_blocks; n++) {
		parent = child_find(p, parent, ids + (size_t)n * KV_BLOCK_TOKENS);
		if (parent == NONE)
			break;
	}
	return n;
}

int32_t kv_tree_insert(struct kv_pool *p, const int32_t *ids, int32_t n_known, int32_t n_blocks, int may_replace, int32_t *blocks)
{
	int32_t parent = n_known > 0 ? blocks[n_known - 1] : NONE;

	if (!p->use_tree)
		return 0;
	for (int32_t i = n_known; i < n_blocks; i++) {
		const int32_t *key = ids + (size_t)i * KV_BLOCK_TOKENS;
		int32_t there = child_find(p, parent, key);

		if (there == NONE) {
			struct node *n = &p->nodes[blocks[i]];
			int32_t *head = bucket_of(p, parent, key);

			if (n->in_tree)
				BUG("block %d is in the tree under another key", blocks[i]);
			memcpy(n->ids, key, sizeof(n->ids));
			n->in_tree = 1;
			n->refs++;
			n->parent = parent;
			n->last_used = ++p->now;
			n->hash_next = *head;
			*head = blocks[i];
			if (parent != NONE) {
				p->nodes[parent].n_children++;
				list_update(p, parent);
			}
		} else if (there != blocks[i]) {
			if (!may_replace)
				return i;
			kv_pool_ref(p, there);
			kv_pool_unref(p, blocks[i]);
			blocks[i] = there;
		}
		parent = blocks[i];
	}
	return n_blocks;
}

void kv_check(const struct kv_pool *p)
{
	int32_t n_free = 0, n_cached = 0, n_listed = 0, n_hashed = 0, n_in_tree = 0;
	int32_t *children = xcalloc((size_t)p->n_blocks, sizeof(*children));
	uint64_t last = 0;

	for (int32_t b = 0; b < p->n_blocks; b++) {
		const struct node *n = &p->nodes[b];

		n_free += n->refs == 0;
		n_in_tree += n->in_tree;
		n_cached += n->in_tree && n->refs == 1;
		if (n->in_tree && n->parent != NONE) {
			children[n->parent]++;
			if (!p->nodes[n->parent].in_tree)
				BUG("block %d: parent %d is not in the tree", b, n->parent);
			if (n->refs > 1 && p->nodes[n->parent].refs < 2)
				BUG("block %d is held but its parent %d is not", b, n->parent);
		}
		if (n->in_tree && child_find(p, n->parent, n->ids) != b)
			BUG("block %d is not found under its key", b);
	}
	for (int32_t b = 0; b < p->n_blocks; b++) {
		const struct node *n = &p->nodes[b];

		if (n->in_tree && children[b] != n->n_children)
			BUG("block %d counts %d children, has %d", b, n->n_children, children[b]);
		if (n->listed != (n->in_tree && n->refs == 1 && n->n_children == 0))
			BUG("block %d: wrongly %s the eviction list", b, n->listed ? "on" : "off");
	}
	for (uint32_t i = 0; i < p->n_buckets; i++)
		for (int32_t b = p->buckets[i]; b != NONE; b = p->nodes[b].hash_next)
			n_hashed++;
	for (int32_t b = p->oldest; b != NONE; b = p->nodes[b].newer) {
		n_listed++;
		if (p->nodes[b].last_used < last)
			BUG("the eviction list is out of order at block %d", b);
		last = p->nodes[b].last_used;
	}
	if (n_free != p->n_free || n_cached != p->n_cached || n_hashed != n_in_tree)
		BUG("counts: free %d/%d, cached %d/%d, hashed %d/%d, listed %d", n_free, p->n_free, n_cached, p->n_cached, n_hashed, n_in_tree, n_listed);
	free(children);
}
