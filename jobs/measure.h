/* measure.h: what a report counts, as one vector that is added up over rows, attempts, groups and jobs. Every sum is exact. */
#ifndef TOKENMILL_JOBS_MEASURE_H
#define TOKENMILL_JOBS_MEASURE_H

#include <stdint.h>

#include "jobs/decimal.h"

enum count_kind {
	COUNT_OK = 0,     /* requests that succeeded, folded ones included */
	COUNT_FAILED = 1, /* while they ran, or by the plan */
	COUNT_INPUT = 2,  /* tokens; cached ones included */
	COUNT_CACHED = 3,
	COUNT_OUTPUT = 4, /* reasoning included */
	COUNT_REASONING = 5,
	COUNT_RECOMPUTED = 6, /* computed again after a preemption or a resume; not billed */
	COUNT_USEFUL = 7,     /* input and output tokens of requests that succeeded */
	COUNT_WASTED = 8,     /* computed by attempts, in no record */
	COUNT_NODE_MS = 9,    /* node time: the sum of the next four */
	COUNT_LOAD_MS = 10,
	COUNT_BUSY_MS = 11,
	COUNT_PUBLISH_MS = 12,
	COUNT_IDLE_MS = 13,
	COUNT_KILLED_MS = 14, /* node time of attempts that never ended and were superseded: part of COUNT_NODE_MS */
	COUNT_GPU_MS = 15,    /* node time times the node's GPUs, by the price sheet */
	N_COUNTS
};
#define COUNT_FIRST_SHARED COUNT_WASTED /* from here on: of attempts, shared out among rows */

enum money_kind {
	MONEY_INPUT = 0, /* list price of input that was not cached */
	MONEY_CACHED_INPUT = 1,
	MONEY_OUTPUT = 2, /* that is no reasoning */
	MONEY_REASONING = 3,
	MONEY_LIST = 4,   /* the sum of the four */
	MONEY_BILLED = 5, /* less the batch discount */
	MONEY_SAVING = 6, /* by the cache, within MONEY_BILLED */
	MONEY_ACTUAL = 7, /* node time at its price */
	MONEY_KILLED = 8, /* of COUNT_KILLED_MS: part of MONEY_ACTUAL */
	N_MONEY
};
#define MONEY_FIRST_SHARED MONEY_ACTUAL

struct measure {
	int64_t count[N_COUNTS];
	atto money[N_MONEY];
};

/* 0, or -1 when a sum does not fit; then *a is somewhere between. */
static inline int measure_add(struct measure *a, const struct measure *b)
{
	for (int i = 0; i < N_COUNTS; i++)
		if (__builtin_add_overflow(a->count[i], b->count[i], &a->count[i]))
			return -1;
	for (int i = 0; i < N_MONEY; i++)
		if (decimal_add(&a->money[i], b->money[i]) < 0)
			return -1;
	return 0;
}

static inline int measure_is_zero(const struct measure *a)
{
	for (int i = 0; i < N_COUNTS; i++)
		if (a->count[i])
			return 0;
	for (int i = 0; i < N_MONEY; i++)
		if (a->money[i])
			return 0;
	return 1;
}

/* Names in CSV and JSON, in the order of the enums ("node_seconds" of COUNT_NODE_MS). */
extern const char *const count_names[N_COUNTS], *const money_names[N_MONEY];

#endif
