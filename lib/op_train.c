/* SPDX-License-Identifier: MIT */
/* The operators that training adds: sums, losses, optimisers, and the gradients of operators that
 * are no composition of others.  The latter are only made by grad_ops.c, which knows that they fit;
 * what users call checks what it is given. */
#include <string.h>

#include "grad.h"
#include "op.h"

/* Output k: f32, in memory as tensor `like` (or -1) is, where its rows are rows. */
static int result(attend_graph *g, struct at_node *n, int rank, const int64_t *shape, int like)
{
    int id = at_graph_tensor(g, ATTEND_F32, rank, shape);
    if (id < 0)
        return -1;
    n->out[n->nout++] = id;
    const struct at_tensor *t = like < 0 ? NULL : &g->tensor[like];
    if (t && t->rank == rank && rank > 0 && t->order[rank - 1] == rank - 1)
        memcpy(g->tensor[id].order, t->order, sizeof t->order);
    return id;
}

static int result_like(attend_graph *g, struct at_node *n, int t)
{
    return result(g, n, g->tensor[t].rank, g->tensor[t].shape, t);
}

static bool same_shape(const struct at_tensor *a, const struct at_tensor *b)
{
    return a->rank == b->rank && !memcmp(a->shape, b->shape, (size_t)a->rank * sizeof *a->shape);
}

/* ---- sums and their opposites ---- */

int at_infer_sum(attend_graph *g, struct at_node *n, const attend_shape *shape)
{
    char from[128], to[128];
    const struct at_tensor *a = at_op_input(g, n, 0);
    if (at_op_want_float(g, n, 0, 0) < 0)
        return -1;
    bool fits = shape->rank >= 0 && shape->rank <= a->rank;
    for (int d = 0; fits && d < shape->rank; d++)
        fits = shape->dim[d] == 1 || shape->dim[d] == a->shape[a->rank - shape->rank + d];
    if (!fits)
        return at_graph_fail(g, n, ATTEND_EINVAL, "%s to %s: extents must stay or become 1",
                             at_shape_text(&g->dims, a->rank, a->shape, from, sizeof from),
                             at_shape_text(&g->dims, shape->rank, shape->dim, to, sizeof to));
    return result(g, n, shape->rank, shape->dim, n->in[0]);
}

static attend_tensor sum(attend_graph *g, attend_tensor a, attend_shape shape,
                         enum at_sum_mode mode)
{
    union at_params p = {.sum = {.mode = mode}};
    int in[] = {at_graph_use(g, a, "sum")};
    return at_op_append(g, AT_SUM, in, 1, &p, &shape);
}

attend_tensor attend_graph_sum(attend_graph *g, attend_tensor a, attend_shape shape)
{
    return sum(g, a, shape, AT_SUM_ALL);
}

attend_tensor attend_graph_mean(attend_graph *g, attend_tensor a, attend_shape shape)
{
    return sum(g, a, shape, AT_SUM_MEAN);
}

/* Zeros of a shape, with input 0 at a place of one axis: what the gradient of a slice is. */
int at_infer_pad(attend_graph *g, struct at_node *n, const attend_shape *shape)
{
    return result(g, n, shape->rank, shape->dim, n->in[0]);
}

int at_infer_like(attend_graph *g, struct at_node *n, const attend_shape *shape)
{
    (void)shape;
    return result_like(g, n, n->in[0]);
}

/* ---- losses ---- */

int at_infer_cross_entropy(attend_graph *g, struct at_node *n, const attend_shape *shape)
{
    const struct at_tensor *a = at_op_input(g, n, 0), *target = at_op_input(g, n, 1);
    (void)shape;
    if (at_op_want_float(g, n, 0, 0) < 0)
        return -1;
    if (target->type != ATTEND_I32)
        return at_graph_fail(g, n, ATTEND_EINVAL, "targets are %s, wants i32",
                             attend_type_name(target->type));
    if (a->rank < 1 || target->rank != a->rank - 1 ||
        memcmp(a->shape, target->shape, (size_t)target->rank * sizeof *a->shape))
        return at_op_misfit(g, n, a, target, "wants logits (..., V) and targets (...)");
    return result(g, n, 0, NULL, -1);
}

attend_tensor attend_graph_cross_entropy(attend_graph *g, attend_tensor logits,
                                         attend_tensor targets)
{
    int in[] = {at_graph_use(g, logits, "cross_entropy"),
                at_graph_use(g, targets, "the targets of cross_entropy")};
    return at_op_append(g, AT_CROSS_ENTROPY, in, 2, NULL, NULL);
}

int at_infer_square_loss(attend_graph *g, struct at_node *n, const attend_shape *shape)
{
    (void)shape;
    if (at_op_want_float(g, n, 0, 0) < 0 || at_op_want_float(g, n, 1, 0) < 0)
        return -1;
    if (!same_shape(at_op_input(g, n, 0), at_op_input(g, n, 1)))
        return at_op_misfit(g, n, at_op_input(g, n, 0), at_op_input(g, n, 1), "wants equal shapes");
    return result(g, n, 0, NULL, -1);
}

attend_tensor attend_graph_square_loss(attend_graph *g, attend_tensor a, attend_tensor b)
{
    int in[] = {at_graph_use(g, a, "square_loss"), at_graph_use(g, b, "square_loss")};
    return at_op_append(g, AT_SQUARE_LOSS, in, 2, NULL, NULL);
}

/* ---- optimisers ---- */

int at_infer_clip(attend_graph *g, struct at_node *n, const attend_shape *shape)
{
    (void)shape;
    if (!(n->p.clip.most > 0))
        return at_graph_fail(g, n, ATTEND_EINVAL, "the largest norm is %g, wants a number above 0",
                             (double)n->p.clip.most);
    return result(g, n, 0, NULL, -1);
}

attend_tensor attend_graph_clip(attend_graph *g, const attend_tensor *grads, int n, float most)
{
    attend_tensor all = attend_none();
    union at_params p = {.clip = {.most = most}};
    for (int i = 0; i < n; i++) {
        attend_tensor one = sum(g, grads[i], (attend_shape){0}, AT_SUM_SQUARES);
        all = i ? attend_graph_add(g, all, one) : one;
    }
    int in[] = {at_graph_use(g, all, "the gradients of clip")};
    return at_op_append(g, AT_CLIP, in, 1, &p, NULL);
}

/* Inputs of both: the weights, [states that go with them,] their gradient, rate, step, factor. */
static int states_of(const struct at_node *n)
{
    return n->op == AT_ADAMW ? 3 : n->in[1] >= 0 ? 2 : 1;
}

int at_infer_update(attend_graph *g, struct at_node *n, const attend_shape *shape)
{
    static const char *const what[] = {"the weights", "the first moment", "the second moment"};
    int states = states_of(n), first = n->op == AT_ADAMW ? 3 : 2;
    const struct at_tensor *w = at_op_input(g, n, 0);
    (void)shape;
    for (int k = 0; k < states; k++) {
        const struct at_tensor *t = at_op_input(g, n, k);
        if (t->class != AT_STATE || t->type != ATTEND_F32 ||
            (t->node >= 0 && at_ops[g->node[t->node].op].view))
            return at_graph_fail(g, n, ATTEND_EINVAL, "%s are no f32 state", what[k]);
        if (!same_shape(t, w))
            return at_op_misfit(g, n, t, w, "moments have the shape of their weights");
        for (int o = 0; o < k; o++)
            if (g->tensor[n->in[o]].root == t->root)
                return at_graph_fail(g, n, ATTEND_EINVAL, "%s and %s are one state", what[o],
                                     what[k]);
    }
    if (!same_shape(at_op_input(g, n, first), w))
        return at_op_misfit(g, n, at_op_input(g, n, first), w,
                            "the gradient has the shape of the weights");
    for (int k = first; k < n->nin; k++)
        if (n->in[k] >= 0 && (at_op_input(g, n, k)->type != ATTEND_F32 ||
                              (k > first && at_op_input(g, n, k)->rank != 0)))
            return at_graph_fail(
                g, n, ATTEND_EINVAL,
                "gradient, rate, step and factor must be f32, the last three numbers");
    for (int k = 0; k < states; k++) {
        int old = n->in[k], id = result_like(g, n, old);
        if (id < 0)
            return -1;
        struct at_tensor *next = &g->tensor[id];
        memcpy(next->order, g->tensor[old].order, sizeof next->order);
        next->class = AT_STATE;
        next->of = old;
        next->root = g->tensor[old].root;
        g->tensor[old].next_version = id;
    }
    return 0;
}

void attend_update_opts_init(attend_update_opts *opts)
{
    *opts = (attend_update_opts){.size = sizeof *opts,
                                 .beta1 = 0.9f,
                                 .beta2 = 0.999f,
                                 .eps = 1e-8f,
                                 .factor = attend_none()};
}

static union at_params update_params(attend_graph *g, const attend_update_opts *opts,
                                     attend_update_opts *o)
{
    attend_update_opts_init(o);
    at_opts_take(&g->err, "attend_update_opts", o, sizeof *o, opts);
    return (union at_params){
        .update = {.momentum = o->momentum,
                   .decay = o->weight_decay,
                   .beta1 = o->beta1,
                   .beta2 = o->beta2,
                   .eps = o->eps}
    };
}

attend_tensor attend_graph_sgd(attend_graph *g, attend_tensor weights, attend_tensor velocity,
                               attend_tensor grad, attend_tensor rate,
                               const attend_update_opts *opts)
{
    attend_update_opts o;
    union at_params p = update_params(g, opts, &o);
    int in[] = {at_graph_use(g, weights, "the weights of sgd"),
                at_op_maybe(g, velocity, "the velocity of sgd"),
                at_graph_use(g, grad, "the gradient of sgd"),
                at_graph_use(g, rate, "the rate of sgd"),
                at_op_maybe(g, o.factor, "the factor of sgd")};
    return at_op_append(g, AT_SGD, in, 5, &p, NULL);
}

attend_tensor attend_graph_adamw(attend_graph *g, attend_tensor weights, attend_tensor first,
                                 attend_tensor second, attend_tensor grad, attend_tensor rate,
                                 attend_tensor step, const attend_update_opts *opts)
{
    attend_update_opts o;
    union at_params p = update_params(g, opts, &o);
    int in[] = {at_graph_use(g, weights, "the weights of adamw"),
                at_graph_use(g, first, "the first moment"),
                at_graph_use(g, second, "the second moment"),
                at_graph_use(g, grad, "the gradient of adamw"),
                at_graph_use(g, rate, "the rate of adamw"),
                at_graph_use(g, step, "the step of adamw"),
                at_op_maybe(g, o.factor, "the factor of adamw")};
    return at_op_append(g, AT_ADAMW, in, 7, &p, NULL);
}

/* ---- gradients ---- */

/* dO, O, dLSE or none, LSE -> the shape of LSE. */
int at_infer_delta(attend_graph *g, struct at_node *n, const attend_shape *shape)
{
    (void)shape;
    return result(g, n, at_op_input(g, n, 3)->rank, at_op_input(g, n, 3)->shape, -1);
}

int at_infer_attention_grad(attend_graph *g, struct at_node *n, const attend_shape *shape)
{
    (void)shape;
    int last = -1;
    for (int k = 0; k < AT_OUT_COUNT; k++)
        if (n->p.attention.grads >> k & 1 || k == 0)
            last = k;
    for (int k = 0; k <= last; k++) {
        if (!(n->p.attention.grads >> k & 1) && k > 0) {
            n->out[n->nout++] = -1;
            continue;
        }
        if (result_like(g, n, n->in[at_attention_in_of(k)]) < 0)
            return -1;
    }
    return 0;
}

double at_flops_attention_grad(const attend_graph *g, const struct at_node *n, const int64_t *sym)
{
    struct at_node forward = *n;
    forward.out[0] = n->in[AT_IN_GRAD_O];
    return 2.5 * at_ops[AT_ATTENTION].flops(g, &forward, sym);
}

/* o1, lse1, o2, lse2, O, LSE, dO, dLSE or none -> the gradients of the first four */
int at_infer_merge_grad(attend_graph *g, struct at_node *n, const attend_shape *shape)
{
    (void)shape;
    for (int k = 0; k < 4; k++)
        if (result_like(g, n, n->in[k]) < 0)
            return -1;
    return 0;
}

/* x, weight or none, dy -> dx, dweight */
int at_infer_norm_grad(attend_graph *g, struct at_node *n, const attend_shape *shape)
{
    (void)shape;
    if (result_like(g, n, n->in[0]) < 0)
        return -1;
    return n->in[1] < 0 ? 0 : result_like(g, n, n->in[1]);
}

/* table, index, dy -> dtable */
int at_infer_gather_grad(attend_graph *g, struct at_node *n, const attend_shape *shape)
{
    (void)shape;
    return result(g, n, 2, at_op_input(g, n, 0)->shape, -1);
}
