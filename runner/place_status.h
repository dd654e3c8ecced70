/* place_status.h: how a job in a directory or an S3 prefix stands, from what is there alone; nothing is written, and workers may be at it. */
#ifndef TOKENMILL_RUNNER_PLACE_STATUS_H
#define TOKENMILL_RUNNER_PLACE_STATUS_H

#include "base/errors.h"

/* To standard output: a page for people, or one JSON object whose members README tells. ERR_USAGE when there is no job. */
int place_status_print(const char *place, int as_json, struct err *err);

#endif
