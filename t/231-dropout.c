/* SPDX-License-Identifier: MIT */
/* Dropout: the random words are Philox's, and each device drops the very weights that they say, in
 * both shapes of the kernels, at any split.  With the unit matrix as V, O is the weights. */
#include "graph_help.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { B = 2, H = 4, G = 2, D = 8, MOST_ROWS = 70, MOST_KEYS = 300 };

/* Known answers of Random123, kat_vectors: philox4x32 10. */
static void test_known(void)
{
    static const struct {
        uint64_t key;
        uint32_t counter[4], want[4];
    } known[] = {
        {0,                  {0, 0, 0, 0},                 {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {UINT64_MAX,
         {UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}                                                  },
        {0x299f31d0a4093822,
         {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}                                                  },
    };
    for (size_t n = 0; n < NELEM(known); n++) {
        uint32_t c[4][AT_PHILOX_LANES] = {{0}};
        for (int w = 0; w < 4; w++)
            c[w][AT_PHILOX_LANES - 1] = known[n].counter[w];
        at_philox(known[n].key, c, AT_PHILOX_LANES);
        bool good = true;
        for (int w = 0; w < 4; w++)
            good = good && c[w][AT_PHILOX_LANES - 1] == known[n].want[w];
        ok(good, "philox 4x32-10, known answer %d", (int)n);
    }
}

static struct {
    float q[B * H * MOST_ROWS * D], k[B * G * MOST_KEYS * D];
    float v[B * G * MOST_KEYS * MOST_KEYS], o[B * H * MOST_ROWS * MOST_KEYS];
    float lse[2][B * H * MOST_ROWS];
} m;

static void run(attend_ctx *ctx, const char *device, int64_t nq, int64_t nk, float dropout,
                float *lse)
{
    attend_exec *exec;
    attend_attention_opts opts;
    attend_attention_opts_init(&opts);
    opts.dropout = dropout;
    opts.seed = 0xfedcba9876543210;
    opts.offset = 9;
    attend_graph *g = attend_graph_new(ctx);
    attend_tensor l, q = attend_graph_input(g, "q", ATTEND_F32, ATTEND_SHAPE(B, H, nq, D)),
                     k = attend_graph_input(g, "k", ATTEND_F32, ATTEND_SHAPE(B, G, nk, D)),
                     v = attend_graph_input(g, "v", ATTEND_F32, ATTEND_SHAPE(B, G, nk, nk));
    attend_graph_output(g, "o", attend_graph_attention(g, q, k, v, &opts, &l));
    attend_graph_output(g, "lse", l);
    attend_plan *plan = help_compile(g, device, 1);
    attend_binding bind[] = {
        HELP_DATA("q", m.q),
        HELP_DATA("k", m.k),
        HELP_DATA("v", m.v),
        HELP_DATA("o", m.o),
        {"lse", lse, sizeof m.lse[0], NULL, 0, 0}
    };
    if (attend_exec_new(plan, &exec) < 0)
        bail("no exec");
    if (attend_bind(exec, bind, NELEM(bind)) < 0 || attend_run(exec) < 0)
        bail("%s", attend_exec_error(exec));
    attend_exec_free(exec);
    attend_plan_free(plan);
    attend_graph_free(g);
}

static void unit_values(int64_t nk)
{
    memset(m.v, 0, sizeof m.v);
    for (int64_t b = 0; b < B * G; b++)
        for (int64_t j = 0; j < nk; j++)
            m.v[(b * nk + j) * nk + j] = 1;
}

/* Is weight (bh, i, j) dropped?  As the manual says it, one word at a time. */
static bool dropped(uint32_t bh, uint32_t i, uint32_t j, double p)
{
    uint32_t c[4][AT_PHILOX_LANES] = {{j / 4}, {i}, {bh}, {9}};
    at_philox(0xfedcba9876543210, c, 1);
    return c[j % 4][0] < (uint32_t)(p * 4294967296.0);
}

/* A draw that is bound is added to the offset: the bits are those of the sum, and a plan that was
 * compiled once has them anew after a bind. */
static void test_draw(attend_ctx *ctx, const char *device)
{
    static float grad[2][3][B * H * 20 * D], seed[B * H * 20 * D];
    attend_attention_opts opts;
    int32_t draw[1] = {0};
    uint64_t random = 3;
    help_normal(&random, seed, (int64_t)NELEM(seed));
    for (int bound = 0; bound < 2; bound++) {
        attend_exec *exec;
        attend_graph *g = attend_graph_new(ctx);
        attend_tensor in[3], d[3], out;
        attend_attention_opts_init(&opts);
        opts.dropout = 0.5f;
        opts.seed = 77;
        opts.offset = bound ? 3 : 12;
        if (bound)
            opts.draw = attend_graph_input(g, "draw", ATTEND_I32, ATTEND_SHAPE(1));
        for (int k = 0; k < 3; k++)
            in[k] = attend_graph_input(g, (const char *[]){"q", "k", "v"}[k], ATTEND_F32,
                                       ATTEND_SHAPE(B, H, 20, D));
        out = attend_graph_attention(g, in[0], in[1], in[2], &opts, NULL);
        attend_tensor s = attend_graph_input(g, "s", ATTEND_F32, ATTEND_SHAPE(B, H, 20, D));
        if (attend_grad(g, &out, &s, 1, in, 3, d, NULL) < 0)
            bail("%s", attend_graph_error(g));
        for (int k = 0; k < 3; k++)
            attend_graph_output(g, (const char *[]){"dq", "dk", "dv"}[k], d[k]);
        attend_plan *plan = help_compile(g, device, 1);
        attend_binding bind[] = {
            {"q",    m.q,            sizeof seed, NULL, 0, 0},
            {"k",    m.k,            sizeof seed, NULL, 0, 0},
            {"v",    m.q,            sizeof seed, NULL, 0, 0},
            {"s",    seed,           sizeof seed, NULL, 0, 0},
            {"dq",   grad[bound][0], sizeof seed, NULL, 0, 0},
            {"dk",   grad[bound][1], sizeof seed, NULL, 0, 0},
            {"dv",   grad[bound][2], sizeof seed, NULL, 0, 0},
            {"draw", draw,           sizeof draw, NULL, 0, 0}
        };
        if (attend_exec_new(plan, &exec) < 0 || attend_bind(exec, bind, 7 + bound) < 0 ||
            attend_run(exec) < 0)
            bail("%s", attend_exec_error(exec));
        if (bound) {
            ok(memcmp(grad[0], grad[1], sizeof grad[0]) != 0, "%s: draw 0 is another", device);
            draw[0] = 9;
            if (attend_bind(exec, NULL, 0) < 0 || attend_run(exec) < 0)
                bail("%s", attend_exec_error(exec));
        }
        attend_exec_free(exec);
        attend_plan_free(plan);
        attend_graph_free(g);
    }
    ok(memcmp(grad[0], grad[1], sizeof grad[0]) == 0,
       "%s: offset 3 and draw 9 are offset 12, to the last bit of gradients", device);
}

static void test_device(attend_ctx *ctx, const char *device, int64_t nq, int64_t nk)
{
    int64_t wrong = 0, zeros = 0, all = B * H * nq * nk;
    unit_values(nk);
    run(ctx, device, nq, nk, 0.25f, m.lse[0]);
    for (int64_t n = 0; n < all; n++) {
        int64_t j = n % nk, i = n / nk % nq, bh = n / nk / nq;
        wrong += dropped((uint32_t)bh, (uint32_t)i, (uint32_t)j, 0.25) != (m.o[n] == 0);
        zeros += m.o[n] == 0;
    }
    ok(wrong == 0, "%s, %d rows, %d keys: the weights that are 0 are those of Philox", device,
       (int)nq, (int)nk);
    double deviation = sqrt(0.25 * 0.75 * (double)all);
    ok(fabs((double)zeros - 0.25 * (double)all) < 6 * deviation, "a quarter of them: %d of %d",
       (int)zeros, (int)all);
    run(ctx, device, nq, nk, 0, m.lse[1]);
    ok(memcmp(m.lse[0], m.lse[1], (size_t)(B * H * nq) * sizeof(float)) == 0,
       "LSE knows nothing of it");
}

int main(void)
{
    uint64_t seed = 240;
    attend_device_info d;
    attend_ctx *ctx = help_context(2);
    test_known();
    help_normal(&seed, m.q, (int64_t)NELEM(m.q));
    help_normal(&seed, m.k, (int64_t)NELEM(m.k));
    for (int i = 0; attend_device_get(ctx, i, &d) == ATTEND_OK; i++)
        if (d.present) {
            test_device(ctx, d.name, MOST_ROWS, MOST_KEYS);
            test_device(ctx, d.name, 1, MOST_KEYS - 1);
            test_draw(ctx, d.name);
        }
    attend_ctx_free(ctx);
    return done_testing();
}
