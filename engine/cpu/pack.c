/* pack.c: from the file's blocks (ggml's formats, github.com/ggml-org/ggml, ggml-common.h) to panels of two tiles (packed.h).
 * A block of 32 columns is taken as eight dwords of four codes, four columns at a time by word arithmetic: loading a model
 * should cost little more than reading it. */
#include "engine/cpu/packed.h"

#include <string.h>

#include "base/errors.h"

#define ROUND64(n) (((n) + 63) / 64 * 64)

/* type, planes, bits, offset shift, scales per 32 columns, minima, blocks in a unit, bytes of a block's planes, of a unit */
static const struct packed_type types[] = {
    {TENSOR_F32, 0, 32, -1, 0, 0, 0, 0, 0},
    {TENSOR_F16, 0, 16, -1, 0, 0, 0, 0, 0},
    {TENSOR_BF16, 0, 16, -1, 0, 0, 0, 0, 0},
    {TENSOR_Q4_0, PLANES_4, 4, 3, 1, 0, 2, 256, 2 * 256 + 2 * 32},
    {TENSOR_Q4_1, PLANES_4, 4, -1, 1, 1, 2, 256, 2 * 256 + 4 * 32},
    {TENSOR_Q5_0, PLANES_4_1, 5, 4, 1, 0, 2, 320, 2 * 320 + 2 * 32},
    {TENSOR_Q5_1, PLANES_4_1, 5, -1, 1, 1, 2, 320, 2 * 320 + 4 * 32},
    {TENSOR_Q8_0, PLANES_8, 8, 7, 1, 0, 2, 512, 2 * 512 + 2 * 32},
    {TENSOR_Q2_K, PLANES_2, 2, -1, 2, 1, 8, 128, 8 * 128 + 16 * 16 + 2 * 32},
    {TENSOR_Q3_K, PLANES_2_1, 3, 2, 2, 0, 8, 192, ROUND64(8 * 192 + 16 * 16 + 32)},
    {TENSOR_Q4_K, PLANES_4, 4, -1, 1, 1, 8, 256, 8 * 256 + 16 * 16 + 2 * 32},
    {TENSOR_Q5_K, PLANES_4_1, 5, -1, 1, 1, 8, 320, 8 * 320 + 16 * 16 + 2 * 32},
    {TENSOR_Q6_K, PLANES_4_2, 6, 5, 2, 0, 8, 384, ROUND64(8 * 384 + 16 * 16 + 32)},
    {TENSOR_Q8_K, PLANES_8, 8, 7, 1, 0, 8, 512, 8 * 512 + 64},
};

const struct packed_type *packed_type_find(enum tensor_type t)
{
	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		if (types[i].type == t)
			return &types[i];
	return NULL;
}

size_t packed_tile_bytes(const struct packed_type *p, int64_t n_in)
{
	if (!p->planes)
		return (size_t)n_in * TILE_ROWS * (size_t)tensor_type_bytes(p->type);
	return (size_t)((n_in / BLOCK_COLS + p->unit_blocks - 1) / p->unit_blocks) * (size_t)p->unit_bytes;
}

size_t packed_offset(const struct packed_type *p, int n_tiles, int64_t column)
{
	if (!p->planes)
		return (size_t)column * (size_t)n_tiles * TILE_ROWS * (size_t)tensor_type_bytes(p->type);
	return (size_t)(column / BLOCK_COLS / p->unit_blocks) * (size_t)n_tiles * (size_t)p->unit_bytes;
}

static inline uint32_t dword(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

/* Bits 0..3 of n to bit 0 of four bytes. */
static inline uint32_t spread_bits(uint32_t n)
{
	return (n & 15) * 0x00204081u & 0x01010101u;
}

static const uint32_t LOW4 = 0x0f0f0f0f, LOW2 = 0x03030303, LOW1 = 0x01010101;

/* Offsets of the fields of the file's blocks. */
enum { Q4_0_QS = 2, Q4_1_QS = 4, Q5_0_QH = 2, Q5_0_QS = 6, Q5_1_QH = 4, Q5_1_QS = 8, Q8_0_QS = 2 };
enum { Q2_K_SCALES = 0, Q2_K_QS = 16, Q2_K_D = 80, Q2_K_DMIN = 82 };
enum { Q3_K_HMASK = 0, Q3_K_QS = 32, Q3_K_SCALES = 96, Q3_K_D = 108 };
enum { Q4_K_D = 0, Q4_K_DMIN = 2, Q4_K_SCALES = 4, Q4_K_QS = 16, Q5_K_QH = 16, Q5_K_QS = 48 };
enum { Q6_K_QL = 0, Q6_K_QH = 128, Q6_K_SCALES = 192, Q6_K_D = 208, Q8_K_QS = 4 };

/* c[g] = codes of columns 4g..4g+3 of block b (0 for legacy types, else 0..7 in the file's block of 256) */
static void codes_of_file_block(enum tensor_type t, const uint8_t *src, int b, uint32_t c[8])
{
	const uint8_t *low, *high;
	uint32_t bits;
	int half = b / 4, m = b % 4;

	switch (t) {
	case TENSOR_Q4_0:
	case TENSOR_Q4_1:
		low = src + (t == TENSOR_Q4_0 ? Q4_0_QS : Q4_1_QS);
		for (int g = 0; g < 4; g++) {
			c[g] = dword(low + 4 * g) & LOW4;
			c[g + 4] = dword(low + 4 * g) >> 4 & LOW4;
		}
		break;
	case TENSOR_Q5_0:
	case TENSOR_Q5_1:
		low = src + (t == TENSOR_Q5_0 ? Q5_0_QS : Q5_1_QS);
		bits = dword(src + (t == TENSOR_Q5_0 ? Q5_0_QH : Q5_1_QH));
		for (int g = 0; g < 4; g++) {
			c[g] = (dword(low + 4 * g) & LOW4) | spread_bits(bits >> 4 * g) << 4;
			c[g + 4] = (dword(low + 4 * g) >> 4 & LOW4) | spread_bits(bits >> (4 * g + 16)) << 4;
		}
		break;
	case TENSOR_Q8_0:
		for (int g = 0; g < 8; g++)
			c[g] = dword(src + Q8_0_QS + 4 * g) ^ 0x80808080u;
		break;
	case TENSOR_Q8_K:
		for (int g = 0; g < 8; g++)
			c[g] = dword(src + Q8_K_QS + 32 * b + 4 * g) ^ 0x80808080u;
		break;
	case TENSOR_Q4_K:
		for (int g = 0; g < 8; g++)
			c[g] = dword(src + Q4_K_QS + 32 * (b / 2) + 4 * g) >> 4 * (b % 2) & LOW4;
		break;
	case TENSOR_Q5_K:
		for (int g = 0; g < 8; g++) {
			c[g] = dword(src + Q5_K_QS + 32 * (b / 2) + 4 * g) >> 4 * (b % 2) & LOW4;
			c[g] |= (dword(src + Q5_K_QH + 4 * g) >> b & LOW1) << 4;
		}
		break;
	case TENSOR_Q6_K:
		low = src + Q6_K_QL + 64 * half + 32 * (m % 2);
		high = src + Q6_K_QH + 32 * half;
		for (int g = 0; g < 8; g++)
			c[g] = (dword(low + 4 * g) >> 4 * (m / 2) & LOW4) | (dword(high + 4 * g) >> 2 * m & LOW2) << 4;
		break;
	case TENSOR_Q2_K:
		for (int g = 0; g < 8; g++)
			c[g] = dword(src + Q2_K_QS + 32 * half + 4 * g) >> 2 * m & LOW2;
		break;
	case TENSOR_Q3_K:
		for (int g = 0; g < 8; g++) {
			c[g] = dword(src + Q3_K_QS + 32 * half + 4 * g) >> 2 * m & LOW2;
			c[g] |= (dword(src + Q3_K_HMASK + 4 * g) >> b & LOW1) << 2;
		}
		break;
	default:
		BUG("type %d has no codes", (int)t);
	}
}

static inline void put_dword(uint8_t *plane, int row, uint32_t v)
{
	memcpy(plane + 4 * row, &v, sizeof(v));
}

static void put_two_bits(uint8_t *planes, int row, const uint32_t c[8], int shift)
{
	for (int v = 0; v < 2; v++) {
		uint32_t packed = 0;

		for (int g = 0; g < 4; g++)
			packed |= (c[4 * v + g] >> shift & LOW2) << 2 * g;
		put_dword(planes + v * CODE_VECTOR, row, packed);
	}
}

static void put_one_bit(uint8_t *plane, int row, const uint32_t c[8], int shift)
{
	uint32_t packed = 0;

	for (int g = 0; g < 8; g++)
		packed |= (c[g] >> shift & LOW1) << g;
	put_dword(plane, row, packed);
}

static void put_codes(enum code_planes planes, uint8_t *dst, int row, const uint32_t c[8])
{
	switch (planes) {
	case PLANES_4:
	case PLANES_4_1:
	case PLANES_4_2:
		for (int g = 0; g < 4; g++)
			put_dword(dst + g * CODE_VECTOR, row, (c[g] & LOW4) | (c[g + 4] & LOW4) << 4);
		if (planes == PLANES_4_1)
			put_one_bit(dst + 4 * CODE_VECTOR, row, c, 4);
		else if (planes == PLANES_4_2)
			put_two_bits(dst + 4 * CODE_VECTOR, row, c, 4);
		break;
	case PLANES_2:
	case PLANES_2_1:
		put_two_bits(dst, row, c, 0);
		if (planes == PLANES_2_1)
			put_one_bit(dst + 2 * CODE_VECTOR, row, c, 2);
		break;
	case PLANES_8:
		for (int g = 0; g < 8; g++)
			put_dword(dst + g * CODE_VECTOR, row, c[g]);
		break;
	}
}

/* Six-bit scale and minimum of Q4_K and Q5_K, packed in 12 bytes. */
static void scale_min_k4(int j, const uint8_t *q, uint8_t *sc, uint8_t *mn)
{
	if (j < 4) {
		*sc = q[j] & 63;
		*mn = q[j + 4] & 63;
	} else {
		*sc = (uint8_t)((q[j + 4] & 15) | q[j - 4] >> 6 << 4);
		*mn = (uint8_t)(q[j + 4] >> 4 | q[j] >> 6 << 4);
	}
}

/* Six-bit scale of Q3_K: low nibbles in bytes 0..7, two high bits each in bytes 8..11. */
static int8_t scale_k3(int j, const uint8_t *q)
{
	int low = j < 8 ? q[j] & 15 : q[j - 8] >> 4;

	return (int8_t)((low | (q[8 + j % 4] >> 2 * (j / 4) & 3) << 4) - 32);
}

static void put_half(uint8_t *dst, int index, int row, const uint8_t *src)
{
	memcpy(dst + (index * TILE_ROWS + row) * 2, src, 2);
}

/* Scales of one row of a unit; src is the file's block (for legacy types: the unit's block b). */
static void put_scales(enum tensor_type t, uint8_t *dst, int b, int row, const uint8_t *src)
{
	switch (t) {
	case TENSOR_Q4_0:
	case TENSOR_Q5_0:
	case TENSOR_Q8_0:
		put_half(dst, b, row, src);
		break;
	case TENSOR_Q4_1:
	case TENSOR_Q5_1:
		put_half(dst, b, row, src);
		put_half(dst, 2 + b, row, src + 2);
		break;
	case TENSOR_Q4_K:
	case TENSOR_Q5_K:
		for (int j = 0; j < 8; j++)
			scale_min_k4(j, src + Q4_K_SCALES, dst + j * TILE_ROWS + row, dst + (8 + j) * TILE_ROWS + row);
		put_half(dst + 256, 0, row, src + Q4_K_D);
		put_half(dst + 256, 1, row, src + Q4_K_DMIN);
		break;
	case TENSOR_Q2_K:
		for (int j = 0; j < 16; j++)
			dst[j * TILE_ROWS + row] = src[Q2_K_SCALES + j];
		put_half(dst + 256, 0, row, src + Q2_K_D);
		put_half(dst + 256, 1, row, src + Q2_K_DMIN);
		break;
	case TENSOR_Q3_K:
		for (int j = 0; j < 16; j++)
			dst[j * TILE_ROWS + row] = (uint8_t)scale_k3(j, src + Q3_K_SCALES);
		put_half(dst + 256, 0, row, src + Q3_K_D);
		break;
	case TENSOR_Q6_K:
		for (int j = 0; j < 16; j++)
			dst[j * TILE_ROWS + row] = src[Q6_K_SCALES + j];
		put_half(dst + 256, 0, row, src + Q6_K_D);
		break;
	case TENSOR_Q8_K:
		memcpy(dst + 4 * row, src, 4);
		break;
	default:
		BUG("type %d has no scales", (int)t);
	}
}

/* Rows of tile r of a panel. */
static void pack_codes(const struct packed_type *p, const struct tensor *t, int64_t row0, int n_rows, uint8_t *panel,
                       int n_tiles, int r)
{
	int64_t n_blocks = t->shape[1] / BLOCK_COLS;
	size_t row_bytes = tensor_row_bytes(p->type, t->shape[1]), file_bytes = (size_t)tensor_type_bytes(p->type);
	int in_file = tensor_type_block(p->type) / BLOCK_COLS; /* blocks of 32 in the file's block: 1 or 8 */
	uint32_t c[8];

	for (int64_t first = 0; first < n_blocks; first += p->unit_blocks) {
		uint8_t *unit = panel + packed_offset(p, n_tiles, first * BLOCK_COLS) + r * p->unit_bytes;
		uint8_t *scales = unit + p->unit_blocks * p->block_bytes;

		for (int row = 0; row < n_rows; row++) {
			const uint8_t *src =
			    (const uint8_t *)t->data + (size_t)(row0 + row) * row_bytes + (size_t)(first / in_file) * file_bytes;

			for (int b = 0; b < p->unit_blocks && first + b < n_blocks; b++) {
				const uint8_t *block = in_file == 1 ? src + (size_t)b * file_bytes : src;

				codes_of_file_block(p->type, block, b, c);
				put_codes(p->planes, unit + b * p->block_bytes, row, c);
				if (in_file == 1 || b == 0)
					put_scales(p->type, scales, b, row, block);
			}
		}
	}
}

/* Rows become lanes: transpose in squares of 16. */
static void pack_floats(const struct packed_type *p, const struct tensor *t, int64_t row0, int n_rows, uint8_t *panel,
                        int n_tiles, int r)
{
	int64_t n_in = t->shape[1], stride = n_tiles * TILE_ROWS;
	size_t size = (size_t)tensor_type_bytes(p->type);

	for (int64_t k0 = 0; k0 < n_in; k0 += 16) {
		int64_t end = k0 + 16 < n_in ? k0 + 16 : n_in;

		for (int row = 0; row < n_rows; row++) {
			const uint8_t *src = (const uint8_t *)t->data + (size_t)(row0 + row) * (size_t)n_in * size;
			int64_t lane = r * TILE_ROWS + row;

			for (int64_t k = k0; k < end; k++)
				if (size == 4)
					memcpy(panel + (size_t)(k * stride + lane) * 4, src + (size_t)k * 4, 4);
				else
					memcpy(panel + (size_t)(k * stride + lane) * 2, src + (size_t)k * 2, 2);
		}
	}
}

void pack_panel(const struct packed_type *p, const struct tensor *t, int64_t row0, int n_tiles, uint8_t *panel)
{
	for (int r = 0; r < n_tiles; r++, row0 += TILE_ROWS) {
		int64_t left = t->shape[0] - row0;
		int n_rows = left < TILE_ROWS ? (int)left : TILE_ROWS;

		if (p->planes)
			pack_codes(p, t, row0, n_rows, panel, n_tiles, r);
		else
			pack_floats(p, t, row0, n_rows, panel, n_tiles, r);
	}
}
