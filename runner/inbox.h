/* inbox.h: a directory into which files of rows are dropped, and jobs that are made of them, each file once. For a schedule: each firing runs what is
 * new, however many firings overlap, were missed or were killed.
 *
 *     INBOX/a.jsonl, sub/b.jsonl.gz, ...          the users'; only read, unless they are to be moved when they are done
 *     JOBS/inbox/batch-000123.json                which files batch 123 has: name, size, SHA-256; created exclusively, never changed
 *     JOBS/inbox/batch-000123.done                its results are there: never to be looked at again
 *     JOBS/inbox/batch-000123.dismissed           made by hand: not to be tried any more (its input is damaged, say)
 *     JOBS/batch-000123/                          its job, as any other
 *
 * A firing goes over the batches that are not done, the oldest first, and runs each as a worker of its job; then it looks for files that no batch
 * has, and makes the next batch of them. Who makes batch n+1 has read batches 1..n, so no file can be in two: of two firings at once one creates it, the
 * other reads it and joins in. All workers of an Indexed Job do the same and so agree on the same batch.
 *
 * A file is its name below INBOX and its content: changed after it was taken up it is a new file. (Where size, mtime and ctime are as they were
 * the content is not read again.) Complete is a file that is not empty, not hidden, not called .tmp or .part, and whose size and time have not
 * changed for settle_s by this process's own clock. What has changed between the taking up and the planning is left out of that batch, and
 * taken up again. */
#ifndef TOKENMILL_RUNNER_INBOX_H
#define TOKENMILL_RUNNER_INBOX_H

#include <stddef.h>
#include <stdint.h>

#include "base/errors.h"

struct inbox_options {
	const char *inbox;     /* a directory */
	const char *jobs;      /* a directory, or s3://bucket/prefix */
	const char *move_done; /* a directory on the inbox's file system, NULL: files stay */
	double settle_s;
	int64_t batch_files;   /* at most so many files in a batch; 0: all */
};

struct inbox_batch { /* borrowed until the next call */
	int number;
	const char *place; /* of its job */
	char **paths;      /* to plan it from; none when it is planned */
	size_t n_paths;
};

struct inbox;

/* o is borrowed. NULL: ERR_INPUT (no such inbox), ERR_STORAGE, ERR_USAGE. */
struct inbox *inbox_open(const struct inbox_options *o, struct err *err);
void inbox_close(struct inbox *in); /* NULL is fine */
/* The next batch that this process should work on: each at most once. 1, 0: there is none, -1: also ERR_DRAINED while files settle. */
int inbox_next(struct inbox *in, struct inbox_batch *batch, struct err *err);
/* After the batch was worked on: if its job is merged it is done. Harmless when it is not, or was before. */
int inbox_finish(struct inbox *in, struct err *err);

#endif
