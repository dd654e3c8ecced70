/* Tests of sample.c: the generator against its published vectors, the filters against a plain sort, penalties against arithmetic by
 * hand, and the distribution of draws. */
#include "engine/sample.h"

#include "base/mem.h"
#include "tests/check.h"

static struct sampling defaults(void)
{
	return (struct sampling){.temperature = 1.0f, .top_p = 1.0f, .repetition_penalty = 1.0f, .n_logprobs = -1, .max_tokens = 10};
}

/* kat_vectors of Random123: philox4x32 10. */
TEST(philox_known_answers)
{
	uint32_t zero[4] = {0, 0, 0, 0}, ones[4] = {0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff};
	uint32_t pi[4] = {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344};

	sample_philox(zero, 0, 0);
	CHECK(zero[0] == 0x6627e8d5 && zero[1] == 0xe169c58d && zero[2] == 0xbc57ac4c && zero[3] == 0x9b00dbd8);
	sample_philox(ones, 0xffffffff, 0xffffffff);
	CHECK(ones[0] == 0x408f276d && ones[1] == 0x41c83b0e && ones[2] == 0xa20bc7c6 && ones[3] == 0x6d5451fd);
	sample_philox(pi, 0xa4093822, 0x299f31d0);
	CHECK(pi[0] == 0xd16cfe09 && pi[1] == 0x94fdcceb && pi[2] == 0x5001e420 && pi[3] == 0x24126ea1);
}

TEST(greedy_and_ties)
{
	struct sampler *s = sampler_new(5);
	struct sampling p = defaults();
	float x[5] = {1, 3, 3, NAN, 2}, none[5] = {NAN, NAN, NAN, NAN, NAN};

	p.temperature = 0;
	CHECK_INT(sampler_choose(s, x, &p, NULL, 0, NULL, 0, NULL, 0, NULL), 1);
	CHECK_INT(sampler_choose(s, none, &p, NULL, 0, NULL, 0, NULL, 0, NULL), -1);
	sampler_free(s);
}

TEST(penalties_bias_and_min_tokens)
{
	struct sampler *s = sampler_new(6);
	struct sampling p = defaults();
	int32_t prompt[] = {0, 0}, output[] = {1, 1, 1, 2}, banned[] = {5};
	struct logit_bias bias = {4, 0.5f};
	float x[6] = {4, 4, 1, -2, 1.2f, 9};

	p.temperature = 0;
	p.repetition_penalty = 2;
	p.frequency_penalty = 0.5f;
	p.presence_penalty = 0.25f;
	p.bias = &bias;
	p.n_bias = 1;
	p.min_tokens = 5;
	/* 0: 2; 1: 4/2 - 1.5 - 0.25; 2: 1/2 - 0.5 - 0.25; 4: 1.7; 5 must wait */
	CHECK_INT(sampler_choose(s, x, &p, prompt, 2, output, 4, banned, 1, NULL), 0);
	CHECK_NEAR(x[0], 2, 1e-6);
	CHECK_NEAR(x[1], 0.25, 1e-6);
	CHECK_NEAR(x[2], -0.25, 1e-6);
	CHECK_NEAR(x[3], -2, 1e-6);
	CHECK_NEAR(x[4], 1.7, 1e-6);
	CHECK(x[5] == -INFINITY);
	sampler_free(s);
}

TEST(logprobs)
{
	struct sampler *s = sampler_new(4);
	struct sampling p = defaults();
	struct token_logprob top[3];
	float x[4] = {0, 1, 2, 2};
	double lse = log(1 + exp(1) + 2 * exp(2));

	p.temperature = 0;
	p.n_logprobs = 2;
	CHECK_INT(sampler_choose(s, x, &p, NULL, 0, NULL, 0, NULL, 0, top), 2);
	CHECK_INT(top[0].id, 2);
	CHECK_INT(top[1].id, 2);
	CHECK_INT(top[2].id, 3);
	CHECK_NEAR(top[0].logprob, 2 - lse, 1e-6);
	CHECK_NEAR(top[2].logprob, 2 - lse, 1e-6);
	p.n_logprobs = 0;
	CHECK_INT(sampler_choose(s, x, &p, NULL, 0, NULL, 0, NULL, 0, top), 2);
	CHECK_NEAR(top[0].logprob, 2 - lse, 1e-6);
	sampler_free(s);
}

/* ---- the filters against a plain implementation ---- */

enum { N = 300 };
struct item {
	double w;
	int id;
};

static int heavier(const void *a, const void *b)
{
	const struct item *x = a, *y = b;

	return x->w != y->w ? (x->w < y->w ? 1 : -1) : x->id - y->id;
}

/* The ids that may be drawn. */
static void plain_filter(const float *x, const struct sampling *p, int *allowed)
{
	struct item items[N];
	double max = -INFINITY, total = 0, sum = 0;
	int n = 0;

	for (int i = 0; i < N; i++)
		max = x[i] > max ? x[i] : max;
	for (int i = 0; i < N; i++) {
		double w = exp(((double)x[i] - max) / (double)p->temperature);

		allowed[i] = 0;
		if (w >= (double)p->min_p)
			items[n++] = (struct item){w, i};
	}
	qsort(items, (size_t)n, sizeof(*items), heavier);
	if (p->top_k > 0 && n > p->top_k)
		n = p->top_k;
	for (int i = 0; i < n; i++)
		total += items[i].w;
	for (int i = 0; i < n && (i == 0 || sum < total * (double)p->top_p); i++) {
		allowed[items[i].id] = 1;
		sum += items[i].w;
	}
}

TEST(filters_equal_a_plain_sort)
{
	struct sampler *s = sampler_new(N);
	unsigned seed = 5;

	for (int round = 0; round < 200; round++) {
		struct sampling p = defaults();
		float x[N], y[N];
		int allowed[N], n_allowed = 0, n_seen = 0, seen[N] = {0};

		for (int i = 0; i < N; i++)
			x[i] = (float)(rand_r(&seed) % 1000) / 80.0f - (round % 3 ? 0.0f : 20.0f);
		p.temperature = 0.3f + (float)(rand_r(&seed) % 20) / 10.0f;
		p.top_k = round % 4 == 0 ? 0 : 1 + rand_r(&seed) % 40;
		p.top_p = round % 5 == 0 ? 1.0f : (float)(1 + rand_r(&seed) % 99) / 100.0f;
		p.min_p = round % 3 == 0 ? 0.0f : (float)(rand_r(&seed) % 50) / 1000.0f;
		plain_filter(x, &p, allowed);
		for (int i = 0; i < N; i++)
			n_allowed += allowed[i];
		for (int k = 0; k < 200; k++) {
			int32_t id;

			memcpy(y, x, sizeof(x));
			p.seed = (uint64_t)(round * 1000 + k);
			id = sampler_choose(s, y, &p, NULL, 0, NULL, 0, NULL, 0, NULL);
			if (id < 0 || !allowed[id]) {
				printf("round %d: id %d is not allowed\n", round, id);
				check_failed_now = 1;
				break;
			}
			n_seen += !seen[id]++;
		}
		if (n_allowed <= 3)
			CHECK(n_seen >= 1);
	}
	sampler_free(s);
}

TEST(draws_follow_the_distribution)
{
	struct sampler *s = sampler_new(4);
	struct sampling p = defaults();
	double want[4], total = 0;
	int seen[4] = {0};
	float x[4] = {0.0f, 1.0f, 2.0f, -1.0f};

	p.temperature = 0.7f;
	for (int i = 0; i < 4; i++)
		total += want[i] = exp(x[i] / 0.7);
	for (int k = 0; k < 40000; k++) {
		float y[4];

		memcpy(y, x, sizeof(x));
		p.key = (uint64_t)k;
		seen[sampler_choose(s, y, &p, NULL, 0, NULL, 0, NULL, 0, NULL)]++;
	}
	for (int i = 0; i < 4; i++)
		CHECK_NEAR(seen[i] / 40000.0, want[i] / total, 0.01);
	sampler_free(s);
}

TEST(uniform_depends_on_each_argument)
{
	double u = sample_uniform(1, 2, 3, 4);

	CHECK(u >= 0 && u < 1);
	CHECK(u == sample_uniform(1, 2, 3, 4));
	CHECK(u != sample_uniform(2, 2, 3, 4) && u != sample_uniform(1, 3, 3, 4) && u != sample_uniform(1, 2, 4, 4) && u != sample_uniform(1, 2, 3, 5));
	CHECK(u != sample_uniform(1 + (1ull << 40), 2, 3, 4) && u != sample_uniform(1, 2 + (1ull << 40), 3, 4));
}

int main(void)
{
	RUN(philox_known_answers);
	RUN(greedy_and_ties);
	RUN(penalties_bias_and_min_tokens);
	RUN(logprobs);
	RUN(filters_equal_a_plain_sort);
	RUN(draws_follow_the_distribution);
	RUN(uniform_depends_on_each_argument);
	return TEST_RESULT();
}
