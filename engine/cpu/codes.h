/* codes.h: packed blocks (packed.h) to vectors, for the kernel files only. The type's description is passed as constants, so
 * that after inlining nothing of the choice remains. */
#ifndef TOKENMILL_ENGINE_CODES_H
#define TOKENMILL_ENGINE_CODES_H

#include "engine/cpu/lanes.h"
#include "engine/cpu/packed.h"

LANES_FN struct lanes_i codes_load(const uint8_t *p)
{
	return lanes_i_load((const int32_t *)(const void *)p);
}

/* v shifted so that the bits at `from` come to `to`, all else cut by the mask (same for each byte) */
LANES_FN struct lanes_i codes_field(struct lanes_i v, int from, int to, int mask)
{
	v = from > to ? lanes_i_shift_right(v, from - to) : from < to ? lanes_i_shift_left(v, to - from) : v;
	return lanes_i_and(v, lanes_i_set1(mask * 0x01010101));
}

/* Code vector g of the block whose planes are at p. */
LANES_FN struct lanes_i codes_vector(enum code_planes planes, const uint8_t *p, int g)
{
	struct lanes_i low;

	switch (planes) {
	case PLANES_4:
	case PLANES_4_1:
	case PLANES_4_2:
		low = codes_field(codes_load(p + g % 4 * CODE_VECTOR), g / 4 * 4, 0, 15);
		p += 4 * CODE_VECTOR;
		if (planes == PLANES_4_1)
			low = lanes_i_or(low, codes_field(codes_load(p), g, 4, 1 << 4));
		else if (planes == PLANES_4_2)
			low = lanes_i_or(low, codes_field(codes_load(p + g / 4 * CODE_VECTOR), g % 4 * 2, 4, 3 << 4));
		return low;
	case PLANES_2:
	case PLANES_2_1:
		low = codes_field(codes_load(p + g / 4 * CODE_VECTOR), g % 4 * 2, 0, 3);
		if (planes == PLANES_2_1)
			low = lanes_i_or(low, codes_field(codes_load(p + 2 * CODE_VECTOR), g, 2, 1 << 2));
		return low;
	case PLANES_8:
		break;
	}
	return codes_load(p + g * CODE_VECTOR);
}

LANES_FN struct lanes_f codes_half(const uint8_t *p, int index)
{
	return lanes_f_load_f16((const uint16_t *)(const void *)(p + index * TILE_ROWS * 2));
}

/* Scale and minimum (added; 0 where the type has none) of block b of the unit whose scales are at p, sub-block sub. d * sc
 * is exact: 11 bits times at most 8. */
LANES_FN void codes_scale(enum tensor_type t, const uint8_t *p, int b, int sub, struct lanes_f *scale, struct lanes_f *min)
{
	struct lanes_i both;

	*min = lanes_f_zero();
	switch (t) {
	case TENSOR_Q4_1:
	case TENSOR_Q5_1:
		*min = codes_half(p, 2 + b);
		*scale = codes_half(p, b);
		break;
	case TENSOR_Q4_K:
	case TENSOR_Q5_K:
		*scale = lanes_f_mul(codes_half(p + 256, 0), lanes_f_from_i(lanes_i_load_u8(p + b * TILE_ROWS)));
		*min = lanes_f_mul(codes_half(p + 256, 1), lanes_f_from_i(lanes_i_load_u8(p + (8 + b) * TILE_ROWS)));
		*min = lanes_f_sub(lanes_f_zero(), *min);
		break;
	case TENSOR_Q2_K:
		both = lanes_i_load_u8(p + (2 * b + sub) * TILE_ROWS);
		*scale = lanes_f_mul(codes_half(p + 256, 0), lanes_f_from_i(lanes_i_and(both, lanes_i_set1(15))));
		*min = lanes_f_mul(codes_half(p + 256, 1), lanes_f_from_i(lanes_i_shift_right(both, 4)));
		*min = lanes_f_sub(lanes_f_zero(), *min);
		break;
	case TENSOR_Q3_K:
	case TENSOR_Q6_K:
		*scale =
		    lanes_f_mul(codes_half(p + 256, 0), lanes_f_from_i(lanes_i_load_i8((const int8_t *)p + (2 * b + sub) * TILE_ROWS)));
		break;
	case TENSOR_Q8_K:
		*scale = lanes_f_load((const float *)(const void *)p);
		break;
	default:
		*scale = codes_half(p, b);
	}
}

#endif
