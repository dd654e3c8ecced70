/* launch_private.h: between launch.c (what is asked for: names, hash, comparison) and launch_manifest.c (the Job). */
#ifndef TOKENMILL_JOBS_LAUNCH_PRIVATE_H
#define TOKENMILL_JOBS_LAUNCH_PRIVATE_H

#include "jobs/launch.h"

/* Name and place are decided. The manifest's bytes in *out. */
int launch_manifest(const struct launch_spec *s, const struct launch *l, struct buf *out, struct err *err);
/* "/models/x" for "x" */
char *launch_path(const char *dir, const char *path);
/* A label value: what does not belong there becomes '-', at most 63 characters; malloc'd, maybe "". */
char *launch_label(const char *text);
/* The last part of a model's path without ".gguf"; malloc'd. */
char *launch_model_name(const char *path);

#endif
