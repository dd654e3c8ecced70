/* job_status.h: how a job stands, from what is in its store alone: nothing is written, no claim is made, and workers may be at it meanwhile. So
 * it is a picture taken over a moment: a shard that was looked at first may have moved on when the last one is.
 *
 * Ages compare the worker's clock, as written in its heartbeat, with ours; they are for people, and no count depends on them. */
#ifndef TOKENMILL_QUEUE_JOB_STATUS_H
#define TOKENMILL_QUEUE_JOB_STATUS_H

#include <stddef.h>
#include <stdint.h>

#include "queue/attempt.h"
#include "queue/claim.h"
#include "queue/job.h"

enum worker_state {
	WORKER_RUNNING = 1, /* its last word was that it runs, and nothing says otherwise */
	WORKER_SILENT = 2,  /* the same, and that was over STATUS_SILENT_S ago */
	WORKER_ENDED = 3,   /* told its end */
	WORKER_GONE = 4,    /* did not, and there is no such process on this host, or it left the mark of a crash */
};
enum { STATUS_SILENT_S = 600 }; /* what others wait for unless told otherwise (run --takeover-after) */

struct worker_status {
	struct attempt attempt;
	enum worker_state state;
	int has_crashed;
	double age_s;      /* since its last heartbeat, by its clock against ours; at least 0 */
	double rows_per_s; /* since it was loaded */
	int64_t n_held;    /* unfinished shards whose highest claim is its own, as long as it runs or is silent */
};

enum merged_state {
	MERGED_STATE_NONE = 0,
	MERGED_STATE_COMPLETE = 1,
	MERGED_STATE_PARTIAL = 2,    /* rows are left out */
	MERGED_STATE_CLOSED = 3,     /* rows without a result have an error record */
	MERGED_STATE_OLDER_PLAN = 4, /* of a plan that was replaced */
};

struct job_status {
	/* rows */
	int64_t n_rows, n_bad, n_folded; /* of the input; at fault by the plan; that get the record of another */
	int64_t n_to_run, n_done;        /* in shards; of these with a result */
	int64_t n_failed;                /* of n_done with an error record */
	int failed_is_exact;             /* 0: in object storage, where finished shards are not read for it, as the workers tell: at least */
	/* shards */
	int64_t n_shards, n_shards_done, n_held, n_held_silent, n_orphaned, n_unclaimed; /* held ones include silent ones */
	int64_t n_damaged; /* segments that could not be read: their rows count as not done */
	/* workers, the latest heartbeat first; those that run before all others */
	struct worker_status *workers;
	size_t n_workers, n_running, n_silent;
	int64_t n_unreadable; /* heartbeats */
	struct attempt sums;  /* counts and seconds of all attempts */
	double rows_per_s;    /* of the running ones together */
	double left_s;        /* < 0: not known */
	int has_budget;
	double spent_usd, ceiling_usd; /* ceiling: granted so far to those that run, and spent by the others */
	enum merged_state merged;
	int is_merging; /* somebody who may be alive is at it */
};

/* -1 leaves *s released: ERR_FENCED when the job was planned anew meanwhile (open it again). */
int job_status_read(struct job *j, struct job_status *s, struct err *err);
void job_status_release(struct job_status *s);

/* Of a place without a plan: 1 and who plans it, *is_gone when that process is known to be gone; 0: nobody does; -1. */
int job_status_planner(const char *place, struct claim *who, int *is_gone, struct err *err);

#endif
