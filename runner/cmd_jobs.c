/* cmd_jobs.c: jobs and watch, and status of a job on a cluster: what is there and how far it is. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "jobs/launch.h"
#include "runner/cluster.h"
#include "runner/commands.h"
#include "runner/job_watch.h"

struct jobs_options {
	struct cluster_options cluster;
	int all_namespaces, format;
};

#define JOBS_FIELD(name) offsetof(struct jobs_options, name)
static const struct option_spec jobs_options[] = {
    CLUSTER_OPTIONS(struct jobs_options, cluster),
    {"all-namespaces", 'A', OPTION_FLAG, JOBS_FIELD(all_namespaces), NULL, "of every namespace", 0, 0, NULL},
    {"format", 0, OPTION_CHOICE, JOBS_FIELD(format), "table|json", "for the eye, or JSON lines", 0, 0, "table|json"},
    {0},
};
static const struct option_spec watch_options[] = {CLUSTER_OPTIONS(struct jobs_options, cluster), {0}};

/* ---- as JSON ---- */

static void add_member(struct buf *b, const char *key, const char *value)
{
	buf_addf(b, "%s\"%s\":", b->len > 1 ? "," : "", key);
	json_write_string(b, value, strlen(value));
}

static void job_json(struct buf *b, const struct cluster_job *j, const char *troubles)
{
	char *place = launch_submitted(j->annotation, "place");

	buf_reset(b);
	buf_addc(b, '{');
	add_member(b, "name", j->name);
	add_member(b, "namespace", j->space);
	add_member(b, "state", cluster_state_name(j->state));
	add_member(b, "reason", j->reason);
	add_member(b, "message", j->message);
	add_member(b, "model", j->model);
	add_member(b, "place", place ? place : "");
	buf_addf(b,
	         ",\"workers\":%" PRId64 ",\"active\":%" PRId64 ",\"ready\":%" PRId64 ",\"succeeded\":%" PRId64
	         ",\"failed\":%" PRId64,
	         j->n_workers, j->n_active, j->n_ready, j->n_succeeded, j->n_failed);
	add_member(b, "completed_indexes", j->completed_indexes);
	add_member(b, "failed_indexes", j->failed_indexes);
	add_member(b, "created", j->created);
	add_member(b, "started", j->started);
	add_member(b, "finished", j->finished);
	if (troubles) {
		buf_adds(b, ",\"troubles\":[");
		for (const char *line = troubles, *nl; *line; line = nl + 1) {
			nl = strchr(line, '\n');
			if (line != troubles)
				buf_addc(b, ',');
			json_write_string(b, line, (size_t)(nl - line));
		}
		buf_addc(b, ']');
	}
	buf_adds(b, "}\n");
	free(place);
}

/* ---- jobs ---- */

struct listing {
	const struct jobs_options *o;
	size_t n;
	struct buf line;
};

static int on_job(void *arg, yyjson_val *object)
{
	struct listing *l = arg;
	struct cluster_job j;
	char age[32];

	cluster_job_read(&j, object);
	if (l->o->format == 2) {
		job_json(&l->line, &j, NULL);
		fputs(l->line.data, stdout);
		return 0;
	}
	if (l->n++ == 0)
		printf("%s%-40s %-10s %9s %6s %6s %6s  %s\n", l->o->all_namespaces ? "NAMESPACE            " : "", "NAME", "STATE",
		       "WORKERS", "RUN", "DONE", "AGE", "MODEL");
	cluster_age(cluster_since(j.created), age);
	if (l->o->all_namespaces)
		printf("%-20s ", j.space);
	printf("%-40s %-10s %9" PRId64 " %6" PRId64 " %6" PRId64 " %6s  %s\n", j.name, cluster_state_name(j.state), j.n_workers,
	       j.n_ready, j.n_succeeded, age, j.model);
	return 0;
}

static int run_jobs(const void *options, char **args, int n_args, struct err *err)
{
	const struct jobs_options *o = options;
	struct kube_ref ref = {"batch/v1", "jobs", o->all_namespaces ? "" : NULL, NULL, NULL};
	struct kube_selection sel = {.labels = LAUNCH_SELECTOR};
	struct listing l = {.o = o};
	struct kube *k;
	int rc;

	(void)args;
	if (n_args)
		return err_set(err, ERR_USAGE, "jobs takes no arguments; tokenmill status JOB tells of one");
	k = cluster_open(&o->cluster, err);
	if (!k)
		return -1;
	rc = kube_list(k, &ref, &sel, on_job, &l, NULL, err);
	if (rc == 0 && l.n == 0 && o->format != 2)
		printf("there are no jobs in %s%s\n", o->all_namespaces ? "any namespace" : "namespace ",
		       o->all_namespaces ? "" : kube_namespace(k));
	buf_release(&l.line);
	kube_close(k);
	return rc;
}

/* ---- status of a job on a cluster ---- */

static void print_next(const struct cluster_job *j, const char *place)
{
	switch (j->state) {
	case CLUSTER_COMPLETE:
		printf("next      tokenmill fetch %s -o DIR\n", j->name);
		break;
	case CLUSTER_FAILED:
	case CLUSTER_CANCELLED:
		printf("next      what is finished stays in %s; tokenmill delete %s, then the same submit goes on from there\n", place,
		       j->name);
		break;
	case CLUSTER_SUSPENDED:
		printf("next      tokenmill resume %s\n", j->name);
		break;
	default:
		printf("next      tokenmill watch %s, or tokenmill logs %s -f\n", j->name, j->name);
	}
}

static void print_status(const struct cluster_job *j, size_t n_pods, const char *troubles)
{
	char *place = launch_submitted(j->annotation, "place"), age[32], took[32];

	printf("job       %s in namespace %s\nstate     %s", j->name, j->space, cluster_state_name(j->state));
	if (*j->reason && j->state != CLUSTER_COMPLETE)
		printf(" (%s%s%s)", j->reason, *j->message ? ": " : "", j->message);
	cluster_age(cluster_since(j->created), age);
	printf("\nage       %s", age);
	if (*j->started && *j->finished) {
		cluster_age(cluster_since(j->started) - cluster_since(j->finished), took);
		printf(", took %s", took);
	}
	printf("\nmodel     %s\nplace     %s\n", *j->model ? j->model : "-", place ? place : "-");
	printf("workers   %" PRId64 ": %" PRId64 " run, %" PRId64 " done, %zu pods there, %" PRId64 " pods failed\n", j->n_workers,
	       j->n_ready, j->n_succeeded, n_pods, j->n_failed);
	if (*j->completed_indexes)
		printf("done      %s\n", j->completed_indexes);
	if (*j->failed_indexes)
		printf("given up  %s\n", j->failed_indexes);
	for (const char *line = troubles, *nl; *line; line = nl + 1) {
		nl = strchr(line, '\n');
		printf("%s %.*s\n", line == troubles ? "troubles " : "         ", (int)(nl - line), line);
	}
	print_next(j, place ? place : "its place");
	free(place);
}

int cluster_print_status(const struct cluster_options *o, const char *name, int as_json, struct err *err)
{
	struct buf troubles = {0}, line = {0};
	struct cluster_job j;
	yyjson_doc *doc = NULL;
	struct kube *k = cluster_open(o, err);
	size_t n_pods = 0;
	int rc;

	if (!k)
		return -1;
	rc = cluster_job_get(k, name, &j, &doc, err);
	if (rc == 0)
		rc = cluster_troubles(k, &j, &troubles, &n_pods, err);
	if (rc == 0 && as_json) {
		job_json(&line, &j, buf_str(&troubles));
		fputs(line.data, stdout);
	} else if (rc == 0) {
		print_status(&j, n_pods, buf_str(&troubles));
	}
	buf_release(&troubles);
	buf_release(&line);
	yyjson_doc_free(doc);
	kube_close(k);
	return rc;
}

static int run_watch(const void *options, char **args, int n_args, struct err *err)
{
	const struct jobs_options *o = options;
	struct kube *k;
	int rc;

	if (n_args != 1)
		return err_set(err, ERR_USAGE, "give the name of one job");
	k = cluster_open(&o->cluster, err);
	if (!k)
		return -1;
	rc = job_watch_wait(k, args[0], err);
	kube_close(k);
	return rc;
}

const struct command command_jobs = {
    "jobs", "[options]", "List the jobs on a cluster.", NULL, jobs_options, sizeof(struct jobs_options), NULL, run_jobs,
};

const struct command command_watch = {
    "watch", "[options] JOB", "Follow a job on a cluster until it ends; exit status 0 when it is complete.",
    NULL,    watch_options,   sizeof(struct jobs_options),
    NULL,    run_watch,
};
