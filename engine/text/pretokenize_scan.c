/* pretokenize_scan.c: the pre-tokenizer regexes in use, written by hand. Each function is one pattern: it returns the length of
 * the match that begins at p, what a backtracking matcher would find there; 0 for none. All of them look ahead only.
 *
 * A test holds them against the regex engine on random text.
 */
#include "engine/text/tokenizer_private.h"

#define LETTER (1u << 0)
#define NUMBER (1u << 1)
#define SPACE (1u << 2)
#define NEWLINE (1u << 3) /* \r \n */
#define MARK (1u << 4)
#define PUNCT (1u << 5) /* P or S */
#define UPPER (1u << 6) /* Lu Lt Lm Lo M */
#define LOWER (1u << 7) /* Ll Lm Lo M */

/* The classes of ASCII; the rest is worked out from its category. */
/* clang-format off */
#define LO (LETTER | LOWER)
#define UP (LETTER | UPPER)
static const unsigned char ascii_class[128] = {
    0,  0,  0,  0,  0,  0,  0,  0,  0,  SPACE, SPACE | NEWLINE, SPACE, SPACE, SPACE | NEWLINE, 0, 0,
    0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,
    SPACE, PUNCT, PUNCT, PUNCT, PUNCT, PUNCT, PUNCT, PUNCT, PUNCT, PUNCT, PUNCT, PUNCT, PUNCT, PUNCT, PUNCT, PUNCT,
    NUMBER, NUMBER, NUMBER, NUMBER, NUMBER, NUMBER, NUMBER, NUMBER, NUMBER, NUMBER, PUNCT, PUNCT, PUNCT, PUNCT, PUNCT, PUNCT,
    PUNCT, UP, UP, UP, UP, UP, UP, UP, UP, UP, UP, UP, UP, UP, UP, UP,
    UP, UP, UP, UP, UP, UP, UP, UP, UP, UP, UP, PUNCT, PUNCT, PUNCT, PUNCT, PUNCT,
    PUNCT, LO, LO, LO, LO, LO, LO, LO, LO, LO, LO, LO, LO, LO, LO, LO,
    LO, LO, LO, LO, LO, LO, LO, LO, LO, LO, LO, PUNCT, PUNCT, PUNCT, PUNCT, 0,
};
/* clang-format on */

static unsigned wide_class(const unsigned char *p, size_t *n)
{
	/* clang-format off */
	static const unsigned char by_category[UNICODE_N_CATEGORIES] = {
	    [CAT_LU] = LETTER | UPPER, [CAT_LL] = LETTER | LOWER, [CAT_LT] = LETTER | UPPER,
	    [CAT_LM] = LETTER | UPPER | LOWER, [CAT_LO] = LETTER | UPPER | LOWER,
	    [CAT_MN] = MARK | UPPER | LOWER, [CAT_MC] = MARK | UPPER | LOWER, [CAT_ME] = MARK | UPPER | LOWER,
	    [CAT_ND] = NUMBER, [CAT_NL] = NUMBER, [CAT_NO] = NUMBER,
	    [CAT_PC] = PUNCT, [CAT_PD] = PUNCT, [CAT_PS] = PUNCT, [CAT_PE] = PUNCT, [CAT_PI] = PUNCT, [CAT_PF] = PUNCT, [CAT_PO] = PUNCT,
	    [CAT_SM] = PUNCT, [CAT_SC] = PUNCT, [CAT_SK] = PUNCT, [CAT_SO] = PUNCT,
	};
	/* clang-format on */
	unsigned bits = unicode_bits(utf8_get(p, n));

	return by_category[UNICODE_CATEGORY(bits)] | (bits & UNICODE_SPACE ? SPACE : 0);
}

static inline unsigned class_at(const unsigned char *p, size_t *n)
{
	if (*p < 128) {
		*n = 1;
		return ascii_class[*p];
	}
	return wide_class(p, n);
}

/* Skip characters that have one of the bits. */
static inline const unsigned char *skip(const unsigned char *p, const unsigned char *end, unsigned any)
{
	size_t n;

	while (p < end && class_at(p, &n) & any)
		p += n;
	return p;
}
/* Skip characters that have none of them. */
static inline const unsigned char *skip_not(const unsigned char *p, const unsigned char *end, unsigned none)
{
	size_t n;

	while (p < end && !(class_at(p, &n) & none))
		p += n;
	return p;
}
static inline const unsigned char *skip_newlines(const unsigned char *p, const unsigned char *end)
{
	while (p < end && (*p == '\r' || *p == '\n'))
		p++;
	return p;
}

/* 's|'t|'re|'ve|'m|'ll|'d, the case open or not: with (?i:) the long s (U+017F) is an s too. */
static size_t contraction(const unsigned char *p, const unsigned char *end, int any_case)
{
	unsigned a, b;

	if (p[0] != '\'' || end - p < 2)
		return 0;
	if (any_case && p[1] == 0xC5 && p[2] == 0xBF)
		return 3;
	a = any_case && p[1] >= 'A' && p[1] <= 'Z' ? p[1] + 32u : p[1];
	if (a == 's' || a == 't' || a == 'm' || a == 'd')
		return 2;
	if (end - p < 3)
		return 0;
	b = any_case && p[2] >= 'A' && p[2] <= 'Z' ? p[2] + 32u : p[2];
	return (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l') ? 3 : 0;
}

/* \s*[\r\n]+|\s+(?!\S)|\s+ from a space at p on; without `lines` only the last two. */
static size_t spaces(const unsigned char *p, const unsigned char *end, int lines)
{
	const unsigned char *q = p, *last = p, *line = NULL;
	size_t n;

	while (q < end && class_at(q, &n) & SPACE) {
		if (*q == '\r' || *q == '\n')
			line = q + 1;
		last = q;
		q += n;
	}
	if (lines && line)
		return (size_t)(line - p);
	/* Up to the end of the text, or all but the last before something else; that last one alone if it is the only one. */
	return (size_t)((q == end || last == p ? q : last) - p);
}

/* `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+` */
static size_t scan_gpt2(const unsigned char *p, const unsigned char *end)
{
	const unsigned char *q = p;
	size_t n = contraction(p, end, 0);
	unsigned c;

	if (n)
		return n;
	if (*q == ' ' && end - q > 1)
		q++;
	c = class_at(q, &n);
	if (c & SPACE)
		return spaces(p, end, 0);
	if (c & LETTER)
		q = skip(q + n, end, LETTER);
	else if (c & NUMBER)
		q = skip(q + n, end, NUMBER);
	else
		q = skip_not(q + n, end, SPACE | LETTER | NUMBER);
	return (size_t)(q - p);
}

static size_t scan_cl100k(const unsigned char *p, const unsigned char *end, int max_digits, unsigned more_letters)
{
	const unsigned char *q;
	size_t n, m = contraction(p, end, 1);
	unsigned c, next;

	if (m)
		return m;
	c = class_at(p, &n);
	if (c & (LETTER | more_letters))
		return (size_t)(skip(p + n, end, LETTER | more_letters) - p);
	next = p + n < end ? class_at(p + n, &m) : 0;
	/* [^\r\n\p{L}\p{N}]?\p{L}+ */
	if (!(c & (NEWLINE | NUMBER)) && next & (LETTER | more_letters))
		return (size_t)(skip(p + n + m, end, LETTER | more_letters) - p);
	if (c & NUMBER) {
		q = p + n;
		for (int k = 1; k < max_digits && q < end && class_at(q, &n) & NUMBER; k++)
			q += n;
		return (size_t)(q - p);
	}
	/*  ?[^\s\p{L}\p{N}]+[\r\n]* */
	q = NULL;
	if (!(c & SPACE))
		q = p + n;
	else if (*p == ' ' && p + 1 < end && !(next & (SPACE | NUMBER)))
		q = p + 1 + m;
	if (q) {
		q = skip_not(q, end, SPACE | LETTER | NUMBER | more_letters);
		return (size_t)(skip_newlines(q, end) - p);
	}
	return spaces(p, end, 1);
}

static size_t scan_llama3(const unsigned char *p, const unsigned char *end)
{
	return scan_cl100k(p, end, 3, 0);
}

static size_t scan_qwen2(const unsigned char *p, const unsigned char *end)
{
	return scan_cl100k(p, end, 1, 0);
}

static size_t scan_qwen35(const unsigned char *p, const unsigned char *end)
{
	return scan_cl100k(p, end, 1, MARK);
}

/* [UPPER]*[LOWER]+ from p on, where Lm, Lo and marks are both. The end, or NULL. */
static const unsigned char *lower_word(const unsigned char *p, const unsigned char *end)
{
	const unsigned char *q = p, *both = NULL, *low;
	size_t n;
	unsigned c;

	/* [UPPER]* takes its whole run and gives back, if it must, up to the last character that is lower as well. */
	while (q < end && (c = class_at(q, &n)) & UPPER) {
		q += n;
		if (c & LOWER)
			both = q;
	}
	low = skip(q, end, LOWER);
	return low > q ? low : both;
}

/* The same, else [UPPER]+[LOWER]*: then there is no lower one behind the run. */
static const unsigned char *cased_word(const unsigned char *p, const unsigned char *end)
{
	const unsigned char *q = lower_word(p, end);

	return q ? q : skip(p, end, UPPER);
}

static size_t scan_cased(const unsigned char *p, const unsigned char *end, int contractions, int max_digits)
{
	const unsigned char *q = NULL;
	size_t n, m = 0;
	unsigned c = class_at(p, &n), next;

	next = p + n < end ? class_at(p + n, &m) : 0;
	if (c & MARK) {
		/* It may stand in front of a word or be its first character, which is lower enough for the first alternative. */
		q = p + n < end ? lower_word(p + n, end) : NULL;
		if (!q)
			q = lower_word(p, end);
	} else if (c & LETTER) {
		q = cased_word(p, end);
	} else if (!(c & (NEWLINE | NUMBER)) && next & (UPPER | LOWER)) {
		q = cased_word(p + n, end);
	}
	if (q) {
		if (contractions && q < end)
			q += contraction(q, end, 1);
		return (size_t)(q - p);
	}
	if (c & NUMBER) {
		q = p + n;
		for (int k = 1; k < max_digits && q < end && class_at(q, &n) & NUMBER; k++)
			q += n;
		return (size_t)(q - p);
	}
	if (!(c & SPACE))
		q = p + n;
	else if (*p == ' ' && p + 1 < end && !(next & (SPACE | LETTER | NUMBER)))
		q = p + 1 + m;
	if (q) {
		q = skip_not(q, end, SPACE | LETTER | NUMBER);
		while (q < end && (*q == '\r' || *q == '\n' || *q == '/'))
			q++;
		return (size_t)(q - p);
	}
	return spaces(p, end, 1);
}

static size_t scan_o200k(const unsigned char *p, const unsigned char *end)
{
	return scan_cased(p, end, 1, 3);
}

static size_t scan_tekken(const unsigned char *p, const unsigned char *end)
{
	return scan_cased(p, end, 0, 1);
}

/* `\p{N}{1,3}` and `\p{N}` */
static size_t scan_digits3(const unsigned char *p, const unsigned char *end)
{
	const unsigned char *q = p;
	size_t n;

	for (int k = 0; k < 3 && q < end && class_at(q, &n) & NUMBER; k++)
		q += n;
	return (size_t)(q - p);
}

static size_t scan_digit(const unsigned char *p, const unsigned char *end)
{
	size_t n;

	(void)end;
	return class_at(p, &n) & NUMBER ? n : 0;
}

/* `[一-龥぀-ゟ゠-ヿ]+` */
static size_t scan_deepseek_cjk(const unsigned char *p, const unsigned char *end)
{
	const unsigned char *q = p;
	size_t n;

	while (q < end && *q >= 0xE3) {
		uint32_t c = utf8_get(q, &n);

		if (!((c >= 0x4E00 && c <= 0x9FA5) || (c >= 0x3040 && c <= 0x30FF)))
			break;
		q += n;
	}
	return (size_t)(q - p);
}

static int is_ascii_letter(unsigned char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* The third of DeepSeek V3's:
 * `[!-/:-~ without letters][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+` */
static size_t scan_deepseek_words(const unsigned char *p, const unsigned char *end)
{
	const unsigned char *q;
	size_t n, m = 0;
	unsigned c, next;

	c = class_at(p, &n);
	if (*p < 128 && c & PUNCT && end - p > 1 && is_ascii_letter(p[1])) {
		for (q = p + 2; q < end && is_ascii_letter(*q);)
			q++;
		return (size_t)(q - p);
	}
	next = p + n < end ? class_at(p + n, &m) : 0;
	if (c & (LETTER | MARK))
		return (size_t)(skip(p + n, end, LETTER | MARK) - p);
	if (!(c & (NEWLINE | PUNCT)) && next & (LETTER | MARK))
		return (size_t)(skip(p + n + m, end, LETTER | MARK) - p);
	q = NULL;
	if (c & PUNCT)
		q = p + n;
	else if (*p == ' ' && next & PUNCT)
		q = p + 1 + m;
	if (q) {
		q = skip(q, end, PUNCT);
		return (size_t)(skip_newlines(q, end) - p);
	}
	return c & SPACE ? spaces(p, end, 1) : 0;
}

const char scan_gpt2_pattern[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

#define CASED(contractions)                                                                                                    \
	"[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+" contractions                   \
	"|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*" contractions
#define ENDING "[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

static const struct {
	const char *pattern;
	scan_fn scan;
} scans[] = {
    {scan_gpt2_pattern, scan_gpt2},
    {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| "
     "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
     scan_llama3},
    {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| "
     "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
     scan_qwen2},
    {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| "
     "?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+"
     "|\\s+(?!\\S)|\\s+",
     scan_qwen35},
    {CASED("(?i:'s|'t|'re|'ve|'m|'ll|'d)?") "|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+" ENDING, scan_o200k},
    {CASED("") "|\\p{N}| ?[^\\s\\p{L}\\p{N}]+" ENDING, scan_tekken},
    {"\\p{N}{1,3}", scan_digits3},
    {"\\p{N}", scan_digit},
    {"[一-龥぀-ゟ゠-ヿ]+", scan_deepseek_cjk},
    {"[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*"
     "|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
     scan_deepseek_words},
};

scan_fn scan_find(const char *pattern, size_t n)
{
	for (size_t i = 0; i < sizeof(scans) / sizeof(scans[0]); i++)
		if (strlen(scans[i].pattern) == n && memcmp(scans[i].pattern, pattern, n) == 0)
			return scans[i].scan;
	return NULL;
}
