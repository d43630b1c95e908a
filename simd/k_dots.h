/* SPDX-License-Identifier: MIT */
/* Attention in the decode shape: lanes are channels, for few packed rows that share every key and
 * value read.  A tile of scores is a few keys by a few rows, each sum a vector; VL of these are
 * reduced together into a vector of the block st[key][rp], rp = at_simd_dots_stride(rows).
 *
 * Private layouts: Q [rp / rt][dk up to 32, / VL][rt][VL] for tiles of rt rows, zero-padded; state
 * m[16], l[16], acc[row][dv up to 32]. */
#ifndef AT_K_DOTS_H
#define AT_K_DOTS_H

#include "k_attn.h"

#define DOTS_ROWS 16
#define DOTS_KEYS 32
#define STEPS (VL > 8 ? 32 : 16) /* channels of a quantised block that dots_steps does at once */

/* Rows of a tile, of rp. */
INLINE int dots_tile_rows(int64_t rp)
{
    return rp < 4 ? (int)rp : 4;
}

INLINE void dots_pack_row(enum at_elem type, float *qd, int64_t step, const void *row, int64_t dk,
                          float scale)
{
    for (int64_t d = 0; d < dk; d += VL, qd += step) {
        V q = dk - d < VL ? load_as_n(type, row, d, (int)(dk - d)) : load_as(type, row, d);
        vstore(qd, vmul(q, vset(scale)));
    }
}

static void dots_pack_q(float *qd, const void *const *rows, int n, enum at_elem type, int64_t dk,
                        float scale)
{
    int rt = dots_tile_rows(at_simd_dots_stride(n));
    int64_t padded = at_simd_round(dk, 32), step = rt * VL;
    memset(qd, 0, (size_t)at_simd_dots_q_floats(n, dk) * sizeof *qd);
    for (int r = 0; r < n; r++) {
        float *to = qd + r / rt * rt * padded + r % rt * VL;
        if (!rows[r])
            continue;
        if (type == AT_ELEM_F16)
            dots_pack_row(AT_ELEM_F16, to, step, rows[r], dk, scale);
        else if (type == AT_ELEM_BF16)
            dots_pack_row(AT_ELEM_BF16, to, step, rows[r], dk, scale);
        else
            dots_pack_row(AT_ELEM_F32, to, step, rows[r], dk, scale);
    }
}

/* ---- scores ---- */

/* Quantised rows that several rows of queries read become f32 first, as many at a time as stay in
 * L1: channels [d0, d1) of rows from j on, which are found there as if the rows were whole. */
#define STAGE 4096
static struct at_rows stage_rows(float stage[STAGE], const struct at_rows *r, int64_t j, int64_t d0,
                                 int64_t d1)
{
    int64_t width = d1 - d0, most = r->width < STAGE / 16 ? STAGE / r->width : 16;
    int64_t n = r->n - j < most ? r->n - j : most;
    for (int64_t e = 0; e < n; e++)
        load_row(stage + e * width, r->type,
                 (const char *)row_at(r, j + e) + d0 / 32 * at_elem_size(r->type), width);
    return (struct at_rows){stage - d0, width, n, r->width, AT_ELEM_F32};
}

/* Rows [j, j + n) of those to come, where there are so many, into the cache. */
static void prefetch_rows(const struct at_rows *ahead, int64_t j, int64_t n)
{
    for (int64_t end = j + n; ahead && j < end && j < ahead->n; j++)
        for (int64_t b = 0; b < row_bytes(ahead); b += 64)
            vprefetch((const char *)row_at(ahead, j) + b);
}

/* A tile is rt rows and so many keys that their sums hide the latency of additions. */
INLINE int dots_tile_keys(enum at_elem type, int rt)
{
    return rt == 1 ? 8 : TILE > 6 ? 16 / rt : rt == 2 || is_quantised(type) ? 8 / rt : 12 / rt;
}

/* z[x * rt + r] = q[r] . key x over channels [d0, d1), in lanes that are still to be added.
 * What comes next is prefetched along the way, so that its misses spread. */
INLINE void dots_tile(enum at_elem type, int rt, V z[16], const float *q, const char *const *row,
                      int64_t d0, int64_t d1, const char *next, int64_t next_bytes)
{
    const int kt = dots_tile_keys(type, rt);
    const int64_t group = is_quantised(type) ? at_elem_size(type) : 32 * at_elem_size(type);
    int64_t d = d0, whole = is_quantised(type) ? d1 : d1 - 31;
#pragma GCC unroll 16
    for (int e = 0; e < kt * rt; e++)
        z[e] = vzero();
    q += d0 * rt;
    for (; d < whole; d += 32, q += 32 * rt) {
        if (next)
#pragma GCC unroll 8
            for (int x = 0; x < kt; x++)
                for (int64_t b = 0; b < group; b += 64)
                    vprefetch(next + x * next_bytes + d / 32 * group + b);
        if (is_quantised(type)) {
#pragma GCC unroll 8
            for (int x = 0; x < kt; x++) {
                V w[32 / VL];
                load_block(type, w, row[x], d / 32);
#pragma GCC unroll 8
                for (int e = 0; e < 32; e += VL)
#pragma GCC unroll 8
                    for (int r = 0; r < rt; r++)
                        z[x * rt + r] = vfma(w[e / VL], vload(q + e * rt + r * VL), z[x * rt + r]);
            }
            continue;
        }
#pragma GCC unroll 8
        for (int e = 0; e < 32; e += VL) {
            V k[8];
#pragma GCC unroll 8
            for (int x = 0; x < kt; x++)
                k[x] = load_as(type, row[x], d + e);
#pragma GCC unroll 8
            for (int r = 0; r < rt; r++) {
                V one = vload(q + e * rt + r * VL);
#pragma GCC unroll 8
                for (int x = 0; x < kt; x++)
                    z[x * rt + r] = vfma(k[x], one, z[x * rt + r]);
            }
        }
    }
    for (; d < d1; d += VL, q += VL * rt)
#pragma GCC unroll 8
        for (int x = 0; x < kt; x++) {
            V k =
                d1 - d < VL ? load_as_n(type, row[x], d, (int)(d1 - d)) : load_as(type, row[x], d);
#pragma GCC unroll 8
            for (int r = 0; r < rt; r++)
                z[x * rt + r] = vfma(k, vload(q + r * VL), z[x * rt + r]);
        }
}

/* Channels [d0, d1) of a block of scores; from d0 = 0 stored, else added. */
struct dots_part {
    float *st;
    const float *qd;
    int64_t rp, d0, d1;
    const struct at_rows *k, *ahead;
};

/* Scores of the keys from j on and rows r .. r + rt, in the order of the block. */
INLINE void dots_put(int rt, const struct dots_part *p, int64_t r, int64_t j, V sums)
{
    float some[VL], *to = p->st + j * p->rp + r;
    int64_t left = p->k->n - j;
    if (rt == p->rp && left * rt >= VL) {
        vstore(to, p->d0 ? vadd(vload(to), sums) : sums);
        return;
    }
    vstore(some, sums);
    for (int x = 0; x < VL / rt && x < left; x++, to += p->rp)
#pragma GCC unroll 4
        for (int e = 0; e < rt; e++)
            to[e] = p->d0 ? to[e] + some[x * rt + e] : some[x * rt + e];
}

/* Scores of rows r .. r + rt. */
INLINE void dots_some_rows(enum at_elem type, int rt, const struct dots_part *p, int64_t r)
{
    const int kt = dots_tile_keys(type, rt);
    const struct at_rows *k = p->k, *ahead = r ? NULL : p->ahead;
    int64_t bytes = k->stride * at_elem_size(type), padded = at_simd_round(k->width, 32);
    int64_t next_bytes = ahead ? ahead->stride * at_elem_size(type) : 0;
    V sums[(DOTS_KEYS + 8) * 4];
    for (int64_t j = 0; j < k->n; j += kt) {
        V z[16];
        const char *row[8];
#pragma GCC unroll 8
        for (int x = 0; x < kt; x++) /* past the last, the last again */
            row[x] = (const char *)k->base + (j + x < k->n ? j + x : k->n - 1) * bytes;
        dots_tile(type, rt, z, p->qd + r * padded, row, p->d0, p->d1,
                  ahead ? (const char *)ahead->base + j * next_bytes : NULL, next_bytes);
        if (kt * rt == VL)
            dots_put(rt, p, r, j, vsums(z));
        else
#pragma GCC unroll 16
            for (int e = 0; e < kt * rt; e++)
                sums[j * rt + e] = z[e];
    }
    for (int64_t j = 0; kt * rt != VL && j < k->n; j += VL / rt)
        dots_put(rt, p, r, j, vsums(sums + j * rt));
}

INLINE void dots_part_as(enum at_elem type, const struct dots_part *p)
{
    switch (p->rp) {
    case 1:
        dots_some_rows(type, 1, p, 0);
        break;
    case 2:
        dots_some_rows(type, 2, p, 0);
        break;
    default:
        for (int64_t r = 0; r < p->rp; r += 4)
            dots_some_rows(type, 4, p, r);
    }
}

static void dots_part_staged(const struct dots_part *p)
{
    float stage[STAGE];
    struct at_rows rows;
    struct dots_part q = *p;
    q.k = &rows;
    q.ahead = NULL;
    for (int64_t j = 0; j < p->k->n; j += rows.n) {
        rows.n = p->k->n;
        for (q.d0 = p->d0; q.d0 < p->d1; q.d0 = q.d1) {
            q.d1 = p->d1 - q.d0 < STAGE / 16 ? p->d1 : q.d0 + STAGE / 16;
            q.st = p->st + j * p->rp;
            rows = stage_rows(stage, p->k, j, q.d0, q.d1);
            prefetch_rows(p->ahead, j, rows.n);
            dots_part_as(AT_ELEM_F32, &q);
        }
    }
}

static void dots_part(const struct dots_part *p)
{
    if (is_quantised(p->k->type) && p->rp > 4) {
        dots_part_staged(p);
        return;
    }
    switch (any_type(p->k->type)) {
    case AT_ELEM_F16:
        dots_part_as(AT_ELEM_F16, p);
        break;
    case AT_ELEM_BF16:
        dots_part_as(AT_ELEM_BF16, p);
        break;
    case AT_ELEM_Q8_0:
        dots_part_as(AT_ELEM_Q8_0, p);
        break;
    case AT_ELEM_Q4_0:
        dots_part_as(AT_ELEM_Q4_0, p);
        break;
    case AT_ELEM_Q4_1:
        dots_part_as(AT_ELEM_Q4_1, p);
        break;
    default:
        dots_part_as(AT_ELEM_F32, p);
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
        lane[e] = (e & (rp - 1)) < n ? state[e & (rp - 1)] : 0.0f;
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

/* acc[r][0 .. ns * VL) += sum of st[j][r] v[j] over channels from d on, for rt rows; `some` < VL:
 * only so many channels.  Each row brings `lines` of those to come into the cache, at next. */
INLINE void dots_strip(enum at_elem type, int rt, int ns, float *acc, int64_t padded,
                       const float *st, int64_t rp, const struct at_rows *v, int64_t d, int some,
                       const char *next, int64_t next_bytes, int64_t lines)
{
    V z[8][STRIP];
#pragma GCC unroll 8
    for (int r = 0; r < rt; r++)
#pragma GCC unroll 4
        for (int s = 0; s < ns; s++)
            z[r][s] = vzero();
    int64_t size = at_elem_size(type), bytes = v->stride * size;
    const char *row = (const char *)v->base + d * size;
#pragma GCC unroll 2
    for (int64_t j = 0; j < v->n; j++, row += bytes, st += rp, next += next_bytes) {
        V value[STRIP];
        if (lines)
            vprefetch(next);
        if (lines > 1)
            vprefetch(next + 64);
#pragma GCC unroll 4
        for (int s = 0; s < ns; s++)
            value[s] = some < VL ? load_as_n(type, row, 0, some) : load_as(type, row, s * VL);
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

/* The same for the channels [from, from + ns * VL) of one block of quantised rows, all of it or
 * half: the weights st[j][r] were multiplied by the scales of their blocks. */
INLINE void dots_steps(enum at_elem type, int rt, int from, float *acc, int64_t padded,
                       const float *st, const struct at_rows *v, int64_t block)
{
    enum { NS = STEPS / VL };
    V z[8][NS];
#pragma GCC unroll 8
    for (int r = 0; r < rt; r++)
#pragma GCC unroll 4
        for (int s = 0; s < NS; s++)
            z[r][s] = vzero();
    const char *row = v->base;
    int64_t bytes = v->stride * at_elem_size(type);
    for (int64_t j = 0; j < v->n; j++, row += bytes, st += rt) {
        V w[32 / VL];
        load_steps(type, w, row, block);
#pragma GCC unroll 8
        for (int r = 0; r < rt; r++) {
            V p = vset(st[r]);
#pragma GCC unroll 4
            for (int s = 0; s < NS; s++)
                z[r][s] = vfma(p, w[from / VL + s], z[r][s]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rt; r++)
#pragma GCC unroll 4
        for (int s = 0; s < NS; s++) {
            float *to = acc + r * padded + block * 32 + from + s * VL;
            vstore(to, vadd(vload(to), z[r][s]));
        }
}

/* Lines of the rows to come are shared out over the strips, so that their misses spread. */
INLINE void dots_strips(enum at_elem type, int rt, float *acc, const float *st, int64_t rp,
                        const struct at_rows *v, const struct at_rows *ahead)
{
    const int ns = rt > 4 ? STRIP / 2 : STRIP;
    int64_t dv = v->width, padded = at_simd_round(dv, 32), d = 0, next_bytes = 0, bytes = 0;
    const char *next = v->base;
    if (ahead) {
        next = ahead->base;
        next_bytes = ahead->stride * at_elem_size(ahead->type);
        bytes = row_bytes(ahead);
    }
    for (; d + ns * VL <= dv; d += ns * VL)
        dots_strip(type, rt, ns, acc, padded, st, rp, v, d, VL, next + d * bytes / dv / 64 * 64,
                   next_bytes, (d + ns * VL) * bytes / dv / 64 - d * bytes / dv / 64);
    for (; d + VL <= dv; d += VL)
        dots_strip(type, rt, 1, acc, padded, st, rp, v, d, VL, next, 0, 0);
    if (d < dv)
        dots_strip(type, rt, 1, acc, padded, st, rp, v, d, (int)(dv - d), next, 0, 0);
}

INLINE void dots_blocks(enum at_elem type, int rt, float *acc, const float *st, int64_t rp,
                        const struct at_rows *v, const struct at_rows *ahead)
{
    float p[DOTS_KEYS * 8 + VL];
    int64_t padded = at_simd_round(v->width, 32), bytes = v->stride * at_elem_size(type);
    int64_t blocks = padded / 32, next_bytes = ahead ? ahead->stride * at_elem_size(type) : 0;
    for (int64_t block = 0; block < blocks; block++) {
        const char *row = (const char *)v->base + block * at_elem_size(type);
        const char *next = ahead ? (const char *)ahead->base + block * at_elem_size(type) : NULL;
        for (int64_t j = 0; j < v->n; j++, row += bytes, next += next_bytes) {
            if (ahead)
                vprefetch(next);
            V d = vset_f16((const uint16_t *)(const void *)row);
            for (int r = 0; r < rt; r += VL)
                vstore(p + j * rt + r,
                       vmul(d, rt < VL ? vload_n(st + j * rp, rt) : vload(st + j * rp + r)));
        }
#pragma GCC unroll 2
        for (int from = 0; from < 32; from += STEPS)
            dots_steps(type, rt, from, acc, padded, p, v, block);
    }
}

INLINE void dots_rows(enum at_elem type, int rt, float *acc, const float *st, int64_t rp,
                      const struct at_rows *v, const struct at_rows *ahead)
{
    if (is_quantised(type))
        dots_blocks(type, rt, acc, st, rp, v, ahead);
    else
        dots_strips(type, rt, acc, st, rp, v, ahead);
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
    switch (any_type(v->type)) {
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
