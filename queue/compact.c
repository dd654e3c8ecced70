/* compact.c: a shard's segments become few, and the shard is marked done.
 *
 * Only a segment's own epoch replaces it, and `done` names only segments of the epoch that creates it:
 *
 *     gathering   --shard_compact-->   the last segments of this epoch are one (or more, of 60 MB); first the new, durable, then the old ones go
 *     all rows    --adopt-->           rows that earlier epochs finished are copied into segments of this epoch
 *     adopted     --create_mark-->     done: what counts is settled
 *     done        --sweep-->           what does not count goes
 *
 * So a worker that was overtaken, and wakes up in the middle of any of these, can take nothing away that counts: its segments are its own, and its
 * `done` either comes first, and then names them, or is refused. A crash between two steps leaves the same rows in two places, in the same bytes.
 * Whoever reads meanwhile may find a file gone that was listed; it looks again (committed.c, shard.c). */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "queue/shard_private.h"

#define PIECE_BYTES ((size_t)60 << 20)

enum {
	MAX_ALIKE = 32,    /* so many segments of about one size become one */
	MAX_WHEN_DONE = 8, /* a shard that is done is read again as often as one merges */
	LAST_TIER = 3,     /* 16 MB and more: left as it is */
};

/* 0: below 64 KB, then 16 times as much each. A row is written once for each tier, not once for each compaction. */
static int tier(size_t n_bytes)
{
	int t = 0;

	for (size_t limit = (size_t)64 << 10; t < LAST_TIER && n_bytes >= limit; limit *= 16)
		t++;
	return t;
}

/* ---- rows of several segments into new ones of this epoch ---- */

struct entry { /* a result that some segment has */
	int64_t row;
	uint64_t hash;
	int32_t source; /* number in the list of sources, which is in the order in which they count */
	int32_t is_error;
};

struct gathering {
	struct shard *shard;
	struct segment_writer *writer;
	struct own_segment *made;
	size_t n_made, cap;
};

static int flush(struct gathering *g, struct err *err)
{
	struct shard *s = g->shard;
	struct own_segment made = {s->sequence + 1, segment_writer_bytes(g->writer)};
	char *path;
	int rc;

	if (segment_writer_count(g->writer) == 0)
		return 0;
	/* The number is used up in any case: after a failure the file may be there. */
	s->sequence++;
	path = segment_path(s->dir, s->epoch, made.sequence);
	rc = segment_writer_publish(g->writer, s->job->store, path, err);
	free(path);
	if (rc < 0)
		return -1;
	MEM_GROW(g->made, g->cap, g->n_made + 1);
	g->made[g->n_made++] = made;
	return 0;
}

static int make_room(struct gathering *g, size_t n, struct err *err)
{
	return segment_writer_count(g->writer) > 0 && segment_writer_bytes(g->writer) + n > PIECE_BYTES ? flush(g, err) : 0;
}

/* Does the row count from this source? entries[0, n): by row. */
static int counts_from(const struct entry *entries, size_t n, int64_t row, int source)
{
	size_t low = 0, high = n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (entries[middle].row < row)
			low = middle + 1;
		else
			high = middle;
	}
	return low < n && entries[low].row == row && entries[low].source == source;
}

/* Copy a segment's rows: all of them, or those that count from it, which is number `source` in entries[0, n_entries). 1, 0: it is gone, -1. */
static int gather(struct gathering *g, const struct segment_name *name, const struct entry *entries, size_t n_entries,
                  int source, struct err *err)
{
	struct shard *s = g->shard;
	char *path = segment_path(s->dir, name->epoch, name->sequence);
	struct segment_reader *r;
	struct row_result result;
	const void *state;
	size_t n;
	int64_t row;
	int is_damaged, rc = segment_reader_open(&r, s->job->store, path, &is_damaged, err);

	free(path);
	if (rc != 1)
		return rc;
	while ((rc = segment_reader_next_result(r, &result, err)) == 1) {
		if (entries && !counts_from(entries, n_entries, result.row, source))
			continue;
		if (make_room(g, result.n_line, err) < 0)
			goto fail;
		segment_writer_add_result(g->writer, &result);
	}
	/* Segments come in the order in which they were published: a row's last state stays the last. */
	while (rc == 0 && !entries && (rc = segment_reader_next_partial(r, &row, &state, &n, err)) == 1) {
		struct row_slot *slot = row_map_find(&s->rows, row);

		rc = 0;
		if (slot && slot->state == ROW_DONE)
			continue;
		if (make_room(g, n, err) < 0)
			goto fail;
		segment_writer_add_partial(g->writer, row, state, n);
	}
	segment_reader_close(r);
	return rc < 0 ? -1 : 1;
fail:
	segment_reader_close(r);
	return -1;
}

static void remove_segment(struct shard *s, int sequence)
{
	char *path = segment_path(s->dir, s->epoch, sequence);
	struct err ignored = {0};

	store_remove(s->job->store, path, &ignored);
	free(path);
}

static void gathering_release(struct gathering *g)
{
	segment_writer_free(g->writer);
	free(g->made);
}

/* ---- compaction ---- */

/* Own segments from `first` on become new ones. 0; 1: one is gone, since the shard is done without them; -1: all is as before. */
static int compact(struct shard *s, size_t first, struct err *err)
{
	struct gathering g = {.shard = s, .writer = segment_writer_new()};
	int rc = 1;

	for (size_t i = first; i < s->n_own && rc == 1; i++)
		rc = gather(&g, &(struct segment_name){s->epoch, s->own[i].sequence}, NULL, 0, 0, err);
	if (rc == 1)
		rc = flush(&g, err) < 0 ? -1 : 1;
	for (size_t i = 0; i < g.n_made && rc != 1; i++)
		remove_segment(s, g.made[i].sequence);
	if (rc == 1) {
		for (size_t i = first; i < s->n_own; i++)
			remove_segment(s, s->own[i].sequence);
		s->n_own = first;
		for (size_t i = 0; i < g.n_made; i++)
			shard_add_own(s, g.made[i].sequence, g.made[i].n_bytes);
	}
	gathering_release(&g);
	return rc < 0 ? -1 : rc == 0;
}

int shard_compact(struct shard *s, struct err *err)
{
	for (int t = 0; t < LAST_TIER; t++) {
		size_t first = s->n_own;

		while (first > 0 && tier(s->own[first - 1].n_bytes) <= t)
			first--;
		if (s->n_own - first > MAX_ALIKE)
			return compact(s, first, err);
	}
	return 0;
}

/* Before the mark: all that is small, from the first small one on. */
static int compact_last(struct shard *s, struct err *err)
{
	size_t first = 0;

	while (first < s->n_own && tier(s->own[first].n_bytes) == LAST_TIER)
		first++;
	return s->n_own - first > MAX_WHEN_DONE ? compact(s, first, err) : 0;
}

/* ---- adoption ---- */

struct source {
	struct segment_name name;
	int n_owned;  /* rows that count from here */
	int n_others; /* rows that a source before it has */
};

struct adoption {
	struct source *sources; /* by epoch and number: in the order in which they count */
	size_t n_sources, sources_cap;
	struct entry *entries;
	size_t n_entries, entries_cap;
	int64_t n_conflicts;
};

static void adoption_release(struct adoption *a)
{
	free(a->sources);
	free(a->entries);
}

static void add_source(struct adoption *a, struct segment_name name)
{
	for (size_t i = 0; i < a->n_sources; i++)
		if (a->sources[i].name.epoch == name.epoch && a->sources[i].name.sequence == name.sequence)
			return;
	MEM_GROW(a->sources, a->sources_cap, a->n_sources + 1);
	a->sources[a->n_sources++] = (struct source){.name = name};
}

static int by_name(const void *pa, const void *pb)
{
	const struct source *a = pa, *b = pb;

	if (a->name.epoch != b->name.epoch)
		return a->name.epoch < b->name.epoch ? -1 : 1;
	return (a->name.sequence > b->name.sequence) - (a->name.sequence < b->name.sequence);
}

static int by_row(const void *pa, const void *pb)
{
	const struct entry *a = pa, *b = pb;

	if (a->row != b->row)
		return a->row < b->row ? -1 : 1;
	return (a->source > b->source) - (a->source < b->source);
}

/* What segments of this and earlier epochs there are now. A listing may lack what was read when the shard was taken up: then that may be gone, or the
 * listing is old. */
static void find_sources(struct shard *s, const struct shard_listing *l, struct adoption *a)
{
	for (size_t i = 0; i < l->n_segments; i++)
		if (l->segments[i].epoch < s->epoch && !shard_has_set_aside(s, &l->segments[i]))
			add_source(a, l->segments[i]);
	for (size_t i = 0; i < s->n_found; i++)
		add_source(a, s->found[i]);
	if (a->n_sources == 0)
		return;
	for (size_t i = 0; i < s->n_own; i++)
		add_source(a, (struct segment_name){s->epoch, s->own[i].sequence});
	qsort(a->sources, a->n_sources, sizeof(*a->sources), by_name);
}

/* 0, -1. A source that is gone has no rows. */
static int read_source(struct shard *s, struct adoption *a, size_t index, struct err *err)
{
	struct source *source = &a->sources[index];
	char *path = segment_path(s->dir, source->name.epoch, source->name.sequence);
	struct segment_reader *r;
	struct row_result result;
	int is_damaged, rc = segment_reader_open(&r, s->job->store, path, &is_damaged, err);

	free(path);
	while (rc == 1 && (rc = segment_reader_next_result(r, &result, err)) == 1) {
		MEM_GROW(a->entries, a->entries_cap, a->n_entries + 1);
		a->entries[a->n_entries++] =
		    (struct entry){result.row, hash64(result.line, result.n_line, 0), (int32_t)index, result.is_error};
	}
	segment_reader_close(r);
	return rc;
}

/* One entry for each row: the first source's. Others must agree, in a job that is deterministic. */
static int choose(struct shard *s, struct adoption *a, struct err *err)
{
	size_t n = 0;

	if (a->n_entries > 1)
		qsort(a->entries, a->n_entries, sizeof(*a->entries), by_row);
	for (size_t i = 0; i < a->n_entries; i++) {
		struct entry *e = &a->entries[i], *chosen = n ? &a->entries[n - 1] : NULL;

		if (!chosen || chosen->row != e->row) {
			a->sources[e->source].n_owned++;
			a->entries[n++] = *e;
			continue;
		}
		a->sources[e->source].n_others++;
		if (chosen->hash == e->hash && chosen->is_error == e->is_error)
			continue;
		if (job_is_deterministic(s->job))
			return err_set(err, ERR_ENGINE,
			               "shard %" PRId64 ": row %" PRId64 ": epochs %d and %d have different results for it, although the "
			               "job is deterministic",
			               s->number, e->row, a->sources[chosen->source].name.epoch, a->sources[e->source].name.epoch);
		a->n_conflicts++;
	}
	a->n_entries = n;
	return 0;
}

/* Does a source have to be written anew? Others' segments with rows that count; own ones with rows that do not. */
static int is_rewritten(const struct shard *s, const struct source *source)
{
	return source->name.epoch == s->epoch ? source->n_others > 0 : source->n_owned > 0;
}

/* Rows of earlier epochs come into segments of this one. 0; 1: look again, something is gone; -1. */
static int adopt(struct shard *s, const struct shard_listing *l, struct err *err)
{
	struct adoption a = {0};
	struct gathering g = {.shard = s};
	size_t n_kept = 0;
	int rc = 0;

	if (s->is_adopted)
		return 0;

	find_sources(s, l, &a);
	for (size_t i = 0; i < a.n_sources && rc == 0; i++)
		rc = read_source(s, &a, i, err);
	if (a.n_sources == 0 || rc < 0)
		goto out;
	rc = choose(s, &a, err);
	if (rc == 0 && (int64_t)a.n_entries != shard_n_rows(s))
		rc = 1;
	if (rc != 0)
		goto out;
	if (a.n_conflicts > 0)
		log_warn("shard %" PRId64 ": %" PRId64 " rows have different results in two epochs; the lower epoch's count", s->number,
		         a.n_conflicts);
	g.writer = segment_writer_new();
	for (size_t i = 0; i < a.n_sources && rc == 0; i++)
		if (is_rewritten(s, &a.sources[i])) {
			rc = gather(&g, &a.sources[i].name, a.entries, a.n_entries, (int)i, err);
			rc = rc < 0 ? -1 : rc == 0;
		}
	if (rc == 0)
		rc = flush(&g, err);
	if (rc != 0) {
		for (size_t i = 0; i < g.n_made; i++)
			remove_segment(s, g.made[i].sequence);
		goto out;
	}
	/* From here on this epoch has all rows. */
	for (size_t i = 0; i < s->n_own; i++) {
		const struct source *source = NULL;

		for (size_t k = 0; k < a.n_sources && !source; k++)
			if (a.sources[k].name.epoch == s->epoch && a.sources[k].name.sequence == s->own[i].sequence)
				source = &a.sources[k];
		if (source && !is_rewritten(s, source))
			s->own[n_kept++] = s->own[i];
	}
	s->n_own = n_kept;
	for (size_t i = 0; i < g.n_made; i++)
		shard_add_own(s, g.made[i].sequence, g.made[i].n_bytes);
	s->is_adopted = 1;
out:
	if (g.writer)
		gathering_release(&g);
	adoption_release(&a);
	return rc;
}

/* ---- the mark ---- */

static int64_t flight_epoch(const char *name)
{
	return name_number(name, "flight");
}

/* What does not count any more goes (all of it, or only this epoch's): segments that the mark does not name, and notes of rows in flight. Not
 * temporary files: they may be a live worker's; whoever takes over from one that is surely dead clears them away (pick.c). */
static void sweep(struct shard *s, int only_own)
{
	struct err ignored = {0};
	struct segment_name *marked = NULL, name;
	size_t n_marked, n;
	char **names;

	if (done_read(s->job->store, s->dir, shard_n_rows(s), &marked, &n_marked, &ignored) < 0 ||
	    store_list(s->job->store, s->dir, &names, &n, &ignored) < 0) {
		free(marked);
		return;
	}
	for (size_t i = 0; i < n; i++) {
		int goes = segment_name_parse(names[i], &name) && (!only_own || name.epoch == s->epoch);
		char *path;

		for (size_t k = 0; k < n_marked && goes; k++)
			goes = marked[k].epoch != name.epoch || marked[k].sequence != name.sequence;
		if (flight_epoch(names[i]) > 0)
			goes = !only_own || flight_epoch(names[i]) == s->epoch;
		if (!goes)
			continue;
		path = path_format("%s/%s", s->dir, names[i]);
		store_remove(s->job->store, path, &ignored);
		free(path);
	}
	store_names_free(names, n);
	free(marked);
}

static void set_done(struct shard *s)
{
	s->is_marked_done = 1;
	s->job->shards[s->number].is_done = 1;
}

int shard_find_done(struct shard *s, struct err *err)
{
	char *name = path_format("%s/done", s->dir);
	int rc = store_exists(s->job->store, name, err);

	free(name);
	if (rc == 1) {
		set_done(s);
		sweep(s, 1);
	}
	return rc;
}

static int create_mark(struct shard *s, int is_tidy, struct err *err)
{
	struct segment_name *names = xcalloc(s->n_own + 1, sizeof(*names));
	int rc;

	for (size_t i = 0; i < s->n_own; i++)
		names[i] = (struct segment_name){s->epoch, s->own[i].sequence};
	rc = done_create(s->job->store, s->dir, shard_n_rows(s), s->epoch, names, s->n_own, err);
	free(names);
	if (rc < 0)
		return -1;
	set_done(s);
	if (rc == 0)
		sweep(s, 1); /* another epoch was quicker */
	else if (!is_tidy)
		sweep(s, 0);
	return 0;
}

/* The shard's files, and whether all that is there will count. */
static int look_around(struct shard *s, struct shard_listing *l, int *has_notes, struct err *err)
{
	char **names;
	size_t n;

	if (store_list(s->job->store, s->dir, &names, &n, err) < 0)
		return -1;
	shard_listing_take(l, names, n, 0);
	*has_notes = 0;
	for (size_t i = 0; i < n; i++)
		*has_notes |= flight_epoch(names[i]) > 0;
	store_names_free(names, n);
	return 0;
}

int shard_mark_done(struct shard *s, struct err *err)
{
	int rc = 1, is_tidy = 1, has_notes;

	for (int look = 0; look < LOOKS && rc == 1 && !s->is_marked_done; look++) {
		struct shard_listing l;

		if (look > 0)
			look_again_wait(look - 1);
		rc = compact_last(s, err);
		if (rc < 0 || look_around(s, &l, &has_notes, err) < 0)
			return -1;
		/* A segment of mine is gone when the shard was done without me; the listing may be too old to show that. */
		if (l.is_done || rc == 1) {
			rc = shard_find_done(s, err);
			rc = rc < 0 ? -1 : 1;
		} else {
			is_tidy = l.n_segments == s->n_own && !has_notes;
			rc = adopt(s, &l, err);
		}
		shard_listing_release(&l);
	}
	if (s->is_marked_done || rc < 0)
		return rc < 0 ? -1 : 0;
	if (rc == 1)
		return err_set(err, ERR_STORAGE, "%s: of its %" PRId64 " rows some had results in segments that are gone; run it again",
		               s->dir, shard_n_rows(s));
	return create_mark(s, is_tidy, err);
}
