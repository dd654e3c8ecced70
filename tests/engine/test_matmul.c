/* test_matmul.c: matrix products of every weight type.
 *
 * Against a reference in double made from dequantize_row and, for `fast`, this file's own int8 rounding of x; and bit for
 * bit between instruction sets, numbers of rows, places in the batch and numbers of threads. `test_matmul bench [type]`
 * prints speeds beside the machine's ceilings, see bench_matmul.h. */
#include "engine/cpu/matmul.h"

#include "base/mem.h"
#include "tests/check.h"
#include "tests/engine/bench_matmul.h"
#include "tests/engine/matmul_data.h"

enum { MAX_ROWS = 130, MAX_IN = 1024, N_OUT = 16 * 5 + 3 };

static const int row_counts[] = {1, 2, 3, 5, 8, 17, 64, 130};
#define N_ROW_COUNTS (int)(sizeof(row_counts) / sizeof(row_counts[0]))

/* The recipe of matmul.h: what x is after quantisation. */
static void round_x(const float *x, int n_in, double *out)
{
	for (int b = 0; b < n_in; b += 32) {
		float amax = 0;

		for (int i = 0; i < 32; i++)
			amax = fabsf(x[b + i]) > amax ? fabsf(x[b + i]) : amax;
		for (int i = 0; i < 32; i++)
			out[b + i] = amax == 0 ? 0 : (double)nearbyintf(x[b + i] * (127.0f / amax)) * (double)(amax / 127.0f);
	}
}

/* Largest |y - reference| / sum |x w| over all elements. */
static double worst_error(const struct tensor *t, const float *x, int n_rows, int is_fast, const float *y)
{
	int n_in = (int)t->shape[1], n_out = (int)t->shape[0];
	size_t row_bytes = tensor_row_bytes(t->type, n_in);
	double worst = 0;
	float *w = xmalloc((size_t)n_in * sizeof(*w));
	double *xr = xmalloc((size_t)n_in * sizeof(*xr));

	for (int r = 0; r < n_rows; r++) {
		for (int k = 0; k < n_in; k++)
			xr[k] = (double)x[r * n_in + k];
		if (is_fast)
			round_x(x + r * n_in, n_in, xr);
		for (int o = 0; o < n_out; o++) {
			double sum = 0, size = 1e-30, e;

			dequantize_row(t->type, (const char *)t->data + (size_t)o * row_bytes, w, n_in);
			for (int k = 0; k < n_in; k++) {
				sum += xr[k] * (double)w[k];
				size += fabs(xr[k] * (double)w[k]);
			}
			e = fabs((double)y[r * n_out + o] - sum) / size;
			worst = e > worst || isnan(e) ? e : worst;
		}
	}
	free(w);
	free(xr);
	return worst;
}

static int is_float(enum tensor_type t)
{
	return tensor_type_block(t) == 1;
}

/* y of rows first .. first+n-1 of x, on a fresh workspace. */
static void compute(const char *isa, enum engine_math math, int n_threads, const struct tensor *t, const float *x, int n_rows,
                    float *y)
{
	struct err err = {0};
	struct workers *team = workers_new(n_threads, &err);
	struct cpu_matmul *m = cpu_matmul_new(team, isa, math, n_rows, MAX_IN, &err);
	struct cpu_weight *w = cpu_weight_new(m, t, &err);
	struct cpu_linear_out out = {.w = w, .out = y};

	CHECK_STR(err.msg, "");
	cpu_linear(m, x, n_rows, &out, 1);
	cpu_weight_free(w);
	cpu_matmul_free(m);
	workers_free(team);
}

static void same_bytes(const struct tensor *t, enum engine_math math, const float *x, const char *what)
{
	int n_in = (int)t->shape[1];
	size_t row = N_OUT * sizeof(float);
	float *base = xmalloc(MAX_ROWS * row), *y = xmalloc(MAX_ROWS * row);
	double limit = 3e-6, e; /* sums of float rounding over a few hundred terms */

	compute("generic", math, 1, t, x, MAX_ROWS, base);
	e = worst_error(t, x, 9, math == MATH_FAST && !is_float(t->type), base);
	if (!(e < limit)) {
		printf("%s, %s, math %d: error %.3g\n", tensor_type_name(t->type), what, (int)math, e);
		check_failed_now = 1;
	}
	for (const char *const *isa = backend_cpu_isas(); *isa; isa++)
		for (int i = 0; i < N_ROW_COUNTS; i++)
			for (int threads = 1; threads <= 3; threads++) {
				int n = row_counts[i], first = MAX_ROWS - n;

				memset(y, 0xff, MAX_ROWS * row);
				compute(*isa, math, threads, t, x + first * n_in, n, y);
				if (memcmp(y, (char *)base + (size_t)first * row, (size_t)n * row) != 0) {
					printf("%s, %s, math %d: %s with %d rows and %d threads gives other bytes\n", tensor_type_name(t->type),
					       what, (int)math, *isa, n, threads);
					check_failed_now = 1;
				}
			}
	free(base);
	free(y);
}

static void check_type(enum tensor_type type)
{
	/* odd numbers of blocks and of columns where the type allows them */
	int n_in = is_float(type) ? 333 : tensor_type_block(type) == 32 ? 32 * 23 : 256 * 3;
	float *x = xmalloc((size_t)MAX_ROWS * (size_t)n_in * sizeof(*x));
	struct tensor t = matmul_tensor(type, N_OUT, n_in, MATMUL_RANDOM, 7);

	matmul_random_x(x, (size_t)MAX_ROWS * (size_t)n_in, 3);
	for (enum engine_math math = MATH_FAST; math <= MATH_F32; math++)
		same_bytes(&t, math, x, "random");
	matmul_tensor_free(&t);

	/* Codes all at their largest and x all at +-127: what would saturate. */
	t = matmul_tensor(type, N_OUT, n_in, MATMUL_LARGEST, 7);
	for (size_t i = 0; i < (size_t)MAX_ROWS * (size_t)n_in; i++)
		x[i] = i / (size_t)n_in % 2 ? -1.5f : 1.5f;
	same_bytes(&t, MATH_FAST, x, "largest");
	matmul_tensor_free(&t);
	t = matmul_tensor(type, N_OUT, n_in, MATMUL_SMALLEST, 7);
	same_bytes(&t, MATH_FAST, x, "smallest");
	matmul_tensor_free(&t);
	free(x);
}

#define TEST_TYPE(name)                                                                                                        \
	TEST(name)                                                                                                                 \
	{                                                                                                                          \
		check_type(TENSOR_##name);                                                                                             \
	}
TEST_TYPE(F32)
TEST_TYPE(F16)
TEST_TYPE(BF16)
TEST_TYPE(Q4_0)
TEST_TYPE(Q4_1)
TEST_TYPE(Q5_0)
TEST_TYPE(Q5_1)
TEST_TYPE(Q8_0)
TEST_TYPE(Q2_K)
TEST_TYPE(Q3_K)
TEST_TYPE(Q4_K)
TEST_TYPE(Q5_K)
TEST_TYPE(Q6_K)
TEST_TYPE(Q8_K)

/* Rows out of the packed layout are the file's, to the bit. */
TEST(embed)
{
	struct err err = {0};
	const int32_t ids[] = {0, 1, 15, 16, 40, N_OUT - 1, 40};
	enum { N_IDS = 7 };

	for (const enum tensor_type *type = matmul_types; type < matmul_types + MATMUL_N_TYPES; type++) {
		int n_in = is_float(*type) ? 333 : tensor_type_block(*type) == 32 ? 32 * 23 : 256 * 3;
		struct tensor t = matmul_tensor(*type, N_OUT, n_in, MATMUL_RANDOM, 11);
		float out[N_IDS * MAX_IN], row[MAX_IN];

		for (const char *const *isa = backend_cpu_isas(); *isa; isa++) {
			struct workers *team = workers_new(2, &err);
			struct cpu_matmul *m = cpu_matmul_new(team, *isa, MATH_FAST, 8, MAX_IN, &err);
			struct cpu_weight *w = cpu_weight_new(m, &t, &err);
			size_t file_bytes = t.n_bytes / N_OUT * ((N_OUT + 15) / 16 * 16); /* with padding to 16 rows */

			CHECK_STR(err.msg, "");
			CHECK(cpu_weight_bytes(w) <= file_bytes + file_bytes / 10);
			CHECK_INT(cpu_weight_n_in(w), n_in);
			CHECK_INT(cpu_weight_n_out(w), N_OUT);
			cpu_embed(m, w, ids, N_IDS, 1.5f, out);
			for (int i = 0; i < N_IDS; i++) {
				dequantize_row(*type, (const char *)t.data + (size_t)ids[i] * (t.n_bytes / N_OUT), row, n_in);
				for (int k = 0; k < n_in; k++)
					row[k] *= 1.5f;
				CHECK(memcmp(out + i * n_in, row, (size_t)n_in * sizeof(float)) == 0);
			}
			cpu_weight_free(w);
			cpu_matmul_free(m);
			workers_free(team);
		}
		matmul_tensor_free(&t);
	}
}

/* Several matrices of several types on one x, bias, residual. */
TEST(outs)
{
	enum { N_IN = 512, ROWS = 21 };
	static const enum tensor_type types[] = {TENSOR_Q4_K, TENSOR_F16, TENSOR_Q6_K, TENSOR_Q4_1};
	static const int n_outs[] = {48, 17, 80, 5};
	struct err err = {0};
	float *x = xmalloc(ROWS * N_IN * sizeof(*x)), bias[80], *alone[4], *together[4];
	struct tensor t[4];

	matmul_random_x(x, ROWS * N_IN, 5);
	matmul_random_x(bias, 80, 6);
	for (const char *const *isa = backend_cpu_isas(); *isa; isa++) {
		struct workers *team = workers_new(3, &err);
		struct cpu_matmul *m = cpu_matmul_new(team, *isa, MATH_FAST, ROWS, N_IN, &err);
		struct cpu_linear_out outs[4];

		for (int i = 0; i < 4; i++) {
			t[i] = matmul_tensor(types[i], n_outs[i], N_IN, MATMUL_RANDOM, (uint64_t)i);
			alone[i] = xcalloc(ROWS * (size_t)n_outs[i], sizeof(float));
			together[i] = xcalloc(ROWS * (size_t)n_outs[i], sizeof(float));
			outs[i] = (struct cpu_linear_out){.w = cpu_weight_new(m, &t[i], &err), .out = alone[i]};
			cpu_linear(m, x, ROWS, &outs[i], 1);
			for (int r = 0; r < ROWS; r++)
				for (int o = 0; o < n_outs[i]; o++) {
					float *a = &alone[i][r * n_outs[i] + o];

					together[i][r * n_outs[i] + o] = (float)(r - o) / 3;
					if (i % 2 == 0)
						*a += bias[o];
					if (i >= 2)
						*a += (float)(r - o) / 3;
				}
			outs[i].bias = i % 2 == 0 ? bias : NULL;
			outs[i].accumulate = i >= 2;
			outs[i].out = together[i];
		}
		CHECK_STR(err.msg, "");
		cpu_linear(m, x, ROWS, outs, 4);
		for (int i = 0; i < 4; i++) {
			CHECK(memcmp(alone[i], together[i], ROWS * (size_t)n_outs[i] * sizeof(float)) == 0);
			cpu_weight_free((struct cpu_weight *)(uintptr_t)outs[i].w);
			matmul_tensor_free(&t[i]);
			free(alone[i]);
			free(together[i]);
		}
		cpu_matmul_free(m);
		workers_free(team);
	}
	free(x);
}

/* An infinity or NaN in x shows in its own row and in no other; zeros and tiny values are no trouble. */
TEST(strange_x)
{
	enum { N_IN = 256, ROWS = 6 };
	struct err err = {0};
	struct tensor t = matmul_tensor(TENSOR_Q4_1, N_OUT, N_IN, MATMUL_RANDOM, 1);
	float x[ROWS * N_IN] = {0}, y[ROWS * N_OUT];

	for (const char *const *isa = backend_cpu_isas(); *isa; isa++) {
		struct workers *team = workers_new(1, &err);
		struct cpu_matmul *m = cpu_matmul_new(team, *isa, MATH_FAST, ROWS, N_IN, &err);
		struct cpu_linear_out out = {.w = cpu_weight_new(m, &t, &err), .out = y};

		matmul_random_x(x, 2 * N_IN, 9);
		x[1 * N_IN + 5] = NAN;
		x[2 * N_IN + 40] = INFINITY;
		x[3 * N_IN + 7] = 1e-42f;
		x[5 * N_IN + 250] = -3e38f;
		cpu_linear(m, x, ROWS, &out, 1);
		for (int o = 0; o < N_OUT; o++) {
			CHECK(isfinite(y[o]));
			CHECK(isnan(y[1 * N_OUT + o]));
			CHECK(isnan(y[2 * N_OUT + o]));
			CHECK(y[3 * N_OUT + o] == 0);
			CHECK(y[4 * N_OUT + o] == 0);
			CHECK(!isnan(y[5 * N_OUT + o]));
		}
		cpu_weight_free((struct cpu_weight *)(uintptr_t)out.w);
		cpu_matmul_free(m);
		workers_free(team);
	}
	matmul_tensor_free(&t);
}

TEST(errors)
{
	struct err err = {0};
	struct workers *team = workers_new(1, &err);
	struct cpu_matmul *m = cpu_matmul_new(team, "generic", MATH_FAST, 4, 512, &err);
	struct tensor t = matmul_tensor(TENSOR_Q4_K, 16, 512, MATMUL_RANDOM, 1), bad;

#define REFUSED(change, text)                                                                                                  \
	do {                                                                                                                       \
		bad = t;                                                                                                               \
		change;                                                                                                                \
		err_clear(&err);                                                                                                       \
		CHECK(cpu_weight_new(m, &bad, &err) == NULL);                                                                          \
		CHECK_INT(err.code, ERR_MODEL);                                                                                        \
		CHECK(strstr(err.msg, bad.name) && strstr(err.msg, text));                                                             \
	} while (0)
	REFUSED(bad.shape[1] = 500, "multiple of 256");
	REFUSED(bad.shape[1] = 1024, "widest");
	REFUSED(bad.shape[0] = 17, "bytes");
	REFUSED(bad.shape[0] = 0, "dimensions");
	REFUSED(bad.n_dims = 3, "dimensions");
	REFUSED(bad.data = NULL, "bytes");
	REFUSED(bad.type = (enum tensor_type)99, "99");
	err_clear(&err);
	CHECK(cpu_matmul_new(team, "mmx", MATH_FAST, 4, 512, &err) == NULL);
	CHECK_INT(err.code, ERR_USAGE);
	CHECK(strstr(err.msg, "mmx") != NULL);
	matmul_tensor_free(&t);
	cpu_matmul_free(m);
	workers_free(team);
}

int main(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], "bench") == 0)
		return bench_matmul(argc - 2, argv + 2);
	test_isas_print_missing();
	RUN(F32);
	RUN(F16);
	RUN(BF16);
	RUN(Q4_0);
	RUN(Q4_1);
	RUN(Q5_0);
	RUN(Q5_1);
	RUN(Q8_0);
	RUN(Q2_K);
	RUN(Q3_K);
	RUN(Q4_K);
	RUN(Q5_K);
	RUN(Q6_K);
	RUN(Q8_K);
	RUN(embed);
	RUN(outs);
	RUN(strange_x);
	RUN(errors);
	return TEST_RESULT();
}
