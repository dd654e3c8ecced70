/* matmul.h: y = x W^T for weights in any file type, on the CPU.
 *
 * Weights are repacked once at load: 16 output rows go side by side ("lanes"), so that one vector lane computes one output
 * element from start to end:
 *
 *     tile t = rows 16t .. 16t+15;   for k-group g:  [lane 0: k..k+3][lane 1: k..k+3] ... [lane 15: k..k+3]
 *
 * Every output element is reduced over k in one fixed order with one fixed sequence of float operations, whatever the number of rows
 * of x, the thread count or the instruction set: in `fast` the sums within a block are integers (exact), and per block
 *     acc = fma((float)isum, w_scale * x_scale, acc)   [and acc = fma(w_min, x_scale * x_sum, acc) where the type has minima]
 * so that AVX2, AVX-512 and the generic C path give the same bytes. In `f32` (and for F32/F16/BF16 weights) acc = fma(x, w, acc) in
 * order of k.
 *
 * fast: x is quantised to int8 per 32 columns (scale = max|x| / 127, round to nearest even). Quantised types only; float types
 * compute in f32 in both modes. f32: weights are decoded exactly as dequantize_row and multiplied in f32.
 *
 * Threads: cpu_linear is called by one thread and shares its work over the team.
 */
#ifndef TOKENMILL_ENGINE_MATMUL_H
#define TOKENMILL_ENGINE_MATMUL_H

#include "base/errors.h"
#include "base/workers.h"
#include "engine/backend.h"

struct cpu_weight;
struct cpu_matmul; /* workspace: quantised activations, unpacked panels per thread */

/* isa: "avx512", "avx2" or "generic"; the caller has checked that the processor can. max_rows, max_in: largest x. */
struct cpu_matmul *cpu_matmul_new(struct workers *w, const char *isa, enum engine_math math, int32_t max_rows, int32_t max_in,
                                  struct err *err);
void cpu_matmul_free(struct cpu_matmul *m);

/* Repack t [n_out, n_in] with all threads. n_out need not be a multiple of 16. The tensor's bytes are not needed afterwards.
 * Memory is at most the file type's plus 10 %, and padding to 16 rows. */
struct cpu_weight *cpu_weight_new(struct cpu_matmul *m, const struct tensor *t, struct err *err);
void cpu_weight_free(struct cpu_weight *w);
size_t cpu_packed_bytes(const struct tensor *t); /* cpu_weight_bytes of what t would become; 0 for a type that cannot be packed */
size_t cpu_weight_bytes(const struct cpu_weight *w);
int64_t cpu_weight_n_out(const struct cpu_weight *w);
int64_t cpu_weight_n_in(const struct cpu_weight *w);

struct cpu_linear_out {
	const struct cpu_weight *w;
	const float *bias; /* [n_out] or NULL; added last */
	float *out;        /* [n_rows, n_out] */
	int accumulate;    /* out += result: the sum is (result + bias) + out */
};
/* All outs have the same n_in. x [n_rows, n_in]. */
void cpu_linear(struct cpu_matmul *m, const float *x, int32_t n_rows, const struct cpu_linear_out *outs, int n_outs);

/* out [n, n_in] = rows ids[] of w, decoded exactly as dequantize_row, times scale. */
void cpu_embed(struct cpu_matmul *m, const struct cpu_weight *w, const int32_t *ids, int32_t n, float scale, float *out);

#endif
