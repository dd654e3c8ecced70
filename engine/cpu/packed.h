/* packed.h: how weights lie in memory for the CPU's matrix products, and the kernels that read them. Private to engine/cpu.
 *
 * A matrix is cut into tiles of 16 rows and each row into blocks of 32 columns. The codes of a block in a tile are eight
 * "code vectors" of 64 bytes, vector g holding columns 4g .. 4g+3 of all rows:
 *
 *     vector g = [row 0: 4 codes][row 1: 4 codes] ... [row 15: 4 codes]         unsigned, ready for vpdpbusd or vpmaddubsw
 *
 * They are stored as bit planes, so that memory is the file type's. In bytes of 64 (byte i of each belongs to byte i of the
 * vectors):
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
 * A weight's value is scale * (code - offset) + min with scale and min per row and block (or half block: subs = 2). A unit
 * is padded to 64 bytes; what pads (rows beyond n_out, the last half unit) has scale 0.
 *
 * Two tiles make a panel (the last may be one), stored in the order in which it is computed, so that memory is read as one
 * stream:
 *
 *     quantised: [panel][unit][tile]      float types: [panel][column][tile][16 rows] in the file's type
 *
 * Activations are cut likewise into chunks of columns, and the rows into groups of T, as many as a register tile takes; a
 * kernel walks one pointer, and the groups that one chunk of weights meets lie one after another:
 *
 *     codes         [chunk][group][columns / 4][T] dwords of four int8
 *     scales, sums  [chunk][group][blocks][T]
 *     floats        [chunk][group][columns][T] */
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
	PANEL_TILES = 2,
	PANEL_ROWS = 32,
	CHUNK_BLOCKS = 16, /* of a panel: 16 KiB of codes, half of a small L1 cache */
	CHUNK_COLS = CHUNK_BLOCKS * BLOCK_COLS,
	FLOAT_CHUNK_COLS = 256, /* of a float panel: 32 KiB */
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
	int block_bytes; /* planes of a block in a tile */
	int unit_bytes;
};
/* NULL: not a type that can be packed. */
const struct packed_type *packed_type_find(enum tensor_type t);

/* Fill one panel of n_tiles: rows row0 .. row0 + 16 n_tiles - 1 of t (fewer at the end). */
void pack_panel(const struct packed_type *p, const struct tensor *t, int64_t row0, int n_tiles, uint8_t *panel);
size_t packed_tile_bytes(const struct packed_type *p, int64_t n_in);
/* Bytes from a panel's start to its column (a multiple of the unit). */
size_t packed_offset(const struct packed_type *p, int n_tiles, int64_t column);

/* Activations, or a place among them. */
struct packed_x {
	int32_t *codes; /* four int8 each */
	float *scale;
	int32_t *neg_sum[2]; /* minus the sum of the codes: [0] per 32 columns, [1] per 16 */
	float *min_sum[2];   /* scale * sum, likewise */
};

/* One chunk of a panel, unpacked. A missing second tile is the first again. */
struct panel {
	const uint8_t *codes[PANEL_TILES]; /* [blocks][8][64] */
	const float *scales[PANEL_TILES];  /* [blocks * subs][16] */
	const float *mins[PANEL_TILES];    /* [blocks * subs][16]? */
};
struct dot_args {
	struct panel panel; /* from the first tile to be computed on */
	struct packed_x x;  /* at the group's and chunk's place */
	int n_blocks;
	int first;  /* the sums start at 0, not at what acc holds */
	float *acc; /* [T][PANEL_ROWS], at the tile */
};
struct float_args {
	const float *w[PANEL_TILES]; /* [n_cols][w_stride], at the tile */
	int w_stride;
	const float *x; /* [n_cols][T] */
	int n_cols;
	int first;
	float *acc; /* [T][PANEL_ROWS], at the tile */
};
/* A chunk of a panel as it is stored. */
struct stream_args {
	const struct packed_type *type;
	const uint8_t *src;
	int n_tiles;
	int n_cols;
	struct packed_x x;     /* quantised types: at the group's and chunk's place */
	const float *x_floats; /* float types: [n_cols][T] */
	int first;
	float *acc; /* [T][PANEL_ROWS] */
};
typedef void (*stream_fn)(const struct stream_args *a);
typedef void (*dot_fn)(const struct dot_args *a);
typedef void (*float_fn)(const struct float_args *a);

/* Three tables per instruction set: what surrounds the products (kernels_codes.c), products over panels (kernels_matmul.c),
 * products for a few rows (kernels_stream.c). */
struct codes_kernels {
	/* n_blocks blocks of n_tokens rows of x (row stride in floats). out points at their place, T is n_tokens. */
	void (*quantize)(const float *x, int64_t stride, int n_tokens, int n_blocks, const struct packed_x *out);
	/* n_blocks of a panel from src (a unit) on: codes of tile r at codes + r * CHUNK_BLOCKS * BLOCK_CODES, scales and minima at
	 * r * CHUNK_BLOCKS * 2 * TILE_ROWS. As many bytes behind them are asked for from memory. */
	void (*unpack)(const struct packed_type *p, const uint8_t *src, int n_tiles, int n_blocks, uint8_t *codes, float *scales,
	               float *mins);
	/* Tile r of the same as f32 values, bit-equal to dequantize_row: out [n_blocks * 32] rows of stride floats */
	void (*decode)(const struct packed_type *p, const uint8_t *src, int n_tiles, int r, int n_blocks, float *out, int stride);
	/* F16 or BF16: src [n][16] to f32. As many bytes behind are asked for from memory. */
	void (*widen)(enum tensor_type t, const void *src, int64_t n, float *out);
	/* out [n_tokens rows of stride floats] = acc [n_tokens][PANEL_ROWS] (+ bias) (+ out), first n columns */
	void (*store)(const float *acc, int n_tokens, int n, const float *bias, int accumulate, float *out, int64_t stride);
};
struct matmul_kernels {
	int tiles, tokens;             /* register tile of the integer kernel */
	int float_tiles, float_tokens; /* and of the float kernel */
	/* For T tokens, 1 .. tokens */
	dot_fn (*dot)(const struct packed_type *p, int n_tokens);
	float_fn (*dot_f32)(int n_tokens);
};
struct stream_kernels {
	int rows, float_rows; /* most rows of x for which this is the faster way; float_rows in one group */
	stream_fn (*find)(enum tensor_type t,
	                  int n_tokens); /* quantised types: as matmul_kernels' dot; float types 1 .. float_rows */
};
extern const struct codes_kernels codes_kernels_generic;
extern const struct matmul_kernels matmul_kernels_generic;
extern const struct stream_kernels stream_kernels_generic;
#if defined(__x86_64__)
extern const struct codes_kernels codes_kernels_avx2, codes_kernels_avx512;
extern const struct matmul_kernels matmul_kernels_avx2, matmul_kernels_avx512;
extern const struct stream_kernels stream_kernels_avx2, stream_kernels_avx512;
#endif

#endif
