/* elementwise.h: norms and activations over the rows of a batch. Same bytes on every instruction set: sums over a row are taken
 * in 16 lane partials (element i into lane i % 16), folded in one fixed tree. */
#ifndef TOKENMILL_ENGINE_ELEMENTWISE_H
#define TOKENMILL_ENGINE_ELEMENTWISE_H

#include "base/workers.h"
#include "engine/model/model.h"

struct cpu_elementwise {
	struct workers *workers;
	const struct elementwise_kernels *kernels; /* of the instruction set, private */
};
void cpu_elementwise_init(struct cpu_elementwise *e, struct workers *w, const char *isa);

/* out row i [width] = x row (rows_of ? rows_of[i] : i) / sqrt(mean(x^2) + eps) * w */
void cpu_norm(struct cpu_elementwise *e, const float *x, const float *w, float eps, int32_t n_rows, int32_t width, const int32_t *rows_of,
              float *out);
/* x += norm(y) */
void cpu_norm_add(struct cpu_elementwise *e, float *x, const float *y, const float *w, float eps, int32_t n_rows, int32_t width);
/* gate [n, width] = act(gate) * up */
void cpu_act_mul(struct cpu_elementwise *e, enum activation act, float *gate, const float *up, int32_t n_rows, int32_t width);

#endif
