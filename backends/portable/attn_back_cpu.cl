/* SPDX-License-Identifier: MIT */
/* The backward pass of attention for CPUs: a work item is a core, and there is no barrier.  Weights and the
 * gradients of scores have rows in the lanes of vectors, as in the forward pass; so has dQ.  dK and dV
 * contract over rows: there lanes are channels. */
#define KEYS 96 /* of a block: a multiple of AT_TILE */
#define WIDE_K ((AT_DK + 5) / 6 * 6)
#define BLOCKS_K ((AT_DK + AT_STRIP - 1) / AT_STRIP) /* of channels in lanes */
#define BLOCKS_V ((AT_DV + AT_STRIP - 1) / AT_STRIP)

/* Rows of Q and dO as [channel][row], and what belongs to each. */
struct strip {
    float q[AT_STRIP * AT_DK], o[AT_STRIP * AT_DV];
    float lse[AT_STRIP], delta[AT_STRIP]; /* lse in units of ln 2; infinity: no weight at all */
    int low[AT_STRIP], high[AT_STRIP];
    int first, n;
};

/* Keys and values as rows, 0 where there is none; and of them and a strip: weights as they met the values,
 * gradients of scores, and raw scores where these are needed again. */
struct block {
    float k[KEYS * WIDE_K], v[KEYS * AT_DV];
    float p[KEYS * AT_STRIP], ds[KEYS * AT_STRIP], raw[KEYS * AT_STRIP];
    int j0, from, to, wide;
};

AT_FN void pack_block(const struct at_k_back *b, const struct at_in *x, struct block *m, int g, int j0,
                      int first, int end)
{
    const struct at_k_attn *a = &b->a;
    m->j0 = j0;
    m->from = first > j0 ? first - j0 : 0;
    m->to = end - j0 < KEYS ? end - j0 : KEYS;
    m->wide = (a->dk + 5) / 6 * 6;
    for (int e = 0; e < KEYS; e++) {
        int some = e >= m->from && e < m->to;
        if (some) {
            at_stage(m->k + e * m->wide, x->k, at_grad_key(&a->k, x, g, j0 + e), 0, a->dk, a->k.type, 1.0f);
            at_stage(m->v + e * a->dv, x->v, at_grad_key(&a->v, x, g, j0 + e), 0, a->dv, a->v.type, 1.0f);
        }
        for (int d = some ? a->dk : 0; d < m->wide; d++)
            m->k[e * m->wide + d] = 0.0f;
        for (int d = some ? a->dv : 0; d < a->dv; d++)
            m->v[e * a->dv + d] = 0.0f;
    }
}

/* rows: room for the same rows of Q and dO as [block of channels][row][AT_STRIP], or 0. */
AT_FN void pack_strip(const struct at_k_back *b, const struct at_in *x, AT_GLOBAL const uchar *dout,
                      AT_GLOBAL const uchar *lse, AT_GLOBAL const uchar *delta, struct strip *w, int g,
                      int first, float *rq, float *ro)
{
    const struct at_k_attn *a = &b->a;
    int rows = x->nq * x->ratio;
    float row[(AT_DK > AT_DV ? AT_DK : AT_DV) + AT_STRIP];
    w->first = first;
    w->n = rows - first < AT_STRIP ? rows - first : AT_STRIP;
    for (int r = 0; r < AT_STRIP; r++) {
        int some = r < w->n, i = (first + r) / x->ratio;
        float l = some ? at_back_lse(a, x, lse, g, first + r) * AT_LOG2E : AT_INF;
        w->lse[r] = l == -AT_INF ? AT_INF : l;
        w->delta[r] = some ? at_back_delta(b, x, delta, g, first + r) : 0.0f;
        w->low[r] = some ? at_low(a, x, i) : 0;
        w->high[r] = some ? at_high(a, x, i) : 0;
        for (int of_q = 0; of_q < 2; of_q++) {
            int n = of_q ? a->dk : a->dv, blocks = (n + AT_STRIP - 1) / AT_STRIP;
            float *lanes = of_q ? w->q : w->o, *to = of_q ? rq : ro;
            for (int d = 0; d < blocks * AT_STRIP; d++)
                row[d] = 0.0f;
            if (some && of_q)
                at_stage(row, x->q, at_grad_row(&a->q, x, g, first + r), 0, n, a->q.type, 1.0f);
            else if (some)
                at_stage(row, dout, at_grad_row(&a->o, x, g, first + r), 0, n, AT_F32, 1.0f);
            for (int d = 0; d < n; d++)
                lanes[d * AT_STRIP + r] = row[d];
            for (int c = 0; c < blocks && to; c++) {
                at_vput(at_vget(2 * c, row), 0, to + (c * AT_STRIP + r) * AT_STRIP);
                at_vput(at_vget(2 * c + 1, row), 1, to + (c * AT_STRIP + r) * AT_STRIP);
            }
        }
    }
}

AT_FN void raw_scores(const struct at_k_attn *a, const struct at_in *x, const struct strip *w,
                      struct block *m, int from, int to)
{
    if (!a->has_additive) {
        for (int k = from; k < to; k += AT_TILE)
            at_tile(m->p + k * AT_STRIP, (at_vec)(0.0f), w->q, m->k + k * m->wide, m->wide, 1, a->dk);
        return;
    }
    AT_GLOBAL const float *va = (AT_GLOBAL const float *)x->additive + a->additive;
    for (int k = from; k < to; k++)
        for (int r = 0; r < AT_STRIP; r++) {
            float sum = 0.0f;
            for (int d = 0; d < a->dk; d++)
                sum += va[d] * tanh(w->q[d * AT_STRIP + r] + m->k[k * m->wide + d]);
            m->p[k * AT_STRIP + r] = sum;
        }
}

/* p and ds of a strip and keys [from, to) of a block, multiples of AT_TILE.  slopes, or 0: what the rows give
 * to the gradients of slopes.  Whether some key may be hidden. */
AT_FN int back_strip(const struct at_k_back *b, const struct at_in *x, const struct strip *w, struct block *m,
                     int g, int from, int to, float *slopes)
{
    const struct at_k_attn *a = &b->a;
    int last = w->first + w->n - 1, edits = a->edits;
    struct at_keys keys = at_key_range(a, x, w->first / x->ratio, last / x->ratio + 1);
    int partial = a->hides || m->j0 + from < keys.full_first || m->j0 + to > keys.full_end;
    float unit = edits ? AT_LOG2E : a->scale * AT_LOG2E;
    raw_scores(a, x, w, m, from, to);
    for (int k = from; k < to; k += AT_TILE)
        at_tile(m->ds + k * AT_STRIP, (at_vec)(0.0f), w->o, m->v + k * a->dv, a->dv, 1, a->dv);
    for (int k = from; k < to && edits; k++)
        for (int r = 0; r < w->n; r++) {
            float *p = m->p + k * AT_STRIP + r;
            m->raw[k * AT_STRIP + r] = *p;
            if (m->j0 + k >= w->low[r] && m->j0 + k < w->high[r])
                *p = at_score(a, x, g, w->first + r, m->j0 + k, *p);
        }
    for (int k = from; k < to; k++)
        for (int v = 0; v < 2; v++) {
            at_ivec low = at_iget(v, w->low), high = at_iget(v, w->high);
            at_vec s = at_vget(2 * k + v, m->p);
            if (partial)
                s = m->j0 + k >= low && m->j0 + k < high ? s : (at_vec)(-AT_INF);
            at_vec p = at_vexp2_or_0(fma(s, (at_vec)(unit), -at_vget(v, w->lse)));
            p = s == (at_vec)(-AT_INF) ? (at_vec)(0.0f) : p; /* also where the row's LSE is NaN */
            at_vec ds = p * (at_vget(2 * k + v, m->ds) - at_vget(v, w->delta));
            at_vput(p, 2 * k + v, m->p);
            if (!a->below)
                at_vput(p == 0.0f ? (at_vec)(0.0f) : ds, 2 * k + v, m->ds);
        }
    for (int k = from; k < to && (a->below || edits); k++)
        for (int r = 0; r < w->n; r++) {
            float *p = m->p + k * AT_STRIP + r, *ds = m->ds + k * AT_STRIP + r, cap;
            int row = w->first + r, j = m->j0 + k;
            if (a->below) {
                float keep = *p == 0.0f ? 0.0f : at_dropout(a, x, g, row, j);
                *ds = *p == 0.0f ? 0.0f : *p * (*ds * keep - w->delta[r]);
                *p *= keep;
            }
            if (!edits || *ds == 0.0f)
                continue;
            *ds *= at_back_slope(a, x, g, row, j, m->raw[k * AT_STRIP + r], &cap);
            if (slopes)
                slopes[r] -= *ds * at_distance(x, row, j);
            *ds *= cap;
        }
    for (int r = w->n; r < AT_STRIP && a->below; r++) /* what no row has */
        for (int k = from; k < to; k++)
            m->ds[k * AT_STRIP + r] = 0.0f;
    return partial;
}

/* Which tiles of keys of the block some row of the strip sees. */
AT_FN void tiles_seen(const struct at_k_attn *a, const struct at_in *x, const struct strip *w,
                      const struct block *m, int *from, int *to)
{
    struct at_keys keys =
        at_key_range(a, x, w->first / x->ratio, (w->first + w->n - 1) / x->ratio + 1);
    int low = keys.first - m->j0 > m->from ? keys.first - m->j0 : m->from;
    int high = keys.end - m->j0 < m->to ? keys.end - m->j0 : m->to;
    *from = low / AT_TILE * AT_TILE;
    *to = low < high ? (high + AT_TILE - 1) / AT_TILE * AT_TILE : *from;
}

/* ---- dQ ---- */

#define STRIPS (AT_ROWS / AT_STRIP)

/* dQ where hidden keys are not finite, and must not meet their 0; or where scores are additive. */
AT_FN void accumulate_one_by_one(const struct at_k_attn *a, const struct at_in *x, const struct strip *w,
                                 const struct block *m, float *acc, float *vec, int from, int to)
{
    AT_GLOBAL const float *va = (AT_GLOBAL const float *)x->additive + a->additive;
    for (int k = from; k < to; k++)
        for (int r = 0; r < w->n; r++) {
            float ds = m->ds[k * AT_STRIP + r];
            for (int d = 0; d < a->dk && ds != 0.0f; d++) {
                float u = m->k[k * m->wide + d];
                if (a->has_additive) {
                    float t = tanh(w->q[d * AT_STRIP + r] + u);
                    vec[d * AT_STRIP + r] = fma(ds, t, vec[d * AT_STRIP + r]);
                    u = va[d] * (1.0f - t * t);
                }
                acc[d * AT_STRIP + r] = fma(ds, u, acc[d * AT_STRIP + r]);
            }
        }
}

/* x: panel of rows; y: KV group; z: sequence. */
AT_KERNEL AT_GROUP(1) void back_rows_cpu(const struct at_k_back back, AT_BACK_PARAMS)
{
    struct strip w[STRIPS];
    struct block m;
    float acc[STRIPS * AT_STRIP * WIDE_K], slopes[AT_ROWS];
#ifdef AT_ADDITIVE
    float vec[STRIPS * AT_STRIP * WIDE_K];
#else
    float *vec = acc; /* not looked at */
#endif
    AT_BACK_IN(in, AT_GROUP_Z)
    int g = (int)AT_GROUP_Y, rows = in.nq * in.ratio, first = (int)AT_GROUP_X * AT_ROWS;
    if (first >= rows)
        return;
    int n = rows - first < AT_ROWS ? rows - first : AT_ROWS, strips = (n + AT_STRIP - 1) / AT_STRIP;
    struct at_keys keys = at_key_range(&a, &in, first / in.ratio, (first + n - 1) / in.ratio + 1);
    for (int s = 0; s < strips; s++)
        pack_strip(&back, &in, pdout, plse, pdelta, &w[s], g, first + s * AT_STRIP, 0, 0);
    for (int r = 0; r < AT_ROWS; r++)
        slopes[r] = 0.0f;
    for (int e = 0; e < STRIPS * AT_STRIP * WIDE_K; e++) {
        acc[e] = 0.0f;
        vec[e] = 0.0f;
    }
    for (int j0 = keys.first / KEYS * KEYS; j0 < keys.end; j0 += KEYS) {
        pack_block(&back, &in, &m, g, j0, keys.first, keys.end);
        int odd = at_has_odd(m.k, KEYS * m.wide);
        for (int s = 0; s < strips; s++) {
            float *to = acc + s * AT_STRIP * m.wide;
            int k0, k1;
            tiles_seen(&a, &in, &w[s], &m, &k0, &k1);
            if (k0 >= k1)
                continue;
            int partial = back_strip(&back, &in, &w[s], &m, g, k0, k1,
                                     back.slopes >= 0 ? slopes + s * AT_STRIP : 0);
            if (a.has_additive || (partial && odd))
                accumulate_one_by_one(&a, &in, &w[s], &m, to, vec + s * AT_STRIP * m.wide, k0, k1);
            else
                for (int d = 0; d < m.wide; d += AT_TILE)
                    at_tile_add(to + d * AT_STRIP, (at_vec)(1.0f), (at_vec)(1.0f), m.ds + k0 * AT_STRIP,
                                m.k + k0 * m.wide + d, 1, m.wide, k1 - k0);
        }
    }
    int wide = (a.dk + 5) / 6 * 6;
    for (int r = 0; r < n; r++) {
        int at = r / AT_STRIP * AT_STRIP * wide + r % AT_STRIP;
        at_i64 sums = at_row_sums(&back, &in, g, first + r);
        AT_GLOBAL float *q = (AT_GLOBAL float *)out + at_grad_row(&back.out[0], &in, g, first + r);
        for (int d = 0; d < a.dk && back.out[0].given; d++)
            q[d] = acc[at + d * AT_STRIP] * a.scale;
        for (int d = 0; d < a.dk && back.vectors >= 0; d++)
            ((AT_GLOBAL float *)(work + back.vectors))[sums * a.dk + d] = vec[at + d * AT_STRIP] * a.scale;
        if (back.slopes >= 0)
            ((AT_GLOBAL float *)(work + back.slopes))[sums] = slopes[r];
    }
}

/* ---- dK and dV ---- */

/* sum[block of channels][key][AT_STRIP] += st[key][row] rows[block][row][AT_STRIP] */
AT_FN void add_keys(float *sum, const float *st, const float *rows, int blocks, int from, int to)
{
    for (int c = 0; c < blocks; c++)
        for (int k = from; k < to; k += AT_TILE)
            at_tile_add(sum + (c * KEYS + k) * AT_STRIP, (at_vec)(1.0f), (at_vec)(1.0f),
                        rows + c * AT_STRIP * AT_STRIP, st + k * AT_STRIP, AT_STRIP, 1, AT_STRIP);
}

AT_FN void add_additive_keys(const struct at_k_attn *a, const struct at_in *x, const struct strip *w,
                             const struct block *m, float *sum, int from, int to)
{
    AT_GLOBAL const float *va = (AT_GLOBAL const float *)x->additive + a->additive;
    for (int k = from; k < to; k++)
        for (int r = 0; r < w->n; r++) {
            float ds = m->ds[k * AT_STRIP + r];
            for (int d = 0; d < a->dk && ds != 0.0f; d++) {
                float t = tanh(w->q[d * AT_STRIP + r] + m->k[k * m->wide + d]);
                sum[(d / AT_STRIP * KEYS + k) * AT_STRIP + d % AT_STRIP] += ds * va[d] * (1.0f - t * t);
            }
        }
}

AT_FN void put_keys(AT_GLOBAL uchar *out, const struct at_k_view *v, const struct at_in *x, const float *sum,
                    int g, int j0, int n, int width, float by)
{
    for (int k = 0; k < n && v->given; k++) {
        AT_GLOBAL float *to = (AT_GLOBAL float *)out + at_grad_key(v, x, g, j0 + k);
        for (int d = 0; d < width; d++)
            to[d] = sum[(d / AT_STRIP * KEYS + k) * AT_STRIP + d % AT_STRIP] * by;
    }
}

/* x: block of keys; y: KV group; z: sequence. */
AT_KERNEL AT_GROUP(1) void back_keys_cpu(const struct at_k_back back, AT_BACK_PARAMS)
{
    struct strip w;
    struct block m;
    float rq[BLOCKS_K * AT_STRIP * AT_STRIP], ro[BLOCKS_V * AT_STRIP * AT_STRIP];
    float sum_k[BLOCKS_K * KEYS * AT_STRIP], sum_v[BLOCKS_V * KEYS * AT_STRIP];
    AT_BACK_IN(in, AT_GROUP_Z)
    int g = (int)AT_GROUP_Y, rows = in.nq * in.ratio, j0 = (int)AT_GROUP_X * KEYS;
    if (j0 >= in.nk)
        return;
    pack_block(&back, &in, &m, g, j0, j0, in.nk);
    for (int e = 0; e < BLOCKS_K * KEYS * AT_STRIP; e++)
        sum_k[e] = 0.0f;
    for (int e = 0; e < BLOCKS_V * KEYS * AT_STRIP; e++)
        sum_v[e] = 0.0f;
    for (int first = 0; first < rows; first += AT_STRIP) {
        int k0, k1;
        w.first = first;
        w.n = rows - first < AT_STRIP ? rows - first : AT_STRIP;
        tiles_seen(&a, &in, &w, &m, &k0, &k1);
        if (k0 >= k1)
            continue;
        pack_strip(&back, &in, pdout, plse, pdelta, &w, g, first, rq, ro);
        back_strip(&back, &in, &w, &m, g, k0, k1, 0);
        if (back.out[1].given)
            add_keys(sum_v, m.p, ro, (a.dv + AT_STRIP - 1) / AT_STRIP, k0, k1);
        if (back.out[0].given && a.has_additive)
            add_additive_keys(&a, &in, &w, &m, sum_k, k0, k1);
        else if (back.out[0].given)
            add_keys(sum_k, m.ds, rq, (a.dk + AT_STRIP - 1) / AT_STRIP, k0, k1);
    }
    put_keys(out, &back.out[0], &in, sum_k, g, j0, m.to, a.dk, a.scale);
    put_keys(out1, &back.out[1], &in, sum_v, g, j0, m.to, a.dv, 1.0f);
}
