/* termination.h: a worker's last words, for Kubernetes: a JSON object in the file that TOKENMILL_TERMINATION_LOG names (a pod's
 * terminationMessagePath), so that `kubectl describe pod` and the API tell why it ended, and what it had done.
 *
 *     {"exit_code":74,"exit_name":"storage","message":"...","attempt":"5f0c...","worker":3,"rows":..,"rows_failed":..,"prompt_tokens":..,
 *      "cached_tokens":..,"output_tokens":..,"seconds":..,"busy_seconds":..}
 *
 * Kubernetes keeps 4096 bytes; the message is cut so that it is less. The file is written in place: it is a mount, and cannot be replaced. */
#ifndef TOKENMILL_RUNNER_TERMINATION_H
#define TOKENMILL_RUNNER_TERMINATION_H

#include "base/buf.h"
#include "queue/attempt.h"

enum { TERMINATION_BYTES = 4096 };

struct termination {
	int status;          /* of the process */
	const char *name;    /* err_code_name, or "crash" */
	const char *message; /* "" for a good end */
	const struct attempt *attempt; /* NULL: it did not come to that */
	double seconds;
};

/* The status that a command's return value (and *err, when that is -1) means. */
int termination_status(int rc, const struct err *err);
/* Append less than TERMINATION_BYTES. */
void termination_json(const struct termination *t, struct buf *out);
/* Does nothing without TOKENMILL_TERMINATION_LOG. Failing is only warned of. */
void termination_write(const struct termination *t);

#endif
