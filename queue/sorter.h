/* sorter.h: an external merge sort with flat memory. Records go in, in any number; they come out in the order of their keys (as bytes; a
 * key sorts before its continuations), equal keys in the order in which they came. Records gather in one block of memory; a full
 * block is sorted and appended as a run to a spill file, and at the end the runs are merged, all read sequentially. What fits in the
 * block never touches the disk.
 *
 * Knuth, The Art of Computer Programming 3, 5.4.1. One thread. sorter_free removes the spill file. */
#ifndef TOKENMILL_QUEUE_SORTER_H
#define TOKENMILL_QUEUE_SORTER_H

#include <stddef.h>

#include "base/errors.h"

struct sorter;

struct sorter_part {
	const void *data;
	size_t n;
};

/* spill_path: made when it is needed. memory_bytes: what the sorter may take, apart from single records that are larger. */
struct sorter *sorter_new(const char *spill_path, size_t memory_bytes);
void sorter_free(struct sorter *s);
/* The record is the parts one after another. -1: the spill file cannot be written; then the sorter can only be freed. */
int sorter_add(struct sorter *s, const void *key, size_t n_key, const struct sorter_part *parts, int n_parts, struct err *err);
int sorter_finish(struct sorter *s, struct err *err); /* no more sorter_add; the first sorter_next comes next */
int sorter_rewind(struct sorter *s, struct err *err); /* after sorter_finish: begin again with the smallest */
/* 1 and the next record, borrowed until the next call; 0 at the end; -1. key may be NULL. */
int sorter_next(struct sorter *s, struct sorter_part *key, struct sorter_part *record, struct err *err);

#endif
