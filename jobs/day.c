/* day.c: the civil calendar by arithmetic (H. Hinnant, "chrono-Compatible Low-Level Date Algorithms"): years begin in March, so
 * that the leap day is a year's last. */
#include "jobs/day.h"

#include <ctype.h>
#include <stdio.h>

static int64_t day_of(int64_t y, int64_t m, int64_t d)
{
	int64_t era, year_of_era, day_of_year;

	y -= m <= 2;
	era = y / 400;
	year_of_era = y - era * 400;
	day_of_year = (153 * (m > 2 ? m - 3 : m + 9) + 2) / 5 + d - 1;
	return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719468;
}

static void date_of(int64_t day, int *y, int *m, int *d)
{
	int64_t z = day + 719468, era = z / 146097, day_of_era = z - era * 146097;
	int64_t year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
	int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100),
	        month = (5 * day_of_year + 2) / 153;

	*d = (int)(day_of_year - (153 * month + 2) / 5 + 1);
	*m = (int)(month < 10 ? month + 3 : month - 9);
	*y = (int)(year_of_era + era * 400 + (*m <= 2));
}

int64_t day_of_ms(int64_t unix_ms)
{
	return unix_ms / DAY_MS;
}

int day_parse(const char *text, size_t n, int64_t *day)
{
	char again[DAY_TEXT_BYTES];
	int v[3] = {0};

	if (n != 10 || text[4] != '-' || text[7] != '-')
		return -1;
	for (int i = 0; i < 10; i++) {
		if (i == 4 || i == 7)
			continue;
		if (!isdigit((unsigned char)text[i]))
			return -1;
		v[(i > 4) + (i > 7)] = v[(i > 4) + (i > 7)] * 10 + (text[i] - '0');
	}
	if (v[0] < 1970 || v[1] < 1 || v[1] > 12 || v[2] < 1 || v[2] > 31)
		return -1;
	*day = day_of(v[0], v[1], v[2]);
	day_format(*day, again); /* 2026-02-30 comes back as 2026-03-02 */
	for (int i = 0; i < 10; i++)
		if (again[i] != text[i])
			return -1;
	return 0;
}

void day_format(int64_t day, char out[DAY_TEXT_BYTES])
{
	int y, m, d;

	date_of(day < 0 ? 0 : day > DAY_MAX ? DAY_MAX : day, &y, &m, &d);
	snprintf(out, DAY_TEXT_BYTES, "%04u-%02u-%02u", (unsigned)y % 10000, (unsigned)m % 100, (unsigned)d % 100);
}

int64_t day_month_start(int64_t day)
{
	int y, m, d;

	date_of(day, &y, &m, &d);
	return day - d + 1;
}

int64_t day_next_month_start(int64_t day)
{
	return day_month_start(day_month_start(day) + 31);
}
