/* layout.h: the names of a job directory, and reading what is there. Names are matched strictly: a temporary file
 * (NAME.tmp-...), torn or whole, is never taken for a published one. */
#ifndef TOKENMILL_QUEUE_LAYOUT_H
#define TOKENMILL_QUEUE_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

#include "base/errors.h"
#include "base/hash.h"
#include "queue/store.h"

char *path_format(const char *fmt, ...) __attribute__((format(printf, 1, 2))); /* malloc'd */

/* The names of a directory in ascending order, without "." and "..". *names is malloc'd, as each name is; free with names_free. */
int dir_list(const char *path, char ***names, size_t *n, struct err *err);
void names_free(char **names, size_t n);
/* Remove a file or a tree; a missing one is no failure. Symbolic links are removed, not followed. */
int tree_remove(const char *path, struct err *err);
int file_sync(const char *path, struct err *err); /* fsync of a finished file */
int file_sum(const char *path, int64_t *n_bytes, char hex[SHA256_HEX_BYTES], struct err *err);

/* Symbolic links: is path one to this target; make it one, in the place of another link, but of nothing else. */
int link_is(const char *path, const char *target);
int link_make(const char *path, const char *target, struct err *err);

/* "PREFIX-NNNN" with at least four digits: its number, else -1. */
int64_t name_number(const char *name, const char *prefix);

struct segment_name {
	int epoch;
	int sequence;
};
#define SEGMENT_NAME_FORMAT "seg-%04d-%06d.db"
/* 1 when name is that of a segment */
int segment_name_parse(const char *name, struct segment_name *out);

struct shard_listing {
	int epoch;  /* highest claim, 0: unclaimed */
	int released; /* highest epoch whose worker gave the shard back unfinished ("release-0001") */
	int is_done;
	int n_temporary; /* files left by a writer that died, or being written */
	int *unclean; /* epochs that noted rows in flight and did not release the shard, ascending */
	size_t n_unclean;
	struct segment_name *segments; /* ascending */
	size_t n_segments;
};
/* Read a shard's directory. Release with shard_listing_release, also after a failure. */
int shard_listing_read(struct shard_listing *l, struct store *s, const char *shard_dir, struct err *err);
/* The same from names that were listed already, each behind its first `skip` bytes. */
void shard_listing_take(struct shard_listing *l, char **names, size_t n, size_t skip);
void shard_listing_release(struct shard_listing *l);

#endif
