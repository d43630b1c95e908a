/* SPDX-License-Identifier: MIT */
/* c[m, n] = sum_k a[m, k] b[n, k] in f32, in the order of k.  AT_B is the type of b. */

/* A group has 32 x 32 of c, an item 4 x 4; 32 of k are staged at a time. */
AT_KERNEL AT_GROUP(64) void matmul(const struct at_k_matmul a, AT_GLOBAL const uchar *pa,
                                   AT_GLOBAL const uchar *pb, AT_GLOBAL uchar *pc)
{
    AT_SHARED float as[32 * 33], bs[32 * 33];
    int x = AT_ITEM % 8, y = AT_ITEM / 8;
    at_i64 n0 = AT_GROUP_X * 32, m0 = AT_GROUP_Y * 32, rest = AT_GROUP_Z;
    at_i64 ba = a.a_at, bb = a.b_at, bc = a.c_at;
    for (int d = 3; d >= 0; d--) {
        at_i64 i = rest % a.batch[d];
        rest /= a.batch[d];
        ba += i * a.a_batch[d];
        bb += i * a.b_batch[d];
        bc += i * a.c_batch[d];
    }
    float sum[4][4];
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++)
            sum[i][j] = 0.0f;
    for (at_i64 k0 = 0; k0 < a.k; k0 += 32) {
        AT_BARRIER();
        for (int e = AT_ITEM; e < 32 * 32; e += 64) {
            int row = e / 32, k = e % 32;
            float u = 0.0f, v = 0.0f;
            if (m0 + row < a.m && k0 + k < a.k)
                u = at_load(pa, ba + (m0 + row) * a.a_row + (k0 + k) * a.a_k, a.a_type);
            if (n0 + row < a.n && k0 + k < a.k) {
                at_i64 at = bb + (n0 + row) * a.b_n;
#if AT_B == AT_Q8_0 || AT_B == AT_Q4_0 || AT_B == AT_Q4_1
                v = at_channel(pb, at, (int)(k0 + k), AT_B);
#else
                v = at_load(pb, at + (k0 + k) * a.b_k, AT_B);
#endif
            }
            as[k * 33 + row] = u;
            bs[k * 33 + row] = v;
        }
        AT_BARRIER();
        for (int k = 0; k < 32; k++) {
            float u[4], v[4];
            for (int i = 0; i < 4; i++) {
                u[i] = as[k * 33 + 4 * y + i];
                v[i] = bs[k * 33 + x + 8 * i];
            }
            for (int i = 0; i < 4; i++)
                for (int j = 0; j < 4; j++)
                    sum[i][j] = fma(u[i], v[j], sum[i][j]);
        }
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            at_i64 m = m0 + 4 * y + i, n = n0 + x + 8 * j;
            if (m < a.m && n < a.n)
                at_store(pc, bc + m * a.c_row + n * a.c_n, a.c_type, sum[i][j]);
        }
}

/* Up to AT_FEW rows of a: a group has one n, its items share out k. */
#define AT_FEW 4
AT_KERNEL AT_GROUP(64) void matvec(const struct at_k_matmul a, AT_GLOBAL const uchar *pa,
                                   AT_GLOBAL const uchar *pb, AT_GLOBAL uchar *pc)
{
    AT_SHARED float red[64 * AT_FEW];
    at_i64 n = AT_GROUP_X, rest = AT_GROUP_Z, ba = a.a_at, bb = a.b_at, bc = a.c_at;
    for (int d = 3; d >= 0; d--) {
        at_i64 i = rest % a.batch[d];
        rest /= a.batch[d];
        ba += i * a.a_batch[d];
        bb += i * a.b_batch[d];
        bc += i * a.c_batch[d];
    }
    float sum[AT_FEW];
    for (int m = 0; m < AT_FEW; m++)
        sum[m] = 0.0f;
    for (at_i64 k = AT_ITEM; k < a.k; k += 64) {
#if AT_B == AT_Q8_0 || AT_B == AT_Q4_0 || AT_B == AT_Q4_1
        float v = at_channel(pb, bb + n * a.b_n, (int)k, AT_B);
#else
        float v = at_load(pb, bb + n * a.b_n + k * a.b_k, AT_B);
#endif
        for (int m = 0; m < AT_FEW; m++)
            if (m < a.m)
                sum[m] = fma(at_load(pa, ba + m * a.a_row + k * a.a_k, a.a_type), v, sum[m]);
    }
    for (int m = 0; m < AT_FEW; m++)
        red[m * 64 + AT_ITEM] = sum[m];
    for (int s = 32; s > 0; s /= 2) {
        AT_BARRIER();
        if (AT_ITEM < s)
            for (int m = 0; m < AT_FEW; m++)
                red[m * 64 + AT_ITEM] += red[m * 64 + AT_ITEM + s];
    }
    if (AT_ITEM == 0)
        for (int m = 0; m < AT_FEW; m++)
            if (m < a.m)
                at_store(pc, bc + m * a.c_row + n * a.c_n, a.c_type, red[m * 64]);
}
