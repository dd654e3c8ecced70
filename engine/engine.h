/* engine.h: the engine for outsiders. Token ids in, token ids and text out; it has never heard of rows, files or pods.
 *
 *     engine_open -> engine_submit ... -> engine_step until nothing is left -> engine_close
 *
 * engine_step is one round: schedule, forward, sample, finish. Requests are admitted in the order in which they were submitted (the
 * caller submits those with a common prefix one after another); up to max_batch run at once as far as KV memory goes.
 * One thread calls; the engine has threads of its own inside a step.
 *
 * engine_open gives the one that runs a model; engine_fake.h has one for tests of whole jobs. How an engine is made: engine_ops.h.
 */
#ifndef TOKENMILL_ENGINE_ENGINE_H
#define TOKENMILL_ENGINE_ENGINE_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/errors.h"
#include "engine/backend.h"
#include "engine/sample.h"
#include "engine/text/text.h"

struct engine;
struct gpu_api;

struct engine_options {
	enum engine_math math;     /* 0: MATH_FAST */
	enum kv_type kv_type;      /* 0: KV_F16 */
	size_t memory_bytes;       /* weights + workspace + KV, kept; 0: half of what the machine (or cgroup) has free, 92 % of a GPU's */
	int n_threads;             /* 0: all this process may use */
	int32_t max_batch;         /* sequences at once; 0: 128 */
	int32_t chunk_tokens;      /* most tokens of one step; 0: 512; never less than max_batch */
	int no_prefix_cache;
	const char *isa;           /* NULL: best; for tests */
	const struct gpu_api *gpu; /* NULL: the CPU computes; else memory is the GPU's, and math says nothing (cuda_plugin.h) */
	int gpu_device;
};

/* What engine_open decided, for the start-up lines and `model info`. */
struct engine_plan {
	size_t budget_bytes;       /* what --memory allows, or half of what is free; total_bytes is at most that */
	size_t weight_bytes, workspace_bytes, kv_bytes, kv_block_bytes, total_bytes;
	int32_t n_kv_blocks;       /* of KV_BLOCK_TOKENS positions */
	int32_t max_batch, chunk_tokens, n_threads;
	int32_t max_context;       /* longest prompt + output that can run: model's context or KV memory */
	int is_device;             /* memory is a GPU's */
	const char *backend, *isa;
};

struct model;
/* What engine_open would decide on this machine now, from the model's shape alone, without loading it; backend and isa are NULL.
 * Opened with budget_bytes as its memory_bytes the engine decides the same. -1: it does not fit, or an option is wrong. */
int engine_forecast(const struct model *m, const struct engine_options *o, struct engine_plan *p, struct err *err);

/* text is borrowed and must outlive the engine. NULL and *err (ERR_MODEL, ERR_ENGINE, ERR_USAGE) on failure. */
struct engine *engine_open(const char *model_path, const struct text *text, const struct engine_options *o, struct err *err);
void engine_close(struct engine *e);
const struct engine_plan *engine_plan(const struct engine *e);
const struct model *engine_model(const struct engine *e); /* only of what engine_open gave */

enum finish_reason { FINISH_NONE = 0, FINISH_STOP = 1, FINISH_LENGTH = 2, FINISH_ABORT = 3, FINISH_ERROR = 4 };

struct engine_request {
	void *user;                 /* given back in the result */
	const int32_t *prompt;      /* copied; at least 1 token */
	size_t n_prompt;
	struct sampling sampling;   /* copied with what it points to */
	const int32_t *partial;     /* tokens that an earlier attempt generated: go on after them */
	size_t n_partial;
	const struct token_logprob *partial_logprobs; /* [n_partial, 1 + n_logprobs] when logprobs are asked for */
};

/* Borrowed by the callback for its duration. */
struct engine_result {
	void *user;
	enum finish_reason reason;
	const char *error;          /* FINISH_ERROR: one line (for example NaN logits) */
	const int32_t *tokens;      /* generated ids, a stop token included */
	size_t n_tokens;
	const char *text;           /* decoded; stop token and (unless include_stop) stop string removed */
	size_t n_text;
	const char *stop_string;    /* which stop string ended it, or NULL */
	int32_t stop_id;            /* which token ended it, or -1 */
	const struct token_logprob *logprobs; /* [n_tokens, 1 + n_logprobs] or NULL */
	size_t n_prompt;
	size_t n_cached;            /* prompt tokens taken from the prefix cache */
	size_t n_recomputed;        /* tokens computed again after a preemption or a resume */
	double wait_s, prefill_s, decode_s; /* submitted..admitted..first token..finished */
};
typedef void (*engine_result_fn)(void *arg, const struct engine_result *r);

/* ERR_ROW when this request can never run (empty, too long, id out of range); others go on. */
int engine_submit(struct engine *e, const struct engine_request *r, struct err *err);
/* One step. Calls fn for each request that ended. Returns the number of requests left (waiting and running), -1 on a fault. */
long engine_step(struct engine *e, engine_result_fn fn, void *arg, struct err *err);
size_t engine_n_waiting(const struct engine *e); /* submitted, not yet admitted: the caller tops up when it is low */
size_t engine_n_running(const struct engine *e);
/* The tokens of every request so far, running or waiting, for checkpoints: results with FINISH_NONE. */
void engine_each_running(struct engine *e, engine_result_fn fn, void *arg);

struct engine_stats { /* since engine_open */
	uint64_t n_steps, prompt_tokens, cached_tokens, computed_tokens, output_tokens, recomputed_tokens, n_preemptions;
	double busy_s;           /* inside engine_step */
	double forward_s, sample_s;
	int32_t n_running, n_waiting, kv_blocks_used;
};
void engine_get_stats(const struct engine *e, struct engine_stats *s);

/* For tests and bench, only for what engine_open gave, while nothing is running: logits after the tokens 0..at[i] of ids[0..n), for n_at ascending places (at most
 * max_batch of them in a chunk). out [n_at, n_vocab]. */
int engine_logits(struct engine *e, const int32_t *ids, int32_t n, const int32_t *at, int32_t n_at, float *out, struct err *err);

#endif
