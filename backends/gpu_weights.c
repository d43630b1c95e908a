/* SPDX-License-Identifier: MIT */
/* Attention weights on devices: scores of some rows of a sequence, all heads, go to memory, as for
 * the unfused shape, and a kernel of portable/attn_weights.cl keeps what is wanted of them. */
#include <stdio.h>

#include "gpu_problem.h"

#define MOST_ROWS 256         /* whose scores are in memory at once, ... */
#define MOST_BYTES (64 << 20) /* ... in no more than this where that is more than a row */
#define MOST_GROUPS 65535     /* of the second and third axis of a launch */

enum { KEEP, SCORES, ENDS, CLEAR };

/* What bind leaves for run, in the exec; the sequences follow it, as the host and the device have
 * them, and then what is captured. */
struct state {
    struct at_attn a;
    struct at_weights p; /* first and end are those of all rows, unless some are chosen */
    struct at_k_weights args;
    struct at_view out;
    int64_t sequences;
};

/* Words that are sorted for a row of so many keys: a power of 2. */
static int64_t words(int64_t keys)
{
    int64_t n = 1;
    while (n < keys)
        n *= 2;
    return n;
}

/* How many rows, and bytes of one with all heads: of its scores, of the words, of m and l. */
struct room {
    int64_t rows, scores, words, ends;
};

static struct room room_of(const struct at_step *s, const struct at_gpu_sizes *e)
{
    struct room r = {.words = 0};
    int64_t nh = e->groups * e->ratio, keys = at_max(1, e->keys);
    r.scores = at_round_up(nh * keys * (int64_t)sizeof(float), 8);
    if (s->p->attention.weights.mode == ATTEND_WEIGHTS_TOPK)
        r.words = nh * words(keys) * (int64_t)sizeof(uint64_t);
    r.ends = nh * 2 * (int64_t)sizeof(float);
    r.rows = at_min(MOST_ROWS,
                    at_min(MOST_BYTES / (r.scores + r.words + r.ends), MOST_GROUPS / e->ratio));
    r.rows = at_max(1, r.rows);
    return r;
}

static bool accepts(const attend_plan *plan, const struct at_step *s, struct at_why *why)
{
    const attend_graph *g = plan->graph;
    struct at_gpu_sizes e = at_gpu_sizes_of(plan, s);
    return at_need(why,
                   at_graph_has_rows(g, s->in[AT_IN_Q]) && at_graph_has_rows(g, s->in[AT_IN_K]),
                   "a head's channels are not next to each other in memory") &&
           at_need(why,
                   e.keys >= 0 && e.keys <= INT32_MAX / 2 && at_mul_size(e.rows, e.ratio) >= 0 &&
                       e.rows * e.ratio <= INT32_MAX / 2 && e.groups * e.ratio <= MOST_GROUPS,
                   "more rows, keys or heads than a launch has groups");
}

static int prepare(attend_plan *plan, struct at_step *s, struct at_err *e)
{
    static const char *const modes[] = {[ATTEND_WEIGHTS_DENSE] = "weights_rows",
                                        [ATTEND_WEIGHTS_ROWS] = "weights_rows",
                                        [ATTEND_WEIGHTS_COLUMNS] = "weights_columns",
                                        [ATTEND_WEIGHTS_TOPK] = "weights_top",
                                        [ATTEND_WEIGHTS_POOL] = "weights_pool"};
    const char *const names[] = {modes[s->p->attention.weights.mode], "unfused_scores",
                                 "weights_ends", "weights_clear"};
    struct at_gpu_sizes x = at_gpu_sizes_of(plan, s);
    struct room room = room_of(s, &x);
    char defines[24];
    snprintf(defines, sizeof defines, "-DAT_ITEMS=%d", at_gpu_of(s->device)->cpu ? 1 : 64);
    s->shared_work = room.rows * (room.scores + room.words + room.ends);
    return at_gpu_problem_prepare(plan, s, 1u << AT_GPU_ATTN_UNFUSED | 1u << AT_GPU_ATTN_WEIGHTS,
                                  defines, names, 4, sizeof(struct state), e);
}

static int bind(struct attend_exec *x, const struct at_step *s)
{
    struct at_gpu_sizes e = at_gpu_sizes_of(x->plan, s);
    struct room room = room_of(s, &e);
    struct state *d = at_step_state(x, s);
    struct at_seq *seq = (struct at_seq *)((char *)d + at_round_up(sizeof *d, AT_ALIGN));
    struct at_view index = at_weights_view(x, s, 1);
    int status = at_attn_resolve(x, s, &d->a, seq);
    if (status < 0)
        return status;
    d->p = s->p->attention.weights;
    d->out = at_weights_view(x, s, 0);
    d->sequences = at_weights_begin(&d->a, &d->p, NULL);
    d->args = (struct at_k_weights){.out = at_gpu_problem_view(x, s->out[0], &d->out),
                                    .columns = d->out.shape[3],
                                    .cells = d->out.shape[2] * d->out.shape[3],
                                    .sort = room.rows * room.scores,
                                    .ends = room.rows * (room.scores + room.words),
                                    .first = (at_i32)d->p.first,
                                    .rows = (at_i32)d->out.shape[2]};
    if (index.data)
        d->args.index = at_gpu_problem_view(x, s->out[1], &index);
    at_gpu_problem_args(&d->args.a, x, s, &d->a);
    d->args.a.has_lse = s->in[AT_IN_LSE] >= 0;
    if (d->args.a.has_lse)
        at_gpu_buffer(x, s->in[AT_IN_LSE], &d->args.a.lse[0]);
    d->args.a.chunk = at_max(1, e.keys);
    return at_gpu_problem_table(x, s, &d->a, &e, seq + e.seqs, &d->args.a);
}

/* ---- run ---- */

static void *kernel_of(const struct at_step *s, int which)
{
    return ((const struct at_gpu_kernels *)s->packed)->kernel[which];
}

static int scores(struct attend_exec *x, const struct at_step *s)
{
    const struct state *d = at_step_state(x, s);
    const struct at_k_attn *a = &d->args.a;
    struct at_gpu_launch l = {
        .kernel = kernel_of(s, SCORES),
        .args = a,
        .bytes = sizeof *a,
        .groups = {at_ceil_div(d->a.seq[a->nseq].nk, 64), a->rows, a->ng},
        .items = 64
    };
    l.nbuffer = 2 + at_gpu_problem_buffers(x, s, l.buffer + 2); /* without o and lse */
    return at_gpu_run(x, s, &l);
}

static int launch(struct attend_exec *x, const struct at_step *s, int which, int items, int64_t gx,
                  int64_t gy, int64_t gz)
{
    const struct state *d = at_step_state(x, s);
    struct at_gpu_launch l = {
        .kernel = kernel_of(s, which),
        .args = &d->args,
        .bytes = sizeof d->args,
        .nbuffer = 5,
        .groups = {gx, gy, gz},
        .items = items
    };
    int64_t at;
    l.buffer[0] = at_gpu_buffer(x, s->out[0], &at);
    l.buffer[1] = d->args.index.given ? at_gpu_buffer(x, s->out[1], &at) : NULL;
    l.buffer[2] = d->args.a.has_lse ? at_gpu_buffer(x, s->in[AT_IN_LSE], &at) : NULL;
    l.buffer[3] = d->args.a.has_sinks ? at_gpu_buffer(x, s->in[AT_IN_SINKS], &at) : NULL;
    l.buffer[4] = x->transfer->work;
    return at_gpu_run(x, s, &l);
}

/* Pooled: the rows of cells that have any row of the launch. */
static int pool(struct attend_exec *x, const struct at_step *s, int items)
{
    struct state *d = at_step_state(x, s);
    struct at_k_weights *w = &d->args;
    int64_t nq = d->a.seq[w->a.nseq].nq, first = at_weights_cell(w->i0, nq, w->rows),
            last = at_weights_cell(w->i1 - 1, nq, w->rows);
    w->row = (at_i32)first;
    w->keys = at_weights_keys(&d->a, w->a.nseq);
    return launch(x, s, KEEP, items, (last - first + 1) * w->columns, 1, d->a.nh);
}

/* Rows [i0, i1) of sequence n. */
static int some_rows(struct attend_exec *x, const struct at_step *s, int64_t n, int64_t i0,
                     int64_t i1)
{
    struct state *d = at_step_state(x, s);
    int64_t ratio = d->a.nh / d->a.ng, rows = i1 - i0;
    int items = at_gpu_of(s->device)->cpu ? 1 : 64; /* of kernels that have barriers */
    d->args.i0 = (at_i32)i0;
    d->args.i1 = (at_i32)i1;
    d->args.a.nseq = (at_i32)n;
    d->args.a.first = (at_i32)(i0 * ratio);
    d->args.a.rows = (at_i32)(rows * ratio);
    int status = scores(x, s);
    if (status == 0)
        status = launch(x, s, ENDS, items, 1, rows, d->a.nh);
    if (status < 0)
        return status;
    switch (d->p.mode) {
    case ATTEND_WEIGHTS_COLUMNS:
        return launch(x, s, KEEP, 64, at_ceil_div(d->a.seq[n].nk, 64), 1, d->a.nh);
    case ATTEND_WEIGHTS_POOL:
        return pool(x, s, items);
    case ATTEND_WEIGHTS_TOPK:
        d->args.length = words(d->a.seq[n].nk);
        return launch(x, s, KEEP, items, 1, rows, d->a.nh);
    default:
        return launch(x, s, KEEP, 64, at_ceil_div(d->args.columns, 64), rows, d->a.nh);
    }
}

static int run(struct attend_exec *x, const struct at_step *s)
{
    const struct state *d = at_step_state(x, s);
    struct at_gpu_sizes e = at_gpu_sizes_of(x->plan, s);
    int64_t most = room_of(s, &e).rows;
    bool sum = d->p.mode == ATTEND_WEIGHTS_COLUMNS || d->p.mode == ATTEND_WEIGHTS_POOL;
    int status = sum ? launch(x, s, CLEAR, 64, at_ceil_div(d->args.cells, 64), d->out.shape[1],
                              d->out.shape[0])
                     : 0;
    for (int64_t n = 0; n < d->sequences; n++) {
        const struct at_seq *q = &d->a.seq[n];
        int64_t i = at_max(0, d->p.first - q->q0), end = at_min(q->nq, d->p.end - q->q0);
        for (; i < end && status == 0; i += most)
            status = some_rows(x, s, n, i, at_min(i + most, end));
    }
    return status;
}

const struct at_row at_gpu_weights = {"weights", AT_WEIGHTS, accepts, prepare, bind, run};
