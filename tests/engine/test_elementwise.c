/* test_elementwise.c: norms and activations against double precision, and the same bits whatever the instruction set, the number of
 * threads and the row's company. `test_elementwise bench` prints bytes per second. */
#include "engine/cpu/elementwise.h"

#include "base/clock.h"
#include "tests/check.h"
#include "tests/engine/isas.h"

static const char *isas[] = {"generic", "avx2", "avx512"};
enum { N_ISAS = 3 };

static uint64_t random_state = 1;
static float random_float(float scale) /* -scale .. scale */
{
	random_state = random_state * 6364136223846793005u + 1442695040888963407u;
	return scale * ((float)(random_state >> 40) / 8388608.0f - 1);
}

static float *random_floats(size_t n, float scale)
{
	float *x = malloc(n * sizeof(*x));

	for (size_t i = 0; i < n; i++)
		x[i] = random_float(scale);
	return x;
}

static float *copy_floats(const float *x, size_t n)
{
	float *y = malloc(n * sizeof(*y));

	memcpy(y, x, n * sizeof(*y));
	return y;
}

/* Largest distance in units of the tolerance: absolute plus relative. */
static double worst(const float *got, const double *want, size_t n, double absolute, double relative)
{
	double w = 0;

	for (size_t i = 0; i < n; i++) {
		double d = fabs((double)got[i] - want[i]) / (absolute + relative * fabs(want[i]));

		w = d > w || isnan(d) ? d : w;
	}
	return w;
}

static void norm_double(const float *x, const float *w, double eps, int width, double *out)
{
	double sum = 0;

	for (int i = 0; i < width; i++)
		sum += (double)x[i] * x[i];
	for (int i = 0; i < width; i++)
		out[i] = x[i] / sqrt(sum / width + eps) * w[i];
}

static double silu_double(double x)
{
	return x / (1 + exp(-x));
}

static double gelu_double(double x)
{
	return 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}

TEST(norm)
{
	static const int widths[] = {1, 7, 16, 31, 64, 576, 1000, 4096};

	for (size_t k = 0; k < sizeof(widths) / sizeof(*widths); k++) {
		int width = widths[k], n_rows = 37;
		size_t n = (size_t)n_rows * (size_t)width;
		float *x = random_floats(n, k % 2 ? 3 : 1e-3f), *w = random_floats((size_t)width, 2), *y = random_floats(n, 1), *first = NULL;
		double *want = malloc(n * sizeof(*want));
		int32_t rows_of[37];

		for (int i = 0; i < n_rows; i++) {
			rows_of[i] = i * 11 % n_rows;
			norm_double(x + rows_of[i] * width, w, 1e-6, width, want + i * width);
		}
		for (int s = 0; s < N_ISAS; s++)
			for (int threads = 1; threads <= 3 && isa_runs(isas[s]); threads++) {
				struct workers *team = workers_new(threads, NULL);
				struct cpu_elementwise e;
				float *out = malloc(n * sizeof(*out)), *alone = malloc(n * sizeof(*out)), *added = copy_floats(y, n), *in_place;

				cpu_elementwise_init(&e, team, isas[s]);
				cpu_norm(&e, x, w, 1e-6f, n_rows, width, rows_of, out);
				CHECK(worst(out, want, n, 1e-9, 1e-6) < 1);
				if (!first)
					first = copy_floats(out, n);
				CHECK(memcmp(out, first, n * sizeof(*out)) == 0);
				for (int i = 0; i < n_rows; i++)
					cpu_norm(&e, x, w, 1e-6f, 1, width, &rows_of[i], alone + i * width);
				CHECK(memcmp(alone, first, n * sizeof(*out)) == 0);

				in_place = copy_floats(x, n);
				cpu_norm(&e, in_place, w, 1e-6f, n_rows, width, NULL, in_place);
				cpu_norm_add(&e, added, x, w, 1e-6f, n_rows, width);
				for (int i = 0; i < n_rows; i++)
					CHECK(memcmp(in_place + rows_of[i] * width, first + i * width, (size_t)width * sizeof(float)) == 0);
				for (size_t i = 0; i < n; i++)
					if (added[i] != y[i] + in_place[i]) {
						CHECK_NEAR(added[i], y[i] + in_place[i], 0);
						break;
					}
				free(in_place);
				free(added);
				free(alone);
				free(out);
				workers_free(team);
			}
		free(first);
		free(want);
		free(y);
		free(w);
		free(x);
	}
}

static void check_act(enum activation act, double (*reference)(double), float range, double relative)
{
	size_t n = 3 * 8191;
	float *gate = random_floats(n, range), *up = random_floats(n, 2), *first = NULL;
	double *want = malloc(n * sizeof(*want));

	for (size_t i = 0; i < n; i++)
		want[i] = reference(gate[i]) * up[i];
	for (int s = 0; s < N_ISAS; s++)
		for (int threads = 1; threads <= 3 && isa_runs(isas[s]); threads++) {
			struct workers *team = workers_new(threads, NULL);
			struct cpu_elementwise e;
			float *x = copy_floats(gate, n);

			cpu_elementwise_init(&e, team, isas[s]);
			cpu_act_mul(&e, act, x, up, 3, 8191);
			CHECK(worst(x, want, n, 1e-30, relative) < 1);
			if (!first)
				first = copy_floats(x, n);
			CHECK(memcmp(x, first, n * sizeof(*x)) == 0);
			memcpy(x, gate, n * sizeof(*x));
			for (size_t i = 0; i < n; i += 1000)
				cpu_act_mul(&e, act, x + i, up + i, 1, (int32_t)(n - i < 1000 ? n - i : 1000));
			CHECK(memcmp(x, first, n * sizeof(*x)) == 0);
			free(x);
			workers_free(team);
		}
	free(first);
	free(want);
	free(up);
	free(gate);
}

/* Relative error: of exp for silu; for gelu an argument error of half an ulp in u is |2u| half ulps in exp(-2u). */
TEST(activations)
{
	check_act(ACT_SILU, silu_double, 80, 4e-7);
	check_act(ACT_SILU, silu_double, 1, 4e-7);
	check_act(ACT_SILU, silu_double, 1e-4f, 4e-7);
	check_act(ACT_GELU_TANH, gelu_double, 1, 1e-6);
	check_act(ACT_GELU_TANH, gelu_double, 4, 1e-5);
}

TEST(activation_edges)
{
	float values[] = {0, -0.0f, 1e-40f, -1e-40f, 87.5f, -87.5f, 1000, -1000, 3e38f, -3e38f, INFINITY, NAN};
	enum { N = sizeof(values) / sizeof(*values) };

	for (int s = 0; s < N_ISAS; s++) {
		struct workers *team = workers_new(1, NULL);
		struct cpu_elementwise e;
		float x[N], up[N];

		for (int act = ACT_SILU; act <= ACT_GELU_TANH && isa_runs(isas[s]); act++) {
			memcpy(x, values, sizeof(x));
			for (int i = 0; i < N; i++)
				up[i] = 1;
			cpu_elementwise_init(&e, team, isas[s]);
			cpu_act_mul(&e, (enum activation)act, x, up, 1, N);
			CHECK(x[0] == 0 && x[1] == 0);
			CHECK_NEAR(x[4], 87.5, 1e-5);
			CHECK_NEAR(x[5], 0, 1e-30);
			CHECK_NEAR(x[6], 1000, 1e-3);
			CHECK_NEAR(x[7], 0, 1e-30);
			CHECK(x[8] == 3e38f);
			CHECK(fabsf(x[9]) < 2); /* -3e38 / 2.4e38: the end of exp's range */
			CHECK(x[10] == INFINITY);
			CHECK(isnan(x[11]));
		}
		workers_free(team);
	}
}

static void bench(int threads)
{
	struct workers *team = workers_new(threads, NULL);
	int n_rows = 64, width = 1536;
	size_t n = (size_t)n_rows * (size_t)width;
	float *x = random_floats(n, 1), *y = random_floats(n, 1), *w = random_floats((size_t)width, 1), *out = random_floats(n, 1);

	for (int s = 0; s < N_ISAS; s++) {
		struct cpu_elementwise e;
		double best[3] = {1e9, 1e9, 1e9};

		if (!isa_runs(isas[s]))
			continue;
		cpu_elementwise_init(&e, team, isas[s]);
		for (int i = 0; i < 200; i++) {
			double t0 = clock_seconds(), t1;

			cpu_norm(&e, x, w, 1e-5f, n_rows, width, NULL, out);
			t1 = clock_seconds();
			best[0] = fmin(best[0], t1 - t0);
			for (int act = 1; act <= 2; act++) {
				memcpy(out, x, n * sizeof(*out)); /* done twice in place, it would end in subnormal numbers */
				t0 = clock_seconds();
				cpu_act_mul(&e, act == 1 ? ACT_SILU : ACT_GELU_TANH, out, y, n_rows, width);
				t1 = clock_seconds();
				best[act] = fmin(best[act], t1 - t0);
			}
		}
		printf("%-8s %d threads, %d x %d: norm %.1f us, silu_mul %.1f us, gelu_mul %.1f us (%.2f, %.2f, %.2f elements/ns)\n", isas[s], threads,
		       n_rows, width, best[0] * 1e6, best[1] * 1e6, best[2] * 1e6, (double)n / best[0] * 1e-9, (double)n / best[1] * 1e-9,
		       (double)n / best[2] * 1e-9);
	}
	free(out);
	free(w);
	free(y);
	free(x);
	workers_free(team);
}

int main(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], "bench") == 0) {
		bench(1);
		bench(workers_available_cpus());
		return 0;
	}
	RUN(norm);
	RUN(activations);
	RUN(activation_edges);
	return TEST_RESULT();
}
