/* report_table.c: a report for a terminal: aligned, money rounded, what does not fit a column's head told below. */
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "jobs/report.h"

#define VALUE_MAX_COLUMNS 40

struct table {
	char **cells;                     /* [n_rows, n_columns], malloc'd */
	size_t n_rows, n_columns, n_text; /* the first n_text columns are texts: to the left */
};

/* Columns on a terminal. Controls, and what turns the direction of writing, take a column each: they are shown as "?". */
static int is_shown(utf8proc_int32_t c)
{
	utf8proc_category_t k = utf8proc_category(c);

	return k != UTF8PROC_CATEGORY_CC && k != UTF8PROC_CATEGORY_CF && k != UTF8PROC_CATEGORY_ZL && k != UTF8PROC_CATEGORY_ZP &&
	       k != UTF8PROC_CATEGORY_CN && k != UTF8PROC_CATEGORY_CO && k != UTF8PROC_CATEGORY_CS;
}

static int text_columns(const char *s)
{
	utf8proc_int32_t c;
	utf8proc_ssize_t n;
	int width = 0;

	for (; *s && (n = utf8proc_iterate((const utf8proc_uint8_t *)s, -1, &c)) > 0; s += n)
		width += utf8proc_charwidth(c);
	return width;
}

static char *shown_text(const char *s)
{
	struct buf out = {0};
	utf8proc_int32_t c;
	utf8proc_ssize_t n;
	int width = 0;

	if (!*s)
		return xstrdup("-");
	for (; *s && (n = utf8proc_iterate((const utf8proc_uint8_t *)s, -1, &c)) > 0; s += n) {
		int w = is_shown(c) ? utf8proc_charwidth(c) : 1;

		if (width + w > VALUE_MAX_COLUMNS) {
			buf_adds(&out, "…");
			break;
		}
		width += w;
		if (is_shown(c))
			buf_add(&out, s, (size_t)n);
		else
			buf_addc(&out, '?');
	}
	return buf_detach(&out);
}

/* 1234567 -> "1,234,567", also before a point. */
static char *grouped(const char *digits)
{
	struct buf out = {0};
	size_t whole = strcspn(digits, "."), start = digits[0] == '-';

	for (size_t i = 0; digits[i]; i++) {
		if (i > start && i < whole && (whole - i) % 3 == 0)
			buf_addc(&out, ',');
		buf_addc(&out, digits[i]);
	}
	return buf_detach(&out);
}

static char *count_text(int64_t n)
{
	char digits[32];

	snprintf(digits, sizeof(digits), "%lld", (long long)n);
	return grouped(digits);
}

static char *hours_text(int64_t ms)
{
	char digits[32];

	snprintf(digits, sizeof(digits), ms >= 36000000 ? "%.1f" : "%.4f", (double)ms / 3.6e6);
	return grouped(digits);
}

/* As many decimals as the column's sum needs to be told apart from nothing. */
static int money_decimals(atto sum)
{
	double v = decimal_double(sum);

	return v == 0 || v >= 1000 ? 2 : v >= 1 ? 4 : v >= 0.001 ? 6 : 9;
}

static char *money_text(atto a, int decimals)
{
	struct buf out = {0};
	char *s;

	decimal_add_rounded(&out, a, decimals);
	s = grouped(out.data);
	buf_release(&out);
	return s;
}

static void add_cell(struct table *t, size_t *at, char *text)
{
	t->cells[(*at)++] = text;
}

/* g NULL: the total */
static void add_row(const struct report *r, struct table *t, const struct group *g)
{
	static const enum count_kind counts[] = {COUNT_OK, COUNT_FAILED, COUNT_INPUT, COUNT_CACHED, COUNT_OUTPUT};
	const struct measure *m = g ? &g->m : &r->total;
	size_t at = t->n_rows++ * t->n_columns;

	for (size_t i = 0; i < t->n_text; i++)
		add_cell(t, &at, g ? shown_text(g->values[i]) : xstrdup(i == 0 ? "TOTAL" : ""));
	for (size_t i = 0; i < sizeof(counts) / sizeof(*counts); i++)
		add_cell(t, &at, count_text(m->count[counts[i]]));
	add_cell(t, &at, hours_text(m->count[COUNT_NODE_MS]));
	if (report_has_list(r)) {
		add_cell(t, &at, money_text(m->money[MONEY_LIST], money_decimals(r->total.money[MONEY_LIST])));
		add_cell(t, &at, money_text(m->money[MONEY_BILLED], money_decimals(r->total.money[MONEY_BILLED])));
	}
	if (report_has_actual(r))
		add_cell(t, &at, money_text(m->money[MONEY_ACTUAL], money_decimals(r->total.money[MONEY_ACTUAL])));
	if (r->prices) {
		struct per_million p = report_per_million(r, m);

		add_cell(t, &at, p.has_useful ? money_text(p.useful, 4) : xstrdup("-"));
	}
}

static void add_heads(const struct report *r, struct table *t)
{
	static const char *const heads[] = {"OK", "FAILED", "INPUT", "CACHED", "OUTPUT", "NODE HOURS"};
	size_t at = 0;

	for (size_t i = 0; i < t->n_text; i++)
		add_cell(t, &at, shown_text(r->groups.by.list[i].name));
	for (size_t i = 0; i < t->n_text; i++)
		for (char *c = t->cells[i]; *c; c++)
			*c = *c >= 'a' && *c <= 'z' && !strchr(t->cells[i], ':') ? (char)(*c - 32) : *c;
	for (size_t i = 0; i < sizeof(heads) / sizeof(*heads); i++)
		add_cell(t, &at, xstrdup(heads[i]));
	if (report_has_list(r)) {
		add_cell(t, &at, xstrdup("LIST"));
		add_cell(t, &at, xstrdup("BILLED"));
	}
	if (report_has_actual(r))
		add_cell(t, &at, xstrdup("ACTUAL"));
	if (r->prices)
		add_cell(t, &at, xstrdup("PER 1M"));
	t->n_rows = 1;
	t->n_columns = at;
}

static void print_table(const struct table *t, struct buf *out)
{
	int *width = xcalloc(t->n_columns, sizeof(*width));

	for (size_t i = 0; i < t->n_rows * t->n_columns; i++) {
		int w = text_columns(t->cells[i]);

		if (w > width[i % t->n_columns])
			width[i % t->n_columns] = w;
	}
	for (size_t i = 0; i < t->n_rows * t->n_columns; i++) {
		size_t c = i % t->n_columns;
		int gap = width[c] - text_columns(t->cells[i]);

		buf_addf(out, "%s%*s", c ? "  " : "", c < t->n_text ? 0 : gap, "");
		buf_adds(out, t->cells[i]);
		if (c + 1 == t->n_columns)
			buf_addc(out, '\n');
		else if (c < t->n_text)
			buf_addf(out, "%*s", gap, "");
	}
	free(width);
}

static void add_amount(const struct report *r, struct buf *out, atto a)
{
	char *s = money_text(a, money_decimals(a < 0 ? -a : a));

	buf_addf(out, "%s %s", s, prices_currency(r->prices));
	free(s);
}

static void add_notes(const struct report *r, struct buf *out)
{
	const struct measure *m = &r->total;
	char *n = count_text(m->count[COUNT_WASTED]);
	char *again = count_text(m->count[COUNT_RECOMPUTED]);
	double node_s = (double)m->count[COUNT_NODE_MS];

	if (node_s > 0)
		buf_addf(out, "node time: %.1f %% busy, %.1f %% loading, %.1f %% publishing, %.1f %% idle\n",
		         100 * (double)m->count[COUNT_BUSY_MS] / node_s, 100 * (double)m->count[COUNT_LOAD_MS] / node_s,
		         100 * (double)m->count[COUNT_PUBLISH_MS] / node_s, 100 * (double)m->count[COUNT_IDLE_MS] / node_s);
	if (report_has_list(r)) {
		buf_adds(out, "the cache saved ");
		add_amount(r, out, m->money[MONEY_SAVING]);
		buf_adds(out, " of what is billed\n");
	}
	if (m->count[COUNT_WASTED] || m->count[COUNT_RECOMPUTED] || m->count[COUNT_KILLED_MS]) {
		buf_addf(out, "waste, billed to nobody: %s tokens in no record, %s computed again; ", n, again);
		report_add_seconds(out, m->count[COUNT_KILLED_MS]);
		buf_adds(out, " s of node time in attempts that were killed");
		if (report_has_actual(r)) {
			buf_adds(out, " (");
			add_amount(r, out, m->money[MONEY_KILLED]);
			buf_addc(out, ')');
		}
		buf_addc(out, '\n');
	}
	if (r->prices)
		buf_addf(out, "amounts in %s; PER 1M: %s for a million tokens, input and output, of requests that succeeded\n",
		         prices_currency(r->prices), report_has_actual(r) ? "actual cost" : "what is billed");
	else
		buf_adds(out, "no prices: give a sheet with --prices\n");
	for (size_t i = 0; i < r->n_jobs; i++) {
		char *name = shown_text(r->jobs[i].name);

		if (!r->jobs[i].is_complete)
			buf_addf(out, "job %s is not complete: %lld of %lld rows have a record\n", name, (long long)r->jobs[i].n_charges,
			         (long long)r->jobs[i].n_rows);
		free(name);
	}
	free(n);
	free(again);
}

void report_write_table(const struct report *r, struct buf *out)
{
	struct table t = {.n_text = (size_t)r->groups.by.n};

	t.cells = xcalloc((r->groups.n + 2) * (t.n_text + 10), sizeof(*t.cells));
	add_heads(r, &t);
	for (size_t i = 0; i < r->groups.n; i++)
		add_row(r, &t, r->groups.list[i]);
	if (r->groups.n > 1)
		add_row(r, &t, NULL);
	print_table(&t, out);
	add_notes(r, out);
	for (size_t i = 0; i < t.n_rows * t.n_columns; i++)
		free(t.cells[i]);
	free(t.cells);
}
