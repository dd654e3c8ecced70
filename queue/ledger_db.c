/* ledger_db.c: the ledger as a file (schema.h): written in the merge's one pass over plan and records, and held against the same pass by verify.
 *
 * Two runs of one job have the same rows, keys, tags, and the same prompt_tokens, output_tokens and reasoning_tokens in charge and shard_total (in
 * deterministic mode). What may differ: cached_tokens and recomputed_tokens (who shared a batch, what was killed), epoch and shard (how the
 * job was cut and claimed), all times, and the tables claim and attempt. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "queue/attempt.h"
#include "queue/job_private.h"
#include "queue/schema.h"

/* ---- a row's charge ---- */

enum { N_COUNTS = 5, N_SECONDS = 3, NONE = -1 };

struct charge {
	int64_t row, shard, epoch, status, tags, finished_ms; /* shard, finished_ms: NONE for NULL */
	int64_t count[N_COUNTS];                              /* prompt, cached, output, reasoning, recomputed */
	double seconds[N_SECONDS];
};

/* 0 when the current row is not in the ledger. */
static int charge_of(const struct ledger *l, struct charge *c)
{
	const struct row_result *r = l->record ? &l->record->r : NULL;

	if (l->status == LEDGER_CLOSED || l->status == LEDGER_MISSING)
		return 0;
	*c = (struct charge){
	    .row = l->plan.row, .shard = NONE, .epoch = l->epoch, .status = l->status, .tags = l->plan.tags, .finished_ms = NONE};
	if (!r)
		return 1;
	c->shard = l->record->shard;
	c->finished_ms = r->finished_ms;
	c->count[0] = r->prompt_tokens;
	c->count[1] = r->cached_tokens;
	c->count[2] = r->output_tokens;
	c->count[3] = r->reasoning_tokens;
	c->count[4] = r->recomputed_tokens;
	c->seconds[0] = r->wait_s;
	c->seconds[1] = r->prefill_s;
	c->seconds[2] = r->decode_s;
	return 1;
}

static void bind_or_null(sqlite3_stmt *s, int at, int64_t v)
{
	if (v == NONE)
		sqlite3_bind_null(s, at);
	else
		sqlite3_bind_int64(s, at, v);
}

static int64_t column_or_none(sqlite3_stmt *s, int at)
{
	return sqlite3_column_type(s, at) == SQLITE_NULL ? NONE : sqlite3_column_int64(s, at);
}

/* ---- writing ---- */

struct ledger_db {
	struct database d;
	sqlite3_stmt *add;
};

struct ledger_db *ledger_db_create(const char *path, struct err *err)
{
	struct ledger_db *d = xcalloc(1, sizeof(*d));

	if (database_create(&d->d, path, 16384, LEDGER_APPLICATION_ID, LEDGER_SCHEMA "BEGIN", err) < 0) {
		free(d);
		return NULL;
	}
	d->add = database_prepare(&d->d, "INSERT INTO charge VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?)", err);
	if (!d->add) {
		ledger_db_abort(d);
		return NULL;
	}
	return d;
}

void ledger_db_abort(struct ledger_db *d)
{
	if (!d)
		return;
	sqlite3_finalize(d->add);
	database_close(&d->d);
	free(d);
}

int ledger_db_add(struct ledger_db *d, const struct ledger *l, struct err *err)
{
	struct charge c;
	int rc;

	if (!charge_of(l, &c))
		return 0;
	sqlite3_bind_int64(d->add, 1, c.row);
	bind_or_null(d->add, 2, c.shard);
	sqlite3_bind_int64(d->add, 3, c.epoch);
	sqlite3_bind_int64(d->add, 4, c.status);
	sqlite3_bind_int64(d->add, 5, c.tags);
	bind_or_null(d->add, 6, c.finished_ms);
	for (int i = 0; i < N_COUNTS; i++)
		sqlite3_bind_int64(d->add, 7 + i, c.count[i]);
	for (int i = 0; i < N_SECONDS; i++)
		sqlite3_bind_double(d->add, 7 + N_COUNTS + i, c.seconds[i]);
	rc = database_step(&d->d, d->add, err);
	sqlite3_reset(d->add);
	return rc;
}

/* A member of the spec as text; what is no string is written as JSON. */
static void spec_text(yyjson_val *spec, const char *name, struct buf *out)
{
	yyjson_val *v = yyjson_obj_get(spec, name);

	if (yyjson_is_str(v))
		buf_add(out, yyjson_get_str(v), yyjson_get_len(v));
	else if (v)
		json_write(out, v);
}

/* "s3://bucket/jobs/a/" -> "a" */
static void last_part(const char *place, struct buf *out)
{
	size_t end = strlen(place), start;

	while (end > 1 && place[end - 1] == '/')
		end--;
	for (start = end; start > 0 && place[start - 1] != '/'; start--)
		;
	buf_add(out, place + start, end - start);
}

static int add_job(struct ledger_db *d, const struct ledger *l, struct err *err)
{
	struct err ignored = {0};
	yyjson_doc *doc = json_parse(l->job->spec, strlen(l->job->spec), ERR_OTHER, &ignored);
	yyjson_val *spec = yyjson_doc_get_root(doc);
	struct buf name = {0}, model = {0}, fingerprint = {0}, tags = {0};
	sqlite3_stmt *s = database_prepare(&d->d, "INSERT INTO job VALUES(?,?,?,?,?,?,?)", err);
	int rc = -1;

	last_part(store_place(l->job->store), &name);
	spec_text(spec, yyjson_obj_get(spec, "model_name") ? "model_name" : "model", &model);
	spec_text(spec, "fingerprint", &fingerprint);
	if (yyjson_is_obj(yyjson_obj_get(spec, "tags")))
		spec_text(spec, "tags", &tags);
	else
		buf_adds(&tags, "{}");
	if (s) {
		sqlite3_bind_text(s, 1, l->job->plan_id, -1, SQLITE_STATIC);
		sqlite3_bind_text64(s, 2, buf_str(&name), name.len, SQLITE_STATIC, SQLITE_UTF8);
		sqlite3_bind_text64(s, 3, buf_str(&model), model.len, SQLITE_STATIC, SQLITE_UTF8);
		sqlite3_bind_text64(s, 4, buf_str(&fingerprint), fingerprint.len, SQLITE_STATIC, SQLITE_UTF8);
		sqlite3_bind_text64(s, 5, tags.data, tags.len, SQLITE_STATIC, SQLITE_UTF8);
		sqlite3_bind_int(s, 6, l->n_records - l->n_closed == l->job->n_rows);
		sqlite3_bind_int64(s, 7, l->job->n_rows);
		rc = database_step(&d->d, s, err);
	}
	sqlite3_finalize(s);
	buf_release(&name);
	buf_release(&model);
	buf_release(&fingerprint);
	buf_release(&tags);
	yyjson_doc_free(doc);
	return rc;
}

static int add_tags(struct ledger_db *d, const struct ledger *l, struct err *err)
{
	sqlite3_stmt *from = database_prepare(l->plan_db, "SELECT tags, json FROM tag ORDER BY tags", err);
	sqlite3_stmt *to = database_prepare(&d->d, "INSERT INTO tag VALUES(?,?)", err);
	int rc = from && to ? 0 : -1;

	while (rc == 0 && (rc = database_step(l->plan_db, from, err)) == 1) {
		sqlite3_bind_int64(to, 1, sqlite3_column_int64(from, 0));
		sqlite3_bind_text64(to, 2, (const char *)sqlite3_column_text(from, 1), (sqlite3_uint64)sqlite3_column_bytes(from, 1),
		                    SQLITE_TRANSIENT, SQLITE_UTF8);
		rc = database_step(&d->d, to, err);
		sqlite3_reset(to);
	}
	sqlite3_finalize(from);
	sqlite3_finalize(to);
	return rc;
}

static const int64_t *sums_column(const struct shard_sums *s, int i)
{
	const int64_t *const columns[] = {&s->n_rows,        &s->n_failed,         &s->prompt_tokens,    &s->cached_tokens,
	                                  &s->output_tokens, &s->reasoning_tokens, &s->recomputed_tokens};

	return columns[i];
}
enum { N_SUMS = 2 + N_COUNTS };

static int add_shard_totals(struct ledger_db *d, const struct ledger *l, struct err *err)
{
	sqlite3_stmt *s = database_prepare(&d->d, "INSERT INTO shard_total VALUES(?,?,?,?,?,?,?,?)", err);
	int rc = s ? 0 : -1;

	for (int64_t shard = 0; shard < l->job->n_shards && rc == 0; shard++) {
		if (l->shards[shard].n_rows == 0)
			continue;
		sqlite3_bind_int64(s, 1, shard);
		for (int i = 0; i < N_SUMS; i++)
			sqlite3_bind_int64(s, 2 + i, *sums_column(&l->shards[shard], i));
		rc = database_step(&d->d, s, err);
		sqlite3_reset(s);
	}
	sqlite3_finalize(s);
	return rc;
}

static int add_claims(struct ledger_db *d, const struct ledger *l, struct err *err)
{
	struct job *j = l->job;
	sqlite3_stmt *s = database_prepare(&d->d, "INSERT OR IGNORE INTO claim VALUES(?,?,?)", err);
	char *root = path_format("%sshards", j->base), **names = NULL;
	size_t n = 0;
	int rc = s ? store_list_tree(j->store, root, &names, &n, err) : -1;

	for (size_t i = 0; i < n && rc == 0; i++) {
		char *slash = strchr(names[i], '/'), *path;
		int64_t epoch = slash ? name_number(slash + 1, "claim") : -1;
		struct claim claim;

		if (epoch < 0)
			continue;
		path = path_format("%s/%s", root, names[i]);
		rc = claim_read(&claim, j->store, path, err);
		free(path);
		if (rc == 1) {
			sqlite3_bind_int64(s, 1, strtoll(names[i], NULL, 10));
			sqlite3_bind_int64(s, 2, epoch);
			sqlite3_bind_text(s, 3, claim.attempt, -1, SQLITE_STATIC);
			rc = database_step(&d->d, s, err);
			sqlite3_reset(s);
		}
	}
	store_names_free(names, n);
	free(root);
	sqlite3_finalize(s);
	return rc;
}

static int add_attempts(struct ledger_db *d, const struct ledger *l, struct err *err)
{
	sqlite3_stmt *s =
	    database_prepare(&d->d, "INSERT OR IGNORE INTO attempt VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)", err);
	struct attempt *list = NULL;
	size_t n = 0;
	int rc = s ? attempt_read_all(l->job->store, &list, &n, err) : -1;

	for (size_t i = 0; i < n && rc == 0; i++) {
		const struct attempt *a = &list[i];
		const double seconds[] = {a->wall_s, a->load_s, a->busy_s, a->publish_s};
		const int64_t counts[] = {a->rows,          a->rows_failed,      a->prompt_tokens,     a->cached_tokens,
		                          a->output_tokens, a->reasoning_tokens, a->recomputed_tokens, a->peak_bytes,
		                          a->state};

		sqlite3_bind_text(s, 1, a->id, -1, SQLITE_STATIC);
		sqlite3_bind_int(s, 2, a->worker);
		sqlite3_bind_text(s, 3, a->host, -1, SQLITE_STATIC);
		sqlite3_bind_text(s, 4, a->node_type, -1, SQLITE_STATIC);
		sqlite3_bind_int64(s, 5, a->started_unix_ms);
		sqlite3_bind_int64(s, 6, a->updated_unix_ms);
		for (int k = 0; k < 4; k++)
			sqlite3_bind_double(s, 7 + k, seconds[k]);
		for (int k = 0; k < 9; k++)
			sqlite3_bind_int64(s, 11 + k, counts[k]);
		sqlite3_bind_text(s, 20, a->end_code, -1, SQLITE_STATIC);
		rc = database_step(&d->d, s, err);
		sqlite3_reset(s);
	}
	free(list);
	sqlite3_finalize(s);
	return rc;
}

/* A killed attempt's last heartbeat may be older than what it published: it did at least what is in its records. */
static int raise_attempts(struct ledger_db *d, struct err *err)
{
	return database_exec(&d->d,
	                     "UPDATE attempt SET rows=max(rows, c.n), rows_failed=max(rows_failed, c.failed), prompt_tokens=max(prompt_tokens, c.prompt),"
	                     " cached_tokens=max(cached_tokens, c.cached), output_tokens=max(output_tokens, c.output),"
	                     " reasoning_tokens=max(reasoning_tokens, c.reasoning), recomputed_tokens=max(recomputed_tokens, c.recomputed)"
	                     " FROM (SELECT claim.attempt, count(*) n, sum(status=1) failed, sum(prompt_tokens) prompt, sum(cached_tokens) cached,"
	                     " sum(output_tokens) output, sum(reasoning_tokens) reasoning, sum(recomputed_tokens) recomputed"
	                     " FROM charge JOIN claim USING(shard, epoch) GROUP BY claim.attempt) c WHERE c.attempt=attempt.id",
	                     err);
}

int ledger_db_finish(struct ledger_db *d, const struct ledger *l, struct err *err)
{
	int rc = 0;

	if (add_job(d, l, err) < 0 || add_tags(d, l, err) < 0 || add_shard_totals(d, l, err) < 0 || add_claims(d, l, err) < 0 ||
	    add_attempts(d, l, err) < 0 || raise_attempts(d, err) < 0 || database_exec(&d->d, "COMMIT", err) < 0)
		rc = -1;
	ledger_db_abort(d);
	return rc;
}

int job_ledger(struct job *j, const char *path, struct err *err)
{
	struct ledger_rules rules = {.read = {.damaged = damage_warn, .without_lines = 1}, .allows_missing = 1};
	char *spill = path_format("%s.spill", path);
	struct ledger_db *d = NULL;
	struct ledger l;
	int rc = ledger_open(&l, j, spill, &rules, err);

	free(spill);
	if (rc == 0)
		rc = (d = ledger_db_create(path, err)) ? 0 : -1;
	while (rc == 0 && (rc = ledger_next(&l, err)) == 1)
		rc = ledger_db_add(d, &l, err);
	if (rc == 0)
		rc = ledger_db_finish(d, &l, err);
	else
		ledger_db_abort(d);
	ledger_close(&l);
	return rc;
}

/* ---- holding one against the records ---- */

struct ledger_check {
	struct database d;
	sqlite3_stmt *charges;
	int rc; /* 1: charges stands at a row that no call has asked for */
};

static int next_charge(struct ledger_check *c, struct err *err)
{
	c->rc = database_step(&c->d, c->charges, err);
	return c->rc < 0 ? -1 : 0;
}

struct ledger_check *ledger_check_open(const char *path, const char *shown, struct job *j, struct err *err)
{
	struct ledger_check *c = xcalloc(1, sizeof(*c));

	if (database_open_immutable(&c->d, path, LEDGER_APPLICATION_ID, err) < 0) {
		free(c);
		return NULL;
	}
	free(c->d.name);
	c->d.name = xstrdup(shown);
	c->charges = database_prepare(&c->d, "SELECT * FROM charge ORDER BY row", err);
	if (!c->charges || next_charge(c, err) < 0) {
		ledger_check_close(c);
		return NULL;
	}
	return c;
}

void ledger_check_close(struct ledger_check *c)
{
	if (!c)
		return;
	sqlite3_finalize(c->charges);
	database_close(&c->d);
	free(c);
}

int ledger_check_row(struct ledger_check *c, const struct ledger *l, struct buf *wrong, struct err *err)
{
	static const char *const names[] = {"prompt_tokens", "cached_tokens", "output_tokens", "reasoning_tokens",
	                                    "recomputed_tokens"};
	sqlite3_stmt *s = c->charges;
	struct charge expected = {0};
	int is_charged = charge_of(l, &expected), is_there;
	size_t before = wrong->len;

	/* What no row has asked for is nobody's. */
	while (c->rc == 1 && sqlite3_column_int64(s, 0) < l->plan.row)
		if (next_charge(c, err) < 0)
			return -1;
	is_there = c->rc == 1 && sqlite3_column_int64(s, 0) == l->plan.row;
	if (!is_charged && !is_there)
		return 1;
	if (is_charged != is_there) {
		buf_addf(wrong, "%s: row %" PRId64 " is %s", c->d.name, l->plan.row,
		         is_there ? "charged without a record" : "not charged");
	} else {
		if (column_or_none(s, 1) != expected.shard || sqlite3_column_int64(s, 2) != expected.epoch ||
		    sqlite3_column_int64(s, 3) != expected.status || sqlite3_column_int64(s, 4) != expected.tags ||
		    column_or_none(s, 5) != expected.finished_ms)
			buf_addf(wrong, "%s: row %" PRId64 ": shard, epoch, status, tags or finished_ms are not its record's", c->d.name,
			         l->plan.row);
		for (int i = 0; i < N_COUNTS && wrong->len == before; i++)
			if (sqlite3_column_int64(s, 6 + i) != expected.count[i])
				buf_addf(wrong, "%s: row %" PRId64 ": %s is %lld, its record has %" PRId64, c->d.name, l->plan.row, names[i],
				         (long long)sqlite3_column_int64(s, 6 + i), expected.count[i]);
		for (int i = 0; i < N_SECONDS && wrong->len == before; i++)
			if (sqlite3_column_double(s, 6 + N_COUNTS + i) != expected.seconds[i])
				buf_addf(wrong, "%s: row %" PRId64 ": its seconds are not its record's", c->d.name, l->plan.row);
	}
	if (is_there && next_charge(c, err) < 0)
		return -1;
	return wrong->len == before;
}

static int check_totals(struct ledger_check *c, const struct ledger *l, struct buf *wrong, struct err *err)
{
	sqlite3_stmt *s = database_prepare(&c->d, "SELECT * FROM shard_total ORDER BY shard", err);
	int rc = s ? database_step(&c->d, s, err) : -1;

	for (int64_t shard = 0; shard < l->job->n_shards && rc >= 0 && wrong->len == 0; shard++) {
		int is_equal = rc == 1 && sqlite3_column_int64(s, 0) == shard;

		if (l->shards[shard].n_rows == 0)
			continue;
		for (int i = 0; i < N_SUMS && is_equal; i++)
			is_equal = sqlite3_column_int64(s, 1 + i) == *sums_column(&l->shards[shard], i);
		if (!is_equal)
			buf_addf(wrong, "%s: shard_total of shard %" PRId64 " is not the sum over its rows", c->d.name, shard);
		else
			rc = database_step(&c->d, s, err);
	}
	if (rc == 1 && wrong->len == 0)
		buf_addf(wrong, "%s: shard_total has shard %lld, which has no rows", c->d.name, (long long)sqlite3_column_int64(s, 0));
	sqlite3_finalize(s);
	return rc < 0 ? -1 : 0;
}

static int check_tags(struct ledger_check *c, const struct ledger *l, struct buf *wrong, struct err *err)
{
	static const char sql[] = "SELECT tags, json FROM tag ORDER BY tags";
	sqlite3_stmt *plan = database_prepare(l->plan_db, sql, err), *ours = database_prepare(&c->d, sql, err);
	int a = plan && ours ? 1 : -1, b = a;

	while (a == 1 && b == 1 && wrong->len == 0) {
		a = database_step(l->plan_db, plan, err);
		b = database_step(&c->d, ours, err);
		if (a >= 0 && b >= 0 &&
		    (a != b || (a == 1 && (sqlite3_column_int64(plan, 0) != sqlite3_column_int64(ours, 0) ||
		                           sqlite3_column_bytes(plan, 1) != sqlite3_column_bytes(ours, 1) ||
		                           memcmp(sqlite3_column_text(plan, 1), sqlite3_column_text(ours, 1),
		                                  (size_t)sqlite3_column_bytes(plan, 1)) != 0))))
			buf_addf(wrong, "%s: its tags are not the plan's", c->d.name);
	}
	sqlite3_finalize(plan);
	sqlite3_finalize(ours);
	return a < 0 || b < 0 ? -1 : 0;
}

static int check_job(struct ledger_check *c, const struct ledger *l, struct buf *wrong, struct err *err)
{
	sqlite3_stmt *s = database_prepare(&c->d, "SELECT plan_id, is_complete, n_rows FROM job", err);
	int rc = s ? database_step(&c->d, s, err) : -1;
	const char *id = rc == 1 ? (const char *)sqlite3_column_text(s, 0) : NULL;

	if (rc >= 0 && (!id || strcmp(id, l->job->plan_id) != 0 || sqlite3_column_int64(s, 2) != l->job->n_rows ||
	                sqlite3_column_int(s, 1) != (l->n_records - l->n_closed == l->job->n_rows)))
		buf_addf(wrong, "%s: its table job is not this job's", c->d.name);
	sqlite3_finalize(s);
	return rc < 0 ? -1 : 0;
}

int ledger_check_end(struct ledger_check *c, const struct ledger *l, struct buf *wrong, struct err *err)
{
	size_t before = wrong->len;

	if (c->rc == 1)
		buf_addf(wrong, "%s: row %lld is charged, and the plan has no such row", c->d.name,
		         (long long)sqlite3_column_int64(c->charges, 0));
	else if (check_job(c, l, wrong, err) < 0 || (wrong->len == before && check_tags(c, l, wrong, err) < 0) ||
	         (wrong->len == before && check_totals(c, l, wrong, err) < 0))
		return -1;
	return wrong->len == before;
}
