/* plan_rows.h: every row of the input, checked and measured, into a job's plan.
 *
 * Rows are read in order, parsed and tokenized by several threads a few hundred at a time, and added to the plan in order:
 * memory does not grow with the input. A row at fault is told on stderr with its file and line and enters the plan with its
 * error record.
 */
#ifndef TOKENMILL_RUNNER_PLAN_ROWS_H
#define TOKENMILL_RUNNER_PLAN_ROWS_H

#include "engine/text/text.h"
#include "jobs/estimate.h"
#include "queue/job.h"
#include "runner/input.h"
#include "runner/output.h"
#include "runner/row.h"
#include "runner/spec.h"

struct plan_options {
	const struct text *text;
	const struct row_rules *rules;
	const struct output_rules *output;
	int64_t now_unix_s;
	int32_t n_context;
	int n_threads;         /* at least 1 */
	int64_t max_bad_rows;  /* -1: no limit */
	int64_t n_faults_told; /* how many are told one by one */
	int fold;              /* rows that must have the same answer as an earlier one are not run */
	struct buf *faults;    /* NULL, or gets those as members of a JSON array: {"source","line","message"} */
	struct cost_model cost; /* all 0: cost_model_default */
	const struct output_lengths *lengths; /* what is known of the model's answers, NULL: nothing */
};

struct plan_totals {
	int64_t n_rows, n_bad, prompt_tokens; /* tokens also of rows that are folded; job_figures is without them */
};

/* Fills inputs (names, digests, row counts) and totals. ERR_INPUT: a file is damaged, no row at all, or too many bad ones.
 * ERR_DRAINED after a signal. In any case the plan is still the caller's to commit or abort. */
int plan_rows(struct job_plan *p, const struct input_list *files, const struct plan_options *o, struct job_inputs *inputs,
              struct plan_totals *totals, struct err *err);

/* Prefix key: 4 bytes (PLAN_PREFIX_UNIT) for each whole block of 16 tokens, at most 256 of them, each a hash over all tokens up to
 * there. Prompts that share k blocks share 4 k bytes of key, so sorting by it brings shared prefixes together. Of a prompt all but
 * its last token go in: the engine always computes that one, and never shares its block. Returns the bytes used. */
enum { PREFIX_KEY_MAX_BYTES = 1024, PREFIX_BLOCK_TOKENS = 16 };
size_t plan_prefix_key(const int32_t *ids, size_t n, unsigned char out[PREFIX_KEY_MAX_BYTES]);

#endif
