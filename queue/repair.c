/* repair.c: the way out when a disk has torn a segment that a shard's mark names. Without the mark the shard is unfinished: the next worker takes
 * over what is sound, sets the damaged segment aside, and runs its rows again. */
#include <inttypes.h>
#include <stdlib.h>

#include "base/log.h"
#include "queue/job_private.h"

/* 1: it is sound, 0: damaged or missing (told as a warning), -1: cannot be read now. */
static int is_sound(struct job *j, int64_t shard, const char *dir, const struct segment_name *name, struct err *err)
{
	char *path = segment_path(dir, name->epoch, name->sequence), *full = store_name(j->store, path);
	struct segment_reader *r;
	struct err fault = {0};
	int is_damaged, rc = segment_reader_open(&r, j->store, path, &is_damaged, &fault);

	for (int look = 0; rc == 0 && look < LOOKS; look++) {
		look_again_wait(look);
		rc = segment_reader_open(&r, j->store, path, &is_damaged, &fault);
	}
	if (rc == 0)
		err_set(&fault, ERR_STORAGE, "%s: is missing", full);
	if (rc == 1 && segment_reader_check(r, &fault) < 0)
		is_damaged = 1;
	if (rc < 0 && !is_damaged)
		err_set(err, fault.code, "%s", fault.msg);
	else if (rc == 0 || is_damaged)
		log_warn("shard %" PRId64 ": %s", shard, fault.msg);
	segment_reader_close(r);
	free(path);
	free(full);
	return is_damaged ? 0 : rc;
}

/* 1: its mark was taken back, 0, -1. */
static int repair_shard(struct job *j, int64_t shard, struct err *err)
{
	char *dir = job_shard_dir(j, shard), *mark = path_format("%s/done", dir);
	struct segment_name *names = NULL;
	size_t n = 0;
	int rc = store_exists(j->store, mark, err), sound = 1;

	if (rc == 1) {
		struct err fault = {0};

		/* A mark that is itself damaged is worth nothing. */
		if (done_read(j->store, dir, j->shards[shard].n_rows, &names, &n, &fault) < 0) {
			log_warn("shard %" PRId64 ": %s", shard, fault.msg);
			sound = 0;
		}
	}
	for (size_t i = 0; i < n && sound == 1; i++)
		sound = is_sound(j, shard, dir, &names[i], err);
	if (rc == 1 && sound == 0) {
		rc = store_remove(j->store, mark, err) < 0 ? -1 : 1;
		j->shards[shard].is_done = 0;
	} else if (rc == 1) {
		rc = sound < 0 ? -1 : 0;
	}
	free(names);
	free(mark);
	free(dir);
	return rc;
}

int64_t job_repair(struct job *j, struct err *err)
{
	int64_t n = 0;

	for (int64_t shard = 0; shard < j->n_shards; shard++) {
		int rc = repair_shard(j, shard, err);

		if (rc < 0)
			return -1;
		n += rc;
	}
	/* What is merged stays until the next merge, but no longer tells that there is nothing to do. */
	return n > 0 && store_remove(j->store, "merged/manifest.json", err) < 0 ? -1 : n;
}
