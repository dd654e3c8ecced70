/* plan_watch.c: of workers that find no plan one makes it, and the others watch him. His claim is judged as a shard's is (rank.h); his heartbeat
 * is a small file beside it, plan-beat-NNNN, since rows may come slowly and cutting shards takes a while. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/mem.h"
#include "queue/observer.h"
#include "queue/plan_private.h"
#include "queue/rank.h"

#define PLAN_BEAT_S 2.0

char *plan_beat_name(int64_t claim_number)
{
	return path_format("plan-beat-%04" PRId64, claim_number);
}

int plan_beat(struct job_plan *p, struct err *err)
{
	double now = clock_seconds();
	char *name, text[32];
	struct err ignored = {0};
	int rc;

	if (now < p->next_beat_s)
		return 0;
	rc = store_exists(p->store, p->next_claim_name, err);
	if (rc == 1)
		return err_set(err, ERR_FENCED, "%s: another process took over the planning", store_place(p->store));
	if (rc < 0)
		return -1;
	name = plan_beat_name(p->claim_number);
	snprintf(text, sizeof(text), "%" PRId64 "\n", ++p->beat);
	/* Without it others may take over, which is no harm. */
	store_put(p->store, name, text, strlen(text), &ignored);
	free(name);
	p->next_beat_s = clock_seconds() + PLAN_BEAT_S;
	return 0;
}

struct plan_watch {
	struct store *store;
	struct job *from;       /* NULL: for a job's first plan */
	struct job_replan *how;
	struct job_worker worker;
	struct observer observer;
	int64_t judged; /* the claim that the last look found to be a dead planner's, 0: none */
};

struct plan_watch *plan_watch_open(const char *place, const struct job_worker *worker, struct err *err)
{
	struct plan_watch *w = xcalloc(1, sizeof(*w));

	w->worker = *worker;
	w->store = store_open(place, err);
	if (!w->store) {
		free(w);
		return NULL;
	}
	return w;
}

struct plan_watch *plan_watch_open_again(struct job *from, struct job_replan *how, const struct job_worker *worker, struct err *err)
{
	struct plan_watch *w = plan_watch_open(store_place(from->store), worker, err);

	if (w) {
		w->from = from;
		w->how = how;
	}
	return w;
}

void plan_watch_close(struct plan_watch *w)
{
	if (!w)
		return;
	observer_release(&w->observer);
	store_close(w->store);
	free(w);
}

/* 1: and the plan is committed already, under this name: this listing may be newer than the look for it. 0, -1. */
static int highest_claim(struct store *s, const char *commit, int64_t *highest, struct err *err)
{
	char **names;
	size_t n;
	int is_planned = 0;

	*highest = 0;
	if (store_list(s, "", &names, &n, err) < 0)
		return -1;
	for (size_t i = 0; i < n; i++) {
		int64_t number = name_number(names[i], "plan-claim");

		if (number > *highest)
			*highest = number;
		is_planned |= strcmp(names[i], commit) == 0;
	}
	store_names_free(names, n);
	return is_planned;
}

/* The beat of a claim: 0 while there is none. What cannot be read has not changed. */
static struct signs look_at_beat(struct plan_watch *w, const char *name)
{
	struct err ignored = {0};
	struct buf b = {0};
	struct signs signs;
	int64_t beat = store_get(w->store, name, 64, &b, &ignored) == 1 ? strtoll(buf_str(&b), NULL, 10) : 0;

	signs = observer_note(&w->observer, name, beat, clock_seconds());
	buf_release(&b);
	return signs;
}

int plan_watch_look(struct plan_watch *w, struct buf *who, double *still_s, struct err *err)
{
	struct shard_seen seen = {.is_claimed = 1, .index_is_default = w->worker.index_is_default};
	struct claim holder, here;
	struct signs signs;
	int64_t highest;
	char *name = job_commit_name(w->from ? w->from->generation + 1 : 1);
	int rc = store_exists(w->store, name, err);

	w->judged = 0;
	if (rc == 0)
		rc = highest_claim(w->store, name, &highest, err);
	else
		highest = 0;
	free(name);
	if (rc != 0)
		return rc < 0 ? -1 : 2;
	if (highest == 0)
		return 1;
	name = path_format("plan-claim-%04" PRId64, highest);
	rc = claim_read(&holder, w->store, name, err);
	free(name);
	if (rc <= 0)
		return rc; /* it ended just now */
	claim_begin(&here, w->worker.index, w->worker.attempt);
	claim_end(&here);
	name = plan_beat_name(highest);
	signs = look_at_beat(w, name);
	free(name);
	seen.claimant = claim_claimant(&holder);
	seen.same_index = holder.worker == here.worker;
	seen.same_host_name = strcmp(holder.host, here.host) == 0;
	seen.other_job = *holder.job_uid && *here.job_uid && strcmp(holder.job_uid, here.job_uid) != 0;
	seen.has_moved = signs.has_moved;
	seen.still_s = signs.still_s;
	if (shard_rank(&seen, w->worker.takeover_after_s) >= RANK_ORPHAN) {
		w->judged = highest;
		return 1;
	}
	if (who)
		claim_describe(&holder, who);
	if (still_s)
		*still_s = signs.still_s;
	return 0;
}

struct job_plan *plan_watch_begin(struct plan_watch *w, struct err *err)
{
	struct job_plan *p = xcalloc(1, sizeof(*p));

	p->generation = 1;
	p->judged = w->judged;
	claim_begin(&p->claim, w->worker.index, w->worker.attempt);
	if (w->from)
		plan_follow(p, w->from, w->how);
	p->store = store_open(store_place(w->store), err);
	if (!p->store || store_prepare(p->store, err) < 0 || plan_begin(p, err) < 0) {
		job_plan_abort(p);
		return NULL;
	}
	return p;
}
