/* gpu_decode.cuh: one element of a packed row, for every tensor type, exactly as dequantize_row (engine/file/dequant.c) gives
 * it: the same f32 operations in the same order, so the same bits. Layouts are told there. Compiled without contraction
 * (-fmad=false).
 *
 * Blocks have odd sizes (18, 210 bytes), so they are read by bytes. */
#ifndef TOKENMILL_ENGINE_GPU_DECODE_CUH
#define TOKENMILL_ENGINE_GPU_DECODE_CUH

#include "engine/cuda/gpu_device.cuh"
#include "engine/file/tensor.h"

static __device__ inline float gpu_f16_to_f32(uint16_t h)
{
#ifndef TOKENMILL_CUDA_SHIM
	float f;

	asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
	return f;
#else
	return shim_f16_to_f32(h);
#endif
}

static __device__ inline uint16_t gpu_f32_to_f16(float f)
{
#ifndef TOKENMILL_CUDA_SHIM
	uint16_t h;

	asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f));
	return h;
#else
	return shim_f32_to_f16(f);
#endif
}

static __device__ inline float gpu_bf16_to_f32(uint16_t h)
{
	return __uint_as_float((unsigned)h << 16);
}

static __device__ inline uint16_t gpu_f32_to_bf16(float f)
{
	unsigned u = __float_as_uint(f);

	if ((u & 0x7fffffffu) > 0x7f800000u)
		return (uint16_t)(u >> 16 | 0x40);
	return (uint16_t)((u + 0x7fffu + (u >> 16 & 1)) >> 16);
}

static __device__ inline float read_f16(const uint8_t *p)
{
	return gpu_f16_to_f32((uint16_t)(p[0] | p[1] << 8));
}

static __device__ inline unsigned read_u32(const uint8_t *p)
{
	return p[0] | (unsigned)p[1] << 8 | (unsigned)p[2] << 16 | (unsigned)p[3] << 24;
}

/* Of a 32-element block of nibbles: element i. */
static __device__ inline int nibble(const uint8_t *qs, int i)
{
	return i < 16 ? qs[i] & 15 : qs[i - 16] >> 4;
}

static __device__ inline float decode_q2_k(const uint8_t *p, int i)
{
	int half = i / 128, shift = i % 128 / 32 * 2, l = i % 32;
	int sc = p[i / 16];
	float d = read_f16(p + 80), min = read_f16(p + 82);
	float dl = d * (float)(sc & 15), ml = min * (float)(sc >> 4);

	return dl * (float)(p[16 + 32 * half + l] >> shift & 3) - ml;
}

static __device__ inline float decode_q3_k(const uint8_t *p, int i)
{
	const uint8_t *scales = p + 96;
	int half = i / 128, shift = i % 128 / 32 * 2, l = i % 32, k = i / 16;
	int low = k < 8 ? scales[k] & 15 : scales[k - 8] >> 4, high = scales[8 + k % 4] >> (2 * (k / 4)) & 3;
	float dl = read_f16(p + 108) * (float)((low | high << 4) - 32);

	return dl * (float)((p[32 + 32 * half + l] >> shift & 3) - (p[l] >> (i / 32) & 1 ? 0 : 4));
}

/* The j-th of eight 6-bit scales and mins in 12 bytes, times d and dmin. */
static __device__ inline void scale_min(const uint8_t *s, int j, float d, float dmin, float *scale, float *min)
{
	int sc = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
	int mn = j < 4 ? s[j + 4] & 63 : (s[j + 4] >> 4) | (s[j] >> 6) << 4;

	*scale = d * (float)sc;
	*min = dmin * (float)mn;
}

static __device__ inline float decode_q4_k(const uint8_t *p, int i)
{
	int j = i / 32, l = i % 32, byte = p[16 + 32 * (j / 2) + l];
	float dl, ml;

	scale_min(p + 4, j, read_f16(p), read_f16(p + 2), &dl, &ml);
	return dl * (float)(j & 1 ? byte >> 4 : byte & 15) - ml;
}

static __device__ inline float decode_q5_k(const uint8_t *p, int i)
{
	int j = i / 32, l = i % 32, byte = p[48 + 32 * (j / 2) + l];
	float dl, ml;

	scale_min(p + 4, j, read_f16(p), read_f16(p + 2), &dl, &ml);
	return dl * (float)((j & 1 ? byte >> 4 : byte & 15) + (p[16 + l] >> j & 1 ? 16 : 0)) - ml;
}

static __device__ inline float decode_q6_k(const uint8_t *p, int i)
{
	int half = i / 128, k = i % 128 / 32, l = i % 32;
	int byte = p[64 * half + l + 32 * (k & 1)], high = p[128 + 32 * half + l] >> (2 * k) & 3;
	int q = ((k < 2 ? byte & 15 : byte >> 4) | high << 4) - 32, sc = (int8_t)p[192 + 8 * half + l / 16 + 2 * k];

	return read_f16(p + 208) * (float)sc * (float)q;
}

/* Element i of a packed row. The type is the same for all threads, so the switch does not diverge. */
static __device__ inline float gpu_decode(int type, const uint8_t *row, int i)
{
	const uint8_t *p;

	switch (type) {
	case TENSOR_F32:
		return ((const float *)row)[i];
	case TENSOR_F16:
		return gpu_f16_to_f32(((const uint16_t *)row)[i]);
	case TENSOR_BF16:
		return gpu_bf16_to_f32(((const uint16_t *)row)[i]);
	case TENSOR_Q4_0:
		p = row + i / 32 * 18;
		return (float)(nibble(p + 2, i % 32) - 8) * read_f16(p);
	case TENSOR_Q4_1:
		p = row + i / 32 * 20;
		return (float)nibble(p + 4, i % 32) * read_f16(p) + read_f16(p + 2);
	case TENSOR_Q5_0:
		p = row + i / 32 * 22;
		return (float)((nibble(p + 6, i % 32) | (int)(read_u32(p + 2) >> i % 32 & 1) << 4) - 16) * read_f16(p);
	case TENSOR_Q5_1:
		p = row + i / 32 * 24;
		return (float)(nibble(p + 8, i % 32) | (int)(read_u32(p + 4) >> i % 32 & 1) << 4) * read_f16(p) + read_f16(p + 2);
	case TENSOR_Q8_0:
		p = row + i / 32 * 34;
		return (float)(int8_t)p[2 + i % 32] * read_f16(p);
	case TENSOR_Q2_K:
		return decode_q2_k(row + i / 256 * 84, i % 256);
	case TENSOR_Q3_K:
		return decode_q3_k(row + i / 256 * 110, i % 256);
	case TENSOR_Q4_K:
		return decode_q4_k(row + i / 256 * 144, i % 256);
	case TENSOR_Q5_K:
		return decode_q5_k(row + i / 256 * 176, i % 256);
	case TENSOR_Q6_K:
		return decode_q6_k(row + i / 256 * 210, i % 256);
	case TENSOR_Q8_K:
		p = row + i / 256 * 292;
		return __uint_as_float(read_u32(p)) * (float)(int8_t)p[4 + i % 256];
	}
	return 0.0f; /* no such matrix is ever made: see backend_cuda.c */
}

#endif
