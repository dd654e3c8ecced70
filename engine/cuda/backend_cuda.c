/* backend_cuda.c: fills the op table with calls of a gpu_api, and owns all memory of the device side. Knows no CUDA.
 *
 * What a step needs besides weights and activations goes over in one copy, from one pinned buffer:
 *
 *     tokens [n] | positions [n] | slots [n] | logit_rows [n_logits] | tiles [n_tiles] | tables (block ids of each sequence)
 *
 * finish waits for the device, so that the buffer is free again when the next begin fills it. */
#include "engine/cuda/backend_cuda.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/workers.h"

_Static_assert((int)GPU_KV_F16 == (int)KV_F16 && (int)GPU_KV_BF16 == (int)KV_BF16 && (int)GPU_KV_F32 == (int)KV_F32,
               "gpu.h and backend.h");
_Static_assert((int)GPU_ACT_SILU == (int)ACT_SILU && (int)GPU_ACT_GELU_TANH == (int)ACT_GELU_TANH, "gpu.h and model.h");
_Static_assert((int)GPU_BLOCK_TOKENS == (int)KV_BLOCK_TOKENS, "gpu.h and kv.h");

struct weight {
	struct gpu_matrix matrix;
	struct weight *next;
};

struct vec {
	float *device;
	int32_t n;
	struct vec *next;
};

struct rope_table {          /* of one kind of layer */
	const struct rope *rope; /* NULL: unused */
	float *inv_freq;         /* device */
	float *cos_sin;          /* device [max_tokens, dim], of the current step when it is filled */
	int is_filled;
};
enum { MAX_ROPES = 2 };

struct step { /* addresses in the device's copy of the step buffer */
	const int32_t *tokens, *positions, *slots, *logit_rows, *tables;
	const struct gpu_tile *tiles;
	int32_t n_tiles;
};

struct backend_cuda {
	struct backend base;
	const struct gpu_api *api;
	struct gpu *gpu;
	struct workers *workers;
	int n_heads, n_kv_heads, head_dim;
	int32_t max_tokens;
	struct weight *weights;
	struct vec *vecs;
	size_t loaded_bytes;
	struct gpu_cache *caches; /* [n_layers] */
	struct rope_table ropes[MAX_ROPES];
	const struct batch *batch;
	struct step step;
	char *step_host, *step_device; /* pinned, device */
	size_t step_cap;
	float *fetched; /* pinned */
	size_t fetched_cap;
	struct err failed; /* of the step, what the device itself does not know */
};

static struct backend_cuda *cuda_of(const struct backend *b)
{
	return (struct backend_cuda *)b;
}

static double mib(size_t n_bytes)
{
	return (double)n_bytes / (1024.0 * 1024.0);
}

static int wait_for(struct backend_cuda *c, struct err *err)
{
	char why[256];

	if (c->api->sync(c->gpu, why, sizeof(why)) == GPU_OK)
		return 0;
	return err_set(err, ERR_ENGINE, "GPU %s", why);
}

/* Device memory, or why there is none. */
static void *take(struct backend_cuda *c, size_t n_bytes, const char *what, struct err *err)
{
	void *p = c->api->alloc(c->gpu, n_bytes);
	struct gpu_info info;

	if (p)
		return p;
	if (wait_for(c, err) < 0) /* a fault, not want of memory */
		return NULL;
	c->api->info(c->gpu, &info);
	err_set(err, ERR_ENGINE, "the GPU has no room for %s: %.0f MiB wanted, %.0f of %.0f MiB free", what, mib(n_bytes),
	        mib(info.free_bytes), mib(info.total_bytes));
	return NULL;
}

static void cuda_free(struct backend *b)
{
	struct backend_cuda *c = cuda_of(b);

	c->api->close(c->gpu); /* with all of the device's memory and the pinned buffers */
	while (c->weights) {
		struct weight *w = c->weights;

		c->weights = w->next;
		free(w);
	}
	while (c->vecs) {
		struct vec *v = c->vecs;

		c->vecs = v->next;
		free(v);
	}
	free(c->caches);
	workers_free(c->workers);
	free(c);
}

/* ---- load ---- */

size_t backend_cuda_matrix_bytes(const struct tensor *t)
{
	return t->n_dims == 2 && tensor_row_bytes(t->type, t->shape[1])
	           ? (size_t)t->shape[0] * tensor_row_bytes(t->type, t->shape[1])
	           : 0;
}

static struct weight *cuda_weight_new(struct backend *b, const struct tensor *t, struct err *err)
{
	struct backend_cuda *c = cuda_of(b);
	size_t n_bytes = backend_cuda_matrix_bytes(t);
	struct weight *w;
	void *device;

	if (!n_bytes || t->shape[0] > INT32_MAX || t->shape[1] > INT32_MAX) {
		err_set(err, ERR_MODEL, "%s: a matrix of type %s is not known to the CUDA backend", t->name, tensor_type_name(t->type));
		return NULL;
	}
	device = take(c, n_bytes, t->name, err);
	if (!device)
		return NULL;
	c->api->upload(c->gpu, device, t->data, n_bytes);
	w = xmalloc(sizeof(*w));
	*w = (struct weight){{device, (int)t->type, (int32_t)t->shape[0], (int32_t)t->shape[1], n_bytes / (size_t)t->shape[0]},
	                     c->weights};
	c->weights = w;
	c->loaded_bytes += n_bytes;
	return w;
}

static struct vec *cuda_vec_new(struct backend *b, const struct tensor *t, float offset, struct err *err)
{
	struct backend_cuda *c = cuda_of(b);
	int64_t n = tensor_n_elements(t);
	size_t n_bytes = (size_t)n * sizeof(float);
	float *device = take(c, n_bytes, t->name, err), *host;
	struct vec *v;

	if (!device)
		return NULL;
	host = xmalloc(n_bytes);
	dequantize_row(t->type, t->data, host, n);
	for (int64_t i = 0; i < n; i++)
		host[i] += offset;
	c->api->upload(c->gpu, device, host, n_bytes);
	free(host);
	v = xmalloc(sizeof(*v));
	*v = (struct vec){device, (int32_t)n, c->vecs};
	c->vecs = v;
	c->loaded_bytes += n_bytes;
	return v;
}

static size_t cuda_loaded_bytes(const struct backend *b)
{
	return cuda_of(b)->loaded_bytes;
}

static float *cuda_alloc(struct backend *b, size_t n_floats, struct err *err)
{
	return take(cuda_of(b), n_floats * sizeof(float), "the workspace", err);
}

static int cuda_kv_alloc(struct backend *b, const struct kv_shape *s, int32_t n_blocks, struct err *err)
{
	struct backend_cuda *c = cuda_of(b);
	size_t half = kv_block_bytes(s) / 2 / (size_t)s->n_layers * (size_t)n_blocks;

	c->caches = xcalloc((size_t)s->n_layers, sizeof(*c->caches));
	for (int i = 0; i < s->n_layers; i++) {
		void *k = take(c, half, "keys and values", err), *v = k ? take(c, half, "keys and values", err) : NULL;

		if (!v)
			return -1;
		c->caches[i] = (struct gpu_cache){k, v, (int)s->type, s->n_kv_heads, s->head_dim};
	}
	return wait_for(c, err); /* weights are on their way; their faults belong to loading */
}

/* ---- the step's record ---- */

/* Room for n_bytes in both step buffers. */
static int grow_step(struct backend_cuda *c, size_t n_bytes, struct err *err)
{
	size_t cap = c->step_cap ? c->step_cap : (size_t)64 << 10;

	if (n_bytes <= c->step_cap)
		return 0;
	while (cap < n_bytes)
		cap *= 2;
	if (c->step_host)
		c->api->release_host(c->gpu, c->step_host);
	if (c->step_device)
		c->api->release(c->gpu, c->step_device);
	c->step_cap = 0;
	c->step_host = NULL;
	c->step_device = take(c, cap, "the step's record", err);
	if (!c->step_device)
		return -1;
	c->step_host = c->api->alloc_host(c->gpu, cap);
	if (!c->step_host)
		return err_set(err, ERR_ENGINE, "%.1f MiB of pinned host memory cannot be had", mib(cap));
	c->step_cap = cap;
	return 0;
}

static size_t n_blocks_of(const struct batch_seq *q)
{
	return ((size_t)q->first_position + (size_t)q->n_tokens + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS;
}

static void fill_step(struct backend_cuda *c, const struct batch *batch, int32_t tile_rows, int32_t n_tiles)
{
	size_t n = (size_t)batch->n_tokens, at = 0, n_ints = 3 * n + (size_t)batch->n_logits;
	int32_t *tokens = (int32_t *)c->step_host, *positions = tokens + n, *slots = positions + n, *logit_rows = slots + n;
	struct gpu_tile *tiles = (struct gpu_tile *)(tokens + n_ints);
	int32_t *tables = (int32_t *)(tiles + n_tiles), *device = (int32_t *)c->step_device;
	int32_t tile = 0;

	memcpy(tokens, batch->tokens, n * sizeof(*tokens));
	memcpy(positions, batch->positions, n * sizeof(*positions));
	if (batch->n_logits > 0)
		memcpy(logit_rows, batch->logit_rows, (size_t)batch->n_logits * sizeof(*logit_rows));
	for (int32_t i = 0; i < batch->n_seqs; i++) {
		const struct batch_seq *q = &batch->seqs[i];

		for (int32_t k = 0; k < q->n_tokens; k++) {
			int32_t p = q->first_position + k;

			slots[q->first_row + k] = q->blocks[p / KV_BLOCK_TOKENS] * KV_BLOCK_TOKENS + p % KV_BLOCK_TOKENS;
		}
		for (int32_t k = 0; k < q->n_tokens; k += tile_rows)
			tiles[tile++] = (struct gpu_tile){q->first_row + k, q->n_tokens - k < tile_rows ? q->n_tokens - k : tile_rows,
			                                  q->first_position + k, (int32_t)at};
		memcpy(tables + at, q->blocks, n_blocks_of(q) * sizeof(*tables));
		at += n_blocks_of(q);
	}
	c->step = (struct step){.tokens = device,
	                        .positions = device + n,
	                        .slots = device + 2 * n,
	                        .logit_rows = device + 3 * n,
	                        .tiles = (const struct gpu_tile *)(device + n_ints),
	                        .tables = (const int32_t *)((const struct gpu_tile *)(device + n_ints) + n_tiles),
	                        .n_tiles = n_tiles};
	c->api->copy_in(c->gpu, c->step_device, c->step_host, (n_ints + at) * sizeof(int32_t) + (size_t)n_tiles * sizeof(*tiles));
}

static void cuda_begin(struct backend *b, const struct batch *batch)
{
	struct backend_cuda *c = cuda_of(b);
	int32_t tile_rows = gpu_tile_rows(c->head_dim, c->n_heads / c->n_kv_heads), n_tiles = 0;
	size_t n_bytes = (3 * (size_t)batch->n_tokens + (size_t)batch->n_logits) * sizeof(int32_t);

	c->batch = batch;
	for (int i = 0; i < MAX_ROPES; i++)
		c->ropes[i].is_filled = 0;
	for (int32_t i = 0; i < batch->n_seqs; i++) {
		n_tiles += (batch->seqs[i].n_tokens + tile_rows - 1) / tile_rows;
		n_bytes += n_blocks_of(&batch->seqs[i]) * sizeof(int32_t);
	}
	n_bytes += (size_t)n_tiles * sizeof(struct gpu_tile);
	err_clear(&c->failed);
	if (grow_step(c, n_bytes, &c->failed) == 0)
		fill_step(c, batch, tile_rows, n_tiles);
}

/* ---- ops: nothing is enqueued in a step that has failed already ---- */

static int has_failed(const struct backend_cuda *c)
{
	return c->failed.code != ERR_NONE;
}

static void cuda_embed(struct backend *b, const struct weight *w, float scale, float *x)
{
	struct backend_cuda *c = cuda_of(b);

	if (!has_failed(c))
		c->api->embed(c->gpu, &w->matrix, c->step.tokens, c->batch->n_tokens, scale, x);
}

static void cuda_norm(struct backend *b, const float *x, const struct vec *w, float eps, int32_t n_rows, const int32_t *rows_of,
                      float *out)
{
	struct backend_cuda *c = cuda_of(b);

	if (rows_of && rows_of != c->batch->logit_rows)
		BUG("rows of a norm are the batch's logit_rows");
	if (!has_failed(c))
		c->api->norm(c->gpu, x, w->device, eps, n_rows, w->n, rows_of ? c->step.logit_rows : NULL, out, 0);
}

static void cuda_norm_add(struct backend *b, float *x, const float *y, const struct vec *w, float eps, int32_t n_rows)
{
	struct backend_cuda *c = cuda_of(b);

	if (!has_failed(c))
		c->api->norm(c->gpu, y, w->device, eps, n_rows, w->n, NULL, x, 1);
}

static void cuda_linear(struct backend *b, const float *x, int32_t n_rows, const struct linear_out *outs, int n_outs)
{
	struct backend_cuda *c = cuda_of(b);

	for (int i = 0; i < n_outs && !has_failed(c); i++)
		c->api->linear(c->gpu, x, n_rows, &outs[i].w->matrix, outs[i].bias ? outs[i].bias->device : NULL, outs[i].out,
		               outs[i].accumulate);
}

/* The step's cosines and sines for this rope; NULL and c->failed. */
static const float *cos_sin_of(struct backend_cuda *c, const struct rope *rope)
{
	struct rope_table *t = NULL;
	size_t half = (size_t)rope->dim / 2;

	for (int i = 0; i < MAX_ROPES && !t; i++)
		if (c->ropes[i].rope == rope || !c->ropes[i].rope)
			t = &c->ropes[i];
	if (!t)
		BUG("more than %d kinds of rotary embedding", MAX_ROPES);
	if (!t->rope) {
		t->inv_freq = take(c, half * sizeof(float), "rotary embeddings", &c->failed);
		t->cos_sin =
		    t->inv_freq ? take(c, (size_t)c->max_tokens * 2 * half * sizeof(float), "rotary embeddings", &c->failed) : NULL;
		if (!t->cos_sin)
			return NULL;
		c->api->upload(c->gpu, t->inv_freq, rope->inv_freq, half * sizeof(float));
		t->rope = rope;
	}
	if (!t->is_filled)
		c->api->rope_table(c->gpu, c->step.positions, c->batch->n_tokens, t->inv_freq, (int)half, rope->attention_factor,
		                   t->cos_sin);
	t->is_filled = 1;
	return t->cos_sin;
}

static void cuda_rope_store(struct backend *b, int layer, float *q, float *k, const float *v, const struct vec *q_norm,
                            const struct vec *k_norm, float eps, const struct rope *rope)
{
	struct backend_cuda *c = cuda_of(b);
	const float *cos_sin = has_failed(c) ? NULL : cos_sin_of(c, rope);

	if (cos_sin)
		c->api->rope_store(c->gpu, &(struct gpu_rope_store){.q = q,
		                                                    .k = k,
		                                                    .v = v,
		                                                    .q_norm = q_norm ? q_norm->device : NULL,
		                                                    .k_norm = k_norm ? k_norm->device : NULL,
		                                                    .cos_sin = cos_sin,
		                                                    .slots = c->step.slots,
		                                                    .n_rows = c->batch->n_tokens,
		                                                    .n_heads = c->n_heads,
		                                                    .rope_dim = rope->dim,
		                                                    .interleaved = rope->interleaved,
		                                                    .eps = eps,
		                                                    .cache = c->caches[layer]});
}

static void cuda_attention(struct backend *b, int layer, const float *q, float scale, float softcap, int window, float *out)
{
	struct backend_cuda *c = cuda_of(b);

	if (!has_failed(c))
		c->api->attend(c->gpu, &(struct gpu_attend){.q = q,
		                                            .out = out,
		                                            .cache = c->caches[layer],
		                                            .tables = c->step.tables,
		                                            .tiles = c->step.tiles,
		                                            .n_tiles = c->step.n_tiles,
		                                            .n_heads = c->n_heads,
		                                            .scale = scale,
		                                            .softcap = softcap,
		                                            .window = window});
}

static void cuda_act_mul(struct backend *b, enum activation act, float *gate, const float *up, int32_t width)
{
	struct backend_cuda *c = cuda_of(b);

	if (!has_failed(c))
		c->api->act_mul(c->gpu, (int)act, gate, up, (size_t)c->batch->n_tokens * (size_t)width);
}

static int cuda_finish(struct backend *b, struct err *err)
{
	struct backend_cuda *c = cuda_of(b);
	int rc = wait_for(c, err);

	if (rc == 0 && has_failed(c))
		rc = err_set(err, c->failed.code, "%s", c->failed.msg);
	return rc;
}

static float *cuda_fetch(struct backend *b, float *x, size_t n_floats, struct err *err)
{
	struct backend_cuda *c = cuda_of(b);

	if (cuda_finish(b, err) < 0)
		return NULL;
	if (n_floats > c->fetched_cap) {
		if (c->fetched)
			c->api->release_host(c->gpu, c->fetched);
		c->fetched_cap = 0;
		c->fetched = c->api->alloc_host(c->gpu, n_floats * sizeof(float));
		if (!c->fetched) {
			err_set(err, ERR_ENGINE, "%.0f MiB of pinned host memory for logits cannot be had", mib(n_floats * sizeof(float)));
			return NULL;
		}
		c->fetched_cap = n_floats;
	}
	c->api->copy_out(c->gpu, c->fetched, x, n_floats * sizeof(float));
	return wait_for(c, err) < 0 ? NULL : c->fetched;
}

static void cuda_parallel(struct backend *b, workers_fn fn, void *arg)
{
	workers_run(cuda_of(b)->workers, fn, arg);
}

static int cuda_n_host_threads(const struct backend *b)
{
	return workers_count(cuda_of(b)->workers);
}

void backend_cuda_info(const struct backend *b, struct gpu_info *info)
{
	cuda_of(b)->api->info(cuda_of(b)->gpu, info);
}

static const struct backend_ops ops = {
    .name = "cuda",
    .free = cuda_free,
    .weight_new = cuda_weight_new,
    .vec_new = cuda_vec_new,
    .loaded_bytes = cuda_loaded_bytes,
    .alloc = cuda_alloc,
    .kv_alloc = cuda_kv_alloc,
    .begin = cuda_begin,
    .embed = cuda_embed,
    .norm = cuda_norm,
    .norm_add = cuda_norm_add,
    .linear = cuda_linear,
    .rope_store = cuda_rope_store,
    .attention = cuda_attention,
    .act_mul = cuda_act_mul,
    .finish = cuda_finish,
    .fetch = cuda_fetch,
    .parallel = cuda_parallel,
    .n_host_threads = cuda_n_host_threads,
};

struct backend *backend_cuda_new(const struct model_config *m, const struct cuda_options *o, int32_t max_tokens,
                                 struct err *err)
{
	struct backend_cuda *c;
	char why[256];

	if (m->head_dim > GPU_MAX_HEAD_DIM) {
		err_set(err, ERR_MODEL, "the model's heads have %d elements, the CUDA backend knows up to %d", m->head_dim,
		        GPU_MAX_HEAD_DIM);
		return NULL;
	}
	c = xcalloc(1, sizeof(*c));
	c->base.ops = &ops;
	c->api = o->api;
	c->n_heads = m->n_heads;
	c->n_kv_heads = m->n_kv_heads;
	c->head_dim = m->head_dim;
	c->max_tokens = max_tokens;
	c->workers = workers_new(o->n_threads > 0 ? o->n_threads : workers_available_cpus(), err);
	if (!c->workers) {
		free(c);
		return NULL;
	}
	if (c->api->open(o->device, &c->gpu, why, sizeof(why)) != GPU_OK) {
		err_set(err, ERR_ENGINE, "GPU %d: %s", o->device, why);
		workers_free(c->workers);
		free(c);
		return NULL;
	}
	return &c->base;
}
