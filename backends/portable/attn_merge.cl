/* SPDX-License-Identifier: MIT */
/* What the chunks of keys of a decoding step come to: each left (m, l, acc) in work, of which one is made
 * in the order of chunks. */
#ifdef AT_FEW
#define ROWS AT_FEW
#else
#define ROWS 8
#endif
#define STATE (2 + AT_DV) /* floats of a row: m, l, acc */

/* The partial of (sequence, group and slice, chunk), of ROWS states. */
AT_FN AT_GLOBAL float *partial_of(const struct at_k_attn *a, AT_GLOBAL uchar *work, at_i64 seq, at_i64 gs,
                                  at_i64 all, at_i64 chunk)
{
    return (AT_GLOBAL float *)(work + a->partials) + ((seq * all + gs) * a->chunks + chunk) * ROWS * STATE;
}

/* x: row; y: KV group and slice of AT_DV channels; z: sequence. */
AT_KERNEL AT_GROUP(64) void decode_merge(const struct at_k_attn a, AT_ATTN_PARAMS)
{
    AT_ATTN_IN(in, AT_GROUP_Z)
    int slices = (a.dv + AT_DV - 1) / AT_DV, g = (int)AT_GROUP_Y / slices, r = (int)AT_GROUP_X;
    int d0 = (int)AT_GROUP_Y % slices * AT_DV, t = AT_ITEM;
    if (r >= in.nq * in.ratio)
        return;
    struct at_keys keys = at_key_range(&a, &in, 0, in.nq);
    float m = -AT_INF, l = 0.0f, acc[AT_DV / 64], factor;
    for (int c = 0; c < AT_DV / 64; c++)
        acc[c] = 0.0f;
    for (int k = 0; k < a.chunks && k * a.chunk < keys.end; k++) {
        AT_GLOBAL const float *state =
            partial_of(&a, work, AT_GROUP_Z, AT_GROUP_Y, (at_i64)a.ng * slices, k) + r * STATE;
        float top = fmax(m, state[0]), reference = at_reference(top);
        float old = at_exp(m - reference), other = at_exp(state[0] - reference);
        l = l * old + state[1] * other;
        for (int c = 0; c < AT_DV / 64; c++)
            acc[c] = acc[c] * old + state[2 + t + 64 * c] * other;
        m = top;
    }
    at_sink(&a, &in, g, r, &m, &l, &factor);
    factor = l == 0.0f ? 0.0f : factor / l;
    for (int c = 0; c < AT_DV / 64; c++)
        if (d0 + t + 64 * c < a.dv)
            at_store(out, at_o_at(&a, &in, g, r) + d0 + t + 64 * c, AT_F32, acc[c] * factor);
    if (a.has_lse && d0 == 0 && t == 0)
        ((AT_GLOBAL float *)lse)[at_lse_at(&a, &in, g, r)] = m + log(l);
}
