/* aside.h: a thread on the side that does one thing at a time, so that its owner can go on with the next one: hash and write a
 * full buffer while the other is filled.
 *
 *     aside_start(a, fn, arg) ... something else ... aside_wait(a)      what fn wrote is now the owner's to read
 *
 * For pieces of work of a tenth of a millisecond and more: waiting and waking sleep. Teams that compute together are
 * workers.h's. One owner; fn runs on the other thread.
 */
#ifndef TOKENMILL_BASE_ASIDE_H
#define TOKENMILL_BASE_ASIDE_H

#include "base/errors.h"

struct aside;
typedef void (*aside_fn)(void *arg);

/* NULL and *err (ERR_OTHER) when there is no thread to be had. */
struct aside *aside_new(struct err *err);
/* Waits for what runs. NULL is fine. */
void aside_free(struct aside *a);
/* Waits for what runs, then starts fn(arg). */
void aside_start(struct aside *a, aside_fn fn, void *arg);
/* Returns when nothing runs. */
void aside_wait(struct aside *a);

#endif
