/* matmul.c: driver of the matrix products: packs weights, shares the work of one cpu_linear over the threads.
 *
 * A run has two phases with a barrier between them. First the rows of x are packed in groups (packed.h): quantised, or interleaved as
 * they are, or both if the weights ask for both. Then threads take items, an item being a panel of one or two tiles of one output
 * and a range of groups:
 *
 *     for each chunk of columns:  unpack the panel's chunk into the thread's scratch;  for each group: register tile, sums to scratch
 *     store the sums (bias, residual)
 *
 * so that weights are read from memory once per item and unpacked once for all its tokens. */
#include "engine/cpu/matmul.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/cpu/packed.h"

enum {
	ITEM_TOKENS = 256, /* most tokens of an item: their sums stay in the L2 cache */
	ITEMS_PER_THREAD = 4,
	EMBED_BLOCKS = 8,
};

struct cpu_weight {
	const struct packed_type *type;
	int64_t n_out, n_in, n_tiles;
	size_t tile_bytes, bytes;
	uint8_t *data;
};

struct scratch {
	uint8_t codes[PANEL_BLOCKS * BLOCK_CODES];
	float scales[PANEL_BLOCKS * 2 * TILE_ROWS];
	float mins[PANEL_BLOCKS * 2 * TILE_ROWS];
	float floats[MAX_PANEL_TILES][PANEL_COLUMNS * TILE_ROWS];
	float acc[ITEM_TOKENS * MAX_PANEL_TILES * TILE_ROWS];
};

struct cpu_matmul {
	struct workers *workers;
	const struct matmul_kernels *kernels;
	const struct codes_kernels *codes;
	enum engine_math math;
	int64_t max_rows, max_in;
	struct packed_x x; /* at the workspace */
	uint8_t *workspace;
	size_t workspace_bytes;
	struct scratch *scratch; /* [threads] */
	size_t scratch_bytes;
};

static int find_kernels(struct cpu_matmul *m, const char *isa)
{
	static const struct {
		const char *name;
		const struct matmul_kernels *kernels;
		const struct codes_kernels *codes;
	} all[] = {
		{"generic", &matmul_kernels_generic, &codes_kernels_generic},
#if defined(__x86_64__)
		{"avx2", &matmul_kernels_avx2, &codes_kernels_avx2},
		{"avx512", &matmul_kernels_avx512, &codes_kernels_avx512},
#endif
	};

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (strcmp(all[i].name, isa) == 0) {
			m->kernels = all[i].kernels;
			m->codes = all[i].codes;
			return 0;
		}
	return -1;
}

struct cpu_matmul *cpu_matmul_new(struct workers *w, const char *isa, enum engine_math math, int32_t max_rows, int32_t max_in,
                                  struct err *err)
{
	struct cpu_matmul *m = xcalloc(1, sizeof(*m));
	/* rows of 32 columns: codes, scale, sums per 32 and twice per 16, floats; each array padded to a cache line */
	size_t cells = (size_t)max_rows * (((size_t)max_in + BLOCK_COLS - 1) / BLOCK_COLS);
	const size_t sizes[] = {32, 4, 4, 8, 4, 8, 32 * 4};
	void *parts[7];
	size_t at = 0;

	m->workers = w;
	m->math = math;
	m->max_rows = max_rows;
	m->max_in = max_in;
	if (find_kernels(m, isa) < 0) {
		err_set(err, ERR_USAGE, "instruction set \"%s\" is not known; there are generic, avx2 and avx512", isa);
		goto fail;
	}
	for (int i = 0; i < 7; i++)
		m->workspace_bytes += (cells * sizes[i] + 127) / 64 * 64;
	m->scratch_bytes = (size_t)workers_count(w) * sizeof(struct scratch);
	if (!(m->workspace = mem_pages_new(m->workspace_bytes, err)) || !(m->scratch = mem_pages_new(m->scratch_bytes, err))) {
		err_context(err, "workspace of the matrix products");
		goto fail;
	}
	for (int i = 0; i < 7; i++) {
		parts[i] = m->workspace + at;
		at += (cells * sizes[i] + 127) / 64 * 64;
	}
	m->x = (struct packed_x){parts[0], parts[1], {parts[2], parts[3]}, {parts[4], parts[5]}, parts[6]};
	return m;
fail:
	cpu_matmul_free(m);
	return NULL;
}

void cpu_matmul_free(struct cpu_matmul *m)
{
	if (!m)
		return;
	mem_pages_free(m->scratch, m->scratch_bytes);
	mem_pages_free(m->workspace, m->workspace_bytes);
	free(m);
}

struct pack_job {
	struct cpu_weight *w;
	const struct tensor *t;
	struct work_counter next;
};

static void pack_tiles(void *arg, int thread, int n_threads)
{
	struct pack_job *job = arg;
	size_t i, n = (size_t)job->w->n_tiles;

	while ((i = work_counter_take(&job->next, 4)) < n)
		for (size_t tile = i; tile < i + 4 && tile < n; tile++)
			pack_tile(job->w->type, job->t, (int64_t)tile * TILE_ROWS, job->w->data + tile * job->w->tile_bytes);
}

static int check_tensor(const struct cpu_matmul *m, const struct tensor *t, const struct packed_type *type, struct err *err)
{
	size_t row_bytes;

	if (!type)
		return err_set(err, ERR_MODEL, "tensor %s: type %s (%d) is not supported in a matrix", t->name, tensor_type_name(t->type), (int)t->type);
	if (t->n_dims != 2 || t->shape[0] < 1 || t->shape[1] < 1)
		return err_set(err, ERR_MODEL, "tensor %s has %d dimensions, a matrix is expected", t->name, t->n_dims);
	if (t->shape[1] > m->max_in)
		return err_set(err, ERR_MODEL, "tensor %s has %lld columns, this model's widest vector is %lld", t->name, (long long)t->shape[1],
		               (long long)m->max_in);
	row_bytes = tensor_row_bytes(t->type, t->shape[1]);
	if (!row_bytes)
		return err_set(err, ERR_MODEL, "tensor %s has %lld columns, type %s needs a multiple of %d", t->name, (long long)t->shape[1],
		               tensor_type_name(t->type), tensor_type_block(t->type));
	if (!t->data || t->n_bytes / row_bytes < (size_t)t->shape[0])
		return err_set(err, ERR_MODEL, "tensor %s has %zu bytes, %lld rows of %zu are expected", t->name, t->data ? t->n_bytes : 0,
		               (long long)t->shape[0], row_bytes);
	return 0;
}

struct cpu_weight *cpu_weight_new(struct cpu_matmul *m, const struct tensor *t, struct err *err)
{
	const struct packed_type *type = packed_type_find(t->type);
	struct cpu_weight *w;
	struct pack_job job;

	if (check_tensor(m, t, type, err) < 0)
		return NULL;
	w = xcalloc(1, sizeof(*w));
	w->type = type;
	w->n_out = t->shape[0];
	w->n_in = t->shape[1];
	w->n_tiles = (w->n_out + TILE_ROWS - 1) / TILE_ROWS;
	w->tile_bytes = packed_tile_bytes(type, w->n_in);
	w->bytes = (size_t)w->n_tiles * w->tile_bytes;
	if (!(w->data = mem_pages_new(w->bytes, err))) {
		err_context(err, "tensor %s", t->name);
		cpu_weight_free(w);
		return NULL;
	}
	job.w = w;
	job.t = t;
	work_counter_reset(&job.next);
	workers_run(m->workers, pack_tiles, &job);
	return w;
}

void cpu_weight_free(struct cpu_weight *w)
{
	if (!w)
		return;
	mem_pages_free(w->data, w->bytes);
	free(w);
}

size_t cpu_weight_bytes(const struct cpu_weight *w) { return w->bytes; }
int64_t cpu_weight_n_out(const struct cpu_weight *w) { return w->n_out; }
int64_t cpu_weight_n_in(const struct cpu_weight *w) { return w->n_in; }

/* Rows of x cut into groups as equal as can be. */
struct grouping {
	int64_t n_rows;
	int n_groups;
};

static struct grouping make_groups(int64_t n_rows, int most)
{
	return (struct grouping){n_rows, (int)((n_rows + most - 1) / most)};
}

static int64_t group_start(const struct grouping *g, int i)
{
	return g->n_rows * i / g->n_groups;
}

struct linear_job {
	struct cpu_matmul *m;
	const float *x;
	int64_t n_rows, n_in;
	const struct cpu_linear_out *outs;
	int n_outs;
	struct grouping codes, floats; /* n_groups 0: no weight needs it */
	size_t n_items[2];             /* of the two phases */
	int splits;                    /* each panel's groups are shared by this many items */
	struct work_counter next[2];
};

static int is_integer(const struct cpu_matmul *m, const struct cpu_weight *w)
{
	return m->math == MATH_FAST && w->type->planes;
}

static int64_t n_panels(const struct cpu_matmul *m, const struct cpu_weight *w)
{
	int tiles = is_integer(m, w) ? m->kernels->tiles : m->kernels->float_tiles;

	return (w->n_tiles + tiles - 1) / tiles;
}

/* Where x's rows from `row` on lie, columns from block on, in a group of T. */
static struct packed_x packed_at(const struct linear_job *job, int64_t row, int64_t block, int64_t T)
{
	const struct packed_x *x = &job->m->x;
	int64_t n_blocks = job->n_in / BLOCK_COLS, at = row * n_blocks + block * T;

	return (struct packed_x){x->codes + at * 8, x->scale + at, {x->neg_sum[0] + at, x->neg_sum[1] + 2 * at},
	                         {x->min_sum[0] + at, x->min_sum[1] + 2 * at}, x->floats};
}

static void interleave(const float *x, int64_t n_in, int T, float *out)
{
	if (T == 1) {
		memcpy(out, x, (size_t)n_in * sizeof(*x));
		return;
	}
	for (int64_t k = 0; k < n_in; k++)
		for (int t = 0; t < T; t++)
			out[k * T + t] = x[t * n_in + k];
}

static void pack_group(const struct linear_job *job, size_t item)
{
	int i = (int)item, is_codes = i < job->codes.n_groups;
	const struct grouping *g = is_codes ? &job->codes : &job->floats;
	int64_t start, T;
	const float *x;

	if (!is_codes)
		i -= job->codes.n_groups;
	start = group_start(g, i);
	T = group_start(g, i + 1) - start;
	x = job->x + start * job->n_in;
	if (is_codes) {
		struct packed_x at = packed_at(job, start, 0, T);

		job->m->codes->quantize(x, job->n_in, (int)T, job->n_in, &at);
	} else {
		interleave(x, job->n_in, (int)T, job->m->x.floats + start * job->n_in);
	}
}

static const uint8_t *tile_at(const struct cpu_weight *w, int64_t tile)
{
	/* An odd tile at the end is computed twice and stored once. */
	return w->data + (size_t)(tile < w->n_tiles ? tile : w->n_tiles - 1) * w->tile_bytes;
}

static void integer_item(const struct linear_job *job, const struct cpu_weight *w, int64_t panel, int g0, int g1, struct scratch *s)
{
	const struct cpu_matmul *m = job->m;
	const int tiles = m->kernels->tiles, chunk = PANEL_BLOCKS / tiles;
	const int64_t n_blocks = w->n_in / BLOCK_COLS, row0 = group_start(&job->codes, g0);
	struct panel p;
	struct dot_args a = {.panel = &p, .offset_shift = w->type->offset_shift};

	for (int r = 0; r < tiles; r++) {
		p.codes[r] = s->codes + r * chunk * BLOCK_CODES;
		p.scales[r] = s->scales + r * chunk * 2 * TILE_ROWS;
		p.mins[r] = s->mins + r * chunk * 2 * TILE_ROWS;
	}
	for (int64_t b = 0; b < n_blocks; b += chunk) {
		a.n_blocks = n_blocks - b < chunk ? (int)(n_blocks - b) : chunk;
		a.first = b == 0;
		for (int r = 0; r < tiles; r++)
			m->codes->unpack(w->type, tile_at(w, panel * tiles + r), b, a.n_blocks, p.codes[r], p.scales[r], p.mins[r]);
		for (int g = g0; g < g1; g++) {
			int64_t row = group_start(&job->codes, g), T = group_start(&job->codes, g + 1) - row;

			a.x = packed_at(job, row, b, T);
			a.acc = s->acc + (row - row0) * tiles * TILE_ROWS;
			m->kernels->dot(w->type, (int)T)(&a);
		}
	}
}

static const float *float_panel(const struct cpu_matmul *m, const struct cpu_weight *w, const uint8_t *tile, int64_t k, int n, float *scratch)
{
	if (w->type->planes)
		m->codes->decode(w->type, tile, k / BLOCK_COLS, n / BLOCK_COLS, scratch);
	else if (w->type->type == TENSOR_F32)
		return (const float *)(const void *)tile + k * TILE_ROWS;
	else
		m->codes->widen(w->type->type, tile + (size_t)k * TILE_ROWS * 2, n, scratch);
	return scratch;
}

static void float_item(const struct linear_job *job, const struct cpu_weight *w, int64_t panel, int g0, int g1, struct scratch *s)
{
	const struct cpu_matmul *m = job->m;
	const int tiles = m->kernels->float_tiles;
	const int64_t row0 = group_start(&job->floats, g0);
	struct float_args a;

	for (int64_t k = 0; k < w->n_in; k += PANEL_COLUMNS) {
		a.n_cols = w->n_in - k < PANEL_COLUMNS ? (int)(w->n_in - k) : PANEL_COLUMNS;
		a.first = k == 0;
		for (int r = 0; r < tiles; r++)
			a.w[r] = float_panel(m, w, tile_at(w, panel * tiles + r), k, a.n_cols, s->floats[r]);
		for (int g = g0; g < g1; g++) {
			int64_t row = group_start(&job->floats, g), T = group_start(&job->floats, g + 1) - row;

			a.x = m->x.floats + row * w->n_in + k * T;
			a.acc = s->acc + (row - row0) * tiles * TILE_ROWS;
			m->kernels->dot_f32((int)T)(&a);
		}
	}
}

static void linear_item(const struct linear_job *job, size_t item, struct scratch *s)
{
	const struct cpu_matmul *m = job->m;
	const struct cpu_linear_out *o = job->outs;
	const struct grouping *g;
	int64_t panel, row0, row1, n;
	int tiles, integer, split, g0, g1;

	while (item >= (size_t)n_panels(m, o->w) * (size_t)job->splits) {
		item -= (size_t)n_panels(m, o->w) * (size_t)job->splits;
		o++;
	}
	panel = (int64_t)(item / (size_t)job->splits);
	split = (int)(item % (size_t)job->splits);
	integer = is_integer(m, o->w);
	g = integer ? &job->codes : &job->floats;
	tiles = integer ? m->kernels->tiles : m->kernels->float_tiles;
	g0 = (int)((int64_t)g->n_groups * split / job->splits);
	g1 = (int)((int64_t)g->n_groups * (split + 1) / job->splits);
	if (g0 == g1)
		return;
	if (integer)
		integer_item(job, o->w, panel, g0, g1, s);
	else
		float_item(job, o->w, panel, g0, g1, s);
	row0 = group_start(g, g0);
	row1 = group_start(g, g1);
	n = o->w->n_out - panel * tiles * TILE_ROWS;
	if (n > tiles * TILE_ROWS)
		n = tiles * TILE_ROWS;
	m->codes->store(s->acc, tiles * TILE_ROWS, (int)(row1 - row0), (int)n, o->bias ? o->bias + panel * tiles * TILE_ROWS : NULL,
	                o->accumulate, o->out + row0 * o->w->n_out + panel * tiles * TILE_ROWS, o->w->n_out);
}

static void linear_run(void *arg, int thread, int n_threads)
{
	struct linear_job *job = arg;
	size_t i;

	while ((i = work_counter_take(&job->next[0], 1)) < job->n_items[0])
		pack_group(job, i);
	workers_barrier(job->m->workers);
	while ((i = work_counter_take(&job->next[1], 1)) < job->n_items[1])
		linear_item(job, i, &job->m->scratch[thread]);
}

void cpu_linear(struct cpu_matmul *m, const float *x, int32_t n_rows, const struct cpu_linear_out *outs, int n_outs)
{
	struct linear_job job = {.m = m, .x = x, .n_rows = n_rows, .outs = outs, .n_outs = n_outs, .n_in = outs[0].w->n_in};
	int64_t panels = 0, wanted = (int64_t)workers_count(m->workers) * ITEMS_PER_THREAD, fewest, splits;

	if (n_rows <= 0)
		return;
	if (n_rows > m->max_rows || job.n_in > m->max_in)
		BUG("x is [%d, %lld], workspace [%lld, %lld]", n_rows, (long long)job.n_in, (long long)m->max_rows, (long long)m->max_in);
	for (int i = 0; i < n_outs; i++) {
		if (outs[i].w->n_in != job.n_in)
			BUG("matrices of one input have %lld and %lld columns", (long long)job.n_in, (long long)outs[i].w->n_in);
		if (is_integer(m, outs[i].w))
			job.codes = make_groups(n_rows, m->kernels->tokens);
		else
			job.floats = make_groups(n_rows, m->kernels->float_tokens);
		panels += n_panels(m, outs[i].w);
	}
	/* Few panels for many threads: share each panel's rows, but not below what pays for unpacking it again. */
	fewest = (n_rows + ITEM_TOKENS - MAX_GROUP - 1) / (ITEM_TOKENS - MAX_GROUP);
	splits = (wanted + panels - 1) / panels;
	if (splits > n_rows / 32)
		splits = n_rows / 32;
	job.splits = (int)(splits > fewest ? splits : fewest);
	job.n_items[0] = (size_t)(job.codes.n_groups + job.floats.n_groups);
	job.n_items[1] = (size_t)(panels * job.splits);
	work_counter_reset(&job.next[0]);
	work_counter_reset(&job.next[1]);
	workers_run(m->workers, linear_run, &job);
}

struct embed_job {
	const struct cpu_matmul *m;
	const struct cpu_weight *w;
	const int32_t *ids;
	size_t n;
	float scale;
	float *out;
	struct work_counter next;
};

static void embed_row(const struct embed_job *job, int32_t id, float *scratch, float *out)
{
	const struct cpu_weight *w = job->w;
	const uint8_t *tile = w->data + (size_t)(id / TILE_ROWS) * w->tile_bytes;
	const int n = EMBED_BLOCKS * BLOCK_COLS;

	for (int64_t k = 0; k < w->n_in; k += n) {
		int left = w->n_in - k < n ? (int)(w->n_in - k) : n;
		const float *values = float_panel(job->m, w, tile, k, left, scratch);

		for (int i = 0; i < left; i++)
			out[k + i] = values[i * TILE_ROWS + id % TILE_ROWS] * job->scale;
	}
}

static void embed_run(void *arg, int thread, int n_threads)
{
	struct embed_job *job = arg;
	size_t i;

	while ((i = work_counter_take(&job->next, 1)) < job->n)
		embed_row(job, job->ids[i], job->m->scratch[thread].floats[0], job->out + i * (size_t)job->w->n_in);
}

void cpu_embed(struct cpu_matmul *m, const struct cpu_weight *w, const int32_t *ids, int32_t n, float scale, float *out)
{
	struct embed_job job = {.m = m, .w = w, .ids = ids, .n = n > 0 ? (size_t)n : 0, .scale = scale, .out = out};

	for (int32_t i = 0; i < n; i++)
		if (ids[i] < 0 || ids[i] >= w->n_out)
			BUG("row %d of a matrix of %lld", ids[i], (long long)w->n_out);
	work_counter_reset(&job.next);
	workers_run(m->workers, embed_run, &job);
}
