/* SPDX-License-Identifier: MIT */
/* Matrix products on the CPU: how rows and columns are shared out over threads.  The arithmetic is
 * the block functions' (simd.h). */
#include "cpu.h"

bool at_cpu_is_turned(const attend_graph *g, int t)
{
    const struct at_tensor *a = &g->tensor[t];
    return !at_graph_has_rows(g, t) && a->rank >= 2 && a->unit == a->rank - 2;
}

/* Matrices of the last two axes: rows, or the columns of their transposes. */
static bool accepts_matmul(const attend_plan *plan, const struct at_step *s, struct at_why *why)
{
    bool rows = at_cpu_has_rows(plan, s->out[0]);
    for (int k = 0; k < 2; k++)
        rows = rows && (at_cpu_has_rows(plan, s->in[k]) || at_cpu_is_turned(plan->graph, s->in[k]));
    return at_need(why, rows, "rows are not contiguous");
}

/* Can b be packed once: is it a whole quantised constant with a row an output, and a of rows? */
static bool packable(const attend_plan *plan, const struct at_step *s)
{
    const struct at_tensor *b = &plan->graph->tensor[s->in[1]];
    return at_cpu_has_rows(plan, s->in[0]) && s->p->matmul.b_rows && b->class == AT_CONST &&
           b->of < 0 && b->rank == 2 && attend_type_block(b->type) > 1;
}

static bool accepts_int8(const attend_plan *plan, const struct at_step *s, struct at_why *why)
{
    return plan->precision == ATTEND_INT8 &&
           at_need(why, packable(plan, s), "b is no quantised constant with a row an output") &&
           accepts_matmul(plan, s, why);
}

/* The description of the product for the shapes of this run; bases are set for each batch entry. */
static struct at_matmul describe(const struct at_view *a, const struct at_view *b,
                                 const struct at_view *c, bool b_rows, bool b_turned, bool one_form)
{
    int la = a->rank - 1, lb = b->rank - 1, lc = c->rank - 1;
    return (struct at_matmul){.a_stride = a->stride[la - 1],
                              .b_stride = b->stride[b_turned ? lb : lb - 1],
                              .c_stride = c->stride[lc - 1],
                              .m = a->shape[la - 1],
                              .n = c->shape[lc],
                              .k = a->shape[la],
                              .a_type = (enum at_elem)at_cpu_elem(a->type),
                              .b_type = (enum at_elem)at_cpu_elem(b->type),
                              .c_type = AT_ELEM_F32,
                              .b_is_kn = b_rows == b_turned,
                              .one_form = one_form};
}

/* As large as parts can be: scratch depends on m alone, and on k for few rows. */
static int prepare_matmul(attend_plan *plan, struct at_step *s, struct at_err *e)
{
    const attend_graph *g = plan->graph;
    const struct at_tensor *a = &g->tensor[s->in[0]];
    const struct at_simd *t = at_cpu_kernels(s);
    (void)e;
    struct at_range m = at_plan_range(plan, s->rows, s->in[0], a->rank - 2);
    struct at_matmul mm = {.k = at_plan_range(plan, s->rows, s->in[0], a->rank - 1).max,
                           .c_type = AT_ELEM_F32,
                           .b_is_kn = s->p->matmul.b_rows == at_cpu_is_turned(g, s->in[1]),
                           .one_form = plan->deterministic,
                           .a_is_km = at_cpu_is_turned(g, s->in[0])};
    for (int64_t rows = m.min; rows <= at_min(m.max, t->few_rows); rows++) {
        mm.m = rows;
        s->scratch = at_max(s->scratch, at_simd_matmul_floats(t, &mm) * (int64_t)sizeof(float));
    }
    mm.m = m.max;
    s->scratch = at_max(s->scratch, at_simd_matmul_floats(t, &mm) * (int64_t)sizeof(float));
    return 0;
}

struct product {
    struct attend_exec *x;
    const struct at_simd *t;
    const struct at_view *a, *b, *c;
    struct at_matmul mm;
    int64_t mparts, nparts, mstep, nstep;
    int64_t first; /* the item that is the first of this run */
};

int64_t at_cpu_batch_offset(const struct at_view *c, int64_t n, const struct at_view *v)
{
    int64_t offset = 0;
    for (int d = c->rank - 3; d >= 0; d--) {
        int64_t i = n % c->shape[d];
        int e = d - (c->rank - v->rank);
        n /= c->shape[d];
        if (e >= 0 && v->shape[e] != 1)
            offset += i * v->stride[e];
    }
    return offset;
}

int64_t at_cpu_batches(const struct at_view *c)
{
    int64_t batch = 1;
    for (int d = 0; d < c->rank - 2; d++)
        batch *= c->shape[d];
    return batch;
}

static void product_item(void *arg, int64_t item, int slot)
{
    const struct product *p = arg;
    struct at_matmul mm = p->mm;
    int64_t nn = (p->first + item) % p->nparts, rest = (p->first + item) / p->nparts;
    int64_t i = rest % p->mparts * p->mstep, n = nn * p->nstep, batch = rest / p->mparts;
    mm.a = at_view_at(p->a, at_cpu_batch_offset(p->c, batch, p->a));
    if (!mm.b_packed)
        mm.b = at_view_at(p->b, at_cpu_batch_offset(p->c, batch, p->b));
    mm.c = at_view_at(p->c, at_cpu_batch_offset(p->c, batch, p->c));
    p->t->matmul(&mm, i, at_min(mm.m, i + p->mstep), n, at_min(mm.n, n + p->nstep),
                 at_slot_scratch(p->x, slot));
}

#define PART 240 /* rows, and some more columns, that are worth packing for (simd/k_gemm.h) */
#define ACTS 16  /* rows of activations that one item packs */

/* Few rows share nothing, so columns are cut as finely as threads like.  Else the larger a part is
 * the more it shares of what it packs, and the larger side is cut until threads have a few each. */
static void cut(struct product *p, bool few)
{
    int64_t slots = p->x->ctx->exec.slots, wanted = slots > 1 ? 4 * slots : 1;
    int64_t m = 1, n = few ? at_max(1, at_min(p->mm.n / 32, 8 * slots)) : 1;
    while (!few && m * n < wanted && at_max(p->mm.m / m, p->mm.n / n) > PART)
        *(p->mm.m / m > p->mm.n / n ? &m : &n) *= 2;
    p->mstep = m == 1 ? p->mm.m : at_round_up(at_ceil_div(p->mm.m, m), PART / 2);
    p->nstep = at_round_up(at_ceil_div(p->mm.n, n), 32);
    p->mparts = at_ceil_div(p->mm.m, p->mstep);
    p->nparts = at_ceil_div(p->mm.n, p->nstep);
}

int at_cpu_product(struct attend_exec *x, const struct at_step *s)
{
    struct product p = {.x = x,
                        .t = at_cpu_kernels(s),
                        .a = at_arg(x, s, 0),
                        .b = at_arg(x, s, 1),
                        .c = at_result(x, s)};
    p.mm = describe(p.a, p.b, p.c, s->p->matmul.b_rows, at_cpu_is_turned(x->plan->graph, s->in[1]),
                    x->plan->deterministic);
    p.mm.a_is_km = at_cpu_is_turned(x->plan->graph, s->in[0]);
    if (p.mm.a_is_km)
        p.mm.a_stride = p.a->stride[p.a->rank - 1];
    int64_t batch = at_cpu_batches(p.c);
    if (!batch || !p.mm.m || !p.mm.n)
        return 0;
    cut(&p, p.mm.m <= p.t->few_rows);
    return at_cpu_items(x, batch * p.mparts * p.nparts,
                        2.0 * (double)batch * (double)p.mm.m * (double)p.mm.n * (double)p.mm.k,
                        product_item, &p);
}

/* ---- weights that were packed ---- */

/* What a step keeps: the weights, and how they meet activations (asking the CPU takes long). */
struct packed {
    const void *weights;
    enum at_int8 int8;
};

/* Scratch is the kernel's, or slot 0's has the packed activations, which all slots read. */
static int prepare_packed(attend_plan *plan, struct at_step *s, struct at_err *e)
{
    const attend_graph *g = plan->graph;
    const struct at_tensor *a = &g->tensor[s->in[0]], *b = &g->tensor[s->in[1]];
    const struct at_simd *t = at_cpu_kernels(s);
    enum at_elem type = (enum at_elem)at_cpu_elem(b->type);
    enum at_int8 int8 = s->row == &at_cpu_matmul_int8 ? at_simd_int8(t) : AT_INT8_NO;
    struct at_range m = at_plan_range(plan, s->rows, s->in[0], a->rank - 2);
    struct at_rows w = {b->data, at_ceil_div(b->shape[1], 32), b->shape[0], b->shape[1], type};
    struct at_matmul mm = {.m = m.max,
                           .k = w.width,
                           .b_type = type,
                           .b_packed = 1,
                           .int8 = int8,
                           .one_form = plan->deterministic};
    bool fresh;
    struct packed *keep = at_plan_pack(plan, sizeof *keep);
    void *packed =
        at_plan_pack_once(plan, s, s->in[1], at_simd_weights_bytes(t, type, w.n, w.width), &fresh);
    if (!packed || !keep)
        return at_fail(e, ATTEND_ENOMEM, "no memory for %lld x %lld packed weights", (long long)w.n,
                       (long long)w.width);
    if (fresh)
        t->pack_weights(packed, &w);
    *keep = (struct packed){packed, mm.int8};
    s->packed = keep;
    int64_t floats = at_simd_matmul_floats(t, &mm);
    mm.m = mm.int8 || mm.one_form ? mm.m : at_min(mm.m, t->packed_rows);
    s->scratch = at_max(floats * (int64_t)sizeof(float), at_simd_acts_bytes(&mm));
    return 0;
}

static void acts_item(void *arg, int64_t item, int slot)
{
    const struct product *p = arg;
    (void)slot;
    p->t->pack_acts(&p->mm, item * ACTS, at_min(p->mm.m, (item + 1) * ACTS));
}

/* One entry of the batch: activations are packed, if the kernel wants that, before all products. */
static int run_entry(struct product *p, int64_t batch)
{
    struct at_matmul *mm = &p->mm;
    double elements = (double)mm->m * (double)mm->k;
    bool acts = at_simd_wants_acts(p->t, mm);
    int status = 0;
    mm->a = at_view_at(p->a, at_cpu_batch_offset(p->c, batch, p->a));
    p->first = batch * p->mparts * p->nparts;
    if (acts)
        status = at_cpu_items(p->x, at_ceil_div(mm->m, ACTS), 8 * elements, acts_item, p);
    return status < 0 ? status
                      : at_cpu_items(p->x, p->mparts * p->nparts, 2 * elements * (double)mm->n,
                                     product_item, p);
}

static int run_packed(struct attend_exec *x, const struct at_step *s)
{
    struct product p = {.x = x,
                        .t = at_cpu_kernels(s),
                        .a = at_arg(x, s, 0),
                        .b = at_arg(x, s, 1),
                        .c = at_result(x, s)};
    p.mm = describe(p.a, p.b, p.c, true, false, x->plan->deterministic);
    const struct packed *w = s->packed;
    p.mm.b = w->weights;
    p.mm.b_packed = 1;
    p.mm.int8 = w->int8;
    p.mm.x = at_slot_scratch(x, 0);
    int64_t batch = at_cpu_batches(p.c);
    if (!batch || !p.mm.m || !p.mm.n)
        return 0;
    cut(&p, at_simd_wants_acts(p.t, &p.mm) && p.mm.m <= p.t->packed_rows);
    int status = 0;
    for (int64_t b = 0; b < batch && status == 0; b++)
        status = run_entry(&p, b);
    return status;
}

static int prepare(attend_plan *plan, struct at_step *s, struct at_err *e)
{
    return packable(plan, s) ? prepare_packed(plan, s, e) : prepare_matmul(plan, s, e);
}

static int run(struct attend_exec *x, const struct at_step *s)
{
    return s->packed ? run_packed(x, s) : at_cpu_product(x, s);
}

const struct at_row at_cpu_matmul = {"gemm", AT_MATMUL, accepts_matmul, prepare, NULL, run};
const struct at_row at_cpu_matmul_int8 = {"gemm-int8",    AT_MATMUL, accepts_int8,
                                          prepare_packed, NULL,      run_packed};
