/* SPDX-License-Identifier: MIT */
/* Expressions to straight-line programs over rows of values: which shape and width each node has,
 * in what order, and where its row lies in scratch.
 *
 * Integers whose interval fits are I32.  What does not depend on the key goes before the first
 * strip and keeps its row; the rows of a strip are used again as soon as they are free. */
#include "expr.h"

#include <string.h>

/* A step before places are given: operands and result are registers. */
struct reg {
    uint8_t shape, width;
    bool once;
    int32_t place; /* in scratch, or -1 */
    int last;      /* step of the strip that reads it last */
};

struct compile {
    const struct at_expr *x;
    struct at_interval range[AT_EXPR_NODES];
    struct at_vec_op once[AT_EXPR_STEPS / 2], strip[AT_EXPR_STEPS / 2];
    int nonce, nstrip;
    struct reg reg[AT_EXPR_STEPS];
    int nreg;
    int16_t form[AT_EXPR_NODES][2][4]; /* register of a node, by wide and shape; -1: none yet */
    bool full;
};

/* ---- steps ---- */

static int emit(struct compile *c, struct at_vec_op op, enum at_vec_width width, bool once)
{
    int *n = once ? &c->nonce : &c->nstrip;
    if (*n == AT_EXPR_STEPS / 2) {
        c->full = true;
        return 0;
    }
    op.dst = c->nreg;
    c->reg[c->nreg] =
        (struct reg){.shape = op.shape, .width = (uint8_t)width, .once = once, .place = -1};
    (once ? c->once : c->strip)[(*n)++] = op;
    return c->nreg++;
}

static bool all_once(const struct compile *c, const struct at_vec_op *op)
{
    bool once = true;
    for (int k = 0; k < op->nargs; k++)
        once = once && c->reg[op->arg[k]].once;
    return once;
}

/* The node's register in a width and shape that hold it. */
static int get(struct compile *c, int node, bool wide, enum at_vec_shape shape)
{
    int16_t *known = &c->form[node][wide][shape];
    if (*known >= 0)
        return *known;
    int from = -1;
    for (int s = AT_V_FULL; s >= 0; s--) /* the node's own form, or one made from it */
        if (c->form[node][wide][s] >= 0 && (s & (int)shape) == s)
            from = c->form[node][wide][s];
    struct at_vec_op op = {.nargs = 1, .shape = (uint8_t)shape};
    if (from < 0) { /* only an I32 is there: widen it first, in its own shape */
        for (int s = AT_V_FULL; s >= 0; s--)
            if (c->form[node][0][s] >= 0)
                from = c->form[node][0][s];
        op.op = AT_V_WIDEN;
        op.shape = c->reg[from].shape;
        op.arg[0] = from;
        c->form[node][1][op.shape] = (int16_t)emit(c, op, AT_V_I64, c->reg[from].once);
        return get(c, node, wide, shape);
    }
    op.op = AT_V_SPREAD;
    op.from = c->reg[from].shape;
    op.width = c->reg[from].width;
    op.arg[0] = from;
    return *known = (int16_t)emit(c, op, op.width, c->reg[from].once);
}

static bool fits(struct at_interval r)
{
    return r.lo >= INT32_MIN && r.hi <= INT32_MAX;
}

/* The shape and, of integers, the width of a node's own row, as emitted. */
static enum at_vec_shape shape_of(const struct compile *c, int node)
{
    for (int wide = 0; wide < 2; wide++)
        for (int s = 0; s < 4; s++)
            if (c->form[node][wide][s] >= 0)
                return (enum at_vec_shape)c->reg[c->form[node][wide][s]].shape;
    return AT_V_ONE;
}

static bool is_wide(const struct compile *c, int node)
{
    for (int s = 0; s < 4; s++)
        if (c->form[node][0][s] >= 0)
            return false;
    return c->x->node[node].type == AT_X_INT;
}

static void leaf(struct compile *c, int node)
{
    static const uint8_t shapes[] = {
        [AT_X_NUMBER] = AT_V_ONE, [AT_X_SCORE] = AT_V_FULL, [AT_X_B] = AT_V_ONE,
        [AT_X_H] = AT_V_LANES,    [AT_X_I] = AT_V_LANES,    [AT_X_J] = AT_V_KEYS,
        [AT_X_SQ] = AT_V_ONE,     [AT_X_SKV] = AT_V_ONE};
    const struct at_expr_node *n = &c->x->node[node];
    bool wide = n->type == AT_X_INT && !fits(c->range[node]);
    enum at_vec_width width = n->type == AT_X_FLOAT ? AT_V_F32 : wide ? AT_V_I64 : AT_V_I32;
    struct at_vec_op op = {
        .op = n->op, .width = (uint8_t)width, .shape = shapes[n->op], .value.i = n->value.i};
    c->form[node][wide][op.shape] = (int16_t)emit(c, op, width, (op.shape & AT_V_KEYS) == 0);
}

static void inner(struct compile *c, int node)
{
    const struct at_expr_node *n = &c->x->node[node];
    struct at_vec_op op = {.op = n->op, .nargs = n->nargs, .capture = n->capture};
    bool wide = n->type == AT_X_INT && !fits(c->range[node]), index = n->op == AT_X_LOAD;
    bool of_wide = wide && !index;
    for (int k = 0; k < n->nargs; k++) {
        op.shape |= (uint8_t)shape_of(c, n->arg[k]);
        of_wide = of_wide || is_wide(c, n->arg[k]);
    }
    for (int k = 0; k < n->nargs; k++) {
        bool integer = c->x->node[n->arg[k]].type == AT_X_INT;
        op.arg[k] = get(c, n->arg[k], of_wide && integer, (enum at_vec_shape)op.shape);
    }
    enum at_expr_type of = n->nargs > 0 ? c->x->node[n->arg[n->nargs - 1]].type : n->type;
    enum at_vec_width from = of == AT_X_FLOAT ? AT_V_F32 : of_wide ? AT_V_I64 : AT_V_I32;
    enum at_vec_width to = n->type == AT_X_FLOAT                             ? AT_V_F32
                           : n->type == AT_X_INT && (index ? wide : of_wide) ? AT_V_I64
                                                                             : AT_V_I32;
    op.width = (uint8_t)(index ? to : from);
    op.index_wide = of_wide;
    c->form[node][to == AT_V_I64][op.shape] = (int16_t)emit(c, op, to, all_once(c, &op));
}

/* ---- places in scratch ---- */

static int64_t bytes_of(const struct reg *r)
{
    int64_t element = r->width == AT_V_I64 ? 8 : 4;
    int64_t count = r->shape == AT_V_ONE     ? 16
                    : r->shape == AT_V_LANES ? AT_EXPR_LANES
                                             : AT_EXPR_STRIP;
    return count * element;
}

/* A row of a strip that nobody reads from step `at` on, or new room at the end. */
static int32_t place_row(struct compile *c, int reg, int at, int64_t *end)
{
    struct reg *r = &c->reg[reg];
    for (int k = 0; k < reg; k++) {
        struct reg *old = &c->reg[k];
        if (!old->once && old->place >= 0 && old->last < at && bytes_of(old) == bytes_of(r)) {
            int32_t place = old->place;
            old->place = -1;
            return place;
        }
    }
    int32_t place = (int32_t)*end;
    *end += bytes_of(r);
    return place;
}

static void append(struct compile *c, struct at_expr_program *p, struct at_vec_op op, int32_t dst)
{
    for (int k = 0; k < op.nargs; k++)
        op.arg[k] = c->reg[op.arg[k]].place;
    c->reg[op.dst].place = dst;
    op.dst = dst;
    p->op[p->n++] = op;
}

static void lay_out(struct compile *c, struct at_expr_program *p, int result)
{
    for (int k = 0; k < c->nstrip; k++)
        for (int a = 0; a < c->strip[k].nargs; a++)
            c->reg[c->strip[k].arg[a]].last = k;
    for (int k = 0; k < c->nstrip; k++) /* what nobody reads is written once all the same */
        c->reg[c->strip[k].dst].last = (int)at_max(c->reg[c->strip[k].dst].last, k);
    c->reg[result].last = c->nstrip;
    for (int k = 0; k < c->nonce; k++) {
        int32_t place = (int32_t)p->scratch;
        p->scratch += bytes_of(&c->reg[c->once[k].dst]);
        append(c, p, c->once[k], place);
    }
    p->once = p->n;
    for (int k = 0; k < c->nstrip; k++)
        append(c, p, c->strip[k], place_row(c, c->strip[k].dst, k, &p->scratch));
    p->result = c->reg[result].place;
}

int at_expr_compile(const struct at_expr *x, const struct at_expr_box *box,
                    struct at_expr_program *p, char *err, size_t errlen)
{
    struct compile c = {.x = x};
    memset(c.form, -1, sizeof c.form);
    at_expr_intervals(x, box, c.range);
    for (int k = 0; k < x->n && !c.full; k++)
        x->node[k].nargs ? inner(&c, k) : leaf(&c, k);
    int result = c.full ? 0 : get(&c, x->root, false, AT_V_FULL);
    if (c.full)
        return at_say(err, errlen, ATTEND_ELIMIT, "an expression takes more than %d steps",
                      AT_EXPR_STEPS / 2);
    *p = (struct at_expr_program){.score = x->score};
    lay_out(&c, p, result);
    return 0;
}
