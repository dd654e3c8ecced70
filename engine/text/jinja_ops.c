/* jinja_ops.c: operators, and numbers from text. Python's rules, except that integers end at 128 bits. */
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/text/jinja_eval.h"
#include "engine/text/jinja_unicode.h"

/* Appending to a string that is the last thing in its block costs only the appended bytes. */
struct jval str_concat(struct render *r, struct jval a, struct jval b)
{
	const struct jstr *x = a.str, *y = b.str;
	size_t n = x->n + y->n;
	struct jstr *s;
	char *p;

	if (n > r->max_output)
		return render_fail(r, "the template makes a text of more than %zu bytes", r->max_output);
	s = render_alloc(r, sizeof(*s));
	*s = (struct jstr){.n = n, .n_chars = x->n_chars + y->n_chars, .tail = x->tail};
	if (x->tail && x->tail->used == x->n && x->tail->cap - x->n >= y->n) {
		p = (char *)x->s;
	} else {
		size_t cap = n < 256 ? n : n * 2;

		p = render_alloc(r, cap + 1);
		if (!p)
			return jval_none();
		if (x->n)
			memcpy(p, x->s, x->n);
		s->tail = NULL;
		if (cap > n) {
			s->tail = render_alloc(r, sizeof(*s->tail));
			s->tail->cap = cap;
		}
	}
	if (y->n)
		memcpy(p + x->n, y->s, y->n);
	if (s->tail)
		s->tail->used = n;
	s->s = p;
	return (struct jval){.type = J_STR, .str = s};
}

static struct jval concat_marked(struct render *r, struct jval a, struct jval b)
{
	if (a.flag || b.flag) {
		a = str_escape(r, a);
		b = str_escape(r, b);
		return r->failed ? a : jval_markup(str_concat(r, a, b));
	}
	return str_concat(r, a, b);
}

static struct jval repeat(struct render *r, struct jval v, struct jval by)
{
	__int128 count = jval_as_int(by);
	struct jlist *l;
	struct buf text = {0};

	if (count < 0)
		count = 0;
	if (v.type == J_STR) {
		struct jval s;

		for (__int128 i = 0; v.str->n && i < count; i++)
			if (text_add_str(r, &text, v.str))
				break;
		s = jval_text(r, &text);
		s.flag = v.flag;
		return s;
	}
	l = list_new(r, 0);
	for (__int128 i = 0; v.list->n && i < count && render_step(r, v.list->n) && !r->failed; i++)
		for (size_t k = 0; k < v.list->n; k++)
			list_add(r, l, v.list->items[k]);
	return v.type == J_LIST ? jval_list(l) : jval_tuple(l);
}

static struct jval overflow(struct render *r)
{
	return render_fail(r, "integer overflow: integers of more than 128 bits are not supported");
}

static __int128 floor_div(__int128 a, __int128 b)
{
	__int128 q = a / b;

	return a % b != 0 && (a < 0) != (b < 0) ? q - 1 : q;
}

static struct jval integer_power(struct render *r, __int128 a, __int128 b)
{
	__int128 result = 1;

	if (b < 0) {
		if (a == 0)
			return render_fail(r, "0 cannot be raised to a negative power");
		return jval_float(pow((double)a, (double)b));
	}
	if (a == 0 || a == 1 || a == -1)
		return jval_int(b == 0 ? 1 : a == -1 && b % 2 == 0 ? 1 : a);
	for (; b > 0; b--)
		if (__builtin_mul_overflow(result, a, &result))
			return overflow(r);
	return jval_int(result);
}

static struct jval integer_op(struct render *r, enum node_kind op, __int128 a, __int128 b)
{
	__int128 v = 0;

	switch (op) {
	case N_ADD:
		return __builtin_add_overflow(a, b, &v) ? overflow(r) : jval_int(v);
	case N_SUB:
		return __builtin_sub_overflow(a, b, &v) ? overflow(r) : jval_int(v);
	case N_MUL:
		return __builtin_mul_overflow(a, b, &v) ? overflow(r) : jval_int(v);
	case N_POW:
		return integer_power(r, a, b);
	default:
		break;
	}
	if (b == 0)
		return render_fail(r, "division by zero");
	if (b == -1)
		return op == N_MOD ? jval_int(0) : op == N_DIV ? jval_float(-(double)a) : integer_op(r, N_SUB, 0, a);
	if (op == N_DIV)
		return jval_float((double)a / (double)b);
	return jval_int(op == N_FLOORDIV ? floor_div(a, b) : a - floor_div(a, b) * b);
}

static struct jval float_op(struct render *r, enum node_kind op, double a, double b)
{
	double mod, div, v;

	switch (op) {
	case N_ADD:
		return jval_float(a + b);
	case N_SUB:
		return jval_float(a - b);
	case N_MUL:
		return jval_float(a * b);
	case N_POW:
		if (a == 0 && b < 0)
			return render_fail(r, "0.0 cannot be raised to a negative power");
		v = pow(a, b);
		if (isnan(v) && !isnan(a) && !isnan(b))
			return render_fail(r, "complex numbers are not supported");
		if (isinf(v) && !isinf(a) && !isinf(b))
			return render_fail(r, "numerical result out of range");
		return jval_float(v);
	default:
		break;
	}
	if (b == 0)
		return render_fail(r, "float division by zero");
	if (op == N_DIV)
		return jval_float(a / b);
	/* As float_divmod of CPython's floatobject.c. */
	mod = fmod(a, b);
	div = (a - mod) / b;
	if (mod != 0) {
		if ((b < 0) != (mod < 0)) {
			mod += b;
			div -= 1;
		}
	} else {
		mod = copysign(0, b);
	}
	if (op == N_MOD)
		return jval_float(mod);
	if (div == 0)
		return jval_float(copysign(0, a / b));
	v = floor(div);
	return jval_float(div - v > 0.5 ? v + 1 : v);
}

struct jval op_binary(struct render *r, enum node_kind op, struct jval a, struct jval b)
{
	static const char *const signs[] = {
	    [N_ADD] = "+", [N_SUB] = "-", [N_MUL] = "*", [N_DIV] = "/", [N_FLOORDIV] = "//", [N_MOD] = "%", [N_POW] = "** or pow()",
	};

	if (jval_is_number(a) && jval_is_number(b)) {
		if (a.type == J_FLOAT || b.type == J_FLOAT)
			return float_op(r, op, jval_as_double(a), jval_as_double(b));
		return integer_op(r, op, jval_as_int(a), jval_as_int(b));
	}
	if (op == N_MOD && a.type == J_STR)
		return format_percent(r, a, b);
	if (a.type == J_UNDEFINED || b.type == J_UNDEFINED)
		return render_fail_undefined(r, a.type == J_UNDEFINED ? a : b);
	if (op == N_ADD && a.type == J_STR && b.type == J_STR)
		return concat_marked(r, a, b);
	if (op == N_ADD && a.type == b.type && (a.type == J_LIST || a.type == J_TUPLE)) {
		struct jlist *l = list_new(r, a.list->n + b.list->n);

		for (size_t i = 0; i < a.list->n && render_step(r, 1); i++)
			list_add(r, l, a.list->items[i]);
		for (size_t i = 0; i < b.list->n && render_step(r, 1); i++)
			list_add(r, l, b.list->items[i]);
		return a.type == J_LIST ? jval_list(l) : jval_tuple(l);
	}
	if (op == N_MUL && jval_is_integer(b) && (a.type == J_STR || a.type == J_LIST || a.type == J_TUPLE))
		return repeat(r, a, b);
	if (op == N_MUL && jval_is_integer(a) && (b.type == J_STR || b.type == J_LIST || b.type == J_TUPLE))
		return repeat(r, b, a);
	return render_fail(r, "unsupported operand type(s) for %s: '%s' and '%s'", signs[op], jval_type_name(a), jval_type_name(b));
}

struct jval op_unary(struct render *r, enum node_kind op, struct jval a)
{
	if (a.type == J_FLOAT)
		return op == N_NEG ? jval_float(-a.d) : a;
	if (jval_is_integer(a))
		return op == N_NEG ? integer_op(r, N_SUB, 0, jval_as_int(a)) : jval_int(jval_as_int(a));
	if (a.type == J_UNDEFINED)
		return render_fail_undefined(r, a);
	return render_fail(r, "bad operand type for unary %s: '%s'", op == N_NEG ? "-" : "+", jval_type_name(a));
}

/* White space off both ends. */
static void trim(const char **s, size_t *n)
{
	while (*n) {
		size_t i = 0;

		if (!unicode_is_space(utf8_next(*s, *n, &i)))
			break;
		*s += i;
		*n -= i;
	}
	while (*n) {
		size_t i = *n;

		if (!unicode_is_space(utf8_previous(*s, &i)))
			break;
		*n = i;
	}
}

struct jval int_parse(struct render *r, const struct jstr *str, int base)
{
	struct jval none = {.type = J_MISSING};
	const char *s = str->s;
	size_t n = str->n, i = 0;
	int negative = 0, digits = 0, prefix;
	__int128 v = 0;

	trim(&s, &n);
	if (n && (s[0] == '-' || s[0] == '+'))
		negative = s[i++] == '-';
	prefix = i + 1 < n && s[i] == '0' ? tolower((unsigned char)s[i + 1]) : 0;
	prefix = prefix == 'x' ? 16 : prefix == 'o' ? 8 : prefix == 'b' ? 2 : 0;
	if (prefix && (base == 0 || base == prefix)) {
		base = prefix;
		i += 2;
		i += i < n && s[i] == '_';
	} else if (base == 0) {
		base = 10;
		/* int("010", 0) is refused; int("000", 0) is 0. */
		if (n - i > 1 && s[i] == '0')
			for (size_t k = i; k < n; k++)
				if (s[k] != '0' && s[k] != '_')
					return none;
	}
	for (; i < n; i++) {
		int d = isdigit((unsigned char)s[i])   ? s[i] - '0'
		        : isalpha((unsigned char)s[i]) ? tolower((unsigned char)s[i]) - 'a' + 10
		                                       : 99;

		if (s[i] == '_' && digits && i + 1 < n && s[i + 1] != '_')
			continue;
		if (d >= base)
			return none;
		digits++;
		if (__builtin_mul_overflow(v, (__int128)base, &v) || __builtin_sub_overflow(v, (__int128)d, &v))
			return overflow(r);
	}
	if (!digits)
		return none;
	return negative ? jval_int(v) : integer_op(r, N_SUB, 0, v);
}

/* Digits with single underscores between them; returns how many bytes. */
static size_t copy_digits(const char *s, size_t n, char *out, size_t *n_out)
{
	size_t i = 0;

	while (i < n && (isdigit((unsigned char)s[i]) ||
	                 (s[i] == '_' && i > 0 && s[i - 1] != '_' && i + 1 < n && isdigit((unsigned char)s[i + 1])))) {
		if (s[i] != '_')
			out[(*n_out)++] = s[i];
		i++;
	}
	return i;
}

int float_parse(const struct jstr *str, double *out)
{
	const char *s = str->s;
	size_t n = str->n, i = 0, m = 0, whole, part = 0;
	char *text;
	int ok = 0;

	trim(&s, &n);
	if (n == 0 || n > 2000)
		return 0;
	text = xmalloc(n + 1);
	if (s[0] == '-' || s[0] == '+')
		text[m++] = s[i++];
	if ((n - i == 3 && strncasecmp(s + i, "inf", 3) == 0) || (n - i == 8 && strncasecmp(s + i, "infinity", 8) == 0)) {
		*out = s[0] == '-' ? -INFINITY : INFINITY;
		ok = 1;
		goto out;
	}
	if (n - i == 3 && strncasecmp(s + i, "nan", 3) == 0) {
		*out = NAN;
		ok = 1;
		goto out;
	}
	whole = copy_digits(s + i, n - i, text, &m);
	i += whole;
	if (i < n && s[i] == '.') {
		text[m++] = s[i++];
		part = copy_digits(s + i, n - i, text, &m);
		i += part;
	}
	if (!whole && !part)
		goto out;
	if (i < n && (s[i] == 'e' || s[i] == 'E')) {
		text[m++] = s[i++];
		if (i < n && (s[i] == '-' || s[i] == '+'))
			text[m++] = s[i++];
		part = copy_digits(s + i, n - i, text, &m);
		if (!part)
			goto out;
		i += part;
	}
	text[m] = '\0';
	ok = i == n;
	if (ok)
		*out = strtod(text, NULL);
out:
	free(text);
	return ok;
}

/* printf rounds the exact binary value, halves to even, which is what Python's round does. */
double round_half_even(double d, int digits)
{
	char text[420];
	int exponent, keep;

	if (!isfinite(d) || d == 0 || digits > 300)
		return d;
	if (digits >= 0) {
		snprintf(text, sizeof(text), "%.*f", digits, d);
		return strtod(text, NULL);
	}
	snprintf(text, sizeof(text), "%.25e", d);
	exponent = atoi(strchr(text, 'e') + 1);
	keep = exponent + digits; /* digits behind the first one */
	if (keep >= 0) {
		snprintf(text, sizeof(text), "%.*e", keep, d);
		return strtod(text, NULL);
	}
	/* Less than one unit: all of it or nothing. Half of it is nothing. */
	if (keep < -1 || fabs(d) <= 5 * pow(10, exponent))
		return copysign(0, d);
	return copysign(pow(10, exponent + 1), d);
}
