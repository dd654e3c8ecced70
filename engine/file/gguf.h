/* gguf.h: reader of the GGUF container (version 2 and 3, little endian; specification: ggml/docs/gguf.md).
 *
 * The file is mapped, checked whole at open (every length, count, offset, type, duplicate names), and then only read. Whatever
 * gguf_open accepts, the accessors cannot walk out of. Metadata strings and tensor names are borrowed until gguf_free; names
 * are NUL-terminated copies, string values are (pointer, length).
 * Immutable after open; any thread may read.
 */
#ifndef TOKENMILL_ENGINE_GGUF_H
#define TOKENMILL_ENGINE_GGUF_H

#include <stddef.h>
#include <stdint.h>

#include "base/errors.h"
#include "engine/file/tensor.h"

struct gguf;

enum gguf_type { /* numbers of the specification */
	GGUF_U8 = 0, GGUF_I8 = 1, GGUF_U16 = 2, GGUF_I16 = 3, GGUF_U32 = 4, GGUF_I32 = 5, GGUF_F32 = 6,
	GGUF_BOOL = 7, GGUF_STRING = 8, GGUF_ARRAY = 9, GGUF_U64 = 10, GGUF_I64 = 11, GGUF_F64 = 12,
};

struct gguf_string {
	const char *s; /* not NUL-terminated */
	size_t n;
};

/* NULL and *err (ERR_MODEL, names path and the fault) on failure. Tensor data beyond the end of the file (a truncated
 * download) is refused, naming the tensor. with_tensors 0: the tokenizer only needs metadata; data is not checked. */
struct gguf *gguf_open(const char *path, int with_tensors, struct err *err);
/* The same over memory that outlives the gguf (for tests and fuzzing). */
struct gguf *gguf_open_memory(const void *data, size_t n_bytes, int with_tensors, struct err *err);
void gguf_free(struct gguf *g);

/* Each returns 1 and fills *out when the key exists and has a fitting type (any integer type that fits the range; F64
 * for F32), else 0 and leaves *out alone. */
int gguf_find_u64(const struct gguf *g, const char *key, uint64_t *out);
int gguf_find_f64(const struct gguf *g, const char *key, double *out);
int gguf_find_bool(const struct gguf *g, const char *key, int *out);
int gguf_find_string(const struct gguf *g, const char *key, struct gguf_string *out);
int gguf_has(const struct gguf *g, const char *key);

/* Arrays: *n elements of type *type, 0 when absent. Elements by index, O(1); gguf_array_i64 reads booleans too. */
int gguf_find_array(const struct gguf *g, const char *key, enum gguf_type *type, size_t *n);
int gguf_array_string(const struct gguf *g, const char *key, size_t i, struct gguf_string *out);
int gguf_array_i64(const struct gguf *g, const char *key, size_t i, int64_t *out);
int gguf_array_f64(const struct gguf *g, const char *key, size_t i, double *out);

/* The keys, for `model info`. */
size_t gguf_n_keys(const struct gguf *g);
const char *gguf_key_at(const struct gguf *g, size_t i);

size_t gguf_n_tensors(const struct gguf *g);
const struct tensor *gguf_tensor_at(const struct gguf *g, size_t i);
const struct tensor *gguf_find_tensor(const struct gguf *g, const char *name); /* NULL when absent */

#endif
