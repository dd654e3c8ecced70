/* test_cuda_ops.c: every op of the CUDA backend under the host shim against the CPU backend in f32, on random shapes, every
 * tensor type, cache type, group and head size; one row alone against the same row in company; faults and want of memory. */
#include "base/mem.h"
#include "engine/backend.h"
#include "engine/cuda/backend_cuda.h"
#include "tests/check.h"
#include "tests/rigs/cuda_shim/cuda_shim.h"

/* Largest difference from the CPU in f32, as a share of the largest value. Only the order of sums, exp and tanh differ. */
static const struct {
	const char *op;
	double tolerance;
} tolerances[] = {
    {"embed", 0}, {"norm", 2e-6}, {"linear", 4e-6}, {"rope_store", 2e-6}, {"attention", 4e-6}, {"act_mul", 2e-6},
};
/* Where keys and values are rounded to 16 bits: a last bit of a key may fall the other way. */
static const double tolerance_f16_cache = 5e-4, tolerance_bf16_cache = 4e-3;

static double tolerance_of(const char *op)
{
	for (size_t i = 0; i < sizeof(tolerances) / sizeof(*tolerances); i++)
		if (strcmp(tolerances[i].op, op) == 0)
			return tolerances[i].tolerance;
	return -1;
}

static uint64_t random_state = 3;
static int random_below(int n)
{
	random_state = random_state * 6364136223846793005u + 1442695040888963407u;
	return (int)((random_state >> 33) % (uint64_t)n);
}
static float random_float(void)
{
	return (float)random_below(1 << 20) / (1 << 19) - 1.0f;
}
static float *random_floats(size_t n)
{
	float *x = xcalloc(n, sizeof(*x));

	for (size_t i = 0; i < n; i++)
		x[i] = random_float();
	return x;
}

enum { MAX_ROWS = 128, N_CPU_AND_GPU = 2 };

/* The same thing on both backends: [0] CPU, [1] shim. */
struct pair {
	struct backend *b[N_CPU_AND_GPU];
};

static struct pair pair_open_cached(const struct model_config *c, const struct kv_shape *shape, int32_t n_blocks)
{
	struct err err = {0};
	struct cpu_options cpu = {.n_threads = 1, .math = MATH_F32};
	struct cuda_options cuda = {.api = tokenmill_gpu_api(), .n_threads = 1};
	struct pair p = {{backend_cpu_new(c, &cpu, MAX_ROWS, &err), backend_cuda_new(c, &cuda, MAX_ROWS, &err)}};

	if (!p.b[0] || !p.b[1]) {
		printf("%s\n", err.msg);
		exit(1);
	}
	for (int i = 0; i < N_CPU_AND_GPU; i++)
		CHECK_OK(p.b[i]->ops->kv_alloc(p.b[i], shape, n_blocks, &err), err);
	return p;
}

static struct pair pair_open(const struct model_config *c)
{
	return pair_open_cached(c, &(struct kv_shape){1, c->n_kv_heads, c->head_dim, KV_F32}, 1);
}

/* A batch of one sequence that nobody attends to. */
static struct batch plain_batch(int32_t n, const int32_t *ids)
{
	static const int32_t blocks[MAX_ROWS / KV_BLOCK_TOKENS];
	static struct batch_seq seq;

	seq = (struct batch_seq){.blocks = blocks, .n_tokens = n};
	return (struct batch){.n_tokens = n, .tokens = ids, .positions = ids, .n_seqs = 1, .seqs = &seq};
}

static void pair_close(struct pair *p)
{
	for (int i = 0; i < N_CPU_AND_GPU; i++)
		p->b[i]->ops->free(p->b[i]);
}

/* A buffer of the backend's with these values: by way of an embedding of f32 rows, which is exact. */
static float *put(struct backend *b, const float *x, int32_t n_rows, int32_t width)
{
	struct err err = {0};
	struct tensor t = {.name = "values",
	                   .type = TENSOR_F32,
	                   .n_dims = 2,
	                   .shape = {n_rows, width},
	                   .data = x,
	                   .n_bytes = (size_t)n_rows * (size_t)width * sizeof(float)};
	struct weight *w = b->ops->weight_new(b, &t, &err);
	float *to = b->ops->alloc(b, (size_t)n_rows * (size_t)width, &err);
	int32_t *ids = xcalloc((size_t)n_rows, sizeof(*ids));
	struct batch batch = plain_batch(n_rows, ids);

	if (!w || !to) {
		printf("put: %s\n", err.msg);
		exit(1);
	}
	for (int32_t i = 0; i < n_rows; i++)
		ids[i] = i;
	b->ops->begin(b, &batch);
	b->ops->embed(b, w, 1.0f, to);
	CHECK_OK(b->ops->finish(b, &err), err);
	free(ids);
	return to;
}

static float *take(struct backend *b, float *x, size_t n)
{
	struct err err = {0};
	float *host = b->ops->fetch(b, x, n, &err), *copy = xcalloc(n, sizeof(*copy));

	if (!host)
		printf("fetch: %s\n", err.msg);
	CHECK(host != NULL);
	if (host)
		memcpy(copy, host, n * sizeof(*copy));
	return copy;
}

static int compare(const char *what, const float *want, const float *got, size_t n, double tolerance)
{
	double largest = 0, worst = 0;

	for (size_t i = 0; i < n; i++) {
		double difference = fabs((double)want[i] - (double)got[i]);

		largest = fabs((double)want[i]) > largest ? fabs((double)want[i]) : largest;
		if (!(difference <= worst))
			worst = difference;
	}
	if (worst <= tolerance * (largest > 0 ? largest : 1))
		return 1;
	printf("%s: off by %g, largest value %g, tolerance %g\n", what, worst, largest, tolerance);
	check_failed_now = 1;
	return 0;
}

static void check_pair(const char *what, const char *op, struct pair *p, float *x[2], size_t n, double tolerance)
{
	float *cpu = take(p->b[0], x[0], n), *gpu = take(p->b[1], x[1], n);

	compare(what, cpu, gpu, n, tolerance >= 0 ? tolerance : tolerance_of(op));
	free(cpu);
	free(gpu);
}

static const struct model_config small_config = {
    .n_layers = 1, .hidden = 64, .n_heads = 2, .n_kv_heads = 1, .head_dim = 32, .ffn_hidden = 512, .n_vocab = 64};

/* ---- matrices of every type ---- */

static const enum tensor_type all_types[] = {TENSOR_F32,  TENSOR_F16,  TENSOR_BF16, TENSOR_Q4_0, TENSOR_Q4_1,
                                             TENSOR_Q5_0, TENSOR_Q5_1, TENSOR_Q8_0, TENSOR_Q2_K, TENSOR_Q3_K,
                                             TENSOR_Q4_K, TENSOR_Q5_K, TENSOR_Q6_K, TENSOR_Q8_K};

/* Random bytes, whose scales are made numbers of moderate size: every code occurs. */
static void *random_matrix(enum tensor_type type, int32_t n_out, int32_t n_in, struct tensor *t)
{
	size_t n_bytes = (size_t)n_out * tensor_row_bytes(type, n_in), block_bytes = (size_t)tensor_type_bytes(type);
	uint8_t *data = xcalloc(n_bytes, 1);
	static const struct {
		enum tensor_type type;
		int at[2]; /* f16 scales in a block; -1: none */
	} scales[] = {{TENSOR_Q4_0, {0, -1}}, {TENSOR_Q4_1, {0, 2}},   {TENSOR_Q5_0, {0, -1}},   {TENSOR_Q5_1, {0, 2}},
	              {TENSOR_Q8_0, {0, -1}}, {TENSOR_Q2_K, {80, 82}}, {TENSOR_Q3_K, {108, -1}}, {TENSOR_Q4_K, {0, 2}},
	              {TENSOR_Q5_K, {0, 2}},  {TENSOR_Q6_K, {208, -1}}};

	for (size_t i = 0; i < n_bytes; i++)
		data[i] = (uint8_t)random_below(256);
	for (size_t i = 0; i < n_bytes; i += block_bytes) {
		float f = random_float();
		uint16_t h = type == TENSOR_BF16 ? f32_to_bf16(f) : f32_to_f16(f);

		if (type == TENSOR_F32 || type == TENSOR_Q8_K)
			memcpy(data + i, &f, sizeof(f));
		else if (block_bytes == 2)
			memcpy(data + i, &h, sizeof(h));
		for (size_t k = 0; k < sizeof(scales) / sizeof(*scales); k++)
			for (int s = 0; s < 2 && scales[k].type == type; s++)
				if (scales[k].at[s] >= 0) {
					h = f32_to_f16(random_float());
					memcpy(data + i + scales[k].at[s], &h, sizeof(h));
				}
	}
	*t = (struct tensor){
	    .name = tensor_type_name(type), .type = type, .n_dims = 2, .shape = {n_out, n_in}, .data = data, .n_bytes = n_bytes};
	return data;
}

TEST(embed_every_type)
{
	for (size_t k = 0; k < sizeof(all_types) / sizeof(*all_types); k++) {
		struct pair p = pair_open(&small_config);
		struct tensor t;
		void *data = random_matrix(all_types[k], 7, 512, &t);
		int32_t ids[5] = {6, 0, 3, 3, 1};
		struct batch batch = plain_batch(5, ids);
		struct err err = {0};
		float want[512], *x = p.b[1]->ops->alloc(p.b[1], 5 * 512, &err), *got;
		struct weight *w = p.b[1]->ops->weight_new(p.b[1], &t, &err);

		p.b[1]->ops->begin(p.b[1], &batch);
		p.b[1]->ops->embed(p.b[1], w, 1.5f, x);
		got = take(p.b[1], x, 5 * 512);
		/* Against the reference decoding itself: to the bit. */
		for (int i = 0; i < 5; i++) {
			dequantize_row(t.type, (const char *)data + (size_t)ids[i] * tensor_row_bytes(t.type, 512), want, 512);
			for (int c = 0; c < 512; c++)
				want[c] *= 1.5f;
			compare(t.name, want, got + i * 512, 512, 0);
		}
		free(got);
		free(data);
		pair_close(&p);
	}
}

static void check_linear(enum tensor_type type, int32_t n_rows, int32_t n_out, int32_t n_in, int with_bias, int accumulate)
{
	struct pair p = pair_open(&small_config);
	struct tensor t, bias = {.name = "bias", .type = TENSOR_F32, .n_dims = 1, .shape = {n_out}};
	void *data = random_matrix(type, n_out, n_in, &t);
	float *x = random_floats((size_t)n_rows * (size_t)n_in), *b = random_floats((size_t)n_out),
	      *before = random_floats((size_t)n_rows * (size_t)n_out);
	float *out[2], *in, *alone, *all;
	char what[80];
	struct err err = {0};

	bias.data = b;
	bias.n_bytes = (size_t)n_out * sizeof(float);
	snprintf(what, sizeof(what), "linear %s, %d rows, [%d, %d]", t.name, n_rows, n_out, n_in);
	for (int i = 0; i < 2; i++) {
		struct linear_out o = {.w = p.b[i]->ops->weight_new(p.b[i], &t, &err), .accumulate = accumulate};

		o.bias = with_bias ? p.b[i]->ops->vec_new(p.b[i], &bias, 0.0f, &err) : NULL;
		in = put(p.b[i], x, n_rows, n_in);
		o.out = out[i] = put(p.b[i], before, n_rows, n_out);
		p.b[i]->ops->linear(p.b[i], in, n_rows, &o, 1);
		if (i == 1) { /* the last row alone: the same bits */
			float *last = put(p.b[1], before + (size_t)(n_rows - 1) * (size_t)n_out, 1, n_out);
			float *row = put(p.b[1], x + (size_t)(n_rows - 1) * (size_t)n_in, 1, n_in);

			o.out = last;
			p.b[1]->ops->linear(p.b[1], row, 1, &o, 1);
			alone = take(p.b[1], last, (size_t)n_out);
			all = take(p.b[1], out[1], (size_t)n_rows * (size_t)n_out);
			CHECK(memcmp(alone, all + (size_t)(n_rows - 1) * (size_t)n_out, (size_t)n_out * sizeof(float)) == 0);
			free(alone);
			free(all);
		}
	}
	check_pair(what, "linear", &p, out, (size_t)n_rows * (size_t)n_out, -1);
	free(data);
	free(x);
	free(b);
	free(before);
	pair_close(&p);
}

TEST(linear_every_type)
{
	static const int rows[] = {1, 3, 4, 5, 16, 17, 70};

	for (size_t k = 0; k < sizeof(all_types) / sizeof(*all_types); k++)
		check_linear(all_types[k], rows[k % 7], 1 + random_below(130), 256, (int)k & 1, (int)k / 2 & 1);
	check_linear(TENSOR_F32, 70, 65, 512, 1, 1);
	check_linear(TENSOR_BF16, 2, 64, 33, 0, 0); /* inputs that are no multiple of the tile */
	check_linear(TENSOR_F32, 18, 1, 7, 1, 0);
	check_linear(TENSOR_F16, 5, 129, 40, 0, 1);
}

/* ---- rows ---- */

TEST(norms)
{
	for (int round = 0; round < 6; round++) {
		struct model_config c = small_config;
		struct pair p = pair_open(&c);
		int32_t n = 1 + random_below(9), width = round == 0 ? 1 : 8 * (1 + random_below(60)), rows_of[3], n_rows_of = 0,
		        ids[16] = {0};
		float *x = random_floats((size_t)n * (size_t)width), *y = random_floats((size_t)n * (size_t)width),
		      *w = random_floats((size_t)width), *out[2], *sum[2];
		struct tensor t = {.name = "norm",
		                   .type = TENSOR_F32,
		                   .n_dims = 1,
		                   .shape = {width},
		                   .data = w,
		                   .n_bytes = (size_t)width * sizeof(float)};
		struct err err = {0};

		for (int i = 0; i < n && n_rows_of < 3; i += 1 + random_below(3))
			rows_of[n_rows_of++] = i;
		for (int i = 0; i < 2; i++) {
			const struct backend_ops *ops = p.b[i]->ops;
			struct vec *v = ops->vec_new(p.b[i], &t, 1.0f, &err);
			float *from = put(p.b[i], x, n, width);
			struct batch batch = plain_batch(n, ids);

			batch.n_logits = n_rows_of;
			batch.logit_rows = rows_of;
			sum[i] = put(p.b[i], y, n, width);
			out[i] = ops->alloc(p.b[i], (size_t)n_rows_of * (size_t)width, &err);
			ops->begin(p.b[i], &batch);
			ops->norm(p.b[i], from, v, 1e-5f, n_rows_of, rows_of, out[i]);
			ops->norm_add(p.b[i], sum[i], from, v, 1e-6f, n);
			CHECK_OK(ops->finish(p.b[i], &err), err);
		}
		check_pair("norm of rows", "norm", &p, out, (size_t)n_rows_of * (size_t)width, -1);
		check_pair("norm_add", "norm", &p, sum, (size_t)n * (size_t)width, -1);
		free(x);
		free(y);
		free(w);
		pair_close(&p);
	}
}

TEST(activations)
{
	for (int turn = 0; turn < 4; turn++) {
		enum activation act = turn & 1 ? ACT_SILU : ACT_GELU_TANH;
		struct pair p = pair_open(&small_config);
		int32_t n = 5, width = 333, ids[5] = {0};
		float *x = random_floats((size_t)(n * width)), *y = random_floats((size_t)(n * width)), *gate[2];
		struct err err = {0};

		for (int i = 0; i < n * width; i++)
			x[i] *= turn < 2 ? 3 : 200; /* in the second turn exp overflows */
		for (int i = 0; i < 2; i++) {
			struct batch batch = plain_batch(n, ids);
			float *up;

			gate[i] = put(p.b[i], x, n, width);
			up = put(p.b[i], y, n, width);
			p.b[i]->ops->begin(p.b[i], &batch);
			p.b[i]->ops->act_mul(p.b[i], act, gate[i], up, width);
			CHECK_OK(p.b[i]->ops->finish(p.b[i], &err), err);
		}
		check_pair(act == ACT_SILU ? "silu" : "gelu", "act_mul", &p, gate, (size_t)(n * width), -1);
		free(x);
		free(y);
		pair_close(&p);
	}
}

/* ---- rope, cache, attention ---- */

enum { MAX_SEQS = 5, SEQ_BLOCKS = 12, N_BLOCKS = MAX_SEQS * SEQ_BLOCKS };

struct attention_case {
	int n_heads, n_kv_heads, head_dim, rope_dim, interleaved, window;
	enum kv_type kv;
	float softcap;
	int with_norms;
};

/* Sequences grow in a few steps of random pieces, as prefill, chunks and decode do; each step's q and output are compared. */
static void check_attention(const struct attention_case *a)
{
	struct model_config c = {.n_layers = 1,
	                         .hidden = 64,
	                         .n_heads = a->n_heads,
	                         .n_kv_heads = a->n_kv_heads,
	                         .head_dim = a->head_dim,
	                         .ffn_hidden = 64,
	                         .n_vocab = 64};
	struct kv_shape shape = {1, a->n_kv_heads, a->head_dim, a->kv};
	struct pair p = pair_open_cached(&c, &shape, N_BLOCKS);
	int32_t table[N_BLOCKS], length[MAX_SEQS] = {0}, n_seqs = 1 + random_below(MAX_SEQS);
	float *norms = random_floats((size_t)a->head_dim * 2), inv_freq[256];
	struct rope rope = {.inv_freq = inv_freq, .dim = a->rope_dim, .attention_factor = 1.25f, .interleaved = a->interleaved};
	struct vec *q_norm[2] = {NULL, NULL}, *k_norm[2] = {NULL, NULL};
	double loose = a->kv == KV_F32 ? -1 : a->kv == KV_F16 ? tolerance_f16_cache : tolerance_bf16_cache;
	struct err err = {0};
	char what[120];

	snprintf(what, sizeof(what), "heads %d/%d of %d, rope %d%s, window %d, softcap %g, kv type %d%s", a->n_heads, a->n_kv_heads,
	         a->head_dim, a->rope_dim, a->interleaved ? " interleaved" : "", a->window, (double)a->softcap, (int)a->kv,
	         a->with_norms ? ", norms" : "");
	for (int i = 0; i < a->rope_dim / 2; i++)
		inv_freq[i] = powf(10000.0f, -2.0f * (float)i / (float)a->rope_dim);
	for (int i = 0; i < N_BLOCKS; i++) { /* shuffled */
		int k = random_below(i + 1);

		table[i] = table[k];
		table[k] = i;
	}
	for (int i = 0; i < 2; i++) {
		for (int k = 0; k < 2 && a->with_norms; k++) {
			struct tensor t = {.name = "head norm",
			                   .type = TENSOR_F32,
			                   .n_dims = 1,
			                   .shape = {a->head_dim},
			                   .data = norms + k * a->head_dim,
			                   .n_bytes = (size_t)a->head_dim * sizeof(float)};

			*(k ? &k_norm[i] : &q_norm[i]) = p.b[i]->ops->vec_new(p.b[i], &t, 0.5f, &err);
		}
	}
	for (int step = 0; step < 4; step++) {
		struct batch_seq seqs[MAX_SEQS];
		int32_t positions[MAX_ROWS], ids[MAX_ROWS] = {0}, row = 0;
		struct batch batch = {.tokens = ids, .positions = positions, .seqs = seqs};
		size_t q_width = (size_t)(a->n_heads * a->head_dim), kv_width = (size_t)(a->n_kv_heads * a->head_dim);
		float *q, *k, *v, *q_out[2], *out[2];

		for (int s = 0; s < n_seqs; s++) {
			int32_t n = step % 2 ? 1 : 1 + random_below(18);

			if (step > 1 && random_below(4) == 0)
				continue;
			seqs[batch.n_seqs++] = (struct batch_seq){table + s * SEQ_BLOCKS, row, n, length[s]};
			for (int32_t i = 0; i < n; i++)
				positions[row++] = length[s]++;
		}
		batch.n_tokens = row;
		if (row == 0)
			continue;
		q = random_floats((size_t)row * q_width);
		k = random_floats((size_t)row * kv_width);
		v = random_floats((size_t)row * kv_width);
		for (int i = 0; i < 2; i++) {
			const struct backend_ops *ops = p.b[i]->ops;
			float *dk = put(p.b[i], k, row, (int32_t)kv_width), *dv = put(p.b[i], v, row, (int32_t)kv_width);

			q_out[i] = put(p.b[i], q, row, (int32_t)q_width);
			out[i] = ops->alloc(p.b[i], (size_t)row * q_width, &err);
			ops->begin(p.b[i], &batch);
			ops->rope_store(p.b[i], 0, q_out[i], dk, dv, q_norm[i], k_norm[i], 1e-6f, &rope);
			ops->attention(p.b[i], 0, q_out[i], 0.3f, a->softcap, a->window, out[i]);
			CHECK_OK(ops->finish(p.b[i], &err), err);
		}
		check_pair(what, "rope_store", &p, q_out, (size_t)row * q_width, -1);
		check_pair(what, "attention", &p, out, (size_t)row * q_width, loose);
		free(q);
		free(k);
		free(v);
	}
	free(norms);
	pair_close(&p);
}

TEST(attention)
{
	static const struct attention_case cases[] = {
	    {4, 4, 64, 64, 0, 0, KV_F32, 0, 0},    {4, 2, 128, 128, 0, 0, KV_F16, 0, 1}, {6, 2, 80, 40, 1, 0, KV_BF16, 0, 0},
	    {5, 1, 32, 32, 1, 7, KV_F32, 0, 0},    {7, 1, 64, 64, 0, 40, KV_F32, 20, 1}, {12, 2, 16, 16, 0, 0, KV_F32, 0, 0},
	    {8, 1, 256, 256, 0, 16, KV_F32, 0, 1}, {20, 1, 24, 24, 0, 0, KV_F16, 5, 0},  {2, 1, 512, 64, 0, 0, KV_F32, 0, 0},
	    {14, 2, 64, 64, 0, 0, KV_F32, 0, 0},   {10, 2, 96, 96, 0, 33, KV_F32, 0, 0},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		check_attention(&cases[i]);
}

/* ---- what goes wrong ---- */

TEST(want_of_memory_is_told_and_survived)
{
	struct cuda_shim_settings before, s;
	struct pair p;
	struct err err = {0};

	cuda_shim_get(&before);
	s = before;
	s.total_bytes = 8 << 20;
	cuda_shim_set(&s);
	p = pair_open(&small_config);
	CHECK(p.b[1]->ops->alloc(p.b[1], 4 << 20, &err) == NULL);
	CHECK_INT(err.code, ERR_ENGINE);
	CHECK_HAS(err.msg, "no room for the workspace: 16 MiB wanted");
	err_clear(&err);
	CHECK(p.b[1]->ops->alloc(p.b[1], 1 << 20, &err) != NULL); /* what fits still works */
	CHECK_OK(p.b[1]->ops->finish(p.b[1], &err), err);
	pair_close(&p);
	CHECK_INT(cuda_shim_used_bytes(), 0);
	cuda_shim_set(&before);
}

TEST(a_fault_surfaces_at_the_end_of_the_step)
{
	struct cuda_shim_settings before, s;
	struct pair p = pair_open(&small_config);
	float x[8] = {0}, *device = put(p.b[1], x, 1, 8);
	int32_t ids[1] = {0};
	struct batch batch = plain_batch(1, ids);
	struct err err = {0};

	cuda_shim_get(&before);
	s = before;
	s.fail_at_launch = 2;
	cuda_shim_set(&s);
	p.b[1]->ops->begin(p.b[1], &batch);
	for (int i = 0; i < 4; i++)
		p.b[1]->ops->act_mul(p.b[1], ACT_SILU, device, device, 8);
	CHECK(p.b[1]->ops->finish(p.b[1], &err) < 0);
	CHECK_INT(err.code, ERR_ENGINE);
	CHECK_HAS(err.msg, "running kernels: unspecified launch failure (CUDA error 719)");
	err_clear(&err);
	CHECK(p.b[1]->ops->fetch(p.b[1], device, 8, &err) == NULL); /* and stays */
	pair_close(&p);
	cuda_shim_set(&before);
}

int main(void)
{
	struct cuda_shim_settings s;

	cuda_shim_get(&s);
	for (s.seed = 0; s.seed < 3; s.seed++) { /* ascending, and two shuffled orders */
		cuda_shim_set(&s);
		RUN(embed_every_type);
		RUN(linear_every_type);
		RUN(norms);
		RUN(activations);
		RUN(attention);
	}
	RUN(want_of_memory_is_told_and_survived);
	RUN(a_fault_surfaces_at_the_end_of_the_step);
	return check_n_failed != 0;
}
