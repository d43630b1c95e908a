/* SPDX-License-Identifier: MIT */
/* Items of few rows: a chunk of the keys, each read once for all rows of the group; chunks are
 * merged in order. */
#include <math.h>
#include <string.h>

#include "cpu_attn.h"

static void dots_lanes(struct at_lanes *l, const struct at_cpu_schedule *d, const struct at_item *w)
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
static void chunk_block(const struct at_simd *t, const struct at_cpu_schedule *d,
                        const struct at_item *w, const struct at_lanes *l, const float *qd,
                        float *st, float *state, float *stage, int64_t from, int64_t to,
                        int64_t end)
{
    const struct at_attn *a = &d->a;
    enum at_cover mask = at_cpu_attn_cover(d, w, l->i[0], l->i[l->n - 1] + 1, from, to);
    bool edits = at_cpu_attn_edits(a) || mask == AT_COVER_PARTIAL, staged = a->k.type == ATTEND_F8;
    bool hidden = edits || hides(l, from, to);
    if (mask == AT_COVER_EMPTY)
        return;
    struct at_rows k, v;
    for (int64_t j = from; j < to; j += k.n) {
        k = at_cpu_attn_fetch(a, &a->k, w, j, to, stage);
        v = at_cpu_attn_key_rows(a, &a->v, w, j, to);
        t->dots_scores(st + (j - from) * l->stride, qd, l->n, &k, staged ? NULL : &v);
    }
    if (hidden)
        at_cpu_attn_edit(t, a, w, l, st, from, to, mask);
    hidden = hidden && holds_hidden(l, st, to - from);
    t->dots_softmax_step(st, to - from, l->n, state, a->dv, at_cpu_attn_scale(a));
    if (a->dropout.below)
        at_cpu_attn_drop(t, a, w, l, st, from, to);
    for (int64_t j = from; j < to; j += v.n) {
        v = at_cpu_attn_fetch(a, &a->v, w, j, to, stage);
        k = at_cpu_attn_key_rows(a, &a->k, w, j + v.n, at_min(j + v.n + t->dots_keys, end));
        t->dots_accumulate(state, l->n, st + (j - from) * l->stride, &v, hidden,
                           k.n > 0 && !staged ? &k : NULL);
    }
}

static void run_chunk(const struct at_simd *t, const struct at_cpu_schedule *d,
                      const struct at_item *w, const struct at_lanes *l, int64_t chunk,
                      float *state, float *scratch)
{
    const struct at_attn *a = &d->a;
    const struct at_seq *q = &d->seq[w->seq];
    int n = l->n;
    float *qd = scratch, *st = qd + at_simd_dots_q_floats(n, a->dk);
    float *stage = st + at_simd_dots_block_floats(t, n);
    memset(state, 0, (size_t)at_simd_dots_state_floats(n, a->dv) * sizeof(float));
    t->dots_pack_q(qd, l->q, n, (enum at_elem)at_cpu_elem(a->q.type), a->dk,
                   at_cpu_attn_q_factor(a));
    struct at_keys all = at_key_range(&a->visible, q, l->i[0], l->i[n - 1] + 1);
    int64_t begin = chunk * d->chunk, end = at_min(all.end, begin + d->chunk), size = t->dots_keys;
    for (int64_t j0 = begin; j0 < end; j0 += size) {
        int64_t from = at_max(j0, all.first), to = at_min(j0 + size, end);
        if (from < to)
            chunk_block(t, d, w, l, qd, st, state, stage, from, to, all.end);
    }
}

static void finish_dots(const struct at_simd *t, const struct at_cpu_schedule *d,
                        const struct at_item *w, const struct at_lanes *l, const float *state)
{
    float lse[AT_MAX_LANES];
    t->dots_finish(state, l->n, d->a.dv, d->a.sinks ? l->sink : NULL, l->o, AT_ELEM_F32,
                   d->a.lse.data ? lse : NULL, at_cpu_attn_scale(&d->a));
    if (d->a.lse.data)
        at_cpu_attn_store_lse(l, &d->a, &d->seq[w->seq], lse);
}

/* The heads of one query row, through all their chunks. */
void at_cpu_dots_alone(const struct at_simd *t, const struct at_cpu_schedule *d,
                       const struct at_item *w, void *steps, float *scratch)
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

void at_cpu_dots_chunk(const struct at_simd *t, const struct at_cpu_schedule *d,
                       const struct at_item *w, float *partial, void *steps, float *scratch)
{
    struct at_lanes l;
    int64_t own = partial ? 0 : at_simd_dots_state_floats(t->dots_rows, d->a.dv);
    float *state = partial ? partial : scratch;
    dots_lanes(&l, d, w);
    l.programs = d->programs;
    l.steps = steps;
    run_chunk(t, d, w, &l, w->first, state, scratch + own);
    if (!partial)
        finish_dots(t, d, w, &l, state);
}

void at_cpu_dots_join(const struct at_simd *t, const struct at_cpu_schedule *d,
                      const struct at_item *w, float *state, int64_t apart)
{
    struct at_lanes l;
    dots_lanes(&l, d, w);
    for (int64_t c = 1; c < w->count; c++)
        t->dots_merge(state, state + c * apart, l.n, d->a.dv, at_cpu_attn_scale(&d->a));
    finish_dots(t, d, w, &l, state);
}
