/* chart.c: drawing. Coordinates are in a view box that the browser scales to the figure's width. */
#include "jobs/chart.h"

#include <math.h>
#include <string.h>

#include "jobs/html.h"

enum { WIDTH = 560, HEIGHT = 250, LEFT = 56, RIGHT = 8, TOP = 10, BOTTOM = 28, ROW = 30 };

void chart_add_number(struct buf *out, double v)
{
	static const struct {
		double unit;
		const char *letter;
	} units[] = {{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}};

	for (size_t i = 0; i < sizeof(units) / sizeof(*units); i++)
		if (v >= units[i].unit * 0.99995) {
			buf_addf(out, "%.4g%s", v / units[i].unit, units[i].letter);
			return;
		}
	buf_addf(out, v >= 1 ? "%.4g" : "%.3g", v);
}

static int colour(const struct chart *c, size_t series)
{
	return c->is_other_last && series + 1 == c->n_series ? CHART_MAX_SERIES - 1 : (int)series;
}

static double value(const struct chart *c, size_t series, size_t point)
{
	return c->values[series * c->n_points + point];
}

static double largest(const struct chart *c)
{
	double max = 0;

	for (size_t p = 0; p < c->n_points; p++) {
		double sum = 0;

		for (size_t s = 0; s < c->n_series; s++)
			sum += value(c, s, p);
		max = sum > max ? sum : max;
	}
	return max;
}

/* 1, 2 or 5 times a power of ten: at most five steps up to max. */
static double nice_step(double max)
{
	double power = pow(10, floor(log10(max / 4)));

	for (double f = 1;; f = f == 1 ? 2 : f == 2 ? 5 : 10)
		if (power * f * 5 >= max || f == 10)
			return power * f;
}

static void add_begin(struct buf *out, const struct chart *c)
{
	buf_adds(out, "<figure>\n<figcaption>");
	html_add_text(out, c->title);
	buf_adds(out, "<span>");
	html_add_text(out, c->note);
	buf_adds(out, "</span></figcaption>\n");
	if (c->n_series > 1) {
		buf_adds(out, "<ul class=\"legend\">");
		for (size_t s = 0; s < c->n_series; s++) {
			buf_addf(out,
			         "<li><svg viewBox=\"0 0 10 10\" aria-hidden=\"true\"><rect class=\"s%d\" width=\"10\" height=\"10\" "
			         "rx=\"2\"/></svg><bdi>",
			         colour(c, s));
			html_add_text(out, c->series[s]);
			buf_adds(out, "</bdi></li>");
		}
		buf_adds(out, "</ul>\n");
	}
}

static void add_svg(struct buf *out, const struct chart *c, int height)
{
	buf_addf(out, "<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"", WIDTH, height);
	html_add_text(out, c->title);
	buf_adds(out, ": ");
	html_add_text(out, c->note);
	buf_adds(out, ". The numbers are in the table below.\">\n");
}

static void add_end(struct buf *out, const struct chart *c)
{
	buf_adds(
	    out,
	    "</svg>\n<details><summary>Numbers</summary><div class=\"scroll\"><table><thead><tr><th class=\"t\" scope=\"col\">");
	html_add_text(out, c->x_name);
	buf_adds(out, "</th>");
	for (size_t s = 0; s < c->n_series; s++) {
		buf_adds(out, "<th scope=\"col\"><bdi>");
		html_add_text(out, c->series[s]);
		buf_adds(out, "</bdi></th>");
	}
	buf_adds(out, "</tr></thead><tbody>\n");
	for (size_t p = 0; p < c->n_points; p++) {
		buf_adds(out, "<tr><th class=\"t\" scope=\"row\"><bdi>");
		html_add_text(out, c->labels[p]);
		buf_adds(out, "</bdi></th>");
		for (size_t s = 0; s < c->n_series; s++) {
			buf_adds(out, "<td>");
			chart_add_number(out, value(c, s, p));
			buf_adds(out, "</td>");
		}
		buf_adds(out, "</tr>\n");
	}
	buf_adds(out, "</tbody></table></div></details>\n</figure>\n");
}

static void add_bar(struct buf *out, const struct chart *c, int hue, size_t s, size_t p, double x, double y, double w, double h)
{
	buf_addf(out, "<rect class=\"bar s%d\" x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\"><title>", hue, x, y, w, h);
	html_add_text(out, c->labels[p]);
	if (c->n_series > 1) {
		buf_adds(out, ", ");
		html_add_text(out, c->series[s]);
	}
	buf_adds(out, ": ");
	chart_add_number(out, value(c, s, p));
	buf_adds(out, "</title></rect>\n");
}

void chart_columns(struct buf *out, const struct chart *c)
{
	double max = largest(c), step = max > 0 ? nice_step(max) : 1, top = max > 0 ? ceil(max / step - 1e-9) * step : 1;
	double plot_w = WIDTH - LEFT - RIGHT, plot_h = HEIGHT - TOP - BOTTOM,
	       slot = plot_w / (double)(c->n_points ? c->n_points : 1);
	double bar = slot * 0.8 < 64 ? slot * 0.8 : 64;
	size_t every = (c->n_points + 6) / 7;

	add_begin(out, c);
	add_svg(out, c, HEIGHT);
	for (int i = 0; i * step <= top * (1 + 1e-9); i++) {
		double y = TOP + plot_h * (1 - i * step / top);

		buf_addf(
		    out,
		    "<line class=\"%s\" x1=\"%d\" x2=\"%d\" y1=\"%.2f\" y2=\"%.2f\"/><text x=\"%d\" y=\"%.2f\" text-anchor=\"end\">",
		    i ? "grid" : "axis", LEFT, WIDTH - RIGHT, y, y, LEFT - 6, y + 4);
		chart_add_number(out, i * step);
		buf_adds(out, "</text>\n");
	}
	for (size_t p = 0; p < c->n_points; p++) {
		double x = LEFT + slot * ((double)p + 0.5), y = TOP + plot_h;

		for (size_t s = 0; s < c->n_series; s++) {
			double h = plot_h * value(c, s, p) / top;

			if (h <= 0)
				continue;
			y -= h;
			add_bar(out, c, colour(c, s), s, p, x - bar / 2, y, bar, h);
		}
		if (p % every == 0) {
			buf_addf(out, "<text x=\"%.2f\" y=\"%d\" text-anchor=\"middle\">", x, HEIGHT - 8);
			html_add_text(out, c->labels[p]);
			buf_adds(out, "</text>\n");
		}
	}
	add_end(out, c);
}

void chart_rows(struct buf *out, const struct chart *c)
{
	double max = largest(c), plot_w = WIDTH - 8;
	int height = (int)c->n_points * ROW + 4;

	add_begin(out, c);
	add_svg(out, c, height);
	for (size_t p = 0; p < c->n_points; p++) {
		double x = 0, y = (double)p * ROW, sum = 0;

		for (size_t s = 0; s < c->n_series; s++)
			sum += value(c, s, p);
		/* The label's own svg cuts what is too long. */
		buf_addf(out, "<svg x=\"0\" y=\"%.2f\" width=\"%d\" height=\"17\"><text x=\"0\" y=\"13\">", y, WIDTH - 90);
		html_add_text(out, c->labels[p]);
		buf_addf(out, "</text></svg><text x=\"%d\" y=\"%.2f\" text-anchor=\"end\">", WIDTH, y + 13);
		chart_add_number(out, sum);
		buf_adds(out, "</text>\n");
		for (size_t s = 0; s < c->n_series; s++) {
			double w = max > 0 ? plot_w * value(c, s, p) / max : 0;

			if (w > 0)
				add_bar(out, c, c->is_other_last && p + 1 == c->n_points ? CHART_MAX_SERIES - 1 : (int)s, s, p, x, y + 18, w,
				        9);
			x += w;
		}
	}
	add_end(out, c);
}
