/* SPDX-License-Identifier: MIT */
/* The backward pass of attention for GPUs: a group of 64 items has a tile of 32 rows and passes over keys
 * in tiles of 32, for dQ, or it has the keys and passes over rows, for dK or dV.  Item (y, x) of 8 x 8
 * works out scores of rows 4 y to 4 y + 3 and keys 4 x to 4 x + 3; of the result it has four rows (or keys)
 * 4 y .. and channels x, x + 8, ... of the AT_DV that the group has.  Everything is staged 32 channels at a
 * time, [channel][row or key]. */
#define TILE 32
#define PAD 33
#define CHANNELS (AT_DV / 8) /* of an item */

/* The other operand of a row (or key) that is not there is 0, so what is staged here does not matter. */
AT_FN void stage_rows(AT_LOCAL float *to, AT_GLOBAL const uchar *p, const struct at_k_view *v,
                      const struct at_in *x, int g, int first, int rows, int c0, int width)
{
    for (int e = AT_ITEM; e < TILE * TILE; e += 64) {
        int row = e / TILE, c = c0 + e % TILE;
        float q = 0.0f;
        if (first + row < rows && c < width)
            q = at_load(p, at_grad_row(v, x, g, first + row) + c, v->type);
        to[(e % TILE) * PAD + row] = q;
    }
}

AT_FN void stage_keys(AT_LOCAL float *to, AT_GLOBAL const uchar *p, const struct at_k_view *v,
                      const struct at_in *x, int g, int j0, struct at_keys keys, int c0, int width)
{
    for (int e = AT_ITEM; e < TILE * TILE; e += 64) {
        int j = j0 + e / TILE, c = c0 + e % TILE;
        float k = 0.0f;
        if (j >= keys.first && j < keys.end && c < width)
            k = at_load(p, at_grad_key(v, x, g, j) + c, v->type);
        to[(e % TILE) * PAD + e / TILE] = k;
    }
}

/* s += rows . keys over the staged channels, or v . tanh(rows + keys) where there is a vector. */
AT_FN void contract(float s[4][4], AT_LOCAL const float *us, AT_LOCAL const float *ks,
                    AT_GLOBAL const float *vector, int c0, int width)
{
    int x = AT_ITEM % 8, y = AT_ITEM / 8;
    for (int c = 0; c < TILE; c++) {
        float u[4], k[4];
        for (int e = 0; e < 4; e++) {
            u[e] = us[c * PAD + 4 * y + e];
            k[e] = ks[c * PAD + 4 * x + e];
        }
        if (vector) {
            float by = c0 + c < width ? vector[c0 + c] : 0.0f;
            for (int r = 0; r < 4; r++)
                for (int e = 0; e < 4; e++)
                    s[r][e] += by * tanh(u[r] + k[e]);
        } else {
            for (int r = 0; r < 4; r++)
                for (int e = 0; e < 4; e++)
                    s[r][e] = fma(u[r], k[e], s[r][e]);
        }
    }
}

struct tensors {
    AT_GLOBAL const uchar *dout, *lse, *delta;
};

/* Of rows from `first` and keys from j0 on, to ps[key][row]: weights as they met the values, or (scores) the
 * gradients of scores over the scale; 0 where a key is hidden.  slopes: what they give to slopes. */
AT_FN void back_tile(const struct at_k_back *b, const struct at_in *in, const struct tensors *t,
                     AT_LOCAL float *us, AT_LOCAL float *ks, AT_LOCAL float *ps, int g, int first, int j0,
                     struct at_keys keys, int scores, float slopes[4])
{
    const struct at_k_attn *a = &b->a;
    int x = AT_ITEM % 8, y = AT_ITEM / 8, rows = in->nq * in->ratio;
    int partial = a->hides || j0 < keys.full_first || j0 + TILE > keys.full_end;
    AT_GLOBAL const float *vector = (AT_GLOBAL const float *)in->additive + a->additive;
    float s[4][4], dp[4][4];
    for (int r = 0; r < 4; r++)
        for (int e = 0; e < 4; e++)
            s[r][e] = dp[r][e] = 0.0f;
    for (int c0 = 0; c0 < a->dk; c0 += TILE) {
        AT_BARRIER();
        stage_rows(us, in->q, &a->q, in, g, first, rows, c0, a->dk);
        stage_keys(ks, in->k, &a->k, in, g, j0, keys, c0, a->dk);
        AT_BARRIER();
        contract(s, us, ks, a->has_additive ? vector : 0, c0, a->dk);
    }
    for (int c0 = 0; c0 < a->dv && scores; c0 += TILE) {
        AT_BARRIER();
        stage_rows(us, t->dout, &a->o, in, g, first, rows, c0, a->dv);
        stage_keys(ks, in->v, &a->v, in, g, j0, keys, c0, a->dv);
        AT_BARRIER();
        contract(dp, us, ks, 0, c0, a->dv);
    }
    AT_BARRIER();
    /* One by one from local memory, where an index costs nothing: in registers it would. */
    for (int e = 0; e < 16; e++) {
        int at = (4 * x + e % 4) * PAD + 4 * y + e / 4;
        ps[at] = s[e / 4][e % 4];
        us[at] = dp[e / 4][e % 4];
    }
#pragma unroll 1
    for (int e = 0; e < 16; e++) {
        int row = first + 4 * y + e / 4, j = j0 + 4 * x + e % 4;
        int at = (4 * x + e % 4) * PAD + 4 * y + e / 4;
        float dot = ps[at], p = 0.0f, keep = 1.0f, cap;
        if (row < rows && (!partial || at_visible(a, in, row, j)))
            p = at_back_weight(a->edits ? at_score(a, in, g, row, j, dot) : dot * a->scale,
                               at_back_lse(a, in, t->lse, g, row));
        if (p != 0.0f && a->below)
            keep = at_dropout(a, in, g, row, j);
        if (scores && p != 0.0f) { /* what is hidden may hold anything */
            p *= us[at] * keep - at_back_delta(b, in, t->delta, g, row);
            if (a->edits) {
                p *= at_back_slope(a, in, g, row, j, dot, &cap);
                for (int r = 0; r < 4 && a->has_alibi; r++)
                    slopes[r] -= r == e / 4 ? p * at_distance(in, row, j) : 0.0f;
                p *= cap;
            }
        } else {
            p *= keep;
        }
        ps[at] = p;
    }
    AT_BARRIER();
}

/* dQ.  z: row tile; y: KV group and slice of channels; x: sequence. */
AT_KERNEL AT_GROUP(64) void back_rows(const struct at_k_back back, AT_BACK_PARAMS)
{
    AT_SHARED float us[TILE * PAD], ks[TILE * PAD], ps[TILE * PAD];
    AT_BACK_IN(in, AT_GROUP_X)
    struct tensors t;
    t.dout = pdout, t.lse = plse, t.delta = pdelta;
    int slices = (a.dk + AT_DV - 1) / AT_DV, g = (int)AT_GROUP_Y / slices;
    int d0 = (int)AT_GROUP_Y % slices * AT_DV, x = AT_ITEM % 8, y = AT_ITEM / 8;
    int rows = in.nq * in.ratio, first = (int)AT_GROUP_Z * TILE;
    if (first >= rows)
        return;
    int last = first + TILE < rows ? first + TILE - 1 : rows - 1;
    struct at_keys keys = at_key_range(&a, &in, first / in.ratio, last / in.ratio + 1);
    float acc[4][CHANNELS], slopes[4];
#ifdef AT_ADDITIVE
    float vec[4][CHANNELS];
    AT_GLOBAL const float *vector = (AT_GLOBAL const float *)in.additive + a.additive;
#endif
    for (int r = 0; r < 4; r++) {
        slopes[r] = 0.0f;
        for (int c = 0; c < CHANNELS; c++) {
            acc[r][c] = 0.0f;
#ifdef AT_ADDITIVE
            vec[r][c] = 0.0f;
#endif
        }
    }
    for (int j0 = keys.first / TILE * TILE; j0 < keys.end; j0 += TILE) {
        back_tile(&back, &in, &t, us, ks, ps, g, first, j0, keys, 1, slopes);
#pragma unroll
        for (int c0 = 0; c0 < AT_DV; c0 += TILE) {
            AT_BARRIER();
            stage_keys(ks, in.k, &a.k, &in, g, j0, keys, d0 + c0, a.dk);
#ifdef AT_ADDITIVE
            stage_rows(us, in.q, &a.q, &in, g, first, rows, d0 + c0, a.dk);
#endif
            AT_BARRIER();
            for (int j = 0; j < TILE; j++)
#pragma unroll
                for (int r = 0; r < 4; r++) {
                    float ds = ps[j * PAD + 4 * y + r];
                    if (ds == 0.0f) /* a hidden key may be NaN */
                        continue;
                    for (int e = 0; e < 4; e++) {
                        float k = ks[(x + 8 * e) * PAD + j];
#ifdef AT_ADDITIVE
                        int c = d0 + c0 + x + 8 * e;
                        float th = tanh(us[(x + 8 * e) * PAD + 4 * y + r] + k);
                        vec[r][c0 / 8 + e] = fma(ds, th, vec[r][c0 / 8 + e]);
                        k = c < a.dk ? vector[c] * (1.0f - th * th) : 0.0f;
#endif
                        acc[r][c0 / 8 + e] = fma(ds, k, acc[r][c0 / 8 + e]);
                    }
                }
        }
    }
    AT_BARRIER();
    for (int r = 0; r < 4; r++)
        ps[x * PAD + 4 * y + r] = slopes[r];
    AT_BARRIER();
#pragma unroll
    for (int r = 0; r < 4; r++) {
        int row = first + 4 * y + r;
        if (row >= rows)
            continue;
        if (back.slopes >= 0 && x == 0 && d0 == 0) {
            float sum = 0.0f;
            for (int e = 0; e < 8; e++)
                sum += ps[e * PAD + 4 * y + r];
            ((AT_GLOBAL float *)(work + back.slopes))[at_row_sums(&back, &in, g, row)] = sum;
        }
#pragma unroll
        for (int c = 0; c < CHANNELS; c++) {
            int d = d0 + x + 8 * c;
            if (d >= a.dk)
                continue;
            if (back.out[0].given)
                ((AT_GLOBAL float *)out)[at_grad_row(&back.out[0], &in, g, row) + d] = acc[r][c] * a.scale;
#ifdef AT_ADDITIVE
            if (back.vectors >= 0)
                ((AT_GLOBAL float *)(work + back.vectors))[at_row_sums(&back, &in, g, row) * a.dk + d] =
                    vec[r][c] * a.scale;
#endif
        }
    }
}

/* dK and dV, out and out1.  z: key tile; y: KV group and slice of dK's channels, then of dV's; x: sequence. */
AT_KERNEL AT_GROUP(64) void back_keys(const struct at_k_back back, AT_BACK_PARAMS)
{
    AT_SHARED float us[TILE * PAD], ks[TILE * PAD], ps[TILE * PAD];
    AT_BACK_IN(in, AT_GROUP_X)
    struct tensors t;
    t.dout = pdout, t.lse = plse, t.delta = pdelta;
    int of_k = (a.dk + AT_DV - 1) / AT_DV, slices = of_k + (a.dv + AT_DV - 1) / AT_DV;
    int g = (int)AT_GROUP_Y / slices, slice = (int)AT_GROUP_Y % slices, scores = slice < of_k;
    int d0 = (scores ? slice : slice - of_k) * AT_DV, width = scores ? a.dk : a.dv;
    int x = AT_ITEM % 8, y = AT_ITEM / 8, rows = in.nq * in.ratio, j0 = (int)AT_GROUP_Z * TILE;
    if (j0 >= in.nk || !(scores ? back.out[0].given : back.out[1].given))
        return;
    float acc[4][CHANNELS], slopes[4];
    for (int r = 0; r < 4; r++) {
        slopes[r] = 0.0f; /* not asked for here */
        for (int c = 0; c < CHANNELS; c++)
            acc[r][c] = 0.0f;
    }
    for (int first = 0; first < rows; first += TILE) {
        int last = first + TILE < rows ? first + TILE - 1 : rows - 1;
        struct at_keys keys = at_key_range(&a, &in, first / in.ratio, last / in.ratio + 1);
        if (keys.first >= j0 + TILE || keys.end <= j0)
            continue;
        back_tile(&back, &in, &t, us, ks, ps, g, first, j0, keys, scores, slopes);
#pragma unroll
        for (int c0 = 0; c0 < AT_DV; c0 += TILE) {
            AT_BARRIER();
            if (scores)
                stage_rows(us, in.q, &a.q, &in, g, first, rows, d0 + c0, width);
            else
                stage_rows(us, pdout, &a.o, &in, g, first, rows, d0 + c0, width);
#ifdef AT_ADDITIVE
            if (scores)
                stage_keys(ks, in.k, &a.k, &in, g, j0, keys, d0 + c0, width);
#endif
            AT_BARRIER();
            for (int r = 0; r < TILE; r++)
#pragma unroll
                for (int k = 0; k < 4; k++) {
                    float ds = ps[(4 * y + k) * PAD + r];
                    if (ds == 0.0f)
                        continue;
                    for (int e = 0; e < 4; e++) {
                        float u = us[(x + 8 * e) * PAD + r];
#ifdef AT_ADDITIVE
                        int c = d0 + c0 + x + 8 * e;
                        if (scores) {
                            float th = tanh(u + ks[(x + 8 * e) * PAD + 4 * y + k]);
                            u = c < a.dk ? ((AT_GLOBAL const float *)in.additive)[a.additive + c] *
                                               (1.0f - th * th)
                                         : 0.0f;
                        }
#endif
                        acc[k][c0 / 8 + e] = fma(ds, u, acc[k][c0 / 8 + e]);
                    }
                }
        }
    }
    const struct at_k_view *v = scores ? &back.out[0] : &back.out[1];
    AT_GLOBAL float *to = (AT_GLOBAL float *)(scores ? out : out1);
    float by = scores ? a.scale : 1.0f;
#pragma unroll
    for (int k = 0; k < 4; k++)
#pragma unroll
        for (int c = 0; c < CHANNELS; c++)
            if (j0 + 4 * y + k < in.nk && d0 + x + 8 * c < width)
                to[at_grad_key(v, &in, g, j0 + 4 * y + k) + d0 + x + 8 * c] = acc[k][c] * by;
}
