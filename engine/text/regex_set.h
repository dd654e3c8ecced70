/* regex_set.h: sets of code points, for the character classes of a regular expression. */
#ifndef TOKENMILL_ENGINE_REGEX_SET_H
#define TOKENMILL_ENGINE_REGEX_SET_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/errors.h"

#define CHAR_SET_WORDS (0x110000 / 64)
struct char_set {
	uint64_t bits[CHAR_SET_WORDS];
};

struct char_set *char_set_new(void); /* empty; free() it */
void char_set_add(struct char_set *s, uint32_t first, uint32_t last);
void char_set_add_set(struct char_set *s, const struct char_set *other);
void char_set_intersect(struct char_set *s, const struct char_set *other);
void char_set_negate(struct char_set *s);
/* Code points whose category is in the mask, or that have one of the flags (unicode.h). */
void char_set_add_category(struct char_set *s, uint32_t mask);
void char_set_add_flags(struct char_set *s, unsigned flags);
/* Oniguruma's \w: outside of a bracketed class it also takes the superscript digits and fractions of Latin-1. */
void char_set_add_word(struct char_set *s, int in_class);
/* A \p{name}: general category by short or long name, or script. -1 and *err when it is not known. */
int char_set_add_property(struct char_set *s, const char *name, size_t n, int in_class, struct err *err);
/* Append as a PCRE2 class: [...], [^...]. Where PCRE2's table of a category is inside the set it is written as \p{..}: 600 ranges for
 * the letters would soon reach PCRE2's limit of 64 KiB for a pattern. */
void char_set_write(const struct char_set *s, int negated, struct buf *out);

#endif
