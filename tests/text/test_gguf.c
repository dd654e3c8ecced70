/* Tests of gguf.c: every type of value, and files that are damaged in every way we could think of. */
#include "base/mem.h"
#include "tests/check.h"
#include "tests/text/gguf_build.h"

/* A file with every type of value and three tensors; its last byte belongs to a tensor. */
static void build_full(struct gguf_build *g)
{
	static const struct {
		const char *key;
		uint32_t type;
		int bytes;
		uint64_t bits;
	} scalars[] = {
		{"u8", GGUF_U8, 1, 200}, {"i8", GGUF_I8, 1, 0xFD}, {"u16", GGUF_U16, 2, 60000}, {"i16", GGUF_I16, 2, 0xFFFE},
		{"u32", GGUF_U32, 4, 4000000000u}, {"i32", GGUF_I32, 4, 0xFFFFFFFF}, {"f32", GGUF_F32, 4, 0x3FC00000},
		{"yes", GGUF_BOOL, 1, 1}, {"no", GGUF_BOOL, 1, 0}, {"u64", GGUF_U64, 8, UINT64_MAX}, {"i64", GGUF_I64, 8, 1u << 31},
		{"f64", GGUF_F64, 8, 0x3FB999999999999A},
	};

	gguf_build_begin(g);
	for (size_t i = 0; i < sizeof(scalars) / sizeof(scalars[0]); i++) {
		put_key(g, scalars[i].key, scalars[i].type);
		put_le(&g->b, scalars[i].bits, scalars[i].bytes);
	}
	put_text(g, "text", "h\xC3\xA9");
	put_text(g, "empty", "");
	put_key(g, "strings", GGUF_ARRAY);
	put_le(&g->b, GGUF_STRING, 4);
	put_le(&g->b, 3, 8);
	put_string(&g->b, "a");
	put_string(&g->b, "");
	put_string(&g->b, "ccc");
	put_key(g, "ints", GGUF_ARRAY);
	put_le(&g->b, GGUF_I16, 4);
	put_le(&g->b, 2, 8);
	put_le(&g->b, 7, 2);
	put_le(&g->b, 0xFFFF, 2);
	put_key(g, "floats", GGUF_ARRAY);
	put_le(&g->b, GGUF_F32, 4);
	put_le(&g->b, 1, 8);
	put_le(&g->b, 0xBF800000, 4);
	put_key(g, "bools", GGUF_ARRAY);
	put_le(&g->b, GGUF_BOOL, 4);
	put_le(&g->b, 2, 8);
	put_le(&g->b, 0x0001, 2);
	put_key(g, "none", GGUF_ARRAY);
	put_le(&g->b, GGUF_U64, 4);
	put_le(&g->b, 0, 8);
	put_tensor(g, "matrix", TENSOR_Q4_0, 64, 3);
	put_tensor(g, "vector", TENSOR_F32, 5, 0);
	put_tensor(g, "last", TENSOR_F16, 16, 2);
	gguf_build_end(g);
}

TEST(values)
{
	struct gguf_build b;
	struct err err = {0};
	struct gguf *g;
	struct gguf_string s;
	enum gguf_type type;
	uint64_t u = 0;
	int64_t x = 0;
	double d = 0;
	int flag = -1;
	size_t n = 99;

	build_full(&b);
	g = gguf_open_memory(b.b.data, b.b.len, 1, &err);
	CHECK_STR(err.msg, "");
	CHECK(g != NULL);
	CHECK(gguf_find_u64(g, "u8", &u) && u == 200);
	CHECK(gguf_find_u64(g, "u16", &u) && u == 60000);
	CHECK(gguf_find_u64(g, "u32", &u) && u == 4000000000u);
	CHECK(gguf_find_u64(g, "u64", &u) && u == UINT64_MAX);
	CHECK(gguf_find_u64(g, "i64", &u) && u == 1u << 31);
	CHECK(!gguf_find_u64(g, "i8", &u) && !gguf_find_u64(g, "i32", &u) && !gguf_find_u64(g, "f32", &u));
	CHECK(!gguf_find_u64(g, "yes", &u) && !gguf_find_u64(g, "missing", &u) && !gguf_find_u64(g, "ints", &u));
	CHECK(gguf_find_f64(g, "f32", &d) && d == 1.5);
	CHECK(gguf_find_f64(g, "f64", &d) && d == 0.1);
	CHECK(!gguf_find_f64(g, "u8", &d));
	CHECK(gguf_find_bool(g, "yes", &flag) && flag == 1);
	CHECK(gguf_find_bool(g, "no", &flag) && flag == 0);
	CHECK(!gguf_find_bool(g, "u8", &flag));
	CHECK(gguf_find_string(g, "text", &s) && s.n == 3 && memcmp(s.s, "h\xC3\xA9", 3) == 0);
	CHECK(gguf_find_string(g, "empty", &s) && s.n == 0);
	CHECK(gguf_find_array(g, "strings", &type, &n) && type == GGUF_STRING && n == 3);
	CHECK(gguf_array_string(g, "strings", 2, &s) && s.n == 3 && memcmp(s.s, "ccc", 3) == 0);
	CHECK(gguf_array_string(g, "strings", 1, &s) && s.n == 0);
	CHECK(!gguf_array_string(g, "strings", 3, &s) && !gguf_array_string(g, "ints", 0, &s));
	CHECK(!gguf_array_i64(g, "strings", 0, &x));
	CHECK(gguf_array_i64(g, "ints", 1, &x) && x == -1);
	CHECK(!gguf_array_i64(g, "ints", 2, &x) && !gguf_array_f64(g, "ints", 0, &d));
	CHECK(gguf_array_f64(g, "floats", 0, &d) && d == -1);
	CHECK(gguf_array_i64(g, "bools", 0, &x) && x == 1);
	CHECK(gguf_array_i64(g, "bools", 1, &x) && x == 0);
	CHECK(gguf_find_array(g, "none", &type, &n) && n == 0);
	CHECK(!gguf_find_array(g, "text", &type, &n));
	CHECK(gguf_has(g, "none") && !gguf_has(g, ""));
	CHECK_INT(gguf_n_keys(g), b.n_keys);
	CHECK_STR(gguf_key_at(g, 0), "u8");
	CHECK(gguf_key_at(g, b.n_keys) == NULL && gguf_tensor_at(g, 3) == NULL);
	gguf_free(g);
	buf_release(&b.b);
}

TEST(tensors)
{
	struct gguf_build b;
	struct err err = {0};
	struct gguf *g;
	const struct tensor *t;

	build_full(&b);
	g = gguf_open_memory(b.b.data, b.b.len, 1, &err);
	CHECK_INT(gguf_n_tensors(g), 3);
	t = gguf_find_tensor(g, "matrix");
	CHECK(t && t->n_dims == 2 && t->shape[0] == 3 && t->shape[1] == 64 && t->n_bytes == 108 && t->type == TENSOR_Q4_0);
	CHECK_INT(((const unsigned char *)t->data)[107], 107);
	t = gguf_find_tensor(g, "vector");
	CHECK(t && t->n_dims == 1 && t->shape[0] == 5 && t->n_bytes == 20);
	CHECK_INT(((const unsigned char *)t->data)[0], 128);
	CHECK(gguf_find_tensor(g, "text") == NULL);
	gguf_free(g);
	/* Metadata alone: no tensors, and their data need not be there. */
	g = gguf_open_memory(b.b.data, b.b.len - b.data_bytes, 0, &err);
	CHECK(g && gguf_n_tensors(g) == 0 && gguf_find_tensor(g, "matrix") == NULL && gguf_has(g, "text"));
	gguf_free(g);
	buf_release(&b.b);
}

/* Opens an exact copy, so that a sanitizer sees a read beyond its end. 1 if it opened. */
static int try_open(const char *data, size_t n, struct err *err)
{
	char *copy = xmemdup(data, n), *exact = xmalloc(n + !n);
	struct gguf *g;

	memcpy(exact, copy, n);
	free(copy);
	*err = (struct err){0};
	g = gguf_open_memory(exact, n, 1, err);
	if (g)
		gguf_walk(g);
	gguf_free(g);
	free(exact);
	return g != NULL;
}

TEST(every_truncation)
{
	struct gguf_build b;
	struct err err;

	build_full(&b);
	for (size_t n = 0; n < b.b.len; n++) {
		if (try_open(b.b.data, n, &err) || err.code != ERR_MODEL || !err.msg[0]) {
			printf("%zu of %zu bytes: opened, or no message\n", n, b.b.len);
			CHECK(0);
		}
	}
	CHECK(try_open(b.b.data, b.b.len, &err));
	buf_release(&b.b);
}

TEST(every_byte_changed)
{
	static const unsigned char masks[] = {0xFF, 0x80, 0x01, 0x10};
	struct gguf_build b;
	struct err err;

	build_full(&b);
	for (size_t i = 0; i < b.b.len - b.data_bytes; i++) {
		for (size_t k = 0; k < sizeof(masks); k++) {
			b.b.data[i] = (char)(b.b.data[i] ^ masks[k]);
			if (!try_open(b.b.data, b.b.len, &err))
				CHECK(err.code == ERR_MODEL && err.msg[0]);
			b.b.data[i] = (char)(b.b.data[i] ^ masks[k]);
		}
	}
	buf_release(&b.b);
}

static void expect_refusal(struct gguf_build *g, const char *what)
{
	struct err err;

	gguf_build_end(g);
	if (try_open(g->b.data, g->b.len, &err) || !strstr(err.msg, what)) {
		printf("\"%s\": expected \"%s\"\n", err.msg, what);
		CHECK(0);
	}
	buf_release(&g->b);
	gguf_build_begin(g);
}

TEST(hostile_metadata)
{
	struct gguf_build g;
	struct err err;

	CHECK(!try_open("GGML\3\0\0\0", 8, &err) && strstr(err.msg, "not a GGUF file"));
	CHECK(!try_open("GGUF\0\0\0\3", 8, &err) && strstr(err.msg, "big-endian"));
	CHECK(!try_open("GGUF\1\0\0\0", 8, &err) && strstr(err.msg, "version 1"));
	gguf_build_begin(&g);
	g.n_keys = UINT64_MAX;
	expect_refusal(&g, "header claims 18446744073709551615 keys");
	g.n_tensors = 1ull << 40;
	expect_refusal(&g, "header claims 1099511627776 tensors");
	put_u32(&g, "twice", 1);
	put_u32(&g, "twice", 2);
	expect_refusal(&g, "key twice occurs twice");
	put_u32(&g, "", 1);
	expect_refusal(&g, "a key at byte");
	put_key(&g, "odd", 13);
	expect_refusal(&g, "key odd: value of unknown type 13");
	put_key(&g, "flag", GGUF_BOOL);
	put_le(&g.b, 2, 1);
	expect_refusal(&g, "key flag: boolean value is 2");
	put_key(&g, "nested", GGUF_ARRAY);
	put_le(&g.b, GGUF_ARRAY, 4);
	put_le(&g.b, 0, 8);
	expect_refusal(&g, "key nested: array of arrays");
	put_key(&g, "many", GGUF_ARRAY);
	put_le(&g.b, GGUF_U64, 4);
	put_le(&g.b, 1ull << 61, 8);
	expect_refusal(&g, "key many: array claims 2305843009213693952 elements");
	put_key(&g, "many", GGUF_ARRAY);
	put_le(&g.b, GGUF_STRING, 4);
	put_le(&g.b, UINT64_MAX, 8);
	expect_refusal(&g, "key many: array claims 18446744073709551615 strings");
	put_key(&g, "long", GGUF_STRING);
	put_le(&g.b, UINT64_MAX - 4, 8);
	expect_refusal(&g, "claims 18446744073709551611 bytes");
	buf_release(&g.b);
}

TEST(hostile_tensors)
{
	struct gguf_build g;

	gguf_build_begin(&g);
	put_tensor(&g, "t", TENSOR_F32, 4, 0);
	put_tensor(&g, "t", TENSOR_F32, 4, 0);
	expect_refusal(&g, "tensor t occurs twice");
	put_tensor(&g, "t", (enum tensor_type)9, 32, 0);
	expect_refusal(&g, "tensor t: type Q8_1 (9) is not supported");
	put_tensor(&g, "t", (enum tensor_type)23, 256, 0);
	expect_refusal(&g, "tensor t: type IQ4_XS (23)");
	put_tensor(&g, "t", (enum tensor_type)4000000000u, 32, 0);
	expect_refusal(&g, "tensor t: type unknown (4000000000)");
	put_tensor(&g, "t", TENSOR_Q4_K, 128, 4);
	expect_refusal(&g, "rows have 128 elements, not a multiple of Q4_K's block of 256");
	put_tensor(&g, "t", TENSOR_F32, 0, 4);
	expect_refusal(&g, "tensor t: dimension 0 is 0");
	put_tensor(&g, "t", TENSOR_F32, INT64_MIN, 0);
	expect_refusal(&g, "tensor t: dimension 0 is 9223372036854775808");
	put_tensor(&g, "t", TENSOR_F32, 1ll << 40, 0);
	g.data_bytes = 64;
	expect_refusal(&g, "reach beyond the end of the file");
	put_tensor(&g, "t", TENSOR_F32, 1ll << 40, 1ll << 40);
	g.data_bytes = 64;
	expect_refusal(&g, "tensor t: is too large");
	put_tensor(&g, "a", TENSOR_F32, 16, 0);
	g.data_bytes = 32;
	put_tensor(&g, "b", TENSOR_F32, 16, 0);
	expect_refusal(&g, "tensors a and b overlap");
	g.data_bytes = 4;
	put_tensor(&g, "a", TENSOR_F32, 16, 0);
	expect_refusal(&g, "tensor a: offset 4 is not a multiple of the alignment 32");
	g.data_bytes = 0x7FFFFFFFFFFFFFE0;
	put_tensor(&g, "a", TENSOR_F32, 16, 0);
	g.data_bytes = 64;
	expect_refusal(&g, "reach beyond the end of the file");
	for (uint32_t n_dims = 0; n_dims < 6; n_dims += 5) {
		put_string(&g.b, "t");
		put_le(&g.b, n_dims, 4);
		put_le(&g.b, 0, 64);
		g.n_tensors++;
		expect_refusal(&g, "dimensions, not 1 to 4");
	}
	put_u32(&g, "general.alignment", 0);
	expect_refusal(&g, "general.alignment is 0");
	put_u32(&g, "general.alignment", 24);
	expect_refusal(&g, "general.alignment is 24");
	put_text(&g, "general.alignment", "32");
	expect_refusal(&g, "general.alignment is not an integer");
	buf_release(&g.b);
}

TEST(files)
{
	struct err err = {0};

	CHECK(gguf_open("absent.gguf", 1, &err) == NULL);
	CHECK(strstr(err.msg, "absent.gguf") != NULL);
	err = (struct err){0};
	CHECK(gguf_open(".", 1, &err) == NULL);
	CHECK(err.code == ERR_MODEL);
	err = (struct err){0};
	CHECK(gguf_open("/dev/null", 1, &err) == NULL);
	CHECK(err.code == ERR_MODEL);
}

int main(void)
{
	RUN(values);
	RUN(tensors);
	RUN(every_truncation);
	RUN(every_byte_changed);
	RUN(hostile_metadata);
	RUN(hostile_tensors);
	RUN(files);
	return TEST_RESULT();
}
