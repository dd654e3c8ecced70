/* attempt.c: attempts as JSON files. */
#include "queue/attempt.h"

#include <ctype.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "queue/layout.h"

/* The members, in the order in which they are written. */
enum kind { KIND_TEXT, KIND_INT, KIND_NUMBER };
static const struct {
	const char *name;
	enum kind kind;
	size_t offset, cap;
} members[] = {
#define TEXT(field) {#field, KIND_TEXT, offsetof(struct attempt, field), sizeof(((struct attempt *)0)->field)}
#define INT(field) {#field, KIND_INT, offsetof(struct attempt, field), 0}
#define NUMBER(field) {#field, KIND_NUMBER, offsetof(struct attempt, field), 0}
    TEXT(host),          INT(pid),           TEXT(job_uid),        TEXT(node_type),         TEXT(program),
    INT(beat),           INT(started_unix_ms), INT(updated_unix_ms), NUMBER(wall_s),        NUMBER(load_s),
    NUMBER(busy_s),      NUMBER(publish_s),  INT(rows),            INT(rows_failed),        INT(prompt_tokens),
    INT(cached_tokens),  INT(output_tokens), INT(reasoning_tokens), INT(recomputed_tokens), INT(in_flight),
    INT(peak_bytes),     NUMBER(spent_usd),  NUMBER(ceiling_usd),  TEXT(end_code),          TEXT(end),
};
#define N_MEMBERS (sizeof(members) / sizeof(members[0]))

/* What an id may hold beside letters, digits and -_. becomes _. */
static char *name_of(const char *dir, int worker, const char *id, const char *suffix)
{
	char *clean = xstrdup(id), *name;

	for (char *s = clean; *s; s++)
		if (!isalnum((unsigned char)*s) && !strchr("-_.", *s))
			*s = '_';
	name = path_format("%s%04d-%s.%s", dir, worker, clean, suffix);
	free(clean);
	return name;
}

char *attempt_file_name(int worker, const char *id)
{
	return name_of("", worker, id, "json");
}

char *attempt_crash_name(int worker, const char *id)
{
	return name_of("events/", worker, id, "crash");
}

int attempt_write(struct store *s, const struct attempt *a, struct err *err)
{
	struct buf b = {0};
	char *file = attempt_file_name(a->worker, a->id), *name = path_format("events/%s", file);
	int rc;

	buf_adds(&b, "{\"format\":1,\"attempt\":");
	json_write_string(&b, a->id, strlen(a->id));
	buf_addf(&b, ",\"worker\":%d,\"state\":\"%s\"", a->worker, a->state == ATTEMPT_ENDED ? "ended" : "running");
	for (size_t i = 0; i < N_MEMBERS; i++) {
		const void *field = (const char *)a + members[i].offset;

		buf_addf(&b, ",\"%s\":", members[i].name);
		if (members[i].kind == KIND_TEXT)
			json_write_string(&b, field, strlen(field));
		else if (members[i].kind == KIND_INT)
			buf_addf(&b, "%" PRId64, *(const int64_t *)field);
		else
			buf_addf(&b, "%.6f", *(const double *)field);
	}
	buf_adds(&b, "}\n");
	rc = store_put(s, name, b.data, b.len, err);
	buf_release(&b);
	free(name);
	free(file);
	return rc;
}

static int copy_text(char *out, size_t cap, yyjson_val *v, const char *name, struct err *err)
{
	size_t n = yyjson_get_len(v);

	if (!yyjson_is_str(v))
		return err_set(err, ERR_STORAGE, "not an attempt: \"%s\" is %s, expected a string", name, json_type_name(v));
	if (n >= cap)
		n = cap - 1;
	memcpy(out, yyjson_get_str(v), n);
	out[n] = '\0';
	return 0;
}

static int read_members(yyjson_val *root, struct attempt *a, struct err *err)
{
	yyjson_val *worker = yyjson_obj_get(root, "worker"), *state = yyjson_obj_get(root, "state");

	if (copy_text(a->id, sizeof(a->id), yyjson_obj_get(root, "attempt"), "attempt", err) < 0)
		return -1;
	if (!yyjson_is_int(worker) || !yyjson_is_str(state))
		return err_set(err, ERR_STORAGE, "not an attempt: \"worker\" is %s, \"state\" is %s", json_type_name(worker), json_type_name(state));
	a->worker = (int)yyjson_get_sint(worker);
	a->state = yyjson_equals_str(state, "ended") ? ATTEMPT_ENDED : ATTEMPT_RUNNING;
	for (size_t i = 0; i < N_MEMBERS; i++) {
		yyjson_val *v = yyjson_obj_get(root, members[i].name);
		void *field = (char *)a + members[i].offset;

		if (members[i].kind == KIND_TEXT) {
			if (copy_text(field, members[i].cap, v, members[i].name, err) < 0)
				return -1;
		} else if (!yyjson_is_num(v) || (members[i].kind == KIND_INT && !yyjson_is_int(v))) {
			return err_set(err, ERR_STORAGE, "not an attempt: \"%s\" is %s, expected a number", members[i].name, json_type_name(v));
		} else if (members[i].kind == KIND_INT) {
			*(int64_t *)field = yyjson_get_sint(v);
		} else {
			*(double *)field = yyjson_get_num(v);
		}
	}
	return 0;
}

int attempt_parse(const char *text, size_t n, struct attempt *a, struct err *err)
{
	yyjson_doc *doc = json_parse(text, n, ERR_STORAGE, err);
	int rc = -1;

	*a = (struct attempt){0};
	if (doc)
		rc = read_members(yyjson_doc_get_root(doc), a, err);
	yyjson_doc_free(doc);
	return rc;
}

int attempt_read(struct store *s, const char *name, struct attempt *a, struct err *err)
{
	char *path = path_format("events/%s", name);
	struct buf b = {0};
	int rc = store_get(s, path, 65536, &b, err);

	if (rc == 1 && attempt_parse(buf_str(&b), b.len, a, err) < 0)
		rc = err_context(err, "%s/%s", store_place(s), path);
	buf_release(&b);
	free(path);
	return rc;
}

int attempt_read_all(struct store *s, struct attempt **list, size_t *n, struct err *err)
{
	char **names;
	size_t n_names, cap = 0;
	int rc = store_list(s, "events", &names, &n_names, err);

	*list = NULL;
	*n = 0;
	for (size_t i = 0; i < n_names && rc == 0; i++) {
		size_t length = strlen(names[i]);

		if (length < 5 || strcmp(names[i] + length - 5, ".json") != 0)
			continue;
		MEM_GROW(*list, cap, *n + 1);
		rc = attempt_read(s, names[i], &(*list)[*n], err);
		if (rc == 1)
			(*n)++;
		rc = rc < 0 ? -1 : 0;
	}
	store_names_free(names, n_names);
	if (rc < 0) {
		free(*list);
		*list = NULL;
		*n = 0;
	}
	return rc;
}
