/* committed.c: the committed records of a job in input order. Segments hold rows in whatever order they finished, and there may be tens of
 * thousands of them, too many to merge with all of them open; so they are read one after another, each from end to end, into a
 * sorter. A job whose results fit in the sorter's memory is put in order without touching the disk.
 *
 * Workers may be at it meanwhile: a segment that was listed can be gone, since its rows are in a compacted one now, or `done` is there and
 * names others. Then the shard is looked at again. What was read of it before does no harm: equal records are one record, and those of
 * segments that a mark names go before all others (enum standing). */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "queue/job_private.h"
#include "queue/sorter.h"

#define SORT_BYTES ((size_t)96 << 20)

/* How much a record's segment counts; records of one row are taken in this order. */
enum standing {
	MARKED = 0, /* the shard's mark names it */
	OPEN = 1,   /* there was no mark yet when it was read */
	LATE = 2,   /* the mark does not name it: it does not count */
};

struct stored {          /* before the line in a sorter's record; the key is row, standing, epoch, sequence */
	struct row_result r; /* line means nothing there */
	uint64_t line_hash;  /* without_lines: instead of the line */
	int64_t shard;
	int32_t epoch;
	int8_t is_copy;
	int8_t standing;
};

struct committed {
	struct job *job;
	struct read_rules rules;
	struct sorter *sorter;
	int disagreement_is_error;
	int64_t n_conflicts, n_late;
	/* Rows that are folded into another: NULL when the job has none. */
	struct database *plan;
	sqlite3_stmt *followers;
	struct buf
	    line; /* of the record given out; a copy while the sorter moves on to see whether another epoch has the row too */
	/* The record after it, still the sorter's. */
	int has_ahead;
	struct stored ahead;
};

static void put_be(unsigned char *p, uint64_t v, int n)
{
	for (int i = 0; i < n; i++)
		p[i] = (unsigned char)(v >> (8 * (n - 1 - i)));
}

static int add_record(struct committed *c, const struct stored *head, int sequence, struct err *err)
{
	struct sorter_part parts[2] = {{head, sizeof(*head)}, {head->r.line, c->rules.without_lines ? 0 : head->r.n_line}};
	unsigned char key[17];

	put_be(key, (uint64_t)head->r.row, 8);
	key[8] = (unsigned char)head->standing;
	put_be(key + 9, (uint64_t)head->epoch, 4);
	put_be(key + 13, (uint64_t)sequence, 4);
	return sorter_add(c->sorter, key, sizeof(key), parts, 2, err);
}

/* The record, once more for each row that is folded into its row. */
static int add_followers(struct committed *c, const struct stored *head, int sequence, struct err *err)
{
	struct stored copy = *head;
	int rc;

	copy.is_copy = 1;
	sqlite3_reset(c->followers);
	sqlite3_bind_int64(c->followers, 1, head->r.row);
	while ((rc = database_step(c->plan, c->followers, err)) == 1) {
		copy.r.row = sqlite3_column_int64(c->followers, 0);
		if (add_record(c, &copy, sequence, err) < 0)
			return -1;
	}
	return rc;
}

enum outcome {
	READ = 0,
	FAILED = -1, /* *err is set */
	GONE = 1,    /* a file that was listed is not there */
	DAMAGED = 2, /* *fault is set; what was read before is sound */
};

static enum outcome read_segment(struct committed *c, const char *path, int64_t shard, const struct segment_name *name,
                                 enum standing standing, struct err *fault, struct err *err)
{
	struct segment_reader *r;
	struct stored head;
	int is_damaged, rc;

	job_beat(c->job);
	rc = segment_reader_open(&r, c->job->store, path, &is_damaged, fault);

	if (rc < 0 && !is_damaged) {
		err_set(err, fault->code, "shard %" PRId64 ": %s", shard, fault->msg);
		return FAILED;
	}
	if (rc <= 0)
		return rc == 0 ? GONE : DAMAGED;
	memset(&head, 0, sizeof(head)); /* padding goes into the spill file */
	head.shard = shard;
	head.epoch = name->epoch;
	head.standing = (int8_t)standing;
	while ((rc = segment_reader_next_result(r, &head.r, fault)) == 1) {
		if (c->rules.without_lines)
			head.line_hash = hash64(head.r.line, head.r.n_line, 0);
		if (add_record(c, &head, name->sequence, err) < 0 ||
		    (c->followers && add_followers(c, &head, name->sequence, err) < 0)) {
			segment_reader_close(r);
			return FAILED;
		}
	}
	segment_reader_close(r);
	return rc < 0 ? DAMAGED : READ;
}

void damage_warn(void *context, const char *problem)
{
	log_warn("%s", problem);
}

/* What is to be done about a damaged segment that counts. */
static int note_damage(struct committed *c, int64_t shard, int is_marked, const char *what, struct err *err)
{
	struct buf text = {0};

	buf_addf(&text, "shard %" PRId64 ": %s; ", shard, what);
	buf_adds(&text, is_marked
	                    ? "the shard is marked done: `merge --repair` takes the mark back, then `run` makes the lost rows again"
	                    : "`run` makes its rows again");
	if (c->rules.damaged)
		c->rules.damaged(c->rules.context, text.data);
	else
		err_set(err, ERR_STORAGE, "%s", text.data);
	buf_release(&text);
	return c->rules.damaged ? 0 : -1;
}

/* READ, FAILED or GONE. */
static enum outcome add_segment(struct committed *c, int64_t shard, const char *dir, const struct segment_name *name,
                                enum standing standing, int is_last_look, struct err *err)
{
	char *path = segment_path(dir, name->epoch, name->sequence);
	struct err fault = {0};
	enum outcome o = read_segment(c, path, shard, name, standing, &fault, err);

	if (standing == LATE && (o == GONE || o == DAMAGED)) {
		if (o == DAMAGED)
			log_warn("shard %" PRId64 ": %s; it does not count, the shard was done without it", shard, fault.msg);
		o = READ;
	} else if (o == DAMAGED) {
		o = note_damage(c, shard, standing == MARKED, fault.msg, err) < 0 ? FAILED : READ;
	} else if (o == GONE && is_last_look) {
		char *full = store_name(c->job->store, path);

		err_set(&fault, ERR_STORAGE, "%s: is missing", full);
		free(full);
		o = note_damage(c, shard, standing == MARKED, fault.msg, err) < 0 ? FAILED : READ;
	}
	free(path);
	return o;
}

static int is_among(const struct segment_name *name, const struct segment_name *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (list[i].epoch == name->epoch && list[i].sequence == name->sequence)
			return 1;
	return 0;
}

static enum outcome look_at_shard(struct committed *c, int64_t shard, const char *dir, int is_last_look, struct err *err)
{
	struct job *j = c->job;
	struct shard_listing l;
	struct segment_name *marked = NULL;
	size_t n_marked = 0;
	enum outcome o = shard_listing_read(&l, j->store, dir, err) < 0 ? FAILED : READ;

	if (o == READ && l.is_done && done_read(j->store, dir, j->shards[shard].n_rows, &marked, &n_marked, err) < 0)
		o = FAILED;
	for (size_t i = 0; i < n_marked && o == READ; i++)
		o = add_segment(c, shard, dir, &marked[i], MARKED, is_last_look, err);
	for (size_t i = 0; i < l.n_segments && o == READ; i++)
		if (!is_among(&l.segments[i], marked, n_marked))
			o = add_segment(c, shard, dir, &l.segments[i], l.is_done ? LATE : OPEN, is_last_look, err);
	free(marked);
	shard_listing_release(&l);
	return o;
}

static int add_shard(struct committed *c, int64_t shard, struct err *err)
{
	char *dir = job_shard_dir(c->job, shard);
	enum outcome o;

	for (int look = 0;; look++) {
		o = look_at_shard(c, shard, dir, look == LOOKS - 1, err);
		if (o != GONE)
			break;
		look_again_wait(look);
	}
	free(dir);
	return o == FAILED ? -1 : 0;
}

static int look_ahead(struct committed *c, struct err *err)
{
	struct sorter_part record;
	int rc = sorter_next(c->sorter, NULL, &record, err);

	c->has_ahead = rc == 1;
	if (rc != 1)
		return rc;
	memcpy(&c->ahead, record.data, sizeof(c->ahead));
	c->ahead.r.line = c->rules.without_lines ? NULL : (const char *)record.data + sizeof(c->ahead);
	c->ahead.r.n_line = record.n - sizeof(c->ahead);
	return 1;
}

/* Folded rows: is there any? */
static int prepare_followers(struct committed *c, struct err *err)
{
	sqlite3_stmt *any;
	int rc;

	c->plan = job_plan_db(c->job, err);
	any = c->plan ? database_prepare(c->plan, "SELECT 1 FROM row WHERE same_as IS NOT NULL LIMIT 1", err) : NULL;
	rc = any ? database_step(c->plan, any, err) : -1;
	sqlite3_finalize(any);
	if (rc == 1)
		c->followers = database_prepare(c->plan, "SELECT row FROM row WHERE same_as=?", err);
	return rc < 0 || (rc == 1 && !c->followers) ? -1 : 0;
}

struct committed *committed_open(struct job *j, const char *spill_path, const struct read_rules *rules, struct err *err)
{
	struct committed *c = xcalloc(1, sizeof(*c));

	c->job = j;
	c->rules = *rules;
	c->sorter = sorter_new(spill_path, SORT_BYTES);
	c->disagreement_is_error = job_is_deterministic(j);
	if (prepare_followers(c, err) < 0)
		goto fail;
	for (int64_t i = 0; i < j->n_shards; i++)
		if (add_shard(c, i, err) < 0)
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
	sqlite3_finalize(c->followers);
	sorter_free(c->sorter);
	buf_release(&c->line);
	free(c);
}

int64_t committed_n_conflicts(const struct committed *c)
{
	return c->n_conflicts;
}

int64_t committed_n_late(const struct committed *c)
{
	return c->n_late;
}

static int is_equal(const struct committed *c, const struct stored *a, const struct stored *b)
{
	if (a->r.is_error != b->r.is_error || a->r.n_line != b->r.n_line)
		return 0;
	return c->rules.without_lines ? a->line_hash == b->line_hash : memcmp(a->r.line, b->r.line, a->r.n_line) == 0;
}

int committed_next(struct committed *c, struct committed_record *out, struct err *err)
{
	struct stored first = c->ahead;
	int conflicts = 0, late = 0;

	if (!c->has_ahead)
		return 0;
	if (!c->rules.without_lines) {
		buf_reset(&c->line);
		buf_add(&c->line, first.r.line, first.r.n_line);
		first.r.line = buf_str(&c->line);
	}
	for (;;) {
		if (look_ahead(c, err) < 0)
			return -1;
		if (!c->has_ahead || c->ahead.r.row != first.r.row)
			break;
		if (c->ahead.shard != first.shard)
			return err_set(err, ERR_STORAGE, "row %" PRId64 " has results in shards %" PRId64 " and %" PRId64, first.r.row,
			               first.shard, c->ahead.shard);
		if (is_equal(c, &c->ahead, &first))
			continue;
		if (c->ahead.standing > first.standing) {
			late = 1;
			continue;
		}
		if (c->disagreement_is_error)
			return err_set(err, ERR_ENGINE,
			               "shard %" PRId64 ": row %" PRId64 ": epochs %d and %d have different results for it, although "
			               "the job is deterministic",
			               first.shard, first.r.row, first.epoch, c->ahead.epoch);
		conflicts = 1;
	}
	c->n_conflicts += conflicts;
	c->n_late += late;
	*out = (struct committed_record){.r = first.r, .shard = first.shard, .epoch = first.epoch, .is_copy = first.is_copy};
	return 1;
}
