/* metrics.c: counting, and handing over what was counted. */
#include "runner/metrics.h"

#include <string.h>

#include "base/clock.h"
#include "base/errors.h"
#include "base/mem.h"

#define SHOW_PERIOD_S 0.05 /* far more often than anybody scrapes */

void metrics_init(struct metrics *m, double stall_s)
{
	memset(m, 0, sizeof(*m));
	if (pthread_mutex_init(&m->lock, NULL) != 0)
		BUG("no mutex");
	m->stall_s = stall_s;
	m->started_unix_s = (double)clock_unix_ms() / 1e3;
	atomic_store(&m->beat_ms, (int64_t)(clock_seconds() * 1e3));
	atomic_store(&m->stage, METRICS_STARTING);
}

void metrics_release(struct metrics *m)
{
	pthread_mutex_destroy(&m->lock);
}

static void count(struct metrics *m, enum metric_histogram h, double v, uint64_t times)
{
	struct metric_counts *c = &m->own.histogram[h];
	int n, i = 0;
	const double *bounds = metric_bounds(h, &n);

	while (i < n && v > bounds[i])
		i++;
	c->in[i] += times;
	c->sum += v * (double)times;
}

void metrics_observe(struct metrics *m, const struct engine_result *r)
{
	static const enum metric by_reason[] = {[FINISH_STOP] = METRIC_ENDED_STOP,
	                                        [FINISH_LENGTH] = METRIC_ENDED_LENGTH,
	                                        [FINISH_ABORT] = METRIC_ENDED_ABORT,
	                                        [FINISH_ERROR] = METRIC_ENDED_ERROR};
	/* The first token is prefill's. The engine tells how long all the others took, so each is counted as taking the same. */
	uint64_t n_intervals = r->n_tokens > 1 ? r->n_tokens - 1 : 0;

	if (r->reason == FINISH_NONE)
		return;
	m->own.value[by_reason[r->reason]]++;
	if (r->reason != FINISH_STOP && r->reason != FINISH_LENGTH)
		return;
	count(m, METRIC_TTFT, r->wait_s + r->prefill_s, 1);
	if (n_intervals) {
		double each = r->decode_s / (double)n_intervals;

		count(m, METRIC_TIME_PER_TOKEN, each, n_intervals);
		count(m, METRIC_INTER_TOKEN, each, n_intervals);
		count(m, METRIC_REQUEST_TIME_PER_TOKEN, each, 1);
	}
	count(m, METRIC_E2E, r->wait_s + r->prefill_s + r->decode_s, 1);
	count(m, METRIC_QUEUE, r->wait_s, 1);
	count(m, METRIC_INFERENCE, r->prefill_s + r->decode_s, 1);
	count(m, METRIC_PREFILL, r->prefill_s, 1);
	count(m, METRIC_DECODE, r->decode_s, 1);
	count(m, METRIC_REQUEST_PROMPT_TOKENS, (double)r->n_prompt, 1);
	count(m, METRIC_REQUEST_GENERATION_TOKENS, (double)r->n_tokens, 1);
}

int metrics_step(struct metrics *m)
{
	double now = clock_seconds();

	atomic_store_explicit(&m->beat_ms, (int64_t)(now * 1e3), memory_order_relaxed);
	if (now < m->next_s)
		return 0;
	m->next_s = now + SHOW_PERIOD_S;
	return 1;
}

void metrics_from_engine(struct metrics *m, const struct engine *e)
{
	const struct engine_plan *p = engine_plan(e);
	double *v = m->own.value;
	struct engine_stats s;

	engine_get_stats(e, &s);
	v[METRIC_RUNNING] = s.n_running;
	v[METRIC_WAITING] = s.n_waiting;
	v[METRIC_KV_USAGE] = p->n_kv_blocks > 0 ? (double)s.kv_blocks_used / p->n_kv_blocks : 0;
	v[METRIC_PROMPT_TOKENS] = (double)s.prompt_tokens;
	v[METRIC_GENERATION_TOKENS] = (double)s.output_tokens;
	v[METRIC_PREFIX_QUERIES] = (double)s.prompt_tokens;
	v[METRIC_PREFIX_HITS] = (double)s.cached_tokens;
	v[METRIC_PREEMPTIONS] = (double)s.n_preemptions;
	v[METRIC_RECOMPUTED_TOKENS] = (double)s.recomputed_tokens;
	v[METRIC_BUSY_S] = s.busy_s;
	v[METRIC_STEPS] = (double)s.n_steps;
	v[METRIC_PEAK_BYTES] = (double)mem_peak_bytes();
}

void metrics_show(struct metrics *m)
{
	if (pthread_mutex_trylock(&m->lock) != 0)
		return;
	m->shown = m->own;
	pthread_mutex_unlock(&m->lock);
}

void metrics_enter(struct metrics *m, enum metrics_stage stage)
{
	pthread_mutex_lock(&m->lock);
	m->shown = m->own;
	pthread_mutex_unlock(&m->lock);
	atomic_store(&m->beat_ms, (int64_t)(clock_seconds() * 1e3));
	atomic_store(&m->stage, (int)stage);
}

int metrics_health(struct metrics *m, int *ready, struct buf *out)
{
	int stage = atomic_load(&m->stage);
	double silent_s = clock_seconds() - (double)atomic_load(&m->beat_ms) / 1e3;

	*ready = stage != METRICS_STARTING;
	if (stage == METRICS_WORKING && silent_s > m->stall_s) {
		*ready = 0;
		buf_addf(out, "no step of the engine for %.0f s\n", silent_s);
		return 0;
	}
	buf_adds(out, stage == METRICS_STARTING ? "starting\n" : stage == METRICS_WORKING ? "working\n" : "ending\n");
	return 1;
}
