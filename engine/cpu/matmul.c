/* matmul.c: driver of the matrix products: packs weights, shares the work of one cpu_linear over the threads.
 *
 * A run has two phases with a barrier between them. First the rows of x are packed in groups (packed.h): quantised, or
 * interleaved as they are, or both if the weights ask for both. Then threads take items, an item being a few panels of one
 * output and a range of groups:
 *
 *     for each chunk of columns:  unpack the panel's chunk into the thread's scratch;  for each group: register tiles, sums to
 * scratch store the sums (bias, residual)
 *
 * so that weights are read from memory once per item and unpacked once for all its tokens; meanwhile the next chunk is
 * fetched. */
#include "engine/cpu/matmul.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/cpu/packed.h"

enum {
	ITEM_TOKENS = 528, /* most tokens of an item: their sums stay in the L2 cache */
	ITEMS_PER_THREAD = 4,
	ITEM_PANELS = 8,   /* most panels of an item */
	SPLIT_TOKENS = 32, /* fewest tokens that pay for unpacking a panel once more */
};

struct cpu_weight {
	const struct packed_type *type;
	int64_t n_out, n_in, n_tiles, n_panels;
	size_t tile_bytes, bytes;
	uint8_t *data;
};

struct scratch {
	_Alignas(64) uint8_t codes[PANEL_TILES * CHUNK_BLOCKS * BLOCK_CODES];
	float scales[PANEL_TILES * CHUNK_BLOCKS * 2 * TILE_ROWS];
	float mins[PANEL_TILES * CHUNK_BLOCKS * 2 * TILE_ROWS];
	float floats[FLOAT_CHUNK_COLS * PANEL_ROWS];
	float acc[ITEM_TOKENS * PANEL_ROWS];
};

struct cpu_matmul {
	struct workers *workers;
	const struct matmul_kernels *kernels;
	const struct codes_kernels *codes;
	const struct stream_kernels *stream;
	enum engine_math math;
	int64_t max_rows, max_in;
	struct packed_x x; /* at the workspace */
	float *x_floats;
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
		const struct stream_kernels *stream;
	} all[] = {
		{"generic", &matmul_kernels_generic, &codes_kernels_generic, &stream_kernels_generic},
#if defined(__x86_64__)
		{"avx2", &matmul_kernels_avx2, &codes_kernels_avx2, &stream_kernels_avx2},
		{"avx512", &matmul_kernels_avx512, &codes_kernels_avx512, &stream_kernels_avx512},
#endif
	};

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (strcmp(all[i].name, isa) == 0) {
			m->kernels = all[i].kernels;
			m->codes = all[i].codes;
			m->stream = all[i].stream;
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
	m->x = (struct packed_x){parts[0], parts[1], {parts[2], parts[3]}, {parts[4], parts[5]}};
	m->x_floats = parts[6];
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

static int panel_tiles(const struct cpu_weight *w, int64_t panel)
{
	return w->n_tiles - panel * PANEL_TILES < PANEL_TILES ? 1 : PANEL_TILES;
}

static uint8_t *panel_at(const struct cpu_weight *w, int64_t panel)
{
	return w->data + (size_t)panel * PANEL_TILES * w->tile_bytes;
}

struct pack_job {
	struct cpu_weight *w;
	const struct tensor *t;
	struct work_counter next;
};

static void pack_panels(void *arg, int thread, int n_threads)
{
	struct pack_job *job = arg;
	int64_t i;

	while ((i = (int64_t)work_counter_take(&job->next, 1)) < job->w->n_panels)
		pack_panel(job->w->type, job->t, i * PANEL_ROWS, panel_tiles(job->w, i), panel_at(job->w, i));
}

static int check_tensor(const struct cpu_matmul *m, const struct tensor *t, const struct packed_type *type, struct err *err)
{
	size_t row_bytes;

	if (!type)
		return err_set(err, ERR_MODEL, "tensor %s: type %s (%d) is not supported in a matrix", t->name,
		               tensor_type_name(t->type), (int)t->type);
	if (t->n_dims != 2 || t->shape[0] < 1 || t->shape[1] < 1)
		return err_set(err, ERR_MODEL, "tensor %s has %d dimensions, a matrix is expected", t->name, t->n_dims);
	if (t->shape[1] > m->max_in)
		return err_set(err, ERR_MODEL, "tensor %s has %lld columns, this model's widest vector is %lld", t->name,
		               (long long)t->shape[1], (long long)m->max_in);
	row_bytes = tensor_row_bytes(t->type, t->shape[1]);
	if (!row_bytes)
		return err_set(err, ERR_MODEL, "tensor %s has %lld columns, type %s needs a multiple of %d", t->name,
		               (long long)t->shape[1], tensor_type_name(t->type), tensor_type_block(t->type));
	if (!t->data || t->n_bytes / row_bytes < (size_t)t->shape[0])
		return err_set(err, ERR_MODEL, "tensor %s has %zu bytes, %lld rows of %zu are expected", t->name,
		               t->data ? t->n_bytes : 0, (long long)t->shape[0], row_bytes);
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
	w->n_panels = (w->n_tiles + PANEL_TILES - 1) / PANEL_TILES;
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
	workers_run(m->workers, pack_panels, &job);
	return w;
}

void cpu_weight_free(struct cpu_weight *w)
{
	if (!w)
		return;
	mem_pages_free(w->data, w->bytes);
	free(w);
}

size_t cpu_packed_bytes(const struct tensor *t)
{
	const struct packed_type *type = packed_type_find(t->type);

	return type ? (size_t)((t->shape[0] + TILE_ROWS - 1) / TILE_ROWS) * packed_tile_bytes(type, t->shape[1]) : 0;
}

size_t cpu_weight_bytes(const struct cpu_weight *w)
{
	return w->bytes;
}
int64_t cpu_weight_n_out(const struct cpu_weight *w)
{
	return w->n_out;
}
int64_t cpu_weight_n_in(const struct cpu_weight *w)
{
	return w->n_in;
}

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
	struct grouping codes, floats; /* n_groups 0: no weight needs it */
	size_t n_items[2];             /* of the two phases */
	int64_t panels_per_item;
	int splits; /* an item's groups are shared by this many items */
	struct work_counter next[2];
};

static int is_integer(const struct cpu_matmul *m, const struct cpu_weight *w)
{
	return m->math == MATH_FAST && w->type->planes;
}

static int64_t chunk_size(int64_t start, int64_t n_in, int64_t most)
{
	return n_in - start < most ? n_in - start : most;
}

/* Where the quantised rows of x from `row` on lie in the chunk of n_cols from column k on. */
static struct packed_x packed_at(const struct linear_job *job, int64_t row, int64_t k, int64_t n_cols)
{
	const struct packed_x *x = &job->m->x;
	int64_t at = (k * job->n_rows + row * n_cols) / BLOCK_COLS;

	return (struct packed_x){x->codes + at * 8,
	                         x->scale + at,
	                         {x->neg_sum[0] + at, x->neg_sum[1] + 2 * at},
	                         {x->min_sum[0] + at, x->min_sum[1] + 2 * at}};
}

static float *floats_at(const struct linear_job *job, int64_t row, int64_t k, int64_t n_cols)
{
	return job->m->x_floats + k * job->n_rows + row * n_cols;
}

static void interleave(const float *x, int64_t stride, int64_t n_cols, int T, float *out)
{
	for (int64_t k = 0; k < n_cols; k++)
		for (int t = 0; t < T; t++)
			out[k * T + t] = x[t * stride + k];
}

static size_t n_chunks(int64_t n_in, int64_t most)
{
	return (size_t)((n_in + most - 1) / most);
}

/* One group's part of one chunk. */
static void pack_x(const struct linear_job *job, size_t item)
{
	size_t n_codes = (size_t)job->codes.n_groups * n_chunks(job->n_in, CHUNK_COLS);
	int is_codes = item < n_codes;
	const struct grouping *g = is_codes ? &job->codes : &job->floats;
	int64_t most = is_codes ? CHUNK_COLS : FLOAT_CHUNK_COLS, k, n, row, T;
	const float *x;

	if (!is_codes)
		item -= n_codes;
	row = group_start(g, (int)(item % (size_t)g->n_groups));
	T = group_start(g, (int)(item % (size_t)g->n_groups) + 1) - row;
	k = (int64_t)(item / (size_t)g->n_groups) * most;
	n = chunk_size(k, job->n_in, most);
	x = job->x + row * job->n_in + k;
	if (is_codes) {
		struct packed_x at = packed_at(job, row, k, n);

		job->m->codes->quantize(x, job->n_in, (int)T, (int)(n / BLOCK_COLS), &at);
	} else {
		interleave(x, job->n_in, n, (int)T, floats_at(job, row, k, n));
	}
}

/* acc = panel times the rows of groups g0 .. g1-1 */
static void integer_panel(const struct linear_job *job, const struct cpu_weight *w, int64_t panel, int g0, int g1,
                          struct scratch *s)
{
	const struct cpu_matmul *m = job->m;
	const int n_tiles = panel_tiles(w, panel), step = m->kernels->tiles;
	const int64_t row0 = group_start(&job->codes, g0);
	struct dot_args a;

	for (int64_t k = 0; k < w->n_in; k += CHUNK_COLS) {
		int64_t n = chunk_size(k, w->n_in, CHUNK_COLS);

		a.n_blocks = (int)(n / BLOCK_COLS);
		a.first = k == 0;
		m->codes->unpack(w->type, panel_at(w, panel) + packed_offset(w->type, n_tiles, k), n_tiles, a.n_blocks, s->codes,
		                 s->scales, s->mins);
		for (int r0 = 0; r0 < n_tiles; r0 += step) {
			for (int i = 0; i < step; i++) {
				int r = r0 + i < n_tiles ? r0 + i : 0;

				a.panel.codes[i] = s->codes + r * CHUNK_BLOCKS * BLOCK_CODES;
				a.panel.scales[i] = s->scales + r * CHUNK_BLOCKS * 2 * TILE_ROWS;
				a.panel.mins[i] = s->mins + r * CHUNK_BLOCKS * 2 * TILE_ROWS;
			}
			for (int g = g0; g < g1; g++) {
				int64_t row = group_start(&job->codes, g), T = group_start(&job->codes, g + 1) - row;

				a.x = packed_at(job, row, k, n);
				a.acc = s->acc + (row - row0) * PANEL_ROWS + r0 * TILE_ROWS;
				m->kernels->dot(w->type, (int)T)(&a);
			}
		}
	}
}

/* n columns of a panel from k on as f32 [n][n_tiles * 16], in scratch or where they are */
static const float *float_weights(const struct cpu_matmul *m, const struct cpu_weight *w, int64_t panel, int64_t k, int64_t n,
                                  float *scratch)
{
	const int n_tiles = panel_tiles(w, panel), width = n_tiles * TILE_ROWS;
	const uint8_t *src = panel_at(w, panel) + packed_offset(w->type, n_tiles, k);

	if (w->type->type == TENSOR_F32)
		return (const float *)(const void *)src;
	if (!w->type->planes)
		m->codes->widen(w->type->type, src, n * n_tiles, scratch);
	else
		for (int r = 0; r < n_tiles; r++)
			m->codes->decode(w->type, src, n_tiles, r, (int)(n / BLOCK_COLS), scratch + r * TILE_ROWS, width);
	return scratch;
}

static void float_panel(const struct linear_job *job, const struct cpu_weight *w, int64_t panel, int g0, int g1,
                        struct scratch *s)
{
	const struct cpu_matmul *m = job->m;
	const int n_tiles = panel_tiles(w, panel), step = m->kernels->float_tiles;
	const int64_t row0 = group_start(&job->floats, g0);
	struct float_args a = {.w_stride = n_tiles * TILE_ROWS};

	for (int64_t k = 0; k < w->n_in; k += FLOAT_CHUNK_COLS) {
		int64_t n = chunk_size(k, w->n_in, FLOAT_CHUNK_COLS);
		const float *values = float_weights(m, w, panel, k, n, s->floats);

		a.n_cols = (int)n;
		a.first = k == 0;
		for (int r0 = 0; r0 < n_tiles; r0 += step) {
			for (int i = 0; i < step; i++)
				a.w[i] = values + (r0 + i < n_tiles ? r0 + i : 0) * TILE_ROWS;
			for (int g = g0; g < g1; g++) {
				int64_t row = group_start(&job->floats, g), T = group_start(&job->floats, g + 1) - row;

				a.x = floats_at(job, row, k, n);
				a.acc = s->acc + (row - row0) * PANEL_ROWS + r0 * TILE_ROWS;
				m->kernels->dot_f32((int)T)(&a);
			}
		}
	}
}

/* The same for a few rows without unpacking. */
static void stream_panel(const struct linear_job *job, const struct cpu_weight *w, int64_t panel, int g0, int g1,
                         struct scratch *s)
{
	const struct cpu_matmul *m = job->m;
	const int integer = is_integer(m, w);
	const struct grouping *groups = integer ? &job->codes : &job->floats;
	const int64_t most = integer ? CHUNK_COLS : FLOAT_CHUNK_COLS, row0 = group_start(groups, g0);
	struct stream_args a = {.type = w->type, .n_tiles = panel_tiles(w, panel)};

	for (int64_t k = 0; k < w->n_in; k += most) {
		int64_t n = chunk_size(k, w->n_in, most);

		a.src = panel_at(w, panel) + packed_offset(w->type, a.n_tiles, k);
		a.n_cols = (int)n;
		a.first = k == 0;
		for (int g = g0; g < g1; g++) {
			int64_t row = group_start(groups, g), T = group_start(groups, g + 1) - row;

			if (integer)
				a.x = packed_at(job, row, k, n);
			else
				a.x_floats = floats_at(job, row, k, n);
			a.acc = s->acc + (row - row0) * PANEL_ROWS;
			m->stream->find(w->type->type, (int)T)(&a);
		}
	}
}

static int is_streamed(const struct linear_job *job, const struct cpu_weight *w)
{
	const struct cpu_matmul *m = job->m;

	return is_integer(m, w) ? job->n_rows <= m->stream->rows : !w->type->planes && job->n_rows <= m->stream->float_rows;
}

static size_t n_items_of(const struct linear_job *job, const struct cpu_weight *w)
{
	return (size_t)((w->n_panels + job->panels_per_item - 1) / job->panels_per_item) * (size_t)job->splits;
}

static void linear_item(const struct linear_job *job, size_t item, struct scratch *s)
{
	const struct cpu_matmul *m = job->m;
	const struct cpu_linear_out *o = job->outs;
	const struct grouping *g;
	int64_t panel, end, row0, n_rows;
	int integer, split, g0, g1;

	for (; item >= n_items_of(job, o->w); o++)
		item -= n_items_of(job, o->w);
	panel = (int64_t)(item / (size_t)job->splits) * job->panels_per_item;
	split = (int)(item % (size_t)job->splits);
	integer = is_integer(m, o->w);
	g = integer ? &job->codes : &job->floats;
	g0 = (int)((int64_t)g->n_groups * split / job->splits);
	g1 = (int)((int64_t)g->n_groups * (split + 1) / job->splits);
	if (g0 == g1)
		return;
	row0 = group_start(g, g0);
	n_rows = group_start(g, g1) - row0;
	end = panel + job->panels_per_item < o->w->n_panels ? panel + job->panels_per_item : o->w->n_panels;
	for (; panel < end; panel++) {
		int64_t first = panel * PANEL_ROWS, n = o->w->n_out - first;

		if (is_streamed(job, o->w))
			stream_panel(job, o->w, panel, g0, g1, s);
		else if (integer)
			integer_panel(job, o->w, panel, g0, g1, s);
		else
			float_panel(job, o->w, panel, g0, g1, s);
		m->codes->store(s->acc, (int)n_rows, (int)(n < PANEL_ROWS ? n : PANEL_ROWS), o->bias ? o->bias + first : NULL,
		                o->accumulate, o->out + row0 * o->w->n_out + first, o->w->n_out);
	}
}

static void linear_run(void *arg, int thread, int n_threads)
{
	struct linear_job *job = arg;
	size_t i;

	while ((i = work_counter_take(&job->next[0], 1)) < job->n_items[0])
		pack_x(job, i);
	workers_barrier(job->m->workers);
	while ((i = work_counter_take(&job->next[1], 1)) < job->n_items[1])
		linear_item(job, i, &job->m->scratch[thread]);
}

/* Enough items for all threads: few rows take several panels at once, for the sake of long reads; where panels are few,
 * their rows are shared. */
static void cut_items(struct linear_job *job, int64_t n_panels)
{
	int64_t wanted = (int64_t)workers_count(job->m->workers) * ITEMS_PER_THREAD;
	int64_t fewest = (job->n_rows + ITEM_TOKENS - MAX_GROUP - 1) / (ITEM_TOKENS - MAX_GROUP),
	        splits = (wanted + n_panels - 1) / n_panels;

	if (splits > job->n_rows / SPLIT_TOKENS)
		splits = job->n_rows / SPLIT_TOKENS;
	job->splits = (int)(splits > fewest ? splits : fewest);
	job->panels_per_item = job->splits > 1 ? 1 : n_panels / wanted;
	if (job->panels_per_item > ITEM_PANELS)
		job->panels_per_item = ITEM_PANELS;
	if (job->panels_per_item < 1)
		job->panels_per_item = 1;
}

void cpu_linear(struct cpu_matmul *m, const float *x, int32_t n_rows, const struct cpu_linear_out *outs, int n_outs)
{
	struct linear_job job = {.m = m, .x = x, .n_rows = n_rows, .n_in = outs[0].w->n_in, .outs = outs};
	int64_t n_panels = 0;

	if (n_rows <= 0)
		return;
	if (n_rows > m->max_rows || job.n_in > m->max_in)
		BUG("x is [%d, %lld], workspace [%lld, %lld]", n_rows, (long long)job.n_in, (long long)m->max_rows,
		    (long long)m->max_in);
	for (int i = 0; i < n_outs; i++) {
		if (outs[i].w->n_in != job.n_in)
			BUG("matrices of one input have %lld and %lld columns", (long long)job.n_in, (long long)outs[i].w->n_in);
		if (is_integer(m, outs[i].w))
			job.codes = make_groups(n_rows, m->kernels->tokens);
		else
			job.floats = make_groups(n_rows, m->kernels->float_tokens);
		n_panels += outs[i].w->n_panels;
	}
	cut_items(&job, n_panels);
	for (int i = 0; i < n_outs; i++)
		job.n_items[1] += n_items_of(&job, outs[i].w);
	job.n_items[0] = (size_t)job.codes.n_groups * n_chunks(job.n_in, CHUNK_COLS);
	job.n_items[0] += (size_t)job.floats.n_groups * n_chunks(job.n_in, FLOAT_CHUNK_COLS);
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
	const int n_tiles = panel_tiles(w, id / PANEL_ROWS), r = id % PANEL_ROWS / TILE_ROWS, lane = id % TILE_ROWS;

	for (int64_t k = 0; k < w->n_in; k += FLOAT_CHUNK_COLS) {
		int64_t n = chunk_size(k, w->n_in, FLOAT_CHUNK_COLS), stride = w->type->planes ? TILE_ROWS : n_tiles * TILE_ROWS;
		const float *values = scratch + lane;

		if (w->type->planes)
			job->m->codes->decode(w->type, panel_at(w, id / PANEL_ROWS) + packed_offset(w->type, n_tiles, k), n_tiles, r,
			                      (int)(n / BLOCK_COLS), scratch, TILE_ROWS);
		else
			values = float_weights(job->m, w, id / PANEL_ROWS, k, n, scratch) + id % PANEL_ROWS;
		for (int64_t i = 0; i < n; i++)
			out[k + i] = values[i * stride] * job->scale;
	}
}

static void embed_run(void *arg, int thread, int n_threads)
{
	struct embed_job *job = arg;
	size_t i;

	while ((i = work_counter_take(&job->next, 1)) < job->n)
		embed_row(job, job->ids[i], job->m->scratch[thread].floats, job->out + i * (size_t)job->w->n_in);
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
