/* decimal.c: parsing, dividing and printing amounts of money. */
#include "jobs/decimal.h"

#include <ctype.h>

__extension__ typedef unsigned __int128 wide;

enum decimal_fault decimal_parse(const char *text, size_t n, int decimals, int64_t max, int64_t *out)
{
	int64_t one = 1, value = 0;
	size_t i = 0;
	int n_fraction = 0, n_digits = 0;

	for (int k = 0; k < decimals; k++)
		one *= 10;
	if (n > 1 && text[0] == '-' && (isdigit((unsigned char)text[1]) || text[1] == '.'))
		return DECIMAL_NEGATIVE;
	for (; i < n && isdigit((unsigned char)text[i]); i++, n_digits++) {
		value = value * 10 + (text[i] - '0');
		if (value > max)
			return DECIMAL_TOO_LARGE;
	}
	value *= one;
	if (i < n && text[i] == '.') {
		for (i++; i < n && isdigit((unsigned char)text[i]); i++, n_digits++) {
			one /= 10;
			n_fraction++;
			if (n_fraction > decimals && text[i] != '0')
				return DECIMAL_TOO_FINE;
			value += n_fraction > decimals ? 0 : one * (text[i] - '0');
		}
	}
	if (i < n || n_digits == 0)
		return DECIMAL_NOT_PLAIN;
	one = 1;
	for (int k = 0; k < decimals; k++)
		one *= 10;
	if (value > max * one)
		return DECIMAL_TOO_LARGE;
	*out = value;
	return DECIMAL_OK;
}

int decimal_add(atto *a, atto b)
{
	atto sum;

	if (__builtin_add_overflow(*a, b, &sum))
		return -1;
	*a = sum;
	return 0;
}

/* Long multiplication and division at once, bit by bit from the top of total: what is carried never exceeds 2 * whole. */
atto decimal_share(atto total, atto part, atto whole)
{
	wide t = total < 0 ? (wide)0 - (wide)total : (wide)total, q = 0, r = 0, w = (wide)whole, p = (wide)part;

	for (int bit = 127; bit >= 0; bit--) {
		q <<= 1;
		r <<= 1;
		if (r >= w) {
			r -= w;
			q++;
		}
		if (t >> bit & 1) {
			r += p;
			if (r >= w) {
				r -= w;
				q++;
			}
		}
	}
	if (total >= 0)
		return (atto)q;
	return -(atto)q - (r != 0);
}

atto decimal_divide(atto a, atto b)
{
	atto q = a / b, r = a % b;

	if (r < 0)
		r = -r;
	return r >= b - r ? q + (a < 0 ? -1 : 1) : q;
}

static void add_digits(struct buf *out, wide v, int decimals, int keep_zeros)
{
	char digits[48];
	int n = 0, first = 0;

	while (v > 0 || n <= decimals) {
		digits[n++] = (char)('0' + (int)(v % 10));
		v /= 10;
	}
	while (!keep_zeros && first < decimals && digits[first] == '0')
		first++;
	for (int i = n - 1; i >= first; i--) {
		buf_addc(out, digits[i]);
		if (i == decimals && i > first)
			buf_addc(out, '.');
	}
}

void decimal_add_exact(struct buf *out, atto a)
{
	if (a < 0)
		buf_addc(out, '-');
	add_digits(out, a < 0 ? (wide)0 - (wide)a : (wide)a, 18, 0);
}

void decimal_add_rounded(struct buf *out, atto a, int decimals)
{
	atto unit = 1;

	for (int i = decimals; i < 18; i++)
		unit *= 10;
	a = decimal_divide(a, unit);
	if (a < 0)
		buf_addc(out, '-');
	add_digits(out, a < 0 ? (wide)0 - (wide)a : (wide)a, decimals, 1);
}

double decimal_double(atto a)
{
	return (double)a / 1e18;
}
