/* backend.h: what computes. The scheduler sees one call, forward_run (forward.h): run this mixed batch, give logits for these
 * rows. Behind it one layer loop walks the model once over this table of batch-sized ops, which the CPU
 * (engine/cpu) and the GPU (engine/cuda) fill in.
 *
 * All float buffers passed to ops are the backend's own (alloc), and the host reads them by `fetch` alone. Ops only enqueue;
 * a failure surfaces in `finish` or `fetch`. Row-major shapes are given beside each buffer; n is the number of tokens in the batch.
 *
 * Determinism: each output row of each op is computed by operations that depend on that row (and what it attends to) alone,
 * in an order that does not depend on n, on its place in the batch, on threads or on how the row's context was cut into chunks.
 */
#ifndef TOKENMILL_ENGINE_BACKEND_H
#define TOKENMILL_ENGINE_BACKEND_H

#include <stddef.h>
#include <stdint.h>

#include "base/errors.h"
#include "base/workers.h"
#include "engine/file/tensor.h"
#include "engine/kv.h"
#include "engine/model/model.h"

enum kv_type { KV_F16 = 1, KV_BF16 = 2, KV_F32 = 3 };
enum engine_math { MATH_FAST = 1, MATH_F32 = 2 };

/* Tokens of one step. A sequence contributes a run of consecutive positions: one (decode) or many (prefill chunk). */
struct batch_seq {
	const int32_t *blocks; /* KV block ids, position p lies in blocks[p / KV_BLOCK_TOKENS]; covers first_position + n_tokens */
	int32_t first_row;     /* row of its first token in the batch */
	int32_t n_tokens;
	int32_t first_position; /* = tokens already in the cache */
};
struct batch {
	int32_t n_tokens;         /* rows */
	const int32_t *tokens;    /* [n_tokens] ids, checked to be in 0..n_vocab-1 */
	const int32_t *positions; /* [n_tokens] */
	int32_t n_seqs;
	const struct batch_seq *seqs; /* [n_seqs], in row order, without gaps */
	int32_t n_logits;
	const int32_t *logit_rows; /* [n_logits] ascending rows for which logits are wanted */
};

struct kv_shape {
	int n_layers, n_kv_heads, head_dim;
	enum kv_type type;
};
/* Bytes of keys and values of one block over all layers. */
size_t kv_block_bytes(const struct kv_shape *s);

struct backend;
struct weight; /* a matrix in the backend's own layout */
struct vec;    /* a small f32 vector (norm weights, bias) on the backend */

struct linear_out {
	const struct weight *w; /* [n_out, n_in] */
	const struct vec *bias; /* [n_out]?, added */
	float *out;             /* [n, n_out] */
	int accumulate;         /* 1: out += result (residual), 0: out = result */
};

struct backend_ops {
	const char *name;
	void (*free)(struct backend *b);

	/* Load: NULL and *err on failure. */
	struct weight *(*weight_new)(struct backend *b, const struct tensor *t, struct err *err);
	struct vec *(*vec_new)(struct backend *b, const struct tensor *t, float offset, struct err *err); /* f32, offset added */
	size_t (*loaded_bytes)(const struct backend *b); /* memory that weights and vectors take */

	/* Workspace and KV memory. */
	float *(*alloc)(struct backend *b, size_t n_floats, struct err *err);
	int (*kv_alloc)(struct backend *b, const struct kv_shape *s, int32_t n_blocks, struct err *err);

	/* Once per step, before the ops: lay out the attention work. The batch stays valid until finish. */
	void (*begin)(struct backend *b, const struct batch *batch);
	/* x [n, hidden] = rows of w, times scale */
	void (*embed)(struct backend *b, const struct weight *w, float scale, float *x);
	/* out [n_rows, width] = x / rms(x) * w; rows_of NULL: row i; else out row i = norm of x row rows_of[i] */
	void (*norm)(struct backend *b, const float *x, const struct vec *w, float eps, int32_t n_rows, const int32_t *rows_of, float *out);
	/* x [n, width] += norm(y) */
	void (*norm_add)(struct backend *b, float *x, const float *y, const struct vec *w, float eps, int32_t n_rows);
	/* several matrices with one input x [n_rows, n_in] */
	void (*linear)(struct backend *b, const float *x, int32_t n_rows, const struct linear_out *outs, int n_outs);
	/* q [n, n_heads, head_dim] normed (q_norm?) and rotated in place; k [n, n_kv_heads, head_dim] likewise, then k, v into the cache */
	void (*rope_store)(struct backend *b, int layer, float *q, float *k, const float *v, const struct vec *q_norm,
	                   const struct vec *k_norm, float eps, const struct rope *rope);
	/* out [n, n_heads, head_dim]: each row over its own sequence up to itself; window 0: everything */
	void (*attention)(struct backend *b, int layer, const float *q, float scale, float softcap, int window, float *out);
	/* gate [n, width] = act(gate) * up */
	void (*act_mul)(struct backend *b, enum activation act, float *gate, const float *up, int32_t width);
	/* Everything enqueued is done. */
	int (*finish)(struct backend *b, struct err *err);
	/* As finish; then the first n_floats of x, the host's to read and overwrite until the next op. NULL: as finish -1. */
	float *(*fetch)(struct backend *b, float *x, size_t n_floats, struct err *err);
	/* Host work of the scheduler's side (sampling) on the backend's host threads: fn(arg, thread, n_threads). */
	void (*parallel)(struct backend *b, workers_fn fn, void *arg);
	int (*n_host_threads)(const struct backend *b);
};
struct backend {
	const struct backend_ops *ops;
};

struct cpu_options {
	int n_threads;          /* 0: workers_available_cpus() */
	enum engine_math math;
	const char *isa;        /* NULL: the best this processor has; "avx2", "avx512", "generic": for tests */
};
/* The CPU backend for this model's shape. max_tokens: most rows of a batch. */
struct backend *backend_cpu_new(const struct model_config *c, const struct cpu_options *o, int32_t max_tokens, struct err *err);
/* Memory that a matrix takes once it is loaded; 0 for a type that it does not know. */
size_t backend_cpu_matrix_bytes(const struct tensor *t);
/* Names of the instruction sets that can run here, best first, NULL-terminated. */
const char *const *backend_cpu_isas(void);
const char *backend_cpu_isa(const struct backend *b);

#endif
