/* SPDX-License-Identifier: MIT */
/* What kernels by tensor cores share (mma.sync; sm_75 and later): tiles of numbers in shared memory, copied
 * there 16 bytes at a time, from sm_80 on while others are worked on; fragments, and numbers of f32 as sums of
 * some of 16 bits.
 *
 * Numbers have 16 bits, or with AT_TF32 are of f32 and are rounded once they are there.  ldmatrix takes 16 bytes of
 * a row, whatever they are: 8 numbers, or 4.
 *
 * Fragments, by lane (PTX ISA, "Matrix Fragments for mma.m16n8k16"): of a 16 x 8 result, rows lane / 4
 * and that + 8, columns 2 (lane % 4) and the next.  Results of two times 8 columns are, packed, what the
 * next product takes for its 16 columns.  Of tf32 it takes 8, as columns lane % 4 and that + 4. */
#define ITEMS (32 * AT_WARPS)
#ifdef AT_TF32
typedef at_u32 stored;
#else
typedef unsigned short stored;
#endif
#define SIZE ((int)sizeof(stored))
#define EACH (16 / SIZE) /* numbers of a chunk */
#ifdef AT_BF16_IN
#define HALF_INF 0x7f80u
#else
#define HALF_INF 0x7c00u
#endif
#if __CUDA_ARCH__ >= 800
#define STAGES 2
#else
#define STAGES 1
#endif

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

/* What an item stages of rows of P chunks: chunk c of rows r, r + STEP<P> and so on. */
template <int P> constexpr int STEP = ITEMS % P == 0 ? ITEMS / P : 0; /* 0: of no such rows */

/* N rows of `channels` and zeros up to EACH P, of any alignment; row(r) is where row r begins, in elements, or
 * -1 for zeros. */
template <int N, int P, class Row>
AT_FN void stage(at_u32 to, const uchar *from, int channels, int aligned, Row row)
{
    for (int e = item_now(); e < N * P; e += ITEMS) {
        int r = e / P, c = e % P, left = channels - EACH * c;
        at_i64 at = row(r);
        if (at < 0)
            at = left = 0;
        const stored *p = (const stored *)from + at + EACH * c;
        if (aligned) {
            copy_chunk(to + chunk_at<P>(r, c), left > 0 ? (const uchar *)p : from, left > 0);
        } else {
            chunk x = {};
#pragma unroll
            for (int i = 0; i < EACH; i++)
                if (i < left)
                    x.w[i * SIZE / 4] |= (at_u32)p[i] << (i * 8 * SIZE % 32);
            store_chunk(to + chunk_at<P>(r, c), x);
        }
    }
}

/* The same where all N rows are there, aligned, and `stride` elements apart. */
template <int N, int P> AT_FN void stage_whole(at_u32 to, const uchar *from, int channels, at_i64 stride)
{
    int item = item_now(), c = item % P, given = EACH * c < channels;
    const uchar *p = from + SIZE * (item / P * stride + EACH * c);
#pragma unroll
    for (int r = 0; r < N; r += STEP<P>) {
        if (N % STEP<P> == 0 || r + item / P < N)
            copy_chunk(to + chunk_at<P>(r + item / P, c), p, given);
        p += SIZE * STEP<P> * stride;
    }
}

#ifdef AT_TF32
AT_FN at_u32 tf32(float x)
{
    at_u32 r;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(x));
    return r;
}
#endif

/* The chunks that this item staged of N rows become what products take. */
template <int N, int P> AT_FN void round_staged(at_u32 at)
{
#ifdef AT_TF32
    for (int e = item_now(); e < N * P; e += ITEMS) {
        chunk c = load_chunk(at + chunk_at<P>(e / P, e % P));
        for (int i = 0; i < 4; i++)
            c.w[i] = tf32(__uint_as_float(c.w[i]));
        store_chunk(at + chunk_at<P>(e / P, e % P), c);
    }
#endif
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

/* c += a b, 16 x 16 by 16 x 8, or of tf32 16 x 8 by 8 x 8. */
AT_FN void mma(float c[4], const at_u32 a[4], at_u32 b0, at_u32 b1)
{
#ifdef AT_TF32
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#elif __CUDA_ARCH__ >= 800 && defined AT_BF16_IN
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

/* Numbers of 16 rows, and of columns 16 k on, as a factor, and what remains of them. */
AT_FN void take_term(at_u32 f[4], float (*p)[4], int k, int last)
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

/* ---- infinities and NaN ---- */

AT_FN at_u32 none_of(at_u32 w) /* a mask of the numbers in it that are infinite or NaN */
{
#ifdef AT_TF32
    return (w & 0x7f800000u) == 0x7f800000u ? 0xffffffffu : 0;
#else
    at_u32 lo = (w & HALF_INF) == HALF_INF ? 0xffffu : 0, hi = (w >> 16 & HALF_INF) == HALF_INF ? 0xffff0000u : 0;
    return lo | hi;
#endif
}

/* Whether this item's share of N rows of P chunks has one. */
template <int N, int P> AT_FN int any_strange(at_u32 v)
{
    at_u32 any = 0;
    for (unsigned e = threadIdx.x; e < N * P; e += ITEMS) {
        chunk c = load_chunk(v + chunk_at<P>(e / P, e % P));
        any |= none_of(c.w[0]) | none_of(c.w[1]) | none_of(c.w[2]) | none_of(c.w[3]);
    }
    return any != 0;
}

template <int N, int P> AT_FN void clear_strange(at_u32 v)
{
    for (unsigned e = threadIdx.x; e < N * P; e += ITEMS) {
        at_u32 at = v + chunk_at<P>(e / P, e % P);
        chunk c = load_chunk(at);
        for (int i = 0; i < 4; i++)
            c.w[i] &= ~none_of(c.w[i]);
        store_chunk(at, c);
    }
}
