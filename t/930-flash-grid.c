/* SPDX-License-Identifier: MIT */
/* FlashAttention's own grid of lengths and head sizes under its own rule
 * (tests/test_flash_attn.py): against f64, the largest error is at most twice that of the plain
 * unfused computation in the same type. */
#include <math.h>
#include <stdlib.h>

#include "attend.h"
#include "half.h"
#include "tap.h"

static const int head_sizes[] = {32, 40, 59, 64, 80, 96, 111, 128, 160, 192, 224, 256};
static const int lengths[][2] = {
    {1,    147 },
    {113,  203 },
    {128,  217 },
    {113,  211 },
    {108,  256 },
    {256,  512 },
    {512,  256 },
    {1024, 1024},
    {1023, 1024},
    {1024, 1023}
};
static const attend_type types[] = {ATTEND_F32, ATTEND_F16, ATTEND_BF16};

static uint64_t state = 1;
static float normal(void)
{
    float sum = 0;
    for (int i = 0; i < 4; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        sum += (float)(state >> 40) * 0x1p-24f - 0.5f;
    }
    return sum * 1.7320508f;
}

/* x as the type holds it. */
static float rounded(attend_type type, float x)
{
    return type == ATTEND_F16    ? at_half_to_float(at_half_from_float(x))
           : type == ATTEND_BF16 ? at_bf16_to_float(at_bf16_from_float(x))
                                 : x;
}

struct problem {
    attend_type type;
    int nq, nk, d, causal;
    float *q, *k, *v;   /* values, exact in the type */
    void *tq, *tk, *tv; /* the same, stored in it */
    float *plain, *o;
    double *truth;
};

/* Row i: S and P are rounded to the type, as matrices of that type in memory are; double when
 * `exact`. */
static void unfused_row(const struct problem *p, int i, double *truth, float *plain, double *w)
{
    double top = -INFINITY, sum = 0;
    int end = p->causal ? i + p->nk - p->nq + 1 : p->nk;
    end = end < 0 ? 0 : end;
    for (int j = 0; j < end; j++) {
        double exact = 0;
        float s = 0;
        for (int c = 0; c < p->d; c++) {
            exact += (double)p->q[i * p->d + c] * (double)p->k[j * p->d + c];
            s += p->q[i * p->d + c] * p->k[j * p->d + c];
        }
        w[j] = truth ? exact / sqrt(p->d) : (double)rounded(p->type, s / sqrtf((float)p->d));
        top = fmax(top, w[j]);
    }
    for (int j = 0; j < end; j++)
        sum += w[j] = truth ? exp(w[j] - top) : (double)expf((float)(w[j] - top));
    for (int c = 0; c < p->d; c++) {
        double exact = 0;
        float o = 0;
        for (int j = 0; j < end; j++) {
            exact += w[j] / sum * (double)p->v[j * p->d + c];
            o += rounded(p->type, (float)w[j] / (float)sum) * p->v[j * p->d + c];
        }
        if (truth)
            truth[c] = exact;
        else
            plain[c] = rounded(p->type, o);
    }
}

static float *draw(int n, attend_type type, void **stored)
{
    float *x = malloc((size_t)n * sizeof *x);
    *stored = malloc((size_t)n * sizeof *x);
    if (!x || !*stored)
        bail("no memory");
    for (int i = 0; i < n; i++)
        x[i] = rounded(type, normal());
    if (attend_convert(type, *stored, ATTEND_F32, x, n) < 0)
        bail("no conversion to %s", attend_type_name(type));
    return x;
}

static int run(attend_ctx *ctx, const char *device, const struct problem *p)
{
    attend_plan *plan = NULL;
    attend_exec *x = NULL;
    attend_attention_opts o;
    attend_compile_opts c;
    attend_graph *g = attend_graph_new(ctx);
    attend_attention_opts_init(&o);
    attend_compile_opts_init(&c);
    c.device = device;
    o.mask.causal = p->causal;
    o.mask.align = ATTEND_BOTTOM_RIGHT;
    attend_tensor q = attend_graph_input(g, "q", p->type, ATTEND_SHAPE(1, 1, p->nq, p->d));
    attend_tensor k = attend_graph_input(g, "k", p->type, ATTEND_SHAPE(1, 1, p->nk, p->d));
    attend_tensor v = attend_graph_input(g, "v", p->type, ATTEND_SHAPE(1, 1, p->nk, p->d));
    attend_graph_output(g, "o", attend_graph_attention(g, q, k, v, &o, NULL));
    int64_t size = (int64_t)attend_type_size(p->type);
    const attend_binding b[] = {
        {.name = "q", .data = p->tq, .bytes = size * p->nq * p->d      },
        {.name = "k", .data = p->tk, .bytes = size * p->nk * p->d      },
        {.name = "v", .data = p->tv, .bytes = size * p->nk * p->d      },
        {.name = "o", .data = p->o,  .bytes = 4 * (int64_t)p->nq * p->d}
    };
    int status = attend_compile(g, &c, &plan);
    if (status == 0)
        status = attend_exec_new(plan, &x);
    if (status == 0)
        status = attend_bind(x, b, 4);
    if (status == 0)
        status = attend_run(x);
    attend_exec_free(x);
    attend_plan_free(plan);
    attend_graph_free(g);
    return status;
}

static double worst(const struct problem *p, const float *got)
{
    double w = 0;
    for (int i = 0; i < p->nq * p->d; i++)
        w = fmax(w, fabs((double)got[i] - p->truth[i]));
    return w;
}

static void check(attend_ctx *ctx, struct problem *p)
{
    attend_device_info info;
    double *w = malloc((size_t)p->nk * sizeof *w);
    int n = p->nq * p->d;
    p->q = draw(n, p->type, &p->tq);
    p->k = draw(p->nk * p->d, p->type, &p->tk);
    p->v = draw(p->nk * p->d, p->type, &p->tv);
    p->plain = malloc((size_t)n * sizeof *p->plain);
    p->o = malloc((size_t)n * sizeof *p->o);
    p->truth = malloc((size_t)n * sizeof *p->truth);
    if (!w || !p->plain || !p->o || !p->truth)
        bail("no memory");
    for (int i = 0; i < p->nq; i++) {
        unfused_row(p, i, p->truth + i * p->d, NULL, w);
        unfused_row(p, i, NULL, p->plain + i * p->d, w);
    }
    double allowed = 2 * worst(p, p->plain) + 1e-5;
    for (int i = 1; attend_device_get(ctx, i, &info) == 0; i++) {
        if (!info.present)
            continue;
        int status = run(ctx, info.name, p);
        double error = status == 0 ? worst(p, p->o) : (double)INFINITY;
        ok(error <= allowed, "%s %s q%d k%d d%d%s: %.3g, allowed %.3g", info.name,
           attend_type_name(p->type), p->nq, p->nk, p->d, p->causal ? " causal" : "", error,
           allowed);
    }
    free(p->q), free(p->k), free(p->v), free(p->tq), free(p->tk), free(p->tv);
    free(p->plain), free(p->o), free(p->truth), free(w);
}

int main(void)
{
    attend_ctx *ctx;
    if (attend_ctx_new(NULL, &ctx) < 0)
        bail("no context");
    for (size_t t = 0; t < NELEM(types); t++)
        for (size_t d = 0; d < NELEM(head_sizes); d++)
            for (size_t l = 0; l < NELEM(lengths); l++)
                for (int causal = 0; causal < 2; causal++) {
                    struct problem p = {.type = types[t],
                                        .nq = lengths[l][0],
                                        .nk = lengths[l][1],
                                        .d = head_sizes[d],
                                        .causal = causal};
                    check(ctx, &p);
                }
    attend_ctx_free(ctx);
    return done_testing();
}
