/* prices.h: a price sheet, YAML or JSON (which YAML contains), and what things cost by it.
 *
 *     currency: USD                # ISO 4217, one for the whole sheet
 *     batch_discount: 0.5          # share taken off the list price of models; 0 when not given
 *     models:                      # per million tokens
 *       - {model: qwen3-8b, input: 0.20, cached_input: 0.05, output: 0.60, reasoning: 0.60}
 *       - {model: qwen3-8b, from: 2026-07-01, input: 0.18, output: 0.55}
 *       - {model: "qwen3-*", input: 0.30, output: 0.90, batch_discount: 0.4}
 *       - {model: "*", input: 1, output: 3}
 *     nodes:                       # node types as workers name them
 *       - {node: h100x8, gpu: h100, gpus: 8}            # 8 times the price of an h100
 *       - {node: m7i.8xlarge, per_node_hour: 1.6128}
 *     gpus:
 *       - {gpu: h100, per_gpu_hour: 2.99}
 *
 * Which entry counts: that of the exact name; else, of the patterns (* any characters, ? one) that match, the one with most
 * characters that are no wildcards, the first by bytes where that is equal. "*" is so the default. Of one name's entries the
 * one with the latest `from` that is not after the day (UTC); an entry without `from` holds since ever. No entry of that name
 * holds yet: there is no price; a less specific one is not taken instead.
 *
 * Cached input is charged at cached_input instead of input (the same when not given). Reasoning is part of output, charged at
 * reasoning instead of output (the same when not given).
 *
 * Refused, naming file, line and key: unknown or repeated keys, wrong types, numbers that are not plain decimals, negative
 * ones, more than eight decimals, two entries for one name and day.
 *
 * Read-only after loading: any thread. */
#ifndef TOKENMILL_JOBS_PRICES_H
#define TOKENMILL_JOBS_PRICES_H

#include <stddef.h>
#include <stdint.h>

#include "base/errors.h"
#include "jobs/decimal.h"

#define PRICES_MAX_BYTES ((size_t)4 << 20)
#define PRICES_SINCE_EVER INT64_MIN

struct model_price {
	char *model;                                    /* name or pattern */
	int64_t from;                                   /* day, or PRICES_SINCE_EVER */
	int64_t input, cached_input, output, reasoning; /* of a million tokens, in 1e-8 */
	int64_t discount;                               /* in 1e-4 */
	int line;                                       /* in the sheet */
};

struct token_counts {
	int64_t prompt, cached, output, reasoning; /* cached is part of prompt, reasoning of output */
};

struct token_cost {
	atto input, cached_input, output, reasoning; /* list price; cached is not in input, reasoning not in output */
	atto list, billed;                           /* their sum; less the batch discount */
	atto cache_saving;                           /* what cached tokens would have cost more as input, after the discount */
};

struct node_price {
	const char *node, *gpu; /* the entry's name or pattern; "" without GPUs */
	int64_t n_gpus;
	int64_t hour; /* of the node, in 1e-8 */
};

struct prices;

struct prices *prices_load(const char *path, struct err *err); /* NULL: ERR_INPUT */
struct prices *prices_parse(const char *name, const char *text, size_t n, struct err *err);
void prices_free(struct prices *p);

const char *prices_currency(const struct prices *p);
int prices_has_models(const struct prices *p);
int prices_has_nodes(const struct prices *p);
const struct model_price *prices_model(const struct prices *p, const char *model, int64_t day);      /* NULL: no price */
int prices_node(const struct prices *p, const char *node_type, int64_t day, struct node_price *out); /* 1, 0: no price */

/* Exact. Counts are not negative, cached <= prompt, reasoning <= output. */
struct token_cost model_price_cost(const struct model_price *m, const struct token_counts *t);
atto node_price_cost(const struct node_price *n, int64_t ms); /* rounded to an atto */

/* For those who know names only; ERR_INPUT when the sheet has no price, telling what is missing. */
int prices_tokens_cost(const struct prices *p, const char *model, int64_t day, const struct token_counts *t,
                       struct token_cost *out, struct err *err);
int prices_node_cost(const struct prices *p, const char *node_type, int64_t day, int64_t ms, atto *out, struct err *err);

#endif
