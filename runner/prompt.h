/* prompt.h: from a checked row to the token ids that the model reads.
 *
 * A struct prompt_maker belongs to one thread (it holds an encoder); the text is shared.
 */
#ifndef TOKENMILL_RUNNER_PROMPT_H
#define TOKENMILL_RUNNER_PROMPT_H

#include "base/buf.h"
#include "engine/text/text.h"
#include "runner/row.h"

struct prompt_maker {
	const struct text *text; /* borrowed */
	struct encoder *encoder;
	int64_t now_unix_s;    /* what a template's strftime_now sees: fixed for the job */
	int32_t n_context;     /* longest prompt + output, in tokens */
	struct buf rendered;   /* text of the last prompt that was made from text */
	struct token_list ids; /* its ids */
};

void prompt_maker_init(struct prompt_maker *m, const struct text *text, int64_t now_unix_s, int32_t n_context);
void prompt_maker_release(struct prompt_maker *m);

/* m->rendered becomes the prompt's text: the rendered chat, or the completion's prompt (decoded when it came as ids). */
int prompt_render(struct prompt_maker *m, const struct row_request *r, struct row_fault *f);
/* m->ids becomes the prompt; r->sampling.max_tokens is filled in where the row left it open. A fault when the row does not fit
 * the context (code context_length_exceeded), is empty, or the template refuses it. m->rendered is only good when the prompt is
 * text. */
int prompt_make(struct prompt_maker *m, struct row_request *r, struct row_fault *f);

/* Does the template know the role "developer"? */
int prompt_knows_developer(const struct text *t);

#endif
