/* ledger.c: plan and committed records side by side, in input order: each row gets its one record, and the sums are kept. Merge, verify and
 * ledger.db all come out of this one pass. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "queue/job_private.h"
#include "queue/root_hash.h"

/* ---- the plan in input order ---- */

int plan_cursor_next(struct plan_cursor *c, struct database *plan, struct err *err)
{
	int rc;

	if (!c->stmt) {
		c->plan = plan;
		/* CROSS JOIN: row is the outer loop, so that rows come in order without a sort. */
		c->stmt =
		    database_prepare(plan,
		                     "SELECT row, key, hash, source_name, line, shard, error, tags, same_as FROM row CROSS JOIN source "
		                     "ON source.source = row.source ORDER BY row",
		                     err);
		if (!c->stmt)
			return -1;
		c->row = -1;
	}
	rc = database_step(plan, c->stmt, err);
	if (rc != 1)
		return rc;
	if (sqlite3_column_int64(c->stmt, 0) != ++c->row || sqlite3_column_bytes(c->stmt, 2) != 32)
		return err_set(err, ERR_STORAGE, "%s: damaged at row %" PRId64, plan->name, c->row);
	c->key = (const char *)sqlite3_column_text(c->stmt, 1);
	c->n_key = (size_t)sqlite3_column_bytes(c->stmt, 1);
	c->hash = sqlite3_column_blob(c->stmt, 2);
	c->source = (const char *)sqlite3_column_text(c->stmt, 3);
	c->line = sqlite3_column_int64(c->stmt, 4);
	c->shard = sqlite3_column_type(c->stmt, 5) == SQLITE_NULL ? -1 : sqlite3_column_int64(c->stmt, 5);
	c->error = (const char *)sqlite3_column_text(c->stmt, 6);
	c->n_error = (size_t)sqlite3_column_bytes(c->stmt, 6);
	c->tags = sqlite3_column_int64(c->stmt, 7);
	c->same_as = sqlite3_column_type(c->stmt, 8) == SQLITE_NULL ? -1 : sqlite3_column_int64(c->stmt, 8);
	return 1;
}

void plan_cursor_close(struct plan_cursor *c)
{
	sqlite3_finalize(c->stmt);
	*c = (struct plan_cursor){0};
}

/* ---- side by side ---- */

int ledger_open(struct ledger *l, struct job *j, const char *spill_path, const struct ledger_rules *rules, struct err *err)
{
	*l = (struct ledger){.job = j, .rules = *rules};
	if (!rules->read.without_lines && !(l->root = root_hash_new(err)))
		return -1;
	l->shards = xcalloc((size_t)j->n_shards + 1, sizeof(*l->shards));
	l->plan_db = job_plan_db(j, err);
	l->committed = l->plan_db ? committed_open(j, spill_path, &rules->read, err) : NULL;
	if (!l->committed || (l->rc = committed_next(l->committed, &l->next, err)) < 0) {
		ledger_close(l);
		return -1;
	}
	return 0;
}

void ledger_close(struct ledger *l)
{
	root_hash_free(l->root);
	committed_close(l->committed);
	plan_cursor_close(&l->plan);
	buf_release(&l->made);
	free(l->shards);
	*l = (struct ledger){0};
}

int ledger_fail(const struct ledger *l, struct err *err, enum err_code code, const char *what)
{
	return err_set(err, code, "row %" PRId64 " (key \"%.*s\", %s:%" PRId64 ") %s", l->plan.row,
	               (int)(l->plan.n_key < 200 ? l->plan.n_key : 200), l->plan.key, l->plan.source, l->plan.line, what);
}

static int finish(struct ledger *l, struct err *err)
{
	if (l->n_rows != l->job->n_rows)
		return err_set(err, ERR_STORAGE, "%s: has %" PRId64 " rows, job.json tells of %" PRId64, l->plan_db->name, l->n_rows,
		               l->job->n_rows);
	if (l->rc == 1)
		return err_set(err, ERR_STORAGE, "shard %" PRId64 ": has a result for row %" PRId64 ", and the plan has no such row",
		               l->next.shard, l->next.r.row);
	return 0;
}

/* A row without a record. */
static int take_none(struct ledger *l, struct err *err)
{
	l->line = NULL;
	l->n_line = 0;
	if (!l->rules.allows_missing)
		return ledger_fail(l, err, ERR_INPUT, "has no result");
	l->status = LEDGER_MISSING;
	l->is_error = 0;
	if (!l->rules.close_code)
		return 0;
	if (!l->job->lines.closed)
		return ledger_fail(l, err, ERR_OTHER, "was never run, and it is not known how to say so");
	l->status = LEDGER_CLOSED;
	l->is_error = 1;
	if (!l->rules.read.without_lines) {
		buf_reset(&l->made);
		l->job->lines.closed(l->job->lines.context, &l->made, l->plan.key, l->plan.n_key, l->rules.close_code);
		l->line = buf_str(&l->made);
		l->n_line = l->made.len;
	}
	return 0;
}

static void add_sums(struct shard_sums *s, const struct row_result *r)
{
	s->n_rows++;
	s->n_failed += r->is_error != 0;
	s->prompt_tokens += r->prompt_tokens;
	s->cached_tokens += r->cached_tokens;
	s->output_tokens += r->output_tokens;
	s->reasoning_tokens += r->reasoning_tokens;
	s->recomputed_tokens += r->recomputed_tokens;
}

/* A row with the record l->next. */
static int take_record(struct ledger *l, struct err *err)
{
	const struct row_result *r = &l->next.r;

	l->used_next = 1;
	l->is_error = r->is_error != 0;
	l->epoch = l->next.epoch;
	l->line = r->line;
	l->n_line = r->n_line;
	if (l->plan.same_as >= 0) {
		l->status = LEDGER_FOLDED;
		if (!r->line)
			return 0;
		if (!l->job->lines.renamed)
			return ledger_fail(l, err, ERR_OTHER, "is folded into another, and it is not known how to write its record");
		buf_reset(&l->made);
		if (l->job->lines.renamed(l->job->lines.context, &l->made, r->line, r->n_line, l->plan.key, l->plan.n_key, err) < 0)
			return -1;
		l->line = buf_str(&l->made);
		l->n_line = l->made.len;
		return 0;
	}
	l->status = r->is_error ? LEDGER_FAILED : LEDGER_OK;
	l->record = &l->next;
	add_sums(&l->total, r);
	add_sums(&l->shards[l->next.shard], r);
	l->wait_s += r->wait_s;
	l->prefill_s += r->prefill_s;
	l->decode_s += r->decode_s;
	return 0;
}

int ledger_next(struct ledger *l, struct err *err)
{
	int rc;

	/* The record is borrowed from `committed`, so it moves on only now. */
	if (l->used_next && (l->rc = committed_next(l->committed, &l->next, err)) < 0)
		return -1;
	l->used_next = 0;
	l->record = NULL;
	l->epoch = 0;
	rc = plan_cursor_next(&l->plan, l->plan_db, err);
	if (rc <= 0)
		return rc < 0 ? -1 : finish(l, err);
	if (++l->n_rows % 1024 == 0)
		job_beat(l->job);
	if (l->rc == 1 && l->next.r.row < l->plan.row)
		return err_set(err, ERR_STORAGE, "shard %" PRId64 ": has a result for row %" PRId64 ", and the plan has no such row",
		               l->next.shard, l->next.r.row);
	rc = l->rc == 1 && l->next.r.row == l->plan.row;
	if (l->plan.error) {
		if (rc)
			return ledger_fail(l, err, ERR_STORAGE, "was found to be at fault by the plan, and a shard has a result for it");
		l->status = LEDGER_AT_FAULT;
		l->is_error = 1;
		l->line = l->rules.read.without_lines ? NULL : l->plan.error;
		l->n_line = l->plan.n_error;
	} else if (!rc) {
		if (take_none(l, err) < 0)
			return -1;
	} else {
		if (l->next.is_copy != (l->plan.same_as >= 0) || (!l->next.is_copy && l->next.shard != l->plan.shard))
			return ledger_fail(l, err, ERR_STORAGE, "has its result in a shard that is not its own");
		if (take_record(l, err) < 0)
			return -1;
	}
	if (l->status == LEDGER_MISSING)
		return 1;
	l->n_records++;
	l->n_failed += l->is_error != 0;
	l->n_closed += l->status == LEDGER_CLOSED;
	if (l->root)
		root_hash_add(l->root, l->plan.hash, l->is_error, l->line, l->n_line);
	return 1;
}

void ledger_root(struct ledger *l, char hex[SHA256_HEX_BYTES])
{
	root_hash_finish(l->root, hex);
	l->root = NULL;
}
