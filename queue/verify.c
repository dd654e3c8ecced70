/* verify.c: are the merged files what the plan and the committed records say? Everything is read again, in one pass over the plan, and compared:
 * the lines (verify_lines.c), ledger.db, the sums in usage.json, the hashes in manifest.json. All that is wrong is told, not only the first. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "queue/verify_private.h"

enum { MAX_TOLD = 20 };

void problems_add(struct problems *p, const char *fmt, ...)
{
	struct buf text = {0};
	va_list ap;

	va_start(ap, fmt);
	buf_vaddf(&text, fmt, ap);
	va_end(ap);
	if (p->n == 0)
		buf_adds(&p->first, text.data);
	if (p->n++ < MAX_TOLD && p->tell)
		p->tell(p->context, text.data);
	buf_release(&text);
}

/* *err gets how many there are, and the first one where they were not told. */
static int problems_finish(struct problems *p, struct err *err)
{
	struct buf more = {0};

	if (p->n == 0)
		return 0;
	if (p->n > MAX_TOLD && p->tell) {
		buf_addf(&more, "and %" PRId64 " more", p->n - MAX_TOLD);
		p->tell(p->context, more.data);
	}
	if (p->tell)
		err_set(err, ERR_STORAGE, "%" PRId64 " problem%s", p->n, p->n > 1 ? "s" : "");
	else if (p->n > 1)
		err_set(err, ERR_STORAGE, "%" PRId64 " problems, of which the first: %.800s", p->n, p->first.data);
	else
		err_set(err, ERR_STORAGE, "%.900s", p->first.data);
	buf_release(&more);
	return -1;
}

static void note_damage(void *context, const char *problem)
{
	struct line_check *c = context;

	c->has_damage = 1;
	problems_add(c->problems, "%s", problem);
}

static void check_file(yyjson_val *manifest, struct merged_lines *m, struct problems *p)
{
	yyjson_val *v = yyjson_obj_get(yyjson_obj_get(manifest, "files"), m->name);
	char hex[SHA256_HEX_BYTES];
	int64_t n_bytes;

	line_reader_sum(m->reader, &n_bytes, hex);
	/* What is wrong with its lines has been told. */
	if (m->n_wrong == 0 && (yyjson_get_sint(yyjson_obj_get(v, "bytes")) != n_bytes ||
	                        yyjson_get_sint(yyjson_obj_get(v, "lines")) != line_reader_number(m->reader) ||
	                        !yyjson_equals_str(yyjson_obj_get(v, "sha256"), hex)))
		problems_add(p, "manifest.json: does not describe %s (%" PRId64 " bytes, SHA-256 %s)", m->name, n_bytes, hex);
}

/* usage.json: the counts are the ledger's; the file is the manifest's. */
static int check_usage(struct job *j, const struct ledger *l, yyjson_val *manifest, struct problems *p, struct err *err)
{
	struct buf text = {0}, ours = {0};
	yyjson_val *v = yyjson_obj_get(yyjson_obj_get(manifest, "files"), "usage.json");
	char hex[SHA256_HEX_BYTES];
	int rc = store_get(j->store, "merged/usage.json", (size_t)64 << 20, &text, err);

	if (rc == 0)
		rc = err_set(err, ERR_STORAGE, "merged/usage.json: is missing");
	else if (rc == 1)
		rc = usage_write(&ours, l, NULL, err);
	sha256_hex(buf_str(&text), text.len, hex);
	/* Ours ends in "}\n"; what follows there is what the caller of job_merge had added. */
	if (rc == 0 && (text.len < ours.len || memcmp(text.data, ours.data, ours.len - 2) != 0))
		problems_add(p, "usage.json: is not the sum over the records, which is %.*s}", (int)(ours.len - 2), ours.data);
	else if (rc == 0 && !yyjson_equals_str(yyjson_obj_get(v, "sha256"), hex))
		problems_add(p, "manifest.json: does not describe usage.json (SHA-256 %s)", hex);
	buf_release(&text);
	buf_release(&ours);
	return rc;
}

static int check_ledger_file(const char *path, yyjson_val *manifest, struct problems *p, struct err *err)
{
	yyjson_val *v = yyjson_obj_get(yyjson_obj_get(manifest, "files"), "ledger.db");
	char hex[SHA256_HEX_BYTES];
	int64_t n_bytes;

	if (file_sum(path, &n_bytes, hex, err) < 0)
		return -1;
	if (yyjson_get_sint(yyjson_obj_get(v, "bytes")) != n_bytes || !yyjson_equals_str(yyjson_obj_get(v, "sha256"), hex))
		problems_add(p, "manifest.json: does not describe ledger.db (%" PRId64 " bytes, SHA-256 %s)", n_bytes, hex);
	return 0;
}

/* What people open, JOB/results.jsonl, is a link to the merged file. A program that replaces it (sed -i) leaves another file there, and a
 * copied job may have plain copies: those must hold the same bytes. */
static int check_shown(struct job *j, yyjson_val *manifest, const char *name, struct problems *p, struct err *err)
{
	char *shown = path_format("%s/%s", store_dir(j->store), name),
	     *merged = path_format("%s/merged/%s", store_dir(j->store), name);
	struct stat a, b;
	char hex[SHA256_HEX_BYTES];
	int64_t n_bytes;
	int rc = 0;

	if (stat(shown, &a) < 0 && errno == ENOENT) {
		problems_add(p, "%s: is missing; `merge` puts it back", shown);
	} else if (stat(shown, &a) < 0) {
		rc = err_sys(err, ERR_STORAGE, "%s", shown);
	} else if (stat(merged, &b) < 0) {
		rc = err_sys(err, ERR_STORAGE, "%s", merged);
	} else if (a.st_dev != b.st_dev || a.st_ino != b.st_ino) {
		rc = file_sum(shown, &n_bytes, hex, err);
		if (rc == 0 &&
		    !yyjson_equals_str(yyjson_obj_get(yyjson_obj_get(yyjson_obj_get(manifest, "files"), name), "sha256"), hex))
			problems_add(p, "%s: is not what was merged, which is %s; remove it, and `merge` puts it back", shown, merged);
	}
	free(shown);
	free(merged);
	return rc;
}

/* Sums, once the rows are right: they would only say the same again. */
static int check_sums(struct job *j, struct line_check *c, struct ledger *l, struct ledger_check *db, const char *ledger_path,
                      yyjson_val *manifest, struct err *err)
{
	struct buf wrong = {0};
	char root[SHA256_HEX_BYTES];
	int rc = ledger_check_end(db, l, &wrong, err);

	if (rc == 0)
		problems_add(c->problems, "%s", wrong.data);
	buf_release(&wrong);
	if (rc < 0)
		return -1;
	ledger_root(l, root);
	if (!yyjson_equals_str(yyjson_obj_get(manifest, "root"), root))
		problems_add(c->problems, "manifest.json: its root is not that of the records, which is %s", root);
	return check_usage(j, l, manifest, c->problems, err) < 0 || check_ledger_file(ledger_path, manifest, c->problems, err) < 0
	           ? -1
	           : 0;
}

static int compare(struct job *j, struct line_check *c, struct ledger *l, struct ledger_check *db, const char *ledger_path,
                   yyjson_val *manifest, struct err *err)
{
	static const char *const shown[] = {"results.jsonl", "errors.jsonl", "usage.json"};
	struct buf wrong = {0};
	int rc;

	while ((rc = ledger_next(l, err)) == 1) {
		rc = line_check_row(c, l, err);
		/* Without its record a row's charge cannot be judged. */
		if (rc == 1 && !(l->status == LEDGER_MISSING && c->has_damage)) {
			buf_reset(&wrong);
			rc = ledger_check_row(db, l, &wrong, err);
			if (rc == 0)
				problems_add(c->problems, "%s", wrong.data);
		}
		if (rc < 0)
			break;
	}
	buf_release(&wrong);
	if (rc < 0 || line_check_end(c, l, err) < 0)
		return -1;
	if (c->n_newer > 0)
		problems_add(c->problems, "%" PRId64 " rows were finished since this was merged; merge again", c->n_newer);
	if (c->problems->n == 0 && check_sums(j, c, l, db, ledger_path, manifest, err) < 0)
		return -1;
	for (int i = 0; i < 2; i++)
		check_file(manifest, &c->files[i], c->problems);
	for (size_t i = 0; i < sizeof(shown) / sizeof(shown[0]) && store_dir(j->store); i++)
		if (check_shown(j, manifest, shown[i], c->problems, err) < 0)
			return -1;
	return 0;
}

/* Room for the sort: in the job, where there is space for what is as large as the results; a job that we may only read is verified with the
 * system's directory for temporary files. *spill is malloc'd. */
static int find_room(struct job *j, struct workplace *w, char **spill, struct err *err)
{
	struct err refused = {0};
	const char *tmp = getenv("TMPDIR");

	if (workplace_open(w, j, "verifying", &refused) == 0) {
		*spill = path_format("%s/results.spill", w->dir);
		return 0;
	}
	if (!store_dir(j->store) || access(store_dir(j->store), W_OK) == 0)
		return err_set(err, refused.code, "%s", refused.msg);
	*spill = path_format("%s/tokenmill-verify-%ld-%lld.spill", tmp && *tmp ? tmp : "/tmp", (long)getpid(),
	                     (long long)clock_unix_ms());
	return 0;
}

static yyjson_doc *read_manifest(struct job *j, struct err *err)
{
	struct buf text = {0};
	yyjson_doc *doc = NULL;
	char *full = store_name(j->store, "merged/manifest.json");
	int rc = store_get(j->store, "merged/manifest.json", (size_t)64 << 20, &text, err);

	if (rc == 0)
		err_set(err, ERR_STORAGE, "%s: is missing: the job is not merged", full);
	else if (rc == 1 && !(doc = json_parse(buf_str(&text), text.len, ERR_STORAGE, err)))
		err_context(err, "%s", full);
	free(full);
	buf_release(&text);
	return doc;
}

static struct ledger_check *open_ledger_db(struct job *j, struct store_file *f, struct err *err)
{
	char *full = store_name(j->store, "merged/ledger.db");
	struct ledger_check *c = NULL;
	int rc = store_fetch(j->store, "merged/ledger.db", f, err);

	if (rc == 0)
		err_set(err, ERR_STORAGE, "%s: is missing", full);
	else if (rc == 1)
		c = ledger_check_open(f->path, full, j, err);
	free(full);
	return c;
}

static int verify(struct job *j, yyjson_val *manifest, struct problems *p, struct err *err)
{
	struct line_check c = {0};
	struct ledger_rules rules = {.read = {.damaged = note_damage, .context = &c},
	                             .allows_missing = 1,
	                             .close_code = yyjson_get_str(yyjson_obj_get(manifest, "close_code"))};
	struct ledger_check *db = NULL;
	struct store_file db_file = {0};
	struct workplace w = {0};
	struct ledger l = {0};
	char *spill = NULL;
	int rc = -1;

	if (!yyjson_equals_str(yyjson_obj_get(manifest, "plan_id"), j->plan_id))
		return err_set(err, ERR_STORAGE, "what is merged is of an earlier plan of this job; merge again");
	if (line_check_open(&c, j, p, err) < 0)
		goto out;
	c.is_partial = !yyjson_is_true(yyjson_obj_get(manifest, "complete"));
	db = open_ledger_db(j, &db_file, err);
	if (!db || find_room(j, &w, &spill, err) < 0 || ledger_open(&l, j, spill, &rules, err) < 0)
		goto out;
	rc = compare(j, &c, &l, db, db_file.path, manifest, err);
out:
	free(spill);
	ledger_close(&l);
	workplace_close(&w);
	ledger_check_close(db);
	store_file_release(&db_file);
	line_check_close(&c);
	return rc;
}

int job_verify_tell(struct job *j, job_problem_fn tell, void *context, struct err *err)
{
	struct problems p = {.tell = tell, .context = context};
	yyjson_doc *manifest = read_manifest(j, err);
	int rc = manifest ? verify(j, yyjson_doc_get_root(manifest), &p, err) : -1;

	if (rc == 0)
		rc = problems_finish(&p, err);
	buf_release(&p.first);
	yyjson_doc_free(manifest);
	return rc < 0 ? err_context(err, "verify") : 0;
}

int job_verify(struct job *j, struct err *err)
{
	return job_verify_tell(j, NULL, NULL, err);
}
