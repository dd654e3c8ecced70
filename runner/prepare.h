/* prepare.h: what is asked for of a job, completed: the part that `run` and `plan` share.
 *
 *     options -> prepare_options_check -> prepared_read   model's fingerprint, tokenizer, defaults, date
 *                                           | prepared_take_from_job, prepared_compare    where the job is there already
 *                                           v prepared_set_context
 *                                         prepared_finish  hash of the setup; rules for rows and output lines
 *                                           v prepared_plan   a new job; plan_again.h for one that is there
 *
 * Nothing here loads weights. One thread. A struct prepared is zero-initialised with `o` and released in any case.
 */
#ifndef TOKENMILL_RUNNER_PREPARE_H
#define TOKENMILL_RUNNER_PREPARE_H

#include <stddef.h>
#include <stdint.h>

#include "engine/engine.h"
#include "engine/text/text.h"
#include "jobs/speed.h"
#include "runner/engine_choice.h"
#include "runner/input.h"
#include "runner/options.h"
#include "runner/output.h"
#include "runner/plan_rows.h"
#include "runner/row.h"
#include "runner/spec.h"

struct prepare_options {
	const char *model, *engine, *defaults, *name, *date;
	int math, kv_type, strict, fold; /* math, kv_type 0: not given */
	int64_t seed;              /* -1: not given */
	int64_t max_bad_rows;      /* -1: no limit */
	int64_t context;           /* 0: not given */
	int64_t shards;            /* 0: not given */
	int64_t date_unix_s;       /* what `date` says; from prepare_options_check */
	struct option_list tags;
};

/* Their lines of an option table: of a command whose struct `type` holds them as `member`. */
#define PREPARE_OFFSET(type, member, field) (offsetof(type, member) + offsetof(struct prepare_options, field))
#define PREPARE_OPTIONS(type, member)                                                                                            \
	{"model", 'm', OPTION_STRING, PREPARE_OFFSET(type, member, model), "MODEL",                                                  \
	 "the model: .gguf file or Hugging Face directory", 0, 0, NULL},                                                             \
	    {"engine", 0, OPTION_STRING, PREPARE_OFFSET(type, member, engine), "auto|cpu|cuda[:N]|fake[:...]",                      \
	     "what generates: the CPU, a GPU, what there is, or fake for tests (default cpu)", 0, 0, NULL},                                                    \
	    {"math", 0, OPTION_CHOICE, PREPARE_OFFSET(type, member, math), "f32|fast", "arithmetic (default fast)", 0, 0,            \
	     "fast|f32"},                                                                                                            \
	    {"kv-type", 0, OPTION_CHOICE, PREPARE_OFFSET(type, member, kv_type), "f16|bf16|f32",                                     \
	     "type of keys and values (default f16)", 0, 0, "f16|bf16|f32"},                                                         \
	    {"context", 0, OPTION_INT, PREPARE_OFFSET(type, member, context), "N",                                                   \
	     "longest prompt + output (default: the model's, or what memory holds)", 1, INT32_MAX, NULL},                            \
	    {"seed", 0, OPTION_INT, PREPARE_OFFSET(type, member, seed), "N", "seed of rows that bring none (default 0)", 0,          \
	     9007199254740992.0, NULL},                                                                                              \
	    {"defaults", 0, OPTION_STRING, PREPARE_OFFSET(type, member, defaults), "FILE",                                           \
	     "JSON object of parameters for what a row leaves open", 0, 0, NULL},                                                    \
	    {"served-model-name", 0, OPTION_STRING, PREPARE_OFFSET(type, member, name), "NAME",                                      \
	     "the model's name in answers (default: from its path)", 0, 0, NULL},                                                    \
	    {"date", 0, OPTION_STRING, PREPARE_OFFSET(type, member, date), "YYYY-MM-DD",                                             \
	     "the day that a chat template sees (default: today)", 0, 0, NULL},                                                      \
	    {"shards", 0, OPTION_INT, PREPARE_OFFSET(type, member, shards), "N",                                                    \
	     "how many parts workers can claim (default: by the number of rows)", 1, 8388607, NULL},                                 \
	    {"fold-duplicates", 0, OPTION_FLAG, PREPARE_OFFSET(type, member, fold), NULL,                                            \
	     "run rows with the same request once (greedy ones, and those with a seed of their own)", 0, 0, NULL},                   \
	    {"tag", 0, OPTION_LIST, PREPARE_OFFSET(type, member, tags), "KEY=VALUE",                                                \
	     "what the job is charged to, for reports; may be repeated", 0, 0, NULL},                                                \
	    {"strict", 0, OPTION_FLAG, PREPARE_OFFSET(type, member, strict), NULL, "run nothing if any row is at fault", 0, 0, NULL}, \
	{                                                                                                                            \
		"max-bad-rows", 0, OPTION_INT, PREPARE_OFFSET(type, member, max_bad_rows), "N", "run nothing if more rows are at fault", \
		    0, 9007199254740992.0, NULL                                                                                          \
	}

void prepare_options_init(struct prepare_options *o);
/* Combinations, and the date. ERR_USAGE. */
int prepare_options_check(struct prepare_options *o, struct err *err);
/* Rows at fault that are allowed, -1 for any number. */
int64_t prepare_allowed_bad_rows(const struct prepare_options *o);

struct prepared {
	const struct prepare_options *o;
	struct engine_choice choice;
	struct job_setup setup; /* set model_path before prepared_read */
	char setup_hash[SHA256_HEX_BYTES];
	yyjson_doc *defaults;
	char *tags; /* of options and environment, from prepared_read */
	struct text *text;
	struct row_rules rules;
	struct output_rules output;
	struct engine_plan forecast; /* from prepared_set_context */
};
void prepared_release(struct prepared *p);

/* choice and setup.model_path are known: the part of the setup that needs no weights. n_context stays 0 when it was not given. */
int prepared_read(struct prepared *p, struct err *err);
/* Options that were not given, when a job is named alone. */
void prepared_take_from_job(struct prepared *p, const struct job_setup *there);
/* What is asked for must be what the job has: ERR_FINGERPRINT names all that differs. */
int prepared_compare(struct prepared *p, const struct job_setup *there, struct err *err);
/* Fills forecast, and n_context where it was not given: the model's, or what the engine with these options holds here if that is less. So plan
 * and run agree on one machine; on another one, run tells when its memory does not hold a job's context. */
int prepared_set_context(struct prepared *p, const struct engine_options *eo, struct err *err);
/* The setup is complete: its hash, and what rows are read and written with. */
int prepared_finish(struct prepared *p, struct err *err);

/* How fast the model is here with n_threads, as bench or earlier runs measured it: 1, 0 when nothing is known. */
int prepared_speed(const struct prepared *p, int n_threads, struct speed *s);
/* The files' rows into a plan that was begun; costs are those of this machine (prepared_speed). spec says whether duplicates are folded, and gets the inputs; totals are filled in. Frees
 * nothing. files, n_threads >= 1; faults: NULL, or as in struct plan_options. */
int prepared_add_rows(struct prepared *p, struct job_plan *plan, const struct input_list *files, int n_threads, struct buf *faults,
                      struct job_spec *spec, struct plan_totals *totals, struct err *err);
/* Commit with this setup and spec's inputs, shards and folds; frees the plan, as job_plan_commit, whose result it returns. */
int prepared_commit(struct prepared *p, struct job_plan *plan, const struct job_spec *spec, struct err *err);
/* Both, in a plan that is begun, which is freed, or as a new job in dir. */
int prepared_plan_into(struct prepared *p, struct job_plan *plan, const struct input_list *files, int n_threads, struct buf *faults,
                       struct plan_totals *totals, struct err *err);
int prepared_plan(struct prepared *p, const char *dir, const struct input_list *files, int n_threads, struct buf *faults,
                  struct plan_totals *totals, struct err *err);

#endif
