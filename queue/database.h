/* database.h: SQLite as a file format. A file is written by one process under a temporary name without journal or locks, or built in
 * memory; once it has its final name it is only opened with immutable=1. Errors name the file. Not thread-safe. */
#ifndef TOKENMILL_QUEUE_DATABASE_H
#define TOKENMILL_QUEUE_DATABASE_H

#include <sqlite3.h>
#include <stddef.h>
#include <stdint.h>

#include "base/errors.h"

struct database {
	sqlite3 *db;
	char *name;  /* for messages */
	void *bytes; /* of database_open_bytes */
};

/* A new, empty database at path, or in memory where path is NULL. -1 leaves *d closed. */
int database_create(struct database *d, const char *path, int page_bytes, int application_id, const char *schema, struct err *err);
/* A finished file. Fails when it is not a database, or not of this kind and layout. -1 leaves *d closed. */
int database_open_immutable(struct database *d, const char *path, int application_id, struct err *err);
/* As that, of bytes, which are the database's now (from malloc, freed in any case); name is for messages. */
int database_open_bytes(struct database *d, void *bytes, size_t n, const char *name, int application_id, struct err *err);
void database_close(struct database *d); /* also a closed one */

int database_exec(struct database *d, const char *sql, struct err *err);
sqlite3_stmt *database_prepare(struct database *d, const char *sql, struct err *err); /* NULL on failure */
/* 1: a row, 0: done, -1. */
int database_step(struct database *d, sqlite3_stmt *s, struct err *err);
/* First column of the first row of a query; -1 and *err when there is none. */
int database_get_int(struct database *d, const char *sql, int64_t *out, struct err *err);
int database_fail(struct database *d, struct err *err); /* what SQLite last complained of, as ERR_STORAGE; returns -1 */

#endif
