/* ledger_read.h: one job's ledger.db (queue/schema.h), checked and priced, as a stream of cells: rows of one set of tags, day
 * and node type.
 *
 * Node time. An attempt's seconds become milliseconds, and are divided among the days (UTC) that they cover in proportion. The
 * attempts' time of one day and node type is a *pool*; it costs what the sheet says for that day. A pool is shared out among
 * the cells of its day and node type in proportion to their list price; where that is 0 (or there are no prices) to tokens
 * computed; else to requests. A pool without such cells (a day on which nothing was finished) is shared out among all of the
 * job in the same way, and stays on its own day and node type. A job without any row keeps its pools under the job's own tags.
 * Shares are cut so that their sum is the pool to the last unit: cell k gets floor(pool * (w1 + ... + wk) / W) less what those
 * before it got, in the order of tags, day, node type.
 *
 * An attempt that never ended told its times by its last heartbeat, which may be half a minute older than the last row that it
 * published: its time counts until then, at most ten minutes more than it told, as busy.
 *
 * A row's node type is that of the attempt which held its shard's epoch; where the ledger does not tell, the only type of the
 * job, or "". A row in which nothing ran counts on the day of the first attempt, or of the first row that finished.
 *
 * Balance. The sums over rows must be shard_total's, shard by shard; a complete job must have a charge for each row; what was
 * handed out must add up to the sums over all rows and all attempts. If not: ERR_STORAGE, and the message names what differs.
 *
 * Memory does not grow with the number of rows: SQLite sorts in a temporary file. One thread. */
#ifndef TOKENMILL_JOBS_LEDGER_READ_H
#define TOKENMILL_JOBS_LEDGER_READ_H

#include <stdint.h>

#include "base/errors.h"
#include "jobs/groups.h"
#include "jobs/histogram.h"
#include "jobs/measure.h"
#include "jobs/prices.h"

struct ledger_job {
	char *plan_id, *name, *model, *fingerprint;
	int is_complete;
	int64_t n_rows, n_charges, n_attempts;
	int64_t start_ms, end_ms; /* first start and last sign of life of an attempt; 0 without attempts */
	struct measure total;     /* of all days */
};
void ledger_job_release(struct ledger_job *j);

/* -1 stops the reading. */
typedef int (*ledger_cell_fn)(void *arg, const struct group_facts *f, const struct measure *m, struct err *err);

struct ledger_options {
	const struct prices *prices; /* NULL: no money */
	int64_t since, until;        /* days; rows and node time of others are checked and shared out but not handed out */
	struct histogram *latency_s, *output_tokens; /* added to, by requests that ran; NULL: not wanted */
};

/* path: a local file; shown: its name in messages. *job is filled on success (release it), else empty. ERR_STORAGE: unreadable,
 * damaged or out of balance; ERR_INPUT: the sheet lacks a price. Cells may have been handed out before a failure shows. */
int ledger_read(const char *path, const char *shown, const struct ledger_options *o, ledger_cell_fn fn, void *arg,
                struct ledger_job *job, struct err *err);

#endif
