/* verify_private.h: what verify.c (which files, which sums) and verify_lines.c (which line is whose) share. */
#ifndef TOKENMILL_QUEUE_VERIFY_PRIVATE_H
#define TOKENMILL_QUEUE_VERIFY_PRIVATE_H

#include "queue/job_private.h"
#include "queue/lines.h"

/* Everything that is wrong, in the order in which it was found; the first is kept, some are told, all are counted. */
struct problems {
	job_problem_fn tell; /* may be NULL */
	void *context;
	int64_t n;
	struct buf first;
};
void problems_add(struct problems *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* A merged file with one line of look-ahead. */
struct merged_lines {
	const char *name;
	struct store_file file;
	struct line_reader *reader;
	const char *line; /* the current one; NULL at the end */
	size_t n;
	int64_t number;
	/* While the line after the current one is looked at, the current one is a copy. */
	struct buf held;
	int is_held;
	const char *ahead; /* NULL at the end */
	size_t n_ahead;
	int64_t n_wrong; /* problems of this file */
};

struct line_check {
	struct job *job;
	struct problems *problems;
	struct merged_lines files[2]; /* results, errors */
	sqlite3_stmt *find_key;
	struct row_map told;    /* rows that are missing in their place, or stand elsewhere: each is told once. Bounded */
	int is_partial;         /* what was merged is not all: a row that has a record by now may be missing, or closed */
	int has_damage;         /* segments are damaged: a row without a record may have a line */
	int64_t n_newer;        /* rows of a partial merge that have a record by now */
	struct buf key, made;
};
/* Open both files. */
int line_check_open(struct line_check *c, struct job *j, struct problems *p, struct err *err);
void line_check_close(struct line_check *c);
/* The ledger's current row. 1: it is in its place (or is told of); 0: it is newer than what was merged; -1: a file cannot be read. */
int line_check_row(struct line_check *c, const struct ledger *l, struct err *err);
int line_check_end(struct line_check *c, const struct ledger *l, struct err *err); /* nothing may be left */

#endif
