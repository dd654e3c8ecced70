/* cuda_shim.h: a GPU that is not there: CUDA sources run on the CPU, for tests. What a test can set.
 *
 * engine/cuda/gpu_*.cu compile against the cuda_runtime.h beside this file. Each CUDA thread is a fiber that runs to its next
 * barrier or shuffle; blocks one after another, blocks and threads in an order shuffled by seed. What the shim finds that a GPU
 * would not tell:
 *
 *   - work enqueued is done at the next synchronisation, not before: a buffer that the host fills again too early, or reads too
 * early, shows
 *   - device memory cannot be touched by the host (PROT_NONE outside kernels and copies), ends at a guard page, and begins as
 * NaN
 *   - shared memory is a heap block of the size asked for (a sanitizer sees past its ends) and begins as NaN in every block
 *   - a barrier that not all threads of the block, or lanes of the warp, reach is an error that names the kernel
 *   - as with CUDA, a process whose parent had begun with the runtime gets errors from it
 *
 * What it cannot find: races in the order of memory between warps, anything about speed. There is no PTX.
 */
#ifndef TOKENMILL_TESTS_CUDA_SHIM_H
#define TOKENMILL_TESTS_CUDA_SHIM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct cuda_shim_settings {
	unsigned seed; /* order of blocks and threads; 0: ascending */
	int n_devices;
	int driver_version;      /* 13000; 0: no driver */
	size_t total_bytes;      /* of each device */
	uint64_t fail_at_launch; /* the n-th launch from now on is a fault; 0: none */
};

/* At start: 1 device of 1 GiB, seed 1; environment variables CUDA_SHIM_SEED, CUDA_SHIM_DEVICES, CUDA_SHIM_DRIVER,
 * CUDA_SHIM_MIB, CUDA_SHIM_FAIL_AT change that, for tests of the whole program. Clears a fault. */
void cuda_shim_set(const struct cuda_shim_settings *s);
void cuda_shim_get(struct cuda_shim_settings *s);
uint64_t cuda_shim_n_launches(void);
size_t cuda_shim_used_bytes(void); /* device memory */

#ifdef __cplusplus
}
#endif

#endif
