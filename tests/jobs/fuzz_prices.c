/* Price sheets. What is accepted must find a price for each of its own exact names, and charge nothing that is negative or does
 * not add up. */
#include <stdlib.h>
#include <string.h>

#include "jobs/day.h"
#include "jobs/prices_private.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_model(const struct prices *p, const struct model_price *m)
{
	struct token_counts t = {.prompt = INT64_MAX, .cached = INT64_MAX / 3, .output = INT64_MAX, .reasoning = 12345};
	int64_t day = m->from == PRICES_SINCE_EVER ? 0 : m->from;
	struct token_cost c = model_price_cost(m, &t);

	if (!strpbrk(m->model, "*?") && prices_model(p, m->model, day) != m)
		abort();
	if (m->from != PRICES_SINCE_EVER && (m->from < 0 || m->from > DAY_MAX))
		abort();
	if (c.input < 0 || c.cached_input < 0 || c.output < 0 || c.reasoning < 0 || c.billed < 0 || c.billed > c.list ||
	    c.list != c.input + c.cached_input + c.output + c.reasoning)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct err err = {0};
	struct prices *p = prices_parse("sheet", (const char *)data, size, &err);
	struct node_price n;

	if (!p) {
		if (err.code != ERR_INPUT || strncmp(err.msg, "sheet:", 6) != 0)
			abort();
		return 0;
	}
	for (size_t i = 0; i < p->n_models; i++)
		check_model(p, &p->models[i]);
	for (size_t i = 0; i < p->n_nodes; i++)
		if (prices_node(p, p->nodes[i].node, DAY_MAX, &n) && node_price_cost(&n, INT64_C(3660) * DAY_MS) < 0)
			abort();
	prices_free(p);
	return 0;
}
