/* Tests of tensor.c and dequant.c against numpy's floats and gguf-py's decoders (goldens/dequant.txt). */
#include "base/buf.h"
#include "base/file.h"
#include "engine/file/tensor.h"
#include "tests/check.h"

static char *golden_path(const char *name)
{
	const char *root = getenv("TOKENMILL_SOURCE");
	struct buf b = {0};

	buf_addf(&b, "%s/tests/text/goldens/%s", root ? root : ".", name);
	return buf_detach(&b);
}

static int hex_digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Decode a run of hex digits; bytes written, *end behind them. */
static size_t read_hex(const char *s, uint8_t *out, size_t max, const char **end)
{
	size_t n = 0;

	while (n < max && hex_digit(s[0]) >= 0 && hex_digit(s[1]) >= 0) {
		out[n++] = (uint8_t)(hex_digit(s[0]) << 4 | hex_digit(s[1]));
		s += 2;
	}
	*end = s;
	return n;
}

static enum tensor_type find_type(const char *name, size_t n)
{
	for (int t = 0; t < 64; t++) {
		const char *s = tensor_type_name((enum tensor_type)t);

		if (tensor_type_block((enum tensor_type)t) && strlen(s) == n && memcmp(s, name, n) == 0)
			return (enum tensor_type)t;
	}
	return (enum tensor_type)-1;
}

/* Each line: type, blocks in hex, expected little-endian f32 in hex. */
TEST(equal_to_gguf_py)
{
	char *path = golden_path("dequant.txt");
	struct buf text = {0};
	struct err err = {0};
	int seen[64] = {0}, n_types = 0;

	CHECK_INT(file_read(path, 1 << 24, &text, ERR_OTHER, &err), 0);
	for (const char *line = buf_str(&text); *line; line = strchr(line, '\n') + 1) {
		static uint8_t packed[8192 + 1], expected[65536];
		static float y[16384];
		const char *space = strchr(line, ' ');
		enum tensor_type t;
		size_t n_packed, n_expected, n;

		if (line[0] == '#')
			continue;
		t = find_type(line, (size_t)(space - line));
		CHECK(tensor_type_block(t) > 0);
		/* At an odd address: alignment is not promised. */
		n_packed = read_hex(space + 1, packed + 1, sizeof(packed) - 1, &space);
		n_expected = read_hex(space + 1, expected, sizeof(expected), &space);
		n = n_expected / 4;
		CHECK(*space == '\n' && n > 0);
		CHECK_INT(tensor_row_bytes(t, (int64_t)n), n_packed);
		dequantize_row(t, packed + 1, y, (int64_t)n);
		for (size_t i = 0; i < n; i++) {
			float want;

			memcpy(&want, expected + 4 * i, 4);
			if (memcmp(&want, &y[i], 4) != 0) {
				printf("%s element %zu: %.9g, expected %.9g\n", tensor_type_name(t), i, (double)y[i], (double)want);
				CHECK(0);
				break;
			}
		}
		n_types += !seen[t];
		seen[t] = 1;
	}
	CHECK_INT(n_types, 14);
	buf_release(&text);
	free(path);
}

static float from_bits(uint32_t u)
{
	float f;

	memcpy(&f, &u, 4);
	return f;
}

static uint32_t to_bits(float f)
{
	uint32_t u;

	memcpy(&u, &f, 4);
	return u;
}

/* The value an f16 stands for, by its definition (IEEE 754-2008, 3.4). */
static double f16_value(uint16_t h)
{
	int e = h >> 10 & 31, m = h & 1023;
	double v = e == 31 ? (m ? NAN : INFINITY) : e ? ldexp(1024 + m, e - 25) : ldexp(m, -24);

	return h & 0x8000 ? -v : v;
}

TEST(f16_every_value)
{
	for (unsigned h = 0; h < 65536; h++) {
		float f = f16_to_f32((uint16_t)h);
		double want = f16_value((uint16_t)h);

		if (isnan(want)) {
			CHECK(isnan(f) && isnan(f16_to_f32(f32_to_f16(f))));
			continue;
		}
		CHECK(f == want && !signbit(f) == !signbit(want));
		CHECK_INT(f32_to_f16(f), h);
	}
}

/* Between every two neighbours: just below the middle, the middle (to even), just above. */
TEST(f16_rounding)
{
	for (unsigned h = 0; h < 0x7BFF; h++) {
		float middle = (f16_to_f32((uint16_t)h) + f16_to_f32((uint16_t)(h + 1))) / 2;

		CHECK_INT(f32_to_f16(from_bits(to_bits(middle) - 1)), h);
		CHECK_INT(f32_to_f16(middle), h & 1 ? h + 1 : h);
		CHECK_INT(f32_to_f16(from_bits(to_bits(middle) + 1)), h + 1);
		CHECK_INT(f32_to_f16(-middle), 0x8000 | (h & 1 ? h + 1 : h));
	}
	CHECK_INT(f32_to_f16(65519.996f), 0x7BFF);
	CHECK_INT(f32_to_f16(65520.0f), 0x7C00);
	CHECK_INT(f32_to_f16(INFINITY), 0x7C00);
	CHECK_INT(f32_to_f16(1e-30f), 0);
	CHECK(isnan(f16_to_f32(f32_to_f16(from_bits(0x7F800001)))));
}

TEST(bf16)
{
	for (unsigned h = 0; h < 65536; h++) {
		float f = bf16_to_f32((uint16_t)h);

		CHECK_INT(to_bits(f), h << 16);
		if (isnan(f)) {
			CHECK(isnan(bf16_to_f32(f32_to_bf16(f))));
			continue;
		}
		CHECK_INT(f32_to_bf16(f), h);
		if (isinf(f))
			continue;
		CHECK_INT(f32_to_bf16(from_bits(h << 16 | 0x7FFF)), h);
		CHECK_INT(f32_to_bf16(from_bits(h << 16 | 0x8000)), h + (h & 1));
		CHECK_INT(f32_to_bf16(from_bits(h << 16 | 0x8001)), h + 1);
	}
	CHECK(isnan(bf16_to_f32(f32_to_bf16(from_bits(0x7F800001)))));
}

TEST(sizes)
{
	CHECK_INT(tensor_row_bytes(TENSOR_Q4_K, 512), 288);
	CHECK_INT(tensor_row_bytes(TENSOR_Q4_K, 128), 0);
	CHECK_INT(tensor_row_bytes(TENSOR_F32, 0), 0);
	CHECK_INT(tensor_row_bytes(TENSOR_F32, -4), 0);
	CHECK_INT(tensor_row_bytes(TENSOR_F32, INT64_MAX), 0);
	CHECK_INT(tensor_row_bytes((enum tensor_type)4, 32), 0);
	CHECK_INT(tensor_type_block((enum tensor_type)-1), 0);
	CHECK_STR(tensor_type_name(TENSOR_BF16), "BF16");
	CHECK_STR(tensor_type_name((enum tensor_type)1000), "unknown");
}

int main(void)
{
	RUN(equal_to_gguf_py);
	RUN(f16_every_value);
	RUN(f16_rounding);
	RUN(bf16);
	RUN(sizes);
	return TEST_RESULT();
}
