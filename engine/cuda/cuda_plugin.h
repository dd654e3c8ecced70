/* cuda_plugin.h: finds and opens tokenmill-cuda.so, and says in plain words what is there and what is not.
 *
 * The program needs nothing of CUDA: the plug-in is looked for where TOKENMILL_CUDA says, else beside the program, else in
 * ../lib of where the program is. Opened once, by the first who asks, and never closed (its code may be on the driver's mind).
 * One thread.
 */
#ifndef TOKENMILL_ENGINE_CUDA_PLUGIN_H
#define TOKENMILL_ENGINE_CUDA_PLUGIN_H

#include "base/buf.h"
#include "base/errors.h"
#include "engine/cuda/gpu.h"

/* NULL and *err (ERR_ENGINE: where it was looked for, or why it cannot be opened). A plug-in without a GPU is opened, too. */
const struct gpu_api *cuda_plugin_open(struct err *err);
/* As above, and device must be there. Asks in a child process, so that this one has not begun with CUDA and may still fork. */
const struct gpu_api *cuda_plugin_open_device(int device, struct err *err);

/* Lines for `bench --devices`: each GPU, or why there is none. */
void cuda_plugin_describe(struct buf *out);

/* "auto", "cpu", "cuda" or "cuda:N" (NULL: "cpu"): *device becomes N, or -1 for the CPU. auto takes GPU 0 where one can be
 * used. ERR_USAGE for another word; ERR_ENGINE where a GPU was asked for and there is none. */
int cuda_plugin_choose(const char *word, int *device, const struct gpu_api **api, struct err *err);

#endif
