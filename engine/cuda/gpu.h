/* gpu.h: what a GPU is asked to do, as a table of C functions: the border between the engine and tokenmill-cuda.so.
 *
 * The engine (C, no CUDA anywhere) opens the plug-in at run time and takes the table from its one exported symbol. Everything
 * that needs CUDA's compiler or runtime lies behind it: gpu_*.cu. For tests the same sources are compiled by a C++ compiler
 * under a host shim (tests/rigs/cuda_shim), and the table is linked in.
 *
 *     backend_cuda.c --> struct gpu_api --> tokenmill-cuda.so (nvcc, static cudart) --> driver
 *                                      \--> the shim: each CUDA thread a fiber
 *
 * One thread calls. Device and host memory are different things: pointers named `device` or marked so must not be read by the
 * host. Copies and kernels are only enqueued, on the gpu's one stream; what fails there is kept and told by the next sync,
 * first failure first. After a fault (GPU_FAULT) a device is of no use any more to this process: CUDA's errors of kernels are
 * sticky.
 *
 * Kernels are plain CUDA without tensor cores, for any GPU that this was built for: the fallback, and what faster paths are
 * held against. All are deterministic in the sense of backend.h: a row's bits depend on that row (and what it attends to)
 * alone.
 */
#ifndef TOKENMILL_ENGINE_GPU_H
#define TOKENMILL_ENGINE_GPU_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { GPU_ABI = 1 }; /* changes with anything in this file */

enum gpu_status {
	GPU_OK = 0,
	GPU_NO_DRIVER = 1,
	GPU_OLD_DRIVER = 2, /* older than the CUDA that the plug-in was built with */
	GPU_NO_DEVICE = 3,
	GPU_NO_MEMORY = 4,
	GPU_FAULT = 5,
};

/* Numbers that the engine's own headers have, too (they are C, not C++); backend_cuda.c holds them against each other. */
enum { GPU_KV_F16 = 1, GPU_KV_BF16 = 2, GPU_KV_F32 = 3 };
enum { GPU_ACT_SILU = 1, GPU_ACT_GELU_TANH = 2 };
enum { GPU_BLOCK_TOKENS = 16 };

struct gpu_info {
	char name[96];
	int major, minor; /* compute capability */
	int n_processors;
	size_t total_bytes;
	size_t free_bytes; /* at the moment; 0 until the device is opened */
};

/* A matrix [n_out, n_in] in a file's own type: see tensor.h. */
struct gpu_matrix {
	const void *device;
	int type; /* enum tensor_type */
	int32_t n_out, n_in;
	size_t row_bytes;
};

/* Rows of one sequence that follow one another: one unit of attention's work. */
struct gpu_tile {
	int32_t first_row, n_rows;
	int32_t first_position;
	int32_t table; /* where the sequence's block ids begin in `tables` */
};

/* One layer's cache: K and V [n_blocks, n_kv_heads, GPU_BLOCK_TOKENS, head_dim] each, of one type. */
struct gpu_cache {
	void *k, *v; /* device */
	int kv_type; /* GPU_KV_ */
	int n_kv_heads, head_dim;
};

struct gpu_rope_store {
	float *q, *k;                 /* [n_rows, heads, head_dim]; q in place, k is left alone */
	const float *v;               /* [n_rows, n_kv_heads, head_dim] */
	const float *q_norm, *k_norm; /* [head_dim]? */
	const float *cos_sin;         /* [n_rows, rope_dim]: cosines, then sines; from rope_table */
	const int32_t *slots;         /* [n_rows] block * GPU_BLOCK_TOKENS + place in it */
	int32_t n_rows;
	int n_heads, rope_dim, interleaved;
	float eps;
	struct gpu_cache cache;
};

struct gpu_attend {
	const float *q; /* [n_rows, n_heads, head_dim] */
	float *out;     /* likewise */
	struct gpu_cache cache;
	const int32_t *tables;
	const struct gpu_tile *tiles; /* [n_tiles], of at most gpu_tile_rows rows */
	int32_t n_tiles;
	int n_heads;
	float scale, softcap; /* softcap 0: none */
	int window;           /* 0: everything */
};

enum {
	GPU_SHARED_BYTES = 48 * 1024, /* of shared memory a block may have on every GPU without asking for more */
	GPU_MAX_HEAD_DIM = 512,
	GPU_STAGING_BYTES = 8 << 20, /* pinned host memory that upload goes through, twice this */
};

/* Attention walks the context in steps of so many positions, counted from 0, and takes so many queries (rows times heads of one
 * kv head) at once: what fits shared memory as q, sums, one step of keys or values, and scores. */
static inline int gpu_attend_positions(int head_dim)
{
	return head_dim <= 256 ? 32 : 16;
}
static inline int gpu_attend_queries(int head_dim)
{
	int n = (GPU_SHARED_BYTES / 4 - gpu_attend_positions(head_dim) * (head_dim + 1)) / (2 * head_dim + 32 + 3);

	return n < 16 ? n : 16;
}
/* Most rows of a tile. group: heads per kv head. */
static inline int gpu_tile_rows(int head_dim, int group)
{
	int n = gpu_attend_queries(head_dim) / group;

	return n > 0 ? n : 1;
}

struct gpu; /* an opened device with a stream */

struct gpu_api {
	int abi; /* GPU_ABI */

	/* How many devices there are. Not GPU_OK: *why is a line of plain words. */
	int (*count)(int *n, char *why, size_t why_size);
	int (*describe)(int device, struct gpu_info *info, char *why, size_t why_size);
	int (*open)(int device, struct gpu **g, char *why, size_t why_size);
	void (*close)(struct gpu *g); /* with all memory that was taken from it; NULL is fine */
	void (*info)(const struct gpu *g, struct gpu_info *info);

	/* Device memory, not cleared. NULL: there is not enough; that is not a fault, everything goes on. */
	void *(*alloc)(struct gpu *g, size_t n_bytes);
	void (*release)(struct gpu *g, void *device);
	void *(*alloc_host)(struct gpu *g, size_t n_bytes); /* pinned, for copies that are enqueued; NULL likewise */
	void (*release_host)(struct gpu *g, void *host);

	/* from may be any host memory and is free again on return: it goes through pinned staging. */
	void (*upload)(struct gpu *g, void *device, const void *from, size_t n_bytes);
	/* host is pinned and stays untouched until the next sync. */
	void (*copy_in)(struct gpu *g, void *device, const void *host, size_t n_bytes);
	void (*copy_out)(struct gpu *g, void *host, const void *device, size_t n_bytes);
	/* Waits for everything. GPU_NO_MEMORY: a kernel could not be started for lack of it. */
	int (*sync)(struct gpu *g, char *why, size_t why_size);
	void *(*stream)(struct gpu *g); /* cudaStream_t, for libraries */

	/* x [n_rows, n_in] = rows tokens[i] of w, times scale */
	void (*embed)(struct gpu *g, const struct gpu_matrix *w, const int32_t *tokens, int32_t n_rows, float scale, float *x);
	/* out row i = x row (rows_of ? rows_of[i] : i) / rms * w; add: out += instead */
	void (*norm)(struct gpu *g, const float *x, const float *w, float eps, int32_t n_rows, int32_t width,
	             const int32_t *rows_of, float *out, int add);
	/* out [n_rows, n_out] = x [n_rows, n_in] w^T + bias?; accumulate: += */
	void (*linear)(struct gpu *g, const float *x, int32_t n_rows, const struct gpu_matrix *w, const float *bias, float *out,
	               int accumulate);
	/* cos_sin [n_rows, 2 * half]; inv_freq [half] on the device */
	void (*rope_table)(struct gpu *g, const int32_t *positions, int32_t n_rows, const float *inv_freq, int half, float factor,
	                   float *cos_sin);
	void (*rope_store)(struct gpu *g, const struct gpu_rope_store *a);
	void (*attend)(struct gpu *g, const struct gpu_attend *a);
	/* gate = act(gate) * up; act: GPU_ACT_ */
	void (*act_mul)(struct gpu *g, int act, float *gate, const float *up, size_t n);
	/* out (bf16) [n_out, n_in] = w, rounded to nearest even */
	void (*to_bf16)(struct gpu *g, const struct gpu_matrix *w, uint16_t *out);
};

#if defined(__GNUC__)
__attribute__((visibility("default")))
#endif
const struct gpu_api *
tokenmill_gpu_api(void);

#ifdef __cplusplus
}
#endif

#endif
