/* vmath.h: exp, tanh and the activations made of them, sixteen lanes at a time, for engine/cpu/kernels_*.c only.
 *
 * A processor's or a C library's exp differs from the next one's in the last bit. Ours is made of the single IEEE operations of
 * lanes.h alone, so that it gives the same bytes on every instruction set. NaN stays NaN in all of them.
 */
#ifndef TOKENMILL_ENGINE_VMATH_H
#define TOKENMILL_ENGINE_VMATH_H

#include "engine/cpu/lanes.h"

/* exp(x) for x <= 88.37, within 1.1 ulp. x below -87 gives 0: the true value is barely above the smallest normal number, and subnormal
 * numbers are slow.
 *
 * x = n ln2 + r with |r| <= ln2 / 2 (ln2 in two parts, Cody & Waite); exp(r) = 1 + r + r^2 P(r), P minimax in relative error (3e-9) with the
 * leading 1 + r kept exact, so that exp(0) is exactly 1. Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits. */
LANES_FN struct lanes_f vmath_exp_small(struct lanes_f x)
{
	const struct lanes_f magic = lanes_f_set1(12582912.0f);
	struct lanes_f t = lanes_f_fma(x, lanes_f_set1(1.44269504f), magic);
	struct lanes_f n = lanes_f_sub(t, magic);
	struct lanes_f r = lanes_f_fma(n, lanes_f_set1(-0x1.62e400p-1f), x);
	struct lanes_f p, power;

	r = lanes_f_fma(n, lanes_f_set1(-0x1.7f7d1cp-20f), r);
	p = lanes_f_set1(0x1.6a23fep-10f);
	p = lanes_f_fma(p, r, lanes_f_set1(0x1.123a10p-7f));
	p = lanes_f_fma(p, r, lanes_f_set1(0x1.5558f2p-5f));
	p = lanes_f_fma(p, r, lanes_f_set1(0x1.555492p-3f));
	p = lanes_f_fma(p, r, lanes_f_set1(0x1.fffffcp-2f));
	p = lanes_f_fma(lanes_f_mul(r, r), p, r);
	p = lanes_f_add(p, lanes_f_set1(1));
	power = lanes_f_bits(lanes_i_add(lanes_i_shift_left(lanes_i_bits(t), 23), lanes_i_set1(127 << 23)));
	return lanes_f_if_less(x, lanes_f_set1(-87.0f), lanes_f_zero(), lanes_f_mul(p, power));
}

/* As vmath_exp_small, and exp(88.37) = 2.4e38 for all larger x. */
LANES_FN struct lanes_f vmath_exp(struct lanes_f x)
{
	return vmath_exp_small(lanes_f_min(lanes_f_set1(88.37f), x)); /* NaN passes: it is the second operand */
}

/* tanh(x) within 2 ulp: an odd polynomial near 0, where 1 - 2 / (exp(2x) + 1) would cancel. */
LANES_FN struct lanes_f vmath_tanh(struct lanes_f x)
{
	const struct lanes_f one = lanes_f_set1(1);
	struct lanes_f a = lanes_f_abs(x), s = lanes_f_mul(x, x), p, big;

	p = lanes_f_set1(-0.005666936282f);
	p = lanes_f_fma(p, s, lanes_f_set1(0.020606141538f));
	p = lanes_f_fma(p, s, lanes_f_set1(-0.053729996085f));
	p = lanes_f_fma(p, s, lanes_f_set1(0.133313313127f));
	p = lanes_f_fma(p, s, lanes_f_set1(-0.333332777023f));
	p = lanes_f_fma(lanes_f_mul(p, s), x, x);
	big = lanes_f_sub(one, lanes_f_div(lanes_f_set1(2), lanes_f_add(vmath_exp(lanes_f_add(a, a)), one)));
	big = lanes_f_if_less(x, lanes_f_zero(), lanes_f_sub(lanes_f_zero(), big), big);
	return lanes_f_if_less(a, lanes_f_set1(0.625f), p, big);
}

/* x / (1 + exp(-x)) */
LANES_FN struct lanes_f vmath_silu(struct lanes_f x)
{
	struct lanes_f e = vmath_exp(lanes_f_sub(lanes_f_zero(), x));

	return lanes_f_div(x, lanes_f_add(lanes_f_set1(1), e));
}

/* x / 2 (1 + tanh u) with u = sqrt(2 / pi) (x + 0.044715 x^3), which is x / (1 + exp(-2u)): no cancellation for negative x. */
LANES_FN struct lanes_f vmath_gelu_tanh(struct lanes_f x)
{
	struct lanes_f cubic = lanes_f_mul(lanes_f_mul(lanes_f_set1(0.044715f), lanes_f_mul(x, x)), x);
	struct lanes_f u = lanes_f_mul(lanes_f_set1(-1.5957691216f), lanes_f_add(x, cubic));

	return lanes_f_div(x, lanes_f_add(lanes_f_set1(1), vmath_exp(u)));
}

#endif
