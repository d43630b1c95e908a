/* SPDX-License-Identifier: MIT */
/* The backward pass of attention in the panel shape, on the same micro-kernel.  Lanes of weights
 * and scores are packed rows, as in the forward pass; dQ is summed like its output.  dK and dV
 * contract over the rows of a group of panels: there weights are what is broadcast, and lanes are
 * channels.
 *
 * Layouts: st [panel][BACK_KEYS][R]; rows of Q or dO by blocks of channels [width / R][room][R],
 * zeros past the width; sums of keys [width / R][BACK_KEYS][R]. */
#ifndef AT_K_GRAD_H
#define AT_K_GRAD_H

#include "k_additive.h"
#include "k_attn.h"

#define BACK_KEYS 96        /* of a block: of weights of a group, 64 BACK_KEYS floats */
#define BACK_GROUP (64 / R) /* panels of a group: 64 rows, so that sums are long */

static void bring(const struct at_rows *rows, int64_t from, int64_t to)
{
    int64_t bytes = row_bytes(rows);
    for (int64_t j = from; j < to && j < rows->n; j++)
        for (int64_t at = 0; at < bytes; at += LINE_BYTES)
            vprefetch((const char *)row_at(rows, j) + at);
}

static void back_pack_rows(float *dst, int64_t room, const void *const *rows, int n,
                           enum at_elem type, int64_t width)
{
    float buffer[AT_SIMD_MAX_HEAD + R];
    int64_t blocks = (width + R - 1) / R;
    memset(buffer, 0, sizeof buffer);
    for (int r = 0; r < n; r++) {
        if (rows[r])
            load_row(buffer, type, rows[r], width);
        for (int64_t c = 0; c < blocks; c++)
            for (int v = 0; v < NV; v++)
                vstore(dst + (c * room + r) * R + v * VL,
                       rows[r] ? vload(buffer + c * R + v * VL) : vzero());
    }
}

/* Sums start at -lse, so that a score leaves them ready for vweight. */
INLINE void back_weights_tile(int nx, float *st, const float *qp, const float *k, int64_t stride,
                              int64_t dk, const V *start, struct unit u)
{
    V z[TILE][NV];
#pragma GCC unroll 16
    for (int x = 0; x < nx; x++)
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++)
            z[x][v] = start[v];
    contract(nx, z, qp, k, stride, 1, dk);
#pragma GCC unroll 16
    for (int x = 0; x < nx; x++)
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++)
            vstore(st + x * R + v * VL, vweight(z[x][v], u));
}

static void back_weights(float *st, int64_t j0, const float *qp, const struct at_rows *k,
                         const float *lse, float scale)
{
    struct unit u = unit_of(scale);
    const float *key = k->base;
    struct tiles t = cut(k->n);
    V start[NV];
    for (int v = 0; v < NV; v++)
        start[v] = vmul(vload(lse + v * VL), vset(-1.0f / scale));
    st += j0 * R;
    for (int half = 0; half < 2; half++) {
        int64_t tiles = half ? t.narrow : t.wide;
        switch (tiles ? t.width - half : 0) {
#define CASE(nx)                                                                                   \
case nx:                                                                                           \
    for (; tiles > 0; tiles--, st += nx * R, key += nx * k->stride)                                \
        back_weights_tile(nx, st, qp, key, k->stride, k->width, start, u);                         \
    break;
            EACH_WIDTH(CASE)
#undef CASE
        }
    }
}

/* A weight of 0 is a key that is hidden, or that might as well be: its gradient is the mark. */
INLINE V back_score(V p, V d, int masked)
{
    V ds = vmul(p, d);
    return masked ? vsel(veq(p, vzero()), vbits(0x80000000), ds) : ds;
}

INLINE void back_scores_tile(int nx, float *st, const float *op, const float *v, int64_t stride,
                             int64_t dv, const V *start, int masked)
{
    V z[TILE][NV];
#pragma GCC unroll 16
    for (int x = 0; x < nx; x++)
#pragma GCC unroll 4
        for (int e = 0; e < NV; e++)
            z[x][e] = start[e];
    contract(nx, z, op, v, stride, 1, dv);
#pragma GCC unroll 16
    for (int x = 0; x < nx; x++)
#pragma GCC unroll 4
        for (int e = 0; e < NV; e++) {
            float *to = st + x * R + e * VL;
            vstore(to, back_score(vload(to), z[x][e], masked));
        }
}

INLINE void back_scores_as(int masked, float *st, const float *op, const struct at_rows *values,
                           const float *delta)
{
    const float *value = values->base;
    struct tiles t = cut(values->n);
    V start[NV];
    for (int v = 0; v < NV; v++)
        start[v] = vsub(vzero(), vload(delta + v * VL));
    for (int half = 0; half < 2; half++) {
        int64_t tiles = half ? t.narrow : t.wide;
        switch (tiles ? t.width - half : 0) {
#define CASE(nx)                                                                                   \
case nx:                                                                                           \
    for (; tiles > 0; tiles--, st += nx * R, value += nx * values->stride)                         \
        back_scores_tile(nx, st, op, value, values->stride, values->width, start, masked);         \
    break;
            EACH_WIDTH(CASE)
#undef CASE
        }
    }
}

static void back_scores(float *st, int64_t j0, const float *op, const struct at_rows *v,
                        const float *delta, int masked)
{
    if (masked)
        back_scores_as(1, st + j0 * R, op, v, delta);
    else
        back_scores_as(0, st + j0 * R, op, v, delta);
}

static void back_combine(float *st, const float *dp, const float *delta, int64_t n)
{
    for (int64_t j = 0; j < n; j++)
        for (int v = 0; v < NV; v++) {
            float *to = st + j * R + v * VL;
            V d = vsub(vload(dp + j * R + v * VL), vload(delta + v * VL));
            vstore(to, back_score(vload(to), d, 1));
        }
}

static void back_softcap(float *st, const float *raw, float by, int64_t n)
{
    for (int64_t e = 0; e < n * R; e += VL) {
        V t = vtanh(vmul(vload(raw + e), vset(by))), ds = vload(st + e);
        vstore(st + e, vsel(veq(ds, vzero()), ds, vmul(ds, vfnma(t, t, vset(1.0f)))));
    }
}

INLINE void back_keys_tile(int nx, float *sum, const float *st, int panels, const float *rows)
{
    V z[TILE][NV];
#pragma GCC unroll 16
    for (int x = 0; x < nx; x++)
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++)
            z[x][v] = vzero();
    for (int p = 0; p < panels; p++)
        contract(nx, z, rows + p * R * R, st + p * BACK_KEYS * R, R, 1, R);
#pragma GCC unroll 16
    for (int x = 0; x < nx; x++)
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++) {
            float *to = sum + x * R + v * VL;
            vstore(to, vadd(vload(to), z[x][v]));
        }
}

static void back_keys(float *sum, const float *st, int panels, int64_t j0, int64_t j1,
                      const float *rows, int64_t room, int64_t width)
{
    for (int64_t c = 0; c * R < width; c++, sum += BACK_KEYS * R, rows += room * R) {
        const float *from = st + j0 * R;
        float *to = sum + j0 * R;
        struct tiles t = cut(j1 - j0);
        for (int half = 0; half < 2; half++) {
            int64_t tiles = half ? t.narrow : t.wide;
            switch (tiles ? t.width - half : 0) {
#define CASE(nx)                                                                                   \
case nx:                                                                                           \
    for (; tiles > 0; tiles--, to += nx * R, from += nx * R)                                       \
        back_keys_tile(nx, to, from, panels, rows);                                                \
    break;
                EACH_WIDTH(CASE)
#undef CASE
            }
        }
    }
}

static void back_store(float *dst, int64_t stride, const float *sum, int64_t n, int64_t width,
                       float by, int add)
{
    for (int64_t j = 0; j < n; j++, dst += stride)
        for (int64_t d = 0; d < width; d += VL) {
            V x = vmul(vload(sum + (d / R * BACK_KEYS + j) * R + d % R), vset(by));
            int some = width - d < VL ? (int)(width - d) : VL;
            if (some == VL)
                vstore(dst + d, add ? vadd(vload(dst + d), x) : x);
            else
                vstore_n(dst + d, add ? vadd(vload_n(dst + d, some), x) : x, some);
        }
}

static void back_finish(const float *state, int64_t width, float scale, void *const *out)
{
    float by[R];
    for (int r = 0; r < R; r++)
        by[r] = scale;
    finish_as(AT_ELEM_F32, state + 2 * R, width, by, out);
}

/* ---- additive scores ---- */

/* tanh(q[d] + k[d]) of a vector of rows. */
INLINE V additive_term(int far, const float *q, const float *eq, float k, float ek)
{
    if (far)
        return vtanh(vadd(vload(q), vset(k)));
    V one = vset(1.0f);
    return vsub(one, vdiv(vset(2.0f), vfma(vload(eq), vset(ek), one)));
}

/* Channels [d, d + n), at most VL, of one key: what it gives the panel's dq and dva; its own dk is
 * returned, a channel a lane. */
INLINE V additive_back_tile(int n, int far, int exact, const float *st, const float *qp,
                            const float *k, const float *ek, const float *va, int64_t d, int64_t dk,
                            float *dq, float *dva)
{
    V sums[VL];
    for (int e = 0; e < VL; e++)
        sums[e] = vzero();
    for (int e = 0; e < n; e++, d++) {
        V by = vset(va[d]), sum = vload(dva + d * VL);
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++) {
            const float *q = qp + d * R + v * VL;
            V ds = vload(st + v * VL), t = additive_term(far, q, q + dk * R, k[d], ek[d]);
            if (exact)
                t = vsel(veq(ds, vzero()), vzero(), t);
            float *to = dq + d * R + v * VL;
            V slope = vmul(by, vmul(ds, vfnma(t, t, vset(1.0f))));
            vstore(to, vadd(vload(to), slope));
            sums[e] = vadd(sums[e], slope);
            sum = vfma(ds, t, sum);
        }
        vstore(dva + d * VL, sum);
    }
    return vsums(sums);
}

static void additive_back(float *sum, float *state, double *dva, const float *st, int64_t j0,
                          const float *qp, const struct at_rows *k, const float *va, int exact)
{
    float ek[AT_SIMD_MAX_HEAD], terms[AT_SIMD_MAX_HEAD * VL];
    int64_t dk = k->width;
    memset(terms, 0, (size_t)(dk * VL) * sizeof *terms);
    for (int64_t j = j0; j < j0 + k->n; j++) {
        const float *row = row_at(k, j - j0);
        int far = exp_twice(ek, row, dk) || isnan(qp[dk * R]);
        for (int64_t d = 0; d < dk; d += VL) {
            float *to = sum + (d / R * BACK_KEYS + j) * R + d % R;
            int n = dk - d < VL ? (int)(dk - d) : VL;
            V own = n == VL && !far && !exact
                        ? additive_back_tile(VL, 0, 0, st + j * R, qp, row, ek, va, d, dk,
                                             state + 2 * R, terms)
                        : additive_back_tile(n, far, exact, st + j * R, qp, row, ek, va, d, dk,
                                             state + 2 * R, terms);
            vstore(to, vadd(vload(to), own));
        }
    }
    for (int64_t d = 0; d < dk; d++)
        dva[d] += (double)vsum(vload(terms + d * VL));
}

#endif
