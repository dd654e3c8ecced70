/* The whole way from lines to merged files with an engine of this test's own in the real one's place (engine_ops.h): planning, worker loop, partial tokens, publish, merge. Its tokens are a function of (seed, key, sample,
 * position), so every answer can be worked out, and an attempt that goes on from partial tokens is checked token by token.
 *
 * Processes are forked that end themselves in the middle of a step, or get SIGTERM; in the end the merged files must be the
 * bytes of an undisturbed run. */
#include "tests/check.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "engine/engine_ops.h"
#include "runner/plan_rows.h"
#include "runner/signals.h"
#include "runner/work.h"

/* ---- the fake engine ---- */

struct fake_request {
	struct engine_request q;
	int32_t *tokens;
	struct token_logprob *logprobs;
	size_t n, n_wanted;
	int breaks;
	struct fake_request *next;
};

struct fake_engine {
	struct engine base; /* first: ops, plan */
	struct fake_request *running, *waiting, **waiting_end;
	size_t n_running, n_waiting;
	int tokens_per_step;
	long steps_to_live; /* then the process ends itself; negative: never */
	int end_by;         /* 0: _exit, else a signal to itself */
	uint64_t n_generated;
};

static uint64_t draw(const struct sampling *s, size_t position)
{
	uint64_t in[4] = {s->seed, s->key, s->sample, position};

	return hash64(in, sizeof(in), 7);
}

/* Printable ASCII; now and then two bytes of one character. */
static int32_t fake_token(const struct sampling *s, size_t position)
{
	uint64_t h = draw(s, position);

	return h % 40 == 0 ? 0xC3 : h % 40 == 1 ? 0xA9 : (int32_t)(' ' + h / 64 % 95);
}

static struct token_logprob fake_logprob(const struct sampling *s, size_t position, size_t k)
{
	return (struct token_logprob){k ? (int32_t)(draw(s, position + 1000 * k) % 256) : fake_token(s, position),
	                              -(float)(k + position % 7) / 3};
}

static const struct engine_ops fake_ops;

static struct fake_engine *fake_new(int max_batch, int tokens_per_step)
{
	struct fake_engine *e = xcalloc(1, sizeof(*e));

	e->base.ops = &fake_ops;
	e->base.plan.max_batch = max_batch;
	e->base.plan.max_context = 4096;
	e->tokens_per_step = tokens_per_step;
	e->waiting_end = &e->waiting;
	e->steps_to_live = -1;
	return e;
}

static void fake_request_free(struct fake_request *r)
{
	free(r->tokens);
	free(r->logprobs);
	free(r);
}

static void fake_free(struct fake_engine *e)
{
	for (struct fake_request *r = e->running, *next; r; r = next) {
		next = r->next;
		fake_request_free(r);
	}
	for (struct fake_request *r = e->waiting, *next; r; r = next) {
		next = r->next;
		fake_request_free(r);
	}
	free(e);
}

static size_t fake_n_waiting(const struct engine *e)
{
	return ((const struct fake_engine *)e)->n_waiting;
}

static size_t fake_n_running(const struct engine *e)
{
	return ((const struct fake_engine *)e)->n_running;
}

static void fake_get_stats(const struct engine *e, struct engine_stats *s)
{
	*s = (struct engine_stats){0};
}

static size_t width_of(const struct fake_request *r)
{
	return r->q.sampling.n_logprobs < 0 ? 0 : (size_t)r->q.sampling.n_logprobs + 1;
}

static void fake_generate(struct fake_request *r, size_t position)
{
	size_t width = width_of(r);

	r->tokens[position] = fake_token(&r->q.sampling, position);
	for (size_t k = 0; k < width; k++)
		r->logprobs[position * width + k] = fake_logprob(&r->q.sampling, position, k);
}

static int fake_submit(struct engine *engine, const struct engine_request *q, struct err *err)
{
	struct fake_engine *e = (struct fake_engine *)engine;
	struct fake_request *r;

	if (q->prompt[0] == '!')
		return err_set(err, ERR_ROW, "the fake engine does not like this prompt");
	r = xcalloc(1, sizeof(*r));
	r->q = *q;
	r->breaks = q->prompt[0] == '?';
	r->n_wanted = (size_t)q->sampling.max_tokens;
	r->tokens = xcalloc(r->n_wanted + 1, sizeof(*r->tokens));
	r->logprobs = xcalloc(r->n_wanted * width_of(r) + 1, sizeof(*r->logprobs));
	/* An attempt that goes on must be given what it would have generated. */
	for (r->n = 0; r->n < q->n_partial; r->n++) {
		fake_generate(r, r->n);
		if (r->tokens[r->n] != q->partial[r->n] ||
		    (width_of(r) && memcmp(r->logprobs + r->n * width_of(r), q->partial_logprobs + r->n * width_of(r),
		                           width_of(r) * sizeof(*r->logprobs)) != 0))
			BUG("partial token %zu differs", r->n);
	}
	*e->waiting_end = r;
	e->waiting_end = &r->next;
	e->n_waiting++;
	return 0;
}

static struct text *text;

static void fake_text(const struct fake_request *r, struct buf *out)
{
	tokenizer_decode(text->tokenizer, r->tokens, r->n, 1, out);
}

static struct engine_result fake_result(const struct fake_request *r, enum finish_reason reason, struct buf *out)
{
	buf_reset(out);
	fake_text(r, out);
	return (struct engine_result){.user = r->q.user,
	                              .reason = reason,
	                              .tokens = r->tokens,
	                              .n_tokens = r->n,
	                              .text = buf_str(out),
	                              .n_text = out->len,
	                              .stop_id = -1,
	                              .logprobs = width_of(r) ? r->logprobs : NULL,
	                              .n_prompt = r->q.n_prompt,
	                              .error = reason == FINISH_ERROR ? "the fake engine broke on it" : NULL};
}

static long fake_step(struct engine *engine, engine_result_fn fn, void *arg, struct err *err)
{
	struct fake_engine *e = (struct fake_engine *)engine;
	struct engine_result result;
	struct buf out = {0};

	if (e->steps_to_live >= 0 && e->steps_to_live-- == 0) {
		if (!e->end_by)
			_exit(9);
		raise(e->end_by);
	}
	while (e->waiting && e->n_running < (size_t)e->base.plan.max_batch) {
		struct fake_request *r = e->waiting;

		e->waiting = r->next;
		if (!e->waiting)
			e->waiting_end = &e->waiting;
		e->n_waiting--;
		r->next = e->running;
		e->running = r;
		e->n_running++;
	}
	for (struct fake_request **at = &e->running, *r; (r = *at);) {
		for (int k = 0; k < e->tokens_per_step && r->n < r->n_wanted; k++, e->n_generated++)
			fake_generate(r, r->n++);
		if (r->n < r->n_wanted) {
			at = &r->next;
			continue;
		}
		*at = r->next;
		e->n_running--;
		result = fake_result(r, r->breaks ? FINISH_ERROR : FINISH_LENGTH, &out);
		fn(arg, &result);
		fake_request_free(r);
	}
	buf_release(&out);
	return (long)(e->n_running + e->n_waiting);
}

static void fake_each_running(struct engine *engine, engine_result_fn fn, void *arg)
{
	struct fake_engine *e = (struct fake_engine *)engine;
	struct buf out = {0};

	for (struct fake_request *r = e->running; r; r = r->next) {
		struct engine_result result = fake_result(r, FINISH_NONE, &out);

		fn(arg, &result);
	}
	buf_release(&out);
}

static const struct engine_ops fake_ops = {
    .submit = fake_submit,
    .step = fake_step,
    .n_waiting = fake_n_waiting,
    .n_running = fake_n_running,
    .each_running = fake_each_running,
    .get_stats = fake_get_stats,
};

/* ---- a job ---- */

static struct row_rules row_rules = {.n_vocab = TEXT_BYTES_N_VOCAB, .seed = 5};
static struct output_rules output_rules;

static int plan(const char *dir, const char *input, int64_t rows_per_shard, int n_threads, struct plan_totals *totals,
                struct err *err)
{
	struct plan_options o = {.text = text,
	                         .rules = &row_rules,
	                         .output = &output_rules,
	                         .n_context = 4096,
	                         .n_threads = n_threads,
	                         .max_bad_rows = -1};
	struct input_list files = {0};
	struct job_inputs inputs = {0};
	struct job_plan *p = job_plan_begin(dir, err);
	int rc = -1;

	if (p && (input_list_add(&files, input, err) < 0 || plan_rows(p, &files, &o, &inputs, totals, err) < 0))
		job_plan_abort(p);
	else if (p)
		rc = job_plan_commit(p, "{}", rows_per_shard, err);
	input_list_release(&files);
	inputs_release(&inputs);
	return rc;
}

/* One attempt. 0 when the job is merged. */
static int attempt(const char *dir, struct fake_engine *e, double publish_s, struct work_totals *t, struct err *err)
{
	struct job_worker worker = {.index = 0, .attempt = "test"};
	struct progress progress;
	struct work_options o = {.worker = &worker,
	                         .engine = &e->base,
	                         .text = text,
	                         .rules = &row_rules,
	                         .output = &output_rules,
	                         .n_context = 4096,
	                         .publish_s = publish_s,
	                         .progress = &progress};
	int rc = -1;

	o.job = job_open(dir, err);
	if (o.job) {
		progress_init(&progress, PROGRESS_NONE, job_n_rows(o.job), 0);
		rc = work_run(&o, t, err);
		if (rc == 0)
			rc = job_all_done(o.job, err) == 1 ? job_merge(o.job, NULL, err) : err_set(err, ERR_OTHER, "rows are missing");
		if (rc == 0)
			rc = job_verify(o.job, err);
		job_close(o.job);
	}
	return rc;
}

static char *slurp(const char *dir, const char *name)
{
	struct buf path = {0}, b = {0};
	struct err err = {0};

	buf_addf(&path, "%s/%s", dir, name);
	if (file_read(path.data, (size_t)1 << 30, &b, ERR_OTHER, &err) < 0)
		printf("%s\n", err.msg);
	buf_release(&path);
	buf_reserve(&b, 1);
	return buf_detach(&b);
}

static void write_input(const char *path, int n)
{
	struct buf b = {0};
	struct err err = {0};

	for (int i = 0; i < n; i++) {
		static const char *const more[] = {",\"max_tokens\":20",
		                                   ",\"n\":3,\"max_tokens\":20",
		                                   ",\"logprobs\":2,\"max_tokens\":20",
		                                   ",\"seed\":9,\"max_tokens\":20",
		                                   ",\"max_tokens\":600",
		                                   ",\"n\":2,\"logprobs\":0,\"max_tokens\":300",
		                                   ",\"echo\":true,\"max_tokens\":20",
		                                   ",\"max_tokens\":0"};

		if (i % 50 == 17)
			buf_adds(&b, "{\"prompt\":\"broken\n");
		else if (i % 50 == 23)
			buf_adds(&b, "{\"custom_id\":\"c0\",\"prompt\":\"twice\"}\n");
		else if (i % 50 == 29)
			buf_addf(&b, "{\"custom_id\":\"c%d\",\"prompt\":\"!refused\"}\n", i);
		else if (i % 50 == 31)
			buf_addf(&b, "{\"custom_id\":\"c%d\",\"prompt\":\"?breaks\",\"max_tokens\":5}\n", i);
		else if (i % 3 == 0)
			buf_addf(
			    &b,
			    "{\"custom_id\":\"c%d\",\"messages\":[{\"role\":\"user\",\"content\":\"question %d\"}],\"max_tokens\":%d}\n", i,
			    i % 11, 1 + i % 40);
		else if (i % 7 == 0)
			buf_addf(&b, "{\"prompt\":\"prompt %d\"%s}\n", i % 13, more[i % 8]);
		else
			buf_addf(&b, "{\"id\":%d,\"prompt\":\"prompt %d\"%s}\n", i, i % 13, more[i % 8]);
	}
	CHECK_INT(file_write_atomic(path, b.data, b.len, &err), 0);
	buf_release(&b);
}

enum { N_ROWS = 400 };
static char *results, *errors; /* of the undisturbed run */

TEST(undisturbed_run)
{
	struct fake_engine *e = fake_new(16, 4);
	struct work_totals t = {0};
	struct plan_totals planned = {0};
	struct err err = {0};
	size_t n_lines = 0;
	int64_t last = -1;

	write_input("in.jsonl", N_ROWS);
	CHECK_INT(plan("whole", "in.jsonl", 0, 2, &planned, &err), 0);
	CHECK_INT(planned.n_rows, N_ROWS);
	CHECK_INT(planned.n_bad, 2 * N_ROWS / 50);
	CHECK_INT(attempt("whole", e, 1000, &t, &err), 0);
	CHECK_STR(err.msg, "");
	CHECK_INT(t.n_rows, N_ROWS - 2 * N_ROWS / 50);
	CHECK_INT(t.n_failed, 2 * N_ROWS / 50);
	results = slurp("whole", "results.jsonl");
	errors = slurp("whole", "errors.jsonl");
	for (char *p = results; *p; p = strchr(p, '\n') + 1)
		n_lines++;
	CHECK_INT(n_lines, N_ROWS - 4 * N_ROWS / 50);
	/* Nameless rows are named by their place, and lines are in input order. */
	for (char *p = results; (p = strstr(p, "\"custom_id\":\"row-")); p++) {
		int64_t n = strtoll(p + 17, NULL, 10);

		CHECK(n > last);
		last = n;
	}
	CHECK(last > 0);
	fake_free(e);
}

/* The answer to one row, worked out by hand: text, and that seeds and keys are what they should be. */
TEST(answers)
{
	struct sampling s = {.seed = 5, .key = hash64("c3", 2, 0), .n_logprobs = -1};
	struct fake_request r = {.n = 4};
	int32_t tokens[4];
	struct buf expected = {0}, decoded = {0};
	char *line = strstr(results, "\"custom_id\":\"c3\"");

	for (size_t i = 0; i < 4; i++)
		tokens[i] = fake_token(&s, i);
	r.tokens = tokens;
	fake_text(&r, &decoded);
	buf_adds(&expected, "\"content\":");
	json_write_string(&expected, decoded.data, decoded.len);
	CHECK(line != NULL);
	CHECK(line && strstr(line, expected.data) && strstr(line, expected.data) < strchr(line, '\n'));
	CHECK(strstr(errors, "\"custom_id\":\"c0\"") && strstr(errors, "\"code\":\"duplicate_custom_id\""));
	CHECK(strstr(errors, "custom_id 'c0' is used twice: first in in.jsonl line 1, again in line 24") != NULL);
	CHECK(strstr(errors, "\"custom_id\":\"row-00000018\"") && strstr(errors, "\"code\":\"invalid_json\""));
	CHECK(strstr(errors, "\"custom_id\":\"c29\"") && strstr(errors, "the fake engine does not like this prompt"));
	CHECK(strstr(errors, "\"custom_id\":\"c31\"") &&
	      strstr(errors, "{\"message\":\"the fake engine broke on it\",\"type\":\"server_error\""));
	buf_release(&expected);
	buf_release(&decoded);
}

static void check_same(const char *dir)
{
	char *r = slurp(dir, "results.jsonl"), *e = slurp(dir, "errors.jsonl");

	CHECK(strcmp(r, results) == 0);
	CHECK(strcmp(e, errors) == 0);
	free(r);
	free(e);
}

/* Neither shards nor batch nor the planner's threads show in the bytes. */
TEST(shapes_do_not_matter)
{
	static const struct {
		int rows_per_shard, batch, per_step, n_threads;
	} cases[] = {{1, 4, 1, 1}, {7, 1, 9, 3}, {400, 64, 2, 2}, {33, 5, 50, 1}};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct fake_engine *e = fake_new(cases[i].batch, cases[i].per_step);
		struct work_totals t = {0};
		struct plan_totals planned = {0};
		struct err err = {0};
		char dir[32];

		snprintf(dir, sizeof(dir), "shape%zu", i);
		CHECK_INT(plan(dir, "in.jsonl", cases[i].rows_per_shard, cases[i].n_threads, &planned, &err), 0);
		CHECK_INT(attempt(dir, e, 0, &t, &err), 0);
		CHECK_STR(err.msg, "");
		check_same(dir);
		fake_free(e);
	}
}

/* One attempt in a process of its own; its exit status. */
static int attempt_in_child(const char *dir, long steps, int end_by, double publish_s)
{
	pid_t pid;
	int status;

	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		struct fake_engine *e = fake_new(8, 3);
		struct work_totals t = {0};
		struct err err = {0};

		log_set_level(LOG_QUIET);
		signals_install();
		e->steps_to_live = steps;
		e->end_by = end_by;
		if (attempt(dir, e, publish_s, &t, &err) == 0)
			_exit(0);
		if (err.code != ERR_DRAINED)
			printf("%s\n", err.msg);
		_exit(err_exit_code(err.code));
	}
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static void kill_and_resume(const char *dir, uint64_t seed, int end_by, int status_when_ended)
{
	struct plan_totals planned = {0};
	struct err err = {0};
	int status = -1, n_ended = 0;

	CHECK_INT(plan(dir, "in.jsonl", 60, 2, &planned, &err), 0);
	for (int i = 0; i < 200; i++) {
		uint64_t in[2] = {seed, (uint64_t)i}, h = hash64(in, sizeof(in), 1);

		status = attempt_in_child(dir, i < 40 ? (long)(h % 120) : -1, end_by, h / 128 % 3 ? 0 : 0.01);
		if (status == 0)
			break;
		CHECK_INT(status, status_when_ended);
		n_ended++;
	}
	CHECK_INT(status, 0);
	CHECK(n_ended > 0);
	check_same(dir);
}

TEST(killed_and_resumed)
{
	for (uint64_t k = 0; k < 4; k++) {
		char dir[32];

		snprintf(dir, sizeof(dir), "kill%d", (int)k);
		kill_and_resume(dir, k, 0, 9);
	}
}

TEST(drained_and_resumed)
{
	for (uint64_t k = 0; k < 4; k++) {
		char dir[32];

		snprintf(dir, sizeof(dir), "drain%d", (int)k);
		kill_and_resume(dir, 100 + k, SIGTERM, 143);
	}
}

/* After a drain nothing is generated twice: all attempts together make each token once. */
TEST(drain_loses_no_token)
{
	struct plan_totals planned = {0};
	struct err err = {0};
	struct fake_engine *whole = fake_new(8, 3);
	uint64_t n = 0;
	struct work_totals t = {0};

	CHECK_INT(plan("once", "in.jsonl", 60, 2, &planned, &err), 0);
	CHECK_INT(attempt("once", whole, 1000, &t, &err), 0);
	CHECK_INT(plan("twice", "in.jsonl", 60, 2, &planned, &err), 0);
	signals_install();
	for (int i = 0; i < 3; i++) {
		struct fake_engine *e = fake_new(8, 3);

		err_clear(&err);
		e->steps_to_live = i < 2 ? 150 : -1;
		e->end_by = i < 2 ? SIGTERM : 0;
		signals_reset();
		CHECK_INT(attempt("twice", e, 1000, &t, &err), i < 2 ? -1 : 0);
		CHECK_INT(err.code, i < 2 ? ERR_DRAINED : ERR_NONE);
		n += e->n_generated;
		fake_free(e);
	}
	CHECK_INT(n, whole->n_generated);
	check_same("twice");
	fake_free(whole);
}

/* No time is asserted; the figure is for people. */
TEST(many_rows)
{
	enum { N = 20000 };
	struct buf b = {0};
	struct err err = {0};
	struct fake_engine *e = fake_new(256, 16);
	struct plan_totals planned = {0};
	struct work_totals t = {0};
	double start, planned_s;

	for (int i = 0; i < N; i++)
		buf_addf(&b,
		         "{\"custom_id\":\"c%d\",\"method\":\"POST\",\"url\":\"/v1/chat/"
		         "completions\",\"body\":{\"model\":\"m\",\"messages\":[{\"role\":\"user\","
		         "\"content\":\"What is %d and %d?\"}],\"max_tokens\":16,\"temperature\":0}}\n",
		         i, i % 100, i);
	CHECK_INT(file_write_atomic("many.jsonl", b.data, b.len, &err), 0);
	buf_release(&b);
	start = clock_seconds();
	CHECK_INT(plan("many", "many.jsonl", 0, 2, &planned, &err), 0);
	planned_s = clock_seconds() - start;
	start = clock_seconds();
	CHECK_INT(attempt("many", e, 2, &t, &err), 0);
	CHECK_STR(err.msg, "");
	CHECK_INT(t.n_rows, N);
	printf("planned %.0f rows/s, ran, merged and verified %.0f rows/s (publish %.2f s)\n", N / planned_s,
	       N / (clock_seconds() - start), t.publish_s);
	fake_free(e);
}

TEST(planning_refuses)
{
	struct plan_totals planned = {0};
	struct err err = {0};

	CHECK_INT(file_write_atomic("void.jsonl", "\n \n", 3, &err), 0);
	CHECK_INT(plan("none", "void.jsonl", 0, 1, &planned, &err), -1);
	CHECK_INT(err.code, ERR_INPUT);
	CHECK_STR(err.msg, "there is no row in void.jsonl");
	CHECK(!job_is_planned("none", NULL));
}

/* Prompts that share k whole blocks of 16 tokens share the first 4 k bytes of their keys, and no more. */
TEST(prefix_keys)
{
	int32_t a[100], b[100];
	unsigned char x[PREFIX_KEY_MAX_BYTES], y[PREFIX_KEY_MAX_BYTES];

	for (int i = 0; i < 100; i++)
		a[i] = b[i] = i * 7;
	CHECK_INT(plan_prefix_key(a, 15, x), 0);
	CHECK_INT(plan_prefix_key(a, 100, x), 24);
	b[40] = 1;
	CHECK_INT(plan_prefix_key(b, 100, y), 24);
	CHECK(memcmp(x, y, 8) == 0 && memcmp(x + 8, y + 8, 4) != 0 && memcmp(x + 12, y + 12, 4) != 0);
}

int main(void)
{
	struct err err = {0};

	text = text_open_bytes(&err);
	CHECK_STR(err.msg, "");
	output_rules = (struct output_rules){.model = "fake",
	                                     .setup = "0123456789012345678901234567890123456789012345678901234567890123",
	                                     .tokenizer = text->tokenizer};
	log_set_level(LOG_QUIET);
	RUN(undisturbed_run);
	RUN(answers);
	RUN(shapes_do_not_matter);
	RUN(killed_and_resumed);
	RUN(drained_and_resumed);
	RUN(drain_loses_no_token);
	RUN(many_rows);
	RUN(planning_refuses);
	RUN(prefix_keys);
	free(results);
	free(errors);
	text_free(text);
	return TEST_RESULT();
}
