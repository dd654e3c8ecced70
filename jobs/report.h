/* report.h: what jobs used and cost, over any number of ledgers, and the formats that it is told in.
 *
 *     report_init -> report_add_ledger for each job -> report_finish -> report_write_*
 *
 * Money is written to the last digit in csv, json and focus; a table and a page round it for the eye. All sums of groups are
 * the total's, or report_finish fails. One thread. */
#ifndef TOKENMILL_JOBS_REPORT_H
#define TOKENMILL_JOBS_REPORT_H

#include "base/buf.h"
#include "jobs/groups.h"
#include "jobs/histogram.h"
#include "jobs/ledger_read.h"
#include "jobs/prices.h"

struct report {
	const struct prices *prices; /* borrowed; NULL: no money */
	int64_t since, until;        /* days, inclusive */
	struct groups groups;        /* by what was asked for */
	struct groups by_day;        /* day, tenant: for charts */
	struct measure total;
	struct ledger_job *jobs;
	size_t n_jobs, cap_jobs;
	struct histogram latency_s, output_tokens;
};

void report_init(struct report *r, const struct dimensions *by, const struct prices *prices, int64_t since, int64_t until);
void report_release(struct report *r);
/* ERR_USAGE when the job is in the report already: it would count twice. For other failures see ledger_read; the report is of
 * no use then. */
int report_add_ledger(struct report *r, const char *path, const char *shown, struct err *err);
int report_finish(struct report *r, struct err *err);

int report_has_list(const struct report *r);   /* the sheet has prices of models */
int report_has_actual(const struct report *r); /* and of node types */

/* What a million tokens cost: the actual cost where node types have prices, else what is billed. Actual cost is divided between
 * input and output as the list price is (without one: as the tokens computed). -1: none. */
struct per_million {
	atto input, output, useful; /* a multiple of 1e-12 */
	int has_input, has_output, has_useful;
};
struct per_million report_per_million(const struct report *r, const struct measure *m);

void report_write_table(const struct report *r, struct buf *out);
void report_write_csv(const struct report *r, struct buf *out);
void report_write_json(const struct report *r, struct buf *out);
/* FOCUS 1.2 columns; the report is by day, model, job and whatever else. */
int report_write_focus(const struct report *r, struct buf *out, struct err *err);
void report_write_html(const struct report *r, struct buf *out);

/* One field of RFC 4180, quoted where it must be. */
void report_add_csv(struct buf *out, const char *text);
void report_add_seconds(struct buf *out, int64_t ms); /* "12.345" */

#endif
