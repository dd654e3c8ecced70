/* generation.h: one request inside the engine: its sequence of tokens, the text that came of it, and when it ends.
 *
 *     generation_new -> (generation_add after each sampled token, until it returns a reason) -> generation_result -> generation_free
 *
 * Stop strings are looked for in the text as it grows: the text ends where the first stop string (by position) begins. Owned by the engine;
 * one thread, except that sampling reads it from several.
 */
#ifndef TOKENMILL_ENGINE_GENERATION_H
#define TOKENMILL_ENGINE_GENERATION_H

#include "base/buf.h"
#include "base/mem.h"
#include "engine/engine.h"
#include "engine/schedule.h"

struct generation {
	struct sequence seq; /* first: the scheduler hands back sequences */
	void *user;
	const struct text *text_info;
	struct sampling sampling;       /* pointers into the arena */
	struct arena arena;
	int32_t *banned;                /* ids that would stop, kept away until min_tokens */
	size_t n_banned;
	size_t longest_stop;            /* bytes of the longest stop string */
	struct detokenizer *detokenizer;
	struct buf text;
	struct token_logprob *logprobs; /* [n_generated, 1 + n_logprobs] or NULL */
	size_t logprobs_cap;
	int32_t n_resumed;              /* tokens that an earlier attempt generated */
	const char *stop_string;        /* set when it ended so */
	int32_t stop_id;
	double submitted_s, admitted_s, first_token_s; /* clock_seconds; 0: not yet */
};

/* Checks the request against the vocabulary and max_context; ERR_ROW names what is wrong. */
struct generation *generation_new(const struct engine_request *r, const struct text *text, int32_t n_vocab, int32_t max_context,
                                  struct err *err);
void generation_free(struct generation *g);

static inline int32_t generation_n_output(const struct generation *g)
{
	return g->seq.n_tokens - g->seq.n_prompt;
}

/* A token was sampled, with its logprobs if asked for: [1 + n_logprobs]. Returns why the generation ended, or FINISH_NONE. */
enum finish_reason generation_add(struct generation *g, int32_t id, const struct token_logprob *top);

/* Borrowed from g. */
struct engine_result generation_result(struct generation *g, enum finish_reason reason, const char *error);

#endif
