/* reasoning.h: how many tokens of an answer were thought, for usage and price (completion_tokens_details.reasoning_tokens in the OpenAI API).
 *
 * Models that think aloud mark it with tokens of their own, <think> and </think> (DeepSeek-R1, Qwen3 and those made after them). Some chat templates
 * open the mark in the prompt, so that the answer only has the closing one. Tokens of the thought and both marks count; an answer that was cut
 * off before the end of the thought is thought as a whole. */
#ifndef TOKENMILL_RUNNER_REASONING_H
#define TOKENMILL_RUNNER_REASONING_H

#include <stddef.h>
#include <stdint.h>

#include "engine/text/tokenizer.h"

struct reasoning_marks {
	int is_known; /* 0: the model has no such tokens, and does not think */
	int32_t open_id, close_id;
};
void reasoning_marks_find(struct reasoning_marks *m, const struct tokenizer *t);
/* Does a prompt end in an open mark (white space may follow it)? */
int reasoning_is_open(const struct reasoning_marks *m, const int32_t *prompt, size_t n);
size_t reasoning_count(const struct reasoning_marks *m, int is_open, const int32_t *tokens, size_t n);

#endif
