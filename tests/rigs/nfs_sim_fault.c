/* nfs_sim_fault.c: which operation fails, and how. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/rigs/nfs_sim.h"

static const char *const fault_names[] = {
    [FAULT_EIO] = "eio",   [FAULT_ESTALE] = "estale",         [FAULT_ENOSPC] = "enospc",
    [FAULT_LOST] = "lost", [FAULT_LOST_RETRY] = "lost-retry",
};

/* What can happen to a class of operations, each as likely as the next. An exclusive create that is tried again succeeds (its
 * verifier, RFC 1813 3.3.8), so a file that is created has no FAULT_LOST_RETRY. */
static const enum fault kinds[][5] = {
    [FAULT_CLASS_READ] = {FAULT_EIO, FAULT_ESTALE},
    [FAULT_CLASS_COMMIT] = {FAULT_EIO, FAULT_ENOSPC, FAULT_LOST},
    [FAULT_CLASS_CREATE] = {FAULT_EIO, FAULT_ESTALE, FAULT_ENOSPC, FAULT_LOST},
    [FAULT_CLASS_NAME] = {FAULT_EIO, FAULT_ESTALE, FAULT_ENOSPC, FAULT_LOST, FAULT_LOST_RETRY},
    [FAULT_CLASS_REMOVE] = {FAULT_EIO, FAULT_ESTALE, FAULT_LOST, FAULT_LOST_RETRY},
};

/* splitmix64 (Steele, Lea, Flood 2014); under the lock */
static uint64_t next_random(struct fault_source *f)
{
	uint64_t z = f->random += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

double fault_uniform(struct fault_source *f)
{
	double u;

	pthread_mutex_lock(&f->lock);
	u = (double)(next_random(f) >> 11) * 0x1p-53;
	pthread_mutex_unlock(&f->lock);
	return u;
}

static int control_is_set(const struct fault_source *f, const char *name)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/%s", f->control, name);
	return access(path, F_OK) == 0;
}

int fault_disk_is_full(struct fault_source *f)
{
	return f->control && control_is_set(f, "full");
}

enum fault fault_choose(struct fault_source *f, enum fault_class class, const char *operation, const char *name)
{
	double rate = class == FAULT_CLASS_READ ? f->read_rate : f->rate;
	enum fault fault;
	size_t n = 0;

	/* A full disk takes no bytes; a new name may still find room in a block that is there. */
	if (class != FAULT_CLASS_READ && class != FAULT_CLASS_REMOVE && fault_disk_is_full(f) &&
	    (class == FAULT_CLASS_COMMIT || fault_uniform(f) < 0.5)) {
		fault = FAULT_ENOSPC;
	} else {
		if (rate <= 0 || fault_uniform(f) >= rate || (f->control && !control_is_set(f, "faults")))
			return FAULT_NONE;
		while (n < 5 && kinds[class][n] != FAULT_NONE)
			n++;
		fault = kinds[class][(size_t)(fault_uniform(f) * (double)n)];
	}
	if (f->log) {
		pthread_mutex_lock(&f->lock);
		fprintf(f->log, "%s %s %s\n", operation, fault_names[fault], name);
		fflush(f->log);
		pthread_mutex_unlock(&f->lock);
	}
	return fault;
}

int fault_refuses(enum fault fault)
{
	switch (fault) {
	case FAULT_EIO:
		return EIO;
	case FAULT_ESTALE:
		return ESTALE;
	case FAULT_ENOSPC:
		return ENOSPC;
	default:
		return 0;
	}
}
