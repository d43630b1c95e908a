/* SPDX-License-Identifier: MIT */
/* Rows by index, and rows put together: gather, append, concat. */
#include <string.h>

#include "op.h"

int at_infer_gather(attend_graph *g, struct at_node *n, const attend_shape *shape)
{
    (void)shape;
    const struct at_tensor *table = at_op_input(g, n, 0), *index = at_op_input(g, n, 1);
    if (!at_op_is_float(table->type) && !at_op_is_quantised(table->type))
        return at_op_want_float(g, n, 0, 2);
    if (table->rank != 2 || index->rank >= ATTEND_MAX_RANK)
        return at_graph_fail(g, n, ATTEND_EINVAL,
                             "the table has rank %d and the index %d, wants 2 and at most %d",
                             table->rank, index->rank, ATTEND_MAX_RANK - 1);
    if (at_op_want_type(g, n, 1, ATTEND_I32, "the index") < 0)
        return -1;
    int64_t out[ATTEND_MAX_RANK];
    memcpy(out, index->shape, sizeof out);
    out[index->rank] = table->shape[1];
    return at_op_result(g, n, ATTEND_F32, index->rank + 1, out);
}

attend_tensor attend_graph_gather(attend_graph *g, attend_tensor table, attend_tensor index)
{
    return at_op_binary(g, AT_GATHER, table, index, NULL);
}

static bool is_view(const attend_graph *g, const struct at_tensor *t)
{
    return t->node >= 0 && at_ops[g->node[t->node].op].view;
}

int at_infer_append(attend_graph *g, struct at_node *n, const attend_shape *shape)
{
    (void)shape;
    const struct at_tensor *state = at_op_input(g, n, 0), *rows = at_op_input(g, n, 1);
    if (state->class != AT_STATE || is_view(g, state))
        return at_graph_fail(g, n, ATTEND_EINVAL, "input 0 is %s a state",
                             state->class == AT_STATE ? "a view of" : "not");
    if (at_op_want_float(g, n, 1, 0) < 0 || at_op_want_type(g, n, 2, ATTEND_I32, "slots") < 0)
        return -1;
    if (state->rank != 4 || rows->rank != 4 || state->shape[1] != rows->shape[1] ||
        state->shape[3] != rows->shape[3])
        return at_op_misfit(g, n, state, rows,
                            "wants a state (P, G, page, D) and rows (B, G, S, D)");
    const int64_t bs[] = {rows->shape[0], rows->shape[2]};
    if (n->nin > 3 && at_op_want_scale(g, n, 3, state, "the scale") < 0)
        return -1;
    if (at_op_want_shape(g, n, 2, 2, bs, "slots") < 0 ||
        at_op_result(g, n, state->type, state->rank, state->shape) < 0)
        return -1;
    struct at_tensor *next = &g->tensor[n->out[0]], *old = &g->tensor[n->in[0]];
    next->class = AT_STATE;
    next->of = n->in[0];
    next->root = old->root;
    old->next_version = n->out[0];
    return 0;
}

attend_tensor attend_graph_append(attend_graph *g, attend_tensor state, attend_tensor rows,
                                  attend_tensor slots)
{
    int in[] = {at_graph_use(g, state, "the state of append"),
                at_graph_use(g, rows, "the rows of append"),
                at_graph_use(g, slots, "the slots of append")};
    return at_op_append(g, AT_APPEND, in, 3, NULL, NULL);
}

attend_tensor attend_graph_append_scaled(attend_graph *g, attend_tensor state, attend_tensor rows,
                                         attend_tensor slots, attend_tensor scale)
{
    int in[] = {at_graph_use(g, state, "the state of append"),
                at_graph_use(g, rows, "the rows of append"),
                at_graph_use(g, slots, "the slots of append"),
                at_graph_use(g, scale, "the scale of append")};
    return at_op_append(g, AT_APPEND, in, 4, NULL, NULL);
}

int at_infer_concat(attend_graph *g, struct at_node *n, const attend_shape *shape)
{
    (void)shape;
    const struct at_tensor *a = at_op_input(g, n, 0);
    int axis = n->p.concat.axis;
    if (at_op_is_quantised(a->type) || axis < 0 || axis >= a->rank)
        return at_graph_fail(g, n, ATTEND_EINVAL, "axis %d of a %s tensor of rank %d", axis,
                             attend_type_name(a->type), a->rank);
    int64_t out[ATTEND_MAX_RANK];
    memcpy(out, a->shape, sizeof out);
    for (int k = 1; k < n->nin; k++) {
        const struct at_tensor *b = at_op_input(g, n, k);
        bool fits = b->rank == a->rank && b->type == a->type;
        for (int d = 0; fits && d < a->rank; d++)
            fits = d == axis || a->shape[d] == b->shape[d];
        if (!fits)
            return at_op_misfit(g, n, a, b,
                                "types and all extents but that of the axis must be equal");
        if (out[axis] < 0 && b->shape[axis] < 0)
            return at_graph_fail(g, n, ATTEND_EUNSUPPORTED, "joins two dynamic extents");
        out[axis] = out[axis] < 0 ? at_graph_form(g, out[axis], 1, b->shape[axis])
                                  : at_graph_form(g, b->shape[axis], 1, out[axis]);
    }
    return at_op_result(g, n, a->type, a->rank, out);
}

attend_tensor attend_graph_concat(attend_graph *g, const attend_tensor *parts, int n, int axis)
{
    int in[AT_MAX_IN];
    if (g->err.status)
        return attend_none();
    if (n < 1 || n > AT_MAX_IN) {
        at_fail(&g->err, n < 1 ? ATTEND_EINVAL : ATTEND_ELIMIT,
                "concat of %d tensors, wants 1 to %d", n, AT_MAX_IN);
        return attend_none();
    }
    for (int k = 0; k < n; k++)
        in[k] = at_graph_use(g, parts[k], "a part of concat");
    union at_params p = {.concat = {.axis = axis}};
    return at_op_append(g, AT_CONCAT, in, n, &p, NULL);
}
