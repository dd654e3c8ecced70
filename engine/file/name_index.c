/* name_index.c: open addressing with linear probing. */
#include "engine/file/name_index.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"

struct name_slot {
	const char *name; /* NULL: empty */
	size_t position;
};

void name_index_init(struct name_index *x, size_t n_names)
{
	x->n_slots = 16;
	while (x->n_slots / 2 < n_names)
		x->n_slots *= 2;
	x->slots = xcalloc(x->n_slots, sizeof(*x->slots));
}

void name_index_release(struct name_index *x)
{
	free(x->slots);
	*x = (struct name_index){0};
}

/* The slot that holds the name, or the empty one where it belongs. */
static struct name_slot *find_slot(const struct name_index *x, const char *name)
{
	size_t i = (size_t)hash64(name, strlen(name), 0) & (x->n_slots - 1);

	while (x->slots[i].name && strcmp(x->slots[i].name, name) != 0)
		i = (i + 1) & (x->n_slots - 1);
	return &x->slots[i];
}

int name_index_add(struct name_index *x, const char *name, size_t position)
{
	struct name_slot *slot = find_slot(x, name);

	if (slot->name)
		return 0;
	*slot = (struct name_slot){name, position};
	return 1;
}

int name_index_find(const struct name_index *x, const char *name, size_t *position)
{
	const struct name_slot *slot = x->n_slots ? find_slot(x, name) : NULL;

	if (!slot || !slot->name)
		return 0;
	*position = slot->position;
	return 1;
}
