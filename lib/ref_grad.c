/* SPDX-License-Identifier: MIT */
/* What the operators of training mean, as ref.c says it: plain C, sums in double.  Sums that
 * several rows add to are taken in one order, on one thread. */
#include <math.h>
#include <string.h>

#include "ref.h"

static double number(const struct at_view *v)
{
    return v ? at_ref_get(v, 0) : 1;
}

static double value_at(const struct at_view *v, const struct at_view *like, int64_t place)
{
    return at_ref_get(v, at_ref_offset(v, like, place, 0));
}

static int64_t width(const struct at_view *v)
{
    return v->rank ? v->shape[v->rank - 1] : 1;
}

static int64_t rows(const struct at_view *v)
{
    return width(v) ? at_ref_places(v, 0) / width(v) : 0;
}

/* ---- sums ---- */

/* Each element of the result sums its box of the input. */
int at_ref_sum(struct attend_exec *x, const struct at_step *s)
{
    const struct at_view *a = at_arg(x, s, 0), *y = at_result(x, s);
    enum at_sum_mode mode = s->p->sum.mode;
    struct at_view box = *a; /* what an element sums: the axes that go */
    for (int d = 0; d < a->rank; d++) {
        int e = d - (a->rank - y->rank);
        box.shape[d] = e >= 0 && y->shape[e] == a->shape[d] ? 1 : a->shape[d];
        box.stride[d] = a->stride[d];
    }
    int64_t each = at_ref_places(&box, 0);
    for (int64_t i = 0; i < at_ref_places(y, 0); i++) {
        double sum = 0;
        int64_t from = 0, rest = i;
        for (int e = y->rank - 1; e >= 0; e--) {
            int d = e + a->rank - y->rank;
            from += rest % y->shape[e] * (y->shape[e] == 1 ? 0 : a->stride[d]);
            rest /= y->shape[e];
        }
        for (int64_t k = 0; k < each; k++) {
            double v = at_ref_get(a, from + at_ref_offset(&box, &box, k, 0));
            sum += mode == AT_SUM_SQUARES ? v * v : v;
        }
        at_ref_set(y, at_ref_offset(y, y, i, 0),
                   mode == AT_SUM_MEAN && each ? sum / (double)each : sum);
    }
    return 0;
}

int at_ref_pad(struct attend_exec *x, const struct at_step *s)
{
    const struct at_view *a = at_arg(x, s, 0), *y = at_result(x, s);
    int axis = s->p->pad.axis;
    for (int64_t i = 0; i < at_ref_places(y, 0); i++)
        at_ref_set(y, at_ref_offset(y, y, i, 0), 0);
    for (int64_t i = 0; i < at_ref_places(a, 0); i++)
        at_ref_set(y, at_ref_offset(y, a, i, 0) + s->p->pad.start * y->stride[axis],
                   at_ref_get(a, at_ref_offset(a, a, i, 0)));
    return 0;
}

/* ---- losses ---- */

static int64_t target_of(const struct at_view *t, int64_t r)
{
    return ((const int32_t *)t->data)[at_ref_offset(t, t, r, 0)];
}

static int64_t counted(const struct at_view *t)
{
    int64_t n = 0;
    for (int64_t r = 0; r < at_ref_places(t, 0); r++)
        n += target_of(t, r) >= 0;
    return n;
}

/* ln sum exp of row r */
static double lse_row(const struct at_view *a, int64_t r)
{
    int64_t n = width(a), at = r * n;
    double top = -(double)INFINITY, sum = 0;
    for (int64_t k = 0; k < n; k++)
        top = fmax(top, value_at(a, a, at + k));
    for (int64_t k = 0; k < n; k++)
        sum += exp(value_at(a, a, at + k) - top);
    return top + log(sum);
}

/* The mean over rows with a target >= 0 of ln sum exp - logit of the target; 0 where there is none.
 */
int at_ref_cross_entropy(struct attend_exec *x, const struct at_step *s)
{
    const struct at_view *a = at_arg(x, s, 0), *t = at_arg(x, s, 1);
    double sum = 0;
    for (int64_t r = 0; r < at_ref_places(t, 0); r++) {
        int64_t k = target_of(t, r);
        if (k >= width(a))
            at_exec_bad_index(x, s, r, k, width(a));
        else if (k >= 0)
            sum += lse_row(a, r) - value_at(a, a, r * width(a) + k);
    }
    at_ref_set(at_result(x, s), 0, counted(t) ? sum / (double)counted(t) : 0);
    return 0;
}

int at_ref_cross_entropy_grad(struct attend_exec *x, const struct at_step *s)
{
    const struct at_view *a = at_arg(x, s, 0), *t = at_arg(x, s, 1), *y = at_result(x, s);
    double by = number(at_arg(x, s, 2)) / (double)at_max(1, counted(t));
    for (int64_t r = 0; r < at_ref_places(t, 0); r++) {
        int64_t target = target_of(t, r);
        double lse = target < 0 ? 0 : lse_row(a, r);
        for (int64_t k = 0; k < width(a); k++) {
            double p = target < 0 ? 0 : exp(value_at(a, a, r * width(a) + k) - lse) - (k == target);
            at_ref_set(y, at_ref_offset(y, y, r * width(a) + k, 0), p * by);
        }
    }
    return 0;
}

/* mean (a - b)^2 */
int at_ref_square_loss(struct attend_exec *x, const struct at_step *s)
{
    const struct at_view *a = at_arg(x, s, 0), *b = at_arg(x, s, 1);
    double sum = 0;
    for (int64_t i = 0; i < at_ref_places(a, 0); i++) {
        double d = value_at(a, a, i) - value_at(b, a, i);
        sum += d * d;
    }
    at_ref_set(at_result(x, s), 0, at_ref_places(a, 0) ? sum / (double)at_ref_places(a, 0) : 0);
    return 0;
}

int at_ref_square_loss_grad(struct attend_exec *x, const struct at_step *s)
{
    const struct at_view *a = at_arg(x, s, 0), *b = at_arg(x, s, 1), *y = at_result(x, s);
    double by = 2 * number(at_arg(x, s, 2)) / (double)at_ref_places(a, 0);
    for (int64_t i = 0; i < at_ref_places(a, 0); i++)
        at_ref_set(y, at_ref_offset(y, y, i, 0), (value_at(a, a, i) - value_at(b, a, i)) * by);
    return 0;
}

/* ---- optimisers ---- */

/* The factor that brings gradients whose squares sum to input 0 to a norm of at most `most`. */
int at_ref_clip(struct attend_exec *x, const struct at_step *s)
{
    double norm = sqrt(number(at_arg(x, s, 0))), most = (double)s->p->clip.most;
    at_ref_set(at_result(x, s), 0, norm > most ? most / norm : 1);
    return 0;
}

/* v = momentum v + (g + decay w), w -= rate v; without v, w -= rate (g + decay w). */
int at_ref_sgd(struct attend_exec *x, const struct at_step *s)
{
    const struct at_view *w = at_arg(x, s, 0), *v = at_in(x, s, 1), *g = at_arg(x, s, 2);
    double rate = number(at_arg(x, s, 3)), factor = number(at_in(x, s, 4));
    for (int64_t i = 0; i < at_ref_places(w, 0); i++) {
        int64_t at = at_ref_offset(w, w, i, 0);
        double step = value_at(g, w, i) * factor + (double)s->p->update.decay * at_ref_get(w, at);
        if (v) {
            step += (double)s->p->update.momentum * value_at(v, w, i);
            at_ref_set(v, at_ref_offset(v, w, i, 0), step);
        }
        at_ref_set(w, at, at_ref_get(w, at) - rate * step);
    }
    return 0;
}

/* Loshchilov & Hutter 2019: m = b1 m + (1 - b1) g, v = b2 v + (1 - b2) g^2, w -= rate (m' /
 * (sqrt(v') + eps) + decay w), m' and v' without the bias of their beginning at 0. */
int at_ref_adamw(struct attend_exec *x, const struct at_step *s)
{
    const struct at_view *w = at_arg(x, s, 0), *m = at_arg(x, s, 1), *v = at_arg(x, s, 2),
                         *g = at_arg(x, s, 3);
    double rate = number(at_arg(x, s, 4)), t = number(at_arg(x, s, 5)),
           factor = number(at_in(x, s, 6));
    double b1 = (double)s->p->update.beta1, b2 = (double)s->p->update.beta2;
    double c1 = 1 - pow(b1, t), c2 = 1 - pow(b2, t);
    for (int64_t i = 0; i < at_ref_places(w, 0); i++) {
        int64_t wi = at_ref_offset(w, w, i, 0), mi = at_ref_offset(m, w, i, 0),
                vi = at_ref_offset(v, w, i, 0);
        double gi = value_at(g, w, i) * factor;
        double mt = b1 * at_ref_get(m, mi) + (1 - b1) * gi,
               vt = b2 * at_ref_get(v, vi) + (1 - b2) * gi * gi;
        double step = mt / c1 / (sqrt(vt / c2) + (double)s->p->update.eps);
        at_ref_set(m, mi, mt);
        at_ref_set(v, vi, vt);
        at_ref_set(w, wi,
                   at_ref_get(w, wi) -
                       rate * (step + (double)s->p->update.decay * at_ref_get(w, wi)));
    }
    return 0;
}

/* ---- functions and rows ---- */

static double sigmoid(double a)
{
    return 1 / (1 + exp(-a));
}

static double derivative(enum at_opcode op, double exponent, double a)
{
    switch (op) {
    case AT_SILU:
        return sigmoid(a) * (1 + a * (1 - sigmoid(a)));
    case AT_GELU: /* Phi + a phi */
        return 0.5 * erfc(-a * 0.70710678118654752440) +
               a * 0.39894228040143267794 * exp(-a * a / 2);
    case AT_GELU_TANH: {
        double u = 0.79788456080286535588 * (a + 0.044715 * a * a * a), t = tanh(u);
        return 0.5 * (1 + t) +
               0.5 * a * (1 - t * t) * 0.79788456080286535588 * (1 + 3 * 0.044715 * a * a);
    }
    case AT_TANH:
        return 1 - tanh(a) * tanh(a);
    case AT_SIGMOID:
        return sigmoid(a) * (1 - sigmoid(a));
    case AT_RELU:
        return a > 0;
    case AT_ERF:
        return 1.12837916709551257390 * exp(-a * a);
    default: /* pow */
        return exponent == 0 ? 0 : exponent * pow(a, exponent - 1);
    }
}

int at_ref_function_grad(struct attend_exec *x, const struct at_step *s)
{
    const struct at_view *a = at_arg(x, s, 0), *dy = at_arg(x, s, 1), *y = at_result(x, s);
    for (int64_t i = 0; i < at_ref_places(y, 0); i++)
        at_ref_set(y, at_ref_offset(y, y, i, 0),
                   value_at(dy, y, i) * derivative(s->p->function.op,
                                                   (double)s->p->function.exponent,
                                                   value_at(a, y, i)));
    return 0;
}

/* y (dy - sum y dy), y the result of softmax */
int at_ref_softmax_grad(struct attend_exec *x, const struct at_step *s)
{
    const struct at_view *p = at_arg(x, s, 0), *dy = at_arg(x, s, 1), *y = at_result(x, s);
    int64_t n = width(y);
    for (int64_t r = 0; r < rows(y); r++) {
        double sum = 0;
        for (int64_t k = 0; k < n; k++)
            sum += value_at(p, y, r * n + k) * value_at(dy, y, r * n + k);
        for (int64_t k = 0; k < n; k++)
            at_ref_set(y, at_ref_offset(y, y, r * n + k, 0),
                       value_at(p, y, r * n + k) * (value_at(dy, y, r * n + k) - sum));
    }
    return 0;
}

/* With z = (x - mean) / d, d^2 = variance + eps, and t = dy weight: dx = (t - mean t - z mean(t z))
 * / d; without centring neither mean is taken away.  dweight sums dy z. */
int at_ref_norm_grad(struct attend_exec *x, const struct at_step *s)
{
    const struct at_view *a = at_arg(x, s, 0), *weight = at_in(x, s, 1), *dy = at_arg(x, s, 2);
    const struct at_view *dx = at_result(x, s), *dw = at_out(x, s, 1);
    bool centred = s->p->norm.centred;
    int64_t n = width(a);
    double *sums = at_slot_scratch(x, 0);
    for (int64_t k = 0; k < n; k++)
        sums[k] = 0;
    for (int64_t r = 0; r < rows(a); r++) {
        double mean = 0, square = 0, t1 = 0, tz = 0;
        for (int64_t k = 0; centred && k < n; k++)
            mean += value_at(a, a, r * n + k) / (double)n;
        for (int64_t k = 0; k < n; k++)
            square += pow(value_at(a, a, r * n + k) - mean, 2) / (double)n;
        double d = sqrt(square + (double)s->p->norm.eps);
        for (int64_t k = 0; k < n; k++) {
            double z = (value_at(a, a, r * n + k) - mean) / d, g = value_at(dy, a, r * n + k);
            double t = g * (weight ? at_ref_get(weight, k * weight->stride[0]) : 1);
            sums[k] += g * z;
            t1 += centred ? t / (double)n : 0;
            tz += t * z / (double)n;
        }
        for (int64_t k = 0; k < n; k++) {
            double z = (value_at(a, a, r * n + k) - mean) / d;
            double t = value_at(dy, a, r * n + k) *
                       (weight ? at_ref_get(weight, k * weight->stride[0]) : 1);
            at_ref_set(dx, at_ref_offset(dx, a, r * n + k, 0), (t - t1 - z * tz) / d);
        }
    }
    for (int64_t k = 0; dw && k < n; k++)
        at_ref_set(dw, k * dw->stride[0], sums[k]);
    return 0;
}

/* dtable[index[r]] += dy[r], in the order of r */
int at_ref_gather_grad(struct attend_exec *x, const struct at_step *s)
{
    const struct at_view *index = at_arg(x, s, 1), *dy = at_arg(x, s, 2), *y = at_result(x, s);
    int64_t n = width(y);
    double *sums = at_slot_scratch(x, 0);
    for (int64_t k = 0; k < n; k++) {
        memset(sums, 0, (size_t)y->shape[0] * sizeof *sums);
        for (int64_t r = 0; r < at_ref_places(index, 0); r++) {
            int64_t to = target_of(index, r);
            if (to < 0 || to >= y->shape[0])
                at_exec_bad_index(x, s, r, to, y->shape[0]);
            else
                sums[to] += value_at(dy, dy, r * n + k);
        }
        for (int64_t t = 0; t < y->shape[0]; t++)
            at_ref_set(y, t * y->stride[0] + k * y->stride[1], sums[t]);
    }
    return 0;
}

/* ---- merge ---- */

/* O = w1 o1 + w2 o2, LSE = ln(e^lse1 + e^lse2), w1 = e^(lse1 - LSE): do1 = w1 dO and
 * dlse1 = w1 (dLSE + dO . (o1 - O)). */
int at_ref_merge_grad(struct attend_exec *x, const struct at_step *s)
{
    const struct at_view *o = at_arg(x, s, 4), *lse = at_arg(x, s, 5), *dout = at_arg(x, s, 6),
                         *dlse = at_in(x, s, 7);
    int64_t n = width(o);
    for (int side = 0; side < 2; side++) {
        const struct at_view *oi = at_arg(x, s, 2 * side), *li = at_arg(x, s, 2 * side + 1);
        const struct at_view *doi = at_out(x, s, 2 * side), *dli = at_out(x, s, 2 * side + 1);
        for (int64_t r = 0; r < rows(o); r++) {
            double l = value_at(li, li, r),
                   w = l == -(double)INFINITY ? 0 : exp(l - value_at(lse, lse, r));
            double sum = dlse ? value_at(dlse, dlse, r) : 0;
            for (int64_t k = 0; k < n && w != 0; k++) {
                double g = value_at(dout, o, r * n + k);
                sum += g * (value_at(oi, o, r * n + k) - value_at(o, o, r * n + k));
            }
            for (int64_t k = 0; doi && k < n; k++)
                at_ref_set(doi, at_ref_offset(doi, o, r * n + k, 0),
                           w == 0 ? 0 : w * value_at(dout, o, r * n + k));
            if (dli)
                at_ref_set(dli, at_ref_offset(dli, dli, r, 0), w == 0 ? 0 : w * sum);
        }
    }
    return 0;
}

/* ---- attention ---- */

/* What the backward pass takes from each row: rowsum(dO O) - dLSE. */
int at_ref_delta(struct attend_exec *x, const struct at_step *s)
{
    const struct at_view *dout = at_arg(x, s, 0), *o = at_arg(x, s, 1), *dlse = at_in(x, s, 2),
                         *y = at_result(x, s);
    bool packed = y->rank == 2; /* (H, T) of (T, H, D) */
    int64_t n = width(o);
    for (int64_t r = 0; r < at_ref_places(y, 0); r++) {
        int64_t from = packed ? r % y->shape[1] * y->shape[0] + r / y->shape[1] : r;
        double sum = dlse ? -value_at(dlse, y, r) : 0;
        for (int64_t k = 0; k < n; k++)
            sum += value_at(dout, o, from * n + k) * value_at(o, o, from * n + k);
        at_ref_set(y, at_ref_offset(y, y, r, 0), sum);
    }
    return 0;
}

/* The gradient of scores that a mask hid. */
int at_ref_mask_grad(struct attend_exec *x, const struct at_step *s)
{
    const struct at_attn *a = at_step_state(x, s);
    const int64_t *qs = a->q.stride, *os = a->o.stride;
    for (int64_t n = 0; n < a->nseq; n++)
        for (int64_t h = 0; h < a->nh; h++)
            for (int64_t i = 0; i < a->seq[n].nq; i++) {
                const struct at_ref_row r = {.a = a, .seq = &a->seq[n], .n = n, .h = h, .i = i};
                struct at_keys keys = at_key_range(&a->visible, r.seq, i, i + 1);
                for (int64_t j = 0; j < a->o.shape[3]; j++) {
                    bool seen =
                        j >= keys.first && j < keys.end && at_ref_added(&r, j) != -(double)INFINITY;
                    at_ref_set(
                        &a->o, n * os[0] + h * os[1] + i * os[2] + j * os[3],
                        seen ? at_ref_get(&a->q, n * qs[0] + h * qs[1] + i * qs[2] + j * qs[3])
                             : 0);
                }
            }
    return 0;
}

/* Derivatives of a score expression: of the score, and of what it loads, with where from. */
struct score_grad {
    struct at_expr score;
    int n;
    struct load_grad {
        struct at_expr d, index[AT_EXPR_RANK];
        int capture, rank;
    } load[];
};

/* The step at work.  Gradients that rows of several items add to are summed in double: `shared`. */
struct attention_grad {
    struct attend_exec *x;
    struct at_attn_grad d;
    const struct score_grad *expr;
    double *bias, *alibi, *sinks, *additive, *capture[AT_MAX_CAPTURES];
};

/* The key at work and what its score is made of. */
struct pair {
    double k[AT_MAX_HEAD], v[AT_MAX_HEAD], tanh[AT_MAX_HEAD];
    double cap, plain, score; /* cap: d of softcap */
};

static int derive(const struct at_expr *x, int wrt, struct at_expr *out)
{
    if (wrt >= 0)
        return at_expr_derivative(x, wrt, out);
    *out = *x;
    at_expr_finish(out, at_expr_float(out, 0));
    return 0;
}

static int load_gradient(const struct at_expr *x, int node, struct load_grad *l)
{
    const struct at_expr_node *n = &x->node[node];
    l->capture = n->capture;
    l->rank = n->nargs;
    for (int k = 0; k < l->rank; k++) {
        l->index[k] = *x;
        at_expr_finish(&l->index[k], n->arg[k]);
    }
    return at_expr_derivative(x, node, &l->d);
}

/* The derivatives that s asks for, in memory of the plan. */
static int derivatives(attend_plan *plan, struct at_step *s, struct at_err *e)
{
    const struct at_expr *x = s->p->attention.score;
    int score = -1, status = 0;
    if (!x)
        return 0;
    struct score_grad *g =
        at_plan_pack(plan, (int64_t)sizeof *g + x->nload * (int64_t)sizeof *g->load);
    if (!g)
        return at_fail(e, ATTEND_ENOMEM, "no memory for the gradient of a score expression");
    for (int k = 0; k < x->n; k++)
        score = x->node[k].op == AT_X_SCORE ? k : score;
    status = derive(x, score, &g->score);
    g->n = 0;
    for (int k = 0; k < x->nload && status == 0; k++) {
        int c = x->node[x->load[k]].capture, out = AT_OUT_CAPTURE + c;
        if (out < s->nout && s->out[out] >= 0)
            status = load_gradient(x, x->load[k], &g->load[g->n++]);
    }
    s->packed = g;
    return status < 0 ? at_fail(e, status, "the gradient of a score expression is too large") : 0;
}

/* Elements of output k at its largest, or 0 where it is not asked for. */
static int64_t shared_size(const attend_plan *plan, const struct at_step *s, int k)
{
    int64_t n = 1;
    if (k >= s->nout || s->out[k] < 0)
        return 0;
    for (int d = 0; d < plan->graph->tensor[s->out[k]].rank; d++)
        n = at_mul_size(n, at_plan_range(plan, s->rows, s->out[k], d).max);
    return n;
}

/* state: struct at_attn_grad, sequences, shared sums; scratch: dK and dV of one head's keys. */
int at_ref_attention_grad_prepare(attend_plan *plan, struct at_step *s, struct at_err *e)
{
    const struct at_tensor *k = &plan->graph->tensor[s->in[AT_IN_K]],
                           *v = &plan->graph->tensor[s->in[AT_IN_V]];
    int64_t keys = at_plan_range(plan, s->rows, s->in[AT_IN_K], k->rank == 3 ? 0 : 2).max;
    int64_t shared = 0;
    for (int o = AT_OUT_BIAS; o < AT_OUT_COUNT && shared >= 0; o++) {
        int64_t n = shared_size(plan, s, o);
        shared = n < 0 ? n : shared + n;
    }
    s->scratch = at_mul_size(keys, (k->shape[k->rank - 1] + v->shape[v->rank - 1]) *
                                       (int64_t)sizeof(double));
    shared = at_mul_size(shared, sizeof(double));
    s->state = at_round_up(sizeof(struct at_attn_grad), AT_ALIGN) +
               at_round_up(at_attn_max_seqs(plan, s) * (int64_t)sizeof(struct at_seq), AT_ALIGN);
    if (s->scratch < 0 || shared < 0)
        return at_fail(e, ATTEND_ELIMIT, "attention_grad: %lld keys are too many", (long long)keys);
    s->state += shared;
    return derivatives(plan, s, e);
}

static struct at_seq *sequences(const struct attend_exec *x, const struct at_step *s)
{
    char *state = at_step_state(x, s);
    return (void *)(state + at_round_up(sizeof(struct at_attn_grad), AT_ALIGN));
}

int at_ref_attention_grad_bind(struct attend_exec *x, const struct at_step *s)
{
    return at_attn_grad_resolve(x, s, at_step_state(x, s), sequences(x, s));
}

/* Fills p for a key that row r sees; false where it does not. */
static bool look(const struct at_ref_row *r, int64_t j, struct pair *p)
{
    const struct at_attn *a = r->a;
    double add = at_ref_added(r, j), s = 0, cap = (double)a->softcap;
    if (add == -(double)INFINITY)
        return false;
    at_ref_key(r, j, p->k);
    for (int64_t d = 0; d < a->dk; d++) {
        p->tanh[d] = a->additive ? tanh(r->q[d] + p->k[d]) : 0;
        s += a->additive ? (double)a->additive[d] * p->tanh[d] : r->q[d] * p->k[d];
    }
    s *= (double)a->scale;
    double t = cap > 0 ? tanh(s / cap) : 0;
    p->cap = 1 - t * t;
    p->plain = (cap > 0 ? cap * t : s) + at_ref_alibi(r, j) + add;
    p->score = at_ref_score(r, j, p->plain, NULL);
    if (p->score == -(double)INFINITY)
        return false;
    at_ref_value(r, j, p->v);
    return true;
}

/* ds times the derivative of what the expression loaded, to where it lies. */
static void give_captures(const struct attention_grad *g, const struct at_ref_row *r, int64_t j,
                          double plain, double ds)
{
    struct at_expr_point at = at_ref_point(r, j, plain);
    for (int l = 0; g->expr && l < g->expr->n; l++) {
        const struct load_grad *load = &g->expr->load[l];
        const struct at_view *v = &g->d.dcapture[load->capture];
        int64_t place = 0;
        bool inside = true;
        for (int k = 0; k < load->rank && inside; k++) {
            int64_t i = (int64_t)at_expr_eval(&load->index[k], &at, NULL);
            inside = i >= 0 && i < v->shape[k];
            place = place * v->shape[k] + i;
        }
        if (inside)
            g->capture[load->capture][place] += ds * at_expr_eval(&load->d, &at, NULL);
    }
}

/* Where bias has (n, h, i, j), in C order. */
static int64_t bias_place(const struct at_view *b, const struct at_ref_row *r, int64_t j)
{
    const int64_t at[4] = {r->n, r->h, r->i, j};
    int64_t place = 0;
    for (int d = 0; d < 4; d++)
        place = place * b->shape[d] + (b->shape[d] == 1 ? 0 : at[d]);
    return place;
}

/* What ds, the gradient of the final score, is to everything before it; of the raw score last. */
static double give_score(const struct attention_grad *g, const struct at_ref_row *r, int64_t j,
                         const struct pair *p, double ds)
{
    give_captures(g, r, j, p->plain, ds);
    if (g->expr) {
        struct at_expr_point at = at_ref_point(r, j, p->plain);
        ds *= at_expr_eval(&g->expr->score, &at, NULL);
    }
    if (g->bias)
        g->bias[bias_place(&g->d.dbias, r, j)] += ds;
    if (g->alibi)
        g->alibi[r->h] -= ds * fabs((double)(r->i + r->seq->off - j));
    return ds * p->cap * (double)r->a->scale;
}

static double lse_place(const struct at_view *v, const struct at_ref_row *r)
{
    return at_ref_get(v, r->seq->qb * v->stride[0] + r->h * v->stride[1] +
                             (r->seq->q0 + r->i) * v->stride[2]);
}

static void pair_grad(const struct attention_grad *g, const struct at_ref_row *r, int64_t j,
                      const struct pair *p, const double *dout, double lse, double delta,
                      double *dq, double *dk, double *dv)
{
    const struct at_attn *a = r->a;
    double w = exp(p->score - lse), keep = at_ref_dropout(r, j), dp = 0;
    for (int64_t d = 0; d < a->dv; d++) {
        dp += keep * dout[d] * p->v[d];
        dv[j * a->dv + d] += w * keep * dout[d];
    }
    double ds = give_score(g, r, j, p, w * (dp - delta));
    for (int64_t d = 0; d < a->dk; d++) {
        double by = a->additive ? (double)a->additive[d] * (1 - p->tanh[d] * p->tanh[d]) : 1;
        dq[d] += ds * (a->additive ? by : p->k[d]);
        dk[j * a->dk + d] += ds * (a->additive ? by : r->q[d]);
        if (g->additive)
            g->additive[d] += ds * p->tanh[d];
    }
}

/* Row i of head h: dQ is written, the rest added to. */
static void row_grad(const struct attention_grad *g, int64_t n, int64_t h, int64_t i, double *dk,
                     double *dv)
{
    const struct at_attn *a = &g->d.a;
    const struct at_view *go = &g->d.dout, *gq = &g->d.dq;
    struct at_ref_row r;
    struct pair p;
    double dout[AT_MAX_HEAD], dq[AT_MAX_HEAD] = {0};
    at_ref_row_begin(&r, a, n, h, i);
    double lse = lse_place(&a->lse, &r), delta = lse_place(&g->d.delta, &r);
    for (int64_t d = 0; d < a->dv; d++)
        dout[d] = at_ref_get(go, r.seq->qb * go->stride[0] + h * go->stride[1] +
                                     (r.seq->q0 + i) * go->stride[2] + d * go->stride[3]);
    struct at_keys keys = at_key_range(&a->visible, r.seq, i, i + 1);
    for (int64_t j = keys.first; j < keys.end; j++)
        if (look(&r, j, &p))
            pair_grad(g, &r, j, &p, dout, lse, delta, dq, dk, dv);
    if (g->sinks)
        g->sinks[h] -= exp((double)a->sinks[h] - lse) * delta;
    for (int64_t d = 0; gq->data && d < a->dk; d++)
        at_ref_set(gq,
                   r.seq->qb * gq->stride[0] + h * gq->stride[1] + (r.seq->q0 + i) * gq->stride[2] +
                       d * gq->stride[3],
                   dq[d]);
}

static void write_keys(const struct at_view *v, const struct at_seq *q, int64_t head,
                       const double *x, int64_t width)
{
    for (int64_t j = 0; v->data && j < q->nk; j++)
        for (int64_t d = 0; d < width; d++)
            at_ref_set(v,
                       q->kb * v->stride[0] + head * v->stride[1] + (q->k0 + j) * v->stride[2] +
                           d * v->stride[3],
                       x[j * width + d]);
}

/* One KV head of one sequence. */
static void group_grad(void *arg, int64_t item, int slot)
{
    const struct attention_grad *g = arg;
    const struct at_attn *a = &g->d.a;
    int64_t n = item / a->ng, head = item % a->ng, ratio = a->nh / a->ng;
    const struct at_seq *q = &a->seq[n];
    double *dk = at_slot_scratch(g->x, slot), *dv = dk + q->nk * a->dk;
    for (int64_t e = 0; e < q->nk * (a->dk + a->dv); e++) /* of no keys there is no memory */
        dk[e] = 0;
    for (int64_t h = head * ratio; h < (head + 1) * ratio; h++)
        for (int64_t i = 0; i < q->nq; i++)
            row_grad(g, n, h, i, dk, dv);
    write_keys(&g->d.dk, q, head, dk, a->dk);
    write_keys(&g->d.dv, q, head, dv, a->dv);
}

/* Room for the sums of output v, cleared; NULL where it is absent. */
static double *take(double **from, const struct at_view *v)
{
    double *here = *from;
    if (!v->data)
        return NULL;
    *from += at_ref_places(v, 0);
    memset(here, 0, (size_t)at_ref_places(v, 0) * sizeof *here);
    return here;
}

static void store(const struct at_view *v, const double *sums)
{
    for (int64_t i = 0; sums && i < at_ref_places(v, 0); i++)
        at_ref_set(v, at_ref_offset(v, v, i, 0), sums[i]);
}

static void clear(const struct at_view *v)
{
    for (int64_t i = 0; v->data && i < at_ref_places(v, 0); i++)
        at_ref_set(v, at_ref_offset(v, v, i, 0), 0);
}

int at_ref_attention_grad(struct attend_exec *x, const struct at_step *s)
{
    struct attention_grad g = {
        .x = x, .d = *(const struct at_attn_grad *)at_step_state(x, s), .expr = s->packed};
    double *room =
        (void *)((char *)sequences(x, s) +
                 at_round_up(at_attn_max_seqs(x->plan, s) * (int64_t)sizeof(struct at_seq),
                             AT_ALIGN));
    const double *begin = room;
    clear(&g.d.dk); /* keys of no sequence, or past the used ones */
    clear(&g.d.dv);
    g.bias = take(&room, &g.d.dbias);
    g.alibi = take(&room, &g.d.dalibi);
    g.sinks = take(&room, &g.d.dsinks);
    g.additive = take(&room, &g.d.dadditive);
    for (int k = 0; k < AT_MAX_CAPTURES; k++)
        g.capture[k] = take(&room, &g.d.dcapture[k]);
    int64_t items = g.d.a.nseq * g.d.a.ng;
    int status = 0;
    if (room == begin)
        status = at_parallel(x, items, group_grad, &g);
    for (int64_t i = 0; room != begin && i < items; i++)
        group_grad(&g, i, 0);
    store(&g.d.dbias, g.bias);
    store(&g.d.dalibi, g.alibi);
    store(&g.d.dsinks, g.sinks);
    store(&g.d.dadditive, g.additive);
    for (int k = 0; k < AT_MAX_CAPTURES; k++)
        store(&g.d.dcapture[k], g.capture[k]);
    return status;
}
