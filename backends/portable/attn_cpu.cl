/* SPDX-License-Identifier: MIT */
/* Attention for CPUs that speak OpenCL: a work item is a core, and lanes of its vectors are packed rows.
 * Keys are uniform, so nothing is reduced across lanes: simd/k_attn.h in OpenCL C.  A panel of ROWS rows
 * is four strips of 16; a tile of 6 keys, or channels, by 16 rows stays in registers.  AT_DK and AT_DV are
 * the room for a head. */
#define ROWS 64
#define KEYS 48 /* a multiple of 6, and of 4 for dropout */
#define STRIP 16
#define WIDE (AT_DV + 5) / 6 * 6


/* z += a[t][16] b[x bx + t bt]^T over t < nt, from and to out[6][16]. */
AT_FN void contract(float *out, int fresh, float8 by0, float8 by1, const float *a, const float *b, int bx,
                    int bt, int nt)
{
    float8 z00 = 0, z01 = 0, z10 = 0, z11 = 0, z20 = 0, z21 = 0, z30 = 0, z31 = 0, z40 = 0, z41 = 0,
           z50 = 0, z51 = 0;
    if (!fresh) {
        z00 = vload8(0, out) * by0, z01 = vload8(1, out) * by1, z10 = vload8(2, out) * by0;
        z11 = vload8(3, out) * by1, z20 = vload8(4, out) * by0, z21 = vload8(5, out) * by1;
        z30 = vload8(6, out) * by0, z31 = vload8(7, out) * by1, z40 = vload8(8, out) * by0;
        z41 = vload8(9, out) * by1, z50 = vload8(10, out) * by0, z51 = vload8(11, out) * by1;
    }
    for (int t = 0; t < nt; t++) {
        float8 a0 = vload8(2 * t, a), a1 = vload8(2 * t + 1, a);
        const float *p = b + t * bt;
        z00 = fma(a0, (float8)(p[0]), z00), z01 = fma(a1, (float8)(p[0]), z01);
        z10 = fma(a0, (float8)(p[bx]), z10), z11 = fma(a1, (float8)(p[bx]), z11);
        z20 = fma(a0, (float8)(p[2 * bx]), z20), z21 = fma(a1, (float8)(p[2 * bx]), z21);
        z30 = fma(a0, (float8)(p[3 * bx]), z30), z31 = fma(a1, (float8)(p[3 * bx]), z31);
        z40 = fma(a0, (float8)(p[4 * bx]), z40), z41 = fma(a1, (float8)(p[4 * bx]), z41);
        z50 = fma(a0, (float8)(p[5 * bx]), z50), z51 = fma(a1, (float8)(p[5 * bx]), z51);
    }
    vstore8(z00, 0, out), vstore8(z01, 1, out), vstore8(z10, 2, out), vstore8(z11, 3, out);
    vstore8(z20, 4, out), vstore8(z21, 5, out), vstore8(z30, 6, out), vstore8(z31, 7, out);
    vstore8(z40, 8, out), vstore8(z41, 9, out), vstore8(z50, 10, out), vstore8(z51, 11, out);
}

/* 2^x for x <= 24 or so; 0 under 2^-126, NaN stays.  As simd/k_math.h has it. */
AT_FN float8 exp2_8(float8 x)
{
    float8 t = fmax(x, -127.0f), n = rint(t), f = t - n;
    float8 p = fma(f, (float8)(1.5403513e-4f), (float8)(1.3390735e-3f));
    p = fma(p, f, (float8)(9.6182375e-3f));
    p = fma(p, f, (float8)(5.5503574e-2f));
    p = fma(p, f, (float8)(0.24022650f));
    p = fma(p, f, (float8)(0.69314719f));
    p = fma(p, f, (float8)(1.0f));
    float8 y = as_float8(as_int8(p) + (convert_int8(n) << 23));
    y = select(y, (float8)(0.0f), x < -126.0f);
    return select(x, y, x == x); /* NaN */
}

/* A row of a tensor of any type as f32. */
AT_FN void stage_row(float *to, AT_GLOBAL const uchar *p, at_i64 at, int type, float by, int n)
{
    if (type == AT_F32) {
        AT_GLOBAL const float *from = (AT_GLOBAL const float *)p + at;
        for (int d = 0; d < n; d++)
            to[d] = from[d] * by;
    } else if (type == AT_F16) {
        for (int d = 0; d < n; d++)
            to[d] = at_half(p, at + d);
    } else {
        for (int d = 0; d < n; d++)
            to[d] = at_channel(p, at, d, type) * by;
    }
}

/* What is done to scores that are not just scaled, one by one. */
AT_FN void edit(const struct at_k_attn *a, const struct at_in *x, float *st, int g, int first, int n, int j0,
                int from, int to)
{
    for (int k = from; k < to; k++)
        for (int r = 0; r < n; r++)
            st[k * STRIP + r] = at_score(a, x, g, first + r, j0 + k, st[k * STRIP + r]);
}

AT_KERNEL AT_GROUP(1) void attn_cpu(const struct at_k_attn a, AT_ATTN_PARAMS)
{
    float q[ROWS * AT_DK], kb[KEYS * AT_DK], vb[KEYS * WIDE], acc[ROWS * WIDE], st[KEYS * STRIP];
    float m[ROWS], l[ROWS], row[AT_DK];
    int low[ROWS], high[ROWS];
    AT_ATTN_IN(in, AT_GROUP_Z)
    int g = (int)AT_GROUP_Y, rows = in.nq * in.ratio, first = (int)AT_GROUP_X * ROWS;
    if (first >= rows)
        return;
    int n = rows - first < ROWS ? rows - first : ROWS, strips = (n + STRIP - 1) / STRIP;
    int wide = (a.dv + 5) / 6 * 6;
    struct at_keys keys =
        at_key_range(&a, &in, first / in.ratio, (first + n - 1) / in.ratio + 1);
    /* pack_q: strips of [channel][16] */
    float factor = a.edits ? 1.0f : a.scale * AT_LOG2E;
    for (int r = 0; r < strips * STRIP; r++) {
        float *to = q + r / STRIP * STRIP * a.dk + r % STRIP;
        if (r < n)
            stage_row(row, in.q, at_q_at(&a, &in, g, first + r), a.q.type, 1.0f, a.dk);
        for (int d = 0; d < a.dk; d++)
            to[d * STRIP] = r < n ? row[d] : 0.0f;
        low[r] = r < n ? at_low(&a, &in, (first + r) / in.ratio) : 0;
        high[r] = r < n ? at_high(&a, &in, (first + r) / in.ratio) : 0;
        m[r] = -AT_INF;
        l[r] = 0.0f;
    }
    for (int k = 0; keys.first >= keys.end && k < ROWS * wide; k++)
        acc[k] = 0.0f; /* else the first block of keys sets them */
    for (int j0 = keys.first / KEYS * KEYS; j0 < keys.end; j0 += KEYS) {
        int from = keys.first > j0 ? keys.first - j0 : 0, to = keys.end - j0 < KEYS ? keys.end - j0 : KEYS;
        int partial = a.hides || j0 < keys.full_first || j0 + KEYS > keys.full_end;
        for (int k = 0; k < KEYS; k++) { /* pack_k, pack_v: 0 where no row sees the key */
            float by;
            int some = k >= from && k < to;
            if (some) {
                at_i64 at = at_k_at(&a, &in, g, j0 + k, &by);
                stage_row(kb + k * a.dk, in.k, at, a.k.type, by, a.dk);
                at = at_v_at(&a, &in, g, j0 + k, &by);
                stage_row(vb + k * wide, in.v, at, a.v.type, by, a.dv);
            }
            for (int d = some ? a.dk : 0; d < a.dk; d++)
                kb[k * a.dk + d] = 0.0f;
            for (int d = some ? a.dv : 0; d < wide; d++)
                vb[k * wide + d] = 0.0f;
        }
        for (int s = 0; s < strips; s++) {
            const float *qs = q + s * STRIP * a.dk;
            int fresh = j0 == keys.first / KEYS * KEYS;
            /* scores */
            if (a.has_additive) {
                for (int k = 0; k < KEYS; k++)
                    for (int r = 0; r < STRIP; r++) {
                        float sum = 0.0f;
                        for (int d = 0; d < a.dk; d++)
                            sum += ((AT_GLOBAL const float *)in.additive)[a.additive + d] *
                                   tanh(qs[d * STRIP + r] + kb[k * a.dk + d]);
                        st[k * STRIP + r] = sum;
                    }
            } else {
                for (int k = 0; k < KEYS; k += 6)
                    contract(st + k * STRIP, 1, 0, 0, qs, kb + k * a.dk, a.dk, 1, a.dk);
            }
            if (a.edits) {
                int lanes = n - s * STRIP < STRIP ? n - s * STRIP : STRIP;
                edit(&a, &in, st, g, first + s * STRIP, lanes, j0, from, to);
            }
            float unit = a.edits ? AT_LOG2E : factor;
            if (partial) {
                int8 low0 = vload8(2 * s, low) - j0, low1 = vload8(2 * s + 1, low) - j0;
                int8 high0 = vload8(2 * s, high) - j0, high1 = vload8(2 * s + 1, high) - j0;
                for (int k = 0; k < KEYS; k++) {
                    float8 s0 = vload8(2 * k, st), s1 = vload8(2 * k + 1, st);
                    vstore8(select((float8)(-AT_INF), s0, k >= low0 && k < high0), 2 * k, st);
                    vstore8(select((float8)(-AT_INF), s1, k >= low1 && k < high1), 2 * k + 1, st);
                }
            }
            /* softmax_step */
            float8 m0 = vload8(2 * s, m), m1 = vload8(2 * s + 1, m), top0 = -AT_INF, top1 = -AT_INF;
            for (int k = 0; k < KEYS; k++) {
                top0 = fmax(top0, vload8(2 * k, st));
                top1 = fmax(top1, vload8(2 * k + 1, st));
            }
            top0 = fmax(m0, top0 * unit);
            top1 = fmax(m1, top1 * unit);
            float8 r0 = select(top0, (float8)(0.0f), top0 == -AT_INF);
            float8 r1 = select(top1, (float8)(0.0f), top1 == -AT_INF);
            float8 by0 = exp2_8(m0 - r0), by1 = exp2_8(m1 - r1);
            float8 l0 = vload8(2 * s, l) * by0, l1 = vload8(2 * s + 1, l) * by1;
            for (int k = 0; k < KEYS; k++) {
                float8 s0 = vload8(2 * k, st), s1 = vload8(2 * k + 1, st);
                float8 p0 = exp2_8(fma(s0, (float8)(unit), -r0));
                float8 p1 = exp2_8(fma(s1, (float8)(unit), -r1));
                l0 += p0;
                l1 += p1;
                vstore8(p0, 2 * k, st);
                vstore8(p1, 2 * k + 1, st);
            }
            vstore8(top0, 2 * s, m), vstore8(top1, 2 * s + 1, m);
            vstore8(l0, 2 * s, l), vstore8(l1, 2 * s + 1, l);
            if (a.below)
                for (int k = from; k < to; k++)
                    for (int r = 0; r < STRIP; r++)
                        if (st[k * STRIP + r] > 0.0f)
                            st[k * STRIP + r] *= at_dropout(&a, &in, g, first + s * STRIP + r, j0 + k);
            /* accumulate */
            float *as = acc + s * STRIP * wide;
            int odd = 0;
            for (int k = 0; partial && k < KEYS * wide; k++)
                odd |= !(fabs(vb[k]) < AT_INF);
            if (!odd) {
                for (int d = 0; d < wide; d += 6)
                    contract(as + d * STRIP, fresh, by0, by1, st, vb + d, 1, wide, KEYS);
            } else { /* a hidden value that is not finite must not meet its weight of 0 */
                float by[STRIP];
                vstore8(by0, 0, by), vstore8(by1, 1, by);
                for (int d = 0; d < wide; d++)
                    for (int r = 0; r < STRIP; r++) {
                        float sum = fresh ? 0.0f : as[d * STRIP + r] * by[r];
                        for (int k = 0; k < KEYS; k++)
                            if (!AT_DEAD(st[k * STRIP + r]))
                                sum = fma(st[k * STRIP + r], vb[k * wide + d], sum);
                        as[d * STRIP + r] = sum;
                    }
            }
        }
    }
    /* finish */
    for (int r = 0; r < n; r++) {
        float by, top = m[r] / AT_LOG2E, sum = l[r];
        at_sink(&a, &in, g, first + r, &top, &sum, &by);
        by = sum == 0.0f ? 0.0f : by / sum;
        AT_GLOBAL float *o = (AT_GLOBAL float *)out + at_o_at(&a, &in, g, first + r);
        for (int d = 0; d < a.dv; d++)
            o[d] = sum == 0.0f ? 0.0f : acc[r / STRIP * STRIP * wide + d * STRIP + r % STRIP] * by;
        if (a.has_lse)
            ((AT_GLOBAL float *)lse)[at_lse_at(&a, &in, g, first + r)] = top + log(sum);
    }
}
