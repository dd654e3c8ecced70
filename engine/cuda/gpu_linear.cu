/* gpu_linear.cu: out = x w^T for a matrix in any tensor type, decoded on the way into shared memory.
 *
 * A block of 128 threads computes 4 R rows by 64 outputs; over the inputs it goes 32 at a time:
 *
 *     x tile [4 R, 32] --+
 *                        +--> thread (warp, lane): rows warp R .. warp R + R - 1, outputs lane and lane + 32
 *     w tile [64, 32] ---+
 *
 * Every output is one chain of fused multiply-adds in order of input, whatever R is: few rows and many give the same bits. */
#include "engine/cuda/gpu_decode.cuh"
#include "engine/cuda/gpu_kernels.h"

enum {
	LINEAR_THREADS = 128,
	LINEAR_WARPS = 4,
	LINEAR_OUTPUTS = 64,
	LINEAR_INPUTS = 32,
	LINEAR_STRIDE = 33 /* no two lanes in one bank */
};

template <int R>
static __global__ void linear_kernel(const float *x, int32_t n_rows, struct gpu_matrix w, const float *bias, float *out,
                                     int accumulate)
{
	SHARED(float, tile_x);
	float *tile_w = tile_x + LINEAR_WARPS * R * LINEAR_STRIDE;
	const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
	const int first_row = (int)blockIdx.y * LINEAR_WARPS * R, first_out = (int)blockIdx.x * LINEAR_OUTPUTS;
	float sum[R][2];

	for (int r = 0; r < R; r++)
		sum[r][0] = sum[r][1] = 0.0f;
	for (int k0 = 0; k0 < w.n_in; k0 += LINEAR_INPUTS) {
		int k = k0 + lane;

		for (int r = warp; r < LINEAR_WARPS * R; r += LINEAR_WARPS)
			tile_x[r * LINEAR_STRIDE + lane] =
			    first_row + r < n_rows && k < w.n_in ? x[(size_t)(first_row + r) * (size_t)w.n_in + k] : 0.0f;
		for (int o = warp; o < LINEAR_OUTPUTS; o += LINEAR_WARPS)
			tile_w[o * LINEAR_STRIDE + lane] =
			    first_out + o < w.n_out && k < w.n_in
			        ? gpu_decode(w.type, (const uint8_t *)w.device + (size_t)(first_out + o) * w.row_bytes, k)
			        : 0.0f;
		__syncthreads();
		for (int i = 0; i < LINEAR_INPUTS; i++) {
			float w0 = tile_w[lane * LINEAR_STRIDE + i], w1 = tile_w[(lane + 32) * LINEAR_STRIDE + i];

			for (int r = 0; r < R; r++) {
				float v = tile_x[(warp * R + r) * LINEAR_STRIDE + i];

				sum[r][0] = fmaf(v, w0, sum[r][0]);
				sum[r][1] = fmaf(v, w1, sum[r][1]);
			}
		}
		__syncthreads();
	}
	for (int r = 0; r < R; r++) {
		for (int h = 0; h < 2; h++) {
			int row = first_row + warp * R + r, o = first_out + lane + 32 * h;
			float *to = out + (size_t)row * (size_t)w.n_out + o;

			if (row < n_rows && o < w.n_out) {
				float v = bias ? sum[r][h] + bias[o] : sum[r][h];

				*to = accumulate ? *to + v : v;
			}
		}
	}
}

template <int R>
static void launch(struct gpu *g, const float *x, int32_t n_rows, const struct gpu_matrix *w, const float *bias, float *out,
                   int accumulate)
{
	dim3 grid((unsigned)((w->n_out + LINEAR_OUTPUTS - 1) / LINEAR_OUTPUTS),
	          (unsigned)((n_rows + LINEAR_WARPS * R - 1) / (LINEAR_WARPS * R)));
	size_t shared = (size_t)(LINEAR_WARPS * R + LINEAR_OUTPUTS) * LINEAR_STRIDE * sizeof(float);

	gpu_launch(g, "linear", linear_kernel<R>, grid, LINEAR_THREADS, shared, x, n_rows, *w, bias, out, accumulate);
}

void gpu_linear(struct gpu *g, const float *x, int32_t n_rows, const struct gpu_matrix *w, const float *bias, float *out,
                int accumulate)
{
	if (n_rows <= 0)
		return;
	if (n_rows <= 4)
		launch<1>(g, x, n_rows, w, bias, out, accumulate);
	else if (n_rows <= 16)
		launch<4>(g, x, n_rows, w, bias, out, accumulate);
	else
		launch<16>(g, x, n_rows, w, bias, out, accumulate);
}
