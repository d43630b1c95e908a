/* SPDX-License-Identifier: MIT */
/* The block functions of the backward pass, each against double, over a group of panels and a block
 * of keys: weights from LSE, gradients of scores with and without masks, sums of keys, dQ; the same
 * of additive scores.
 *
 * Bounds, u = 2^-24.  A weight: its base-2 logit is off by (dk + 4) u (sum |q k| scale + |lse|)
 * log2 e, and ln2 of that and 4 ulp are relative.  A product of n terms: (n + 4) u of the sum of
 * their magnitudes. */
#include "kernel.h"

#include <math.h>

#define MOST_ROWS 64
#define MOST_KEYS 96
#define MOST_HEAD 300

static const struct size {
    int nk, dk, dv, missing; /* missing: rows that the last panel lacks */
} sizes[] = {
    {96, 64,  64,  0},
    {77, 40,  33,  3},
    {1,  1,   2,   1},
    {50, 128, 80,  0},
    {13, 300, 257, 5},
};

static struct {
    float q[MOST_ROWS][MOST_HEAD], dout[MOST_ROWS][MOST_HEAD];
    float k[MOST_KEYS][MOST_HEAD + 3], v[MOST_KEYS][MOST_HEAD + 3]; /* rows with gaps */
    float lse[MOST_ROWS], delta[MOST_ROWS], st[MOST_ROWS * MOST_KEYS], raw[MOST_ROWS * MOST_KEYS];
    double p[MOST_KEYS][MOST_ROWS];
} m;

static void random_rows(float *x, int rows, int stride, int width)
{
    for (int r = 0; r < rows; r++)
        for (int d = 0; d < width; d++)
            x[r * stride + d] = (float)uniform(-1, 1);
}

static double dot(const float *a, const float *b, int n, double *size)
{
    double sum = 0;
    *size = 0;
    for (int d = 0; d < n; d++) {
        sum += (double)a[d] * (double)b[d];
        *size += fabs((double)a[d] * (double)b[d]);
    }
    return sum;
}

static float *element(const struct at_simd *t, float *st, int row, int key)
{
    int r = t->rows_per_panel;
    return st + ((int64_t)(row / r) * t->back_block + key) * r + row % r;
}

static void test_size(const struct at_simd *t, const struct size *z)
{
    int r = t->rows_per_panel, panels = t->back_group, rows = panels * r - z->missing;
    const float scale = 0.3f;
    struct worst weights = {0}, scores = {0}, combined = {0}, capped = {0}, keys = {0}, dq = {0};
    struct at_rows k = {m.k, MOST_HEAD + 3, z->nk, z->dk, AT_ELEM_F32},
                   v = {m.v, MOST_HEAD + 3, z->nk, z->dv, AT_ELEM_F32};
    int64_t block = (int64_t)t->back_block * r, room = (int64_t)panels * r;
    float *qp = taken_floats(panels * at_simd_q_floats(t, z->dk));
    float *op = taken_floats(panels * at_simd_q_floats(t, z->dv));
    float *st = taken_floats(panels * block), *raw = taken_floats(block), *dp = taken_floats(block);
    float *ro = taken_floats(room * at_simd_round(z->dv, r));
    float *sums = taken_floats(t->back_block * at_simd_round(z->dv, r));
    float *vp = taken_floats(at_simd_v_floats(t, z->dk));
    float *state = taken_floats(at_simd_state_floats(t, z->dk));
    int64_t wide = z->dv + 5, narrow = z->dk + 3;
    float *out = taken_floats(wide * t->back_block), *grad = taken_floats(narrow * r);
    random_rows(&m.q[0][0], rows, MOST_HEAD, z->dk);
    random_rows(&m.dout[0][0], rows, MOST_HEAD, z->dv);
    random_rows(&m.k[0][0], z->nk, MOST_HEAD + 3, z->dk);
    random_rows(&m.v[0][0], z->nk, MOST_HEAD + 3, z->dv);
    for (int i = 0; i < panels * r; i++) {
        m.lse[i] = i < rows ? (float)uniform(0, 5) : INFINITY;
        m.delta[i] = i < rows ? (float)uniform(-1, 1) : 0;
    }
    for (int p = 0; p < panels; p++) {
        const void *q[64], *o[64];
        for (int i = 0; i < r; i++) {
            q[i] = p * r + i < rows ? m.q[p * r + i] : NULL;
            o[i] = p * r + i < rows ? m.dout[p * r + i] : NULL;
        }
        t->pack_q(qp + p * at_simd_q_floats(t, z->dk), q, AT_ELEM_F32, z->dk, 1);
        t->pack_q(op + p * at_simd_q_floats(t, z->dv), o, AT_ELEM_F32, z->dv, 1);
        t->back_pack_rows(ro + (int64_t)p * r * r, room, o, r, AT_ELEM_F32, z->dv);
        memset(st + p * block, 0, (size_t)block * sizeof *st);
        t->back_weights(st + p * block, 0, qp + p * at_simd_q_floats(t, z->dk), &k, m.lse + p * r,
                        scale);
    }
    for (int i = 0; i < panels * r; i++)
        for (int j = 0; j < z->nk; j++) {
            double size, s = i < rows ? dot(m.q[i], m.k[j], z->dk, &size) : 0;
            double want = i < rows ? exp((double)scale * s - (double)m.lse[i]) : 0;
            double off = i < rows ? (z->dk + 4) * (size * (double)scale + (double)m.lse[i]) + 8 : 0;
            compare(&weights, (double)*element(t, st, i, j), want, off * 2 * UNIT * want + 1e-38, i,
                    j);
            if (pick(4) == 0) /* hidden, though nothing says so but the weight */
                *element(t, st, i, j) = 0;
            m.p[j][i] = (double)*element(t, st, i, j);
        }
    is_close(&weights, "%s %dx%d: weights of %d keys", t->name, z->dk, z->dv, z->nk);

    /* dV = P^T dO, stored and then added */
    memset(sums, 0, (size_t)(t->back_block * at_simd_round(z->dv, r)) * sizeof *sums);
    t->back_keys(sums, st, panels, 0, z->nk, ro, room, z->dv);
    t->back_store(out, wide, sums, z->nk, z->dv, 0.5f, 0);
    t->back_store(out, wide, sums, z->nk, z->dv, 0.5f, 1);
    for (int j = 0; j < z->nk; j++)
        for (int d = 0; d < z->dv; d++) {
            double want = 0, size = 0;
            for (int i = 0; i < rows; i++) {
                want += m.p[j][i] * (double)m.dout[i][d];
                size += fabs(m.p[j][i] * (double)m.dout[i][d]);
            }
            compare(&keys, (double)out[j * wide + d], want, (rows + 6) * UNIT * size + 1e-38, j, d);
        }
    is_close(&keys, "%s %dx%d: sums over rows, stored and added", t->name, z->dk, z->dv);

    /* ds = p (v . dO - delta), at once and in two steps; of panel 0 where a key holds NaN */
    memcpy(dp, st, (size_t)block * sizeof *st);
    for (int p = 0; p < panels; p++)
        t->back_scores(st + p * block, 0, op + p * at_simd_q_floats(t, z->dv), &v, m.delta + p * r,
                       1);
    memset(raw, 0, (size_t)block * sizeof *raw);
    t->scores(raw, 0, op, &v);
    t->back_combine(dp, raw, m.delta, z->nk);
    for (int i = 0; i < panels * r; i++)
        for (int j = 0; j < z->nk; j++) {
            double size = 0, x = i < rows ? dot(m.dout[i], m.v[j], z->dv, &size) : 0;
            double want = m.p[j][i] * (x - (double)m.delta[i]);
            double bound = m.p[j][i] * ((z->dv + 4) * (size + fabs((double)m.delta[i]))) * UNIT;
            float got = *element(t, st, i, j);
            compare(&scores, (double)got, want, bound + 1e-38, i, j);
            if (m.p[j][i] == 0 && !(got == 0 && signbit(got)))
                compare(&scores, 1, 0, 1e-9, i, j); /* the mark of hidden keys */
            if (i < r)
                compare(&combined, (double)dp[(int64_t)j * r + i], want, bound + 1e-38, i, j);
        }
    is_close(&scores, "%s %dx%d: gradients of scores", t->name, z->dk, z->dv);
    is_close(&combined, "%s %dx%d: the same in two steps", t->name, z->dk, z->dv);

    /* dQ of panel 0, K being values */
    for (int i = 0; i < r; i++)
        for (int j = 0; j < z->nk; j++)
            m.p[j][i] = (double)*element(t, st, i, j);
    memset(state, 0, (size_t)at_simd_state_floats(t, z->dk) * sizeof *state);
    int odd = t->pack_v(vp, 0, &k, NULL);
    t->accumulate(state, z->dk, st, vp, 0, z->nk, 0, odd, NULL);
    void *to[64];
    for (int i = 0; i < r; i++)
        to[i] = i < rows ? grad + i * narrow : NULL;
    t->back_finish(state, z->dk, scale, to);
    for (int i = 0; i < r && i < rows; i++)
        for (int d = 0; d < z->dk; d++) {
            double want = 0, size = 0;
            for (int j = 0; j < z->nk; j++) {
                want += m.p[j][i] * (double)m.k[j][d] * (double)scale;
                size += fabs(m.p[j][i] * (double)m.k[j][d] * (double)scale);
            }
            compare(&dq, (double)grad[i * narrow + d], want, (z->nk + 6) * UNIT * size + 1e-38, i,
                    d);
        }
    is_close(&dq, "%s %dx%d: dQ", t->name, z->dk, z->dv);

    /* softcap: st (1 - tanh^2(by raw)) where st is not 0; sound tanh is within 4 ulp of 1 */
    memcpy(dp, st, (size_t)block * sizeof *st);
    t->back_softcap(dp, raw, 0.7f, z->nk);
    for (int64_t e = 0; e < (int64_t)z->nk * r; e++) {
        double x = tanh(0.7 * (double)raw[e]), want = (double)st[e] * (1 - x * x);
        compare(&capped, (double)dp[e], want, 12 * UNIT * fabs((double)st[e]) + 1e-38, e, 0);
    }
    is_close(&capped, "%s %dx%d: softcap", t->name, z->dk, z->dv);
    float *all[] = {qp, op, st, raw, dp, ro, sums, vp, state, out, grad};
    bool clean = true;
    for (size_t e = 0; e < sizeof all / sizeof *all; e++)
        clean = released(all[e], 0) && clean;
    ok(clean, "%s %dx%d: nothing is written beside", t->name, z->dk, z->dv);
}

/* A hidden value that is NaN never shows. */
static void test_nan(const struct at_simd *t)
{
    int r = t->rows_per_panel;
    float *op = taken_floats(at_simd_q_floats(t, 8)),
          *st = taken_floats((int64_t)t->back_block * r);
    const void *o[64];
    bool good = true;
    random_rows(&m.dout[0][0], r, MOST_HEAD, 8);
    random_rows(&m.v[0][0], 3, MOST_HEAD + 3, 8);
    m.v[1][5] = NAN;
    for (int i = 0; i < r; i++) {
        o[i] = m.dout[i];
        m.delta[i] = 0.5f;
        st[i] = st[2 * r + i] = 0.25f;
        st[r + i] = 0;
    }
    struct at_rows v = {m.v, MOST_HEAD + 3, 3, 8, AT_ELEM_F32};
    t->pack_q(op, o, AT_ELEM_F32, 8, 1);
    t->back_scores(st, 0, op, &v, m.delta, 1);
    for (int i = 0; i < 3 * r; i++)
        good = good && isfinite(st[i]) && (i / r == 1) == (st[i] == 0);
    ok(good && released(op, 0) && released(st, 0), "%s: a hidden value may be NaN", t->name);
}

/* A term, tanh, is good to 20 u (t/320-pair-blocks.c), and so 1 - tanh^2 to 44 u.  The last key
 * holds NaN and is hidden from every row. */
static void test_additive(const struct at_simd *t, int dk, int nk, float size)
{
    const int64_t j0 = 2;
    int r = t->rows_per_panel;
    struct worst dq = {0}, dkeys = {0}, dva = {0};
    struct at_rows k = {m.k, MOST_HEAD + 3, nk, dk, AT_ELEM_F32};
    float *qp = taken_floats(at_simd_q_floats(t, 2 * dk)), va[MOST_HEAD], *grad = m.v[0];
    float *st = taken_floats((int64_t)t->back_block * r);
    float *sums = taken_floats(t->back_block * at_simd_round(dk, r));
    float *state = taken_floats(at_simd_state_floats(t, dk));
    double vector[MOST_HEAD] = {0};
    const void *q[64];
    void *to[64];
    random_rows(va, 1, MOST_HEAD, dk);
    for (int i = 0; i < r; i++)
        for (int d = 0; d < dk; d++)
            m.q[i][d] = (float)uniform(-(double)size, (double)size);
    for (int j = 0; j < nk; j++)
        for (int d = 0; d < dk; d++)
            m.k[j][d] = j == nk - 1 ? NAN : (float)uniform(-(double)size, (double)size);
    for (int i = 0; i < r; i++) {
        q[i] = m.q[i];
        to[i] = m.dout[i];
        for (int j = 0; j < nk; j++)
            st[(j0 + j) * r + i] = j == nk - 1 || pick(4) == 0 ? -0.0f : (float)uniform(-1, 1);
    }
    memset(sums, 0, (size_t)(t->back_block * at_simd_round(dk, r)) * sizeof *sums);
    memset(state, 0, (size_t)at_simd_state_floats(t, dk) * sizeof *state);
    t->pack_q(qp, q, AT_ELEM_F32, dk, 1);
    t->additive_pack_q(qp, dk);
    t->additive_back(sums, state, vector, st, j0, qp, &k, va, 1);
    t->back_finish(state, dk, 1, to);
    t->back_store(grad, MOST_HEAD + 3, sums + j0 * r, nk, dk, 1, 0);
    for (int d = 0; d < dk; d++) {
        double by_row[64] = {0}, row_size[64] = {0}, term = 0, all = 0;
        for (int j = 0; j < nk; j++) {
            double key = 0, key_size = 0;
            for (int i = 0; i < r && j < nk - 1; i++) {
                double ds = (double)st[(j0 + j) * r + i];
                double x = tanh((double)m.q[i][d] + (double)m.k[j][d]);
                double slope = (double)va[d] * ds * (1 - x * x), most = fabs((double)va[d] * ds);
                key += slope, by_row[i] += slope, term += ds * x;
                key_size += most, row_size[i] += most, all += fabs(ds);
            }
            compare(&dkeys, (double)m.v[j][d], key, (r + 48) * UNIT * key_size, j, d);
        }
        for (int i = 0; i < r; i++)
            compare(&dq, (double)m.dout[i][d], by_row[i], (nk + 48) * UNIT * row_size[i], i, d);
        compare(&dva, vector[d], term, (4 * nk + 64) * UNIT * all, d, 0);
    }
    is_close(&dq, "%s additive, %d channels up to %g: dQ", t->name, dk, (double)size);
    is_close(&dkeys, "%s additive, %d channels up to %g: dK", t->name, dk, (double)size);
    is_close(&dva, "%s additive, %d channels up to %g: the vector", t->name, dk, (double)size);
    ok(released(qp, 0) & released(st, 0) & released(sums, 0) & released(state, 0),
       "%s additive, %d channels: nothing is written beside", t->name, dk);
}

static void test_isa(const struct at_simd *t)
{
    for (size_t n = 0; n < sizeof sizes / sizeof *sizes; n++)
        test_size(t, &sizes[n]);
    test_nan(t);
    test_additive(t, 64, 90, 1);
    test_additive(t, 37, 13, 9.9f);
    test_additive(t, 3, 7, 50);
}

int main(void)
{
    each_isa(test_isa);
    return done_testing();
}
