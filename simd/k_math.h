/* SPDX-License-Identifier: MIT */
/* Functions of a vector built from its arithmetic, and rows of any element type read as vectors.
 * Polynomials are minimax fits of our own. */
#ifndef AT_K_MATH_H
#define AT_K_MATH_H

#include <float.h>
#include <math.h>

#include "../lib/quant.h"
#include "simd.h"

#define R (NV * VL) /* packed rows of a panel */

static const float log2_e = 1.44269504088896341f;

/* What one unit of a score is worth in powers of two, and the score that is worth -127 of them. */
struct unit {
    V by, low;
};
INLINE struct unit unit_of(float scale)
{
    float by = scale * log2_e;
    struct unit u = {vset(by), vset(fmaxf(-127.0f / by, -FLT_MAX))};
    return u;
}

/* 2^(z by) for z by <= 128, to 2 ulp: z by = n + f, |f| <= 1/2, by the rounding of a large number
 * whose low bits then are n + 127, the exponent field of 2^n.  The product is never rounded on its
 * own, so scores may be large.  Below -126.5 and at -inf it is exactly 0 (n = -127), unless `by` is
 * below 2^-121; NaN and +inf give NaN. */
INLINE V vweight(V z, struct unit u)
{
    V magic = vset(0x1.8p23f + 127.0f);
    z = vmax(u.low, z);
    V t = vfma(z, u.by, magic);
    V f = vfma(z, u.by, vsub(magic, t));
    V p = vset(1.32257076e-3f); /* 2^f = 1 + f (...), error 1.06 ulp */
    p = vfma(p, f, vset(9.67176291e-3f));
    p = vfma(p, f, vset(5.55089144e-2f));
    p = vfma(p, f, vset(0.240222370f));
    p = vfma(p, f, vset(0.693146829f));
    p = vfma(p, f, vset(1.0f));
    return vmul(p, vshl23(t));
}
INLINE V vexp2(V x)
{
    struct unit one = {vset(1.0f), vset(-127.0f)};
    return vweight(x, one);
}

/* e^x for any x: +inf from 88.4 on. */
INLINE V vexp(V x)
{
    return vexp2(vmin(vset(128.0f), vmul(x, vset(log2_e))));
}

INLINE V vsign(V x)
{
    return vand(x, vbits(0x80000000));
}
INLINE V vabs(V x)
{
    return vand(x, vbits(0x7fffffff));
}

/* e/(e + 2) with e = e^2|x| - 1, computed without cancelling for small x. */
INLINE V vtanh(V x)
{
    V magic = vset(0x1.8p23f + 127.0f);
    V y = vmin(vset(40.0f), vmul(vabs(x), vset(2.0f * log2_e)));
    V t = vadd(y, magic);
    V f = vsub(y, vsub(t, magic));
    V p = vset(1.5403513e-4f); /* 2^f - 1 = f (...), error 1.1e-8 */
    p = vfma(p, f, vset(1.3390735e-3f));
    p = vfma(p, f, vset(9.6182375e-3f));
    p = vfma(p, f, vset(5.5503574e-2f));
    p = vfma(p, f, vset(0.24022650f));
    p = vfma(p, f, vset(0.69314719f));
    p = vmul(p, f);
    V s = vshl23(t);
    V e = vfma(s, p, vsub(s, vset(1.0f)));
    return vor(vdiv(e, vadd(e, vset(2.0f))), vsign(x));
}

/* x / (1 + e^-by): x times the logistic function of `by`. */
INLINE V vgate(V x, V by)
{
    return vdiv(x, vadd(vset(1.0f), vexp(vsub(vzero(), by))));
}
INLINE V vsilu(V x)
{
    return vgate(x, x);
}
/* x (1 + tanh(u)) / 2 is x times the logistic function of 2u. */
INLINE V vgelu_tanh(V x)
{
    V u = vmul(x, vfma(vmul(x, x), vset(0.044715f), vset(1.0f)));
    return vgate(x, vmul(u, vset(1.59576912f))); /* 2 sqrt(2 / pi) */
}
/* x Phi(x), Phi by erfc(z) = t exp(poly(t) - z^2), t = 1 / (1 + z/2), z = |x| / sqrt 2: the
 * relative error of the tail stays small, so large negative x keep their digits. */
INLINE V vgelu(V x)
{
    V z = vmul(vabs(x), vset(0.707106781f));
    V t = vdiv(vset(1.0f), vfma(z, vset(0.5f), vset(1.0f)));
    V p = vset(0.14219375f); /* error 4.5e-8 */
    p = vfma(p, t, vset(-0.66606029f));
    p = vfma(p, t, vset(1.1223943f));
    p = vfma(p, t, vset(-0.65123942f));
    p = vfma(p, t, vset(-0.11679510f));
    p = vfma(p, t, vset(0.020200053f));
    p = vfma(p, t, vset(0.028355716f));
    p = vfma(p, t, vset(0.38790002f));
    p = vfma(p, t, vset(0.99849248f));
    p = vfma(p, t, vset(-1.2654414f));
    V tail = vmul(vmul(t, vexp(vfnma(z, z, p))), vset(0.5f)); /* Phi(-|x|) */
    return vmul(x, vsel(vgt(x, vzero()), vsub(vset(1.0f), tail), tail));
}

/* ---- rows of any type --------------------------------------------------------------------------
 */

INLINE int is_quantised(enum at_elem type)
{
#ifdef AT_NO_QUANTISED
    return (void)type, 0;
#else
    return type >= AT_ELEM_Q8_0;
#endif
}
/* A type as it comes at run time, of which the compiler then knows what it can be. */
INLINE enum at_elem any_type(enum at_elem type)
{
    if (!is_quantised(type) && type >= AT_ELEM_Q8_0)
        __builtin_unreachable();
    return type;
}

INLINE int is_packed(const struct at_matmul *mm)
{
    return is_quantised(mm->b_type) && mm->b_packed;
}

INLINE const void *row_at(const struct at_rows *r, int64_t j)
{
    return (const char *)r->base + j * r->stride * at_elem_size(r->type);
}
INLINE int64_t row_bytes(const struct at_rows *r)
{
    int64_t n = is_quantised(r->type) ? (r->width + 31) / 32 : r->width;
    return n * at_elem_size(r->type);
}

/* The 32 elements of a block of a quantised row. */
INLINE void load_block(enum at_elem type, V w[32 / VL], const void *row, int64_t block)
{
    if (type == AT_ELEM_Q8_0) {
        const struct at_q8_0 *b = (const struct at_q8_0 *)row + block;
        V d = vset_f16(&b->d);
#pragma GCC unroll 8
        for (int e = 0; e < 32; e += VL)
            w[e / VL] = vmul(d, vload_i8(b->q + e));
    } else if (type == AT_ELEM_Q4_0) {
        const struct at_q4_0 *b = (const struct at_q4_0 *)row + block;
        V d = vset_f16(&b->d);
        vload_q4(w, b->q, d, vmul(d, vset(-8.0f)));
    } else {
        const struct at_q4_1 *b = (const struct at_q4_1 *)row + block;
        V d, m;
        vset_f16_pair(&b->d, &d, &m);
        vload_q4(w, b->q, d, m);
    }
}

/* The same before they are multiplied by the block's scale: whole numbers. */
INLINE void load_steps(enum at_elem type, V w[32 / VL], const void *row, int64_t block)
{
    if (type == AT_ELEM_Q8_0) {
        const struct at_q8_0 *b = (const struct at_q8_0 *)row + block;
#pragma GCC unroll 8
        for (int e = 0; e < 32; e += VL)
            w[e / VL] = vload_i8(b->q + e);
    } else {
        const struct at_q4_0 *b = (const struct at_q4_0 *)row + block;
        vload_i4(w, b->q);
    }
}

/* Elements d .. d + VL of a row; d is a multiple of VL.  type is a constant where this is inlined.
 */
INLINE V load_as(enum at_elem type, const void *row, int64_t d)
{
    switch (type) {
    case AT_ELEM_F16:
        return vload_f16((const uint16_t *)row + d);
    case AT_ELEM_BF16:
        return vload_bf16((const uint16_t *)row + d);
    case AT_ELEM_F32:
        return vload((const float *)row + d);
    default: {
        V w[32 / VL];
        load_block(type, w, row, d / 32);
        return w[d % 32 / VL];
    }
    }
}

/* n < 16 halves, in pieces that need no call. */
INLINE void copy_half(uint16_t *to, const uint16_t *from, int n)
{
#pragma GCC unroll 4
    for (int piece = VL / 2; piece > 0; piece /= 2)
        if (n & piece) {
            memcpy(to, from, (size_t)piece * sizeof *to);
            to += piece;
            from += piece;
        }
}

/* The same of 16 bits: one function for all the places where a row may end. */
static __attribute__((noinline)) V load_half_n(enum at_elem type, const uint16_t *row, int n)
{
    uint16_t half[VL] = {0};
    copy_half(half, row, n);
    return type == AT_ELEM_F16 ? vload_f16(half) : vload_bf16(half);
}

/* The first n < VL of them and zeros; of quantised rows, the block's padding in place of zeros. */
INLINE V load_as_n(enum at_elem type, const void *row, int64_t d, int n)
{
    switch (type) {
    case AT_ELEM_F32:
        return vload_n((const float *)row + d, n);
    case AT_ELEM_F16:
    case AT_ELEM_BF16:
        return load_half_n(type, (const uint16_t *)row + d, n);
    default:
        return load_as(type, row, d);
    }
}

INLINE void store_as(enum at_elem type, void *row, int64_t d, V v)
{
    if (type == AT_ELEM_F16)
        vstore_f16((uint16_t *)row + d, v);
    else if (type == AT_ELEM_BF16)
        vstore_bf16((uint16_t *)row + d, v);
    else
        vstore((float *)row + d, v);
}
INLINE void store_as_n(enum at_elem type, void *row, int64_t d, V v, int n)
{
    uint16_t half[VL];
    if (type == AT_ELEM_F32) {
        vstore_n((float *)row + d, v, n);
        return;
    }
    store_as(type, half, 0, v);
    copy_half((uint16_t *)row + d, half, n);
}

INLINE void row_to_float(enum at_elem type, float *y, const void *x, int64_t n)
{
    int64_t d = 0;
    for (; is_quantised(type) && d + 32 <= n; d += 32) {
        V w[32 / VL];
        load_block(type, w, x, d / 32);
#pragma GCC unroll 8
        for (int e = 0; e < 32; e += VL)
            vstore(y + d + e, w[e / VL]);
    }
    for (; d + VL <= n; d += VL)
        vstore(y + d, load_as(type, x, d));
    if (d < n)
        vstore_n(y + d, load_as_n(type, x, d, (int)(n - d)), (int)(n - d));
}

/* A row of any type to f32. */
static void load_row(float *y, enum at_elem type, const void *x, int64_t n)
{
    switch (any_type(type)) {
    case AT_ELEM_F32:
        memcpy(y, x, (size_t)n * sizeof *y);
        break;
    case AT_ELEM_F16:
        row_to_float(AT_ELEM_F16, y, x, n);
        break;
    case AT_ELEM_BF16:
        row_to_float(AT_ELEM_BF16, y, x, n);
        break;
    case AT_ELEM_Q8_0:
        row_to_float(AT_ELEM_Q8_0, y, x, n);
        break;
    case AT_ELEM_Q4_0:
        row_to_float(AT_ELEM_Q4_0, y, x, n);
        break;
    default:
        row_to_float(AT_ELEM_Q4_1, y, x, n);
    }
}

#endif
