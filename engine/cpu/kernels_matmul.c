/* kernels_matmul.c: the register tiles of the matrix products. TILES tiles of 16 rows times T tokens; compiled once per
 * instruction set, T from 1 to the most that registers hold.
 *
 * fast: per block of 32 (or 16) columns the products of unsigned codes and signed activations are summed exactly in 32-bit
 * integers, offset included (sum((q - o) x) = sum(q x) - o sum(x)), then acc = fma(sum, scale_w * scale_x, acc), and with minima
 * acc = fma(min_w, scale_x * sum(x), acc). The three instruction sets differ only in how the integers are summed:
 *
 *     AVX-512 VNNI  vpdpbusd, four products into 32 bits
 *     AVX2          vpmaddubsw sums two products in 16 bits and saturates, so the number of those sums that may be added in 16
 *                   bits before vpmaddwd widens them follows from the code's bits: 2 * 127 * 15 * 8 = 30480 for 4 bits,
 *                   2 * 127 * 31 * 4 = 31496 for 5, 2 * 127 * 63 * 2 = 32004 for 6, all below 32768. Eight bits would saturate at
 *                   once (2 * 127 * 255), so there it is |w| times sign(w) x: 2 * 127 * 128 = 32512.
 *     generic       C
 */
#include "engine/cpu/lanes.h"
#include "engine/cpu/packed.h"

#if defined(ISA_AVX512)
enum { TILES = 2, TOKENS = 6, FLOAT_TILES = 2, FLOAT_TOKENS = 12 };
#else
enum { TILES = 1, TOKENS = 4, FLOAT_TILES = 1, FLOAT_TOKENS = 6 };
#endif

/* sum[tile][t] += products of n code vectors (at w[tile]) with n dwords per token. bits: of a code. */
#if defined(ISA_AVX512)

LANES_FN void dot_vectors(int tokens, int bits, int n, const uint8_t *const w[TILES], const int32_t *x, struct lanes_i sum[TILES][TOKENS])
{
	(void)bits;
	LANES_UNROLL
	for (int g = 0; g < n; g++) {
		__m512i v[TILES];

		LANES_UNROLL
		for (int r = 0; r < TILES; r++)
			v[r] = _mm512_loadu_si512((const void *)(w[r] + g * CODE_VECTOR));
		LANES_UNROLL
		for (int t = 0; t < tokens; t++) {
			__m512i b = _mm512_set1_epi32(x[g * tokens + t]);

			LANES_UNROLL
			for (int r = 0; r < TILES; r++)
				sum[r][t].v = _mm512_dpbusd_epi32(sum[r][t].v, v[r], b);
		}
	}
}

#elif defined(ISA_AVX2)

LANES_FN __m256i code_products(int bits, __m256i w, __m256i x)
{
	return bits == 8 ? _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w)) : _mm256_maddubs_epi16(w, x);
}

LANES_FN void dot_vectors(int tokens, int bits, int n, const uint8_t *const w[TILES], const int32_t *x, struct lanes_i sum[TILES][TOKENS])
{
	const __m256i ones = _mm256_set1_epi16(1);
	const int group = bits == 8 ? 1 : bits == 6 ? 2 : bits == 4 ? 8 : 4, step = group < n ? group : n;

	LANES_UNROLL
	for (int g0 = 0; g0 < n; g0 += step) {
		struct lanes_i pairs[TOKENS]; /* 16-bit sums */

		LANES_UNROLL
		for (int g = g0; g < g0 + step; g++) {
			__m256i lo = _mm256_loadu_si256((const void *)(w[0] + g * CODE_VECTOR));
			__m256i hi = _mm256_loadu_si256((const void *)(w[0] + g * CODE_VECTOR + 32));

			LANES_UNROLL
			for (int t = 0; t < tokens; t++) {
				__m256i b = _mm256_set1_epi32(x[g * tokens + t]);
				struct lanes_i p = {code_products(bits, lo, b), code_products(bits, hi, b)};

				pairs[t].lo = g == g0 ? p.lo : _mm256_add_epi16(pairs[t].lo, p.lo);
				pairs[t].hi = g == g0 ? p.hi : _mm256_add_epi16(pairs[t].hi, p.hi);
				/* Add now: compilers would rather hold all products and add them in a tree, from the stack. */
				__asm__("" : "+x"(pairs[t].lo), "+x"(pairs[t].hi));
			}
		}
		LANES_UNROLL
		for (int t = 0; t < tokens; t++) {
			sum[0][t].lo = _mm256_add_epi32(sum[0][t].lo, _mm256_madd_epi16(pairs[t].lo, ones));
			sum[0][t].hi = _mm256_add_epi32(sum[0][t].hi, _mm256_madd_epi16(pairs[t].hi, ones));
		}
	}
}

#else

LANES_FN void dot_vectors(int tokens, int bits, int n, const uint8_t *const w[TILES], const int32_t *x, struct lanes_i sum[TILES][TOKENS])
{
	(void)bits;
	for (int g = 0; g < n; g++)
		for (int t = 0; t < tokens; t++) {
			const uint8_t *v = w[0] + g * CODE_VECTOR;
			int8_t b[4];

			memcpy(b, &x[g * tokens + t], 4);
			for (int i = 0; i < LANES; i++)
				sum[0][t].v[i] += v[4 * i] * b[0] + v[4 * i + 1] * b[1] + v[4 * i + 2] * b[2] + v[4 * i + 3] * b[3];
		}
}

#endif

/* AVX2 takes eight-bit codes signed: no offset to correct. */
#if defined(ISA_AVX2)
#define SIGNED_8 1
#else
#define SIGNED_8 0
#endif

LANES_FN void dot_panel(const struct dot_args *a, int tokens, int bits, int shift, int subs, int has_min)
{
	const uint8_t *w[TILES];
	const float *scales[TILES], *mins[TILES];
	const int32_t *x = a->x.codes, *neg_sum = a->x.neg_sum[subs - 1];
	const float *x_scale = a->x.scale, *min_sum = a->x.min_sum[subs - 1];
	const int vectors = 8 / subs, has_offset = !has_min && !(SIGNED_8 && bits == 8);
	struct lanes_f acc[TILES][TOKENS];

	LANES_UNROLL
	for (int r = 0; r < TILES; r++) {
		w[r] = a->panel.codes[r];
		scales[r] = a->panel.scales[r];
		mins[r] = a->panel.mins[r];
		LANES_UNROLL
		for (int t = 0; t < tokens; t++)
			acc[r][t] = a->first ? lanes_f_zero() : lanes_f_load(a->acc + t * PANEL_ROWS + r * LANES);
	}
	for (int b = 0; b < a->n_blocks * subs; b++) {
		struct lanes_i sum[TILES][TOKENS];

		LANES_UNROLL
		for (int t = 0; t < tokens; t++) {
			struct lanes_i start = lanes_i_set1(0);

			if (has_offset)
				start = lanes_i_shift_left(lanes_i_set1(neg_sum[t]), shift);
			LANES_UNROLL
			for (int r = 0; r < TILES; r++)
				sum[r][t] = start;
		}
		dot_vectors(tokens, bits, vectors, w, x, sum);
		LANES_UNROLL
		for (int t = 0; t < tokens; t++) {
			struct lanes_f xs = lanes_f_set1(x_scale[t]);

			LANES_UNROLL
			for (int r = 0; r < TILES; r++) {
				struct lanes_f scale = lanes_f_mul(lanes_f_load(scales[r]), xs);

				acc[r][t] = lanes_f_fma(lanes_f_from_i(sum[r][t]), scale, acc[r][t]);
				if (has_min)
					acc[r][t] = lanes_f_fma(lanes_f_load(mins[r]), lanes_f_set1(min_sum[t]), acc[r][t]);
			}
		}
		LANES_UNROLL
		for (int r = 0; r < TILES; r++) {
			w[r] += vectors * CODE_VECTOR;
			scales[r] += LANES;
			mins[r] += LANES;
		}
		x += vectors * tokens;
		neg_sum += tokens;
		min_sum += tokens;
		if (subs == 1 || b % 2)
			x_scale += tokens;
	}
	LANES_UNROLL
	for (int t = 0; t < tokens; t++)
		LANES_UNROLL
		for (int r = 0; r < TILES; r++)
			lanes_f_store(a->acc + t * PANEL_ROWS + r * LANES, acc[r][t]);
}

LANES_FN void dot_floats(const struct float_args *a, int tokens)
{
	struct lanes_f acc[FLOAT_TILES][FLOAT_TOKENS];
	const float *w[FLOAT_TILES], *x = a->x;

	LANES_UNROLL
	for (int r = 0; r < FLOAT_TILES; r++) {
		w[r] = a->w[r];
		LANES_UNROLL
		for (int t = 0; t < tokens; t++)
			acc[r][t] = a->first ? lanes_f_zero() : lanes_f_load(a->acc + t * PANEL_ROWS + r * LANES);
	}
	for (int k = 0; k < a->n_cols; k++, x += tokens) {
		struct lanes_f v[FLOAT_TILES];

		LANES_UNROLL
		for (int r = 0; r < FLOAT_TILES; r++) {
			v[r] = lanes_f_load(w[r]);
			w[r] += a->w_stride;
		}
		LANES_UNROLL
		for (int t = 0; t < tokens; t++) {
			struct lanes_f b = lanes_f_set1(x[t]);

			LANES_UNROLL
			for (int r = 0; r < FLOAT_TILES; r++)
				acc[r][t] = lanes_f_fma(b, v[r], acc[r][t]);
		}
	}
	LANES_UNROLL
	for (int t = 0; t < tokens; t++)
		LANES_UNROLL
		for (int r = 0; r < FLOAT_TILES; r++)
			lanes_f_store(a->acc + t * PANEL_ROWS + r * LANES, acc[r][t]);
}

#define DOT_FN(name, tokens, ...)                                                                                          \
	static void name##_##tokens(const struct dot_args *a) { dot_panel(a, tokens, __VA_ARGS__); }
#if defined(ISA_AVX512)
#define DOT_FNS(name, ...)                                                                                                 \
	DOT_FN(name, 1, __VA_ARGS__)                                                                                       \
	DOT_FN(name, 2, __VA_ARGS__)                                                                                       \
	DOT_FN(name, 3, __VA_ARGS__)                                                                                       \
	DOT_FN(name, 4, __VA_ARGS__)                                                                                       \
	DOT_FN(name, 5, __VA_ARGS__)                                                                                       \
	DOT_FN(name, 6, __VA_ARGS__)                                                                                       \
	static const dot_fn name[TOKENS] = {name##_1, name##_2, name##_3, name##_4, name##_5, name##_6};
#else
#define DOT_FNS(name, ...)                                                                                                 \
	DOT_FN(name, 1, __VA_ARGS__)                                                                                       \
	DOT_FN(name, 2, __VA_ARGS__)                                                                                       \
	DOT_FN(name, 3, __VA_ARGS__)                                                                                       \
	DOT_FN(name, 4, __VA_ARGS__)                                                                                       \
	static const dot_fn name[TOKENS] = {name##_1, name##_2, name##_3, name##_4};
#endif

/* bits, offset shift, scales per 32 columns, minima: as in pack.c's table of types */
DOT_FNS(dot_4, 4, 3, 1, 0)
DOT_FNS(dot_5, 5, 4, 1, 0)
DOT_FNS(dot_8, 8, 7, 1, 0)
DOT_FNS(dot_6_sub, 6, 5, 2, 0)
DOT_FNS(dot_3_sub, 3, 2, 2, 0)
DOT_FNS(dot_2_sub_min, 2, 0, 2, 1)
DOT_FNS(dot_5_min, 5, 0, 1, 1)
#if defined(ISA_AVX2)
DOT_FNS(dot_4_min, 4, 0, 1, 1)
#else
#define dot_4_min dot_5_min /* sums are 32 bits wide whatever the code's width */
#endif

static dot_fn dot(const struct packed_type *p, int n_tokens)
{
	const dot_fn *f = NULL;

	switch (p->code_bits) {
	case 2: f = dot_2_sub_min; break;
	case 3: f = dot_3_sub; break;
	case 4: f = p->has_min ? dot_4_min : dot_4; break;
	case 5: f = p->has_min ? dot_5_min : dot_5; break;
	case 6: f = dot_6_sub; break;
	case 8: f = dot_8; break;
	}
	return f ? f[n_tokens - 1] : NULL;
}

#define FLOAT_FN(tokens)                                                                                                   \
	static void floats_##tokens(const struct float_args *a) { dot_floats(a, tokens); }
FLOAT_FN(1)
FLOAT_FN(2)
FLOAT_FN(3)
FLOAT_FN(4)
FLOAT_FN(5)
FLOAT_FN(6)
#if defined(ISA_AVX512)
FLOAT_FN(7)
FLOAT_FN(8)
FLOAT_FN(9)
FLOAT_FN(10)
FLOAT_FN(11)
FLOAT_FN(12)
static const float_fn floats[FLOAT_TOKENS] = {floats_1, floats_2, floats_3, floats_4,  floats_5,  floats_6,
                                              floats_7, floats_8, floats_9, floats_10, floats_11, floats_12};
#else
static const float_fn floats[FLOAT_TOKENS] = {floats_1, floats_2, floats_3, floats_4, floats_5, floats_6};
#endif

static float_fn dot_f32(int n_tokens)
{
	return floats[n_tokens - 1];
}

const struct matmul_kernels ISA_SYMBOL(matmul_kernels) = {
	.tiles = TILES,
	.tokens = TOKENS,
	.float_tiles = FLOAT_TILES,
	.float_tokens = FLOAT_TOKENS,
	.dot = dot,
	.dot_f32 = dot_f32,
};
