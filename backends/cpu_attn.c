/* SPDX-License-Identifier: MIT */
/* Attention on the CPU: which rows and keys a work item has.  The steps of the recurrence for an
 * item are in cpu_panels.c and cpu_dots.c, what both do with rows, keys and scores in cpu_lanes.c,
 * and the arithmetic is the block functions' (simd.h).
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

#include "cpu_attn.h"

#define MAX_CHUNKS 64  /* of the keys of one sequence */
#define MIN_CHUNK 1024 /* keys */
#define TANH 8         /* multiply-adds that an additive score's tanh is worth */

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
    int64_t panel = AT_CPU_PANELS * (q + at_simd_state_floats(t, x.dv)) + at_simd_block_floats(t) +
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
    s->state = at_round_up(sizeof(struct at_cpu_schedule), AT_ALIGN) +
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
static struct at_cpu_schedule *lay_out(const struct attend_exec *x, const struct at_step *s)
{
    struct extent e = extents(x->plan, s);
    const struct at_simd *t = at_cpu_kernels(s);
    int64_t items = most_items(x->plan, &e, t) * e.groups;
    char *p = at_step_state(x, s);
    struct at_cpu_schedule *d = carve(&p, sizeof *d);
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
static int64_t chunks_of(const struct at_cpu_schedule *d, const struct at_seq *q)
{
    struct at_keys k = at_key_range(&d->a.visible, q, 0, q->nq);
    return at_max(1, at_ceil_div(k.end, d->chunk));
}

/* Does the list fit the sequences still?  If not, remembers what it will be made for. */
static bool still_valid(struct at_cpu_schedule *d, const struct at_simd *t)
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
static int64_t panels_per_item(const struct at_cpu_schedule *d, const struct at_simd *t,
                               int threads)
{
    int64_t panels = 0;
    for (int64_t n = 0; n < d->a.nseq; n++)
        if (!takes_dots(t, &d->a, &d->seq[n]))
            panels +=
                at_ceil_div(d->seq[n].nq * at_cpu_attn_ratio(&d->a), t->rows_per_panel) * d->a.ng;
    return at_min(AT_CPU_PANELS, at_max(4, panels / (4 * threads)));
}

static void list_chunks(struct at_cpu_schedule *d, const struct at_simd *t)
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
static void list_panels(struct at_cpu_schedule *d, const struct at_simd *t, int threads)
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
static void list_rows(struct at_cpu_schedule *d, const struct at_simd *t)
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
    struct at_cpu_schedule *d = lay_out(x, s);
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

/* ---- run ---- */

struct job {
    struct attend_exec *x;
    const struct at_step *s;
    const struct at_cpu_schedule *d;
    int64_t partial; /* floats of one */
};

static void run_item(void *arg, int64_t index, int slot)
{
    const struct job *job = arg;
    const struct at_cpu_schedule *d = job->d;
    const struct at_simd *t = at_cpu_kernels(job->s);
    const struct at_item *w = &d->item[index];
    char *steps = at_slot_scratch(job->x, slot);
    float *scratch = (void *)(steps + (d->programs ? d->programs->scratch : 0));
    if (d->alone) {
        at_cpu_dots_alone(t, d, w, steps, scratch);
    } else if (takes_dots(t, &d->a, &d->seq[w->seq])) {
        float *partial = w->count > 1 ? d->partial + index * job->partial : NULL;
        at_cpu_dots_chunk(t, d, w, partial, steps, scratch);
    } else {
        at_cpu_panels_run(t, d, w, index + 1 < d->nitem ? w + 1 : NULL, steps, scratch);
    }
}

static void join_item(void *arg, int64_t index, int slot)
{
    const struct job *job = arg;
    const struct at_cpu_schedule *d = job->d;
    const struct at_simd *t = at_cpu_kernels(job->s);
    const struct at_item *w = &d->join[index];
    (void)slot;
    if (w->count > 1)
        at_cpu_dots_join(t, d, w, d->partial + w->first * job->partial, job->partial);
}

static int run(struct attend_exec *x, const struct at_step *s)
{
    const struct at_cpu_schedule *d = at_step_state(x, s);
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
