/* SPDX-License-Identifier: MIT */
/* The least and largest value of a captured tensor in cells of it, so that a box of indices is
 * answered by a few cells and not by its elements.
 *
 * Cells span 64 along axes whose index moves with i or j and 1 along the others (neighbouring heads
 * or batch entries say nothing about each other); a second level joins 16 by 16 of them, as the
 * blocks of a schedule do. */
#include "expr.h"

enum {
    CELL = 64,
    GROUP = 16,  /* cells of the first level in one of the second, along an axis */
    DIRECT = 64, /* elements that are looked at one by one */
    MANY = 1024  /* cells, from where the next level is asked */
};

struct level {
    int64_t size[AT_EXPR_RANK];  /* elements of a cell */
    int64_t count[AT_EXPR_RANK]; /* cells */
    struct at_interval *cell;
};

struct at_minmax {
    struct at_view view;
    struct level level[2];
    struct at_interval all;
};

/* ---- boxes ---- */

/* Steps through a box of `rank` axes, the last fastest; false after its end. */
static bool step(int rank, const struct at_interval *box, int64_t *at)
{
    for (int d = rank - 1; d >= 0; d--) {
        if (++at[d] <= box[d].hi)
            return true;
        at[d] = box[d].lo;
    }
    return false;
}

static int64_t volume(int rank, const struct at_interval *box)
{
    int64_t n = 1;
    for (int d = 0; d < rank && n >= 0; d++)
        n = at_mul_size(n, box[d].hi - box[d].lo + 1);
    return n < 0 ? INT64_MAX : n;
}

static void begin(int rank, const struct at_interval *box, int64_t *at)
{
    for (int d = 0; d < rank; d++)
        at[d] = box[d].lo;
}

static struct at_interval join(struct at_interval a, struct at_interval b)
{
    return (struct at_interval){at_min(a.lo, b.lo), at_max(a.hi, b.hi)};
}

static const struct at_interval nothing = {INT64_MAX, INT64_MIN};

/* ---- what is kept ---- */

/* A run of elements along one axis. */
#define SPAN(T, value)                                                                             \
    for (int64_t k = 0; k < n; k++) {                                                              \
        T e = ((const T *)data)[k * stride];                                                       \
        r = join(r, (struct at_interval){value, value});                                           \
    }                                                                                              \
    break

static struct at_interval span(attend_type type, const void *data, int64_t stride, int64_t n)
{
    struct at_interval r = nothing;
    switch (type) {
    case ATTEND_I8:
        SPAN(int8_t, e);
    case ATTEND_I32:
        SPAN(int32_t, e);
    case ATTEND_I64:
        SPAN(int64_t, e);
    case ATTEND_U8:
        SPAN(uint8_t, e);
    default:
        SPAN(uint8_t, e != 0);
    }
    return r;
}

static struct at_interval elements(const struct at_view *v, const struct at_interval *box)
{
    int64_t at[AT_EXPR_RANK];
    struct at_interval r = nothing;
    int last = v->rank - 1;
    begin(v->rank, box, at);
    do {
        int64_t offset = 0;
        for (int d = 0; d <= last; d++)
            offset += at[d] * v->stride[d];
        r = join(r, span(v->type, at_view_at(v, offset), v->stride[last],
                         box[last].hi - box[last].lo + 1));
        at[last] = box[last].hi;
    } while (step(v->rank, box, at));
    return r;
}

static struct at_interval cells(const struct level *l, int rank, const struct at_interval *box)
{
    int64_t at[AT_EXPR_RANK];
    struct at_interval r = nothing;
    begin(rank, box, at);
    do {
        int64_t place = 0;
        for (int d = 0; d < rank; d++)
            place = place * l->count[d] + at[d];
        r = join(r, l->cell[place]);
    } while (step(rank, box, at));
    return r;
}

/* Cell `at` of a level from what is below it: elements, or cells of the first level. */
static struct at_interval gather(const struct at_minmax *m, int which, const int64_t *at)
{
    struct at_interval box[AT_EXPR_RANK];
    const struct level *l = &m->level[which], *below = &m->level[0];
    int rank = m->view.rank;
    for (int d = 0; d < rank; d++) {
        int64_t per = which ? l->size[d] / below->size[d] : l->size[d];
        int64_t end = which ? below->count[d] : m->view.shape[d];
        box[d].lo = at[d] * per;
        box[d].hi = at_min(box[d].lo + per, end) - 1;
    }
    return which ? cells(below, rank, box) : elements(&m->view, box);
}

static bool fill(attend_ctx *ctx, struct at_minmax *m, int which)
{
    struct level *l = &m->level[which];
    struct at_interval box[AT_EXPR_RANK];
    int64_t at[AT_EXPR_RANK], place = 0;
    for (int d = 0; d < m->view.rank; d++)
        box[d] = (struct at_interval){0, l->count[d] - 1};
    int64_t n = volume(m->view.rank, box);
    l->cell = at_alloc(ctx, at_mul_size(n, sizeof *l->cell));
    if (!l->cell)
        return false;
    begin(m->view.rank, box, at);
    do
        l->cell[place++] = gather(m, which, at);
    while (step(m->view.rank, box, at));
    m->all = cells(l, m->view.rank, box);
    return true;
}

/* Which nodes move with i or j. */
static bool moves(const struct at_expr *x, int node)
{
    bool m[AT_EXPR_NODES];
    for (int k = 0; k <= node; k++) {
        m[k] = x->node[k].op == AT_X_I || x->node[k].op == AT_X_J;
        for (int a = 0; a < x->node[k].nargs; a++)
            m[k] = m[k] || m[x->node[k].arg[a]];
    }
    return m[node];
}

struct at_minmax *at_minmax_new(attend_ctx *ctx, const struct at_expr *x, int load,
                                const struct at_view *v)
{
    const struct at_expr_node *n = &x->node[x->load[load]];
    struct at_minmax *m = at_calloc(ctx, 1, sizeof *m);
    if (!m)
        return NULL;
    m->view = *v;
    bool empty = false;
    for (int d = 0; d < v->rank; d++) {
        int64_t size = moves(x, n->arg[d]) ? CELL : 1;
        empty = empty || v->shape[d] == 0;
        for (int which = 0; which < 2; which++) {
            m->level[which].size[d] = size;
            m->level[which].count[d] = at_ceil_div(v->shape[d], size);
            size = size == CELL ? CELL * GROUP : size;
        }
    }
    if (!empty && (!fill(ctx, m, 0) || !fill(ctx, m, 1))) {
        at_minmax_free(ctx, m);
        return NULL;
    }
    return m;
}

void at_minmax_free(attend_ctx *ctx, struct at_minmax *m)
{
    if (!m)
        return;
    at_free(ctx, m->level[0].cell);
    at_free(ctx, m->level[1].cell);
    at_free(ctx, m);
}

/* ---- questions ---- */

/* The cells that touch the box; true where they hold nothing else. */
static bool to_cells(const struct at_minmax *m, const struct level *l,
                     const struct at_interval *box, struct at_interval *out)
{
    bool exact = true;
    for (int d = 0; d < m->view.rank; d++) {
        out[d] = (struct at_interval){box[d].lo / l->size[d], box[d].hi / l->size[d]};
        exact = exact && box[d].lo % l->size[d] == 0 &&
                (box[d].hi == m->view.shape[d] - 1 || (box[d].hi + 1) % l->size[d] == 0);
    }
    return exact;
}

static struct at_interval inside(const struct at_minmax *m, const struct at_interval *box)
{
    struct at_interval small[AT_EXPR_RANK], large[AT_EXPR_RANK];
    int rank = m->view.rank;
    bool large_exact = to_cells(m, &m->level[1], box, large);
    int64_t many = volume(rank, large);
    if (large_exact && many <= MANY)
        return cells(&m->level[1], rank, large);
    bool exact = to_cells(m, &m->level[0], box, small);
    if (!exact && volume(rank, box) <= DIRECT)
        return elements(&m->view, box);
    if (volume(rank, small) <= MANY)
        return cells(&m->level[0], rank, small);
    return many <= MANY ? cells(&m->level[1], rank, large) : m->all;
}

struct at_interval at_minmax_query(const struct at_minmax *m, const struct at_interval *index)
{
    struct at_interval box[AT_EXPR_RANK] =
        {
            {0, 0}
    },
                       zero = {0, 0};
    bool outside = false;
    for (int d = 0; d < m->view.rank; d++) {
        box[d].lo = at_max(index[d].lo, 0);
        box[d].hi = at_min(index[d].hi, m->view.shape[d] - 1);
        if (box[d].lo > box[d].hi)
            return zero;
        outside = outside || index[d].lo < 0 || index[d].hi >= m->view.shape[d];
    }
    struct at_interval r = inside(m, box);
    return outside ? join(r, zero) : r;
}

struct at_interval at_minmax_of_type(attend_type type)
{
    switch (type) {
    case ATTEND_BOOL:
        return (struct at_interval){0, 1};
    case ATTEND_U8:
        return (struct at_interval){0, UINT8_MAX};
    case ATTEND_I8:
        return (struct at_interval){INT8_MIN, INT8_MAX};
    case ATTEND_I32:
        return (struct at_interval){INT32_MIN, INT32_MAX};
    default:
        return (struct at_interval){INT64_MIN, INT64_MAX};
    }
}
