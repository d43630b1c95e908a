/* SPDX-License-Identifier: MIT */
/* Rings: a cache of fewer pages than the text has, whose pages come again in the table under a
 * window that has left them.  Positions stay absolute.  Every step equals attention over the whole
 * text in one piece; what no row may see is NaN. */
#include "graph_help.h"

#include <math.h>
#include <string.h>

enum { H = 4, G = 2, D = 16, PAGE = 4, LENGTH = 90, WIDTH = 24, WINDOW = 9, STEP = 3, RING = 4 };

static attend_ctx *ctx;
static float q[H * LENGTH * D], k[G * LENGTH * D], v[G * LENGTH * D], pool[2][RING * G * PAGE * D];
static float want[H * LENGTH * D], o[H * STEP * D], rows[H * STEP * D], slopes[H];
static int32_t table[WIDTH];

static attend_plan *plan_of(const char *device, int64_t n, bool ring)
{
    attend_graph *g = attend_graph_new(ctx);
    attend_attention_opts a;
    attend_attention_opts_init(&a);
    a.mask.causal = 1;
    a.mask.align = ATTEND_BOTTOM_RIGHT;
    a.mask.window_left = WINDOW;
    a.alibi = attend_graph_input(g, "slopes", ATTEND_F32, ATTEND_SHAPE(H));
    attend_shape keys = ATTEND_SHAPE(1, G, LENGTH, D);
    if (ring) {
        keys = ATTEND_SHAPE(RING, G, PAGE, D);
        a.block_table = attend_graph_input(g, "table", ATTEND_I32, ATTEND_SHAPE(1, WIDTH));
        a.mask.kv_used = attend_graph_input(g, "used", ATTEND_I32, ATTEND_SHAPE(1));
    }
    attend_tensor tq = attend_graph_input(g, "q", ATTEND_F32, ATTEND_SHAPE(1, H, n, D)),
                  tk = attend_graph_input(g, "k", ATTEND_F32, keys),
                  tv = attend_graph_input(g, "v", ATTEND_F32, keys);
    attend_graph_output(g, "o", attend_graph_attention(g, tq, tk, tv, &a, NULL));
    attend_plan *plan = help_compile(g, device, 1);
    attend_graph_free(g);
    return plan;
}

static void whole(const char *device)
{
    attend_plan *plan = plan_of(device, LENGTH, false);
    attend_exec *e;
    const attend_binding bind[] = {HELP_DATA("q", q), HELP_DATA("k", k), HELP_DATA("v", v),
                                   HELP_DATA("slopes", slopes), HELP_DATA("o", want)};
    if (attend_exec_new(plan, &e) < 0 || attend_bind(e, bind, 5) < 0 || attend_run(e) < 0)
        bail("%s", attend_exec_error(e));
    attend_exec_free(e);
    attend_plan_free(plan);
}

/* Key j goes to its slot, and the rest of a page that begins is NaN again. */
static void store(int j, int slot)
{
    for (int g = 0; g < G; g++)
        for (int which = 0; which < 2; which++) {
            float *page = pool[which] + ((slot / PAGE) * G + g) * PAGE * D;
            if (slot % PAGE == 0)
                memset(page, 0xff, PAGE * D * sizeof *page);
            memcpy(page + slot % PAGE * D, (which ? v : k) + (g * LENGTH + j) * D,
                   D * sizeof *page);
        }
}

/* Rows [at, at + n) against the ring: how far they are from the whole. */
static double step(attend_exec *e, int at, int n)
{
    double worst = 0;
    int32_t used = at + n;
    for (int h = 0; h < H; h++)
        memcpy(rows + h * n * D, q + (h * LENGTH + at) * D, (size_t)(n * D) * sizeof *q);
    const attend_binding bind[] = {
        HELP_DATA("k", pool[0]),
        HELP_DATA("v", pool[1]),
        HELP_DATA("slopes", slopes),
        HELP_DATA("table", table),
        {.name = "used", .data = &used, .bytes = 4            },
        {.name = "q",    .data = rows,  .bytes = H * n * D * 4},
        {.name = "o",    .data = o,     .bytes = H * n * D * 4}
    };
    if (attend_bind(e, bind, (int)NELEM(bind)) < 0 || attend_run(e) < 0)
        bail("%s", attend_exec_error(e));
    for (int h = 0; h < H; h++)
        for (int c = 0; c < n * D; c++) {
            double d = fabs((double)o[h * n * D + c] - (double)want[(h * LENGTH + at) * D + c]);
            worst = d > worst || isnan(d) ? d : worst;
        }
    return worst;
}

/* The table of a ring by itself: page p of the text is page p % RING of the pool. */
static void test_table(const char *device)
{
    attend_plan *plan = plan_of(device, STEP, true);
    attend_exec *e;
    double worst = 0;
    if (attend_exec_new(plan, &e) < 0)
        bail("no exec");
    memset(pool, 0xff, sizeof pool);
    for (int p = 0; p < WIDTH; p++)
        table[p] = p % RING;
    for (int at = 0; at < LENGTH; at += STEP) {
        for (int j = at; j < at + STEP; j++)
            store(j, j % (RING * PAGE));
        double d = step(e, at, STEP);
        worst = d > worst || isnan(d) ? d : worst;
    }
    /* sums of 10 keys and 16 channels of numbers of up to 3 in f32 */
    ok(worst <= 80 * 3 * 0x1p-24, "%s: %d keys through %d, worst %.2g", device, LENGTH, RING * PAGE,
       worst);
    attend_exec_free(e);
    attend_plan_free(plan);
}

/* The same by attend_kv: pages that the window has left are given back, and come again. */
static void test_forget(const char *device)
{
    attend_plan *plan = plan_of(device, 1, true);
    attend_exec *e;
    attend_kv *kv;
    double worst = 0;
    if (attend_exec_new(plan, &e) < 0 || attend_kv_new(ctx, RING, PAGE, 1, WIDTH, &kv) < 0)
        bail("cannot set up");
    int s = attend_kv_open(kv);
    memset(pool, 0xff, sizeof pool);
    for (int at = 0; at < LENGTH; at++) {
        int32_t slot;
        if (attend_kv_forget(kv, s, at - WINDOW > 0 ? at - WINDOW : 0) < 0 ||
            attend_kv_extend(kv, s, 1, &slot) < 0 || attend_kv_table(kv, s, table) < 0)
            bail("%s", attend_kv_error(kv));
        store(at, slot);
        double d = step(e, at, 1);
        worst = d > worst || isnan(d) ? d : worst;
    }
    is_int(attend_kv_length(kv, s), LENGTH, "%s: positions stay", device);
    ok(worst <= 80 * 3 * 0x1p-24, "%s: with pages given back, worst %.2g", device, worst);
    attend_kv_free(kv);
    attend_exec_free(e);
    attend_plan_free(plan);
}

int main(void)
{
    attend_device_info d;
    uint64_t seed = 5;
    ctx = help_context(1);
    help_normal(&seed, q, H * LENGTH * D);
    help_normal(&seed, k, G * LENGTH * D);
    help_normal(&seed, v, G * LENGTH * D);
    help_normal(&seed, slopes, H);
    for (int n = 0; attend_device_get(ctx, n, &d) == 0; n++)
        if (d.present) {
            whole(d.name);
            test_table(d.name);
            test_forget(d.name);
        }
    attend_ctx_free(ctx);
    return done_testing();
}
