/* job_watch.c: a watch on one Job; between its connections a look at the pods. */
#include "runner/job_watch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "runner/cluster.h"

/* Long enough for few requests, short enough to hear of an image that cannot be pulled. */
enum { PERIOD_S = 10, PATIENCE_S = 300 };

enum { ENDED = 1, GONE = 2 };

struct watched {
	struct kube *kube;
	const char *name;
	yyjson_doc *doc; /* the Job as it was seen last */
	struct cluster_job job;
	int is_there, was_there;
	char told[300];
	uint64_t told_troubles;
};

static void tell(struct watched *w)
{
	const struct cluster_job *j = &w->job;
	char line[300];

	snprintf(line, sizeof(line), "%s: %s, %lld of %lld workers run, %lld done, %lld failed pods", w->name,
	         cluster_state_name(j->state), (long long)j->n_ready, (long long)j->n_workers, (long long)j->n_succeeded,
	         (long long)j->n_failed);
	if (strcmp(line, w->told) != 0)
		log_info("%s", line);
	memcpy(w->told, line, sizeof(line));
}

static void tell_troubles(struct watched *w)
{
	struct buf lines = {0};
	struct err ignored = {0};
	uint64_t hash;

	if (cluster_troubles(w->kube, &w->job, &lines, NULL, &ignored) == 0) {
		hash = hash64(buf_str(&lines), lines.len, 0);
		if (lines.len && hash != w->told_troubles) {
			for (char *line = lines.data, *nl; *line; line = nl + 1) {
				nl = strchr(line, '\n');
				log_warn("%.*s", (int)(nl - line), line);
			}
		}
		w->told_troubles = hash;
	}
	buf_release(&lines);
}

static int on_event(void *arg, enum kube_event event, yyjson_val *object)
{
	struct watched *w = arg;
	yyjson_mut_doc *copy;

	switch (event) {
	case KUBE_RESET:
		w->is_there = 0;
		return 0;
	case KUBE_SYNCED:
		return w->is_there ? 0 : GONE;
	case KUBE_DELETED:
		return GONE;
	case KUBE_IDLE:
		/* With all pods at work there is nothing to ask for. */
		if (w->is_there && !cluster_state_is_final(w->job.state) && w->job.n_ready + w->job.n_succeeded < w->job.n_workers)
			tell_troubles(w);
		return 0;
	default:
		break;
	}
	copy = yyjson_mut_doc_new(NULL);
	yyjson_mut_doc_set_root(copy, yyjson_val_mut_copy(copy, object));
	yyjson_doc_free(w->doc);
	w->doc = yyjson_mut_doc_imut_copy(copy, NULL);
	yyjson_mut_doc_free(copy);
	cluster_job_read(&w->job, yyjson_doc_get_root(w->doc));
	w->is_there = w->was_there = 1;
	tell(w);
	return cluster_state_is_final(w->job.state) ? ENDED : 0;
}

static int judge(struct watched *w, struct err *err)
{
	const struct cluster_job *j = &w->job;

	if (j->state == CLUSTER_COMPLETE) {
		log_info("job %s is complete", w->name);
		return 0;
	}
	tell_troubles(w);
	if (j->state == CLUSTER_CANCELLED)
		return err_set(err, ERR_OTHER, "job '%s' was cancelled", w->name);
	return err_set(err, ERR_OTHER, "job '%s' failed: %s%s%s", w->name, j->reason, *j->reason ? ": " : "", j->message);
}

int job_watch_wait(struct kube *k, const char *name, struct err *err)
{
	struct kube_ref ref = {"batch/v1", "jobs", NULL, NULL, NULL};
	struct kube_selection sel = {0};
	struct watched w = {.kube = k, .name = name};
	struct buf field = {0};
	int rc;

	kube_set_patience(k, PATIENCE_S); /* an API server that is restarted is no reason to lose sight of a job */
	buf_addf(&field, "metadata.name=%s", name);
	sel.fields = field.data;
	rc = kube_follow(k, &ref, &sel, PERIOD_S, on_event, &w, err);
	if (rc == ENDED)
		rc = judge(&w, err);
	else if (rc == GONE)
		rc = err_set(err, ERR_OTHER, w.was_there ? "job '%s' was deleted" : "there is no job '%s' in namespace '%s'", name,
		             kube_namespace(k));
	yyjson_doc_free(w.doc);
	buf_release(&field);
	return rc < 0 ? -1 : 0;
}
