/* estimate.c: sums and a small non-negative least squares. */
#include "jobs/estimate.h"

#include <math.h>
#include <string.h>

/* ---- length of answers ---- */

static int class_of(int64_t max_tokens)
{
	int k = 0;

	while (k < OUTPUT_CLASSES - 1 && max_tokens >> (k + 1))
		k++;
	return k;
}

void output_lengths_add(struct output_lengths *l, int64_t n_tokens, int64_t max_tokens)
{
	int k, bin;

	if (max_tokens < 1 || n_tokens < 0)
		return;
	if (n_tokens > max_tokens)
		n_tokens = max_tokens;
	k = class_of(max_tokens);
	bin = (int)((double)n_tokens / (double)max_tokens * OUTPUT_BINS);
	l->classes[k].n++;
	l->classes[k].tokens += (double)n_tokens;
	l->bins[bin < OUTPUT_BINS ? bin : OUTPUT_BINS - 1]++;
	l->n++;
}

double output_lengths_expect(const struct output_lengths *l, int64_t max_tokens)
{
	double expected;
	int k;

	if (max_tokens < 1)
		return 0;
	k = class_of(max_tokens);
	if (l && l->classes[k].n >= OUTPUT_MIN_ROWS)
		expected = l->classes[k].tokens / (double)l->classes[k].n;
	else
		expected = fmin(OUTPUT_DEFAULT_RATIO * (double)max_tokens, OUTPUT_DEFAULT_LONGEST);
	return fmin(fmax(expected, 1), (double)max_tokens);
}

double output_lengths_quantile(const struct output_lengths *l, double p)
{
	double wanted = p * (double)l->n, below = 0;

	if (l->n == 0)
		return 1;
	for (int i = 0; i < OUTPUT_BINS; i++) {
		if (l->bins[i] && below + (double)l->bins[i] >= wanted)
			return ((double)i + fmax(wanted - below, 0) / (double)l->bins[i]) / OUTPUT_BINS;
		below += (double)l->bins[i];
	}
	return 1;
}

/* ---- seconds ---- */

struct cost_model cost_model_default(void)
{
	/* Of a model of some 100 million parameters on two cores; see `tokenmill bench`. */
	return (struct cost_model){.s = {2e-3, 2e-4, 5e-5, 2e-8, 1e-7}, .batch = 64, .chunk_tokens = 512};
}

/* Positions that the tokens from..to - 1 attend to, each to itself and all before. */
static double pairs(double from, double to)
{
	return (to * (to + 1) - from * (from + 1)) / 2;
}

struct row_cost estimate_row(const struct cost_model *m, double n_prompt, double n_cached, double output_tokens, int64_t n_samples)
{
	double n_new = fmax(n_prompt - n_cached, 1), per_token = m->s[COST_TOKEN] + m->s[COST_STEP] / m->chunk_tokens;
	double n_decoded = fmax(output_tokens - 1, 0); /* the first token comes out of the prefill */
	double per_decode = m->s[COST_TOKEN] + m->s[COST_SAMPLE] + m->s[COST_STEP] / m->batch;
	double n = (double)n_samples;
	struct row_cost c = {0};

	if (output_tokens <= 0 || n_samples < 1)
		return c;
	c.prefill_s = per_token * n_new + m->s[COST_ATTEND_PREFILL] * pairs(n_prompt - n_new, n_prompt) + n * m->s[COST_SAMPLE];
	c.decode_s = n * (per_decode * n_decoded + m->s[COST_ATTEND_DECODE] * pairs(n_prompt, n_prompt + n_decoded));
	c.output_tokens = n * output_tokens;
	return c;
}

double estimate_prefix(const struct cost_model *m, double n_cached)
{
	return (m->s[COST_TOKEN] + m->s[COST_STEP] / m->chunk_tokens) * n_cached + m->s[COST_ATTEND_PREFILL] * pairs(0, n_cached);
}

int64_t estimate_kv_bytes(int64_t n_prompt, double output_tokens, int64_t n_samples, int64_t block_tokens, int64_t block_bytes)
{
	int64_t shared = n_prompt / block_tokens, total = n_prompt + (int64_t)ceil(output_tokens);
	int64_t own = (total + block_tokens - 1) / block_tokens - shared;

	return (shared + n_samples * own) * block_bytes;
}

/* ---- fitting ---- */

double estimate_sample(const struct cost_model *m, const struct cost_sample *s)
{
	double sum = 0;

	for (int i = 0; i < COST_TERMS; i++)
		sum += m->s[i] * s->n[i];
	return sum;
}

/* Solve a x = b by Gaussian elimination with pivots; a is n by n. 0, -1 when it is singular. */
static int solve(double a[COST_TERMS][COST_TERMS], double *b, int n)
{
	for (int c = 0; c < n; c++) {
		int pivot = c;

		for (int r = c + 1; r < n; r++)
			if (fabs(a[r][c]) > fabs(a[pivot][c]))
				pivot = r;
		if (!(fabs(a[pivot][c]) > 1e-9))
			return -1;
		for (int k = 0; k < n; k++) {
			double t = a[c][k];

			a[c][k] = a[pivot][k];
			a[pivot][k] = t;
		}
		if (pivot != c) {
			double t = b[c];

			b[c] = b[pivot];
			b[pivot] = t;
		}
		for (int r = c + 1; r < n; r++) {
			double f = a[r][c] / a[c][c];

			for (int k = c; k < n; k++)
				a[r][k] -= f * a[c][k];
			b[r] -= f * b[c];
		}
	}
	for (int c = n - 1; c >= 0; c--) {
		for (int k = c + 1; k < n; k++)
			b[c] -= a[c][k] * b[k];
		b[c] /= a[c][c];
	}
	return 0;
}

/* Least squares with the terms of the mask, in relative terms and with each column scaled to length 1, as they differ by eight orders of
 * magnitude. -1: singular, or a coefficient is negative. */
static int fit_terms(unsigned mask, const double scale[COST_TERMS], const struct cost_sample *samples, size_t n_samples, double out[COST_TERMS])
{
	double a[COST_TERMS][COST_TERMS] = {{0}}, b[COST_TERMS] = {0};
	int term[COST_TERMS], n = 0;

	for (int i = 0; i < COST_TERMS; i++)
		if (mask >> i & 1)
			term[n++] = i;
	for (size_t k = 0; k < n_samples; k++)
		for (int i = 0; i < n; i++) {
			double x = samples[k].n[term[i]] / samples[k].seconds / scale[term[i]];

			b[i] += x;
			for (int j = 0; j < n; j++)
				a[i][j] += x * samples[k].n[term[j]] / samples[k].seconds / scale[term[j]];
		}
	if (solve(a, b, n) < 0)
		return -1;
	memset(out, 0, COST_TERMS * sizeof(*out));
	for (int i = 0; i < n; i++) {
		if (!(b[i] >= 0) || !isfinite(b[i]))
			return -1;
		out[term[i]] = b[i] / scale[term[i]];
	}
	return 0;
}

int estimate_fit(struct cost_model *m, const struct cost_sample *samples, size_t n_samples, struct err *err)
{
	double scale[COST_TERMS] = {0}, best_error = INFINITY;
	struct cost_model best = *m;
	unsigned known = 0;

	for (size_t k = 0; k < n_samples; k++) {
		if (!(samples[k].seconds > 0))
			return err_set(err, ERR_OTHER, "a measurement took no time");
		for (int i = 0; i < COST_TERMS; i++)
			scale[i] += samples[k].n[i] / samples[k].seconds * (samples[k].n[i] / samples[k].seconds);
	}
	for (int i = 0; i < COST_TERMS; i++) {
		scale[i] = sqrt(scale[i]);
		if (scale[i] > 0)
			known |= 1U << i;
	}
	for (unsigned mask = 1; mask < 1U << COST_TERMS; mask++) {
		struct cost_model tried = *m;
		double error = 0;

		if ((mask & ~known) || fit_terms(mask, scale, samples, n_samples, tried.s) < 0)
			continue;
		for (size_t k = 0; k < n_samples; k++) {
			double d = estimate_sample(&tried, &samples[k]) / samples[k].seconds - 1;

			error += d * d;
		}
		/* Equal up to rounding: the one found first. */
		if (error < best_error * (1 - 1e-9)) {
			best_error = error;
			best = tried;
		}
	}
	if (!isfinite(best_error))
		return err_set(err, ERR_OTHER, "nothing can be fitted to %zu measurements", n_samples);
	*m = best;
	return 0;
}
