/* kernels_codes.c: around the products: quantise or interleave activations, unpack codes and scales into panels, decode
 * weights to f32, store results. Compiled once per instruction set. */
#include "engine/cpu/dot.h"

/* Below this a block counts as zero: 127 / amax stays finite, and no model means anything by such values. */
#define TINY 1e-30f

/* 16 codes in -127..127 to bytes, and their sum. */
LANES_FN int32_t narrow(struct lanes_i q, int8_t *out)
{
	int32_t sum = 0;

	lanes_i_store_i8(out, q);
#if !defined(ISA_GENERIC)
	/* psadbw adds unsigned bytes */
	__m128i s = _mm_sad_epu8(_mm_xor_si128(_mm_loadu_si128((const void *)out), _mm_set1_epi8(-128)), _mm_setzero_si128());

	sum = _mm_cvtsi128_si32(s) + _mm_extract_epi16(s, 4) - 16 * 128;
#else
	for (int i = 0; i < LANES; i++)
		sum += out[i];
#endif
	return sum;
}

LANES_FN struct lanes_i code_of(struct lanes_f x, float inverse)
{
	struct lanes_f v = lanes_f_mul(x, lanes_f_set1(inverse));

	/* NaN becomes -127: the second operand */
	return lanes_i_from_f(lanes_f_max(lanes_f_min(v, lanes_f_set1(127)), lanes_f_set1(-127)));
}

/* One block of 32 columns. The recipe, the same everywhere: scale = amax / 127; code = round to even (x * (127 / amax)). An
 * infinity or NaN among the values makes the scale NaN, so that it is seen in the result. */
LANES_FN float quantize_block(const float *x, int8_t *codes, int32_t sums[2])
{
	struct lanes_f a = lanes_f_load(x), b = lanes_f_load(x + LANES), zero = lanes_f_zero();
	float amax = lanes_f_max_over(lanes_f_max(lanes_f_abs(a), lanes_f_abs(b)));
	float nothing = lanes_f_sum(lanes_f_fma(a, zero, lanes_f_mul(b, zero))); /* +-0 or NaN */
	float inverse = amax < TINY ? 0 : 127.0f / amax;

	sums[0] = narrow(code_of(a, inverse), codes);
	sums[1] = narrow(code_of(b, inverse), codes + LANES);
	return (amax < TINY ? 0 : amax / 127.0f) + nothing;
}

static void quantize(const float *x, int64_t stride, int n_tokens, int n_blocks, const struct packed_x *out)
{
	for (int t = 0; t < n_tokens; t++)
		for (int b = 0; b < n_blocks; b++) {
			int8_t codes[BLOCK_COLS];
			int32_t sums[2], dwords[8];
			float scale = quantize_block(x + t * stride + b * BLOCK_COLS, codes, sums);
			int at = b * n_tokens + t, at16 = 2 * b * n_tokens + t;

			memcpy(dwords, codes, sizeof(dwords));
			for (int g = 0; g < 8; g++)
				out->codes[(b * 8 + g) * n_tokens + t] = dwords[g];
			out->scale[at] = scale;
			out->neg_sum[0][at] = -(sums[0] + sums[1]);
			out->min_sum[0][at] = scale * (float)(sums[0] + sums[1]);
			for (int sub = 0; sub < 2; sub++) {
				out->neg_sum[1][at16 + sub * n_tokens] = -sums[sub];
				out->min_sum[1][at16 + sub * n_tokens] = scale * (float)sums[sub];
			}
		}
}

/* Types are constants where the loops are, see codes.h. */
/* clang-format off */
#define FOR_TYPE(t, call)                                                                           \
	switch (t) {                                                                                    \
	case TENSOR_Q4_0: call(TENSOR_Q4_0, PLANES_4, 1); break;                                        \
	case TENSOR_Q4_1: call(TENSOR_Q4_1, PLANES_4, 1); break;                                        \
	case TENSOR_Q5_0: call(TENSOR_Q5_0, PLANES_4_1, 1); break;                                      \
	case TENSOR_Q5_1: call(TENSOR_Q5_1, PLANES_4_1, 1); break;                                      \
	case TENSOR_Q8_0: call(TENSOR_Q8_0, PLANES_8, 1); break;                                        \
	case TENSOR_Q2_K: call(TENSOR_Q2_K, PLANES_2, 2); break;                                        \
	case TENSOR_Q3_K: call(TENSOR_Q3_K, PLANES_2_1, 2); break;                                      \
	case TENSOR_Q4_K: call(TENSOR_Q4_K, PLANES_4, 1); break;                                        \
	case TENSOR_Q5_K: call(TENSOR_Q5_K, PLANES_4_1, 1); break;                                      \
	case TENSOR_Q6_K: call(TENSOR_Q6_K, PLANES_4_2, 2); break;                                      \
	case TENSOR_Q8_K: call(TENSOR_Q8_K, PLANES_8, 1); break;                                        \
	default: break;                                                                                 \
	}
/* clang-format on */

LANES_FN void unpack_unit(enum tensor_type t, enum code_planes planes, int subs, const struct packed_type *p,
                          const uint8_t *unit, int n, uint8_t *codes, float *scales, float *mins)
{
	const uint8_t *unit_scales = unit + p->unit_blocks * p->block_bytes;

	for (int b = 0; b < n; b++) {
		LANES_UNROLL
		for (int g = 0; g < 8; g++) {
			struct lanes_i v = dot_codes(CODES_PACKED, planes, unit + b * p->block_bytes, g);

			lanes_i_store((int32_t *)(void *)(codes + b * BLOCK_CODES + g * CODE_VECTOR), v);
		}
		for (int sub = 0; sub < subs; sub++) {
			struct lanes_f scale, min;

			codes_scale(t, unit_scales, b, sub, &scale, &min);
			lanes_f_store(scales + (b * subs + sub) * LANES, scale);
			if (p->has_min)
				lanes_f_store(mins + (b * subs + sub) * LANES, min);
		}
	}
}

static void unpack(const struct packed_type *p, const uint8_t *src, int n_tiles, int n_blocks, uint8_t *codes, float *scales,
                   float *mins)
{
	const int ahead = n_blocks / p->unit_blocks * n_tiles * p->unit_bytes;

	for (int b = 0; b < n_blocks; b += p->unit_blocks)
		for (int r = 0; r < n_tiles; r++, src += p->unit_bytes) {
			int left = n_blocks - b < p->unit_blocks ? n_blocks - b : p->unit_blocks;
			int at = (r * CHUNK_BLOCKS * 2 + b * p->subs) * LANES;

			for (int i = 0; i < p->unit_bytes; i += 64)
				__builtin_prefetch(src + ahead + i, 0, 2);
#define UNPACK(t, planes, subs)                                                                                                \
	unpack_unit(t, planes, subs, p, src, left, codes + (r * CHUNK_BLOCKS + b) * BLOCK_CODES, scales + at, mins + at)
			FOR_TYPE(p->type, UNPACK)
		}
}

LANES_FN void decode_unit(enum tensor_type t, enum code_planes planes, int subs, const struct packed_type *p,
                          const uint8_t *unit, int n, float *out, int stride)
{
	const uint8_t *unit_scales = unit + p->unit_blocks * p->block_bytes;
	const struct lanes_i offset = lanes_i_set1(p->offset_shift < 0 ? 0 : 1 << p->offset_shift);

	for (int b = 0; b < n; b++) {
		struct lanes_f scale[2], min[2];

		for (int sub = 0; sub < subs; sub++)
			codes_scale(t, unit_scales, b, sub, &scale[sub], &min[sub]);
		LANES_UNROLL
		for (int g = 0; g < 8; g++) {
			struct lanes_i v = codes_vector(planes, unit + b * p->block_bytes, g);
			const int sub = subs == 2 ? g / 4 : 0;

			LANES_UNROLL
			for (int i = 0; i < 4; i++) {
				struct lanes_i code = lanes_i_and(lanes_i_shift_right(v, 8 * i), lanes_i_set1(255));
				struct lanes_f y = lanes_f_mul(lanes_f_from_i(lanes_i_sub(code, offset)), scale[sub]);

				if (p->has_min)
					y = lanes_f_add(y, min[sub]);
				lanes_f_store(out + (b * BLOCK_COLS + 4 * g + i) * stride, y);
			}
		}
	}
}

static void decode(const struct packed_type *p, const uint8_t *src, int n_tiles, int r, int n_blocks, float *out, int stride)
{
	src += r * p->unit_bytes;
	for (int b = 0; b < n_blocks; b += p->unit_blocks, src += n_tiles * p->unit_bytes) {
		int left = n_blocks - b < p->unit_blocks ? n_blocks - b : p->unit_blocks;

#define DECODE(t, planes, subs) decode_unit(t, planes, subs, p, src, left, out + b * BLOCK_COLS * stride, stride)
		FOR_TYPE(p->type, DECODE)
	}
}

static void widen(enum tensor_type t, const void *src, int64_t n, float *out)
{
	const uint16_t *half = src;

	for (int64_t i = 0; i < n; i += 2, half += 2 * LANES, out += 2 * LANES) {
		__builtin_prefetch(half + n * LANES, 0, 2);
		for (int j = 0; j < 2 && i + j < n; j++)
			lanes_f_store(out + j * LANES,
			              t == TENSOR_F16 ? lanes_f_load_f16(half + j * LANES) : lanes_f_load_bf16(half + j * LANES));
	}
}

LANES_FN void store_lanes(const float *acc, const float *bias, int accumulate, float *out, int n)
{
	struct lanes_f v = lanes_f_load(acc);

	if (bias)
		v = lanes_f_add(v, n == LANES ? lanes_f_load(bias) : lanes_f_load_n(bias, n));
	if (accumulate)
		v = lanes_f_add(v, n == LANES ? lanes_f_load(out) : lanes_f_load_n(out, n));
	if (n == LANES)
		lanes_f_store(out, v);
	else
		lanes_f_store_n(out, v, n);
}

static void store(const float *acc, int n_tokens, int n, const float *bias, int accumulate, float *out, int64_t stride)
{
	for (int t = 0; t < n_tokens; t++, acc += PANEL_ROWS, out += stride)
		for (int i = 0; i < n; i += LANES)
			store_lanes(acc + i, bias ? bias + i : NULL, accumulate, out + i, n - i < LANES ? n - i : LANES);
}

const struct codes_kernels ISA_SYMBOL(codes_kernels) = {
    .quantize = quantize,
    .unpack = unpack,
    .decode = decode,
    .widen = widen,
    .store = store,
};
