/* cmd_run.c: the main job: plan if there is no plan yet, work through the shards, merge.
 *
 *     OUT is new:      load the model -> plan_rows -> job_plan_commit -+
 *     OUT is a job:    compare with what is asked for -> load model ---+-> work_run -> job_merge -> summary
 *     OUT is merged:   compare, say so
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/workers.h"
#include "queue/job.h"
#include "runner/commands.h"
#include "runner/engine_choice.h"
#include "runner/heartbeat.h"
#include "runner/input.h"
#include "runner/plan_rows.h"
#include "runner/prompt.h"
#include "runner/signals.h"
#include "runner/spec.h"
#include "runner/work.h"

struct run_options {
	const char *model, *engine, *output, *job, *defaults, *name, *date;
	int math, kv_type, no_prefix_cache, strict, quiet, progress;
	size_t memory;
	int64_t threads, max_batch, chunk, seed, max_bad_rows, context;
	int64_t worker;
	double publish_s, takeover_after_s;
	int64_t date_unix_s; /* what `date` says */
};

enum { MAX_WORKER = 1000000 };

#define RUN_FIELD(name) offsetof(struct run_options, name)
static const struct option_spec run_options[] = {
    {"model", 'm', OPTION_STRING, RUN_FIELD(model), "MODEL", "the model: .gguf file or Hugging Face directory", 0, 0, NULL},
    {"engine", 0, OPTION_STRING, RUN_FIELD(engine), "cpu|fake[:...]", "what generates: cpu, or fake for tests, see above (default cpu)", 0,
     0, NULL},
    {"output", 'o', OPTION_STRING, RUN_FIELD(output), "OUT", "the job: a directory, or s3://bucket/prefix", 0, 0,
     NULL},
    {"job", 0, OPTION_STRING, RUN_FIELD(job), "JOB", "the same as --output", 0, 0, NULL},
    {"math", 0, OPTION_CHOICE, RUN_FIELD(math), "f32|fast", "arithmetic (default fast)", 0, 0, "fast|f32"},
    {"kv-type", 0, OPTION_CHOICE, RUN_FIELD(kv_type), "f16|bf16|f32", "type of keys and values (default f16)", 0, 0,
     "f16|bf16|f32"},
    {"memory", 0, OPTION_SIZE, RUN_FIELD(memory), "SIZE",
     "all of the engine's memory, such as 4G (default: half of what is free)", 0, 0, NULL},
    {"threads", 0, OPTION_INT, RUN_FIELD(threads), "N", "threads (default: all processors)", 1, 4096, NULL},
    {"max-batch", 0, OPTION_INT, RUN_FIELD(max_batch), "N", "most sequences at once", 1, 4096, NULL},
    {"chunk", 0, OPTION_INT, RUN_FIELD(chunk), "N", "most tokens in a step (default 512)", 1, 65536, NULL},
    {"context", 0, OPTION_INT, RUN_FIELD(context), "N", "longest prompt + output (default: the model's, or what memory holds)",
     1, INT32_MAX, NULL},
    {"no-prefix-cache", 0, OPTION_FLAG, RUN_FIELD(no_prefix_cache), NULL, "compute every prompt from its start", 0, 0, NULL},
    {"seed", 0, OPTION_INT, RUN_FIELD(seed), "N", "seed of rows that bring none (default 0)", 0, 9007199254740992.0, NULL},
    {"defaults", 0, OPTION_STRING, RUN_FIELD(defaults), "FILE", "JSON object of parameters for what a row leaves open", 0, 0,
     NULL},
    {"served-model-name", 0, OPTION_STRING, RUN_FIELD(name), "NAME", "the model's name in answers (default: from its path)", 0,
     0, NULL},
    {"date", 0, OPTION_STRING, RUN_FIELD(date), "YYYY-MM-DD", "the day that a chat template sees (default: today)", 0, 0, NULL},
    {"strict", 0, OPTION_FLAG, RUN_FIELD(strict), NULL, "run nothing if any row is at fault", 0, 0, NULL},
    {"max-bad-rows", 0, OPTION_INT, RUN_FIELD(max_bad_rows), "N", "run nothing if more rows are at fault", 0,
     9007199254740992.0, NULL},
    {"publish-seconds", 0, OPTION_NUMBER, RUN_FIELD(publish_s), "S", "finished rows reach the disk so often (default 2)", 0,
     86400, NULL},
    {"worker", 0, OPTION_INT, RUN_FIELD(worker), "N", "this worker's index (default: JOB_COMPLETION_INDEX, or none)", 0,
     MAX_WORKER, NULL},
    {"takeover-after", 0, OPTION_NUMBER, RUN_FIELD(takeover_after_s), "S",
     "a worker elsewhere that is silent for so long is dead (default 600)", 1, 1e6, NULL},
    {"progress", 0, OPTION_CHOICE, RUN_FIELD(progress), "auto|json|none", "how progress is shown on stderr", 0, 0,
     "auto|json|none"},
    {"quiet", 'q', OPTION_FLAG, RUN_FIELD(quiet), NULL, "say nothing but errors", 0, 0, NULL},
    {0},
};

static void init_options(void *options)
{
	struct run_options *o = options;

	o->seed = o->max_bad_rows = o->worker = -1; /* not given */
	o->takeover_after_s = 600;
	o->publish_s = 2;
}

/* Everything that a run opens. */
struct run {
	const struct run_options *o;
	struct input_list files;
	struct job_setup setup; /* what is asked for; the rest is filled in from the job or the model */
	char setup_hash[SHA256_HEX_BYTES];
	yyjson_doc *defaults;
	struct engine_choice choice;
	struct text *text;
	struct engine *engine;
	struct job *job;
	struct job_worker worker;
	struct heartbeat heart;
	struct row_rules rules;
	struct output_rules output;
	double start_s;
	struct work_totals totals;
	struct progress progress;
};

/* ---- what is asked for ---- */

static int read_date(const char *text, int64_t *out, struct err *err)
{
	struct tm tm = {0};
	const char *end = strptime(text, "%Y-%m-%d", &tm);
	int day = tm.tm_mday;
	time_t t = end && !*end ? timegm(&tm) : (time_t)-1;

	/* timegm makes the 2nd of March of the 30th of February. */
	if (t == (time_t)-1 || tm.tm_mday != day)
		return err_set(err, ERR_USAGE, "--date must be a day like 2026-01-31, it is '%s'", text);
	*out = (int64_t)t;
	return 0;
}

static int read_defaults(struct run *r, struct err *err)
{
	struct buf canonical = {0};

	if (r->o->defaults) {
		r->defaults = json_parse_file(r->o->defaults, (size_t)1 << 20, ERR_USAGE, err);
		if (!r->defaults)
			return err_context(err, "--defaults");
		if (!json_depth_within(yyjson_doc_get_root(r->defaults), ROW_MAX_DEPTH))
			return err_set(err, ERR_USAGE, "--defaults %s: nested deeper than %d levels", r->o->defaults, ROW_MAX_DEPTH);
		json_write_canonical(&canonical, yyjson_doc_get_root(r->defaults));
	} else {
		buf_adds(&canonical, "{}");
	}
	r->setup.defaults = buf_detach(&canonical);
	return 0;
}

/* The part of the setup that needs no weights. */
static int read_setup(struct run *r, struct err *err)
{
	struct job_setup *s = &r->setup;
	const struct run_options *o = r->o;

	if (o->name)
		s->model_name = xstrdup(o->name);
	if (engine_choice_identify(&r->choice, s, &r->text, &r->rules.n_vocab, err) < 0)
		return -1;
	s->math = o->math ? o->math : MATH_FAST;
	s->kv_type = o->kv_type ? o->kv_type : KV_F16;
	s->seed = o->seed < 0 ? 0 : (uint64_t)o->seed;
	s->n_context = (int32_t)o->context;
	if (read_defaults(r, err) < 0)
		return -1;
	if (r->text->chat_template && template_uses(r->text->chat_template, "strftime_now"))
		s->now_unix_s = (int64_t)time(NULL) / 86400 * 86400;
	if (o->date && s->now_unix_s)
		s->now_unix_s = o->date_unix_s;
	return 0;
}

/* What rows are read and written with, once the setup is complete. */
static int set_rules(struct run *r, struct err *err)
{
	setup_hash(&r->setup, r->setup_hash);
	r->rules.seed = r->setup.seed;
	r->rules.developer_is_system = !prompt_knows_developer(r->text);
	r->rules.defaults = yyjson_doc_get_root(r->defaults);
	r->output = (struct output_rules){.model = r->setup.model_name, .setup = r->setup_hash, .tokenizer = r->text->tokenizer};
	reasoning_marks_find(&r->output.reasoning, r->text->tokenizer);
	if (r->rules.defaults && row_check_defaults(&r->rules, err) < 0)
		return err_context(err, "--defaults");
	return 0;
}

static int open_engine(struct run *r, struct err *err)
{
	const struct run_options *o = r->o;
	struct engine_options eo = {.math = r->setup.math,
	                            .kv_type = r->setup.kv_type,
	                            .memory_bytes = o->memory,
	                            .n_threads = (int)o->threads,
	                            .max_batch = (int32_t)o->max_batch,
	                            .chunk_tokens = (int32_t)o->chunk,
	                            .no_prefix_cache = o->no_prefix_cache};
	struct buf first = {0}, second = {0};
	const struct engine_plan *p;
	int32_t limit = r->text->n_context;
	int rc = 0;

	r->engine = engine_choice_open(&r->choice, r->setup.model_path, r->text, &eo, err);
	if (!r->engine)
		return -1;
	p = engine_plan(r->engine);
	if (limit > 0 && r->setup.n_context > limit)
		rc = err_set(err, ERR_USAGE, "--context is %d, the model was made for %d", r->setup.n_context, limit);
	else if (r->setup.n_context > p->max_context)
		rc = err_set(err, ERR_USAGE,
		             "a context of %d tokens does not fit the memory, which holds %d: give more --memory or less --context",
		             r->setup.n_context, p->max_context);
	if (!r->setup.n_context) {
		r->setup.n_context = limit > 0 && limit < p->max_context ? limit : p->max_context;
		if (limit > r->setup.n_context)
			log_warn("memory holds a context of %d tokens, the model was made for %d", r->setup.n_context, limit);
	}
	command_describe_plan(p, r->setup.kv_type, r->setup.math, &first, &second);
	log_info("%s: %s", r->setup.model_name, first.data);
	if (p->total_bytes)
		log_info("%s", second.data);
	buf_release(&first);
	buf_release(&second);
	return rc;
}

/* ---- plan ---- */

static int64_t allowed_bad_rows(const struct run_options *o)
{
	return o->strict ? 0 : o->max_bad_rows;
}

/* What job.json says of the model's place must hold in another current directory, too. */
static char *absolute_path(const char *path)
{
	char *current = path[0] == '/' ? NULL : getcwd(NULL, 0);
	struct buf absolute = {0};

	if (current)
		buf_addf(&absolute, "%s/", current);
	buf_adds(&absolute, path);
	free(current);
	return buf_detach(&absolute);
}

static int plan(struct run *r, struct err *err)
{
	const struct run_options *o = r->o;
	struct plan_options po = {.text = r->text,
	                          .rules = &r->rules,
	                          .output = &r->output,
	                          .now_unix_s = r->setup.now_unix_s,
	                          .n_context = r->setup.n_context,
	                          .n_threads = o->threads ? (int)o->threads : workers_available_cpus(),
	                          .max_bad_rows = allowed_bad_rows(o),
	                          .n_faults_told = o->strict ? 1000 : 20};
	struct job_spec spec = {.setup = r->setup};
	struct plan_totals t;
	struct buf text = {0};
	struct job_plan *p;
	double start = clock_seconds();
	int rc = -1;

	p = job_plan_begin(o->output, err);
	if (!p)
		return -1;
	if (plan_rows(p, &r->files, &po, &spec.inputs, &t, err) < 0) {
		job_plan_abort(p);
	} else {
		spec.setup.model_path = r->setup.model_path ? absolute_path(r->setup.model_path) : xstrdup(""); /* the fake needs none */
		spec_write(&spec, &text);
		free(spec.setup.model_path);
		rc = job_plan_commit(p, text.data, 0, err);
	}
	if (rc == 0)
		log_info("planned %" PRId64 " rows with %" PRId64 " prompt tokens in %.1f s%s", t.n_rows, t.prompt_tokens,
		         clock_seconds() - start, t.n_bad ? "; rows at fault become error records" : "");
	buf_release(&text);
	inputs_release(&spec.inputs);
	return rc;
}

/* ---- go on with a job that is there ---- */

static int digest_inputs(struct run *r, struct job_inputs *l, struct err *err)
{
	for (size_t i = 0; i < r->files.n; i++) {
		struct job_input *item = inputs_add(l, r->files.paths[i]);
		struct input *in = input_open(item->name, 0, err);
		struct input_line line;
		int rc;

		if (!in)
			return -1;
		while ((rc = input_next(in, &line, err)) > 0)
			;
		if (rc == 0)
			input_digest(in, item->sha256, &item->n_bytes);
		input_close(in);
		if (rc < 0)
			return -1;
	}
	return 0;
}

/* With inputs on the command line everything must be as in the job; without, the job's own values are taken. */
static int compare(struct run *r, struct job_spec *there, struct err *err)
{
	struct job_inputs now = {0};
	int rc;

	if (!r->setup.n_context)
		r->setup.n_context = there->setup.n_context;
	if (!r->o->date)
		r->setup.now_unix_s = there->setup.now_unix_s;
	rc = setup_compare(&there->setup, &r->setup, err);
	if (rc == 0 && r->files.n) {
		rc = digest_inputs(r, &now, err);
		if (rc == 0)
			rc = inputs_compare(&there->inputs, &now, err);
	}
	inputs_release(&now);
	return err && err->code ? err_context(err, "%s", r->o->output) : rc;
}

/* A job that was planned without the limit that is asked for now. */
static int check_bad_rows(const struct run *r, struct err *err)
{
	int64_t allowed = allowed_bad_rows(r->o), n = job_n_bad_rows(r->job);

	if (allowed < 0 || n <= allowed)
		return 0;
	return err_set(err, ERR_INPUT,
	               "%s: %" PRId64 " of the job's %" PRId64 " rows are at fault, at most %" PRId64 " are allowed (%s)",
	               r->o->output, n, job_n_rows(r->job), allowed, r->o->strict ? "--strict" : "--max-bad-rows");
}

/* Options that were not given, when the job is named alone. */
static void take_from_job(struct run *r, const struct job_setup *there)
{
	const struct run_options *o = r->o;
	struct job_setup *s = &r->setup;

	if (!o->math)
		s->math = there->math;
	if (!o->kv_type)
		s->kv_type = there->kv_type;
	if (o->seed < 0)
		s->seed = there->seed;
	if (!o->name) {
		free(s->model_name);
		s->model_name = xstrdup(there->model_name);
	}
	if (!o->defaults) {
		free(s->defaults);
		s->defaults = xstrdup(there->defaults);
		yyjson_doc_free(r->defaults);
		r->defaults = strcmp(s->defaults, "{}") == 0 ? NULL : json_parse(s->defaults, strlen(s->defaults), ERR_OTHER, NULL);
	}
}

static int open_job(struct run *r, struct job_spec *there, struct err *err)
{
	r->job = job_open(r->o->output, err);
	if (!r->job || spec_read(job_spec(r->job), there, err) < 0)
		return -1;
	return 0;
}

/* ---- summary ---- */

static void summarize(struct run *r, double wall_s)
{
	const struct work_totals *t = &r->totals;
	struct engine_stats s;
	double busy = clock_seconds() - r->heart.ready_s;
	char took[32];

	engine_get_stats(r->engine, &s);
	progress_duration(wall_s, took);
	log_info("%" PRId64 " rows ok, %" PRId64 " failed%s, in %s (load and plan %.1f s, publish %.2f s)", t->n_rows - t->n_failed,
	         t->n_failed, t->n_rows < job_n_rows(r->job) ? " in this run" : "", took, r->heart.ready_s - r->start_s, t->publish_s);
	log_info("tokens: in %" PRId64 " (%" PRId64 " cached, %.0f%%), out %" PRId64 "; %.1f output tok/s, %.1f tok/s in all",
	         t->prompt_tokens, t->cached_tokens,
	         t->prompt_tokens ? 100.0 * (double)t->cached_tokens / (double)t->prompt_tokens : 0, t->output_tokens,
	         busy > 0 ? (double)t->output_tokens / busy : 0,
	         busy > 0 ? (double)(t->output_tokens + t->prompt_tokens) / busy : 0);
	if (s.n_preemptions)
		log_info("%llu preemptions, %llu tokens computed again: more --memory would help", (unsigned long long)s.n_preemptions,
		         (unsigned long long)s.recomputed_tokens);
	if (job_n_bad_rows(r->job))
		log_info("%" PRId64 " of the job's %" PRId64 " rows are at fault and have error records", job_n_bad_rows(r->job),
		         job_n_rows(r->job));
}

static void say_where(struct run *r)
{
	log_info("results: %s/results.jsonl, errors.jsonl, usage.json", r->o->output);
}

static int merge(struct run *r, struct err *err)
{
	struct buf extra = {0};
	int rc = job_all_done(r->job, err);

	if (rc < 0)
		return -1;
	if (rc == 0) {
		log_info("nothing is left to claim; other workers still run their shards, the last of them merges");
		return 0;
	}
	buf_adds(&extra, "{\"model\":");
	json_write_string(&extra, r->setup.model_name, strlen(r->setup.model_name));
	buf_addc(&extra, '}');
	rc = job_merge(r->job, extra.data, err);
	buf_release(&extra);
	if (rc == 0)
		say_where(r);
	return rc;
}

/* ---- the run ---- */

static void between_steps(void *arg, const struct work_totals *t, size_t n_in_flight)
{
	struct run *r = arg;

	heartbeat_beat(&r->heart, t, n_in_flight);
}

static int work(struct run *r, struct err *err)
{
	struct work_options wo = {.job = r->job,
	                          .worker = &r->worker,
	                          .engine = r->engine,
	                          .text = r->text,
	                          .rules = &r->rules,
	                          .output = &r->output,
	                          .now_unix_s = r->setup.now_unix_s,
	                          .n_context = r->setup.n_context,
	                          .publish_s = r->o->publish_s,
	                          .progress = &r->progress,
	                          .between_steps = between_steps,
	                          .between_steps_arg = r};
	int64_t n_done = job_n_done_rows(r->job, err);
	enum progress_style style = r->o->quiet           ? PROGRESS_NONE
	                            : r->o->progress == 2 ? PROGRESS_JSON
	                            : r->o->progress == 3 ? PROGRESS_NONE
	                                                  : PROGRESS_AUTO;
	int rc;

	if (n_done < 0)
		return -1;
	if (n_done > job_n_bad_rows(r->job))
		log_info("resuming: %" PRId64 " of %" PRId64 " rows are done", n_done, job_n_rows(r->job));
	progress_init(&r->progress, style, job_n_rows(r->job), n_done);
	r->heart.ready_s = clock_seconds();
	r->heart.engine = r->engine;
	heartbeat_tell(&r->heart, &r->totals, 0);
	rc = work_run(&wo, &r->totals, err);
	heartbeat_end(&r->heart, &r->totals, err);
	if (rc == 0 || err->code == ERR_DRAINED)
		summarize(r, clock_seconds() - r->start_s);
	return rc;
}

static int begin_new(struct run *r, struct err *err)
{
	struct job_spec there = {0};
	int rc;

	if (!r->files.n)
		return err_set(err, ERR_USAGE, "%s is not a job yet: name the input files", r->o->output);
	rc = read_setup(r, err) < 0 || open_engine(r, err) < 0 || set_rules(r, err) < 0 || plan(r, err) < 0 ||
	             open_job(r, &there, err) < 0
	         ? -1
	         : 0;
	if (rc == 0)
		heartbeat_start(&r->heart, job_store(r->job), r->o->takeover_after_s);
	spec_release(&there);
	return rc;
}

/* *merged: nothing is left to do. */
static int resume(struct run *r, int *merged, struct err *err)
{
	struct job_spec there = {0};
	int rc = -1;

	if (open_job(r, &there, err) < 0)
		goto out;
	if (!r->setup.model_path)
		r->setup.model_path = xstrdup(there.setup.model_path);
	if (!r->o->engine && !r->files.n && engine_choice_of_job(&r->choice, there.setup.model_fingerprint, err) < 0)
		goto out;
	if (read_setup(r, err) < 0) {
		if (!r->o->model)
			err_context(err, "the model of %s (if it has moved, name its place with --model)", r->o->output);
		goto out;
	}
	if (!r->files.n)
		take_from_job(r, &there.setup);
	if (compare(r, &there, err) < 0 || check_bad_rows(r, err) < 0)
		goto out;
	*merged = job_is_merged(r->job, err);
	if (*merged < 0)
		goto out;
	if (*merged) {
		log_info("%s is finished already: %" PRId64 " rows", r->o->output, job_n_rows(r->job));
		say_where(r);
		rc = 0;
		goto out;
	}
	heartbeat_start(&r->heart, job_store(r->job), r->o->takeover_after_s);
	rc = open_engine(r, err) < 0 || set_rules(r, err) < 0 ? -1 : 0;
out:
	spec_release(&there);
	return rc;
}

static int identify_worker(struct run *r, struct err *err)
{
	const char *index = getenv("JOB_COMPLETION_INDEX"); /* set by Kubernetes in the pods of an Indexed Job */
	char *end;

	r->worker.takeover_after_s = r->o->takeover_after_s;
	if (r->o->worker >= 0) {
		r->worker.index = (int)r->o->worker;
	} else if (index && *index) {
		long n = strtol(index, &end, 10);

		if (*end || n < 0 || n > MAX_WORKER)
			return err_set(err, ERR_USAGE, "JOB_COMPLETION_INDEX is '%s', not a worker's index", index);
		r->worker.index = (int)n;
	} else {
		r->worker.index_is_default = 1;
	}
	r->worker.attempt = r->heart.told.id;
	return heartbeat_init(&r->heart, r->worker.index, r->start_s, err);
}

static int run_all(struct run *r, char **args, int n_args, struct err *err)
{
	int merged = 0, planned;

	for (int i = 0; i < n_args; i++)
		if (input_list_add(&r->files, args[i], err) < 0)
			return -1;
	if (identify_worker(r, err) < 0)
		return -1;
	signals_install();
	planned = job_is_planned(r->o->output, err);
	if (planned < 0)
		return -1;
	if (planned) {
		if (resume(r, &merged, err) < 0)
			return -1;
		if (merged)
			return 0;
	} else if (begin_new(r, err) < 0) {
		return -1;
	}
	if (work(r, err) < 0)
		return -1;
	return merge(r, err);
}

static int run_run(const void *options, char **args, int n_args, struct err *err)
{
	struct run_options o = *(const struct run_options *)options;
	struct run r = {.o = &o, .start_s = clock_seconds()};
	int rc, needs_model;

	if (o.output && o.job)
		return err_set(err, ERR_USAGE, "--output and --job are the same: give one of them");
	r.files.output = o.output = o.output ? o.output : o.job;
	if (!o.output || !*o.output)
		return err_set(err, ERR_USAGE, "-o OUT is missing: the directory for the results");
	if (engine_choice_read(&r.choice, o.engine, err) < 0)
		return -1;
	needs_model = !o.model && r.choice.kind != ENGINE_FAKE;
	if (needs_model && !n_args && (rc = job_is_planned(o.output, err)) <= 0)
		return rc < 0 ? -1 : err_set(err, ERR_USAGE, "--model MODEL is missing: %s is not a job yet", o.output);
	if ((o.model && !*o.model) || (needs_model && n_args))
		return err_set(err, ERR_USAGE, "--model MODEL is missing");
	if (o.strict && o.max_bad_rows > 0)
		return err_set(err, ERR_USAGE, "--strict and --max-bad-rows contradict each other");
	if (o.date && read_date(o.date, &o.date_unix_s, err) < 0)
		return -1;
	if (o.quiet)
		log_set_level(LOG_QUIET);
	if (o.threads > workers_available_cpus())
		log_warn("--threads %d is more than the %d processors here: they will wait for each other", (int)o.threads,
		         workers_available_cpus());
	if (o.model)
		r.setup.model_path = xstrdup(o.model);
	rc = run_all(&r, args, n_args, err);
	if (rc < 0 && r.heart.told.state != ATTEMPT_ENDED)
		heartbeat_end(&r.heart, &r.totals, err);
	job_close(r.job);
	engine_close(r.engine);
	text_free(r.text);
	yyjson_doc_free(r.defaults);
	setup_release(&r.setup);
	input_list_release(&r.files);
	return rc;
}

const struct command command_run = {
    "run",
    "--model MODEL -o OUT [options] IN...",
    "Run a dataset of prompts through a model, here; the results are in OUT.",
    "IN is a file, a pattern, a directory or - (standard input): JSON lines, also in .gz, .zst, .bz2, .xz or tar. Rows are in "
    "the OpenAI\n"
    "batch format, or plain: {\"prompt\": ...} or {\"messages\": [...]} with any parameters.\n"
    "A run that was stopped goes on when the same command is given again; `tokenmill run -o OUT` alone does it too.\n\n"
    "--engine fake runs no model: its answers are words drawn by chance, for tests of everything else. Without --model each\n"
    "byte is a token; with it, that model's tokenizer and template are used. After a colon, with commas between them:\n" FAKE_OPTIONS_HELP,
    run_options,
    sizeof(struct run_options),
    init_options,
    run_run,
};
