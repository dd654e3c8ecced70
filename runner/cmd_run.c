/* cmd_run.c: the main job: plan if there is no plan yet, work through the shards, merge.
 *
 *     OUT is new:      plan_in_turn -> prepared_plan_into, or another worker does
 *     OUT is a job:    compare -> load the model -------+-> work_run -> job_merge -> summary
 *                         '-> replan_as_asked: other rows, other shards
 *     OUT is merged:   compare, say so
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/workers.h"
#include "jobs/speed.h"
#include "queue/job.h"
#include "runner/commands.h"
#include "runner/heartbeat.h"
#include "runner/inbox.h"
#include "runner/input.h"
#include "runner/limits.h"
#include "runner/merging.h"
#include "runner/metrics_http.h"
#include "runner/plan_turn.h"
#include "runner/prepare.h"
#include "runner/records.h"
#include "runner/plan_again.h"
#include "runner/signals.h"
#include "runner/spec.h"
#include "runner/supervise.h"
#include "runner/termination.h"
#include "runner/work.h"

struct run_options {
	struct prepare_options prepare;
	const char *output, *job;
	int no_prefix_cache, replan, quiet, progress;
	size_t memory;
	int64_t threads, max_batch, chunk, worker;
	double publish_s, takeover_after_s, stall_s;
	int64_t restarts;
	const char *metrics;
	struct inbox_options inbox;
	int is_batch; /* of an inbox: its files and shards are settled once it is planned */
	struct limits_options limits;
};

enum { MAX_WORKER = 1000000 };

#define RUN_FIELD(name) offsetof(struct run_options, name)
static const struct option_spec run_options[] = {
    PREPARE_OPTIONS(struct run_options, prepare),
    {"output", 'o', OPTION_STRING, RUN_FIELD(output), "OUT", "the job: a directory, or s3://bucket/prefix", 0, 0, NULL},
    {"job", 0, OPTION_STRING, RUN_FIELD(job), "JOB", "the same as --output", 0, 0, NULL},
    {"memory", 0, OPTION_SIZE, RUN_FIELD(memory), "SIZE",
     "all of the engine's memory, such as 4G (default: half of what is free)", 0, 0, NULL},
    {"threads", 0, OPTION_INT, RUN_FIELD(threads), "N", "threads (default: all processors)", 1, 4096, NULL},
    {"max-batch", 0, OPTION_INT, RUN_FIELD(max_batch), "N", "most sequences at once", 1, 4096, NULL},
    {"chunk", 0, OPTION_INT, RUN_FIELD(chunk), "N", "most tokens in a step (default 512)", 1, 65536, NULL},
    {"no-prefix-cache", 0, OPTION_FLAG, RUN_FIELD(no_prefix_cache), NULL, "compute every prompt from its start", 0, 0, NULL},
    {"replan", 0, OPTION_FLAG, RUN_FIELD(replan), NULL, "results of rows that are no longer in the input, or have changed, may go",
     0, 0, NULL},
    {"publish-seconds", 0, OPTION_NUMBER, RUN_FIELD(publish_s), "S", "finished rows reach the disk so often (default 2; 30 in a pod and on remote storage)", 0,
     86400, NULL},
    {"worker", 0, OPTION_INT, RUN_FIELD(worker), "N", "this worker's index (default: JOB_COMPLETION_INDEX, or none)", 0,
     MAX_WORKER, NULL},
    {"takeover-after", 0, OPTION_NUMBER, RUN_FIELD(takeover_after_s), "S",
     "a worker elsewhere that is silent for so long is dead (default 600)", 1, 1e6, NULL},
    {"restarts", 0, OPTION_INT, RUN_FIELD(restarts), "N", "start again, up to N times, when the engine crashes (default 0)", 0, 10000,
     NULL},
    {"inbox", 0, OPTION_STRING, RUN_FIELD(inbox.inbox), "PATH", "run the files in this directory that were not run yet, each once; see below", 0, 0, NULL},
    {"jobs", 0, OPTION_STRING, RUN_FIELD(inbox.jobs), "DIR", "with --inbox: where its jobs are, a directory or s3://bucket/prefix", 0, 0, NULL},
    {"settle", 0, OPTION_NUMBER, RUN_FIELD(inbox.settle_s), "S", "with --inbox: a file is complete when it has not changed for so long (default 5)", 0,
     86400, NULL},
    {"batch-files", 0, OPTION_INT, RUN_FIELD(inbox.batch_files), "N", "with --inbox: at most so many files in one job (default: all that are new)", 1,
     1000000, NULL},
    {"move-done", 0, OPTION_STRING, RUN_FIELD(inbox.move_done), "DIR", "with --inbox: files go to DIR/batch-N/ when their results are there", 0, 0, NULL},
    {"metrics", 0, OPTION_STRING, RUN_FIELD(metrics), "[ADDRESS:]PORT", "serve /metrics (Prometheus), /healthz and /readyz there", 0, 0,
     NULL},
    {"stall-seconds", 0, OPTION_NUMBER, RUN_FIELD(stall_s), "S",
     "an engine without a step for so long hangs: /healthz answers 503 (default 300)", 1, 1e6, NULL},
    {"budget-usd", 0, OPTION_NUMBER, RUN_FIELD(limits.budget), "X", "spend no more, of all workers together (needs --prices)", 0, 1e9, NULL},
    {"budget-by", 0, OPTION_CHOICE, RUN_FIELD(limits.by), "tokens|time", "what is counted: the price of tokens (default), or of this machine's time",
     0, 0, "tokens|time"},
    {"prices", 0, OPTION_STRING, RUN_FIELD(limits.prices), "SHEET", "price sheet, YAML or JSON", 0, 0, NULL},
    {"node-type", 0, OPTION_STRING, RUN_FIELD(limits.node_type), "NAME", "this machine in the price sheet (default: TOKENMILL_NODE_TYPE)", 0, 0, NULL},
    {"deadline", 0, OPTION_STRING, RUN_FIELD(limits.deadline), "TIME", "stop by then: 2h30m from now, or 2026-01-31T18:00:00Z", 0, 0, NULL},
    {"progress", 0, OPTION_CHOICE, RUN_FIELD(progress), "auto|json|none", "how progress is shown on stderr", 0, 0,
     "auto|json|none"},
    {"quiet", 'q', OPTION_FLAG, RUN_FIELD(quiet), NULL, "say nothing but errors", 0, 0, NULL},
    {0},
};

static void init_options(void *options)
{
	struct run_options *o = options;

	prepare_options_init(&o->prepare);
	o->worker = -1; /* not given */
	o->limits.budget = -1;
	o->takeover_after_s = 600;
	o->publish_s = -1; /* not given */
	o->stall_s = 300;
	o->inbox.settle_s = 5;
}

/* Everything that a run opens. */
struct run {
	const struct run_options *o;
	struct input_list files;
	struct prepared prepared; /* what is asked for; the rest is filled in from the job or the model */
	struct engine *engine;
	struct job *job;
	struct records records;
	struct job_worker worker;
	struct heartbeat heart;
	struct limits *limits;
	struct supervised supervised; /* attempt NULL: not */
	double start_s;
	struct work_totals totals;
	struct progress progress;
	struct metrics metrics;
	struct metrics_http *http; /* NULL: nobody asks for metrics */
};

static struct engine_options engine_options_of(const struct run *r)
{
	const struct run_options *o = r->o;

	return (struct engine_options){.math = r->prepared.setup.math,
	                               .kv_type = r->prepared.setup.kv_type,
	                               .memory_bytes = o->memory,
	                               .n_threads = (int)o->threads,
	                               .max_batch = (int32_t)o->max_batch,
	                               .chunk_tokens = (int32_t)o->chunk,
	                               .no_prefix_cache = o->no_prefix_cache};
}

/* The setup is complete up to the context. */
static int open_engine(struct run *r, struct err *err)
{
	struct engine_options eo = engine_options_of(r);
	struct prepared *q = &r->prepared;
	struct buf first = {0}, second = {0};
	const struct engine_plan *p;

	if (prepared_set_context(q, &eo, err) < 0 || prepared_finish(q, err) < 0)
		return -1;
	/* What is free may be less in a moment; the context was decided by this. */
	eo.memory_bytes = q->forecast.budget_bytes;
	r->engine = engine_choice_open(&q->choice, q->setup.model_path, q->text, &eo, err);
	if (!r->engine)
		return -1;
	p = engine_plan(r->engine);
	if (q->setup.n_context > p->max_context)
		return err_set(err, ERR_USAGE,
		               "a context of %d tokens does not fit the memory, which holds %d: give more --memory or less --context",
		               q->setup.n_context, p->max_context);
	command_describe_plan(p, q->setup.kv_type, q->setup.math, &first, &second);
	log_info("%s: %s", q->setup.model_name, first.data);
	if (p->total_bytes)
		log_info("%s", second.data);
	buf_release(&first);
	buf_release(&second);
	return 0;
}

static int n_threads_of(const struct run_options *o)
{
	return o->threads ? (int)o->threads : workers_available_cpus();
}

static int plan(void *arg, struct job_plan *p, struct err *err)
{
	struct run *r = arg;
	struct plan_totals t;

	return prepared_plan_into(&r->prepared, p, &r->files, n_threads_of(r->o), NULL, &t, err);
}

/* ---- go on with a job that is there ---- */

/* A job that was planned without the limit that is asked for now. */
static int check_bad_rows(const struct run *r, struct err *err)
{
	int64_t allowed = prepare_allowed_bad_rows(&r->o->prepare), n = job_n_bad_rows(r->job);

	if (allowed < 0 || n <= allowed)
		return 0;
	return err_set(err, ERR_INPUT,
	               "%s: %" PRId64 " of the job's %" PRId64 " rows are at fault, at most %" PRId64 " are allowed (%s)",
	               r->o->output, n, job_n_rows(r->job), allowed, r->o->prepare.strict ? "--strict" : "--max-bad-rows");
}

static int open_job(struct run *r, struct job_spec *there, struct err *err)
{
	r->job = job_open(r->o->output, err);
	if (!r->job || spec_read(job_spec(r->job), there, err) < 0)
		return -1;
	return 0;
}

/* From now on others hear of this attempt; and of the one before it, if that is known to have crashed. */
static void start_heartbeat(struct run *r)
{
	struct supervised *s = &r->supervised;
	struct err ignored = {0};
	char *mark = attempt_crash_name(r->heart.told.worker, r->heart.told.id);

	if (s->attempt) {
		if (s->crashed[0])
			store_put(job_store(r->job), s->crashed, "", 0, &ignored);
		snprintf(s->attempt, sizeof(s->crashed), "%s", mark);
	}
	free(mark);
	heartbeat_start(&r->heart, job_store(r->job), r->o->takeover_after_s);
}

static int open_limits(struct run *r, struct err *err)
{
	return limits_open(&r->limits, &r->o->limits, r->prepared.setup.model_name, err);
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
	json_write_string(&extra, r->prepared.setup.model_name, strlen(r->prepared.setup.model_name));
	buf_addc(&extra, '}');
	rc = records_attach(&r->records, r->job, err);
	if (rc == 0)
		rc = merging_run(r->job, &r->worker, extra.data, 0, err);
	buf_release(&extra);
	if (rc == 1)
		say_where(r);
	return rc < 0 ? -1 : 0;
}

/* What this run says about the speed of the model here, for the next plan. */
static void learn_speed(struct run *r)
{
	const struct engine_plan *p = engine_plan(r->engine);
	const struct job_setup *setup = &r->prepared.setup;
	char *machine = speed_machine();
	struct speed_key key = {setup->model_fingerprint, spec_math_name(setup->math), spec_kv_name(setup->kv_type), machine, p->n_threads};
	struct speed_run run = {.n_rows = r->totals.n_samples,
	                        .batch = p->max_batch,
	                        .chunk_tokens = p->chunk_tokens,
	                        .lengths = &r->totals.lengths};
	struct engine_stats s;

	engine_get_stats(r->engine, &s);
	run.busy_s = s.busy_s;
	run.n_steps = (int64_t)s.n_steps;
	run.prompt_tokens = (int64_t)s.prompt_tokens;
	run.cached_tokens = (int64_t)s.cached_tokens;
	run.computed_tokens = (int64_t)s.computed_tokens;
	run.output_tokens = (int64_t)s.output_tokens;
	speed_learn_stored(&key, &run);
	free(machine);
}

/* ---- the run ---- */

static void fill_metrics(struct run *r, const struct work_totals *t, size_t n_in_flight)
{
	double *v = r->metrics.own.value;

	metrics_from_engine(&r->metrics, r->engine);
	v[METRIC_ROWS_OK] = (double)(t->n_rows - t->n_failed);
	v[METRIC_ROWS_FAILED] = (double)t->n_failed;
	v[METRIC_ROWS_IN_FLIGHT] = (double)n_in_flight;
	v[METRIC_JOB_ROWS] = (double)job_n_rows(r->job);
	v[METRIC_JOB_ROWS_DONE] = (double)r->progress.n_done;
	v[METRIC_JOB_ROWS_AT_FAULT] = (double)job_n_bad_rows(r->job);
	v[METRIC_SHARDS_OPEN] = (double)t->n_open_shards;
	v[METRIC_SHARDS_FINISHED] = (double)t->n_finished_shards;
	v[METRIC_JOB_SHARDS] = (double)job_n_shards(r->job);
	v[METRIC_PUBLISH_S] = t->publish_s;
	v[METRIC_PUBLISHES] = (double)t->n_publishes;
	v[METRIC_LOAD_S] = r->heart.ready_s - r->start_s;
	v[METRIC_STORAGE_ERRORS] = (double)(t->n_storage_errors + r->heart.n_failed);
	v[METRIC_SPENT_USD] = r->heart.told.spent_usd;
	v[METRIC_BUDGET_USD] = r->o->limits.budget > 0 ? r->o->limits.budget : 0;
	v[METRIC_HEARTBEAT_AGE_S] = r->heart.written_s;
}

static void enter_stage(struct run *r, enum metrics_stage stage)
{
	if (!r->http)
		return;
	fill_metrics(r, &r->totals, 0);
	snprintf(r->metrics.own.model, sizeof(r->metrics.own.model), "%s", r->prepared.setup.model_name);
	metrics_enter(&r->metrics, stage);
}

static void observe(void *arg, const struct engine_result *result)
{
	metrics_observe(&((struct run *)arg)->metrics, result);
}

static void between_steps(void *arg, const struct work_totals *t, size_t n_in_flight)
{
	struct run *r = arg;

	heartbeat_beat(&r->heart, t, n_in_flight);
	if (r->http && metrics_step(&r->metrics)) {
		fill_metrics(r, t, n_in_flight);
		metrics_show(&r->metrics);
	}
}

/* Many pods share one storage, and a request to a remote one takes its time: less often then. */
static double default_publish_s(struct job *j)
{
	const char *pod = getenv("KUBERNETES_SERVICE_HOST");

	return (pod && *pod) || store_is_remote(job_store(j)) ? 30 : 2;
}

static int work(struct run *r, struct err *err)
{
	struct work_options wo = {.job = r->job,
	                          .worker = &r->worker,
	                          .engine = r->engine,
	                          .text = r->prepared.text,
	                          .rules = &r->prepared.rules,
	                          .output = &r->prepared.output,
	                          .now_unix_s = r->prepared.setup.now_unix_s,
	                          .n_context = r->prepared.setup.n_context,
	                          .publish_s = r->o->publish_s >= 0 ? r->o->publish_s : default_publish_s(r->job),
	                          .progress = &r->progress,
	                          .between_steps = between_steps,
	                          .between_steps_arg = r,
	                          .observe = r->http ? observe : NULL,
	                          .observe_arg = r,
	                          .limits = r->limits};
	int64_t n_done = job_n_done_rows(r->job, err);
	enum progress_style style = r->o->quiet           ? PROGRESS_NONE
	                            : r->o->progress == 2 ? PROGRESS_JSON
	                            : r->o->progress == 3 ? PROGRESS_NONE
	                                                  : PROGRESS_AUTO;
	int rc;

	if (n_done < 0)
		return -1;
	if (n_done > 0)
		log_info("resuming: %" PRId64 " of %" PRId64 " rows are done", n_done, job_n_rows(r->job) - job_n_folded_rows(r->job));
	progress_init(&r->progress, style, job_n_rows(r->job) - job_n_folded_rows(r->job), n_done);
	r->heart.ready_s = clock_seconds();
	r->heart.engine = r->engine;
	if (r->limits)
		limits_begin(r->limits, job_store(r->job), &r->worker, &r->heart);
	heartbeat_tell(&r->heart, &r->totals, 0);
	enter_stage(r, METRICS_WORKING);
	rc = work_run(&wo, &r->totals, err);
	heartbeat_end(&r->heart, &r->totals, err);
	enter_stage(r, METRICS_ENDING);
	if (rc == 0 || err->code == ERR_DRAINED || err->code == ERR_BUDGET) {
		summarize(r, clock_seconds() - r->start_s);
		if (r->prepared.choice.kind == ENGINE_CPU)
			learn_speed(r);
	}
	return rc;
}

/* What is asked for, from the beginning. */
static int begin_prepared(struct run *r, struct err *err)
{
	prepared_release(&r->prepared);
	r->prepared = (struct prepared){.o = &r->o->prepare};
	if (r->o->prepare.model)
		r->prepared.setup.model_path = xstrdup(r->o->prepare.model);
	if (engine_choice_read(&r->prepared.choice, r->o->prepare.engine, err) < 0) {
		prepared_release(&r->prepared);
		return -1;
	}
	return 0;
}

/* 1: this process planned the job; 0: another one did; -1. */
static int begin_new(struct run *r, struct err *err)
{
	struct engine_options eo = engine_options_of(r);
	int rc;

	if (!r->files.n)
		return err_set(err, ERR_USAGE, "%s is not a job yet: name the input files", r->o->output);
	if (prepared_read(&r->prepared, err) < 0 || prepared_set_context(&r->prepared, &eo, err) < 0 || prepared_finish(&r->prepared, err) < 0)
		return -1;
	rc = plan_in_turn(r->o->output, &r->worker, plan, r, err);
	if (rc == 0) /* it may have decided otherwise what we left open */
		rc = begin_prepared(r, err);
	return rc;
}

/* The job that this process has just planned: nothing to compare. */
static int open_own(struct run *r, struct err *err)
{
	struct job_spec there = {0};
	int rc = open_job(r, &there, err);

	if (rc == 0) {
		start_heartbeat(r);
		rc = open_limits(r, err) < 0 ? -1 : open_engine(r, err);
	}
	spec_release(&there);
	return rc;
}

/* The job is as it was asked for, or another plan of it. */
static int plan_again(struct run *r, struct err *err)
{
	struct replan x = {.prepared = &r->prepared, .files = &r->files, .worker = &r->worker, .may_drop = r->o->replan, .n_threads = n_threads_of(r->o)};

	return prepared_finish(&r->prepared, err) < 0 ? -1 : replan_as_asked(&x, &r->job, err);
}

/* *merged: nothing is left to do. */
static int resume(struct run *r, int *merged, struct err *err)
{
	struct job_spec there = {0};
	int rc = -1;

	if (open_job(r, &there, err) < 0)
		goto out;
	if (!r->prepared.setup.model_path)
		r->prepared.setup.model_path = xstrdup(there.setup.model_path);
	if (!r->o->prepare.engine && !r->files.n && engine_choice_of_job(&r->prepared.choice, there.setup.model_fingerprint, err) < 0)
		goto out;
	if (prepared_read(&r->prepared, err) < 0) {
		if (!r->o->prepare.model)
			err_context(err, "the model of %s (if it has moved, name its place with --model)", r->o->output);
		goto out;
	}
	if (!r->files.n)
		prepared_take_from_job(&r->prepared, &there.setup);
	if (prepared_compare(&r->prepared, &there.setup, err) < 0) {
		err_context(err, "%s", r->o->output);
		goto out;
	}
	if (r->o->prepare.tags.n && strcmp(there.tags ? there.tags : "{}", r->prepared.tags) != 0) {
		err_set(err, ERR_FINGERPRINT, "%s: --tag differs: the job was planned with %s", r->o->output, there.tags ? there.tags : "{}");
		goto out;
	}
	if (!r->o->is_batch && (r->files.n || r->o->prepare.shards) && plan_again(r, err) < 0)
		goto out;
	if (check_bad_rows(r, err) < 0)
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
	start_heartbeat(r);
	rc = open_limits(r, err) < 0 ? -1 : open_engine(r, err);
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
	if (heartbeat_init(&r->heart, r->worker.index, r->start_s, err) < 0)
		return -1;
	snprintf(r->heart.told.node_type, sizeof(r->heart.told.node_type), "%s", r->o->limits.node_type ? r->o->limits.node_type : "");
	return 0;
}

/* From the beginning, so that whoever looks sees it load. */
static int serve_metrics(struct run *r, struct err *err)
{
	struct metrics_values *v = &r->metrics.own;

	if (!r->o->metrics)
		return 0;
	metrics_init(&r->metrics, r->o->stall_s);
	snprintf(v->worker, sizeof(v->worker), "%d", r->worker.index);
	snprintf(v->attempt, sizeof(v->attempt), "%s", r->heart.told.id);
	snprintf(v->node_type, sizeof(v->node_type), "%s", r->heart.told.node_type);
	snprintf(v->program, sizeof(v->program), "%s", r->heart.told.program);
	if (r->prepared.setup.model_name)
		snprintf(v->model, sizeof(v->model), "%s", r->prepared.setup.model_name);
	metrics_enter(&r->metrics, METRICS_STARTING);
	r->http = metrics_http_start(&r->metrics, r->o->metrics, err);
	if (!r->http) {
		metrics_release(&r->metrics);
		return -1;
	}
	log_info("metrics: port %d, /metrics, /healthz, /readyz", metrics_http_port(r->http));
	return 0;
}

static int run_all(struct run *r, char **args, int n_args, struct err *err)
{
	int merged = 0, is_own = 0, planned;

	for (int i = 0; i < n_args; i++)
		if (input_list_add(&r->files, args[i], err) < 0)
			return -1;
	if (identify_worker(r, err) < 0)
		return -1;
	signals_install();
	if (serve_metrics(r, err) < 0)
		return -1;
	planned = job_is_planned(r->o->output, err);
	if (planned < 0)
		return -1;
	if (!planned && (is_own = begin_new(r, err)) < 0)
		return -1;
	/* Who planned it knows best which files of the batch were still there. */
	if (r->o->is_batch && !is_own)
		input_list_release(&r->files);
	if ((is_own ? open_own(r, err) : resume(r, &merged, err)) < 0)
		return -1;
	if (merged)
		return 0;
	if (work(r, err) < 0)
		return -1;
	return merge(r, err);
}

/* What is left of a run when it is over. */
struct run_end {
	struct attempt told;
	int is_parent; /* this process only started the one that ran (--restarts) */
	int is_child;  /* this process was started to run one job */
};

static int run_job(const struct run_options *given, char **args, int n_args, struct run_end *end, struct err *err)
{
	struct run_options o = *given;
	struct run r = {.o = &o, .prepared.o = &o.prepare, .start_s = clock_seconds()};
	int rc, needs_model;

	if (o.output && o.job)
		return err_set(err, ERR_USAGE, "--output and --job are the same: give one of them");
	r.files.output = o.output = o.output ? o.output : o.job;
	if (!o.output || !*o.output)
		return err_set(err, ERR_USAGE, "-o OUT is missing: the directory for the results");
	if (begin_prepared(&r, err) < 0)
		return -1;
	needs_model = !o.prepare.model && r.prepared.choice.kind != ENGINE_FAKE;
	if (needs_model && !n_args && (rc = job_is_planned(o.output, err)) <= 0)
		return rc < 0 ? -1 : err_set(err, ERR_USAGE, "--model MODEL is missing: %s is not a job yet", o.output);
	if ((o.prepare.model && !*o.prepare.model) || (needs_model && n_args))
		return err_set(err, ERR_USAGE, "--model MODEL is missing");
	if (prepare_options_check(&o.prepare, err) < 0)
		return -1;
	if (!o.limits.node_type)
		o.limits.node_type = getenv("TOKENMILL_NODE_TYPE");
	if (limits_check(&o.limits, err) < 0)
		return -1;
	if (o.quiet)
		log_set_level(LOG_QUIET);
	if (o.restarts > 0 && (rc = supervise((int)o.restarts, &r.supervised)) >= 0) {
		prepared_release(&r.prepared);
		end->is_parent = 1;
		return rc;
	}
	if (o.threads > workers_available_cpus())
		log_warn("--threads %d is more than the %d processors here: they will wait for each other", (int)o.threads,
		         workers_available_cpus());
	rc = run_all(&r, args, n_args, err);
	if (rc < 0 && r.heart.told.state != ATTEMPT_ENDED)
		heartbeat_end(&r.heart, &r.totals, err);
	end->told = r.heart.told;
	end->is_child = r.supervised.attempt != NULL;
	metrics_http_stop(r.http);
	if (r.http)
		metrics_release(&r.metrics);
	limits_free(r.limits);
	job_close(r.job);
	engine_close(r.engine);
	prepared_release(&r.prepared);
	input_list_release(&r.files);
	return rc;
}

/* Is the next batch worth trying after this? What is wrong with one job's input or options is not with another's. */
static int is_of_one_job(int status)
{
	return status == err_exit_code(ERR_INPUT) || status == err_exit_code(ERR_FINGERPRINT);
}

static int run_inbox(const struct run_options *given, struct run_end *end, struct err *err)
{
	struct inbox *in;
	struct inbox_batch batch;
	struct err first = {0};
	int rc, status = 0, n = 0;

	signals_install();
	in = inbox_open(&given->inbox, err);
	if (!in)
		return -1;
	while ((rc = inbox_next(in, &batch, err)) == 1) {
		struct run_options o = *given;
		struct err why = {0};

		n++;
		o.is_batch = 1;
		o.output = batch.place;
		rc = run_job(&o, batch.paths, (int)batch.n_paths, end, &why);
		if (rc == 0 && !end->is_child)
			rc = inbox_finish(in, &why);
		if (rc < 0)
			err_context(&why, "batch %06d", batch.number);
		if (end->is_child || (rc != 0 && !is_of_one_job(termination_status(rc, &why)))) {
			if (why.code != ERR_NONE)
				err_set(err, why.code, "%s", why.msg);
			break;
		}
		if (rc < 0)
			log_error("%s; going on with other batches", why.msg);
		if (rc != 0 && status == 0) {
			status = termination_status(rc, &why);
			first = why;
		}
	}
	inbox_close(in);
	if (rc == 0 && n == 0)
		log_info("nothing new in %s", given->inbox.inbox);
	if (rc != 0 || status == 0)
		return rc;
	if (first.code == ERR_NONE) /* a child has told it */
		return status;
	return err_set(err, first.code, "%s", first.msg);
}

/* The inbox's, or one job. */
static int run_asked(const struct run_options *o, char **args, int n_args, struct run_end *end, struct err *err)
{
	const struct inbox_options *i = &o->inbox;

	if (!i->inbox && (i->jobs || i->move_done || i->batch_files))
		return err_set(err, ERR_USAGE, "--jobs, --batch-files and --move-done are of no use without --inbox");
	if (!i->inbox)
		return run_job(o, args, n_args, end, err);
	if (!*i->inbox || !i->jobs || !*i->jobs)
		return err_set(err, ERR_USAGE, "--inbox PATH needs --jobs DIR: where its jobs are to be");
	if (n_args || o->output || o->job)
		return err_set(err, ERR_USAGE, "--inbox takes its files and its jobs from --inbox and --jobs: neither -o nor input files");
	return run_inbox(o, end, err);
}

static int run_run(const void *options, char **args, int n_args, struct err *err)
{
	struct run_end end = {0};
	double start_s = clock_seconds();
	int rc = run_asked(options, args, n_args, &end, err), status = termination_status(rc, err);
	/* A worker that was started by this process has written its own, unless it was killed. */
	int crashed = end.is_parent && status >= 128 && status != 128 + SIGINT && status != 128 + SIGTERM;
	struct termination t = {.status = status,
	                        .name = crashed ? "crash" : err_code_name(err->code),
	                        .message = crashed ? "the worker was killed or crashed" : err->msg,
	                        .attempt = end.told.id[0] ? &end.told : NULL,
	                        .seconds = clock_seconds() - start_s};

	if (!end.is_parent || crashed)
		termination_write(&t);
	return rc;
}

const struct command command_run = {
    "run",
    "--model MODEL -o OUT [options] IN...",
    "Run a dataset of prompts through a model, here; the results are in OUT.",
    "IN is a file, a pattern, a directory or - (standard input): JSON lines, also in .gz, .zst, .bz2, .xz or tar. Rows are in "
    "the OpenAI\n"
    "batch format, or plain: {\"prompt\": ...} or {\"messages\": [...]} with any parameters.\n"
    "A run that was stopped goes on when the same command is given again; `tokenmill run -o OUT` alone does it too. The input\n"
    "may have grown since, and --shards may differ: what is finished is kept, row by row.\n\n"
    "--inbox PATH --jobs DIR, for a schedule: files of PATH that are in no job yet become the next one, DIR/batch-000123, after those that were left\n"
    "unfinished; each file once, however many runs overlap. Several files of one job must not share a custom_id (--batch-files 1: each file is a job).\n\n"
    "--engine fake runs no model: its answers are words drawn by chance, for tests of everything else. Without --model each\n"
    "byte is a token; with it, that model's tokenizer and template are used. After a colon, with commas between them:\n" FAKE_OPTIONS_HELP,
    run_options,
    sizeof(struct run_options),
    init_options,
    run_run,
};
