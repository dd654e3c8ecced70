/* row.h: one line of input, checked, as a request.
 *
 * Two forms, mixed at will in one file:
 *
 *     {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": [...], ...}}   OpenAI batch
 *     {"prompt": "..." or [ids], ...}    {"messages": [...], ...}                                              plain
 *
 * A plain row may name itself with "custom_id" or "id"; who has no name gets one from its position (row_position_key). What a
 * row leaves open comes from the job's defaults, then from the API. Nothing is ignored in silence: an unknown parameter, a
 * value of the wrong type or out of range is a fault of that row, in the API's words {message, type, param, code}. The few
 * parameters that cannot matter offline (stream, user, metadata, ...) are accepted; params.c has the table.
 *
 * A row_request borrows from its own parsed document; row_release frees all. No thread shares one.
 */
#ifndef TOKENMILL_RUNNER_ROW_H
#define TOKENMILL_RUNNER_ROW_H

#include <stddef.h>
#include <stdint.h>
#include <yyjson.h>

#include "base/buf.h"
#include "base/errors.h"
#include "base/mem.h"
#include "engine/sample.h"

enum { ROW_MAX_DEPTH = 100, ROW_MAX_ID_BYTES = 1024, ROW_MAX_N = 128, ROW_MAX_STOPS = 64, ROW_MAX_STOP_IDS = 1024 };

enum row_kind { ROW_CHAT = 1, ROW_COMPLETION = 2 }; /* bits: a parameter may belong to both */

/* What holds for every row of the job. */
struct row_rules {
	yyjson_val *defaults;    /* object of body parameters, NULL for none; checked with row_check_defaults */
	int32_t n_vocab;         /* ids of prompt, logit_bias and stop_token_ids are below it */
	uint64_t seed;           /* the job's, for rows that bring none */
	int developer_is_system; /* the chat template does not know the role "developer" */
};

struct row_request {
	enum row_kind kind;
	int is_plain;          /* not the batch format: no url, no method */
	const char *custom_id; /* NULL: the row has none. NUL-terminated */
	size_t n_custom_id;
	const char *model; /* as the row wrote it, NULL when it did not */
	size_t n_model;

	yyjson_val *messages;      /* chat: normalised, see messages.c */
	yyjson_val *tools;         /* NULL when not given or tool_choice is "none" */
	yyjson_val *template_vars; /* chat_template_kwargs */
	int add_generation_prompt, continue_final_message;
	const char *prompt; /* completion: text, ... */
	size_t n_prompt;
	int32_t *prompt_ids; /* ... or ids */
	size_t n_prompt_ids;
	int add_special_tokens; /* a text prompt gets what the tokenizer puts in front (BOS) */
	int echo;               /* the answer begins with the prompt */

	int n;                /* samples */
	int max_tokens_given; /* sampling.max_tokens is the row's or the defaults'; else filled in once the prompt's length is known
	                       */
	int logprobs;         /* asked for at all */
	struct sampling sampling; /* seed and key when own_seed is set; sample is left 0 */
	int own_seed;

	/* private */
	yyjson_doc *doc, *messages_doc;
	yyjson_val *tool_choice;
	int best_of, max_completion_tokens, max_tokens; /* -1: not given */
	struct arena arena;
};

/* The API's error object, with its HTTP status. Empty message: no fault. */
struct row_fault {
	int status;
	const char *type; /* static */
	char code[48];    /* "" for null */
	char param[64];   /* "" for null */
	char message[700];
};
/* First fault wins; always -1. param and code may be NULL. */
int row_fault_set(struct row_fault *f, const char *param, const char *code, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* 0; -1 and *f when the row is at fault: then only custom_id, n_custom_id, kind (if it got so far) and is_plain are good. In
 * both cases row_release must be called. text need not be NUL-terminated nor outlive the call. */
int row_parse(const char *text, size_t n, const struct row_rules *rules, struct row_request *r, struct row_fault *f);
void row_release(struct row_request *r);

/* Append what a row is to be charged to, as a JSON object of strings in canonical order: "user" and the members of "metadata" (values that are no
 * strings as their JSON text). Nothing when it has none. Of a row at fault as well, as far as its JSON could be read. */
void row_tags(const struct row_request *r, struct buf *out);

/* Append what the row's answer depends on, besides the job: two rows with the same bytes get the same answer. Nothing is appended
 * where that cannot be: the row draws, and from random numbers that are its own (its key's). */
void row_identity(const struct row_request *r, struct buf *out);

/* "row-00000012" for the twelfth row of the job. */
#define ROW_POSITION_KEY_BYTES 32
void row_position_key(int64_t row, char out[ROW_POSITION_KEY_BYTES]);

/* Does every member name a parameter with a value that some kind of row could have? ERR_USAGE naming it if not. */
int row_check_defaults(const struct row_rules *rules, struct err *err);

/* ---- between row.c, params.c and messages.c ---- */

/* Take the parameters of one body (or of the defaults: is_default) into r; "messages" and "prompt" are left to row.c. */
int params_read(struct row_request *r, yyjson_val *body, const struct row_rules *rules, int is_default, struct row_fault *f);
/* After both: combinations, and what one parameter means for another. */
int params_finish(struct row_request *r, struct row_fault *f);
void params_init(struct row_request *r);
/* Can the parameter change an answer? 0 for those that are accepted without effect. */
int params_matters(const char *name, size_t n);
const char *params_name(size_t i); /* of the table's i-th parameter, NULL behind the last */
/* Check the messages and leave in r->messages what the template gets. */
int messages_read(struct row_request *r, yyjson_val *messages, const struct row_rules *rules, struct row_fault *f);

#endif
