/* signals.h: SIGTERM and SIGINT ask for a drain; a second one ends the process at once. */
#ifndef TOKENMILL_RUNNER_SIGNALS_H
#define TOKENMILL_RUNNER_SIGNALS_H

#include "base/errors.h"

void signals_install(void);
/* The signal that came (SIGTERM, SIGINT), or 0. */
int signals_received(void);
void signals_reset(void); /* as if none had come */
/* Once the drain is over: ERR_DRAINED, always -1. The exit status is 128 + the signal. */
int signals_drained(struct err *err);

#endif
