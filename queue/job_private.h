/* job_private.h: what plan, claims, segments, merge and verify share behind job.h. */
#ifndef TOKENMILL_QUEUE_JOB_PRIVATE_H
#define TOKENMILL_QUEUE_JOB_PRIVATE_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/hash.h"
#include "base/json.h"
#include "queue/claim.h"
#include "queue/database.h"
#include "queue/job.h"
#include "queue/layout.h"
#include "queue/store.h"

struct shard;

struct job {
	struct store *store;
	int generation;      /* of the plan: 1, 2, ... */
	char *base;          /* what its plan.db and shards/ are below: "" or a prefix that ends in a slash */
	char *spec;
	char plan_id[33];
	int64_t n_rows, n_bad_rows, n_folded_rows, n_shards;
	struct store_file plan_file; /* plan.db, once it is needed: workers do without */
	struct database plan;
	struct plan_figures figures;
	struct {
		int64_t n_rows;
		double cost;
		int is_done; /* once true always true */
	} *shards;           /* [n_shards] */
	struct shard *open;  /* handles, linked by next_open */
	struct job_lines lines; /* how to make lines; zero: it is not known */
	struct workplace *at_work; /* the open one */
	struct pick *pick;   /* what the last look at all shards found; NULL before the first */
};

void pick_free(struct pick *p);

/* Names in the store, malloc'd. */
char *job_shard_dir(const struct job *j, int64_t shard);
/* What commits a plan: "job.json" for the first, "job-0002.json" and so on. */
char *job_commit_name(int generation);
int job_commit_generation(const char *name); /* the plan that a file of this name commits, 0 for other names */
/* plan.db, opened when it is first asked for; NULL on failure. */
struct database *job_plan_db(struct job *j, struct err *err);
int job_is_deterministic(const struct job *j); /* unless the spec says "deterministic": false */
/* ERR_FENCED when a newer plan has taken this one's place, 0, -1. */
int job_check_current(struct job *j, struct err *err);

/* ---- a line of a shard's input (schema.h) ---- */

struct shard_line {
	int64_t row;
	struct buf key;
	int64_t n_prompt_tokens, max_output_tokens;
	const char *input; /* borrowed from the line */
	size_t n_input;
};
void shard_line_write(struct buf *out, int64_t row, const struct plan_row *p);
/* Only *row, cheaply. */
int shard_line_parse_row(const char *line, size_t n, int64_t *row, struct err *err);
int shard_line_parse(struct shard_line *l, const char *line, size_t n, struct err *err); /* l->key is reused; the caller releases it */

/* ---- rows of a shard by number ---- */

enum row_state {
	ROW_UNSEEN = 0,
	ROW_PARTIAL = 1, /* has a partial state, and no result */
	ROW_GIVEN = 2,   /* shard_next gave it out */
	ROW_DONE = 3,    /* has a result */
};
struct row_slot {
	int64_t row;
	enum row_state state;
	void *partial;
	size_t n_partial;
};
struct row_map { /* open addressing, linear probing; zero-initialised is empty */
	struct row_slot *slots;
	size_t n, cap;
};
struct row_slot *row_map_find(const struct row_map *m, int64_t row); /* NULL when it is not there */
struct row_slot *row_map_put(struct row_map *m, int64_t row);        /* made when needed; valid until the next put */
void row_map_release(struct row_map *m);

/* ---- segments ---- */

struct segment_writer; /* one segment, gathered in memory */
struct segment_writer *segment_writer_new(void);
void segment_writer_free(struct segment_writer *w);
void segment_writer_add_result(struct segment_writer *w, const struct row_result *r);
void segment_writer_add_partial(struct segment_writer *w, int64_t row, const void *state, size_t n);
int64_t segment_writer_count(const struct segment_writer *w); /* results and partials in it */
size_t segment_writer_bytes(const struct segment_writer *w);  /* about what it will take */
/* Publish under path. On success the writer is empty again; on failure it is as before. */
int segment_writer_publish(struct segment_writer *w, struct store *s, const char *name, struct err *err);

char *segment_path(const char *shard_dir, int epoch, int sequence); /* malloc'd */

/* Reads the whole file at once, so that a storage that hiccups in the middle is no matter. */
struct segment_reader;
/* 1; 0: there is none (compacted meanwhile, or no longer wanted); -1: it cannot be read, *is_damaged tells whether because its bytes are wrong. */
int segment_reader_open(struct segment_reader **r, struct store *s, const char *name, int *is_damaged, struct err *err);
/* A local file's bytes, which are the reader's now (malloc'd); name is for messages. */
struct segment_reader *segment_reader_open_bytes(void *bytes, size_t n, const char *name, struct err *err);
void segment_reader_close(struct segment_reader *r);
/* Each of the three walks the file once. 1, 0 at the end, -1 with the file's name: it is damaged. What is given is borrowed until the next call. */
int segment_reader_next_done(struct segment_reader *r, int64_t *row, struct err *err);
int segment_reader_next_partial(struct segment_reader *r, int64_t *row, const void **state, size_t *n, struct err *err);
int segment_reader_next_result(struct segment_reader *r, struct row_result *out, struct err *err); /* by row; the line is checked */
int segment_reader_check(struct segment_reader *r, struct err *err); /* 0: all of it is sound, -1. The walks are then at their beginning. */

/* ---- looking again ---- */

/* Files of a shard may go while one looks at it, and a listing may be older than what it lists (NFS): look again, so often, after a wait that grows
 * to a second. */
enum { LOOKS = 8 };
void look_again_wait(int look); /* after look 0, 1, ... */
/* store_get and store_fetch of what is known to be there, as it was listed or something that is there names it: an earlier look of this host may
 * have found nothing and be believed for a while (NFS). 0 only after LOOKS looks. */
int store_get_known(struct store *s, const char *name, size_t max_bytes, struct buf *out, struct err *err);
int store_fetch_known(struct store *s, const char *name, struct store_file *f, struct err *err);

/* ---- done ---- */

/* 1: created, 0: there is another mark already, -1. */
int done_create(struct store *s, const char *shard_dir, int64_t n_rows, int epoch, const struct segment_name *segments, size_t n_segments, struct err *err);
/* The segments that count; *segments is the caller's to free(), NULL on failure. */
int done_read(struct store *s, const char *shard_dir, int64_t n_rows, struct segment_name **segments, size_t *n_segments, struct err *err);
int done_parse(const char *text, size_t n, int64_t n_rows, struct segment_name **segments, size_t *n_segments, struct err *err);

/* ---- committed records ---- */

/* How records are read. Zero: those of a finished job; whatever is wrong is an error. */
struct read_rules {
	/* Called for each damaged segment, which is then left out as far as it is damaged; NULL: it is an error. */
	job_problem_fn damaged;
	void *context;
	int without_lines; /* only their sums are wanted: lines are NULL */
};

void damage_warn(void *context, const char *problem); /* for `damaged`: a warning; context is not used */

/* All results by row, one for each row: of a shard that is done the record in those segments that its mark names; of another, the lowest
 * epoch's. A row that is folded into another (same_as) gets a copy of that one's. */
struct committed;
struct committed_record {
	struct row_result r;
	int64_t shard; /* whose segment has it */
	int epoch;
	int is_copy;   /* of the row that r.row is folded into */
};
/* spill_path: a file that may be made while this is open. */
struct committed *committed_open(struct job *j, const char *spill_path, const struct read_rules *rules, struct err *err);
void committed_close(struct committed *c);
/* 1 and the next record, borrowed until the next call; 0; -1. Two epochs that disagree about a row: ERR_ENGINE, unless the spec says
 * "deterministic": false; then the lower epoch's counts and the row is one of committed_n_conflicts. */
int committed_next(struct committed *c, struct committed_record *out, struct err *err);
int64_t committed_n_conflicts(const struct committed *c);
/* Rows of which a segment that does not count (published after its shard was done) has another record. */
int64_t committed_n_late(const struct committed *c);

/* Rows of the plan in input order. Zero-initialise; finish with plan_cursor_close. */
struct plan_cursor {
	struct database *plan;
	sqlite3_stmt *stmt;
	int64_t row;
	const char *key, *source, *error; /* error NULL: a good row. All borrowed until the next call */
	size_t n_key, n_error;
	const void *hash; /* 32 bytes */
	int64_t line, tags;
	int64_t shard;    /* -1: none */
	int64_t same_as;  /* -1: none */
};
int plan_cursor_next(struct plan_cursor *c, struct database *plan, struct err *err); /* 1, 0, -1 */
void plan_cursor_close(struct plan_cursor *c);

/* What a row's record is: "status" in ledger.db, where the last two have no row. */
enum ledger_status {
	LEDGER_OK = 0,
	LEDGER_FAILED = 1,   /* an error record, made by a run */
	LEDGER_AT_FAULT = 2, /* an error record, made by the plan */
	LEDGER_FOLDED = 3,   /* the record of the row that it is folded into, under its own key */
	LEDGER_CLOSED = 4,   /* none; an error record says that it was never run */
	LEDGER_MISSING = 5,  /* none */
};

struct ledger_rules {
	struct read_rules read;
	int allows_missing;     /* a row without a record is given as such; otherwise an error */
	const char *close_code; /* not NULL: it gets an error record with this code */
};

struct shard_sums { /* of one shard; charge's sums in ledger.db */
	int64_t n_rows, n_failed;
	int64_t prompt_tokens, cached_tokens, output_tokens, reasoning_tokens, recomputed_tokens;
};

/* Plan and committed records side by side: every row with its one record, and sums over those given so far. */
struct ledger {
	/* the current row: its record, borrowed until the next call */
	enum ledger_status status;
	const char *line; /* NULL: it has none (LEDGER_MISSING), or no lines were asked for */
	size_t n_line;
	int is_error;
	const struct committed_record *record; /* what was run for it: LEDGER_OK, LEDGER_FAILED; else NULL */
	int epoch;        /* that committed it; 0: none */
	struct plan_cursor plan;
	/* sums */
	int64_t n_rows, n_records, n_failed, n_closed; /* rows given; those with a record; those with an error record; those among them that were closed */
	struct shard_sums total;
	double wait_s, prefill_s, decode_s;
	struct shard_sums *shards; /* [n_shards] */
	/* private */
	struct job *job;
	struct ledger_rules rules;
	struct database *plan_db;
	struct committed *committed;
	struct committed_record next;
	struct buf made; /* a line made here */
	int rc, used_next; /* rc: 1 while next holds the next record */
	struct root_hash *root; /* NULL without lines */
};
int ledger_open(struct ledger *l, struct job *j, const char *spill_path, const struct ledger_rules *rules, struct err *err);
void ledger_close(struct ledger *l);
/* 1, 0 at the end, -1: ERR_INPUT when the row has no result, ERR_STORAGE for a record that belongs to no row. */
int ledger_next(struct ledger *l, struct err *err);
/* "row 12 (key "a", in.jsonl:13) WHAT" */
int ledger_fail(const struct ledger *l, struct err *err, enum err_code code, const char *what);
/* After the end: SHA-256 over, for each row that has a record, in input order, its input's hash (32 bytes), one byte (0 a result, 1 an error
 * record), and the SHA-256 of the record's line (32 bytes). */
void ledger_root(struct ledger *l, char hex[SHA256_HEX_BYTES]);

/* ---- ledger.db (schema.h) ---- */

struct ledger_db; /* one being written, at a local path */
struct ledger_db *ledger_db_create(const char *path, struct err *err);
void ledger_db_abort(struct ledger_db *d);
int ledger_db_add(struct ledger_db *d, const struct ledger *l, struct err *err); /* the current row */
/* After the last row. The file is complete, not yet durable. Frees d, also on failure. */
int ledger_db_finish(struct ledger_db *d, const struct ledger *l, struct err *err);
/* One to be held against a ledger. path is a local file, shown its name in messages. */
struct ledger_check;
struct ledger_check *ledger_check_open(const char *path, const char *shown, struct job *j, struct err *err);
void ledger_check_close(struct ledger_check *c);
/* Is the current row charged as it should be? 1, 0 and what is wrong in *wrong, -1. */
int ledger_check_row(struct ledger_check *c, const struct ledger *l, struct buf *wrong, struct err *err);
/* After the last row: nothing else is charged, and the sums are right. As that. */
int ledger_check_end(struct ledger_check *c, const struct ledger *l, struct buf *wrong, struct err *err);

/* usage.json: the sums, and the members of extra (NULL: none). */
int usage_write(struct buf *out, const struct ledger *l, yyjson_val *extra, struct err *err);

/* A local directory to work in beside what is published, JOB/KIND-NNNN (in TMPDIR where the job is none), with a claim KIND-claim-NNNN and a
 * heartbeat KIND-beat-NNNN, a number that is counted up every two seconds; those of dead processes are removed. */
struct workplace {
	struct job *job;
	struct claim claim;
	int64_t number;
	char *claim_name, *beat_name, *dir; /* dir NULL: not open */
	int64_t beat;
	double next_beat_s;
};
int workplace_open(struct workplace *w, struct job *j, const char *kind, struct err *err);
void workplace_close(struct workplace *w); /* removes all three */
/* From inside of what takes long, as often as you like: the beat of the workplace that is open, if there is one. */
void job_beat(struct job *j);

/* Is somebody else merging, with a claim whose number is below this one? 1: *is_alive: that is known, else only that he was seen no longer than
 * takeover_after_s ago; who: appended to. 0: nobody. -1. */
int merge_watch_look(struct merge_watch *m, int64_t below, int *is_alive, struct buf *who, struct err *err);

#endif
