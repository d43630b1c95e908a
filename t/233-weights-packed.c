/* SPDX-License-Identifier: MIT */
/* Attention weights of packed sequences, in every mode, on each device: what the reference gives
 * for each sequence by itself, at its rows and keys, and 0 elsewhere.  Keys are packed, too, or in
 * pages.
 *
 * |scale q k| is at most LARGEST, so a weight is off by at most a factor within exp(+-BOUND) (see
 * t/232-weights.c).  An argument "few" asks for short sequences, for slow checkers. */
#include "graph_help.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    N = 4,
    H = 4,
    G = 2,
    D = 16,
    T = 60,
    TK = 300,
    PAGE = 16,
    PAGES = 10,
    FIRST = 11,
    END = 41,
    K = 6
};
enum { ROWS = 3, COLS = 5 };
#define LARGEST 40.0
#define BOUND (4 * (D + 14) * LARGEST * 0x1p-24)

static int32_t q_lens[N + 1] = {0, 21, 21, 38, 57}, kv_lens[N + 1] = {0, 120, 150, 150, 297},
                          used[N] = {100, 30, 0, 147};
static float q[T * H * D], k[TK * G * D], pool[N * PAGES * G * PAGE * D];
static int32_t table[N * PAGES];
static attend_ctx *ctx;

struct results {
    float dense[H * T * TK], rows[H * (END - FIRST) * TK], columns[N * H * TK], top[H * T * K],
        pool[N * H * ROWS * COLS];
    int32_t index[H * T * K];
};
static struct results got, one;

static const char *const outputs[] = {"dense", "rows", "columns", "top", "pool"};

static void keep(attend_graph *g, attend_tensor tq, attend_tensor tk, attend_tensor lse,
                 const attend_attention_opts *o, int64_t first, int64_t end)
{
    static const attend_weights_mode modes[] = {ATTEND_WEIGHTS_DENSE, ATTEND_WEIGHTS_ROWS,
                                                ATTEND_WEIGHTS_COLUMNS, ATTEND_WEIGHTS_TOPK,
                                                ATTEND_WEIGHTS_POOL};
    for (size_t m = 0; m < NELEM(modes); m++) {
        attend_tensor index;
        attend_weights_opts w;
        attend_weights_opts_init(&w);
        w.mode = modes[m];
        w.first = first;
        w.end = end;
        w.k = K;
        w.rows = ROWS;
        w.cols = COLS;
        attend_graph_output(g, outputs[m],
                            attend_graph_attention_weights(g, tq, tk, lse, o, &w, &index));
        if (index.graph)
            attend_graph_output(g, "index", index);
    }
}

static void run(attend_graph *g, const char *device, attend_binding *bind, int n, struct results *r)
{
    attend_exec *e;
    attend_plan *plan = help_compile(g, device, 1);
    const attend_binding out[] = {HELP_DATA("dense", r->dense),     HELP_DATA("rows", r->rows),
                                  HELP_DATA("columns", r->columns), HELP_DATA("top", r->top),
                                  HELP_DATA("pool", r->pool),       HELP_DATA("index", r->index)};
    memset(r, 0xff, sizeof *r);
    memcpy(bind + n, out, sizeof out);
    if (attend_exec_new(plan, &e) < 0 || attend_bind(e, bind, n + (int)NELEM(out)) < 0 ||
        attend_run(e) < 0)
        bail("%s", e ? attend_exec_error(e) : "no exec");
    attend_exec_free(e);
    attend_plan_free(plan);
    attend_graph_free(g);
}

static void options(attend_attention_opts *o)
{
    attend_attention_opts_init(o);
    o->mask.causal = 1;
    o->mask.align = ATTEND_BOTTOM_RIGHT;
    o->mask_expr = "(i + j) % 5 != 1 && j / 64 != 1";
}

static void run_packed(const char *device, bool paged)
{
    attend_graph *g = attend_graph_new(ctx);
    attend_attention_opts o;
    attend_tensor lse, tq = attend_graph_input(g, "q", ATTEND_F32, ATTEND_SHAPE(T, H, D)),
                       tk = attend_graph_input(g, "k", ATTEND_F32,
                                               paged ? ATTEND_SHAPE(N * PAGES, G, PAGE, D)
                                                     : ATTEND_SHAPE(TK, G, D));
    options(&o);
    o.q_lens = attend_graph_input(g, "q_lens", ATTEND_I32, ATTEND_SHAPE(N + 1));
    if (paged) {
        o.block_table = attend_graph_input(g, "table", ATTEND_I32, ATTEND_SHAPE(N, PAGES));
        o.mask.kv_used = attend_graph_input(g, "used", ATTEND_I32, ATTEND_SHAPE(N));
    } else {
        o.kv_lens = attend_graph_input(g, "kv_lens", ATTEND_I32, ATTEND_SHAPE(N + 1));
    }
    attend_graph_attention(g, tq, tk, tk, &o, &lse);
    keep(g, tq, tk, lse, &o, FIRST, END);
    attend_binding bind[16] = {HELP_DATA("q", q), HELP_DATA("q_lens", q_lens)};
    if (paged) {
        bind[2] = (attend_binding)HELP_DATA("k", pool);
        bind[3] = (attend_binding)HELP_DATA("table", table);
        bind[4] = (attend_binding)HELP_DATA("used", used);
    } else {
        bind[2] = (attend_binding)HELP_DATA("k", k);
        bind[3] = (attend_binding)HELP_DATA("kv_lens", kv_lens);
    }
    run(g, device, bind, paged ? 5 : 4, &got);
}

/* Sequence n by itself, on the reference: its keys are the first nk of its part of k. */
static void run_one(int n, int64_t nq, int64_t nk)
{
    attend_graph *g = attend_graph_new(ctx);
    attend_attention_opts o;
    const int64_t q_stride[] = {T * H * D, D, H * D, 1}, k_stride[] = {TK * G * D, D, G * D, 1};
    attend_tensor lse, tq = attend_graph_input(g, "q", ATTEND_F32, ATTEND_SHAPE(1, H, nq, D)),
                       tk = attend_graph_input(g, "k", ATTEND_F32, ATTEND_SHAPE(1, G, nk, D));
    options(&o);
    attend_graph_attention(g, tq, tk, tk, &o, &lse);
    keep(g, tq, tk, lse, &o, 0, nq);
    attend_binding bind[16] = {
        {.name = "q", .data = q + q_lens[n] * H * D,  .bytes = nq * H * D * 4, .stride = q_stride},
        {.name = "k", .data = k + kv_lens[n] * G * D, .bytes = nk * G * D * 4, .stride = k_stride}
    };
    run(g, "ref", bind, 2, &one);
}

/* ---- comparison ---- */

static int wrong;
static void near(const char *what, int64_t at, float x, float y)
{
    if (!(fabs((double)x - (double)y) <= expm1(BOUND) * fabs((double)y)) && wrong++ < 3)
        diag("%s %d: got %g, want %g", what, (int)at, (double)x, (double)y);
}

/* All that sequence n has; keys begin at k0 in results whose rows have `keys` of them. */
static void compare(int n, int64_t k0, int64_t keys, bool paged)
{
    int64_t nq = q_lens[n + 1] - q_lens[n], nk = paged ? used[n] : kv_lens[n + 1] - kv_lens[n];
    run_one(n, nq, nk);
    for (int64_t h = 0; h < H; h++) {
        for (int64_t i = 0; i < nq; i++) {
            int64_t t = q_lens[n] + i;
            for (int64_t j = 0; j < keys; j++) {
                bool own = j >= k0 && j < k0 + nk;
                float w = own ? one.dense[(h * nq + i) * nk + j - k0] : 0;
                near("dense", t, got.dense[(h * T + t) * keys + j], w);
                if (t >= FIRST && t < END)
                    near("rows", t, got.rows[(h * (END - FIRST) + t - FIRST) * keys + j], w);
            }
            for (int64_t e = 0; e < K; e++) {
                int32_t key = one.index[(h * nq + i) * K + e];
                near("top", t, got.top[(h * T + t) * K + e], one.top[(h * nq + i) * K + e]);
                near("index", t, (float)got.index[(h * T + t) * K + e],
                     (float)(key < 0 ? -1 : k0 + key));
            }
        }
        for (int64_t j = 0; j < nk; j++)
            near("columns", j, got.columns[paged ? (n * H + h) * keys + j : h * keys + k0 + j],
                 one.columns[h * nk + j]);
        for (int64_t c = 0; c < ROWS * COLS; c++)
            near("pool", c, got.pool[(n * H + h) * ROWS * COLS + c], one.pool[h * ROWS * COLS + c]);
    }
}

/* Rows after the last sequence, and keys that no row sees. */
static void compare_rest(int64_t keys, bool paged)
{
    for (int64_t h = 0; h < H; h++) {
        for (int64_t t = q_lens[N]; t < T; t++) {
            for (int64_t j = 0; j < keys; j++)
                near("dense past the end", t, got.dense[(h * T + t) * keys + j], 0);
            for (int64_t e = 0; e < K; e++)
                near("index past the end", t, (float)got.index[(h * T + t) * K + e], -1);
        }
        for (int64_t j = kv_lens[N]; j < keys && !paged; j++)
            near("columns past the end", j, got.columns[h * keys + j], 0);
        for (int n = 0; n < N && paged; n++)
            for (int64_t j = used[n]; j < keys; j++)
                near("columns past the used length", j, got.columns[(n * H + h) * keys + j], 0);
    }
}

static void test(const char *device, bool paged)
{
    int64_t keys = paged ? PAGES * PAGE : TK;
    wrong = 0;
    run_packed(device, paged);
    for (int n = 0; n < N; n++)
        compare(n, paged ? 0 : kv_lens[n], keys, paged);
    compare_rest(keys, paged);
    is_int(wrong, 0, "%s: weights of packed rows%s", device, paged ? " over pages" : "");
}

/* The keys in use of each sequence, in pages in another order; NaN everywhere else. */
static void fill_pages(void)
{
    memset(pool, 0xff, sizeof pool);
    for (int n = 0; n < N; n++)
        for (int e = 0; e < PAGES; e++) {
            int page = ((n * PAGES + e) * 7 + 3) % (N * PAGES);
            table[n * PAGES + e] = page;
            for (int g = 0; g < G; g++)
                for (int r = 0; r < PAGE && e * PAGE + r < used[n]; r++)
                    memcpy(pool + ((page * G + g) * PAGE + r) * D,
                           k + ((kv_lens[n] + e * PAGE + r) * G + g) * D, D * sizeof *k);
        }
}

static void shorten(void)
{
    static const int32_t q_few[] = {0, 2, 2, 14, 16}, kv_few[] = {0, 20, 25, 25, 42},
                         used_few[] = {15, 5, 0, 17};
    memcpy(q_lens, q_few, sizeof q_lens);
    memcpy(kv_lens, kv_few, sizeof kv_lens);
    memcpy(used, used_few, sizeof used);
}

int main(int argc, char **argv)
{
    attend_device_info d;
    if (argc > 1 && !strcmp(argv[1], "few"))
        shorten();
    uint64_t seed = 11;
    ctx = help_context(2);
    help_normal(&seed, q, T * H * D);
    help_normal(&seed, k, TK * G * D);
    fill_pages();
    for (int n = 0; attend_device_get(ctx, n, &d) == 0; n++)
        for (int paged = 0; d.present && paged < 2; paged++)
            test(d.name, paged);
    attend_ctx_free(ctx);
    return done_testing();
}
