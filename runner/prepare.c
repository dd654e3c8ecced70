/* prepare.c: from options to a setup, and from there to a plan. */
#include "runner/prepare.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "queue/job.h"
#include "runner/prompt.h"
#include "runner/tags.h"

void prepare_options_init(struct prepare_options *o)
{
	o->seed = o->max_bad_rows = -1;
}

static int read_date(const char *text, int64_t *out, struct err *err)
{
	struct tm tm = {0};
	const char *end = strptime(text, "%Y-%m-%d", &tm);
	int day = tm.tm_mday;
	time_t t = end && !*end ? timegm(&tm) : (time_t)-1;

	/* timegm makes the 2nd of March of the 30th of February. */
	if (t == (time_t)-1 || tm.tm_mday != day)
		return err_set(err, ERR_USAGE, "--date must be a day like 2026-01-31, it is '%s'", text);
	*out = (int64_t)t;
	return 0;
}

int prepare_options_check(struct prepare_options *o, struct err *err)
{
	struct buf tags = {0};
	int rc = tags_read(&o->tags, getenv("TOKENMILL_TAGS"), &tags, err);

	buf_release(&tags);
	if (rc < 0)
		return -1;
	if (o->strict && o->max_bad_rows > 0)
		return err_set(err, ERR_USAGE, "--strict and --max-bad-rows contradict each other");
	return o->date ? read_date(o->date, &o->date_unix_s, err) : 0;
}

int64_t prepare_allowed_bad_rows(const struct prepare_options *o)
{
	return o->strict ? 0 : o->max_bad_rows;
}

void prepared_release(struct prepared *p)
{
	text_free(p->text);
	yyjson_doc_free(p->defaults);
	setup_release(&p->setup);
	free(p->tags);
}

static int read_defaults(struct prepared *p, struct err *err)
{
	struct buf canonical = {0};
	const char *path = p->o->defaults;

	if (path) {
		p->defaults = json_parse_file(path, (size_t)1 << 20, ERR_USAGE, err);
		if (!p->defaults)
			return err_context(err, "--defaults");
		if (!json_depth_within(yyjson_doc_get_root(p->defaults), ROW_MAX_DEPTH))
			return err_set(err, ERR_USAGE, "--defaults %s: nested deeper than %d levels", path, ROW_MAX_DEPTH);
		json_write_canonical(&canonical, yyjson_doc_get_root(p->defaults));
	} else {
		buf_adds(&canonical, "{}");
	}
	p->setup.defaults = buf_detach(&canonical);
	return 0;
}

int prepared_read(struct prepared *p, struct err *err)
{
	struct job_setup *s = &p->setup;
	const struct prepare_options *o = p->o;
	struct buf tags = {0};

	if (tags_read(&o->tags, getenv("TOKENMILL_TAGS"), &tags, err) < 0)
		return -1;
	p->tags = buf_detach(&tags);

	if (o->name)
		s->model_name = xstrdup(o->name);
	if (engine_choice_identify(&p->choice, s, &p->text, &p->rules.n_vocab, err) < 0)
		return -1;
	s->math = o->math ? o->math : MATH_FAST;
	s->kv_type = o->kv_type ? o->kv_type : KV_F16;
	s->seed = o->seed < 0 ? 0 : (uint64_t)o->seed;
	s->n_context = (int32_t)o->context;
	if (read_defaults(p, err) < 0)
		return -1;
	if (p->text->chat_template && template_uses(p->text->chat_template, "strftime_now"))
		s->now_unix_s = (int64_t)time(NULL) / 86400 * 86400;
	if (o->date && s->now_unix_s)
		s->now_unix_s = o->date_unix_s;
	return 0;
}

void prepared_take_from_job(struct prepared *p, const struct job_setup *there)
{
	const struct prepare_options *o = p->o;
	struct job_setup *s = &p->setup;

	if (!o->math)
		s->math = there->math;
	if (!o->kv_type)
		s->kv_type = there->kv_type;
	if (o->seed < 0)
		s->seed = there->seed;
	if (!o->name) {
		free(s->model_name);
		s->model_name = xstrdup(there->model_name);
	}
	if (!o->defaults) {
		free(s->defaults);
		s->defaults = xstrdup(there->defaults);
		yyjson_doc_free(p->defaults);
		p->defaults = strcmp(s->defaults, "{}") == 0 ? NULL : json_parse(s->defaults, strlen(s->defaults), ERR_OTHER, NULL);
	}
}

int prepared_compare(struct prepared *p, const struct job_setup *there, struct err *err)
{
	if (!p->setup.n_context)
		p->setup.n_context = there->n_context;
	if (!p->o->date)
		p->setup.now_unix_s = there->now_unix_s;
	return setup_compare(there, &p->setup, err);
}

int prepared_set_context(struct prepared *p, const struct engine_options *eo, struct err *err)
{
	int32_t limit = p->text->n_context, holds;

	if (engine_choice_forecast(&p->choice, p->setup.model_path, p->text, eo, &p->forecast, err) < 0)
		return -1;
	if (limit > 0 && p->setup.n_context > limit)
		return err_set(err, ERR_USAGE, "--context is %d, the model was made for %d", p->setup.n_context, limit);
	if (p->setup.n_context)
		return 0;
	holds = p->forecast.max_context;
	p->setup.n_context = limit > 0 && limit < holds ? limit : holds;
	if (limit > p->setup.n_context)
		log_warn("memory holds a context of %d tokens, the model was made for %d", p->setup.n_context, limit);
	return 0;
}

int prepared_finish(struct prepared *p, struct err *err)
{
	setup_hash(&p->setup, p->setup_hash);
	p->rules.seed = p->setup.seed;
	p->rules.developer_is_system = !prompt_knows_developer(p->text);
	p->rules.defaults = yyjson_doc_get_root(p->defaults);
	p->output = (struct output_rules){.model = p->setup.model_name, .setup = p->setup_hash, .tokenizer = p->text->tokenizer};
	reasoning_marks_find(&p->output.reasoning, p->text->tokenizer);
	if (p->rules.defaults && row_check_defaults(&p->rules, err) < 0)
		return err_context(err, "--defaults");
	return 0;
}

/* What job.json says of the model's place must hold in another current directory, too. */
static char *absolute_path(const char *path)
{
	char *current = path[0] == '/' ? NULL : getcwd(NULL, 0);
	struct buf absolute = {0};

	if (current)
		buf_addf(&absolute, "%s/", current);
	buf_adds(&absolute, path);
	free(current);
	return buf_detach(&absolute);
}

int prepared_speed(const struct prepared *p, int n_threads, struct speed *s)
{
	char *machine = speed_machine();
	struct speed_key key = {p->setup.model_fingerprint, spec_math_name(p->setup.math), spec_kv_name(p->setup.kv_type), machine, n_threads};
	int found = speed_read(&key, s);

	free(machine);
	return found;
}

int prepared_add_rows(struct prepared *p, struct job_plan *plan, const struct input_list *files, int n_threads, struct buf *faults,
                      struct job_spec *spec, struct plan_totals *totals, struct err *err)
{
	const struct prepare_options *o = p->o;
	struct plan_options po = {.text = p->text,
	                          .rules = &p->rules,
	                          .output = &p->output,
	                          .now_unix_s = p->setup.now_unix_s,
	                          .n_context = p->setup.n_context,
	                          .n_threads = n_threads,
	                          .max_bad_rows = prepare_allowed_bad_rows(o),
	                          .n_faults_told = o->strict ? 1000 : 20,
	                          .fold = spec->folds,
	                          .faults = faults};
	struct speed speed;

	if (prepared_speed(p, n_threads, &speed)) {
		po.cost = speed_cost(&speed);
		po.lengths = &speed.lengths;
	}
	return plan_rows(plan, files, &po, &spec->inputs, totals, err);
}

int prepared_commit(struct prepared *p, struct job_plan *plan, const struct job_spec *spec, struct err *err)
{
	struct job_spec mine = {.setup = p->setup, .inputs = spec->inputs, .n_shards = spec->n_shards, .folds = spec->folds, .tags = spec->tags ? spec->tags : p->tags};
	struct buf text = {0};
	int rc;

	/* The fake needs none. */
	mine.setup.model_path = p->setup.model_path && *p->setup.model_path ? absolute_path(p->setup.model_path) : xstrdup("");
	spec_write(&mine, &text);
	free(mine.setup.model_path);
	job_plan_set_shards(plan, spec->n_shards);
	rc = job_plan_commit(plan, text.data, 0, err);
	buf_release(&text);
	return rc;
}

int prepared_plan(struct prepared *p, const char *dir, const struct input_list *files, int n_threads, struct buf *faults,
                  struct plan_totals *totals, struct err *err)
{
	struct job_plan *plan = job_plan_begin(dir, err);

	return plan ? prepared_plan_into(p, plan, files, n_threads, faults, totals, err) : -1;
}

int prepared_plan_into(struct prepared *p, struct job_plan *plan, const struct input_list *files, int n_threads, struct buf *faults,
                       struct plan_totals *totals, struct err *err)
{
	struct job_spec spec = {.n_shards = p->o->shards, .folds = p->o->fold};
	double start = clock_seconds();
	int rc = -1;

	if (prepared_add_rows(p, plan, files, n_threads, faults, &spec, totals, err) < 0)
		job_plan_abort(plan);
	else
		rc = prepared_commit(p, plan, &spec, err);
	if (rc == 0)
		log_info("planned %" PRId64 " rows with %" PRId64 " prompt tokens in %.1f s%s", totals->n_rows, totals->prompt_tokens,
		         clock_seconds() - start, totals->n_bad ? "; rows at fault become error records" : "");
	inputs_release(&spec.inputs);
	return rc;
}
