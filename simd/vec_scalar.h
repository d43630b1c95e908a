/* SPDX-License-Identifier: MIT */
/* The vector vocabulary in plain (GNU) C: four floats that any compiler knows how to add.  This
 * file also says what each name means; the other vec_*.h have the same names and meanings. */
#ifndef AT_VEC_H
#define AT_VEC_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "../lib/half.h"

#define AT_SIMD_NAME "scalar"
#define AT_SIMD_TABLE at_simd_scalar

#define VL 4    /* floats in a vector */
#define NV 2    /* vectors across a panel: rows_per_panel = NV * VL */
#define TILE 4  /* keys of the micro-kernel: TILE * NV accumulators stay in registers */
#define STRIP 2 /* vectors of channels that dots_accumulate keeps for each of 4 rows */

#define INLINE static inline __attribute__((always_inline))

typedef float V __attribute__((vector_size(16)));
typedef int32_t VI __attribute__((vector_size(16)));
typedef VI VM; /* all ones where true */

INLINE V vset(float x)
{
    return (V){x, x, x, x};
}
INLINE V vzero(void)
{
    return vset(0.0f);
}
INLINE V vload(const float *p)
{
    V v;
    memcpy(&v, p, sizeof v);
    return v;
}
INLINE void vstore(float *p, V v)
{
    memcpy(p, &v, sizeof v);
}
/* The first n < VL; the others are zero, and their memory is not touched. */
INLINE V vload_n(const float *p, int n)
{
    V v = vzero();
    for (int e = 0; e < n; e++)
        v[e] = p[e];
    return v;
}
INLINE void vstore_n(float *p, V v, int n)
{
    for (int e = 0; e < n; e++)
        p[e] = v[e];
}
INLINE V vadd(V a, V b)
{
    return a + b;
}
INLINE V vsub(V a, V b)
{
    return a - b;
}
INLINE V vmul(V a, V b)
{
    return a * b;
}
INLINE V vdiv(V a, V b)
{
    return a / b;
}
INLINE V vsqrt(V a)
{
    return (V){sqrtf(a[0]), sqrtf(a[1]), sqrtf(a[2]), sqrtf(a[3])};
}
INLINE V vfma(V a, V b, V c) /* a * b + c */
{
    return a * b + c;
}
INLINE V vfnma(V a, V b, V c) /* c - a * b */
{
    return c - a * b;
}
INLINE VM vgt(V a, V b)
{
    return a > b;
}
INLINE VM veq(V a, V b)
{
    return a == b;
}
INLINE V vsel(VM m, V a, V b) /* m ? a : b */
{
    return (V)(((VI)a & m) | ((VI)b & ~m));
}
INLINE V vmax(V a, V b) /* a NaN in b is returned; one in a may be lost */
{
    return vsel(vgt(a, b), a, b);
}
INLINE V vmin(V a, V b)
{
    return vsel(vgt(b, a), a, b);
}
INLINE int vany(VM m)
{
    return (m[0] | m[1] | m[2] | m[3]) != 0;
}
INLINE VM vor_m(VM a, VM b)
{
    return a | b;
}
INLINE V vbits(uint32_t bits) /* the float of these bits */
{
    return vset(at_float_from_bits(bits));
}
INLINE V vor(V a, V b) /* and, or of bits */
{
    return (V)((VI)a | (VI)b);
}
INLINE V vand(V a, V b)
{
    return (V)((VI)a & (VI)b);
}
INLINE VM veq_bits(V a, V b) /* equality of bits: -0 is not 0 */
{
    return (VI)a == (VI)b;
}
INLINE V vshl23(V a) /* the bits, 23 places up */
{
    return (V)((VI)a << 23);
}
INLINE V vswap(V a) /* neighbours change places */
{
    return (V){a[1], a[0], a[3], a[2]};
}
INLINE float vsum(V v)
{
    return (v[0] + v[1]) + (v[2] + v[3]);
}
INLINE float vtop(V v) /* the largest; NaN may be lost */
{
    float a = v[0] > v[1] ? v[0] : v[1], b = v[2] > v[3] ? v[2] : v[3];
    return a > b ? a : b;
}
INLINE void vtranspose(V t[VL]) /* t[i][j] <-> t[j][i] */
{
    for (int i = 0; i < VL; i++)
        for (int j = 0; j < i; j++) {
            float x = t[i][j];
            t[i][j] = t[j][i];
            t[j][i] = x;
        }
}
INLINE V vsums(V t[VL]) /* element i is the sum of t[i], added in the same order for every i */
{
    vtranspose(t);
    return (t[0] + t[1]) + (t[2] + t[3]);
}
INLINE V vload_f16(const uint16_t *p)
{
    return (V){at_half_to_float(p[0]), at_half_to_float(p[1]), at_half_to_float(p[2]),
               at_half_to_float(p[3])};
}
INLINE V vload_bf16(const uint16_t *p)
{
    return (V){at_bf16_to_float(p[0]), at_bf16_to_float(p[1]), at_bf16_to_float(p[2]),
               at_bf16_to_float(p[3])};
}
INLINE void vstore_f16(uint16_t *p, V v)
{
    for (int e = 0; e < VL; e++)
        p[e] = at_half_from_float(v[e]);
}
INLINE void vstore_bf16(uint16_t *p, V v)
{
    for (int e = 0; e < VL; e++)
        p[e] = at_bf16_from_float(v[e]);
}
INLINE V vload_i8(const int8_t *p) /* VL small integers as floats */
{
    return (V){p[0], p[1], p[2], p[3]};
}
/* 32 nibbles times d plus m, the low ones first, to the 32 / VL vectors of w. */
INLINE void vload_q4(V *w, const uint8_t *q, V d, V m)
{
    for (int e = 0; e < 16; e += VL) {
        V low = {(float)(q[e] & 15), (float)(q[e + 1] & 15), (float)(q[e + 2] & 15),
                 (float)(q[e + 3] & 15)};
        V high = {(float)(q[e] >> 4), (float)(q[e + 1] >> 4), (float)(q[e + 2] >> 4),
                  (float)(q[e + 3] >> 4)};
        w[e / VL] = vfma(low, d, m);
        w[(e + 16) / VL] = vfma(high, d, m);
    }
}
/* The same nibbles less 8. */
INLINE void vload_i4(V *w, const uint8_t *q)
{
    vload_q4(w, q, vset(1.0f), vset(-8.0f));
}
INLINE V vset_f16(const uint16_t *p) /* one f16 in all lanes */
{
    return vset(at_half_to_float(*p));
}
INLINE void vset_f16_pair(const uint16_t *p, V *a, V *b) /* the first in a, the second in b */
{
    *a = vset_f16(p);
    *b = vset_f16(p + 1);
}
INLINE void vprefetch(const void *p)
{
    __builtin_prefetch(p);
}

/* ---- integers: a lane is 32 bits, or four bytes, or eight nibbles, the lowest first ---- */

#define FEW 3     /* rows of activations at once with packed weights: 3 FEW sums */
#define INT_FEW 4 /* with integer products: 2 INT_FEW sums */
#define NIBBLE_ONE 1.0f
#define BYTE_ONE 1.0f

typedef VI VQ;

INLINE VQ vq_load(const void *p)
{
    VQ q;
    memcpy(&q, p, sizeof q);
    return q;
}
INLINE VQ vq_set(int32_t x)
{
    return (VQ){x, x, x, x};
}
INLINE VQ vq_set_bytes(const int8_t *p) /* four bytes in every lane */
{
    int32_t x;
    memcpy(&x, p, sizeof x);
    return vq_set(x);
}
INLINE VQ vq_low(VQ a) /* the low, the high nibble of each byte */
{
    return a & 0x0f0f0f0f;
}
INLINE VQ vq_high(VQ a)
{
    return (a >> 4) & 0x0f0f0f0f;
}
INLINE V vq_float(VQ a)
{
    return (V){(float)a[0], (float)a[1], (float)a[2], (float)a[3]};
}
INLINE V vq_nibble(VQ a, int j) /* nibble j, less 8, times NIBBLE_ONE */
{
    return vq_float(((a >> (4 * j)) & 15) - 8);
}
INLINE V vq_byte(VQ a, int j) /* byte j, signed, times BYTE_ONE */
{
    return vq_float((VQ)((a << (24 - 8 * j)) & (int32_t)0xff000000) >> 24);
}
/* sum + the products of the four bytes of a with those of b, which are -127 .. 127.  u4: a is 0 ..
 * 15; s8: a is signed, and vq_bias is added to it first.  dot: 1 where the CPU has an instruction
 * for it (VQ_HAS_DOT: there is such code). */
INLINE int vq_bias(int dot)
{
    (void)dot;
    return 0;
}
INLINE VQ vq_dot_s8(VQ sum, VQ a, VQ b, int dot)
{
    (void)dot;
    for (int l = 0; l < VL; l++)
        for (int j = 0; j < 32; j += 8)
            sum[l] += (int8_t)(a[l] >> j) * (int8_t)(b[l] >> j);
    return sum;
}
INLINE VQ vq_dot_u4(VQ sum, VQ a, VQ b, int dot)
{
    return vq_dot_s8(sum, a, b, dot);
}

#endif
