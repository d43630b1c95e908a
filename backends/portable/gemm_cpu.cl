/* SPDX-License-Identifier: MIT */
/* The products of gemm.cl for CPUs: a work item is a core, so there is no local memory and no barrier.  AT_B
 * is the type of b. */
#define ROWS 128   /* of c that an item of matmul_cpu has, */
#define COLUMNS 96 /* a multiple of AT_TILE */
#define DEPTH 256  /* of k at a time */

/* Where the matrices of the batch's entry begin. */
struct at_bases {
    at_i64 a, b, c;
};

AT_FN struct at_bases bases_of(const struct at_k_matmul *a, at_i64 rest)
{
    struct at_bases x;
    x.a = a->a_at, x.b = a->b_at, x.c = a->c_at;
    for (int d = 3; d >= 0; d--) {
        at_i64 i = rest % a->batch[d];
        rest /= a->batch[d];
        x.a += i * a->a_batch[d];
        x.b += i * a->b_batch[d];
        x.c += i * a->c_batch[d];
    }
    return x;
}

/* k of [from, from + n), of a row or column. */
AT_FN void stage_k(float *to, AT_GLOBAL const uchar *p, at_i64 at, at_i64 step, int from, int n, int type)
{
    if (step == 1 || type == AT_Q8_0 || type == AT_Q4_0 || type == AT_Q4_1)
        at_stage(to, p, at, from, n, type, 1.0f);
    else
        for (int k = 0; k < n; k++)
            to[k] = at_load(p, at + (from + k) * step, type);
}

/* x: COLUMNS of c; y: ROWS of it; z: entry of the batch. */
AT_KERNEL AT_GROUP(1) void matmul_cpu(const struct at_k_matmul a, AT_GLOBAL const uchar *pa,
                                      AT_GLOBAL const uchar *pb, AT_GLOBAL uchar *pc)
{
    float as[ROWS * DEPTH], bs[COLUMNS * DEPTH], c[ROWS * COLUMNS], row[DEPTH];
    at_i64 n0 = AT_GROUP_X * COLUMNS, m0 = AT_GROUP_Y * ROWS;
    struct at_bases at = bases_of(&a, AT_GROUP_Z);
    int nm = a.m - m0 < ROWS ? (int)(a.m - m0) : ROWS, nn = a.n - n0 < COLUMNS ? (int)(a.n - n0) : COLUMNS;
    int strips = (nm + AT_STRIP - 1) / AT_STRIP, wide = (nn + AT_TILE - 1) / AT_TILE * AT_TILE;
    for (int e = 0; e < strips * AT_STRIP * wide; e++)
        c[e] = 0.0f;
    for (int k0 = 0; k0 < a.k; k0 += DEPTH) {
        int nk = a.k - k0 < DEPTH ? (int)(a.k - k0) : DEPTH;
        for (int r = 0; r < strips * AT_STRIP; r++) { /* strips of [k][AT_STRIP] */
            float *to = as + r / AT_STRIP * AT_STRIP * DEPTH + r % AT_STRIP;
            if (r < nm)
                stage_k(row, pa, at.a + (m0 + r) * a.a_row, a.a_k, k0, nk, a.a_type);
            for (int k = 0; k < nk; k++)
                to[k * AT_STRIP] = r < nm ? row[k] : 0.0f;
        }
        for (int n = 0; n < wide; n++)
            if (n < nn)
                stage_k(bs + n * DEPTH, pb, at.b + (n0 + n) * a.b_n, a.b_k, k0, nk, AT_B);
            else
                for (int k = 0; k < nk; k++)
                    bs[n * DEPTH + k] = 0.0f;
        for (int s = 0; s < strips; s++)
            for (int n = 0; n < wide; n += AT_TILE)
                at_tile_add(c + (s * wide + n) * AT_STRIP, 1.0f, 1.0f, as + s * AT_STRIP * DEPTH,
                            bs + n * DEPTH, DEPTH, 1, nk);
    }
    for (int r = 0; r < nm; r++)
        for (int n = 0; n < nn; n++)
            at_store(pc, at.c + (m0 + r) * a.c_row + (n0 + n) * a.c_n, a.c_type,
                     c[(r / AT_STRIP * wide + n) * AT_STRIP + r % AT_STRIP]);
}

#undef COLUMNS
#define COLUMNS 16 /* of c that an item of matvec_cpu has, */
#define FEW 4      /* and rows: all */
#define SPAN 1024  /* of k at a time */

AT_KERNEL AT_GROUP(1) void matvec_cpu(const struct at_k_matmul a, AT_GLOBAL const uchar *pa,
                                      AT_GLOBAL const uchar *pb, AT_GLOBAL uchar *pc)
{
    float rows[FEW * SPAN], b[SPAN], sum[FEW * COLUMNS];
    at_i64 n0 = AT_GROUP_X * COLUMNS;
    struct at_bases at = bases_of(&a, AT_GROUP_Z);
    int nm = (int)a.m, nn = a.n - n0 < COLUMNS ? (int)(a.n - n0) : COLUMNS;
    for (int e = 0; e < FEW * COLUMNS; e++)
        sum[e] = 0.0f;
    for (int k0 = 0; k0 < a.k; k0 += SPAN) {
        int nk = a.k - k0 < SPAN ? (int)(a.k - k0) : SPAN;
        int padded = (nk + 4 * AT_LANES - 1) / (4 * AT_LANES) * (4 * AT_LANES);
        for (int m = 0; m < nm; m++) {
            stage_k(rows + m * SPAN, pa, at.a + m * a.a_row, a.a_k, k0, nk, a.a_type);
            for (int k = nk; k < padded; k++)
                rows[m * SPAN + k] = 0.0f;
        }
        for (int k = nk; k < padded; k++)
            b[k] = 0.0f;
        for (int n = 0; n < nn; n++) {
            stage_k(b, pb, at.b + (n0 + n) * a.b_n, a.b_k, k0, nk, AT_B);
            for (int m = 0; m < nm; m++) {
                at_vec z0 = 0.0f, z1 = 0.0f, z2 = 0.0f, z3 = 0.0f; /* four, not to wait for each other */
                const float *x = rows + m * SPAN;
                for (int k = 0; k < padded / AT_LANES; k += 4) {
                    z0 = fma(at_vget(k, x), at_vget(k, b), z0);
                    z1 = fma(at_vget(k + 1, x), at_vget(k + 1, b), z1);
                    z2 = fma(at_vget(k + 2, x), at_vget(k + 2, b), z2);
                    z3 = fma(at_vget(k + 3, x), at_vget(k + 3, b), z3);
                }
                sum[m * COLUMNS + n] += at_vsum((z0 + z1) + (z2 + z3));
            }
        }
    }
    for (int m = 0; m < nm; m++)
        for (int n = 0; n < nn; n++)
            at_store(pc, at.c + m * a.c_row + (n0 + n) * a.c_n, a.c_type, sum[m * COLUMNS + n]);
}
