/* report_focus.c: a report as a FOCUS 1.2 dataset (https://focus.finops.org/focus-specification/v1-2/): one line for each kind
 * of token of each group and day, so that unit price times quantity is the cost, exactly.
 *
 *     ListCost        at the sheet's price
 *     ContractedCost  less the batch discount; BilledCost is the same: it is what a tenant is charged
 *     EffectiveCost   the node time that it took, at its price, where the sheet prices node types; else as ContractedCost
 *
 * Node time of a day on which a group finished nothing is a line of its own ("Node time") with list price 0. All columns that
 * the specification calls mandatory are there, the conditional ones that apply, and our own with x_. */
#include <string.h>

#include "base/json.h"
#include "jobs/day.h"
#include "jobs/report.h"

static const char header[] = "BilledCost,BillingAccountId,BillingAccountName,BillingAccountType,BillingCurrency,"
                             "BillingPeriodEnd,BillingPeriodStart,ChargeCategory,"
                             "ChargeClass,ChargeDescription,ChargeFrequency,ChargePeriodEnd,ChargePeriodStart,ConsumedQuantity,"
                             "ConsumedUnit,ContractedCost,"
                             "ContractedUnitPrice,EffectiveCost,InvoiceIssuerName,ListCost,ListUnitPrice,PricingCategory,"
                             "PricingQuantity,PricingUnit,ProviderName,"
                             "PublisherName,ResourceId,ResourceName,ResourceType,ServiceCategory,ServiceName,"
                             "ServiceSubcategory,SkuId,SkuMeter,SkuPriceId,"
                             "SubAccountId,SubAccountName,SubAccountType,Tags,x_Job,x_Model,x_NodeType";

#define PROVIDER "tokenmill"
#define PRICING_UNIT "1000000 Tokens"

struct line {
	const char *sku;        /* "input" */
	const char *meter;      /* "Input Tokens" */
	const char *price_from; /* of the price, "" since ever */
	atto list, contracted, effective;
	atto list_price, contracted_price; /* of a pricing unit */
	int64_t quantity;                  /* tokens, or milliseconds */
	int is_time;
};

static const char *value_of(const struct groups *g, const struct group *e, const char *dimension)
{
	int i = dimensions_find(&g->by, dimension);

	return i < 0 ? "" : e->values[i];
}

static void add_time(struct buf *out, int64_t day)
{
	char text[DAY_TEXT_BYTES];

	day_format(day, text);
	buf_addf(out, "%sT00:00:00Z", text);
}

static void add_tags(const struct groups *g, const struct group *e, struct buf *out)
{
	struct buf json = {0};

	for (int i = 0; i < g->by.n; i++) {
		const struct dimension *d = &g->by.list[i];

		if (d->kind != DIMENSION_TAG || !e->values[i][0])
			continue;
		buf_adds(&json, json.len ? "," : "{");
		json_write_string(&json, dimension_tag(d), strlen(dimension_tag(d)));
		buf_addc(&json, ':');
		json_write_string(&json, e->values[i], strlen(e->values[i]));
	}
	if (json.len) {
		buf_addc(&json, '}');
		report_add_csv(out, json.data);
	}
	buf_release(&json);
}

static void add_fields(struct buf *out, const char *const *fields, int n)
{
	for (int i = 0; i < n; i++) {
		buf_addc(out, ',');
		report_add_csv(out, fields[i]);
	}
}

static void add_amount(struct buf *out, atto a)
{
	buf_addc(out, ',');
	decimal_add_exact(out, a);
}

static void add_line(const struct report *r, const struct group *e, const struct line *l, int64_t day, struct buf *out)
{
	const char *model = value_of(&r->groups, e, "model"), *job = value_of(&r->groups, e, "job"),
	           *tenant = value_of(&r->groups, e, "tenant");
	const char *account[] = {PROVIDER, PROVIDER, "Deployment", prices_currency(r->prices)};
	const char *tail[] = {value_of(&r->groups, e, "job"), model, value_of(&r->groups, e, "node")};
	struct buf text = {0};
	/* A unit is a million tokens or a second: so many attos of a quantity's own unit make one. */
	atto unit = l->is_time ? ATTO_ONE / 1000 : ATTO_ONE / 1000000;

	decimal_add_exact(out, l->contracted);
	add_fields(out, account, 4);
	buf_addc(out, ',');
	add_time(out, day_next_month_start(day));
	buf_addc(out, ',');
	add_time(out, day_month_start(day));
	buf_addf(&text, "%s: %s", model, l->meter);
	add_fields(out, (const char *const[]){"Usage", "", text.data, "Usage-Based"}, 4);
	buf_addc(out, ',');
	add_time(out, day + 1);
	buf_addc(out, ',');
	add_time(out, day);
	if (l->is_time)
		add_amount(out, (atto)l->quantity * unit);
	else
		buf_addf(out, ",%lld", (long long)l->quantity);
	buf_adds(out, l->is_time ? ",Seconds" : ",Tokens");
	add_amount(out, l->contracted);
	add_amount(out, l->contracted_price);
	add_amount(out, l->effective);
	buf_adds(out, "," PROVIDER);
	add_amount(out, l->list);
	add_amount(out, l->list_price);
	buf_adds(out, ",Standard");
	add_amount(out, (atto)l->quantity * unit);
	buf_adds(out, l->is_time ? ",Seconds" : "," PRICING_UNIT);
	add_fields(out,
	           (const char *const[]){PROVIDER, PROVIDER, job, job, "Batch Job", "AI and Machine Learning", "Batch Inference",
	                                 "Generative AI"},
	           8);
	buf_reset(&text);
	buf_addf(&text, "%s/%s", model, l->sku);
	add_fields(out, (const char *const[]){text.data, l->meter}, 2);
	if (l->price_from[0])
		buf_addf(&text, "/%s", l->price_from);
	add_fields(out, (const char *const[]){text.data, tenant, tenant, tenant[0] ? "Tenant" : ""}, 4);
	buf_addc(out, ',');
	add_tags(&r->groups, e, out);
	add_fields(out, tail, 3);
	buf_adds(out, "\r\n");
	buf_release(&text);
}

static int write_group(const struct report *r, const struct group *e, struct buf *out, struct err *err)
{
	static const char *const skus[] = {"input", "cached-input", "output", "reasoning"};
	static const char *const meters[] = {"Input Tokens", "Cached Input Tokens", "Output Tokens", "Reasoning Tokens"};
	const struct measure *m = &e->m;
	const int64_t quantity[] = {m->count[COUNT_INPUT] - m->count[COUNT_CACHED], m->count[COUNT_CACHED],
	                            m->count[COUNT_OUTPUT] - m->count[COUNT_REASONING], m->count[COUNT_REASONING]};
	const char *day_text = value_of(&r->groups, e, "day"), *model = value_of(&r->groups, e, "model");
	const struct model_price *price = NULL;
	char from[DAY_TEXT_BYTES] = "";
	atto so_far = 0, given = 0;
	int64_t day;

	if (day_parse(day_text, strlen(day_text), &day) < 0)
		BUG("a day is '%s'", day_text);
	if (m->count[COUNT_INPUT] || m->count[COUNT_OUTPUT]) {
		price = prices_model(r->prices, model, day);
		if (!price)
			return err_set(err, ERR_INPUT, "no price for model '%s' on %s", model, day_text);
		if (price->from != PRICES_SINCE_EVER)
			day_format(price->from, from);
	}
	for (int i = 0; i < 4 && price; i++) {
		const int64_t unit[] = {price->input, price->cached_input, price->output, price->reasoning};
		struct line l = {.sku = skus[i], .meter = meters[i], .price_from = from, .quantity = quantity[i]};

		if (quantity[i] == 0)
			continue;
		l.list = m->money[MONEY_INPUT + i];
		l.contracted = l.list / SHARE_ONE * (SHARE_ONE - price->discount);
		l.list_price = (atto)unit[i] * (ATTO_ONE / PRICE_ONE);
		l.contracted_price = l.list_price / SHARE_ONE * (SHARE_ONE - price->discount);
		l.effective = l.contracted;
		so_far += l.list;
		if (report_has_actual(r)) {
			l.effective =
			    m->money[MONEY_LIST] > 0 ? decimal_share(m->money[MONEY_ACTUAL], so_far, m->money[MONEY_LIST]) - given : 0;
			given += l.effective;
		}
		add_line(r, e, &l, day, out);
	}
	if (report_has_actual(r) && given != m->money[MONEY_ACTUAL]) {
		struct line l = {.sku = "node-time",
		                 .meter = "Node time",
		                 .price_from = "",
		                 .quantity = m->count[COUNT_NODE_MS],
		                 .is_time = 1,
		                 .effective = m->money[MONEY_ACTUAL] - given};

		add_line(r, e, &l, day, out);
	}
	return 0;
}

int report_write_focus(const struct report *r, struct buf *out, struct err *err)
{
	if (!report_has_list(r))
		return err_set(err, ERR_USAGE, "--format focus needs a price sheet with prices of models (--prices)");
	buf_adds(out, header);
	buf_adds(out, "\r\n");
	for (size_t i = 0; i < r->groups.n; i++)
		if (write_group(r, r->groups.list[i], out, err) < 0)
			return -1;
	return 0;
}
