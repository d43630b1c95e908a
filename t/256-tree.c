/* SPDX-License-Identifier: MIT */
/* Drafts of speculative decoding, as a tree behind a cache: each draft sees the cache, its
 * ancestors and itself.  One call over all of them gives each what it has as the last row of its
 * own path. */
#include "graph_help.h"

#include <math.h>
#include <string.h>

enum { H = 4, G = 2, D = 16, CACHE = 70, DRAFTS = 13, KEYS = CACHE + DRAFTS };

static const int parent[DRAFTS] = {-1, 0, 0, 1, 1, 2, 3, 3, 6, -1, 9, 9, 11};
static attend_ctx *ctx;
static float q[H * DRAFTS * D], k[G * KEYS * D], v[G * KEYS * D], o[H * DRAFTS * D];
static uint8_t tree[DRAFTS * DRAFTS], dense[DRAFTS * KEYS];

static void run(attend_graph *g, const char *device, const attend_binding *bind, int n)
{
    attend_exec *e;
    attend_plan *plan = help_compile(g, device, 1);
    if (attend_exec_new(plan, &e) < 0 || attend_bind(e, bind, n) < 0 || attend_run(e) < 0)
        bail("%s", e ? attend_exec_error(e) : "no exec");
    attend_exec_free(e);
    attend_plan_free(plan);
    attend_graph_free(g);
}

static attend_graph *attention(int64_t rows, int64_t keys, attend_attention_opts *a,
                               attend_graph *g)
{
    attend_tensor tq = attend_graph_input(g, "q", ATTEND_F32, ATTEND_SHAPE(1, H, rows, D)),
                  tk = attend_graph_input(g, "k", ATTEND_F32, ATTEND_SHAPE(1, G, keys, D)),
                  tv = attend_graph_input(g, "v", ATTEND_F32, ATTEND_SHAPE(1, G, keys, D));
    attend_graph_output(g, "o", attend_graph_attention(g, tq, tk, tv, a, NULL));
    return g;
}

/* All drafts at once: the tree as an expression over a table of ancestors, or as a dense mask. */
static void run_tree(const char *device, bool expression)
{
    attend_graph *g = attend_graph_new(ctx);
    attend_attention_opts a;
    attend_attention_opts_init(&a);
    attend_capture capture = {"tree", attend_none()};
    if (expression) {
        capture.tensor = attend_graph_input(g, "m", ATTEND_BOOL, ATTEND_SHAPE(DRAFTS, DRAFTS));
        a.mask_expr = "j < skv - sq || tree[i, j - (skv - sq)]";
        a.captures = &capture;
        a.ncaptures = 1;
    } else {
        a.mask.mask = attend_graph_input(g, "m", ATTEND_BOOL, ATTEND_SHAPE(DRAFTS, KEYS));
    }
    const attend_binding bind[] = {
        HELP_DATA("q", q),
        HELP_DATA("k", k),
        HELP_DATA("v", v),
        HELP_DATA("o", o),
        {.name = "m",
                  .data = expression ? tree : dense,
                  .bytes = expression ? (int64_t)sizeof tree : (int64_t)sizeof dense},
    };
    run(attention(DRAFTS, KEYS, &a, g), device, bind, (int)NELEM(bind));
}

/* Draft i after the cache and its ancestors, by the reference: how far the tree's row is from it.
 */
static double path(int i)
{
    static float rows[H * D], keys[2][G * KEYS * D], one[H * D];
    int node[DRAFTS], n = 0;
    double worst = 0;
    for (int at = i; at >= 0; at = parent[at])
        node[n++] = at;
    for (int g = 0; g < G; g++)
        for (int which = 0; which < 2; which++) {
            const float *from = (which ? v : k) + g * KEYS * D;
            float *to = keys[which] + g * (CACHE + n) * D;
            memcpy(to, from, CACHE * D * sizeof *to);
            for (int e = 0; e < n; e++)
                memcpy(to + (CACHE + e) * D, from + (CACHE + node[n - 1 - e]) * D, D * sizeof *to);
        }
    for (int h = 0; h < H; h++)
        memcpy(rows + h * D, q + (h * DRAFTS + i) * D, D * sizeof *q);
    const int64_t bytes = G * (CACHE + n) * D * (int64_t)sizeof *k;
    const attend_binding bind[] = {
        HELP_DATA("q", rows),
        {.name = "k", .data = keys[0], .bytes = bytes},
        {.name = "v", .data = keys[1], .bytes = bytes},
        HELP_DATA("o", one)
    };
    run(attention(1, CACHE + n, NULL, attend_graph_new(ctx)), "ref", bind, (int)NELEM(bind));
    for (int h = 0; h < H; h++)
        for (int d = 0; d < D; d++) {
            double e = fabs((double)o[(h * DRAFTS + i) * D + d] - (double)one[h * D + d]);
            worst = e > worst || isnan(e) ? e : worst;
        }
    return worst;
}

static void test_device(const char *device)
{
    for (int expression = 0; expression < 2; expression++) {
        double worst = 0;
        run_tree(device, expression);
        for (int i = 0; i < DRAFTS; i++) {
            double d = path(i);
            worst = d > worst || isnan(d) ? d : worst;
        }
        /* sums of 83 keys and 16 channels of numbers of up to 3 in f32 */
        ok(worst <= (KEYS + D) * 3 * 0x1p-24, "%s: %d drafts %s, worst %.2g", device, DRAFTS,
           expression ? "by an expression" : "under a dense mask", worst);
    }
}

int main(void)
{
    attend_device_info d;
    uint64_t seed = 9;
    ctx = help_context(1);
    help_normal(&seed, q, H * DRAFTS * D);
    help_normal(&seed, k, G * KEYS * D);
    help_normal(&seed, v, G * KEYS * D);
    for (int i = 0; i < DRAFTS; i++) {
        for (int at = i; at >= 0; at = parent[at])
            tree[i * DRAFTS + at] = 1;
        memset(dense + i * KEYS, 1, CACHE);
        memcpy(dense + i * KEYS + CACHE, tree + i * DRAFTS, DRAFTS);
    }
    for (int n = 0; attend_device_get(ctx, n, &d) == 0; n++)
        if (d.present)
            test_device(d.name);
    attend_ctx_free(ctx);
    return done_testing();
}
