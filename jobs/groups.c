/* groups.c: the hash table of groups, and what --by may name. */
#include "jobs/groups.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "jobs/day.h"

const char *const count_names[N_COUNTS] = {
    "requests_ok",       "requests_failed", "input_tokens",   "cached_input_tokens", "output_tokens", "reasoning_tokens",
    "recomputed_tokens", "useful_tokens",   "wasted_tokens",  "node_seconds",        "load_seconds",  "busy_seconds",
    "publish_seconds",   "idle_seconds",    "killed_seconds", "gpu_seconds",
};
const char *const money_names[N_MONEY] = {
    "list_input",  "list_cached_input", "list_output", "list_reasoning", "list_cost",
    "billed_cost", "cache_saving",      "actual_cost", "killed_cost",
};

static enum dimension_kind kind_of(const char *name)
{
	static const struct {
		const char *name;
		enum dimension_kind kind;
	} known[] = {{"tenant", DIMENSION_TAG}, {"project", DIMENSION_TAG}, {"user", DIMENSION_TAG}, {"model", DIMENSION_MODEL},
	             {"job", DIMENSION_JOB},    {"node", DIMENSION_NODE},   {"day", DIMENSION_DAY}};

	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
		if (strcmp(known[i].name, name) == 0)
			return known[i].kind;
	return strncmp(name, "tag:", 4) == 0 && name[4] ? DIMENSION_TAG : 0;
}

const char *dimension_tag(const struct dimension *d)
{
	return strncmp(d->name, "tag:", 4) == 0 ? d->name + 4 : d->name;
}

int dimensions_find(const struct dimensions *d, const char *name)
{
	for (int i = 0; i < d->n; i++)
		if (strcmp(d->list[i].name, name) == 0)
			return i;
	return -1;
}

int dimensions_add(struct dimensions *d, const char *name, struct err *err)
{
	enum dimension_kind kind = kind_of(name);

	if (dimensions_find(d, name) >= 0)
		return 0;
	if (!kind)
		return err_set(err, ERR_USAGE, "--by: '%s' is none of tenant, project, user, model, job, node, day, tag:NAME", name);
	if (strlen(name) >= sizeof(d->list[0].name))
		return err_set(err, ERR_USAGE, "--by: a tag's name has more than %zu bytes", sizeof(d->list[0].name) - 5);
	if (d->n == DIMENSIONS_MAX)
		return err_set(err, ERR_USAGE, "--by: more than %d names", DIMENSIONS_MAX);
	d->list[d->n].kind = kind;
	strcpy(d->list[d->n++].name, name);
	return 0;
}

int dimensions_parse(const char *text, struct dimensions *out, struct err *err)
{
	char *copy = xstrdup(text), *rest = copy, *name;
	int r = 0;

	out->n = 0;
	while (r == 0 && *text && (name = strsep(&rest, ",")) != NULL) {
		if (dimensions_find(out, name) >= 0)
			r = err_set(err, ERR_USAGE, "--by: '%s' is given twice", name);
		else
			r = dimensions_add(out, name, err);
	}
	free(copy);
	return r;
}

void groups_init(struct groups *g, const struct dimensions *by)
{
	*g = (struct groups){.by = *by, .n_slots = 64};
	g->slots = xcalloc(g->n_slots, sizeof(*g->slots));
}

void groups_release(struct groups *g)
{
	arena_release(&g->arena);
	free(g->list);
	free(g->slots);
	*g = (struct groups){0};
}

const char *group_facts_tag(const struct group_facts *f, const char *tag)
{
	yyjson_val *v = f->row_tags ? yyjson_obj_get(f->row_tags, tag) : NULL;

	if (!v && f->job_tags)
		v = yyjson_obj_get(f->job_tags, tag);
	return v ? yyjson_get_str(v) : "";
}

static uint64_t hash_values(const char *const *values, int n)
{
	uint64_t h = (uint64_t)n;

	for (int i = 0; i < n; i++)
		h = hash64(values[i], strlen(values[i]), h);
	return h;
}

static size_t find_slot(const struct groups *g, const char *const *values)
{
	size_t at = hash_values(values, g->by.n) & (g->n_slots - 1);

	for (; g->slots[at]; at = (at + 1) & (g->n_slots - 1)) {
		const struct group *e = g->list[g->slots[at] - 1];
		int i = 0;

		while (i < g->by.n && strcmp(e->values[i], values[i]) == 0)
			i++;
		if (i == g->by.n)
			break;
	}
	return at;
}

static void grow(struct groups *g)
{
	free(g->slots);
	g->n_slots *= 2;
	g->slots = xcalloc(g->n_slots, sizeof(*g->slots));
	for (size_t i = 0; i < g->n; i++)
		g->slots[find_slot(g, g->list[i]->values)] = i + 1;
}

int groups_add(struct groups *g, const struct group_facts *f, const struct measure *m, struct err *err)
{
	const char *values[DIMENSIONS_MAX];
	char day[DAY_TEXT_BYTES];
	struct group *e;
	size_t at;
	int n = g->by.n;

	for (int i = 0; i < n; i++) {
		switch (g->by.list[i].kind) {
		case DIMENSION_TAG:
			values[i] = group_facts_tag(f, dimension_tag(&g->by.list[i]));
			break;
		case DIMENSION_MODEL:
			values[i] = f->model;
			break;
		case DIMENSION_JOB:
			values[i] = f->job;
			break;
		case DIMENSION_NODE:
			values[i] = f->node;
			break;
		case DIMENSION_DAY:
			day_format(f->day, day);
			values[i] = day;
			break;
		}
	}
	at = find_slot(g, values);
	if (!g->slots[at]) {
		if (2 * (g->n + 1) > g->n_slots) {
			grow(g);
			at = find_slot(g, values);
		}
		MEM_GROW(g->list, g->cap, g->n + 1);
		e = arena_alloc(&g->arena, sizeof(*e));
		*e = (struct group){0};
		for (int i = 0; i < n; i++)
			e->values[i] = arena_strdup(&g->arena, values[i], strlen(values[i]));
		g->list[g->n++] = e;
		g->slots[at] = g->n;
	}
	if (measure_add(&g->list[g->slots[at] - 1]->m, m) < 0)
		return err_set(err, ERR_STORAGE, "a sum over jobs is too large: a ledger is damaged");
	return 0;
}

static int compare_groups(const void *a, const void *b, void *by)
{
	const struct group *x = *(struct group *const *)a, *y = *(struct group *const *)b;
	int c = 0;

	for (int i = 0; i < ((const struct dimensions *)by)->n && c == 0; i++)
		c = strcmp(x->values[i], y->values[i]);
	return c;
}

void groups_sort(struct groups *g)
{
	if (g->n)
		qsort_r(g->list, g->n, sizeof(*g->list), compare_groups, &g->by);
}

int groups_total(const struct groups *g, struct measure *out, struct err *err)
{
	*out = (struct measure){0};
	for (size_t i = 0; i < g->n; i++)
		if (measure_add(out, &g->list[i]->m) < 0)
			return err_set(err, ERR_STORAGE, "a sum over groups is too large: a ledger is damaged");
	return 0;
}
