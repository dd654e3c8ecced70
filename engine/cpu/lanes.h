/* lanes.h: sixteen floats or 32-bit integers at once, for engine/cpu/kernels_*.c only.
 *
 * The Makefile compiles each kernel file once per instruction set with -DISA=<name> and -DISA_<NAME>. A `struct lanes_f` is
 * one register with AVX-512, two with AVX2 and an array elsewhere; the operations give the same bits on all of them (for
 * inputs that are not NaN): each is a single IEEE operation, rounded to nearest even, and only lanes_f_fma fuses. Sums over
 * lanes are taken in one fixed tree. That is what the engine's promise of the same bytes on every processor rests on, so
 * anything added here must keep it.
 *
 * lanes_f_max(a, b) is a > b ? a : b, and lanes_f_min(a, b) a < b ? a : b: the second operand where one is NaN, as on x86. */
#ifndef TOKENMILL_ENGINE_LANES_H
#define TOKENMILL_ENGINE_LANES_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(ISA_AVX512) || defined(ISA_AVX2)
#include <immintrin.h>
#endif

/* ISA_SYMBOL(name): name_avx2 and so on, for what the kernel file exports. */
#define ISA_JOIN_(a, b) a##_##b
#define ISA_JOIN(a, b) ISA_JOIN_(a, b)
#define ISA_SYMBOL(name) ISA_JOIN(name, ISA)

/* Loops over registers must vanish. */
#if defined(__clang__)
#define LANES_UNROLL _Pragma("clang loop unroll(full)")
#else
#define LANES_UNROLL _Pragma("GCC unroll 16")
#endif

/* clang-format off: one line an operation reads as a table */
#define LANES 16
#define LANES_FN static inline __attribute__((always_inline, unused))

#if defined(ISA_AVX512)

struct lanes_f {
	__m512 v;
};
struct lanes_i {
	__m512i v;
};
#define LF(x) ((struct lanes_f){x})
#define LI(x) ((struct lanes_i){x})

LANES_FN struct lanes_f lanes_f_zero(void)
{
	return LF(_mm512_setzero_ps());
}
LANES_FN struct lanes_f lanes_f_set1(float x)
{
	return LF(_mm512_set1_ps(x));
}
LANES_FN struct lanes_f lanes_f_load(const float *p)
{
	return LF(_mm512_loadu_ps(p));
}
LANES_FN void lanes_f_store(float *p, struct lanes_f a)
{
	_mm512_storeu_ps(p, a.v);
}
LANES_FN struct lanes_f lanes_f_load_n(const float *p, int n)
{
	return LF(_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p));
}
LANES_FN void lanes_f_store_n(float *p, struct lanes_f a, int n)
{
	_mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), a.v);
}
LANES_FN struct lanes_f lanes_f_load_f16(const uint16_t *p)
{
	return LF(_mm512_cvtph_ps(_mm256_loadu_si256((const void *)p)));
}
LANES_FN struct lanes_f lanes_f_load_bf16(const uint16_t *p)
{
	return LF(_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)p)), 16)));
}
LANES_FN void lanes_f_store_f16(uint16_t *p, struct lanes_f a)
{
	_mm256_storeu_si256((void *)p, _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
LANES_FN struct lanes_f lanes_f_add(struct lanes_f a, struct lanes_f b)
{
	return LF(_mm512_add_ps(a.v, b.v));
}
LANES_FN struct lanes_f lanes_f_sub(struct lanes_f a, struct lanes_f b)
{
	return LF(_mm512_sub_ps(a.v, b.v));
}
LANES_FN struct lanes_f lanes_f_mul(struct lanes_f a, struct lanes_f b)
{
	return LF(_mm512_mul_ps(a.v, b.v));
}
LANES_FN struct lanes_f lanes_f_div(struct lanes_f a, struct lanes_f b)
{
	return LF(_mm512_div_ps(a.v, b.v));
}
LANES_FN struct lanes_f lanes_f_sqrt(struct lanes_f a)
{
	return LF(_mm512_sqrt_ps(a.v));
}
LANES_FN struct lanes_f lanes_f_fma(struct lanes_f a, struct lanes_f b, struct lanes_f c)
{
	return LF(_mm512_fmadd_ps(a.v, b.v, c.v));
}
LANES_FN struct lanes_f lanes_f_max(struct lanes_f a, struct lanes_f b)
{
	return LF(_mm512_max_ps(a.v, b.v));
}
LANES_FN struct lanes_f lanes_f_min(struct lanes_f a, struct lanes_f b)
{
	return LF(_mm512_min_ps(a.v, b.v));
}
LANES_FN struct lanes_f lanes_f_abs(struct lanes_f a)
{
	return LF(_mm512_abs_ps(a.v));
}
LANES_FN struct lanes_f lanes_f_round(struct lanes_f a)
{
	return LF(_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
/* a < b ? yes : no, lane by lane */
LANES_FN struct lanes_f lanes_f_if_less(struct lanes_f a, struct lanes_f b, struct lanes_f yes, struct lanes_f no)
{
	return LF(_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ), no.v, yes.v));
}
LANES_FN struct lanes_f lanes_f_from_i(struct lanes_i a)
{
	return LF(_mm512_cvtepi32_ps(a.v));
}
LANES_FN struct lanes_i lanes_i_from_f(struct lanes_f a)
{
	return LI(_mm512_cvtps_epi32(a.v));
}
LANES_FN struct lanes_f lanes_f_bits(struct lanes_i a)
{
	return LF(_mm512_castsi512_ps(a.v));
}
LANES_FN struct lanes_i lanes_i_bits(struct lanes_f a)
{
	return LI(_mm512_castps_si512(a.v));
}
LANES_FN struct lanes_i lanes_i_set1(int32_t x)
{
	return LI(_mm512_set1_epi32(x));
}
LANES_FN struct lanes_i lanes_i_load(const int32_t *p)
{
	return LI(_mm512_loadu_si512((const void *)p));
}
LANES_FN void lanes_i_store(int32_t *p, struct lanes_i a)
{
	_mm512_storeu_si512((void *)p, a.v);
}
LANES_FN struct lanes_i lanes_i_load_u8(const uint8_t *p)
{
	return LI(_mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)p)));
}
LANES_FN struct lanes_i lanes_i_load_i8(const int8_t *p)
{
	return LI(_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)p)));
}
LANES_FN struct lanes_i lanes_i_add(struct lanes_i a, struct lanes_i b)
{
	return LI(_mm512_add_epi32(a.v, b.v));
}
LANES_FN struct lanes_i lanes_i_sub(struct lanes_i a, struct lanes_i b)
{
	return LI(_mm512_sub_epi32(a.v, b.v));
}
LANES_FN struct lanes_i lanes_i_mul(struct lanes_i a, struct lanes_i b)
{
	return LI(_mm512_mullo_epi32(a.v, b.v));
}
LANES_FN struct lanes_i lanes_i_and(struct lanes_i a, struct lanes_i b)
{
	return LI(_mm512_and_si512(a.v, b.v));
}
LANES_FN struct lanes_i lanes_i_or(struct lanes_i a, struct lanes_i b)
{
	return LI(_mm512_or_si512(a.v, b.v));
}
LANES_FN struct lanes_i lanes_i_xor(struct lanes_i a, struct lanes_i b)
{
	return LI(_mm512_xor_si512(a.v, b.v));
}
LANES_FN struct lanes_i lanes_i_shift_left(struct lanes_i a, int n)
{
	return LI(_mm512_slli_epi32(a.v, (unsigned)n));
}
LANES_FN struct lanes_i lanes_i_shift_right(struct lanes_i a, int n)
{
	return LI(_mm512_srli_epi32(a.v, (unsigned)n));
}
/* The low 16 bits of each lane. */
LANES_FN void lanes_i_store_u16(uint16_t *p, struct lanes_i a)
{
	_mm256_storeu_si256((void *)p, _mm512_cvtepi32_epi16(a.v));
}
/* Values must be in -128..127. */
LANES_FN void lanes_i_store_i8(int8_t *p, struct lanes_i a)
{
	_mm_storeu_si128((void *)p, _mm512_cvtsepi32_epi8(a.v));
}

LANES_FN float lanes_f_sum(struct lanes_f a)
{
	__m256 h = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
	__m128 s = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));

	s = _mm_add_ps(s, _mm_movehl_ps(s, s));
	return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}
/* For lanes that are not NaN. */
LANES_FN float lanes_f_max_over(struct lanes_f a)
{
	__m256 h = _mm256_max_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
	__m128 s = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));

	s = _mm_max_ps(s, _mm_movehl_ps(s, s));
	return _mm_cvtss_f32(_mm_max_ss(s, _mm_shuffle_ps(s, s, 1)));
}

#elif defined(ISA_AVX2)

struct lanes_f {
	__m256 lo, hi;
};
struct lanes_i {
	__m256i lo, hi;
};
#define LF(a, b) ((struct lanes_f){a, b})
#define LI(a, b) ((struct lanes_i){a, b})

LANES_FN struct lanes_f lanes_f_zero(void)
{
	return LF(_mm256_setzero_ps(), _mm256_setzero_ps());
}
LANES_FN struct lanes_f lanes_f_set1(float x)
{
	return LF(_mm256_set1_ps(x), _mm256_set1_ps(x));
}
LANES_FN struct lanes_f lanes_f_load(const float *p)
{
	return LF(_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8));
}
LANES_FN void lanes_f_store(float *p, struct lanes_f a)
{
	_mm256_storeu_ps(p, a.lo);
	_mm256_storeu_ps(p + 8, a.hi);
}
LANES_FN struct lanes_f lanes_f_load_n(const float *p, int n)
{
	float t[LANES] = {0};

	memcpy(t, p, (size_t)n * sizeof(float));
	return lanes_f_load(t);
}
LANES_FN void lanes_f_store_n(float *p, struct lanes_f a, int n)
{
	float t[LANES];

	lanes_f_store(t, a);
	memcpy(p, t, (size_t)n * sizeof(float));
}
LANES_FN struct lanes_f lanes_f_load_f16(const uint16_t *p)
{
	return LF(_mm256_cvtph_ps(_mm_loadu_si128((const void *)p)), _mm256_cvtph_ps(_mm_loadu_si128((const void *)(p + 8))));
}
LANES_FN struct lanes_f lanes_f_load_bf16(const uint16_t *p)
{
	__m256i lo = _mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)p));
	__m256i hi = _mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)(p + 8)));

	return LF(_mm256_castsi256_ps(_mm256_slli_epi32(lo, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(hi, 16)));
}
LANES_FN void lanes_f_store_f16(uint16_t *p, struct lanes_f a)
{
	_mm_storeu_si128((void *)p, _mm256_cvtps_ph(a.lo, _MM_FROUND_TO_NEAREST_INT));
	_mm_storeu_si128((void *)(p + 8), _mm256_cvtps_ph(a.hi, _MM_FROUND_TO_NEAREST_INT));
}
LANES_FN struct lanes_f lanes_f_add(struct lanes_f a, struct lanes_f b)
{
	return LF(_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi));
}
LANES_FN struct lanes_f lanes_f_sub(struct lanes_f a, struct lanes_f b)
{
	return LF(_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi));
}
LANES_FN struct lanes_f lanes_f_mul(struct lanes_f a, struct lanes_f b)
{
	return LF(_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi));
}
LANES_FN struct lanes_f lanes_f_div(struct lanes_f a, struct lanes_f b)
{
	return LF(_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi));
}
LANES_FN struct lanes_f lanes_f_sqrt(struct lanes_f a)
{
	return LF(_mm256_sqrt_ps(a.lo), _mm256_sqrt_ps(a.hi));
}
LANES_FN struct lanes_f lanes_f_fma(struct lanes_f a, struct lanes_f b, struct lanes_f c)
{
	return LF(_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi));
}
LANES_FN struct lanes_f lanes_f_max(struct lanes_f a, struct lanes_f b)
{
	return LF(_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi));
}
LANES_FN struct lanes_f lanes_f_min(struct lanes_f a, struct lanes_f b)
{
	return LF(_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi));
}
LANES_FN struct lanes_f lanes_f_abs(struct lanes_f a)
{
	__m256 m = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));

	return LF(_mm256_and_ps(a.lo, m), _mm256_and_ps(a.hi, m));
}
LANES_FN struct lanes_f lanes_f_round(struct lanes_f a)
{
	return LF(_mm256_round_ps(a.lo, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
	          _mm256_round_ps(a.hi, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
LANES_FN struct lanes_f lanes_f_if_less(struct lanes_f a, struct lanes_f b, struct lanes_f yes, struct lanes_f no)
{
	return LF(_mm256_blendv_ps(no.lo, yes.lo, _mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ)),
	          _mm256_blendv_ps(no.hi, yes.hi, _mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ)));
}
LANES_FN struct lanes_f lanes_f_from_i(struct lanes_i a)
{
	return LF(_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi));
}
LANES_FN struct lanes_i lanes_i_from_f(struct lanes_f a)
{
	return LI(_mm256_cvtps_epi32(a.lo), _mm256_cvtps_epi32(a.hi));
}
LANES_FN struct lanes_f lanes_f_bits(struct lanes_i a)
{
	return LF(_mm256_castsi256_ps(a.lo), _mm256_castsi256_ps(a.hi));
}
LANES_FN struct lanes_i lanes_i_bits(struct lanes_f a)
{
	return LI(_mm256_castps_si256(a.lo), _mm256_castps_si256(a.hi));
}
LANES_FN struct lanes_i lanes_i_set1(int32_t x)
{
	return LI(_mm256_set1_epi32(x), _mm256_set1_epi32(x));
}
LANES_FN struct lanes_i lanes_i_load(const int32_t *p)
{
	return LI(_mm256_loadu_si256((const void *)p), _mm256_loadu_si256((const void *)(p + 8)));
}
LANES_FN void lanes_i_store(int32_t *p, struct lanes_i a)
{
	_mm256_storeu_si256((void *)p, a.lo);
	_mm256_storeu_si256((void *)(p + 8), a.hi);
}
LANES_FN struct lanes_i lanes_i_load_u8(const uint8_t *p)
{
	return LI(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)p)),
	          _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)(p + 8))));
}
LANES_FN struct lanes_i lanes_i_load_i8(const int8_t *p)
{
	return LI(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)p)),
	          _mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)(p + 8))));
}
LANES_FN struct lanes_i lanes_i_add(struct lanes_i a, struct lanes_i b)
{
	return LI(_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi));
}
LANES_FN struct lanes_i lanes_i_sub(struct lanes_i a, struct lanes_i b)
{
	return LI(_mm256_sub_epi32(a.lo, b.lo), _mm256_sub_epi32(a.hi, b.hi));
}
LANES_FN struct lanes_i lanes_i_mul(struct lanes_i a, struct lanes_i b)
{
	return LI(_mm256_mullo_epi32(a.lo, b.lo), _mm256_mullo_epi32(a.hi, b.hi));
}
LANES_FN struct lanes_i lanes_i_and(struct lanes_i a, struct lanes_i b)
{
	return LI(_mm256_and_si256(a.lo, b.lo), _mm256_and_si256(a.hi, b.hi));
}
LANES_FN struct lanes_i lanes_i_or(struct lanes_i a, struct lanes_i b)
{
	return LI(_mm256_or_si256(a.lo, b.lo), _mm256_or_si256(a.hi, b.hi));
}
LANES_FN struct lanes_i lanes_i_xor(struct lanes_i a, struct lanes_i b)
{
	return LI(_mm256_xor_si256(a.lo, b.lo), _mm256_xor_si256(a.hi, b.hi));
}
LANES_FN struct lanes_i lanes_i_shift_left(struct lanes_i a, int n)
{
	return LI(_mm256_slli_epi32(a.lo, n), _mm256_slli_epi32(a.hi, n));
}
LANES_FN struct lanes_i lanes_i_shift_right(struct lanes_i a, int n)
{
	return LI(_mm256_srli_epi32(a.lo, n), _mm256_srli_epi32(a.hi, n));
}
LANES_FN void lanes_i_store_u16(uint16_t *p, struct lanes_i a)
{
	__m256i m = _mm256_set1_epi32(0xffff);
	__m256i s = _mm256_packus_epi32(_mm256_and_si256(a.lo, m), _mm256_and_si256(a.hi, m));

	_mm256_storeu_si256((void *)p, _mm256_permute4x64_epi64(s, 0xd8));
}
LANES_FN void lanes_i_store_i8(int8_t *p, struct lanes_i a)
{
	__m256i s = _mm256_permute4x64_epi64(_mm256_packs_epi32(a.lo, a.hi), 0xd8);

	_mm_storeu_si128((void *)p, _mm_packs_epi16(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1)));
}
LANES_FN float lanes_f_sum(struct lanes_f a)
{
	__m256 h = _mm256_add_ps(a.lo, a.hi);
	__m128 s = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));

	s = _mm_add_ps(s, _mm_movehl_ps(s, s));
	return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}
/* For lanes that are not NaN. */
LANES_FN float lanes_f_max_over(struct lanes_f a)
{
	__m256 h = _mm256_max_ps(a.lo, a.hi);
	__m128 s = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));

	s = _mm_max_ps(s, _mm_movehl_ps(s, s));
	return _mm_cvtss_f32(_mm_max_ss(s, _mm_shuffle_ps(s, s, 1)));
}

#else /* generic */

struct lanes_f {
	float v[LANES];
};
struct lanes_i {
	int32_t v[LANES];
};
#define LANES_EACH(type, expr)                                                                                                 \
	do {                                                                                                                       \
		struct type r_;                                                                                                        \
		for (int i = 0; i < LANES; i++)                                                                                        \
			r_.v[i] = (expr);                                                                                                  \
		return r_;                                                                                                             \
	} while (0)

LANES_FN float lanes_float_of_bits(uint32_t u)
{
	float f;

	memcpy(&f, &u, sizeof(f));
	return f;
}
LANES_FN uint32_t lanes_bits_of_float(float f)
{
	uint32_t u;

	memcpy(&u, &f, sizeof(u));
	return u;
}
/* IEEE half to single: shift the fields into place and correct the exponent with an exact multiplication, which also
 * normalises subnormals; infinities and NaN keep their class. */
LANES_FN float lanes_float_of_f16(uint16_t h)
{
	uint32_t sign = (uint32_t)(h & 0x8000) << 16, rest = h & 0x7fff;
	uint32_t bits = rest >= 0x7c00 ? 0x7f800000 | (rest & 0x3ff) << 13 | (rest > 0x7c00 ? 0x400000 : 0)
	                               : lanes_bits_of_float(lanes_float_of_bits(rest << 13) * 0x1p112f);

	return lanes_float_of_bits(sign | bits);
}
/* Single to half, round to nearest even. */
LANES_FN uint16_t lanes_f16_of_float(float f)
{
	uint32_t u = lanes_bits_of_float(f), sign = u >> 16 & 0x8000, a = u & 0x7fffffff;

	if (a > 0x7f800000)
		return (uint16_t)(sign | 0x7e00 | (a >> 13 & 0x3ff));
	if (a >= 0x477ff000)
		return (uint16_t)(sign | 0x7c00);
	if (a < 0x38800000) /* below 2^-14: adding 0.5 leaves the rounded multiple of 2^-24 in the low bits */
		return (uint16_t)(sign | (lanes_bits_of_float(lanes_float_of_bits(a) + 0.5f) - 0x3f000000));
	return (uint16_t)(sign | ((a - 0x38000000 + 0xfff + (a >> 13 & 1)) >> 13));
}

LANES_FN struct lanes_f lanes_f_zero(void)
{
	return (struct lanes_f){{0}};
}
LANES_FN struct lanes_f lanes_f_set1(float x)
{
	LANES_EACH(lanes_f, x);
}
LANES_FN struct lanes_f lanes_f_load(const float *p)
{
	LANES_EACH(lanes_f, p[i]);
}
LANES_FN void lanes_f_store(float *p, struct lanes_f a)
{
	memcpy(p, a.v, sizeof(a.v));
}
LANES_FN struct lanes_f lanes_f_load_n(const float *p, int n)
{
	LANES_EACH(lanes_f, i < n ? p[i] : 0);
}
LANES_FN void lanes_f_store_n(float *p, struct lanes_f a, int n)
{
	memcpy(p, a.v, (size_t)n * sizeof(float));
}
LANES_FN struct lanes_f lanes_f_load_f16(const uint16_t *p)
{
	LANES_EACH(lanes_f, lanes_float_of_f16(p[i]));
}
LANES_FN struct lanes_f lanes_f_load_bf16(const uint16_t *p)
{
	LANES_EACH(lanes_f, lanes_float_of_bits((uint32_t)p[i] << 16));
}
LANES_FN void lanes_f_store_f16(uint16_t *p, struct lanes_f a)
{
	for (int i = 0; i < LANES; i++)
		p[i] = lanes_f16_of_float(a.v[i]);
}
LANES_FN struct lanes_f lanes_f_add(struct lanes_f a, struct lanes_f b)
{
	LANES_EACH(lanes_f, a.v[i] + b.v[i]);
}
LANES_FN struct lanes_f lanes_f_sub(struct lanes_f a, struct lanes_f b)
{
	LANES_EACH(lanes_f, a.v[i] - b.v[i]);
}
LANES_FN struct lanes_f lanes_f_mul(struct lanes_f a, struct lanes_f b)
{
	LANES_EACH(lanes_f, a.v[i] * b.v[i]);
}
LANES_FN struct lanes_f lanes_f_div(struct lanes_f a, struct lanes_f b)
{
	LANES_EACH(lanes_f, a.v[i] / b.v[i]);
}
LANES_FN struct lanes_f lanes_f_sqrt(struct lanes_f a)
{
	LANES_EACH(lanes_f, sqrtf(a.v[i]));
}
LANES_FN struct lanes_f lanes_f_fma(struct lanes_f a, struct lanes_f b, struct lanes_f c)
{
	LANES_EACH(lanes_f, fmaf(a.v[i], b.v[i], c.v[i]));
}
LANES_FN struct lanes_f lanes_f_max(struct lanes_f a, struct lanes_f b)
{
	LANES_EACH(lanes_f, a.v[i] > b.v[i] ? a.v[i] : b.v[i]);
}
LANES_FN struct lanes_f lanes_f_min(struct lanes_f a, struct lanes_f b)
{
	LANES_EACH(lanes_f, a.v[i] < b.v[i] ? a.v[i] : b.v[i]);
}
LANES_FN struct lanes_f lanes_f_abs(struct lanes_f a)
{
	LANES_EACH(lanes_f, fabsf(a.v[i]));
}
LANES_FN struct lanes_f lanes_f_round(struct lanes_f a)
{
	LANES_EACH(lanes_f, nearbyintf(a.v[i]));
}
LANES_FN struct lanes_f lanes_f_if_less(struct lanes_f a, struct lanes_f b, struct lanes_f yes, struct lanes_f no)
{
	LANES_EACH(lanes_f, a.v[i] < b.v[i] ? yes.v[i] : no.v[i]);
}
LANES_FN struct lanes_f lanes_f_from_i(struct lanes_i a)
{
	LANES_EACH(lanes_f, (float)a.v[i]);
}
/* What does not fit (and NaN) becomes INT32_MIN, as on x86. */
LANES_FN struct lanes_i lanes_i_from_f(struct lanes_f a)
{
	LANES_EACH(lanes_i, a.v[i] >= -0x1p31f && a.v[i] < 0x1p31f ? (int32_t)nearbyintf(a.v[i]) : INT32_MIN);
}
LANES_FN struct lanes_f lanes_f_bits(struct lanes_i a)
{
	LANES_EACH(lanes_f, lanes_float_of_bits((uint32_t)a.v[i]));
}
LANES_FN struct lanes_i lanes_i_bits(struct lanes_f a)
{
	LANES_EACH(lanes_i, (int32_t)lanes_bits_of_float(a.v[i]));
}
LANES_FN struct lanes_i lanes_i_set1(int32_t x)
{
	LANES_EACH(lanes_i, x);
}
LANES_FN struct lanes_i lanes_i_load(const int32_t *p)
{
	LANES_EACH(lanes_i, p[i]);
}
LANES_FN void lanes_i_store(int32_t *p, struct lanes_i a)
{
	memcpy(p, a.v, sizeof(a.v));
}
LANES_FN struct lanes_i lanes_i_load_u8(const uint8_t *p)
{
	LANES_EACH(lanes_i, p[i]);
}
LANES_FN struct lanes_i lanes_i_load_i8(const int8_t *p)
{
	LANES_EACH(lanes_i, p[i]);
}
LANES_FN struct lanes_i lanes_i_add(struct lanes_i a, struct lanes_i b)
{
	LANES_EACH(lanes_i, (int32_t)((uint32_t)a.v[i] + (uint32_t)b.v[i]));
}
LANES_FN struct lanes_i lanes_i_sub(struct lanes_i a, struct lanes_i b)
{
	LANES_EACH(lanes_i, (int32_t)((uint32_t)a.v[i] - (uint32_t)b.v[i]));
}
LANES_FN struct lanes_i lanes_i_mul(struct lanes_i a, struct lanes_i b)
{
	LANES_EACH(lanes_i, (int32_t)((uint32_t)a.v[i] * (uint32_t)b.v[i]));
}
LANES_FN struct lanes_i lanes_i_and(struct lanes_i a, struct lanes_i b)
{
	LANES_EACH(lanes_i, a.v[i] & b.v[i]);
}
LANES_FN struct lanes_i lanes_i_or(struct lanes_i a, struct lanes_i b)
{
	LANES_EACH(lanes_i, a.v[i] | b.v[i]);
}
LANES_FN struct lanes_i lanes_i_xor(struct lanes_i a, struct lanes_i b)
{
	LANES_EACH(lanes_i, a.v[i] ^ b.v[i]);
}
LANES_FN struct lanes_i lanes_i_shift_left(struct lanes_i a, int n)
{
	LANES_EACH(lanes_i, (int32_t)((uint32_t)a.v[i] << n));
}
LANES_FN struct lanes_i lanes_i_shift_right(struct lanes_i a, int n)
{
	LANES_EACH(lanes_i, (int32_t)((uint32_t)a.v[i] >> n));
}
LANES_FN void lanes_i_store_u16(uint16_t *p, struct lanes_i a)
{
	for (int i = 0; i < LANES; i++)
		p[i] = (uint16_t)a.v[i];
}
LANES_FN void lanes_i_store_i8(int8_t *p, struct lanes_i a)
{
	for (int i = 0; i < LANES; i++)
		p[i] = (int8_t)a.v[i];
}
LANES_FN float lanes_f_sum(struct lanes_f a)
{
	for (int half = LANES / 2; half > 0; half /= 2)
		for (int i = 0; i < half; i++)
			a.v[i] += a.v[i + half];
	return a.v[0];
}
LANES_FN float lanes_f_max_over(struct lanes_f a)
{
	for (int half = LANES / 2; half > 0; half /= 2)
		for (int i = 0; i < half; i++)
			a.v[i] = a.v[i] > a.v[i + half] ? a.v[i] : a.v[i + half];
	return a.v[0];
}

#endif

/* clang-format on */

/* Round to nearest even; a NaN stays one (its quiet bit is set so that cutting its low bits cannot make an infinity). */
LANES_FN void lanes_f_store_bf16(uint16_t *p, struct lanes_f a)
{
	struct lanes_i u = lanes_i_bits(a), one = lanes_i_set1(1);
	struct lanes_i odd = lanes_i_and(lanes_i_shift_right(u, 16), one);
	struct lanes_i rounded = lanes_i_add(u, lanes_i_add(odd, lanes_i_set1(0x7fff)));
	struct lanes_i quiet = lanes_i_or(u, lanes_i_set1(0x400000));
	/* -1 < |a| for everything but NaN */
	struct lanes_f r = lanes_f_if_less(lanes_f_set1(-1), lanes_f_abs(a), lanes_f_bits(rounded), lanes_f_bits(quiet));

	lanes_i_store_u16(p, lanes_i_shift_right(lanes_i_bits(r), 16));
}

#endif
