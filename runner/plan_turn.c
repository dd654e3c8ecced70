/* plan_turn.c: looking, waiting, trying. */
#include "runner/plan_turn.h"

#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "queue/store.h"
#include "runner/signals.h"

/* 0, or -1 and ERR_DRAINED. */
static int wait_a_while(double seconds, struct err *err)
{
	double until = clock_seconds() + seconds;

	while (clock_seconds() < until) {
		if (signals_received())
			return signals_drained(err);
		nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
	}
	return 0;
}

/* It is free to plan. 1: done; 0: another process was quicker, or took over; -1. */
static int try_to_plan(struct plan_watch *watch, plan_fn fn, void *arg, struct err *err)
{
	struct err why = {0}, ignored = {0};
	struct job_plan *p = plan_watch_begin(watch, &why);

	if (p && fn(arg, p, &why) == 0)
		return 1;
	if (why.code == ERR_FENCED || (!p && why.code == ERR_RETRY) ||
	    (why.code != ERR_DRAINED && plan_watch_look(watch, NULL, NULL, &ignored) == 2)) {
		log_info("%s", why.msg);
		return 0;
	}
	return err_set(err, why.code, "%s", why.msg);
}

static int in_turn(struct plan_watch *watch, const char *place, const struct job_worker *w, plan_fn fn, void *arg, struct err *err)
{
	/* Often enough to see a heartbeat move before it counts as silence, and seldom enough for storage that counts requests. */
	double pause = 0.05, longest = w->takeover_after_s / 10 < 5 ? w->takeover_after_s / 10 : 5, told_s = 0, still_s;
	int rc = watch ? 0 : -1;

	while (rc == 0) {
		struct buf who = {0};
		int seen = plan_watch_look(watch, &who, &still_s, err);

		if (seen == 2) {
			buf_release(&who);
			break;
		}
		if (seen < 0)
			rc = -1;
		else if (seen == 1)
			rc = try_to_plan(watch, fn, arg, err);
		if (rc == 0 && seen == 0 && who.len && (told_s == 0 || clock_seconds() - told_s > 60)) {
			if (still_s > 10)
				log_info("%s: %s was planning it, no sign of life for %.0f s; after %.0f s it is taken over", place, who.data, still_s,
				         w->takeover_after_s);
			else
				log_info("%s: waiting for %s, which plans it", place, who.data);
			told_s = clock_seconds();
		}
		buf_release(&who);
		if (rc == 0)
			rc = wait_a_while(pause, err);
		pause = pause * 1.5 < longest ? pause * 1.5 : longest;
	}
	plan_watch_close(watch);
	return rc;
}

int plan_in_turn(const char *place, const struct job_worker *w, plan_fn fn, void *arg, struct err *err)
{
	return in_turn(plan_watch_open(place, w, err), place, w, fn, arg, err);
}

int plan_again_in_turn(struct job *from, struct job_replan *how, const struct job_worker *w, plan_fn fn, void *arg, struct err *err)
{
	return in_turn(plan_watch_open_again(from, how, w, err), store_place(job_store(from)), w, fn, arg, err);
}
