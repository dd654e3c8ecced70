/* kernels_attention.h: what kernels_attention.c gives attention.c, once per instruction set, and the plan it works from.
 *
 * The plan's rows are the batch's rows in an order in which equal prefixes are neighbours. A tile is a run of them; tile x kv head is the
 * unit of work. Within a tile each chunk of positions is covered by segments: rectangles of (rows) x (blocks) in which all rows have the
 * same physical blocks. A segment starts where the paths of the prefix tree part:
 *
 *     rows |  blocks of chunk 3 ->
 *       0  |  [ 70 71 72 73 74 | 80 81 .. ]     segments: rows 0..2 x blocks 0..4,
 *       1  |  [ 70 71 72 73 74 | 80 81 82 ]               rows 0..1 x blocks 5..6, row 1 x block 7,
 *       2  |  [ 70 71 72 73 74 | 93 ..... ]               row 2 x block 5
 *
 * A row is in the segments of those blocks only that hold a position up to its own, which also makes the staircase of a causal mask.
 */
#ifndef TOKENMILL_ENGINE_KERNELS_ATTENTION_H
#define TOKENMILL_ENGINE_KERNELS_ATTENTION_H

#include <stddef.h>
#include <stdint.h>

#include "engine/backend.h"
#include "engine/cpu/attention.h"

enum {
	ATTENTION_MAX_HEAD_DIM = 512,
	ATTENTION_TILE_QUERIES = 48, /* rows of a tile times heads per kv head; one row where a group has more heads */
	CHUNK_BLOCKS = ATTENTION_CHUNK / KV_BLOCK_TOKENS,
	/* Floats from one query to the next in scratch: constants, so that a kernel addresses all its queries from one register; not powers of
	 * two, so that they do not fall into the same cache sets. */
	QUERY_STRIDE = ATTENTION_MAX_HEAD_DIM + 16,
	SCORE_STRIDE = ATTENTION_CHUNK + 16,
};

struct attention_row {
	const int32_t *blocks; /* of its sequence */
	int32_t position;
	int32_t row; /* in the batch */
};
struct attention_segment {
	int32_t chunk;
	uint16_t row0, row1;    /* of the tile: row0 <= r < row1 */
	uint8_t block0, block1; /* of the chunk */
	uint8_t is_last;        /* no row of it has a block in this chunk after block1 */
};
struct attention_tile {
	int32_t first_row, n_rows;
	size_t first_segment, n_segments; /* in order of chunk, then depth first: block0 is 0 where another set of rows begins */
	int64_t cost;                     /* positions seen by all its rows */
};

/* One call of cpu_attend. */
struct attention_job {
	const float *q;
	const void *k_cache, *v_cache;
	float *out;
	float scale, softcap;
	int window;
	int n_heads, n_kv_heads, head_dim;
	enum kv_type type;
	const struct attention_row *rows;
	const struct attention_segment *segments;
};

/* A thread's own. Arrays over queries have room for n_queries rounded up to 16. */
struct attention_scratch {
	float *q;         /* [n_queries, QUERY_STRIDE] */
	float *out;       /* [n_queries, QUERY_STRIDE] unnormalised result so far */
	float *chunk_out; /* [n_queries, QUERY_STRIDE] the current chunk's */
	float *scores;    /* [n_queries, SCORE_STRIDE] of the current chunk; softmax weights after that */
	float *max, *sum, *chunk_max, *chunk_sum; /* [n_queries]; max -inf: nothing seen */
	float *old_factor, *new_factor;           /* [n_queries] out = out * old + chunk_out * new */
	int *first_seen, *end_seen;               /* [rows of a tile] positions of the chunk a row sees, from the chunk's start */
	int *folded;                              /* [n_queries] the chunk is in out already */
};

/* One call of cpu_rope_store. */
struct rope_job {
	float *q, *k;
	const float *v;
	const float *q_norm, *k_norm;
	float eps;
	int n_heads, n_kv_heads, head_dim;
	enum kv_type type;
	const struct rope *rope;
	float *cos_sin;   /* [n_rows, 2, rope dim / 2] of this step's rows */
	int has_cos_sin;  /* 0: the kernel fills it for its rows first */
	const int32_t *positions, *blocks; /* [n_rows] of the batch's rows: position, physical block */
	void *k_cache, *v_cache;
	int32_t n_rows;
};

struct attention_kernels {
	void (*attend)(const struct attention_job *j, const struct attention_tile *t, int kv_head, struct attention_scratch *s);
	void (*rope_store)(const struct rope_job *j, int32_t first_row, int32_t end_row);
};

extern const struct attention_kernels attention_kernels_generic;
#if defined(__x86_64__)
extern const struct attention_kernels attention_kernels_avx2;
extern const struct attention_kernels attention_kernels_avx512;
#endif

#endif
