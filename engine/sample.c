/* sample.c: logits to a token. All arithmetic is plain C in double without contraction, our own exp included, and sums run in order
 * of token id, so the choice is the same on every machine. */
#include "engine/sample.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

struct sampler {
	int32_t n_vocab;
	int32_t *counts;   /* [n_vocab] occurrences of an id; zero between calls */
	double *weights;   /* [n_vocab] exp(x - max) of what can still be drawn, else 0 */
	uint32_t *keys;    /* [n_vocab] logits as ordered integers */
	float *raw;        /* [n_vocab] logits before penalties, for log-probabilities */
};

struct sampler *sampler_new(int32_t n_vocab)
{
	struct sampler *s = xcalloc(1, sizeof(*s));

	s->n_vocab = n_vocab;
	s->counts = xcalloc((size_t)n_vocab, sizeof(*s->counts));
	s->weights = xcalloc((size_t)n_vocab, sizeof(*s->weights));
	s->keys = xcalloc((size_t)n_vocab, sizeof(*s->keys));
	s->raw = xcalloc((size_t)n_vocab, sizeof(*s->raw));
	return s;
}

void sampler_free(struct sampler *s)
{
	if (!s)
		return;
	free(s->counts);
	free(s->weights);
	free(s->keys);
	free(s->raw);
	free(s);
}

/* ---- random numbers: Philox4x32-10, J. Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011 ---- */

static void philox_round(uint32_t c[4], const uint32_t k[2])
{
	uint64_t p0 = (uint64_t)0xD2511F53 * c[0], p1 = (uint64_t)0xCD9E8D57 * c[2];
	uint32_t r[4] = {(uint32_t)(p1 >> 32) ^ c[1] ^ k[0], (uint32_t)p1, (uint32_t)(p0 >> 32) ^ c[3] ^ k[1], (uint32_t)p0};

	memcpy(c, r, sizeof(r));
}

void sample_philox(uint32_t c[4], uint32_t k0, uint32_t k1)
{
	uint32_t k[2] = {k0, k1};

	for (int i = 0; i < 10; i++) {
		philox_round(c, k);
		k[0] += 0x9E3779B9;
		k[1] += 0xBB67AE85;
	}
}

double sample_uniform(uint64_t seed, uint64_t key, uint32_t sample, uint32_t position)
{
	uint32_t c[4] = {position, sample, (uint32_t)key, (uint32_t)(key >> 32)};

	sample_philox(c, (uint32_t)seed, (uint32_t)(seed >> 32));
	return (double)((((uint64_t)c[0] << 32) | c[1]) >> 11) * 0x1p-53;
}

/* ---- exp ---- */

/* e^x for x <= 0 within 1e-15 relative: x = n ln2 + r, |r| <= ln2 / 2, Taylor to r^13. 0 below -708. */
static double exp_negative(double x)
{
	static const double inv_factorial[] = {1.0, 1.0, 0.5, 1.0 / 6, 1.0 / 24, 1.0 / 120, 1.0 / 720, 1.0 / 5040, 1.0 / 40320,
	                                       1.0 / 362880, 1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800};
	double n, r, p;
	uint64_t bits;

	if (!(x > -708.0))
		return 0.0;
	n = floor(x * 1.4426950408889634 + 0.5);
	r = x - n * 6.93147180369123816490e-01; /* high part of ln 2, exact product for small n */
	r -= n * 1.90821492927058770002e-10;
	p = inv_factorial[13];
	for (int i = 12; i >= 0; i--)
		p = p * r + inv_factorial[i];
	bits = (uint64_t)(int64_t)(n + 1023.0) << 52;
	memcpy(&n, &bits, sizeof(n));
	return p * n;
}

/* ---- selection by threshold ---- */

/* Order-preserving map of floats to unsigned integers; NaN goes below everything. */
static uint32_t ordered_key(float f)
{
	uint32_t u;

	if (f != f)
		return 0;
	memcpy(&u, &f, sizeof(u));
	return u & 0x80000000u ? ~u : u | 0x80000000u;
}

/* Descend through the keys' bits from the top, 11, 11 and 10 at a time: in each level the histogram tells in which bucket the
 * running total, from the largest key down, reaches the target. Then zero the weight of everything below the threshold, and of
 * ties at the threshold once the target is reached, in order of id. by_mass: totals are of weights, else of counts. */
static void keep_top(struct sampler *s, double target, int by_mass)
{
	static const int shifts[] = {21, 10, 0}, widths[] = {11, 11, 10};
	uint32_t prefix = 0, mask = 0;
	double before = 0.0; /* total of what is surely above the threshold */

	for (int level = 0; level < 3; level++) {
		double totals[2048] = {0};
		int n_buckets = 1 << widths[level], b;
		uint32_t bits = (uint32_t)n_buckets - 1;

		for (int32_t i = 0; i < s->n_vocab; i++)
			if (s->weights[i] > 0.0 && (s->keys[i] & mask) == prefix)
				totals[(s->keys[i] >> shifts[level]) & bits] += by_mass ? s->weights[i] : 1.0;
		for (b = n_buckets - 1; b > 0; b--) {
			if (before + totals[b] >= target)
				break;
			before += totals[b];
		}
		prefix |= (uint32_t)b << shifts[level];
		mask |= bits << shifts[level];
	}
	for (int32_t i = 0; i < s->n_vocab; i++) {
		if (s->keys[i] < prefix) {
			s->weights[i] = 0.0;
		} else if (s->keys[i] == prefix && s->weights[i] > 0.0) {
			if (before >= target)
				s->weights[i] = 0.0;
			else
				before += by_mass ? s->weights[i] : 1.0;
		}
	}
}

/* ---- the pieces of one choice ---- */

static int32_t argmax(const float *x, int32_t n)
{
	int32_t best = -1;
	float top = -INFINITY;

	for (int32_t i = 0; i < n; i++)
		if (x[i] > top) {
			top = x[i];
			best = i;
		}
	if (best < 0)
		for (int32_t i = 0; i < n; i++)
			if (x[i] == x[i]) /* nothing but -inf: the lowest id that is a number */
				return i;
	return best;
}

static double log_sum_exp(const float *x, int32_t n, double max)
{
	double sum = 0.0;

	for (int32_t i = 0; i < n; i++)
		sum += exp_negative((double)x[i] - max);
	return max + log(sum);
}

/* The n best of the raw logits, descending, ties by id: a small insertion sort, since n <= 20. */
static void best_logprobs(const float *x, int32_t n_vocab, double lse, int32_t n, struct token_logprob *top)
{
	int32_t have = 0;

	for (int32_t i = 0; i < n_vocab && n > 0; i++) {
		int32_t at;

		if (have == n && !(x[i] > top[n - 1].logprob))
			continue;
		if (x[i] != x[i])
			continue;
		at = have < n ? have++ : n - 1;
		while (at > 0 && top[at - 1].logprob < x[i]) {
			top[at] = top[at - 1];
			at--;
		}
		top[at] = (struct token_logprob){i, x[i]};
	}
	for (int32_t i = 0; i < have; i++)
		top[i].logprob = (float)((double)top[i].logprob - lse);
	for (int32_t i = have; i < n; i++)
		top[i] = (struct token_logprob){-1, -INFINITY};
}

static void apply_penalties(struct sampler *s, float *x, const struct sampling *p, const int32_t *prompt, size_t n_prompt,
                            const int32_t *output, size_t n_output)
{
	/* Once for every id: counts tells whether it had its turn. */
	if (p->repetition_penalty != 1.0f) {
		for (int part = 0; part < 2; part++) {
			const int32_t *ids = part ? output : prompt;
			size_t n = part ? n_output : n_prompt;

			for (size_t i = 0; i < n; i++) {
				float *v = &x[ids[i]];

				if (s->counts[ids[i]]++ == 0)
					*v = *v > 0.0f ? *v / p->repetition_penalty : *v * p->repetition_penalty;
			}
		}
		for (size_t i = 0; i < n_prompt; i++)
			s->counts[prompt[i]] = 0;
		for (size_t i = 0; i < n_output; i++)
			s->counts[output[i]] = 0;
	}
	if (p->frequency_penalty != 0.0f || p->presence_penalty != 0.0f) {
		for (size_t i = 0; i < n_output; i++)
			s->counts[output[i]]++;
		for (size_t i = 0; i < n_output; i++) {
			int32_t id = output[i];

			if (s->counts[id] > 0) {
				x[id] -= p->frequency_penalty * (float)s->counts[id];
				x[id] -= p->presence_penalty;
				s->counts[id] = 0;
			}
		}
	}
}

static int32_t draw(struct sampler *s, const float *x, const struct sampling *p, size_t n_output, int32_t best)
{
	double total = 0.0, u, at = 0.0, max = (double)x[best] / (double)p->temperature;
	int32_t last = best;

	for (int32_t i = 0; i < s->n_vocab; i++)
		s->weights[i] = exp_negative((double)x[i] / (double)p->temperature - max);
	if (p->min_p > 0.0f)
		for (int32_t i = 0; i < s->n_vocab; i++)
			if (s->weights[i] < (double)p->min_p)
				s->weights[i] = 0.0;
	if ((p->top_k > 0 && p->top_k < s->n_vocab) || p->top_p < 1.0f) {
		for (int32_t i = 0; i < s->n_vocab; i++)
			s->keys[i] = ordered_key(x[i]);
		if (p->top_k > 0 && p->top_k < s->n_vocab)
			keep_top(s, (double)p->top_k, 0);
		if (p->top_p < 1.0f) {
			for (int32_t i = 0; i < s->n_vocab; i++)
				total += s->weights[i];
			keep_top(s, total * (double)p->top_p, 1);
		}
	}
	total = 0.0;
	for (int32_t i = 0; i < s->n_vocab; i++)
		total += s->weights[i];
	u = sample_uniform(p->seed, p->key, p->sample, (uint32_t)n_output) * total;
	for (int32_t i = 0; i < s->n_vocab; i++) {
		if (s->weights[i] <= 0.0)
			continue;
		at += s->weights[i];
		last = i;
		if (u < at)
			break;
	}
	return last;
}

int32_t sampler_choose(struct sampler *s, float *logits, const struct sampling *p, const int32_t *prompt, size_t n_prompt,
                       const int32_t *output, size_t n_output, const int32_t *banned, size_t n_banned, struct token_logprob *top)
{
	int32_t best, id;
	double lse = 0.0;

	if (top) {
		best = argmax(logits, s->n_vocab);
		if (best < 0)
			return -1;
		lse = log_sum_exp(logits, s->n_vocab, logits[best]);
		best_logprobs(logits, s->n_vocab, lse, p->n_logprobs, top + 1);
		/* The chosen token's raw logit is needed after the penalties have changed it. */
		memcpy(s->raw, logits, (size_t)s->n_vocab * sizeof(*s->raw));
	}
	for (int32_t i = 0; i < p->n_bias; i++)
		logits[p->bias[i].id] += p->bias[i].bias;
	if (n_output < (size_t)(p->min_tokens > 0 ? p->min_tokens : 0))
		for (size_t i = 0; i < n_banned; i++)
			logits[banned[i]] = -INFINITY;
	apply_penalties(s, logits, p, prompt, n_prompt, output, n_output);
	best = argmax(logits, s->n_vocab);
	id = best < 0 || p->temperature <= 0.0f || logits[best] == -INFINITY || logits[best] == INFINITY
	         ? best
	         : draw(s, logits, p, n_output, best);
	if (top && id >= 0)
		top[0] = (struct token_logprob){id, (float)((double)s->raw[id] - lse)};
	return id;
}
