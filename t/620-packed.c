/* SPDX-License-Identifier: MIT */
/* Packed sequences equal each sequence by itself, dense; and few rows, whose keys are split and
 * merged, equal the last of many rows, which go through all keys in order. */
#include "graph_help.h"

#include <math.h>
#include <string.h>

enum { H = 4, G = 2, D = 16, N = 5, ROWS = 72, KEYS = 92, LONG = 5000, FEW = 2, MANY = 40 };

static const int32_t q_lens[N + 1] = {0, 5, 5, 38, 39, ROWS};
static const int32_t kv_lens[N + 1] = {0, 9, 13, 46, 86, KEYS}; /* the last sees 6 of its 33 rows */

static attend_ctx *ctx;
static float q[ROWS * H * D], k[LONG * G * D], v[LONG * G * D], slopes[H], sinks[H];
static float o[ROWS * H * D], lse[H * ROWS], want[ROWS * H * D], want_lse[H * ROWS];

/* nq rows and nk keys of one sequence; or, where nq is 0, all of them packed.  Either way rows are
 * next to the heads of their neighbours: (S, H, D). */
static attend_plan *plan_of(const char *device, int64_t nq, int64_t nk)
{
    const int swap[] = {0, 2, 1, 3};
    attend_graph *g = attend_graph_new(ctx);
    attend_attention_opts a;
    attend_tensor t[3], l;
    attend_attention_opts_init(&a);
    a.mask.causal = 1;
    a.mask.align = ATTEND_BOTTOM_RIGHT;
    a.mask.window_left = nq == 0 || nk < LONG ? 20 : -1;
    a.softcap = 3;
    a.alibi = attend_graph_input(g, "slopes", ATTEND_F32, ATTEND_SHAPE(H));
    a.sinks = attend_graph_input(g, "sinks", ATTEND_F32, ATTEND_SHAPE(H));
    if (nq == 0) {
        a.q_lens = attend_graph_input(g, "q_lens", ATTEND_I32, ATTEND_SHAPE(N + 1));
        a.kv_lens = attend_graph_input(g, "kv_lens", ATTEND_I32, ATTEND_SHAPE(N + 1));
    }
    for (int i = 0; i < 3; i++) {
        static const char *const name[] = {"q", "k", "v"};
        int64_t heads = i ? G : H, n = i ? nk : nq;
        t[i] = attend_graph_input(g, name[i], ATTEND_F32,
                                  nq == 0 ? ATTEND_SHAPE(i ? KEYS : ROWS, heads, D)
                                          : ATTEND_SHAPE(1, n, heads, D));
        if (nq > 0)
            t[i] = attend_graph_permute(g, t[i], swap);
    }
    attend_tensor out = attend_graph_attention(g, t[0], t[1], t[2], &a, &l);
    attend_graph_output(g, "o", nq ? attend_graph_permute(g, out, swap) : out);
    attend_graph_output(g, "lse", l);
    attend_plan *plan = help_compile(g, device, 1);
    attend_graph_free(g);
    return plan;
}

/* From rows q0 and keys k0 on; lse is (H, rows). */
static void run(const char *device, int64_t nq, int64_t nk, int64_t q0, int64_t k0, float *to,
                float *to_lse)
{
    attend_plan *plan = plan_of(device, nq, nk);
    attend_exec *e;
    int64_t rows = nq ? nq : ROWS, keys = nq ? nk : KEYS;
    const attend_binding bind[] = {
        {.name = "q",       .data = q + q0 * H * D,             .bytes = rows * H * D * 4},
        {.name = "k",       .data = k + k0 * G * D,             .bytes = keys * G * D * 4},
        {.name = "v",       .data = v + k0 * G * D,             .bytes = keys * G * D * 4},
        {.name = "o",       .data = to,                         .bytes = rows * H * D * 4},
        {.name = "lse",     .data = to_lse,                     .bytes = H * rows * 4    },
        HELP_DATA("slopes", slopes),
        HELP_DATA("sinks", sinks),
        {.name = "q_lens",  .data = (void *)(uintptr_t)q_lens,  .bytes = sizeof q_lens   },
        {.name = "kv_lens", .data = (void *)(uintptr_t)kv_lens, .bytes = sizeof kv_lens  },
    };
    if (attend_exec_new(plan, &e) < 0 || attend_bind(e, bind, nq ? 7 : 9) < 0 || attend_run(e) < 0)
        bail("%s", attend_exec_error(e));
    attend_exec_free(e);
    attend_plan_free(plan);
}

static double apart(double worst, double a, double b)
{
    double d = a == b ? 0 : fabs(a - b);
    return d > worst || isnan(d) ? d : worst;
}

/* Weights of at most 21 keys, capped scores of at most 3 plus 20 slopes: 21 u for the sum of
 * weights and of values below 5, and 30 u for each exponent. */
static void test_packed(const char *device)
{
    double worst = 0, worst_lse = 0;
    run(device, 0, 0, 0, 0, o, lse);
    for (int n = 0; n < N; n++) {
        int64_t q0 = q_lens[n], nq = q_lens[n + 1] - q0, nk = kv_lens[n + 1] - kv_lens[n];
        if (nq == 0)
            continue;
        run(device, nq, nk, q0, kv_lens[n], want, want_lse);
        for (int64_t e = 0; e < nq * H * D; e++)
            worst = apart(worst, (double)o[q0 * H * D + e], (double)want[e]);
        for (int h = 0; h < H; h++)
            for (int64_t i = 0; i < nq; i++)
                worst_lse =
                    apart(worst_lse, (double)lse[h * ROWS + q0 + i], (double)want_lse[h * nq + i]);
    }
    ok(worst <= 5 * 100 * 0x1p-24 && worst_lse <= 100 * 0x1p-24,
       "%s: packed is each by itself, worst %.2g, LSE %.2g", device, worst, worst_lse);
}

static void test_split(const char *device)
{
    double worst = 0, worst_lse = 0;
    int64_t skip = MANY - FEW;
    run(device, MANY, LONG, 0, 0, want, want_lse);
    run(device, FEW, LONG, skip, 0, o, lse);
    for (int64_t e = 0; e < FEW * H * D; e++)
        worst = apart(worst, (double)o[e], (double)want[skip * H * D + e]);
    for (int h = 0; h < H; h++)
        for (int64_t i = 0; i < FEW; i++)
            worst_lse =
                apart(worst_lse, (double)lse[h * FEW + i], (double)want_lse[h * MANY + skip + i]);
    /* slopes up to 0.02 over 5,000 keys: exponents up to 100, each to 100 u, both ways */
    ok(worst <= 5 * 2 * 200 * 0x1p-24 && worst_lse <= 2 * 200 * 0x1p-24,
       "%s: few rows are the last of many, worst %.2g, LSE %.2g", device, worst, worst_lse);
}

int main(void)
{
    attend_device_info d;
    uint64_t seed = 6;
    ctx = help_context(2);
    help_normal(&seed, q, ROWS * H * D);
    help_normal(&seed, k, LONG * G * D);
    help_normal(&seed, v, LONG * G * D);
    help_normal(&seed, sinks, H);
    for (int h = 0; h < H; h++)
        slopes[h] = 0.005f * (float)(h + 1);
    for (int n = 0; attend_device_get(ctx, n, &d) == 0; n++)
        if (d.present) {
            test_packed(d.name);
            test_split(d.name);
        }
    attend_ctx_free(ctx);
    return done_testing();
}
