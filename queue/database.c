/* database.c: opening SQLite files without locks, and its errors as ours. */
#include "queue/database.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"
#include "queue/schema.h"

int database_fail(struct database *d, struct err *err)
{
	return err_set(err, ERR_STORAGE, "%s: %s", d->name ? d->name : "database", d->db ? sqlite3_errmsg(d->db) : "out of memory");
}

void database_close(struct database *d)
{
	sqlite3_close_v2(d->db);
	free(d->name);
	free(d->bytes);
	*d = (struct database){0};
}

int database_exec(struct database *d, const char *sql, struct err *err)
{
	if (sqlite3_exec(d->db, sql, NULL, NULL, NULL) != SQLITE_OK)
		return database_fail(d, err);
	return 0;
}

sqlite3_stmt *database_prepare(struct database *d, const char *sql, struct err *err)
{
	sqlite3_stmt *s = NULL;

	if (sqlite3_prepare_v3(d->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &s, NULL) != SQLITE_OK)
		database_fail(d, err);
	return s;
}

int database_step(struct database *d, sqlite3_stmt *s, struct err *err)
{
	switch (sqlite3_step(s)) {
	case SQLITE_ROW:
		return 1;
	case SQLITE_DONE:
		return 0;
	default:
		return database_fail(d, err);
	}
}

int database_get_int(struct database *d, const char *sql, int64_t *out, struct err *err)
{
	sqlite3_stmt *s = database_prepare(d, sql, err);
	int rc = -1;

	if (s) {
		rc = database_step(d, s, err);
		if (rc == 1)
			*out = sqlite3_column_int64(s, 0);
		rc = rc == 1 ? 0 : rc == 0 ? err_set(err, ERR_STORAGE, "%s: nothing found by %s", d->name, sql) : -1;
	}
	sqlite3_finalize(s);
	return rc;
}

int database_create(struct database *d, const char *path, int page_bytes, int application_id, const char *schema, struct err *err)
{
	struct buf sql = {0};
	int rc;

	*d = (struct database){.name = xstrdup(path ? path : "segment in memory")};
	/* unix-none takes no locks: until it is renamed the file is nobody else's. */
	if (sqlite3_open_v2(path ? path : ":memory:", &d->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
	                    path ? "unix-none" : NULL) != SQLITE_OK) {
		database_fail(d, err);
		database_close(d);
		return -1;
	}
	buf_addf(&sql,
	         "PRAGMA page_size=%d; PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA secure_delete=OFF;"
	         "PRAGMA application_id=%d; PRAGMA user_version=%d; %s",
	         page_bytes, application_id, JOB_FORMAT, schema);
	rc = database_exec(d, sql.data, err);
	buf_release(&sql);
	if (rc < 0)
		database_close(d);
	return rc;
}

/* https://www.sqlite.org/uri.html: %, ? and # would be taken for syntax. */
static void add_uri(struct buf *out, const char *path)
{
	buf_adds(out, path[0] == '/' ? "file://" : "file:");
	for (; *path; path++) {
		if (strchr("%?#", *path))
			buf_addf(out, "%%%02X", (unsigned char)*path);
		else
			buf_addc(out, *path);
	}
	buf_adds(out, "?mode=ro&immutable=1");
}

/* Is it what it should be? */
static int check(struct database *d, int application_id, struct err *err)
{
	int64_t id, version;

	if (database_get_int(d, "PRAGMA application_id", &id, err) < 0 || database_get_int(d, "PRAGMA user_version", &version, err) < 0)
		return -1;
	if (id != application_id)
		return err_set(err, ERR_STORAGE, "%s: damaged, or not a file of a job (application id %lld, expected %d)", d->name, (long long)id,
		               application_id);
	if (version != JOB_FORMAT)
		return err_set(err, ERR_STORAGE, "%s: layout %lld, this program knows %d", d->name, (long long)version, JOB_FORMAT);
	/* Files are read once from end to end; many are open at a time. */
	return database_exec(d, "PRAGMA cache_size=-256; PRAGMA mmap_size=0; PRAGMA cell_size_check=ON; PRAGMA trusted_schema=OFF", err);
}

int database_open_immutable(struct database *d, const char *path, int application_id, struct err *err)
{
	struct buf uri = {0};
	int rc;

	*d = (struct database){.name = xstrdup(path)};
	add_uri(&uri, path);
	rc = sqlite3_open_v2(uri.data, &d->db, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI | SQLITE_OPEN_NOMUTEX, NULL);
	buf_release(&uri);
	rc = rc != SQLITE_OK ? database_fail(d, err) : check(d, application_id, err);
	if (rc < 0)
		database_close(d);
	return rc;
}

int database_open_bytes(struct database *d, void *bytes, size_t n, const char *name, int application_id, struct err *err)
{
	int rc;

	*d = (struct database){.name = xstrdup(name), .bytes = bytes};
	if (n == 0)
		rc = err_set(err, ERR_STORAGE, "%s: is empty", name);
	else if (sqlite3_open_v2(":memory:", &d->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK ||
	         sqlite3_deserialize(d->db, "main", bytes, (sqlite3_int64)n, (sqlite3_int64)n, SQLITE_DESERIALIZE_READONLY) != SQLITE_OK)
		rc = database_fail(d, err);
	else
		rc = check(d, application_id, err);
	if (rc < 0)
		database_close(d);
	return rc;
}
