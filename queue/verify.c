/* verify.c: are the merged files what the plan and the committed records say? Everything is read again and compared byte by byte; where a
 * line is not the expected one, its custom_id tells what happened: a row is missing, stands twice, was altered, or is nobody's. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "queue/job_private.h"
#include "queue/lines.h"

struct merged_lines {
	const char *name;
	struct line_reader *reader;
	const char *line; /* the next one that no row has claimed; NULL at the end */
	size_t n;
};

static int advance(struct merged_lines *m, struct err *err)
{
	int rc = line_reader_next(m->reader, &m->line, &m->n, err);

	if (rc != 1)
		m->line = NULL;
	return rc < 0 ? -1 : 0;
}

/* The row whose key a line carries: its number, -1 when there is none. */
static int64_t row_of_line(struct job *j, const struct merged_lines *m, struct buf *key)
{
	struct err ignored = {0};
	yyjson_doc *doc = m->line ? json_parse(m->line, m->n, ERR_STORAGE, &ignored) : NULL;
	yyjson_val *id = yyjson_obj_get(yyjson_doc_get_root(doc), "custom_id");
	struct database *plan = job_plan_db(j, &ignored);
	sqlite3_stmt *s = NULL;
	int64_t row = -1;

	buf_reset(key);
	if (plan && yyjson_is_str(id)) {
		buf_add(key, yyjson_get_str(id), yyjson_get_len(id));
		s = database_prepare(plan, "SELECT row FROM row WHERE key=?", &ignored);
		if (s) {
			sqlite3_bind_text64(s, 1, key->data, key->len, SQLITE_STATIC, SQLITE_UTF8);
			if (database_step(plan, s, &ignored) == 1)
				row = sqlite3_column_int64(s, 0);
		}
	}
	sqlite3_finalize(s);
	yyjson_doc_free(doc);
	return row;
}

/* A line that no expected row claims. row: the first row not yet seen. */
static int explain_line(struct job *j, const struct merged_lines *m, int64_t row, struct err *err)
{
	struct buf key = {0};
	int64_t found = row_of_line(j, m, &key);

	if (found >= 0 && found < row)
		err_set(err, ERR_STORAGE, "%s:%" PRId64 ": row %" PRId64 " (key \"%.200s\") stands there a second time", m->name,
		        line_reader_number(m->reader), found, key.data);
	else
		err_set(err, ERR_STORAGE, "%s:%" PRId64 ": a record that belongs to no row of the input (key \"%.200s\")", m->name,
		        line_reader_number(m->reader), buf_str(&key));
	buf_release(&key);
	return -1;
}

/* The line that should be next in `m` is another one. */
static int explain_difference(struct job *j, const struct ledger *l, const struct merged_lines *m, struct err *err)
{
	struct buf key = {0};
	int64_t row = m->line ? row_of_line(j, m, &key) : INT64_MAX;
	int same_key = key.len == l->plan.n_key && (key.len == 0 || memcmp(key.data, l->plan.key, key.len) == 0);

	buf_release(&key);
	if (m->line && row < 0 && !l->plan.error) {
		/* No row's key. If the rest of the line is right it was altered there; either way the line is named. */
		ledger_fail(l, err, ERR_STORAGE, "is altered or missing");
		return err_context(err, "%s:%" PRId64, m->name, line_reader_number(m->reader));
	}
	if (m->line && (same_key || row == l->plan.row || row < 0)) {
		ledger_fail(l, err, ERR_STORAGE, "is altered");
		return err_context(err, "%s:%" PRId64, m->name, line_reader_number(m->reader));
	}
	if (m->line && row < l->plan.row)
		return explain_line(j, m, l->plan.row, err);
	ledger_fail(l, err, ERR_STORAGE, "is missing");
	return err_context(err, "%s", m->name);
}

static int check_file(yyjson_val *manifest, struct merged_lines *m, struct err *err)
{
	yyjson_val *v = yyjson_obj_get(yyjson_obj_get(manifest, "files"), m->name);
	char hex[SHA256_HEX_BYTES];
	int64_t n_bytes;

	line_reader_sum(m->reader, &n_bytes, hex);
	if (yyjson_get_sint(yyjson_obj_get(v, "bytes")) != n_bytes || yyjson_get_sint(yyjson_obj_get(v, "lines")) != line_reader_number(m->reader) ||
	    !yyjson_equals_str(yyjson_obj_get(v, "sha256"), hex))
		return err_set(err, ERR_STORAGE, "manifest.json: does not describe %s (%" PRId64 " bytes, SHA-256 %s)", m->name, n_bytes, hex);
	return 0;
}

/* usage.json: the counts are the ledger's; the file is the manifest's. */
static int check_usage(struct job *j, const struct ledger *l, yyjson_val *manifest, struct err *err)
{
	struct buf text = {0}, ours = {0};
	yyjson_val *v = yyjson_obj_get(yyjson_obj_get(manifest, "files"), "usage.json");
	char hex[SHA256_HEX_BYTES];
	int rc = store_get(j->store, "merged/usage.json", (size_t)64 << 20, &text, err);

	if (rc == 0)
		rc = err_set(err, ERR_STORAGE, "merged/usage.json: is missing");
	else if (rc == 1)
		rc = usage_write(&ours, l, NULL, err);
	/* Ours ends in "}\n"; what follows there is what the caller of job_merge had added. */
	if (rc == 0 && (text.len < ours.len || memcmp(text.data, ours.data, ours.len - 2) != 0))
		rc = err_set(err, ERR_STORAGE, "usage.json: is not the sum over the records, which is %.*s}", (int)(ours.len - 2), ours.data);
	sha256_hex(buf_str(&text), text.len, hex);
	if (rc == 0 && !yyjson_equals_str(yyjson_obj_get(v, "sha256"), hex))
		rc = err_set(err, ERR_STORAGE, "manifest.json: does not describe usage.json (SHA-256 %s)", hex);
	buf_release(&text);
	buf_release(&ours);
	return rc;
}

/* What people open, JOB/results.jsonl, is a link to the merged file. A program that replaces it (sed -i) leaves another file there, and a
 * copied job may have plain copies: those must hold the same bytes. */
static int check_shown(struct job *j, yyjson_val *manifest, const char *name, struct err *err)
{
	char *shown = path_format("%s/%s", store_dir(j->store), name), *merged = path_format("%s/merged/%s", store_dir(j->store), name);
	struct line_reader *reader = NULL;
	struct stat a, b;
	const char *line;
	size_t n;
	char hex[SHA256_HEX_BYTES];
	int64_t n_bytes;
	int rc = 0;

	if (stat(shown, &a) < 0) {
		rc = errno == ENOENT ? err_set(err, ERR_STORAGE, "%s: is missing; `merge` puts it back", shown)
		                     : err_sys(err, ERR_STORAGE, "%s", shown);
	} else if (stat(merged, &b) < 0) {
		rc = err_sys(err, ERR_STORAGE, "%s", merged);
	} else if (a.st_dev != b.st_dev || a.st_ino != b.st_ino) {
		reader = line_reader_open(shown, LINES_PLAIN, err);
		rc = reader ? 1 : -1;
		while (rc == 1)
			rc = line_reader_next(reader, &line, &n, err);
		if (rc == 0) {
			line_reader_sum(reader, &n_bytes, hex);
			if (!yyjson_equals_str(yyjson_obj_get(yyjson_obj_get(yyjson_obj_get(manifest, "files"), name), "sha256"), hex))
				rc = err_set(err, ERR_STORAGE, "%s: is not what was merged, which is %s; remove it, and `merge` puts it back",
				             shown, merged);
		}
	}
	line_reader_close(reader);
	free(shown);
	free(merged);
	return rc;
}

static int compare(struct job *j, struct ledger *l, struct merged_lines m[2], yyjson_val *manifest, struct err *err)
{
	char root[SHA256_HEX_BYTES];
	int rc;

	for (int i = 0; i < 2; i++)
		if (advance(&m[i], err) < 0)
			return -1;
	while ((rc = ledger_next(l, err)) == 1) {
		struct merged_lines *at = &m[l->is_error != 0];

		if (!at->line || at->n != l->n_line || memcmp(at->line, l->line, l->n_line) != 0)
			return explain_difference(j, l, at, err);
		if (advance(at, err) < 0)
			return -1;
	}
	if (rc < 0)
		return -1;
	for (int i = 0; i < 2; i++)
		if (m[i].line)
			return explain_line(j, &m[i], j->n_rows, err);
	ledger_root(l, root);
	if (!yyjson_equals_str(yyjson_obj_get(manifest, "root"), root))
		return err_set(err, ERR_STORAGE, "manifest.json: its root is not that of the records, which is %s", root);
	if (check_file(manifest, &m[0], err) < 0 || check_file(manifest, &m[1], err) < 0)
		return -1;
	if (check_usage(j, l, manifest, err) < 0)
		return -1;
	if (!store_dir(j->store))
		return 0;
	return check_shown(j, manifest, "results.jsonl", err) < 0 || check_shown(j, manifest, "errors.jsonl", err) < 0 ||
	                       check_shown(j, manifest, "usage.json", err) < 0
	               ? -1
	               : 0;
}

/* Room for the sort: in the job, where there is space for what is as large as the results; a job that we may only read is verified with the
 * system's directory for temporary files. *spill is malloc'd. */
static int find_room(struct job *j, struct workplace *w, char **spill, struct err *err)
{
	struct err refused = {0};
	const char *tmp = getenv("TMPDIR");

	if (workplace_open(w, j, "verifying", &refused) == 0) {
		*spill = path_format("%s/results.spill", w->dir);
		return 0;
	}
	if (!store_dir(j->store) || access(store_dir(j->store), W_OK) == 0)
		return err_set(err, refused.code, "%s", refused.msg);
	*spill = path_format("%s/tokenmill-verify-%ld-%lld.spill", tmp && *tmp ? tmp : "/tmp", (long)getpid(), (long long)clock_unix_ms());
	return 0;
}

static yyjson_doc *read_manifest(struct job *j, struct err *err)
{
	struct buf text = {0};
	yyjson_doc *doc = NULL;
	char *full = store_name(j->store, "merged/manifest.json");
	int rc = store_get(j->store, "merged/manifest.json", (size_t)64 << 20, &text, err);

	if (rc == 0)
		err_set(err, ERR_STORAGE, "%s: is missing: the job is not merged", full);
	else if (rc == 1 && !(doc = json_parse(buf_str(&text), text.len, ERR_STORAGE, err)))
		err_context(err, "%s", full);
	free(full);
	buf_release(&text);
	return doc;
}

int job_verify(struct job *j, struct err *err)
{
	struct merged_lines m[2] = {{.name = "results.jsonl"}, {.name = "errors.jsonl"}};
	struct store_file files[2] = {0};
	yyjson_doc *manifest = read_manifest(j, err);
	struct workplace w = {0};
	struct ledger l = {0};
	char *path = NULL;
	int rc = manifest ? 0 : -1;

	for (int i = 0; i < 2 && rc == 0; i++) {
		char *name = path_format("merged/%s", m[i].name);

		rc = store_fetch(j->store, name, &files[i], err);
		if (rc == 0)
			err_set(err, ERR_STORAGE, "%s/%s: is missing", store_place(j->store), name);
		else if (rc == 1)
			m[i].reader = line_reader_open(files[i].path, LINES_PLAIN, err);
		free(name);
		rc = m[i].reader ? 0 : -1;
	}
	if (rc == 0)
		rc = find_room(j, &w, &path, err);
	if (rc == 0)
		rc = ledger_open(&l, j, path, err);
	free(path);
	if (rc == 0)
		rc = compare(j, &l, m, yyjson_doc_get_root(manifest), err);
	ledger_close(&l);
	workplace_close(&w);
	for (int i = 0; i < 2; i++) {
		line_reader_close(m[i].reader);
		store_file_release(&files[i]);
	}
	yyjson_doc_free(manifest);
	return rc < 0 ? err_context(err, "verify") : 0;
}
