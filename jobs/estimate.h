/* estimate.h: what a row will cost, before it has run: seconds of prefill and decode, and bytes of keys and values.
 *
 * An engine's step costs a fixed part, a part for each token that is computed, one for each that is sampled, and one for each pair of a token
 * and a position that it attends to:
 *
 *     seconds = step * n_steps + token * n_tokens + sample * n_sampled + attend_prefill * n_pairs + attend_decode * n_pairs
 *
 * Pairs count apart in prefill, where many tokens share each read of a key, and in decode, where none does. All five are linear, so a sum over
 * rows costs what the rows cost, and the coefficients can be fitted to measured steps (estimate_fit). The fixed part of a decode step is shared
 * by the batch that it is expected to have.
 *
 * How long an answer will be is unknown; its limit is known. Before anything is learnt an answer is taken to be half of its limit, and no longer
 * than 512 tokens. struct output_lengths learns from finished rows: by how large their limit was, since who allows 16 tokens gets 16, and who
 * allows 4096 gets what the task takes.
 *
 * Pure functions, no state but what is passed. Any thread.
 */
#ifndef TOKENMILL_JOBS_ESTIMATE_H
#define TOKENMILL_JOBS_ESTIMATE_H

#include <stddef.h>
#include <stdint.h>

#include "base/errors.h"

/* ---- length of answers ---- */

enum { OUTPUT_CLASSES = 24, OUTPUT_BINS = 20, OUTPUT_MIN_ROWS = 8 };
#define OUTPUT_DEFAULT_RATIO 0.5
#define OUTPUT_DEFAULT_LONGEST 512

struct output_lengths { /* zero-initialise */
	struct {
		int64_t n;
		double tokens;         /* sum over the n rows' samples */
	} classes[OUTPUT_CLASSES]; /* by limit: class k has limits of 2^k to 2^(k+1) - 1 tokens, the last all above */
	int64_t bins[OUTPUT_BINS]; /* rows by tokens / limit: bin i from i / OUTPUT_BINS on, the last with 1 */
	int64_t n;
};

/* A finished sample: it had n_tokens, its limit was max_tokens (1 or more). */
void output_lengths_add(struct output_lengths *l, int64_t n_tokens, int64_t max_tokens);
/* What an answer with this limit is expected to take, from 1 (0 for the limit 0) to the limit. Of a class with fewer than OUTPUT_MIN_ROWS rows
 * nothing is known. l may be NULL. */
double output_lengths_expect(const struct output_lengths *l, int64_t max_tokens);
/* Which share of its limit a row stays below with probability p (0 to 1); 1 while nothing is known. */
double output_lengths_quantile(const struct output_lengths *l, double p);

/* ---- seconds ---- */

enum { COST_STEP = 0, COST_TOKEN = 1, COST_SAMPLE = 2, COST_ATTEND_PREFILL = 3, COST_ATTEND_DECODE = 4, COST_TERMS = 5 };

struct cost_model {
	double s[COST_TERMS];   /* seconds for one of each, 0 or more */
	int32_t batch;          /* sequences in a decode step, 1 or more */
	int32_t chunk_tokens;   /* tokens in a prefill step, 1 or more */
};

/* Coefficients for a machine of which nothing is known: only their proportions mean something. */
struct cost_model cost_model_default(void);

struct row_cost {
	double prefill_s, decode_s;
	double output_tokens; /* expected, over all samples */
};
/* A row of n_prompt tokens, the first n_cached of which are there already, with n_samples answers of output_tokens each. */
struct row_cost estimate_row(const struct cost_model *m, double n_prompt, double n_cached, double output_tokens, int64_t n_samples);
/* Seconds that n more cached tokens at the start of a prompt save. */
double estimate_prefix(const struct cost_model *m, double n_cached);
/* Bytes of keys and values at the row's end, in whole blocks of block_tokens. */
int64_t estimate_kv_bytes(int64_t n_prompt, double output_tokens, int64_t n_samples, int64_t block_tokens, int64_t block_bytes);

/* ---- fitting ---- */

struct cost_sample { /* a measured stretch of work */
	double n[COST_TERMS]; /* how many of each it had */
	double seconds;
};
/* Coefficients, none negative, that come closest to the samples in relative squared error (Lawson and Hanson, Solving Least Squares Problems,
 * chapter 23, found here by trying which terms are zero: there are only 32 ways). m->batch and chunk_tokens are left alone. -1 when the samples
 * do not say (none, or no time); then m is as before. */
int estimate_fit(struct cost_model *m, const struct cost_sample *samples, size_t n_samples, struct err *err);
double estimate_sample(const struct cost_model *m, const struct cost_sample *s); /* seconds by the model */

#endif
