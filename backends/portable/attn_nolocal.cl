/* SPDX-License-Identifier: MIT */
/* Attention for GPUs whose local memory is no faster than the rest: an item has a packed row and AT_SLICE
 * channels, and nothing is shared, so there is no barrier. */
#define KEYS 4
#define AT_SLICE 32

/* v = channels [d, d + AT_SLICE) of a row, as far as there are n, times by.  Written out for each type:
 * an index of v that is no constant would put it in memory. */
#define EACH(x)                                                                                    \
    for (int c = 0; c < AT_SLICE; c++)                                                             \
        v[c] = c < n ? (x) * by : 0.0f;
AT_FN void slice(float v[AT_SLICE], AT_GLOBAL const uchar *p, at_i64 at, int d, int n, int type, float by)
{
    at_i64 first = at + d;
    if (type == AT_F32) {
#pragma unroll
        EACH(((AT_GLOBAL const float *)p)[first + c])
    } else if (type == AT_F16) {
#pragma unroll
        EACH(at_half(p, first + c))
    } else if (type == AT_BF16) {
#pragma unroll
        EACH(at_bf16(((AT_GLOBAL const unsigned short *)p)[first + c]))
    } else if (type == AT_F8) {
#pragma unroll
        EACH(at_f8(p[first + c]))
    } else if (type == AT_Q8_0) {
        AT_GLOBAL const uchar *b = p + (at + d / 32) * 34;
        by *= at_half(b, 0);
#pragma unroll
        EACH((float)((AT_GLOBAL const at_i8 *)b)[2 + c])
    } else {
        AT_GLOBAL const uchar *b = p + (at + d / 32) * 18;
        by *= at_half(b, 0);
#pragma unroll
        EACH((float)((int)(b[2 + c % 16] >> (c / 16 * 4) & 15) - 8))
    }
}

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
#pragma unroll
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
#pragma unroll 1
        for (int e = 0; e < KEYS; e++) { /* accumulate */
            float p = at_weight(e == 0 ? s[0] : e == 1 ? s[1] : e == 2 ? s[2] : s[3], reference), by;
            l += p;
            if (AT_DEAD(p))
                continue;
            if (a.below)
                p *= at_dropout(&a, &in, g, r, j0 + e);
            float v[AT_SLICE];
            at_i64 at = at_v_at(&a, &in, g, j0 + e, &by);
            slice(v, in.v, at, d0, a.dv - d0, a.v.type, by);
#pragma unroll
            for (int c = 0; c < AT_SLICE; c++)
                acc[c] = fma(p, v[c], acc[c]);
        }
    }
    at_sink(&a, &in, g, r, &m, &l, &factor); /* finish */
    factor = l == 0.0f ? 0.0f : factor / l;
#pragma unroll
    for (int c = 0; c < AT_SLICE; c++)
        if (d0 + c < a.dv)
            at_store(out, at_o_at(&a, &in, g, r) + d0 + c, AT_F32, acc[c] * factor);
    if (a.has_lse && d0 == 0)
        ((AT_GLOBAL float *)lse)[at_lse_at(&a, &in, g, r)] = m + log(l);
}
