/* SPDX-License-Identifier: MIT */
/* Products, elementwise operators, and those of rows: softmax, norms, RoPE. */
#include <string.h>

#include "op.h"

/* ---- matmul ---- */

int at_infer_matmul(attend_graph *g, struct at_node *n, const attend_shape *shape)
{
    (void)shape;
    const struct at_tensor *a = at_op_input(g, n, 0), *b = at_op_input(g, n, 1);
    bool rows = n->p.matmul.b_rows;
    if (at_op_want_float(g, n, 0, 2) < 0)
        return -1;
    if (!at_op_is_float(b->type) && !(rows && at_op_is_quantised(b->type)))
        return at_graph_fail(g, n, ATTEND_EINVAL, "b is %s, wants f32, f16 or bf16%s",
                             attend_type_name(b->type), rows ? ", q8_0, q4_0 or q4_1" : "");
    if (b->rank < 2)
        return at_graph_fail(g, n, ATTEND_EINVAL, "b has rank %d, wants at least 2", b->rank);
    int64_t k = a->shape[a->rank - 1], kb = b->shape[b->rank - (rows ? 1 : 2)];
    int64_t out[ATTEND_MAX_RANK];
    if (k != kb || !at_op_broadcast(a->shape, a->rank - 2, b->shape, b->rank - 2, out))
        return at_op_misfit(g, n, a, b,
                            rows ? "wants (..., m, k) and (..., n, k)"
                                 : "wants (..., m, k) and (..., k, n)");
    int rank = a->rank > b->rank ? a->rank : b->rank;
    out[rank - 2] = a->shape[a->rank - 2];
    out[rank - 1] = b->shape[b->rank - (rows ? 2 : 1)];
    if (at_op_result(g, n, ATTEND_F32, rank, out) < 0)
        return -1;
    at_op_order_like(g, n, 0);
    return 0;
}

double at_flops_matmul(const attend_graph *g, const struct at_node *n, const int64_t *sym)
{
    const struct at_tensor *a = at_op_input(g, n, 0);
    return 2 * at_op_product(g, n->out[0], sym) *
           (double)at_dim_eval(&g->dims, a->shape[a->rank - 1], sym);
}

attend_tensor attend_graph_matmul(attend_graph *g, attend_tensor a, attend_tensor b)
{
    return at_op_binary(g, AT_MATMUL, a, b, NULL);
}

attend_tensor attend_graph_matmul_nt(attend_graph *g, attend_tensor a, attend_tensor b)
{
    union at_params p = {.matmul = {.b_rows = true}};
    return at_op_binary(g, AT_MATMUL, a, b, &p);
}

/* ---- elementwise ---- */

int at_infer_binary(attend_graph *g, struct at_node *n, const attend_shape *shape)
{
    (void)shape;
    const struct at_tensor *a = at_op_input(g, n, 0), *b = at_op_input(g, n, 1);
    int64_t out[ATTEND_MAX_RANK];
    if (at_op_want_float(g, n, 0, 0) < 0 || at_op_want_float(g, n, 1, 0) < 0)
        return -1;
    if (!at_op_broadcast(a->shape, a->rank, b->shape, b->rank, out))
        return at_op_misfit(g, n, a, b, "extents must be equal or 1");
    int rank = a->rank > b->rank ? a->rank : b->rank;
    if (at_op_result(g, n, ATTEND_F32, rank, out) < 0)
        return -1;
    at_op_order_like(g, n, 0);
    return 0;
}

int at_infer_unary(attend_graph *g, struct at_node *n, const attend_shape *shape)
{
    (void)shape;
    if (at_op_want_float(g, n, 0, 0) < 0 ||
        at_op_result(g, n, ATTEND_F32, at_op_input(g, n, 0)->rank, at_op_input(g, n, 0)->shape) < 0)
        return -1;
    at_op_order_like(g, n, 0);
    return 0;
}

int at_infer_where(attend_graph *g, struct at_node *n, const attend_shape *shape)
{
    (void)shape;
    const struct at_tensor *cond = at_op_input(g, n, 0), *a = at_op_input(g, n, 1);
    int64_t out[ATTEND_MAX_RANK];
    if (at_op_want_type(g, n, 0, ATTEND_BOOL, "the condition") < 0 ||
        at_op_want_float(g, n, 1, 0) < 0)
        return -1;
    if (!at_op_broadcast(cond->shape, cond->rank, a->shape, a->rank, out))
        return at_op_misfit(g, n, cond, a, "extents must be equal or 1");
    if (at_op_result(g, n, ATTEND_F32, cond->rank > a->rank ? cond->rank : a->rank, out) < 0)
        return -1;
    at_op_order_like(g, n, 1);
    return 0;
}

int at_infer_select(attend_graph *g, struct at_node *n, const attend_shape *shape)
{
    (void)shape;
    const struct at_tensor *cond = at_op_input(g, n, 0), *a = at_op_input(g, n, 1),
                           *b = at_op_input(g, n, 2);
    int64_t both[ATTEND_MAX_RANK], out[ATTEND_MAX_RANK];
    if (at_op_want_type(g, n, 0, ATTEND_BOOL, "the condition") < 0 ||
        at_op_want_float(g, n, 1, 0) < 0 || at_op_want_float(g, n, 2, 0) < 0)
        return -1;
    if (!at_op_broadcast(a->shape, a->rank, b->shape, b->rank, both))
        return at_op_misfit(g, n, a, b, "extents must be equal or 1");
    int rank = a->rank > b->rank ? a->rank : b->rank;
    if (!at_op_broadcast(cond->shape, cond->rank, both, rank, out))
        return at_op_misfit(g, n, cond, a->rank > b->rank ? a : b, "extents must be equal or 1");
    if (at_op_result(g, n, ATTEND_F32, cond->rank > rank ? cond->rank : rank, out) < 0)
        return -1;
    at_op_order_like(g, n, 1);
    return 0;
}

attend_tensor attend_graph_add(attend_graph *g, attend_tensor a, attend_tensor b)
{
    return at_op_binary(g, AT_ADD, a, b, NULL);
}

attend_tensor attend_graph_mul(attend_graph *g, attend_tensor a, attend_tensor b)
{
    return at_op_binary(g, AT_MUL, a, b, NULL);
}

attend_tensor attend_graph_scale(attend_graph *g, attend_tensor a, float factor)
{
    union at_params p = {.scale = {.factor = factor}};
    return at_op_unary(g, AT_SCALE, a, &p);
}

attend_tensor attend_graph_where(attend_graph *g, attend_tensor cond, attend_tensor a, float other)
{
    union at_params p = {.where = {.other = other}};
    return at_op_binary(g, AT_WHERE, cond, a, &p);
}

attend_tensor attend_graph_select(attend_graph *g, attend_tensor cond, attend_tensor a,
                                  attend_tensor b)
{
    int in[] = {at_graph_use(g, cond, "the condition of select"), at_graph_use(g, a, "select"),
                at_graph_use(g, b, "select")};
    return at_op_append(g, AT_SELECT, in, 3, NULL, NULL);
}

attend_tensor attend_graph_silu(attend_graph *g, attend_tensor a)
{
    return at_op_unary(g, AT_SILU, a, NULL);
}

attend_tensor attend_graph_gelu(attend_graph *g, attend_tensor a)
{
    return at_op_unary(g, AT_GELU, a, NULL);
}

attend_tensor attend_graph_gelu_tanh(attend_graph *g, attend_tensor a)
{
    return at_op_unary(g, AT_GELU_TANH, a, NULL);
}

attend_tensor attend_graph_tanh(attend_graph *g, attend_tensor a)
{
    return at_op_unary(g, AT_TANH, a, NULL);
}

attend_tensor attend_graph_sigmoid(attend_graph *g, attend_tensor a)
{
    return at_op_unary(g, AT_SIGMOID, a, NULL);
}

attend_tensor attend_graph_relu(attend_graph *g, attend_tensor a)
{
    return at_op_unary(g, AT_RELU, a, NULL);
}

attend_tensor attend_graph_erf(attend_graph *g, attend_tensor a)
{
    return at_op_unary(g, AT_ERF, a, NULL);
}

attend_tensor attend_graph_pow(attend_graph *g, attend_tensor a, float exponent)
{
    union at_params p = {.pow = {.exponent = exponent}};
    return at_op_unary(g, AT_POW, a, &p);
}

int at_infer_cast(attend_graph *g, struct at_node *n, const attend_shape *shape)
{
    (void)shape;
    if (at_op_want_float(g, n, 0, 0) < 0)
        return -1;
    if (!at_op_is_float(n->p.cast.type))
        return at_graph_fail(g, n, ATTEND_EINVAL, "to %s, wants f32, f16 or bf16",
                             attend_type_name(n->p.cast.type));
    if (at_op_result(g, n, n->p.cast.type, at_op_input(g, n, 0)->rank,
                     at_op_input(g, n, 0)->shape) < 0)
        return -1;
    at_op_order_like(g, n, 0);
    return 0;
}

attend_tensor attend_graph_cast(attend_graph *g, attend_tensor a, attend_type type)
{
    union at_params p = {.cast = {.type = type}};
    return at_op_unary(g, AT_CAST, a, &p);
}

/* ---- rows: softmax, norms, rope ---- */

int at_infer_rows(attend_graph *g, struct at_node *n, const attend_shape *shape)
{
    return at_op_want_float(g, n, 0, 1) < 0 ? -1 : at_infer_unary(g, n, shape);
}

int at_infer_norm(attend_graph *g, struct at_node *n, const attend_shape *shape)
{
    if (at_infer_rows(g, n, shape) < 0)
        return -1;
    if (!(n->p.norm.eps >= 0))
        return at_graph_fail(g, n, ATTEND_EINVAL, "eps is %g, wants a number >= 0",
                             (double)n->p.norm.eps);
    const int64_t d = at_op_input(g, n, 0)->shape[at_op_input(g, n, 0)->rank - 1];
    for (int k = 1; k < n->nin; k++)
        if (n->in[k] >= 0 &&
            (at_op_want_float(g, n, k, 1) < 0 ||
             at_op_want_shape(g, n, k, 1, &d, k == 1 ? "the weight" : "the bias") < 0))
            return -1;
    return 0;
}

attend_tensor attend_graph_softmax(attend_graph *g, attend_tensor a)
{
    return at_op_unary(g, AT_SOFTMAX, a, NULL);
}

attend_tensor attend_graph_rms_norm(attend_graph *g, attend_tensor a, attend_tensor weight,
                                    float eps)
{
    union at_params p = {.norm = {.eps = eps}};
    int in[] = {at_graph_use(g, a, "rms_norm"), at_op_maybe(g, weight, "the weight of rms_norm")};
    return at_op_append(g, AT_RMS_NORM, in, 2, &p, NULL);
}

attend_tensor attend_graph_layer_norm(attend_graph *g, attend_tensor a, attend_tensor weight,
                                      attend_tensor bias, float eps)
{
    union at_params p = {.norm = {.eps = eps}};
    int in[] = {at_graph_use(g, a, "layer_norm"),
                at_op_maybe(g, weight, "the weight of layer_norm"),
                at_op_maybe(g, bias, "the bias of layer_norm")};
    return at_op_append(g, AT_LAYER_NORM, in, 3, &p, NULL);
}

int at_infer_rope(attend_graph *g, struct at_node *n, const attend_shape *shape)
{
    const struct at_tensor *a = at_op_input(g, n, 0), *pos = at_op_input(g, n, 1);
    if (at_op_want_float(g, n, 0, 0) < 0 || at_op_want_type(g, n, 1, ATTEND_I32, "positions") < 0)
        return -1;
    if (a->rank != 4)
        return at_graph_fail(g, n, ATTEND_EINVAL, "input 0 has rank %d, wants (B, H, S, D)",
                             a->rank);
    int64_t bs[] = {a->shape[0], a->shape[2]}, d = a->shape[3];
    if (pos->rank != 1 || pos->shape[0] != bs[1])
        if (at_op_want_shape(g, n, 1, 2, bs, "positions") < 0)
            return -1;
    if (n->p.rope.pairing != ATTEND_ROPE_HALF && n->p.rope.pairing != ATTEND_ROPE_INTERLEAVED)
        return at_graph_fail(g, n, ATTEND_EINVAL, "pairing is not set: half or interleaved");
    if (n->p.rope.dims == 0)
        n->p.rope.dims = d;
    if (d < 0 || n->p.rope.dims < 0 || n->p.rope.dims > d || n->p.rope.dims % 2)
        return at_graph_fail(g, n, ATTEND_EINVAL,
                             "rotates %lld channels of %lld, wants an even number",
                             (long long)n->p.rope.dims, (long long)d);
    if (!(n->p.rope.base > 0))
        return at_graph_fail(g, n, ATTEND_EINVAL, "base is %g, wants a number above 0",
                             (double)n->p.rope.base);
    const int64_t pairs = n->p.rope.dims / 2;
    if (n->in[2] >= 0 && (at_op_want_type(g, n, 2, ATTEND_F32, "factors") < 0 ||
                          at_op_want_shape(g, n, 2, 1, &pairs, "factors") < 0))
        return -1;
    return at_infer_unary(g, n, shape);
}

void attend_rope_opts_init(attend_rope_opts *opts)
{
    *opts = (attend_rope_opts){.size = sizeof *opts, .base = 10000, .factors = attend_none()};
}

attend_tensor attend_graph_rope(attend_graph *g, attend_tensor a, attend_tensor positions,
                                const attend_rope_opts *opts)
{
    attend_rope_opts o;
    attend_rope_opts_init(&o);
    at_opts_take(&g->err, "attend_rope_opts", &o, sizeof o, opts);
    union at_params p = {
        .rope = {.pairing = o.pairing, .dims = o.dims, .base = o.base}
    };
    int in[] = {at_graph_use(g, a, "rope"), at_graph_use(g, positions, "positions of rope"),
                at_op_maybe(g, o.factors, "factors of rope")};
    return at_op_append(g, AT_ROPE, in, 3, &p, NULL);
}
