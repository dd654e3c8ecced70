/* mem.h: memory with a known lifetime.
 *
 * Small allocations (x...) abort when memory is out: a checkpoint makes that safe. Large ones go through
 * mem_pages_new, which returns an error. An arena holds everything of one row and is reset when the row is committed.
 */
#ifndef TOKENMILL_BASE_MEM_H
#define TOKENMILL_BASE_MEM_H

#include <stddef.h>
#include <stdint.h>

#include "base/errors.h"

void *xmalloc(size_t n);
void *xcalloc(size_t n, size_t size); /* zeroed; overflow of the product aborts */
void *xrealloc(void *p, size_t n);
void *xreallocarray(void *p, size_t n, size_t size);
char *xstrdup(const char *s);
char *xmemdup(const char *s, size_t n); /* n bytes and a NUL */

/* Grow an array so that it holds at least `need` elements: doubles. p is a pointer to the array pointer. */
#define MEM_GROW(array, cap, need)                                                                     \
	do {                                                                                               \
		if ((size_t)(need) > (size_t)(cap)) {                                                          \
			size_t mem_cap_ = (cap) ? (size_t)(cap) : 16;                                              \
			while (mem_cap_ < (size_t)(need))                                                          \
				mem_cap_ *= 2;                                                                         \
			(array) = xreallocarray((array), mem_cap_, sizeof(*(array)));                              \
			(cap) = mem_cap_;                                                                          \
		}                                                                                              \
	} while (0)

/* Zeroed anonymous pages, 2 MiB aligned and advised huge when large; memory is taken as pages are touched.
 * NULL and *err on failure. Free with the same n_bytes. */
void *mem_pages_new(size_t n_bytes, struct err *err);
void mem_pages_free(void *p, size_t n_bytes);

/* Bump allocator. Zero-initialise; everything is freed by arena_release, reused after arena_reset. */
struct arena {
	struct arena_chunk *head;
	size_t used;        /* bytes used in head */
	size_t total_bytes; /* over all chunks */
};
void *arena_alloc(struct arena *a, size_t n); /* 16-byte aligned, not zeroed */
char *arena_strdup(struct arena *a, const char *s, size_t n); /* adds a NUL */
void arena_reset(struct arena *a);
void arena_release(struct arena *a);

/* Resident memory of this process at its peak, in bytes; 0 where the system does not tell. */
size_t mem_peak_bytes(void);

#endif
