/* SPDX-License-Identifier: MIT */
/* Attention for GPUs: a group of 64 items has a tile of 32 packed rows, and passes over the keys in tiles
 * of 32.  Item (y, x) of 8 x 8 owns rows 4 y to 4 y + 3 of everything: scores of keys 4 x to 4 x + 3, and
 * channels x, x + 8, ... of the AT_DV that the group has.  Rows, keys and values are staged 32 channels at
 * a time, so local memory does not grow with the head. */
#define ROWS 32
#define KEYS 32
#define CHUNK 32
#define PAD 33

/* ks[c][row] = channels c0 .. of the rows of queries, or of the keys; 0 where there is none. */
AT_FN void stage_q(const struct at_k_attn *a, const struct at_in *x, AT_LOCAL float *qs, int g, int first,
                   int rows, int c0)
{
    for (int e = AT_ITEM; e < ROWS * CHUNK; e += 64) {
        int row = e / CHUNK, c = c0 + e % CHUNK;
        float q = 0.0f;
        if (first + row < rows && c < a->dk)
            q = at_load(x->q, at_q_at(a, x, g, first + row) + c, a->q.type);
        qs[(e % CHUNK) * PAD + row] = q;
    }
}

AT_FN void stage_k(const struct at_k_attn *a, const struct at_in *x, AT_LOCAL float *ks, int g, int j0,
                   int from, int to, int c0)
{
    for (int e = AT_ITEM; e < KEYS * CHUNK; e += 64) {
        int j = j0 + e / CHUNK, c = c0 + e % CHUNK;
        float k = 0.0f, by;
        if (j >= from && j < to && c < a->dk)
            k = at_channel(x->k, at_k_at(a, x, g, j, &by), c, a->k.type) * by;
        ks[(e % CHUNK) * PAD + e / CHUNK] = k;
    }
}

AT_FN void stage_v(const struct at_k_attn *a, const struct at_in *x, AT_LOCAL float *vs, int g, int j0,
                   int from, int to, int c0)
{
    for (int e = AT_ITEM; e < KEYS * CHUNK; e += 64) {
        int j = j0 + e / CHUNK, c = c0 + e % CHUNK;
        float v = 0.0f, by;
        if (j >= from && j < to && c < a->dv)
            v = at_channel(x->v, at_v_at(a, x, g, j, &by), c, a->v.type) * by;
        vs[(e / CHUNK) * PAD + e % CHUNK] = v;
    }
}

/* z: row tile; y: KV group and slice of AT_DV channels; x: sequence. */
AT_KERNEL AT_GROUP(64) void attn_local(const struct at_k_attn a, AT_ATTN_PARAMS)
{
    AT_SHARED float qs[CHUNK * PAD], ks[CHUNK * PAD], ps[KEYS * PAD], red[8 * ROWS];
    AT_ATTN_IN(in, AT_GROUP_X)
    int slices = (a.dv + AT_DV - 1) / AT_DV, g = (int)AT_GROUP_Y / slices;
    int d0 = (int)AT_GROUP_Y % slices * AT_DV, x = AT_ITEM % 8, y = AT_ITEM / 8;
    int rows = in.nq * in.ratio, first = (int)AT_GROUP_Z * ROWS;
    if (first >= rows)
        return;
    int last = first + ROWS < rows ? first + ROWS - 1 : rows - 1;
    struct at_keys keys = at_key_range(&a, &in, first / in.ratio, last / in.ratio + 1);
    float m[4], l[4], acc[4][AT_DV / 8];
    for (int r = 0; r < 4; r++) {
        m[r] = -AT_INF;
        l[r] = 0.0f;
        for (int c = 0; c < AT_DV / 8; c++)
            acc[r][c] = 0.0f;
    }
    for (int j0 = keys.first / KEYS * KEYS; j0 < keys.end; j0 += KEYS) {
        int partial = a.hides || j0 < keys.full_first || j0 + KEYS > keys.full_end;
        float s[4][4];
        /* scores */
        for (int r = 0; r < 4; r++)
            for (int k = 0; k < 4; k++)
                s[r][k] = 0.0f;
        for (int c0 = 0; c0 < a.dk; c0 += CHUNK) {
            AT_BARRIER();
            stage_q(&a, &in, qs, g, first, rows, c0);
            stage_k(&a, &in, ks, g, j0, keys.first, keys.end, c0);
            AT_BARRIER();
            for (int c = 0; c < CHUNK; c++) {
                float q[4], k[4];
                for (int e = 0; e < 4; e++) {
                    q[e] = qs[c * PAD + 4 * y + e];
                    k[e] = ks[c * PAD + 4 * x + e];
                }
                if (a.has_additive) {
                    float va = 0.0f;
                    if (c0 + c < a.dk)
                        va = ((AT_GLOBAL const float *)in.additive)[a.additive + c0 + c];
                    for (int r = 0; r < 4; r++)
                        for (int e = 0; e < 4; e++)
                            s[r][e] += va * tanh(q[r] + k[e]);
                } else {
                    for (int r = 0; r < 4; r++)
                        for (int e = 0; e < 4; e++)
                            s[r][e] = fma(q[r], k[e], s[r][e]);
                }
            }
        }
        if (partial || a.edits || first + ROWS > rows) {
            /* One by one in local memory, where an index costs nothing: in registers it would. */
            for (int e = 0; e < 16; e++)
                ps[(4 * x + e % 4) * PAD + 4 * y + e / 4] = s[e / 4][e % 4];
#pragma unroll 1
            for (int e = 0; e < 16; e++) {
                int row = first + 4 * y + e / 4, j = j0 + 4 * x + e % 4;
                AT_LOCAL float *p = ps + (4 * x + e % 4) * PAD + 4 * y + e / 4;
                if (row >= rows || (partial && !at_visible(&a, &in, row, j)))
                    *p = -AT_INF;
                else
                    *p = a.edits ? at_score(&a, &in, g, row, j, *p) : *p * a.scale;
            }
            for (int e = 0; e < 16; e++)
                s[e / 4][e % 4] = ps[(4 * x + e % 4) * PAD + 4 * y + e / 4];
        } else {
            for (int e = 0; e < 16; e++)
                s[e / 4][e % 4] *= a.scale;
        }
        for (int r = 0; r < 4; r++)
            red[x * ROWS + 4 * y + r] = fmax(fmax(s[r][0], s[r][1]), fmax(s[r][2], s[r][3]));
        AT_BARRIER();
        /* softmax_step */
        for (int r = 0; r < 4; r++) {
            float top = m[r];
            for (int e = 0; e < 8; e++)
                top = fmax(top, red[e * ROWS + 4 * y + r]);
            float reference = at_reference(top), factor = at_exp(m[r] - reference);
            m[r] = top;
            l[r] *= factor;
            for (int c = 0; c < AT_DV / 8; c++)
                acc[r][c] *= factor;
            for (int e = 0; e < 4; e++) {
                float p = at_weight(s[r][e], reference);
                l[r] += p;
                ps[(4 * x + e) * PAD + 4 * y + r] = p;
            }
        }
#pragma unroll 1
        for (int e = 0; a.below && e < 16; e++) {
            AT_LOCAL float *p = ps + (4 * x + e % 4) * PAD + 4 * y + e / 4;
            if (*p > 0.0f)
                *p *= at_dropout(&a, &in, g, first + 4 * y + e / 4, j0 + 4 * x + e % 4);
        }
        /* accumulate: indices of acc are constants, else it would be in memory */
        for (int c0 = 0; c0 < AT_DV; c0 += CHUNK) {
            float part[4][4];
            AT_BARRIER();
            stage_v(&a, &in, ks, g, j0, keys.first, keys.end, d0 + c0);
            AT_BARRIER();
            for (int e = 0; e < 16; e++)
                part[e / 4][e % 4] = 0.0f;
            for (int j = 0; j < KEYS; j++) {
                float p[4], v[4];
                for (int e = 0; e < 4; e++) {
                    p[e] = ps[j * PAD + 4 * y + e];
                    v[e] = ks[j * PAD + x + 8 * e];
                }
                for (int r = 0; r < 4; r++)
                    for (int e = 0; e < 4; e++)
                        if (!partial || !AT_DEAD(p[r])) /* a hidden value may be NaN */
                            part[r][e] = fma(p[r], v[e], part[r][e]);
            }
#pragma unroll
            for (int c = 0; c < AT_DV / 8; c++)
                for (int r = 0; r < 4; r++)
                    acc[r][c] += c / 4 == c0 / CHUNK ? part[r][c % 4] : 0.0f;
        }
    }
    /* finish */
    AT_BARRIER();
    for (int r = 0; r < 4; r++)
        red[x * ROWS + 4 * y + r] = l[r];
    AT_BARRIER();
#pragma unroll
    for (int r = 0; r < 4; r++) {
        int row = first + 4 * y + r;
        float sum = 0.0f, factor;
        for (int e = 0; e < 8; e++)
            sum += red[e * ROWS + 4 * y + r];
        if (row >= rows)
            continue;
        at_sink(&a, &in, g, row, &m[r], &sum, &factor);
        factor = sum == 0.0f ? 0.0f : factor / sum;
#pragma unroll
        for (int c = 0; c < AT_DV / 8; c++)
            if (d0 + x + 8 * c < a.dv)
                at_store(out, at_o_at(&a, &in, g, row) + d0 + x + 8 * c, AT_F32, acc[r][c] * factor);
        if (a.has_lse && d0 == 0 && x == 0)
            ((AT_GLOBAL float *)lse)[at_lse_at(&a, &in, g, row)] = m[r] + log(sum);
    }
}
