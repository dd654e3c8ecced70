/* claim.h: who holds something, and whether that process is surely gone. A claim is a small JSON file created exclusively; it is never
 * changed. Claims of one thing are numbered: the highest number (epoch) is the holder, and whoever takes over creates the next. So a
 * takeover is an exclusive creation as well, and two who try at once cannot both succeed.
 *
 *     {"worker":0,"attempt":"5f0c...","job_uid":"","host":"node-7","boot":"0a5e...","pid_namespace":"pid:[4026531836]","pid":4711,
 *      "process_start":123456,"handle":"9c1d...","time_ms":1767225600000}
 *
 * time_ms is for people; clocks of two hosts are never compared. process_start is in clock ticks since boot (proc(5)) and tells a
 * process from a later one with the same pid; handle tells handles of one process apart. attempt leads to the claimant's heartbeat (attempt.h);
 * job_uid is that of the Kubernetes Job (TOKENMILL_JOB_UID), "" elsewhere.
 *
 * TOKENMILL_HOST, for tests: processes with different values take each other for processes of other hosts.
 *
 * Any thread may call. */
#ifndef TOKENMILL_QUEUE_CLAIM_H
#define TOKENMILL_QUEUE_CLAIM_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/errors.h"
#include "queue/store.h"

struct claim {
	int worker;
	char attempt[128], job_uid[64];
	char host[256], boot[64], pid_namespace[64];
	int64_t pid, process_start;
	uint64_t handle;
	int64_t time_ms;
};

enum claimant {
	CLAIMANT_ALIVE = 1,   /* this machine runs that very process, and its handle is open */
	CLAIMANT_GONE = 2,    /* this machine does not */
	CLAIMANT_UNKNOWN = 3, /* another machine's, or a pid that means nothing here */
};

/* This process, with a new handle that counts as open until claim_end. attempt may be NULL. */
void claim_begin(struct claim *c, int worker, const char *attempt);
void claim_end(const struct claim *c);
enum claimant claim_claimant(const struct claim *c);

/* "process 4711 on node-7 (worker 0)" for messages */
void claim_describe(const struct claim *c, struct buf *out);
/* 1: it was created by this call, 0: it exists, -1. */
int claim_create(const struct claim *c, struct store *s, const char *name, struct err *err);
/* 1, 0: there is none (it may have been removed since it was listed), -1. */
int claim_read(struct claim *c, struct store *s, const char *name, struct err *err);
int claim_parse(struct claim *c, const char *text, size_t n, struct err *err);

#endif
