/* aside.c: a mutex, a condition for each side, and one slot for what is to be done. */
#include "base/aside.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

struct aside {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t given, done;
	aside_fn fn; /* NULL: nothing to do */
	void *arg;
	int is_over;
};

static void *serve(void *p)
{
	struct aside *a = p;

	pthread_mutex_lock(&a->lock);
	for (;;) {
		while (!a->fn && !a->is_over)
			pthread_cond_wait(&a->given, &a->lock);
		if (!a->fn)
			break;
		pthread_mutex_unlock(&a->lock);
		a->fn(a->arg);
		pthread_mutex_lock(&a->lock);
		a->fn = NULL;
		pthread_cond_signal(&a->done);
	}
	pthread_mutex_unlock(&a->lock);
	return NULL;
}

struct aside *aside_new(struct err *err)
{
	struct aside *a = xcalloc(1, sizeof(*a));
	sigset_t all, before;
	int rc;

	pthread_mutex_init(&a->lock, NULL);
	pthread_cond_init(&a->given, NULL);
	pthread_cond_init(&a->done, NULL);
	/* Signals are the owner's: it is its waits that they are to cut short. */
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	rc = pthread_create(&a->thread, NULL, serve, a);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (rc == 0)
		return a;
	err_set(err, ERR_OTHER, "cannot start a thread: %s", strerror(rc));
	pthread_cond_destroy(&a->given);
	pthread_cond_destroy(&a->done);
	pthread_mutex_destroy(&a->lock);
	free(a);
	return NULL;
}

void aside_free(struct aside *a)
{
	if (!a)
		return;
	aside_wait(a);
	pthread_mutex_lock(&a->lock);
	a->is_over = 1;
	pthread_cond_signal(&a->given);
	pthread_mutex_unlock(&a->lock);
	pthread_join(a->thread, NULL);
	pthread_cond_destroy(&a->given);
	pthread_cond_destroy(&a->done);
	pthread_mutex_destroy(&a->lock);
	free(a);
}

void aside_start(struct aside *a, aside_fn fn, void *arg)
{
	aside_wait(a);
	pthread_mutex_lock(&a->lock);
	a->fn = fn;
	a->arg = arg;
	pthread_cond_signal(&a->given);
	pthread_mutex_unlock(&a->lock);
}

void aside_wait(struct aside *a)
{
	pthread_mutex_lock(&a->lock);
	while (a->fn)
		pthread_cond_wait(&a->done, &a->lock);
	pthread_mutex_unlock(&a->lock);
}
