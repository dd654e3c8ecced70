/* test_cuda_models.c: the whole CUDA backend under the host shim generates the tokens that the CPU backend generates in f32:
 * every small model of tests/engine/goldens (families, rope scalings, tensor types), prompt in pieces, threads in shuffled
 * order. */
#include <dirent.h>

#include "base/mem.h"
#include "engine/cuda/backend_cuda.h"
#include "engine/forward.h"
#include "tests/check.h"
#include "tests/rigs/cuda_shim/cuda_shim.h"

enum { MAX_TOKENS = 40, N_BLOCKS = 8, N_PROMPT = 21, FIRST_PIECE = 13, N_GENERATED = 10 };

/* Largest difference of a logit, as a share of the largest one: 30 layers' worth of other orders of sums. */
static const double tolerance = 1e-4;

struct side {
	struct backend *backend;
	struct forward *forward;
	int32_t tokens[MAX_TOKENS];
	float *logits; /* [n_vocab] after the last piece */
};

static int side_open(struct side *s, struct backend *b, const struct model *m, struct err *err)
{
	struct kv_shape shape = {m->config.n_layers, m->config.n_kv_heads, m->config.head_dim, KV_F32};

	*s = (struct side){.backend = b};
	if (!b)
		return -1;
	s->forward = forward_new(b, m, MAX_TOKENS, 1, err);
	if (s->forward && b->ops->loaded_bytes(b) == 0)
		return err_set(err, ERR_OTHER, "nothing was loaded");
	return s->forward ? b->ops->kv_alloc(b, &shape, N_BLOCKS, err) : -1;
}

static void side_close(struct side *s)
{
	forward_free(s->forward);
	if (s->backend)
		s->backend->ops->free(s->backend);
}

static int compute(struct side *s, int first, int n, struct err *err)
{
	static const int32_t blocks[N_BLOCKS] = {5, 2, 7, 0, 1, 3, 4, 6};
	int32_t positions[MAX_TOKENS], row = n - 1;
	struct batch_seq seq = {blocks, 0, n, first};
	struct batch batch = {n, s->tokens + first, positions, 1, &seq, 1, &row};

	for (int i = 0; i < n; i++)
		positions[i] = first + i;
	if (forward_run(s->forward, &batch, err) < 0)
		return -1;
	s->logits = forward_logits(s->forward, 0, 1, err);
	return s->logits ? 0 : -1;
}

static int best_of(const float *x, int n)
{
	int best = 0;

	for (int i = 1; i < n; i++)
		if (x[i] > x[best])
			best = i;
	return best;
}

static double difference(const float *a, const float *b, int n)
{
	double worst = 0, largest = 0;

	for (int i = 0; i < n; i++) {
		double d = fabs((double)a[i] - (double)b[i]);

		largest = fabs((double)a[i]) > largest ? fabs((double)a[i]) : largest;
		if (!(d <= worst))
			worst = d;
	}
	return worst / largest;
}

static void check_model(const char *path, const char *name)
{
	struct err err = {0};
	struct model *m = model_open(path, &err);
	struct cpu_options cpu = {.n_threads = 1, .math = MATH_F32};
	struct cuda_options cuda = {.api = tokenmill_gpu_api(), .n_threads = 1};
	struct side side[2] = {{0}, {0}};
	int n_vocab, n = N_PROMPT;

	check_failed_now = 0;
	if (!m || side_open(&side[0], backend_cpu_new(&m->config, &cpu, MAX_TOKENS, &err), m, &err) < 0 ||
	    side_open(&side[1], backend_cuda_new(&m->config, &cuda, MAX_TOKENS, &err), m, &err) < 0) {
		printf("%s: %s\n", name, err.msg);
		check_failed_now = 1;
		goto out;
	}
	CHECK_INT(side[1].backend->ops->loaded_bytes(side[1].backend), forward_weight_bytes(m, backend_cuda_matrix_bytes));
	n_vocab = m->config.n_vocab;
	for (int i = 0; i < N_PROMPT; i++)
		side[0].tokens[i] = side[1].tokens[i] = (i * 37 + 5) % n_vocab;
	for (int i = 0; i < 2; i++)
		CHECK_OK(compute(&side[i], 0, FIRST_PIECE, &err), err);
	for (int i = 0; i < 2; i++)
		CHECK_OK(compute(&side[i], FIRST_PIECE, N_PROMPT - FIRST_PIECE, &err), err);
	while (!check_failed_now) {
		double d = difference(side[0].logits, side[1].logits, n_vocab);

		if (!(d <= tolerance)) {
			printf("%s: logits after %d tokens differ by %g of the largest\n", name, n, d);
			check_failed_now = 1;
		}
		for (int i = 0; i < 2; i++)
			side[i].tokens[n] = best_of(side[i].logits, n_vocab);
		CHECK_INT(side[0].tokens[n], side[1].tokens[n]);
		if (++n == N_PROMPT + N_GENERATED)
			break;
		for (int i = 0; i < 2; i++)
			CHECK_OK(compute(&side[i], n - 1, 1, &err), err);
	}
out:
	side_close(&side[0]);
	side_close(&side[1]);
	model_free(m);
	CHECK_INT(cuda_shim_used_bytes(), 0);
	printf("%s same_tokens_%s\n", check_failed_now ? "FAIL" : "ok", name);
	check_n_failed += check_failed_now;
}

int main(void)
{
	const char *source = getenv("TOKENMILL_SOURCE");
	char dir[4096], path[8192];
	struct dirent *entry;
	int n = 0;
	DIR *d;

	snprintf(dir, sizeof(dir), "%s/tests/engine/goldens", source ? source : ".");
	d = opendir(dir);
	while (d && (entry = readdir(d))) {
		if (entry->d_name[0] == '.' || strstr(entry->d_name, ".json") || strstr(entry->d_name, ".md"))
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir, entry->d_name);
		check_model(path, entry->d_name);
		n++;
	}
	if (d)
		closedir(d);
	if (n < 10) {
		printf("FAIL goldens (%d models found)\n", n);
		check_n_failed++;
	}
	return TEST_RESULT();
}
