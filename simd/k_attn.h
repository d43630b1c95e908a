/* SPDX-License-Identifier: MIT */
/* Attention in the panel shape: lanes are packed rows, keys and channels are broadcast.  One
 * micro-kernel does both products: `contract` keeps TILE x R sums in registers.
 *
 * Packed layouts, private to this table: Q [dk][R]; V: for each tile of channels (see
 * cut) [keys_per_block][width]; state m[R], l[R], acc[dv][R]. */
#ifndef AT_K_ATTN_H
#define AT_K_ATTN_H

#include <float.h>

#include "k_math.h"

#define KEYS 192  /* keys_per_block: of weights, 192 R floats, stay in L1 */
#define LAZY 24.f /* a score may pass its reference by this before the reference moves */

/* CASE(n) for each width of a tile. */
#if TILE > 6
#    define EACH_WIDTH(CASE)                                                                       \
        CASE(1)                                                                                    \
        CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
#elif TILE > 4
#    define EACH_WIDTH(CASE) CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
#else
#    define EACH_WIDTH(CASE) CASE(1) CASE(2) CASE(3) CASE(4)
#endif

/* n keys or channels are cut into tiles of nearly equal width, so that none is too narrow to hide
 * the latency of its sums: first `wide` tiles of `width`, then `narrow` of width - 1. */
struct tiles {
    int width;
    int64_t wide, narrow;
};
INLINE struct tiles cut(int64_t n)
{
    int64_t count = (n + TILE - 1) / TILE;
    struct tiles t = {0, 0, 0};
    if (count) {
        t.width = (int)((n + count - 1) / count);
        t.narrow = t.width * count - n;
        t.wide = count - t.narrow;
    }
    return t;
}

/* z[x][lane] += sum over t < nt of a[t][lane] * b[x * bx + t * bt], in the order of t; nx is a
 * constant where this is inlined. */
INLINE void contract(int nx, V z[TILE][NV], const float *a, const float *b, int64_t bx, int64_t bt,
                     int64_t nt)
{
#pragma GCC unroll 4
    for (int64_t t = 0; t < nt; t++) {
        V lanes[NV];
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++)
            lanes[v] = vload(a + t * R + v * VL);
#pragma GCC unroll 16
        for (int x = 0; x < nx; x++) {
            V one = vset(b[x * bx + t * bt]);
#pragma GCC unroll 4
            for (int v = 0; v < NV; v++)
                z[x][v] = vfma(lanes[v], one, z[x][v]);
        }
    }
}

/* Columns d0 .. d0 + n of R rows (NULL: zeros), times scale, to dst[n][R]. */
INLINE void pack_lanes_as(enum at_elem type, float *dst, const void *const *rows, int64_t d0,
                          int64_t n, float scale)
{
    for (int g = 0; g < R; g += VL)
        for (int64_t d = 0; d < n; d += VL) {
            V t[VL];
            int some = n - d < VL ? (int)(n - d) : VL;
#pragma GCC unroll 16
            for (int r = 0; r < VL; r++)
                t[r] = !rows[g + r] ? vzero()
                       : some == VL ? load_as(type, rows[g + r], d0 + d)
                                    : load_as_n(type, rows[g + r], d0 + d, some);
            vtranspose(t);
#pragma GCC unroll 16
            for (int e = 0; e < VL; e++)
                if (e < some)
                    vstore(dst + (d + e) * R + g, vmul(t[e], vset(scale)));
        }
}

/* The same for quantised rows (whose scale is 1), a block at a time; d0 is a multiple of 32. */
INLINE void pack_blocks_as(enum at_elem type, float *dst, const void *const *rows, int64_t d0,
                           int64_t n)
{
    for (int g = 0; g < R; g += VL)
        for (int64_t d = 0; d < n; d += 32) {
            V t[32 / VL][VL];
#pragma GCC unroll 16
            for (int r = 0; r < VL; r++) {
                V w[32 / VL];
#pragma GCC unroll 8
                for (int c = 0; c < 32 / VL; c++)
                    w[c] = vzero();
                if (rows[g + r])
                    load_block(type, w, rows[g + r], (d0 + d) / 32);
#pragma GCC unroll 8
                for (int c = 0; c < 32 / VL; c++)
                    t[c][r] = w[c];
            }
#pragma GCC unroll 8
            for (int c = 0; c < 32 / VL; c++) {
                vtranspose(t[c]);
                for (int e = 0; e < VL && d + c * VL + e < n; e++)
                    vstore(dst + (d + c * VL + e) * R + g, t[c][e]);
            }
        }
}

static void pack_lanes(float *dst, const void *const *rows, enum at_elem type, int64_t d0,
                       int64_t n, float scale)
{
    switch (any_type(type)) {
    case AT_ELEM_F16:
        pack_lanes_as(AT_ELEM_F16, dst, rows, d0, n, scale);
        break;
    case AT_ELEM_BF16:
        pack_lanes_as(AT_ELEM_BF16, dst, rows, d0, n, scale);
        break;
    case AT_ELEM_Q8_0:
        pack_blocks_as(AT_ELEM_Q8_0, dst, rows, d0, n);
        break;
    case AT_ELEM_Q4_0:
        pack_blocks_as(AT_ELEM_Q4_0, dst, rows, d0, n);
        break;
    case AT_ELEM_Q4_1:
        pack_blocks_as(AT_ELEM_Q4_1, dst, rows, d0, n);
        break;
    default:
        pack_lanes_as(AT_ELEM_F32, dst, rows, d0, n, scale);
    }
}

static void pack_q(float *qp, const void *const *rows, enum at_elem type, int64_t dk, float scale)
{
    pack_lanes(qp, rows, type, 0, dk, scale);
}

static void pack_k(float *dst, const struct at_rows *k)
{
    for (int64_t j = 0; j < k->n; j++)
        load_row(dst + j * k->width, k->type, row_at(k, j), k->width);
}

static int finite_row(const float *x, int64_t n)
{
    V all = vbits(0x7f800000);
    int64_t d = 0;
    for (; d + VL <= n; d += VL)
        if (vany(veq_bits(vand(vload(x + d), all), all)))
            return 0;
    return d == n || !vany(veq_bits(vand(vload_n(x + d, (int)(n - d)), all), all));
}

INLINE void copy_columns(int width, float *vp, const float *row, int64_t tiles)
{
    for (; tiles > 0; tiles--, vp += width * KEYS, row += width)
        memcpy(vp, row, (size_t)width * sizeof *vp);
}

/* A row of f32 to row j of a packed block. */
static void spread_row(float *vp, int64_t j, const float *row, int64_t dv)
{
    struct tiles t = cut(dv);
    for (int half = 0; half < 2; half++) {
        int width = half ? t.width - 1 : t.width;
        int64_t tiles = half ? t.narrow : t.wide;
        switch (tiles ? width : 0) {
#define CASE(nx)                                                                                   \
case nx:                                                                                           \
    copy_columns(nx, vp + j * nx, row, tiles);                                                     \
    break;
            EACH_WIDTH(CASE)
#undef CASE
        }
        vp += width * tiles * KEYS;
        row += width * tiles;
    }
}

static int pack_v(float *vp, int64_t j0, const struct at_rows *v, const uint8_t *hidden)
{
    static const float zeros[AT_SIMD_MAX_HEAD];
    float buffer[AT_SIMD_MAX_HEAD];
    int odd = 0;
    for (int64_t j = 0; j < v->n; j++) {
        const float *row = row_at(v, j);
        if (hidden && hidden[j]) {
            row = zeros;
        } else if (v->type != AT_ELEM_F32) {
            load_row(buffer, v->type, row, v->width);
            row = buffer;
        }
        odd |= !finite_row(row, v->width);
        spread_row(vp, j0 + j, row, v->width);
    }
    return odd;
}

/* ---- scores ---- */

INLINE void scores_tile(int nx, float *st, const float *qp, const float *k, int64_t stride,
                        int64_t dk)
{
    V z[TILE][NV];
#pragma GCC unroll 16
    for (int x = 0; x < nx; x++)
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++)
            z[x][v] = vzero();
    contract(nx, z, qp, k, stride, 1, dk);
#pragma GCC unroll 16
    for (int x = 0; x < nx; x++)
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++)
            vstore(st + x * R + v * VL, z[x][v]);
}

static void scores(float *st, int64_t j0, const float *qp, const struct at_rows *k)
{
    const float *key = k->base;
    struct tiles t = cut(k->n);
    st += j0 * R;
    for (int half = 0; half < 2; half++) {
        int64_t tiles = half ? t.narrow : t.wide;
        switch (tiles ? t.width - half : 0) {
#define CASE(nx)                                                                                   \
case nx:                                                                                           \
    for (; tiles > 0; tiles--, st += nx * R, key += nx * k->stride)                                \
        scores_tile(nx, st, qp, key, k->stride, k->width);                                         \
    break;
            EACH_WIDTH(CASE)
#undef CASE
        }
    }
}

/* ---- softmax ---- */

/* How far a score may pass the reference: by anything if no key was seen. */
INLINE V lead(V l, float unit)
{
    return vsel(veq(l, vzero()), vset(-INFINITY), vset(LAZY / unit));
}

/* Moves the reference of the lanes where top (relative to it) passes its lead, up to top: what was
 * summed so far, and the block's weights before j0, shrink by 2^-delta. */
static __attribute__((noinline)) void move_reference(const V top[NV], float *delta, float *st,
                                                     int64_t j0, float *state, int64_t dv,
                                                     float scale)
{
    struct unit u = unit_of(scale);
    V factor[NV];
    int shrinks = 0;
    for (int v = 0; v < NV; v++) {
        float *ms = state + v * VL, *ls = ms + R;
        V m = vload(ms), l = vload(ls);
        V to = vmin(vset(FLT_MAX), vadd(m, top[v]));
        to = vsel(vgt(top[v], lead(l, scale * log2_e)), to, m);
        V by = vsub(to, m);
        factor[v] = vsel(veq(l, vzero()), vset(1.0f), vweight(vsub(vzero(), by), u));
        shrinks |= vany(vgt(vset(1.0f), factor[v]));
        vstore(ms, to);
        vstore(ls, vmul(l, factor[v]));
        vstore(delta + v * VL, by);
    }
    if (!shrinks)
        return;
    float *acc = state + 2 * R;
    for (int v = 0; v < NV; v++) {
        for (int64_t d = 0; d < dv; d++)
            vstore(acc + d * R + v * VL, vmul(vload(acc + d * R + v * VL), factor[v]));
        for (int64_t j = 0; j < j0; j++)
            vstore(st + j * R + v * VL, vmul(vload(st + j * R + v * VL), factor[v]));
    }
}

static void softmax_step(float *st, int64_t j0, int64_t n, float *state, int64_t dv, float scale)
{
    struct unit u = unit_of(scale);
    float *tile = st + j0 * R, delta[R];
    V top[NV];
    int passes = 0;
    for (int v = 0; v < NV; v++) {
        V best = vset(-INFINITY);
        for (int64_t j = 0; j < n; j++)
            best = vmax(best, vload(tile + j * R + v * VL));
        top[v] = vsub(best, vload(state + v * VL));
        passes |= vany(vgt(top[v], lead(vload(state + R + v * VL), scale * log2_e)));
    }
    if (passes)
        move_reference(top, delta, st, j0, state, dv, scale);
    for (int v = 0; v < NV; v++) {
        V m = vload(state + v * VL), l = vload(state + R + v * VL);
        for (int64_t j = 0; j < n; j++) {
            V s = vload(tile + j * R + v * VL), p = vweight(vsub(s, m), u);
            p = vsel(veq(s, vset(-INFINITY)), vbits(0x80000000), p);
            l = vadd(l, p);
            vstore(tile + j * R + v * VL, p);
        }
        vstore(state + R + v * VL, l);
    }
}

#define LINE 16 /* floats that come into the cache at once */
#define LINE_BYTES (LINE * (int64_t)sizeof(float))

/* Lines of what is ahead are asked for a few at a time, so that their misses spread. */
struct lines {
    struct at_ahead list;
    int64_t at; /* in the first row of the list */
    int64_t each;
};
INLINE struct lines lines_of(const struct at_ahead *ahead, int64_t times)
{
    struct lines l = {0};
    for (const struct at_ahead *a = ahead; a && times > 0; a = a->then) {
        if (l.list.n == 0)
            l.list = *a;
        l.each += a->n * ((a->bytes + LINE_BYTES - 1) / LINE_BYTES);
    }
    l.each = l.each ? (l.each + times - 1) / times : 0;
    return l;
}
INLINE void ask(struct lines *l)
{
    for (int64_t e = 0; e < l->each && l->list.n > 0; e++) {
        vprefetch((const char *)*l->list.row + l->at);
        l->at += LINE_BYTES;
        if (l->at < l->list.bytes)
            continue;
        l->at = 0;
        l->list.row++;
        if (--l->list.n == 0 && l->list.then)
            l->list = *l->list.then;
    }
}

/* The rows, of vector v of them, that do not see key j of the block. */
INLINE VM blind(const struct at_edges *e, int v, int64_t j)
{
    V at = vset((float)j + 0.5f);
    return vor_m(vgt(vload(e->low + v * VL), at), vgt(at, vload(e->high + v * VL)));
}

/* Weights of keys [j, j + nx) get the mark of hidden keys where they are. */
static __attribute__((noinline)) void mark_hidden(float *tile, int64_t j, int nx,
                                                  const struct at_edges *edges)
{
    for (int x = 0; x < nx; x++)
        for (int v = 0; v < NV; v++) {
            float *p = tile + x * R + v * VL;
            vstore(p, vsel(blind(edges, v, j + x), vbits(0x80000000), vload(p)));
        }
}

/* Sums start at -m, so that a score leaves them ready for vweight. */
INLINE void softmax_tile(int nx, float *st, int64_t j, const float *qp, const float *k,
                         int64_t stride, int64_t dk, float *state, int64_t dv, float scale,
                         struct unit u, const struct at_edges *edges, struct lines *ahead)
{
    V z[TILE][NV], top[NV];
    float *tile = st + j * R, delta[R];
    int hides = edges && (j < edges->full || j + nx > edges->full_end);
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) {
        V m = vsub(vzero(), vload(state + v * VL));
#pragma GCC unroll 16
        for (int x = 0; x < nx; x++)
            z[x][v] = m;
    }
    if (!ahead->each)
        contract(nx, z, qp, k, stride, 1, dk);
    else
        for (int64_t d = 0; d < dk; d += LINE) {
            ask(ahead);
            contract(nx, z, qp + d * R, k + d, stride, 1, dk - d < LINE ? dk - d : LINE);
        }
    if (hides)
#pragma GCC unroll 16
        for (int x = 0; x < nx; x++)
#pragma GCC unroll 4
            for (int v = 0; v < NV; v++)
                z[x][v] = vsel(blind(edges, v, j + x), vset(-INFINITY), z[x][v]);
    VM passes[NV];
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) {
        top[v] = z[0][v];
#pragma GCC unroll 16
        for (int x = 1; x < nx; x++)
            top[v] = vmax(top[v], z[x][v]);
        passes[v] = vgt(top[v], lead(vload(state + R + v * VL), scale * log2_e));
        if (v)
            passes[0] = vor_m(passes[0], passes[v]);
    }
    if (__builtin_expect(vany(passes[0]), 0)) {
#pragma GCC unroll 16
        for (int x = 0; x < nx; x++)
#pragma GCC unroll 4
            for (int v = 0; v < NV; v++)
                vstore(tile + x * R + v * VL, z[x][v]);
        move_reference(top, delta, st, j, state, dv, scale);
#pragma GCC unroll 16
        for (int x = 0; x < nx; x++)
#pragma GCC unroll 4
            for (int v = 0; v < NV; v++)
                z[x][v] = vsub(vload(tile + x * R + v * VL), vload(delta + v * VL));
    }
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) {
        V l = vload(state + R + v * VL);
#pragma GCC unroll 16
        for (int x = 0; x < nx; x++) {
            V p = vweight(z[x][v], u);
            vstore(tile + x * R + v * VL, p);
            l = vadd(l, p);
        }
        vstore(state + R + v * VL, l);
    }
    if (hides)
        mark_hidden(tile, j, nx, edges);
}

static void scores_softmax(float *st, int64_t j0, const float *qp, const struct at_rows *k,
                           float *state, int64_t dv, float scale, const struct at_edges *edges,
                           const struct at_ahead *ahead)
{
    struct unit u = unit_of(scale);
    const float *key = k->base;
    struct tiles t = cut(k->n);
    struct lines lines = lines_of(ahead, (t.wide + t.narrow) * ((k->width + LINE - 1) / LINE));
    for (int half = 0; half < 2; half++) {
        int64_t tiles = half ? t.narrow : t.wide;
        switch (tiles ? t.width - half : 0) {
#define CASE(nx)                                                                                   \
case nx:                                                                                           \
    for (; tiles > 0; tiles--, j0 += nx, key += nx * k->stride)                                    \
        softmax_tile(nx, st, j0, qp, key, k->stride, k->width, state, dv, scale, u, edges,         \
                     &lines);                                                                      \
    break;
            EACH_WIDTH(CASE)
#undef CASE
        }
    }
}

/* ---- weights times values ---- */

/* A block's products are summed by themselves, then added: error grows with blocks, not with keys.
 */
INLINE void accumulate_tile(int nx, float *acc, const float *st, const float *vp, int64_t n,
                            int first, struct lines *ahead)
{
    V z[TILE][NV];
#pragma GCC unroll 16
    for (int x = 0; x < nx; x++)
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++)
            z[x][v] = vzero();
    if (!ahead->each)
        contract(nx, z, st, vp, 1, nx, n);
    else
        for (int64_t j = 0; j < n; j += LINE) {
            ask(ahead);
            contract(nx, z, st + j * R, vp + j * nx, 1, nx, n - j < LINE ? n - j : LINE);
        }
#pragma GCC unroll 16
    for (int x = 0; x < nx; x++)
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++) {
            float *to = acc + x * R + v * VL;
            vstore(to, first ? z[x][v] : vadd(vload(to), z[x][v]));
        }
}

/* Channel by channel, with a select for each weight. */
static void accumulate_exact(int64_t width, float *acc, const float *st, const float *vp, int64_t n,
                             int first)
{
    for (int64_t x = 0; x < width; x++)
        for (int v = 0; v < NV; v++) {
            V sum = vzero();
            float *to = acc + x * R + v * VL;
            for (int64_t j = 0; j < n; j++) {
                V p = vload(st + j * R + v * VL), pv = vmul(p, vset(vp[j * width + x]));
                sum = vadd(sum, vsel(veq_bits(p, vbits(0x80000000)), vzero(), pv));
            }
            vstore(to, first ? sum : vadd(vload(to), sum));
        }
}

static void accumulate(float *state, int64_t dv, const float *st, const float *vp, int64_t j0,
                       int64_t j1, int first, int exact, const struct at_ahead *ahead)
{
    float *acc = state + 2 * R;
    int64_t n = j1 - j0;
    struct tiles t = cut(dv);
    struct lines lines = lines_of(ahead, (t.wide + t.narrow) * ((n + LINE - 1) / LINE));
    st += j0 * R;
    for (int half = 0; half < 2; half++) {
        int64_t width = t.width - half, tiles = half ? t.narrow : t.wide;
        for (; exact && tiles > 0; tiles--, acc += width * R, vp += width * KEYS)
            accumulate_exact(width, acc, st, vp + j0 * width, n, first);
        switch (tiles ? width : 0) {
#define CASE(nx)                                                                                   \
case nx:                                                                                           \
    for (; tiles > 0; tiles--, acc += nx * R, vp += nx * KEYS)                                     \
        accumulate_tile(nx, acc, st, vp + j0 * nx, n, first, &lines);                              \
    break;
            EACH_WIDTH(CASE)
#undef CASE
        }
    }
}

/* ---- the end of a row ---- */

/* The factors that bring two partial results to one reference; 0 for a side that saw nothing. */
INLINE void common_reference(V *m, V l, V other_m, V other_l, V *factor, V *other_factor,
                             struct unit u)
{
    VM none = veq(l, vzero()), other_none = veq(other_l, vzero());
    V to = vsel(none, other_m, vsel(other_none, *m, vmax(*m, other_m)));
    *factor = vsel(none, vzero(), vweight(vsub(*m, to), u));
    *other_factor = vsel(other_none, vzero(), vweight(vsub(other_m, to), u));
    *m = to;
}

static void merge(float *state, const float *other, int64_t dv, float scale)
{
    struct unit u = unit_of(scale);
    for (int v = 0; v < NV; v++) {
        V m = vload(state + v * VL), l = vload(state + R + v * VL), f, g;
        V other_l = vload(other + R + v * VL);
        common_reference(&m, l, vload(other + v * VL), other_l, &f, &g, u);
        vstore(state + v * VL, m);
        vstore(state + R + v * VL, vfma(l, f, vmul(other_l, g)));
        for (int64_t d = 2; d < dv + 2; d++) {
            float *acc = state + d * R + v * VL;
            V sum = vmul(vload(other + d * R + v * VL), g);
            vstore(acc, vfma(vload(acc), f, sum));
        }
    }
}

/* 1 / l with the sink in l, or 0 where nothing was visible; and lse.  The sink may lie far above
 * the reference, so both are brought to the larger. */
static float row_end(float m, float l, float sink, float scale, float *lse)
{
    float factor = 1.0f;
    m *= scale;
    if (sink != -INFINITY) {
        float to = l == 0.0f ? sink : fmaxf(m, sink);
        factor = l == 0.0f ? 0.0f : expf(m - to);
        l = l * factor + expf(sink - to);
        m = to;
    }
    if (lse)
        *lse = l == 0.0f ? -INFINITY : m + logf(l);
    return l == 0.0f ? 0.0f : factor / l;
}

INLINE void finish_as(enum at_elem type, const float *acc, int64_t dv, const float *by,
                      void *const *out)
{
    for (int g = 0; g < R; g += VL)
        for (int64_t d = 0; d < dv; d += VL) {
            V t[VL], inv = vload(by + g);
            int some = dv - d < VL ? (int)(dv - d) : VL;
#pragma GCC unroll 16
            for (int e = 0; e < VL; e++)
                t[e] = e < some ? vmul(vload(acc + (d + e) * R + g), inv) : vzero();
            vtranspose(t);
#pragma GCC unroll 16
            for (int r = 0; r < VL; r++) {
                if (!out[g + r])
                    continue;
                if (some == VL)
                    store_as(type, out[g + r], d, t[r]);
                else
                    store_as_n(type, out[g + r], d, t[r], some);
            }
        }
}

static void finish(const float *state, int64_t dv, const float *sink, void *const *out,
                   enum at_elem type, float *lse, float scale)
{
    float by[R];
    for (int v = 0; v < NV; v++) {
        V l = vload(state + R + v * VL);
        vstore(by + v * VL, vsel(veq(l, vzero()), vzero(), vdiv(vset(1.0f), l)));
    }
    for (int r = 0; (sink || lse) && r < R; r++)
        by[r] = row_end(state[r], state[R + r], sink ? sink[r] : -INFINITY, scale,
                        lse ? lse + r : NULL);
    if (type == AT_ELEM_F16)
        finish_as(AT_ELEM_F16, state + 2 * R, dv, by, out);
    else if (type == AT_ELEM_BF16)
        finish_as(AT_ELEM_BF16, state + 2 * R, dv, by, out);
    else
        finish_as(AT_ELEM_F32, state + 2 * R, dv, by, out);
}

#endif
