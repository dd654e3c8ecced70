/* tool_logits: logits for scripts that compare us with others.
 *
 *     tool_logits MODEL f32|fast f16|bf16|f32 < ids.jsonl > logits.bin
 *
 * Each input line is a JSON array of token ids; for each, the logits after its last token go to standard output as n_vocab
 * little-endian f32. With --all as a last argument: after each of its tokens.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "engine/engine.h"

static int run_line(struct engine *e, const char *line, size_t n_line, int all, struct err *err)
{
	yyjson_doc *doc = json_parse(line, n_line, ERR_INPUT, err);
	yyjson_val *v;
	size_t i, max, n, width = (size_t)engine_model(e)->config.n_vocab;
	int32_t *ids;
	float *out;
	int rc = 0;

	if (!doc)
		return -1;
	n = yyjson_arr_size(yyjson_doc_get_root(doc));
	ids = xcalloc(n, sizeof(*ids));
	yyjson_arr_foreach(yyjson_doc_get_root(doc), i, max, v)
		ids[i] = (int32_t)yyjson_get_int(v);
	out = xcalloc(width, sizeof(*out));
	for (size_t at = all ? 0 : n - 1; at < n && rc == 0; at++) {
		int32_t place = (int32_t)at;

		rc = engine_logits(e, ids, (int32_t)n, &place, 1, out, err);
		if (rc == 0 && fwrite(out, sizeof(*out), width, stdout) != width)
			rc = err_sys(err, ERR_STORAGE, "standard output");
	}
	free(out);
	free(ids);
	yyjson_doc_free(doc);
	return rc;
}

int main(int argc, char **argv)
{
	struct err err = {0};
	struct engine_options o = {.max_batch = 64};
	struct text *text;
	struct engine *e;
	char *line = NULL;
	size_t cap = 0;
	ssize_t n;
	int rc = 0;

	if (argc < 4) {
		fprintf(stderr, "usage: tool_logits MODEL f32|fast f16|bf16|f32 [--all] < ids.jsonl > logits.bin\n");
		return 1;
	}
	o.math = strcmp(argv[2], "f32") == 0 ? MATH_F32 : MATH_FAST;
	o.kv_type = strcmp(argv[3], "f32") == 0 ? KV_F32 : strcmp(argv[3], "bf16") == 0 ? KV_BF16 : KV_F16;
	text = text_open(argv[1], &err);
	e = text ? engine_open(argv[1], text, &o, &err) : NULL;
	while (e && rc == 0 && (n = getline(&line, &cap, stdin)) > 0)
		rc = run_line(e, line, (size_t)n, argc > 4, &err);
	free(line);
	engine_close(e);
	text_free(text);
	if (err.code)
		fprintf(stderr, "tool_logits: %s\n", err.msg);
	return err.code ? 1 : 0;
}
