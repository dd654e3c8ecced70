/* plan_private.h: a plan in the making, shared by plan.c, plan_shards.c and plan_commit.c.
 *
 *     JOB/plan-claim-0001    who plans; the highest number holds. Removed when job.json is there.
 *     JOB/plan-beat-0001     a number that its holder counts up every two seconds
 *     JOB/planning-0001/     plan.db, shards/ and spill files of the planner that holds claim 1
 *
 * A dead planner's claim stays; the next planner makes the next number, and so owns, and removes, whatever the dead one left.
 *
 * A job that is planned already is planned again in the same way (replan.c); then the working directory as a whole becomes the plan's own,
 * plan-0002-ID/, and job-0002.json commits it. */
#ifndef TOKENMILL_QUEUE_PLAN_PRIVATE_H
#define TOKENMILL_QUEUE_PLAN_PRIVATE_H

#include "queue/job_private.h"
#include "queue/sorter.h"

#define SORT_BYTES ((size_t)64 << 20)
#define FOLDS_APPLICATION_ID 0x746d666f /* "tmfo" */
#define FOLDS_SCHEMA "CREATE TABLE fold(fold_key BLOB PRIMARY KEY, row INTEGER NOT NULL) WITHOUT ROWID;"
#define MAX_SHARDS 8388607 /* needs three bytes in SQLite's record format, as do all numbers that are not smaller still */

struct job_plan {
	struct store *store;
	char *work_dir; /* local: JOB/planning-0001, or in TMPDIR where the job is no directory */
	struct claim claim;
	char *claim_name, *next_claim_name;
	int64_t claim_number;
	int generation;          /* that this plan will be: 1 for a new job */
	struct job *from;        /* the plan before, NULL for a new job; the caller's, as is `how` */
	struct job_replan *how;
	int holds_claim;
	int64_t judged;          /* the claim with this number may be taken over: its holder was found dead by who watched it; 0: none */
	int64_t beat;
	double next_beat_s;
	struct database db;
	sqlite3_stmt *add_row, *find_key, *add_source, *find_source;
	struct database folds; /* which row has a fold key first: a file of its own, that goes with the working directory; opened when needed */
	sqlite3_stmt *add_fold, *find_fold;
	struct buf last_source;
	int64_t last_source_number; /* 0: none yet */
	sqlite3_stmt *add_tag, *find_tag;
	struct buf last_tags;
	int64_t last_tags_number;   /* 0: none yet */
	struct sorter *rows; /* by prefix; a record is a struct row_weight and the row's shard line */
	int64_t n_rows, n_bad_rows, n_folded_rows;
	int64_t n_shards_wanted; /* 0: not said */
	struct plan_figures figures;
	struct buf line, canonical;
};

struct row_weight {
	double cost, saving; /* of the row alone; less for each unit of prefix that it shares with the row before */
};

/* What became of the shards: all [n]. */
struct plan_shards {
	int64_t *n_rows;
	double *costs;
	int64_t n;
};
/* Cut the rows into shards: write their files, and into plan.db what they are and who is where. Fills in p->figures. */
int plan_shards_cut(struct job_plan *p, int64_t rows_per_shard, struct plan_shards *out, struct err *err);
void plan_shards_write(const struct job_plan *p, const struct plan_shards *s, struct buf *out); /* members of job.json, each after a comma */
void plan_shards_release(struct plan_shards *s);

/* The claim is free to take: take it, and open what is needed in the working directory. */
int plan_begin(struct job_plan *p, struct err *err);
/* Tell now and then that this planner lives: call as often as you like. ERR_FENCED when another one took over. */
int plan_beat(struct job_plan *p, struct err *err);
char *plan_beat_name(int64_t claim_number); /* malloc'd */
/* Close statements, database and sorter. */
void plan_close(struct job_plan *p);

/* p is to follow from's plan. */
void plan_follow(struct job_plan *p, struct job *from, struct job_replan *how);
/* "plan-0002-5f0c.../": what a plan's files are below. The generation in it tells when what nobody committed can go. */
char *plan_base(int generation, const char *plan_id);
/* Remove what planners that lost, or died, have left for generations up to `newest`: nobody can commit one of those any more. */
int plan_sweep(struct store *s, int newest, struct err *err);

/* plan.db and shards are complete in the working directory: add what `from` has finished (carry.c). 0, 1: no row runs again, -1. */
int plan_carry(struct job_plan *p, struct err *err);

#endif
