/* commands.h: the subcommands. Each cmd_*.c has one or more; main.c has the list. */
#ifndef TOKENMILL_RUNNER_COMMANDS_H
#define TOKENMILL_RUNNER_COMMANDS_H

#include "base/buf.h"
#include "base/errors.h"
#include "engine/engine.h"
#include "runner/options.h"

extern const struct command command_run, command_plan, command_bench;
extern const struct command command_model_info;
extern const struct command command_tokenize, command_detokenize, command_render;
extern const struct command command_merge, command_retry_failed, command_verify;
extern const struct command command_report;
extern const struct command command_submit, command_jobs, command_status, command_watch, command_logs, command_fetch;
extern const struct command command_suspend, command_resume, command_cancel, command_scale, command_delete;

/* "SmolLM2-135M" from "models/SmolLM2-135M.gguf" or a directory. malloc'd. */
char *command_model_name(const char *path);
/* What the engine will take and do, in two lines. */
void command_describe_plan(const struct engine_plan *p, enum kv_type kv, enum engine_math math, struct buf *first,
                           struct buf *second);

#endif
