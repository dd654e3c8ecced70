/* clock.h: time. Durations come from the monotonic clock; the wall clock is for records only. */
#ifndef TOKENMILL_BASE_CLOCK_H
#define TOKENMILL_BASE_CLOCK_H

#include <stdint.h>

double clock_seconds(void);    /* monotonic */
int64_t clock_unix_ms(void);   /* wall clock */

#endif
