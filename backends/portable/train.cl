/* SPDX-License-Identifier: MIT */
/* The operators of training, as lib/ref_grad.c has them; ops.cl comes before.  No sum is taken by atomics:
 * who writes a sum takes it, in one order, so results depend on nothing but their inputs. */

/* ---- elementwise: the derivatives of functions, and what is as simple ---- */

#define AT_T_SILU 0
#define AT_T_GELU 1
#define AT_T_GELU_TANH 2
#define AT_T_TANH 3
#define AT_T_SIGMOID 4
#define AT_T_RELU 5
#define AT_T_ERF 6
#define AT_T_POW 7
#define AT_T_SQUARES 8 /* (in0 - in1) in2 number: of the mean of squares */
#define AT_T_CLIP 9    /* of a sum of squares: what makes their norm at most number */
#define AT_T_FILL 10

AT_FN float at_sigmoid(float a)
{
    return 1.0f / (1.0f + exp(-a));
}

AT_FN float at_slope(int op, float a, float number)
{
    float s, t;
    switch (op) {
    case AT_T_SILU:
        s = at_sigmoid(a);
        return s * (1.0f + a * at_sigmoid(-a));
    case AT_T_GELU:
        return 0.5f * erfc(-a * 0.70710678f) + a * 0.39894228f * exp(-0.5f * a * a);
    case AT_T_GELU_TANH:
        t = tanh(0.79788456f * (a + 0.044715f * a * a * a));
        return 0.5f * (1.0f + t) +
               0.5f * a * (1.0f - t * t) * 0.79788456f * (1.0f + 0.134145f * a * a);
    case AT_T_TANH:
        t = tanh(a);
        return 1.0f - t * t;
    case AT_T_SIGMOID:
        return at_sigmoid(a) * at_sigmoid(-a);
    case AT_T_RELU:
        return a > 0.0f ? 1.0f : 0.0f;
    case AT_T_ERF:
        return 1.1283792f * exp(-a * a);
    default:
        return number == 0.0f ? 0.0f : number * pow(a, number - 1.0f);
    }
}

/* x: stretch of the row; y, z: the row. */
AT_KERNEL AT_GROUP(AT_ITEMS) void train_map(const struct at_k_map a, AT_GLOBAL uchar *out,
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
        float v = a.number;
        if (a.op != AT_T_FILL)
            v = at_load(in0, p + k * a.stride[1][5], a.type[1]);
        if (a.op == AT_T_SQUARES)
            v = (v - at_load(in1, q + k * a.stride[2][5], a.type[2])) * a.number *
                at_load(in2, r + k * a.stride[3][5], a.type[3]);
        else if (a.op == AT_T_CLIP)
            v = sqrt(v) > a.number ? a.number / sqrt(v) : 1.0f;
        else if (a.op != AT_T_FILL)
            v = at_slope(a.op, v, a.number) * at_load(in1, q + k * a.stride[2][5], a.type[2]);
        at_store(out, y + k * a.stride[0][5], a.type[0], v);
    }
}

/* ---- optimisers: w, and its moments, in place ---- */

AT_FN float at_number(AT_GLOBAL const uchar *p, at_i64 at, int has)
{
    return has ? at_load(p, at, AT_F32) : 1.0f;
}

AT_KERNEL AT_GROUP(AT_ITEMS) void update(const struct at_k_update a, AT_GLOBAL float *w, AT_GLOBAL float *m,
                                         AT_GLOBAL float *v, AT_GLOBAL const float *g,
                                         AT_GLOBAL const uchar *rates, AT_GLOBAL const uchar *steps,
                                         AT_GLOBAL const uchar *factors)
{
    at_i64 row = AT_GROUP_Z * 65535 + AT_GROUP_Y, rows = a.n[0] * a.n[1] * a.n[2] * a.n[3] * a.n[4];
    if (row >= rows)
        return;
    at_i64 wi = a.at[0] + at_row(a.n, a.stride[0], row), mi = a.at[1] + at_row(a.n, a.stride[1], row);
    at_i64 vi = a.at[2] + at_row(a.n, a.stride[2], row), gi = a.at[3] + at_row(a.n, a.stride[3], row);
    float rate = at_number(rates, a.at[4], 1), factor = at_number(factors, a.at[6], a.has_factor);
    float c1 = 1.0f, c2 = 1.0f;
    if (a.adam) { /* 1 - beta^t, where beta is near 1 */
        float t = at_number(steps, a.at[5], 1);
        c1 = -1.0f / expm1(t * a.log1), c2 = -1.0f / expm1(t * a.log2);
    }
    at_i64 from = AT_GROUP_X * AT_STRETCH, to = from + AT_STRETCH < a.n[5] ? from + AT_STRETCH : a.n[5];
    for (at_i64 k = from + AT_ITEM; k < to; k += AT_ITEMS) {
        at_i64 wk = wi + k * a.stride[0][5], mk = mi + k * a.stride[1][5], vk = vi + k * a.stride[2][5];
        float x = w[wk], d = g[gi + k * a.stride[3][5]] * factor, step;
        if (a.adam) {
            float mt = fma(a.beta1, m[mk], a.rest1 * d), vt = fma(a.beta2, v[vk], a.rest2 * d * d);
            m[mk] = mt;
            v[vk] = vt;
            step = mt * c1 / (sqrt(vt * c2) + a.eps) + a.decay * x;
        } else {
            step = fma(a.decay, x, d);
            if (a.has_m) {
                step = fma(a.momentum, m[mk], step);
                m[mk] = step;
            }
        }
        w[wk] = fma(-rate, step, x);
    }
}

/* ---- along the last axis: a group has a row ---- */

#define AT_TRAIN_PARAMS                                                                            \
    AT_GLOBAL uchar *out, AT_GLOBAL const uchar *in0, AT_GLOBAL const uchar *in1,                  \
        AT_GLOBAL const uchar *in2, AT_GLOBAL uchar *work, AT_GLOBAL struct at_k_status *status

/* Where tensor t (out, then inputs) has the group's row. */
#define AT_ROW_OF(t) (a.at[t] + at_row(a.n, a.stride[t], AT_GROUP_X))
#define AT_LOAD(p, t, row, k) at_load(p, (row) + (k) * a.stride[t][5], a.type[t])

/* rowsum(dO O) - dLSE */
AT_KERNEL AT_GROUP(AT_ITEMS) void delta(const struct at_k_train a, AT_TRAIN_PARAMS)
{
    AT_SHARED float red[AT_ITEMS];
    at_i64 p = AT_ROW_OF(1), q = AT_ROW_OF(2);
    float sum = 0.0f;
    for (at_i64 k = AT_ITEM; k < a.n[5]; k += AT_ITEMS)
        sum = fma(AT_LOAD(in0, 1, p, k), AT_LOAD(in1, 2, q, k), sum);
    sum = at_reduce(red, AT_ITEMS, sum, 0);
    if (AT_ITEM > 0)
        return;
    if (a.op)
        sum -= at_load(in2, AT_ROW_OF(3), a.type[3]);
    at_store(out, AT_ROW_OF(0), a.type[0], sum);
}

/* y (dy - sum y dy), y the result of softmax */
AT_KERNEL AT_GROUP(AT_ITEMS) void softmax_grad(const struct at_k_train a, AT_TRAIN_PARAMS)
{
    AT_SHARED float red[AT_ITEMS];
    at_i64 y = AT_ROW_OF(0), p = AT_ROW_OF(1), q = AT_ROW_OF(2);
    float sum = 0.0f;
    for (at_i64 k = AT_ITEM; k < a.n[5]; k += AT_ITEMS)
        sum = fma(AT_LOAD(in0, 1, p, k), AT_LOAD(in1, 2, q, k), sum);
    sum = at_reduce(red, AT_ITEMS, sum, 0);
    for (at_i64 k = AT_ITEM; k < a.n[5]; k += AT_ITEMS)
        at_store(out, y + k * a.stride[0][5], a.type[0],
                 AT_LOAD(in0, 1, p, k) * (AT_LOAD(in1, 2, q, k) - sum));
}

/* Of out = w o1 + ..., LSE = ln(e^lse1 + ...), w = e^(lse1 - LSE): do1 = w dO, dlse1 = w (dLSE + dO . (o1 - O)). */
AT_KERNEL AT_GROUP(AT_ITEMS) void merge_grad(
    const struct at_k_merge a, AT_GLOBAL uchar *out, AT_GLOBAL uchar *lse, AT_GLOBAL const uchar *o1,
    AT_GLOBAL const uchar *l1, AT_GLOBAL const uchar *o, AT_GLOBAL const uchar *l,
    AT_GLOBAL const uchar *dout, AT_GLOBAL const uchar *dlse)
{
    AT_SHARED float red[AT_ITEMS];
    at_i64 r = AT_GROUP_X, y = a.o_at[0] + at_row(a.n, a.o[0], r), p = a.o_at[1] + at_row(a.n, a.o[1], r);
    at_i64 q = a.o_at[2] + at_row(a.n, a.o[2], r), g = a.o_at[3] + at_row(a.n, a.o[3], r);
    float x = at_load(l1, a.lse_at[1] + at_row(a.n, a.lse[1], r), AT_F32), w = 0.0f, sum = 0.0f;
    if (x != -AT_INF)
        w = exp(x - at_load(l, a.lse_at[2] + at_row(a.n, a.lse[2], r), AT_F32));
    for (at_i64 d = AT_ITEM; d < a.n[5]; d += AT_ITEMS) {
        float by = w == 0.0f ? 0.0f : at_load(dout, g + d * a.o[3][5], AT_F32);
        if (w != 0.0f)
            sum = fma(by, at_load(o1, p + d * a.o[1][5], AT_F32) - at_load(o, q + d * a.o[2][5], AT_F32), sum);
        if (a.has_o)
            at_store(out, y + d * a.o[0][5], AT_F32, w * by);
    }
    sum = at_reduce(red, AT_ITEMS, sum, 0);
    if (a.has_dlse)
        sum += at_load(dlse, a.lse_at[3] + at_row(a.n, a.lse[3], r), AT_F32);
    if (a.has_lse && AT_ITEM == 0)
        at_store(lse, a.lse_at[0] + at_row(a.n, a.lse[0], r), AT_F32, w == 0.0f ? 0.0f : w * sum);
}

/* With z = (x - mean) / d, d^2 = variance + eps, and t = dy weight: (t - mean t - z mean(t z)) / d; op:
 * without centring neither mean is taken away.  work: mean and 1 / d of each row, for norm_weight. */
AT_KERNEL AT_GROUP(AT_ITEMS) void norm_grad(const struct at_k_train a, AT_TRAIN_PARAMS)
{
    AT_SHARED float red[AT_ITEMS];
    at_i64 y = AT_ROW_OF(0), p = AT_ROW_OF(1), q = AT_ROW_OF(3);
    float mean = 0.0f, square = 0.0f, t1 = 0.0f, tz = 0.0f, n = (float)a.n[5];
    for (at_i64 k = AT_ITEM; k < a.n[5] && a.op; k += AT_ITEMS)
        mean += AT_LOAD(in0, 1, p, k);
    mean = a.op ? at_reduce(red, AT_ITEMS, mean, 0) / n : 0.0f;
    for (at_i64 k = AT_ITEM; k < a.n[5]; k += AT_ITEMS) {
        float x = AT_LOAD(in0, 1, p, k) - mean;
        square = fma(x, x, square);
    }
    float by = 1.0f / sqrt(at_reduce(red, AT_ITEMS, square, 0) / n + a.number);
    for (at_i64 k = AT_ITEM; k < a.n[5]; k += AT_ITEMS) {
        float t = AT_LOAD(in2, 3, q, k) * at_param(in1, a.at[2] + k * a.stride[2][5], a.type[2], 1.0f);
        t1 += t;
        tz = fma(t, (AT_LOAD(in0, 1, p, k) - mean) * by, tz);
    }
    t1 = a.op ? at_reduce(red, AT_ITEMS, t1, 0) / n : 0.0f;
    tz = at_reduce(red, AT_ITEMS, tz, 0) / n;
    for (at_i64 k = AT_ITEM; k < a.n[5]; k += AT_ITEMS) {
        float t = AT_LOAD(in2, 3, q, k) * at_param(in1, a.at[2] + k * a.stride[2][5], a.type[2], 1.0f);
        at_store(out, y + k * a.stride[0][5], a.type[0],
                 (t - t1 - (AT_LOAD(in0, 1, p, k) - mean) * by * tz) * by);
    }
    if (AT_ITEM == 0) {
        AT_GLOBAL float *stats = (AT_GLOBAL float *)(work + a.work) + 2 * AT_GROUP_X;
        stats[0] = mean;
        stats[1] = by;
    }
}

#define AT_COLUMNS 64 /* that a group sums */
#define AT_RUN 64     /* terms of a sum that are added up before they join it */

/* sum over rows of dy z, with the strides that norm_grad had, but for out. */
AT_KERNEL AT_GROUP(AT_ITEMS) void norm_weight(const struct at_k_train a, AT_TRAIN_PARAMS)
{
    at_i64 rows = a.n[0] * a.n[1] * a.n[2] * a.n[3] * a.n[4];
    at_i64 from = AT_GROUP_X * AT_COLUMNS, to = from + AT_COLUMNS < a.n[5] ? from + AT_COLUMNS : a.n[5];
    AT_GLOBAL const float *stats = (AT_GLOBAL const float *)(work + a.work);
    for (at_i64 k = from + AT_ITEM; k < to; k += AT_ITEMS) {
        float all = 0.0f;
        for (at_i64 r0 = 0; r0 < rows; r0 += AT_RUN) {
            float sum = 0.0f;
            for (at_i64 r = r0; r < rows && r < r0 + AT_RUN; r++) {
                at_i64 p = a.at[1] + at_row(a.n, a.stride[1], r), q = a.at[3] + at_row(a.n, a.stride[3], r);
                sum = fma(AT_LOAD(in2, 3, q, k), (AT_LOAD(in0, 1, p, k) - stats[2 * r]) * stats[2 * r + 1],
                          sum);
            }
            all += sum;
        }
        at_store(out, a.at[0] + k * a.stride[0][5], a.type[0], all);
    }
}

/* ---- sums: n is the shape of what is summed into one element, stride[2] its strides ---- */

#define AT_SUM_OF_SQUARES 1

AT_FN float at_term(float x, int op)
{
    return op == AT_SUM_OF_SQUARES ? x * x : x;
}

/* The last axis goes: a group sums for one element. */
AT_KERNEL AT_GROUP(AT_ITEMS) void sum_rows(const struct at_k_sum a, AT_GLOBAL uchar *out,
                                           AT_GLOBAL const uchar *in)
{
    AT_SHARED float red[AT_ITEMS];
    at_i64 y = a.at[0] + at_row(a.m, a.out, AT_GROUP_X), p = a.at[1] + at_row(a.m, a.from, AT_GROUP_X);
    at_i64 rows = a.n[0] * a.n[1] * a.n[2] * a.n[3] * a.n[4];
    float all = 0.0f;
    for (at_i64 r = 0; r < rows; r++) {
        at_i64 q = p + at_row(a.n, a.each, r);
        float some = 0.0f;
        for (at_i64 k0 = 0; k0 < a.n[5]; k0 += AT_RUN * AT_ITEMS) {
            float sum = 0.0f;
            for (at_i64 k = k0 + AT_ITEM; k < a.n[5] && k < k0 + AT_RUN * AT_ITEMS; k += AT_ITEMS)
                sum += at_term(at_load(in, q + k * a.each[5], a.type[1]), a.op);
            some += sum;
        }
        all += some;
    }
    all = at_reduce(red, AT_ITEMS, all, 0);
    if (AT_ITEM == 0)
        at_store(out, y, a.type[0], all * a.by);
}

/* The last axis stays: a group sums for some of its elements. */
AT_KERNEL AT_GROUP(AT_ITEMS) void sum_columns(const struct at_k_sum a, AT_GLOBAL uchar *out,
                                              AT_GLOBAL const uchar *in)
{
    at_i64 y = a.at[0] + at_row(a.m, a.out, AT_GROUP_Y), p = a.at[1] + at_row(a.m, a.from, AT_GROUP_Y);
    at_i64 rows = a.n[0] * a.n[1] * a.n[2] * a.n[3] * a.n[4];
    at_i64 from = AT_GROUP_X * AT_COLUMNS, to = from + AT_COLUMNS < a.m[5] ? from + AT_COLUMNS : a.m[5];
    for (at_i64 k = from + AT_ITEM; k < to; k += AT_ITEMS) {
        float all = 0.0f;
        for (at_i64 r0 = 0; r0 < rows; r0 += AT_RUN) {
            float sum = 0.0f;
            for (at_i64 r = r0; r < rows && r < r0 + AT_RUN; r++)
                sum += at_term(at_load(in, p + at_row(a.n, a.each, r) + k * a.from[5], a.type[1]), a.op);
            all += sum;
        }
        at_store(out, y + k * a.out[5], a.type[0], all * a.by);
    }
}

/* ---- losses ---- */

/* ln sum exp of the group's row, which begins at p; every item gets it. */
AT_FN float at_row_lse(const struct at_k_train *a, AT_LOCAL float *red, AT_GLOBAL const uchar *in, at_i64 p)
{
    float top = -AT_INF, sum = 0.0f;
    for (at_i64 k = AT_ITEM; k < a->n[5]; k += AT_ITEMS)
        top = fmax(top, at_load(in, p + k * a->stride[1][5], a->type[1]));
    top = at_reduce(red, AT_ITEMS, top, 1);
    for (at_i64 k = AT_ITEM; k < a->n[5]; k += AT_ITEMS)
        sum += exp(at_load(in, p + k * a->stride[1][5], a->type[1]) - top);
    return top + log(at_reduce(red, AT_ITEMS, sum, 0));
}

#define AT_TARGET(r) (((AT_GLOBAL const at_i32 *)in1)[a.at[2] + at_row(a.n, a.stride[2], r)])

/* The loss of each row, to work: in0 are logits, in1 targets; op: squares of in0 - in1 instead. */
AT_KERNEL AT_GROUP(AT_ITEMS) void row_loss(const struct at_k_train a, AT_TRAIN_PARAMS)
{
    AT_SHARED float red[AT_ITEMS];
    at_i64 p = AT_ROW_OF(1), q = AT_ROW_OF(2);
    AT_GLOBAL float *loss = (AT_GLOBAL float *)(work + a.work) + AT_GROUP_X;
    float x = 0.0f;
    if (a.op) {
        for (at_i64 k = AT_ITEM; k < a.n[5]; k += AT_ITEMS) {
            float d = AT_LOAD(in0, 1, p, k) - AT_LOAD(in1, 2, q, k);
            x = fma(d, d, x);
        }
        x = at_reduce(red, AT_ITEMS, x, 0);
    } else {
        at_i32 target = AT_TARGET(AT_GROUP_X);
        if (target >= a.n[5] && AT_ITEM == 0)
            at_bad_index(status, a.step, AT_GROUP_X, target, a.n[5]);
        x = at_row_lse(&a, red, in0, p);
        x = target < 0 || target >= a.n[5] ? 0.0f : x - AT_LOAD(in0, 1, p, target);
    }
    if (AT_ITEM == 0)
        *loss = x;
}

/* One group: how many targets there are, after the losses in work. */
AT_KERNEL AT_GROUP(AT_ITEMS) void count_targets(const struct at_k_train a, AT_TRAIN_PARAMS)
{
    AT_SHARED float red[AT_ITEMS];
    at_i64 rows = a.n[0] * a.n[1] * a.n[2] * a.n[3] * a.n[4];
    float n = 0.0f; /* exact up to 2^24 rows an item */
    for (at_i64 r = AT_ITEM; r < rows; r += AT_ITEMS)
        n += AT_TARGET(r) >= 0 ? 1.0f : 0.0f;
    n = at_reduce(red, AT_ITEMS, n, 0);
    if (AT_ITEM == 0)
        ((AT_GLOBAL float *)(work + a.work))[rows] = n;
}

/* One group: the mean of the losses in work; op: over all elements, number of them, instead. */
AT_KERNEL AT_GROUP(AT_ITEMS) void mean_loss(const struct at_k_train a, AT_TRAIN_PARAMS)
{
    AT_SHARED float red[AT_ITEMS];
    at_i64 rows = a.n[0] * a.n[1] * a.n[2] * a.n[3] * a.n[4];
    AT_GLOBAL const float *loss = (AT_GLOBAL const float *)(work + a.work);
    float all = 0.0f;
    for (at_i64 r0 = 0; r0 < rows; r0 += AT_RUN * AT_ITEMS) {
        float sum = 0.0f;
        for (at_i64 r = r0 + AT_ITEM; r < rows && r < r0 + AT_RUN * AT_ITEMS; r += AT_ITEMS)
            sum += loss[r];
        all += sum;
    }
    all = at_reduce(red, AT_ITEMS, all, 0);
    float n = a.op ? a.number : loss[rows];
    if (AT_ITEM == 0)
        at_store(out, a.at[0], a.type[0], n > 0.0f ? all / n : 0.0f);
}

/* (softmax - 1 at the target) times in2, over how many targets there are. */
AT_KERNEL AT_GROUP(AT_ITEMS) void cross_entropy_grad(const struct at_k_train a, AT_TRAIN_PARAMS)
{
    AT_SHARED float red[AT_ITEMS];
    at_i64 y = AT_ROW_OF(0), p = AT_ROW_OF(1), rows = a.n[0] * a.n[1] * a.n[2] * a.n[3] * a.n[4];
    at_i32 target = AT_TARGET(AT_GROUP_X);
    float n = ((AT_GLOBAL const float *)(work + a.work))[rows], lse = at_row_lse(&a, red, in0, p);
    float by = at_load(in2, a.at[3], a.type[3]) / fmax(n, 1.0f);
    for (at_i64 k = AT_ITEM; k < a.n[5]; k += AT_ITEMS) {
        float x = exp(AT_LOAD(in0, 1, p, k) - lse);
        at_store(out, y + k * a.stride[0][5], a.type[0],
                 target < 0 ? 0.0f : (k == target ? x - 1.0f : x) * by);
    }
}

/* ---- gather: a group has a row of the table ---- */

/* n[0..4] and stride[1] are of the index as rows of one, stride[2] of in1 = dy, stride[0] of the table. */
AT_KERNEL AT_GROUP(AT_ITEMS) void gather_grad(const struct at_k_train a, AT_TRAIN_PARAMS)
{
    AT_GLOBAL float *y = (AT_GLOBAL float *)out + a.at[0] + AT_GROUP_X * a.stride[0][4];
    AT_GLOBAL const at_i32 *index = (AT_GLOBAL const at_i32 *)in0;
    at_i64 outer = a.n[0] * a.n[1] * a.n[2] * a.n[3], r = 0;
    for (at_i64 k = AT_ITEM; k < a.n[5]; k += AT_ITEMS)
        y[k * a.stride[0][5]] = 0.0f;
    for (at_i64 o = 0; o < outer; o++) {
        at_i64 from = a.at[1] + at_row(a.n, a.stride[1], o * a.n[4]);
        for (at_i64 e = 0; e < a.n[4]; e++, r++) {
            at_i32 to = index[from + e * a.stride[1][4]];
            if (to != AT_GROUP_X) {
                if (AT_GROUP_X == 0 && AT_ITEM == 0 && (to < 0 || to >= (at_i64)a.op))
                    at_bad_index(status, a.step, r, to, a.op);
                continue;
            }
            at_i64 q = a.at[2] + at_row(a.n, a.stride[2], r);
            for (at_i64 k = AT_ITEM; k < a.n[5]; k += AT_ITEMS)
                y[k * a.stride[0][5]] += AT_LOAD(in1, 2, q, k);
        }
    }
}
