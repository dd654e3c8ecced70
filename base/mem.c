/* mem.c: allocation that aborts when small and reports when large, and the row arena. */
#include "base/mem.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static _Noreturn void out_of_memory(size_t n)
{
	fprintf(stderr, "tokenmill: out of memory (asked for %zu bytes)\n", n);
	abort();
}

void *xmalloc(size_t n)
{
	void *p = malloc(n ? n : 1);

	if (!p)
		out_of_memory(n);
	return p;
}

void *xcalloc(size_t n, size_t size)
{
	void *p = calloc(n ? n : 1, size ? size : 1);

	if (!p)
		out_of_memory(n);
	return p;
}

void *xrealloc(void *p, size_t n)
{
	p = realloc(p, n ? n : 1);
	if (!p)
		out_of_memory(n);
	return p;
}

void *xreallocarray(void *p, size_t n, size_t size)
{
	size_t bytes;

	if (__builtin_mul_overflow(n, size, &bytes))
		out_of_memory((size_t)-1);
	return xrealloc(p, bytes);
}

char *xstrdup(const char *s)
{
	return xmemdup(s, strlen(s));
}

char *xmemdup(const char *s, size_t n)
{
	char *p = xmalloc(n + 1);

	if (n)
		memcpy(p, s, n);
	p[n] = '\0';
	return p;
}

void *mem_pages_new(size_t n_bytes, struct err *err)
{
	void *p = mmap(NULL, n_bytes ? n_bytes : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED) {
		err_sys(err, ERR_ENGINE, "cannot reserve %zu bytes of memory", n_bytes);
		return NULL;
	}
	if (n_bytes >= (size_t)4 << 20)
		madvise(p, n_bytes, MADV_HUGEPAGE);
	return p;
}

void mem_pages_free(void *p, size_t n_bytes)
{
	if (p)
		munmap(p, n_bytes ? n_bytes : 1);
}

struct arena_chunk {
	struct arena_chunk *next;
	size_t cap;
	_Alignas(16) unsigned char data[];
};

void *arena_alloc(struct arena *a, size_t n)
{
	void *p;

	n = (n + 15) & ~(size_t)15;
	if (!a->head || a->head->cap - a->used < n) {
		size_t cap = a->head ? a->head->cap * 2 : 4096;
		struct arena_chunk *c;

		if (cap > (size_t)1 << 20)
			cap = (size_t)1 << 20;
		if (cap < n)
			cap = n;
		c = xmalloc(sizeof(*c) + cap);
		c->next = a->head;
		c->cap = cap;
		a->head = c;
		a->used = 0;
		a->total_bytes += cap;
	}
	p = a->head->data + a->used;
	a->used += n;
	return p;
}

char *arena_strdup(struct arena *a, const char *s, size_t n)
{
	char *p = arena_alloc(a, n + 1);

	if (n)
		memcpy(p, s, n);
	p[n] = '\0';
	return p;
}

void arena_reset(struct arena *a)
{
	/* Keep the newest chunk, which is the largest ordinary one. */
	while (a->head && a->head->next) {
		struct arena_chunk *c = a->head->next;

		a->head->next = c->next;
		a->total_bytes -= c->cap;
		free(c);
	}
	a->used = 0;
}

void arena_release(struct arena *a)
{
	arena_reset(a);
	free(a->head);
	*a = (struct arena){0};
}

static size_t status_kib(const char *key)
{
	FILE *f = fopen("/proc/self/status", "r");
	char line[256];
	size_t kib = 0;

	if (!f)
		return 0;
	while (fgets(line, sizeof(line), f))
		if (strncmp(line, key, strlen(key)) == 0) {
			kib = strtoull(line + strlen(key), NULL, 10);
			break;
		}
	fclose(f);
	return kib;
}

size_t mem_peak_bytes(void)
{
	return status_kib("VmHWM:") * 1024;
}
