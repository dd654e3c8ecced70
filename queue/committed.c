/* committed.c: the committed records of a job in input order. Segments hold rows in whatever order they finished, and there may be tens of
 * thousands of them, too many to merge with all of them open; so they are read one after another, each from end to end, into a
 * sorter. A job whose results fit in the sorter's memory is put in order without touching the disk. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/hash.h"
#include "base/mem.h"
#include "queue/job_private.h"
#include "queue/sorter.h"

#define SORT_BYTES ((size_t)96 << 20)

struct committed {
	struct sorter *sorter;
	int disagreement_is_error;
	int64_t n_conflicts;
	/* The record given out; `line` is a copy while the sorter moves on to see whether another epoch has the row too. */
	struct buf line;
	/* The record after it, still the sorter's. */
	int has_ahead;
	int ahead_epoch;
	struct row_result ahead;
	int64_t ahead_shard;
};

struct stored { /* before the line in a sorter's record */
	struct row_result r; /* line unused */
	int64_t shard;
	int32_t epoch;
};

static void put_be(unsigned char *p, uint64_t v, int n)
{
	for (int i = 0; i < n; i++)
		p[i] = (unsigned char)(v >> (8 * (n - 1 - i)));
}

static int add_segment(struct committed *c, struct store *s, const char *path, int64_t shard, const struct segment_name *name, struct err *err)
{
	struct segment_reader *r = segment_reader_open(s, path, err);
	struct stored head = {.shard = shard, .epoch = name->epoch};
	unsigned char key[16];
	int rc = r ? 1 : -1;

	while (rc == 1 && (rc = segment_reader_next_result(r, &head.r, err)) == 1) {
		struct sorter_part parts[2] = {{&head, sizeof(head)}, {head.r.line, head.r.n_line}};

		put_be(key, (uint64_t)head.r.row, 8);
		put_be(key + 8, (uint64_t)name->epoch, 4);
		put_be(key + 12, (uint64_t)name->sequence, 4);
		if (sorter_add(c->sorter, key, sizeof(key), parts, 2, err) < 0)
			rc = -1;
	}
	segment_reader_close(r);
	return rc;
}

static int add_shard(struct committed *c, struct job *j, int64_t shard, struct err *err)
{
	char *dir = job_shard_dir(j, shard);
	struct shard_listing l;
	int rc = shard_listing_read(&l, j->store, dir, err);

	if (rc == 0 && l.is_done) {
		shard_listing_release(&l);
		rc = done_read(j->store, dir, j->shards[shard].n_rows, &l.segments, &l.n_segments, err);
	}
	for (size_t i = 0; i < l.n_segments && rc == 0; i++) {
		char *path = segment_path(dir, l.segments[i].epoch, l.segments[i].sequence);

		rc = add_segment(c, j->store, path, shard, &l.segments[i], err);
		free(path);
	}
	shard_listing_release(&l);
	free(dir);
	return rc;
}

static int spec_wants_determinism(const struct job *j)
{
	struct err ignored = {0};
	yyjson_doc *doc = json_parse(j->spec, strlen(j->spec), ERR_OTHER, &ignored);
	int wants = !doc || !yyjson_is_false(yyjson_obj_get(yyjson_doc_get_root(doc), "deterministic"));

	yyjson_doc_free(doc);
	return wants;
}

static int look_ahead(struct committed *c, struct err *err)
{
	struct sorter_part record;
	struct stored head;
	int rc = sorter_next(c->sorter, NULL, &record, err);

	c->has_ahead = rc == 1;
	if (rc != 1)
		return rc;
	memcpy(&head, record.data, sizeof(head));
	c->ahead = head.r;
	c->ahead.line = (const char *)record.data + sizeof(head);
	c->ahead.n_line = record.n - sizeof(head);
	c->ahead_epoch = head.epoch;
	c->ahead_shard = head.shard;
	return 1;
}

struct committed *committed_open(struct job *j, const char *spill_path, struct err *err)
{
	struct committed *c = xcalloc(1, sizeof(*c));

	c->sorter = sorter_new(spill_path, SORT_BYTES);
	c->disagreement_is_error = spec_wants_determinism(j);
	for (int64_t i = 0; i < j->n_shards; i++)
		if (add_shard(c, j, i, err) < 0)
			goto fail;
	if (sorter_finish(c->sorter, err) < 0 || look_ahead(c, err) < 0)
		goto fail;
	return c;
fail:
	committed_close(c);
	return NULL;
}

void committed_close(struct committed *c)
{
	if (!c)
		return;
	sorter_free(c->sorter);
	buf_release(&c->line);
	free(c);
}

int64_t committed_n_conflicts(const struct committed *c)
{
	return c->n_conflicts;
}

int committed_next(struct committed *c, struct row_result *out, int64_t *shard, struct err *err)
{
	int epoch, conflicts = 0;

	if (!c->has_ahead)
		return 0;
	*out = c->ahead;
	*shard = c->ahead_shard;
	epoch = c->ahead_epoch;
	buf_reset(&c->line);
	buf_add(&c->line, out->line, out->n_line);
	out->line = c->line.data;
	for (;;) {
		if (look_ahead(c, err) < 0)
			return -1;
		if (!c->has_ahead || c->ahead.row != out->row)
			break;
		if (c->ahead_shard != *shard)
			return err_set(err, ERR_STORAGE, "row %" PRId64 " has results in shards %" PRId64 " and %" PRId64, out->row, *shard, c->ahead_shard);
		if (c->ahead.is_error == out->is_error && c->ahead.n_line == out->n_line && memcmp(c->ahead.line, out->line, out->n_line) == 0)
			continue;
		if (c->disagreement_is_error)
			return err_set(err, ERR_ENGINE, "shard %" PRId64 ": row %" PRId64 ": epochs %d and %d have different results for it, although "
			                                "the job is deterministic", *shard, out->row, epoch, c->ahead_epoch);
		conflicts = 1;
	}
	c->n_conflicts += conflicts;
	return 1;
}

/* ---- the plan in input order ---- */

int plan_cursor_next(struct plan_cursor *c, struct database *plan, struct err *err)
{
	int rc;

	if (!c->stmt) {
		c->plan = plan;
		/* CROSS JOIN: row is the outer loop, so that rows come in order without a sort. */
		c->stmt = database_prepare(plan,
		                           "SELECT row, key, hash, source_name, line, shard, error FROM row CROSS JOIN source "
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
	c->shard = sqlite3_column_int64(c->stmt, 5);
	c->error = (const char *)sqlite3_column_text(c->stmt, 6);
	c->n_error = (size_t)sqlite3_column_bytes(c->stmt, 6);
	return 1;
}

void plan_cursor_close(struct plan_cursor *c)
{
	sqlite3_finalize(c->stmt);
	*c = (struct plan_cursor){0};
}

/* ---- plan and results, side by side ---- */

int ledger_open(struct ledger *l, struct job *j, const char *spill_path, struct err *err)
{
	*l = (struct ledger){.job = j, .root = sha256_new()};
	l->plan_db = job_plan_db(j, err);
	l->committed = l->plan_db ? committed_open(j, spill_path, err) : NULL;
	if (!l->committed || (l->rc = committed_next(l->committed, &l->result, &l->result_shard, err)) < 0) {
		ledger_close(l);
		return -1;
	}
	return 0;
}

void ledger_close(struct ledger *l)
{
	char hex[SHA256_HEX_BYTES];

	if (l->root)
		sha256_finish(l->root, hex);
	committed_close(l->committed);
	plan_cursor_close(&l->plan);
	*l = (struct ledger){0};
}

static void add_root(struct ledger *l)
{
	unsigned char hash[32], kind = (unsigned char)(l->is_error != 0);

	sha256_bytes(l->line, l->n_line, hash);
	sha256_add(l->root, l->plan.hash, 32);
	sha256_add(l->root, &kind, 1);
	sha256_add(l->root, hash, 32);
}

int ledger_fail(const struct ledger *l, struct err *err, enum err_code code, const char *what)
{
	return err_set(err, code, "row %" PRId64 " (key \"%.*s\", %s:%" PRId64 ") %s", l->plan.row, (int)(l->plan.n_key < 200 ? l->plan.n_key : 200),
	               l->plan.key, l->plan.source, l->plan.line, what);
}

int ledger_next(struct ledger *l, struct err *err)
{
	int rc;

	/* The result is borrowed from `committed`, so it moves on only now. */
	if (l->used_result && (l->rc = committed_next(l->committed, &l->result, &l->result_shard, err)) < 0)
		return -1;
	l->used_result = 0;
	rc = plan_cursor_next(&l->plan, l->plan_db, err);
	if (rc < 0)
		return -1;
	if (rc == 0) {
		if (l->n_rows != l->job->n_rows)
			return err_set(err, ERR_STORAGE, "%s: has %" PRId64 " rows, job.json tells of %" PRId64, l->plan_db->name, l->n_rows, l->job->n_rows);
		if (l->rc == 1)
			return err_set(err, ERR_STORAGE, "shard %" PRId64 ": has a result for row %" PRId64 ", and the plan has no such row", l->result_shard,
			               l->result.row);
		return 0;
	}
	l->n_rows++;
	if (l->plan.error) {
		if (l->rc == 1 && l->result.row == l->plan.row)
			return ledger_fail(l, err, ERR_STORAGE, "was found to be at fault by the plan, and a shard has a result for it");
		l->is_error = 1;
		l->line = l->plan.error;
		l->n_line = l->plan.n_error;
	} else {
		if (l->rc != 1 || l->result.row != l->plan.row)
			return ledger_fail(l, err, ERR_INPUT, "has no result");
		if (l->result_shard != l->plan.shard)
			return ledger_fail(l, err, ERR_STORAGE, "has its result in a shard that is not its own");
		l->used_result = 1;
		l->is_error = l->result.is_error;
		l->line = l->result.line;
		l->n_line = l->result.n_line;
		l->prompt_tokens += l->result.prompt_tokens;
		l->cached_tokens += l->result.cached_tokens;
		l->output_tokens += l->result.output_tokens;
		l->reasoning_tokens += l->result.reasoning_tokens;
		l->recomputed_tokens += l->result.recomputed_tokens;
		l->wait_s += l->result.wait_s;
		l->prefill_s += l->result.prefill_s;
		l->decode_s += l->result.decode_s;
	}
	l->n_failed += l->is_error != 0;
	add_root(l);
	return 1;
}

void ledger_root(struct ledger *l, char hex[SHA256_HEX_BYTES])
{
	sha256_finish(l->root, hex);
	l->root = NULL;
}
