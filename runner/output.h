/* output.h: output lines in the OpenAI batch format.
 *
 * A line holds nothing that depends on how, when or where its row was run: `created` is 0, ids are hashes of the job's setup
 * and the row's key, tokens taken from a cache are not in it (usage.json has them). So equal jobs give equal bytes.
 */
#ifndef TOKENMILL_RUNNER_OUTPUT_H
#define TOKENMILL_RUNNER_OUTPUT_H

#include "base/buf.h"
#include "engine/engine.h"
#include "runner/reasoning.h"
#include "runner/row.h"

/* What all lines of a job share; everything borrowed. */
struct output_rules {
	const char *model;                 /* name for rows that give none */
	const char *setup;                 /* 64 hex digits: model, arithmetic, seed, defaults (spec.h) */
	const struct tokenizer *tokenizer; /* for logprobs */
	struct reasoning_marks reasoning;  /* of the model */
};

/* One of a row's n answers. */
struct sample_result {
	enum finish_reason reason;
	char *text;
	size_t n_text;
	int32_t *tokens; /* a stop token included */
	size_t n_tokens;
	size_t n_reasoning; /* of them thought; counted when the row is finished */
	struct token_logprob *logprobs; /* [n_tokens, 1 + n_logprobs], NULL when not asked for */
	int32_t stop_id;                /* token that ended it, -1 */
	int by_stop_string;
};

/* Append one line, without newline. key: the row's key in the plan; custom_id in the line is the row's own, else the key.
 * echo: the prompt's text when the row asks for it. */
void output_success(struct buf *out, const struct output_rules *o, const char *key, size_t n_key, const struct row_request *r,
                    const struct buf *echo, const struct sample_result *samples, size_t n_prompt_tokens);
/* Append what the line would be if its row's key, and custom_id, were this key: all else in it depends on the request alone. setup as in
 * output_rules. ERR_STORAGE when it is not a line of ours. */
int output_renamed(struct buf *out, const char *setup, const char *line, size_t n_line, const char *key, size_t n_key, struct err *err);
/* custom_id NULL: the key. */
void output_fault(struct buf *out, const struct output_rules *o, const char *key, size_t n_key, const char *custom_id,
                  size_t n_custom_id, const struct row_fault *f);
/* What never became a request has no response: {"id":..,"custom_id":..,"response":null,"error":{"code":..,"message":..}}. */
void output_unanswered(struct buf *out, const char *setup, const char *key, size_t n_key, const char *code, const char *message);

#endif
