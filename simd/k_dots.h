/* SPDX-License-Identifier: MIT */
/* Attention in the decode shape: lanes are channels, for few packed rows that share every key and
 * value read.  Score tiles are VL dot products: (VL / rt) keys of rt rows, reduced together into
 * one vector of the block st[key][rp], rp = at_simd_dots_stride(rows).
 *
 * Private layouts: Q [rp][dk up to 32], zero-padded; state m[16], l[16], acc[row][dv up to 32]. */
#ifndef AT_K_DOTS_H
#define AT_K_DOTS_H

#include "k_attn.h"

#define DOTS_ROWS 16
#define DOTS_KEYS 32

static void dots_pack_q(float *qd, const void *const *rows, int n, enum at_elem type, int64_t dk,
                        float scale)
{
    int64_t padded = at_simd_round(dk, 32);
    memset(qd, 0, (size_t)at_simd_dots_q_floats(n, dk) * sizeof *qd);
    for (int r = 0; r < n; r++, qd += padded) {
        if (!rows[r])
            continue;
        load_row(qd, type, rows[r], dk);
        for (int64_t d = 0; d < padded; d += VL)
            vstore(qd + d, vmul(vload(qd + d), vset(scale)));
    }
}

/* Rows j .. j + n of `ahead` into the cache. */
INLINE void prefetch_rows(const struct at_rows *ahead, int64_t j, int64_t n)
{
    int64_t bytes = row_bytes(ahead);
    for (int64_t end = j + n < ahead->n ? j + n : ahead->n; j < end; j++) {
        const char *row = row_at(ahead, j);
        for (int64_t b = 0; b < bytes; b += 64)
            vprefetch(row + b);
    }
}

/* z[x * rt + r] += q[r] . key x over channels [d0, d1): kt keys of rt rows.  Rows of q are `padded`
 * apart and hold zeros past the last channel. */
INLINE void dots_floats(enum at_elem type, int rt, V z[VL], const float *qd, int64_t padded,
                        const char *const row[VL], int64_t d0, int64_t d1)
{
    const int kt = VL / rt;
    int64_t d = d0;
    for (; d + VL <= d1; d += VL) {
        V k[VL];
#pragma GCC unroll 16
        for (int x = 0; x < kt; x++)
            k[x] = load_as(type, row[x], d);
#pragma GCC unroll 16
        for (int r = 0; r < rt; r++) {
            V q = vload(qd + r * padded + d);
#pragma GCC unroll 16
            for (int x = 0; x < kt; x++)
                z[x * rt + r] = vfma(k[x], q, z[x * rt + r]);
        }
    }
    if (d < d1)
#pragma GCC unroll 16
        for (int x = 0; x < kt; x++) {
            V k = load_as_n(type, row[x], d, (int)(d1 - d));
#pragma GCC unroll 16
            for (int r = 0; r < rt; r++)
                z[x * rt + r] = vfma(k, vload(qd + r * padded + d), z[x * rt + r]);
        }
}

INLINE void dots_blocks(enum at_elem type, int rt, V z[VL], const float *qd, int64_t padded,
                        const char *const row[VL], int64_t d0, int64_t d1)
{
    const int kt = VL / rt;
    for (int64_t d = d0; d < d1; d += 32)
#pragma GCC unroll 16
        for (int x = 0; x < kt; x++) {
            V w[32 / VL];
            load_block(type, w, row[x], d / 32);
#pragma GCC unroll 16
            for (int r = 0; r < rt; r++)
#pragma GCC unroll 8
                for (int e = 0; e < 32; e += VL)
                    z[x * rt + r] = vfma(w[e / VL], vload(qd + r * padded + d + e), z[x * rt + r]);
        }
}

/* out[x * rt + r] for the VL / rt keys from `key` on; those past `left` repeat the last. */
INLINE void dots_tile(enum at_elem type, int rt, float *out, const float *qd, int64_t padded,
                      const char *key, int64_t bytes, int64_t left, int64_t d0, int64_t d1)
{
    const char *row[VL];
    V z[VL];
#pragma GCC unroll 16
    for (int x = 0; x < VL / rt; x++)
        row[x] = key + (x < left ? x : left - 1) * bytes;
#pragma GCC unroll 16
    for (int e = 0; e < VL; e++)
        z[e] = vzero();
    if (is_quantised(type))
        dots_blocks(type, rt, z, qd, padded, row, d0, d1);
    else
        dots_floats(type, rt, z, qd, padded, row, d0, d1);
    V sums = vsums(z);
    vstore(out, d0 ? vadd(vload(out), sums) : sums);
}

/* Channels [d0, d1) of a block of scores; from d0 = 0 stored, else added. */
struct dots_part {
    float *st;
    const float *qd;
    int64_t rp, d0, d1;
    const struct at_rows *k, *ahead;
};

INLINE void dots_part_as(enum at_elem type, int rt, const struct dots_part *p)
{
    const int kt = VL / rt;
    const struct at_rows *k = p->k;
    int64_t bytes = k->stride * at_elem_size(type), padded = at_simd_round(k->width, 32);
    for (int64_t j = 0; j < k->n; j += kt) {
        const char *key = (const char *)k->base + j * bytes;
        for (int64_t r = 0; r < p->rp; r += rt)
            dots_tile(type, rt, p->st + j * p->rp + r, p->qd + r * padded, padded, key, bytes,
                      k->n - j, p->d0, p->d1);
        if (p->ahead)
            prefetch_rows(p->ahead, j, kt);
    }
}

INLINE void dots_part_of(enum at_elem type, const struct dots_part *p)
{
    switch (p->rp < VL ? p->rp : VL) {
    case 1:
        dots_part_as(type, 1, p);
        break;
    case 2:
        dots_part_as(type, 2, p);
        break;
    case 4:
        dots_part_as(type, 4, p);
        break;
#if VL >= 8
    case 8:
        dots_part_as(type, 8, p);
        break;
#endif
#if VL >= 16
    case 16:
        dots_part_as(type, 16, p);
        break;
#endif
    }
}

static void dots_part(const struct dots_part *p)
{
    switch (p->k->type) {
    case AT_ELEM_F16:
        dots_part_of(AT_ELEM_F16, p);
        break;
    case AT_ELEM_BF16:
        dots_part_of(AT_ELEM_BF16, p);
        break;
    case AT_ELEM_Q8_0:
        dots_part_of(AT_ELEM_Q8_0, p);
        break;
    case AT_ELEM_Q4_0:
        dots_part_of(AT_ELEM_Q4_0, p);
        break;
    case AT_ELEM_Q4_1:
        dots_part_of(AT_ELEM_Q4_1, p);
        break;
    default:
        dots_part_of(AT_ELEM_F32, p);
    }
}

static void dots_scores(float *st, const float *qd, int n, const struct at_rows *k,
                        const struct at_rows *ahead)
{
    struct dots_part p = {st, qd, at_simd_dots_stride(n), 0, k->width, k, ahead};
    dots_part(&p);
}

/* ---- softmax: the block is one run of vectors, whose lanes repeat the rows ---- */

/* As move_reference, row by row. */
static __attribute__((noinline)) void dots_move(const float *top, int n, float *state, int64_t dv,
                                                float unit)
{
    int64_t padded = at_simd_round(dv, 32);
    float *m = state, *l = state + DOTS_ROWS, *acc = state + 2 * DOTS_ROWS;
    for (int r = 0; r < n; r++, acc += padded) {
        if (!(top[r] - m[r] > (l[r] == 0.0f ? -INFINITY : LAZY / unit)))
            continue;
        float to = fminf(top[r], FLT_MAX);
        float factor = l[r] == 0.0f ? 1.0f : exp2f((m[r] - to) * unit);
        m[r] = to;
        l[r] *= factor;
        if (factor != 1.0f)
            for (int64_t d = 0; d < padded; d += VL)
                vstore(acc + d, vmul(vload(acc + d), vset(factor)));
    }
}

/* The largest score of each row; sums likewise below.  step: floats between vectors of the same
 * rows, of which there are `phases` beside each other. */
static void dots_softmax_step(float *st, int64_t keys, int n, float *state, int64_t dv, float scale)
{
    struct unit u = unit_of(scale);
    int64_t rp = at_simd_dots_stride(n), step = rp > VL ? rp : VL;
    int64_t used = keys * rp, all = at_simd_round(used, step);
    float lane[DOTS_ROWS + VL], top[DOTS_ROWS + VL];
    for (int64_t e = used; e < all; e++)
        st[e] = -INFINITY;

    for (int64_t e = 0; e < step; e += VL) {
        V best = vset(-INFINITY);
        for (int64_t at = e; at < all; at += step)
            best = vmax(best, vload(st + at));
        vstore(lane + e, best);
    }
    for (int r = 0; r < n; r++) {
        top[r] = lane[r];
        for (int64_t e = r + rp; e < step; e += rp)
            top[r] = lane[e] > top[r] ? lane[e] : top[r];
    }
    dots_move(top, n, state, dv, scale * log2_e);

    for (int64_t e = 0; e < step; e++)
        lane[e] = e % rp < n ? state[e % rp] : 0.0f;
    for (int64_t e = 0; e < step; e += VL) {
        V m = vload(lane + e), l = vzero();
        for (int64_t at = e; at < all; at += step) {
            V s = vload(st + at), p = vweight(vsub(s, m), u);
            p = vsel(veq(s, vset(-INFINITY)), vbits(0x80000000), p);
            l = vadd(l, p);
            vstore(st + at, p);
        }
        vstore(lane + e, l);
    }
    for (int r = 0; r < n; r++)
        for (int64_t e = r; e < step; e += rp)
            state[DOTS_ROWS + r] += lane[e];
}

/* ---- weights times values ---- */

/* acc[r][0 .. ns * VL) += sum of st[j][r] v[j], for rt rows; `some` < VL: only so many channels.
 * The same channels of the rows to come next are prefetched: a strip at a time, so that their
 * misses spread over the block. */
INLINE void dots_strip(enum at_elem type, int rt, int ns, float *acc, int64_t padded,
                       const float *st, int64_t rp, const struct at_rows *v, int64_t d, int some,
                       const struct at_rows *ahead)
{
    V z[8][STRIP];
#pragma GCC unroll 8
    for (int r = 0; r < rt; r++)
#pragma GCC unroll 4
        for (int s = 0; s < ns; s++)
            z[r][s] = vzero();
    const char *row = v->base, *next = row;
    int64_t bytes = v->stride * at_elem_size(type), next_bytes = 0, span = 0;
    if (ahead) {
        int64_t unit = is_quantised(ahead->type) ? 32 : 1, size = at_elem_size(ahead->type);
        next = (const char *)ahead->base + d / unit * size;
        next_bytes = ahead->stride * size;
        span = ns * VL / unit * size;
    }
    for (int64_t j = 0; j < v->n; j++, row += bytes, st += rp, next += next_bytes) {
        V value[STRIP];
        for (int64_t b = 0; b < span; b += 64)
            vprefetch(next + b);
#pragma GCC unroll 4
        for (int s = 0; s < ns; s++)
            value[s] = some < VL ? load_as_n(type, row, d, some) : load_as(type, row, d + s * VL);
#pragma GCC unroll 8
        for (int r = 0; r < rt; r++) {
            V p = vset(st[r]);
#pragma GCC unroll 4
            for (int s = 0; s < ns; s++)
                z[r][s] = vfma(p, value[s], z[r][s]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rt; r++)
#pragma GCC unroll 4
        for (int s = 0; s < ns; s++) {
            float *to = acc + r * padded + d + s * VL;
            vstore(to, vadd(vload(to), z[r][s]));
        }
}

INLINE void dots_rows(enum at_elem type, int rt, float *acc, const float *st, int64_t rp,
                      const struct at_rows *v, const struct at_rows *ahead)
{
    const int ns = rt > 4 ? STRIP / 2 : STRIP;
    int64_t dv = v->width, padded = at_simd_round(dv, 32), d = 0;
    for (; d + ns * VL <= dv; d += ns * VL)
        dots_strip(type, rt, ns, acc, padded, st, rp, v, d, VL, ahead);
    for (; d + VL <= dv; d += VL)
        dots_strip(type, rt, 1, acc, padded, st, rp, v, d, VL, ahead);
    if (d < dv)
        dots_strip(type, rt, 1, acc, padded, st, rp, v, d, (int)(dv - d), NULL);
}

INLINE void dots_accumulate_as(enum at_elem type, float *acc, int n, const float *st, int64_t rp,
                               const struct at_rows *v, const struct at_rows *ahead)
{
    int64_t padded = at_simd_round(v->width, 32);
    int r = 0;
    for (; r + 8 <= n; r += 8, ahead = NULL)
        dots_rows(type, 8, acc + r * padded, st + r, rp, v, ahead);
    for (; r + 4 <= n; r += 4, ahead = NULL)
        dots_rows(type, 4, acc + r * padded, st + r, rp, v, ahead);
    if (r + 2 <= n) {
        dots_rows(type, 2, acc + r * padded, st + r, rp, v, ahead);
        r += 2;
        ahead = NULL;
    }
    if (r < n)
        dots_rows(type, 1, acc + r * padded, st + r, rp, v, ahead);
}

/* Hidden pairs are passed over, whatever the value holds. */
static void dots_accumulate_exact(float *acc, int n, const float *st, int64_t rp,
                                  const struct at_rows *v)
{
    float value[AT_SIMD_MAX_HEAD];
    int64_t padded = at_simd_round(v->width, 32);
    for (int64_t j = 0; j < v->n; j++) {
        load_row(value, v->type, row_at(v, j), v->width);
        for (int r = 0; r < n; r++) {
            float p = st[j * rp + r];
            if (at_float_bits(p) != 0x80000000)
                for (int64_t d = 0; d < v->width; d++)
                    acc[r * padded + d] += p * value[d];
        }
    }
}

static void dots_accumulate(float *state, int n, const float *st, const struct at_rows *v,
                            int exact, const struct at_rows *ahead)
{
    int64_t rp = at_simd_dots_stride(n);
    float *acc = state + 2 * DOTS_ROWS;
    if (ahead && ahead->n < v->n)
        ahead = NULL; /* the last block, shorter: not worth a second loop */
    if (exact) {
        dots_accumulate_exact(acc, n, st, rp, v);
        return;
    }
    switch (v->type) {
    case AT_ELEM_F16:
        dots_accumulate_as(AT_ELEM_F16, acc, n, st, rp, v, ahead);
        break;
    case AT_ELEM_BF16:
        dots_accumulate_as(AT_ELEM_BF16, acc, n, st, rp, v, ahead);
        break;
    case AT_ELEM_Q8_0:
        dots_accumulate_as(AT_ELEM_Q8_0, acc, n, st, rp, v, ahead);
        break;
    case AT_ELEM_Q4_0:
        dots_accumulate_as(AT_ELEM_Q4_0, acc, n, st, rp, v, ahead);
        break;
    case AT_ELEM_Q4_1:
        dots_accumulate_as(AT_ELEM_Q4_1, acc, n, st, rp, v, ahead);
        break;
    default:
        dots_accumulate_as(AT_ELEM_F32, acc, n, st, rp, v, ahead);
    }
}

/* ---- the end ---- */

static void dots_merge(float *state, const float *other, int n, int64_t dv, float scale)
{
    float unit = scale * log2_e;
    int64_t padded = at_simd_round(dv, 32);
    for (int r = 0; r < n; r++) {
        float *m = state + r, *l = m + DOTS_ROWS, *acc = state + 2 * DOTS_ROWS + r * padded;
        float om = other[r], ol = other[r + DOTS_ROWS];
        const float *oacc = other + 2 * DOTS_ROWS + r * padded;
        float to = *l == 0.0f ? om : ol == 0.0f ? *m : fmaxf(*m, om);
        float f = *l == 0.0f ? 0.0f : exp2f((*m - to) * unit);
        float g = ol == 0.0f ? 0.0f : exp2f((om - to) * unit);
        *m = to;
        *l = *l * f + ol * g;
        for (int64_t d = 0; d < padded; d += VL)
            vstore(acc + d, vfma(vload(acc + d), vset(f), vmul(vload(oacc + d), vset(g))));
    }
}

INLINE void scale_row(enum at_elem type, void *y, const float *x, float by, int64_t n)
{
    int64_t d = 0;
    for (; d + VL <= n; d += VL)
        store_as(type, y, d, vmul(vload(x + d), vset(by)));
    if (d < n)
        store_as_n(type, y, d, vmul(vload_n(x + d, (int)(n - d)), vset(by)), (int)(n - d));
}

static void dots_finish(const float *state, int n, int64_t dv, const float *sink, void *const *out,
                        enum at_elem type, float *lse, float scale)
{
    const float *acc = state + 2 * DOTS_ROWS;
    for (int r = 0; r < n; r++, acc += at_simd_round(dv, 32)) {
        float by = row_end(state[r], state[DOTS_ROWS + r], sink ? sink[r] : -INFINITY, scale,
                           lse ? lse + r : NULL);
        if (!out[r])
            continue;
        if (type == AT_ELEM_F16)
            scale_row(AT_ELEM_F16, out[r], acc, by, dv);
        else if (type == AT_ELEM_BF16)
            scale_row(AT_ELEM_BF16, out[r], acc, by, dv);
        else
            scale_row(AT_ELEM_F32, out[r], acc, by, dv);
    }
}

#endif
