/* cmd_job.c: merge and verify, on a job directory that is there. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "queue/job.h"
#include "queue/store.h"
#include "runner/commands.h"
#include "runner/merging.h"
#include "runner/signals.h"
#include "runner/records.h"

struct job_options {
	int quiet;
	int partial, close, repair; /* of merge; close: position in close_codes, from 1 */
};

static const char close_codes[] = "budget_exhausted|batch_expired|batch_cancelled";

#define QUIET                                                                                                                  \
	{                                                                                                                          \
		"quiet", 'q', OPTION_FLAG, offsetof(struct job_options, quiet), NULL, "say nothing but errors", 0, 0, NULL             \
	}

static const struct option_spec merge_options[] = {
    {"partial", 0, OPTION_FLAG, offsetof(struct job_options, partial), NULL,
     "of an unfinished job: the results that there are; `run` goes on as before", 0, 0, NULL},
    {"close", 0, OPTION_CHOICE, offsetof(struct job_options, close), "CODE",
     "the same, and rows without a result get an error record with this code, so that every row has one", 0, 0, close_codes},
    {"repair", 0, OPTION_FLAG, offsetof(struct job_options, repair), NULL,
     "find finished shards with damaged files, and have `run` make the lost rows again", 0, 0, NULL},
    QUIET,
    {0},
};

static const struct option_spec verify_options[] = {QUIET, {0}};

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

/* Word number n, from 1, of "a|b|c". */
static char *choice(const char *words, int n)
{
	const char *end;

	while (--n > 0)
		words = strchr(words, '|') + 1;
	end = strchrnul(words, '|');
	return xmemdup(words, (size_t)(end - words));
}

/* What stands between the job and its result files: in a directory they have links. */
static const char *below(struct job *j)
{
	return store_dir(job_store(j)) ? "" : "/merged";
}

static int merge_unfinished(struct job *j, const struct job_options *o, const char *place, struct err *err)
{
	char *code = o->close ? choice(close_codes, o->close) : NULL;
	int64_t n_done;
	int r = job_merge_partial(j, code, NULL, err);

	n_done = r < 0 ? -1 : job_n_done_rows(j, err);
	if (r == 0 && job_is_merged(j, err) == 1)
		log_info("all %" PRId64 " rows are merged: %s%s/results.jsonl", job_n_rows(j), place, below(j));
	else if (n_done >= 0)
		log_info("merged what there is of an unfinished job, about %" PRId64 " of %" PRId64 " rows%s%s: %s%s/results.jsonl",
		         n_done, job_n_rows(j) - job_n_bad_rows(j), code ? "; the others are closed as " : "", code ? code : "", place,
		         below(j));
	free(code);
	return n_done < 0 ? -1 : 0;
}

static int repair(struct job *j, const char *place, struct err *err)
{
	int64_t n = job_repair(j, err);

	if (n == 0)
		log_info("%s: no finished shard is damaged", place);
	else if (n > 0)
		log_info("%" PRId64 " shards are unfinished again; `tokenmill run --job %s` makes the lost rows again and merges", n,
		         place);
	return n < 0 ? -1 : 0;
}

static int merge_whole(struct job *j, const char *place, struct err *err)
{
	const struct job_worker worker = {.index_is_default = 1, .takeover_after_s = 600};
	int r = job_all_done(j, err);

	if (r == 0)
		return err_set(err, ERR_OTHER, "%" PRId64 " of %" PRId64 " rows are done; run the rest before merging, or see --partial",
		               job_n_done_rows(j, err), job_n_rows(j));
	if (r > 0)
		r = job_is_merged(j, err);
	signals_install();
	/* Who asks for what is there already has a reason, such as a file that was damaged. */
	if (r == 1)
		r = job_merge(j, NULL, err);
	else if (r == 0)
		r = merging_run(j, &worker, NULL, 1, err);
	if (r >= 0)
		log_info("merged %" PRId64 " rows: %s%s/results.jsonl", job_n_rows(j), place, below(j));
	return r < 0 ? -1 : 0;
}

static int run_merge(const void *options, char **args, int n_args, struct err *err)
{
	const struct job_options *o = options;
	struct records records = {0};
	struct job *j = open_named(o, args, n_args, &records, err);
	int r = -1;

	if (!j)
		return -1;
	if ((o->partial != 0) + (o->close != 0) + (o->repair != 0) > 1) {
		err_set(err, ERR_USAGE, "--partial, --close and --repair exclude each other");
	} else if (o->repair) {
		r = repair(j, args[0], err);
	} else if (o->partial || o->close) {
		r = merge_unfinished(j, o, args[0], err);
	} else {
		r = merge_whole(j, args[0], err);
	}
	job_close(j);
	return r;
}

static void tell_problem(void *context, const char *problem)
{
	log_error("%s", problem);
}

static int run_verify(const void *options, char **args, int n_args, struct err *err)
{
	struct records records = {0};
	struct job *j = open_named(options, args, n_args, &records, err);
	int r;

	if (!j)
		return -1;
	r = job_verify_tell(j, tell_problem, NULL, err);
	if (r == 0 && job_is_merged(j, err) == 1)
		log_info("%s: all %" PRId64 " rows are there exactly once and unaltered", args[0], job_n_rows(j));
	else if (r == 0)
		log_info("%s: what was merged of this unfinished job is unaltered", args[0]);
	job_close(j);
	return r;
}

const struct command command_merge = {
    "merge",
    "[options] JOB",
    "Fold the finished shards of a job into results.jsonl, errors.jsonl and usage.json.",
    "`run` does this by itself when the last shard is done. Merging again gives the same bytes. What --partial and --close "
    "wrote is replaced by "
    "the next merge.",
    merge_options,
    sizeof(struct job_options),
    NULL,
    run_merge,
};

const struct command command_verify = {
    "verify", "[options] JOB", "Prove that a job's merged results are complete: every row once, none altered.",
    NULL,     verify_options,  sizeof(struct job_options),
    NULL,     run_verify,
};
