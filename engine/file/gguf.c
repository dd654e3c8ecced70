/* gguf.c: parse a GGUF file once, checking everything, into tables that are then only read.
 *
 *   0   "GGUF"  u32 version  u64 n_tensors  u64 n_keys
 *   24  n_keys    x { string key, u32 type, value }
 *       n_tensors x { string name, u32 n_dims, u64 dims[n_dims] innermost first, u32 type, u64 offset }
 *       padding to the alignment; tensor data, offsets counted from here
 *
 * string: u64 length, bytes. array: u32 element type, u64 count, elements.
 */
#include "engine/file/gguf.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "engine/file/name_index.h"

#define NAME_BYTES_MAX 65535 /* the specification's limit for keys */

struct gguf_value {
	char *key;
	enum gguf_type type;
	enum gguf_type element; /* of an array */
	size_t n;               /* elements of an array */
	const uint8_t *p;       /* the value; of an array its first element */
	uint64_t *at;           /* array of strings: where each begins, counted from p */
};

struct gguf {
	struct file_map map;
	struct gguf_value *values;
	size_t n_values;
	struct tensor *tensors;
	size_t n_tensors;
	struct name_index value_names, tensor_names; /* to positions in values and tensors */
};

/* Everything below reads through this; `p` never passes `end`. */
struct cursor {
	const uint8_t *start, *p, *end;
};

static size_t cursor_left(const struct cursor *c)
{
	return (size_t)(c->end - c->p);
}

static uint64_t load_le(const uint8_t *p, size_t n)
{
	uint64_t u = 0;

	for (size_t i = 0; i < n; i++)
		u |= (uint64_t)p[i] << (8 * i);
	return u;
}

static int take(struct cursor *c, size_t n, uint64_t *out, const char *what, struct err *err)
{
	*out = 0;
	if (cursor_left(c) < n)
		return err_set(err, ERR_MODEL, "file ends inside %s at byte %zu (truncated download?)", what,
			(size_t)(c->p - c->start));
	*out = load_le(c->p, n);
	c->p += n;
	return 0;
}

static int take_string(struct cursor *c, struct gguf_string *out, const char *what, struct err *err)
{
	uint64_t n;

	if (take(c, 8, &n, what, err) < 0)
		return -1;
	if (n > cursor_left(c))
		return err_set(err, ERR_MODEL, "%s at byte %zu claims %llu bytes, %zu are left (truncated download?)", what,
			(size_t)(c->p - c->start), (unsigned long long)n, cursor_left(c));
	*out = (struct gguf_string){(const char *)c->p, (size_t)n};
	c->p += n;
	return 0;
}

/* A key or tensor name as a NUL-terminated copy; NULL on failure. */
static char *take_name(struct cursor *c, const char *what, struct err *err)
{
	struct gguf_string s;

	if (take_string(c, &s, what, err) < 0)
		return NULL;
	if (s.n == 0 || s.n > NAME_BYTES_MAX || memchr(s.s, 0, s.n)) {
		err_set(err, ERR_MODEL, "%s at byte %zu is empty, longer than %d bytes or has a zero byte", what,
			(size_t)((const uint8_t *)s.s - c->start), NAME_BYTES_MAX);
		return NULL;
	}
	return xmemdup(s.s, s.n);
}

/* Bytes of a value with a fixed size; 0 for strings, arrays and unknown types. */
static size_t scalar_bytes(uint64_t type)
{
	static const uint8_t bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

	return type < sizeof(bytes) ? bytes[type] : 0;
}

static int check_bools(const uint8_t *p, size_t n, struct err *err)
{
	for (size_t i = 0; i < n; i++) {
		if (p[i] > 1)
			return err_set(err, ERR_MODEL, "boolean value is %d", p[i]);
	}
	return 0;
}

static int parse_array(struct cursor *c, struct gguf_value *v, struct err *err)
{
	uint64_t element, n;

	if (take(c, 4, &element, "the type of an array", err) < 0 || take(c, 8, &n, "the length of an array", err) < 0)
		return -1;
	v->element = (enum gguf_type)element;
	v->p = c->p;
	if (element == GGUF_STRING) {
		if (n > cursor_left(c) / 8)
			return err_set(err, ERR_MODEL, "array claims %llu strings, %zu bytes are left", (unsigned long long)n,
				cursor_left(c));
		v->at = xmalloc((size_t)n * sizeof(*v->at) + 1);
		for (v->n = 0; v->n < n; v->n++) {
			struct gguf_string s;

			v->at[v->n] = (uint64_t)(c->p - v->p);
			if (take_string(c, &s, "an array's string", err) < 0)
				return -1;
		}
		return 0;
	}
	if (element == GGUF_ARRAY)
		return err_set(err, ERR_MODEL, "array of arrays is not supported");
	if (scalar_bytes(element) == 0)
		return err_set(err, ERR_MODEL, "array has elements of unknown type %llu", (unsigned long long)element);
	if (n > cursor_left(c) / scalar_bytes(element))
		return err_set(err, ERR_MODEL, "array claims %llu elements of %zu bytes, %zu bytes are left (truncated download?)",
			(unsigned long long)n, scalar_bytes(element), cursor_left(c));
	v->n = (size_t)n;
	c->p += (size_t)n * scalar_bytes(element);
	return element == GGUF_BOOL ? check_bools(v->p, v->n, err) : 0;
}

static int parse_value(struct cursor *c, struct gguf_value *v, struct err *err)
{
	uint64_t type;
	struct gguf_string s;

	if (take(c, 4, &type, "the type of a value", err) < 0)
		return -1;
	v->type = (enum gguf_type)type;
	if (type == GGUF_ARRAY)
		return parse_array(c, v, err);
	v->p = c->p;
	if (type == GGUF_STRING)
		return take_string(c, &s, "a string value", err);
	if (scalar_bytes(type) == 0)
		return err_set(err, ERR_MODEL, "value of unknown type %llu", (unsigned long long)type);
	if (cursor_left(c) < scalar_bytes(type))
		return err_set(err, ERR_MODEL, "file ends inside the value (truncated download?)");
	c->p += scalar_bytes(type);
	return type == GGUF_BOOL ? check_bools(v->p, 1, err) : 0;
}

static int parse_values(struct gguf *g, struct cursor *c, uint64_t n_keys, struct err *err)
{
	/* The shortest: a key of one byte and a value of one byte. */
	if (n_keys > cursor_left(c) / 14)
		return err_set(err, ERR_MODEL, "header claims %llu keys, %zu bytes are left", (unsigned long long)n_keys,
			cursor_left(c));
	g->values = xcalloc((size_t)n_keys + 1, sizeof(*g->values));
	name_index_init(&g->value_names, (size_t)n_keys);
	while (g->n_values < n_keys) {
		struct gguf_value *v = &g->values[g->n_values];

		v->key = take_name(c, "a key", err);
		if (!v->key)
			return -1;
		g->n_values++;
		if (parse_value(c, v, err) < 0)
			return err_context(err, "key %.200s", v->key);
		if (!name_index_add(&g->value_names, v->key, g->n_values - 1))
			return err_set(err, ERR_MODEL, "key %.200s occurs twice", v->key);
	}
	return 0;
}

/* Names of the types of ggml.h that are not ours, so that a refusal can tell them. */
static const char *foreign_type_name(uint64_t type)
{
	static const char *const names[] = {
		[9] = "Q8_1", [16] = "IQ2_XXS", [17] = "IQ2_XS", [18] = "IQ3_XXS", [19] = "IQ1_S", [20] = "IQ4_NL", [21] = "IQ3_S",
		[22] = "IQ2_S", [23] = "IQ4_XS", [24] = "I8", [25] = "I16", [26] = "I32", [27] = "I64", [28] = "F64", [29] = "IQ1_M",
		[34] = "TQ1_0", [35] = "TQ2_0", [39] = "MXFP4", [40] = "NVFP4",
	};

	return type < sizeof(names) / sizeof(names[0]) && names[type] ? names[type] : "unknown";
}

/* What follows the name. The offset is checked later, when it is known where the data begins. */
static int parse_tensor(struct cursor *c, struct tensor *t, uint64_t *offset, struct err *err)
{
	uint64_t n_dims, type;
	int64_t rows = 1;
	size_t row_bytes;

	if (take(c, 4, &n_dims, "a tensor's description", err) < 0)
		return -1;
	if (n_dims < 1 || n_dims > 4)
		return err_set(err, ERR_MODEL, "has %llu dimensions, not 1 to 4", (unsigned long long)n_dims);
	t->n_dims = (int)n_dims;
	for (int i = t->n_dims - 1; i >= 0; i--) {
		uint64_t dim;

		if (take(c, 8, &dim, "a tensor's description", err) < 0)
			return -1;
		if (dim == 0 || dim > INT64_MAX / 1024)
			return err_set(err, ERR_MODEL, "dimension %d is %llu", t->n_dims - 1 - i, (unsigned long long)dim);
		t->shape[i] = (int64_t)dim;
	}
	if (take(c, 4, &type, "a tensor's description", err) < 0 || take(c, 8, offset, "a tensor's description", err) < 0)
		return -1;
	t->type = (enum tensor_type)type;
	if (tensor_type_block(t->type) == 0)
		return err_set(err, ERR_MODEL, "type %s (%llu) is not supported", foreign_type_name(type), (unsigned long long)type);
	row_bytes = tensor_row_bytes(t->type, t->shape[t->n_dims - 1]);
	if (row_bytes == 0)
		return err_set(err, ERR_MODEL, "rows have %lld elements, not a multiple of %s's block of %d",
			(long long)t->shape[t->n_dims - 1], tensor_type_name(t->type), tensor_type_block(t->type));
	for (int i = 0; i < t->n_dims - 1; i++) {
		if (__builtin_mul_overflow(rows, t->shape[i], &rows))
			return err_set(err, ERR_MODEL, "is too large");
	}
	/* Elements must be countable too: a block has at least as many elements as half its bytes. */
	if (__builtin_mul_overflow((size_t)rows, row_bytes, &t->n_bytes) || t->n_bytes > INT64_MAX / 4)
		return err_set(err, ERR_MODEL, "is too large");
	return 0;
}

static int by_data(const void *a, const void *b)
{
	const struct tensor *x = *(const struct tensor *const *)a, *y = *(const struct tensor *const *)b;

	return (const char *)x->data < (const char *)y->data ? -1 : (const char *)x->data > (const char *)y->data;
}

static int check_overlap(const struct gguf *g, struct err *err)
{
	const struct tensor **sorted = xcalloc(g->n_tensors + 1, sizeof(const struct tensor *));
	int rc = 0;

	for (size_t i = 0; i < g->n_tensors; i++)
		sorted[i] = &g->tensors[i];
	qsort(sorted, g->n_tensors, sizeof(*sorted), by_data);
	for (size_t i = 1; i < g->n_tensors && rc == 0; i++) {
		if ((const char *)sorted[i]->data < (const char *)sorted[i - 1]->data + sorted[i - 1]->n_bytes)
			rc = err_set(err, ERR_MODEL, "tensors %.200s and %.200s overlap", sorted[i - 1]->name, sorted[i]->name);
	}
	free(sorted);
	return rc;
}

static int place_tensors(struct gguf *g, struct cursor *c, const uint64_t *offsets, struct err *err)
{
	uint64_t alignment = 32, begin, left;

	if (gguf_has(g, "general.alignment") && !gguf_find_u64(g, "general.alignment", &alignment))
		return err_set(err, ERR_MODEL, "general.alignment is not an integer");
	if (alignment == 0 || alignment > 1u << 30 || (alignment & (alignment - 1)) != 0)
		return err_set(err, ERR_MODEL, "general.alignment is %llu, not a power of two", (unsigned long long)alignment);
	begin = ((uint64_t)(c->p - c->start) + alignment - 1) / alignment * alignment;
	left = (uint64_t)(c->end - c->start);
	left = left > begin ? left - begin : 0;
	for (size_t i = 0; i < g->n_tensors; i++) {
		struct tensor *t = &g->tensors[i];

		if (offsets[i] % alignment != 0)
			return err_set(err, ERR_MODEL, "tensor %.200s: offset %llu is not a multiple of the alignment %llu", t->name,
				(unsigned long long)offsets[i], (unsigned long long)alignment);
		if (offsets[i] > left || t->n_bytes > left - offsets[i])
			return err_set(err, ERR_MODEL,
				"tensor %.200s: %zu bytes at offset %llu reach beyond the end of the file (truncated download?)", t->name,
				t->n_bytes, (unsigned long long)offsets[i]);
		t->data = c->start + begin + offsets[i];
	}
	return check_overlap(g, err);
}

static int parse_tensors(struct gguf *g, struct cursor *c, uint64_t n_tensors, struct err *err)
{
	uint64_t *offsets;
	int rc = 0;

	/* The shortest: a name of one byte and one dimension. */
	if (n_tensors > cursor_left(c) / 33)
		return err_set(err, ERR_MODEL, "header claims %llu tensors, %zu bytes are left", (unsigned long long)n_tensors,
			cursor_left(c));
	g->tensors = xcalloc((size_t)n_tensors + 1, sizeof(*g->tensors));
	offsets = xcalloc((size_t)n_tensors + 1, sizeof(*offsets));
	name_index_init(&g->tensor_names, (size_t)n_tensors);
	while (rc == 0 && g->n_tensors < n_tensors) {
		struct tensor *t = &g->tensors[g->n_tensors];

		t->name = take_name(c, "a tensor's name", err);
		if (!t->name) {
			rc = -1;
			break;
		}
		g->n_tensors++;
		if (parse_tensor(c, t, &offsets[g->n_tensors - 1], err) < 0) {
			rc = err_context(err, "tensor %.200s", t->name);
			break;
		}
		if (!name_index_add(&g->tensor_names, t->name, g->n_tensors - 1))
			rc = err_set(err, ERR_MODEL, "tensor %.200s occurs twice", t->name);
	}
	if (rc == 0)
		rc = place_tensors(g, c, offsets, err);
	free(offsets);
	return rc;
}

static int parse(struct gguf *g, const void *data, size_t n_bytes, int with_tensors, struct err *err)
{
	struct cursor c = {data, data, (const uint8_t *)data + n_bytes};
	uint64_t version, n_tensors, n_keys;

	if (n_bytes < 4 || memcmp(data, "GGUF", 4) != 0)
		return err_set(err, ERR_MODEL, "not a GGUF file");
	c.p += 4;
	if (take(&c, 4, &version, "the header", err) < 0)
		return -1;
	if (version != 0 && (version & 0xFFFF) == 0)
		return err_set(err, ERR_MODEL, "big-endian GGUF is not supported");
	if (version != 2 && version != 3)
		return err_set(err, ERR_MODEL, "GGUF version %llu is not supported (2 and 3 are)", (unsigned long long)version);
	if (take(&c, 8, &n_tensors, "the header", err) < 0 || take(&c, 8, &n_keys, "the header", err) < 0)
		return -1;
	if (parse_values(g, &c, n_keys, err) < 0)
		return -1;
	return with_tensors ? parse_tensors(g, &c, n_tensors, err) : 0;
}

struct gguf *gguf_open_memory(const void *data, size_t n_bytes, int with_tensors, struct err *err)
{
	struct gguf *g = xcalloc(1, sizeof(*g));

	if (parse(g, data, n_bytes, with_tensors, err) < 0) {
		gguf_free(g);
		return NULL;
	}
	return g;
}

struct gguf *gguf_open(const char *path, int with_tensors, struct err *err)
{
	struct file_map map = {0};
	struct gguf *g;

	if (file_map_open(&map, path, ERR_MODEL, err) < 0)
		return NULL;
	g = gguf_open_memory(map.data ? map.data : (const unsigned char *)"", map.n_bytes, with_tensors, err);
	if (!g) {
		err_context(err, "%s", path);
		file_map_close(&map);
		return NULL;
	}
	g->map = map;
	return g;
}

void gguf_free(struct gguf *g)
{
	if (!g)
		return;
	for (size_t i = 0; i < g->n_values; i++) {
		free(g->values[i].key);
		free(g->values[i].at);
	}
	for (size_t i = 0; i < g->n_tensors; i++)
		free((char *)g->tensors[i].name);
	free(g->values);
	free(g->tensors);
	name_index_release(&g->value_names);
	name_index_release(&g->tensor_names);
	file_map_close(&g->map);
	free(g);
}

static const struct gguf_value *find_value(const struct gguf *g, const char *key)
{
	size_t i;

	return name_index_find(&g->value_names, key, &i) ? &g->values[i] : NULL;
}

/* Sign-extended. *is_u64: beyond the range of i64, to be read as unsigned. */
static int load_integer(enum gguf_type type, const uint8_t *p, int64_t *out, int *is_u64)
{
	*is_u64 = 0;
	switch (type) {
	case GGUF_BOOL:
	case GGUF_U8:
		*out = p[0];
		return 1;
	case GGUF_I8:
		*out = (int8_t)p[0];
		return 1;
	case GGUF_U16:
		*out = (int64_t)load_le(p, 2);
		return 1;
	case GGUF_I16:
		*out = (int16_t)load_le(p, 2);
		return 1;
	case GGUF_U32:
		*out = (int64_t)load_le(p, 4);
		return 1;
	case GGUF_I32:
		*out = (int32_t)load_le(p, 4);
		return 1;
	case GGUF_U64:
		*out = (int64_t)load_le(p, 8);
		*is_u64 = *out < 0;
		return 1;
	case GGUF_I64:
		*out = (int64_t)load_le(p, 8);
		return 1;
	default:
		return 0;
	}
}

static int load_float(enum gguf_type type, const uint8_t *p, double *out)
{
	uint64_t u;
	uint32_t w;
	float f;

	if (type == GGUF_F32) {
		w = (uint32_t)load_le(p, 4);
		memcpy(&f, &w, sizeof(f));
		*out = (double)f;
		return 1;
	}
	if (type == GGUF_F64) {
		u = load_le(p, 8);
		memcpy(out, &u, sizeof(*out));
		return 1;
	}
	return 0;
}

int gguf_find_u64(const struct gguf *g, const char *key, uint64_t *out)
{
	const struct gguf_value *v = find_value(g, key);
	int64_t i;
	int is_u64;

	if (!v || v->type == GGUF_BOOL || !load_integer(v->type, v->p, &i, &is_u64) || (i < 0 && !is_u64))
		return 0;
	*out = (uint64_t)i;
	return 1;
}

int gguf_find_f64(const struct gguf *g, const char *key, double *out)
{
	const struct gguf_value *v = find_value(g, key);

	return v && load_float(v->type, v->p, out);
}

int gguf_find_bool(const struct gguf *g, const char *key, int *out)
{
	const struct gguf_value *v = find_value(g, key);

	if (!v || v->type != GGUF_BOOL)
		return 0;
	*out = v->p[0];
	return 1;
}

int gguf_find_string(const struct gguf *g, const char *key, struct gguf_string *out)
{
	const struct gguf_value *v = find_value(g, key);

	if (!v || v->type != GGUF_STRING)
		return 0;
	*out = (struct gguf_string){(const char *)v->p + 8, (size_t)load_le(v->p, 8)};
	return 1;
}

int gguf_has(const struct gguf *g, const char *key)
{
	return find_value(g, key) != NULL;
}

int gguf_find_array(const struct gguf *g, const char *key, enum gguf_type *type, size_t *n)
{
	const struct gguf_value *v = find_value(g, key);

	if (!v || v->type != GGUF_ARRAY)
		return 0;
	*type = v->element;
	*n = v->n;
	return 1;
}

/* The element, if there is such an array with so many elements of a type that is (not) strings. */
static const uint8_t *find_element(const struct gguf_value *v, size_t i, int strings)
{
	if (!v || v->type != GGUF_ARRAY || i >= v->n || (v->element == GGUF_STRING) != strings)
		return NULL;
	return v->p + (strings ? v->at[i] : i * scalar_bytes(v->element));
}

int gguf_array_string(const struct gguf *g, const char *key, size_t i, struct gguf_string *out)
{
	const uint8_t *p = find_element(find_value(g, key), i, 1);

	if (!p)
		return 0;
	*out = (struct gguf_string){(const char *)p + 8, (size_t)load_le(p, 8)};
	return 1;
}

int gguf_array_i64(const struct gguf *g, const char *key, size_t i, int64_t *out)
{
	const struct gguf_value *v = find_value(g, key);
	const uint8_t *p = find_element(v, i, 0);
	int64_t x;
	int is_u64;

	if (!p || !load_integer(v->element, p, &x, &is_u64) || is_u64)
		return 0;
	*out = x;
	return 1;
}

int gguf_array_f64(const struct gguf *g, const char *key, size_t i, double *out)
{
	const struct gguf_value *v = find_value(g, key);
	const uint8_t *p = find_element(v, i, 0);

	return p && load_float(v->element, p, out);
}

size_t gguf_n_keys(const struct gguf *g)
{
	return g->n_values;
}

const char *gguf_key_at(const struct gguf *g, size_t i)
{
	return i < g->n_values ? g->values[i].key : NULL;
}

size_t gguf_n_tensors(const struct gguf *g)
{
	return g->n_tensors;
}

const struct tensor *gguf_tensor_at(const struct gguf *g, size_t i)
{
	return i < g->n_tensors ? &g->tensors[i] : NULL;
}

const struct tensor *gguf_find_tensor(const struct gguf *g, const char *name)
{
	size_t i;

	return name_index_find(&g->tensor_names, name, &i) ? &g->tensors[i] : NULL;
}
