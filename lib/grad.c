/* SPDX-License-Identifier: MIT */
/* attend_grad: from the last node to the first, each operator's gradient of its inputs from those
 * of its outputs.  What several nodes read has the sum of what they give, in that order.
 *
 * With recompute the backward graph reads no temporary of the forward graph but those that are
 * kept: the nodes that made the others are appended again, each once, where the first gradient
 * needs it. The memory plan then sees short lives on both sides. */
#include "grad.h"

#include <string.h>

static attend_tensor handle(const struct at_grad *w, int id)
{
    return w->g->err.status || id < 0 ? attend_none() : (attend_tensor){w->g, id};
}

bool at_grad_wanted(const struct at_grad *w, const struct at_node *n, int k)
{
    return k < n->nin && n->in[k] >= 0 && w->depends[n->in[k]];
}

attend_tensor at_grad_out(const struct at_grad *w, const struct at_node *n, int k)
{
    return k < n->nout && n->out[k] >= 0 ? handle(w, w->of[n->out[k]]) : attend_none();
}

int at_grad_refuse(struct at_grad *w, const struct at_node *n, const char *why)
{
    const struct at_node *place = n->out[0] >= 0 ? &w->g->node[w->g->tensor[n->out[0]].node] : n;
    return at_graph_fail(w->g, place, ATTEND_EUNSUPPORTED, "no gradient: %s", why);
}

attend_tensor at_grad_node(struct at_grad *w, enum at_opcode op, const attend_tensor *in, int n,
                           const union at_params *p)
{
    int id[AT_MAX_IN];
    for (int k = 0; k < n; k++)
        id[k] = in[k].graph ? in[k].id : -1;
    return handle(w, at_graph_add(w->g, op, id, n, p, NULL));
}

attend_tensor at_grad_zero(struct at_grad *w)
{
    static const float zero = 0;
    return attend_graph_const(w->g, "zero", ATTEND_F32, (attend_shape){0}, &zero, sizeof zero);
}

/* ---- recomputation ---- */

/* Appends node i again, reading what is kept or was itself computed again. */
static void repeat(struct at_grad *w, int i)
{
    attend_graph *g = w->g;
    struct at_node n = g->node[i];
    int in[AT_MAX_IN];
    for (int k = 0; k < n.nin; k++)
        in[k] = n.in[k] < 0 ? -1 : at_grad_use(w, n.in[k]).id;
    if (g->err.status)
        return;
    const struct at_tensor *out = &g->tensor[n.out[0]];
    attend_shape shape = {.rank = out->rank};
    memcpy(shape.dim, out->shape, sizeof shape.dim);
    if (n.op == AT_SLICE)
        shape = (attend_shape){1, {out->shape[n.p.slice.axis]}};
    if (at_graph_add(g, n.op, in, n.nin, &n.p, &shape) < 0)
        return;
    for (int k = 0; k < n.nout; k++)
        if (n.out[k] >= 0)
            w->again[n.out[k]] = g->node[g->nnode - 1].out[k];
}

attend_tensor at_grad_use(struct at_grad *w, int t)
{
    const struct at_tensor *x = &w->g->tensor[t];
    if (t < 0 || !w->recompute || x->class != AT_TEMP || w->keep[t])
        return handle(w, t);
    if (w->again[t] < 0)
        repeat(w, x->node);
    return handle(w, w->again[t]);
}

attend_tensor at_grad_in(struct at_grad *w, const struct at_node *n, int k)
{
    return k < n->nin && n->in[k] >= 0 ? at_grad_use(w, n->in[k]) : attend_none();
}

/* ---- sums of gradients ---- */

/* dy summed over what t was broadcast along. */
static attend_tensor fit(struct at_grad *w, int t, attend_tensor dy)
{
    if (w->g->err.status || !dy.graph)
        return attend_none();
    const struct at_tensor *a = &w->g->tensor[t], *b = &w->g->tensor[dy.id];
    attend_shape shape = {.rank = a->rank};
    memcpy(shape.dim, a->shape, sizeof shape.dim);
    bool same =
        a->rank == b->rank && !memcmp(a->shape, b->shape, (size_t)a->rank * sizeof *a->shape);
    return same ? dy : attend_graph_sum(w->g, dy, shape);
}

void at_grad_give_to(struct at_grad *w, int t, attend_tensor dy)
{
    dy = fit(w, t, dy);
    if (w->of[t] >= 0)
        dy = attend_graph_add(w->g, handle(w, w->of[t]), dy);
    if (dy.graph)
        w->of[t] = dy.id;
}

void at_grad_give(struct at_grad *w, const struct at_node *n, int k, attend_tensor dy)
{
    if (at_grad_wanted(w, n, k) && !w->g->err.status)
        at_grad_give_to(w, n->in[k], dy);
}

/* ---- the walk ---- */

static void mark_dependent(struct at_grad *w)
{
    const attend_graph *g = w->g;
    for (int i = 0; i < w->nnode; i++) {
        bool any = false;
        for (int k = 0; k < g->node[i].nin; k++)
            any = any || (g->node[i].in[k] >= 0 && w->depends[g->node[i].in[k]]);
        for (int k = 0; any && k < g->node[i].nout; k++)
            if (g->node[i].out[k] >= 0)
                w->depends[g->node[i].out[k]] = true;
    }
}

static int walk_back(struct at_grad *w)
{
    attend_graph *g = w->g;
    const char *label = g->label;
    for (int i = w->nnode - 1; i >= 0 && g->err.status == 0; i--) {
        struct at_node n = g->node[i]; /* nodes move when there are more */
        bool given = false, wanted = false;
        g->label = n.label;
        for (int k = 0; k < n.nout; k++)
            at_grad_join(w, n.out[k]);
        for (int k = 0; k < n.nout; k++)
            given = given || (n.out[k] >= 0 && w->of[n.out[k]] >= 0);
        for (int k = 0; k < n.nin; k++)
            wanted = wanted || at_grad_wanted(w, &n, k);
        if (!given || !wanted || n.dead)
            continue;
        if (at_op_writes(n.op))
            at_grad_refuse(w, &n, "a state that was written is behind it");
        else if (!at_ops[n.op].grad)
            at_grad_refuse(w, &n, "the operator has none");
        else
            at_ops[n.op].grad(w, &n);
    }
    g->label = label;
    return g->err.status;
}

/* The gradient that an output begins with: as given, or 1 for a number. */
static attend_tensor seed(struct at_grad *w, int t, const attend_tensor *given)
{
    static const float one = 1;
    attend_graph *g = w->g;
    if (given && given->graph) {
        int id = at_graph_use(g, *given, "a seed of attend_grad");
        if (id >= 0 && (g->tensor[id].rank != g->tensor[t].rank ||
                        memcmp(g->tensor[id].shape, g->tensor[t].shape,
                               (size_t)g->tensor[t].rank * sizeof(int64_t))))
            at_fail(&g->err, ATTEND_EINVAL,
                    "attend_grad: a seed has another shape than its output");
        return handle(w, id);
    }
    for (int d = 0; d < g->tensor[t].rank; d++)
        if (g->tensor[t].shape[d] != 1)
            at_fail(&g->err, ATTEND_EINVAL,
                    "attend_grad: an output of more than one number has no seed");
    attend_shape shape = {
        .rank = g->tensor[t].rank, .dim = {1, 1, 1, 1, 1, 1}
    };
    return attend_graph_const(g, "one", ATTEND_F32, shape, &one, sizeof one);
}

static bool is_float(attend_type t)
{
    return t == ATTEND_F32 || t == ATTEND_F16 || t == ATTEND_BF16;
}

/* Where nothing came: zeros of the shape. */
static attend_tensor result(struct at_grad *w, int t)
{
    attend_graph *g = w->g;
    at_grad_join(w, t); /* of what no node made */
    if (w->of[t] >= 0 || g->err.status)
        return handle(w, w->of[t]);
    attend_shape shape =
                     {
                         .rank = g->tensor[t].rank
    },
                 ones = {.rank = shape.rank, .dim = {1, 1, 1, 1, 1, 1}};
    memcpy(shape.dim, g->tensor[t].shape, sizeof shape.dim);
    return attend_graph_expand(g, attend_graph_reshape(g, at_grad_zero(w), ones), shape);
}

void attend_grad_opts_init(attend_grad_opts *opts)
{
    *opts = (attend_grad_opts){.size = sizeof *opts, .fuse = 1};
}

static int begin(struct at_grad *w, const attend_tensor *outputs, int noutputs,
                 const attend_tensor *inputs, int ninputs, const attend_grad_opts *o)
{
    attend_graph *g = w->g;
    w->recompute = o->recompute != 0;
    if (o->fuse && at_canon_fuse(g) < 0)
        return g->err.status;
    w->ntensor = g->ntensor;
    w->nnode = g->nnode;
    w->of = at_alloc(g->ctx, (int64_t)g->ntensor * (int64_t)sizeof *w->of);
    w->again = at_alloc(g->ctx, (int64_t)g->ntensor * (int64_t)sizeof *w->again);
    w->depends = at_calloc(g->ctx, g->ntensor, sizeof *w->depends);
    w->keep = at_calloc(g->ctx, g->ntensor, sizeof *w->keep);
    w->joined = at_calloc(g->ctx, g->ntensor, sizeof *w->joined);
    if (!w->of || !w->again || !w->depends || !w->keep || !w->joined)
        return at_fail(&g->err, ATTEND_ENOMEM, "no memory for gradients");
    memset(w->of, -1, (size_t)g->ntensor * sizeof *w->of);
    memset(w->again, -1, (size_t)g->ntensor * sizeof *w->again);
    for (int i = 0; i < ninputs; i++) {
        int t = at_graph_use(g, inputs[i], "an input of attend_grad");
        if (t >= 0 && !is_float(g->tensor[t].type))
            return at_fail(&g->err, ATTEND_EINVAL,
                           "attend_grad: input %d is %s, which has no gradient", i,
                           attend_type_name(g->tensor[t].type));
        if (t >= 0)
            w->depends[t] = w->keep[t] = true;
    }
    for (int i = 0; i < noutputs; i++)
        if (at_graph_use(g, outputs[i], "an output of attend_grad") >= 0)
            w->keep[outputs[i].id] = true;
    for (int i = 0; i < o->nkeep; i++)
        if (at_graph_use(g, o->keep[i], "a kept tensor of attend_grad") >= 0)
            w->keep[o->keep[i].id] = true;
    return g->err.status;
}

int attend_grad(attend_graph *g, const attend_tensor *outputs, const attend_tensor *seeds,
                int noutputs, const attend_tensor *inputs, int ninputs, attend_tensor *grads,
                const attend_grad_opts *opts)
{
    attend_grad_opts o;
    struct at_grad w = {.g = g};
    attend_grad_opts_init(&o);
    at_opts_take(&g->err, "attend_grad_opts", &o, sizeof o, opts);
    for (int i = 0; i < ninputs; i++)
        grads[i] = attend_none();
    int status = g->err.status ? g->err.status : begin(&w, outputs, noutputs, inputs, ninputs, &o);
    if (status == 0)
        mark_dependent(&w);
    for (int i = 0; i < noutputs && status == 0; i++) {
        at_grad_give_to(&w, outputs[i].id, seed(&w, outputs[i].id, seeds ? &seeds[i] : NULL));
        status = g->err.status;
    }
    if (status == 0)
        status = walk_back(&w);
    for (int i = 0; i < ninputs && status == 0; i++) {
        grads[i] = result(&w, inputs[i].id);
        status = g->err.status;
    }
    at_free(g->ctx, w.of);
    at_free(g->ctx, w.again);
    at_free(g->ctx, w.depends);
    at_free(g->ctx, w.keep);
    at_free(g->ctx, w.joined);
    return status;
}
