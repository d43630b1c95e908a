/* SPDX-License-Identifier: MIT */
/* attn_decode.cl for CPUs: an item has a chunk, lanes of its vectors are channels, and there is nothing that
 * items share.  AT_DK is the room for a head. */
#define KEYS 64  /* passed over at a time */
#define VALUES 4 /* rows of V that are staged at a time */

/* p[row][key] = scores of keys [j0 + from, j0 + to); -inf for those that a row does not see. */
AT_FN void scores(const struct at_k_attn *a, const struct at_in *x, float *p, const float *q, float *k, int g,
                  int rows, int j0, int from, int to, int partial)
{
    int vectors = (a->dk + AT_LANES - 1) / AT_LANES;
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < KEYS; j++)
            p[r * KEYS + j] = -AT_INF;
    for (int j = from; j < to; j++) {
        float by;
        at_i64 at = at_k_at(a, x, g, j0 + j, &by);
        at_stage(k, x->k, at, 0, a->dk, a->k.type, by);
        for (int r = 0; r < rows; r++) {
            float dot = 0.0f;
            if (partial && !at_visible(a, x, r, j0 + j))
                continue;
            if (a->has_additive) {
                AT_GLOBAL const float *va = (AT_GLOBAL const float *)x->additive + a->additive;
                for (int d = 0; d < a->dk; d++)
                    dot += va[d] * tanh(q[r * AT_DK + d] + k[d]);
            } else {
                at_vec z = 0.0f;
                for (int d = 0; d < vectors; d++)
                    z = fma(at_vget(d, q + r * AT_DK), at_vget(d, k), z);
                dot = at_vsum(z);
            }
            p[r * KEYS + j] = a->edits ? at_score(a, x, g, r, j0 + j, dot) : dot * a->scale;
        }
    }
}

/* x: chunk; y: KV group and slice of AT_DV channels; z: sequence. */
AT_KERNEL AT_GROUP(1) void decode_cpu(const struct at_k_attn a, AT_ATTN_PARAMS)
{
    float q[ROWS * AT_DK], k[AT_DK], v[VALUES * AT_DV], p[ROWS * KEYS], acc[ROWS * AT_DV], m[ROWS], l[ROWS];
    AT_ATTN_IN(in, AT_GROUP_Z)
    int slices = (a.dv + AT_DV - 1) / AT_DV, g = (int)AT_GROUP_Y / slices, rows = in.nq * in.ratio;
    int d0 = (int)AT_GROUP_Y % slices * AT_DV, wide = a.dv - d0 < AT_DV ? a.dv - d0 : AT_DV;
    int vectors = (wide + AT_LANES - 1) / AT_LANES;
    struct at_keys keys = at_key_range(&a, &in, 0, in.nq);
    at_i64 begin = AT_GROUP_X * a.chunk, end = begin + a.chunk < keys.end ? begin + a.chunk : keys.end;
    for (int d = 0; d < AT_DK; d++)
        k[d] = 0.0f;
    for (int e = 0; e < VALUES * AT_DV; e++)
        v[e] = 0.0f;
    for (int r = 0; r < ROWS; r++) {
        m[r] = -AT_INF;
        l[r] = 0.0f;
        for (int d = 0; d < AT_DK; d++)
            q[r * AT_DK + d] = 0.0f;
        if (r < rows)
            at_stage(q + r * AT_DK, in.q, at_q_at(&a, &in, g, r), 0, a.dk, a.q.type, 1.0f);
        for (int d = 0; d < AT_DV; d++)
            acc[r * AT_DV + d] = 0.0f;
    }
    for (int j0 = (int)(begin > keys.first ? begin : keys.first) / KEYS * KEYS; j0 < end; j0 += KEYS) {
        int from = keys.first > j0 ? keys.first - j0 : 0, to = end - j0 < KEYS ? (int)end - j0 : KEYS;
        int partial = a.hides || j0 < keys.full_first || j0 + KEYS > keys.full_end;
        scores(&a, &in, p, q, k, g, rows, j0, from, to, partial);
        for (int r = 0; r < rows; r++) { /* softmax_step */
            float top = m[r];
            for (int j = 0; j < KEYS; j++)
                top = p[r * KEYS + j] > top ? p[r * KEYS + j] : top;
            float reference = at_reference(top), factor = at_exp(m[r] - reference);
            at_vec sum = 0.0f;
            for (int j = 0; j < KEYS / AT_LANES; j++) {
                at_vec e = at_vweight((at_vget(j, p + r * KEYS) - reference) * AT_LOG2E);
                sum += e;
                at_vput(e, j, p + r * KEYS);
            }
            m[r] = top;
            l[r] = l[r] * factor + at_vsum(sum);
            for (int j = from; j < to && a.below; j++)
                if (p[r * KEYS + j] > 0.0f)
                    p[r * KEYS + j] *= at_dropout(&a, &in, g, r, j0 + j);
            for (int d = 0; d < vectors; d++)
                at_vput(at_vget(d, acc + r * AT_DV) * factor, d, acc + r * AT_DV);
        }
        for (int j = from; j < to; j += VALUES) { /* accumulate */
            int n = to - j < VALUES ? to - j : VALUES;
            for (int e = 0; e < n; e++) {
                float by;
                at_i64 at = at_v_at(&a, &in, g, j0 + j + e, &by);
                at_stage(v + e * AT_DV, in.v, at, d0, wide, a.v.type, by);
            }
            for (int r = 0; r < rows; r++)
                for (int d = 0; d < vectors; d++) {
                    const float *w = p + r * KEYS + j;
                    at_vec z = at_vget(d, acc + r * AT_DV);
                    for (int e = 0; e < n; e++)
                        if (!partial || !AT_DEAD(w[e])) /* a hidden value may be NaN */
                            z = fma((at_vec)(w[e]), at_vget(d, v + e * AT_DV), z);
                    at_vput(z, d, acc + r * AT_DV);
                }
        }
    }
    AT_GLOBAL float *state =
        partial_of(&a, work, AT_GROUP_Z, AT_GROUP_Y, (at_i64)a.ng * slices, AT_GROUP_X);
    for (int r = 0; r < ROWS; r++) {
        state[r * STATE] = m[r];
        state[r * STATE + 1] = l[r];
        for (int d = 0; d < AT_DV; d++)
            state[r * STATE + 2 + d] = acc[r * AT_DV + d];
    }
}
