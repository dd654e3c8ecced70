/* Files, compressed files, archives, globs and directories as lines. Compressed files and archives are made by libarchive's
 * writer here; scripts/check-openai.py and the README's examples feed files that gzip, zstd and tar wrote. */
#include "tests/check.h"

#include <archive.h>
#include <archive_entry.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/hash.h"
#include "runner/input.h"
#include "runner/input_path.h"

static void put(const char *path, const char *data, size_t n)
{
	struct err err = {0};

	CHECK_INT(file_write_atomic(path, data, n, &err), 0);
}

enum filter { PLAIN, GZIP, ZSTD };

static void add_filter(struct archive *a, enum filter f)
{
	if (f == GZIP)
		archive_write_add_filter_gzip(a);
	else if (f == ZSTD)
		archive_write_add_filter_zstd(a);
	else
		archive_write_add_filter_none(a);
}

struct member {
	const char *name, *data;
	size_t n;
};

/* raw: the one member's data without an archive around it. */
static void write_archive(const char *path, enum filter f, int raw, const struct member *m, size_t n)
{
	struct archive *a = archive_write_new();

	if (raw)
		archive_write_set_format_raw(a);
	else
		archive_write_set_format_pax_restricted(a);
	add_filter(a, f);
	CHECK_INT(archive_write_open_filename(a, path), ARCHIVE_OK);
	for (size_t i = 0; i < n; i++) {
		struct archive_entry *e = archive_entry_new();

		archive_entry_set_pathname(e, m[i].name);
		archive_entry_set_size(e, (la_int64_t)m[i].n);
		archive_entry_set_filetype(e, AE_IFREG);
		archive_entry_set_perm(e, 0644);
		CHECK_INT(archive_write_header(a, e), ARCHIVE_OK);
		CHECK_INT(archive_write_data(a, m[i].data, m[i].n), (long long)m[i].n);
		archive_entry_free(e);
	}
	CHECK_INT(archive_write_close(a), ARCHIVE_OK);
	archive_write_free(a);
}

/* "source:line=text|" for every line; an error's text at the end. */
static char *lines_of(const char *path, size_t max_line)
{
	struct err err = {0};
	struct input *in = input_open(path, max_line, &err);
	struct input_line l;
	struct buf b = {0};
	int r = -1;

	while (in && (r = input_next(in, &l, &err)) > 0)
		buf_addf(&b, "%s:%lld=%.*s%s|", l.source, (long long)l.line, (int)l.n, l.text, l.too_long ? "(too long)" : "");
	if (r < 0)
		buf_addf(&b, "error %d: %s", err.code, err.msg);
	input_close(in);
	return buf_detach(&b);
}

static void check_lines(const char *path, size_t max_line, const char *expected)
{
	char *got = lines_of(path, max_line);

	CHECK_STR(got, expected);
	free(got);
}

TEST(plain_lines)
{
	put("a.jsonl", "one\ntwo\r\n\n  \t\nfive", 18);
	check_lines("a.jsonl", 0, "a.jsonl:1=one|a.jsonl:2=two|a.jsonl:5=five|");
	put("b.jsonl", "\xEF\xBB\xBFone\n\xEF\xBB\xBFtwo\n", 14);
	check_lines("b.jsonl", 0, "b.jsonl:1=one|b.jsonl:2=\xEF\xBB\xBFtwo|");
	put("empty.jsonl", "", 0);
	check_lines("empty.jsonl", 0, "");
	put("bom.jsonl", "\xEF\xBB\xBF", 3);
	check_lines("bom.jsonl", 0, "");
	put("newlines.jsonl", "\n\n\n", 3);
	check_lines("newlines.jsonl", 0, "");
}

TEST(long_lines)
{
	struct buf b = {0};

	/* At the maximum, one over it, far over it, at the end of the file. */
	buf_adds(&b, "12345678\n123456789\nab\n");
	for (int i = 0; i < 200000; i++)
		buf_adds(&b, "0123456789");
	buf_adds(&b, "\ncd\n");
	put("long.jsonl", b.data, b.len);
	check_lines("long.jsonl", 8,
	            "long.jsonl:1=12345678|long.jsonl:2=12345678(too long)|long.jsonl:3=ab|long.jsonl:4=01234567(too "
	            "long)|long.jsonl:5=cd|");
	buf_truncate(&b, b.len - 4);
	put("long.jsonl", b.data, b.len);
	check_lines("long.jsonl", 8,
	            "long.jsonl:1=12345678|long.jsonl:2=12345678(too long)|long.jsonl:3=ab|long.jsonl:4=01234567(too long)|");
	buf_release(&b);
}

/* Lines of every length around the read buffer's size come through whole, and the digest is that of the file. */
TEST(lengths_and_digest)
{
	struct buf b = {0};
	struct err err = {0};
	struct input *in;
	struct input_line l;
	char hex[SHA256_HEX_BYTES], expected[SHA256_HEX_BYTES];
	int64_t n_bytes;
	size_t lengths[] = {1, 5, 262143, 262144, 262145, 524288, 1000000, 3, 262143, 1}, n = 0;

	for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
		for (size_t k = 0; k < lengths[i]; k++)
			buf_addc(&b, (char)('a' + (k + i) % 26));
		buf_addc(&b, '\n');
	}
	put("lengths.jsonl", b.data, b.len);
	in = input_open("lengths.jsonl", 0, &err);
	CHECK(in != NULL);
	while (in && input_next(in, &l, &err) > 0 && n < sizeof(lengths) / sizeof(*lengths)) {
		CHECK_INT(l.n, lengths[n]);
		for (size_t k = 0; k < l.n; k++)
			if (l.text[k] != (char)('a' + (k + n) % 26)) {
				CHECK(!"byte differs");
				break;
			}
		n++;
	}
	CHECK_INT(n, sizeof(lengths) / sizeof(*lengths));
	input_digest(in, hex, &n_bytes);
	sha256_hex(b.data, b.len, expected);
	CHECK_STR(hex, expected);
	CHECK_INT(n_bytes, b.len);
	input_close(in);
	buf_release(&b);
}

TEST(compressed)
{
	struct member one = {"data", "one\ntwo\n", 8};

	write_archive("a.jsonl.gz", GZIP, 1, &one, 1);
	check_lines("a.jsonl.gz", 0, "a.jsonl.gz:1=one|a.jsonl.gz:2=two|");
	write_archive("a.jsonl.zst", ZSTD, 1, &one, 1);
	check_lines("a.jsonl.zst", 0, "a.jsonl.zst:1=one|a.jsonl.zst:2=two|");
	/* By content, not by name. */
	CHECK_INT(rename("a.jsonl.gz", "really-gzip.txt"), 0);
	check_lines("really-gzip.txt", 0, "really-gzip.txt:1=one|really-gzip.txt:2=two|");
}

TEST(truncated)
{
	struct buf b = {0};
	struct member m = {"data", NULL, 0};
	struct err err = {0};
	char *got;

	for (int i = 0; i < 20000; i++)
		buf_addf(&b, "line %d %d\n", i, i * 7919);
	m.data = b.data;
	m.n = b.len;
	write_archive("t.gz", GZIP, 1, &m, 1);
	buf_reset(&b);
	CHECK_INT(file_read("t.gz", 1 << 20, &b, ERR_INPUT, &err), 0);
	put("t.gz", b.data, b.len / 2);
	got = lines_of("t.gz", 0);
	CHECK(strstr(got, "error 5: t.gz: cannot be read after line ") != NULL);
	free(got);
	buf_release(&b);
}

TEST(archives)
{
	struct member m[] = {{"d/one.jsonl", "1a\n1b\n", 6},
	                     {"README", "not rows\n", 9},
	                     {"d/._one.jsonl", "junk\n", 5},
	                     {"empty.jsonl", "", 0},
	                     {"two.json", "2a", 2}},
	              gz = {"x.jsonl.gz", NULL, 0}, none = {"README", "hello\n", 6}, inner = {"data", "in\nside\n", 8};
	struct buf b = {0};
	struct err err = {0};

	write_archive("a.tar", PLAIN, 0, m, 5);
	check_lines("a.tar", 0, "a.tar!d/one.jsonl:1=1a|a.tar!d/one.jsonl:2=1b|a.tar!two.json:1=2a|");
	write_archive("a.tar.zst", ZSTD, 0, m, 5);
	check_lines("a.tar.zst", 0, "a.tar.zst!d/one.jsonl:1=1a|a.tar.zst!d/one.jsonl:2=1b|a.tar.zst!two.json:1=2a|");
	write_archive("inner.gz", GZIP, 1, &inner, 1);
	CHECK_INT(file_read("inner.gz", 1 << 20, &b, ERR_INPUT, &err), 0);
	gz.data = b.data;
	gz.n = b.len;
	write_archive("b.tar.gz", GZIP, 0, &gz, 1);
	check_lines("b.tar.gz", 0, "b.tar.gz!x.jsonl.gz:1=in|b.tar.gz!x.jsonl.gz:2=side|");
	write_archive("c.tar", PLAIN, 0, &none, 1);
	check_lines("c.tar", 0, "error 5: c.tar: the archive has no member that is named like a row file (*.jsonl, *.json, ...)");
	buf_release(&b);
}

static char *list_of(const char *const *args, size_t n)
{
	struct input_list l = {.output = "tree/out/"};
	struct err err = {0};
	struct buf b = {0};

	for (size_t i = 0; i < n; i++)
		if (input_list_add(&l, args[i], &err) < 0)
			buf_addf(&b, "error %d: %s", err.code, err.msg);
	for (size_t i = 0; i < l.n; i++)
		buf_addf(&b, "%s ", l.paths[i]);
	input_list_release(&l);
	return buf_detach(&b);
}

static void check_list(const char *arg, const char *arg2, const char *expected)
{
	const char *args[] = {arg, arg2};
	char *got = list_of(args, arg2 ? 2 : 1);

	CHECK_STR(got, expected);
	free(got);
}

TEST(lists)
{
	static const char *const names[] = {"z.jsonl",       "b.jsonl.gz",    "a.json",    "note.txt",
	                                    ".hidden.jsonl", "deep/x.ndjson", "m.tar.zst", ".git/y.jsonl"};

	CHECK_INT(mkdir("dir", 0755) | mkdir("dir/deep", 0755) | mkdir("dir/.git", 0755) | mkdir("void", 0755), 0);
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		char path[64];

		snprintf(path, sizeof(path), "dir/%s", names[i]);
		put(path, "x\n", 2);
	}
	CHECK_INT(symlink("..", "dir/deep/loop"), 0);
	check_list("dir", NULL, "dir/a.json dir/b.jsonl.gz dir/deep/x.ndjson dir/m.tar.zst dir/z.jsonl ");
	check_list("dir/*.js*", NULL, "dir/a.json dir/b.jsonl.gz dir/z.jsonl ");
	check_list("dir/note.txt", "-", "dir/note.txt - ");
	check_list("-", "-", "error 1: standard input (-) can be given only once- ");
	check_list("nothing*.x", NULL, "error 5: no file matches 'nothing*.x'");
	check_list("absent.jsonl", NULL, "error 5: input absent.jsonl: No such file or directory");
	check_list("void", NULL,
	           "error 5: directory void has no row files (*.jsonl, *.ndjson, *.json, each also .gz or .zst, or *.tar)");
	CHECK_INT(mkdir("tree", 0755) | mkdir("tree/job", 0755) | mkdir("tree/out", 0755), 0);
	put("tree/rows.jsonl", "x\n", 2);
	put("tree/out/planned.jsonl", "x\n", 2); /* of a planner that died: there is no job.json yet */
	put("tree/job/job.json", "{}", 2);
	check_list("tree", NULL, "tree/job/job.json tree/rows.jsonl ");
	put("tree/job/plan.db", "", 0);
	check_list("tree", NULL, "tree/rows.jsonl ");
	check_list("tree/*", NULL, "tree/rows.jsonl ");
	check_list("tree/job", NULL, "tree/job/job.json "); /* by its own name */
	put("odd[1].jsonl", "x\n", 2);
	check_list("odd[1].jsonl", NULL, "odd[1].jsonl ");
}

int main(void)
{
	RUN(plain_lines);
	RUN(long_lines);
	RUN(lengths_and_digest);
	RUN(compressed);
	RUN(truncated);
	RUN(archives);
	RUN(lists);
	return TEST_RESULT();
}
