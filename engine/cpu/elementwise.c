/* elementwise.c: shares rows (or runs of elements) out to the threads. */
#include "engine/cpu/elementwise.h"

#include <string.h>

#include "engine/cpu/kernels_elementwise.h"

/* Below this many elements the caller does the work alone: waking the others costs as much. */
enum { SMALL_ELEMENTS = 8192 };

void cpu_elementwise_init(struct cpu_elementwise *e, struct workers *w, const char *isa)
{
	e->workers = w;
	e->kernels = &elementwise_kernels_generic;
#if defined(__x86_64__)
	if (strcmp(isa, "avx512") == 0)
		e->kernels = &elementwise_kernels_avx512;
	else if (strcmp(isa, "avx2") == 0)
		e->kernels = &elementwise_kernels_avx2;
#endif
}

struct elementwise_job {
	const struct elementwise_kernels *kernels;
	float *x; /* changed in place by norm_add and act_mul */
	const float *y;
	const float *w;
	float eps;
	int32_t width;
	const int32_t *rows_of;
	float *out;
	enum activation act;
	size_t n_units; /* rows, or runs of UNIT elements */
	size_t n_elements;
};
enum { UNIT = 1024 };

/* Units first..end-1 of thread i of n: runs of equal length, in order. */
static void share_of(size_t n_units, int thread, int n_threads, size_t *first, size_t *end)
{
	*first = n_units * (size_t)thread / (size_t)n_threads;
	*end = n_units * ((size_t)thread + 1) / (size_t)n_threads;
}

static void run(struct cpu_elementwise *e, workers_fn fn, struct elementwise_job *j, size_t n_elements)
{
	if (n_elements <= SMALL_ELEMENTS)
		fn(j, 0, 1);
	else
		workers_run(e->workers, fn, j);
}

static void norm_share(void *arg, int thread, int n_threads)
{
	struct elementwise_job *j = arg;
	size_t first, end;

	share_of(j->n_units, thread, n_threads, &first, &end);
	for (size_t i = first; i < end; i++) {
		size_t from = j->rows_of ? (size_t)j->rows_of[i] : i;

		j->kernels->norm(j->y + from * (size_t)j->width, j->w, j->eps, j->width, j->out + i * (size_t)j->width);
	}
}

static void norm_add_share(void *arg, int thread, int n_threads)
{
	struct elementwise_job *j = arg;
	size_t first, end;

	share_of(j->n_units, thread, n_threads, &first, &end);
	for (size_t i = first; i < end; i++)
		j->kernels->norm_add(j->x + i * (size_t)j->width, j->y + i * (size_t)j->width, j->w, j->eps, j->width);
}

static void act_mul_share(void *arg, int thread, int n_threads)
{
	struct elementwise_job *j = arg;
	size_t first, end;

	share_of(j->n_units, thread, n_threads, &first, &end);
	first *= UNIT;
	end = end * UNIT < j->n_elements ? end * UNIT : j->n_elements;
	if (first >= end)
		return;
	if (j->act == ACT_SILU)
		j->kernels->silu_mul(j->x + first, j->y + first, end - first);
	else
		j->kernels->gelu_mul(j->x + first, j->y + first, end - first);
}

void cpu_norm(struct cpu_elementwise *e, const float *x, const float *w, float eps, int32_t n_rows, int32_t width, const int32_t *rows_of,
              float *out)
{
	struct elementwise_job j = {.kernels = e->kernels, .y = x, .w = w, .eps = eps, .width = width, .rows_of = rows_of, .out = out,
	                            .n_units = (size_t)n_rows};

	run(e, norm_share, &j, (size_t)n_rows * (size_t)width);
}

void cpu_norm_add(struct cpu_elementwise *e, float *x, const float *y, const float *w, float eps, int32_t n_rows, int32_t width)
{
	struct elementwise_job j = {.kernels = e->kernels, .x = x, .y = y, .w = w, .eps = eps, .width = width, .n_units = (size_t)n_rows};

	run(e, norm_add_share, &j, (size_t)n_rows * (size_t)width);
}

void cpu_act_mul(struct cpu_elementwise *e, enum activation act, float *gate, const float *up, int32_t n_rows, int32_t width)
{
	size_t n = (size_t)n_rows * (size_t)width;
	struct elementwise_job j = {.kernels = e->kernels, .x = gate, .y = up, .act = act, .n_units = (n + UNIT - 1) / UNIT, .n_elements = n};

	run(e, act_mul_share, &j, n);
}
