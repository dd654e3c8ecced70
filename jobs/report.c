/* report.c: ledgers into groups, and what is the same in all formats. */
#include "jobs/report.h"

#include <stdlib.h>
#include <string.h>

#include "jobs/day.h"

void report_init(struct report *r, const struct dimensions *by, const struct prices *prices, int64_t since, int64_t until)
{
	struct dimensions day_tenant;
	struct err err = {0};

	*r = (struct report){.prices = prices, .since = since, .until = until};
	r->latency_s.first = 0.0625;
	r->output_tokens.first = 1;
	groups_init(&r->groups, by);
	dimensions_parse("day,tenant", &day_tenant, &err);
	groups_init(&r->by_day, &day_tenant);
}

void report_release(struct report *r)
{
	groups_release(&r->groups);
	groups_release(&r->by_day);
	for (size_t i = 0; i < r->n_jobs; i++)
		ledger_job_release(&r->jobs[i]);
	free(r->jobs);
	*r = (struct report){0};
}

static int on_cell(void *arg, const struct group_facts *f, const struct measure *m, struct err *err)
{
	struct report *r = arg;

	if (measure_add(&r->total, m) < 0)
		return err_set(err, ERR_STORAGE, "a sum over jobs is too large: a ledger is damaged");
	return groups_add(&r->groups, f, m, err) < 0 || groups_add(&r->by_day, f, m, err) < 0 ? -1 : 0;
}

int report_add_ledger(struct report *r, const char *path, const char *shown, struct err *err)
{
	struct ledger_options o = {.prices = r->prices,
	                           .since = r->since,
	                           .until = r->until,
	                           .latency_s = &r->latency_s,
	                           .output_tokens = &r->output_tokens};
	struct ledger_job *j;

	MEM_GROW(r->jobs, r->cap_jobs, r->n_jobs + 1);
	j = &r->jobs[r->n_jobs];
	if (ledger_read(path, shown, &o, on_cell, r, j, err) < 0)
		return -1;
	r->n_jobs++;
	for (size_t i = 0; i + 1 < r->n_jobs; i++)
		if (strcmp(r->jobs[i].plan_id, j->plan_id) == 0)
			return err_set(err, ERR_USAGE, "%s: job %s is given twice (plan %s)", shown, j->name, j->plan_id);
	return 0;
}

static int check_groups(const struct report *r, const struct groups *g, struct err *err)
{
	struct measure sum;

	if (groups_total(g, &sum, err) < 0)
		return -1;
	for (int i = 0; i < N_COUNTS; i++)
		if (sum.count[i] != r->total.count[i])
			return err_set(err, ERR_STORAGE, "out of balance: %s is %lld over groups, %lld over jobs", count_names[i],
			               (long long)sum.count[i], (long long)r->total.count[i]);
	for (int i = 0; i < N_MONEY; i++)
		if (sum.money[i] != r->total.money[i])
			return err_set(err, ERR_STORAGE, "out of balance: %s differs between groups and jobs", money_names[i]);
	return 0;
}

int report_finish(struct report *r, struct err *err)
{
	groups_sort(&r->groups);
	groups_sort(&r->by_day);
	return check_groups(r, &r->groups, err) < 0 || check_groups(r, &r->by_day, err) < 0 ? -1 : 0;
}

int report_has_list(const struct report *r)
{
	return r->prices && prices_has_models(r->prices);
}

int report_has_actual(const struct report *r)
{
	return r->prices && prices_has_nodes(r->prices);
}

/* Rounded to an atto for one token. */
static int per_million(atto cost, int64_t n_tokens, atto *out)
{
	if (n_tokens <= 0)
		return 0;
	*out = decimal_divide(cost, n_tokens) * 1000000;
	return 1;
}

struct per_million report_per_million(const struct report *r, const struct measure *m)
{
	struct per_million p = {0};
	atto cost = report_has_actual(r) ? m->money[MONEY_ACTUAL] : m->money[MONEY_BILLED], part, whole, input = 0;

	if (!report_has_actual(r) && !report_has_list(r))
		return p;
	part = m->money[MONEY_INPUT] + m->money[MONEY_CACHED_INPUT];
	whole = m->money[MONEY_LIST];
	if (whole == 0) {
		part = m->count[COUNT_INPUT] - m->count[COUNT_CACHED];
		whole = part + m->count[COUNT_OUTPUT];
	}
	if (whole > 0)
		input = decimal_share(cost, part, whole);
	p.has_input = whole > 0 && per_million(input, m->count[COUNT_INPUT], &p.input);
	p.has_output = whole > 0 && per_million(cost - input, m->count[COUNT_OUTPUT], &p.output);
	p.has_useful = per_million(cost, m->count[COUNT_USEFUL], &p.useful);
	return p;
}

void report_add_csv(struct buf *out, const char *text)
{
	size_t n = strlen(text);

	if (!strpbrk(text, ",\"\r\n") && !(n && (text[0] == ' ' || text[n - 1] == ' '))) {
		buf_adds(out, text);
		return;
	}
	buf_addc(out, '"');
	for (; *text; text++) {
		if (*text == '"')
			buf_addc(out, '"');
		buf_addc(out, *text);
	}
	buf_addc(out, '"');
}

void report_add_seconds(struct buf *out, int64_t ms)
{
	buf_addf(out, "%lld.%03lld", (long long)(ms / 1000), (long long)(ms % 1000));
}
