/* matmul_data.h: weights and activations for the matrix tests and their benchmark. */
#ifndef TOKENMILL_TESTS_MATMUL_DATA_H
#define TOKENMILL_TESTS_MATMUL_DATA_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/file/tensor.h"
#include "tests/engine/isas.h"

static const enum tensor_type matmul_types[] = {TENSOR_F32,  TENSOR_F16,  TENSOR_BF16, TENSOR_Q4_0, TENSOR_Q4_1,
                                                TENSOR_Q5_0, TENSOR_Q5_1, TENSOR_Q8_0, TENSOR_Q2_K, TENSOR_Q3_K,
                                                TENSOR_Q4_K, TENSOR_Q5_K, TENSOR_Q6_K, TENSOR_Q8_K};
enum { MATMUL_N_TYPES = sizeof(matmul_types) / sizeof(matmul_types[0]) };

static inline void test_isas_print_missing(void)
{
	static const char *const all[] = {"avx2", "avx512"};

	for (int i = 0; i < 2; i++)
		if (!isa_runs(all[i]))
			printf("skip %s: this processor lacks it\n", all[i]);
}

static inline uint64_t matmul_random(uint64_t *state) /* splitmix64, Steele et al. 2014 */
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15u);

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

/* About normal, with one value in 64 ten times as large, as activations have. */
static inline void matmul_random_x(float *x, size_t n, uint64_t seed)
{
	for (size_t i = 0; i < n; i++) {
		float sum = 0;

		for (int j = 0; j < 4; j++)
			sum += (float)(matmul_random(&seed) >> 40) * 0x1p-24f - 0.5f;
		x[i] = matmul_random(&seed) % 64 ? sum : 10 * sum;
	}
}

enum matmul_fill { MATMUL_RANDOM, MATMUL_LARGEST, MATMUL_SMALLEST };

/* Where a block's f16 scales are. */
static inline int matmul_scale_at(enum tensor_type t, int i)
{
	switch (t) {
	case TENSOR_Q4_0:
	case TENSOR_Q5_0:
	case TENSOR_Q8_0:
		return i == 0 ? 0 : -1;
	case TENSOR_Q4_1:
	case TENSOR_Q5_1:
	case TENSOR_Q4_K:
	case TENSOR_Q5_K:
		return i < 2 ? 2 * i : -1;
	case TENSOR_Q2_K:
		return i < 2 ? 80 + 2 * i : -1;
	case TENSOR_Q3_K:
		return i == 0 ? 108 : -1;
	case TENSOR_Q6_K:
		return i == 0 ? 208 : -1;
	default:
		return -1;
	}
}

/* [n_out, n_in] at an odd address, with random bits for codes and sub-scales and plausible scales; or all code bits 1 or 0. */
static inline struct tensor matmul_tensor(enum tensor_type type, int64_t n_out, int64_t n_in, enum matmul_fill fill,
                                          uint64_t seed)
{
	struct tensor t = {.name = "blk.0.test.weight", .type = type, .n_dims = 2, .shape = {n_out, n_in}};
	size_t n_blocks, block = (size_t)tensor_type_bytes(type);
	uint8_t *data;

	t.n_bytes = tensor_row_bytes(type, n_in) * (size_t)n_out;
	data = (uint8_t *)xmalloc(t.n_bytes + 1) + 1;
	t.data = data;
	n_blocks = t.n_bytes / block;
	if (tensor_type_block(type) == 1) {
		for (size_t i = 0; i < n_blocks; i++) {
			float f;
			uint16_t h;

			matmul_random_x(&f, 1, seed + i);
			h = type == TENSOR_F16 ? f32_to_f16(f) : f32_to_bf16(f);
			memcpy(data + i * block, block == 4 ? (const void *)&f : (const void *)&h, block);
		}
		return t;
	}
	if (fill == MATMUL_RANDOM)
		for (size_t i = 0; i < t.n_bytes; i++)
			data[i] = (uint8_t)(matmul_random(&seed) >> 32);
	else /* eight-bit codes are signed */
		memset(data,
		       fill == MATMUL_LARGEST                       ? type == TENSOR_Q8_0 || type == TENSOR_Q8_K ? 0x7f : 0xff
		       : type == TENSOR_Q8_0 || type == TENSOR_Q8_K ? 0x80
		                                                    : 0x00,
		       t.n_bytes);
	for (size_t b = 0; b < n_blocks; b++) {
		float d = ((float)(matmul_random(&seed) >> 40) * 0x1p-24f + 0.1f) * 0.01f;

		if (type == TENSOR_Q8_K)
			memcpy(data + b * block, &d, sizeof(d));
		for (int i = 0; matmul_scale_at(type, i) >= 0; i++) {
			uint16_t h = f32_to_f16(i == 0 ? d : matmul_random(&seed) % 2 ? 4 * d : -4 * d);

			memcpy(data + b * block + matmul_scale_at(type, i), &h, sizeof(h));
		}
	}
	return t;
}

static inline void matmul_tensor_free(struct tensor *t)
{
	free((uint8_t *)(uintptr_t)t->data - 1);
	t->data = NULL;
}

#endif
