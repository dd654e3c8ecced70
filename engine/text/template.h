/* template.h: chat templates. They are Jinja (https://jinja.palletsprojects.com), run as transformers runs them:
 * ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, generation tag]), with the
 * filter tojson (ensure_ascii=False, indent, separators, sort_keys) and the globals raise_exception(msg) and strftime_now(format).
 *
 * A template is input: steps, nesting, and size of the output are limited; a fault names the template line. What a template
 * uses that the interpreter does not know is refused by name when the template is compiled if it can be seen then, else when reached.
 *
 * struct chat_template is immutable once compiled: any thread may render with it at once.
 */
#ifndef TOKENMILL_ENGINE_TEMPLATE_H
#define TOKENMILL_ENGINE_TEMPLATE_H

#include <stddef.h>
#include <stdint.h>
#include <yyjson.h>

#include "base/buf.h"
#include "base/errors.h"

struct chat_template;

struct template_limits {
	size_t max_output_bytes; /* 0: 64 MiB */
	uint64_t max_steps;      /* 0: 50 million evaluated nodes */
	int64_t now_unix_s;      /* what strftime_now sees (UTC) */
};

/* NULL and *err (ERR_MODEL: "chat template line 12: ...") when it is not valid or uses something unknown. */
struct chat_template *template_compile(const char *source, size_t n_bytes, struct err *err);
void template_free(struct chat_template *t);

/* vars: a JSON object whose members are the variables (messages, tools, add_generation_prompt, bos_token, ...); a variable that is
 * not there is undefined. JSON objects keep their key order. Appends to out. -1 and *err (ERR_ROW; a raise_exception's message
 * as it stands) with out as before. */
int template_render(const struct chat_template *t, yyjson_val *vars, const struct template_limits *limits, struct buf *out,
                    struct err *err);

/* Does the source mention this variable name? (Does the template know `enable_thinking`, `tools`?) */
int template_uses(const struct chat_template *t, const char *name);

#endif
