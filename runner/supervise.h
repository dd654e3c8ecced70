/* supervise.h: --restarts: a parent that starts the worker again when it crashes, so that a row that makes the engine crash is found and set aside
 * (queue/suspects.h) without anybody's help. The parent does nothing else, and holds nothing: it forks before the program has threads, a model
 * or files.
 *
 *     parent -- fork --> child: the program as ever; it dies with its parent
 *        |  SIGTERM, SIGINT: passed on (Ctrl-C of a terminal reaches the child anyway)
 *        '- child ended by SIGSEGV, SIGBUS, SIGFPE, SIGILL or SIGABRT: again, up to n times. Anything else: its exit status is ours.
 */
#ifndef TOKENMILL_RUNNER_SUPERVISE_H
#define TOKENMILL_RUNNER_SUPERVISE_H

struct supervised {
	char *attempt;      /* [256] shared with the parent and the children to come: the child writes who it is */
	char crashed[256];  /* what the child before had written, if it crashed: "" otherwise */
};

/* Returns -1 in each child, with *s filled; in the parent the exit status, at the end. */
int supervise(int n_restarts, struct supervised *s);

#endif
