/* lines.h: text files of many lines, written once and read once from end to end. The writer counts and hashes what passes; the reader
 * gives line after line from a plain file or from one zstd frame with a checksum. One thread calls; plain files have another of their own. */
#ifndef TOKENMILL_QUEUE_LINES_H
#define TOKENMILL_QUEUE_LINES_H

#include <stddef.h>
#include <stdint.h>

#include "base/errors.h"
#include "base/hash.h"

struct line_writer;
enum line_form {
	LINES_PLAIN = 1, /* with a SHA-256 of all bytes */
	LINES_ZSTD = 2,  /* one frame with a checksum and no hash */
};
/* path must not exist. */
struct line_writer *line_writer_open(const char *path, enum line_form form, struct err *err);
/* The bytes and, after the last part, a newline is the caller's business: bytes are written as they are. */
int line_writer_add(struct line_writer *w, const void *p, size_t n, struct err *err);
/* Flush and close, not yet durable (write-back has begun): file_sync does that. hex may be NULL. -1 leaves a file that is worth nothing. Frees w. */
int line_writer_close(struct line_writer *w, int64_t *n_bytes, char hex[SHA256_HEX_BYTES], struct err *err);
void line_writer_abort(struct line_writer *w);

struct line_reader;
struct line_reader *line_reader_open(const char *path, enum line_form form, struct err *err);
void line_reader_close(struct line_reader *r);
/* 1 and the line without its newline, borrowed until the next call; 0 at the end; -1. A last line without newline is an error: a torn file. */
int line_reader_next(struct line_reader *r, const char **line, size_t *n, struct err *err);
int64_t line_reader_number(const struct line_reader *r); /* 1-based, of the line last given */
/* After the end: bytes and SHA-256 of a plain file. */
void line_reader_sum(struct line_reader *r, int64_t *n_bytes, char hex[SHA256_HEX_BYTES]);

#endif
