/* plan_again.h: a job that is there, and asked for with another input or other shards, or for its failed rows once more: a new plan of it, which
 * keeps what is finished (queue/job.h, struct job_replan).
 *
 * Several workers may be started at once with the same wish: one plans, the others wait for it and find the job as they want it. What was asked
 * for is in the job's spec. One thread. */
#ifndef TOKENMILL_RUNNER_PLAN_AGAIN_H
#define TOKENMILL_RUNNER_PLAN_AGAIN_H

#include "queue/job.h"
#include "runner/prepare.h"

struct replan {
	struct prepared *prepared;      /* finished; its setup is the job's */
	const struct input_list *files; /* none: the job's own rows */
	const struct job_worker *worker; /* who asks */
	int may_drop;                   /* finished rows that the new input does not have */
	int n_threads;
};
/* Compare inputs and shards with what is asked for, and plan again where they differ; *job is then another handle. ERR_FINGERPRINT: a finished row
 * would be dropped, and may not. After a failure *job is the caller's to close, and may be NULL. */
int replan_as_asked(const struct replan *r, struct job **job, struct err *err);

/* The job's own rows again; finished ones for which keep (see struct job_replan) is 0 run once more. 0, 1: there are none, -1. */
int replan_rows_again(struct job **job, const struct job_worker *worker, struct job_replan *how, struct err *err);

#endif
