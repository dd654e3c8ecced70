/* flight.c: which rows are in flight: noted by whoever runs a shard, and judged by who takes it over from one that ended without a word.
 *
 *     shards/00012/flight-0001   {"alone":false,"rows":[12,15,19]}   replaced as rows are handed out; of no meaning once there is a release-0001
 *
 * A note that is lost or damaged only makes the search for a row that crashes the engine longer. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "queue/attempt.h"
#include "queue/shard_private.h"

static char *flight_name(const char *shard_dir, int epoch)
{
	return path_format("%s/flight-%04d", shard_dir, epoch);
}

int shard_note_flight(struct shard *s, const int64_t *rows, size_t n, int is_alone, struct err *err)
{
	struct buf b = {0};
	char *name = flight_name(s->dir, s->epoch);
	int rc;

	buf_addf(&b, "{\"alone\":%s,\"rows\":[", is_alone ? "true" : "false");
	for (size_t i = 0; i < n; i++)
		buf_addf(&b, i ? ",%" PRId64 : "%" PRId64, rows[i]);
	buf_adds(&b, "]}\n");
	rc = store_note(s->job->store, name, b.data, b.len, err);
	buf_release(&b);
	free(name);
	return rc;
}

/* A row is a suspect of epoch's crash unless it has a result, or its published tokens grew in that epoch. */
static int is_suspect(const struct shard *s, int epoch, int64_t row)
{
	const struct row_slot *slot = row_map_find(&s->rows, row);

	if (slot && slot->state == ROW_DONE)
		return 0;
	for (size_t i = 0; i < s->n_grown; i++)
		if (s->grown[i].epoch == epoch && s->grown[i].row == row)
			return 0;
	return 1;
}

static void crash_parse(const struct shard *s, int epoch, const char *text, size_t n, struct crash *c)
{
	struct err ignored = {0};
	yyjson_doc *doc = json_parse(text, n, ERR_STORAGE, &ignored);
	yyjson_val *root = yyjson_doc_get_root(doc), *rows = yyjson_obj_get(root, "rows"), *v;
	size_t i, max;

	*c = (struct crash){.is_alone = yyjson_is_true(yyjson_obj_get(root, "alone"))};
	if (yyjson_is_arr(rows))
		c->rows = xcalloc(yyjson_arr_size(rows) + 1, sizeof(*c->rows));
	yyjson_arr_foreach(rows, i, max, v)
		if (yyjson_is_int(v) && is_suspect(s, epoch, yyjson_get_sint(v)))
			c->rows[c->n++] = yyjson_get_sint(v);
	c->is_alone = c->is_alone && c->n == 1;
	yyjson_doc_free(doc);
}

/* Did the process that held this epoch leave word of a crash? A claim or a mark that cannot be read is none. */
static int is_proven(const struct shard *s, int epoch)
{
	char *claim_name = path_format("%s/claim-%04d", s->dir, epoch), *mark;
	struct err ignored = {0};
	struct claim claim;
	int proven = 0;

	if (claim_read(&claim, s->job->store, claim_name, &ignored) == 1) {
		mark = attempt_crash_name(claim.worker, claim.attempt);
		proven = store_exists(s->job->store, mark, &ignored) == 1;
		free(mark);
	}
	free(claim_name);
	return proven;
}

int flight_judge(struct shard *s, const int *epochs, size_t n, struct err *err)
{
	struct crash *crashes = xcalloc(n + 1, sizeof(*crashes));
	struct buf b = {0};
	int rc = 0;

	for (size_t i = 0; i < n && rc == 0; i++) {
		char *name = flight_name(s->dir, epochs[i]);

		buf_reset(&b);
		rc = store_get(s->job->store, name, (size_t)64 << 20, &b, err);
		if (rc == 1) {
			crash_parse(s, epochs[i], buf_str(&b), b.len, &crashes[i]);
			crashes[i].is_proven = crashes[i].is_alone && is_proven(s, epochs[i]);
			rc = 0;
		}
		free(name);
	}
	if (rc == 0)
		suspects_judge(&s->suspects, crashes, n);
	for (size_t i = 0; i < n; i++)
		free(crashes[i].rows);
	free(crashes);
	buf_release(&b);
	return rc;
}
