/* SPDX-License-Identifier: MIT */
/* Attention on devices: the shapes of portable/attn_*.cl, their argument block, and which one a
 * step takes.  Sequences and captured tensors are described in a table on the device, written by
 * bind. */
#include <stdio.h>
#include <string.h>

#include "env.h"
#include "gpu.h"

#define FEW 8                    /* packed rows of decode */
#define CHUNK 256                /* keys of its chunks: a multiple of this */
#define MOST_CHUNKS 64           /* of a sequence */
#define LOCAL_ROWS 32            /* of a tile of attn_local */
#define NOLOCAL_ROWS 64          /* of a group of attn_nolocal, */
#define NOLOCAL_SLICE 32         /* and the channels of an item */
#define CPU_ROWS 256             /* of a panel of attn_cpu, up to 128 channels */
#define UNFUSED_ROWS 256         /* whose scores are in memory at once, ... */
#define UNFUSED_BYTES (64 << 20) /* ... in no more than this where that is more than a row */

/* ---- sizes, from the ranges of the variant ---- */

_Static_assert(AT_MAX_CAPTURES == 9, "AT_ATTN_PARAMS has a buffer for each captured tensor");

struct extent {
    int64_t seqs, rows, keys, groups, ratio, dk, dv;
};

static struct extent extents(const attend_plan *plan, const struct at_step *s)
{
    const attend_graph *g = plan->graph;
    const struct at_tensor *q = &g->tensor[s->in[AT_IN_Q]], *k = &g->tensor[s->in[AT_IN_K]];
    struct extent e = {
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

static int64_t chunk_length(int64_t keys)
{
    return at_round_up(at_max(CHUNK, at_ceil_div(keys, MOST_CHUNKS)), CHUNK);
}

/* Channels that a group has: AT_DV of attn_local and decode. */
static int slice_of(int64_t dv)
{
    return dv <= 64 ? 64 : 128;
}

static int64_t unfused_rows(int64_t keys)
{
    return at_max(1, at_min(UNFUSED_ROWS, UNFUSED_BYTES / (4 * at_max(1, keys))));
}

/* ---- what is taken ---- */

static bool asked(const char *name, struct at_why *why)
{
    const char *only = at_env(AT_ENV_OPENCL_SHAPE);
    return at_need(why, !only || !strcmp(only, name), "ATTEND_OPENCL_SHAPE asks for another");
}

static bool accepts(const attend_plan *plan, const struct at_step *s, struct at_why *why)
{
    const attend_graph *g = plan->graph;
    struct extent e = extents(plan, s);
    bool rows = true;
    for (int k = AT_IN_Q; k <= AT_IN_V; k++)
        rows = rows && at_graph_has_rows(g, s->in[k]);
    return at_need(why, rows && at_graph_has_rows(g, s->out[0]),
                   "a head's channels are not next to each other in memory") &&
           at_need(why, g->tensor[s->out[0]].type == ATTEND_F32, "the result is not f32") &&
           at_need(why,
                   e.keys >= 0 && e.keys <= INT32_MAX / 2 && at_mul_size(e.rows, e.ratio) >= 0 &&
                       e.rows * e.ratio <= INT32_MAX / 2 && e.groups * slice_of(e.dv) < 65536,
                   "more rows, keys or heads than 31 bits count");
}

static bool accepts_decode(const attend_plan *plan, const struct at_step *s, struct at_why *why)
{
    struct extent e = extents(plan, s);
    return asked("decode", why) &&
           at_need(why, e.rows * e.ratio <= FEW, "more than 8 rows of a group of heads") &&
           accepts(plan, s, why);
}

static bool accepts_decode_cpu(const attend_plan *plan, const struct at_step *s, struct at_why *why)
{
    struct extent e = extents(plan, s);
    return asked("decode_cpu", why) && at_gpu_on_cpu(s, why) &&
           at_need(why, e.rows * e.ratio <= FEW, "more than 8 rows of a group of heads") &&
           accepts(plan, s, why);
}

static bool accepts_cpu(const attend_plan *plan, const struct at_step *s, struct at_why *why)
{
    return asked("cpu", why) && at_gpu_on_cpu(s, why) && accepts(plan, s, why);
}

static bool accepts_local(const attend_plan *plan, const struct at_step *s, struct at_why *why)
{
    const struct at_gpu *gpu = at_gpu_of(s->device);
    return asked("gpu_local", why) &&
           at_need(why, !gpu->slow_local, "local memory of this device is no faster") &&
           accepts(plan, s, why);
}

static bool accepts_nolocal(const attend_plan *plan, const struct at_step *s, struct at_why *why)
{
    return asked("gpu_nolocal", why) && accepts(plan, s, why);
}

static bool accepts_unfused(const attend_plan *plan, const struct at_step *s, struct at_why *why)
{
    return asked("unfused", why) && accepts(plan, s, why);
}

/* ---- programs ---- */

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

/* The expressions of s as kernel text; "" where it has none, NULL where memory is out. */
static char *print_expressions(const attend_plan *plan, const struct at_step *s)
{
    const struct at_attention *p = &s->p->attention;
    enum at_expr_dialect dialect = at_gpu_of(s->device)->dialect;
    struct extent e = extents(plan, s);
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
    print_function(&text, p->mask, "int at_mask_expr", dialect, &box);
    if (!text.failed)
        return text.text;
    attend_free(text.text);
    return NULL;
}

static int64_t table_bytes(const struct extent *e)
{
    return e->seqs * (int64_t)sizeof(struct at_k_seq) +
           AT_MAX_CAPTURES * (int64_t)sizeof(struct at_k_capture);
}

/* What bind leaves for run, in the exec; the sequences follow it, as the host and the device have
 * them, and then what is captured. */
struct problem {
    struct at_attn a;
    struct at_k_attn args;
    int64_t most_rows, most_keys; /* packed rows and keys of a sequence */
    bool unchanged;
};

static int prepare(attend_plan *plan, struct at_step *s, unsigned files, const char *defines,
                   const char *const *names, int n, struct at_err *e)
{
    const struct at_attention *p = &s->p->attention;
    struct at_gpu_source source = {.files = 1u << AT_GPU_SCORE | files};
    struct extent x = extents(plan, s);
    char *printed = print_expressions(plan, s);
    if (!printed)
        return at_fail(e, ATTEND_ENOMEM, "no memory for the expressions of attention");
    snprintf(source.defines, sizeof source.defines, "%s%s%s", defines,
             p->score ? " -DAT_SCORE_EXPR" : "", p->mask ? " -DAT_MASK_EXPR" : "");
    source.printed = printed;
    int status = at_gpu_prepare(plan, s, &source, names, n, sizeof(struct at_gpu_kernels), e);
    attend_free(printed);
    s->state = at_round_up(sizeof(struct problem), AT_ALIGN) +
               x.seqs * (int64_t)sizeof(struct at_seq) + table_bytes(&x);
    s->work = table_bytes(&x);
    return status;
}

static int prepare_sliced(attend_plan *plan, struct at_step *s, unsigned files,
                          const char *const *names, int n, struct at_err *e)
{
    char defines[32];
    snprintf(defines, sizeof defines, "-DAT_DV=%d", slice_of(extents(plan, s).dv));
    return prepare(plan, s, files, defines, names, n, e);
}

/* Partials of chunks, whichever kernel leaves them. */
static int book_partials(attend_plan *plan, struct at_step *s, int status, struct at_err *e)
{
    struct extent x = extents(plan, s);
    int slice = slice_of(x.dv);
    int64_t chunks = at_max(1, at_ceil_div(x.keys, chunk_length(x.keys)));
    int64_t states = at_mul_size(x.seqs, x.groups * at_ceil_div(x.dv, slice) * chunks * FEW);
    s->shared_work = at_mul_size(states, (2 + slice) * (int64_t)sizeof(float));
    if (status == 0 && s->shared_work < 0)
        status = at_fail(e, ATTEND_ELIMIT, "attention over %lld sequences", (long long)x.seqs);
    return status;
}

static int prepare_decode(attend_plan *plan, struct at_step *s, struct at_err *e)
{
    static const char *const names[] = {"decode", "decode_merge"};
    unsigned files = 1u << AT_GPU_ATTN_MERGE | 1u << AT_GPU_ATTN_DECODE;
    return book_partials(plan, s, prepare_sliced(plan, s, files, names, 2, e), e);
}

/* Room for the channels of a head: kernels are made for few of these. */
static int room_of(int64_t d)
{
    return d <= 64 ? 64 : d <= 128 ? 128 : d <= 256 ? 256 : 576;
}

static int cpu_rows(int64_t dk, int64_t dv)
{
    int room = room_of(at_max(dk, dv));
    return room <= 128 ? CPU_ROWS : room <= 256 ? CPU_ROWS / 2 : CPU_ROWS / 4;
}

static int prepare_decode_cpu(attend_plan *plan, struct at_step *s, struct at_err *e)
{
    static const char *const names[] = {"decode_cpu", "decode_merge"};
    unsigned files = 1u << AT_GPU_TILE_CPU | 1u << AT_GPU_ATTN_MERGE | 1u << AT_GPU_ATTN_DECODE_CPU;
    struct extent x = extents(plan, s);
    char defines[64];
    snprintf(defines, sizeof defines, "-DAT_LANES=%d -DAT_DK=%d -DAT_DV=%d",
             at_gpu_of(s->device)->lanes, room_of(x.dk), slice_of(x.dv));
    return book_partials(plan, s, prepare(plan, s, files, defines, names, 2, e), e);
}

static int prepare_local(attend_plan *plan, struct at_step *s, struct at_err *e)
{
    static const char *const name = "attn_local";
    return prepare_sliced(plan, s, 1u << AT_GPU_ATTN_LOCAL, &name, 1, e);
}

static int prepare_nolocal(attend_plan *plan, struct at_step *s, struct at_err *e)
{
    static const char *const name = "attn_nolocal";
    return prepare(plan, s, 1u << AT_GPU_ATTN_NOLOCAL, "", &name, 1, e);
}

static int prepare_cpu(attend_plan *plan, struct at_step *s, struct at_err *e)
{
    static const char *const name = "attn_cpu";
    struct extent x = extents(plan, s);
    char defines[80];
    int room = room_of(at_max(x.dk, x.dv));
    snprintf(defines, sizeof defines, "-DAT_LANES=%d -DAT_ROWS=%d -DAT_DK=%d -DAT_DV=%d",
             at_gpu_of(s->device)->lanes, cpu_rows(x.dk, x.dv), room, room);
    return prepare(plan, s, 1u << AT_GPU_TILE_CPU | 1u << AT_GPU_ATTN_CPU, defines, &name, 1, e);
}

static int prepare_unfused(attend_plan *plan, struct at_step *s, struct at_err *e)
{
    static const char *const names[] = {"unfused_scores", "unfused_softmax", "unfused_values"};
    struct extent x = extents(plan, s);
    int status = prepare(plan, s, 1u << AT_GPU_ATTN_UNFUSED, "", names, 3, e);
    s->shared_work = unfused_rows(x.keys) * at_max(1, x.keys) * (int64_t)sizeof(float);
    return status;
}

/* ---- bind ---- */

static struct at_k_view view_of(const struct attend_exec *x, const struct at_step *s, int in,
                                const struct at_view *v)
{
    struct at_k_view k = {.type = (at_i32)v->type, .given = v->data != NULL};
    for (int d = 0; d < 4 && v->data; d++)
        k.stride[d] = v->stride[d];
    if (v->data)
        at_gpu_buffer(x, s->in[in], &k.at);
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
    k->q = view_of(x, s, AT_IN_Q, &a->q);
    k->k = view_of(x, s, AT_IN_K, &a->k);
    k->v = view_of(x, s, AT_IN_V, &a->v);
    k->bias = view_of(x, s, AT_IN_BIAS, &a->bias);
    k->mask = view_of(x, s, AT_IN_MASK, &a->mask);
    at_gpu_buffer(x, s->out[0], &k->o.at);
    for (int d = 0; d < 4; d++)
        k->o.stride[d] = a->o.stride[d];
    k->has_lse = at_out(x, s, 1) != NULL;
    if (k->has_lse)
        at_gpu_buffer(x, s->out[1], &k->lse[0]);
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

static int bind(struct attend_exec *x, const struct at_step *s)
{
    struct extent e = extents(x->plan, s);
    struct problem *p = at_step_state(x, s);
    struct at_seq *seq = (struct at_seq *)((char *)p + at_round_up(sizeof *p, AT_ALIGN));
    struct at_k_seq *table = (struct at_k_seq *)(seq + e.seqs);
    int status = at_attn_resolve(x, s, &p->a, seq);
    if (status < 0)
        return status;
    memset(&p->args, 0, sizeof p->args);
    fill_tensors(&p->args, x, s, &p->a);
    fill_numbers(&p->args, &p->a);
    p->most_rows = p->most_keys = 0;
    for (int64_t n = 0; n < p->a.nseq; n++) {
        const struct at_seq *q = &seq[n];
        table[n] = (struct at_k_seq){q->qb, q->q0, q->nq, q->kb, q->k0, q->nk, q->off};
        p->most_rows = at_max(p->most_rows, q->nq * e.ratio);
        p->most_keys = at_max(p->most_keys, q->nk);
    }
    fill_captures((struct at_k_capture *)(table + e.seqs), x, s);
    p->args.seqs = x->variant->shared_work + s->work_offset;
    p->args.captures = p->args.seqs + e.seqs * (int64_t)sizeof *table;
    x->transfer->flying = true;
    return s->device->memory->upload(s->device, x->transfer->stream, x->transfer->work,
                                     p->args.seqs, table, table_bytes(&e), &x->err);
}

/* ---- run ---- */

static void *input(const struct attend_exec *x, const struct at_step *s, int k)
{
    int64_t at;
    return k < s->nin && s->in[k] >= 0 ? at_gpu_buffer(x, s->in[k], &at) : NULL;
}

static struct at_gpu_launch launch_of(const struct attend_exec *x, const struct at_step *s,
                                      int kernel)
{
    static const int inputs[] = {AT_IN_Q,     AT_IN_K,       AT_IN_V,      AT_IN_BIAS,
                                 AT_IN_MASK,  AT_IN_ALIBI,   AT_IN_SINKS,  AT_IN_ADDITIVE,
                                 AT_IN_TABLE, AT_IN_K_SCALE, AT_IN_V_SCALE};
    const struct problem *p = at_step_state(x, s);
    const struct at_gpu_kernels *k = s->packed;
    struct at_gpu_launch l = {
        .kernel = k->kernel[kernel], .args = &p->args, .bytes = sizeof p->args, .items = 64};
    int64_t at;
    int n = 0;
    l.buffer[n++] = at_gpu_buffer(x, s->out[0], &at);
    l.buffer[n++] = p->args.has_lse ? at_gpu_buffer(x, s->out[1], &at) : NULL;
    for (int i = 0; i < AT_LEN(inputs); i++)
        l.buffer[n++] = input(x, s, inputs[i]);
    l.buffer[n++] = x->transfer->work;
    for (int c = 0; c < AT_MAX_CAPTURES; c++)
        l.buffer[n++] = input(x, s, AT_IN_CAPTURE + c);
    l.nbuffer = n;
    return l;
}

/* Chunks by groups of so many items; then what they leave becomes one. */
static int run_chunks(struct attend_exec *x, const struct at_step *s, int items)
{
    struct problem *p = at_step_state(x, s);
    int slice = slice_of(p->a.dv);
    p->args.chunk = chunk_length(extents(x->plan, s).keys);
    p->args.chunks = (at_i32)at_max(1, at_ceil_div(p->most_keys, p->args.chunk));
    struct at_gpu_launch l = launch_of(x, s, 0);
    l.items = items;
    l.groups[0] = p->args.chunks;
    l.groups[1] = p->a.ng * at_ceil_div(p->a.dv, slice);
    l.groups[2] = p->most_rows > 0 ? p->a.nseq : 0;
    int status = at_gpu_run(x, s, &l);
    if (status < 0)
        return status;
    l.kernel = ((const struct at_gpu_kernels *)s->packed)->kernel[1];
    l.items = 64;
    l.groups[0] = p->most_rows;
    return at_gpu_run(x, s, &l);
}

static int run_decode(struct attend_exec *x, const struct at_step *s)
{
    return run_chunks(x, s, 64);
}

static int run_decode_cpu(struct attend_exec *x, const struct at_step *s)
{
    return run_chunks(x, s, 1);
}

static int run_tiles(struct attend_exec *x, const struct at_step *s, int64_t rows, int64_t slice)
{
    const struct problem *p = at_step_state(x, s);
    struct at_gpu_launch l = launch_of(x, s, 0);
    l.groups[0] = p->a.nseq;
    l.groups[1] = p->a.ng * at_ceil_div(p->a.dv, slice);
    l.groups[2] = at_ceil_div(p->most_rows, rows);
    return at_gpu_run(x, s, &l);
}

static int run_local(struct attend_exec *x, const struct at_step *s)
{
    const struct problem *p = at_step_state(x, s);
    return run_tiles(x, s, LOCAL_ROWS, slice_of(p->a.dv));
}

static int run_nolocal(struct attend_exec *x, const struct at_step *s)
{
    return run_tiles(x, s, NOLOCAL_ROWS, NOLOCAL_SLICE);
}

static int run_cpu(struct attend_exec *x, const struct at_step *s)
{
    const struct problem *p = at_step_state(x, s);
    struct at_gpu_launch l = launch_of(x, s, 0);
    l.items = 1;
    l.groups[0] = at_ceil_div(p->most_rows, cpu_rows(p->a.dk, p->a.dv));
    l.groups[1] = p->a.ng;
    l.groups[2] = p->a.nseq;
    return at_gpu_run(x, s, &l);
}

/* Some rows of one sequence and group: scores, softmax, values. */
static int run_unfused_rows(struct attend_exec *x, const struct at_step *s, int64_t keys)
{
    const struct problem *p = at_step_state(x, s);
    int status = 0;
    for (int k = 0; k < 3 && status == 0; k++) {
        struct at_gpu_launch l = launch_of(x, s, k);
        l.groups[0] = k == 0 ? at_ceil_div(keys, 64) : k == 1 ? 1 : at_ceil_div(p->a.dv, 64);
        l.groups[1] = p->args.rows;
        l.groups[2] = 1;
        status = at_gpu_run(x, s, &l);
    }
    return status;
}

static int run_unfused(struct attend_exec *x, const struct at_step *s)
{
    struct problem *p = at_step_state(x, s);
    int64_t keys = extents(x->plan, s).keys, most = unfused_rows(keys);
    int ratio = (int)(p->a.nh / p->a.ng), status = 0;
    p->args.chunk = keys;
    for (int64_t n = 0; n < p->a.nseq; n++)
        for (int64_t g = 0; g < p->a.ng; g++)
            for (int64_t r = 0; r < p->a.seq[n].nq * ratio && status == 0; r += most) {
                p->args.nseq = (at_i32)n;
                p->args.chunks = (at_i32)g;
                p->args.first = (at_i32)r;
                p->args.rows = (at_i32)at_min(most, p->a.seq[n].nq * ratio - r);
                status = run_unfused_rows(x, s, p->a.seq[n].nk);
            }
    return status;
}

const struct at_row at_gpu_decode_cpu = {"decode_cpu",       AT_ATTENTION, accepts_decode_cpu,
                                         prepare_decode_cpu, bind,         run_decode_cpu};
const struct at_row at_gpu_decode = {"decode",       AT_ATTENTION, accepts_decode,
                                     prepare_decode, bind,         run_decode};
const struct at_row at_gpu_attn_cpu = {"cpu",       AT_ATTENTION, accepts_cpu,
                                       prepare_cpu, bind,         run_cpu};
const struct at_row at_gpu_attn_local = {"gpu_local",   AT_ATTENTION, accepts_local,
                                         prepare_local, bind,         run_local};
const struct at_row at_gpu_attn_nolocal = {"gpu_nolocal",   AT_ATTENTION, accepts_nolocal,
                                           prepare_nolocal, bind,         run_nolocal};
const struct at_row at_gpu_unfused = {"unfused",       AT_ATTENTION, accepts_unfused,
                                      prepare_unfused, bind,         run_unfused};
