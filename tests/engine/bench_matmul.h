/* bench_matmul.h: speed of the matrix products beside what the machine can do, measured in the same minute. */
#ifndef TOKENMILL_TESTS_BENCH_MATMUL_H
#define TOKENMILL_TESTS_BENCH_MATMUL_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "engine/cpu/matmul.h"
#include "tests/engine/matmul_data.h"

/* One thread is measured in its own processor time, so that neighbours on the machine disturb less. */
static inline double bench_now(const struct workers *team)
{
	struct timespec t;

	clock_gettime(workers_count(team) == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Operations (multiply and add are two) of one call of the ceiling loops per iteration. */
enum { BENCH_ROUNDS = 20000 };
#if defined(__x86_64__)
#define BENCH_KEEP(v) __asm__ volatile("" : "+v"(v))

__attribute__((target("avx512f,avx512vnni"))) static inline double ceiling_int_avx512(void)
{
	__m512i acc[12], w = _mm512_set1_epi8(3), x = _mm512_set1_epi8(5);

#pragma GCC unroll 12
	for (int i = 0; i < 12; i++)
		acc[i] = _mm512_setzero_si512();
	for (int n = 0; n < BENCH_ROUNDS; n++)
#pragma GCC unroll 12
		for (int i = 0; i < 12; i++) {
			acc[i] = _mm512_dpbusd_epi32(acc[i], w, x);
			BENCH_KEEP(acc[i]);
		}
	return 12.0 * 64 * 2 * BENCH_ROUNDS;
}
__attribute__((target("avx512f"))) static inline double ceiling_float_avx512(void)
{
	__m512 acc[12], w = _mm512_set1_ps(0.5f), x = _mm512_set1_ps(0.25f);

#pragma GCC unroll 12
	for (int i = 0; i < 12; i++)
		acc[i] = _mm512_setzero_ps();
	for (int n = 0; n < BENCH_ROUNDS; n++)
#pragma GCC unroll 12
		for (int i = 0; i < 12; i++) {
			acc[i] = _mm512_fmadd_ps(w, x, acc[i]);
			BENCH_KEEP(acc[i]);
		}
	return 12.0 * 16 * 2 * BENCH_ROUNDS;
}
/* Eight vpmaddubsw summed in 16 bits before one vpmaddwd: the most that four-bit weights allow. */
__attribute__((target("avx2"))) static inline double ceiling_int_avx2(void)
{
	__m256i acc[6], w = _mm256_set1_epi8(3), x = _mm256_set1_epi8(5), ones = _mm256_set1_epi16(1);

#pragma GCC unroll 6
	for (int i = 0; i < 6; i++)
		acc[i] = _mm256_setzero_si256();
	for (int n = 0; n < BENCH_ROUNDS; n++)
#pragma GCC unroll 6
		for (int i = 0; i < 6; i++) {
			__m256i s = _mm256_maddubs_epi16(w, x);

#pragma GCC unroll 7
			for (int j = 0; j < 7; j++) {
				__m256i p = w;

				BENCH_KEEP(p);
				s = _mm256_add_epi16(s, _mm256_maddubs_epi16(p, x));
			}
			acc[i] = _mm256_add_epi32(acc[i], _mm256_madd_epi16(s, ones));
			BENCH_KEEP(acc[i]);
		}
	return 6.0 * 8 * 32 * 2 * BENCH_ROUNDS;
}
__attribute__((target("avx2,fma"))) static inline double ceiling_float_avx2(void)
{
	__m256 acc[12], w = _mm256_set1_ps(0.5f), x = _mm256_set1_ps(0.25f);

#pragma GCC unroll 12
	for (int i = 0; i < 12; i++)
		acc[i] = _mm256_setzero_ps();
	for (int n = 0; n < BENCH_ROUNDS; n++)
#pragma GCC unroll 12
		for (int i = 0; i < 12; i++) {
			acc[i] = _mm256_fmadd_ps(w, x, acc[i]);
			BENCH_KEEP(acc[i]);
		}
	return 12.0 * 8 * 2 * BENCH_ROUNDS;
}
#endif

typedef double (*ceiling_fn)(void);

static inline ceiling_fn find_ceiling(const char *isa, int is_integer)
{
#if defined(__x86_64__)
	if (strcmp(isa, "avx512") == 0)
		return is_integer ? ceiling_int_avx512 : ceiling_float_avx512;
	if (strcmp(isa, "avx2") == 0)
		return is_integer ? ceiling_int_avx2 : ceiling_float_avx2;
#endif
	return NULL;
}

typedef uint64_t bench_line __attribute__((vector_size(64)));

struct ceiling_job {
	ceiling_fn fn;
	const bench_line *memory; /* and n lines, or fn */
	size_t n;
	_Atomic double sum;
};

static inline void ceiling_run(void *arg, int thread, int n_threads)
{
	struct ceiling_job *job = arg;
	bench_line a = {0}, b = {0};

	if (job->fn) {
		job->fn();
		return;
	}
	for (size_t i = job->n * (size_t)thread / (size_t)n_threads; i + 2 <= job->n * (size_t)(thread + 1) / (size_t)n_threads;
	     i += 2) {
		__builtin_prefetch(job->memory + i + 64, 0, 3);
		__builtin_prefetch(job->memory + i + 65, 0, 3);
		a += job->memory[i];
		b += job->memory[i + 1];
	}
	a += b;
	if (a[0] + a[3] + a[7] == 42)
		job->sum = 1;
}

/* Best of some runs, as Gop/s or GB/s over all threads. */
static inline double bench_ceiling(struct workers *team, ceiling_fn fn, const void *memory, size_t n_bytes)
{
	struct ceiling_job job = {.fn = fn, .memory = memory, .n = n_bytes / 64};
	double best = 0, work = fn ? fn() * workers_count(team) : (double)n_bytes;

	for (int i = 0; i < (fn ? 20 : 5); i++) {
		double start = bench_now(team), speed;

		workers_run(team, ceiling_run, &job);
		speed = work / (bench_now(team) - start) * 1e-9;
		best = speed > best ? speed : best;
	}
	return best;
}

struct bench_case {
	struct workers *team;
	const char *isa;
	enum engine_math math;
	enum tensor_type type;
	int n_out, n_in, n_weights; /* as many matrices as do not fit the caches, used in turn */
};

static inline void bench_type(const struct bench_case *c, double dram)
{
	static const int rows[] = {1, 2, 4, 6, 8, 12, 16, 24, 32, 64, 256, 512};
	int is_integer = c->math == MATH_FAST && tensor_type_block(c->type) > 1;
	ceiling_fn fn = find_ceiling(c->isa, is_integer);
	struct err err = {0};
	struct cpu_matmul *m = cpu_matmul_new(c->team, c->isa, c->math, 512, c->n_in, &err);
	struct cpu_weight **w = xcalloc((size_t)c->n_weights, sizeof(struct cpu_weight *));
	struct tensor t = matmul_tensor(c->type, c->n_out, c->n_in, MATMUL_RANDOM, 1);
	float *x = xmalloc((size_t)512 * (size_t)c->n_in * 4), *y = xmalloc((size_t)512 * (size_t)c->n_out * 4);
	double start = bench_now(c->team), pack_seconds;

	for (int i = 0; i < c->n_weights; i++)
		if (!(w[i] = cpu_weight_new(m, &t, &err)))
			exit((puts(err.msg), 1));
	pack_seconds = bench_now(c->team) - start;
	matmul_random_x(x, (size_t)512 * (size_t)c->n_in, 2);
	printf("%-7s %-5s %s [%d, %d] x %d: packs %.2f G weights/s, %.3f bytes each\n", c->isa, tensor_type_name(c->type),
	       is_integer ? "int8" : "f32 ", c->n_out, c->n_in, c->n_weights,
	       1e-9 * c->n_out * (double)c->n_in * c->n_weights / pack_seconds,
	       (double)cpu_weight_bytes(w[0]) / c->n_out / c->n_in);
	for (size_t r = 0; r < sizeof(rows) / sizeof(rows[0]); r++) {
		double best = 0, ceiling = fn ? bench_ceiling(c->team, fn, NULL, 0) : 0, bytes = 0;
		double work = 2.0 * rows[r] * c->n_out * (double)c->n_in;
		int per_round = rows[r] >= 64 ? 2 : c->n_weights;

		for (int round = 0; round < 7; round++) {
			double t0 = bench_now(c->team), seconds;

			for (int i = 0; i < per_round; i++) {
				struct cpu_linear_out out = {.w = w[(round * per_round + i) % c->n_weights], .out = y};

				cpu_linear(m, x, rows[r], &out, 1);
			}
			seconds = (bench_now(c->team) - t0) / per_round;
			if (work / seconds > best) {
				best = work / seconds;
				bytes = (double)cpu_weight_bytes(w[0]) / seconds;
			}
		}
		printf("  %3d rows %8.1f Gop/s, %5.1f %% of %.0f; weights %6.1f GB/s, %5.1f %% of %.1f\n", rows[r], best * 1e-9,
		       ceiling > 0 ? best * 1e-7 / ceiling : 0, ceiling, bytes * 1e-9, bytes * 1e-7 / dram, dram);
	}
	for (int i = 0; i < c->n_weights; i++)
		cpu_weight_free(w[i]);
	free(w);
	free(x);
	free(y);
	matmul_tensor_free(&t);
	cpu_matmul_free(m);
}

/* bench [isa [type [threads [f32]]]] */
static inline int bench_matmul(int n_args, char **args)
{
	const char *isa = n_args > 0 ? args[0] : NULL, *type = n_args > 1 ? args[1] : "all";
	struct err err = {0};
	struct workers *team = workers_new(n_args > 2 ? atoi(args[2]) : workers_available_cpus(), &err);
	size_t n_bytes = (size_t)256 << 20;
	void *memory = mem_pages_new(n_bytes, &err);
	double dram;

	memset(memory, 1, n_bytes);
	dram = bench_ceiling(team, NULL, memory, n_bytes);
	mem_pages_free(memory, n_bytes);
	printf("%d threads, DRAM read %.1f GB/s\n", workers_count(team), dram);
	if (!isa)
		for (const char *const *i = backend_cpu_isas(); *i; i++)
			isa = *i;
	for (const enum tensor_type *t = matmul_types; t < matmul_types + MATMUL_N_TYPES; t++)
		if (strcmp(type, "all") == 0 || strcmp(type, tensor_type_name(*t)) == 0) {
			/* Qwen2.5-1.5B's hidden 1536 and part of its feed-forward */
			int n_in = 1536, n_out = 4480;
			double mb = (double)tensor_row_bytes(*t, n_in) * n_out * 1e-6;
			struct bench_case c = {team, isa, n_args > 3 ? MATH_F32 : MATH_FAST, *t, n_out, n_in, (int)(120 / mb) + 2};

			bench_type(&c, dram);
		}
	workers_free(team);
	return 0;
}

#endif
