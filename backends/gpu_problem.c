/* SPDX-License-Identifier: MIT */
/* One attention problem as kernels get it, forward or backward: what portable/score.cl takes. */
#include <stdio.h>

#include "gpu_problem.h"

_Static_assert(AT_MAX_CAPTURES == 9, "AT_ATTN_INPUTS has a buffer for each captured tensor");

static struct at_gpu_sizes sizes_of_mask(const attend_plan *plan, const struct at_step *s)
{
    int q = s->in[AT_IN_Q];
    return (struct at_gpu_sizes){.seqs = at_attn_max_seqs(plan, s),
                                 .rows = at_plan_range(plan, s->rows, q, 2).max,
                                 .keys = at_plan_range(plan, s->rows, q, 3).max,
                                 .groups = plan->graph->tensor[q].shape[1],
                                 .ratio = 1};
}

struct at_gpu_sizes at_gpu_sizes_of(const attend_plan *plan, const struct at_step *s)
{
    const attend_graph *g = plan->graph;
    if (s->op == AT_MASK || s->op == AT_MASK_GRAD)
        return sizes_of_mask(plan, s);
    const struct at_tensor *q = &g->tensor[s->in[AT_IN_Q]], *k = &g->tensor[s->in[AT_IN_K]];
    struct at_gpu_sizes e = {
        .seqs = at_attn_max_seqs(plan, s),
        .rows = at_plan_range(plan, s->rows, s->in[AT_IN_Q], q->rank == 3 ? 0 : 2).max,
        .keys = at_plan_range(plan, s->rows, s->in[AT_IN_K], k->rank == 3 ? 0 : 2).max,
        .groups = k->shape[1],
        .ratio = q->shape[1] / k->shape[1],
        .dk = q->shape[q->rank - 1]};
    if (s->in[AT_IN_V] >= 0) /* of weights there are no values */
        e.dv = g->tensor[s->in[AT_IN_V]].shape[k->rank - 1];
    if (s->in[AT_IN_TABLE] >= 0)
        e.keys = at_mul_size(e.keys, at_plan_range(plan, s->rows, s->in[AT_IN_TABLE], 1).max);
    return e;
}

static int64_t table_bytes(const struct at_gpu_sizes *e)
{
    return e->seqs * (int64_t)sizeof(struct at_k_seq) +
           AT_MAX_CAPTURES * (int64_t)sizeof(struct at_k_capture);
}

int at_gpu_problem_prepare(attend_plan *plan, struct at_step *s, unsigned files,
                           const char *defines, const char *const *names, int n, int64_t state,
                           struct at_err *e)
{
    const struct at_attention *p = &s->p->attention;
    struct at_gpu_source source = {.files = 1u << AT_GPU_SCORE | files};
    struct at_gpu_sizes x = at_gpu_sizes_of(plan, s);
    char *printed;
    int status = at_gpu_problem_text(plan, s, &printed, e);
    if (status < 0)
        return status;
    snprintf(source.defines, sizeof source.defines, "%s%s%s", defines,
             p->score ? " -DAT_SCORE_EXPR" : "", p->mask ? " -DAT_MASK_EXPR" : "");
    source.printed = printed;
    status = at_gpu_prepare(plan, s, &source, names, n, sizeof(struct at_gpu_kernels), e);
    attend_free(printed);
    s->work = table_bytes(&x);
    s->state = at_round_up(state, AT_ALIGN) + x.seqs * (int64_t)sizeof(struct at_seq) + s->work;
    return status;
}

bool at_gpu_problem_edits(const struct at_step *s)
{
    const struct at_attention *p = &s->p->attention;
    return s->in[AT_IN_BIAS] >= 0 || s->in[AT_IN_MASK] >= 0 || s->in[AT_IN_ALIBI] >= 0 ||
           p->score || p->mask || p->softcap > 0 || !(p->scale > 0);
}

/* ---- arguments ---- */

/* The tensor of an input, or -1. */
static int in(const struct at_step *s, int k)
{
    return k < s->nin ? s->in[k] : -1;
}

struct at_k_view at_gpu_problem_view(const struct attend_exec *x, int t, const struct at_view *v)
{
    struct at_k_view k = {.type = (at_i32)v->type, .given = v->data != NULL};
    for (int d = 0; d < 4 && v->data; d++)
        k.stride[d] = v->stride[d];
    if (v->data)
        at_gpu_buffer(x, t, &k.at);
    return k;
}

static void scale_of(const struct attend_exec *x, const struct at_step *s, int in,
                     const struct at_view *v, at_i64 to[3], at_i32 *has)
{
    *has = v->data != NULL;
    if (!*has)
        return;
    at_gpu_buffer(x, s->in[in], &to[0]);
    to[1] = v->stride[0];
    to[2] = v->stride[1];
}

static at_i32 place_of(const struct attend_exec *x, const struct at_step *s, int in, at_i64 *at)
{
    bool given = at_in(x, s, in) != NULL;
    if (given)
        at_gpu_buffer(x, s->in[in], at);
    return given;
}

static void fill_tensors(struct at_k_attn *k, const struct attend_exec *x, const struct at_step *s,
                         const struct at_attn *a)
{
    k->q = at_gpu_problem_view(x, in(s, AT_IN_Q), &a->q);
    k->k = at_gpu_problem_view(x, in(s, AT_IN_K), &a->k);
    k->v = at_gpu_problem_view(x, in(s, AT_IN_V), &a->v);
    k->bias = at_gpu_problem_view(x, in(s, AT_IN_BIAS), &a->bias);
    k->mask = at_gpu_problem_view(x, in(s, AT_IN_MASK), &a->mask);
    for (int d = 0; d < 3; d++)
        k->lse[d + 1] = a->lse.stride[d];
    scale_of(x, s, AT_IN_K_SCALE, &a->k_scale, k->k_scale, &k->has_k_scale);
    scale_of(x, s, AT_IN_V_SCALE, &a->v_scale, k->v_scale, &k->has_v_scale);
    k->has_alibi = place_of(x, s, AT_IN_ALIBI, &k->alibi);
    k->has_sinks = place_of(x, s, AT_IN_SINKS, &k->sinks);
    k->has_additive = place_of(x, s, AT_IN_ADDITIVE, &k->additive);
    k->has_table = place_of(x, s, AT_IN_TABLE, &k->table);
    k->table_stride = a->table_stride;
    k->page = a->table ? a->page : 1;
}

static at_i64 reach(int64_t window)
{
    return at_min(window, INT64_MAX / 4);
}

static void fill_numbers(struct at_k_attn *k, const struct at_attn *a)
{
    k->nh = (at_i32)a->nh;
    k->ng = (at_i32)a->ng;
    k->dk = (at_i32)a->dk;
    k->dv = (at_i32)a->dv;
    k->nseq = (at_i32)a->nseq;
    k->causal = a->visible.causal;
    k->left = reach(a->visible.left);
    k->right = reach(a->visible.right);
    k->scale = a->scale;
    k->softcap = a->softcap;
    k->seed0 = (at_u32)a->dropout.seed;
    k->seed1 = (at_u32)(a->dropout.seed >> 32);
    k->offset = a->dropout.offset;
    k->below = a->dropout.below;
    k->keep = a->dropout.keep;
    k->hides = a->mask.data || a->mask_expr || a->bias.data || a->score_expr;
    k->edits = k->hides || a->softcap > 0 || a->alibi || !(a->scale > 0);
}

static void fill_captures(struct at_k_capture *to, const struct attend_exec *x,
                          const struct at_step *s)
{
    int64_t places = 0;
    for (int c = 0; c < AT_MAX_CAPTURES; c++) {
        const struct at_view *v = at_in(x, s, AT_IN_CAPTURE + c);
        to[c] = (struct at_k_capture){
            .shape = {1, 1, 1, 1},
              .place = places
        };
        if (!v)
            continue;
        to[c].type = (at_i32)v->type;
        to[c].rank = v->rank;
        at_gpu_buffer(x, s->in[AT_IN_CAPTURE + c], &to[c].at);
        for (int d = 0; d < v->rank && d < 4; d++) {
            to[c].shape[d] = v->shape[d];
            to[c].stride[d] = v->stride[d];
        }
        if (at_gpu_gives(s, c))
            places += to[c].shape[0] * to[c].shape[1] * to[c].shape[2] * to[c].shape[3];
    }
}

void at_gpu_problem_args(struct at_k_attn *k, const struct attend_exec *x, const struct at_step *s,
                         const struct at_attn *a)
{
    *k = (struct at_k_attn){.dk = 0};
    fill_tensors(k, x, s, a);
    fill_numbers(k, a);
}

int at_gpu_problem_table(struct attend_exec *x, const struct at_step *s, const struct at_attn *a,
                         const struct at_gpu_sizes *e, void *room, struct at_k_attn *k)
{
    struct at_k_seq *table = room;
    for (int64_t n = 0; n < a->nseq; n++) {
        const struct at_seq *q = &a->seq[n];
        table[n] = (struct at_k_seq){q->qb, q->q0, q->nq, q->kb, q->k0, q->nk, q->off};
    }
    fill_captures((struct at_k_capture *)(table + e->seqs), x, s);
    k->seqs = x->variant->shared_work + s->work_offset;
    k->captures = k->seqs + e->seqs * (int64_t)sizeof *table;
    x->transfer->flying = true;
    return s->device->memory->upload(s->device, x->transfer->stream, x->transfer->work, k->seqs,
                                     table, table_bytes(e), &x->err);
}

static void *buffer(const struct attend_exec *x, int t)
{
    int64_t at;
    return t >= 0 ? at_gpu_buffer(x, t, &at) : NULL;
}

int at_gpu_problem_buffers(const struct attend_exec *x, const struct at_step *s, void **to)
{
    static const int inputs[] = {AT_IN_Q,     AT_IN_K,       AT_IN_V,      AT_IN_BIAS,
                                 AT_IN_MASK,  AT_IN_ALIBI,   AT_IN_SINKS,  AT_IN_ADDITIVE,
                                 AT_IN_TABLE, AT_IN_K_SCALE, AT_IN_V_SCALE};
    int n = 0;
    for (int i = 0; i < AT_LEN(inputs); i++)
        to[n++] = buffer(x, in(s, inputs[i]));
    to[n++] = x->transfer->work;
    for (int c = 0; c < AT_MAX_CAPTURES; c++)
        to[n++] = buffer(x, in(s, AT_IN_CAPTURE + c));
    return n;
}
