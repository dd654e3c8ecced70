/* Tests of safetensors.c: single files, shards with an index, and damaged ones. */
#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"
#include "engine/file/safetensors.h"
#include "tests/check.h"

/* Header length, header, then n_data bytes 0, 1, 2, ... */
static void build(struct buf *b, const char *header, size_t n_data)
{
	size_t n = strlen(header);

	buf_reset(b);
	for (int i = 0; i < 8; i++)
		buf_addc(b, (char)(n >> (8 * i)));
	buf_adds(b, header);
	for (size_t i = 0; i < n_data; i++)
		buf_addc(b, (char)i);
}

static const char good[] =
	"{\"__metadata__\":{\"format\":\"pt\"},\"b\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[16,28]},"
	"\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]},"
	"\"h\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[28,30]},"
	"\"q\":{\"dtype\":\"F8_E4M3\",\"shape\":[2],\"data_offsets\":[30,32]},"
	"\"s\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[32,36]},"
	"\"new\":{\"dtype\":\"F3_X\",\"shape\":[7],\"data_offsets\":[36,39]}}  ";

TEST(reads)
{
	struct buf b = {0};
	struct err err = {0};
	struct safetensors *s;
	struct tensor t;

	build(&b, good, 39);
	s = safetensors_open_memory(b.data, b.len, &err);
	CHECK_STR(err.msg, "");
	CHECK(s != NULL);
	CHECK_INT(safetensors_n_tensors(s), 6);
	CHECK_STR(safetensors_name_at(s, 0), "a");
	CHECK(safetensors_name_at(s, 6) == NULL);
	CHECK_INT(safetensors_find_tensor(s, "b", &t, &err), 1);
	CHECK(t.type == TENSOR_BF16 && t.n_dims == 2 && t.shape[0] == 2 && t.shape[1] == 3 && t.n_bytes == 12);
	CHECK_INT(((const unsigned char *)t.data)[0], 16);
	CHECK_STR(t.name, "b");
	CHECK_INT(safetensors_find_tensor(s, "absent", &t, &err), 0);
	CHECK_INT(safetensors_find_tensor(s, "__metadata__", &t, &err), 0);
	CHECK_INT(safetensors_find_tensor(s, "q", &t, &err), -1);
	CHECK(strstr(err.msg, "tensor q: type F8_E4M3 is not supported") != NULL);
	err = (struct err){0};
	CHECK_INT(safetensors_find_tensor(s, "new", &t, &err), -1);
	CHECK(strstr(err.msg, "F3_X") != NULL);
	err = (struct err){0};
	CHECK_INT(safetensors_find_tensor(s, "s", &t, &err), -1);
	CHECK(strstr(err.msg, "0 dimensions") != NULL);
	safetensors_free(s);
	buf_release(&b);
}

static int try_open(const void *data, size_t n, struct err *err)
{
	void *exact = xmalloc(n + !n);
	struct safetensors *s;

	if (n)
		memcpy(exact, data, n);
	*err = (struct err){0};
	s = safetensors_open_memory(exact, n, err);
	safetensors_free(s);
	free(exact);
	return s != NULL;
}

TEST(every_truncation)
{
	struct buf b = {0};
	struct err err;

	build(&b, good, 39);
	for (size_t n = 0; n < b.len; n++) {
		if (try_open(b.data, n, &err) || err.code != ERR_MODEL) {
			printf("%zu of %zu bytes: opened, or no message\n", n, b.len);
			CHECK(0);
		}
	}
	CHECK(try_open(b.data, b.len, &err));
	buf_addc(&b, 'x');
	CHECK(!try_open(b.data, b.len, &err) && strstr(err.msg, "the last 1 bytes belong to no tensor"));
	buf_release(&b);
}

TEST(every_byte_changed)
{
	static const unsigned char masks[] = {0xFF, 0x80, 0x01, 0x02, 0x10};
	struct buf b = {0};
	struct err err;

	build(&b, good, 39);
	for (size_t i = 0; i < b.len - 39; i++) {
		for (size_t k = 0; k < sizeof(masks); k++) {
			b.data[i] = (char)(b.data[i] ^ masks[k]);
			if (!try_open(b.data, b.len, &err))
				CHECK(err.code == ERR_MODEL && err.msg[0]);
			b.data[i] = (char)(b.data[i] ^ masks[k]);
		}
	}
	buf_release(&b);
}

TEST(hostile_headers)
{
	static const struct {
		const char *header;
		size_t n_data;
		const char *message;
	} cases[] = {
		{"[]", 0, "not a JSON object"},
		{"{", 0, "not valid JSON"},
		{"{\"a\":1}", 0, "tensor a: dtype is not a short string"},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "data_offsets are not two positions"},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}", 8, "data_offsets are not two positions"},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]}}", 4, "data_offsets are not two positions"},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4, "data [4, 0) is not within"},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,5]}}", 4, "data [0, 5) is not within"},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,18446744073709551615]}}", 4, "is not within"},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4, "2 elements of F32 do not take 4 bytes"},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, "shape is not made of sizes"},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[1.0],\"data_offsets\":[0,4]}}", 4, "shape is not made of sizes"},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":\"1\",\"data_offsets\":[0,4]}}", 4, "shape is not a list"},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296,1],\"data_offsets\":[0,4]}}", 4, "too large"},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", 4, "at most 8 numbers"},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8, "leaves a gap"},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
		 "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8, "tensor b: overlaps"},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
		 "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8, "tensor a occurs twice"},
		{"{\"a\\u0000b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "zero byte"},
		{"{\"a\":{\"dtype\":\"a name that is far too long\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "dtype is not a short"},
	};
	struct buf b = {0};
	struct err err;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		build(&b, cases[i].header, cases[i].n_data);
		if (try_open(b.data, b.len, &err) || !strstr(err.msg, cases[i].message)) {
			printf("\"%s\": expected \"%s\"\n", err.msg, cases[i].message);
			CHECK(0);
		}
	}
	CHECK(!try_open("\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF{}", 10, &err) && strstr(err.msg, "claims a header of"));
	/* Deep nesting must not use up the stack. */
	buf_reset(&b);
	for (int i = 0; i < 8; i++)
		buf_addc(&b, (char)(1000000ull >> (8 * i)));
	for (int i = 0; i < 1000000; i++)
		buf_addc(&b, '[');
	CHECK(!try_open(b.data, b.len, &err));
	buf_release(&b);
}

static void write_file(const char *path, const char *header, size_t n_data)
{
	struct buf b = {0};
	struct err err = {0};

	build(&b, header, n_data);
	CHECK_INT(file_write_atomic(path, b.data, b.len, &err), 0);
	buf_release(&b);
}

static void write_text(const char *path, const char *text)
{
	struct err err = {0};

	CHECK_INT(file_write_atomic(path, text, strlen(text), &err), 0);
}

static void expect_refusal(const char *dir, const char *message)
{
	struct err err = {0};
	struct safetensors *s = safetensors_open_dir(dir, &err);

	if (s || err.code != ERR_MODEL || !strstr(err.msg, message)) {
		printf("\"%s\": expected \"%s\"\n", err.msg, message);
		CHECK(0);
	}
	safetensors_free(s);
}

TEST(shards)
{
	struct err err = {0};
	struct safetensors *s;
	struct tensor t;

	file_make_dirs("m", &err);
	expect_refusal("m", "neither model.safetensors nor");
	write_text("m/pytorch_model.bin", "x");
	expect_refusal("m", "only pytorch_model.bin");
	write_file("m/one.safetensors", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4);
	write_file("m/two.safetensors", "{\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
		"\"extra\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8);
	write_text("m/model.safetensors.index.json", "{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"two.safetensors\"}}");
	s = safetensors_open_dir("m", &err);
	CHECK_STR(err.msg, "");
	CHECK(s && safetensors_n_tensors(s) == 2 && safetensors_find_tensor(s, "b", &t, &err) == 1);
	CHECK_INT(safetensors_find_tensor(s, "extra", &t, &err), 0);
	safetensors_free(s);
	write_text("m/model.safetensors.index.json", "{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"three.safetensors\"}}");
	expect_refusal("m", "m/three.safetensors is missing (incomplete download?)");
	write_text("m/model.safetensors.index.json", "{\"weight_map\":{\"b\":\"one.safetensors\"}}");
	expect_refusal("m", "tensor b is not in one.safetensors");
	write_text("m/model.safetensors.index.json", "{\"weight_map\":{\"a\":\"../one.safetensors\"}}");
	expect_refusal("m", "not the plain name of a file");
	write_text("m/model.safetensors.index.json", "{\"weight_map\":{\"a\":\"..\"}}");
	expect_refusal("m", "not the plain name of a file");
	write_text("m/model.safetensors.index.json", "{\"weight_map\":{\"a\":1}}");
	expect_refusal("m", "a: integer, not the name of a file");
	write_text("m/model.safetensors.index.json", "{\"weight_map\":{\"a\":\"one.safetensors\",\"a\":\"one.safetensors\"}}");
	expect_refusal("m", "tensor a occurs twice");
	write_text("m/model.safetensors.index.json", "{\"weight_map\":[]}");
	expect_refusal("m", "weight_map is array");
	write_text("m/model.safetensors.index.json", "{\"weight");
	expect_refusal("m", "not valid JSON");
	/* A single file goes before an index. */
	write_file("m/model.safetensors", "{\"z\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4);
	s = safetensors_open_dir("m", &err);
	CHECK(s && safetensors_find_tensor(s, "z", &t, &err) == 1);
	safetensors_free(s);
}

int main(void)
{
	RUN(reads);
	RUN(every_truncation);
	RUN(every_byte_changed);
	RUN(hostile_headers);
	RUN(shards);
	return TEST_RESULT();
}
