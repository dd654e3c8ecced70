/* engine_choice.c: one place that knows which engines there are. */
#include "runner/engine_choice.h"

#include <string.h>

#include "base/mem.h"
#include "engine/model/model.h"
#include "runner/commands.h"

int engine_choice_read(struct engine_choice *c, const char *name, struct err *err)
{
	*c = (struct engine_choice){.kind = ENGINE_CPU};
	fake_options_init(&c->fake);
	if (!name || strcmp(name, "cpu") == 0)
		return 0;
	c->kind = ENGINE_FAKE;
	if (strcmp(name, "fake") == 0)
		return 0;
	if (!setup_is_fake(name))
		return err_set(err, ERR_USAGE, "--engine %.60s: there is no such engine; there are cpu and fake[:key=value,...]", name);
	return fake_options_read(&c->fake, name + strlen(SETUP_FAKE_PREFIX), err) < 0 ? err_context(err, "--engine") : 0;
}

int engine_choice_of_job(struct engine_choice *c, const char *model_fingerprint, struct err *err)
{
	struct err why = {0};

	if (engine_choice_read(c, setup_is_fake(model_fingerprint) ? model_fingerprint : NULL, &why) < 0)
		return err_set(err, ERR_FINGERPRINT, "the job's engine is not known here: %s", why.msg);
	return 0;
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

static int identify_model(struct job_setup *s, struct text **text, int32_t *n_vocab, struct err *err)
{
	struct model *model;

	if (!s->model_path || !*s->model_path)
		return err_set(err, ERR_USAGE, "--model MODEL is missing");
	model = model_open(s->model_path, err);
	if (!model)
		return -1;
	s->model_fingerprint = xstrdup(model->fingerprint);
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
	} else if (identify_model(s, text, n_vocab, err) < 0) {
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

	if (c->kind == ENGINE_CPU)
		return engine_open(model_path, text, o, err);
	if (!fake.max_batch)
		fake.max_batch = o->max_batch;
	return engine_open_fake(text, &fake, err);
}

int engine_choice_forecast(const struct engine_choice *c, const char *model_path, const struct text *text,
                           const struct engine_options *o, struct engine_plan *out, struct err *err)
{
	int rc;

	if (c->kind == ENGINE_CPU) {
		struct model *model = model_open(model_path, err);

		rc = model ? engine_forecast(model, o, out, err) : -1;
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
