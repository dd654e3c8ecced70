/* byte_alphabet.c: GPT-2's bytes_to_unicode: printable bytes stand for themselves, the 68 others for U+0100 on. */
#include "engine/text/tokenizer_private.h"

static int is_plain(unsigned b)
{
	return (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || (b >= 0xAE && b <= 0xFF);
}

/* How many of the bytes below b are not plain: 0x00-0x20, 0x7F-0xA0, 0xAD. */
uint32_t byte_alphabet_char(unsigned char byte)
{
	unsigned b = byte;

	if (is_plain(b))
		return b;
	return b <= 0x20 ? 0x100 + b : b <= 0xA0 ? 0x121 + (b - 0x7F) : 0x143;
}

int byte_alphabet_byte(uint32_t c)
{
	if (c < 0x100)
		return is_plain(c) ? (int)c : -1;
	if (c <= 0x120)
		return (int)c - 0x100;
	if (c <= 0x142)
		return (int)c - 0x121 + 0x7F;
	return c == 0x143 ? 0xAD : -1;
}

int byte_alphabet_decode(const char *s, size_t n, struct buf *out)
{
	const unsigned char *p = (const unsigned char *)s, *end = p + n;
	size_t was = out->len;

	buf_reserve(out, n);
	while (p < end) {
		size_t size;
		int b = byte_alphabet_byte(utf8_get(p, &size));

		if (b < 0) {
			buf_truncate(out, was);
			return 0;
		}
		out->data[out->len++] = (char)b;
		p += size;
	}
	out->data[out->len] = '\0';
	return 1;
}

void byte_alphabet_encode(const char *s, size_t n, struct buf *out)
{
	buf_reserve(out, 2 * n);
	for (size_t i = 0; i < n; i++)
		out->len += utf8_put(byte_alphabet_char((unsigned char)s[i]), out->data + out->len);
	out->data[out->len] = '\0';
}
