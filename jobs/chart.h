/* chart.h: stacked columns and rows of bars as SVG within a figure, with a legend, the numbers as a table for those who cannot
 * see them, and a title on each bar. Texts may be anything. */
#ifndef TOKENMILL_JOBS_CHART_H
#define TOKENMILL_JOBS_CHART_H

#include <stddef.h>

#include "base/buf.h"

#define CHART_MAX_SERIES 8 /* colours */

struct chart {
	const char *title, *note;  /* caption, and what is shown in which unit */
	const char *x_name;        /* heading of the labels' column */
	const char *const *labels; /* [n_points] */
	size_t n_points;
	const char *const *series; /* [n_series]; no legend for one */
	size_t n_series;
	const double *values; /* [n_series, n_points], not negative */
	int is_other_last;    /* the last series, in rows the last point, is grey: the rest, or nothing of use */
};

void chart_columns(struct buf *out, const struct chart *c); /* upright, points from left to right */
void chart_rows(struct buf *out, const struct chart *c);    /* lying, one line for each point; labels may be long */
/* "1.25M", "340", "0.0012": three digits or so. */
void chart_add_number(struct buf *out, double v);

#endif
