/* SPDX-License-Identifier: MIT */
/* Products with quantised weights that were packed once.  VL rows of weights are interleaved, so a
 * lane is a row, weights stream past in the order of memory, and nothing is reduced across lanes.
 *
 * Packed: for each group of VL rows, for each block of 32 columns: the scales of the rows (q4_1: d
 * and m in f16; others: d in f32), then the blocks' words of four bytes, word c of all rows side by
 * side.  Nibble j of word c is column 4c + j / 2, plus 16 where j is odd; byte j of word c of q8_0
 * is column 4c + j.  Rows past the last are zeros.
 *
 * Activations are rows of whole blocks: floats and the sum of each block; or integers -127 .. 127
 * with a scale and sums of each block.  A sum over k is made of sums over blocks, in order,
 * and the order within a block is the same for every number of rows. */
#ifndef AT_K_QUANT_H
#define AT_K_QUANT_H

#include "k_attn.h"

#define PACKED_ROWS 32 /* more are worth making floats of the weights */
#define AHEAD 5120     /* bytes of weights that are prefetched: about what memory takes to answer */

INLINE int64_t block_scales(enum at_elem type) /* bytes of them in a packed block */
{
    (void)type; /* two of f16, or one of f32 */
    return 4 * VL;
}
INLINE int64_t block_words(enum at_elem type)
{
    return type == AT_ELEM_Q8_0 ? 8 : 4;
}
INLINE int64_t block_bytes(enum at_elem type)
{
    return block_scales(type) + block_words(type) * 4 * VL;
}

/* ---- packing ---- */

/* Row r of a group's block at `to`. */
static void pack_row(char *to, int r, enum at_elem type, const char *from)
{
    const char *words = from + at_elem_size(type) - 4 * block_words(type);
    uint16_t d;
    memcpy(&d, from, sizeof d);
    if (type == AT_ELEM_Q4_1) {
        memcpy(to + 2 * r, from, 2);
        memcpy(to + 2 * (VL + r), from + 2, 2);
    } else {
        float wide = at_half_to_float(d);
        memcpy(to + 4 * r, &wide, sizeof wide);
    }
    for (int c = 0; c < block_words(type); c++)
        memcpy(to + block_scales(type) + 4 * (c * VL + r), words + 4 * c, 4);
}

static void pack_weights(void *dst, const struct at_rows *w)
{
    int64_t kb = (w->width + 31) / 32, bytes = block_bytes(w->type), size = at_elem_size(w->type);
    for (int64_t n = 0; n < w->n; n += VL) {
        char *group = (char *)dst + n / VL * kb * bytes;
        if (w->n - n < VL)
            memset(group, 0, (size_t)(kb * bytes));
        for (int r = 0; r < VL && n + r < w->n; r++)
            for (int64_t b = 0; b < kb; b++)
                pack_row(group + b * bytes, r, w->type, (const char *)row_at(w, n + r) + b * size);
    }
}

/* ---- activations ---- */

/* Where the parts of packed activations lie. */
struct acts {
    int64_t kp, kb; /* columns and blocks of a row */
    float *v;       /* [m][kp] */
    int8_t *q;      /* or [m][kp] */
    float *d;       /* its [m][kb] scales */
    float *sum;     /* [m][kb] */
    int32_t *total; /* [m][kb]: sums of q */
};
INLINE struct acts acts_of(const struct at_matmul *mm)
{
    struct acts x = {.kb = (mm->k + 31) / 32};
    x.kp = 32 * x.kb;
    x.sum = mm->x;
    x.d = x.sum + mm->m * x.kb;
    x.v = x.d;
    x.total = (int32_t *)(void *)(x.d + mm->m * x.kb);
    x.q = (int8_t *)(x.total + mm->m * x.kb);
    return x;
}

/* A block of floats to integers.  *sum, which was theirs, becomes that of what they were rounded
 * to: what a weight has in common with its block must meet the same errors as what is its own.  The
 * scale is NaN where a number is none. */
static void quantise(const float *v, int8_t *q, float *sum, float *d, int32_t *total)
{
    V top = vzero();
    int32_t bits[32], all = 0;
#pragma GCC unroll 8
    for (int e = 0; e < 32; e += VL)
        top = vmax(top, vabs(vload(v + e)));
    float most = vtop(top), by = most > 0.0f ? 127.0f / most : 0.0f;
    if (!(by <= FLT_MAX)) /* a subnormal: as good as nothing */
        by = 0.0f;
#pragma GCC unroll 8
    for (int e = 0; e < 32; e += VL) { /* the low bits of a large number are the nearest integer */
        V n = vadd(vmul(vload(v + e), vset(by)), vset(0x1.8p23f));
        vstore((float *)(void *)bits + e, n);
    }
    for (int e = 0; e < 32; e++) {
        q[e] = (int8_t)bits[e];
        all += q[e];
    }
    *d = (by > 0.0f ? most / 127.0f : 0.0f) + 0.0f * *sum;
    *sum = *d * (float)all;
    *total = all;
}

static void pack_acts(const struct at_matmul *mm, int64_t i0, int64_t i1)
{
    struct acts x = acts_of(mm);
    for (int64_t i = i0; i < i1; i++) {
        const char *a = (const char *)mm->a + i * mm->a_stride * at_elem_size(mm->a_type);
        for (int64_t b = 0; b < x.kb; b++) {
            float block[32], *v = mm->int8 ? block : x.v + i * x.kp + 32 * b;
            int64_t some = mm->k - 32 * b < 32 ? mm->k - 32 * b : 32, at = i * x.kb + b;
            if (some < 32)
                memset(v, 0, sizeof block);
            load_row(v, mm->a_type, a + 32 * b * at_elem_size(mm->a_type), some);
            V sum = vload(v);
#pragma GCC unroll 8
            for (int e = VL; e < 32; e += VL)
                sum = vadd(sum, vload(v + e));
            x.sum[at] = vsum(sum);
            if (mm->int8)
                quantise(v, x.q + i * x.kp + 32 * b, x.sum + at, x.d + at, x.total + at);
        }
    }
}

/* ---- one group of rows of weights, a few rows of activations ---- */

/* A weight is d (n - 8) + m for a nibble n, d n for a byte n. */
INLINE V load_scales(enum at_elem type, const char *w, V *m)
{
    if (type != AT_ELEM_Q4_1)
        return vload((const float *)(const void *)w);
    V d = vload_f16((const uint16_t *)(const void *)w);
    *m = vload_f16((const uint16_t *)(const void *)(w + 2 * VL));
    return d;
}

INLINE void prefetch_weights(const char *w, int64_t bytes)
{
    for (int64_t b = 0; b < bytes; b += 64)
        vprefetch(w + AHEAD + b);
}

/* One word of weights, float by float, to the sums of its block: even and odd ones apart, since one
 * chain of sums would be slower than memory. */
INLINE void add_word(enum at_elem type, int nx, V p[][2], VQ q, const float *v, int64_t kp)
{
    const int bytes = type == AT_ELEM_Q8_0;
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++) {
        if (bytes && j >= 4)
            break;
        V n = bytes ? vq_byte(q, j) : vq_nibble(q, j);
        int64_t k = bytes ? j : j / 2 + 16 * (j % 2);
#pragma GCC unroll 16
        for (int x = 0; x < nx; x++)
            p[x][j % 2] = vfma(n, vset(v[x * kp + k]), p[x][j % 2]);
    }
}

INLINE void float_tile(enum at_elem type, int nx, V z[], const char *w, const struct acts *a,
                       int64_t i)
{
    const float *v = a->v + i * a->kp, *sum = a->sum + i * a->kb;
    const float one = type == AT_ELEM_Q8_0 ? BYTE_ONE : NIBBLE_ONE;
#pragma GCC unroll 16
    for (int x = 0; x < nx; x++)
        z[x] = vzero();
    for (int64_t b = 0; b < a->kb; b++, v += 32, sum++, w += block_bytes(type)) {
        V p[INT_FEW][2], m, d; /* INT_FEW: never less than FEW */
        prefetch_weights(w, block_bytes(type));
#pragma GCC unroll 16
        for (int x = 0; x < nx; x++)
            p[x][0] = p[x][1] = vzero();
#pragma GCC unroll 8
        for (int c = 0; c < 8; c++)
            if (c < block_words(type))
                add_word(type, nx, p, vq_load(w + block_scales(type) + 4 * VL * c), v + 4 * c,
                         a->kp);
        d = load_scales(type, w, &m);
        if (type == AT_ELEM_Q4_1)
            m = vfma(d, vset(8.0f), m);
        if (one != 1.0f)
            d = vmul(d, vset(1 / one));
#pragma GCC unroll 16
        for (int x = 0; x < nx; x++) {
            z[x] = vfma(d, vadd(p[x][0], p[x][1]), z[x]);
            if (type == AT_ELEM_Q4_1)
                z[x] = vfma(m, vset(sum[x * a->kb]), z[x]);
        }
    }
}

/* The same with integer products; dot: the CPU has an instruction for them. */
INLINE void int_tile(enum at_elem type, int dot, int nx, V z[], const char *w, const struct acts *a,
                     int64_t i)
{
    const int8_t *v = a->q + i * a->kp;
    const int bias = type == AT_ELEM_Q4_1 ? 0 : type == AT_ELEM_Q4_0 ? 8 : vq_bias(dot);
    int64_t at = i * a->kb;
#pragma GCC unroll 16
    for (int x = 0; x < nx; x++)
        z[x] = vzero();
    for (int64_t b = 0; b < a->kb; b++, v += 32, at++, w += block_bytes(type)) {
        VQ n[INT_FEW];
        V m, d = load_scales(type, w, &m);
        prefetch_weights(w, block_bytes(type));
#pragma GCC unroll 16
        for (int x = 0; x < nx; x++)
            n[x] = vq_set(-bias * a->total[at + x * a->kb]);
#pragma GCC unroll 8
        for (int c = 0; c < block_words(type); c++) {
            VQ q = vq_load(w + block_scales(type) + 4 * VL * c);
#pragma GCC unroll 16
            for (int x = 0; x < nx; x++) {
                const int8_t *k = v + x * a->kp + 4 * c;
                if (type == AT_ELEM_Q8_0) {
                    n[x] = vq_dot_s8(n[x], q, vq_set_bytes(k), dot);
                } else {
                    n[x] = vq_dot_u4(n[x], vq_low(q), vq_set_bytes(k), dot);
                    n[x] = vq_dot_u4(n[x], vq_high(q), vq_set_bytes(k + 16), dot);
                }
            }
        }
#pragma GCC unroll 16
        for (int x = 0; x < nx; x++) {
            z[x] = vfma(vmul(d, vset(a->d[at + x * a->kb])), vq_float(n[x]), z[x]);
            if (type == AT_ELEM_Q4_1)
                z[x] = vfma(m, vset(a->sum[at + x * a->kb]), z[x]);
        }
    }
}

/* ---- products ---- */

INLINE void store_lanes(enum at_elem type, void *to, V v, int some)
{
    if (some == VL)
        store_as(type, to, 0, v);
    else
        store_as_n(type, to, 0, v, some);
}

/* Rows [i, i + nx) of columns [n, n + VL), of which `some` exist. */
INLINE void packed_tile(enum at_elem type, int how, int nx, const struct at_matmul *mm,
                        const struct acts *a, const char *w, int64_t i, int64_t n, int some)
{
    V z[TILE];
    int64_t size = at_elem_size(mm->c_type);
    if (how == 0)
        float_tile(type, nx, z, w, a, i);
    else
        int_tile(type, how == 2, nx, z, w, a, i);
#pragma GCC unroll 16
    for (int x = 0; x < nx; x++) {
        char *to = (char *)mm->c + ((i + x) * mm->c_stride + n) * size;
        if (mm->c_type == AT_ELEM_F32)
            store_lanes(AT_ELEM_F32, to, z[x], some);
        else if (mm->c_type == AT_ELEM_F16)
            store_lanes(AT_ELEM_F16, to, z[x], some);
        else
            store_lanes(AT_ELEM_BF16, to, z[x], some);
    }
}

/* Columns [n0, n1), n0 a multiple of VL; how: 0 floats, 1 integers, 2 by the CPU's dot products.
 * Rows go by the largest of four heights that is left: more of them would be faster for a few m,
 * and as much code again each. */
INLINE void packed_columns(enum at_elem type, int how, const struct at_matmul *mm, int64_t i0,
                           int64_t i1, int64_t n0, int64_t n1)
{
    const struct acts a = acts_of(mm);
    const int most = how == 0 ? FEW : how == 1 ? 2 : INT_FEW;
    for (int64_t n = n0; n < n1; n += VL) {
        const char *w = (const char *)mm->b + n / VL * a.kb * block_bytes(type);
        int some = n1 - n < VL ? (int)(n1 - n) : VL;
        int64_t i = i0;
        for (; i + most <= i1; i += most)
            packed_tile(type, how, most, mm, &a, w, i, n, some);
        for (; most > 4 && i + 4 <= i1; i += 4)
            packed_tile(type, how, most > 4 ? 4 : 1, mm, &a, w, i, n, some);
        if (most > 2 && i + 2 <= i1) {
            packed_tile(type, how, 2, mm, &a, w, i, n, some);
            i += 2;
        }
        for (; i < i1; i++)
            packed_tile(type, how, 1, mm, &a, w, i, n, some);
    }
}

static void packed_floats(const struct at_matmul *mm, int64_t i0, int64_t i1, int64_t n0,
                          int64_t n1)
{
    if (mm->b_type == AT_ELEM_Q8_0)
        packed_columns(AT_ELEM_Q8_0, 0, mm, i0, i1, n0, n1);
    else if (mm->b_type == AT_ELEM_Q4_0)
        packed_columns(AT_ELEM_Q4_0, 0, mm, i0, i1, n0, n1);
    else
        packed_columns(AT_ELEM_Q4_1, 0, mm, i0, i1, n0, n1);
}

INLINE void packed_integers(int how, const struct at_matmul *mm, int64_t i0, int64_t i1, int64_t n0,
                            int64_t n1)
{
    if (mm->b_type == AT_ELEM_Q8_0)
        packed_columns(AT_ELEM_Q8_0, how, mm, i0, i1, n0, n1);
    else if (mm->b_type == AT_ELEM_Q4_0)
        packed_columns(AT_ELEM_Q4_0, how, mm, i0, i1, n0, n1);
    else
        packed_columns(AT_ELEM_Q4_1, how, mm, i0, i1, n0, n1);
}

static void matmul_packed(const struct at_matmul *mm, int64_t i0, int64_t i1, int64_t n0,
                          int64_t n1)
{
    if (!mm->int8)
        packed_floats(mm, i0, i1, n0, n1);
#ifdef VQ_HAS_DOT
    else if (mm->int8 == AT_INT8_DOT)
        packed_integers(2, mm, i0, i1, n0, n1);
#endif
    else
        packed_integers(1, mm, i0, i1, n0, n1);
}

/* ---- many rows: a slice of weights back to floats ---- */

INLINE void unpack_block(enum at_elem type, float *bp, const char *w, int64_t columns)
{
    const int bytes = type == AT_ELEM_Q8_0;
    V m = vzero(), d = load_scales(type, w, &m);
    if (type == AT_ELEM_Q4_1)
        m = vfma(d, vset(8.0f), m);
    d = vmul(d, vset(1 / (bytes ? BYTE_ONE : NIBBLE_ONE)));
#pragma GCC unroll 8
    for (int c = 0; c < block_words(type); c++) {
        VQ q = vq_load(w + block_scales(type) + 4 * VL * c);
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++) {
            if (bytes && j >= 4)
                break;
            int64_t k = 4 * c + (bytes ? j : j / 2 + 16 * (j % 2));
            V n = bytes ? vq_byte(q, j) : vq_nibble(q, j);
            if (k < columns)
                vstore(bp + k * R, type == AT_ELEM_Q4_1 ? vfma(n, d, m) : vmul(n, d));
        }
    }
}

INLINE void unpack_columns_as(enum at_elem type, float *bp, const struct at_matmul *mm, int64_t n,
                              int cols, int64_t k0, int64_t depth)
{
    int64_t kb = (mm->k + 31) / 32;
    for (int g = 0; g < R; g += VL) {
        const char *w = (const char *)mm->b + ((n + g) / VL * kb + k0 / 32) * block_bytes(type);
        for (int64_t t = 0; t < depth; t += 32, w += block_bytes(type))
            if (g < cols)
                unpack_block(type, bp + t * R + g, w, depth - t);
            else
                for (int64_t e = t; e < t + 32 && e < depth; e++)
                    vstore(bp + e * R + g, vzero());
    }
}

/* As pack_columns (k_gemm.h) of packed weights. */
static void unpack_columns(float *bp, const struct at_matmul *mm, int64_t n, int cols, int64_t k0,
                           int64_t depth)
{
    if (mm->b_type == AT_ELEM_Q8_0)
        unpack_columns_as(AT_ELEM_Q8_0, bp, mm, n, cols, k0, depth);
    else if (mm->b_type == AT_ELEM_Q4_0)
        unpack_columns_as(AT_ELEM_Q4_0, bp, mm, n, cols, k0, depth);
    else
        unpack_columns_as(AT_ELEM_Q4_1, bp, mm, n, cols, k0, depth);
}

#endif
