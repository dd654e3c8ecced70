/* Tests of the whole engine on the tiny model: what comes out of a request must not depend on what else runs, on batch, chunk,
 * threads, cache, instruction set, memory or on where it was interrupted. */
#include <unistd.h>

#include "base/mem.h"
#include "base/workers.h"
#include "engine/engine.h"
#include "engine/model/model.h"
#include "tests/check.h"
#include "tests/engine/isas.h"

enum { N_REQUESTS = 40, MAX_OUTPUT = 48 };

static char model_path[4096];

struct answer {
	int32_t tokens[256];
	size_t n_tokens;
	char text[4096];
	enum finish_reason reason;
	float logprob_sum;
	size_t n_cached;
	int done;
};

struct request {
	int32_t prompt[300];
	size_t n_prompt;
	struct sampling sampling;
};

static void collect(void *arg, const struct engine_result *r)
{
	struct answer *a = r->user;

	(void)arg;
	if (r->n_tokens)
		memcpy(a->tokens, r->tokens, r->n_tokens * sizeof(*r->tokens));
	a->n_tokens = r->n_tokens;
	a->reason = r->reason;
	a->n_cached = r->n_cached;
	a->logprob_sum = 0;
	snprintf(a->text, sizeof(a->text), "%.*s", (int)r->n_text, r->text);
	for (size_t i = 0; r->logprobs && i < r->n_tokens * 3; i++)
		a->logprob_sum += r->logprobs[i].logprob;
	a->done++;
}

static struct sampling default_sampling(void)
{
	return (struct sampling){.temperature = 0, .top_p = 1, .repetition_penalty = 1, .n_logprobs = -1, .max_tokens = 16, .skip_special = 1};
}

/* Prompts with shared headers of several lengths, all kinds of sampling. */
static void make_requests(struct request *q)
{
	unsigned seed = 11;

	for (int i = 0; i < N_REQUESTS; i++) {
		struct request *r = &q[i];
		int header = i % 4 * 30, n = header + 1 + rand_r(&seed) % 120;

		for (int k = 0; k < n; k++)
			r->prompt[k] = k < header ? 40 + k * 7 % 60 : 32 + rand_r(&seed) % 90;
		r->n_prompt = (size_t)n;
		r->sampling = default_sampling();
		r->sampling.max_tokens = 1 + rand_r(&seed) % MAX_OUTPUT;
		r->sampling.ignore_eos = i % 3 == 0;
		r->sampling.key = (uint64_t)i + 1;
		r->sampling.seed = 5;
		if (i % 2) {
			r->sampling.temperature = 1;
			r->sampling.top_p = i % 5 ? 1.0f : 0.8f;
			r->sampling.top_k = i % 7 ? 0 : 20;
		}
		if (i % 6 == 0)
			r->sampling.n_logprobs = 2;
		if (i % 8 == 1)
			r->sampling.repetition_penalty = 1.2f;
	}
}

static struct engine_request to_submit(const struct request *r, struct answer *a)
{
	return (struct engine_request){.user = a, .prompt = r->prompt, .n_prompt = r->n_prompt, .sampling = r->sampling};
}

static int run_all(const struct text *text, const struct engine_options *o, const struct request *q, struct answer *a, int reverse,
                   struct engine_stats *stats)
{
	struct err err = {0};
	struct engine *e = engine_open(model_path, text, o, &err);
	long left = 1;

	if (!e) {
		printf("engine_open: %s\n", err.msg);
		check_failed_now = 1;
		return -1;
	}
	memset(a, 0, N_REQUESTS * sizeof(*a));
	for (int i = 0; i < N_REQUESTS; i++) {
		int k = reverse ? N_REQUESTS - 1 - i : i;
		struct engine_request r = to_submit(&q[k], &a[k]);

		if (engine_submit(e, &r, &err) < 0)
			printf("submit %d: %s\n", k, err.msg);
	}
	while (left > 0)
		left = engine_step(e, collect, NULL, &err);
	CHECK_INT(left, 0);
	if (stats)
		engine_get_stats(e, stats);
	engine_close(e);
	for (int i = 0; i < N_REQUESTS; i++)
		CHECK_INT(a[i].done, 1);
	return 0;
}

static int same(const struct answer *x, const struct answer *y, const char *what)
{
	for (int i = 0; i < N_REQUESTS; i++)
		if (x[i].n_tokens != y[i].n_tokens || memcmp(x[i].tokens, y[i].tokens, x[i].n_tokens * sizeof(int32_t)) != 0 ||
		    x[i].reason != y[i].reason || strcmp(x[i].text, y[i].text) != 0 || x[i].logprob_sum != y[i].logprob_sum) {
			printf("%s: request %d differs (%zu and %zu tokens)\n", what, i, x[i].n_tokens, y[i].n_tokens);
			check_failed_now = 1;
			return 0;
		}
	return 1;
}

static const struct text *text;
static struct request requests[N_REQUESTS];
static struct answer want[N_REQUESTS], got[N_REQUESTS];

TEST(same_whatever_the_options)
{
	static const struct {
		const char *name;
		struct engine_options o;
		int reverse;
	} variants[] = {
		{"max_batch 1", {.max_batch = 1}, 0},
		{"max_batch 3", {.max_batch = 3}, 0},
		{"chunk 8", {.max_batch = 8, .chunk_tokens = 8}, 0},
		{"chunk 33", {.max_batch = 20, .chunk_tokens = 33}, 0},
		{"no prefix cache", {.no_prefix_cache = 1}, 0},
		{"one thread", {.n_threads = 1}, 0},
		{"three threads", {.n_threads = 3}, 0},
		{"reverse order", {.max_batch = 7}, 1},
		{"avx2", {.isa = "avx2"}, 0},
		{"generic", {.isa = "generic"}, 0},
	};

	for (int math = MATH_FAST; math <= MATH_F32; math++) {
		struct engine_options base = {.math = (enum engine_math)math, .memory_bytes = (size_t)256 << 20};

		if (run_all(text, &base, requests, want, 0, NULL) < 0)
			return;
		for (size_t i = 0; i < sizeof(variants) / sizeof(*variants); i++) {
			struct engine_options o = variants[i].o;

			if (o.isa && !isa_runs(o.isa)) {
				printf("skip variant %s: this processor lacks it\n", o.isa);
				continue;
			}
			o.math = base.math;
			o.memory_bytes = base.memory_bytes;
			run_all(text, &o, requests, got, variants[i].reverse, NULL);
			same(want, got, variants[i].name);
		}
	}
}

TEST(prefix_cache_is_used)
{
	struct engine_options o = {.memory_bytes = (size_t)256 << 20};
	struct engine_stats with, without;

	run_all(text, &o, requests, want, 0, &with);
	o.no_prefix_cache = 1;
	run_all(text, &o, requests, got, 0, &without);
	CHECK(with.cached_tokens > 0 && without.cached_tokens == 0);
	CHECK_INT(with.computed_tokens + with.cached_tokens, without.computed_tokens);
}

/* A memory so small that sequences preempt each other. */
TEST(same_when_memory_is_short)
{
	struct engine_options o = {.memory_bytes = (size_t)256 << 20, .max_batch = 16, .chunk_tokens = 64};
	struct engine_stats stats;
	struct err err = {0};
	struct engine *e;
	struct request *uneven = xcalloc(N_REQUESTS, sizeof(*uneven));
	size_t fixed;

	/* Short answers first: the scheduler expects the others to be short as well. */
	memcpy(uneven, requests, N_REQUESTS * sizeof(*uneven));
	for (int i = 0; i < N_REQUESTS; i++)
		uneven[i].sampling.max_tokens = i < N_REQUESTS / 2 ? 1 + i % 3 : 60;
	run_all(text, &o, uneven, want, 0, NULL);
	e = engine_open(model_path, text, &o, &err);
	fixed = engine_plan(e)->total_bytes - engine_plan(e)->kv_bytes;
	o.memory_bytes = fixed + 26 * engine_plan(e)->kv_block_bytes;
	engine_close(e);
	run_all(text, &o, uneven, got, 0, &stats);
	same(want, got, "short memory");
	CHECK(stats.n_preemptions > 0);
	free(uneven);
}

/* Stop after so many steps, take the partial answers, and go on in a new engine. */
struct partials {
	struct answer *answers;
	struct {
		int32_t tokens[256];
		size_t n;
		struct token_logprob logprobs[256 * 3];
		int has_logprobs;
	} of[N_REQUESTS];
};

static void keep_partial(void *arg, const struct engine_result *r)
{
	struct partials *p = arg;
	size_t i = (size_t)((struct answer *)r->user - p->answers);

	CHECK_INT(r->reason, FINISH_NONE);
	p->of[i].n = r->n_tokens;
	if (r->n_tokens)
		memcpy(p->of[i].tokens, r->tokens, r->n_tokens * sizeof(*r->tokens));
	if (r->logprobs) {
		memcpy(p->of[i].logprobs, r->logprobs, r->n_tokens * 3 * sizeof(*r->logprobs));
		p->of[i].has_logprobs = 1;
	}
}

TEST(same_after_an_interruption)
{
	struct engine_options o = {.memory_bytes = (size_t)256 << 20, .max_batch = 16};

	run_all(text, &o, requests, want, 0, NULL);
	for (int n_steps = 1; n_steps < 40; n_steps += 7) {
		struct err err = {0};
		struct engine *e = engine_open(model_path, text, &o, &err);
		struct partials *p = xcalloc(1, sizeof(*p));
		long left = 1;

		memset(got, 0, sizeof(got));
		p->answers = got;
		for (int i = 0; i < N_REQUESTS; i++) {
			struct engine_request r = to_submit(&requests[i], &got[i]);

			engine_submit(e, &r, &err);
		}
		for (int i = 0; i < n_steps; i++)
			engine_step(e, collect, NULL, &err);
		engine_each_running(e, keep_partial, p);
		engine_close(e);
		e = engine_open(model_path, text, &o, &err);
		for (int i = 0; i < N_REQUESTS; i++) {
			struct engine_request r = to_submit(&requests[i], &got[i]);

			if (got[i].done)
				continue;
			r.partial = p->of[i].tokens;
			r.n_partial = p->of[i].n;
			r.partial_logprobs = p->of[i].has_logprobs ? p->of[i].logprobs : NULL;
			CHECK_INT(engine_submit(e, &r, &err), 0);
		}
		while (left > 0)
			left = engine_step(e, collect, NULL, &err);
		engine_close(e);
		same(want, got, "interrupted");
		free(p);
	}
}

static void one(struct request *r, struct answer *a)
{
	struct engine_options o = {.memory_bytes = (size_t)256 << 20, .max_batch = 4};
	struct err err = {0};
	struct engine *e = engine_open(model_path, text, &o, &err);
	struct engine_request q = to_submit(r, a);

	memset(a, 0, sizeof(*a));
	if (engine_submit(e, &q, &err) < 0)
		printf("submit: %s\n", err.msg);
	else
		while (engine_step(e, collect, NULL, &err) > 0)
			;
	engine_close(e);
}

TEST(stops_and_limits)
{
	struct request r = requests[1];
	struct answer full, cut;
	char stop_text[8];
	const char *stops[2] = {"never written, not by chance", stop_text};

	r.sampling = default_sampling();
	r.sampling.ignore_eos = 1;
	r.sampling.max_tokens = 40;
	one(&r, &full);
	CHECK_INT(full.n_tokens, 40);
	CHECK_INT(full.reason, FINISH_LENGTH);

	/* A stop string taken from the middle of the text cuts it at its first place. */
	if (strlen(full.text) > 20) {
		snprintf(stop_text, sizeof(stop_text), "%.3s", full.text + 10);
		r.sampling.stop = stops;
		r.sampling.n_stop = 2;
		one(&r, &cut);
		CHECK_INT(cut.reason, FINISH_STOP);
		CHECK(strlen(cut.text) <= 10 && strncmp(cut.text, full.text, strlen(cut.text)) == 0);
		CHECK(strstr(cut.text, stop_text) == NULL);
		r.sampling.include_stop = 1;
		one(&r, &cut);
		CHECK(strstr(cut.text, stop_text) != NULL);
		r.sampling.include_stop = 0;
		r.sampling.n_stop = 0;
	}
	/* A stop token ends where it first appears, unless min_tokens forbids. */
	r.sampling.stop_ids = &full.tokens[5];
	r.sampling.n_stop_ids = 1;
	one(&r, &cut);
	CHECK_INT(cut.reason, FINISH_STOP);
	CHECK(cut.n_tokens <= 6 && cut.tokens[cut.n_tokens - 1] == full.tokens[5]);
	r.sampling.min_tokens = 12;
	one(&r, &cut);
	CHECK(cut.n_tokens >= 12);
	r.sampling.n_stop_ids = 0;
	r.sampling.max_tokens = 0;
	one(&r, &cut);
	CHECK_INT(cut.done, 1);
	CHECK_INT(cut.n_tokens, 0);
}

TEST(bad_requests_are_refused_alone)
{
	struct engine_options o = {.memory_bytes = (size_t)256 << 20, .max_batch = 4};
	struct err err = {0};
	struct engine *e = engine_open(model_path, text, &o, &err);
	struct answer a = {0};
	struct engine_request q = to_submit(&requests[0], &a);
	int32_t n_vocab = engine_model(e)->config.n_vocab, bad[2] = {5, n_vocab};
	struct engine_request empty = q, outside = q;

	empty.n_prompt = 0;
	CHECK_INT(engine_submit(e, &empty, &err), -1);
	CHECK_INT(err.code, ERR_ROW);
	err_clear(&err);
	outside.prompt = bad;
	outside.n_prompt = 2;
	CHECK_INT(engine_submit(e, &outside, &err), -1);
	CHECK(strstr(err.msg, "place 1") != NULL);
	err_clear(&err);
	CHECK_INT(engine_submit(e, &q, &err), 0);
	while (engine_step(e, collect, NULL, &err) > 0)
		;
	CHECK_INT(a.done, 1);
	engine_close(e);
}

TEST(forecast_is_what_open_decides)
{
	static const enum kv_type types[] = {KV_F16, KV_F32};

	for (int i = 0; i < 4; i++) {
		struct err err = {0};
		struct engine_options o = {.kv_type = types[i % 2], .memory_bytes = i < 2 ? 0 : (size_t)90 << 20, .n_threads = 2, .max_batch = 40 * i};
		struct model *model = model_open(model_path, &err);
		struct engine_plan forecast;
		struct engine *e;

		CHECK_INT(engine_forecast(model, &o, &forecast, &err), 0);
		o.memory_bytes = forecast.budget_bytes;
		e = engine_open(model_path, text, &o, &err);
		CHECK(e != NULL);
		if (e) {
			const struct engine_plan *p = engine_plan(e);

			CHECK_INT(p->weight_bytes, forecast.weight_bytes);
			CHECK_INT(p->workspace_bytes, forecast.workspace_bytes);
			CHECK_INT(p->n_kv_blocks, forecast.n_kv_blocks);
			CHECK_INT(p->max_context, forecast.max_context);
			CHECK_INT(p->max_batch, forecast.max_batch);
			CHECK_INT(p->chunk_tokens, forecast.chunk_tokens);
			CHECK_INT(p->n_threads, forecast.n_threads);
		}
		engine_close(e);
		model_free(model);
	}
}

TEST(memory_too_small_is_told)
{
	struct engine_options o = {.memory_bytes = (size_t)1 << 20};
	struct err err = {0};

	CHECK(engine_open(model_path, text, &o, &err) == NULL);
	CHECK(strstr(err.msg, "--memory") != NULL);
}

int main(void)
{
	const char *source = getenv("TOKENMILL_SOURCE");
	struct err err = {0};

	snprintf(model_path, sizeof(model_path), "%s/tests/engine/goldens/tiny-chat", source ? source : ".");
	if (access(model_path, R_OK) != 0) {
		SKIP(engine, "tests/engine/goldens/tiny-chat is missing");
		return 0;
	}
	text = text_open(model_path, &err);
	if (!text) {
		printf("FAIL text_open: %s\n", err.msg);
		return 1;
	}
	make_requests(requests);
	RUN(same_whatever_the_options);
	RUN(prefix_cache_is_used);
	RUN(same_when_memory_is_short);
	RUN(same_after_an_interruption);
	RUN(stops_and_limits);
	RUN(bad_requests_are_refused_alone);
	RUN(forecast_is_what_open_decides);
	RUN(memory_too_small_is_told);
	text_free((struct text *)text);
	return TEST_RESULT();
}
