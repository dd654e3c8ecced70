/* template.c: compiling and rendering; see template.h. */
#include "engine/text/template.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "engine/text/jinja_ast.h"
#include "engine/text/jinja_eval.h"

#define MAX_SOURCE_BYTES ((size_t)4 << 20)

struct chat_template *template_compile(const char *source, size_t n_bytes, struct err *err)
{
	struct chat_template *t = xcalloc(1, sizeof(*t));
	struct compile c = {.mem = &t->mem, .err = err};
	int rc;

	if (n_bytes > MAX_SOURCE_BYTES) {
		err_set(err, ERR_MODEL, "chat template of %zu bytes, limit is %zu", n_bytes, MAX_SOURCE_BYTES);
		free(t);
		return NULL;
	}
	rc = jinja_lex(&c, source, n_bytes);
	if (rc == 0)
		rc = jinja_parse(&c, t);
	if (rc == 0)
		rc = scope_resolve(&c, t);
	free(c.tokens.tokens);
	if (rc) {
		template_free(t);
		return NULL;
	}
	return t;
}

void template_free(struct chat_template *t)
{
	if (t) {
		arena_release(&t->mem);
		free(t);
	}
}

int template_uses(const struct chat_template *t, const char *name)
{
	for (size_t i = 0; i < t->n_names; i++)
		if (t->names[i]->n == strlen(name) && memcmp(t->names[i]->s, name, t->names[i]->n) == 0)
			return 1;
	return 0;
}

int template_render(const struct chat_template *t, yyjson_val *vars, const struct template_limits *limits, struct buf *out,
                    struct err *err)
{
	struct render r = {.err = err, .max_output = (size_t)64 << 20, .max_steps = 50000000};
	struct buf text = {0};
	struct frame *root;

	if (limits) {
		r.max_output = limits->max_output_bytes ? limits->max_output_bytes : r.max_output;
		r.max_steps = limits->max_steps ? limits->max_steps : r.max_steps;
		r.now_unix_s = limits->now_unix_s;
	}
	/* Everything that a rendering makes stays until its end. */
	r.max_bytes = r.max_output * 4 + ((size_t)256 << 20);
	if (vars && !json_depth_within(vars, JINJA_MAX_DATA_DEPTH))
		return err_set(err, ERR_ROW, "chat template variables nested more than %d deep", JINJA_MAX_DATA_DEPTH);
	r.line = 1;
	r.vars = yyjson_is_obj(vars) ? jval_from_json(&r, vars).dict : dict_new(&r);
	r.out = &text;
	root = frame_new(&r, t->root, NULL);
	if (root && !r.failed) {
		frame_enter(&r, root);
		exec_body(&r, root, &t->body);
	}
	if (!r.failed)
		buf_add(out, buf_str(&text), text.len);
	buf_release(&text);
	arena_release(&r.mem);
	return r.failed ? -1 : 0;
}
