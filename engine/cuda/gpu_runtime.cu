/* gpu_runtime.cu: the device itself: who is there, memory, copies, waiting; and the table with everything in it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/cuda/gpu_device.cuh"
#include "engine/cuda/gpu_kernels.h"

struct gpu_pages { /* what was taken and not given back */
	struct gpu_pages *next, *before;
	void *data;
	int is_host;
};

static int no_memory(cudaError_t e)
{
	return e == cudaErrorMemoryAllocation;
}

/* CUDA's own words, and what to do about the usual ones. */
static int tell(cudaError_t e, const char *where, char *why, size_t why_size)
{
	int driver = 0, runtime = 0;

	cudaDriverGetVersion(&driver);
	cudaRuntimeGetVersion(&runtime);
	switch (e) {
	case cudaSuccess:
		return GPU_OK;
	case cudaErrorInsufficientDriver:
		if (driver == 0) {
			snprintf(
			    why, why_size,
			    "no NVIDIA driver is installed here, or its libcuda.so.1 is not visible (in a container: the NVIDIA runtime)");
			return GPU_NO_DRIVER;
		}
		snprintf(why, why_size, "the NVIDIA driver knows CUDA %d.%d, this needs %d.%d or newer", driver / 1000,
		         driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
		return GPU_OLD_DRIVER;
	case cudaErrorNoDevice:
		snprintf(why, why_size, "the NVIDIA driver sees no GPU (CUDA_VISIBLE_DEVICES may hide it)");
		return GPU_NO_DEVICE;
	case cudaErrorMemoryAllocation:
		snprintf(why, why_size, "%s: not enough GPU memory", where);
		return GPU_NO_MEMORY;
	default:
		snprintf(why, why_size, "%s: %s (CUDA error %d)", where, cudaGetErrorString(e), (int)e);
		return GPU_FAULT;
	}
}

static int count(int *n, char *why, size_t why_size)
{
	cudaError_t e = cudaGetDeviceCount(n);

	if (e == cudaSuccess && *n == 0)
		e = cudaErrorNoDevice;
	if (e != cudaSuccess)
		*n = 0;
	return tell(e, "looking for GPUs", why, why_size);
}

static int describe(int device, struct gpu_info *info, char *why, size_t why_size)
{
	cudaDeviceProp p;
	cudaError_t e = cudaGetDeviceProperties(&p, device);

	memset(info, 0, sizeof(*info));
	if (e != cudaSuccess)
		return tell(e, "reading the GPU's properties", why, why_size);
	snprintf(info->name, sizeof(info->name), "%.*s", (int)sizeof(info->name) - 1, p.name);
	info->major = p.major;
	info->minor = p.minor;
	info->n_processors = p.multiProcessorCount;
	info->total_bytes = p.totalGlobalMem;
	return GPU_OK;
}

static void close_gpu(struct gpu *g)
{
	if (!g)
		return;
	cudaSetDevice(g->device);
	if (g->stream)
		cudaStreamSynchronize(g->stream);
	while (g->pages) {
		struct gpu_pages *p = g->pages;

		g->pages = p->next;
		if (p->is_host)
			cudaFreeHost(p->data);
		else
			cudaFree(p->data);
		free(p);
	}
	for (int i = 0; i < 2; i++) {
		if (g->staging[i])
			cudaFreeHost(g->staging[i]);
		if (g->staged[i])
			cudaEventDestroy(g->staged[i]);
	}
	if (g->stream)
		cudaStreamDestroy(g->stream);
	free(g);
}

static int open_gpu(int device, struct gpu **out, char *why, size_t why_size)
{
	struct gpu *g = (struct gpu *)calloc(1, sizeof(*g));
	cudaError_t e;

	*out = NULL;
	if (!g) {
		snprintf(why, why_size, "out of memory");
		return GPU_FAULT;
	}
	g->device = device;
	e = cudaSetDevice(device);
	if (e == cudaSuccess)
		e = cudaStreamCreateWithFlags(&g->stream, cudaStreamNonBlocking);
	for (int i = 0; i < 2 && e == cudaSuccess; i++) {
		e = cudaHostAlloc((void **)&g->staging[i], GPU_STAGING_BYTES, cudaHostAllocDefault);
		if (e == cudaSuccess)
			e = cudaEventCreateWithFlags(&g->staged[i], cudaEventDisableTiming);
	}
	if (e != cudaSuccess) {
		int status = tell(e, "opening the GPU", why, why_size);

		close_gpu(g);
		return status;
	}
	*out = g;
	return GPU_OK;
}

static void info_of(const struct gpu *g, struct gpu_info *info)
{
	size_t free_bytes = 0, total = 0;
	char why[8];

	describe(g->device, info, why, sizeof(why));
	if (cudaMemGetInfo(&free_bytes, &total) == cudaSuccess)
		info->free_bytes = free_bytes;
}

/* ---- memory ---- */

static void *take(struct gpu *g, size_t n_bytes, int is_host)
{
	struct gpu_pages *p;
	cudaError_t e;

	if (g->error != cudaSuccess)
		return NULL;
	p = (struct gpu_pages *)calloc(1, sizeof(*p));
	if (!p)
		return NULL;
	p->is_host = is_host;
	e = is_host ? cudaHostAlloc(&p->data, n_bytes, cudaHostAllocDefault) : cudaMalloc(&p->data, n_bytes);
	if (e != cudaSuccess) {
		cudaGetLastError(); /* that there is no memory is an answer, not a fault that the next launch should find */
		if (!no_memory(e))
			gpu_note(g, e, "allocating memory");
		free(p);
		return NULL;
	}
	p->next = g->pages;
	if (p->next)
		p->next->before = p;
	g->pages = p;
	return p->data;
}

static void give(struct gpu *g, void *data)
{
	struct gpu_pages *p = g->pages;

	while (p && p->data != data)
		p = p->next;
	if (!p)
		return;
	if (p->before)
		p->before->next = p->next;
	else
		g->pages = p->next;
	if (p->next)
		p->next->before = p->before;
	gpu_note(g, p->is_host ? cudaFreeHost(data) : cudaFree(data), "giving memory back");
	free(p);
}

static void *alloc_device(struct gpu *g, size_t n_bytes)
{
	return take(g, n_bytes ? n_bytes : 1, 0);
}

static void *alloc_host(struct gpu *g, size_t n_bytes)
{
	return take(g, n_bytes ? n_bytes : 1, 1);
}

static void copy_in(struct gpu *g, void *device, const void *host, size_t n_bytes)
{
	if (n_bytes > 0 && g->error == cudaSuccess)
		gpu_note(g, cudaMemcpyAsync(device, host, n_bytes, cudaMemcpyHostToDevice, g->stream), "copying to the GPU");
}

static void copy_out(struct gpu *g, void *host, const void *device, size_t n_bytes)
{
	if (n_bytes > 0 && g->error == cudaSuccess)
		gpu_note(g, cudaMemcpyAsync(host, device, n_bytes, cudaMemcpyDeviceToHost, g->stream), "copying from the GPU");
}

/* Two pinned buffers in turns: while one is on its way, the other is filled (from the page cache, which is what takes the
 * time). */
static void upload(struct gpu *g, void *device, const void *from, size_t n_bytes)
{
	for (size_t done = 0; done < n_bytes && g->error == cudaSuccess;) {
		size_t n = n_bytes - done < GPU_STAGING_BYTES ? n_bytes - done : (size_t)GPU_STAGING_BYTES;
		int i = g->next_staging;

		gpu_note(g, cudaEventSynchronize(g->staged[i]), "copying to the GPU");
		memcpy(g->staging[i], (const char *)from + done, n);
		copy_in(g, (char *)device + done, g->staging[i], n);
		gpu_note(g, cudaEventRecord(g->staged[i], g->stream), "copying to the GPU");
		g->next_staging = !i;
		done += n;
	}
}

static int sync_gpu(struct gpu *g, char *why, size_t why_size)
{
	gpu_note(g, cudaStreamSynchronize(g->stream), "running kernels");
	if (g->error == cudaSuccess)
		return GPU_OK;
	return tell(g->error, g->where, why, why_size);
}

static void *stream_of(struct gpu *g)
{
	return (void *)g->stream;
}

/* Positional: designated initialisers are not C++17. The order is gpu.h's. */
static const struct gpu_api api = {
    GPU_ABI,         count,        describe,    open_gpu,       close_gpu,
    info_of,         alloc_device, give,        alloc_host,     give,
    upload,          copy_in,      copy_out,    sync_gpu,       stream_of,
    gpu_embed,       gpu_norm,     gpu_linear,  gpu_rope_table, gpu_rope_store_rows,
    gpu_attend_rows, gpu_act_mul,  gpu_to_bf16,
};

const struct gpu_api *tokenmill_gpu_api(void)
{
	return &api;
}
