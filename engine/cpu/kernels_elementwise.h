/* kernels_elementwise.h: what kernels_elementwise.c gives elementwise.c, once per instruction set. */
#ifndef TOKENMILL_ENGINE_KERNELS_ELEMENTWISE_H
#define TOKENMILL_ENGINE_KERNELS_ELEMENTWISE_H

#include <stddef.h>
#include <stdint.h>

struct elementwise_kernels {
	/* One row. out may be x. */
	void (*norm)(const float *x, const float *w, float eps, int32_t width, float *out);
	void (*norm_add)(float *x, const float *y, const float *w, float eps, int32_t width);
	/* n elements, whatever their rows */
	void (*silu_mul)(float *gate, const float *up, size_t n);
	void (*gelu_mul)(float *gate, const float *up, size_t n);
};

extern const struct elementwise_kernels elementwise_kernels_generic;
#if defined(__x86_64__)
extern const struct elementwise_kernels elementwise_kernels_avx2;
extern const struct elementwise_kernels elementwise_kernels_avx512;
#endif

#endif
