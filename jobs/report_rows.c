/* report_rows.c: a report as CSV and as JSON: the same columns in the same order. */
#include <string.h>

#include "base/json.h"
#include "jobs/day.h"
#include "jobs/report.h"

enum column_kind {
	COLUMN_COUNT,
	COLUMN_SECONDS,
	COLUMN_BILLED_TOKENS,
	COLUMN_MONEY,
	COLUMN_PER_INPUT,
	COLUMN_PER_OUTPUT,
	COLUMN_PER_USEFUL
};

struct column {
	const char *name;
	enum column_kind kind;
	int index; /* in the measure */
};

enum { MAX_COLUMNS = N_COUNTS + N_MONEY + 4 };

static int list_columns(struct column *c)
{
	static const enum money_kind money[] = {MONEY_LIST, MONEY_BILLED, MONEY_SAVING, MONEY_ACTUAL, MONEY_KILLED};
	int n = 0;

	for (int i = 0; i < N_COUNTS; i++) {
		c[n++] = (struct column){count_names[i], i >= COUNT_NODE_MS ? COLUMN_SECONDS : COLUMN_COUNT, i};
		if (i == COUNT_RECOMPUTED)
			c[n++] = (struct column){"billed_tokens", COLUMN_BILLED_TOKENS, 0};
	}
	for (size_t i = 0; i < sizeof(money) / sizeof(*money); i++)
		c[n++] = (struct column){money_names[money[i]], COLUMN_MONEY, (int)money[i]};
	c[n++] = (struct column){"per_million_input", COLUMN_PER_INPUT, 0};
	c[n++] = (struct column){"per_million_output", COLUMN_PER_OUTPUT, 0};
	c[n++] = (struct column){"per_million_useful", COLUMN_PER_USEFUL, 0};
	return n;
}

/* 1: there is a value and it was appended. */
static int add_value(const struct report *r, struct buf *out, const struct column *c, const struct measure *m,
                     const struct per_million *p)
{
	switch (c->kind) {
	case COLUMN_COUNT:
		buf_addf(out, "%lld", (long long)m->count[c->index]);
		return 1;
	case COLUMN_SECONDS:
		if (c->index == COUNT_GPU_MS && !report_has_actual(r))
			return 0;
		report_add_seconds(out, m->count[c->index]);
		return 1;
	case COLUMN_BILLED_TOKENS:
		buf_addf(out, "%lld", (long long)m->count[COUNT_INPUT] + (long long)m->count[COUNT_OUTPUT]);
		return 1;
	case COLUMN_MONEY:
		if (c->index >= MONEY_FIRST_SHARED ? !report_has_actual(r) : !report_has_list(r))
			return 0;
		decimal_add_exact(out, m->money[c->index]);
		return 1;
	case COLUMN_PER_INPUT:
		if (p->has_input)
			decimal_add_exact(out, p->input);
		return p->has_input;
	case COLUMN_PER_OUTPUT:
		if (p->has_output)
			decimal_add_exact(out, p->output);
		return p->has_output;
	case COLUMN_PER_USEFUL:
		if (p->has_useful)
			decimal_add_exact(out, p->useful);
		return p->has_useful;
	}
	return 0;
}

void report_write_csv(const struct report *r, struct buf *out)
{
	struct column columns[MAX_COLUMNS];
	int n = list_columns(columns);

	for (int i = 0; i < r->groups.by.n; i++) {
		report_add_csv(out, r->groups.by.list[i].name);
		buf_addc(out, ',');
	}
	buf_adds(out, "currency");
	for (int i = 0; i < n; i++)
		buf_addf(out, ",%s", columns[i].name);
	buf_adds(out, "\r\n");
	for (size_t g = 0; g < r->groups.n; g++) {
		const struct group *e = r->groups.list[g];
		struct per_million p = report_per_million(r, &e->m);

		for (int i = 0; i < r->groups.by.n; i++) {
			report_add_csv(out, e->values[i]);
			buf_addc(out, ',');
		}
		buf_adds(out, r->prices ? prices_currency(r->prices) : "");
		for (int i = 0; i < n; i++) {
			buf_addc(out, ',');
			add_value(r, out, &columns[i], &e->m, &p);
		}
		buf_adds(out, "\r\n");
	}
}

static void add_string(struct buf *out, const char *s)
{
	json_write_string(out, s, strlen(s));
}

/* Members of an object, from the comma on. Money is a string: most readers of JSON make a double of a number. */
static void add_measure(const struct report *r, struct buf *out, const struct measure *m)
{
	struct column columns[MAX_COLUMNS];
	struct per_million p = report_per_million(r, m);
	struct buf value = {0};
	int n = list_columns(columns);

	for (int i = 0; i < n; i++) {
		buf_reset(&value);
		buf_addf(out, ",\"%s\":", columns[i].name);
		if (!add_value(r, &value, &columns[i], m, &p))
			buf_adds(out, "null");
		else if (columns[i].kind >= COLUMN_MONEY)
			buf_addf(out, "\"%s\"", value.data);
		else
			buf_adds(out, value.data);
	}
	buf_release(&value);
}

static void add_histogram(struct buf *out, const char *name, const struct histogram *h)
{
	int last = HISTOGRAM_BUCKETS - 1;

	while (last > 0 && h->count[last] == 0)
		last--;
	buf_addf(out, ",\n \"%s\":[", name);
	for (int i = 0; i <= last; i++)
		buf_addf(out, "%s{\"from\":%.10g,\"requests\":%lld}", i ? "," : "", histogram_edge(h, i), (long long)h->count[i]);
	buf_addc(out, ']');
}

static void add_day(struct buf *out, const char *name, int64_t day, int is_given)
{
	char text[DAY_TEXT_BYTES];

	day_format(day, text);
	buf_addf(out, is_given ? "\"%s\":\"%s\"," : "\"%s\":null,", name, text);
}

void report_write_json(const struct report *r, struct buf *out)
{
	buf_adds(out, "{\"format\":1,");
	if (r->prices)
		buf_addf(out, "\"currency\":\"%s\",", prices_currency(r->prices));
	else
		buf_adds(out, "\"currency\":null,");
	add_day(out, "since", r->since, r->since > 0);
	add_day(out, "until", r->until, r->until < DAY_MAX);
	buf_adds(out, "\"by\":[");
	for (int i = 0; i < r->groups.by.n; i++) {
		buf_adds(out, i ? "," : "");
		add_string(out, r->groups.by.list[i].name);
	}
	buf_adds(out, "],\n \"jobs\":[");
	for (size_t i = 0; i < r->n_jobs; i++) {
		const struct ledger_job *j = &r->jobs[i];

		buf_adds(out, i ? ",\n  {\"plan_id\":" : "\n  {\"plan_id\":");
		add_string(out, j->plan_id);
		buf_adds(out, ",\"name\":");
		add_string(out, j->name);
		buf_adds(out, ",\"model\":");
		add_string(out, j->model);
		buf_adds(out, ",\"fingerprint\":");
		add_string(out, j->fingerprint);
		buf_addf(
		    out,
		    ",\"complete\":%s,\"rows\":%lld,\"records\":%lld,\"attempts\":%lld,\"start_unix_ms\":%lld,\"end_unix_ms\":%lld",
		    j->is_complete ? "true" : "false", (long long)j->n_rows, (long long)j->n_charges, (long long)j->n_attempts,
		    (long long)j->start_ms, (long long)j->end_ms);
		add_measure(r, out, &j->total);
		buf_addc(out, '}');
	}
	buf_adds(out, "],\n \"groups\":[");
	for (size_t g = 0; g < r->groups.n; g++) {
		const struct group *e = r->groups.list[g];

		buf_adds(out, g ? ",\n  {\"by\":{" : "\n  {\"by\":{");
		for (int i = 0; i < r->groups.by.n; i++) {
			buf_adds(out, i ? "," : "");
			add_string(out, r->groups.by.list[i].name);
			buf_addc(out, ':');
			add_string(out, e->values[i]);
		}
		buf_addc(out, '}');
		add_measure(r, out, &e->m);
		buf_addc(out, '}');
	}
	buf_addf(out, "],\n \"total\":{\"groups\":%zu", r->groups.n);
	add_measure(r, out, &r->total);
	buf_addc(out, '}');
	add_histogram(out, "latency_seconds", &r->latency_s);
	add_histogram(out, "output_length_tokens", &r->output_tokens);
	buf_adds(out, "}\n");
}
