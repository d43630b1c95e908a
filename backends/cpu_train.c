/* SPDX-License-Identifier: MIT */
/* The operators of training on the CPU: how their rows are shared out over threads.  Sums over rows
 * are taken by columns, or by segments whose number is fixed, so they do not depend on threads. */
#include <math.h>
#include <string.h>

#include "cpu.h"

#define SEGMENTS 16 /* of rows, where each sums for itself */
#define SLICE 64    /* columns that a thread sums at a time */
#define ITEM_BYTES 65536

static bool f32_rows(const attend_plan *plan, int t)
{
    return t < 0 || (plan->graph->tensor[t].type == ATTEND_F32 && at_cpu_has_rows(plan, t));
}

/* All that is f32 has contiguous rows, and axes. */
static bool accepts_rows(const attend_plan *plan, const struct at_step *s, struct at_why *why)
{
    bool fine = plan->graph->tensor[s->in[0]].rank > 0;
    for (int k = 0; k < s->nin; k++)
        fine = fine && (s->in[k] < 0 || plan->graph->tensor[s->in[k]].type == ATTEND_I32 ||
                        f32_rows(plan, s->in[k]));
    for (int k = 0; k < s->nout; k++)
        fine = fine && (s->out[k] < 0 || f32_rows(plan, s->out[k]));
    return at_need(why, fine, "not all tensors are f32 with contiguous rows");
}

/* ---- rows ---- */

struct job {
    struct attend_exec *x;
    const struct at_step *s;
    const struct at_simd *t;
    const struct at_view *in[7], *out, *out1;
    int64_t rows, width, per_item;
    float by;
};

static int64_t width_of(const struct at_view *v)
{
    return v->rank ? v->shape[v->rank - 1] : 1;
}

static int64_t rows_of(const struct at_view *v)
{
    int64_t n = 1;
    for (int d = 0; d < v->rank - 1; d++)
        n *= v->shape[d];
    return n;
}

/* Row number `row` of `like` as v, which is broadcast to it, has it. */
static float *row_at(const struct at_view *v, const struct at_view *like, int64_t row)
{
    int64_t offset = 0;
    for (int d = like->rank - 2; d >= 0; d--) {
        int e = d - (like->rank - v->rank);
        if (e >= 0 && v->shape[e] != 1)
            offset += row % like->shape[d] * v->stride[e];
        row /= like->shape[d];
    }
    return (float *)v->data + offset;
}

static struct job job_of(struct attend_exec *x, const struct at_step *s, const struct at_view *like)
{
    struct job j = {
        .x = x, .s = s, .t = at_cpu_kernels(s), .out = at_result(x, s), .out1 = at_out(x, s, 1)};
    for (int k = 0; k < 7; k++)
        j.in[k] = at_in(x, s, k);
    j.width = width_of(like);
    j.rows = j.width ? rows_of(like) : 0;
    j.per_item = at_max(1, ITEM_BYTES / at_max(1, j.width * (int64_t)sizeof(float)));
    return j;
}

static int each_row(struct job *j, void (*fn)(void *arg, int64_t item, int slot))
{
    return at_cpu_items(j->x, at_ceil_div(j->rows, j->per_item),
                        4.0 * (double)j->rows * (double)j->width, fn, j);
}

static int64_t first_of(const struct job *j, int64_t item)
{
    return item * j->per_item;
}
static int64_t end_of(const struct job *j, int64_t item)
{
    return at_min(j->rows, (item + 1) * j->per_item);
}

static float number(const struct at_view *v)
{
    return v ? *(const float *)v->data : 1;
}

/* ---- delta ---- */

static void delta_item(void *arg, int64_t item, int slot)
{
    const struct job *j = arg;
    const struct at_view *dout = j->in[0], *o = j->in[1], *dlse = j->in[2], *y = j->out;
    (void)slot;
    for (int64_t r = first_of(j, item); r < end_of(j, item); r++) {
        float sum = j->t->dot(row_at(dout, o, r), row_at(o, o, r), j->width);
        int64_t at = 0, from = 0, rest = r;
        for (int d = o->rank - 2; d >= 0; d--) {
            int e = y->rank == 2 ? 1 - d : d; /* packed: (H, T) of (T, H, D) */
            at += rest % o->shape[d] * y->stride[e];
            from += dlse ? rest % o->shape[d] * dlse->stride[e] : 0;
            rest /= o->shape[d];
        }
        ((float *)y->data)[at] = dlse ? sum - ((const float *)dlse->data)[from] : sum;
    }
}

static int run_delta(struct attend_exec *x, const struct at_step *s)
{
    struct job j = job_of(x, s, at_arg(x, s, 1));
    return each_row(&j, delta_item);
}

/* ---- sums ---- */

/* The rows of the input, in order, to columns [item SLICE, ...) of the result. */
static void sum_columns(void *arg, int64_t item, int slot)
{
    const struct job *j = arg;
    const struct at_view *a = j->in[0], *y = j->out;
    int64_t from = item * SLICE, n = at_min(SLICE, j->width - from);
    (void)slot;
    for (int64_t r = 0; r < rows_of(y); r++)
        memset(row_at(y, y, r) + from, 0, (size_t)n * sizeof(float));
    for (int64_t r = 0; r < j->rows; r++) {
        float *to = row_at(y, a, r) + from;
        j->t->add(to, to, row_at(a, a, r) + from, n);
    }
    for (int64_t r = 0; j->by != 1 && r < rows_of(y); r++)
        j->t->scale(row_at(y, y, r) + from, row_at(y, y, r) + from, j->by, n);
}

/* Sums of whole rows. */
static void sum_rows(const struct job *j, bool squares)
{
    const struct at_view *a = j->in[0], *y = j->out;
    int64_t n = rows_of(y);
    double all = 0;
    for (int64_t r = 0; r < n; r++)
        *row_at(y, y, r) = 0;
    for (int64_t r = 0; r < j->rows; r++) {
        const float *row = row_at(a, a, r);
        float sum = squares ? j->t->dot(row, row, j->width) : j->t->sum(row, j->width);
        all += (double)sum;
        if (n > 1)
            *row_at(y, a, r) += sum;
    }
    if (n == 1)
        *(float *)y->data = (float)all;
    for (int64_t r = 0; r < n; r++)
        *row_at(y, y, r) *= j->by;
}

static bool accepts_sum(const attend_plan *plan, const struct at_step *s, struct at_why *why)
{
    const struct at_tensor *a = &plan->graph->tensor[s->in[0]],
                           *y = &plan->graph->tensor[s->out[0]];
    bool columns = y->rank > 0 && a->rank > 0 && y->shape[y->rank - 1] == a->shape[a->rank - 1];
    return accepts_rows(plan, s, why) &&
           at_need(why, s->p->sum.mode != AT_SUM_SQUARES || !columns, "squares of columns");
}

static int run_sum(struct attend_exec *x, const struct at_step *s)
{
    struct job j = job_of(x, s, at_arg(x, s, 0));
    const struct at_view *a = j.in[0], *y = j.out;
    double each = (double)(rows_of(a) * width_of(a)) / (double)at_max(1, rows_of(y) * width_of(y));
    j.by = s->p->sum.mode == AT_SUM_MEAN && each > 0 ? (float)(1 / each) : 1;
    if (y->rank > 0 && width_of(y) == width_of(a))
        return at_cpu_items(x, at_ceil_div(j.width, SLICE), (double)j.rows * (double)j.width,
                            sum_columns, &j);
    sum_rows(&j, s->p->sum.mode == AT_SUM_SQUARES);
    return 0;
}

/* ---- pad ---- */

static void pad_item(void *arg, int64_t item, int slot)
{
    const struct job *j = arg;
    const struct at_view *a = j->in[0], *y = j->out;
    int axis = j->s->p->pad.axis, last = y->rank - 1;
    int64_t start = j->s->p->pad.start;
    (void)slot;
    for (int64_t r = first_of(j, item); r < end_of(j, item); r++) {
        float *to = row_at(y, y, r);
        int64_t offset = 0, rest = r;
        bool inside = true;
        for (int d = last - 1; d >= 0; d--) {
            int64_t i = rest % y->shape[d] - (d == axis ? start : 0);
            rest /= y->shape[d];
            inside = inside && i >= 0 && i < a->shape[d];
            offset += i * a->stride[d];
        }
        int64_t lead = inside && axis == last ? start : 0, n = inside ? a->shape[last] : 0;
        memset(to, 0, (size_t)(inside ? lead : j->width) * sizeof *to);
        if (!inside)
            continue;
        memcpy(to + lead, (const float *)a->data + offset, (size_t)n * sizeof *to);
        memset(to + lead + n, 0, (size_t)(j->width - lead - n) * sizeof *to);
    }
}

static int run_pad(struct attend_exec *x, const struct at_step *s)
{
    struct job j = job_of(x, s, at_result(x, s));
    return each_row(&j, pad_item);
}

/* ---- functions, softmax ---- */

static int function_of(enum at_opcode op)
{
    static const enum at_opcode ops[AT_SIMD_FUNCTIONS] = {
        [AT_SIMD_SILU] = AT_SILU,           [AT_SIMD_GELU] = AT_GELU,
        [AT_SIMD_GELU_TANH] = AT_GELU_TANH, [AT_SIMD_TANH] = AT_TANH,
        [AT_SIMD_SIGMOID] = AT_SIGMOID,     [AT_SIMD_RELU] = AT_RELU};
    for (int f = 0; f < AT_SIMD_FUNCTIONS; f++)
        if (ops[f] == op)
            return f;
    return -1;
}

static bool accepts_function(const attend_plan *plan, const struct at_step *s, struct at_why *why)
{
    const struct at_tensor *x = &plan->graph->tensor[s->in[0]],
                           *dy = &plan->graph->tensor[s->in[1]];
    bool same =
        x->rank == dy->rank && x->rank > 0 && x->shape[x->rank - 1] == dy->shape[x->rank - 1];
    return accepts_rows(plan, s, why) && at_need(why, same, "gradients are broadcast") &&
           at_need(why, function_of(s->p->function.op) >= 0, "a function that has no kernel");
}

static void function_item(void *arg, int64_t item, int slot)
{
    const struct job *j = arg;
    int f = function_of(j->s->p->function.op);
    (void)slot;
    for (int64_t r = first_of(j, item); r < end_of(j, item); r++)
        j->t->function_grad((enum at_simd_function)f, row_at(j->out, j->out, r),
                            row_at(j->in[0], j->out, r), row_at(j->in[1], j->out, r), j->width);
}

static int run_function(struct attend_exec *x, const struct at_step *s)
{
    struct job j = job_of(x, s, at_result(x, s));
    return each_row(&j, function_item);
}

static bool accepts_softmax(const attend_plan *plan, const struct at_step *s, struct at_why *why)
{
    const struct at_tensor *y = &plan->graph->tensor[s->in[0]],
                           *dy = &plan->graph->tensor[s->in[1]];
    bool same =
        y->rank == dy->rank && y->rank > 0 && y->shape[y->rank - 1] == dy->shape[y->rank - 1];
    return accepts_rows(plan, s, why) && at_need(why, same, "gradients are broadcast");
}

static void softmax_item(void *arg, int64_t item, int slot)
{
    const struct job *j = arg;
    (void)slot;
    for (int64_t r = first_of(j, item); r < end_of(j, item); r++)
        j->t->softmax_grad(row_at(j->out, j->out, r), row_at(j->in[0], j->out, r),
                           row_at(j->in[1], j->out, r), j->width);
}

static int run_softmax(struct attend_exec *x, const struct at_step *s)
{
    struct job j = job_of(x, s, at_result(x, s));
    return each_row(&j, softmax_item);
}

/* ---- norms ---- */

/* State: a row of dweight for each segment. */
static int prepare_norm(attend_plan *plan, struct at_step *s, struct at_err *e)
{
    const struct at_tensor *a = &plan->graph->tensor[s->in[0]];
    int64_t width = at_plan_range(plan, s->rows, s->in[0], a->rank - 1).max;
    (void)e;
    s->state = SEGMENTS * at_round_up(width, 16) * (int64_t)sizeof(float);
    return 0;
}

static float *segment_sum(const struct job *j, int64_t item)
{
    return (float *)at_step_state(j->x, j->s) + item * at_round_up(j->width, 16);
}

static void norm_item(void *arg, int64_t item, int slot)
{
    const struct job *j = arg;
    const struct at_view *a = j->in[0], *w = j->in[1], *dy = j->in[2];
    float *dw = j->out1 ? segment_sum(j, item) : NULL;
    (void)slot;
    if (dw)
        memset(dw, 0, (size_t)j->width * sizeof *dw);
    for (int64_t r = first_of(j, item); r < end_of(j, item); r++)
        j->t->norm_grad(row_at(j->out, a, r), dw, row_at(a, a, r), w ? w->data : NULL,
                        row_at(dy, a, r), j->width, j->s->p->norm.eps, j->s->p->norm.centred);
}

static int run_norm(struct attend_exec *x, const struct at_step *s)
{
    struct job j = job_of(x, s, at_arg(x, s, 0));
    j.per_item = at_max(1, at_ceil_div(j.rows, SEGMENTS));
    int status = each_row(&j, norm_item);
    for (int64_t c = 1; j.out1 && c < at_ceil_div(j.rows, j.per_item); c++)
        j.t->add(segment_sum(&j, 0), segment_sum(&j, 0), segment_sum(&j, c), j.width);
    if (j.out1 && j.rows > 0)
        memcpy(j.out1->data, segment_sum(&j, 0), (size_t)j.width * sizeof(float));
    else if (j.out1)
        memset(j.out1->data, 0, (size_t)width_of(j.out1) * sizeof(float));
    return status;
}

/* ---- gather ---- */

static int64_t index_of(const struct at_view *v, int64_t place)
{
    int64_t offset = 0;
    for (int d = v->rank - 1; d >= 0; d--) {
        offset += place % v->shape[d] * v->stride[d];
        place /= v->shape[d];
    }
    return ((const int32_t *)v->data)[offset];
}

static void gather_item(void *arg, int64_t item, int slot)
{
    const struct job *j = arg;
    const struct at_view *index = j->in[1], *dy = j->in[2], *y = j->out;
    int64_t from = item * SLICE, n = at_min(SLICE, y->shape[1] - from);
    (void)slot;
    for (int64_t r = 0; r < y->shape[0]; r++)
        memset((float *)y->data + r * y->stride[0] + from, 0, (size_t)n * sizeof(float));
    for (int64_t r = 0; r < j->rows; r++) {
        int64_t to = index_of(index, r);
        if (to < 0 || to >= y->shape[0]) {
            at_exec_bad_index(j->x, j->s, r, to, y->shape[0]);
            continue;
        }
        float *row = (float *)y->data + to * y->stride[0] + from;
        j->t->add(row, row, row_at(dy, dy, r) + from, n);
    }
}

static int run_gather(struct attend_exec *x, const struct at_step *s)
{
    struct job j = job_of(x, s, at_arg(x, s, 2));
    return at_cpu_items(x, at_ceil_div(j.out->shape[1], SLICE), (double)j.rows * (double)j.width,
                        gather_item, &j);
}

/* ---- cross entropy ---- */

static int64_t counted(const struct at_view *target, int64_t rows)
{
    int64_t n = 0;
    for (int64_t r = 0; r < rows; r++)
        n += index_of(target, r) >= 0;
    return n;
}

/* State: the loss of each row. */
static int prepare_cross_entropy(attend_plan *plan, struct at_step *s, struct at_err *e)
{
    int64_t rows = 1;
    for (int d = 0; d < plan->graph->tensor[s->in[1]].rank; d++)
        rows = at_mul_size(rows, at_plan_range(plan, s->rows, s->in[1], d).max);
    s->state = at_mul_size(rows, sizeof(float));
    return s->state < 0 ? at_fail(e, ATTEND_ELIMIT, "cross_entropy over too many rows") : 0;
}

static void cross_entropy_item(void *arg, int64_t item, int slot)
{
    const struct job *j = arg;
    const struct at_view *a = j->in[0];
    float *loss = at_step_state(j->x, j->s);
    (void)slot;
    for (int64_t r = first_of(j, item); r < end_of(j, item); r++) {
        int64_t k = index_of(j->in[1], r);
        const float *row = row_at(a, a, r);
        loss[r] = 0;
        if (k >= j->width)
            at_exec_bad_index(j->x, j->s, r, k, j->width);
        else if (k >= 0)
            loss[r] = j->t->lse(row, j->width) - row[k];
    }
}

static int run_cross_entropy(struct attend_exec *x, const struct at_step *s)
{
    struct job j = job_of(x, s, at_arg(x, s, 0));
    const float *loss = at_step_state(x, s);
    int status = each_row(&j, cross_entropy_item);
    int64_t n = counted(j.in[1], j.rows);
    double sum = 0;
    for (int64_t r = 0; r < j.rows; r++)
        sum += (double)loss[r];
    *(float *)j.out->data = n ? (float)(sum / (double)n) : 0;
    return status;
}

static void cross_entropy_grad_item(void *arg, int64_t item, int slot)
{
    const struct job *j = arg;
    const struct at_view *a = j->in[0];
    (void)slot;
    for (int64_t r = first_of(j, item); r < end_of(j, item); r++) {
        int64_t k = index_of(j->in[1], r);
        float *y = row_at(j->out, a, r);
        const float *row = row_at(a, a, r);
        if (k < 0 || k >= j->width) {
            memset(y, 0, (size_t)j->width * sizeof *y);
            continue;
        }
        j->t->exp(y, row, j->t->lse(row, j->width), j->by, j->width);
        y[k] -= j->by;
    }
}

static int run_cross_entropy_grad(struct attend_exec *x, const struct at_step *s)
{
    struct job j = job_of(x, s, at_arg(x, s, 0));
    j.by = number(j.in[2]) / (float)at_max(1, counted(j.in[1], j.rows));
    return each_row(&j, cross_entropy_grad_item);
}

/* ---- adamw ---- */

struct update {
    struct job j;
    struct at_simd_adamw p;
};

static void adamw_item(void *arg, int64_t item, int slot)
{
    const struct update *u = arg;
    const struct job *j = &u->j;
    const struct at_view *w = j->in[0];
    (void)slot;
    for (int64_t r = first_of(j, item); r < end_of(j, item); r++)
        j->t->adamw(row_at(w, w, r), row_at(j->in[1], w, r), row_at(j->in[2], w, r),
                    row_at(j->in[3], w, r), j->width, &u->p);
}

static int run_adamw(struct attend_exec *x, const struct at_step *s)
{
    struct update u = {.j = job_of(x, s, at_arg(x, s, 0))};
    double b1 = (double)s->p->update.beta1, b2 = (double)s->p->update.beta2,
           t = (double)number(u.j.in[5]);
    u.p = (struct at_simd_adamw){.rate = number(u.j.in[4]),
                                 .decay = s->p->update.decay,
                                 .beta1 = s->p->update.beta1,
                                 .beta2 = s->p->update.beta2,
                                 .eps = s->p->update.eps,
                                 .first = (float)(1 / (1 - pow(b1, t))),
                                 .second = (float)(1 / (1 - pow(b2, t))),
                                 .factor = number(u.j.in[6])};
    return at_cpu_items(x, at_ceil_div(u.j.rows, u.j.per_item),
                        16.0 * (double)u.j.rows * (double)u.j.width, adamw_item, &u);
}

/* ---- the rows ---- */

const struct at_row at_cpu_delta = {"rows", AT_DELTA, accepts_rows, NULL, NULL, run_delta};
const struct at_row at_cpu_sum = {"rows", AT_SUM, accepts_sum, NULL, NULL, run_sum};
const struct at_row at_cpu_pad = {"rows", AT_PAD, accepts_rows, NULL, NULL, run_pad};
const struct at_row at_cpu_function_grad = {"rows", AT_FUNCTION_GRAD, accepts_function, NULL,
                                            NULL,   run_function};
const struct at_row at_cpu_softmax_grad = {"rows", AT_SOFTMAX_GRAD, accepts_softmax, NULL,
                                           NULL,   run_softmax};
const struct at_row at_cpu_norm_grad = {"rows",       AT_NORM_GRAD, accepts_rows,
                                        prepare_norm, NULL,         run_norm};
const struct at_row at_cpu_gather_grad = {"rows", AT_GATHER_GRAD, accepts_rows,
                                          NULL,   NULL,           run_gather};
const struct at_row at_cpu_cross_entropy = {
    "rows", AT_CROSS_ENTROPY, accepts_rows, prepare_cross_entropy, NULL, run_cross_entropy};
const struct at_row at_cpu_cross_entropy_grad = {"rows", AT_CROSS_ENTROPY_GRAD, accepts_rows, NULL,
                                                 NULL,   run_cross_entropy_grad};
const struct at_row at_cpu_adamw = {"rows", AT_ADAMW, accepts_rows, NULL, NULL, run_adamw};
