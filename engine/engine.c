/* engine.c: open and size everything once; then schedule, forward, sample, finish. */
#include "engine/engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/workers.h"
#include "engine/cuda/backend_cuda.h"
#include "engine/engine_ops.h"
#include "engine/forward.h"
#include "engine/generation.h"
#include "engine/model/model.h"
#include "engine/schedule.h"

enum {
	DEFAULT_CHUNK_TOKENS = 512,
	DEFAULT_MAX_BATCH = 128,
	MIN_KV_TOKENS = 256, /* less than this is no use to anyone */
};

struct model_engine {
	struct engine base; /* first: ops, plan */
	struct model *model;
	const struct text *text;
	struct backend *backend;
	struct forward *forward;
	struct kv_pool *pool;
	struct scheduler *scheduler;
	struct sampler **samplers; /* [n_host_threads] */
	int n_samplers;
	/* The step's batch. */
	int32_t *tokens, *positions;  /* [chunk_tokens] */
	struct batch_seq *batch_seqs; /* [max_batch] */
	int32_t *logit_rows;          /* [max_batch] */
	struct generation **logit_generations; /* [max_batch] whose next token each row decides */
	int32_t *chosen;              /* [FORWARD_LOGIT_ROWS] */
	struct token_logprob *chosen_logprobs; /* [FORWARD_LOGIT_ROWS, 21] */
	struct generation **instant;  /* requests with nothing to generate */
	size_t n_instant, instant_cap;
	struct engine_stats stats;
};

enum { LOGPROB_WIDTH = 21 };

static const struct engine_ops model_engine_ops;
static void close_model(struct engine *engine);

/* ---- sizes ---- */

size_t kv_block_bytes(const struct kv_shape *s)
{
	size_t element = s->type == KV_F32 ? 4 : 2;

	return 2 * (size_t)s->n_layers * (size_t)s->n_kv_heads * (size_t)s->head_dim * KV_BLOCK_TOKENS * element;
}

/* A number in one of the cgroup files, or the default ("max", or no such file). */
static size_t read_bytes_file(const char *path, size_t otherwise)
{
	FILE *f = fopen(path, "r");
	unsigned long long v;
	size_t n = otherwise;

	if (!f)
		return otherwise;
	if (fscanf(f, "%llu", &v) == 1)
		n = (size_t)v;
	fclose(f);
	return n;
}

/* What can be had without swapping: MemAvailable, or what the cgroup leaves of its limit. */
static size_t available_bytes(void)
{
	size_t available = (size_t)1 << 30, limit, used;
	char line[128];
	FILE *f = fopen("/proc/meminfo", "r");

	while (f && fgets(line, sizeof(line), f)) {
		unsigned long long kib;

		if (sscanf(line, "MemAvailable: %llu", &kib) == 1)
			available = (size_t)kib * 1024;
	}
	if (f)
		fclose(f);
	limit = read_bytes_file("/sys/fs/cgroup/memory.max", SIZE_MAX);
	used = read_bytes_file("/sys/fs/cgroup/memory.current", 0);
	if (limit == SIZE_MAX) {
		limit = read_bytes_file("/sys/fs/cgroup/memory/memory.limit_in_bytes", SIZE_MAX);
		used = read_bytes_file("/sys/fs/cgroup/memory/memory.usage_in_bytes", 0);
	}
	if (limit != SIZE_MAX && limit > used && limit - used < available)
		available = limit - used;
	return available;
}

/* What --memory is where it is not given. A GPU is nobody else's as a rule; what is left is for the driver's own use. -1: no such GPU. */
static int default_budget(const struct engine_options *o, size_t *bytes, struct err *err)
{
	struct gpu_info info;
	char why[256];
	struct gpu *gpu;

	if (!o->gpu) {
		*bytes = available_bytes() / 2;
		return 0;
	}
	/* Open, so that the context's own memory is taken already. */
	if (o->gpu->open(o->gpu_device, &gpu, why, sizeof(why)) != GPU_OK)
		return err_set(err, ERR_ENGINE, "GPU %d: %s", o->gpu_device, why);
	o->gpu->info(gpu, &info);
	o->gpu->close(gpu);
	*bytes = info.free_bytes / 100 * 92;
	return 0;
}

static double mib(size_t n_bytes)
{
	return (double)n_bytes / (1024.0 * 1024.0);
}

/* Everything but the KV cache: workspace of the step, quantised activations, sampling. Also a margin for the tokenizer, rows and code. */
static size_t workspace_bytes(const struct model_config *c, int32_t max_tokens, int32_t max_batch, int n_threads)
{
	size_t widest = (size_t)(c->ffn_hidden > c->hidden ? c->ffn_hidden : c->hidden);

	return forward_workspace_bytes(c, max_tokens, max_batch) + (size_t)max_tokens * widest * 2 +
	       (size_t)n_threads * ((size_t)c->n_vocab * 20 + ((size_t)2 << 20)) + ((size_t)64 << 20);
}

/* KV blocks from what the memory budget leaves, but no more than the batch could ever use. */
static int plan_kv(struct engine_plan *p, const struct model_config *c, size_t budget, const struct kv_shape *shape, struct err *err)
{
	size_t fixed = p->weight_bytes + p->workspace_bytes, n_blocks, useful;

	p->kv_block_bytes = kv_block_bytes(shape);
	n_blocks = budget > fixed ? (budget - fixed) / p->kv_block_bytes : 0;
	useful = ((size_t)(c->n_context > 0 ? c->n_context : 32768) / KV_BLOCK_TOKENS + 1) * (size_t)p->max_batch;
	if (n_blocks > useful)
		n_blocks = useful;
	if (n_blocks > INT32_MAX / KV_BLOCK_TOKENS)
		n_blocks = INT32_MAX / KV_BLOCK_TOKENS;
	if (n_blocks * KV_BLOCK_TOKENS < MIN_KV_TOKENS)
		return err_set(err, ERR_ENGINE,
		               "--memory %.0f MiB is too little: weights take %.0f MiB, workspace %.0f MiB, and keys and values %.2f MiB for each %d tokens",
		               mib(budget), mib(p->weight_bytes), mib(p->workspace_bytes), mib(p->kv_block_bytes), KV_BLOCK_TOKENS);
	p->n_kv_blocks = (int32_t)n_blocks;
	p->kv_bytes = n_blocks * p->kv_block_bytes;
	p->total_bytes = fixed + p->kv_bytes;
	p->max_context = p->n_kv_blocks * KV_BLOCK_TOKENS;
	if (c->n_context > 0 && p->max_context > c->n_context)
		p->max_context = c->n_context;
	return 0;
}

static void plan_batch(struct engine_plan *p, const struct engine_options *o)
{
	p->max_batch = o->max_batch ? o->max_batch : DEFAULT_MAX_BATCH;
	p->chunk_tokens = o->chunk_tokens ? o->chunk_tokens : DEFAULT_CHUNK_TOKENS;
	if (p->chunk_tokens < p->max_batch)
		p->chunk_tokens = p->max_batch;
}

static struct kv_shape kv_shape_of(const struct model_config *c, enum kv_type type)
{
	return (struct kv_shape){.n_layers = c->n_layers, .n_kv_heads = c->n_kv_heads, .head_dim = c->head_dim, .type = type ? type : KV_F16};
}

static int check_options(const struct engine_options *o, struct err *err)
{
	if (o->max_batch < 0 || o->max_batch > 4096)
		return err_set(err, ERR_USAGE, "max-batch is %d, must be 1 to 4096", o->max_batch);
	if (o->chunk_tokens < 0 || o->chunk_tokens > 65536)
		return err_set(err, ERR_USAGE, "chunk is %d, must be 1 to 65536", o->chunk_tokens);
	return 0;
}

static int check_text(const struct model_engine *e, struct err *err)
{
	int32_t n = tokenizer_n_vocab(e->text->tokenizer);

	/* Padding rows of the output matrix are usual; tokens without a row are not. */
	if (n > e->model->config.n_vocab && tokenizer_token(e->text->tokenizer, e->model->config.n_vocab, NULL))
		return err_set(err, ERR_MODEL, "the tokenizer has ids up to %d, the model only %d rows", n - 1, e->model->config.n_vocab);
	return 0;
}

static void alloc_step(struct model_engine *e)
{
	size_t batch = (size_t)e->base.plan.max_batch, chunk = (size_t)e->base.plan.chunk_tokens;

	e->tokens = xcalloc(chunk, sizeof(*e->tokens));
	e->positions = xcalloc(chunk, sizeof(*e->positions));
	e->batch_seqs = xcalloc(batch, sizeof(*e->batch_seqs));
	e->logit_rows = xcalloc(batch, sizeof(*e->logit_rows));
	e->logit_generations = xcalloc(batch, sizeof(*e->logit_generations));
	e->chosen = xcalloc(FORWARD_LOGIT_ROWS, sizeof(*e->chosen));
	e->chosen_logprobs = xcalloc((size_t)FORWARD_LOGIT_ROWS * LOGPROB_WIDTH, sizeof(*e->chosen_logprobs));
	e->n_samplers = e->backend->ops->n_host_threads(e->backend);
	e->samplers = xcalloc((size_t)e->n_samplers, sizeof(*e->samplers));
	for (int i = 0; i < e->n_samplers; i++)
		e->samplers[i] = sampler_new(e->model->config.n_vocab);
}

int engine_forecast(const struct model *m, const struct engine_options *o, struct engine_plan *p, struct err *err)
{
	struct kv_shape shape = kv_shape_of(&m->config, o->kv_type);

	*p = (struct engine_plan){.is_device = o->gpu != NULL};
	if (check_options(o, err) < 0)
		return -1;
	plan_batch(p, o);
	p->n_threads = o->n_threads ? o->n_threads : workers_available_cpus();
	/* Sampling's scratch is host memory. */
	p->workspace_bytes = workspace_bytes(&m->config, p->chunk_tokens, p->max_batch, o->gpu ? 0 : p->n_threads);
	p->weight_bytes = forward_weight_bytes(m, o->gpu ? backend_cuda_matrix_bytes : backend_cpu_matrix_bytes);
	p->budget_bytes = o->memory_bytes;
	if (!p->budget_bytes && default_budget(o, &p->budget_bytes, err) < 0)
		return -1;
	return plan_kv(p, &m->config, p->budget_bytes, &shape, err);
}

/* ---- open and close ---- */

struct engine *engine_open(const char *model_path, const struct text *text, const struct engine_options *o, struct err *err)
{
	struct model_engine *e;
	struct engine_plan *p;
	struct cpu_options cpu = {.n_threads = o->n_threads, .math = o->math ? o->math : MATH_FAST, .isa = o->isa};
	struct cuda_options cuda = {.api = o->gpu, .device = o->gpu_device, .n_threads = o->n_threads};
	struct kv_shape shape;
	size_t budget = o->memory_bytes;

	if (check_options(o, err) < 0 || (!budget && default_budget(o, &budget, err) < 0))
		return NULL;
	e = xcalloc(1, sizeof(*e));
	e->base.ops = &model_engine_ops;
	e->text = text;
	e->model = model_open(model_path, err);
	if (!e->model || check_text(e, err) < 0)
		goto fail;
	p = &e->base.plan;
	p->budget_bytes = budget;
	plan_batch(p, o);
	e->backend = o->gpu ? backend_cuda_new(&e->model->config, &cuda, p->chunk_tokens, err)
	                    : backend_cpu_new(&e->model->config, &cpu, p->chunk_tokens, err);
	if (!e->backend)
		goto fail;
	p->backend = e->backend->ops->name;
	p->is_device = o->gpu != NULL;
	p->isa = o->gpu ? NULL : backend_cpu_isa(e->backend);
	p->n_threads = e->backend->ops->n_host_threads(e->backend);
	p->workspace_bytes = workspace_bytes(&e->model->config, p->chunk_tokens, p->max_batch, o->gpu ? 0 : p->n_threads);
	shape = kv_shape_of(&e->model->config, o->kv_type);
	/* Before the long load: does it fit at all? */
	p->weight_bytes = e->model->weight_bytes;
	if (plan_kv(p, &e->model->config, budget, &shape, err) < 0)
		goto fail;
	e->forward = forward_new(e->backend, e->model, p->chunk_tokens, p->max_batch, err);
	if (!e->forward)
		goto fail;
	p->weight_bytes = e->backend->ops->loaded_bytes(e->backend);
	if (plan_kv(p, &e->model->config, budget, &shape, err) < 0 || e->backend->ops->kv_alloc(e->backend, &shape, p->n_kv_blocks, err) < 0)
		goto fail;
	e->pool = kv_pool_new(p->n_kv_blocks, !o->no_prefix_cache);
	e->scheduler = scheduler_new(e->pool, p->max_batch, p->chunk_tokens);
	alloc_step(e);
	return &e->base;
fail:
	close_model(&e->base);
	return NULL;
}

static void close_model(struct engine *engine)
{
	struct model_engine *e = (struct model_engine *)engine;
	struct sequence *q;

	while (e->scheduler && (q = scheduler_first(e->scheduler))) {
		scheduler_remove(e->scheduler, q);
		generation_free((struct generation *)q);
	}
	for (size_t i = 0; i < e->n_instant; i++)
		generation_free(e->instant[i]);
	scheduler_free(e->scheduler);
	kv_pool_free(e->pool);
	forward_free(e->forward);
	if (e->backend)
		e->backend->ops->free(e->backend);
	for (int i = 0; i < e->n_samplers; i++)
		sampler_free(e->samplers[i]);
	free(e->samplers);
	free(e->instant);
	free(e->tokens);
	free(e->positions);
	free(e->batch_seqs);
	free(e->logit_rows);
	free(e->logit_generations);
	free(e->chosen);
	free(e->chosen_logprobs);
	model_free(e->model);
	free(e);
}

static struct model_engine *get_model_engine(const struct engine *engine)
{
	if (engine->ops != &model_engine_ops)
		BUG("this engine runs no model");
	return (struct model_engine *)engine;
}

const struct model *engine_model(const struct engine *engine)
{
	return get_model_engine(engine)->model;
}

/* ---- requests ---- */

static int submit(struct engine *engine, const struct engine_request *r, struct err *err)
{
	struct model_engine *e = (struct model_engine *)engine;
	struct generation *g = generation_new(r, e->text, e->model->config.n_vocab, e->base.plan.max_context, err);

	if (!g)
		return -1;
	if (g->seq.n_tokens >= g->seq.max_total) {
		MEM_GROW(e->instant, e->instant_cap, e->n_instant + 1);
		e->instant[e->n_instant++] = g;
	} else {
		scheduler_add(e->scheduler, &g->seq);
	}
	return 0;
}

/* ---- one step ---- */

static void lay_out_batch(struct model_engine *e, struct sequence **seqs, int32_t n_seqs, struct batch *batch)
{
	int32_t row = 0;
	double now = clock_seconds();

	*batch = (struct batch){.tokens = e->tokens, .positions = e->positions, .seqs = e->batch_seqs, .logit_rows = e->logit_rows, .n_seqs = n_seqs};
	for (int32_t i = 0; i < n_seqs; i++) {
		struct sequence *q = seqs[i];
		struct generation *g = (struct generation *)q;

		if (g->admitted_s == 0) {
			g->admitted_s = now;
			e->stats.prompt_tokens += (uint64_t)q->n_prompt;
			e->stats.cached_tokens += (uint64_t)q->n_cached;
		}
		e->batch_seqs[i] = (struct batch_seq){.blocks = q->blocks, .first_row = row, .n_tokens = q->n_scheduled, .first_position = q->n_computed};
		for (int32_t k = 0; k < q->n_scheduled; k++) {
			e->tokens[row] = q->tokens[q->n_computed + k];
			e->positions[row++] = q->n_computed + k;
		}
		if (q->n_computed + q->n_scheduled == q->n_tokens) {
			e->logit_generations[batch->n_logits] = g;
			e->logit_rows[batch->n_logits++] = row - 1;
		}
	}
	batch->n_tokens = row;
}

struct sample_job {
	struct model_engine *e;
	float *logits; /* [n, n_vocab] */
	int32_t first, n;
	struct work_counter next;
};

static void sample_some(void *arg, int thread, int n_threads)
{
	struct sample_job *job = arg;
	struct model_engine *e = job->e;
	size_t i;

	(void)n_threads;
	while ((i = work_counter_take(&job->next, 1)) < (size_t)job->n) {
		const struct generation *g = e->logit_generations[job->first + (int32_t)i];
		const struct sequence *q = &g->seq;
		struct token_logprob *top = g->sampling.n_logprobs >= 0 ? e->chosen_logprobs + i * LOGPROB_WIDTH : NULL;

		e->chosen[i] = sampler_choose(e->samplers[thread], job->logits + i * (size_t)e->model->config.n_vocab, &g->sampling, q->tokens,
		                              (size_t)q->n_prompt, q->tokens + q->n_prompt, (size_t)generation_n_output(g), g->banned, g->n_banned,
		                              top);
	}
}

static void end_generation(struct model_engine *e, struct generation *g, enum finish_reason reason, const char *error, engine_result_fn fn,
                           void *arg)
{
	struct engine_result r = generation_result(g, reason, error);

	e->stats.recomputed_tokens += r.n_recomputed;
	scheduler_finish(e->scheduler, &g->seq);
	fn(arg, &r);
	generation_free(g);
}

/* Choose the next token of every sequence whose tokens are all computed, a slab of logits at a time. */
static int sample(struct model_engine *e, const struct batch *batch, engine_result_fn fn, void *arg, struct err *err)
{
	for (int32_t first = 0; first < batch->n_logits; first += FORWARD_LOGIT_ROWS) {
		struct sample_job job = {.e = e, .first = first};
		double start = clock_seconds(), computed;

		job.n = batch->n_logits - first < FORWARD_LOGIT_ROWS ? batch->n_logits - first : FORWARD_LOGIT_ROWS;
		job.logits = forward_logits(e->forward, first, job.n, err);
		if (!job.logits)
			return -1;
		computed = clock_seconds();
		e->stats.forward_s += computed - start;
		e->backend->ops->parallel(e->backend, sample_some, &job);
		for (int32_t i = 0; i < job.n; i++) {
			struct generation *g = e->logit_generations[first + i];
			enum finish_reason reason;

			if (e->chosen[i] < 0) {
				end_generation(e, g, FINISH_ERROR, "the model's logits are not numbers", fn, arg);
				continue;
			}
			e->stats.output_tokens++;
			reason = generation_add(g, e->chosen[i], e->chosen_logprobs + (size_t)i * LOGPROB_WIDTH);
			if (reason != FINISH_NONE)
				end_generation(e, g, reason, NULL, fn, arg);
		}
		e->stats.sample_s += clock_seconds() - computed;
	}
	return 0;
}

static void finish_instant(struct model_engine *e, engine_result_fn fn, void *arg)
{
	for (size_t i = 0; i < e->n_instant; i++) {
		struct engine_result r = generation_result(e->instant[i], FINISH_LENGTH, NULL);

		fn(arg, &r);
		generation_free(e->instant[i]);
	}
	e->n_instant = 0;
}

static long step(struct engine *engine, engine_result_fn fn, void *arg, struct err *err)
{
	struct model_engine *e = (struct model_engine *)engine;
	struct sequence **seqs;
	struct batch batch;
	int32_t n_seqs;
	double start = clock_seconds(), laid_out;

	finish_instant(e, fn, arg);
	n_seqs = scheduler_step(e->scheduler, &seqs);
	if (n_seqs > 0) {
		lay_out_batch(e, seqs, n_seqs, &batch);
		laid_out = clock_seconds();
		if (forward_run(e->forward, &batch, err) < 0)
			return -1;
		e->stats.forward_s += clock_seconds() - laid_out;
		scheduler_commit(e->scheduler);
		if (sample(e, &batch, fn, arg, err) < 0)
			return -1;
		e->stats.n_steps++;
		e->stats.computed_tokens += (uint64_t)batch.n_tokens;
	}
	e->stats.busy_s += clock_seconds() - start;
	return (long)(scheduler_n_running(e->scheduler) + scheduler_n_waiting(e->scheduler));
}

/* ---- looking in ---- */

static size_t n_waiting(const struct engine *e)
{
	return scheduler_n_waiting(((const struct model_engine *)e)->scheduler);
}

static size_t n_running(const struct engine *e)
{
	return scheduler_n_running(((const struct model_engine *)e)->scheduler);
}

static void each_running(struct engine *engine, engine_result_fn fn, void *arg)
{
	const struct model_engine *e = (const struct model_engine *)engine;

	for (struct sequence *q = scheduler_first(e->scheduler); q; q = scheduler_after(e->scheduler, q)) {
		struct engine_result r = generation_result((struct generation *)q, FINISH_NONE, NULL);

		fn(arg, &r);
	}
}

static void get_stats(const struct engine *engine, struct engine_stats *s)
{
	const struct model_engine *e = (const struct model_engine *)engine;

	*s = e->stats;
	s->n_preemptions = scheduler_n_preemptions(e->scheduler);
	s->n_running = (int32_t)scheduler_n_running(e->scheduler);
	s->n_waiting = (int32_t)scheduler_n_waiting(e->scheduler);
	s->kv_blocks_used = kv_pool_n_blocks(e->pool) - kv_pool_available(e->pool);
}

static const struct engine_ops model_engine_ops = {
	.submit = submit,
	.step = step,
	.n_waiting = n_waiting,
	.n_running = n_running,
	.each_running = each_running,
	.get_stats = get_stats,
	.close = close_model,
};

int engine_logits(struct engine *engine, const int32_t *ids, int32_t n, const int32_t *at, int32_t n_at, float *out, struct err *err)
{
	struct model_engine *e = get_model_engine(engine);
	int32_t n_blocks = (n + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS, n_have = 0, done = 0, rc = -1;
	size_t width = (size_t)e->model->config.n_vocab;
	int32_t *blocks = xcalloc((size_t)n_blocks, sizeof(*blocks));

	for (; n_have < n_blocks; n_have++) {
		blocks[n_have] = kv_pool_alloc(e->pool);
		if (blocks[n_have] < 0) {
			err_set(err, ERR_ENGINE, "%d tokens do not fit the KV cache", n);
			goto out;
		}
	}
	for (int32_t first = 0; first < n; first += e->base.plan.chunk_tokens) {
		int32_t k = n - first < e->base.plan.chunk_tokens ? n - first : e->base.plan.chunk_tokens;
		struct batch_seq seq = {.blocks = blocks, .n_tokens = k, .first_position = first};
		struct batch batch = {.n_tokens = k, .tokens = ids + first, .positions = e->positions, .n_seqs = 1, .seqs = &seq, .logit_rows = e->logit_rows};

		for (int32_t i = 0; i < k; i++)
			e->positions[i] = first + i;
		for (int32_t i = done; i < n_at && at[i] < first + k && batch.n_logits < e->base.plan.max_batch; i++)
			e->logit_rows[batch.n_logits++] = at[i] - first;
		if (forward_run(e->forward, &batch, err) < 0)
			goto out;
		for (int32_t i = 0; i < batch.n_logits; i++) {
			const float *row = forward_logits(e->forward, i, 1, err);

			if (!row)
				goto out;
			memcpy(out + (size_t)done++ * width, row, width * sizeof(*row));
		}
	}
	rc = done == n_at ? 0 : err_set(err, ERR_USAGE, "%d positions asked for, %d found: they must ascend, at most %d in a chunk", n_at, done, e->base.plan.max_batch);
out:
	for (int32_t i = 0; i < n_have; i++)
		kv_pool_unref(e->pool, blocks[i]);
	free(blocks);
	return rc;
}
