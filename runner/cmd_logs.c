/* cmd_logs.c: what the workers of a job print. One worker's lines as they are; of several each line has its worker's index
 * before it. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/mem.h"
#include "jobs/launch.h"
#include "runner/cluster.h"
#include "runner/commands.h"

struct logs_options {
	struct cluster_options cluster;
	int64_t worker, tail;
	int follow;
};
#define LOGS_FIELD(name) offsetof(struct logs_options, name)
static const struct option_spec logs_options[] = {
    {"worker", 'w', OPTION_INT, LOGS_FIELD(worker), "I", "of this index only (its latest pod)", 0, LAUNCH_MAX_WORKERS, NULL},
    {"follow", 'f', OPTION_FLAG, LOGS_FIELD(follow), NULL,
     "go on as it comes: of --worker, else of worker 0; and of the pods that replace it", 0, 0, NULL},
    {"tail", 0, OPTION_INT, LOGS_FIELD(tail), "N", "only the last N lines of each", 0, 1e9, NULL},
    CLUSTER_OPTIONS(struct logs_options, cluster),
    {0},
};

static void init_logs(void *options)
{
	struct logs_options *o = options;

	o->worker = o->tail = -1;
}

struct worker_pod {
	char *name, *created, *phase;
	int64_t index;
};

struct pods {
	struct worker_pod *list;
	size_t n, cap;
};

static const char *text_at(yyjson_val *v, const char *pointer)
{
	const char *s = yyjson_get_str(yyjson_ptr_get(v, pointer));

	return s ? s : "";
}

static int on_pod(void *arg, yyjson_val *pod)
{
	struct pods *p = arg;

	MEM_GROW(p->list, p->cap, p->n + 1);
	p->list[p->n++] = (struct worker_pod){
	    .name = xstrdup(text_at(pod, "/metadata/name")),
	    .created = xstrdup(text_at(pod, "/metadata/creationTimestamp")),
	    .phase = xstrdup(text_at(pod, "/status/phase")),
	    .index = strtoll(text_at(pod, "/metadata/annotations/batch.kubernetes.io~1job-completion-index"), NULL, 10)};
	return 0;
}

/* By index, then by age. */
static int by_index(const void *a, const void *b)
{
	const struct worker_pod *x = a, *y = b;
	int d;

	if (x->index != y->index)
		return x->index < y->index ? -1 : 1;
	d = strcmp(x->created, y->created);
	return d ? d : strcmp(x->name, y->name);
}

static void pods_release(struct pods *p)
{
	for (size_t i = 0; i < p->n; i++) {
		free(p->list[i].name);
		free(p->list[i].created);
		free(p->list[i].phase);
	}
	free(p->list);
	*p = (struct pods){0};
}

static int read_pods(struct kube *k, const struct cluster_job *j, struct pods *p, struct err *err)
{
	struct kube_ref ref = {"v1", "pods", j->space, NULL, NULL};
	struct kube_selection sel = {0};
	struct buf label = {0};
	int rc;

	buf_addf(&label, "batch.kubernetes.io/controller-uid=%s", j->uid);
	sel.labels = label.data;
	rc = kube_list(k, &ref, &sel, on_pod, p, NULL, err);
	buf_release(&label);
	if (p->n)
		qsort(p->list, p->n, sizeof(*p->list), by_index);
	return rc;
}

/* Whole lines, each with its prefix. */
struct printer {
	char prefix[24];
	int at_start;
	int64_t n_bytes;
};

static int print_bytes(void *arg, const void *bytes, size_t n)
{
	struct printer *p = arg;
	const char *s = bytes, *end = s + n;

	p->n_bytes += (int64_t)n;
	while (s < end) {
		const char *nl = memchr(s, '\n', (size_t)(end - s)), *stop = nl ? nl + 1 : end;

		if (p->at_start)
			fputs(p->prefix, stdout);
		fwrite(s, 1, (size_t)(stop - s), stdout);
		p->at_start = nl != NULL;
		s = stop;
	}
	return fflush(stdout) == 0 ? 0 : 1; /* nobody reads any more */
}

/* Of the pods given (all that are left of each index): a pod that has not begun has no log yet. */
static int print_all(struct kube *k, const struct logs_options *o, const struct cluster_job *j, struct err *err)
{
	struct pods p = {0};
	int rc = read_pods(k, j, &p, err);
	size_t n_printed = 0;

	for (size_t i = 0; i < p.n && rc == 0; i++) {
		struct kube_log_options lo = {.container = LAUNCH_CONTAINER, .tail_lines = o->tail};
		struct printer out = {.at_start = 1};

		if (o->worker >= 0 && p.list[i].index != o->worker)
			continue;
		if (o->worker >= 0 && i + 1 < p.n && p.list[i + 1].index == o->worker)
			continue; /* an earlier pod of it */
		if (o->worker < 0)
			snprintf(out.prefix, sizeof(out.prefix), "%" PRId64 "| ", p.list[i].index);
		n_printed++;
		rc = kube_log(k, j->space, p.list[i].name, &lo, print_bytes, &out, err);
		if (rc < 0 && (kube_why(k) == KUBE_INVALID || kube_why(k) == KUBE_NOT_FOUND) && o->worker < 0) {
			err_clear(err);
			rc = 0;
		}
	}
	if (rc == 0 && n_printed == 0)
		rc = o->worker < 0
		         ? err_set(err, ERR_OTHER, "job '%s' has no pods (any more): tokenmill status %s says why", j->name, j->name)
		         : err_set(err, ERR_OTHER, "job '%s' has no pod of worker %" PRId64 " (any more)", j->name, o->worker);
	pods_release(&p);
	return rc < 0 ? -1 : 0;
}

/* The youngest pod of an index: its name, malloc'd, or NULL. */
static char *latest_pod(struct kube *k, const struct cluster_job *j, int64_t index, int *has_begun, struct err *err)
{
	struct pods p = {0};
	char *name = NULL;

	if (read_pods(k, j, &p, err) == 0) {
		for (size_t i = 0; i < p.n; i++) {
			if (p.list[i].index != index)
				continue;
			free(name);
			name = xstrdup(p.list[i].name);
			*has_begun = strcmp(p.list[i].phase, "Pending") != 0;
		}
	}
	pods_release(&p);
	return name;
}

/* A container's log, then that of the pod that takes its place, until the job has ended. */
static int follow(struct kube *k, const struct logs_options *o, const char *name, struct err *err)
{
	int64_t index = o->worker < 0 ? 0 : o->worker;
	struct timespec nap = {1, 0};
	char *done = NULL; /* the pod that was printed to its end */
	int rc = 0;

	kube_set_patience(k, 300);
	while (rc == 0) {
		struct kube_log_options lo = {.container = LAUNCH_CONTAINER, .follow = 1, .tail_lines = o->tail};
		struct printer out = {.at_start = 1};
		struct cluster_job j;
		yyjson_doc *doc = NULL;
		char *pod;
		int has_begun = 0, is_final;

		rc = cluster_job_get(k, name, &j, &doc, err);
		if (rc < 0)
			break;
		is_final = cluster_state_is_final(j.state);
		pod = latest_pod(k, &j, index, &has_begun, err);
		rc = err->code ? -1 : 0;
		if (rc == 0 && pod && has_begun && (!done || strcmp(done, pod) != 0)) {
			double start = clock_seconds();

			rc = kube_log(k, j.space, pod, &lo, print_bytes, &out, err);
			while (rc < 0 && kube_why(k) == KUBE_UNREACHABLE) {
				/* The connection was lost midway: go on from about there. A line may come twice, none is left out. */
				err_clear(err);
				lo.since_s = (int64_t)(clock_seconds() - start) + 2;
				lo.tail_lines = -1;
				start = clock_seconds();
				rc = kube_log(k, j.space, pod, &lo, print_bytes, &out, err);
				if (rc < 0 && kube_why(k) == KUBE_UNREACHABLE && out.n_bytes == 0)
					break;
				out.n_bytes = 0;
			}
			free(done);
			done = xstrdup(pod);
		} else if (rc == 0 && is_final) {
			rc = 1;
		} else if (rc == 0) {
			nanosleep(&nap, NULL);
		}
		free(pod);
		yyjson_doc_free(doc);
	}
	if (rc == 1 && !done)
		rc = err_set(err, ERR_OTHER, "job '%s' has ended, and worker %" PRId64 " has no pod (any more)", name, index);
	free(done);
	return rc < 0 ? -1 : 0;
}

static int run_logs(const void *options, char **args, int n_args, struct err *err)
{
	const struct logs_options *o = options;
	struct cluster_job j;
	yyjson_doc *doc = NULL;
	struct kube *k;
	int rc;

	if (n_args != 1)
		return err_set(err, ERR_USAGE, "give the name of one job");
	k = cluster_open(&o->cluster, err);
	if (!k)
		return -1;
	if (o->follow) {
		rc = follow(k, o, args[0], err);
	} else {
		rc = cluster_job_get(k, args[0], &j, &doc, err);
		if (rc == 0)
			rc = print_all(k, o, &j, err);
	}
	yyjson_doc_free(doc);
	kube_close(k);
	return rc;
}

const struct command command_logs = {
    "logs",    "[options] JOB", "Print what a job's workers say.", NULL, logs_options, sizeof(struct logs_options),
    init_logs, run_logs,
};
