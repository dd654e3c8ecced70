/* plan_turn.h: of workers that start on an empty place at once, or would plan a job again, one plans, and the others wait for its plan: or take over,
 * should it die. */
#ifndef TOKENMILL_RUNNER_PLAN_TURN_H
#define TOKENMILL_RUNNER_PLAN_TURN_H

#include "queue/job.h"

/* Plans into p, which is its to commit or abort. 0 or -1. */
typedef int (*plan_fn)(void *arg, struct job_plan *p, struct err *err);

/* 1: fn has planned the job; 0: it is there, planned by another process (also when fn was overtaken, or failed after another one had committed); -1,
 * ERR_DRAINED after a signal. */
int plan_in_turn(const char *place, const struct job_worker *w, plan_fn fn, void *arg, struct err *err);
/* The same for the plan after from's (job_replan_begin). */
int plan_again_in_turn(struct job *from, struct job_replan *how, const struct job_worker *w, plan_fn fn, void *arg, struct err *err);

#endif
