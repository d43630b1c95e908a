/* SPDX-License-Identifier: MIT */
/* What the shapes of attention's backward pass share.  A weight is p = exp(s - LSE), its score computed
 * again; with dp = dO . v the gradient of the final score is ds = p (dp - delta), times what dropout did to
 * p.  What is not a product with keys, queries or dO is here, too: biases, slopes, sinks, the additive
 * vector.  Sums are taken by who writes them: no atomics, one order. */

#define AT_BACK_PARAMS                                                                             \
    AT_GLOBAL uchar *out, AT_GLOBAL uchar *out1, AT_GLOBAL const uchar *pdout,                     \
        AT_GLOBAL const uchar *plse, AT_GLOBAL const uchar *pdelta, AT_ATTN_INPUTS
#define AT_BACK_IN(x, number)                                                                      \
    const struct at_k_attn a = back.a;                                                             \
    AT_ATTN_IN(x, number)

AT_FN float at_back_lse(const struct at_k_attn *a, const struct at_in *x, AT_GLOBAL const uchar *lse, int g,
                       int r)
{
    return ((AT_GLOBAL const float *)lse)[at_lse_at(a, x, g, r)];
}

AT_FN float at_back_delta(const struct at_k_back *b, const struct at_in *x, AT_GLOBAL const uchar *delta,
                         int g, int r)
{
    return ((AT_GLOBAL const float *)
                delta)[b->delta[0] + x->qb * b->delta[1] + (g * x->ratio + r % x->ratio) * b->delta[2] +
                       (x->q0 + r / x->ratio) * b->delta[3]];
}

AT_FN at_i64 at_grad_row(const struct at_k_view *v, const struct at_in *x, int g, int r)
{
    return v->at + x->qb * v->stride[0] + (g * x->ratio + r % x->ratio) * v->stride[1] +
           (x->q0 + r / x->ratio) * v->stride[2];
}

AT_FN at_i64 at_grad_key(const struct at_k_view *v, const struct at_in *x, int g, int j)
{
    return v->at + x->kb * v->stride[0] + g * v->stride[1] + (x->k0 + j) * v->stride[2];
}

/* Where a row has its sums in work, in floats: over keys of the slope's gradient, and of the additive
 * vector's. */
AT_FN at_i64 at_row_sums(const struct at_k_back *b, const struct at_in *x, int g, int r)
{
    int h = g * x->ratio + r % x->ratio;
    return (x->qb * b->a.nh + h) * b->rows + x->q0 + r / x->ratio;
}

/* The weight that a score stands for. */
AT_FN float at_back_weight(float s, float lse)
{
    return s == -AT_INF ? 0.0f : at_exp(s - lse);
}

#ifdef AT_SCORE_EXPR
AT_FN float at_slope_expr(const struct at_in *x, float score, int b, int h, int i, int j, int sq, int skv);
#endif

/* What the gradient of the final score is times to be that of the plain one (which bias and slope are part
 * of), and *cap: that one of the raw one over the scale. */
AT_FN float at_back_slope(const struct at_k_attn *a, const struct at_in *x, int g, int r, int j, float dot,
                          float *cap)
{
    float by = 1.0f;
    *cap = 1.0f;
    if (a->softcap > 0.0f) {
        float t = tanh(dot * a->scale / a->softcap);
        *cap = 1.0f - t * t;
    }
#ifdef AT_SCORE_EXPR
    by = at_slope_expr(x, at_plain(a, x, g, r, j, dot), x->n, g * x->ratio + r % x->ratio, r / x->ratio, j,
                       x->nq, x->nk);
#endif
    return by;
}

AT_FN float at_distance(const struct at_in *x, int r, int j)
{
    return fabs((float)(r / x->ratio + x->off - j));
}

/* ---- biases: an item has an element, and goes through all that it was broadcast to ---- */

/* The gradient of the final score of (r, j); *raw: what it was made of. */
AT_FN float at_back_pair(const struct at_k_back *b, const struct at_in *x, AT_GLOBAL const uchar *dout,
                         AT_GLOBAL const uchar *lse, AT_GLOBAL const uchar *delta, int g, int r, int j,
                         float *raw)
{
    const struct at_k_attn *a = &b->a;
    float dot = 0.0f, dp = 0.0f, by;
    at_i64 q = at_q_at(a, x, g, r), o = at_o_at(a, x, g, r), k = at_k_at(a, x, g, j, &by);
    *raw = 0.0f;
    if (!at_visible(a, x, r, j))
        return 0.0f;
    for (int d = 0; d < a->dk; d++) {
        float u = at_load(x->q, q + d, a->q.type), v = at_load(x->k, k + d, a->k.type);
        if (a->has_additive)
            dot += ((AT_GLOBAL const float *)x->additive)[a->additive + d] * tanh(u + v);
        else
            dot = fma(u, v, dot);
    }
    float p = at_back_weight(at_score(a, x, g, r, j, dot), at_back_lse(a, x, lse, g, r));
    if (p == 0.0f)
        return 0.0f;
    at_i64 v = at_v_at(a, x, g, j, &by);
    for (int d = 0; d < a->dv; d++)
        dp = fma(at_load(dout, o + d, AT_F32), at_load(x->v, v + d, a->v.type), dp);
    if (a->below)
        dp *= at_dropout(a, x, g, r, j);
    *raw = dot;
    return p * (dp - at_back_delta(b, x, delta, g, r));
}

/* x: keys of the bias; y: its rows; z: its heads and entries. */
AT_KERNEL AT_GROUP(AT_ITEMS) void back_bias(const struct at_k_back back, AT_BACK_PARAMS)
{
    const at_i64 *n = back.bias;
    int j = (int)AT_GROUP_X * AT_ITEMS + AT_ITEM, i = (int)AT_GROUP_Y, h = (int)(AT_GROUP_Z % n[1]);
    int entry = (int)(AT_GROUP_Z / n[1]), all = n[0] == 1;
    if (j >= n[3])
        return;
    float sum = 0.0f, raw, cap;
    for (int s = all ? 0 : entry; s < (all ? back.a.nseq : entry + 1) && s < back.a.nseq; s++) {
        AT_BACK_IN(in, s)
        int h0 = n[1] == 1 ? 0 : h, h1 = n[1] == 1 ? a.nh : h + 1;
        int i0 = n[2] == 1 ? 0 : i, i1 = n[2] == 1 || i >= in.nq ? in.nq : i + 1;
        int j0 = n[3] == 1 ? 0 : j, j1 = n[3] == 1 || j >= in.nk ? in.nk : j + 1;
        for (int e = h0; e < h1; e++)
            for (int r = i0; r < i1; r++) {
                float some = 0.0f;
                int g = e / in.ratio, row = r * in.ratio + e % in.ratio;
                for (int k = j0; k < j1; k++) {
                    float ds = at_back_pair(&back, &in, pdout, plse, pdelta, g, row, k, &raw);
                    if (ds != 0.0f)
                        some += ds * at_back_slope(&a, &in, g, row, k, raw, &cap);
                }
                sum += some;
            }
    }
    const struct at_k_view *v = &back.out[0];
    ((AT_GLOBAL float *)
         out)[v->at + entry * v->stride[0] + h * v->stride[1] + i * v->stride[2] + j * v->stride[3]] = sum;
}

/* ---- sums over rows, an item each: of a head's slope or sink, or of a channel of the additive vector ---- */

#define AT_BACK_SLOPES 0
#define AT_BACK_SINKS 1
#define AT_BACK_ADDITIVE 2

AT_FN float at_row_term(const struct at_k_back *b, AT_GLOBAL const uchar *work, AT_GLOBAL const uchar *sinks,
                        AT_GLOBAL const uchar *lse, AT_GLOBAL const uchar *delta, at_i64 batch, int h,
                        at_i64 row, int e)
{
    const struct at_k_attn *a = &b->a;
    at_i64 place = (batch * a->nh + h) * b->rows + row;
    if (b->op == AT_BACK_SINKS) {
        float l = ((AT_GLOBAL const float *)
                       lse)[a->lse[0] + batch * a->lse[1] + h * a->lse[2] + row * a->lse[3]];
        float d = ((AT_GLOBAL const float *)
                       delta)[b->delta[0] + batch * b->delta[1] + h * b->delta[2] + row * b->delta[3]];
        return -at_exp(((AT_GLOBAL const float *)sinks)[a->sinks + h] - l) * d;
    }
    if (b->op == AT_BACK_SLOPES)
        return ((AT_GLOBAL const float *)(work + b->slopes))[place];
    return ((AT_GLOBAL const float *)(work + b->vectors))[place * a->dk + e];
}

AT_KERNEL AT_GROUP(AT_ITEMS) void back_sums(const struct at_k_back back, AT_BACK_PARAMS)
{
    int e = (int)AT_GROUP_X * AT_ITEMS + AT_ITEM, vector = back.op == AT_BACK_ADDITIVE;
    if (e >= (vector ? back.a.dk : back.a.nh))
        return;
    float sum = 0.0f;
    for (at_i64 b = 0; b < back.batches; b++)
        for (int h = vector ? 0 : e; h < (vector ? back.a.nh : e + 1); h++)
            for (at_i64 r0 = 0; r0 < back.rows; r0 += 64) {
                float some = 0.0f;
                for (at_i64 r = r0; r < back.rows && r < r0 + 64; r++)
                    some += at_row_term(&back, work, psinks, plse, pdelta, b, h, r, e);
                sum += some;
            }
    ((AT_GLOBAL float *)out)[back.out[0].at + e * back.out[0].stride[0]] = sum;
}

/* ---- captured tensors: pairs say what they give, and to which place; then an item has the places whose
 * rest by AT_ITEMS is its number, and goes through all pairs ---- */

#ifdef AT_GIVES /* so many loads do */
AT_FN at_i32 at_give_place(const struct at_in *x, int which, at_i64 i0, at_i64 i1, at_i64 i2, at_i64 i3)
{
    AT_GLOBAL const struct at_k_capture *c = x->captures + which;
    AT_GLOBAL const at_i64 *n = c->shape;
    if (i0 < 0 || i0 >= n[0] || i1 < 0 || i1 >= n[1] || i2 < 0 || i2 >= n[2] || i3 < 0 || i3 >= n[3])
        return -1;
    return (at_i32)(c->place + ((i0 * n[1] + i1) * n[2] + i2) * n[3] + i3);
}

#if AT_GIVES > 0
AT_FN void at_give_loads(const struct at_in *x, float score, int b, int h, int i, int j, int sq, int skv,
                         float ds, AT_GLOBAL struct at_k_give *to);

/* Of sequence a.nseq.  x: keys; y: packed row, from a.first on; z: KV group. */
AT_KERNEL AT_GROUP(AT_ITEMS) void back_pairs(const struct at_k_back back, AT_BACK_PARAMS)
{
    AT_BACK_IN(in, a.nseq)
    int j = (int)AT_GROUP_X * AT_ITEMS + AT_ITEM, y = (int)AT_GROUP_Y, g = (int)AT_GROUP_Z, r = a.first + y;
    if (j >= a.chunk)
        return;
    AT_GLOBAL struct at_k_give *to = (AT_GLOBAL struct at_k_give *)(work + a.partials) +
                                     (((at_i64)g * a.rows + y) * a.chunk + j) * AT_GIVES;
    float raw, ds = at_back_pair(&back, &in, pdout, plse, pdelta, g, r, j, &raw);
    for (int e = 0; e < AT_GIVES; e++)
        to[e].place = -1;
    if (ds != 0.0f)
        at_give_loads(&in, at_plain(&a, &in, g, r, j, raw), in.n, g * in.ratio + r % in.ratio, r / in.ratio,
                      j, in.nq, in.nk, ds, to);
}
#endif

/* One group: pairs join the sums, a float and what it lost; op: these become 0. */
AT_KERNEL AT_GROUP(AT_ITEMS) void back_gather(const struct at_k_back back, AT_BACK_PARAMS)
{
    const struct at_k_attn a = back.a;
    AT_GLOBAL const struct at_k_give *from = (AT_GLOBAL const struct at_k_give *)(work + a.partials);
    AT_GLOBAL float *sums = (AT_GLOBAL float *)(work + back.sums);
    for (at_i64 e = AT_ITEM; e < back.places && back.op; e += AT_ITEMS)
        sums[2 * e] = sums[2 * e + 1] = 0.0f;
    for (at_i64 e = 0, n = a.ng * (at_i64)a.rows * a.chunk * AT_GIVES; e < n && !back.op; e++) {
        at_i64 to = from[e].place;
        if (to < 0 || to % AT_ITEMS != AT_ITEM)
            continue;
        float sum = sums[2 * to], rest = sums[2 * to + 1];
        at_add(&sum, &rest, from[e].value);
        sums[2 * to] = sum;
        sums[2 * to + 1] = rest;
    }
}

/* x: elements of captured tensor number op. */
AT_KERNEL AT_GROUP(AT_ITEMS) void back_store(const struct at_k_back back, AT_BACK_PARAMS)
{
    AT_GLOBAL const struct at_k_capture *c =
        (AT_GLOBAL const struct at_k_capture *)(work + back.a.captures) + back.op;
    at_i64 e = AT_GROUP_X * AT_ITEMS + AT_ITEM, at = back.out[0].at, rest = e;
    if (e >= c->shape[0] * c->shape[1] * c->shape[2] * c->shape[3])
        return;
    for (int d = 3; d >= 0; d--) {
        at += rest % c->shape[d] * back.out[0].stride[d];
        rest /= c->shape[d];
    }
    AT_GLOBAL const float *sum = (AT_GLOBAL const float *)(work + back.sums) + 2 * (c->place + e);
    ((AT_GLOBAL float *)out)[at] = sum[0] + sum[1];
}
#endif

/* ---- keys that no sequence has: their gradients are 0.  x: key; y: head; z: entry ---- */

AT_KERNEL AT_GROUP(AT_ITEMS) void back_clear(const struct at_k_back back, AT_BACK_PARAMS)
{
    const struct at_k_view *v = &back.out[0];
    at_i64 at = v->at + AT_GROUP_Z * v->stride[0] + AT_GROUP_Y * v->stride[1] + AT_GROUP_X * v->stride[2];
    for (int d = AT_ITEM; d < back.op; d += AT_ITEMS)
        ((AT_GLOBAL float *)out)[at + d] = 0.0f;
}
