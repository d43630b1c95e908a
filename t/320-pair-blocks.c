/* SPDX-License-Identifier: MIT */
/* The block functions that look at one (row, key) pair after the other, against plain C. */
#include "kernel.h"

static const float **random_rows(int64_t n, int64_t width, float size)
{
    const float **rows = malloc((size_t)n * sizeof *rows);
    for (int64_t r = 0; r < n; r++) {
        float *row = malloc((size_t)width * sizeof *row);
        for (int64_t d = 0; d < width; d++)
            row[d] = (float)uniform(-(double)size, (double)size);
        rows[r] = row;
    }
    return rows;
}

static void free_rows(const float **rows, int64_t n)
{
    for (int64_t r = 0; r < n; r++)
        free((void *)(uintptr_t)rows[r]);
    free(rows);
}

/* Each term is good to 20 u, their sum to dk + 12 u (lib/ref_bound.c). */
static void test_additive(const struct at_simd *t, int64_t dk, int64_t keys, float size)
{
    int64_t n = t->rows_per_panel, j0 = 3;
    const float **q = random_rows(n, dk, size), **va = random_rows(1, dk, 1);
    float *k = taken_floats(keys * (dk + 2)), *qp = taken_floats(at_simd_q_floats(t, 2 * dk));
    float *st = taken_floats(at_simd_block_floats(t));
    struct at_rows key = {k, dk + 2, keys, dk, AT_ELEM_F32};
    struct worst w = {0};
    double all = 0;
    for (int64_t j = 0; j < keys; j++)
        for (int64_t d = 0; d < dk + 2; d++)
            k[j * (dk + 2) + d] = d < dk ? (float)uniform(-(double)size, (double)size) : NAN;
    k[(keys - 1) * (dk + 2)] = keys > 1 ? NAN : 0;
    for (int64_t d = 0; d < dk; d++)
        all += fabs((double)va[0][d]);
    t->pack_q(qp, (const void *const *)q, AT_ELEM_F32, dk, 1);
    t->additive_pack_q(qp, dk);
    t->additive_scores(st, j0, qp, &key, va[0]);
    for (int64_t j = 0; j < keys; j++)
        for (int64_t r = 0; r < n; r++) {
            double want = 0;
            for (int64_t d = 0; d < dk; d++)
                want += (double)va[0][d] * tanh((double)q[r][d] + (double)k[j * (dk + 2) + d]);
            compare(&w, (double)st[(j0 + j) * n + r], want, (double)(dk + 32) * UNIT * all, j, r);
        }
    is_close(&w, "%s: additive scores, %d channels, %d keys, up to %g", t->name, (int)dk, (int)keys,
             (double)size);
    ok(released(k, 0) & released(qp, 0) & released(st, 0), "%s: nothing is written beside them",
       t->name);
    free_rows(q, n), free_rows(va, 1);
}

static void test_isa(const struct at_simd *t)
{
    static const int64_t sizes[] = {1, 2, 17, 64, 576};
    for (size_t n = 0; n < NELEM(sizes); n++) {
        test_additive(t, sizes[n], 1 + (int64_t)n * 13, 1);
        test_additive(t, sizes[n], 1 + (int64_t)n * 7, 9.9f);
        test_additive(t, sizes[n], 5, 50);
    }
}

int main(void)
{
    each_isa(test_isa);
    return done_testing();
}
