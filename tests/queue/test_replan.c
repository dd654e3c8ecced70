/* A job is planned again: with a grown, reordered or changed input, with other shards, for its failed rows; by planners that are killed at any
 * moment, by several at once, while workers of the old plan run. Rows that were finished are not run again, and the merged bytes are those of a job
 * that was planned so from the start. `test_replan N` kills N times instead of 40; `test_replan bench [rows]` tells how long it takes. */
#include "tests/check.h"

#include <dirent.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "tests/queue/job_rig.h"

/* An input: row i of it is number id[i], whose request has the given version. Every 50th number is at fault, every 10th fails when it runs, unless
 * `healed`: then it does not. */
struct rows {
	int64_t n;
	int64_t *id;
	int *version;
	int64_t pad_bytes;
	int healed;
};

static struct rows rows_new(int64_t n)
{
	struct rows r = {.n = n, .id = xcalloc((size_t)n, sizeof(*r.id)), .version = xcalloc((size_t)n, sizeof(*r.version)), .pad_bytes = 100};

	for (int64_t i = 0; i < n; i++)
		r.id[i] = i;
	return r;
}

static void rows_free(struct rows *r)
{
	free(r->id);
	free(r->version);
}

static void rows_shuffle(struct rows *r, unsigned seed)
{
	srand(seed);
	for (int64_t i = r->n - 1; i > 0; i--) {
		int64_t k = rand() % (i + 1), id = r->id[i];
		int version = r->version[i];

		r->id[i] = r->id[k];
		r->version[i] = r->version[k];
		r->id[k] = id;
		r->version[k] = version;
	}
}

static int id_is_bad(int64_t id)
{
	return id % 50 == 49;
}

/* The record of a row; 1 when it is an error. */
static int write_record(struct buf *b, int64_t id, int version, int64_t pad, int healed)
{
	int failed = id_is_bad(id) || (id % 10 == 7 && !healed);

	buf_reset(b);
	buf_addf(b, "{\"custom_id\":\"row-%" PRId64 "\",\"version\":%d,\"%s\":\"", id, version, id_is_bad(id) ? "fault" : failed ? "error" : "text");
	rig_pad(b, id, (size_t)pad);
	buf_adds(b, "\"}");
	return failed;
}

static int add_rows(struct job_plan *p, const struct rows *r, struct err *err)
{
	struct buf key = {0}, input = {0}, record = {0};
	int rc = 0;

	for (int64_t i = 0; i < r->n && rc == 0; i++) {
		char prefix[16];
		struct plan_row pr = {.source = "in.jsonl", .line = i + 1, .n_prompt_tokens = 3, .max_output_tokens = 64, .tags = "{\"user\":\"u\"}", .n_tags = 12};

		rig_key(&key, r->id[i]);
		buf_reset(&input);
		buf_addf(&input, "{\"custom_id\":\"row-%" PRId64 "\",\"v\":%d,\"pad\":\"", r->id[i], r->version[i]);
		rig_pad(&input, r->id[i], (size_t)r->pad_bytes);
		buf_adds(&input, "\"}");
		pr.n_prefix_key = (size_t)snprintf(prefix, sizeof(prefix), "p%02d", (int)(r->id[i] * 7 % 31));
		pr.prefix_key = prefix;
		pr.key = key.data;
		pr.n_key = key.len;
		pr.input = input.data;
		pr.n_input = input.len;
		if (id_is_bad(r->id[i])) {
			write_record(&record, r->id[i], r->version[i], 10, 0);
			pr.error_line = record.data;
			pr.n_error_line = record.len;
		}
		rc = job_plan_add(p, &pr, NULL, NULL, err);
	}
	buf_release(&key);
	buf_release(&input);
	buf_release(&record);
	return rc;
}

static int plan_first(const char *dir, const struct rows *r, int64_t rows_per_shard, struct err *err)
{
	struct job_plan *p = job_plan_begin(dir, err);

	if (!p || add_rows(p, r, err) != 0) {
		job_plan_abort(p);
		return -1;
	}
	return job_plan_commit(p, "{\"wish\":1}", rows_per_shard, err);
}

/* r NULL: the same rows. */
static int plan_from(struct job *j, const struct rows *r, int64_t rows_per_shard, const char *spec, struct job_replan *how, struct err *err)
{
	struct job_plan *p = job_replan_begin(j, how, err);

	if (p && (r ? add_rows(p, r, err) : job_replan_add_same(p, err)) == 0)
		return job_plan_commit(p, spec, rows_per_shard, err);
	job_plan_abort(p);
	return -1;
}

static int plan_again(const char *dir, const struct rows *r, int64_t rows_per_shard, const char *spec, struct job_replan *how, struct err *err)
{
	struct job *j = job_open(dir, err);
	int rc = j ? plan_from(j, r, rows_per_shard, spec, how, err) : -1;

	job_close(j);
	return rc;
}

/* Claim and run until nothing is left or max_rows are done; then a partial state for the next row of the shard at hand. Rows that ran are marked with
 * the plan's generation, in wait_s. Each row of which there is a partial state must be given its own. Rows done, or -1. */
static int64_t work(struct job *j, int64_t publish_every, int64_t max_rows, const struct rows *how, int64_t *n_partial, struct err *err)
{
	struct job_worker w = {.attempt = "attempt"};
	struct buf record = {0};
	struct shard *s = NULL;
	struct shard_row row;
	int64_t n = 0;
	int rc;

	while ((rc = job_claim(j, &w, &s, err)) == 1) {
		while ((rc = shard_next(s, &row, err)) == 1) {
			int64_t id = strtoll(row.key + 4, NULL, 10);
			const char *v = memmem(row.input, row.n_input, "\"v\":", 4);
			struct row_result out = {.row = row.row, .prompt_tokens = 3, .cached_tokens = 1, .output_tokens = 2, .wait_s = job_generation(j)};
			char state[64];

			snprintf(state, sizeof(state), "state of %" PRId64, id);
			if (row.partial) {
				CHECK(row.n_partial == strlen(state) && memcmp(row.partial, state, row.n_partial) == 0);
				if (n_partial)
					++*n_partial;
			}
			if (n == max_rows) {
				shard_add_partial(s, row.row, "too old", 7);
				if (shard_publish(s, err) < 0)
					break;
				shard_add_partial(s, row.row, state, strlen(state));
				break;
			}
			out.is_error = write_record(&record, id, v ? atoi(v + 4) : -1, how->pad_bytes, how->healed);
			out.line = record.data;
			out.n_line = record.len;
			shard_add_result(s, &out);
			n++;
			if (n % publish_every == 0 && (rc = shard_publish(s, err)) < 0)
				break;
		}
		if (rc >= 0)
			rc = shard_publish(s, err);
		shard_close(s);
		if (rc < 0 || n >= max_rows)
			break;
	}
	buf_release(&record);
	return rc < 0 ? -1 : n;
}

static int64_t work_on(const char *dir, int64_t max_rows, const struct rows *how, int64_t *n_partial, struct err *err)
{
	struct job *j = job_open(dir, err);
	int64_t n = j ? work(j, 17, max_rows, how, n_partial, err) : -1;

	job_close(j);
	return n;
}

static int64_t n_good(const struct rows *r)
{
	int64_t n = 0;

	for (int64_t i = 0; i < r->n; i++)
		n += !id_is_bad(r->id[i]);
	return n;
}

/* Sum of wait_s over all records: which generation ran how many. */
static double waited(const char *dir)
{
	char path[256];
	struct err err = {0};
	yyjson_doc *doc;
	double wait;

	snprintf(path, sizeof(path), "%s/usage.json", dir);
	doc = json_parse_file(path, 1 << 20, ERR_STORAGE, &err);
	wait = yyjson_get_num(yyjson_obj_get(yyjson_obj_get(yyjson_doc_get_root(doc), "seconds"), "wait"));
	yyjson_doc_free(doc);
	return wait;
}

/* The job is done: merge, verify, and hold the merged bytes against what they should be. */
static void check_whole(const char *dir, const struct rows *r)
{
	struct err err = {0};
	struct job *j = job_open(dir, &err);
	struct buf expected[2] = {0}, found = {0}, record = {0};

	CHECK(j != NULL);
	if (!j)
		return;
	CHECK_INT(job_all_done(j, &err), 1);
	CHECK_INT(job_is_merged(j, &err), 0);
	CHECK_OK(job_merge(j, NULL, &err), err);
	CHECK_OK(job_verify(j, &err), err);
	job_close(j);
	for (int64_t i = 0; i < r->n; i++) {
		int failed = write_record(&record, r->id[i], r->version[i], id_is_bad(r->id[i]) ? 10 : r->pad_bytes, r->healed);

		buf_add(&expected[failed], record.data, record.len);
		buf_addc(&expected[failed], '\n');
	}
	for (int k = 0; k < 2; k++) {
		char path[256];

		snprintf(path, sizeof(path), "%s/%s", dir, k ? "errors.jsonl" : "results.jsonl");
		buf_reset(&found);
		CHECK_OK(file_read(path, (size_t)1 << 31, &found, ERR_STORAGE, &err), err);
		CHECK_INT(found.len, expected[k].len);
		CHECK(found.len == expected[k].len && memcmp(buf_str(&found), buf_str(&expected[k]), found.len) == 0);
		buf_release(&expected[k]);
	}
	buf_release(&found);
	buf_release(&record);
}

static int count_names(const char *dir, const char *part)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	int n = 0;

	while (d && (e = readdir(d)))
		n += strstr(e->d_name, part) != NULL;
	if (d)
		closedir(d);
	return n;
}

/* Half of the rows are run, with a partial state; then the input has more rows, before and between those that were there, in another order. */
TEST(grown_and_reordered)
{
	struct rows r = rows_new(1000), grown = rows_new(1300);
	struct err err = {0};
	struct job_replan how = {0};
	int64_t n_partial = 0;

	rows_shuffle(&grown, 5);
	CHECK_OK(plan_first("a", &r, 90, &err), err);
	CHECK_INT(work_on("a", 431, &r, NULL, &err), 431);
	CHECK_OK(plan_again("a", &grown, 130, "{\"wish\":2}", &how, &err), err);
	CHECK_INT(how.n_finished, 431);
	CHECK_INT(how.n_kept, 431);
	CHECK_INT(how.n_dropped + how.n_again, 0);
	CHECK_INT(how.n_partial, 1);
	CHECK_INT(work_on("a", INT64_MAX, &grown, &n_partial, &err), n_good(&grown) - 431);
	CHECK_INT(n_partial, 1);
	check_whole("a", &grown);
	CHECK_NEAR(waited("a"), 431 + 2.0 * (double)(n_good(&grown) - 431), 0.01);
	CHECK_INT(count_names("a", "planning") + count_names("a", "plan-claim") + count_names("a", ".tmp-"), 0);
	/* Of a finished and merged job: what was merged does not count for the new plan. */
	CHECK_OK(plan_again("a", &r, 50, "{\"wish\":3}", &(struct job_replan){.may_drop = 1}, &err), err);
	CHECK_INT(work_on("a", INT64_MAX, &r, NULL, &err), 0);
	check_whole("a", &r);
	rows_free(&r);
	rows_free(&grown);
	rig_remove("a");
}

/* A finished row that is gone or altered is refused, unless it may be dropped; one that is not finished may change freely. */
TEST(changed_and_removed)
{
	struct rows r = rows_new(300);
	struct err err = {0};
	struct job_replan how = {0};
	struct job *j;

	CHECK_OK(plan_first("a", &r, 300, &err), err);
	CHECK_INT(work_on("a", 120, &r, NULL, &err), 120);
	/* Prefix order: numbers that are multiples of 31 come first. */
	r.version[31] = 1;
	CHECK_INT(plan_again("a", &r, 0, "{}", &how, &err), -1);
	CHECK_INT(err.code, ERR_FINGERPRINT);
	CHECK_HAS(err.msg, "row \"row-31\" (in.jsonl:32) has a result, and has another request now");
	CHECK_INT(how.n_dropped, 1);
	err_clear(&err);
	j = job_open("a", &err);
	CHECK_INT(job_generation(j), 1);
	job_close(j);
	CHECK_INT(count_names("a", "plan-000") + count_names("a", "planning"), 1);
	r.version[31] = 0;
	r.id[62] = 1000;
	CHECK_INT(plan_again("a", &r, 0, "{}", &how, &err), -1);
	CHECK_HAS(err.msg, "row \"row-62\" (in.jsonl:63) has a result, and is no longer in the input");
	err_clear(&err);
	r.version[31] = 1;
	how.may_drop = 1;
	CHECK_OK(plan_again("a", &r, 0, "{}", &how, &err), err);
	CHECK_INT(how.n_finished, 120);
	CHECK_INT(how.n_dropped, 2);
	CHECK_INT(how.n_kept, 118);
	CHECK_INT(how.n_partial, 1);
	/* Rows without a result change; their partial states are not theirs any more. */
	j = job_open("a", &err);
	CHECK_INT(job_generation(j), 2);
	CHECK_INT(job_n_done_rows(j, &err), 118);
	job_close(j);
	for (int64_t i = 0; i < r.n; i++)
		if (r.id[i] * 7 % 31 > 20)
			r.version[i] = 7;
	how = (struct job_replan){0};
	CHECK_OK(plan_again("a", &r, 40, "{}", &how, &err), err);
	CHECK_INT(how.n_kept, 118);
	CHECK_INT(work_on("a", INT64_MAX, &r, NULL, &err), n_good(&r) - 118);
	check_whole("a", &r);
	rows_free(&r);
	rig_remove("a");
}

/* From one number of shards to the next, a few rows run in each; only the plan's own rows are needed. */
TEST(shard_counts)
{
	struct rows r = rows_new(500);
	struct err err = {0};
	int64_t n = n_good(&r), done = 0, n_partial = 0;

	CHECK_OK(plan_first("a", &r, 500, &err), err);
	for (int shards = 1; shards <= 50 && !check_failed_now; shards++) {
		struct job_replan how = {0};
		int64_t more = shards * 3 % 20 + 1;
		struct job *j;

		CHECK_OK(plan_again("a", NULL, (n + shards - 1) / shards, "{\"wish\":2}", &how, &err), err);
		CHECK_INT(how.n_kept, done);
		CHECK(how.n_partial <= 1); /* none where the shard ended there */
		n_partial += how.n_partial;
		j = job_open("a", &err);
		CHECK_INT(job_n_done_rows(j, &err), done);
		CHECK_INT(job_n_rows(j), 500);
		CHECK_INT(job_n_bad_rows(j), 10);
		job_close(j);
		more = more < n - done ? more : n - done;
		CHECK_INT(work_on("a", more, &r, NULL, &err), more);
		done += more;
	}
	CHECK(n_partial > 10);
	work_on("a", INT64_MAX, &r, NULL, &err);
	check_whole("a", &r);
	rows_free(&r);
	rig_remove("a");
}

/* A shard all of whose rows were carried is done, without a claim; the old plan's marks do not matter. */
TEST(nothing_left)
{
	struct rows r = rows_new(400);
	struct err err = {0};
	struct job_replan how = {0};
	struct job *j;

	CHECK_OK(plan_first("a", &r, 100, &err), err);
	CHECK_INT(work_on("a", INT64_MAX, &r, NULL, &err), n_good(&r));
	rows_shuffle(&r, 3);
	CHECK_OK(plan_again("a", &r, 30, "{}", &how, &err), err);
	j = job_open("a", &err);
	CHECK_INT(job_all_done(j, &err), 1);
	job_close(j);
	CHECK_INT(system("ls a/plan-0002-*/shards/*/claim* >ls.out 2>/dev/null && test -s ls.out") == 0, 0);
	check_whole("a", &r);
	rows_free(&r);
	rig_remove("a");
}

/* Long records: more than one segment for a shard, and no more memory than that of a segment and the sorters. */
TEST(large_records)
{
	struct rows r = rows_new(12);
	struct err err = {0};
	struct job_replan how = {0};

	r.pad_bytes = 8 << 20;
	CHECK_OK(plan_first("a", &r, 12, &err), err);
	CHECK_INT(work_on("a", 11, &r, NULL, &err), 11);
	CHECK_OK(plan_again("a", NULL, 12, "{}", &how, &err), err);
	CHECK_INT(how.n_kept, 11);
	CHECK(system("test $(ls a/plan-0002-*/shards/00000/seg-0000-* | wc -l) -ge 3") == 0);
	CHECK_INT(work_on("a", INT64_MAX, &r, NULL, &err), 1);
	check_whole("a", &r);
	rows_free(&r);
	rig_remove("a");
}

static int keep_ok(void *arg, const struct row_result *r)
{
	++*(int *)arg;
	return !r->is_error;
}

/* Failed rows run once more; rows at fault stay as they are. Without failed rows nothing is published. */
TEST(failed_rows_again)
{
	struct rows r = rows_new(500);
	struct err err = {0};
	int asked = 0;
	struct job_replan how = {.keep = keep_ok, .arg = &asked};
	int64_t n_failed = 0;
	struct job *j;

	for (int i = 0; i < 500; i++)
		n_failed += i % 10 == 7 && !id_is_bad(i);
	CHECK_OK(plan_first("a", &r, 60, &err), err);
	CHECK_INT(work_on("a", INT64_MAX, &r, NULL, &err), n_good(&r));
	check_whole("a", &r);
	CHECK_INT(plan_again("a", NULL, 60, "{}", &how, &err), 0);
	CHECK_INT(asked, n_good(&r));
	CHECK_INT(how.n_again, n_failed);
	CHECK_INT(how.n_kept, n_good(&r) - n_failed);
	r.healed = 1;
	CHECK_INT(work_on("a", INT64_MAX, &r, NULL, &err), n_failed);
	check_whole("a", &r);
	CHECK_INT(plan_again("a", NULL, 60, "{}", &how, &err), 1);
	CHECK_INT(how.n_again, 0);
	j = job_open("a", &err);
	CHECK_INT(job_generation(j), 2);
	CHECK_INT(job_is_merged(j, &err), 1);
	job_close(j);
	CHECK_INT(count_names("a", "planning") + count_names("a", "plan-claim") + count_names("a", "plan-0003"), 0);
	rows_free(&r);
	rig_remove("a");
}

/* A worker that has a shard of the old plan in hand is told at its next publish; so is one that would merge. */
TEST(old_workers)
{
	struct rows r = rows_new(300), grown = rows_new(400);
	struct err err = {0};
	struct job_replan how = {0};
	struct job_worker w = {.attempt = "attempt"};
	struct job *j, *same;
	struct shard *s = NULL;
	struct shard_row row;
	struct row_result out = {.line = "{\"custom_id\":\"row-0\"}", .n_line = 21};

	CHECK_OK(plan_first("a", &r, 100, &err), err);
	CHECK_INT(work_on("a", 150, &r, NULL, &err), 150);
	j = job_open("a", &err);
	CHECK_INT(job_claim(j, &w, &s, &err), 1);
	CHECK_INT(shard_next(s, &row, &err), 1);
	out.row = row.row;
	shard_add_result(s, &out);
	CHECK_OK(plan_again("a", &grown, 100, "{}", &how, &err), err);
	CHECK_INT(how.n_kept, 150);
	CHECK_INT(shard_publish(s, &err), -1);
	CHECK_INT(err.code, ERR_FENCED);
	err_clear(&err);
	CHECK_INT(job_merge(j, NULL, &err), -1);
	CHECK_INT(err.code, ERR_FENCED);
	err_clear(&err);
	/* Who would plan from what is no longer the newest plan is told so. */
	CHECK(job_replan_begin(j, &how, &err) == NULL);
	CHECK_INT(err.code, ERR_FENCED);
	err_clear(&err);
	shard_close(s);
	job_close(j);
	/* While one plans, another is told to try again. */
	j = job_open("a", &err);
	same = job_open("a", &err);
	struct job_plan *p = job_replan_begin(j, &how, &err), *second;
	CHECK(p != NULL);
	second = job_replan_begin(same, &how, &err);
	CHECK(second == NULL);
	CHECK_INT(err.code, ERR_RETRY);
	err_clear(&err);
	job_plan_abort(p);
	job_close(j);
	job_close(same);
	CHECK_INT(work_on("a", INT64_MAX, &grown, NULL, &err), n_good(&grown) - 150);
	check_whole("a", &grown);
	rows_free(&r);
	rows_free(&grown);
	rig_remove("a");
}

/* A segment or the plan of before is damaged: told, and nothing changes. */
TEST(damage)
{
	struct rows r = rows_new(200);
	struct err err = {0};
	struct job_replan how = {0};
	struct job *j;

	CHECK_OK(plan_first("a", &r, 50, &err), err);
	CHECK_INT(work_on("a", 120, &r, NULL, &err), 120);
	CHECK_INT(system("cp -r a b; f=$(ls b/shards/00000/seg-*-000001.db); cp $f s; head -c 9000 s >$f"), 0);
	CHECK_INT(plan_again("b", NULL, 20, "{}", &how, &err), -1);
	CHECK_INT(err.code, ERR_STORAGE);
	CHECK_HAS(err.msg, "/shards/00000/seg-");
	err_clear(&err);
	CHECK_INT(system("rm -r b; cp -r a b; : >b/shards/00001/input.jsonl.zst"), 0);
	CHECK_INT(plan_again("b", NULL, 20, "{}", &how, &err), -1);
	CHECK_INT(err.code, ERR_STORAGE);
	CHECK_HAS(err.msg, "/shards/00001/input.jsonl.zst");
	err_clear(&err);
	CHECK_INT(system("rm b/plan.db b/plan-*/plan.db"), 0);
	CHECK_INT(plan_again("b", NULL, 20, "{}", &how, &err), -1);
	CHECK_HAS(err.msg, "plan.db");
	err_clear(&err);
	CHECK_INT(count_names("b", "plan"), 1);
	j = job_open("b", &err);
	CHECK_INT(job_generation(j), 1);
	job_close(j);
	rows_free(&r);
	rig_remove("a");
	rig_remove("b");
}

/* ---- killed ---- */

static int n_rounds = 40;

/* What a process does that wants the job to have these rows: plan again unless that was done, run, merge. */
static _Noreturn void attempt(const char *dir, const struct rows *grown)
{
	struct err err = {0};
	struct job *j;
	int64_t n;
	int rc;

	for (;;) {
		struct job_replan how = {0};

		j = job_open(dir, &err);
		if (!j)
			goto fail;
		if (strstr(job_spec(j), "\"wish\":2"))
			break;
		rc = plan_from(j, grown, 37, "{\"wish\":2}", &how, &err);
		job_close(j);
		if (rc < 0 && err.code != ERR_RETRY && err.code != ERR_FENCED)
			goto fail;
		err_clear(&err);
		nanosleep(&(struct timespec){0, 1000000}, NULL);
	}
	n = work(j, 17, INT64_MAX, grown, NULL, &err);
	if (n < 0)
		goto fail;
	rc = job_all_done(j, &err);
	if (rc < 0 || (rc == 1 && (job_merge(j, NULL, &err) < 0 || job_verify(j, &err) < 0)))
		goto fail;
	_exit(rc == 1 ? 0 : 2); /* 2: others still run */
fail:
	printf("attempt: %s\n", err.msg);
	fflush(stdout);
	_exit(1);
}

static pid_t start(const char *dir, const struct rows *grown)
{
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid == 0)
		attempt(dir, grown);
	return pid;
}

static int finish(pid_t pid)
{
	int status;

	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void check_merged(const char *dir, const struct rows *grown, int64_t n_kept)
{
	struct err err = {0};
	struct job *j = job_open(dir, &err);

	CHECK(j && job_generation(j) == 2 && job_is_merged(j, &err) == 1);
	job_close(j);
	CHECK_NEAR(waited(dir), (double)n_kept + 2.0 * (double)(n_good(grown) - n_kept), 0.01);
	CHECK_INT(count_names(dir, "planning") + count_names(dir, "plan-claim"), 0);
	CHECK_INT(count_names(dir, "plan-0002-"), 1);
	CHECK_INT(system("rm -rf x/merged x/results.jsonl x/errors.jsonl x/usage.json"), 0);
	check_whole(dir, grown);
}

TEST(kill_9)
{
	struct rows r = rows_new(700), grown = rows_new(900);
	struct err err = {0};
	unsigned seed = (unsigned)clock_unix_ms();
	double whole;
	int killed = 0, jobs = 0;

	CHECK_OK(plan_first("half", &r, 90, &err), err);
	CHECK_INT(work_on("half", 300, &r, NULL, &err), 300);
	rows_shuffle(&grown, 11);
	whole = clock_seconds();
	CHECK_INT(system("cp -r half x"), 0);
	CHECK_INT(finish(start("x", &grown)), 0);
	check_merged("x", &grown, 300);
	whole = clock_seconds() - whole;
	printf("seed %u\n", seed);
	srand(seed);
	while (killed < n_rounds && !check_failed_now) {
		CHECK_INT(system("rm -rf x; cp -r half x"), 0);
		for (int rc = -SIGKILL; rc == -SIGKILL && !check_failed_now;) {
			long us = (long)(whole * 1e6 * (rand() % 1000) / 2000);
			pid_t pid = start("x", &grown);

			nanosleep(&(struct timespec){us / 1000000, us % 1000000 * 1000}, NULL);
			kill(pid, SIGKILL);
			rc = finish(pid);
			killed += rc == -SIGKILL;
			CHECK(rc == -SIGKILL || rc == 0);
		}
		check_merged("x", &grown, 300);
		jobs++;
	}
	printf("%d kills over %d jobs\n", killed, jobs);
	CHECK_INT(system("rm -rf x half"), 0);
	rows_free(&r);
	rows_free(&grown);
}

/* Several with the same wish: one new generation, and together they end the job. */
TEST(at_once)
{
	struct rows r = rows_new(300), grown = rows_new(500);
	struct err err = {0};

	for (int round = 0; round < 8; round++) {
		pid_t pid[4];
		int n_whole = 0;

		CHECK_OK(plan_first("x", &r, 60, &err), err);
		CHECK_INT(work_on("x", 100, &r, NULL, &err), 100);
		for (int i = 0; i < 4; i++)
			pid[i] = start("x", &grown);
		for (int i = 0; i < 4; i++) {
			int rc = finish(pid[i]);

			CHECK(rc == 0 || rc == 2);
			n_whole += rc == 0;
		}
		CHECK(n_whole > 0);
		check_merged("x", &grown, 100);
		rig_remove("x");
	}
	rows_free(&r);
	rows_free(&grown);
}

static int bench(int64_t n)
{
	struct rows r = rows_new(n), grown = rows_new(n + n / 10);
	struct err err = {0};
	struct job_replan how = {0};
	double t;
	struct job *j;

	r.pad_bytes = grown.pad_bytes = 600;
	if (plan_first("a", &r, 0, &err) < 0 || !(j = job_open("a", &err)) || work(j, 2000, n * 8 / 10, &r, NULL, &err) < 0)
		return printf("%s\n", err.msg), 1;
	job_close(j);
	t = clock_seconds();
	if (plan_again("a", &grown, 0, "{}", &how, &err) < 0)
		return printf("%s\n", err.msg), 1;
	printf("%" PRId64 " rows, %" PRId64 " kept: planned again in %.2f s, %zu MB at the peak\n", grown.n, how.n_kept, clock_seconds() - t,
	       mem_peak_bytes() >> 20);
	t = clock_seconds();
	if (plan_again("a", NULL, 1000, "{}", &how, &err) < 0)
		return printf("%s\n", err.msg), 1;
	printf("other shards, the same rows: %.2f s\n", clock_seconds() - t);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], "bench") == 0)
		return bench(argc > 2 ? atoll(argv[2]) : 100000);
	if (argc > 1)
		n_rounds = atoi(argv[1]);
	RUN(grown_and_reordered);
	RUN(changed_and_removed);
	RUN(shard_counts);
	RUN(nothing_left);
	RUN(large_records);
	RUN(failed_rows_again);
	RUN(old_workers);
	RUN(damage);
	RUN(kill_9);
	RUN(at_once);
	return TEST_RESULT();
}
