/* job_rig.h: jobs for tests. Row i has key "row-i", an input and a record that are functions of i and of a record size; every 10th row, from
 * row 7 on, answers with an error record; rows at fault are those the caller asks for. Everything is deterministic, so that the merged bytes of
 * any run can be held against a file made directly. */
#ifndef TOKENMILL_TESTS_JOB_RIG_H
#define TOKENMILL_TESTS_JOB_RIG_H

#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/hash.h"
#include "queue/job.h"

struct rig {
	int64_t n_rows;
	int bad_every;    /* every n-th row is at fault; 0: none */
	size_t pad_bytes; /* about the size of an input and of a record */
	int64_t rows_per_shard;
};

static const struct job_worker rig_worker = {.attempt = "attempt-0"};

static int rig_is_bad(const struct rig *r, int64_t row)
{
	return r->bad_every && row % r->bad_every == r->bad_every - 1;
}

static void rig_pad(struct buf *b, int64_t row, size_t n)
{
	static const char words[] = "the quick brown fox jumps over a lazy dog while nine wizards box and sphinxes judge my vow of black quartz ";
	uint64_t h = hash64(&row, sizeof(row), 1);

	while (n > 0) {
		size_t at = h % (sizeof(words) - 1), k = sizeof(words) - 1 - at;

		if (k > n)
			k = n;
		buf_add(b, words + at, k);
		n -= k;
		h = h * 6364136223846793005u + 1442695040888963407u;
	}
}

static void rig_key(struct buf *b, int64_t row)
{
	buf_reset(b);
	buf_addf(b, "row-%" PRId64, row);
}

static void rig_input(struct buf *b, const struct rig *r, int64_t row)
{
	buf_reset(b);
	buf_addf(b, "{\"custom_id\":\"row-%" PRId64 "\",\"body\":{\"prompt\":\"", row);
	rig_pad(b, row, r->pad_bytes);
	buf_adds(b, "\"}}");
}

/* The record of a row; 1 when it is an error record. */
static int rig_record(struct buf *b, const struct rig *r, int64_t row)
{
	int failed = rig_is_bad(r, row) || row % 10 == 7;

	buf_reset(b);
	buf_addf(b, "{\"custom_id\":\"row-%" PRId64 "\",\"%s\":\"", row, rig_is_bad(r, row) ? "fault" : failed ? "error" : "text");
	rig_pad(b, row + 1000000007, r->pad_bytes / 2 + (size_t)(row % 7) * r->pad_bytes / 6);
	buf_adds(b, "\"}");
	return failed;
}

static inline int rig_add(struct job_plan *p, const struct rig *r, int64_t row, struct err *err)
{
	static struct buf key, input, record;
	char prefix[16];
	struct plan_row pr = {.source = "in.jsonl", .line = row + 1, .n_prompt_tokens = row % 100, .max_output_tokens = 64};

	rig_key(&key, row);
	rig_input(&input, r, row);
	/* Neighbours in prefix order are far apart in input order. */
	pr.n_prefix_key = (size_t)snprintf(prefix, sizeof(prefix), "p%02d", (int)(row * 7 % 31));
	pr.prefix_key = prefix;
	pr.key = key.data;
	pr.n_key = key.len;
	pr.input = input.data;
	pr.n_input = input.len;
	if (rig_is_bad(r, row)) {
		rig_record(&record, r, row);
		pr.error_line = record.data;
		pr.n_error_line = record.len;
	}
	return job_plan_add(p, &pr, NULL, NULL, err);
}

static inline int rig_plan(const char *dir, const struct rig *r, struct err *err)
{
	struct job_plan *p = job_plan_begin(dir, err);

	if (!p)
		return -1;
	for (int64_t i = 0; i < r->n_rows; i++)
		if (rig_add(p, r, i, err) != 0) {
			job_plan_abort(p);
			return -1;
		}
	return job_plan_commit(p, "{\"model\": \"m\", \"fingerprint\":\"f00\"}", r->rows_per_shard, err);
}

static inline void rig_result(struct shard *s, const struct rig *r, int64_t row, struct buf *record)
{
	struct row_result out = {.row = row, .prompt_tokens = row % 100, .cached_tokens = 1, .output_tokens = 2, .wait_s = 0.25};

	out.is_error = rig_record(record, r, row);
	out.line = record->data;
	out.n_line = record->len;
	shard_add_result(s, &out);
}

/* Claim and run, publishing every so many rows, until nothing is left to claim or max_rows are done. Rows done, or -1. */
static inline int64_t rig_work(struct job *j, const struct job_worker *w, const struct rig *r, int64_t publish_every, int64_t max_rows, struct err *err)
{
	struct buf record = {0};
	struct shard *s = NULL;
	struct shard_row row;
	int64_t n = 0;
	int rc;

	while ((rc = job_claim(j, w, &s, err)) == 1) {
		while (n < max_rows && (rc = shard_next(s, &row, err)) == 1) {
			rig_result(s, r, row.row, &record);
			n++;
			if (n % publish_every == 0 && (rc = shard_publish(s, err)) < 0)
				break;
		}
		if (rc >= 0)
			rc = shard_publish(s, err);
		shard_close(s);
		if (rc < 0 && err->code == ERR_FENCED) {
			err_clear(err);
			rc = 0;
		}
		if (rc < 0 || n >= max_rows)
			break;
	}
	buf_release(&record);
	return rc < 0 ? -1 : n;
}

/* 1 when the merged results.jsonl and errors.jsonl are what they should be. */
static inline int rig_check(const char *dir, const struct rig *r)
{
	struct buf expected[2] = {0}, found = {0}, record = {0}, path = {0};
	int ok = 1;

	for (int64_t i = 0; i < r->n_rows; i++) {
		struct buf *b = &expected[rig_record(&record, r, i)];

		buf_add(b, record.data, record.len);
		buf_addc(b, '\n');
	}
	for (int k = 0; k < 2; k++) {
		struct err err = {0};

		buf_reset(&path);
		buf_reset(&found);
		buf_addf(&path, "%s/%s", dir, k ? "errors.jsonl" : "results.jsonl");
		if (file_read(path.data, (size_t)1 << 31, &found, ERR_STORAGE, &err) < 0) {
			printf("%s\n", err.msg);
			ok = 0;
		} else if (found.len != expected[k].len || (found.len && memcmp(found.data, expected[k].data, found.len) != 0)) {
			printf("%s differs from what it should be (%zu bytes, expected %zu)\n", path.data, found.len, expected[k].len);
			ok = 0;
		}
		buf_release(&expected[k]);
	}
	buf_release(&found);
	buf_release(&record);
	buf_release(&path);
	return ok;
}

static inline int rig_remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
	return remove(path);
}

static inline void rig_remove(const char *dir)
{
	nftw(dir, rig_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

#endif
