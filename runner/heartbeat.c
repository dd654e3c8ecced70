/* heartbeat.c: filling in the attempt, and when to write it. */
#include "runner/heartbeat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <stdlib.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "queue/claim.h"
#include "runner/crash_mark.h"
#include "runner/version.h"

#define LONGEST_PERIOD_S 30.0

int heartbeat_init(struct heartbeat *h, int worker, double start_s, struct err *err)
{
	struct attempt *a = &h->told;
	const char *pod = getenv("TOKENMILL_POD_UID"); /* metadata.uid, by the downward API */
	unsigned char random[8];
	size_t n = 0;
	struct claim here;

	*h = (struct heartbeat){.start_s = start_s};
	if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
		return err_sys(err, ERR_OTHER, "cannot get random bytes");
	/* A container may be started more than once in one pod, so the pod alone does not make it unique. */
	if (pod && *pod) {
		if (strlen(pod) > sizeof(a->id) - 2 * sizeof(random) - 2)
			return err_set(err, ERR_USAGE, "TOKENMILL_POD_UID is longer than a pod's uid: '%.80s'", pod);
		n = (size_t)snprintf(a->id, sizeof(a->id), "%s-", pod);
	}
	for (size_t i = 0; i < sizeof(random); i++)
		snprintf(a->id + n + 2 * i, 3, "%02x", random[i]);
	claim_begin(&here, worker, NULL);
	claim_end(&here);
	a->worker = worker;
	a->pid = here.pid;
	a->state = ATTEMPT_RUNNING;
	snprintf(a->host, sizeof(a->host), "%s", here.host);
	snprintf(a->job_uid, sizeof(a->job_uid), "%s", here.job_uid);
	snprintf(a->program, sizeof(a->program), "%s", TOKENMILL_VERSION);
	snprintf(a->end_code, sizeof(a->end_code), "%s", err_code_name(ERR_NONE));
	a->started_unix_ms = clock_unix_ms();
	return 0;
}

void heartbeat_tell(struct heartbeat *h, const struct work_totals *t, size_t n_in_flight)
{
	struct attempt *a = &h->told;
	struct engine_stats s = {0};
	struct err ignored = {0};
	double now = clock_seconds();

	if (!h->store)
		return;
	if (h->engine)
		engine_get_stats(h->engine, &s);
	a->beat++;
	a->updated_unix_ms = clock_unix_ms();
	a->wall_s = now - h->start_s;
	a->load_s = (h->ready_s > 0 ? h->ready_s : now) - h->start_s;
	a->busy_s = s.busy_s;
	a->publish_s = t->publish_s;
	a->rows = t->n_rows;
	a->rows_failed = t->n_failed;
	a->prompt_tokens = t->prompt_tokens;
	a->cached_tokens = t->cached_tokens;
	a->output_tokens = t->output_tokens;
	a->reasoning_tokens = t->reasoning_tokens;
	a->recomputed_tokens = t->recomputed_tokens;
	a->in_flight = (int64_t)n_in_flight;
	a->peak_bytes = (int64_t)mem_peak_bytes();
	if (attempt_write(h->store, a, &ignored) < 0) {
		log_debug("attempt %s: %s", a->id, ignored.msg);
		h->n_failed++;
	} else {
		h->written_s = clock_seconds();
	}
	h->next_s = clock_seconds() + h->period_s;
}

void heartbeat_start(struct heartbeat *h, struct store *s, double takeover_after_s)
{
	static const struct work_totals nothing;

	char *mark = attempt_crash_name(h->told.worker, h->told.id), *path = store_dir(s) ? store_name(s, mark) : NULL;

	h->store = s;
	crash_mark_install(path);
	free(path);
	free(mark);
	h->period_s = takeover_after_s / 4 < LONGEST_PERIOD_S ? takeover_after_s / 4 : LONGEST_PERIOD_S;
	heartbeat_tell(h, &nothing, 0);
}

void heartbeat_beat(struct heartbeat *h, const struct work_totals *t, size_t n_in_flight)
{
	if (h->store && clock_seconds() >= h->next_s)
		heartbeat_tell(h, t, n_in_flight);
}

void heartbeat_end(struct heartbeat *h, const struct work_totals *t, const struct err *why)
{
	h->told.state = ATTEMPT_ENDED;
	snprintf(h->told.end_code, sizeof(h->told.end_code), "%s", err_code_name(why ? why->code : ERR_NONE));
	snprintf(h->told.end, sizeof(h->told.end), "%.511s", why && why->code ? why->msg : "");
	heartbeat_tell(h, t, 0);
}
