/* supervise.c: fork, wait, again. */
#include "runner/supervise.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"

enum { ATTEMPT_BYTES = 256 };

static volatile sig_atomic_t child, asked_to_end;

static void pass_on(int number, siginfo_t *info, void *context)
{
	int saved = errno;

	asked_to_end = number;
	/* From a terminal it goes to the whole group, and a second one would end the drain. */
	if (child > 0 && info->si_code != SI_KERNEL)
		kill((pid_t)child, number);
	errno = saved;
}

static int is_crash(int status)
{
	static const int numbers[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};

	for (size_t i = 0; WIFSIGNALED(status) && i < sizeof(numbers) / sizeof(numbers[0]); i++)
		if (WTERMSIG(status) == numbers[i])
			return 1;
	return 0;
}

int supervise(int n_restarts, struct supervised *s)
{
	struct sigaction a = {.sa_sigaction = pass_on, .sa_flags = SA_SIGINFO | SA_RESTART}, usual = {.sa_handler = SIG_DFL};
	pid_t parent = getpid(), pid;
	sigset_t both, before;
	int status;

	*s = (struct supervised){.attempt = mmap(NULL, ATTEMPT_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)};
	if (s->attempt == MAP_FAILED) {
		log_error("cannot map memory: %s", strerror(errno));
		return 1;
	}
	sigemptyset(&both);
	sigaddset(&both, SIGTERM);
	sigaddset(&both, SIGINT);
	for (int n = 0;; n++) {
		sigprocmask(SIG_BLOCK, &both, &before);
		sigaction(SIGTERM, &a, NULL);
		sigaction(SIGINT, &a, NULL);
		fflush(NULL);
		pid = fork();
		if (pid == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			if (getppid() != parent)
				_exit(1);
			sigaction(SIGTERM, &usual, NULL);
			sigaction(SIGINT, &usual, NULL);
			sigprocmask(SIG_SETMASK, &before, NULL);
			return -1;
		}
		child = pid;
		sigprocmask(SIG_SETMASK, &before, NULL);
		if (pid < 0) {
			log_error("cannot start the worker: %s", strerror(errno));
			return 1;
		}
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
		child = 0;
		if (!is_crash(status) || asked_to_end || n == n_restarts)
			break;
		log_warn("the worker was ended by %s; starting it again (%d of %d)", strsignal(WTERMSIG(status)), n + 1, n_restarts);
		memcpy(s->crashed, s->attempt, sizeof(s->crashed));
		s->attempt[0] = '\0';
	}
	if (WIFSIGNALED(status)) {
		log_error("the worker was ended by %s", strsignal(WTERMSIG(status)));
		return 128 + WTERMSIG(status);
	}
	return WEXITSTATUS(status);
}
