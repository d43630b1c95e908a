/* SPDX-License-Identifier: MIT */
/* A trial of a kernel before a plan takes it: the small problem of its kind, on the device and on
 * the reference.  Compilers of devices have miscompiled one variant and not another.  Each kernel
 * of attention and of products is tried once, and what was right is kept beside its program on
 * disk. Variants with expressions of the user are tried without these. */
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "gpu.h"
#include "half.h"
#include "progcache.h"
#include "programs.h"

enum { UNTRIED, TRIED }; /* at_kernel.trial; one that is wrong is UNTRIED again */

static const uint8_t right = 1;

static void key_of(const struct at_kernel *k, uint8_t key[32])
{
    struct at_sha256 s;
    at_sha256_begin(&s);
    at_sha256_add(&s, "trial 1", 7);
    at_sha256_add(&s, k->program, sizeof k->program);
    at_sha256_add(&s, k->name, strlen(k->name));
    at_sha256_end(&s, key);
}

static bool known(attend_ctx *ctx, const struct at_kernel *k)
{
    uint8_t key[32];
    int64_t bytes;
    key_of(k, key);
    uint8_t *found = at_progcache_read(ctx, key, &bytes);
    bool fine = found && bytes == 1 && *found == right;
    at_free(ctx, found);
    return fine;
}

static void remember(attend_ctx *ctx, const struct at_kernel *k)
{
    uint8_t key[32];
    key_of(k, key);
    at_progcache_write(ctx, key, &right, 1);
}

/* ---- the small problem ---- */

/* Attention that goes to the same row: as many rows of a group as decoding has, or some more; keys
 * that fill no block, causal, so that some are hidden. */
static void add_attention(attend_graph *g, const attend_plan *plan, const struct at_step *s)
{
    const attend_graph *from = plan->graph;
    const struct at_tensor *q = &from->tensor[s->in[AT_IN_Q]], *k = &from->tensor[s->in[AT_IN_K]],
                           *v = &from->tensor[s->in[AT_IN_V]];
    int64_t ratio = q->shape[1] / k->shape[1], dk = q->shape[q->rank - 1],
            dv = v->shape[v->rank - 1];
    bool few = strstr(s->row->name, "decode") != NULL;
    int64_t rows = few ? at_max(1, 8 / ratio) : 8 / ratio + 1, keys = 70;
    attend_attention_opts o;
    attend_attention_opts_init(&o);
    o.mask.causal = 1;
    o.mask.align = ATTEND_BOTTOM_RIGHT;
    attend_tensor t = attend_graph_attention(
        g,
        attend_graph_input(g, "a", ATTEND_F32,
                           (attend_shape){
                               4, {1, ratio, rows, dk}
    }),
        attend_graph_input(g, "b", ATTEND_F32, (attend_shape){4, {1, 1, keys, dk}}),
        attend_graph_input(g, "c", ATTEND_F32, (attend_shape){4, {1, 1, keys, dv}}), &o, NULL);
    attend_graph_output(g, "y", t);
}

static void add_matmul(attend_graph *g, const attend_plan *plan, const struct at_step *s)
{
    attend_type type = plan->graph->tensor[s->in[1]].type;
    bool few = strstr(s->row->name, "matvec") != NULL, rows = s->p->matmul.b_rows;
    int64_t m = few ? 3 : 37, n = 35, k = 96;
    attend_shape shape = {
        2, {rows ? n : k, rows ? k : n}
    };
    attend_tensor a = attend_graph_input(g, "a", ATTEND_F32,
                                         (attend_shape){
                                             2, {m, k}
    }),
                  b = attend_graph_input(g, "b", type, shape);
    attend_graph_output(g, "y",
                        rows ? attend_graph_matmul_nt(g, a, b) : attend_graph_matmul(g, a, b));
}

/* Numbers between -1 and 1, as the type has them; scales of blocks are about 1/16. */
static void fill(unsigned char *to, attend_type type, int64_t bytes, uint32_t seed)
{
    int64_t size = (int64_t)attend_type_size(type);
    bool blocks = attend_type_block(type) > 1;
    for (int64_t i = 0; i < bytes; i += size) {
        for (int64_t k = 0; k < size && blocks; k++)
            to[i + k] = (unsigned char)((seed = seed * 1664525u + 1013904223u) >> 24);
        seed = seed * 1664525u + 1013904223u;
        float x = blocks ? 0.0625f : (float)(seed >> 8) * 0x1p-23f - 1;
        if (type == ATTEND_F32) {
            memcpy(to + i, &x, sizeof x);
        } else {
            uint16_t half = type == ATTEND_BF16 ? at_bf16_from_float(x) : at_half_from_float(x);
            memcpy(to + i, &half, sizeof half);
            if (type == ATTEND_Q4_1)
                memcpy(to + i + 2, &half, sizeof half);
        }
    }
}

/* Memory for what the exec wants, and numbers in what is read; *y is what is written. */
static int bind_all(attend_exec *x, attend_binding bind[4], int *n, const attend_binding **y)
{
    const attend_graph *g = x->plan->graph;
    for (int i = 0; i < x->nname && *n < 4; i++) {
        const struct at_tensor *t = &g->tensor[x->name[i].tensor];
        attend_binding *b = &bind[*n];
        *b = (attend_binding){.name = x->name[i].name,
                              .bytes = at_graph_largest(g, t->type, t->rank, t->shape)};
        b->data = malloc((size_t)b->bytes);
        if (!b->data)
            return at_fail(&x->err, ATTEND_ENOMEM, "no memory for a trial");
        ++*n;
        if (t->output)
            *y = b;
        else
            fill(b->data, t->type, b->bytes, (uint32_t)b->name[0]);
    }
    return attend_bind(x, bind, *n);
}

/* y of the graph on a device, malloc'd; *row is what computed it there. */
static int compute(attend_graph *g, const char *device, float **to, int64_t *count,
                   const struct at_row **row, struct at_err *e)
{
    attend_compile_opts opts;
    attend_plan *plan = NULL;
    attend_exec *x = NULL;
    attend_binding bind[4];
    const attend_binding *y = NULL;
    int n = 0;
    attend_compile_opts_init(&opts);
    opts.device = device;
    int status = attend_compile(g, &opts, &plan);
    if (status == 0)
        status = attend_exec_new(plan, &x);
    if (status == 0)
        status = bind_all(x, bind, &n, &y);
    if (status == 0)
        status = attend_run(x);
    if (status == 0) {
        *row = plan->variant[0].step[plan->variant[0].nstep - 1].row;
        *to = y->data;
        *count = y->bytes / (int64_t)sizeof(float);
    } else {
        at_fail(e, status, "its trial failed: %.400s",
                x ? attend_exec_error(x) : attend_graph_error(g));
    }
    for (int i = 0; i < n; i++)
        if (status < 0 || &bind[i] != y)
            free(bind[i].data);
    attend_exec_free(x);
    attend_plan_free(plan);
    return status;
}

/* Is what the row computes what the reference does? */
static int try(attend_plan *plan, const struct at_step *s, bool *same, struct at_err *e)
{
    const struct at_row *row = NULL, *other = NULL;
    attend_graph *g = attend_graph_new(plan->ctx);
    float *got = NULL, *want = NULL;
    int64_t n = 0;
    if (s->op == AT_ATTENTION)
        add_attention(g, plan, s);
    else
        add_matmul(g, plan, s);
    int status = compute(g, s->device->name, &got, &n, &row, e);
    if (status == 0)
        status = compute(g, plan->ctx->device[0].name, &want, &n, &other, e);
    *same = status == 0 && row == s->row;
    for (int64_t i = 0; i < n && *same && status == 0; i++)
        if (!(fabsf(got[i] - want[i]) <= 2e-4f * (1 + fabsf(want[i]))))
            status = at_fail(e, ATTEND_EUNSUPPORTED,
                             "its trial gave %.9g for %.9g at element %lld of %lld", (double)got[i],
                             (double)want[i], (long long)i, (long long)n);
    free(got);
    free(want);
    attend_graph_free(g);
    return status;
}

int at_gpu_trial(attend_plan *plan, const struct at_step *s, void *kernel, struct at_err *e)
{
    struct at_kernel *k = kernel;
    bool same = false;
    int untried = UNTRIED;
    if (s->op != AT_ATTENTION && s->op != AT_MATMUL)
        return 0;
    if (s->op == AT_ATTENTION && (s->p->attention.score || s->p->attention.mask))
        return 0;
    if (!atomic_compare_exchange_strong(&k->trial, &untried, TRIED) || known(plan->ctx, k))
        return 0;
    int status = try(plan, s, &same, e);
    if (status < 0) {
        at_log(plan->ctx, "%s: kernel %s is not used: %s", s->device->name, k->name, e->text);
        atomic_store(&k->trial, UNTRIED);
        return e->status = status == ATTEND_ENOMEM ? status : ATTEND_EUNSUPPORTED;
    }
    if (same)
        remember(plan->ctx, k);
    return 0;
}
