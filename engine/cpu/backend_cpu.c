/* backend_cpu.c: fills the op table with the CPU's products, attention and elementwise kernels, and owns all memory of the
 * CPU side: weights, vectors, workspace, keys and values. Ops run at once, on the team of threads. */
#if defined(__x86_64__)
#include <cpuid.h>
#endif
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/workers.h"
#include "engine/backend.h"
#include "engine/cpu/attention.h"
#include "engine/cpu/elementwise.h"
#include "engine/cpu/matmul.h"

struct weight {
	struct cpu_weight *packed;
	struct weight *next;
};

struct vec {
	struct vec *next;
	int64_t n;
	float data[];
};

struct pages { /* workspace and caches */
	struct pages *next;
	void *data;
	size_t n_bytes;
};

struct backend_cpu {
	struct backend base;
	const char *isa;
	int head_dim, n_heads, n_kv_heads;
	int32_t max_tokens;
	struct workers *workers;
	struct cpu_matmul *matmul;
	struct cpu_attention *attention;
	struct cpu_elementwise elementwise;
	struct weight *weights;
	struct vec *vecs;
	struct pages *pages;
	size_t loaded_bytes;
	void **k_cache, **v_cache; /* [n_layers] */
	const struct batch *batch; /* of the step */
};

static struct backend_cpu *cpu_of(const struct backend *b)
{
	return (struct backend_cpu *)b;
}

#if defined(__x86_64__)
/* CPUID leaf 1, ECX bit 29 (Intel SDM vol. 2A). Not every compiler's __builtin_cpu_supports knows the name: clang 14 does not. */
static int has_f16c(void)
{
	unsigned eax, ebx, ecx, edx;

	return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx >> 29 & 1);
}
#endif

const char *const *backend_cpu_isas(void)
{
	static const char *isas[4];
	int n = 0;

	if (isas[0])
		return isas;
#if defined(__x86_64__)
	if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
	    __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni"))
		isas[n++] = "avx512";
	if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c())
		isas[n++] = "avx2";
#endif
	isas[n] = "generic";
	return isas;
}

const char *backend_cpu_isa(const struct backend *b)
{
	return cpu_of(b)->isa;
}

static void *take_pages(struct backend_cpu *c, size_t n_bytes, struct err *err)
{
	struct pages *p;
	void *data = mem_pages_new(n_bytes, err);

	if (!data)
		return NULL;
	p = xmalloc(sizeof(*p));
	*p = (struct pages){c->pages, data, n_bytes};
	c->pages = p;
	return data;
}

static void cpu_free(struct backend *b)
{
	struct backend_cpu *c = cpu_of(b);

	while (c->weights) {
		struct weight *w = c->weights;

		c->weights = w->next;
		cpu_weight_free(w->packed);
		free(w);
	}
	while (c->vecs) {
		struct vec *v = c->vecs;

		c->vecs = v->next;
		free(v);
	}
	while (c->pages) {
		struct pages *p = c->pages;

		c->pages = p->next;
		mem_pages_free(p->data, p->n_bytes);
		free(p);
	}
	free(c->k_cache);
	free(c->v_cache);
	cpu_attention_free(c->attention);
	cpu_matmul_free(c->matmul);
	workers_free(c->workers);
	free(c);
}

static struct weight *cpu_weight_load(struct backend *b, const struct tensor *t, struct err *err)
{
	struct backend_cpu *c = cpu_of(b);
	struct cpu_weight *packed = cpu_weight_new(c->matmul, t, err);
	struct weight *w;

	if (!packed)
		return NULL;
	w = xmalloc(sizeof(*w));
	*w = (struct weight){packed, c->weights};
	c->weights = w;
	c->loaded_bytes += cpu_weight_bytes(packed);
	return w;
}

size_t backend_cpu_matrix_bytes(const struct tensor *t)
{
	return cpu_packed_bytes(t);
}

static struct vec *cpu_vec_load(struct backend *b, const struct tensor *t, float offset, struct err *err)
{
	struct backend_cpu *c = cpu_of(b);
	int64_t n = tensor_n_elements(t);
	struct vec *v;

	(void)err;
	v = xmalloc(sizeof(*v) + (size_t)n * sizeof(float));
	v->n = n;
	v->next = c->vecs;
	c->vecs = v;
	dequantize_row(t->type, t->data, v->data, n);
	for (int64_t i = 0; i < n; i++)
		v->data[i] += offset;
	c->loaded_bytes += (size_t)n * sizeof(float);
	return v;
}

static size_t cpu_loaded_bytes(const struct backend *b)
{
	return cpu_of(b)->loaded_bytes;
}

static float *cpu_alloc(struct backend *b, size_t n_floats, struct err *err)
{
	return take_pages(cpu_of(b), n_floats * sizeof(float), err);
}

static int cpu_kv_alloc(struct backend *b, const struct kv_shape *s, int32_t n_blocks, struct err *err)
{
	struct backend_cpu *c = cpu_of(b);
	size_t layer_bytes = cpu_kv_layer_bytes(s, n_blocks);

	c->attention = cpu_attention_new(c->workers, c->isa, c->n_heads, c->n_kv_heads, c->head_dim, c->max_tokens, s->type, err);
	if (!c->attention)
		return -1;
	c->k_cache = xcalloc((size_t)s->n_layers, sizeof(*c->k_cache));
	c->v_cache = xcalloc((size_t)s->n_layers, sizeof(*c->v_cache));
	for (int i = 0; i < s->n_layers; i++) {
		c->k_cache[i] = take_pages(c, layer_bytes, err);
		c->v_cache[i] = c->k_cache[i] ? take_pages(c, layer_bytes, err) : NULL;
		if (!c->v_cache[i])
			return err_context(err, "keys and values of %d blocks", n_blocks);
	}
	return 0;
}

static void cpu_begin(struct backend *b, const struct batch *batch)
{
	struct backend_cpu *c = cpu_of(b);

	c->batch = batch;
	cpu_attention_plan(c->attention, batch);
}

static void cpu_embed_op(struct backend *b, const struct weight *w, float scale, float *x)
{
	struct backend_cpu *c = cpu_of(b);

	cpu_embed(c->matmul, w->packed, c->batch->tokens, c->batch->n_tokens, scale, x);
}

static void cpu_norm_op(struct backend *b, const float *x, const struct vec *w, float eps, int32_t n_rows, const int32_t *rows_of,
                        float *out)
{
	cpu_norm(&cpu_of(b)->elementwise, x, w->data, eps, n_rows, (int32_t)w->n, rows_of, out);
}

static void cpu_norm_add_op(struct backend *b, float *x, const float *y, const struct vec *w, float eps, int32_t n_rows)
{
	cpu_norm_add(&cpu_of(b)->elementwise, x, y, w->data, eps, n_rows, (int32_t)w->n);
}

static void cpu_linear_op(struct backend *b, const float *x, int32_t n_rows, const struct linear_out *outs, int n_outs)
{
	struct cpu_linear_out o[4];

	if (n_outs > 4)
		BUG("%d matrices with one input", n_outs);
	for (int i = 0; i < n_outs; i++)
		o[i] = (struct cpu_linear_out){.w = outs[i].w->packed,
		                               .bias = outs[i].bias ? outs[i].bias->data : NULL,
		                               .out = outs[i].out,
		                               .accumulate = outs[i].accumulate};
	cpu_linear(cpu_of(b)->matmul, x, n_rows, o, n_outs);
}

static void cpu_rope_store_op(struct backend *b, int layer, float *q, float *k, const float *v, const struct vec *q_norm,
                              const struct vec *k_norm, float eps, const struct rope *rope)
{
	struct backend_cpu *c = cpu_of(b);

	cpu_rope_store(c->attention, c->batch, q, k, v, q_norm ? q_norm->data : NULL, k_norm ? k_norm->data : NULL, eps, rope,
	               c->k_cache[layer], c->v_cache[layer]);
}

static void cpu_attention_op(struct backend *b, int layer, const float *q, float scale, float softcap, int window, float *out)
{
	struct backend_cpu *c = cpu_of(b);

	cpu_attend(c->attention, q, c->k_cache[layer], c->v_cache[layer], scale, softcap, window, out);
}

static void cpu_act_mul_op(struct backend *b, enum activation act, float *gate, const float *up, int32_t width)
{
	struct backend_cpu *c = cpu_of(b);

	cpu_act_mul(&c->elementwise, act, gate, up, c->batch->n_tokens, width);
}

static int cpu_finish(struct backend *b, struct err *err)
{
	(void)b;
	(void)err;
	return 0;
}

static float *cpu_fetch(struct backend *b, float *x, size_t n_floats, struct err *err)
{
	(void)b;
	(void)n_floats;
	(void)err;
	return x;
}

static void cpu_parallel(struct backend *b, workers_fn fn, void *arg)
{
	workers_run(cpu_of(b)->workers, fn, arg);
}

static int cpu_n_host_threads(const struct backend *b)
{
	return workers_count(cpu_of(b)->workers);
}

static const struct backend_ops ops = {
	.name = "cpu",
	.free = cpu_free,
	.weight_new = cpu_weight_load,
	.vec_new = cpu_vec_load,
	.loaded_bytes = cpu_loaded_bytes,
	.alloc = cpu_alloc,
	.kv_alloc = cpu_kv_alloc,
	.begin = cpu_begin,
	.embed = cpu_embed_op,
	.norm = cpu_norm_op,
	.norm_add = cpu_norm_add_op,
	.linear = cpu_linear_op,
	.rope_store = cpu_rope_store_op,
	.attention = cpu_attention_op,
	.act_mul = cpu_act_mul_op,
	.finish = cpu_finish,
	.fetch = cpu_fetch,
	.parallel = cpu_parallel,
	.n_host_threads = cpu_n_host_threads,
};

static const char *choose_isa(const char *asked, struct err *err)
{
	const char *const *isas = backend_cpu_isas();

	if (!asked)
		return isas[0];
	for (; *isas; isas++)
		if (strcmp(*isas, asked) == 0)
			return *isas;
	err_set(err, ERR_USAGE, "instruction set \"%s\" is unknown or this processor lacks it", asked);
	return NULL;
}

static int32_t max_int(int32_t a, int32_t b)
{
	return a > b ? a : b;
}

struct backend *backend_cpu_new(const struct model_config *m, const struct cpu_options *o, int32_t max_tokens, struct err *err)
{
	const char *isa = choose_isa(o->isa, err);
	int32_t max_in = max_int(max_int(m->hidden, m->ffn_hidden), m->n_heads * m->head_dim);
	struct backend_cpu *c;

	if (!isa)
		return NULL;
	c = xcalloc(1, sizeof(*c));
	c->base.ops = &ops;
	c->isa = isa;
	c->head_dim = m->head_dim;
	c->n_heads = m->n_heads;
	c->n_kv_heads = m->n_kv_heads;
	c->max_tokens = max_tokens;
	c->workers = workers_new(o->n_threads > 0 ? o->n_threads : workers_available_cpus(), err);
	if (!c->workers) {
		free(c);
		return NULL;
	}
	c->matmul = cpu_matmul_new(c->workers, isa, o->math, max_tokens, max_in, err);
	if (!c->matmul) {
		cpu_free(&c->base);
		return NULL;
	}
	cpu_elementwise_init(&c->elementwise, c->workers, isa);
	return &c->base;
}
