/* row_map.c: a hash table from row numbers to what is known of the row. */
#include <stdlib.h>

#include "base/hash.h"
#include "base/mem.h"
#include "queue/job_private.h"

static struct row_slot *slot_of(const struct row_map *m, int64_t row)
{
	size_t i = (size_t)hash64(&row, sizeof(row), 0) & (m->cap - 1);

	while (m->slots[i].row >= 0 && m->slots[i].row != row)
		i = (i + 1) & (m->cap - 1);
	return &m->slots[i];
}

struct row_slot *row_map_find(const struct row_map *m, int64_t row)
{
	struct row_slot *s = m->cap ? slot_of(m, row) : NULL;

	return s && s->row == row ? s : NULL;
}

static void grow(struct row_map *m)
{
	struct row_map bigger = {.cap = m->cap ? m->cap * 2 : 64, .n = m->n};

	bigger.slots = xcalloc(bigger.cap, sizeof(*bigger.slots));
	for (size_t i = 0; i < bigger.cap; i++)
		bigger.slots[i].row = -1;
	for (size_t i = 0; i < m->cap; i++)
		if (m->slots[i].row >= 0)
			*slot_of(&bigger, m->slots[i].row) = m->slots[i];
	free(m->slots);
	*m = bigger;
}

struct row_slot *row_map_put(struct row_map *m, int64_t row)
{
	struct row_slot *s;

	if (2 * (m->n + 1) > m->cap)
		grow(m);
	s = slot_of(m, row);
	if (s->row != row) {
		*s = (struct row_slot){.row = row};
		m->n++;
	}
	return s;
}

void row_map_release(struct row_map *m)
{
	for (size_t i = 0; i < m->cap; i++)
		free(m->slots[i].partial);
	free(m->slots);
	*m = (struct row_map){0};
}
