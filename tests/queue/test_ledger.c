/* Tests of what a merge says beside the results: ledger.db, usage.json and the manifest balance; results of an unfinished or closed job; rows that
 * are folded into others. ledger.db is read with plain SQL here, as others read it. */
#include "tests/check.h"

#include <sqlite3.h>

#include "base/json.h"
#include "queue/attempt.h"
#include "tests/queue/job_rig.h"

/* First column of the first row, as text; "?" when there is none. */
static const char *ask(const char *path, const char *sql)
{
	static char answers[8][4096];
	static int next;
	char *answer = answers[next++ % 8];
	sqlite3 *db = NULL;
	sqlite3_stmt *s = NULL;

	snprintf(answer, 4096, "?");
	if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL) == SQLITE_OK && sqlite3_prepare_v2(db, sql, -1, &s, NULL) == SQLITE_OK &&
	    sqlite3_step(s) == SQLITE_ROW)
		snprintf(answer, 4096, "%s", sqlite3_column_text(s, 0) ? (const char *)sqlite3_column_text(s, 0) : "NULL");
	else
		printf("%s: %s: %s\n", path, sql, sqlite3_errmsg(db));
	sqlite3_finalize(s);
	sqlite3_close(db);
	return answer;
}

static void tell(const char *path, const char *sql)
{
	sqlite3 *db = NULL;
	char *message = NULL;

	CHECK(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL) == SQLITE_OK);
	if (sqlite3_exec(db, sql, NULL, NULL, &message) != SQLITE_OK)
		printf("%s: %s: %s\n", path, sql, message), check_failed_now = 1;
	sqlite3_free(message);
	sqlite3_close(db);
}

static int64_t member(const char *path, const char *pointer)
{
	struct buf text = {0};
	struct err err = {0};
	yyjson_doc *doc = NULL;
	int64_t v = -1;

	if (file_read(path, 1 << 20, &text, ERR_STORAGE, &err) == 0 && (doc = json_parse(text.data, text.len, ERR_STORAGE, &err)))
		v = yyjson_is_bool(yyjson_ptr_get(yyjson_doc_get_root(doc), pointer)) ? yyjson_get_bool(yyjson_ptr_get(yyjson_doc_get_root(doc), pointer))
		                                                                     : yyjson_get_sint(yyjson_ptr_get(yyjson_doc_get_root(doc), pointer));
	else
		printf("%s\n", err.msg);
	yyjson_doc_free(doc);
	buf_release(&text);
	return v;
}

/* Rows = shards = job, and usage.json says the same. */
static void check_balance(const char *dir)
{
	static const char *const columns[] = {"prompt", "cached", "output", "reasoning", "recomputed"};
	char path[256], usage[256];

	snprintf(path, sizeof(path), "%s/merged/ledger.db", dir);
	snprintf(usage, sizeof(usage), "%s/merged/usage.json", dir);
	for (int i = 0; i < 5; i++) {
		char rows[200], shards[200], pointer[64];

		snprintf(rows, sizeof(rows), "SELECT coalesce(SUM(%s_tokens), 0) FROM charge", columns[i]);
		snprintf(shards, sizeof(shards), "SELECT coalesce(SUM(%s_tokens), 0) FROM shard_total", columns[i]);
		snprintf(pointer, sizeof(pointer), "/tokens/%s", columns[i]);
		CHECK_STR(ask(path, shards), ask(path, rows));
		CHECK_INT(atoll(ask(path, rows)), member(usage, pointer));
	}
	CHECK_STR(ask(path, "SELECT COUNT(*) FROM charge c LEFT JOIN tag USING(tags) WHERE json IS NULL"), "0");
	CHECK_STR(ask(path, "SELECT COUNT(*) FROM (SELECT shard, COUNT(*) n, SUM(status=1) f, SUM(output_tokens) o FROM charge WHERE shard IS NOT NULL"
	                    " GROUP BY shard) x LEFT JOIN shard_total t USING(shard) WHERE x.n IS NOT t.n_rows OR x.f IS NOT t.n_failed OR x.o IS NOT"
	                    " t.output_tokens"), "0");
}

static struct job *open_job(const char *dir)
{
	struct err err = {0};
	struct job *j = job_open(dir, &err);

	if (!j)
		printf("%s\n", err.msg), check_failed_now = 1;
	return j;
}

TEST(ledger)
{
	struct rig r = {.n_rows = 1000, .bad_every = 13, .pad_bytes = 100, .rows_per_shard = 90};
	struct attempt a = {.id = "attempt-0", .worker = 0, .host = "node-7", .node_type = "h100", .load_s = 1.5, .rows = 924, .prompt_tokens = 77,
		.peak_bytes = 5, .state = ATTEMPT_ENDED, .end_code = "none"};
	struct err err = {0};
	struct job *j;

	CHECK_OK(rig_plan("a", &r, &err), err);
	j = open_job("a");
	CHECK_OK(attempt_write(job_store(j), &a, &err), err);
	CHECK_INT(rig_work(j, &rig_worker, &r, 50, 924 / 2, &err), 924 / 2);
	/* What is published so far. */
	CHECK_OK(job_ledger(j, "so-far.db", &err), err);
	CHECK_STR(ask("so-far.db", "SELECT COUNT(*) FROM charge WHERE status < 2"), "462");
	CHECK_STR(ask("so-far.db", "SELECT COUNT(*) FROM charge WHERE status = 2"), "76");
	CHECK_STR(ask("so-far.db", "SELECT SUM(output_tokens) FROM charge"), "924");
	CHECK_STR(ask("so-far.db", "SELECT SUM(output_tokens) FROM shard_total"), "924");
	CHECK_STR(ask("so-far.db", "SELECT is_complete || ',' || n_rows FROM job"), "0,1000");
	CHECK(!file_exists("so-far.db.spill"));
	CHECK_INT(rig_work(j, &rig_worker, &r, 50, INT64_MAX, &err), 462);
	CHECK_OK(job_merge(j, NULL, &err), err);
	CHECK_OK(job_verify(j, &err), err);
	job_close(j);
	check_balance("a");
	CHECK_STR(ask("a/merged/ledger.db", "SELECT name || ',' || model || ',' || fingerprint || ',' || tags || ',' || is_complete FROM job"),
	          "a,m,f00,{},1");
	CHECK_STR(ask("a/merged/ledger.db", "SELECT group_concat(n) FROM (SELECT status || ':' || COUNT(*) n FROM charge GROUP BY status ORDER BY 1)"),
	          "0:832,1:92,2:76");
	CHECK_STR(ask("a/merged/ledger.db", "SELECT COUNT(*) FROM charge WHERE (status = 2) <> (shard IS NULL AND finished_ms IS NULL)"), "0");
	CHECK_STR(ask("a/merged/ledger.db", "SELECT COUNT(*) FROM claim WHERE attempt = 'attempt-0'"), ask("a/merged/ledger.db", "SELECT COUNT(*) FROM claim"));
	CHECK_STR(ask("a/merged/ledger.db", "SELECT COUNT(*) >= 11 FROM claim"), "1");
	CHECK_STR(ask("a/merged/ledger.db", "SELECT id || worker || host || node_type || load_s || ',' || rows || ',' || prompt_tokens || ',' ||"
	                                    " peak_bytes || ',' || state || end_code FROM attempt WHERE prompt_tokens > 77"),
	          ask("a/merged/ledger.db", "SELECT 'attempt-00node-7h1001.5,924,' || sum(prompt_tokens) || ',5,2none' FROM charge WHERE status < 2"));
	CHECK_STR(ask("a/merged/ledger.db", "PRAGMA application_id"), "1953328231");
	CHECK_INT(member("a/merged/manifest.json", "/complete"), 1);
	CHECK_INT(member("a/merged/manifest.json", "/ok"), 832);
	CHECK_INT(member("a/merged/manifest.json", "/failed"), 168);
	CHECK(member("a/merged/manifest.json", "/files/ledger.db/bytes") > 16384);
}

static void close_line(void *context, struct buf *out, const char *key, size_t n_key, const char *code)
{
	buf_addf(out, "{\"custom_id\":\"%.*s\",\"closed\":\"%s\"}", (int)n_key, key, code);
}

static int rename_line(void *context, struct buf *out, const char *line, size_t n_line, const char *key, size_t n_key, struct err *err)
{
	const char *comma = memchr(line, ',', n_line);

	if (!comma)
		return err_set(err, ERR_STORAGE, "no record");
	buf_addf(out, "{\"custom_id\":\"%.*s\"%.*s", (int)n_key, key, (int)(line + n_line - comma), comma);
	return 0;
}

static const struct job_lines lines = {.closed = close_line, .renamed = rename_line};

static const char *shell(const char *command)
{
	static char answer[1024];
	FILE *f = popen(command, "r");
	size_t n = fread(answer, 1, sizeof(answer) - 1, f);

	while (n > 0 && answer[n - 1] == '\n')
		n--;
	answer[n] = 0;
	pclose(f);
	return answer;
}

TEST(partial)
{
	struct rig r = {.n_rows = 500, .bad_every = 10, .pad_bytes = 100, .rows_per_shard = 100};
	struct err err = {0};
	struct job *j;

	CHECK_OK(rig_plan("p", &r, &err), err);
	j = open_job("p");
	job_set_lines(j, &lines);
	/* Nothing at all was run. */
	CHECK_OK(job_merge_partial(j, NULL, NULL, &err), err);
	CHECK_STR(shell("cat p/results.jsonl p/errors.jsonl | wc -l"), "50");
	CHECK_INT(rig_work(j, &rig_worker, &r, 30, 230, &err), 230);
	CHECK_OK(job_merge_partial(j, NULL, NULL, &err), err);
	CHECK_INT(job_is_merged(j, &err), 0);
	CHECK_OK(job_verify(j, &err), err);
	CHECK_STR(shell("cat p/results.jsonl p/errors.jsonl | wc -l"), "280");
	CHECK_INT(member("p/merged/manifest.json", "/complete"), 0);
	CHECK_INT(member("p/merged/manifest.json", "/left_out"), 220);
	CHECK_INT(member("p/merged/manifest.json", "/rows"), 500);
	CHECK_INT(member("p/merged/usage.json", "/rows/total"), 280);
	check_balance("p");
	CHECK_STR(ask("p/merged/ledger.db", "SELECT is_complete || ',' || (SELECT COUNT(*) FROM charge) FROM job"), "0,280");
	/* Closed: every row has one record. */
	CHECK_OK(job_merge_partial(j, "budget_exhausted", NULL, &err), err);
	CHECK_INT(job_is_merged(j, &err), 0);
	CHECK_OK(job_verify(j, &err), err);
	CHECK_STR(shell("cat p/results.jsonl p/errors.jsonl | sed 's/.*\"\\(row-[0-9]*\\)\".*/\\1/' | sort -u | wc -l"), "500");
	CHECK_STR(shell("cat p/results.jsonl p/errors.jsonl | wc -l"), "500");
	CHECK_STR(shell("grep -c '\"closed\":\"budget_exhausted\"' p/errors.jsonl"), "220");
	CHECK_INT(member("p/merged/manifest.json", "/closed"), 220);
	CHECK_STR(ask("p/merged/ledger.db", "SELECT is_complete || ',' || (SELECT COUNT(*) FROM charge) FROM job"), "0,280");
	check_balance("p");
	/* A raised cap: it simply goes on. */
	CHECK_INT(rig_work(j, &rig_worker, &r, 30, INT64_MAX, &err), 220);
	CHECK_INT(job_verify(j, &err), -1); /* what is merged is no longer all there is */
	err_clear(&err);
	CHECK_OK(job_merge(j, NULL, &err), err);
	CHECK_INT(job_is_merged(j, &err), 1);
	CHECK_OK(job_verify(j, &err), err);
	CHECK(rig_check("p", &r));
	/* A whole merge is not replaced by less. */
	CHECK_OK(job_merge_partial(j, "batch_expired", NULL, &err), err);
	CHECK(rig_check("p", &r));
	job_close(j);
}

/* Row 19 stands for what the plan folded into row 3 and comes after it; row 3 failed or not. */
TEST(folded)
{
	struct rig r = {.n_rows = 60, .bad_every = 20, .pad_bytes = 40, .rows_per_shard = 20};
	struct err err = {0};
	struct job *j;

	CHECK_OK(rig_plan("f", &r, &err), err);
	tell("f/plan.db", "UPDATE row SET error = NULL, same_as = 3 WHERE row IN (19, 59); UPDATE row SET error = NULL, same_as = 27 WHERE row = 39");
	j = open_job("f");
	CHECK_INT(rig_work(j, &rig_worker, &r, 30, INT64_MAX, &err), 57);
	CHECK_INT(job_merge(j, NULL, &err), -1);
	CHECK(strstr(err.msg, "row 19") && strstr(err.msg, "folded"));
	err_clear(&err);
	job_set_lines(j, &lines);
	CHECK_OK(job_merge(j, NULL, &err), err);
	CHECK_OK(job_verify(j, &err), err);
	CHECK_STR(shell("sed -n 's/row-19\"/row-3\"/p' f/results.jsonl"), shell("grep 'row-3\"' f/results.jsonl"));
	CHECK_STR(shell("grep -c '\"row-\\(3\\|19\\|59\\)\"' f/results.jsonl"), "3");
	CHECK_STR(shell("grep -c '\"row-\\(27\\|39\\)\"' f/errors.jsonl"), "2");
	CHECK_STR(ask("f/merged/ledger.db", "SELECT group_concat(row || ':' || coalesce(shard, '-') || prompt_tokens) FROM charge WHERE status = 3"),
	          "19:-0,39:-0,59:-0");
	check_balance("f");
	job_close(j);
}

int main(void)
{
	RUN(ledger);
	RUN(partial);
	RUN(folded);
	return TEST_RESULT();
}
