/* Logits and greedy continuations of the small random models against transformers (goldens/README.md): every family, rope scaling,
 * layout and tensor type, in f32 and in fast arithmetic, prompt in one chunk and in pieces. */
#include <dirent.h>
#include <unistd.h>

#include "base/json.h"
#include "base/mem.h"
#include "engine/forward.h"
#include "tests/check.h"

enum { MAX_TOKENS = 64, N_BLOCKS = 8 };

/* Largest error of a logit, as a share of the range of the golden's logits. f32 has nothing but the order of sums against it. */
static const double f32_tolerance = 2e-3, f16_kv_tolerance = 1e-2, fast_tolerance = 6e-2;

struct rig {
	struct model *model;
	struct backend *backend;
	struct forward *forward;
};

static int rig_open(struct rig *r, const char *path, enum engine_math math, enum kv_type kv, struct err *err)
{
	struct cpu_options o = {.n_threads = 2, .math = math};
	struct kv_shape shape;

	*r = (struct rig){.model = model_open(path, err)};
	if (!r->model)
		return -1;
	shape = (struct kv_shape){r->model->config.n_layers, r->model->config.n_kv_heads, r->model->config.head_dim, kv};
	r->backend = backend_cpu_new(&r->model->config, &o, MAX_TOKENS, err);
	if (!r->backend)
		return -1;
	r->forward = forward_new(r->backend, r->model, MAX_TOKENS, MAX_TOKENS, err);
	return r->forward ? r->backend->ops->kv_alloc(r->backend, &shape, N_BLOCKS, err) : -1;
}

static void rig_close(struct rig *r)
{
	forward_free(r->forward);
	if (r->backend)
		r->backend->ops->free(r->backend);
	model_free(r->model);
}

/* Compute tokens first..first+n-1; logits after each into out [n, n_vocab]. */
static int compute(struct rig *r, const int32_t *tokens, int first, int n, float *out, struct err *err)
{
	static const int32_t blocks[N_BLOCKS] = {5, 2, 7, 0, 1, 3, 4, 6};
	int32_t positions[MAX_TOKENS], rows[MAX_TOKENS];
	struct batch_seq seq = {blocks, 0, n, first};
	struct batch batch = {n, tokens + first, positions, 1, &seq, n, rows};
	float *logits;

	for (int i = 0; i < n; i++) {
		positions[i] = first + i;
		rows[i] = i;
	}
	if (forward_run(r->forward, &batch, err) < 0 || !(logits = forward_logits(r->forward, 0, n, err)))
		return -1;
	memcpy(out, logits, (size_t)n * (size_t)r->model->config.n_vocab * sizeof(float));
	return 0;
}

/* Worst error over the golden's positions, as a share of its range. */
static double worst_error(yyjson_val *golden, const float *logits, int n_vocab)
{
	yyjson_val *positions = yyjson_obj_get(golden, "positions"), *rows = yyjson_obj_get(golden, "logits"), *at, *v;
	size_t i, max, k, n;
	double lo = INFINITY, hi = -INFINITY, worst = 0;

	yyjson_arr_foreach(positions, i, max, at)
	{
		yyjson_val *row = yyjson_arr_get(rows, i);

		yyjson_arr_foreach(row, k, n, v)
		{
			double want = yyjson_get_num(v), got = logits[(size_t)yyjson_get_int(at) * (size_t)n_vocab + k];

			lo = want < lo ? want : lo;
			hi = want > hi ? want : hi;
			if (!(fabs(got - want) <= worst))
				worst = fabs(got - want);
		}
	}
	return worst / (hi - lo);
}

static int greedy_matches(struct rig *r, yyjson_val *golden, int32_t *tokens, int n, float *logits, struct err *err)
{
	int n_vocab = r->model->config.n_vocab;
	const float *last = logits + (size_t)(n - 1) * (size_t)n_vocab;
	yyjson_val *v;
	size_t i, max;
	int same = 0;

	yyjson_arr_foreach(yyjson_obj_get(golden, "greedy"), i, max, v)
	{
		int best = 0;

		for (int k = 0; k < n_vocab; k++)
			if (last[k] > last[best])
				best = k;
		if (best != yyjson_get_int(v))
			break;
		same++;
		tokens[n + (int)i] = best;
		if (compute(r, tokens, n + (int)i, 1, logits, err) < 0)
			break;
		last = logits;
	}
	return same;
}

static void check_golden(const char *model, const char *json, int quantised)
{
	static const struct {
		const char *name;
		enum engine_math math;
		enum kv_type kv;
	} modes[] = {{"f32", MATH_F32, KV_F32}, {"f32, f16 kv", MATH_F32, KV_F16}, {"f32, bf16 kv", MATH_F32, KV_BF16}, {"fast", MATH_FAST, KV_F16}};
	struct err err = {0};
	yyjson_doc *doc = json_parse_file(json, 1 << 24, ERR_INPUT, &err);
	yyjson_val *golden = yyjson_doc_get_root(doc), *v;
	int32_t tokens[MAX_TOKENS];
	int n = 0;
	size_t i, max;

	check_failed_now = 0;
	yyjson_arr_foreach(yyjson_obj_get(golden, "tokens"), i, max, v)
		tokens[n++] = yyjson_get_int(v);
	for (size_t m = 0; m < sizeof(modes) / sizeof(*modes) && n > 0; m++) {
		double tolerance = modes[m].math == MATH_FAST && quantised ? fast_tolerance : modes[m].kv == KV_F32 ? f32_tolerance
			: modes[m].kv == KV_BF16 ? fast_tolerance : f16_kv_tolerance;
		struct rig r;
		float *logits, *pieces;
		double error;
		int width, same;

		if (rig_open(&r, model, modes[m].math, modes[m].kv, &err) < 0) {
			rig_close(&r);
			break;
		}
		width = r.model->config.n_vocab;
		logits = xcalloc((size_t)MAX_TOKENS * (size_t)width, sizeof(*logits));
		pieces = xcalloc((size_t)MAX_TOKENS * (size_t)width, sizeof(*pieces));
		compute(&r, tokens, 0, n, logits, &err);
		error = worst_error(golden, logits, width);
		if (!(error < tolerance)) {
			printf("%s: %s: error %.2e of the range, tolerance %.0e\n", model, modes[m].name, error, tolerance);
			check_failed_now = 1;
		}
		/* In pieces of uneven length: not one bit may differ. */
		for (int first = 0, k; first < n; first += k) {
			k = n - first < 7 + first % 5 ? n - first : 7 + first % 5;
			compute(&r, tokens, first, k, pieces + (size_t)first * (size_t)width, &err);
		}
		CHECK(memcmp(logits, pieces, (size_t)n * (size_t)width * sizeof(float)) == 0);
		same = greedy_matches(&r, golden, tokens, n, logits, &err);
		if (modes[m].kv == KV_F32)
			CHECK_INT(same, 16);
		printf("   %-28s %-12s error %.1e of the range, greedy %d of 16\n", strrchr(model, '/') + 1, modes[m].name, error, same);
		free(logits);
		free(pieces);
		rig_close(&r);
	}
	if (err.code || n == 0) {
		printf("%s: %s\n", model, err.msg);
		check_failed_now = 1;
	}
	printf("%s %s\n", check_failed_now ? "FAIL" : "ok", strrchr(model, '/') + 1);
	check_n_failed += check_failed_now;
	yyjson_doc_free(doc);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

int main(void)
{
	const char *source = getenv("TOKENMILL_SOURCE");
	char dir[4000], model[4400], json[8900], *names[256];
	int n = 0;
	struct dirent *entry;
	DIR *d;

	snprintf(dir, sizeof(dir), "%s/tests/engine/goldens", source ? source : ".");
	d = opendir(dir);
	if (!d) {
		SKIP(goldens, "tests/engine/goldens is missing");
		return 0;
	}
	while ((entry = readdir(d)) && n < 256)
		names[n++] = xstrdup(entry->d_name);
	closedir(d);
	qsort(names, (size_t)n, sizeof(*names), by_name);
	for (int i = 0; i < n; i++) {
		char *gguf = strstr(names[i], ".gguf");

		snprintf(model, sizeof(model), "%s/%s", dir, names[i]);
		snprintf(json, sizeof(json), "%s/golden.json", model);
		if (gguf && !gguf[5]) {
			snprintf(json, sizeof(json), "%s/%.*s/golden.json", dir, (int)(gguf - names[i]), names[i]);
			if (access(json, R_OK) != 0)
				snprintf(json, sizeof(json), "%s/%.*s.golden.json", dir, (int)(gguf - names[i]), names[i]);
		}
		if (access(json, R_OK) == 0)
			check_golden(model, json, gguf != NULL);
		free(names[i]);
	}
	return TEST_RESULT();
}
