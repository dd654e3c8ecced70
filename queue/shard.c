/* shard.c: a claimed shard: which rows are left, results and partial states on their way to a segment.
 *
 * A handle's life:   claimed --shard_next, shard_add_*--> gathering --shard_publish--> segment, or `done` with the last row (compact.c)
 *                                                             ^                 |
 *                                                             '-----------------'   ERR_FENCED: only shard_close is left */
#include "queue/shard_private.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"

static void add_name(struct segment_name **list, size_t *n, size_t *cap, struct segment_name name)
{
	MEM_GROW(*list, *cap, *n + 1);
	(*list)[(*n)++] = name;
}

int shard_has_set_aside(const struct shard *s, const struct segment_name *name)
{
	for (size_t i = 0; i < s->n_set_aside; i++)
		if (s->set_aside[i].epoch == name->epoch && s->set_aside[i].sequence == name->sequence)
			return 1;
	return 0;
}

void shard_add_own(struct shard *s, int sequence, size_t n_bytes)
{
	MEM_GROW(s->own, s->own_cap, s->n_own + 1);
	s->own[s->n_own++] = (struct own_segment){sequence, n_bytes};
}

/* Segments come in the order of epochs and numbers: of partial states the last one wins, and none counts once there is a result. */
static int take_segment(struct shard *s, struct segment_reader *r, int epoch, struct err *err)
{
	struct row_slot *slot;
	const void *state;
	size_t n;
	int64_t row;
	int rc;

	while ((rc = segment_reader_next_done(r, &row, err)) == 1) {
		slot = row_map_put(&s->rows, row);
		if (slot->state != ROW_DONE)
			s->n_done++;
		slot->state = ROW_DONE;
		free(slot->partial);
		slot->partial = NULL;
		slot->n_partial = 0;
	}
	while (rc == 0 && (rc = segment_reader_next_partial(r, &row, &state, &n, err)) == 1) {
		slot = row_map_put(&s->rows, row);
		rc = 0;
		if (slot->state == ROW_DONE)
			continue;
		if (n > slot->n_partial) {
			MEM_GROW(s->grown, s->grown_cap, s->n_grown + 1);
			s->grown[s->n_grown].epoch = epoch;
			s->grown[s->n_grown++].row = row;
		}
		free(slot->partial);
		slot->partial = xmemdup(state, n);
		slot->n_partial = n;
		slot->state = ROW_PARTIAL;
	}
	return rc;
}

/* 1; 0: it is gone; -1. A damaged one is set aside: what it held runs again. */
static int read_segment(struct shard *s, const struct segment_name *name, struct err *err)
{
	char *path = segment_path(s->dir, name->epoch, name->sequence);
	struct segment_reader *r;
	struct err fault = {0};
	int is_damaged, rc = segment_reader_open(&r, s->job->store, path, &is_damaged, &fault);

	free(path);
	if (rc < 0 && !is_damaged)
		return err_set(err, fault.code, "%s", fault.msg);
	/* All of it: a row that is taken for done now cannot be given out again later. */
	if (rc == 1 && segment_reader_check(r, &fault) < 0)
		is_damaged = 1;
	if (is_damaged) {
		log_warn("shard %" PRId64 ": %s; it does not count, its rows run again", s->number, fault.msg);
		add_name(&s->set_aside, &s->n_set_aside, &s->set_aside_cap, *name);
		rc = 1;
	} else if (rc == 1) {
		add_name(&s->found, &s->n_found, &s->found_cap, *name);
		rc = take_segment(s, r, name->epoch, err) < 0 ? -1 : 1;
	}
	segment_reader_close(r);
	return rc;
}

static void forget(struct shard *s)
{
	row_map_release(&s->rows);
	suspects_release(&s->suspects);
	s->n_done = 0;
	s->n_found = s->n_set_aside = s->n_grown = 0;
}

/* What earlier epochs have finished. 0; 1: something that was listed is gone, look again; -1. */
static int look(struct shard *s, struct err *err)
{
	struct shard_listing l;
	int rc = shard_listing_read(&l, s->job->store, s->dir, err) < 0 ? -1 : 1;

	if (rc == 1 && l.is_done) {
		s->is_marked_done = 1;
		s->job->shards[s->number].is_done = 1;
		s->n_done = shard_n_rows(s);
	}
	for (size_t i = 0; i < l.n_segments && rc == 1 && !l.is_done; i++)
		if (l.segments[i].epoch < s->epoch)
			rc = read_segment(s, &l.segments[i], err);
	if (rc == 1 && !l.is_done && l.n_unclean && flight_judge(s, l.unclean, l.n_unclean, err) < 0)
		rc = -1;
	shard_listing_release(&l);
	return rc < 0 ? -1 : rc == 0;
}

static void shard_free(struct shard *s)
{
	segment_writer_free(s->pending);
	line_reader_close(s->input);
	store_file_release(&s->input_file);
	buf_release(&s->line.key);
	row_map_release(&s->rows);
	suspects_release(&s->suspects);
	free(s->grown);
	free(s->found);
	free(s->set_aside);
	free(s->own);
	free(s->dir);
	free(s);
}

struct shard *shard_open(struct job *j, int64_t number, int epoch, const struct claim *claim, struct err *err)
{
	struct shard *s = xcalloc(1, sizeof(*s));
	int rc = 1;

	s->job = j;
	s->number = number;
	s->epoch = epoch;
	s->claim = *claim;
	s->dir = job_shard_dir(j, number);
	for (int i = 0; i < LOOKS && rc == 1; i++) {
		if (i > 0)
			look_again_wait(i - 1);
		forget(s);
		rc = look(s, err);
	}
	if (rc == 1)
		rc = err_set(err, ERR_STORAGE, "%s: its segments are gone before they can be read", s->dir);
	if (rc == 0 && s->n_done > shard_n_rows(s))
		rc = err_set(err, ERR_STORAGE, "%s: its segments hold %" PRId64 " rows, the shard has %" PRId64, s->dir, s->n_done, shard_n_rows(s));
	if (rc < 0) {
		shard_free(s);
		return NULL;
	}
	s->part = s->suspects.first_alone > 0 ? 0 : -1;
	s->part_ended_at = -1;
	s->pending = segment_writer_new();
	s->next_open = j->open;
	j->open = s;
	return s;
}

void shard_close(struct shard *s)
{
	if (!s)
		return;
	for (struct shard **p = &s->job->open; *p; p = &(*p)->next_open)
		if (*p == s) {
			*p = s->next_open;
			break;
		}
	claim_end(&s->claim);
	shard_free(s);
}

int64_t shard_number(const struct shard *s)
{
	return s->number;
}

int shard_epoch(const struct shard *s)
{
	return s->epoch;
}

int64_t shard_n_rows(const struct shard *s)
{
	return s->job->shards[s->number].n_rows;
}

int64_t shard_n_done(const struct shard *s)
{
	return s->n_done;
}

int shard_is_done(const struct shard *s)
{
	return s->is_marked_done;
}

static struct row_slot *given_row(struct shard *s, int64_t row)
{
	struct row_slot *slot = row_map_find(&s->rows, row);

	if (!slot || slot->state != ROW_GIVEN)
		BUG("row %" PRId64 " of shard %" PRId64 " %s", row, s->number, slot && slot->state == ROW_DONE ? "has a result already" : "was not given out");
	return slot;
}

void shard_add_result(struct shard *s, const struct row_result *r)
{
	struct row_slot *slot = given_row(s, r->row);

	if (memchr(r->line, '\n', r->n_line))
		BUG("row %" PRId64 ": its output line has a line break in it", r->row);
	free(slot->partial);
	slot->partial = NULL;
	slot->n_partial = 0;
	slot->state = ROW_DONE;
	s->n_done++;
	segment_writer_add_result(s->pending, r);
}

void shard_add_partial(struct shard *s, int64_t row, const void *state, size_t n)
{
	given_row(s, row);
	segment_writer_add_partial(s->pending, row, state, n);
}

/* ERR_FENCED when a higher epoch is there. Epochs are made one after another, so the next number tells. */
static int check_fence(struct shard *s, struct err *err)
{
	char *path = path_format("%s/claim-%04d", s->dir, s->epoch + 1);
	int fenced = store_exists(s->job->store, path, err);

	free(path);
	if (fenced < 0 || job_check_current(s->job, err) < 0)
		return -1;
	return !fenced ? 0 : err_set(err, ERR_FENCED, "shard %" PRId64 ": another worker has taken it over (epoch %d, mine is %d)", s->number, s->epoch + 1,
	                             s->epoch);
}

/* 0; 1: the shard is done without us; -1. */
static int publish_pending(struct shard *s, struct err *err)
{
	struct err fault = {0};
	size_t n_bytes = segment_writer_bytes(s->pending);
	char *path = segment_path(s->dir, s->epoch, s->sequence + 1);
	/* The number is used up only by success: should the file be there although this failed, the next try replaces it by more. */
	int rc = segment_writer_publish(s->pending, s->job->store, path, &fault);

	free(path);
	if (rc == 0) {
		shard_add_own(s, ++s->sequence, n_bytes);
		return 0;
	}
	/* Who was overtaken may find that his temporary file was cleared away. */
	if (check_fence(s, err) < 0 || (rc = shard_find_done(s, err)) < 0)
		return -1;
	return rc == 1 ? 1 : err_set(err, fault.code, "%s", fault.msg);
}

int shard_publish(struct shard *s, struct err *err)
{
	struct err fault = {0};
	int rc = 0;

	if (s->is_marked_done)
		return 0;
	if (check_fence(s, err) < 0)
		return -1;
	if (segment_writer_count(s->pending) > 0)
		rc = publish_pending(s, err);
	if (rc == 0 && s->n_own >= s->compact_from && (rc = shard_compact(s, &fault)) < 0) {
		/* Nothing is lost by it; perhaps later. */
		log_debug("shard %" PRId64 ": compaction: %s", s->number, fault.msg);
		s->compact_from = s->n_own + 16;
		rc = 0;
	}
	if (rc == 1 && (rc = shard_find_done(s, err)) == 0)
		rc = err_set(err, ERR_STORAGE, "%s: a segment of mine is gone", s->dir);
	s->n_publishes += rc == 0;
	if (rc == 0 && !s->is_marked_done && s->n_done == shard_n_rows(s))
		rc = shard_mark_done(s, err);
	return rc < 0 ? err_context(err, "shard %" PRId64, s->number) : 0;
}

int shard_release(struct shard *s, struct err *err)
{
	char *name = path_format("%s/release-%04d", s->dir, s->epoch);
	int rc = s->is_marked_done ? 0 : store_create(s->job->store, name, "{}\n", 3, err);

	free(name);
	return rc < 0 ? -1 : 0;
}
