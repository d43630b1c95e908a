/* SPDX-License-Identifier: MIT */
/* The vector vocabulary (see vec_scalar.h) on AArch64 Advanced SIMD. */
#ifndef AT_VEC_H
#define AT_VEC_H

#include <arm_neon.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "../lib/half.h"

#define AT_SIMD_NAME "neon"
#define AT_SIMD_TABLE at_simd_neon

#define VL 4
#define NV 4
#define TILE 6 /* 24 accumulators of 32 registers */
#define STRIP 4

#define INLINE static inline __attribute__((always_inline))

typedef float32x4_t V;
typedef uint32x4_t VM;

INLINE V vset(float x)
{
    return vdupq_n_f32(x);
}
INLINE V vzero(void)
{
    return vdupq_n_f32(0.0f);
}
INLINE V vload(const float *p)
{
    return vld1q_f32(p);
}
INLINE void vstore(float *p, V v)
{
    vst1q_f32(p, v);
}
INLINE V vload_n(const float *p, int n)
{
    float t[VL] = {0};
    memcpy(t, p, (size_t)n * sizeof *t);
    return vload(t);
}
INLINE void vstore_n(float *p, V v, int n)
{
    float t[VL];
    vstore(t, v);
    memcpy(p, t, (size_t)n * sizeof *t);
}
INLINE V vadd(V a, V b)
{
    return vaddq_f32(a, b);
}
INLINE V vsub(V a, V b)
{
    return vsubq_f32(a, b);
}
INLINE V vmul(V a, V b)
{
    return vmulq_f32(a, b);
}
INLINE V vdiv(V a, V b)
{
    return vdivq_f32(a, b);
}
INLINE V vsqrt(V a)
{
    return vsqrtq_f32(a);
}
INLINE V vfma(V a, V b, V c)
{
    return vfmaq_f32(c, a, b);
}
INLINE V vfnma(V a, V b, V c)
{
    return vfmsq_f32(c, a, b);
}
INLINE VM vgt(V a, V b)
{
    return vcgtq_f32(a, b);
}
INLINE VM veq(V a, V b)
{
    return vceqq_f32(a, b);
}
INLINE V vsel(VM m, V a, V b)
{
    return vbslq_f32(m, a, b);
}
INLINE V vmax(V a, V b)
{
    return vmaxq_f32(a, b);
}
INLINE V vmin(V a, V b)
{
    return vminq_f32(a, b);
}
INLINE int vany(VM m)
{
    return vmaxvq_u32(m) != 0;
}
INLINE VM vor_m(VM a, VM b)
{
    return vorrq_u32(a, b);
}
INLINE V vbits(uint32_t bits)
{
    return vreinterpretq_f32_u32(vdupq_n_u32(bits));
}
INLINE V vor(V a, V b)
{
    return vreinterpretq_f32_u32(vorrq_u32(vreinterpretq_u32_f32(a), vreinterpretq_u32_f32(b)));
}
INLINE V vand(V a, V b)
{
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(a), vreinterpretq_u32_f32(b)));
}
INLINE VM veq_bits(V a, V b)
{
    return vceqq_u32(vreinterpretq_u32_f32(a), vreinterpretq_u32_f32(b));
}
INLINE V vshl23(V a)
{
    return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(a), 23));
}
INLINE V vswap(V a)
{
    return vrev64q_f32(a);
}
INLINE float vsum(V v)
{
    return vaddvq_f32(v);
}
INLINE float vtop(V v)
{
    return vmaxnmvq_f32(v);
}
INLINE void vtranspose(V t[VL])
{
    float32x4x2_t a = vtrnq_f32(t[0], t[1]), b = vtrnq_f32(t[2], t[3]);
    t[0] = vcombine_f32(vget_low_f32(a.val[0]), vget_low_f32(b.val[0]));
    t[1] = vcombine_f32(vget_low_f32(a.val[1]), vget_low_f32(b.val[1]));
    t[2] = vcombine_f32(vget_high_f32(a.val[0]), vget_high_f32(b.val[0]));
    t[3] = vcombine_f32(vget_high_f32(a.val[1]), vget_high_f32(b.val[1]));
}
INLINE V vsums(V t[VL])
{
    return vpaddq_f32(vpaddq_f32(t[0], t[1]), vpaddq_f32(t[2], t[3]));
}
/* One instruction makes four f32 of f16 (fcvtl) or bf16 (shll), for all rows that read them.  The dot
 * forms (bfdot, bfmmla, fmlal) multiply 16 bits by 16 bits: q and the weights, which are f32, would
 * be two or three terms each to keep their digits, three instructions for eight products where two
 * fmla and two conversions, shared by the rows, do it; and bfdot rounds its own way and drops
 * subnormals.  So for exact results there is nothing in them. */
INLINE V vload_f16(const uint16_t *p)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}
INLINE V vload_bf16(const uint16_t *p)
{
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16));
}
INLINE void vstore_f16(uint16_t *p, V v)
{
    vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(v)));
}
INLINE void vstore_bf16(uint16_t *p, V v)
{
    uint32x4_t bits = vreinterpretq_u32_f32(v);
    uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    uint32x4_t r = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
    r = vbslq_u32(vceqq_f32(v, v), r, vorrq_u32(bits, vdupq_n_u32(0x400000)));
    vst1_u16(p, vshrn_n_u32(r, 16));
}
/* Four bytes as four 32-bit integers. */
INLINE uint32x4_t load_bytes(const void *p)
{
    uint32_t four;
    memcpy(&four, p, sizeof four);
    uint8x8_t b = vreinterpret_u8_u32(vdup_n_u32(four));
    return vmovl_u16(vget_low_u16(vmovl_u8(b)));
}
INLINE V vload_i8(const int8_t *p)
{
    int32x4_t b = vreinterpretq_s32_u32(load_bytes(p));
    return vcvtq_f32_s32(vshrq_n_s32(vshlq_n_s32(b, 24), 24));
}
INLINE void vload_q4(V *w, const uint8_t *q, V d, V m)
{
#pragma GCC unroll 4
    for (int e = 0; e < 16; e += VL) {
        uint32x4_t b = load_bytes(q + e);
        w[e / VL] = vfma(vcvtq_f32_u32(vandq_u32(b, vdupq_n_u32(15))), d, m);
        w[(e + 16) / VL] = vfma(vcvtq_f32_u32(vshrq_n_u32(b, 4)), d, m);
    }
}
INLINE void vload_i4(V *w, const uint8_t *q)
{
    vload_q4(w, q, vset(1.0f), vset(-8.0f));
}
INLINE V vset_f16(const uint16_t *p)
{
    return vset(at_half_to_float(*p));
}
INLINE void vset_f16_pair(const uint16_t *p, V *a, V *b)
{
    *a = vset_f16(p);
    *b = vset_f16(p + 1);
}
INLINE void vprefetch(const void *p)
{
    __builtin_prefetch(p);
}

/* ---- integers ---- */

#define FEW 6
#define INT_FEW 6
#define NIBBLE_ONE 0x1p24f
#define BYTE_ONE 0x1p24f /* a byte is left at the top of its lane */
#define VQ_HAS_DOT

typedef int32x4_t VQ;

INLINE int8x16_t as_bytes(VQ a)
{
    return vreinterpretq_s8_s32(a);
}
INLINE VQ vq_load(const void *p)
{
    return vreinterpretq_s32_u8(vld1q_u8(p));
}
INLINE VQ vq_set(int32_t x)
{
    return vdupq_n_s32(x);
}
INLINE VQ vq_set_bytes(const int8_t *p)
{
    int32_t x;
    memcpy(&x, p, sizeof x);
    return vq_set(x);
}
INLINE VQ vq_low(VQ a)
{
    return vreinterpretq_s32_s8(vandq_s8(as_bytes(a), vdupq_n_s8(15)));
}
INLINE VQ vq_high(VQ a)
{
    return vreinterpretq_s32_u8(vshrq_n_u8(vreinterpretq_u8_s32(a), 4));
}
INLINE V vq_float(VQ a)
{
    return vcvtq_f32_s32(a);
}
INLINE V vq_byte(VQ a, int j)
{
    const uint32_t from = (uint32_t)j << 24 | 0xffffff; /* past the table: 0 */
    const uint32_t to[4] = {from, from + (4u << 24), from + (8u << 24), from + (12u << 24)};
    return vcvtq_f32_s32(
        vreinterpretq_s32_s8(vqtbl1q_s8(as_bytes(a), vreinterpretq_u8_u32(vld1q_u32(to)))));
}
INLINE V vq_nibble(VQ a, int j)
{
    int8x16_t n = as_bytes(j % 2 ? vq_high(a) : vq_low(a));
    return vq_byte(vreinterpretq_s32_s8(vsubq_s8(n, vdupq_n_s8(8))), j / 2);
}
INLINE int vq_bias(int dot)
{
    (void)dot;
    return 0;
}
/* By its name to the assembler: the rest of this code runs without it. */
INLINE VQ vq_dot_s8(VQ sum, VQ a, VQ b, int dot)
{
    if (dot) {
        __asm__(".arch armv8.2-a+dotprod\n\tsdot %0.4s, %1.16b, %2.16b"
                : "+w"(sum)
                : "w"(a), "w"(b));
        return sum;
    }
    int16x8_t low = vmull_s8(vget_low_s8(as_bytes(a)), vget_low_s8(as_bytes(b)));
    int16x8_t high = vmull_high_s8(as_bytes(a), as_bytes(b));
    return vaddq_s32(sum, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)));
}
INLINE VQ vq_dot_u4(VQ sum, VQ a, VQ b, int dot)
{
    return vq_dot_s8(sum, a, b, dot);
}

#endif
