/* gpu_attention.cu: rotary embedding with the store into the paged cache, and attention over it, for any head size and group.
 *
 * Attention is one kernel for prefill and decode. A block has one tile (rows of one sequence) and one kv head; its queries are
 * the tile's rows times the heads of the group. Keys and values pass through shared memory once for all of them:
 *
 *     for positions 0.., P at a time:   K tile -> scores, online softmax (lane = position)   [Milakov & Gimelshein 2018]
 *                                       V tile -> sums                   (lane = dimension)
 *
 * A query's arithmetic depends on its own positions alone: the steps are counted from position 0 (or are skipped whole where
 * its window has not begun), and what it must not see is not added, not even as zero times something. */
#include "engine/cuda/gpu_decode.cuh"
#include "engine/cuda/gpu_kernels.h"

enum { ATTEND_THREADS = 128, ATTEND_WARPS = 4, ROPE_THREADS = 64, TABLE_THREADS = 64 };

static __device__ inline void cache_store(void *cache, int kv_type, size_t i, float v)
{
	if (kv_type == GPU_KV_F32)
		((float *)cache)[i] = v;
	else
		((uint16_t *)cache)[i] = kv_type == GPU_KV_F16 ? gpu_f32_to_f16(v) : gpu_f32_to_bf16(v);
}

static __device__ inline float cache_load(const void *cache, int kv_type, size_t i)
{
	if (kv_type == GPU_KV_F32)
		return ((const float *)cache)[i];
	return kv_type == GPU_KV_F16 ? gpu_f16_to_f32(((const uint16_t *)cache)[i]) : gpu_bf16_to_f32(((const uint16_t *)cache)[i]);
}

/* ---- rotary embedding ---- */

/* The angle is rounded to f32 as in the reference implementations, its cosine is taken in double: f32 arguments reach 10^5. */
static __global__ void rope_table_kernel(const int32_t *positions, const float *inv_freq, int half, float factor,
                                         float *cos_sin)
{
	float *out = cos_sin + (size_t)blockIdx.x * 2 * (size_t)half;

	for (int i = (int)threadIdx.x; i < half; i += (int)blockDim.x) {
		double angle = (double)((float)positions[blockIdx.x] * inv_freq[i]);

		out[i] = (float)cos(angle) * factor;
		out[half + i] = (float)sin(angle) * factor;
	}
}

void gpu_rope_table(struct gpu *g, const int32_t *positions, int32_t n_rows, const float *inv_freq, int half, float factor,
                    float *cos_sin)
{
	if (n_rows > 0 && half > 0)
		gpu_launch(g, "rope_table", rope_table_kernel, dim3((unsigned)n_rows), TABLE_THREADS, 0, positions, inv_freq, half,
		           factor, cos_sin);
}

/* Element i of a rotated head. */
static __device__ inline float rotated(const float *head, const float *cos_sin, int dim, int interleaved, int i)
{
	int half = dim / 2, pair, second;
	float a, b;

	if (i >= dim)
		return head[i];
	pair = interleaved ? i / 2 : i % half;
	second = interleaved ? i & 1 : i >= half;
	a = head[interleaved ? 2 * pair : pair];
	b = head[interleaved ? 2 * pair + 1 : pair + half];
	return second ? fmaf(a, cos_sin[half + pair], b * cos_sin[pair]) : fmaf(-b, cos_sin[half + pair], a * cos_sin[pair]);
}

/* Block (row, head): the q heads, then the kv heads. */
static __global__ void rope_store_kernel(struct gpu_rope_store a)
{
	SHARED(float, head);
	const int dim = a.cache.head_dim, row = (int)blockIdx.x, is_key = (int)blockIdx.y >= a.n_heads;
	const int h = is_key ? (int)blockIdx.y - a.n_heads : (int)blockIdx.y;
	float *part = head + dim;
	float *x = is_key ? a.k + ((size_t)row * (size_t)a.cache.n_kv_heads + (size_t)h) * (size_t)dim
	                  : a.q + ((size_t)row * (size_t)a.n_heads + (size_t)h) * (size_t)dim;
	const float *norm = is_key ? a.k_norm : a.q_norm, *cos_sin = a.cos_sin + (size_t)row * (size_t)a.rope_dim;
	float sum = 0.0f, scale = 1.0f;

	for (int i = (int)threadIdx.x; i < dim; i += (int)blockDim.x) {
		head[i] = x[i];
		sum = fmaf(x[i], x[i], sum);
	}
	if (norm) {
		scale = 1.0f / sqrtf(block_sum(sum, part) / (float)dim + a.eps);
		for (int i = (int)threadIdx.x; i < dim; i += (int)blockDim.x)
			head[i] = head[i] * scale * norm[i];
	}
	__syncthreads();
	for (int i = (int)threadIdx.x; i < dim; i += (int)blockDim.x) {
		float v = rotated(head, cos_sin, a.rope_dim, a.interleaved, i);

		if (is_key) {
			int slot = a.slots[row];
			size_t at = (((size_t)(slot / GPU_BLOCK_TOKENS) * (size_t)a.cache.n_kv_heads + (size_t)h) * GPU_BLOCK_TOKENS +
			             (size_t)(slot % GPU_BLOCK_TOKENS)) *
			                (size_t)dim +
			            (size_t)i;

			cache_store(a.cache.k, a.cache.kv_type, at, v);
			cache_store(a.cache.v, a.cache.kv_type, at,
			            a.v[((size_t)row * (size_t)a.cache.n_kv_heads + (size_t)h) * (size_t)dim + (size_t)i]);
		} else {
			x[i] = v;
		}
	}
}

void gpu_rope_store_rows(struct gpu *g, const struct gpu_rope_store *a)
{
	dim3 grid((unsigned)a->n_rows, (unsigned)(a->n_heads + a->cache.n_kv_heads));
	size_t shared = ((size_t)a->cache.head_dim + ROPE_THREADS / 32) * sizeof(float);

	if (a->n_rows > 0)
		gpu_launch(g, "rope_store", rope_store_kernel, grid, ROPE_THREADS, shared, *a);
}

/* ---- attention ---- */

struct queries {                 /* of a block; in shared memory */
	float *q, *sum;              /* [n, head_dim] */
	float *tile;                 /* [P, head_dim + 1] keys, then values */
	float *p;                    /* [n, 32] */
	float *max, *total, *shrink; /* [n] */
};

/* Positions first .. first + n - 1 of one kv head. */
static __device__ inline void load_tile(const struct gpu_cache *c, const void *cache, const int32_t *blocks, int kv_head,
                                        int first, int n, float *tile)
{
	for (int i = (int)threadIdx.x; i < n * c->head_dim; i += (int)blockDim.x) {
		int t = i / c->head_dim, d = i % c->head_dim, position = first + t;
		size_t row =
		    ((size_t)blocks[position / GPU_BLOCK_TOKENS] * (size_t)c->n_kv_heads + (size_t)kv_head) * GPU_BLOCK_TOKENS +
		    (size_t)(position % GPU_BLOCK_TOKENS);

		tile[t * (c->head_dim + 1) + d] = cache_load(cache, c->kv_type, row * (size_t)c->head_dim + (size_t)d);
	}
}

/* Scores of query i against the K tile; lane = position. from, to: what it sees of the tile. */
static __device__ inline void score(const struct queries *s, const struct gpu_attend *a, int i, int from, int to, int lane)
{
	const int dim = a->cache.head_dim;
	const float *q = s->q + i * dim, *key = s->tile + lane * (dim + 1);
	float v = -INFINITY, max, p, shrink;

	if (lane >= from && lane < to) {
		float dot = 0.0f;

		for (int d = 0; d < dim; d++)
			dot = fmaf(q[d], key[d], dot);
		v = dot * a->scale;
		if (a->softcap != 0.0f)
			v = a->softcap * tanhf(v / a->softcap);
	}
	max = fmaxf(s->max[i], warp_max(v));
	p = lane >= from && lane < to ? expf(v - max) : 0.0f;
	shrink = expf(s->max[i] - max);
	v = warp_sum(p);
	s->p[i * 32 + lane] = p;
	__syncwarp();
	if (lane == 0) {
		s->total[i] = fmaf(s->total[i], shrink, v);
		s->max[i] = max;
		s->shrink[i] = shrink;
	}
	__syncwarp();
}

static __global__ void attend_kernel(struct gpu_attend a, int positions, int heads_per_part)
{
	SHARED(float, shared);
	const int dim = a.cache.head_dim, group = a.n_heads / a.cache.n_kv_heads, kv_head = (int)blockIdx.y;
	const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
	const struct gpu_tile tile = a.tiles[blockIdx.x];
	const int32_t *blocks = a.tables + tile.table;
	const int first_head = (int)blockIdx.z * heads_per_part;
	const int n_heads = group - first_head < heads_per_part ? group - first_head : heads_per_part, n = tile.n_rows * n_heads;
	const int last = tile.first_position + tile.n_rows - 1;
	int begin =
	    a.window > 0 && tile.first_position >= a.window ? (tile.first_position - a.window + 1) / positions * positions : 0;
	struct queries s;

	s.q = shared;
	s.sum = s.q + n * dim;
	s.tile = s.sum + n * dim;
	s.p = s.tile + positions * (dim + 1);
	s.max = s.p + n * 32;
	s.total = s.max + n;
	s.shrink = s.total + n;
	for (int i = (int)threadIdx.x; i < n * dim; i += (int)blockDim.x) {
		int row = tile.first_row + i / dim / n_heads, head = kv_head * group + first_head + i / dim % n_heads;

		s.q[i] = a.q[((size_t)row * (size_t)a.n_heads + (size_t)head) * (size_t)dim + (size_t)(i % dim)];
		s.sum[i] = 0.0f;
	}
	for (int i = (int)threadIdx.x; i < n; i += (int)blockDim.x) {
		s.max[i] = -INFINITY;
		s.total[i] = 0.0f;
	}
	for (int first = begin; first <= last; first += positions) {
		int have = last + 1 - first < positions ? last + 1 - first : positions;

		__syncthreads();
		load_tile(&a.cache, a.cache.k, blocks, kv_head, first, have, s.tile);
		__syncthreads();
		for (int i = warp; i < n; i += ATTEND_WARPS) {
			int own = tile.first_position + i / n_heads, to = own + 1 - first < have ? own + 1 - first : have;
			int from = a.window > 0 && own - a.window + 1 > first ? own - a.window + 1 - first : 0;

			if (from < to)
				score(&s, &a, i, from, to, lane);
		}
		__syncthreads();
		load_tile(&a.cache, a.cache.v, blocks, kv_head, first, have, s.tile);
		__syncthreads();
		for (int i = warp; i < n; i += ATTEND_WARPS) {
			int own = tile.first_position + i / n_heads, to = own + 1 - first < have ? own + 1 - first : have;
			int from = a.window > 0 && own - a.window + 1 > first ? own - a.window + 1 - first : 0;

			if (from >= to)
				continue;
			for (int d = lane; d < dim; d += 32) {
				float sum = s.sum[i * dim + d] * s.shrink[i];

				for (int t = from; t < to; t++)
					sum = fmaf(s.p[i * 32 + t], s.tile[t * (dim + 1) + d], sum);
				s.sum[i * dim + d] = sum;
			}
		}
	}
	__syncthreads();
	for (int i = (int)threadIdx.x; i < n * dim; i += (int)blockDim.x) {
		int row = tile.first_row + i / dim / n_heads, head = kv_head * group + first_head + i / dim % n_heads;

		a.out[((size_t)row * (size_t)a.n_heads + (size_t)head) * (size_t)dim + (size_t)(i % dim)] = s.sum[i] / s.total[i / dim];
	}
}

void gpu_attend_rows(struct gpu *g, const struct gpu_attend *a)
{
	int dim = a->cache.head_dim, group = a->n_heads / a->cache.n_kv_heads, queries = gpu_attend_queries(dim),
	    positions = gpu_attend_positions(dim);
	int heads_per_part = group < queries ? group : queries, n = gpu_tile_rows(dim, group) * heads_per_part;
	dim3 grid((unsigned)a->n_tiles, (unsigned)a->cache.n_kv_heads, (unsigned)((group + heads_per_part - 1) / heads_per_part));
	size_t shared = ((size_t)n * (size_t)(2 * dim + 32 + 3) + (size_t)positions * (size_t)(dim + 1)) * sizeof(float);

	if (a->n_tiles > 0)
		gpu_launch(g, "attend", attend_kernel, grid, ATTEND_THREADS, shared, *a, positions, heads_per_part);
}
