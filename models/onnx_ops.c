/* SPDX-License-Identifier: MIT */
/* What the operators of ONNX become in a graph: a function each, and at the end the table.  Those
 * of attention are in onnx_attn.c, those of integers known beforehand in onnx_fold.c. */
#include "onnx.h"

#include <math.h>
#include <string.h>

static attend_type type_of(const struct onnx_node *n, int k)
{
    return n->in[k]->type;
}

/* ---- pieces that several operators are made of ---- */

attend_tensor at_onnx_cast(struct onnx_node *n, attend_tensor t, attend_type type)
{
    return attend_tensor_type(t) == type ? t : attend_graph_cast(n->g, t, type);
}

attend_tensor at_onnx_permute4(struct onnx_node *n, attend_tensor t, int a, int b, int c, int d)
{
    const int perm[] = {a, b, c, d};
    return attend_graph_permute(n->g, t, perm);
}

attend_tensor at_onnx_concat2(struct onnx_node *n, attend_tensor a, attend_tensor b, int axis)
{
    const attend_tensor parts[] = {a, b};
    return attend_graph_concat(n->g, parts, 2, axis);
}

/* The number of a known value of one element that adds no axes to a tensor of this rank. */
static bool is_number(const struct onnx_value *v, int rank, float *x)
{
    if (!v->data || at_onnx_count(&v->shape) != 1 || v->shape.rank > rank)
        return false;
    *x = (float)at_onnx_number(v, 0);
    return true;
}

/* The axes before and after a cut, each as one. */
static attend_shape two_axes(const attend_shape *s, int cut)
{
    attend_shape r = ATTEND_SHAPE(1, 1);
    for (int d = 0; d < s->rank; d++)
        r.dim[d >= cut] *= s->dim[d];
    return r;
}

/* t with axis `from` moved to place `to`. */
static attend_tensor move_axis(struct onnx_node *n, attend_tensor t, int from, int to)
{
    int perm[ATTEND_MAX_RANK], k = 0, rank = attend_tensor_shape(t).rank;
    for (int d = 0; d < rank; d++) {
        k += k == from;
        perm[d] = d == to ? from : k++;
    }
    return from == to ? t : attend_graph_permute(n->g, t, perm);
}

/* ---- elementwise ---- */

static void give_like(struct onnx_node *n, attend_tensor t)
{
    at_onnx_give(n, 0, t, type_of(n, 0));
}

static void build_add(struct onnx_node *n)
{
    give_like(n, attend_graph_add(n->g, at_onnx_use(n, 0), at_onnx_use(n, 1)));
}

static void build_sub(struct onnx_node *n)
{
    attend_tensor b = attend_graph_scale(n->g, at_onnx_use(n, 1), -1);
    give_like(n, attend_graph_add(n->g, at_onnx_use(n, 0), b));
}

/* A factor that is one number is a scale, which fuses into attention. */
static void build_mul(struct onnx_node *n)
{
    float x;
    for (int k = 0; k < 2; k++)
        if (is_number(n->in[k], n->in[1 - k]->shape.rank, &x)) {
            give_like(n, attend_graph_scale(n->g, at_onnx_use(n, 1 - k), x));
            return;
        }
    give_like(n, attend_graph_mul(n->g, at_onnx_use(n, 0), at_onnx_use(n, 1)));
}

static void build_div(struct onnx_node *n)
{
    float x;
    if (is_number(n->in[1], n->in[0]->shape.rank, &x)) {
        give_like(n, attend_graph_scale(n->g, at_onnx_use(n, 0), 1 / x));
        return;
    }
    attend_tensor b = attend_graph_pow(n->g, at_onnx_use(n, 1), -1);
    give_like(n, attend_graph_mul(n->g, at_onnx_use(n, 0), b));
}

static void build_pow(struct onnx_node *n)
{
    float x;
    if (is_number(n->in[1], n->in[0]->shape.rank, &x))
        give_like(n, attend_graph_pow(n->g, at_onnx_use(n, 0), x));
    else
        at_onnx_fail(n, ATTEND_EUNSUPPORTED, "the exponent is not one number known before the run");
}

static void build_sqrt(struct onnx_node *n)
{
    give_like(n, attend_graph_pow(n->g, at_onnx_use(n, 0), 0.5f));
}

static void build_reciprocal(struct onnx_node *n)
{
    give_like(n, attend_graph_pow(n->g, at_onnx_use(n, 0), -1));
}

static void build_neg(struct onnx_node *n)
{
    give_like(n, attend_graph_scale(n->g, at_onnx_use(n, 0), -1));
}

static void build_tanh(struct onnx_node *n)
{
    give_like(n, attend_graph_tanh(n->g, at_onnx_use(n, 0)));
}

static void build_sigmoid(struct onnx_node *n)
{
    give_like(n, attend_graph_sigmoid(n->g, at_onnx_use(n, 0)));
}

static void build_relu(struct onnx_node *n)
{
    give_like(n, attend_graph_relu(n->g, at_onnx_use(n, 0)));
}

static void build_erf(struct onnx_node *n)
{
    give_like(n, attend_graph_erf(n->g, at_onnx_use(n, 0)));
}

/* x sigmoid(alpha x) */
static void build_swish(struct onnx_node *n)
{
    float alpha = at_onnx_float(n, "alpha", 1);
    attend_tensor x = at_onnx_use(n, 0);
    if (alpha == 1)
        x = attend_graph_silu(n->g, x);
    else
        x = attend_graph_mul(n->g, x,
                             attend_graph_sigmoid(n->g, attend_graph_scale(n->g, x, alpha)));
    give_like(n, x);
}

static void build_gelu(struct onnx_node *n)
{
    attend_tensor x = at_onnx_use(n, 0);
    if (at_onnx_says(n, "approximate", "tanh", false))
        give_like(n, attend_graph_gelu_tanh(n->g, x));
    else if (at_onnx_says(n, "approximate", "none", true))
        give_like(n, attend_graph_gelu(n->g, x));
    else
        at_onnx_fail(n, ATTEND_EFORMAT, "attribute approximate is neither none nor tanh");
}

static void build_where(struct onnx_node *n)
{
    float x;
    int rank =
        n->in[0]->shape.rank > n->in[1]->shape.rank ? n->in[0]->shape.rank : n->in[1]->shape.rank;
    attend_tensor cond = at_onnx_use(n, 0), a = at_onnx_use(n, 1), t;
    if (is_number(n->in[2], rank, &x)) /* hides scores where x is -inf */
        t = attend_graph_where(n->g, cond, a, x);
    else
        t = attend_graph_select(n->g, cond, a, at_onnx_use(n, 2));
    at_onnx_give(n, 0, t, type_of(n, 1));
}

static void cast_known(struct onnx_node *n, attend_type to)
{
    struct onnx_value *v = n->in[0];
    int64_t count = at_onnx_count(&v->shape);
    char *out = at_onnx_alloc(n, count, (int64_t)attend_type_size(to));
    for (int64_t k = 0; out && k < count; k++) {
        double x = at_onnx_number(v, k);
        if (attend_convert(to, out + (size_t)k * attend_type_size(to), ATTEND_F64, &x, 1) < 0)
            at_onnx_fail(n, ATTEND_EUNSUPPORTED, "from %s to %s", attend_type_name(v->type),
                         attend_type_name(to));
    }
    at_onnx_give_known(n, 0, to, v->shape, out);
}

static bool is_float(attend_type type)
{
    return type == ATTEND_F32 || type == ATTEND_F16 || type == ATTEND_BF16 || type == ATTEND_F64;
}

static void build_cast(struct onnx_node *n)
{
    static const struct {
        int64_t id;
        attend_type type;
    } types[] = {
        {1,  ATTEND_F32 },
        {6,  ATTEND_I32 },
        {7,  ATTEND_I64 },
        {10, ATTEND_F16 },
        {11, ATTEND_F64 },
        {16, ATTEND_BF16}
    };
    struct onnx_value *v = n->in[0];
    int64_t id = at_onnx_int(n, "to", 0);
    for (size_t k = 0; k < sizeof types / sizeof *types; k++) {
        attend_type to = types[k].type;
        attend_type in_graph = to == ATTEND_F64 ? ATTEND_F32 : to;
        if (types[k].id != id)
            continue;
        if (v->data && is_float(to))
            cast_known(n, to);
        else if (is_float(v->type) && is_float(to))
            at_onnx_give(n, 0, at_onnx_cast(n, at_onnx_use_rounded(n, 0), in_graph), to);
        else if (v->type == ATTEND_BOOL && is_float(to))
            at_onnx_give(n, 0,
                         attend_graph_where(n->g, at_onnx_use(n, 0),
                                            at_onnx_fill(n, ATTEND_F32, ATTEND_SHAPE(1), 1), 0),
                         to);
        else if ((v->type == ATTEND_I32 || v->type == ATTEND_I64) && !is_float(to))
            at_onnx_give(n, 0, at_onnx_use(n, 0), to);
        else
            break;
        return;
    }
    at_onnx_fail(n, ATTEND_EUNSUPPORTED, "from %s to ONNX's type %lld", attend_type_name(v->type),
                 (long long)id);
}

/* ---- products ---- */

static attend_tensor with_axis(struct onnx_node *n, attend_tensor t, bool front)
{
    attend_shape s = attend_tensor_shape(t);
    if (s.rank != 1)
        return t;
    return attend_graph_reshape(n->g, t,
                                front ? ATTEND_SHAPE(1, s.dim[0]) : ATTEND_SHAPE(s.dim[0], 1));
}

static attend_shape without_axis(attend_shape s, int axis)
{
    for (int d = axis; d + 1 < s.rank; d++)
        s.dim[d] = s.dim[d + 1];
    s.rank--;
    return s;
}

/* Vectors are a row on the left and a column on the right; that axis then goes. */
static void build_matmul(struct onnx_node *n)
{
    bool row = n->in[0]->shape.rank == 1, column = n->in[1]->shape.rank == 1;
    attend_tensor c = attend_graph_matmul(n->g, with_axis(n, at_onnx_use(n, 0), true),
                                          with_axis(n, at_onnx_use(n, 1), false));
    attend_shape s = attend_tensor_shape(c);
    if (column && s.rank > 0)
        s = without_axis(s, s.rank - 1);
    if (row && s.rank > 0)
        s = without_axis(s, s.rank - (column ? 1 : 2));
    if ((row || column) && !at_onnx_failed(n))
        c = attend_graph_reshape(n->g, c, s);
    give_like(n, c);
}

static void build_gemm(struct onnx_node *n)
{
    static const int swap[] = {1, 0};
    attend_tensor a = at_onnx_use(n, 0), b = at_onnx_use(n, 1);
    float alpha = at_onnx_float(n, "alpha", 1), beta = at_onnx_float(n, "beta", 1);
    if (n->in[0]->shape.rank != 2 || n->in[1]->shape.rank != 2) {
        at_onnx_fail(n, ATTEND_EINVAL, "the matrices have ranks %d and %d", n->in[0]->shape.rank,
                     n->in[1]->shape.rank);
        return;
    }
    if (at_onnx_int(n, "transA", 0))
        a = attend_graph_permute(n->g, a, swap);
    attend_tensor y = at_onnx_int(n, "transB", 0) ? attend_graph_matmul_nt(n->g, a, b)
                                                  : attend_graph_matmul(n->g, a, b);
    if (alpha != 1)
        y = attend_graph_scale(n->g, y, alpha);
    if (at_onnx_given(n, 2)) {
        attend_tensor c = at_onnx_use(n, 2);
        y = attend_graph_add(n->g, y, beta == 1 ? c : attend_graph_scale(n->g, c, beta));
    }
    give_like(n, y);
}

/* ---- rows ---- */

/* Before opset 13 the axes from `axis` on were one. */
static void build_softmax(struct onnx_node *n)
{
    const attend_shape *s = &n->in[0]->shape;
    int axis = at_onnx_axis(n, at_onnx_int(n, "axis", n->opset < 13 ? 1 : -1), s->rank);
    attend_tensor x = at_onnx_use(n, 0);
    if (n->opset < 13) {
        x = attend_graph_softmax(n->g, attend_graph_reshape(n->g, x, two_axes(s, axis)));
        x = attend_graph_reshape(n->g, x, *s);
    } else if (s->rank > 0) {
        x = attend_graph_softmax(n->g, move_axis(n, x, axis, s->rank - 1));
        x = move_axis(n, x, s->rank - 1, axis);
    }
    give_like(n, x);
}

/* The sums of the rows of x (rows, d) over d, by a product with ones: (rows, 1). */
static attend_tensor mean_of_rows(struct onnx_node *n, attend_tensor x)
{
    int64_t d = attend_tensor_shape(x).dim[1];
    attend_tensor ones = at_onnx_fill(n, ATTEND_F32, ATTEND_SHAPE(1, d), 1.0);
    return attend_graph_scale(n->g, attend_graph_matmul_nt(n->g, x, ones), 1 / (float)d);
}

/* A norm over the axes from `axis` on, which become one; parameters of just their shape go into the
 * operator, others, which broadcast, after it. */
struct norm {
    attend_shape shape, flat;
    int axis;
    float eps;
    attend_tensor x; /* (rows, d) */
};

static bool begin_norm(struct onnx_node *n, struct norm *m)
{
    m->shape = n->in[0]->shape;
    m->axis = at_onnx_axis(n, at_onnx_int(n, "axis", -1), m->shape.rank);
    m->eps = at_onnx_float(n, "epsilon", 1e-5f);
    m->flat = two_axes(&m->shape, m->axis);
    m->x = attend_graph_reshape(n->g, at_onnx_use(n, 0), m->flat);
    return !at_onnx_failed(n);
}

/* Parameter k as (d), or none where it is of another shape or not given. */
static attend_tensor norm_parameter(struct onnx_node *n, const struct norm *m, int k)
{
    if (!at_onnx_given(n, k))
        return attend_none();
    const attend_shape *p = &n->in[k]->shape;
    int rank = m->shape.rank - m->axis;
    if (p->rank != rank || memcmp(p->dim, m->shape.dim + m->axis, (size_t)rank * sizeof *p->dim))
        return attend_none();
    return attend_graph_reshape(n->g, at_onnx_use(n, k), ATTEND_SHAPE(m->flat.dim[1]));
}

/* y in the shape of the input, times or plus the parameter unless the operator had it. */
static attend_tensor after_norm(struct onnx_node *n, attend_tensor y, int k, attend_tensor had)
{
    if (!at_onnx_given(n, k) || had.graph)
        return y;
    return k == 1 ? attend_graph_mul(n->g, y, at_onnx_use(n, k))
                  : attend_graph_add(n->g, y, at_onnx_use(n, k));
}

static void build_rms_norm(struct onnx_node *n)
{
    struct norm m;
    if (!begin_norm(n, &m))
        return;
    attend_tensor weight = norm_parameter(n, &m, 1);
    attend_tensor y = attend_graph_rms_norm(n->g, m.x, weight, m.eps);
    y = attend_graph_reshape(n->g, y, m.shape);
    give_like(n, after_norm(n, y, 1, weight));
}

/* Outputs 1 and 2 of a layer norm: the mean of each row and the reciprocal of its deviation. */
static void give_statistics(struct onnx_node *n, const struct norm *m)
{
    attend_shape s = m->shape;
    for (int d = m->axis; d < s.rank; d++)
        s.dim[d] = 1;
    attend_tensor mean = mean_of_rows(n, m->x);
    at_onnx_give(n, 1, attend_graph_reshape(n->g, mean, s), ATTEND_F32);
    if (!at_onnx_wanted(n, 2))
        return;
    attend_tensor rest = attend_graph_add(n->g, m->x, attend_graph_scale(n->g, mean, -1));
    attend_tensor variance = mean_of_rows(n, attend_graph_mul(n->g, rest, rest));
    attend_tensor eps = at_onnx_fill(n, ATTEND_F32, ATTEND_SHAPE(1, 1), (double)m->eps);
    attend_tensor inverse = attend_graph_pow(n->g, attend_graph_add(n->g, variance, eps), -0.5f);
    at_onnx_give(n, 2, attend_graph_reshape(n->g, inverse, s), ATTEND_F32);
}

static void build_layer_norm(struct onnx_node *n)
{
    struct norm m;
    if (!begin_norm(n, &m))
        return;
    attend_tensor weight = norm_parameter(n, &m, 1), bias = norm_parameter(n, &m, 2);
    if (at_onnx_given(n, 1) && !weight.graph)
        bias = attend_none(); /* comes after the weight */
    attend_tensor y = attend_graph_layer_norm(n->g, m.x, weight, bias, m.eps);
    y = attend_graph_reshape(n->g, y, m.shape);
    y = after_norm(n, y, 1, weight);
    give_like(n, after_norm(n, y, 2, bias));
    if (at_onnx_wanted(n, 1) || at_onnx_wanted(n, 2))
        give_statistics(n, &m);
}

/* Which axes an operator names, by attribute or, in newer opsets, by input k: a bit each.  None are
 * named: all of them. */
static unsigned axes_of(struct onnx_node *n, int k, bool by_input, int rank)
{
    int64_t axis[ONNX_MAX_INTS];
    unsigned set = 0;
    int count = !by_input             ? at_onnx_ints(n, "axes", axis)
                : at_onnx_given(n, k) ? at_onnx_known(n, k, axis)
                                      : -1;
    for (int i = 0; i < count; i++)
        set |= 1u << at_onnx_axis(n, axis[i], rank);
    return count > 0 ? set : (1u << rank) - 1;
}

static void build_reduce_mean(struct onnx_node *n)
{
    attend_shape s = n->in[0]->shape, kept = {0}, ones = s, dropped = {0};
    unsigned set = axes_of(n, 1, n->opset >= 18, s.rank);
    int perm[ATTEND_MAX_RANK], k = 0, rows;
    if (!at_onnx_given(n, 1) && !at_onnx_has_attribute(n, "axes") &&
        at_onnx_int(n, "noop_with_empty_axes", 0)) {
        at_onnx_give_reshaped(n, 0, s);
        return;
    }
    for (int d = 0; d < s.rank; d++) {
        if (set >> d & 1) {
            ones.dim[d] = 1;
            continue;
        }
        dropped.dim[dropped.rank++] = s.dim[d];
        perm[k++] = d;
    }
    rows = k;
    for (int d = 0; d < s.rank; d++)
        if (set >> d & 1)
            perm[k++] = d;
    attend_tensor x = attend_graph_permute(n->g, at_onnx_use(n, 0), perm);
    kept = attend_tensor_shape(x);
    x = mean_of_rows(n, attend_graph_reshape(n->g, x, two_axes(&kept, rows)));
    give_like(n, attend_graph_reshape(n->g, x, at_onnx_int(n, "keepdims", 1) ? ones : dropped));
}

/* ---- shapes ---- */

static void build_identity(struct onnx_node *n)
{
    at_onnx_give_reshaped(n, 0, n->in[0]->shape);
}

static void build_dropout(struct onnx_node *n)
{
    if (at_onnx_given(n, 2) && !(n->in[2]->data && at_onnx_number(n->in[2], 0) == 0))
        at_onnx_fail(n, ATTEND_EUNSUPPORTED, "dropout for training");
    build_identity(n);
}

static void build_reshape(struct onnx_node *n)
{
    int64_t want[ONNX_MAX_INTS], rest = 1;
    const attend_shape *from = &n->in[0]->shape;
    attend_shape to = {0};
    int hole = -1, rank = at_onnx_known(n, 1, want);
    bool allow_zero = at_onnx_int(n, "allowzero", 0) != 0;
    if (rank > ATTEND_MAX_RANK)
        at_onnx_fail(n, ATTEND_ELIMIT, "to rank %d; at most %d are supported", rank,
                     ATTEND_MAX_RANK);
    if (at_onnx_failed(n))
        return;
    to.rank = rank;
    for (int d = 0; d < rank; d++) {
        to.dim[d] = want[d] == 0 && !allow_zero && d < from->rank ? from->dim[d] : want[d];
        if (want[d] < -1 || (want[d] == -1 && hole >= 0)) {
            at_onnx_fail(n, ATTEND_EINVAL, "extent %d is to become %lld", d, (long long)want[d]);
            return;
        }
        if (want[d] == -1)
            hole = d;
        else if (__builtin_mul_overflow(rest, to.dim[d], &rest))
            rest = 0;
    }
    if (hole >= 0)
        to.dim[hole] = rest > 0 ? at_onnx_count(from) / rest : 0;
    at_onnx_give_reshaped(n, 0, to);
}

static void build_flatten(struct onnx_node *n)
{
    const attend_shape *s = &n->in[0]->shape;
    int64_t axis = at_onnx_int(n, "axis", 1);
    if (axis != s->rank) /* which puts all into the first */
        axis = at_onnx_axis(n, axis, s->rank);
    at_onnx_give_reshaped(n, 0, two_axes(s, (int)axis));
}

static void build_squeeze(struct onnx_node *n)
{
    const attend_shape *s = &n->in[0]->shape;
    attend_shape to = {0};
    bool named = at_onnx_given(n, 1) || at_onnx_has_attribute(n, "axes");
    unsigned set = axes_of(n, 1, n->opset >= 13, s->rank);
    for (int d = 0; d < s->rank; d++) {
        bool drop = (set >> d & 1) && (named || s->dim[d] == 1);
        if (!drop)
            to.dim[to.rank++] = s->dim[d];
    }
    at_onnx_give_reshaped(n, 0, to);
}

static void build_unsqueeze(struct onnx_node *n)
{
    const attend_shape *s = &n->in[0]->shape;
    int64_t axis[ONNX_MAX_INTS];
    attend_shape to = {0};
    unsigned set = 0;
    int count = n->opset < 13         ? at_onnx_ints(n, "axes", axis)
                : at_onnx_given(n, 1) ? at_onnx_known(n, 1, axis)
                                      : -1;
    if (count < 0 || s->rank + count > ATTEND_MAX_RANK) {
        at_onnx_fail(n, ATTEND_ELIMIT, "axes are missing, or more than %d", ATTEND_MAX_RANK);
        return;
    }
    to.rank = s->rank + count;
    for (int i = 0; i < count; i++)
        set |= 1u << at_onnx_axis(n, axis[i], to.rank);
    for (int d = 0, k = 0; d < to.rank; d++)
        to.dim[d] = set >> d & 1 ? 1 : k < s->rank ? s->dim[k++] : 0;
    at_onnx_give_reshaped(n, 0, to); /* refuses equal axes: the counts differ */
}

static void build_transpose(struct onnx_node *n)
{
    int rank = n->in[0]->shape.rank, perm[ATTEND_MAX_RANK];
    int64_t given[ONNX_MAX_INTS];
    int count = at_onnx_ints(n, "perm", given);
    for (int d = 0; d < rank; d++)
        perm[d] = count < 0 ? rank - 1 - d : d < count ? (int)given[d] : -1;
    if (count >= 0 && count != rank)
        at_onnx_fail(n, ATTEND_EINVAL, "%d axes of a tensor of rank %d", count, rank);
    else
        give_like(n, attend_graph_permute(n->g, at_onnx_use(n, 0), perm));
}

static void build_expand(struct onnx_node *n)
{
    int64_t want[ONNX_MAX_INTS];
    const attend_shape *from = &n->in[0]->shape;
    int count = at_onnx_known(n, 1, want);
    attend_shape padded = {0}, to = {0};
    int rank = count > from->rank ? count : from->rank;
    if (rank > ATTEND_MAX_RANK)
        at_onnx_fail(n, ATTEND_ELIMIT, "to rank %d; at most %d are supported", rank,
                     ATTEND_MAX_RANK);
    if (at_onnx_failed(n))
        return;
    padded.rank = to.rank = rank;
    for (int d = 0; d < rank; d++) {
        int64_t a = d < rank - from->rank ? 1 : from->dim[d - (rank - from->rank)];
        int64_t b = d < rank - count ? 1 : want[d - (rank - count)];
        padded.dim[d] = a;
        to.dim[d] = b == 1 ? a : b;
    }
    attend_tensor x = attend_graph_reshape(n->g, at_onnx_use(n, 0), padded);
    give_like(n, attend_graph_expand(n->g, x, to));
}

static void build_concat(struct onnx_node *n)
{
    enum { AT_ONCE = 16 };
    attend_tensor part[AT_ONCE];
    int axis = at_onnx_axis(n, at_onnx_int(n, "axis", 0), n->in[0]->shape.rank), count = 0;
    for (int k = 0; k < n->nin && !at_onnx_failed(n); k++) {
        if (!n->in[k]) {
            at_onnx_fail(n, ATTEND_EFORMAT, "input %d is missing", k);
            return;
        }
        part[count++] = at_onnx_use_rounded(n, k);
        if (count == AT_ONCE) {
            part[0] = attend_graph_concat(n->g, part, count, axis);
            count = 1;
        }
    }
    if (!at_onnx_failed(n))
        give_like(n, count > 1 ? attend_graph_concat(n->g, part, count, axis) : part[0]);
}

static void build_split(struct onnx_node *n)
{
    const attend_shape *s = &n->in[0]->shape;
    int64_t size[ONNX_MAX_INTS], start = 0;
    int axis = at_onnx_axis(n, at_onnx_int(n, "axis", 0), s->rank), parts = n->nout;
    int count = n->opset < 13         ? at_onnx_ints(n, "split", size)
                : at_onnx_given(n, 1) ? at_onnx_known(n, 1, size)
                                      : -1;
    if (s->rank < 1 || (count >= 0 && count < parts)) {
        at_onnx_fail(n, ATTEND_EINVAL, "%d sizes for %d parts of a tensor of rank %d", count, parts,
                     s->rank);
        return;
    }
    int64_t each = (s->dim[axis] + parts - 1) / parts; /* the last part may be smaller */
    for (int k = 0; k < parts && !at_onnx_failed(n); k++) {
        int64_t left = s->dim[axis] - start;
        int64_t length = count >= 0 ? size[k] : each < left ? each : left;
        at_onnx_give(n, k, attend_graph_slice(n->g, at_onnx_use(n, 0), axis, start, length),
                     type_of(n, 0));
        start += length;
    }
}

/* Along an axis, by an int32 tensor of indices: the axes of the index take its place. */
static attend_tensor gather_axis(struct onnx_node *n, attend_tensor x, int axis,
                                 attend_tensor index)
{
    attend_shape s = attend_tensor_shape(x), is = attend_tensor_shape(index), to = is;
    attend_shape flat = ATTEND_SHAPE(s.dim[axis], 1);
    int perm[ATTEND_MAX_RANK], rest = s.rank - 1, rank = is.rank + rest;
    if (rank > ATTEND_MAX_RANK || rank < 0) {
        at_onnx_fail(n, ATTEND_ELIMIT, "to rank %d; at most %d are supported", rank,
                     ATTEND_MAX_RANK);
        return attend_none();
    }
    for (int d = 0; d < s.rank; d++)
        if (d != axis) {
            flat.dim[1] *= s.dim[d];
            to.dim[to.rank++] = s.dim[d];
        }
    x = attend_graph_reshape(n->g, move_axis(n, x, axis, 0), flat);
    x = attend_graph_reshape(n->g, attend_graph_gather(n->g, x, index), to);
    for (int d = 0; d < rank; d++) /* (index, before, after) to (before, index, after) */
        perm[d] = d < axis ? is.rank + d : d < axis + is.rank ? d - axis : d;
    return axis ? attend_graph_permute(n->g, x, perm) : x;
}

/* Indices that are known count from the end where they are negative. */
static attend_tensor known_index(struct onnx_node *n, const struct onnx_value *v, int64_t extent)
{
    int64_t count = at_onnx_count(&v->shape);
    int32_t *index = at_onnx_alloc(n, count, sizeof *index);
    for (int64_t k = 0; index && k < count; k++) {
        int64_t i = at_onnx_integer(v, k);
        if (i < -extent || i >= extent || extent > INT32_MAX) {
            at_onnx_fail(n, ATTEND_EINVAL, "index %lld of an axis of extent %lld", (long long)i,
                         (long long)extent);
            return attend_none();
        }
        index[k] = (int32_t)(i < 0 ? i + extent : i);
    }
    return index ? at_onnx_const(n, ATTEND_I32, v->shape, index) : attend_none();
}

static void build_gather(struct onnx_node *n)
{
    const struct onnx_value *x = n->in[0], *index = n->in[1];
    int axis = at_onnx_axis(n, at_onnx_int(n, "axis", 0), x->shape.rank);
    bool integer = index->type == ATTEND_I64 || index->type == ATTEND_I32;
    if (x->shape.rank < 1 || !integer) {
        at_onnx_fail(n, ATTEND_EINVAL, "%s indices into a tensor of rank %d",
                     attend_type_name(index->type), x->shape.rank);
        return;
    }
    attend_tensor t = at_onnx_use(n, 0);
    if (index->data && index->shape.rank == 0) { /* a view */
        int64_t extent = x->shape.dim[axis], i = at_onnx_integer(index, 0);
        t = attend_graph_slice(n->g, t, axis, i < 0 ? i + extent : i, 1);
        give_like(n, attend_graph_reshape(n->g, t, without_axis(x->shape, axis)));
        return;
    }
    attend_tensor which =
        index->data ? known_index(n, index, x->shape.dim[axis]) : at_onnx_use(n, 1);
    give_like(n, gather_axis(n, t, axis, which));
}

/* Elements start, start + step ... of one axis, `count` of them. */
static attend_tensor slice_axis(struct onnx_node *n, attend_tensor t, int axis, int64_t start,
                                int64_t step, int64_t count)
{
    if (step == 1 || count <= 1)
        return attend_graph_slice(n->g, t, axis, count ? start : 0, count);
    int32_t *index = at_onnx_alloc(n, count, sizeof *index);
    for (int64_t k = 0; index && k < count; k++)
        index[k] = (int32_t)(start + k * step);
    if (!index)
        return attend_none();
    return gather_axis(n, t, axis, at_onnx_const(n, ATTEND_I32, ATTEND_SHAPE(count), index));
}

static int64_t clamp(int64_t x, int64_t low, int64_t high)
{
    return x < low ? low : x > high ? high : x;
}

static void build_slice(struct onnx_node *n)
{
    int64_t start[ONNX_MAX_INTS], end[ONNX_MAX_INTS], axes[ONNX_MAX_INTS], steps[ONNX_MAX_INTS];
    bool by_input = n->opset >= 10;
    if (by_input && (!at_onnx_given(n, 1) || !at_onnx_given(n, 2))) {
        at_onnx_fail(n, ATTEND_EFORMAT, "starts or ends are missing");
        return;
    }
    int count = by_input ? at_onnx_known(n, 1, start) : at_onnx_ints(n, "starts", start);
    int ends = by_input ? at_onnx_known(n, 2, end) : at_onnx_ints(n, "ends", end);
    int naxes = !by_input             ? at_onnx_ints(n, "axes", axes)
                : at_onnx_given(n, 3) ? at_onnx_known(n, 3, axes)
                                      : -1;
    int nsteps = by_input && at_onnx_given(n, 4) ? at_onnx_known(n, 4, steps) : -1;
    attend_shape s = n->in[0]->shape;
    if (count < 0 || ends != count || (naxes >= 0 && naxes != count) ||
        (nsteps >= 0 && nsteps != count) || (naxes < 0 && count > s.rank)) {
        at_onnx_fail(n, ATTEND_EFORMAT, "starts, ends, axes and steps are not of one length");
        return;
    }
    attend_tensor t = at_onnx_use(n, 0);
    for (int i = 0; i < count && !at_onnx_failed(n); i++) {
        int axis = at_onnx_axis(n, naxes < 0 ? i : axes[i], s.rank);
        int64_t extent = s.dim[axis], step = nsteps < 0 ? 1 : steps[i];
        int64_t low = step < 0 ? -1 : 0, high = step < 0 ? extent - 1 : extent;
        if (step == 0 || step == INT64_MIN || extent > INT32_MAX) {
            at_onnx_fail(n, ATTEND_EINVAL, "step %lld along an axis of extent %lld",
                         (long long)step, (long long)extent);
            return;
        }
        int64_t a = clamp(start[i] < 0 ? start[i] + extent : start[i], step < 0 ? -1 : 0, high);
        int64_t b =
            clamp(end[i] < 0 ? clamp(end[i], -extent - 1, 0) + extent : end[i], low, extent);
        int64_t span = step > 0 ? b - a : a - b, by = step > 0 ? step : -step;
        int64_t length = span > 0 ? (span - 1) / by + 1 : 0;
        t = slice_axis(n, t, axis, a, step, length);
        s.dim[axis] = length;
    }
    give_like(n, t);
}

static void build_constant(struct onnx_node *n)
{
    struct onnx_value v;
    if (at_onnx_tensor(n, "value", &v)) {
        at_onnx_give_known(n, 0, v.type, v.shape, v.data);
    } else if (at_onnx_has_attribute(n, "value_float")) {
        float *x = at_onnx_alloc(n, 1, sizeof *x);
        if (x)
            *x = at_onnx_float(n, "value_float", 0);
        at_onnx_give_known(n, 0, ATTEND_F32, (attend_shape){0}, x);
    } else if (at_onnx_has_attribute(n, "value_int")) {
        int64_t *x = at_onnx_alloc(n, 1, sizeof *x);
        if (x)
            *x = at_onnx_int(n, "value_int", 0);
        at_onnx_give_known(n, 0, ATTEND_I64, (attend_shape){0}, x);
    } else if (at_onnx_has_attribute(n, "value_ints")) {
        int64_t *x = at_onnx_alloc(n, ONNX_MAX_INTS, sizeof *x);
        int count = x ? at_onnx_ints(n, "value_ints", x) : -1;
        if (count >= 0)
            at_onnx_give_known(n, 0, ATTEND_I64, ATTEND_SHAPE(count), x);
    } else {
        at_onnx_fail(n, ATTEND_EUNSUPPORTED, "a constant of a kind that is not here");
    }
}

/* Operators that are only worked out beforehand (onnx_fold.c). */
static void build_known_only(struct onnx_node *n)
{
    at_onnx_fail(n, ATTEND_EUNSUPPORTED,
                 "supported only for integers and booleans that are known before the run");
}

/* ---- ONNX Runtime's ---- */

/* gelu by tanh of a plus a bias */
static void build_fast_gelu(struct onnx_node *n)
{
    attend_tensor x = at_onnx_use(n, 0);
    if (at_onnx_given(n, 1))
        x = attend_graph_add(n->g, x, at_onnx_use(n, 1));
    give_like(n, attend_graph_gelu_tanh(n->g, x));
}

/* The norm of input + skip (+ bias, input k), over the last axis. */
static attend_tensor skip_sum(struct onnx_node *n, int k)
{
    attend_tensor x = attend_graph_add(n->g, at_onnx_use(n, 0), at_onnx_use(n, 1));
    if (at_onnx_given(n, k))
        x = attend_graph_add(n->g, x, at_onnx_use(n, k));
    at_onnx_give(n, 3, x, type_of(n, 0));
    return x;
}

static void build_skip_layer_norm(struct onnx_node *n)
{
    attend_tensor x = skip_sum(n, 4), weight = at_onnx_use(n, 2);
    attend_tensor bias = at_onnx_given(n, 3) ? at_onnx_use(n, 3) : attend_none();
    give_like(n,
              attend_graph_layer_norm(n->g, x, weight, bias, at_onnx_float(n, "epsilon", 1e-12f)));
}

static void build_skip_rms_norm(struct onnx_node *n)
{
    attend_tensor x = skip_sum(n, 3);
    give_like(
        n, attend_graph_rms_norm(n->g, x, at_onnx_use(n, 2), at_onnx_float(n, "epsilon", 1e-12f)));
}

/* ---- the tables ---- */

enum { ANY = ONNX_MAX_IN };

/* clang-format off */
const struct onnx_op at_onnx_ops[] = {
    /* name                    opsets  inputs  outputs */
    {"Attention",              23, 0,  3, 7,   4, at_onnx_attention},
    {"RotaryEmbedding",        23, 0,  3, 4,   1, at_onnx_rotary},
    {"RMSNormalization",       23, 0,  2, 2,   1, build_rms_norm},
    {"SimplifiedLayerNormalization", 1, 0, 2, 2, 1, build_rms_norm}, /* ONNX Runtime's, in this domain */
    {"LayerNormalization",     17, 0,  2, 3,   3, build_layer_norm},
    {"MatMul",                  1, 0,  2, 2,   1, build_matmul},
    {"Gemm",                    7, 0,  2, 3,   1, build_gemm},
    {"Add",                     7, 0,  2, 2,   1, build_add},
    {"Sub",                     7, 0,  2, 2,   1, build_sub},
    {"Mul",                     7, 0,  2, 2,   1, build_mul},
    {"Div",                     7, 0,  2, 2,   1, build_div},
    {"Pow",                     7, 0,  2, 2,   1, build_pow},
    {"Sqrt",                    6, 0,  1, 1,   1, build_sqrt},
    {"Reciprocal",              6, 0,  1, 1,   1, build_reciprocal},
    {"Neg",                     6, 0,  1, 1,   1, build_neg},
    {"Tanh",                    6, 0,  1, 1,   1, build_tanh},
    {"Sigmoid",                 6, 0,  1, 1,   1, build_sigmoid},
    {"Swish",                  24, 0,  1, 1,   1, build_swish},
    {"Relu",                    6, 0,  1, 1,   1, build_relu},
    {"Erf",                     9, 0,  1, 1,   1, build_erf},
    {"Gelu",                   20, 0,  1, 1,   1, build_gelu},
    {"Softmax",                 1, 0,  1, 1,   1, build_softmax},
    {"ReduceMean",              1, 0,  1, 2,   1, build_reduce_mean},
    {"Where",                   9, 0,  3, 3,   1, build_where},
    {"Cast",                    6, 0,  1, 1,   1, build_cast},
    {"Identity",                1, 0,  1, 1,   1, build_identity},
    {"Dropout",                 7, 0,  1, 3,   1, build_dropout},
    {"Constant",                1, 0,  0, 0,   1, build_constant},
    {"Reshape",                 5, 0,  2, 2,   1, build_reshape},
    {"Flatten",                 1, 0,  1, 1,   1, build_flatten},
    {"Squeeze",                 1, 0,  1, 2,   1, build_squeeze},
    {"Unsqueeze",               1, 0,  1, 2,   1, build_unsqueeze},
    {"Transpose",               1, 0,  1, 1,   1, build_transpose},
    {"Expand",                  8, 0,  2, 2,   1, build_expand},
    {"Concat",                  4, 0,  1, ANY, 1, build_concat},
    {"Split",                   2, 0,  1, 2,   ONNX_MAX_OUT, build_split},
    {"Slice",                   1, 0,  1, 5,   1, build_slice},
    {"Gather",                  1, 0,  2, 2,   1, build_gather},
    {"Shape",                   1, 0,  1, 1,   1, build_known_only},
    {"ConstantOfShape",         9, 0,  1, 1,   1, build_known_only},
    {"Range",                  11, 0,  3, 3,   1, build_known_only},
    {"Equal",                   7, 0,  2, 2,   1, build_known_only},
    {"Less",                    7, 0,  2, 2,   1, build_known_only},
    {"LessOrEqual",            12, 0,  2, 2,   1, build_known_only},
    {"Greater",                 7, 0,  2, 2,   1, build_known_only},
    {"GreaterOrEqual",         12, 0,  2, 2,   1, build_known_only},
    {"And",                     7, 0,  2, 2,   1, build_known_only},
    {"Or",                      7, 0,  2, 2,   1, build_known_only},
    {"Not",                     1, 0,  1, 1,   1, build_known_only},
    {NULL, 0, 0, 0, 0, 0, NULL},
};

const struct onnx_op at_onnx_microsoft_ops[] = {
    {"MultiHeadAttention",      1, 0,  1, 10,  3, at_onnx_multi_head},
    {"GroupQueryAttention",     1, 0,  1, 14,  3, at_onnx_group_query},
    {"RotaryEmbedding",         1, 0,  4, 4,   1, at_onnx_microsoft_rotary},
    {"SkipLayerNormalization",  1, 0,  3, 5,   4, build_skip_layer_norm},
    {"SkipSimplifiedLayerNormalization", 1, 0, 3, 4, 4, build_skip_rms_norm},
    {"Gelu",                    1, 0,  1, 1,   1, build_gelu},
    {"FastGelu",                1, 0,  1, 2,   1, build_fast_gelu},
    {NULL, 0, 0, 0, 0, 0, NULL},
};
/* clang-format on */
