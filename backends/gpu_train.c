/* SPDX-License-Identifier: MIT */
/* The operators of training on devices: what the kernels of portable/train.cl take, and their
 * argument blocks. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "gpu.h"

#define STRETCH 512       /* AT_STRETCH */
#define COLUMNS 64        /* AT_COLUMNS */
#define MOST_GROUPS 65535 /* of the second axis of a launch */

static int items_of(const struct at_step *s)
{
    return at_gpu_of(s->device)->cpu ? 1 : 64;
}

/* ---- what tensors are taken ---- */

static bool floating(attend_type t)
{
    return t == ATTEND_F32 || t == ATTEND_F16 || t == ATTEND_BF16;
}

/* Inputs are floats, or indices; results f32. */
static bool accepts(const attend_plan *plan, const struct at_step *s, struct at_why *why)
{
    const struct at_tensor *t = plan->graph->tensor;
    bool fine = true;
    for (int k = 0; k < s->nin; k++)
        fine =
            fine && (s->in[k] < 0 || floating(t[s->in[k]].type) || t[s->in[k]].type == ATTEND_I32);
    for (int k = 0; k < s->nout; k++)
        fine = fine && (s->out[k] < 0 || t[s->out[k]].type == ATTEND_F32);
    return at_need(why, fine, "a type that is neither floating nor an index");
}

/* Rows go along the last axis of input k. */
static bool accepts_rows(const attend_plan *plan, const struct at_step *s, struct at_why *why)
{
    return at_need(why, plan->graph->tensor[s->in[0]].rank > 0, "a number has no rows") &&
           accepts(plan, s, why);
}

static int prepare(attend_plan *plan, struct at_step *s, const char *const *names, int n,
                   struct at_err *e)
{
    struct at_gpu_source source = {.files = 1u << AT_GPU_OPS | 1u << AT_GPU_TRAIN};
    snprintf(source.defines, sizeof source.defines, "-DAT_ITEMS=%d", items_of(s));
    return at_gpu_prepare(plan, s, &source, names, n, sizeof(struct at_gpu_kernels), e);
}

/* The kernel that has the row's name. */
static int prepare_named(attend_plan *plan, struct at_step *s, struct at_err *e)
{
    return prepare(plan, s, &s->row->name, 1, e);
}

/* Two floats for each row of input 0, and one more. */
static int book_rows(attend_plan *plan, struct at_step *s, int status, struct at_err *e)
{
    int64_t rows = 2;
    for (int d = 0; d < plan->graph->tensor[s->in[0]].rank - 1; d++)
        rows = at_mul_size(rows, at_plan_range(plan, s->rows, s->in[0], d).max);
    s->shared_work = at_mul_size(rows < 0 ? rows : rows + 1, sizeof(float));
    if (status == 0 && s->shared_work < 0)
        status = at_fail(e, ATTEND_ELIMIT, "%s over too many rows", at_ops[s->op].name);
    return status;
}

/* ---- launches ---- */

static struct at_gpu_launch launch(const struct at_step *s, int kernel, const void *args,
                                   size_t bytes, int nbuffer)
{
    const struct at_gpu_kernels *k = s->packed;
    return (struct at_gpu_launch){
        .kernel = k->kernel[kernel],
        .args = args,
        .bytes = bytes,
        .nbuffer = nbuffer,
        .groups = {1, 1, 1},
        .items = items_of(s)
    };
}

static int64_t rows_of(const at_i64 n[6])
{
    return n[0] * n[1] * n[2] * n[3] * n[4];
}

/* Stretches of the rows of n. */
static void groups_of_map(struct at_gpu_launch *l, const at_i64 n[6])
{
    int64_t rows = rows_of(n);
    l->groups[0] = at_ceil_div(n[5], STRETCH);
    l->groups[1] = at_min(rows, MOST_GROUPS);
    l->groups[2] = at_ceil_div(rows, MOST_GROUPS);
}

/* ---- elementwise ---- */

/* AT_T_... of train.cl */
enum { SILU, GELU, GELU_TANH, TANH, SIGMOID, RELU, ERF, POW, SQUARES, CLIP, FILL };

static int slope_of(enum at_opcode op)
{
    switch (op) {
    case AT_SILU:
        return SILU;
    case AT_GELU:
        return GELU;
    case AT_GELU_TANH:
        return GELU_TANH;
    case AT_TANH:
        return TANH;
    case AT_SIGMOID:
        return SIGMOID;
    case AT_RELU:
        return RELU;
    case AT_ERF:
        return ERF;
    default:
        return POW;
    }
}

static int run_map(struct attend_exec *x, const struct at_step *s, const int *in, int nin, int op,
                   double number)
{
    struct at_k_map a = {.op = op, .number = (at_f32)number};
    struct at_gpu_launch l = launch(s, 0, &a, sizeof a, 4);
    const struct at_view *out = at_result(x, s);
    at_gpu_extents(out, a.n);
    at_gpu_strides(out, a.stride[0]);
    a.type[0] = out->type;
    l.buffer[0] = at_gpu_buffer(x, s->out[0], &a.at[0]);
    for (int k = 0; k < nin; k++) {
        const struct at_view *v = &x->view[in[k]];
        at_gpu_strides(v, a.stride[k + 1]);
        a.type[k + 1] = v->type;
        l.buffer[k + 1] = at_gpu_buffer(x, in[k], &a.at[k + 1]);
    }
    groups_of_map(&l, a.n);
    return at_gpu_run(x, s, &l);
}

static int prepare_map(attend_plan *plan, struct at_step *s, struct at_err *e)
{
    static const char *const names[] = {"train_map", "move"};
    return prepare(plan, s, names, s->op == AT_PAD ? 2 : 1, e);
}

static int run_function(struct attend_exec *x, const struct at_step *s)
{
    return run_map(x, s, s->in, 2, slope_of(s->p->function.op), (double)s->p->function.exponent);
}

static int run_clip(struct attend_exec *x, const struct at_step *s)
{
    return run_map(x, s, s->in, 1, CLIP, (double)s->p->clip.most);
}

static int64_t count(const struct at_view *v)
{
    int64_t n = 1;
    for (int d = 0; d < v->rank; d++)
        n *= v->shape[d];
    return n;
}

static int run_square_loss_grad(struct attend_exec *x, const struct at_step *s)
{
    int64_t n = count(at_result(x, s));
    return run_map(x, s, s->in, 3, SQUARES, 2 / (double)at_max(1, n));
}

/* Zeros, then the input to its place: a view of the result that starts further on. */
static int run_pad(struct attend_exec *x, const struct at_step *s)
{
    const struct at_view *out = at_result(x, s), *in = at_arg(x, s, 0);
    int status = run_map(x, s, NULL, 0, FILL, 0);
    struct at_k_map a = {.op = 0};
    struct at_gpu_launch l = launch(s, 1, &a, sizeof a, 2);
    at_gpu_extents(in, a.n);
    at_gpu_strides(in, a.stride[1]);
    for (int d = 0; d < out->rank; d++)
        a.stride[0][6 - out->rank + d] = out->stride[d];
    a.type[0] = (at_i32)attend_type_size(out->type);
    l.buffer[0] = at_gpu_buffer(x, s->out[0], &a.at[0]);
    l.buffer[1] = at_gpu_buffer(x, s->in[0], &a.at[1]);
    a.at[0] += s->p->pad.start * out->stride[s->p->pad.axis];
    groups_of_map(&l, a.n);
    return status < 0 ? status : at_gpu_run(x, s, &l);
}

static bool accepts_pad(const attend_plan *plan, const struct at_step *s, struct at_why *why)
{
    return at_need(why, plan->graph->tensor[s->in[0]].type == ATTEND_F32, "not f32");
}

/* ---- optimisers ---- */

static int run_update(struct attend_exec *x, const struct at_step *s)
{
    bool adam = s->op == AT_ADAMW;
    int first = adam ? 3 : 2; /* the gradient; then rate, step (of adamw), factor */
    const int in[7] = {s->in[0],
                       s->in[1],
                       adam ? s->in[2] : -1,
                       s->in[first],
                       s->in[first + 1],
                       adam ? s->in[5] : -1,
                       first + (adam ? 3 : 2) < s->nin ? s->in[first + (adam ? 3 : 2)] : -1};
    double beta1 = (double)s->p->update.beta1, beta2 = (double)s->p->update.beta2;
    struct at_k_update a = {.adam = adam,
                            .has_m = in[1] >= 0,
                            .has_factor = in[6] >= 0,
                            .momentum = s->p->update.momentum,
                            .decay = s->p->update.decay,
                            .beta1 = s->p->update.beta1,
                            .beta2 = s->p->update.beta2,
                            .rest1 = (at_f32)(1 - beta1),
                            .rest2 = (at_f32)(1 - beta2),
                            .log1 = (at_f32)log(beta1),
                            .log2 = (at_f32)log(beta2),
                            .eps = s->p->update.eps};
    struct at_gpu_launch l = launch(s, 0, &a, sizeof a, 7);
    at_gpu_extents(at_arg(x, s, 0), a.n);
    for (int k = 0; k < 7; k++) {
        if (in[k] < 0)
            continue;
        l.buffer[k] = at_gpu_buffer(x, in[k], &a.at[k]);
        if (k < 4)
            at_gpu_strides(&x->view[in[k]], a.stride[k]);
    }
    groups_of_map(&l, a.n);
    return at_gpu_run(x, s, &l);
}

/* ---- rows ---- */

/* Tensor k of a kernel: 0 is written.  v as seen along the axes of n, or NULL: as it is. */
static void give(struct at_k_train *a, struct at_gpu_launch *l, const struct attend_exec *x, int k,
                 int t, const struct at_view *v)
{
    at_gpu_strides(v ? v : &x->view[t], a->stride[k]);
    a->type[k] = (at_i32)x->view[t].type;
    l->buffer[k] = at_gpu_buffer(x, t, &a->at[k]);
}

/* What has no last axis of its own, with one. */
static struct at_view column(const struct at_view *v)
{
    struct at_view w = *v;
    w.shape[w.rank] = 1;
    w.stride[w.rank++] = 0;
    return w;
}

static struct at_gpu_launch launch_rows(struct attend_exec *x, const struct at_step *s, int kernel,
                                        struct at_k_train *a, const struct at_view *like)
{
    struct at_gpu_launch l = launch(s, kernel, a, sizeof *a, 6);
    at_gpu_extents(like, a->n);
    a->step = at_gpu_step(x, s);
    a->type[2] = a->type[3] = -1;
    l.buffer[4] = x->transfer->work;
    l.buffer[5] = at_gpu_status(x);
    l.groups[0] = rows_of(a->n);
    return l;
}

/* (H, T) of packed rows (T, H, D), as (T, H, 1); else (B, H, S) as (B, H, S, 1). */
static struct at_view of_rows(const struct at_view *v)
{
    struct at_view w = *v;
    for (int d = 0; v->rank == 2 && d < 2; d++) {
        w.shape[d] = v->shape[1 - d];
        w.stride[d] = v->stride[1 - d];
    }
    return column(&w);
}

static int run_delta(struct attend_exec *x, const struct at_step *s)
{
    struct at_k_train a = {.op = at_in(x, s, 2) != NULL};
    struct at_gpu_launch l = launch_rows(x, s, 0, &a, at_arg(x, s, 1));
    struct at_view y = of_rows(at_result(x, s)), dlse;
    give(&a, &l, x, 0, s->out[0], &y);
    give(&a, &l, x, 1, s->in[0], NULL);
    give(&a, &l, x, 2, s->in[1], NULL);
    if (a.op) {
        dlse = of_rows(at_arg(x, s, 2));
        give(&a, &l, x, 3, s->in[2], &dlse);
    }
    return at_gpu_run(x, s, &l);
}

static int run_softmax(struct attend_exec *x, const struct at_step *s)
{
    struct at_k_train a = {.op = 0};
    struct at_gpu_launch l = launch_rows(x, s, 0, &a, at_result(x, s));
    give(&a, &l, x, 0, s->out[0], NULL);
    give(&a, &l, x, 1, s->in[0], NULL);
    give(&a, &l, x, 2, s->in[1], NULL);
    return at_gpu_run(x, s, &l);
}

static int prepare_norm(attend_plan *plan, struct at_step *s, struct at_err *e)
{
    static const char *const names[] = {"norm_grad", "norm_weight"};
    return book_rows(plan, s, prepare(plan, s, names, 2, e), e);
}

static int run_norm(struct attend_exec *x, const struct at_step *s)
{
    struct at_k_train a = {.op = s->p->norm.centred, .number = s->p->norm.eps};
    struct at_gpu_launch l = launch_rows(x, s, 0, &a, at_arg(x, s, 0));
    give(&a, &l, x, 0, s->out[0], NULL);
    give(&a, &l, x, 1, s->in[0], NULL);
    if (s->in[1] >= 0)
        give(&a, &l, x, 2, s->in[1], NULL);
    give(&a, &l, x, 3, s->in[2], NULL);
    int status = at_gpu_run(x, s, &l);
    if (status < 0 || !at_out(x, s, 1))
        return status;
    l.kernel = ((const struct at_gpu_kernels *)s->packed)->kernel[1];
    give(&a, &l, x, 0, s->out[1], NULL);
    l.groups[0] = at_ceil_div(a.n[5], COLUMNS);
    return at_gpu_run(x, s, &l);
}

/* ---- losses ---- */

static int prepare_loss(attend_plan *plan, struct at_step *s, struct at_err *e)
{
    static const char *const names[] = {"row_loss", "mean_loss", "count_targets"};
    return book_rows(plan, s, prepare(plan, s, names, s->op == AT_CROSS_ENTROPY ? 3 : 2, e), e);
}

static int run_one_group(struct attend_exec *x, const struct at_step *s, struct at_gpu_launch *l,
                         int kernel)
{
    l->kernel = ((const struct at_gpu_kernels *)s->packed)->kernel[kernel];
    l->groups[0] = 1;
    return at_gpu_run(x, s, l);
}

static int run_cross_entropy(struct attend_exec *x, const struct at_step *s)
{
    struct at_k_train a = {.op = 0};
    struct at_gpu_launch l = launch_rows(x, s, 0, &a, at_arg(x, s, 0));
    struct at_view target = column(at_arg(x, s, 1));
    give(&a, &l, x, 0, s->out[0], NULL);
    give(&a, &l, x, 1, s->in[0], NULL);
    give(&a, &l, x, 2, s->in[1], &target);
    int status = at_gpu_run(x, s, &l);
    if (status == 0)
        status = run_one_group(x, s, &l, 2);
    return status < 0 ? status : run_one_group(x, s, &l, 1);
}

static int run_square_loss(struct attend_exec *x, const struct at_step *s)
{
    struct at_k_train a = {.op = 1, .number = (at_f32)count(at_arg(x, s, 0))};
    struct at_gpu_launch l = launch_rows(x, s, 0, &a, at_arg(x, s, 0));
    give(&a, &l, x, 0, s->out[0], NULL);
    give(&a, &l, x, 1, s->in[0], NULL);
    give(&a, &l, x, 2, s->in[1], NULL);
    int status = at_gpu_run(x, s, &l);
    return status < 0 ? status : run_one_group(x, s, &l, 1);
}

static int prepare_cross_entropy_grad(attend_plan *plan, struct at_step *s, struct at_err *e)
{
    static const char *const names[] = {"cross_entropy_grad", "count_targets"};
    return book_rows(plan, s, prepare(plan, s, names, 2, e), e);
}

static int run_cross_entropy_grad(struct attend_exec *x, const struct at_step *s)
{
    struct at_k_train a = {.op = 0};
    struct at_gpu_launch l = launch_rows(x, s, 0, &a, at_arg(x, s, 0));
    struct at_view target = column(at_arg(x, s, 1));
    int64_t rows = l.groups[0];
    give(&a, &l, x, 0, s->out[0], NULL);
    give(&a, &l, x, 1, s->in[0], NULL);
    give(&a, &l, x, 2, s->in[1], &target);
    give(&a, &l, x, 3, s->in[2], NULL);
    int status = run_one_group(x, s, &l, 1);
    l.kernel = ((const struct at_gpu_kernels *)s->packed)->kernel[0];
    l.groups[0] = rows;
    return status < 0 ? status : at_gpu_run(x, s, &l);
}

/* ---- gather ---- */

static int run_gather(struct attend_exec *x, const struct at_step *s)
{
    const struct at_view *dy = at_arg(x, s, 2), *y = at_result(x, s);
    struct at_k_train a = {.op = (at_i32)y->shape[0]};
    struct at_gpu_launch l = launch_rows(x, s, 0, &a, dy);
    struct at_view index = column(at_arg(x, s, 1));
    give(&a, &l, x, 0, s->out[0], NULL);
    give(&a, &l, x, 1, s->in[1], &index);
    give(&a, &l, x, 2, s->in[2], NULL);
    l.groups[0] = y->shape[0];
    return at_gpu_run(x, s, &l);
}

/* ---- merge ---- */

/* What goes to one pair, and then to the other. */
static int run_merge(struct attend_exec *x, const struct at_step *s)
{
    int status = 0;
    for (int k = 0; k < 4 && status == 0; k += 2) {
        struct at_k_merge a = {.has_o = at_out(x, s, k) != NULL,
                               .has_lse = at_out(x, s, k + 1) != NULL,
                               .has_dlse = at_in(x, s, 7) != NULL};
        struct at_gpu_launch l = launch(s, 0, &a, sizeof a, 8);
        at_gpu_extents(at_arg(x, s, 4), a.n);
        at_gpu_merge_pair(&a, &l, x, 0, a.has_o ? s->out[k] : -1, a.has_lse ? s->out[k + 1] : -1);
        at_gpu_merge_pair(&a, &l, x, 1, s->in[k], s->in[k + 1]);
        at_gpu_merge_pair(&a, &l, x, 2, s->in[4], s->in[5]);
        at_gpu_merge_pair(&a, &l, x, 3, s->in[6], a.has_dlse ? s->in[7] : -1);
        l.groups[0] = rows_of(a.n);
        if (a.has_o || a.has_lse)
            status = at_gpu_run(x, s, &l);
    }
    return status;
}

/* ---- sums ---- */

static bool keeps_last(const int64_t *from, int rank, const int64_t *to, int to_rank)
{
    return to_rank > 0 && rank > 0 && to[to_rank - 1] == from[rank - 1];
}

static int prepare_sum(attend_plan *plan, struct at_step *s, struct at_err *e)
{
    const struct at_tensor *a = &plan->graph->tensor[s->in[0]],
                           *y = &plan->graph->tensor[s->out[0]];
    bool columns = keeps_last(a->shape, a->rank, y->shape, y->rank);
    return prepare(plan, s, (const char *const[]){columns ? "sum_columns" : "sum_rows"}, 1, e);
}

static int run_sum(struct attend_exec *x, const struct at_step *s)
{
    const struct at_view *in = at_arg(x, s, 0), *out = at_result(x, s);
    const struct at_tensor *ti = &x->plan->graph->tensor[s->in[0]],
                           *to = &x->plan->graph->tensor[s->out[0]];
    bool columns = keeps_last(ti->shape, ti->rank, to->shape, to->rank);
    struct at_k_sum a = {.op = s->p->sum.mode == AT_SUM_SQUARES, .by = 1};
    struct at_gpu_launch l = launch(s, 0, &a, sizeof a, 2);
    at_gpu_extents(out, a.m);
    at_gpu_extents(in, a.n);
    at_gpu_strides(out, a.out);
    at_gpu_strides(in, a.each);
    int64_t each = 1;
    for (int d = 0; d < 6; d++) { /* an axis that stays is walked by m, one that goes by n */
        bool stays = a.m[d] == a.n[d] && (a.m[d] != 1 || d == 5) && (d < 5 || columns);
        a.from[d] = stays ? a.each[d] : 0;
        a.n[d] = stays ? 1 : a.n[d];
        each *= a.n[d];
    }
    if (s->p->sum.mode == AT_SUM_MEAN && each > 0)
        a.by = (at_f32)(1 / (double)each);
    a.type[0] = (at_i32)out->type;
    a.type[1] = (at_i32)in->type;
    l.buffer[0] = at_gpu_buffer(x, s->out[0], &a.at[0]);
    l.buffer[1] = at_gpu_buffer(x, s->in[0], &a.at[1]);
    l.groups[0] = columns ? at_ceil_div(a.m[5], COLUMNS) : rows_of(a.m);
    l.groups[1] = columns ? rows_of(a.m) : 1;
    return at_gpu_run(x, s, &l);
}

/* ---- the rows ---- */

#define ROW(row, op, name, accepts, prepare, run)                                                  \
    const struct at_row row = {name, op, accepts, prepare, NULL, run}
ROW(at_gpu_delta, AT_DELTA, "delta", accepts_rows, prepare_named, run_delta);
ROW(at_gpu_function_grad, AT_FUNCTION_GRAD, "slope", accepts, prepare_map, run_function);
ROW(at_gpu_clip, AT_CLIP, "slope", accepts, prepare_map, run_clip);
ROW(at_gpu_pad, AT_PAD, "pad", accepts_pad, prepare_map, run_pad);
ROW(at_gpu_square_loss_grad, AT_SQUARE_LOSS_GRAD, "slope", accepts, prepare_map,
    run_square_loss_grad);
ROW(at_gpu_sgd, AT_SGD, "update", accepts, prepare_named, run_update);
ROW(at_gpu_adamw, AT_ADAMW, "update", accepts, prepare_named, run_update);
ROW(at_gpu_softmax_grad, AT_SOFTMAX_GRAD, "softmax_grad", accepts_rows, prepare_named, run_softmax);
ROW(at_gpu_norm_grad, AT_NORM_GRAD, "norm_grad", accepts_rows, prepare_norm, run_norm);
ROW(at_gpu_cross_entropy, AT_CROSS_ENTROPY, "row_loss", accepts_rows, prepare_loss,
    run_cross_entropy);
ROW(at_gpu_square_loss, AT_SQUARE_LOSS, "row_loss", accepts, prepare_loss, run_square_loss);
ROW(at_gpu_cross_entropy_grad, AT_CROSS_ENTROPY_GRAD, "cross_entropy_grad", accepts_rows,
    prepare_cross_entropy_grad, run_cross_entropy_grad);
ROW(at_gpu_gather_grad, AT_GATHER_GRAD, "gather_grad", accepts, prepare_named, run_gather);
ROW(at_gpu_merge_grad, AT_MERGE_GRAD, "merge_grad", accepts, prepare_named, run_merge);
ROW(at_gpu_sum, AT_SUM, "sum", accepts, prepare_sum, run_sum);
