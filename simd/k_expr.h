/* SPDX-License-Identifier: MIT */
/* Programs of expressions (expr.h) over a block of scores: every step is a pass over rows that lie
 * in L1.  The loops are plain C in a shape that compilers make vectors of: whole sixteens, nothing
 * aliased; functions come from the vocabulary.  What lies behind the last value of a row is
 * computed too and never looked at; leaves and spreads see to it that it is something. */
#ifndef AT_K_EXPR_H
#define AT_K_EXPR_H

#include "../lib/element.h"
#include "../lib/expr.h"
#include "k_math.h"

/* dst, pa and pb as rows of n values, a multiple of 16. */
#define ROWS(D, T)                                                                                 \
    D *restrict d = dst;                                                                           \
    const T *restrict a = pa, *restrict b = pb;                                                    \
    (void)a, (void)b
#define EACH(D, T, value)                                                                          \
    {                                                                                              \
        ROWS(D, T);                                                                                \
        for (int c = 0; c < n; c += 16)                                                            \
            for (int e = c; e < c + 16; e++)                                                       \
                d[e] = (value);                                                                    \
    }                                                                                              \
    break

static void step_i32(int op, void *restrict dst, const void *restrict pa, const void *restrict pb,
                     int n)
{
    switch (op) { /* nothing here wraps: the range was proved when the program was made */
    case AT_X_NEG:
        EACH(int32_t, int32_t, (int32_t)(0 - (uint32_t)a[e]));
    case AT_X_ABS:
        EACH(int32_t, int32_t, a[e] < 0 ? (int32_t)(0 - (uint32_t)a[e]) : a[e]);
    case AT_X_NOT:
        EACH(int32_t, int32_t, !a[e]);
    case AT_X_TO_FLOAT:
        EACH(float, int32_t, (float)a[e]);
    case AT_X_ADD:
        EACH(int32_t, int32_t, (int32_t)((uint32_t)a[e] + (uint32_t)b[e]));
    case AT_X_SUB:
        EACH(int32_t, int32_t, (int32_t)((uint32_t)a[e] - (uint32_t)b[e]));
    case AT_X_MUL:
        EACH(int32_t, int32_t, (int32_t)((uint32_t)a[e] * (uint32_t)b[e]));
    case AT_X_MIN:
        EACH(int32_t, int32_t, a[e] < b[e] ? a[e] : b[e]);
    case AT_X_MAX:
        EACH(int32_t, int32_t, a[e] > b[e] ? a[e] : b[e]);
    case AT_X_LT:
        EACH(int32_t, int32_t, a[e] < b[e]);
    case AT_X_LE:
        EACH(int32_t, int32_t, a[e] <= b[e]);
    case AT_X_EQ:
        EACH(int32_t, int32_t, a[e] == b[e]);
    case AT_X_AND:
        EACH(int32_t, int32_t, a[e] & b[e]);
    case AT_X_OR:
        EACH(int32_t, int32_t, a[e] | b[e]);
    case AT_V_WIDEN:
        EACH(int64_t, int32_t, a[e]);
    default:
        break;
    }
}

static void step_i64(int op, void *restrict dst, const void *restrict pa, const void *restrict pb,
                     int n)
{
    switch (op) {
    case AT_X_NEG:
        EACH(int64_t, int64_t, (int64_t)(0 - (uint64_t)a[e]));
    case AT_X_ABS:
        EACH(int64_t, int64_t, a[e] < 0 ? (int64_t)(0 - (uint64_t)a[e]) : a[e]);
    case AT_X_TO_FLOAT:
        EACH(float, int64_t, (float)a[e]);
    case AT_X_ADD:
        EACH(int64_t, int64_t, (int64_t)((uint64_t)a[e] + (uint64_t)b[e]));
    case AT_X_SUB:
        EACH(int64_t, int64_t, (int64_t)((uint64_t)a[e] - (uint64_t)b[e]));
    case AT_X_MUL:
        EACH(int64_t, int64_t, (int64_t)((uint64_t)a[e] * (uint64_t)b[e]));
    case AT_X_MIN:
        EACH(int64_t, int64_t, a[e] < b[e] ? a[e] : b[e]);
    case AT_X_MAX:
        EACH(int64_t, int64_t, a[e] > b[e] ? a[e] : b[e]);
    case AT_X_LT:
        EACH(int32_t, int64_t, a[e] < b[e]);
    case AT_X_LE:
        EACH(int32_t, int64_t, a[e] <= b[e]);
    case AT_X_EQ:
        EACH(int32_t, int64_t, a[e] == b[e]);
    default: /* quotients, one by one */
        EACH(int64_t, int64_t, at_expr_int_op((enum at_expr_op)op, a[e], b[e]));
    }
}

/* Floored quotients of I32: a quotient of doubles is exact enough to be cut to the right integer,
 * which is one too high where the signs differ and something is left. */
static void divide_i32(int op, void *restrict dst, const void *restrict pa, const void *restrict pb,
                       int n)
{
    ROWS(int32_t, int32_t);
    for (int c = 0; c < n; c += 16)
        for (int e = c; e < c + 16; e++) {
            int32_t by = b[e] == 0 ? 1 : b[e];
            int32_t q = (int32_t)((double)a[e] / (double)by);
            int32_t left = (int32_t)((uint32_t)a[e] - (uint32_t)q * (uint32_t)by);
            int32_t low = left != 0 && (left ^ by) < 0;
            int32_t r = op == AT_X_DIV ? q - low : left + (low ? by : 0);
            d[e] = b[e] == 0 ? 0 : r;
        }
}

/* ln x = k ln 2 + ln m, m in [sqrt(1/2), sqrt(2)): ln m = 2 atanh(s), s = (m - 1) / (m + 1), by
 * its series, which ends below 1e-9 of it. */
INLINE float log_of(float x)
{
    union {
        float f;
        int32_t i;
    } m = {.f = x < 0x1p-126f ? x * 0x1p23f : x};
    int32_t k = (int32_t)((uint32_t)m.i - 0x3f3504f3) >> 23;
    m.i = (int32_t)((uint32_t)m.i - ((uint32_t)k << 23));
    float t = (float)(x < 0x1p-126f ? k - 23 : k);
    float s = (m.f - 1.0f) / (m.f + 1.0f), z = s * s;
    float p = 1.0f + z * (1.0f / 3 + z * (1.0f / 5 + z * (1.0f / 7 + z * (1.0f / 9))));
    float y = t * 0.693145752f + (2.0f * s * p + t * 1.42860677e-6f);
    y = x > 0x1.fffffep127f ? x : y;
    y = x == 0 ? -INFINITY : y;
    return x >= 0 ? y : NAN; /* also of NaN */
}

INLINE float floor_of(float x)
{
    bool small = fabsf(x) < 0x1p23f; /* above it floats are integers */
    float t = (float)(int32_t)(small ? x : 0);
    t = t > x ? t - 1.0f : t;
    return small ? t : x;
}

#define VECTORS(value)                                                                             \
    {                                                                                              \
        ROWS(float, float);                                                                        \
        for (int e = 0; e < n; e += VL) {                                                          \
            V x = vload(a + e);                                                                    \
            vstore(d + e, value);                                                                  \
        }                                                                                          \
    }                                                                                              \
    break

static void step_f32(int op, void *restrict dst, const void *restrict pa, const void *restrict pb,
                     int n)
{
    switch (op) {
    case AT_X_NEG:
        EACH(float, float, -a[e]);
    case AT_X_ABS:
        EACH(float, float, fabsf(a[e]));
    case AT_X_EXP:
        VECTORS(vexp(x));
    case AT_X_LOG:
        EACH(float, float, log_of(a[e]));
    case AT_X_SQRT:
        EACH(float, float, sqrtf(a[e]));
    case AT_X_TANH:
        VECTORS(vtanh(x));
    case AT_X_FLOOR:
        EACH(float, float, floor_of(a[e]));
    case AT_X_ADD:
        EACH(float, float, a[e] + b[e]);
    case AT_X_SUB:
        EACH(float, float, a[e] - b[e]);
    case AT_X_MUL:
        EACH(float, float, a[e] * b[e]);
    case AT_X_DIV:
        EACH(float, float, a[e] / b[e]);
    case AT_X_MIN:
        EACH(float, float, a[e] < b[e] ? a[e] : b[e]);
    case AT_X_MAX:
        EACH(float, float, a[e] > b[e] ? a[e] : b[e]);
    case AT_X_LT:
        EACH(int32_t, float, a[e] < b[e]);
    case AT_X_LE:
        EACH(int32_t, float, a[e] <= b[e]);
    default:
        EACH(int32_t, float, a[e] == b[e]);
    }
}

#define CHOOSE(T)                                                                                  \
    {                                                                                              \
        ROWS(T, T);                                                                                \
        const int32_t *restrict when = pc;                                                         \
        for (int c = 0; c < n; c += 16)                                                            \
            for (int e = c; e < c + 16; e++) {                                                     \
                T x = a[e], y = b[e]; /* read, both, or no vector is made of it */                 \
                d[e] = when[e] ? x : y;                                                            \
            }                                                                                      \
    }                                                                                              \
    break

static void step_select(int width, void *restrict dst, const void *restrict pc,
                        const void *restrict pa, const void *restrict pb, int n)
{
    switch (width) {
    case AT_V_I32:
        CHOOSE(int32_t);
    case AT_V_I64:
        CHOOSE(int64_t);
    default:
        CHOOSE(float);
    }
}

/* ---- leaves ---- */

/* Scores lie between other rows, so this keeps to n: whole sixteens, then the rest. */
static void hide_sixteens(float *restrict d, const int32_t *restrict visible, int n)
{
    for (int c = 0; c < n; c += 16)
        for (int e = c; e < c + 16; e++) {
            float x = d[e];
            d[e] = visible[e] ? x : -INFINITY;
        }
}

static void hide(float *d, const int32_t *visible, int n)
{
    hide_sixteens(d, visible, n / 16 * 16);
    for (int e = n / 16 * 16; e < n; e++)
        d[e] = visible[e] ? d[e] : -INFINITY;
}

#define FILL(value)                                                                                \
    for (int e = 0; e < n; e++)                                                                    \
        if (op->width == AT_V_I64)                                                                 \
            ((int64_t *)dst)[e] = (value);                                                         \
        else                                                                                       \
            ((int32_t *)dst)[e] = (int32_t)(value)

/* count values of a variable or number, filled up to n; score: the strip's first. */
static void step_leaf(const struct at_vec_op *op, const struct at_expr_block *k, const float *score,
                      int64_t j0, void *dst, int count, int n)
{
    int64_t one = op->op == AT_X_B     ? k->b
                  : op->op == AT_X_SQ  ? k->sq
                  : op->op == AT_X_SKV ? k->skv
                                       : op->value.i;
    if (op->op == AT_X_SCORE) {
        memcpy(dst, score, (size_t)count * sizeof *score);
        memset((float *)dst + count, 0, (size_t)(n - count) * sizeof *score);
    } else if (op->width == AT_V_F32)
        for (int e = 0; e < n; e++)
            ((float *)dst)[e] = (float)op->value.f;
    else if (op->op == AT_X_J) {
        FILL(j0 + e);
    } else if (op->op == AT_X_I) {
        FILL(e < k->lanes ? k->i[e] : 0);
    } else if (op->op == AT_X_H) {
        FILL(e < k->lanes ? k->h[e] : 0);
    } else {
        FILL(one);
    }
}

/* ---- tensors ---- */

/* The places of sixteen elements, -1 where an index is outside. */
INLINE void places(const struct at_vec_op *op, const struct at_view *v, const char *scratch, int c,
                   int64_t *at)
{
    for (int e = 0; e < 16; e++)
        at[e] = 0;
    for (int r = 0; r < op->nargs; r++) {
        const int32_t *narrow = (const void *)(scratch + op->arg[r]);
        const int64_t *wide = (const void *)(scratch + op->arg[r]);
        for (int e = 0; e < 16; e++) {
            int64_t x = op->index_wide ? wide[c + e] : narrow[c + e];
            bool inside = at[e] >= 0 && x >= 0 && x < v->shape[r];
            at[e] = inside ? at[e] + x * v->stride[r] : -1;
        }
    }
}

static void step_load(const struct at_vec_op *op, const struct at_view *v, char *scratch, int n)
{
    float *f = (void *)(scratch + op->dst);
    int32_t *narrow = (void *)f;
    int64_t *wide = (void *)f, at[16];
    for (int c = 0; c < n; c += 16) {
        places(op, v, scratch, c, at);
        for (int e = 0; e < 16; e++)
            if (v->type == ATTEND_F32)
                f[c + e] = at[e] < 0 ? 0 : ((const float *)v->data)[at[e]];
            else if (op->width == AT_V_F32)
                f[c + e] = at[e] < 0 ? 0 : (float)at_element_get(v->type, v->data, at[e]);
            else if (v->type == ATTEND_I64 && op->width == AT_V_I64)
                wide[c + e] = at[e] < 0 ? 0 : ((const int64_t *)v->data)[at[e]];
            else if (v->type == ATTEND_I32 && op->width == AT_V_I32)
                narrow[c + e] = at[e] < 0 ? 0 : ((const int32_t *)v->data)[at[e]];
            else if (op->width == AT_V_I64)
                wide[c + e] = at[e] < 0 ? 0 : (int64_t)at_element_get(v->type, v->data, at[e]);
            else
                narrow[c + e] = at[e] < 0 ? 0 : (int32_t)at_element_get(v->type, v->data, at[e]);
    }
}

/* ---- shapes ---- */

#define SPREAD(T, value)                                                                           \
    {                                                                                              \
        T *restrict d = dst;                                                                       \
        const T *restrict a = src;                                                                 \
        for (int j = 0; j < keys; j++)                                                             \
            for (int r = 0; r < lanes; r++)                                                        \
                d[j * lanes + r] = (value);                                                        \
        for (int e = keys * lanes; e < n; e++)                                                     \
            d[e] = 0;                                                                              \
    }

/* keys x lanes values from one, one a lane, or one a key; filled up to n. */
static void spread(int from, int width, void *restrict dst, const void *restrict src, int keys,
                   int lanes, int n)
{
    if (width == AT_V_I64) {
        if (from == AT_V_ONE)
            SPREAD(int64_t, a[0])
        else if (from == AT_V_KEYS)
            SPREAD(int64_t, a[j])
        else
            SPREAD(int64_t, a[r])
    } else { /* of floats too, whose bits are moved */
        if (from == AT_V_ONE)
            SPREAD(int32_t, a[0])
        else if (from == AT_V_KEYS)
            SPREAD(int32_t, a[j])
        else
            SPREAD(int32_t, a[r])
    }
}

/* ---- a program ---- */

INLINE int sixteens(int64_t n)
{
    return (int)((n + 15) / 16 * 16);
}

static void run_step(const struct at_vec_op *op, const struct at_expr_block *k, char *scratch,
                     const float *score, int64_t j0, int keys)
{
    int lanes = (int)k->stride;
    int count = (op->shape & AT_V_KEYS ? keys : 1) * (op->shape & AT_V_LANES ? lanes : 1);
    int n = sixteens(count);
    char *dst = scratch + op->dst;
    const char *a = scratch + op->arg[0], *b = scratch + op->arg[1], *c = scratch + op->arg[2];
    if (op->op == AT_V_SPREAD)
        spread(op->from, op->width, dst, a, op->shape & AT_V_KEYS ? keys : 1,
               op->shape & AT_V_LANES ? lanes : 1, n);
    else if (op->op == AT_X_LOAD)
        step_load(op, &k->capture[op->capture], scratch, n);
    else if (op->nargs == 0)
        step_leaf(op, k, score, j0, dst, count, n);
    else if (op->op == AT_X_SELECT)
        step_select(op->width, dst, a, b, c, n);
    else if (op->width == AT_V_F32)
        step_f32(op->op, dst, a, b, n);
    else if (op->width == AT_V_I64)
        step_i64(op->op, dst, a, b, n);
    else if (op->op == AT_X_DIV || op->op == AT_X_MOD)
        divide_i32(op->op, dst, a, b, n);
    else
        step_i32(op->op, dst, a, b, n);
}

static void expr_run(const struct at_expr_program *p, const struct at_expr_block *k, void *scratch)
{
    int lanes = (int)k->stride, most = AT_EXPR_STRIP / lanes;
    for (int o = 0; o < p->once; o++)
        run_step(&p->op[o], k, scratch, NULL, 0, most);
    for (int64_t j = 0; j < k->keys; j += most) {
        float *st = k->st + j * lanes;
        int keys = k->keys - j < most ? (int)(k->keys - j) : most, n = keys * lanes;
        for (int o = p->once; o < p->n; o++)
            run_step(&p->op[o], k, scratch, st, k->j0 + j, keys);
        const void *result = (const char *)scratch + p->result;
        if (p->score)
            memcpy(st, result, (size_t)n * sizeof *st);
        else
            hide(st, result, n);
    }
}

#undef ROWS
#undef EACH
#undef VECTORS
#undef CHOOSE
#undef FILL
#undef SPREAD
#endif
