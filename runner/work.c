/* work.c: rows in flight, from claim to publish.
 *
 * One struct row_run for each row that the engine has; its n samples are n requests with one prompt, submitted one after
 * another so that they share it. A row is finished with its last sample. row_runs hang in a list; each knows its shard, and a
 * shard is closed when it has given its last row and none of its rows is in flight.
 */
#include "runner/work.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "engine/model/model.h"
#include "runner/limits.h"
#include "runner/partial.h"
#include "runner/prompt.h"
#include "runner/signals.h"

/* Unfinished rows are published once they have so many tokens more than was published of them: less is quickly made again. */
enum { PARTIAL_STEP_TOKENS = 256, PUBLISH_TRIES = 3 };
#define LOOK_PERIOD_S 15.0

struct open_shard {
	struct shard *shard;
	int64_t n_in_flight;
	int exhausted; /* shard_next gave 0 */
	int has_news;  /* something to publish */
	int has_fresh_rows; /* given to the engine since its rows in flight were noted */
	int publish_soon;   /* suspects wait for it */
	struct open_shard *next;
};

struct row_run;
struct sample_run { /* an engine request's user pointer */
	struct row_run *row;
	int index;
};

struct row_run {
	struct open_shard *shard;
	int64_t row;
	char *key;
	size_t n_key;
	struct row_request request;
	struct buf echo; /* the prompt's text, when asked for */
	size_t n_prompt, n_cached, n_recomputed;
	int starts_in_thought; /* the prompt ends in an open mark */
	double wait_s, prefill_s, decode_s;
	struct sample_run *runs;       /* [n] */
	struct sample_result *samples; /* [n]; reason FINISH_NONE while one runs */
	int n_left;                    /* samples in the engine */
	double projected_cost;
	size_t n_saved;                /* tokens in the partial state last published */
	struct row_fault fault;        /* the engine could not run it */
	int is_poison;                 /* and crashes of it: there is no response to tell of */
	struct row_run *prev, *next;
};

struct worker {
	const struct work_options *o;
	struct work_totals *totals;
	struct prompt_maker maker;
	struct open_shard *shards; /* oldest first; rows are taken from the last */
	struct row_run *rows;
	int runs_alone; /* a suspect runs: nothing else is admitted */
	int has_shown;  /* its first tokens are published */
	int nothing_to_claim;
	double looked_s;   /* when that was seen */
	enum limits_state limits;
	double told_wait_s; /* when the user was last told what is waited for */
	double wait_s;      /* between the last two looks at the shards of others */
	size_t low_water; /* requests that should wait in the engine */
	double next_publish_s;
	struct buf line, state;
};

/* ---- rows ---- */

static int logprob_width(const struct row_request *r)
{
	return r->logprobs ? 1 + r->sampling.n_logprobs : 0;
}

static struct row_run *row_new(struct worker *w, struct open_shard *s, const struct shard_row *in)
{
	struct row_run *row = xcalloc(1, sizeof(*row));

	row->shard = s;
	row->row = in->row;
	row->key = xmemdup(in->key, in->n_key);
	row->n_key = in->n_key;
	row->next = w->rows;
	if (w->rows)
		w->rows->prev = row;
	w->rows = row;
	s->n_in_flight++;
	return row;
}

static void row_free(struct worker *w, struct row_run *row)
{
	if (row->prev)
		row->prev->next = row->next;
	else
		w->rows = row->next;
	if (row->next)
		row->next->prev = row->prev;
	row->shard->n_in_flight--;
	for (int i = 0; row->samples && i < row->request.n; i++)
		sample_result_release(&row->samples[i]);
	free(row->samples);
	free(row->runs);
	free(row->key);
	buf_release(&row->echo);
	row_release(&row->request);
	free(row);
}

/* All samples are there, or the row cannot be run: its line goes to the shard. */
static void row_finish(struct worker *w, struct row_run *row)
{
	struct work_totals *t = w->totals;
	struct row_result r = {.row = row->row,
	                       .is_error = row->fault.message[0] != '\0',
	                       .wait_s = row->wait_s,
	                       .prefill_s = row->prefill_s,
	                       .decode_s = row->decode_s,
	                       .finished_ms = clock_unix_ms()};

	buf_reset(&w->line);
	if (row->is_poison) {
		output_unanswered(&w->line, w->o->output->setup, row->key, row->n_key, row->fault.code, row->fault.message);
	} else if (r.is_error) {
		output_fault(&w->line, w->o->output, row->key, row->n_key, row->request.custom_id, row->request.n_custom_id,
		             &row->fault);
	} else {
		for (int i = 0; i < row->request.n; i++) {
			struct sample_result *s = &row->samples[i];

			s->n_reasoning = reasoning_count(&w->o->output->reasoning, row->starts_in_thought, s->tokens, s->n_tokens);
			r.reasoning_tokens += (int64_t)s->n_reasoning;
		}
		output_success(&w->line, w->o->output, row->key, row->n_key, &row->request, &row->echo, row->samples, row->n_prompt);
		r.prompt_tokens = (int64_t)row->n_prompt;
		r.cached_tokens = (int64_t)row->n_cached;
		for (int i = 0; i < row->request.n; i++)
			r.output_tokens += (int64_t)row->samples[i].n_tokens;
	}
	if (w->o->limits) {
		struct token_counts used = {r.prompt_tokens, r.cached_tokens, r.output_tokens, r.reasoning_tokens};

		limits_row_ends(w->o->limits, row->projected_cost, &used, row->prefill_s + row->decode_s);
	}
	r.recomputed_tokens = (int64_t)row->n_recomputed;
	r.line = w->line.data;
	r.n_line = w->line.len;
	shard_add_result(row->shard->shard, &r);
	row->shard->has_news = 1;
	t->n_rows++;
	t->n_failed += r.is_error;
	t->prompt_tokens += r.prompt_tokens;
	t->cached_tokens += r.cached_tokens;
	t->output_tokens += r.output_tokens;
	t->reasoning_tokens += r.reasoning_tokens;
	t->recomputed_tokens += r.recomputed_tokens;
	for (int i = 0; !r.is_error && i < row->request.n; i++) {
		t->n_samples++;
		/* Who ignores the model's end gets the limit, which says nothing about the model. */
		if (!row->request.sampling.ignore_eos)
			output_lengths_add(&t->lengths, (int64_t)row->samples[i].n_tokens, row->request.sampling.max_tokens);
	}
	w->o->progress->n_done++;
	w->o->progress->n_failed += r.is_error;
	row_free(w, row);
}

static void copy_result(struct sample_result *s, const struct engine_result *r, int width)
{
	sample_result_release(s);
	s->reason = r->reason;
	s->text = xmemdup(r->text ? r->text : "", r->n_text);
	s->n_text = r->n_text;
	s->tokens = xmalloc(r->n_tokens * sizeof(*s->tokens));
	memcpy(s->tokens, r->tokens ? r->tokens : s->tokens, r->n_tokens * sizeof(*s->tokens));
	s->n_tokens = r->n_tokens;
	if (width && r->logprobs) {
		s->logprobs = xmalloc(r->n_tokens * (size_t)width * sizeof(*s->logprobs));
		memcpy(s->logprobs, r->logprobs, r->n_tokens * (size_t)width * sizeof(*s->logprobs));
	}
	s->stop_id = r->stop_id;
	s->by_stop_string = r->stop_string != NULL;
}

/* The engine's callback; rows are finished here, new ones submitted only between steps. */
static void on_result(void *arg, const struct engine_result *r)
{
	struct worker *w = arg;
	struct sample_run *run = r->user;
	struct row_run *row = run->row;

	if (w->o->observe)
		w->o->observe(w->o->observe_arg, r);
	copy_result(&row->samples[run->index], r, logprob_width(&row->request));
	if (r->reason == FINISH_ERROR || r->reason == FINISH_ABORT) {
		row_fault_set(&row->fault, NULL, "engine_error", "%s", r->error ? r->error : "the engine gave the row up");
		row->fault.status = 500;
		row->fault.type = "server_error";
	}
	if (run->index == 0)
		row->n_cached = r->n_cached;
	row->n_recomputed += r->n_recomputed;
	row->wait_s += r->wait_s;
	row->prefill_s += r->prefill_s;
	row->decode_s += r->decode_s;
	if (--row->n_left == 0)
		row_finish(w, row);
}

/* Give the samples that are not finished to the engine. */
static int row_submit(struct worker *w, struct row_run *row, struct err *err)
{
	struct row_request *r = &row->request;

	for (int i = 0; i < r->n; i++) {
		struct sample_result *s = &row->samples[i];
		struct err why = {0};
		struct engine_request q = {.user = &row->runs[i],
		                           .prompt = w->maker.ids.ids,
		                           .n_prompt = w->maker.ids.n,
		                           .sampling = r->sampling,
		                           .partial = s->tokens,
		                           .n_partial = s->n_tokens,
		                           .partial_logprobs = s->logprobs};

		row->runs[i] = (struct sample_run){row, i};
		if (s->reason != FINISH_NONE)
			continue;
		q.sampling.sample = (uint32_t)i;
		if (engine_submit(w->o->engine, &q, &why) == 0) {
			row->n_left++;
		} else if (err_scope(why.code) == ERR_SCOPE_ROW) {
			row_fault_set(&row->fault, NULL, "cannot_run", "%s", why.msg);
			break;
		} else {
			return err_set(err, why.code, "%s", why.msg);
		}
	}
	if (row->n_left == 0)
		row_finish(w, row);
	return 0;
}

static int row_start(struct worker *w, struct open_shard *s, const struct shard_row *in, struct err *err)
{
	const struct work_options *o = w->o;
	struct row_run *row = row_new(w, s, in);
	struct row_request *r = &row->request;

	if (o->limits)
		row->projected_cost = limits_row_begins(o->limits, in->n_prompt_tokens, in->max_output_tokens);
	/* The planner found it good under the same rules; a difference now would be a damaged shard, and is told as the row's
	 * fault. */
	if (row_parse(in->input, in->n_input, o->rules, r, &row->fault) < 0 || prompt_make(&w->maker, r, &row->fault) < 0) {
		r->n = 0;
		row_finish(w, row);
		return 0;
	}
	if (r->own_seed) {
		r->sampling.key = 0;
	} else {
		r->sampling.seed = o->rules->seed;
		r->sampling.key = hash64(row->key, row->n_key, 0);
	}
	row->n_prompt = w->maker.ids.n;
	row->starts_in_thought = reasoning_is_open(&o->output->reasoning, w->maker.ids.ids, w->maker.ids.n);
	row->runs = xcalloc((size_t)r->n, sizeof(*row->runs));
	row->samples = xcalloc((size_t)r->n, sizeof(*row->samples));
	if (r->echo) {
		if (r->prompt_ids)
			prompt_render(&w->maker, r, &row->fault);
		buf_add(&row->echo, buf_str(&w->maker.rendered), w->maker.rendered.len);
	}
	if (!in->partial || partial_read(in->partial, in->n_partial, row->samples, r->n, logprob_width(r), o->rules->n_vocab) < 0)
		for (int i = 0; i < r->n; i++)
			row->samples[i] = (struct sample_result){.stop_id = -1};
	for (int i = 0; i < r->n; i++)
		row->n_saved += row->samples[i].n_tokens;
	return row_submit(w, row, err);
}

/* ---- shards ---- */

static struct open_shard *last_shard(struct worker *w)
{
	struct open_shard *s = w->shards;

	while (s && s->next)
		s = s->next;
	return s;
}

/* 1 and *out, 0 when nothing is left, -1. */
static int claim_next(struct worker *w, struct open_shard **out, struct err *err)
{
	struct shard *claimed;
	struct open_shard *s, *last = last_shard(w);
	int r = job_claim(w->o->job, w->o->worker, &claimed, err);

	if (r <= 0)
		return r;
	s = xcalloc(1, sizeof(*s));
	s->shard = claimed;
	w->totals->n_open_shards++;
	s->has_news = 1; /* a shard whose rows are all done already still needs its `done` */
	if (last)
		last->next = s;
	else
		w->shards = s;
	log_debug("shard %lld: epoch %d, %lld of %lld rows are done", (long long)shard_number(claimed), shard_epoch(claimed),
	          (long long)shard_n_done(claimed), (long long)shard_n_rows(claimed));
	*out = s;
	return 1;
}

/* How often to look for shards that others gave back or left: some twenty looks within the time after which silence means death. */
static double look_period_s(const struct worker *w)
{
	double s = w->o->worker->takeover_after_s / 20;

	return s > 0 && s < LOOK_PERIOD_S ? s : LOOK_PERIOD_S;
}

/* The next row of any open shard, the oldest first; of a shard that is claimed for it when none has one. 1, 0 nothing now, -1. */
static int next_row(struct worker *w, struct open_shard **out, struct shard_row *row, struct err *err)
{
	int may_claim = 1, r;

	for (struct open_shard *s = w->shards; s; s = s->next) {
		enum shard_next got;

		if (s->exhausted)
			continue;
		if (!w->rows)
			shard_tell_idle(s->shard);
		got = shard_next(s->shard, row, err);
		if (got == SHARD_FAILED)
			return -1;
		*out = s;
		if (got == SHARD_ROW)
			return 1;
		s->exhausted = got == SHARD_END;
		/* What a part of suspects has done must be on disk before the next part runs. */
		s->publish_soon = got != SHARD_END && s->n_in_flight == 0 && s->has_news;
		if (got == SHARD_WAITS_FOR_IDLE)
			may_claim = 0;
	}
	while (may_claim && !w->nothing_to_claim) {
		r = claim_next(w, out, err);
		if (r < 0)
			return -1;
		if (r == 0) {
			w->nothing_to_claim = 1;
			w->looked_s = clock_seconds();
			break;
		}
		r = shard_next((*out)->shard, row, err);
		if (r < 0 || r == SHARD_ROW)
			return r;
		(*out)->exhausted = r == SHARD_END;
		may_claim = r == SHARD_END;
	}
	return 0;
}

static void row_convict(struct worker *w, struct open_shard *s, const struct shard_row *in)
{
	struct row_run *row = row_new(w, s, in);

	row_fault_set(&row->fault, NULL, "poison_row", "the engine crashed each time that it ran this row alone");
	row->is_poison = 1;
	log_warn("row %.*s: %s; it gets an error record", (int)(in->n_key < 200 ? in->n_key : 200), in->key, row->fault.message);
	row_finish(w, row);
}

/* Should the engine crash, who takes over finds the rows that were in it. */
static void note_flight(struct worker *w, struct open_shard *s)
{
	struct err ignored = {0};
	int64_t *rows = xmalloc(((size_t)s->n_in_flight + 1) * sizeof(*rows));
	size_t n = 0;

	for (const struct row_run *r = w->rows; r; r = r->next)
		if (r->shard == s)
			rows[n++] = r->row;
	if (n > 0 && shard_note_flight(s->shard, rows, n, w->runs_alone, &ignored) < 0)
		log_debug("%s", ignored.msg);
	s->has_fresh_rows = 0;
	free(rows);
}

static size_t n_in_flight(const struct worker *w)
{
	size_t n = 0;

	for (const struct open_shard *s = w->shards; s; s = s->next)
		n += (size_t)s->n_in_flight;
	return n;
}

static enum limits_state look_at_limits(struct worker *w)
{
	return w->o->limits ? limits_look(w->o->limits, w->totals, n_in_flight(w)) : LIMITS_GO;
}

/* Submit rows until enough wait in the engine or none are left. */
static int top_up(struct worker *w, struct err *err)
{
	double start;

	/* Many at a time, since each time is noted on disk; and never beside a row that runs alone. */
	if (w->rows && (w->runs_alone || engine_n_waiting(w->o->engine) > w->low_water / 2)) {
		if (w->o->limits)
			w->limits = look_at_limits(w);
		return 0;
	}
	w->runs_alone = 0;
	if (w->nothing_to_claim && w->rows && clock_seconds() - w->looked_s >= look_period_s(w))
		w->nothing_to_claim = 0;
	/* Not without end between two steps: rows that ask for no token never wait. */
	for (size_t n = 0; n < w->low_water && engine_n_waiting(w->o->engine) < w->low_water && !w->runs_alone; n++) {
		struct open_shard *s;
		struct shard_row row;
		int r;

		w->limits = look_at_limits(w);
		if (w->limits != LIMITS_GO)
			break;
		r = next_row(w, &s, &row, err);
		if (r < 0)
			return -1;
		if (r == 0)
			break;
		w->runs_alone = row.is_alone;
		w->has_shown = 0;
		s->has_fresh_rows = 1;
		if (row.is_poison)
			row_convict(w, s, &row);
		else if (row_start(w, s, &row, err) < 0)
			return -1;
	}
	start = clock_seconds();
	for (struct open_shard *s = w->shards; s; s = s->next)
		if (s->has_fresh_rows)
			note_flight(w, s);
	w->totals->publish_s += clock_seconds() - start;
	return 0;
}

/* ---- publish ---- */

static void on_running(void *arg, const struct engine_result *r)
{
	struct sample_run *run = r->user;

	copy_result(&run->row->samples[run->index], r, logprob_width(&run->row->request));
}

/* Hand the state of unfinished rows to their shards: all of them when draining, else those that have grown a lot. */
static void save_partials(struct worker *w, int drain)
{
	engine_each_running(w->o->engine, on_running, w);
	for (struct row_run *row = w->rows; row; row = row->next) {
		size_t n = 0;

		for (int i = 0; i < row->request.n; i++)
			n += row->samples[i].n_tokens;
		if (n <= row->n_saved || (!drain && !w->runs_alone && n < row->n_saved + PARTIAL_STEP_TOKENS))
			continue;
		buf_reset(&w->state);
		partial_write(&w->state, row->samples, row->request.n, logprob_width(&row->request));
		shard_add_partial(row->shard->shard, row->row, w->state.data, w->state.len);
		row->shard->has_news = 1;
		row->n_saved = n;
	}
}

/* A full or absent disk is often full or absent for a moment only; nothing is lost by trying again. */
static int publish_shard(struct worker *w, struct open_shard *s, struct err *err)
{
	double start = clock_seconds();

	for (int try = 1;; try++) {
		struct err e = {0};

		if (shard_publish(s->shard, &e) == 0)
			break;
		w->totals->n_storage_errors += e.code == ERR_STORAGE;
		if (e.code != ERR_STORAGE || try == PUBLISH_TRIES)
			return err_set(err, e.code, "%s", e.msg);
		log_warn("%s; trying again", e.msg);
		sleep(1U << (try - 1));
	}
	s->has_news = 0;
	w->totals->publish_s += clock_seconds() - start;
	w->totals->n_publishes++;
	return 0;
}

static int publish_all(struct worker *w, struct err *err)
{
	double start = clock_seconds(), took;

	for (struct open_shard *s = w->shards; s; s = s->next)
		if (s->has_news && publish_shard(w, s, err) < 0)
			return -1;
	took = clock_seconds() - start;
	/* On slow storage less often, so that publishing takes at most 1 % of the time. */
	w->next_publish_s = start + (took * 100 > w->o->publish_s ? took * 100 : w->o->publish_s);
	return 0;
}

static int publish_suspects(struct worker *w, struct err *err)
{
	/* The first tokens of a row that runs alone at once: should this process be killed now, they say that it was not the row. */
	if (w->runs_alone && w->rows && !w->has_shown) {
		save_partials(w, 0);
		w->has_shown = w->rows->shard->has_news;
		w->rows->shard->publish_soon |= w->has_shown;
	}
	for (struct open_shard *s = w->shards; s; s = s->next) {
		if (s->publish_soon && publish_shard(w, s, err) < 0)
			return -1;
		s->publish_soon = 0;
	}
	return 0;
}

/* Publish and close the shards that have nothing left. */
static int close_finished(struct worker *w, struct err *err)
{
	struct open_shard *s = w->shards, *before = NULL;

	while (s) {
		struct open_shard *next = s->next;

		if (!s->exhausted || s->n_in_flight) {
			before = s;
			s = next;
			continue;
		}
		if ((s->has_news || !shard_is_done(s->shard)) && publish_shard(w, s, err) < 0)
			return -1;
		if (!shard_is_done(s->shard))
			BUG("shard %lld has given all its rows, but is not done", (long long)shard_number(s->shard));
		if (before)
			before->next = next;
		else
			w->shards = next;
		w->totals->n_open_shards--;
		w->totals->n_finished_shards++;
		shard_close(s->shard);
		free(s);
		s = next;
	}
	return 0;
}

static int publish_for_end(struct worker *w, struct err *err)
{
	log_info("stopping: publishing finished rows and the tokens of %zu running ones", engine_n_running(w->o->engine));
	save_partials(w, 1);
	return publish_all(w, err);
}

static void between_steps(struct worker *w)
{
	if (w->o->between_steps)
		w->o->between_steps(w->o->between_steps_arg, w->totals, n_in_flight(w));
}

/* Nothing runs and nothing is to be claimed. 0: then this worker is done. 1: look again, since shards are held by workers of whom it cannot be
 * told yet whether they live; a while has passed. */
static int wait_for_shards(struct worker *w)
{
	double now = clock_seconds(), until, still_s;
	struct buf who = {0};
	size_t n;

	if (now - w->looked_s > 0.1) { /* while the last rows ran */
		w->nothing_to_claim = 0;
		return 1;
	}
	n = job_n_watched(w->o->job, &who, &still_s);
	/* Often at first: mostly the others are about to finish. */
	w->wait_s = w->wait_s == 0 ? 0.5 : w->wait_s * 1.5;
	if (w->wait_s > look_period_s(w))
		w->wait_s = look_period_s(w);
	until = now + w->wait_s;
	if (n > 0 && (w->told_wait_s == 0 || now - w->told_wait_s > 60)) {
		log_info("watching %s, which holds %s: no sign of life for %.0f s; after %.0f s its work is taken over", buf_str(&who),
		         n == 1 ? "the last shard" : "one of the last shards", still_s, w->o->worker->takeover_after_s);
		w->told_wait_s = now;
	}
	buf_release(&who);
	for (; n > 0 && !signals_received() && clock_seconds() < until; between_steps(w))
		nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
	w->nothing_to_claim = n == 0;
	return n > 0;
}

static int loop(struct worker *w, struct err *err)
{
	struct engine_stats stats;

	w->next_publish_s = clock_seconds() + w->o->publish_s;
	for (;;) {
		if (signals_received())
			return publish_for_end(w, err) < 0 ? -1 : signals_drained(err);
		if (top_up(w, err) < 0)
			return -1;
		if (w->limits == LIMITS_STOP || (w->limits == LIMITS_FINISH && !w->rows))
			return publish_for_end(w, err) < 0 ? -1 : limits_fail(w->o->limits, err);
		if (w->limits == LIMITS_WAIT && !w->rows)
			nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
		if (w->rows && engine_step(w->o->engine, on_result, w, err) < 0)
			return -1;
		if (close_finished(w, err) < 0)
			return -1;
		if (!w->shards && w->nothing_to_claim && !wait_for_shards(w))
			return 0;
		between_steps(w);
		if (publish_suspects(w, err) < 0)
			return -1;
		if (clock_seconds() >= w->next_publish_s) {
			save_partials(w, 0);
			if (publish_all(w, err) < 0)
				return -1;
		}
		engine_get_stats(w->o->engine, &stats);
		progress_show(w->o->progress, &stats);
	}
}

/* The end before everything is done: what is finished is still good, and the shards are given back, for others to go on at once. Not after a
 * fault of the engine: the next epoch shall know that rows in flight may have been its cause. That the attempt has ended is told by its heartbeat. */
static void end_early(struct worker *w, enum err_code code)
{
	struct err ignored = {0};

	if (code == ERR_FENCED)
		save_partials(w, 1);
	for (struct open_shard *s = w->shards; s; s = s->next) {
		err_clear(&ignored);
		if (code != ERR_STORAGE && s->has_news && shard_publish(s->shard, &ignored) < 0)
			continue;
		if (code != ERR_ENGINE && !shard_is_done(s->shard) && shard_release(s->shard, &ignored) < 0)
			log_debug("%s", ignored.msg);
	}
}

int work_run(const struct work_options *o, struct work_totals *t, struct err *err)
{
	struct worker w = {.o = o, .totals = t, .limits = LIMITS_GO};
	struct open_shard *s;
	int r;

	*t = (struct work_totals){0};
	prompt_maker_init(&w.maker, o->text, o->now_unix_s, o->n_context);
	w.low_water = 2 * (size_t)engine_plan(o->engine)->max_batch;
	r = loop(&w, err);
	if (r < 0)
		end_early(&w, err->code);
	for (struct row_run *row = w.rows, *next; row; row = next) {
		next = row->next;
		row_free(&w, row);
	}
	while ((s = w.shards)) {
		w.shards = s->next;
		shard_close(s->shard);
		free(s);
	}
	prompt_maker_release(&w.maker);
	buf_release(&w.line);
	buf_release(&w.state);
	progress_end(o->progress);
	return r;
}
