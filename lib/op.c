/* SPDX-License-Identifier: MIT */
/* The table of operators, and what their files op_*.c share: checks of inputs, results, appending.
 */
#include <string.h>

#include "grad.h"
#include "op.h"
#include "ref.h"

int at_op_want_float(attend_graph *g, const struct at_node *n, int k, int rank)
{
    const struct at_tensor *t = at_op_input(g, n, k);
    if (!at_op_is_float(t->type))
        return at_graph_fail(g, n, ATTEND_EINVAL, "input %d is %s, wants f32, f16 or bf16", k,
                             attend_type_name(t->type));
    if (t->rank < rank)
        return at_graph_fail(g, n, ATTEND_EINVAL, "input %d has rank %d, wants at least %d", k,
                             t->rank, rank);
    return 0;
}

int at_op_want_type(attend_graph *g, const struct at_node *n, int k, attend_type type,
                    const char *what)
{
    const struct at_tensor *t = at_op_input(g, n, k);
    if (t->type != type)
        return at_graph_fail(g, n, ATTEND_EINVAL, "%s is %s, wants %s", what,
                             attend_type_name(t->type), attend_type_name(type));
    return 0;
}

int at_op_want_shape(attend_graph *g, const struct at_node *n, int k, int rank,
                     const int64_t *shape, const char *what)
{
    char got[128], want[128];
    const struct at_tensor *t = at_op_input(g, n, k);
    if (t->rank == rank && !memcmp(t->shape, shape, (size_t)rank * sizeof *shape))
        return 0;
    return at_graph_fail(g, n, ATTEND_EINVAL, "%s is %s, wants %s", what,
                         at_shape_text(&g->dims, t->rank, t->shape, got, sizeof got),
                         at_shape_text(&g->dims, rank, shape, want, sizeof want));
}

int at_op_result(attend_graph *g, struct at_node *n, attend_type type, int rank,
                 const int64_t *shape)
{
    char text[128];
    if (at_graph_largest(g, type, rank, shape) < 0)
        return at_graph_fail(g, n, ATTEND_ELIMIT, "the result, %s, would pass 2^63 bytes",
                             at_shape_text(&g->dims, rank, shape, text, sizeof text));
    int id = at_graph_tensor(g, type, rank, shape);
    if (id >= 0)
        n->out[n->nout++] = id;
    return id;
}

void at_op_order_like(attend_graph *g, struct at_node *n, int k)
{
    struct at_tensor *out = &g->tensor[n->out[0]];
    const struct at_tensor *in = at_op_input(g, n, k);
    if (in->rank == out->rank && out->rank > 0 && in->order[in->rank - 1] == in->rank - 1)
        memcpy(out->order, in->order, sizeof in->order);
}

bool at_op_broadcast(const int64_t *a, int na, const int64_t *b, int nb, int64_t *out)
{
    int n = na > nb ? na : nb;
    for (int d = 0; d < n; d++) {
        int64_t x = d < n - na ? 1 : a[d - (n - na)], y = d < n - nb ? 1 : b[d - (n - nb)];
        if (x != y && x != 1 && y != 1)
            return false;
        out[d] = x == 1 ? y : x;
    }
    return true;
}

int at_op_misfit(attend_graph *g, const struct at_node *n, const struct at_tensor *a,
                 const struct at_tensor *b, const char *rule)
{
    char ta[128], tb[128];
    return at_graph_fail(g, n, ATTEND_EINVAL, "%s and %s do not fit: %s",
                         at_shape_text(&g->dims, a->rank, a->shape, ta, sizeof ta),
                         at_shape_text(&g->dims, b->rank, b->shape, tb, sizeof tb), rule);
}

attend_tensor at_op_append(attend_graph *g, enum at_opcode op, const int *in, int nin,
                           const union at_params *p, const attend_shape *shape)
{
    int id = at_graph_add(g, op, in, nin, p, shape);
    return id < 0 ? attend_none() : (attend_tensor){g, id};
}

attend_tensor at_op_unary(attend_graph *g, enum at_opcode op, attend_tensor a,
                          const union at_params *p)
{
    int in[] = {at_graph_use(g, a, at_ops[op].name)};
    return at_op_append(g, op, in, 1, p, NULL);
}

attend_tensor at_op_binary(attend_graph *g, enum at_opcode op, attend_tensor a, attend_tensor b,
                           const union at_params *p)
{
    int in[] = {at_graph_use(g, a, at_ops[op].name), at_graph_use(g, b, at_ops[op].name)};
    return at_op_append(g, op, in, 2, p, NULL);
}

int at_op_maybe(attend_graph *g, attend_tensor t, const char *what)
{
    return t.graph || t.id >= 0 ? at_graph_use(g, t, what) : -1;
}

int at_op_want_scale(attend_graph *g, struct at_node *n, int k, const struct at_tensor *of,
                     const char *what)
{
    const int64_t all[] = {1, of->shape[1]};
    if (n->in[k] < 0)
        return 0;
    if (of->type != ATTEND_F8)
        return at_graph_fail(g, n, ATTEND_EINVAL, "%s is given for %s values, which have none",
                             what, attend_type_name(of->type));
    if (at_op_want_type(g, n, k, ATTEND_F32, what) < 0)
        return -1;
    bool one = at_op_input(g, n, k)->rank == 2 && at_op_input(g, n, k)->shape[0] == 1;
    return at_op_want_shape(g, n, k, 2, one ? all : of->shape, what);
}

double at_op_product(const attend_graph *g, int t, const int64_t *sym)
{
    double n = 1;
    for (int d = 0; d < g->tensor[t].rank; d++)
        n *= (double)at_dim_eval(&g->dims, g->tensor[t].shape[d], sym);
    return n;
}

#ifdef AT_NO_TRAINING
#    define GRAD(name) NULL
#else
#    define GRAD(name) at_grad_##name
#endif

/* clang-format off */
const struct at_op at_ops[AT_OP_COUNT] = {
    /*               name         in      view   infer            flops            reference       gradient */
    [AT_MATMUL]    = {"matmul",     2, 2, false, at_infer_matmul,    at_flops_matmul,    at_ref_matmul, GRAD(matmul)},
    [AT_ADD]       = {"add",        2, 2, false, at_infer_binary,    NULL,            at_ref_add, GRAD(add)},
    [AT_MUL]       = {"mul",        2, 2, false, at_infer_binary,    NULL,            at_ref_mul, GRAD(mul)},
    [AT_SCALE]     = {"scale",      1, 1, false, at_infer_unary,     NULL,            at_ref_scale, GRAD(scale)},
    [AT_WHERE]     = {"where",      2, 2, false, at_infer_where,     NULL,            at_ref_where, GRAD(where)},
    [AT_SELECT]    = {"select",     3, 3, false, at_infer_select,    NULL,            at_ref_select, GRAD(select)},
    [AT_MASK]      = {"mask",       1, AT_IN_COUNT, false, at_infer_mask, NULL,       at_ref_mask, GRAD(mask)},
    [AT_SOFTMAX]   = {"softmax",    1, 1, false, at_infer_rows,      NULL,            at_ref_softmax, GRAD(softmax)},
    [AT_ATTENTION] = {"attention",  3, AT_IN_COUNT, false, at_infer_attention, at_flops_attention, at_ref_attention, GRAD(attention)},
    [AT_MERGE]     = {"merge",      4, 4, false, at_infer_merge,     NULL,            at_ref_merge, GRAD(merge)},
    [AT_WEIGHTS]   = {"weights",    2, AT_IN_COUNT, false, at_infer_attention, at_flops_weights, at_ref_weights, NULL},
    [AT_RMS_NORM]  = {"rms_norm",   1, 2, false, at_infer_norm,      NULL,            at_ref_rms_norm, GRAD(norm)},
    [AT_LAYER_NORM]= {"layer_norm", 1, 3, false, at_infer_norm,      NULL,            at_ref_layer_norm, GRAD(norm)},
    [AT_SILU]      = {"silu",       1, 1, false, at_infer_unary,     NULL,            at_ref_silu, GRAD(function)},
    [AT_SILU_MUL]  = {"silu_mul",   2, 2, false, at_infer_binary,    NULL,            at_ref_silu_mul, NULL},
    [AT_GELU]      = {"gelu",       1, 1, false, at_infer_unary,     NULL,            at_ref_gelu, GRAD(function)},
    [AT_GELU_TANH] = {"gelu_tanh",  1, 1, false, at_infer_unary,     NULL,            at_ref_gelu_tanh, GRAD(function)},
    [AT_TANH]      = {"tanh",       1, 1, false, at_infer_unary,     NULL,            at_ref_tanh, GRAD(function)},
    [AT_SIGMOID]   = {"sigmoid",    1, 1, false, at_infer_unary,     NULL,            at_ref_sigmoid, GRAD(function)},
    [AT_RELU]      = {"relu",       1, 1, false, at_infer_unary,     NULL,            at_ref_relu, GRAD(function)},
    [AT_ERF]       = {"erf",        1, 1, false, at_infer_unary,     NULL,            at_ref_erf, GRAD(function)},
    [AT_POW]       = {"pow",        1, 1, false, at_infer_unary,     NULL,            at_ref_pow, GRAD(function)},
    [AT_ROPE]      = {"rope",       2, 3, false, at_infer_rope,      NULL,            at_ref_rope, GRAD(rope)},
    [AT_GATHER]    = {"gather",     2, 2, false, at_infer_gather,    NULL,            at_ref_gather, GRAD(gather)},
    [AT_APPEND]    = {"append",     3, 4, false, at_infer_append,    NULL,            at_ref_append, NULL},
    [AT_CONCAT]    = {"concat",     1, AT_MAX_IN, false, at_infer_concat, NULL,       at_ref_concat, GRAD(concat)},
    [AT_CAST]      = {"cast",       1, 1, false, at_infer_cast,      NULL,            at_ref_cast, GRAD(same)},
    [AT_COPY]      = {"copy",       1, 1, false, at_infer_copy,      NULL,            at_ref_copy, GRAD(same)},
    [AT_RESHAPE]   = {"reshape",    1, 1, true,  at_infer_reshape,   NULL,            NULL, GRAD(reshape)},
    [AT_PERMUTE]   = {"permute",    1, 1, true,  at_infer_permute,   NULL,            NULL, GRAD(permute)},
    [AT_SLICE]     = {"slice",      1, 1, true,  at_infer_slice,     NULL,            NULL, GRAD(slice)},
    [AT_EXPAND]    = {"expand",     1, 1, true,  at_infer_expand,    NULL,            NULL, GRAD(expand)},
#ifndef AT_NO_TRAINING
    [AT_SUM]       = {"sum",        1, 1, false, at_infer_sum,    NULL,            at_ref_sum, GRAD(sum)},
    [AT_PAD]       = {"pad",        1, 1, false, at_infer_pad,    NULL,            at_ref_pad, GRAD(pad)},
    [AT_CROSS_ENTROPY] = {"cross_entropy", 2, 2, false, at_infer_cross_entropy, NULL, at_ref_cross_entropy, GRAD(cross_entropy)},
    [AT_SQUARE_LOSS] = {"square_loss", 2, 2, false, at_infer_square_loss, NULL,    at_ref_square_loss, GRAD(square_loss)},
    [AT_CLIP]      = {"clip",       1, 1, false, at_infer_clip,   NULL,            at_ref_clip, NULL},
    [AT_SGD]       = {"sgd",        3, 5, false, at_infer_update, NULL,            at_ref_sgd, NULL},
    [AT_ADAMW]     = {"adamw",      6, 7, false, at_infer_update, NULL,            at_ref_adamw, NULL},
    [AT_DELTA]     = {"delta",      2, 4, false, at_infer_delta,  NULL,            at_ref_delta, NULL},
    [AT_ATTENTION_GRAD] = {"attention_grad", 3, AT_IN_GRAD_COUNT, false, at_infer_attention_grad, at_flops_attention_grad, at_ref_attention_grad, NULL},
    [AT_MASK_GRAD] = {"mask_grad",  1, AT_IN_COUNT, false, at_infer_mask, NULL,       at_ref_mask_grad, NULL},
    [AT_MERGE_GRAD] = {"merge_grad", 7, 8, false, at_infer_merge_grad, NULL,       at_ref_merge_grad, NULL},
    [AT_FUNCTION_GRAD] = {"function_grad", 2, 2, false, at_infer_like, NULL,       at_ref_function_grad, NULL},
    [AT_SOFTMAX_GRAD] = {"softmax_grad", 2, 2, false, at_infer_like, NULL,         at_ref_softmax_grad, NULL},
    [AT_NORM_GRAD] = {"norm_grad",  3, 3, false, at_infer_norm_grad, NULL,         at_ref_norm_grad, NULL},
    [AT_GATHER_GRAD] = {"gather_grad", 3, 3, false, at_infer_gather_grad, NULL,    at_ref_gather_grad, NULL},
    [AT_CROSS_ENTROPY_GRAD] = {"cross_entropy_grad", 3, 3, false, at_infer_like, NULL, at_ref_cross_entropy_grad, NULL},
    [AT_SQUARE_LOSS_GRAD] = {"square_loss_grad", 3, 3, false, at_infer_like, NULL, at_ref_square_loss_grad, NULL},
#endif
};
/* clang-format on */
