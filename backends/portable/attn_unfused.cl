/* SPDX-License-Identifier: MIT */
/* Attention in three kernels, with the scores of some rows in memory between them: the last resort, and
 * an oracle that shares no recurrence with the others.  a.rows packed rows of one sequence, from a.first
 * on; scores are [KV group][row][key] in work. */

AT_FN AT_GLOBAL float *at_scores_of(const struct at_k_attn *a, AT_GLOBAL uchar *work, int g, int row)
{
    return (AT_GLOBAL float *)(work + a->partials) + ((at_i64)g * a->rows + row) * a->chunk; /* its floats */
}

/* x: 64 keys; y: row; z: KV group. */
AT_KERNEL AT_GROUP(64) void unfused_scores(const struct at_k_attn a, AT_ATTN_PARAMS)
{
    AT_ATTN_IN(in, a.nseq)
    int r = a.first + (int)AT_GROUP_Y, g = (int)AT_GROUP_Z, j = (int)AT_GROUP_X * 64 + AT_ITEM;
    if (j >= in.nk)
        return;
    float dot = -AT_INF, by;
    if (at_visible(&a, &in, r, j)) {
        at_i64 q = at_q_at(&a, &in, g, r), k = at_k_at(&a, &in, g, j, &by);
        dot = 0.0f;
        for (int d = 0; d < a.dk; d++) {
            float u = at_load(in.q, q + d, a.q.type), v = at_channel(in.k, k, d, a.k.type) * by;
            if (a.has_additive)
                dot += ((AT_GLOBAL const float *)in.additive)[a.additive + d] * tanh(u + v);
            else
                dot = fma(u, v, dot);
        }
        dot = a.edits ? at_score(&a, &in, g, r, j, dot) : dot * a.scale;
    }
    at_scores_of(&a, work, g, (int)AT_GROUP_Y)[j] = dot;
}

/* y: row; z: KV group.  Scores become weights that are normalised. */
AT_KERNEL AT_GROUP(64) void unfused_softmax(const struct at_k_attn a, AT_ATTN_PARAMS)
{
    AT_SHARED float red[64];
    AT_ATTN_IN(in, a.nseq)
    int r = a.first + (int)AT_GROUP_Y, g = (int)AT_GROUP_Z;
    AT_GLOBAL float *s = at_scores_of(&a, work, g, (int)AT_GROUP_Y);
    float m = -AT_INF, l = 0.0f, factor;
    for (int j = AT_ITEM; j < in.nk; j += 64)
        m = fmax(m, s[j]);
    m = at_reduce(red, 64, m, 1);
    float reference = at_reference(m);
    for (int j = AT_ITEM; j < in.nk; j += 64)
        l += at_exp(s[j] - reference);
    l = at_reduce(red, 64, l, 0);
    at_sink(&a, &in, g, r, &m, &l, &factor);
    factor = l == 0.0f ? 0.0f : factor / l;
    for (int j = AT_ITEM; j < in.nk; j += 64) {
        float p = at_weight(s[j], reference) * factor;
        if (a.below && p > 0.0f)
            p *= at_dropout(&a, &in, g, r, j);
        s[j] = p;
    }
    if (a.has_lse && AT_ITEM == 0)
        ((AT_GLOBAL float *)lse)[at_lse_at(&a, &in, g, r)] = m + log(l);
}

/* x: 64 channels; y: row; z: KV group. */
AT_KERNEL AT_GROUP(64) void unfused_values(const struct at_k_attn a, AT_ATTN_PARAMS)
{
    AT_ATTN_IN(in, a.nseq)
    int r = a.first + (int)AT_GROUP_Y, g = (int)AT_GROUP_Z, d = (int)AT_GROUP_X * 64 + AT_ITEM;
    AT_GLOBAL const float *p = at_scores_of(&a, work, g, (int)AT_GROUP_Y);
    float sum = 0.0f, by;
    if (d >= a.dv)
        return;
    for (int j = 0; j < in.nk; j++) {
        if (AT_DEAD(p[j]))
            continue;
        at_i64 v = at_v_at(&a, &in, g, j, &by);
        sum = fma(p[j], at_channel(in.v, v, d, a.v.type) * by, sum);
    }
    at_store(out, at_o_at(&a, &in, g, r) + d, AT_F32, sum);
}
