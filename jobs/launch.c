/* launch.c: what is asked for, as canonical JSON; the name that follows from it; is it what is there. */
#include "jobs/launch.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"
#include "jobs/launch_private.h"

enum { NAME_MAX_BYTES = 63, HASH_SHOWN = 8 };

void launch_spec_init(struct launch_spec *s)
{
	*s = (struct launch_spec){.workers = 1,
	                          .image = "tokenmill",
	                          .shm = "1Gi",
	                          .gpu_resource = "nvidia.com/gpu",
	                          .jobs_claim = "tokenmill-jobs",
	                          .models_claim = "tokenmill-models",
	                          .retries = 6,
	                          .grace_s = 120,
	                          .ttl_s = 7 * 24 * 3600,
	                          .metrics_port = 9090};
}

char *launch_path(const char *dir, const char *path)
{
	struct buf b = {0};

	if (*path == '/' || strncmp(path, "s3://", 5) == 0)
		return xstrdup(path);
	buf_addf(&b, "%s/%s", dir, path);
	return buf_detach(&b);
}

char *launch_model_name(const char *path)
{
	size_t n = strlen(path), start;

	while (n > 1 && path[n - 1] == '/')
		n--;
	for (start = n; start > 0 && path[start - 1] != '/'; start--)
		;
	if (n - start > 5 && strncasecmp(path + n - 5, ".gguf", 5) == 0)
		n -= 5;
	return xmemdup(path + start, n - start);
}

char *launch_label(const char *text)
{
	struct buf b = {0};

	for (; *text && b.len < NAME_MAX_BYTES; text++)
		if (b.len || isalnum((unsigned char)*text))
			buf_addc(&b, isalnum((unsigned char)*text) || strchr("-_.", *text) ? *text : '-');
	while (b.len && !isalnum((unsigned char)b.data[b.len - 1]))
		buf_truncate(&b, b.len - 1);
	return b.data ? buf_detach(&b) : xstrdup("");
}

/* ---- as JSON ---- */

static void add_text(yyjson_mut_doc *d, const char *key, const char *value)
{
	if (value)
		yyjson_mut_obj_add_strcpy(d, yyjson_mut_doc_get_root(d), key, value);
}

static void add_number(yyjson_mut_doc *d, const char *key, int64_t n)
{
	yyjson_mut_obj_add_int(d, yyjson_mut_doc_get_root(d), key, n);
}

static void add_list(yyjson_mut_doc *d, const char *key, const struct launch_list *l)
{
	yyjson_mut_val *list = yyjson_mut_arr(d);

	for (size_t i = 0; i < l->n; i++)
		yyjson_mut_arr_add_strcpy(d, list, l->items[i]);
	if (l->n)
		yyjson_mut_obj_add_val(d, yyjson_mut_doc_get_root(d), key, list);
}

/* Names are those of the options. */
static char *spec_json(const struct launch_spec *s)
{
	yyjson_mut_doc *d = yyjson_mut_doc_new(NULL);
	yyjson_doc *fixed;
	struct buf b = {0};

	yyjson_mut_doc_set_root(d, yyjson_mut_obj(d));
	add_text(d, "job", s->job);
	add_text(d, "model", s->model);
	add_list(d, "inputs", &s->inputs);
	add_list(d, "run", &s->run_args);
	add_number(d, "workers", s->workers);
	add_text(d, "image", s->image);
	add_text(d, "image-pull-policy", s->image_pull_policy);
	add_text(d, "cpu", s->cpu);
	add_text(d, "memory", s->memory);
	add_text(d, "shm", s->shm);
	if (s->n_gpus) {
		add_number(d, "gpu", s->n_gpus);
		add_text(d, "gpu-resource", s->gpu_resource);
	}
	add_list(d, "node-selector", &s->node_selectors);
	add_list(d, "label", &s->labels);
	add_list(d, "annotation", &s->annotations);
	add_list(d, "env", &s->env);
	add_list(d, "tag", &s->tags);
	add_list(d, "toleration", &s->tolerations);
	add_list(d, "volume", &s->volumes);
	add_list(d, "secret", &s->secrets);
	add_list(d, "image-pull-secret", &s->pull_secrets);
	add_text(d, "jobs-claim", s->jobs_claim);
	add_text(d, "models-claim", s->models_claim);
	add_text(d, "queue", s->queue);
	if (s->min_workers)
		add_number(d, "min-workers", s->min_workers);
	add_text(d, "priority-class", s->priority_class);
	add_text(d, "node-type", s->node_type);
	if (s->suspend)
		yyjson_mut_obj_add_bool(d, yyjson_mut_doc_get_root(d), "suspend", true);
	add_number(d, "retries", s->retries);
	if (s->max_failed)
		add_number(d, "max-failed", s->max_failed);
	add_number(d, "grace", s->grace_s);
	add_number(d, "ttl", s->ttl_s);
	add_number(d, "metrics-port", s->metrics_port);
	if (s->pod_template)
		yyjson_mut_obj_add_val(d, yyjson_mut_doc_get_root(d), "pod-template", yyjson_val_mut_copy(d, s->pod_template));
	add_list(d, "set", &s->sets);
	fixed = yyjson_mut_doc_imut_copy(d, NULL);
	json_write_canonical(&b, yyjson_doc_get_root(fixed));
	yyjson_doc_free(fixed);
	yyjson_mut_doc_free(d);
	return buf_detach(&b);
}

/* ---- names ---- */

/* Pods of an Indexed Job have the host name NAME-INDEX, which is a DNS label of 63 characters. */
static int check_name(const char *name, int64_t workers, struct err *err)
{
	size_t n = strlen(name), room = NAME_MAX_BYTES - 1;

	room--;
	for (int64_t i = (workers - 1) / 10; i > 0; i /= 10)
		room--;
	if (!n || !isalnum((unsigned char)name[0]) || !isalnum((unsigned char)name[n - 1]) ||
	    strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != n || isdigit((unsigned char)name[0]))
		return err_set(
		    err, ERR_USAGE,
		    "--name: '%s' must be of small letters, digits and '-', begin with a letter and end with a letter or digit", name);
	if (n > room)
		return err_set(err, ERR_USAGE, "--name: '%s' has %zu characters; with %lld workers there is room for %zu", name, n,
		               (long long)workers, room);
	return 0;
}

/* "qwen3-8b-1f0a2b3c" */
static char *made_name(const struct launch_spec *s, const char *hash)
{
	char *model = launch_model_name(s->model ? s->model : "job");
	struct buf b = {0};

	for (const char *p = model; *p && b.len < 40; p++) {
		int c = tolower((unsigned char)*p);

		if (b.len ? isalnum(c) : isalpha(c))
			buf_addc(&b, (char)c);
		else if (b.len && b.data[b.len - 1] != '-')
			buf_addc(&b, '-');
	}
	free(model);
	if (!b.len)
		buf_adds(&b, "job");
	buf_addf(&b, "%s%.*s", b.data[b.len - 1] == '-' ? "" : "-", HASH_SHOWN, hash);
	return buf_detach(&b);
}

static int check_numbers(const struct launch_spec *s, struct err *err)
{
	if (s->workers < 1 || s->workers > LAUNCH_MAX_WORKERS)
		return err_set(err, ERR_USAGE, "--workers must be from 1 to %d", (int)LAUNCH_MAX_WORKERS);
	if (s->max_failed > s->workers)
		return err_set(err, ERR_USAGE, "--max-failed %lld is more than there are workers (%lld)", (long long)s->max_failed,
		               (long long)s->workers);
	if (s->min_workers > s->workers)
		return err_set(err, ERR_USAGE, "--min-workers %lld is more than --workers %lld", (long long)s->min_workers,
		               (long long)s->workers);
	if (s->min_workers && !s->queue)
		return err_set(err, ERR_USAGE, "--min-workers is for Kueue: give --queue as well");
	return 0;
}

int launch_make(const struct launch_spec *s, struct launch *out, struct err *err)
{
	struct buf manifest = {0};

	*out = (struct launch){0};
	if (check_numbers(s, err) < 0)
		return -1;
	out->spec = spec_json(s);
	sha256_hex(out->spec, strlen(out->spec), out->hash);
	out->name = s->name ? xstrdup(s->name) : made_name(s, out->hash);
	out->place = launch_path(LAUNCH_JOBS_DIR, s->job ? s->job : out->name);
	if (check_name(out->name, s->workers, err) < 0 || launch_manifest(s, out, &manifest, err) < 0) {
		buf_release(&manifest);
		launch_release(out);
		return -1;
	}
	out->manifest = buf_detach(&manifest);
	return 0;
}

void launch_release(struct launch *l)
{
	free(l->name);
	free(l->place);
	free(l->spec);
	free(l->manifest);
	*l = (struct launch){0};
}

/* ---- what is there ---- */

static void add_value(struct buf *out, yyjson_val *v)
{
	if (!v)
		buf_adds(out, "none");
	else if (yyjson_is_str(v))
		buf_adds(out, yyjson_get_str(v));
	else
		json_write(out, v);
}

static void add_difference(struct buf *how, const char *key, yyjson_val *there, yyjson_val *asked)
{
	buf_addf(how, "%s%s ", how->len ? "; " : "", key);
	add_value(how, there);
	buf_adds(how, ", asked for is ");
	add_value(how, asked);
}

static void add_differences(struct buf *how, yyjson_val *there, yyjson_val *asked)
{
	size_t i, max;
	yyjson_val *k, *v;

	yyjson_obj_foreach (asked, i, max, k, v) {
		yyjson_val *other = yyjson_obj_get(there, yyjson_get_str(k));

		if (!other || !yyjson_equals(v, other))
			add_difference(how, yyjson_get_str(k), other, v);
	}
	yyjson_obj_foreach (there, i, max, k, v)
		if (!yyjson_obj_get(asked, yyjson_get_str(k)))
			add_difference(how, yyjson_get_str(k), v, NULL);
}

int launch_compare(const struct launch *l, const char *annotation, struct buf *how)
{
	yyjson_doc *there = annotation ? yyjson_read(annotation, strlen(annotation), 0) : NULL, *asked;
	yyjson_val *hash = yyjson_obj_get(yyjson_doc_get_root(there), "hash");
	int differs = !yyjson_equals_str(hash, l->hash);

	if (!yyjson_is_str(hash)) {
		buf_adds(how, "it was not made by tokenmill submit");
	} else if (differs) {
		asked = yyjson_read(l->spec, strlen(l->spec), 0);
		add_differences(how, yyjson_obj_get(yyjson_doc_get_root(there), "submitted"), yyjson_doc_get_root(asked));
		if (!how->len)
			buf_adds(how, "its content hash is another");
		yyjson_doc_free(asked);
	}
	yyjson_doc_free(there);
	return differs;
}

char *launch_submitted(const char *annotation, const char *member)
{
	yyjson_doc *doc = annotation ? yyjson_read(annotation, strlen(annotation), 0) : NULL;
	yyjson_val *v = yyjson_obj_get(yyjson_doc_get_root(doc), member);
	char *s;

	if (!v)
		v = yyjson_obj_get(yyjson_obj_get(yyjson_doc_get_root(doc), "submitted"), member);
	s = yyjson_is_str(v) ? xstrdup(yyjson_get_str(v)) : NULL;
	yyjson_doc_free(doc);
	return s;
}
