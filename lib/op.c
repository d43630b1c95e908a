/* SPDX-License-Identifier: MIT */
/* The operators: for each how it is appended (attend_graph_x) and what shapes it takes and makes
 * (infer_x), and at the end the table.  What each means is ref.c. */
#include <math.h>
#include <string.h>

#include "core.h"
#include "expr.h"
#include "grad.h"
#include "ref.h"

static const struct at_tensor *input(const attend_graph *g, const struct at_node *n, int k)
{
    return &g->tensor[n->in[k]];
}

static bool is_float(attend_type t)
{
    return t == ATTEND_F32 || t == ATTEND_F16 || t == ATTEND_BF16;
}

static bool is_quantised(attend_type t)
{
    return attend_type_block(t) > 1;
}

/* Input k must be a float tensor of rank at least `rank`. */
static int want_float(attend_graph *g, const struct at_node *n, int k, int rank)
{
    const struct at_tensor *t = input(g, n, k);
    if (!is_float(t->type))
        return at_graph_fail(g, n, ATTEND_EINVAL, "input %d is %s, wants f32, f16 or bf16", k,
                             attend_type_name(t->type));
    if (t->rank < rank)
        return at_graph_fail(g, n, ATTEND_EINVAL, "input %d has rank %d, wants at least %d", k,
                             t->rank, rank);
    return 0;
}

static int want_type(attend_graph *g, const struct at_node *n, int k, attend_type type,
                     const char *what)
{
    const struct at_tensor *t = input(g, n, k);
    if (t->type != type)
        return at_graph_fail(g, n, ATTEND_EINVAL, "%s is %s, wants %s", what,
                             attend_type_name(t->type), attend_type_name(type));
    return 0;
}

/* The tensor must have just this shape. */
static int want_shape(attend_graph *g, const struct at_node *n, int k, int rank,
                      const int64_t *shape, const char *what)
{
    char got[128], want[128];
    const struct at_tensor *t = input(g, n, k);
    if (t->rank == rank && !memcmp(t->shape, shape, (size_t)rank * sizeof *shape))
        return 0;
    return at_graph_fail(g, n, ATTEND_EINVAL, "%s is %s, wants %s", what,
                         at_shape_text(&g->dims, t->rank, t->shape, got, sizeof got),
                         at_shape_text(&g->dims, rank, shape, want, sizeof want));
}

/* Makes output k. */
static int result(attend_graph *g, struct at_node *n, attend_type type, int rank,
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

/* The result lies in memory as input k does, where they have one rank and rows stay rows, so that
 * views on both sides of an operator cancel out. */
static void order_like(attend_graph *g, struct at_node *n, int k)
{
    struct at_tensor *out = &g->tensor[n->out[0]];
    const struct at_tensor *in = input(g, n, k);
    if (in->rank == out->rank && out->rank > 0 && in->order[in->rank - 1] == in->rank - 1)
        memcpy(out->order, in->order, sizeof in->order);
}

/* NumPy's rule over the leading axes; false where they differ. */
static bool broadcast(const int64_t *a, int na, const int64_t *b, int nb, int64_t *out)
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

static int misfit(attend_graph *g, const struct at_node *n, const struct at_tensor *a,
                  const struct at_tensor *b, const char *rule)
{
    char ta[128], tb[128];
    return at_graph_fail(g, n, ATTEND_EINVAL, "%s and %s do not fit: %s",
                         at_shape_text(&g->dims, a->rank, a->shape, ta, sizeof ta),
                         at_shape_text(&g->dims, b->rank, b->shape, tb, sizeof tb), rule);
}

static attend_tensor append(attend_graph *g, enum at_opcode op, const int *in, int nin,
                            const union at_params *p, const attend_shape *shape)
{
    int id = at_graph_add(g, op, in, nin, p, shape);
    return id < 0 ? attend_none() : (attend_tensor){g, id};
}

static attend_tensor unary(attend_graph *g, enum at_opcode op, attend_tensor a,
                           const union at_params *p)
{
    int in[] = {at_graph_use(g, a, at_ops[op].name)};
    return append(g, op, in, 1, p, NULL);
}

static attend_tensor binary(attend_graph *g, enum at_opcode op, attend_tensor a, attend_tensor b,
                            const union at_params *p)
{
    int in[] = {at_graph_use(g, a, at_ops[op].name), at_graph_use(g, b, at_ops[op].name)};
    return append(g, op, in, 2, p, NULL);
}

/* An optional input: -1 where there is none. */
static int maybe(attend_graph *g, attend_tensor t, const char *what)
{
    return t.graph || t.id >= 0 ? at_graph_use(g, t, what) : -1;
}

/* ---- matmul ---- */

static int infer_matmul(attend_graph *g, struct at_node *n, const attend_shape *shape)
{
    (void)shape;
    const struct at_tensor *a = input(g, n, 0), *b = input(g, n, 1);
    bool rows = n->p.matmul.b_rows;
    if (want_float(g, n, 0, 2) < 0)
        return -1;
    if (!is_float(b->type) && !(rows && is_quantised(b->type)))
        return at_graph_fail(g, n, ATTEND_EINVAL, "b is %s, wants f32, f16 or bf16%s",
                             attend_type_name(b->type), rows ? ", q8_0, q4_0 or q4_1" : "");
    if (b->rank < 2)
        return at_graph_fail(g, n, ATTEND_EINVAL, "b has rank %d, wants at least 2", b->rank);
    int64_t k = a->shape[a->rank - 1], kb = b->shape[b->rank - (rows ? 1 : 2)];
    int64_t out[ATTEND_MAX_RANK];
    if (k != kb || !broadcast(a->shape, a->rank - 2, b->shape, b->rank - 2, out))
        return misfit(g, n, a, b,
                      rows ? "wants (..., m, k) and (..., n, k)"
                           : "wants (..., m, k) and (..., k, n)");
    int rank = a->rank > b->rank ? a->rank : b->rank;
    out[rank - 2] = a->shape[a->rank - 2];
    out[rank - 1] = b->shape[b->rank - (rows ? 2 : 1)];
    if (result(g, n, ATTEND_F32, rank, out) < 0)
        return -1;
    order_like(g, n, 0);
    return 0;
}

static double product(const attend_graph *g, int t, const int64_t *sym)
{
    double n = 1;
    for (int d = 0; d < g->tensor[t].rank; d++)
        n *= (double)at_dim_eval(&g->dims, g->tensor[t].shape[d], sym);
    return n;
}

static double flops_matmul(const attend_graph *g, const struct at_node *n, const int64_t *sym)
{
    const struct at_tensor *a = input(g, n, 0);
    return 2 * product(g, n->out[0], sym) *
           (double)at_dim_eval(&g->dims, a->shape[a->rank - 1], sym);
}

attend_tensor attend_graph_matmul(attend_graph *g, attend_tensor a, attend_tensor b)
{
    return binary(g, AT_MATMUL, a, b, NULL);
}

attend_tensor attend_graph_matmul_nt(attend_graph *g, attend_tensor a, attend_tensor b)
{
    union at_params p = {.matmul = {.b_rows = true}};
    return binary(g, AT_MATMUL, a, b, &p);
}

/* ---- elementwise ---- */

static int infer_binary(attend_graph *g, struct at_node *n, const attend_shape *shape)
{
    (void)shape;
    const struct at_tensor *a = input(g, n, 0), *b = input(g, n, 1);
    int64_t out[ATTEND_MAX_RANK];
    if (want_float(g, n, 0, 0) < 0 || want_float(g, n, 1, 0) < 0)
        return -1;
    if (!broadcast(a->shape, a->rank, b->shape, b->rank, out))
        return misfit(g, n, a, b, "extents must be equal or 1");
    int rank = a->rank > b->rank ? a->rank : b->rank;
    if (result(g, n, ATTEND_F32, rank, out) < 0)
        return -1;
    order_like(g, n, 0);
    return 0;
}

static int infer_unary(attend_graph *g, struct at_node *n, const attend_shape *shape)
{
    (void)shape;
    if (want_float(g, n, 0, 0) < 0 ||
        result(g, n, ATTEND_F32, input(g, n, 0)->rank, input(g, n, 0)->shape) < 0)
        return -1;
    order_like(g, n, 0);
    return 0;
}

static int infer_where(attend_graph *g, struct at_node *n, const attend_shape *shape)
{
    (void)shape;
    const struct at_tensor *cond = input(g, n, 0), *a = input(g, n, 1);
    int64_t out[ATTEND_MAX_RANK];
    if (want_type(g, n, 0, ATTEND_BOOL, "the condition") < 0 || want_float(g, n, 1, 0) < 0)
        return -1;
    if (!broadcast(cond->shape, cond->rank, a->shape, a->rank, out))
        return misfit(g, n, cond, a, "extents must be equal or 1");
    if (result(g, n, ATTEND_F32, cond->rank > a->rank ? cond->rank : a->rank, out) < 0)
        return -1;
    order_like(g, n, 1);
    return 0;
}

static int infer_select(attend_graph *g, struct at_node *n, const attend_shape *shape)
{
    (void)shape;
    const struct at_tensor *cond = input(g, n, 0), *a = input(g, n, 1), *b = input(g, n, 2);
    int64_t both[ATTEND_MAX_RANK], out[ATTEND_MAX_RANK];
    if (want_type(g, n, 0, ATTEND_BOOL, "the condition") < 0 || want_float(g, n, 1, 0) < 0 ||
        want_float(g, n, 2, 0) < 0)
        return -1;
    if (!broadcast(a->shape, a->rank, b->shape, b->rank, both))
        return misfit(g, n, a, b, "extents must be equal or 1");
    int rank = a->rank > b->rank ? a->rank : b->rank;
    if (!broadcast(cond->shape, cond->rank, both, rank, out))
        return misfit(g, n, cond, a->rank > b->rank ? a : b, "extents must be equal or 1");
    if (result(g, n, ATTEND_F32, cond->rank > rank ? cond->rank : rank, out) < 0)
        return -1;
    order_like(g, n, 1);
    return 0;
}

attend_tensor attend_graph_add(attend_graph *g, attend_tensor a, attend_tensor b)
{
    return binary(g, AT_ADD, a, b, NULL);
}

attend_tensor attend_graph_mul(attend_graph *g, attend_tensor a, attend_tensor b)
{
    return binary(g, AT_MUL, a, b, NULL);
}

attend_tensor attend_graph_scale(attend_graph *g, attend_tensor a, float factor)
{
    union at_params p = {.scale = {.factor = factor}};
    return unary(g, AT_SCALE, a, &p);
}

attend_tensor attend_graph_where(attend_graph *g, attend_tensor cond, attend_tensor a, float other)
{
    union at_params p = {.where = {.other = other}};
    return binary(g, AT_WHERE, cond, a, &p);
}

attend_tensor attend_graph_select(attend_graph *g, attend_tensor cond, attend_tensor a,
                                  attend_tensor b)
{
    int in[] = {at_graph_use(g, cond, "the condition of select"), at_graph_use(g, a, "select"),
                at_graph_use(g, b, "select")};
    return append(g, AT_SELECT, in, 3, NULL, NULL);
}

attend_tensor attend_graph_silu(attend_graph *g, attend_tensor a)
{
    return unary(g, AT_SILU, a, NULL);
}

attend_tensor attend_graph_gelu(attend_graph *g, attend_tensor a)
{
    return unary(g, AT_GELU, a, NULL);
}

attend_tensor attend_graph_gelu_tanh(attend_graph *g, attend_tensor a)
{
    return unary(g, AT_GELU_TANH, a, NULL);
}

attend_tensor attend_graph_tanh(attend_graph *g, attend_tensor a)
{
    return unary(g, AT_TANH, a, NULL);
}

attend_tensor attend_graph_sigmoid(attend_graph *g, attend_tensor a)
{
    return unary(g, AT_SIGMOID, a, NULL);
}

attend_tensor attend_graph_relu(attend_graph *g, attend_tensor a)
{
    return unary(g, AT_RELU, a, NULL);
}

attend_tensor attend_graph_erf(attend_graph *g, attend_tensor a)
{
    return unary(g, AT_ERF, a, NULL);
}

attend_tensor attend_graph_pow(attend_graph *g, attend_tensor a, float exponent)
{
    union at_params p = {.pow = {.exponent = exponent}};
    return unary(g, AT_POW, a, &p);
}

static int infer_cast(attend_graph *g, struct at_node *n, const attend_shape *shape)
{
    (void)shape;
    if (want_float(g, n, 0, 0) < 0)
        return -1;
    if (!is_float(n->p.cast.type))
        return at_graph_fail(g, n, ATTEND_EINVAL, "to %s, wants f32, f16 or bf16",
                             attend_type_name(n->p.cast.type));
    if (result(g, n, n->p.cast.type, input(g, n, 0)->rank, input(g, n, 0)->shape) < 0)
        return -1;
    order_like(g, n, 0);
    return 0;
}

attend_tensor attend_graph_cast(attend_graph *g, attend_tensor a, attend_type type)
{
    union at_params p = {.cast = {.type = type}};
    return unary(g, AT_CAST, a, &p);
}

/* ---- rows: softmax, norms, rope ---- */

static int infer_rows(attend_graph *g, struct at_node *n, const attend_shape *shape)
{
    return want_float(g, n, 0, 1) < 0 ? -1 : infer_unary(g, n, shape);
}

static int infer_norm(attend_graph *g, struct at_node *n, const attend_shape *shape)
{
    if (infer_rows(g, n, shape) < 0)
        return -1;
    if (!(n->p.norm.eps >= 0))
        return at_graph_fail(g, n, ATTEND_EINVAL, "eps is %g, wants a number >= 0",
                             (double)n->p.norm.eps);
    const int64_t d = input(g, n, 0)->shape[input(g, n, 0)->rank - 1];
    for (int k = 1; k < n->nin; k++)
        if (n->in[k] >= 0 && (want_float(g, n, k, 1) < 0 ||
                              want_shape(g, n, k, 1, &d, k == 1 ? "the weight" : "the bias") < 0))
            return -1;
    return 0;
}

attend_tensor attend_graph_softmax(attend_graph *g, attend_tensor a)
{
    return unary(g, AT_SOFTMAX, a, NULL);
}

attend_tensor attend_graph_rms_norm(attend_graph *g, attend_tensor a, attend_tensor weight,
                                    float eps)
{
    union at_params p = {.norm = {.eps = eps}};
    int in[] = {at_graph_use(g, a, "rms_norm"), maybe(g, weight, "the weight of rms_norm")};
    return append(g, AT_RMS_NORM, in, 2, &p, NULL);
}

attend_tensor attend_graph_layer_norm(attend_graph *g, attend_tensor a, attend_tensor weight,
                                      attend_tensor bias, float eps)
{
    union at_params p = {.norm = {.eps = eps}};
    int in[] = {at_graph_use(g, a, "layer_norm"), maybe(g, weight, "the weight of layer_norm"),
                maybe(g, bias, "the bias of layer_norm")};
    return append(g, AT_LAYER_NORM, in, 3, &p, NULL);
}

static int infer_rope(attend_graph *g, struct at_node *n, const attend_shape *shape)
{
    const struct at_tensor *a = input(g, n, 0), *pos = input(g, n, 1);
    if (want_float(g, n, 0, 0) < 0 || want_type(g, n, 1, ATTEND_I32, "positions") < 0)
        return -1;
    if (a->rank != 4)
        return at_graph_fail(g, n, ATTEND_EINVAL, "input 0 has rank %d, wants (B, H, S, D)",
                             a->rank);
    int64_t bs[] = {a->shape[0], a->shape[2]}, d = a->shape[3];
    if (pos->rank != 1 || pos->shape[0] != bs[1])
        if (want_shape(g, n, 1, 2, bs, "positions") < 0)
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
    if (n->in[2] >= 0 && (want_type(g, n, 2, ATTEND_F32, "factors") < 0 ||
                          want_shape(g, n, 2, 1, &pairs, "factors") < 0))
        return -1;
    return infer_unary(g, n, shape);
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
    if (opts)
        memcpy(&o, opts, opts->size < sizeof o ? opts->size : sizeof o);
    union at_params p = {
        .rope = {.pairing = o.pairing, .dims = o.dims, .base = o.base}
    };
    int in[] = {at_graph_use(g, a, "rope"), at_graph_use(g, positions, "positions of rope"),
                maybe(g, o.factors, "factors of rope")};
    return append(g, AT_ROPE, in, 3, &p, NULL);
}

/* ---- rows by index: gather, append, concat ---- */

static int infer_gather(attend_graph *g, struct at_node *n, const attend_shape *shape)
{
    (void)shape;
    const struct at_tensor *table = input(g, n, 0), *index = input(g, n, 1);
    if (!is_float(table->type) && !is_quantised(table->type))
        return want_float(g, n, 0, 2);
    if (table->rank != 2 || index->rank >= ATTEND_MAX_RANK)
        return at_graph_fail(g, n, ATTEND_EINVAL,
                             "the table has rank %d and the index %d, wants 2 and at most %d",
                             table->rank, index->rank, ATTEND_MAX_RANK - 1);
    if (want_type(g, n, 1, ATTEND_I32, "the index") < 0)
        return -1;
    int64_t out[ATTEND_MAX_RANK];
    memcpy(out, index->shape, sizeof out);
    out[index->rank] = table->shape[1];
    return result(g, n, ATTEND_F32, index->rank + 1, out);
}

attend_tensor attend_graph_gather(attend_graph *g, attend_tensor table, attend_tensor index)
{
    return binary(g, AT_GATHER, table, index, NULL);
}

/* Scales of f8 values: one for each entry of axis 0, or for all, and head. */
static int want_scale(attend_graph *g, struct at_node *n, int k, const struct at_tensor *of,
                      const char *what)
{
    const int64_t all[] = {1, of->shape[1]};
    if (n->in[k] < 0)
        return 0;
    if (of->type != ATTEND_F8)
        return at_graph_fail(g, n, ATTEND_EINVAL, "%s is given for %s values, which have none",
                             what, attend_type_name(of->type));
    if (want_type(g, n, k, ATTEND_F32, what) < 0)
        return -1;
    bool one = input(g, n, k)->rank == 2 && input(g, n, k)->shape[0] == 1;
    return want_shape(g, n, k, 2, one ? all : of->shape, what);
}

static bool is_view(const attend_graph *g, const struct at_tensor *t)
{
    return t->node >= 0 && at_ops[g->node[t->node].op].view;
}

static int infer_append(attend_graph *g, struct at_node *n, const attend_shape *shape)
{
    (void)shape;
    const struct at_tensor *state = input(g, n, 0), *rows = input(g, n, 1);
    if (state->class != AT_STATE || is_view(g, state))
        return at_graph_fail(g, n, ATTEND_EINVAL, "input 0 is %s a state",
                             state->class == AT_STATE ? "a view of" : "not");
    if (want_float(g, n, 1, 0) < 0 || want_type(g, n, 2, ATTEND_I32, "slots") < 0)
        return -1;
    if (state->rank != 4 || rows->rank != 4 || state->shape[1] != rows->shape[1] ||
        state->shape[3] != rows->shape[3])
        return misfit(g, n, state, rows, "wants a state (P, G, page, D) and rows (B, G, S, D)");
    const int64_t bs[] = {rows->shape[0], rows->shape[2]};
    if (n->nin > 3 && want_scale(g, n, 3, state, "the scale") < 0)
        return -1;
    if (want_shape(g, n, 2, 2, bs, "slots") < 0 ||
        result(g, n, state->type, state->rank, state->shape) < 0)
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
    return append(g, AT_APPEND, in, 3, NULL, NULL);
}

attend_tensor attend_graph_append_scaled(attend_graph *g, attend_tensor state, attend_tensor rows,
                                         attend_tensor slots, attend_tensor scale)
{
    int in[] = {at_graph_use(g, state, "the state of append"),
                at_graph_use(g, rows, "the rows of append"),
                at_graph_use(g, slots, "the slots of append"),
                at_graph_use(g, scale, "the scale of append")};
    return append(g, AT_APPEND, in, 4, NULL, NULL);
}

static int infer_concat(attend_graph *g, struct at_node *n, const attend_shape *shape)
{
    (void)shape;
    const struct at_tensor *a = input(g, n, 0);
    int axis = n->p.concat.axis;
    if (is_quantised(a->type) || axis < 0 || axis >= a->rank)
        return at_graph_fail(g, n, ATTEND_EINVAL, "axis %d of a %s tensor of rank %d", axis,
                             attend_type_name(a->type), a->rank);
    int64_t out[ATTEND_MAX_RANK];
    memcpy(out, a->shape, sizeof out);
    for (int k = 1; k < n->nin; k++) {
        const struct at_tensor *b = input(g, n, k);
        bool fits = b->rank == a->rank && b->type == a->type;
        for (int d = 0; fits && d < a->rank; d++)
            fits = d == axis || a->shape[d] == b->shape[d];
        if (!fits)
            return misfit(g, n, a, b, "types and all extents but that of the axis must be equal");
        if (out[axis] < 0 && b->shape[axis] < 0)
            return at_graph_fail(g, n, ATTEND_EUNSUPPORTED, "joins two dynamic extents");
        out[axis] = out[axis] < 0 ? at_graph_form(g, out[axis], 1, b->shape[axis])
                                  : at_graph_form(g, b->shape[axis], 1, out[axis]);
    }
    return result(g, n, a->type, a->rank, out);
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
    return append(g, AT_CONCAT, in, n, &p, NULL);
}

/* ---- copies and views ---- */

static int infer_copy(attend_graph *g, struct at_node *n, const attend_shape *shape)
{
    (void)shape;
    const struct at_tensor *a = input(g, n, 0);
    return result(g, n, a->type, a->rank, a->shape);
}

/* A tensor over the memory of input 0. */
static int view(attend_graph *g, struct at_node *n, int rank, const int64_t *shape)
{
    int id = result(g, n, input(g, n, 0)->type, rank, shape);
    if (id < 0)
        return id;
    struct at_tensor *t = &g->tensor[id];
    const struct at_tensor *a = input(g, n, 0);
    t->class = a->class;
    t->of = n->in[0];
    t->root = a->root;
    t->joined = a->joined;
    t->unit = a->unit;
    if (rank == a->rank)
        memcpy(t->order, a->order, sizeof t->order);
    return 0;
}

static int position(const struct at_tensor *t, int axis)
{
    int i = 0;
    while (t->order[i] != axis)
        i++;
    return i;
}

/* The tensor's axis no longer runs into its neighbours in memory. */
static void unjoin(struct at_tensor *t, int axis, bool inner)
{
    int i = position(t, axis);
    if (i > 0)
        t->joined &= ~(1u << (i - 1));
    if (inner)
        t->joined &= ~(1u << i);
}

static int infer_permute(attend_graph *g, struct at_node *n, const attend_shape *shape)
{
    (void)shape;
    const struct at_tensor *a = input(g, n, 0);
    int inverse[ATTEND_MAX_RANK] = {-1, -1, -1, -1, -1, -1};
    int64_t out[ATTEND_MAX_RANK];
    for (int d = 0; d < a->rank; d++) {
        int from = n->p.permute.perm[d];
        if (from < 0 || from >= a->rank || inverse[from] >= 0)
            return at_graph_fail(g, n, ATTEND_EINVAL,
                                 "axis %d takes axis %d of a tensor of rank %d", d, from, a->rank);
        inverse[from] = d;
        out[d] = a->shape[from];
    }
    if (is_quantised(a->type) && inverse[a->rank - 1] != a->rank - 1)
        return at_graph_fail(g, n, ATTEND_EINVAL, "moves the last axis of a %s tensor",
                             attend_type_name(a->type));
    if (view(g, n, a->rank, out) < 0)
        return -1;
    struct at_tensor *t = &g->tensor[n->out[0]];
    a = input(g, n, 0);
    t->unit = a->unit < 0 ? -1 : inverse[a->unit];
    for (int i = 0; i < t->rank; i++)
        t->order[i] = inverse[a->order[i]];
    return 0;
}

attend_tensor attend_graph_permute(attend_graph *g, attend_tensor a, const int *perm)
{
    union at_params p = {0};
    int in[] = {at_graph_use(g, a, "permute")};
    if (in[0] < 0)
        return attend_none();
    memcpy(p.permute.perm, perm, (size_t)g->tensor[in[0]].rank * sizeof *perm);
    return append(g, AT_PERMUTE, in, 1, &p, NULL);
}

static int infer_slice(attend_graph *g, struct at_node *n, const attend_shape *shape)
{
    const struct at_tensor *a = input(g, n, 0);
    int axis = n->p.slice.axis;
    int64_t start = n->p.slice.start, length = shape->dim[0];
    if (axis < 0 || axis >= a->rank)
        return at_graph_fail(g, n, ATTEND_EINVAL, "axis %d of a tensor of rank %d", axis, a->rank);
    if (!at_graph_extent(g, length))
        return at_graph_fail(g, n, ATTEND_EINVAL, "takes %lld elements", (long long)length);
    int64_t extent = a->shape[axis];
    if (start < 0 || at_dim_max(&g->dims, length) > at_dim_min(&g->dims, extent) - start)
        return at_graph_fail(g, n, ATTEND_EINVAL, "takes %lld from %lld on of an axis of %lld",
                             (long long)at_dim_max(&g->dims, length), (long long)start,
                             (long long)at_dim_min(&g->dims, extent));
    if (is_quantised(a->type) && axis == a->rank - 1 && (start % 32 || length % 32))
        return at_graph_fail(g, n, ATTEND_EINVAL,
                             "cuts a %s row at %lld + %lld, wants multiples of 32",
                             attend_type_name(a->type), (long long)start, (long long)length);
    int64_t out[ATTEND_MAX_RANK];
    memcpy(out, a->shape, sizeof out);
    out[axis] = length;
    if (view(g, n, a->rank, out) < 0)
        return -1;
    unjoin(&g->tensor[n->out[0]], axis, false);
    return 0;
}

attend_tensor attend_graph_slice(attend_graph *g, attend_tensor a, int axis, int64_t start,
                                 int64_t length)
{
    union at_params p = {
        .slice = {.axis = axis, .start = start}
    };
    int in[] = {at_graph_use(g, a, "slice")};
    attend_shape s = {1, {length}};
    return append(g, AT_SLICE, in, 1, &p, &s);
}

static int infer_expand(attend_graph *g, struct at_node *n, const attend_shape *shape)
{
    char from[128], to[128];
    const struct at_tensor *a = input(g, n, 0);
    bool fits = shape->rank == a->rank;
    for (int d = 0; fits && d < a->rank; d++)
        if (!at_graph_extent(g, shape->dim[d]))
            return at_graph_fail(g, n, ATTEND_EINVAL, "extent %d is %lld", d,
                                 (long long)shape->dim[d]);
    for (int d = 0; fits && d < a->rank; d++)
        fits = a->shape[d] == shape->dim[d] ||
               (a->shape[d] == 1 && !(is_quantised(a->type) && d == a->rank - 1));
    if (!fits)
        return at_graph_fail(g, n, ATTEND_EINVAL, "%s to %s: only axes of extent 1 are repeated",
                             at_shape_text(&g->dims, a->rank, a->shape, from, sizeof from),
                             at_shape_text(&g->dims, shape->rank, shape->dim, to, sizeof to));
    if (view(g, n, a->rank, shape->dim) < 0)
        return -1;
    a = input(g, n, 0);
    struct at_tensor *t = &g->tensor[n->out[0]];
    for (int d = 0; d < t->rank; d++)
        if (t->shape[d] != a->shape[d]) {
            unjoin(t, d, true);
            t->unit = t->unit == d ? -1 : t->unit;
        }
    return 0;
}

attend_tensor attend_graph_expand(attend_graph *g, attend_tensor a, attend_shape shape)
{
    int in[] = {at_graph_use(g, a, "expand")};
    return append(g, AT_EXPAND, in, 1, NULL, &shape);
}

/* A product of extents: a number times dynamic extents.  Two are equal only if they are equal for
 * all values of the dimensions. */
struct extents {
    int64_t number, largest;
    int64_t dynamic[ATTEND_MAX_RANK];
    int ndynamic;
};

static void multiply(const attend_graph *g, struct extents *p, int64_t extent)
{
    p->largest = at_mul_size(p->largest, at_dim_max(&g->dims, extent));
    if (extent < 0) {
        const struct at_form *f = &g->dims.form[-1 - extent];
        if (f->add == 0) { /* mul * sym: sym alone has a form too, that of attend_graph_dim */
            p->number = at_mul_size(p->number, f->mul);
            extent = -1;
            while (g->dims.form[-1 - extent].sym != f->sym || g->dims.form[-1 - extent].mul != 1 ||
                   g->dims.form[-1 - extent].add != 0)
                extent--;
        }
        int i = p->ndynamic++;
        for (; i > 0 && p->dynamic[i - 1] > extent; i--)
            p->dynamic[i] = p->dynamic[i - 1];
        p->dynamic[i] = extent;
    } else {
        p->number = at_mul_size(p->number, extent);
    }
}

static bool same_extents(const struct extents *a, const struct extents *b)
{
    return a->number >= 0 && a->number == b->number && a->ndynamic == b->ndynamic &&
           !memcmp(a->dynamic, b->dynamic, (size_t)a->ndynamic * sizeof *a->dynamic);
}

static struct extents all_extents(const attend_graph *g, int rank, const int64_t *shape, int skip)
{
    struct extents p = {.number = 1, .largest = 1};
    for (int d = 0; d < rank; d++)
        if (d != skip)
            multiply(g, &p, shape[d]);
    return p;
}

/* Fills in the extent that was written as ATTEND_INFER. */
static int infer_extent(attend_graph *g, struct at_node *n, attend_shape *s)
{
    int hole = -1;
    for (int d = 0; d < s->rank; d++)
        if (s->dim[d] == ATTEND_INFER) {
            if (hole >= 0)
                return at_graph_fail(g, n, ATTEND_EINVAL, "more than one extent is to be inferred");
            hole = d;
        } else if (!at_graph_extent(g, s->dim[d])) {
            return at_graph_fail(g, n, ATTEND_EINVAL, "extent %d is %lld", d, (long long)s->dim[d]);
        }
    if (hole < 0)
        return 0;
    const struct at_tensor *a = input(g, n, 0);
    struct extents have = all_extents(g, a->rank, a->shape, -1);
    struct extents rest = all_extents(g, s->rank, s->dim, hole);
    int64_t left = 1;
    int k = 0;
    for (int i = 0; i < have.ndynamic; i++) { /* one dynamic extent may be left over */
        if (k < rest.ndynamic && rest.dynamic[k] == have.dynamic[i])
            k++;
        else if (left == 1)
            left = have.dynamic[i];
        else
            return at_graph_fail(g, n, ATTEND_EUNSUPPORTED,
                                 "the inferred extent has two dimensions");
    }
    if (k < rest.ndynamic || rest.number <= 0 || have.number % rest.number)
        return at_graph_fail(g, n, ATTEND_EINVAL, "extent %d cannot be inferred", hole);
    s->dim[hole] = at_graph_form(g, left, have.number / rest.number, 0);
    return g->err.status;
}

/* Splits both shapes into the shortest groups of axes with equal products: group_a[d], group_b[d].
 * Returns how many, or -1. */
static int group_axes(const attend_graph *g, int na, const int64_t *a, int nb, const int64_t *b,
                      int *group_a, int *group_b)
{
    int i = 0, j = 0, groups = 0;
    while (i < na && j < nb) {
        struct extents pa = {.number = 1, .largest = 1}, pb = pa;
        multiply(g, &pa, a[i]);
        group_a[i++] = groups;
        multiply(g, &pb, b[j]);
        group_b[j++] = groups;
        while (!same_extents(&pa, &pb)) {
            if (i < na && (pa.largest <= pb.largest || j == nb)) {
                multiply(g, &pa, a[i]);
                group_a[i++] = groups;
            } else if (j < nb) {
                multiply(g, &pb, b[j]);
                group_b[j++] = groups;
            } else {
                return -1;
            }
        }
        groups++;
    }
    for (; i < na; i++) /* what is left over has extent 1 */
        group_a[i] = groups - 1;
    for (; j < nb; j++)
        group_b[j] = groups - 1;
    return groups;
}

/* May the axes of each group of t be merged?  Axes of extent 1 do not count. */
static bool groups_joined(const struct at_tensor *t, const int *group)
{
    for (int d = 0; d < t->rank; d++) {
        int e = d + 1;
        while (e < t->rank && group[e] == group[d] && t->shape[e] == 1)
            e++;
        if (t->shape[d] == 1 || e == t->rank || group[e] != group[d])
            continue;
        int from = position(t, d), to = position(t, e);
        for (int i = from; i < to; i++)
            if (!(t->joined >> i & 1) || (i > from && t->shape[t->order[i]] != 1))
                return false;
        if (to < from)
            return false;
    }
    return true;
}

/* Where in memory a group of a's axes begins and ends; axes of extent 1 tell only of a group that
 * has no others. */
static void find_group(const struct at_tensor *a, const int *group, int which, int *first,
                       int *last)
{
    bool ones = true;
    for (int d = 0; d < a->rank; d++)
        ones = ones && (group[d] != which || a->shape[d] == 1);
    *first = *last = -1;
    for (int i = 0; i < a->rank; i++)
        if (group[a->order[i]] == which && (ones || a->shape[a->order[i]] != 1)) {
            *first = *first < 0 ? i : *first;
            *last = i;
        }
}

/* Of the axes of one group, the last that is longer than 1, or the last. */
static int innermost(const struct at_tensor *t, const int *group, int which)
{
    int last = -1;
    for (int d = 0; d < t->rank; d++)
        if (group[d] == which && (last < 0 || t->shape[d] != 1 || t->shape[last] == 1))
            last = d;
    return last;
}

/* How t lies in memory, which is a with other axes: its groups are in the order of a's. */
static void reshape_order(const struct at_tensor *a, const int *ga, struct at_tensor *t,
                          const int *gb)
{
    int count = 0, end = -1;
    t->joined = ~0u;
    t->unit = t->rank - 1;
    if (a->rank == 0 || t->rank == 0) /* one element */
        return;
    for (int i = 0; i < a->rank; i++) {
        int group = ga[a->order[i]], first, last;
        find_group(a, ga, group, &first, &last);
        if (i != last)
            continue;
        for (int k = end; count > 0 && k < first; k++)
            if (!(a->joined >> k & 1))
                t->joined &= ~(1u << (count - 1));
        for (int d = 0; d < t->rank; d++)
            if (gb[d] == group)
                t->order[count++] = d;
        end = last;
    }
    bool known = a->unit >= 0 && a->unit == innermost(a, ga, ga[a->unit]);
    t->unit = known ? innermost(t, gb, ga[a->unit]) : -1;
}

static int infer_reshape(attend_graph *g, struct at_node *n, const attend_shape *shape)
{
    char from[128], to[128];
    attend_shape s = *shape;
    int ga[ATTEND_MAX_RANK], gb[ATTEND_MAX_RANK];
    if (s.rank < 0 || s.rank > ATTEND_MAX_RANK)
        return at_graph_fail(g, n, ATTEND_ELIMIT, "to rank %d, wants 0 to %d", s.rank,
                             ATTEND_MAX_RANK);
    if (is_quantised(input(g, n, 0)->type))
        return at_graph_fail(g, n, ATTEND_EUNSUPPORTED, "of a %s tensor",
                             attend_type_name(input(g, n, 0)->type));
    if (infer_extent(g, n, &s) < 0)
        return -1;
    const struct at_tensor *a = input(g, n, 0);
    struct extents pa = all_extents(g, a->rank, a->shape, -1),
                   pb = all_extents(g, s.rank, s.dim, -1);
    if (!same_extents(&pa, &pb))
        return at_graph_fail(g, n, ATTEND_EINVAL, "%s to %s: the numbers of elements differ",
                             at_shape_text(&g->dims, a->rank, a->shape, from, sizeof from),
                             at_shape_text(&g->dims, s.rank, s.dim, to, sizeof to));
    group_axes(g, a->rank, a->shape, s.rank, s.dim, ga, gb);
    if (view(g, n, s.rank, s.dim) < 0)
        return -1;
    reshape_order(input(g, n, 0), ga, &g->tensor[n->out[0]], gb);
    return 0;
}

/* Is a view possible at all?  Otherwise the reshape is of a copy. */
static bool reshape_needs_copy(attend_graph *g, int a, attend_shape s)
{
    int ga[ATTEND_MAX_RANK], gb[ATTEND_MAX_RANK];
    for (int d = 0; d < s.rank; d++)
        if (!at_graph_extent(g, s.dim[d]))
            return false; /* settled, or refused, by infer_reshape */
    const struct at_tensor *t = &g->tensor[a];
    struct extents pa = all_extents(g, t->rank, t->shape, -1),
                   pb = all_extents(g, s.rank, s.dim, -1);
    return same_extents(&pa, &pb) &&
           (group_axes(g, t->rank, t->shape, s.rank, s.dim, ga, gb) < 0 || !groups_joined(t, ga));
}

attend_tensor attend_graph_reshape(attend_graph *g, attend_tensor a, attend_shape shape)
{
    int in[] = {at_graph_use(g, a, "reshape")};
    if (in[0] >= 0 && shape.rank >= 0 && shape.rank <= ATTEND_MAX_RANK) {
        struct at_node probe = {.op = AT_RESHAPE, .nin = 1, .in = {in[0]}, .label = g->label};
        if (infer_extent(g, &probe, &shape) < 0)
            return attend_none();
        if (reshape_needs_copy(g, in[0], shape))
            in[0] = at_graph_add(g, AT_COPY, in, 1, NULL, NULL);
    }
    return append(g, AT_RESHAPE, in, 1, NULL, &shape);
}

/* ---- attention ---- */

#define MAX_TOP 65536 /* weights of a row, in their order */

static void mask_inputs(attend_graph *g, const attend_mask_opts *m, int *in, struct at_visible *v)
{
    int mask = maybe(g, m->mask, "the mask");
    if (mask >= 0)
        in[g->tensor[mask].type == ATTEND_BOOL ? AT_IN_MASK : AT_IN_BIAS] = mask;
    in[AT_IN_KV_USED] = maybe(g, m->kv_used, "kv_used");
    in[AT_IN_Q_OFFSET] = maybe(g, m->q_offset, "q_offset");
    *v = (struct at_visible){.causal = m->causal != 0,
                             .align = m->align,
                             .left = m->window_left,
                             .right = m->window_right};
}

/* Checks what masks (B, H, Sq, Skv): all that AT_MASK and AT_ATTENTION share. */
static int check_visible(attend_graph *g, struct at_node *n, const int64_t *scores, bool packed)
{
    const struct at_visible *v = &n->p.attention.visible;
    int64_t out[ATTEND_MAX_RANK];
    if (v->left < -1 || v->right < -1)
        return at_graph_fail(g, n, ATTEND_EINVAL, "window %lld,%lld: wants -1 (open) or more",
                             (long long)v->left, (long long)v->right);
    if (v->align != ATTEND_ALIGN_UNSET && v->align != ATTEND_TOP_LEFT &&
        v->align != ATTEND_BOTTOM_RIGHT)
        return at_graph_fail(g, n, ATTEND_EINVAL, "align is %d, which is none", (int)v->align);
    if (n->in[AT_IN_Q_OFFSET] >= 0 && v->align != ATTEND_ALIGN_UNSET)
        return at_graph_fail(g, n, ATTEND_EINVAL, "both align and q_offset are given");
    for (int k = AT_IN_BIAS; k <= AT_IN_MASK; k++) {
        if (n->in[k] < 0)
            continue;
        const struct at_tensor *m = input(g, n, k);
        if (k == AT_IN_BIAS && want_float(g, n, k, 0) < 0)
            return -1;
        if (m->rank > 4)
            return at_graph_fail(g, n, ATTEND_EINVAL, "the mask has %d axes, wants at most 4",
                                 m->rank);
        bool fits = packed || broadcast(m->shape, m->rank, scores, 4, out);
        for (int d = 0; fits && !packed && d < 4; d++) /* packed: checked in bind */
            fits = out[d] == scores[d];
        if (!fits) {
            char got[128], want[128];
            return at_graph_fail(g, n, ATTEND_EINVAL,
                                 "the mask is %s, which does not broadcast to %s",
                                 at_shape_text(&g->dims, m->rank, m->shape, got, sizeof got),
                                 at_shape_text(&g->dims, 4, scores, want, sizeof want));
        }
    }
    for (int k = AT_IN_KV_USED; k <= AT_IN_Q_OFFSET; k++) {
        const char *what = k == AT_IN_KV_USED ? "kv_used" : "q_offset";
        if (n->in[k] < 0)
            continue;
        if (want_type(g, n, k, ATTEND_I32, what) < 0 ||
            (!packed && want_shape(g, n, k, 1, scores, what) < 0))
            return -1;
        if (input(g, n, k)->rank != 1) /* packed: how many sequences there are is seen in bind */
            return at_graph_fail(g, n, ATTEND_EINVAL, "%s has rank %d, wants one entry a sequence",
                                 what, input(g, n, k)->rank);
    }
    bool matters = v->causal || v->left >= 0 || v->right >= 0 || n->in[AT_IN_ALIBI] >= 0;
    if (matters && v->align == ATTEND_ALIGN_UNSET && n->in[AT_IN_Q_OFFSET] < 0 && !packed &&
        scores[2] >= 0 && scores[3] >= 0 && scores[2] != scores[3] && n->in[AT_IN_KV_USED] < 0)
        return at_graph_fail(g, n, ATTEND_EINVAL,
                             "align is not set, and %lld query rows are not %lld keys: top-left or "
                             "bottom-right?",
                             (long long)scores[2], (long long)scores[3]);
    return 0;
}

/* A layout, as (B, H, blocks of rows, blocks of keys), covers the scores; where extents are not
 * numbers, or sequences are packed, bind looks at the last two (attn.c). */
static int check_layout(attend_graph *g, struct at_node *n, const int64_t *scores, bool packed)
{
    const struct at_layout *l = &n->p.attention.layout;
    if (!l->rows)
        return 0;
    const struct at_tensor *t = input(g, n, AT_IN_CAPTURE + l->capture);
    char got[128], want[128];
    int none = 4 - t->rank;
    bool fits = true;
    for (int d = none; fits && d < 4; d++) {
        int64_t extent = t->shape[d - none], size = d == 2 ? l->rows : d == 3 ? l->keys : 1;
        if (extent < 0 || scores[d] < 0 || (packed && d != 1))
            continue;
        fits = d < 2 ? extent == 1 || extent == scores[d] : extent == at_ceil_div(scores[d], size);
    }
    return fits ? 0
                : at_graph_fail(
                      g, n, ATTEND_EINVAL,
                      "the layout is %s, which are no blocks of %lld rows by %lld keys of scores "
                      "%s",
                      at_shape_text(&g->dims, t->rank, t->shape, got, sizeof got),
                      (long long)l->rows, (long long)l->keys,
                      at_shape_text(&g->dims, 4, scores, want, sizeof want));
}

static int infer_mask(attend_graph *g, struct at_node *n, const attend_shape *shape)
{
    (void)shape;
    if (want_float(g, n, 0, 4) < 0)
        return -1;
    if (input(g, n, 0)->rank != 4)
        return at_graph_fail(g, n, ATTEND_EINVAL, "scores have rank %d, wants (B, H, Sq, Skv)",
                             input(g, n, 0)->rank);
    if (check_visible(g, n, input(g, n, 0)->shape, false) < 0)
        return -1;
    if (result(g, n, ATTEND_F32, 4, input(g, n, 0)->shape) < 0)
        return -1;
    order_like(g, n, 0);
    return 0;
}

void attend_mask_opts_init(attend_mask_opts *opts)
{
    *opts = (attend_mask_opts){.size = sizeof *opts,
                               .window_left = -1,
                               .window_right = -1,
                               .mask = attend_none(),
                               .kv_used = attend_none(),
                               .q_offset = attend_none()};
}

attend_tensor attend_graph_mask(attend_graph *g, attend_tensor scores, const attend_mask_opts *opts)
{
    attend_mask_opts o;
    int in[AT_IN_COUNT];
    union at_params p = {0};
    memset(in, -1, sizeof in);
    attend_mask_opts_init(&o);
    if (opts)
        memcpy(&o, opts, opts->size < sizeof o ? opts->size : sizeof o);
    in[AT_IN_Q] = at_graph_use(g, scores, "scores of mask");
    mask_inputs(g, &o, in, &p.attention.visible);
    p.attention.scale = 1;
    return append(g, AT_MASK, in, AT_IN_COUNT, &p, NULL);
}

/* An optional vector: a number a head, or a channel. */
static int vector(attend_graph *g, struct at_node *n, int k, int64_t count, const char *what)
{
    return n->in[k] < 0 ? 0
           : want_type(g, n, k, ATTEND_F32, what) < 0 || want_shape(g, n, k, 1, &count, what) < 0
               ? -1
               : 0;
}

/* Keys by pages: a sequence has as many as its row of the table can name. */
static int check_pages(attend_graph *g, struct at_node *n, bool packed, int64_t *scores)
{
    const struct at_tensor *table = input(g, n, AT_IN_TABLE);
    int64_t page = scores[3];
    if (want_type(g, n, AT_IN_TABLE, ATTEND_I32, "block_table") < 0)
        return -1;
    if (table->rank != 2 || (!packed && table->shape[0] != scores[0]))
        return misfit(g, n, table, input(g, n, AT_IN_Q), "wants a block_table (B, pages)");
    if (n->in[AT_IN_KV_USED] < 0)
        return at_graph_fail(g, n, ATTEND_EINVAL, "block_table is given without kv_used");
    if (page < 1)
        return at_graph_fail(g, n, ATTEND_EINVAL, "pages hold %lld keys, wants 1 or more",
                             (long long)page);
    scores[3] = at_graph_form(g, table->shape[1], page, 0);
    return g->err.status;
}

/* The numbers of the mode, of which ROWS are among `rows`. */
static int check_weights(attend_graph *g, struct at_node *n, int64_t rows)
{
    const struct at_weights *p = &n->p.attention.weights;
    int64_t most = at_dim_min(&g->dims, rows);
    if (p->mode == ATTEND_WEIGHTS_ROWS && (p->first < 0 || p->end < p->first || p->end > most))
        return at_graph_fail(g, n, ATTEND_EINVAL, "rows %lld to %lld of %lld", (long long)p->first,
                             (long long)p->end, (long long)most);
    if (p->mode == ATTEND_WEIGHTS_TOPK && (p->k < 1 || p->k > MAX_TOP))
        return at_graph_fail(g, n, ATTEND_EINVAL, "the largest %lld of a row, wants 1 to %d",
                             (long long)p->k, MAX_TOP);
    if (p->mode == ATTEND_WEIGHTS_POOL &&
        (p->rows < 1 || p->cols < 1 || p->rows > INT32_MAX || p->cols > INT32_MAX))
        return at_graph_fail(g, n, ATTEND_EINVAL, "a map of %lld x %lld cells, wants 1 or more",
                             (long long)p->rows, (long long)p->cols);
    if ((int)p->mode < 0 || p->mode > ATTEND_WEIGHTS_POOL)
        return at_graph_fail(g, n, ATTEND_EINVAL, "mode %d of weights, which is none",
                             (int)p->mode);
    return 0;
}

/* What is kept of weights, once q and k are checked as attention's: (B, H, Sq, Skv) = scores, or of
 * packed sequences (H, T, Skv), of which pools, and columns of pages, are a sequence's own. */
static int weights_results(attend_graph *g, struct at_node *n, bool packed, const int64_t *scores)
{
    const struct at_weights *p = &n->p.attention.weights;
    int64_t out[4], lse[3];
    int skip = packed ? 1 : 0, entries = n->in[AT_IN_Q_LENS];
    memcpy(out, scores, sizeof out);
    memcpy(lse, scores, sizeof lse);
    if (want_type(g, n, AT_IN_LSE, ATTEND_F32, "lse") < 0 ||
        want_shape(g, n, AT_IN_LSE, 3 - skip, lse + skip, "lse") < 0 ||
        check_weights(g, n, scores[2]) < 0)
        return -1;
    bool own = packed && (p->mode == ATTEND_WEIGHTS_POOL ||
                          (p->mode == ATTEND_WEIGHTS_COLUMNS && n->in[AT_IN_TABLE] >= 0));
    if (own) {
        out[0] = at_graph_form(g, g->tensor[entries].shape[0], 1, -1);
        skip = 0;
    }
    if (g->err.status)
        return -1;
    if (p->mode == ATTEND_WEIGHTS_COLUMNS) {
        out[2] = scores[3];
        return result(g, n, ATTEND_F32, 3 - skip, out + skip);
    }
    if (p->mode == ATTEND_WEIGHTS_ROWS) {
        out[2] = p->end - p->first;
    } else if (p->mode == ATTEND_WEIGHTS_TOPK) {
        out[3] = p->k;
    } else if (p->mode == ATTEND_WEIGHTS_POOL) {
        out[2] = p->rows;
        out[3] = p->cols;
    }
    int kept = result(g, n, ATTEND_F32, 4 - skip, out + skip);
    return kept >= 0 && p->mode == ATTEND_WEIGHTS_TOPK
               ? result(g, n, ATTEND_I32, 4 - skip, out + skip)
               : kept;
}

static int infer_attention(attend_graph *g, struct at_node *n, const attend_shape *shape)
{
    (void)shape;
    const struct at_tensor *q = input(g, n, AT_IN_Q), *k = input(g, n, AT_IN_K),
                           *v = input(g, n, n->op == AT_WEIGHTS ? AT_IN_K : AT_IN_V);
    bool packed = n->in[AT_IN_Q_LENS] >= 0, paged = n->in[AT_IN_TABLE] >= 0;
    int rank = packed ? 3 : 4, krank = packed && !paged ? 3 : 4, heads = 1, row = packed ? 0 : 2,
        krow = krank == 3 ? 0 : 2, last = rank - 1;
    if ((packed && !paged) != (n->in[AT_IN_KV_LENS] >= 0))
        return at_graph_fail(g, n, ATTEND_EINVAL, "%s",
                             paged ? "both kv_lens and block_table are given"
                                   : "only one of q_lens and kv_lens is given");
    if (want_float(g, n, AT_IN_Q, 0) < 0)
        return -1;
    if (!is_float(k->type) && k->type != ATTEND_Q8_0 && k->type != ATTEND_Q4_0 &&
        k->type != ATTEND_F8)
        return at_graph_fail(g, n, ATTEND_EINVAL, "k is %s, wants f32, f16, bf16, q8_0, q4_0 or f8",
                             attend_type_name(k->type));
    if (q->rank != rank || k->rank != krank || v->rank != krank)
        return at_graph_fail(g, n, ATTEND_EINVAL, "q, k and v have ranks %d, %d and %d, want %s",
                             q->rank, k->rank, v->rank,
                             paged    ? "a pool (P, G, page, D)"
                             : packed ? "(T, H, D)"
                                      : "(B, H, S, D)");
    if (k->type != v->type && n->in[AT_IN_ADDITIVE] < 0) /* additive: k is a projection */
        return at_graph_fail(g, n, ATTEND_EINVAL, "k is %s but v is %s", attend_type_name(k->type),
                             attend_type_name(v->type));
    int64_t nh = q->shape[heads], ng = k->shape[heads], dk = q->shape[last],
            dv = v->shape[krank - 1];
    if (dk != k->shape[krank - 1])
        return at_graph_fail(g, n, ATTEND_EINVAL, "q has head size %lld but k has %lld",
                             (long long)dk, (long long)k->shape[krank - 1]);
    if (dk < 1 || dk > AT_MAX_HEAD || dv < 1 || dv > AT_MAX_HEAD)
        return at_graph_fail(g, n, ATTEND_ELIMIT, "head sizes %lld and %lld, wants 1 to %d",
                             (long long)dk, (long long)dv, AT_MAX_HEAD);
    if (v->shape[heads] != ng || v->shape[krow] != k->shape[krow] || v->shape[0] != k->shape[0] ||
        (!packed && !paged && k->shape[0] != q->shape[0]))
        return misfit(g, n, k, v,
                      packed ? "wants k and v (T, G, D)"
                             : "wants q, k and v of one batch, k and v of equal length");
    if (ng < 1 || nh < 1 || nh % ng)
        return at_graph_fail(g, n, ATTEND_EINVAL,
                             "%lld query heads are not a multiple of %lld KV heads", (long long)nh,
                             (long long)ng);
    int64_t scores[] = {packed ? -1 : q->shape[0], nh, q->shape[row], k->shape[krow]};
    if (paged && check_pages(g, n, packed, scores) < 0)
        return -1;
    if (want_scale(g, n, AT_IN_K_SCALE, k, "k_scale") < 0 ||
        want_scale(g, n, AT_IN_V_SCALE, v, "v_scale") < 0)
        return -1;
    if (vector(g, n, AT_IN_ALIBI, nh, "alibi") < 0 || vector(g, n, AT_IN_SINKS, nh, "sinks") < 0)
        return -1;
    if (vector(g, n, AT_IN_ADDITIVE, dk, "additive") < 0)
        return -1;
    if (packed) {
        int other = paged ? AT_IN_Q_LENS : AT_IN_KV_LENS;
        const struct at_tensor *a = input(g, n, AT_IN_Q_LENS), *b = input(g, n, other);
        if (want_type(g, n, AT_IN_Q_LENS, ATTEND_I32, "q_lens") < 0 ||
            want_type(g, n, other, ATTEND_I32, "kv_lens") < 0)
            return -1;
        if (a->rank != 1 || b->rank != 1 || a->shape[0] != b->shape[0] || a->shape[0] == 0)
            return misfit(g, n, a, b, "wants q_lens and kv_lens of N + 1 entries");
    }
    if (check_visible(g, n, scores, packed) < 0 || check_layout(g, n, scores, packed) < 0)
        return -1;
    struct at_attention *p = &n->p.attention;
    if (isnan(p->scale))
        p->scale = n->in[AT_IN_ADDITIVE] >= 0 ? 1 : (float)(1 / sqrt((double)dk));
    if (!isfinite(p->scale) || !isfinite(p->softcap) || p->softcap < 0)
        return at_graph_fail(g, n, ATTEND_EINVAL, "scale is %g and softcap %g, want finite numbers",
                             (double)p->scale, (double)p->softcap);
    if (!(p->dropout >= 0 && p->dropout < 1))
        return at_graph_fail(g, n, ATTEND_EINVAL, "dropout is %g, wants 0 or more and less than 1",
                             (double)p->dropout);
    if (n->op == AT_WEIGHTS)
        return weights_results(g, n, packed, scores);
    int64_t o[4], l[3];
    memcpy(o, q->shape, sizeof o);
    o[last] = dv;
    if (result(g, n, ATTEND_F32, rank, o) < 0)
        return -1;
    order_like(g, n, AT_IN_Q);
    q = input(g, n, AT_IN_Q);
    if (packed)
        l[0] = nh, l[1] = q->shape[0];
    else
        memcpy(l, q->shape, sizeof l);
    return result(g, n, ATTEND_F32, rank - 1, l);
}

static double flops_attention(const attend_graph *g, const struct at_node *n, const int64_t *sym)
{
    const struct at_tensor *q = input(g, n, AT_IN_Q), *k = input(g, n, AT_IN_K);
    double keys = (double)at_dim_eval(&g->dims, k->shape[k->rank == 3 ? 0 : 2], sym);
    if (n->in[AT_IN_TABLE] >= 0)
        keys *= (double)at_dim_eval(&g->dims, input(g, n, AT_IN_TABLE)->shape[1], sym);
    double rows = product(g, n->in[AT_IN_Q], sym) / (double)q->shape[q->rank - 1];
    double d = (double)(q->shape[q->rank - 1] + g->tensor[n->out[0]].shape[q->rank - 1]);
    return 2 * rows * keys * d * (n->p.attention.visible.causal ? 0.5 : 1);
}

static double flops_weights(const attend_graph *g, const struct at_node *n, const int64_t *sym)
{
    double keys = product(g, n->in[AT_IN_K], sym) / (double)input(g, n, AT_IN_K)->shape[1];
    return 2 * product(g, n->in[AT_IN_LSE], sym) * keys;
}

void attend_attention_opts_init(attend_attention_opts *opts)
{
    *opts = (attend_attention_opts){.size = sizeof *opts,
                                    .scale = NAN,
                                    .alibi = attend_none(),
                                    .sinks = attend_none(),
                                    .q_lens = attend_none(),
                                    .kv_lens = attend_none(),
                                    .block_table = attend_none(),
                                    .k_scale = attend_none(),
                                    .v_scale = attend_none(),
                                    .additive = attend_none(),
                                    .layout = attend_none(),
                                    .layout_rows = 64,
                                    .layout_keys = 64};
    attend_mask_opts_init(&opts->mask);
}

static bool has_layout(const attend_attention_opts *o)
{
    return o->layout.graph != NULL;
}

/* The mask becomes the condition that is read from `text`, where there is one, and the layout's
 * element. */
static int add_layout(attend_graph *g, struct at_expr *x, const char *text,
                      const attend_attention_opts *o, const int *in, char *err, size_t errlen)
{
    const struct at_tensor *t = &g->tensor[in[AT_IN_CAPTURE + o->ncaptures]];
    if (t->type != ATTEND_BOOL || t->rank < 2 || t->rank > 4)
        return at_say(err, errlen, ATTEND_EINVAL,
                      "the layout is %s with %d axes, wants bool with 2 to 4",
                      attend_type_name(t->type), t->rank);
    int status = at_expr_add_capture(x, "layout", t->type, t->rank, err, errlen);
    if (status == 0 && text)
        status = at_expr_parse(x, text, err, errlen);
    if (status < 0)
        return status;
    int both = at_expr_blocks(x, o->ncaptures, t->shape, o->layout_rows, o->layout_keys);
    if (text)
        both = at_expr_op2(x, AT_X_AND, x->root, both);
    if (both < 0)
        return at_say(err, errlen, ATTEND_ELIMIT,
                      "the mask expression is too long for a layout beside it");
    at_expr_finish(x, both);
    return 0;
}

static const struct at_expr *read_expression(attend_graph *g, const struct at_node *n, bool score,
                                             const char *text, const attend_attention_opts *o,
                                             const int *in)
{
    struct at_expr x;
    char err[320];
    int status = 0;
    at_expr_init(&x, score);
    for (int k = 0; k < o->ncaptures && status == 0; k++) {
        const struct at_tensor *t = &g->tensor[in[AT_IN_CAPTURE + k]];
        status = at_expr_add_capture(&x, o->captures[k].name, t->type, t->rank, err, sizeof err);
    }
    if (status == 0 && !score && has_layout(o))
        status = add_layout(g, &x, text, o, in, err, sizeof err);
    else if (status == 0)
        status = at_expr_parse(&x, text, err, sizeof err);
    const struct at_expr *kept = status == 0 ? at_graph_expr(g, &x) : NULL;
    if (status < 0)
        at_graph_fail(g, n, status, "%s", err);
    else if (!kept)
        at_graph_fail(g, n, ATTEND_ENOMEM, "no memory for an expression");
    return kept;
}

/* The expressions of an attention to be, and the tensors that they index. */
static void read_expressions(attend_graph *g, const attend_attention_opts *o, int *in,
                             struct at_attention *p)
{
    struct at_node n = {.op = AT_ATTENTION, .label = g->label};
    if (o->ncaptures < 0 || o->ncaptures > AT_USER_CAPTURES)
        at_graph_fail(g, &n, ATTEND_ELIMIT, "%d tensors for expressions, wants at most %d",
                      o->ncaptures, AT_USER_CAPTURES);
    for (int k = 0; k < o->ncaptures && g->err.status == 0; k++)
        if (!o->captures[k].name)
            at_graph_fail(g, &n, ATTEND_EINVAL, "a tensor for expressions has no name");
        else
            in[AT_IN_CAPTURE + k] = at_graph_use(g, o->captures[k].tensor, o->captures[k].name);
    if (has_layout(o) && g->err.status == 0) {
        in[AT_IN_CAPTURE + o->ncaptures] = at_graph_use(g, o->layout, "layout");
        p->layout = (struct at_layout){o->layout_rows, o->layout_keys, o->ncaptures};
        if (o->layout_rows < 1 || o->layout_keys < 1)
            at_graph_fail(g, &n, ATTEND_EINVAL, "blocks of the layout are %lld rows by %lld keys",
                          (long long)o->layout_rows, (long long)o->layout_keys);
    }
    if (g->err.status == 0 && o->score)
        p->score = read_expression(g, &n, true, o->score, o, in);
    if (g->err.status == 0 && (o->mask_expr || has_layout(o)))
        p->mask = read_expression(g, &n, false, o->mask_expr, o, in);
}

/* The inputs of attention, of which the third is v, or of weights, lse; and their parameters. */
static union at_params attention_inputs(attend_graph *g, attend_tensor q, attend_tensor k,
                                        attend_tensor third, const attend_attention_opts *opts,
                                        int *in)
{
    attend_attention_opts o;
    union at_params p = {0};
    memset(in, -1, AT_IN_COUNT * sizeof *in);
    attend_attention_opts_init(&o);
    if (opts)
        memcpy(&o, opts, opts->size < sizeof o ? opts->size : sizeof o);
    in[AT_IN_Q] = at_graph_use(g, q, "q");
    in[AT_IN_K] = at_graph_use(g, k, "k");
    in[AT_IN_V] = at_graph_use(g, third, "v or lse");
    in[AT_IN_ALIBI] = maybe(g, o.alibi, "alibi");
    in[AT_IN_SINKS] = maybe(g, o.sinks, "sinks");
    in[AT_IN_Q_LENS] = maybe(g, o.q_lens, "q_lens");
    in[AT_IN_KV_LENS] = maybe(g, o.kv_lens, "kv_lens");
    in[AT_IN_TABLE] = maybe(g, o.block_table, "block_table");
    in[AT_IN_K_SCALE] = maybe(g, o.k_scale, "k_scale");
    in[AT_IN_V_SCALE] = maybe(g, o.v_scale, "v_scale");
    in[AT_IN_ADDITIVE] = maybe(g, o.additive, "additive");
    mask_inputs(g, &o.mask, in, &p.attention.visible);
    read_expressions(g, &o, in, &p.attention);
    p.attention.scale = o.scale;
    p.attention.softcap = o.softcap;
    p.attention.dropout = o.dropout;
    p.attention.offset = o.offset;
    p.attention.seed = o.seed;
    return p;
}

attend_tensor attend_graph_attention(attend_graph *g, attend_tensor q, attend_tensor k,
                                     attend_tensor v, const attend_attention_opts *opts,
                                     attend_tensor *lse)
{
    int in[AT_IN_COUNT];
    union at_params p = attention_inputs(g, q, k, v, opts, in);
    attend_tensor out = append(g, AT_ATTENTION, in, AT_IN_COUNT, &p, NULL);
    if (lse)
        *lse = out.graph ? (attend_tensor){g, g->node[g->nnode - 1].out[1]} : out;
    return out;
}

void attend_weights_opts_init(attend_weights_opts *opts)
{
    *opts = (attend_weights_opts){.size = sizeof *opts, .k = 1, .rows = 1, .cols = 1};
}

attend_tensor attend_graph_attention_weights(attend_graph *g, attend_tensor q, attend_tensor k,
                                             attend_tensor lse, const attend_attention_opts *opts,
                                             const attend_weights_opts *kept, attend_tensor *index)
{
    int in[AT_IN_COUNT];
    attend_weights_opts w;
    attend_weights_opts_init(&w);
    if (kept)
        memcpy(&w, kept, kept->size < sizeof w ? kept->size : sizeof w);
    union at_params p = attention_inputs(g, q, k, lse, opts, in);
    p.attention.weights = (struct at_weights){w.mode, w.first, w.end, w.k, w.rows, w.cols};
    attend_tensor out = append(g, AT_WEIGHTS, in, AT_IN_COUNT, &p, NULL);
    const struct at_node *n = out.graph ? &g->node[g->nnode - 1] : NULL;
    if (index)
        *index = n && n->nout > 1 ? (attend_tensor){g, n->out[1]} : attend_none();
    return out;
}

/* ---- merge ---- */

static int infer_merge(attend_graph *g, struct at_node *n, const attend_shape *shape)
{
    static const char *const what[] = {"o1", "lse1", "o2", "lse2"};
    const struct at_tensor *o = input(g, n, 0);
    (void)shape;
    if (o->rank < 2)
        return at_graph_fail(g, n, ATTEND_EINVAL, "o1 has rank %d, wants (..., D)", o->rank);
    for (int k = 0; k < 4; k++)
        if (want_type(g, n, k, ATTEND_F32, what[k]) < 0 ||
            want_shape(g, n, k, k % 2 ? o->rank - 1 : o->rank, o->shape, what[k]) < 0)
            return -1;
    if (result(g, n, ATTEND_F32, o->rank, o->shape) < 0)
        return -1;
    order_like(g, n, 0);
    o = input(g, n, 0);
    return result(g, n, ATTEND_F32, o->rank - 1, o->shape);
}

attend_tensor attend_graph_merge(attend_graph *g, attend_tensor o1, attend_tensor lse1,
                                 attend_tensor o2, attend_tensor lse2, attend_tensor *lse)
{
    int in[] = {at_graph_use(g, o1, "o1 of merge"), at_graph_use(g, lse1, "lse1 of merge"),
                at_graph_use(g, o2, "o2 of merge"), at_graph_use(g, lse2, "lse2 of merge")};
    attend_tensor o = append(g, AT_MERGE, in, 4, NULL, NULL);
    if (lse)
        *lse = o.graph ? (attend_tensor){g, g->node[g->nnode - 1].out[1]} : o;
    return o;
}

/* ---- the table ---- */

/* clang-format off */
const struct at_op at_ops[AT_OP_COUNT] = {
    /*               name         in      view   infer            flops            reference       gradient */
    [AT_MATMUL]    = {"matmul",     2, 2, false, infer_matmul,    flops_matmul,    at_ref_matmul, at_grad_matmul},
    [AT_ADD]       = {"add",        2, 2, false, infer_binary,    NULL,            at_ref_add, at_grad_add},
    [AT_MUL]       = {"mul",        2, 2, false, infer_binary,    NULL,            at_ref_mul, at_grad_mul},
    [AT_SCALE]     = {"scale",      1, 1, false, infer_unary,     NULL,            at_ref_scale, at_grad_scale},
    [AT_WHERE]     = {"where",      2, 2, false, infer_where,     NULL,            at_ref_where, at_grad_where},
    [AT_SELECT]    = {"select",     3, 3, false, infer_select,    NULL,            at_ref_select, at_grad_select},
    [AT_MASK]      = {"mask",       1, AT_IN_COUNT, false, infer_mask, NULL,       at_ref_mask, at_grad_mask},
    [AT_SOFTMAX]   = {"softmax",    1, 1, false, infer_rows,      NULL,            at_ref_softmax, at_grad_softmax},
    [AT_ATTENTION] = {"attention",  3, AT_IN_COUNT, false, infer_attention, flops_attention, at_ref_attention, at_grad_attention},
    [AT_MERGE]     = {"merge",      4, 4, false, infer_merge,     NULL,            at_ref_merge, at_grad_merge},
    [AT_WEIGHTS]   = {"weights",    3, AT_IN_COUNT, false, infer_attention, flops_weights, at_ref_weights, NULL},
    [AT_RMS_NORM]  = {"rms_norm",   1, 2, false, infer_norm,      NULL,            at_ref_rms_norm, at_grad_norm},
    [AT_LAYER_NORM]= {"layer_norm", 1, 3, false, infer_norm,      NULL,            at_ref_layer_norm, at_grad_norm},
    [AT_SILU]      = {"silu",       1, 1, false, infer_unary,     NULL,            at_ref_silu, at_grad_function},
    [AT_GELU]      = {"gelu",       1, 1, false, infer_unary,     NULL,            at_ref_gelu, at_grad_function},
    [AT_GELU_TANH] = {"gelu_tanh",  1, 1, false, infer_unary,     NULL,            at_ref_gelu_tanh, at_grad_function},
    [AT_TANH]      = {"tanh",       1, 1, false, infer_unary,     NULL,            at_ref_tanh, at_grad_function},
    [AT_SIGMOID]   = {"sigmoid",    1, 1, false, infer_unary,     NULL,            at_ref_sigmoid, at_grad_function},
    [AT_RELU]      = {"relu",       1, 1, false, infer_unary,     NULL,            at_ref_relu, at_grad_function},
    [AT_ERF]       = {"erf",        1, 1, false, infer_unary,     NULL,            at_ref_erf, at_grad_function},
    [AT_POW]       = {"pow",        1, 1, false, infer_unary,     NULL,            at_ref_pow, at_grad_function},
    [AT_ROPE]      = {"rope",       2, 3, false, infer_rope,      NULL,            at_ref_rope, at_grad_rope},
    [AT_GATHER]    = {"gather",     2, 2, false, infer_gather,    NULL,            at_ref_gather, at_grad_gather},
    [AT_APPEND]    = {"append",     3, 4, false, infer_append,    NULL,            at_ref_append, NULL},
    [AT_CONCAT]    = {"concat",     1, AT_MAX_IN, false, infer_concat, NULL,       at_ref_concat, at_grad_concat},
    [AT_CAST]      = {"cast",       1, 1, false, infer_cast,      NULL,            at_ref_cast, at_grad_same},
    [AT_COPY]      = {"copy",       1, 1, false, infer_copy,      NULL,            at_ref_copy, at_grad_same},
    [AT_RESHAPE]   = {"reshape",    1, 1, true,  infer_reshape,   NULL,            NULL, at_grad_reshape},
    [AT_PERMUTE]   = {"permute",    1, 1, true,  infer_permute,   NULL,            NULL, at_grad_permute},
    [AT_SLICE]     = {"slice",      1, 1, true,  infer_slice,     NULL,            NULL, at_grad_slice},
    [AT_EXPAND]    = {"expand",     1, 1, true,  infer_expand,    NULL,            NULL, at_grad_expand},
    [AT_SUM]       = {"sum",        1, 1, false, at_infer_sum,    NULL,            at_ref_sum, at_grad_sum},
    [AT_PAD]       = {"pad",        1, 1, false, at_infer_pad,    NULL,            at_ref_pad, at_grad_pad},
    [AT_CROSS_ENTROPY] = {"cross_entropy", 2, 2, false, at_infer_cross_entropy, NULL, at_ref_cross_entropy, at_grad_cross_entropy},
    [AT_SQUARE_LOSS] = {"square_loss", 2, 2, false, at_infer_square_loss, NULL,    at_ref_square_loss, at_grad_square_loss},
    [AT_CLIP]      = {"clip",       1, 1, false, at_infer_clip,   NULL,            at_ref_clip, NULL},
    [AT_SGD]       = {"sgd",        3, 5, false, at_infer_update, NULL,            at_ref_sgd, NULL},
    [AT_ADAMW]     = {"adamw",      6, 7, false, at_infer_update, NULL,            at_ref_adamw, NULL},
    [AT_DELTA]     = {"delta",      2, 4, false, at_infer_delta,  NULL,            at_ref_delta, NULL},
    [AT_ATTENTION_GRAD] = {"attention_grad", 3, AT_IN_GRAD_COUNT, false, at_infer_attention_grad, at_flops_attention_grad, at_ref_attention_grad, NULL},
    [AT_MASK_GRAD] = {"mask_grad",  1, AT_IN_COUNT, false, infer_mask, NULL,       at_ref_mask_grad, NULL},
    [AT_MERGE_GRAD] = {"merge_grad", 7, 8, false, at_infer_merge_grad, NULL,       at_ref_merge_grad, NULL},
    [AT_FUNCTION_GRAD] = {"function_grad", 2, 2, false, at_infer_like, NULL,       at_ref_function_grad, NULL},
    [AT_SOFTMAX_GRAD] = {"softmax_grad", 2, 2, false, at_infer_like, NULL,         at_ref_softmax_grad, NULL},
    [AT_NORM_GRAD] = {"norm_grad",  3, 3, false, at_infer_norm_grad, NULL,         at_ref_norm_grad, NULL},
    [AT_GATHER_GRAD] = {"gather_grad", 3, 3, false, at_infer_gather_grad, NULL,    at_ref_gather_grad, NULL},
    [AT_CROSS_ENTROPY_GRAD] = {"cross_entropy_grad", 3, 3, false, at_infer_like, NULL, at_ref_cross_entropy_grad, NULL},
    [AT_SQUARE_LOSS_GRAD] = {"square_loss_grad", 3, 3, false, at_infer_like, NULL, at_ref_square_loss_grad, NULL},
};
/* clang-format on */
