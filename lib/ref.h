/* SPDX-License-Identifier: MIT */
/* What every operator means: plain C, sums and functions in double, one rounding when a result is
 * stored.  All types and strides that the graph allows.  The oracle of the tests, and the last
 * kernel row, so that every operator runs everywhere. */
#ifndef AT_REF_H
#define AT_REF_H

#include "core.h"
#include "element.h"
#include "expr.h"

/* ---- elements ---- */

/* Element `at` of a view. */
static inline double at_ref_get(const struct at_view *v, int64_t at)
{
    return at_element_get(v->type, v->data, at);
}

static inline void at_ref_set(const struct at_view *v, int64_t at, double x)
{
    at_element_set(v->type, v->data, at, x);
}

/* n elements of any type as doubles: element k, at `at` + k * step, becomes x[k * gap].  Blocks of
 * a quantised type are next to each other. */
void at_ref_load(const struct at_view *v, int64_t at, int64_t step, int64_t n, double *x,
                 int64_t gap);

/* Where v has place number `place` (in C order) of the axes of `like` but its last `skip`; v is
 * broadcast to `like`: right-aligned, extents equal or 1. */
int64_t at_ref_offset(const struct at_view *v, const struct at_view *like, int64_t place, int skip);
/* Places of the axes of v but its last `skip`. */
int64_t at_ref_places(const struct at_view *v, int skip);

/* ---- ref.c: rows ---- */

int at_ref_matmul(struct attend_exec *x, const struct at_step *s);
int at_ref_add(struct attend_exec *x, const struct at_step *s);
int at_ref_mul(struct attend_exec *x, const struct at_step *s);
int at_ref_scale(struct attend_exec *x, const struct at_step *s);
int at_ref_where(struct attend_exec *x, const struct at_step *s);
int at_ref_select(struct attend_exec *x, const struct at_step *s);
int at_ref_softmax(struct attend_exec *x, const struct at_step *s);
int at_ref_rms_norm(struct attend_exec *x, const struct at_step *s);
int at_ref_layer_norm(struct attend_exec *x, const struct at_step *s);
int at_ref_silu(struct attend_exec *x, const struct at_step *s);
int at_ref_silu_mul(struct attend_exec *x, const struct at_step *s);
int at_ref_gelu(struct attend_exec *x, const struct at_step *s);
int at_ref_gelu_tanh(struct attend_exec *x, const struct at_step *s);
int at_ref_tanh(struct attend_exec *x, const struct at_step *s);
int at_ref_sigmoid(struct attend_exec *x, const struct at_step *s);
int at_ref_relu(struct attend_exec *x, const struct at_step *s);
int at_ref_erf(struct attend_exec *x, const struct at_step *s);
int at_ref_pow(struct attend_exec *x, const struct at_step *s);
int at_ref_rope(struct attend_exec *x, const struct at_step *s);
int at_ref_gather(struct attend_exec *x, const struct at_step *s);
int at_ref_append(struct attend_exec *x, const struct at_step *s);
int at_ref_concat(struct attend_exec *x, const struct at_step *s);
int at_ref_cast(struct attend_exec *x, const struct at_step *s);
int at_ref_copy(struct attend_exec *x, const struct at_step *s);

/* ---- ref_attn.c, ref_weights.c ---- */

int at_ref_attention(struct attend_exec *x, const struct at_step *s);
int at_ref_mask(struct attend_exec *x, const struct at_step *s);
int at_ref_merge(struct attend_exec *x, const struct at_step *s);
int at_ref_weights(struct attend_exec *x, const struct at_step *s);

/* ---- ref_grad.c ---- */

int at_ref_sum(struct attend_exec *x, const struct at_step *s);
int at_ref_pad(struct attend_exec *x, const struct at_step *s);
int at_ref_cross_entropy(struct attend_exec *x, const struct at_step *s);
int at_ref_square_loss(struct attend_exec *x, const struct at_step *s);
int at_ref_clip(struct attend_exec *x, const struct at_step *s);
int at_ref_sgd(struct attend_exec *x, const struct at_step *s);
int at_ref_adamw(struct attend_exec *x, const struct at_step *s);
int at_ref_delta(struct attend_exec *x, const struct at_step *s);
int at_ref_attention_grad(struct attend_exec *x, const struct at_step *s);
int at_ref_mask_grad(struct attend_exec *x, const struct at_step *s);
int at_ref_merge_grad(struct attend_exec *x, const struct at_step *s);
int at_ref_function_grad(struct attend_exec *x, const struct at_step *s);
int at_ref_softmax_grad(struct attend_exec *x, const struct at_step *s);
int at_ref_norm_grad(struct attend_exec *x, const struct at_step *s);
int at_ref_gather_grad(struct attend_exec *x, const struct at_step *s);
int at_ref_cross_entropy_grad(struct attend_exec *x, const struct at_step *s);
int at_ref_square_loss_grad(struct attend_exec *x, const struct at_step *s);
int at_ref_attention_grad_prepare(attend_plan *plan, struct at_step *s, struct at_err *e);
int at_ref_attention_grad_bind(struct attend_exec *x, const struct at_step *s);

/* Bytes that at_ref_weights needs a slot. */
int64_t at_ref_weights_scratch(const struct at_weights *p, int64_t keys);
/* Bytes that at_ref_matmul needs a slot where rows of a have at most k elements. */
int64_t at_ref_matmul_scratch(int64_t k);

/* Row i of sequence n, head h: O into o[dv], LSE into *lse (NULL: not wanted), unrounded.  Needs no
 * exec; a->o and a->lse are not touched.
 *
 * A key is hidden by a mask, by a bias of -inf, or because its score is -inf (of the latter two a
 * score expression may make something else); its key (but in the last case) and its value are then
 * never read, so they may hold anything.  A visible score that is NaN or +inf makes O and LSE NaN.
 * Nothing visible gives 0 and -inf, or the sink's logit. */
void at_ref_attention_row(const struct at_attn *a, int64_t n, int64_t h, int64_t i, double *o,
                          double *lse);

/* How far a sound f32 kernel may be from that row: |O - o[d]| <= bound_o[d] and |LSE - lse| <=
 * *bound_lse.  Derived in ref_bound.c; of the precisions tf32 alone matters.  A NaN of the row asks
 * for a NaN, and its bound means nothing. */
void at_ref_attention_bound(const struct at_attn *a, attend_precision precision, int64_t n,
                            int64_t h, int64_t i, double *bound_o, double *bound_lse);

/* One query row at work, and the scores of a run of its keys: what the two functions share. */
struct at_ref_row {
    const struct at_attn *a;
    const struct at_seq *seq;
    int64_t n, h, g, i;
    double q[AT_MAX_HEAD];
};
enum { AT_REF_KEYS = 64 };
void at_ref_row_begin(struct at_ref_row *r, const struct at_attn *a, int64_t n, int64_t h,
                      int64_t i);
/* The score of key j before the score expression, -inf where the key is hidden, by a bias of -inf
 * too; and what the expression makes of it, which a mask hides all the same, but not a bias.
 * *error, where error is not NULL: how far an f32 kernel may be off, before and after. */
double at_ref_plain_score(const struct at_ref_row *r, int64_t j);
double at_ref_score(const struct at_ref_row *r, int64_t j, double plain, double *error);
/* The scores of keys [j0, j0 + count) into s, -inf where hidden. */
void at_ref_scores(const struct at_ref_row *r, int64_t j0, int64_t count, double *s);
/* Where expressions are evaluated for key j, with that score. */
struct at_expr_point at_ref_point(const struct at_ref_row *r, int64_t j, double score);
/* Rows of k and v as doubles. */
void at_ref_key(const struct at_ref_row *r, int64_t j, double *k);
void at_ref_value(const struct at_ref_row *r, int64_t j, double *v);
/* What dropout makes of weight j: a factor, 0 where it is dropped. */
double at_ref_dropout(const struct at_ref_row *r, int64_t j);
/* Do the bool mask or the mask expression hide key j? */
bool at_ref_hides(const struct at_ref_row *r, int64_t j);
/* What is added to score j: the bias, or -inf where the key is hidden by data. */
double at_ref_added(const struct at_ref_row *r, int64_t j);
/* ALiBi's part of score j: 0 without slopes. */
double at_ref_alibi(const struct at_ref_row *r, int64_t j);

#endif
