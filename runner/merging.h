/* merging.h: the last step of a job, where several workers may come to it at once. */
#ifndef TOKENMILL_RUNNER_MERGING_H
#define TOKENMILL_RUNNER_MERGING_H

#include "queue/job.h"

/* Merge the job, all of whose shards are done, unless another process is at it. 1: it is merged; 0: another process was seen to be at it and is left
 * to it (never with must_wait: then its end is waited for, or its work taken over); -1, ERR_DRAINED after a signal while waiting. */
int merging_run(struct job *j, const struct job_worker *w, const char *usage_extra_json, int must_wait, struct err *err);

#endif
