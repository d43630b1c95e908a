/* SPDX-License-Identifier: MIT */
/* Attention by tensor cores (mma.sync; sm_75 and later): a group of AT_WARPS warps has AT_ROWS packed rows,
 * and passes over the keys in tiles of AT_KEYS; where rows are few (AT_SPLIT), a group is a warp, has all of
 * them and a chunk of the keys, and leaves (m, l, acc) in work for attn_merge.cl.  Queries, keys and values
 * are staged whole in shared memory; scores, weights and sums stay in registers.  From sm_80 on the next tile
 * is on its way while this one is worked on.
 *
 * A weight of 16 bits meets values as a sum of AT_TERMS numbers: as many as an f32 holds where precision is
 * exact, else one.  Weights of f16 are kept 2^SHIFT times as large, since f16 ends at 2^-24; they pass
 * 2^LAG of the reference m never, or it would have moved, so nothing overflows. */
#define TILES (AT_ROWS / AT_WARPS / 16) /* of 16 rows, a warp's */
#define LAG 8.0f
#if defined AT_BF16_IN || defined AT_TF32
#define SHIFT 0.0f
#define UNSHIFT 1.0f
#else
#define SHIFT 7.0f
#define UNSHIFT 0.0078125f
#endif
#define DK_CHUNKS (AT_DK / EACH) /* of a row */
#define DV_CHUNKS (AT_DV / EACH)
#define K_BYTES (AT_KEYS * AT_DK * SIZE)
#define V_BYTES (AT_KEYS * AT_DV * SIZE)
#define TILE_BYTES (AT_ROWS * AT_DK * SIZE + STAGES * (K_BYTES + V_BYTES)) /* 16 more are used */
#define ALIGNED_Q 1 /* bits of args.aligned: rows that can be copied by 16 bytes */
#define ALIGNED_K 2
#define ALIGNED_V 4
#define ALIGNED_O 8 /* by 8 bytes */

/* The first row of the group, and of the warp in it. */
AT_FN int first_row(const struct at_k_attn *a)
{
#ifdef AT_SPLIT
    return 0;
#else
    int x, n; /* later rows have more keys: they begin first */
    asm volatile("mov.u32 %0, %%ctaid.x;" : "=r"(x));
    asm volatile("mov.u32 %0, %%nctaid.x;" : "=r"(n));
    return (a->causal ? n - 1 - x : x) * AT_ROWS;
#endif
}

AT_FN int warp_row()
{
    return item_now() / 32 * 16 * TILES;
}

/* ---- accumulate: acc += p v ---- */

#ifdef AT_TF32
/* Keys 2 (lane % 4) and the next are columns lane % 4 and that + 4 of the weights, since terms of a sum may have any
 * order: as a lane has them. */
AT_FN void accumulate(float acc[TILES][AT_DV / 8][4], float p[TILES][AT_KEYS / 8][4], at_u32 v, int lane)
{
    at_u32 v_at[2]; /* channel lane / 4 of keys 2 (lane % 4) and the next */
    for (int i = 0; i < 2; i++)
        v_at[i] = v + chunk_at<DV_CHUNKS>(lane % 4 * 2 + i, lane / 16) + lane / 4 % 4 * 4;
#pragma unroll
    for (int k = 0; k < AT_KEYS / 8; k++) {
        at_u32 f[TILES][4], b[2];
#pragma unroll
        for (int t = 0; t < TILES; t++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                f[t][i] = tf32(p[t][k][i % 2 * 2 + i / 2]);
#pragma unroll
        for (int n = 0; n < AT_DV / 8; n++) {
#pragma unroll
            for (int i = 0; i < 2; i++)
                asm volatile("ld.shared.b32 %0, [%1];"
                             : "=r"(b[i])
                             : "r"(along<DV_CHUNKS>(v_at[i], 2 * n) + 8 * k * AT_DV * SIZE)
                             : "memory");
#pragma unroll
            for (int t = 0; t < TILES; t++)
                mma(acc[t][n], f[t], b[0], b[1]);
        }
    }
}
#else
AT_FN void accumulate(float acc[TILES][AT_DV / 8][4], float s[TILES][AT_KEYS / 8][4], at_u32 v, int lane)
{
    at_u32 v_at = v + chunk_at<DV_CHUNKS>(lane % 16, lane / 16);
#pragma unroll
    for (int k = 0; k < AT_KEYS / 16; k++) {
        at_u32 p[AT_TERMS][TILES][4], b[4];
#pragma unroll
        for (int t = 0; t < TILES; t++)
#pragma unroll
            for (int i = 0; i < AT_TERMS; i++)
                take_term(p[i][t], s[t], k, i + 1 == AT_TERMS);
#pragma unroll
        for (int n = 0; n < AT_DV / 16; n++) {
            load4_turned(b, along<DV_CHUNKS>(v_at, 2 * n) + 16 * k * AT_DV * SIZE);
#pragma unroll
            for (int i = 0; i < AT_TERMS; i++)
#pragma unroll
                for (int t = 0; t < TILES; t++) {
                    mma(acc[t][2 * n], p[i][t], b[0], b[1]);
                    mma(acc[t][2 * n + 1], p[i][t], b[2], b[3]);
                }
        }
    }
}
#endif

/* ---- values that are no numbers ----
 *
 * In a tile where a row sees some keys only, what others hold must not show: 0 times NaN is NaN.  So such
 * tiles are looked through; where one has an infinity or a NaN, `spread` adds them to the rows that see
 * them, and they become 0 before the usual product. */

/* Channels 8 n + 2 (lane % 4) and the next of key j: what is infinite or NaN, and 0 for all else. */
AT_FN void strange_at(float x[2], at_u32 v, int j, int n)
{
    int lane = AT_ITEM % 32, at = lane % 4 * 2 * SIZE;
    at_u32 from = v + chunk_at<DV_CHUNKS>(j, 8 / EACH * n + at / 16) + at % 16;
#ifdef AT_TF32
    at_u32 w[2];
    asm volatile("ld.shared.v2.b32 {%0, %1}, [%2];" : "=r"(w[0]), "=r"(w[1]) : "r"(from) : "memory");
    for (int e = 0; e < 2; e++)
        x[e] = __uint_as_float(w[e] & none_of(w[e]));
#else
    at_u32 w;
    asm volatile("ld.shared.b32 %0, [%1];" : "=r"(w) : "r"(from) : "memory");
    for (int e = 0; e < 2; e++, w >>= 16)
        x[e] = (w & HALF_INF) != HALF_INF ? 0.0f
                                          : __uint_as_float((w & 0x8000u) << 16 | 0x7f800000u |
                                                            ((w & 0x7fffu) > HALF_INF ? 0x400000u : 0));
#endif
}

/* The infinities and NaN of key j join the rows that see it: a lane has their values at its columns. */
AT_FN void spread(float acc[TILES][AT_DV / 8][4], float p[TILES][AT_KEYS / 8][4], at_u32 v)
{
    int lane = AT_ITEM % 32;
    at_u32 weights[TILES][2] = {}, zeros[TILES][2] = {}; /* bits: of keys that are seen, and with weight 0 */
#pragma unroll
    for (int e = 0; e < TILES * AT_KEYS / 2; e++) {
        int t = e / (AT_KEYS / 2), n = e / 4 % (AT_KEYS / 8), i = e % 4;
        weights[t][i / 2] |= (at_u32)!AT_DEAD(p[t][n][i]) << (2 * n + i % 2);
        zeros[t][i / 2] |= (at_u32)(p[t][n][i] == 0.0f) << (2 * n + i % 2);
    }
#pragma unroll 1
    for (int j = 0; j < AT_KEYS; j++) {
        at_u32 seen[TILES][2], zero[TILES][2], any = 0;
        int from = lane / 4 * 4 + j % 8 / 2, bit = j / 8 * 2 + j % 2;
#pragma unroll
        for (int t = 0; t < TILES; t++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                seen[t][h] = __shfl_sync(0xffffffffu, weights[t][h], from) >> bit & 1;
                zero[t][h] = __shfl_sync(0xffffffffu, zeros[t][h], from) >> bit & 1;
                any |= seen[t][h];
            }
        if (!__any_sync(0xffffffffu, any))
            continue;
#pragma unroll
        for (int n = 0; n < AT_DV / 8; n++) {
            float x[2];
            strange_at(x, v, j, n);
#pragma unroll
            for (int e = 0; e < 2; e++) {
                if (x[e] == 0.0f)
                    continue;
#pragma unroll
                for (int t = 0; t < TILES; t++)
#pragma unroll
                    for (int h = 0; h < 2; h++)
                        if (seen[t][h])
                            acc[t][n][2 * h + e] += zero[t][h] ? 0.0f * x[e] : x[e];
            }
        }
    }
}

/* ---- the kernel ---- */

/* x: row tile, or chunk; y: KV group; z: sequence. */
AT_KERNEL void __launch_bounds__(ITEMS, 1) attn_mma(const struct at_k_attn a, AT_ATTN_PARAMS)
{
    extern __shared__ __align__(128) uchar local[];
    AT_ATTN_IN(in, AT_GROUP_Z)
    int g = (int)AT_GROUP_Y, rows = in.nq * in.ratio;
    int first = first_row(&a);
    if (first >= rows)
        return;
    int last = first + AT_ROWS < rows ? first + AT_ROWS - 1 : rows - 1;
    struct at_keys keys = at_key_range(&a, &in, first / in.ratio, last / in.ratio + 1);
    int row0 = first + warp_row(); /* of the warp, and what it sees */
#ifdef AT_SPLIT
    at_i64 from = AT_GROUP_X * a.chunk, to = from + a.chunk;
    if (from >= keys.end)
        return;
    keys.first = keys.first > from ? keys.first : (int)from;
    keys.end = keys.end < to ? keys.end : (int)to;
#endif
    last = row0 + 16 * TILES < rows ? row0 + 16 * TILES - 1 : rows - 1;
    struct at_keys mine = at_key_range(&a, &in, row0 / in.ratio, row0 < rows ? last / in.ratio + 1 : 0);

    at_u32 sq = (at_u32)__cvta_generic_to_shared(local), sk = sq + AT_ROWS * AT_DK * SIZE, sv = sk + STAGES * K_BYTES;
    stage<AT_ROWS, DK_CHUNKS>(sq, in.q, a.dk, a.aligned & ALIGNED_Q, [&](int r) {
        return first + r < rows ? at_q_at(&a, &in, g, first + r) : -1;
    });
#ifdef AT_TF32
    copies_wait();
    round_staged<AT_ROWS, DK_CHUNKS>(sq);
#endif
#ifdef AT_PAGED
    float by;
    auto key = [&](int j) { return at_k_at(&a, &in, g, j, &by); };
    auto value = [&](int j) { return at_v_at(&a, &in, g, j, &by); };
#else
    at_i64 *begin = (at_i64 *)(local + TILE_BYTES); /* of keys and values: no registers for them, either */
    if (AT_ITEM == 0) {
        begin[0] = a.k.at + in.kb * a.k.stride[0] + g * a.k.stride[1] + in.k0 * a.k.stride[2];
        begin[1] = a.v.at + in.kb * a.v.stride[0] + g * a.v.stride[1] + in.k0 * a.v.stride[2];
    }
    __syncthreads();
    auto key = [&](int j) { return begin[0] + j * a.k.stride[2]; };
    auto value = [&](int j) { return begin[1] + j * a.v.stride[2]; };
#endif
    auto stage_tile = [&](int j0, int buffer) {
#ifndef AT_PAGED
        if (STEP<DK_CHUNKS> > 0 && STEP<DV_CHUNKS> > 0 && j0 >= keys.first && j0 + AT_KEYS <= keys.end &&
            (a.aligned & (ALIGNED_K | ALIGNED_V)) == (ALIGNED_K | ALIGNED_V)) {
            if constexpr (STEP<DK_CHUNKS> > 0 && STEP<DV_CHUNKS> > 0) {
                stage_whole<AT_KEYS, DK_CHUNKS>(sk + buffer * K_BYTES, in.k + SIZE * key(j0), a.dk, a.k.stride[2]);
                stage_whole<AT_KEYS, DV_CHUNKS>(sv + buffer * V_BYTES, in.v + SIZE * value(j0), a.dv, a.v.stride[2]);
            }
            return;
        }
#endif
        stage<AT_KEYS, DK_CHUNKS>(sk + buffer * K_BYTES, in.k, a.dk, a.aligned & ALIGNED_K, [&](int r) {
            return j0 + r >= keys.first && j0 + r < keys.end ? key(j0 + r) : -1;
        });
        stage<AT_KEYS, DV_CHUNKS>(sv + buffer * V_BYTES, in.v, a.dv, a.aligned & ALIGNED_V, [&](int r) {
            return j0 + r >= keys.first && j0 + r < keys.end ? value(j0 + r) : -1;
        });
    };
    int j0 = keys.first / AT_KEYS * AT_KEYS;
    if (STAGES == 2 && j0 < keys.end)
        stage_tile(j0, 0);

    float m[TILES][2], l[TILES][2] = {}, acc[TILES][AT_DV / 8][4] = {};
#pragma unroll
    for (int t = 0; t < TILES; t++)
        m[t][0] = m[t][1] = -AT_INF;
#ifdef AT_EDITS
    const float unit = 1.0f; /* what s is in units of */
#else
    const float unit = a.scale;
#endif
    float c = unit * AT_LOG2E;
    for (int buffer = 0; j0 < keys.end; j0 += AT_KEYS, buffer ^= STAGES - 1) {
        at_u32 tk = sk + buffer * K_BYTES, tv = sv + buffer * V_BYTES;
        int strange = 0, lane = item_now() % 32;
        if (STAGES == 1) {
            __syncthreads();
            stage_tile(j0, 0);
        }
        copies_wait();
        round_staged<AT_KEYS, DK_CHUNKS>(tk);
        round_staged<AT_KEYS, DV_CHUNKS>(tv);
        if (a.hides || j0 < keys.full_first || j0 + AT_KEYS > keys.full_end)
            strange = __syncthreads_or(any_strange<AT_KEYS, DV_CHUNKS>(tv));
        else
            __syncthreads();
        if (STAGES == 2 && j0 + AT_KEYS < keys.end)
            stage_tile(j0 + AT_KEYS, buffer ^ 1);
        if (!strange && (j0 >= mine.end || j0 + AT_KEYS <= mine.first))
            continue;

        /* scores: where a lane's rows of fragments begin */
        at_u32 q_at = sq + chunk_at<DK_CHUNKS>(warp_row() + lane % 16, lane / 16);
        at_u32 k_at = tk + chunk_at<DK_CHUNKS>(lane % 8 + lane / 16 * 8, lane / 8 % 2);
        float s[TILES][AT_KEYS / 8][4] = {};
#pragma unroll
        for (int k = 0; k < DK_CHUNKS / 2; k++) {
            at_u32 q[TILES][4], b[4];
#pragma unroll
            for (int t = 0; t < TILES; t++)
                load4(q[t], along<DK_CHUNKS>(q_at, 2 * k) + 16 * t * AT_DK * SIZE);
#pragma unroll
            for (int n = 0; n < AT_KEYS / 16; n++) {
                load4(b, along<DK_CHUNKS>(k_at, 2 * k) + 16 * n * AT_DK * SIZE);
#pragma unroll
                for (int t = 0; t < TILES; t++) {
                    mma(s[t][2 * n], q[t], b[0], b[1]);
                    mma(s[t][2 * n + 1], q[t], b[2], b[3]);
                }
            }
        }
        int partial = j0 < mine.full_first || j0 + AT_KEYS > mine.full_end;
#ifdef AT_EDITS
        const int edit = 1;
#else
        const int edit = 0;
#endif
        if (edit || partial) {
            AT_ATTN_IN(in, AT_GROUP_Z) /* looked up again: registers are scarce in the loop */
            int row0 = first_row(&a) + warp_row(), rows = in.nq * in.ratio;
#pragma unroll
            for (int t = 0; t < TILES; t++)
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    int row = row0 + 16 * t + 8 * h + lane / 4, i = row / in.ratio;
                    int low = row < rows ? at_low(&a, &in, i) : 0, high = row < rows ? at_high(&a, &in, i) : 0;
#pragma unroll
                    for (int n = 0; n < AT_KEYS / 8; n++)
#pragma unroll
                        for (int e = 0; e < 2; e++) {
                            int j = j0 + 8 * n + lane % 4 * 2 + e;
                            float *x = &s[t][n][2 * h + e];
                            if (j < low || j >= high)
                                *x = -AT_INF;
#ifdef AT_EDITS
                            else
                                *x = at_score(&a, &in, g, row, j, *x);
#endif
                        }
                }
        }

        /* softmax_step: m moves where a weight would pass 2^LAG */
        float factor[TILES][2];
        int moved = 0;
#pragma unroll
        for (int t = 0; t < TILES; t++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                float top = s[t][0][2 * h];
#pragma unroll
                for (int n = 0; n < AT_KEYS / 8; n++)
                    top = fmaxf(top, fmaxf(s[t][n][2 * h], s[t][n][2 * h + 1]));
                top = quad_max(top);
                factor[t][h] = 1.0f;
                if ((top - m[t][h]) * c > LAG) { /* also from -inf */
                    factor[t][h] = exp2_fast((m[t][h] - top) * c);
                    m[t][h] = top;
                    moved = 1;
                }
            }
        if (__any_sync(0xffffffffu, moved))
#pragma unroll
            for (int t = 0; t < TILES; t++)
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    l[t][h] *= factor[t][h];
#pragma unroll
                    for (int n = 0; n < AT_DV / 8; n++) {
                        acc[t][n][2 * h] *= factor[t][h];
                        acc[t][n][2 * h + 1] *= factor[t][h];
                    }
                }
        auto weigh = [&](bool mark) { /* mark: hidden keys, by AT_HIDDEN */
#pragma unroll
            for (int t = 0; t < TILES; t++)
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    float reference = at_reference(m[t][h]) * c - SHIFT;
#pragma unroll
                    for (int n = 0; n < AT_KEYS / 8; n++)
#pragma unroll
                        for (int e = 0; e < 2; e++) {
                            float *p = &s[t][n][2 * h + e];
                            *p = mark && *p == -AT_INF ? AT_HIDDEN : exp2_fast(*p * c - reference);
                            l[t][h] += *p;
#ifdef AT_DROPOUT
                            if (at_dropout(&a, &in, g, first_row(&a) + warp_row() + 16 * t + 8 * h + lane / 4,
                                           j0 + 8 * n + lane % 4 * 2 + e) == 0.0f &&
                                !AT_DEAD(*p))
                                *p = 0.0f;
#endif
                        }
                }
        };
        if (!strange) {
            weigh(false);
        } else {
            weigh(true);
            spread(acc, s, tv);
            __syncthreads();
            clear_strange<AT_KEYS, DV_CHUNKS>(tv);
            __syncthreads();
        }

        accumulate(acc, s, tv, lane);
    }
    copies_wait();

    /* finish */
    AT_ATTN_IN(end, AT_GROUP_Z)
    int lane = item_now() % 32;
    row0 = first_row(&a) + warp_row();
#pragma unroll
    for (int t = 0; t < TILES; t++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int row = row0 + 16 * t + 8 * h + lane / 4;
            float top = m[t][h] * unit, sum = quad_sum(l[t][h]) * UNSHIFT, by;
            if (row >= end.nq * end.ratio)
                continue;
#ifdef AT_SPLIT
            float *state = partial_of(&a, work, AT_GROUP_Z, g, a.ng, AT_GROUP_X) + row * STATE;
            state[0] = top;
            state[1] = sum;
            by = UNSHIFT;
#ifdef AT_DROPOUT
            by *= a.keep;
#endif
#pragma unroll
            for (int e = 0; e < AT_DV / 4; e++)
                state[2 + e / 2 * 8 + lane % 4 * 2 + e % 2] = acc[t][e / 2][2 * h + e % 2] * by;
#else
            at_sink(&a, &end, g, row, &top, &sum, &by);
            by = sum == 0.0f ? 0.0f : by / sum * UNSHIFT;
#ifdef AT_DROPOUT
            by *= a.keep;
#endif
            at_i64 at = at_o_at(&a, &end, g, row);
#pragma unroll
            for (int n = 0; n < AT_DV / 8; n++) {
                int d = 8 * n + lane % 4 * 2;
                float x = acc[t][n][2 * h] * by, y = acc[t][n][2 * h + 1] * by;
                float *o = (float *)out + at + d;
                if ((a.aligned & ALIGNED_O) && d + 1 < a.dv) {
                    *(float2 *)o = make_float2(x, y);
                } else {
                    if (d < a.dv)
                        o[0] = x;
                    if (d + 1 < a.dv)
                        o[1] = y;
                }
            }
            if (a.has_lse && lane % 4 == 0)
                ((float *)lse)[at_lse_at(&a, &end, g, row)] = top + log(sum);
#endif
        }
}
