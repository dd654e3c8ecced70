/* workers.h: a fixed team of threads that runs one function at a time, all together (fork and join).
 *
 * workers_run(team, fn, arg) calls fn(arg, i, n) once on each of the n threads, the caller being thread 0, and returns when
 * all have returned. Between runs the threads spin for a short while, then sleep. Work inside fn is shared out either
 * statically by (i, n) or with a `struct work_counter`. Whoever splits work so that results do not depend on who
 * does which part gets results that do not depend on n: that is the engine's determinism promise, and not this
 * module's business.
 *
 * One run at a time: workers_run is called by one thread.
 */
#ifndef TOKENMILL_BASE_WORKERS_H
#define TOKENMILL_BASE_WORKERS_H

#include <stdatomic.h>
#include <stddef.h>

#include "base/errors.h"

struct workers;
typedef void (*workers_fn)(void *arg, int thread, int n_threads);

/* n_threads >= 1; NULL and *err when threads cannot be made. */
struct workers *workers_new(int n_threads, struct err *err);
void workers_free(struct workers *w);
int workers_count(const struct workers *w);
void workers_run(struct workers *w, workers_fn fn, void *arg);

/* Meet inside a run: returns when all threads of the run have called it. */
void workers_barrier(struct workers *w);

/* Hands out items 0..n-1 one after another to whoever asks. Reset before the run (or by one thread between barriers). */
struct work_counter {
	_Alignas(64) atomic_size_t next;
};
static inline void work_counter_reset(struct work_counter *c)
{
	atomic_store_explicit(&c->next, 0, memory_order_relaxed);
}
static inline size_t work_counter_take(struct work_counter *c, size_t how_many)
{
	return atomic_fetch_add_explicit(&c->next, how_many, memory_order_relaxed);
}

/* Processors this process may use: the affinity mask, and the cgroup's CPU quota rounded up. At least 1. */
int workers_available_cpus(void);

#endif
