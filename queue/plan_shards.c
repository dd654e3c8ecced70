/* plan_shards.c: a plan's rows, sorted by prefix, become shards: two walks over the sorted rows, one for what they cost together, one that
 * cuts (shard_cut.h) and writes. Only the rows of the shard in the making are in memory, and of a very large one (many rows, long lines) only the
 * last HELD_BYTES: what is more goes to its file before the shard is complete, in order for itself. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "queue/lines.h"
#include "queue/plan_private.h"
#include "queue/shard_cut.h"

#define HELD_BYTES ((size_t)32 << 20)
#define LEAST_COST_SHARE 0.01 /* of its own cost: what a row costs at least, however much of its prefix is shared */

/* Without a wish: eight shards, so that a few workers can share a small job, but none under 256 rows, since each has a tail in which the
 * batch runs empty; and none over 2000, so that a lost shard is a small loss and the last shards of a large job end together. */
static int64_t choose_rows_per_shard(int64_t n_rows)
{
	int64_t n = n_rows / 8;

	return n < 256 ? 256 : n > 2000 ? 2000 : n;
}

static int64_t choose_n_shards(const struct job_plan *p, int64_t n_rows, int64_t rows_per_shard)
{
	int64_t n = p->n_shards_wanted;

	if (rows_per_shard <= 0)
		rows_per_shard = choose_rows_per_shard(n_rows);
	if (n <= 0)
		n = (n_rows + rows_per_shard - 1) / rows_per_shard;
	if (n > n_rows)
		n = n_rows;
	return n < MAX_SHARDS ? n : MAX_SHARDS;
}

/* ---- sorted rows, with what neighbours share ---- */

struct walk {
	struct sorter *rows;
	struct buf last_key;
	int begun;
	/* the current row */
	struct row_weight weight;
	struct sorter_part line; /* borrowed until the next */
	uint32_t shared;         /* whole units of prefix, with the row before; 0 for the first */
};

static int walk_next(struct walk *w, struct err *err)
{
	struct sorter_part key, record;
	size_t n = 0;
	int rc = sorter_next(w->rows, &key, &record, err);

	if (rc != 1)
		return rc;
	if (record.n < sizeof(w->weight))
		BUG("a sorted row of %zu bytes", record.n);
	memcpy(&w->weight, record.data, sizeof(w->weight));
	w->line = (struct sorter_part){(const char *)record.data + sizeof(w->weight), record.n - sizeof(w->weight)};
	while (w->begun && n < key.n && n < w->last_key.len && ((const char *)key.data)[n] == w->last_key.data[n])
		n++;
	w->shared = (uint32_t)(n / PLAN_PREFIX_UNIT);
	w->begun = 1;
	buf_reset(&w->last_key);
	buf_add(&w->last_key, key.data, key.n);
	return 1;
}

static double shared_cost(const struct row_weight *w, uint32_t shared)
{
	double cost = w->cost - w->saving * shared, least = w->cost * LEAST_COST_SHARE;

	return cost > least ? cost : least;
}

static int sum_costs(struct job_plan *p, double *cost, struct err *err)
{
	struct walk w = {.rows = p->rows};
	int rc;

	*cost = 0;
	while ((rc = walk_next(&w, err)) == 1) {
		*cost += shared_cost(&w.weight, w.shared);
		p->figures.shared_units += w.shared;
	}
	buf_release(&w.last_key);
	return rc < 0 ? -1 : sorter_rewind(p->rows, err);
}

/* ---- cutting ---- */

struct cutting {
	struct job_plan *p;
	struct shard_cut cut;
	struct sorter *places;      /* who is where, for plan.db in row order: key row (big-endian), data shard */
	sqlite3_stmt *add;
	struct plan_shards *out;
	/* rows that are held, in prefix order */
	struct buf text;
	size_t *at;                 /* [n + 1] where each begins in text */
	double *costs;              /* [n] after sharing */
	double *own_costs;          /* [n] alone: what decides the order */
	uint32_t *shared, *order;   /* [n] */
	size_t n, at_cap, costs_cap, own_cap, shared_cap, order_cap;
	double held_cost;
	/* the shard in the making, as far as it is written */
	struct line_writer *writer; /* NULL: nothing is */
	int64_t n_written;
	double written_cost;
	double first_extra;         /* what its first row costs more, as it finds nothing computed */
};

static void hold(struct cutting *c, const struct walk *w)
{
	MEM_GROW(c->at, c->at_cap, c->n + 2);
	MEM_GROW(c->costs, c->costs_cap, c->n + 1);
	MEM_GROW(c->own_costs, c->own_cap, c->n + 1);
	MEM_GROW(c->shared, c->shared_cap, c->n + 1);
	c->at[c->n] = c->text.len;
	buf_add(&c->text, w->line.data, w->line.n);
	c->at[c->n + 1] = c->text.len;
	c->shared[c->n] = w->shared;
	c->own_costs[c->n] = w->weight.cost;
	c->costs[c->n] = shared_cost(&w->weight, w->shared);
	c->held_cost += c->costs[c->n++];
}

/* The first k held rows go, in the order in which they run, to the shard's file. */
static int write_rows(struct cutting *c, size_t k, struct err *err)
{
	int64_t shard = c->cut.next;

	if (!c->writer) {
		char *dir = path_format("%s/shards/%05" PRId64, c->p->work_dir, shard);
		char *path = path_format("%s/input.jsonl.zst", dir);

		if (mkdir(dir, 0777) < 0)
			err_sys(err, ERR_STORAGE, "%s", dir);
		else
			c->writer = line_writer_open(path, LINES_ZSTD, err);
		free(dir);
		free(path);
		if (!c->writer)
			return -1;
	}
	MEM_GROW(c->order, c->order_cap, k);
	shard_order(c->own_costs, c->shared, k, c->order);
	for (size_t i = 0; i < k; i++) {
		const char *line = c->text.data + c->at[c->order[i]];
		size_t n = c->at[c->order[i] + 1] - c->at[c->order[i]];
		unsigned char key[8];
		int32_t number = (int32_t)shard;
		int64_t row;

		if (line_writer_add(c->writer, line, n, err) < 0 || shard_line_parse_row(line, n, &row, err) < 0)
			return -1;
		for (int b = 0; b < 8; b++)
			key[b] = (unsigned char)(row >> (56 - 8 * b));
		if (sorter_add(c->places, key, sizeof(key), &(struct sorter_part){&number, sizeof(number)}, 1, err) < 0)
			return -1;
	}
	if (c->n_written == 0 && k > 0)
		c->first_extra = c->own_costs[0] - c->costs[0];
	for (size_t i = 0; i < k; i++)
		c->written_cost += c->costs[i];
	c->n_written += (int64_t)k;
	return 0;
}

static void drop_rows(struct cutting *c, size_t k)
{
	size_t bytes = c->at[k];

	c->n -= k;
	memmove(c->text.data, c->text.data + bytes, c->text.len - bytes);
	buf_truncate(&c->text, c->text.len - bytes);
	memmove(c->costs, c->costs + k, c->n * sizeof(*c->costs));
	memmove(c->own_costs, c->own_costs + k, c->n * sizeof(*c->own_costs));
	memmove(c->shared, c->shared + k, c->n * sizeof(*c->shared));
	for (size_t i = 0; i <= c->n; i++)
		c->at[i] = c->at[i + k] - bytes;
	c->held_cost = 0;
	for (size_t i = 0; i < c->n; i++)
		c->held_cost += c->costs[i];
}

static int end_shard(struct cutting *c, struct err *err)
{
	struct line_writer *w = c->writer;
	struct plan_shards *out = c->out;
	int64_t n_bytes = 0;
	double cost = c->written_cost + c->first_extra;

	c->writer = NULL;
	if (line_writer_close(w, &n_bytes, NULL, err) < 0)
		return -1;
	sqlite3_bind_int64(c->add, 1, c->cut.next);
	sqlite3_bind_int64(c->add, 2, c->n_written);
	sqlite3_bind_int64(c->add, 3, n_bytes);
	sqlite3_bind_double(c->add, 4, cost);
	if (database_step(&c->p->db, c->add, err) < 0)
		return -1;
	sqlite3_reset(c->add);
	out->n_rows[out->n] = c->n_written;
	out->costs[out->n++] = cost;
	c->p->figures.cost += cost;
	shard_cut_advance(&c->cut, c->n_written, c->written_cost);
	c->n_written = 0;
	c->written_cost = 0;
	return 0;
}

/* Cut as many shards as the held rows allow. */
static int cut_ready(struct cutting *c, struct err *err)
{
	while (c->cut.next < c->cut.n_shards && c->n + (size_t)c->n_written > 0 &&
	       shard_cut_is_ready(&c->cut, c->n_written + (int64_t)c->n, c->written_cost + c->held_cost)) {
		size_t k = shard_cut_choose(&c->cut, c->costs, c->shared, c->n, c->n_written, c->written_cost);

		if (write_rows(c, k, err) < 0 || end_shard(c, err) < 0)
			return -1;
		drop_rows(c, k);
	}
	if (c->text.len > HELD_BYTES && c->n > 1) {
		size_t k = c->n / 2;

		if (write_rows(c, k, err) < 0)
			return -1;
		drop_rows(c, k);
	}
	return 0;
}

static int cut_all(struct cutting *c, struct err *err)
{
	struct walk w = {.rows = c->p->rows};
	int rc = 0;

	while ((rc = walk_next(&w, err)) == 1) {
		hold(c, &w);
		if (plan_beat(c->p, err) < 0 || cut_ready(c, err) < 0) {
			rc = -1;
			break;
		}
	}
	buf_release(&w.last_key);
	if (rc == 0 && (c->cut.rows_left || c->out->n != c->cut.n_shards))
		rc = err_set(err, ERR_STORAGE, "%s: rows are missing from the spill file", c->p->work_dir);
	return rc;
}

static int store_places(struct job_plan *p, struct sorter *places, struct err *err)
{
	sqlite3_stmt *set = database_prepare(&p->db, "UPDATE row SET shard=? WHERE row=?", err);
	struct sorter_part key, record;
	int rc = set ? sorter_finish(places, err) : -1;

	while (rc == 0 && (rc = sorter_next(places, &key, &record, err)) == 1) {
		const unsigned char *k = key.data;
		int32_t shard;
		int64_t row = 0;

		memcpy(&shard, record.data, sizeof(shard));
		for (int i = 0; i < 8; i++)
			row = row << 8 | k[i];
		sqlite3_bind_int64(set, 1, shard);
		sqlite3_bind_int64(set, 2, row);
		rc = database_step(&p->db, set, err);
		sqlite3_reset(set);
		if (rc == 0)
			rc = plan_beat(p, err);
	}
	sqlite3_finalize(set);
	return rc;
}

int plan_shards_cut(struct job_plan *p, int64_t rows_per_shard, struct plan_shards *out, struct err *err)
{
	int64_t n_rows = p->n_rows - p->n_bad_rows - p->n_folded_rows, n_shards = choose_n_shards(p, n_rows, rows_per_shard);
	char *path = path_format("%s/places.spill", p->work_dir);
	struct cutting c = {.p = p, .out = out};
	double cost;
	int rc = -1;

	c.places = sorter_new(path, SORT_BYTES / 2);
	free(path);
	MEM_GROW(c.at, c.at_cap, 1);
	c.at[0] = 0;
	out->n_rows = xcalloc((size_t)n_shards + 1, sizeof(*out->n_rows));
	out->costs = xcalloc((size_t)n_shards + 1, sizeof(*out->costs));
	c.add = database_prepare(&p->db, "INSERT INTO shard VALUES(?,?,?,?)", err);
	if (!c.add || sorter_finish(p->rows, err) < 0 || sum_costs(p, &cost, err) < 0)
		goto out;
	shard_cut_init(&c.cut, n_shards, n_rows, cost);
	if (cut_all(&c, err) < 0 || store_places(p, c.places, err) < 0)
		goto out;
	rc = 0;
out:
	line_writer_abort(c.writer);
	sqlite3_finalize(c.add);
	sorter_free(c.places);
	buf_release(&c.text);
	free(c.at);
	free(c.costs);
	free(c.own_costs);
	free(c.shared);
	free(c.order);
	return rc;
}

void plan_shards_write(const struct job_plan *p, const struct plan_shards *s, struct buf *out)
{
	const struct plan_figures *f = &p->figures;

	buf_adds(out, ",\"shards\":[");
	for (int64_t i = 0; i < s->n; i++)
		buf_addf(out, "%s%" PRId64, i ? "," : "", s->n_rows[i]);
	buf_adds(out, "],\"shard_costs\":[");
	for (int64_t i = 0; i < s->n; i++)
		buf_addf(out, "%s%.6g", i ? "," : "", s->costs[i]);
	buf_addf(out, "],\"figures\":{\"prompt_tokens\":%" PRId64 ",\"max_output_tokens\":%" PRId64
	         ",\"expected_output_tokens\":%.9g,\"shared_units\":%" PRId64 ",\"cost\":%.9g}",
	         f->prompt_tokens, f->max_output_tokens, f->expected_output_tokens, f->shared_units, f->cost);
}

void plan_shards_release(struct plan_shards *s)
{
	free(s->n_rows);
	free(s->costs);
	*s = (struct plan_shards){0};
}
