/* SPDX-License-Identifier: MIT */
/* The vector vocabulary (see vec_scalar.h) on AVX2 with FMA and F16C. */
#ifndef AT_VEC_H
#define AT_VEC_H

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "../lib/half.h"

#define AT_SIMD_NAME "avx2"
#define AT_SIMD_TABLE at_simd_avx2

#define VL 8
#define NV 2
#define TILE 6 /* 12 accumulators, 2 rows' vectors, 1 broadcast: 15 of 16 registers */
#define STRIP 2

#define INLINE static inline __attribute__((always_inline))

typedef __m256 V;
typedef __m256 VM;

INLINE V vset(float x)
{
    return _mm256_set1_ps(x);
}
INLINE V vzero(void)
{
    return _mm256_setzero_ps();
}
INLINE V vload(const float *p)
{
    return _mm256_loadu_ps(p);
}
INLINE void vstore(float *p, V v)
{
    _mm256_storeu_ps(p, v);
}
INLINE __m256i first(int n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
INLINE V vload_n(const float *p, int n)
{
    return _mm256_maskload_ps(p, first(n));
}
INLINE void vstore_n(float *p, V v, int n)
{
    _mm256_maskstore_ps(p, first(n), v);
}
INLINE V vadd(V a, V b)
{
    return _mm256_add_ps(a, b);
}
INLINE V vsub(V a, V b)
{
    return _mm256_sub_ps(a, b);
}
INLINE V vmul(V a, V b)
{
    return _mm256_mul_ps(a, b);
}
INLINE V vdiv(V a, V b)
{
    return _mm256_div_ps(a, b);
}
INLINE V vsqrt(V a)
{
    return _mm256_sqrt_ps(a);
}
INLINE V vfma(V a, V b, V c)
{
    return _mm256_fmadd_ps(a, b, c);
}
INLINE V vfnma(V a, V b, V c)
{
    return _mm256_fnmadd_ps(a, b, c);
}
INLINE VM vgt(V a, V b)
{
    return _mm256_cmp_ps(a, b, _CMP_GT_OQ);
}
INLINE VM veq(V a, V b)
{
    return _mm256_cmp_ps(a, b, _CMP_EQ_OQ);
}
INLINE V vsel(VM m, V a, V b)
{
    return _mm256_blendv_ps(b, a, m);
}
INLINE V vmax(V a, V b)
{
    return _mm256_max_ps(a, b);
}
INLINE V vmin(V a, V b)
{
    return _mm256_min_ps(a, b);
}
INLINE int vany(VM m)
{
    return _mm256_movemask_ps(m) != 0;
}
INLINE VM vor_m(VM a, VM b)
{
    return _mm256_or_ps(a, b);
}
INLINE V vbits(uint32_t bits)
{
    return _mm256_castsi256_ps(_mm256_set1_epi32((int)bits));
}
INLINE V vor(V a, V b)
{
    return _mm256_or_ps(a, b);
}
INLINE V vand(V a, V b)
{
    return _mm256_and_ps(a, b);
}
INLINE VM veq_bits(V a, V b)
{
    return _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_castps_si256(a), _mm256_castps_si256(b)));
}
INLINE V vshl23(V a)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(a), 23));
}
INLINE V vswap(V a)
{
    return _mm256_permute_ps(a, 0xb1);
}
INLINE float vsum(V v)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
INLINE float vtop(V v)
{
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}
INLINE void vtranspose(V t[VL])
{
    V a[8], b[8];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        a[2 * i] = _mm256_unpacklo_ps(t[2 * i], t[2 * i + 1]);
        a[2 * i + 1] = _mm256_unpackhi_ps(t[2 * i], t[2 * i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) { /* b[c]: column c of the rows 4i .. 4i+3, of both halves */
        b[4 * i + 0] = _mm256_shuffle_ps(a[4 * i], a[4 * i + 2], 0x44);
        b[4 * i + 1] = _mm256_shuffle_ps(a[4 * i], a[4 * i + 2], 0xee);
        b[4 * i + 2] = _mm256_shuffle_ps(a[4 * i + 1], a[4 * i + 3], 0x44);
        b[4 * i + 3] = _mm256_shuffle_ps(a[4 * i + 1], a[4 * i + 3], 0xee);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        t[i] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x20);
        t[i + 4] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x31);
    }
}
INLINE V vsums(V t[VL])
{
    V a = _mm256_hadd_ps(t[0], t[1]), b = _mm256_hadd_ps(t[2], t[3]);
    V c = _mm256_hadd_ps(t[4], t[5]), d = _mm256_hadd_ps(t[6], t[7]);
    a = _mm256_hadd_ps(a, b);
    c = _mm256_hadd_ps(c, d);
    return _mm256_add_ps(_mm256_permute2f128_ps(a, c, 0x20), _mm256_permute2f128_ps(a, c, 0x31));
}
INLINE V vload_f16(const uint16_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}
INLINE V vload_bf16(const uint16_t *p)
{
    __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
INLINE void vstore_f16(uint16_t *p, V v)
{
    _mm_storeu_si128((__m128i *)(void *)p, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
INLINE void vstore_bf16(uint16_t *p, V v)
{
    __m256i bits = _mm256_castps_si256(v);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i r = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    __m256i nan = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    r = _mm256_blendv_epi8(r, nan, _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q)));
    r = _mm256_srli_epi32(r, 16);
    r = _mm256_permute4x64_epi64(_mm256_packus_epi32(r, r), 0x08);
    _mm_storeu_si128((__m128i *)(void *)p, _mm256_castsi256_si128(r));
}
INLINE V vload_i8(const int8_t *p)
{
    __m128i b = _mm_loadl_epi64((const __m128i *)(const void *)p);
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(b));
}
INLINE void vload_q4(V *w, const uint8_t *q, V d, V m)
{
#pragma GCC unroll 2
    for (int e = 0; e < 16; e += VL) {
        __m256i b = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)(q + e)));
        __m256i low = _mm256_and_si256(b, _mm256_set1_epi32(15)), high = _mm256_srli_epi32(b, 4);
        w[e / VL] = vfma(_mm256_cvtepi32_ps(low), d, m);
        w[(e + 16) / VL] = vfma(_mm256_cvtepi32_ps(high), d, m);
    }
}
INLINE void vload_i4(V *w, const uint8_t *q)
{
    __m128i b = _mm_loadu_si128((const __m128i *)(const void *)q), low = _mm_set1_epi8(15);
#pragma GCC unroll 2
    for (int e = 0; e < 32; e += 16) {
        __m128i n = _mm_and_si128(e ? _mm_srli_epi16(b, 4) : b, low);
        n = _mm_sub_epi8(n, _mm_set1_epi8(8));
        w[e / VL] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(n));
        w[e / VL + 1] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_unpackhi_epi64(n, n)));
    }
}
INLINE V vset_f16(const uint16_t *p)
{
    return _mm256_cvtph_ps(_mm_set1_epi16((short)*p));
}
INLINE void vset_f16_pair(const uint16_t *p, V *a, V *b)
{
    *a = vset_f16(p);
    *b = vset_f16(p + 1);
}
INLINE void vprefetch(const void *p)
{
    _mm_prefetch((const char *)p, _MM_HINT_T0);
}

/* ---- integers ---- */

#define FEW 3
#define INT_FEW 4
#define NIBBLE_ONE 0x1p24f
#define BYTE_ONE 0x1p24f /* a byte is left at the top of its lane */
#define VQ_HAS_DOT

typedef __m256i VQ;

INLINE VQ vq_load(const void *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}
INLINE VQ vq_set(int32_t x)
{
    return _mm256_set1_epi32(x);
}
INLINE VQ vq_set_bytes(const int8_t *p)
{
    int32_t x;
    memcpy(&x, p, sizeof x);
    return vq_set(x);
}
INLINE VQ vq_low(VQ a)
{
    return _mm256_and_si256(a, _mm256_set1_epi8(15));
}
INLINE VQ vq_high(VQ a)
{
    return vq_low(_mm256_srli_epi16(a, 4));
}
INLINE V vq_float(VQ a)
{
    return _mm256_cvtepi32_ps(a);
}
INLINE V vq_byte(VQ a, int j)
{
    const int32_t from = j << 24 | 0x808080, next = 4 << 24;
    __m256i to = _mm256_setr_epi32(from, from + next, from + 2 * next, from + 3 * next, from,
                                   from + next, from + 2 * next, from + 3 * next);
    return _mm256_cvtepi32_ps(_mm256_shuffle_epi8(a, to));
}
INLINE V vq_nibble(VQ a, int j)
{
    VQ n = _mm256_sub_epi8(j % 2 ? vq_high(a) : vq_low(a), _mm256_set1_epi8(8));
    return vq_byte(n, j / 2);
}
INLINE int vq_bias(int dot)
{
    return dot ? 128 : 0;
}
INLINE VQ add_pairs(VQ sum, __m256i pairs)
{
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
/* By its name to the assembler: the rest of this code runs without it. */
INLINE VQ vnni(VQ sum, VQ a, VQ b)
{
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(a), "x"(b));
    return sum;
}
INLINE VQ vq_dot_u4(VQ sum, VQ a, VQ b, int dot)
{
    return dot ? vnni(sum, a, b) : add_pairs(sum, _mm256_maddubs_epi16(a, b));
}
INLINE VQ vq_dot_s8(VQ sum, VQ a, VQ b, int dot)
{
    if (dot)
        return vnni(sum, _mm256_xor_si256(a, _mm256_set1_epi8(-128)), b);
    return add_pairs(sum, _mm256_maddubs_epi16(_mm256_abs_epi8(a), _mm256_sign_epi8(b, a)));
}

#endif
