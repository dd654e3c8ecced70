/* schedule.c: continuous batching over a queue of sequences. */
#include "engine/schedule.h"

#include <stdlib.h>

#include "base/errors.h"
#include "base/mem.h"

/* Before any sequence has finished, an answer is expected to grow by so many tokens (or its own limit). */
enum { FIRST_GUESS_OUTPUT = 256 };

struct list {
	struct sequence *first, *last;
	size_t n;
};

struct scheduler {
	struct kv_pool *pool;
	int32_t max_batch, chunk_tokens;
	struct list waiting, running; /* running: in order of admission */
	struct sequence **step;       /* [max_batch] of the step being laid out */
	int32_t n_step;
	int32_t budget;               /* tokens that the step can still take */
	uint64_t n_finished, finished_output;
	uint64_t n_preemptions;
};

static void list_add_last(struct list *l, struct sequence *q)
{
	q->next = NULL;
	q->prev = l->last;
	if (l->last)
		l->last->next = q;
	else
		l->first = q;
	l->last = q;
	l->n++;
}

static void list_add_first(struct list *l, struct sequence *q)
{
	q->prev = NULL;
	q->next = l->first;
	if (l->first)
		l->first->prev = q;
	else
		l->last = q;
	l->first = q;
	l->n++;
}

static void list_take(struct list *l, struct sequence *q)
{
	if (q->prev)
		q->prev->next = q->next;
	else
		l->first = q->next;
	if (q->next)
		q->next->prev = q->prev;
	else
		l->last = q->prev;
	q->prev = q->next = NULL;
	l->n--;
}

static int32_t blocks_for(int32_t n_tokens)
{
	return (n_tokens + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS;
}

/* Of a sequence's prompt, the blocks that the tree may know: not the last token's, which always has to be computed for its logits. */
static int32_t shareable_blocks(int32_t n_tokens)
{
	return (n_tokens - 1) / KV_BLOCK_TOKENS;
}

struct scheduler *scheduler_new(struct kv_pool *pool, int32_t max_batch, int32_t chunk_tokens)
{
	struct scheduler *s = xcalloc(1, sizeof(*s));

	if (chunk_tokens < max_batch)
		BUG("a step of %d tokens cannot hold %d decodes", chunk_tokens, max_batch);
	s->pool = pool;
	s->max_batch = max_batch;
	s->chunk_tokens = chunk_tokens;
	s->step = xcalloc((size_t)max_batch, sizeof(*s->step));
	return s;
}

static void release_blocks(struct scheduler *s, struct sequence *q)
{
	for (int32_t i = q->n_blocks - 1; i >= 0; i--)
		kv_pool_unref(s->pool, q->blocks[i]);
	q->n_blocks = q->n_tree_blocks = 0;
}

void scheduler_free(struct scheduler *s)
{
	if (!s)
		return;
	for (struct sequence *q = s->running.first; q; q = q->next)
		release_blocks(s, q);
	free(s->step);
	free(s);
}

void scheduler_add(struct scheduler *s, struct sequence *q)
{
	if (q->n_tokens < 1 || q->n_prompt < 1 || q->max_total < q->n_tokens || blocks_for(q->max_total) > kv_pool_n_blocks(s->pool))
		BUG("sequence of %d tokens, at most %d, does not fit %d blocks", q->n_tokens, q->max_total, kv_pool_n_blocks(s->pool));
	list_add_last(&s->waiting, q);
}

/* Blocks that are computed may enter the tree, and there take the place of doubles. */
static void enter_computed(struct scheduler *s, struct sequence *q, int32_t n_tokens_known)
{
	int32_t n = q->n_computed / KV_BLOCK_TOKENS, most = shareable_blocks(n_tokens_known);

	if (n > most)
		n = most;
	if (n > q->n_tree_blocks)
		q->n_tree_blocks = kv_tree_insert(s->pool, q->tokens, q->n_tree_blocks, n, 1, q->blocks);
}

/* Blocks of the prompt that this step fills: whoever is admitted after us in this very step can share them. */
static void enter_scheduled(struct scheduler *s, struct sequence *q)
{
	int32_t n = (q->n_computed + q->n_scheduled) / KV_BLOCK_TOKENS, most = shareable_blocks(q->n_prompt);

	if (n > most)
		n = most;
	/* A double that is still unresolved further up keeps us out for this step. */
	if (n > q->n_tree_blocks)
		q->n_tree_blocks = kv_tree_insert(s->pool, q->tokens, q->n_tree_blocks, n, 0, q->blocks);
}

static void preempt(struct scheduler *s, struct sequence *q)
{
	enter_computed(s, q, q->n_tokens);
	release_blocks(s, q);
	if (q->n_computed > q->n_computed_before)
		q->n_computed_before = q->n_computed;
	q->n_computed = 0;
	list_take(&s->running, q);
	list_add_first(&s->waiting, q);
	s->n_preemptions++;
}

/* Blocks for n more tokens of q. When memory is out, those admitted last give way, q itself as the last resort. 0: q was preempted. */
static int grow(struct scheduler *s, struct sequence *q, int32_t n)
{
	int32_t need = blocks_for(q->n_computed + n);

	MEM_GROW(q->blocks, q->blocks_cap, need);
	while (q->n_blocks < need) {
		int32_t b = kv_pool_alloc(s->pool);

		if (b >= 0) {
			q->blocks[q->n_blocks++] = b;
		} else {
			struct sequence *victim = s->running.last;

			preempt(s, victim);
			if (victim == q)
				return 0;
		}
	}
	return 1;
}

static void schedule(struct scheduler *s, struct sequence *q, int32_t n)
{
	q->n_scheduled = n;
	s->budget -= n;
	s->step[s->n_step++] = q;
	enter_scheduled(s, q);
}

/* What the sequence will have grown to when it ends, as far as finished ones tell. */
static int32_t expected_total(const struct scheduler *s, const struct sequence *q)
{
	int64_t output = s->n_finished ? (int64_t)(s->finished_output / s->n_finished) * 5 / 4 + KV_BLOCK_TOKENS : FIRST_GUESS_OUTPUT;
	int64_t total = (int64_t)q->n_prompt + output;

	if (total < q->n_tokens + KV_BLOCK_TOKENS)
		total = q->n_tokens + KV_BLOCK_TOKENS;
	return total > q->max_total ? q->max_total : (int32_t)total;
}

static int64_t expected_growth(const struct scheduler *s)
{
	int64_t blocks = 0;

	for (const struct sequence *q = s->running.first; q; q = q->next) {
		int32_t total = blocks_for(expected_total(s, q));

		if (total > q->n_blocks)
			blocks += total - q->n_blocks;
	}
	return blocks;
}

/* Move the first waiting sequence to the running ones, starting at what the tree has of it. 0: no memory for it now. */
static int admit(struct scheduler *s)
{
	struct sequence *q = s->waiting.first;
	int32_t matched, total = blocks_for(expected_total(s, q));

	MEM_GROW(q->blocks, q->blocks_cap, total);
	matched = kv_tree_match(s->pool, q->tokens, shareable_blocks(q->n_tokens), q->blocks);
	/* With nothing else running it must go, whatever is expected: scheduler_add made sure that it can. */
	if (s->running.n > 0 && total - matched + expected_growth(s) > kv_pool_available(s->pool)) {
		for (int32_t i = matched - 1; i >= 0; i--)
			kv_pool_unref(s->pool, q->blocks[i]);
		return 0;
	}
	list_take(&s->waiting, q);
	list_add_last(&s->running, q);
	q->n_blocks = q->n_tree_blocks = matched;
	q->n_computed = matched * KV_BLOCK_TOKENS;
	if (!q->was_admitted)
		q->n_cached = q->n_computed < q->n_prompt ? q->n_computed : q->n_prompt;
	else if (q->n_computed_before > q->n_computed)
		q->n_recomputed += q->n_computed_before - q->n_computed;
	q->was_admitted = 1;
	return 1;
}

int32_t scheduler_step(struct scheduler *s, struct sequence ***seqs)
{
	int32_t n_decodes = 0;
	struct sequence *q, *next;

	s->n_step = 0;
	s->budget = s->chunk_tokens;
	for (q = s->running.first; q; q = q->next) {
		enter_computed(s, q, q->n_prompt);
		n_decodes += q->n_tokens - q->n_computed == 1;
	}
	for (q = s->running.first; q; q = next) {
		int32_t pending = q->n_tokens - q->n_computed, n = pending;

		/* Every decode behind us keeps its token. */
		if (pending == 1)
			n_decodes--;
		else if (n > s->budget - n_decodes)
			n = s->budget - n_decodes;
		if (n > 0 && grow(s, q, n)) {
			schedule(s, q, n);
			next = q->next;
		} else {
			/* Preempted: then everyone behind us was preempted before. Or no budget left. */
			next = n > 0 ? NULL : q->next;
		}
	}
	while (s->waiting.first && s->n_step < s->max_batch && s->running.n < (size_t)s->max_batch && s->budget > 0) {
		int32_t n;

		if (!admit(s))
			break;
		q = s->running.last;
		n = q->n_tokens - q->n_computed;
		if (n > s->budget)
			n = s->budget;
		if (!grow(s, q, n))
			break;
		schedule(s, q, n);
	}
	*seqs = s->step;
	return s->n_step;
}

void scheduler_commit(struct scheduler *s)
{
	for (int32_t i = 0; i < s->n_step; i++) {
		s->step[i]->n_computed += s->step[i]->n_scheduled;
		s->step[i]->n_scheduled = 0;
	}
	s->n_step = 0;
}

void sequence_append(struct sequence *q, int32_t token)
{
	MEM_GROW(q->tokens, q->tokens_cap, q->n_tokens + 1);
	q->tokens[q->n_tokens++] = token;
}

void scheduler_remove(struct scheduler *s, struct sequence *q)
{
	int running = 0;

	for (const struct sequence *r = s->running.first; r && !running; r = r->next)
		running = r == q;
	if (running)
		enter_computed(s, q, q->n_prompt);
	release_blocks(s, q);
	list_take(running ? &s->running : &s->waiting, q);
}

void scheduler_finish(struct scheduler *s, struct sequence *q)
{
	s->n_finished++;
	s->finished_output += (uint64_t)(q->n_tokens - q->n_prompt);
	scheduler_remove(s, q);
}

size_t scheduler_n_waiting(const struct scheduler *s)
{
	return s->waiting.n;
}

size_t scheduler_n_running(const struct scheduler *s)
{
	return s->running.n;
}

uint64_t scheduler_n_preemptions(const struct scheduler *s)
{
	return s->n_preemptions;
}

struct sequence *scheduler_first(const struct scheduler *s)
{
	return s->running.first ? s->running.first : s->waiting.first;
}

struct sequence *scheduler_after(const struct scheduler *s, const struct sequence *q)
{
	return q->next ? q->next : q == s->running.last ? s->waiting.first : NULL;
}

void scheduler_check(const struct scheduler *s)
{
	size_t n = 0;

	kv_check(s->pool);
	for (const struct sequence *q = s->running.first; q; q = q->next) {
		n++;
		if (q->n_computed + q->n_scheduled > q->n_tokens || q->n_tokens > q->max_total)
			BUG("sequence: %d computed + %d scheduled of %d, at most %d", q->n_computed, q->n_scheduled, q->n_tokens, q->max_total);
		if (q->n_blocks < blocks_for(q->n_computed + q->n_scheduled) || q->n_tree_blocks > q->n_blocks)
			BUG("sequence of %d + %d tokens has %d blocks, %d in the tree", q->n_computed, q->n_scheduled, q->n_blocks, q->n_tree_blocks);
	}
	if (n != s->running.n || n > (size_t)s->max_batch)
		BUG("%zu sequences run, counted %zu, at most %d", n, s->running.n, s->max_batch);
	for (const struct sequence *q = s->waiting.first; q; q = q->next)
		if (q->n_blocks || q->n_computed)
			BUG("a waiting sequence has %d blocks and %d computed tokens", q->n_blocks, q->n_computed);
}
