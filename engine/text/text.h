/* text.h: everything about a model that concerns text: tokenizer, chat template, special tokens, default sampling values.
 * Needs no weights: planning links this and nothing else of the engine.
 *
 * Sources: a Hugging Face directory (tokenizer.json, tokenizer_config.json, chat_template.jinja or chat_template.json,
 * generation_config.json, config.json) or a GGUF file (tokenizer.* keys). Immutable after open; any thread may read.
 */
#ifndef TOKENMILL_ENGINE_TEXT_H
#define TOKENMILL_ENGINE_TEXT_H

#include <yyjson.h>

#include "base/buf.h"
#include "base/errors.h"
#include "engine/text/template.h"
#include "engine/text/tokenizer.h"

struct text_named_token {
	char *name; /* "bos_token" */
	char *text; /* "<s>" */
};

struct text {
	struct tokenizer *tokenizer;
	struct chat_template *chat_template;          /* NULL: the model has none that works; chat rows are then row errors */
	struct chat_template *tool_template;          /* used when a row has tools; NULL: chat_template does both */
	char *template_source, *tool_template_source; /* NUL-terminated; NULL as above */
	char *template_error;                         /* why the model's template does not work; NULL */
	struct text_named_token named_tokens[16]; /* the special tokens that templates see as variables, as in special_tokens_map */
	int n_named_tokens;
	const char *bos_token, *eos_token, *pad_token, *unk_token; /* those of named_tokens; NULL when the model has none */
	int32_t bos_id, eos_id;                                    /* -1 when the model has none */
	int32_t stop_ids[16]; /* any of these ends a generation: eos of config and generation config, end of turn */
	int n_stop_ids;
	int add_bos;       /* a bare prompt gets BOS in front (what the tokenizer's post-processor does) */
	int32_t n_context; /* positions the model was made for; 0 unknown */
	/* generation_config.json's values, NAN / -1 when it has none; used for what a row leaves open only if asked (--defaults) */
	double default_temperature, default_top_p;
	int default_top_k;
	char fingerprint[65]; /* SHA-256 over what above can change a prompt's tokens */
};

/* path: directory or .gguf file. The caller frees. NULL and *err (ERR_MODEL) on failure. */
struct text *text_open(const char *path, struct err *err);
/* The smallest text side there can be, for engines without a model and for tests: each byte is a token with its own number, there
 * is one special token <|end|>, and the chat template is [role]content for each message and [assistant]. So ids and text can be
 * worked out by hand. */
enum { TEXT_BYTES_END = 256, TEXT_BYTES_N_VOCAB = 257, TEXT_BYTES_N_CONTEXT = 32768 };
struct text *text_open_bytes(struct err *err);
void text_free(struct text *t);

/* Render messages as the model's chat prompt, as transformers' apply_chat_template (5.x) does: members of a message that are
 * null are dropped; reasoning_content is also known as thinking. messages: JSON array of objects; tools, kwargs
 * (chat_template_kwargs: object): NULL when not given. kwargs' members become template variables and win over the defaults (a
 * member add_generation_prompt, too). add_generation_prompt 0/1. Appends to out. -1 and *err (ERR_ROW) on failure. */
int text_render_chat(const struct text *t, yyjson_val *messages, yyjson_val *tools, yyjson_val *kwargs,
                     int add_generation_prompt, int64_t now_unix_s, struct buf *out, struct err *err);

#endif
