/* SPDX-License-Identifier: MIT */
/* Attention of few packed rows (up to 8) over many keys: the keys are split into chunks, each a group's,
 * of which it leaves (m, l, acc) in work for attn_merge.cl.  Keys come in tiles of 64 by CHUNK channels, which
 * neighbouring items read from neighbouring places. */
#define KEYS 256 /* passed over at a time: four an item */
#define CHUNK 32
#define PITCH (CHUNK + 1) /* of a tile's rows: items that each have one are in different banks */

/* x: chunk; y: KV group and slice of AT_DV channels; z: sequence. */
AT_KERNEL AT_GROUP(64) void decode(const struct at_k_attn a, AT_ATTN_PARAMS)
{
    AT_SHARED float qs[CHUNK * ROWS], ps[64 * PITCH], red[64], old[ROWS], top[ROWS], sum[ROWS];
    AT_SHARED at_i64 begin[KEYS]; /* of keys, and what they are times */
    AT_SHARED float scale[KEYS];
    AT_LOCAL float *tile = ps; /* which is done with when there are weights */
    AT_ATTN_IN(in, AT_GROUP_Z)
    int slices = (a.dv + AT_DV - 1) / AT_DV, g = (int)AT_GROUP_Y / slices;
    int d0 = (int)AT_GROUP_Y % slices * AT_DV, t = AT_ITEM, rows = in.nq * in.ratio;
    struct at_keys keys = at_key_range(&a, &in, 0, in.nq);
    at_i64 from = AT_GROUP_X * a.chunk, to = from + a.chunk;
    float acc[ROWS][AT_DV / 64];
    if (from < keys.first)
        from = keys.first / KEYS * KEYS;
    if (to > keys.end)
        to = keys.end;
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < AT_DV / 64; c++)
            acc[r][c] = 0.0f;
    if (t < ROWS) {
        top[t] = -AT_INF;
        sum[t] = 0.0f;
    }
    for (int j0 = (int)from; j0 < to; j0 += KEYS) {
        int partial = a.hides || j0 < keys.full_first || j0 + KEYS > keys.full_end;
        float s[KEYS / 64][ROWS];
        /* scores */
        for (int e = 0; e < KEYS / 64; e++)
            for (int r = 0; r < ROWS; r++)
                s[e][r] = 0.0f;
        AT_BARRIER();
        for (int e = 0; e < KEYS / 64; e++) {
            int k = e * 64 + t;
            float by = 1.0f;
            begin[k] = j0 + k >= keys.first && j0 + k < to ? at_k_at(&a, &in, g, j0 + k, &by) : -1;
            scale[k] = by;
        }
        for (int c0 = 0; c0 < a.dk; c0 += CHUNK) {
            AT_BARRIER();
            for (int e = t; e < CHUNK * ROWS; e += 64) {
                int r = e / CHUNK, c = c0 + e % CHUNK;
                qs[(e % CHUNK) * ROWS + r] =
                    r < rows && c < a.dk ? at_load(in.q, at_q_at(&a, &in, g, r) + c, a.q.type) : 0.0f;
            }
#pragma unroll
            for (int e = 0; e < KEYS / 64; e++) {
                AT_BARRIER();
                for (int i = t; i < 64 * CHUNK; i += 64) {
                    int k = e * 64 + i / CHUNK, c = c0 + i % CHUNK;
                    tile[i / CHUNK * PITCH + i % CHUNK] =
                        begin[k] >= 0 && c < a.dk ? at_channel(in.k, begin[k], c, a.k.type) * scale[k] : 0.0f;
                }
                AT_BARRIER();
                for (int c = 0; c < CHUNK && c0 + c < a.dk; c++) {
                    float k = tile[t * PITCH + c];
                    if (a.has_additive) {
                        float va = ((AT_GLOBAL const float *)in.additive)[a.additive + c0 + c];
                        for (int r = 0; r < ROWS; r++)
                            s[e][r] += va * tanh(qs[c * ROWS + r] + k);
                    } else {
                        for (int r = 0; r < ROWS; r++)
                            s[e][r] = fma(qs[c * ROWS + r], k, s[e][r]);
                    }
                }
            }
        }
        AT_BARRIER();
        for (int e = 0; e < KEYS / 64; e++)
            for (int r = 0; r < ROWS; r++)
                ps[(e * 64 + t) * ROWS + r] = s[e][r];
#pragma unroll 1
        for (int e = 0; e < KEYS / 64 * ROWS; e++) { /* where an index costs nothing */
            int k = e / ROWS * 64 + t, r = e % ROWS;
            float v = -AT_INF;
            if (r < rows && j0 + k < to && (!partial || at_visible(&a, &in, r, j0 + k)))
                v = a.edits ? at_score(&a, &in, g, r, j0 + k, ps[k * ROWS + r]) : ps[k * ROWS + r] * a.scale;
            ps[k * ROWS + r] = v;
        }
        /* softmax_step: item t has row t % 8 of an eighth of the keys */
        AT_BARRIER();
        float best = -AT_INF, part = 0.0f;
        for (int k = t / ROWS; k < KEYS; k += 64 / ROWS)
            best = fmax(best, ps[k * ROWS + t % ROWS]);
        red[t] = best;
        AT_BARRIER();
        if (t < ROWS) {
            for (int e = t; e < 64; e += ROWS)
                best = fmax(best, red[e]);
            old[t] = top[t];
            top[t] = fmax(best, old[t]);
        }
        AT_BARRIER();
        for (int k = t / ROWS; k < KEYS; k += 64 / ROWS) {
            float p = at_weight(ps[k * ROWS + t % ROWS], at_reference(top[t % ROWS]));
            part += p;
            if (a.below && p > 0.0f)
                p *= at_dropout(&a, &in, g, t % ROWS, j0 + k);
            ps[k * ROWS + t % ROWS] = p;
        }
        red[t] = part;
        AT_BARRIER();
        if (t < ROWS) {
            part = sum[t] * at_exp(old[t] - at_reference(top[t]));
            for (int e = t; e < 64; e += ROWS)
                part += red[e];
            sum[t] = part;
        }
        /* accumulate: item t has channels t, t + 64, ... */
        for (int r = 0; r < ROWS; r++) {
            float factor = at_exp(old[r] - at_reference(top[r]));
            for (int c = 0; c < AT_DV / 64; c++)
                acc[r][c] *= factor;
        }
        for (int k = 0; k < KEYS && j0 + k < to; k++) {
            float by;
            if (j0 + k < keys.first)
                continue;
            at_i64 at = at_v_at(&a, &in, g, j0 + k, &by);
            for (int c = 0; c < AT_DV / 64; c++) {
                int d = d0 + t + 64 * c;
                float v = d < a.dv ? at_channel(in.v, at, d, a.v.type) * by : 0.0f;
                for (int r = 0; r < ROWS; r++)
                    if (!partial || !AT_DEAD(ps[k * ROWS + r])) /* a hidden value may be NaN */
                        acc[r][c] = fma(ps[k * ROWS + r], v, acc[r][c]);
            }
        }
    }
    AT_BARRIER();
    AT_GLOBAL float *state =
        partial_of(&a, work, AT_GROUP_Z, AT_GROUP_Y, (at_i64)a.ng * slices, AT_GROUP_X);
    for (int r = 0; r < ROWS; r++) {
        if (t == r) {
            state[r * STATE] = top[r];
            state[r * STATE + 1] = sum[r];
        }
        for (int c = 0; c < AT_DV / 64; c++)
            state[r * STATE + 2 + t + 64 * c] = acc[r][c];
    }
}
