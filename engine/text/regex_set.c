/* regex_set.c: sets of code points as bitmaps; properties by name. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "engine/text/regex_set.h"

#include <ctype.h>
#include <pcre2.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/text/unicode.h"

struct char_set *char_set_new(void)
{
	return xcalloc(1, sizeof(struct char_set));
}

void char_set_add(struct char_set *s, uint32_t first, uint32_t last)
{
	for (uint32_t w = first / 64; w <= last / 64; w++) {
		uint64_t mask = ~UINT64_C(0);

		if (w == first / 64)
			mask &= ~UINT64_C(0) << first % 64;
		if (w == last / 64)
			mask &= ~UINT64_C(0) >> (63 - last % 64);
		s->bits[w] |= mask;
	}
}

void char_set_add_set(struct char_set *s, const struct char_set *other)
{
	for (size_t i = 0; i < CHAR_SET_WORDS; i++)
		s->bits[i] |= other->bits[i];
}

void char_set_intersect(struct char_set *s, const struct char_set *other)
{
	for (size_t i = 0; i < CHAR_SET_WORDS; i++)
		s->bits[i] &= other->bits[i];
}

void char_set_negate(struct char_set *s)
{
	for (size_t i = 0; i < CHAR_SET_WORDS; i++)
		s->bits[i] = ~s->bits[i];
}

static void add_runs(struct char_set *s, uint32_t categories, unsigned flags)
{
	for (size_t i = 0; i < unicode_n_runs; i++) {
		uint32_t first = unicode_runs[i] >> 11, bits = unicode_runs[i] & 2047u;
		uint32_t last = i + 1 < unicode_n_runs ? (unicode_runs[i + 1] >> 11) - 1 : UNICODE_MAX;

		if (UNICODE_MASK(bits) & categories || bits & flags)
			char_set_add(s, first, last);
	}
}

void char_set_add_category(struct char_set *s, uint32_t mask)
{
	add_runs(s, mask, 0);
}

void char_set_add_flags(struct char_set *s, unsigned flags)
{
	add_runs(s, 0, flags);
}

void char_set_add_word(struct char_set *s, int in_class)
{
	char_set_add_flags(s, UNICODE_WORD);
	if (!in_class) {
		char_set_add(s, 0xB2, 0xB3);
		char_set_add(s, 0xB9, 0xB9);
		char_set_add(s, 0xBC, 0xBE);
	}
}

/* What PCRE2 takes a property for: one pass of \p{name}+ over all characters in order. -1: it does not know it. */
static int add_pcre2_property(struct char_set *s, const char *name)
{
	char pattern[64];
	int error;
	PCRE2_SIZE at, from = 0;
	pcre2_code *code;
	pcre2_match_data *match;
	struct buf all = {0};

	snprintf(pattern, sizeof(pattern), "\\p{%s}+", name);
	code = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF, &error, &at, NULL);
	if (!code)
		return -1;
	pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
	buf_reserve(&all, 4 * (UNICODE_MAX + 1));
	for (uint32_t c = 0; c <= UNICODE_MAX; c++)
		if (c < 0xD800 || c > 0xDFFF)
			all.len += utf8_put(c, all.data + all.len);
	match = pcre2_match_data_create_from_pattern(code, NULL);
	while (pcre2_match(code, (PCRE2_SPTR)all.data, all.len, from, PCRE2_NO_UTF_CHECK, match, NULL) > 0) {
		const PCRE2_SIZE *ends = pcre2_get_ovector_pointer(match);
		size_t n, last = ends[1] - 1;

		while (((unsigned char)all.data[last] & 0xC0) == 0x80)
			last--;
		/* The subject holds the characters in order, so that a match is a range, if it does not cross the surrogates. */
		char_set_add(s, utf8_get((unsigned char *)all.data + ends[0], &n), utf8_get((unsigned char *)all.data + last, &n));
		from = ends[1];
	}
	pcre2_match_data_free(match);
	pcre2_code_free(code);
	buf_release(&all);
	return 0;
}

/* clang-format off */
static const struct {
	const char *name; /* lower case, without spaces, _ and - */
	uint32_t mask;
} categories[] = {
    {"l", UNICODE_L}, {"letter", UNICODE_L}, {"m", UNICODE_M}, {"mark", UNICODE_M}, {"combiningmark", UNICODE_M},
    {"n", UNICODE_N}, {"number", UNICODE_N}, {"p", UNICODE_P}, {"punctuation", UNICODE_P}, {"punct", UNICODE_P},
    {"s", UNICODE_S}, {"symbol", UNICODE_S}, {"z", UNICODE_Z}, {"separator", UNICODE_Z}, {"c", UNICODE_C}, {"other", UNICODE_C},
    {"lu", 1u << CAT_LU}, {"uppercaseletter", 1u << CAT_LU}, {"ll", 1u << CAT_LL}, {"lowercaseletter", 1u << CAT_LL},
    {"lt", 1u << CAT_LT}, {"titlecaseletter", 1u << CAT_LT}, {"lm", 1u << CAT_LM}, {"modifierletter", 1u << CAT_LM},
    {"lo", 1u << CAT_LO}, {"otherletter", 1u << CAT_LO}, {"lc", 1u << CAT_LU | 1u << CAT_LL | 1u << CAT_LT},
    {"casedletter", 1u << CAT_LU | 1u << CAT_LL | 1u << CAT_LT}, {"mn", 1u << CAT_MN}, {"nonspacingmark", 1u << CAT_MN},
    {"mc", 1u << CAT_MC}, {"spacingmark", 1u << CAT_MC}, {"me", 1u << CAT_ME}, {"enclosingmark", 1u << CAT_ME},
    {"nd", 1u << CAT_ND}, {"decimalnumber", 1u << CAT_ND}, {"digit", 1u << CAT_ND}, {"nl", 1u << CAT_NL},
    {"letternumber", 1u << CAT_NL}, {"no", 1u << CAT_NO}, {"othernumber", 1u << CAT_NO}, {"pc", 1u << CAT_PC},
    {"connectorpunctuation", 1u << CAT_PC}, {"pd", 1u << CAT_PD}, {"dashpunctuation", 1u << CAT_PD}, {"ps", 1u << CAT_PS},
    {"openpunctuation", 1u << CAT_PS}, {"pe", 1u << CAT_PE}, {"closepunctuation", 1u << CAT_PE}, {"pi", 1u << CAT_PI},
    {"initialpunctuation", 1u << CAT_PI}, {"pf", 1u << CAT_PF}, {"finalpunctuation", 1u << CAT_PF}, {"po", 1u << CAT_PO},
    {"otherpunctuation", 1u << CAT_PO}, {"sm", 1u << CAT_SM}, {"mathsymbol", 1u << CAT_SM}, {"sc", 1u << CAT_SC},
    {"currencysymbol", 1u << CAT_SC}, {"sk", 1u << CAT_SK}, {"modifiersymbol", 1u << CAT_SK}, {"so", 1u << CAT_SO},
    {"othersymbol", 1u << CAT_SO}, {"zs", 1u << CAT_ZS}, {"spaceseparator", 1u << CAT_ZS}, {"zl", 1u << CAT_ZL},
    {"lineseparator", 1u << CAT_ZL}, {"zp", 1u << CAT_ZP}, {"paragraphseparator", 1u << CAT_ZP}, {"cc", 1u << CAT_CC},
    {"control", 1u << CAT_CC}, {"cntrl", 1u << CAT_CC}, {"cf", 1u << CAT_CF}, {"format", 1u << CAT_CF}, {"co", 1u << CAT_CO},
    {"privateuse", 1u << CAT_CO}, {"cn", 1u << CAT_CN}, {"unassigned", 1u << CAT_CN}, {"cs", 1u << CAT_CS},
    {"surrogate", 1u << CAT_CS}, {"any", UINT32_MAX}, {"assigned", ~(1u << CAT_CN)},
};
/* clang-format on */

int char_set_add_property(struct char_set *s, const char *name, size_t n, int in_class, struct err *err)
{
	char folded[40], script[48];
	size_t len = 0;

	for (size_t i = 0; i < n; i++) {
		if (name[i] == ' ' || name[i] == '_' || name[i] == '-')
			continue;
		if (len + 1 == sizeof(folded) || !isalnum((unsigned char)name[i]))
			goto unknown;
		folded[len++] = (char)tolower((unsigned char)name[i]);
	}
	folded[len] = '\0';
	for (size_t i = 0; i < sizeof(categories) / sizeof(categories[0]); i++) {
		if (strcmp(categories[i].name, folded) == 0) {
			char_set_add_category(s, categories[i].mask);
			return 0;
		}
	}
	if (strcmp(folded, "word") == 0)
		char_set_add_word(s, in_class);
	else if (strcmp(folded, "space") == 0 || strcmp(folded, "whitespace") == 0)
		char_set_add_flags(s, UNICODE_SPACE);
	else if (len < 3 || snprintf(script, sizeof(script), "sc:%s", folded) < 0 || add_pcre2_property(s, script) != 0)
		goto unknown;
	return 0;
unknown:
	return err_set(err, ERR_MODEL, "unknown or unsupported property \\p{%.*s}", (int)(n > 60 ? 60 : n), name);
}

/* Surrogates are in no text, and PCRE2 refuses them as ends of a range. */
static int is_in(const struct char_set *s, uint32_t c)
{
	return c <= UNICODE_MAX && (c < 0xD800 || c > 0xDFFF) && s->bits[c / 64] >> c % 64 & 1;
}

/* The categories of many ranges, as PCRE2 has them; each made when a set first wants it, and kept. */
static const struct {
	const char *name;
	uint32_t mask;
} wide[] = {
    {"Lu", 1u << CAT_LU}, {"Ll", 1u << CAT_LL}, {"Lm", 1u << CAT_LM}, {"Lo", 1u << CAT_LO},
    {"Mn", 1u << CAT_MN}, {"Mc", 1u << CAT_MC}, {"Nd", 1u << CAT_ND}, {"No", 1u << CAT_NO},
    {"Po", 1u << CAT_PO}, {"Sm", 1u << CAT_SM}, {"So", 1u << CAT_SO}, {"Cn", 1u << CAT_CN},
};
#define N_WIDE (sizeof(wide) / sizeof(wide[0]))

static const struct char_set *wide_set(size_t i)
{
	static struct char_set *made[N_WIDE];
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

	pthread_mutex_lock(&lock);
	if (!made[i]) {
		made[i] = char_set_new();
		add_pcre2_property(made[i], wide[i].name);
	}
	pthread_mutex_unlock(&lock);
	return made[i];
}

static int is_subset(const struct char_set *a, const struct char_set *b)
{
	for (size_t i = 0; i < CHAR_SET_WORDS; i++)
		if (a->bits[i] & ~b->bits[i])
			return 0;
	return 1;
}

void char_set_write(const struct char_set *s, int negated, struct buf *out)
{
	struct char_set *rest = char_set_new(), *ours = char_set_new();
	size_t n = 0;

	memcpy(rest, s, sizeof(*rest));
	buf_adds(out, negated ? "[^" : "[");
	for (size_t i = 0; i < N_WIDE; i++) {
		const struct char_set *theirs;

		memset(ours, 0, sizeof(*ours));
		char_set_add_category(ours, wide[i].mask);
		if (!is_subset(ours, s) || !is_subset(theirs = wide_set(i), s))
			continue;
		buf_addf(out, "\\p{%s}", wide[i].name);
		for (size_t w = 0; w < CHAR_SET_WORDS; w++)
			rest->bits[w] &= ~theirs->bits[w];
		n++;
	}
	free(ours);
	for (uint32_t c = 0; c <= UNICODE_MAX;) {
		uint32_t first = c;

		if (c % 64 == 0 && rest->bits[c / 64] == 0) {
			c += 64;
			continue;
		}
		while (is_in(rest, c))
			c++;
		if (c == first) {
			c++;
			continue;
		}
		if (c - first == 1)
			buf_addf(out, "\\x{%x}", first);
		else
			buf_addf(out, "\\x{%x}-\\x{%x}", first, c - 1);
		n++;
	}
	free(rest);
	if (n == 0) {
		/* PCRE2 has no empty class: never a character, or any. */
		buf_truncate(out, out->len - (negated ? 2 : 1));
		buf_adds(out, negated ? "(?s:.)" : "(?!)");
		return;
	}
	buf_addc(out, ']');
}
