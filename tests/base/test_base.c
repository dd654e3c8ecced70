/* Tests of base/: errors, buffers, json glue, files, workers. */
#include "base/aside.h"
#include "base/buf.h"
#include "base/errors.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/workers.h"
#include "tests/check.h"

TEST(errors)
{
	struct err e = {0};

	CHECK_INT(err_set(&e, ERR_INPUT, "row %d: too long", 7), -1);
	err_set(&e, ERR_MODEL, "second failure");
	err_context(&e, "shard %d", 3);
	CHECK_STR(e.msg, "shard 3: row 7: too long");
	CHECK_INT(e.code, ERR_INPUT);
	CHECK_INT(err_exit_code(e.code), 64);
}

TEST(errors_long_message)
{
	struct err e = {0};
	struct buf b = {0};

	for (int i = 0; i < 600; i++)
		buf_adds(&b, "é");
	err_set(&e, ERR_ROW, "x%s", b.data);
	CHECK(strlen(e.msg) < sizeof(e.msg));
	CHECK_INT((unsigned char)e.msg[strlen(e.msg) - 1], 0xA9);
	buf_release(&b);
}

TEST(buf)
{
	struct buf b = {0};

	CHECK_STR(buf_str(&b), "");
	for (int i = 0; i < 1000; i++)
		buf_addf(&b, "%d,", i);
	CHECK_INT(b.len, 3890);
	CHECK_INT(strlen(b.data), b.len);
	buf_release(&b);
}

TEST(json)
{
	struct err e = {0};
	struct buf b = {0};
	const char *s = "{\"b\":1.0,\"a\":[true,null,\"\\u00e9\\n\"],\"c\":1.5}";
	const char *unique = "[{\"a\":1,\"b\":{\"a\":2}},{\"a\":3}]";
	const char *twice = "[{\"a\":1,\"b\":{\"x\":2,\"ab\":3,\"\\u0078\":4}}]";
	yyjson_doc *d = json_parse(s, strlen(s), ERR_INPUT, &e);

	CHECK(d != NULL);
	json_write_canonical(&b, yyjson_doc_get_root(d));
	CHECK_STR(b.data, "{\"a\":[true,null,\"é\\n\"],\"b\":1,\"c\":1.5}");
	CHECK(json_depth_within(yyjson_doc_get_root(d), 2));
	CHECK(!json_depth_within(yyjson_doc_get_root(d), 1));
	yyjson_doc_free(d);
	d = json_parse(unique, strlen(unique), ERR_INPUT, &e);
	CHECK(json_find_duplicate(yyjson_doc_get_root(d)) == NULL);
	yyjson_doc_free(d);
	d = json_parse(twice, strlen(twice), ERR_INPUT, &e);
	CHECK_STR(yyjson_get_str(json_find_duplicate(yyjson_doc_get_root(d))), "x");
	yyjson_doc_free(d);
	CHECK(json_parse("{\"a\":}", 6, ERR_INPUT, &e) == NULL);
	CHECK_INT(e.code, ERR_INPUT);
	buf_reset(&b);
	json_write_string(&b, "a\x80z\xed\xa0\x80\x01", 7);
	CHECK_STR(b.data, "\"a\xEF\xBF\xBDz\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\\u0001\"");
	buf_release(&b);
}

TEST(files)
{
	struct err e = {0};
	struct buf b = {0};
	char hex[SHA256_HEX_BYTES];

	CHECK_INT(file_make_dirs("a/b/c", &e), 0);
	CHECK_INT(file_write_atomic("a/b/c/f", "hello", 5, &e), 0);
	CHECK_INT(file_read("a/b/c/f", 100, &b, ERR_INPUT, &e), 0);
	CHECK_STR(b.data, "hello");
	CHECK_INT(e.code, ERR_NONE);
	CHECK_INT(file_read("a/none", 100, &b, ERR_INPUT, &e), -1);
	CHECK(strstr(e.msg, "a/none") != NULL);
	sha256_hex("abc", 3, hex);
	CHECK_STR(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	buf_release(&b);
}

struct sum {
	struct work_counter next;
	struct workers *w;
	atomic_long total;
	atomic_int phase_errors;
	atomic_int arrived;
};

static void add_up(void *arg, int thread, int n_threads)
{
	struct sum *s = arg;
	size_t i;

	while ((i = work_counter_take(&s->next, 1)) < 1000)
		atomic_fetch_add(&s->total, (long)i);
	atomic_fetch_add(&s->arrived, 1);
	workers_barrier(s->w);
	if (atomic_load(&s->arrived) != n_threads)
		atomic_fetch_add(&s->phase_errors, 1);
	workers_barrier(s->w);
	(void)thread;
}

TEST(workers)
{
	struct err e = {0};

	for (int n = 1; n <= 5; n += 2) {
		struct workers *w = workers_new(n, &e);

		for (int round = 0; round < 50; round++) {
			struct sum s = {.w = w};

			workers_run(w, add_up, &s);
			CHECK_INT(s.total, 499500);
			CHECK_INT(s.phase_errors, 0);
		}
		workers_free(w);
	}
	CHECK(workers_available_cpus() >= 1);
}

struct addition {
	uint64_t total;
	int next;
};

static void add_next(void *arg)
{
	struct addition *s = arg;

	s->total += (uint64_t)s->next;
}

/* One piece of work at a time, each seen by the owner once it has waited. */
TEST(aside)
{
	struct err err = {0};
	struct aside *a = aside_new(&err);
	struct addition s = {0};

	CHECK(a != NULL);
	aside_wait(a);
	for (int i = 1; i <= 10000; i++) {
		aside_wait(a);
		s.next = i;
		aside_start(a, add_next, &s);
	}
	aside_wait(a);
	CHECK_INT(s.total, 50005000);
	s.next = 7;
	aside_start(a, add_next, &s);
	aside_free(a);
	CHECK_INT(s.total, 50005007);
	aside_free(NULL);
}

int main(void)
{
	RUN(errors);
	RUN(errors_long_message);
	RUN(buf);
	RUN(json);
	RUN(files);
	RUN(workers);
	RUN(aside);
	return TEST_RESULT();
}
