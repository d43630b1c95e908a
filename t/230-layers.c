/* SPDX-License-Identifier: MIT */
/* Attention with its projections around it, against the same put together from small operators. */
#include "graph_help.h"

#include <math.h>

enum { B = 2, NQ = 5, NK = 70, DQ = 12, DK = 9, DV = 7, A = 11 };

static struct tensors {
    float q[B * NQ * DQ], k[B * NK * DK], v[B * NK * DV], wq[A * DQ], wk[A * DK], va[A];
} in;

static struct results {
    float o[B * NQ * DV], lse[B * NQ];
} out[2];

static void run(attend_graph *g, const char *device, int fuse, const attend_binding *bind, int n)
{
    attend_exec *exec;
    attend_plan *plan = help_compile(g, device, fuse);
    if (attend_exec_new(plan, &exec) < 0)
        bail("no exec");
    if (attend_bind(exec, bind, n) < 0 || attend_run(exec) < 0)
        bail("%s", attend_exec_error(exec));
    attend_exec_free(exec);
    attend_plan_free(plan);
    attend_graph_free(g);
}

static double farthest(const float *a, const float *b, int64_t n)
{
    double most = 0;
    for (int64_t i = 0; i < n; i++)
        most = fmax(most, fabs((double)a[i] - (double)b[i]));
    return most;
}

/* va . tanh(wq q + wk k) with all B x Sq x Skv x A in memory, as it is written down. */
static attend_tensor written_down(attend_graph *g, attend_tensor q, attend_tensor k,
                                  attend_tensor v, attend_tensor wq, attend_tensor wk,
                                  attend_tensor va)
{
    q = attend_graph_reshape(g, attend_graph_matmul_nt(g, q, wq), ATTEND_SHAPE(B, NQ, 1, A));
    k = attend_graph_reshape(g, attend_graph_matmul_nt(g, k, wk), ATTEND_SHAPE(B, 1, NK, A));
    attend_tensor e = attend_graph_tanh(g, attend_graph_add(g, q, k));
    e = attend_graph_matmul_nt(g, e, attend_graph_reshape(g, va, ATTEND_SHAPE(1, A)));
    e = attend_graph_reshape(g, e, ATTEND_SHAPE(B, NQ, NK));
    return attend_graph_matmul(g, attend_graph_softmax(g, e), v);
}

static void run_additive(attend_ctx *ctx, const char *device, bool layer, struct results *r)
{
    attend_graph *g = attend_graph_new(ctx);
    attend_tensor lse, q = attend_graph_input(g, "q", ATTEND_F32, ATTEND_SHAPE(B, NQ, DQ)),
                       k = attend_graph_input(g, "k", ATTEND_F32, ATTEND_SHAPE(B, NK, DK)),
                       v = attend_graph_input(g, "v", ATTEND_F32, ATTEND_SHAPE(B, NK, DV)),
                       wq = attend_graph_input(g, "wq", ATTEND_F32, ATTEND_SHAPE(A, DQ)),
                       wk = attend_graph_input(g, "wk", ATTEND_F32, ATTEND_SHAPE(A, DK)),
                       va = attend_graph_input(g, "va", ATTEND_F32, ATTEND_SHAPE(A));
    attend_tensor o = layer ? attend_graph_additive_attention(g, q, k, v, wq, wk, va, NULL, &lse)
                            : written_down(g, q, k, v, wq, wk, va);
    attend_graph_output(g, "o", o);
    if (layer)
        attend_graph_output(g, "lse", lse);
    attend_binding bind[] = {HELP_DATA("q", in.q),   HELP_DATA("k", in.k),
                             HELP_DATA("v", in.v),   HELP_DATA("wq", in.wq),
                             HELP_DATA("wk", in.wk), HELP_DATA("va", in.va),
                             HELP_DATA("o", r->o),   HELP_DATA("lse", r->lse)};
    run(g, device, 1, bind, layer ? 8 : 7);
}

/* A score is off by (A + 32) u sum |va| < 1e-5 here, and O by twice that times the values. */
static void test_additive(attend_ctx *ctx, const char *device)
{
    run_additive(ctx, "ref", false, &out[0]);
    run_additive(ctx, device, true, &out[1]);
    double most = farthest(out[0].o, out[1].o, B * NQ * DV);
    ok(most < 1e-4, "%s: additive attention is what it is written down as (%.2g)", device, most);
}

static void test_refusals(attend_ctx *ctx)
{
    attend_graph *g = attend_graph_new(ctx);
    attend_attention_opts o;
    attend_attention_opts_init(&o);
    o.additive = attend_graph_input(g, "va", ATTEND_F32, ATTEND_SHAPE(A + 1));
    attend_tensor q = attend_graph_input(g, "q", ATTEND_F32, ATTEND_SHAPE(B, 1, NQ, A));
    attend_graph_attention(g, q, q, q, &o, NULL);
    help_holds(attend_graph_error(g), "additive is 12, wants 11", "a vector of another length");
    attend_graph_free(g);
}

int main(void)
{
    uint64_t seed = 230;
    attend_device_info d;
    attend_ctx *ctx = help_context(2);
    help_normal(&seed, in.q, (int64_t)(sizeof in / sizeof(float)));
    for (int i = 0; attend_device_get(ctx, i, &d) == ATTEND_OK; i++)
        if (d.present)
            test_additive(ctx, d.name);
    test_refusals(ctx);
    attend_ctx_free(ctx);
    return done_testing();
}
