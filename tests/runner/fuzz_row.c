/* Fuzz: one line of input as a row. Nothing may crash, a fault must have a message and be valid UTF-8 once written, and a good
 * row must be within its limits. The corpus is made of the fuzzer's own finds; the words below lead it into the parameters. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "runner/row.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
size_t LLVMFuzzerMutate(uint8_t *data, size_t n, size_t max);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t n, size_t max, unsigned seed);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static const struct row_rules rules = {.n_vocab = 1000, .developer_is_system = 1};
	struct row_request r;
	struct row_fault f;
	struct buf written = {0};

	if (row_parse((const char *)data, n, &rules, &r, &f) < 0) {
		yyjson_doc *doc;

		json_write_string(&written, f.message, strlen(f.message));
		doc = yyjson_read(written.data, written.len, 0);
		if (!f.message[0] || f.status != 400 || !doc)
			abort();
		yyjson_doc_free(doc);
	} else if (r.n < 1 || r.n > ROW_MAX_N || r.sampling.n_logprobs > 20 || (r.kind == ROW_CHAT) != (r.messages != NULL) ||
	           (r.kind == ROW_COMPLETION) != (r.prompt || r.prompt_ids)) {
		abort();
	}
	buf_release(&written);
	row_release(&r);
	return 0;
}

/* Random bytes are hardly ever JSON. Every other time a member made of known words is put where a value could begin. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t n, size_t max, unsigned seed)
{
	static const char *const values[] = {
	    "0",
	    "1",
	    "-1",
	    "1e999",
	    "0.5",
	    "true",
	    "null",
	    "[]",
	    "{}",
	    "\"\"",
	    "\"a\"",
	    "[\"a\"]",
	    "[1,2]",
	    "{\"1\":5}",
	    "{\"role\":\"user\",\"content\":\"x\"}",
	    "[{\"role\":\"developer\",\"content\":[{\"type\":\"text\",\"text\":\"x\"}]}]",
	    "[{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]}]",
	    "{\"custom_id\":\"a\",\"method\":\"POST\",\"url\":\"/v1/completions\",\"body\":{\"prompt\":\"a\"}}",
	    "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}"};
	char member[400], *at;
	size_t n_params = 0, k;

	while (params_name(n_params))
		n_params++;
	if (seed % 2 || !n_params)
		return LLVMFuzzerMutate(data, n, max);
	k = (size_t)snprintf(member, sizeof(member), "\"%s\":%s,", params_name(seed / 2 % n_params),
	                     values[seed / 256 % (sizeof(values) / sizeof(*values))]);
	at = n ? memchr(data + seed % n, '{', n - seed % n) : NULL;
	if (!at || n + k > max) {
		static const char start[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}";

		if (sizeof(start) > max)
			return n;
		memcpy(data, start, sizeof(start) - 1);
		return sizeof(start) - 1;
	}
	memmove(at + 1 + k, at + 1, n - (size_t)(at + 1 - (char *)data));
	memcpy(at + 1, member, k);
	return n + k;
}
