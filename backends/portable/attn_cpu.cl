/* SPDX-License-Identifier: MIT */
/* Attention for CPUs that speak OpenCL: a work item is a core, and lanes of its vectors are packed rows.
 * Keys are uniform, so nothing is reduced across lanes: simd/k_attn.h in OpenCL C.  A panel of AT_ROWS
 * rows is strips of AT_STRIP; a tile of them by 6 keys, or channels, stays in registers.  AT_DK and AT_DV
 * are the room for a head.
 *
 * The reference m is not the maximum: it moves only where a weight would be more than 2^24, so that most
 * scores leave the tile as weights. */
#define KEYS 48 /* of a block: a multiple of AT_TILE, and of 4 for dropout */
#define STRIPS (AT_ROWS / AT_STRIP)
#define WIDE ((AT_DV + 5) / 6 * 6)
#define MOST 24.0f

struct panel {
    float q[AT_ROWS * AT_DK], p[KEYS * AT_STRIP], acc[AT_ROWS * WIDE], m[AT_ROWS], l[AT_ROWS];
    int low[AT_ROWS], high[AT_ROWS];
    float k[KEYS * AT_DK], v[KEYS * WIDE], row[AT_DK];
};

/* What is done to scores that are not just scaled, one by one. */
AT_FN void edit(const struct at_k_attn *a, const struct at_in *x, float *p, int g, int first, int n, int j0,
                int from, int to)
{
    for (int k = from; k < to; k++)
        for (int r = 0; r < n; r++)
            p[k * AT_STRIP + r] = at_score(a, x, g, first + r, j0 + k, p[k * AT_STRIP + r]);
}

AT_FN void additive_scores(const struct at_k_attn *a, const struct at_in *x, float *p, const float *q,
                           const float *k, int nk)
{
    AT_GLOBAL const float *va = (AT_GLOBAL const float *)x->additive + a->additive;
    for (int j = 0; j < nk; j++)
        for (int r = 0; r < AT_STRIP; r++) {
            float sum = 0.0f;
            for (int d = 0; d < a->dk; d++)
                sum += va[d] * tanh(q[d * AT_STRIP + r] + k[j * a->dk + d]);
            p[j * AT_STRIP + r] = sum;
        }
}

/* The weights of six keys from their scores; l grows, top is the largest score over m.  Scaling is part of
 * the subtraction, so that large scores lose nothing by it. */
#define WEIGH(k)                                                                                   \
    z##k##0 = fma(z##k##0, by, -m0), z##k##1 = fma(z##k##1, by, -m1);                              \
    top0 = AT_VMAX(z##k##0, top0), top1 = AT_VMAX(z##k##1, top1);                                  \
    z##k##0 = at_vexp2(z##k##0), z##k##1 = at_vexp2(z##k##1);                                      \
    l0 += z##k##0, l1 += z##k##1;                                                                  \
    AT_TILE_PUT(k, p)

/* Scores and softmax_step of a block that all rows see whole; 0, and nothing changed but p, where the
 * reference has to move. */
AT_FN int settled_block(float *p, float *m, float *l, const float *q, const float *keys, int nk, int dk,
                        float unit)
{
    at_vec m0 = at_vget(0, m), m1 = at_vget(1, m), l0 = at_vget(0, l), l1 = at_vget(1, l);
    at_vec top0 = -AT_INF, top1 = -AT_INF, by = unit;
    if (any(m0 == -AT_INF) || any(m1 == -AT_INF))
        return 0;
    for (int k = 0; k < nk; k += AT_TILE, p += AT_TILE * AT_STRIP) {
        const float *b = keys + k * dk;
        AT_TILE_FROM((at_vec)(0.0f), (at_vec)(0.0f));
        AT_TILE_LOOP(q, b, dk, 1, dk)
        WEIGH(0)
        WEIGH(1)
        WEIGH(2)
        WEIGH(3)
        WEIGH(4)
        WEIGH(5)
    }
    if (any(top0 > MOST) || any(top1 > MOST))
        return 0;
    at_vput(l0, 0, l), at_vput(l1, 1, l);
    return 1;
}

/* -inf for keys that a row does not see. */
AT_FN void hide(float *p, const int *low, const int *high, int j0, int nk)
{
    at_ivec low0 = at_iget(0, low) - j0, low1 = at_iget(1, low) - j0;
    at_ivec high0 = at_iget(0, high) - j0, high1 = at_iget(1, high) - j0;
    for (int k = 0; k < nk; k++) {
        at_vec s0 = at_vget(2 * k, p), s1 = at_vget(2 * k + 1, p);
        at_vput(k >= low0 && k < high0 ? s0 : (at_vec)(-AT_INF), 2 * k, p);
        at_vput(k >= low1 && k < high1 ? s1 : (at_vec)(-AT_INF), 2 * k + 1, p);
    }
}

/* softmax_step of scores, in units of `unit` / log2(e); by: what was summed so far is times this. */
AT_FN void softmax_step(float *p, int nk, float *m, float *l, float unit, at_vec *by0, at_vec *by1)
{
    at_vec m0 = at_vget(0, m), m1 = at_vget(1, m), top0 = -AT_INF, top1 = -AT_INF;
    for (int k = 0; k < nk; k++) {
        top0 = AT_VMAX(at_vget(2 * k, p), top0);
        top1 = AT_VMAX(at_vget(2 * k + 1, p), top1);
    }
    top0 = AT_VMAX(top0 * unit, m0);
    top1 = AT_VMAX(top1 * unit, m1);
    at_vec r0 = top0 == -AT_INF ? (at_vec)(0.0f) : top0, r1 = top1 == -AT_INF ? (at_vec)(0.0f) : top1;
    *by0 = at_vexp2_or_0(m0 - r0), *by1 = at_vexp2_or_0(m1 - r1);
    at_vec l0 = at_vget(0, l) * *by0, l1 = at_vget(1, l) * *by1;
    for (int k = 0; k < nk; k++) {
        at_vec p0 = at_vweight(fma(at_vget(2 * k, p), (at_vec)(unit), -r0));
        at_vec p1 = at_vweight(fma(at_vget(2 * k + 1, p), (at_vec)(unit), -r1));
        l0 += p0, l1 += p1;
        at_vput(p0, 2 * k, p), at_vput(p1, 2 * k + 1, p);
    }
    at_vput(top0, 0, m), at_vput(top1, 1, m), at_vput(l0, 0, l), at_vput(l1, 1, l);
}

/* accumulate where hidden values are not finite: these must not meet their weights of 0. */
AT_FN void accumulate_exactly(float *acc, at_vec by0, at_vec by1, const float *p, const float *v, int nk,
                              int wide)
{
    float by[AT_STRIP];
    at_vput(by0, 0, by), at_vput(by1, 1, by);
    for (int d = 0; d < wide; d++)
        for (int r = 0; r < AT_STRIP; r++) {
            float sum = acc[d * AT_STRIP + r] * by[r];
            for (int k = 0; k < nk; k++)
                if (!AT_DEAD(p[k * AT_STRIP + r]))
                    sum = fma(p[k * AT_STRIP + r], v[k * wide + d], sum);
            acc[d * AT_STRIP + r] = sum;
        }
}

/* pack_k, pack_v: keys [from, to) of the block, 0 for the others. */
AT_FN void pack_keys(const struct at_k_attn *a, const struct at_in *x, struct panel *w, int g, int j0, int from,
                    int to, int nk, int wide)
{
    for (int k = 0; k < nk; k++) {
        float by;
        int some = k >= from && k < to;
        if (some) {
            at_i64 at = at_k_at(a, x, g, j0 + k, &by);
            at_stage(w->k + k * a->dk, x->k, at, 0, a->dk, a->k.type, by);
            at = at_v_at(a, x, g, j0 + k, &by);
            at_stage(w->v + k * wide, x->v, at, 0, a->dv, a->v.type, by);
        }
        for (int d = some ? a->dk : 0; d < a->dk; d++)
            w->k[k * a->dk + d] = 0.0f;
        for (int d = some ? a->dv : 0; d < wide; d++)
            w->v[k * wide + d] = 0.0f;
    }
}

/* x: panel; y: KV group; z: sequence. */
AT_KERNEL AT_GROUP(1) void attn_cpu(const struct at_k_attn a, AT_ATTN_PARAMS)
{
    struct panel w __attribute__((aligned(64)));
    struct at_keys seen[STRIPS];
    AT_ATTN_IN(in, AT_GROUP_Z)
    int g = (int)AT_GROUP_Y, rows = in.nq * in.ratio, first = (int)AT_GROUP_X * AT_ROWS;
    if (first >= rows)
        return;
    int n = rows - first < AT_ROWS ? rows - first : AT_ROWS, strips = (n + AT_STRIP - 1) / AT_STRIP;
    int wide = (a.dv + AT_TILE - 1) / AT_TILE * AT_TILE, plain = !a.edits && !a.has_additive;
    struct at_keys keys = at_key_range(&a, &in, first / in.ratio, (first + n - 1) / in.ratio + 1);
    float unit = a.edits ? AT_LOG2E : a.scale * AT_LOG2E;
    /* pack_q: strips of [channel][AT_STRIP] */
    for (int r = 0; r < strips * AT_STRIP; r++) {
        float *to = w.q + r / AT_STRIP * AT_STRIP * a.dk + r % AT_STRIP;
        if (r < n)
            at_stage(w.row, in.q, at_q_at(&a, &in, g, first + r), 0, a.dk, a.q.type, 1.0f);
        for (int d = 0; d < a.dk; d++)
            to[d * AT_STRIP] = r < n ? w.row[d] : 0.0f;
        w.low[r] = r < n ? at_low(&a, &in, (first + r) / in.ratio) : 0; /* others see all: there is a maximum */
        w.high[r] = r < n ? at_high(&a, &in, (first + r) / in.ratio) : in.nk;
        w.m[r] = -AT_INF;
        w.l[r] = 0.0f;
    }
    for (int s = 0; s < strips; s++) {
        int end = (s + 1) * AT_STRIP < n ? (s + 1) * AT_STRIP : n;
        seen[s] = at_key_range(&a, &in, (first + s * AT_STRIP) / in.ratio, (first + end - 1) / in.ratio + 1);
    }
    for (int k = 0; k < strips * AT_STRIP * wide; k++)
        w.acc[k] = 0.0f;
    for (int j0 = keys.first / KEYS * KEYS; j0 < keys.end; j0 += KEYS) {
        int from = keys.first > j0 ? keys.first - j0 : 0, to = keys.end - j0 < KEYS ? keys.end - j0 : KEYS;
        int nk = (to + AT_TILE - 1) / AT_TILE * AT_TILE;
        pack_keys(&a, &in, &w, g, j0, from, to, nk, wide);
        int odd = (a.hides || j0 < keys.full_first || j0 + KEYS > keys.full_end) && at_has_odd(w.v, nk * wide);
        for (int s = 0; s < strips; s++) {
            const float *q = w.q + s * AT_STRIP * a.dk;
            float *m = w.m + s * AT_STRIP, *l = w.l + s * AT_STRIP, *acc = w.acc + s * AT_STRIP * wide;
            int partial = a.hides || j0 < seen[s].full_first || j0 + KEYS > seen[s].full_end;
            at_vec by0 = 1.0f, by1 = 1.0f;
            if (j0 >= seen[s].end || j0 + KEYS <= seen[s].first)
                continue;
            if (partial || !plain || !settled_block(w.p, m, l, q, w.k, nk, a.dk, unit)) {
                if (a.has_additive)
                    additive_scores(&a, &in, w.p, q, w.k, nk);
                else
                    for (int k = 0; k < nk; k += AT_TILE)
                        at_tile(w.p + k * AT_STRIP, 0.0f, q, w.k + k * a.dk, a.dk, 1, a.dk);
                if (a.edits)
                    edit(&a, &in, w.p, g, first + s * AT_STRIP, n - s * AT_STRIP < AT_STRIP ? n - s * AT_STRIP : AT_STRIP,
                         j0, from, to);
                if (partial)
                    hide(w.p, w.low + s * AT_STRIP, w.high + s * AT_STRIP, j0, nk);
                softmax_step(w.p, nk, m, l, unit, &by0, &by1);
            }
            if (a.below)
                for (int k = from; k < to; k++)
                    for (int r = 0; r < AT_STRIP; r++)
                        if (w.p[k * AT_STRIP + r] > 0.0f)
                            w.p[k * AT_STRIP + r] *= at_dropout(&a, &in, g, first + s * AT_STRIP + r, j0 + k);
            if (odd && partial)
                accumulate_exactly(acc, by0, by1, w.p, w.v, nk, wide);
            else
                for (int d = 0; d < wide; d += AT_TILE)
                    at_tile_add(acc + d * AT_STRIP, by0, by1, w.p, w.v + d, 1, wide, nk);
        }
    }
    /* finish */
    for (int r = 0; r < n; r++) {
        float top = w.m[r] / AT_LOG2E, sum = w.l[r], by;
        at_sink(&a, &in, g, first + r, &top, &sum, &by);
        by = sum == 0.0f ? 0.0f : by / sum;
        AT_GLOBAL float *o = (AT_GLOBAL float *)out + at_o_at(&a, &in, g, first + r);
        for (int d = 0; d < a.dv; d++)
            o[d] = sum == 0.0f ? 0.0f : w.acc[(r / AT_STRIP * wide + d) * AT_STRIP + r % AT_STRIP] * by;
        if (a.has_lse)
            ((AT_GLOBAL float *)lse)[at_lse_at(&a, &in, g, first + r)] = top + log(sum);
    }
}
