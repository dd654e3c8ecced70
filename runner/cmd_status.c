/* cmd_status.c: how far a job is: of a place by what is published there, of a name by what the cluster says. */
#include <string.h>

#include "base/file.h"
#include "runner/cluster.h"
#include "runner/commands.h"
#include "runner/place_status.h"

struct status_options {
	struct cluster_options cluster;
	int format;
};
static const struct option_spec status_options[] = {
    CLUSTER_OPTIONS(struct status_options, cluster),
    {"format", 0, OPTION_CHOICE, offsetof(struct status_options, format), "text|json", "for the eye, or one JSON object", 0, 0,
     "text|json"},
    {0},
};

static int run_status(const void *options, char **args, int n_args, struct err *err)
{
	const struct status_options *o = options;

	if (n_args != 1)
		return err_set(err, ERR_USAGE, "give one job: its name on the cluster, or its directory or s3:// prefix");
	/* A name that is no directory and has no slash is the cluster's. */
	if (strchr(args[0], '/') || file_is_dir(args[0]))
		return place_status_print(args[0], o->format == 2, err);
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
