/* jinja_unicode.h: characters as Python's str methods see them (Python 3.11: Unicode 14; utf8proc 2.8: 15, which only assigns
 * more). Text is valid UTF-8. Pure functions; any thread. */
#ifndef TOKENMILL_ENGINE_JINJA_UNICODE_H
#define TOKENMILL_ENGINE_JINJA_UNICODE_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

/* Read one code point at s[*i] and move *i behind it. */
int32_t utf8_next(const char *s, size_t n, size_t *i);
/* Move *i to the start of the character before it. *i > 0. */
int32_t utf8_previous(const char *s, size_t *i);
size_t utf8_count(const char *s, size_t n);
/* Byte offset of the code point with this index (n_chars gives n). */
size_t utf8_offset(const char *s, size_t n, size_t n_chars, size_t index);
void utf8_add(struct buf *b, int32_t c);

int unicode_is_space(int32_t c);
int unicode_is_alpha(int32_t c);
int unicode_is_decimal(int32_t c);
int unicode_is_digit(int32_t c);
int unicode_is_numeric(int32_t c);
int unicode_is_alnum(int32_t c);
int unicode_is_upper(int32_t c);
int unicode_is_lower(int32_t c);
int unicode_is_title(int32_t c);
int unicode_is_printable(int32_t c); /* repr() shows it as it is */
int unicode_is_word(int32_t c);      /* \w */

enum unicode_case { UNICODE_UPPER, UNICODE_LOWER, UNICODE_TITLE };
/* Append the character at s[at..] (its code point is c) in the other case; the text around it decides about final sigma. */
void unicode_add_cased(struct buf *b, const char *s, size_t n, size_t at, int32_t c, enum unicode_case to);
/* Append s in upper or lower case. */
void unicode_add_all_cased(struct buf *b, const char *s, size_t n, enum unicode_case to);

#endif
