/* day.h: days of the calendar, UTC, as the number of days since 1970-01-01. Years 1970 to 9999. Any thread. */
#ifndef TOKENMILL_JOBS_DAY_H
#define TOKENMILL_JOBS_DAY_H

#include <stddef.h>
#include <stdint.h>

#define DAY_MS 86400000LL
#define DAY_TEXT_BYTES 11 /* "2026-01-31" and a NUL */
#define DAY_MAX 2932896   /* 9999-12-31 */

int64_t day_of_ms(int64_t unix_ms); /* of a time that is not negative */
/* "2026-01-31": 0; -1 for anything else, and for days that no calendar has. */
int day_parse(const char *text, size_t n, int64_t *day);
void day_format(int64_t day, char out[DAY_TEXT_BYTES]); /* 0 <= day <= DAY_MAX */
int64_t day_month_start(int64_t day);                   /* first day of its month */
int64_t day_next_month_start(int64_t day);              /* first day of the month after */

#endif
