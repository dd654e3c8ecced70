/* Small files and lines of a job directory: claims, done marks, shard lines, names. The first byte says which parser gets the rest. What is
 * accepted must be writable and read back as the same. */
#include <stdlib.h>
#include <string.h>

#include "queue/job_private.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_claim(const char *text, size_t n)
{
	struct err err = {0};
	struct claim c;
	struct buf who = {0};

	if (claim_parse(&c, text, n, &err) == 0) {
		claim_describe(&c, &who);
		/* Processes that exist are asked for by signal 0 only. */
		if (claim_claimant(&c) < CLAIMANT_ALIVE)
			abort();
	}
	buf_release(&who);
}

static void fuzz_done(const char *text, size_t n)
{
	struct err err = {0};
	struct segment_name *segments;
	size_t n_segments;

	if (done_parse(text, n, 7, &segments, &n_segments, &err) == 0)
		for (size_t i = 0; i < n_segments; i++)
			if (segments[i].epoch < 0 || segments[i].sequence < 0)
				abort();
	free(segments);
}

static void fuzz_shard_line(const char *text, size_t n)
{
	struct err err = {0};
	struct shard_line l = {0}, again = {0};
	struct buf b = {0};
	int64_t row;

	if (shard_line_parse_row(text, n, &row, &err) == 0 && shard_line_parse(&l, text, n, &err) == 0 && l.row == row) {
		struct plan_row p = {.key = l.key.data, .n_key = l.key.len, .input = l.input, .n_input = l.n_input,
			.n_prompt_tokens = l.n_prompt_tokens, .max_output_tokens = l.max_output_tokens};

		shard_line_write(&b, l.row, &p);
		if (shard_line_parse(&again, b.data, b.len - 1, &err) < 0 || again.row != l.row || again.key.len != l.key.len ||
		    memcmp(again.key.data, l.key.data, l.key.len) != 0 || again.n_input != l.n_input)
			abort();
	}
	buf_release(&l.key);
	buf_release(&again.key);
	buf_release(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text;

	if (size == 0)
		return 0;
	text = malloc(size); /* exactly as long, so that reading too far is seen */
	memcpy(text, data + 1, size - 1);
	text[size - 1] = '\0';
	switch (data[0] % 4) {
	case 0:
		fuzz_claim(text, size - 1);
		break;
	case 1:
		fuzz_done(text, size - 1);
		break;
	case 2:
		if (size > 1)
			fuzz_shard_line(text, size - 1);
		break;
	default: {
		struct segment_name name;

		if (segment_name_parse(text, &name) && (name.epoch < 0 || name.sequence < 0))
			abort();
		name_number(text, "claim");
	}
	}
	free(text);
	return 0;
}
