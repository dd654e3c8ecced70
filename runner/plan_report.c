/* plan_report.c: figures of a plan, and how they are written. */
#include "runner/plan_report.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "jobs/day.h"

const int plan_worker_counts[PLAN_WORKER_COUNTS] = {1, 4, 16};

/* ---- computed ---- */

static int by_size(const void *pa, const void *pb)
{
	double a = *(const double *)pa, b = *(const double *)pb;

	return (a > b) - (a < b);
}

static struct plan_spread spread_of(double *values, int64_t n)
{
	if (n == 0)
		return (struct plan_spread){0};
	qsort(values, (size_t)n, sizeof(*values), by_size);
	return (struct plan_spread){values[0], n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2, values[n - 1]};
}

/* When the last shard ends if each of n workers takes the next one as soon as it is free. */
static double makespan(const struct job *j, int n_workers)
{
	double free_at[64] = {0}, last = 0;

	for (int64_t shard = 0; shard < job_n_shards(j); shard++) {
		int next = 0;

		for (int i = 1; i < n_workers; i++)
			if (free_at[i] < free_at[next])
				next = i;
		free_at[next] += job_shard_cost(j, shard);
		last = fmax(last, free_at[next]);
	}
	return last;
}

/* How many average rows the memory holds that the forecast found. Rows that share a prefix run together and hold it once. */
static int64_t rows_in_memory(const struct plan_report *r)
{
	const struct plan_figures *f = job_figures(r->job);
	const struct engine_plan *p = &r->prepared->forecast;
	int64_t n_rows = r->totals.n_rows - r->totals.n_bad - r->n_folded, bytes;

	if (n_rows < 1 || !p->kv_block_bytes)
		return 0;
	bytes = estimate_kv_bytes(r->unique_tokens / n_rows, f->expected_output_tokens / (double)n_rows, 1, KV_BLOCK_TOKENS,
	                          (int64_t)p->kv_block_bytes);
	return bytes > 0 ? (int64_t)p->kv_bytes / bytes : 0;
}

static int compute_prices(struct plan_report *r, const char *sheet, const char *node_type, struct err *err)
{
	const struct plan_figures *f = job_figures(r->job);
	int64_t day = day_of_ms(clock_unix_ms());
	struct token_counts tokens = {.prompt = f->prompt_tokens, .cached = f->prompt_tokens - r->unique_tokens};

	r->prices = prices_load(sheet, err);
	if (!r->prices)
		return -1;
	if (prices_has_models(r->prices)) {
		tokens.output = llround(f->expected_output_tokens);
		if (prices_tokens_cost(r->prices, r->prepared->setup.model_name, day, &tokens, &r->expected, err) < 0)
			return -1;
		tokens.output = f->max_output_tokens;
		if (prices_tokens_cost(r->prices, r->prepared->setup.model_name, day, &tokens, &r->most, err) < 0)
			return -1;
		r->has_token_price = 1;
	}
	if (node_type && r->speed) {
		if (prices_node_cost(r->prices, node_type, day, llround(r->worker_s * 1000), &r->node_cost, err) < 0)
			return -1;
		r->has_node_price = prices_node(r->prices, node_type, day, &r->node);
	}
	return 0;
}

int plan_report_compute(struct plan_report *r, const char *sheet, const char *node_type, struct err *err)
{
	const struct plan_figures *f = job_figures(r->job);
	double *values;

	r->n_folded = job_n_folded_rows(r->job);
	r->unique_tokens = f->prompt_tokens - f->shared_units * PREFIX_BLOCK_TOKENS;
	r->cache_share = f->prompt_tokens ? 1 - (double)r->unique_tokens / (double)f->prompt_tokens : 0;
	r->kv_rows = rows_in_memory(r);
	r->n_shards = job_n_shards(r->job);
	values = xcalloc((size_t)r->n_shards + 1, sizeof(*values));
	for (int64_t i = 0; i < r->n_shards; i++)
		values[i] = (double)job_shard_n_rows(r->job, i);
	r->rows = spread_of(values, r->n_shards);
	for (int64_t i = 0; i < r->n_shards; i++)
		values[i] = job_shard_cost(r->job, i);
	r->cost = spread_of(values, r->n_shards);
	free(values);
	r->worker_s = f->cost;
	for (int i = 0; i < PLAN_WORKER_COUNTS; i++)
		r->seconds[i] = makespan(r->job, plan_worker_counts[i]);
	if (node_type && !sheet)
		return err_set(err, ERR_USAGE, "--node-type needs a price sheet (--prices)");
	return sheet ? compute_prices(r, sheet, node_type, err) : 0;
}

void plan_report_release(struct plan_report *r)
{
	prices_free(r->prices);
	buf_release(&r->faults);
}

/* ---- written ---- */

static void add_count(struct buf *out, double n)
{
	char digits[40];
	int len = snprintf(digits, sizeof(digits), "%.0f", n);

	for (int i = 0; i < len; i++) {
		if (i > 0 && (len - i) % 3 == 0)
			buf_addc(out, ',');
		buf_addc(out, digits[i]);
	}
}

static void add_duration(struct buf *out, double s)
{
	if (s >= 3600)
		buf_addf(out, "%.1f h", s / 3600);
	else if (s >= 60)
		buf_addf(out, "%.1f min", s / 60);
	else
		buf_addf(out, "%.1f s", s);
}

static void add_amount(struct buf *out, const struct plan_report *r, atto amount)
{
	decimal_add_rounded(out, amount, 4);
	buf_addf(out, " %s", prices_currency(r->prices));
}

static void add_shards(const struct plan_report *r, struct buf *out)
{
	buf_adds(out, "shards            ");
	add_count(out, (double)r->n_shards);
	buf_addf(out, "; rows in each: %.0f to %.0f, median %.0f", r->rows.min, r->rows.max, r->rows.median);
	if (r->speed) {
		buf_adds(out, "; ");
		add_duration(out, r->cost.min);
		buf_adds(out, " to ");
		add_duration(out, r->cost.max);
		buf_adds(out, ", median ");
		add_duration(out, r->cost.median);
	} else if (r->cost.median > 0) {
		buf_addf(out, "; cost beside the median: %.2f to %.2f", r->cost.min / r->cost.median, r->cost.max / r->cost.median);
	}
	buf_addc(out, '\n');
}

static void add_hours(const struct plan_report *r, struct buf *out)
{
	char day[DAY_TEXT_BYTES];

	buf_adds(out, "time              ");
	if (!r->speed) {
		buf_adds(out, "not known: the speed of this model on this machine was never measured; `tokenmill bench --model MODEL` does it\n");
		return;
	}
	for (int i = 0; i < PLAN_WORKER_COUNTS; i++) {
		buf_adds(out, i ? "; " : "");
		add_duration(out, r->seconds[i]);
		buf_addf(out, " with %d worker%s", plan_worker_counts[i], plan_worker_counts[i] > 1 ? "s" : "");
	}
	day_format(day_of_ms(r->speed->measured_unix_ms), day);
	buf_addf(out, "\n                  on machines like this one, by the speed of %s of %s\n", r->speed->source == SPEED_BENCH ? "the bench" : "earlier runs",
	         day);
}

static void add_price(const struct plan_report *r, struct buf *out)
{
	if (r->has_token_price) {
		buf_adds(out, "price of tokens   ");
		add_amount(out, r, r->expected.billed);
		buf_adds(out, " expected, ");
		add_amount(out, r, r->most.billed);
		buf_adds(out, " at most, if all that can be cached is\n");
	}
	if (r->has_node_price) {
		buf_adds(out, "price of time     ");
		add_amount(out, r, r->node_cost);
		buf_adds(out, " for ");
		add_duration(out, r->worker_s);
		buf_addf(out, " on %s\n", r->node.node);
	}
}

void plan_report_text(const struct plan_report *r, struct buf *out)
{
	const struct plan_totals *t = &r->totals;
	const struct plan_figures *f = job_figures(r->job);

	buf_adds(out, "rows              ");
	add_count(out, (double)t->n_rows);
	if (t->n_bad) {
		buf_adds(out, ", of which ");
		add_count(out, (double)t->n_bad);
		buf_adds(out, t->n_bad > 1 ? " are at fault and become error records" : " is at fault and becomes an error record");
	}
	if (r->n_folded) {
		buf_adds(out, "\nrun once          ");
		add_count(out, (double)r->n_folded);
		buf_adds(out, " rows get the answer of an earlier one with the same request");
	}
	buf_adds(out, r->n_folded ? "; tokens are without them\nprompt tokens     " : "\nprompt tokens     ");
	add_count(out, (double)f->prompt_tokens);
	buf_adds(out, "\nto be computed    ");
	add_count(out, (double)r->unique_tokens);
	buf_addf(out, " when every shared prefix is computed once; best possible share of cache hits: %.1f %%\noutput tokens     ", 100 * r->cache_share);
	add_count(out, f->expected_output_tokens);
	buf_adds(out, " expected, ");
	add_count(out, (double)f->max_output_tokens);
	buf_adds(out, " at most");
	if (r->speed && r->speed->lengths.n)
		buf_addf(out, "; of earlier answers nine in ten ended within %.0f %% of their limit", 100 * output_lengths_quantile(&r->speed->lengths, 0.9));
	buf_addf(out, "\ncontext           %d tokens", r->prepared->setup.n_context);
	if (r->kv_rows && r->kv_rows < r->prepared->forecast.max_batch)
		buf_addf(out, "; memory holds %" PRId64 " average rows at once, fewer than the batch of %d: more --memory would help", r->kv_rows,
		         r->prepared->forecast.max_batch);
	buf_addc(out, '\n');
	add_shards(r, out);
	add_hours(r, out);
	add_price(r, out);
	if (r->place)
		buf_addf(out, "ready             tokenmill run --job %s\n", r->place);
}

static void add_spread(struct buf *out, const char *name, const struct plan_spread *s)
{
	buf_addf(out, "\"%s\":{\"min\":%.9g,\"median\":%.9g,\"max\":%.9g}", name, s->min, s->median, s->max);
}

static void add_exact(struct buf *out, const char *name, atto amount)
{
	buf_addf(out, ",\"%s\":", name);
	decimal_add_exact(out, amount);
}

void plan_report_json(const struct plan_report *r, struct buf *out)
{
	const struct plan_totals *t = &r->totals;
	const struct plan_figures *f = job_figures(r->job);

	buf_addf(out, "{\"rows\":%" PRId64 ",\"bad_rows\":%" PRId64 ",\"folded_rows\":%" PRId64 ",\"prompt_tokens\":%" PRId64 ",\"unique_prefill_tokens\":%" PRId64, t->n_rows, t->n_bad, r->n_folded,
	         f->prompt_tokens, r->unique_tokens);
	buf_addf(out, ",\"best_cache_hit_share\":%.6f,\"expected_output_tokens\":%.0f,\"max_output_tokens\":%" PRId64 ",\"context\":%d,\"rows_in_memory\":%" PRId64,
	         r->cache_share,
	         f->expected_output_tokens, f->max_output_tokens, r->prepared->setup.n_context, r->kv_rows);
	buf_addf(out, ",\"shards\":{\"count\":%" PRId64 ",", r->n_shards);
	add_spread(out, "rows", &r->rows);
	buf_addc(out, ',');
	add_spread(out, r->speed ? "seconds" : "cost", &r->cost);
	buf_adds(out, "},\"speed\":");
	if (r->speed)
		buf_addf(out, "{\"source\":\"%s\",\"measured_unix_ms\":%" PRId64 ",\"factor\":%.6g}", r->speed->source == SPEED_BENCH ? "bench" : "run",
		         r->speed->measured_unix_ms, r->speed->factor);
	else
		buf_adds(out, "null");
	buf_adds(out, ",\"hours\":");
	for (int i = 0; r->speed && i < PLAN_WORKER_COUNTS; i++)
		buf_addf(out, "%s\"%d\":%.9g", i ? "," : "{", plan_worker_counts[i], r->seconds[i] / 3600);
	buf_adds(out, r->speed ? "}" : "null");
	if (r->prices) {
		buf_adds(out, ",\"price\":{\"currency\":");
		json_write_string(out, prices_currency(r->prices), strlen(prices_currency(r->prices)));
		if (r->has_token_price) {
			add_exact(out, "expected", r->expected.billed);
			add_exact(out, "most", r->most.billed);
		}
		if (r->has_node_price)
			add_exact(out, "node_hours", r->node_cost);
		buf_addc(out, '}');
	}
	buf_adds(out, ",\"job\":");
	if (r->place)
		json_write_string(out, r->place, strlen(r->place));
	else
		buf_adds(out, "null");
	buf_addf(out, ",\"faults\":[%s]}\n", buf_str(&r->faults));
}
