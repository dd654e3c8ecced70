/* safetensors.h: reader of the safetensors container (specification: https://github.com/huggingface/safetensors), one file or
 * the shards named by an index.
 *
 * Files are mapped and their headers checked whole at open: JSON, shapes, sizes, and that the tensors fill the data without a
 * gap or overlap, as the reference reader demands. A data type that is not ours (FP8, integers) is no fault of the file;
 * it is refused by name when the tensor is asked for.
 * Immutable after open; any thread may read. Names and data are borrowed until safetensors_free.
 */
#ifndef TOKENMILL_ENGINE_SAFETENSORS_H
#define TOKENMILL_ENGINE_SAFETENSORS_H

#include <stddef.h>

#include "base/errors.h"
#include "engine/file/tensor.h"

struct safetensors;

/* One file; or of a directory model.safetensors, else the shards of model.safetensors.index.json.
 * NULL and *err (ERR_MODEL, naming path and fault) on failure. */
struct safetensors *safetensors_open(const char *path, struct err *err);
struct safetensors *safetensors_open_dir(const char *dir, struct err *err);
/* One file in memory that outlives it (for tests and fuzzing). */
struct safetensors *safetensors_open_memory(const void *data, size_t n_bytes, struct err *err);
void safetensors_free(struct safetensors *s);

size_t safetensors_n_tensors(const struct safetensors *s);
const char *safetensors_name_at(const struct safetensors *s, size_t i);
/* 1 and *out; 0 when there is no such tensor; -1 and *err when its type or rank is not supported. */
int safetensors_find_tensor(const struct safetensors *s, const char *name, struct tensor *out, struct err *err);

#endif
