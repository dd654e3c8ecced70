/* metrics.h: what a worker tells Prometheus, and whether it lives. The worker's loop leaves numbers between the engine's steps; another thread
 * (metrics_http.h) reads them when somebody asks.
 *
 *     the loop's thread                                                     a thread for HTTP
 *     metrics_observe   an engine's request ended   --> own
 *     metrics_step      between two steps           own -- copied --> shown -- copied --> metrics_write, metrics_health
 *
 * The loop never waits for the other: where the lock is taken (for as long as it takes to copy a few kilobytes) it leaves the copying to the
 * next step. All text is made by the thread that asked for it.
 *
 * Names that begin with "vllm:" are those of vLLM's production metrics (docs.vllm.ai, "Production Metrics"), with its types, labels and buckets, so that
 * dashboards made for it and OpenCost read them; "tokenmill_" ones are of the job. Counters are of this attempt: they begin at 0 with the process,
 * as Prometheus has it. What was counted between the last scrape and the end is in the job's ledger only.
 */
#ifndef TOKENMILL_RUNNER_METRICS_H
#define TOKENMILL_RUNNER_METRICS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "base/buf.h"
#include "engine/engine.h"

enum metric { /* their names: metrics_text.c */
	METRIC_RUNNING,
	METRIC_WAITING,
	METRIC_KV_USAGE,
	METRIC_PROMPT_TOKENS,
	METRIC_GENERATION_TOKENS,
	METRIC_PREFIX_QUERIES,
	METRIC_PREFIX_HITS,
	METRIC_PREEMPTIONS,
	METRIC_ENDED_STOP,
	METRIC_ENDED_LENGTH,
	METRIC_ENDED_ABORT,
	METRIC_ENDED_ERROR,
	METRIC_ROWS_OK,
	METRIC_ROWS_FAILED,
	METRIC_ROWS_IN_FLIGHT,
	METRIC_JOB_ROWS,
	METRIC_JOB_ROWS_DONE,
	METRIC_JOB_ROWS_AT_FAULT,
	METRIC_SHARDS_OPEN,
	METRIC_SHARDS_FINISHED,
	METRIC_JOB_SHARDS,
	METRIC_RECOMPUTED_TOKENS,
	METRIC_BUSY_S,
	METRIC_PUBLISH_S,
	METRIC_PUBLISHES,
	METRIC_LOAD_S,
	METRIC_STORAGE_ERRORS,
	METRIC_SPENT_USD,
	METRIC_BUDGET_USD,
	METRIC_HEARTBEAT_AGE_S, /* kept as the time of the last one, clock_seconds; 0: none */
	METRIC_STEPS,
	METRIC_PEAK_BYTES,
	METRIC_N,
};

enum metric_histogram {
	METRIC_TTFT,
	METRIC_TIME_PER_TOKEN,
	METRIC_INTER_TOKEN,
	METRIC_REQUEST_TIME_PER_TOKEN,
	METRIC_E2E,
	METRIC_QUEUE,
	METRIC_INFERENCE,
	METRIC_PREFILL,
	METRIC_DECODE,
	METRIC_REQUEST_PROMPT_TOKENS,
	METRIC_REQUEST_GENERATION_TOKENS,
	METRIC_N_HISTOGRAMS,
};

enum { METRIC_BUCKETS = 23 }; /* the most that one has, the last without a bound included */

struct metric_counts {
	uint64_t in[METRIC_BUCKETS]; /* of each bucket alone; metrics_write adds them up */
	double sum;
};

struct metrics_values {
	double value[METRIC_N];
	struct metric_counts histogram[METRIC_N_HISTOGRAMS];
	char model[256];
	char worker[16], attempt[64], node_type[64], program[32];
};

enum metrics_stage {
	METRICS_STARTING = 1, /* planning, loading: takes as long as it takes */
	METRICS_WORKING = 2,  /* must step */
	METRICS_ENDING = 3,   /* merging */
};

struct metrics {
	struct metrics_values own;   /* the loop's */
	pthread_mutex_t lock;                  /* of shown */
	struct metrics_values shown;
	double next_s;
	double stall_s;              /* without a step for so long the engine hangs */
	double started_unix_s;
	_Atomic(int64_t) beat_ms;    /* clock_seconds of the last step, in ms */
	atomic_int stage;
};

/* stall_s: see above. Before the thread that reads is started. */
void metrics_init(struct metrics *m, double stall_s);
void metrics_release(struct metrics *m);

/* ---- the loop's thread ---- */

void metrics_observe(struct metrics *m, const struct engine_result *r);
/* Call between any two steps. 1: it is time to fill in m->own.value and call metrics_show; 0: not yet. */
int metrics_step(struct metrics *m);
void metrics_from_engine(struct metrics *m, const struct engine *e);
void metrics_show(struct metrics *m);
void metrics_enter(struct metrics *m, enum metrics_stage stage); /* shows, too, and waits for the lock */

/* ---- any thread ---- */

/* Everything, in Prometheus' text format 0.0.4. */
void metrics_write(struct metrics *m, struct buf *out);
/* Append a line on it. 1: alive; 0: it hangs. *ready: it works, or has worked. */
int metrics_health(struct metrics *m, int *ready, struct buf *out);

/* Bounds of a histogram's buckets but for the last one, which has none. */
const double *metric_bounds(enum metric_histogram h, int *n);

#endif
