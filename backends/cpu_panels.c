/* SPDX-License-Identifier: MIT */
/* Items of many rows: panels of them go over blocks of keys together, so that a block is packed
 * once, and what comes next is brought into the cache meanwhile. */
#include <string.h>

#include "cpu_attn.h"

#define KEYS_AHEAD 24 /* that a panel brings into the cache */

/* Of one item: scratch, and where its rows are. */
struct panels {
    const struct at_simd *t;
    const struct at_cpu_schedule *d;
    const struct at_item *w, *after; /* after: the item that comes next, or NULL */
    float *q, *state, *st, *k, *v;
    void *steps; /* scratch of programs */
    int64_t q_floats, state_floats;
    bool any[AT_CPU_PANELS];   /* has acc of the panel's state anything in it yet? */
    bool ended[AT_CPU_PANELS]; /* is the panel finished? */
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
    at_cpu_attn_scores(p->t, &p->d->a, p->w, l, p->q + panel * p->q_floats, k, p->st, j0, from, to,
                       mask);
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
    bool edited = at_cpu_attn_edits(a) || mask == AT_COVER_PARTIAL;
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
        at_cpu_attn_drop(p->t, a, p->w, l, p->st + (from - j0) * l->stride, from, to);
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
        enum at_cover mask = at_cpu_attn_cover(p->d, p->w, i0, i1, from, next);
        while (next < to && at_cpu_attn_cover(p->d, p->w, i0, i1, next, next + 1) == mask)
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
        at_cpu_attn_store_lse(l, a, &p->d->seq[p->w->seq], lse);
}

static int block_values(const struct panels *p, int64_t j0, int64_t from, int64_t to)
{
    const struct at_attn *a = &p->d->a;
    struct at_rows v;
    int odd = 0;
    for (int64_t j = from; j < to; j += v.n) {
        v = at_cpu_attn_fetch(a, &a->v, p->w, j, to, p->k); /* keys come there after values */
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

static struct at_keys item_keys(const struct at_cpu_schedule *d, const struct at_item *w)
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
        rows = at_cpu_attn_key_rows(&p->d->a, v, p->next.w, j, to);
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
    struct at_lanes lanes[AT_CPU_PANELS];
    int n = (int)at_ceil_div(w->count, t->rows_per_panel), ratio = at_cpu_attn_ratio(a);
    int64_t i0 = w->first / ratio, i1 = (w->first + w->count - 1) / ratio + 1;
    struct at_keys all = item_keys(p->d, w);
    int64_t size = t->keys_per_block, begin = all.first / size * size;
    bool single = begin + size >= all.end, begun = false;
    int own = single ? 0 : -1, near = single ? 1 : -1; /* which bits of i choose state and lanes */
    place_panel(p, &lanes[0], w, 0);
    for (int64_t j0 = begin; j0 < all.end && all.first < all.end; j0 += size) {
        int64_t from = at_max(j0, all.first), to = at_min(j0 + size, all.end);
        if (at_cpu_attn_cover(p->d, w, i0, i1, from, to) == AT_COVER_EMPTY)
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

void at_cpu_panels_run(const struct at_simd *t, const struct at_cpu_schedule *d,
                       const struct at_item *w, const struct at_item *after, void *steps,
                       float *scratch)
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
    p.state = p.q + AT_CPU_PANELS * p.q_floats;
    p.st = p.state + AT_CPU_PANELS * p.state_floats;
    p.v = p.st + at_simd_block_floats(t);
    p.k = p.v + at_simd_v_floats(t, d->a.dv);
    walk_panels(&p);
}
