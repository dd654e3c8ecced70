/* cmd_control.c: cancel, suspend, resume, scale and delete: each one patch of a Job, which done twice changes nothing. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "jobs/launch.h"
#include "runner/cluster.h"
#include "runner/commands.h"

struct control_options {
	struct cluster_options cluster;
};
static const struct option_spec control_options[] = {CLUSTER_OPTIONS(struct control_options, cluster), {0}};

struct control {
	struct kube *kube;
	yyjson_doc *doc;
	struct cluster_job job;
};

static int open_job_named(struct control *c, const void *options, const char *name, struct err *err)
{
	const struct control_options *o = options;

	c->kube = cluster_open(&o->cluster, err);
	return c->kube ? cluster_job_get(c->kube, name, &c->job, &c->doc, err) : -1;
}

static void close_control(struct control *c)
{
	yyjson_doc_free(c->doc);
	kube_close(c->kube);
}

static int patch(struct control *c, const char *json, struct err *err)
{
	struct kube_ref ref = {"batch/v1", "jobs", NULL, c->job.name, NULL};

	return kube_patch(c->kube, &ref, KUBE_PATCH_MERGE, json, strlen(json), KUBE_FOR_REAL, NULL, err);
}

static int refuse_final(const struct control *c, const char *what, struct err *err)
{
	if (!cluster_state_is_final(c->job.state) && c->job.state != CLUSTER_DELETING)
		return 0;
	return err_set(err, ERR_OTHER, "job '%s' cannot be %s: it is %s", c->job.name, what, cluster_state_name(c->job.state));
}

static int suspend(struct control *c, struct err *err)
{
	if (refuse_final(c, "suspended", err) < 0)
		return -1;
	if (patch(c, "{\"spec\":{\"suspend\":true}}", err) < 0)
		return -1;
	log_info("job %s is suspended: its pods drain, what they have finished is kept; tokenmill resume %s goes on", c->job.name,
	         c->job.name);
	return 0;
}

static int resume(struct control *c, struct err *err)
{
	if (refuse_final(c, "resumed", err) < 0)
		return -1;
	if (c->job.state == CLUSTER_QUEUED)
		return err_set(err, ERR_OTHER, "job '%s' waits in a queue of Kueue, which starts it when it is its turn", c->job.name);
	if (patch(c, "{\"spec\":{\"suspend\":false}}", err) < 0)
		return -1;
	log_info("job %s goes on", c->job.name);
	return 0;
}

/* A Job has no end that is not success or failure, so a deadline is set that is over: it gets the condition Failed, its pods
 * drain, and its ttl runs. One that is suspended has no pods, and its clock stands still: the annotation alone says it. */
static int cancel(struct control *c, struct err *err)
{
	if (c->job.state == CLUSTER_CANCELLED) {
		log_info("job %s is cancelled already", c->job.name);
		return 0;
	}
	if (refuse_final(c, "cancelled", err) < 0)
		return -1;
	if (patch(c,
	          "{\"metadata\":{\"annotations\":{\"tokenmill.dev/cancelled\":\"true\"}},\"spec\":{\"activeDeadlineSeconds\":1}}",
	          err) < 0)
		return -1;
	log_info("job %s is cancelled: its pods drain, what they have finished is kept", c->job.name);
	return 0;
}

static int delete (struct control *c, struct err *err)
{
	struct kube_ref ref = {"batch/v1", "jobs", NULL, c->job.name, NULL};
	char *place = launch_submitted(c->job.annotation, "place");

	if (kube_delete(c->kube, &ref, "Background", c->job.uid, err) < 0 && kube_why(c->kube) != KUBE_NOT_FOUND) {
		free(place);
		return -1;
	}
	err_clear(err);
	log_info("job %s is deleted, with its pods; its data stays in %s", c->job.name, place ? place : "its place");
	free(place);
	return 0;
}

static int run_one(const void *options, char **args, int n_args, int (*act)(struct control *, struct err *), struct err *err)
{
	struct control c = {0};
	int rc;

	if (n_args != 1)
		return err_set(err, ERR_USAGE, "give the name of one job");
	rc = open_job_named(&c, options, args[0], err);
	if (rc == 0)
		rc = act(&c, err);
	close_control(&c);
	return rc;
}

static int run_suspend(const void *options, char **args, int n_args, struct err *err)
{
	return run_one(options, args, n_args, suspend, err);
}

static int run_resume(const void *options, char **args, int n_args, struct err *err)
{
	return run_one(options, args, n_args, resume, err);
}

static int run_cancel(const void *options, char **args, int n_args, struct err *err)
{
	return run_one(options, args, n_args, cancel, err);
}

static int run_delete(const void *options, char **args, int n_args, struct err *err)
{
	return run_one(options, args, n_args, delete, err);
}

/* Completions follow parallelism (an elastic Indexed Job); maxFailedIndexes may not be more than there are. */
static int run_scale(const void *options, char **args, int n_args, struct err *err)
{
	struct control c = {0};
	struct buf json = {0};
	char *end;
	long long n = n_args == 2 ? strtoll(args[1], &end, 10) : 0;
	int64_t max_failed;
	int rc;

	if (n_args != 2)
		return err_set(err, ERR_USAGE, "give the name of a job and the number of workers");
	if (*end || n < 1 || n > LAUNCH_MAX_WORKERS)
		return err_set(err, ERR_USAGE, "'%s' is not a number of workers from 1 to %d (tokenmill suspend stops them all)",
		               args[1], (int)LAUNCH_MAX_WORKERS);
	rc = open_job_named(&c, options, args[0], err);
	if (rc == 0)
		rc = refuse_final(&c, "scaled", err);
	if (rc == 0) {
		max_failed = yyjson_get_sint(yyjson_ptr_get(yyjson_doc_get_root(c.doc), "/spec/maxFailedIndexes"));
		buf_addf(&json, "{\"spec\":{\"parallelism\":%lld,\"completions\":%lld", n, n);
		if (max_failed > n)
			buf_addf(&json, ",\"maxFailedIndexes\":%lld", n);
		buf_adds(&json, "}}");
		rc = patch(&c, json.data, err);
	}
	if (rc == 0)
		log_info("job %s has %lld worker%s now, it had %lld", args[0], n, n == 1 ? "" : "s", (long long)c.job.n_workers);
	buf_release(&json);
	close_control(&c);
	return rc;
}

#define CONTROL(symbol, name, arguments, summary, details, run)                                                                \
	const struct command symbol = {name, arguments, summary, details, control_options, sizeof(struct control_options),         \
	                               NULL, run}
CONTROL(command_suspend, "suspend", "[options] JOB", "Stop a job's pods for now; what they have finished is kept.", NULL,
        run_suspend);
CONTROL(command_resume, "resume", "[options] JOB", "Start a suspended job again.", NULL, run_resume);
CONTROL(command_cancel, "cancel", "[options] JOB", "End a job for good; what it has finished is kept.", NULL, run_cancel);
CONTROL(command_scale, "scale", "[options] JOB N", "Give a job another number of workers while it runs.",
        "Which worker does what is settled in the job's place, so more or fewer may join at any time.", run_scale);
CONTROL(command_delete, "delete", "[options] JOB", "Take a job and its pods off the cluster; its data stays.", NULL,
        run_delete);
