/* SPDX-License-Identifier: MIT */
/* An expression as the body of a C function, for compilers of OpenCL C, of CUDA C++ and of C: a
 * declaration a node, then `return`.  Its parameters are score, b, h, i, j, sq and skv; tensor NAME
 * is read by at_load_NAME(index, ...), which whoever prints the kernel defines.  Integers that fit
 * are int, so most expressions look as they were written. */
#include "expr.h"

#include <math.h>
#include <string.h>

struct dialect {
    const char *wide, *unsigned_wide, *suffix; /* 64-bit integers, and of their literals */
    const char *f;                             /* what names of f32 functions end in */
    const char *function, *infinity;
};

static const struct dialect dialects[] = {
    [AT_EXPR_OPENCL] = {"long",      "ulong",              "L",  "",  "inline",            "INFINITY"},
    [AT_EXPR_CUDA] = {"long long", "unsigned long long", "LL", "f", "__device__ inline",
                        "__int_as_float(0x7f800000)"                                                 },
    [AT_EXPR_C] = {"long long", "unsigned long long", "LL", "f", "static inline",     "INFINITY"},
};

void at_expr_print_prelude(enum at_expr_dialect which, struct at_str *s)
{
    const struct dialect *d = &dialects[which];
    const char *const types[] = {"int", d->wide}, *const unsigned_types[] = {"unsigned",
                                                                             d->unsigned_wide};
    for (int wide = 0; wide < 2; wide++) {
        const char *t = types[wide], *u = unsigned_types[wide], *end = wide ? "64" : "";
        at_str_add(s,
                   "%s %s at_div%s(%s a, %s b)\n"
                   "{\n"
                   "    if (b == 0 || b == -1)\n"
                   "        return b == 0 ? 0 : (%s)(0 - (%s)a);\n"
                   "    return a / b - (a %% b != 0 && (a < 0) != (b < 0));\n"
                   "}\n",
                   d->function, t, end, t, t, t, u);
        at_str_add(s,
                   "%s %s at_mod%s(%s a, %s b)\n"
                   "{\n"
                   "    if (b == 0 || b == -1)\n"
                   "        return 0;\n"
                   "    %s r = a %% b;\n"
                   "    return r != 0 && (r < 0) != (b < 0) ? r + b : r;\n"
                   "}\n",
                   d->function, t, end, t, t, t);
    }
}

struct print {
    const struct at_expr *x;
    const struct dialect *d;
    struct at_str *s;
    struct at_interval range[AT_EXPR_NODES];
    bool wide[AT_EXPR_NODES]; /* computed in 64 bits */
};

static void number(struct print *p, const struct at_expr_node *n, bool wide)
{
    double f = n->value.f;
    if (n->type != AT_X_FLOAT && n->value.i == INT64_MIN)
        at_str_add(p->s, "(-%lld%s - 1)", (long long)INT64_MAX, p->d->suffix);
    else if (n->type != AT_X_FLOAT && n->value.i == INT32_MIN)
        at_str_add(p->s, "(-2147483647 - 1)");
    else if (n->type != AT_X_FLOAT)
        at_str_add(p->s, "%lld%s", (long long)n->value.i, wide ? p->d->suffix : "");
    else if (isnan(f))
        at_str_add(p->s, "(%s - %s)", p->d->infinity, p->d->infinity);
    else if (isinf(f))
        at_str_add(p->s, "%s%s", f < 0 ? "-" : "", p->d->infinity);
    else /* enough digits for an f32, and a floating literal in every dialect */
        at_str_add(p->s, "%.9ef", f);
}

/* a OP b; sums and products that may pass 64 bits wrap there. */
static void infix(struct print *p, const char *op, int a, int b, bool wraps)
{
    if (wraps)
        at_str_add(p->s, "(%s)((%s)t%d %s (%s)t%d)", p->d->wide, p->d->unsigned_wide, a, op,
                   p->d->unsigned_wide, b);
    else
        at_str_add(p->s, "t%d %s t%d", a, op, b);
}

static void two(struct print *p, const struct at_expr_node *n, bool wide)
{
    static const char *const ops[] = {
        [AT_X_ADD] = "+", [AT_X_SUB] = "-", [AT_X_MUL] = "*", [AT_X_DIV] = "/",
        [AT_X_LT] = "<",  [AT_X_LE] = "<=", [AT_X_EQ] = "==", [AT_X_AND] = "&&",
        [AT_X_OR] = "||", [AT_X_MIN] = "<", [AT_X_MAX] = ">"};
    int a = n->arg[0], b = n->arg[1];
    bool integers = p->x->node[a].type == AT_X_INT;
    if (integers && (n->op == AT_X_DIV || n->op == AT_X_MOD))
        at_str_add(p->s, "at_%s%s(t%d, t%d)", n->op == AT_X_DIV ? "div" : "mod", wide ? "64" : "",
                   a, b);
    else if (n->op == AT_X_MIN || n->op == AT_X_MAX)
        at_str_add(p->s, "t%d %s t%d ? t%d : t%d", a, ops[n->op], b, a, b);
    else
        infix(p, ops[n->op], a, b, wide && n->op <= AT_X_MUL);
}

static void one(struct print *p, const struct at_expr_node *n, bool wide)
{
    static const char *const calls[] = {[AT_X_EXP] = "exp",
                                        [AT_X_LOG] = "log",
                                        [AT_X_SQRT] = "sqrt",
                                        [AT_X_TANH] = "tanh",
                                        [AT_X_FLOOR] = "floor"};
    int a = n->arg[0];
    if (n->op == AT_X_NOT)
        at_str_add(p->s, "!t%d", a);
    else if (n->op == AT_X_TO_FLOAT)
        at_str_add(p->s, "(float)t%d", a);
    else if (n->op == AT_X_NEG && wide)
        at_str_add(p->s, "(%s)(0 - (%s)t%d)", p->d->wide, p->d->unsigned_wide, a);
    else if (n->op == AT_X_NEG)
        at_str_add(p->s, "-t%d", a);
    else if (n->op == AT_X_ABS && n->type == AT_X_FLOAT)
        at_str_add(p->s, "fabs%s(t%d)", p->d->f, a);
    else if (n->op == AT_X_ABS && wide)
        at_str_add(p->s, "t%d < 0 ? (%s)(0 - (%s)t%d) : t%d", a, p->d->wide, p->d->unsigned_wide, a,
                   a);
    else if (n->op == AT_X_ABS)
        at_str_add(p->s, "t%d < 0 ? -t%d : t%d", a, a, a);
    else
        at_str_add(p->s, "%s%s(t%d)", calls[n->op], p->d->f, a);
}

static void value(struct print *p, int k)
{
    static const char *const names[] = {"score", "b", "h", "i", "j", "sq", "skv"};
    const struct at_expr_node *n = &p->x->node[k];
    if (n->op == AT_X_NUMBER)
        number(p, n, p->wide[k]);
    else if (n->op <= AT_X_SKV)
        at_str_add(p->s, "%s", names[n->op - AT_X_SCORE]);
    else if (n->op == AT_X_SELECT)
        at_str_add(p->s, "t%d ? t%d : t%d", n->arg[0], n->arg[1], n->arg[2]);
    else if (n->op != AT_X_LOAD)
        n->nargs == 2 ? two(p, n, p->wide[k]) : one(p, n, p->wide[k]);
    else {
        at_str_add(p->s, "at_load_%s(", p->x->capture[n->capture].name);
        for (int a = 0; a < n->nargs; a++)
            at_str_add(p->s, "%st%d", a ? ", " : "", n->arg[a]);
        at_str_add(p->s, ")");
    }
}

/* An integer is wide where it may not fit, or comes from one that is (but for what a tensor holds).
 */
static bool is_wide(const struct print *p, int k)
{
    const struct at_expr_node *n = &p->x->node[k];
    bool wide = p->range[k].lo < INT32_MIN || p->range[k].hi > INT32_MAX;
    for (int a = 0; a < n->nargs && n->op != AT_X_LOAD; a++)
        wide = wide || p->wide[n->arg[a]];
    return n->type == AT_X_INT && wide;
}

void at_expr_print(const struct at_expr *x, enum at_expr_dialect dialect,
                   const struct at_expr_box *box, struct at_str *s)
{
    struct print p = {.x = x, .d = &dialects[dialect], .s = s};
    at_expr_intervals(x, box, p.range);
    for (int k = 0; k < x->n; k++) {
        p.wide[k] = is_wide(&p, k);
        at_str_add(s, "    %s t%d = ",
                   x->node[k].type == AT_X_FLOAT ? "float"
                   : p.wide[k]                   ? p.d->wide
                                                 : "int",
                   k);
        value(&p, k);
        at_str_add(s, ";\n");
    }
    at_str_add(s, "    return t%d;\n", x->root);
}
