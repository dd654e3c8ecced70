/* report_html.c: a report as one page: tiles, charts by day and tenant, distributions, tables. */
#include <stdlib.h>
#include <string.h>

#include "jobs/chart.h"
#include "jobs/day.h"
#include "jobs/html.h"
#include "jobs/report.h"

enum { TOP_TENANTS = 6, ROW_TENANTS = 12, MAX_TABLE_ROWS = 1000 };

/* Days on an axis: every one between the first and the last, or months, or years when there are too many. */
struct axis {
	int64_t first, last; /* days */
	int digits;          /* of "2026-01-31" that tell a point from the next: 10, 7 or 4 */
	char (*text)[DAY_TEXT_BYTES];
	const char **labels;
	size_t n;
};

static void axis_init(struct axis *a, int64_t first, int64_t last)
{
	char text[DAY_TEXT_BYTES];
	size_t cap = 0, cap_labels = 0;

	*a = (struct axis){.first = first, .last = last, .digits = last - first <= 92 ? 10 : last - first <= 3650 ? 7 : 4};
	for (int64_t day = first; day <= last; day++) {
		day_format(day, text);
		text[a->digits] = '\0';
		if (a->n && strcmp(a->text[a->n - 1], text) == 0)
			continue;
		MEM_GROW(a->text, cap, a->n + 1);
		memcpy(a->text[a->n++], text, sizeof(text));
	}
	MEM_GROW(a->labels, cap_labels, a->n);
	for (size_t i = 0; i < a->n; i++) /* within 93 days the year is no question; the page's head has it */
		a->labels[i] = a->digits == 10 ? a->text[i] + 5 : a->text[i];
}

static void axis_release(struct axis *a)
{
	free(a->text);
	free(a->labels);
}

static size_t axis_find(const struct axis *a, const char *day)
{
	size_t lo = 0, hi = a->n;

	while (hi - lo > 1) {
		size_t mid = (lo + hi) / 2;

		if (strncmp(a->text[mid], day, (size_t)a->digits) <= 0)
			lo = mid;
		else
			hi = mid;
	}
	return lo;
}

static double total_tokens(const struct measure *m)
{
	return (double)m->count[COUNT_INPUT] + (double)m->count[COUNT_OUTPUT];
}

static double cost_of(const struct report *r, const struct measure *m)
{
	return decimal_double(m->money[report_has_actual(r) ? MONEY_ACTUAL : MONEY_BILLED]);
}

struct tenant {
	const char *name;
	double tokens, cost;
};

static int compare_tenants(const void *a, const void *b)
{
	const struct tenant *x = a, *y = b;

	if (x->tokens != y->tokens)
		return x->tokens > y->tokens ? -1 : 1;
	return strcmp(x->name, y->name);
}

static int compare_costs(const void *a, const void *b)
{
	const struct tenant *x = a, *y = b;

	if (x->cost != y->cost)
		return x->cost > y->cost ? -1 : 1;
	return strcmp(x->name, y->name);
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(((const struct tenant *)a)->name, ((const struct tenant *)b)->name);
}

/* Tenants by their tokens, most first. */
static struct tenant *list_tenants(const struct report *r, size_t *n_out)
{
	struct tenant *list = NULL;
	size_t n = 0, cap = 0;

	for (size_t i = 0; i < r->by_day.n; i++) {
		const struct group *g = r->by_day.list[i];

		MEM_GROW(list, cap, n + 1);
		list[n++] = (struct tenant){g->values[1], total_tokens(&g->m), cost_of(r, &g->m)};
	}
	if (n)
		qsort(list, n, sizeof(*list), compare_names);
	*n_out = 0;
	for (size_t i = 0; i < n; i++) {
		if (*n_out && strcmp(list[*n_out - 1].name, list[i].name) == 0) {
			list[*n_out - 1].tokens += list[i].tokens;
			list[*n_out - 1].cost += list[i].cost;
		} else {
			list[(*n_out)++] = list[i];
		}
	}
	if (*n_out)
		qsort(list, *n_out, sizeof(*list), compare_tenants);
	return list;
}

static const char *tenant_label(const char *name)
{
	return *name ? name : "(no tenant)";
}

/* Stacked by the tenants with most tokens, the others together. */
static void add_by_tenant(const struct report *r, struct buf *out, const struct axis *a, const struct tenant *tenants,
                          size_t n_tenants, int is_cost, const char *title, const char *note)
{
	size_t n_series = n_tenants <= TOP_TENANTS + 1 ? n_tenants : TOP_TENANTS + 1;
	const char *series[TOP_TENANTS + 1];
	double *values = xcalloc(n_series * a->n, sizeof(*values));
	char others[48];

	for (size_t s = 0; s < n_series; s++)
		series[s] = tenant_label(tenants[s].name);
	if (n_tenants > n_series) {
		snprintf(others, sizeof(others), "%zu others", n_tenants - TOP_TENANTS);
		series[TOP_TENANTS] = others;
	}
	for (size_t i = 0; i < r->by_day.n; i++) {
		const struct group *g = r->by_day.list[i];
		size_t s = 0;

		while (s + 1 < n_series && strcmp(tenants[s].name, g->values[1]) != 0)
			s++;
		values[s * a->n + axis_find(a, g->values[0])] += is_cost ? cost_of(r, &g->m) : total_tokens(&g->m);
	}
	chart_columns(out, &(struct chart){.title = title,
	                                   .note = note,
	                                   .x_name = a->digits == 10 ? "Day" : "Period",
	                                   .labels = a->labels,
	                                   .n_points = a->n,
	                                   .series = series,
	                                   .n_series = n_series,
	                                   .values = values,
	                                   .is_other_last = n_tenants > n_series});
	free(values);
}

static void add_tenant_rows(struct buf *out, const struct tenant *tenants, size_t n, int is_cost, const char *title,
                            const char *note)
{
	size_t n_points = n <= ROW_TENANTS + 1 ? n : ROW_TENANTS + 1;
	const char *labels[ROW_TENANTS + 1], *series[] = {title};
	double values[ROW_TENANTS + 1] = {0};
	char others[48];

	for (size_t i = 0; i < n; i++) {
		size_t at = i < n_points ? i : n_points - 1;

		labels[at] = tenant_label(tenants[i].name);
		values[at] += is_cost ? tenants[i].cost : tenants[i].tokens;
	}
	if (n > n_points) {
		snprintf(others, sizeof(others), "%zu others", n - ROW_TENANTS);
		labels[ROW_TENANTS] = others;
	}
	chart_rows(out, &(struct chart){.title = title,
	                                .note = note,
	                                .x_name = "Tenant",
	                                .labels = labels,
	                                .n_points = n_points,
	                                .series = series,
	                                .n_series = 1,
	                                .values = values,
	                                .is_other_last = n > n_points});
}

/* Columns by day of some counts, each in its unit. */
static void add_by_day(const struct report *r, struct buf *out, const struct axis *a, const char *title, const char *note,
                       size_t n_series, const char *const *series, double (*get)(const struct measure *, size_t),
                       int is_other_last)
{
	double *values = xcalloc(n_series * a->n, sizeof(*values));

	for (size_t i = 0; i < r->by_day.n; i++) {
		const struct group *g = r->by_day.list[i];
		size_t p = axis_find(a, g->values[0]);

		for (size_t s = 0; s < n_series; s++)
			values[s * a->n + p] += get(&g->m, s);
	}
	chart_columns(out, &(struct chart){.title = title,
	                                   .note = note,
	                                   .x_name = a->digits == 10 ? "Day" : "Period",
	                                   .labels = a->labels,
	                                   .n_points = a->n,
	                                   .series = series,
	                                   .n_series = n_series,
	                                   .values = values,
	                                   .is_other_last = is_other_last});
	free(values);
}

static double input_part(const struct measure *m, size_t s)
{
	return s == 0 ? (double)m->count[COUNT_CACHED] : (double)m->count[COUNT_INPUT] - (double)m->count[COUNT_CACHED];
}

static double time_part(const struct measure *m, size_t s)
{
	static const enum count_kind kinds[] = {COUNT_BUSY_MS, COUNT_LOAD_MS, COUNT_PUBLISH_MS, COUNT_IDLE_MS};

	return (double)m->count[kinds[s]] / 3.6e6;
}

static void add_histogram(struct buf *out, const struct histogram *h, const char *title, const char *note, const char *unit)
{
	struct buf texts[HISTOGRAM_BUCKETS] = {{0}};
	const char *labels[HISTOGRAM_BUCKETS], *series[] = {"requests"};
	double values[HISTOGRAM_BUCKETS];
	int first = 0, last = HISTOGRAM_BUCKETS - 1;
	size_t n = 0;

	if (histogram_total(h) == 0)
		return;
	while (h->count[first] == 0)
		first++;
	while (h->count[last] == 0)
		last--;
	for (int i = first; i <= last; i++, n++) {
		if (i == 0) {
			buf_adds(&texts[n], "<");
			chart_add_number(&texts[n], h->first);
		} else {
			buf_adds(&texts[n], "≥");
			chart_add_number(&texts[n], histogram_edge(h, i));
		}
		buf_adds(&texts[n], unit);
		labels[n] = texts[n].data;
		values[n] = (double)h->count[i];
	}
	chart_columns(out, &(struct chart){.title = title,
	                                   .note = note,
	                                   .x_name = title,
	                                   .labels = labels,
	                                   .n_points = n,
	                                   .series = series,
	                                   .n_series = 1,
	                                   .values = values});
	for (size_t i = 0; i < n; i++)
		buf_release(&texts[i]);
}

/* "1 234 567", with narrow spaces that do not break. */
static void add_count(struct buf *out, int64_t n)
{
	char digits[32];
	int len = snprintf(digits, sizeof(digits), "%lld", (long long)n);

	for (int i = 0; i < len; i++) {
		if (i > 0 && (len - i) % 3 == 0)
			buf_adds(out, "\xE2\x80\xAF");
		buf_addc(out, digits[i]);
	}
}

/* Decimals that tell an amount from nothing; a column has those of its total. */
static int money_decimals(atto a)
{
	double v = decimal_double(a < 0 ? -a : a);

	return v == 0 || v >= 100 ? 2 : v >= 0.01 ? 4 : 8;
}

static void tile(struct buf *out, const char *name, const char *value, const char *more)
{
	buf_addf(out, "<div><dt>%s</dt><dd>%s", name, value);
	if (more[0])
		buf_addf(out, "<small>%s</small>", more);
	buf_adds(out, "</dd></div>\n");
}

/* The three texts are ours or numbers: nothing to escape. */
static void number_tile(struct buf *out, const char *name, double v, const char *unit, const char *more)
{
	struct buf b = {0};

	chart_add_number(&b, v);
	buf_adds(&b, unit);
	tile(out, name, b.data, more);
	buf_release(&b);
}

static void money_tile(const struct report *r, struct buf *out, const char *name, atto a, const char *more)
{
	struct buf b = {0};

	decimal_add_rounded(&b, a, money_decimals(a));
	buf_addf(&b, " %s", prices_currency(r->prices));
	tile(out, name, b.data, more);
	buf_release(&b);
}

static void add_tiles(const struct report *r, struct buf *out)
{
	const struct measure *m = &r->total;
	struct per_million p = report_per_million(r, m);
	double input = (double)m->count[COUNT_INPUT], node = (double)m->count[COUNT_NODE_MS];
	struct buf requests = {0};
	char more[96];

	buf_adds(out, "<dl class=\"tiles\">\n");
	snprintf(more, sizeof(more), "%lld failed", (long long)m->count[COUNT_FAILED]);
	add_count(&requests, m->count[COUNT_OK] + m->count[COUNT_FAILED]);
	tile(out, "Requests", requests.data, more);
	buf_release(&requests);
	snprintf(more, sizeof(more), "%.1f %% from the cache", input > 0 ? 100 * (double)m->count[COUNT_CACHED] / input : 0.0);
	number_tile(out, "Input tokens", input, "", more);
	snprintf(more, sizeof(more), "%.1f %% reasoning",
	         m->count[COUNT_OUTPUT] ? 100 * (double)m->count[COUNT_REASONING] / (double)m->count[COUNT_OUTPUT] : 0.0);
	number_tile(out, "Output tokens", (double)m->count[COUNT_OUTPUT], "", m->count[COUNT_REASONING] ? more : "");
	snprintf(more, sizeof(more), "%.1f %% busy", node > 0 ? 100 * (double)m->count[COUNT_BUSY_MS] / node : 0.0);
	number_tile(out, "Node time", node / 3.6e6, " h", more);
	if (report_has_list(r)) {
		money_tile(r, out, "List price", m->money[MONEY_LIST], "");
		money_tile(r, out, "Billed", m->money[MONEY_BILLED], "after the batch discount");
		money_tile(r, out, "Saved by the cache", m->money[MONEY_SAVING], "within what is billed");
	}
	if (report_has_actual(r))
		money_tile(r, out, "Actual cost", m->money[MONEY_ACTUAL], "node time at its price");
	if (p.has_useful)
		money_tile(r, out, "Per million tokens", p.useful,
		           report_has_actual(r) ? "actual, of useful tokens" : "billed, of useful tokens");
	snprintf(more, sizeof(more), "%.4g h in killed attempts", (double)m->count[COUNT_KILLED_MS] / 3.6e6);
	number_tile(out, "Wasted tokens", (double)m->count[COUNT_WASTED] + (double)m->count[COUNT_RECOMPUTED], "", more);
	buf_adds(out, "</dl>\n");
}

static void add_charts(const struct report *r, struct buf *out)
{
	static const char *const inputs[] = {"from the cache", "computed"};
	static const char *const times[] = {"busy", "loading", "publishing", "idle"};
	size_t n_tenants;
	struct tenant *tenants = list_tenants(r, &n_tenants);
	struct axis a;
	int64_t first = 0, last = 0;
	char cost_note[96] = "", tokens_by[32], cost_by[32];
	const char *period;

	if (r->by_day.n) {
		day_parse(r->by_day.list[0]->values[0], 10, &first);
		day_parse(r->by_day.list[r->by_day.n - 1]->values[0], 10, &last);
	}
	axis_init(&a, first, last);
	period = a.digits == 10 ? "day" : a.digits == 7 ? "month" : "year";
	snprintf(tokens_by, sizeof(tokens_by), "Tokens by %s", period);
	snprintf(cost_by, sizeof(cost_by), "Cost by %s", period);
	if (r->prices)
		snprintf(cost_note, sizeof(cost_note), "%s, %s", report_has_actual(r) ? "node time at its price" : "billed",
		         prices_currency(r->prices));
	buf_adds(out, "<h2>Usage</h2>\n<div class=\"charts\">\n");
	if (r->by_day.n) {
		add_by_tenant(r, out, &a, tenants, n_tenants, 0, tokens_by, "input and output tokens, by tenant");
		if (r->prices)
			add_by_tenant(r, out, &a, tenants, n_tenants, 1, cost_by, cost_note);
		if (n_tenants > 1) {
			add_tenant_rows(out, tenants, n_tenants, 0, "Tokens by tenant", "input and output tokens");
			if (r->prices)
				qsort(tenants, n_tenants, sizeof(*tenants), compare_costs);
			if (r->prices)
				add_tenant_rows(out, tenants, n_tenants, 1, "Cost by tenant", cost_note);
		}
		add_by_day(r, out, &a, "Input and the cache", "input tokens", 2, inputs, input_part, 0);
		add_by_day(r, out, &a, "Node time", "hours", 4, times, time_part, 1);
	}
	add_histogram(out, &r->latency_s, "Time of a request", "requests by seconds: waiting, prefill and decode", " s");
	add_histogram(out, &r->output_tokens, "Length of an answer", "requests by output tokens", "");
	buf_adds(out, "</div>\n");
	axis_release(&a);
	free(tenants);
}

static void add_count_cell(struct buf *out, int64_t n)
{
	buf_adds(out, "<td>");
	add_count(out, n);
	buf_adds(out, "</td>");
}

static void add_money_cell(struct buf *out, atto a, atto total)
{
	buf_adds(out, "<td>");
	decimal_add_rounded(out, a, money_decimals(total));
	buf_adds(out, "</td>");
}

static void add_measure_cells(const struct report *r, struct buf *out, const struct measure *m)
{
	static const enum count_kind counts[] = {COUNT_OK, COUNT_FAILED, COUNT_INPUT, COUNT_CACHED, COUNT_OUTPUT};
	struct per_million p = report_per_million(r, m), of_total = report_per_million(r, &r->total);

	for (size_t i = 0; i < sizeof(counts) / sizeof(*counts); i++)
		add_count_cell(out, m->count[counts[i]]);
	buf_addf(out, "<td>%.3f</td>", (double)m->count[COUNT_NODE_MS] / 3.6e6);
	if (report_has_list(r)) {
		add_money_cell(out, m->money[MONEY_LIST], r->total.money[MONEY_LIST]);
		add_money_cell(out, m->money[MONEY_BILLED], r->total.money[MONEY_BILLED]);
	}
	if (report_has_actual(r))
		add_money_cell(out, m->money[MONEY_ACTUAL], r->total.money[MONEY_ACTUAL]);
	if (r->prices && p.has_useful)
		add_money_cell(out, p.useful, of_total.useful);
	else if (r->prices)
		buf_adds(out, "<td>–</td>");
}

static void add_heads(const struct report *r, struct buf *out)
{
	buf_adds(out,
	         "<th scope=\"col\">ok</th><th scope=\"col\">failed</th><th scope=\"col\">input</th><th scope=\"col\">cached</th>"
	         "<th scope=\"col\">output</th><th scope=\"col\">node hours</th>");
	if (report_has_list(r))
		buf_addf(out, "<th scope=\"col\">list, %s</th><th scope=\"col\">billed</th>", prices_currency(r->prices));
	if (report_has_actual(r))
		buf_adds(out, "<th scope=\"col\">actual</th>");
	if (r->prices)
		buf_adds(out, "<th scope=\"col\">per 1M</th>");
	buf_adds(out, "</tr></thead>\n<tbody>\n");
}

static void add_text_cell(struct buf *out, const char *tag, const char *text)
{
	buf_addf(out, "<%s class=\"t\"%s title=\"", tag, strcmp(tag, "th") == 0 ? " scope=\"row\"" : "");
	html_add_text(out, text);
	buf_adds(out, "\"><bdi>");
	html_add_text(out, *text ? text : "–");
	buf_addf(out, "</bdi></%s>", tag);
}

static void add_groups(const struct report *r, struct buf *out)
{
	const struct groups *g = &r->groups;
	size_t n = g->n < MAX_TABLE_ROWS ? g->n : MAX_TABLE_ROWS;

	buf_adds(out, "<h2>By ");
	for (int i = 0; i < g->by.n; i++) {
		buf_adds(out, i ? ", " : "");
		html_add_text(out, g->by.list[i].name);
	}
	buf_adds(out,
	         "</h2>\n<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"Table of groups\"><table>\n<thead><tr>");
	for (int i = 0; i < g->by.n; i++) {
		buf_adds(out, "<th class=\"t\" scope=\"col\">");
		html_add_text(out, g->by.list[i].name);
		buf_adds(out, "</th>");
	}
	add_heads(r, out);
	for (size_t k = 0; k < n; k++) {
		buf_adds(out, "<tr>");
		for (int i = 0; i < g->by.n; i++)
			add_text_cell(out, i ? "td" : "th", g->list[k]->values[i]);
		add_measure_cells(r, out, &g->list[k]->m);
		buf_adds(out, "</tr>\n");
	}
	buf_addf(out, "</tbody>\n<tfoot><tr><th class=\"t\" scope=\"row\" colspan=\"%d\">Total</th>", g->by.n);
	add_measure_cells(r, out, &r->total);
	buf_adds(out, "</tr></tfoot>\n</table></div>\n");
	if (n < g->n)
		buf_addf(out, "<p class=\"note\">The first %zu of %zu groups; the total is of all. --format csv has every one.</p>\n",
		         n, g->n);
}

static void add_jobs(const struct report *r, struct buf *out)
{
	buf_adds(out, "<h2>Jobs</h2>\n<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"Table of "
	              "jobs\"><table>\n<thead><tr><th class=\"t\" scope=\"col\">job</th><th class=\"t\" scope=\"col\">model"
	              "</th><th class=\"t\" scope=\"col\">fingerprint</th><th scope=\"col\">rows</th><th "
	              "scope=\"col\">records</th><th scope=\"col\">attempts</th>");
	add_heads(r, out);
	for (size_t i = 0; i < r->n_jobs; i++) {
		const struct ledger_job *j = &r->jobs[i];
		char fingerprint[16];

		snprintf(fingerprint, sizeof(fingerprint), "%.12s", j->fingerprint);
		buf_adds(out, "<tr>");
		add_text_cell(out, "th", j->name);
		add_text_cell(out, "td", j->model);
		add_text_cell(out, "td", fingerprint);
		add_count_cell(out, j->n_rows);
		add_count_cell(out, j->n_charges);
		add_count_cell(out, j->n_attempts);
		add_measure_cells(r, out, &j->total);
		buf_adds(out, "</tr>\n");
	}
	buf_adds(out, "</tbody>\n</table></div>\n<p class=\"dim\">Of whole jobs, whatever days the report is about.</p>\n");
}

void report_write_html(const struct report *r, struct buf *out)
{
	size_t n_incomplete = 0;
	char since[DAY_TEXT_BYTES], until[DAY_TEXT_BYTES];

	html_begin(out, "tokenmill report");
	buf_adds(out, "<h1>Usage and cost</h1>\n<p class=\"dim\">");
	buf_addf(out, "%zu job%s", r->n_jobs, r->n_jobs == 1 ? "" : "s");
	if (r->n_jobs == 1) {
		buf_adds(out, ": <bdi>");
		html_add_text(out, r->jobs[0].name);
		buf_adds(out, "</bdi>, <bdi>");
		html_add_text(out, r->jobs[0].model);
		buf_adds(out, "</bdi>");
	}
	if (r->by_day.n)
		buf_addf(out, " · %s to %s (UTC)", r->by_day.list[0]->values[0], r->by_day.list[r->by_day.n - 1]->values[0]);
	day_format(r->since, since);
	day_format(r->until, until);
	if (r->since > 0)
		buf_addf(out, " · since %s", since);
	if (r->until < DAY_MAX)
		buf_addf(out, " · until %s", until);
	buf_adds(out, "</p>\n");
	for (size_t i = 0; i < r->n_jobs; i++)
		n_incomplete += !r->jobs[i].is_complete;
	if (n_incomplete)
		buf_addf(out, "<p class=\"note\">%zu of the jobs %s not complete: see their rows and records below.</p>\n",
		         n_incomplete, n_incomplete == 1 ? "is" : "are");
	if (!r->prices)
		buf_adds(out, "<p class=\"note\">Without a price sheet (--prices) there is no money here.</p>\n");
	add_tiles(r, out);
	add_charts(r, out);
	if (r->groups.by.n)
		add_groups(r, out);
	add_jobs(r, out);
	buf_adds(out, "<p class=\"dim\">Useful tokens are input and output of requests that succeeded. Waste is billed to nobody. "
	              "Node time and its cost are shared "
	              "out among requests in proportion to their list price, or to their tokens where there is none.</p>\n");
	html_end(out);
}
