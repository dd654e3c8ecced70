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
	int64_t n_rows, n_bad_rows, n_shards;
	struct store_file plan_file; /* plan.db, once it is needed: workers do without */
	struct database plan;
	struct plan_figures figures;
	struct {
		int64_t n_rows;
		double cost;
		int is_done; /* once true always true */
	} *shards;           /* [n_shards] */
	struct shard *open;  /* handles, linked by next_open */
	struct pick *pick;   /* what the last look at all shards found; NULL before the first */
};

void pick_free(struct pick *p);

/* Names in the store, malloc'd. */
char *job_shard_dir(const struct job *j, int64_t shard);
/* What commits a plan: "job.json" for the first, "job-0002.json" and so on. */
char *job_commit_name(int generation);
/* plan.db, opened when it is first asked for; NULL on failure. */
struct database *job_plan_db(struct job *j, struct err *err);
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
/* Publish under path. On success the writer is empty again; on failure it is as before. */
int segment_writer_publish(struct segment_writer *w, struct store *s, const char *name, struct err *err);

char *segment_path(const char *shard_dir, int epoch, int sequence); /* malloc'd */

/* Reads the whole file at once, so that a storage that hiccups in the middle is no matter. */
struct segment_reader;
struct segment_reader *segment_reader_open(struct store *s, const char *name, struct err *err);
/* A local file's bytes, which are the reader's now (malloc'd); name is for messages. */
struct segment_reader *segment_reader_open_bytes(void *bytes, size_t n, const char *name, struct err *err);
void segment_reader_close(struct segment_reader *r);
/* Each of the three walks the file once. 1, 0 at the end, -1 with the file's name. What is given is borrowed until the next call. */
int segment_reader_next_done(struct segment_reader *r, int64_t *row, struct err *err);
int segment_reader_next_partial(struct segment_reader *r, int64_t *row, const void **state, size_t *n, struct err *err);
int segment_reader_next_result(struct segment_reader *r, struct row_result *out, struct err *err); /* by row; the line is checked */

/* ---- done ---- */

/* 0, also when the mark is there already. */
int done_create(struct store *s, const char *shard_dir, int64_t n_rows, int epoch, const struct segment_name *segments, size_t n_segments, struct err *err);
/* The segments that count; *segments is the caller's to free(), NULL on failure. */
int done_read(struct store *s, const char *shard_dir, int64_t n_rows, struct segment_name **segments, size_t *n_segments, struct err *err);
int done_parse(const char *text, size_t n, int64_t n_rows, struct segment_name **segments, size_t *n_segments, struct err *err);

/* ---- committed records ---- */

/* All results by row, one for each row: the lowest epoch's. Of a shard that is done those segments count that its mark names; of another, all. */
struct committed;
/* spill_path: a file that may be made while this is open. */
struct committed *committed_open(struct job *j, const char *spill_path, struct err *err);
void committed_close(struct committed *c);
/* 1 and the next record, borrowed until the next call, with the shard whose segment has it; 0; -1. Two epochs that disagree about a row:
 * ERR_ENGINE, unless the spec says "deterministic": false; then the lower epoch's counts and the row is one of committed_n_conflicts. */
int committed_next(struct committed *c, struct row_result *out, int64_t *shard, struct err *err);
int64_t committed_n_conflicts(const struct committed *c);

/* Rows of the plan in input order. Zero-initialise; finish with plan_cursor_close. */
struct plan_cursor {
	struct database *plan;
	sqlite3_stmt *stmt;
	int64_t row;
	const char *key, *source, *error; /* error NULL: a good row. All borrowed until the next call */
	size_t n_key, n_error;
	const void *hash; /* 32 bytes */
	int64_t line, shard;
};
int plan_cursor_next(struct plan_cursor *c, struct database *plan, struct err *err); /* 1, 0, -1 */
void plan_cursor_close(struct plan_cursor *c);

/* Plan and committed records side by side: every row with its one record, and sums over those given so far. */
struct ledger {
	/* the current row's record, borrowed until the next call */
	const char *line;
	size_t n_line;
	int is_error;
	struct plan_cursor plan;
	/* sums */
	int64_t n_rows, n_failed;
	int64_t prompt_tokens, cached_tokens, output_tokens, reasoning_tokens, recomputed_tokens;
	double wait_s, prefill_s, decode_s;
	/* private */
	struct job *job;
	struct database *plan_db;
	struct committed *committed;
	struct row_result result;
	int64_t result_shard;
	int rc, used_result; /* rc: 1 while result holds the next record */
	struct sha256 *root;
};
int ledger_open(struct ledger *l, struct job *j, const char *spill_path, struct err *err);
void ledger_close(struct ledger *l);
/* 1, 0 at the end, -1: ERR_INPUT when the row has no result, ERR_STORAGE for a record that belongs to no row. */
int ledger_next(struct ledger *l, struct err *err);
/* "row 12 (key "a", in.jsonl:13) WHAT" */
int ledger_fail(const struct ledger *l, struct err *err, enum err_code code, const char *what);
/* After the end: SHA-256 over, for each row in input order, its input's hash (32 bytes), one byte (0 a result, 1 an error record), and the
 * SHA-256 of the record's line (32 bytes). */
void ledger_root(struct ledger *l, char hex[SHA256_HEX_BYTES]);

/* usage.json: the sums, and the members of extra (NULL: none). */
int usage_write(struct buf *out, const struct ledger *l, yyjson_val *extra, struct err *err);

/* A local directory to work in beside what is published, JOB/KIND-NNNN (in TMPDIR where the job is none), with a claim KIND-claim-NNNN; those
 * of dead processes are removed. */
struct workplace {
	struct store *store;
	struct claim claim;
	char *claim_name, *dir; /* dir NULL: not open */
};
int workplace_open(struct workplace *w, struct job *j, const char *kind, struct err *err);
void workplace_close(struct workplace *w); /* removes both */

/* A SHA-256 as 32 bytes. */
void sha256_bytes(const void *p, size_t n, unsigned char out[32]);

#endif
