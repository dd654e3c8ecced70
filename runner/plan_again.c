/* plan_again.c: what differs, the new plan, and waiting for others who plan. */
#include "runner/plan_again.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "queue/store.h"
#include "runner/plan_turn.h"

static int reopen(struct job **job, struct err *err)
{
	char *place = xstrdup(store_place(job_store(*job)));

	job_close(*job);
	*job = job_open(place, err);
	free(place);
	return *job ? 0 : -1;
}

/* ---- what differs ---- */

static int digest_inputs(const struct input_list *files, struct job_inputs *l, struct err *err)
{
	for (size_t i = 0; i < files->n; i++) {
		struct job_input *item = inputs_add(l, files->paths[i]);
		struct input *in = input_open(item->name, 0, err);
		struct input_line line;
		int rc;

		if (!in)
			return -1;
		while ((rc = input_next(in, &line, err)) > 0)
			;
		if (rc == 0)
			input_digest(in, item->sha256, &item->n_bytes);
		input_close(in);
		if (rc < 0)
			return -1;
	}
	return 0;
}

/* Standard input can be read only once: whether it differs is known when it is planned. */
static int reads_standard_input(const struct input_list *files)
{
	for (size_t i = 0; i < files->n; i++)
		if (strcmp(files->paths[i], "-") == 0)
			return 1;
	return 0;
}

static int shards_differ(const struct replan *r, const struct job *job, const struct job_spec *there)
{
	int64_t asked = r->prepared->o->shards;

	return asked > 0 && there->n_shards != asked && job_n_shards(job) != asked;
}

/* ---- the new plan ---- */

static void tell(const struct job *before, const struct job *now, const struct job_replan *how, int input_differs)
{
	int64_t more = job_n_rows(now) - job_n_rows(before);
	struct buf b = {0};

	if (input_differs)
		buf_addf(&b, "input has changed: %" PRId64 " rows%s, ", more < 0 ? -more : more > 0 ? more : job_n_rows(now),
		         more < 0 ? " fewer" : more > 0 ? " more" : " as before");
	buf_addf(&b, "%" PRId64 " finished rows kept", how->n_kept);
	if (how->n_dropped)
		buf_addf(&b, ", %" PRId64 " dropped", how->n_dropped);
	buf_addf(&b, "; planned again in %" PRId64 " shards", job_n_shards(now));
	log_info("%s", b.data);
	buf_release(&b);
}

/* The commit's own message names a row; here is said what can be done about it. */
static int explain_refusal(struct job *job, struct err *err)
{
	char *why = xstrdup(err->msg);

	err_clear(err);
	err_set(err, ERR_FINGERPRINT, "%s: the input has changed: %s. --replan drops such results; or name another output directory",
	        store_place(job_store(job)), why);
	free(why);
	return -1;
}

struct planning {
	const struct replan *r; /* NULL: only to run rows again */
	struct job *job;
	struct job_spec *there;
	int differs;            /* the input does, as far as is known */
	int is_same;            /* nothing was published: nothing differs after all, or no row runs again */
};

/* plan_fn: the files' rows. */
static int plan_files(void *arg, struct job_plan *plan, struct err *err)
{
	struct planning *x = arg;
	const struct replan *r = x->r;
	struct job_spec spec = {.n_shards = r->prepared->o->shards ? r->prepared->o->shards : x->there->n_shards,
	                        .folds = r->prepared->o->fold || x->there->folds,
	                        .tags = r->prepared->o->tags.n ? r->prepared->tags : x->there->tags};
	struct plan_totals t;
	int rc = -1;

	if (prepared_add_rows(r->prepared, plan, r->files, r->n_threads, NULL, &spec, &t, err) < 0) {
		job_plan_abort(plan);
	} else {
		x->differs = !inputs_are_same(&x->there->inputs, &spec.inputs);
		x->is_same = !x->differs && !shards_differ(r, x->job, x->there);
		if (x->is_same)
			job_plan_abort(plan);
		rc = x->is_same ? 0 : prepared_commit(r->prepared, plan, &spec, err);
		if (rc < 0 && err->code == ERR_FINGERPRINT)
			explain_refusal(x->job, err);
	}
	inputs_release(&spec.inputs);
	return rc;
}

/* plan_fn: the same rows in other shards; nothing of the spec changes but this number. */
static int plan_shards(void *arg, struct job_plan *plan, struct err *err)
{
	struct planning *x = arg;
	struct buf text = {0};
	int rc = -1;

	x->there->n_shards = x->r->prepared->o->shards;
	spec_write(x->there, &text);
	job_plan_set_shards(plan, x->there->n_shards);
	if (job_replan_add_same(plan, err) < 0)
		job_plan_abort(plan);
	else
		rc = job_plan_commit(plan, text.data, 0, err);
	buf_release(&text);
	return rc;
}

/* plan_fn: the same rows, some of them without their results. As many shards as there are: whoever asked for them need not ask again. */
static int plan_rows_again(void *arg, struct job_plan *plan, struct err *err)
{
	struct planning *x = arg;
	int rc = -1;

	job_plan_set_shards(plan, job_n_shards(x->job));
	if (job_replan_add_same(plan, err) < 0)
		job_plan_abort(plan);
	else
		rc = job_plan_commit(plan, job_spec(x->job), 0, err);
	x->is_same = rc == 1;
	return rc < 0 ? -1 : 0;
}

/* Plan from *job as it is. 1: the wish is fulfilled; 0: another process has planned meanwhile, look again; -1. */
static int plan_once(const struct replan *r, struct job **job, struct job_spec *there, int differs, struct err *err)
{
	struct job_replan how = {.may_drop = r->may_drop};
	struct planning x = {r, *job, there, differs, 0};
	struct job *before = *job;
	int rc = plan_again_in_turn(*job, &how, r->worker, differs ? plan_files : plan_shards, &x, err);

	if (rc < 0 || x.is_same)
		return rc < 0 ? -1 : 1;
	*job = job_open(store_place(job_store(before)), err);
	if (*job && rc == 1)
		tell(before, *job, &how, x.differs);
	job_close(before);
	return *job ? rc : -1;
}

int replan_as_asked(const struct replan *r, struct job **job, struct err *err)
{
	int from_stdin = reads_standard_input(r->files), rc;
	struct job_inputs now = {0};

	rc = r->files->n && !from_stdin ? digest_inputs(r->files, &now, err) : 0;
	while (rc == 0) {
		struct job_spec there;
		int differs;

		if (spec_read(job_spec(*job), &there, err) < 0) {
			rc = -1;
			break;
		}
		differs = r->files->n && (from_stdin || !inputs_are_same(&there.inputs, &now));
		rc = !differs && !shards_differ(r, *job, &there) ? 1 : plan_once(r, job, &there, differs, err);
		spec_release(&there);
		if (rc == 0 && from_stdin)
			rc = err_set(err, ERR_RETRY,
			             "%s: another process has planned it meanwhile, and standard input cannot be read twice: start again",
			             store_place(job_store(*job)));
	}
	inputs_release(&now);
	return rc < 0 ? -1 : 0;
}

int replan_rows_again(struct job **job, const struct job_worker *worker, struct job_replan *how, struct err *err)
{
	struct planning x = {0};
	int rc;

	do {
		x.job = *job;
		rc = plan_again_in_turn(*job, how, worker, plan_rows_again, &x, err);
		if (rc < 0)
			return -1;
		if (x.is_same)
			return 1;
		if (reopen(job, err) < 0)
			return -1;
	} while (rc == 0);
	return 0;
}
