/* SPDX-License-Identifier: MIT */
/* The backward pass of attention on devices: one kernel walks keys for dQ, another rows for dK and
 * dV; portable/back.cl says what both share.  CPUs have shapes of their own. */
#include <stdio.h>
#include <string.h>

#include "env.h"
#include "gpu_problem.h"

#define TILE 32      /* rows and keys of a group of attn_back */
#define CPU_ROWS 64  /* of an item of back_rows_cpu, */
#define CPU_KEYS 96  /* and keys of one of back_keys_cpu */
#define MMA_WARPS 4  /* of a group of back_mma, */
#define MMA_OWN 64   /* its rows, or keys, */
#define MMA_HEAD 128 /* and its largest head */
#define FACTS 16     /* bytes that a row has beside dO */

_Static_assert(sizeof(struct at_k_back) + AT_GPU_BUFFERS * sizeof(void *) <= 1024,
               "OpenCL promises kernels this much for arguments");

#define MOST_ROWS 256         /* whose pairs are in memory at once, ... */
#define MOST_PAIRS (64 << 20) /* ... in no more bytes than this where that is more than a row */

enum { ROWS, KEYS, TERMS, BIAS, SUMS, CLEAR, GATHER, STORE, PAIRS };
enum { SLOPES, SINKS, VECTOR }; /* AT_BACK_... of back.cl: what is summed over rows */

/* ---- what is taken ---- */

static bool f32_rows(const attend_plan *plan, int t)
{
    return t < 0 ||
           (plan->graph->tensor[t].type == ATTEND_F32 && at_graph_has_rows(plan->graph, t));
}

static bool wants(const struct at_step *s, int k)
{
    return k >= 0 && k < s->nout && s->out[k] >= 0;
}

/* Is the gradient of any captured tensor wanted? */
static bool gives(const struct at_step *s)
{
    return s->nout > AT_OUT_CAPTURE;
}

/* Elements of those. */
static int64_t places_of(const attend_plan *plan, const struct at_step *s)
{
    int64_t sum = 0;
    for (int k = AT_OUT_CAPTURE; k < s->nout; k++) {
        int64_t n = s->out[k] >= 0;
        for (int d = 0; n > 0 && d < plan->graph->tensor[s->out[k]].rank; d++)
            n = at_mul_size(n, at_plan_range(plan, s->rows, s->out[k], d).max);
        sum = n < 0 ? INT32_MAX : at_min(INT32_MAX, sum + n);
    }
    return sum;
}

static bool accepts(const attend_plan *plan, const struct at_step *s, struct at_why *why)
{
    struct at_gpu_sizes e = at_gpu_sizes_of(plan, s);
    bool rows = f32_rows(plan, s->in[AT_IN_GRAD_O]);
    for (int k = AT_IN_Q; k <= AT_IN_V; k++)
        rows = rows && at_graph_has_rows(plan->graph, s->in[k]);
    for (int k = AT_OUT_Q; k <= AT_OUT_V && k < s->nout; k++)
        rows = rows && f32_rows(plan, s->out[k]);
    return at_need(why, rows, "a head's channels are not next to each other in memory") &&
           at_need(why, places_of(plan, s) < INT32_MAX,
                   "tensors that an expression indexes have more elements than 31 bits count") &&
           at_need(why,
                   e.keys < INT32_MAX / 2 && e.rows < 65536 * TILE / at_max(1, e.ratio) &&
                       e.keys < (int64_t)65536 * TILE && e.groups * (e.dk + e.dv) < 65536,
                   "more rows, keys or heads than a launch has groups");
}

static bool accepts_cpu(const attend_plan *plan, const struct at_step *s, struct at_why *why)
{
    return at_gpu_on_cpu(s, why) && accepts(plan, s, why);
}

/* Tiles of back_mma, and the shared memory of a group. */
struct mma {
    int dk, dv, tile, terms;
    bool bf16;
    int64_t bytes; /* of either kernel */
};

static struct mma mma_of(const attend_plan *plan, const struct at_step *s)
{
    const struct at_gpu *gpu = at_gpu_of(s->device);
    struct at_gpu_sizes e = at_gpu_sizes_of(plan, s);
    struct mma m = {.dk = (int)at_round_up(e.dk, 16), .dv = (int)at_round_up(e.dv, 16)};
    int stages = gpu->tensor_cores >= 80 ? 2 : 1;
    m.bf16 = plan->graph->tensor[s->in[AT_IN_Q]].type == ATTEND_BF16;
    m.terms = plan->precision == ATTEND_F16_P ? 1 : m.bf16 ? 3 : 2;
    for (m.tile = at_max(m.dk, m.dv) <= 64 ? 64 : 32; m.tile >= 16; m.tile /= 2) {
        int of_do = m.terms * m.dv;
        int64_t rows = MMA_OWN * (m.dk + of_do) + stages * m.tile * (m.dk + m.dv);
        int64_t keys = MMA_OWN * (m.dk + m.dv) + stages * m.tile * (m.dk + of_do + FACTS / 2);
        m.bytes = 2 * at_max(rows, keys);
        if (m.bytes <= gpu->most_local_bytes)
            break;
    }
    return m;
}

static bool accepts_mma(const attend_plan *plan, const struct at_step *s, struct at_why *why)
{
    const attend_graph *g = plan->graph;
    const struct at_gpu *gpu = at_gpu_of(s->device);
    struct at_gpu_sizes e = at_gpu_sizes_of(plan, s);
    attend_type type = g->tensor[s->in[AT_IN_Q]].type;
    const char *only = at_env(AT_ENV_OPENCL_SHAPE);
    bool same = type == g->tensor[s->in[AT_IN_K]].type && type == g->tensor[s->in[AT_IN_V]].type;
    return at_need(why, !only || !strcmp(only, "mma"), "ATTEND_OPENCL_SHAPE asks for another") &&
           at_need(why, gpu->tensor_cores > 0, "the device has no tensor cores that are used") &&
           at_need(why, same && (type == ATTEND_F16 || type == ATTEND_BF16),
                   "q, k and v are not all f16 or all bf16") &&
           at_need(why, type == ATTEND_F16 || gpu->tensor_cores >= 80,
                   "bf16 needs compute capability 8.0") &&
           at_need(why, s->in[AT_IN_ADDITIVE] < 0, "additive scores are no products") &&
           at_need(why, e.dk <= MMA_HEAD && e.dv <= MMA_HEAD, "a head of more than 128 channels") &&
           at_need(why, mma_of(plan, s).tile >= 16, "a tile does not fit into shared memory") &&
           at_need(why, e.seqs < 65536 && e.groups < 65536,
                   "more sequences or heads than a launch has groups") &&
           accepts(plan, s, why);
}

/* ---- plan ---- */

/* Bytes that a row of dO has as terms. */
static int64_t term_bytes(const struct mma *m)
{
    return 2 * (int64_t)m->terms * m->dv;
}

/* What bind leaves for run, in the exec; the sequences follow it, as the host and the device have
 * them, and then what is captured. */
struct back {
    struct at_attn_grad g;
    struct at_k_back args;
    int64_t most_rows, most_keys; /* packed rows and keys of a sequence */
    bool gaps;                    /* keys that no sequence has */
};

/* Sums over keys for each row: how many floats a row has. */
static int64_t row_floats(const struct at_step *s, const struct at_gpu_sizes *x)
{
    return wants(s, AT_OUT_ALIBI) + (wants(s, AT_OUT_ADDITIVE) ? x->dk : 0);
}

/* Bytes of what is summed in memory that steps share: over keys for each row, in `work`; and what
 * pairs of a row of each group and its keys give to captured tensors, and their sums. */
struct room {
    int64_t rows, sums, pairs, most; /* most: rows of the pairs that are there at once */
    int64_t terms, bytes;            /* of dO and the rows' facts for back_mma; of all */
};

/* Where terms begin. */
static int64_t pairs_end(const struct room *r)
{
    return at_round_up(r->rows + r->sums + r->most * r->pairs, 16);
}

static struct room room_of(const attend_plan *plan, const struct at_step *s)
{
    struct at_gpu_sizes x = at_gpu_sizes_of(plan, s);
    int q = s->in[AT_IN_Q], loads = at_gpu_loads(s);
    int64_t rows = at_mul_size(x.rows, x.groups * x.ratio), entries = 1;
    struct room r = {.sums = 2 * places_of(plan, s) * (int64_t)sizeof(float)};
    if (plan->graph->tensor[q].rank == 4)
        entries = at_plan_range(plan, s->rows, q, 0).max;
    r.rows = at_mul_size(at_mul_size(rows, entries), row_floats(s, &x) * (int64_t)sizeof(float));
    r.rows = r.rows < 0 ? r.rows : at_round_up(r.rows, 8);
    r.pairs = x.groups * at_max(1, x.keys) * loads * (int64_t)sizeof(struct at_k_give);
    if (loads)
        r.most = at_max(1, at_min(MOST_ROWS, MOST_PAIRS / r.pairs));
    if (s->row == &at_gpu_back_mma) {
        struct mma m = mma_of(plan, s);
        r.terms = at_mul_size(at_mul_size(rows, entries), term_bytes(&m) + FACTS);
    }
    r.bytes = r.rows < 0 || r.terms < 0 ? -1 : pairs_end(&r) + r.terms;
    return r;
}

static int prepare(attend_plan *plan, struct at_step *s, unsigned files, const char *shape,
                   const char *const names[3], struct at_err *e)
{
    const char *const all[] = {names[0],     names[1],      names[2],     "back_bias", "back_sums",
                               "back_clear", "back_gather", "back_store", "back_pairs"};
    struct room r = room_of(plan, s);
    int loads = at_gpu_loads(s), n = gives(s) ? AT_LEN(all) - !loads : GATHER;
    char defines[192], given[24] = "";
    if (gives(s))
        snprintf(given, sizeof given, " -DAT_GIVES=%d", loads);
    snprintf(defines, sizeof defines, "%s%s%s", shape,
             s->in[AT_IN_ADDITIVE] >= 0 ? " -DAT_ADDITIVE" : "", given);
    s->shared_work = r.bytes;
    if (r.bytes < 0)
        return at_fail(e, ATTEND_ELIMIT, "attention_grad over too many rows");
    return at_gpu_problem_prepare(plan, s, 1u << AT_GPU_BACK | files, defines, all, n,
                                  sizeof(struct back), e);
}

static int slice_of(const struct at_gpu_sizes *x)
{
    return at_max(x->dk, x->dv) <= 64 || x->dk <= 64 ? 64 : 128;
}

static int prepare_local(attend_plan *plan, struct at_step *s, struct at_err *e)
{
    static const char *const names[] = {"back_rows", "back_keys", NULL};
    struct at_gpu_sizes x = at_gpu_sizes_of(plan, s);
    char defines[48];
    snprintf(defines, sizeof defines, "-DAT_ITEMS=64 -DAT_DV=%d", slice_of(&x));
    return prepare(plan, s, 1u << AT_GPU_ATTN_BACK, defines, names, e);
}

static int prepare_mma(attend_plan *plan, struct at_step *s, struct at_err *e)
{
    static const char *const names[] = {"back_rows_mma", "back_keys_mma", "back_terms"};
    struct mma m = mma_of(plan, s);
    char defines[160];
    snprintf(defines, sizeof defines,
             "-DAT_ITEMS=64 -DAT_DK=%d -DAT_DV=%d -DAT_WARPS=%d -DAT_TILE=%d -DAT_TERMS=%d%s%s%s",
             m.dk, m.dv, MMA_WARPS, m.tile, m.terms, m.bf16 ? " -DAT_BF16_IN" : "",
             at_gpu_problem_edits(s) ? " -DAT_EDITS" : "",
             s->p->attention.dropout > 0 ? " -DAT_DROPOUT" : "");
    return prepare(plan, s, 1u << AT_GPU_MMA | 1u << AT_GPU_BACK_MMA, defines, names, e);
}

static int prepare_cpu(attend_plan *plan, struct at_step *s, struct at_err *e)
{
    static const char *const names[] = {"back_rows_cpu", "back_keys_cpu", NULL};
    struct at_gpu_sizes x = at_gpu_sizes_of(plan, s);
    char defines[80];
    snprintf(defines, sizeof defines,
             "-DAT_ITEMS=1 -DAT_LANES=%d -DAT_ROWS=%d -DAT_DK=%d -DAT_DV=%d",
             at_gpu_of(s->device)->lanes, CPU_ROWS, at_gpu_channels(x.dk), at_gpu_channels(x.dv));
    return prepare(plan, s, 1u << AT_GPU_TILE_CPU | 1u << AT_GPU_ATTN_BACK_CPU, defines, names, e);
}

/* ---- bind ---- */

static int out_of(const struct at_step *s, int k)
{
    return wants(s, k) ? s->out[k] : -1;
}

/* Offset and strides of (B, H, S). */
static void fill_rows(const struct attend_exec *x, int t, const struct at_view *v, at_i64 to[4])
{
    at_gpu_buffer(x, t, &to[0]);
    for (int d = 0; d < 3; d++)
        to[d + 1] = v->stride[d];
}

/* Sequences are packed one behind the other, or each has an entry of its own. */
static bool has_gaps(const struct at_attn *a)
{
    int64_t used = 0;
    for (int64_t n = 0; n < a->nseq; n++) {
        const struct at_seq *q = &a->seq[n];
        if (a->sums < 0 && q->nk < a->k.shape[2])
            return true;
        used = q->nk ? q->k0 + q->nk : used;
    }
    return used < a->k.shape[2];
}

static int64_t count_of(const struct at_view *v)
{
    int64_t n = 1;
    for (int d = 0; d < v->rank; d++)
        n *= v->shape[d];
    return n;
}

static int bind(struct attend_exec *x, const struct at_step *s)
{
    struct at_gpu_sizes e = at_gpu_sizes_of(x->plan, s);
    struct room room = room_of(x->plan, s);
    struct back *b = at_step_state(x, s);
    struct at_attn *a = &b->g.a;
    struct at_seq *seq = (struct at_seq *)((char *)b + at_round_up(sizeof *b, AT_ALIGN));
    int status = at_attn_grad_resolve(x, s, &b->g, seq);
    if (status < 0)
        return status;
    b->args = (struct at_k_back){.batches = a->q.shape[0], .rows = a->q.shape[2]};
    at_gpu_problem_args(&b->args.a, x, s, a);
    b->args.a.o = at_gpu_problem_view(x, s->in[AT_IN_GRAD_O], &b->g.dout);
    fill_rows(x, s->in[AT_IN_GRAD_LSE], &a->lse, b->args.a.lse);
    fill_rows(x, s->in[AT_IN_GRAD_DELTA], &b->g.delta, b->args.delta);
    for (int d = 0; d < 4; d++)
        b->args.bias[d] = b->g.dbias.shape[d];
    b->args.slopes = wants(s, AT_OUT_ALIBI) ? 0 : -1;
    b->args.vectors = wants(s, AT_OUT_ADDITIVE) ? wants(s, AT_OUT_ALIBI) * b->args.batches * a->nh *
                                                      b->args.rows * (int64_t)sizeof(float)
                                                : -1;
    b->args.sums = room.rows;
    b->args.a.partials = room.rows + room.sums;
    for (int c = 0; c < AT_MAX_CAPTURES; c++)
        b->args.places += b->g.dcapture[c].data ? count_of(&b->g.dcapture[c]) : 0;
    b->gaps = has_gaps(a);
    b->most_rows = b->most_keys = 0;
    for (int64_t n = 0; n < a->nseq; n++) {
        b->most_rows = at_max(b->most_rows, seq[n].nq * e.ratio);
        b->most_keys = at_max(b->most_keys, seq[n].nk);
    }
    return at_gpu_problem_table(x, s, a, &e, seq + e.seqs, &b->args.a);
}

/* Whether rows of a tensor, where there is one, begin at multiples of `grain` bytes. */
static bool aligned(const struct attend_exec *x, int t, const struct at_view *v, int64_t bytes,
                    int64_t grain)
{
    int64_t at = 0, all = 0;
    if (!v->data)
        return true;
    all = (int64_t)(uintptr_t)at_gpu_buffer(x, t, &at);
    all |= at * bytes;
    for (int d = 0; d < 3; d++)
        all |= v->stride[d] * bytes;
    return all % grain == 0;
}

static int bind_mma(struct attend_exec *x, const struct at_step *s)
{
    struct back *b = at_step_state(x, s);
    const struct at_attn_grad *g = &b->g;
    const struct at_view *in[] = {&g->a.q, &g->a.k, &g->a.v};
    struct mma m = mma_of(x->plan, s);
    int status = bind(x, s);
    if (status < 0)
        return status;
    for (int k = 0; k < 3; k++)
        if (in[k]->shape[3] % 8 == 0 && aligned(x, s->in[AT_IN_Q + k], in[k], 2, 16))
            b->args.a.aligned |= 1 << k;
    if (aligned(x, out_of(s, AT_OUT_Q), &g->dq, 4, 8) &&
        aligned(x, out_of(s, AT_OUT_K), &g->dk, 4, 8))
        b->args.a.aligned |= 1 << 3;
    if (aligned(x, out_of(s, AT_OUT_V), &g->dv, 4, 8))
        b->args.a.aligned |= 1 << 4;
    struct room room = room_of(x->plan, s);
    b->args.terms = pairs_end(&room);
    b->args.facts = b->args.terms + b->args.batches * g->a.nh * b->args.rows * term_bytes(&m);
    return 0;
}

/* ---- run ---- */

static void *buffer(const struct attend_exec *x, int t)
{
    int64_t at;
    return t >= 0 ? at_gpu_buffer(x, t, &at) : NULL;
}

static int items_of(const struct at_step *s, int which)
{
    if (s->row == &at_gpu_back_mma && (which == ROWS || which == KEYS || which == TERMS))
        return 32 * MMA_WARPS;
    return s->row == &at_gpu_back_cpu ? 1 : 64;
}

static int64_t local_of(const struct attend_exec *x, const struct at_step *s, int which)
{
    return s->row == &at_gpu_back_mma && which <= KEYS ? mma_of(x->plan, s).bytes : 0;
}

/* Kernel `which`, whose results are outputs k and l, or -1. */
static int launch(struct attend_exec *x, const struct at_step *s, int which, int op, int k, int l,
                  const struct at_view *vk, const struct at_view *vl, const int64_t groups[3])
{
    struct back *b = at_step_state(x, s);
    struct at_gpu_launch run = {
        .kernel = ((const struct at_gpu_kernels *)s->packed)->kernel[which],
        .args = &b->args,
        .bytes = sizeof b->args,
        .groups = {groups[0], groups[1], groups[2]},
        .items = items_of(s, which),
        .local_bytes = local_of(x, s, which)
    };
    int n = 0;
    b->args.op = op;
    b->args.out[0] = at_gpu_problem_view(x, out_of(s, k), vk);
    b->args.out[1] = vl ? at_gpu_problem_view(x, out_of(s, l), vl) : (struct at_k_view){.at = 0};
    run.buffer[n++] = buffer(x, out_of(s, k));
    run.buffer[n++] = vl ? buffer(x, out_of(s, l)) : NULL;
    run.buffer[n++] = buffer(x, s->in[AT_IN_GRAD_O]);
    run.buffer[n++] = buffer(x, s->in[AT_IN_GRAD_LSE]);
    run.buffer[n++] = buffer(x, s->in[AT_IN_GRAD_DELTA]);
    run.nbuffer = n + at_gpu_problem_buffers(x, s, run.buffer + n);
    return at_gpu_run(x, s, &run);
}

static int clear_keys(struct attend_exec *x, const struct at_step *s, int k,
                      const struct at_view *v)
{
    const struct back *b = at_step_state(x, s);
    const int64_t groups[] = {v->shape[2], v->shape[1], v->shape[0]};
    return b->gaps && v->data ? launch(x, s, CLEAR, (int)v->shape[3], k, -1, v, NULL, groups) : 0;
}

static int sum_rows(struct attend_exec *x, const struct at_step *s, int op, int k,
                    const struct at_view *v)
{
    const int64_t groups[] = {at_ceil_div(v->shape[0], items_of(s, SUMS)), 1, 1};
    return v->data ? launch(x, s, SUMS, op, k, -1, v, NULL, groups) : 0;
}

/* What pairs of rows [r0, r0 + rows) of sequence n give to captured tensors, and then its sums. */
static int some_pairs(struct attend_exec *x, const struct at_step *s, int n, int64_t r0,
                      int64_t rows)
{
    struct back *b = at_step_state(x, s);
    struct at_k_attn *a = &b->args.a;
    const struct at_view none = {.data = NULL};
    int sequences = a->nseq;
    int64_t keys = b->g.a.seq[n].nk;
    a->nseq = n; /* whose pairs these are */
    a->first = (at_i32)r0;
    a->rows = (at_i32)rows;
    a->chunk = keys;
    int status = launch(x, s, PAIRS, 0, -1, -1, &none, NULL,
                        (const int64_t[]){at_ceil_div(keys, items_of(s, PAIRS)), rows, a->ng});
    if (status == 0)
        status = launch(x, s, GATHER, 0, -1, -1, &none, NULL, (const int64_t[]){1, 1, 1});
    a->nseq = sequences;
    return status;
}

/* Gradients of captured tensors, whose places only the expression knows. */
static int run_captures(struct attend_exec *x, const struct at_step *s)
{
    const struct back *b = at_step_state(x, s);
    const struct at_attn *a = &b->g.a;
    const struct at_view none = {.data = NULL};
    int64_t most = room_of(x->plan, s).most, ratio = a->nh / a->ng;
    int status = 0;
    if (gives(s))
        status = launch(x, s, GATHER, 1, -1, -1, &none, NULL, (const int64_t[]){1, 1, 1});
    for (int n = 0; most && n < a->nseq; n++)
        for (int64_t r = 0, end = a->seq[n].nq * ratio; r < end && status == 0; r += most)
            status = some_pairs(x, s, n, r, at_min(most, end - r));
    for (int c = 0; c < AT_MAX_CAPTURES && status == 0; c++) {
        const struct at_view *v = &b->g.dcapture[c];
        if (v->data)
            status = launch(x, s, STORE, c, AT_OUT_CAPTURE + c, -1, v, NULL,
                            (const int64_t[]){at_ceil_div(count_of(v), items_of(s, STORE)), 1, 1});
    }
    return status;
}

/* What is not dQ, dK or dV. */
static int run_rest(struct attend_exec *x, const struct at_step *s)
{
    const struct at_attn_grad *g = &((const struct back *)at_step_state(x, s))->g;
    const int64_t *n = g->dbias.shape;
    const int64_t groups[] = {at_ceil_div(n[3], items_of(s, BIAS)), n[2], n[0] * n[1]};
    int status =
        g->dbias.data ? launch(x, s, BIAS, 0, AT_OUT_BIAS, -1, &g->dbias, NULL, groups) : 0;
    if (status == 0)
        status = sum_rows(x, s, SLOPES, AT_OUT_ALIBI, &g->dalibi);
    if (status == 0)
        status = sum_rows(x, s, SINKS, AT_OUT_SINKS, &g->dsinks);
    if (status == 0)
        status = sum_rows(x, s, VECTOR, AT_OUT_ADDITIVE, &g->dadditive);
    return status < 0 ? status : run_captures(x, s);
}

/* dQ by groups of rows, then dK and dV by groups of keys, then the rest. */
static int run_both(struct attend_exec *x, const struct at_step *s, const int64_t rows[3],
                    const int64_t keys[3])
{
    const struct at_attn_grad *g = &((const struct back *)at_step_state(x, s))->g;
    int status = clear_keys(x, s, AT_OUT_K, &g->dk);
    if (status == 0)
        status = clear_keys(x, s, AT_OUT_V, &g->dv);
    if (status == 0 && (g->dq.data || g->dalibi.data || g->dadditive.data))
        status = launch(x, s, ROWS, 0, AT_OUT_Q, -1, &g->dq, NULL, rows);
    if (status == 0 && (g->dk.data || g->dv.data))
        status = launch(x, s, KEYS, 0, AT_OUT_K, AT_OUT_V, &g->dk, &g->dv, keys);
    return status < 0 ? status : run_rest(x, s);
}

static int run_local(struct attend_exec *x, const struct at_step *s)
{
    const struct back *b = at_step_state(x, s);
    const struct at_attn *a = &b->g.a;
    struct at_gpu_sizes e = at_gpu_sizes_of(x->plan, s);
    int64_t slice = slice_of(&e), of_k = at_ceil_div(a->dk, slice),
            of_v = at_ceil_div(a->dv, slice);
    return run_both(
        x, s, (const int64_t[]){a->nseq, a->ng * of_k, at_ceil_div(b->most_rows, TILE)},
        (const int64_t[]){a->nseq, a->ng * (of_k + of_v), at_ceil_div(b->most_keys, TILE)});
}

static int run_cpu(struct attend_exec *x, const struct at_step *s)
{
    const struct back *b = at_step_state(x, s);
    const struct at_attn *a = &b->g.a;
    return run_both(x, s, (const int64_t[]){at_ceil_div(b->most_rows, CPU_ROWS), a->ng, a->nseq},
                    (const int64_t[]){at_ceil_div(b->most_keys, CPU_KEYS), a->ng, a->nseq});
}

static int run_mma(struct attend_exec *x, const struct at_step *s)
{
    struct back *b = at_step_state(x, s);
    const struct at_attn *a = &b->g.a;
    const int64_t rows[] = {at_ceil_div(b->most_rows, MMA_OWN), a->ng, a->nseq};
    const int64_t keys[] = {at_ceil_div(b->most_keys, MMA_OWN), a->ng, a->nseq};
    int status = launch(x, s, TERMS, 0, AT_OUT_Q, -1, &b->g.dq, NULL, rows);
    return status < 0 ? status : run_both(x, s, rows, keys);
}

const struct at_row at_gpu_back_cpu = {"cpu",  AT_ATTENTION_GRAD, accepts_cpu, prepare_cpu, bind,
                                       run_cpu};
const struct at_row at_gpu_back_mma = {"mma",       AT_ATTENTION_GRAD, accepts_mma,
                                       prepare_mma, bind_mma,          run_mma};
const struct at_row at_gpu_back_local = {"gpu_local", AT_ATTENTION_GRAD, accepts, prepare_local,
                                         bind,        run_local};
