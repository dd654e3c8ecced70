/* shard_cut.c: targets, cuts, and the order within a shard. */
#include "queue/shard_cut.h"

#include <math.h>
#include <stdlib.h>

#include "base/mem.h"

#define TOLERANCE 0.125
#define SMALLEST 0.25
enum { SHRINK_FROM = 8, SHRINK_PART = 4 };

static double weight(int64_t shard, int64_t n_shards)
{
	int64_t tail = n_shards / SHRINK_PART, into = shard - (n_shards - tail) + 1;

	if (n_shards < SHRINK_FROM || into <= 0)
		return 1;
	return 1 - (1 - SMALLEST) * (double)into / (double)tail;
}

static void set_target(struct shard_cut *c)
{
	if (c->next == c->n_shards)
		return;
	c->target = fmax(c->cost_left, 0) * weight(c->next, c->n_shards) / c->weight_left;
	c->max_rows = c->rows_left - (c->n_shards - c->next - 1);
}

void shard_cut_init(struct shard_cut *c, int64_t n_shards, int64_t n_rows, double cost)
{
	*c = (struct shard_cut){.n_shards = n_shards, .rows_left = n_rows, .cost_left = cost};
	for (int64_t i = 0; i < n_shards; i++)
		c->weight_left += weight(i, n_shards);
	set_target(c);
}

int shard_cut_is_ready(const struct shard_cut *c, int64_t n_rows, double cost)
{
	if (n_rows >= c->max_rows)
		return 1;
	return c->next < c->n_shards - 1 && cost > c->target * (1 + TOLERANCE);
}

size_t shard_cut_choose(const struct shard_cut *c, const double *costs, const uint32_t *shared, size_t n, int64_t n_fixed, double fixed_cost)
{
	size_t least = n_fixed ? 0 : 1, most = n, best;
	double cost = fixed_cost, best_distance = INFINITY;
	uint32_t best_shared = UINT32_MAX;
	int best_near = 0;

	if ((int64_t)most > c->max_rows - n_fixed)
		most = (size_t)(c->max_rows - n_fixed);
	best = most;
	if (c->next == c->n_shards - 1)
		return most;
	/* i rows: the cut is before row i. What the row after the last one shares is not known: as much as can be. */
	for (size_t i = 0; i <= most; i++) {
		double distance = fabs(cost - c->target);
		uint32_t here = i > 0 && i < n ? shared[i] : UINT32_MAX;
		int near = distance <= TOLERANCE * c->target;

		if (i >= least && (near > best_near || (near == best_near && near && here < best_shared) ||
		                   (near == best_near && (!near || here == best_shared) && distance < best_distance))) {
			best = i;
			best_near = near;
			best_shared = here;
			best_distance = distance;
		}
		if (i < most)
			cost += costs[i];
	}
	return best;
}

void shard_cut_advance(struct shard_cut *c, int64_t n_rows, double cost)
{
	c->weight_left -= weight(c->next, c->n_shards);
	c->rows_left -= n_rows;
	c->cost_left -= cost;
	c->next++;
	set_target(c);
}

/* ---- order ---- */

struct branch {
	size_t first, end;
	double longest;
};

struct ordering {
	const double *costs;
	const uint32_t *shared;
	uint32_t *order;
	size_t n;
};

static int by_longest(const void *pa, const void *pb)
{
	const struct branch *a = pa, *b = pb;

	if (a->longest != b->longest)
		return a->longest > b->longest ? -1 : 1;
	return (a->first > b->first) - (a->first < b->first);
}

/* Rows first .. end - 1 hang under one node. They part where they share least; in each branch every row shares more, so the recursion is no
 * deeper than prefixes are long. */
static void order_branch(struct ordering *o, size_t first, size_t end)
{
	struct branch *branches = NULL, b = {.first = first};
	size_t n = 0, cap = 0;
	uint32_t least = UINT32_MAX;

	if (end - first == 1) {
		o->order[o->n++] = (uint32_t)first;
		return;
	}
	for (size_t i = first + 1; i < end; i++)
		if (o->shared[i] < least)
			least = o->shared[i];
	for (size_t i = first; i < end; i++) {
		if (i > first && o->shared[i] == least) {
			b.end = i;
			MEM_GROW(branches, cap, n + 1);
			branches[n++] = b;
			b = (struct branch){.first = i};
		}
		if (o->costs[i] > b.longest)
			b.longest = o->costs[i];
	}
	b.end = end;
	MEM_GROW(branches, cap, n + 1);
	branches[n++] = b;
	qsort(branches, n, sizeof(*branches), by_longest);
	for (size_t i = 0; i < n; i++)
		order_branch(o, branches[i].first, branches[i].end);
	free(branches);
}

void shard_order(const double *costs, const uint32_t *shared, size_t n, uint32_t *order)
{
	struct ordering o = {costs, shared, order, 0};

	if (n > 0)
		order_branch(&o, 0, n);
}
