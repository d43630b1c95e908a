/* SPDX-License-Identifier: MIT */
/* What an expression can be anywhere in a box, without looking at its points: interval arithmetic
 * (Moore 1966) over integers and conditions.  Every result holds all values that points can have;
 * where a sum or product might wrap, it holds every integer. */
#include "expr.h"

static const struct at_interval every = {INT64_MIN, INT64_MAX};

static struct at_interval join(struct at_interval a, struct at_interval b)
{
    return (struct at_interval){at_min(a.lo, b.lo), at_max(a.hi, b.hi)};
}

static struct at_interval truth(bool can_be_false, bool can_be_true)
{
    return (struct at_interval){!can_be_false, can_be_true};
}

static struct at_interval add(struct at_interval a, struct at_interval b)
{
    struct at_interval r;
    bool wraps = __builtin_add_overflow(a.lo, b.lo, &r.lo);
    wraps |= __builtin_add_overflow(a.hi, b.hi, &r.hi);
    return wraps ? every : r;
}

static struct at_interval sub(struct at_interval a, struct at_interval b)
{
    struct at_interval r;
    bool wraps = __builtin_sub_overflow(a.lo, b.hi, &r.lo);
    wraps |= __builtin_sub_overflow(a.hi, b.lo, &r.hi);
    return wraps ? every : r;
}

static struct at_interval mul(struct at_interval a, struct at_interval b)
{
    int64_t p[4];
    bool wraps = __builtin_mul_overflow(a.lo, b.lo, &p[0]);
    wraps |= __builtin_mul_overflow(a.lo, b.hi, &p[1]);
    wraps |= __builtin_mul_overflow(a.hi, b.lo, &p[2]);
    wraps |= __builtin_mul_overflow(a.hi, b.hi, &p[3]);
    return wraps ? every
                 : (struct at_interval){at_min(at_min(p[0], p[1]), at_min(p[2], p[3])),
                                        at_max(at_max(p[0], p[1]), at_max(p[2], p[3]))};
}

/* By divisors of one sign, where the quotient is monotone in each operand. */
static struct at_interval div_by(struct at_interval a, struct at_interval b)
{
    if (a.lo == INT64_MIN && b.hi == -1) /* wraps */
        return every;
    struct at_interval r = {INT64_MAX, INT64_MIN};
    const int64_t num[] = {a.lo, a.hi}, den[] = {b.lo, b.hi};
    for (int k = 0; k < 4; k++) {
        int64_t q = at_expr_int_op(AT_X_DIV, num[k & 1], den[k >> 1]);
        r = join(r, (struct at_interval){q, q});
    }
    return r;
}

/* By positive divisors. */
static struct at_interval mod_by(struct at_interval a, struct at_interval b)
{
    if (b.lo == b.hi &&
        at_expr_int_op(AT_X_DIV, a.lo, b.lo) == at_expr_int_op(AT_X_DIV, a.hi, b.lo))
        return (struct at_interval){at_expr_int_op(AT_X_MOD, a.lo, b.lo),
                                    at_expr_int_op(AT_X_MOD, a.hi, b.lo)};
    if (a.lo >= 0 && a.hi < b.lo)
        return a;
    return (struct at_interval){0, a.lo >= 0 ? at_min(a.hi, b.hi - 1) : b.hi - 1};
}

/* By negative divisors: the remainder has their sign. */
static struct at_interval mod_by_negative(struct at_interval a, struct at_interval b)
{
    if (b.lo == b.hi &&
        at_expr_int_op(AT_X_DIV, a.lo, b.lo) == at_expr_int_op(AT_X_DIV, a.hi, b.lo))
        return (struct at_interval){at_expr_int_op(AT_X_MOD, a.lo, b.lo),
                                    at_expr_int_op(AT_X_MOD, a.hi, b.lo)};
    if (a.hi <= 0 && a.lo > b.hi)
        return a;
    return (struct at_interval){b.lo + 1, 0};
}

/* The divisor's negative part, zero and positive part, one by one. */
static struct at_interval divide(enum at_expr_op op, struct at_interval a, struct at_interval b)
{
    struct at_interval r = {INT64_MAX, INT64_MIN};
    if (b.lo < 0) {
        struct at_interval part = {b.lo, at_min(b.hi, -1)};
        r = join(r, op == AT_X_DIV ? div_by(a, part) : mod_by_negative(a, part));
    }
    if (b.lo <= 0 && b.hi >= 0)
        r = join(r, (struct at_interval){0, 0});
    if (b.hi > 0) {
        struct at_interval part = {at_max(b.lo, 1), b.hi};
        r = join(r, op == AT_X_DIV ? div_by(a, part) : mod_by(a, part));
    }
    return r;
}

static struct at_interval compare(enum at_expr_op op, struct at_interval a, struct at_interval b)
{
    if (op == AT_X_LT)
        return truth(a.hi >= b.lo, a.lo < b.hi);
    if (op == AT_X_LE)
        return truth(a.hi > b.lo, a.lo <= b.hi);
    return truth(a.lo != a.hi || b.lo != b.hi || a.lo != b.lo, a.lo <= b.hi && b.lo <= a.hi);
}

static struct at_interval magnitude(struct at_interval a)
{
    if (a.lo == INT64_MIN) /* wraps */
        return every;
    if (a.lo >= 0)
        return a;
    return a.hi <= 0 ? (struct at_interval){-a.hi, -a.lo}
                     : (struct at_interval){0, at_max(-a.lo, a.hi)};
}

static struct at_interval op2(enum at_expr_op op, struct at_interval a, struct at_interval b)
{
    switch (op) {
    case AT_X_ADD:
        return add(a, b);
    case AT_X_SUB:
        return sub(a, b);
    case AT_X_MUL:
        return mul(a, b);
    case AT_X_DIV:
    case AT_X_MOD:
        return divide(op, a, b);
    case AT_X_MIN:
        return (struct at_interval){at_min(a.lo, b.lo), at_min(a.hi, b.hi)};
    case AT_X_MAX:
        return (struct at_interval){at_max(a.lo, b.lo), at_max(a.hi, b.hi)};
    case AT_X_AND:
        return (struct at_interval){a.lo & b.lo, a.hi & b.hi};
    case AT_X_OR:
        return (struct at_interval){a.lo | b.lo, a.hi | b.hi};
    default:
        return compare(op, a, b);
    }
}

static struct at_interval load(const struct at_expr *x, const struct at_expr_node *n,
                               const struct at_expr_box *box, const struct at_interval *all)
{
    struct at_interval index[AT_EXPR_RANK];
    const struct at_minmax *m = box->minmax ? box->minmax[n->value.i] : NULL;
    if (!m)
        return at_minmax_of_type(x->capture[n->capture].type);
    for (int k = 0; k < n->nargs; k++)
        index[k] = all[n->arg[k]];
    return at_minmax_query(m, index);
}

static struct at_interval one(const struct at_expr *x, int k, const struct at_expr_box *box,
                              const struct at_interval *all)
{
    const struct at_expr_node *n = &x->node[k];
    const struct at_interval variable[] = {box->b, box->h, box->i, box->j, box->sq, box->skv};
    struct at_interval a = n->nargs > 0 ? all[n->arg[0]] : every;
    switch (n->op) {
    case AT_X_NUMBER:
        return (struct at_interval){n->value.i, n->value.i};
    case AT_X_LOAD:
        return load(x, n, box, all);
    case AT_X_NEG:
        return sub((struct at_interval){0, 0}, a);
    case AT_X_ABS:
        return magnitude(a);
    case AT_X_NOT:
        return (struct at_interval){!a.hi, !a.lo};
    case AT_X_SELECT:
        return a.lo        ? all[n->arg[1]]
               : a.hi == 0 ? all[n->arg[2]]
                           : join(all[n->arg[1]], all[n->arg[2]]);
    default:
        return n->nargs == 2 ? op2(n->op, a, all[n->arg[1]]) : variable[n->op - AT_X_B];
    }
}

void at_expr_intervals(const struct at_expr *x, const struct at_expr_box *box,
                       struct at_interval *out)
{
    for (int k = 0; k < x->n; k++) {
        const struct at_expr_node *n = &x->node[k];
        bool of_floats = n->nargs == 2 && x->node[n->arg[0]].type == AT_X_FLOAT;
        if (n->type == AT_X_FLOAT)
            out[k] = every;
        else if (of_floats) /* a comparison */
            out[k] = truth(true, true);
        else
            out[k] = one(x, k, box, out);
    }
}

enum at_cover at_expr_cover(const struct at_expr *x, const struct at_expr_box *box)
{
    struct at_interval all[AT_EXPR_NODES];
    at_expr_intervals(x, box, all);
    struct at_interval r = all[x->root];
    return r.lo ? AT_COVER_FULL : r.hi ? AT_COVER_PARTIAL : AT_COVER_EMPTY;
}
