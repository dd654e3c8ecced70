/* limits.h: --budget-usd and --deadline: until when a worker may begin rows.
 *
 * Spend is what finished rows cost by the price sheet (tokens at the model's price, less the batch discount) or, --budget-by time, this machine's
 * price for the time since the program began. It is told in the heartbeat; the other workers' is read from theirs (jobs/budget.h). A row that is
 * to begin, and those in flight, are thought to cost what rows cost on average so far, or before any has finished their whole limit.
 *
 * An attempt that is over spends nothing any more: it has told its end, its process here is dead, it is an earlier one of this worker's index or
 * of another Job, or its heartbeat stands still. */
#ifndef TOKENMILL_RUNNER_LIMITS_H
#define TOKENMILL_RUNNER_LIMITS_H

#include <stdint.h>

#include "jobs/prices.h"
#include "queue/job.h"
#include "runner/heartbeat.h"

struct limits_options {
	double budget;        /* < 0: none */
	int by;               /* 2: time, else tokens */
	const char *prices;   /* path of the sheet; needed with a budget */
	const char *node_type;
	const char *deadline; /* NULL: none. "2h30m", "45s", "2026-01-31T18:00:00Z" */
};

enum limits_state {
	LIMITS_GO = 1,
	LIMITS_WAIT = 2,   /* nothing may begin before others have told what they spend */
	LIMITS_FINISH = 3, /* nothing begins any more: rows in flight are brought to their end */
	LIMITS_STOP = 4,   /* now */
};

struct limits;

/* Before anything else is done: do these options make sense, and can the sheet be read? ERR_USAGE, ERR_INPUT. */
int limits_check(const struct limits_options *o, struct err *err);
/* NULL in *out when there is no limit. model: as the sheet names it. ERR_USAGE, ERR_INPUT. */
int limits_open(struct limits **out, const struct limits_options *o, const char *model, struct err *err);
void limits_free(struct limits *l);
/* worker, store and heart outlive l. */
void limits_begin(struct limits *l, struct store *s, const struct job_worker *worker, struct heartbeat *heart);

/* A row begins: what it may cost, to be given back at its end with what it was. */
double limits_row_begins(struct limits *l, int64_t n_prompt, int64_t max_output);
void limits_row_ends(struct limits *l, double projected, const struct token_counts *used, double seconds);
/* Call before rows begin and between steps; asks the other workers when it must. */
enum limits_state limits_look(struct limits *l, const struct work_totals *t, size_t n_in_flight);
/* Why nothing begins any more: ERR_BUDGET, always -1. */
int limits_fail(const struct limits *l, struct err *err);

#endif
