/* replan.c: what differs, the new plan, and waiting for others who plan. */
#include "runner/replan.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "queue/store.h"
#include "runner/signals.h"

/* Another planner is waited for as long as a worker that gives no sign of life is believed in. */
enum { WAIT_S = 600 };

struct wait {
	double since_s; /* 0: not yet */
};

static int reopen(struct job **job, struct err *err)
{
	char *place = xstrdup(store_place(job_store(*job)));

	job_close(*job);
	*job = job_open(place, err);
	free(place);
	return *job ? 0 : -1;
}

/* Another process plans, or has planned: wait a moment, and look at the job as it is then. Any other failure stays one. */
static int wait_for_other(struct wait *w, struct job **job, struct err *err)
{
	enum err_code code = err->code;

	if (code != ERR_RETRY && code != ERR_FENCED)
		return -1;
	if (w->since_s == 0) {
		w->since_s = clock_seconds();
		if (code == ERR_RETRY)
			log_info("%s", err->msg);
	}
	if (clock_seconds() - w->since_s > WAIT_S)
		return -1;
	err_clear(err);
	if (code == ERR_RETRY)
		nanosleep(&(struct timespec){0, 200000000}, NULL);
	if (signals_received())
		return signals_drained(err);
	return reopen(job, err);
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

/* 0: done, or nothing differs after all; -1: also ERR_RETRY, ERR_FENCED. */
static int plan_files(const struct replan *r, struct job **job, const struct job_spec *there, struct err *err)
{
	struct job_replan how = {.may_drop = r->may_drop};
	struct job_spec spec = {.n_shards = r->prepared->o->shards ? r->prepared->o->shards : there->n_shards,
	                        .folds = r->prepared->o->fold || there->folds,
	                        .tags = r->prepared->o->tags.n ? r->prepared->tags : there->tags};
	struct job_plan *plan = job_replan_begin(*job, &how, err);
	struct job *before = *job;
	struct plan_totals t;
	int rc = -1;

	if (!plan)
		return -1;
	if (prepared_add_rows(r->prepared, plan, r->files, r->n_threads, NULL, &spec, &t, err) < 0) {
		job_plan_abort(plan);
	} else if (inputs_are_same(&there->inputs, &spec.inputs) && !shards_differ(r, *job, there)) {
		job_plan_abort(plan);
		rc = 0;
	} else {
		int differs = !inputs_are_same(&there->inputs, &spec.inputs);

		rc = prepared_commit(r->prepared, plan, &spec, err);
		if (rc < 0 && err->code == ERR_FINGERPRINT)
			explain_refusal(*job, err);
		if (rc == 0) {
			*job = job_open(store_place(job_store(before)), err);
			rc = *job ? 0 : -1;
			if (rc == 0)
				tell(before, *job, &how, differs);
			job_close(before);
		}
	}
	inputs_release(&spec.inputs);
	return rc;
}

/* The same rows in other shards: nothing of the spec changes but this number. */
static int plan_shards(const struct replan *r, struct job **job, struct job_spec *there, struct err *err)
{
	struct job_replan how = {0};
	struct job_plan *plan = job_replan_begin(*job, &how, err);
	struct job *before = *job;
	struct buf text = {0};
	int rc = -1;

	if (!plan)
		return -1;
	there->n_shards = r->prepared->o->shards;
	spec_write(there, &text);
	job_plan_set_shards(plan, there->n_shards);
	if (job_replan_add_same(plan, err) < 0)
		job_plan_abort(plan);
	else
		rc = job_plan_commit(plan, text.data, 0, err);
	buf_release(&text);
	if (rc < 0)
		return -1;
	*job = job_open(store_place(job_store(before)), err);
	if (*job)
		tell(before, *job, &how, 0);
	job_close(before);
	return *job ? 0 : -1;
}

int replan_as_asked(const struct replan *r, struct job **job, struct err *err)
{
	int from_stdin = reads_standard_input(r->files), differs, rc;
	struct job_inputs now = {0};
	struct job_spec there;
	struct wait wait = {0};

	rc = r->files->n && !from_stdin ? digest_inputs(r->files, &now, err) : 0;
	while (rc == 0) {
		if (spec_read(job_spec(*job), &there, err) < 0) {
			rc = -1;
			break;
		}
		differs = r->files->n && (from_stdin || !inputs_are_same(&there.inputs, &now));
		if (!differs && !shards_differ(r, *job, &there)) {
			spec_release(&there);
			break;
		}
		rc = differs ? plan_files(r, job, &there, err) : plan_shards(r, job, &there, err);
		spec_release(&there);
		if (rc == 0)
			break;
		/* What was read from standard input is gone. */
		if (from_stdin && err->code == ERR_FENCED)
			break;
		rc = *job ? wait_for_other(&wait, job, err) : -1;
	}
	inputs_release(&now);
	return rc;
}

int replan_rows_again(struct job **job, struct job_replan *how, struct err *err)
{
	struct wait wait = {0};

	for (;;) {
		struct job_plan *plan = job_replan_begin(*job, how, err);
		int rc = -1;

		/* As many shards as there are: whoever asked for them need not be asked again. */
		if (plan)
			job_plan_set_shards(plan, job_n_shards(*job));
		if (plan && job_replan_add_same(plan, err) == 0)
			rc = job_plan_commit(plan, job_spec(*job), 0, err);
		else
			job_plan_abort(plan);
		if (rc >= 0)
			return rc == 0 ? reopen(job, err) : 1;
		if (wait_for_other(&wait, job, err) < 0)
			return -1;
	}
}
