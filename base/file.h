/* file.h: files read whole or mapped, and files that appear whole or not at all. */
#ifndef TOKENMILL_BASE_FILE_H
#define TOKENMILL_BASE_FILE_H

#include <stddef.h>

#include "base/buf.h"
#include "base/errors.h"

/* A file mapped read-only. Zero-initialised is "not open". */
struct file_map {
	const unsigned char *data; /* NULL for an empty file */
	size_t n_bytes;
};
/* -1 and *err when it cannot be opened, is not a regular file or cannot be mapped; then *m is as before. */
int file_map_open(struct file_map *m, const char *path, enum err_code code, struct err *err);
void file_map_close(struct file_map *m);

/* Append the file's bytes to out; refuses more than max_bytes. */
int file_read(const char *path, size_t max_bytes, struct buf *out, enum err_code code, struct err *err);

/* write(2) until all is written. 0, or -1 and errno. */
int file_write_all(int fd, const void *data, size_t n_bytes);

/* The file appears under its name with all of its bytes, durable, or not at all: temporary file beside it, fsync, rename,
 * fsync of the directory. On failure the temporary file is removed and an existing file is as before. */
int file_write_atomic(const char *path, const void *data, size_t n_bytes, struct err *err);

int file_make_dirs(const char *path, struct err *err); /* as mkdir -p */
int file_sync_dir(const char *path, struct err *err);
int file_exists(const char *path); /* 1 or 0 */
int file_is_dir(const char *path);
char *file_join(const char *dir, const char *name); /* "dir/name", malloc'd */

#endif
