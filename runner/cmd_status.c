/* cmd_status.c: how far a job is: of a place by what is published there, of a name by what the cluster says. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "queue/attempt.h"
#include "queue/job.h"
#include "runner/cluster.h"
#include "runner/commands.h"

struct status_options {
	struct cluster_options cluster;
	int format;
};
static const struct option_spec status_options[] = {
    CLUSTER_OPTIONS(struct status_options, cluster),
    {"format", 0, OPTION_CHOICE, offsetof(struct status_options, format), "table|json", "for the eye, or one JSON object", 0, 0,
     "table|json"},
    {0},
};

static int place_status(const char *place, int as_json, struct err *err)
{
	struct job *j = job_open(place, err);
	struct attempt *list = NULL;
	size_t n = 0, n_running = 0;
	int64_t n_done, output = 0, recomputed = 0, runnable;
	int merged, rc = -1;

	if (!j)
		return -1;
	n_done = job_n_done_rows(j, err);
	merged = n_done < 0 ? -1 : job_is_merged(j, err);
	if (merged >= 0 && attempt_read_all(job_store(j), &list, &n, err) == 0) {
		for (size_t i = 0; i < n; i++) {
			n_running += list[i].state == ATTEMPT_RUNNING;
			output += list[i].output_tokens;
			recomputed += list[i].recomputed_tokens;
		}
		runnable = job_n_rows(j) - job_n_folded_rows(j) - job_n_bad_rows(j);
		if (as_json)
			printf("{\"rows\":%" PRId64 ",\"bad_rows\":%" PRId64 ",\"folded_rows\":%" PRId64 ",\"done_rows\":%" PRId64
			       ",\"merged\":%s,\"attempts\":%zu,\"not_ended\":%zu,\"output_tokens\":%" PRId64
			       ",\"recomputed_tokens\":%" PRId64 "}\n",
			       job_n_rows(j), job_n_bad_rows(j), job_n_folded_rows(j), n_done, merged ? "true" : "false", n, n_running,
			       output, recomputed);
		else
			printf("%s: %s; %" PRId64 " of %" PRId64 " rows that run are done (%" PRId64 " at fault, %" PRId64
			       " as another row)\n"
			       "attempts: %zu, of which %zu have not told their end; %" PRId64 " output tokens so far, %" PRId64
			       " tokens computed again\n",
			       place, merged ? "finished" : "not finished", n_done < runnable ? n_done : runnable, runnable,
			       job_n_bad_rows(j), job_n_folded_rows(j), n, n_running, output, recomputed);
		rc = 0;
	}
	free(list);
	job_close(j);
	return rc;
}

static int run_status(const void *options, char **args, int n_args, struct err *err)
{
	const struct status_options *o = options;

	if (n_args != 1)
		return err_set(err, ERR_USAGE, "give one job: its name on the cluster, or its directory or s3:// prefix");
	if (strchr(args[0], '/') || file_is_dir(args[0]))
		return place_status(args[0], o->format == 2, err);
	return cluster_print_status(&o->cluster, args[0], o->format == 2, err);
}

const struct command command_status = {
    "status",
    "[options] JOB",
    "Tell how far a job is, what keeps it from running, and what to do next.",
    "JOB is the name of a job on the cluster; with a slash in it, or where there is such a directory, the place of a job.",
    status_options,
    sizeof(struct status_options),
    NULL,
    run_status,
};
