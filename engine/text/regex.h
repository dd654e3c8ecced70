/* regex.h: Oniguruma's regular expressions, as the tokenizers package uses them, on PCRE2's JIT.
 *
 * A pattern is translated: every character class is worked out here over the category table of unicode.h and written to PCRE2
 * as ranges, so that \p{L} or \s mean what they mean to the package whatever PCRE2's Unicode tables; the constructs
 * whose syntax or meaning differs ((?m), \h, {n}+, ^, $, \b, &&) are rewritten; what has no exact counterpart is refused by
 * name.
 *
 * struct regex is immutable. A struct regex_scratch belongs to one thread and serves any number of regexes.
 */
#ifndef TOKENMILL_ENGINE_REGEX_H
#define TOKENMILL_ENGINE_REGEX_H

#include <stddef.h>

#include "base/buf.h"
#include "base/errors.h"

struct regex;
struct regex_scratch;

/* NULL and *err (ERR_MODEL, with the pattern and the place) on failure. */
struct regex *regex_new(const char *pattern, size_t n, struct err *err);
void regex_free(struct regex *r);
struct regex_scratch *regex_scratch_new(void);
void regex_scratch_free(struct regex_scratch *s);
void regex_scratch_restart(struct regex_scratch *s); /* a new text: its searches have all of the time again */

/* The first match in s[0..n) that begins at or after `from`: 1 and its ends, 0 when there is none, -1 and *err (ERR_ROW) when
 * it takes too long. s is valid UTF-8. */
int regex_find(const struct regex *r, struct regex_scratch *s, const char *text, size_t n, size_t from, size_t *start,
               size_t *end, struct err *err);

/* Append the PCRE2 pattern (for the tests). */
int regex_translate(const char *pattern, size_t n, struct buf *out, struct err *err);

#endif
