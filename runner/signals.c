/* signals.c: one flag, set by the handler and read between steps. */
#include "runner/signals.h"

#include <signal.h>
#include <stddef.h>

static volatile sig_atomic_t received;

static void on_signal(int number)
{
	received = number;
}

void signals_install(void)
{
	/* SA_RESETHAND: the second signal finds the default action. */
	struct sigaction a = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND | SA_RESTART};

	sigaction(SIGTERM, &a, NULL);
	sigaction(SIGINT, &a, NULL);
	a.sa_handler = SIG_IGN;
	a.sa_flags = 0;
	sigaction(SIGPIPE, &a, NULL);
	sigaction(SIGXFSZ, &a, NULL); /* a limit on file sizes is a full disk: write says so */
}

int signals_received(void)
{
	return (int)received;
}

void signals_reset(void)
{
	received = 0;
	signals_install();
}

int signals_drained(struct err *err)
{
	return err_set(err, ERR_DRAINED, "stopped by %s; start the same command again to go on",
	               received == SIGINT ? "Ctrl-C" : "SIGTERM");
}
