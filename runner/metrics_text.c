/* metrics_text.c: names, and the text format (prometheus.io, "Exposition formats", version 0.0.4). */
#include "runner/metrics.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

struct metric_name {
	const char *name, *type, *label, *help; /* help NULL: one more of the name before */
};

/* Types and labels of vllm: ones as vLLM has them: "model_name" and "engine". */
static const struct metric_name names[METRIC_N] = {
    [METRIC_RUNNING] = {"vllm:num_requests_running", "gauge", NULL, "Requests in the batch"},
    [METRIC_WAITING] = {"vllm:num_requests_waiting", "gauge", NULL, "Requests that wait to be admitted to the batch"},
    [METRIC_KV_USAGE] = {"vllm:kv_cache_usage_perc", "gauge", NULL, "Share of KV memory in use by requests; 1 is all of it"},
    [METRIC_PROMPT_TOKENS] = {"vllm:prompt_tokens_total", "counter", NULL, "Prompt tokens of requests that were admitted, cached ones included"},
    [METRIC_GENERATION_TOKENS] = {"vllm:generation_tokens_total", "counter", NULL, "Tokens generated"},
    [METRIC_PREFIX_QUERIES] = {"vllm:prefix_cache_queries_total", "counter", NULL, "Prompt tokens that were looked for in the prefix cache"},
    [METRIC_PREFIX_HITS] = {"vllm:prefix_cache_hits_total", "counter", NULL, "Prompt tokens that were found in the prefix cache"},
    [METRIC_PREEMPTIONS] = {"vllm:num_preemptions_total", "counter", NULL, "Requests that were put back since KV memory ran out"},
    [METRIC_ENDED_STOP] = {"vllm:request_success_total", "counter", "finished_reason=\"stop\"", "Requests that ended"},
    [METRIC_ENDED_LENGTH] = {"vllm:request_success_total", "counter", "finished_reason=\"length\"", NULL},
    [METRIC_ENDED_ABORT] = {"vllm:request_success_total", "counter", "finished_reason=\"abort\"", NULL},
    [METRIC_ENDED_ERROR] = {"vllm:request_success_total", "counter", "finished_reason=\"error\"", NULL},
    [METRIC_ROWS_OK] = {"tokenmill_rows_total", "counter", "state=\"ok\"", "Rows that this worker finished"},
    [METRIC_ROWS_FAILED] = {"tokenmill_rows_total", "counter", "state=\"failed\"", NULL},
    [METRIC_ROWS_IN_FLIGHT] = {"tokenmill_rows_in_flight", "gauge", NULL, "Rows given to the engine and not finished"},
    [METRIC_JOB_ROWS] = {"tokenmill_job_rows", "gauge", "state=\"planned\"", "Rows of the whole job: all; with a result, as far as this worker knows; at fault in the input"},
    [METRIC_JOB_ROWS_DONE] = {"tokenmill_job_rows", "gauge", "state=\"done\"", NULL},
    [METRIC_JOB_ROWS_AT_FAULT] = {"tokenmill_job_rows", "gauge", "state=\"at_fault\"", NULL},
    [METRIC_SHARDS_OPEN] = {"tokenmill_shards", "gauge", "state=\"open\"", "Shards that this worker holds, and that it has finished"},
    [METRIC_SHARDS_FINISHED] = {"tokenmill_shards", "gauge", "state=\"finished\"", NULL},
    [METRIC_JOB_SHARDS] = {"tokenmill_job_shards", "gauge", NULL, "Shards of the whole job"},
    [METRIC_RECOMPUTED_TOKENS] = {"tokenmill_recomputed_tokens_total", "counter", NULL, "Tokens computed again after a preemption or a kill"},
    [METRIC_BUSY_S] = {"tokenmill_busy_seconds_total", "counter", NULL, "Time in the engine's steps"},
    [METRIC_PUBLISH_S] = {"tokenmill_publish_seconds_total", "counter", NULL, "Time spent publishing finished rows"},
    [METRIC_PUBLISHES] = {"tokenmill_publishes_total", "counter", NULL, "Publishes"},
    [METRIC_LOAD_S] = {"tokenmill_load_seconds", "gauge", NULL, "From the start of the process until it was ready to work"},
    [METRIC_STORAGE_ERRORS] = {"tokenmill_storage_errors_total", "counter", NULL, "Publishes that failed and were tried again, and heartbeats that could not be written"},
    [METRIC_SPENT_USD] = {"tokenmill_spent_usd", "gauge", NULL, "Spent by this worker, of the budget"},
    [METRIC_BUDGET_USD] = {"tokenmill_budget_usd", "gauge", NULL, "The job's budget; 0 when it has none"},
    [METRIC_HEARTBEAT_AGE_S] = {"tokenmill_heartbeat_age_seconds", "gauge", NULL, "Since this worker's last heartbeat was written to the job"},
    [METRIC_STEPS] = {"tokenmill_steps_total", "counter", NULL, "Steps of the engine"},
    [METRIC_PEAK_BYTES] = {"tokenmill_peak_memory_bytes", "gauge", NULL, "Most memory that the process has had"},
};

struct histogram_name {
	const char *name, *help;
	const double *bounds;
	int n_bounds;
};

/* vLLM's, in vllm/v1/metrics/loggers.py */
static const double first_token_s[] = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1,  0.25, 0.5,   0.75,
                                       1,     2.5,   5,    7.5,  10,   20,   40,   80,   160,  640,   2560};
static const double token_s[] = {0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80};
static const double request_s[] = {0.3, 0.5, 0.8, 1,  1.5, 2,  2.5, 5,   10,  15,  20,
                                   30,  40,  50,  60, 120, 240, 480, 960, 1920, 7680};
static const double tokens[] = {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000, 200000};
#define BOUNDS(a) a, sizeof(a) / sizeof(*(a))

static const struct histogram_name histograms[METRIC_N_HISTOGRAMS] = {
    [METRIC_TTFT] = {"vllm:time_to_first_token_seconds", "From the submission of a request to its first token", BOUNDS(first_token_s)},
    [METRIC_TIME_PER_TOKEN] = {"vllm:time_per_output_token_seconds", "Between two tokens of a request: its mean, once for each", BOUNDS(token_s)},
    [METRIC_INTER_TOKEN] = {"vllm:inter_token_latency_seconds", "The same under vLLM's newer name", BOUNDS(token_s)},
    [METRIC_REQUEST_TIME_PER_TOKEN] = {"vllm:request_time_per_output_token_seconds", "Between two tokens of a request: its mean, once", BOUNDS(token_s)},
    [METRIC_E2E] = {"vllm:e2e_request_latency_seconds", "From the submission of a request to its end", BOUNDS(request_s)},
    [METRIC_QUEUE] = {"vllm:request_queue_time_seconds", "From the submission of a request to its admission", BOUNDS(request_s)},
    [METRIC_INFERENCE] = {"vllm:request_inference_time_seconds", "From the admission of a request to its end", BOUNDS(request_s)},
    [METRIC_PREFILL] = {"vllm:request_prefill_time_seconds", "From the admission of a request to its first token", BOUNDS(request_s)},
    [METRIC_DECODE] = {"vllm:request_decode_time_seconds", "From the first token of a request to its end", BOUNDS(request_s)},
    [METRIC_REQUEST_PROMPT_TOKENS] = {"vllm:request_prompt_tokens", "Prompt tokens of a request", BOUNDS(tokens)},
    [METRIC_REQUEST_GENERATION_TOKENS] = {"vllm:request_generation_tokens", "Tokens generated for a request", BOUNDS(tokens)},
};

_Static_assert(sizeof(first_token_s) / sizeof(*first_token_s) < METRIC_BUCKETS, "the longest");
_Static_assert(sizeof(request_s) / sizeof(*request_s) < METRIC_BUCKETS, "");

const double *metric_bounds(enum metric_histogram h, int *n)
{
	*n = histograms[h].n_bounds;
	return histograms[h].bounds;
}

/* The shortest form that reads back as the same number. */
static void write_number(struct buf *out, double v)
{
	char text[32];

	for (int digits = 6; digits <= 17; digits++) {
		snprintf(text, sizeof(text), "%.*g", digits, v);
		if (strtod(text, NULL) == v)
			break;
	}
	buf_adds(out, text);
}

/* The length of the UTF-8 character at s, 0 if it is none (RFC 3629). */
static size_t character_length(const unsigned char *s)
{
	size_t n = s[0] < 0x80 ? 1 : s[0] >= 0xC2 && s[0] < 0xE0 ? 2 : s[0] >= 0xE0 && s[0] < 0xF0 ? 3 : s[0] >= 0xF0 && s[0] < 0xF5 ? 4 : 0;

	for (size_t i = 1; i < n; i++)
		if ((s[i] & 0xC0) != 0x80)
			return 0;
	if ((s[0] == 0xE0 && s[1] < 0xA0) || (s[0] == 0xED && s[1] > 0x9F) || (s[0] == 0xF0 && s[1] < 0x90) || (s[0] == 0xF4 && s[1] > 0x8F))
		return 0;
	return n;
}

static void write_label(struct buf *out, const char *name, const char *value)
{
	buf_addf(out, "%s=\"", name);
	for (const unsigned char *s = (const unsigned char *)value; *s;) {
		size_t n = character_length(s);

		if (n == 0)
			buf_adds(out, "\xEF\xBF\xBD");
		else if (*s == '\n')
			buf_adds(out, "\\n");
		else if (*s == '"' || *s == '\\')
			buf_addf(out, "\\%c", *s);
		else
			buf_add(out, s, n);
		s += n ? n : 1;
	}
	buf_addc(out, '"');
}

static void write_head(struct buf *out, const char *name, const char *type, const char *help)
{
	buf_addf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void write_value(struct buf *out, const char *name, const char *labels, const char *more, double v)
{
	buf_addf(out, "%s{%s%s%s} ", name, labels, more ? "," : "", more ? more : "");
	write_number(out, v);
	buf_addc(out, '\n');
}

static void write_histogram(struct buf *out, const struct histogram_name *h, const struct metric_counts *c, const char *labels)
{
	uint64_t n = 0;

	write_head(out, h->name, "histogram", h->help);
	for (int i = 0; i <= h->n_bounds; i++) {
		n += c->in[i];
		buf_addf(out, "%s_bucket{%s,le=\"", h->name, labels);
		if (i < h->n_bounds)
			buf_addf(out, h->bounds[i] == floor(h->bounds[i]) ? "%.1f" : "%g", h->bounds[i]); /* as Python's client writes them */
		else
			buf_adds(out, "+Inf");
		buf_addf(out, "\"} %llu\n", (unsigned long long)n);
	}
	buf_addf(out, "%s_sum{%s} ", h->name, labels);
	write_number(out, c->sum);
	buf_addf(out, "\n%s_count{%s} %llu\n", h->name, labels, (unsigned long long)n);
}

void metrics_write(struct metrics *m, struct buf *out)
{
	double now = clock_seconds();
	struct metrics_values *v = malloc(sizeof(*v));
	struct buf vllm = {0}, own = {0};
	int stage = atomic_load(&m->stage);

	if (!v)
		return;
	pthread_mutex_lock(&m->lock);
	*v = m->shown;
	pthread_mutex_unlock(&m->lock);
	if (v->value[METRIC_HEARTBEAT_AGE_S] > 0)
		v->value[METRIC_HEARTBEAT_AGE_S] = now - v->value[METRIC_HEARTBEAT_AGE_S];
	write_label(&own, "model_name", v->model);
	buf_addf(&vllm, "engine=\"0\",%s", own.data);
	for (int i = 0; i < METRIC_N; i++) {
		if (names[i].help)
			write_head(out, names[i].name, names[i].type, names[i].help);
		write_value(out, names[i].name, strncmp(names[i].name, "vllm:", 5) == 0 ? vllm.data : own.data, names[i].label, v->value[i]);
	}
	for (int i = 0; i < METRIC_N_HISTOGRAMS; i++)
		write_histogram(out, &histograms[i], &v->histogram[i], vllm.data);
	write_head(out, "tokenmill_step_age_seconds", "gauge", "Since the loop was last between two steps of the engine");
	write_value(out, "tokenmill_step_age_seconds", own.data, NULL, fmax(0, now - (double)atomic_load(&m->beat_ms) / 1e3));
	write_head(out, "tokenmill_stage", "gauge", "1 for what the worker is at: starting (planning, loading), working, ending (merging)");
	write_value(out, "tokenmill_stage", own.data, "stage=\"starting\"", stage == METRICS_STARTING);
	write_value(out, "tokenmill_stage", own.data, "stage=\"working\"", stage == METRICS_WORKING);
	write_value(out, "tokenmill_stage", own.data, "stage=\"ending\"", stage == METRICS_ENDING);
	write_head(out, "process_start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds");
	write_value(out, "process_start_time_seconds", own.data, NULL, m->started_unix_s);
	write_head(out, "tokenmill_info", "gauge", "What this worker is; always 1");
	for (size_t i = 0; i < 4; i++) {
		static const char *const label[] = {"worker", "attempt", "node_type", "version"};
		const char *const value[] = {v->worker, v->attempt, v->node_type, v->program};

		buf_addc(&own, ',');
		write_label(&own, label[i], value[i]);
	}
	write_value(out, "tokenmill_info", own.data, NULL, 1);
	buf_release(&vllm);
	buf_release(&own);
	free(v);
}
