/* SPDX-License-Identifier: MIT */
/* The rows of a work item as lanes, its keys as rows for the block functions, and what is done to
 * scores between `scores` and `softmax_step`. */
#include <math.h>

#include "cpu_attn.h"
#include "half.h"

/* ---- rows and keys ---- */

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

void at_cpu_attn_store_lse(const struct at_lanes *l, const struct at_attn *a,
                           const struct at_seq *q, const float *lse)
{
    for (int r = 0; r < l->n; r++)
        *(float *)at_view_at(&a->lse, q->qb * a->lse.stride[0] + l->h[r] * a->lse.stride[1] +
                                          (q->q0 + l->i[r]) * a->lse.stride[2]) = lse[r];
}

/* Keys of group g from j0 on, at most up to j1, as rows for the block functions: as many as follow
 * each other in memory, all of them unless they are paged. */
struct at_rows at_cpu_attn_key_rows(const struct at_attn *a, const struct at_view *v,
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
struct at_rows at_cpu_attn_fetch(const struct at_attn *a, const struct at_view *v,
                                 const struct at_item *w, int64_t j0, int64_t j1, float *stage)
{
    struct at_rows rows = at_cpu_attn_key_rows(a, v, w, j0, j1);
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

struct at_rows at_cpu_attn_keys(const struct at_simd *t, const struct at_attn *a,
                                const struct at_item *w, int64_t j0, int64_t from, int64_t to,
                                float *buffer)
{
    struct at_rows k = at_cpu_attn_fetch(a, &a->k, w, from, to, buffer);
    if (k.type != AT_ELEM_F32 || k.n < to - from) {
        for (int64_t j = from; j < to; j += k.n) {
            k = at_cpu_attn_fetch(a, &a->k, w, j, to, buffer + (j - from) * a->dk);
            if (k.base != buffer + (j - from) * a->dk)
                t->pack_k(buffer + (j - from) * a->dk, &k);
        }
        k = (struct at_rows){buffer, a->dk, to - from, a->dk, AT_ELEM_F32};
    }
    k.base = (const float *)k.base - (from - j0) * k.stride;
    return k;
}

/* ---- what is done to scores between `scores` and `softmax_step` ---- */

/* Is there more to do than to hide? */
bool at_cpu_attn_edits(const struct at_attn *a)
{
    return a->additive || a->softcap > 0 || a->alibi || a->bias.data || a->score_expr;
}

/* What masks leave of keys [j0, j1) to lanes from `first` to `last`. */
enum at_cover at_cpu_attn_cover(const struct at_cpu_schedule *d, const struct at_item *w,
                                int64_t i0, int64_t i1, int64_t j0, int64_t j1)
{
    int64_t ratio = at_cpu_attn_ratio(&d->a), h = w->group * ratio;
    return d->blocks ? at_schedule_cover(d->blocks, w->seq, h, h + ratio, i0, i1, j0, j1)
                     : AT_COVER_FULL;
}

/* Scores are q . k times this.  Where nothing edits them the softmax scales, which loses nothing; a
 * negative scale turns q around, and a scale of 0 makes q 0.  Additive scores are not linear in q.
 */
float at_cpu_attn_q_factor(const struct at_attn *a)
{
    return a->additive || a->scale > 0 ? 1.0f : a->scale < 0 ? -1.0f : 0.0f;
}

float at_cpu_attn_scale(const struct at_attn *a)
{
    return at_cpu_attn_edits(a) || a->scale == 0 ? 1 : fabsf(a->scale);
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
void at_cpu_attn_edit(const struct at_simd *t, const struct at_attn *a, const struct at_item *w,
                      const struct at_lanes *l, float *st, int64_t j0, int64_t j1,
                      enum at_cover mask)
{
    if (at_cpu_attn_edits(a))
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
    t->pack_q(qp, l->q, (enum at_elem)at_cpu_elem(a->q.type), a->dk, at_cpu_attn_q_factor(a));
    if (a->additive)
        t->additive_pack_q(qp, a->dk);
}

void at_cpu_attn_scores(const struct at_simd *t, const struct at_attn *a, const struct at_item *w,
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
    at_cpu_attn_edit(t, a, w, l, st + (from - j0) * l->stride, from, to, mask);
}

/* Weights of keys [j0, j1), the first at st, after the last softmax_step of their block. */
void at_cpu_attn_drop(const struct at_simd *t, const struct at_attn *a, const struct at_item *w,
                      const struct at_lanes *l, float *st, int64_t j0, int64_t j1)
{
    uint32_t i[AT_MAX_LANES], bh[AT_MAX_LANES];
    for (int r = 0; r < l->n; r++) {
        i[r] = (uint32_t)l->i[r];
        bh[r] = (uint32_t)(w->seq * a->nh + l->h[r]);
    }
    t->dropout(st, l->stride, l->n, j0, j1, &a->dropout, i, bh);
}
