/* unicode.c: the category table, UTF-8 and the normal forms (UAX #15, over utf8proc's data). */
#include "engine/text/unicode.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/mem.h"

uint16_t unicode_block[(UNICODE_MAX + 1) >> 8];
uint16_t (*unicode_bits_table)[256];
static pthread_once_t table_once = PTHREAD_ONCE_INIT;

/* Most blocks of 256 are filled by a single run, and equal ones share their table. The table lives as long as the process. */
static void make_table(void)
{
	static int16_t uniform[2048]; /* index + 1 of the table for a block with these bits throughout */
	size_t run = 0, n = 0, cap = 0;

	for (uint32_t block = 0; block < sizeof(unicode_block) / sizeof(unicode_block[0]); block++) {
		uint32_t first = block << 8, last = first + 255;
		uint16_t bits[256];

		while (run + 1 < unicode_n_runs && unicode_runs[run + 1] >> 11 <= first)
			run++;
		if (run + 1 == unicode_n_runs || unicode_runs[run + 1] >> 11 > last) {
			unsigned b = unicode_runs[run] & 2047u;

			if (uniform[b]) {
				unicode_block[block] = (uint16_t)(uniform[b] - 1);
				continue;
			}
			uniform[b] = (int16_t)(n + 1);
		}
		for (size_t i = 0, r = run; i < 256; i++) {
			while (r + 1 < unicode_n_runs && unicode_runs[r + 1] >> 11 <= first + i)
				r++;
			bits[i] = (uint16_t)(unicode_runs[r] & 2047u);
		}
		MEM_GROW(unicode_bits_table, cap, n + 1);
		memcpy(unicode_bits_table[n], bits, sizeof(bits));
		unicode_block[block] = (uint16_t)n++;
	}
}

void unicode_init(void)
{
	pthread_once(&table_once, make_table);
}

size_t utf8_put(uint32_t c, char out[4])
{
	if (c < 0x80) {
		out[0] = (char)c;
		return 1;
	}
	if (c < 0x800) {
		out[0] = (char)(0xC0 | c >> 6);
		out[1] = (char)(0x80 | (c & 63));
		return 2;
	}
	if (c < 0x10000) {
		out[0] = (char)(0xE0 | c >> 12);
		out[1] = (char)(0x80 | (c >> 6 & 63));
		out[2] = (char)(0x80 | (c & 63));
		return 3;
	}
	out[0] = (char)(0xF0 | c >> 18);
	out[1] = (char)(0x80 | (c >> 12 & 63));
	out[2] = (char)(0x80 | (c >> 6 & 63));
	out[3] = (char)(0x80 | (c & 63));
	return 4;
}

size_t utf8_check(const unsigned char *p, const unsigned char *end, size_t *bad, int *cut)
{
	size_t left = (size_t)(end - p), size;
	unsigned char lo = 0x80, hi = 0xBF;

	*cut = 0;
	*bad = 1;
	if (p[0] < 0x80)
		return 1;
	if (p[0] < 0xC2 || p[0] > 0xF4)
		return 0;
	size = utf8_size(p[0]);
	/* The second byte's range excludes overlong forms, surrogates and what is above U+10FFFF (Unicode, table 3-7). */
	if (p[0] == 0xE0)
		lo = 0xA0;
	else if (p[0] == 0xED)
		hi = 0x9F;
	else if (p[0] == 0xF0)
		lo = 0x90;
	else if (p[0] == 0xF4)
		hi = 0x8F;
	for (size_t i = 1; i < size; i++) {
		if (i == left) {
			*cut = 1;
			*bad = i;
			return 0;
		}
		if (p[i] < lo || p[i] > hi) {
			*bad = i;
			return 0;
		}
		lo = 0x80;
		hi = 0xBF;
	}
	return size;
}

int utf8_valid(const char *s, size_t n)
{
	const unsigned char *p = (const unsigned char *)s, *end = p + n;
	size_t bad, size;
	int cut;

	while (p < end) {
		uint64_t word;

		while (end - p >= 8 && (memcpy(&word, p, 8), (word & 0x8080808080808080u) == 0))
			p += 8;
		if (p == end)
			break;
		if (*p < 0x80) {
			p++;
			continue;
		}
		size = utf8_check(p, end, &bad, &cut);
		if (!size)
			return 0;
		p += size;
	}
	return 1;
}

void utf8_add_lossy(struct buf *out, const char *s, size_t n)
{
	const unsigned char *p = (const unsigned char *)s, *end = p + n, *good = p;

	while (p < end) {
		size_t bad, size;
		int cut;

		size = utf8_check(p, end, &bad, &cut);
		if (size) {
			p += size;
			continue;
		}
		buf_add(out, good, (size_t)(p - good));
		buf_adds(out, "\xEF\xBF\xBD");
		p += bad;
		good = p;
	}
	buf_add(out, good, (size_t)(p - good));
}

static int is_inert(uint32_t c)
{
	size_t lo = 0, hi = unicode_n_inert;

	if (c < unicode_inert[0][0])
		return 0;
	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (c > unicode_inert[mid][1])
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < unicode_n_inert && c >= unicode_inert[lo][0];
}

static int combining_class(int32_t c)
{
	return utf8proc_get_property(c)->combining_class;
}

/* Stable order of a run of marks by combining class. Insertion for the usual handful, counting for a hostile megabyte. */
static void order_marks(int32_t *c, size_t n)
{
	if (n <= 32) {
		for (size_t i = 1; i < n; i++) {
			int32_t x = c[i];
			int class = combining_class(x);
			size_t j = i;

			for (; j > 0 && combining_class(c[j - 1]) > class; j--)
				c[j] = c[j - 1];
			c[j] = x;
		}
		return;
	}
	size_t at[257] = {0};
	int32_t *copy = xreallocarray(NULL, n, sizeof(*copy));

	memcpy(copy, c, n * sizeof(*copy));
	for (size_t i = 0; i < n; i++)
		at[combining_class(copy[i]) + 1]++;
	for (size_t i = 1; i < 257; i++)
		at[i] += at[i - 1];
	for (size_t i = 0; i < n; i++)
		c[at[combining_class(copy[i])]++] = copy[i];
	free(copy);
}

/* Order and compose the n decomposed characters c, append them as UTF-8. */
static void finish_run(int32_t *c, size_t n, int compose, struct buf *out)
{
	for (size_t i = 0; i < n;) {
		size_t j = i;

		while (j < n && combining_class(c[j]) != 0)
			j++;
		if (j - i > 1)
			order_marks(c + i, j - i);
		i = j + 1;
	}
	if (compose && n > 0)
		n = (size_t)utf8proc_normalize_utf32(c, (utf8proc_ssize_t)n, UTF8PROC_COMPOSE | UTF8PROC_STABLE);
	buf_reserve(out, n * 4);
	for (size_t i = 0; i < n; i++)
		out->len += utf8_put((uint32_t)c[i], out->data + out->len);
	out->data[out->len] = '\0';
}

/* An inert character (is_inert) ends a run: no mark moves across it and it combines with nothing. */
static void normalize_part(int decompose, int compose, const unsigned char *p, const unsigned char *end, struct buf *out)
{
	int32_t *c = NULL;
	size_t n = 0, cap = 0;

	while (p < end) {
		size_t size;
		uint32_t code = utf8_get(p, &size);
		int boundary_class, k;

		if (is_inert(code)) {
			finish_run(c, n, compose, out);
			n = 0;
			buf_add(out, p, size);
		} else {
			/* The longest decomposition is 18 characters (U+FDFA). */
			MEM_GROW(c, cap, n + 32);
			k = (int)utf8proc_decompose_char((int32_t)code, c + n, 32, (utf8proc_option_t)decompose, &boundary_class);
			if (k <= 0 || k > 32) {
				c[n] = (int32_t)code;
				k = 1;
			}
			n += (size_t)k;
		}
		p += size;
	}
	finish_run(c, n, compose, out);
	free(c);
}

void unicode_normalize(enum unicode_form form, const char *s, size_t n, struct buf *out)
{
	const unsigned char *p = (const unsigned char *)s, *end = p + n, *kept = p, *last = p;
	int compose = form == FORM_NFC || form == FORM_NFKC;
	int decompose = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE;

	if (form == FORM_NFKC || form == FORM_NFKD)
		decompose |= UTF8PROC_COMPAT;
	/* Copy what cannot change; around what can, normalise from the safe character before it up to the next safe one. */
	while (p < end) {
		size_t size;
		uint32_t c = utf8_get(p, &size);

		if (c < 0x80 || (form == FORM_NFC && unicode_bits(c) & UNICODE_NFC_SAFE)) {
			last = p;
			p += size;
			continue;
		}
		buf_add(out, kept, (size_t)(last - kept));
		while (p < end) {
			c = utf8_get(p, &size);
			if (c < 0x80 || (form == FORM_NFC && unicode_bits(c) & UNICODE_NFC_SAFE))
				break;
			p += size;
		}
		normalize_part(decompose, compose, last, p, out);
		kept = last = p;
	}
	buf_add(out, kept, (size_t)(p - kept));
}

/* Letters that Unicode 16 and 17 gave a lower case, for a utf8proc that is older. */
static uint32_t lower_recent(uint32_t c)
{
	static const uint32_t pairs[][2] = {
	    {0x1C89, 0x1C8A}, {0xA7CB, 0x264},  {0xA7CC, 0xA7CD}, {0xA7CE, 0xA7CF},
	    {0xA7D2, 0xA7D3}, {0xA7D4, 0xA7D5}, {0xA7DA, 0xA7DB}, {0xA7DC, 0x19B},
	};

	for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
		if (pairs[i][0] == c)
			return pairs[i][1];
	if (c >= 0x10D50 && c <= 0x10D65)
		return c + 0x20;
	if (c >= 0x16EA0 && c <= 0x16EB8)
		return c + 27;
	return c;
}

void unicode_lower(const char *s, size_t n, struct buf *out)
{
	const unsigned char *p = (const unsigned char *)s, *end = p + n;

	buf_reserve(out, 2 * n + 4);
	while (p < end) {
		size_t size;
		uint32_t c = utf8_get(p, &size);

		p += size;
		buf_reserve(out, 4);
		if (c == 0x130) { /* the only letter with two characters in lower case */
			buf_adds(out, "i\xCC\x87");
			continue;
		}
		if (c < 0x80) {
			c += c >= 'A' && c <= 'Z' ? 32 : 0;
		} else {
			uint32_t recent = lower_recent(c);

			c = recent != c ? recent : (uint32_t)utf8proc_tolower((int32_t)c);
		}
		out->len += utf8_put(c, out->data + out->len);
	}
	if (out->data)
		out->data[out->len] = '\0';
}
