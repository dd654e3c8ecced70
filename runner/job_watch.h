/* job_watch.h: follow a job on a cluster until it has ended, telling what changes: counts, and what keeps its pods from
 * running. */
#ifndef TOKENMILL_RUNNER_JOB_WATCH_H
#define TOKENMILL_RUNNER_JOB_WATCH_H

#include "jobs/kube.h"

/* 0 when it is complete; -1 (ERR_OTHER) when it failed, was cancelled or deleted, with the reason. */
int job_watch_wait(struct kube *k, const char *name, struct err *err);

#endif
