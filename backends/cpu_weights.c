/* SPDX-License-Identifier: MIT */
/* Attention weights on the CPU: scores as attention computes them (cpu_attn.c), exp(s - lse), and
 * what is kept of them before the next block of keys.  A work item is a panel of rows, a row of
 * cells, or, for sums over rows, a block of keys: each result is made by one of them, in one order.
 * Where no LSE is given, items that are panels first find reference and sum of each row.
 */
#include <math.h>
#include <string.h>

#include "cpu_attn.h"
#include "schedule.h"

/* What bind leaves for run, and the sequences after it. */
struct state {
    struct at_attn a;
    const struct at_schedule *blocks; /* what masks leave of blocks of keys; NULL: all */
    struct ends *ends;                /* of each row, as lse is, contiguous; NULL: lse is given */
};

/* How a row's weights come from its scores s: by e^(scale (s - m)). */
struct ends {
    float m, by;
};

/* One item at work. */
struct work {
    const struct at_simd *t;
    const struct state *d;
    const struct at_attn *a;
    const struct at_weights *p;
    const struct at_view *out, *index; /* (B, H, rows, keys) */
    const struct at_seq *seq;
    struct at_item item;
    struct at_lanes lanes;
    const struct at_programs *programs; /* of expressions; NULL: none */
    void *steps;                        /* their scratch */
    float lse[AT_MAX_LANES], m[AT_MAX_LANES], by[AT_MAX_LANES];
    float *q, *st, *k; /* scratch: packed queries, scores, keys that must be converted */
    float *end;        /* softmax_step's state of a panel */
    double *sum;       /* [heads of the group][keys of the block, or cells] */
    float *score;      /* TOPK: [lane][k], falling */
    int32_t *key;      /* of score */
    int64_t keys;      /* of the sequence */
    int64_t count[AT_MAX_LANES];
    float floor[AT_MAX_LANES]; /* the least score that still matters is above this */
};

static int64_t lane_lists(const struct at_simd *t, const struct at_weights *p)
{
    return p->mode == ATTEND_WEIGHTS_TOPK ? at_round_up(t->rows_per_panel * p->k, 16) : 0;
}

/* Doubles of w->sum. */
static int64_t sums(const struct at_simd *t, const struct at_weights *p, int64_t ratio)
{
    return p->mode == ATTEND_WEIGHTS_COLUMNS ? ratio * t->keys_per_block
           : p->mode == ATTEND_WEIGHTS_POOL  ? at_round_up(ratio * p->cols, 8)
                                             : 0;
}

static int prepare(attend_plan *plan, struct at_step *s, struct at_err *e)
{
    const struct at_simd *t = at_cpu_kernels(s);
    const struct at_tensor *q = &plan->graph->tensor[s->in[AT_IN_Q]],
                           *k = &plan->graph->tensor[s->in[AT_IN_K]];
    const struct at_weights *p = &s->p->attention.weights;
    int64_t dk = q->shape[q->rank - 1], rows = s->in[AT_IN_LSE] < 0 ? 1 : 0;
    int64_t floats = at_cpu_attn_q_floats(t, dk, s->in[AT_IN_ADDITIVE] >= 0) +
                     at_simd_block_floats(t) + at_simd_k_floats(t, dk) +
                     at_simd_state_floats(t, 0) + 2 * lane_lists(t, p);
    s->scratch = floats * (int64_t)sizeof(float) +
                 sums(t, p, q->shape[1] / k->shape[1]) * (int64_t)sizeof(double);
    for (int d = 0; d < q->rank - 1; d++)
        rows = at_mul_size(rows, at_plan_range(plan, s->rows, s->in[AT_IN_Q], d).max);
    rows = at_mul_size(rows, (int64_t)sizeof(struct ends));
    if (rows < 0)
        return at_fail(e, ATTEND_ELIMIT, "weights of too many rows");
    s->state = (int64_t)sizeof(struct state) +
               at_attn_max_seqs(plan, s) * (int64_t)sizeof(struct at_seq) + rows;
    return at_cpu_attn_programs(plan, s, e);
}

static bool accepts(const attend_plan *plan, const struct at_step *s, struct at_why *why)
{
    bool rows = at_cpu_has_rows(plan, s->in[AT_IN_Q]) && at_cpu_has_rows(plan, s->in[AT_IN_K]),
         results = true;
    for (int k = 0; k < s->nout; k++)
        results = results && at_cpu_has_rows(plan, s->out[k]);
    return at_need(why, rows, "a head's channels are not next to each other in memory") &&
           at_need(why, results, "a row of weights is not together in memory");
}

static int bind(struct attend_exec *x, const struct at_step *s)
{
    struct state *d = at_step_state(x, s);
    struct at_seq *seq = (struct at_seq *)(d + 1);
    int status = at_attn_resolve(x, s, &d->a, seq);
    d->ends = d->a.lse.data ? NULL : (struct ends *)(seq + at_attn_max_seqs(x->plan, s));
    return status < 0 ? status : at_attn_blocks(x, s, &d->a, &d->blocks);
}

/* ---- scores ---- */

static struct ends *ends_of(const struct work *w, int r)
{
    const struct at_attn *a = w->a;
    return w->d->ends + (w->seq->qb * a->nh + w->lanes.h[r]) * a->q.shape[2] + w->seq->q0 +
           w->lanes.i[r];
}

static float given_lse(const struct work *w, int r)
{
    const struct at_view *v = &w->a->lse;
    return *(const float *)at_view_at(v, w->seq->qb * v->stride[0] + w->lanes.h[r] * v->stride[1] +
                                             (w->seq->q0 + w->lanes.i[r]) * v->stride[2]);
}

/* Packed rows [first, first + n) of the item's group become the panel. */
static void take_panel(struct work *w, int64_t first, int n)
{
    const struct at_attn *a = w->a;
    int room = w->t->rows_per_panel;
    w->lanes.stride = room;
    at_cpu_attn_lanes(&w->lanes, a, &a->seq[w->item.seq], w->item.group, first, n, room);
    w->lanes.programs = w->programs;
    w->lanes.steps = w->steps;
    at_cpu_attn_pack_q(w->t, a, &w->lanes, w->q);
    for (int r = 0; r < room; r++) {
        w->lse[r] = w->floor[r] = INFINITY; /* lanes without a row: weights are 0 */
        w->m[r] = w->by[r] = 0;
        if (r < n && w->d->ends) {
            w->m[r] = ends_of(w, r)->m;
            w->by[r] = ends_of(w, r)->by;
        } else if (r < n) {
            w->lse[r] = given_lse(w, r);
        }
    }
}

/* Do masks hide keys [from, to) from all rows of the panel? */
static bool hidden(const struct work *w, int64_t from, int64_t to)
{
    const struct at_lanes *l = &w->lanes;
    int64_t ratio = at_cpu_attn_ratio(w->a), h = w->item.group * ratio;
    return w->d->blocks && at_schedule_cover(w->d->blocks, w->item.seq, h, h + ratio, l->i[0],
                                             l->i[l->n - 1] + 1, from, to) == AT_COVER_EMPTY;
}

/* fn for each block of keys that the panel sees any of in [begin, end): scores of keys [from, to),
 * those of key j0 at w->st. */
static void each_block(struct work *w, int64_t begin, int64_t end,
                       void (*fn)(struct work *w, int64_t j0, int64_t from, int64_t to))
{
    const struct at_lanes *l = &w->lanes;
    struct at_keys r =
        at_key_range(&w->a->visible, &w->a->seq[w->item.seq], l->i[0], l->i[l->n - 1] + 1);
    int64_t first = at_max(r.first, begin), last = at_min(r.end, end), size = w->t->keys_per_block;
    for (int64_t j0 = first / size * size; j0 < last && first < last; j0 += size) {
        int64_t from = at_max(j0, first), to = at_min(j0 + size, last);
        if (hidden(w, from, to))
            continue;
        struct at_rows k = at_cpu_attn_keys(w->t, w->a, &w->item, j0, from, to, w->k);
        at_cpu_attn_scores(w->t, w->a, &w->item, l, w->q, &k, w->st, j0, from, to,
                           AT_COVER_PARTIAL);
        fn(w, j0, from, to);
    }
}

static void to_weights(const struct work *w, int64_t j0, int64_t from, int64_t to)
{
    if (w->d->ends)
        w->t->shares(w->st, from - j0, to - from, w->m, w->by, at_cpu_attn_scale(w->a));
    else
        w->t->weights(w->st, from - j0, to - from, w->lse, at_cpu_attn_scale(w->a));
}

/* Row i of head h in the result, of which rows of q begin at q0. */
static char *result_row(const struct work *w, const struct at_view *v, int64_t h, int64_t i)
{
    return at_view_at(v, w->item.seq * v->stride[0] + h * v->stride[1] + i * v->stride[2]);
}

/* ---- reference and sum of each row ---- */

static void add_block(struct work *w, int64_t j0, int64_t from, int64_t to)
{
    w->t->softmax_step(w->st + (from - j0) * w->lanes.stride, 0, to - from, w->end, 0,
                       at_cpu_attn_scale(w->a));
}

static void find_ends(struct work *w)
{
    int64_t stride = w->t->rows_per_panel;
    double scale = (double)at_cpu_attn_scale(w->a);
    take_panel(w, w->item.first, (int)w->item.count);
    memset(w->end, 0, 2 * (size_t)stride * sizeof *w->end);
    each_block(w, 0, w->keys, add_block);
    for (int r = 0; r < w->lanes.n; r++) {
        double m = (double)w->end[r], l = (double)w->end[stride + r];
        if (w->a->sinks)
            l += exp((double)w->lanes.sink[r] - scale * m);
        *ends_of(w, r) = (struct ends){(float)m, l > 0 ? (float)(1 / l) : 0};
    }
}

/* ---- dense, rows ---- */

static float *dense_row(const struct work *w, int r)
{
    int64_t i = w->seq->q0 + w->lanes.i[r] - w->p->first;
    return (float *)(void *)result_row(w, w->out, w->lanes.h[r], i);
}

static void put_dense(struct work *w, int64_t j0, int64_t from, int64_t to)
{
    to_weights(w, j0, from, to);
    for (int r = 0; r < w->lanes.n; r++) {
        float *row = dense_row(w, r) + w->seq->k0;
        for (int64_t j = from; j < to; j++)
            row[j] = w->st[(j - j0) * w->lanes.stride + r];
    }
}

static void dense(struct work *w)
{
    take_panel(w, w->item.first, (int)w->item.count);
    for (int r = 0; r < w->lanes.n; r++)
        memset(dense_row(w, r), 0, (size_t)w->out->shape[3] * sizeof(float));
    each_block(w, 0, w->keys, put_dense);
}

/* ---- the largest of each row ---- */

static void insert(struct work *w, int r, float score, int64_t j)
{
    float *s = w->score + r * w->p->k;
    int32_t *key = w->key + r * w->p->k;
    int64_t at = w->count[r] < w->p->k ? w->count[r]++ : w->p->k - 1;
    for (; at > 0 && score > s[at - 1]; at--) {
        s[at] = s[at - 1];
        key[at] = key[at - 1];
    }
    s[at] = score;
    key[at] = (int32_t)j;
    if (w->count[r] == w->p->k)
        w->floor[r] = s[w->p->k - 1];
}

static void keep_top(struct work *w, int64_t j0, int64_t from, int64_t to)
{
    int64_t j = from - j0, end = to - j0;
    while ((j = w->t->next_above(w->st, j, end, w->floor)) < end) {
        const float *s = w->st + j * w->lanes.stride;
        for (int r = 0; r < w->lanes.n; r++)
            if (s[r] > w->floor[r])
                insert(w, r, s[r], j0 + j);
        j++;
    }
}

static void top(struct work *w)
{
    take_panel(w, w->item.first, (int)w->item.count);
    for (int r = 0; r < w->lanes.n; r++) {
        w->floor[r] = -INFINITY;
        w->count[r] = 0;
    }
    each_block(w, 0, w->keys, keep_top);
    double scale = (double)at_cpu_attn_scale(w->a);
    for (int r = 0; r < w->lanes.n; r++) {
        int64_t i = w->seq->q0 + w->lanes.i[r];
        float *value = (void *)result_row(w, w->out, w->lanes.h[r], i);
        int32_t *index = w->index->data ? (void *)result_row(w, w->index, w->lanes.h[r], i) : NULL;
        for (int64_t e = 0; e < w->p->k; e++) {
            bool some = e < w->count[r];
            double s = some ? (double)w->score[r * w->p->k + e] : 0;
            value[e] = !some        ? 0
                       : w->d->ends ? (float)(exp(scale * (s - (double)w->m[r])) * (double)w->by[r])
                                    : (float)exp(scale * s - (double)w->lse[r]);
            if (index)
                index[e] = some ? (int32_t)w->seq->k0 + w->key[r * w->p->k + e] : -1;
        }
    }
}

/* ---- sums over rows ---- */

/* The place of lane r among the heads of its group. */
static int64_t head_of(const struct work *w, int r)
{
    return w->lanes.h[r] - (int64_t)w->item.group * at_cpu_attn_ratio(w->a);
}

/* All packed rows [first, end) of the group, a panel at a time. */
static void each_panel(struct work *w, int64_t first, int64_t end, int64_t j0, int64_t j1,
                       void (*fn)(struct work *w, int64_t j0, int64_t from, int64_t to))
{
    for (; first < end; first += w->t->rows_per_panel) {
        take_panel(w, first, (int)at_min(w->t->rows_per_panel, end - first));
        each_block(w, j0, j1, fn);
    }
}

static void add_columns(struct work *w, int64_t j0, int64_t from, int64_t to)
{
    to_weights(w, j0, from, to);
    for (int r = 0; r < w->lanes.n; r++) {
        double *sum = w->sum + head_of(w, r) * w->t->keys_per_block;
        for (int64_t j = from - j0; j < to - j0; j++)
            sum[j] += (double)w->st[j * w->lanes.stride + r];
    }
}

/* The item is a block of keys. */
static void columns(struct work *w)
{
    int64_t ratio = at_cpu_attn_ratio(w->a), j0 = w->item.first, size = w->t->keys_per_block;
    memset(w->sum, 0, (size_t)(ratio * size) * sizeof *w->sum);
    each_panel(w, 0, w->seq->nq * ratio, j0, j0 + w->item.count, add_columns);
    for (int64_t e = 0; e < ratio; e++) {
        float *row =
            (float *)(void *)result_row(w, w->out, w->item.group * ratio + e, 0) + w->seq->k0;
        for (int64_t j = 0; j < w->item.count; j++)
            row[j0 + j] = (float)w->sum[e * size + j];
    }
}

static void add_cells(struct work *w, int64_t j0, int64_t from, int64_t to)
{
    float sum[AT_MAX_LANES];
    int64_t keys = w->keys, cols = w->p->cols, end;
    to_weights(w, j0, from, to);
    for (int64_t j = from, c = at_weights_cell(j, keys, cols); j < to; j = end, c++) {
        end = at_min(to, at_weights_edge(c + 1, keys, cols));
        memset(sum, 0, sizeof sum);
        for (int64_t e = j; e < end; e++)
            for (int r = 0; r < w->lanes.n; r++)
                sum[r] += w->st[(e - j0) * w->lanes.stride + r];
        for (int r = 0; r < w->lanes.n; r++)
            w->sum[head_of(w, r) * cols + c] += (double)sum[r];
    }
}

/* The item is a row of cells. */
static void cells(struct work *w)
{
    int64_t ratio = at_cpu_attn_ratio(w->a), nq = w->seq->nq, cols = w->p->cols;
    int64_t i0 = at_weights_edge(w->item.first, nq, w->p->rows),
            i1 = at_weights_edge(w->item.first + 1, nq, w->p->rows);
    memset(w->sum, 0, (size_t)(ratio * cols) * sizeof *w->sum);
    each_panel(w, i0 * ratio, i1 * ratio, 0, w->keys, add_cells);
    for (int64_t e = 0; e < ratio; e++) {
        float *row = (void *)result_row(w, w->out, w->item.group * ratio + e, w->item.first);
        for (int64_t c = 0; c < cols; c++)
            row[c] = i1 > i0 ? (float)(w->sum[e * cols + c] / (double)(i1 - i0)) : 0;
    }
}

/* ---- run ---- */

struct job {
    struct attend_exec *x;
    const struct at_step *s;
    struct at_weights p; /* first and end are those of all rows, unless some are chosen */
    struct at_view out, index;
    int64_t each; /* the most items that a group of a sequence has */
    bool ends;    /* items are panels of rows whose ends are sought */
};

static bool sums_rows(const struct job *job)
{
    return !job->ends &&
           (job->p.mode == ATTEND_WEIGHTS_COLUMNS || job->p.mode == ATTEND_WEIGHTS_POOL);
}

/* The items of a group of sequence n: [*first, *end) in steps. */
static int64_t items(const struct job *job, int64_t n, int64_t *first, int64_t *end)
{
    const struct state *d = at_step_state(job->x, job->s);
    const struct at_simd *t = at_cpu_kernels(job->s);
    const struct at_seq *q = &d->a.seq[n];
    int64_t ratio = at_cpu_attn_ratio(&d->a);
    *first = at_max(0, job->p.first - q->q0) * ratio;
    *end = at_max(*first, at_min(q->nq, job->p.end - q->q0) * ratio);
    if (!sums_rows(job))
        return t->rows_per_panel;
    *first = 0;
    *end = job->p.mode == ATTEND_WEIGHTS_COLUMNS ? at_weights_keys(&d->a, n) : job->p.rows;
    return job->p.mode == ATTEND_WEIGHTS_COLUMNS ? t->keys_per_block : 1;
}

/* Scratch, in the order of prepare. */
static void take_scratch(struct work *w, const struct job *job, int slot)
{
    w->steps = at_slot_scratch(job->x, slot);
    w->programs = job->s->packed;
    w->sum = (double *)((char *)w->steps + (w->programs ? w->programs->scratch : 0));
    w->q = (float *)(w->sum + sums(w->t, &job->p, at_cpu_attn_ratio(w->a)));
    w->st = w->q + at_cpu_attn_q_floats(w->t, w->a->dk, w->a->additive);
    w->k = w->st + at_simd_block_floats(w->t);
    w->end = w->k + at_simd_k_floats(w->t, w->a->dk);
    w->score = w->end + at_simd_state_floats(w->t, 0);
    w->key = (int32_t *)(w->score + lane_lists(w->t, &job->p));
}

static void run_item(void *arg, int64_t index, int slot)
{
    const struct job *job = arg;
    const struct state *d = at_step_state(job->x, job->s);
    int64_t pair = index / job->each, n = pair / d->a.ng, first, end,
            size = items(job, n, &first, &end);
    first += index % job->each * size;
    if (first >= end)
        return;
    struct work w = {
        .t = at_cpu_kernels(job->s),
        .d = d,
        .a = &d->a,
        .p = &job->p,
        .out = &job->out,
        .index = &job->index,
        .seq = &d->a.seq[n],
        .item = {(int32_t)n, (int32_t)(pair % d->a.ng), first, at_min(size, end - first)},
        .keys = at_weights_keys(&d->a, n)
    };
    take_scratch(&w, job, slot);
    if (job->ends) {
        find_ends(&w);
        return;
    }
    switch (job->p.mode) {
    case ATTEND_WEIGHTS_COLUMNS:
        columns(&w);
        break;
    case ATTEND_WEIGHTS_POOL:
        cells(&w);
        break;
    case ATTEND_WEIGHTS_TOPK:
        top(&w);
        break;
    default:
        dense(&w);
    }
}

static int run_items(struct job *job, int64_t sequences)
{
    const struct state *d = at_step_state(job->x, job->s);
    int64_t first, end, size;
    double pairs = 0;
    job->each = 0;
    for (int64_t n = 0; n < sequences; n++) {
        size = items(job, n, &first, &end);
        job->each = at_max(job->each, at_ceil_div(end - first, size));
        pairs += (double)d->a.seq[n].nq * (double)d->a.seq[n].nk;
    }
    return at_cpu_items(job->x, sequences * d->a.ng * job->each,
                        2 * pairs * (double)(d->a.nh * d->a.dk), run_item, job);
}

static int run(struct attend_exec *x, const struct at_step *s)
{
    const struct state *d = at_step_state(x, s);
    struct job job = {.x = x,
                      .s = s,
                      .p = s->p->attention.weights,
                      .out = at_weights_view(x, s, 0),
                      .index = at_weights_view(x, s, 1),
                      .ends = d->ends != NULL};
    int64_t sequences = at_weights_begin(&d->a, &job.p, &job.out);
    int status = job.ends ? run_items(&job, sequences) : 0;
    job.ends = false;
    return status < 0 ? status : run_items(&job, sequences);
}

const struct at_row at_cpu_weights = {"weights", AT_WEIGHTS, accepts, prepare, bind, run};
