/* kernels_matmul.c: the register tiles of the matrix products over unpacked panels. TILES tiles of 16 rows times T tokens;
 * compiled once per instruction set, T from 1 to the most that registers hold. */
#include "engine/cpu/dot.h"

#if defined(ISA_AVX512)
enum { TILES = 2, TOKENS = 6, FLOAT_TILES = 2, FLOAT_TOKENS = 12 };
#else
enum { TILES = 1, TOKENS = 4, FLOAT_TILES = 1, FLOAT_TOKENS = 6 };
#endif

LANES_FN void dot_panel(const struct dot_args *a, int tokens, int bits, int shift, int subs, int has_min)
{
	const uint8_t *w[TILES];
	const float *scales[TILES], *mins[TILES];
	const int32_t *x = a->x.codes, *neg_sum = a->x.neg_sum[subs - 1];
	const float *x_scale = a->x.scale, *min_sum = a->x.min_sum[subs - 1];
	const int n = 8 / subs;
	struct lanes_f acc[TILES * TOKENS];

	LANES_UNROLL
	for (int r = 0; r < TILES; r++) {
		w[r] = a->panel.codes[r];
		scales[r] = a->panel.scales[r];
		mins[r] = a->panel.mins[r];
		LANES_UNROLL
		for (int t = 0; t < tokens; t++)
			acc[r * TOKENS + t] = a->first ? lanes_f_zero() : lanes_f_load(a->acc + t * PANEL_ROWS + r * LANES);
	}
	for (int b = 0; b < a->n_blocks * subs; b++) {
		dot_block(CODES_UNPACKED, PLANES_8, bits, shift, has_min, TILES, tokens, w, 0, n, x, neg_sum, x_scale, min_sum, scales,
		          mins, acc, TOKENS);
		LANES_UNROLL
		for (int r = 0; r < TILES; r++) {
			w[r] += n * CODE_VECTOR;
			scales[r] += LANES;
			mins[r] += LANES;
		}
		x += n * tokens;
		neg_sum += tokens;
		min_sum += tokens;
		if (subs == 1 || b % 2)
			x_scale += tokens;
	}
	LANES_UNROLL
	for (int t = 0; t < tokens; t++) {
		LANES_UNROLL
		for (int r = 0; r < TILES; r++)
			lanes_f_store(a->acc + t * PANEL_ROWS + r * LANES, acc[r * TOKENS + t]);
	}
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
	for (int t = 0; t < tokens; t++) {
		LANES_UNROLL
		for (int r = 0; r < FLOAT_TILES; r++)
			lanes_f_store(a->acc + t * PANEL_ROWS + r * LANES, acc[r][t]);
	}
}

#define DOT_FN(name, tokens, ...)                                                                                              \
	static void name##_##tokens(const struct dot_args *a)                                                                      \
	{                                                                                                                          \
		dot_panel(a, tokens, __VA_ARGS__);                                                                                     \
	}
#if defined(ISA_AVX512)
#define DOT_FNS(name, ...)                                                                                                     \
	DOT_FN(name, 1, __VA_ARGS__)                                                                                               \
	DOT_FN(name, 2, __VA_ARGS__)                                                                                               \
	DOT_FN(name, 3, __VA_ARGS__)                                                                                               \
	DOT_FN(name, 4, __VA_ARGS__)                                                                                               \
	DOT_FN(name, 5, __VA_ARGS__)                                                                                               \
	DOT_FN(name, 6, __VA_ARGS__)                                                                                               \
	static const dot_fn name[TOKENS] = {name##_1, name##_2, name##_3, name##_4, name##_5, name##_6};
#else
#define DOT_FNS(name, ...)                                                                                                     \
	DOT_FN(name, 1, __VA_ARGS__)                                                                                               \
	DOT_FN(name, 2, __VA_ARGS__)                                                                                               \
	DOT_FN(name, 3, __VA_ARGS__)                                                                                               \
	DOT_FN(name, 4, __VA_ARGS__)                                                                                               \
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
	case 2:
		f = dot_2_sub_min;
		break;
	case 3:
		f = dot_3_sub;
		break;
	case 4:
		f = p->has_min ? dot_4_min : dot_4;
		break;
	case 5:
		f = p->has_min ? dot_5_min : dot_5;
		break;
	case 6:
		f = dot_6_sub;
		break;
	case 8:
		f = dot_8;
		break;
	}
	return f ? f[n_tokens - 1] : NULL;
}

#define FLOAT_FN(tokens)                                                                                                       \
	static void floats_##tokens(const struct float_args *a)                                                                    \
	{                                                                                                                          \
		dot_floats(a, tokens);                                                                                                 \
	}
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
