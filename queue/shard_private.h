/* shard_private.h: a claimed shard, shared by pick.c (which claims), shard.c (which runs) and compact.c (which puts its segments in order). */
#ifndef TOKENMILL_QUEUE_SHARD_PRIVATE_H
#define TOKENMILL_QUEUE_SHARD_PRIVATE_H

#include "queue/job_private.h"
#include "queue/lines.h"
#include "queue/suspects.h"

struct own_segment { /* of this epoch */
	int sequence;
	size_t n_bytes; /* about */
};

struct shard {
	struct job *job;
	struct shard *next_open;
	int64_t number;
	int epoch, sequence; /* sequence: the last number that was used */
	struct claim claim;
	char *dir;
	struct segment_name *found; /* earlier epochs' segments whose rows count, as read when it was opened */
	size_t n_found, found_cap;
	struct segment_name *set_aside; /* damaged ones: their rows run again */
	size_t n_set_aside, set_aside_cap;
	struct own_segment *own; /* published under this epoch, and not replaced since; by number */
	size_t n_own, own_cap;
	size_t compact_from; /* no compaction while there are fewer: the last one failed */
	struct row_map rows;
	int64_t n_done;      /* rows in ROW_DONE */
	int is_marked_done;
	int is_adopted;      /* own segments have all rows */
	struct store_file input_file;
	struct line_reader *input; /* NULL before the first row */
	struct shard_line line;
	struct segment_writer *pending;
	/* rows that may have made earlier epochs crash, and how far they have been let run */
	struct suspects suspects;
	int is_idle; /* shard_tell_idle */
	int64_t n_publishes;
	int64_t part_ended_at; /* n_publishes when the current part had no row in flight any more, -1 before */
	int part; /* rows of parts up to this one may run */
	struct {
		int epoch;
		int64_t row;
	} *grown; /* rows whose published tokens grew in an epoch that ended without a word */
	size_t n_grown, grown_cap;
};

/* The handle for a claim that was just made; reads what is done. NULL on failure: the claim is still the caller's to end. */
struct shard *shard_open(struct job *j, int64_t number, int epoch, const struct claim *claim, struct err *err);
int shard_has_set_aside(const struct shard *s, const struct segment_name *name);
void shard_add_own(struct shard *s, int sequence, size_t n_bytes);

/* compact.c */
/* Fold own segments when there are many alike. 0; 1: the shard is done without them; -1: they are as before. */
int shard_compact(struct shard *s, struct err *err);
/* All rows have results: create `done`, or find it there, and clear up. */
int shard_mark_done(struct shard *s, struct err *err);
/* 1: another epoch has marked the shard done; what this one published does not count and is removed. 0, -1. */
int shard_find_done(struct shard *s, struct err *err);

/* The rows are read: judge the notes of these epochs, which ended without a word (flight.c). */
int flight_judge(struct shard *s, const int *epochs, size_t n, struct err *err);

#endif
