/* suspects.c: crash by crash, groups are split; what is left of them becomes the parts. */
#include "queue/suspects.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

struct member {
	int64_t row;
	int n_crashes, n_alone, n_proven;
	int is_here; /* of the crash that is looked at */
};

struct group {
	struct member *members; /* in the order in which they were noted */
	size_t n, cap;
};

struct groups {
	struct group *list;
	size_t n, cap;
};

static struct group *groups_add(struct groups *g)
{
	MEM_GROW(g->list, g->cap, g->n + 1);
	g->list[g->n] = (struct group){0};
	return &g->list[g->n++];
}

static void group_add(struct group *g, struct member m)
{
	MEM_GROW(g->members, g->cap, g->n + 1);
	g->members[g->n++] = m;
}

static int by_row(const void *pa, const void *pb)
{
	int64_t a = *(const int64_t *)pa, b = *(const int64_t *)pb;

	return (a > b) - (a < b);
}

/* Mark who was in flight, and gather those that are in no group yet. */
static void mark(struct groups *groups, const struct crash *c, struct group *fresh)
{
	int64_t *sorted = xmalloc(c->n * sizeof(*sorted));
	char *known = xcalloc(c->n, 1);

	memcpy(sorted, c->rows, c->n * sizeof(*sorted));
	qsort(sorted, c->n, sizeof(*sorted), by_row);
	for (size_t i = 0; i < groups->n; i++)
		for (size_t k = 0; k < groups->list[i].n; k++) {
			struct member *m = &groups->list[i].members[k];
			const int64_t *at = bsearch(&m->row, sorted, c->n, sizeof(*sorted), by_row);

			m->is_here = at != NULL;
			m->n_crashes += m->is_here;
			m->n_alone += m->is_here && c->is_alone;
			m->n_proven += m->is_here && c->is_alone && c->is_proven;
			if (at)
				known[at - sorted] = 1;
		}
	for (size_t i = 0; i < c->n; i++) {
		const int64_t *at = bsearch(&c->rows[i], sorted, c->n, sizeof(*sorted), by_row);

		if (!known[at - sorted])
			group_add(fresh, (struct member){.row = c->rows[i], .n_crashes = 1, .n_alone = c->is_alone, .n_proven = c->is_alone && c->is_proven});
		known[at - sorted] = 1;
	}
	free(known);
	free(sorted);
}

/* Each group falls into those that were in flight, tested now, and the others. */
static void split(struct groups *groups)
{
	struct groups after = {0};

	for (size_t i = 0; i < groups->n; i++) {
		struct group *g = &groups->list[i], *part;

		for (int here = 1; here >= 0; here--) {
			part = NULL;
			for (size_t k = 0; k < g->n; k++)
				if (g->members[k].is_here == here) {
					if (!part)
						part = groups_add(&after);
					group_add(part, g->members[k]);
				}
		}
		free(g->members);
	}
	free(groups->list);
	*groups = after;
}

static void add_suspect(struct suspects *out, size_t *cap, int64_t row, int part)
{
	MEM_GROW(out->rows, *cap, out->n + 1);
	out->rows[out->n++] = (struct suspect){row, part};
}

static int is_for_alone(const struct group *g)
{
	return g->n == 1 && g->members[0].n_crashes > 1;
}

void suspects_judge(struct suspects *out, const struct crash *crashes, size_t n)
{
	struct groups groups = {0};
	size_t cap = 0;

	*out = (struct suspects){0};
	for (size_t i = 0; i < n; i++) {
		struct group fresh = {0};

		if (crashes[i].n == 0)
			continue;
		mark(&groups, &crashes[i], &fresh);
		split(&groups);
		if (fresh.n)
			*groups_add(&groups) = fresh;
	}
	for (size_t i = 0; i < groups.n; i++) {
		const struct group *g = &groups.list[i];
		size_t half = (g->n + 1) / 2;

		if (g->n < 2) /* once in flight and by itself: it may run with the others */
			continue;
		for (size_t k = 0; k < g->n; k++)
			add_suspect(out, &cap, g->members[k].row, out->n_parts + (k >= half));
		out->n_parts += 2;
	}
	out->first_alone = out->n_parts;
	for (size_t i = 0; i < groups.n; i++)
		if (is_for_alone(&groups.list[i])) {
			const struct member *m = groups.list[i].members;

			add_suspect(out, &cap, m->row, m->n_proven >= SUSPECT_CRASHES_ALONE || m->n_alone >= SUSPECT_ENDS_ALONE ? SUSPECT_POISON : out->n_parts++);
		}
	for (size_t i = 0; i < groups.n; i++)
		free(groups.list[i].members);
	free(groups.list);
	if (out->n > 1)
		qsort(out->rows, out->n, sizeof(*out->rows), by_row);
}

void suspects_release(struct suspects *s)
{
	free(s->rows);
	*s = (struct suspects){0};
}

int suspects_part(const struct suspects *s, int64_t row)
{
	const struct suspect *found = s->n ? bsearch(&row, s->rows, s->n, sizeof(*s->rows), by_row) : NULL;

	return found ? found->part : SUSPECT_NOT;
}
