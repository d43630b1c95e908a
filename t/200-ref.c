/* SPDX-License-Identifier: MIT */
/* The reference's attention against hand-computed cases and the textbook formula, and its error
 * bound against plain f32 code.  No graph, no exec. */
#include <math.h>
#include <stdlib.h>

#include "element.h"
#include "ref.h"
#include "tap.h"

static const double INF = (double)INFINITY;

/* ---- a problem over arrays of the caller's ---- */

static struct at_view view4(const float *data, int64_t b, int64_t h, int64_t s, int64_t d)
{
    return (struct at_view){
        .type = ATTEND_F32,
        .rank = 4,
        .shape = {b,         h,     s, d},
        .stride = {h * s * d, s * d, d, 1},
        .data = (void *)(uintptr_t)data
    };
}

/* Dense, one sequence: q (1, nh, nq, dk), k (1, ng, nk, dk), v (1, ng, nk, dv), scale 1. */
static struct at_attn dense(struct at_seq *seq, int64_t nh, int64_t ng, int64_t nq, int64_t nk,
                            int64_t dk, int64_t dv, const float *q, const float *k, const float *v)
{
    *seq = (struct at_seq){.nq = nq, .nk = nk};
    return (struct at_attn){
        .visible = {.left = -1, .right = -1},
        .scale = 1,
        .nh = nh,
        .ng = ng,
        .dk = dk,
        .dv = dv,
        .q = view4(q, 1, nh, nq, dk),
        .k = view4(k, 1, ng, nk, dk),
        .v = view4(v, 1, ng, nk, dv),
        .nseq = 1,
        .seq = seq
    };
}

/* One channel, one head: O and LSE of row i are what they should be. */
static void is_row(const struct at_attn *a, int64_t i, double o, double lse, const char *name)
{
    double got[AT_MAX_HEAD], got_lse;
    at_ref_attention_row(a, 0, 0, i, got, &got_lse);
    is_float(got[0], o, 1e-6, "%s", name);
    is_float(got_lse, lse, 1e-6, "%s: LSE", name);
}

/* ---- by hand: one channel, q = 1, so scores are keys ---- */

static const float one[] = {1, 1, 1, 1};
static const float keys[] = {0, 0.69314718f, 1.38629436f}; /* weights 1 : 2 : 4 */
static const float vals[] = {1, 10, 100};

static void test_hand(void)
{
    struct at_seq seq;
    struct at_attn a = dense(&seq, 1, 1, 1, 3, 1, 1, one, keys, vals);
    is_row(&a, 0, 421.0 / 7, log(7), "weights 1 : 2 : 4");

    seq.nk = 2;
    is_row(&a, 0, 21.0 / 3, log(3), "two of the keys are used");
    seq.nk = 0;
    is_row(&a, 0, 0, -INF, "no keys");

    a = dense(&seq, 1, 1, 1, 3, 1, 1, one, keys, vals);
    a.scale = 0;
    is_row(&a, 0, 37, log(3), "scale 0 is the mean");
    a.scale = 2;
    is_row(&a, 0, 1641.0 / 21, log(21), "scale 2: weights 1 : 4 : 16");

    const float sink[] = {2.0794415f}; /* ln 8 */
    a = dense(&seq, 1, 1, 1, 3, 1, 1, one, keys, vals);
    a.sinks = sink;
    is_row(&a, 0, 421.0 / 15, log(15), "a sink of weight 8");
    seq.nk = 0;
    is_row(&a, 0, 0, log(8), "the sink alone");

    a = dense(&seq, 1, 1, 1, 3, 1, 1, one, keys, vals);
    a.softcap = 1;
    double w1 = exp(0.6), w2 = exp(15.0 / 17); /* tanh ln 2, tanh ln 4 */
    is_row(&a, 0, (1 + 10 * w1 + 100 * w2) / (1 + w1 + w2), log(1 + w1 + w2), "softcap 1");

    const float slope[] = {0.69314718f};
    a = dense(&seq, 1, 1, 1, 3, 1, 1, one, keys, vals);
    a.alibi = slope;
    is_row(&a, 0, 37, log(3), "alibi 1 : 1/2 : 1/4 undoes the weights");
    seq.off = 2;
    is_row(&a, 0, 1641.0 / 21, log(21.0 / 4), "alibi 1/4 : 1/2 : 1 from the other end");
}

static void test_visible(void)
{
    struct at_seq seq;
    struct at_attn a = dense(&seq, 1, 1, 4, 3, 1, 1, one, keys, vals);
    a.visible.causal = true;
    is_row(&a, 0, 1, 0, "causal, row 0");
    is_row(&a, 1, 7, log(3), "causal, row 1");
    is_row(&a, 3, 421.0 / 7, log(7), "causal, a row past the keys");
    seq.off = -1;
    is_row(&a, 0, 0, -INF, "causal, bottom right, more rows than keys: row 0 sees none");
    is_row(&a, 1, 1, 0, "and row 1 sees one");
    seq.off = 0;
    a.visible.left = 0;
    is_row(&a, 1, 10, log(2), "causal with a window of 0 to the left: key 1 alone");
    a.visible.causal = false;
    a.visible.right = 1;
    is_row(&a, 1, 420.0 / 6, log(6), "window 0,1: keys 1 and 2");
}

/* What is hidden may hold anything; what is visible may not. */
static void test_not_finite(void)
{
    struct at_seq seq;
    float k[] = {0, NAN, 1.38629436f}, v[] = {1, INFINITY, 100}, q[] = {1};
    const float bias[] = {0, -INFINITY, 0};
    const uint8_t mask[] = {1, 0, 1};
    struct at_attn a = dense(&seq, 1, 1, 1, 3, 1, 1, q, k, v);
    is_row(&a, 0, (double)NAN, (double)NAN, "a visible NaN");
    a.bias = view4(bias, 1, 1, 1, 3);
    is_row(&a, 0, 401.0 / 5, log(5), "NaN and infinity under a bias of -inf");
    a.bias.data = NULL;
    a.mask = view4((const float *)(const void *)mask, 1, 1, 1, 3);
    a.mask.type = ATTEND_BOOL;
    is_row(&a, 0, 401.0 / 5, log(5), "and under a mask");
    a.mask.data = NULL;
    seq.nk = 1;
    is_row(&a, 0, 1, 0, "and past the used length");

    seq.nk = 3;
    k[1] = INFINITY;
    is_row(&a, 0, (double)NAN, (double)NAN, "a visible score of +inf");
    k[1] = -INFINITY;
    v[1] = NAN;
    is_row(&a, 0, 401.0 / 5, log(5), "a score of -inf hides");
    k[1] = 0;
    is_row(&a, 0, (double)NAN, log(6), "a visible value of NaN");
}

static void test_heads(void)
{
    struct at_seq seq;
    const float q[4] = {0}, k[2] = {0}, v[] = {1, 2, 3, 4};
    struct at_attn a = dense(&seq, 4, 2, 1, 1, 1, 2, q, k, v);
    double o[2];
    for (int h = 0; h < 4; h++) {
        at_ref_attention_row(&a, 0, h, 0, o, NULL);
        ok(o[0] == 1 + h / 2 * 2 && o[1] == 2 + h / 2 * 2, "head %d of 4 reads group %d of 2", h,
           h / 2);
    }
}

/* ---- random problems with everything on ---- */

enum { NB = 2, NH = 4, NG = 2, NQ = 5, NK = 150, DK = 24, DV = 20 };

static uint64_t seed = 200;

/* In [-1, 1). */
static float draw(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (float)(seed >> 40) * 0x1p-23f - 1;
}

static void fill(float *x, size_t n, float size)
{
    for (size_t k = 0; k < n; k++)
        x[k] = size * draw();
}

struct random {
    float q[NB * NH * NQ * DK], k[NB * NG * NK * DK], v[NB * NG * NK * DV];
    float bias[NH * NQ * NK], alibi[NH], sinks[NH];
    uint8_t mask[NB * NK];
    struct at_seq seq[NB];
    struct at_attn a;
};

/* Two sequences; a bias without batch, a mask of keys only. */
static void draw_problem(struct random *r, float size)
{
    fill(r->q, NELEM(r->q), size);
    fill(r->k, NELEM(r->k), size);
    fill(r->v, NELEM(r->v), 1);
    fill(r->bias, NELEM(r->bias), 1);
    fill(r->sinks, NELEM(r->sinks), 1);
    for (int h = 0; h < NH; h++)
        r->alibi[h] = 0.01f * (float)h;
    for (int k = 0; k < NB * NK; k++)
        r->mask[k] = draw() > -0.5f;
    r->a = dense(&r->seq[0], NH, NG, NQ, NK, DK, DV, r->q, r->k, r->v);
    r->a.q.shape[0] = r->a.k.shape[0] = r->a.v.shape[0] = r->a.nseq = NB;
    r->a.o = view4(NULL, NB, NH, NQ, DV);
    r->seq[0] = (struct at_seq){.nq = NQ, .nk = NK, .off = NK - NQ};
    r->seq[1] = (struct at_seq){.qb = 1, .kb = 1, .nq = NQ, .nk = NK - 31, .off = 40};
    r->a.visible = (struct at_visible){.causal = true, .left = 120, .right = -1};
    r->a.scale = 0.3f;
    r->a.softcap = 5;
    r->a.alibi = r->alibi;
    r->a.sinks = r->sinks;
    r->a.bias = view4(r->bias, 1, NH, NQ, NK);
    r->a.bias.stride[0] = 0;
    r->a.mask = (struct at_view){
        .type = ATTEND_BOOL,
        .rank = 4,
        .shape = {NB, 1, 1, NK},
        .stride = {NK, 0, 0, 1 },
        .data = r->mask
    };
}

static double as_f64(double x)
{
    return x;
}

/* Rounding a double's sum or product of two floats gives what f32 arithmetic gives. */
static double as_f32(double x)
{
    return (double)(float)x;
}

/* An operand of tf32: a float with 10 bits after the first, halves away from 0. */
static double as_tf32(double x)
{
    float f = (float)x;
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    bits = (bits + 0x1000) & 0xffffe000;
    memcpy(&f, &bits, sizeof f);
    return (double)f;
}

/* What results, and operands of products, are rounded to. */
struct arithmetic {
    double (*as)(double), (*operand)(double);
};
static const struct arithmetic f64 = {as_f64, as_f64}, f32 = {as_f32, as_f64},
                               tf32 = {as_f32, as_tf32};

static double score(const struct random *r, int n, int h, int i, int j, struct arithmetic in)
{
    double (*as)(double) = in.as;
    const float *q = &r->q[((n * NH + h) * NQ + i) * DK],
                *k = &r->k[((n * NG + h / 2) * NK + j) * DK];
    int p = i + (int)r->seq[n].off;
    if (j >= r->seq[n].nk || j > p || j < p - 120 || !r->mask[n * NK + j])
        return -INF;
    double s = 0;
    for (int d = 0; d < DK; d++)
        s = as(s + as(in.operand((double)q[d]) * in.operand((double)k[d])));
    s = as(5 * as(tanh(as(as(s * (double)r->a.scale) / 5))));
    s = as(s - as((double)r->alibi[h] * abs(p - j)));
    return as(s + (double)r->bias[(h * NQ + i) * NK + j]);
}

/* Softmax written down: all scores of a row, the maximum, the sums; each result rounded. */
static void textbook(const struct random *r, int n, int h, int i, double *o, struct arithmetic in)
{
    double (*as)(double) = in.as;
    double p[NK], top = (double)r->sinks[h], sum;
    for (int j = 0; j < NK; j++) {
        p[j] = score(r, n, h, i, j, in);
        top = fmax(top, p[j]);
    }
    sum = as(exp(as((double)r->sinks[h] - top)));
    for (int j = 0; j < NK; j++) {
        p[j] = as(exp(as(p[j] - top)));
        sum = as(sum + p[j]);
    }
    for (int d = 0; d < DV; d++) {
        double acc = 0;
        for (int j = 0; j < NK; j++)
            acc = as(acc + as(in.operand(p[j]) *
                              in.operand((double)r->v[((n * NG + h / 2) * NK + j) * DV + d])));
        o[d] = as(acc / sum);
    }
}

static void test_textbook(float size)
{
    static struct random r;
    double o[DV], want[DV], plain[DV], rounded[DV], bound[DV], bound_tf32[DV], bound_lse;
    double worst = 0, worst_f32 = 0, worst_tf32 = 0, beyond = 0, largest = 0;
    draw_problem(&r, size);
    for (int n = 0; n < NB; n++)
        for (int h = 0; h < NH; h++)
            for (int i = 0; i < NQ; i++) {
                at_ref_attention_row(&r.a, n, h, i, o, NULL);
                at_ref_attention_bound(&r.a, ATTEND_EXACT, n, h, i, bound, &bound_lse);
                at_ref_attention_bound(&r.a, ATTEND_TF32, n, h, i, bound_tf32, &bound_lse);
                textbook(&r, n, h, i, want, f64);
                textbook(&r, n, h, i, plain, f32);
                textbook(&r, n, h, i, rounded, tf32);
                for (int d = 0; d < DV; d++) {
                    worst = fmax(worst, fabs(o[d] - want[d]));
                    worst_f32 = fmax(worst_f32, fabs(o[d] - plain[d]) / bound[d]);
                    worst_tf32 = fmax(worst_tf32, fabs(o[d] - rounded[d]) / bound_tf32[d]);
                    beyond = fmax(beyond, fabs(o[d] - rounded[d]) / bound[d]);
                    largest = fmax(largest, bound[d]);
                }
            }
    ok(worst < 1e-13, "inputs to %g: the recurrence is the textbook's formula, to %g", (double)size,
       worst);
    ok(worst_f32 < 1, "plain f32 is within its bound: at most %.3g of it", worst_f32);
    ok(worst_f32 > 1e-3 && largest < 1e-3, "which is not loose: at most %.3g", largest);
    ok(worst_tf32 < 1 && worst_tf32 > 1e-3 && beyond > 1,
       "tf32 is within its own, at most %.3g of it, and not that of f32: %.3g", worst_tf32, beyond);
}

/* A bias of -1e9, which is how some hide keys, leaves the bound of the others as it was. */
static void test_far_bias(void)
{
    static struct random r;
    double near[DV], far[DV], lse_near, lse_far;
    draw_problem(&r, 1);
    int64_t j = r.seq[0].nk - NQ; /* seen by row 0, if no mask hides it */
    r.mask[j] = 1;
    r.bias[j] = -100;
    at_ref_attention_bound(&r.a, ATTEND_EXACT, 0, 0, 0, near, &lse_near);
    r.bias[j] = -1e9f;
    at_ref_attention_bound(&r.a, ATTEND_EXACT, 0, 0, 0, far, &lse_far);
    ok(near[0] > 0 && near[0] < 1e-3 && fabs(far[0] - near[0]) < 1e-9, "bound %g, with -1e9 %g",
       near[0], far[0]);
    ok(lse_near > 0 && lse_near < 1e-3 && fabs(lse_far - lse_near) < 1e-9, "of LSE: %g, %g",
       lse_near, lse_far);
}

/* Other types and strides are read as the numbers they hold. */
static void test_types(void)
{
    static struct random r;
    static uint16_t k16[NB * NG * NK * DK], v16[NB * NG * NK * DV];
    double want[DV], o[DV], worst = 0;
    static const attend_type types[] = {ATTEND_F16, ATTEND_BF16};
    for (size_t t = 0; t < NELEM(types); t++) {
        draw_problem(&r, 1);
        for (size_t e = 0; e < NELEM(k16); e++) {
            at_element_set(types[t], k16, (int64_t)e, (double)r.k[e]);
            r.k[e] = (float)at_element_get(types[t], k16, (int64_t)e);
        }
        for (size_t e = 0; e < NELEM(v16); e++) { /* rows of heads inside of rows of keys */
            size_t d = e % DV, j = e / DV % NK, g = e / DV / NK % NG, b = e / DV / NK / NG;
            size_t to = ((b * NK + j) * NG + g) * DV + d;
            at_element_set(types[t], v16, (int64_t)to, (double)r.v[e]);
            r.v[e] = (float)at_element_get(types[t], v16, (int64_t)to);
        }
        r.a.k.type = r.a.v.type = types[t];
        r.a.k.data = k16;
        r.a.v.data = v16;
        r.a.v.stride[1] = DV;
        r.a.v.stride[2] = NG * DV;
        for (int h = 0; h < NH; h++) {
            at_ref_attention_row(&r.a, 1, h, 2, o, NULL);
            textbook(&r, 1, h, 2, want, f64);
            for (int d = 0; d < DV; d++)
                worst = fmax(worst, fabs(o[d] - want[d]));
        }
        ok(worst < 1e-13, "keys and values in %s, values strided: to %g",
           attend_type_name(types[t]), worst);
    }
}

int main(void)
{
    test_hand();
    test_visible();
    test_not_finite();
    test_heads();
    test_textbook(1);
    test_textbook(0.1f);
    test_far_bias();
    test_types();
    return done_testing();
}
