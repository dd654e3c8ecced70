/* job.c: opening a planned job, what it says of itself, and events. */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/mem.h"
#include "queue/job_private.h"
#include "queue/schema.h"

char *job_path(const struct job *j, const char *name)
{
	return path_format("%s/%s", j->dir, name);
}

char *job_shard_dir(const struct job *j, int64_t shard)
{
	return path_format("%s/shards/%05" PRId64, j->dir, shard);
}

void sha256_bytes(const void *p, size_t n, unsigned char out[32])
{
	char hex[SHA256_HEX_BYTES];

	sha256_hex(p, n, hex);
	for (int i = 0; i < 32; i++) {
		int high = hex[2 * i], low = hex[2 * i + 1];

		out[i] = (unsigned char)((high <= '9' ? high - '0' : high - 'a' + 10) << 4 | (low <= '9' ? low - '0' : low - 'a' + 10));
	}
}

int job_is_planned(const char *dir)
{
	char *path = path_format("%s/job.json", dir);
	int is = file_exists(path);

	free(path);
	return is;
}

static int get_count(yyjson_val *root, const char *name, int64_t *out, struct err *err)
{
	yyjson_val *v = yyjson_obj_get(root, name);

	if (!yyjson_is_int(v) || yyjson_get_sint(v) < 0)
		return err_set(err, ERR_STORAGE, "\"%s\" is %s, expected a count", name, json_type_name(v));
	*out = yyjson_get_sint(v);
	return 0;
}

static int parse_job_json(struct job *j, const char *text, size_t n, struct err *err)
{
	static const char mark[] = ",\"spec\":";
	yyjson_doc *doc = json_parse(text, n, ERR_STORAGE, err);
	yyjson_val *root = yyjson_doc_get_root(doc), *id, *spec;
	const char *raw;
	int64_t format;
	int rc = -1;

	if (!doc || get_count(root, "format", &format, err) < 0)
		goto out;
	if (format != JOB_FORMAT) {
		err_set(err, ERR_STORAGE, "format %" PRId64 ", this program knows %d", format, JOB_FORMAT);
		goto out;
	}
	id = yyjson_obj_get(root, "plan_id");
	spec = yyjson_obj_get(root, "spec");
	if (!yyjson_is_str(id) || yyjson_get_len(id) != sizeof(j->plan_id) - 1 || !yyjson_is_obj(spec)) {
		err_set(err, ERR_STORAGE, "no \"plan_id\" or no \"spec\"");
		goto out;
	}
	memcpy(j->plan_id, yyjson_get_str(id), sizeof(j->plan_id));
	if (get_count(root, "rows", &j->n_rows, err) < 0 || get_count(root, "bad_rows", &j->n_bad_rows, err) < 0 ||
	    get_count(root, "shards", &j->n_shards, err) < 0)
		goto out;
	/* The planner's spec is the last member and stands there byte for byte; what was edited since is written anew. */
	raw = memmem(text, n, mark, sizeof(mark) - 1);
	if (raw && n > 2 && memcmp(text + n - 2, "}\n", 2) == 0) {
		raw += sizeof(mark) - 1;
		j->spec = xmemdup(raw, (size_t)(text + n - 2 - raw));
	} else {
		struct buf b = {0};

		json_write(&b, spec);
		j->spec = buf_detach(&b);
	}
	rc = 0;
out:
	yyjson_doc_free(doc);
	return rc;
}

static int read_shards(struct job *j, struct err *err)
{
	sqlite3_stmt *s = database_prepare(&j->plan, "SELECT shard, n_rows, n_input_bytes FROM shard ORDER BY shard", err);
	int64_t n = 0;
	int rc = s ? 1 : -1;

	j->shards = xcalloc((size_t)j->n_shards, sizeof(*j->shards));
	while (rc > 0 && (rc = database_step(&j->plan, s, err)) == 1) {
		if (n == j->n_shards || sqlite3_column_int64(s, 0) != n)
			break;
		j->shards[n].n_rows = sqlite3_column_int64(s, 1);
		j->shards[n].n_input_bytes = sqlite3_column_int64(s, 2);
		n++;
	}
	sqlite3_finalize(s);
	if (rc >= 0 && (rc == 1 || n != j->n_shards))
		return err_set(err, ERR_STORAGE, "%s: its shards are not the %" PRId64 " that job.json tells of", j->plan.name, j->n_shards);
	return rc;
}

static int check_plan_id(struct job *j, struct err *err)
{
	sqlite3_stmt *s = database_prepare(&j->plan, "SELECT plan_id FROM meta", err);
	int rc = s ? database_step(&j->plan, s, err) : -1;
	const char *id = rc == 1 ? (const char *)sqlite3_column_text(s, 0) : NULL;

	if (rc >= 0 && (!id || strcmp(id, j->plan_id) != 0))
		rc = err_set(err, ERR_STORAGE, "%s: belongs to another plan than job.json", j->plan.name);
	sqlite3_finalize(s);
	return rc < 0 ? -1 : 0;
}

struct job *job_open(const char *dir, struct err *err)
{
	struct job *j = xcalloc(1, sizeof(*j));
	struct buf text = {0};
	char *path;

	j->dir = xstrdup(dir);
	path = job_path(j, "job.json");
	if (access(path, F_OK) < 0 && (errno == ENOENT || errno == ENOTDIR)) {
		err_set(err, ERR_USAGE, "%s is not a job directory: there is no %s", dir, path);
		goto fail;
	}
	if (file_read(path, (size_t)64 << 20, &text, ERR_STORAGE, err) < 0)
		goto fail;
	if (parse_job_json(j, buf_str(&text), text.len, err) < 0) {
		err_context(err, "%s", path);
		goto fail;
	}
	free(path);
	path = job_path(j, "plan.db");
	if (database_open_immutable(&j->plan, path, PLAN_APPLICATION_ID, err) < 0 || check_plan_id(j, err) < 0 || read_shards(j, err) < 0)
		goto fail;
	free(path);
	buf_release(&text);
	return j;
fail:
	free(path);
	buf_release(&text);
	job_close(j);
	return NULL;
}

void job_close(struct job *j)
{
	if (!j)
		return;
	if (j->open)
		BUG("job closed while a shard is open");
	database_close(&j->plan);
	pick_free(j->pick);
	free(j->shards);
	free(j->spec);
	free(j->dir);
	free(j);
}

const char *job_spec(const struct job *j)
{
	return j->spec;
}

int64_t job_n_rows(const struct job *j)
{
	return j->n_rows;
}

int64_t job_n_bad_rows(const struct job *j)
{
	return j->n_bad_rows;
}

int64_t job_n_shards(const struct job *j)
{
	return j->n_shards;
}

/* Rows with a result in any segment of a shard that is not marked done. */
static int count_done(const char *dir, const struct shard_listing *l, int64_t *count, struct err *err)
{
	struct row_map rows = {0};
	int rc = 0;

	for (size_t i = 0; i < l->n_segments && rc == 0; i++) {
		char *path = segment_path(dir, l->segments[i].epoch, l->segments[i].sequence);
		struct segment_reader *r = segment_reader_open(path, err);
		int64_t row;

		free(path);
		rc = r ? 0 : -1;
		while (r && (rc = segment_reader_next_done(r, &row, err)) == 1)
			row_map_put(&rows, row);
		segment_reader_close(r);
	}
	*count += (int64_t)rows.n;
	row_map_release(&rows);
	return rc;
}

int64_t job_n_done_rows(struct job *j, struct err *err)
{
	int64_t n = 0;

	for (int64_t i = 0; i < j->n_shards; i++) {
		char *dir = job_shard_dir(j, i);
		struct shard_listing l = {0};
		int rc = j->shards[i].is_done ? 0 : shard_listing_read(&l, dir, err);

		j->shards[i].is_done |= l.is_done;
		if (rc == 0 && j->shards[i].is_done)
			n += j->shards[i].n_rows;
		else if (rc == 0)
			rc = count_done(dir, &l, &n, err);
		shard_listing_release(&l);
		free(dir);
		if (rc < 0)
			return -1;
	}
	return n;
}

int job_all_done(struct job *j, struct err *err)
{
	for (int64_t i = 0; i < j->n_shards; i++) {
		char *dir, *path;

		if (j->shards[i].is_done)
			continue;
		dir = job_shard_dir(j, i);
		path = path_format("%s/done", dir);
		j->shards[i].is_done = file_exists(path);
		free(path);
		if (!j->shards[i].is_done && !file_is_dir(dir)) {
			err_set(err, ERR_STORAGE, "%s: is missing", dir);
			free(dir);
			return -1;
		}
		free(dir);
		if (!j->shards[i].is_done)
			return 0;
	}
	return 1;
}

int job_event(struct job *j, const struct job_worker *w, const char *name, const char *json, struct err *err)
{
	char *dir = job_path(j, "events"), *path;
	struct buf file = {0};
	int rc;

	buf_addf(&file, "%04d-%s-%s", w->index, w->attempt, name);
	for (char *s = file.data; *s; s++)
		if (!isalnum((unsigned char)*s) && !strchr("-_.", *s))
			*s = '_';
	path = path_format("%s/%s.json", dir, file.data);
	rc = file_make_dirs(dir, err);
	if (rc == 0)
		rc = file_write_atomic(path, json, strlen(json), err);
	free(dir);
	free(path);
	buf_release(&file);
	return rc;
}
