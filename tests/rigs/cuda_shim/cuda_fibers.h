/* cuda_fibers.h: runs a grid of CUDA threads, each a fiber with a stack of its own; see cuda_shim.h. For the shim alone. */
#ifndef TOKENMILL_TESTS_CUDA_FIBERS_H
#define TOKENMILL_TESTS_CUDA_FIBERS_H

#include "cuda_runtime.h"

/* Runs body once for every thread of the grid. what: the kernel's name, for messages. seed 0: ascending order. Aborts with a
 * message on a barrier that is not reached by all. */
void fibers_run(const char *what, dim3 grid, unsigned threads, size_t shared, unsigned seed, const std::function<void()> &body);

#endif
