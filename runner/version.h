/* version.h: the program's version, and the version of what it computes. */
#ifndef TOKENMILL_RUNNER_VERSION_H
#define TOKENMILL_RUNNER_VERSION_H

#define TOKENMILL_VERSION "0.1.0"
/* Raised when a change makes the same job give other bytes: a job begun by an older program is then not continued. */
#define TOKENMILL_NUMERICS 1

#endif
