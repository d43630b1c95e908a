/* SPDX-License-Identifier: MIT */
/* Attention of one panel, and of few rows, put together from the block functions as a driver does,
 * against double.
 *
 * Bounds.  u = 2^-24, A_j = sum |q k| scale log2 e of a key, M = max |s|.  A base-2 logit, less its
 * reference, is at most dk + 4 roundings of sums under A_j + M: e = (dk + 4) u max(A_j + M).  A
 * weight is off by ln2 e and 2 ulp relative; sums of n weights by n u, of products by
 * (keys_per_block + blocks + 4) u.  So |dO| <= (2 ln2 e + 8 u + (2 n + keys_per_block + 8) u) sum
 * p|v|, plus the rounding to the output's type, and |dlse| <= ln2 e + 8 u + (n + 8) u + 4 u |lse|.
 */
/* What f32 gave beside what double says is the point here. */
#pragma GCC diagnostic ignored "-Wdouble-promotion"

#include "kernel.h"

enum seen { ALL, CAUSAL, RANDOM, WINDOW, NOTHING };

static const struct word {
    const char *name;
    int rows; /* of a panel: 0 is all of them; negative: dots */
    int nk, dk, dv;
    enum at_elem q, k, v, o;
    enum seen seen;
    float size; /* of q: logits grow with it */
    bool sink, nan_hidden, split;
} words[] = {
  /* clang-format off */
    {"one key",           1, 1,    1,   1,   0, 0, 0, 0, ALL,     1,   false, false, false},
    {"small",             0, 5,    3,   2,   0, 0, 0, 0, ALL,     1,   false, false, false},
    {"tails",             0, 77,   40,  33,  0, 0, 0, 0, ALL,     1,   false, false, false},
    {"d 64",              0, 192,  64,  64,  0, 0, 0, 0, ALL,     1,   false, false, false},
    {"two blocks",        0, 193,  64,  64,  0, 0, 0, 0, ALL,     1,   true,  false, false},
    {"d 80, 96",          7, 500,  80,  96,  0, 0, 0, 0, CAUSAL,  1,   false, false, false},
    {"d 128",             0, 400,  128, 128, 0, 0, 0, 0, CAUSAL,  1,   true,  true,  true},
    {"d 200",             0, 65,   200, 17,  0, 0, 0, 0, RANDOM,  1,   false, true,  false},
    {"d 256, 300",        0, 100,  256, 300, 0, 0, 0, 0, WINDOW,  1,   false, true,  true},
    {"d 576",             0, 130,  576, 512, 0, 0, 0, 0, ALL,     1,   false, false, false},
    {"d 511, 576",        3, 50,   511, 576, 0, 0, 0, 0, RANDOM,  1,   false, true,  false},
    {"f16",               0, 300,  64,  64,  1, 1, 1, 1, CAUSAL,  1,   false, true,  false},
    {"bf16",              0, 300,  72,  50,  2, 2, 2, 2, RANDOM,  1,   true,  true,  true},
    {"q8_0",              0, 210,  64,  96,  0, 3, 3, 0, CAUSAL,  1,   false, false, false},
    {"q4_0",              0, 210,  40,  70,  0, 4, 4, 0, ALL,     1,   false, false, false},
    {"no key visible",    0, 100,  64,  64,  0, 0, 0, 0, NOTHING, 1,   false, true,  true},
    {"only the sink",     0, 100,  64,  64,  0, 0, 0, 0, NOTHING, 1,   true,  true,  false},
    {"huge logits",       0, 900,  64,  64,  0, 0, 0, 0, ALL,     2e3, false, false, false},
    {"huge, masked",      0, 900,  64,  64,  0, 0, 0, 0, RANDOM,  2e3, true,  true,  true},
    {"growing logits",    0, 900,  64,  40,  0, 0, 0, 0, CAUSAL,  60,  false, false, true},
    {"dots one key",     -1, 1,    1,   1,   0, 0, 0, 0, ALL,     1,   false, false, false},
    {"dots 1 row",       -1, 300,  64,  64,  0, 0, 0, 0, ALL,     1,   false, false, false},
    {"dots 2 rows",      -2, 129,  80,  96,  0, 0, 0, 0, CAUSAL,  1,   true,  true,  true},
    {"dots 3 rows",      -3, 500,  128, 128, 0, 0, 0, 0, RANDOM,  1,   false, true,  true},
    {"dots 4 rows f16",  -4, 333,  128, 128, 1, 1, 1, 1, ALL,     1,   true,  false, true},
    {"dots 5 rows bf16", -5, 100,  67,  45,  2, 2, 2, 2, WINDOW,  1,   false, true,  false},
    {"dots 7 rows q8_0", -7, 200,  64,  96,  0, 3, 3, 0, ALL,     1,   false, false, true},
    {"dots 8 rows q4_0", -8, 200,  90,  33,  0, 4, 4, 0, CAUSAL,  1,   false, false, false},
    {"dots 11 rows",     -11, 63,  33,  18,  0, 0, 0, 0, RANDOM,  1,   true,  true,  false},
    {"dots 16 rows f16", -16, 200, 576, 576, 1, 1, 1, 0, ALL,     1,   false, false, false},
    {"dots nothing",     -4, 100,  64,  64,  0, 0, 0, 0, NOTHING, 1,   false, true,  true},
    {"dots sink",        -4, 100,  64,  64,  0, 0, 0, 0, NOTHING, 1,   true,  true,  true},
    {"dots huge",        -4, 700,  64,  64,  0, 0, 0, 0, RANDOM,  2e3, true,  true,  true},
  /* clang-format on */
};

/* One problem: rows of every tensor as floats, as stored, and the results. */
struct problem {
    const struct word *w;
    const struct at_simd *t;
    int rows, lanes; /* given rows; rows with the absent ones */
    float *qf, *kf, *vf, *sink;
    char *q, *k, *v, *o;
    int64_t qs, ks, vs, os; /* strides in elements or blocks: longer than a row */
    uint8_t *hidden;        /* [lanes][nk] */
    float *lse;
    float scale;
};

static bool hides(const struct problem *p, int r, int j)
{
    switch (p->w->seen) {
    case CAUSAL:
        return j > r + p->w->nk - p->lanes;
    case RANDOM:
        return pick(3) == 0 || r == 1 || j >= p->w->nk - 3;
    case WINDOW:
        return j > r + 30 || j < r + 10;
    default:
        return p->w->seen == NOTHING;
    }
}

/* Rows of `width` with a NaN gap between them, one element (not 64 bytes) off alignment. */
static char *make_rows(enum at_elem type, float *x, int n, int width, int64_t stride)
{
    int64_t size = at_elem_size(type);
    char *rows = taken(((n - 1) * stride + row_units(type, width)) * size, size);
    memset(rows, 0xff, (size_t)(((n - 1) * stride + row_units(type, width)) * size));
    for (int j = 0; j < n; j++)
        store_elems(rows + j * stride * size, type, x + (int64_t)j * width, width);
    return rows;
}

static float *random_floats(int64_t n, double size)
{
    float *x = malloc((size_t)n * sizeof *x);
    for (int64_t e = 0; e < n; e++)
        x[e] = (float)uniform(-size, size);
    return x;
}

static void make_problem(struct problem *p, const struct word *w, const struct at_simd *t)
{
    int rows = w->rows > 0 ? w->rows : w->rows < 0 ? -w->rows : t->rows_per_panel;
    int lanes = w->rows < 0 ? rows : t->rows_per_panel;
    *p = (struct problem){.w = w, .t = t, .rows = rows, .lanes = lanes};
    p->scale = (float)(1 / sqrt(w->dk));
    p->qf = random_floats((int64_t)rows * w->dk, w->size);
    p->kf = random_floats((int64_t)w->nk * w->dk, 1);
    p->vf = random_floats((int64_t)w->nk * w->dv, 1);
    p->sink = random_floats(lanes, 10 * w->size);
    p->hidden = malloc((size_t)(lanes * w->nk));
    p->lse = taken_floats(lanes);
    for (int r = 0; r < lanes; r++)
        for (int j = 0; j < w->nk; j++)
            p->hidden[r * w->nk + j] = hides(p, r, j);
    if (w->size == 60) /* later keys score ever higher, so that references keep moving */
        for (int j = 0; j < w->nk; j++)
            for (int d = 0; d < w->dk; d++)
                p->kf[j * w->dk + d] = p->qf[d] * (float)j / (60 * 60.0f);
    for (int j = 0; w->nan_hidden && j < w->nk; j++) {
        bool all = true;
        for (int r = 0; r < lanes; r++)
            all &= p->hidden[r * w->nk + j];
        if (all || (j % 7 == 3 && p->hidden[j])) { /* of a row that others see, NaN is theirs too */
            p->vf[j * w->dv + w->dv / 2] = j % 2 ? NAN : INFINITY;
            p->kf[j * w->dk] = all ? NAN : p->kf[j * w->dk];
        }
    }
    p->qs = row_units(w->q, w->dk) + 3;
    p->ks = row_units(w->k, w->dk) + 1;
    p->vs = row_units(w->v, w->dv) + 2;
    p->os = w->dv + 5;
    p->q = make_rows(w->q, p->qf, rows, w->dk, p->qs);
    p->k = make_rows(w->k, p->kf, w->nk, w->dk, p->ks);
    p->v = make_rows(w->v, p->vf, w->nk, w->dv, p->vs);
    p->o = taken((rows - 1) * p->os * at_elem_size(w->o) + w->dv * at_elem_size(w->o), 0);
}

static struct at_rows rows_of(const char *base, int64_t stride, int64_t from, int64_t n,
                              int64_t width, enum at_elem type)
{
    return (struct at_rows){base + from * stride * at_elem_size(type), stride, n, width, type};
}

static void row_pointers(const struct problem *p, const void **q, void **o)
{
    for (int r = 0; r < p->lanes; r++) {
        bool given = r < p->rows;
        q[r] = given ? p->q + r * p->qs * at_elem_size(p->w->q) : NULL;
        o[r] = given ? p->o + r * p->os * at_elem_size(p->w->o) : NULL;
    }
}

static bool seen_by_all(const struct problem *p, int64_t j)
{
    for (int r = 0; r < p->lanes; r++)
        if (p->hidden[r * p->w->nk + j])
            return false;
    return true;
}

static bool seen_by_some(const struct problem *p, int64_t j)
{
    for (int r = 0; r < p->lanes; r++)
        if (!p->hidden[r * p->w->nk + j])
            return true;
    return false;
}

static void hide(const struct problem *p, float *st, int64_t stride, int64_t j0, int64_t n)
{
    for (int64_t j = 0; j < n; j++)
        for (int r = 0; r < p->lanes; r++)
            if (p->hidden[r * p->w->nk + j0 + j])
                st[j * stride + r] = -INFINITY;
}

/* Which of n keys from j0 on the rows see, if each sees a run of them. */
static bool edges_of(const struct problem *p, int64_t j0, int64_t n, struct at_edges *e, float *low,
                     float *high)
{
    *e = (struct at_edges){low, high, 0, n};
    for (int r = 0; r < p->lanes; r++) {
        const uint8_t *hidden = p->hidden + r * p->w->nk + j0;
        int64_t a = 0, b;
        while (a < n && hidden[a])
            a++;
        for (b = a; b < n && !hidden[b];)
            b++;
        for (int64_t j = b; j < n; j++)
            if (!hidden[j])
                return false;
        low[r] = (float)a;
        high[r] = (float)b;
        e->full = a > e->full ? a : e->full;
        e->full_end = b < e->full_end ? b : e->full_end;
    }
    return true;
}

/* Keys [from, to) into state: in one where each row sees a run of them, else runs of full keys
 * through the fused step. */
static void run_panel(const struct problem *p, const float *qp, float *state, int64_t from,
                      int64_t to)
{
    const struct at_simd *t = p->t;
    const struct word *w = p->w;
    float *st = taken_floats(at_simd_block_floats(t)),
          *vp = taken_floats(at_simd_v_floats(t, w->dv));
    float *kp = taken_floats(at_simd_k_floats(t, w->dk));
    uint8_t *none = malloc((size_t)t->keys_per_block);
    float low[64], high[64];
    for (int64_t b = from; b < to; b += t->keys_per_block) {
        int64_t n = to - b < t->keys_per_block ? to - b : t->keys_per_block, half = n / 3;
        struct at_rows k = rows_of(p->k, p->ks, b, n, w->dk, w->k);
        bool partial = false;
        for (int64_t j = 0; j < n; j++)
            none[j] = !seen_by_some(p, b + j);
        if (k.type != AT_ELEM_F32) {
            t->pack_k(kp, &k);
            k = (struct at_rows){kp, w->dk, n, w->dk, AT_ELEM_F32};
        }
        struct at_rows v0 = rows_of(p->v, p->vs, b, half, w->dv, w->v); /* as two pages */
        struct at_rows v1 = rows_of(p->v, p->vs, b + half, n - half, w->dv, w->v);
        int odd = t->pack_v(vp, 0, &v0, none);
        odd |= t->pack_v(vp, half, &v1, none + half);
        struct at_edges edges;
        bool runs = edges_of(p, b, n, &edges, low, high);
        if (runs) {
            partial = edges.full > 0 || edges.full_end < n;
            t->scores_softmax(st, 0, qp, &k, state, w->dv, p->scale, &edges, NULL);
        }
        for (int64_t j = 0, e; !runs && j < n; j = e) {
            bool full = seen_by_all(p, b + j);
            for (e = j + 1; e < n && seen_by_all(p, b + e) == full; e++)
                ;
            struct at_rows part = rows_of((const char *)k.base, k.stride, j, e - j, w->dk, k.type);
            if (full) {
                t->scores_softmax(st, j, qp, &part, state, w->dv, p->scale, NULL, NULL);
                continue;
            }
            partial = true;
            t->scores(st, j, qp, &part);
            hide(p, st + j * t->rows_per_panel, t->rows_per_panel, b + j, e - j);
            t->softmax_step(st, j, e - j, state, w->dv, p->scale);
        }
        t->accumulate(state, w->dv, st, vp, 0, n, b == from, odd && partial, NULL);
    }
    ok(released(st, 0) & released(vp, 0) & released(kp, 0), "%s: %s: scratch within its size",
       t->name, w->name);
    free(none);
}

static void panel(const struct problem *p)
{
    const struct at_simd *t = p->t;
    const struct word *w = p->w;
    const void **q = calloc((size_t)p->lanes, sizeof *q);
    void **o = calloc((size_t)p->lanes, sizeof *o);
    int64_t size = at_simd_state_floats(t, w->dv), cut = w->split ? w->nk / 3 : w->nk;
    float *qp = taken_floats(at_simd_q_floats(t, w->dk));
    float *state = taken_floats(size), *other = taken_floats(size);
    row_pointers(p, q, o);
    t->pack_q(qp, q, w->q, w->dk, 1);
    memset(state, 0, (size_t)size * 4);
    memset(other, 0, (size_t)size * 4);
    run_panel(p, qp, state, 0, cut);
    if (w->split) {
        run_panel(p, qp, other, cut, w->nk);
        t->merge(state, other, w->dv, p->scale);
    }
    t->finish(state, w->dv, w->sink ? p->sink : NULL, o, w->o, p->lse, p->scale);
    ok(released(qp, 0) & released(state, 0) & released(other, 0), "%s: %s: state within its size",
       t->name, w->name);
    free(q), free(o);
}

static void run_dots(const struct problem *p, const float *qd, float *state, int64_t from,
                     int64_t to)
{
    const struct at_simd *t = p->t;
    const struct word *w = p->w;
    int64_t stride = at_simd_dots_stride(p->rows);
    float *st = taken_floats(at_simd_dots_block_floats(t, p->rows));
    for (int64_t b = from; b < to; b += t->dots_keys) {
        int64_t n = to - b < t->dots_keys ? to - b : t->dots_keys;
        struct at_rows k = rows_of(p->k, p->ks, b, n, w->dk, w->k);
        struct at_rows v = rows_of(p->v, p->vs, b, n, w->dv, w->v);
        t->dots_scores(st, qd, p->rows, &k, &v);
        hide(p, st, stride, b, n);
        t->dots_softmax_step(st, n, p->rows, state, w->dv, p->scale);
        t->dots_accumulate(state, p->rows, st, &v, w->seen != ALL, &k);
    }
    ok(released(st, 0), "%s: %s: block within its size", t->name, w->name);
}

static void dots(const struct problem *p)
{
    const struct at_simd *t = p->t;
    const struct word *w = p->w;
    const void *q[16];
    void *o[16];
    int64_t size = at_simd_dots_state_floats(p->rows, w->dv), cut = w->split ? w->nk / 3 : w->nk;
    float *qd = taken_floats(at_simd_dots_q_floats(p->rows, w->dk));
    float *state = taken_floats(size), *other = taken_floats(size);
    row_pointers(p, q, o);
    t->dots_pack_q(qd, q, p->rows, w->q, w->dk, 1);
    memset(state, 0, (size_t)size * 4);
    memset(other, 0, (size_t)size * 4);
    run_dots(p, qd, state, 0, cut);
    if (w->split) {
        run_dots(p, qd, other, cut, w->nk);
        t->dots_merge(state, other, p->rows, w->dv, p->scale);
    }
    t->dots_finish(state, p->rows, w->dv, w->sink ? p->sink : NULL, o, w->o, p->lse, p->scale);
    ok(released(qd, 0) & released(state, 0) & released(other, 0), "%s: %s: state within its size",
       t->name, w->name);
}

/* Row r in double: compares o and lse. */
static void check_row(const struct problem *p, int r, struct worst *wo, struct worst *wl)
{
    const struct word *w = p->w;
    double *s = malloc((size_t)w->nk * sizeof *s), top = -INFINITY, e = 0, big = 0, l = 0;
    for (int j = 0; j < w->nk; j++) {
        double dot = 0, size = 0;
        for (int d = 0; d < w->dk; d++) {
            double x = (double)p->qf[r * w->dk + d] * p->kf[j * w->dk + d] * p->scale;
            dot += x;
            size += fabs(x);
        }
        s[j] = p->hidden[r * w->nk + j] ? -INFINITY : dot;
        if (s[j] > -INFINITY) {
            top = fmax(top, dot);
            e = fmax(e, size);
            big = fmax(big, fabs(dot));
        }
    }
    e = (w->dk + 4) * UNIT * (e + big) * 1.4427;
    if (w->sink)
        top = fmax(top, p->sink[r]), l = exp(p->sink[r] - top);
    for (int j = 0; j < w->nk; j++)
        if (s[j] > -INFINITY)
            l += s[j] = exp(s[j] - top);
        else
            s[j] = 0;
    double lse = l > 0 ? top + log(l) : -INFINITY;
    compare(wl, p->lse[r], lse, 0.6932 * e + (w->nk + 16) * UNIT + 4 * UNIT * fabs(lse), r, 0);
    for (int d = 0; d < w->dv; d++) {
        double sum = 0, size = 0, type = w->o == AT_ELEM_F16 ? 0x1p-11 : w->o ? 0x1p-8 : UNIT;
        float got;
        for (int j = 0; j < w->nk; j++)
            if (!p->hidden[r * w->nk + j]) {
                sum += s[j] * p->vf[j * w->dv + d];
                size += s[j] * fabs(p->vf[j * w->dv + d]);
            }
        if (l > 0)
            sum /= l, size /= l;
        p->t->convert(&got, AT_ELEM_F32, p->o + (r * p->os + d) * at_elem_size(w->o), w->o, 1);
        double share = 2 * 0.6932 * e + (2 * w->nk + p->t->keys_per_block + 16) * UNIT;
        compare(wo, got, sum, share * size + type * fabs(sum) + (w->o ? 0x1p-25 : 0) + 1e-38, r, d);
    }
    free(s);
}

static void test_word(const struct at_simd *t, const struct word *w)
{
    struct problem p;
    struct worst wo = {0}, wl = {0};
    kernel_seed = 88172645463325252u + (uint64_t)(w - words);
    make_problem(&p, w, t);
    if (w->rows < 0)
        dots(&p);
    else
        panel(&p);
    for (int r = 0; r < p.rows; r++)
        check_row(&p, r, &wo, &wl);
    is_close(&wo, "%s: %s: output (%.3f of its bound)", t->name, w->name, wo.share);
    is_close(&wl, "%s: %s: lse", t->name, w->name);
    ok(released(p.o, 0) & released(p.lse, 0), "%s: %s: nothing written around", t->name, w->name);
    free(p.qf), free(p.kf), free(p.vf), free(p.sink), free(p.hidden);
    released(p.q, at_elem_size(w->q)), released(p.k, at_elem_size(w->k));
    released(p.v, at_elem_size(w->v));
}

/* NaN in a visible score, or a score of +inf, makes its row NaN and leaves the others alone. */
static void test_bad_rows(const struct at_simd *t)
{
    int64_t n = t->rows_per_panel, keys = 2 * t->keys_per_tile + 1, dv = 5;
    float *st = taken_floats(at_simd_block_floats(t)), *out = taken_floats(n * dv);
    float *state = taken_floats(at_simd_state_floats(t, dv));
    float *vp = taken_floats(at_simd_v_floats(t, dv)), *lse = taken_floats(n);
    float *v = random_floats(keys * dv, 1);
    void **o = malloc((size_t)n * sizeof *o);
    struct at_rows rows = {v, dv, keys, dv, AT_ELEM_F32};
    for (int64_t r = 0; r < n; r++)
        o[r] = out + r * dv;
    is_int(t->pack_v(vp, 0, &rows, NULL), 0, "%s: finite values", t->name);
    for (int bad = 0; bad < 2; bad++) {
        memset(state, 0, (size_t)at_simd_state_floats(t, dv) * 4);
        for (int64_t e = 0; e < keys * n; e++)
            st[e] = (float)uniform(-5, 5);
        st[3 * n + 1] = bad ? INFINITY : NAN;
        for (int64_t j = 0; j < keys; j++)
            st[j * n + 2] = -INFINITY;
        t->softmax_step(st, 0, 4, state, dv, 1);
        t->softmax_step(st, 4, keys - 4, state, dv, 1);
        t->accumulate(state, dv, st, vp, 0, keys, 0, 0, NULL);
        t->finish(state, dv, NULL, o, AT_ELEM_F32, lse, 1);
        bool good = isnan(lse[1]) && lse[2] == -INFINITY;
        for (int64_t r = 0; r < n; r++)
            for (int64_t d = 0; d < dv; d++)
                good &= r == 1   ? isnan(out[r * dv + d]) != 0
                        : r == 2 ? out[r * dv + d] == 0
                                 : fabsf(out[r * dv + d]) <= 1;
        ok(good, "%s: a score of %s stays in its row", t->name, bad ? "inf" : "NaN");
    }
    v[2] = NAN;
    is_int(t->pack_v(vp, 0, &rows, NULL), 1, "%s: a NaN value is reported", t->name);
    v[2] = 0, v[keys * dv - 1] = -INFINITY;
    is_int(t->pack_v(vp, 0, &rows, NULL), 1, "%s: an infinite one in the last place too", t->name);
    uint8_t hidden[64] = {0};
    hidden[keys - 1] = 1;
    is_int(t->pack_v(vp, 0, &rows, hidden), 0, "%s: not if it is hidden", t->name);
    released(st, 0), released(out, 0), released(state, 0), released(vp, 0), released(lse, 0);
    free(v), free(o);
}

/* The same through the fused step: NaN in one row of Q. */
static void test_bad_query(const struct at_simd *t)
{
    int64_t n = t->rows_per_panel, keys = t->keys_per_tile + 1, d = 7;
    float *qp = taken_floats(at_simd_q_floats(t, d)), *st = taken_floats(at_simd_block_floats(t));
    float *state = taken_floats(at_simd_state_floats(t, d));
    float *q = random_floats(n * d, 1), *k = random_floats(keys * d, 1);
    const void **rows = malloc((size_t)n * sizeof *rows);
    struct at_rows key = {k, d, keys, d, AT_ELEM_F32};
    bool good = true;
    for (int64_t r = 0; r < n; r++)
        rows[r] = q + r * d;
    q[2 * d + 3] = NAN;
    memset(state, 0, (size_t)at_simd_state_floats(t, d) * 4);
    t->pack_q(qp, rows, AT_ELEM_F32, d, 1);
    t->scores_softmax(st, 0, qp, &key, state, d, 1, NULL, NULL);
    for (int64_t j = 0; j < keys; j++)
        for (int64_t r = 0; r < n; r++)
            good &= r == 2 ? isnan(st[j * n + r]) != 0 : st[j * n + r] <= 0x1p24f;
    for (int64_t r = 0; r < n; r++)
        good &= r == 2 ? isnan(state[n + r]) != 0 : state[n + r] >= 1;
    ok(good, "%s: NaN in a query stays in its row, fused", t->name);
    released(qp, 0), released(st, 0), released(state, 0);
    free(q), free(k), free(rows);
}

static void test_isa(const struct at_simd *t)
{
    for (size_t n = 0; n < NELEM(words); n++)
        test_word(t, &words[n]);
    test_bad_rows(t);
    test_bad_query(t);
}

int main(void)
{
    each_isa(test_isa);
    return done_testing();
}
