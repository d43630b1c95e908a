/* SPDX-License-Identifier: MIT */
/* How far sound f32 attention may be from the reference: computed for each element, not chosen.
 *
 * u = 2^-24 is half an ulp of 1 in f32, and sums of n terms in any order are off by n u of the sum
 * of magnitudes.  With M the largest |score| of the row, also of scores before softcap, and 24 ln 2
 * for a reference m that lags the maximum, score j is wrong by at most
 *
 *     e_j = u ((dk + 6) scale sum_d |q_d k_jd|     products, their sum, scale and log2 e folded in
 *              + 4 (|alibi_j| + |bias_j|)          two products and two sums
 *              + 8 softcap                         tanh through exp: absolute, of softcap
 *              + 4 (M + 24 ln 2))                  s - m, and the differences of m when it moves
 *
 * (|d softcap / ds| <= 1, so errors pass it without growing).  exp2 is good to 2 ulp = 4 u, and as
 * m moves at most once in 12 keys and each move multiplies by such an exp2, a weight is wrong by
 * the factor exp(+-r_j) with
 *
 *     r_j = e_j + u (TERMS nk + 16),    TERMS = 1.5: nk of the sum, nk / 12 moves of 6 u each
 *
 * which also holds for the sum of weights l.  With w_j = expm1(r_j), p_j the exact normalised
 * weights and B = sum_j p_j w_j (the sink's among them):
 *
 *     |O~ - O| <= (sum_j p_j w_j |v_j| + |O| B) / (1 - B) + eps_o |O| + 2^-126 sum_j |v_j|
 *     |LSE~ - LSE| <= B / (1 - B) + 4 u (M + 24 ln 2 + |LSE|)
 *
 * where eps_o is the rounding of the stored result, and the last term of O the weights that f32
 * cannot hold.  Where B reaches 1 nothing is promised: infinity. */
#include <math.h>

#include "ref.h"

static const double U = 0x1p-24, TINY = 0x1p-126, TERMS = 1.5;
static const double LAG = 16.635532333438686; /* 24 ln 2 */

static double rounding(attend_type type)
{
    return type == ATTEND_F16 ? 0x1p-11 : type == ATTEND_BF16 ? 0x1p-8 : U;
}

/* scale sum_d |q_d k_jd| */
static double magnitude(const struct at_ref_row *r, int64_t j)
{
    double k[AT_MAX_HEAD], sum = 0;
    at_ref_key(r, j, k);
    for (int64_t d = 0; d < r->a->dk; d++)
        sum += fabs(r->q[d] * k[d]);
    return fabs((double)r->a->scale) * sum;
}

/* M: the largest magnitude among the visible scores and the sink. */
static double largest(const struct at_ref_row *r, struct at_keys keys)
{
    double m = r->a->sinks ? fabs((double)r->a->sinks[r->h]) : 0, s;
    for (int64_t j = keys.first; j < keys.end; j++) {
        at_ref_scores(r, j, 1, &s);
        if (s != -(double)INFINITY)
            m = fmax(m, fmax(fabs(s), r->a->softcap > 0 ? (double)r->a->softcap : 0));
    }
    return m;
}

/* w_j, the relative error of weight j. */
static double weight_error(const struct at_ref_row *r, int64_t j, double m, int64_t nk)
{
    double e = (double)(r->a->dk + 6) * magnitude(r, j) +
               4 * (fabs(at_ref_alibi(r, j)) + fabs(at_ref_added(r, j))) +
               8 * (double)r->a->softcap + 4 * (m + LAG);
    return expm1(U * (e + TERMS * (double)nk + 16));
}

void at_ref_attention_bound(const struct at_attn *a, int64_t n, int64_t h, int64_t i,
                            double *bound_o, double *bound_lse)
{
    struct at_ref_row r;
    double o[AT_MAX_HEAD], v[AT_MAX_HEAD], lse, s, b = 0;
    at_ref_attention_row(a, n, h, i, o, &lse);
    at_ref_row_begin(&r, a, n, h, i);
    struct at_keys keys = at_key_range(&a->visible, r.seq, i, i + 1);
    double m = largest(&r, keys);
    for (int64_t d = 0; d < a->dv; d++)
        bound_o[d] = 0;

    for (int64_t j = keys.first; j < keys.end; j++) {
        at_ref_scores(&r, j, 1, &s);
        if (s == -(double)INFINITY)
            continue;
        double pw = exp(s - lse) * weight_error(&r, j, m, keys.end - keys.first);
        at_ref_value(&r, j, v);
        for (int64_t d = 0; d < a->dv; d++)
            bound_o[d] += (pw + TINY) * fabs(v[d]);
        b += pw;
    }
    if (a->sinks && lse != -(double)INFINITY)
        b += exp((double)a->sinks[h] - lse) *
             expm1(U * (4 * (m + LAG) + TERMS * (double)(keys.end - keys.first) + 16));
    for (int64_t d = 0; d < a->dv; d++)
        bound_o[d] =
            b < 1 ? (bound_o[d] + fabs(o[d]) * b) / (1 - b) + rounding(a->o.type) * fabs(o[d])
                  : (double)INFINITY;
    if (bound_lse)
        *bound_lse = lse == -(double)INFINITY ? 0
                     : b < 1                  ? b / (1 - b) + 4 * U * (m + LAG + fabs(lse))
                                              : (double)INFINITY;
}
