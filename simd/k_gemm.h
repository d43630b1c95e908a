/* SPDX-License-Identifier: MIT */
/* Matrix product on the micro-kernels of attention.  Many rows: `contract`, lanes are R columns of
 * c (so c is written by rows), rows of a are broadcast; slices of DEPTH of k are packed, a's once
 * for all columns, multiplied and added to c in order.  Few rows: the dot products of the decode
 * shape, b's rows as keys, so weights are read once and converted in registers. */
#ifndef AT_K_GEMM_H
#define AT_K_GEMM_H

#include "k_dots.h"
#include "k_quant.h"

#define FEW_FLOATS 6144 /* of a few rows of a, that stay in L1 while b's rows pass */
#define DEPTH 512       /* of k a slice; a multiple of 32: blocks are not split */
#define WIDE (12 * R)   /* columns whose slice of b is packed at once: they stay in L2 */
#define SMALL 192       /* columns of c that go together where c is not f32: sums wait in scratch */
#define ROWS_AT_ONCE 16 /* of b in [k][n]: long rows are read piece by piece, pages stay known */
#define MOST_ROWS 4096  /* whose slice of a is packed at once, to pass all columns */
#define TALL 96         /* rows that pass WIDE columns together: a multiple of TILE */
#define PIECE 32        /* of k between two prefetches of c */

/* Packed rows of a that come next, brought into the cache line by line. */
struct coming {
    const float *at, *end;
};
INLINE void fetch_line(struct coming *next)
{
    if (next->at < next->end)
        vprefetch(next->at);
    next->at += 16;
}

/* c[x][0 .. cols) = (first ? 0 : c) + a's rows times the packed slice of b.  With each piece of the
 * slice a row of c is brought into the cache, and some of `next`: all at once would keep b's lines
 * waiting. */
INLINE void product_tile(int nx, float *c, int64_t c_stride, int cols, int first, const float *bp,
                         const float *a, int64_t depth, struct coming *next)
{
    V z[TILE][NV];
#pragma GCC unroll 16
    for (int x = 0; x < nx; x++)
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++)
            z[x][v] = vzero();
    for (int64_t t = 0; t < depth; t += PIECE) {
        for (int e = 0; e < R && t < nx * PIECE; e += 16)
            vprefetch(c + t / PIECE * c_stride + e);
        fetch_line(next);
        fetch_line(next);
        contract(nx, z, bp + t * R, a + t, depth, 1, depth - t < PIECE ? depth - t : PIECE);
    }
#pragma GCC unroll 16
    for (int x = 0; x < nx; x++)
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++) {
            float *to = c + x * c_stride + v * VL;
            int some = cols - v * VL;
            if (some >= VL)
                vstore(to, first ? z[x][v] : vadd(vload(to), z[x][v]));
            else if (some > 0)
                vstore_n(to, first ? z[x][v] : vadd(vload_n(to, some), z[x][v]), some);
        }
}

/* The same for all columns: rows of a stay in L1, the slice of b streams past from L2. */
INLINE void product_panels(int nx, float *c, int64_t c_stride, int64_t cols, int first,
                           const float *bp, const float *a, int64_t depth, struct coming *next)
{
    for (int64_t n = 0; n < cols; n += R)
        product_tile(nx, c + n, c_stride, (int)(cols - n < R ? cols - n : R), first, bp + n * DEPTH,
                     a, depth, next);
}

static void product_rows(float *c, int64_t c_stride, int64_t cols, int first, const float *bp,
                         const float *a, int64_t rows, int64_t depth, struct coming *next)
{
    struct tiles t = cut(rows);
    for (int half = 0; half < 2; half++) {
        int64_t tiles = half ? t.narrow : t.wide;
        switch (tiles ? t.width - half : 0) {
#define CASE(nx)                                                                                   \
case nx:                                                                                           \
    for (; tiles > 0; tiles--, a += nx * depth, c += nx * c_stride)                                \
        product_panels(nx, c, c_stride, cols, first, bp, a, depth, next);                          \
    break;
            EACH_WIDTH(CASE)
#undef CASE
        }
    }
}

/* As pack_columns where b is [k][n]. */
INLINE void pack_kn_as(enum at_elem type, float *bp, const struct at_matmul *mm, int64_t n,
                       int cols, int64_t k0, int64_t depth)
{
    const char *row = (const char *)mm->b + (k0 * mm->b_stride + n) * at_elem_size(type);
    for (int64_t t = 0; t < depth; t++, bp += R, row += mm->b_stride * at_elem_size(type))
#pragma GCC unroll 4
        for (int v = 0; v < R; v += VL)
            vstore(bp + v, cols - v >= VL ? load_as(type, row, v)
                           : cols - v > 0 ? load_as_n(type, row, v, cols - v)
                                          : vzero());
}

/* Slice [k0, k0 + depth) of R columns of b from n on, to [depth][R]. */
static void pack_columns(float *bp, const struct at_matmul *mm, int64_t n, int cols, int64_t k0,
                         int64_t depth)
{
    int64_t size = at_elem_size(mm->b_type);
    if (is_packed(mm)) {
        unpack_columns(bp, mm, n, cols, k0, depth);
        return;
    }
    if (mm->b_is_kn) {
        if (mm->b_type == AT_ELEM_F16)
            pack_kn_as(AT_ELEM_F16, bp, mm, n, cols, k0, depth);
        else if (mm->b_type == AT_ELEM_BF16)
            pack_kn_as(AT_ELEM_BF16, bp, mm, n, cols, k0, depth);
        else
            pack_kn_as(AT_ELEM_F32, bp, mm, n, cols, k0, depth);
        return;
    }
    const void *rows[R];
    for (int r = 0; r < R; r++)
        rows[r] = r < cols ? (const char *)mm->b + (n + r) * mm->b_stride * size : NULL;
    pack_lanes(bp, rows, mm->b_type, k0, depth, 1.0f);
}

/* The same where a is [k][m]. */
INLINE void pack_turned_as(enum at_elem type, float *ap, const struct at_matmul *mm, int64_t i,
                           int64_t rows, int64_t k0, int64_t depth)
{
    const char *a = (const char *)mm->a + (k0 * mm->a_stride + i) * at_elem_size(type);
    for (int64_t r = 0; r < rows; r += VL)
        for (int64_t t = 0; t < depth; t += VL) {
            int some = rows - r < VL ? (int)(rows - r) : VL,
                deep = depth - t < VL ? (int)(depth - t) : VL;
            V x[VL];
#pragma GCC unroll 16
            for (int e = 0; e < VL; e++) {
                const char *row = a + (t + e) * mm->a_stride * at_elem_size(type);
                x[e] = e >= deep    ? vzero()
                       : some == VL ? load_as(type, row, r)
                                    : load_as_n(type, row, r, some);
            }
            vtranspose(x);
            for (int e = 0; e < some; e++)
                if (deep == VL)
                    vstore(ap + (r + e) * depth + t, x[e]);
                else
                    vstore_n(ap + (r + e) * depth + t, x[e], deep);
        }
}

static void pack_turned(float *ap, const struct at_matmul *mm, int64_t i, int64_t rows, int64_t k0,
                        int64_t depth)
{
    if (mm->a_type == AT_ELEM_F16)
        pack_turned_as(AT_ELEM_F16, ap, mm, i, rows, k0, depth);
    else if (mm->a_type == AT_ELEM_BF16)
        pack_turned_as(AT_ELEM_BF16, ap, mm, i, rows, k0, depth);
    else
        pack_turned_as(AT_ELEM_F32, ap, mm, i, rows, k0, depth);
}

/* Rows [i, i + rows) of slice [k0, k0 + depth) of a, to [rows][depth]. */
static void pack_rows(float *ap, const struct at_matmul *mm, int64_t i, int64_t rows, int64_t k0,
                      int64_t depth)
{
    int64_t size = at_elem_size(mm->a_type);
    if (mm->a_is_km) {
        pack_turned(ap, mm, i, rows, k0, depth);
        return;
    }
    for (int64_t r = 0; r < rows; r++)
        load_row(ap + r * depth, mm->a_type,
                 (const char *)mm->a + ((i + r) * mm->a_stride + k0) * size, depth);
}

INLINE void store_row_as(enum at_elem type, void *y, const float *x, int64_t n)
{
    int64_t d = 0;
    for (; d + VL <= n; d += VL)
        store_as(type, y, d, vload(x + d));
    if (d < n)
        store_as_n(type, y, d, vload_n(x + d, (int)(n - d)), (int)(n - d));
}

/* f32 to a row of f32, f16 or bf16. */
static void store_row(void *y, enum at_elem type, const float *x, int64_t n)
{
    if (type == AT_ELEM_F16)
        store_row_as(AT_ELEM_F16, y, x, n);
    else if (type == AT_ELEM_BF16)
        store_row_as(AT_ELEM_BF16, y, x, n);
    else
        memmove(y, x, (size_t)n * sizeof *x);
}

/* Columns [n0, n0 + cols) of c, cols <= WIDE, plus the products of one slice; a's is packed. */
static void product_slice(const struct at_matmul *mm, int64_t rows, int64_t n0, int64_t cols,
                          int64_t k0, int64_t depth, float *c32, int64_t c_stride, float *bp,
                          const float *ap)
{
    int64_t step = mm->b_is_kn ? ROWS_AT_ONCE : depth;
    for (int64_t t = 0; t < depth; t += step)
        for (int64_t n = 0; n < cols; n += R)
            pack_columns(bp + n * DEPTH + t * R, mm, n0 + n, (int)(cols - n < R ? cols - n : R),
                         k0 + t, depth - t < step ? depth - t : step);
    for (int64_t i = 0; i < rows; i += TALL) {
        int64_t some = rows - i < TALL ? rows - i : TALL;
        struct coming next = {ap + (i + some) * depth, ap + rows * depth};
        product_rows(c32 + i * c_stride, c_stride, cols, k0 == 0, bp, ap + i * depth, some, depth,
                     &next);
    }
}

/* Columns [n0, n1) of c, in f32 at c32. */
static void product_columns(const struct at_matmul *mm, int64_t i, int64_t rows, int64_t n0,
                            int64_t n1, float *c32, int64_t c_stride, float *bp, float *ap)
{
    for (int64_t k0 = 0; k0 < mm->k; k0 += DEPTH) {
        int64_t depth = mm->k - k0 < DEPTH ? mm->k - k0 : DEPTH;
        pack_rows(ap, mm, i, rows, k0, depth);
        for (int64_t n = n0; n < n1; n += WIDE)
            product_slice(mm, rows, n, n1 - n < WIDE ? n1 - n : WIDE, k0, depth, c32 + n - n0,
                          c_stride, bp, ap);
    }
}

/* So many rows of c, from i on. */
static void matmul_block(const struct at_matmul *mm, int64_t i, int64_t rows, int64_t n0,
                         int64_t n1, float *bp, float *ap)
{
    int64_t size = at_elem_size(mm->c_type), depth = mm->k < DEPTH ? mm->k : DEPTH;
    float *sums = ap + at_simd_round(rows * depth, 16);
    char *c = (char *)mm->c + (i * mm->c_stride + n0) * size;
    if (mm->c_type == AT_ELEM_F32) {
        product_columns(mm, i, rows, n0, n1, (float *)(void *)c, mm->c_stride, bp, ap);
        return;
    }
    for (int64_t n = n0; n < n1; n += SMALL, c += SMALL * size) {
        int64_t cols = n1 - n < SMALL ? n1 - n : SMALL;
        product_columns(mm, i, rows, n, n + cols, sums, SMALL, bp, ap);
        for (int64_t r = 0; r < rows; r++)
            store_row(c + r * mm->c_stride * size, mm->c_type, sums + r * SMALL, cols);
    }
}

static void matmul_many(const struct at_matmul *mm, int64_t i0, int64_t i1, int64_t n0, int64_t n1,
                        float *scratch)
{
    for (int64_t i = i0; i < i1; i += MOST_ROWS)
        matmul_block(mm, i, i1 - i < MOST_ROWS ? i1 - i : MOST_ROWS, n0, n1, scratch,
                     scratch + WIDE * DEPTH);
}

static void matmul_few(const struct at_matmul *mm, int64_t i0, int64_t i1, int64_t n0, int64_t n1,
                       float *scratch)
{
    int n = (int)(i1 - i0), widest = mm->one_form ? DOTS_ROWS : (int)mm->m;
    int64_t rp = at_simd_dots_stride(n), slice = FEW_FLOATS / at_simd_dots_stride(widest);
    const void *rows[DOTS_ROWS];
    float *x = scratch, *st = x + at_simd_dots_q_floats(n, mm->k), out[DOTS_KEYS];
    for (int r = 0; r < n; r++)
        rows[r] = (const char *)mm->a + (i0 + r) * mm->a_stride * at_elem_size(mm->a_type);
    dots_pack_q(x, rows, n, mm->a_type, mm->k, 1.0f);
    for (int64_t j = n0; j < n1; j += DOTS_KEYS) {
        struct at_rows w = {(const char *)mm->b + j * mm->b_stride * at_elem_size(mm->b_type),
                            mm->b_stride, n1 - j < DOTS_KEYS ? n1 - j : DOTS_KEYS, mm->k,
                            mm->b_type};
        for (int64_t k0 = 0; k0 < mm->k; k0 += slice) {
            struct dots_part p = {st, x, rp, k0, k0 + slice < mm->k ? k0 + slice : mm->k, &w, NULL};
            dots_part(&p);
        }
        for (int r = 0; r < n; r++) {
            for (int64_t e = 0; e < w.n; e++)
                out[e] = st[e * rp + r];
            store_row((char *)mm->c + ((i0 + r) * mm->c_stride + j) * at_elem_size(mm->c_type),
                      mm->c_type, out, w.n);
        }
    }
}

static void matmul(const struct at_matmul *mm, int64_t i0, int64_t i1, int64_t n0, int64_t n1,
                   float *scratch)
{
    if (i0 >= i1 || n0 >= n1)
        return;
    if (mm->k == 0) {
        float zero[R] = {0};
        for (int64_t i = i0; i < i1; i++)
            for (int64_t n = n0; n < n1; n += R)
                store_row((char *)mm->c + (i * mm->c_stride + n) * at_elem_size(mm->c_type),
                          mm->c_type, zero, n1 - n < R ? n1 - n : R);
    } else if (is_packed(mm) && (mm->int8 || mm->one_form || mm->m <= PACKED_ROWS)) {
        matmul_packed(mm, i0, i1, n0, n1);
    } else if ((mm->m <= DOTS_ROWS || mm->one_form) && !mm->b_is_kn && !mm->a_is_km &&
               !is_packed(mm)) {
        for (int64_t i = i0; i < i1; i += DOTS_ROWS)
            matmul_few(mm, i, i1 - i < DOTS_ROWS ? i1 : i + DOTS_ROWS, n0, n1, scratch);
    } else {
        matmul_many(mm, i0, i1, n0, n1, scratch);
    }
}

#endif
