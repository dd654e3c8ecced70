/* submit_local.h: the same job as processes on this machine, supervised as a Job supervises its pods: started again by the
 * failure policy of base/errors, no cluster needed.
 *
 *     exit 0            the worker is done
 *     ERR_POD_IGNORE    (and SIGTERM)  started again after a while, not counted
 *     ERR_POD_FAIL_JOB  all are stopped; its exit status is ours
 *     else, a crash     started again with back-off, up to `retries` times for each index; then that index is given up
 *
 * SIGTERM and SIGINT are passed on; we wait for the workers' drain. One thread. */
#ifndef TOKENMILL_RUNNER_SUBMIT_LOCAL_H
#define TOKENMILL_RUNNER_SUBMIT_LOCAL_H

#include <stdint.h>

#include "base/errors.h"

struct submit_local {
	char **args; /* of `tokenmill run` without --worker, NULL-terminated, from "run" on */
	int n_workers;
	int64_t retries;
	double pause_s; /* before the first restart; doubled each time, up to 64 times as much */
};
/* 0: every worker is done. -1: ERR_DRAINED, or the code of the worker that failed the job, or ERR_OTHER when indexes were given
 * up. */
int submit_local_run(const struct submit_local *l, struct err *err);

#endif
