/* SPDX-License-Identifier: MIT */
/* Attention by tensor cores (mma.sync; sm_75 and later): a group of AT_WARPS warps has AT_ROWS packed rows,
 * and passes over the keys in tiles of AT_KEYS; where rows are few (AT_SPLIT), a group is a warp, has all of
 * them and a chunk of the keys, and leaves (m, l, acc) in work for attn_merge.cl.  Queries, keys and values, of 16 bits, are staged whole in
 * shared memory; scores, weights and sums stay in registers.  From sm_80 on the next tile is on its way
 * while this one is worked on.
 *
 * A weight meets values as a sum of AT_TERMS numbers of 16 bits: as many as an f32 holds where precision is
 * exact, else one.  Weights of f16 are kept 2^SHIFT times as large, since f16 ends at 2^-24; they pass
 * 2^LAG of the reference m never, or it would have moved, so nothing overflows.
 *
 * Fragments, by lane (PTX ISA, "Matrix Fragments for mma.m16n8k16"): of a 16 x 8 result, rows lane / 4
 * and that + 8, columns 2 (lane % 4) and the next.  Scores of two times 8 keys are, as weights, what the
 * next product takes for its 16 keys. */
#define ITEMS (32 * AT_WARPS)
#define TILES (AT_ROWS / AT_WARPS / 16) /* of 16 rows, a warp's */
#define LAG 8.0f
#ifdef AT_BF16_IN
#define SHIFT 0.0f
#define UNSHIFT 1.0f
#define HALF_INF 0x7f80u
#else
#define SHIFT 7.0f
#define UNSHIFT 0.0078125f
#define HALF_INF 0x7c00u
#endif
#if __CUDA_ARCH__ >= 800
#define STAGES 2
#else
#define STAGES 1
#endif
#define K_BYTES (AT_KEYS * AT_DK * 2)
#define V_BYTES (AT_KEYS * AT_DV * 2)
#define TILE_BYTES (AT_ROWS * AT_DK * 2 + STAGES * (K_BYTES + V_BYTES)) /* 16 more are used */
#define ALIGNED_Q 1 /* bits of args.aligned: rows that can be copied by 16 bytes */
#define ALIGNED_K 2
#define ALIGNED_V 4
#define ALIGNED_O 8 /* by 8 bytes */

/* ---- shared memory: 16 bytes at a time ---- */

/* Where chunk c of row r is, P chunks a row: neighbours of a column are in different banks. */
template <int P> constexpr int turn = P % 8 == 0 ? 8 : P % 4 == 0 ? 4 : 2;
template <int P> AT_FN at_u32 chunk_at(int r, int c)
{
    return (at_u32)(r * P + (c ^ (r / (8 / turn<P>)&(turn<P> - 1)))) * 16;
}

/* From where chunk 0 or 1 of a row is, where it is `chunks` (a constant, even) further on.  Tiles begin at
 * multiples of 128 bytes. */
template <int P> AT_FN at_u32 along(at_u32 at, int chunks)
{
    return (at ^ (at_u32)(chunks % turn<P> * 16)) + (at_u32)(chunks / turn<P> * turn<P> * 16);
}

struct chunk {
    at_u32 w[4];
};

AT_FN chunk load_chunk(at_u32 at)
{
    chunk c;
    asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(c.w[0]), "=r"(c.w[1]), "=r"(c.w[2]), "=r"(c.w[3]) : "r"(at) : "memory");
    return c;
}

AT_FN void store_chunk(at_u32 at, chunk c)
{
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};"
                 :: "r"(at), "r"(c.w[0]), "r"(c.w[1]), "r"(c.w[2]), "r"(c.w[3]) : "memory");
}

/* 16 bytes, or zeros; from sm_80 on they arrive before copies_wait returns. */
AT_FN void copy_chunk(at_u32 to, const uchar *from, int given)
{
#if STAGES == 2
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :: "r"(to), "l"(from), "r"(given ? 16 : 0) : "memory");
#else
    uint4 x = make_uint4(0, 0, 0, 0);
    if (given)
        x = *(const uint4 *)from;
    store_chunk(to, chunk{x.x, x.y, x.z, x.w});
#endif
}

AT_FN void copies_wait()
{
#if STAGES == 2
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

/* The item's number, worked out anew: what follows from it is cheaper to compute than to keep in registers
 * while a tile is worked on. */
AT_FN int item_now()
{
    int x;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(x));
    return x & (ITEMS - 1);
}

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

/* What an item stages of rows of P chunks: chunk c of rows r, r + STEP<P> and so on. */
template <int P> constexpr int STEP = ITEMS % P == 0 ? ITEMS / P : 0; /* 0: of no such rows */

/* N rows of `channels` and zeros up to 8 P, of any alignment; row(r) is where row r begins, in elements, or
 * -1 for zeros. */
template <int N, int P, class Row>
AT_FN void stage(at_u32 to, const uchar *from, int channels, int aligned, Row row)
{
    for (int e = item_now(); e < N * P; e += ITEMS) {
        int r = e / P, c = e % P, left = channels - 8 * c;
        at_i64 at = row(r);
        if (at < 0)
            at = left = 0;
        const unsigned short *p = (const unsigned short *)from + at + 8 * c;
        if (aligned) {
            copy_chunk(to + chunk_at<P>(r, c), left > 0 ? (const uchar *)p : from, left > 0);
        } else {
            chunk x;
            for (int i = 0; i < 4; i++) {
                at_u32 lo = 2 * i < left ? p[2 * i] : 0, hi = 2 * i + 1 < left ? p[2 * i + 1] : 0;
                x.w[i] = lo | hi << 16;
            }
            store_chunk(to + chunk_at<P>(r, c), x);
        }
    }
}

/* The same where all N rows are there, aligned, and `stride` elements apart. */
template <int N, int P> AT_FN void stage_whole(at_u32 to, const uchar *from, int channels, at_i64 stride)
{
    int item = item_now(), c = item % P, given = 8 * c < channels;
    const uchar *p = from + 2 * (item / P * stride + 8 * c);
#pragma unroll
    for (int r = 0; r < N; r += STEP<P>) {
        if (N % STEP<P> == 0 || r + item / P < N)
            copy_chunk(to + chunk_at<P>(r + item / P, c), p, given);
        p += 2 * STEP<P> * stride;
    }
}

/* ---- fragments ---- */

AT_FN void load4(at_u32 r[4], at_u32 at)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at) : "memory");
}

AT_FN void load4_turned(at_u32 r[4], at_u32 at)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at) : "memory");
}

/* c += a b, 16 x 16 by 16 x 8. */
AT_FN void mma(float c[4], const at_u32 a[4], at_u32 b0, at_u32 b1)
{
#if __CUDA_ARCH__ >= 800 && defined AT_BF16_IN
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#elif __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(b0));
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[2]), "r"(a[3]), "r"(b1));
#endif
}

/* Two numbers of the 16-bit type, lo in the lower half. */
AT_FN at_u32 pack(float lo, float hi)
{
    at_u32 r;
#ifdef AT_BF16_IN
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
#elif __CUDA_ARCH__ >= 800
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
#else
    asm("{ .reg .f16 l, h; cvt.rn.f16.f32 l, %2; cvt.rn.f16.f32 h, %1; mov.b32 %0, {l, h}; }"
        : "=r"(r) : "f"(hi), "f"(lo));
#endif
    return r;
}

/* The leading bits of x that the 16-bit type holds; the rest is exact in f32. */
AT_FN float leading(float x)
{
#ifdef AT_BF16_IN
    return __uint_as_float(__float_as_uint(x) & 0xffff0000u);
#else
    return __uint_as_float(__float_as_uint(x) & 0xffffe000u);
#endif
}

AT_FN float exp2_fast(float x) /* to 2 ulp; 0 below 2^-126 */
{
    float r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

/* Over the four lanes that have a row. */
AT_FN float quad_max(float x)
{
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

AT_FN float quad_sum(float x)
{
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

/* Weights of 16 rows and keys 16 k on, as a factor, and what remains of them. */
AT_FN void take_term(at_u32 f[4], float p[AT_KEYS / 8][4], int k, int last)
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float *x = &p[2 * k + i / 2][i % 2 * 2];
        if (last) {
            f[i] = pack(x[0], x[1]);
        } else {
            float lo = leading(x[0]), hi = leading(x[1]);
            f[i] = pack(lo, hi);
            x[0] -= lo;
            x[1] -= hi;
        }
    }
}

/* ---- values that are no numbers ----
 *
 * In a tile where a row sees some keys only, what others hold must not show: 0 times NaN is NaN.  So such
 * tiles are looked through; where one has an infinity or a NaN, `spread` adds them to the rows that see
 * them, and they become 0 before the usual product. */

AT_FN at_u32 none_of(at_u32 w) /* a mask of the halves that are infinite or NaN */
{
    at_u32 lo = (w & HALF_INF) == HALF_INF ? 0xffffu : 0, hi = (w >> 16 & HALF_INF) == HALF_INF ? 0xffff0000u : 0;
    return lo | hi;
}

/* The chunks that this item staged. */
template <int P> AT_FN int any_strange(at_u32 v)
{
    at_u32 any = 0;
    for (unsigned e = threadIdx.x; e < AT_KEYS * P; e += ITEMS) {
        chunk c = load_chunk(v + chunk_at<P>(e / P, e % P));
        any |= none_of(c.w[0]) | none_of(c.w[1]) | none_of(c.w[2]) | none_of(c.w[3]);
    }
    return any != 0;
}

template <int P> AT_FN void clear_strange(at_u32 v)
{
    for (unsigned e = threadIdx.x; e < AT_KEYS * P; e += ITEMS) {
        at_u32 at = v + chunk_at<P>(e / P, e % P);
        chunk c = load_chunk(at);
        for (int i = 0; i < 4; i++)
            c.w[i] &= ~none_of(c.w[i]);
        store_chunk(at, c);
    }
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
            at_u32 w;
            asm volatile("ld.shared.b32 %0, [%1];"
                         : "=r"(w) : "r"(v + chunk_at<AT_DV / 8>(j, n) + lane % 4 * 4) : "memory");
#pragma unroll
            for (int e = 0; e < 2; e++, w >>= 16) {
                if ((w & HALF_INF) != HALF_INF)
                    continue;
                float x = __uint_as_float((w & 0x8000u) << 16 | 0x7f800000u |
                                          ((w & 0x7fffu) > HALF_INF ? 0x400000u : 0));
#pragma unroll
                for (int t = 0; t < TILES; t++)
#pragma unroll
                    for (int h = 0; h < 2; h++)
                        if (seen[t][h])
                            acc[t][n][2 * h + e] += zero[t][h] ? 0.0f * x : x;
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

    at_u32 sq = (at_u32)__cvta_generic_to_shared(local), sk = sq + AT_ROWS * AT_DK * 2, sv = sk + STAGES * K_BYTES;
    stage<AT_ROWS, AT_DK / 8>(sq, in.q, a.dk, a.aligned & ALIGNED_Q, [&](int r) {
        return first + r < rows ? at_q_at(&a, &in, g, first + r) : -1;
    });
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
        if (STEP<AT_DK / 8> > 0 && STEP<AT_DV / 8> > 0 && j0 >= keys.first && j0 + AT_KEYS <= keys.end &&
            (a.aligned & (ALIGNED_K | ALIGNED_V)) == (ALIGNED_K | ALIGNED_V)) {
            if constexpr (STEP<AT_DK / 8> > 0 && STEP<AT_DV / 8> > 0) {
                stage_whole<AT_KEYS, AT_DK / 8>(sk + buffer * K_BYTES, in.k + 2 * key(j0), a.dk, a.k.stride[2]);
                stage_whole<AT_KEYS, AT_DV / 8>(sv + buffer * V_BYTES, in.v + 2 * value(j0), a.dv, a.v.stride[2]);
            }
            return;
        }
#endif
        stage<AT_KEYS, AT_DK / 8>(sk + buffer * K_BYTES, in.k, a.dk, a.aligned & ALIGNED_K, [&](int r) {
            return j0 + r >= keys.first && j0 + r < keys.end ? key(j0 + r) : -1;
        });
        stage<AT_KEYS, AT_DV / 8>(sv + buffer * V_BYTES, in.v, a.dv, a.aligned & ALIGNED_V, [&](int r) {
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
        if (a.hides || j0 < keys.full_first || j0 + AT_KEYS > keys.full_end)
            strange = __syncthreads_or(any_strange<AT_DV / 8>(tv));
        else
            __syncthreads();
        if (STAGES == 2 && j0 + AT_KEYS < keys.end)
            stage_tile(j0 + AT_KEYS, buffer ^ 1);
        if (!strange && (j0 >= mine.end || j0 + AT_KEYS <= mine.first))
            continue;

        /* scores: where a lane's rows of fragments begin */
        at_u32 q_at = sq + chunk_at<AT_DK / 8>(warp_row() + lane % 16, lane / 16);
        at_u32 k_at = tk + chunk_at<AT_DK / 8>(lane % 8 + lane / 16 * 8, lane / 8 % 2);
        float s[TILES][AT_KEYS / 8][4] = {};
#pragma unroll
        for (int k = 0; k < AT_DK / 16; k++) {
            at_u32 q[TILES][4], b[4];
#pragma unroll
            for (int t = 0; t < TILES; t++)
                load4(q[t], along<AT_DK / 8>(q_at, 2 * k) + 16 * t * AT_DK * 2);
#pragma unroll
            for (int n = 0; n < AT_KEYS / 16; n++) {
                load4(b, along<AT_DK / 8>(k_at, 2 * k) + 16 * n * AT_DK * 2);
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
            clear_strange<AT_DV / 8>(tv);
            __syncthreads();
        }

        /* accumulate */
        at_u32 v_at = tv + chunk_at<AT_DV / 8>(lane % 16, lane / 16);
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
                load4_turned(b, along<AT_DV / 8>(v_at, 2 * n) + 16 * k * AT_DV * 2);
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
