/* SPDX-License-Identifier: MIT */
/* Views: permute, slice, expand, reshape; and the copy where no strides can express one. */
#include <string.h>

#include "op.h"

int at_infer_copy(attend_graph *g, struct at_node *n, const attend_shape *shape)
{
    (void)shape;
    const struct at_tensor *a = at_op_input(g, n, 0);
    return at_op_result(g, n, a->type, a->rank, a->shape);
}

/* A tensor over the memory of input 0. */
static int view(attend_graph *g, struct at_node *n, int rank, const int64_t *shape)
{
    int id = at_op_result(g, n, at_op_input(g, n, 0)->type, rank, shape);
    if (id < 0)
        return id;
    struct at_tensor *t = &g->tensor[id];
    const struct at_tensor *a = at_op_input(g, n, 0);
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

int at_infer_permute(attend_graph *g, struct at_node *n, const attend_shape *shape)
{
    (void)shape;
    const struct at_tensor *a = at_op_input(g, n, 0);
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
    if (at_op_is_quantised(a->type) && inverse[a->rank - 1] != a->rank - 1)
        return at_graph_fail(g, n, ATTEND_EINVAL, "moves the last axis of a %s tensor",
                             attend_type_name(a->type));
    if (view(g, n, a->rank, out) < 0)
        return -1;
    struct at_tensor *t = &g->tensor[n->out[0]];
    a = at_op_input(g, n, 0);
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
    return at_op_append(g, AT_PERMUTE, in, 1, &p, NULL);
}

int at_infer_slice(attend_graph *g, struct at_node *n, const attend_shape *shape)
{
    const struct at_tensor *a = at_op_input(g, n, 0);
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
    if (at_op_is_quantised(a->type) && axis == a->rank - 1 && (start % 32 || length % 32))
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
    return at_op_append(g, AT_SLICE, in, 1, &p, &s);
}

int at_infer_expand(attend_graph *g, struct at_node *n, const attend_shape *shape)
{
    char from[128], to[128];
    const struct at_tensor *a = at_op_input(g, n, 0);
    bool fits = shape->rank == a->rank;
    for (int d = 0; fits && d < a->rank; d++)
        if (!at_graph_extent(g, shape->dim[d]))
            return at_graph_fail(g, n, ATTEND_EINVAL, "extent %d is %lld", d,
                                 (long long)shape->dim[d]);
    for (int d = 0; fits && d < a->rank; d++)
        fits = a->shape[d] == shape->dim[d] ||
               (a->shape[d] == 1 && !(at_op_is_quantised(a->type) && d == a->rank - 1));
    if (!fits)
        return at_graph_fail(g, n, ATTEND_EINVAL, "%s to %s: only axes of extent 1 are repeated",
                             at_shape_text(&g->dims, a->rank, a->shape, from, sizeof from),
                             at_shape_text(&g->dims, shape->rank, shape->dim, to, sizeof to));
    if (view(g, n, a->rank, shape->dim) < 0)
        return -1;
    a = at_op_input(g, n, 0);
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
    return at_op_append(g, AT_EXPAND, in, 1, NULL, &shape);
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
    const struct at_tensor *a = at_op_input(g, n, 0);
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

int at_infer_reshape(attend_graph *g, struct at_node *n, const attend_shape *shape)
{
    char from[128], to[128];
    attend_shape s = *shape;
    int ga[ATTEND_MAX_RANK], gb[ATTEND_MAX_RANK];
    if (s.rank < 0 || s.rank > ATTEND_MAX_RANK)
        return at_graph_fail(g, n, ATTEND_ELIMIT, "to rank %d, wants 0 to %d", s.rank,
                             ATTEND_MAX_RANK);
    if (at_op_is_quantised(at_op_input(g, n, 0)->type))
        return at_graph_fail(g, n, ATTEND_EUNSUPPORTED, "of a %s tensor",
                             attend_type_name(at_op_input(g, n, 0)->type));
    if (infer_extent(g, n, &s) < 0)
        return -1;
    const struct at_tensor *a = at_op_input(g, n, 0);
    struct extents pa = all_extents(g, a->rank, a->shape, -1),
                   pb = all_extents(g, s.rank, s.dim, -1);
    if (!same_extents(&pa, &pb))
        return at_graph_fail(g, n, ATTEND_EINVAL, "%s to %s: the numbers of elements differ",
                             at_shape_text(&g->dims, a->rank, a->shape, from, sizeof from),
                             at_shape_text(&g->dims, s.rank, s.dim, to, sizeof to));
    group_axes(g, a->rank, a->shape, s.rank, s.dim, ga, gb);
    if (view(g, n, s.rank, s.dim) < 0)
        return -1;
    reshape_order(at_op_input(g, n, 0), ga, &g->tensor[n->out[0]], gb);
    return 0;
}

/* Is a view possible at all?  Otherwise the reshape is of a copy. */
static bool reshape_needs_copy(attend_graph *g, int a, attend_shape s)
{
    int ga[ATTEND_MAX_RANK], gb[ATTEND_MAX_RANK];
    for (int d = 0; d < s.rank; d++)
        if (!at_graph_extent(g, s.dim[d]))
            return false; /* settled, or refused, by at_infer_reshape */
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
    return at_op_append(g, AT_RESHAPE, in, 1, NULL, &shape);
}
