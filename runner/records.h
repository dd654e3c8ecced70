/* records.h: what queue needs to know about output lines to make one that no engine made: rows that are folded into another get its
 * line under their own name; rows of a closed job that never ran get an error record that says so. */
#ifndef TOKENMILL_RUNNER_RECORDS_H
#define TOKENMILL_RUNNER_RECORDS_H

#include "queue/job.h"
#include "runner/spec.h"

struct records { /* zero-initialise */
	char setup[SHA256_HEX_BYTES];
};

/* Tell the job how lines are made (job_set_lines); r must outlive it. ERR_FINGERPRINT when its spec is not one that this program knows. */
int records_attach(struct records *r, struct job *j, struct err *err);

#endif
