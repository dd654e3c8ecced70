/* dot.h: integer products of codes and activations, for the kernel files only. Exact sums, so that how they are taken does
 * not matter:
 *
 *     AVX-512 VNNI  vpdpbusd, four products into 32 bits
 *     AVX2          vpmaddubsw sums two products in 16 bits and saturates, so the number of those sums that may be added in 16
 *                   bits before vpmaddwd widens them follows from the code's bits: 2 * 127 * 15 * 8 = 30480 for 4 bits,
 *                   2 * 127 * 31 * 4 = 31496 for 5, 2 * 127 * 63 * 2 = 32004 for 6, all below 32768. Eight bits would
 *                   saturate at once (2 * 127 * 255), so there it is |w| times sign(w) x with signed w: 2 * 127 * 128 = 32512.
 *     generic       C */
#ifndef TOKENMILL_ENGINE_DOT_H
#define TOKENMILL_ENGINE_DOT_H

#include "engine/cpu/codes.h"

/* Where code vectors come from: the planes of a packed block, or unpacked ones, which look like 8-bit planes. With AVX2
 * codes of 8 bits are unpacked signed, and their products need no offset. */
enum code_source { CODES_PACKED = 1, CODES_UNPACKED = 2 };
#if defined(ISA_AVX2)
#define CODES_8_SIGNED 1
#else
#define CODES_8_SIGNED 0
#endif

LANES_FN struct lanes_i dot_codes(enum code_source source, enum code_planes planes, const uint8_t *w, int g)
{
	struct lanes_i v = codes_vector(source == CODES_UNPACKED ? PLANES_8 : planes, w, g);

	if (source == CODES_PACKED && planes == PLANES_8 && CODES_8_SIGNED)
		v = lanes_i_xor(v, lanes_i_set1((int32_t)0x80808080));
	return v;
}

/* sum[r * sum_stride + t] += products of code vectors g0 .. g0+n-1 of the blocks at w[r] with the tokens' dwords x [n][tokens].
 * bits: of a code. */
#if defined(ISA_AVX512)

LANES_FN void dot_vectors(enum code_source source, enum code_planes planes, int bits, int tiles, int tokens,
                          const uint8_t *const *w, int g0, int n, const int32_t *x, struct lanes_i *sum, int sum_stride)
{
	(void)bits;
	LANES_UNROLL
	for (int g = 0; g < n; g++) {
		struct lanes_i v[PANEL_TILES];

		LANES_UNROLL
		for (int r = 0; r < tiles; r++)
			v[r] = dot_codes(source, planes, w[r], g0 + g);
		LANES_UNROLL
		for (int t = 0; t < tokens; t++) {
			__m512i b = _mm512_set1_epi32(x[g * tokens + t]);

			LANES_UNROLL
			for (int r = 0; r < tiles; r++)
				sum[r * sum_stride + t].v = _mm512_dpbusd_epi32(sum[r * sum_stride + t].v, v[r].v, b);
		}
	}
}

#elif defined(ISA_AVX2)

LANES_FN __m256i code_products(int bits, __m256i w, __m256i x)
{
	return bits == 8 ? _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w)) : _mm256_maddubs_epi16(w, x);
}

/* Add now: compilers would rather hold all products and add them in a tree, from the stack. */
LANES_FN void keep_in_registers(struct lanes_i *v)
{
	__asm__("" : "+x"(v->lo), "+x"(v->hi));
}

LANES_FN void dot_vectors(enum code_source source, enum code_planes planes, int bits, int tiles, int tokens,
                          const uint8_t *const *w, int g0, int n, const int32_t *x, struct lanes_i *sum, int sum_stride)
{
	const __m256i ones = _mm256_set1_epi16(1);
	const int group = bits == 8 ? 1 : bits == 6 ? 2 : bits == 4 ? 8 : 4, step = group < n ? group : n;

	LANES_UNROLL
	for (int r = 0; r < tiles; r++) {
		LANES_UNROLL
		for (int first = 0; first < n; first += step) {
			struct lanes_i pairs[MAX_GROUP]; /* 16-bit sums */

			LANES_UNROLL
			for (int g = first; g < first + step; g++) {
				struct lanes_i v = dot_codes(source, planes, w[r], g0 + g);

				LANES_UNROLL
				for (int t = 0; t < tokens; t++) {
					__m256i b = _mm256_set1_epi32(x[g * tokens + t]);
					struct lanes_i p = {code_products(bits, v.lo, b), code_products(bits, v.hi, b)};

					pairs[t].lo = g == first ? p.lo : _mm256_add_epi16(pairs[t].lo, p.lo);
					pairs[t].hi = g == first ? p.hi : _mm256_add_epi16(pairs[t].hi, p.hi);
					keep_in_registers(&pairs[t]);
				}
			}
			LANES_UNROLL
			for (int t = 0; t < tokens; t++) {
				struct lanes_i *s = &sum[r * sum_stride + t];

				s->lo = _mm256_add_epi32(s->lo, _mm256_madd_epi16(pairs[t].lo, ones));
				s->hi = _mm256_add_epi32(s->hi, _mm256_madd_epi16(pairs[t].hi, ones));
				keep_in_registers(s);
			}
		}
	}
}

#else

LANES_FN void dot_vectors(enum code_source source, enum code_planes planes, int bits, int tiles, int tokens,
                          const uint8_t *const *w, int g0, int n, const int32_t *x, struct lanes_i *sum, int sum_stride)
{
	(void)bits;
	for (int g = 0; g < n; g++)
		for (int r = 0; r < tiles; r++) {
			struct lanes_i codes = dot_codes(source, planes, w[r], g0 + g);
			uint8_t v[CODE_VECTOR];

			memcpy(v, codes.v, sizeof(v));
			for (int t = 0; t < tokens; t++) {
				int8_t b[4];

				memcpy(b, &x[g * tokens + t], 4);
				for (int i = 0; i < LANES; i++)
					sum[r * sum_stride + t].v[i] +=
					    v[4 * i] * b[0] + v[4 * i + 1] * b[1] + v[4 * i + 2] * b[2] + v[4 * i + 3] * b[3];
			}
		}
}

#endif

/* One block or half block (n code vectors from g0 on) from start to end: exact integer sums with the offset's part, then the
 * float steps of matmul.h. x, neg_sum, x_scale, min_sum: at the block's first token. scale, min: [tiles][16]. offset =
 * 1 << shift. */
LANES_FN void dot_block(enum code_source source, enum code_planes planes, int bits, int shift, int has_min, int tiles,
                        int tokens, const uint8_t *const *w, int g0, int n, const int32_t *x, const int32_t *neg_sum,
                        const float *x_scale, const float *min_sum, const float *const *scale, const float *const *min,
                        struct lanes_f *acc, int acc_stride)
{
	const int has_offset = !has_min && !(CODES_8_SIGNED && bits == 8);
	struct lanes_i sum[PANEL_TILES * MAX_GROUP];

	LANES_UNROLL
	for (int t = 0; t < tokens; t++) {
		struct lanes_i start = has_offset ? lanes_i_shift_left(lanes_i_set1(neg_sum[t]), shift) : lanes_i_set1(0);

		LANES_UNROLL
		for (int r = 0; r < tiles; r++)
			sum[r * acc_stride + t] = start;
	}
	dot_vectors(source, planes, bits, tiles, tokens, w, g0, n, x, sum, acc_stride);
	LANES_UNROLL
	for (int t = 0; t < tokens; t++) {
		struct lanes_f xs = lanes_f_set1(x_scale[t]);

		LANES_UNROLL
		for (int r = 0; r < tiles; r++) {
			struct lanes_f *a = &acc[r * acc_stride + t];

			*a = lanes_f_fma(lanes_f_from_i(sum[r * acc_stride + t]), lanes_f_mul(lanes_f_load(scale[r]), xs), *a);
			if (has_min)
				*a = lanes_f_fma(lanes_f_load(min[r]), lanes_f_set1(min_sum[t]), *a);
		}
	}
}

#endif
