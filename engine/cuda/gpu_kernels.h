/* gpu_kernels.h: the kernels' launchers, as gpu.h's table has them. For gpu_*.cu only. */
#ifndef TOKENMILL_ENGINE_GPU_KERNELS_H
#define TOKENMILL_ENGINE_GPU_KERNELS_H

#include "engine/cuda/gpu.h"

void gpu_embed(struct gpu *g, const struct gpu_matrix *w, const int32_t *tokens, int32_t n_rows, float scale, float *x);
void gpu_norm(struct gpu *g, const float *x, const float *w, float eps, int32_t n_rows, int32_t width, const int32_t *rows_of,
              float *out, int add);
void gpu_linear(struct gpu *g, const float *x, int32_t n_rows, const struct gpu_matrix *w, const float *bias, float *out,
                int accumulate);
void gpu_rope_table(struct gpu *g, const int32_t *positions, int32_t n_rows, const float *inv_freq, int half, float factor,
                    float *cos_sin);
void gpu_rope_store_rows(struct gpu *g, const struct gpu_rope_store *a);
void gpu_attend_rows(struct gpu *g, const struct gpu_attend *a);
void gpu_act_mul(struct gpu *g, int act, float *gate, const float *up, size_t n);
void gpu_to_bf16(struct gpu *g, const struct gpu_matrix *w, uint16_t *out);

#endif
