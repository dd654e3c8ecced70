/* tags.h: what a whole job is charged to: KEY=VALUE pairs from --tag (may be repeated) and, in a pod, from TOKENMILL_TAGS ("team=search,project=x").
 * They are kept in job.json and in the ledger; a row's own metadata says more than they do. Tags change no answer. */
#ifndef TOKENMILL_RUNNER_TAGS_H
#define TOKENMILL_RUNNER_TAGS_H

#include "base/buf.h"
#include "base/errors.h"
#include "runner/options.h"

/* A JSON object of strings in canonical order, "{}" for none. --tag wins over the environment. ERR_USAGE for what is no pair or stands twice. */
int tags_read(const struct option_list *given, const char *environment, struct buf *json, struct err *err);

#endif
