/* segment.c: segments, gathered in memory and written in one piece.
 *
 * The segment is built as a database in memory and its image is written with one write(2), one fsync and one rename: the shared file system
 * never sees SQLite's own reads and writes. Pages of 16 KiB: lines of one to four KB waste a few per cent of them, of 4 KiB a
 * quarter. Lines are not compressed: the sqlite3 shell should read them. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "queue/job_private.h"
#include "queue/schema.h"

/* SQLite itself gives up before that; nobody makes such a segment. */
#define SEGMENT_MAX_BYTES ((size_t)4 << 30)

struct segment_writer {
	struct database db;
	sqlite3_stmt *add_result, *add_partial, *drop_partial;
	int64_t n_results, n_partials;
	size_t n_bytes;
};

/* A database in memory fails only when memory is out or our SQL is wrong. */
static void must(struct database *d, int ok)
{
	if (!ok)
		BUG("segment in memory: %s", sqlite3_errmsg(d->db));
}

static void writer_open(struct segment_writer *w)
{
	struct err err = {0};

	w->n_results = w->n_partials = 0;
	w->n_bytes = 0;
	if (database_create(&w->db, NULL, 16384, SEGMENT_APPLICATION_ID, SEGMENT_SCHEMA "BEGIN", &err) < 0)
		BUG("%s", err.msg);
	w->add_result = database_prepare(&w->db, "INSERT INTO result VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?)", &err);
	w->add_partial = database_prepare(&w->db, "INSERT OR REPLACE INTO partial VALUES(?,?)", &err);
	w->drop_partial = database_prepare(&w->db, "DELETE FROM partial WHERE row=?", &err);
	must(&w->db, w->add_result && w->add_partial && w->drop_partial);
}

static void writer_close(struct segment_writer *w)
{
	sqlite3_finalize(w->add_result);
	sqlite3_finalize(w->add_partial);
	sqlite3_finalize(w->drop_partial);
	database_close(&w->db);
}

struct segment_writer *segment_writer_new(void)
{
	struct segment_writer *w = xcalloc(1, sizeof(*w));

	writer_open(w);
	return w;
}

void segment_writer_free(struct segment_writer *w)
{
	if (!w)
		return;
	writer_close(w);
	free(w);
}

static int64_t line_hash(int64_t row, const void *line, size_t n)
{
	return (int64_t)hash64(line, n, (uint64_t)row);
}

void segment_writer_add_result(struct segment_writer *w, const struct row_result *r)
{
	sqlite3_stmt *s = w->add_result;

	sqlite3_bind_int64(s, 1, r->row);
	sqlite3_bind_int(s, 2, r->is_error != 0);
	sqlite3_bind_text64(s, 3, r->line, r->n_line, SQLITE_STATIC, SQLITE_UTF8);
	sqlite3_bind_int64(s, 4, line_hash(r->row, r->line, r->n_line));
	sqlite3_bind_int64(s, 5, r->prompt_tokens);
	sqlite3_bind_int64(s, 6, r->cached_tokens);
	sqlite3_bind_int64(s, 7, r->output_tokens);
	sqlite3_bind_int64(s, 8, r->reasoning_tokens);
	sqlite3_bind_int64(s, 9, r->recomputed_tokens);
	sqlite3_bind_double(s, 10, r->wait_s);
	sqlite3_bind_double(s, 11, r->prefill_s);
	sqlite3_bind_double(s, 12, r->decode_s);
	sqlite3_bind_int64(s, 13, r->finished_ms);
	must(&w->db, sqlite3_step(s) == SQLITE_DONE);
	sqlite3_reset(s);
	w->n_results++;
	w->n_bytes += r->n_line + 100; /* a row's figures, and its place in the index */
	if (w->n_partials == 0)
		return;
	sqlite3_bind_int64(w->drop_partial, 1, r->row);
	must(&w->db, sqlite3_step(w->drop_partial) == SQLITE_DONE);
	sqlite3_reset(w->drop_partial);
	w->n_partials -= sqlite3_changes(w->db.db);
}

void segment_writer_add_partial(struct segment_writer *w, int64_t row, const void *state, size_t n)
{
	int64_t before = sqlite3_total_changes64(w->db.db);

	sqlite3_bind_int64(w->drop_partial, 1, row);
	must(&w->db, sqlite3_step(w->drop_partial) == SQLITE_DONE);
	sqlite3_reset(w->drop_partial);
	w->n_partials -= sqlite3_total_changes64(w->db.db) - before;
	sqlite3_bind_int64(w->add_partial, 1, row);
	sqlite3_bind_blob64(w->add_partial, 2, n ? state : "", n, SQLITE_STATIC);
	must(&w->db, sqlite3_step(w->add_partial) == SQLITE_DONE);
	sqlite3_reset(w->add_partial);
	w->n_partials++;
	w->n_bytes += n + 20;
}

int64_t segment_writer_count(const struct segment_writer *w)
{
	return w->n_results + w->n_partials;
}

size_t segment_writer_bytes(const struct segment_writer *w)
{
	return w->n_bytes;
}

int segment_writer_publish(struct segment_writer *w, struct store *s, const char *name, struct err *err)
{
	sqlite3_int64 n = 0;
	unsigned char *image;
	int rc;

	if (database_exec(&w->db, "COMMIT", err) < 0)
		return -1;
	image = sqlite3_serialize(w->db.db, "main", &n, 0);
	if (!image)
		rc = err_set(err, ERR_ENGINE, "%s: no memory for %lld bytes", name, (long long)n);
	else
		rc = store_put(s, name, image, (size_t)n, err);
	sqlite3_free(image);
	if (rc < 0) {
		must(&w->db, sqlite3_exec(w->db.db, "BEGIN", NULL, NULL, NULL) == SQLITE_OK);
		return -1;
	}
	writer_close(w);
	writer_open(w);
	return 0;
}

struct segment_reader {
	struct database db;
	sqlite3_stmt *done, *partial, *result;
};

char *segment_path(const char *shard_dir, int epoch, int sequence)
{
	return path_format("%s/" SEGMENT_NAME_FORMAT, shard_dir, epoch, sequence);
}

struct segment_reader *segment_reader_open_bytes(void *bytes, size_t n, const char *name, struct err *err)
{
	struct segment_reader *r = xcalloc(1, sizeof(*r));

	if (database_open_bytes(&r->db, bytes, n, name, SEGMENT_APPLICATION_ID, err) < 0) {
		free(r);
		return NULL;
	}
	return r;
}

int segment_reader_open(struct segment_reader **r, struct store *s, const char *name, int *is_damaged, struct err *err)
{
	struct buf b = {0};
	int rc = store_get(s, name, SEGMENT_MAX_BYTES, &b, err);

	*r = NULL;
	*is_damaged = 0;
	if (rc == 1) {
		char *full = store_name(s, name);

		*r = segment_reader_open_bytes(buf_detach(&b), b.len, full, err);
		*is_damaged = !*r;
		rc = *r ? 1 : -1;
		free(full);
	}
	buf_release(&b);
	return rc;
}

void segment_reader_close(struct segment_reader *r)
{
	if (!r)
		return;
	sqlite3_finalize(r->done);
	sqlite3_finalize(r->partial);
	sqlite3_finalize(r->result);
	database_close(&r->db);
	free(r);
}

static int step(struct segment_reader *r, sqlite3_stmt **s, const char *sql, struct err *err)
{
	if (!*s)
		*s = database_prepare(&r->db, sql, err);
	return *s ? database_step(&r->db, *s, err) : -1;
}

static int take_row(struct segment_reader *r, sqlite3_stmt *s, int64_t *row, struct err *err)
{
	*row = sqlite3_column_int64(s, 0);
	return *row < 0 ? err_set(err, ERR_STORAGE, "%s: damaged: row %lld", r->db.name, (long long)*row) : 1;
}

int segment_reader_next_done(struct segment_reader *r, int64_t *row, struct err *err)
{
	int rc = step(r, &r->done, "SELECT row FROM result INDEXED BY result_done", err);

	return rc == 1 ? take_row(r, r->done, row, err) : rc;
}

int segment_reader_next_partial(struct segment_reader *r, int64_t *row, const void **state, size_t *n, struct err *err)
{
	int rc = step(r, &r->partial, "SELECT row, state FROM partial ORDER BY row", err);

	if (rc != 1)
		return rc;
	*state = sqlite3_column_blob(r->partial, 1);
	*n = (size_t)sqlite3_column_bytes(r->partial, 1);
	return take_row(r, r->partial, row, err);
}

int segment_reader_next_result(struct segment_reader *r, struct row_result *out, struct err *err)
{
	int rc = step(r, &r->result, "SELECT * FROM result ORDER BY row", err);
	sqlite3_stmt *s = r->result;

	if (rc != 1)
		return rc;
	if (take_row(r, s, &out->row, err) < 0)
		return -1;
	out->is_error = sqlite3_column_int(s, 1);
	out->line = (const char *)sqlite3_column_text(s, 2);
	out->n_line = (size_t)sqlite3_column_bytes(s, 2);
	if (!out->line || sqlite3_column_int64(s, 3) != line_hash(out->row, out->line, out->n_line))
		return err_set(err, ERR_STORAGE, "%s: damaged: the line of row %lld does not have its checksum", r->db.name, (long long)out->row);
	out->prompt_tokens = sqlite3_column_int64(s, 4);
	out->cached_tokens = sqlite3_column_int64(s, 5);
	out->output_tokens = sqlite3_column_int64(s, 6);
	out->reasoning_tokens = sqlite3_column_int64(s, 7);
	out->recomputed_tokens = sqlite3_column_int64(s, 8);
	out->wait_s = sqlite3_column_double(s, 9);
	out->prefill_s = sqlite3_column_double(s, 10);
	out->decode_s = sqlite3_column_double(s, 11);
	out->finished_ms = sqlite3_column_int64(s, 12);
	return 1;
}

int segment_reader_check(struct segment_reader *r, struct err *err)
{
	struct row_result result;
	const void *state;
	int64_t row, n_results = 0, n_done = 0;
	size_t n;
	int rc;

	while ((rc = segment_reader_next_result(r, &result, err)) == 1)
		n_results++;
	while (rc == 0 && (rc = segment_reader_next_done(r, &row, err)) == 1) {
		n_done++;
		rc = 0;
	}
	while (rc == 0 && (rc = segment_reader_next_partial(r, &row, &state, &n, err)) == 1)
		rc = 0;
	if (rc == 0 && n_results != n_done)
		rc = err_set(err, ERR_STORAGE, "%s: damaged: its index does not have its rows", r->db.name);
	/* The walks begin anew. */
	sqlite3_reset(r->result);
	sqlite3_reset(r->done);
	sqlite3_reset(r->partial);
	return rc;
}
