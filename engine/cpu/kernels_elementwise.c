/* kernels_elementwise.c: norms and activations of one row or run of elements. Compiled once per instruction set. */
#include "engine/cpu/kernels_elementwise.h"
#include "engine/cpu/vmath.h"

/* 1 / rms(x): squares go to lane i % 16, the lanes are added in one tree. */
static float inverse_rms(const float *x, float eps, int32_t width)
{
	struct lanes_f sum = lanes_f_zero(), v;
	int32_t i = 0;

	for (; i + LANES <= width; i += LANES) {
		v = lanes_f_load(x + i);
		sum = lanes_f_fma(v, v, sum);
	}
	if (i < width) {
		v = lanes_f_load_n(x + i, width - i);
		sum = lanes_f_fma(v, v, sum);
	}
	return 1.0f / sqrtf(lanes_f_sum(sum) / (float)width + eps);
}

static void norm(const float *x, const float *w, float eps, int32_t width, float *out)
{
	struct lanes_f scale = lanes_f_set1(inverse_rms(x, eps, width)), v;
	int32_t i = 0;

	for (; i + LANES <= width; i += LANES) {
		v = lanes_f_mul(lanes_f_load(x + i), scale);
		lanes_f_store(out + i, lanes_f_mul(v, lanes_f_load(w + i)));
	}
	if (i < width) {
		v = lanes_f_mul(lanes_f_load_n(x + i, width - i), scale);
		lanes_f_store_n(out + i, lanes_f_mul(v, lanes_f_load_n(w + i, width - i)), width - i);
	}
}

static void norm_add(float *x, const float *y, const float *w, float eps, int32_t width)
{
	struct lanes_f scale = lanes_f_set1(inverse_rms(y, eps, width)), v;
	int32_t i = 0;

	for (; i + LANES <= width; i += LANES) {
		v = lanes_f_mul(lanes_f_mul(lanes_f_load(y + i), scale), lanes_f_load(w + i));
		lanes_f_store(x + i, lanes_f_add(lanes_f_load(x + i), v));
	}
	if (i < width) {
		v = lanes_f_mul(lanes_f_mul(lanes_f_load_n(y + i, width - i), scale), lanes_f_load_n(w + i, width - i));
		lanes_f_store_n(x + i, lanes_f_add(lanes_f_load_n(x + i, width - i), v), width - i);
	}
}

#define ACT_MUL(name, act)                                                                                                 \
	static void name(float *gate, const float *up, size_t n)                                                               \
	{                                                                                                                      \
		size_t i = 0;                                                                                                      \
		int rest = (int)(n % LANES);                                                                                       \
                                                                                                                           \
		for (; i + LANES <= n; i += LANES)                                                                                 \
			lanes_f_store(gate + i, lanes_f_mul(act(lanes_f_load(gate + i)), lanes_f_load(up + i)));                       \
		if (rest > 0)                                                                                                      \
			lanes_f_store_n(gate + i, lanes_f_mul(act(lanes_f_load_n(gate + i, rest)), lanes_f_load_n(up + i, rest)), rest); \
	}
ACT_MUL(silu_mul, vmath_silu)
ACT_MUL(gelu_mul, vmath_gelu_tanh)

const struct elementwise_kernels ISA_SYMBOL(elementwise_kernels) = {norm, norm_add, silu_mul, gelu_mul};
