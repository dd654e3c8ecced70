/* shard_private.h: a claimed shard, shared by pick.c (which claims) and shard.c (which runs). */
#ifndef TOKENMILL_QUEUE_SHARD_PRIVATE_H
#define TOKENMILL_QUEUE_SHARD_PRIVATE_H

#include "queue/job_private.h"
#include "queue/lines.h"

struct shard {
	struct job *job;
	struct shard *next_open;
	int64_t number;
	int epoch, sequence; /* sequence: of the segment last published */
	struct claim claim;
	char *dir;
	struct segment_name *segments; /* that were read when it was opened, and those published since */
	size_t n_segments, segments_cap;
	struct row_map rows;
	int64_t n_done;      /* rows in ROW_DONE */
	int is_marked_done;
	struct store_file input_file;
	struct line_reader *input; /* NULL before the first row */
	struct shard_line line;
	struct segment_writer *pending;
};

/* The handle for a claim that was just made; reads what is done. NULL on failure: the claim is still the caller's to end. */
struct shard *shard_open(struct job *j, int64_t number, int epoch, const struct claim *claim, struct err *err);
int shard_mark_done(struct shard *s, struct err *err); /* create `done`; it may be there already */

#endif
