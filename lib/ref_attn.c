/* SPDX-License-Identifier: MIT */
/* What attention means: for each query row the recurrence scores, softmax_step, accumulate, finish
 * over runs of keys, and merge; and the mask, which is its own operator where it is not fused. */
#include <math.h>
#include <string.h>

#include "ref.h"

/* ---- a row of queries: its scores ---- */

/* Row `r` of head `h` of batch entry `b`, as doubles. */
static void load_head(const struct at_view *v, int64_t b, int64_t h, int64_t r, double *x)
{
    at_ref_load(v, b * v->stride[0] + h * v->stride[1] + r * v->stride[2], v->stride[3],
                v->shape[3], x, 1);
}

static void scale_head(const struct at_view *scale, int64_t entry, int64_t g, double *x, int64_t n)
{
    for (int64_t d = 0; scale->data && d < n; d++)
        x[d] *= (double)at_attn_scale(scale, entry, g);
}

void at_ref_row_begin(struct at_ref_row *r, const struct at_attn *a, int64_t n, int64_t h,
                      int64_t i)
{
    const struct at_seq *seq = &a->seq[n];
    *r = (struct at_ref_row){.a = a, .seq = seq, .n = n, .h = h, .g = h / (a->nh / a->ng), .i = i};
    load_head(&a->q, seq->qb, h, seq->q0 + i, r->q);
}

void at_ref_key(const struct at_ref_row *r, int64_t j, double *k)
{
    int64_t entry, row;
    at_key_place(r->a, r->seq, j, &entry, &row);
    load_head(&r->a->k, entry, r->g, row, k);
    scale_head(&r->a->k_scale, entry, r->g, k, r->a->dk);
}

void at_ref_value(const struct at_ref_row *r, int64_t j, double *v)
{
    int64_t entry, row;
    at_key_place(r->a, r->seq, j, &entry, &row);
    load_head(&r->a->v, entry, r->g, row, v);
    scale_head(&r->a->v_scale, entry, r->g, v, r->a->dv);
}

static double pair(const struct at_view *v, int64_t n, int64_t h, int64_t i, int64_t j)
{
    return at_ref_get(v, n * v->stride[0] + h * v->stride[1] + i * v->stride[2] + j * v->stride[3]);
}

/* What bias and bool mask do to score [n, h, i, j]: a number to add, -inf where the key is hidden.
 */
static double added(const struct at_attn *a, int64_t n, int64_t h, int64_t i, int64_t j)
{
    if (a->mask.data && pair(&a->mask, n, h, i, j) == 0)
        return -(double)INFINITY;
    return a->bias.data ? pair(&a->bias, n, h, i, j) : 0;
}

struct at_expr_point at_ref_point(const struct at_ref_row *r, int64_t j, double score)
{
    return (struct at_expr_point){.score = score,
                                  .b = r->n,
                                  .h = r->h,
                                  .i = r->i,
                                  .j = j,
                                  .sq = r->seq->nq,
                                  .skv = r->seq->nk,
                                  .capture = r->a->capture};
}

bool at_ref_hides(const struct at_ref_row *r, int64_t j)
{
    struct at_expr_point p = at_ref_point(r, j, 0);
    return (r->a->mask.data && pair(&r->a->mask, r->n, r->h, r->i, j) == 0) ||
           (r->a->mask_expr && at_expr_eval(r->a->mask_expr, &p, NULL) == 0);
}

double at_ref_added(const struct at_ref_row *r, int64_t j)
{
    return at_ref_hides(r, j) ? -(double)INFINITY : added(r->a, r->n, r->h, r->i, j);
}

double at_ref_alibi(const struct at_ref_row *r, int64_t j)
{
    if (!r->a->alibi)
        return 0;
    return -(double)r->a->alibi[r->h] * fabs((double)(r->i + r->seq->off - j));
}

double at_ref_dropout(const struct at_ref_row *r, int64_t j)
{
    uint32_t head = (uint32_t)(r->n * r->a->nh + r->h);
    return (double)at_dropout_factor(&r->a->dropout, head, (uint32_t)r->i, (uint32_t)j);
}

/* s_j = softcap(scale f(q, k_j)) + alibi + bias, f being q . k_j or va . tanh(q + k_j); -inf where
 * hidden, and k_j is then not read. */
double at_ref_plain_score(const struct at_ref_row *r, int64_t j)
{
    double k[AT_MAX_HEAD], cap = (double)r->a->softcap, add = at_ref_added(r, j), s = 0;
    if (add == -(double)INFINITY)
        return add;
    at_ref_key(r, j, k);
    for (int64_t d = 0; d < r->a->dk; d++)
        s += r->a->additive ? (double)r->a->additive[d] * tanh(r->q[d] + k[d]) : r->q[d] * k[d];
    s *= (double)r->a->scale;
    if (cap > 0)
        s = cap * tanh(s / cap);
    return s + at_ref_alibi(r, j) + add;
}

double at_ref_score(const struct at_ref_row *r, int64_t j, double plain, double *error)
{
    if (!r->a->score_expr || (plain == -(double)INFINITY && at_ref_hides(r, j)))
        return plain;
    struct at_expr_point p = at_ref_point(r, j, plain);
    p.score_error = error ? *error : 0;
    return at_expr_eval(r->a->score_expr, &p, error);
}

void at_ref_scores(const struct at_ref_row *r, int64_t j0, int64_t count, double *s)
{
    for (int64_t j = j0; j < j0 + count; j++)
        s[j - j0] = at_ref_score(r, j, at_ref_plain_score(r, j), NULL);
}

/* ---- the recurrence ---- */

/* Keys seen so far: acc = sum exp(s_j - m) v_j and l = sum exp(s_j - m), where m is the largest
 * score, -inf before any key was visible. */
struct partial {
    double m, l, acc[AT_MAX_HEAD];
};

static void rescale(struct partial *p, double m, int64_t dv)
{
    double factor = p->m == -(double)INFINITY ? 0 : exp(p->m - m); /* nothing to rescale yet */
    p->l *= factor;
    for (int64_t d = 0; d < dv; d++)
        p->acc[d] *= factor;
    p->m = m;
}

/* Scores become weights exp(s - m); m moves to the largest score, l and acc move with it. */
static void softmax_step(struct partial *p, double *s, int64_t count, int64_t dv)
{
    double m = p->m;
    for (int64_t e = 0; e < count; e++)
        m = s[e] > m ? s[e] : m;
    if (m > p->m)
        rescale(p, m, dv);
    for (int64_t e = 0; e < count; e++) {
        s[e] = s[e] == -(double)INFINITY ? 0 : exp(s[e] - m);
        p->l += s[e];
    }
}

/* acc += P V, over the visible keys alone: 0 times a hidden NaN would be NaN. */
static void accumulate(struct partial *p, const struct at_ref_row *r, int64_t j0, int64_t count,
                       const double *score, const double *weight)
{
    double v[AT_MAX_HEAD];
    for (int64_t e = 0; e < count; e++) {
        if (score[e] == -(double)INFINITY)
            continue;
        at_ref_value(r, j0 + e, v);
        double w = weight[e] * at_ref_dropout(r, j0 + e);
        for (int64_t d = 0; d < r->a->dv; d++)
            p->acc[d] += w * v[d];
    }
}

/* Two disjoint sets of keys as one. */
static void merge(struct partial *p, const struct partial *other, int64_t dv)
{
    double m = other->m > p->m ? other->m : p->m;
    double factor = other->m == -(double)INFINITY ? 0 : exp(other->m - m);
    rescale(p, m, dv);
    p->l += other->l * factor;
    for (int64_t d = 0; d < dv; d++)
        p->acc[d] += other->acc[d] * factor;
}

/* O = acc / l and LSE = m + ln l, once the sink, a key with a score but no value, has joined. */
static void finish(struct partial *p, const struct at_ref_row *r, double *o, double *lse)
{
    if (r->a->sinks) {
        struct partial sink = {.m = (double)r->a->sinks[r->h], .l = 1};
        merge(p, &sink, r->a->dv);
    }
    for (int64_t d = 0; d < r->a->dv; d++)
        o[d] = p->l == 0 ? 0 : p->acc[d] / p->l;
    if (lse)
        *lse = p->m + log(p->l);
}

void at_ref_attention_row(const struct at_attn *a, int64_t n, int64_t h, int64_t i, double *o,
                          double *lse)
{
    struct at_ref_row r;
    struct partial p = {.m = -(double)INFINITY};
    double score[AT_REF_KEYS], weight[AT_REF_KEYS];
    at_ref_row_begin(&r, a, n, h, i);
    struct at_keys keys = at_key_range(&a->visible, r.seq, i, i + 1);
    for (int64_t j = keys.first; j < keys.end; j += AT_REF_KEYS) {
        int64_t count = at_min(AT_REF_KEYS, keys.end - j);
        at_ref_scores(&r, j, count, score);
        memcpy(weight, score, sizeof weight);
        softmax_step(&p, weight, count, a->dv);
        accumulate(&p, &r, j, count, score, weight);
    }
    finish(&p, &r, o, lse);
}

/* ---- all rows ---- */

/* Row number `row` of all sequences becomes row *i of sequence *n. */
static void find_row(const struct at_attn *a, int64_t row, int64_t *n, int64_t *i)
{
    *n = 0;
    while (row >= a->seq[*n].nq)
        row -= a->seq[(*n)++].nq;
    *i = row;
}

static int each_query(struct attend_exec *x, const struct at_step *s,
                      void (*fn)(void *arg, int64_t item, int slot))
{
    struct at_attn *a = at_step_state(x, s);
    int64_t rows = 0;
    for (int64_t n = 0; n < a->nseq; n++)
        rows += a->seq[n].nq;
    return at_parallel(x, rows * a->nh, fn, a);
}

static void attention_row(void *arg, int64_t item, int slot)
{
    const struct at_attn *a = arg;
    int64_t h = item % a->nh, n, i;
    double o[AT_MAX_HEAD], lse;
    (void)slot;
    find_row(a, item / a->nh, &n, &i);
    at_ref_attention_row(a, n, h, i, o, &lse);
    int64_t b = a->seq[n].qb, q = a->seq[n].q0 + i;
    for (int64_t d = 0; d < a->dv; d++)
        at_ref_set(&a->o,
                   b * a->o.stride[0] + h * a->o.stride[1] + q * a->o.stride[2] +
                       d * a->o.stride[3],
                   o[d]);
    if (a->lse.data)
        at_ref_set(&a->lse, b * a->lse.stride[0] + h * a->lse.stride[1] + q * a->lse.stride[2],
                   lse);
}

int at_ref_attention(struct attend_exec *x, const struct at_step *s)
{
    return each_query(x, s, attention_row);
}

/* Scores with -inf where hidden, whatever they were, and the bias added elsewhere. */
static void mask_row(void *arg, int64_t item, int slot)
{
    const struct at_attn *a = arg;
    int64_t h = item % a->nh, n, i;
    (void)slot;
    find_row(a, item / a->nh, &n, &i);
    struct at_keys keys = at_key_range(&a->visible, &a->seq[n], i, i + 1);
    const int64_t *qs = a->q.stride, *os = a->o.stride;
    for (int64_t j = 0; j < a->o.shape[3]; j++) {
        double s = -(double)INFINITY;
        if (j >= keys.first && j < keys.end)
            s = added(a, n, h, i, j);
        if (s != -(double)INFINITY)
            s += at_ref_get(&a->q, n * qs[0] + h * qs[1] + i * qs[2] + j * qs[3]);
        at_ref_set(&a->o, n * os[0] + h * os[1] + i * os[2] + j * os[3], s);
    }
}

int at_ref_mask(struct attend_exec *x, const struct at_step *s)
{
    return each_query(x, s, mask_row);
}

/* ---- merge ---- */

/* The place of row r of a view whose last `inner` axes are left out. */
static int64_t row_place(const struct at_view *v, int inner, int64_t r)
{
    int64_t at = 0;
    for (int d = v->rank - inner - 1; d >= 0; d--) {
        at += r % v->shape[d] * v->stride[d];
        r /= v->shape[d];
    }
    return at;
}

/* Weights are brought to the larger LSE; both -inf is a row that saw nothing. */
int at_ref_merge(struct attend_exec *x, const struct at_step *s)
{
    const struct at_view *o1 = at_arg(x, s, 0), *l1 = at_arg(x, s, 1), *o2 = at_arg(x, s, 2),
                         *l2 = at_arg(x, s, 3), *o = at_result(x, s), *lse = at_out(x, s, 1);
    int64_t rows = 1, last = o->rank - 1;
    for (int d = 0; d < last; d++)
        rows *= o->shape[d];
    for (int64_t r = 0; r < rows; r++) {
        double a = (double)((const float *)l1->data)[row_place(l1, 0, r)];
        double b = (double)((const float *)l2->data)[row_place(l2, 0, r)];
        double top = a > b || isnan(a) ? a : b;
        bool none = isinf(top) && top < 0;
        double wa = none ? 0 : exp(a - top), wb = none ? 0 : exp(b - top), sum = wa + wb;
        if (lse)
            ((float *)lse->data)[row_place(lse, 0, r)] = none ? -INFINITY : (float)(top + log(sum));
        const float *x1 = (const float *)o1->data + row_place(o1, 1, r);
        const float *x2 = (const float *)o2->data + row_place(o2, 1, r);
        float *y = (float *)o->data + row_place(o, 1, r);
        for (int64_t d = 0; d < o->shape[last]; d++) {
            double one = wa != 0 ? wa * (double)x1[d * o1->stride[last]] : 0;
            double two = wb != 0 ? wb * (double)x2[d * o2->stride[last]] : 0;
            y[d * o->stride[last]] = (float)(none ? 0 : (one + two) / sum);
        }
    }
    return 0;
}
