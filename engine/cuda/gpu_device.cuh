/* gpu_device.cuh: what the .cu files share: the opened device, launches, sums over a warp and a block.
 *
 * The sources compile with nvcc and, with tests/rigs/cuda_shim in front of the include path, with a C++ compiler. For both:
 * shared memory is dynamic (SHARED), launches go through gpu_launch, and all threads of a warp meet in a shuffle. */
#ifndef TOKENMILL_ENGINE_GPU_DEVICE_CUH
#define TOKENMILL_ENGINE_GPU_DEVICE_CUH

#include <cuda_runtime.h>

#include "engine/cuda/gpu.h"

struct gpu {
	int device;
	cudaStream_t stream;
	cudaError_t error; /* first one; cudaSuccess */
	const char *where; /* what was being done */
	struct gpu_pages *pages;
	char *staging[2]; /* pinned */
	cudaEvent_t staged[2];
	int next_staging;
};

/* Keep the first error. */
static inline void gpu_note(struct gpu *g, cudaError_t e, const char *where)
{
	if (e != cudaSuccess && g->error == cudaSuccess) {
		g->error = e;
		g->where = where;
	}
}

#ifndef TOKENMILL_CUDA_SHIM
#define SHARED(type, name)                                                                                                     \
	extern __shared__ __align__(16) char shared_[];                                                                            \
	type *name = (type *)shared_
#endif

/* After an error nothing is started any more. */
template <class... P, class... A>
static inline void gpu_launch(struct gpu *g, const char *where, void (*kernel)(P...), dim3 grid, unsigned threads,
                              size_t shared, A... args)
{
	if (g->error != cudaSuccess)
		return;
#ifdef TOKENMILL_CUDA_SHIM
	shim_launch(where, kernel, grid, threads, shared, args...);
#else
	kernel<<<grid, threads, shared, g->stream>>>(args...);
#endif
	gpu_note(g, cudaGetLastError(), where);
}

static __device__ inline float warp_sum(float v)
{
	for (int m = 16; m > 0; m /= 2)
		v += __shfl_xor_sync(0xffffffffu, v, m);
	return v;
}

static __device__ inline float warp_max(float v)
{
	for (int m = 16; m > 0; m /= 2)
		v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, m));
	return v;
}

/* Sum over the block, given to every thread, in an order that depends on blockDim.x alone (a multiple of 32). part: shared, a
 * float for each warp; it can be used again after the next barrier. */
static __device__ inline float block_sum(float v, float *part)
{
	v = warp_sum(v);
	if (threadIdx.x % 32 == 0)
		part[threadIdx.x / 32] = v;
	__syncthreads();
	v = 0.0f;
	for (unsigned i = 0; i < blockDim.x / 32; i++)
		v += part[i];
	return v;
}

#endif
