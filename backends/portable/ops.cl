/* SPDX-License-Identifier: MIT */
/* The operators beside matmul and attention, as lib/ref.c has them.  A group of AT_ITEMS items has a
 * stretch of a row, or a row. */
#ifndef AT_ITEMS
#define AT_ITEMS 64
#endif
#define AT_STRETCH 512 /* elements of a row that a group of `map` has */

#define AT_OP_ADD 0
#define AT_OP_MUL 1
#define AT_OP_SCALE 2
#define AT_OP_WHERE 3
#define AT_OP_SELECT 4
#define AT_OP_SILU 5
#define AT_OP_GELU 6
#define AT_OP_GELU_TANH 7
#define AT_OP_TANH 8
#define AT_OP_SIGMOID 9
#define AT_OP_RELU 10
#define AT_OP_ERF 11
#define AT_OP_POW 12
#define AT_OP_COPY 13
#define AT_OP_SILU_MUL 14

AT_FN float at_unary(int op, float a, float number)
{
    switch (op) {
    case AT_OP_SCALE:
        return a * number;
    case AT_OP_SILU:
        return a / (1.0f + exp(-a));
    case AT_OP_GELU:
        return a * 0.5f * erfc(-a * 0.70710678f);
    case AT_OP_GELU_TANH:
        return 0.5f * a * (1.0f + tanh(0.79788456f * (a + 0.044715f * a * a * a)));
    case AT_OP_TANH:
        return tanh(a);
    case AT_OP_SIGMOID:
        return 1.0f / (1.0f + exp(-a));
    case AT_OP_RELU:
        return a < 0.0f ? 0.0f : a; /* NaN stays NaN */
    case AT_OP_ERF:
        return erf(a);
    case AT_OP_POW:
        return pow(a, number);
    default:
        return a;
    }
}

/* Where row `row` of the first five axes begins. */
AT_FN at_i64 at_row(const at_i64 *n, const at_i64 *stride, at_i64 row)
{
    at_i64 sum = 0;
    for (int d = 4; d >= 0; d--) {
        if (n[d] == 1)
            continue;
        sum += row % n[d] * stride[d];
        row /= n[d];
    }
    return sum;
}

/* x: stretch of the row; y, z: the row. */
AT_KERNEL AT_GROUP(AT_ITEMS) void map(const struct at_k_map a, AT_GLOBAL uchar *out,
                                      AT_GLOBAL const uchar *in0, AT_GLOBAL const uchar *in1,
                                      AT_GLOBAL const uchar *in2)
{
    at_i64 row = AT_GROUP_Z * 65535 + AT_GROUP_Y, rows = a.n[0] * a.n[1] * a.n[2] * a.n[3] * a.n[4];
    if (row >= rows)
        return;
    at_i64 y = a.at[0] + at_row(a.n, a.stride[0], row), p = a.at[1] + at_row(a.n, a.stride[1], row);
    at_i64 q = a.at[2] + at_row(a.n, a.stride[2], row), r = a.at[3] + at_row(a.n, a.stride[3], row);
    at_i64 from = AT_GROUP_X * AT_STRETCH, to = from + AT_STRETCH < a.n[5] ? from + AT_STRETCH : a.n[5];
    for (at_i64 k = from + AT_ITEM; k < to; k += AT_ITEMS) {
        float v = 0.0f;
        if (a.op == AT_OP_ADD || a.op == AT_OP_MUL || a.op == AT_OP_SILU_MUL) {
            float s = at_load(in0, p + k * a.stride[1][5], a.type[1]);
            float t = at_load(in1, q + k * a.stride[2][5], a.type[2]);
            v = a.op == AT_OP_ADD ? s + t : a.op == AT_OP_MUL ? s * t : s / (1.0f + exp(-s)) * t;
        } else if (a.op == AT_OP_WHERE || a.op == AT_OP_SELECT) {
            int yes = at_load(in0, p + k * a.stride[1][5], a.type[1]) != 0.0f;
            if (yes)
                v = at_load(in1, q + k * a.stride[2][5], a.type[2]);
            else
                v = a.op == AT_OP_WHERE ? a.number : at_load(in2, r + k * a.stride[3][5], a.type[3]);
        } else {
            v = at_unary(a.op, at_load(in0, p + k * a.stride[1][5], a.type[1]), a.number);
        }
        at_store(out, y + k * a.stride[0][5], a.type[0], v);
    }
}

/* Bits of one size: size is 1, 2, 4 or 8 bytes, in type[0]. */
AT_KERNEL AT_GROUP(AT_ITEMS) void move(const struct at_k_map a, AT_GLOBAL uchar *out,
                                       AT_GLOBAL const uchar *in0)
{
    at_i64 row = AT_GROUP_Z * 65535 + AT_GROUP_Y, rows = a.n[0] * a.n[1] * a.n[2] * a.n[3] * a.n[4];
    if (row >= rows)
        return;
    at_i64 y = a.at[0] + at_row(a.n, a.stride[0], row), p = a.at[1] + at_row(a.n, a.stride[1], row);
    at_i64 from = AT_GROUP_X * AT_STRETCH, to = from + AT_STRETCH < a.n[5] ? from + AT_STRETCH : a.n[5];
    for (at_i64 k = from + AT_ITEM; k < to; k += AT_ITEMS) {
        at_i64 i = y + k * a.stride[0][5], j = p + k * a.stride[1][5];
        if (a.type[0] == 1)
            out[i] = in0[j];
        else if (a.type[0] == 2)
            ((AT_GLOBAL unsigned short *)out)[i] = ((AT_GLOBAL const unsigned short *)in0)[j];
        else if (a.type[0] == 4)
            ((AT_GLOBAL at_u32 *)out)[i] = ((AT_GLOBAL const at_u32 *)in0)[j];
        else
            ((AT_GLOBAL at_u64 *)out)[i] = ((AT_GLOBAL const at_u64 *)in0)[j];
    }
}

/* ---- along the last axis: a group has a row ---- */

#define AT_OP_SOFTMAX 0
#define AT_OP_RMS_NORM 1
#define AT_OP_LAYER_NORM 2

AT_FN float at_param(AT_GLOBAL const uchar *p, at_i64 at, int type, float absent)
{
    return type < 0 ? absent : at_load(p, at, type);
}

AT_KERNEL AT_GROUP(AT_ITEMS) void rows(const struct at_k_rows a, AT_GLOBAL uchar *out,
                                       AT_GLOBAL const uchar *in, AT_GLOBAL const uchar *weight,
                                       AT_GLOBAL const uchar *bias)
{
    AT_SHARED float red[AT_ITEMS];
    at_i64 y = a.at[0] + at_row(a.n, a.stride[0], AT_GROUP_X);
    at_i64 p = a.at[1] + at_row(a.n, a.stride[1], AT_GROUP_X), n = a.n[5];
    float first = a.op == AT_OP_SOFTMAX ? -AT_INF : 0.0f, mean = 0.0f, sum = 0.0f;
    for (at_i64 k = AT_ITEM; k < n; k += AT_ITEMS) {
        float x = at_load(in, p + k * a.stride[1][5], a.type[1]);
        if (a.op == AT_OP_SOFTMAX)
            first = fmax(first, x);
        else
            first += a.op == AT_OP_RMS_NORM ? x * x : x;
    }
    first = at_reduce(red, AT_ITEMS, first, a.op == AT_OP_SOFTMAX);
    if (a.op == AT_OP_LAYER_NORM)
        mean = first / (float)n;
    for (at_i64 k = AT_ITEM; k < n && a.op != AT_OP_RMS_NORM; k += AT_ITEMS) {
        float x = at_load(in, p + k * a.stride[1][5], a.type[1]);
        if (a.op == AT_OP_SOFTMAX)
            sum += x == -AT_INF ? 0.0f : exp(x - first);
        else
            sum += (x - mean) * (x - mean);
    }
    sum = at_reduce(red, AT_ITEMS, sum, 0);
    float by = a.op == AT_OP_SOFTMAX  ? (sum == 0.0f ? 0.0f : 1.0f / sum)
               : a.op == AT_OP_RMS_NORM ? 1.0f / sqrt(first / (float)n + a.eps)
                                        : 1.0f / sqrt(sum / (float)n + a.eps);
    for (at_i64 k = AT_ITEM; k < n; k += AT_ITEMS) {
        float x = at_load(in, p + k * a.stride[1][5], a.type[1]);
        if (a.op == AT_OP_SOFTMAX)
            x = by == 0.0f || x == -AT_INF ? 0.0f : exp(x - first) * by;
        else
            x = (x - mean) * by * at_param(weight, a.at[2] + k * a.step[0], a.type[2], 1.0f) +
                at_param(bias, a.at[3] + k * a.step[1], a.type[3], 0.0f);
        at_store(out, y + k * a.stride[0][5], a.type[0], x);
    }
}

/* ---- rows by position or index ---- */

AT_FN void at_bad_index(AT_GLOBAL struct at_k_status *status, int step, at_i64 place, at_i64 value,
                        at_i64 limit)
{
    if (at_take(&status->taken) != 0)
        return; /* another item was first */
    status->step = step;
    status->place = place;
    status->value = value;
    status->limit = limit;
}

/* Turns of a pair at position 1, in units of 2^-64, over a factor: in two parts, so that nothing is lost
 * that a position of 2^24 would show. */
AT_FN at_i64 at_divide_turns(at_i64 turns, float factor)
{
    float high = (float)turns, low = (float)(turns - (at_i64)high);
    float q = high / factor, rest = (fma(-q, factor, high) + low) / factor;
    q -= rint(q * 5.421010862427522e-20f) * 18446744073709551616.0f; /* whole turns */
    return (at_i64)((at_u64)(at_i64)(q * 0.5f) * 2 + (at_u64)(at_i64)rest);
}

/* A group has a row (b, h, s).  Angles are products of integers that wrap at whole turns. */
AT_KERNEL AT_GROUP(AT_ITEMS) void rope(const struct at_k_pick a, AT_GLOBAL uchar *out,
                                       AT_GLOBAL const uchar *in, AT_GLOBAL const uchar *positions,
                                       AT_GLOBAL const uchar *factors,
                                       AT_GLOBAL const uchar *frequency)
{
    at_i64 s = AT_GROUP_X % a.n[2], bh = AT_GROUP_X / a.n[2], h = bh % a.n[1], b = bh / a.n[1];
    at_i64 y = a.out_at + b * a.out[0] + h * a.out[1] + s * a.out[2];
    at_i64 x = a.in_at + b * a.in[0] + h * a.in[1] + s * a.in[2];
    at_i32 pos = ((AT_GLOBAL const at_i32 *)positions)[a.index_at + b * a.index[0] + s * a.index[1]];
    int pairs = a.dims / 2;
    for (int p = AT_ITEM; p < pairs; p += AT_ITEMS) {
        AT_GLOBAL const at_i64 *turns = (AT_GLOBAL const at_i64 *)(frequency + a.limit);
        int c = a.half_pairs ? p : 2 * p, d = a.half_pairs ? p + pairs : 2 * p + 1;
        at_i64 turn = turns[p];
        if (a.has_extra)
            turn = at_divide_turns(turn, at_load(factors, a.extra_at + p * a.extra[0], AT_F32));
        turn = (at_i64)((at_u64)(at_i64)pos * (at_u64)turn);
        float angle = (float)turn * 3.4061215800304597e-19f; /* 2 pi / 2^64 */
        float co = cos(angle), si = sin(angle);
        float u = at_load(in, x + c * a.in[3], a.in_type), v = at_load(in, x + d * a.in[3], a.in_type);
        at_store(out, y + c * a.out[3], a.out_type, u * co - v * si);
        at_store(out, y + d * a.out[3], a.out_type, u * si + v * co);
    }
    for (at_i64 c = a.dims + AT_ITEM; c < a.n[3]; c += AT_ITEMS)
        at_store(out, y + c * a.out[3], a.out_type, at_load(in, x + c * a.in[3], a.in_type));
}

AT_KERNEL AT_GROUP(AT_ITEMS) void gather(const struct at_k_pick a, AT_GLOBAL uchar *out,
                                         AT_GLOBAL const uchar *table, AT_GLOBAL const uchar *index,
                                         AT_GLOBAL struct at_k_status *status)
{
    at_i64 at = a.index_at, y = a.out_at + at_row(a.out_n, a.out_stride, AT_GROUP_X), rest = AT_GROUP_X;
    for (int d = 5; d >= 0; d--) {
        at += rest % a.index_n[d] * a.index_stride[d];
        rest /= a.index_n[d];
    }
    at_i32 row = ((AT_GLOBAL const at_i32 *)index)[at];
    if (row < 0 || row >= a.limit) {
        if (AT_ITEM == 0)
            at_bad_index(status, a.step, AT_GROUP_X, row, a.limit);
        return;
    }
    for (int d = AT_ITEM; d < a.n[3]; d += AT_ITEMS)
        at_store(out, y + d, a.out_type,
                 at_channel(table, a.in_at + row * a.in[2], d, a.in_type));
}

/* ---- append: a group has a row (b, g, s) ---- */

AT_FN int at_step_of(float x, float scale, int lo, int hi)
{
    float q = scale != 0.0f && scale == scale ? x / scale : 0.0f;
    return (int)rint(fmin(fmax(q, (float)lo), (float)hi));
}

/* Channels [d, d + 32) as a block, zero-padded; x: elements of the row. */
AT_FN void at_put_block(AT_GLOBAL uchar *to, int type, AT_GLOBAL const uchar *in, at_i64 x,
                        at_i64 step, int in_type, int n)
{
    float top = 0.0f, low = AT_INF, high = -AT_INF;
    int finite = 1;
    for (int e = 0; e < 32; e++) {
        float v = e < n ? at_load(in, x + e * step, in_type) : 0.0f;
        finite = finite && fabs(v) < AT_INF;
        if (type == AT_Q8_0)
            top = fmax(top, fabs(v));
        else if (fabs(v) > fabs(top))
            top = v;
        low = fmin(low, v);
        high = fmax(high, v);
    }
    float d = type == AT_Q8_0 ? top / 127.0f : top / -8.0f;
    at_put_half(to, 0, d);
    if (!finite || !(fabs(at_half(to, 0)) < AT_INF))
        ((AT_GLOBAL unsigned short *)to)[0] = 0x7e00;
    d = at_half(to, 0);
    for (int e = 0; e < 16; e++) {
        float u = e < n ? at_load(in, x + e * step, in_type) : 0.0f;
        float v = e + 16 < n ? at_load(in, x + (e + 16) * step, in_type) : 0.0f;
        if (type == AT_Q8_0) {
            ((AT_GLOBAL at_i8 *)to)[2 + e] = (at_i8)at_step_of(u, d, -127, 127);
            ((AT_GLOBAL at_i8 *)to)[18 + e] = (at_i8)at_step_of(v, d, -127, 127);
        } else {
            to[2 + e] = (uchar)((at_step_of(u, d, -8, 7) + 8) | (at_step_of(v, d, -8, 7) + 8) << 4);
        }
    }
}

AT_KERNEL AT_GROUP(AT_ITEMS) void append(const struct at_k_pick a, AT_GLOBAL uchar *out,
                                         AT_GLOBAL const uchar *in, AT_GLOBAL const uchar *slots,
                                         AT_GLOBAL const uchar *scale,
                                         AT_GLOBAL struct at_k_status *status)
{
    at_i64 s = AT_GROUP_X % a.n[2], bg = AT_GROUP_X / a.n[2], g = bg % a.n[1], b = bg / a.n[1];
    at_i64 x = a.in_at + b * a.in[0] + g * a.in[1] + s * a.in[2];
    at_i32 slot = ((AT_GLOBAL const at_i32 *)slots)[a.index_at + b * a.index[0] + s * a.index[1]];
    if (slot == -1)
        return;
    if (slot < 0 || slot >= a.limit) {
        if (AT_ITEM == 0)
            at_bad_index(status, a.step, b * a.n[2] + s, slot, a.limit);
        return;
    }
    at_i64 page = slot / a.page, y = a.out_at + page * a.out[0] + g * a.out[1] + slot % a.page * a.out[2];
    int n = (int)a.n[3];
    if (a.out_type == AT_Q8_0 || a.out_type == AT_Q4_0) {
        int size = a.out_type == AT_Q8_0 ? 34 : 18;
        for (int k = AT_ITEM; k * 32 < n; k += AT_ITEMS)
            at_put_block(out + (y + k) * size, a.out_type, in, x + k * 32 * a.in[3], a.in[3], a.in_type,
                         n - k * 32);
        return;
    }
    float by = 1.0f;
    if (a.has_extra)
        by = at_load(scale, a.extra_at + page * a.extra[0] + g * a.extra[1], AT_F32);
    for (int d = AT_ITEM; d < n; d += AT_ITEMS) {
        float v = at_load(in, x + d * a.in[3], a.in_type);
        at_store(out, y + d * a.out[3], a.out_type, a.has_extra ? v / by : v);
    }
}

/* ---- merge: a group has a row ---- */

AT_KERNEL AT_GROUP(AT_ITEMS) void merge(const struct at_k_merge a, AT_GLOBAL uchar *out,
                                        AT_GLOBAL uchar *lse, AT_GLOBAL const uchar *o1,
                                        AT_GLOBAL const uchar *l1, AT_GLOBAL const uchar *o2,
                                        AT_GLOBAL const uchar *l2)
{
    at_i64 r = AT_GROUP_X;
    float x = at_load(l1, a.lse_at[1] + at_row(a.n, a.lse[1], r), AT_F32);
    float z = at_load(l2, a.lse_at[2] + at_row(a.n, a.lse[2], r), AT_F32);
    float top = x > z || x != x ? x : z;
    int none = top == -AT_INF;
    float wx = none ? 0.0f : exp(x - top), wz = none ? 0.0f : exp(z - top), sum = wx + wz;
    if (a.has_lse && AT_ITEM == 0)
        at_store(lse, a.lse_at[0] + at_row(a.n, a.lse[0], r), AT_F32, none ? -AT_INF : top + log(sum));
    at_i64 y = a.o_at[0] + at_row(a.n, a.o[0], r), p = a.o_at[1] + at_row(a.n, a.o[1], r),
           q = a.o_at[2] + at_row(a.n, a.o[2], r);
    for (at_i64 d = AT_ITEM; d < a.n[5]; d += AT_ITEMS) {
        float one = wx != 0.0f ? wx * at_load(o1, p + d * a.o[1][5], AT_F32) : 0.0f;
        float two = wz != 0.0f ? wz * at_load(o2, q + d * a.o[2][5], AT_F32) : 0.0f;
        at_store(out, y + d * a.o[0][5], AT_F32, none ? 0.0f : (one + two) / sum);
    }
}
