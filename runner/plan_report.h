/* plan_report.h: what `plan` says of a job that is planned: sums from the planner, spread of its shards, hours and prices.
 *
 * Hours are those of the shards' estimated costs, handed out in their order to workers that each take the next one when they are free; loading
 * the model is not in them. */
#ifndef TOKENMILL_RUNNER_PLAN_REPORT_H
#define TOKENMILL_RUNNER_PLAN_REPORT_H

#include "base/buf.h"
#include "jobs/prices.h"
#include "jobs/speed.h"
#include "queue/job.h"
#include "runner/plan_rows.h"
#include "runner/prepare.h"

enum { PLAN_WORKER_COUNTS = 3 };
extern const int plan_worker_counts[PLAN_WORKER_COUNTS]; /* 1, 4, 16 */

struct plan_spread {
	double min, median, max;
};

struct plan_report {
	/* from the caller */
	const char *place;               /* where the job stays, NULL: it does not */
	const struct prepared *prepared;
	struct job *job;
	const struct speed *speed;       /* NULL: not known, costs are no seconds */
	struct plan_totals totals;
	struct buf faults;               /* members of a JSON array */
	/* computed */
	int64_t n_folded;
	int64_t unique_tokens;           /* prompt tokens when each shared block is computed once */
	double cache_share;              /* best possible share of prompt tokens that come out of the cache */
	int64_t kv_rows;                 /* average rows whose keys and values fit the memory at once; 0: not known (no model) */
	int64_t n_shards;
	struct plan_spread rows, cost;   /* of shards */
	double seconds[PLAN_WORKER_COUNTS]; /* from the first claim to the last row */
	double worker_s;                 /* of all workers together */
	struct prices *prices;           /* NULL: none */
	int has_token_price, has_node_price;
	struct token_cost expected, most; /* with the answers that are expected, and with all at their limit */
	struct node_price node;
	atto node_cost;
};

/* price sheet and node type: NULL for none. ERR_INPUT when the sheet cannot be read or has no price for the model or the node. */
int plan_report_compute(struct plan_report *r, const char *sheet, const char *node_type, struct err *err);
void plan_report_text(const struct plan_report *r, struct buf *out);
void plan_report_json(const struct plan_report *r, struct buf *out);
void plan_report_release(struct plan_report *r); /* not the job */

#endif
