/* ledger_read.c: checks a ledger, sums its rows into cells, prices them and hands them out. */
#include "jobs/ledger_read.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/json.h"
#include "jobs/day.h"
#include "jobs/ledger_private.h"
#include "queue/schema.h"

static int damaged(const struct ledger_reader *l, struct err *err, const char *what)
{
	return err_set(err, ERR_STORAGE, "%s: %s: damaged", l->d.name, what);
}

const char *ledger_text(const struct ledger_reader *l, sqlite3_stmt *s, int column, struct err *err)
{
	const char *t = (const char *)sqlite3_column_text(s, column);
	utf8proc_ssize_t n;
	utf8proc_int32_t c;

	if (!t || strlen(t) != (size_t)sqlite3_column_bytes(s, column)) {
		err_set(err, ERR_STORAGE, "%s: column %s is no text: damaged", l->d.name, sqlite3_column_name(s, column));
		return NULL;
	}
	for (const char *p = t; *p; p += n) {
		n = utf8proc_iterate((const utf8proc_uint8_t *)p, -1, &c);
		if (n <= 0) {
			err_set(err, ERR_STORAGE, "%s: column %s is not UTF-8: damaged", l->d.name, sqlite3_column_name(s, column));
			return NULL;
		}
	}
	return t;
}

/* An object of strings, none of which hides a NUL byte. */
static yyjson_doc *parse_tags(const struct ledger_reader *l, const char *text, struct err *err)
{
	yyjson_doc *doc = json_parse(text, strlen(text), ERR_STORAGE, err);
	yyjson_val *root = doc ? yyjson_doc_get_root(doc) : NULL, *k, *v;
	size_t i, n;
	int ok = yyjson_is_obj(root);

	if (!doc) {
		err_context(err, "%s: tags", l->d.name);
		return NULL;
	}
	if (ok) {
		yyjson_obj_foreach (root, i, n, k, v)
			ok = ok && yyjson_is_str(v) && strlen(yyjson_get_str(v)) == yyjson_get_len(v) &&
			     strlen(yyjson_get_str(k)) == yyjson_get_len(k);
	}
	if (!ok) {
		damaged(l, err, "tags are not a JSON object of strings");
		yyjson_doc_free(doc);
		return NULL;
	}
	return doc;
}

static int read_job(struct ledger_reader *l, struct err *err)
{
	sqlite3_stmt *s =
	    database_prepare(&l->d, "SELECT plan_id, name, model, fingerprint, tags, is_complete, n_rows FROM job", err);
	const char *text[5];
	int r = -1;

	if (!s)
		return -1;
	if (database_step(&l->d, s, err) != 1) {
		err_set(err, ERR_STORAGE, "%s: table job is empty: damaged", l->d.name);
		goto out;
	}
	for (int i = 0; i < 5; i++) {
		text[i] = ledger_text(l, s, i, err);
		if (!text[i])
			goto out;
	}
	l->job->plan_id = xstrdup(text[0]);
	l->job->name = xstrdup(text[1]);
	l->job->model = xstrdup(text[2]);
	l->job->fingerprint = xstrdup(text[3]);
	l->job_tags = parse_tags(l, text[4], err);
	l->job->is_complete = sqlite3_column_int(s, 5) != 0;
	l->job->n_rows = sqlite3_column_int64(s, 6);
	if (!l->job_tags)
		goto out;
	r = database_step(&l->d, s, err);
	if (r == 1)
		r = damaged(l, err, "table job has more than one row");
out:
	sqlite3_finalize(s);
	return r;
}

/* Counts that no job can have; sums are sound after this. */
static int check_rows(struct ledger_reader *l, struct err *err)
{
	sqlite3_stmt *s = database_prepare(
	    &l->d,
	    "SELECT row FROM charge WHERE status NOT IN (0, 1, 2, 3) OR prompt_tokens < 0 OR cached_tokens < 0 OR cached_tokens > "
	    "prompt_tokens"
	    " OR output_tokens < 0 OR reasoning_tokens < 0 OR reasoning_tokens > output_tokens OR recomputed_tokens < 0"
	    " OR typeof(prompt_tokens) <> 'integer' OR typeof(cached_tokens) <> 'integer' OR typeof(output_tokens) <> 'integer'"
	    " OR typeof(reasoning_tokens) <> 'integer' OR typeof(recomputed_tokens) <> 'integer' OR typeof(tags) <> 'integer'"
	    " OR (finished_ms IS NOT NULL AND (typeof(finished_ms) <> 'integer' OR finished_ms NOT BETWEEN 0 AND 253402300799999))"
	    " OR (shard IS NOT NULL AND typeof(shard) <> 'integer')"
	    " OR NOT EXISTS (SELECT 1 FROM tag WHERE tag.tags = charge.tags) LIMIT 1",
	    err);
	int r = s ? database_step(&l->d, s, err) : -1;

	if (r == 1)
		r = err_set(err, ERR_STORAGE, "%s: table charge: row %lld has a status, tags, time or counts that cannot be: damaged",
		            l->d.name, (long long)sqlite3_column_int64(s, 0));
	sqlite3_finalize(s);
	return r;
}

/* Sum of rows = shard_total, shard by shard and column by column. */
static int check_shards(struct ledger_reader *l, struct err *err)
{
	static const char *const names[] = {"n_rows",        "n_failed",         "prompt_tokens",    "cached_tokens",
	                                    "output_tokens", "reasoning_tokens", "recomputed_tokens"};
	enum { N = sizeof(names) / sizeof(*names) };
	sqlite3_stmt *s = database_prepare(
	    &l->d,
	    "WITH c AS (SELECT shard, COUNT(*) n, SUM(status = 1) f, SUM(prompt_tokens) p, SUM(cached_tokens) k, "
	    "SUM(output_tokens) o,"
	    " SUM(reasoning_tokens) e, SUM(recomputed_tokens) r FROM charge WHERE shard IS NOT NULL GROUP BY shard)"
	    " SELECT coalesce(t.shard, c.shard), coalesce(c.n, 0), coalesce(c.f, 0), coalesce(c.p, 0), coalesce(c.k, 0), "
	    "coalesce(c.o, 0),"
	    " coalesce(c.e, 0), coalesce(c.r, 0), coalesce(t.n_rows, 0), coalesce(t.n_failed, 0), coalesce(t.prompt_tokens, 0),"
	    " coalesce(t.cached_tokens, 0), coalesce(t.output_tokens, 0), coalesce(t.reasoning_tokens, 0), "
	    "coalesce(t.recomputed_tokens, 0)"
	    " FROM shard_total t FULL JOIN c ON c.shard = t.shard ORDER BY 1",
	    err);
	int r = s ? 0 : -1;

	while (r == 0 && (r = database_step(&l->d, s, err)) == 1) {
		r = 0;
		for (int i = 0; i < N && r == 0; i++) {
			int64_t rows = sqlite3_column_int64(s, 1 + i), total = sqlite3_column_int64(s, 1 + N + i);

			if (rows != total)
				r = err_set(err, ERR_STORAGE, "%s: out of balance: shard %lld: %s is %lld over its rows, %lld in shard_total",
				            l->d.name, (long long)sqlite3_column_int64(s, 0), names[i], (long long)rows, (long long)total);
		}
	}
	sqlite3_finalize(s);
	return r;
}

static const char cell_sums[] =
    "SUM(status IN (0, 3)), SUM(status IN (1, 2)), SUM(prompt_tokens), SUM(cached_tokens), SUM(output_tokens), "
    "SUM(reasoning_tokens),"
    " SUM(recomputed_tokens), SUM(CASE WHEN status IN (0, 3) THEN prompt_tokens + output_tokens ELSE 0 END)";
enum { N_CELL_SUMS = 8 }; /* in the order of enum count_kind from COUNT_OK */

static void read_sums(sqlite3_stmt *s, int first, struct measure *m)
{
	for (int i = 0; i < N_CELL_SUMS; i++)
		m->count[i] = sqlite3_column_int64(s, first + i);
}

/* Sums over all rows, and the tokens that attempts computed beyond those of rows that ran. */
static int read_totals(struct ledger_reader *l, struct err *err)
{
	struct buf sql = {0};
	sqlite3_stmt *s;
	int64_t computed, charged, n;
	int r = -1;

	buf_addf(&sql,
	         "SELECT COUNT(*), coalesce(SUM(CASE WHEN status IN (0, 1) THEN prompt_tokens - cached_tokens + output_tokens "
	         "END), 0), %s "
	         "FROM charge",
	         cell_sums);
	s = database_prepare(&l->d, sql.data, err);
	buf_release(&sql);
	if (!s || database_step(&l->d, s, err) != 1)
		goto out;
	n = l->job->n_charges = sqlite3_column_int64(s, 0);
	charged = sqlite3_column_int64(s, 1);
	read_sums(s, 2, &l->rows);
	if (l->job->n_rows < n || (l->job->is_complete && l->job->n_rows != n)) {
		err_set(err, ERR_STORAGE, "%s: out of balance: the job has %lld rows%s, table charge has %lld", l->d.name,
		        (long long)l->job->n_rows, l->job->is_complete ? " and is complete" : "", (long long)n);
		goto out;
	}
	if (database_get_int(&l->d, "SELECT coalesce(SUM(prompt_tokens - cached_tokens + output_tokens), 0) FROM attempt",
	                     &computed, err) < 0)
		goto out;
	if (computed > charged && ledger_place_waste(l, computed - charged, err) < 0)
		goto out;
	r = 0;
out:
	sqlite3_finalize(s);
	return r;
}

static int make_cells(struct ledger_reader *l, struct err *err)
{
	struct buf sql = {0};
	sqlite3_stmt *s = NULL;
	int r = -1;

	if (l->job->n_attempts == 0) {
		if (database_get_int(&l->d, "SELECT coalesce(MIN(finished_ms), 0) FROM charge", &l->first_ms, err) < 0)
			return -1;
	} else {
		l->first_ms = l->job->start_ms;
	}
	if (database_exec(
	        &l->d,
	        "CREATE TEMP TABLE cell(tags INTEGER, day INTEGER, node TEXT, ok, failed, input, cached, output, reasoning,"
	        " recomputed, useful)",
	        err) < 0)
		return -1;
	buf_addf(&sql,
	         "INSERT INTO temp.cell SELECT tags, day, node, %s FROM (SELECT c.tags, coalesce(c.finished_ms, ?1) / 86400000 day,"
	         " coalesce(a.node_type, ?2) node, c.status, c.prompt_tokens, c.cached_tokens, c.output_tokens, c.reasoning_tokens,"
	         " c.recomputed_tokens FROM charge c LEFT JOIN claim k ON k.shard = c.shard AND k.epoch = c.epoch"
	         " LEFT JOIN attempt a ON a.id = k.attempt) GROUP BY tags, day, node ORDER BY tags, day, node",
	         cell_sums);
	s = database_prepare(&l->d, sql.data, err);
	buf_release(&sql);
	if (s) {
		sqlite3_bind_int64(s, 1, l->first_ms);
		sqlite3_bind_text(s, 2, l->only_node, -1, SQLITE_STATIC);
		r = database_step(&l->d, s, err);
	}
	sqlite3_finalize(s);
	return r;
}

struct cell {
	int64_t tags, day;
	const char *node;
	struct measure m;
	struct weights w;
};

static int price_cell(struct ledger_reader *l, struct cell *c, struct err *err)
{
	struct token_counts t = {.prompt = c->m.count[COUNT_INPUT],
	                         .cached = c->m.count[COUNT_CACHED],
	                         .output = c->m.count[COUNT_OUTPUT],
	                         .reasoning = c->m.count[COUNT_REASONING]};
	const struct prices *p = l->o->prices;
	struct token_cost cost = {0};

	if (p && prices_has_models(p) && (t.prompt || t.output)) {
		if (prices_tokens_cost(p, l->job->model, c->day, &t, &cost, err) < 0)
			return err_context(err, "%s", l->d.name);
		c->m.money[MONEY_INPUT] = cost.input;
		c->m.money[MONEY_CACHED_INPUT] = cost.cached_input;
		c->m.money[MONEY_OUTPUT] = cost.output;
		c->m.money[MONEY_REASONING] = cost.reasoning;
		c->m.money[MONEY_LIST] = cost.list;
		c->m.money[MONEY_BILLED] = cost.billed;
		c->m.money[MONEY_SAVING] = cost.cache_saving;
	}
	c->w.w[WEIGHT_LIST] = cost.list;
	c->w.w[WEIGHT_TOKENS] = (atto)t.prompt - t.cached + t.output;
	c->w.w[WEIGHT_REQUESTS] = (atto)c->m.count[COUNT_OK] + c->m.count[COUNT_FAILED];
	return 0;
}

/* 1, 0 at the end, -1. */
static int next_cell(struct ledger_reader *l, sqlite3_stmt *s, struct cell *c, struct err *err)
{
	int r = database_step(&l->d, s, err);

	if (r != 1)
		return r;
	*c = (struct cell){.tags = sqlite3_column_int64(s, 0), .day = sqlite3_column_int64(s, 1)};
	c->node = ledger_text(l, s, 2, err);
	read_sums(s, 3, &c->m);
	return c->node && price_cell(l, c, err) == 0 ? 1 : -1;
}

/* First walk: what the cells of each pool weigh together. */
static int weigh(struct ledger_reader *l, struct err *err)
{
	sqlite3_stmt *s = database_prepare(&l->d, "SELECT * FROM temp.cell", err);
	struct pool *p;
	struct cell c;
	int r = s ? 0 : -1;

	while (r == 0 && (r = next_cell(l, s, &c, err)) == 1) {
		p = ledger_find_pool(l, c.day, c.node);
		r = weights_add(&l->pools.sum, &c.w) < 0 || (p && weights_add(&p->sum, &c.w) < 0)
		        ? damaged(l, err, "sums are too large")
		        : 0;
	}
	for (size_t i = 0; i < l->pools.n; i++)
		l->pools.list[i].is_orphan = l->pools.list[i].sum.w[WEIGHT_REQUESTS] == 0;
	sqlite3_finalize(s);
	return r;
}

static int hand_out(struct ledger_reader *l, struct group_facts *f, const struct measure *m, ledger_cell_fn fn, void *arg,
                    struct err *err)
{
	if (measure_add(&l->given, m) < 0)
		return damaged(l, err, "sums are too large");
	if (f->day < l->o->since || f->day > l->o->until)
		return 0;
	return fn(arg, f, m, err);
}

static int hand_out_orphans(struct ledger_reader *l, struct group_facts *f, ledger_cell_fn fn, void *arg, struct err *err)
{
	for (size_t i = 0; i < l->pools.n; i++) {
		struct pool *p = &l->pools.list[i];
		struct measure m;

		if (!p->is_orphan)
			continue;
		m = pool_take(p, &l->pools.so_far, &l->pools.sum);
		f->day = p->day;
		f->node = p->node;
		if (!measure_is_zero(&m) && hand_out(l, f, &m, fn, arg, err) < 0)
			return -1;
	}
	return 0;
}

/* Second walk, by tags, so that each set of tags is parsed once. */
static int walk(struct ledger_reader *l, ledger_cell_fn fn, void *arg, struct err *err)
{
	sqlite3_stmt *s = database_prepare(&l->d,
	                                   "SELECT cell.*, tag.json FROM temp.cell JOIN tag ON tag.tags = cell.tags"
	                                   " ORDER BY cell.rowid",
	                                   err);
	struct group_facts f = {.model = l->job->model, .job = l->job->name, .job_tags = yyjson_doc_get_root(l->job_tags)};
	yyjson_doc *tags = NULL;
	int64_t tags_number = -1;
	struct cell c;
	int r = s ? 0 : -1;

	while (r == 0 && (r = next_cell(l, s, &c, err)) == 1) {
		struct pool *p = ledger_find_pool(l, c.day, c.node);
		struct measure share;

		r = -1;
		if (!tags || c.tags != tags_number) {
			const char *text = ledger_text(l, s, 3 + N_CELL_SUMS, err);

			yyjson_doc_free(tags);
			tags = text ? parse_tags(l, text, err) : NULL;
			tags_number = c.tags;
			if (!tags)
				break;
			f.row_tags = yyjson_doc_get_root(tags);
		}
		if (p) {
			weights_add(&p->so_far, &c.w);
			share = pool_take(p, &p->so_far, &p->sum);
			if (measure_add(&c.m, &share) < 0) {
				damaged(l, err, "sums are too large");
				break;
			}
		}
		f.day = c.day;
		f.node = c.node;
		weights_add(&l->pools.so_far, &c.w);
		r = hand_out(l, &f, &c.m, fn, arg, err) < 0 || hand_out_orphans(l, &f, fn, arg, err) < 0 ? -1 : 0;
	}
	if (r == 0 && l->job->n_charges == 0) {
		f.row_tags = NULL;
		r = hand_out_orphans(l, &f, fn, arg, err);
	}
	yyjson_doc_free(tags);
	sqlite3_finalize(s);
	return r;
}

/* What was handed out = sums over charge + sums over attempt. */
static int check_given(struct ledger_reader *l, struct err *err)
{
	struct measure expected = l->rows;
	struct buf a = {0}, b = {0};
	int r = 0;

	for (size_t i = 0; i < l->pools.n; i++)
		if (measure_add(&expected, &l->pools.list[i].total) < 0)
			return damaged(l, err, "sums are too large");
	for (int i = 0; i < N_COUNTS && r == 0; i++)
		if (expected.count[i] != l->given.count[i])
			r = err_set(err, ERR_STORAGE, "%s: out of balance: %s is %lld over groups, %lld in the job", l->d.name,
			            count_names[i], (long long)l->given.count[i], (long long)expected.count[i]);
	/* List prices come from cells alone; their parts must make up the whole. */
	expected.money[MONEY_LIST] = l->given.money[MONEY_INPUT] + l->given.money[MONEY_CACHED_INPUT] +
	                             l->given.money[MONEY_OUTPUT] + l->given.money[MONEY_REASONING];
	for (int i = MONEY_LIST; i < N_MONEY && r == 0; i++) {
		if (i == MONEY_BILLED || i == MONEY_SAVING || expected.money[i] == l->given.money[i])
			continue;
		decimal_add_exact(&a, l->given.money[i]);
		decimal_add_exact(&b, expected.money[i]);
		r = err_set(err, ERR_STORAGE, "%s: out of balance: %s is %s over groups, %s in the job", l->d.name, money_names[i],
		            a.data, b.data);
	}
	buf_release(&a);
	buf_release(&b);
	return r;
}

static int read_histograms(struct ledger_reader *l, struct err *err)
{
	sqlite3_stmt *s;
	int r;

	if (!l->o->latency_s)
		return 0;
	s = database_prepare(
	    &l->d,
	    "SELECT wait_s + prefill_s + decode_s, output_tokens, finished_ms / 86400000 FROM charge WHERE status IN (0, 1)"
	    " AND finished_ms IS NOT NULL",
	    err);
	r = s ? 0 : -1;
	while (r == 0 && (r = database_step(&l->d, s, err)) == 1) {
		int64_t day = sqlite3_column_int64(s, 2);

		r = 0;
		if (day < l->o->since || day > l->o->until)
			continue;
		histogram_add(l->o->latency_s, sqlite3_column_double(s, 0));
		histogram_add(l->o->output_tokens, (double)sqlite3_column_int64(s, 1));
	}
	sqlite3_finalize(s);
	return r;
}

void ledger_job_release(struct ledger_job *j)
{
	free(j->plan_id);
	free(j->name);
	free(j->model);
	free(j->fingerprint);
	*j = (struct ledger_job){0};
}

int ledger_read(const char *path, const char *shown, const struct ledger_options *o, ledger_cell_fn fn, void *arg,
                struct ledger_job *job, struct err *err)
{
	struct ledger_reader l = {.o = o, .job = job};
	int r = -1;

	*job = (struct ledger_job){0};
	if (database_open_immutable(&l.d, path, LEDGER_APPLICATION_ID, err) < 0)
		return -1;
	free(l.d.name);
	l.d.name = xstrdup(shown);
	if (database_exec(&l.d, "PRAGMA temp_store = FILE; PRAGMA cache_size = -4096", err) == 0 && read_job(&l, err) == 0 &&
	    check_rows(&l, err) == 0 && check_shards(&l, err) == 0 && ledger_read_attempts(&l, err) == 0 &&
	    read_totals(&l, err) == 0 && make_cells(&l, err) == 0 && weigh(&l, err) == 0 && walk(&l, fn, arg, err) == 0 &&
	    check_given(&l, err) == 0)
		r = read_histograms(&l, err);
	job->total = l.given;
	if (r < 0)
		ledger_job_release(job);
	ledger_free_pools(&l);
	yyjson_doc_free(l.job_tags);
	free(l.only_node);
	database_close(&l.d);
	return r;
}
