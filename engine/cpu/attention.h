/* attention.h: keys and values in their blocks, and softmax(q k) v over them, on the CPU.
 *
 * Layout of one layer's cache, per block of KV_BLOCK_TOKENS = 16 positions and kv head:
 *     K [n_blocks, n_kv_heads, head_dim, 16 positions]   keys across lanes: 16 scores come from one pass over head_dim
 *     V [n_blocks, n_kv_heads, 16 positions, head_dim]   values along lanes: no horizontal sums anywhere
 *
 * The context is walked in chunks of ATTENTION_CHUNK positions, counted from position 0. For a query row and head, each chunk gives
 * (max, sum, out[head_dim]) and is folded into the row's running state in order of position (online softmax, Milakov & Gimelshein 2018),
 * so that a row's result does not depend on which rows share the call. Rows whose chunk is the same physical blocks (a shared prefix,
 * or the rows of one prefill chunk) are computed together as a small matrix product: keys and values are read once
 * for all of them (Hydragen, ChunkAttention), whatever the depth of the prefix tree:
 *
 *     for chunk c = 0, 1, ...:  for each run of rows with equal blocks in c:  for tiles of rows:  scores, softmax, values
 *
 * exp is our own polynomial (vmath.h), sums over lanes are taken in one fixed order: the same bytes on every instruction set.
 */
#ifndef TOKENMILL_ENGINE_ATTENTION_H
#define TOKENMILL_ENGINE_ATTENTION_H

#include "base/errors.h"
#include "base/workers.h"
#include "engine/backend.h"

enum { ATTENTION_CHUNK = 128 };

struct cpu_attention; /* plan of the step, scratch per thread */

struct cpu_attention *cpu_attention_new(struct workers *w, const char *isa, int n_heads, int n_kv_heads, int head_dim, int32_t max_rows,
                                        enum kv_type type, struct err *err);
void cpu_attention_free(struct cpu_attention *a);

/* Bytes of one layer's K (V is the same) for n_blocks. */
size_t cpu_kv_layer_bytes(const struct kv_shape *s, int32_t n_blocks);

/* Once per step: order the rows so that equal prefixes are neighbours, cut them into tasks. */
void cpu_attention_plan(struct cpu_attention *a, const struct batch *batch);

/* q [n, n_heads, head_dim], k, v [n, n_kv_heads, head_dim]: optional RMS norm per head (q_norm, k_norm [head_dim] or NULL), rotation by
 * position, q in place, k and v stored into k_cache, v_cache (one layer). */
void cpu_rope_store(struct cpu_attention *a, const struct batch *batch, float *q, float *k, const float *v, const float *q_norm,
                    const float *k_norm, float eps, const struct rope *rope, void *k_cache, void *v_cache);

/* out [n, n_heads, head_dim]. softcap 0: none; window 0: everything, else the last `window` positions, itself included. */
void cpu_attend(struct cpu_attention *a, const float *q, const void *k_cache, const void *v_cache, float scale, float softcap,
                int window, float *out);

#endif
