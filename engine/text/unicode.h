/* unicode.h: what a tokenizer needs to know about characters: UTF-8, categories, the normal forms, lower case.
 *
 * Categories are those that the tokenizers package sees, which is what ids must agree with; its libraries carry Unicode tables
 * of different age, so the table is made by asking it (scripts/make-unicode-table.py).
 *
 * A code point's bits:   10        9        8           7       6         5     4..0
 *                        rust word nfc safe punctuation numeric onig word space general category
 *
 * Immutable after unicode_init, which any thread may call any number of times.
 */
#ifndef TOKENMILL_ENGINE_UNICODE_H
#define TOKENMILL_ENGINE_UNICODE_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

/* clang-format off */
enum unicode_category {
	CAT_LU, CAT_LL, CAT_LT, CAT_LM, CAT_LO, CAT_MN, CAT_MC, CAT_ME, CAT_ND, CAT_NL, CAT_NO, CAT_PC, CAT_PD, CAT_PS, CAT_PE,
	CAT_PI, CAT_PF, CAT_PO, CAT_SM, CAT_SC, CAT_SK, CAT_SO, CAT_ZS, CAT_ZL, CAT_ZP, CAT_CC, CAT_CF, CAT_CO, CAT_CN, CAT_CS,
	UNICODE_N_CATEGORIES
};
/* clang-format on */
#define UNICODE_CATEGORY(bits) ((bits)&31u)
#define UNICODE_MASK(bits) (1u << UNICODE_CATEGORY(bits)) /* to be tested against sets of categories */
#define UNICODE_L (0x1Fu << CAT_LU)
#define UNICODE_M (0x7u << CAT_MN)
#define UNICODE_N (0x7u << CAT_ND)
#define UNICODE_P (0x7Fu << CAT_PC)
#define UNICODE_S (0xFu << CAT_SM)
#define UNICODE_Z (0x7u << CAT_ZS)
#define UNICODE_C (0x1Fu << CAT_CC)

#define UNICODE_SPACE (1u << 5)       /* \s of every library involved */
#define UNICODE_WORD (1u << 6)        /* Oniguruma's [\w] */
#define UNICODE_NUMERIC (1u << 7)     /* Rust's char::is_numeric: the Digits pre-tokenizer */
#define UNICODE_PUNCTUATION (1u << 8) /* the Punctuation pre-tokenizer */
#define UNICODE_NFC_SAFE (1u << 9)    /* NFC leaves it alone, and nothing in front of it combines with it */
#define UNICODE_RUST_WORD (1u << 10)  /* the regex crate's \w: the Whitespace pre-tokenizer, single_word */

#define UNICODE_MAX 0x10FFFFu

/* Generated: (first code point << 11 | bits) of every run of equal bits; and the ranges that the package's normalisers,
 * whose tables are older, leave alone. */
extern const uint32_t unicode_runs[];
extern const size_t unicode_n_runs;
extern const uint32_t unicode_inert[][2];
extern const size_t unicode_n_inert;

/* Two-stage table over 256 code points each; filled by unicode_init. */
extern uint16_t unicode_block[(UNICODE_MAX + 1) >> 8];
extern uint16_t (*unicode_bits_table)[256];
void unicode_init(void);

static inline unsigned unicode_bits(uint32_t c)
{
	return unicode_bits_table[unicode_block[c >> 8]][c & 255];
}

/* The character at p of valid UTF-8; *n its length. */
static inline uint32_t utf8_get(const unsigned char *p, size_t *n)
{
	if (p[0] < 0x80) {
		*n = 1;
		return p[0];
	}
	if (p[0] < 0xE0) {
		*n = 2;
		return (p[0] & 31u) << 6 | (p[1] & 63u);
	}
	if (p[0] < 0xF0) {
		*n = 3;
		return (p[0] & 15u) << 12 | (p[1] & 63u) << 6 | (p[2] & 63u);
	}
	*n = 4;
	return (p[0] & 7u) << 18 | (p[1] & 63u) << 12 | (p[2] & 63u) << 6 | (p[3] & 63u);
}
static inline size_t utf8_size(unsigned char first)
{
	return first < 0x80 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
}
size_t utf8_put(uint32_t c, char out[4]); /* its length */

/* Length of the valid character at p, or 0 when it is broken; then *bad is the length of the maximal subpart that one U+FFFD
 * stands for (Unicode 3.9, as Python and Rust do it), and *cut says that the bytes end where it could go on. */
size_t utf8_check(const unsigned char *p, const unsigned char *end, size_t *bad, int *cut);
int utf8_valid(const char *s, size_t n);
/* Append s with U+FFFD for what is broken. */
void utf8_add_lossy(struct buf *out, const char *s, size_t n);

enum unicode_form {
	FORM_NFC,
	FORM_NFD,
	FORM_NFKC,
	FORM_NFKD,
};
/* Append the normal form of valid UTF-8. n log n whatever the input. */
void unicode_normalize(enum unicode_form form, const char *s, size_t n, struct buf *out);
/* Append s in lower case, character by character (no final sigma). */
void unicode_lower(const char *s, size_t n, struct buf *out);

#endif
