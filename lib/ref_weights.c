/* SPDX-License-Identifier: MIT */
/* What attention weights mean: p_ij = exp(s_ij - lse_i), 0 where key j is hidden from row i, and
 * what is kept of them. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "ref.h"

/* One row (or more) at work, and where its weights go. */
struct weights {
    struct attend_exec *x;
    const struct at_attn *a;
    const struct at_weights *p;
    const struct at_view *out, *index; /* (B, H, rows, keys) */
    int64_t each;                      /* the most items that a head of a sequence has */
    double *sum;                       /* scratch: of columns or cells, or the top of a row */
};

/* The scores of a row that are the largest, falling, equal ones by their key. */
struct top {
    double *score;
    int64_t *key, n;
};

/* fn for each visible key, in order. */
static void each_key(const struct at_ref_row *r, void *arg,
                     void (*fn)(void *arg, int64_t j, double score))
{
    double score[AT_REF_KEYS];
    struct at_keys keys = at_key_range(&r->a->visible, r->seq, r->i, r->i + 1);
    for (int64_t j = keys.first; j < keys.end; j += AT_REF_KEYS) {
        int64_t count = at_min(AT_REF_KEYS, keys.end - j);
        at_ref_scores(r, j, count, score);
        for (int64_t e = 0; e < count; e++)
            if (score[e] != -(double)INFINITY)
                fn(arg, j + e, score[e]);
    }
}

/* A sum of e^s, kept as that of e^(s - m) for the largest s so far. */
struct sum {
    double m, l;
};

static void add_score(void *arg, int64_t j, double score)
{
    struct sum *t = arg;
    double m = fmax(t->m, score);
    (void)j;
    t->l = t->l * exp(t->m - m) + exp(score - m);
    t->m = m;
}

/* The LSE that is given, or the row's own. */
static double lse_of(const struct at_ref_row *r)
{
    const struct at_view *v = &r->a->lse;
    struct sum t = {-DBL_MAX, 0};
    if (v->data)
        return at_ref_get(v, r->seq->qb * v->stride[0] + r->h * v->stride[1] +
                                 (r->seq->q0 + r->i) * v->stride[2]);
    each_key(r, &t, add_score);
    if (r->a->sinks)
        add_score(&t, 0, (double)r->a->sinks[r->h]);
    return t.m + log(t.l);
}

static int64_t place(const struct at_view *v, const struct at_ref_row *r, int64_t row, int64_t k)
{
    const int64_t *st = v->stride;
    return r->n * st[0] + r->h * st[1] + row * st[2] + k * st[3];
}

static void put(const struct at_view *v, const struct at_ref_row *r, int64_t row, int64_t k,
                double x)
{
    at_ref_set(v, place(v, r, row, k), x);
}

/* ---- what is kept ---- */

struct kept {
    const struct weights *w;
    const struct at_ref_row *r;
    double lse;
    int64_t row;
    struct top top;
};

static void keep_dense(void *arg, int64_t j, double score)
{
    const struct kept *k = arg;
    put(k->w->out, k->r, k->row, k->r->seq->k0 + j, exp(score - k->lse));
}

static void dense_row(const struct weights *w, const struct at_ref_row *r)
{
    struct kept k = {.w = w, .r = r, .lse = lse_of(r), .row = r->seq->q0 + r->i - w->p->first};
    for (int64_t j = 0; j < w->out->shape[3]; j++)
        put(w->out, r, k.row, j, 0);
    each_key(r, &k, keep_dense);
}

static void keep_top(void *arg, int64_t j, double score)
{
    struct kept *k = arg;
    struct top *t = &k->top;
    int64_t most = k->w->p->k, at;
    if (t->n == most && !(score > t->score[most - 1]))
        return;
    at = t->n < most ? t->n++ : most - 1;
    for (; at > 0 && score > t->score[at - 1]; at--) {
        t->score[at] = t->score[at - 1];
        t->key[at] = t->key[at - 1];
    }
    t->score[at] = score;
    t->key[at] = j;
}

static void top_row(const struct weights *w, const struct at_ref_row *r)
{
    struct kept k = {.w = w, .r = r, .lse = lse_of(r)};
    k.top.score = w->sum;
    k.top.key = (int64_t *)(w->sum + w->p->k);
    each_key(r, &k, keep_top);
    for (int64_t e = 0; e < w->p->k; e++) {
        put(w->out, r, r->seq->q0 + r->i, e, e < k.top.n ? exp(k.top.score[e] - k.lse) : 0);
        if (w->index->data)
            ((int32_t *)w->index->data)[place(w->index, r, r->seq->q0 + r->i, e)] =
                e < k.top.n ? (int32_t)(r->seq->k0 + k.top.key[e]) : -1;
    }
}

static void keep_column(void *arg, int64_t j, double score)
{
    const struct kept *k = arg;
    k->w->sum[j] += exp(score - k->lse);
}

static void keep_cell(void *arg, int64_t j, double score)
{
    const struct kept *k = arg;
    k->w->sum[at_weights_cell(j, at_weights_keys(k->w->a, k->r->n), k->w->p->cols)] +=
        exp(score - k->lse);
}

/* Rows [i0, i1) of a head, added up in w->sum. */
static void add_rows(const struct weights *w, int64_t n, int64_t h, int64_t i0, int64_t i1,
                     void (*keep)(void *arg, int64_t j, double score))
{
    struct at_ref_row r;
    for (int64_t i = i0; i < i1; i++) {
        at_ref_row_begin(&r, w->a, n, h, i);
        struct kept k = {.w = w, .r = &r, .lse = lse_of(&r)};
        each_key(&r, &k, keep);
    }
}

static void columns(const struct weights *w, int64_t n, int64_t h)
{
    struct at_ref_row r = {.n = n, .h = h};
    int64_t keys = at_weights_keys(w->a, n);
    memset(w->sum, 0, (size_t)keys * sizeof *w->sum);
    add_rows(w, n, h, 0, w->a->seq[n].nq, keep_column);
    for (int64_t j = 0; j < keys; j++)
        put(w->out, &r, 0, w->a->seq[n].k0 + j, w->sum[j]);
}

static void cells(const struct weights *w, int64_t n, int64_t h, int64_t row)
{
    int64_t nq = w->a->seq[n].nq, i0 = at_weights_edge(row, nq, w->p->rows),
            i1 = at_weights_edge(row + 1, nq, w->p->rows);
    struct at_ref_row r = {.n = n, .h = h};
    memset(w->sum, 0, (size_t)w->p->cols * sizeof *w->sum);
    add_rows(w, n, h, i0, i1, keep_cell);
    for (int64_t c = 0; c < w->p->cols; c++)
        put(w->out, &r, row, c, i1 > i0 ? w->sum[c] / (double)(i1 - i0) : 0);
}

/* ---- all rows ---- */

/* Items of one head of sequence n: rows of the result that it has, from *first on, or maps. */
static int64_t items(const struct weights *w, int64_t n, int64_t *first)
{
    const struct at_seq *q = &w->a->seq[n];
    *first = 0;
    if (w->p->mode == ATTEND_WEIGHTS_COLUMNS)
        return 1;
    if (w->p->mode == ATTEND_WEIGHTS_POOL)
        return w->p->rows;
    *first = at_max(0, w->p->first - q->q0);
    return at_max(0, at_min(q->nq, w->p->end - q->q0) - *first);
}

static void one_item(void *arg, int64_t item, int slot)
{
    struct weights w = *(const struct weights *)arg;
    struct at_ref_row r;
    int64_t e = item % w.each, h = item / w.each % w.a->nh, n = item / w.each / w.a->nh, first;
    if (e >= items(&w, n, &first))
        return;
    w.sum = at_slot_scratch(w.x, slot);
    if (w.p->mode == ATTEND_WEIGHTS_COLUMNS) {
        columns(&w, n, h);
    } else if (w.p->mode == ATTEND_WEIGHTS_POOL) {
        cells(&w, n, h, e);
    } else {
        at_ref_row_begin(&r, w.a, n, h, first + e);
        if (w.p->mode == ATTEND_WEIGHTS_TOPK)
            top_row(&w, &r);
        else
            dense_row(&w, &r);
    }
}

int64_t at_ref_weights_scratch(const struct at_weights *p, int64_t keys)
{
    return at_mul_size(at_max(at_max(keys, p->cols), 2 * p->k), (int64_t)sizeof(double));
}

int at_ref_weights(struct attend_exec *x, const struct at_step *s)
{
    struct at_weights p = s->p->attention.weights;
    struct at_view out = at_weights_view(x, s, 0), index = at_weights_view(x, s, 1);
    struct weights w = {.x = x, .a = at_step_state(x, s), .p = &p, .out = &out, .index = &index};
    int64_t sequences = at_weights_begin(w.a, &p, &out), first;
    for (int64_t n = 0; n < sequences; n++)
        w.each = at_max(w.each, items(&w, n, &first));
    return at_parallel(x, sequences * w.a->nh * w.each, one_item, &w);
}
