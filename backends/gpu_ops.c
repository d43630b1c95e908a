/* SPDX-License-Identifier: MIT */
/* The operators beside attention on devices: what the kernels of portable/ops.cl and gemm.cl take,
 * and their argument blocks. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "gpu.h"

/* Items of a group.  On a CPU an item is a core: one works through the row, without barriers, which
 * PoCL 3.1 gets wrong in `rows` when two cores run groups of it. */
static int items_of(const struct at_step *s)
{
    return at_gpu_of(s->device)->cpu ? 1 : 64;
}
#define STRETCH 512
#define MOST_GROUPS 65535 /* of the second axis of a launch */

/* ---- what tensors are taken ---- */

static bool floating(attend_type t)
{
    return t == ATTEND_F32 || t == ATTEND_F16 || t == ATTEND_BF16;
}

static bool simple(attend_type t) /* read as a number by at_load */
{
    return floating(t) || t == ATTEND_BOOL || t == ATTEND_I32 || t == ATTEND_I64 ||
           t == ATTEND_U8 || t == ATTEND_I8;
}

static const struct at_tensor *tensor(const attend_plan *plan, int t)
{
    return &plan->graph->tensor[t];
}

static bool accepts_map(const attend_plan *plan, const struct at_step *s, struct at_why *why)
{
    bool fine = floating(tensor(plan, s->out[0])->type);
    for (int k = 0; k < s->nin; k++)
        fine = fine && (s->in[k] < 0 || simple(tensor(plan, s->in[k])->type));
    return at_need(why, fine, "a type that its elements do not have");
}

/* ---- views as strides of a common shape ---- */

static int64_t row_count(const at_i64 n[6])
{
    return n[0] * n[1] * n[2] * n[3] * n[4];
}

/* ---- elementwise ---- */

static int map_op(enum at_opcode op)
{
    switch (op) {
    case AT_ADD:
        return 0;
    case AT_MUL:
        return 1;
    case AT_SCALE:
        return 2;
    case AT_WHERE:
        return 3;
    case AT_SELECT:
        return 4;
    case AT_SILU:
        return 5;
    case AT_GELU:
        return 6;
    case AT_GELU_TANH:
        return 7;
    case AT_TANH:
        return 8;
    case AT_SIGMOID:
        return 9;
    case AT_RELU:
        return 10;
    case AT_ERF:
        return 11;
    case AT_POW:
        return 12;
    case AT_SILU_MUL:
        return 14;
    default:
        return 13;
    }
}

static int prepare_bytes(attend_plan *plan, struct at_step *s, const char *name, int64_t bytes,
                         struct at_err *e)
{
    struct at_gpu_source source = {.files = 1u << AT_GPU_OPS};
    snprintf(source.defines, sizeof source.defines, "-DAT_ITEMS=%d", items_of(s));
    return at_gpu_prepare(plan, s, &source, &name, 1, bytes, e);
}

static int prepare_ops(attend_plan *plan, struct at_step *s, const char *name, struct at_err *e)
{
    return prepare_bytes(plan, s, name, sizeof(struct at_gpu_kernels), e);
}

/* The kernel that has the row's name. */
static int prepare_named(attend_plan *plan, struct at_step *s, struct at_err *e)
{
    return prepare_ops(plan, s, s->row->name, e);
}

static void *kernel_of(const struct at_step *s)
{
    return ((const struct at_gpu_kernels *)s->packed)->kernel[0];
}

/* Of groups along one axis, as many as the caller says. */
static struct at_gpu_launch launch_of(const struct at_step *s, const void *args, size_t bytes,
                                      int nbuffer)
{
    return (struct at_gpu_launch){
        .kernel = kernel_of(s),
        .args = args,
        .bytes = bytes,
        .nbuffer = nbuffer,
        .groups = {0, 1, 1},
        .items = items_of(s)
    };
}

static void fill_map(struct at_k_map *a, struct at_gpu_launch *l, const struct attend_exec *x,
                     const struct at_view *out, int t_out, const int *in, int nin)
{
    memset(a, 0, sizeof *a);
    at_gpu_extents(out, a->n);
    at_gpu_strides(out, a->stride[0]);
    a->type[0] = out->type;
    l->buffer[0] = at_gpu_buffer(x, t_out, &a->at[0]);
    for (int k = 0; k < nin; k++) {
        const struct at_view *v = &x->view[in[k]];
        at_gpu_strides(v, a->stride[k + 1]);
        a->type[k + 1] = v->type;
        l->buffer[k + 1] = at_gpu_buffer(x, in[k], &a->at[k + 1]);
    }
    int64_t rows = row_count(a->n);
    l->groups[0] = at_ceil_div(a->n[5], STRETCH);
    l->groups[1] = at_min(rows, MOST_GROUPS);
    l->groups[2] = at_ceil_div(rows, MOST_GROUPS);
    l->args = a;
    l->bytes = sizeof *a;
}

static int run_map(struct attend_exec *x, const struct at_step *s)
{
    struct at_k_map a;
    struct at_gpu_launch l = {.kernel = kernel_of(s), .nbuffer = 4, .items = items_of(s)};
    fill_map(&a, &l, x, at_result(x, s), s->out[0], s->in, s->nin);
    a.op = map_op(s->op);
    a.number = s->op == AT_SCALE   ? s->p->scale.factor
               : s->op == AT_WHERE ? s->p->where.other
               : s->op == AT_POW   ? s->p->pow.exponent
                                   : 0;
    return at_gpu_run(x, s, &l);
}

/* ---- copies: equal types move bits ---- */

static bool accepts_copy(const attend_plan *plan, const struct at_step *s, struct at_why *why)
{
    attend_type from = tensor(plan, s->in[0])->type, to = tensor(plan, s->out[0])->type;
    bool fine = from == to ? attend_type_block(from) == 1 : floating(to) && simple(from);
    return at_need(why, fine, "not elements of their own");
}

static int prepare_copy(attend_plan *plan, struct at_step *s, struct at_err *e)
{
    bool same = tensor(plan, s->in[0])->type == tensor(plan, s->out[0])->type;
    return prepare_ops(plan, s, same ? "move" : "map", e);
}

static int run_move(struct attend_exec *x, const struct at_step *s, const struct at_view *out,
                    int64_t skip, int in)
{
    struct at_k_map a;
    struct at_gpu_launch l = {.kernel = kernel_of(s), .nbuffer = 2, .items = items_of(s)};
    fill_map(&a, &l, x, out, s->out[0], &in, 1);
    a.at[0] += skip;
    a.type[0] = (at_i32)attend_type_size(out->type);
    return at_gpu_run(x, s, &l);
}

static int run_copy(struct attend_exec *x, const struct at_step *s)
{
    bool same = at_arg(x, s, 0)->type == at_result(x, s)->type;
    return same ? run_move(x, s, at_result(x, s), 0, s->in[0]) : run_map(x, s);
}

static bool accepts_concat(const attend_plan *plan, const struct at_step *s, struct at_why *why)
{
    return at_need(why, attend_type_block(tensor(plan, s->out[0])->type) == 1, "a quantised type");
}

static int prepare_concat(attend_plan *plan, struct at_step *s, struct at_err *e)
{
    return prepare_ops(plan, s, "move", e);
}

/* Each part to its place: a view of the output that starts further on. */
static int run_concat(struct attend_exec *x, const struct at_step *s)
{
    const struct at_view *out = at_result(x, s);
    int axis = s->p->concat.axis, status = 0;
    int64_t at = 0;
    for (int k = 0; k < s->nin && status == 0; k++) {
        struct at_view part = *out;
        part.shape[axis] = at_arg(x, s, k)->shape[axis];
        status = run_move(x, s, &part, at * out->stride[axis], s->in[k]);
        at += part.shape[axis];
    }
    return status;
}

/* ---- rows ---- */

static bool accepts_rows(const attend_plan *plan, const struct at_step *s, struct at_why *why)
{
    const struct at_tensor *a = tensor(plan, s->in[0]);
    bool fine = a->rank > 0;
    for (int k = 0; k < s->nin; k++)
        fine = fine && (s->in[k] < 0 || floating(tensor(plan, s->in[k])->type));
    return at_need(why, fine && floating(tensor(plan, s->out[0])->type), "not rows of floats");
}

static int run_rows(struct attend_exec *x, const struct at_step *s)
{
    struct at_k_rows a = {.op = s->op == AT_SOFTMAX    ? 0
                                : s->op == AT_RMS_NORM ? 1
                                                       : 2,
                          .eps = s->op == AT_SOFTMAX ? 0 : s->p->norm.eps};
    struct at_gpu_launch l = launch_of(s, &a, sizeof a, 4);
    const struct at_view *out = at_result(x, s), *in = at_arg(x, s, 0);
    at_gpu_extents(out, a.n);
    at_gpu_strides(out, a.stride[0]);
    at_gpu_strides(in, a.stride[1]);
    a.type[0] = out->type;
    a.type[1] = in->type;
    l.buffer[0] = at_gpu_buffer(x, s->out[0], &a.at[0]);
    l.buffer[1] = at_gpu_buffer(x, s->in[0], &a.at[1]);
    for (int k = 1; k <= 2; k++) {
        const struct at_view *v = s->op == AT_SOFTMAX ? NULL : at_in(x, s, k);
        a.type[k + 1] = v ? (at_i32)v->type : -1;
        if (!v)
            continue;
        l.buffer[k + 1] = at_gpu_buffer(x, s->in[k], &a.at[k + 1]);
        a.step[k - 1] = v->shape[0] == 1 ? 0 : v->stride[0];
    }
    l.groups[0] = a.n[5] ? row_count(a.n) : 0;
    return at_gpu_run(x, s, &l);
}

/* ---- rope ---- */

/* The turns of a pair at position 1, in units of 2^-64, are the plan's, on the device. */
struct rope {
    struct at_gpu_kernels k;
    int64_t *turns;
};

static int prepare_rope(attend_plan *plan, struct at_step *s, struct at_err *e)
{
    int64_t pairs = s->p->rope.dims / 2;
    int status = prepare_bytes(plan, s, "rope", sizeof(struct rope), e);
    if (status < 0)
        return status;
    struct rope *r = (struct rope *)(uintptr_t)s->packed;
    r->turns = at_plan_pack(plan, at_max(1, pairs) * (int64_t)sizeof *r->turns);
    if (!r->turns)
        return at_fail(e, ATTEND_ENOMEM, "no memory for the frequencies of rope");
    for (int64_t p = 0; p < pairs; p++) {
        long double f =
            powl(s->p->rope.base, -2.0L * (long double)p / (long double)s->p->rope.dims);
        long double turn = f / 6.28318530717958647692528676655900577L;
        if (s->p->rope.back)
            turn = -turn;
        turn -= rintl(turn); /* at most half a turn either way */
        r->turns[p] = turn >= 0.5L ? INT64_MIN : (int64_t)rintl(turn * 18446744073709551616.0L);
    }
    s->work = pairs * (int64_t)sizeof *r->turns;
    return 0;
}

static int bind_rope(struct attend_exec *x, const struct at_step *s)
{
    const struct rope *r = s->packed;
    const struct at_memory *m = s->device->memory;
    x->transfer->flying = true;
    return s->work ? m->upload(s->device, x->transfer->stream, x->transfer->work,
                               x->variant->shared_work + s->work_offset, r->turns, s->work, &x->err)
                   : 0;
}

static bool accepts_rope(const attend_plan *plan, const struct at_step *s, struct at_why *why)
{
    return at_need(
        why, floating(tensor(plan, s->in[0])->type) && floating(tensor(plan, s->out[0])->type),
        "not floats");
}

static int run_rope(struct attend_exec *x, const struct at_step *s)
{
    struct at_k_pick a = {.half_pairs = s->p->rope.pairing == ATTEND_ROPE_HALF,
                          .dims = (at_i32)s->p->rope.dims};
    struct at_gpu_launch l = launch_of(s, &a, sizeof a, 5);
    const struct at_view *out = at_result(x, s), *in = at_arg(x, s, 0), *pos = at_arg(x, s, 1),
                         *factors = at_in(x, s, 2);
    for (int d = 0; d < 4; d++) {
        a.n[d] = out->shape[d];
        a.out[d] = out->stride[d];
        a.in[d] = in->stride[d];
    }
    a.out_type = out->type;
    a.in_type = in->type;
    l.buffer[0] = at_gpu_buffer(x, s->out[0], &a.out_at);
    l.buffer[1] = at_gpu_buffer(x, s->in[0], &a.in_at);
    l.buffer[2] = at_gpu_buffer(x, s->in[1], &a.index_at);
    a.index[0] = pos->rank == 1 ? 0 : pos->stride[0];
    a.index[1] = pos->rank == 1 ? pos->stride[0] : pos->stride[1];
    if (factors) {
        l.buffer[3] = at_gpu_buffer(x, s->in[2], &a.extra_at);
        a.extra[0] = factors->stride[0];
        a.has_extra = 1;
    }
    l.buffer[4] = x->transfer->work;
    a.limit = x->variant->shared_work + s->work_offset;
    l.groups[0] = a.n[0] * a.n[1] * a.n[2];
    return at_gpu_run(x, s, &l);
}

/* ---- gather and append ---- */

static bool accepts_gather(const attend_plan *plan, const struct at_step *s, struct at_why *why)
{
    const struct at_tensor *t = tensor(plan, s->in[0]);
    bool type = floating(t->type) || attend_type_block(t->type) > 1;
    return at_need(why,
                   type && at_graph_has_rows(plan->graph, s->in[0]) &&
                       at_graph_has_rows(plan->graph, s->out[0]),
                   "not contiguous rows of a floating or quantised type");
}

static int run_gather(struct attend_exec *x, const struct at_step *s)
{
    struct at_k_pick a = {.step = at_gpu_step(x, s)};
    struct at_gpu_launch l = launch_of(s, &a, sizeof a, 4);
    const struct at_view *table = at_arg(x, s, 0), *index = at_arg(x, s, 1), *out = at_result(x, s);
    at_gpu_extents(index, a.index_n);
    at_gpu_strides(index, a.index_stride);
    at_gpu_extents(out, a.out_n);
    at_gpu_strides(out, a.out_stride);
    a.n[3] = table->shape[1];
    a.in[2] = table->stride[0];
    a.limit = table->shape[0];
    a.out_type = out->type;
    a.in_type = table->type;
    l.buffer[0] = at_gpu_buffer(x, s->out[0], &a.out_at);
    l.buffer[1] = at_gpu_buffer(x, s->in[0], &a.in_at);
    l.buffer[2] = at_gpu_buffer(x, s->in[1], &a.index_at);
    l.buffer[3] = at_gpu_status(x);
    l.groups[0] = a.n[3] ? row_count(a.out_n) : 0;
    return at_gpu_run(x, s, &l);
}

static bool accepts_append(const attend_plan *plan, const struct at_step *s, struct at_why *why)
{
    attend_type to = tensor(plan, s->out[0])->type;
    return at_need(why,
                   floating(tensor(plan, s->in[1])->type) &&
                       (floating(to) || to == ATTEND_F8 || to == ATTEND_Q8_0 || to == ATTEND_Q4_0),
                   "a type that it does not store");
}

static int run_append(struct attend_exec *x, const struct at_step *s)
{
    struct at_k_pick a = {.step = at_gpu_step(x, s)};
    struct at_gpu_launch l = launch_of(s, &a, sizeof a, 5);
    const struct at_view *pool = at_result(x, s), *rows = at_arg(x, s, 1), *slots = at_arg(x, s, 2),
                         *scale = at_in(x, s, 3);
    for (int d = 0; d < 4; d++) {
        a.n[d] = rows->shape[d];
        a.out[d] = pool->stride[d];
        a.in[d] = rows->stride[d];
    }
    a.page = pool->shape[2];
    a.limit = pool->shape[0] * pool->shape[2];
    a.out_type = pool->type;
    a.in_type = rows->type;
    a.index[0] = slots->stride[0];
    a.index[1] = slots->stride[1];
    l.buffer[0] = at_gpu_buffer(x, s->out[0], &a.out_at);
    l.buffer[1] = at_gpu_buffer(x, s->in[1], &a.in_at);
    l.buffer[2] = at_gpu_buffer(x, s->in[2], &a.index_at);
    if (scale) {
        l.buffer[3] = at_gpu_buffer(x, s->in[3], &a.extra_at);
        a.extra[0] = scale->shape[0] == 1 ? 0 : scale->stride[0];
        a.extra[1] = scale->stride[1];
        a.has_extra = 1;
    }
    l.buffer[4] = at_gpu_status(x);
    l.groups[0] = a.n[0] * a.n[1] * a.n[2];
    return at_gpu_run(x, s, &l);
}

/* ---- merge ---- */

static bool accepts_merge(const attend_plan *plan, const struct at_step *s, struct at_why *why)
{
    (void)plan;
    (void)s;
    (void)why;
    return true;
}

void at_gpu_merge_pair(struct at_k_merge *a, struct at_gpu_launch *l, const struct attend_exec *x,
                       int which, int o, int lse)
{
    struct at_view row;
    if (o >= 0) {
        at_gpu_strides(&x->view[o], a->o[which]);
        l->buffer[2 * which] = at_gpu_buffer(x, o, &a->o_at[which]);
    }
    if (lse < 0)
        return;
    row = x->view[lse];
    row.shape[row.rank] = 1; /* an axis of one for the channels */
    row.stride[row.rank++] = 0;
    at_gpu_strides(&row, a->lse[which]);
    l->buffer[2 * which + 1] = at_gpu_buffer(x, lse, &a->lse_at[which]);
}

static int run_merge(struct attend_exec *x, const struct at_step *s)
{
    struct at_k_merge a = {.has_lse = at_out(x, s, 1) != NULL};
    struct at_gpu_launch l = launch_of(s, &a, sizeof a, 6);
    at_gpu_extents(at_result(x, s), a.n);
    at_gpu_merge_pair(&a, &l, x, 0, s->out[0], s->nout > 1 ? s->out[1] : -1);
    at_gpu_merge_pair(&a, &l, x, 1, s->in[0], s->in[1]);
    at_gpu_merge_pair(&a, &l, x, 2, s->in[2], s->in[3]);
    l.groups[0] = row_count(a.n);
    return at_gpu_run(x, s, &l);
}

/* ---- matmul ---- */

#define FEW 4 /* AT_FEW */

static bool accepts_matmul(const attend_plan *plan, const struct at_step *s, struct at_why *why)
{
    const struct at_tensor *b = tensor(plan, s->in[1]);
    bool blocks = attend_type_block(b->type) > 1;
    return at_need(why,
                   floating(tensor(plan, s->in[0])->type) && (floating(b->type) || blocks) &&
                       floating(tensor(plan, s->out[0])->type),
                   "a type that it does not multiply") &&
           at_need(why, tensor(plan, s->out[0])->rank <= 6, "too many axes");
}

static bool accepts_matvec(const attend_plan *plan, const struct at_step *s, struct at_why *why)
{
    const struct at_tensor *c = tensor(plan, s->out[0]);
    return at_need(why, at_plan_range(plan, s->rows, s->out[0], c->rank - 2).max <= FEW,
                   "more rows than 4") &&
           accepts_matmul(plan, s, why);
}

static bool accepts_matmul_cpu(const attend_plan *plan, const struct at_step *s, struct at_why *why)
{
    return at_gpu_on_cpu(s, why) && accepts_matmul(plan, s, why);
}

static bool accepts_matvec_cpu(const attend_plan *plan, const struct at_step *s, struct at_why *why)
{
    return at_gpu_on_cpu(s, why) && accepts_matvec(plan, s, why);
}

static int prepare_gemm(attend_plan *plan, struct at_step *s, struct at_err *e)
{
    struct at_gpu_source source = {.files = 1u << AT_GPU_GEMM};
    snprintf(source.defines, sizeof source.defines, "-DAT_B=%d", tensor(plan, s->in[1])->type);
    return at_gpu_prepare(plan, s, &source, &s->row->name, 1, sizeof(struct at_gpu_kernels), e);
}

static int prepare_gemm_cpu(attend_plan *plan, struct at_step *s, struct at_err *e)
{
    struct at_gpu_source source = {.files = 1u << AT_GPU_TILE_CPU | 1u << AT_GPU_GEMM_CPU};
    snprintf(source.defines, sizeof source.defines, "-DAT_B=%d -DAT_LANES=%d",
             tensor(plan, s->in[1])->type, at_gpu_of(s->device)->lanes);
    return at_gpu_prepare(plan, s, &source, &s->row->name, 1, sizeof(struct at_gpu_kernels), e);
}

static void batch(const struct at_view *c, const struct at_view *v, at_i64 stride[4])
{
    for (int d = 0; d < 4; d++) {
        int axis = d - (6 - v->rank);
        stride[d] = axis < 0 || v->shape[axis] == 1 ? 0 : v->stride[axis];
    }
    (void)c;
}

static void fill_matmul(struct at_k_matmul *a, struct at_gpu_launch *l, const struct attend_exec *x,
                        const struct at_step *s)
{
    const struct at_view *va = at_arg(x, s, 0), *vb = at_arg(x, s, 1), *vc = at_result(x, s);
    bool b_rows = s->p->matmul.b_rows;
    memset(a, 0, sizeof *a);
    a->m = vc->shape[vc->rank - 2];
    a->n = vc->shape[vc->rank - 1];
    a->k = va->shape[va->rank - 1];
    for (int d = 0; d < 4; d++)
        a->batch[d] = d < 6 - vc->rank ? 1 : vc->shape[d - (6 - vc->rank)];
    batch(vc, va, a->a_batch);
    batch(vc, vb, a->b_batch);
    batch(vc, vc, a->c_batch);
    a->a_row = va->stride[va->rank - 2];
    a->a_k = va->stride[va->rank - 1];
    a->b_n = vb->stride[vb->rank - (b_rows ? 2 : 1)];
    a->b_k = vb->stride[vb->rank - (b_rows ? 1 : 2)];
    a->c_row = vc->stride[vc->rank - 2];
    a->c_n = vc->stride[vc->rank - 1];
    a->a_type = va->type;
    a->b_type = vb->type;
    a->c_type = vc->type;
    l->buffer[0] = at_gpu_buffer(x, s->in[0], &a->a_at);
    l->buffer[1] = at_gpu_buffer(x, s->in[1], &a->b_at);
    l->buffer[2] = at_gpu_buffer(x, s->out[0], &a->c_at);
    l->nbuffer = 3;
    l->items = 64;
    l->args = a;
    l->bytes = sizeof *a;
    l->groups[2] = a->batch[0] * a->batch[1] * a->batch[2] * a->batch[3];
}

static int run_matmul(struct attend_exec *x, const struct at_step *s)
{
    struct at_k_matmul a;
    struct at_gpu_launch l = {.kernel = kernel_of(s)};
    fill_matmul(&a, &l, x, s);
    l.groups[0] = at_ceil_div(a.n, 32);
    l.groups[1] = at_ceil_div(a.m, 32);
    return at_gpu_run(x, s, &l);
}

static int run_matvec(struct attend_exec *x, const struct at_step *s)
{
    struct at_k_matmul a;
    struct at_gpu_launch l = {.kernel = kernel_of(s)};
    fill_matmul(&a, &l, x, s);
    l.groups[0] = a.m ? a.n : 0;
    l.groups[1] = 1;
    return at_gpu_run(x, s, &l);
}

static int run_matmul_cpu(struct attend_exec *x, const struct at_step *s)
{
    struct at_k_matmul a;
    struct at_gpu_launch l = {.kernel = kernel_of(s)};
    fill_matmul(&a, &l, x, s);
    l.items = 1;
    l.groups[0] = at_ceil_div(a.n, 96);
    l.groups[1] = at_ceil_div(a.m, 128);
    return at_gpu_run(x, s, &l);
}

static int run_matvec_cpu(struct attend_exec *x, const struct at_step *s)
{
    struct at_k_matmul a;
    struct at_gpu_launch l = {.kernel = kernel_of(s)};
    fill_matmul(&a, &l, x, s);
    l.items = 1;
    l.groups[0] = a.m ? at_ceil_div(a.n, 16) : 0;
    l.groups[1] = 1;
    return at_gpu_run(x, s, &l);
}

/* ---- matmul by a library ---- */

#define MANY 32   /* rows of a product that a library is asked for, */
#define LARGE 128 /* and its other extents */

static bool accepts_library(const attend_plan *plan, const struct at_step *s, struct at_why *why)
{
    const struct at_tensor *a = tensor(plan, s->in[0]), *b = tensor(plan, s->in[1]),
                           *c = tensor(plan, s->out[0]);
    bool f32 = a->type == ATTEND_F32 && b->type == ATTEND_F32 && c->type == ATTEND_F32;
    if (!at_gpu_of(s->device)->library)
        return false; /* without a word: it has none */
    return at_need(why, f32, "not all f32") &&
           at_need(why, !plan->deterministic, "a library's sums may depend on the rows beside") &&
           at_need(why, b->rank == 2, "not a product with one matrix") &&
           at_need(why,
                   at_plan_range(plan, s->rows, s->out[0], c->rank - 2).min >= MANY &&
                       at_plan_range(plan, s->rows, s->out[0], c->rank - 1).min >= LARGE &&
                       at_plan_range(plan, s->rows, s->in[0], a->rank - 1).min >= LARGE,
                   "fewer than 32 rows, or 128 of the rest") &&
           at_need(why,
                   at_graph_has_rows(plan->graph, s->in[0]) &&
                       at_graph_has_rows(plan->graph, s->in[1]) &&
                       at_graph_has_rows(plan->graph, s->out[0]),
                   "rows that are not together in memory");
}

/* Our own row, for rows that lie as no library takes them. */
static const struct at_row *own_row(const struct at_step *s)
{
    return at_gpu_of(s->device)->cpu ? &at_gpu_matmul_cpu : &at_gpu_matmul;
}

static int prepare_library(attend_plan *plan, struct at_step *s, struct at_err *e)
{
    const struct at_row *row = s->row;
    int status = at_gpu_of(s->device)->library(s->device, e);
    if (status < 0)
        return status;
    s->row = own_row(s);
    status = s->row->prepare(plan, s, e);
    s->row = row;
    return status;
}

static int run_library(struct attend_exec *x, const struct at_step *s)
{
    const struct at_gpu *gpu = at_gpu_of(s->device);
    struct at_k_matmul a;
    struct at_gpu_launch l = {.kernel = kernel_of(s)};
    fill_matmul(&a, &l, x, s);
    struct at_gpu_gemm g = {.m = a.m,
                            .n = a.n,
                            .k = a.k,
                            .a = l.buffer[0],
                            .b = l.buffer[1],
                            .c = l.buffer[2],
                            .a_row = a.a_row,
                            .b_row = s->p->matmul.b_rows ? a.b_n : a.b_k,
                            .c_row = a.c_row,
                            .b_rows = s->p->matmul.b_rows,
                            .tf32 = x->plan->precision == ATTEND_TF32};
    int status = 0;
    if (g.a_row < a.k || g.b_row < (g.b_rows ? a.k : a.n) || g.c_row < a.n)
        return own_row(s)->run(x, s);
    for (int64_t entry = 0; entry < l.groups[2] && status == 0; entry++) {
        int64_t rest = entry;
        g.a_at = a.a_at;
        g.b_at = a.b_at;
        g.c_at = a.c_at;
        for (int d = 3; d >= 0; d--) {
            g.a_at += rest % a.batch[d] * a.a_batch[d];
            g.c_at += rest % a.batch[d] * a.c_batch[d];
            rest /= a.batch[d];
        }
        status = gpu->gemm(s->device, x->transfer->stream, &g, &x->err);
    }
    return status;
}

/* ---- the rows ---- */

#define MAP(op, row)                                                                               \
    const struct at_row row = {"map", op, accepts_map, prepare_named, NULL, run_map}
MAP(AT_ADD, at_gpu_add);
MAP(AT_MUL, at_gpu_mul);
MAP(AT_SCALE, at_gpu_scale);
MAP(AT_WHERE, at_gpu_where);
MAP(AT_SELECT, at_gpu_select);
MAP(AT_SILU, at_gpu_silu);
MAP(AT_SILU_MUL, at_gpu_silu_mul);
MAP(AT_GELU, at_gpu_gelu);
MAP(AT_GELU_TANH, at_gpu_gelu_tanh);
MAP(AT_TANH, at_gpu_tanh);
MAP(AT_SIGMOID, at_gpu_sigmoid);
MAP(AT_RELU, at_gpu_relu);
MAP(AT_ERF, at_gpu_erf);
MAP(AT_POW, at_gpu_pow);
#define ROWS(op, row)                                                                              \
    const struct at_row row = {"rows", op, accepts_rows, prepare_named, NULL, run_rows}
ROWS(AT_SOFTMAX, at_gpu_softmax);
ROWS(AT_RMS_NORM, at_gpu_rms_norm);
ROWS(AT_LAYER_NORM, at_gpu_layer_norm);
const struct at_row at_gpu_cast = {"copy", AT_CAST, accepts_copy, prepare_copy, NULL, run_copy};
const struct at_row at_gpu_copy = {"copy", AT_COPY, accepts_copy, prepare_copy, NULL, run_copy};
const struct at_row at_gpu_concat = {"copy",         AT_CONCAT, accepts_concat,
                                     prepare_concat, NULL,      run_concat};
const struct at_row at_gpu_rope = {"rope",       AT_ROPE,   accepts_rope,
                                   prepare_rope, bind_rope, run_rope};
const struct at_row at_gpu_gather = {"gather",      AT_GATHER, accepts_gather,
                                     prepare_named, NULL,      run_gather};
const struct at_row at_gpu_append = {"append",      AT_APPEND, accepts_append,
                                     prepare_named, NULL,      run_append};
const struct at_row at_gpu_merge = {"merge",       AT_MERGE, accepts_merge,
                                    prepare_named, NULL,     run_merge};
const struct at_row at_gpu_matvec_cpu = {"matvec_cpu",     AT_MATMUL, accepts_matvec_cpu,
                                         prepare_gemm_cpu, NULL,      run_matvec_cpu};
const struct at_row at_gpu_matmul_cpu = {"matmul_cpu",     AT_MATMUL, accepts_matmul_cpu,
                                         prepare_gemm_cpu, NULL,      run_matmul_cpu};
const struct at_row at_gpu_matvec = {"matvec",     AT_MATMUL, accepts_matvec,
                                     prepare_gemm, NULL,      run_matvec};
const struct at_row at_gpu_matmul = {"matmul",     AT_MATMUL, accepts_matmul,
                                     prepare_gemm, NULL,      run_matmul};
const struct at_row at_gpu_library = {"library",       AT_MATMUL, accepts_library,
                                      prepare_library, NULL,      run_library};
