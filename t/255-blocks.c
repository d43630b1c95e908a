/* SPDX-License-Identifier: MIT */
/* Block-sparse layouts as an option, against the same as a dense mask; and lists of blocks in an
 * exec: one for each distinct mask and lengths, shared by layers, made anew only when something
 * changed. */
#include "graph_help.h"

#include <string.h>

enum { H = 2, S = 200, D = 16, BLOCKS = 7, ROWS = 32, KEYS = 32 };

static attend_ctx *ctx;
static float q[H * S * D], o[4][H * S * D];
static int32_t doc[S], used[1];
static uint8_t dense[S * S], layout[H * BLOCKS * BLOCKS], wide[H * S * S];

static attend_exec *new_exec(attend_plan *plan)
{
    attend_exec *e;
    if (attend_exec_new(plan, &e) < 0)
        bail("no exec");
    return e;
}

static attend_tensor self(attend_graph *g, attend_tensor x, const attend_attention_opts *a)
{
    return attend_graph_attention(g, x, x, x, a, NULL);
}

/* ---- lists in an exec ---- */

/* Layers a and b have one mask, c has the same and a window, d a dense mask. */
static attend_plan *four_layers(const char *device)
{
    attend_graph *g = attend_graph_new(ctx);
    attend_tensor x = attend_graph_input(g, "q", ATTEND_F32, ATTEND_SHAPE(1, H, S, D));
    attend_attention_opts a, d;
    attend_attention_opts_init(&a);
    attend_attention_opts_init(&d);
    attend_capture capture = {"doc", attend_graph_input(g, "doc", ATTEND_I32, ATTEND_SHAPE(S))};
    a.mask_expr = "doc[i] == doc[j]";
    a.captures = &capture;
    a.ncaptures = 1;
    a.mask.kv_used = attend_graph_input(g, "used", ATTEND_I32, ATTEND_SHAPE(1));
    d.mask.mask = attend_graph_input(g, "mask", ATTEND_BOOL, ATTEND_SHAPE(S, S));
    attend_graph_output(g, "a", self(g, x, &a));
    attend_graph_output(g, "b", self(g, attend_graph_scale(g, x, 2), &a));
    a.mask.window_left = 20;
    a.mask.align = ATTEND_TOP_LEFT;
    attend_graph_output(g, "c", self(g, x, &a));
    attend_graph_output(g, "d", self(g, x, &d));
    attend_plan *plan = help_compile(g, device, 1);
    attend_graph_free(g);
    return plan;
}

/* How many lists a bind makes. */
static int64_t made(attend_exec *e, const attend_binding *binds, int n)
{
    int64_t before = e->schedules;
    if (attend_bind(e, binds, n) < 0)
        bail("%s", attend_exec_error(e));
    return e->schedules - before;
}

static void test_lists(const char *device)
{
    attend_plan *plan = four_layers(device);
    attend_exec *e = new_exec(plan);
    const attend_binding all[] = {HELP_DATA("q", q),       HELP_DATA("doc", doc),
                                  HELP_DATA("used", used), HELP_DATA("mask", dense),
                                  HELP_DATA("a", o[0]),    HELP_DATA("b", o[1]),
                                  HELP_DATA("c", o[2]),    HELP_DATA("d", o[3])};
    static float before[H * S * D];
    for (int i = 0; i < S; i++) {
        doc[i] = i / 70;
        for (int j = 0; j < S; j++)
            dense[i * S + j] = (i / 60 + j / 90) % 2 == 0;
    }
    used[0] = S;
    is_int(made(e, all, (int)NELEM(all)), 4 + 3,
           "%s: work for four layers, and three lists of blocks", device);
    is_int(made(e, all, (int)NELEM(all)), 0, "%s: the same again makes none", device);
    is_int(made(e, NULL, 0), 0, "%s: nor does a bind of nothing", device);
    if (attend_run(e) < 0)
        bail("%s", attend_exec_error(e));
    memcpy(before, o[0], sizeof before);
    for (int i = 0; i < S; i++)
        doc[i] = i / 50;
    is_int(made(e, NULL, 0), 2, "%s: contents that changed in place make two", device);
    if (attend_run(e) < 0)
        bail("%s", attend_exec_error(e));
    ok(memcmp(before, o[0], sizeof before), "%s: which the results show", device);
    dense[S * S - 1] ^= 1;
    is_int(made(e, NULL, 0), 1, "%s: one byte of the dense mask makes one", device);
    used[0] = S - 1;
    is_int(made(e, NULL, 0), 2, "%s: a length makes two", device);
    static int32_t elsewhere[S];
    memcpy(elsewhere, doc, sizeof doc);
    const attend_binding moved = HELP_DATA("doc", elsewhere);
    is_int(made(e, &moved, 1), 0, "%s: an address makes none", device);
    attend_exec_free(e);
    attend_plan_free(plan);
}

/* ---- layouts ---- */

/* Self-attention under a layout, or under a dense mask, with causality, a window and an expression.
 */
static void run_masked(const char *device, bool sparse, float *out)
{
    attend_graph *g = attend_graph_new(ctx);
    attend_tensor x = attend_graph_input(g, "q", ATTEND_F32, ATTEND_SHAPE(1, H, S, D));
    attend_attention_opts a;
    attend_attention_opts_init(&a);
    a.mask.causal = 1;
    a.mask.window_left = 150;
    a.mask_expr = "(i + j) % 7 != 3";
    if (sparse) {
        a.layout = attend_graph_input(g, "m", ATTEND_BOOL, ATTEND_SHAPE(H, BLOCKS, BLOCKS));
        a.layout_rows = ROWS;
        a.layout_keys = KEYS;
    } else {
        a.mask.mask = attend_graph_input(g, "m", ATTEND_BOOL, ATTEND_SHAPE(H, S, S));
    }
    attend_graph_output(g, "o", self(g, x, &a));
    attend_plan *plan = help_compile(g, device, 1);
    attend_exec *e = new_exec(plan);
    const attend_binding bind[] = {
        HELP_DATA("q", q),
        {.name = "m",
                  .data = sparse ? layout : wide,
                  .bytes = sparse ? (int64_t)sizeof layout : (int64_t)sizeof wide},
        {.name = "o", .data = out,       .bytes = sizeof o[0]           }
    };
    if (attend_bind(e, bind, 3) < 0 || attend_run(e) < 0)
        bail("%s", attend_exec_error(e));
    attend_exec_free(e);
    attend_plan_free(plan);
    attend_graph_free(g);
}

static void test_layout(const char *device)
{
    uint64_t seed = 3;
    for (int k = 0; k < H * BLOCKS * BLOCKS; k++)
        layout[k] = help_below(&seed, 3) == 0;
    for (int h = 0; h < H; h++)
        for (int i = 0; i < S; i++)
            for (int j = 0; j < S; j++)
                wide[(h * S + i) * S + j] = layout[(h * BLOCKS + i / ROWS) * BLOCKS + j / KEYS];
    run_masked(device, true, o[0]);
    run_masked(device, false, o[1]);
    is_mem(o[0], o[1], sizeof o[0], "%s: a layout is the same as a dense mask", device);
}

/* ---- what is refused ---- */

static void refuse(attend_type type, attend_shape shape, int64_t rows, const char *says)
{
    attend_graph *g = attend_graph_new(ctx);
    attend_tensor x = attend_graph_input(g, "q", ATTEND_F32, ATTEND_SHAPE(1, H, S, D));
    attend_attention_opts a;
    attend_attention_opts_init(&a);
    a.layout = attend_graph_input(g, "m", type, shape);
    a.layout_rows = rows;
    self(g, x, &a);
    help_holds(attend_graph_error(g), says, "refused: %s", says);
    attend_graph_free(g);
}

static void test_refused(void)
{
    refuse(ATTEND_BOOL, ATTEND_SHAPE(3, 4), 64,
           "the layout is 3 x 4, which are no blocks of 64 rows by 64");
    refuse(ATTEND_BOOL, ATTEND_SHAPE(3, 4, 4), 64, "the layout is 3 x 4 x 4");
    refuse(ATTEND_I32, ATTEND_SHAPE(4, 4), 64, "the layout is i32 with 2 axes");
    refuse(ATTEND_BOOL, ATTEND_SHAPE(4), 64, "bool with 1 axes");
    refuse(ATTEND_BOOL, ATTEND_SHAPE(4, 4), 0, "blocks of the layout are 0 rows by 64 keys");

    attend_graph *g = attend_graph_new(ctx);
    int64_t n = attend_graph_dim(g, "n", 1, S);
    attend_tensor x = attend_graph_input(g, "q", ATTEND_F32, ATTEND_SHAPE(1, H, n, D));
    attend_attention_opts a;
    attend_attention_opts_init(&a);
    a.layout = attend_graph_input(g, "m", ATTEND_BOOL, ATTEND_SHAPE(2, 2));
    attend_graph_output(g, "o", self(g, x, &a));
    attend_plan *plan = help_compile(g, NULL, 1);
    attend_exec *e = new_exec(plan);
    attend_binding bind[] = {HELP_DATA("q", q), HELP_DATA("m", layout), HELP_DATA("o", o[0]),
                             HELP_DIM("n", 129)};
    ok(attend_bind(e, bind, 4) == ATTEND_EINVAL, "a layout that is too small is met in bind");
    help_holds(attend_exec_error(e), "the layout has 2 x 2 blocks, but sequence 0 needs 3 x 3",
               "and it says so");
    bind[3].value = 128;
    is_int(attend_bind(e, bind, 4), 0, "and one that is not, is not");
    attend_exec_free(e);
    attend_plan_free(plan);
    attend_graph_free(g);
}

int main(void)
{
    attend_device_info d;
    uint64_t seed = 1;
    ctx = help_context(2);
    help_normal(&seed, q, H * S * D);
    for (int k = 0; attend_device_get(ctx, k, &d) == 0; k++) {
        if (!d.present)
            continue;
        if (strncmp(d.name, "simd", 4) == 0)
            test_lists(d.name);
        test_layout(d.name);
    }
    test_refused();
    attend_ctx_free(ctx);
    return done_testing();
}
