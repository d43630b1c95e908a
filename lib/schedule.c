/* SPDX-License-Identifier: MIT */
/* Which blocks of keys irregular masks leave to which rows: boxes of 1024 by 1024 are asked first,
 * and only those that are partial by 64. */
#include "schedule.h"

#include <string.h>

enum { GROUP = 16 }; /* blocks in a large one, along an axis */

/* ---- sources ---- */

int at_source_init(attend_ctx *ctx, struct at_source *s, const struct at_expr *x,
                   const struct at_view *capture)
{
    memset(s, 0, sizeof *s);
    s->x = x;
    for (int k = 0; k < x->nload; k++) {
        const struct at_view *v = &capture[x->node[x->load[k]].capture];
        if (!v->data)
            continue;
        s->minmax[k] = at_minmax_new(ctx, x, k, v);
        if (!s->minmax[k]) {
            at_source_fini(ctx, s);
            return ATTEND_ENOMEM;
        }
    }
    return 0;
}

void at_source_fini(attend_ctx *ctx, struct at_source *s)
{
    for (int k = 0; k < AT_EXPR_LOADS; k++) {
        at_minmax_free(ctx, s->minmax[k]);
        s->minmax[k] = NULL;
    }
}

void at_source_of_mask(struct at_expr *x, const int64_t *shape)
{
    at_expr_init(x, false);
    at_expr_add_capture(x, "mask", ATTEND_BOOL, 4, NULL, 0);
    at_expr_finish(x, at_expr_blocks(x, 0, shape, 1, 1));
}

/* ---- building one list ---- */

struct build {
    struct at_schedule *d;
    const struct at_visible *v;
    const struct at_seq *seq;
    const struct at_source *const *src;
    int nsrc;
    struct at_expr_box box; /* b, h, sq and skv of the list */
    uint8_t *large;         /* covers of large boxes of the current large row */
};

static struct at_interval point(int64_t x)
{
    return (struct at_interval){x, x};
}

/* What the sources together leave of rows [i0, i1) and keys [j0, j1). */
static enum at_cover ask(struct build *w, int64_t i0, int64_t i1, int64_t j0, int64_t j1)
{
    enum at_cover cover = AT_COVER_FULL;
    w->box.i = (struct at_interval){i0, i1 - 1};
    w->box.j = (struct at_interval){j0, j1 - 1};
    for (int k = 0; k < w->nsrc && cover != AT_COVER_EMPTY; k++) {
        w->d->evaluated++;
        w->box.minmax = w->src[k]->minmax;
        enum at_cover c = at_expr_cover(w->src[k]->x, &w->box);
        cover = c < cover ? c : cover;
    }
    return cover;
}

/* Blocks [first, end), joined to the run before them where they can be; row: where its runs begin.
 */
static bool emit(struct at_schedule *d, int64_t row, int64_t first, int64_t end, bool full)
{
    struct at_run *last = d->nrun > row ? &d->run[d->nrun - 1] : NULL;
    if (last && last->end == first && last->full == full) {
        last->end = (int32_t)end;
        return true;
    }
    if (!at_grow(d->ctx, (void **)&d->run, &d->cap_run, d->nrun, sizeof *d->run))
        return false;
    d->run[d->nrun++] = (struct at_run){(int32_t)first, (int32_t)end, full};
    return true;
}

/* The large boxes of the large row at block row r, as far as affine visibility reaches. */
static void ask_large(struct build *w, int64_t r)
{
    int64_t i0 = r * AT_BLOCK, i1 = at_min(w->seq->nq, (r + GROUP) * AT_BLOCK);
    const int64_t size = GROUP * AT_BLOCK;
    struct at_keys keys = at_key_range(w->v, w->seq, i0, i1);
    for (int64_t k = keys.first / size; k * size < keys.end; k++)
        w->large[k] = (uint8_t)ask(w, i0, i1, k * size, at_min(w->seq->nk, (k + 1) * size));
}

/* Blocks [k0, k1) of a large box, for block row r. */
static bool list_large(struct build *w, int64_t r, int64_t row, int64_t k0, int64_t k1)
{
    enum at_cover cover = w->large[k0 / GROUP];
    int64_t i0 = r * AT_BLOCK, i1 = at_min(w->seq->nq, i0 + AT_BLOCK);
    if (cover == AT_COVER_EMPTY)
        return true;
    if (cover == AT_COVER_FULL)
        return emit(w->d, row, k0, k1, true);
    for (int64_t k = k0; k < k1; k++) {
        cover = ask(w, i0, i1, k * AT_BLOCK, at_min(w->seq->nk, (k + 1) * AT_BLOCK));
        if (cover != AT_COVER_EMPTY && !emit(w->d, row, k, k + 1, cover == AT_COVER_FULL))
            return false;
    }
    return true;
}

static bool list_row(struct build *w, int64_t r)
{
    struct at_schedule *d = w->d;
    int64_t i0 = r * AT_BLOCK, row = d->nrun;
    struct at_keys keys = at_key_range(w->v, w->seq, i0, at_min(w->seq->nq, i0 + AT_BLOCK));
    int64_t end = at_ceil_div(keys.end, AT_BLOCK);
    if (keys.first == keys.end)
        return true;
    for (int64_t k = keys.first / AT_BLOCK; k < end;) {
        int64_t next = at_min(end, (k / GROUP + 1) * GROUP);
        if (!list_large(w, r, row, k, next))
            return false;
        k = next;
    }
    return true;
}

static bool mark_start(struct at_schedule *d)
{
    if (!at_grow(d->ctx, (void **)&d->start, &d->cap_start, d->nstart, sizeof *d->start))
        return false;
    d->start[d->nstart++] = d->nrun;
    return true;
}

static bool list_rows(struct build *w, int64_t rows)
{
    for (int64_t r = 0; r < rows; r++) {
        if (r % GROUP == 0)
            ask_large(w, r);
        if (!mark_start(w->d) || !list_row(w, r))
            return false;
    }
    return mark_start(w->d);
}

static bool build_list(struct build *w, const struct at_block_list *like, struct at_interval b,
                       struct at_interval h)
{
    struct at_schedule *d = w->d;
    if (!at_grow(d->ctx, (void **)&d->list, &d->cap_list, d->nlist, sizeof *d->list))
        return false;
    w->large = at_alloc(d->ctx, w->seq->nk / (GROUP * AT_BLOCK) + 1);
    if (!w->large)
        return false;
    struct at_block_list *l = &d->list[d->nlist++];
    *l = *like;
    l->rows = at_ceil_div(w->seq->nq, AT_BLOCK);
    l->start = d->nstart;
    w->box =
        (struct at_expr_box){.b = b, .h = h, .sq = point(w->seq->nq), .skv = point(w->seq->nk)};
    bool good = list_rows(w, l->rows);
    at_free(d->ctx, w->large);
    return good;
}

/* ---- all lists ---- */

static bool reads(const struct at_source *const *src, int nsrc, enum at_expr_op variable)
{
    bool any = false;
    for (int k = 0; k < nsrc; k++)
        any = any || at_expr_reads(src[k]->x, variable);
    return any;
}

static int find_list(const struct at_schedule *d, const struct at_block_list *like)
{
    for (int k = 0; k < d->nlist; k++) {
        const struct at_block_list *l = &d->list[k];
        if (l->nq == like->nq && l->nk == like->nk && l->off == like->off && l->b == like->b &&
            l->h == like->h)
            return k;
    }
    return -1;
}

int at_schedule_build(struct at_schedule *d, const struct at_visible *v, const struct at_seq *seq,
                      int64_t nseq, int64_t nh, const struct at_source *const *src, int nsrc)
{
    bool by_b = reads(src, nsrc, AT_X_B);
    struct build w = {.d = d, .v = v, .src = src, .nsrc = nsrc};
    d->nlist = d->nof = d->nstart = d->nrun = 0;
    d->evaluated = 0;
    d->heads = reads(src, nsrc, AT_X_H) ? nh : 1;
    for (int64_t n = 0; n < nseq; n++)
        for (int64_t h = 0; h < d->heads; h++) {
            struct at_block_list like = {.nq = seq[n].nq,
                                         .nk = seq[n].nk,
                                         .off = seq[n].off,
                                         .b = by_b ? n : -1,
                                         .h = d->heads > 1 ? h : -1};
            int found = find_list(d, &like);
            w.seq = &seq[n];
            if (found < 0 && !build_list(&w, &like, point(n), point(h)))
                return ATTEND_ENOMEM;
            if (!at_grow(d->ctx, (void **)&d->of, &d->cap_of, d->nof, sizeof *d->of))
                return ATTEND_ENOMEM;
            d->of[d->nof++] = found < 0 ? d->nlist - 1 : found;
        }
    return 0;
}

void at_schedule_free(struct at_schedule *d)
{
    at_free(d->ctx, d->list);
    at_free(d->ctx, d->of);
    at_free(d->ctx, d->start);
    at_free(d->ctx, d->run);
    memset(d, 0, sizeof *d);
}

/* ---- questions ---- */

/* Of block row r and blocks of keys [k0, k1): the run that ends after k0, if it begins there, and
 * what else there is. */
static enum at_cover cover_row(const struct at_schedule *d, const struct at_block_list *l,
                               int64_t r, int64_t k0, int64_t k1)
{
    int64_t low = d->start[l->start + r], end = d->start[l->start + r + 1], high = end;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (d->run[middle].end <= k0)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == end || d->run[low].first >= k1)
        return AT_COVER_EMPTY;
    const struct at_run *run = &d->run[low];
    return run->full && run->first <= k0 && run->end >= k1 ? AT_COVER_FULL : AT_COVER_PARTIAL;
}

enum at_cover at_schedule_cover(const struct at_schedule *d, int64_t n, int64_t h0, int64_t h1,
                                int64_t i0, int64_t i1, int64_t j0, int64_t j1)
{
    int64_t k0 = j0 / AT_BLOCK, k1 = at_ceil_div(j1, AT_BLOCK);
    bool all_empty = true, all_full = true;
    if (d->heads == 1)
        h0 = 0, h1 = 1;
    for (int64_t h = h0; h < h1; h++) {
        const struct at_block_list *l = at_schedule_list(d, n, h);
        for (int64_t r = i0 / AT_BLOCK; r * AT_BLOCK < i1; r++) {
            enum at_cover c = cover_row(d, l, r, k0, k1);
            all_empty = all_empty && c == AT_COVER_EMPTY;
            all_full = all_full && c == AT_COVER_FULL;
        }
    }
    return all_empty ? AT_COVER_EMPTY : all_full ? AT_COVER_FULL : AT_COVER_PARTIAL;
}
