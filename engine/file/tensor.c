/* tensor.c: the table of tensor types, and the 16-bit floats. */
#include "engine/file/tensor.h"

#include <string.h>

struct type_info {
	const char *name;
	int block, bytes;
};

/* Sizes: the block structs of ggml-common.h; 32-element blocks of the first generation, 256-element ones of the K types. */
static const struct type_info types[] = {
	[TENSOR_F32] = {"F32", 1, 4},
	[TENSOR_F16] = {"F16", 1, 2},
	[TENSOR_Q4_0] = {"Q4_0", 32, 2 + 16},
	[TENSOR_Q4_1] = {"Q4_1", 32, 4 + 16},
	[TENSOR_Q5_0] = {"Q5_0", 32, 2 + 4 + 16},
	[TENSOR_Q5_1] = {"Q5_1", 32, 4 + 4 + 16},
	[TENSOR_Q8_0] = {"Q8_0", 32, 2 + 32},
	[TENSOR_Q2_K] = {"Q2_K", 256, 16 + 64 + 4},
	[TENSOR_Q3_K] = {"Q3_K", 256, 32 + 64 + 12 + 2},
	[TENSOR_Q4_K] = {"Q4_K", 256, 4 + 12 + 128},
	[TENSOR_Q5_K] = {"Q5_K", 256, 4 + 12 + 32 + 128},
	[TENSOR_Q6_K] = {"Q6_K", 256, 128 + 64 + 16 + 2},
	[TENSOR_Q8_K] = {"Q8_K", 256, 4 + 256 + 32},
	[TENSOR_BF16] = {"BF16", 1, 2},
};

static const struct type_info *find_type(enum tensor_type t)
{
	static const struct type_info none = {"unknown", 0, 0};
	size_t i = (size_t)(unsigned)t;

	return i < sizeof(types) / sizeof(types[0]) && types[i].name ? &types[i] : &none;
}

int tensor_type_block(enum tensor_type t)
{
	return find_type(t)->block;
}

int tensor_type_bytes(enum tensor_type t)
{
	return find_type(t)->bytes;
}

const char *tensor_type_name(enum tensor_type t)
{
	return find_type(t)->name;
}

size_t tensor_row_bytes(enum tensor_type t, int64_t n)
{
	const struct type_info *info = find_type(t);

	if (info->block == 0 || n <= 0 || n % info->block != 0 || n > INT64_MAX / info->bytes)
		return 0;
	return (size_t)(n / info->block) * (size_t)info->bytes;
}

int64_t tensor_n_elements(const struct tensor *t)
{
	int64_t n = t->n_dims > 0 ? 1 : 0;

	for (int i = 0; i < t->n_dims; i++)
		n *= t->shape[i];
	return n;
}

static float bits_to_f32(uint32_t u)
{
	float f;

	memcpy(&f, &u, sizeof(f));
	return f;
}

static uint32_t f32_to_bits(float f)
{
	uint32_t u;

	memcpy(&u, &f, sizeof(u));
	return u;
}

float f16_to_f32(uint16_t h)
{
	uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = (h >> 10) & 31, mantissa = h & 0x3FF;

	if (exponent == 0) { /* zero and subnormals: a multiple of 2^-24, exact in f32 */
		float f = (float)mantissa * 0x1p-24f;

		return bits_to_f32(f32_to_bits(f) | sign);
	}
	if (exponent == 31)
		return bits_to_f32(sign | 0x7F800000u | mantissa << 13);
	return bits_to_f32(sign | (exponent + 112) << 23 | mantissa << 13);
}

uint16_t f32_to_f16(float f)
{
	uint32_t u = f32_to_bits(f), a = u & 0x7FFFFFFFu;
	uint16_t sign = (uint16_t)(u >> 16 & 0x8000);

	if (a > 0x7F800000u)
		return (uint16_t)(sign | 0x7E00);
	if (a >= 0x477FF000u) /* 65520 and beyond: halfway from the largest f16 to the next power of two */
		return (uint16_t)(sign | 0x7C00);
	if (a < 0x38800000u) { /* below 2^-14: subnormal; adding 0.5 leaves multiples of 2^-24 in the low mantissa, rounded */
		float shifted = bits_to_f32(a) + 0.5f;

		return (uint16_t)(sign | (f32_to_bits(shifted) - 0x3F000000u));
	}
	a += 0xFFF + (a >> 13 & 1); /* round half to even; a carry moves into the exponent as it should */
	return (uint16_t)(sign | ((a >> 13) - (112u << 10)));
}

float bf16_to_f32(uint16_t h)
{
	return bits_to_f32((uint32_t)h << 16);
}

uint16_t f32_to_bf16(float f)
{
	uint32_t u = f32_to_bits(f);

	if ((u & 0x7FFFFFFFu) > 0x7F800000u)
		return (uint16_t)(u >> 16 | 0x40);
	return (uint16_t)((u + 0x7FFF + (u >> 16 & 1)) >> 16);
}
