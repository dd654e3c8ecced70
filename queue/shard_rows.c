/* shard_rows.c: giving out a shard's rows: those without a result, in run order, and after crashes the suspects part by part (suspects.h). */
#include <inttypes.h>
#include <stdlib.h>

#include "queue/shard_private.h"

static int open_input(struct shard *s, struct err *err)
{
	char *name = path_format("%s/input.jsonl.zst", s->dir);
	int rc = s->input_file.path ? 1 : store_fetch_known(s->job->store, name, &s->input_file, err);

	if (rc == 0)
		err_set(err, ERR_STORAGE, "%s: %s is missing", store_place(s->job->store), name);
	else if (rc == 1)
		s->input = line_reader_open(s->input_file.path, LINES_ZSTD, err);
	free(name);
	return s->input ? 0 : -1;
}

/* The next row from here on that may run now and was not given out. 1, 0 at the end, -1. */
static int next_from_here(struct shard *s, struct shard_row *out, struct err *err)
{
	const char *line;
	size_t n;
	int rc;

	while ((rc = line_reader_next(s->input, &line, &n, err)) == 1) {
		struct row_slot *slot;
		int64_t row;
		int part;

		if (shard_line_parse_row(line, n, &row, err) < 0)
			goto damaged;
		slot = row_map_find(&s->rows, row);
		if (slot && (slot->state == ROW_DONE || slot->state == ROW_GIVEN))
			continue;
		part = suspects_part(&s->suspects, row);
		if (part > s->part)
			continue;
		if (shard_line_parse(&s->line, line, n, err) < 0)
			goto damaged;
		slot = row_map_put(&s->rows, row);
		slot->state = ROW_GIVEN;
		*out = (struct shard_row){.row = row, .key = s->line.key.data, .n_key = s->line.key.len, .input = s->line.input,
			.n_input = s->line.n_input, .n_prompt_tokens = s->line.n_prompt_tokens,
			.max_output_tokens = s->line.max_output_tokens, .partial = slot->partial, .n_partial = slot->n_partial,
			.is_poison = part == SUSPECT_POISON, .is_alone = s->suspects.n_parts && part >= s->suspects.first_alone};
		return 1;
	}
	if (rc == 0 && line_reader_number(s->input) != shard_n_rows(s))
		return err_set(err, ERR_STORAGE, "%s/input.jsonl.zst: has %" PRId64 " rows, the plan says %" PRId64, s->dir,
		               line_reader_number(s->input), shard_n_rows(s));
	return rc;
damaged:
	return err_context(err, "%s/input.jsonl.zst: line %" PRId64, s->dir, line_reader_number(s->input));
}

/* Has every suspect of the part a result on disk? All of them have been given, those that are rows of this shard at all. */
static int part_is_over(struct shard *s)
{
	for (size_t i = 0; i < s->suspects.n; i++)
		if (s->suspects.rows[i].part == s->part) {
			const struct row_slot *slot = row_map_find(&s->rows, s->suspects.rows[i].row);

			if (slot && slot->state == ROW_GIVEN)
				return 0;
		}
	if (s->part_ended_at < 0)
		s->part_ended_at = s->n_publishes;
	return s->n_publishes > s->part_ended_at || segment_writer_count(s->pending) == 0;
}

void shard_tell_idle(struct shard *s)
{
	s->is_idle = 1;
}

enum shard_next shard_next(struct shard *s, struct shard_row *out, struct err *err)
{
	int is_idle = s->is_idle;

	s->is_idle = 0;
	if (s->is_marked_done)
		return SHARD_END;
	for (;;) {
		int next = s->part + 1, rc;

		if (!s->input && open_input(s, err) < 0)
			return SHARD_FAILED;
		rc = next_from_here(s, out, err);
		if (rc != 0)
			return rc < 0 ? SHARD_FAILED : SHARD_ROW;
		if (next >= s->suspects.n_parts)
			return SHARD_END;
		if (next < s->suspects.first_alone && !part_is_over(s))
			return SHARD_WAITS;
		if (next >= s->suspects.first_alone && (!is_idle || segment_writer_count(s->pending) > 0 ||
		                                        s->n_done < shard_n_rows(s) - (s->suspects.n_parts - next)))
			return SHARD_WAITS_FOR_IDLE;
		s->part = next;
		s->part_ended_at = -1;
		line_reader_close(s->input);
		s->input = NULL;
	}
}
