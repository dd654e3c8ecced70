/* cluster_trouble.c: why pods do not run, or why they ended: from their status, and from events where no pod could be made at
 * all. Each reason that the kubelet, the scheduler or the job controller gives is shown as it is, with what one can do about it
 * behind it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "jobs/launch.h"
#include "runner/cluster.h"

enum { MESSAGE_SHOWN = 300 };

/* What stands in the reason or message, and what helps. */
static const struct {
	const char *sign, *hint;
} hints[] = {
    {"InvalidImageName", "correct --image"},
    {"ImagePull", "check --image, and --image-pull-secret for a registry that asks who you are"},
    {"ErrImageNeverPull", "the image is not on the node: load it there, or use another --image-pull-policy"},
    {"CreateContainerConfigError", "a secret or config map that the pod names is missing"},
    {"persistentvolumeclaim",
     "make the PersistentVolumeClaim, or name another one with --jobs-claim, --models-claim or --volume"},
    {"FailedMount", "the volume cannot be mounted on that node: see the storage driver"},
    {"FailedAttachVolume", "the volume cannot be attached to that node: see the storage driver"},
    {"Insufficient", "no node has room: ask for less (--cpu, --memory, --gpu), fewer workers, or more nodes"},
    {"untolerated taint", "add --toleration for the nodes that are meant, or choose others with --node-selector"},
    {"didn't match Pod's node affinity/selector", "no node has the labels of --node-selector"},
    {"exceeded quota", "the namespace's quota is used up: fewer workers, or less for each; tokenmill scale JOB N"},
    {"violates PodSecurity", "the namespace forbids such pods: what --pod-template or --set changes is not allowed there"},
    {"OOMKilled", "give it more --memory, or the engine less with --engine-memory"},
    {"serviceaccount", "the service account does not exist"},
    {"no PriorityClass", "make the priority class or leave out --priority-class"},
};

static const char *hint_for(const char *reason, const char *message)
{
	for (size_t i = 0; i < sizeof(hints) / sizeof(*hints); i++)
		if (strstr(reason, hints[i].sign) || strstr(message, hints[i].sign))
			return hints[i].hint;
	return NULL;
}

static const char *text_of(yyjson_val *v, const char *key)
{
	const char *s = yyjson_get_str(yyjson_obj_get(v, key));

	return s ? s : "";
}

/* "reason: message: hint", on one line. */
static void add_line(struct buf *out, const char *who, const char *reason, const char *message)
{
	const char *hint = hint_for(reason, message);
	size_t n = strlen(message), start;

	while (n && (message[n - 1] == '\n' || message[n - 1] == ' '))
		n--;
	buf_addf(out, "%s: %s%s", who, reason, *reason && n ? ": " : "");
	start = out->len;
	if (n > MESSAGE_SHOWN) /* the end of a log says more than its beginning */
		buf_addf(out, "...%.*s", MESSAGE_SHOWN, message + n - MESSAGE_SHOWN);
	else
		buf_add(out, message, n);
	for (size_t i = start; i < out->len; i++)
		if ((unsigned char)out->data[i] < ' ')
			out->data[i] = ' ';
	if (hint)
		buf_addf(out, " -> %s", hint);
	buf_addc(out, '\n');
}

/* What the worker says of its end: a JSON object with "message" (the termination message), or the end of its log. */
static void add_end(struct buf *out, const char *who, yyjson_val *terminated)
{
	const char *message = text_of(terminated, "message"), *reason = text_of(terminated, "reason");
	yyjson_doc *doc = yyjson_read(message, strlen(message), 0);
	const char *end = yyjson_get_str(yyjson_obj_get(yyjson_doc_get_root(doc), "message"));
	long long code = yyjson_get_sint(yyjson_obj_get(terminated, "exitCode"));
	struct buf what = {0};

	buf_addf(&what, "exit status %lld%s%s", code, strcmp(reason, "Error") == 0 ? "" : ", ",
	         strcmp(reason, "Error") == 0 ? "" : reason);
	add_line(out, who, what.data, end ? end : message);
	buf_release(&what);
	yyjson_doc_free(doc);
}

static void container_trouble(yyjson_val *status, const char *pod, struct buf *out)
{
	yyjson_val *waiting = yyjson_ptr_get(status, "/state/waiting"), *ended = yyjson_ptr_get(status, "/state/terminated");
	const char *reason = text_of(waiting, "reason");

	if (waiting && strcmp(reason, "ContainerCreating") != 0 && strcmp(reason, "PodInitializing") != 0 && *reason)
		add_line(out, pod, reason, text_of(waiting, "message"));
	if (ended && yyjson_get_sint(yyjson_obj_get(ended, "exitCode")) != 0)
		add_end(out, pod, ended);
}

void cluster_pod_trouble(yyjson_val *pod, struct buf *out)
{
	const char *name = yyjson_get_str(yyjson_ptr_get(pod, "/metadata/name"));
	yyjson_val *c, *status = yyjson_obj_get(pod, "status");
	size_t i, max, before = out->len;

	yyjson_arr_foreach (yyjson_obj_get(status, "initContainerStatuses"), i, max, c)
		container_trouble(c, name ? name : "?", out);
	yyjson_arr_foreach (yyjson_obj_get(status, "containerStatuses"), i, max, c)
		container_trouble(c, name ? name : "?", out);
	if (out->len > before)
		return;
	yyjson_arr_foreach (yyjson_obj_get(status, "conditions"), i, max, c) {
		int is_false = yyjson_equals_str(yyjson_obj_get(c, "status"), "False");

		if (is_false && yyjson_equals_str(yyjson_obj_get(c, "type"), "PodScheduled"))
			add_line(out, name ? name : "?", text_of(c, "reason"), text_of(c, "message"));
		else if (!is_false && yyjson_equals_str(yyjson_obj_get(c, "type"), "DisruptionTarget"))
			add_line(out, name ? name : "?", text_of(c, "reason"), text_of(c, "message"));
	}
	if (out->len == before && yyjson_equals_str(yyjson_obj_get(status, "phase"), "Failed"))
		add_line(out, name ? name : "?", text_of(status, "reason"), text_of(status, "message"));
}

/* ---- all pods of a job ---- */

/* One trouble and the pods that have it. */
struct trouble {
	char *text; /* behind the pod's name */
	char *pod;  /* the first */
	size_t n_pods;
};

struct troubles {
	struct trouble *list;
	size_t n, cap;
	size_t n_pods;
	const struct cluster_job *job;
	size_t n_stuck; /* pods that wait without saying why: events may */
};

static void add_trouble(struct troubles *t, const char *who, size_t n_who, const char *text)
{
	for (size_t i = 0; i < t->n; i++) {
		if (strcmp(t->list[i].text, text) == 0) {
			t->list[i].n_pods++;
			return;
		}
	}
	MEM_GROW(t->list, t->cap, t->n + 1);
	t->list[t->n++] = (struct trouble){xstrdup(text), xmemdup(who, n_who), 1};
}

static int on_pod(void *arg, yyjson_val *pod)
{
	struct troubles *t = arg;
	struct buf lines = {0};
	const char *phase = yyjson_get_str(yyjson_ptr_get(pod, "/status/phase"));

	t->n_pods++;
	cluster_pod_trouble(pod, &lines);
	if (!lines.len && phase && strcmp(phase, "Pending") == 0)
		t->n_stuck++;
	for (char *line = lines.data, *nl; line && *line; line = nl + 1) {
		char *colon = strstr(line, ": ");

		nl = strchr(line, '\n');
		*nl = '\0';
		add_trouble(t, line, (size_t)(colon - line), colon + 2);
	}
	buf_release(&lines);
	return 0;
}

static int on_warning(void *arg, yyjson_val *event)
{
	struct troubles *t = arg;
	const char *object = yyjson_get_str(yyjson_ptr_get(event, "/involvedObject/name"));
	size_t n = strlen(t->job->name);
	struct buf line = {0};
	char *colon;

	/* Names of its pods begin with the Job's. */
	if (!object || strncmp(object, t->job->name, n) != 0 || (object[n] && object[n] != '-'))
		return 0;
	if (!hint_for(text_of(event, "reason"), text_of(event, "message")))
		return 0;
	add_line(&line, object, text_of(event, "reason"), text_of(event, "message"));
	buf_truncate(&line, line.len - 1);
	colon = strstr(line.data, ": ");
	add_trouble(t, line.data, (size_t)(colon - line.data), colon + 2);
	buf_release(&line);
	return 0;
}

static void take_troubles(struct troubles *t, struct buf *out)
{
	for (size_t i = 0; i < t->n; i++) {
		if (t->list[i].n_pods > 1)
			buf_addf(out, "%s and %zu more: %s\n", t->list[i].pod, t->list[i].n_pods - 1, t->list[i].text);
		else
			buf_addf(out, "%s: %s\n", t->list[i].pod, t->list[i].text);
		free(t->list[i].text);
		free(t->list[i].pod);
	}
	free(t->list);
}

int cluster_troubles(struct kube *k, const struct cluster_job *j, struct buf *out, size_t *n_pods, struct err *err)
{
	struct kube_ref pods = {"v1", "pods", j->space, NULL, NULL}, events = {"v1", "events", j->space, NULL, NULL};
	struct kube_selection by_uid = {0}, warnings = {.fields = "type=Warning"};
	struct troubles t = {.job = j};
	struct buf label = {0};
	struct err ignored = {0};
	int rc;

	buf_addf(&label, "batch.kubernetes.io/controller-uid=%s", j->uid);
	by_uid.labels = label.data;
	rc = kube_list(k, &pods, &by_uid, on_pod, &t, NULL, err);
	/* Events are kept for an hour and may be forbidden: only where the pods do not tell. */
	if (rc == 0 && !cluster_state_is_final(j->state) && !t.n &&
	    (t.n_stuck || (int64_t)t.n_pods < j->n_workers - j->n_succeeded))
		kube_list(k, &events, &warnings, on_warning, &t, NULL, &ignored);
	if (n_pods)
		*n_pods = t.n_pods;
	take_troubles(&t, out);
	buf_release(&label);
	return rc;
}
