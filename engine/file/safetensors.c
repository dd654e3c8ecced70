/* safetensors.c: headers into one table of tensors.
 *
 *   0      u64 little endian: n, bytes of the header
 *   8      n bytes of JSON: { "__metadata__": {...}, name: { "dtype", "shape": [...], "data_offsets": [begin, end] }, ... }
 *   8 + n  data; offsets count from here
 */
#include "engine/file/safetensors.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "engine/file/name_index.h"

#define HEADER_BYTES_MAX 100000000 /* the reference reader's limit */
#define INDEX_BYTES_MAX (64u << 20)
#define N_DIMS_MAX 8

struct entry {
	char *name;
	char dtype[16];
	int n_dims;
	int64_t shape[N_DIMS_MAX];
	const uint8_t *data;
	size_t n_bytes;
};

struct shard {
	char *file; /* its name in the index */
	struct file_map map;
	struct entry *entries;
	size_t n_entries;
	struct name_index names; /* to positions in entries */
};

struct safetensors {
	struct shard *shards;
	size_t n_shards;
	const struct entry **tensors;
	size_t n_tensors;
	struct name_index names; /* to positions in tensors */
};

static const struct {
	const char *name;
	int bits;
	int type; /* enum tensor_type, or -1 */
} dtypes[] = {
	{"F32", 32, TENSOR_F32}, {"F16", 16, TENSOR_F16}, {"BF16", 16, TENSOR_BF16},
	{"BOOL", 8, -1},    {"F4", 4, -1},   {"F6_E2M3", 6, -1}, {"F6_E3M2", 6, -1}, {"U8", 8, -1},   {"I8", 8, -1},
	{"F8_E5M2", 8, -1}, {"F8_E4M3", 8, -1}, {"F8_E8M0", 8, -1}, {"I16", 16, -1}, {"U16", 16, -1}, {"I32", 32, -1},
	{"U32", 32, -1},    {"C64", 64, -1}, {"F64", 64, -1},    {"I64", 64, -1},    {"U64", 64, -1},
};

/* Position in dtypes, or -1. */
static int find_dtype(const char *name)
{
	for (size_t i = 0; i < sizeof(dtypes) / sizeof(dtypes[0]); i++) {
		if (strcmp(dtypes[i].name, name) == 0)
			return (int)i;
	}
	return -1;
}

static int parse_shape(struct entry *e, yyjson_val *shape, int bits, struct err *err)
{
	size_t i, max;
	yyjson_val *dim;
	uint64_t n = 1;

	if (!yyjson_is_arr(shape) || yyjson_arr_size(shape) > N_DIMS_MAX)
		return err_set(err, ERR_MODEL, "shape is not a list of at most %d numbers", N_DIMS_MAX);
	yyjson_arr_foreach(shape, i, max, dim)
	{
		if (!yyjson_is_uint(dim) || yyjson_get_uint(dim) > INT64_MAX / 64 ||
			__builtin_mul_overflow(n, yyjson_get_uint(dim), &n) || n > INT64_MAX / 64)
			return err_set(err, ERR_MODEL, "shape is not made of sizes, or too large");
		e->shape[e->n_dims++] = (int64_t)yyjson_get_uint(dim);
	}
	if (bits && (n * (uint64_t)bits % 8 != 0 || n * (uint64_t)bits / 8 != e->n_bytes))
		return err_set(err, ERR_MODEL, "%llu elements of %s do not take %zu bytes", (unsigned long long)n, e->dtype,
			e->n_bytes);
	return 0;
}

static int parse_entry(struct entry *e, yyjson_val *v, const uint8_t *data, size_t data_bytes, struct err *err)
{
	yyjson_val *dtype = yyjson_obj_get(v, "dtype"), *offsets = yyjson_obj_get(v, "data_offsets");
	yyjson_val *begin = yyjson_arr_get(offsets, 0), *end = yyjson_arr_get(offsets, 1);
	int type;

	if (!yyjson_is_str(dtype) || yyjson_get_len(dtype) >= sizeof(e->dtype))
		return err_set(err, ERR_MODEL, "dtype is not a short string");
	memcpy(e->dtype, yyjson_get_str(dtype), yyjson_get_len(dtype));
	if (yyjson_arr_size(offsets) != 2 || !yyjson_is_uint(begin) || !yyjson_is_uint(end))
		return err_set(err, ERR_MODEL, "data_offsets are not two positions");
	if (yyjson_get_uint(begin) > yyjson_get_uint(end) || yyjson_get_uint(end) > data_bytes)
		return err_set(err, ERR_MODEL, "data [%llu, %llu) is not within the file's %zu bytes of data (truncated download?)",
			(unsigned long long)yyjson_get_uint(begin), (unsigned long long)yyjson_get_uint(end), data_bytes);
	e->data = data + yyjson_get_uint(begin);
	e->n_bytes = (size_t)(yyjson_get_uint(end) - yyjson_get_uint(begin));
	type = find_dtype(e->dtype);
	return parse_shape(e, yyjson_obj_get(v, "shape"), type < 0 ? 0 : dtypes[type].bits, err);
}

static int by_data(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	if (x->data != y->data)
		return x->data < y->data ? -1 : 1;
	return x->n_bytes < y->n_bytes ? -1 : x->n_bytes > y->n_bytes;
}

/* Sorts the entries by position and checks that they cover the data exactly. */
static int check_cover(struct shard *s, const uint8_t *data, size_t data_bytes, struct err *err)
{
	const uint8_t *p = data;

	qsort(s->entries, s->n_entries, sizeof(*s->entries), by_data);
	for (size_t i = 0; i < s->n_entries; i++) {
		if (s->entries[i].data != p)
			return err_set(err, ERR_MODEL, "tensor %.200s: %s the tensor before it", s->entries[i].name,
				s->entries[i].data < p ? "overlaps" : "leaves a gap behind");
		p += s->entries[i].n_bytes;
	}
	if (p != data + data_bytes)
		return err_set(err, ERR_MODEL, "the last %zu bytes belong to no tensor", (size_t)(data + data_bytes - p));
	return 0;
}

static int parse_entries(struct shard *s, yyjson_val *root, const uint8_t *data, size_t data_bytes, struct err *err)
{
	size_t i, max;
	yyjson_val *key, *val;

	if (!yyjson_is_obj(root))
		return err_set(err, ERR_MODEL, "the header is not a JSON object");
	s->entries = xcalloc(yyjson_obj_size(root) + 1, sizeof(*s->entries));
	yyjson_obj_foreach(root, i, max, key, val)
	{
		struct entry *e = &s->entries[s->n_entries];

		if (yyjson_equals_str(key, "__metadata__"))
			continue;
		if (strlen(yyjson_get_str(key)) != yyjson_get_len(key))
			return err_set(err, ERR_MODEL, "a tensor's name has a zero byte");
		e->name = xmemdup(yyjson_get_str(key), yyjson_get_len(key));
		s->n_entries++;
		if (parse_entry(e, val, data, data_bytes, err) < 0)
			return err_context(err, "tensor %.200s", e->name);
	}
	if (check_cover(s, data, data_bytes, err) < 0)
		return -1;
	name_index_init(&s->names, s->n_entries);
	for (i = 0; i < s->n_entries; i++) {
		if (!name_index_add(&s->names, s->entries[i].name, i))
			return err_set(err, ERR_MODEL, "tensor %.200s occurs twice", s->entries[i].name);
	}
	return 0;
}

static int parse_shard(struct shard *s, const uint8_t *p, size_t n_bytes, struct err *err)
{
	uint64_t header = 0;
	yyjson_doc *doc;
	int rc;

	if (n_bytes < 8)
		return err_set(err, ERR_MODEL, "not a safetensors file: %zu bytes", n_bytes);
	for (int i = 0; i < 8; i++)
		header |= (uint64_t)p[i] << (8 * i);
	if (header > HEADER_BYTES_MAX)
		return err_set(err, ERR_MODEL, "not a safetensors file: it claims a header of %llu bytes", (unsigned long long)header);
	if (header > n_bytes - 8)
		return err_set(err, ERR_MODEL, "file ends inside its header of %llu bytes (truncated download?)",
			(unsigned long long)header);
	doc = json_parse((const char *)p + 8, (size_t)header, ERR_MODEL, err);
	if (!doc)
		return err_context(err, "header");
	rc = parse_entries(s, yyjson_doc_get_root(doc), p + 8 + header, n_bytes - 8 - (size_t)header, err);
	yyjson_doc_free(doc);
	return rc;
}

static void shard_release(struct shard *s)
{
	for (size_t i = 0; i < s->n_entries; i++)
		free(s->entries[i].name);
	free(s->entries);
	name_index_release(&s->names);
	file_map_close(&s->map);
	free(s->file);
}

static struct safetensors *safetensors_new(size_t max_shards)
{
	struct safetensors *s = xcalloc(1, sizeof(*s));

	s->shards = xcalloc(max_shards + 1, sizeof(*s->shards));
	return s;
}

/* Every tensor of the only shard. */
static void take_all(struct safetensors *s)
{
	const struct shard *shard = &s->shards[0];

	s->tensors = xcalloc(shard->n_entries + 1, sizeof(const struct entry *));
	name_index_init(&s->names, shard->n_entries);
	for (; s->n_tensors < shard->n_entries; s->n_tensors++) {
		s->tensors[s->n_tensors] = &shard->entries[s->n_tensors];
		name_index_add(&s->names, shard->entries[s->n_tensors].name, s->n_tensors);
	}
}

struct safetensors *safetensors_open_memory(const void *data, size_t n_bytes, struct err *err)
{
	struct safetensors *s = safetensors_new(1);

	s->n_shards = 1;
	if (parse_shard(&s->shards[0], data, n_bytes, err) < 0) {
		safetensors_free(s);
		return NULL;
	}
	take_all(s);
	return s;
}

static int open_shard(struct shard *s, const char *path, struct err *err)
{
	if (file_map_open(&s->map, path, ERR_MODEL, err) < 0)
		return -1;
	if (parse_shard(s, s->map.data ? s->map.data : (const uint8_t *)"", s->map.n_bytes, err) < 0)
		return err_context(err, "%s", path);
	return 0;
}

struct safetensors *safetensors_open(const char *path, struct err *err)
{
	struct safetensors *s = safetensors_new(1);

	s->n_shards = 1;
	if (open_shard(&s->shards[0], path, err) < 0) {
		safetensors_free(s);
		return NULL;
	}
	take_all(s);
	return s;
}

/* The shard of that name, opened when it is met first. NULL on failure. */
static struct shard *get_shard(struct safetensors *s, const char *dir, const char *file, struct err *err)
{
	struct shard *shard;
	char *path;
	int rc;

	for (size_t i = s->n_shards; i-- > 0;) {
		if (strcmp(s->shards[i].file, file) == 0)
			return &s->shards[i];
	}
	/* The index is input: it must not lead out of its directory. */
	if (strchr(file, '/') || file[0] == '.' || file[0] == '\0') {
		err_set(err, ERR_MODEL, "\"%.200s\" is not the plain name of a file", file);
		return NULL;
	}
	shard = &s->shards[s->n_shards++];
	shard->file = xstrdup(file);
	path = file_join(dir, file);
	if (!file_exists(path))
		rc = err_set(err, ERR_MODEL, "%s is missing (incomplete download?)", path);
	else
		rc = open_shard(shard, path, err);
	free(path);
	return rc < 0 ? NULL : shard;
}

static int take_weight_map(struct safetensors *s, const char *dir, yyjson_val *map, struct err *err)
{
	size_t i, max, position;
	yyjson_val *key, *val;

	s->tensors = xcalloc(yyjson_obj_size(map) + 1, sizeof(const struct entry *));
	name_index_init(&s->names, yyjson_obj_size(map));
	yyjson_obj_foreach(map, i, max, key, val)
	{
		struct shard *shard;

		if (!yyjson_is_str(val))
			return err_set(err, ERR_MODEL, "weight_map: %.200s: %s, not the name of a file", yyjson_get_str(key),
				json_type_name(val));
		shard = get_shard(s, dir, yyjson_get_str(val), err);
		if (!shard)
			return -1;
		if (!name_index_find(&shard->names, yyjson_get_str(key), &position))
			return err_set(err, ERR_MODEL, "weight_map: tensor %.200s is not in %s", yyjson_get_str(key), shard->file);
		/* The name of the entry: the index's own text goes away. */
		if (!name_index_add(&s->names, shard->entries[position].name, s->n_tensors))
			return err_set(err, ERR_MODEL, "weight_map: tensor %.200s occurs twice", yyjson_get_str(key));
		s->tensors[s->n_tensors++] = &shard->entries[position];
	}
	return 0;
}

static struct safetensors *open_index(const char *dir, const char *path, struct err *err)
{
	yyjson_doc *doc = json_parse_file(path, INDEX_BYTES_MAX, ERR_MODEL, err);
	yyjson_val *map = yyjson_obj_get(yyjson_doc_get_root(doc), "weight_map");
	struct safetensors *s = NULL;

	if (!doc)
		return NULL;
	if (!yyjson_is_obj(map)) {
		err_set(err, ERR_MODEL, "weight_map is %s, not an object", json_type_name(map));
	} else {
		s = safetensors_new(yyjson_obj_size(map));
		if (take_weight_map(s, dir, map, err) < 0) {
			safetensors_free(s);
			s = NULL;
		}
	}
	if (!s)
		err_context(err, "%s", path);
	yyjson_doc_free(doc);
	return s;
}

struct safetensors *safetensors_open_dir(const char *dir, struct err *err)
{
	char *single = file_join(dir, "model.safetensors"), *index = file_join(dir, "model.safetensors.index.json");
	char *bin = file_join(dir, "pytorch_model.bin"), *bin_index = file_join(dir, "pytorch_model.bin.index.json");
	struct safetensors *s = NULL;

	if (file_exists(single))
		s = safetensors_open(single, err);
	else if (file_exists(index))
		s = open_index(dir, index, err);
	else if (file_exists(bin) || file_exists(bin_index))
		err_set(err, ERR_MODEL, "%s: only pytorch_model.bin, which is not read; convert it: "
			"AutoModelForCausalLM.from_pretrained(...).save_pretrained(..., safe_serialization=True)", dir);
	else
		err_set(err, ERR_MODEL, "%s: neither model.safetensors nor model.safetensors.index.json", dir);
	free(single);
	free(index);
	free(bin);
	free(bin_index);
	return s;
}

void safetensors_free(struct safetensors *s)
{
	if (!s)
		return;
	for (size_t i = 0; i < s->n_shards; i++)
		shard_release(&s->shards[i]);
	free(s->shards);
	free(s->tensors);
	name_index_release(&s->names);
	free(s);
}

size_t safetensors_n_tensors(const struct safetensors *s)
{
	return s->n_tensors;
}

const char *safetensors_name_at(const struct safetensors *s, size_t i)
{
	return i < s->n_tensors ? s->tensors[i]->name : NULL;
}

int safetensors_find_tensor(const struct safetensors *s, const char *name, struct tensor *out, struct err *err)
{
	const struct entry *e;
	size_t i;
	int type;

	if (!name_index_find(&s->names, name, &i))
		return 0;
	e = s->tensors[i];
	type = find_dtype(e->dtype);
	if (type < 0 || dtypes[type].type < 0)
		return err_set(err, ERR_MODEL, "tensor %.200s: type %s is not supported (F32, F16 and BF16 are)", e->name, e->dtype);
	if (e->n_dims < 1 || e->n_dims > 4 || e->n_bytes == 0)
		return err_set(err, ERR_MODEL, "tensor %.200s: has %d dimensions and %zu bytes, not 1 to 4 and some", e->name,
			e->n_dims, e->n_bytes);
	*out = (struct tensor){.name = e->name, .type = (enum tensor_type)dtypes[type].type, .n_dims = e->n_dims, .data = e->data,
		.n_bytes = e->n_bytes};
	memcpy(out->shape, e->shape, (size_t)e->n_dims * sizeof(*e->shape));
	return 1;
}
