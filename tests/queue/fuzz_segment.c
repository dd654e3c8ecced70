/* A segment file with any bytes in it. The first input that is empty is replaced by a real segment, so that mutation starts from one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"
#include "queue/job_private.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

static struct buf seed_file;

static void make_seed(void)
{
	struct segment_writer *w = segment_writer_new();
	struct err err = {0};
	struct store *here = store_open(".", &err);
	char line[400];

	for (int i = 0; i < 100; i++) {
		struct row_result r = {.row = i * 3, .line = line, .prompt_tokens = i, .wait_s = 0.5};

		r.n_line = (size_t)snprintf(line, sizeof(line), "{\"custom_id\":\"row-%d\",\"text\":\"%0*d\"}", i, i * 3, i);
		segment_writer_add_result(w, &r);
		segment_writer_add_partial(w, i * 3 + 1, "state", 5);
	}
	if (segment_writer_publish(w, here, "seed.db", &err) < 0 || file_read("seed.db", 1 << 24, &seed_file, ERR_STORAGE, &err) < 0)
		abort();
	unlink("seed.db");
	segment_writer_free(w);
	store_close(here);
}

/* Change a few places of the real file: random bytes never become a database. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed)
{
	if (!seed_file.data)
		make_seed();
	if (size < seed_file.len / 2 && seed_file.len <= max_size) {
		memcpy(data, seed_file.data, seed_file.len);
		size = seed_file.len;
	}
	return LLVMFuzzerMutate(data, size, max_size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	void *bytes = xmemdup((const char *)data, size);
	struct err err = {0};
	struct segment_reader *r;
	struct row_result result;
	const void *state;
	size_t n;
	int64_t row;

	r = segment_reader_open_bytes(bytes, size, "fuzzed", &err);
	if (r) {
		/* A damaged tree may have cycles of pages; SQLite bounds its depth, and this the number of rows. */
		for (int i = 0; i < 100000 && segment_reader_next_done(r, &row, &err) == 1; i++)
			;
		for (int i = 0; i < 100000 && segment_reader_next_partial(r, &row, &state, &n, &err) == 1; i++)
			;
		for (int i = 0; i < 100000 && segment_reader_next_result(r, &result, &err) == 1; i++)
			if (!result.line)
				abort();
	}
	segment_reader_close(r);
	return 0;
}
