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

/* ---- multi-head ---- */

enum { E = 12, H = 4, G = 2, D = 3, EC = 10, EO = 8 };

static struct {
    float x[B * NQ * E], c[B * NK * EC];
    float wq[H * D * E], wk[G * D * EC], wv[G * D * EC], bq[H * D], bk[G * D], bv[G * D];
    float wqkv[(H + 2 * G) * D * E], bqkv[(H + 2 * G) * D], wo[EO * H * D], bo[EO];
} mh;

/* Row `row` of w times x, and the bias. */
static double projected(const float *w, const float *b, int64_t row, const float *x, int64_t n)
{
    double sum = (double)b[row];
    for (int64_t e = 0; e < n; e++)
        sum += (double)w[row * n + e] * (double)x[e];
    return sum;
}

/* Head h of one row of x over nk rows of c, causal where `seen` says how many are visible. */
static void one_head_row(const float *const w[3], const float *const b[3], int64_t h,
                         const float *x, int64_t e, const float *c, int64_t ec, int64_t seen,
                         double *o)
{
    double p[NK], sum = 0;
    for (int64_t j = 0; j < seen; j++) {
        p[j] = 0;
        for (int64_t d = 0; d < D; d++)
            p[j] += projected(w[0], b[0], h * D + d, x, e) *
                    projected(w[1], b[1], h / (H / G) * D + d, c + j * ec, ec);
        p[j] = exp(p[j] / sqrt(D));
        sum += p[j];
    }
    for (int64_t d = 0; d < D; d++) {
        o[d] = 0;
        for (int64_t j = 0; j < seen; j++)
            o[d] += p[j] / sum * projected(w[2], b[2], h / (H / G) * D + d, c + j * ec, ec);
    }
}

static void written_layer(bool fused, float *out_rows)
{
    const float *w[3] = {mh.wq, mh.wk, mh.wv}, *b[3] = {mh.bq, mh.bk, mh.bv};
    const float *wf[3] = {mh.wqkv, mh.wqkv + H * D * E, mh.wqkv + (H + G) * D * E};
    const float *bf[3] = {mh.bqkv, mh.bqkv + H * D, mh.bqkv + (H + G) * D};
    for (int64_t r = 0; r < B * NQ; r++) {
        double o[H * D];
        int64_t n = r / NQ, i = r % NQ;
        for (int64_t h = 0; h < H; h++)
            if (fused)
                one_head_row(wf, bf, h, mh.x + r * E, E, mh.x + n * NQ * E, E, i + 1, o + h * D);
            else
                one_head_row(w, b, h, mh.x + r * E, E, mh.c + n * NK * EC, EC, NK, o + h * D);
        for (int64_t e = 0; e < EO; e++) {
            double sum = (double)mh.bo[e];
            for (int64_t d = 0; d < H * D; d++)
                sum += (double)mh.wo[e * H * D + d] * o[d];
            out_rows[r * EO + e] = (float)sum;
        }
    }
}

static attend_tensor weight(attend_graph *g, const char *name, int64_t rows, int64_t cols,
                            const float *data)
{
    attend_shape s = ATTEND_SHAPE(rows, cols);
    s.rank = cols > 0 ? 2 : 1;
    return attend_graph_const(g, name, ATTEND_F32, s, data,
                              rows * at_max(cols, 1) * (int64_t)sizeof(float));
}

static void run_layer(attend_ctx *ctx, const char *device, bool fused, float *out_rows)
{
    attend_graph *g = attend_graph_new(ctx);
    attend_attention_opts a;
    attend_multi_head_opts o;
    attend_attention_opts_init(&a);
    attend_multi_head_opts_init(&o);
    a.mask.causal = fused;
    a.mask.align = ATTEND_TOP_LEFT;
    o.attention = &a;
    o.heads = H;
    o.kv_heads = G;
    attend_tensor x = attend_graph_input(g, "x", ATTEND_F32, ATTEND_SHAPE(B, NQ, E)),
                  c = attend_none();
    if (fused) {
        o.wqkv = weight(g, "wqkv", (H + 2 * G) * D, E, mh.wqkv);
        o.bqkv = weight(g, "bqkv", (H + 2 * G) * D, 0, mh.bqkv);
    } else {
        c = attend_graph_input(g, "c", ATTEND_F32, ATTEND_SHAPE(B, NK, EC));
        o.wq = weight(g, "wq", H * D, E, mh.wq);
        o.wk = weight(g, "wk", G * D, EC, mh.wk);
        o.wv = weight(g, "wv", G * D, EC, mh.wv);
        o.bq = weight(g, "bq", H * D, 0, mh.bq);
        o.bk = weight(g, "bk", G * D, 0, mh.bk);
        o.bv = weight(g, "bv", G * D, 0, mh.bv);
    }
    o.wo = weight(g, "wo", EO, H * D, mh.wo);
    o.bo = weight(g, "bo", EO, 0, mh.bo);
    attend_graph_output(g, "y", attend_graph_multi_head(g, x, c, &o, NULL));
    attend_binding bind[] = {
        HELP_DATA("x", mh.x),
        {.name = "y", .data = out_rows, .bytes = B * NQ * EO * sizeof(float)},
        HELP_DATA("c", mh.c)
    };
    run(g, device, 1, bind, fused ? 2 : 3);
}

static void test_multi_head(attend_ctx *ctx, const char *device)
{
    float want[B * NQ * EO], got[B * NQ * EO];
    for (int fused = 0; fused < 2; fused++) {
        written_layer(fused, want);
        run_layer(ctx, device, fused, got);
        double most = farthest(want, got, B * NQ * EO);
        ok(most < 1e-4, "%s: multi-head attention, %s (%.2g)", device,
           fused ? "of itself, one projection, causal" : "of a context, three projections", most);
    }
}

static void test_wrong_heads(attend_ctx *ctx)
{
    attend_graph *g = attend_graph_new(ctx);
    attend_multi_head_opts o;
    attend_multi_head_opts_init(&o);
    o.heads = 5;
    o.wqkv = weight(g, "wqkv", (H + 2 * G) * D, E, mh.wqkv);
    attend_graph_multi_head(g, attend_graph_input(g, "x", ATTEND_F32, ATTEND_SHAPE(B, NQ, E)),
                            attend_none(), &o, NULL);
    help_holds(attend_graph_error(g), "wqkv has 24 rows, not those of 15 heads",
               "rows for other heads");
    attend_graph_free(g);
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
    float *all = (float *)&mh;
    help_normal(&seed, all, (int64_t)(sizeof mh / sizeof *all));
    for (size_t n = 0; n < sizeof mh / sizeof *all; n++) /* weights: scores of a few units */
        all[n] *= n < B * NQ * E + B * NK * EC ? 1 : 0.4f;
    for (int i = 0; attend_device_get(ctx, i, &d) == ATTEND_OK; i++)
        if (d.present) {
            test_additive(ctx, d.name);
            test_multi_head(ctx, d.name);
        }
    test_refusals(ctx);
    test_wrong_heads(ctx);
    attend_ctx_free(ctx);
    return done_testing();
}
