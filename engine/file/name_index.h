/* name_index.h: the names in a file, each once, and the position that belongs to each.
 *
 * Sized once for the names a file claims to have; the strings are borrowed and outlive the index. Filled by one thread, then
 * only read.
 */
#ifndef TOKENMILL_ENGINE_NAME_INDEX_H
#define TOKENMILL_ENGINE_NAME_INDEX_H

#include <stddef.h>

struct name_index {
	struct name_slot *slots; /* open addressing; at least twice as many as names */
	size_t n_slots;
};

void name_index_init(struct name_index *x, size_t n_names);
void name_index_release(struct name_index *x);
/* 1, or 0 when the name is there already; then nothing changes. At most n_names of them. */
int name_index_add(struct name_index *x, const char *name, size_t position);
/* 1 and *position, or 0 when there is no such name. A zero-initialised index has no names. */
int name_index_find(const struct name_index *x, const char *name, size_t *position);

#endif
