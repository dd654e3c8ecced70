/* tool_tokenize: many texts through a tokenizer, for differential tests. Usage: tool_tokenize FILE [special] [no-parse] [time]
 *
 * FILE is a tokenizer.json or a GGUF file. On stdin: records of a 32-bit length (host order) and that many bytes of text. On
 * stdout for each: the number of ids and the ids, then twice a length and the decoded text, with special tokens and without.
 * Every piece that the streaming detokenizer gives must be whole characters and all of them the decoded text, or the tool
 * fails. With `time` all texts are read first and then encoded three times; the best rate goes to stderr.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/mem.h"
#include "engine/file/gguf.h"
#include "engine/text/tokenizer.h"
#include "engine/text/unicode.h"

static struct tokenizer *open_any(const char *path, struct err *err)
{
	size_t n = strlen(path);
	struct tokenizer *t;
	struct gguf *g;

	if (n < 5 || strcmp(path + n - 5, ".gguf") != 0)
		return tokenizer_open_json(path, err);
	g = gguf_open(path, 0, err);
	if (!g)
		return NULL;
	t = tokenizer_open_gguf(g, err);
	gguf_free(g);
	return t;
}

static int read_record(struct buf *text)
{
	uint32_t n;

	buf_reset(text);
	if (fread(&n, sizeof(n), 1, stdin) != 1)
		return 0;
	buf_reserve(text, n);
	if (fread(text->data, 1, n, stdin) != n)
		return 0;
	text->len = n;
	text->data[n] = '\0';
	return 1;
}

static int write_text(const struct tokenizer *t, const struct token_list *ids, int skip_special)
{
	struct buf whole = {0}, stream = {0};
	struct detokenizer *d = detokenizer_new(t, skip_special);
	uint32_t n;
	int status = 0;

	tokenizer_decode(t, ids->ids, ids->n, skip_special, &whole);
	for (size_t i = 0; i <= ids->n && status == 0; i++) {
		size_t was = stream.len;

		if (i < ids->n)
			detokenizer_add(d, ids->ids[i], &stream);
		else
			detokenizer_flush(d, &stream);
		if (stream.len > was && !utf8_valid(stream.data + was, stream.len - was))
			status = -1;
	}
	if (whole.len != stream.len || (whole.len > 0 && memcmp(whole.data, stream.data, whole.len) != 0))
		status = -1;
	n = (uint32_t)whole.len;
	fwrite(&n, sizeof(n), 1, stdout);
	fwrite(buf_str(&whole), 1, n, stdout);
	detokenizer_free(d);
	buf_release(&whole);
	buf_release(&stream);
	return status;
}

static int measure(struct encoder *e, unsigned flags, struct err *err)
{
	struct buf all = {0}, text = {0};
	size_t *ends = NULL, n = 0, cap = 0;
	double best = 1e30;
	size_t n_ids = 0;

	while (read_record(&text)) {
		MEM_GROW(ends, cap, n + 1);
		buf_add(&all, text.data, text.len);
		ends[n++] = all.len;
	}
	for (int round = 0; round < 3; round++) {
		double start = clock_seconds();

		n_ids = 0;
		for (size_t i = 0, at = 0; i < n; at = ends[i++]) {
			struct token_list ids = {0};

			if (encoder_encode(e, all.data + at, ends[i] - at, flags, &ids, err) != 0)
				return -1;
			n_ids += ids.n;
			token_list_release(&ids);
		}
		if (clock_seconds() - start < best)
			best = clock_seconds() - start;
	}
	fprintf(stderr, "%.1f MB/s, %zu tokens, %zu bytes\n", (double)all.len / best / 1e6, n_ids, all.len);
	return 0;
}

int main(int argc, char **argv)
{
	struct err err = {0};
	struct buf text = {0};
	struct token_list ids = {0};
	unsigned flags = 0;
	int timing = 0;
	double start = clock_seconds();
	struct tokenizer *t = argc > 1 ? open_any(argv[1], &err) : NULL;
	struct encoder *e;

	if (!t) {
		fprintf(stderr, "tool_tokenize: %s\n", argc > 1 ? err.msg : "usage: tool_tokenize FILE [special] [no-parse] [time]");
		return 1;
	}
	for (int i = 2; i < argc; i++) {
		flags |= strcmp(argv[i], "special") == 0 ? ENCODE_ADD_SPECIAL : 0;
		flags |= strcmp(argv[i], "no-parse") == 0 ? ENCODE_NO_PARSE : 0;
		timing |= strcmp(argv[i], "time") == 0;
	}
	e = encoder_new(t);
	if (timing) {
		fprintf(stderr, "%s; opened in %.0f ms\n", tokenizer_describe(t), (clock_seconds() - start) * 1e3);
		return measure(e, flags, &err) == 0 ? 0 : 1;
	}
	while (read_record(&text)) {
		uint32_t n;

		ids.n = 0;
		if (encoder_encode(e, text.data, text.len, flags, &ids, &err) != 0) {
			fprintf(stderr, "tool_tokenize: %s\n", err.msg);
			return 1;
		}
		n = (uint32_t)ids.n;
		fwrite(&n, sizeof(n), 1, stdout);
		if (n > 0)
			fwrite(ids.ids, sizeof(*ids.ids), ids.n, stdout);
		if (write_text(t, &ids, 0) != 0 || write_text(t, &ids, 1) != 0) {
			fprintf(stderr, "tool_tokenize: the stream of pieces is not the decoded text, or cuts a character\n");
			return 1;
		}
	}
	fflush(stdout);
	encoder_free(e);
	tokenizer_free(t);
	token_list_release(&ids);
	buf_release(&text);
	return 0;
}
