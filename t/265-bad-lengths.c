/* SPDX-License-Identifier: MIT */
/* Lengths, tables and slopes that are wrong when they are bound: each is refused on every device
 * with a sentence that names what and where, nothing is read through it, and good ones do
 * afterwards. */
#include "graph_help.h"

#include <math.h>
#include <string.h>

enum { N = 3, H = 2, D = 8, T = 12, TK = 20, PAGE = 4, PAGES = 3, POOL = 6 };

static float q[T * H * D], k[POOL * H * PAGE * D], o[T * H * D], slopes[H], sinks[H];
static int32_t q_lens[N + 1], kv_lens[N + 1], used[N], table[N * PAGES], off[N];
static uint8_t mask[N * T * TK];

/* What is right. */
static void reset(void)
{
    static const int32_t rows[] = {0, 5, 5, 12}, keys[] = {0, 8, 20, 20}, lengths[] = {8, 12, 0},
                         pages[] = {4, 1, -9, 0, 5, 2, -9, -9, -9};
    memcpy(q_lens, rows, sizeof rows);
    memcpy(kv_lens, keys, sizeof keys);
    memcpy(used, lengths, sizeof lengths);
    memcpy(table, pages, sizeof pages);
    slopes[0] = slopes[1] = sinks[0] = 0.5f;
    sinks[1] = -INFINITY; /* none */
}

static attend_tensor packed(attend_graph *g, attend_attention_opts *a, attend_tensor *tk)
{
    a->q_lens = attend_graph_input(g, "q_lens", ATTEND_I32, ATTEND_SHAPE(N + 1));
    a->kv_lens = attend_graph_input(g, "kv_lens", ATTEND_I32, ATTEND_SHAPE(N + 1));
    a->mask.mask = attend_graph_input(g, "mask", ATTEND_BOOL, ATTEND_SHAPE(N, 1, 7, 12));
    *tk = attend_graph_input(g, "k", ATTEND_F32, ATTEND_SHAPE(TK, H, D));
    return attend_graph_input(g, "q", ATTEND_F32, ATTEND_SHAPE(T, H, D));
}

static attend_tensor paged(attend_graph *g, attend_attention_opts *a, attend_tensor *tk)
{
    a->block_table = attend_graph_input(g, "table", ATTEND_I32, ATTEND_SHAPE(N, PAGES));
    a->mask.kv_used = attend_graph_input(g, "used", ATTEND_I32, ATTEND_SHAPE(N));
    a->mask.q_offset = attend_graph_input(g, "off", ATTEND_I32, ATTEND_SHAPE(N));
    a->mask.causal = 1;
    a->alibi = attend_graph_input(g, "slopes", ATTEND_F32, ATTEND_SHAPE(H));
    a->sinks = attend_graph_input(g, "sinks", ATTEND_F32, ATTEND_SHAPE(H));
    *tk = attend_graph_input(g, "k", ATTEND_F32, ATTEND_SHAPE(POOL, H, PAGE, D));
    return attend_graph_input(g, "q", ATTEND_F32, ATTEND_SHAPE(N, H, T / N, D));
}

static const attend_binding packed_binds[] = {HELP_DATA("q", q),
                                              HELP_DATA("k", k),
                                              HELP_DATA("o", o),
                                              HELP_DATA("q_lens", q_lens),
                                              HELP_DATA("kv_lens", kv_lens),
                                              HELP_DATA("mask", mask)};
static const attend_binding paged_binds[] = {
    HELP_DATA("q", q),           HELP_DATA("k", k),        HELP_DATA("o", o),
    HELP_DATA("table", table),   HELP_DATA("used", used),  HELP_DATA("off", off),
    HELP_DATA("slopes", slopes), HELP_DATA("sinks", sinks)};

static attend_exec *make(attend_ctx *ctx, const char *device, bool pages, attend_plan **plan)
{
    attend_graph *g = attend_graph_new(ctx);
    attend_attention_opts a;
    attend_attention_opts_init(&a);
    attend_exec *e;
    attend_tensor tk, tq = pages ? paged(g, &a, &tk) : packed(g, &a, &tk);
    attend_graph_label(g, "look");
    attend_graph_output(g, "o", attend_graph_attention(g, tq, tk, tk, &a, NULL));
    *plan = help_compile(g, device, 1);
    attend_graph_free(g);
    if (attend_exec_new(*plan, &e) < 0)
        bail("no exec");
    return e;
}

/* With one entry changed, and what is said of it. */
struct wrong {
    bool pages;
    int32_t *entry;
    int32_t value;
    const char *says;
};
static const struct wrong wrongs[] = {
    {false, &q_lens[0],  1,         "attention 'look': q_lens[0] is 1; prefix sums begin with 0"},
    {false, &q_lens[2],  4,         "q_lens[2] is 4, below the 5 before it"                     },
    {false, &q_lens[3],  13,        "q_lens[3] is 13 but there are 12 rows"                     },
    {false, &q_lens[1],  -1,        "q_lens[1] is -1, below the 0 before it"                    },
    {false, &kv_lens[0], -3,        "kv_lens[0] is -3; prefix sums begin with 0"                },
    {false, &kv_lens[3], 19,        "kv_lens[3] is 19, below the 20 before it"                  },
    {false, &kv_lens[3], INT32_MAX, "kv_lens[3] is 2147483647 but there are 20 rows"            },
    {false, &kv_lens[1], 7,
     "axis 3 of the mask, as (B, H, Sq, Skv), has extent 12 but 13 are needed"                  },
    {true,  &used[1],    13,        "kv_used[1] is 13, outside [0, 12]"                         },
    {true,  &used[0],    -1,        "kv_used[0] is -1, outside [0, 12]"                         },
    {true,  &table[0],   POOL,      "block_table[0, 0] is 6, outside the pool of 6 pages"       },
    {true,  &table[4],   -1,        "block_table[1, 1] is -1, outside the pool of 6 pages"      },
    {true,  &table[5],   INT32_MIN, "block_table[1, 2] is -2147483648, outside"                 },
};

static void test_wrong(attend_exec *e, const char *device, const struct wrong *w)
{
    const attend_binding *binds = w->pages ? paged_binds : packed_binds;
    int n = w->pages ? (int)NELEM(paged_binds) : (int)NELEM(packed_binds);
    reset();
    *w->entry = w->value;
    int status = attend_bind(e, binds, n);
    help_holds(status == ATTEND_EINVAL ? attend_exec_error(e) : "taken", w->says, "%s: %s", device,
               w->says);
    ok(attend_run(e) == ATTEND_ESTATE, "%s: and it does not run", device);
    reset();
    ok(attend_bind(e, binds, n) == 0 && attend_run(e) == 0, "%s: what is right does", device);
}

static void test_float(attend_exec *e, const char *device, float *entry, float value,
                       const char *says)
{
    reset();
    *entry = value;
    int status = attend_bind(e, paged_binds, (int)NELEM(paged_binds));
    help_holds(status == ATTEND_EINVAL ? attend_exec_error(e) : "taken", says, "%s: %s", device,
               says);
    reset();
}

static void test_device(attend_ctx *ctx, const char *device)
{
    attend_plan *plan[2];
    attend_exec *e[2];
    for (int pages = 0; pages < 2; pages++)
        e[pages] = make(ctx, device, pages, &plan[pages]);
    for (size_t w = 0; w < NELEM(wrongs); w++)
        test_wrong(e[wrongs[w].pages], device, &wrongs[w]);
    test_float(e[1], device, &slopes[1], NAN, "alibi[1] is nan");
    test_float(e[1], device, &slopes[0], INFINITY, "alibi[0] is inf");
    test_float(e[1], device, &sinks[0], NAN, "sinks[0] is nan");
    test_float(e[1], device, &sinks[1], INFINITY, "sinks[1] is inf");
    reset();
    table[8] = 1000; /* names keys that no row sees */
    ok(attend_bind(e[1], paged_binds, (int)NELEM(paged_binds)) == 0 && attend_run(e[1]) == 0,
       "%s: an entry that nothing needs may be anything", device);
    for (int pages = 0; pages < 2; pages++) {
        attend_exec_free(e[pages]);
        attend_plan_free(plan[pages]);
    }
}

int main(void)
{
    attend_device_info d;
    attend_ctx *ctx = help_context(2);
    uint64_t seed = 1;
    help_normal(&seed, q, T * H * D);
    help_normal(&seed, k, POOL * H * PAGE * D);
    memset(mask, 1, sizeof mask);
    for (int n = 0; n < N; n++)
        off[n] = 20;
    for (int n = 0; attend_device_get(ctx, n, &d) == 0; n++)
        if (d.present)
            test_device(ctx, d.name);
    attend_ctx_free(ctx);
    return done_testing();
}
