/* dequant.c: the reference decoding of every tensor type.
 *
 * Each function computes the same f32 operations in the same order as the dequantize_row_* of ggml (ggml-quants.c), so that
 * results are equal to the bit; tests hold them against gguf-py. Layouts are ggml-common.h's; blocks are read byte by
 * byte because a row may lie at any address. Not fast: kernels have their own decoders, held against these.
 */
#include <string.h>

#include "base/errors.h"
#include "engine/file/tensor.h"

static float read_f16(const uint8_t *p)
{
	return f16_to_f32((uint16_t)(p[0] | p[1] << 8));
}

static uint32_t read_u32(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static float read_f32(const uint8_t *p)
{
	uint32_t u = read_u32(p);
	float f;

	memcpy(&f, &u, sizeof(f));
	return f;
}

/* d f16, qs[16]: element j in the low half of byte j, element j + 16 in the high half. */
static void decode_q4_0(const uint8_t *p, float *y)
{
	float d = read_f16(p);
	const uint8_t *qs = p + 2;

	for (int j = 0; j < 16; j++) {
		y[j] = (float)((qs[j] & 15) - 8) * d;
		y[j + 16] = (float)((qs[j] >> 4) - 8) * d;
	}
}

/* d f16, m f16, qs[16]. */
static void decode_q4_1(const uint8_t *p, float *y)
{
	float d = read_f16(p), m = read_f16(p + 2);
	const uint8_t *qs = p + 4;

	for (int j = 0; j < 16; j++) {
		y[j] = (float)(qs[j] & 15) * d + m;
		y[j + 16] = (float)(qs[j] >> 4) * d + m;
	}
}

/* d f16, qh u32 (bit i: fifth bit of element i), qs[16]. */
static void decode_q5_0(const uint8_t *p, float *y)
{
	float d = read_f16(p);
	uint32_t qh = read_u32(p + 2);
	const uint8_t *qs = p + 6;

	for (int j = 0; j < 16; j++) {
		y[j] = (float)((int)((qs[j] & 15u) | (qh >> j & 1) << 4) - 16) * d;
		y[j + 16] = (float)((int)((unsigned)qs[j] >> 4 | (qh >> (j + 16) & 1) << 4) - 16) * d;
	}
}

/* d f16, m f16, qh u32, qs[16]. */
static void decode_q5_1(const uint8_t *p, float *y)
{
	float d = read_f16(p), m = read_f16(p + 2);
	uint32_t qh = read_u32(p + 4);
	const uint8_t *qs = p + 8;

	for (int j = 0; j < 16; j++) {
		y[j] = (float)((qs[j] & 15u) | (qh >> j & 1) << 4) * d + m;
		y[j + 16] = (float)((unsigned)qs[j] >> 4 | (qh >> (j + 16) & 1) << 4) * d + m;
	}
}

/* d f16, qs i8[32]. */
static void decode_q8_0(const uint8_t *p, float *y)
{
	float d = read_f16(p);

	for (int j = 0; j < 32; j++)
		y[j] = (float)(int8_t)p[2 + j] * d;
}

/* scales[16] (low half: scale, high half: min), qs[64] of 2 bits, d f16, dmin f16. */
static void decode_q2_k(const uint8_t *p, float *y)
{
	const uint8_t *scales = p, *q = p + 16;
	float d = read_f16(p + 80), min = read_f16(p + 82);

	for (int half = 0; half < 2; half++, q += 32) {
		for (int shift = 0; shift < 8; shift += 2) {
			for (int k = 0; k < 2; k++) {
				uint8_t sc = *scales++;
				float dl = d * (float)(sc & 15), ml = min * (float)(sc >> 4);

				for (int l = 0; l < 16; l++)
					*y++ = dl * (float)(q[16 * k + l] >> shift & 3) - ml;
			}
		}
	}
}

/* hmask[32] (bit b: high bit of the 32-element run b), qs[64] of 2 bits, scales[12] of 6 bits, d f16.
 * Scale i: low 4 bits in byte i % 8 (high half for i >= 8), high 2 bits in byte 8 + i % 4 at 2 * (i / 4). */
static void decode_q3_k(const uint8_t *p, float *y)
{
	const uint8_t *hmask = p, *q = p + 32, *scales = p + 96;
	float d = read_f16(p + 108);
	int run = 0, i = 0;

	for (int half = 0; half < 2; half++, q += 32) {
		for (int shift = 0; shift < 8; shift += 2, run++) {
			for (int k = 0; k < 2; k++, i++) {
				int low = i < 8 ? scales[i] & 15 : scales[i - 8] >> 4, high = scales[8 + i % 4] >> (2 * (i / 4)) & 3;
				float dl = d * (float)((low | high << 4) - 32);

				for (int l = 16 * k; l < 16 * k + 16; l++)
					*y++ = dl * (float)((q[l] >> shift & 3) - (hmask[l] >> run & 1 ? 0 : 4));
			}
		}
	}
}

/* The eight 6-bit scales and mins of Q4_K and Q5_K, packed in 12 bytes. */
static void unpack_scale_min(const uint8_t *s, int j, float *scale, float *min)
{
	if (j < 4) {
		*scale = (float)(s[j] & 63);
		*min = (float)(s[j + 4] & 63);
	} else {
		*scale = (float)((s[j + 4] & 15) | (s[j - 4] >> 6) << 4);
		*min = (float)((s[j + 4] >> 4) | (s[j] >> 6) << 4);
	}
}

/* d f16, dmin f16, scales[12], qs[128]: 64 elements per 32 bytes, low halves first. */
static void decode_q4_k(const uint8_t *p, float *y)
{
	float d = read_f16(p), dmin = read_f16(p + 2), scale, min;
	const uint8_t *q = p + 16;

	for (int j = 0; j < 8; j++) {
		float dl, ml;

		unpack_scale_min(p + 4, j, &scale, &min);
		dl = d * scale;
		ml = dmin * min;
		for (int l = 0; l < 32; l++)
			*y++ = dl * (float)(j & 1 ? q[l] >> 4 : q[l] & 15) - ml;
		if (j & 1)
			q += 32;
	}
}

/* d f16, dmin f16, scales[12], qh[32] (bit j: fifth bit of the 32-element run j), qs[128]. */
static void decode_q5_k(const uint8_t *p, float *y)
{
	float d = read_f16(p), dmin = read_f16(p + 2), scale, min;
	const uint8_t *qh = p + 16, *q = p + 48;

	for (int j = 0; j < 8; j++) {
		float dl, ml;

		unpack_scale_min(p + 4, j, &scale, &min);
		dl = d * scale;
		ml = dmin * min;
		for (int l = 0; l < 32; l++)
			*y++ = dl * (float)((j & 1 ? q[l] >> 4 : q[l] & 15) + (qh[l] >> j & 1 ? 16 : 0)) - ml;
		if (j & 1)
			q += 32;
	}
}

/* ql[128] low 4 bits, qh[64] high 2 bits, scales i8[16], d f16. */
static void decode_q6_k(const uint8_t *p, float *y)
{
	const uint8_t *ql = p, *qh = p + 128, *sc = p + 192;
	float d = read_f16(p + 208);

	for (int half = 0; half < 2; half++, y += 128, ql += 64, qh += 32, sc += 8) {
		for (int l = 0; l < 32; l++) {
			for (int k = 0; k < 4; k++) {
				uint8_t byte = ql[l + 32 * (k & 1)];
				int q = ((k < 2 ? byte & 15 : byte >> 4) | (qh[l] >> (2 * k) & 3) << 4) - 32;

				y[l + 32 * k] = d * (float)(int8_t)sc[l / 16 + 2 * k] * (float)q;
			}
		}
	}
}

/* d f32, qs i8[256], then sums that only kernels read. */
static void decode_q8_k(const uint8_t *p, float *y)
{
	float d = read_f32(p);

	for (int j = 0; j < 256; j++)
		y[j] = d * (float)(int8_t)p[4 + j];
}

static void decode_f32(const uint8_t *p, float *y)
{
	*y = read_f32(p);
}

static void decode_f16(const uint8_t *p, float *y)
{
	*y = read_f16(p);
}

static void decode_bf16(const uint8_t *p, float *y)
{
	*y = bf16_to_f32((uint16_t)(p[0] | p[1] << 8));
}

typedef void (*decode_fn)(const uint8_t *block, float *y);

static decode_fn find_decoder(enum tensor_type t)
{
	switch (t) {
	case TENSOR_F32:
		return decode_f32;
	case TENSOR_F16:
		return decode_f16;
	case TENSOR_BF16:
		return decode_bf16;
	case TENSOR_Q4_0:
		return decode_q4_0;
	case TENSOR_Q4_1:
		return decode_q4_1;
	case TENSOR_Q5_0:
		return decode_q5_0;
	case TENSOR_Q5_1:
		return decode_q5_1;
	case TENSOR_Q8_0:
		return decode_q8_0;
	case TENSOR_Q2_K:
		return decode_q2_k;
	case TENSOR_Q3_K:
		return decode_q3_k;
	case TENSOR_Q4_K:
		return decode_q4_k;
	case TENSOR_Q5_K:
		return decode_q5_k;
	case TENSOR_Q6_K:
		return decode_q6_k;
	case TENSOR_Q8_K:
		return decode_q8_k;
	}
	return NULL;
}

void dequantize_row(enum tensor_type t, const void *src, float *dst, int64_t n)
{
	decode_fn decode = find_decoder(t);
	int block = tensor_type_block(t), bytes = tensor_type_bytes(t);
	const uint8_t *p = src;

	if (!decode || n % block != 0)
		BUG("cannot decode %lld elements of type %d", (long long)n, (int)t);
	for (int64_t i = 0; i < n; i += block, p += bytes)
		decode(p, dst + i);
}
