/* SPDX-License-Identifier: MIT */
/* The block functions that look at one (row, key) pair after the other, against plain C. */
#include "element.h"
#include "kernel.h"
#include "philox.h"

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

/* A product and an exponential of 2 ulp: (|scale s| + |lse|) 2 u + 8 u. */
static void test_weights(const struct at_simd *t, int64_t keys, float scale)
{
    int64_t n = t->rows_per_panel, j0 = 2;
    const float **s = random_rows(keys, n, 5), **lse = random_rows(1, n, 9);
    float *st = taken_floats(at_simd_block_floats(t)), *of = taken_floats(n);
    struct worst w = {0};
    memcpy(of, lse[0], (size_t)n * sizeof *of);
    of[n - 1] = INFINITY;
    for (int64_t j = 0; j < keys; j++)
        for (int64_t r = 0; r < n; r++)
            st[(j0 + j) * n + r] = (j + r) % 5 == 4 ? -INFINITY : s[j][r];
    of[n / 2] = -INFINITY; /* of a row that sees nothing */
    for (int64_t j = 0; j < keys; j++)
        st[(j0 + j) * n + n / 2] = -INFINITY;
    t->weights(st, j0, keys, of, scale);
    for (int64_t j = 0; j < keys; j++)
        for (int64_t r = 0; r < n; r++) {
            bool hidden = (j + r) % 5 == 4 || r == n / 2;
            double x = (double)scale * (double)s[j][r], l = (double)of[r];
            double want = hidden ? 0 : exp(x - l);
            double error = 2 * UNIT * (fabs(x) + (isinf(l) ? 0 : fabs(l))) + 8 * UNIT;
            compare(&w, (double)st[(j0 + j) * n + r], want, want * expm1(error) + 1e-38, j, r);
        }
    is_close(&w, "%s: weights of %d keys at %g", t->name, (int)keys, (double)scale);
    ok(released(st, 0) & released(of, 0), "%s: nothing is written beside them", t->name);
    free_rows(s, keys), free_rows(lse, 1);
}

static void test_next_above(const struct at_simd *t)
{
    int64_t n = t->rows_per_panel, keys = 40, wrong = 0;
    float *st = taken_floats(keys * n), *least = taken_floats(n);
    for (int64_t r = 0; r < n; r++)
        least[r] = r % 3 ? 0 : -INFINITY;
    for (int64_t e = 0; e < keys * n; e++)
        st[e] = e % n % 3 ? 0 : -INFINITY;
    ok(t->next_above(st, 0, keys, least) == keys, "%s: nothing is above itself", t->name);
    for (int64_t r = 0; r < n; r++) {
        int64_t j = r * 7 % keys;
        float was = st[j * n + r];
        st[j * n + r] = 1e-30f;
        wrong += t->next_above(st, 0, keys, least) != j || t->next_above(st, j, keys, least) != j ||
                 t->next_above(st, j + 1, keys, least) != keys ||
                 t->next_above(st, 0, j, least) != j;
        st[j * n + r] = was;
    }
    st[3 * n] = NAN;
    ok(wrong == 0 && t->next_above(st, 0, keys, least) == keys,
       "%s: the next key above, in each row; NaN is not", t->name);
    released(st, 0), released(least, 0);
}

/* Rows [0, n) and keys [j0, j1) against one factor at a time; the mark of hidden keys stays. */
static void test_dropout(const struct at_simd *t, int n, int64_t stride, int64_t j0, int64_t j1)
{
    struct at_dropout d = at_dropout_of(0.4f, 0x1122334455667788, 5);
    float *st = taken_floats((j1 - j0) * stride);
    uint32_t i[64], bh[64];
    int64_t wrong = 0;
    for (int r = 0; r < n; r++) {
        i[r] = (uint32_t)pick(1000);
        bh[r] = (uint32_t)pick(50);
    }
    for (int64_t e = 0; e < (j1 - j0) * stride; e++)
        st[e] = e % 7 ? 3 : -0.0f;
    t->dropout(st, stride, n, j0, j1, &d, i, bh);
    for (int64_t e = 0; e < (j1 - j0) * stride; e++) {
        int64_t r = e % stride, j = j0 + e / stride;
        float was = e % 7 ? 3 : -0.0f, factor = 1;
        if (r < n)
            factor = at_dropout_factor(&d, bh[r], i[r], (uint32_t)j);
        wrong += st[e] != was * factor || (e % 7 == 0 && !signbit(st[e]));
    }
    ok(wrong == 0, "%s: dropout of %d rows, keys %d to %d", t->name, n, (int)j0, (int)j1);
    ok(released(st, 0), "%s: nothing is written beside them", t->name);
}

/* One sum each, so to the bit; -INFINITY hides a NaN, too.  Rows are as long as their keys, to the
 * byte. */
static void test_bias(const struct at_simd *t, enum at_pair type, int n, int64_t stride,
                      int64_t keys, int64_t step)
{
    static const int size[] = {4, 2, 2, 1};
    const void *row[64];
    int64_t bytes = ((keys - 1) * step + 1) * size[type], wrong = 0;
    float *st = taken_floats(keys * stride), *was = taken_floats(keys * stride);
    for (int64_t e = 0; e < keys * stride; e++)
        was[e] = st[e] = e % 11 == 3 ? NAN : (float)uniform(-9, 9);
    for (int r = 0; r < n; r++) {
        uint8_t *of = malloc((size_t)bytes);
        for (int64_t e = 0; e < bytes / size[type]; e++) {
            float x = (e + r) % 5 == 1 ? -INFINITY : (float)(pick(256) - 128) / 16;
            if (type == AT_PAIR_BOOL)
                of[e] = isinf(x) ? 0 : (uint8_t)(1 + pick(255));
            else
                at_element_set(type == AT_PAIR_F32   ? ATTEND_F32
                               : type == AT_PAIR_F16 ? ATTEND_F16
                                                     : ATTEND_BF16,
                               of, e, (double)x);
        }
        row[r] = of;
    }
    t->bias(st, stride, n, keys, &(struct at_pairs){row, step, type});
    for (int64_t e = 0; e < keys * stride; e++) {
        int64_t r = e % stride, j = e / stride * step;
        float add = 0;
        if (r >= n)
            continue; /* of rows that are not there anything may be made */
        if (type == AT_PAIR_BOOL)
            add = ((const uint8_t *)row[r])[j] ? 0 : -INFINITY;
        else
            add = (float)at_element_get(type == AT_PAIR_F32   ? ATTEND_F32
                                        : type == AT_PAIR_F16 ? ATTEND_F16
                                                              : ATTEND_BF16,
                                        row[r], j);
        float want = add == -INFINITY ? add : was[e] + add;
        wrong += !(st[e] == want || (isnan(st[e]) && isnan(want)));
    }
    ok(wrong == 0, "%s: pairs of type %d of %d rows in %d, %d keys, step %d", t->name, (int)type, n,
       (int)stride, (int)keys, (int)step);
    ok(released(st, 0) & released(was, 0), "%s: nothing is written beside them", t->name);
    for (int r = 0; r < n; r++)
        free((void *)(uintptr_t)row[r]);
}

static void test_isa(const struct at_simd *t)
{
    for (int type = AT_PAIR_F32; type <= AT_PAIR_BOOL; type++) {
        int rows = t->rows_per_panel;
        test_bias(t, (enum at_pair)type, rows, rows, 100, 1);
        test_bias(t, (enum at_pair)type, rows - 3, rows, 7, 1);
        test_bias(t, (enum at_pair)type, 1, 1, 40, 1);
        test_bias(t, (enum at_pair)type, 5, 8, 33, 1);
        test_bias(t, (enum at_pair)type, rows, rows, 33, 0);
        test_bias(t, (enum at_pair)type, rows, rows, 19, 3);
    }
    test_weights(t, 33, 1);
    test_weights(t, 1, 0.125f);
    test_next_above(t);
    test_dropout(t, t->rows_per_panel, t->rows_per_panel, 0, 192);
    test_dropout(t, t->rows_per_panel - 1, t->rows_per_panel, 191, 198);
    test_dropout(t, 1, 1, 3, 4);
    test_dropout(t, 3, 4, 1029, 1100);
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
