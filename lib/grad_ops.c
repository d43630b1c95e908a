/* SPDX-License-Identifier: MIT */
/* Each operator's gradient, as nodes: what its row of the table names.  Gradients are f32, whatever
 * the type of what they are the gradient of. */
#include "grad.h"

#include <string.h>

static const struct at_tensor *tensor(const struct at_grad *w, int t)
{
    return &w->g->tensor[t];
}

static attend_shape shape_of(const struct at_grad *w, int t)
{
    attend_shape s = {.rank = tensor(w, t)->rank};
    memcpy(s.dim, tensor(w, t)->shape, sizeof s.dim);
    return s;
}

static int status(const struct at_grad *w)
{
    return w->g->err.status;
}

/* Output k of the node that was appended last. */
static attend_tensor last_out(const struct at_grad *w, int k)
{
    const struct at_node *n = &w->g->node[w->g->nnode - 1];
    return status(w) || k >= n->nout || n->out[k] < 0 ? attend_none()
                                                      : (attend_tensor){w->g, n->out[k]};
}

/* ---- matmul ---- */

static attend_tensor transposed(struct at_grad *w, attend_tensor a)
{
    int perm[ATTEND_MAX_RANK], rank = attend_tensor_shape(a).rank;
    for (int d = 0; d < rank; d++)
        perm[d] = d < rank - 2 ? d : 2 * rank - 3 - d;
    return attend_graph_permute(w->g, a, perm);
}

/* One matrix of all rows, where at most one of the merged extents is dynamic. */
static attend_tensor flat(struct at_grad *w, attend_tensor a)
{
    attend_shape s = attend_tensor_shape(a);
    return attend_graph_reshape(w->g, a, ATTEND_SHAPE(ATTEND_INFER, s.dim[s.rank - 1]));
}

static bool may_flatten(const struct at_tensor *a, const struct at_tensor *b)
{
    int dynamic = 0;
    for (int d = 0; d < a->rank - 1; d++)
        dynamic += a->shape[d] < 0;
    return a->rank > 2 && b->rank == 2 && dynamic <= 1;
}

/* c = a b: da = dc b^T, db = a^T dc.  Weights b of a batch of a's see all of it as one matrix. */
int at_grad_matmul(struct at_grad *w, const struct at_node *n)
{
    attend_tensor dy = at_grad_out(w, n, 0);
    bool rows = n->p.matmul.b_rows;
    if (attend_type_block(tensor(w, n->in[1])->type) > 1)
        return at_grad_refuse(w, n, "its weights are quantised");
    if (at_grad_wanted(w, n, 0)) {
        attend_tensor b = at_grad_in(w, n, 1);
        at_grad_give(w, n, 0,
                     rows ? attend_graph_matmul(w->g, dy, b) : attend_graph_matmul_nt(w->g, dy, b));
    }
    if (at_grad_wanted(w, n, 1)) {
        attend_tensor a = at_grad_in(w, n, 0);
        if (may_flatten(tensor(w, n->in[0]), tensor(w, n->in[1]))) {
            a = flat(w, a);
            dy = flat(w, dy);
        }
        if (!status(w))
            at_grad_give(w, n, 1,
                         rows ? attend_graph_matmul(w->g, transposed(w, dy), a)
                              : attend_graph_matmul(w->g, transposed(w, a), dy));
    }
    return status(w);
}

/* ---- elementwise ---- */

int at_grad_add(struct at_grad *w, const struct at_node *n)
{
    at_grad_give(w, n, 0, at_grad_out(w, n, 0));
    at_grad_give(w, n, 1, at_grad_out(w, n, 0));
    return status(w);
}

int at_grad_mul(struct at_grad *w, const struct at_node *n)
{
    for (int k = 0; k < 2; k++)
        if (at_grad_wanted(w, n, k))
            at_grad_give(w, n, k,
                         attend_graph_mul(w->g, at_grad_out(w, n, 0), at_grad_in(w, n, 1 - k)));
    return status(w);
}

int at_grad_scale(struct at_grad *w, const struct at_node *n)
{
    at_grad_give(w, n, 0, attend_graph_scale(w->g, at_grad_out(w, n, 0), n->p.scale.factor));
    return status(w);
}

int at_grad_where(struct at_grad *w, const struct at_node *n)
{
    at_grad_give(w, n, 1, attend_graph_where(w->g, at_grad_in(w, n, 0), at_grad_out(w, n, 0), 0));
    return status(w);
}

int at_grad_select(struct at_grad *w, const struct at_node *n)
{
    attend_tensor cond = at_grad_in(w, n, 0), dy = at_grad_out(w, n, 0);
    if (at_grad_wanted(w, n, 1))
        at_grad_give(w, n, 1, attend_graph_where(w->g, cond, dy, 0));
    if (at_grad_wanted(w, n, 2))
        at_grad_give(w, n, 2, attend_graph_select(w->g, cond, at_grad_zero(w), dy));
    return status(w);
}

int at_grad_function(struct at_grad *w, const struct at_node *n)
{
    union at_params p = {
        .function = {.op = n->op, .exponent = n->op == AT_POW ? n->p.pow.exponent : 0}
    };
    attend_tensor in[] = {at_grad_in(w, n, 0), at_grad_out(w, n, 0)};
    at_grad_give(w, n, 0, at_grad_node(w, AT_FUNCTION_GRAD, in, 2, &p));
    return status(w);
}

/* Copies and casts. */
int at_grad_same(struct at_grad *w, const struct at_node *n)
{
    at_grad_give(w, n, 0, at_grad_out(w, n, 0));
    return status(w);
}

/* ---- rows ---- */

int at_grad_softmax(struct at_grad *w, const struct at_node *n)
{
    attend_tensor in[] = {at_grad_use(w, n->out[0]), at_grad_out(w, n, 0)};
    at_grad_give(w, n, 0, at_grad_node(w, AT_SOFTMAX_GRAD, in, 2, NULL));
    return status(w);
}

int at_grad_norm(struct at_grad *w, const struct at_node *n)
{
    union at_params p = {
        .norm = {.eps = n->p.norm.eps, .centred = n->op == AT_LAYER_NORM}
    };
    attend_tensor in[] = {at_grad_in(w, n, 0), at_grad_in(w, n, 1), at_grad_out(w, n, 0)};
    if (at_grad_wanted(w, n, 0) || at_grad_wanted(w, n, 1)) {
        attend_tensor dx = at_grad_node(w, AT_NORM_GRAD, in, 3, &p), dweight = last_out(w, 1);
        at_grad_give(w, n, 0, dx);
        at_grad_give(w, n, 1, dweight);
    }
    at_grad_give(w, n, 2, in[2]);
    return status(w);
}

int at_grad_rope(struct at_grad *w, const struct at_node *n)
{
    union at_params p = n->p;
    attend_tensor in[] = {at_grad_out(w, n, 0), at_grad_in(w, n, 1), at_grad_in(w, n, 2)};
    p.rope.back = !p.rope.back;
    at_grad_give(w, n, 0, at_grad_node(w, AT_ROPE, in, 3, &p));
    return status(w);
}

int at_grad_gather(struct at_grad *w, const struct at_node *n)
{
    attend_tensor in[] = {at_grad_in(w, n, 0), at_grad_in(w, n, 1), at_grad_out(w, n, 0)};
    if (attend_type_block(tensor(w, n->in[0])->type) > 1)
        return at_grad_refuse(w, n, "its table is quantised");
    at_grad_give(w, n, 0, at_grad_node(w, AT_GATHER_GRAD, in, 3, NULL));
    return status(w);
}

/* ---- places ---- */

int at_grad_concat(struct at_grad *w, const struct at_node *n)
{
    int axis = n->p.concat.axis;
    int64_t at = 0;
    for (int k = 0; k < n->nin; k++) {
        int64_t extent = tensor(w, n->in[k])->shape[axis];
        if (at_grad_wanted(w, n, k))
            at_grad_give(w, n, k, attend_graph_slice(w->g, at_grad_out(w, n, 0), axis, at, extent));
        if (extent < 0 && k + 1 < n->nin)
            return at_grad_refuse(w, n, "a part behind another of dynamic extent");
        at += extent;
    }
    return status(w);
}

int at_grad_reshape(struct at_grad *w, const struct at_node *n)
{
    at_grad_give(w, n, 0, attend_graph_reshape(w->g, at_grad_out(w, n, 0), shape_of(w, n->in[0])));
    return status(w);
}

int at_grad_permute(struct at_grad *w, const struct at_node *n)
{
    int inverse[ATTEND_MAX_RANK];
    for (int d = 0; d < tensor(w, n->in[0])->rank; d++)
        inverse[n->p.permute.perm[d]] = d;
    at_grad_give(w, n, 0, attend_graph_permute(w->g, at_grad_out(w, n, 0), inverse));
    return status(w);
}

/* Slices give nothing by themselves: at_grad_join. */
int at_grad_slice(struct at_grad *w, const struct at_node *n)
{
    (void)n;
    return status(w);
}

static void give_padded(struct at_grad *w, int t, const struct at_node *n)
{
    union at_params p = {
        .pad = {.axis = n->p.slice.axis, .start = n->p.slice.start}
    };
    attend_shape shape = shape_of(w, t);
    int in[] = {at_grad_out(w, n, 0).id}, id = at_graph_add(w->g, AT_PAD, in, 1, &p, &shape);
    at_grad_give_to(w, t, id < 0 ? attend_none() : (attend_tensor){w->g, id});
}

/* The slice of tensor t after node i that has a gradient; start below 0: any, else one that begins
 * there. */
static int next_slice(const struct at_grad *w, int t, int i, int axis, int64_t start)
{
    for (i++; i < w->nnode; i++) {
        const struct at_node *n = &w->g->node[i];
        if (n->op == AT_SLICE && !n->dead && n->in[0] == t && w->of[n->out[0]] >= 0 &&
            (start < 0 || (n->p.slice.axis == axis && n->p.slice.start == start)))
            return i;
    }
    return w->nnode;
}

/* The gradients of t's slices as parts of t, if they are end to end; else 0. */
static int parts_of(const struct at_grad *w, int t, attend_tensor part[AT_MAX_IN])
{
    int count = 0, n = 0, i = next_slice(w, t, -1, 0, -1), axis = 0;
    int64_t at = 0;
    if (i < w->nnode)
        axis = w->g->node[i].p.slice.axis;
    for (; i < w->nnode; i = next_slice(w, t, i, 0, -1))
        count++;
    for (; n < count && n < AT_MAX_IN; n++) {
        i = next_slice(w, t, -1, axis, at);
        if (i == w->nnode)
            return 0;
        part[n] = at_grad_out(w, &w->g->node[i], 0);
        at += tensor(w, w->g->node[i].out[0])->shape[axis];
    }
    return n == count && n > 1 && at == tensor(w, t)->shape[axis] ? n : 0;
}

void at_grad_join(struct at_grad *w, int t)
{
    attend_tensor part[AT_MAX_IN];
    if (t < 0 || w->joined[t] || !w->depends[t] || w->g->err.status)
        return;
    w->joined[t] = true;
    int n = parts_of(w, t, part), i = next_slice(w, t, -1, 0, -1);
    if (n > 0) {
        at_grad_give_to(w, t, attend_graph_concat(w->g, part, n, w->g->node[i].p.slice.axis));
        return;
    }
    for (; i < w->nnode; i = next_slice(w, t, i, 0, -1)) {
        struct at_node slice = w->g->node[i]; /* nodes move when there are more */
        give_padded(w, t, &slice);
    }
}

int at_grad_pad(struct at_grad *w, const struct at_node *n)
{
    int axis = n->p.pad.axis;
    at_grad_give(w, n, 0,
                 attend_graph_slice(w->g, at_grad_out(w, n, 0), axis, n->p.pad.start,
                                    tensor(w, n->in[0])->shape[axis]));
    return status(w);
}

int at_grad_expand(struct at_grad *w, const struct at_node *n)
{
    at_grad_give(w, n, 0, at_grad_out(w, n, 0));
    return status(w);
}

int at_grad_sum(struct at_grad *w, const struct at_node *n)
{
    attend_tensor dy = at_grad_out(w, n, 0);
    attend_shape in = shape_of(w, n->in[0]), out = shape_of(w, n->out[0]), wide = in;
    double count = 1;
    for (int d = 0; d < in.rank; d++) {
        int e = d - (in.rank - out.rank);
        wide.dim[d] = e < 0 ? 1 : out.dim[e];
        if (n->p.sum.mode == AT_SUM_MEAN && in.dim[d] != wide.dim[d]) {
            if (in.dim[d] < 0)
                return at_grad_refuse(w, n, "a mean over a dynamic extent");
            count *= (double)in.dim[d];
        }
    }
    if (n->p.sum.mode == AT_SUM_MEAN && count > 0)
        dy = attend_graph_scale(w->g, dy, (float)(1 / count));
    dy = attend_graph_expand(w->g, attend_graph_reshape(w->g, dy, wide), in);
    if (n->p.sum.mode == AT_SUM_SQUARES)
        dy = attend_graph_mul(w->g, attend_graph_scale(w->g, at_grad_in(w, n, 0), 2), dy);
    at_grad_give(w, n, 0, dy);
    return status(w);
}

/* ---- losses ---- */

int at_grad_cross_entropy(struct at_grad *w, const struct at_node *n)
{
    attend_tensor in[] = {at_grad_in(w, n, 0), at_grad_in(w, n, 1), at_grad_out(w, n, 0)};
    at_grad_give(w, n, 0, at_grad_node(w, AT_CROSS_ENTROPY_GRAD, in, 3, NULL));
    return status(w);
}

int at_grad_square_loss(struct at_grad *w, const struct at_node *n)
{
    attend_tensor in[] = {at_grad_in(w, n, 0), at_grad_in(w, n, 1), at_grad_out(w, n, 0)};
    attend_tensor da = at_grad_node(w, AT_SQUARE_LOSS_GRAD, in, 3, NULL);
    at_grad_give(w, n, 0, da);
    if (at_grad_wanted(w, n, 1))
        at_grad_give(w, n, 1, attend_graph_scale(w->g, da, -1));
    return status(w);
}

/* ---- attention ---- */

static attend_tensor copied(struct at_grad *w, attend_tensor t)
{
    return at_grad_node(w, AT_COPY, &t, 1, NULL);
}

/* dO, where only the LSE was used: zeros. */
static attend_tensor zeros_like(struct at_grad *w, int t)
{
    attend_shape ones = {
        .rank = tensor(w, t)->rank, .dim = {1, 1, 1, 1, 1, 1}
    };
    attend_tensor zero = attend_graph_reshape(w->g, at_grad_zero(w), ones);
    return copied(w, attend_graph_expand(w->g, zero, shape_of(w, t)));
}

/* Scores are computed again from q, k and LSE; delta = rowsum(dO O) - dLSE is a step of its own. */
int at_grad_attention(struct at_grad *w, const struct at_node *n)
{
    union at_params p = n->p;
    attend_tensor in[AT_IN_GRAD_COUNT];
    attend_type type = tensor(w, n->in[AT_IN_K])->type;
    if (n->in[AT_IN_TABLE] >= 0)
        return at_grad_refuse(w, n, "its keys are pages of a cache");
    if (attend_type_block(type) > 1 || type == ATTEND_F8)
        return at_grad_refuse(w, n, "its keys are quantised");
    for (int k = 0; k < AT_IN_COUNT; k++)
        in[k] = at_grad_in(w, n, k);
    in[AT_IN_GRAD_O] = at_grad_out(w, n, 0);
    if (!in[AT_IN_GRAD_O].graph)
        in[AT_IN_GRAD_O] = zeros_like(w, n->out[0]);
    in[AT_IN_GRAD_LSE] = at_grad_use(w, n->out[1]);
    attend_tensor of_delta[] = {in[AT_IN_GRAD_O], at_grad_use(w, n->out[0]), at_grad_out(w, n, 1),
                                in[AT_IN_GRAD_LSE]};
    in[AT_IN_GRAD_DELTA] = at_grad_node(w, AT_DELTA, of_delta, 4, NULL);
    p.attention.grads = 0;
    for (int k = 0; k < AT_OUT_COUNT; k++)
        p.attention.grads |= (unsigned)at_grad_wanted(w, n, at_attention_in_of(k)) << k;
    at_grad_node(w, AT_ATTENTION_GRAD, in, AT_IN_GRAD_COUNT, &p);
    attend_tensor out[AT_OUT_COUNT];
    for (int k = 0; k < AT_OUT_COUNT; k++)
        out[k] = last_out(w, k);
    for (int k = 0; k < AT_OUT_COUNT; k++)
        at_grad_give(w, n, at_attention_in_of(k), out[k]);
    return status(w);
}

/* Scores with a mask: nothing where they were hidden. */
int at_grad_mask(struct at_grad *w, const struct at_node *n)
{
    attend_tensor in[AT_IN_COUNT];
    for (int k = 0; k < AT_IN_COUNT; k++)
        in[k] = k == AT_IN_Q ? at_grad_out(w, n, 0) : at_grad_in(w, n, k);
    attend_tensor dy = at_grad_node(w, AT_MASK_GRAD, in, AT_IN_COUNT, &n->p);
    at_grad_give(w, n, AT_IN_Q, dy);
    at_grad_give(w, n, AT_IN_BIAS, dy);
    return status(w);
}

int at_grad_merge(struct at_grad *w, const struct at_node *n)
{
    attend_tensor in[8], out[4];
    for (int k = 0; k < 4; k++)
        in[k] = at_grad_in(w, n, k);
    in[4] = at_grad_use(w, n->out[0]);
    in[5] = at_grad_use(w, n->out[1]);
    in[6] = at_grad_out(w, n, 0);
    in[7] = at_grad_out(w, n, 1);
    if (!in[6].graph)
        in[6] = zeros_like(w, n->out[0]);
    at_grad_node(w, AT_MERGE_GRAD, in, 8, NULL);
    for (int k = 0; k < 4; k++)
        out[k] = last_out(w, k);
    for (int k = 0; k < 4; k++)
        at_grad_give(w, n, k, out[k]);
    return status(w);
}
