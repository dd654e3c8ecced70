/* carry.c: what a plan has finished goes over into the plan that follows it.
 *
 *     old segments -> committed_next (by old row) -+-> key and hash looked up in the new plan.db -> sorter by new shard and row
 *     old partial states --------------------------'                                                  |
 *                                                   seg-0000-000001.db, ..., and done, of each shard <-'
 *
 * Memory is that of two sorters and a segment, whatever the number of rows. Epoch 0 is before every claim, so that these records are the
 * lowest epoch's and count. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "queue/plan_private.h"

/* Of lines in one segment: it is held in memory, twice for a moment. */
#define PIECE_BYTES ((size_t)32 << 20)

/* What the sorter's records are, by the last byte of their shard and row: a result comes before the partial states of its row. */
enum carried { CARRIED_RESULT = 1, CARRIED_AGAIN = 2, CARRIED_PARTIAL = 3 };

struct carry {
	struct job_plan *p;
	struct job *from;
	struct job_replan *how;
	struct database *old;
	sqlite3_stmt *find_new, *find_old;
	struct sorter *sorter;
};

/* A row of the old plan, and where the new one has it. */
struct match {
	int64_t row, shard;
	const char *why_not; /* NULL: the same row */
	int is_folded;       /* into another, whose record it gets: its own can go */
};

static int find_match(struct carry *c, const char *key, size_t n_key, const void *hash, struct match *m, struct err *err)
{
	sqlite3_stmt *s = c->find_new;
	int rc;

	*m = (struct match){.why_not = "is no longer in the input"};
	sqlite3_bind_text64(s, 1, key, n_key, SQLITE_STATIC, SQLITE_UTF8);
	rc = database_step(&c->p->db, s, err);
	if (rc == 1) {
		m->row = sqlite3_column_int64(s, 0);
		m->shard = sqlite3_column_int64(s, 2);
		if (sqlite3_column_bytes(s, 1) != 32 || memcmp(sqlite3_column_blob(s, 1), hash, 32) != 0) {
			m->why_not = "has another request now";
		} else if (sqlite3_column_type(s, 3) != SQLITE_NULL) {
			m->why_not = "is folded into another now";
			m->is_folded = 1;
		} else {
			m->why_not = sqlite3_column_type(s, 2) == SQLITE_NULL ? "is at fault now" : NULL;
		}
	}
	sqlite3_reset(s);
	return rc < 0 ? -1 : 0;
}

static void put_key(unsigned char *p, uint64_t v, int n)
{
	for (int i = 0; i < n; i++)
		p[i] = (unsigned char)(v >> (8 * (n - 1 - i)));
}

static int64_t get_key(const unsigned char *p, int n)
{
	uint64_t v = 0;

	for (int i = 0; i < n; i++)
		v = v << 8 | p[i];
	return (int64_t)v;
}

static int add(struct carry *c, const struct match *m, enum carried what, const struct sorter_part *parts, int n_parts, struct err *err)
{
	unsigned char key[13];

	put_key(key, (uint64_t)m->shard, 4);
	put_key(key + 4, (uint64_t)m->row, 8);
	key[12] = (unsigned char)what;
	return sorter_add(c->sorter, key, sizeof(key), parts, n_parts, err);
}

/* ---- results ---- */

static int carry_result(struct carry *c, const struct plan_cursor *at, struct row_result *r, struct err *err)
{
	struct sorter_part parts[2] = {{r, sizeof(*r)}, {r->line, r->n_line}};
	struct match m;

	if (plan_beat(c->p, err) < 0 || find_match(c, at->key, at->n_key, at->hash, &m, err) < 0)
		return -1;
	c->how->n_finished++;
	if (m.why_not) {
		c->how->n_dropped++;
		if (!c->how->may_drop && !m.is_folded)
			return err_set(err, ERR_FINGERPRINT, "row \"%.*s\" (%s:%" PRId64 ") has a result, and %s", (int)(at->n_key < 200 ? at->n_key : 200),
			               at->key, at->source, at->line, m.why_not);
		return 0;
	}
	if (c->how->keep && !c->how->keep(c->how->arg, r)) {
		c->how->n_again++;
		return add(c, &m, CARRIED_AGAIN, parts, 0, err);
	}
	c->how->n_kept++;
	return add(c, &m, CARRIED_RESULT, parts, 2, err);
}

static int carry_results(struct carry *c, struct err *err)
{
	char *spill = path_format("%s/results.spill", c->p->work_dir);
	struct committed *records = committed_open(c->from, spill, &(struct read_rules){0}, err);
	struct plan_cursor at = {0};
	struct committed_record record;
	int rc = records ? 0 : -1;

	free(spill);
	at.row = -1;
	while (rc == 0 && (rc = committed_next(records, &record, err)) == 1) {
		do
			rc = plan_cursor_next(&at, c->old, err);
		while (rc == 1 && at.row < record.r.row);
		if (rc == 0 || (rc == 1 && (at.row != record.r.row || at.error)))
			rc = err_set(err, ERR_STORAGE, "shard %" PRId64 ": has a result for row %" PRId64 ", and the plan has no such row to run", record.shard,
			             record.r.row);
		/* A copy of another row's record is made again from that. */
		if (rc == 1)
			rc = record.is_copy ? 0 : carry_result(c, &at, &record.r, err);
	}
	plan_cursor_close(&at);
	committed_close(records);
	return rc;
}

/* ---- partial states ---- */

static int carry_partial(struct carry *c, int64_t row, const void *state, size_t n, struct err *err)
{
	sqlite3_stmt *s = c->find_old;
	struct sorter_part part = {state, n};
	struct match m = {0};
	int rc;

	sqlite3_bind_int64(s, 1, row);
	rc = database_step(c->old, s, err);
	if (rc == 1 && sqlite3_column_bytes(s, 1) == 32)
		rc = find_match(c, (const char *)sqlite3_column_text(s, 0), (size_t)sqlite3_column_bytes(s, 0), sqlite3_column_blob(s, 1), &m, err);
	else if (rc >= 0)
		rc = err_set(err, ERR_STORAGE, "a segment has a partial state of row %" PRId64 ", and the plan has no such row", row);
	sqlite3_reset(s);
	return rc < 0 || m.why_not ? rc : add(c, &m, CARRIED_PARTIAL, &part, 1, err);
}

/* In the order of segments: equal keys leave the sorter as they came, so the last of a row's states is the one that counts. */
static int carry_partials(struct carry *c, int64_t shard, struct err *err)
{
	char *dir = job_shard_dir(c->from, shard);
	struct shard_listing l;
	int rc = shard_listing_read(&l, c->from->store, dir, err);

	for (size_t i = 0; i < l.n_segments && rc == 0 && !l.is_done; i++) {
		char *name = segment_path(dir, l.segments[i].epoch, l.segments[i].sequence);
		struct segment_reader *r;
		struct err fault = {0};
		const void *state;
		int64_t row;
		size_t n;
		int is_damaged, next = 1;

		/* States save work and no more: one that is gone or damaged is not needed. */
		rc = segment_reader_open(&r, c->from->store, name, &is_damaged, &fault);
		if (rc < 0 && !is_damaged)
			err_set(err, fault.code, "%s", fault.msg);
		rc = rc < 0 && !is_damaged ? -1 : 0;
		while (r && rc == 0 && next == 1 && (next = segment_reader_next_partial(r, &row, &state, &n, &fault)) == 1)
			rc = carry_partial(c, row, state, n, err);
		segment_reader_close(r);
		free(name);
	}
	shard_listing_release(&l);
	free(dir);
	return rc;
}

/* ---- segments of the new plan ---- */

struct piece {
	struct store *work; /* the working directory */
	struct segment_writer *writer;
	int64_t shard;      /* -1: none */
	int64_t n_results, n_rows;
	size_t n_bytes;
	struct segment_name *names; /* published in this shard */
	size_t n_names, cap;
	/* the latest partial state of the row before it is known to be the last */
	int64_t partial_row, finished_row;
	struct buf partial;
};

static int publish_piece(struct piece *p, struct err *err)
{
	char *dir, *name;
	int rc;

	if (segment_writer_count(p->writer) == 0)
		return 0;
	dir = path_format("shards/%05" PRId64, p->shard);
	name = segment_path(dir, 0, (int)p->n_names + 1);
	rc = segment_writer_publish(p->writer, p->work, name, err);
	MEM_GROW(p->names, p->cap, p->n_names + 1);
	p->names[p->n_names] = (struct segment_name){0, (int)p->n_names + 1};
	p->n_names++;
	p->n_bytes = 0;
	free(dir);
	free(name);
	return rc;
}

static void flush_partial(struct carry *c, struct piece *p)
{
	if (p->partial_row < 0)
		return;
	segment_writer_add_partial(p->writer, p->partial_row, p->partial.data, p->partial.len);
	p->n_bytes += p->partial.len;
	p->partial_row = -1;
	c->how->n_partial++;
}

static int end_shard(struct carry *c, struct piece *p, struct err *err)
{
	char *dir;
	int rc;

	flush_partial(c, p);
	if (p->shard < 0)
		return 0;
	rc = publish_piece(p, err);
	if (rc == 0 && p->n_results == p->n_rows) {
		dir = path_format("shards/%05" PRId64, p->shard);
		rc = done_create(p->work, dir, p->n_rows, 0, p->names, p->n_names, err) < 0 ? -1 : 0;
		free(dir);
	}
	p->n_names = 0;
	return rc;
}

static int begin_shard(struct carry *c, struct piece *p, int64_t shard, struct err *err)
{
	char sql[96];

	p->shard = shard;
	p->n_results = 0;
	snprintf(sql, sizeof(sql), "SELECT n_rows FROM shard WHERE shard=%" PRId64, shard);
	return database_get_int(&c->p->db, sql, &p->n_rows, err);
}

static int take(struct carry *c, struct piece *p, const unsigned char *key, const struct sorter_part *record, struct err *err)
{
	int64_t row = get_key(key + 4, 8);
	enum carried what = (enum carried)key[12];
	struct row_result r;

	if (p->partial_row != row)
		flush_partial(c, p);
	if (what == CARRIED_PARTIAL) {
		if (row == p->finished_row)
			return 0;
		buf_reset(&p->partial);
		buf_add(&p->partial, record->data, record->n);
		p->partial_row = row;
		return 0;
	}
	p->finished_row = row;
	if (what == CARRIED_AGAIN)
		return 0;
	memcpy(&r, record->data, sizeof(r));
	r.row = row;
	r.line = (const char *)record->data + sizeof(r);
	r.n_line = record->n - sizeof(r);
	segment_writer_add_result(p->writer, &r);
	p->n_results++;
	p->n_bytes += r.n_line;
	return p->n_bytes > PIECE_BYTES ? publish_piece(p, err) : 0;
}

static int write_segments(struct carry *c, struct err *err)
{
	struct piece p = {.work = store_open(c->p->work_dir, err), .shard = -1, .partial_row = -1, .finished_row = -1};
	struct sorter_part key, record;
	int rc = p.work ? sorter_finish(c->sorter, err) : -1;

	p.writer = segment_writer_new();
	while (rc == 0 && (rc = sorter_next(c->sorter, &key, &record, err)) == 1) {
		int64_t shard = get_key(key.data, 4);

		rc = 0;
		if (shard != p.shard && (end_shard(c, &p, err) < 0 || begin_shard(c, &p, shard, err) < 0))
			rc = -1;
		if (rc == 0)
			rc = plan_beat(c->p, err);
		if (rc == 0)
			rc = take(c, &p, key.data, &record, err);
	}
	if (rc == 0)
		rc = end_shard(c, &p, err);
	segment_writer_free(p.writer);
	buf_release(&p.partial);
	free(p.names);
	store_close(p.work);
	return rc;
}

int plan_carry(struct job_plan *p, struct err *err)
{
	struct carry c = {.p = p, .from = p->from, .how = p->how, .old = job_plan_db(p->from, err)};
	char *spill = path_format("%s/carry.spill", p->work_dir);
	int rc = -1;

	c.how->n_finished = c.how->n_kept = c.how->n_dropped = c.how->n_again = c.how->n_partial = 0;
	c.sorter = sorter_new(spill, SORT_BYTES);
	free(spill);
	if (!c.old)
		goto out;
	c.find_new = database_prepare(&p->db, "SELECT row, hash, shard, same_as FROM row WHERE key=?", err);
	c.find_old = database_prepare(c.old, "SELECT key, hash FROM row WHERE row=?", err);
	if (!c.find_new || !c.find_old || carry_results(&c, err) < 0)
		goto out;
	if (c.how->keep && c.how->n_again == 0) {
		rc = 1;
		goto out;
	}
	for (int64_t i = 0; i < p->from->n_shards; i++)
		if (carry_partials(&c, i, err) < 0)
			goto out;
	rc = write_segments(&c, err);
out:
	sqlite3_finalize(c.find_new);
	sqlite3_finalize(c.find_old);
	sorter_free(c.sorter);
	return rc;
}
