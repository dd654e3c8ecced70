/* ledger_private.h: a ledger while it is read (struct ledger is queue's, which writes one). ledger_read.c opens it, checks rows
 * and shards and walks the cells; ledger_pools.c has node time and its sharing out. */
#ifndef TOKENMILL_JOBS_LEDGER_PRIVATE_H
#define TOKENMILL_JOBS_LEDGER_PRIVATE_H

#include "jobs/ledger_read.h"
#include "queue/database.h"

/* By what a pool is shared out; the first one with a sum above 0 counts. */
enum weight_kind { WEIGHT_LIST = 0, WEIGHT_TOKENS = 1, WEIGHT_REQUESTS = 2, N_WEIGHTS };

struct weights {
	atto w[N_WEIGHTS];
};

struct pool {
	int64_t day;
	char *node;
	struct measure total, given;
	struct weights sum, so_far; /* of its own cells */
	int is_orphan;              /* none of them weighs anything: shared out among all cells */
};

struct pools {
	struct pool *list; /* by day, node */
	size_t n, cap;
	struct weights sum, so_far; /* of all cells of the job */
};

struct ledger_reader {
	struct database d;
	const struct ledger_options *o;
	struct ledger_job *job;
	struct pools pools;
	yyjson_doc *job_tags;
	char *only_node;      /* the one node type of all attempts, or "" */
	int64_t first_ms;     /* when rows count in which nothing ran */
	struct measure rows;  /* sums over charge, by SQL */
	struct measure given; /* what went to cells */
};

/* A column that must be text: UTF-8 without NUL bytes, borrowed until the next step; NULL and *err. */
const char *ledger_text(const struct ledger_reader *l, sqlite3_stmt *s, int column, struct err *err);

/* From table attempt: pools, with their price; job's times. */
int ledger_read_attempts(struct ledger_reader *l, struct err *err);
void ledger_free_pools(struct ledger_reader *l);
struct pool *ledger_find_pool(struct ledger_reader *l, int64_t day, const char *node); /* NULL: none */
/* Waste of the whole job onto pools, in proportion to time that was killed, else to node time. */
int ledger_place_waste(struct ledger_reader *l, int64_t wasted_tokens, struct err *err);

int weights_add(struct weights *a, const struct weights *b); /* -1: too large */
/* What the cell with weight w gets of the pool; so_far includes it. */
struct measure pool_take(struct pool *p, const struct weights *so_far, const struct weights *sum);

#endif
