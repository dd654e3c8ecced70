/* A worker's last words: what they hold, and that they never get too long. */
#include "tests/check.h"

#include "base/json.h"
#include "base/mem.h"
#include "runner/termination.h"

static const char *text(yyjson_doc *d, const char *name)
{
	return yyjson_get_str(yyjson_obj_get(yyjson_doc_get_root(d), name));
}

static long long number(yyjson_doc *d, const char *name)
{
	return yyjson_get_sint(yyjson_obj_get(yyjson_doc_get_root(d), name));
}

TEST(members)
{
	struct attempt a = {.id = "uid-1", .worker = 3, .rows = 10, .rows_failed = 2, .prompt_tokens = 100, .cached_tokens = 30, .output_tokens = 50, .busy_s = 1.5};
	struct termination t = {.status = 74, .name = "storage", .message = "a \"disk\"\nfull", .attempt = &a, .seconds = 2.25};
	struct buf b = {0};
	struct err err = {0};
	yyjson_doc *d;

	termination_json(&t, &b);
	d = json_parse(b.data, b.len, ERR_OTHER, &err);
	CHECK_STR(err.msg, "");
	CHECK_INT(number(d, "exit_code"), 74);
	CHECK_STR(text(d, "exit_name"), "storage");
	CHECK_STR(text(d, "message"), "a \"disk\"\nfull");
	CHECK_STR(text(d, "attempt"), "uid-1");
	CHECK_INT(number(d, "worker"), 3);
	CHECK_INT(number(d, "rows_failed"), 2);
	CHECK_INT(number(d, "output_tokens"), 50);
	yyjson_doc_free(d);
	buf_release(&b);
}

/* Of messages that grow when they are quoted as much is kept as has room, in whole characters. */
TEST(long_messages)
{
	static const char *const pieces[] = {"\x01", "\"", "x", "\xC3\xA9", "\xF0\x9F\x99\x82", "\xE6\x95\xB0\x01"};
	struct attempt a = {.id = "0123456789-0123456789-0123456789-0123456789-0123456789", .prompt_tokens = INT64_MAX};

	for (size_t i = 0; i < sizeof(pieces) / sizeof(*pieces); i++) {
		for (size_t n = 1; n < 5000; n = n * 3 / 2 + 1) {
			struct buf message = {0}, b = {0};
			struct termination t = {.status = 1, .name = "other", .attempt = &a};
			struct err err = {0};
			yyjson_doc *d;

			for (size_t k = 0; k < n; k++)
				buf_adds(&message, pieces[i]);
			t.message = message.data;
			termination_json(&t, &b);
			CHECK(b.len < TERMINATION_BYTES);
			d = json_parse(b.data, b.len, ERR_OTHER, &err);
			CHECK_STR(err.msg, "");
			if (d) {
				const char *kept = text(d, "message");
				size_t n_kept = strlen(kept);

				CHECK(strncmp(kept, message.data, n_kept) == 0);
				CHECK(n_kept == message.len || b.len > TERMINATION_BYTES * 3 / 4 || n_kept > 500);
			}
			yyjson_doc_free(d);
			buf_release(&message);
			buf_release(&b);
		}
	}
}

TEST(statuses)
{
	struct err err = {.code = ERR_MODEL};

	CHECK_INT(termination_status(-1, &err), 66);
	CHECK_INT(termination_status(0, &err), 0);
	CHECK_INT(termination_status(137, &err), 137);
}

int main(void)
{
	RUN(members);
	RUN(long_messages);
	RUN(statuses);
	return TEST_RESULT();
}
