/* engine_choice.h: which engine runs a job: --engine auto | cpu | cuda[:N] | fake[:key=value,...], and what that means for the job's identity.
 *
 * CPU and GPU round differently, so which of them computes is part of a job's identity: a job for the GPU has "cuda:" before the model's
 * fingerprint. Which GPU it is does not matter. auto is settled when it is read.
 *
 * The fake's options that change bytes stand in the job where a model's fingerprint would: "fake:tokens=20-200,fail=0". It is
 * the option's own form, so a job that is named alone can be gone on with by the engine that began it.
 */
#ifndef TOKENMILL_RUNNER_ENGINE_CHOICE_H
#define TOKENMILL_RUNNER_ENGINE_CHOICE_H

#include "engine/engine_fake.h"
#include "runner/spec.h"

enum engine_kind { ENGINE_CPU = 1, ENGINE_FAKE = 2, ENGINE_CUDA = 3 };
#define ENGINE_CUDA_PREFIX "cuda:"

struct engine_choice {
	enum engine_kind kind;
	struct fake_options fake;
	const struct gpu_api *gpu; /* ENGINE_CUDA */
	int gpu_device;
};

/* name NULL: cpu. ERR_USAGE naming the engines there are, or what is wrong with an option; ERR_ENGINE: no GPU where one was asked for. */
int engine_choice_read(struct engine_choice *c, const char *name, struct err *err);
/* A job's engine from its model_fingerprint; ERR_FINGERPRINT. */
int engine_choice_of_job(struct engine_choice *c, const char *model_fingerprint, struct err *err);

/* What stands in a job for this model on this engine; owned by the caller. */
char *engine_choice_fingerprint(const struct engine_choice *c, const char *model_fingerprint);

/* Fill in the setup's fingerprints and model_name (unless it is there) from what is at its model_path; *text and *n_vocab are
 * what rows are read with. An empty or missing model_path is for the fake alone. ERR_MODEL, ERR_USAGE. */
int engine_choice_identify(const struct engine_choice *c, struct job_setup *s, struct text **text, int32_t *n_vocab,
                           struct err *err);
/* o is for an engine with a model; of it the fake takes max_batch, where its own option is not given. */
struct engine *engine_choice_open(const struct engine_choice *c, const char *model_path, const struct text *text,
                                  const struct engine_options *o, struct err *err);
/* What engine_choice_open would decide, without loading a model (see engine_forecast). */
int engine_choice_forecast(const struct engine_choice *c, const char *model_path, const struct text *text,
                           const struct engine_options *o, struct engine_plan *out, struct err *err);

#endif
