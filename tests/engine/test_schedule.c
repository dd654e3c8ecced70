/* Tests of schedule.c on a fake backend: instead of keys and values a cell of the pool remembers the hash of the tokens up to its position,
 * so that any block that is shared, freed or reused wrongly shows as a wrong context. Thousands of random steps, all invariants
 * checked after each. */
#include "engine/schedule.h"

#include "base/hash.h"
#include "base/mem.h"
#include "tests/check.h"

struct fake {
	struct kv_pool *pool;
	struct scheduler *scheduler;
	uint64_t *cells; /* [n_blocks, KV_BLOCK_TOKENS] */
	long long computed;
	int wrong;
};

static uint64_t next_hash(uint64_t before, int32_t token)
{
	return hash64(&token, sizeof(token), before);
}

/* "Store" for all sequences first, then "attend", as forward does in each layer. */
static void fake_forward(struct fake *f, struct sequence **seqs, int32_t n)
{
	for (int pass = 0; pass < 2; pass++) {
		for (int32_t s = 0; s < n; s++) {
			struct sequence *q = seqs[s];
			uint64_t h = 0;

			for (int32_t i = 0; i < q->n_computed + q->n_scheduled; i++) {
				uint64_t *cell = &f->cells[(size_t)q->blocks[i / KV_BLOCK_TOKENS] * KV_BLOCK_TOKENS + (size_t)(i % KV_BLOCK_TOKENS)];

				h = next_hash(h, q->tokens[i]);
				if (pass == 0 && i >= q->n_computed)
					*cell = h;
				else if (pass == 1 && *cell != h)
					f->wrong++;
			}
		}
	}
}

/* The next token is a function of the sequence alone. */
static int32_t fake_token(const struct sequence *q)
{
	uint64_t h = 0;

	for (int32_t i = 0; i < q->n_tokens; i++)
		h = next_hash(h, q->tokens[i]);
	return (int32_t)(h % 7);
}

static struct sequence *sequence_make(unsigned *seed, int max_total)
{
	struct sequence *q = xcalloc(1, sizeof(*q));
	int n = 1 + rand_r(seed) % (max_total - 1), header = rand_r(seed) % 3;

	for (int i = 0; i < n; i++) /* three headers of 40 tokens, then two symbols */
		sequence_append(q, i < 40 ? header * 1000 + i : rand_r(seed) % 2);
	q->n_prompt = n;
	q->max_total = n + 1 + rand_r(seed) % (max_total - n);
	return q;
}

static void run(int n_blocks, int max_batch, int chunk, int use_tree, int n_sequences, unsigned seed)
{
	struct fake f = {.pool = kv_pool_new(n_blocks, use_tree)};
	struct sequence **seqs;
	int n_made = 0, n_ended = 0, steps = 0;
	long long tokens = 0;

	f.scheduler = scheduler_new(f.pool, max_batch, chunk);
	f.cells = xcalloc((size_t)n_blocks * KV_BLOCK_TOKENS, sizeof(*f.cells));
	while (n_ended < n_sequences && steps < 100000) {
		int32_t n, total = 0;

		while (n_made < n_sequences && rand_r(&seed) % 3) {
			scheduler_add(f.scheduler, sequence_make(&seed, n_blocks * KV_BLOCK_TOKENS < 200 ? n_blocks * KV_BLOCK_TOKENS : 200));
			n_made++;
		}
		n = scheduler_step(f.scheduler, &seqs);
		scheduler_check(f.scheduler);
		for (int32_t i = 0; i < n; i++)
			total += seqs[i]->n_scheduled;
		CHECK(total <= chunk && n <= max_batch);
		if (n == 0 && n_made > n_ended) {
			printf("nothing scheduled though %d wait\n", n_made - n_ended);
			check_failed_now = 1;
			break;
		}
		fake_forward(&f, seqs, n);
		scheduler_commit(f.scheduler);
		steps++;
		for (int32_t i = 0; i < n; i++) {
			struct sequence *q = seqs[i];

			if (q->n_computed < q->n_tokens)
				continue;
			sequence_append(q, fake_token(q));
			tokens++;
			if (q->n_tokens < q->max_total)
				continue;
			/* The whole answer is what an undisturbed run gives. */
			for (int32_t k = q->n_prompt; k < q->n_tokens; k++) {
				struct sequence cut = {.tokens = q->tokens, .n_tokens = k};

				if (q->tokens[k] != fake_token(&cut))
					f.wrong++;
			}
			scheduler_finish(f.scheduler, q);
			free(q->tokens);
			free(q->blocks);
			free(q);
			n_ended++;
		}
		scheduler_check(f.scheduler);
	}
	CHECK_INT(f.wrong, 0);
	CHECK_INT(n_ended, n_sequences);
	CHECK_INT(kv_pool_available(f.pool), n_blocks);
	scheduler_free(f.scheduler);
	kv_pool_free(f.pool);
	free(f.cells);
}

TEST(roomy)
{
	run(400, 16, 64, 1, 200, 1);
}
TEST(no_tree)
{
	run(400, 16, 64, 0, 200, 2);
}
TEST(tight_memory_preempts)
{
	for (unsigned seed = 0; seed < 20; seed++)
		run(13 + (int)seed, 8, 32, seed % 2, 60, seed);
}
TEST(one_at_a_time)
{
	run(20, 1, 1, 1, 20, 3);
}
TEST(many_shapes)
{
	for (unsigned seed = 0; seed < 40; seed++)
		run(14 + (int)(seed * 7 % 90), 1 + (int)seed % 20, 20 + (int)(seed * 13 % 100), 1, 50, seed + 100);
}

TEST(prefix_is_shared_within_one_step)
{
	struct kv_pool *pool = kv_pool_new(100, 1);
	struct scheduler *s = scheduler_new(pool, 8, 512);
	struct sequence q[8] = {0}, **seqs;
	int total = 0;

	for (int k = 0; k < 8; k++) {
		for (int i = 0; i < 100; i++)
			sequence_append(&q[k], i < 90 ? i : k);
		q[k].n_prompt = 100;
		q[k].max_total = 110;
		scheduler_add(s, &q[k]);
	}
	CHECK_INT(scheduler_step(s, &seqs), 8);
	for (int k = 0; k < 8; k++)
		total += seqs[k]->n_scheduled;
	CHECK_INT(total, 100 + 7 * 20); /* 80 tokens, five whole blocks, are computed once */
	CHECK_INT(q[7].n_cached, 80);
	for (int k = 0; k < 8; k++) {
		scheduler_remove(s, &q[k]);
		free(q[k].tokens);
		free(q[k].blocks);
	}
	scheduler_check(s);
	scheduler_free(s);
	kv_pool_free(pool);
}

int main(void)
{
	RUN(roomy);
	RUN(no_tree);
	RUN(tight_memory_preempts);
	RUN(one_at_a_time);
	RUN(many_shapes);
	RUN(prefix_is_shared_within_one_step);
	return TEST_RESULT();
}
