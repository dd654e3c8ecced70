/* vocab.c: the two-way table of tokens. */
#include <stdlib.h>

#include "base/mem.h"
#include "engine/text/tokenizer_private.h"

static uint64_t mix(uint64_t a, uint64_t b)
{
	__extension__ unsigned __int128 r = (unsigned __int128)a * b;

	return (uint64_t)r ^ (uint64_t)(r >> 64);
}

/* In the manner of wyhash: words are short, so a call into a library would cost more than the hash. */
uint64_t hash_text(const void *p, size_t n)
{
	const unsigned char *s = p;
	uint64_t h = n * 0x9E3779B97F4A7C15u, a, b;
	uint32_t c, d;

	for (; n > 16; n -= 16, s += 16) {
		memcpy(&a, s, 8);
		memcpy(&b, s + 8, 8);
		h = mix(a ^ 0xA0761D6478BD642Fu, b ^ h);
	}
	if (n >= 8) {
		memcpy(&a, s, 8);
		memcpy(&b, s + n - 8, 8);
	} else if (n >= 4) {
		memcpy(&c, s, 4);
		memcpy(&d, s + n - 4, 4);
		a = c;
		b = d;
	} else {
		a = n ? (uint64_t)s[0] << 16 | (uint64_t)s[n / 2] << 8 | s[n - 1] : 0;
		b = 0;
	}
	return mix(a ^ 0xE7037ED1A0B428DBu, b ^ h);
}

void vocab_reserve(struct vocab *v, size_t n_texts)
{
	size_t n = 16;

	while (n < 2 * n_texts)
		n *= 2;
	v->slots = xreallocarray(NULL, n, sizeof(*v->slots));
	v->n_slots = n;
	memset(v->slots, 0xFF, n * sizeof(*v->slots));
}

static size_t find_slot(const struct vocab *v, const char *s, size_t n, uint32_t hash)
{
	size_t mask = v->n_slots - 1, i = hash & mask;

	for (; v->slots[i].id >= 0; i = (i + 1) & mask) {
		const struct vocab_entry *e = &v->entries[v->slots[i].id];

		if (v->slots[i].hash == hash && e->n == n && memcmp(v->text.data + e->at, s, n) == 0)
			break;
	}
	return i;
}

static void grow(struct vocab *v)
{
	struct vocab_slot *old = v->slots;
	size_t n_old = v->n_slots;

	vocab_reserve(v, v->n_slots);
	for (size_t i = 0; i < n_old; i++) {
		size_t j;

		if (old[i].id < 0)
			continue;
		for (j = old[i].hash & (v->n_slots - 1); v->slots[j].id >= 0;)
			j = (j + 1) & (v->n_slots - 1);
		v->slots[j] = old[i];
	}
	free(old);
}

void vocab_add(struct vocab *v, int32_t id, const char *s, size_t n)
{
	uint32_t hash = (uint32_t)hash_text(s, n);
	size_t i;

	if (v->n_slots == 0)
		vocab_reserve(v, 16);
	else if (2 * (v->n_texts + 1) > v->n_slots)
		grow(v);
	if ((size_t)id >= v->n_ids) {
		MEM_GROW(v->entries, v->cap, (size_t)id + 1);
		for (size_t k = v->n_ids; k <= (size_t)id; k++)
			v->entries[k] = (struct vocab_entry){0, UINT32_MAX};
		v->n_ids = (size_t)id + 1;
	}
	i = find_slot(v, s, n, hash);
	if (v->slots[i].id < 0)
		v->n_texts++;
	v->entries[id] = (struct vocab_entry){(uint32_t)v->text.len, (uint32_t)n};
	buf_add(&v->text, s, n);
	v->slots[i] = (struct vocab_slot){hash, id};
}

void vocab_release(struct vocab *v)
{
	buf_release(&v->text);
	free(v->entries);
	free(v->slots);
	*v = (struct vocab){0};
}

int32_t vocab_find(const struct vocab *v, const char *s, size_t n)
{
	if (v->n_slots == 0)
		return -1;
	return v->slots[find_slot(v, s, n, (uint32_t)hash_text(s, n))].id;
}

const char *vocab_text(const struct vocab *v, int32_t id, size_t *n)
{
	if (id < 0 || (size_t)id >= v->n_ids || v->entries[id].n == UINT32_MAX)
		return NULL;
	if (n)
		*n = v->entries[id].n;
	return v->text.data + v->entries[id].at;
}
