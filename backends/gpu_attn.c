/* SPDX-License-Identifier: MIT */
/* Attention on devices: the shapes of portable/attn_*.cl and cuda/attn_mma.cu, their argument
 * block, and which one a step takes.  Sequences and captured tensors are described in a table on
 * the device, written by bind. */
#include <stdio.h>
#include <string.h>

#include "env.h"
#include "gpu.h"
#include "gpu_problem.h"

#define FEW 8                    /* packed rows of decode */
#define CHUNK 256                /* keys of its chunks: a multiple of this */
#define MOST_CHUNKS 64           /* of a sequence */
#define LOCAL_ROWS 32            /* of a tile of attn_local */
#define NOLOCAL_ROWS 64          /* of a group of attn_nolocal, */
#define NOLOCAL_SLICE 32         /* and the channels of an item */
#define MMA_WARPS 4              /* of attn_mma, */
#define MMA_HEAD 256             /* and its largest head */
#define MMA_FEW 16               /* packed rows of a warp that has a chunk of keys */
#define CPU_ROWS 256             /* of a panel of attn_cpu, up to 128 channels */
#define UNFUSED_ROWS 256         /* whose scores are in memory at once, ... */
#define UNFUSED_BYTES (64 << 20) /* ... in no more than this where that is more than a row */

/* ---- sizes, from the ranges of the variant ---- */

static int64_t chunk_length(int64_t keys)
{
    return at_round_up(at_max(CHUNK, at_ceil_div(keys, MOST_CHUNKS)), CHUNK);
}

/* Channels that a group has: AT_DV of attn_local and decode. */
static int slice_of(int64_t dv)
{
    return dv <= 64 ? 64 : 128;
}

static int64_t unfused_rows(const struct at_gpu_sizes *e)
{
    return at_max(1, at_min(UNFUSED_ROWS, UNFUSED_BYTES / (4 * e->groups * at_max(1, e->keys))));
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
    struct at_gpu_sizes e = at_gpu_sizes_of(plan, s);
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
    struct at_gpu_sizes e = at_gpu_sizes_of(plan, s);
    return asked("decode", why) &&
           at_need(why, e.rows * e.ratio <= FEW, "more than 8 rows of a group of heads") &&
           accepts(plan, s, why);
}

static bool accepts_decode_cpu(const attend_plan *plan, const struct at_step *s, struct at_why *why)
{
    struct at_gpu_sizes e = at_gpu_sizes_of(plan, s);
    return asked("decode_cpu", why) && at_gpu_on_cpu(s, why) &&
           at_need(why, e.rows * e.ratio <= FEW, "more than 8 rows of a group of heads") &&
           accepts(plan, s, why);
}

static bool accepts_cpu(const attend_plan *plan, const struct at_step *s, struct at_why *why)
{
    return asked("cpu", why) && at_gpu_on_cpu(s, why) && accepts(plan, s, why);
}

/* A group of attn_mma: its tiles, and the shared memory that these take. */
struct mma {
    attend_type type;
    int dk, dv, warps, rows, keys, terms;
    int64_t bytes;
};

/* split: few rows, and keys in chunks. */
static struct mma mma_of(const attend_plan *plan, const struct at_step *s, bool split)
{
    struct at_gpu_sizes e = at_gpu_sizes_of(plan, s);
    struct mma m = {.dk = (int)at_round_up(e.dk, 16),
                    .dv = (int)at_round_up(e.dv, split ? 64 : 16)};
    m.type = plan->graph->tensor[s->in[AT_IN_Q]].type;
    int64_t head = at_max(m.dk, m.dv), size = (int64_t)attend_type_size(m.type);
    int stages = at_gpu_of(s->device)->tensor_cores >= 80 ? 2 : 1;
    bool once = m.type == ATTEND_F32 || plan->precision == ATTEND_F16_P;
    m.terms = once ? 1 : m.type == ATTEND_BF16 ? 3 : 2;
    m.keys = head * size <= 128   ? 64
             : head * size <= 256 ? 32
                                  : 16; /* more would spill, or not fit */
    m.warps = split ? 1 : MMA_WARPS;
    /* with 32 rows a warp, registers hold no more channels, terms of weights, or dropout's words */
    bool wide = !split && e.rows * e.ratio > 64 && head <= (m.terms < 3 ? 128 : 64) &&
                !(s->p->attention.dropout > 0);
    m.rows = m.warps * (wide ? 32 : 16);
    m.bytes = size * (m.rows * m.dk + stages * m.keys * (m.dk + m.dv)) + 16;
    return m;
}

static bool tensor_cores(const attend_plan *plan, const struct at_step *s, bool split,
                         struct at_why *why)
{
    const attend_graph *g = plan->graph;
    const struct at_gpu *gpu = at_gpu_of(s->device);
    struct at_gpu_sizes e = at_gpu_sizes_of(plan, s);
    attend_type type = g->tensor[s->in[AT_IN_Q]].type;
    bool tf32 = type == ATTEND_F32 && plan->precision == ATTEND_TF32;
    bool same = type == g->tensor[s->in[AT_IN_K]].type && type == g->tensor[s->in[AT_IN_V]].type;
    return at_need(why, gpu->tensor_cores > 0, "the device has no tensor cores that are used") &&
           at_need(why, same && (type == ATTEND_F16 || type == ATTEND_BF16 || tf32),
                   "q, k and v are not all f16 or all bf16, nor f32 where tf32 is asked for") &&
           at_need(why, type == ATTEND_F16 || gpu->tensor_cores >= 80,
                   "bf16 and tf32 need compute capability 8.0") &&
           at_need(why, s->in[AT_IN_ADDITIVE] < 0, "additive scores are no products") &&
           at_need(why, e.dk <= MMA_HEAD && e.dv <= MMA_HEAD, "a head of more than 256 channels") &&
           at_need(why, mma_of(plan, s, split).bytes <= gpu->most_local_bytes,
                   "a tile does not fit into shared memory") &&
           accepts(plan, s, why);
}

static bool accepts_mma(const attend_plan *plan, const struct at_step *s, struct at_why *why)
{
    return asked("mma", why) && tensor_cores(plan, s, false, why);
}

static bool accepts_decode_mma(const attend_plan *plan, const struct at_step *s, struct at_why *why)
{
    struct at_gpu_sizes e = at_gpu_sizes_of(plan, s);
    return asked("decode_mma", why) && tensor_cores(plan, s, true, why) &&
           at_need(why, e.rows * e.ratio <= MMA_FEW, "more than 16 rows of a group of heads");
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

/* What bind leaves for run, in the exec; the sequences follow it, as the host and the device have
 * them, and then what is captured. */
struct problem {
    struct at_attn a;
    struct at_k_attn args;
    int64_t most_rows, most_keys; /* packed rows and keys of a sequence */
};

static int prepare(attend_plan *plan, struct at_step *s, unsigned files, const char *defines,
                   const char *const *names, int n, struct at_err *e)
{
    return at_gpu_problem_prepare(plan, s, files, defines, names, n, sizeof(struct problem), e);
}

static int prepare_sliced(attend_plan *plan, struct at_step *s, unsigned files,
                          const char *const *names, int n, struct at_err *e)
{
    char defines[32];
    snprintf(defines, sizeof defines, "-DAT_DV=%d", slice_of(at_gpu_sizes_of(plan, s).dv));
    return prepare(plan, s, files, defines, names, n, e);
}

/* Partials of chunks, whichever kernel leaves them. */
static int book_partials(attend_plan *plan, struct at_step *s, int few, int slice, int status,
                         struct at_err *e)
{
    struct at_gpu_sizes x = at_gpu_sizes_of(plan, s);
    int64_t chunks = at_max(1, at_ceil_div(x.keys, chunk_length(x.keys)));
    int64_t states = at_mul_size(x.seqs, x.groups * at_ceil_div(x.dv, slice) * chunks * few);
    s->shared_work = at_mul_size(states, (2 + slice) * (int64_t)sizeof(float));
    if (status == 0 && s->shared_work < 0)
        status = at_fail(e, ATTEND_ELIMIT, "attention over %lld sequences", (long long)x.seqs);
    return status;
}

static int prepare_decode(attend_plan *plan, struct at_step *s, struct at_err *e)
{
    static const char *const names[] = {"decode", "decode_merge"};
    unsigned files = 1u << AT_GPU_ATTN_MERGE | 1u << AT_GPU_ATTN_DECODE;
    int slice = slice_of(at_gpu_sizes_of(plan, s).dv);
    return book_partials(plan, s, FEW, slice, prepare_sliced(plan, s, files, names, 2, e), e);
}

static int cpu_rows(int64_t dk, int64_t dv)
{
    int room = at_gpu_channels(at_max(dk, dv));
    return room <= 128 ? CPU_ROWS : room <= 256 ? CPU_ROWS / 2 : CPU_ROWS / 4;
}

static int prepare_decode_cpu(attend_plan *plan, struct at_step *s, struct at_err *e)
{
    static const char *const names[] = {"decode_cpu", "decode_merge"};
    unsigned files = 1u << AT_GPU_TILE_CPU | 1u << AT_GPU_ATTN_MERGE | 1u << AT_GPU_ATTN_DECODE_CPU;
    struct at_gpu_sizes x = at_gpu_sizes_of(plan, s);
    char defines[64];
    snprintf(defines, sizeof defines, "-DAT_LANES=%d -DAT_DK=%d -DAT_DV=%d",
             at_gpu_of(s->device)->lanes, at_gpu_channels(x.dk), slice_of(x.dv));
    int status = prepare(plan, s, files, defines, names, 2, e);
    return book_partials(plan, s, FEW, slice_of(x.dv), status, e);
}

static int prepare_local(attend_plan *plan, struct at_step *s, struct at_err *e)
{
    static const char *const name = "attn_local";
    return prepare_sliced(plan, s, 1u << AT_GPU_ATTN_LOCAL, &name, 1, e);
}

static int prepare_tensor_cores(attend_plan *plan, struct at_step *s, const struct mma *m,
                                unsigned files, struct at_err *e)
{
    static const char *const names[] = {"attn_mma", "decode_merge"};
    const struct at_attention *p = &s->p->attention;
    char defines[192];
    snprintf(
        defines, sizeof defines,
        "-DAT_DK=%d -DAT_DV=%d -DAT_WARPS=%d -DAT_ROWS=%d -DAT_KEYS=%d -DAT_TERMS=%d%s%s%s%s%s",
        m->dk, m->dv, m->warps, m->rows, m->keys, m->terms, files ? " -DAT_SPLIT -DAT_FEW=16" : "",
        m->type == ATTEND_F32    ? " -DAT_TF32"
        : m->type == ATTEND_BF16 ? " -DAT_BF16_IN"
                                 : "",
        at_gpu_problem_edits(s) ? " -DAT_EDITS" : "", p->dropout > 0 ? " -DAT_DROPOUT" : "",
        s->in[AT_IN_TABLE] >= 0 ? " -DAT_PAGED" : "");
    return prepare(plan, s, 1u << AT_GPU_MMA | 1u << AT_GPU_ATTN_MMA | files, defines, names,
                   files ? 2 : 1, e);
}

static int prepare_mma(attend_plan *plan, struct at_step *s, struct at_err *e)
{
    struct mma m = mma_of(plan, s, false);
    return prepare_tensor_cores(plan, s, &m, 0, e);
}

static int prepare_decode_mma(attend_plan *plan, struct at_step *s, struct at_err *e)
{
    struct mma m = mma_of(plan, s, true);
    int status = prepare_tensor_cores(plan, s, &m, 1u << AT_GPU_ATTN_MERGE, e);
    return book_partials(plan, s, MMA_FEW, m.dv, status, e);
}

static int prepare_nolocal(attend_plan *plan, struct at_step *s, struct at_err *e)
{
    static const char *const name = "attn_nolocal";
    return prepare(plan, s, 1u << AT_GPU_ATTN_NOLOCAL, "", &name, 1, e);
}

static int prepare_cpu(attend_plan *plan, struct at_step *s, struct at_err *e)
{
    static const char *const name = "attn_cpu";
    struct at_gpu_sizes x = at_gpu_sizes_of(plan, s);
    char defines[80];
    int room = at_gpu_channels(at_max(x.dk, x.dv));
    snprintf(defines, sizeof defines, "-DAT_LANES=%d -DAT_ROWS=%d -DAT_DK=%d -DAT_DV=%d",
             at_gpu_of(s->device)->lanes, cpu_rows(x.dk, x.dv), room, room);
    return prepare(plan, s, 1u << AT_GPU_TILE_CPU | 1u << AT_GPU_ATTN_CPU, defines, &name, 1, e);
}

static int prepare_unfused(attend_plan *plan, struct at_step *s, struct at_err *e)
{
    static const char *const names[] = {"unfused_scores", "unfused_softmax", "unfused_values"};
    struct at_gpu_sizes x = at_gpu_sizes_of(plan, s);
    int status = prepare(plan, s, 1u << AT_GPU_ATTN_UNFUSED, "", names, 3, e);
    s->shared_work = unfused_rows(&x) * x.groups * at_max(1, x.keys) * (int64_t)sizeof(float);
    return status;
}

/* ---- bind ---- */

static int bind(struct attend_exec *x, const struct at_step *s)
{
    struct at_gpu_sizes e = at_gpu_sizes_of(x->plan, s);
    struct problem *p = at_step_state(x, s);
    struct at_seq *seq = (struct at_seq *)((char *)p + at_round_up(sizeof *p, AT_ALIGN));
    int status = at_attn_resolve(x, s, &p->a, seq);
    if (status < 0)
        return status;
    at_gpu_problem_args(&p->args, x, s, &p->a);
    at_gpu_buffer(x, s->out[0], &p->args.o.at);
    for (int d = 0; d < 4; d++)
        p->args.o.stride[d] = p->a.o.stride[d];
    p->args.has_lse = at_out(x, s, 1) != NULL;
    if (p->args.has_lse)
        at_gpu_buffer(x, s->out[1], &p->args.lse[0]);
    p->most_rows = p->most_keys = 0;
    for (int64_t n = 0; n < p->a.nseq; n++) {
        p->most_rows = at_max(p->most_rows, seq[n].nq * e.ratio);
        p->most_keys = at_max(p->most_keys, seq[n].nk);
    }
    return at_gpu_problem_table(x, s, &p->a, &e, seq + e.seqs, &p->args);
}

static int64_t buffer_address(const struct attend_exec *x, int t)
{
    int64_t at;
    return (int64_t)(uintptr_t)at_gpu_buffer(x, t, &at);
}

/* Whether all rows of a tensor begin at multiples of `grain` bytes and are as long. */
static bool rows_aligned(int64_t address, int64_t at, const int64_t stride[3], int64_t channels,
                         int64_t bytes, int64_t grain)
{
    int64_t all = address | at * bytes | channels * bytes;
    for (int d = 0; d < 3; d++)
        all |= stride[d] * bytes;
    return all % grain == 0;
}

static int bind_mma(struct attend_exec *x, const struct at_step *s)
{
    struct problem *p = at_step_state(x, s);
    struct at_k_attn *k = &p->args;
    const struct at_k_view *v[] = {&k->q, &k->k, &k->v};
    int64_t size = (int64_t)attend_type_size(x->plan->graph->tensor[s->in[AT_IN_Q]].type);
    int status = bind(x, s);
    for (int i = 0; i < 3 && status == 0; i++)
        if (rows_aligned(buffer_address(x, s->in[AT_IN_Q + i]), v[i]->at, v[i]->stride,
                         i < 2 ? k->dk : k->dv, size, 16))
            k->aligned |= 1 << i;
    if (status == 0 &&
        rows_aligned(buffer_address(x, s->out[0]), k->o.at, k->o.stride, 2, sizeof(float), 8))
        k->aligned |= 1 << 3;
    return status;
}

/* ---- run ---- */

static struct at_gpu_launch launch_of(const struct attend_exec *x, const struct at_step *s,
                                      int kernel)
{
    const struct problem *p = at_step_state(x, s);
    const struct at_gpu_kernels *k = s->packed;
    struct at_gpu_launch l = {
        .kernel = k->kernel[kernel], .args = &p->args, .bytes = sizeof p->args, .items = 64};
    int64_t at;
    int n = 0;
    l.buffer[n++] = at_gpu_buffer(x, s->out[0], &at);
    l.buffer[n++] = p->args.has_lse ? at_gpu_buffer(x, s->out[1], &at) : NULL;
    n += at_gpu_problem_buffers(x, s, l.buffer + n);
    l.nbuffer = n;
    return l;
}

/* Chunks by groups of so many items and bytes, for slices of channels; then what they leave becomes
 * one. */
static int run_chunks(struct attend_exec *x, const struct at_step *s, int items, int slice,
                      int64_t local_bytes)
{
    struct problem *p = at_step_state(x, s);
    p->args.chunk = chunk_length(at_gpu_sizes_of(x->plan, s).keys);
    p->args.chunks = (at_i32)at_max(1, at_ceil_div(p->most_keys, p->args.chunk));
    struct at_gpu_launch l = launch_of(x, s, 0);
    l.items = items;
    l.local_bytes = local_bytes;
    l.groups[0] = p->args.chunks;
    l.groups[1] = p->a.ng * at_ceil_div(p->a.dv, slice);
    l.groups[2] = p->most_rows > 0 ? p->a.nseq : 0;
    int status = at_gpu_run(x, s, &l);
    if (status < 0)
        return status;
    l.kernel = ((const struct at_gpu_kernels *)s->packed)->kernel[1];
    l.items = 64;
    l.local_bytes = 0;
    l.groups[0] = p->most_rows;
    return at_gpu_run(x, s, &l);
}

static int run_decode(struct attend_exec *x, const struct at_step *s)
{
    const struct problem *p = at_step_state(x, s);
    return run_chunks(x, s, 64, slice_of(p->a.dv), 0);
}

static int run_decode_cpu(struct attend_exec *x, const struct at_step *s)
{
    const struct problem *p = at_step_state(x, s);
    return run_chunks(x, s, 1, slice_of(p->a.dv), 0);
}

static int run_decode_mma(struct attend_exec *x, const struct at_step *s)
{
    struct mma m = mma_of(x->plan, s, true);
    return run_chunks(x, s, 32 * m.warps, m.dv, m.bytes);
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

static int run_mma(struct attend_exec *x, const struct at_step *s)
{
    const struct problem *p = at_step_state(x, s);
    struct mma m = mma_of(x->plan, s, false);
    struct at_gpu_launch l = launch_of(x, s, 0);
    l.items = 32 * m.warps;
    l.local_bytes = m.bytes;
    l.groups[0] = at_ceil_div(p->most_rows, m.rows);
    l.groups[1] = p->a.ng;
    l.groups[2] = p->a.nseq;
    return at_gpu_run(x, s, &l);
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

/* Some rows of one sequence: scores, softmax, values. */
static int run_unfused_rows(struct attend_exec *x, const struct at_step *s, int64_t keys)
{
    const struct problem *p = at_step_state(x, s);
    int status = 0;
    for (int k = 0; k < 3 && status == 0; k++) {
        struct at_gpu_launch l = launch_of(x, s, k);
        l.groups[0] = k == 0 ? at_ceil_div(keys, 64) : k == 1 ? 1 : at_ceil_div(p->a.dv, 64);
        l.groups[1] = p->args.rows;
        l.groups[2] = p->a.ng;
        status = at_gpu_run(x, s, &l);
    }
    return status;
}

static int run_unfused(struct attend_exec *x, const struct at_step *s)
{
    struct problem *p = at_step_state(x, s);
    struct at_gpu_sizes e = at_gpu_sizes_of(x->plan, s);
    int64_t most = unfused_rows(&e);
    int status = 0;
    p->args.chunk = e.keys;
    for (int64_t n = 0; n < p->a.nseq; n++)
        for (int64_t r = 0; r < p->a.seq[n].nq * e.ratio && status == 0; r += most) {
            p->args.nseq = (at_i32)n;
            p->args.first = (at_i32)r;
            p->args.rows = (at_i32)at_min(most, p->a.seq[n].nq * e.ratio - r);
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
const struct at_row at_gpu_decode_mma = {"decode_mma",       AT_ATTENTION, accepts_decode_mma,
                                         prepare_decode_mma, bind_mma,     run_decode_mma};
const struct at_row at_gpu_attn_mma = {"mma",       AT_ATTENTION, accepts_mma,
                                       prepare_mma, bind_mma,     run_mma};
const struct at_row at_gpu_attn_local = {"gpu_local",   AT_ATTENTION, accepts_local,
                                         prepare_local, bind,         run_local};
const struct at_row at_gpu_attn_nolocal = {"gpu_nolocal",   AT_ATTENTION, accepts_nolocal,
                                           prepare_nolocal, bind,         run_nolocal};
const struct at_row at_gpu_unfused = {"unfused",       AT_ATTENTION, accepts_unfused,
                                      prepare_unfused, bind,         run_unfused};
