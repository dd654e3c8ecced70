/* submit_local.c: start, wait, start again. */
#include "runner/submit_local.h"

#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "runner/signals.h"

extern char **environ;

struct child {
	pid_t pid; /* 0: does not run */
	int64_t n_failures, n_restarts;
	double start_at; /* when it is to be started, by clock_seconds; < 0: never again */
};

struct supervisor {
	const struct submit_local *l;
	struct child *children;
	int is_stopping; /* nothing is started any more */
	int n_given_up;
	enum err_code failed_with; /* of the worker that failed the job */
	int failed_worker;
};

/* The code behind an exit status; ERR_OTHER for those that have none. */
static enum err_code code_of(int exit_status)
{
	for (int c = 1; c < ERR_N_CODES; c++)
		if (err_exit_code((enum err_code)c) == exit_status && c != ERR_USAGE)
			return (enum err_code)c;
	return ERR_OTHER;
}

static int start(struct supervisor *s, int i, struct err *err)
{
	size_t n = 0;
	char **argv, worker[40];
	posix_spawnattr_t attr;
	sigset_t none;
	int rc;

	while (s->l->args[n])
		n++;
	argv = xcalloc(n + 3, sizeof(*argv));
	snprintf(worker, sizeof(worker), "--worker=%d", i);
	argv[0] = "tokenmill";
	argv[1] = s->l->args[0];
	argv[2] = worker;
	memcpy(argv + 3, s->l->args + 1, (n - 1) * sizeof(*argv));
	/* A group of its own: Ctrl-C reaches us alone, and we pass it on once. */
	posix_spawnattr_init(&attr);
	sigemptyset(&none);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setpgroup(&attr, 0);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK);
	rc = posix_spawn(&s->children[i].pid, "/proc/self/exe", NULL, &attr, argv, environ);
	posix_spawnattr_destroy(&attr);
	free(argv);
	if (rc == 0)
		return 0;
	s->children[i].pid = 0;
	errno = rc;
	return err_sys(err, ERR_OTHER, "worker %d cannot be started", i);
}

static void stop_all(struct supervisor *s, int number)
{
	if (s->is_stopping)
		return;
	s->is_stopping = 1;
	for (int i = 0; i < s->l->n_workers; i++)
		if (s->children[i].pid)
			kill(s->children[i].pid, number);
}

static void describe(int status, char *out, size_t cap)
{
	if (WIFSIGNALED(status))
		snprintf(out, cap, "was ended by signal %d", WTERMSIG(status));
	else
		snprintf(out, cap, "ended with exit status %d", WEXITSTATUS(status));
}

static void on_end(struct supervisor *s, int i, int status)
{
	struct child *c = &s->children[i];
	int exit_status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	enum err_code code = code_of(exit_status);
	enum err_pod_policy policy = err_pod_policy(code);
	int64_t exponent;
	char how[60];

	c->pid = 0;
	c->start_at = -1;
	if (exit_status == 0 || s->is_stopping)
		return;
	describe(status, how, sizeof(how));
	if (policy == ERR_POD_FAIL_JOB) {
		s->failed_with = code;
		s->failed_worker = i;
		log_info("worker %d %s (%s): the job is stopped", i, how, err_code_name(code));
		stop_all(s, SIGTERM);
		return;
	}
	c->n_failures += policy == ERR_POD_COUNT;
	if (c->n_failures > s->l->retries) {
		s->n_given_up++;
		log_warn("worker %d %s, the %lldth time that counts: it is given up", i, how, (long long)c->n_failures);
		return;
	}
	exponent = c->n_restarts < 6 ? c->n_restarts : 6;
	c->n_restarts++;
	c->start_at = clock_seconds() + s->l->pause_s * (double)(1 << exponent);
	log_info("worker %d %s: it is started again in %.1f s", i, how, s->l->pause_s * (double)(1 << exponent));
}

static int start_due(struct supervisor *s, struct err *err)
{
	for (int i = 0; i < s->l->n_workers && !s->is_stopping; i++)
		if (!s->children[i].pid && s->children[i].start_at >= 0 && clock_seconds() >= s->children[i].start_at &&
		    start(s, i, err) < 0)
			return -1;
	return 0;
}

static int anything_left(const struct supervisor *s)
{
	for (int i = 0; i < s->l->n_workers; i++)
		if (s->children[i].pid || (s->children[i].start_at >= 0 && !s->is_stopping))
			return 1;
	return 0;
}

static int supervise(struct supervisor *s, struct err *err)
{
	struct timespec nap = {0, 50 * 1000 * 1000};

	while (anything_left(s)) {
		pid_t pid;
		int status, rc = start_due(s, err);

		if (rc < 0)
			stop_all(s, SIGTERM);
		if (signals_received())
			stop_all(s, signals_received());
		while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
			for (int i = 0; i < s->l->n_workers; i++)
				if (s->children[i].pid == pid)
					on_end(s, i, status);
		nanosleep(&nap, NULL);
	}
	return err->code ? -1 : 0;
}

int submit_local_run(const struct submit_local *l, struct err *err)
{
	struct supervisor s = {.l = l, .children = xcalloc((size_t)l->n_workers, sizeof(*s.children))};
	int rc;

	signals_install();
	rc = supervise(&s, err);
	free(s.children);
	if (rc < 0)
		return -1;
	if (s.failed_with)
		return err_set(err, s.failed_with, "worker %d failed the job (%s): what it said stands above", s.failed_worker,
		               err_code_name(s.failed_with));
	if (signals_received())
		return signals_drained(err);
	if (s.n_given_up)
		return err_set(err, ERR_OTHER, "%d of %d workers were given up; the same command again goes on", s.n_given_up,
		               l->n_workers);
	return 0;
}
