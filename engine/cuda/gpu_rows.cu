/* gpu_rows.cu: what is done row by row or element by element: embedding, norms, activations, conversion. */
#include "engine/cuda/gpu_decode.cuh"
#include "engine/cuda/gpu_kernels.h"

enum { ROW_THREADS = 256, ELEMENT_THREADS = 256 };
static const size_t MAX_GRID = 65535;

static __global__ void embed_kernel(struct gpu_matrix w, const int32_t *tokens, float scale, float *x)
{
	const uint8_t *row = (const uint8_t *)w.device + (size_t)tokens[blockIdx.x] * w.row_bytes;
	float *out = x + (size_t)blockIdx.x * (size_t)w.n_in;

	for (int i = (int)threadIdx.x; i < w.n_in; i += (int)blockDim.x)
		out[i] = gpu_decode(w.type, row, i) * scale;
}

void gpu_embed(struct gpu *g, const struct gpu_matrix *w, const int32_t *tokens, int32_t n_rows, float scale, float *x)
{
	if (n_rows > 0)
		gpu_launch(g, "embed", embed_kernel, dim3((unsigned)n_rows), ROW_THREADS, 0, *w, tokens, scale, x);
}

/* A thread's squares are added in order of column, then the threads' sums in block_sum's order. */
static __global__ void norm_kernel(const float *x, const float *w, float eps, int32_t width, const int32_t *rows_of, float *out,
                                   int add)
{
	SHARED(float, part);
	const float *from = x + (size_t)(rows_of ? rows_of[blockIdx.x] : (int32_t)blockIdx.x) * (size_t)width;
	float *to = out + (size_t)blockIdx.x * (size_t)width, sum = 0.0f, scale;

	for (int i = (int)threadIdx.x; i < width; i += (int)blockDim.x)
		sum = fmaf(from[i], from[i], sum);
	scale = 1.0f / sqrtf(block_sum(sum, part) / (float)width + eps);
	for (int i = (int)threadIdx.x; i < width; i += (int)blockDim.x) {
		float y = from[i] * scale * w[i];

		to[i] = add ? to[i] + y : y;
	}
}

void gpu_norm(struct gpu *g, const float *x, const float *w, float eps, int32_t n_rows, int32_t width, const int32_t *rows_of,
              float *out, int add)
{
	if (n_rows > 0)
		gpu_launch(g, "norm", norm_kernel, dim3((unsigned)n_rows), ROW_THREADS, ROW_THREADS / 32 * sizeof(float), x, w, eps,
		           width, rows_of, out, add);
}

static __device__ inline float silu(float x)
{
	return x / (1.0f + expf(-x));
}

/* Hendrycks & Gimpel 2016, the tanh form. */
static __device__ inline float gelu_tanh(float x)
{
	return 0.5f * x * (1.0f + tanhf(0.79788456080286535588f * (x + 0.044715f * x * x * x)));
}

static __global__ void act_mul_kernel(int act, float *gate, const float *up, size_t n)
{
	for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (size_t)gridDim.x * blockDim.x)
		gate[i] = (act == GPU_ACT_SILU ? silu(gate[i]) : gelu_tanh(gate[i])) * up[i];
}

static unsigned grid_of(size_t n)
{
	size_t blocks = (n + ELEMENT_THREADS - 1) / ELEMENT_THREADS;

	return (unsigned)(blocks < MAX_GRID ? blocks : MAX_GRID);
}

void gpu_act_mul(struct gpu *g, int act, float *gate, const float *up, size_t n)
{
	if (n > 0)
		gpu_launch(g, "act_mul", act_mul_kernel, dim3(grid_of(n)), ELEMENT_THREADS, 0, act, gate, up, n);
}

static __global__ void to_bf16_kernel(struct gpu_matrix w, uint16_t *out)
{
	size_t n = (size_t)w.n_out * (size_t)w.n_in;

	for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (size_t)gridDim.x * blockDim.x)
		out[i] = gpu_f32_to_bf16(
		    gpu_decode(w.type, (const uint8_t *)w.device + i / (size_t)w.n_in * w.row_bytes, (int)(i % (size_t)w.n_in)));
}

void gpu_to_bf16(struct gpu *g, const struct gpu_matrix *w, uint16_t *out)
{
	size_t n = (size_t)w->n_out * (size_t)w->n_in;

	if (n > 0)
		gpu_launch(g, "to_bf16", to_bf16_kernel, dim3(grid_of(n)), ELEMENT_THREADS, 0, *w, out);
}
