/* SPDX-License-Identifier: MIT */
/* Attention on the CPU: which rows and keys a work item has, and the steps of the recurrence in
 * order.  The arithmetic is the block functions' (simd.h).
 *
 * Rows of one KV group are packed: packed row r is query row r / R of head g R + r % R, R = H / G,
 * so a key that was read serves the whole group and causal edges stay tight.  A sequence with few
 * packed rows takes the dots shape, its keys split into chunks that are merged in order; the others
 * take panels.  Blocks of keys begin at multiples of the block size counted from key 0, and chunks
 * at multiples of a length that the plan fixes, so no result depends on threads or on other
 * sequences.
 *
 * Where the plan is deterministic no row depends on the rows beside it either: an item is one query
 * row with the heads of its group, in the dots shape, and goes through its chunks in order. */
#include <math.h>
#include <string.h>

#include "cpu_attn.h"
#include "half.h"
#include "schedule.h"

#define MAX_PANELS 32  /* of one work item */
#define MAX_CHUNKS 64  /* of the keys of one sequence */
#define MIN_CHUNK 1024 /* keys */
#define KEYS_AHEAD 24  /* that a panel brings into the cache */
#define TANH 8         /* multiply-adds that an additive score's tanh is worth */

/* What bind leaves for run, in the exec; the arrays follow it. */
struct schedule {
    struct at_attn a;
    struct at_seq *seq;
    struct at_item *item; /* panels and chunks, the heaviest first */
    struct at_item *join; /* one for each (dots sequence, group): its chunks are merged */
    float *partial;       /* states of chunks, in the order of `join` */
    int64_t nitem, njoin, chunk, panels, nseq;
    double flops;
    bool valid, alone;                  /* alone: deterministic, an item is a query row */
    const struct at_schedule *blocks;   /* what masks leave of blocks of keys; NULL: all */
    const struct at_programs *programs; /* of the expressions; NULL: none */
    int64_t *key; /* of nseq sequences: packed rows and chunks that the items were made for */
};

/* ---- sizes, from the ranges of the variant ---- */

struct extent {
    int64_t seqs, rows, keys, groups, ratio, dk, dv;
    bool packed_rows, packed_keys;
};

static struct extent extents(const attend_plan *plan, const struct at_step *s)
{
    const attend_graph *g = plan->graph;
    const struct at_tensor *q = &g->tensor[s->in[AT_IN_Q]], *k = &g->tensor[s->in[AT_IN_K]];
    int head = 1;
    struct extent e = {
        .seqs = at_attn_max_seqs(plan, s),
        .rows = at_plan_range(plan, s->rows, s->in[AT_IN_Q], q->rank == 3 ? 0 : 2).max,
        .keys = at_plan_range(plan, s->rows, s->in[AT_IN_K], k->rank == 3 ? 0 : 2).max,
        .groups = k->shape[head],
        .ratio = q->shape[head] / k->shape[head],
        .dk = q->shape[q->rank - 1],
        .dv = s->in[AT_IN_V] < 0 ? 0 : g->tensor[s->in[AT_IN_V]].shape[k->rank - 1],
        .packed_rows = q->rank == 3,
        .packed_keys = k->rank == 3};
    if (s->in[AT_IN_TABLE] >= 0) /* k is a pool of pages */
        e.keys *= at_plan_range(plan, s->rows, s->in[AT_IN_TABLE], 1).max;
    return e;
}

static int64_t chunk_length(const struct at_simd *t, int64_t keys)
{
    return at_round_up(at_max(MIN_CHUNK, at_ceil_div(keys, MAX_CHUNKS)), t->dots_keys);
}

static int64_t partial_floats(const struct at_simd *t, const struct extent *e)
{
    return at_simd_dots_state_floats(t->dots_rows, e->dv);
}

/* Sequences times the most chunks that one has; packed keys are shared out, so each sequence adds
 * at most one chunk that is not full. */
static int64_t most_chunks(const struct extent *e, const struct at_simd *t)
{
    int64_t chunks = at_max(1, at_ceil_div(e->keys, chunk_length(t, e->keys)));
    return e->packed_keys ? chunks + e->seqs : chunks * e->seqs;
}

/* Of rows alone: so many heads of a group go together. */
static int64_t parts_of_group(const struct at_simd *t, int64_t ratio)
{
    return at_ceil_div(ratio, t->dots_rows);
}

static int64_t most_panels(const struct extent *e, const struct at_simd *t)
{
    int64_t panels = at_ceil_div(e->rows * e->ratio, t->rows_per_panel);
    return e->packed_rows ? panels + e->seqs : panels * e->seqs;
}

/* Items, for each KV group. */
static int64_t most_items(const attend_plan *plan, const struct extent *e, const struct at_simd *t)
{
    int64_t rows = e->rows * (e->packed_rows ? 1 : e->seqs) * parts_of_group(t, e->ratio);
    return at_max(1, plan->deterministic ? rows : most_chunks(e, t) + most_panels(e, t));
}

static int compile(const struct at_expr *x, const struct at_expr_box *box,
                   struct at_expr_program *p, struct at_err *e)
{
    char err[160];
    p->n = 0;
    p->scratch = 0;
    int status = x ? at_expr_compile(x, box, p, err, sizeof err) : 0;
    return status < 0 ? at_fail(e, status, "attention: %s", err) : 0;
}

/* The expressions as programs, for wherever the variables of a run can be. */
int at_cpu_attn_programs(attend_plan *plan, struct at_step *s, struct at_err *e)
{
    const struct at_attention *a = &s->p->attention;
    struct extent x = extents(plan, s);
    if (!a->score && !a->mask)
        return 0;
    struct at_programs *p = at_plan_pack(plan, sizeof *p);
    if (!p)
        return at_fail(e, ATTEND_ENOMEM, "no memory for the expressions of attention");
    const struct at_expr_box box = {
        .b = {0, x.seqs            },
        .h = {0, x.groups * x.ratio},
        .i = {0, x.rows            },
        .j = {0, x.keys            },
        .sq = {0, x.rows            },
        .skv = {0, x.keys            }
    };
    int status = compile(a->score, &box, &p->score, e);
    if (status == 0)
        status = compile(a->mask, &box, &p->mask, e);
    p->scratch = at_round_up(at_max(p->score.scratch, p->mask.scratch), AT_ALIGN);
    s->packed = p;
    s->scratch += p->scratch;
    return status;
}

static int prepare(attend_plan *plan, struct at_step *s, struct at_err *e)
{
    const struct at_simd *t = at_cpu_kernels(s);
    struct extent x = extents(plan, s);
    int64_t wide = at_max(x.dk, x.dv);
    int64_t q = at_cpu_attn_q_floats(t, x.dk, s->in[AT_IN_ADDITIVE] >= 0);
    int64_t panel = MAX_PANELS * (q + at_simd_state_floats(t, x.dv)) + at_simd_block_floats(t) +
                    at_simd_v_floats(t, x.dv) + at_simd_k_floats(t, wide);
    int64_t dots = at_simd_dots_q_floats(t->dots_rows, x.dk) +
                   at_simd_dots_block_floats(t, t->dots_rows) + 2 * partial_floats(t, &x) +
                   at_round_up(t->dots_keys * wide, 16);
    bool many = x.seqs > INT32_MAX;
    bool whole = x.keys <= chunk_length(t, x.keys); /* no sequence is cut: nothing is merged */
    int64_t chunks = many || whole || plan->deterministic ? 0 : most_chunks(&x, t);
    s->scratch = at_max(panel, dots) * (int64_t)sizeof(float);
    int64_t items = at_mul_size(many ? 0 : most_items(plan, &x, t), x.groups);
    int64_t partial =
        at_mul_size(at_mul_size(chunks, x.groups), partial_floats(t, &x) * (int64_t)sizeof(float));
    if (many || items < 0 || partial < 0 || items > INT32_MAX)
        return at_fail(e, ATTEND_ELIMIT, "attention over %lld sequences of %lld rows and %lld keys",
                       (long long)x.seqs, (long long)x.rows, (long long)x.keys);
    s->state = at_round_up(sizeof(struct schedule), AT_ALIGN) +
               at_round_up(x.seqs * (int64_t)sizeof(struct at_seq), AT_ALIGN) +
               at_round_up(x.seqs * 2 * (int64_t)sizeof(int64_t), AT_ALIGN) +
               at_round_up(items * (int64_t)sizeof(struct at_item), AT_ALIGN) +
               at_round_up(x.seqs * x.groups * (int64_t)sizeof(struct at_item), AT_ALIGN) + partial;
    return at_cpu_attn_programs(plan, s, e);
}

static bool accepts(const attend_plan *plan, const struct at_step *s, struct at_why *why)
{
    const attend_graph *g = plan->graph;
    bool rows = at_cpu_has_rows(plan, s->out[0]);
    for (int k = AT_IN_Q; k <= AT_IN_V; k++)
        rows = rows && at_cpu_has_rows(plan, s->in[k]);
    return at_need(why, rows, "a head's channels are not next to each other in memory") &&
           at_need(why, g->tensor[s->out[0]].type == ATTEND_F32, "the result is not f32") &&
           at_need(why, !plan->deterministic || s->in[AT_IN_ADDITIVE] < 0,
                   "deterministic: additive scores are computed in panels, whose rows share "
                   "references");
}

/* ---- bind: the list of work ---- */

static void *carve(char **p, int64_t bytes)
{
    void *here = *p;
    *p += at_round_up(bytes, AT_ALIGN);
    return here;
}

/* Where the arrays lie: the same every time, so a schedule survives from bind to bind. */
static struct schedule *lay_out(const struct attend_exec *x, const struct at_step *s)
{
    struct extent e = extents(x->plan, s);
    const struct at_simd *t = at_cpu_kernels(s);
    int64_t items = most_items(x->plan, &e, t) * e.groups;
    char *p = at_step_state(x, s);
    struct schedule *d = carve(&p, sizeof *d);
    d->seq = carve(&p, e.seqs * (int64_t)sizeof *d->seq);
    d->key = carve(&p, e.seqs * 2 * (int64_t)sizeof *d->key);
    d->item = carve(&p, items * (int64_t)sizeof *d->item);
    d->join = carve(&p, e.seqs * e.groups * (int64_t)sizeof *d->join);
    d->partial = (float *)p;
    d->chunk = chunk_length(t, e.keys);
    d->alone = x->plan->deterministic;
    return d;
}

static bool takes_dots(const struct at_simd *t, const struct at_attn *a, const struct at_seq *q)
{
    return !a->additive && q->nq * at_cpu_attn_ratio(a) <= t->dots_rows;
}

/* Chunks up to the last key that a row of the sequence can see, counted from key 0. */
static int64_t chunks_of(const struct schedule *d, const struct at_seq *q)
{
    struct at_keys k = at_key_range(&d->a.visible, q, 0, q->nq);
    return at_max(1, at_ceil_div(k.end, d->chunk));
}

/* Does the list fit the sequences still?  If not, remembers what it will be made for. */
static bool still_valid(struct schedule *d, const struct at_simd *t)
{
    bool same = d->valid && d->nseq == d->a.nseq;
    d->nseq = d->a.nseq;
    for (int64_t n = 0; n < d->a.nseq; n++) {
        const struct at_seq *q = &d->seq[n];
        int64_t rows = q->nq, chunks = takes_dots(t, &d->a, q) ? chunks_of(d, q) : 0;
        same = same && d->key[2 * n] == rows && d->key[2 * n + 1] == chunks;
        d->key[2 * n] = rows;
        d->key[2 * n + 1] = chunks;
    }
    return same;
}

/* So many panels in an item that threads have a few items each, yet packing is shared. */
static int64_t panels_per_item(const struct schedule *d, const struct at_simd *t, int threads)
{
    int64_t panels = 0;
    for (int64_t n = 0; n < d->a.nseq; n++)
        if (!takes_dots(t, &d->a, &d->seq[n]))
            panels +=
                at_ceil_div(d->seq[n].nq * at_cpu_attn_ratio(&d->a), t->rows_per_panel) * d->a.ng;
    return at_min(MAX_PANELS, at_max(4, panels / (4 * threads)));
}

static void list_chunks(struct schedule *d, const struct at_simd *t)
{
    for (int64_t n = 0; n < d->a.nseq; n++) {
        if (!takes_dots(t, &d->a, &d->seq[n]) || d->seq[n].nq == 0)
            continue;
        int64_t chunks = d->key[2 * n + 1];
        for (int64_t g = 0; g < d->a.ng; g++) {
            d->join[d->njoin++] = (struct at_item){(int32_t)n, (int32_t)g, d->nitem, chunks};
            for (int64_t c = 0; c < chunks; c++)
                d->item[d->nitem++] = (struct at_item){(int32_t)n, (int32_t)g, c, chunks};
        }
    }
}

/* Late rows see the most keys under causality, so they come first; the first rows, last in the
 * list, are cut smaller where threads wait for each other at the end. */
static void list_panels(struct schedule *d, const struct at_simd *t, int threads)
{
    int64_t rows = d->panels * t->rows_per_panel, blocks = 0;
    int64_t few = threads > 1 ? at_ceil_div(d->panels, 4) * t->rows_per_panel : rows;
    for (int64_t n = 0; n < d->a.nseq; n++)
        blocks = at_max(blocks, at_ceil_div(d->seq[n].nq * at_cpu_attn_ratio(&d->a), rows));
    for (int64_t i = blocks - 1; i >= 0; i--)
        for (int64_t n = 0; n < d->a.nseq; n++) {
            int64_t all = d->seq[n].nq * at_cpu_attn_ratio(&d->a),
                    end = at_min(all, (i + 1) * rows), step = i > 0 || blocks == 1 ? rows : few;
            if (takes_dots(t, &d->a, &d->seq[n]))
                continue;
            for (int64_t g = 0; g < d->a.ng; g++)
                for (int64_t r = i * rows; r < end; r += step)
                    d->item[d->nitem++] =
                        (struct at_item){(int32_t)n, (int32_t)g, r, at_min(step, end - r)};
        }
}

/* Late rows first, as above; an item's first and count are packed rows. */
static void list_rows(struct schedule *d, const struct at_simd *t)
{
    int64_t ratio = at_cpu_attn_ratio(&d->a), most = 0;
    for (int64_t n = 0; n < d->a.nseq; n++)
        most = at_max(most, d->seq[n].nq);
    for (int64_t i = most - 1; i >= 0; i--)
        for (int64_t n = 0; n < d->a.nseq; n++)
            for (int64_t g = 0; g < d->a.ng && i < d->seq[n].nq; g++)
                for (int64_t h = 0; h < ratio; h += t->dots_rows)
                    d->item[d->nitem++] = (struct at_item){(int32_t)n, (int32_t)g, i * ratio + h,
                                                           at_min(t->dots_rows, ratio - h)};
}

static double work(const struct at_attn *a)
{
    double pairs = 0;
    for (int64_t n = 0; n < a->nseq; n++) {
        struct at_keys k = at_key_range(&a->visible, &a->seq[n], 0, a->seq[n].nq);
        pairs += (double)a->seq[n].nq * (double)(k.end - k.first);
    }
    double products = (double)(a->dv + a->dk * (a->additive ? TANH : 1));
    return 2 * pairs * (double)a->nh * products;
}

static int bind(struct attend_exec *x, const struct at_step *s)
{
    const struct at_simd *t = at_cpu_kernels(s);
    struct schedule *d = lay_out(x, s);
    int status = at_attn_resolve(x, s, &d->a, d->seq);
    d->programs = s->packed;
    if (status == 0)
        status = at_attn_blocks(x, s, &d->a, &d->blocks);
    if (status < 0) {
        d->valid = false;
        return status;
    }
    d->flops = work(&d->a);
    if (still_valid(d, t))
        return 0;
    x->schedules++;
    d->nitem = d->njoin = 0;
    d->panels = panels_per_item(d, t, x->ctx->exec.slots);
    if (d->alone) {
        list_rows(d, t);
    } else {
        list_chunks(d, t); /* first, so that an item's place is its partial's */
        list_panels(d, t, x->ctx->exec.slots);
    }
    d->valid = true;
    return 0;
}

/* ---- what a packed row is ---- */

/* What two neighbouring elements of axes 1 and 2 are apart, in bytes, and where entry b begins. */
struct row_place {
    char *base;
    int64_t head, row;
};

static struct row_place places(const struct at_view *v, const struct at_seq *q)
{
    int64_t size = (int64_t)attend_type_size(v->type);
    struct row_place p = {.head = v->stride[1] * size, .row = v->stride[2] * size};
    if (v->data)
        p.base = (char *)v->data + q->qb * v->stride[0] * size + q->q0 * p.row;
    return p;
}

static void clear_lanes(struct at_lanes *l, int from, int room)
{
    for (int r = from; r < room; r++) {
        l->q[r] = NULL;
        l->o[r] = NULL;
        l->sink[r] = -INFINITY;
        l->i[r] = l->h[r] = l->low[r] = l->high[r] = 0;
    }
}

/* This is most of what a call on few rows and keys costs beside its arithmetic: what all lanes have
 * in common is worked out once. */
void at_cpu_attn_lanes(struct at_lanes *l, const struct at_attn *a, const struct at_seq *q,
                       int64_t g, int64_t first, int n, int room)
{
    int64_t ratio = at_cpu_attn_ratio(a), i = first / ratio, h = g * ratio + first % ratio;
    struct at_keys k = at_key_range(&a->visible, q, i, (first + n - 1) / ratio + 1);
    bool alike = k.full_first == k.first && k.full_end == k.end; /* all rows see the same */
    struct row_place from = places(&a->q, q), to = places(&a->o, q);
    l->n = n;
    l->programs = NULL;
    l->steps = NULL;
    for (int r = 0; r < n; r++) {
        if (!alike)
            k = at_key_range(&a->visible, q, i, i + 1);
        l->i[r] = i;
        l->h[r] = h;
        l->low[r] = k.first;
        l->high[r] = k.end;
        l->q[r] = from.base + h * from.head + i * from.row;
        l->o[r] = to.base ? to.base + h * to.head + i * to.row : NULL;
        l->sink[r] = a->sinks ? a->sinks[h] : -INFINITY;
        if (++h == (g + 1) * ratio) {
            h -= ratio;
            i++;
        }
    }
    clear_lanes(l, n, room);
}

static void store_lse(const struct at_lanes *l, const struct at_attn *a, const struct at_seq *q,
                      const float *lse)
{
    for (int r = 0; r < l->n; r++)
        *(float *)at_view_at(&a->lse, q->qb * a->lse.stride[0] + l->h[r] * a->lse.stride[1] +
                                          (q->q0 + l->i[r]) * a->lse.stride[2]) = lse[r];
}

/* Keys of group g from j0 on, at most up to j1, as rows for the block functions: as many as follow
 * each other in memory, all of them unless they are paged. */
static struct at_rows key_rows(const struct at_attn *a, const struct at_view *v,
                               const struct at_item *w, int64_t j0, int64_t j1)
{
    struct at_rows rows = {
        .stride = v->stride[2], .width = v->shape[3], .type = (enum at_elem)at_cpu_elem(v->type)};
    int64_t entry, row;
    if (j0 >= j1)
        return rows;
    rows.n = at_min(j1 - j0, at_key_place(a, &a->seq[w->seq], j0, &entry, &row));
    rows.base = at_view_at(v, entry * v->stride[0] + w->group * v->stride[1] + row * v->stride[2]);
    return rows;
}

/* The same, where the block functions know the type; f8 values are first made f32, in stage. */
static struct at_rows fetch(const struct at_attn *a, const struct at_view *v,
                            const struct at_item *w, int64_t j0, int64_t j1, float *stage)
{
    struct at_rows rows = key_rows(a, v, w, j0, j1);
    int64_t entry, row;
    if (v->type != ATTEND_F8 || rows.n == 0)
        return rows;
    at_key_place(a, &a->seq[w->seq], j0, &entry, &row);
    float by = at_attn_scale(v == &a->k ? &a->k_scale : &a->v_scale, entry, w->group);
    for (int64_t j = 0; j < rows.n; j++) {
        const uint8_t *from = (const uint8_t *)rows.base + j * rows.stride;
        for (int64_t d = 0; d < rows.width; d++)
            stage[j * rows.width + d] = at_e4m3_to_float(from[d]) * by;
    }
    return (struct at_rows){stage, rows.width, rows.n, rows.width, AT_ELEM_F32};
}

/* ---- what is done to scores between `scores` and `softmax_step` ---- */

/* Is there more to do than to hide? */
static bool edits_scores(const struct at_attn *a)
{
    return a->additive || a->softcap > 0 || a->alibi || a->bias.data || a->score_expr;
}

/* What masks leave of keys [j0, j1) to lanes from `first` to `last`. */
static enum at_cover cover(const struct schedule *d, const struct at_item *w, int64_t i0,
                           int64_t i1, int64_t j0, int64_t j1)
{
    int64_t ratio = at_cpu_attn_ratio(&d->a), h = w->group * ratio;
    return d->blocks ? at_schedule_cover(d->blocks, w->seq, h, h + ratio, i0, i1, j0, j1)
                     : AT_COVER_FULL;
}

/* Scores are q . k times this.  Where nothing edits them the softmax scales, which loses nothing; a
 * negative scale turns q around, and a scale of 0 makes q 0.  Additive scores are not linear in q.
 */
static float q_factor(const struct at_attn *a)
{
    return a->additive || a->scale > 0 ? 1.0f : a->scale < 0 ? -1.0f : 0.0f;
}

float at_cpu_attn_scale(const struct at_attn *a)
{
    return edits_scores(a) || a->scale == 0 ? 1 : fabsf(a->scale);
}

static void scale_scores(const struct at_simd *t, const struct at_attn *a, float *st, int64_t n)
{
    t->scale(st, st, a->additive ? a->scale : fabsf(a->scale), n);
    if (a->softcap > 0) {
        t->scale(st, st, 1 / a->softcap, n);
        t->tanh(st, st, n);
        t->scale(st, st, a->softcap, n);
    }
}

static void add_alibi(const struct at_attn *a, const struct at_seq *q, const struct at_lanes *l,
                      float *st, int64_t j0, int64_t j1)
{
    float slope[AT_MAX_LANES];
    double place[AT_MAX_LANES];
    for (int r = 0; r < l->n; r++) {
        slope[r] = a->alibi[l->h[r]];
        place[r] = (double)(l->i[r] + q->off);
    }
    for (int64_t j = j0; j < j1; j++)
        for (int r = 0; r < l->n; r++)
            st[(j - j0) * l->stride + r] -= slope[r] * (float)fabs(place[r] - (double)j);
}

/* Bias, or bool mask, m of sequence n. */
static void add_pairs(const struct at_simd *t, const struct at_view *m, const struct at_lanes *l,
                      int64_t n, float *st, int64_t j0, int64_t j1)
{
    const void *row[AT_MAX_LANES];
    enum at_pair type = m->type == ATTEND_F32    ? AT_PAIR_F32
                        : m->type == ATTEND_F16  ? AT_PAIR_F16
                        : m->type == ATTEND_BF16 ? AT_PAIR_BF16
                                                 : AT_PAIR_BOOL;
    for (int r = 0; r < l->n; r++)
        row[r] = at_view_at(m, n * m->stride[0] + l->h[r] * m->stride[1] + l->i[r] * m->stride[2] +
                                   j0 * m->stride[3]);
    t->bias(st, l->stride, l->n, j1 - j0, &(struct at_pairs){row, m->stride[3], type});
}

static void hide_by_range(const struct at_lanes *l, float *st, int64_t j0, int64_t j1)
{
    for (int r = 0; r < l->n; r++) {
        for (int64_t j = j0; j < at_min(j1, l->low[r]); j++)
            st[(j - j0) * l->stride + r] = -INFINITY;
        for (int64_t j = at_max(j0, l->high[r]); j < j1; j++)
            st[(j - j0) * l->stride + r] = -INFINITY;
    }
}

static void run_program(const struct at_simd *t, const struct at_attn *a, const struct at_item *w,
                        const struct at_lanes *l, const struct at_expr_program *p, float *st,
                        int64_t j0, int64_t j1)
{
    const struct at_expr_block block = {.st = st,
                                        .stride = l->stride,
                                        .lanes = l->n,
                                        .j0 = j0,
                                        .keys = j1 - j0,
                                        .i = l->i,
                                        .h = l->h,
                                        .b = w->seq,
                                        .sq = a->seq[w->seq].nq,
                                        .skv = a->seq[w->seq].nk,
                                        .capture = a->capture};
    t->expr(p, &block, l->steps);
}

/* Scores of keys [j0, j1), st at the first: softcap, ALiBi, bias, score expression, then what
 * hides: masks only where they leave the keys partial. */
static void edit_scores(const struct at_simd *t, const struct at_attn *a, const struct at_item *w,
                        const struct at_lanes *l, float *st, int64_t j0, int64_t j1,
                        enum at_cover mask)
{
    if (edits_scores(a))
        scale_scores(t, a, st, (j1 - j0) * l->stride);
    if (a->alibi)
        add_alibi(a, &a->seq[w->seq], l, st, j0, j1);
    if (a->bias.data)
        add_pairs(t, &a->bias, l, w->seq, st, j0, j1);
    if (a->score_expr)
        run_program(t, a, w, l, &l->programs->score, st, j0, j1);
    if (a->mask.data && mask == AT_COVER_PARTIAL)
        add_pairs(t, &a->mask, l, w->seq, st, j0, j1);
    if (a->mask_expr && mask == AT_COVER_PARTIAL)
        run_program(t, a, w, l, &l->programs->mask, st, j0, j1);
    hide_by_range(l, st, j0, j1);
}

int64_t at_cpu_attn_q_floats(const struct at_simd *t, int64_t dk, bool additive)
{
    return at_simd_q_floats(t, additive ? 2 * dk : dk);
}

void at_cpu_attn_pack_q(const struct at_simd *t, const struct at_attn *a, const struct at_lanes *l,
                        float *qp)
{
    t->pack_q(qp, l->q, (enum at_elem)at_cpu_elem(a->q.type), a->dk, q_factor(a));
    if (a->additive)
        t->additive_pack_q(qp, a->dk);
}

static void score_keys(const struct at_simd *t, const struct at_attn *a, const struct at_item *w,
                       const struct at_lanes *l, const float *qp, const struct at_rows *k,
                       float *st, int64_t j0, int64_t from, int64_t to, enum at_cover mask)
{
    struct at_rows part = *k;
    part.base = (const char *)k->base + (from - j0) * k->stride * at_elem_size(k->type);
    part.n = to - from;
    if (a->additive)
        t->additive_scores(st, from - j0, qp, &part, a->additive);
    else
        t->scores(st, from - j0, qp, &part);
    edit_scores(t, a, w, l, st + (from - j0) * l->stride, from, to, mask);
}

void at_cpu_attn_scores(const struct at_simd *t, const struct at_attn *a, const struct at_item *w,
                        const struct at_lanes *l, const float *qp, const struct at_rows *k,
                        float *st, int64_t j0, int64_t from, int64_t to)
{
    score_keys(t, a, w, l, qp, k, st, j0, from, to, AT_COVER_PARTIAL);
}

/* Weights of keys [j0, j1), the first at st, after the last softmax_step of their block. */
static void drop(const struct at_simd *t, const struct at_attn *a, const struct at_item *w,
                 const struct at_lanes *l, float *st, int64_t j0, int64_t j1)
{
    uint32_t i[AT_MAX_LANES], bh[AT_MAX_LANES];
    for (int r = 0; r < l->n; r++) {
        i[r] = (uint32_t)l->i[r];
        bh[r] = (uint32_t)(w->seq * a->nh + l->h[r]);
    }
    t->dropout(st, l->stride, l->n, j0, j1, &a->dropout, i, bh);
}

/* ---- panels ---- */

/* Of one item: scratch, and where its rows are. */
struct panels {
    const struct at_simd *t;
    const struct schedule *d;
    const struct at_item *w, *after; /* after: the item that comes next, or NULL */
    float *q, *state, *st, *k, *v;
    void *steps; /* scratch of programs */
    int64_t q_floats, state_floats;
    bool any[MAX_PANELS];   /* has acc of the panel's state anything in it yet? */
    bool ended[MAX_PANELS]; /* is the panel finished? */
    struct at_ahead queries, results, keys, values; /* brought into the cache by a panel at work */
    const void *key[KEYS_AHEAD], *value[KEYS_AHEAD];
    struct {
        const struct at_item *w;
        int64_t from, to;
    } next; /* keys that come after the block at work, and are not asked for yet */
};

/* Keys [from, to) of the block at j0, whose scores are stored and edited. */
static void edited_keys(const struct panels *p, const struct at_lanes *l, int panel,
                        const struct at_rows *k, int64_t j0, int64_t from, int64_t to,
                        enum at_cover mask)
{
    score_keys(p->t, &p->d->a, p->w, l, p->q + panel * p->q_floats, k, p->st, j0, from, to, mask);
    p->t->softmax_step(p->st, from - j0, to - from, p->state + panel * p->state_floats, p->d->a.dv,
                       at_cpu_attn_scale(&p->d->a));
}

/* The same where nothing edits scores, and edges, if any, hide some. */
static void plain_keys(const struct panels *p, int panel, const struct at_rows *k, int64_t j0,
                       int64_t from, int64_t to, const struct at_edges *edges)
{
    struct at_rows part = *k;
    part.base = (const char *)k->base + (from - j0) * k->stride * at_elem_size(k->type);
    part.n = to - from;
    p->t->scores_softmax(p->st, from - j0, p->q + panel * p->q_floats, &part,
                         p->state + panel * p->state_floats, p->d->a.dv,
                         at_cpu_attn_scale(&p->d->a), edges, &p->queries);
}

static float within(int64_t key, int64_t most)
{
    return (float)at_min(at_max(key, 0), most);
}

/* Keys [from, to) of the block at j0, of which masks leave the panel the same kind of share. */
static void panel_keys(struct panels *p, const struct at_lanes *l, int panel,
                       const struct at_rows *k, int odd, int64_t j0, int64_t from, int64_t to,
                       enum at_cover mask, const struct at_keys *range)
{
    const struct at_attn *a = &p->d->a;
    float low[AT_MAX_LANES], high[AT_MAX_LANES];
    struct at_edges edges = {low, high, range->full_first - j0, range->full_end - j0};
    bool edited = edits_scores(a) || mask == AT_COVER_PARTIAL;
    bool cut = range->full_first > from || range->full_end < to;
    for (int r = 0; cut && !edited && r < p->t->rows_per_panel; r++) {
        low[r] = within(l->low[r] - j0, p->t->keys_per_block);
        high[r] = within(l->high[r] - j0, p->t->keys_per_block);
    }
    if (edited)
        edited_keys(p, l, panel, k, j0, from, to, mask);
    else
        plain_keys(p, panel, k, j0, from, to, cut ? &edges : NULL);
    if (a->dropout.below)
        drop(p->t, a, p->w, l, p->st + (from - j0) * l->stride, from, to);
    p->t->accumulate(p->state + panel * p->state_floats, a->dv, p->st, p->v, from - j0, to - j0,
                     !p->any[panel], odd && (edited || cut), &p->results);
    p->any[panel] = true;
}

/* One panel over the block of keys [j0, j1): k and v are the block's, r is what its rows see.
 * Stretches that masks leave empty are passed over. */
static void panel_block(struct panels *p, const struct at_lanes *l, int panel,
                        const struct at_rows *k, int odd, int64_t j0, int64_t j1,
                        const struct at_keys *r)
{
    int64_t i0 = l->i[0], i1 = l->i[l->n - 1] + 1;
    int64_t step = p->d->blocks ? AT_BLOCK : j1, to = at_min(r->end, j1), next;
    for (int64_t from = at_max(r->first, j0); from < to; from = next) {
        next = at_min(to, (from / step + 1) * step);
        enum at_cover mask = cover(p->d, p->w, i0, i1, from, next);
        while (next < to && cover(p->d, p->w, i0, i1, next, next + 1) == mask)
            next = at_min(to, next + step);
        if (mask != AT_COVER_EMPTY)
            panel_keys(p, l, panel, k, odd, j0, from, next, mask, r);
    }
}

static void finish_panel(const struct panels *p, const struct at_lanes *l, int panel)
{
    const struct at_attn *a = &p->d->a;
    float lse[AT_MAX_LANES], *state = p->state + panel * p->state_floats;
    if (!p->any[panel])
        memset(state, 0, (size_t)p->state_floats * sizeof *state);
    p->t->finish(state, a->dv, a->sinks ? l->sink : NULL, l->o, AT_ELEM_F32,
                 a->lse.data ? lse : NULL, at_cpu_attn_scale(a));
    if (a->lse.data)
        store_lse(l, a, &p->d->seq[p->w->seq], lse);
}

struct at_rows at_cpu_attn_keys(const struct at_simd *t, const struct at_attn *a,
                                const struct at_item *w, int64_t j0, int64_t from, int64_t to,
                                float *buffer)
{
    struct at_rows k = fetch(a, &a->k, w, from, to, buffer);
    if (k.type != AT_ELEM_F32 || k.n < to - from) {
        for (int64_t j = from; j < to; j += k.n) {
            k = fetch(a, &a->k, w, j, to, buffer + (j - from) * a->dk);
            if (k.base != buffer + (j - from) * a->dk)
                t->pack_k(buffer + (j - from) * a->dk, &k);
        }
        k = (struct at_rows){buffer, a->dk, to - from, a->dk, AT_ELEM_F32};
    }
    k.base = (const float *)k.base - (from - j0) * k.stride;
    return k;
}

static int block_values(const struct panels *p, int64_t j0, int64_t from, int64_t to)
{
    const struct at_attn *a = &p->d->a;
    struct at_rows v;
    int odd = 0;
    for (int64_t j = from; j < to; j += v.n) {
        v = fetch(a, &a->v, p->w, j, to, p->k); /* keys come there after values */
        odd |= p->t->pack_v(p->v, j - j0, &v, NULL);
    }
    return odd;
}

static void begin_panel(struct panels *p, const struct at_lanes *l, int panel)
{
    at_cpu_attn_pack_q(p->t, &p->d->a, l, p->q + panel * p->q_floats);
    memset(p->state + panel * p->state_floats, 0, 2 * (size_t)l->stride * sizeof(float)); /* m, l */
    p->any[panel] = false;
}

/* The lanes of panel i of an item. */
static void place_panel(const struct panels *p, struct at_lanes *l, const struct at_item *w,
                        int64_t i)
{
    int rows = p->t->rows_per_panel;
    int64_t left = w->count - i * rows;
    l->stride = rows;
    at_cpu_attn_lanes(l, &p->d->a, &p->d->seq[w->seq], w->group, w->first + i * rows,
                      (int)at_min(rows, left), rows);
    l->programs = p->d->programs;
    l->steps = p->steps;
}

static struct at_keys item_keys(const struct schedule *d, const struct at_item *w)
{
    int ratio = at_cpu_attn_ratio(&d->a);
    return at_key_range(&d->a.visible, &d->seq[w->seq], w->first / ratio,
                        (w->first + w->count - 1) / ratio + 1);
}

/* What comes after keys [.., to) of the item's, which end at `end`: they may be the next item's. */
static void look_ahead(struct panels *p, int64_t to, int64_t end)
{
    int64_t size = p->t->keys_per_block, from = to;
    p->next.w = p->w;
    if (to == end && p->after) {
        struct at_keys k = item_keys(p->d, p->after);
        p->next.w = p->after;
        from = k.first;
        end = k.end;
    }
    p->next.from = from;
    p->next.to = at_min(end, (from / size + 1) * size);
}

/* Keys, or values, of the next block. */
static struct at_ahead rows_ahead(const struct panels *p, const void **row, const struct at_view *v,
                                  int64_t from, int64_t to)
{
    struct at_ahead l = {row, 0, attend_type_row_bytes(v->type, v->shape[3]), NULL};
    int64_t step = v->stride[2] * (int64_t)attend_type_size(v->type);
    struct at_rows rows;
    for (int64_t j = from; j < to; j += rows.n) {
        rows = key_rows(&p->d->a, v, p->next.w, j, to);
        for (int64_t e = 0; e < rows.n; e++)
            row[l.n++] = (const char *)rows.base + e * step;
    }
    return l;
}

/* A panel's part of that. */
static void ask_for_keys(struct panels *p)
{
    int64_t from = p->next.from, to = at_min(from + KEYS_AHEAD, p->next.to);
    p->keys = rows_ahead(p, p->key, &p->d->a.k, from, to);
    p->values = rows_ahead(p, p->value, &p->d->a.v, from, to);
    p->next.from = at_max(from, to);
}

/* A panel's rows are packed and stored while they are in cache.  Where there is one block of keys,
 * nothing is kept from panel to panel, so that all use the same memory. */
static void walk_panels(struct panels *p)
{
    const struct at_simd *t = p->t;
    const struct at_attn *a = &p->d->a;
    const struct at_item *w = p->w;
    const struct at_seq *q = &p->d->seq[w->seq];
    struct at_lanes lanes[MAX_PANELS];
    int n = (int)at_ceil_div(w->count, t->rows_per_panel), ratio = at_cpu_attn_ratio(a);
    int64_t i0 = w->first / ratio, i1 = (w->first + w->count - 1) / ratio + 1;
    struct at_keys all = item_keys(p->d, w);
    int64_t size = t->keys_per_block, begin = all.first / size * size;
    bool single = begin + size >= all.end, begun = false;
    int own = single ? 0 : -1, near = single ? 1 : -1; /* which bits of i choose state and lanes */
    place_panel(p, &lanes[0], w, 0);
    for (int64_t j0 = begin; j0 < all.end && all.first < all.end; j0 += size) {
        int64_t from = at_max(j0, all.first), to = at_min(j0 + size, all.end);
        if (cover(p->d, w, i0, i1, from, to) == AT_COVER_EMPTY)
            continue;
        int odd = block_values(p, j0, from, to);
        struct at_rows k = at_cpu_attn_keys(t, a, w, j0, from, to, p->k);
        look_ahead(p, to, all.end);
        for (int i = 0; i < n; i++) {
            struct at_lanes *l = &lanes[i & near], *next = l;
            bool more = !begun && i + 1 < n;
            if (more) {
                next = &lanes[(i + 1) & near];
                place_panel(p, next, w, i + 1);
            }
            if (!begun)
                begin_panel(p, l, i & own);
            struct at_keys r = at_key_range(&a->visible, q, l->i[0], l->i[l->n - 1] + 1);
            if (p->ended[i] || (r.first >= to && r.end > to)) /* no longer, or not yet */
                continue;
            p->ended[i] = r.end <= to;
            p->queries.row = next->q;
            p->queries.n = more ? next->n : 0;
            p->results.row = (const void *const *)l->o;
            p->results.n = p->ended[i] && a->o.data ? l->n : 0;
            ask_for_keys(p);
            panel_block(p, l, i & own, &k, odd, j0, to, &r);
            if (p->ended[i])
                finish_panel(p, l, i & own);
        }
        begun = true;
    }
    for (int i = 0; i < n; i++) {
        if (p->ended[i])
            continue;
        if (!begun) {
            place_panel(p, &lanes[i], w, i);
            begin_panel(p, &lanes[i], i);
        }
        finish_panel(p, &lanes[i], i);
    }
}

static void run_panels(const struct at_simd *t, const struct schedule *d, const struct at_item *w,
                       const struct at_item *after, void *steps, float *scratch)
{
    struct panels p = {.t = t,
                       .d = d,
                       .w = w,
                       .after = after,
                       .q = scratch,
                       .steps = steps,
                       .q_floats = at_cpu_attn_q_floats(t, d->a.dk, d->a.additive),
                       .state_floats = at_simd_state_floats(t, d->a.dv)};
    p.queries.bytes = attend_type_row_bytes(d->a.q.type, d->a.dk);
    p.queries.then = &p.keys;
    p.results.bytes = attend_type_row_bytes(d->a.o.type, d->a.dv);
    p.results.then = &p.values;
    p.state = p.q + MAX_PANELS * p.q_floats;
    p.st = p.state + MAX_PANELS * p.state_floats;
    p.v = p.st + at_simd_block_floats(t);
    p.k = p.v + at_simd_v_floats(t, d->a.dv);
    walk_panels(&p);
}

/* ---- dots ---- */

static void dots_lanes(struct at_lanes *l, const struct schedule *d, const struct at_item *w)
{
    const struct at_seq *q = &d->seq[w->seq];
    int n = (int)q->nq * at_cpu_attn_ratio(&d->a);
    l->stride = at_simd_dots_stride(n);
    at_cpu_attn_lanes(l, &d->a, q, w->group, 0, n, n);
}

/* Does any row not see all of [j0, j1)? */
static bool hides(const struct at_lanes *l, int64_t j0, int64_t j1)
{
    for (int r = 0; r < l->n; r++)
        if (l->low[r] > j0 || l->high[r] < j1)
            return true;
    return false;
}

/* Is any score of so many keys -inf? */
static bool holds_hidden(const struct at_lanes *l, const float *st, int64_t keys)
{
    for (int64_t j = 0; j < keys; j++)
        for (int r = 0; r < l->n; r++)
            if (st[j * l->stride + r] == -INFINITY)
                return true;
    return false;
}

/* One block of keys [from, to), `end` the last that the sequence sees: what follows a chunk is
 * often the same thread's next.  Pages are read one after the other. */
static void chunk_block(const struct at_simd *t, const struct schedule *d, const struct at_item *w,
                        const struct at_lanes *l, const float *qd, float *st, float *state,
                        float *stage, int64_t from, int64_t to, int64_t end)
{
    const struct at_attn *a = &d->a;
    enum at_cover mask = cover(d, w, l->i[0], l->i[l->n - 1] + 1, from, to);
    bool edits = edits_scores(a) || mask == AT_COVER_PARTIAL, staged = a->k.type == ATTEND_F8;
    bool hidden = edits || hides(l, from, to);
    if (mask == AT_COVER_EMPTY)
        return;
    struct at_rows k, v;
    for (int64_t j = from; j < to; j += k.n) {
        k = fetch(a, &a->k, w, j, to, stage);
        v = key_rows(a, &a->v, w, j, to);
        t->dots_scores(st + (j - from) * l->stride, qd, l->n, &k, staged ? NULL : &v);
    }
    if (hidden)
        edit_scores(t, a, w, l, st, from, to, mask);
    hidden = hidden && holds_hidden(l, st, to - from);
    t->dots_softmax_step(st, to - from, l->n, state, a->dv, at_cpu_attn_scale(a));
    if (a->dropout.below)
        drop(t, a, w, l, st, from, to);
    for (int64_t j = from; j < to; j += v.n) {
        v = fetch(a, &a->v, w, j, to, stage);
        k = key_rows(a, &a->k, w, j + v.n, at_min(j + v.n + t->dots_keys, end));
        t->dots_accumulate(state, l->n, st + (j - from) * l->stride, &v, hidden,
                           k.n > 0 && !staged ? &k : NULL);
    }
}

static void run_chunk(const struct at_simd *t, const struct schedule *d, const struct at_item *w,
                      const struct at_lanes *l, int64_t chunk, float *state, float *scratch)
{
    const struct at_attn *a = &d->a;
    const struct at_seq *q = &d->seq[w->seq];
    int n = l->n;
    float *qd = scratch, *st = qd + at_simd_dots_q_floats(n, a->dk);
    float *stage = st + at_simd_dots_block_floats(t, n);
    memset(state, 0, (size_t)at_simd_dots_state_floats(n, a->dv) * sizeof(float));
    t->dots_pack_q(qd, l->q, n, (enum at_elem)at_cpu_elem(a->q.type), a->dk, q_factor(a));
    struct at_keys all = at_key_range(&a->visible, q, l->i[0], l->i[n - 1] + 1);
    int64_t begin = chunk * d->chunk, end = at_min(all.end, begin + d->chunk), size = t->dots_keys;
    for (int64_t j0 = begin; j0 < end; j0 += size) {
        int64_t from = at_max(j0, all.first), to = at_min(j0 + size, end);
        if (from < to)
            chunk_block(t, d, w, l, qd, st, state, stage, from, to, all.end);
    }
}

static void finish_dots(const struct at_simd *t, const struct schedule *d, const struct at_item *w,
                        const struct at_lanes *l, const float *state)
{
    float lse[AT_MAX_LANES];
    t->dots_finish(state, l->n, d->a.dv, d->a.sinks ? l->sink : NULL, l->o, AT_ELEM_F32,
                   d->a.lse.data ? lse : NULL, at_cpu_attn_scale(&d->a));
    if (d->a.lse.data)
        store_lse(l, &d->a, &d->seq[w->seq], lse);
}

/* The heads of one query row, through all their chunks. */
static void run_alone(const struct at_simd *t, const struct schedule *d, const struct at_item *w,
                      void *steps, float *scratch)
{
    const struct at_attn *a = &d->a;
    const struct at_seq *q = &d->seq[w->seq];
    struct at_lanes l = {.stride = at_simd_dots_stride((int)w->count)};
    float *state = scratch, *next = state + at_simd_dots_state_floats(t->dots_rows, a->dv);
    float *rest = next + at_simd_dots_state_floats(t->dots_rows, a->dv);
    at_cpu_attn_lanes(&l, a, q, w->group, w->first, (int)w->count, (int)w->count);
    l.programs = d->programs;
    l.steps = steps;
    struct at_keys all = at_key_range(&a->visible, q, l.i[0], l.i[0] + 1);
    run_chunk(t, d, w, &l, 0, state, rest);
    for (int64_t c = 1; c * d->chunk < all.end; c++) {
        run_chunk(t, d, w, &l, c, next, rest);
        t->dots_merge(state, next, l.n, a->dv, at_cpu_attn_scale(a));
    }
    finish_dots(t, d, w, &l, state);
}

/* ---- run ---- */

struct job {
    struct attend_exec *x;
    const struct at_step *s;
    const struct schedule *d;
    int64_t partial; /* floats of one */
};

static void run_item(void *arg, int64_t index, int slot)
{
    const struct job *job = arg;
    const struct schedule *d = job->d;
    const struct at_simd *t = at_cpu_kernels(job->s);
    const struct at_item *w = &d->item[index];
    char *steps = at_slot_scratch(job->x, slot);
    float *scratch = (void *)(steps + (d->programs ? d->programs->scratch : 0));
    if (d->alone) {
        run_alone(t, d, w, steps, scratch);
    } else if (takes_dots(t, &d->a, &d->seq[w->seq])) {
        float *state = w->count > 1 ? d->partial + index * job->partial : scratch;
        struct at_lanes l;
        dots_lanes(&l, d, w);
        l.programs = d->programs;
        l.steps = steps;
        run_chunk(t, d, w, &l, w->first, state, w->count > 1 ? scratch : scratch + job->partial);
        if (w->count == 1)
            finish_dots(t, d, w, &l, state);
    } else {
        run_panels(t, d, w, index + 1 < d->nitem ? w + 1 : NULL, steps, scratch);
    }
}

/* merge: the chunks of one sequence and group, in order. */
static void join_item(void *arg, int64_t index, int slot)
{
    const struct job *job = arg;
    const struct schedule *d = job->d;
    const struct at_simd *t = at_cpu_kernels(job->s);
    const struct at_item *w = &d->join[index];
    (void)slot;
    if (w->count == 1)
        return;
    float *state = d->partial + w->first * job->partial;
    struct at_lanes l;
    dots_lanes(&l, d, w);
    for (int64_t c = 1; c < w->count; c++)
        t->dots_merge(state, state + c * job->partial, l.n, d->a.dv, at_cpu_attn_scale(&d->a));
    finish_dots(t, d, w, &l, state);
}

static int run(struct attend_exec *x, const struct at_step *s)
{
    const struct schedule *d = at_step_state(x, s);
    struct job job = {.x = x,
                      .s = s,
                      .d = d,
                      .partial = at_simd_dots_state_floats(at_cpu_kernels(s)->dots_rows, d->a.dv)};
    int status = at_cpu_items(x, d->nitem, d->flops, run_item, &job);
    if (status == 0 && d->nitem > d->njoin && d->njoin > 0)
        status = at_cpu_items(x, d->njoin, d->flops / 64, join_item, &job);
    return status;
}

const struct at_row at_cpu_attention = {"flash", AT_ATTENTION, accepts, prepare, bind, run};
