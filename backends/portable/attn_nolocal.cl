/* SPDX-License-Identifier: MIT */
/* Attention for GPUs whose local memory is no faster than the rest: an item has a packed row and AT_SLICE
 * channels, and nothing is shared, so there is no barrier. */
#define KEYS 4
#define AT_SLICE 32

/* z: 64 rows; y: KV group and slice; x: sequence. */
AT_KERNEL AT_GROUP(64) void attn_nolocal(const struct at_k_attn a, AT_ATTN_PARAMS)
{
    AT_ATTN_IN(in, AT_GROUP_X)
    int slices = (a.dv + AT_SLICE - 1) / AT_SLICE, g = (int)AT_GROUP_Y / slices;
    int d0 = (int)AT_GROUP_Y % slices * AT_SLICE, r = (int)AT_GROUP_Z * 64 + AT_ITEM;
    if (r >= in.nq * in.ratio)
        return;
    struct at_keys keys = at_key_range(&a, &in, r / in.ratio, r / in.ratio + 1);
    at_i64 q = at_q_at(&a, &in, g, r);
    float m = -AT_INF, l = 0.0f, acc[AT_SLICE], factor;
    for (int c = 0; c < AT_SLICE; c++)
        acc[c] = 0.0f;
    for (int j0 = keys.first / KEYS * KEYS; j0 < keys.end; j0 += KEYS) {
        float s[KEYS], top = m;
        for (int e = 0; e < KEYS; e++) { /* scores */
            int j = j0 + e;
            s[e] = -AT_INF;
            if (j < keys.first || j >= keys.end)
                continue;
            float by, dot = 0.0f;
            at_i64 k = at_k_at(&a, &in, g, j, &by);
            if (a.has_additive)
                for (int d = 0; d < a.dk; d++)
                    dot += ((AT_GLOBAL const float *)in.additive)[a.additive + d] *
                           tanh(at_load(in.q, q + d, a.q.type) + at_channel(in.k, k, d, a.k.type) * by);
            else
                for (int d = 0; d < a.dk; d++)
                    dot = fma(at_load(in.q, q + d, a.q.type), at_channel(in.k, k, d, a.k.type) * by, dot);
            s[e] = a.edits ? at_score(&a, &in, g, r, j, dot) : dot * a.scale;
            top = fmax(top, s[e]);
        }
        float reference = at_reference(top); /* softmax_step */
        factor = at_exp(m - reference);
        m = top;
        l *= factor;
        for (int c = 0; c < AT_SLICE; c++)
            acc[c] *= factor;
        for (int e = 0; e < KEYS; e++) { /* accumulate */
            float p = at_exp(s[e] - reference), by;
            l += p;
            if (AT_DEAD(p))
                continue;
            if (a.below)
                p *= at_dropout(&a, &in, g, r, j0 + e);
            at_i64 v = at_v_at(&a, &in, g, j0 + e, &by);
            for (int c = 0; c < AT_SLICE; c++)
                if (d0 + c < a.dv)
                    acc[c] = fma(p, at_channel(in.v, v, d0 + c, a.v.type) * by, acc[c]);
        }
    }
    at_sink(&a, &in, g, r, &m, &l, &factor); /* finish */
    factor = l == 0.0f ? 0.0f : factor / l;
    for (int c = 0; c < AT_SLICE; c++)
        if (d0 + c < a.dv)
            at_store(out, at_o_at(&a, &in, g, r) + d0 + c, AT_F32, acc[c] * factor);
    if (a.has_lse && d0 == 0)
        ((AT_GLOBAL float *)lse)[at_lse_at(&a, &in, g, r)] = m + log(l);
}
