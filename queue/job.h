/* job.h: a job is a directory, or a prefix of an S3 bucket (store.h); everything in it that another worker may read is an immutable file
 * that appeared by an atomic step. queue knows rows as keys, bytes and counts, never as tokens or tensors.
 *
 *     JOB/
 *       job.json                       the spec (what was asked for) and the planner's figures; written last by the plan. A later plan of the
 *                                      same job (grown input, other shards) is job-0002.json, ...: the highest number counts. "base" in it
 *                                      says below which prefix that plan's plan.db and shards/ are: "" or "plan-.../"
 *       plan.db, shards                symbolic links to the newest plan's, for people: below they stand as if they were there themselves
 *       plan-0001-ID/                  the plan's own directory, "base" in job.json
 *       plan.db                        SQLite, read-only once published: every row's key, hash, source line, shard, estimate
 *       shards/00012/input.jsonl.zst   the shard's rows, in the order in which they should run
 *       shards/00012/claim-0001        exclusive (link(2)): worker index, host, boot id, pid, time
 *       shards/00012/seg-0001-000003.db finished rows and partial tokens that epoch 1 published, immutable
 *       shards/00012/release-0001      epoch 1's worker ended and gives the shard back: others need not wait for signs of its death
 *       shards/00012/flight-0001       rows that epoch 1 has in flight, replaced as it goes: read after a crash only (suspects.h)
 *       shards/00012/done              all rows of the shard have a result: names the segments that hold them
 *       merged/                        results.jsonl, errors.jsonl, usage.json, ledger.db, manifest.json: renamed into place as one
 *       results.jsonl, errors.jsonl, usage.json   symbolic links into merged/
 *       events/0003-ATTEMPT.json       one small file per worker attempt, also its heartbeat (attempt.h)
 *
 * An S3 prefix holds the same objects, but for the links.
 *
 * Beside these there are, for a while: KIND-claim-0001 and KIND-0001/ for KIND plan (planning-0001/), merging and verifying: who is at it
 * (claim.h) and where it works; and NAME.tmp-..., files being written. What a process that died left of them is removed by the next one.
 * Tables and lines of the files are described in schema.h.
 *
 * One thread per struct job unless said otherwise. Every failure is ERR_STORAGE (disk, or a damaged file, which is named), ERR_INPUT or
 * ERR_FENCED, unless said otherwise; whatever fails, nothing published is harmed and the call can be tried again.
 */
#ifndef TOKENMILL_QUEUE_JOB_H
#define TOKENMILL_QUEUE_JOB_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/errors.h"

/* ---- plan ---- */

enum { PLAN_PREFIX_UNIT = 4 };

struct job_plan;

struct plan_row {
	const char *key;         /* custom_id, unique in the job */
	size_t n_key;
	const char *source;      /* file, or "file!member" for an archive */
	int64_t line;            /* 1-based in that source */
	const char *input;       /* the row's own line of JSON, as it will be run; of a row at fault any bytes, or NULL */
	size_t n_input;
	int64_t n_prompt_tokens;
	int64_t max_output_tokens;
	double expected_output_tokens;
	const void *prefix_key;  /* bytes that sort rows so that shared prefixes are neighbours: units of PLAN_PREFIX_UNIT, one for each step */
	size_t n_prefix_key;     /* at most 1024 */
	double cost;             /* of running it alone, in seconds or any unit; 0: as any other */
	double prefix_saving;    /* what it costs less for each unit of prefix that was computed before */
	const void *fold_key;    /* 32 bytes: a later row with the same ones has the same answer and is not run. NULL: is run in any case */
	const char *tags;        /* what it is charged to: a JSON object of strings, canonical; NULL or empty for none */
	size_t n_tags;
	/* A row at fault: its finished error record instead of a run, a line without newline. NULL for a good row. */
	const char *error_line;
	size_t n_error_line;
};

/* Start planning into a temporary directory beside dir's content. dir is made. ERR_INPUT when dir holds something that is not ours, is
 * planned already; ERR_RETRY when a live process plans it (or one that may be alive: the message names the claim to remove). */
struct job_plan *job_plan_begin(const char *dir, struct err *err);
/* Rows in input order; the row number is the count of earlier calls. 0; 1 when the key was there before (nothing is added; *first_source,
 * *first_line say where, borrowed until the next call); -1. */
int job_plan_add(struct job_plan *p, const struct plan_row *row, const char **first_source, int64_t *first_line, struct err *err);
/* Before the commit: how many shards there shall be, instead of rows_per_shard; no more than there are rows. */
void job_plan_set_shards(struct job_plan *p, int64_t n_shards);
/* Cut shards in prefix order, of about equal cost (shard_cut.h), publish plan.db, shards, and job.json as the last. Their number is that of all
 * rows over rows_per_shard. 0 for that: an eighth of the rows, but at least 256 and at most 2000 (164 rows: one shard; 1000: four; a million: 500).
 * spec_json: an object; it is stored under "spec". Of its members queue reads "fingerprint" (copied to manifest.json) and "deterministic" (see
 * job_merge). Frees p, also on failure. 0, -1; see job_replan_begin for 1. */
int job_plan_commit(struct job_plan *p, const char *spec_json, int64_t rows_per_shard, struct err *err);
void job_plan_abort(struct job_plan *p); /* frees and removes the temporary directory */

/* Of workers that find no plan one makes it, and the others watch it be made:
 *
 *     plan_watch_look -> 1: plan_watch_begin, then as after job_plan_begin
 *                        0: somebody is at it (*who, and for how long there was no sign of life): look again in a while
 *                        2: the job is planned       -1
 *
 * A planner is judged as the claimant of a shard is (job_claim). who and still_s may be NULL. */
struct job_worker;
struct plan_watch;
struct plan_watch *plan_watch_open(const char *place, const struct job_worker *w, struct err *err); /* w is copied, its attempt borrowed */
int plan_watch_look(struct plan_watch *w, struct buf *who, double *still_s, struct err *err);
/* As job_plan_begin; ERR_RETRY when another one was quicker. */
struct job_plan *plan_watch_begin(struct plan_watch *w, struct err *err);
void plan_watch_close(struct plan_watch *w);

/* ---- open ---- */

struct job;

typedef void (*job_problem_fn)(void *context, const char *problem); /* one line */

/* place: a directory, or "s3://bucket/prefix" (store.h). */
int job_is_planned(const char *place, struct err *err); /* 1: job.json is there, 0, -1 */
struct job *job_open(const char *place, struct err *err);
void job_close(struct job *j);
struct store *job_store(struct job *j); /* the job's own */
const char *job_spec(const struct job *j); /* the spec's JSON text, as given to job_plan_commit */
int job_generation(const struct job *j); /* 1, or more when it was planned again */
int64_t job_n_rows(const struct job *j);       /* all rows, those at fault included */
int64_t job_n_bad_rows(const struct job *j);
int64_t job_n_folded_rows(const struct job *j); /* rows that get the record of an earlier one (fold_key) */
int64_t job_n_shards(const struct job *j);
int64_t job_shard_n_rows(const struct job *j, int64_t shard);
double job_shard_cost(const struct job *j, int64_t shard); /* in the planner's unit; of a shard's rows each shares with the one before */
struct plan_figures { /* over the rows that run */
	int64_t prompt_tokens, max_output_tokens;
	double expected_output_tokens;
	int64_t shared_units; /* of prefix, when each is computed once in the whole job */
	double cost;          /* over all shards */
};
const struct plan_figures *job_figures(const struct job *j);
/* Rows with a result over all shards (segments and done marks), for "resuming: 80 of 164 rows are done"; rows at fault are not among them. -1. */
int64_t job_n_done_rows(struct job *j, struct err *err);

/* How lines are made that no engine made; queue knows records only as bytes. */
struct job_lines {
	void *context;
	/* Append the error record of a row that was never run, without newline. code: "budget_exhausted" and the like. */
	void (*closed)(void *context, struct buf *out, const char *key, size_t n_key, const char *code);
	/* Append what the record in line[0, n_line) would be if the row's key were `key`: rows with the same request share one generation. 0, -1. */
	int (*renamed)(void *context, struct buf *out, const char *line, size_t n_line, const char *key, size_t n_key, struct err *err);
};
/* Copied; context must outlive the job. Needed by a merge or verify of a job that has folded rows or is closed. */
void job_set_lines(struct job *j, const struct job_lines *lines);

/* ---- claim and run ---- */

struct job_worker {      /* who claims */
	int index;           /* JOB_COMPLETION_INDEX, 0 on a laptop */
	const char *attempt; /* pod uid or a random id: written into claims and events */
	int index_is_default; /* nobody gave an index: that of another host's worker is then no sign that it is this one's earlier life */
	double takeover_after_s; /* shards of a worker whose heartbeat (attempt.h) stands still for so long are orphans; 0: silence is no sign */
};

struct shard; /* a claimed shard */

/* The next shard for this worker: its own unfinished ones first (epoch + 1), then unclaimed ones, then orphans: claimed, unfinished and
 * the claimant is gone: released, known dead (same host, boot and pid namespace, no such process), told its end, made for another
 * Job uid, or silent for takeover_after_s. (rank.h has the rule.) 1 and *out; 0 nothing to claim now; -1. */
int job_claim(struct job *j, const struct job_worker *w, struct shard **out, struct err *err);
/* After job_claim said 0: how many shards wait for a decision, since their claimants are neither known to be alive nor silent for long
 * enough. Zero: everything is done or in good hands. One of them is described in *who ("process 12 on node-7 (worker 3)"), with the
 * seconds of its silence so far; both may be NULL. */
size_t job_n_watched(const struct job *j, struct buf *who, double *still_s);
int64_t shard_number(const struct shard *s);
int shard_epoch(const struct shard *s);
int64_t shard_n_rows(const struct shard *s);
int64_t shard_n_done(const struct shard *s); /* with results from any epoch */

struct shard_row {
	int64_t row;        /* number in input order */
	const char *key;
	size_t n_key;
	const char *input;
	size_t n_input;
	int64_t n_prompt_tokens, max_output_tokens;
	const void *partial; /* what an earlier epoch published of it (opaque to queue), NULL when nothing */
	size_t n_partial;
	int is_alone;        /* to be run with nothing beside it */
	int is_poison;       /* not to be run: it made the engine crash each time it ran alone; give it an error record */
};
/* The next row without a result, in run order; borrowed until the next call. Rows that may have made an earlier attempt crash come later, part
 * by part (suspects.h), some of them to be run alone: only after shard_tell_idle, which says that nothing of this worker is in flight; it holds for
 * one call. */
enum shard_next {
	SHARD_FAILED = -1,
	SHARD_END = 0,
	SHARD_ROW = 1,
	SHARD_WAITS = 2,          /* there are more, once the suspects that were given have results and these are published */
	SHARD_WAITS_FOR_IDLE = 3, /* there are more, that run alone: once nothing is in flight and everything is published */
};
void shard_tell_idle(struct shard *s);
enum shard_next shard_next(struct shard *s, struct shard_row *out, struct err *err);
/* Before rows run: all that are in flight now, or more. is_alone: one row, and nothing else in this worker. A failure is no reason to stop. */
int shard_note_flight(struct shard *s, const int64_t *rows, size_t n, int is_alone, struct err *err);

struct row_result {
	int64_t row;
	int is_error;          /* line goes to errors.jsonl as well */
	const char *line;      /* output line, without newline: an object whose "custom_id" is the key (job_verify names rows by it) */
	size_t n_line;
	int64_t prompt_tokens, cached_tokens, output_tokens, reasoning_tokens, recomputed_tokens;
	double wait_s, prefill_s, decode_s;
	int64_t finished_ms;   /* Unix time by the worker's clock */
};
/* Remember a finished row / the partial state of a row in flight; the row was given out by shard_next and has no result yet (else BUG). A row's
 * last partial counts, and none once it has a result. Copied; kept in memory: nothing is on disk before shard_publish, which needs
 * the same amount of memory again for a moment. */
void shard_add_result(struct shard *s, const struct row_result *r);
void shard_add_partial(struct shard *s, int64_t row, const void *state, size_t n);
/* Write what was added since the last publish as one immutable segment: temporary file, fsync, rename, fsync of the directory. With all
 * rows finished, `done` as well. ERR_FENCED when a higher epoch is there. On failure what was added stays and the call can be repeated. */
int shard_publish(struct shard *s, struct err *err);
/* Give an unfinished shard back, so that any worker may go on with it at once: for a worker that ends in order. Nothing more may be published. */
int shard_release(struct shard *s, struct err *err);
int shard_is_done(const struct shard *s);
void shard_close(struct shard *s); /* does not publish */

/* ---- plan again ---- */

/* What the next plan of a job keeps of what is finished. A row is recognised by its key and the hash of its input. Its record is taken over as it
 * is, under epoch 0 of its new shard; of an unfinished row the partial state. A shard whose rows are all taken over is done at once. */
struct job_replan {
	/* 0: a finished row that the new plan does not have, or has with another input or as a row at fault, makes the commit fail with
	 * ERR_FINGERPRINT, naming the first; 1: its record is dropped. */
	int may_drop;
	/* NULL: all finished rows are kept. Otherwise one for which it returns 0 is run again; without any such row nothing is published. */
	int (*keep)(void *arg, const struct row_result *r);
	void *arg;
	/* Filled in by the commit, also when it fails on account of may_drop */
	int64_t n_finished; /* rows that had a result; = n_kept + n_dropped + n_again */
	int64_t n_kept, n_dropped, n_again, n_partial;
};
/* As job_plan_begin, for a job that is planned. `from` is the job as it was found, and *how: both stay the caller's and are needed until
 * the commit or the abort. ERR_FENCED when a newer plan than from's is there (open the job again), ERR_RETRY as for job_plan_begin. Workers of
 * the plan that is replaced go on until their next publish, which fails with ERR_FENCED.
 *
 * Then job_plan_add and job_plan_commit as for a first plan; the commit returns 1 when nothing was published because no row runs again. */
struct job_plan *job_replan_begin(struct job *from, struct job_replan *how, struct err *err);
/* Instead of job_plan_add: all rows of `from`, in its order. */
int job_replan_add_same(struct job_plan *p, struct err *err);
/* Of several that would plan the job again one does (see plan_watch_look, which says 2 when there is a newer plan than from's). */
struct plan_watch *plan_watch_open_again(struct job *from, struct job_replan *how, const struct job_worker *w, struct err *err);

/* ---- merge ---- */

/* 1 when every shard is done, 0, -1. */
int job_all_done(struct job *j, struct err *err);
int job_is_merged(struct job *j, struct err *err); /* this plan, with a record of each row, none of them closed: 1, 0, -1 */
/* Stream results in input order to results.jsonl (successful rows) and errors.jsonl (the rest), write usage.json, ledger.db (schema.h) and
 * manifest.json (SHA-256 root over input rows and output records, counts), rename the directory into place, make the links. One record per row:
 * that in the segments which the shard's mark names. The bytes of results.jsonl and errors.jsonl do not depend on how the job came about; nor do
 * the counts in usage.json and ledger.db, but for cached and recomputed tokens, and times. ERR_INPUT when a row is missing (the first is named);
 * ERR_ENGINE when two epochs have different bytes for a row, unless the spec has "deterministic": false (then a warning). usage_extra_json: NULL
 * or an object whose members are added to usage.json (timings, model) after its own {"rows":{"total","ok","failed"},"tokens":{"prompt","cached",
 * "output","reasoning","recomputed"},"seconds":{"wait","prefill","decode"}}. Needs as much disk space again as the results while it works. */
int job_merge(struct job *j, const char *usage_extra_json, struct err *err);
/* The same where several see at once that all is done: one merges. 1: the job is merged, by this call or before it; 0: another process is at it, or
 * may be (*is_alive: it was seen alive): nothing was done, look again or leave it to that one; who is appended to; -1. */
struct merge_watch;
struct merge_watch *merge_watch_open(struct job *j, const struct job_worker *w);
void merge_watch_close(struct merge_watch *m);
int job_merge_in_turn(struct job *j, struct merge_watch *m, const char *usage_extra_json, int *is_alive, struct buf *who, struct err *err);
/* The same of an unfinished job: rows that have no record are left out, or, with a close_code ("budget_exhausted", "batch_expired",
 * "batch_cancelled"), get an error record with it. The manifest has "complete":false; the job does not count as merged, can be run further and
 * merged again. Damaged segments are left out, with a warning. Where a complete merge is there already, that is left as it is. */
int job_merge_partial(struct job *j, const char *close_code, const char *usage_extra_json, struct err *err);
/* A damaged segment that a shard's mark names stops the merge. Take back such marks: the rows whose records are lost run again. The number of
 * shards that are unfinished now; -1. */
int64_t job_repair(struct job *j, struct err *err);
/* The ledger of what is published so far, as a local file that must not exist; rows without a record are not in it. */
int job_ledger(struct job *j, const char *path, struct err *err);

/* Recompute from the plan, the segments and the merged files. ERR_STORAGE when there is a missing, doubled or altered row, a damaged segment, or a
 * sum that is wrong. The first 20 problems are told one by one, then how many more; *err has their number. What could not be read or was never merged
 * is told by *err alone. */
int job_verify_tell(struct job *j, job_problem_fn tell, void *context, struct err *err);
int job_verify(struct job *j, struct err *err); /* *err has the first problem, and how many there are */

#endif
