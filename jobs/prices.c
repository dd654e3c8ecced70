/* prices.c: which entry of a sheet counts, and sums by it. */
#include "jobs/prices.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "jobs/day.h"
#include "jobs/prices_private.h"

/* The part of an entry that decides whether it counts; model, node and GPU entries all have it. */
struct entry_key {
	const char *name;
	int64_t from;
	int line;
};

/* On a mismatch the last star takes one character more: linear but for the length of that star's part. */
int prices_matches(const char *pattern, const char *name)
{
	const char *star = NULL, *resume = NULL;

	while (*name) {
		if (*pattern == '*') {
			star = ++pattern;
			resume = name;
		} else if (*pattern && (*pattern == '?' || *pattern == *name)) {
			pattern++;
			name++;
		} else if (star) {
			pattern = star;
			name = ++resume;
		} else {
			return 0;
		}
	}
	while (*pattern == '*')
		pattern++;
	return *pattern == '\0';
}

/* Exact names before all patterns, then by characters that are no wildcards. */
static size_t specificity(const char *name)
{
	size_t n = 0, wild = 0;

	for (; *name; name++) {
		int is_wild = *name == '*' || *name == '?';

		wild += is_wild;
		n += !is_wild;
	}
	return wild ? n : SIZE_MAX;
}

static int compare_keys(const struct entry_key *a, const struct entry_key *b)
{
	size_t x = specificity(a->name), y = specificity(b->name);
	int c;

	if (x != y)
		return x > y ? -1 : 1;
	c = strcmp(a->name, b->name);
	if (c != 0)
		return c;
	return a->from != b->from ? (a->from < b->from ? -1 : 1) : 0;
}

static struct entry_key model_key(const void *e)
{
	const struct model_price *m = e;

	return (struct entry_key){m->model, m->from, m->line};
}

static struct entry_key node_key(const void *e)
{
	const struct node_entry *m = e;

	return (struct entry_key){m->node, m->from, m->line};
}

static struct entry_key gpu_key(const void *e)
{
	const struct gpu_entry *m = e;

	return (struct entry_key){m->gpu, m->from, m->line};
}

static int compare_models(const void *a, const void *b)
{
	struct entry_key x = model_key(a), y = model_key(b);

	return compare_keys(&x, &y);
}

static int compare_nodes(const void *a, const void *b)
{
	struct entry_key x = node_key(a), y = node_key(b);

	return compare_keys(&x, &y);
}

static int compare_gpus(const void *a, const void *b)
{
	struct entry_key x = gpu_key(a), y = gpu_key(b);

	return compare_keys(&x, &y);
}

static int refuse_twins(const char *sheet, const char *what, const void *entries, size_t n, size_t bytes,
                        struct entry_key (*key)(const void *), struct err *err)
{
	for (size_t i = 1; i < n; i++) {
		struct entry_key a = key((const char *)entries + (i - 1) * bytes), b = key((const char *)entries + i * bytes);
		char day[DAY_TEXT_BYTES] = "";

		if (compare_keys(&a, &b) != 0)
			continue;
		if (a.from != PRICES_SINCE_EVER)
			day_format(a.from, day);
		return err_set(err, ERR_INPUT, "%s:%d: %s: '%s' has a price%s%s already (line %d)", sheet,
		               a.line > b.line ? a.line : b.line, what, a.name, day[0] ? " from " : " without `from`", day,
		               a.line > b.line ? b.line : a.line);
	}
	return 0;
}

int prices_arrange(struct prices *p, struct err *err)
{
	if (p->n_models)
		qsort(p->models, p->n_models, sizeof(*p->models), compare_models);
	if (p->n_nodes)
		qsort(p->nodes, p->n_nodes, sizeof(*p->nodes), compare_nodes);
	if (p->n_gpus)
		qsort(p->gpus, p->n_gpus, sizeof(*p->gpus), compare_gpus);
	if (refuse_twins(p->name, "model", p->models, p->n_models, sizeof(*p->models), model_key, err) < 0)
		return -1;
	if (refuse_twins(p->name, "node", p->nodes, p->n_nodes, sizeof(*p->nodes), node_key, err) < 0)
		return -1;
	return refuse_twins(p->name, "gpu", p->gpus, p->n_gpus, sizeof(*p->gpus), gpu_key, err);
}

/* The entry for a name on a day in a sorted array, NULL for none. */
static const void *find(const void *entries, size_t n, size_t bytes, struct entry_key (*key)(const void *), const char *name,
                        int64_t day)
{
	const void *best = NULL;
	const char *found = NULL;

	for (size_t i = 0; i < n; i++) {
		const void *e = (const char *)entries + i * bytes;
		struct entry_key k = key(e);

		if (found ? strcmp(k.name, found) != 0 : !(strcmp(k.name, name) == 0 || prices_matches(k.name, name)))
			continue;
		found = k.name;
		if (k.from <= day)
			best = e;
	}
	return best;
}

void prices_free(struct prices *p)
{
	if (!p)
		return;
	for (size_t i = 0; i < p->n_models; i++)
		free(p->models[i].model);
	for (size_t i = 0; i < p->n_nodes; i++) {
		free(p->nodes[i].node);
		free(p->nodes[i].gpu);
	}
	for (size_t i = 0; i < p->n_gpus; i++)
		free(p->gpus[i].gpu);
	free(p->models);
	free(p->nodes);
	free(p->gpus);
	free(p->name);
	free(p);
}

struct prices *prices_load(const char *path, struct err *err)
{
	struct buf text = {0};
	struct prices *p = NULL;

	if (file_read(path, PRICES_MAX_BYTES, &text, ERR_INPUT, err) == 0)
		p = prices_parse(path, buf_str(&text), text.len, err);
	buf_release(&text);
	return p;
}

const char *prices_currency(const struct prices *p)
{
	return p->currency;
}

int prices_has_models(const struct prices *p)
{
	return p->n_models > 0;
}

int prices_has_nodes(const struct prices *p)
{
	return p->n_nodes > 0;
}

const struct model_price *prices_model(const struct prices *p, const char *model, int64_t day)
{
	return find(p->models, p->n_models, sizeof(*p->models), model_key, model, day);
}

int prices_node(const struct prices *p, const char *node_type, int64_t day, struct node_price *out)
{
	const struct node_entry *e = find(p->nodes, p->n_nodes, sizeof(*p->nodes), node_key, node_type, day);
	const struct gpu_entry *g;

	if (!e)
		return 0;
	*out = (struct node_price){.node = e->node, .gpu = e->gpu ? e->gpu : "", .n_gpus = e->n_gpus};
	if (e->per_node_hour != PRICE_NONE) {
		out->hour = e->per_node_hour;
	} else if (e->per_gpu_hour != PRICE_NONE) {
		out->hour = e->per_gpu_hour * e->n_gpus;
	} else {
		g = !e->gpu ? NULL : find(p->gpus, p->n_gpus, sizeof(*p->gpus), gpu_key, e->gpu, day);
		if (!g)
			return 0;
		out->hour = g->per_gpu_hour * e->n_gpus;
	}
	return 1;
}

/* Of a price of 1e-8 for a million tokens one token is 1e-14: SHARE_ONE attos, so that a discount in 1e-4 leaves a whole
 * number. */
static atto tokens_cost(int64_t n, int64_t price)
{
	return (atto)n * price * SHARE_ONE;
}

struct token_cost model_price_cost(const struct model_price *m, const struct token_counts *t)
{
	struct token_cost c = {
	    .input = tokens_cost(t->prompt - t->cached, m->input),
	    .cached_input = tokens_cost(t->cached, m->cached_input),
	    .output = tokens_cost(t->output - t->reasoning, m->output),
	    .reasoning = tokens_cost(t->reasoning, m->reasoning),
	};

	c.list = c.input + c.cached_input + c.output + c.reasoning;
	c.billed = c.list / SHARE_ONE * (SHARE_ONE - m->discount);
	c.cache_saving = (atto)t->cached * (m->input - m->cached_input) * (SHARE_ONE - m->discount);
	return c;
}

atto node_price_cost(const struct node_price *n, int64_t ms)
{
	/* 1e-8 an hour: 1e10 attos in 3.6e6 ms */
	return decimal_divide((atto)n->hour * ms * 100000, 36);
}

int prices_tokens_cost(const struct prices *p, const char *model, int64_t day, const struct token_counts *t,
                       struct token_cost *out, struct err *err)
{
	const struct model_price *m = prices_model(p, model, day);
	char text[DAY_TEXT_BYTES];

	day_format(day, text);
	if (!m)
		return err_set(err, ERR_INPUT, "%s: no price for model '%s' on %s; an entry `model: \"*\"` is the default", p->name,
		               model, text);
	*out = model_price_cost(m, t);
	return 0;
}

int prices_node_cost(const struct prices *p, const char *node_type, int64_t day, int64_t ms, atto *out, struct err *err)
{
	struct node_price n;
	char text[DAY_TEXT_BYTES];

	day_format(day, text);
	if (!prices_node(p, node_type, day, &n))
		return err_set(err, ERR_INPUT, "%s: no price for node type '%s' on %s; an entry `node: \"*\"` is the default", p->name,
		               node_type, text);
	*out = node_price_cost(&n, ms);
	return 0;
}
