/* store.h: where a job lives: a directory that several hosts may see, or a prefix of an S3 bucket. Names are relative to it
 * ("shards/00012/done"). What is stored is whole: an object appears with all of its bytes, durable, or not at all.
 *
 *     place              create (exclusive)                     put (replaces)                        rename of a tree
 *     DIR                link(2) of a finished temporary file   temporary file, fsync, rename, fsync  yes
 *     s3://bucket/path   PutObject with If-None-Match: *        PutObject, multipart when large       no
 *
 * Neither needs locks. Each operation is tried again, with back-off, when the storage answers what may pass (EIO, ESTALE, ENOSPC for a moment,
 * a reply that was lost after the operation was done; 5xx, 429, a broken connection), and is idempotent for that: the second try of
 * what was already done is a success. After some ten seconds it gives up with ERR_STORAGE, which names the object.
 *
 * Nothing is cached: a listing may still be older than the latest creation (NFS attribute caches). No thread shares a struct store.
 */
#ifndef TOKENMILL_QUEUE_STORE_H
#define TOKENMILL_QUEUE_STORE_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/errors.h"

struct store;

int store_is_url(const char *place); /* "s3://...": not a directory of this machine */
/* A directory need not exist yet (store_prepare makes it). s3://: endpoint, region and credentials come from the environment (see base/s3.h). */
struct store *store_open(const char *place, struct err *err);
void store_close(struct store *s);
const char *store_place(const struct store *s);
/* The directory, NULL where the store is none: for what only a directory can do (rename a tree, symbolic links). */
const char *store_dir(const struct store *s);
int store_is_remote(const struct store *s); /* S3, or a directory on a network file system */
/* "DIR/name" or "s3://bucket/path/name", for messages; malloc'd. */
char *store_name(const struct store *s, const char *name);
/* Before a job is planned or claimed from: make the directory; make sure that exclusive creation is exclusive (a store that ignores
 * If-None-Match is refused: ERR_STORAGE). */
int store_prepare(struct store *s, struct err *err);

/* 1: created by this call, 0: it exists with other bytes, -1. Two callers with the same bytes may both be told 1: what must have one
 * winner holds something that is unique (a claim has its handle). */
int store_create(struct store *s, const char *name, const void *data, size_t n, struct err *err);
int store_put(struct store *s, const char *name, const void *data, size_t n, struct err *err);
/* As store_put, but in a directory neither durable nor atomic (who reads it may find a torn one), and tried once: for what is written often, and
 * only spares work when it can be read. */
int store_note(struct store *s, const char *name, const void *data, size_t n, struct err *err);
/* A finished local file becomes the object; the file is gone afterwards (moved or uploaded). For a directory it must be on the same file system. */
int store_put_file(struct store *s, const char *name, const char *path, struct err *err);
/* 1 and the bytes appended to out; 0: there is none; -1. More than max_bytes is an error. */
int store_get(struct store *s, const char *name, size_t max_bytes, struct buf *out, struct err *err);
int store_exists(struct store *s, const char *name, struct err *err); /* 1, 0, -1 */

/* A local file with the object's bytes: in a directory the object itself. */
struct store_file {
	char *path; /* NULL: not open */
	int is_copy;
};
/* 1, 0: there is none, -1. */
int store_fetch(struct store *s, const char *name, struct store_file *f, struct err *err);
void store_file_release(struct store_file *f); /* removes a copy */

/* Names directly below dir ("" for the root), ascending by byte; a directory (or common prefix) counts as a name. A dir that is not there is
 * empty. Free with store_names_free. */
int store_list(struct store *s, const char *dir, char ***names, size_t *n, struct err *err);
/* All objects below dir, at any depth, as names relative to dir ("00012/claim-0001"), ascending by byte. One request for each thousand in S3. */
int store_list_tree(struct store *s, const char *dir, char ***names, size_t *n, struct err *err);
void store_names_free(char **names, size_t n);

int store_remove(struct store *s, const char *name, struct err *err);      /* a missing one is no failure */
int store_remove_tree(struct store *s, const char *dir, struct err *err);  /* likewise */

#endif
