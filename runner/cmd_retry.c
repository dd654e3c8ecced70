/* cmd_retry.c: retry-failed: rows whose records say that running them failed have no result any more, and the next `run` runs them. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/log.h"
#include "runner/commands.h"
#include "runner/plan_again.h"
#include "runner/signals.h"

struct retry_options {
	const char *code;
	int quiet;
};

static const struct option_spec retry_options[] = {
    {"code", 0, OPTION_STRING, offsetof(struct retry_options, code), "CODE,...",
     "only these errors, such as engine_error or poison_row (default: all that a run can end in)", 0, 0, NULL},
    {"quiet", 'q', OPTION_FLAG, offsetof(struct retry_options, quiet), NULL, "say nothing but errors", 0, 0, NULL},
    {0},
};

struct retry {
	const char *codes; /* NULL: any */
	int64_t n_other;   /* failed, and not to be run again */
};

static int is_listed(const char *codes, const char *code)
{
	size_t n = strlen(code);

	for (const char *p = codes; n && *p;) {
		size_t k = strcspn(p, ",");

		if (k == n && memcmp(p, code, n) == 0)
			return 1;
		p += k + (p[k] == ',');
	}
	return 0;
}

/* "code" of an error record, in the batch format: in the response's body, or where there was none, beside it. */
static int has_listed_code(const char *codes, const struct row_result *r)
{
	yyjson_doc *doc = json_parse(r->line, r->n_line, ERR_OTHER, NULL);
	yyjson_val *root = yyjson_doc_get_root(doc);
	yyjson_val *code = yyjson_ptr_get(root, "/response/body/error/code");
	int rc;

	if (!code)
		code = yyjson_ptr_get(root, "/error/code");
	rc = yyjson_is_str(code) && is_listed(codes, yyjson_get_str(code));
	yyjson_doc_free(doc);
	return rc;
}

static int keep_row(void *arg, const struct row_result *r)
{
	struct retry *t = arg;

	if (!r->is_error)
		return 1;
	if (t->codes && !has_listed_code(t->codes, r)) {
		t->n_other++;
		return 1;
	}
	return 0;
}

static int run_retry(const void *options, char **args, int n_args, struct err *err)
{
	const struct retry_options *o = options;
	struct retry t = {.codes = o->code};
	struct job_replan how = {.keep = keep_row, .arg = &t};
	struct job_worker worker = {.index_is_default = 1, .takeover_after_s = 600};
	struct job *job;
	int64_t n_bad;
	int rc;

	if (n_args != 1)
		return err_set(err, ERR_USAGE, "give one job");
	if (o->code && !*o->code)
		return err_set(err, ERR_USAGE, "--code is empty: name errors, such as engine_error");
	if (o->quiet)
		log_set_level(LOG_QUIET);
	signals_install();
	job = job_open(args[0], err);
	if (!job)
		return -1;
	rc = replan_rows_again(&job, &worker, &how, err);
	if (rc >= 0) {
		n_bad = job_n_bad_rows(job);
		if (rc == 1)
			log_info("%s: no row has failed%s: nothing to run again", args[0], o->code ? " with such an error" : " while it ran");
		else
			log_info("%s: %" PRId64 " rows run again, %" PRId64 " keep their results; go on with: tokenmill run --job %s", args[0], how.n_again,
			         how.n_kept, args[0]);
		if (t.n_other)
			log_info("%" PRId64 " rows failed with other errors, and keep them", t.n_other);
		if (n_bad)
			log_info("%" PRId64 " rows are at fault in the input, and are not run again: correct them there", n_bad);
	}
	job_close(job);
	return rc < 0 ? -1 : 0;
}

const struct command command_retry_failed = {
    "retry-failed",
    "[options] JOB",
    "Have the rows of a job that failed run once more.",
    "Their error records are dropped, all other results are kept; `tokenmill run --job JOB` then runs them. Rows at fault in the input are\n"
    "not among them. The job may be unfinished: what is not run yet is run then, too.",
    retry_options,
    sizeof(struct retry_options),
    NULL,
    run_retry,
};
