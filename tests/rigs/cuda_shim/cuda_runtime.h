/* cuda_runtime.h: as much of CUDA's header as engine/cuda/gpu_*.cu use, for the host shim (cuda_shim.h). C++ only. */
#ifndef TOKENMILL_TESTS_CUDA_RUNTIME_H
#define TOKENMILL_TESTS_CUDA_RUNTIME_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include <functional>

#define __global__
#define __device__
#define __host__

struct dim3 {
	unsigned x, y, z;
	dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_)
	{
	}
};

/* ---- the runtime: numbers are CUDA's own (driver_types.h) ---- */

enum cudaError_t {
	cudaSuccess = 0,
	cudaErrorInvalidValue = 1,
	cudaErrorMemoryAllocation = 2,
	cudaErrorInitializationError = 3,
	cudaErrorInsufficientDriver = 35,
	cudaErrorNoDevice = 100,
	cudaErrorInvalidDevice = 101,
	cudaErrorLaunchFailure = 719,
};
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2 };
enum { cudaStreamNonBlocking = 1, cudaHostAllocDefault = 0, cudaEventDisableTiming = 2 };
typedef struct shim_stream *cudaStream_t;
typedef struct shim_event *cudaEvent_t;
struct cudaDeviceProp {
	char name[256];
	size_t totalGlobalMem;
	int major, minor, multiProcessorCount;
};

cudaError_t cudaDriverGetVersion(int *version);
cudaError_t cudaRuntimeGetVersion(int *version);
cudaError_t cudaGetDeviceCount(int *n);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetLastError(void);
const char *cudaGetErrorString(cudaError_t e);
cudaError_t cudaMalloc(void **p, size_t n);
cudaError_t cudaFree(void *p);
cudaError_t cudaHostAlloc(void **p, size_t n, unsigned flags);
cudaError_t cudaFreeHost(void *p);
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t n, cudaMemcpyKind kind, cudaStream_t s);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags);
cudaError_t cudaStreamSynchronize(cudaStream_t s);
cudaError_t cudaStreamDestroy(cudaStream_t s);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags);
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s);
cudaError_t cudaEventSynchronize(cudaEvent_t e);
cudaError_t cudaEventDestroy(cudaEvent_t e);

/* ---- inside kernels ---- */

extern dim3 shim_thread, shim_block, shim_block_dim, shim_grid_dim;
extern char *shim_shared;
#define threadIdx shim_thread
#define blockIdx shim_block
#define blockDim shim_block_dim
#define gridDim shim_grid_dim
#define SHARED(type, name) type *name = (type *)shim_shared

void shim_block_barrier();
void shim_warp_barrier();
/* Puts v where the warp sees it, meets the warp, gives lane `from`'s. */
uint64_t shim_exchange(uint64_t v, unsigned from);
unsigned shim_lane();
#define __syncthreads() shim_block_barrier()
#define __syncwarp() shim_warp_barrier()

template <class T> static inline T __shfl_sync(unsigned, T v, int lane)
{
	static_assert(sizeof(T) <= 8, "a shuffle moves up to 8 bytes");
	uint64_t bits = 0;

	memcpy(&bits, &v, sizeof(v));
	bits = shim_exchange(bits, (unsigned)lane & 31);
	memcpy(&v, &bits, sizeof(v));
	return v;
}
template <class T> static inline T __shfl_xor_sync(unsigned mask, T v, int m)
{
	return __shfl_sync(mask, v, (int)(shim_lane() ^ (unsigned)m));
}
template <class T> static inline T __shfl_up_sync(unsigned mask, T v, unsigned d)
{
	return __shfl_sync(mask, v, (int)(shim_lane() < d ? shim_lane() : shim_lane() - d));
}
template <class T> static inline T atomicAdd(T *p, T v)
{
	T old = *p;

	*p = (T)(old + v);
	return old;
}
static inline float __uint_as_float(unsigned u)
{
	float f;

	memcpy(&f, &u, sizeof(f));
	return f;
}
static inline unsigned __float_as_uint(float f)
{
	unsigned u;

	memcpy(&u, &f, sizeof(u));
	return u;
}

extern "C" float f16_to_f32(uint16_t h); /* engine/file/tensor.c */
extern "C" uint16_t f32_to_f16(float f);
static inline float shim_f16_to_f32(uint16_t h)
{
	return f16_to_f32(h);
}
static inline uint16_t shim_f32_to_f16(float f)
{
	return f32_to_f16(f);
}

/* ---- launches ---- */

void shim_enqueue(const char *what, dim3 grid, unsigned threads, size_t shared, std::function<void()> body);

template <class... P, class... A>
static inline void shim_launch(const char *what, void (*kernel)(P...), dim3 grid, unsigned threads, size_t shared, A... args)
{
	shim_enqueue(what, grid, threads, shared, [=] { kernel(args...); });
}

#endif
