/* inbox_private.h: files of an inbox, as they are seen and as batches record them. */
#ifndef TOKENMILL_RUNNER_INBOX_PRIVATE_H
#define TOKENMILL_RUNNER_INBOX_PRIVATE_H

#include "base/buf.h"
#include "base/hash.h"
#include "runner/inbox.h"

struct inbox_file {
	char *name; /* below the inbox */
	int64_t n_bytes, mtime_ns, ctime_ns;
	char sha256[SHA256_HEX_BYTES]; /* "" while it is not known */
	int batch;                     /* that has it, 0 none */
};

struct inbox_files {
	struct inbox_file *files;
	size_t n, cap;
};

void inbox_files_release(struct inbox_files *l);
struct inbox_file *inbox_files_add(struct inbox_files *l, const char *name);

/* What is in the directory, by name; without hashes. */
int inbox_scan(const char *dir, struct inbox_files *out, struct err *err);
/* Size and times now: 1, 0: it is gone or no file, -1. */
int inbox_file_stat(const char *dir, struct inbox_file *f, struct err *err);
int inbox_file_same(const struct inbox_file *a, const struct inbox_file *b); /* size and times */
/* Fill in f->sha256. 1; 0: it changed meanwhile, or is gone; -1. */
int inbox_file_hash(const char *dir, struct inbox_file *f, struct err *err);

void inbox_batch_write(const char *dir, const struct inbox_file *files, size_t n, struct buf *out);
/* Append the files of batch number. */
int inbox_batch_parse(const char *text, size_t n, int number, struct inbox_files *out, struct err *err);

#endif
