/* SPDX-License-Identifier: MIT */
/* The derivative of a score expression, as an expression: forward through the nodes, by the rules
 * of calculus.  Where a function has a corner the side that is taken counts, and floor is flat. */
#include "expr.h"

#include <string.h>

enum { ZERO = -1, NO_ROOM = -2 };

struct diff {
    struct at_expr *x;
    int16_t d[AT_EXPR_NODES]; /* of each node: its derivative, or ZERO */
};

static int number(struct diff *w, double value)
{
    int node = at_expr_float(w->x, value);
    return node < 0 ? NO_ROOM : node;
}

static int op2(struct diff *w, enum at_expr_op op, int a, int b)
{
    int node = at_expr_op2(w->x, op, a, b);
    return node < 0 ? NO_ROOM : node;
}

static int sum(struct diff *w, int a, int b)
{
    if (a == NO_ROOM || b == NO_ROOM)
        return NO_ROOM;
    return a == ZERO ? b : b == ZERO ? a : op2(w, AT_X_ADD, a, b);
}

/* a * d, where only d can be ZERO. */
static int times(struct diff *w, int a, int d)
{
    if (a == NO_ROOM || d == NO_ROOM)
        return NO_ROOM;
    return d == ZERO ? ZERO : op2(w, AT_X_MUL, a, d);
}

static int minus(struct diff *w, int a)
{
    if (a < 0)
        return a;
    int node = at_expr_op1(w->x, AT_X_NEG, a);
    return node < 0 ? NO_ROOM : node;
}

/* c ? a : b */
static int either(struct diff *w, int c, int a, int b)
{
    if (a == ZERO && b == ZERO)
        return ZERO;
    a = a == ZERO ? number(w, 0) : a;
    b = b == ZERO ? number(w, 0) : b;
    if (c < 0 || a < 0 || b < 0)
        return NO_ROOM;
    int node = at_expr_select(w->x, c, a, b);
    return node < 0 ? NO_ROOM : node;
}

/* dy/da for y = f(a), times da. */
static int of_function(struct diff *w, enum at_expr_op op, int y, int a, int da)
{
    if (da == ZERO || op == AT_X_FLOOR)
        return ZERO;
    switch (op) {
    case AT_X_NEG:
        return minus(w, da);
    case AT_X_ABS:
        return either(w, at_expr_op2(w->x, AT_X_LT, a, number(w, 0)), minus(w, da), da);
    case AT_X_EXP:
        return times(w, y, da);
    case AT_X_LOG:
        return op2(w, AT_X_DIV, da, a);
    case AT_X_SQRT:
        return op2(w, AT_X_DIV, times(w, number(w, 0.5), da), y);
    default: /* tanh */
        return times(w, op2(w, AT_X_SUB, number(w, 1), op2(w, AT_X_MUL, y, y)), da);
    }
}

static int of_pair(struct diff *w, enum at_expr_op op, int y, int a, int b)
{
    int da = w->d[a], db = w->d[b];
    switch (op) {
    case AT_X_ADD:
        return sum(w, da, db);
    case AT_X_SUB:
        return sum(w, da, minus(w, db));
    case AT_X_MUL:
        return sum(w, times(w, b, da), times(w, a, db));
    case AT_X_DIV: { /* (da - y db) / b */
        int top = sum(w, da, minus(w, times(w, y, db)));
        return top < 0 ? top : op2(w, AT_X_DIV, top, b);
    }
    case AT_X_MIN:
        return either(w, at_expr_op2(w->x, AT_X_LT, a, b), da, db);
    default:
        return either(w, at_expr_op2(w->x, AT_X_LT, b, a), da, db);
    }
}

static int of_node(struct diff *w, int k, int wrt)
{
    const struct at_expr_node n = w->x->node[k];
    if (k == wrt)
        return number(w, 1);
    if (n.type != AT_X_FLOAT || n.op == AT_X_TO_FLOAT || n.op == AT_X_LOAD)
        return ZERO;
    if (n.op == AT_X_SELECT)
        return either(w, n.arg[0], w->d[n.arg[1]], w->d[n.arg[2]]);
    if (n.nargs == 2)
        return of_pair(w, n.op, k, n.arg[0], n.arg[1]);
    return n.nargs == 1 ? of_function(w, n.op, k, n.arg[0], w->d[n.arg[0]]) : ZERO;
}

int at_expr_derivative(const struct at_expr *x, int wrt, struct at_expr *out)
{
    struct diff w = {.x = out};
    *out = *x;
    for (int k = 0; k < x->n; k++) {
        int d = of_node(&w, k, wrt);
        if (d == NO_ROOM)
            return ATTEND_ELIMIT;
        w.d[k] = (int16_t)d;
    }
    int root = w.d[x->root] == ZERO ? number(&w, 0) : w.d[x->root];
    if (root < 0)
        return ATTEND_ELIMIT;
    at_expr_finish(out, root);
    return 0;
}
