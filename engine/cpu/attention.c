/* attention.c: the plan of a step (which rows share which blocks) and its execution over the threads. The arithmetic is in
 * kernels_attention.c; kernels_attention.h pictures tiles and segments. */
#include "engine/cpu/attention.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/cpu/kernels_attention.h"

enum {
	NO_BLOCK = -1,
	/* Tiles get smaller, down to this many queries, until there are this many units of work for each thread. */
	LEAST_TILE_QUERIES = 12,
	UNITS_PER_THREAD = 4,
	N_ROPES = 2, /* models have at most two: global and sliding layers */
};

/* cos and sin of this step's positions under one rope. */
struct rope_table {
	const struct rope *rope; /* NULL: free; compared, never followed after the step */
	float *cos_sin;          /* [max_rows, 2, rope dim / 2] */
};

struct cpu_attention {
	struct workers *workers;
	const struct attention_kernels *kernels;
	int n_heads, n_kv_heads, head_dim;
	enum kv_type type;
	int32_t max_rows;

	/* The plan. */
	int32_t n_rows;
	struct attention_row *rows;  /* [max_rows] sorted */
	int32_t *order;              /* [max_rows] sequences, sorted */
	int32_t *positions, *blocks; /* [max_rows] of the batch's rows: position, physical block */
	struct attention_tile *tiles; /* [max_rows] most expensive first */
	int32_t n_tiles;
	struct attention_segment *segments;
	size_t n_segments, cap_segments;
	struct rope_table ropes[N_ROPES];
	int next_rope;

	struct attention_scratch *scratch; /* [threads] */
	char *memory;                      /* of all scratch */
	size_t memory_bytes;
	struct work_counter counter;
};

static const struct attention_kernels *kernels_of(const char *isa)
{
#if defined(__x86_64__)
	if (strcmp(isa, "avx512") == 0)
		return &attention_kernels_avx512;
	if (strcmp(isa, "avx2") == 0)
		return &attention_kernels_avx2;
#endif
	return &attention_kernels_generic;
}

static int check_shape(int n_heads, int n_kv_heads, int head_dim, int32_t max_rows, enum kv_type type, struct err *err)
{
	if (n_kv_heads < 1 || n_heads < 1 || n_heads % n_kv_heads != 0)
		return err_set(err, ERR_MODEL, "%d attention heads cannot share %d key/value heads evenly", n_heads, n_kv_heads);
	if (head_dim < 8 || head_dim % 8 != 0 || head_dim > ATTENTION_MAX_HEAD_DIM)
		return err_set(err, ERR_MODEL, "attention heads of %d elements are not supported: must be a multiple of 8 up to %d", head_dim,
		               ATTENTION_MAX_HEAD_DIM);
	if (max_rows < 1)
		return err_set(err, ERR_USAGE, "a batch of %d tokens is not possible", max_rows);
	if (type != KV_F16 && type != KV_BF16 && type != KV_F32)
		return err_set(err, ERR_USAGE, "the processor has no key/value cache of type %d", type);
	return 0;
}

/* Lay the threads' scratch out in memory that starts at p; NULL counts only. Returns the bytes. */
static size_t place_scratch(struct cpu_attention *a, char *p)
{
	size_t at = 0, n = (size_t)(a->n_heads / a->n_kv_heads);

	n = n > ATTENTION_TILE_QUERIES ? n : ATTENTION_TILE_QUERIES;
	n = (n + 15) / 16 * 16;
	for (int i = 0; i < workers_count(a->workers); i++) {
		struct attention_scratch *s = &a->scratch[i];
		float **arrays[] = {&s->q,         &s->out,       &s->chunk_out,  &s->scores,    &s->max, &s->sum,
		                    &s->chunk_max, &s->chunk_sum, &s->old_factor, &s->new_factor};
		size_t widths[] = {QUERY_STRIDE, QUERY_STRIDE, QUERY_STRIDE, SCORE_STRIDE, 1, 1, 1, 1, 1, 1};
		int **of_rows[] = {&s->first_seen, &s->end_seen, &s->folded};

		for (size_t k = 0; k < sizeof(arrays) / sizeof(*arrays); k++) {
			*arrays[k] = p ? (float *)(p + at) : NULL;
			at += n * widths[k] * sizeof(float);
		}
		for (size_t k = 0; k < sizeof(of_rows) / sizeof(*of_rows); k++) {
			*of_rows[k] = p ? (int *)(p + at) : NULL;
			at += n * sizeof(int);
		}
	}
	return at;
}

struct cpu_attention *cpu_attention_new(struct workers *w, const char *isa, int n_heads, int n_kv_heads, int head_dim, int32_t max_rows,
                                        enum kv_type type, struct err *err)
{
	struct cpu_attention *a;
	size_t n = (size_t)(max_rows > 0 ? max_rows : 0);

	if (check_shape(n_heads, n_kv_heads, head_dim, max_rows, type, err) != 0)
		return NULL;
	a = aligned_alloc(64, (sizeof(*a) + 63) / 64 * 64);
	if (!a) {
		err_set(err, ERR_ENGINE, "out of memory");
		return NULL;
	}
	*a = (struct cpu_attention){.workers = w, .kernels = kernels_of(isa), .n_heads = n_heads, .n_kv_heads = n_kv_heads,
	                            .head_dim = head_dim, .type = type, .max_rows = max_rows};
	a->rows = xcalloc(n, sizeof(*a->rows));
	a->order = xcalloc(n, sizeof(*a->order));
	a->positions = xcalloc(n, sizeof(*a->positions));
	a->blocks = xcalloc(n, sizeof(*a->blocks));
	a->tiles = xcalloc(n, sizeof(*a->tiles));
	for (int i = 0; i < N_ROPES; i++)
		a->ropes[i].cos_sin = xcalloc(n * (size_t)head_dim, sizeof(float));
	a->scratch = xcalloc((size_t)workers_count(w), sizeof(*a->scratch));
	a->memory_bytes = place_scratch(a, NULL);
	a->memory = mem_pages_new(a->memory_bytes, err);
	if (!a->memory) {
		cpu_attention_free(a);
		return NULL;
	}
	place_scratch(a, a->memory);
	return a;
}

void cpu_attention_free(struct cpu_attention *a)
{
	if (!a)
		return;
	if (a->memory)
		mem_pages_free(a->memory, a->memory_bytes);
	for (int i = 0; i < N_ROPES; i++)
		free(a->ropes[i].cos_sin);
	free(a->scratch);
	free(a->segments);
	free(a->tiles);
	free(a->blocks);
	free(a->positions);
	free(a->order);
	free(a->rows);
	free(a);
}

size_t cpu_kv_layer_bytes(const struct kv_shape *s, int32_t n_blocks)
{
	size_t element = s->type == KV_F32 ? 4 : 2;
	size_t bytes = (size_t)n_blocks * (size_t)s->n_kv_heads * (size_t)s->head_dim * KV_BLOCK_TOKENS * element;

	/* Values are read in vectors of 16: the last one of the last position may reach 8 elements too far. */
	return s->head_dim % 16 == 0 ? bytes : bytes + 64;
}

/* Blocks that hold positions up to and including this one. */
static int32_t blocks_up_to(int32_t position)
{
	return position / KV_BLOCK_TOKENS + 1;
}

/* Order of block ids from position 0, as words in a dictionary: what shares a prefix becomes neighbours. */
static int compare_seqs(const void *x, const void *y, void *arg)
{
	const struct batch *batch = arg;
	int32_t i = *(const int32_t *)x, k = *(const int32_t *)y;
	const struct batch_seq *a = &batch->seqs[i], *b = &batch->seqs[k];
	int32_t n_a = blocks_up_to(a->first_position + a->n_tokens - 1), n_b = blocks_up_to(b->first_position + b->n_tokens - 1);

	for (int32_t n = 0; n < n_a && n < n_b; n++)
		if (a->blocks[n] != b->blocks[n])
			return a->blocks[n] < b->blocks[n] ? -1 : 1;
	if (n_a != n_b)
		return n_a < n_b ? -1 : 1;
	return i < k ? -1 : i > k;
}

static void order_rows(struct cpu_attention *a, const struct batch *batch)
{
	int32_t n = 0;

	if (batch->n_tokens > a->max_rows || batch->n_seqs > batch->n_tokens)
		BUG("%d sequences with %d tokens in a batch made for %d", batch->n_seqs, batch->n_tokens, a->max_rows);
	for (int32_t i = 0; i < batch->n_seqs; i++)
		a->order[i] = i;
	qsort_r(a->order, (size_t)batch->n_seqs, sizeof(*a->order), compare_seqs, (void *)(uintptr_t)batch);
	for (int32_t i = 0; i < batch->n_seqs; i++) {
		const struct batch_seq *s = &batch->seqs[a->order[i]];

		for (int32_t k = 0; k < s->n_tokens; k++) {
			int32_t row = s->first_row + k, position = s->first_position + k;

			if (n == batch->n_tokens || row >= batch->n_tokens)
				BUG("sequence %d reaches row %d of %d", a->order[i], row, batch->n_tokens);
			a->rows[n++] = (struct attention_row){s->blocks, position, row};
			a->positions[row] = position;
			a->blocks[row] = s->blocks[position / KV_BLOCK_TOKENS];
		}
	}
	a->n_rows = n;
}

static int32_t block_of(const struct attention_row *r, int32_t block)
{
	return block < blocks_up_to(r->position) ? r->blocks[block] : NO_BLOCK;
}

/* How many rows from r on, up to end, have the same block there as r. */
static int rows_alike(const struct attention_row *rows, int r, int end, int32_t block)
{
	int32_t id = block_of(&rows[r], block);
	int n = 1;

	while (r + n < end && block_of(&rows[r + n], block) == id)
		n++;
	return n;
}

/* Cover blocks b.. of the chunk for the rows r..end-1 of the tile. */
static void cut_chunk(struct cpu_attention *a, const struct attention_row *rows, int r, int end, int32_t chunk, int b)
{
	int32_t start = chunk * CHUNK_BLOCKS;
	int n, stop, is_last;

	for (; r < end; r += n) {
		n = rows_alike(rows, r, end, start + b);
		if (block_of(&rows[r], start + b) == NO_BLOCK)
			continue;
		stop = b + 1;
		while (stop < CHUNK_BLOCKS && block_of(&rows[r], start + stop) != NO_BLOCK && rows_alike(rows, r, r + n, start + stop) == n)
			stop++;
		MEM_GROW(a->segments, a->cap_segments, a->n_segments + 1);
		is_last = stop == CHUNK_BLOCKS || (block_of(&rows[r], start + stop) == NO_BLOCK && rows_alike(rows, r, r + n, start + stop) == n);
		a->segments[a->n_segments++] = (struct attention_segment){chunk,         (uint16_t)r,       (uint16_t)(r + n),
		                                                          (uint8_t)b, (uint8_t)stop, (uint8_t)is_last};
		if (!is_last)
			cut_chunk(a, rows, r, r + n, chunk, stop);
	}
}

static void cut_tile(struct cpu_attention *a, struct attention_tile *t)
{
	const struct attention_row *rows = a->rows + t->first_row;
	int32_t last = 0;

	t->cost = 0;
	for (int32_t r = 0; r < t->n_rows; r++) {
		t->cost += rows[r].position + 1;
		last = rows[r].position > last ? rows[r].position : last;
	}
	t->first_segment = a->n_segments;
	for (int32_t chunk = 0; chunk <= last / ATTENTION_CHUNK; chunk++)
		cut_chunk(a, rows, 0, t->n_rows, chunk, 0);
	t->n_segments = a->n_segments - t->first_segment;
}

/* The most expensive first: the last units to be taken are then small, and the threads end together. */
static int compare_tiles(const void *x, const void *y)
{
	const struct attention_tile *a = x, *b = y;

	if (a->cost != b->cost)
		return a->cost > b->cost ? -1 : 1;
	return a->first_row < b->first_row ? -1 : 1;
}

void cpu_attention_plan(struct cpu_attention *a, const struct batch *batch)
{
	int group = a->n_heads / a->n_kv_heads;
	int64_t most = ATTENTION_TILE_QUERIES / group, least = (LEAST_TILE_QUERIES + group - 1) / group, rows;

	order_rows(a, batch);
	rows = (int64_t)a->n_rows * a->n_kv_heads / ((int64_t)UNITS_PER_THREAD * workers_count(a->workers));
	rows = rows < least ? least : rows;
	rows = rows > most ? most : rows;
	rows = rows < 1 ? 1 : rows;
	a->n_tiles = (int32_t)((a->n_rows + rows - 1) / rows);
	a->n_segments = 0;
	for (int32_t i = 0; i < a->n_tiles; i++) {
		struct attention_tile *t = &a->tiles[i];

		t->first_row = (int32_t)((int64_t)a->n_rows * i / a->n_tiles);
		t->n_rows = (int32_t)((int64_t)a->n_rows * (i + 1) / a->n_tiles) - t->first_row;
		cut_tile(a, t);
	}
	qsort(a->tiles, (size_t)a->n_tiles, sizeof(*a->tiles), compare_tiles);
	for (int i = 0; i < N_ROPES; i++)
		a->ropes[i].rope = NULL;
	a->next_rope = 0;
}

struct rope_run {
	const struct attention_kernels *kernels;
	struct rope_job job;
};

static void rope_share(void *arg, int thread, int n_threads)
{
	const struct rope_run *r = arg;
	int64_t n = r->job.n_rows;

	r->kernels->rope_store(&r->job, (int32_t)(n * thread / n_threads), (int32_t)(n * (thread + 1) / n_threads));
}

void cpu_rope_store(struct cpu_attention *a, const struct batch *batch, float *q, float *k, const float *v, const float *q_norm,
                    const float *k_norm, float eps, const struct rope *rope, void *k_cache, void *v_cache)
{
	struct rope_run r = {a->kernels, {q, k, v, q_norm, k_norm, eps, a->n_heads, a->n_kv_heads, a->head_dim, a->type, rope, NULL, 0,
	                                  a->positions, a->blocks, k_cache, v_cache, batch->n_tokens}};
	struct rope_table *table = NULL;

	if (rope->dim < 0 || rope->dim % 2 != 0 || rope->dim > a->head_dim)
		BUG("rotation of %d elements in a head of %d", rope->dim, a->head_dim);
	if (batch->n_tokens != a->n_rows)
		BUG("the plan is for %d rows, not %d", a->n_rows, batch->n_tokens);
	for (int i = 0; i < N_ROPES; i++)
		if (a->ropes[i].rope == rope)
			table = &a->ropes[i];
	r.job.has_cos_sin = table != NULL;
	if (!table) {
		table = &a->ropes[a->next_rope];
		a->next_rope = (a->next_rope + 1) % N_ROPES;
	}
	r.job.cos_sin = table->cos_sin;
	workers_run(a->workers, rope_share, &r);
	table->rope = rope;
}

struct attend_run {
	struct cpu_attention *a;
	struct attention_job job;
};

static void attend_share(void *arg, int thread, int n_threads)
{
	struct attend_run *r = arg;
	struct cpu_attention *a = r->a;
	size_t n_units = (size_t)a->n_tiles * (size_t)a->n_kv_heads, i;

	while ((i = work_counter_take(&a->counter, 1)) < n_units)
		a->kernels->attend(&r->job, &a->tiles[i / (size_t)a->n_kv_heads], (int)(i % (size_t)a->n_kv_heads), &a->scratch[thread]);
}

void cpu_attend(struct cpu_attention *a, const float *q, const void *k_cache, const void *v_cache, float scale, float softcap,
                int window, float *out)
{
	struct attend_run r = {a, {q, k_cache, v_cache, out, scale, softcap, window, a->n_heads, a->n_kv_heads, a->head_dim, a->type,
	                           a->rows, a->segments}};

	work_counter_reset(&a->counter);
	workers_run(a->workers, attend_share, &r);
}
