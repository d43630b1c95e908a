/* SPDX-License-Identifier: MIT */
/* Additive scores in the panel shape: sum over d of va[d] tanh(q[d] + k[d]).
 *
 * tanh(q + k) = 1 - 2 / (1 + e^2q e^2k): with both exponentials taken once, a term costs a few
 * products, and two terms share a division.  NEAR keeps (1 + e^2q e^2k)^2 finite; where a panel's q
 * or a tile's k pass it, tanh itself is computed.
 *
 * Packed layout, private to this table: [dk][R] of q and [dk][R] of e^2q, which begins with NaN
 * where a q passes NEAR. */
#ifndef AT_K_ADDITIVE_H
#define AT_K_ADDITIVE_H

#include "k_math.h"

#define NEAR 10.0f
#define ADDITIVE_KEYS 4 /* whose sums are in registers at once */

/* e[d] = e^2x[d]; returns 1 where one passes NEAR. */
INLINE int exp_twice(float *e, const float *x, int64_t n)
{
    struct unit two = unit_of(2.0f);
    int64_t d = 0;
    int far = 0;
    for (; d + VL <= n; d += VL) {
        V v = vload(x + d);
        far |= vany(vgt(vabs(v), vset(NEAR)));
        vstore(e + d, vweight(v, two));
    }
    if (d < n) {
        V v = vload_n(x + d, (int)(n - d));
        far |= vany(vgt(vabs(v), vset(NEAR)));
        vstore_n(e + d, vweight(v, two), (int)(n - d));
    }
    return far;
}

static void additive_pack_q(float *qp, int64_t dk)
{
    if (exp_twice(qp + dk * R, qp, dk * R))
        qp[dk * R] = NAN;
}

/* sums[x] = sum over d of va[d] / (1 + eq[d] ek[x][d]), for nx keys: a constant where this is
 * inlined.
 */
INLINE void additive_tile(int nx, float *st, const float *eq, const float *ek, const float *va,
                          int64_t dk, float all)
{
    V z[ADDITIVE_KEYS], one = vset(1.0f);
    for (int v = 0; v < NV; v++) {
#pragma GCC unroll 4
        for (int x = 0; x < nx; x++)
            z[x] = vzero();
        int64_t d = 0;
        for (; d + 2 <= dk; d += 2) {
            V qa = vload(eq + d * R + v * VL), qb = vload(eq + (d + 1) * R + v * VL);
            V wa = vset(va[d]), wb = vset(va[d + 1]);
#pragma GCC unroll 4
            for (int x = 0; x < nx; x++) {
                V a = vfma(qa, vset(ek[x * AT_SIMD_MAX_HEAD + d]), one);
                V b = vfma(qb, vset(ek[x * AT_SIMD_MAX_HEAD + d + 1]), one);
                z[x] = vadd(z[x], vdiv(vfma(wa, b, vmul(wb, a)), vmul(a, b)));
            }
        }
#pragma GCC unroll 4
        for (int x = 0; x < nx; x++) {
            if (d < dk) {
                V a = vfma(vload(eq + d * R + v * VL), vset(ek[x * AT_SIMD_MAX_HEAD + d]), one);
                z[x] = vadd(z[x], vdiv(vset(va[d]), a));
            }
            vstore(st + x * R + v * VL, vfnma(vset(2.0f), z[x], vset(all)));
        }
    }
}

static void additive_far(float *st, const float *qp, const float *k, const float *va, int64_t dk)
{
    for (int v = 0; v < NV; v++) {
        V z = vzero();
        for (int64_t d = 0; d < dk; d++)
            z = vfma(vset(va[d]), vtanh(vadd(vload(qp + d * R + v * VL), vset(k[d]))), z);
        vstore(st + v * VL, z);
    }
}

static void additive_scores(float *st, int64_t j0, const float *qp, const struct at_rows *k,
                            const float *va)
{
    float ek[ADDITIVE_KEYS * AT_SIMD_MAX_HEAD];
    const float *eq = qp + k->width * R;
    double all = 0;
    for (int64_t d = 0; d < k->width; d++)
        all += (double)va[d];
    st += j0 * R;
    for (int64_t j = 0; j < k->n; j += ADDITIVE_KEYS, st += ADDITIVE_KEYS * R) {
        int nx = k->n - j < ADDITIVE_KEYS ? (int)(k->n - j) : ADDITIVE_KEYS, far = isnan(eq[0]);
        for (int x = 0; x < nx && !far; x++)
            far = exp_twice(ek + x * AT_SIMD_MAX_HEAD, row_at(k, j + x), k->width);
        if (!far && nx == ADDITIVE_KEYS)
            additive_tile(ADDITIVE_KEYS, st, eq, ek, va, k->width, (float)all);
        for (int x = 0; x < nx && (far || nx < ADDITIVE_KEYS); x++) {
            if (far)
                additive_far(st + x * R, qp, row_at(k, j + x), va, k->width);
            else
                additive_tile(1, st + x * R, eq, ek + x * AT_SIMD_MAX_HEAD, va, k->width,
                              (float)all);
        }
    }
}

#endif
