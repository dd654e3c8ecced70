/* cluster.c: jobs on a cluster as their JSON has them. */
#include "runner/cluster.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "jobs/kube_plugin.h"
#include "jobs/launch.h"

struct kube *cluster_open(const struct cluster_options *o, struct err *err)
{
	struct kube_choice choice = {.kubeconfig = o->kubeconfig, .context = o->context, .namespace_name = o->space};
	struct kube_config config = {0};
	struct kube *k = NULL;

	if (kube_config_load(&config, &choice, err) == 0)
		k = kube_open(&config, err);
	kube_config_release(&config);
	return k;
}

/* ---- a Job ---- */

static const struct {
	const char *name;
	int is_final;
} states[] = {
    [CLUSTER_SUSPENDED] = {"Suspended", 0}, [CLUSTER_QUEUED] = {"Queued", 0},     [CLUSTER_PENDING] = {"Pending", 0},
    [CLUSTER_RUNNING] = {"Running", 0},     [CLUSTER_COMPLETE] = {"Complete", 1}, [CLUSTER_FAILED] = {"Failed", 1},
    [CLUSTER_CANCELLED] = {"Cancelled", 1}, [CLUSTER_DELETING] = {"Deleting", 0},
};

const char *cluster_state_name(enum cluster_state s)
{
	return states[s].name;
}

int cluster_state_is_final(enum cluster_state s)
{
	return states[s].is_final;
}

static const char *text_at(yyjson_val *v, const char *pointer)
{
	const char *s = yyjson_get_str(yyjson_ptr_get(v, pointer));

	return s ? s : "";
}

static int64_t number_at(yyjson_val *v, const char *pointer)
{
	return yyjson_get_sint(yyjson_ptr_get(v, pointer));
}

static yyjson_val *condition(yyjson_val *object, const char *type)
{
	size_t i, max;
	yyjson_val *c;

	yyjson_arr_foreach (yyjson_ptr_get(object, "/status/conditions"), i, max, c)
		if (yyjson_equals_str(yyjson_obj_get(c, "type"), type) && yyjson_equals_str(yyjson_obj_get(c, "status"), "True"))
			return c;
	return NULL;
}

static enum cluster_state state_of(struct cluster_job *j, yyjson_val *job)
{
	int cancelled = yyjson_ptr_get(job, "/metadata/annotations/tokenmill.dev~1cancelled") != NULL;
	yyjson_val *end = condition(job, "Complete");

	if (!end && !(end = condition(job, "Failed")) && !(end = condition(job, "FailureTarget")))
		end = NULL;
	if (end) {
		j->reason = text_at(end, "/reason");
		j->message = text_at(end, "/message");
		j->finished = text_at(end, "/lastTransitionTime");
	}
	if (yyjson_ptr_get(job, "/metadata/deletionTimestamp"))
		return CLUSTER_DELETING;
	if (condition(job, "Complete"))
		return CLUSTER_COMPLETE;
	if (cancelled)
		return CLUSTER_CANCELLED;
	if (end)
		return CLUSTER_FAILED;
	if (yyjson_is_true(yyjson_ptr_get(job, "/spec/suspend")))
		return yyjson_ptr_get(job, "/metadata/labels/kueue.x-k8s.io~1queue-name") ? CLUSTER_QUEUED : CLUSTER_SUSPENDED;
	return j->n_ready || j->n_succeeded ? CLUSTER_RUNNING : CLUSTER_PENDING;
}

void cluster_job_read(struct cluster_job *j, yyjson_val *job)
{
	*j = (struct cluster_job){.name = text_at(job, "/metadata/name"),
	                          .space = text_at(job, "/metadata/namespace"),
	                          .uid = text_at(job, "/metadata/uid"),
	                          .annotation = text_at(job, "/metadata/annotations/tokenmill.dev~1spec"),
	                          .model = text_at(job, "/metadata/labels/llm-d.ai~1model"),
	                          .reason = "",
	                          .message = "",
	                          .n_workers = number_at(job, "/spec/parallelism"),
	                          .n_completions = number_at(job, "/spec/completions"),
	                          .n_active = number_at(job, "/status/active"),
	                          .n_ready = number_at(job, "/status/ready"),
	                          .n_succeeded = number_at(job, "/status/succeeded"),
	                          .n_failed = number_at(job, "/status/failed"),
	                          .completed_indexes = text_at(job, "/status/completedIndexes"),
	                          .failed_indexes = text_at(job, "/status/failedIndexes"),
	                          .created = text_at(job, "/metadata/creationTimestamp"),
	                          .started = text_at(job, "/status/startTime"),
	                          .finished = ""};
	j->state = state_of(j, job);
}

static int add_name(void *arg, yyjson_val *job)
{
	struct buf *names = arg;

	if (names->len < 400)
		buf_addf(names, "%s%s", names->len ? ", " : "", text_at(job, "/metadata/name"));
	return 0;
}

int cluster_job_get(struct kube *k, const char *name, struct cluster_job *j, yyjson_doc **doc, struct err *err)
{
	struct kube_ref ref = {"batch/v1", "jobs", NULL, name, NULL}, all = {"batch/v1", "jobs", NULL, NULL, NULL};
	struct kube_selection sel = {.labels = LAUNCH_SELECTOR};
	struct err ignored = {0};
	struct buf names = {0};

	*doc = NULL;
	if (kube_get(k, &ref, doc, err) < 0) {
		if (kube_why(k) == KUBE_NOT_FOUND) {
			err_clear(err);
			err_set(err, ERR_OTHER, "there is no job '%s' in namespace '%s'", name, kube_namespace(k));
			if (kube_list(k, &all, &sel, add_name, &names, NULL, &ignored) == 0) {
				err_clear(err);
				err_set(err, ERR_OTHER, "there is no job '%s' in namespace '%s' (there are: %s)", name, kube_namespace(k),
				        names.len ? names.data : "none");
			}
			buf_release(&names);
		}
		return -1;
	}
	cluster_job_read(j, yyjson_doc_get_root(*doc));
	if (!yyjson_equals_str(yyjson_ptr_get(yyjson_doc_get_root(*doc), "/metadata/labels/app.kubernetes.io~1name"),
	                       "tokenmill")) {
		yyjson_doc_free(*doc);
		*doc = NULL;
		return err_set(err, ERR_OTHER,
		               "job '%s' in namespace '%s' is not one of tokenmill's (it lacks the label " LAUNCH_SELECTOR ")", name,
		               kube_namespace(k));
	}
	return 0;
}

/* ---- times ---- */

void cluster_age(int64_t s, char out[32])
{
	if (s < 0)
		s = 0;
	if (s < 120)
		snprintf(out, 32, "%llds", (long long)s);
	else if (s < 3600)
		snprintf(out, 32, "%lldm%02llds", (long long)(s / 60), (long long)(s % 60));
	else if (s < 48 * 3600)
		snprintf(out, 32, "%lldh%02lldm", (long long)(s / 3600), (long long)(s / 60 % 60));
	else
		snprintf(out, 32, "%lldd", (long long)(s / 86400));
}

int64_t cluster_since(const char *time)
{
	int64_t t = kube_time(time);

	return t < 0 ? 0 : clock_unix_ms() / 1000 - t;
}
