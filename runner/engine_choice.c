/* engine_choice.c: one place that knows which engines there are. */
#include "runner/engine_choice.h"

#include <string.h>

#include "base/mem.h"
#include "engine/cuda/cuda_plugin.h"
#include "engine/model/model.h"
#include "runner/commands.h"

int engine_choice_read(struct engine_choice *c, const char *name, struct err *err)
{
	*c = (struct engine_choice){.kind = ENGINE_CPU};
	fake_options_init(&c->fake);
	if (!name || strcmp(name, "cpu") == 0)
		return 0;
	if (strcmp(name, "auto") == 0 || strcmp(name, "cuda") == 0 || strncmp(name, ENGINE_CUDA_PREFIX, strlen(ENGINE_CUDA_PREFIX)) == 0) {
		if (cuda_plugin_choose(name, &c->gpu_device, &c->gpu, err) < 0)
			return err_context(err, "--engine");
		c->kind = c->gpu ? ENGINE_CUDA : ENGINE_CPU;
		return 0;
	}
	c->kind = ENGINE_FAKE;
	if (strcmp(name, "fake") == 0)
		return 0;
	if (!setup_is_fake(name))
		return err_set(err, ERR_USAGE, "--engine %.60s: there is no such engine; there are auto, cpu, cuda[:N] and fake[:key=value,...]", name);
	return fake_options_read(&c->fake, name + strlen(SETUP_FAKE_PREFIX), err) < 0 ? err_context(err, "--engine") : 0;
}

int engine_choice_of_job(struct engine_choice *c, const char *model_fingerprint, struct err *err)
{
	int is_cuda = strncmp(model_fingerprint, ENGINE_CUDA_PREFIX, strlen(ENGINE_CUDA_PREFIX)) == 0;
	struct err why = {0};

	if (engine_choice_read(c, setup_is_fake(model_fingerprint) ? model_fingerprint : is_cuda ? "cuda" : NULL, &why) < 0 && is_cuda)
		return err_set(err, why.code, "the job is for a GPU: %s", why.msg);
	if (why.code)
		return err_set(err, ERR_FINGERPRINT, "the job's engine is not known here: %s", why.msg);
	return 0;
}

char *engine_choice_fingerprint(const struct engine_choice *c, const char *model_fingerprint)
{
	struct buf b = {0};

	buf_addf(&b, "%s%s", c->kind == ENGINE_CUDA ? ENGINE_CUDA_PREFIX : "", model_fingerprint);
	return buf_detach(&b);
}

static int identify_fake(const struct engine_choice *c, struct job_setup *s, struct text **text, struct err *err)
{
	struct buf identity = {0};

	*text = s->model_path && *s->model_path ? text_open(s->model_path, err) : text_open_bytes(err);
	if (!*text)
		return -1;
	buf_adds(&identity, SETUP_FAKE_PREFIX);
	fake_options_identity(&c->fake, &identity);
	s->model_fingerprint = buf_detach(&identity);
	return 0;
}

static int identify_model(const struct engine_choice *c, struct job_setup *s, struct text **text, int32_t *n_vocab, struct err *err)
{
	struct model *model;

	if (!s->model_path || !*s->model_path)
		return err_set(err, ERR_USAGE, "--model MODEL is missing");
	model = model_open(s->model_path, err);
	if (!model)
		return -1;
	s->model_fingerprint = engine_choice_fingerprint(c, model->fingerprint);
	*n_vocab = model->config.n_vocab;
	model_free(model);
	*text = text_open(s->model_path, err);
	return *text ? 0 : -1;
}

int engine_choice_identify(const struct engine_choice *c, struct job_setup *s, struct text **text, int32_t *n_vocab,
                           struct err *err)
{
	if (c->kind == ENGINE_FAKE) {
		if (identify_fake(c, s, text, err) < 0)
			return -1;
		*n_vocab = tokenizer_n_vocab((*text)->tokenizer);
	} else if (identify_model(c, s, text, n_vocab, err) < 0) {
		return -1;
	}
	s->text_fingerprint = xstrdup((*text)->fingerprint);
	if (!s->model_name)
		s->model_name = s->model_path && *s->model_path ? command_model_name(s->model_path) : xstrdup("fake");
	return 0;
}

struct engine *engine_choice_open(const struct engine_choice *c, const char *model_path, const struct text *text,
                                  const struct engine_options *o, struct err *err)
{
	struct fake_options fake = c->fake;
	struct engine_options with_gpu = *o;

	with_gpu.gpu = c->gpu;
	with_gpu.gpu_device = c->gpu_device;
	if (c->kind != ENGINE_FAKE)
		return engine_open(model_path, text, &with_gpu, err);
	if (!fake.max_batch)
		fake.max_batch = o->max_batch;
	return engine_open_fake(text, &fake, err);
}

int engine_choice_forecast(const struct engine_choice *c, const char *model_path, const struct text *text,
                           const struct engine_options *o, struct engine_plan *out, struct err *err)
{
	struct engine_options with_gpu = *o;
	int rc;

	with_gpu.gpu = c->gpu;
	with_gpu.gpu_device = c->gpu_device;
	if (c->kind != ENGINE_FAKE) {
		struct model *model = model_open(model_path, err);

		rc = model ? engine_forecast(model, &with_gpu, out, err) : -1;
		model_free(model);
	} else {
		/* Opening it tells. */
		struct engine_choice quick = *c;
		struct engine *e;

		quick.fake.load_s = 0;
		e = engine_choice_open(&quick, model_path, text, o, err);
		rc = e ? 0 : -1;
		if (e)
			*out = *engine_plan(e);
		engine_close(e);
	}
	return rc;
}
