/* schedule.h: which sequences run in a step, and with how many of their tokens.
 *
 * A sequence is a list of tokens and a few counters. Prefill, chunks, prefix hits and decode are arithmetic on them, not modes:
 *
 *     tokens:  [ ............ computed ............ | ... scheduled ... | ..... later ..... ]
 *              0                              n_computed   + n_scheduled                n_tokens
 *
 * A prefix hit starts n_computed at the end of the shared blocks. A sequence whose scheduled run reaches n_tokens gets its next token
 * sampled and appended: from then on one token is pending in each step, which is decode. Preempting is giving the blocks back,
 * n_computed = 0, and going to the head of the queue.
 *
 *     waiting --admit--> running --(scheduler_commit, token appended)*--> scheduler_finish
 *        ^                  |
 *        +----- preempt ----+   when memory is out: the one admitted last
 *
 * A step takes first all running sequences in order of admission (each decode its one token, prefills what the token budget leaves), then
 * admits waiting ones in order, as long as there are budget, places in the batch, and memory for what the running ones are expected to
 * grow to. One thread.
 */
#ifndef TOKENMILL_ENGINE_SCHEDULE_H
#define TOKENMILL_ENGINE_SCHEDULE_H

#include <stddef.h>
#include <stdint.h>

#include "engine/kv.h"

struct sequence {
	struct sequence *prev, *next; /* in the waiting or running list */
	int32_t *tokens;              /* [n_tokens] prompt and output; owned */
	int32_t n_tokens, tokens_cap, n_prompt;
	int32_t max_total;            /* n_tokens never exceeds this */
	int32_t n_computed;           /* keys and values of so many tokens are in the cache */
	int32_t n_scheduled;          /* tokens of the step in progress */
	int32_t *blocks;              /* [n_blocks] KV blocks, a reference each; owned */
	int32_t n_blocks, blocks_cap;
	int32_t n_tree_blocks;        /* the first so many are in the radix tree */
	int32_t n_cached;             /* prompt tokens that a prefix hit gave at the first admission */
	int32_t n_recomputed;         /* tokens computed again after preemptions */
	int32_t n_computed_before;    /* n_computed at the last preemption */
	int was_admitted;
};

struct scheduler;

/* chunk_tokens >= max_batch. The pool is borrowed. */
struct scheduler *scheduler_new(struct kv_pool *pool, int32_t max_batch, int32_t chunk_tokens);
/* Frees the scheduler; sequences still in it give back their blocks but remain the caller's. */
void scheduler_free(struct scheduler *s);

/* seq->tokens .. max_total are set, the rest is zero. max_total must fit the pool: blocks for max_total tokens <= kv_pool_n_blocks. */
void scheduler_add(struct scheduler *s, struct sequence *seq);

/* Lay out a step: the sequences with n_scheduled > 0, in batch order; *seqs is borrowed until the next call. Returns how many;
 * 0 only when nothing is waiting or running. Keys and values of a sequence's earlier blocks may be filled by another one in this step. */
int32_t scheduler_step(struct scheduler *s, struct sequence ***seqs);
/* The step is computed: n_computed += n_scheduled. */
void scheduler_commit(struct scheduler *s);
void sequence_append(struct sequence *seq, int32_t token);
/* The sequence is complete: leaves the running list, its blocks go back (prompt blocks stay cached). */
void scheduler_finish(struct scheduler *s, struct sequence *seq);
/* Take out a sequence that is waiting or running, for whatever reason. */
void scheduler_remove(struct scheduler *s, struct sequence *seq);

size_t scheduler_n_waiting(const struct scheduler *s);
size_t scheduler_n_running(const struct scheduler *s);
uint64_t scheduler_n_preemptions(const struct scheduler *s);
/* All sequences, the running ones first; NULL at the end. */
struct sequence *scheduler_first(const struct scheduler *s);
struct sequence *scheduler_after(const struct scheduler *s, const struct sequence *seq);
void scheduler_check(const struct scheduler *s); /* BUG()s on a broken invariant, kv_check included */

#endif
