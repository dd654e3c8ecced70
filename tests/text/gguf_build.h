/* gguf_build.h: write GGUF files in memory for tests, good ones and bad ones; gguf_build_end patches the header's counts. */
#ifndef TOKENMILL_TESTS_GGUF_BUILD_H
#define TOKENMILL_TESTS_GGUF_BUILD_H

#include <stdint.h>
#include <string.h>

#include "base/buf.h"
#include "engine/file/gguf.h"

struct gguf_build {
	struct buf b;
	uint64_t n_keys, n_tensors, data_bytes;
};

static inline void put_le(struct buf *b, uint64_t x, int n)
{
	for (int i = 0; i < n; i++)
		buf_addc(b, i < 8 ? (char)(x >> (8 * i)) : 0);
}

static inline void put_string(struct buf *b, const char *s)
{
	put_le(b, strlen(s), 8);
	buf_adds(b, s);
}

static inline void gguf_build_begin(struct gguf_build *g)
{
	*g = (struct gguf_build){0};
	buf_adds(&g->b, "GGUF");
	put_le(&g->b, 3, 4);
	put_le(&g->b, 0, 8);
	put_le(&g->b, 0, 8);
}

static inline void put_key(struct gguf_build *g, const char *key, uint32_t type)
{
	put_string(&g->b, key);
	put_le(&g->b, type, 4);
	g->n_keys++;
}

static inline void put_u32(struct gguf_build *g, const char *key, uint32_t x)
{
	put_key(g, key, GGUF_U32);
	put_le(&g->b, x, 4);
}

static inline void put_f32(struct gguf_build *g, const char *key, float f)
{
	uint32_t u;

	memcpy(&u, &f, 4);
	put_key(g, key, GGUF_F32);
	put_le(&g->b, u, 4);
}

static inline void put_text(struct gguf_build *g, const char *key, const char *s)
{
	put_key(g, key, GGUF_STRING);
	put_string(&g->b, s);
}

/* dims innermost first, as in the file; the tensor follows the one before it. cols * rows must suit the type. */
static inline void put_tensor(struct gguf_build *g, const char *name, enum tensor_type type, int64_t cols, int64_t rows)
{
	put_string(&g->b, name);
	put_le(&g->b, rows ? 2 : 1, 4);
	put_le(&g->b, (uint64_t)cols, 8);
	if (rows)
		put_le(&g->b, (uint64_t)rows, 8);
	put_le(&g->b, type, 4);
	put_le(&g->b, g->data_bytes, 8);
	g->data_bytes += (tensor_row_bytes(type, cols) * (size_t)(rows ? rows : 1) + 31) / 32 * 32;
	g->n_tensors++;
}

/* Data: bytes 0, 1, 2, ... */
static inline void gguf_build_end(struct gguf_build *g)
{
	while (g->b.len % 32)
		buf_addc(&g->b, '\0');
	for (uint64_t i = 0; i < g->data_bytes; i++)
		buf_addc(&g->b, (char)i);
	for (int i = 0; i < 8; i++) {
		g->b.data[8 + i] = (char)(g->n_tensors >> (8 * i));
		g->b.data[16 + i] = (char)(g->n_keys >> (8 * i));
	}
}

/* Call every accessor on everything there is: under a sanitizer this shows a value that reaches out of the file. */
static inline uint64_t gguf_walk(const struct gguf *g)
{
	uint64_t sum = 0, u;
	int64_t x;
	double d;
	int flag;
	struct gguf_string s;
	enum gguf_type type;
	size_t n;

	for (size_t i = 0; i < gguf_n_keys(g); i++) {
		const char *key = gguf_key_at(g, i);

		sum += strlen(key) + (uint64_t)gguf_has(g, key);
		sum += gguf_find_u64(g, key, &u) ? u : 0;
		sum += gguf_find_f64(g, key, &d) ? 1 : 0;
		sum += gguf_find_bool(g, key, &flag) ? (uint64_t)flag : 0;
		if (gguf_find_string(g, key, &s))
			sum += s.n ? (unsigned char)s.s[0] + (unsigned char)s.s[s.n - 1] : 0;
		if (!gguf_find_array(g, key, &type, &n))
			continue;
		for (size_t k = 0; k <= n; k++) { /* one too many: must be refused */
			sum += gguf_array_i64(g, key, k, &x) ? (uint64_t)x : 0;
			sum += gguf_array_f64(g, key, k, &d) ? 1 : 0;
			if (gguf_array_string(g, key, k, &s))
				sum += s.n ? (unsigned char)s.s[0] + (unsigned char)s.s[s.n - 1] : 0;
		}
	}
	for (size_t i = 0; i < gguf_n_tensors(g); i++) {
		const struct tensor *t = gguf_tensor_at(g, i);

		sum += (uint64_t)(gguf_find_tensor(g, t->name) == t) + (uint64_t)tensor_n_elements(t);
		sum += ((const unsigned char *)t->data)[0] + (uint64_t)((const unsigned char *)t->data)[t->n_bytes - 1];
	}
	return sum;
}

#endif
