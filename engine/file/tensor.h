/* tensor.h: a tensor as it lies in a model file, and how its bytes become numbers.
 *
 * Types carry ggml's numbers (ggml.h, GGUF specification). A quantised type packs `block` consecutive elements of a row
 * into `bytes` bytes; rows start at block boundaries. The reference decoding is dequantize_row; every faster path is
 * held against it.
 */
#ifndef TOKENMILL_ENGINE_TENSOR_H
#define TOKENMILL_ENGINE_TENSOR_H

#include <stddef.h>
#include <stdint.h>

enum tensor_type {
	TENSOR_F32 = 0,
	TENSOR_F16 = 1,
	TENSOR_Q4_0 = 2,
	TENSOR_Q4_1 = 3,
	TENSOR_Q5_0 = 6,
	TENSOR_Q5_1 = 7,
	TENSOR_Q8_0 = 8,
	TENSOR_Q2_K = 10,
	TENSOR_Q3_K = 11,
	TENSOR_Q4_K = 12,
	TENSOR_Q5_K = 13,
	TENSOR_Q6_K = 14,
	TENSOR_Q8_K = 15,
	TENSOR_BF16 = 30,
};

/* Borrowed view into the mapped file. Zero data: the tensor is absent. */
struct tensor {
	const char *name;     /* as in the file; owned by the file's reader */
	enum tensor_type type;
	int n_dims;           /* 1 to 4 */
	int64_t shape[4];     /* row-major, outermost first: a matrix is [rows = outputs, cols = inputs] */
	const void *data;     /* in file byte order (little endian); alignment not promised */
	size_t n_bytes;
};

/* Elements in a block, bytes of a block; 0 when the type is not one of the above. */
int tensor_type_block(enum tensor_type t);
int tensor_type_bytes(enum tensor_type t);
const char *tensor_type_name(enum tensor_type t); /* "Q4_K"; "type 42" style names are the caller's */
/* Bytes of a row of n elements; 0 if n is not a multiple of the block or the type is unknown. */
size_t tensor_row_bytes(enum tensor_type t, int64_t n);
int64_t tensor_n_elements(const struct tensor *t);

/* dst[0..n) = the n elements of a packed row, exactly as ggml's dequantize_row_* (same operations, f32). */
void dequantize_row(enum tensor_type t, const void *src, float *dst, int64_t n);

float f16_to_f32(uint16_t h);
uint16_t f32_to_f16(float f);  /* round to nearest even */
float bf16_to_f32(uint16_t h);
uint16_t f32_to_bf16(float f); /* round to nearest even; NaN stays NaN */

#endif
