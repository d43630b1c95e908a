/* SPDX-License-Identifier: MIT */
/* Training: optimisers against their formulas, gradients of problem words on every device against
 * the reference, FlashAttention's rule for f16 and bf16, and the same bits for any number of
 * threads. */
#include "check_grads.h"
#include "graph_help.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define S ATTEND_SHAPE

static attend_ctx *ctx;

/* ---- optimisers: three steps by the formulas, in double ---- */

enum { N = 37, STEPS = 3 };

struct moments {
    float w[N], m[N], v[N];
};

static void run_steps(const char *device, bool adam, struct moments *x, float g[STEPS][N])
{
    attend_graph *graph = attend_graph_new(ctx);
    attend_tensor w = attend_graph_state(graph, "w", ATTEND_F32, S(N)),
                  m = attend_graph_state(graph, "m", ATTEND_F32, S(N));
    attend_tensor grad = attend_graph_input(graph, "g", ATTEND_F32, S(N));
    attend_tensor rate = attend_graph_input(graph, "rate", ATTEND_F32, (attend_shape){0});
    attend_update_opts o;
    attend_update_opts_init(&o);
    o.momentum = 0.5f;
    o.weight_decay = 0.125f;
    o.factor = attend_graph_clip(graph, &grad, 1, 2);
    float r = 0.25f, step, now[N];
    attend_binding bind[] = {HELP_DATA("w", x->w),  HELP_DATA("m", x->m), HELP_DATA("g", now),
                             HELP_DATA("rate", &r), HELP_DATA("v", x->v), HELP_DATA("step", &step)};
    bind[3].bytes = bind[5].bytes = sizeof r;
    if (adam) {
        attend_tensor v = attend_graph_state(graph, "v", ATTEND_F32, S(N));
        attend_graph_adamw(graph, w, m, v, grad, rate,
                           attend_graph_input(graph, "step", ATTEND_F32, (attend_shape){0}), &o);
    } else {
        attend_graph_sgd(graph, w, m, grad, rate, &o);
    }
    attend_plan *plan = help_compile(graph, device, 1);
    attend_exec *exec;
    if (attend_exec_new(plan, &exec) < 0 || attend_bind(exec, bind, adam ? 6 : 4) < 0)
        bail("%s", attend_exec_error(exec));
    for (int t = 0; t < STEPS; t++) {
        step = (float)(t + 1);
        memcpy(now, g[t], sizeof now);
        if (attend_run(exec) < 0)
            bail("%s", attend_exec_error(exec));
    }
    attend_exec_free(exec);
    attend_plan_free(plan);
    attend_graph_free(graph);
}

static void optimiser(const char *device, bool adam)
{
    struct moments x = {{0}, {0}, {0}};
    float g[STEPS][N];
    double w[N], m[N] = {0}, v[N] = {0}, worst = 0;
    uint64_t draw = 4;
    help_normal(&draw, x.w, N);
    help_normal(&draw, g[0], N * STEPS);
    for (int i = 0; i < N; i++)
        w[i] = (double)x.w[i];
    run_steps(device, adam, &x, g);
    for (int t = 0; t < STEPS; t++) {
        double norm = 0, b2 = (double)0.999f, b1 = (double)0.9f;
        for (int i = 0; i < N; i++)
            norm += (double)g[t][i] * (double)g[t][i];
        for (int i = 0; i < N; i++) {
            double gi = (double)g[t][i] * fmin(1, 2 / sqrt(norm));
            if (adam) {
                m[i] = b1 * m[i] + (1 - b1) * gi;
                v[i] = b2 * v[i] + (1 - b2) * gi * gi;
                double step = m[i] / (1 - pow(b1, t + 1)) /
                              (sqrt(v[i] / (1 - pow(b2, t + 1))) + (double)1e-8f);
                w[i] -= 0.25 * (step + 0.125 * w[i]);
            } else {
                m[i] = 0.5 * m[i] + gi + 0.125 * w[i];
                w[i] -= 0.25 * m[i];
            }
        }
    }
    for (int i = 0; i < N; i++) /* 1 - beta2 in f32 has 2^-24 / 1e-3 of its own, which the steps
                                   mend but for a part */
        worst = fmax(worst, fabs((double)x.w[i] - w[i]));
    ok(worst < 3 * 60 * 0x1p-24, "%s: three steps of %s, clipped", device, adam ? "adamw" : "sgd");
    if (worst >= 3 * 60 * 0x1p-24)
        diag("off by %g", worst);
}

/* ---- gradients of problem words ---- */

static const char *const words[] = {
    "attention:f32:b2h4g2q33k65d16:causal-br",
    "attention:f32:b1h2g1q130k200d20v12:causal-tl",
    "attention:f32:b1h4g4q70k70d32:tl:w9_4",
    "attention:f32:b2h2g2q40k300d8:mask-bool",
    "attention:f32:b2h2g2q40k90d8:mask-float",
    "attention:f32:b2h4g2q40k90d8:mask-float-11qk",
    "attention:f32:b2h4g2q20k30d8:br:cap3:alibi:sinks",
    "attention:f32:b1h2g2q64k100d24:drop0.2",
    "attention:f32:b3h4g2q20k31d16:causal-br:packed",
    "attention:f32:b3h2g2q20k50d16:causal-br:used:nan",
    "attention:f32:b2h6g2q17k29d40:bshd:strided:mask-bool-b11k:nan",
    "attention:f32:b1h1g1q300k300d64:causal-tl:scale-0.25",
    "attention:f16:b2h4g2q33k65d64:causal-br",
    "attention:bf16:b2h4g2q33k65d64:br:w7_3",
    "attention:f32:b1h2g2q5k7d300v290",
    "attention:f32:b1h2g1q33k64d160v16:causal-tl:winf_16:nan:seed176", /* hidden from a row of NaN
                                                                        */
};

static void same_bits(const char *device, const char *word)
{
    attend_ctx *one = help_context(1), *three = help_context(3);
    struct check_grads a, b;
    check_gradients(one, device, word, &a);
    check_gradients(three, device, word, &b);
    bool same = true;
    for (int k = 0; k < a.n; k++)
        same = same && !memcmp(a.of[k], b.of[k], (size_t)a.size[k] * sizeof(float));
    ok(same, "%s %s: one thread and three", device, word);
    check_grads_free(&a);
    check_grads_free(&b);
    attend_ctx_free(one);
    attend_ctx_free(three);
}

/* ---- FlashAttention's rule: at most 3 times the error of the composed form in the same type ----
 */

enum { B = 1, H = 2, Q = 48, K = 80, D = 32 };

static attend_tensor composed(attend_graph *g, attend_type type, attend_tensor q, attend_tensor k,
                              attend_tensor v)
{
    attend_tensor s = attend_graph_scale(g, attend_graph_matmul_nt(g, q, k), 1 / sqrtf(D));
    attend_tensor p = attend_graph_softmax(g, attend_graph_cast(g, s, type));
    return attend_graph_matmul(g, attend_graph_cast(g, p, type), v);
}

/* dq, dk and dv of one form. */
static void form(const char *device, attend_type type, bool apart, uint16_t x[3][H * K * D],
                 float *dout, float grad[3][H * K * D])
{
    static const char *const in[] = {"q", "k", "v"}, *const out[] = {"dq", "dk", "dv"};
    attend_graph *g = attend_graph_new(ctx);
    attend_tensor t[3], d[3];
    attend_binding bind[7];
    attend_exec *exec;
    attend_grad_opts opts;
    attend_grad_opts_init(&opts);
    opts.fuse = !apart;
    for (int k = 0; k < 3; k++) {
        t[k] = attend_graph_input(g, in[k], type, S(B, H, k ? K : Q, D));
        bind[k] = (attend_binding){in[k], x[k], H * (k ? K : Q) * D * 2, NULL, 0, 0};
        bind[3 + k] = (attend_binding){out[k], grad[k], H * (k ? K : Q) * D * 4, NULL, 0, 0};
    }
    bind[6] = (attend_binding){"do", dout, H * Q * D * 4, NULL, 0, 0};
    attend_tensor seed = attend_graph_input(g, "do", ATTEND_F32, S(B, H, Q, D));
    attend_tensor o = apart ? composed(g, type, t[0], t[1], t[2])
                            : attend_graph_attention(g, t[0], t[1], t[2], NULL, NULL);
    if (attend_grad(g, &o, &seed, 1, t, 3, d, &opts) < 0)
        bail("%s", attend_graph_error(g));
    for (int k = 0; k < 3; k++)
        attend_graph_output(g, out[k], d[k]);
    attend_plan *plan = help_compile(g, device, !apart);
    if (attend_exec_new(plan, &exec) < 0 || attend_bind(exec, bind, 7) < 0 || attend_run(exec) < 0)
        bail("%s", attend_exec_error(exec));
    attend_exec_free(exec);
    attend_plan_free(plan);
    attend_graph_free(g);
}

static void flash_rule(const char *device, attend_type type)
{
    static float x[H * K * D], dout[H * Q * D], truth[3][H * K * D], fused[3][H * K * D],
        apart[3][H * K * D];
    static uint16_t half[3][H * K * D];
    uint64_t draw = 8;
    for (int k = 0; k < 3; k++) {
        help_normal(&draw, x, H * K * D);
        if (attend_convert(type, half[k], ATTEND_F32, x, H * K * D) < 0)
            bail("convert");
    }
    help_normal(&draw, dout, H * Q * D);
    form("ref", type, false, half, dout, truth);
    form(device, type, false, half, dout, fused);
    form(device, type, true, half, dout, apart);
    for (int k = 0; k < 3; k++) {
        double ours = 0, theirs = 0;
        for (int i = 0; i < H * (k ? K : Q) * D; i++) {
            ours = fmax(ours, fabs((double)fused[k][i] - (double)truth[k][i]));
            theirs = fmax(theirs, fabs((double)apart[k][i] - (double)truth[k][i]));
        }
        ok(ours <= 3 * theirs && theirs > 0, "%s %s: gradient %d, %.1e against %.1e", device,
           attend_type_name(type), k, ours, theirs);
    }
}

/* ---- memory: arena, scratch of a thread and state of forward plus backward, at S rows and keys
 * ---- */

static int64_t memory_at(const char *device, int64_t n)
{
    attend_graph *g = attend_graph_new(ctx);
    attend_attention_opts o;
    attend_attention_opts_init(&o);
    o.mask.causal = 1;
    o.mask.align = ATTEND_TOP_LEFT;
    attend_tensor in[3], d[3], seed = attend_graph_input(g, "do", ATTEND_F32, S(1, 2, n, 64));
    for (int k = 0; k < 3; k++)
        in[k] =
            attend_graph_input(g, (const char *[]){"q", "k", "v"}[k], ATTEND_F32, S(1, 2, n, 64));
    attend_tensor out = attend_graph_attention(g, in[0], in[1], in[2], &o, NULL);
    if (attend_grad(g, &out, &seed, 1, in, 3, d, NULL) < 0)
        bail("%s", attend_graph_error(g));
    for (int k = 0; k < 3; k++)
        attend_graph_output(g, (const char *[]){"dq", "dk", "dv"}[k], d[k]);
    attend_plan *plan = help_compile(g, device, 1);
    const struct at_variant *v = &plan->variant[0];
    int64_t bytes = v->arena + v->scratch + v->state;
    attend_plan_free(plan);
    attend_graph_free(g);
    return bytes;
}

static void memory(const char *device)
{
    int64_t before = memory_at(device, 4096); /* from here on as many segments as there may be */
    for (int64_t n = 8192; n <= 16384; n *= 2) {
        int64_t now = memory_at(device, n);
        ok(now <= 2 * before, "%s: %lld rows and keys take %lld KiB, half of them %lld", device,
           (long long)n, (long long)(now >> 10), (long long)(before >> 10));
        before = now;
    }
}

int main(void)
{
    attend_device_info info;
    ctx = help_context(2);
    struct check_grads want[AT_LEN(words)];
    for (int w = 0; w < AT_LEN(words); w++)
        check_gradients(ctx, "ref", words[w], &want[w]);
    for (int i = 0; i < attend_device_count(ctx); i++) {
        if (attend_device_get(ctx, i, &info) < 0 || !info.present)
            continue;
        memory(info.name);
        optimiser(info.name, false);
        optimiser(info.name, true);
        for (int w = 0; w < AT_LEN(words) && i > 0; w++)
            check_same_gradients(ctx, info.name, words[w], &want[w]);
        for (int w = 0; w < 4 && i > 0; w++)
            same_bits(info.name, words[w]);
        flash_rule(info.name, ATTEND_F16);
        flash_rule(info.name, ATTEND_BF16);
    }
    for (int w = 0; w < AT_LEN(words); w++)
        check_grads_free(&want[w]);
    attend_ctx_free(ctx);
    return done_testing();
}
