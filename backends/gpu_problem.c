/* SPDX-License-Identifier: MIT */
/* One attention problem as kernels get it, forward or backward: what portable/score.cl takes. */
#include "gpu_problem.h"

_Static_assert(AT_MAX_CAPTURES == 9, "AT_ATTN_INPUTS has a buffer for each captured tensor");

struct at_gpu_sizes at_gpu_sizes_of(const attend_plan *plan, const struct at_step *s)
{
    const attend_graph *g = plan->graph;
    const struct at_tensor *q = &g->tensor[s->in[AT_IN_Q]], *k = &g->tensor[s->in[AT_IN_K]];
    struct at_gpu_sizes e = {
        .seqs = at_attn_max_seqs(plan, s),
        .rows = at_plan_range(plan, s->rows, s->in[AT_IN_Q], q->rank == 3 ? 0 : 2).max,
        .keys = at_plan_range(plan, s->rows, s->in[AT_IN_K], k->rank == 3 ? 0 : 2).max,
        .groups = k->shape[1],
        .ratio = q->shape[1] / k->shape[1],
        .dk = q->shape[q->rank - 1],
        .dv = g->tensor[s->in[AT_IN_V]].shape[k->rank - 1]};
    if (s->in[AT_IN_TABLE] >= 0)
        e.keys = at_mul_size(e.keys, at_plan_range(plan, s->rows, s->in[AT_IN_TABLE], 1).max);
    return e;
}

/* ---- text ---- */

static void print_function(struct at_str *s, const struct at_expr *x, const char *head,
                           enum at_expr_dialect dialect, const struct at_expr_box *box)
{
    if (!x)
        return;
    at_str_add(s,
               "AT_FN %s(const struct at_in *x, float score, int b, int h, int i, int j, int sq, "
               "int skv)\n{\n",
               head);
    at_expr_print(x, dialect, box, s);
    at_str_add(s, "}\n");
}

/* at_load_NAME(...) for each captured tensor. */
static void print_captures(struct at_str *s, const struct at_expr *score,
                           const struct at_expr *mask)
{
    for (int k = 0; k < AT_EXPR_CAPTURES; k++) {
        const struct at_expr *x = score && k < score->ncapture ? score : mask;
        if (!x || k >= x->ncapture)
            continue;
        const struct at_expr_capture *c = &x->capture[k];
        bool is_float = c->type == ATTEND_F32 || c->type == ATTEND_F16 || c->type == ATTEND_BF16;
        at_str_add(s, "#define at_load_%s(", c->name);
        for (int d = 0; d < c->rank; d++)
            at_str_add(s, "%sa%d", d ? ", " : "", d);
        at_str_add(s, ") at_capture_%s(x, %d", is_float ? "float" : "int", k);
        for (int d = 0; d < 4; d++)
            if (d < c->rank)
                at_str_add(s, ", a%d", d);
            else
                at_str_add(s, ", 0");
        at_str_add(s, ")\n");
    }
}

char *at_gpu_problem_text(const attend_plan *plan, const struct at_step *s,
                          const struct at_expr *slope)
{
    const struct at_attention *p = &s->p->attention;
    enum at_expr_dialect dialect = at_gpu_of(s->device)->dialect;
    struct at_gpu_sizes e = at_gpu_sizes_of(plan, s);
    const struct at_expr_box box = {
        .b = {0, e.seqs            },
        .h = {0, e.groups * e.ratio},
        .i = {0, e.rows            },
        .j = {0, e.keys            },
        .sq = {0, e.rows            },
        .skv = {0, e.keys            }
    };
    struct at_str text = {0};
    at_str_add(&text, "\n");
    if (p->score || p->mask)
        at_expr_print_prelude(dialect, &text);
    print_captures(&text, p->score, p->mask);
    print_function(&text, p->score, "float at_score_expr", dialect, &box);
    print_function(&text, slope, "float at_slope_expr", dialect, &box);
    print_function(&text, p->mask, "int at_mask_expr", dialect, &box);
    if (!text.failed)
        return text.text;
    attend_free(text.text);
    return NULL;
}

int64_t at_gpu_table_bytes(const struct at_gpu_sizes *e)
{
    return e->seqs * (int64_t)sizeof(struct at_k_seq) +
           AT_MAX_CAPTURES * (int64_t)sizeof(struct at_k_capture);
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
    for (int c = 0; c < AT_MAX_CAPTURES; c++) {
        const struct at_view *v = at_in(x, s, AT_IN_CAPTURE + c);
        to[c] = (struct at_k_capture){
            .shape = {1, 1, 1, 1}
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
                                     table, at_gpu_table_bytes(e), &x->err);
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
