/* text_private.h: what text.c shares with the readers of models. */
#ifndef TOKENMILL_ENGINE_TEXT_PRIVATE_H
#define TOKENMILL_ENGINE_TEXT_PRIVATE_H

#include <stddef.h>
#include <stdint.h>

#include "base/errors.h"
#include "base/hash.h"
#include "engine/text/text.h"

/* Fill t (zeroed but for the "none" values) from a directory or a GGUF file. What identifies the vocabulary goes into h.
 * -1 and *err on failure; t is then released by the caller. */
int text_read_directory(struct text *t, const char *path, struct sha256 *h, struct err *err);
int text_read_gguf(struct text *t, const char *path, struct sha256 *h, struct err *err);
/* The same for text_open_bytes; path is not looked at. */
int text_read_bytes(struct text *t, const char *path, struct sha256 *h, struct err *err);

/* The first value of a name stays. */
void text_name_token(struct text *t, const char *name, const char *token, size_t n);
/* Ids below 0 and those known already are ignored. */
void text_add_stop(struct text *t, int64_t id);
void text_add_stop_named(struct text *t, const char *token);
/* Take a template's source: "default" or "tool_use"; other names are ignored. The first of a name stays. */
void text_take_template(struct text *t, const char *name, const char *source, size_t n);

#endif
