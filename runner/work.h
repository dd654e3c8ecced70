/* work.h: the worker loop: claim a shard, feed its rows to the engine, publish what is finished, until nothing is left to
 * claim.
 *
 *     job_claim -> shard_next -> row_parse, prompt_make -> engine_submit -> engine_step -> (results) -> shard_add_result
 *                                                                            every few seconds: shard_publish
 *
 * The next shard is claimed while the last rows of the one before still run, so the batch does not drain between shards;
 * several shards may be open at once. On SIGTERM nothing more is admitted, finished rows and the tokens of running ones are
 * published.
 */
#ifndef TOKENMILL_RUNNER_WORK_H
#define TOKENMILL_RUNNER_WORK_H

#include "engine/engine.h"
#include "jobs/estimate.h"
#include "queue/job.h"
#include "runner/output.h"
#include "runner/progress.h"
#include "runner/row.h"

struct work_totals;
struct limits;

struct work_options {
	struct job *job;
	const struct job_worker *worker;
	struct engine *engine;
	const struct text *text;
	const struct row_rules *rules;
	const struct output_rules *output;
	int64_t now_unix_s;
	int32_t n_context;
	double publish_s; /* at least so long between two publishes */
	struct progress *progress;
	/* Called between steps, and while waiting; NULL: none. */
	void (*between_steps)(void *arg, const struct work_totals *t, size_t n_in_flight);
	void *between_steps_arg;
	engine_result_fn observe; /* told of each request that ended, before its row is; NULL: none */
	void *observe_arg;
	struct limits *limits; /* budget and deadline, NULL: none */
};

struct work_totals { /* of this attempt */
	int64_t n_rows, n_failed, prompt_tokens, cached_tokens, output_tokens, reasoning_tokens, recomputed_tokens;
	int64_t n_samples;
	struct output_lengths lengths; /* of answers that the model ended or its row's limit cut */
	double publish_s;              /* time spent publishing */
	int64_t n_publishes;
	int64_t n_storage_errors;      /* publishes that failed and were tried again */
	int64_t n_open_shards, n_finished_shards;
};

/* 0: nothing is left to claim. -1: ERR_DRAINED after a signal, ERR_FENCED, ERR_STORAGE, ERR_ENGINE, ERR_BUDGET; what was finished is
 * published if that was possible. */
int work_run(const struct work_options *o, struct work_totals *t, struct err *err);

#endif
