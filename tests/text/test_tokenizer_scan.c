/* Tests of the pre-tokenizer scans and of the regex translation: each scan against PCRE2 running the translated pattern, on
 * random text that is dense in the characters where the alternatives of the patterns meet. */
#include "base/mem.h"
#include "engine/text/regex.h"
#include "engine/text/tokenizer_private.h"
#include "tests/check.h"

static uint64_t seed = 1;

static uint32_t pick(uint32_t n)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(seed >> 33) % n;
}

static void add_random_char(struct buf *b)
{
	static const char *const usual[] = {
	    " ",      " ",        "  ",     "\n",     "\r",      "\t",     "\r\n",       "'",          "'s",         "'S",
	    "'t",     "'re",      "'LL",    "'v",     "'\u017f", "a",      "b",          "A",          "B",          "\u00e9",
	    "1",      "2",        "\u00b2", "\u2167", ".",       "!",      "/",          "$",          "_",          "\u0301",
	    "\u0903", "\u20dd",   "\u4e00", "\u30fc", "\u3007",  "\u01c5", "\u02b0",     "\u00aa",     "\u3000",     "\u00a0",
	    "\u2028", "\xC2\x85", "\u200b", "\u200d", "\u00ad",  "\ufffd", "\U0001f600", "\U00010400", "\U000e0100", "\x01",
	};
	uint32_t c;
	char bytes[4];

	if (pick(8) > 0) {
		buf_adds(b, usual[pick(sizeof(usual) / sizeof(usual[0]))]);
		return;
	}
	c = pick(2) ? pick(0x3000) : pick(0x110000);
	if (c >= 0xD800 && c <= 0xDFFF)
		c = 'x';
	buf_add(b, bytes, utf8_put(c, bytes));
}

/* The next match at or after from, by the scan. */
static int find_by_scan(scan_fn scan, const struct buf *b, size_t from, size_t *start, size_t *end)
{
	const unsigned char *p = (const unsigned char *)b->data;

	for (size_t i = from; i < b->len; i += utf8_size(p[i])) {
		size_t n = scan(p + i, p + b->len);

		if (n > 0) {
			*start = i;
			*end = i + n;
			return 1;
		}
	}
	return 0;
}

static void check_pattern(const char *pattern)
{
	struct err err = {0};
	scan_fn scan = scan_find(pattern, strlen(pattern));
	struct regex *r = regex_new(pattern, strlen(pattern), &err);
	struct regex_scratch *s = regex_scratch_new();
	struct buf b = {0};

	CHECK(scan != NULL);
	CHECK(r != NULL);
	for (int round = 0; round < 20000 && scan && r; round++) {
		size_t from = 0, start[2], end[2];
		int found[2];

		buf_reset(&b);
		for (uint32_t n = 1 + pick(12); n > 0; n--)
			add_random_char(&b);
		do {
			found[0] = find_by_scan(scan, &b, from, &start[0], &end[0]);
			found[1] = regex_find(r, s, b.data, b.len, from, &start[1], &end[1], &err);
			if (found[0] != found[1] || (found[0] && (start[0] != start[1] || end[0] != end[1]))) {
				printf("pattern %.30s on \"%s\" from %zu: scan %d %zu-%zu, regex %d %zu-%zu\n", pattern, b.data, from, found[0],
				       start[0], end[0], found[1], start[1], end[1]);
				CHECK(0);
				goto out;
			}
			from = end[0];
		} while (found[0]);
	}
out:
	buf_release(&b);
	regex_scratch_free(s);
	regex_free(r);
}

#define CASE "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define REST "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

TEST(scans_equal_regexes)
{
	check_pattern(scan_gpt2_pattern);
	check_pattern(CASE "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" REST);
	check_pattern(CASE "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" REST);
	check_pattern(CASE "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" REST);
	check_pattern("[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+" CASE
	              "?|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*" CASE
	              "?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" REST);
	check_pattern("[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+"
	              "|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*"
	              "|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" REST);
	check_pattern("\\p{N}{1,3}");
	check_pattern("\\p{N}");
	check_pattern("[一-龥぀-ゟ゠-ヿ]+");
	check_pattern("[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
	              "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+");
}

TEST(translation)
{
	static const struct {
		const char *pattern, *expected; /* NULL: refused */
	} cases[] = {
	    {"a.b", "a[^\\n]b"},
	    {"(?m:.)", "(?-i:(?s:.))"},
	    {"x{2}+", "(?:x{2,2})+"},
	    {"x{,3}?", "x{0,3}?"},
	    {"x{2}?", "(?:x{2,2})?"},
	    {"x**", "(?:x*)*"},
	    {"(a)(?<n>b)", "(?:a)(?:b)"},
	    {"a{", "a\\x{7b}"},
	    {"[a-c&&b-d]", "[\\x{62}-\\x{63}]"},
	    {"[^a[bc]]", "[^\\x{61}-\\x{63}]"},
	    {"[]a]", "[\\x{5d}\\x{61}]"},
	    {"[\\r\\n]", "[\\x{a}\\x{d}]"},
	    {"\\h", "[\\x{30}-\\x{39}\\x{41}-\\x{46}\\x{61}-\\x{66}]"},
	    {"(?i)ss", NULL},
	    {"(?s).", NULL},
	    {"a(?i)b", NULL},
	    {"\\1", NULL},
	    {"\\X", NULL},
	    {"(?(1)a)", NULL},
	    {"[[:alpha:]]", NULL},
	    {"\\p{Nonsense}", NULL},
	    {"(a", NULL},
	    {"a)", NULL},
	    {"[a", NULL},
	    {"*", NULL},
	    {"[b-a]", NULL},
	    {"a\\", NULL},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct err err = {0};
		struct buf out = {0};
		int status = regex_translate(cases[i].pattern, strlen(cases[i].pattern), &out, &err);

		if (cases[i].expected) {
			CHECK_STR(buf_str(&out), cases[i].expected);
		} else if (status == 0 || err.code != ERR_MODEL) {
			printf("accepted: %s\n", cases[i].pattern);
			CHECK(0);
		}
		buf_release(&out);
	}
}

TEST(hostile_regex_ends)
{
	struct err err = {0};
	struct buf text = {0};
	struct regex *r = regex_new("(a*)*b|(?:a|a)+c", 16, &err);
	struct regex_scratch *s = regex_scratch_new();
	size_t start, end;

	for (int i = 0; i < 5000; i++)
		buf_addc(&text, 'a');
	CHECK(r != NULL);
	CHECK_INT(regex_find(r, s, text.data, text.len, 0, &start, &end, &err), -1);
	CHECK_INT(err.code, ERR_ROW);
	regex_scratch_free(s);
	regex_free(r);
	buf_release(&text);
}

int main(void)
{
	RUN(scans_equal_regexes);
	RUN(translation);
	RUN(hostile_regex_ends);
	return TEST_RESULT();
}
