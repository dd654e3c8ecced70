/* Tests of a job's life in one process: plan, claim, run, publish, resume, merge, verify, and what is said of damage. `test_job bench [rows]
 * [bytes]` prints rates. */
#include "tests/check.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "queue/attempt.h"
#include "tests/queue/job_rig.h"

static void merge_and_check(const char *dir, const struct rig *r)
{
	struct err err = {0};
	struct job *j = job_open(dir, &err);

	CHECK(j != NULL);
	if (!j)
		return;
	CHECK_INT(job_all_done(j, &err), 1);
	CHECK_OK(job_merge(j, "{\"model\":\"m\"}", &err), err);
	CHECK_INT(job_is_merged(j, NULL), 1);
	CHECK_OK(job_verify(j, &err), err);
	CHECK(rig_check(dir, r));
	job_close(j);
}

TEST(round_trip)
{
	struct rig r = {.n_rows = 1000, .bad_every = 13, .pad_bytes = 300, .rows_per_shard = 90};
	struct err err = {0};
	struct job *j;
	struct buf before = {0}, after = {0}, usage = {0};
	yyjson_doc *doc;

	CHECK_OK(rig_plan("a", &r, &err), err);
	CHECK_INT(job_is_planned("a", NULL), 1);
	j = job_open("a", &err);
	CHECK(j != NULL);
	if (!j)
		return;
	CHECK_STR(job_spec(j), "{\"model\": \"m\", \"fingerprint\":\"f00\"}");
	CHECK_INT(job_n_rows(j), 1000);
	CHECK_INT(job_n_bad_rows(j), 76);
	CHECK_INT(job_n_shards(j), 11);
	CHECK_INT(job_n_done_rows(j, &err), 0);
	CHECK_INT(job_all_done(j, &err), 0);
	CHECK_INT(job_is_merged(j, NULL), 0);
	CHECK_INT(job_merge(j, NULL, &err), -1);
	CHECK_INT(err.code, ERR_INPUT);
	CHECK_HAS(err.msg, "row 0 (key \"row-0\", in.jsonl:1) has no result");
	err_clear(&err);
	CHECK_INT(rig_work(j, &rig_worker, &r, 50, 924 / 2, &err), 924 / 2);
	CHECK_INT(job_n_done_rows(j, &err), 924 / 2);
	job_close(j);

	j = job_open("a", &err);
	CHECK_INT(job_n_done_rows(j, &err), 924 / 2);
	CHECK_INT(rig_work(j, &rig_worker, &r, 50, INT64_MAX, &err), 924 - 924 / 2);
	CHECK_INT(job_n_done_rows(j, &err), 924);
	job_close(j);
	merge_and_check("a", &r);
	CHECK_OK(file_read("a/merged/manifest.json", 1 << 20, &before, ERR_STORAGE, &err), err);
	merge_and_check("a", &r);
	CHECK_OK(file_read("a/merged/manifest.json", 1 << 20, &after, ERR_STORAGE, &err), err);
	CHECK_STR(before.data, after.data);
	CHECK_HAS(after.data, "\"fingerprint\":\"f00\"");
	CHECK_OK(file_read("a/usage.json", 1 << 20, &usage, ERR_STORAGE, &err), err);
	doc = json_parse(usage.data, usage.len, ERR_STORAGE, &err);
	CHECK_INT(yyjson_get_int(yyjson_ptr_get(yyjson_doc_get_root(doc), "/rows/total")), 1000);
	CHECK_INT(yyjson_get_int(yyjson_ptr_get(yyjson_doc_get_root(doc), "/rows/failed")), 76 + 92);
	CHECK_INT(yyjson_get_int(yyjson_ptr_get(yyjson_doc_get_root(doc), "/tokens/output")), 924 * 2);
	CHECK_STR(yyjson_get_str(yyjson_ptr_get(yyjson_doc_get_root(doc), "/model")), "m");
	yyjson_doc_free(doc);
	buf_release(&before);
	buf_release(&after);
	buf_release(&usage);
}

/* Rows come in prefix order, and within a prefix in input order; key, input and figures as planned. */
TEST(run_order)
{
	struct rig r = {.n_rows = 500, .pad_bytes = 50, .rows_per_shard = 200};
	struct err err = {0};
	struct job *j;
	struct shard *held[3] = {0}, *s;
	struct shard_row row;
	struct buf input = {0};
	int64_t n = 0, last_row = -1;
	int last_prefix = -1, n_held = 0;

	CHECK_OK(rig_plan("order", &r, &err), err);
	j = job_open("order", &err);
	while (n_held < 3 && job_claim(j, &rig_worker, &s, &err) == 1) {
		held[n_held++] = s; /* once closed they would be given again */
		CHECK_INT(shard_epoch(s), 1);
		while (shard_next(s, &row, &err) == 1) {
			int prefix = (int)(row.row * 7 % 31);

			CHECK(prefix > last_prefix || (prefix == last_prefix && row.row > last_row));
			last_prefix = prefix;
			last_row = row.row;
			rig_input(&input, &r, row.row);
			CHECK(row.n_input == input.len && memcmp(row.input, input.data, input.len) == 0);
			CHECK_INT(row.n_prompt_tokens, row.row % 100);
			CHECK_INT(row.max_output_tokens, 64);
			CHECK(row.partial == NULL);
			n++;
		}
	}
	CHECK_INT(n, 500);
	CHECK_INT(n_held, 3);
	CHECK_INT(job_claim(j, &rig_worker, &s, &err), 0);
	for (int i = 0; i < n_held; i++)
		shard_close(held[i]);
	CHECK_INT(err.code, ERR_NONE);
	job_close(j);
	buf_release(&input);
}

TEST(duplicate_keys)
{
	struct err err = {0};
	struct job_plan *p = job_plan_begin("dup", &err);
	struct plan_row row = {.key = "k", .n_key = 1, .source = "x.jsonl", .line = 4, .input = "{}", .n_input = 2};
	const char *source = NULL;
	int64_t line = 0;
	struct job *j;

	CHECK_INT(job_plan_add(p, &row, &source, &line, &err), 0);
	row.source = "y.jsonl";
	row.line = 9;
	CHECK_INT(job_plan_add(p, &row, &source, &line, &err), 1);
	CHECK_STR(source, "x.jsonl");
	CHECK_INT(line, 4);
	row.key = "k2\0x";
	row.n_key = 4;
	row.input = "{\"a\":\n1}";
	row.n_input = 8;
	CHECK_INT(job_plan_add(p, &row, NULL, NULL, &err), 0);
	row.n_key = 3;
	CHECK_INT(job_plan_add(p, &row, NULL, NULL, &err), 0);
	CHECK_INT(job_plan_add(p, &row, NULL, NULL, &err), 1);
	row.key = "not json";
	row.n_key = 8;
	row.input = "{\"a\":";
	row.n_input = 5;
	CHECK_INT(job_plan_add(p, &row, NULL, NULL, &err), -1);
	CHECK_INT(err.code, ERR_INPUT);
	CHECK_HAS(err.msg, "row 3 (y.jsonl:9)");
	err_clear(&err);
	row.error_line = "{\"custom_id\":\"not json\"}";
	row.n_error_line = strlen(row.error_line);
	CHECK_INT(job_plan_add(p, &row, NULL, NULL, &err), 0);
	CHECK_OK(job_plan_commit(p, "{}", 0, &err), err);
	j = job_open("dup", &err);
	CHECK(j && job_n_rows(j) == 4 && job_n_bad_rows(j) == 1 && job_n_shards(j) == 1);
	job_close(j);
}

TEST(canonical_hash)
{
	static const char *const input[] = {"{\"b\":1,\"a\":[1.0]}", " {\"a\" : [1],\t\"b\":1 }", "{\"a\":[1],\"b\":2}"};
	struct err err = {0};
	struct job_plan *p = job_plan_begin("hash", &err);
	struct buf out = {0};
	FILE *f;
	char lines[4][65] = {{0}};

	for (int i = 0; i < 3; i++) {
		struct plan_row row = {.key = &"012"[i], .n_key = 1, .source = "x", .line = i, .input = input[i], .n_input = strlen(input[i])};

		CHECK_INT(job_plan_add(p, &row, NULL, NULL, &err), 0);
	}
	CHECK_OK(job_plan_commit(p, "{}", 0, &err), err);
	/* The plan is a plain SQLite file to others. */
	if (system("command -v sqlite3 >/dev/null") != 0) {
		SKIP(canonical_hash, "no sqlite3 shell");
		return;
	}
	f = popen("sqlite3 'file:hash/plan.db?immutable=1' 'SELECT lower(hex(hash)) FROM row ORDER BY row'", "r");
	for (int i = 0; i < 3; i++)
		CHECK_INT(fscanf(f, "%64s", lines[i]), 1);
	pclose(f);
	sha256_hex("{\"a\":[1],\"b\":1}", 15, lines[3]);
	CHECK_STR(lines[0], lines[3]);
	CHECK_STR(lines[1], lines[3]);
	CHECK(strcmp(lines[2], lines[3]) != 0);
	buf_release(&out);
}

TEST(empty_and_bad_only)
{
	struct rig none = {.n_rows = 0}, bad = {.n_rows = 20, .bad_every = 1, .pad_bytes = 10};
	struct err err = {0};

	CHECK_OK(rig_plan("none", &none, &err), err);
	merge_and_check("none", &none);
	CHECK_OK(rig_plan("bad", &bad, &err), err);
	merge_and_check("bad", &bad);
}

TEST(partial_states)
{
	struct rig r = {.n_rows = 40, .pad_bytes = 20, .rows_per_shard = 40};
	struct err err = {0};
	struct job *j;
	struct shard *s;
	struct shard_row row;
	struct buf record = {0};
	int64_t rows[4];

	CHECK_OK(rig_plan("partial", &r, &err), err);
	j = job_open("partial", &err);
	CHECK_INT(job_claim(j, &rig_worker, &s, &err), 1);
	for (int i = 0; i < 4; i++) {
		CHECK_INT(shard_next(s, &row, &err), 1);
		rows[i] = row.row;
	}
	shard_add_partial(s, rows[0], "one", 3);
	shard_add_partial(s, rows[1], "two", 3);
	shard_add_partial(s, rows[2], "three", 5);
	shard_add_partial(s, rows[2], "four", 4);
	rig_result(s, &r, rows[0], &record);
	CHECK_OK(shard_publish(s, &err), err);
	shard_add_partial(s, rows[1], "2.1", 3);
	CHECK_OK(shard_publish(s, &err), err);
	shard_close(s);
	CHECK_INT(job_claim(j, &rig_worker, &s, &err), 1);
	CHECK_INT(shard_epoch(s), 2);
	CHECK_INT(shard_n_done(s), 1);
	for (int i = 1; i < 4; i++) {
		CHECK_INT(shard_next(s, &row, &err), 1);
		CHECK_INT(row.row, rows[i]);
		if (i == 1)
			CHECK(row.n_partial == 3 && memcmp(row.partial, "2.1", 3) == 0);
		else if (i == 2)
			CHECK(row.n_partial == 4 && memcmp(row.partial, "four", 4) == 0);
		else
			CHECK(row.partial == NULL);
	}
	shard_close(s);
	CHECK_INT(rig_work(j, &rig_worker, &r, 7, INT64_MAX, &err), 39);
	job_close(j);
	merge_and_check("partial", &r);
	buf_release(&record);
}

/* A claim by another host; the claims of this machine are tested by processes in test_job_crash.c. */
static void write_claim(const char *path, int worker, const char *host)
{
	struct err err = {0};
	struct buf b = {0};

	buf_addf(&b, "{\"worker\":%d,\"attempt\":\"x\",\"job_uid\":\"\",\"host\":\"%s\",\"boot\":\"b\",\"pid_namespace\":\"n\",\"pid\":1,\"process_start\":1,"
	             "\"handle\":\"00\",\"time_ms\":1}\n", worker, host);
	CHECK_INT(file_write_atomic(path, b.data, b.len, &err), 0);
	buf_release(&b);
}

TEST(claim_order)
{
	struct rig r = {.n_rows = 30, .pad_bytes = 20, .rows_per_shard = 10};
	struct job_worker w1 = {.index = 1, .attempt = "a"}, w2 = {.index = 2, .attempt = "b"};
	struct err err = {0};
	struct job *j;
	struct shard *a, *b, *c;

	CHECK_OK(rig_plan("claims", &r, &err), err);
	j = job_open("claims", &err);
	write_claim("claims/shards/00001/claim-0001", 1, "elsewhere");
	/* Worker 1 first takes up what worker 1 held on another machine, then what is free. */
	CHECK_INT(job_claim(j, &w1, &a, &err), 1);
	CHECK_INT(shard_number(a), 1);
	CHECK_INT(shard_epoch(a), 2);
	CHECK_INT(job_claim(j, &w1, &b, &err), 1);
	CHECK_INT(shard_number(b), 0);
	/* What an open handle holds is not given again, and not to others. */
	CHECK_INT(job_claim(j, &w2, &c, &err), 1);
	CHECK_INT(shard_number(c), 2);
	shard_close(c);
	CHECK_INT(job_claim(j, &w1, &c, &err), 1); /* an orphan: worker 2's handle is closed */
	CHECK_INT(shard_number(c), 2);
	CHECK_INT(shard_epoch(c), 2);
	shard_close(c);
	write_claim("claims/shards/00002/claim-0003", 2, "elsewhere");
	CHECK_INT(job_claim(j, &w1, &c, &err), 0); /* worker 2 may be alive there */
	shard_close(a);
	shard_close(b);
	CHECK_INT(rig_work(j, &w1, &r, 3, INT64_MAX, &err), 20);
	CHECK_INT(rig_work(j, &w2, &r, 3, INT64_MAX, &err), 10);
	job_close(j);
	merge_and_check("claims", &r);
}

TEST(fenced)
{
	struct rig r = {.n_rows = 10, .pad_bytes = 20, .rows_per_shard = 10};
	struct err err = {0};
	struct job *j;
	struct shard *s;
	struct shard_row row;
	struct buf record = {0};

	CHECK_OK(rig_plan("fenced", &r, &err), err);
	j = job_open("fenced", &err);
	CHECK_INT(job_claim(j, &rig_worker, &s, &err), 1);
	CHECK_INT(shard_next(s, &row, &err), 1);
	rig_result(s, &r, row.row, &record);
	CHECK_OK(shard_publish(s, &err), err);
	write_claim("fenced/shards/00000/claim-0002", 0, "elsewhere");
	CHECK_INT(shard_next(s, &row, &err), 1);
	rig_result(s, &r, row.row, &record);
	CHECK_INT(shard_publish(s, &err), -1);
	CHECK_INT(err.code, ERR_FENCED);
	err_clear(&err);
	shard_close(s);
	CHECK_INT(rig_work(j, &rig_worker, &r, 100, INT64_MAX, &err), 9);
	job_close(j);
	merge_and_check("fenced", &r);
	buf_release(&record);
}

TEST(epochs_disagree)
{
	struct rig r = {.n_rows = 10, .pad_bytes = 20, .rows_per_shard = 10};
	struct err err = {0};
	struct job *j;
	struct shard *s;
	struct shard_row row;
	struct row_result other = {.line = "{\"custom_id\":\"row-0\",\"text\":\"other\"}"};

	CHECK_OK(rig_plan("differ", &r, &err), err);
	j = job_open("differ", &err);
	CHECK_INT(rig_work(j, &rig_worker, &r, 4, INT64_MAX, &err), 10);
	/* A twin of a later epoch that had not seen the first segments. */
	CHECK_INT(system("mkdir aside && mv differ/shards/00000/seg-* differ/shards/00000/done aside/"), 0);
	job_close(j);
	j = job_open("differ", &err);
	CHECK_INT(job_claim(j, &rig_worker, &s, &err), 1);
	CHECK_INT(shard_next(s, &row, &err), 1);
	other.row = row.row;
	other.n_line = strlen(other.line);
	shard_add_result(s, &other);
	CHECK_OK(shard_publish(s, &err), err);
	shard_close(s);
	CHECK_INT(system("mv aside/* differ/shards/00000/"), 0);
	job_close(j);
	/* Published too late: the mark does not name it, and it changes nothing. */
	merge_and_check("differ", &r);
	CHECK_INT(system("rm differ/shards/00000/done"), 0);
	j = job_open("differ", &err);
	CHECK_INT(job_merge(j, NULL, &err), -1);
	CHECK_INT(err.code, ERR_ENGINE);
	CHECK_HAS(err.msg, "row 0: epochs 1 and 2 have different results");
	err_clear(&err);
	CHECK_INT(rig_work(j, &rig_worker, &r, 4, INT64_MAX, &err), -1); /* cannot take over both */
	CHECK_INT(err.code, ERR_ENGINE);
	CHECK_HAS(err.msg, "row 0: epochs 1 and 2 have different results");
	err_clear(&err);
	job_close(j);
	/* Where the job does not promise equal bytes the lower epoch counts. */
	CHECK_INT(system("sed -i 's/\"model\"/\"deterministic\":false,&/' differ/job.json"), 0);
	j = job_open("differ", &err);
	CHECK_INT(rig_work(j, &rig_worker, &r, 4, INT64_MAX, &err), 0);
	job_close(j);
	merge_and_check("differ", &r);
	CHECK_INT(system("test \"$(ls differ/shards/00000 | grep -v claim | tr '\\n' ' ')\" = 'done input.jsonl.zst seg-0004-000001.db '"), 0);
}

static void damage(const char *path, long at, char with)
{
	FILE *f = fopen(path, "r+b");

	CHECK(f != NULL);
	if (!f)
		return;
	fseek(f, at, SEEK_SET);
	fputc(with, f);
	fclose(f);
}

TEST(damaged_segment)
{
	struct rig r = {.n_rows = 200, .pad_bytes = 300, .rows_per_shard = 100};
	struct err err = {0};
	struct job *j;

	CHECK_OK(rig_plan("damage", &r, &err), err);
	j = job_open("damage", &err);
	CHECK_INT(rig_work(j, &rig_worker, &r, 40, 90, &err), 90);
	CHECK_INT(system("cp -r damage damage2; cp -r damage damage3; cp -r damage damage4"), 0);
	job_close(j);
	/* Cut short: seen when the shard is claimed, and set aside. */
	CHECK_INT(truncate("damage/shards/00000/seg-0001-000002.db", 20000), 0);
	j = job_open("damage", &err);
	CHECK_INT(job_n_done_rows(j, &err), 50);
	CHECK_INT(job_merge(j, NULL, &err), -1);
	CHECK_INT(err.code, ERR_STORAGE);
	CHECK_HAS(err.msg, "/shards/00000/seg-0001-000002.db");
	CHECK_HAS(err.msg, "`run` makes its rows again");
	err_clear(&err);
	CHECK_OK(job_merge_partial(j, NULL, NULL, &err), err);
	CHECK_INT(system("test $(cat damage/results.jsonl damage/errors.jsonl | wc -l) = 50"), 0);
	CHECK_INT(rig_work(j, &rig_worker, &r, 40, INT64_MAX, &err), 150);
	job_close(j);
	merge_and_check("damage", &r);
	CHECK_INT(system("ls damage/shards/00000/seg-0001* 2>/dev/null | wc -l | grep -qx 0"), 0);
	/* Empty: a valid database to SQLite. */
	CHECK_INT(truncate("damage2/shards/00000/seg-0001-000001.db", 0), 0);
	j = job_open("damage2", &err);
	CHECK_INT(rig_work(j, &rig_worker, &r, 40, INT64_MAX, &err), 110 + 40);
	job_close(j);
	merge_and_check("damage2", &r);
	/* One letter of a line of a shard that is done: seen by its checksum in merge. */
	j = job_open("damage3", &err);
	CHECK_INT(rig_work(j, &rig_worker, &r, 40, INT64_MAX, &err), 110);
	CHECK_INT(system("LC_ALL=C sed -i '0,/quick/s//qu!ck/' damage3/shards/00000/seg-0002-000001.db"), 0);
	CHECK_INT(job_merge(j, NULL, &err), -1);
	CHECK_INT(err.code, ERR_STORAGE);
	CHECK_HAS(err.msg, "/shards/00000/seg-0002-000001.db");
	CHECK_HAS(err.msg, "merge --repair");
	err_clear(&err);
	CHECK_INT(job_repair(j, &err), 1);
	CHECK_INT(job_all_done(j, &err), 0);
	CHECK(rig_work(j, &rig_worker, &r, 40, INT64_MAX, &err) > 0);
	CHECK_INT(job_repair(j, &err), 0);
	job_close(j);
	merge_and_check("damage3", &r);
	/* Merged already: verify names the file, a repair makes the rows again. */
	CHECK_INT(system("LC_ALL=C sed -i '0,/quick/s//qu!ck/' damage3/shards/00001/seg-*.db"), 0);
	j = job_open("damage3", &err);
	CHECK_INT(job_verify(j, &err), -1);
	CHECK_HAS(err.msg, "/shards/00001/seg-");
	err_clear(&err);
	CHECK_INT(job_repair(j, &err), 1);
	CHECK_INT(job_is_merged(j, &err), 0);
	CHECK(rig_work(j, &rig_worker, &r, 40, INT64_MAX, &err) > 0);
	job_close(j);
	merge_and_check("damage3", &r);
	/* Temporary files of a writer that died are nothing, whatever is in them. */
	CHECK_INT(system("cp damage4/shards/00000/seg-0001-000002.db damage4/shards/00000/seg-0001-000003.db.tmp-1-2-3;"
	                 "echo torn >damage4/shards/00001/seg-0001-000001.db.tmp-9-9-9; echo x >damage4/shards/00001/claim-0001.tmp-1-1-1"), 0);
	j = job_open("damage4", &err);
	CHECK_INT(rig_work(j, &rig_worker, &r, 40, INT64_MAX, &err), 110);
	job_close(j);
	merge_and_check("damage4", &r);
}

TEST(damaged_input)
{
	struct rig r = {.n_rows = 500, .pad_bytes = 300, .rows_per_shard = 500};
	struct err err = {0};
	struct job *j;

	CHECK_OK(rig_plan("cut", &r, &err), err);
	CHECK_INT(system("cp -r cut cut2"), 0);
	CHECK_INT(truncate("cut/shards/00000/input.jsonl.zst", 1000), 0);
	j = job_open("cut", &err);
	CHECK_INT(rig_work(j, &rig_worker, &r, 40, INT64_MAX, &err), -1);
	CHECK_INT(err.code, ERR_STORAGE);
	CHECK_HAS(err.msg, "input.jsonl.zst");
	err_clear(&err);
	job_close(j);
	damage("cut2/shards/00000/input.jsonl.zst", 1500, '\x55');
	damage("cut2/shards/00000/input.jsonl.zst", 1501, '\x54');
	j = job_open("cut2", &err);
	CHECK_INT(rig_work(j, &rig_worker, &r, 40, INT64_MAX, &err), -1);
	CHECK_HAS(err.msg, "input.jsonl.zst");
	err_clear(&err);
	job_close(j);
	CHECK_INT(system("echo '{\"format\":1}' >cut2/job.json"), 0);
	CHECK(job_open("cut2", &err) == NULL);
	CHECK_HAS(err.msg, "cut2/job.json");
	err_clear(&err);
}

/* What verify says after an edit of a merged file. */
static void check_verify(const char *edit, const char *says)
{
	struct err err = {0};
	struct job *j;

	CHECK_INT(system("rm -rf edited && cp -r good edited"), 0);
	CHECK_INT(system(edit), 0);
	j = job_open("edited", &err);
	CHECK_INT(job_verify(j, &err), -1);
	CHECK_HAS(err.msg, says);
	job_close(j);
}

TEST(verify)
{
	struct rig r = {.n_rows = 100, .bad_every = 20, .pad_bytes = 30, .rows_per_shard = 30};
	struct err err = {0};
	struct job *j;

	CHECK_OK(rig_plan("good", &r, &err), err);
	j = job_open("good", &err);
	CHECK_INT(rig_work(j, &rig_worker, &r, 40, INT64_MAX, &err), 95);
	job_close(j);
	merge_and_check("good", &r);
	check_verify("sed -i '/row-42\"/d' edited/merged/results.jsonl", "row 42 (key \"row-42\", in.jsonl:43) is missing");
	check_verify("sed -i '/row-42\"/p' edited/merged/results.jsonl", "row 42 (key \"row-42\") stands there a second time");
	check_verify("sed -i 's/\\(row-42\".*\\) /\\1x/' edited/merged/results.jsonl", "row 42 (key \"row-42\", in.jsonl:43) is altered");
	check_verify("sed -i 's/row-42\"/row-142\"/' edited/merged/results.jsonl", "row 42 (key \"row-42\", in.jsonl:43) is altered");
	check_verify("sed -i '/row-17\"/d' edited/merged/errors.jsonl", "row 17 (key \"row-17\", in.jsonl:18) is missing");
	check_verify("sed -i 's/row-19\"/row-x\"/' edited/merged/errors.jsonl", "row 19 (key \"row-19\", in.jsonl:20) is altered");
	check_verify("sed -i '$d' edited/merged/errors.jsonl", "row 99 (key \"row-99\", in.jsonl:100) is missing");
	check_verify("echo '{\"custom_id\":\"row-3\"}' >>edited/merged/results.jsonl", "row 3 (key \"row-3\") stands there a second time");
	check_verify("echo '{\"custom_id\":\"new\"}' >>edited/merged/results.jsonl", "belongs to no row");
	check_verify("printf x >>edited/merged/results.jsonl", "is cut off");
	check_verify("sed -i 's/\"root\":\"..../\"root\":\"0000/' edited/merged/manifest.json", "its root is not");
	check_verify("sed -i 's/\"ok\":/\"ok\":1/' edited/merged/usage.json", "is not the sum");
	check_verify("sed -i 's/\"m\"/\"n\"/' edited/merged/usage.json", "does not describe usage.json");
	check_verify("rm edited/merged/errors.jsonl", "errors.jsonl");
	check_verify("rm edited/results.jsonl", "edited/results.jsonl: is missing");
	check_verify("sed -i 3d edited/results.jsonl", "edited/results.jsonl: is not what was merged");
	check_verify("rm edited/usage.json && echo '{}' >edited/usage.json", "edited/usage.json: is not what was merged");
	CHECK_INT(system("cp -rL good plain"), 0); /* files where links were, the same bytes */
	j = job_open("plain", &err);
	CHECK_OK(job_verify(j, &err), err);
	job_close(j);
	j = job_open("good", &err);
	CHECK_OK(job_verify(j, &err), err);
	job_close(j);
}

TEST(foreign_directory)
{
	struct err err = {0};

	CHECK_INT(system("mkdir foreign && echo hello >foreign/results.jsonl"), 0);
	CHECK(job_plan_begin("foreign", &err) == NULL);
	CHECK_INT(err.code, ERR_INPUT);
	CHECK_HAS(err.msg, "results.jsonl");
	err_clear(&err);
	CHECK_INT(system("echo x >plainfile"), 0);
	CHECK(job_plan_begin("plainfile", &err) == NULL);
	err_clear(&err);
	CHECK(job_open("nowhere", &err) == NULL);
	CHECK_INT(err.code, ERR_USAGE);
	CHECK_HAS(err.msg, "nowhere is not a job: there is no nowhere/job.json");
}

TEST(plan_twice)
{
	struct rig r = {.n_rows = 10, .pad_bytes = 20};
	struct err err = {0};
	struct job_plan *p = job_plan_begin("twice", &err);

	CHECK(p != NULL);
	CHECK(job_plan_begin("twice", &err) == NULL);
	CHECK_INT(err.code, ERR_RETRY);
	CHECK_HAS(err.msg, "is being planned by process");
	err_clear(&err);
	job_plan_abort(p);
	CHECK_OK(rig_plan("twice", &r, &err), err);
	CHECK_INT(rig_plan("twice", &r, &err), -1);
	CHECK_HAS(err.msg, "is planned already");
	err_clear(&err);
	/* Nothing of the planning is left. */
	CHECK_INT(system("test \"$(ls twice | sed s/plan-0001-.*/plan-0001/ | tr '\\n' ' ')\" = 'job.json plan-0001 plan.db shards '"), 0);
	/* A planner elsewhere may be alive. */
	CHECK_INT(system("mkdir far"), 0);
	write_claim("far/plan-claim-0001", 0, "elsewhere");
	CHECK(job_plan_begin("far", &err) == NULL);
	CHECK_HAS(err.msg, "remove plan-claim-0001");
	err_clear(&err);
}

/* Writes fail beyond some size of file, in a child: nothing published is harmed, and the next run goes on. */
TEST(disk_full)
{
	struct rig r = {.n_rows = 3000, .pad_bytes = 400, .rows_per_shard = 1500};
	struct err err = {0};
	struct job *j;

	for (int limit_kb = 16; limit_kb <= 4096; limit_kb *= 2) {
		int status;
		pid_t pid;

		fflush(stdout);
		pid = fork();
		if (pid == 0) {
			struct rlimit limit = {(rlim_t)limit_kb << 10, (rlim_t)limit_kb << 10};
			int rc = 0;

			signal(SIGXFSZ, SIG_IGN);
			setrlimit(RLIMIT_FSIZE, &limit);
			if (!job_is_planned("full", NULL))
				rc = rig_plan("full", &r, &err);
			j = rc == 0 ? job_open("full", &err) : NULL;
			rc = j ? 0 : -1;
			/* Steps of 100 rows fit early, the last publish of all the rest only later. */
			if (rc == 0 && rig_work(j, &rig_worker, &r, 100, 300, &err) < 0)
				rc = -1;
			if (rc == 0 && rig_work(j, &rig_worker, &r, INT64_MAX, INT64_MAX, &err) < 0)
				rc = -1;
			if (rc == 0 && job_merge(j, NULL, &err) < 0)
				rc = -1;
			if (rc < 0 && err.code != ERR_STORAGE)
				printf("limit %d KiB: %s\n", limit_kb, err.msg);
			_exit(rc == 0 ? 0 : err.code == ERR_STORAGE ? 74 : 1);
		}
		waitpid(pid, &status, 0);
		CHECK(WIFEXITED(status));
		CHECK_INT(WEXITSTATUS(status), limit_kb == 4096 ? 0 : WEXITSTATUS(status) == 0 ? 0 : 74);
		if (limit_kb == 16)
			CHECK_INT(WEXITSTATUS(status), 74);
	}
	merge_and_check("full", &r);
	CHECK_INT(system("test -z \"$(find full -name '*.tmp-*' -o -name 'planning*' -o -name 'merging*')\""), 0);
}

/* A file system that is really full, in its own mount name space, and grows a little after each failure. */
TEST(small_disk)
{
	struct rig r = {.n_rows = 3000, .pad_bytes = 400, .rows_per_shard = 1000};
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		int n_failed = 0;
		int64_t n_done = 0;

		mkdir("small", 0777);
		if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
		    mount("none", "small", "tmpfs", 0, "size=64k") < 0)
			_exit(77);
		for (int kb = 64; kb < 16384; kb += 256) {
			struct err err = {0};
			char size[32];
			struct job *j = NULL;
			int rc = 0;

			snprintf(size, sizeof(size), "size=%dk", kb);
			if (mount("none", "small", "tmpfs", MS_REMOUNT, size) < 0)
				_exit(1);
			if (!job_is_planned("small/job", NULL))
				rc = rig_plan("small/job", &r, &err);
			if (rc == 0)
				rc = (j = job_open("small/job", &err)) ? 0 : -1;
			if (j) {
				int64_t n = job_n_done_rows(j, &err);

				/* What was published stays. */
				CHECK(n >= n_done);
				n_done = n;
			}
			if (rc == 0 && rig_work(j, &rig_worker, &r, 100, INT64_MAX, &err) < 0)
				rc = -1;
			if (rc == 0)
				rc = job_merge(j, NULL, &err);
			job_close(j);
			if (rc == 0)
				break;
			n_failed++;
			if (err.code != ERR_STORAGE)
				printf("%d KiB: code %d: %s\n", kb, err.code, err.msg), check_failed_now = 1;
		}
		CHECK(n_failed > 5);
		/* It merges again beside what is merged. */
		CHECK_INT(mount("none", "small", "tmpfs", MS_REMOUNT, "size=32m"), 0);
		merge_and_check("small/job", &r);
		/* Whole, and to be read only. */
		CHECK_INT(mount("none", "small", "tmpfs", MS_REMOUNT | MS_RDONLY, "size=32m"), 0);
		struct err err = {0};
		struct job *j = job_open("small/job", &err);
		CHECK_OK(j ? job_verify(j, &err) : -1, err);
		CHECK_INT(j ? job_merge(j, NULL, &err) : 0, -1);
		CHECK_INT(err.code, ERR_STORAGE);
		fflush(stdout);
		_exit(check_failed_now);
	}
	waitpid(pid, &status, 0);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		SKIP(small_disk, "cannot mount a tmpfs here");
	else
		CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* A publish that failed can be repeated. */
TEST(publish_again)
{
	struct rig r = {.n_rows = 300, .pad_bytes = 400, .rows_per_shard = 300};
	struct err err = {0};
	struct rlimit all, limit;
	struct job *j;
	struct shard *s;
	struct shard_row row;
	struct buf record = {0};

	CHECK_OK(rig_plan("again", &r, &err), err);
	j = job_open("again", &err);
	CHECK_INT(job_claim(j, &rig_worker, &s, &err), 1);
	for (int i = 0; i < 200; i++) {
		CHECK_INT(shard_next(s, &row, &err), 1);
		rig_result(s, &r, row.row, &record);
	}
	getrlimit(RLIMIT_FSIZE, &all);
	signal(SIGXFSZ, SIG_IGN);
	limit = (struct rlimit){32768, all.rlim_max};
	setrlimit(RLIMIT_FSIZE, &limit);
	CHECK_INT(shard_publish(s, &err), -1);
	CHECK_INT(err.code, ERR_STORAGE);
	err_clear(&err);
	setrlimit(RLIMIT_FSIZE, &all);
	while (shard_next(s, &row, &err) == 1)
		rig_result(s, &r, row.row, &record);
	CHECK_OK(shard_publish(s, &err), err);
	CHECK_INT(shard_is_done(s), 1);
	shard_close(s);
	job_close(j);
	merge_and_check("again", &r);
	buf_release(&record);
}

TEST(attempts)
{
	struct attempt a = {.id = "a/b c", .worker = 3, .host = "node-7", .pid = 12, .beat = 2, .load_s = 1.5, .rows = 9, .output_tokens = 70,
		.spent_usd = 0.25, .state = ATTEMPT_RUNNING, .end_code = "none"}, *all;
	struct err err = {0};
	struct store *s = store_open("attempts", &err);
	size_t n;

	CHECK_OK(store_prepare(s, &err), err);
	CHECK_OK(attempt_write(s, &a, &err), err);
	CHECK(file_exists("attempts/events/0003-a_b_c.json"));
	a.beat = 3;
	a.state = ATTEMPT_ENDED;
	snprintf(a.end, sizeof(a.end), "said \"no\"");
	CHECK_OK(attempt_write(s, &a, &err), err);
	CHECK_OK(attempt_read_all(s, &all, &n, &err), err);
	CHECK_INT(n, 1);
	if (n == 1)
		CHECK(memcmp(&all[0], &a, sizeof(a)) == 0);
	free(all);
	CHECK_INT(attempt_read(s, "0004-x.json", &a, &err), 0);
	CHECK_OK(store_put(s, "events/0004-x.json", "{\"attempt\":1}", 13, &err), err);
	CHECK_INT(attempt_read(s, "0004-x.json", &a, &err), -1);
	store_close(s);
}

/* Seconds since the last lap, by the clock and of processor time: machines are shared. */
struct lap {
	double wall, cpu;
};

static double cpu_seconds(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

static struct lap lap(struct lap *since)
{
	struct lap now = {clock_seconds(), cpu_seconds()}, t = {now.wall - since->wall, now.cpu - since->cpu};

	*since = now;
	return t;
}

static void print_rate(const char *what, double amount, const char *unit, struct lap t)
{
	printf("%-28s %8.2f s %10.0f %s/s   (cpu %.2f s, %.0f %s/s)\n", what, t.wall, amount / t.wall, unit, t.cpu, amount / t.cpu, unit);
}

static void run_scale(int64_t n_rows, size_t bytes, int print)
{
	struct rig r = {.n_rows = n_rows, .bad_every = 1000, .pad_bytes = bytes};
	struct rig one = {.n_rows = n_rows / 2, .pad_bytes = bytes, .rows_per_shard = n_rows / 2};
	struct err err = {0};
	struct job *j;
	struct shard *s;
	struct shard_row row;
	struct stat st = {0};
	struct buf record = {0};
	struct lap t = {0}, t_rig, t_plan, t_run, t_resume, t_merge, t_verify;
	int64_t n = 0;
	double mb;

	lap(&t);
	for (int64_t i = 0; i < n_rows; i++) {
		rig_input(&record, &r, i);
		rig_record(&record, &r, i);
	}
	t_rig = lap(&t);
	CHECK_OK(rig_plan("scale", &r, &err), err);
	t_plan = lap(&t);
	j = job_open("scale", &err);
	CHECK(j != NULL);
	if (!j)
		return;
	n = rig_work(j, &rig_worker, &r, 20000, INT64_MAX, &err);
	CHECK_INT(n, job_n_rows(j) - job_n_bad_rows(j));
	t_run = lap(&t);
	job_close(j);
	/* Resume one shard with all rows but one. */
	CHECK_OK(rig_plan("resume", &one, &err), err);
	j = job_open("resume", &err);
	CHECK_INT(rig_work(j, &rig_worker, &one, 500, one.n_rows - 1, &err), one.n_rows - 1);
	job_close(j);
	lap(&t);
	j = job_open("resume", &err);
	CHECK_INT(job_claim(j, &rig_worker, &s, &err), 1);
	CHECK_INT(shard_n_done(s), one.n_rows - 1);
	CHECK_INT(shard_next(s, &row, &err), 1);
	t_resume = lap(&t);
	shard_close(s);
	job_close(j);
	j = job_open("scale", &err);
	lap(&t);
	CHECK_OK(job_merge(j, NULL, &err), err);
	t_merge = lap(&t);
	CHECK_OK(job_verify(j, &err), err);
	t_verify = lap(&t);
	job_close(j);
	stat("scale/results.jsonl", &st);
	mb = (double)st.st_size * 1e-6;
	stat("scale/errors.jsonl", &st);
	mb += (double)st.st_size * 1e-6;
	if (print) {
		printf("%" PRId64 " rows, inputs of %zu bytes, results %.0f MB\n", n_rows, bytes, mb);
		print_rate("(making inputs and records)", (double)n_rows, "rows", t_rig);
		print_rate("plan", (double)n_rows, "rows", t_plan);
		print_rate("run and publish", (double)n, "rows", t_run);
		print_rate("resume a shard", (double)one.n_rows, "rows", t_resume);
		print_rate("merge", mb, "MB", t_merge);
		print_rate("verify", mb, "MB", t_verify);
		printf("peak memory %.0f MB\n", (double)mem_peak_bytes() * 1e-6);
	}
	buf_release(&record);
	rig_remove("scale");
	rig_remove("resume");
}

TEST(scale)
{
	run_scale(20000, 200, 0);
}

int main(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], "bench") == 0) {
		run_scale(argc > 2 ? atoll(argv[2]) : 200000, argc > 3 ? (size_t)atoll(argv[3]) : 1000, 1);
		return check_failed_now;
	}
	RUN(round_trip);
	RUN(run_order);
	RUN(duplicate_keys);
	RUN(canonical_hash);
	RUN(empty_and_bad_only);
	RUN(partial_states);
	RUN(claim_order);
	RUN(fenced);
	RUN(epochs_disagree);
	RUN(damaged_segment);
	RUN(damaged_input);
	RUN(verify);
	RUN(foreign_directory);
	RUN(plan_twice);
	RUN(disk_full);
	RUN(small_disk);
	RUN(publish_again);
	RUN(attempts);
	RUN(scale);
	return TEST_RESULT();
}
