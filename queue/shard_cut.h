/* shard_cut.h: rows in prefix order are cut into shards of about equal cost, and each shard's rows are put into the order in which they run.
 *
 *     rows     a a a a a a | b b b b c c c c | d d ...      letters: groups that share a prefix
 *     cost     ....2...1.1 | ...
 *     cut      where the cost so far is within an eighth of the shard's target, at the place where neighbours share least
 *
 * All shards have the same target but for the last quarter of eight or more: those shrink down to a quarter, so that workers that end together
 * have little left to wait for. What a shard took too much or too little is shared out over all that follow.
 *
 * In a shard the rows stay in the order of their common prefixes, seen as a tree, but the branches are run in the order of their longest row:
 *
 *     root -+- [system prompt] -+- [question A]  cost 3           A before B, and both before C: the branch with the
 *           |                   +- [question B]  cost 2           longest row goes first, its rows stay together
 *           +- [question C]  cost 2.5
 *
 * Pure functions, one thread. */
#ifndef TOKENMILL_QUEUE_SHARD_CUT_H
#define TOKENMILL_QUEUE_SHARD_CUT_H

#include <stddef.h>
#include <stdint.h>

struct shard_cut {
	int64_t n_shards, next;    /* shards in all; the next one to be cut */
	int64_t rows_left;
	double cost_left, weight_left;
	double target;             /* of the next shard */
	int64_t max_rows;          /* of the next shard, so that no later one stays empty */
};

/* n_shards from 1 to n_rows. */
void shard_cut_init(struct shard_cut *c, int64_t n_shards, int64_t n_rows, double cost);
/* Are rows of this cost enough to decide where the next shard ends? The last shard takes all that is left. */
int shard_cut_is_ready(const struct shard_cut *c, int64_t n_rows, double cost);
/* How many of the next n rows the next shard gets, 1 to n. costs[i]: of row i; shared[i]: units of prefix that row i shares with row i - 1
 * (shared[0] is not looked at). The first n_fixed rows, of cost fixed_cost in all, are in it already and stand before row 0; with some of these 0
 * is an answer, too. */
size_t shard_cut_choose(const struct shard_cut *c, const double *costs, const uint32_t *shared, size_t n, int64_t n_fixed, double fixed_cost);
/* The next shard is cut. */
void shard_cut_advance(struct shard_cut *c, int64_t n_rows, double cost);

/* order[k]: which of the n rows runs as the k-th. */
void shard_order(const double *costs, const uint32_t *shared, size_t n, uint32_t *order);

#endif
