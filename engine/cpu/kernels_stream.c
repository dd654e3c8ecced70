/* kernels_stream.c: products for a few rows of x, straight from the packed weights: what counts is that weights are read
 * from memory at its full speed, so codes are unpacked in registers and nothing is written in between. The same operations
 * in the same order as over panels. Compiled once per instruction set. */
#include "engine/cpu/dot.h"

enum { STREAM_AHEAD = 4096 }; /* bytes asked for in advance; AMD's and Intel's own prefetchers stop at page borders */

/* Measured on Zen 5: with 32 registers codes unpacked anew for every six rows are cheaper than written and read again, up to
 * some 24 rows; with 16 registers only one or two rows. */
#if defined(ISA_AVX512)
enum { STREAM_TOKENS = 6, STREAM_ROWS = 24, FLOAT_ROWS = 4 };
#else
enum { STREAM_TOKENS = 2, STREAM_ROWS = 2, FLOAT_ROWS = 4 };
#endif

LANES_FN void ask_for(const uint8_t *p, int n_bytes)
{
	for (int i = 0; i < n_bytes; i += 64)
		__builtin_prefetch(p + STREAM_AHEAD + i, 0, 3);
}

/* type, planes, bits, shift, subs, has_min, unit_blocks, block_bytes: constants, as in pack.c's table */
LANES_FN void stream_panel(const struct stream_args *a, int tokens, enum tensor_type type, enum code_planes planes, int bits,
                           int shift, int subs, int has_min, int unit_blocks, int block_bytes)
{
	const int n = 8 / subs, n_blocks = a->n_cols / BLOCK_COLS, unit_bytes = a->type->unit_bytes, step = a->n_tiles * unit_bytes;
	const int second = a->n_tiles > 1 ? unit_bytes : 0; /* a missing tile is the first again */
	const uint8_t *unit = a->src;
	struct packed_x x = a->x;
	struct lanes_f acc[PANEL_TILES * STREAM_TOKENS];
	float scales[PANEL_TILES][LANES], mins[PANEL_TILES][LANES];
	const float *const scale[PANEL_TILES] = {scales[0], scales[1]}, *const min[PANEL_TILES] = {mins[0], mins[1]};

	LANES_UNROLL
	for (int r = 0; r < PANEL_TILES; r++) {
		LANES_UNROLL
		for (int t = 0; t < tokens; t++)
			acc[r * STREAM_TOKENS + t] = a->first ? lanes_f_zero() : lanes_f_load(a->acc + t * PANEL_ROWS + r * LANES);
	}
	for (int done = 0; done < n_blocks; done += unit_blocks, unit += step) {
		int left = n_blocks - done < unit_blocks ? n_blocks - done : unit_blocks;

		ask_for(unit, step);
		for (int b = 0; b < left; b++) {
			const uint8_t *w[PANEL_TILES] = {unit + b * block_bytes, unit + second + b * block_bytes};

			LANES_UNROLL
			for (int sub = 0; sub < subs; sub++) {
				LANES_UNROLL
				for (int r = 0; r < PANEL_TILES; r++) {
					struct lanes_f s, m;

					codes_scale(type, unit + r * second + unit_blocks * block_bytes, b, sub, &s, &m);
					lanes_f_store(scales[r], s);
					if (has_min)
						lanes_f_store(mins[r], m);
				}
				dot_block(CODES_PACKED, planes, bits, shift, has_min, PANEL_TILES, tokens, w, sub * n, n,
				          x.codes + sub * n * tokens, x.neg_sum[subs - 1] + sub * tokens, x.scale,
				          x.min_sum[subs - 1] + sub * tokens, scale, min, acc, STREAM_TOKENS);
			}
			x.codes += 8 * tokens;
			x.scale += tokens;
			x.neg_sum[subs - 1] += subs * tokens;
			x.min_sum[subs - 1] += subs * tokens;
		}
	}
	LANES_UNROLL
	for (int t = 0; t < tokens; t++) {
		LANES_UNROLL
		for (int r = 0; r < PANEL_TILES; r++)
			lanes_f_store(a->acc + t * PANEL_ROWS + r * LANES, acc[r * STREAM_TOKENS + t]);
	}
}

#define STREAM_FN(name, tokens, ...)                                                                                           \
	static void name##_##tokens(const struct stream_args *a)                                                                   \
	{                                                                                                                          \
		stream_panel(a, tokens, __VA_ARGS__);                                                                                  \
	}
#if defined(ISA_AVX512)
#define STREAM_FNS(name, ...)                                                                                                  \
	STREAM_FN(name, 1, __VA_ARGS__)                                                                                            \
	STREAM_FN(name, 2, __VA_ARGS__)                                                                                            \
	STREAM_FN(name, 3, __VA_ARGS__)                                                                                            \
	STREAM_FN(name, 4, __VA_ARGS__)                                                                                            \
	STREAM_FN(name, 5, __VA_ARGS__)                                                                                            \
	STREAM_FN(name, 6, __VA_ARGS__)                                                                                            \
	static const stream_fn name[STREAM_TOKENS] = {name##_1, name##_2, name##_3, name##_4, name##_5, name##_6};
#else
#define STREAM_FNS(name, ...)                                                                                                  \
	STREAM_FN(name, 1, __VA_ARGS__)                                                                                            \
	STREAM_FN(name, 2, __VA_ARGS__)                                                                                            \
	static const stream_fn name[STREAM_TOKENS] = {name##_1, name##_2};
#endif

STREAM_FNS(q4_0, TENSOR_Q4_0, PLANES_4, 4, 3, 1, 0, 2, 256)
STREAM_FNS(q4_1, TENSOR_Q4_1, PLANES_4, 4, 0, 1, 1, 2, 256)
STREAM_FNS(q5_0, TENSOR_Q5_0, PLANES_4_1, 5, 4, 1, 0, 2, 320)
STREAM_FNS(q5_1, TENSOR_Q5_1, PLANES_4_1, 5, 0, 1, 1, 2, 320)
STREAM_FNS(q8_0, TENSOR_Q8_0, PLANES_8, 8, 7, 1, 0, 2, 512)
STREAM_FNS(q2_k, TENSOR_Q2_K, PLANES_2, 2, 0, 2, 1, 8, 128)
STREAM_FNS(q3_k, TENSOR_Q3_K, PLANES_2_1, 3, 2, 2, 0, 8, 192)
STREAM_FNS(q4_k, TENSOR_Q4_K, PLANES_4, 4, 0, 1, 1, 8, 256)
STREAM_FNS(q5_k, TENSOR_Q5_K, PLANES_4_1, 5, 0, 1, 1, 8, 320)
STREAM_FNS(q6_k, TENSOR_Q6_K, PLANES_4_2, 6, 5, 2, 0, 8, 384)
STREAM_FNS(q8_k, TENSOR_Q8_K, PLANES_8, 8, 7, 1, 0, 8, 512)

/* Float types: columns from a->src on, [n_cols][n_tiles][16]. */
LANES_FN void stream_floats(const struct stream_args *a, int tokens, enum tensor_type type)
{
	const int size = type == TENSOR_F32 ? 4 : 2, step = a->n_tiles * LANES * size, second = a->n_tiles > 1 ? LANES * size : 0;
	const float *x = a->x_floats;
	const uint8_t *w = a->src;
	struct lanes_f acc[PANEL_TILES][FLOAT_ROWS];

	LANES_UNROLL
	for (int r = 0; r < PANEL_TILES; r++) {
		LANES_UNROLL
		for (int t = 0; t < tokens; t++)
			acc[r][t] = a->first ? lanes_f_zero() : lanes_f_load(a->acc + t * PANEL_ROWS + r * LANES);
	}
	for (int k = 0; k < a->n_cols; k++, w += step, x += tokens) {
		struct lanes_f v[PANEL_TILES];

		ask_for(w, step);
		LANES_UNROLL
		for (int r = 0; r < PANEL_TILES; r++) {
			const void *p = w + r * second;

			v[r] = type == TENSOR_F32 ? lanes_f_load(p) : type == TENSOR_F16 ? lanes_f_load_f16(p) : lanes_f_load_bf16(p);
		}
		LANES_UNROLL
		for (int t = 0; t < tokens; t++) {
			LANES_UNROLL
			for (int r = 0; r < PANEL_TILES; r++)
				acc[r][t] = lanes_f_fma(lanes_f_set1(x[t]), v[r], acc[r][t]);
		}
	}
	LANES_UNROLL
	for (int t = 0; t < tokens; t++) {
		LANES_UNROLL
		for (int r = 0; r < PANEL_TILES; r++)
			lanes_f_store(a->acc + t * PANEL_ROWS + r * LANES, acc[r][t]);
	}
}

#define FLOATS_FN(name, tokens, type)                                                                                          \
	static void name##_##tokens(const struct stream_args *a)                                                                   \
	{                                                                                                                          \
		stream_floats(a, tokens, type);                                                                                        \
	}
#define FLOATS_FNS(name, type)                                                                                                 \
	FLOATS_FN(name, 1, type)                                                                                                   \
	FLOATS_FN(name, 2, type)                                                                                                   \
	FLOATS_FN(name, 3, type)                                                                                                   \
	FLOATS_FN(name, 4, type)                                                                                                   \
	static const stream_fn name[FLOAT_ROWS] = {name##_1, name##_2, name##_3, name##_4};
FLOATS_FNS(f32, TENSOR_F32)
FLOATS_FNS(f16, TENSOR_F16)
FLOATS_FNS(bf16, TENSOR_BF16)

static stream_fn find(enum tensor_type type, int n_tokens)
{
	const stream_fn *f = NULL;

	switch (type) {
	case TENSOR_F32:
		f = f32;
		break;
	case TENSOR_F16:
		f = f16;
		break;
	case TENSOR_BF16:
		f = bf16;
		break;
	case TENSOR_Q4_0:
		f = q4_0;
		break;
	case TENSOR_Q4_1:
		f = q4_1;
		break;
	case TENSOR_Q5_0:
		f = q5_0;
		break;
	case TENSOR_Q5_1:
		f = q5_1;
		break;
	case TENSOR_Q8_0:
		f = q8_0;
		break;
	case TENSOR_Q2_K:
		f = q2_k;
		break;
	case TENSOR_Q3_K:
		f = q3_k;
		break;
	case TENSOR_Q4_K:
		f = q4_k;
		break;
	case TENSOR_Q5_K:
		f = q5_k;
		break;
	case TENSOR_Q6_K:
		f = q6_k;
		break;
	case TENSOR_Q8_K:
		f = q8_k;
		break;
	}
	return f ? f[n_tokens - 1] : NULL;
}

const struct stream_kernels ISA_SYMBOL(stream_kernels) = {.rows = STREAM_ROWS, .float_rows = FLOAT_ROWS, .find = find};
