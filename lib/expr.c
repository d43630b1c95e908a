/* SPDX-License-Identifier: MIT */
/* Expressions as nodes: building with constants folded and duplicates shared, and the evaluation
 * that says what they mean. */
#include "expr.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "element.h"

#define U 0x1p-24 /* half an ulp of 1 in f32 */

/* ---- integers ---- */

static int64_t floor_div(int64_t a, int64_t b)
{
    if (b == 0)
        return 0;
    if (b == -1)
        return (int64_t)(0 - (uint64_t)a);
    return a / b - (a % b != 0 && (a < 0) != (b < 0));
}

static int64_t floor_mod(int64_t a, int64_t b)
{
    if (b == 0 || b == -1)
        return 0;
    int64_t r = a % b;
    return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}

int64_t at_expr_int_op(enum at_expr_op op, int64_t a, int64_t b)
{
    uint64_t x = (uint64_t)a, y = (uint64_t)b;
    switch (op) {
    case AT_X_ADD:
        return (int64_t)(x + y);
    case AT_X_SUB:
        return (int64_t)(x - y);
    case AT_X_MUL:
        return (int64_t)(x * y);
    case AT_X_DIV:
        return floor_div(a, b);
    case AT_X_MOD:
        return floor_mod(a, b);
    case AT_X_MIN:
        return a < b ? a : b;
    case AT_X_MAX:
        return a > b ? a : b;
    case AT_X_LT:
        return a < b;
    case AT_X_LE:
        return a <= b;
    default:
        return a == b;
    }
}

/* ---- nodes ---- */

void at_expr_init(struct at_expr *x, bool score)
{
    memset(x, 0, sizeof *x);
    x->score = score;
    x->root = -1;
}

int at_expr_add_capture(struct at_expr *x, const char *name, attend_type type, int rank, char *err,
                        size_t errlen)
{
    static const char *const taken[] = {"score", "b",   "h",     "i",    "j",    "sq",  "skv",
                                        "true",  "inf", "false", "abs",  "min",  "max", "float",
                                        "exp",   "log", "sqrt",  "tanh", "floor"};
    if (x->ncapture == AT_EXPR_CAPTURES)
        return at_say(err, errlen, ATTEND_ELIMIT, "expressions index at most %d tensors",
                      AT_EXPR_CAPTURES);
    size_t length = strlen(name), plain = 0;
    while (name[plain] == '_' || (name[plain] >= 'a' && name[plain] <= 'z') ||
           (name[plain] >= 'A' && name[plain] <= 'Z') ||
           (plain > 0 && name[plain] >= '0' && name[plain] <= '9'))
        plain++;
    if (length == 0 || length != plain || length >= AT_EXPR_NAME)
        return at_say(err, errlen, ATTEND_EINVAL,
                      "'%s' names no tensor of an expression: wants 1 to %d letters, digits and _",
                      name, AT_EXPR_NAME - 1);
    bool clash = false;
    for (int k = 0; k < AT_LEN(taken); k++)
        clash = clash || !strcmp(name, taken[k]);
    for (int k = 0; k < x->ncapture; k++)
        clash = clash || !strcmp(name, x->capture[k].name);
    if (clash)
        return at_say(err, errlen, ATTEND_EINVAL, "the name '%s' is taken in expressions", name);
    if (rank < 1 || rank > AT_EXPR_RANK)
        return at_say(err, errlen, ATTEND_EINVAL, "'%s' has %d axes; expressions index 1 to %d",
                      name, rank, AT_EXPR_RANK);
    if (type == ATTEND_F64 || attend_type_block(type) != 1)
        return at_say(err, errlen, ATTEND_EINVAL, "'%s' is %s, which expressions cannot index",
                      name, attend_type_name(type));
    struct at_expr_capture *c = &x->capture[x->ncapture++];
    memcpy(c->name, name, length + 1);
    c->type = type;
    c->rank = rank;
    return 0;
}

static bool same(const struct at_expr_node *a, const struct at_expr_node *b)
{
    return a->op == b->op && a->type == b->type && a->nargs == b->nargs &&
           a->capture == b->capture && !memcmp(a->arg, b->arg, sizeof a->arg) &&
           (a->op != AT_X_NUMBER || a->value.i == b->value.i);
}

/* The node equal to `node`, which is added if it is new. */
static int add(struct at_expr *x, struct at_expr_node node)
{
    for (int k = 0; k < node.nargs; k++)
        if (node.arg[k] < 0)
            return -1;
    for (int k = 0; k < x->n; k++)
        if (same(&x->node[k], &node))
            return k;
    if (x->n == AT_EXPR_NODES || (node.op == AT_X_LOAD && x->nload == AT_EXPR_LOADS)) {
        x->full = true;
        return -1;
    }
    if (node.op == AT_X_LOAD) {
        node.value.i = x->nload;
        x->load[x->nload++] = (int16_t)x->n;
    }
    x->node[x->n] = node;
    return x->n++;
}

int at_expr_bool(struct at_expr *x, bool value)
{
    return add(x, (struct at_expr_node){.op = AT_X_NUMBER, .type = AT_X_BOOL, .value.i = value});
}

int at_expr_int(struct at_expr *x, int64_t value)
{
    return add(x, (struct at_expr_node){.op = AT_X_NUMBER, .type = AT_X_INT, .value.i = value});
}

int at_expr_float(struct at_expr *x, double value)
{
    return add(x, (struct at_expr_node){
                      .op = AT_X_NUMBER, .type = AT_X_FLOAT, .value.f = (double)(float)value});
}

int at_expr_variable(struct at_expr *x, enum at_expr_op op)
{
    return add(x, (struct at_expr_node){.op = (uint8_t)op,
                                        .type = op == AT_X_SCORE ? AT_X_FLOAT : AT_X_INT});
}

static enum at_expr_type type_of(attend_type type)
{
    return type == ATTEND_BOOL                                               ? AT_X_BOOL
           : type == ATTEND_F32 || type == ATTEND_F16 || type == ATTEND_BF16 ? AT_X_FLOAT
                                                                             : AT_X_INT;
}

int at_expr_load(struct at_expr *x, int capture, const int *arg)
{
    const struct at_expr_capture *c = &x->capture[capture];
    struct at_expr_node node = {.op = AT_X_LOAD,
                                .type = (uint8_t)type_of(c->type),
                                .nargs = (uint8_t)c->rank,
                                .capture = (uint8_t)capture};
    for (int k = 0; k < c->rank; k++)
        node.arg[k] = (int16_t)arg[k];
    return add(x, node);
}

/* ---- folding ---- */

static bool is_number(const struct at_expr *x, int a)
{
    return x->node[a].op == AT_X_NUMBER;
}

static bool is_int(const struct at_expr *x, int a, int64_t value)
{
    return is_number(x, a) && x->node[a].type != AT_X_FLOAT && x->node[a].value.i == value;
}

static double float_op1(enum at_expr_op op, double a)
{
    switch (op) {
    case AT_X_NEG:
        return -a;
    case AT_X_ABS:
        return fabs(a);
    case AT_X_EXP:
        return exp(a);
    case AT_X_LOG:
        return log(a);
    case AT_X_SQRT:
        return sqrt(a);
    case AT_X_TANH:
        return tanh(a);
    default:
        return floor(a);
    }
}

static double float_op2(enum at_expr_op op, double a, double b)
{
    switch (op) {
    case AT_X_ADD:
        return a + b;
    case AT_X_SUB:
        return a - b;
    case AT_X_MUL:
        return a * b;
    case AT_X_DIV:
        return a / b;
    case AT_X_MIN:
        return a < b ? a : b;
    default:
        return a > b ? a : b;
    }
}

static bool float_compare(enum at_expr_op op, double a, double b)
{
    return op == AT_X_LT ? a < b : op == AT_X_LE ? a <= b : a == b;
}

static int64_t int_op1(enum at_expr_op op, int64_t a)
{
    return op == AT_X_NOT ? !a : op == AT_X_NEG || a < 0 ? (int64_t)(0 - (uint64_t)a) : a;
}

int at_expr_op1(struct at_expr *x, enum at_expr_op op, int a)
{
    if (a < 0)
        return -1;
    const struct at_expr_node *n = &x->node[a];
    if (n->op == AT_X_NUMBER && op == AT_X_TO_FLOAT)
        return at_expr_float(x, (double)n->value.i);
    if (n->op == AT_X_NUMBER && n->type == AT_X_FLOAT)
        return at_expr_float(x, float_op1(op, n->value.f));
    if (n->op == AT_X_NUMBER && op == AT_X_NOT)
        return at_expr_bool(x, !n->value.i);
    if (n->op == AT_X_NUMBER)
        return at_expr_int(x, int_op1(op, n->value.i));
    if (op == n->op && (op == AT_X_NOT || op == AT_X_NEG))
        return n->arg[0];
    return add(x, (struct at_expr_node){.op = (uint8_t)op,
                                        .type = op == AT_X_TO_FLOAT ? AT_X_FLOAT : n->type,
                                        .nargs = 1,
                                        .arg = {(int16_t)a}});
}

static bool compares(enum at_expr_op op)
{
    return op == AT_X_LT || op == AT_X_LE || op == AT_X_EQ;
}

static int fold_numbers(struct at_expr *x, enum at_expr_op op, int a, int b)
{
    const struct at_expr_node *p = &x->node[a], *q = &x->node[b];
    if (p->type == AT_X_FLOAT)
        return compares(op) ? at_expr_bool(x, float_compare(op, p->value.f, q->value.f))
                            : at_expr_float(x, float_op2(op, p->value.f, q->value.f));
    int64_t value = at_expr_int_op(op, p->value.i, q->value.i);
    return compares(op) ? at_expr_bool(x, value != 0) : at_expr_int(x, value);
}

static bool is_float(const struct at_expr *x, int a, double value)
{
    return is_number(x, a) && x->node[a].value.f == value;
}

static int fold_float(const struct at_expr *x, enum at_expr_op op, int a, int b)
{
    if (op == AT_X_ADD && is_float(x, a, 0))
        return b;
    if (op == AT_X_MUL && is_float(x, a, 1))
        return b;
    bool neutral = op == AT_X_ADD || op == AT_X_SUB   ? is_float(x, b, 0)
                   : op == AT_X_MUL || op == AT_X_DIV ? is_float(x, b, 1)
                                                      : false;
    return neutral ? a : -1;
}

/* What an operation on integers or conditions is without being computed, or -1. */
static int fold_identity(struct at_expr *x, enum at_expr_op op, int a, int b)
{
    switch (op) {
    case AT_X_AND:
        return is_int(x, a, 0) || is_int(x, b, 1) ? a : is_int(x, b, 0) || is_int(x, a, 1) ? b : -1;
    case AT_X_OR:
        return is_int(x, a, 1) || is_int(x, b, 0) ? a : is_int(x, b, 1) || is_int(x, a, 0) ? b : -1;
    case AT_X_ADD:
        return is_int(x, b, 0) ? a : is_int(x, a, 0) ? b : -1;
    case AT_X_SUB:
        return is_int(x, b, 0) ? a : a == b ? at_expr_int(x, 0) : -1;
    case AT_X_MUL:
        return is_int(x, b, 1) || is_int(x, a, 0) ? a : is_int(x, a, 1) || is_int(x, b, 0) ? b : -1;
    case AT_X_DIV:
        return is_int(x, b, 1) ? a : -1;
    case AT_X_LT:
        return a == b ? at_expr_bool(x, false) : -1;
    case AT_X_LE:
    case AT_X_EQ:
        return a == b ? at_expr_bool(x, true) : -1;
    default:
        return -1;
    }
}

int at_expr_op2(struct at_expr *x, enum at_expr_op op, int a, int b)
{
    if (a < 0 || b < 0)
        return -1;
    enum at_expr_type type = x->node[a].type;
    if (is_number(x, a) && is_number(x, b) && op != AT_X_AND && op != AT_X_OR)
        return fold_numbers(x, op, a, b);
    if (a == b && (op == AT_X_AND || op == AT_X_OR || op == AT_X_MIN || op == AT_X_MAX))
        return a;
    int known = type == AT_X_FLOAT ? fold_float(x, op, a, b) : fold_identity(x, op, a, b);
    if (known >= 0)
        return known;
    return add(x, (struct at_expr_node){
                      .op = (uint8_t)op,
                      .type = (uint8_t)(compares(op) ? AT_X_BOOL : type),
                      .nargs = 2,
                      .arg = {(int16_t)a, (int16_t)b}
    });
}

int at_expr_select(struct at_expr *x, int c, int a, int b)
{
    if (c < 0 || a < 0 || b < 0)
        return -1;
    if (a == b || is_int(x, c, 1))
        return a;
    if (is_int(x, c, 0))
        return b;
    return add(x, (struct at_expr_node){
                      .op = AT_X_SELECT,
                      .type = x->node[a].type,
                      .nargs = 3,
                      .arg = {(int16_t)c, (int16_t)a, (int16_t)b}
    });
}

int at_expr_as_float(struct at_expr *x, int a)
{
    return a >= 0 && x->node[a].type == AT_X_INT ? at_expr_op1(x, AT_X_TO_FLOAT, a) : a;
}

int at_expr_blocks(struct at_expr *x, int capture, const int64_t *shape, int64_t rows, int64_t keys)
{
    int arg[AT_EXPR_RANK], rank = x->capture[capture].rank, none = AT_EXPR_RANK - rank;
    const int64_t size[AT_EXPR_RANK] = {1, 1, rows, keys};
    for (int d = 0; d < rank; d++) {
        int axis = none + d;
        if (shape[d] == 1 && size[axis] == 1)
            arg[d] = at_expr_int(x, 0);
        else
            arg[d] = at_expr_op2(x, AT_X_DIV, at_expr_variable(x, AT_X_B + (enum at_expr_op)axis),
                                 at_expr_int(x, size[axis]));
    }
    return at_expr_load(x, capture, arg);
}

void at_expr_finish(struct at_expr *x, int root)
{
    int16_t place[AT_EXPR_NODES];
    bool live[AT_EXPR_NODES] = {false};
    live[root] = true;
    for (int k = root; k >= 0; k--)
        for (int a = 0; live[k] && a < x->node[k].nargs; a++)
            live[x->node[k].arg[a]] = true;
    int n = 0;
    x->reads = 0;
    x->nload = 0;
    for (int k = 0; k <= root; k++) {
        if (!live[k])
            continue;
        struct at_expr_node node = x->node[k];
        for (int a = 0; a < node.nargs; a++)
            node.arg[a] = place[node.arg[a]];
        if (node.op == AT_X_LOAD) {
            node.value.i = x->nload;
            x->load[x->nload++] = (int16_t)n;
        }
        x->reads |= 1u << node.op;
        place[k] = (int16_t)n;
        x->node[n++] = node;
    }
    x->n = n;
    x->root = n - 1;
}

/* ---- evaluation ---- */

/* The element at index, or -1 outside. */
static int64_t offset(const struct at_view *v, const int64_t *index)
{
    int64_t at = 0;
    for (int d = 0; d < v->rank; d++) {
        if (index[d] < 0 || index[d] >= v->shape[d])
            return -1;
        at += index[d] * v->stride[d];
    }
    return at;
}

int64_t at_expr_load_int(const struct at_view *v, const int64_t *index)
{
    int64_t at = offset(v, index);
    if (at < 0)
        return 0;
    return v->type == ATTEND_I64 ? ((const int64_t *)v->data)[at]
                                 : (int64_t)at_element_get(v->type, v->data, at);
}

double at_expr_load_float(const struct at_view *v, const int64_t *index)
{
    int64_t at = offset(v, index);
    return at < 0 ? 0 : at_element_get(v->type, v->data, at);
}

/* A node's value and how far f32 may be from it.  An integer that an open condition chose is off by
 * the difference, a condition by infinity; what is computed from either is open too. */
struct value {
    int64_t i;
    double f, error;
};

static struct value eval_variable(enum at_expr_op op, const struct at_expr_point *p)
{
    const int64_t integer[] = {p->b, p->h, p->i, p->j, p->sq, p->skv};
    if (op == AT_X_SCORE)
        return (struct value){.f = p->score, .error = p->score_error};
    return (struct value){.i = integer[op - AT_X_B]};
}

static struct value eval_load(const struct at_expr_node *n, const struct at_expr_point *p,
                              const struct value *all)
{
    int64_t index[AT_EXPR_RANK];
    struct value v = {0};
    for (int k = 0; k < n->nargs; k++) {
        index[k] = all[n->arg[k]].i;
        v.error += all[n->arg[k]].error;
    }
    if (v.error > 0)
        v.error = (double)INFINITY;
    if (n->type == AT_X_FLOAT)
        v.f = at_expr_load_float(&p->capture[n->capture], index);
    else
        v.i = at_expr_load_int(&p->capture[n->capture], index);
    return v;
}

/* How far f(a) may be off where a is off by e, before the result is rounded; then the roundings of
 * f itself, in units of U. */
static double error_op1(enum at_expr_op op, double a, double e, double y)
{
    switch (op) {
    case AT_X_EXP: /* e^a = 2^(a log2 e): the rounding of the product grows with a */
        return fabs(y) * (expm1(e) + U * (2 * fabs(a) + 6));
    case AT_X_LOG:
        return (e < a ? -log1p(-e / a) : e > 0 ? (double)INFINITY : 0) + 6 * U * fabs(y);
    case AT_X_SQRT:
        return (e == 0 ? 0 : a > e ? e / (y + sqrt(a - e)) : sqrt(2 * e)) + 2 * U * fabs(y);
    case AT_X_TANH:
        return e + 8 * U * fabs(y);
    case AT_X_FLOOR:
        return e == 0 ? 0 : floor(a + e) - floor(a - e);
    default:
        return e;
    }
}

static double error_op2(enum at_expr_op op, double a, double ea, double b, double eb, double y)
{
    switch (op) {
    case AT_X_ADD:
    case AT_X_SUB:
        return (ea + eb) * (1 + U) + U * fabs(y);
    case AT_X_MUL:
        return (fabs(a) * eb + fabs(b) * ea + ea * eb) * (1 + U) + U * fabs(y);
    case AT_X_DIV:
        if (ea + eb == 0)
            return 2 * U * fabs(y);
        return fabs(b) > eb ? (ea + fabs(y) * eb) / (fabs(b) - eb) * (1 + U) + 2 * U * fabs(y)
                            : (double)INFINITY;
    default:
        return fmax(ea, eb);
    }
}

static struct value eval_op1(const struct at_expr_node *n, struct value a, enum at_expr_type from)
{
    struct value v = {.error = a.error};
    if (n->op == AT_X_TO_FLOAT) {
        v.f = (double)a.i;
        v.error += fabs(v.f) > 0x1p24 ? U * fabs(v.f) : 0;
    } else if (from == AT_X_FLOAT) {
        v.f = float_op1(n->op, a.f);
        v.error = error_op1(n->op, a.f, a.error, v.f);
    } else {
        v.i = int_op1(n->op, a.i);
        v.error = a.error > 0 ? (double)INFINITY : 0;
    }
    return v;
}

static struct value eval_op2(const struct at_expr_node *n, struct value a, struct value b,
                             enum at_expr_type from)
{
    double e = a.error + b.error;
    struct value v = {.error = e > 0 ? (double)INFINITY : 0};
    if (n->op == AT_X_AND)
        v.i = a.i && b.i;
    else if (n->op == AT_X_OR)
        v.i = a.i || b.i;
    else if (from != AT_X_FLOAT)
        v.i = at_expr_int_op(n->op, a.i, b.i);
    else if (compares(n->op)) {
        v.i = float_compare(n->op, a.f, b.f);
        v.error = e > 0 && !(fabs(a.f - b.f) > e) ? (double)INFINITY : 0;
    } else {
        v.f = float_op2(n->op, a.f, b.f);
        v.error = error_op2(n->op, a.f, a.error, b.f, b.error, v.f);
    }
    return v;
}

/* Where the condition is open the other side may be meant. */
static struct value eval_select(const struct at_expr_node *n, struct value c, struct value a,
                                struct value b)
{
    struct value v = c.i ? a : b;
    if (c.error > 0 && n->type == AT_X_FLOAT)
        v.error = fmax(a.error, b.error) + fabs(a.f - b.f);
    else if (c.error > 0)
        v.error = n->type == AT_X_INT && a.error + b.error == 0 ? fabs((double)a.i - (double)b.i)
                                                                : (double)INFINITY;
    return v;
}

double at_expr_eval(const struct at_expr *x, const struct at_expr_point *p, double *error)
{
    struct value v[AT_EXPR_NODES];
    for (int k = 0; k < x->n; k++) {
        const struct at_expr_node *n = &x->node[k];
        const int16_t *arg = n->arg;
        if (n->op == AT_X_NUMBER)
            v[k] = n->type == AT_X_FLOAT ? (struct value){.f = n->value.f}
                                         : (struct value){.i = n->value.i};
        else if (n->op == AT_X_LOAD)
            v[k] = eval_load(n, p, v);
        else if (n->op == AT_X_SELECT)
            v[k] = eval_select(n, v[arg[0]], v[arg[1]], v[arg[2]]);
        else if (n->nargs == 2)
            v[k] = eval_op2(n, v[arg[0]], v[arg[1]], x->node[arg[0]].type);
        else if (n->nargs == 1)
            v[k] = eval_op1(n, v[arg[0]], x->node[arg[0]].type);
        else
            v[k] = eval_variable(n->op, p);
    }
    const struct value *root = &v[x->root];
    if (error)
        *error = root->error >= 0 ? root->error : (double)INFINITY;
    return x->node[x->root].type == AT_X_FLOAT ? root->f : (double)root->i;
}
