/* engine_fake.h: an engine without a model, to test whole jobs at the speed of everything else, with faults when asked for.
 *
 * Its answers are words drawn from the vocabulary; each token is a function of the prompt, the row's seed, key and sample, and
 * its position, and of nothing else. So an answer does not depend on batch, speed or restarts, as with a real engine, and a row
 * that goes on from partial tokens is checked against them: what does not match is ERR_ENGINE. Stop strings, stop ids,
 * min_tokens, max_tokens and ignore_eos work as in a real engine; temperature and the like change nothing; log-probabilities
 * are 0 and the lists of best tokens are empty.
 */
#ifndef TOKENMILL_ENGINE_ENGINE_FAKE_H
#define TOKENMILL_ENGINE_ENGINE_FAKE_H

#include "engine/engine.h"

struct fake_options {
	/* These two change bytes: they are the engine's identity. */
	int32_t shortest, longest; /* tokens of an answer, drawn for each; max_tokens caps it */
	double fail_share;         /* of rows, that end with FINISH_ERROR */

	double rate;              /* output tokens a second, of all sequences together; 0: no limit */
	int32_t max_batch;        /* 0: 256 */
	double load_s;            /* engine_open_fake takes so long */
	double slow_share;        /* of rows, that take ... */
	int32_t slow_factor;      /* ... so many times as many steps */
	char crash_word[64];      /* a prompt with this word ends the process with SIGSEGV in its second step; "": none */
	char hang_word[64];       /* a prompt with this word: engine_step does not return */
	int64_t crash_after_rows; /* SIGSEGV once so many requests have ended; 0: never */
	double crash_after_s;     /* SIGSEGV so long after engine_open_fake; 0: never */
};
void fake_options_init(struct fake_options *o);
/* "key=value,..." over what is in o, which may be left half filled. ERR_USAGE names what is wrong and what there is. */
int fake_options_read(struct fake_options *o, const char *text, struct err *err);
/* Append what changes bytes, in a form that fake_options_read takes. */
void fake_options_identity(const struct fake_options *o, struct buf *out);
#define FAKE_OPTIONS_HELP                                                                                                      \
	"  tokens=MIN-MAX     tokens of an answer, drawn for each row (20-200); max_tokens caps it\n"                              \
	"  fail=P             share of rows that end with an error\n"                                                              \
	"  rate=N             output tokens a second, all rows together (no limit)\n"                                              \
	"  batch=N            rows at once (256)\n"                                                                                \
	"  load=S             seconds that it takes to start\n"                                                                    \
	"  slow=P:N           share of rows that take N times as many steps\n"                                                     \
	"  crash=WORD         a row with this word in its prompt ends the process (SIGSEGV)\n"                                     \
	"  hang=WORD          a row with this word in its prompt stops the engine for ever\n"                                      \
	"  crash-after=N|Ns   end the process after so many rows, or seconds"

/* text is borrowed and must outlive the engine. NULL and *err (ERR_MODEL) when the vocabulary has no word that it could say. */
struct engine *engine_open_fake(const struct text *text, const struct fake_options *o, struct err *err);

#endif
