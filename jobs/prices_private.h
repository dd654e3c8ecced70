/* prices_private.h: a price sheet as it is read (prices_sheet.c) and looked up (prices.c). */
#ifndef TOKENMILL_JOBS_PRICES_PRIVATE_H
#define TOKENMILL_JOBS_PRICES_PRIVATE_H

#include "jobs/prices.h"

#define PRICE_NONE (-1)

struct node_entry {
	char *node, *gpu;
	int64_t from, n_gpus;
	int64_t per_node_hour, per_gpu_hour; /* PRICE_NONE where not given: then gpus has the price */
	int line;
};

struct gpu_entry {
	char *gpu;
	int64_t from, per_gpu_hour;
	int line;
};

/* Sorted by how specific the name is, name, from: the first name that matches is the one that counts. */
struct prices {
	char *name; /* of the sheet, for messages */
	char currency[4];
	struct model_price *models;
	struct node_entry *nodes;
	struct gpu_entry *gpus;
	size_t n_models, n_nodes, n_gpus, cap_models, cap_nodes, cap_gpus;
};

/* Sort, and refuse two entries of one name and day. */
int prices_arrange(struct prices *p, struct err *err);
int prices_matches(const char *pattern, const char *name);

#endif
