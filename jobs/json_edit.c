/* json_edit.c: paths and merging. */
#include "jobs/json_edit.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"

/* ---- merge ---- */

/* By which member two elements are the same one: patchMergeKey in the API's types
 * (https://kubernetes.io/docs/reference/kubernetes-api/). Lists that are not here, such as args and tolerations, are atomic. */
static const struct {
	const char *list, *key;
} merge_keys[] = {
    {"containers", "name"},
    {"initContainers", "name"},
    {"env", "name"},
    {"volumes", "name"},
    {"volumeMounts", "mountPath"},
    {"volumeDevices", "devicePath"},
    {"ports", "containerPort"},
    {"imagePullSecrets", "name"},
    {"hostAliases", "ip"},
    {"resourceClaims", "name"},
    {"topologySpreadConstraints", "topologyKey"},
};

static const char *merge_key(const char *list)
{
	for (size_t i = 0; i < sizeof(merge_keys) / sizeof(*merge_keys); i++)
		if (strcmp(merge_keys[i].list, list) == 0)
			return merge_keys[i].key;
	return NULL;
}

static yyjson_mut_val *find_same(yyjson_mut_val *list, const char *key, yyjson_mut_val *value)
{
	size_t i, max;
	yyjson_mut_val *v;

	yyjson_mut_arr_foreach(list, i, max, v) if (yyjson_mut_equals(yyjson_mut_obj_get(v, key), value)) return v;
	return NULL;
}

static void merge_list(yyjson_mut_doc *doc, yyjson_mut_val *base, yyjson_mut_val *over, const char *key)
{
	size_t i, max;
	yyjson_mut_val *v, *same;

	yyjson_mut_arr_foreach(over, i, max, v)
	{
		same = yyjson_mut_is_obj(v) && yyjson_mut_obj_get(v, key) ? find_same(base, key, yyjson_mut_obj_get(v, key)) : NULL;
		if (same)
			json_edit_merge(doc, same, v);
		else
			yyjson_mut_arr_append(base, yyjson_mut_val_mut_copy(doc, v));
	}
}

void json_edit_merge(yyjson_mut_doc *doc, yyjson_mut_val *base, yyjson_mut_val *over)
{
	size_t i, max;
	yyjson_mut_val *k, *v;

	yyjson_mut_obj_foreach(over, i, max, k, v)
	{
		const char *name = yyjson_mut_get_str(k), *key = merge_key(name);
		yyjson_mut_val *there = yyjson_mut_obj_get(base, name);

		if (yyjson_mut_is_null(v))
			yyjson_mut_obj_remove_key(base, name);
		else if (yyjson_mut_is_obj(there) && yyjson_mut_is_obj(v))
			json_edit_merge(doc, there, v);
		else if (yyjson_mut_is_arr(there) && yyjson_mut_is_arr(v) && key)
			merge_list(doc, there, v, key);
		else
			yyjson_mut_obj_put(base, yyjson_mut_val_mut_copy(doc, k), yyjson_mut_val_mut_copy(doc, v));
	}
}

/* ---- paths ---- */

struct step {
	char *name;
	int is_index; /* [name]: of a list (or a member, when it was quoted) */
	int is_quoted;
};

struct path {
	struct step *steps;
	size_t n, cap;
	const char *value; /* behind '=' */
};

static void path_release(struct path *p)
{
	for (size_t i = 0; i < p->n; i++)
		free(p->steps[i].name);
	free(p->steps);
}

static void add_step(struct path *p, struct buf *name, int is_index, int is_quoted)
{
	MEM_GROW(p->steps, p->cap, p->n + 1);
	p->steps[p->n++] = (struct step){xstrdup(buf_str(name)), is_index, is_quoted};
	buf_reset(name);
}

/* "[...]" from behind the bracket; the place behind "]", NULL where it does not end. */
static const char *read_index(struct path *p, const char *s, struct buf *name)
{
	int quoted = *s == '"';

	for (s += quoted; *s && *s != (quoted ? '"' : ']'); s++) {
		if (quoted && *s == '\\' && s[1])
			s++;
		buf_addc(name, *s);
	}
	s += quoted && *s;
	if (*s != ']' || !name->len)
		return NULL;
	add_step(p, name, 1, quoted);
	return s + 1;
}

static int read_path(struct path *p, const char *assignment, struct err *err)
{
	const char *s = assignment;
	struct buf name = {0};
	int ok = 1;

	while (ok && *s && *s != '=') {
		if (*s == '[') {
			s = read_index(p, s + 1, &name);
			ok = s != NULL;
		} else {
			for (; *s && !strchr(".[=", *s); s++) {
				if (*s == '\\' && s[1])
					s++;
				buf_addc(&name, *s);
			}
			ok = name.len > 0;
			if (ok)
				add_step(p, &name, 0, 0);
		}
		if (ok && *s == '.') {
			s++;
			ok = *s && *s != '.' && *s != '=';
		} else if (ok) {
			ok = !*s || *s == '[' || *s == '=';
		}
	}
	buf_release(&name);
	if (!ok || !p->n || *s != '=')
		return err_set(err, ERR_USAGE, "'%s' is not PATH=VALUE, such as spec.ttlSecondsAfterFinished=600", assignment);
	p->value = s + 1;
	return 0;
}

static void add_path(struct buf *out, const struct path *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		buf_addf(out, p->steps[i].is_index ? "[%s]" : i ? ".%s" : "%s", p->steps[i].name);
}

static int misfit(const struct path *p, size_t n, const char *what, struct err *err)
{
	struct buf b = {0};

	add_path(&b, p, n);
	err_set(err, ERR_USAGE, "%s %s", buf_str(&b), what);
	buf_release(&b);
	return -1;
}

/* Where a step of a list leads: 0 and *at (its length for a new element), -1. */
static int find_element(yyjson_mut_val *list, const char *name, size_t *at)
{
	size_t n = yyjson_mut_arr_size(list), i, max;
	yyjson_mut_val *v;
	char *end;
	unsigned long long number;

	if (strcmp(name, "-") == 0) {
		*at = n;
		return 0;
	}
	number = strtoull(name, &end, 10);
	if (*name >= '0' && *name <= '9' && !*end) {
		*at = (size_t)number;
		return number < n ? 0 : -1;
	}
	yyjson_mut_arr_foreach(list, i, max, v)
	{
		if (yyjson_mut_equals_str(yyjson_mut_obj_get(v, "name"), name)) {
			*at = i;
			return 0;
		}
	}
	return -1;
}

/* What a step that is to be made first must be: the next one says. */
static yyjson_mut_val *new_container(yyjson_mut_doc *doc, const struct path *p, size_t next)
{
	return p->steps[next].is_index && !p->steps[next].is_quoted ? yyjson_mut_arr(doc) : yyjson_mut_obj(doc);
}

/* The child of `v` by step i, made where it is missing (unless the value would only be removed: then NULL without an error). */
static yyjson_mut_val *descend(yyjson_mut_doc *doc, const struct path *p, size_t i, yyjson_mut_val *v, int removes,
                               struct err *err)
{
	const struct step *s = &p->steps[i];
	yyjson_mut_val *child;
	size_t at;

	if (yyjson_mut_is_arr(v)) {
		if (!s->is_index || find_element(v, s->name, &at) < 0) {
			misfit(p, i, s->is_index ? "is a list that has no such element" : "is a list: say which element, as [0] or [NAME]",
			       err);
			return NULL;
		}
		if (at == yyjson_mut_arr_size(v)) {
			if (removes)
				return NULL;
			yyjson_mut_arr_append(v, new_container(doc, p, i + 1));
		}
		return yyjson_mut_arr_get(v, at);
	}
	if (!yyjson_mut_is_obj(v) || (s->is_index && !s->is_quoted)) {
		misfit(p, i, yyjson_mut_is_obj(v) ? "is an object, not a list" : "is neither an object nor a list", err);
		return NULL;
	}
	child = yyjson_mut_obj_get(v, s->name);
	if ((!child || yyjson_mut_is_null(child)) && !removes) {
		child = new_container(doc, p, i + 1);
		yyjson_mut_obj_put(v, yyjson_mut_strcpy(doc, s->name), child);
	}
	return child;
}

static int assign(yyjson_mut_doc *doc, const struct path *p, yyjson_mut_val *v, yyjson_mut_val *value, struct err *err)
{
	const struct step *s = &p->steps[p->n - 1];
	int removes = yyjson_mut_is_null(value);
	size_t at;

	if (yyjson_mut_is_arr(v)) {
		if (!s->is_index || find_element(v, s->name, &at) < 0)
			return misfit(p, p->n - 1,
			              s->is_index ? "is a list that has no such element" : "is a list: say which element, as [0] or [NAME]",
			              err);
		if (at == yyjson_mut_arr_size(v)) {
			if (!removes)
				yyjson_mut_arr_append(v, value);
		} else if (removes) {
			yyjson_mut_arr_remove(v, at);
		} else {
			yyjson_mut_arr_replace(v, at, value);
		}
		return 0;
	}
	if (!yyjson_mut_is_obj(v) || (s->is_index && !s->is_quoted))
		return misfit(p, p->n - 1, yyjson_mut_is_obj(v) ? "is an object, not a list" : "is neither an object nor a list", err);
	if (removes)
		yyjson_mut_obj_remove_key(v, s->name);
	else
		yyjson_mut_obj_put(v, yyjson_mut_strcpy(doc, s->name), value);
	return 0;
}

/* JSON where it is JSON, else text. */
static yyjson_mut_val *read_value(yyjson_mut_doc *doc, const char *text)
{
	struct err ignored = {0};
	yyjson_doc *json = *text ? json_parse(text, strlen(text), ERR_USAGE, &ignored) : NULL;
	yyjson_mut_val *v = json ? yyjson_val_mut_copy(doc, yyjson_doc_get_root(json)) : yyjson_mut_strcpy(doc, text);

	yyjson_doc_free(json);
	return v;
}

int json_edit_set(yyjson_mut_doc *doc, const char *assignment, struct err *err)
{
	struct path p = {0};
	yyjson_mut_val *v = yyjson_mut_doc_get_root(doc), *value;
	int rc = read_path(&p, assignment, err);

	if (rc == 0) {
		value = read_value(doc, p.value);
		for (size_t i = 0; i + 1 < p.n && v; i++)
			v = descend(doc, &p, i, v, yyjson_mut_is_null(value), err);
		if (v)
			rc = assign(doc, &p, v, value, err);
		else
			rc = err->code ? -1 : 0;
	}
	path_release(&p);
	return rc;
}
