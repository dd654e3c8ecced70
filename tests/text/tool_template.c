/* tool_template.c: templates from standard input, for scripts/diff-template.py. One JSON object per line:
 * {"template": "...", "vars": {...}, "now": unix seconds}, answered by {"out": "..."} or {"error": "..."}; or
 * {"model": path, "messages": [...], "tools": [...], "kwargs": {...}, "add_generation_prompt": bool}. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "engine/text/template.h"
#include "engine/text/text.h"

static int render_template(yyjson_val *request, struct buf *out, struct err *err)
{
	yyjson_val *source = yyjson_obj_get(request, "template");
	struct template_limits limits = {.now_unix_s = yyjson_get_sint(yyjson_obj_get(request, "now"))};
	struct chat_template *t = template_compile(yyjson_get_str(source), yyjson_get_len(source), err);
	int rc = t ? template_render(t, yyjson_obj_get(request, "vars"), &limits, out, err) : -1;

	template_free(t);
	return rc;
}

static int render_chat(yyjson_val *request, struct buf *out, struct err *err)
{
	static struct text *text; /* of the last model named */
	static char *path;
	const char *model = yyjson_get_str(yyjson_obj_get(request, "model"));

	if (!path || strcmp(path, model) != 0) {
		text_free(text);
		free(path);
		path = xstrdup(model);
		text = text_open(path, err);
	}
	if (!text)
		return -1;
	return text_render_chat(text, yyjson_obj_get(request, "messages"), yyjson_obj_get(request, "tools"),
	                        yyjson_obj_get(request, "kwargs"),
	                        yyjson_get_bool(yyjson_obj_get(request, "add_generation_prompt")),
	                        yyjson_get_sint(yyjson_obj_get(request, "now")), out, err);
}

int main(void)
{
	char *line = NULL;
	size_t cap = 0;
	ssize_t n;

	while ((n = getline(&line, &cap, stdin)) > 0) {
		struct err err = {0};
		struct buf out = {0}, text = {0};
		yyjson_doc *doc = json_parse(line, (size_t)n, ERR_INPUT, &err);
		yyjson_val *root = yyjson_doc_get_root(doc);
		int ok =
		    doc && (yyjson_obj_get(root, "model") ? render_chat(root, &out, &err) : render_template(root, &out, &err)) == 0;

		buf_adds(&text, ok ? "{\"out\":" : "{\"error\":");
		if (ok)
			json_write_string(&text, buf_str(&out), out.len);
		else
			json_write_string(&text, err.msg, strlen(err.msg));
		printf("%s}\n", buf_str(&text));
		fflush(stdout);
		yyjson_doc_free(doc);
		buf_release(&out);
		buf_release(&text);
	}
	free(line);
	return 0;
}
