/* sample.h: from logits to a token.
 *
 * Semantics are those of the OpenAI API and, for what it lacks, of vLLM's SamplingParams of the same name. Order: logit_bias and
 * min_tokens, repetition, frequency and presence penalty, temperature, min_p, top_k, top_p (over what is left), draw. Log-probabilities are of
 * the raw logits, before all of that.
 *
 * The random number of a draw is a function of (seed, key, sample index, position) alone (Philox4x32-10, Salmon et al. 2011).
 */
#ifndef TOKENMILL_ENGINE_SAMPLE_H
#define TOKENMILL_ENGINE_SAMPLE_H

#include <stddef.h>
#include <stdint.h>

struct logit_bias {
	int32_t id;
	float bias;
};

struct sampling {
	float temperature;        /* 0: greedy; ties go to the lowest id */
	float top_p;              /* (0, 1] */
	float min_p;              /* [0, 1] */
	int32_t top_k;            /* 0 or -1: all */
	float presence_penalty;   /* [-2, 2], over generated tokens */
	float frequency_penalty;  /* [-2, 2], over generated tokens */
	float repetition_penalty; /* > 0, 1: none; over prompt and generated tokens */
	const struct logit_bias *bias;
	int32_t n_bias;
	int32_t max_tokens;       /* >= 0 */
	int32_t min_tokens;       /* no stop token before so many */
	int ignore_eos;           /* the model's own stop tokens do not stop */
	const int32_t *stop_ids;  /* further ids that stop */
	int32_t n_stop_ids;
	const char *const *stop;  /* strings; generation ends where the first of them is complete */
	int32_t n_stop;
	int include_stop;         /* the stop string stays in the text (vLLM: include_stop_str_in_output) */
	int skip_special;         /* special tokens do not show in the text (default 1) */
	int32_t n_logprobs;       /* -1: none; else the chosen token's and this many best ones, at most 20 */
	uint64_t seed;            /* job's, or the row's own */
	uint64_t key;             /* hash of the row's key; 0 when the row brings its own seed */
	uint32_t sample;          /* index among n */
};

struct token_logprob {
	int32_t id;
	float logprob;
};

/* Philox4x32-10: counter c becomes four random words. */
void sample_philox(uint32_t c[4], uint32_t k0, uint32_t k1);
/* Uniform in [0, 1): 53 bits. */
double sample_uniform(uint64_t seed, uint64_t key, uint32_t sample, uint32_t position);

struct sampler; /* scratch for one thread and vocabulary */
struct sampler *sampler_new(int32_t n_vocab);
void sampler_free(struct sampler *s);

/* Choose. logits [n_vocab] may be overwritten. prompt, output: the tokens so far (penalties, min_tokens, position). banned: ids
 * that must not be chosen while fewer than min_tokens are there. top: NULL, or [1 + n_logprobs]: first the chosen token, then
 * the best ones, descending, ties by id. Returns the id, or -1 when no logit is a number. */
int32_t sampler_choose(struct sampler *s, float *logits, const struct sampling *p, const int32_t *prompt, size_t n_prompt,
                       const int32_t *output, size_t n_output, const int32_t *banned, size_t n_banned, struct token_logprob *top);

#endif
