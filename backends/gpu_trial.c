/* SPDX-License-Identifier: MIT */
/* A trial of a kernel before a plan takes it: the small problem of its kind, on the device and on
 * the reference.  Compilers of devices have miscompiled one variant and not another.  Kernels whose
 * items share memory or tiles are tried once, and what was right is kept beside the program on
 * disk: attention, its gradient and weights, products, norms; elementwise operators and those of
 * training, of which an item has an element or a row to itself, are not.  Nor are variants with
 * expressions of the user.  A kernel that does not compile, does not fit or is wrong leaves the
 * step to the next row; a call of the driver that fails is an error. */
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "gpu_problem.h"
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

#define MOST 8 /* inputs and outputs */

/* Tensor cores have the backward pass of 16-bit types, and a program for each kind of problem. */
static bool by_tensor_cores(const struct at_step *s)
{
    return s->op == AT_ATTENTION_GRAD && strstr(s->row->name, "mma");
}

/* Attention that goes to the same row: as many rows of a group as decoding has, or some more; keys
 * that fill no block, causal, so that some are hidden.  What s is of it: the result, what is kept
 * of its weights, or the gradients. */
static void add_attention(attend_graph *g, const attend_plan *plan, const struct at_step *s)
{
    const attend_graph *from = plan->graph;
    const struct at_weights *p = &s->p->attention.weights;
    const struct at_tensor *q = &from->tensor[s->in[AT_IN_Q]], *k = &from->tensor[s->in[AT_IN_K]];
    int64_t ratio = q->shape[1] / k->shape[1], dk = q->shape[q->rank - 1], dv = dk, keys = 70;
    bool few = strstr(s->row->name, "decode") != NULL;
    int64_t rows = few ? at_max(1, 8 / ratio) : 8 / ratio + 1;
    attend_attention_opts o;
    attend_weights_opts kept;
    attend_tensor lse, in[3], grad[3];
    bool mma = by_tensor_cores(s);
    attend_type type = mma ? k->type : ATTEND_F32;
    attend_attention_opts_init(&o);
    attend_weights_opts_init(&kept);
    o.mask.causal = 1;
    o.mask.align = ATTEND_BOTTOM_RIGHT;
    if (s->op != AT_WEIGHTS)
        dv = from->tensor[s->in[AT_IN_V]].shape[k->rank - 1];
    if (mma && s->p->attention.dropout > 0)
        o.dropout = 0.25f;
    if (mma && at_gpu_problem_edits(s))
        o.softcap = 5;
    in[0] = attend_graph_input(g, "a", type, ATTEND_SHAPE(1, ratio, rows, dk));
    in[1] = attend_graph_input(g, "b", type, ATTEND_SHAPE(1, 1, keys, dk));
    in[2] = attend_graph_input(g, "c", type, ATTEND_SHAPE(1, 1, keys, dv));
    attend_tensor y = attend_graph_attention(g, in[0], in[1], in[2], &o, &lse);
    if (s->op == AT_WEIGHTS) {
        kept.mode = p->mode == ATTEND_WEIGHTS_ROWS ? ATTEND_WEIGHTS_DENSE : p->mode;
        kept.k = 5;
        kept.rows = 2;
        kept.cols = 3;
        y = attend_graph_attention_weights(
            g, in[0], in[1], s->in[AT_IN_LSE] < 0 ? attend_none() : lse, &o, &kept, NULL);
    } else if (s->op == AT_ATTENTION_GRAD) {
        attend_tensor seed =
            attend_graph_input(g, "d", ATTEND_F32, ATTEND_SHAPE(1, ratio, rows, dv));
        if (attend_grad(g, &y, &seed, 1, in, 3, grad, NULL) < 0)
            return; /* compiling says why */
        attend_graph_output(g, "x", grad[1]);
        attend_graph_output(g, "z", grad[2]);
        y = grad[0];
    }
    attend_graph_output(g, "y", y);
}

static void add_rows(attend_graph *g, const struct at_step *s)
{
    attend_tensor a = attend_graph_input(g, "a", ATTEND_F32, ATTEND_SHAPE(37, 70)), y;
    if (s->op == AT_SOFTMAX)
        y = attend_graph_softmax(g, a);
    else if (s->op == AT_RMS_NORM)
        y = attend_graph_rms_norm(g, a, attend_graph_input(g, "b", ATTEND_F32, ATTEND_SHAPE(70)),
                                  s->p->norm.eps);
    else
        y = attend_graph_layer_norm(g, a, attend_graph_input(g, "b", ATTEND_F32, ATTEND_SHAPE(70)),
                                    attend_graph_input(g, "c", ATTEND_F32, ATTEND_SHAPE(70)),
                                    s->p->norm.eps);
    attend_graph_output(g, "y", y);
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

/* The problem on one device: what its exec is bound to, and the row that had the step. */
struct side {
    attend_binding bind[MOST];
    bool output[MOST];
    int n;
    const struct at_row *row;
};

static void side_free(struct side *side)
{
    for (int i = 0; i < side->n; i++)
        free(side->bind[i].data);
}

/* Memory for what the exec wants, and numbers in what is read. */
static int bind_all(attend_exec *x, struct side *side)
{
    const attend_graph *g = x->plan->graph;
    for (int i = 0; i < x->nname && side->n < MOST; i++) {
        const struct at_tensor *t = &g->tensor[x->name[i].tensor];
        attend_binding *b = &side->bind[side->n];
        *b = (attend_binding){.name = x->name[i].name,
                              .bytes = at_graph_largest(g, t->type, t->rank, t->shape)};
        b->data = malloc((size_t)b->bytes);
        if (!b->data)
            return at_fail(&x->err, ATTEND_ENOMEM, "no memory for a trial");
        side->output[side->n++] = t->output;
        if (!t->output)
            fill(b->data, t->type, b->bytes, (uint32_t)b->name[0]);
    }
    return attend_bind(x, side->bind, side->n);
}

/* Computes the graph on a device; op is that of the row in question. */
static int compute(attend_graph *g, const char *device, enum at_opcode op,
                   attend_precision precision, struct side *side, struct at_err *e)
{
    attend_compile_opts opts;
    attend_plan *plan = NULL;
    attend_exec *x = NULL;
    attend_compile_opts_init(&opts);
    opts.device = device;
    opts.precision = precision;
    int status = attend_compile(g, &opts, &plan);
    if (status == 0)
        status = attend_exec_new(plan, &x);
    if (status == 0)
        status = bind_all(x, side);
    if (status == 0)
        status = attend_run(x);
    for (int i = 0; status == 0 && i < plan->variant[0].nstep; i++)
        if (plan->variant[0].step[i].op == op)
            side->row = plan->variant[0].step[i].row;
    const char *said = x ? attend_exec_error(x) : attend_graph_error(g);
    if (status < 0)
        at_fail(e, status, "its trial failed: %.400s", said[0] ? said : attend_status_name(status));
    attend_exec_free(x);
    attend_plan_free(plan);
    return status;
}

static int compare(const struct side *got, const struct side *want, float far, struct at_err *e)
{
    for (int k = 0; k < got->n; k++) {
        const float *x = got->bind[k].data, *y = want->bind[k].data;
        int64_t n = got->bind[k].bytes / (int64_t)sizeof *x;
        for (int64_t i = 0; got->output[k] && i < n; i++)
            if (!(fabsf(x[i] - y[i]) <= far * (1 + fabsf(y[i]))))
                return at_fail(e, ATTEND_EUNSUPPORTED,
                               "its trial gave %.9g for %.9g at element %lld of %lld", (double)x[i],
                               (double)y[i], (long long)i, (long long)n);
    }
    return 0;
}

/* Is what the row computes what the reference does? */
static int try(attend_plan *plan, const struct at_step *s, bool *same, struct at_err *e)
{
    struct side got = {.n = 0}, want = {.n = 0};
    attend_graph *g = attend_graph_new(plan->ctx);
    if (s->op == AT_MATMUL)
        add_matmul(g, plan, s);
    else if (s->op == AT_SOFTMAX || s->op == AT_RMS_NORM || s->op == AT_LAYER_NORM)
        add_rows(g, s);
    else
        add_attention(g, plan, s);
    int status = compute(g, s->device->name, s->op, plan->precision, &got, e);
    if (status == 0)
        status = compute(g, plan->ctx->device[0].name, s->op, plan->precision, &want, e);
    *same = status == 0 && got.row == s->row;
    if (*same)
        status = compare(&got, &want, plan->precision == ATTEND_EXACT ? 2e-4f : 2e-2f, e);
    side_free(&got);
    side_free(&want);
    attend_graph_free(g);
    return status;
}

static bool tried(const struct at_step *s)
{
    switch (s->op) {
    case AT_ATTENTION:
    case AT_ATTENTION_GRAD:
    case AT_WEIGHTS:
        return !s->p->attention.score && !s->p->attention.mask;
    case AT_MATMUL:
    case AT_SOFTMAX:
    case AT_RMS_NORM:
    case AT_LAYER_NORM:
        return true;
    default:
        return false;
    }
}

int at_gpu_trial(attend_plan *plan, const struct at_step *s, void *kernel, struct at_err *e)
{
    struct at_kernel *k = kernel;
    bool same = false;
    int untried = UNTRIED;
    if (!tried(s) || !atomic_compare_exchange_strong(&k->trial, &untried, TRIED) ||
        known(plan->ctx, k))
        return 0;
    int status = try(plan, s, &same, e);
    if (status == 0 && same)
        remember(plan->ctx, k);
    if (status == 0)
        return 0;
    atomic_store(&k->trial, UNTRIED);
    if (status == ATTEND_ENOMEM || status == ATTEND_EDEVICE)
        return status;
    at_log(plan->ctx, "%s: kernel %s is not used: %s", s->device->name, k->name, e->text);
    return e->status = ATTEND_EUNSUPPORTED;
}
