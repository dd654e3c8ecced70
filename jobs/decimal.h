/* decimal.h: money without rounding. An amount is an integer number of attos (1e-18 of the sheet's currency) in 128 bits: a
 * price has at most eight decimals and stands for a million tokens, a discount at most four, so that tokens times price less
 * discount is a whole number of attos and sums of any grouping agree to the last digit. Only a division rounds: that of an hour
 * by node time, once for each attempt and day, and that of prices per million, which nothing sums.
 *
 * Limits keep products and sums inside 127 bits: prices up to a million, counts below 2^63; decimal_add says when a sum would
 * not fit. Pure functions, any thread. */
#ifndef TOKENMILL_JOBS_DECIMAL_H
#define TOKENMILL_JOBS_DECIMAL_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

__extension__ typedef __int128 atto; /* amount of money, 1e-18 */

#define PRICE_DECIMALS 8
#define PRICE_ONE 100000000LL /* a price of 1, in units of 1e-8 */
#define PRICE_MAX 1000000     /* whole units of currency */
#define SHARE_DECIMALS 4
#define SHARE_ONE 10000 /* a share of 1 */
#define ATTO_ONE ((atto)1000000000000000000LL)

enum decimal_fault {
	DECIMAL_OK = 0,
	DECIMAL_NOT_PLAIN = 1, /* not digits with at most one point: signs, exponents, inf, blanks */
	DECIMAL_NEGATIVE = 2,
	DECIMAL_TOO_FINE = 3, /* more decimals than asked for, zeros at the end aside */
	DECIMAL_TOO_LARGE = 4,
};
/* "12.5" with decimals 4 -> 125000. Nothing but a plain decimal of at most max. */
enum decimal_fault decimal_parse(const char *text, size_t n, int decimals, int64_t max, int64_t *out);

/* 0, or -1 when the sum does not fit; then *a is as before. */
int decimal_add(atto *a, atto b);
/* floor(total * part / whole) for 0 <= part <= whole, 0 < whole < 2^126, any total; exact whatever the product. */
atto decimal_share(atto total, atto part, atto whole);
/* a / b to the nearest, halves away from zero; b > 0. */
atto decimal_divide(atto a, atto b);

/* Append the exact amount, without zeros at its end: "0.00125", "-3", "0". */
void decimal_add_exact(struct buf *out, atto a);
/* Append it rounded to so many decimals (0 to 18), halves away from zero: "1.50". */
void decimal_add_rounded(struct buf *out, atto a, int decimals);
double decimal_double(atto a); /* for pictures and logs */

#endif
