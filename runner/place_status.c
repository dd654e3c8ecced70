/* place_status.c: how a job stands, in a page for people or as JSON, and what to do next. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "queue/job_status.h"
#include "queue/store.h"
#include "runner/place_status.h"

enum status_format { STATUS_TEXT = 1, STATUS_JSON = 2 };
enum { SHOWN_WORKERS = 20 };

static const char *const worker_names[] = {
    [WORKER_RUNNING] = "running", [WORKER_SILENT] = "silent", [WORKER_ENDED] = "ended", [WORKER_GONE] = "gone"};
static const char *const merged_names[] = {[MERGED_STATE_NONE] = "no",
                                           [MERGED_STATE_COMPLETE] = "complete",
                                           [MERGED_STATE_PARTIAL] = "partial",
                                           [MERGED_STATE_CLOSED] = "closed",
                                           [MERGED_STATE_OLDER_PLAN] = "older_plan"};

static int is_finished(const struct job_status *s)
{
	return s->n_shards_done == s->n_shards;
}

/* One word for the whole. */
static const char *state_name(const struct job_status *s)
{
	if (is_finished(s))
		return s->merged == MERGED_STATE_COMPLETE ? "merged" : s->is_merging ? "merging" : "finished";
	if (s->n_running)
		return "running";
	if (s->n_silent)
		return "silent";
	return s->n_workers || s->n_done ? "stopped" : "planned";
}

/* ---- what to do next ---- */

static const struct worker_status *latest(const struct job_status *s)
{
	const struct worker_status *last = NULL;

	for (size_t i = 0; i < s->n_workers; i++)
		if (!last || s->workers[i].attempt.updated_unix_ms > last->attempt.updated_unix_ms)
			last = &s->workers[i];
	return last;
}

static void add_count(struct buf *b, int64_t n, const char *one)
{
	buf_addf(b, "%" PRId64 " %s%s", n, one, n == 1 ? "" : "s");
}

static void add_advice(struct buf *b, const struct job_status *s, const char *place)
{
	const struct worker_status *last = latest(s);
	int64_t n_waiting = s->n_unclaimed + s->n_orphaned;

	if (is_finished(s) && s->merged == MERGED_STATE_COMPLETE && s->n_failed > 0) {
		add_count(b, s->n_failed, "row");
		buf_addf(b, " failed: `tokenmill retry-failed %s`, then `tokenmill run --job %s` runs them again; `tokenmill verify %s` proves what is there",
		         place, place, place);
	} else if (is_finished(s) && s->merged == MERGED_STATE_COMPLETE) {
		buf_addf(b, "all is done; `tokenmill verify %s` proves it", place);
	} else if (is_finished(s)) {
		buf_addf(b, s->is_merging ? "the results are being merged; should that process be gone, `tokenmill merge %s`" : "`tokenmill merge %s` writes the results",
		         place);
	} else if (s->n_running) {
		add_count(b, (int64_t)s->n_running, "worker");
		buf_adds(b, s->n_running == 1 ? " is at it; " : " are at it; ");
		add_count(b, n_waiting, "shard");
		buf_addf(b, " %s to be taken; `tokenmill run --job %s` adds a worker", n_waiting == 1 ? "waits" : "wait", place);
	} else if (last && last->state == WORKER_ENDED && strcmp(last->attempt.end_code, "budget") == 0) {
		buf_addf(b, "the budget is used up or the deadline is reached: `tokenmill run --job %s` with a higher --budget-usd or a later --deadline goes on",
		         place);
	} else {
		buf_addf(b, "`tokenmill run --job %s` goes on", place);
		if (n_waiting == 0 && s->n_held_silent > 0) {
			buf_adds(b, ", once ");
			add_count(b, s->n_held_silent, "shard");
			buf_adds(b, s->n_held_silent == 1 ? " of a silent worker is taken over (--takeover-after)" : " of silent workers are taken over (--takeover-after)");
		}
	}
}

/* ---- text ---- */

static void add_span(struct buf *b, double seconds)
{
	if (seconds < 120)
		buf_addf(b, "%.0f s", seconds);
	else if (seconds < 7200)
		buf_addf(b, "%.0f min", seconds / 60);
	else if (seconds < 2 * 86400)
		buf_addf(b, "%.1f h", seconds / 3600);
	else
		buf_addf(b, "%.1f days", seconds / 86400);
}

/* What a store says may hold anything: no control characters onto a terminal. */
static void add_shown(struct buf *b, const char *text)
{
	for (; *text; text++)
		buf_addc(b, (unsigned char)*text < 0x20 || *text == 0x7f ? ' ' : *text);
}

static void add_worker(struct buf *b, const struct worker_status *w)
{
	const struct attempt *a = &w->attempt;

	buf_addf(b, "  %4d  ", a->worker);
	add_shown(b, a->host);
	buf_addf(b, "  %s  %" PRId64 " rows  %" PRId64 " tokens out  %.1f rows/s  ", worker_names[w->state], a->rows, a->output_tokens, w->rows_per_s);
	if (w->n_held) {
		add_count(b, w->n_held, "shard");
		buf_adds(b, "  ");
	}
	add_span(b, w->age_s);
	buf_adds(b, " ago");
	if (w->has_crashed)
		buf_adds(b, "  crashed");
	if (w->state == WORKER_ENDED && strcmp(a->end_code, "none") != 0) {
		buf_adds(b, "  ");
		add_shown(b, a->end_code);
		buf_adds(b, *a->end ? ": " : "");
		add_shown(b, a->end);
	}
	buf_addc(b, '\n');
}

static void add_rows_and_shards(struct buf *b, const struct job_status *s)
{
	buf_addf(b, "rows    %" PRId64 ": %" PRId64 " done", s->n_rows, s->n_done);
	if (s->n_failed)
		buf_addf(b, " (%s%" PRId64 " failed)", s->failed_is_exact ? "" : "at least ", s->n_failed);
	buf_addf(b, ", %" PRId64 " left", s->n_to_run - s->n_done);
	if (s->n_bad)
		buf_addf(b, ", %" PRId64 " at fault", s->n_bad);
	if (s->n_folded)
		buf_addf(b, ", %" PRId64 " like another", s->n_folded);
	buf_addf(b, "\nshards  %" PRId64 ": %" PRId64 " done, %" PRId64 " held", s->n_shards, s->n_shards_done, s->n_held);
	if (s->n_held_silent)
		buf_addf(b, " (%" PRId64 " by silent workers)", s->n_held_silent);
	buf_addf(b, ", %" PRId64 " orphaned, %" PRId64 " unclaimed\n", s->n_orphaned, s->n_unclaimed);
	if (s->n_damaged)
		buf_addf(b, "        %" PRId64 " segments cannot be read: their rows do not count\n", s->n_damaged);
}

static void write_text(struct buf *b, const struct job_status *s, struct job *j, const char *place)
{
	size_t n_live = s->n_running + s->n_silent, n_shown = s->n_workers < n_live + SHOWN_WORKERS ? s->n_workers : n_live + SHOWN_WORKERS;

	buf_addf(b, "%s: %s", place, state_name(s));
	if (job_generation(j) > 1)
		buf_addf(b, ", plan %d", job_generation(j));
	buf_addc(b, '\n');
	add_rows_and_shards(b, s);
	buf_addf(b, "tokens  %" PRId64 " prompt (%" PRId64 " cached), %" PRId64 " output, %" PRId64 " reasoning, %" PRId64 " recomputed, as all attempts told\n",
	         s->sums.prompt_tokens, s->sums.cached_tokens, s->sums.output_tokens, s->sums.reasoning_tokens, s->sums.recomputed_tokens);
	if (s->n_running) {
		buf_addf(b, "rate    %.1f rows/s", s->rows_per_s);
		if (s->left_s >= 0) {
			buf_adds(b, ", about ");
			add_span(b, s->left_s);
			buf_adds(b, " left");
		}
		buf_addc(b, '\n');
	}
	if (s->has_budget)
		buf_addf(b, "budget  %.4f USD spent, %.4f granted\n", s->spent_usd, s->ceiling_usd);
	buf_addf(b, "merged  %s\n", s->merged == MERGED_STATE_OLDER_PLAN ? "an older plan's results" : merged_names[s->merged]);
	if (s->n_workers)
		buf_adds(b, "workers (index, host, state, work, last heartbeat by its clock)\n");
	for (size_t i = 0; i < n_shown; i++)
		add_worker(b, &s->workers[i]);
	if (s->n_workers > n_shown)
		buf_addf(b, "  and %zu more that are over\n", s->n_workers - n_shown);
	if (s->n_unreadable)
		buf_addf(b, "  and %" PRId64 " whose heartbeat cannot be read\n", s->n_unreadable);
	buf_adds(b, "next    ");
	add_advice(b, s, place);
	buf_addc(b, '\n');
}

/* ---- JSON ---- */

static void add_text(struct buf *b, const char *name, const char *text)
{
	buf_addf(b, "\"%s\":", name);
	json_write_string(b, text, strlen(text));
}

static void add_number(struct buf *b, const char *name, double v)
{
	if (isfinite(v))
		buf_addf(b, ",\"%s\":%.17g", name, v);
	else
		buf_addf(b, ",\"%s\":null", name);
}

static void add_tokens(struct buf *b, const struct attempt *a)
{
	buf_addf(b, "\"tokens\":{\"prompt\":%" PRId64 ",\"cached\":%" PRId64 ",\"output\":%" PRId64 ",\"reasoning\":%" PRId64 ",\"recomputed\":%" PRId64 "}",
	         a->prompt_tokens, a->cached_tokens, a->output_tokens, a->reasoning_tokens, a->recomputed_tokens);
}

static void add_worker_json(struct buf *b, const struct worker_status *w)
{
	const struct attempt *a = &w->attempt;

	buf_addf(b, "{\"worker\":%d,", a->worker);
	add_text(b, "attempt", a->id);
	buf_addc(b, ',');
	add_text(b, "host", a->host);
	buf_addf(b, ",\"pid\":%" PRId64 ",\"state\":\"%s\",\"crashed\":%s,\"shards_held\":%" PRId64 ",\"rows\":%" PRId64 ",\"rows_failed\":%" PRId64
	            ",\"in_flight\":%" PRId64 ",",
	         a->pid, worker_names[w->state], w->has_crashed ? "true" : "false", w->n_held, a->rows, a->rows_failed, a->in_flight);
	add_tokens(b, a);
	add_number(b, "rows_per_s", w->rows_per_s);
	add_number(b, "heartbeat_age_s", w->age_s);
	buf_addf(b, ",\"started_unix_ms\":%" PRId64 ",\"updated_unix_ms\":%" PRId64, a->started_unix_ms, a->updated_unix_ms);
	add_number(b, "spent_usd", a->spent_usd);
	add_number(b, "ceiling_usd", a->ceiling_usd);
	if (w->state == WORKER_ENDED) {
		buf_addc(b, ',');
		add_text(b, "end_code", a->end_code);
		buf_addc(b, ',');
		add_text(b, "end", a->end);
	} else {
		buf_adds(b, ",\"end_code\":null,\"end\":null");
	}
	buf_addc(b, '}');
}

static void write_json(struct buf *b, const struct job_status *s, struct job *j, const char *place)
{
	struct buf next = {0};

	buf_addc(b, '{');
	add_text(b, "job", place);
	buf_addf(b, ",\"state\":\"%s\",\"plan\":%d", state_name(s), job_generation(j));
	buf_addf(b, ",\"rows\":{\"total\":%" PRId64 ",\"at_fault\":%" PRId64 ",\"folded\":%" PRId64 ",\"to_run\":%" PRId64 ",\"done\":%" PRId64
	            ",\"failed\":%" PRId64 ",\"failed_is_exact\":%s,\"left\":%" PRId64 "}",
	         s->n_rows, s->n_bad, s->n_folded, s->n_to_run, s->n_done, s->n_failed, s->failed_is_exact ? "true" : "false", s->n_to_run - s->n_done);
	buf_addf(b, ",\"shards\":{\"total\":%" PRId64 ",\"done\":%" PRId64 ",\"held\":%" PRId64 ",\"held_silent\":%" PRId64 ",\"orphaned\":%" PRId64
	            ",\"unclaimed\":%" PRId64 ",\"damaged_segments\":%" PRId64 "},",
	         s->n_shards, s->n_shards_done, s->n_held, s->n_held_silent, s->n_orphaned, s->n_unclaimed, s->n_damaged);
	add_tokens(b, &s->sums);
	add_number(b, "rows_per_s", s->rows_per_s);
	add_number(b, "left_s", s->left_s >= 0 ? s->left_s : (double)NAN);
	if (s->has_budget)
		buf_addf(b, ",\"budget\":{\"spent_usd\":%.17g,\"ceiling_usd\":%.17g}", s->spent_usd, s->ceiling_usd);
	else
		buf_adds(b, ",\"budget\":null");
	buf_addf(b, ",\"merged\":\"%s\",\"merging\":%s,\"workers\":[", merged_names[s->merged], s->is_merging ? "true" : "false");
	for (size_t i = 0; i < s->n_workers; i++) {
		buf_adds(b, i ? "," : "");
		add_worker_json(b, &s->workers[i]);
	}
	buf_addf(b, "],\"unreadable_heartbeats\":%" PRId64 ",", s->n_unreadable);
	add_advice(&next, s, place);
	add_text(b, "next", buf_str(&next));
	buf_adds(b, "}\n");
	buf_release(&next);
}

/* ---- the command ---- */

/* A place without a plan: is one being made? */
static int tell_planning(struct buf *b, const char *place, int format, struct err *err)
{
	struct claim who;
	struct buf shown = {0};
	int is_gone, rc = job_status_planner(place, &who, &is_gone, err);

	if (rc < 0)
		return -1;
	if (rc == 0)
		return err_set(err, ERR_USAGE, "%s is not a job: nothing is planned there", place);
	claim_describe(&who, &shown);
	if (format == STATUS_JSON) {
		buf_addc(b, '{');
		add_text(b, "job", place);
		buf_addf(b, ",\"state\":\"planning\",\"planner\":{\"worker\":%d,", who.worker);
		add_text(b, "host", who.host);
		buf_addf(b, ",\"pid\":%" PRId64 ",\"gone\":%s}}\n", who.pid, is_gone ? "true" : "false");
	} else {
		buf_addf(b, "%s: planning\nnext    ", place);
		add_shown(b, buf_str(&shown));
		buf_adds(b, is_gone ? " was planning it and is gone: give the command that began it again\n" : " plans it: look again in a while\n");
	}
	buf_release(&shown);
	return 0;
}

static int tell_job(struct buf *b, const char *place, int format, struct err *err)
{
	int rc = -1;

	/* Planned anew meanwhile, its rows are in other shards. */
	for (int tries = 0; tries < 3 && rc < 0; tries++) {
		struct job *j;
		struct job_status s;

		*err = (struct err){0};
		j = job_open(place, err);
		rc = j ? job_status_read(j, &s, err) : -1;
		if (rc == 0 && format == STATUS_JSON)
			write_json(b, &s, j, place);
		else if (rc == 0)
			write_text(b, &s, j, place);
		if (rc == 0)
			job_status_release(&s);
		job_close(j);
		if (rc < 0 && err->code != ERR_FENCED)
			break;
	}
	return rc;
}

int place_status_print(const char *place, int as_json, struct err *err)
{
	const int format = as_json ? STATUS_JSON : STATUS_TEXT;
	struct buf out = {0};
	int rc = job_is_planned(place, err);

	if (rc >= 0)
		rc = rc ? tell_job(&out, place, format, err) : tell_planning(&out, place, format, err);
	if (rc == 0 && (fwrite(buf_str(&out), 1, out.len, stdout) != out.len || fflush(stdout) != 0))
		rc = err_sys(err, ERR_OTHER, "standard output");
	buf_release(&out);
	return rc;
}
