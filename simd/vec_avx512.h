/* SPDX-License-Identifier: MIT */
/* The vector vocabulary (see vec_scalar.h) on AVX-512 F, BW, DQ and VL. */
#ifndef AT_VEC_H
#define AT_VEC_H

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "../lib/half.h"

#define AT_SIMD_NAME "avx512"
#define AT_SIMD_TABLE at_simd_avx512

#define VL 16
#define NV 2
#define TILE 12 /* 24 accumulators of 32 registers */
#define STRIP 4

#define INLINE static inline __attribute__((always_inline))

typedef __m512 V;
typedef __mmask16 VM;

INLINE V vset(float x)
{
    return _mm512_set1_ps(x);
}
INLINE V vzero(void)
{
    return _mm512_setzero_ps();
}
INLINE V vload(const float *p)
{
    return _mm512_loadu_ps(p);
}
INLINE void vstore(float *p, V v)
{
    _mm512_storeu_ps(p, v);
}
INLINE __mmask16 first(int n)
{
    return (__mmask16)((1u << n) - 1);
}
INLINE V vload_n(const float *p, int n)
{
    return _mm512_maskz_loadu_ps(first(n), p);
}
INLINE void vstore_n(float *p, V v, int n)
{
    _mm512_mask_storeu_ps(p, first(n), v);
}
INLINE V vadd(V a, V b)
{
    return _mm512_add_ps(a, b);
}
INLINE V vsub(V a, V b)
{
    return _mm512_sub_ps(a, b);
}
INLINE V vmul(V a, V b)
{
    return _mm512_mul_ps(a, b);
}
INLINE V vdiv(V a, V b)
{
    return _mm512_div_ps(a, b);
}
INLINE V vsqrt(V a)
{
    return _mm512_sqrt_ps(a);
}
INLINE V vfma(V a, V b, V c)
{
    return _mm512_fmadd_ps(a, b, c);
}
INLINE V vfnma(V a, V b, V c)
{
    return _mm512_fnmadd_ps(a, b, c);
}
INLINE VM vgt(V a, V b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ);
}
INLINE VM veq(V a, V b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ);
}
INLINE V vsel(VM m, V a, V b)
{
    return _mm512_mask_blend_ps(m, b, a);
}
INLINE V vmax(V a, V b)
{
    return _mm512_max_ps(a, b);
}
INLINE V vmin(V a, V b)
{
    return _mm512_min_ps(a, b);
}
INLINE int vany(VM m)
{
    return m != 0;
}
INLINE VM vor_m(VM a, VM b)
{
    return a | b;
}
INLINE V vbits(uint32_t bits)
{
    return _mm512_castsi512_ps(_mm512_set1_epi32((int)bits));
}
INLINE V vor(V a, V b)
{
    return _mm512_or_ps(a, b);
}
INLINE V vand(V a, V b)
{
    return _mm512_and_ps(a, b);
}
INLINE VM veq_bits(V a, V b)
{
    return _mm512_cmpeq_epi32_mask(_mm512_castps_si512(a), _mm512_castps_si512(b));
}
INLINE V vshl23(V a)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(a), 23));
}
INLINE V vswap(V a)
{
    return _mm512_permute_ps(a, 0xb1);
}
INLINE float vsum(V v)
{
    __m256 s = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 h = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    h = _mm_add_ps(h, _mm_movehl_ps(h, h));
    return _mm_cvtss_f32(_mm_add_ss(h, _mm_movehdup_ps(h)));
}
INLINE float vtop(V v)
{
    __m256 s = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 h = _mm_max_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    h = _mm_max_ps(h, _mm_movehl_ps(h, h));
    return _mm_cvtss_f32(_mm_max_ss(h, _mm_movehdup_ps(h)));
}
/* 4 x 4 within each of the four 128-bit parts, of each group of four vectors. */
INLINE void transpose_parts(V t[VL])
{
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        V a = _mm512_unpacklo_ps(t[i], t[i + 1]), b = _mm512_unpackhi_ps(t[i], t[i + 1]);
        V c = _mm512_unpacklo_ps(t[i + 2], t[i + 3]), d = _mm512_unpackhi_ps(t[i + 2], t[i + 3]);
        t[i + 0] = _mm512_shuffle_ps(a, c, 0x44);
        t[i + 1] = _mm512_shuffle_ps(a, c, 0xee);
        t[i + 2] = _mm512_shuffle_ps(b, d, 0x44);
        t[i + 3] = _mm512_shuffle_ps(b, d, 0xee);
    }
}
INLINE void vtranspose(V t[VL])
{
    transpose_parts(t);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) { /* now 4 x 4 over the parts */
        V a = _mm512_shuffle_f32x4(t[i], t[i + 4], 0x44);
        V b = _mm512_shuffle_f32x4(t[i], t[i + 4], 0xee);
        V c = _mm512_shuffle_f32x4(t[i + 8], t[i + 12], 0x44);
        V d = _mm512_shuffle_f32x4(t[i + 8], t[i + 12], 0xee);
        t[i] = _mm512_shuffle_f32x4(a, c, 0x88);
        t[i + 4] = _mm512_shuffle_f32x4(a, c, 0xdd);
        t[i + 8] = _mm512_shuffle_f32x4(b, d, 0x88);
        t[i + 12] = _mm512_shuffle_f32x4(b, d, 0xdd);
    }
}
/* Sums over each part of four vectors: part p, element e is the sum of part p of t[e]. */
INLINE V part_sums(const V *t)
{
    V a = _mm512_add_ps(_mm512_unpacklo_ps(t[0], t[1]), _mm512_unpackhi_ps(t[0], t[1]));
    V b = _mm512_add_ps(_mm512_unpacklo_ps(t[2], t[3]), _mm512_unpackhi_ps(t[2], t[3]));
    return _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x44), _mm512_shuffle_ps(a, b, 0xee));
}
INLINE V vsums(V t[VL])
{
    V a = part_sums(t), b = part_sums(t + 4), c = part_sums(t + 8), d = part_sums(t + 12);
    V ab = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
    V cd = _mm512_add_ps(_mm512_shuffle_f32x4(c, d, 0x88), _mm512_shuffle_f32x4(c, d, 0xdd));
    return _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
}
INLINE V vload_f16(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}
INLINE V vload_bf16(const uint16_t *p)
{
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
INLINE void vstore_f16(uint16_t *p, V v)
{
    _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
INLINE void vstore_bf16(uint16_t *p, V v)
{
    __m512i bits = _mm512_castps_si512(v);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i r = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    r = _mm512_mask_or_epi32(r, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), bits,
                             _mm512_set1_epi32(0x400000));
    _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtepi32_epi16(_mm512_srli_epi32(r, 16)));
}
INLINE V vload_i8(const int8_t *p)
{
    return _mm512_cvtepi32_ps(
        _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)));
}
/* The 16 values that a block can have are a vector: a nibble looks its value up. */
INLINE void vload_q4(V *w, const uint8_t *q, V d, V m)
{
    V steps = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    V values = vfma(steps, d, m);
    __m512i b = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)q));
    w[0] = _mm512_permutexvar_ps(b, values); /* which reads four bits of each index */
    w[1] = _mm512_permutexvar_ps(_mm512_srli_epi32(b, 4), values);
}
INLINE void vload_i4(V *w, const uint8_t *q)
{
    vload_q4(w, q, vset(1.0f), vset(-8.0f));
}
INLINE V vset_f16(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_set1_epi16((short)*p));
}
/* Two f16 in memory, each in all lanes. */
INLINE void vset_f16_pair(const uint16_t *p, V *a, V *b)
{
    int32_t both;
    memcpy(&both, p, sizeof both);
    V ab = _mm512_cvtph_ps(_mm256_set1_epi32(both));
    *a = _mm512_moveldup_ps(ab);
    *b = _mm512_movehdup_ps(ab);
}
INLINE void vprefetch(const void *p)
{
    _mm_prefetch((const char *)p, _MM_HINT_T0);
}

/* ---- integers ---- */

#define FEW 8
#define INT_FEW 12
#define NIBBLE_ONE 1.0f
#define BYTE_ONE 0x1p24f /* a byte is left at the top of its lane */
#define VQ_HAS_DOT

typedef __m512i VQ;

INLINE VQ vq_load(const void *p)
{
    return _mm512_loadu_si512(p);
}
INLINE VQ vq_set(int32_t x)
{
    return _mm512_set1_epi32(x);
}
INLINE VQ vq_set_bytes(const int8_t *p)
{
    int32_t x;
    memcpy(&x, p, sizeof x);
    return vq_set(x);
}
INLINE VQ vq_low(VQ a)
{
    return _mm512_and_si512(a, _mm512_set1_epi8(15));
}
INLINE VQ vq_high(VQ a)
{
    return vq_low(_mm512_srli_epi16(a, 4));
}
INLINE V vq_float(VQ a)
{
    return _mm512_cvtepi32_ps(a);
}
INLINE V vq_nibble(VQ a, int j) /* looks its value up: the permutation reads four bits of a lane */
{
    V values = _mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7);
    return _mm512_permutexvar_ps(j ? _mm512_srli_epi32(a, (unsigned)(4 * j)) : a, values);
}
INLINE V vq_byte(VQ a, int j)
{
    __m512i to = _mm512_add_epi32(_mm512_set1_epi32(j << 24 | 0x808080),
                                  _mm512_setr4_epi32(0, 4 << 24, 8 << 24, 12 << 24));
    return _mm512_cvtepi32_ps(_mm512_shuffle_epi8(a, to));
}
INLINE int vq_bias(int dot)
{
    return dot ? 128 : 0;
}
INLINE VQ add_pairs(VQ sum, __m512i pairs)
{
    return _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
}
/* By its name to the assembler: the rest of this code runs without it. */
INLINE VQ vnni(VQ sum, VQ a, VQ b)
{
#ifdef AT_SIMD_EMULATED /* t/simde */
    return _mm512_dpbusd_epi32(sum, a, b);
#else
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
    return sum;
#endif
}
INLINE VQ vq_dot_u4(VQ sum, VQ a, VQ b, int dot)
{
    return dot ? vnni(sum, a, b) : add_pairs(sum, _mm512_maddubs_epi16(a, b));
}
INLINE VQ vq_dot_s8(VQ sum, VQ a, VQ b, int dot)
{
    if (dot)
        return vnni(sum, _mm512_xor_si512(a, _mm512_set1_epi8(-128)), b);
    b = _mm512_mask_sub_epi8(b, _mm512_movepi8_mask(a), _mm512_setzero_si512(), b);
    return add_pairs(sum, _mm512_maddubs_epi16(_mm512_abs_epi8(a), b));
}

#endif
