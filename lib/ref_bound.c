/* SPDX-License-Identifier: MIT */
/* How far sound f32 attention may be from the reference: computed for each element, not chosen.
 *
 * u = 2^-24 is half an ulp of 1 in f32; a sum of n terms in any order is off by at most n u of the
 * sum of magnitudes.  With M the largest score of the row (the sink's too) and a reference m that
 * lags it by up to LAG = 24 ln 2, the exponent of key j is wrong by at most
 *
 *     e_j = u ((dk + 6) scale sum_d |q_d k_jd|     products, their sum, scale and log2 e folded in
 *              + 4 (|alibi_j| + |bias_j|)          two products and two sums
 *              + 8 softcap                         tanh through exp: absolute, of softcap
 *              + 4 (|s_j| + |M| + LAG))            s - m, and the moves of m from then on
 *
 * (|d softcap / ds| <= 1, so errors pass it without growing).  Additive scores have (dk + 32) scale
 * sum_d |va_d| in place of the first line: as 1 - 2 / (1 + e^2q e^2k), a tanh is good to 20 u where
 * q and k are at most 10, of which 9 u are those of the exponents.  exp2 is good to 2 ulp = 4 u; m
 * moves at most once in 12 keys, each time by a factor that is good to 6 u.  So a weight is wrong
 * by a factor within exp(+-r_j), where TERMS nk counts the nk additions and the moves:
 *
 *     r_j = e_j + u (TERMS nk + 18),    TERMS = 1 + 6 / 12
 *
 * The same holds for their sum l.  With p_j the exact normalised weights, w_j = expm1(r_j) and
 * B = sum_j p_j w_j (the sink's among them):
 *
 *     |O~ - O| <= (sum_j p_j w_j |v_j| + |O| B) / (1 - B) + eps_o |O| + tiny sum_j |v_j|
 *     |LSE~ - LSE| <= B / (1 - B) + 4 u (|M| + LAG + |LSE|)
 *
 * where eps_o is the rounding of the stored result, and the last term of O is for weights that
 * cannot be held: tiny is 2^-126, of f32.  Where v is f16, weights may meet it as sums of two f16,
 * good to 2^-21 (8 u: what TERMS leaves for moves that are rarer than one in 12 keys, and LAG for
 * an m that lags less, pays for them), or to half of f16's last place, 2^-25; with the largest at
 * least 2^7 that is 2^-32 of it.  Where B reaches 1 nothing is promised: infinity.
 *
 * With tf32 both operands of a product may have been rounded to 10 bits after the first, each by a
 * factor within 1 +- 2^-11: then a product is off by TF32 = 2^-10 + 2^-22 of itself, beside what
 * f32 does.  That is the first line of e_j once more, with TF32 for (dk + 6) u, and TF32 exp(r_j)
 * in each weight that meets a value, though not in l. */
#include <math.h>

#include "ref.h"

static const double U = 0x1p-24, TERMS = 1.5, TF32 = 0x1p-10 + 0x1p-22;
static const double LAG = 16.635532333438686; /* 24 ln 2 */

static double rounding(attend_type type)
{
    return type == ATTEND_F16 ? 0x1p-11 : type == ATTEND_BF16 ? 0x1p-8 : U;
}

/* What a weight may lack because it is too small. */
static double tiny(attend_type v)
{
    return v == ATTEND_F16 ? 0x1p-32 : 0x1p-126;
}

/* scale sum_d |q_d k_jd|, or |va_d| where scores are additive: tanh is at most 1. */
static double magnitude(const struct at_ref_row *r, int64_t j)
{
    double k[AT_MAX_HEAD], sum = 0;
    at_ref_key(r, j, k);
    for (int64_t d = 0; d < r->a->dk; d++)
        sum += fabs(r->a->additive ? (double)r->a->additive[d] : r->q[d] * k[d]);
    return fabs((double)r->a->scale) * sum;
}

/* M, or 0 where nothing is visible. */
static double largest(const struct at_ref_row *r, struct at_keys keys)
{
    double m = r->a->sinks ? (double)r->a->sinks[r->h] : -(double)INFINITY, s;
    for (int64_t j = keys.first; j < keys.end; j++) {
        at_ref_scores(r, j, 1, &s);
        m = fmax(m, s);
    }
    return m == -(double)INFINITY ? 0 : m;
}

/* e_j of a visible key, whose score goes into *s: the score expression's share is what it states
 * for an argument that is that far off.  0 where it is -inf for certain. */
static double exponent_error(const struct at_ref_row *r, int64_t j, double plain, double m,
                             double product, double *s)
{
    double error =
        plain == -(double)INFINITY
            ? 0
            : (U * (double)(r->a->dk + (r->a->additive ? 32 : 6)) + product) * magnitude(r, j) +
                  U * (4 * (fabs(at_ref_alibi(r, j)) + fabs(at_ref_added(r, j))) +
                       8 * (double)r->a->softcap);
    *s = at_ref_score(r, j, plain, &error);
    bool none =
        *s == -(double)INFINITY && (error == 0 || plain == *s); /* -inf stays -inf in f32, too */
    return none ? 0 : error + U * 4 * (fabs(*s) + fabs(m) + LAG);
}

/* p w, where p = exp(s): in a form that does not overflow where p underflows. */
static double weight_error(double s, double error)
{
    return error < 1 ? exp(s) * expm1(error) : exp(s + error);
}

void at_ref_attention_bound(const struct at_attn *a, attend_precision precision, int64_t n,
                            int64_t h, int64_t i, double *bound_o, double *bound_lse)
{
    struct at_ref_row r;
    double o[AT_MAX_HEAD], v[AT_MAX_HEAD], lse, s, b = 0;
    double product = precision == ATTEND_TF32 ? TF32 : 0;
    at_ref_attention_row(a, n, h, i, o, &lse);
    at_ref_row_begin(&r, a, n, h, i);
    struct at_keys keys = at_key_range(&a->visible, r.seq, i, i + 1);
    double m = largest(&r, keys), sums = U * (TERMS * (double)(keys.end - keys.first) + 18);
    for (int64_t d = 0; d < a->dv; d++)
        bound_o[d] = 0;

    for (int64_t j = keys.first; j < keys.end; j++) {
        double plain = at_ref_plain_score(&r, j);
        if (plain == -(double)INFINITY && (!a->score_expr || at_ref_hides(&r, j)))
            continue;
        double error = exponent_error(&r, j, plain, m, product, &s);
        if (s == -(double)INFINITY && error == 0)
            continue;
        double pw = weight_error(s - lse, error + sums);
        at_ref_value(&r, j, v);
        double rounded = product * (pw + exp(s - lse));
        double share = (pw + rounded + tiny(a->v.type)) * at_ref_dropout(&r, j);
        for (int64_t d = 0; d < a->dv; d++)
            bound_o[d] += share * fabs(v[d]);
        b += pw;
    }
    if (a->sinks && lse != -(double)INFINITY) {
        double z = (double)a->sinks[h];
        b += weight_error(z - lse, U * 4 * (fabs(z) + fabs(m) + LAG) + sums);
    }
    for (int64_t d = 0; d < a->dv; d++)
        bound_o[d] =
            b < 1 ? (bound_o[d] + fabs(o[d]) * b) / (1 - b) + rounding(a->o.type) * fabs(o[d])
                  : (double)INFINITY;
    if (bound_lse)
        *bound_lse = lse == -(double)INFINITY ? 0
                     : b < 1                  ? b / (1 - b) + 4 * U * (fabs(m) + LAG + fabs(lse))
                                              : (double)INFINITY;
}
