/* SPDX-License-Identifier: MIT */
/* The backward pass of attention on the CPU: dQ, dK and dV from dO, LSE and delta, scores computed
 * again.  The arithmetic is the block functions' (simd.h).
 *
 * A work item is a segment of the packed rows of one sequence and KV head.  It takes its rows some
 * panels at a time, a bundle, and for each bundle makes one pass over the keys: dQ of the bundle
 * stays in scratch, dK and dV of a block of keys are summed over the bundle and then added to where
 * they belong. That is the result itself where a sequence is one segment; otherwise the segment has
 * a copy of its own, and copies are added in the order of segments.  How many there are is fixed by
 * the plan, so results depend on neither threads nor what runs first. */
#include <math.h>
#include <string.h>

#include "cpu_attn.h"
#include "schedule.h"

#define MAX_PANELS 32            /* of a bundle */
#define BUNDLE_BYTES (768 << 10) /* of what is packed for it: sums of keys are added seldom */
#define ITEMS 32                 /* that there should be, for threads to share */
#define MAX_SEGMENTS 8           /* of a sequence: each costs a copy of dK and dV */
#define STEPS 3                  /* of a panel and a block of keys: weights, scores, dQ */

struct segment {
    int32_t seq, group, number;
    int64_t first, count; /* packed rows */
};

/* What prepare packs. */
struct packed {
    const struct at_programs *forward;
    struct at_expr_program slope; /* of the score expression; no steps: none */
    int64_t scratch;              /* bytes, of programs */
};

/* What bind leaves for run; arrays follow it. */
struct problem {
    struct at_attn_grad g;
    struct at_seq *seq;
    struct segment *item;
    float *copy;                   /* of dK and dV: [segment][group][key][dk + dv] */
    double *slopes;                /* [item][heads of a group]: dslopes */
    double *additive;              /* [item][dk]: the gradient of additive's vector */
    int64_t nitem, segments, keys; /* keys: rows of k in all */
    double flops;
    const struct at_schedule *blocks;
    const struct packed *packed;
};

/* ---- sizes ---- */

struct sizes {
    int64_t seqs, rows, keys, all_keys, groups, ratio, dk, dv;
    int64_t panels, segments, items;
    bool additive;
};

static int64_t panel_floats(const struct at_simd *t, const struct sizes *z)
{
    int64_t r = t->rows_per_panel;
    return at_cpu_attn_q_floats(t, z->dk, z->additive) + at_simd_q_floats(t, z->dv) +
           at_simd_state_floats(t, z->dk) + r * at_round_up(z->dk, r) + r * at_round_up(z->dv, r);
}

/* Whole groups of panels. */
static int64_t bundle_panels(const struct at_simd *t, const struct sizes *z)
{
    int64_t fit = BUNDLE_BYTES / (panel_floats(t, z) * (int64_t)sizeof(float));
    return at_max(t->back_group, at_min(fit, MAX_PANELS) / t->back_group * t->back_group);
}

static struct sizes sizes(const attend_plan *plan, const struct at_step *s)
{
    const attend_graph *g = plan->graph;
    const struct at_simd *t = at_cpu_kernels(s);
    const struct at_tensor *q = &g->tensor[s->in[AT_IN_Q]], *k = &g->tensor[s->in[AT_IN_K]];
    bool packed = q->rank == 3;
    struct sizes z = {.seqs = at_attn_max_seqs(plan, s),
                      .rows = at_plan_range(plan, s->rows, s->in[AT_IN_Q], packed ? 0 : 2).max,
                      .keys = at_plan_range(plan, s->rows, s->in[AT_IN_K], packed ? 0 : 2).max,
                      .groups = k->shape[1],
                      .ratio = q->shape[1] / k->shape[1],
                      .dk = q->shape[q->rank - 1],
                      .dv = g->tensor[s->in[AT_IN_V]].shape[k->rank - 1],
                      .additive = s->in[AT_IN_ADDITIVE] >= 0};
    z.all_keys = packed ? z.keys : at_mul_size(z.keys, z.seqs);
    z.panels = bundle_panels(t, &z);
    int64_t bundles = at_ceil_div(z.rows * z.ratio, z.panels * t->rows_per_panel);
    int64_t heads = at_max(1, at_mul_size(z.seqs, z.groups));
    int64_t others = plan->deterministic ? 1 : heads; /* then the batch does not matter */
    z.segments = at_max(1, at_min(at_min(MAX_SEGMENTS, bundles), at_ceil_div(ITEMS, others)));
    z.items = at_mul_size(heads, z.segments);
    return z;
}

/* Scratch of a slot, in floats. */
struct room {
    float *qp, *op, *dq, *rq, *ro; /* of a bundle */
    float *lse, *delta;
    float *st, *other; /* a group's block, a panel's block */
    float *kp, *k, *v, *sum_k, *sum_v;
    void *steps;
};

static float *carve(float **p, int64_t floats)
{
    float *here = *p;
    *p += at_round_up(floats, 16);
    return here;
}

static int64_t lay_scratch(const struct at_simd *t, const struct sizes *z, float *base,
                           struct room *m)
{
    float *p = base;
    int64_t r = t->rows_per_panel, n = z->panels, block = t->back_block;
    m->qp = carve(&p, n * at_cpu_attn_q_floats(t, z->dk, z->additive));
    m->op = carve(&p, n * at_simd_q_floats(t, z->dv));
    m->dq = carve(&p, n * at_simd_state_floats(t, z->dk));
    m->rq = carve(&p, n * r * at_round_up(z->dk, r));
    m->ro = carve(&p, n * r * at_round_up(z->dv, r));
    m->lse = carve(&p, n * r);
    m->delta = carve(&p, n * r);
    m->st = carve(&p, t->back_group * block * r);
    m->other = carve(&p, block * r);
    m->kp = carve(&p, at_simd_v_floats(t, z->dk));
    m->k = carve(&p, block * z->dk);
    m->v = carve(&p, block * z->dv);
    m->sum_k = carve(&p, block * at_round_up(z->dk, r));
    m->sum_v = carve(&p, block * at_round_up(z->dv, r));
    return p - base;
}

/* ---- plan ---- */

static bool f32_rows(const attend_plan *plan, int t)
{
    return t < 0 || (plan->graph->tensor[t].type == ATTEND_F32 && at_cpu_has_rows(plan, t));
}

static bool accepts(const attend_plan *plan, const struct at_step *s, struct at_why *why)
{
    bool rows = f32_rows(plan, s->in[AT_IN_GRAD_O]), captures = false;
    for (int k = AT_IN_Q; k <= AT_IN_V; k++)
        rows = rows && at_cpu_has_rows(plan, s->in[k]);
    for (int k = AT_OUT_Q; k <= AT_OUT_V && k < s->nout; k++)
        rows = rows && f32_rows(plan, s->out[k]);
    for (int k = AT_OUT_CAPTURE; k < s->nout; k++)
        captures = captures || s->out[k] >= 0;
    return at_need(why, rows, "a head's channels are not next to each other in memory") &&
           at_need(why, !plan->deterministic || s->in[AT_IN_ADDITIVE] < 0,
                   "deterministic: additive scores are computed in panels, whose rows share "
                   "references") &&
           at_need(why, !captures, "tensors that an expression indexes have gradients");
}

static int prepare_slope(attend_plan *plan, struct at_step *s, const struct sizes *z,
                         struct at_err *e)
{
    const struct at_expr *x = s->p->attention.score;
    char err[160];
    struct at_expr *d = x ? at_alloc(plan->ctx, sizeof *d) : NULL;
    struct packed *p = at_plan_pack(plan, sizeof *p);
    const struct at_expr_box box = {
        .b = {0, z->seqs             },
        .h = {0, z->groups * z->ratio},
        .i = {0, z->rows             },
        .j = {0, z->keys             },
        .sq = {0, z->rows             },
        .skv = {0, z->keys             }
    };
    int status = 0, score = -1;
    if (!p || (x && !d)) {
        at_free(plan->ctx, d);
        return at_fail(e, ATTEND_ENOMEM, "no memory for the gradient of attention");
    }
    p->forward = s->packed;
    p->slope.n = 0;
    p->scratch = p->forward ? p->forward->scratch : 0;
    for (int k = 0; x && k < x->n; k++)
        score = x->node[k].op == AT_X_SCORE ? k : score;
    if (score >= 0)
        status = at_expr_derivative(x, score, d);
    else if (x) /* it does not look at the score */
        at_expr_init(d, true), at_expr_finish(d, at_expr_float(d, 0));
    if (x && status == 0)
        status = at_expr_compile(d, &box, &p->slope, err, sizeof err);
    at_free(plan->ctx, d);
    if (x && status == 0) {
        s->scratch += at_max(0, at_round_up(p->slope.scratch, AT_ALIGN) - p->scratch);
        p->scratch = at_max(p->scratch, at_round_up(p->slope.scratch, AT_ALIGN));
    }
    s->packed = p;
    return status < 0 ? at_fail(e, status, "the gradient of a score expression is too large") : 0;
}

static int64_t copy_floats(const struct sizes *z)
{
    return z->segments == 1
               ? 0
               : at_mul_size(at_mul_size(z->segments * z->groups, z->all_keys), z->dk + z->dv);
}

static int64_t vector_bytes(const struct sizes *z)
{
    return z->additive ? z->items * z->dk * (int64_t)sizeof(double) : 0;
}

static int prepare(attend_plan *plan, struct at_step *s, struct at_err *e)
{
    struct sizes z = sizes(plan, s);
    struct room m;
    int64_t copies = at_mul_size(copy_floats(&z), sizeof(float));
    s->scratch = lay_scratch(at_cpu_kernels(s), &z, NULL, &m) * (int64_t)sizeof(float);
    if (z.items < 0 || z.items > INT32_MAX || z.all_keys < 0 || copies < 0)
        return at_fail(e, ATTEND_ELIMIT,
                       "attention_grad over %lld sequences of %lld rows and %lld keys",
                       (long long)z.seqs, (long long)z.rows, (long long)z.keys);
    s->state = at_round_up(sizeof(struct problem), AT_ALIGN) +
               at_round_up(z.seqs * (int64_t)sizeof(struct at_seq), AT_ALIGN) +
               at_round_up(z.items * (int64_t)sizeof(struct segment), AT_ALIGN) +
               at_round_up(z.items * z.ratio * (int64_t)sizeof(double), AT_ALIGN) +
               at_round_up(vector_bytes(&z), AT_ALIGN) + copies;
    int status = at_cpu_attn_programs(plan, s, e);
    return status < 0 ? status : prepare_slope(plan, s, &z, e);
}

/* ---- bind ---- */

static void *take(char **p, int64_t bytes)
{
    void *here = *p;
    *p += at_round_up(bytes, AT_ALIGN);
    return here;
}

static struct problem *lay_out(const struct attend_exec *x, const struct at_step *s,
                               const struct sizes *z)
{
    char *p = at_step_state(x, s);
    struct problem *d = take(&p, sizeof *d);
    d->seq = take(&p, z->seqs * (int64_t)sizeof *d->seq);
    d->item = take(&p, z->items * (int64_t)sizeof *d->item);
    d->slopes = take(&p, z->items * z->ratio * (int64_t)sizeof *d->slopes);
    d->additive = take(&p, vector_bytes(z));
    d->copy = (void *)p;
    return d;
}

/* Late rows see the most keys under causality, so they come first.  Every sequence has all its
 * segments, empty ones too: who adds copies up looks at all. */
static void list(struct problem *d, const struct sizes *z, int64_t bundle)
{
    d->nitem = 0;
    for (int64_t c = z->segments - 1; c >= 0; c--)
        for (int64_t n = 0; n < d->g.a.nseq; n++) {
            int64_t rows = d->seq[n].nq * z->ratio;
            int64_t each = at_round_up(at_ceil_div(rows, z->segments), bundle);
            for (int64_t g = 0; g < z->groups; g++)
                d->item[d->nitem++] =
                    (struct segment){(int32_t)n, (int32_t)g, (int32_t)c, at_min(c * each, rows),
                                     at_max(0, at_min(each, rows - c * each))};
        }
}

static int bind(struct attend_exec *x, const struct at_step *s)
{
    struct sizes z = sizes(x->plan, s);
    struct problem *d = lay_out(x, s, &z);
    int status = at_attn_grad_resolve(x, s, &d->g, d->seq);
    if (status == 0)
        status = at_attn_blocks(x, s, &d->g.a, &d->blocks);
    if (status < 0)
        return status;
    const struct at_attn *a = &d->g.a;
    d->segments = z.segments;
    d->keys = a->k.shape[0] * a->k.shape[2];
    d->packed = s->packed;
    d->flops = 0;
    for (int64_t n = 0; n < a->nseq; n++) {
        struct at_keys k = at_key_range(&a->visible, &a->seq[n], 0, a->seq[n].nq);
        d->flops += 5.0 * (double)a->seq[n].nq * (double)(k.end - k.first) *
                    (double)(a->nh * (a->dk + a->dv));
    }
    list(d, &z, z.panels * at_cpu_kernels(s)->rows_per_panel);
    return 0;
}

/* ---- a bundle of panels ---- */

struct work {
    const struct at_simd *t;
    const struct problem *d;
    const struct segment *w, *after; /* after: the item that comes next, or NULL */
    struct at_item item;             /* of the forward pass's functions: which sequence and group */
    struct room m;
    struct at_lanes lanes[MAX_PANELS];
    int64_t room; /* rows of a bundle */
    int panels;
    float *k, *v; /* dK and dV of key 0, rows of k_stride and v_stride; NULL: not wanted */
    int64_t k_stride, v_stride;
    double *slopes, *additive; /* of this item */
    struct {                   /* needed soon: K and V of the next block, dK and dV of this one */
        struct at_rows rows[4];
        int64_t asked, each;
    } soon;
};

static const struct at_seq *seq_of(const struct work *u)
{
    return &u->d->seq[u->w->seq];
}

/* Those of a panel, packed. */
static float *queries(const struct work *u, int p)
{
    const struct at_attn *a = &u->d->g.a;
    return u->m.qp + p * at_cpu_attn_q_floats(u->t, a->dk, a->additive);
}

static int64_t row_place(const struct work *u, const struct at_view *v, int64_t h, int64_t i)
{
    const struct at_seq *q = seq_of(u);
    return q->qb * v->stride[0] + h * v->stride[1] + (q->q0 + i) * v->stride[2];
}

/* LSE and delta of the lanes; what is not there has no weight. */
static void load_numbers(const struct work *u, const struct at_lanes *l, float *lse, float *delta)
{
    const struct at_attn_grad *g = &u->d->g;
    for (int r = 0; r < u->t->rows_per_panel; r++) {
        lse[r] = INFINITY;
        delta[r] = 0;
        if (r >= l->n)
            continue;
        lse[r] = *(const float *)at_view_at(&g->a.lse, row_place(u, &g->a.lse, l->h[r], l->i[r]));
        delta[r] = *(const float *)at_view_at(&g->delta, row_place(u, &g->delta, l->h[r], l->i[r]));
    }
}

static void pack_panel(struct work *u, int p, int64_t first, int n)
{
    const struct at_simd *t = u->t;
    const struct at_attn_grad *g = &u->d->g;
    const struct at_attn *a = &g->a;
    struct at_lanes *l = &u->lanes[p];
    const void *dout[AT_MAX_LANES];
    int rows = t->rows_per_panel;
    l->stride = rows;
    at_cpu_attn_lanes(l, a, seq_of(u), u->w->group, first, n, rows);
    l->programs = u->d->packed->forward;
    l->steps = u->m.steps;
    for (int r = 0; r < rows; r++)
        dout[r] = r < n ? at_view_at(&g->dout, row_place(u, &g->dout, l->h[r], l->i[r])) : NULL;
    at_cpu_attn_pack_q(t, a, l, queries(u, p));
    t->pack_q(u->m.op + p * at_simd_q_floats(t, a->dv), dout, AT_ELEM_F32, a->dv, 1);
    t->back_pack_rows(u->m.rq + (int64_t)p * rows * rows, u->room, l->q, rows,
                      (enum at_elem)at_cpu_elem(a->q.type), a->dk);
    t->back_pack_rows(u->m.ro + (int64_t)p * rows * rows, u->room, dout, rows, AT_ELEM_F32, a->dv);
    load_numbers(u, l, u->m.lse + p * rows, u->m.delta + p * rows);
    memset(u->m.dq + p * at_simd_state_floats(t, a->dk), 0,
           (size_t)at_simd_state_floats(t, a->dk) * sizeof(float));
}

static void finish_panel(const struct work *u, int p)
{
    const struct at_attn_grad *g = &u->d->g;
    const struct at_lanes *l = &u->lanes[p];
    void *out[AT_MAX_LANES] = {NULL};
    if (!g->dq.data)
        return;
    for (int r = 0; r < l->n; r++)
        out[r] = at_view_at(&g->dq, row_place(u, &g->dq, l->h[r], l->i[r]));
    u->t->back_finish(u->m.dq + p * at_simd_state_floats(u->t, g->a.dk), g->a.dk, g->a.scale, out);
}

/* ---- a panel and a block of keys ---- */

/* Keys of a block that begins at j0: [from, to) are there, as f32 rows of K and V. */
struct block {
    int64_t j0, from, to;
    struct at_rows k, v;
    int odd; /* some key is not finite */
};

static struct at_rows part_of(const struct at_rows *rows, const struct block *b, int64_t from,
                              int64_t to)
{
    struct at_rows part = *rows;
    part.base = (const float *)rows->base + (from - b->from) * rows->stride;
    part.n = to - from;
    return part;
}

static enum at_cover cover(const struct work *u, int64_t i0, int64_t i1, int64_t from, int64_t to)
{
    int64_t ratio = at_cpu_attn_ratio(&u->d->g.a), h = u->w->group * ratio;
    return u->d->blocks ? at_schedule_cover(u->d->blocks, u->w->seq, h, h + ratio, i0, i1, from, to)
                        : AT_COVER_FULL;
}

/* Does more than affine visibility and a scale make weights of q . k? */
static bool edited(const struct at_attn *a)
{
    return a->additive || a->softcap > 0 || a->alibi || a->bias.data || a->score_expr ||
           a->scale == 0;
}

static void hide_absent(const struct work *u, const struct at_lanes *l, float *st, int64_t n)
{
    for (int r = l->n; r < u->t->rows_per_panel; r++)
        for (int64_t j = 0; j < n; j++)
            st[j * u->t->rows_per_panel + r] = -INFINITY;
}

/* Weights of keys some of which are hidden, or whose scores are edited. */
static void edited_weights(const struct work *u, int p, float *st, const struct block *b,
                           int64_t from, int64_t to)
{
    const struct at_attn *a = &u->d->g.a;
    const struct at_simd *t = u->t;
    int64_t rows = t->rows_per_panel;
    if (from >= to)
        return;
    struct at_rows k = b->k;
    k.base = (const float *)k.base - (b->from - b->j0) * k.stride; /* of key j0 */
    at_cpu_attn_scores(t, a, &u->item, &u->lanes[p], queries(u, p), &k, st, b->j0, from, to,
                       AT_COVER_PARTIAL);
    hide_absent(u, &u->lanes[p], st + (from - b->j0) * rows, to - from);
    t->weights(st, from - b->j0, to - from, u->m.lse + p * rows, at_cpu_attn_scale(a));
}

static void full_weights(const struct work *u, int p, float *st, const struct block *b,
                         int64_t from, int64_t to)
{
    const struct at_attn *a = &u->d->g.a;
    if (from >= to)
        return;
    struct at_rows k = part_of(&b->k, b, from, to);
    u->t->back_weights(st, from - b->j0, queries(u, p), &k, u->m.lse + p * u->t->rows_per_panel,
                       at_cpu_attn_scale(a));
}

/* Weights of [from, to), zeros in the rest of the group's [low, high).  Returns whether any may be
 * hidden. */
static bool make_weights(const struct work *u, int p, float *st, const struct block *b,
                         int64_t from, int64_t to, int64_t low, int64_t high)
{
    const struct at_attn *a = &u->d->g.a;
    const struct at_lanes *l = &u->lanes[p];
    int64_t rows = u->t->rows_per_panel, i0 = l->i[0], i1 = l->i[l->n - 1] + 1;
    struct at_keys r = at_key_range(&a->visible, seq_of(u), i0, i1);
    from = at_max(from, r.first);
    to = at_max(from, at_min(to, r.end));
    int64_t full = at_min(at_max(r.full_first, from), to),
            full_to = at_max(full, at_min(r.full_end, to));
    if (edited(a) || (from < to && cover(u, i0, i1, from, to) != AT_COVER_FULL))
        full = full_to = to;
    memset(st + (low - b->j0) * rows, 0, (size_t)((at_min(from, high) - low) * rows) * sizeof *st);
    if (to < high)
        memset(st + (to - b->j0) * rows, 0, (size_t)((high - to) * rows) * sizeof *st);
    edited_weights(u, p, st, b, from, full);
    full_weights(u, p, st, b, full, full_to);
    edited_weights(u, p, st, b, full_to, to);
    return full > low || full_to < high;
}

static void drop(const struct work *u, const struct at_lanes *l, float *st, int64_t j0, int64_t j1)
{
    const struct at_attn *a = &u->d->g.a;
    uint32_t i[AT_MAX_LANES], bh[AT_MAX_LANES];
    for (int r = 0; r < l->n; r++) {
        i[r] = (uint32_t)l->i[r];
        bh[r] = (uint32_t)(u->w->seq * a->nh + l->h[r]);
    }
    u->t->dropout(st, l->stride, l->n, j0, j1, &a->dropout, i, bh);
}

/* Weights to gradients of scores, where dropout stands between weights and values. */
static void dropped_scores(const struct work *u, int p, float *st, const struct block *b,
                           int64_t low, int64_t high)
{
    const struct at_simd *t = u->t;
    int64_t rows = t->rows_per_panel;
    struct at_rows v = part_of(&b->v, b, low, high);
    t->scores(u->m.other, 0, u->m.op + p * at_simd_q_floats(t, u->d->g.a.dv), &v);
    drop(u, &u->lanes[p], u->m.other, low, high);
    t->back_combine(st + (low - b->j0) * rows, u->m.other, u->m.delta + p * rows, high - low);
}

static void give_bias(const struct work *u, const struct at_lanes *l, const float *st,
                      const struct block *b, int64_t low, int64_t high)
{
    const struct at_view *m = &u->d->g.dbias;
    for (int r = 0; r < l->n; r++) {
        float *row = (float *)m->data + u->w->seq * m->stride[0] + l->h[r] * m->stride[1] +
                     l->i[r] * m->stride[2];
        for (int64_t j = low; j < high; j++)
            row[j * m->stride[3]] += st[(j - b->j0) * l->stride + r];
    }
}

static void give_slopes(const struct work *u, const struct at_lanes *l, const float *st,
                        const struct block *b, int64_t low, int64_t high)
{
    int64_t ratio = at_cpu_attn_ratio(&u->d->g.a), off = seq_of(u)->off;
    for (int r = 0; r < l->n; r++)
        for (int64_t j = low; j < high; j++)
            u->slopes[l->h[r] % ratio] -=
                (double)(st[(j - b->j0) * l->stride + r] * fabsf((float)(l->i[r] + off - j)));
}

/* The scores that the expression was given; what masks hide does not matter. */
static void times_slope(const struct work *u, int p, float *st, const struct block *b, int64_t low,
                        int64_t high)
{
    const struct at_simd *t = u->t;
    struct at_attn plain = u->d->g.a;
    const struct at_seq *q = seq_of(u);
    int64_t rows = t->rows_per_panel, n = (high - low) * rows;
    struct at_rows k = part_of(&b->k, b, low, high);
    plain.score_expr = plain.mask_expr = NULL;
    plain.mask.data = NULL;
    at_cpu_attn_scores(t, &plain, &u->item, &u->lanes[p], queries(u, p), &k, u->m.other, low, low,
                       high, AT_COVER_PARTIAL);
    t->scale(u->m.other, u->m.other, at_cpu_attn_scale(&plain), n);
    const struct at_expr_block block = {.st = u->m.other,
                                        .stride = rows,
                                        .lanes = u->lanes[p].n,
                                        .j0 = low,
                                        .keys = high - low,
                                        .i = u->lanes[p].i,
                                        .h = u->lanes[p].h,
                                        .b = u->w->seq,
                                        .sq = q->nq,
                                        .skv = q->nk,
                                        .capture = plain.capture};
    t->expr(&u->d->packed->slope, &block, u->m.steps);
    st += (low - b->j0) * rows;
    for (int64_t e = 0; e < n; e++)
        if (st[e] != 0)
            st[e] *= u->m.other[e];
}

static void times_softcap(const struct work *u, int p, float *st, const struct block *b,
                          int64_t low, int64_t high)
{
    const struct at_simd *t = u->t;
    const struct at_attn *a = &u->d->g.a;
    struct at_rows k = part_of(&b->k, b, low, high);
    if (a->additive)
        t->additive_scores(u->m.other, 0, queries(u, p), &k, a->additive);
    else
        t->scores(u->m.other, 0, queries(u, p), &k);
    t->back_softcap(st + (low - b->j0) * t->rows_per_panel, u->m.other,
                    fabsf(a->scale) / a->softcap, high - low);
}

/* From the gradient of weights to that of q . k over the scale. */
static void make_scores(const struct work *u, int p, float *st, const struct block *b, int64_t low,
                        int64_t high, bool hidden)
{
    const struct at_attn_grad *g = &u->d->g;
    const struct at_attn *a = &g->a;
    const struct at_lanes *l = &u->lanes[p];
    if (a->dropout.below) {
        dropped_scores(u, p, st, b, low, high);
    } else {
        struct at_rows v = part_of(&b->v, b, low, high);
        u->t->back_scores(st, low - b->j0, u->m.op + p * at_simd_q_floats(u->t, a->dv), &v,
                          u->m.delta + p * u->t->rows_per_panel, hidden);
    }
    if (a->score_expr)
        times_slope(u, p, st, b, low, high);
    if (g->dbias.data)
        give_bias(u, l, st, b, low, high);
    if (g->dalibi.data)
        give_slopes(u, l, st, b, low, high);
    if (a->softcap > 0)
        times_softcap(u, p, st, b, low, high);
}

/* ---- a group of panels and a block of keys ---- */

/* dV = P^T dO, where dropout has made P. */
static void give_values(const struct work *u, int p0, int n, float *st, const struct block *b,
                        int64_t low, int64_t high)
{
    const struct at_simd *t = u->t;
    const struct at_attn *a = &u->d->g.a;
    int64_t rows = t->rows_per_panel, size = t->back_block * rows;
    if (!u->v)
        return;
    if (!a->dropout.below) {
        t->back_keys(u->m.sum_v, st, n, low - b->j0, high - b->j0, u->m.ro + p0 * rows * rows,
                     u->room, a->dv);
        return;
    }
    for (int p = 0; p < n; p++) { /* the weights themselves are needed again */
        memcpy(u->m.other, st + p * size, (size_t)size * sizeof *st);
        drop(u, &u->lanes[p0 + p], u->m.other + (low - b->j0) * rows, low, high);
        t->back_keys(u->m.sum_v, u->m.other, 1, low - b->j0, high - b->j0,
                     u->m.ro + (p0 + p) * rows * rows, u->room, a->dv);
    }
}

/* dQ; and dK, where scores are no products. */
static void give_queries(const struct work *u, int p, const float *st, const struct block *b,
                         int64_t low, int64_t high, bool exact)
{
    const struct at_simd *t = u->t;
    const struct at_attn *a = &u->d->g.a;
    float *dq = u->m.dq + p * at_simd_state_floats(t, a->dk);
    if (a->additive) {
        struct at_rows k = part_of(&b->k, b, low, high);
        t->additive_back(u->m.sum_k, dq, u->additive, st, low - b->j0, queries(u, p), &k,
                         a->additive, exact);
    } else {
        t->accumulate(dq, a->dk, st, u->m.kp, low - b->j0, high - b->j0, 0, exact, NULL);
    }
}

/* Before each of its steps a panel asks for a few rows, so that nobody waits for them. */
static void ask(struct work *u)
{
    int64_t from = u->soon.asked, to = from + u->soon.each;
    for (int k = 0; k < 4; k++)
        u->t->bring(&u->soon.rows[k], from, to);
    u->soon.asked = to;
}

static void group_block(struct work *u, int p0, int n, const struct block *b)
{
    const struct at_simd *t = u->t;
    const struct at_attn *a = &u->d->g.a;
    const struct at_lanes *first = &u->lanes[p0], *last = &u->lanes[p0 + n - 1];
    int64_t i0 = first->i[0], i1 = last->i[last->n - 1] + 1, rows = t->rows_per_panel;
    struct at_keys r = at_key_range(&a->visible, seq_of(u), i0, i1);
    int64_t low = at_max(r.first, b->from), high = at_min(r.end, b->to);
    bool hidden[MAX_PANELS];
    if (low >= high || cover(u, i0, i1, low, high) == AT_COVER_EMPTY)
        return;
    for (int p = 0; p < n; p++) {
        ask(u);
        hidden[p] =
            make_weights(u, p0 + p, u->m.st + p * t->back_block * rows, b, low, high, low, high);
    }
    give_values(u, p0, n, u->m.st, b, low, high);
    for (int p = 0; p < n; p++) {
        ask(u);
        make_scores(u, p0 + p, u->m.st + p * t->back_block * rows, b, low, high, hidden[p]);
    }
    if (u->k && !a->additive)
        t->back_keys(u->m.sum_k, u->m.st, n, low - b->j0, high - b->j0, u->m.rq + p0 * rows * rows,
                     u->room, a->dk);
    for (int p = 0; p < n; p++) {
        ask(u);
        give_queries(u, p0 + p, u->m.st + p * t->back_block * rows, b, low, high,
                     b->odd && hidden[p]);
    }
}

/* ---- a bundle over all keys ---- */

/* Keys [from, to) of a segment's group, where they lie. */
static struct at_rows rows_at(const struct problem *d, const struct segment *w,
                              const struct at_view *v, int64_t from, int64_t to)
{
    const struct at_seq *q = &d->seq[w->seq];
    return (struct at_rows){at_view_at(v, q->kb * v->stride[0] + w->group * v->stride[1] +
                                              (q->k0 + from) * v->stride[2]),
                            v->stride[2], to - from, v->shape[3],
                            (enum at_elem)at_cpu_elem(v->type)};
}

static struct at_rows rows_of(const struct work *u, const struct at_view *v, int64_t from,
                              int64_t to, float *buffer)
{
    struct at_rows rows = rows_at(u->d, u->w, v, from, to);
    if (rows.type == AT_ELEM_F32)
        return rows;
    u->t->pack_k(buffer, &rows);
    return (struct at_rows){buffer, rows.width, rows.n, rows.width, AT_ELEM_F32};
}

/* What comes after a block; after the last, the first of the next item. */
static void look_ahead(struct work *u, const struct block *b, int64_t end)
{
    const struct at_attn *a = &u->d->g.a;
    const struct segment *w = b->to < end ? u->w : u->after;
    int64_t from = b->to < end ? b->to : 0, n = b->to - b->from;
    int64_t to = w ? at_min(u->d->seq[w->seq].nk, from + u->t->back_block) : from;
    memset(&u->soon, 0, sizeof u->soon);
    if (from < to) {
        u->soon.rows[0] = rows_at(u->d, w, &a->k, from, to);
        u->soon.rows[1] = rows_at(u->d, w, &a->v, from, to);
    }
    if (u->k)
        u->soon.rows[2] =
            (struct at_rows){u->k + b->from * u->k_stride, u->k_stride, n, a->dk, AT_ELEM_F32};
    if (u->v)
        u->soon.rows[3] =
            (struct at_rows){u->v + b->from * u->v_stride, u->v_stride, n, a->dv, AT_ELEM_F32};
    u->soon.each = at_ceil_div(u->t->back_block, STEPS * u->panels);
}

/* n rows of a result from key j on; sum NULL: they get nothing. */
static void store(const struct work *u, float *to, int64_t stride, const float *sum, int64_t j,
                  int64_t n, int64_t width, float by, bool add)
{
    if (!to || n <= 0)
        return;
    if (sum)
        u->t->back_store(to + j * stride, stride, sum, n, width, by, add);
    for (int64_t e = 0; !sum && !add && e < n; e++)
        memset(to + (j + e) * stride, 0, (size_t)width * sizeof *to);
}

static void store_both(const struct work *u, const struct block *b, bool any, int64_t j, int64_t n,
                       bool add)
{
    const struct at_attn *a = &u->d->g.a;
    int64_t r = u->t->rows_per_panel, skip = any ? (j - b->j0) * r : 0;
    store(u, u->k, u->k_stride, any ? u->m.sum_k + skip : NULL, j, n, a->dk, a->scale, add);
    store(u, u->v, u->v_stride, any ? u->m.sum_v + skip : NULL, j, n, a->dv, 1, add);
}

/* The first bundle of an item stores dK and dV of every key, the others add theirs. */
static void run_bundle(struct work *u, bool first)
{
    const struct at_simd *t = u->t;
    const struct at_attn *a = &u->d->g.a;
    const struct at_lanes *last = &u->lanes[u->panels - 1];
    int64_t nk = seq_of(u)->nk, i0 = u->lanes[0].i[0], i1 = last->i[last->n - 1] + 1,
            r = t->rows_per_panel;
    struct at_keys all = at_key_range(&a->visible, seq_of(u), i0, i1);
    for (int64_t j0 = 0; j0 < nk; j0 += t->back_block) {
        int64_t end = at_min(j0 + t->back_block, nk);
        struct block b = {.j0 = j0, .from = at_max(j0, all.first), .to = at_min(end, all.end)};
        bool any = b.from < b.to && cover(u, i0, i1, b.from, b.to) != AT_COVER_EMPTY;
        if (any) {
            b.k = rows_of(u, &a->k, b.from, b.to, u->m.k);
            b.v = rows_of(u, &a->v, b.from, b.to, u->m.v);
            b.odd = t->pack_v(u->m.kp, b.from - j0, &b.k, NULL);
            memset(u->m.sum_k, 0, (size_t)(t->back_block * at_round_up(a->dk, r)) * sizeof(float));
            memset(u->m.sum_v, 0, (size_t)(t->back_block * at_round_up(a->dv, r)) * sizeof(float));
            look_ahead(u, &b, all.end);
            for (int p = 0; p < u->panels; p += t->back_group)
                group_block(u, p, (int)at_min(t->back_group, u->panels - p), &b);
        }
        if (any && !first)
            store_both(u, &b, true, b.from, b.to - b.from, true);
        else if (first)
            store_both(u, &b, any, j0, end - j0, false);
    }
}

/* Where dK and dV of the item go: the results, or the segment's copy. */
static void find_results(struct work *u)
{
    const struct problem *d = u->d;
    const struct at_attn_grad *g = &d->g;
    const struct at_seq *q = seq_of(u);
    int64_t key = q->kb * g->a.k.shape[2] + q->k0, width = g->a.dk + g->a.dv;
    if (d->segments > 1) {
        float *copy = d->copy + ((u->w->number * g->a.ng + u->w->group) * d->keys + key) * width;
        u->k = g->dk.data ? copy : NULL;
        u->v = g->dv.data ? copy + g->a.dk : NULL;
        u->k_stride = u->v_stride = width;
        return;
    }
    const struct at_view *k = &g->dk, *v = &g->dv;
    u->k = k->data ? (float *)k->data + q->kb * k->stride[0] + u->w->group * k->stride[1] +
                         q->k0 * k->stride[2]
                   : NULL;
    u->v = v->data ? (float *)v->data + q->kb * v->stride[0] + u->w->group * v->stride[1] +
                         q->k0 * v->stride[2]
                   : NULL;
    u->k_stride = k->stride[2];
    u->v_stride = v->stride[2];
}

struct job {
    struct attend_exec *x;
    const struct at_step *s;
    const struct problem *d;
    struct sizes z;
};

static void run_item(void *arg, int64_t index, int slot)
{
    const struct job *job = arg;
    const struct problem *d = job->d;
    const struct segment *w = &d->item[index];
    const struct at_simd *t = at_cpu_kernels(job->s);
    struct work u = {
        .t = t,
        .d = d,
        .w = w,
        .after = index + 1 < d->nitem ? w + 1 : NULL,
        .item = {w->seq, w->group, 0, 0}
    };
    char *scratch = at_slot_scratch(job->x, slot);
    u.m.steps = scratch;
    lay_scratch(t, &job->z, (void *)(scratch + d->packed->scratch), &u.m);
    u.room = job->z.panels * t->rows_per_panel;
    u.slopes = d->slopes + index * job->z.ratio;
    u.additive = d->additive + (job->z.additive ? index * job->z.dk : 0);
    memset(u.slopes, 0, (size_t)job->z.ratio * sizeof *u.slopes);
    memset(u.additive, 0, (size_t)(job->z.additive ? job->z.dk : 0) * sizeof *u.additive);
    find_results(&u);
    if (w->count == 0) /* of a short sequence: no rows, but perhaps keys */
        store_both(&u, NULL, false, 0, seq_of(&u)->nk, false);
    for (int64_t from = 0; from < w->count; from += u.room) {
        int64_t n = at_min(u.room, w->count - from);
        u.panels = (int)at_ceil_div(n, t->rows_per_panel);
        for (int p = 0; p < u.panels; p++) {
            int64_t at = (int64_t)p * t->rows_per_panel;
            pack_panel(&u, p, w->first + from + at, (int)at_min(t->rows_per_panel, n - at));
        }
        run_bundle(&u, from == 0);
        for (int p = 0; p < u.panels; p++)
            finish_panel(&u, p);
    }
}

/* ---- what is left ---- */

/* Copies of the segments, in order, for the keys of one sequence and group. */
static void join_item(void *arg, int64_t index, int slot)
{
    const struct job *job = arg;
    const struct problem *d = job->d;
    const struct at_attn_grad *g = &d->g;
    const struct at_seq *q = &d->seq[index / g->a.ng];
    const struct at_simd *t = at_cpu_kernels(job->s);
    int64_t group = index % g->a.ng, width = g->a.dk + g->a.dv, step = g->a.ng * d->keys * width;
    (void)slot;
    for (int64_t j = 0; j < q->nk; j++) {
        int64_t key = q->kb * g->a.k.shape[2] + q->k0 + j, at = q->k0 + j;
        float *sum = d->copy + (group * d->keys + key) * width;
        for (int64_t c = 1; c < d->segments; c++)
            t->add(sum, sum, sum + c * step, width);
        if (g->dk.data)
            memcpy(at_view_at(&g->dk, q->kb * g->dk.stride[0] + group * g->dk.stride[1] +
                                          at * g->dk.stride[2]),
                   sum, (size_t)g->a.dk * sizeof *sum);
        if (g->dv.data)
            memcpy(at_view_at(&g->dv, q->kb * g->dv.stride[0] + group * g->dv.stride[1] +
                                          at * g->dv.stride[2]),
                   sum + g->a.dk, (size_t)g->a.dv * sizeof *sum);
    }
}

/* Rows of keys that are no sequence's. */
static void clear_rest(const struct problem *d, const struct at_view *v)
{
    const struct at_attn *a = &d->g.a;
    int64_t next = 0;
    bool packed = a->nseq > 0 && v->shape[0] == 1;
    for (int64_t n = 0; v->data && n < a->nseq; n++) {
        const struct at_seq *q = &a->seq[n];
        next = q->nk ? q->k0 + q->nk : next;
        if (packed && n + 1 < a->nseq)
            continue;
        for (int64_t g = 0; g < a->ng; g++)
            for (int64_t j = packed ? next : q->nk; j < v->shape[2]; j++)
                memset(at_view_at(v, q->kb * v->stride[0] + g * v->stride[1] + j * v->stride[2]), 0,
                       (size_t)v->shape[3] * sizeof(float));
    }
}

static void clear_bias(const struct at_view *v)
{
    for (int64_t r = 0; v->data && r < v->shape[0] * v->shape[1] * v->shape[2]; r++)
        for (int64_t j = 0; j < v->shape[3]; j++)
            ((float *)v->data)[r / v->shape[2] / v->shape[1] * v->stride[0] +
                               r / v->shape[2] % v->shape[1] * v->stride[1] +
                               r % v->shape[2] * v->stride[2] + j * v->stride[3]] = 0;
}

/* Several items add to one element of the bias's gradient: then they go one after the other. */
static bool shared_bias(const struct problem *d)
{
    const int64_t *n = d->g.dbias.shape;
    return d->g.dbias.data &&
           ((n[0] == 1 && d->g.a.nseq > 1) || (n[1] == 1 && d->g.a.ng > 1) || n[2] == 1);
}

static void give_heads(const struct job *job)
{
    const struct problem *d = job->d;
    const struct at_attn_grad *g = &d->g;
    for (int64_t h = 0; h < g->a.nh; h++) {
        double slope = 0, sink = 0;
        for (int64_t i = 0; i < d->nitem; i++)
            if (d->item[i].group == h / job->z.ratio)
                slope += d->slopes[i * job->z.ratio + h % job->z.ratio];
        if (g->dalibi.data)
            ((float *)g->dalibi.data)[h * g->dalibi.stride[0]] = (float)slope;
        for (int64_t n = 0; g->dsinks.data && n < g->a.nseq; n++)
            for (int64_t i = 0; i < d->seq[n].nq; i++) {
                const struct at_view *l = &g->a.lse, *e = &g->delta;
                int64_t b = d->seq[n].qb, q = d->seq[n].q0 + i;
                float lse = ((const float *)
                                 l->data)[b * l->stride[0] + h * l->stride[1] + q * l->stride[2]];
                float delta = ((const float *)
                                   e->data)[b * e->stride[0] + h * e->stride[1] + q * e->stride[2]];
                sink -= exp((double)g->a.sinks[h] - (double)lse) * (double)delta;
            }
        if (g->dsinks.data)
            ((float *)g->dsinks.data)[h * g->dsinks.stride[0]] = (float)sink;
    }
}

static void give_vector(const struct job *job)
{
    const struct problem *d = job->d;
    const struct at_view *v = &d->g.dadditive;
    for (int64_t c = 0; v->data && c < job->z.dk; c++) {
        double sum = 0;
        for (int64_t i = 0; i < d->nitem; i++)
            sum += d->additive[i * job->z.dk + c];
        ((float *)v->data)[c * v->stride[0]] = (float)(sum * (double)d->g.a.scale);
    }
}

static int run(struct attend_exec *x, const struct at_step *s)
{
    const struct problem *d = at_step_state(x, s);
    struct job job = {.x = x, .s = s, .d = d, .z = sizes(x->plan, s)};
    int status = 0;
    clear_rest(d, &d->g.dk);
    clear_rest(d, &d->g.dv);
    clear_bias(&d->g.dbias);
    if (!shared_bias(d))
        status = at_cpu_items(x, d->nitem, d->flops, run_item, &job);
    for (int64_t i = 0; shared_bias(d) && i < d->nitem; i++)
        run_item(&job, i, 0);
    if (status == 0 && d->segments > 1)
        status = at_cpu_items(x, d->g.a.nseq * d->g.a.ng, d->flops / 64, join_item, &job);
    if (status == 0 && (d->g.dalibi.data || d->g.dsinks.data))
        give_heads(&job);
    if (status == 0)
        give_vector(&job);
    return status;
}

const struct at_row at_cpu_attention_grad = {"flash", AT_ATTENTION_GRAD, accepts, prepare, bind,
                                             run};
