/* merge.c: the job's records in input order, as files. They are written into a workplace and renamed to merged/ as one:
 *
 *     merging-0001/          results.jsonl, errors.jsonl, usage.json, manifest.json, durable before the rename
 *     merged/                the same after it
 *     results.jsonl -> merged/results.jsonl, and so on
 *
 * Two workers that merge at once do the same work twice; the files are equal, and the second one's are dropped. */
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

static int is_our_link(const char *path, const char *target)
{
	char found[256];
	ssize_t n = readlink(path, found, sizeof(found) - 1);

	return n > 0 && (size_t)n == strlen(target) && memcmp(found, target, (size_t)n) == 0;
}

/* Is what was merged this plan's? 1, 0, -1. */
static int find_merged(struct job *j, struct err *err)
{
	struct buf text = {0};
	yyjson_doc *doc;
	int rc = store_get(j->store, "merged/manifest.json", (size_t)64 << 20, &text, err);

	if (rc == 1) {
		struct err ignored = {0};

		doc = json_parse(buf_str(&text), text.len, ERR_STORAGE, &ignored);
		rc = yyjson_equals_str(yyjson_obj_get(yyjson_doc_get_root(doc), "plan_id"), j->plan_id);
		yyjson_doc_free(doc);
	}
	buf_release(&text);
	return rc;
}

int job_is_merged(struct job *j, struct err *err)
{
	int rc = find_merged(j, err);

	for (size_t i = 0; i < N_LINKED && rc == 1 && store_dir(j->store); i++) {
		char *link = path_format("%s/%s", store_dir(j->store), linked[i]), *target = path_format("merged/%s", linked[i]);

		rc = is_our_link(link, target);
		free(link);
		free(target);
	}
	return rc;
}

static int make_link(const struct job *j, const char *name, struct err *err)
{
	char *path = path_format("%s/%s", store_dir(j->store), name), *target = path_format("merged/%s", name), *temporary = path_format("%s.tmp-%ld", path, (long)getpid());
	struct stat st;
	int rc = 0;

	if (is_our_link(path, target))
		goto out;
	if (lstat(path, &st) == 0 && !S_ISLNK(st.st_mode)) {
		rc = err_set(err, ERR_STORAGE, "%s: is in the way of the link to %s; the results themselves are complete", path, target);
		goto out;
	}
	unlink(temporary);
	if (symlink(target, temporary) < 0)
		rc = err_sys(err, ERR_STORAGE, "%s", temporary);
	else if (rename(temporary, path) < 0)
		rc = err_sys(err, ERR_STORAGE, "%s", path);
	if (rc < 0)
		unlink(temporary);
out:
	free(path);
	free(target);
	free(temporary);
	return rc;
}

int usage_write(struct buf *out, const struct ledger *l, yyjson_val *extra, struct err *err)
{
	static const char *const ours[] = {"rows", "tokens", "seconds"};
	size_t i, max;
	yyjson_val *key, *val;

	buf_addf(out, "{\"rows\":{\"total\":%" PRId64 ",\"ok\":%" PRId64 ",\"failed\":%" PRId64 "}", l->n_rows, l->n_rows - l->n_failed, l->n_failed);
	buf_addf(out,
	         ",\"tokens\":{\"prompt\":%" PRId64 ",\"cached\":%" PRId64 ",\"output\":%" PRId64 ",\"reasoning\":%" PRId64
	         ",\"recomputed\":%" PRId64 "}",
	         l->prompt_tokens, l->cached_tokens, l->output_tokens, l->reasoning_tokens, l->recomputed_tokens);
	buf_addf(out, ",\"seconds\":{\"wait\":%.6f,\"prefill\":%.6f,\"decode\":%.6f}", l->wait_s, l->prefill_s, l->decode_s);
	yyjson_obj_foreach(extra, i, max, key, val)
	{
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
	int64_t n_bytes, n_lines;
	char sha256[SHA256_HEX_BYTES];
};

static void manifest_write(struct buf *out, const struct job *j, const struct ledger *l, const char *root, const struct merged_file *files, int n)
{
	struct err ignored = {0};
	yyjson_doc *spec = json_parse(j->spec, strlen(j->spec), ERR_OTHER, &ignored);
	yyjson_val *fingerprint = yyjson_obj_get(yyjson_doc_get_root(spec), "fingerprint");

	buf_addf(out, "{\"format\":%d,\"plan_id\":\"%s\",\"rows\":%" PRId64 ",\"ok\":%" PRId64 ",\"failed\":%" PRId64 ",\"root\":\"%s\",\"files\":{",
	         JOB_FORMAT, j->plan_id, l->n_rows, l->n_rows - l->n_failed, l->n_failed, root);
	for (int i = 0; i < n; i++)
		buf_addf(out, "%s\"%s\":{\"bytes\":%" PRId64 ",\"lines\":%" PRId64 ",\"sha256\":\"%s\"}", i ? "," : "", files[i].name, files[i].n_bytes,
		         files[i].n_lines, files[i].sha256);
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

static int write_records(struct ledger *l, const char *dir, struct merged_file files[2], struct err *err)
{
	struct line_writer *w[2] = {0};
	int rc = 0;

	for (int i = 0; i < 2 && rc == 0; i++) {
		char *path = path_format("%s/%s", dir, files[i].name);

		w[i] = line_writer_open(path, LINES_PLAIN, err);
		rc = w[i] ? 0 : -1;
		free(path);
	}
	while (rc == 0 && (rc = ledger_next(l, err)) == 1) {
		int which = l->is_error != 0;

		files[which].n_lines++;
		rc = line_writer_add(w[which], l->line, l->n_line, err) < 0 || line_writer_add(w[which], "\n", 1, err) < 0 ? -1 : 0;
	}
	for (int i = 0; i < 2; i++) {
		char *path = path_format("%s/%s", dir, files[i].name);

		if (rc < 0)
			line_writer_abort(w[i]);
		else if (line_writer_close(w[i], &files[i].n_bytes, files[i].sha256, err) < 0 || file_sync(path, err) < 0)
			rc = -1;
		free(path);
	}
	return rc;
}

static int fill(struct job *j, const char *dir, yyjson_val *extra, struct err *err)
{
	struct merged_file files[3] = {{.name = "results.jsonl"}, {.name = "errors.jsonl"}, {.name = "usage.json"}};
	struct ledger l;
	struct buf text = {0};
	char root[SHA256_HEX_BYTES];
	char *spill = path_format("%s/results.spill", dir);
	int rc = ledger_open(&l, j, spill, err);

	free(spill);
	if (rc < 0)
		return -1;
	rc = write_records(&l, dir, files, err);
	if (rc == 0)
		rc = usage_write(&text, &l, extra, err);
	if (rc == 0)
		rc = write_small(dir, "usage.json", &text, err);
	if (rc == 0) {
		files[2].n_bytes = (int64_t)text.len;
		files[2].n_lines = 1;
		sha256_hex(text.data, text.len, files[2].sha256);
		ledger_root(&l, root);
		buf_reset(&text);
		manifest_write(&text, j, &l, root, files, 3);
		rc = write_small(dir, "manifest.json", &text, err);
	}
	if (rc == 0 && committed_n_conflicts(l.committed) > 0)
		log_warn("%s: %" PRId64 " rows have different results in two epochs; the lower epoch's count", store_place(j->store), committed_n_conflicts(l.committed));
	buf_release(&text);
	ledger_close(&l); /* removes the spill file */
	return rc;
}

/* Rename the finished directory to merged/; replaces: a merged/ that was there when this merge began is to go. */
static int publish_dir(struct job *j, const char *dir, int replaces, struct err *err)
{
	char *merged = path_format("%s/merged", store_dir(j->store)), *previous = path_format("%s/previous", dir);
	char *moved = path_format("%s/previous", merged);
	int rc = 0;

	if (file_sync_dir(dir, err) < 0) {
		rc = -1;
	} else if (rename(dir, merged) == 0) {
		rc = file_sync_dir(store_dir(j->store), err);
	} else if (errno != ENOTEMPTY && errno != EEXIST) {
		rc = err_sys(err, ERR_STORAGE, "%s", merged);
	} else if (replaces) {
		/* In one step where the file system can; elsewhere a crash in between leaves a job that has to be merged again. */
		if (renameat2(AT_FDCWD, dir, AT_FDCWD, merged, RENAME_EXCHANGE) < 0 &&
		    (rename(merged, previous) < 0 || rename(dir, merged) < 0 || tree_remove(moved, err) < 0))
			rc = err_sys(err, ERR_STORAGE, "%s", merged);
		if (rc == 0)
			rc = file_sync_dir(store_dir(j->store), err);
	}
	for (size_t i = 0; i < N_LINKED && rc == 0; i++)
		rc = make_link(j, linked[i], err);
	if (rc == 0)
		rc = file_sync_dir(store_dir(j->store), err);
	free(merged);
	free(previous);
	free(moved);
	return rc;
}

/* Objects one by one, the manifest last: it tells that the rest is there. An older manifest goes first. */
static int publish_objects(struct job *j, const char *dir, struct err *err)
{
	char **names;
	size_t n;
	int rc = store_remove(j->store, "merged/manifest.json", err);

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

int job_merge(struct job *j, const char *usage_extra_json, struct err *err)
{
	yyjson_doc *extra = NULL;
	struct workplace w = {0};
	int replaces, rc = -1;

	if (usage_extra_json) {
		extra = json_parse(usage_extra_json, strlen(usage_extra_json), ERR_OTHER, err);
		if (!extra || !yyjson_is_obj(yyjson_doc_get_root(extra))) {
			err_set(err, ERR_OTHER, "what is to be added to usage.json is not an object");
			goto out;
		}
	}
	replaces = store_exists(j->store, "merged/manifest.json", err);
	if (replaces < 0 || job_check_current(j, err) < 0 || workplace_open(&w, j, "merging", err) < 0 || fill(j, w.dir, yyjson_doc_get_root(extra), err) < 0)
		goto out;
	/* What was merged is of no use once the job was planned anew. */
	if (job_check_current(j, err) < 0)
		goto out;
	rc = store_dir(j->store) ? publish_dir(j, w.dir, replaces, err) : publish_objects(j, w.dir, err);
out:
	workplace_close(&w);
	yyjson_doc_free(extra);
	return rc < 0 ? err_context(err, "merge") : 0;
}
