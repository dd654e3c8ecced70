/* workers.c: fork-join threads. A run is announced by raising `generation`; helpers wait for it by spinning a short while
 * and then on a futex-backed condition variable, since between two runs of one forward step there are microseconds and
 * between two steps there may be milliseconds of single-threaded scheduling. */
#include "base/workers.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

/* Some 50 us where a pause takes 40 to 140 cycles: longer than the gaps inside a forward step, and not so long that the thread that is
 * waited for loses its turn when more threads want to run than there are processors. */
enum { SPIN_ROUNDS = 2000 };

struct workers {
	int n_threads;
	pthread_t *threads; /* [n_threads - 1] */
	pthread_mutex_t lock;
	pthread_cond_t wake;
	_Alignas(64) atomic_uint generation; /* raised once for each run; odd bit not special */
	atomic_int stop;
	_Alignas(64) atomic_int n_running; /* helpers that have not finished the current run */
	_Alignas(64) atomic_uint barrier_round;
	atomic_int barrier_arrived;
	workers_fn fn;
	void *arg;
};

struct start {
	struct workers *w;
	int index;
};

static inline void relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

static unsigned wait_for_run(struct workers *w, unsigned seen)
{
	unsigned now;

	for (int i = 0; i < SPIN_ROUNDS; i++) {
		now = atomic_load_explicit(&w->generation, memory_order_acquire);
		if (now != seen)
			return now;
		relax();
	}
	pthread_mutex_lock(&w->lock);
	while ((now = atomic_load_explicit(&w->generation, memory_order_acquire)) == seen)
		pthread_cond_wait(&w->wake, &w->lock);
	pthread_mutex_unlock(&w->lock);
	return now;
}

static void *helper(void *p)
{
	struct start s = *(struct start *)p;
	unsigned seen = 0;

	free(p);
	for (;;) {
		seen = wait_for_run(s.w, seen);
		if (atomic_load(&s.w->stop))
			return NULL;
		s.w->fn(s.w->arg, s.index, s.w->n_threads);
		atomic_fetch_sub_explicit(&s.w->n_running, 1, memory_order_release);
	}
}

static void announce(struct workers *w)
{
	pthread_mutex_lock(&w->lock);
	atomic_fetch_add_explicit(&w->generation, 1, memory_order_release);
	pthread_cond_broadcast(&w->wake);
	pthread_mutex_unlock(&w->lock);
}

struct workers *workers_new(int n_threads, struct err *err)
{
	struct workers *w;

	if (n_threads < 1 || n_threads > 4096) {
		err_set(err, ERR_USAGE, "number of threads is %d, must be 1 to 4096", n_threads);
		return NULL;
	}
	w = aligned_alloc(64, (sizeof(*w) + 63) & ~(size_t)63);
	if (!w)
		abort();
	memset(w, 0, sizeof(*w));
	w->n_threads = 1;
	w->threads = xcalloc((size_t)n_threads, sizeof(*w->threads));
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->wake, NULL);
	for (int i = 1; i < n_threads; i++) {
		struct start *s = xmalloc(sizeof(*s));

		*s = (struct start){w, i};
		if (pthread_create(&w->threads[i - 1], NULL, helper, s) != 0) {
			free(s);
			err_set(err, ERR_ENGINE, "cannot start thread %d of %d", i + 1, n_threads);
			workers_free(w);
			return NULL;
		}
		w->n_threads++;
	}
	return w;
}

void workers_free(struct workers *w)
{
	if (!w)
		return;
	atomic_store(&w->stop, 1);
	announce(w);
	for (int i = 1; i < w->n_threads; i++)
		pthread_join(w->threads[i - 1], NULL);
	pthread_cond_destroy(&w->wake);
	pthread_mutex_destroy(&w->lock);
	free(w->threads);
	free(w);
}

int workers_count(const struct workers *w)
{
	return w->n_threads;
}

/* More threads than processors: spinning would keep the one that is waited for from running. */
static void wait_step(int *round)
{
	if (++*round < SPIN_ROUNDS)
		relax();
	else
		sched_yield();
}

void workers_run(struct workers *w, workers_fn fn, void *arg)
{
	int round = 0;

	w->fn = fn;
	w->arg = arg;
	if (w->n_threads == 1) {
		fn(arg, 0, 1);
		return;
	}
	atomic_store_explicit(&w->n_running, w->n_threads - 1, memory_order_relaxed);
	announce(w);
	fn(arg, 0, w->n_threads);
	while (atomic_load_explicit(&w->n_running, memory_order_acquire) > 0)
		wait_step(&round);
}

void workers_barrier(struct workers *w)
{
	unsigned round;
	int spins = 0;

	if (w->n_threads == 1)
		return;
	round = atomic_load_explicit(&w->barrier_round, memory_order_relaxed);
	if (atomic_fetch_add_explicit(&w->barrier_arrived, 1, memory_order_acq_rel) == w->n_threads - 1) {
		atomic_store_explicit(&w->barrier_arrived, 0, memory_order_relaxed);
		atomic_fetch_add_explicit(&w->barrier_round, 1, memory_order_release);
		return;
	}
	while (atomic_load_explicit(&w->barrier_round, memory_order_acquire) == round)
		wait_step(&spins);
}

/* cgroup v2: "max 100000" or "200000 100000"; v1: two files. Both as seen from inside a container. */
static int quota_cpus(void)
{
	long long quota = -1, period = 100000;
	FILE *f = fopen("/sys/fs/cgroup/cpu.max", "r");

	if (f) {
		if (fscanf(f, "%lld %lld", &quota, &period) != 2)
			quota = -1;
		fclose(f);
	} else if ((f = fopen("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "r"))) {
		if (fscanf(f, "%lld", &quota) != 1)
			quota = -1;
		fclose(f);
		if ((f = fopen("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "r"))) {
			if (fscanf(f, "%lld", &period) != 1)
				period = 100000;
			fclose(f);
		}
	}
	if (quota <= 0 || period <= 0)
		return 4096;
	return (int)((quota + period - 1) / period);
}

int workers_available_cpus(void)
{
	cpu_set_t set;
	int n = 1, quota = quota_cpus();

	if (sched_getaffinity(0, sizeof(set), &set) == 0)
		n = CPU_COUNT(&set);
	if (n > quota)
		n = quota;
	return n < 1 ? 1 : n;
}
