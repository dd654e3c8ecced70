/* jinja_layout.c: see jinja_layout.h. */
#include "engine/text/jinja_layout.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "engine/text/jinja_unicode.h"

void layout_add_padded(struct render *r, struct buf *out, const struct layout *l, char align, const char *prefix,
                       const char *body, size_t n)
{
	int64_t room = l->width - (int64_t)strlen(prefix) - (int64_t)utf8_count(body, n), left, right;
	struct buf fill = {0};

	utf8_add(&fill, l->fill);
	if (room < 0)
		room = 0;
	left = align == '<' || align == '=' ? 0 : align == '^' ? room / 2 : room;
	right = align == '<' || align == '^' ? room - left : 0;
	for (int64_t i = 0; i < left && !r->failed; i++)
		text_add(r, out, fill.data, fill.len);
	text_adds(r, out, prefix);
	for (int64_t i = 0; align == '=' && i < room && !r->failed; i++)
		text_add(r, out, fill.data, fill.len);
	text_add(r, out, body, n);
	for (int64_t i = 0; i < right && !r->failed; i++)
		text_add(r, out, fill.data, fill.len);
	buf_release(&fill);
}

static void add_unsigned(struct buf *b, unsigned __int128 u, unsigned base, int upper)
{
	char digits[130];
	size_t at = sizeof(digits);

	do {
		digits[--at] = (upper ? "0123456789ABCDEF" : "0123456789abcdef")[u % base];
		u /= base;
	} while (u);
	buf_add(b, digits + at, sizeof(digits) - at);
}

/* Separators into the leading run of digits. Zeros that fill a field are digits too: they are grouped with the others. */
static void group_digits(struct buf *b, const struct layout *l, size_t n_prefix, size_t every)
{
	size_t n = 0, total, width = l->width > 0 ? (size_t)l->width : 0;
	struct buf out = {0};

	while (n < b->len && (every == 3 ? isdigit((unsigned char)b->data[n]) : isxdigit((unsigned char)b->data[n])))
		n++;
	total = n;
	while (n && l->align == '=' && l->fill == '0' && total + (total - 1) / every + b->len - n + n_prefix < width &&
	       total < MAX_PRECISION)
		total++;
	for (size_t i = 0; i < total; i++) {
		if (i && (total - i) % every == 0)
			buf_addc(&out, l->grouping);
		buf_addc(&out, i < total - n ? '0' : b->data[i - (total - n)]);
	}
	buf_add(&out, b->data + n, b->len - n);
	buf_release(b);
	*b = out;
}

void layout_add_integer(struct render *r, struct buf *out, const struct layout *l, __int128 i)
{
	unsigned __int128 u = i < 0 ? -(unsigned __int128)i : (unsigned __int128)i;
	unsigned base = l->type == 'x' || l->type == 'X' ? 16 : l->type == 'o' ? 8 : l->type == 'b' ? 2 : 10;
	char prefix[8] = "";
	struct buf digits = {0};

	if (i < 0 || (l->sign && l->sign != '-'))
		snprintf(prefix, sizeof(prefix), "%c", i < 0 ? '-' : l->sign);
	if (l->alternate && base != 10)
		snprintf(prefix + strlen(prefix), sizeof(prefix) - strlen(prefix), "0%c", l->type);
	add_unsigned(&digits, u, base, l->type == 'X');
	if (l->precision > (int)digits.len) { /* only %: minimal digits */
		struct buf padded = {0};

		for (int k = (int)digits.len; k < l->precision; k++)
			buf_addc(&padded, '0');
		buf_add(&padded, digits.data, digits.len);
		buf_release(&digits);
		digits = padded;
	}
	if (l->grouping)
		group_digits(&digits, l, strlen(prefix), base == 10 ? 3 : 4);
	layout_add_padded(r, out, l, l->align ? l->align : '>', prefix, buf_str(&digits), digits.len);
	buf_release(&digits);
}

/* The digits of |d| as the type asks. */
static void add_float_digits(struct buf *b, const struct layout *l, double d)
{
	char format[16], type = l->type == 'n' ? 'g' : l->type;
	int precision = l->precision < 0 ? 6 : l->precision;

	if (isnan(d) || isinf(d)) {
		int upper = l->type == 'F' || l->type == 'E' || l->type == 'G';

		buf_adds(b, isnan(d) ? (upper ? "NAN" : "nan") : upper ? "INF" : "inf");
		return;
	}
	if (!type && l->precision < 0) {
		text_add_float(b, d);
		return;
	}
	if (!type) {
		/* As g, but with a digit after the point unless there is an exponent (format(3.0, ".3") is "3.0"). */
		size_t from = b->len;

		if (precision == 0)
			precision = 1;
		buf_addf(b, "%.*g", precision, d);
		if (!strpbrk(b->data + from, ".e"))
			buf_adds(b, ".0");
		return;
	}
	if (type == '%') {
		buf_addf(b, "%.*f%%", precision, d * 100);
		return;
	}
	snprintf(format, sizeof(format), "%%%s.*%c", l->alternate ? "#" : "", type);
	if ((type == 'g' || type == 'G') && precision == 0)
		precision = 1;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	buf_addf(b, format, precision, d);
#pragma GCC diagnostic pop
}

void layout_add_float(struct render *r, struct buf *out, const struct layout *l, double d)
{
	char prefix[2] = "";
	struct buf digits = {0};

	if ((signbit(d) && !isnan(d)) || (l->sign && l->sign != '-'))
		prefix[0] = signbit(d) && !isnan(d) ? '-' : l->sign;
	add_float_digits(&digits, l, fabs(d));
	if (l->grouping)
		group_digits(&digits, l, strlen(prefix), 3);
	layout_add_padded(r, out, l, l->align ? l->align : '>', prefix, buf_str(&digits), digits.len);
	buf_release(&digits);
}

void layout_add_text(struct render *r, struct buf *out, const struct layout *l, char align, const struct jstr *s)
{
	size_t n = s->n;

	if (l->precision >= 0 && (size_t)l->precision < s->n_chars)
		n = utf8_offset(s->s, s->n, s->n_chars, (size_t)l->precision);
	layout_add_padded(r, out, l, align, "", s->s, n);
}
