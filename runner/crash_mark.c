/* crash_mark.c: a handler that uses nothing but open(2). */
#include "runner/crash_mark.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

static char mark_path[4096];
static char stack[65536]; /* a crash may be an overflow of the usual one */

static void on_crash(int number)
{
	/* SA_RESETHAND: what happens on return from a fault happens again, and then ends the process; raise(3) covers the others. */
	if (mark_path[0])
		(void)!open(mark_path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
	raise(number);
}

void crash_mark_install(const char *path)
{
	static const int numbers[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
	struct sigaction a = {.sa_handler = on_crash, .sa_flags = (int)SA_RESETHAND | SA_ONSTACK | SA_NODEFER}, before;

	mark_path[0] = '\0';
	if (!path || strlen(path) >= sizeof(mark_path))
		return;
	strcpy(mark_path, path);
	sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = sizeof(stack)}, NULL);
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		if (sigaction(numbers[i], NULL, &before) == 0 && !(before.sa_flags & SA_SIGINFO) && before.sa_handler == SIG_DFL)
			sigaction(numbers[i], &a, NULL);
}
