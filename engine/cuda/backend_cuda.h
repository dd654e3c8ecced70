/* backend_cuda.h: the GPU as a backend (engine/backend.h), by way of a gpu_api: the plug-in's, or in tests the host shim's.
 *
 * Ops enqueue on one stream; finish and fetch wait, and tell what failed since. Weights lie on the device as they lie in the
 * file; activations are f32. Results equal the CPU's with --math f32 up to the order of sums.
 */
#ifndef TOKENMILL_ENGINE_BACKEND_CUDA_H
#define TOKENMILL_ENGINE_BACKEND_CUDA_H

#include "engine/backend.h"
#include "engine/cuda/gpu.h"

struct cuda_options {
	const struct gpu_api *api; /* outlives the backend */
	int device;
	int n_threads; /* for the host's part, sampling; 0: workers_available_cpus() */
};

/* NULL and *err (ERR_ENGINE) where the device cannot be opened or the model's shape is beyond the kernels'. max_tokens: most
 * rows of a batch. */
struct backend *backend_cuda_new(const struct model_config *c, const struct cuda_options *o, int32_t max_tokens,
                                 struct err *err);
/* Device memory that a matrix takes; 0 for a type that it does not know. */
size_t backend_cuda_matrix_bytes(const struct tensor *t);
/* The device under an open backend, with what is free on it now. */
void backend_cuda_info(const struct backend *b, struct gpu_info *info);

#endif
