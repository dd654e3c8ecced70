/* merging.c: who merges, and waiting for another one. */
#include "runner/merging.h"

#include <time.h>

#include "base/buf.h"
#include "base/log.h"
#include "runner/signals.h"

int merging_run(struct job *j, const struct job_worker *w, const char *usage_extra_json, int must_wait, struct err *err)
{
	struct merge_watch *watch = merge_watch_open(j, w);
	struct buf who = {0};
	double pause = 0.1;
	int rc, is_alive, told = 0;

	for (;;) {
		buf_reset(&who);
		rc = job_merge_in_turn(j, watch, usage_extra_json, &is_alive, &who, err);
		if (rc != 0)
			break;
		if (is_alive && !must_wait) {
			log_info("%s merges the results", buf_str(&who));
			break;
		}
		if (!told)
			log_info("%s is merging, or was: waiting for it", buf_str(&who));
		told = 1;
		for (double left = pause; left > 0 && !signals_received(); left -= 0.05)
			nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
		if (signals_received()) {
			rc = signals_drained(err);
			break;
		}
		pause = pause < 2 ? pause * 1.5 : 2;
	}
	buf_release(&who);
	merge_watch_close(watch);
	return rc;
}
