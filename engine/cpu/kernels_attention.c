/* kernels_attention.c: attention of one tile of rows and one kv head. Compiled once per instruction set.
 *
 * Two register-blocked products do the work. Scores: 16 keys of a block lie across the lanes, so for d = 0, 1, ...
 * scores[query][lane] = fma(q[query][d], K[d][lane], scores[query][lane]). Values: for positions in order, out[query][lane d] =
 * fma(p[query][position], V[position][lane d], out[query][lane d]). Every sum has one order, that of d or of the position; the shape of the
 * register block only decides how often keys, values and queries are loaded.
 */
#include "engine/cpu/kernels_attention.h"

#include <string.h>

#include "engine/cpu/vmath.h"

LANES_FN struct lanes_f load_kv(enum kv_type type, const char *p)
{
	if (type == KV_F16)
		return lanes_f_load_f16((const void *)p);
	if (type == KV_BF16)
		return lanes_f_load_bf16((const void *)p);
	return lanes_f_load((const void *)p);
}

LANES_FN size_t kv_element_bytes(enum kv_type type)
{
	return type == KV_F32 ? 4 : 2;
}

/* Most queries of a register block, and how many vectors (of keys, or along head_dim) go with n queries: as many sums as the
 * registers hold beside the operands, and enough of them to hide the latency of fma. */
#if defined(ISA_AVX512)
#define MAX_BLOCK_QUERIES 12
#define EACH_BLOCK(X, type)                                                                                                \
	X(type, 1, 4) X(type, 2, 4) X(type, 3, 4) X(type, 4, 4) X(type, 5, 4) X(type, 6, 4)                                    \
	X(type, 7, 2) X(type, 8, 2) X(type, 9, 2) X(type, 10, 2) X(type, 11, 2) X(type, 12, 2)
#define EACH_NARROW(X, type)                                                                                               \
	X(type, 1, 1) X(type, 2, 1) X(type, 3, 1) X(type, 4, 1) X(type, 5, 1) X(type, 6, 1)                                    \
	X(type, 7, 1) X(type, 8, 1) X(type, 9, 1) X(type, 10, 1) X(type, 11, 1) X(type, 12, 1)
static const unsigned char block_width[MAX_BLOCK_QUERIES + 1] = {0, 4, 4, 4, 4, 4, 4, 2, 2, 2, 2, 2, 2};
#elif defined(ISA_AVX2)
#define MAX_BLOCK_QUERIES 6
#define EACH_BLOCK(X, type) X(type, 1, 4) X(type, 2, 2) X(type, 3, 2)
#define EACH_NARROW(X, type) X(type, 1, 1) X(type, 2, 1) X(type, 3, 1) X(type, 4, 1) X(type, 5, 1) X(type, 6, 1)
static const unsigned char block_width[MAX_BLOCK_QUERIES + 1] = {0, 4, 2, 2, 1, 1, 1};
#else /* sums are in memory anyway */
#define MAX_BLOCK_QUERIES 2
#define EACH_BLOCK(X, type)
#define EACH_NARROW(X, type) X(type, 1, 1) X(type, 2, 1)
static const unsigned char block_width[MAX_BLOCK_QUERIES + 1] = {0, 1, 1};
#endif
#define MAX_WIDTH 4

/* Ask for one place of a block that will be read later: where few queries share a block, memory is what they wait for, and
 * blocks lie too far apart for the hardware to foresee. Into the second-level cache: the first holds queries and scores. */
LANES_FN void prefetch(const char *p)
{
	__builtin_prefetch(p, 0, 2);
}

/* q [n_queries, QUERY_STRIDE]; keys: n_blocks blocks [head_dim, 16]; scores [n_queries, SCORE_STRIDE] of the first block;
 * ahead: as many blocks to prefetch, or keys again */
typedef void (*scores_fn)(const float *q, const char *const *keys, const char *const *ahead, int head_dim, float *scores);

LANES_FN void block_scores(const enum kv_type type, const int n_queries, const int n_blocks, const float *q, const char *const *keys,
                           const char *const *ahead, int head_dim, float *scores)
{
	struct lanes_f sum[MAX_BLOCK_QUERIES][MAX_WIDTH], key[MAX_WIDTH], x;
	const char *from[MAX_WIDTH];
	ptrdiff_t apart[MAX_WIDTH];
	size_t step = LANES * kv_element_bytes(type);

#pragma GCC unroll 4
	for (int b = 0; b < n_blocks; b++) {
		from[b] = keys[b];
		apart[b] = (ptrdiff_t)((uintptr_t)ahead[b] - (uintptr_t)keys[b]);
	}
#pragma GCC unroll 12
	for (int t = 0; t < n_queries; t++)
#pragma GCC unroll 4
		for (int b = 0; b < n_blocks; b++)
			sum[t][b] = lanes_f_zero();
	for (int d0 = 0; d0 < head_dim; d0 += 2) {
#pragma GCC unroll 2
		for (int d = d0; d < d0 + 2; d++) {
#pragma GCC unroll 4
			for (int b = 0; b < n_blocks; b++) {
				const char *p = from[b] + (size_t)d * step;

				key[b] = load_kv(type, p);
				if (d == d0 || step == 64) /* once for each 64 bytes */
					prefetch((const char *)((uintptr_t)p + (uintptr_t)apart[b]));
			}
#pragma GCC unroll 12
			for (int t = 0; t < n_queries; t++) {
				x = lanes_f_set1(q[(size_t)t * QUERY_STRIDE + (size_t)d]);
#pragma GCC unroll 4
				for (int b = 0; b < n_blocks; b++)
					sum[t][b] = lanes_f_fma(x, key[b], sum[t][b]);
			}
		}
	}
#pragma GCC unroll 12
	for (int t = 0; t < n_queries; t++)
#pragma GCC unroll 4
		for (int b = 0; b < n_blocks; b++)
			lanes_f_store(scores + (size_t)t * SCORE_STRIDE + b * LANES, sum[t][b]);
}

/* One register block of out += weights x values. */
struct values_job {
	const float *weights;      /* [n_queries, SCORE_STRIDE] from the chunk's start */
	const char *const *values; /* blocks of the chunk, [16 positions, head_dim] */
	const char *const *ahead;  /* as many blocks to prefetch, or values again */
	int first, end;            /* positions of the chunk */
	int head_dim;
	int starts;                /* sums start at 0, not from chunk_out */
	int ends;                  /* sums are folded into out, not left in chunk_out */
	float *chunk_out, *out;    /* [n_queries, QUERY_STRIDE] */
	const float *old_factor, *new_factor; /* [n_queries] */
};
typedef void (*values_fn)(const struct values_job *j, int d); /* the vectors of 16 that start at element d */

LANES_FN void block_values(const enum kv_type type, const int n_queries, const int n_vectors, const struct values_job *j, int d)
{
	struct lanes_f sum[MAX_BLOCK_QUERIES][MAX_WIDTH], value[MAX_WIDTH], x;
	size_t bytes = kv_element_bytes(type), step = (size_t)j->head_dim * bytes;
	const float *weights = j->weights;
	int end = j->end;

#pragma GCC unroll 12
	for (int t = 0; t < n_queries; t++)
#pragma GCC unroll 4
		for (int b = 0; b < n_vectors; b++)
			sum[t][b] = lanes_f_zero();
	if (!j->starts) {
#pragma GCC unroll 12
		for (int t = 0; t < n_queries; t++)
#pragma GCC unroll 4
			for (int b = 0; b < n_vectors; b++)
				sum[t][b] = lanes_f_load(j->chunk_out + (size_t)t * QUERY_STRIDE + (size_t)(d + b * LANES));
	}
	for (int i = j->first; i < end;) {
		int stop = (i | (KV_BLOCK_TOKENS - 1)) + 1;
		size_t at = (size_t)(i % KV_BLOCK_TOKENS) * step + (size_t)d * bytes;
		const char *from = j->values[i / KV_BLOCK_TOKENS] + at;
		uintptr_t apart = (uintptr_t)j->ahead[i / KV_BLOCK_TOKENS] - (uintptr_t)j->values[i / KV_BLOCK_TOKENS];

		if (stop > end)
			stop = end;
		for (; i < stop; i++, from += step) {
#pragma GCC unroll 4
			for (int b = 0; b < n_vectors; b++)
				value[b] = load_kv(type, from + (size_t)b * LANES * bytes);
#pragma GCC unroll 4
			for (int b = 0; b < n_vectors; b += bytes == 2 ? 2 : 1)
				prefetch((const char *)((uintptr_t)from + apart + (size_t)b * LANES * bytes));
#pragma GCC unroll 12
			for (int t = 0; t < n_queries; t++) {
				x = lanes_f_set1(weights[(size_t)t * SCORE_STRIDE + (size_t)i]);
#pragma GCC unroll 4
				for (int b = 0; b < n_vectors; b++)
					sum[t][b] = lanes_f_fma(x, value[b], sum[t][b]);
			}
		}
	}
	if (!j->ends) {
#pragma GCC unroll 12
		for (int t = 0; t < n_queries; t++)
#pragma GCC unroll 4
			for (int b = 0; b < n_vectors; b++)
				lanes_f_store(j->chunk_out + (size_t)t * QUERY_STRIDE + (size_t)(d + b * LANES), sum[t][b]);
		return;
	}
#pragma GCC unroll 12
	for (int t = 0; t < n_queries; t++)
#pragma GCC unroll 4
		for (int b = 0; b < n_vectors; b++) {
			float *out = j->out + (size_t)t * QUERY_STRIDE + (size_t)(d + b * LANES);

			x = lanes_f_mul(lanes_f_load(out), lanes_f_set1(j->old_factor[t]));
			lanes_f_store(out, lanes_f_fma(sum[t][b], lanes_f_set1(j->new_factor[t]), x));
		}
}

#define DEFINE_BLOCK(type, n, width)                                                                                       \
	static void scores_##type##_##n##x##width(const float *q, const char *const *keys, const char *const *ahead, int head_dim, \
	                                          float *scores)                                                               \
	{                                                                                                                      \
		block_scores(type, n, width, q, keys, ahead, head_dim, scores);                                                    \
	}                                                                                                                      \
	static void values_##type##_##n##x##width(const struct values_job *j, int d)                                           \
	{                                                                                                                      \
		block_values(type, n, width, j, d);                                                                                \
	}
#define DEFINE_TYPE(type) EACH_BLOCK(DEFINE_BLOCK, type) EACH_NARROW(DEFINE_BLOCK, type)
DEFINE_TYPE(KV_F16)
DEFINE_TYPE(KV_BF16)
DEFINE_TYPE(KV_F32)

/* [type][queries][0: one vector, 1: block_width of them] */
#define SCORES_WIDE(type, n, width) [type][n][1] = scores_##type##_##n##x##width,
#define SCORES_NARROW(type, n, width) [type][n][0] = scores_##type##_##n##x##width,
#define VALUES_WIDE(type, n, width) [type][n][1] = values_##type##_##n##x##width,
#define VALUES_NARROW(type, n, width) [type][n][0] = values_##type##_##n##x##width,
#define EACH_TYPE(WIDE, NARROW)                                                                                            \
	EACH_BLOCK(WIDE, KV_F16) EACH_NARROW(NARROW, KV_F16) EACH_BLOCK(WIDE, KV_BF16) EACH_NARROW(NARROW, KV_BF16)           \
	EACH_BLOCK(WIDE, KV_F32) EACH_NARROW(NARROW, KV_F32)
static const scores_fn scores_fns[4][MAX_BLOCK_QUERIES + 1][2] = {EACH_TYPE(SCORES_WIDE, SCORES_NARROW)};
static const values_fn values_fns[4][MAX_BLOCK_QUERIES + 1][2] = {EACH_TYPE(VALUES_WIDE, VALUES_NARROW)};

/* Cut n queries into runs of about equal length: the length of the one that starts at t. */
static int run_length(int t, int n)
{
	int n_runs = (n - t + MAX_BLOCK_QUERIES - 1) / MAX_BLOCK_QUERIES;

	return (n - t + n_runs - 1) / n_runs;
}

/* Rows of a tile that begin a chunk with the same block, and the segments that cover them: computed to the end of the chunk before
 * the next bundle, so that scores and values do not travel through the caches. */
struct bundle {
	const struct attention_job *job;
	const struct attention_tile *tile;
	struct attention_scratch *s;
	int group;          /* heads per kv head */
	size_t kv_head;
	size_t block_bytes; /* of one kv head */
	const struct attention_segment *segments;
	size_t n_segments;
	const struct attention_segment *next; /* first segment of the bundle after this one; NULL: none */
};

/* Where the segment's blocks of this kv head lie, at their places in the chunk. */
static void find_blocks(const struct bundle *c, const struct attention_segment *g, const void *cache, const char *where[CHUNK_BLOCKS])
{
	const int32_t *blocks = c->job->rows[c->tile->first_row + g->row0].blocks + (size_t)g->chunk * CHUNK_BLOCKS;

	for (int b = g->block0; b < g->block1; b++)
		where[b] = (const char *)cache + ((size_t)blocks[b] * (size_t)c->job->n_kv_heads + c->kv_head) * c->block_bytes;
}

/* Positions of the segment that any of the rows first..end-1 of the tile sees. */
static void seen_by(const struct bundle *c, const struct attention_segment *g, int first, int end, int *from, int *to)
{
	int lo = ATTENTION_CHUNK, hi = 0;

	for (int r = first; r < end; r++) {
		lo = c->s->first_seen[r] < lo ? c->s->first_seen[r] : lo;
		hi = c->s->end_seen[r] > hi ? c->s->end_seen[r] : hi;
	}
	*from = lo > g->block0 * KV_BLOCK_TOKENS ? lo : g->block0 * KV_BLOCK_TOKENS;
	*to = hi < g->block1 * KV_BLOCK_TOKENS ? hi : g->block1 * KV_BLOCK_TOKENS;
}

static void segment_scores(const struct bundle *c, const struct attention_segment *g)
{
	const scores_fn(*fns)[2] = scores_fns[c->job->type];
	const char *keys[CHUNK_BLOCKS], *values[CHUNK_BLOCKS];
	int first = g->row0 * c->group, end = g->row1 * c->group, from, to, n, n_blocks, width;

	seen_by(c, g, g->row0, g->row1, &from, &to);
	if (from >= to)
		return;
	find_blocks(c, g, c->job->k_cache, keys);
	find_blocks(c, g, c->job->v_cache, values);
	for (int t = first; t < end; t += n) {
		n = run_length(t, end);
		width = block_width[n];
		for (int b = from / KV_BLOCK_TOKENS; b * KV_BLOCK_TOKENS < to; b += n_blocks) {
			n_blocks = (b + width) * KV_BLOCK_TOKENS <= g->block1 * KV_BLOCK_TOKENS ? width : 1;
			fns[n][n_blocks > 1](c->s->q + (size_t)t * QUERY_STRIDE, keys + b, (t == first ? values : keys) + b,
			                     c->job->head_dim, c->s->scores + (size_t)t * SCORE_STRIDE + (size_t)b * LANES);
		}
	}
}

static void segment_values(const struct bundle *c, const struct attention_segment *g)
{
	const values_fn(*fns)[2] = values_fns[c->job->type];
	const char *values[CHUNK_BLOCKS] = {0}, *ahead[CHUNK_BLOCKS];
	struct attention_scratch *s = c->s;
	struct values_job j = {.values = values, .ahead = ahead, .head_dim = c->job->head_dim, .starts = g->block0 == 0};
	int first = g->row0 * c->group, end = g->row1 * c->group, n, n_vectors, width;

	find_blocks(c, g, c->job->v_cache, values);
	memcpy(ahead, values, sizeof(ahead));
	if (c->next && g->row0 == c->segments[0].row0)
		find_blocks(c, c->next, c->job->k_cache, ahead);
	for (int t = first; t < end; t += n) {
		int row0 = t / c->group, row1;

		n = run_length(t, end);
		row1 = (t + n - 1) / c->group + 1;
		width = block_width[n];
		seen_by(c, g, row0, row1, &j.first, &j.end);
		/* Rows that see nothing of the chunk must keep their state to the bit: then no row is folded here. */
		j.ends = g->is_last;
		for (int r = row0; r < row1; r++)
			j.ends &= s->first_seen[r] < s->end_seen[r];
		for (int k = t; k < t + n; k++)
			s->folded[k] = j.ends;
		j.weights = s->scores + (size_t)t * SCORE_STRIDE;
		j.chunk_out = s->chunk_out + (size_t)t * QUERY_STRIDE;
		j.out = s->out + (size_t)t * QUERY_STRIDE;
		j.old_factor = s->old_factor + t;
		j.new_factor = s->new_factor + t;
		for (int d = 0; d < j.head_dim; d += n_vectors * LANES) {
			n_vectors = d + width * LANES <= j.head_dim ? width : 1;
			fns[n][n_vectors > 1](&j, d);
		}
		j.ahead = values;
	}
}

static const float lane_numbers[LANES] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

/* Scores of positions first..end-1 become exp(score - max), all others 0; max and sum of the chunk for query t. */
static void softmax(const struct attention_job *j, struct attention_scratch *s, int t, int first, int end)
{
	const struct lanes_f minus_inf = lanes_f_set1(-INFINITY), lane = lanes_f_load(lane_numbers), scale = lanes_f_set1(j->scale);
	const struct lanes_f cap = lanes_f_set1(j->softcap);
	struct lanes_f max = minus_inf, sum = lanes_f_zero(), x;
	float *scores = s->scores + (size_t)t * SCORE_STRIDE;
	int v0 = first / LANES * LANES;

	for (int v = v0; v < end; v += LANES) {
		x = lanes_f_mul(lanes_f_load(scores + v), scale);
		if (j->softcap > 0)
			x = lanes_f_mul(cap, vmath_tanh(lanes_f_div(x, cap)));
		if (v + LANES > end)
			x = lanes_f_if_less(lane, lanes_f_set1((float)(end - v)), x, minus_inf);
		if (v < first)
			x = lanes_f_if_less(lane, lanes_f_set1((float)(first - v)), minus_inf, x);
		lanes_f_store(scores + v, x);
		max = lanes_f_max(x, max);
	}
	s->chunk_max[t] = lanes_f_max_over(max);
	max = lanes_f_set1(s->chunk_max[t]);
	for (int v = 0; v < v0; v += LANES)
		lanes_f_store(scores + v, lanes_f_zero());
	for (int v = v0; v < ATTENTION_CHUNK; v += LANES) {
		x = lanes_f_zero();
		if (v < end) {
			x = vmath_exp_small(lanes_f_sub(lanes_f_load(scores + v), max));
			sum = lanes_f_add(sum, x);
		}
		lanes_f_store(scores + v, x);
	}
	s->chunk_sum[t] = lanes_f_sum(sum);
}

/* The same for a whole chunk without a cap, which is nearly all of them: scores stay in registers. */
static void softmax_whole(const struct attention_job *j, struct attention_scratch *s, int t)
{
	const struct lanes_f scale = lanes_f_set1(j->scale);
	struct lanes_f x[CHUNK_BLOCKS], max = lanes_f_set1(-INFINITY), sum = lanes_f_zero();
	float *scores = s->scores + (size_t)t * SCORE_STRIDE;

#pragma GCC unroll 8
	for (int v = 0; v < CHUNK_BLOCKS; v++) {
		x[v] = lanes_f_mul(lanes_f_load(scores + v * LANES), scale);
		max = lanes_f_max(x[v], max);
	}
	s->chunk_max[t] = lanes_f_max_over(max);
	max = lanes_f_set1(s->chunk_max[t]);
#pragma GCC unroll 8
	for (int v = 0; v < CHUNK_BLOCKS; v++) {
		x[v] = vmath_exp_small(lanes_f_sub(x[v], max));
		sum = lanes_f_add(sum, x[v]);
		lanes_f_store(scores + v * LANES, x[v]);
	}
	s->chunk_sum[t] = lanes_f_sum(sum);
}

/* Fold the chunk's max and sum into the running ones, and find the factors with which its values will follow. A query that saw
 * nothing of the chunk (chunk_max -inf) stays as it is. */
static void fold_sums(struct attention_scratch *s, int first, int end)
{
	const struct lanes_f minus_inf = lanes_f_set1(-INFINITY);

	for (int t = first; t < end; t += LANES) {
		int n = end - t < LANES ? end - t : LANES; /* of the others the chunk's part is not there yet */
		struct lanes_f m = lanes_f_load(s->max + t), cm = lanes_f_load(s->chunk_max + t), both = lanes_f_max(m, cm);
		struct lanes_f a = vmath_exp_small(lanes_f_sub(m, both)), b = vmath_exp_small(lanes_f_sub(cm, both));

		both = lanes_f_if_less(minus_inf, cm, both, m);
		a = lanes_f_if_less(minus_inf, cm, a, lanes_f_set1(1));
		b = lanes_f_if_less(minus_inf, cm, b, lanes_f_zero());
		lanes_f_store_n(s->max + t, both, n);
		lanes_f_store_n(s->sum + t, lanes_f_fma(lanes_f_load(s->chunk_sum + t), b, lanes_f_mul(lanes_f_load(s->sum + t), a)), n);
		lanes_f_store_n(s->old_factor + t, a, n);
		lanes_f_store_n(s->new_factor + t, b, n);
	}
}

/* The values of query t, where segment_values has not done so. */
static void fold_values(struct attention_scratch *s, int t, int head_dim)
{
	struct lanes_f a = lanes_f_set1(s->old_factor[t]), b = lanes_f_set1(s->new_factor[t]);
	float *out = s->out + (size_t)t * QUERY_STRIDE;
	const float *chunk_out = s->chunk_out + (size_t)t * QUERY_STRIDE;

	for (int d = 0; d < head_dim; d += LANES)
		lanes_f_store(out + d, lanes_f_fma(lanes_f_load(chunk_out + d), b, lanes_f_mul(lanes_f_load(out + d), a)));
}

/* Which positions of the chunk each row sees. 0: none of the rows sees any. */
static int find_seen(const struct bundle *c)
{
	int any = 0;

	for (int r = c->segments[0].row0; r < c->segments[0].row1; r++) {
		int64_t position = c->job->rows[c->tile->first_row + r].position, start = (int64_t)c->segments[0].chunk * ATTENTION_CHUNK;
		int64_t end = position + 1 - start, first = c->job->window > 0 ? position - c->job->window + 1 - start : 0;

		end = end > ATTENTION_CHUNK ? ATTENTION_CHUNK : end;
		first = first < 0 ? 0 : first;
		if (first >= end)
			first = ATTENTION_CHUNK, end = 0;
		else
			any = 1;
		c->s->first_seen[r] = (int)first;
		c->s->end_seen[r] = (int)end;
	}
	return any;
}

static void attend_bundle(const struct bundle *c)
{
	struct attention_scratch *s = c->s;
	int first_query = c->segments[0].row0 * c->group, end_query = c->segments[0].row1 * c->group;

	if (!find_seen(c))
		return;
	for (size_t i = 0; i < c->n_segments; i++)
		segment_scores(c, &c->segments[i]);
	for (int t = first_query; t < end_query; t++) {
		int first = s->first_seen[t / c->group], end = s->end_seen[t / c->group];

		s->chunk_max[t] = -INFINITY;
		s->chunk_sum[t] = 0;
		if (first == 0 && end == ATTENTION_CHUNK && !(c->job->softcap > 0))
			softmax_whole(c->job, s, t);
		else if (first < end)
			softmax(c->job, s, t, first, end);
	}
	fold_sums(s, first_query, end_query);
	for (size_t i = 0; i < c->n_segments; i++)
		segment_values(c, &c->segments[i]);
	for (int t = first_query; t < end_query; t++)
		if (!s->folded[t] && s->first_seen[t / c->group] < s->end_seen[t / c->group])
			fold_values(s, t, c->job->head_dim);
}

static void attend(const struct attention_job *j, const struct attention_tile *tile, int kv_head, struct attention_scratch *s)
{
	int group = j->n_heads / j->n_kv_heads, n_queries = tile->n_rows * group;
	size_t head_dim = (size_t)j->head_dim, row_floats = (size_t)j->n_heads * head_dim;
	const struct attention_segment *segments = j->segments + tile->first_segment;
	struct bundle c = {.job = j, .tile = tile, .s = s, .group = group, .kv_head = (size_t)kv_head};

	c.block_bytes = KV_BLOCK_TOKENS * head_dim * kv_element_bytes(j->type);
	for (int t = 0; t < n_queries; t++) {
		size_t head = (size_t)kv_head * (size_t)group + (size_t)(t % group);

		memcpy(s->q + (size_t)t * QUERY_STRIDE, j->q + (size_t)j->rows[tile->first_row + t / group].row * row_floats + head * head_dim,
		       head_dim * sizeof(float));
		memset(s->out + (size_t)t * QUERY_STRIDE, 0, (head_dim + LANES - 1) / LANES * LANES * sizeof(float));
		s->max[t] = -INFINITY;
		s->sum[t] = 0;
	}
	for (size_t i = 0; i < tile->n_segments; i += c.n_segments) {
		c.segments = segments + i;
		c.n_segments = 1;
		while (i + c.n_segments < tile->n_segments && c.segments[c.n_segments].block0 > 0)
			c.n_segments++;
		c.next = i + c.n_segments < tile->n_segments ? c.segments + c.n_segments : NULL;
		attend_bundle(&c);
	}
	for (int t = 0; t < n_queries; t++) {
		size_t head = (size_t)kv_head * (size_t)group + (size_t)(t % group);
		float *out = j->out + (size_t)j->rows[tile->first_row + t / group].row * row_floats + head * head_dim;
		const float *from = s->out + (size_t)t * QUERY_STRIDE;
		struct lanes_f sum = lanes_f_set1(s->sum[t]);
		size_t d = 0;

		for (; d + LANES <= head_dim; d += LANES)
			lanes_f_store(out + d, lanes_f_div(lanes_f_load(from + d), sum));
		if (d < head_dim)
			lanes_f_store_n(out + d, lanes_f_div(lanes_f_load(from + d), sum), (int)(head_dim - d));
	}
}

/* cos and sin of a row's angles as transformers computes them: the angle is a float product; the functions are taken in double, which
 * rounds to the correct float but for one case in 10^8. */
static void fill_cos_sin(const struct rope *rope, int32_t position, float *cos_sin)
{
	int half = rope->dim / 2;

	for (int i = 0; i < half; i++) {
		float angle = (float)position * rope->inv_freq[i];

		cos_sin[i] = (float)cos((double)angle) * rope->attention_factor;
		cos_sin[half + i] = (float)sin((double)angle) * rope->attention_factor;
	}
}

static void norm_head(float *x, const float *w, float eps, int head_dim)
{
	struct lanes_f sum = lanes_f_zero(), v;
	float scale;
	int d;

	for (d = 0; d + LANES <= head_dim; d += LANES) {
		v = lanes_f_load(x + d);
		sum = lanes_f_fma(v, v, sum);
	}
	if (d < head_dim) {
		v = lanes_f_load_n(x + d, head_dim - d);
		sum = lanes_f_fma(v, v, sum);
	}
	scale = 1.0f / sqrtf(lanes_f_sum(sum) / (float)head_dim + eps);
	for (d = 0; d < head_dim; d++)
		x[d] = x[d] * scale * w[d];
}

static void rotate_head(float *x, const struct rope *rope, const float *cos_sin)
{
	int half = rope->dim / 2;
	const float *c = cos_sin, *s = cos_sin + half;

	if (rope->interleaved) {
		for (int i = 0; i < half; i++) {
			float a = x[2 * i], b = x[2 * i + 1];

			x[2 * i] = a * c[i] - b * s[i];
			x[2 * i + 1] = b * c[i] + a * s[i];
		}
	} else {
		for (int i = 0; i < half; i++) {
			float a = x[i], b = x[i + half];

			x[i] = a * c[i] - b * s[i];
			x[i + half] = b * c[i] + a * s[i];
		}
	}
}

/* The largest half is 65504. Beyond it a value would be infinite, and 0 times it (a position that a neighbour in the same tile does not
 * see) not 0: it is kept at the edge instead. */
static void convert(enum kv_type type, const float *x, int n, uint16_t *out)
{
	const struct lanes_f most = lanes_f_set1(65504), least = lanes_f_set1(-65504);

	for (int d = 0; d < n; d += LANES) {
		struct lanes_f v = lanes_f_load_n(x + d, n - d < LANES ? n - d : LANES);

		if (type == KV_F16)
			lanes_f_store_f16(out + d, lanes_f_min(most, lanes_f_max(least, v)));
		else
			lanes_f_store_bf16(out + d, v);
	}
}

static void store_head(const struct rope_job *j, int32_t row, int head, const float *k, const float *v)
{
	size_t head_dim = (size_t)j->head_dim, place = (size_t)j->positions[row] % KV_BLOCK_TOKENS;
	size_t block = ((size_t)j->blocks[row] * (size_t)j->n_kv_heads + (size_t)head) * head_dim * KV_BLOCK_TOKENS;

	if (j->type == KV_F32) {
		float *keys = (float *)j->k_cache + block + place;

		for (size_t d = 0; d < head_dim; d++)
			keys[d * KV_BLOCK_TOKENS] = k[d];
		memcpy((float *)j->v_cache + block + place * head_dim, v, head_dim * sizeof(float));
	} else {
		uint16_t *keys = (uint16_t *)j->k_cache + block + place, half[ATTENTION_MAX_HEAD_DIM + LANES];

		convert(j->type, k, j->head_dim, half);
		for (size_t d = 0; d < head_dim; d++)
			keys[d * KV_BLOCK_TOKENS] = half[d];
		convert(j->type, v, j->head_dim, half);
		memcpy((uint16_t *)j->v_cache + block + place * head_dim, half, head_dim * sizeof(uint16_t));
	}
}

static void rope_store(const struct rope_job *j, int32_t first_row, int32_t end_row)
{
	size_t head_dim = (size_t)j->head_dim;

	for (int32_t row = first_row; row < end_row; row++) {
		float *cos_sin = j->cos_sin + (size_t)row * (size_t)j->rope->dim;

		if (!j->has_cos_sin)
			fill_cos_sin(j->rope, j->positions[row], cos_sin);
		for (int h = 0; h < j->n_heads; h++) {
			float *q = j->q + ((size_t)row * (size_t)j->n_heads + (size_t)h) * head_dim;

			if (j->q_norm)
				norm_head(q, j->q_norm, j->eps, j->head_dim);
			rotate_head(q, j->rope, cos_sin);
		}
		for (int h = 0; h < j->n_kv_heads; h++) {
			size_t at = ((size_t)row * (size_t)j->n_kv_heads + (size_t)h) * head_dim;

			if (j->k_norm)
				norm_head(j->k + at, j->k_norm, j->eps, j->head_dim);
			rotate_head(j->k + at, j->rope, cos_sin);
			store_head(j, row, h, j->k + at, j->v + at);
		}
	}
}

const struct attention_kernels ISA_SYMBOL(attention_kernels) = {attend, rope_store};
