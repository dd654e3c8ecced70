/* plan_private.h: a plan in the making, shared by plan.c and plan_commit.c.
 *
 *     JOB/plan-claim-0001    who plans; the highest number holds. Removed when job.json is there.
 *     JOB/planning-0001/     plan.db, shards/ and spill files of the planner that holds claim 1
 *
 * A dead planner's claim stays; the next planner makes the next number, and so owns, and removes, whatever the dead one left. */
#ifndef TOKENMILL_QUEUE_PLAN_PRIVATE_H
#define TOKENMILL_QUEUE_PLAN_PRIVATE_H

#include "queue/job_private.h"
#include "queue/sorter.h"

#define SORT_BYTES ((size_t)64 << 20)
#define MAX_SHARDS 8388607 /* needs three bytes in SQLite's record format, as do all numbers that are not smaller still */

struct job_plan {
	struct store *store;
	char *work_dir; /* local: JOB/planning-0001, or in TMPDIR where the job is no directory */
	struct claim claim;
	char *claim_name, *next_claim_name;
	int64_t claim_number;
	int holds_claim;
	struct database db;
	sqlite3_stmt *add_row, *find_key, *add_source, *find_source;
	struct buf last_source;
	int64_t last_source_number; /* 0: none yet */
	sqlite3_stmt *add_tag, *find_tag;
	struct buf last_tags;
	int64_t last_tags_number;   /* 0: none yet */
	struct sorter *rows; /* shard lines by prefix */
	int64_t n_rows, n_bad_rows;
	struct buf line, canonical;
};

/* Close statements, database and sorter. */
void plan_close(struct job_plan *p);

#endif
