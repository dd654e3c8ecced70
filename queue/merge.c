/* merge.c: the job's records in input order, as files. They are written into a workplace and renamed to merged/ as one:
 *
 *     merging-0001/          results.jsonl, errors.jsonl, usage.json, ledger.db, manifest.json, durable before the rename
 *     merged/                the same after it
 *     results.jsonl -> merged/results.jsonl, and so on
 *
 * Two workers that merge at once do the same work twice; the results are equal, and the second one's are dropped. What was merged of an unfinished
 * job gives way to the next merge. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "queue/job_private.h"
#include "queue/lines.h"
#include "queue/schema.h"

static const char *const linked[] = {"results.jsonl", "errors.jsonl", "usage.json"};
#define N_LINKED (sizeof(linked) / sizeof(linked[0]))

/* What merged/ holds: of this plan, and how much of it. */
enum merged { MERGED_NONE = 0, MERGED_OTHER = 1, MERGED_PART = 2, MERGED_WHOLE = 3, MERGED_UNKNOWN = -1 };

static enum merged find_merged(struct job *j, struct err *err)
{
	struct buf text = {0};
	int rc = store_get(j->store, "merged/manifest.json", (size_t)64 << 20, &text, err);
	enum merged m = rc < 0 ? MERGED_UNKNOWN : MERGED_NONE;

	if (rc == 1) {
		struct err ignored = {0};
		yyjson_doc *doc = json_parse(buf_str(&text), text.len, ERR_STORAGE, &ignored);
		yyjson_val *root = yyjson_doc_get_root(doc);

		m = !yyjson_equals_str(yyjson_obj_get(root, "plan_id"), j->plan_id) ? MERGED_OTHER
		    : yyjson_is_true(yyjson_obj_get(root, "complete"))              ? MERGED_WHOLE
		                                                                    : MERGED_PART;
		yyjson_doc_free(doc);
	}
	buf_release(&text);
	return m;
}

int job_is_merged(struct job *j, struct err *err)
{
	enum merged m = find_merged(j, err);
	int rc = m == MERGED_UNKNOWN ? -1 : m == MERGED_WHOLE;

	for (size_t i = 0; i < N_LINKED && rc == 1 && store_dir(j->store); i++) {
		char *link = path_format("%s/%s", store_dir(j->store), linked[i]), *target = path_format("merged/%s", linked[i]);

		rc = link_is(link, target);
		free(link);
		free(target);
	}
	return rc;
}

static int make_link(const struct job *j, const char *name, struct err *err)
{
	char *path = path_format("%s/%s", store_dir(j->store), name), *target = path_format("merged/%s", name);
	int rc = link_make(path, target, err);

	if (rc < 0)
		err_context(err, "the results themselves are complete");
	free(path);
	free(target);
	return rc;
}

int usage_write(struct buf *out, const struct ledger *l, yyjson_val *extra, struct err *err)
{
	static const char *const ours[] = {"rows", "tokens", "seconds"};
	size_t i, max;
	yyjson_val *key, *val;

	buf_addf(out, "{\"rows\":{\"total\":%" PRId64 ",\"ok\":%" PRId64 ",\"failed\":%" PRId64 "}", l->n_records,
	         l->n_records - l->n_failed, l->n_failed);
	buf_addf(out,
	         ",\"tokens\":{\"prompt\":%" PRId64 ",\"cached\":%" PRId64 ",\"output\":%" PRId64 ",\"reasoning\":%" PRId64
	         ",\"recomputed\":%" PRId64 "}",
	         l->total.prompt_tokens, l->total.cached_tokens, l->total.output_tokens, l->total.reasoning_tokens,
	         l->total.recomputed_tokens);
	buf_addf(out, ",\"seconds\":{\"wait\":%.6f,\"prefill\":%.6f,\"decode\":%.6f}", l->wait_s, l->prefill_s, l->decode_s);
	yyjson_obj_foreach (extra, i, max, key, val) {
		for (size_t k = 0; k < sizeof(ours) / sizeof(ours[0]); k++)
			if (yyjson_equals_str(key, ours[k]))
				return err_set(err, ERR_OTHER, "usage.json has a member \"%s\" of its own", ours[k]);
		buf_addc(out, ',');
		json_write_string(out, yyjson_get_str(key), yyjson_get_len(key));
		buf_addc(out, ':');
		json_write(out, val);
	}
	buf_adds(out, "}\n");
	return 0;
}

struct merged_file {
	const char *name;
	int64_t n_bytes, n_lines; /* n_lines -1: not a file of lines */
	char sha256[SHA256_HEX_BYTES];
};
enum { RESULTS = 0, ERRORS = 1, USAGE = 2, LEDGER = 3, N_MERGED = 4 };

/* "rows" are those of the input; ok + failed + left_out. Closed rows are among those that failed. */
static void manifest_write(struct buf *out, const struct ledger *l, const char *root, const struct merged_file *files)
{
	struct err ignored = {0};
	yyjson_doc *spec = json_parse(l->job->spec, strlen(l->job->spec), ERR_OTHER, &ignored);
	yyjson_val *fingerprint = yyjson_obj_get(yyjson_doc_get_root(spec), "fingerprint");
	const char *close_code = l->rules.close_code;

	buf_addf(out,
	         "{\"format\":%d,\"plan_id\":\"%s\",\"complete\":%s,\"rows\":%" PRId64 ",\"ok\":%" PRId64 ",\"failed\":%" PRId64,
	         JOB_FORMAT, l->job->plan_id, l->n_records - l->n_closed == l->n_rows ? "true" : "false", l->n_rows,
	         l->n_records - l->n_failed, l->n_failed);
	buf_addf(out, ",\"left_out\":%" PRId64 ",\"closed\":%" PRId64, l->n_rows - l->n_records, l->n_closed);
	if (close_code) {
		buf_adds(out, ",\"close_code\":");
		json_write_string(out, close_code, strlen(close_code));
	}
	buf_addf(out, ",\"root\":\"%s\",\"files\":{", root);
	for (int i = 0; i < N_MERGED; i++) {
		buf_addf(out, "%s\"%s\":{\"bytes\":%" PRId64, i ? "," : "", files[i].name, files[i].n_bytes);
		if (files[i].n_lines >= 0)
			buf_addf(out, ",\"lines\":%" PRId64, files[i].n_lines);
		buf_addf(out, ",\"sha256\":\"%s\"}", files[i].sha256);
	}
	buf_addc(out, '}');
	if (fingerprint) {
		buf_adds(out, ",\"fingerprint\":");
		json_write(out, fingerprint);
	}
	buf_adds(out, "}\n");
	yyjson_doc_free(spec);
}

static int write_small(const char *dir, const char *name, const struct buf *text, struct err *err)
{
	char *path = path_format("%s/%s", dir, name);
	int rc = file_write_atomic(path, text->data, text->len, err);

	free(path);
	return rc;
}

/* The one pass: results, errors and ledger. */
static int write_records(struct ledger *l, const char *dir, struct merged_file files[N_MERGED], struct err *err)
{
	struct line_writer *w[2] = {0};
	struct ledger_db *db = NULL;
	char *path = path_format("%s/%s", dir, files[LEDGER].name);
	int rc = (db = ledger_db_create(path, err)) ? 0 : -1;

	for (int i = 0; i < 2 && rc == 0; i++) {
		char *lines = path_format("%s/%s", dir, files[i].name);

		w[i] = line_writer_open(lines, LINES_PLAIN, err);
		rc = w[i] ? 0 : -1;
		free(lines);
	}
	while (rc == 0 && (rc = ledger_next(l, err)) == 1) {
		int which = l->is_error ? ERRORS : RESULTS;

		rc = ledger_db_add(db, l, err);
		if (rc < 0 || !l->line)
			continue;
		files[which].n_lines++;
		rc = line_writer_add(w[which], l->line, l->n_line, err) < 0 || line_writer_add(w[which], "\n", 1, err) < 0 ? -1 : 0;
	}
	for (int i = 0; i < 2; i++) {
		char *lines = path_format("%s/%s", dir, files[i].name);

		if (rc < 0)
			line_writer_abort(w[i]);
		else if (line_writer_close(w[i], &files[i].n_bytes, files[i].sha256, err) < 0 || file_sync(lines, err) < 0)
			rc = -1;
		free(lines);
	}
	if (rc < 0)
		ledger_db_abort(db);
	else if (ledger_db_finish(db, l, err) < 0 || file_sync(path, err) < 0 ||
	         file_sum(path, &files[LEDGER].n_bytes, files[LEDGER].sha256, err) < 0)
		rc = -1;
	free(path);
	return rc;
}

static void tell_conflicts(const struct ledger *l)
{
	const char *place = store_place(l->job->store);

	if (committed_n_conflicts(l->committed) > 0)
		log_warn("%s: %" PRId64 " rows have different results in two epochs; the lower epoch's count", place,
		         committed_n_conflicts(l->committed));
	if (committed_n_late(l->committed) > 0)
		log_warn("%s: of %" PRId64
		         " rows a worker that had been overtaken published other results after their shard was done; they do not count",
		         place, committed_n_late(l->committed));
}

static int fill(struct job *j, const char *dir, const struct ledger_rules *rules, yyjson_val *extra, int *is_whole,
                struct err *err)
{
	struct merged_file files[N_MERGED] = {{.name = "results.jsonl"},
	                                      {.name = "errors.jsonl"},
	                                      {.name = "usage.json", .n_lines = 1},
	                                      {.name = "ledger.db", .n_lines = -1}};
	struct ledger l;
	struct buf text = {0};
	char root[SHA256_HEX_BYTES];
	char *spill = path_format("%s/results.spill", dir);
	int rc = ledger_open(&l, j, spill, rules, err);

	free(spill);
	if (rc < 0)
		return -1;
	rc = write_records(&l, dir, files, err);
	if (rc == 0)
		rc = usage_write(&text, &l, extra, err);
	if (rc == 0)
		rc = write_small(dir, "usage.json", &text, err);
	if (rc == 0) {
		files[USAGE].n_bytes = (int64_t)text.len;
		sha256_hex(text.data, text.len, files[USAGE].sha256);
		ledger_root(&l, root);
		buf_reset(&text);
		manifest_write(&text, &l, root, files);
		rc = write_small(dir, "manifest.json", &text, err);
	}
	if (rc == 0)
		tell_conflicts(&l);
	*is_whole = l.n_records - l.n_closed == l.n_rows;
	buf_release(&text);
	ledger_close(&l); /* removes the spill file */
	return rc;
}

/* May what was just made take the place of what is there? A whole merge gives way only to one that saw it when it began (`before`): "merge
 * again". 1, 0, -1. */
static int may_replace(struct job *j, enum merged before, int is_whole, struct err *err)
{
	enum merged now = find_merged(j, err);

	return now == MERGED_UNKNOWN ? -1 : now != MERGED_WHOLE || (is_whole && before == MERGED_WHOLE);
}

/* Rename the finished directory to merged/. */
static int publish_dir(struct job *j, const char *dir, enum merged before, int is_whole, struct err *err)
{
	char *merged = path_format("%s/merged", store_dir(j->store)), *previous = path_format("%s/previous", dir);
	char *moved = path_format("%s/previous", merged);
	int rc = file_sync_dir(dir, err);

	if (rc == 0 && rename(dir, merged) < 0) {
		if (errno != ENOTEMPTY && errno != EEXIST)
			rc = err_sys(err, ERR_STORAGE, "%s", merged);
		else
			rc = may_replace(j, before, is_whole, err);
		/* In one step where the file system can; elsewhere a crash in between leaves a job that has to be merged again. */
		if (rc == 1) {
			rc = 0;
			if (renameat2(AT_FDCWD, dir, AT_FDCWD, merged, RENAME_EXCHANGE) < 0 &&
			    (rename(merged, previous) < 0 || rename(dir, merged) < 0 || tree_remove(moved, err) < 0))
				rc = err_sys(err, ERR_STORAGE, "%s", merged);
		}
	}
	if (rc == 0)
		rc = file_sync_dir(store_dir(j->store), err);
	for (size_t i = 0; i < N_LINKED && rc == 0; i++)
		rc = make_link(j, linked[i], err);
	if (rc == 0)
		rc = file_sync_dir(store_dir(j->store), err);
	free(merged);
	free(previous);
	free(moved);
	return rc;
}

/* Objects one by one, the manifest last: it tells that the rest is there. An older manifest goes first. Two that do this at once may leave a
 * manifest beside the other's usage.json and ledger.db; verify tells, and merging again puts it right. */
static int publish_objects(struct job *j, const char *dir, enum merged before, int is_whole, struct err *err)
{
	char **names;
	size_t n;
	int rc = may_replace(j, before, is_whole, err);

	if (rc <= 0)
		return rc;
	rc = store_remove(j->store, "merged/manifest.json", err);
	if (rc < 0 || dir_list(dir, &names, &n, err) < 0)
		return -1;
	for (int last = 0; last <= 1; last++)
		for (size_t i = 0; i < n && rc == 0; i++) {
			char *from = path_format("%s/%s", dir, names[i]), *to = path_format("merged/%s", names[i]);

			if ((strcmp(names[i], "manifest.json") == 0) == last)
				rc = store_put_file(j->store, to, from, err);
			free(from);
			free(to);
		}
	names_free(names, n);
	return rc;
}

/* Of those who wait for each other: see merge_turn.c. */
struct turn {
	struct merge_watch *watch;
	int *is_alive;
	struct buf *who;
};

/* 1: merged, 0: another one is at it (only with a turn), -1. */
static int merge(struct job *j, const struct ledger_rules *rules, const struct turn *turn, const char *usage_extra_json, struct err *err)
{
	yyjson_doc *extra = NULL;
	struct workplace w = {0};
	enum merged before = find_merged(j, err);
	int is_whole, others = 0, rc = before == MERGED_UNKNOWN ? -1 : 0;

	if (rc == 0 && usage_extra_json) {
		extra = json_parse(usage_extra_json, strlen(usage_extra_json), ERR_OTHER, err);
		if (!extra || !yyjson_is_obj(yyjson_doc_get_root(extra)))
			rc = err_set(err, ERR_OTHER, "what is to be added to usage.json is not an object");
	}
	if (rc == 0 && (job_check_current(j, err) < 0 || workplace_open(&w, j, "merging", err) < 0))
		rc = -1;
	if (rc == 0 && turn && (others = merge_watch_look(turn->watch, w.number, turn->is_alive, turn->who, err)) != 0) {
		workplace_close(&w);
		yyjson_doc_free(extra);
		return others < 0 ? -1 : 0;
	}
	if (rc == 0)
		rc = fill(j, w.dir, rules, yyjson_doc_get_root(extra), &is_whole, err);
	/* What was merged is of no use once the job was planned anew. */
	if (rc == 0)
		rc = job_check_current(j, err);
	if (rc == 0)
		rc = store_dir(j->store) ? publish_dir(j, w.dir, before, is_whole, err)
		                         : publish_objects(j, w.dir, before, is_whole, err);
	workplace_close(&w);
	yyjson_doc_free(extra);
	return rc < 0 ? err_context(err, "merge") : 1;
}

int job_merge(struct job *j, const char *usage_extra_json, struct err *err)
{
	return merge(j, &(struct ledger_rules){0}, NULL, usage_extra_json, err) < 0 ? -1 : 0;
}

int job_merge_in_turn(struct job *j, struct merge_watch *m, const char *usage_extra_json, int *is_alive, struct buf *who, struct err *err)
{
	const struct turn turn = {m, is_alive, who};
	int rc = job_is_merged(j, err);

	if (rc != 0)
		return rc;
	rc = merge_watch_look(m, INT64_MAX, is_alive, who, err);
	if (rc != 0)
		return rc < 0 ? -1 : 0;
	return merge(j, &(struct ledger_rules){0}, &turn, usage_extra_json, err);
}

int job_merge_partial(struct job *j, const char *close_code, const char *usage_extra_json, struct err *err)
{
	const struct ledger_rules rules = {.read = {.damaged = damage_warn}, .allows_missing = 1, .close_code = close_code};
	int rc = job_is_merged(j, err);

	return rc == 0 && merge(j, &rules, NULL, usage_extra_json, err) < 0 ? -1 : rc < 0 ? -1 : 0;
}
