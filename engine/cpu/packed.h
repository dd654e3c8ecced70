/* packed.h: how weights lie in memory for the CPU's matrix products, and the kernels that read them. Private to engine/cpu.
 *
 * A quantised matrix is cut into tiles of 16 rows and each row into blocks of 32 columns. The codes of a block in a tile are eight
 * "code vectors" of 64 bytes, vector g holding columns 4g .. 4g+3 of all rows:
 *
 *     vector g = [row 0: 4 codes][row 1: 4 codes] ... [row 15: 4 codes]         unsigned, ready for vpdpbusd or vpmaddubsw
 *
 * They are stored as bit planes, so that memory is the file type's. In bytes of 64 (byte i of each belongs to byte i of the vectors):
 *
 *     4 bits: four vectors; P[j] = low nibble of vector j | vector j+4 << 4, j = 0..3
 *     2 bits: two vectors;  P[0] = bits of vectors 0..3 at 0, 2, 4, 6;  P[1] = of vectors 4..7
 *     1 bit:  one vector;   bit g of P = vector g
 *     8 bits: eight vectors as they are, signed codes + 128
 *
 * Blocks are grouped in units (2 blocks, K types 8): planes of block 0, planes of block 1, ..., then the scales of the unit,
 * each an array over the 16 rows:
 *
 *     Q4_0 Q5_0 Q8_0   d f16 [2][16]
 *     Q4_1 Q5_1        d f16 [2][16], m f16 [2][16]
 *     Q4_K Q5_K        sc u8 [8][16], mn u8 [8][16], d f16 [16], dmin f16 [16]
 *     Q2_K             sc | mn << 4 u8 [16][16], d f16 [16], dmin f16 [16]
 *     Q3_K Q6_K        sc i8 [16][16], d f16 [16]
 *     Q8_K             d f32 [16]
 *
 * A weight's value is scale * (code - offset) + min with scale and min per row and block (or half block: subs = 2). Everything
 * is padded to 64 bytes; what pads (rows beyond n_out, the last half unit) has scale 0.
 *
 * Float matrices: [tile][column][16 rows] in the file's type.
 *
 * Activations are packed by groups of up to `tokens` rows, so that a kernel walks one pointer: codes [n_in/4][T] dwords of four int8,
 * scales and sums [n_blocks][T]; floats [n_in][T].
 */
#ifndef TOKENMILL_ENGINE_PACKED_H
#define TOKENMILL_ENGINE_PACKED_H

#include <stddef.h>
#include <stdint.h>

#include "engine/file/tensor.h"

enum {
	TILE_ROWS = 16,
	BLOCK_COLS = 32,
	CODE_VECTOR = 64,  /* bytes */
	BLOCK_CODES = 512, /* bytes of a block's unpacked codes */
	MAX_PANEL_TILES = 2,
	PANEL_BLOCKS = 32,   /* most blocks in a panel, all its tiles together: codes stay in half of the L1 cache */
	PANEL_COLUMNS = 256, /* of a float panel */
	MAX_GROUP = 16,
};

enum code_planes { PLANES_4 = 1, PLANES_4_1, PLANES_4_2, PLANES_2, PLANES_2_1, PLANES_8 };

struct packed_type {
	enum tensor_type type;
	enum code_planes planes; /* 0: float type */
	int code_bits;           /* of an unpacked code */
	int offset_shift;        /* offset = 1 << offset_shift; -1: none */
	int subs;                /* scales per 32 columns */
	int has_min;
	int unit_blocks;
	int block_bytes;         /* planes of a block in a tile */
	int unit_bytes;
};
/* NULL: not a type that can be packed. */
const struct packed_type *packed_type_find(enum tensor_type t);

/* Fill one tile: rows row0 .. row0+15 of t (fewer at the end). */
void pack_tile(const struct packed_type *p, const struct tensor *t, int64_t row0, uint8_t *tile);
size_t packed_tile_bytes(const struct packed_type *p, int64_t n_in);

/* Activations of `fast`; group arrays lie one after another: the group whose first token is r starts at r times the row's size. */
struct packed_x {
	int32_t *codes;      /* [n_in/4][T], four int8 each */
	float *scale;        /* [n_blocks][T] */
	int32_t *neg_sum[2]; /* minus the sum of the codes: [0] per 32 columns [n_blocks][T], [1] per 16 [2 n_blocks][T] */
	float *min_sum[2];   /* scale * sum, likewise */
	float *floats;       /* [n_in][T] */
};

/* One panel: up to MAX_PANEL_TILES tiles, a run of blocks, unpacked. */
struct panel {
	uint8_t *codes[MAX_PANEL_TILES]; /* [blocks][8][64] */
	float *scales[MAX_PANEL_TILES];  /* [blocks * subs][16] */
	float *mins[MAX_PANEL_TILES];    /* [blocks * subs][16]? */
};

struct dot_args {
	const struct panel *panel;
	struct packed_x x; /* at the group's and panel's first block */
	int n_blocks;
	int offset_shift;
	int first;         /* the sums start at 0, not at what acc holds */
	float *acc;        /* [T][tiles * 16] */
};
struct float_args {
	const void *w[MAX_PANEL_TILES]; /* [n_cols][16] */
	const float *x;                 /* [n_cols][T] */
	int n_cols;
	int first;
	float *acc; /* [T][tiles * 16] */
};
typedef void (*dot_fn)(const struct dot_args *a);
typedef void (*float_fn)(const struct float_args *a);

/* Two tables per instruction set: what surrounds the products (kernels_codes.c), and the products (kernels_matmul.c). */
struct codes_kernels {
	/* x [n_tokens, n_in], row stride in floats; T = n_tokens; out points at the group. n_in is a multiple of 32. */
	void (*quantize)(const float *x, int64_t stride, int n_tokens, int64_t n_in, const struct packed_x *out);
	/* Blocks first .. first + n - 1 of a tile; first is a multiple of the unit. */
	void (*unpack)(const struct packed_type *p, const uint8_t *tile, int64_t first, int n, uint8_t *codes, float *scales, float *mins);
	/* The same as f32 values, bit-equal to dequantize_row: out [n * 32][16] */
	void (*decode)(const struct packed_type *p, const uint8_t *tile, int64_t first, int n, float *out);
	/* Float types: src [n][16] to f32 */
	void (*widen)(enum tensor_type t, const void *src, int64_t n, float *out);
	/* out [n_tokens rows of stride floats] = acc [n_tokens][width] (+ bias) (+ out), first n columns */
	void (*store)(const float *acc, int width, int n_tokens, int n, const float *bias, int accumulate, float *out, int64_t stride);
};
struct matmul_kernels {
	int tiles, tokens;             /* register tile of the integer kernel */
	int float_tiles, float_tokens; /* and of the float kernel */
	/* For T tokens, 1 .. tokens */
	dot_fn (*dot)(const struct packed_type *p, int n_tokens);
	float_fn (*dot_f32)(int n_tokens);
};
extern const struct codes_kernels codes_kernels_generic;
extern const struct matmul_kernels matmul_kernels_generic;
#if defined(__x86_64__)
extern const struct codes_kernels codes_kernels_avx2, codes_kernels_avx512;
extern const struct matmul_kernels matmul_kernels_avx2, matmul_kernels_avx512;
#endif

#endif
