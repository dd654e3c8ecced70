/* progress.h: how far a run is: a line that redraws itself on a terminal, a log line every ten seconds elsewhere, or one JSON
 * object a second for programs. To stderr, always. */
#ifndef TOKENMILL_RUNNER_PROGRESS_H
#define TOKENMILL_RUNNER_PROGRESS_H

#include <stdint.h>

#include "engine/engine.h"

enum progress_style { PROGRESS_AUTO = 0, PROGRESS_JSON = 1, PROGRESS_NONE = 2 };

struct progress {
	enum progress_style style;
	int64_t n_rows, n_done, n_failed; /* of the job */
	int64_t n_done_at_start;
	double start_s, next_s; /* monotonic */
	double rate_since_s;    /* rates are over a sliding window of about ten seconds */
	uint64_t in_before, out_before;
	double in_rate, out_rate; /* tokens per second */
};

void progress_init(struct progress *p, enum progress_style style, int64_t n_rows, int64_t n_done);
/* Call as often as you like: prints when it is time. */
void progress_show(struct progress *p, const struct engine_stats *s);
void progress_end(struct progress *p);

/* "1:02:03" or "0:42" into out. */
void progress_duration(double seconds, char out[32]);

#endif
