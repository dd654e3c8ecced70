/* launch_manifest.c: the Job. What is the same in all of them stands in the skeleton below, as one would write it by hand; the
 * rest is put into its places. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "jobs/json_edit.h"
#include "jobs/launch_private.h"

/* A pod of a namespace in which Pod Security "restricted" is enforced. The termination message is the worker's summary; without
 * one the end of its log. 10001 is the user of the image; fsGroup lets it write on volumes whose driver knows groups. Service
 * links would put a variable for every service of the namespace into the environment. */
static const char skeleton[] =
    "{\"apiVersion\":\"batch/v1\",\"kind\":\"Job\","
    " \"metadata\":{\"labels\":{},\"annotations\":{}},"
    " \"spec\":{"
    "  \"completionMode\":\"Indexed\","
    "  \"podReplacementPolicy\":\"Failed\","
    "  \"podFailurePolicy\":{\"rules\":[]},"
    "  \"template\":{"
    "   \"metadata\":{\"labels\":{},\"annotations\":{}},"
    "   \"spec\":{"
    "    \"restartPolicy\":\"Never\","
    "    \"automountServiceAccountToken\":false,"
    "    \"enableServiceLinks\":false,"
    "    \"securityContext\":{\"runAsNonRoot\":true,\"runAsUser\":10001,\"runAsGroup\":10001,\"fsGroup\":10001,"
    "     \"fsGroupChangePolicy\":\"OnRootMismatch\",\"seccompProfile\":{\"type\":\"RuntimeDefault\"}},"
    "    \"containers\":[{"
    "     \"name\":\"" LAUNCH_CONTAINER "\","
    "     \"command\":[\"tokenmill\"],"
    "     \"args\":[\"run\"],"
    "     \"env\":["
    "      "
    "{\"name\":\"TOKENMILL_JOB_UID\",\"valueFrom\":{\"fieldRef\":{\"fieldPath\":\"metadata.labels['batch.kubernetes.io/"
    "controller-uid']\"}}},"
    "      {\"name\":\"TOKENMILL_POD_UID\",\"valueFrom\":{\"fieldRef\":{\"fieldPath\":\"metadata.uid\"}}},"
    "      {\"name\":\"TOKENMILL_TERMINATION_LOG\",\"value\":\"/dev/termination-log\"},"
    "      {\"name\":\"TOKENMILL_CACHE\",\"value\":\"/tmp/cache\"},"
    "      {\"name\":\"HOME\",\"value\":\"/tmp\"}],"
    "     \"resources\":{},"
    "     \"terminationMessagePath\":\"/dev/termination-log\","
    "     \"terminationMessagePolicy\":\"FallbackToLogsOnError\","
    "     \"securityContext\":{\"allowPrivilegeEscalation\":false,\"readOnlyRootFilesystem\":true,\"runAsNonRoot\":true,"
    "      \"capabilities\":{\"drop\":[\"ALL\"]}},"
    "     \"volumeMounts\":[{\"name\":\"tmp\",\"mountPath\":\"/tmp\"},{\"name\":\"shm\",\"mountPath\":\"/dev/shm\"}]}],"
    "    \"volumes\":[{\"name\":\"tmp\",\"emptyDir\":{}},{\"name\":\"shm\",\"emptyDir\":{\"medium\":\"Memory\"}}]}}}}";

/* The places in it. */
struct manifest {
	yyjson_mut_doc *doc;
	yyjson_mut_val *root, *job, *template, *pod, *container;
	const struct launch_spec *s;
	const struct launch *l;
	struct err *err;
};

static yyjson_mut_val *at(yyjson_mut_val *v, const char *pointer)
{
	return yyjson_mut_ptr_get(v, pointer);
}

static void put(struct manifest *m, yyjson_mut_val *object, const char *key, const char *value)
{
	if (value)
		yyjson_mut_obj_put(object, yyjson_mut_strcpy(m->doc, key), yyjson_mut_strcpy(m->doc, value));
}

static void put_number(struct manifest *m, yyjson_mut_val *object, const char *key, int64_t n)
{
	yyjson_mut_obj_put(object, yyjson_mut_strcpy(m->doc, key), yyjson_mut_sint(m->doc, n));
}

static yyjson_mut_val *object_in(struct manifest *m, yyjson_mut_val *object, const char *key)
{
	yyjson_mut_val *v = yyjson_mut_obj_get(object, key);

	if (!v) {
		v = yyjson_mut_obj(m->doc);
		yyjson_mut_obj_put(object, yyjson_mut_strcpy(m->doc, key), v);
	}
	return v;
}

static yyjson_mut_val *list_in(struct manifest *m, yyjson_mut_val *object, const char *key)
{
	yyjson_mut_val *v = yyjson_mut_obj_get(object, key);

	if (!v) {
		v = yyjson_mut_arr(m->doc);
		yyjson_mut_obj_put(object, yyjson_mut_strcpy(m->doc, key), v);
	}
	return v;
}

/* "name=value" of an option into an object. */
static int put_pairs(struct manifest *m, yyjson_mut_val *object, const struct launch_list *l, const char *option)
{
	for (size_t i = 0; i < l->n; i++) {
		const char *equals = strchr(l->items[i], '=');
		char *name;

		if (!equals || equals == l->items[i])
			return err_set(m->err, ERR_USAGE, "--%s: '%s' is not NAME=VALUE", option, l->items[i]);
		name = xmemdup(l->items[i], (size_t)(equals - l->items[i]));
		put(m, object, name, equals + 1);
		free(name);
	}
	return 0;
}

/* ---- the Job ---- */

static void add_exit_codes(struct manifest *m, yyjson_mut_val *rules, enum err_pod_policy policy, const char *action)
{
	yyjson_mut_val *rule = yyjson_mut_arr_add_obj(m->doc, rules), *codes, *values;
	char seen[256] = {0};

	put(m, rule, "action", action);
	codes = object_in(m, rule, "onExitCodes");
	put(m, codes, "containerName", LAUNCH_CONTAINER);
	put(m, codes, "operator", "In");
	values = list_in(m, codes, "values");
	for (int c = 1; c < ERR_N_CODES; c++)
		if (err_pod_policy((enum err_code)c) == policy)
			seen[err_exit_code((enum err_code)c) & 255] = 1;
	for (int code = 1; code < 256; code++)
		if (seen[code])
			yyjson_mut_arr_add_int(m->doc, values, code);
}

/* Rules are tried in order, the first that fits counts; without one a failure counts against the index. A pod that is evicted,
 * preempted or drained gets the condition DisruptionTarget, whatever its exit status. */
static void add_failure_policy(struct manifest *m)
{
	yyjson_mut_val *rules = at(m->job, "/podFailurePolicy/rules"), *rule = yyjson_mut_arr_add_obj(m->doc, rules), *condition;

	put(m, rule, "action", "Ignore");
	condition = yyjson_mut_arr_add_obj(m->doc, list_in(m, rule, "onPodConditions"));
	put(m, condition, "type", "DisruptionTarget");
	put(m, condition, "status", "True");
	add_exit_codes(m, rules, ERR_POD_IGNORE, "Ignore");
	add_exit_codes(m, rules, ERR_POD_FAIL_JOB, "FailJob");
}

static int fill_metadata(struct manifest *m)
{
	yyjson_mut_val *meta = at(m->root, "/metadata"), *labels = yyjson_mut_obj_get(meta, "labels"),
	               *notes = yyjson_mut_obj_get(meta, "annotations");
	yyjson_mut_val *pod_labels = at(m->template, "/metadata/labels"), *pod_notes = at(m->template, "/metadata/annotations");
	char *model = launch_model_name(m->s->model ? m->s->model : ""), *label = launch_label(model);
	struct buf note = {0}, min = {0};
	int rc = 0;

	put(m, meta, "name", m->l->name);
	for (int i = 0; i < 2; i++) {
		yyjson_mut_val *l = i ? pod_labels : labels;

		put(m, l, "app.kubernetes.io/name", "tokenmill");
		put(m, l, "app.kubernetes.io/part-of", "tokenmill");
		put(m, l, LAUNCH_JOB_LABEL, m->l->name);
		if (*label)
			put(m, l, "llm-d.ai/model", label); /* by which OpenCost finds what a model costs */
		if (rc == 0)
			rc = put_pairs(m, l, &m->s->labels, "label");
	}
	put(m, labels, "kueue.x-k8s.io/queue-name", m->s->queue);
	if (m->s->min_workers) {
		buf_addf(&min, "%lld", (long long)m->s->min_workers);
		put(m, notes, "kueue.x-k8s.io/job-min-parallelism", min.data);
	}
	buf_adds(&note, "{\"format\":1,\"hash\":");
	json_write_string(&note, m->l->hash, strlen(m->l->hash));
	buf_adds(&note, ",\"place\":");
	json_write_string(&note, m->l->place, strlen(m->l->place));
	buf_addf(&note, ",\"submitted\":%s}", m->l->spec);
	put(m, notes, LAUNCH_SPEC_ANNOTATION, note.data);
	if (rc == 0 && put_pairs(m, notes, &m->s->annotations, "annotation") == 0)
		rc = put_pairs(m, pod_notes, &m->s->annotations, "annotation");
	else
		rc = -1;
	free(model);
	free(label);
	buf_release(&note);
	buf_release(&min);
	return rc;
}

static void fill_job(struct manifest *m)
{
	const struct launch_spec *s = m->s;

	put_number(m, m->job, "completions", s->workers);
	put_number(m, m->job, "parallelism", s->workers);
	put_number(m, m->job, "backoffLimitPerIndex", s->retries);
	put_number(m, m->job, "maxFailedIndexes", s->max_failed ? s->max_failed : (s->workers + 1) / 2);
	put_number(m, m->job, "ttlSecondsAfterFinished", s->ttl_s);
	if (s->queue || s->suspend)
		yyjson_mut_obj_add_bool(m->doc, m->job, "suspend", true);
	add_failure_policy(m);
}

/* ---- the pod ---- */

static void add_claim(struct manifest *m, const char *volume, const char *claim, const char *path, int read_only)
{
	yyjson_mut_val *v = yyjson_mut_arr_add_obj(m->doc, yyjson_mut_obj_get(m->pod, "volumes")), *c, *mount;

	put(m, v, "name", volume);
	c = object_in(m, v, "persistentVolumeClaim");
	put(m, c, "claimName", claim);
	mount = yyjson_mut_arr_add_obj(m->doc, yyjson_mut_obj_get(m->container, "volumeMounts"));
	put(m, mount, "name", volume);
	put(m, mount, "mountPath", path);
	if (read_only) {
		yyjson_mut_obj_add_bool(m->doc, c, "readOnly", true);
		yyjson_mut_obj_add_bool(m->doc, mount, "readOnly", true);
	}
}

static int is_below(const char *dir, const char *path)
{
	size_t n = strlen(dir);

	return strncmp(path, dir, n) == 0 && (path[n] == '/' || path[n] == '\0');
}

/* "CLAIM:/path[:ro]" */
static int add_volume(struct manifest *m, const char *text, size_t number)
{
	const char *colon = strchr(text, ':'), *end;
	char name[40], *claim, *path;
	int read_only;

	if (!colon || colon == text || colon[1] != '/')
		return err_set(m->err, ERR_USAGE, "--volume: '%s' is not CLAIM:/path or CLAIM:/path:ro", text);
	end = strchr(colon + 1, ':');
	read_only = end && strcmp(end, ":ro") == 0;
	if (end && !read_only)
		return err_set(m->err, ERR_USAGE, "--volume: '%s' is not CLAIM:/path or CLAIM:/path:ro", text);
	claim = xmemdup(text, (size_t)(colon - text));
	path = end ? xmemdup(colon + 1, (size_t)(end - colon - 1)) : xstrdup(colon + 1);
	snprintf(name, sizeof(name), "volume-%zu", number);
	add_claim(m, name, claim, path, read_only);
	free(claim);
	free(path);
	return 0;
}

static int fill_volumes(struct manifest *m)
{
	const struct launch_spec *s = m->s;
	int needs_jobs = is_below(LAUNCH_JOBS_DIR, m->l->place);
	char *path;

	for (size_t i = 0; i < s->inputs.n; i++) {
		path = launch_path(LAUNCH_JOBS_DIR, s->inputs.items[i]);
		needs_jobs |= is_below(LAUNCH_JOBS_DIR, path);
		free(path);
	}
	put(m, at(m->pod, "/volumes/1/emptyDir"), "sizeLimit", s->shm);
	if (needs_jobs)
		add_claim(m, "jobs", s->jobs_claim, LAUNCH_JOBS_DIR, 0);
	path = s->model ? launch_path(LAUNCH_MODELS_DIR, s->model) : NULL;
	if (path && is_below(LAUNCH_MODELS_DIR, path))
		add_claim(m, "models", s->models_claim, LAUNCH_MODELS_DIR, 1);
	free(path);
	for (size_t i = 0; i < s->volumes.n; i++)
		if (add_volume(m, s->volumes.items[i], i) < 0)
			return -1;
	return 0;
}

/* Of memory as much is requested as may be used, so that no worker is killed for what others take; of processors more may be
 * used than requested. */
static void fill_resources(struct manifest *m)
{
	const struct launch_spec *s = m->s;
	yyjson_mut_val *resources = yyjson_mut_obj_get(m->container, "resources");

	if (s->cpu)
		put(m, object_in(m, resources, "requests"), "cpu", s->cpu);
	if (s->memory) {
		put(m, object_in(m, resources, "requests"), "memory", s->memory);
		put(m, object_in(m, resources, "limits"), "memory", s->memory);
	}
	if (s->n_gpus) {
		char n[24];

		snprintf(n, sizeof(n), "%lld", (long long)s->n_gpus);
		put(m, object_in(m, resources, "limits"), s->gpu_resource, n);
	}
}

static int fill_environment(struct manifest *m)
{
	const struct launch_spec *s = m->s;
	yyjson_mut_val *env = yyjson_mut_obj_get(m->container, "env"), *e;
	struct buf tags = {0};

	for (size_t i = 0; i < s->tags.n; i++) {
		const char *tag = s->tags.items[i];

		if (*tag == '=' || !strchr(tag, '=') || strchr(tag, ',')) {
			buf_release(&tags);
			return err_set(m->err, ERR_USAGE, "--tag: '%s' is not NAME=VALUE (without commas)", tag);
		}
		buf_addf(&tags, "%s%s", i ? "," : "", tag);
	}
	if (tags.len) {
		e = yyjson_mut_arr_add_obj(m->doc, env);
		put(m, e, "name", "TOKENMILL_TAGS");
		put(m, e, "value", tags.data);
	}
	buf_release(&tags);
	if (s->node_type) {
		e = yyjson_mut_arr_add_obj(m->doc, env);
		put(m, e, "name", "TOKENMILL_NODE_TYPE");
		put(m, e, "value", s->node_type);
	}
	for (size_t i = 0; i < s->env.n; i++) {
		const char *equals = strchr(s->env.items[i], '=');

		if (!equals || equals == s->env.items[i])
			return err_set(m->err, ERR_USAGE, "--env: '%s' is not NAME=VALUE", s->env.items[i]);
		e = yyjson_mut_arr_add_obj(m->doc, env);
		yyjson_mut_obj_put(e, yyjson_mut_strcpy(m->doc, "name"),
		                   yyjson_mut_strncpy(m->doc, s->env.items[i], (size_t)(equals - s->env.items[i])));
		put(m, e, "value", equals + 1);
	}
	for (size_t i = 0; i < s->secrets.n; i++) {
		e = yyjson_mut_arr_add_obj(m->doc, list_in(m, m->container, "envFrom"));
		put(m, object_in(m, e, "secretRef"), "name", s->secrets.items[i]);
	}
	return 0;
}

/* "key", "key=value", either with ":Effect" */
static void add_toleration(struct manifest *m, const char *text)
{
	yyjson_mut_val *t = yyjson_mut_arr_add_obj(m->doc, list_in(m, m->pod, "tolerations"));
	const char *colon = strrchr(text, ':'), *end = colon ? colon : text + strlen(text),
	           *equals = memchr(text, '=', (size_t)(end - text));
	char *key = xmemdup(text, (size_t)((equals ? equals : end) - text)),
	     *value = equals ? xmemdup(equals + 1, (size_t)(end - equals - 1)) : NULL;

	put(m, t, "key", key);
	put(m, t, "operator", value ? "Equal" : "Exists");
	put(m, t, "value", value);
	put(m, t, "effect", colon ? colon + 1 : NULL);
	free(key);
	free(value);
}

/* Segments reach shared storage less often than a local disk: each is some round trips. */
static void fill_arguments(struct manifest *m)
{
	const struct launch_spec *s = m->s;
	yyjson_mut_val *args = yyjson_mut_obj_get(m->container, "args");
	int has_interval = 0;
	char *path;

	yyjson_mut_arr_add_str(m->doc, args, "--job");
	yyjson_mut_arr_add_strcpy(m->doc, args, m->l->place);
	if (s->model) {
		path = launch_path(LAUNCH_MODELS_DIR, s->model);
		yyjson_mut_arr_add_str(m->doc, args, "--model");
		yyjson_mut_arr_add_strcpy(m->doc, args, path);
		free(path);
	}
	for (size_t i = 0; i < s->run_args.n; i++) {
		has_interval |= strncmp(s->run_args.items[i], "--publish-seconds", 17) == 0;
		yyjson_mut_arr_add_strcpy(m->doc, args, s->run_args.items[i]);
	}
	if (!has_interval)
		yyjson_mut_arr_add_str(m->doc, args, "--publish-seconds=30");
	if (s->metrics_port) {
		char text[40];

		snprintf(text, sizeof(text), "--metrics=%lld", (long long)s->metrics_port);
		yyjson_mut_arr_add_strcpy(m->doc, args, text);
	}
	if (s->inputs.n)
		yyjson_mut_arr_add_str(m->doc, args, "--");
	for (size_t i = 0; i < s->inputs.n; i++) {
		path = launch_path(LAUNCH_JOBS_DIR, s->inputs.items[i]);
		yyjson_mut_arr_add_strcpy(m->doc, args, path);
		free(path);
	}
}

static int fill_pod(struct manifest *m)
{
	const struct launch_spec *s = m->s;

	put(m, m->container, "image", s->image);
	put(m, m->container, "imagePullPolicy", s->image_pull_policy);
	put(m, m->pod, "priorityClassName", s->priority_class);
	put_number(m, m->pod, "terminationGracePeriodSeconds", s->grace_s);
	if (s->node_selectors.n && put_pairs(m, object_in(m, m->pod, "nodeSelector"), &s->node_selectors, "node-selector") < 0)
		return -1;
	for (size_t i = 0; i < s->tolerations.n; i++)
		add_toleration(m, s->tolerations.items[i]);
	for (size_t i = 0; i < s->pull_secrets.n; i++)
		put(m, yyjson_mut_arr_add_obj(m->doc, list_in(m, m->pod, "imagePullSecrets")), "name", s->pull_secrets.items[i]);
	fill_arguments(m);
	if (s->metrics_port) {
		yyjson_mut_val *port = yyjson_mut_arr_add_obj(m->doc, list_in(m, m->container, "ports"));

		put(m, port, "name", "metrics");
		put_number(m, port, "containerPort", s->metrics_port);
	}
	fill_resources(m);
	if (fill_environment(m) < 0)
		return -1;
	return fill_volumes(m);
}

/* ---- what the user lays over it ---- */

/* A pod template as it may come: of a Pod, a PodTemplate, a Job, a bare PodTemplateSpec. */
static yyjson_mut_val *template_of(struct manifest *m, yyjson_mut_val *v)
{
	yyjson_mut_val *kind = yyjson_mut_obj_get(v, "kind"), *api = yyjson_mut_obj_get(v, "apiVersion"), *inner;

	if (yyjson_mut_obj_get(v, "template"))
		return yyjson_mut_obj_get(v, "template");
	inner = at(v, "/spec/template");
	if (inner)
		return inner;
	if (kind || api) {
		yyjson_mut_obj_remove_key(v, "kind");
		yyjson_mut_obj_remove_key(v, "apiVersion");
		inner = yyjson_mut_obj_get(v, "metadata");
		if (inner)
			yyjson_mut_obj_remove_key(inner, "name"); /* of a Pod: a template's pods are named by the Job */
	}
	return v;
}

static int lay_over(struct manifest *m)
{
	yyjson_mut_val *over;

	if (m->s->pod_template) {
		over = template_of(m, yyjson_val_mut_copy(m->doc, m->s->pod_template));
		if (!yyjson_mut_is_obj(over) || (!yyjson_mut_obj_get(over, "spec") && !yyjson_mut_obj_get(over, "metadata")))
			return err_set(m->err, ERR_USAGE, "--pod-template: is no pod template: an object with spec or metadata");
		json_edit_merge(m->doc, m->template, over);
	}
	for (size_t i = 0; i < m->s->sets.n; i++)
		if (json_edit_set(m->doc, m->s->sets.items[i], m->err) < 0)
			return err_context(m->err, "--set");
	return 0;
}

/* What we need of the result ourselves; all else the server says better. */
static int check(struct manifest *m)
{
	yyjson_mut_val *list = at(m->root, "/spec/template/spec/containers"), *v, *name = at(m->root, "/metadata/name"), *label;
	size_t i, max;
	int found = 0;

	label = at(m->root, "/metadata/labels/tokenmill.dev~1job");
	if (!yyjson_mut_equals_str(name, m->l->name) || !yyjson_mut_equals_str(label, m->l->name))
		return err_set(m->err, ERR_USAGE, "the Job's name, and its label " LAUNCH_JOB_LABEL ", are given by --name alone");
	if (!yyjson_mut_equals_str(at(m->root, "/spec/template/spec/restartPolicy"), "Never"))
		return err_set(m->err, ERR_USAGE, "spec.template.spec.restartPolicy must be Never: the failure policy needs it");
	yyjson_mut_arr_foreach(list, i, max, v) found |= yyjson_mut_equals_str(yyjson_mut_obj_get(v, "name"), LAUNCH_CONTAINER);
	if (!found)
		return err_set(m->err, ERR_USAGE, "the pod has no container '" LAUNCH_CONTAINER "' any more");
	return 0;
}

int launch_manifest(const struct launch_spec *s, const struct launch *l, struct buf *out, struct err *err)
{
	yyjson_doc *fixed = yyjson_read(skeleton, sizeof(skeleton) - 1, 0), *done;
	struct manifest m = {.s = s, .l = l, .err = err};
	int rc;

	if (!fixed)
		BUG("the skeleton is not JSON");
	m.doc = yyjson_doc_mut_copy(fixed, NULL);
	yyjson_doc_free(fixed);
	m.root = yyjson_mut_doc_get_root(m.doc);
	m.job = yyjson_mut_obj_get(m.root, "spec");
	m.template = yyjson_mut_obj_get(m.job, "template");
	m.pod = yyjson_mut_obj_get(m.template, "spec");
	m.container = at(m.pod, "/containers/0");
	fill_job(&m);
	rc = fill_metadata(&m);
	if (rc == 0)
		rc = fill_pod(&m);
	if (rc == 0)
		rc = lay_over(&m);
	if (rc == 0)
		rc = check(&m);
	if (rc == 0) {
		done = yyjson_mut_doc_imut_copy(m.doc, NULL);
		json_write(out, yyjson_doc_get_root(done));
		yyjson_doc_free(done);
	}
	yyjson_mut_doc_free(m.doc);
	return rc;
}
