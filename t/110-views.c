/* SPDX-License-Identifier: MIT */
/* Views: random chains of reshape, permute, slice, expand and copies, run and compared with what
 * the same chain does to a plain list of elements.  Extents may be dynamic, inputs may be bound
 * with strides. */
#include "graph_help.h"

#include <stdlib.h>
#include <string.h>

#define MOST 20000 /* elements of a tensor of the model */
#define STEPS 7
#define OUTPUTS 3

/* ---- the model: a shape, and all elements in C order ---- */

struct model {
    int rank;
    int64_t shape[ATTEND_MAX_RANK];
    float *x; /* [MOST] */
};

static int64_t count(const struct model *m)
{
    int64_t n = 1;
    for (int d = 0; d < m->rank; d++)
        n *= m->shape[d];
    return n;
}

static float element(const struct model *m, const int64_t *index)
{
    int64_t at = 0;
    for (int d = 0; d < m->rank; d++)
        at = at * m->shape[d] + index[d];
    return m->x[at];
}

enum verb { RESHAPE, PERMUTE, SLICE, EXPAND, SCALE, CAST, VERBS };

/* One step of a chain; `to` is its shape in the graph, dynamic extents and all. */
struct link {
    enum verb verb;
    attend_shape to;
    int perm[ATTEND_MAX_RANK], axis;
    int64_t start;
    bool output;
};

struct chain {
    attend_shape from;
    struct link link[STEPS];
    int steps;
};

static void shape_now(struct model *m, const attend_graph *g, const attend_shape *s,
                      const int64_t *sym)
{
    m->rank = s->rank;
    for (int d = 0; d < s->rank; d++)
        m->shape[d] = at_dim_eval(&g->dims, s->dim[d], sym);
}

/* to = what the step makes of from. */
static void apply(const struct model *from, struct model *to, const struct link *l)
{
    int64_t n = count(to);
    for (int64_t at = 0; at < n; at++) {
        int64_t index[ATTEND_MAX_RANK] = {0}, rest = at, source[ATTEND_MAX_RANK] = {0};
        for (int d = to->rank - 1; d >= 0; d--) {
            index[d] = rest % to->shape[d];
            rest /= to->shape[d];
        }
        for (int d = 0; d < to->rank && l->verb != RESHAPE; d++)
            if (l->verb == PERMUTE)
                source[l->perm[d]] = index[d];
            else
                source[d] = from->shape[d] == 1                ? 0
                            : l->verb == SLICE && d == l->axis ? index[d] + l->start
                                                               : index[d];
        to->x[at] = l->verb == RESHAPE ? from->x[at] : element(from, source);
    }
}

/* ---- drawing a chain ---- */

static int64_t most(const attend_graph *g, const attend_shape *s)
{
    int64_t n = 1;
    for (int d = 0; d < s->rank; d++)
        n *= at_dim_max(&g->dims, s->dim[d]);
    return n;
}

static void put_axis(attend_shape *s, int at, int64_t extent)
{
    memmove(&s->dim[at + 1], &s->dim[at], (size_t)(s->rank - at) * sizeof *s->dim);
    s->dim[at] = extent;
    s->rank++;
}

static void drop_axis(attend_shape *s, int at)
{
    s->rank--;
    memmove(&s->dim[at], &s->dim[at + 1], (size_t)(s->rank - at) * sizeof *s->dim);
}

/* Another shape of as many elements: an axis of 1 more or less, two axes merged, or one split. */
static bool draw_reshape(uint64_t *r, const attend_graph *g, attend_shape *s)
{
    int at = s->rank ? (int)help_below(r, s->rank) : 0;
    switch (help_below(r, 4)) {
    case 0:
        if (s->rank == ATTEND_MAX_RANK)
            return false;
        put_axis(s, (int)help_below(r, s->rank + 1), 1);
        return true;
    case 1:
        if (s->rank == 0 || s->dim[at] != 1)
            return false;
        drop_axis(s, at);
        return true;
    case 2:
        if (at + 1 >= s->rank || (s->dim[at] < 0 && s->dim[at + 1] < 0))
            return false;
        drop_axis(s, at);
        s->dim[at] = ATTEND_INFER;
        return true;
    default:
        for (int64_t by = 2; s->rank > 0 && s->rank < ATTEND_MAX_RANK && by <= 3; by++) {
            int64_t e = s->dim[at], mul = e < 0 ? g->dims.form[-1 - e].mul : e;
            if (mul % by || mul == 0 || (e < 0 && g->dims.form[-1 - e].add % by))
                continue;
            if (e < 0 && g->dims.form[-1 - e].add)
                continue; /* products of sums are not told apart */
            s->dim[at] = ATTEND_INFER;
            put_axis(s, at + (int)help_below(r, 2), by);
            return true;
        }
        return false;
    }
}

static bool draw_link(uint64_t *r, const attend_graph *g, const attend_shape *from, struct link *l)
{
    *l = (struct link){.verb = (enum verb)help_below(r, VERBS), .to = *from};
    l->axis = from->rank ? (int)help_below(r, from->rank) : -1;
    int64_t extent = from->rank ? from->dim[l->axis] : 0;
    switch (l->verb) {
    case RESHAPE:
        return draw_reshape(r, g, &l->to);
    case PERMUTE:
        for (int d = 0; d < from->rank; d++) {
            int e = (int)help_below(r, d + 1);
            l->perm[d] = l->perm[e];
            l->perm[e] = d;
        }
        return from->rank > 1;
    case SLICE:
        if (from->rank == 0 || at_dim_min(&g->dims, extent) == 0)
            return false;
        l->start = help_below(r, at_dim_min(&g->dims, extent));
        l->to.dim[l->axis] = 1 + help_below(r, at_dim_min(&g->dims, extent) - l->start);
        return true;
    case EXPAND:
        if (extent != 1 || most(g, from) > 500)
            return false;
        l->to.dim[l->axis] = 2 + help_below(r, 3);
        return true;
    default:
        return true;
    }
}

static attend_tensor build_link(attend_graph *g, attend_tensor t, const struct link *l)
{
    switch (l->verb) {
    case RESHAPE:
        return attend_graph_reshape(g, t, l->to);
    case PERMUTE:
        return attend_graph_permute(g, t, l->perm);
    case SLICE:
        return attend_graph_slice(g, t, l->axis, l->start, l->to.dim[l->axis]);
    case EXPAND:
        return attend_graph_expand(g, t, l->to);
    case SCALE:
        return attend_graph_scale(g, t, 1);
    default:
        return attend_graph_cast(g, t, ATTEND_F32);
    }
}

static const char *const names[OUTPUTS + STEPS] = {"o0", "o1", "o2", "o3", "o4", "o5", "o6"};

static attend_graph *draw_chain(attend_ctx *ctx, uint64_t *r, struct chain *c)
{
    attend_graph *g = attend_graph_new(ctx);
    if (!g)
        bail("no graph");
    int64_t n = attend_graph_dim(g, "n", 1, 5), m = attend_graph_dim(g, "m", 2, 4);
    c->from.rank = 1 + (int)help_below(r, 4);
    for (int d = 0; d < c->from.rank; d++)
        c->from.dim[d] = 1 + help_below(r, 2) * help_below(r, 4);
    if (help_below(r, 2))
        c->from.dim[help_below(r, c->from.rank)] = n;
    if (help_below(r, 4) == 0)
        c->from.dim[help_below(r, c->from.rank)] = m;
    attend_tensor t = attend_graph_input(g, "x", ATTEND_F32, c->from);
    for (c->steps = 0; c->steps < STEPS;) {
        struct link *l = &c->link[c->steps];
        attend_shape from = attend_tensor_shape(t);
        if (!draw_link(r, g, &from, l))
            continue;
        t = build_link(g, t, l);
        l->to = attend_tensor_shape(t);
        l->output = ++c->steps == STEPS || help_below(r, 4) == 0;
        if (l->output)
            attend_graph_output(g, names[c->steps - 1], t);
    }
    return g;
}

/* ---- running a chain ---- */

static struct model a = {.x = NULL}, b = {.x = NULL};
static float input[MOST], got[STEPS][MOST];

/* Binds x, with `pad` elements after each row, and every output. */
static int bind_chain(attend_exec *x, const attend_graph *g, const struct chain *c,
                      const int64_t *sym, int64_t pad)
{
    attend_binding bind[STEPS + 3];
    int64_t stride[ATTEND_MAX_RANK], step = 1;
    int n = 0;
    shape_now(&a, g, &c->from, sym);
    for (int d = a.rank - 1; d >= 0; d--) {
        stride[d] = step;
        step = step * a.shape[d] + (d == a.rank - 1 ? pad : 0);
    }
    for (int64_t i = 0, all = count(&a); i < all; i++) {
        int64_t at = 0, rest = i;
        for (int d = a.rank - 1; d >= 0; d--) {
            at += rest % a.shape[d] * stride[d];
            rest /= a.shape[d];
        }
        a.x[i] = input[at] = (float)(i + 1);
    }
    bind[n++] = (attend_binding)HELP_DIM("n", sym[0]);
    bind[n++] = (attend_binding)HELP_DIM("m", sym[1]);
    bind[n++] = (attend_binding){
        .name = "x", .data = input, .bytes = (int64_t)sizeof input, .stride = pad ? stride : NULL};
    for (int s = 0; s < c->steps; s++)
        if (c->link[s].output)
            bind[n++] = (attend_binding)HELP_DATA(names[s], got[s]);
    return attend_bind(x, bind, n);
}

/* How many outputs differ from the model, after a run with these extents. */
static int wrong_outputs(attend_exec *x, const attend_graph *g, const struct chain *c,
                         const int64_t *sym)
{
    int wrong = 0;
    memset(got, 0xff, sizeof got);
    if (attend_run(x) < 0) {
        diag("run: %s", attend_exec_error(x));
        return 1;
    }
    for (int s = 0; s < c->steps; s++) {
        shape_now(&b, g, &c->link[s].to, sym);
        apply(&a, &b, &c->link[s]);
        int64_t n = count(&b);
        wrong += c->link[s].output && memcmp(b.x, got[s], (size_t)n * sizeof *b.x) != 0;
        a.rank = b.rank;
        memcpy(a.shape, b.shape, sizeof a.shape);
        memcpy(a.x, b.x, (size_t)n * sizeof *b.x);
    }
    return wrong;
}

/* Strided inputs may be refused where a reshape cannot keep the strides; nothing else may. */
static int run_chain(attend_ctx *ctx, const char *device, uint64_t seed, int *strided)
{
    static const int64_t sym[][2] = {
        {1, 2},
        {2, 3},
        {5, 4},
        {1, 4}
    };
    struct chain c;
    int wrong = 0;
    attend_graph *g = draw_chain(ctx, &seed, &c);
    attend_plan *plan = help_compile(g, device, 1);
    attend_exec *x;
    if (attend_exec_new(plan, &x) < 0)
        bail("no exec");
    for (size_t i = 0; i < NELEM(sym); i++)
        for (int64_t pad = 0; pad < 6; pad += 3) {
            if (bind_chain(x, g, &c, sym[i], pad) == 0) {
                wrong += wrong_outputs(x, g, &c, sym[i]);
                *strided += pad > 0;
            } else if (!pad || !strstr(attend_exec_error(x), "cannot keep")) {
                diag("bind: %s", attend_exec_error(x));
                wrong++;
            }
        }
    attend_exec_free(x);
    attend_plan_free(plan);
    attend_graph_free(g);
    return wrong;
}

static void random_chains(attend_ctx *ctx, const char *device, int chains)
{
    int wrong = 0, strided = 0;
    for (int i = 0; i < chains && wrong == 0; i++) {
        wrong = run_chain(ctx, device, (uint64_t)i, &strided);
        if (wrong)
            diag("chain %d", i);
    }
    ok(wrong == 0, "%s: %d random chains of views", device, chains);
    ok(strided > chains, "%s: most run with a strided input too", device);
}

/* ---- chains that were wrong once ---- */

static void run_fixed(const char *device, attend_graph *g, const float *want, int64_t n,
                      const char *name)
{
    attend_plan *plan = help_compile(g, device, 1);
    attend_exec *x;
    float in[24];
    for (int i = 0; i < 24; i++)
        in[i] = (float)(i + 1);
    memset(got, 0xff, sizeof got);
    attend_binding bind[] = {HELP_DATA("x", in), HELP_DATA("o", got[0])};
    if (attend_exec_new(plan, &x) < 0)
        bail("no exec");
    int status = attend_bind(x, bind, 2);
    if (status == 0)
        status = attend_run(x);
    ok(status == 0 && !memcmp(got[0], want, (size_t)n * sizeof *want), "%s: %s%s", device, name,
       attend_exec_error(x));
    attend_exec_free(x);
    attend_plan_free(plan);
    attend_graph_free(g);
}

static attend_graph *begin(attend_ctx *ctx, attend_shape shape, attend_tensor *t)
{
    attend_graph *g = attend_graph_new(ctx);
    *t = attend_graph_input(g, "x", ATTEND_F32, shape);
    return g;
}

/* An axis of extent 1 that memory has in another place says nothing about the order of the others.
 */
static void heads_of_one_batch(attend_ctx *ctx, const char *device)
{
    attend_tensor t;
    float want[24];
    attend_graph *g = begin(ctx, ATTEND_SHAPE(1, 4, 2, 3), &t);
    t = attend_graph_permute(g, attend_graph_scale(g, t, 1), (int[]){0, 2, 1, 3});
    attend_graph_output(g, "o", attend_graph_reshape(g, t, ATTEND_SHAPE(2, 4, 3)));
    for (int h = 0; h < 2; h++)
        for (int i = 0; i < 4; i++)
            for (int d = 0; d < 3; d++)
                want[(h * 4 + i) * 3 + d] = (float)((i * 2 + h) * 3 + d + 1);
    run_fixed(device, g, want, 24, "(1, S, H, D) to (H, S, D)");
}

static void sliced_column(attend_ctx *ctx, const char *device)
{
    attend_tensor t;
    static const float want[] = {3, 9, 15, 21};
    attend_graph *g = begin(ctx, ATTEND_SHAPE(4, 6), &t);
    t = attend_graph_reshape(g, attend_graph_slice(g, t, 1, 2, 1), ATTEND_SHAPE(4));
    attend_graph_output(g, "o", attend_graph_scale(g, t, 1));
    run_fixed(device, g, want, 4, "a column as a row");
}

static void expanded_row(attend_ctx *ctx, const char *device)
{
    attend_tensor t;
    static const float want[] = {1, 1, 1, 1, 1};
    attend_graph *g = begin(ctx, ATTEND_SHAPE(1, 1), &t);
    t = attend_graph_expand(g, attend_graph_scale(g, t, 1), ATTEND_SHAPE(5, 1));
    t = attend_graph_reshape(g, t, ATTEND_SHAPE(1, 5));
    attend_graph_output(g, "o", t);
    run_fixed(device, g, want, 5, "one element repeated, as a row and as an output");
}

int main(void)
{
    static const char *const devices[] = {"ref", "simd"};
    attend_ctx *ctx = help_context(1);
    a.x = calloc(MOST, sizeof *a.x);
    b.x = calloc(MOST, sizeof *b.x);
    for (size_t d = 0; d < NELEM(devices); d++) {
        random_chains(ctx, devices[d], 2000);
        heads_of_one_batch(ctx, devices[d]);
        sliced_column(ctx, devices[d]);
        expanded_row(ctx, devices[d]);
    }
    free(a.x);
    free(b.x);
    attend_ctx_free(ctx);
    return done_testing();
}
