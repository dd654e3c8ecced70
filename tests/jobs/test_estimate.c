/* Tests of the cost model: sums against plain loops over positions, the fit against coefficients that are known. */
#include "jobs/estimate.h"
#include "tests/check.h"

static const struct cost_model model = {.s = {3e-3, 2e-4, 5e-5, 3e-8, 2e-7}, .batch = 32, .chunk_tokens = 256};

/* The same by counting every token and position. */
static double plain_prefill(int n_prompt, int n_cached, int n_samples)
{
	double s = n_samples * model.s[COST_SAMPLE];

	for (int i = n_cached; i < n_prompt; i++)
		s += model.s[COST_TOKEN] + model.s[COST_STEP] / model.chunk_tokens + model.s[COST_ATTEND_PREFILL] * (i + 1);
	return s;
}

static double plain_decode(int n_prompt, int n_output, int n_samples)
{
	double s = 0;

	for (int i = 1; i < n_output; i++)
		s += model.s[COST_TOKEN] + model.s[COST_SAMPLE] + model.s[COST_STEP] / model.batch +
		     model.s[COST_ATTEND_DECODE] * (n_prompt + i);
	return s * n_samples;
}

TEST(rows_against_a_loop)
{
	static const int cases[][4] = {{1, 0, 1, 1}, {100, 0, 20, 1}, {500, 480, 64, 1}, {33, 32, 1, 4}, {2000, 16, 300, 3}};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		const int *c = cases[i];
		struct row_cost r = estimate_row(&model, c[0], c[1], c[2], c[3]);

		CHECK_NEAR(r.prefill_s, plain_prefill(c[0], c[1], c[3]), 1e-9);
		CHECK_NEAR(r.decode_s, plain_decode(c[0], c[2], c[3]), 1e-9);
		CHECK_NEAR(r.output_tokens, c[2] * c[3], 0);
		/* What a shared prefix saves is what the row costs less. */
		CHECK_NEAR(estimate_row(&model, c[0], 0, c[2], c[3]).prefill_s - r.prefill_s, estimate_prefix(&model, c[1]), 1e-9);
	}
}

TEST(rows_that_generate_nothing)
{
	struct row_cost r = estimate_row(&model, 100, 0, 0, 1);

	CHECK_NEAR(r.prefill_s + r.decode_s + r.output_tokens, 0, 0);
	/* A prompt that is cached as a whole still computes one token. */
	CHECK_NEAR(estimate_row(&model, 64, 64, 1, 1).prefill_s, plain_prefill(64, 63, 1), 1e-12);
}

TEST(kv_bytes)
{
	CHECK_INT(estimate_kv_bytes(16, 16, 1, 16, 1000), 2000);
	CHECK_INT(estimate_kv_bytes(16, 17, 1, 16, 1000), 3000);
	CHECK_INT(estimate_kv_bytes(40, 10, 1, 16, 1000), 4000);
	/* The samples share the prompt's two whole blocks. */
	CHECK_INT(estimate_kv_bytes(40, 10, 3, 16, 1000), 2000 + 3 * 2000);
}

TEST(lengths_before_anything_is_known)
{
	struct output_lengths l = {0};

	CHECK_NEAR(output_lengths_expect(&l, 0), 0, 0);
	CHECK_NEAR(output_lengths_expect(&l, 1), 1, 0);
	CHECK_NEAR(output_lengths_expect(&l, 100), 50, 0);
	CHECK_NEAR(output_lengths_expect(NULL, 100), 50, 0);
	CHECK_NEAR(output_lengths_expect(&l, 100000), OUTPUT_DEFAULT_LONGEST, 0);
	CHECK_NEAR(output_lengths_quantile(&l, 0.9), 1, 0);
}

TEST(lengths_are_learnt_by_limit)
{
	struct output_lengths l = {0};

	for (int i = 0; i < OUTPUT_MIN_ROWS - 1; i++)
		output_lengths_add(&l, 16, 16);
	CHECK_NEAR(output_lengths_expect(&l, 16), 8, 0);
	output_lengths_add(&l, 16, 16);
	CHECK_NEAR(output_lengths_expect(&l, 16), 16, 0);
	CHECK_NEAR(output_lengths_expect(&l, 31), 16, 0);
	CHECK_NEAR(output_lengths_expect(&l, 32), 16, 0);
	CHECK_NEAR(output_lengths_expect(&l, 64), 32, 0);
	for (int i = 0; i < 100; i++)
		output_lengths_add(&l, 100 + i, 4096);
	CHECK_NEAR(output_lengths_expect(&l, 5000), 149.5, 1e-9);
	CHECK_NEAR(output_lengths_expect(&l, 16), 16, 0);
	/* Seven in eight of the 108 rows are below 5 % of their limit. */
	CHECK(output_lengths_quantile(&l, 0.5) < 0.05);
	CHECK(output_lengths_quantile(&l, 0.99) > 0.9);
	/* Never more than the limit, whatever was told. */
	output_lengths_add(&l, 1000000, 4096);
	CHECK(output_lengths_expect(&l, 4096) <= 4096);
}

/* Stretches of work as `bench` measures them. */
static size_t make_samples(struct cost_sample *s, const struct cost_model *m, double noise)
{
	unsigned seed = 3;
	size_t n = 0;

	for (int context = 128; context <= 2048; context *= 4)
		for (int batch = 1; batch <= 64; batch *= 4)
			s[n++] = (struct cost_sample){.n = {20, 20.0 * batch, 20.0 * batch, 0, 20.0 * batch * context}};
	for (int length = 256; length <= 4096; length *= 2)
		s[n++] = (struct cost_sample){.n = {length / 256.0, length, 1, length * (length + 1.0) / 2, 0}};
	for (size_t i = 0; i < n; i++)
		s[i].seconds = estimate_sample(m, &s[i]) * (1 + noise * ((double)rand_r(&seed) / RAND_MAX - 0.5));
	return n;
}

TEST(fit_finds_the_coefficients)
{
	struct cost_sample s[64] = {0};
	struct cost_model found = cost_model_default(), zero = model;
	struct err err = {0};
	size_t n = make_samples(s, &model, 0);

	CHECK_INT(estimate_fit(&found, s, n, &err), 0);
	for (int i = 0; i < COST_TERMS; i++)
		CHECK_NEAR(found.s[i] / model.s[i], 1, 1e-6);
	/* A machine without one of the costs. */
	zero.s[COST_SAMPLE] = 0;
	n = make_samples(s, &zero, 0);
	CHECK_INT(estimate_fit(&found, s, n, &err), 0);
	CHECK_NEAR(found.s[COST_SAMPLE] * 1e6, 0, 1);
	CHECK_NEAR(found.s[COST_TOKEN] / model.s[COST_TOKEN], 1, 1e-3);
}

TEST(fit_stays_near_with_noise)
{
	struct cost_sample s[64] = {0};
	struct cost_model found = cost_model_default();
	struct err err = {0};
	size_t n = make_samples(s, &model, 0.2);

	CHECK_INT(estimate_fit(&found, s, n, &err), 0);
	for (int i = 0; i < COST_TERMS; i++)
		CHECK(found.s[i] >= 0);
	for (size_t i = 0; i < n; i++)
		CHECK_NEAR(estimate_sample(&found, &s[i]) / s[i].seconds, 1, 0.2);
}

TEST(fit_refuses_nothing)
{
	struct cost_sample s = {.n = {1, 1, 1, 0, 1}};
	struct cost_model found = cost_model_default(), before = found;
	struct err err = {0};

	CHECK_INT(estimate_fit(&found, &s, 0, &err), -1);
	err_clear(&err);
	CHECK_INT(estimate_fit(&found, &s, 1, &err), -1);
	CHECK(memcmp(&found, &before, sizeof(found)) == 0);
	/* One measurement gives one coefficient. */
	err_clear(&err);
	s.seconds = 2;
	CHECK_INT(estimate_fit(&found, &s, 1, &err), 0);
	CHECK_NEAR(estimate_sample(&found, &s), 2, 1e-9);
}

int main(void)
{
	RUN(rows_against_a_loop);
	RUN(rows_that_generate_nothing);
	RUN(kv_bytes);
	RUN(lengths_before_anything_is_known);
	RUN(lengths_are_learnt_by_limit);
	RUN(fit_finds_the_coefficients);
	RUN(fit_stays_near_with_noise);
	RUN(fit_refuses_nothing);
	return TEST_RESULT();
}
