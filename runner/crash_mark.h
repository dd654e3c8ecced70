/* crash_mark.h: what a process that crashes leaves for the next: a file that says it was a crash, and nobody's kill -9 (queue/flight.c asks). */
#ifndef TOKENMILL_RUNNER_CRASH_MARK_H
#define TOKENMILL_RUNNER_CRASH_MARK_H

/* From now on SIGSEGV, SIGBUS, SIGFPE, SIGILL and SIGABRT make an empty file at path before they end the process as ever. NULL: no longer. path is
 * copied. Signals that somebody else handles (a sanitizer) are left alone. */
void crash_mark_install(const char *path);

#endif
