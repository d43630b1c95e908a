/* SPDX-License-Identifier: MIT */
/* The backward pass of attention by tensor cores: as in attn_back.cl a kernel walks the keys for dQ and one
 * the rows for dK and dV, and each works scores and weights out again.  A group has OWN rows (or keys), a
 * warp 16 of them, and passes over tiles of AT_TILE keys (or rows).  Of S = Q K^T and dP = dO V^T, or what they
 * are turned, a lane has elements in registers, which become weights and gradients of scores there, and are,
 * packed, what the next products take.
 *
 * Where precision is exact, numbers of f32 (dO, weights, gradients of scores) meet those of 16 bits as sums
 * of AT_TERMS numbers of 16 bits, as many as an f32 holds; else as one.  Of products of two such sums, the
 * terms that are below f32 are left out.  f16 ends at 2^16 and 2^-24: there each row of such numbers is in a
 * unit of its own, a power of two, so that the largest is about 2^12, or 2^15 for dO; 2^-25 of the unit
 * is what is lost at least.  Sums over rows (or keys) move to a new unit when a tile has larger ones.
 *
 * A row of dO with an infinity or a NaN makes NaN of every gradient of the keys that the row sees. */
#define OWN (16 * AT_WARPS)
#define PK (AT_DK / 8) /* chunks of a row */
#define PV (AT_DV / 8)
#define ALIGNED_Q 1 /* bits of args.aligned: rows that can be copied by 16 bytes */
#define ALIGNED_K 2
#define ALIGNED_V 4
#define ALIGNED_OUT 8 /* of dQ or dK by 8 bytes, */
#define ALIGNED_OUT1 16 /* of dV */
#ifdef AT_BF16_IN
#define LEAST 1.0f /* unit */
#else
#define LEAST 0x1p-110f
#endif
#define TERM_BYTES(n) ((n) * AT_DV * 2) /* of one term of n rows of dO */

/* What elements need of a row: of 16 bytes, in work. */
struct row_facts {
    float lse; /* inf where the row sees nothing */
    float delta, unit;
    float pad;
};

AT_FN at_i64 row_place(const struct at_k_back *b, const struct at_in *x, int g)
{
    return ((x->qb * b->a.ng + g) * b->rows + x->q0) * x->ratio;
}

AT_FN float inverse(float power) /* of two */
{
    return __uint_as_float(0x7f000000u - __float_as_uint(power));
}

/* A unit in which `top` is less than 2^bits, and no less than half of that. */
AT_FN float unit_of(float top, int bits)
{
    at_u32 power = __float_as_uint(fminf(top, 0x1p127f)) & 0x7f800000u;
    return fmaxf(__uint_as_float(power) * inverse(__uint_as_float((at_u32)(bits - 1 + 127) << 23)), LEAST);
}

/* ---- dO as terms, and facts of rows.  x: 64 rows; y: KV group; z: sequence ---- */

AT_KERNEL void __launch_bounds__(ITEMS, 1) back_terms(const struct at_k_back back, AT_BACK_PARAMS)
{
    const int pairs = (AT_DV + 63) / 64; /* of channels, a lane's */
    AT_BACK_IN(in, AT_GROUP_Z)
    int g = (int)AT_GROUP_Y, lane = AT_ITEM % 32, rows = in.nq * in.ratio;
    for (int i = 0; i < OWN / AT_WARPS; i++) {
        int r = (int)AT_GROUP_X * OWN + i * AT_WARPS + AT_ITEM / 32, strange = 0;
        if (r >= rows)
            return;
        const float *from = (const float *)pdout + at_grad_row(&a.o, &in, g, r);
        at_i64 place = row_place(&back, &in, g) + r;
        at_u32 *to = (at_u32 *)(work + back.terms + place * TERM_BYTES(AT_TERMS));
        float x[pairs][2], top = 0.0f, by = 1.0f;
#pragma unroll
        for (int e = 0; e < 2 * pairs; e++) {
            int d = 64 * (e / 2) + 2 * lane + e % 2;
            x[e / 2][e % 2] = d < a.dv ? from[d] : 0.0f;
            top = fmaxf(top, fabs(x[e / 2][e % 2]));
            strange |= !(fabs(x[e / 2][e % 2]) < AT_INF);
        }
        struct row_facts facts = {at_back_lse(&a, &in, plse, g, r),
                                  at_back_delta(&back, &in, pdelta, g, r), 1.0f, 0.0f};
        strange = __any_sync(0xffffffffu, strange);
        if (facts.lse == -AT_INF)
            facts.lse = AT_INF;
        if (strange)
            facts.lse = __int_as_float(0x7fffffff);
#ifndef AT_BF16_IN
        for (int w = 1; w < 32; w *= 2)
            top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, w));
        facts.unit = unit_of(top, 15);
        by = inverse(facts.unit);
#endif
        if (lane == 0)
            ((struct row_facts *)(work + back.facts))[place] = facts;
#pragma unroll
        for (int e = 0; e < pairs; e++) {
            float lo = strange ? 0.0f : x[e][0] * by, hi = strange ? 0.0f : x[e][1] * by;
            for (int t = 0; t < AT_TERMS && 64 * e + 2 * lane < AT_DV; t++) {
                int last = t + 1 == AT_TERMS;
                float l = last ? lo : leading(lo), h = last ? hi : leading(hi);
                to[t * AT_DV / 2 + 32 * e + lane] = pack(l, h);
                lo -= l;
                hi -= h;
            }
        }
    }
}

/* ---- products ---- */

/* s += a b^T: 16 rows of a, a warp's, and AT_TILE of b, of P chunks each; a in NA terms, b in NB. */
template <int P, int NA, int NB> AT_FN void multiply(float s[AT_TILE / 8][4], at_u32 a_tile, at_u32 b_tile)
{
    int lane = item_now() % 32;
    at_u32 a_at = a_tile + chunk_at<P>(item_now() / 32 * 16 + lane % 16, lane / 16);
    at_u32 b_at = b_tile + chunk_at<P>(lane % 8 + lane / 16 * 8, lane / 8 % 2);
#pragma unroll
    for (int k = 0; k < P / 2; k++) {
        at_u32 a[NA][4], b[4];
#pragma unroll
        for (int i = 0; i < NA; i++)
            load4(a[i], along<P>(a_at, 2 * k) + i * OWN * P * 16);
#pragma unroll
        for (int n = 0; n < AT_TILE / 16; n++)
#pragma unroll
            for (int j = 0; j < NB; j++) {
                load4(b, along<P>(b_at, 2 * k) + (16 * n + j * AT_TILE) * P * 16);
#pragma unroll
                for (int i = 0; i < NA; i++) {
                    mma(s[2 * n], a[i], b[0], b[1]);
                    mma(s[2 * n + 1], a[i], b[2], b[3]);
                }
            }
    }
}

/* acc += x b: 16 rows of x, and AT_TILE of b, of P chunks, in NB terms.  Nothing is left of x. */
template <int P, int NB> AT_FN void accumulate(float acc[P][4], float x[AT_TILE / 8][4], at_u32 tile)
{
    int lane = item_now() % 32;
    at_u32 at = tile + chunk_at<P>(lane % 16, lane / 16);
#pragma unroll
    for (int k = 0; k < AT_TILE / 16; k++) {
        at_u32 f[AT_TERMS][4], b[4];
#pragma unroll
        for (int i = 0; i < AT_TERMS; i++)
            take_term(f[i], x, k, i + 1 == AT_TERMS);
#pragma unroll
        for (int n = 0; n < P / 2; n++)
#pragma unroll
            for (int j = 0; j < NB; j++) {
                load4_turned(b, along<P>(at, 2 * n) + (16 * k + j * AT_TILE) * P * 16);
#pragma unroll
                for (int i = 0; i < AT_TERMS - j; i++) {
                    mma(acc[2 * n], f[i], b[0], b[1]);
                    mma(acc[2 * n + 1], f[i], b[2], b[3]);
                }
            }
    }
}

/* x in units of its rows, which move, with the sums so far, where a number would pass 2^15. */
template <int P> AT_FN void settle(float unit[2], float x[AT_TILE / 8][4], float acc[P][4])
{
#ifndef AT_BF16_IN
    float factor[2];
    int moved = 0;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float top = 0.0f;
#pragma unroll
        for (int n = 0; n < AT_TILE / 8; n++)
            top = fmaxf(top, fmaxf(fabs(x[n][2 * h]), fabs(x[n][2 * h + 1])));
        top = quad_max(top);
        factor[h] = 1.0f;
        if (top > unit[h] * 32768.0f) {
            float to = unit_of(top, 12);
            factor[h] = unit[h] * inverse(to);
            unit[h] = to;
            moved = 1;
        }
    }
    if (__any_sync(0xffffffffu, moved))
#pragma unroll
        for (int n = 0; n < P; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                acc[n][i] *= factor[i / 2];
#pragma unroll
    for (int n = 0; n < AT_TILE / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            x[n][i] *= inverse(unit[i / 2]);
#endif
}

/* ---- elements ---- */

/* Of S and dP makes what meets dO (the weights, as dropout left them), and what meets K or Q: the gradients
 * of q . k over the scale.  partial: the row may be none, or not see the key.  slope: what it gives to the
 * gradient of its slope, or NULL. */
AT_FN void weigh(bool partial, const struct at_k_back *b, const struct at_in *x, struct row_facts f, int g, int row,
                 int j, float *s, float *dp, float *slope)
{
    const struct at_k_attn *a = &b->a;
    float p, by = 1.0f, cap = 1.0f, d = *dp;
    bool seen = !partial || (row < x->nq * x->ratio && at_visible(a, x, row, j));
#ifdef AT_EDITS
    float score = seen ? at_score(a, x, g, row, j, *s) : -AT_INF;
    seen = score != -AT_INF;
    p = exp2_fast((score - f.lse) * AT_LOG2E);
    if (seen)
        by = at_back_slope(a, x, g, row, j, *s, &cap);
#else
    p = exp2_fast(fma(*s, a->scale, -f.lse) * AT_LOG2E);
#endif
    if (partial && !seen)
        p = 0.0f;
#ifndef AT_BF16_IN
    d *= f.unit;
#endif
    *s = p;
#ifdef AT_DROPOUT
    float keep = at_dropout(a, x, g, row, j);
    *s *= keep;
    d *= keep;
#endif
    d = partial && p == 0.0f ? 0.0f : p * (d - f.delta) * by;
    *dp = p == 0.0f && partial ? 0.0f : d * cap;
#ifdef AT_EDITS
    if (slope && b->slopes >= 0)
        *slope -= d * at_distance(x, row, j);
#endif
#ifndef AT_BF16_IN
    *s *= f.unit;
#endif
}

template <class Each> AT_FN void weigh_tile(bool partial, Each each)
{
#ifdef AT_EDITS
    each(true);
#else
    if (partial)
        each(true);
    else
        each(false);
#endif
}

/* Rows of a result: acc times `by`, row(h) being where that of a lane begins, or -1. */
template <int P, class Row>
AT_FN void put_rows(uchar *out, float acc[P][4], const float unit[2], float by, int channels, int aligned, Row row)
{
#pragma unroll
    for (int h = 0; h < 2; h++) {
        at_i64 at = row(h);
        float times = unit[h] * by;
        if (at < 0)
            continue;
#pragma unroll
        for (int n = 0; n < P; n++) {
            int d = 8 * n + item_now() % 4 * 2;
            float *to = (float *)out + at + d, y0 = acc[n][2 * h] * times, y1 = acc[n][2 * h + 1] * times;
            if (aligned && d + 1 < channels) {
                *(float2 *)to = make_float2(y0, y1);
            } else {
                if (d < channels)
                    to[0] = y0;
                if (d + 1 < channels)
                    to[1] = y1;
            }
        }
    }
}

/* ---- staging ---- */

/* N of the terms of dO from row `first` of those at `place` on. */
template <int N>
AT_FN void stage_terms(at_u32 to, const struct at_k_back *b, const uchar *work, at_i64 place, int first, int rows)
{
    const uchar *from = work + b->terms + (place + first) * TERM_BYTES(AT_TERMS);
#pragma unroll
    for (int t = 0; t < AT_TERMS; t++) {
        if constexpr (STEP<PV> > 0) {
            if (first + N <= rows) {
                stage_whole<N, PV>(to + t * TERM_BYTES(N), from + TERM_BYTES(t), AT_DV, AT_TERMS * AT_DV);
                continue;
            }
        }
        stage<N, PV>(to + t * TERM_BYTES(N), from + TERM_BYTES(t), AT_DV, 1,
                     [&](int r) { return first + r < rows ? (at_i64)r * AT_TERMS * AT_DV : -1; });
    }
}

/* N keys (or rows of one head) from j on, of those from `from` to `end`. */
template <int N, int P>
AT_FN void stage_keys(at_u32 to, const uchar *p, const struct at_k_view *v, at_i64 begin, int channels, int aligned,
                      int j, int from, int end)
{
    if constexpr (STEP<P> > 0) {
        if (aligned && j >= from && j + N <= end) {
            stage_whole<N, P>(to, p + 2 * (begin + j * v->stride[2]), channels, v->stride[2]);
            return;
        }
    }
    stage<N, P>(to, p, channels, aligned,
                [&](int r) { return j + r >= from && j + r < end ? begin + (j + r) * v->stride[2] : -1; });
}

template <int N>
AT_FN void stage_rows(at_u32 to, const struct at_k_attn *a, const struct at_in *x, int g, int first, int rows)
{
    if (x->ratio == 1)
        stage_keys<N, PK>(to, x->q, &a->q, at_q_at(a, x, g, 0), a->dk, a->aligned & ALIGNED_Q, first, 0, rows);
    else
        stage<N, PK>(to, x->q, a->dk, a->aligned & ALIGNED_Q,
                     [&](int r) { return first + r < rows ? at_q_at(a, x, g, first + r) : -1; });
}

/* ---- dQ.  x: row tile; y: KV group; z: sequence ---- */

AT_FN int own_first(int turned)
{
    int x, n; /* later rows have more keys where they are causal: they begin first */
    asm volatile("mov.u32 %0, %%ctaid.x;" : "=r"(x));
    asm volatile("mov.u32 %0, %%nctaid.x;" : "=r"(n));
    return (turned ? n - 1 - x : x) * OWN;
}

AT_FN int own_lane() /* the first of the two rows (keys) of a lane, 8 before the other */
{
    return item_now() / 32 * 16 + item_now() % 32 / 4;
}

AT_KERNEL void __launch_bounds__(ITEMS, 1) back_rows_mma(const struct at_k_back back, AT_BACK_PARAMS)
{
    extern __shared__ __align__(128) uchar local[];
    AT_BACK_IN(in, AT_GROUP_Z)
    int g = (int)AT_GROUP_Y, rows = in.nq * in.ratio, first = own_first(a.causal);
    if (first >= rows)
        return;
    int last = first + OWN < rows ? first + OWN - 1 : rows - 1;
    struct at_keys keys = at_key_range(&a, &in, first / in.ratio, last / in.ratio + 1);
    int row0 = first + item_now() / 32 * 16; /* of the warp, and what it sees */
    last = row0 + 16 < rows ? row0 + 15 : rows - 1;
    struct at_keys mine = at_key_range(&a, &in, row0 / in.ratio, row0 < rows ? last / in.ratio + 1 : 0);
    const int bytes = AT_TILE * (AT_DK + AT_DV) * 2;
    at_u32 sq = (at_u32)__cvta_generic_to_shared(local), sd = sq + OWN * AT_DK * 2;
    at_u32 sk = sd + TERM_BYTES(OWN) * AT_TERMS;
    stage_rows<OWN>(sq, &a, &in, g, first, rows);
    stage_terms<OWN>(sd, &back, work, row_place(&back, &in, g), first, rows);
    auto stage_tile = [&](int j0, int buffer) {
        at_u32 to = sk + buffer * bytes;
        stage_keys<AT_TILE, PK>(to, in.k, &a.k, at_grad_key(&a.k, &in, g, 0), a.dk, a.aligned & ALIGNED_K, j0,
                                keys.first, keys.end);
        stage_keys<AT_TILE, PV>(to + AT_TILE * AT_DK * 2, in.v, &a.v, at_grad_key(&a.v, &in, g, 0), a.dv,
                                a.aligned & ALIGNED_V, j0, keys.first, keys.end);
    };
    int j0 = keys.first / AT_TILE * AT_TILE;
    if (STAGES == 2 && j0 < keys.end)
        stage_tile(j0, 0);

    float acc[PK][4] = {}, unit[2], slopes[2] = {};
    struct row_facts facts[2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int r = first + own_lane() + 8 * h;
        facts[h] = {AT_INF, 0.0f, 1.0f, 0.0f};
        if (r < rows)
            facts[h] = ((const struct row_facts *)(work + back.facts))[row_place(&back, &in, g) + r];
        unit[h] = LEAST;
    }
    for (int buffer = 0; j0 < keys.end; j0 += AT_TILE, buffer ^= STAGES - 1) {
        at_u32 tk = sk + buffer * bytes, tv = tk + AT_TILE * AT_DK * 2;
        int strange = 0;
        if (STAGES == 1) {
            __syncthreads();
            stage_tile(j0, 0);
        }
        copies_wait();
        if (a.hides || j0 < keys.full_first || j0 + AT_TILE > keys.full_end)
            strange = __syncthreads_or(any_strange<AT_TILE, PK>(tk));
        else
            __syncthreads();
        if (STAGES == 2 && j0 + AT_TILE < keys.end)
            stage_tile(j0 + AT_TILE, buffer ^ 1);
        if (!strange && (j0 >= mine.end || j0 + AT_TILE <= mine.first))
            continue;
        float s[AT_TILE / 8][4] = {}, dp[AT_TILE / 8][4] = {};
        multiply<PK, 1, 1>(s, sq, tk);
        multiply<PV, AT_TERMS, 1>(dp, sd, tv);
        weigh_tile(j0 < mine.full_first || j0 + AT_TILE > mine.full_end, [&](bool partial) {
#pragma unroll
            for (int h = 0; h < 2; h++)
#pragma unroll
                for (int e = 0; e < AT_TILE / 4; e++)
                    weigh(partial, &back, &in, facts[h], g, first + own_lane() + 8 * h,
                          j0 + e / 2 * 8 + item_now() % 4 * 2 + e % 2, &s[e / 2][2 * h + e % 2],
                          &dp[e / 2][2 * h + e % 2], &slopes[h]);
        });
        if (strange) {
            __syncthreads();
            clear_strange<AT_TILE, PK>(tk);
            __syncthreads();
        }
        settle<PK>(unit, dp, acc);
        accumulate<PK, 1>(acc, dp, tk);
    }
    copies_wait();
    put_rows<PK>(out, acc, unit, a.scale, a.dk, a.aligned & ALIGNED_OUT, [&](int h) {
        int r = own_first(a.causal) + own_lane() + 8 * h;
        return back.out[0].given && r < rows ? at_grad_row(&back.out[0], &in, g, r) : -1;
    });
#ifdef AT_EDITS
#pragma unroll
    for (int h = 0; h < 2 && back.slopes >= 0; h++) {
        float sum = quad_sum(slopes[h]);
        int r = first + own_lane() + 8 * h;
        if (r < rows && item_now() % 4 == 0)
            ((float *)(work + back.slopes))[at_row_sums(&back, &in, g, r)] = sum;
    }
#endif
}

/* ---- dK and dV, out and out1.  x: key tile; y: KV group; z: sequence ---- */

/* Rows to keys [j0, j1) what at_key_range is to rows: which packed rows see any, and which see all. */
AT_FN struct at_keys row_range(const struct at_k_attn *a, const struct at_in *x, int j0, int j1)
{
    at_i64 near = j0 - x->off, far = j1 - 1 - x->off, most = x->nq;
    at_i64 reach = a->causal ? 0 : a->right; /* -1: all */
    at_i64 at[4] = {reach < 0 ? 0 : near - reach, reach < 0 ? 0 : far - reach, a->left < 0 ? most : near + a->left + 1,
                    a->left < 0 ? most : far + a->left + 1};
#pragma unroll
    for (int e = 0; e < 4; e++)
        at[e] = (at[e] < 0 ? 0 : at[e] > most ? most : at[e]) * x->ratio;
    return {(int)at[0], (int)at[1], (int)at[2], (int)at[3]};
}

AT_KERNEL void __launch_bounds__(ITEMS, 1) back_keys_mma(const struct at_k_back back, AT_BACK_PARAMS)
{
    extern __shared__ __align__(128) uchar local[];
    AT_BACK_IN(in, AT_GROUP_Z)
    int g = (int)AT_GROUP_Y, rows = in.nq * in.ratio, first = own_first(0);
    if (first >= in.nk)
        return;
    int own_end = first + OWN < in.nk ? first + OWN : in.nk;
    int j0 = first + item_now() / 32 * 16, j1 = j0 + 16 < own_end ? j0 + 16 : own_end; /* of the warp */
    struct at_keys all = row_range(&a, &in, first, own_end);
    struct at_keys mine = row_range(&a, &in, j0, j1);
    if (j0 >= j1)
        mine.end = mine.first;
    const int bytes = AT_TILE * AT_DK * 2 + TERM_BYTES(AT_TILE) * AT_TERMS + AT_TILE * 16;
    at_u32 sk = (at_u32)__cvta_generic_to_shared(local), sv = sk + OWN * AT_DK * 2, sq = sv + OWN * AT_DV * 2;
    stage_keys<OWN, PK>(sk, in.k, &a.k, at_grad_key(&a.k, &in, g, 0), a.dk, a.aligned & ALIGNED_K, first, 0, in.nk);
    stage_keys<OWN, PV>(sv, in.v, &a.v, at_grad_key(&a.v, &in, g, 0), a.dv, a.aligned & ALIGNED_V, first, 0, in.nk);
    auto stage_tile = [&](int r0, int buffer) {
        at_u32 to = sq + buffer * bytes, to_facts = to + AT_TILE * AT_DK * 2 + TERM_BYTES(AT_TILE) * AT_TERMS;
        AT_ATTN_IN(in, AT_GROUP_Z) /* looked up again: registers are scarce in the loop */
        int g = (int)AT_GROUP_Y, rows = in.nq * in.ratio;
        at_i64 place = row_place(&back, &in, g);
        stage_rows<AT_TILE>(to, &a, &in, g, r0, rows);
        stage_terms<AT_TILE>(to + AT_TILE * AT_DK * 2, &back, work, place, r0, rows);
        for (int r = item_now(); r < AT_TILE; r += ITEMS)
            copy_chunk(to_facts + 16 * r, work + back.facts + 16 * (place + (r0 + r < rows ? r0 + r : 0)),
                       r0 + r < rows);
    };
    int r0 = all.first / AT_TILE * AT_TILE;
    if (STAGES == 2 && r0 < all.end)
        stage_tile(r0, 0);

    float dk[PK][4] = {}, dv[PV][4] = {}, unit_k[2] = {LEAST, LEAST}, unit_v[2] = {LEAST, LEAST};
    for (int buffer = 0; r0 < all.end; r0 += AT_TILE, buffer ^= STAGES - 1) {
        at_u32 tq = sq + buffer * bytes, td = tq + AT_TILE * AT_DK * 2, tf = td + TERM_BYTES(AT_TILE) * AT_TERMS;
        int strange = 0;
        if (STAGES == 1) {
            __syncthreads();
            stage_tile(r0, 0);
        }
        copies_wait();
        if (a.hides || r0 < all.full_first || r0 + AT_TILE > all.full_end)
            strange = __syncthreads_or(any_strange<AT_TILE, PK>(tq));
        else
            __syncthreads();
        if (STAGES == 2 && r0 + AT_TILE < all.end)
            stage_tile(r0 + AT_TILE, buffer ^ 1);
        if (!strange && (r0 >= mine.end || r0 + AT_TILE <= mine.first))
            continue;
        float s[AT_TILE / 8][4] = {}, dp[AT_TILE / 8][4] = {};
        multiply<PK, 1, 1>(s, sk, tq);
        multiply<PV, 1, AT_TERMS>(dp, sv, td);
        weigh_tile(r0 < mine.full_first || r0 + AT_TILE > mine.full_end, [&](bool partial) {
            AT_ATTN_IN(in, AT_GROUP_Z)
#pragma unroll
            for (int e = 0; e < AT_TILE / 4; e++) {
                int r = e / 2 * 8 + item_now() % 4 * 2 + e % 2;
                chunk c = load_chunk(tf + 16 * r);
                struct row_facts f = {__uint_as_float(c.w[0]), __uint_as_float(c.w[1]),
                                      __uint_as_float(c.w[2]), 0.0f};
#pragma unroll
                for (int h = 0; h < 2; h++)
                    weigh(partial, &back, &in, f, (int)AT_GROUP_Y, r0 + r, own_first(0) + own_lane() + 8 * h,
                          &s[e / 2][2 * h + e % 2], &dp[e / 2][2 * h + e % 2], 0);
            }
        });
        if (strange) {
            __syncthreads();
            clear_strange<AT_TILE, PK>(tq);
            __syncthreads();
        }
        settle<PV>(unit_v, s, dv);
        accumulate<PV, AT_TERMS>(dv, s, td);
        settle<PK>(unit_k, dp, dk);
        accumulate<PK, 1>(dk, dp, tq);
    }
    copies_wait();
    AT_ATTN_IN(end, AT_GROUP_Z)
    auto row = [&](const struct at_k_view *v, int h) {
        int j = own_first(0) + own_lane() + 8 * h;
        return v->given && j < end.nk ? at_grad_key(v, &end, (int)AT_GROUP_Y, j) : -1;
    };
    put_rows<PK>(out, dk, unit_k, a.scale, a.dk, a.aligned & ALIGNED_OUT,
                 [&](int h) { return row(&back.out[0], h); });
    put_rows<PV>(out1, dv, unit_v, 1.0f, a.dv, a.aligned & ALIGNED_OUT1,
                 [&](int h) { return row(&back.out[1], h); });
}
