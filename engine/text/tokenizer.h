/* tokenizer.h: text to token ids and back, equal to the Hugging Face tokenizer of the same model.
 *
 * A tokenizer is made from a Hugging Face tokenizer.json or from the vocabulary inside a GGUF file. Kinds: byte-level BPE
 * (GPT-2 style: pre-tokenizer regexes, byte alphabet) and SentencePiece-style BPE (llama 1/2, gemma: no byte alphabet, byte fallback
 * tokens <0xNN>). Added and special tokens are split out first, longest match at the leftmost position. A normaliser,
 * pre-tokenizer, decoder or model type that is not known is refused by name at open.
 *
 * struct tokenizer is immutable: any thread may share it. A struct encoder holds the scratch memory and word cache of one
 * thread.
 */
#ifndef TOKENMILL_ENGINE_TOKENIZER_H
#define TOKENMILL_ENGINE_TOKENIZER_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/errors.h"

struct gguf;
struct tokenizer;
struct encoder;

struct token_list { /* zero-initialise; free with token_list_release */
	int32_t *ids;
	size_t n;
	size_t cap;
};
void token_list_add(struct token_list *l, int32_t id);
void token_list_release(struct token_list *l);

/* path: a tokenizer.json. The caller frees. NULL and *err (ERR_MODEL) on failure. */
struct tokenizer *tokenizer_open_json(const char *path, struct err *err);
struct tokenizer *tokenizer_open_json_memory(const char *json, size_t n_bytes, struct err *err);
/* The GGUF may be freed afterwards. */
struct tokenizer *tokenizer_open_gguf(const struct gguf *g, struct err *err);
void tokenizer_free(struct tokenizer *t);

int32_t tokenizer_n_vocab(const struct tokenizer *t); /* highest id + 1 */
/* The token's string in the vocabulary's own alphabet (byte-level: "Ġthe"). Borrowed. NULL for an id with no token. n may be NULL. */
const char *tokenizer_token(const struct tokenizer *t, int32_t id, size_t *n);
int32_t tokenizer_find(const struct tokenizer *t, const char *token, size_t n); /* id, or -1; added tokens too */
int tokenizer_is_special(const struct tokenizer *t, int32_t id);
const char *tokenizer_describe(const struct tokenizer *t); /* "byte-level BPE, 49152 tokens, 17 added" */

struct encoder *encoder_new(const struct tokenizer *t); /* never NULL; free before the tokenizer */
void encoder_free(struct encoder *e);

enum encode_flags {
	ENCODE_PLAIN = 0,
	ENCODE_ADD_SPECIAL = 1, /* what the post-processor adds (BOS, ...): Hugging Face's add_special_tokens=True */
	ENCODE_NO_PARSE = 2,    /* special tokens written in the text are plain text */
};
/* Append the ids of n bytes of text to out. Text need not be UTF-8: each byte that is not part of a valid character stands for
 * U+FFFD, as when the text was decoded with errors="replace" (Python's rule of maximal subparts). 0, or -1 and *err with
 * out as before. */
int encoder_encode(struct encoder *e, const char *text, size_t n, unsigned flags, struct token_list *out, struct err *err);

/* Append the text of the ids, as Hugging Face's decode(clean_up_tokenization_spaces=False). Ids out of range are ignored. */
void tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, int skip_special, struct buf *out);

/* Text as it comes, one token at a time, never half a character: bytes that may still become a character are held back.
 * The concatenation of all pieces and the flush equals tokenizer_decode of all the ids. */
struct detokenizer; /* one generated sequence */
struct detokenizer *detokenizer_new(const struct tokenizer *t, int skip_special);
void detokenizer_free(struct detokenizer *d);
void detokenizer_add(struct detokenizer *d, int32_t id, struct buf *out);
void detokenizer_flush(struct detokenizer *d, struct buf *out); /* an unfinished character becomes U+FFFD */

/* The raw bytes that one token stands for (logprobs' `bytes`); a special token gives its text. */
void tokenizer_token_bytes(const struct tokenizer *t, int32_t id, struct buf *out);

#endif
