/* regex_parse.h: the state of translating one pattern, shared by regex_translate.c and regex_class.c. */
#ifndef TOKENMILL_ENGINE_REGEX_PARSE_H
#define TOKENMILL_ENGINE_REGEX_PARSE_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/errors.h"
#include "engine/text/regex_set.h"

#define REGEX_MAX_DEPTH 64
#define REGEX_MAX_CLASSES 2000

struct group_flags {
	int caseless;
	int dotall;
};

struct translation {
	const char *s; /* valid UTF-8 */
	size_t n, at;
	struct buf *out;
	struct err *err;
	struct group_flags flags[REGEX_MAX_DEPTH];
	size_t inside[REGEX_MAX_DEPTH]; /* where the group's content begins in out */
	int depth;
	int n_classes;
	size_t atom;     /* where the last atom begins in out; SIZE_MAX: nothing that could be repeated */
	int repeated;    /* the last atom has a quantifier */
	uint32_t before; /* the literal before, for folds of two characters; 0 none */
};

static inline int translation_peek(const struct translation *t, size_t ahead)
{
	return t->at + ahead < t->n ? (unsigned char)t->s[t->at + ahead] : -1;
}
int translation_refuse(struct translation *t, const char *what); /* -1 and the place */
uint32_t translation_take_char(struct translation *t);

/* After a backslash: 1 and *c for a single character, 2 with the set filled, -1. Used inside and outside of classes. */
int translation_take_escape(struct translation *t, uint32_t *c, struct char_set *set, int in_class);
/* After [. The outermost negation is left to the caller: under (?i) PCRE2 must fold first and negate then. 0 or -1. */
int translation_take_class(struct translation *t, struct char_set *result, int *negated, int depth);

#endif
