/* SPDX-License-Identifier: MIT */
/* Attention weights: what each mode keeps, on each device, is what the dense weights of the
 * reference give; rows sum to 1, hidden keys have none, equal ones come by their key.
 *
 * A score is off by at most (D + 14) u scale |q| |k| on either side, LSE by as much; so a weight,
 * with scale |q| |k| <= LARGEST, by a factor within exp(+-BOUND).  Where rows divide by their own
 * sums these are 1 to the rounding of a sum, however large scores are. */
#include "graph_help.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { B = 2, H = 6, NQ = 37, NK = 250, D = 16, PAGE = 16, PAGES = 16, K = 9, FIRST = 5, END = 20 };
enum { ROWS = 5, COLS = 7 };
#define LARGEST 80.0
#define TIMES 120 /* LARGEST, where scores are huge */
#define BOUND (4 * (D + 14) * LARGEST * 0x1p-24)
#define OWN_SUM ((2 * ALL_KEYS + 32) * 0x1p-24)

static const struct config {
    const char *name;
    int64_t groups;
    bool causal, window, mask, bias, sinks, alibi, softcap, used, paged, additive, equal, expr,
        huge;
} configs[] = {
  /* clang-format off */
    {.name = "plain", .groups = H},
    {.name = "causal, sinks, slopes", .groups = 2, .causal = true, .sinks = true, .alibi = true},
    {.name = "mask, softcap", .groups = 3, .mask = true, .softcap = true},
    {.name = "used, window, bias", .groups = 1, .used = true, .window = true, .bias = true},
    {.name = "pages", .groups = 2, .used = true, .paged = true, .causal = true},
    {.name = "expressions", .groups = 3, .expr = true},
    {.name = "additive", .groups = H, .additive = true, .mask = true},
    {.name = "huge scores", .groups = 2, .sinks = true, .huge = true},
    {.name = "equal scores", .groups = 2, .mask = true, .equal = true},
  /* clang-format on */
};

static struct {
    float q[B * H * NQ * D], k[B * H * PAGES * PAGE * D], bias[NQ * NK], slopes[H], sinks[H], va[D];
    uint8_t mask[B * NQ * NK];
    int32_t used[B], table[B * PAGES];
} in;

enum { ALL_KEYS = PAGES * PAGE };

static struct results {
    float o[B * H * NQ * D], lse[B * H * NQ], dense[B * H * NQ * ALL_KEYS];
    float rows[B * H * (END - FIRST) * ALL_KEYS], columns[B * H * ALL_KEYS];
    float top[B * H * NQ * K], best[B * H * NQ], pool[B * H * ROWS * COLS];
    int32_t index[B * H * NQ * K];
} want, got;
static bool own; /* rows divide by their own sums */

static int64_t keys_of(const struct config *c)
{
    return c->paged ? ALL_KEYS : NK;
}

static attend_tensor input(attend_graph *g, bool given, const char *name, attend_type type,
                           attend_shape shape)
{
    return given ? attend_graph_input(g, name, type, shape) : attend_none();
}

static attend_attention_opts options(attend_graph *g, const struct config *c)
{
    attend_attention_opts o;
    attend_attention_opts_init(&o);
    o.mask.causal = c->causal;
    o.mask.align = ATTEND_BOTTOM_RIGHT;
    o.mask.window_left = c->window ? 40 : -1;
    o.softcap = c->softcap ? 2 : 0;
    o.score = c->expr ? "score * 0.5 - 0.01 * abs(i - j)" : NULL;
    o.mask_expr = c->expr ? "j % 3 != i % 2" : NULL;
    o.mask.mask = c->mask ? input(g, true, "mask", ATTEND_BOOL, ATTEND_SHAPE(B, 1, NQ, NK))
                          : input(g, c->bias, "bias", ATTEND_F32, ATTEND_SHAPE(NQ, NK));
    o.mask.kv_used = input(g, c->used, "used", ATTEND_I32, ATTEND_SHAPE(B));
    o.block_table = input(g, c->paged, "table", ATTEND_I32, ATTEND_SHAPE(B, PAGES));
    o.alibi = input(g, c->alibi, "slopes", ATTEND_F32, ATTEND_SHAPE(H));
    o.sinks = input(g, c->sinks, "sinks", ATTEND_F32, ATTEND_SHAPE(H));
    o.additive = input(g, c->additive, "va", ATTEND_F32, ATTEND_SHAPE(D));
    return o;
}

static void keep(attend_graph *g, attend_tensor q, attend_tensor k, attend_tensor lse,
                 const attend_attention_opts *o, attend_weights_mode mode, const char *name)
{
    attend_tensor index;
    attend_weights_opts w;
    attend_weights_opts_init(&w);
    w.mode = mode;
    w.first = FIRST;
    w.end = END;
    w.k = K;
    w.rows = ROWS;
    w.cols = COLS;
    if (own)
        lse = attend_none();
    attend_graph_output(g, name, attend_graph_attention_weights(g, q, k, lse, o, &w, &index));
    if (mode != ATTEND_WEIGHTS_TOPK)
        return;
    attend_graph_output(g, "index", index);
    w.k = 1; /* and nobody reads which */
    attend_graph_output(g, "best", attend_graph_attention_weights(g, q, k, lse, o, &w, NULL));
}

static void run(attend_ctx *ctx, const char *device, const struct config *c, struct results *r)
{
    attend_exec *exec;
    attend_graph *g = attend_graph_new(ctx);
    attend_shape kv =
        c->paged ? ATTEND_SHAPE(B * PAGES, c->groups, PAGE, D) : ATTEND_SHAPE(B, c->groups, NK, D);
    attend_attention_opts o = options(g, c);
    attend_tensor lse, q = attend_graph_input(g, "q", ATTEND_F32, ATTEND_SHAPE(B, H, NQ, D)),
                       k = attend_graph_input(g, "k", ATTEND_F32, kv);
    attend_graph_output(g, "o", attend_graph_attention(g, q, k, k, &o, &lse));
    attend_graph_output(g, "lse", lse);
    keep(g, q, k, lse, &o, ATTEND_WEIGHTS_DENSE, "dense");
    keep(g, q, k, lse, &o, ATTEND_WEIGHTS_ROWS, "rows");
    keep(g, q, k, lse, &o, ATTEND_WEIGHTS_COLUMNS, "columns");
    keep(g, q, k, lse, &o, ATTEND_WEIGHTS_TOPK, "top");
    keep(g, q, k, lse, &o, ATTEND_WEIGHTS_POOL, "pool");
    attend_plan *plan = help_compile(g, device, 1);
    char *text = attend_plan_describe(plan, ATTEND_TEXT);
    bool there =
        !strcmp(device, "ref") || (own && strchr(device, ':') && strncmp(device, "simd", 4));
    ok(there || (text && !strstr(text, "-> ref")), "%s, %s: nothing is the reference's", device,
       c->name); /* devices have no kernel without an LSE */
    attend_free(text);
    attend_binding bind[24] = {HELP_DATA("q", in.q),
                               HELP_DATA("k", in.k),
                               HELP_DATA("o", r->o),
                               HELP_DATA("lse", r->lse),
                               HELP_DATA("dense", r->dense),
                               HELP_DATA("rows", r->rows),
                               HELP_DATA("columns", r->columns),
                               HELP_DATA("top", r->top),
                               HELP_DATA("index", r->index),
                               HELP_DATA("best", r->best),
                               HELP_DATA("pool", r->pool)};
    const struct {
        bool given;
        attend_binding b;
    } more[] = {
        {c->mask,     HELP_DATA("mask",   in.mask)  },
        {c->bias,     HELP_DATA("bias",   in.bias)  },
        {c->used,     HELP_DATA("used",   in.used)  },
        {c->paged,    HELP_DATA("table",  in.table) },
        {c->alibi,    HELP_DATA("slopes", in.slopes)},
        {c->sinks,    HELP_DATA("sinks",  in.sinks) },
        {c->additive, HELP_DATA("va",     in.va)    },
    };
    int n = 11;
    for (size_t e = 0; e < NELEM(more); e++)
        if (more[e].given)
            bind[n++] = more[e].b;
    memset(r, 0xff, sizeof *r);
    if (attend_exec_new(plan, &exec) < 0)
        bail("no exec");
    if (attend_bind(exec, bind, n) < 0 || attend_run(exec) < 0)
        bail("%s", attend_exec_error(exec));
    attend_exec_free(exec);
    attend_plan_free(plan);
    attend_graph_free(g);
}

static double bound; /* BOUND, for the scores of the config */

static bool close_to(double x, double y)
{
    return fabs(x - y) <= expm1(bound) * fmax(fabs(x), fabs(y)) + 1e-30;
}

/* ---- what each mode must be, from the reference's dense weights ---- */

static const float *row_of(const struct config *c, int64_t row)
{
    return want.dense + row * keys_of(c);
}

/* Where scores are huge, a 0 may be one that was too small. */
static void test_dense(const char *device, const struct config *c)
{
    int64_t nk = keys_of(c), wrong = 0, sums = 0, rows = 0;
    for (int64_t n = 0; n < B * H * NQ; n++) {
        double sum = 0;
        for (int64_t j = 0; j < nk; j++) {
            float x = want.dense[n * nk + j], y = got.dense[n * nk + j];
            wrong += x == 0 && !c->huge ? y != 0 : !close_to((double)x, (double)y);
            sum += (double)y;
        }
        double all = got.lse[n] == -INFINITY ? 0 : 1;
        double off = own ? OWN_SUM : bound;
        sums += c->sinks ? !(sum < 1 + off) : all == 0 ? sum != 0 : fabs(sum - all) > off;
        int64_t i = n % NQ;
        for (int64_t j = 0; i >= FIRST && i < END && j < nk; j++)
            rows += !close_to((double)got.dense[n * nk + j],
                              (double)got.rows[(n / NQ * (END - FIRST) + i - FIRST) * nk + j]);
    }
    ok(wrong == 0, "%s, %s: dense weights, 0 where hidden", device, c->name);
    ok(sums == 0, "%s, %s: each row sums to 1, less with a sink, or 0", device, c->name);
    ok(rows == 0, "%s, %s: chosen rows are those of the dense weights", device, c->name);
}

static void test_columns(const char *device, const struct config *c)
{
    int64_t nk = keys_of(c), wrong = 0;
    for (int64_t bh = 0; bh < B * H; bh++)
        for (int64_t j = 0; j < nk; j++) {
            double sum = 0;
            for (int64_t i = 0; i < NQ; i++)
                sum += (double)row_of(c, bh * NQ + i)[j];
            wrong += !close_to(sum, (double)got.columns[bh * nk + j]);
        }
    ok(wrong == 0, "%s, %s: sums of columns", device, c->name);
}

/* Cell (r, c) by the manual's words. */
static void test_pool(const char *device, const struct config *c)
{
    int64_t nk = keys_of(c), wrong = 0;
    double sum[COLS];
    for (int64_t n = 0; n < B * H * ROWS; n++) {
        int64_t bh = n / ROWS, r = n % ROWS, i0 = r * NQ / ROWS, i1 = (r + 1) * NQ / ROWS;
        for (int64_t e = 0; e < COLS; e++) {
            sum[e] = 0;
            for (int64_t i = i0; i < i1; i++)
                for (int64_t j = e * nk / COLS; j < (e + 1) * nk / COLS; j++)
                    sum[e] += (double)row_of(c, bh * NQ + i)[j] / (double)(i1 - i0);
            wrong += !close_to(sum[e], (double)got.pool[n * COLS + e]);
        }
    }
    ok(wrong == 0, "%s, %s: the map of %d x %d cells", device, c->name, ROWS, COLS);
}

static int falling(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* A weight that is too small is 0, though it has its place and key: only where scores are huge. */
static void test_top(const char *device, const struct config *c)
{
    int64_t nk = keys_of(c), wrong = 0, order = 0;
    float sorted[ALL_KEYS];
    for (int64_t n = 0; n < B * H * NQ; n++) {
        memcpy(sorted, row_of(c, n), (size_t)nk * sizeof *sorted);
        qsort(sorted, (size_t)nk, sizeof *sorted, falling);
        wrong += !close_to((double)got.best[n], (double)sorted[0]);
        for (int64_t e = 0; e < K; e++) {
            float value = got.top[n * K + e];
            int32_t j = got.index[n * K + e];
            if (sorted[e] == 0) {
                wrong += value != 0 || (j != -1 && !c->huge);
                continue;
            }
            if (j < 0 || j >= nk || !close_to((double)value, (double)sorted[e]) ||
                !close_to((double)value, (double)row_of(c, n)[j]))
                wrong++;
            if (e > 0 && value > 1e-30f && !(value < got.top[n * K + e - 1]))
                order += value != got.top[n * K + e - 1] || j <= got.index[n * K + e - 1];
        }
    }
    ok(wrong == 0, "%s, %s: the largest %d of each row, and their keys", device, c->name, K);
    ok(order == 0, "%s, %s: they fall, equal ones by their key", device, c->name);
}

static void make_inputs(void)
{
    uint64_t seed = 232;
    help_normal(&seed, in.q, (int64_t)NELEM(in.q));
    help_normal(&seed, in.k, (int64_t)NELEM(in.k));
    help_normal(&seed, in.bias, (int64_t)NELEM(in.bias));
    help_normal(&seed, in.slopes, H);
    help_normal(&seed, in.sinks, H);
    help_normal(&seed, in.va, D);
    for (int64_t n = 0; n < B * NQ * NK; n++) /* and row 11 sees nothing, row 12 four keys */
        in.mask[n] = n / NK % NQ == 11   ? 0
                     : n / NK % NQ == 12 ? n % 61 == 0
                                         : help_below(&seed, 3) > 0;
    for (int64_t h = 0; h < H; h++)
        in.slopes[h] = fabsf(in.slopes[h]) / 8;
    for (int64_t b = 0; b < B; b++) {
        in.used[b] = b ? 101 : 230;
        for (int64_t e = 0; e < PAGES; e++)
            in.table[b * PAGES + e] = (int32_t)((b * PAGES + e) * 7 % (B * PAGES));
    }
}

static void refuse(attend_ctx *ctx, const attend_weights_opts *w, const char *part)
{
    attend_graph *g = attend_graph_new(ctx);
    attend_tensor q = attend_graph_input(g, "q", ATTEND_F32, ATTEND_SHAPE(B, H, NQ, D)),
                  lse = attend_graph_input(g, "lse", ATTEND_F32, ATTEND_SHAPE(B, H, NQ));
    attend_graph_attention_weights(g, q, q, lse, NULL, w, NULL);
    help_holds(attend_graph_error(g), part, "refused: %s", part);
    attend_graph_free(g);
}

static void test_refusals(attend_ctx *ctx)
{
    attend_weights_opts w;
    attend_weights_opts_init(&w);
    w.mode = ATTEND_WEIGHTS_ROWS;
    w.first = 3;
    w.end = NQ + 1;
    refuse(ctx, &w, "rows 3 to 38 of 37");
    w.mode = ATTEND_WEIGHTS_TOPK;
    w.k = 0;
    refuse(ctx, &w, "the largest 0 of a row");
    w.mode = ATTEND_WEIGHTS_POOL;
    w.cols = -1;
    refuse(ctx, &w, "a map of 1 x -1 cells");
}

static void test_config(attend_ctx *ctx, const struct config *c)
{
    attend_device_info d;
    for (size_t n = 0; (c->equal || c->huge) && n < NELEM(in.q); n++)
        in.q[n] *= c->equal ? 0 : TIMES;
    bound = (c->huge ? TIMES : 1) * BOUND;
    run(ctx, "ref", c, &want);
    for (int i = 0; attend_device_get(ctx, i, &d) == ATTEND_OK; i++) {
        if (!d.present)
            continue;
        run(ctx, d.name, c, &got);
        test_dense(d.name, c);
        test_columns(d.name, c);
        test_top(d.name, c);
        test_pool(d.name, c);
    }
}

int main(void)
{
    attend_ctx *ctx = help_context(2);
    for (int k = 0; k < 2; k++) {
        own = k > 0;
        diag("%s", own ? "rows divide by their own sums" : "with the LSE of the attention");
        make_inputs();
        for (size_t n = 0; n < NELEM(configs); n++)
            test_config(ctx, &configs[n]);
    }
    test_refusals(ctx);
    attend_ctx_free(ctx);
    return done_testing();
}
