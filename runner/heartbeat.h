/* heartbeat.h: what this worker tells of itself in the job's events/ (queue/attempt.h): once before it loads, every few seconds from between the
 * engine's steps (so an engine that hangs stops the beat, too), and at its end.
 *
 * Not being able to write it is no reason to stop: it is tried again at the next beat. */
#ifndef TOKENMILL_RUNNER_HEARTBEAT_H
#define TOKENMILL_RUNNER_HEARTBEAT_H

#include "engine/engine.h"
#include "queue/attempt.h"
#include "queue/job.h"
#include "runner/work.h"

struct heartbeat {
	struct attempt told;
	struct store *store;  /* the job's, borrowed; NULL before heartbeat_start: nothing is told */
	const struct engine *engine; /* NULL while there is none */
	double period_s, next_s;
	double start_s, ready_s; /* started; ready to work, 0 before */
	double written_s;        /* when it was last written, 0 never */
	int64_t n_failed;        /* times that it could not be */
};

/* A new attempt of the worker with this index; start_s: when the process began. */
int heartbeat_init(struct heartbeat *h, int worker, double start_s, struct err *err);
/* From now on it is told, first at once. takeover_after_s: what others wait for; the beat is four times as fast, and at least every 30 s. */
void heartbeat_start(struct heartbeat *h, struct store *s, double takeover_after_s);
/* Call as often as you like: tells when it is time. */
void heartbeat_beat(struct heartbeat *h, const struct work_totals *t, size_t n_in_flight);
/* Tell now. */
void heartbeat_tell(struct heartbeat *h, const struct work_totals *t, size_t n_in_flight);
/* The last word; why: what ended it, NULL or empty for a good end. */
void heartbeat_end(struct heartbeat *h, const struct work_totals *t, const struct err *why);

#endif
