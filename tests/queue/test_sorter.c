/* The external sort against qsort, with blocks so small that it spills into many runs, and line files. */
#include "tests/check.h"

#include <fcntl.h>
#include <stdlib.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"
#include "queue/lines.h"
#include "queue/sorter.h"

struct item {
	unsigned char key[40];
	size_t n_key;
	int number; /* order of arrival */
	size_t n_data;
};

static int compare(const void *pa, const void *pb)
{
	const struct item *a = pa, *b = pb;
	int c = memcmp(a->key, b->key, a->n_key < b->n_key ? a->n_key : b->n_key);

	if (c == 0)
		c = (a->n_key > b->n_key) - (a->n_key < b->n_key);
	return c ? c : a->number - b->number;
}

static void sort_some(int n_items, size_t memory_bytes, int key_letters, size_t max_data)
{
	struct item *items = xcalloc((size_t)n_items, sizeof(*items));
	unsigned char *data = xcalloc(max_data + 1, 1);
	struct sorter *s = sorter_new("spill", memory_bytes);
	struct sorter_part key, record;
	struct err err = {0};
	int n = 0;

	for (int i = 0; i < n_items; i++) {
		struct item *it = &items[i];
		struct sorter_part parts[3];

		it->number = i;
		it->n_key = (size_t)(rand() % 20);
		for (size_t k = 0; k < it->n_key; k++)
			it->key[k] = (unsigned char)(rand() % key_letters * 255 / (key_letters > 1 ? key_letters - 1 : 1));
		it->n_data = (size_t)rand() % (max_data + 1);
		memset(data, i & 255, it->n_data);
		parts[0] = (struct sorter_part){&it->number, sizeof(it->number)};
		parts[1] = (struct sorter_part){NULL, 0};
		parts[2] = (struct sorter_part){data, it->n_data};
		CHECK_INT(sorter_add(s, it->key, it->n_key, parts, 3, &err), 0);
	}
	CHECK_INT(sorter_finish(s, &err), 0);
	/* Some or all of them, then again from the start. */
	for (int i = rand() % (n_items + 2); i > 0; i--)
		sorter_next(s, &key, &record, &err);
	CHECK_INT(sorter_rewind(s, &err), 0);
	qsort(items, (size_t)n_items, sizeof(*items), compare);
	while (sorter_next(s, &key, &record, &err) == 1 && n < n_items && !check_failed_now) {
		const struct item *it = &items[n++];
		const unsigned char *p = record.data;
		int number;

		memcpy(&number, p, sizeof(number));
		CHECK_INT(number, it->number);
		CHECK(key.n == it->n_key && memcmp(key.data, it->key, key.n) == 0);
		CHECK_INT(record.n, sizeof(number) + it->n_data);
		for (size_t k = sizeof(number); k < record.n; k++)
			if (p[k] != (unsigned char)it->number)
				check_failed_now = 1;
	}
	CHECK_INT(n, n_items);
	CHECK_INT(sorter_next(s, &key, &record, &err), 0);
	CHECK_INT(sorter_next(s, &key, &record, &err), 0);
	sorter_free(s);
	CHECK(!file_exists("spill"));
	free(items);
	free(data);
}

TEST(sorter)
{
	srand(1);
	sort_some(0, 1000, 3, 10);
	sort_some(1, 1000, 3, 10);
	sort_some(1000, 1 << 20, 256, 100);  /* in memory */
	sort_some(1000, 1 << 20, 1, 100);    /* equal keys but for their length */
	sort_some(1000, 100, 3, 10);         /* a few records a run */
	sort_some(5000, 20000, 3, 100);
	sort_some(5000, 20000, 256, 100);
	sort_some(200, 100000, 2, 60000);    /* records larger than a run's read buffer, some larger than the block */
}

TEST(sorter_cannot_spill)
{
	struct sorter *s = sorter_new("missing/spill", 100);
	struct err err = {0};
	int rc = 0;

	for (int i = 0; i < 100 && rc == 0; i++)
		rc = sorter_add(s, "k", 1, &(struct sorter_part){"data", 4}, 1, &err);
	CHECK_INT(rc, -1);
	CHECK_INT(err.code, ERR_STORAGE);
	CHECK(strstr(err.msg, "missing/spill") != NULL);
	sorter_free(s);
}

static void write_lines(const char *path, enum line_form form, int n, size_t long_bytes)
{
	struct err err = {0};
	struct line_writer *w = line_writer_open(path, form, &err);
	char *text = xcalloc(long_bytes + 32, 1), hex[SHA256_HEX_BYTES];
	int64_t n_bytes = -1;
	struct stat st;

	CHECK(w != NULL);
	for (int i = 0; w && i < n; i++) {
		int len = sprintf(text, "%d:", i);

		memset(text + len, 'a' + i % 26, long_bytes);
		CHECK_INT(line_writer_add(w, text, (size_t)len + (i % 5 ? (size_t)(i % 7) : long_bytes), &err), 0);
		CHECK_INT(line_writer_add(w, "\n", 1, &err), 0);
	}
	CHECK_INT(line_writer_close(w, &n_bytes, hex, &err), 0);
	CHECK(stat(path, &st) == 0 && st.st_size == n_bytes);
	free(text);
}

static int64_t read_lines(const char *path, enum line_form form, size_t long_bytes, struct err *err)
{
	struct line_reader *r = line_reader_open(path, form, err);
	const char *line;
	size_t n;
	int rc = r ? 1 : -1;
	int64_t count = 0;

	while (rc == 1 && (rc = line_reader_next(r, &line, &n, err)) == 1) {
		char start[32];
		int len = sprintf(start, "%d:", (int)count);

		CHECK_INT(n, (size_t)len + (count % 5 ? (size_t)(count % 7) : long_bytes));
		CHECK(memcmp(line, start, (size_t)len) == 0);
		count++;
		CHECK_INT(line_reader_number(r), count);
	}
	line_reader_close(r);
	return rc < 0 ? -1 : count;
}

/* A plain file is written by another thread: what fails there must come to light here, at the latest at the close. */
TEST(lines_on_a_full_disk)
{
	struct err err = {0};
	struct rlimit before, small = {.rlim_cur = 700000};
	struct line_writer *w;
	char line[1000];
	int rc = 0;

	/* A file that may not grow stands for the disk. */
	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &before);
	small.rlim_max = before.rlim_max;
	setrlimit(RLIMIT_FSIZE, &small);
	memset(line, 'x', sizeof(line));
	w = line_writer_open("limited", LINES_PLAIN, &err);
	for (int i = 0; i < 2000 && rc == 0; i++)
		rc = line_writer_add(w, line, sizeof(line), &err);
	CHECK_INT(rc, -1);
	line_writer_abort(w);
	CHECK(strstr(err.msg, "limited") != NULL);
	err_clear(&err);
	/* Too few bytes for the failure to be seen before the end. */
	w = line_writer_open("limited-2", LINES_PLAIN, &err);
	for (int i = 0; i < 701; i++)
		CHECK_INT(line_writer_add(w, line, sizeof(line), &err), 0);
	CHECK_INT(line_writer_close(w, NULL, NULL, &err), -1);
	CHECK(strstr(err.msg, "limited-2") != NULL);
	setrlimit(RLIMIT_FSIZE, &before);
	unlink("limited");
	unlink("limited-2");
}

TEST(lines)
{
	struct err err = {0};

	for (int form = LINES_PLAIN; form <= LINES_ZSTD; form++) {
		write_lines("none", form, 0, 0);
		CHECK_INT(read_lines("none", form, 0, &err), 0);
		write_lines("many", form, 20000, 100);
		CHECK_INT(read_lines("many", form, 100, &err), 20000);
		write_lines("long", form, 10, 3000000);
		CHECK_INT(read_lines("long", form, 3000000, &err), 10);
		CHECK(line_writer_open("many", form, &err) == NULL);
		err_clear(&err);
		/* Torn at any byte: never taken for whole. */
		write_lines("torn", form, 30, 50);
		struct stat st;
		CHECK_INT(stat("torn", &st), 0);
		for (off_t at = st.st_size - 1; at > 0 && form == LINES_ZSTD; at--) {
			CHECK_INT(truncate("torn", at), 0);
			CHECK_INT(read_lines("torn", form, 50, &err), -1);
			CHECK_INT(err.code, ERR_STORAGE);
			err_clear(&err);
		}
		unlink("none");
		unlink("many");
		unlink("long");
		unlink("torn");
	}
}

/* What a network file system does that took bytes it then had no room for: a hole where they were. */
TEST(sorter_with_a_hole)
{
	static const char zeros[1 << 16];
	struct sorter *s = sorter_new("spill", 1 << 16);
	struct sorter_part part = {zeros, 500}, key;
	struct err err = {0};
	struct stat st = {0};
	int n = 0, rc, fd;

	for (int i = 0; i < 2000; i++)
		CHECK_INT(sorter_add(s, &i, sizeof(i), &part, 1, &err), 0);
	CHECK_INT(sorter_finish(s, &err), 0);
	fd = open("spill", O_WRONLY);
	CHECK(fd >= 0 && fstat(fd, &st) == 0 && st.st_size > 900000);
	for (off_t at = 0; at < st.st_size; at += (off_t)sizeof(zeros))
		CHECK(pwrite(fd, zeros, sizeof(zeros), at) == (ssize_t)sizeof(zeros));
	close(fd);
	while ((rc = sorter_next(s, &key, &part, &err)) == 1)
		n++;
	CHECK_INT(rc, -1);
	CHECK(n < 2000);
	CHECK_INT(err.code, ERR_STORAGE);
	CHECK_STR(err.msg, "spill: does not hold what was written to it");
	sorter_free(s);
}

int main(void)
{
	RUN(sorter);
	RUN(sorter_cannot_spill);
	RUN(sorter_with_a_hole);
	RUN(lines);
	RUN(lines_on_a_full_disk);
	return TEST_RESULT();
}
