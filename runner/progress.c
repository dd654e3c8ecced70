/* progress.c: what is shown, and how often. */
#include "runner/progress.h"

#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"

void progress_duration(double seconds, char out[32])
{
	long long s = seconds < 0 ? 0 : seconds > 1e9 ? 1000000000 : (long long)(seconds + 0.5);

	if (s >= 3600)
		snprintf(out, 32, "%lld:%02lld:%02lld", s / 3600, s / 60 % 60, s % 60);
	else
		snprintf(out, 32, "%lld:%02lld", s / 60, s % 60);
}

void progress_init(struct progress *p, enum progress_style style, int64_t n_rows, int64_t n_done)
{
	double now = clock_seconds();

	*p = (struct progress){.style = style,
	                       .n_rows = n_rows,
	                       .n_done = n_done,
	                       .n_done_at_start = n_done,
	                       .start_s = now,
	                       .next_s = now + 1,
	                       .rate_since_s = now};
}

static void update_rates(struct progress *p, const struct engine_stats *s, double now)
{
	double span = now - p->rate_since_s;

	if (span <= 0)
		return;
	p->in_rate = (double)(s->prompt_tokens - p->in_before) / span;
	p->out_rate = (double)(s->output_tokens - p->out_before) / span;
	if (span >= 10) {
		p->rate_since_s = now;
		p->in_before = s->prompt_tokens;
		p->out_before = s->output_tokens;
	}
}

void progress_show(struct progress *p, const struct engine_stats *s)
{
	double now = clock_seconds(), elapsed = now - p->start_s, eta = -1;
	int64_t done_here = p->n_done - p->n_done_at_start;
	double cached = s->prompt_tokens ? 100.0 * (double)s->cached_tokens / (double)s->prompt_tokens : 0;
	char line[240], left[32] = "?";

	if (p->style == PROGRESS_NONE || now < p->next_s)
		return;
	p->next_s = now + (p->style == PROGRESS_JSON || log_is_terminal() ? 1 : 10);
	update_rates(p, s, now);
	if (done_here > 0) {
		eta = elapsed / (double)done_here * (double)(p->n_rows - p->n_done);
		progress_duration(eta, left);
	}
	if (p->style == PROGRESS_JSON) {
		fprintf(stderr,
		        "{\"rows\":%lld,\"rows_done\":%lld,\"rows_failed\":%lld,\"prompt_tokens\":%llu,\"cached_tokens\":%llu,"
		        "\"output_tokens\":%llu,\"in_tokens_per_s\":%.1f,\"out_tokens_per_s\":%.1f,\"running\":%d,\"waiting\":%d,"
		        "\"elapsed_s\":%.1f,\"eta_s\":%.1f}\n",
		        (long long)p->n_rows, (long long)p->n_done, (long long)p->n_failed, (unsigned long long)s->prompt_tokens,
		        (unsigned long long)s->cached_tokens, (unsigned long long)s->output_tokens, p->in_rate, p->out_rate,
		        s->n_running, s->n_waiting, elapsed, eta);
		return;
	}
	snprintf(line, sizeof(line), "%lld/%lld rows  in %.0f tok/s  out %.0f tok/s  cached %.0f%%  running %d  left %s",
	         (long long)p->n_done, (long long)p->n_rows, p->in_rate, p->out_rate, cached, s->n_running, left);
	if (log_is_terminal())
		log_status(line);
	else
		log_info("%s", line);
}

void progress_end(struct progress *p)
{
	if (p->style == PROGRESS_AUTO)
		log_status(NULL);
}
