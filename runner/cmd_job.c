/* cmd_job.c: merge and verify, on a job directory that is there. */
#include <stdio.h>

#include "base/log.h"
#include "queue/job.h"
#include "runner/commands.h"
#include "runner/records.h"

struct job_options {
	int quiet;
};

static const struct option_spec job_options[] = {
    {"quiet", 'q', OPTION_FLAG, offsetof(struct job_options, quiet), NULL, "say nothing but errors", 0, 0, NULL},
    {0},
};

static struct job *open_named(const struct job_options *o, char **args, int n_args, struct records *records, struct err *err)
{
	struct job *j;

	if (n_args != 1) {
		err_set(err, ERR_USAGE, "give one job directory");
		return NULL;
	}
	if (o->quiet)
		log_set_level(LOG_QUIET);
	j = job_open(args[0], err);
	if (j && records_attach(records, j, err) < 0) {
		job_close(j);
		j = NULL;
	}
	return j;
}

static int run_merge(const void *options, char **args, int n_args, struct err *err)
{
	struct records records = {0};
	struct job *j = open_named(options, args, n_args, &records, err);
	int r;

	if (!j)
		return -1;
	r = job_all_done(j, err);
	if (r == 0)
		r = err_set(err, ERR_OTHER, "%lld of %lld rows are done; run the rest before merging",
		            (long long)job_n_done_rows(j, err), (long long)job_n_rows(j));
	else if (r > 0)
		r = job_merge(j, NULL, err);
	if (r == 0)
		log_info("merged %lld rows: %s/results.jsonl", (long long)job_n_rows(j), args[0]);
	job_close(j);
	return r;
}

static int run_verify(const void *options, char **args, int n_args, struct err *err)
{
	struct records records = {0};
	struct job *j = open_named(options, args, n_args, &records, err);
	int r;

	if (!j)
		return -1;
	r = job_verify(j, err);
	if (r == 0)
		log_info("%s: all %lld rows are there exactly once and unaltered", args[0], (long long)job_n_rows(j));
	job_close(j);
	return r;
}

const struct command command_merge = {
    "merge",
    "[options] JOB",
    "Fold the finished shards of a job into results.jsonl, errors.jsonl and usage.json.",
    "`run` does this by itself when the last shard is done. Merging again gives the same bytes.",
    job_options,
    sizeof(struct job_options),
    NULL,
    run_merge,
};

const struct command command_verify = {
    "verify", "[options] JOB", "Prove that a job's merged results are complete: every row once, none altered.",
    NULL,     job_options,     sizeof(struct job_options),
    NULL,     run_verify,
};
