/* cmd_bench.c: how fast a model is on this machine, measured with the real engine on made-up token ids; kept for `plan`.
 *
 * Measured are a few stretches of each kind of step: prefill of full chunks, of a long prompt, of many short prompts; decode at several batch
 * sizes over a short and a long context. estimate_fit turns them into coefficients. The prompts are all different, so nothing is shared. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/workers.h"
#include "engine/cuda/cuda_plugin.h"
#include "engine/model/model.h"
#include "jobs/speed.h"
#include "runner/commands.h"
#include "runner/engine_choice.h"
#include "runner/signals.h"
#include "runner/spec.h"

struct bench_options {
	const char *model, *device;
	int devices;
	int math, kv_type;
	size_t memory;
	int64_t threads, max_batch, chunk;
	double seconds;
};

#define BENCH_FIELD(name) offsetof(struct bench_options, name)
static const struct option_spec bench_options[] = {
    {"model", 'm', OPTION_STRING, BENCH_FIELD(model), "MODEL", "the model: .gguf file or Hugging Face directory", 0, 0, NULL},
    {"device", 0, OPTION_STRING, BENCH_FIELD(device), "auto|cpu|cuda[:N]", "what computes (default cpu)", 0, 0, NULL},
    {"devices", 0, OPTION_FLAG, BENCH_FIELD(devices), NULL, "only say what could compute on this machine, and why something cannot", 0, 0, NULL},
    {"math", 0, OPTION_CHOICE, BENCH_FIELD(math), "f32|fast", "arithmetic (default fast)", 0, 0, "fast|f32"},
    {"kv-type", 0, OPTION_CHOICE, BENCH_FIELD(kv_type), "f16|bf16|f32", "type of keys and values (default f16)", 0, 0,
     "f16|bf16|f32"},
    {"memory", 0, OPTION_SIZE, BENCH_FIELD(memory), "SIZE", "all of the engine's memory (default: half of what is free)", 0, 0,
     NULL},
    {"threads", 0, OPTION_INT, BENCH_FIELD(threads), "N", "threads (default: all processors)", 1, 4096, NULL},
    {"max-batch", 0, OPTION_INT, BENCH_FIELD(max_batch), "N", "most sequences at once", 1, 4096, NULL},
    {"chunk", 0, OPTION_INT, BENCH_FIELD(chunk), "N", "most tokens in a step (default 512)", 1, 65536, NULL},
    {"seconds", 0, OPTION_NUMBER, BENCH_FIELD(seconds), "N", "measure for about so long (default 20)", 1, 3600, NULL},
    {0},
};

static void init_options(void *options)
{
	((struct bench_options *)options)->seconds = 20;
}

enum { MAX_STRETCHES = 32, MAX_DECODE_STEPS = 128 };

struct stretch { /* what was measured */
	struct cost_sample sample;
	int is_decode;
	int64_t batch, context; /* prompts of so many tokens; sequences at this context */
};

struct bench {
	struct engine *engine;
	const struct engine_plan *plan;
	int32_t n_vocab;
	double seconds;
	unsigned seed;
	struct stretch stretches[MAX_STRETCHES];
	size_t n;
	int failed; /* a request came back with an error */
};

static void on_result(void *arg, const struct engine_result *r)
{
	struct bench *b = arg;

	b->failed |= r->reason == FINISH_ERROR;
}

static int submit(struct bench *b, int64_t n_prompt, int64_t n_output, struct err *err)
{
	int32_t *ids = xcalloc((size_t)n_prompt, sizeof(*ids));
	struct engine_request q = {.prompt = ids,
	                           .n_prompt = (size_t)n_prompt,
	                           .sampling = {.top_p = 1,
	                                        .repetition_penalty = 1,
	                                        .n_logprobs = -1,
	                                        .max_tokens = (int32_t)n_output,
	                                        .ignore_eos = 1}};
	int rc;

	for (int64_t i = 0; i < n_prompt; i++)
		ids[i] = (int32_t)((unsigned)rand_r(&b->seed) % (unsigned)b->n_vocab);
	rc = engine_submit(b->engine, &q, err);
	free(ids);
	return rc;
}

/* One step; *left: requests that are not finished. */
static int step(struct bench *b, long *left, struct err *err)
{
	if (signals_received())
		return signals_drained(err);
	*left = engine_step(b->engine, on_result, b, err);
	if (*left >= 0 && b->failed)
		return err_set(err, ERR_ENGINE, "the model's logits are not numbers");
	return *left < 0 ? -1 : 0;
}

static struct stretch *stretch_add(struct bench *b)
{
	if (b->n == MAX_STRETCHES)
		BUG("more than %d stretches", MAX_STRETCHES);
	b->stretches[b->n] = (struct stretch){0};
	return &b->stretches[b->n++];
}

/* n prompts of this length, one token from each; again until some time has passed. Returns tokens per second, -1. */
static double measure_prefill(struct bench *b, int64_t n, int64_t length, double seconds, struct err *err)
{
	struct stretch *s = stretch_add(b);
	double start = clock_seconds(), *terms = s->sample.n;
	struct engine_stats before, after;

	s->batch = n;
	s->context = length;
	engine_get_stats(b->engine, &before);
	do {
		long left;

		for (int64_t i = 0; i < n; i++)
			if (submit(b, length, 1, err) < 0)
				return -1;
		do
			if (step(b, &left, err) < 0)
				return -1;
		while (left > 0);
		terms[COST_SAMPLE] += (double)n;
		terms[COST_ATTEND_PREFILL] += (double)n * (double)length * (double)(length + 1) / 2;
	} while (clock_seconds() - start < seconds);
	s->sample.seconds = clock_seconds() - start;
	engine_get_stats(b->engine, &after);
	terms[COST_STEP] = (double)(after.n_steps - before.n_steps);
	terms[COST_TOKEN] = (double)(after.computed_tokens - before.computed_tokens);
	return terms[COST_TOKEN] / s->sample.seconds;
}

/* batch sequences after their prompts: n_steps steps in which each gets a token. Returns seconds per step, -1. */
static double measure_decode(struct bench *b, int64_t batch, int64_t context, int64_t n_steps, struct err *err)
{
	struct stretch *s = stretch_add(b);
	int64_t n_prefill_steps = batch * context / b->plan->chunk_tokens + 2;
	struct engine_stats before, now;
	long left = 0;

	s->is_decode = 1;
	s->batch = batch;
	s->context = context;
	engine_get_stats(b->engine, &before);
	for (int64_t i = 0; i < batch; i++)
		if (submit(b, context, n_prefill_steps + n_steps + 2, err) < 0)
			return -1;
	do {
		if (step(b, &left, err) < 0)
			return -1;
		engine_get_stats(b->engine, &now);
	} while (now.computed_tokens - before.computed_tokens < (uint64_t)(batch * context) || now.n_waiting > 0);
	for (int64_t i = 0; i < n_steps; i++) {
		double start = clock_seconds();

		/* The sequences together have so many positions, and each attends to all of its own. */
		s->sample.n[COST_ATTEND_DECODE] += (double)(batch * context) + (double)(now.output_tokens - before.output_tokens);
		if (step(b, &left, err) < 0)
			return -1;
		s->sample.seconds += clock_seconds() - start;
		engine_get_stats(b->engine, &now);
	}
	s->sample.n[COST_STEP] = (double)n_steps;
	s->sample.n[COST_TOKEN] = s->sample.n[COST_SAMPLE] = (double)(n_steps * batch);
	while (left > 0)
		if (step(b, &left, err) < 0)
			return -1;
	return s->sample.seconds / (double)n_steps;
}

static int64_t clamp(double x, int64_t min, int64_t max)
{
	return x < (double)min ? min : x > (double)max ? max : (int64_t)x;
}

static int measure(struct bench *b, struct err *err)
{
	int64_t chunk = b->plan->chunk_tokens, room = (int64_t)b->plan->n_kv_blocks * KV_BLOCK_TOKENS, longest, context, batch;
	double speed, step_s;

	if (chunk > b->plan->max_context - 1)
		chunk = b->plan->max_context - 1;
	/* The first steps touch memory for the first time; they do not count. */
	if (measure_prefill(b, 1, chunk, 0, err) < 0)
		return -1;
	b->n = 0;
	speed = measure_prefill(b, 1, chunk, b->seconds / 10, err);
	if (speed < 0)
		return -1;
	longest = clamp(b->seconds / 5 * speed, chunk, b->plan->max_context - 1 < 4096 ? b->plan->max_context - 1 : 4096);
	if (longest > chunk && measure_prefill(b, 1, longest, b->seconds / 10, err) < 0)
		return -1;
	if (chunk >= 16 && measure_prefill(b, clamp((double)chunk / 16, 1, b->plan->max_batch), 16, b->seconds / 20, err) < 0)
		return -1;
	step_s = 1 / speed;
	for (batch = 1; batch <= b->plan->max_batch && batch * (32 + MAX_DECODE_STEPS) <= room; batch *= 4) {
		int64_t n_steps = clamp(b->seconds / 20 / step_s, 4, MAX_DECODE_STEPS);

		if (32 + MAX_DECODE_STEPS + 16 > b->plan->max_context)
			break;
		step_s = measure_decode(b, batch, 32, n_steps, err);
		if (step_s < 0)
			return -1;
		step_s *= 2; /* of the next, a guess */
	}
	/* As long as a third of the time lets us fill the cache. */
	context = clamp(longest / 2, 64, 2048);
	for (batch = 1; batch <= 16 && batch <= b->plan->max_batch; batch *= 4) {
		int64_t n_prefill = batch * context;

		if (batch > 1 && (double)n_prefill > b->seconds / 5 * speed)
			break;
		if (n_prefill + batch * (n_prefill / chunk + 70) > room || context + n_prefill / chunk + 70 > b->plan->max_context)
			break;
		if (measure_decode(b, batch, context, clamp(b->seconds / 40 * speed, 4, 64), err) < 0)
			return -1;
	}
	return 0;
}

static void print_table(const struct bench *b, const struct cost_model *m)
{
	printf("%-8s %9s %9s %14s %10s %10s\n", "step", "sequences", "context", "tokens/s", "ms a step", "model says");
	for (size_t i = 0; i < b->n; i++) {
		const struct stretch *s = &b->stretches[i];
		double steps = s->sample.n[COST_STEP];

		printf("%-8s %9" PRId64 " %9" PRId64 " %14.1f %10.2f %10.2f\n", s->is_decode ? "decode" : "prefill", s->batch, s->context,
		       s->sample.n[COST_TOKEN] / s->sample.seconds, 1e3 * s->sample.seconds / steps, 1e3 * estimate_sample(m, &s->sample) / steps);
	}
	printf("\na step %.3f ms, a token %.2f us, sampled %.2f us more; attention over 1000 positions %.2f us in prefill, %.2f us in decode\n",
	       1e3 * m->s[COST_STEP], 1e6 * m->s[COST_TOKEN], 1e6 * m->s[COST_SAMPLE], 1e9 * m->s[COST_ATTEND_PREFILL],
	       1e9 * m->s[COST_ATTEND_DECODE]);
}

static int measure_and_keep(const struct bench_options *o, const struct engine_choice *c, struct bench *b, struct err *err)
{
	char *machine = speed_machine(), *path = NULL, *fingerprint = engine_choice_fingerprint(c, engine_model(b->engine)->fingerprint);
	struct speed_key key = {fingerprint, spec_math_name(o->math ? o->math : MATH_FAST),
	                        spec_kv_name(o->kv_type ? o->kv_type : KV_F16), machine, b->plan->n_threads};
	struct cost_sample samples[MAX_STRETCHES];
	struct speed s;
	int rc = -1;

	if (measure(b, err) < 0)
		goto out;
	for (size_t i = 0; i < b->n; i++)
		samples[i] = b->stretches[i].sample;
	speed_read(&key, &s); /* the lengths of answers stay */
	s.source = SPEED_BENCH;
	s.cost.batch = b->plan->max_batch;
	s.cost.chunk_tokens = b->plan->chunk_tokens;
	s.factor = 1;
	s.learnt_s = 0;
	s.measured_unix_ms = clock_unix_ms();
	if (estimate_fit(&s.cost, samples, b->n, err) < 0)
		goto out;
	print_table(b, &s.cost);
	if (speed_write(&key, &s, err) < 0) {
		err_context(err, "the speed is measured, but cannot be kept");
		goto out;
	}
	path = speed_path(&key);
	printf("kept for `tokenmill plan`: %s\n", path);
	rc = 0;
out:
	free(path);
	free(fingerprint);
	free(machine);
	return rc;
}

static void print_devices(void)
{
	struct buf b = {0};

	buf_addf(&b, "cpu: %d processors, instruction sets", workers_available_cpus());
	for (const char *const *isa = backend_cpu_isas(); *isa; isa++)
		buf_addf(&b, " %s", *isa);
	buf_adds(&b, "\n");
	cuda_plugin_describe(&b);
	fputs(b.data, stdout);
	buf_release(&b);
}

static int run_bench(const void *options, char **args, int n_args, struct err *err)
{
	const struct bench_options *o = options;
	struct engine_options eo = {.math = o->math,
	                            .kv_type = o->kv_type,
	                            .memory_bytes = o->memory,
	                            .n_threads = (int)o->threads,
	                            .max_batch = (int32_t)o->max_batch,
	                            .chunk_tokens = (int32_t)o->chunk,
	                            .no_prefix_cache = 1};
	struct bench b = {.seconds = o->seconds, .seed = 1};
	struct engine_choice choice = {0};
	struct buf first = {0}, second = {0};
	struct text *text;
	int rc = -1;

	if (o->devices && !n_args) {
		print_devices();
		return 0;
	}

	if (n_args || !o->model || !*o->model)
		return err_set(err, ERR_USAGE, n_args ? "'%s' is not an option; the model is named with --model" : "--model MODEL is missing", n_args ? args[0] : "");
	if (cuda_plugin_choose(o->device, &choice.gpu_device, &choice.gpu, err) < 0)
		return err_context(err, "--device");
	choice.kind = choice.gpu ? ENGINE_CUDA : ENGINE_CPU;
	signals_install();
	text = text_open(o->model, err);
	if (text)
		b.engine = engine_choice_open(&choice, o->model, text, &eo, err);
	if (b.engine) {
		b.plan = engine_plan(b.engine);
		b.n_vocab = engine_model(b.engine)->config.n_vocab;
		command_describe_plan(b.plan, eo.kv_type ? eo.kv_type : KV_F16, eo.math ? eo.math : MATH_FAST, &first, &second);
		log_info("%s", first.data);
		rc = measure_and_keep(o, &choice, &b, err);
	}
	engine_close(b.engine);
	text_free(text);
	buf_release(&first);
	buf_release(&second);
	return rc;
}

const struct command command_bench = {
    "bench",
    "--model MODEL [options] | --devices",
    "Measure how fast a model is on this machine, for the estimates of `plan`.",
    "Prefill and decode are measured with made-up token ids, at several batch sizes and context lengths. What is found is kept in\n"
    "$TOKENMILL_CACHE, or $XDG_CACHE_HOME/tokenmill, or ~/.cache/tokenmill.",
    bench_options,
    sizeof(struct bench_options),
    init_options,
    run_bench,
};
