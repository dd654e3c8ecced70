/* test_attention.c: attention against double precision, and the same bits whatever the company, chunking, threads and instruction set.
 *
 * A world is a random forest of sequences that share blocks, in random physical order, in a cache that is NaN wherever nothing was
 * stored. Queries are a function of (sequence, position), so that any way of cutting the sequences into batches must give a row
 * the same bytes. `test_attention bench` prints GFLOP/s beside the machine's ceiling. */
#include "engine/cpu/attention.h"

#include "base/clock.h"
#include "base/mem.h"
#include "tests/check.h"
#include "tests/engine/isas.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

static const char *isas[] = {"avx512", "avx2", "generic"};
enum { N_ISAS = 3 };

static const char *best_isa(void)
{
	for (int i = 0; i < N_ISAS; i++)
		if (isa_runs(isas[i]))
			return isas[i];
	return "generic";
}

static uint64_t mix(uint64_t x)
{
	x ^= x >> 31;
	x *= 0x9e3779b97f4a7c15u;
	x ^= x >> 29;
	x *= 0xbf58476d1ce4e5b9u;
	return x ^ x >> 32;
}
static float float_of(uint64_t key, float scale) /* -scale .. scale */
{
	return scale * ((float)(mix(key) >> 40) / 8388608.0f - 1);
}
static uint64_t random_state = 7;
static int random_below(int n)
{
	random_state = random_state * 6364136223846793005u + 1442695040888963407u;
	return (int)((random_state >> 33) % (uint64_t)n);
}

enum { MAX_SEQS = 64, MAX_BLOCKS = 640 };

struct world {
	struct kv_shape shape;
	int n_heads, group;
	float scale, softcap;
	int window;
	int n_seqs;
	int32_t length[MAX_SEQS];
	int32_t blocks[MAX_SEQS][MAX_BLOCKS];
	int32_t shared[MAX_SEQS]; /* leading blocks taken from an earlier sequence */
	int32_t n_blocks;
	void *k_cache, *v_cache;
	size_t cache_bytes;
};

static float *float_rows(size_t n_rows, size_t width)
{
	return xcalloc(n_rows * width, sizeof(float));
}

static double element(const struct world *w, const void *cache, size_t i)
{
	uint16_t h;
	uint32_t u;
	float f;

	if (w->shape.type == KV_F32)
		return ((const float *)cache)[i];
	h = ((const uint16_t *)cache)[i];
	if (w->shape.type == KV_BF16) {
		u = (uint32_t)h << 16;
		memcpy(&f, &u, 4);
		return f;
	}
	if ((h >> 10 & 31) == 31)
		return NAN;
	f = (float)(h >> 10 & 31 ? ldexp(1024 + (h & 1023), (h >> 10 & 31) - 25) : ldexp(h & 1023, -24));
	return h & 0x8000 ? -(double)f : f;
}

static double key_at(const struct world *w, int seq, int position, int head, int d)
{
	size_t dim = (size_t)w->shape.head_dim, block = (size_t)w->blocks[seq][position / 16];

	return element(w, w->k_cache, ((block * (size_t)w->shape.n_kv_heads + (size_t)head) * dim + (size_t)d) * 16 + (size_t)position % 16);
}

static double value_at(const struct world *w, int seq, int position, int head, int d)
{
	size_t dim = (size_t)w->shape.head_dim, block = (size_t)w->blocks[seq][position / 16];

	return element(w, w->v_cache, ((block * (size_t)w->shape.n_kv_heads + (size_t)head) * 16 + (size_t)position % 16) * dim + (size_t)d);
}

static void query_of(const struct world *w, int seq, int position, float *q)
{
	int n = w->n_heads * w->shape.head_dim;

	for (int i = 0; i < n; i++)
		q[i] = float_of(((uint64_t)seq << 40 ^ (uint64_t)position << 20 ^ (uint64_t)i) * 2 + 1, 3);
}

/* A batch of pieces of sequences. */
struct piece {
	int seq, first, n;
};
struct step {
	struct batch batch;
	struct batch_seq seqs[1024];
	int seq_of[1024];
};

static void step_of(const struct world *w, const struct piece *pieces, int n_pieces, struct step *s)
{
	int32_t row = 0;

	for (int i = 0; i < n_pieces; i++) {
		s->seqs[i] = (struct batch_seq){w->blocks[pieces[i].seq], row, pieces[i].n, pieces[i].first};
		row += pieces[i].n;
	}
	s->batch = (struct batch){.n_tokens = row, .n_seqs = n_pieces, .seqs = s->seqs};
}

/* Store keys and values that are a function of the block and place (a shared block holds the same for all) through cpu_rope_store without
 * rotation. */
static void fill_cache(struct world *w)
{
	struct rope none = {NULL, 0, 1, 0};
	size_t width = (size_t)w->shape.n_kv_heads * (size_t)w->shape.head_dim;
	struct workers *team = workers_new(1, NULL);
	struct cpu_attention *a = cpu_attention_new(team, best_isa(), w->n_heads, w->shape.n_kv_heads, w->shape.head_dim, 16384, w->shape.type, NULL);
	struct step *s = malloc(sizeof(*s));

	w->cache_bytes = cpu_kv_layer_bytes(&w->shape, w->n_blocks);
	w->k_cache = malloc(w->cache_bytes);
	w->v_cache = malloc(w->cache_bytes);
	memset(w->k_cache, 0xff, w->cache_bytes); /* NaN in all three types */
	memset(w->v_cache, 0xff, w->cache_bytes);
	for (int i = 0; i < w->n_seqs; i++) {
		struct piece p = {i, w->shared[i] * 16, w->length[i] - w->shared[i] * 16};
		float *q = float_rows((size_t)p.n, (size_t)w->n_heads * (size_t)w->shape.head_dim);
		float *k = float_rows((size_t)p.n, width), *v = float_rows((size_t)p.n, width);

		for (int r = 0; r < p.n; r++)
			for (size_t d = 0; d < width; d++) {
				uint64_t place = (uint64_t)w->blocks[i][(p.first + r) / 16] * 16 + (uint64_t)(p.first + r) % 16;

				k[(size_t)r * width + d] = float_of(place << 24 ^ (uint64_t)d * 4 ^ 1, 2);
				v[(size_t)r * width + d] = float_of(place << 24 ^ (uint64_t)d * 4 ^ 2, 2);
			}
		step_of(w, &p, 1, s);
		cpu_attention_plan(a, &s->batch);
		cpu_rope_store(a, &s->batch, q, k, v, NULL, NULL, 0, &none, w->k_cache, w->v_cache);
		free(v);
		free(k);
		free(q);
	}
	free(s);
	cpu_attention_free(a);
	workers_free(team);
}

/* Sequence i shares whole blocks with an earlier one, or with none. */
static void world_random(struct world *w, int n_seqs, int max_length)
{
	int32_t next = 0, ids[MAX_SEQS * MAX_BLOCKS];

	w->n_seqs = n_seqs;
	w->n_blocks = n_seqs * (max_length / 16 + 1);
	for (int32_t i = 0; i < w->n_blocks; i++)
		ids[i] = i;
	for (int32_t i = w->n_blocks - 1; i > 0; i--) {
		int32_t k = random_below(i + 1), t = ids[i];

		ids[i] = ids[k];
		ids[k] = t;
	}
	for (int i = 0; i < n_seqs; i++) {
		int from = i > 0 && random_below(5) ? random_below(i) : -1;

		w->shared[i] = 0;
		if (from >= 0)
			w->shared[i] = random_below(w->length[from] / 16 + 1);
		w->length[i] = w->shared[i] * 16 + 1 + random_below(max_length - w->shared[i] * 16);
		for (int b = 0; b <= (w->length[i] - 1) / 16; b++)
			w->blocks[i][b] = b < w->shared[i] ? w->blocks[from][b] : ids[next++];
	}
	fill_cache(w);
}

static void world_release(struct world *w)
{
	free(w->k_cache);
	free(w->v_cache);
}

/* One row in double precision. */
static void attend_double(const struct world *w, int seq, int position, double *out)
{
	int dim = w->shape.head_dim, first = w->window > 0 && position - w->window + 1 > 0 ? position - w->window + 1 : 0;
	float *q = float_rows(1, (size_t)(w->n_heads * dim));
	double *p = malloc((size_t)(position + 1) * sizeof(*p));

	query_of(w, seq, position, q);
	for (int h = 0; h < w->n_heads; h++) {
		double max = -INFINITY, sum = 0;

		for (int i = first; i <= position; i++) {
			p[i] = 0;
			for (int d = 0; d < dim; d++)
				p[i] += q[h * dim + d] * key_at(w, seq, i, h / w->group, d);
			p[i] *= w->scale;
			if (w->softcap > 0)
				p[i] = w->softcap * tanh(p[i] / w->softcap);
			max = p[i] > max ? p[i] : max;
		}
		for (int i = first; i <= position; i++)
			sum += p[i] = exp(p[i] - max);
		for (int d = 0; d < dim; d++) {
			out[h * dim + d] = 0;
			for (int i = first; i <= position; i++)
				out[h * dim + d] += p[i] / sum * value_at(w, seq, i, h / w->group, d);
		}
	}
	free(p);
	free(q);
}

/* A team with its attention. */
struct machine {
	struct workers *team;
	struct cpu_attention *a;
};
static void machine_open(struct machine *m, const struct world *w, const char *isa, int threads)
{
	struct err err = {0};

	m->team = workers_new(threads, &err);
	m->a = cpu_attention_new(m->team, isa, w->n_heads, w->shape.n_kv_heads, w->shape.head_dim, 16384, w->shape.type, &err);
	if (!m->a) {
		printf("%s\n", err.msg);
		exit(1);
	}
}
static void machine_close(struct machine *m)
{
	cpu_attention_free(m->a);
	workers_free(m->team);
}

/* Outputs of the pieces' rows, [n_tokens, n_heads, head_dim]. */
static float *attend(const struct machine *m, const struct world *w, const struct piece *pieces, int n_pieces)
{
	struct step *s = malloc(sizeof(*s));
	size_t width = (size_t)w->n_heads * (size_t)w->shape.head_dim, row = 0;
	float *q, *out;

	step_of(w, pieces, n_pieces, s);
	q = float_rows((size_t)s->batch.n_tokens, width);
	out = float_rows((size_t)s->batch.n_tokens, width);
	for (int i = 0; i < n_pieces; i++)
		for (int r = 0; r < pieces[i].n; r++)
			query_of(w, pieces[i].seq, pieces[i].first + r, q + row++ * width);
	cpu_attention_plan(m->a, &s->batch);
	cpu_attend(m->a, q, w->k_cache, w->v_cache, w->scale, w->softcap, w->window, out);
	free(q);
	free(s);
	return out;
}

struct shape_case {
	int n_heads, n_kv_heads, head_dim;
	enum kv_type type;
	int window;
	float softcap;
	int max_length;
};
static const struct shape_case cases[] = {
	{9, 3, 64, KV_F16, 0, 0, 700},    {12, 2, 128, KV_BF16, 0, 0, 500}, {14, 2, 64, KV_F16, 0, 0, 600}, {4, 1, 256, KV_F16, 100, 0, 600},
	{4, 4, 32, KV_F32, 0, 20, 500},   {8, 2, 80, KV_F16, 0, 0, 300},    {6, 2, 72, KV_BF16, 17, 5, 400}, {5, 1, 8, KV_F32, 0, 0, 300},
	{64, 1, 16, KV_F16, 130, 0, 300}, {2, 1, 512, KV_F16, 0, 0, 200},   {4, 2, 40, KV_F16, 1, 0, 200},   {16, 2, 24, KV_BF16, 128, 0, 600},
};
enum { N_CASES = sizeof(cases) / sizeof(*cases) };

static void world_of_case(struct world *w, const struct shape_case *c, int n_seqs)
{
	memset(w, 0, sizeof(*w));
	w->shape = (struct kv_shape){1, c->n_kv_heads, c->head_dim, c->type};
	w->n_heads = c->n_heads;
	w->group = c->n_heads / c->n_kv_heads;
	w->window = c->window;
	w->softcap = c->softcap;
	w->scale = 1 / sqrtf((float)c->head_dim);
	world_random(w, n_seqs, c->max_length);
}

/* Weights sum to 1 and values are below 2: the error is absolute. Scores of up to about 20 carry a rounding error of some 1e-6 each. */
static const double attention_tolerance = 4e-6;

TEST(against_double)
{
	struct world *w = malloc(sizeof(*w));

	for (int c = 0; c < N_CASES; c++) {
		int width = cases[c].n_heads * cases[c].head_dim;
		double *want = malloc((size_t)width * sizeof(*want)), worst = 0;

		world_of_case(w, &cases[c], 8);
		for (int s = 0; s < N_ISAS; s++) {
			struct machine m;
			struct piece pieces[8];
			float *out, *row;

			if (!isa_runs(isas[s]))
				continue;
			machine_open(&m, w, isas[s], 2);
			for (int i = 0; i < 8; i++) {
				int n = strcmp(isas[s], "generic") == 0 ? 2 : 30; /* its fma may be a call */

				n = n < w->length[i] ? n : w->length[i];
				pieces[i] = (struct piece){i, w->length[i] - n, n};
			}
			row = out = attend(&m, w, pieces, 8);
			for (int i = 0; i < 8; i++)
				for (int r = 0; r < pieces[i].n; r++, row += width)
					if (r % 9 == 0 || r == pieces[i].n - 1) {
						attend_double(w, i, pieces[i].first + r, want);
						for (int d = 0; d < width; d++) {
							double e = fabs(row[d] - want[d]);

							worst = e > worst || isnan(e) ? e : worst;
						}
					}
			free(out);
			machine_close(&m);
		}
		if (!(worst < attention_tolerance))
			printf("case %d: error %g\n", c, worst);
		CHECK(worst < attention_tolerance);
		free(want);
		world_release(w);
	}
	free(w);
}

/* Every row alone: what all other ways must reproduce. [sequence][position] */
static float **rows_alone(const struct machine *m, const struct world *w)
{
	size_t width = (size_t)w->n_heads * (size_t)w->shape.head_dim;
	float **alone = xcalloc((size_t)w->n_seqs, sizeof(*alone));

	for (int i = 0; i < w->n_seqs; i++) {
		alone[i] = float_rows((size_t)w->length[i], width);
		for (int p = 0; p < w->length[i]; p++) {
			struct piece one = {i, p, 1};
			float *out = attend(m, w, &one, 1);

			memcpy(alone[i] + (size_t)p * width, out, width * sizeof(float));
			free(out);
		}
	}
	return alone;
}

static int same_bits(const struct world *w, float **alone, const struct piece *pieces, int n_pieces, const float *out)
{
	size_t width = (size_t)w->n_heads * (size_t)w->shape.head_dim;

	for (int i = 0; i < n_pieces; i++) {
		if (memcmp(out, alone[pieces[i].seq] + (size_t)pieces[i].first * width, (size_t)pieces[i].n * width * sizeof(float)) != 0) {
			printf("sequence %d, positions %d + %d: other bits\n", pieces[i].seq, pieces[i].first, pieces[i].n);
			return 0;
		}
		out += (size_t)pieces[i].n * width;
	}
	return 1;
}

/* Random pieces of random sequences, each sequence at most once. */
static int random_pieces(const struct world *w, int max_tokens, struct piece *pieces)
{
	int n = 0, start = random_below(w->n_seqs), kind = random_below(3);

	for (int k = 0; k < w->n_seqs; k++) {
		int i = (start + k) % w->n_seqs, most = w->length[i] < max_tokens ? w->length[i] : max_tokens;
		int tokens = kind == 0 || (kind == 1 && random_below(2)) ? 1 : 1 + random_below(most);

		if (random_below(4) == 0 && n > 0)
			continue;
		pieces[n++] = (struct piece){i, random_below(w->length[i] - tokens + 1), tokens};
	}
	return n;
}

TEST(same_bits)
{
	struct world *w = malloc(sizeof(*w));

	for (int c = 0; c < N_CASES; c++) {
		struct machine m;
		float **alone;

		world_of_case(w, &cases[c], 10);
		machine_open(&m, w, best_isa(), 1);
		alone = rows_alone(&m, w);
		machine_close(&m);
		for (int s = 0; s < N_ISAS; s++)
			for (int threads = 1; threads <= 4 && isa_runs(isas[s]); threads += 1 + (threads == 2)) {
				int slow = strcmp(isas[s], "generic") == 0;

				machine_open(&m, w, isas[s], threads);
				for (int round = 0; round < (slow ? 2 : 12); round++) {
					struct piece pieces[MAX_SEQS];
					int n = random_pieces(w, slow ? 4 : 300, pieces);
					float *out = attend(&m, w, pieces, n);

					CHECK(same_bits(w, alone, pieces, n, out));
					free(out);
				}
				machine_close(&m);
			}
		for (int i = 0; i < w->n_seqs; i++)
			free(alone[i]);
		free(alone);
		world_release(w);
	}
	free(w);
}

/* Blocks in common after a difference, and in another order: no prefix tree makes these, but the blocks are what they are. */
TEST(odd_sharing)
{
	struct world *w = malloc(sizeof(*w));
	struct machine m;
	struct piece pieces[4];
	float **alone, *out;

	world_of_case(w, &cases[0], 4);
	for (int i = 0; i < 4; i++)
		w->length[i] = 60 + i;
	for (int i = 1; i < 4; i++)
		for (int b = 0; b < 4; b++)
			w->blocks[i][b] = w->blocks[0][(b * (i + 1)) % 4];
	free(w->k_cache);
	free(w->v_cache);
	memset(w->shared, 0, sizeof(w->shared));
	w->length[0] = 64;
	fill_cache(w);
	machine_open(&m, w, best_isa(), 1);
	alone = rows_alone(&m, w);
	for (int i = 0; i < 4; i++)
		pieces[i] = (struct piece){i, 0, w->length[i]};
	out = attend(&m, w, pieces, 4);
	CHECK(same_bits(w, alone, pieces, 4, out));
	free(out);
	for (int i = 0; i < 4; i++)
		free(alone[i]);
	free(alone);
	machine_close(&m);
	world_release(w);
	free(w);
}

static void rope_double(float *x, const float *w, double eps, int head_dim, const struct rope *rope, int position, double *out)
{
	double sum = 0, scale;
	int half = rope->dim / 2;

	for (int d = 0; d < head_dim; d++)
		sum += (double)x[d] * x[d];
	scale = w ? 1 / sqrt(sum / head_dim + eps) : 1;
	for (int d = 0; d < head_dim; d++)
		out[d] = x[d] * scale * (w ? w[d] : 1);
	for (int i = 0; i < half; i++) {
		/* transformers: the angle is a float32 product, cos and sin float32 */
		double angle = (float)position * rope->inv_freq[i], c = cos(angle) * rope->attention_factor, s = sin(angle) * rope->attention_factor;
		int p = rope->interleaved ? 2 * i : i, r = rope->interleaved ? 2 * i + 1 : i + half;
		double a = out[p], b = out[r];

		out[p] = a * c - b * s;
		out[r] = b * c + a * s;
	}
}

static void check_rope(const struct shape_case *sc, int rope_dim, int interleaved, int normed, float factor)
{
	struct world *w = calloc(1, sizeof(*w));
	struct rope rope = {.dim = rope_dim, .attention_factor = factor, .interleaved = interleaved};
	float inv_freq[256], q_norm[512], k_norm[512];
	int dim = sc->head_dim, n_rows = 0;
	size_t q_width = (size_t)(sc->n_heads * dim), k_width = (size_t)(sc->n_kv_heads * dim);
	struct piece pieces[] = {{0, 37, 5}, {1, 0, 20}, {2, 9000, 1}};
	void *first_k = NULL, *first_v = NULL;
	float *first_q = NULL;
	struct step *s = malloc(sizeof(*s));

	for (int i = 0; i < rope_dim / 2; i++)
		inv_freq[i] = (float)pow(10000, -2.0 * i / rope_dim);
	rope.inv_freq = inv_freq;
	for (int d = 0; d < dim; d++) {
		q_norm[d] = float_of((uint64_t)d * 3, 2);
		k_norm[d] = float_of((uint64_t)d * 5, 2);
	}
	w->shape = (struct kv_shape){1, sc->n_kv_heads, dim, sc->type};
	w->n_heads = sc->n_heads;
	w->n_seqs = 3;
	w->n_blocks = 600;
	for (int b = 0; b < 570; b++)
		w->blocks[0][b] = w->blocks[1][b] = w->blocks[2][b] = 599 - b;
	w->blocks[1][0] = 1;
	w->blocks[1][1] = 3;
	for (int i = 0; i < 3; i++)
		n_rows += pieces[i].n;
	w->cache_bytes = cpu_kv_layer_bytes(&w->shape, w->n_blocks);
	for (int x = 0; x < N_ISAS; x++)
		for (int threads = 1; threads <= 3 && isa_runs(isas[x]); threads++) {
			struct machine m;
			float *q = float_rows((size_t)n_rows, q_width), *k = float_rows((size_t)n_rows, k_width), *v = float_rows((size_t)n_rows, k_width);
			float *q0 = float_rows((size_t)n_rows, q_width), *k0 = float_rows((size_t)n_rows, k_width);
			int row = 0;

			for (size_t i = 0; i < (size_t)n_rows * q_width; i++)
				q0[i] = q[i] = float_of(i * 7 + 1, 2);
			for (size_t i = 0; i < (size_t)n_rows * k_width; i++) {
				k0[i] = k[i] = float_of(i * 11 + 2, 2);
				v[i] = float_of(i * 13 + 3, 2);
			}
			w->k_cache = calloc(1, w->cache_bytes);
			w->v_cache = calloc(1, w->cache_bytes);
			machine_open(&m, w, isas[x], threads);
			step_of(w, pieces, 3, s);
			cpu_attention_plan(m.a, &s->batch);
			cpu_rope_store(m.a, &s->batch, q, k, v, normed ? q_norm : NULL, normed ? k_norm : NULL, 1e-6f, &rope, w->k_cache, w->v_cache);
			for (int i = 0; i < 3 && !first_q; i++)
				for (int r = 0; r < pieces[i].n; r++, row++) {
					int position = pieces[i].first + r;
					double want[512], least = sc->type == KV_F32 ? 2e-6 : sc->type == KV_F16 ? 0x1p-11 : 0x1p-8;

					for (int h = 0; h < sc->n_heads; h++) {
						rope_double(q0 + (size_t)row * q_width + h * dim, normed ? q_norm : NULL, 1e-6, dim, &rope, position, want);
						for (int d = 0; d < dim; d++)
							CHECK_NEAR(q[(size_t)row * q_width + (size_t)(h * dim + d)], want[d], 2e-6);
					}
					for (int h = 0; h < sc->n_kv_heads; h++) {
						rope_double(k0 + (size_t)row * k_width + h * dim, normed ? k_norm : NULL, 1e-6, dim, &rope, position, want);
						for (int d = 0; d < dim; d++) {
							float value = v[(size_t)row * k_width + (size_t)(h * dim + d)];

							CHECK_NEAR(key_at(w, i, position, h, d), want[d], 2e-6 + least * fabs(want[d]));
							CHECK_NEAR(value_at(w, i, position, h, d), value, least * fabsf(value) + 1e-7);
						}
					}
				}
			if (first_q) {
				CHECK(memcmp(q, first_q, (size_t)n_rows * q_width * sizeof(float)) == 0);
				CHECK(memcmp(w->k_cache, first_k, w->cache_bytes) == 0 && memcmp(w->v_cache, first_v, w->cache_bytes) == 0);
				free(w->k_cache);
				free(w->v_cache);
				free(q);
			} else {
				first_q = q;
				first_k = w->k_cache;
				first_v = w->v_cache;
			}
			free(k0);
			free(q0);
			free(v);
			free(k);
			machine_close(&m);
		}
	free(first_k);
	free(first_v);
	free(first_q);
	free(s);
	free(w);
}

TEST(rope_store)
{
	check_rope(&cases[0], 64, 0, 0, 1);
	check_rope(&cases[1], 128, 0, 1, 1);
	check_rope(&cases[4], 16, 1, 0, 1.25f);
	check_rope(&cases[6], 72, 1, 1, 1);
	check_rope(&cases[7], 8, 0, 1, 1);
	check_rope(&cases[7], 0, 0, 0, 1);
	check_rope(&cases[9], 512, 0, 1, 1);
}

/* Rounding to nearest even, and halves that would overflow stay finite. */
TEST(store_rounding)
{
	static const struct {
		float x;
		uint16_t f16, bf16;
	} table[] = {
		{1.0f, 0x3c00, 0x3f80},       {-2.0f, 0xc000, 0xc000},       {1.00048828125f, 0x3c00, 0x3f80}, {1.00146484375f, 0x3c02, 0x3f80},
		{1.00390625f, 0x3c04, 0x3f80}, {1.01171875f, 0x3c0c, 0x3f82}, {65504.0f, 0x7bff, 0x4780},       {1e6f, 0x7bff, 0x4974},
		{-1e6f, 0xfbff, 0xc974},       {6e-8f, 0x0001, 0x3381},       {0.0f, 0, 0},                     {-0.0f, 0x8000, 0x8000},
	};
	enum { N = sizeof(table) / sizeof(*table) };

	for (int type = KV_F16; type <= KV_BF16; type++)
		for (int s = 0; s < N_ISAS; s++) {
			struct world w = {.shape = {1, 1, 16, (enum kv_type)type}, .n_heads = 1, .n_blocks = 1};
			struct rope none = {NULL, 0, 1, 0};
			struct piece p = {0, 0, 1};
			uint16_t k_cache[256], v_cache[256];
			float q[16] = {0}, k[16] = {0};
			struct machine m;
			struct step *st;

			if (!isa_runs(isas[s]))
				continue;
			for (int i = 0; i < N; i++)
				k[i] = table[i].x;
			st = malloc(sizeof(*st));
			machine_open(&m, &w, isas[s], 1);
			step_of(&w, &p, 1, st);
			cpu_attention_plan(m.a, &st->batch);
			cpu_rope_store(m.a, &st->batch, q, k, k, NULL, NULL, 0, &none, k_cache, v_cache);
			for (int i = 0; i < N; i++) {
				CHECK_INT(k_cache[i * 16], type == KV_F16 ? table[i].f16 : table[i].bf16);
				CHECK_INT(v_cache[i], type == KV_F16 ? table[i].f16 : table[i].bf16);
			}
			machine_close(&m);
			free(st);
		}
}

TEST(refusals)
{
	struct workers *team = workers_new(1, NULL);
	struct err err = {0};

	CHECK(!cpu_attention_new(team, "generic", 9, 2, 64, 8, KV_F16, &err));
	CHECK_STR(err.msg, "9 attention heads cannot share 2 key/value heads evenly");
	err_clear(&err);
	CHECK(!cpu_attention_new(team, "generic", 8, 2, 68, 8, KV_F16, &err));
	CHECK_STR(err.msg, "attention heads of 68 elements are not supported: must be a multiple of 8 up to 512");
	err_clear(&err);
	CHECK(!cpu_attention_new(team, "generic", 8, 2, 520, 8, KV_F16, &err));
	CHECK_INT(err.code, ERR_MODEL);
	workers_free(team);
}

/* 2 flops per fma in registers, one thread, best of some short runs. */
#if defined(__x86_64__)
#define CEILING(name, isa, type, set1, fma, lanes)                                                                         \
	__attribute__((target(isa))) static double name(void)                                                                  \
	{                                                                                                                      \
		double best = 0;                                                                                                   \
                                                                                                                           \
		for (int round = 0; round < 20; round++) {                                                                         \
			type a[12], b = set1(0.999f), c = set1(0.001f);                                                                \
			double t0 = clock_seconds();                                                                                   \
			volatile float keep;                                                                                           \
                                                                                                                           \
			_Pragma("GCC unroll 12") for (int i = 0; i < 12; i++) a[i] = set1((float)i);                                   \
			for (int n = 0; n < 200000; n++) {                                                                             \
				_Pragma("GCC unroll 12") for (int i = 0; i < 12; i++) a[i] = fma(a[i], b, c);                              \
			}                                                                                                              \
			t0 = clock_seconds() - t0;                                                                                     \
			_Pragma("GCC unroll 12") for (int i = 1; i < 12; i++) a[0] += a[i];                                            \
			keep = a[0][0];                                                                                                \
			(void)keep;                                                                                                    \
			best = fmax(best, 200000.0 * 12 * lanes * 2 / t0 * 1e-9);                                                      \
		}                                                                                                                  \
		return best;                                                                                                       \
	}
CEILING(ceiling_avx2, "avx2,fma", __m256, _mm256_set1_ps, _mm256_fmadd_ps, 8)
CEILING(ceiling_avx512, "avx512f", __m512, _mm512_set1_ps, _mm512_fmadd_ps, 16)
#endif

static double ceiling_of(const char *isa)
{
#if defined(__x86_64__)
	if (strcmp(isa, "avx512") == 0)
		return ceiling_avx512();
	if (strcmp(isa, "avx2") == 0)
		return ceiling_avx2();
#endif
	return 0;
}

struct bench_case {
	const char *name;
	int n_heads, n_kv_heads, head_dim;
	int n_seqs, shared, own, n_tokens; /* positions before the tokens of this step */
};
static const struct bench_case bench_cases[] = {
	{"decode 64 rows, 512 shared + 128, 9/3/64", 9, 3, 64, 64, 512, 128, 1},
	{"decode 64 rows, 512 shared + 128, 12/2/128", 12, 2, 128, 64, 512, 128, 1},
	{"decode 64 rows, 640 not shared, 9/3/64", 9, 3, 64, 64, 0, 640, 1},
	{"decode 64 rows, 640 not shared, 12/2/128", 12, 2, 128, 64, 0, 640, 1},
	{"prefill 512, 9/3/64", 9, 3, 64, 1, 0, 0, 512},
	{"prefill 512, 12/2/128", 12, 2, 128, 1, 0, 0, 512},
	{"decode 4 rows at 8192, 9/3/64", 9, 3, 64, 4, 0, 8192, 1},
	{"prefill 64 at 8192, 9/3/64", 9, 3, 64, 1, 0, 8192, 64},
	{"decode 1 row at 8192, 12/2/128", 12, 2, 128, 1, 0, 8192, 1},
};

/* 4 flops per (head, element, position seen). */
static void bench_one(const struct bench_case *c, const char *isa, int threads, double ceiling)
{
	struct world *w = calloc(1, sizeof(*w));
	struct step *s = malloc(sizeof(*s));
	struct piece pieces[MAX_SEQS];
	struct machine m;
	size_t width = (size_t)c->n_heads * (size_t)c->head_dim, n_rows = (size_t)c->n_seqs * (size_t)c->n_tokens;
	float *q = float_rows(n_rows, width), *out = float_rows(n_rows, width);
	double flops = 0, best = 1e9, plan = 1e9, start;
	int32_t next = c->shared / 16;

	w->shape = (struct kv_shape){1, c->n_kv_heads, c->head_dim, KV_F16};
	w->n_heads = c->n_heads;
	for (int i = 0; i < c->n_seqs; i++) {
		int length = c->shared + c->own + c->n_tokens;

		for (int b = 0; b <= (length - 1) / 16; b++)
			w->blocks[i][b] = b < c->shared / 16 ? b : next++;
		pieces[i] = (struct piece){i, c->shared + c->own, c->n_tokens};
		for (int p = c->shared + c->own; p < length; p++)
			flops += 4.0 * (double)width * (p + 1);
	}
	w->cache_bytes = cpu_kv_layer_bytes(&w->shape, next);
	w->k_cache = mem_pages_new(w->cache_bytes, NULL);
	w->v_cache = mem_pages_new(w->cache_bytes, NULL);
	for (size_t i = 0; i < w->cache_bytes / 2; i++) /* halves in 0.5 .. 1 and -1 .. -0.5 */
		((uint16_t *)w->k_cache)[i] = ((uint16_t *)w->v_cache)[i] = (uint16_t)((mix(i) & 0x83ff) | 0x3800);
	for (size_t i = 0; i < n_rows * width; i++)
		q[i] = float_of(i, 1);
	machine_open(&m, w, isa, threads);
	step_of(w, pieces, c->n_seqs, s);
	start = clock_seconds();
	for (int i = 0; i < 50 && (i < 3 || clock_seconds() - start < 0.3); i++) {
		double t0 = clock_seconds(), t1;

		cpu_attention_plan(m.a, &s->batch);
		t1 = clock_seconds();
		cpu_attend(m.a, q, w->k_cache, w->v_cache, 0.1f, 0, 0, out);
		plan = fmin(plan, t1 - t0);
		best = fmin(best, clock_seconds() - t1);
	}
	printf("  %-44s %8.1f us %7.1f GFLOP/s  %3.0f %%   plan %.1f us\n", c->name, best * 1e6, flops / best * 1e-9,
	       ceiling > 0 ? flops / best * 1e-7 / ceiling / threads : 0, plan * 1e6);
	machine_close(&m);
	mem_pages_free(w->k_cache, w->cache_bytes);
	mem_pages_free(w->v_cache, w->cache_bytes);
	free(out);
	free(q);
	free(s);
	free(w);
}

static void bench(const char *only_isa, int threads)
{
	for (int x = 0; x < N_ISAS; x++) {
		double ceiling;

		if (!isa_runs(isas[x]) || strcmp(only_isa ? only_isa : isas[x], isas[x]) != 0 || (!only_isa && strcmp(isas[x], "generic") == 0))
			continue;
		ceiling = ceiling_of(isas[x]);
		printf("%s, %d threads; register fma ceiling of one thread %.1f GFLOP/s (%% are of it times threads)\n", isas[x], threads, ceiling);
		for (size_t i = 0; i < sizeof(bench_cases) / sizeof(*bench_cases); i++)
			bench_one(&bench_cases[i], isas[x], threads, ceiling);
	}
}

/* test_attention [bench [isa|all [threads]]] */
int main(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], "bench") == 0) {
		bench(argc > 2 && strcmp(argv[2], "all") != 0 ? argv[2] : NULL, argc > 3 ? atoi(argv[3]) : workers_available_cpus());
		return 0;
	}
	RUN(refusals);
	RUN(store_rounding);
	RUN(rope_store);
	RUN(against_double);
	RUN(same_bits);
	RUN(odd_sharing);
	return TEST_RESULT();
}
