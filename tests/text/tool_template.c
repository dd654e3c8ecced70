/* tool_template.c: templates from standard input, for scripts/diff-template.py. One JSON object per line:
 * {"template": "...", "vars": {...}, "now": unix seconds}, answered by {"out": "..."} or {"error": "..."}. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "engine/text/template.h"

int main(void)
{
	char *line = NULL;
	size_t cap = 0;
	ssize_t n;

	while ((n = getline(&line, &cap, stdin)) > 0) {
		struct err err = {0};
		struct buf out = {0}, text = {0};
		yyjson_doc *doc = json_parse(line, (size_t)n, ERR_INPUT, &err);
		yyjson_val *root = yyjson_doc_get_root(doc), *source = yyjson_obj_get(root, "template");
		struct template_limits limits = {.now_unix_s = yyjson_get_sint(yyjson_obj_get(root, "now"))};
		struct chat_template *t = doc ? template_compile(yyjson_get_str(source), yyjson_get_len(source), &err) : NULL;
		int ok = t && template_render(t, yyjson_obj_get(root, "vars"), &limits, &out, &err) == 0;

		buf_adds(&text, ok ? "{\"out\":" : "{\"error\":");
		if (ok)
			json_write_string(&text, buf_str(&out), out.len);
		else
			json_write_string(&text, err.msg, strlen(err.msg));
		printf("%s}\n", buf_str(&text));
		fflush(stdout);
		template_free(t);
		yyjson_doc_free(doc);
		buf_release(&out);
		buf_release(&text);
	}
	free(line);
	return 0;
}
