/* What is counted, how it is written, when a worker counts as alive; and scrapes while a loop steps (for ThreadSanitizer, too). */
#include "tests/check.h"

#include <pthread.h>
#include <stdatomic.h>

#include "base/clock.h"
#include "base/http.h"
#include "runner/metrics_http.h"

static const char *text_of(struct metrics *m, struct buf *b)
{
	buf_reset(b);
	metrics_write(m, b);
	return buf_str(b);
}

/* The line is there, as a whole. */
static int has_line(const char *text, const char *line)
{
	size_t n = strlen(line);

	for (const char *s = text; (s = strstr(s, line)); s++)
		if ((s == text || s[-1] == '\n') && s[n] == '\n')
			return 1;
	printf("there is no line %s\n", line);
	return 0;
}

TEST(requests)
{
	struct metrics m;
	struct buf b = {0};
	const char *t;
	struct engine_result r = {.reason = FINISH_STOP, .n_prompt = 20, .n_tokens = 5, .wait_s = 0.25, .prefill_s = 0.05, .decode_s = 0.2};

	metrics_init(&m, 300);
	snprintf(m.own.model, sizeof(m.own.model), "m");
	metrics_observe(&m, &r);
	r = (struct engine_result){.reason = FINISH_LENGTH, .n_prompt = 21, .n_tokens = 1, .wait_s = 1, .prefill_s = 10000};
	metrics_observe(&m, &r);
	r = (struct engine_result){.reason = FINISH_ERROR, .n_prompt = 1, .wait_s = 1};
	metrics_observe(&m, &r);
	metrics_show(&m);
	t = text_of(&m, &b);
	CHECK(has_line(t, "# TYPE vllm:request_success_total counter"));
	CHECK(has_line(t, "vllm:request_success_total{engine=\"0\",model_name=\"m\",finished_reason=\"stop\"} 1"));
	CHECK(has_line(t, "vllm:request_success_total{engine=\"0\",model_name=\"m\",finished_reason=\"error\"} 1"));
	/* a bound belongs to its bucket; buckets add up; one with an error has no times */
	CHECK(has_line(t, "# TYPE vllm:request_prompt_tokens histogram"));
	CHECK(has_line(t, "vllm:request_prompt_tokens_bucket{engine=\"0\",model_name=\"m\",le=\"10.0\"} 0"));
	CHECK(has_line(t, "vllm:request_prompt_tokens_bucket{engine=\"0\",model_name=\"m\",le=\"20.0\"} 1"));
	CHECK(has_line(t, "vllm:request_prompt_tokens_bucket{engine=\"0\",model_name=\"m\",le=\"50.0\"} 2"));
	CHECK(has_line(t, "vllm:request_prompt_tokens_sum{engine=\"0\",model_name=\"m\"} 41"));
	CHECK(has_line(t, "vllm:request_prompt_tokens_count{engine=\"0\",model_name=\"m\"} 2"));
	/* more than the last bound */
	CHECK(has_line(t, "vllm:request_prefill_time_seconds_bucket{engine=\"0\",model_name=\"m\",le=\"7680.0\"} 1"));
	CHECK(has_line(t, "vllm:request_prefill_time_seconds_bucket{engine=\"0\",model_name=\"m\",le=\"+Inf\"} 2"));
	CHECK(has_line(t, "vllm:request_prefill_time_seconds_sum{engine=\"0\",model_name=\"m\"} 10000.05"));
	/* four intervals of 50 ms; an answer of one token has none */
	CHECK(has_line(t, "vllm:time_per_output_token_seconds_bucket{engine=\"0\",model_name=\"m\",le=\"0.025\"} 0"));
	CHECK(has_line(t, "vllm:time_per_output_token_seconds_bucket{engine=\"0\",model_name=\"m\",le=\"0.05\"} 4"));
	CHECK(has_line(t, "vllm:time_per_output_token_seconds_sum{engine=\"0\",model_name=\"m\"} 0.2"));
	CHECK(has_line(t, "vllm:time_per_output_token_seconds_count{engine=\"0\",model_name=\"m\"} 4"));
	CHECK(has_line(t, "vllm:request_time_per_output_token_seconds_count{engine=\"0\",model_name=\"m\"} 1"));
	CHECK(has_line(t, "vllm:time_to_first_token_seconds_bucket{engine=\"0\",model_name=\"m\",le=\"0.5\"} 1"));
	CHECK(has_line(t, "vllm:e2e_request_latency_seconds_bucket{engine=\"0\",model_name=\"m\",le=\"0.5\"} 1"));
	metrics_release(&m);
	buf_release(&b);
}

TEST(labels)
{
	struct metrics m;
	struct buf b = {0};

	metrics_init(&m, 300);
	snprintf(m.own.model, sizeof(m.own.model), "a\"b\\c\nd \xC3\xA9 \xC3( \xED\xA0\x80 \xF0\x9F\x99\x82\xF0\x9F");
	m.own.value[METRIC_ROWS_OK] = 9007199254740991.0;
	metrics_show(&m);
	CHECK(has_line(text_of(&m, &b), "tokenmill_rows_total{model_name=\"a\\\"b\\\\c\\nd \xC3\xA9 \xEF\xBF\xBD( \xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD "
	                                "\xF0\x9F\x99\x82\xEF\xBF\xBD\xEF\xBF\xBD\",state=\"ok\"} 9007199254740991"));
	metrics_release(&m);
	buf_release(&b);
}

TEST(health)
{
	struct metrics m;
	struct buf b = {0};
	int ready;

	metrics_init(&m, 0.05);
	atomic_store(&m.beat_ms, (int64_t)(clock_seconds() * 1e3) - 1000);
	CHECK_INT(metrics_health(&m, &ready, &b), 1); /* loading takes its time */
	CHECK_INT(ready, 0);
	metrics_enter(&m, METRICS_WORKING);
	CHECK_INT(metrics_health(&m, &ready, &b), 1);
	CHECK_INT(ready, 1);
	atomic_store(&m.beat_ms, (int64_t)(clock_seconds() * 1e3) - 1000);
	buf_reset(&b);
	CHECK_INT(metrics_health(&m, &ready, &b), 0);
	CHECK_INT(ready, 0);
	CHECK_STR(buf_str(&b), "no step of the engine for 1 s\n");
	metrics_step(&m);
	CHECK_INT(metrics_health(&m, &ready, &b), 1);
	atomic_store(&m.beat_ms, (int64_t)(clock_seconds() * 1e3) - 1000);
	metrics_enter(&m, METRICS_ENDING);
	CHECK_INT(metrics_health(&m, &ready, &b), 1);
	metrics_release(&m);
	buf_release(&b);
}

/* Somebody reads: the loop goes on with its next step. */
TEST(loop_does_not_wait)
{
	struct metrics m;

	metrics_init(&m, 1);
	pthread_mutex_lock(&m.lock);
	m.own.value[METRIC_STEPS] = 7;
	metrics_show(&m);
	CHECK_NEAR(m.shown.value[METRIC_STEPS], 0, 0);
	pthread_mutex_unlock(&m.lock);
	metrics_show(&m);
	CHECK_NEAR(m.shown.value[METRIC_STEPS], 7, 0);
	metrics_release(&m);
}

/* ---- over HTTP ---- */

enum { N_CLIENTS = 3, N_SCRAPES = 40 };

struct client {
	pthread_t thread;
	const char *url;
	int n_good;
};

static int ask(const char *method, const char *url, struct buf *body)
{
	struct http *h = http_new();
	struct http_request request = {.method = method, .url = url};
	struct http_reply reply = {0};
	int status = http_exchange(h, &request, &reply) == HTTP_REPLIED ? reply.status : -1;

	buf_add(body, buf_str(&reply.body), reply.body.len);
	http_reply_release(&reply);
	http_free(h);
	return status;
}

static double value_of(const char *text, const char *series)
{
	const char *s = strstr(text, series);

	return s ? strtod(s + strlen(series), NULL) : -1;
}

/* What belongs together is of one moment, and never goes back. */
static void *scrape(void *arg)
{
	struct client *c = arg;
	struct buf b = {0};
	double before = 0;

	for (int i = 0; i < N_SCRAPES; i++) {
		double prompt, queries, steps;

		buf_reset(&b);
		if (ask("GET", c->url, &b) != 200)
			continue;
		prompt = value_of(b.data, "\nvllm:prompt_tokens_total{engine=\"0\",model_name=\"m\"} ");
		queries = value_of(b.data, "\nvllm:prefix_cache_queries_total{engine=\"0\",model_name=\"m\"} ");
		steps = value_of(b.data, "\ntokenmill_steps_total{model_name=\"m\"} ");
		c->n_good += prompt >= before && prompt == queries && steps == prompt;
		before = prompt;
	}
	buf_release(&b);
	return NULL;
}

TEST(scrapes_while_a_loop_steps)
{
	struct metrics m;
	struct err err = {0};
	struct metrics_http *http;
	struct client clients[N_CLIENTS] = {0};
	char url[80];
	struct buf b = {0};
	double end;

	metrics_init(&m, 300);
	snprintf(m.own.model, sizeof(m.own.model), "m");
	http = metrics_http_start(&m, "127.0.0.1:0", &err);
	CHECK_STR(err.msg, "");
	if (!http)
		return;
	snprintf(url, sizeof(url), "http://127.0.0.1:%d/readyz", metrics_http_port(http));
	CHECK_INT(ask("GET", url, &b), 503);
	metrics_enter(&m, METRICS_WORKING);
	snprintf(url, sizeof(url), "http://127.0.0.1:%d/metrics", metrics_http_port(http));
	for (int i = 0; i < N_CLIENTS; i++) {
		clients[i].url = url;
		pthread_create(&clients[i].thread, NULL, scrape, &clients[i]);
	}
	end = clock_seconds() + 0.3;
	for (double n = 1; clock_seconds() < end; n++) {
		m.own.value[METRIC_PROMPT_TOKENS] = m.own.value[METRIC_PREFIX_QUERIES] = m.own.value[METRIC_STEPS] = n;
		metrics_step(&m);
		metrics_show(&m);
	}
	for (int i = 0; i < N_CLIENTS; i++) {
		pthread_join(clients[i].thread, NULL);
		CHECK_INT(clients[i].n_good, N_SCRAPES);
	}
	CHECK(m.shown.value[METRIC_STEPS] > 100);
	CHECK_INT(ask("POST", url, &b), 405);
	snprintf(url, sizeof(url), "http://127.0.0.1:%d/else", metrics_http_port(http));
	CHECK_INT(ask("GET", url, &b), 404);
	buf_release(&b);
	metrics_http_stop(http);
	metrics_release(&m);
}

TEST(bad_addresses)
{
	static const char *const bad[] = {"", "x", "1:", "70000", "-1", "1 2", "1:2:3", "::1:0", "[::1]", ":x", "9090x"};
	struct metrics m;

	metrics_init(&m, 1);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct err err = {0};

		CHECK(metrics_http_start(&m, bad[i], &err) == NULL);
		CHECK_INT(err.code, ERR_USAGE);
	}
	metrics_release(&m);
}

int main(void)
{
	unsetenv("http_proxy"); /* it is this machine that is asked */
	RUN(requests);
	RUN(labels);
	RUN(health);
	RUN(loop_does_not_wait);
	RUN(scrapes_while_a_loop_steps);
	RUN(bad_addresses);
	return TEST_RESULT();
}
