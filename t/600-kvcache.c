/* SPDX-License-Identifier: MIT */
/* Pages of a KV cache: a random life of sequences against a model that keeps every key, and what is
 * refused.  Then a generation through pages, forks and a shared prefix against plain attention. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attend.h"
#include "tap.h"

enum { PAGES = 24, PAGE = 4, SEQS = 5, WIDTH = 8, G = 2, H = 4, D = 8, MOST = WIDTH * PAGE };

static uint64_t state = 7;
static uint32_t draw(uint32_t n)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % n;
}

/* ---- bookkeeping: every key is a number, pages hold numbers, and both must tell the same story
 * ---- */

struct model {
    bool open;
    int length, forgotten;
    int key[MOST];
};

static struct model model[SEQS];
static int pool[PAGES * PAGE];
static int next_key = 1;

static void do_copies(attend_kv *kv)
{
    int32_t copies[2 * PAGES];
    int64_t n = attend_kv_copies(kv, copies, PAGES);
    for (int64_t i = 0; i < n; i++)
        memcpy(pool + copies[2 * i + 1] * PAGE, pool + copies[2 * i] * PAGE, PAGE * sizeof *pool);
}

static bool extend(attend_kv *kv, int s, int n)
{
    int32_t slots[MOST];
    int64_t free_pages = attend_kv_free_pages(kv);
    if (attend_kv_extend(kv, s, n, slots) < 0)
        return attend_kv_free_pages(kv) == free_pages && attend_kv_length(kv, s) == model[s].length;
    do_copies(kv);
    for (int i = 0; i < n; i++)
        pool[slots[i]] = model[s].key[model[s].length++] = next_key++;
    return true;
}

static void step(attend_kv *kv, bool *good)
{
    int s = (int)draw(SEQS), what = (int)draw(10), t;
    if (!model[s].open) {
        t = attend_kv_open(kv);
        *good &= t >= 0 && !model[t].open;
        model[t] = (struct model){.open = true};
    } else if (what < 6) {
        *good &= extend(kv, s, (int)draw(6));
    } else if (what == 6) {
        t = attend_kv_fork(kv, s);
        if (t >= 0)
            model[t] = model[s];
    } else if (what == 7) {
        int length = (int)draw((uint32_t)model[s].length + 1);
        *good &= length < model[s].forgotten || attend_kv_truncate(kv, s, length) == 0;
        if (length >= model[s].forgotten)
            model[s].length = length;
    } else if (what == 8) {
        int first = (int)draw((uint32_t)model[s].length + 1);
        *good &= attend_kv_forget(kv, s, first) == 0;
        model[s].forgotten = first > model[s].forgotten ? first : model[s].forgotten;
    } else {
        attend_kv_close(kv, s);
        model[s].open = false;
    }
}

static bool same_story(attend_kv *kv)
{
    int used[PAGES] = {0};
    int64_t busy = 0;
    for (int s = 0; s < SEQS; s++) {
        int32_t row[WIDTH];
        if (!model[s].open)
            continue;
        if (attend_kv_table(kv, s, row) < 0 || attend_kv_length(kv, s) != model[s].length)
            return false;
        for (int j = model[s].forgotten; j < model[s].length; j++)
            if (row[j / PAGE] < 0 || pool[row[j / PAGE] * PAGE + j % PAGE] != model[s].key[j])
                return false;
        for (int p = 0; p < WIDTH; p++)
            if (row[p] >= 0)
                busy += !used[row[p]]++;
    }
    return attend_kv_free_pages(kv) == PAGES - busy;
}

static void test_life(attend_ctx *ctx)
{
    attend_kv *kv;
    if (attend_kv_new(ctx, PAGES, PAGE, SEQS, WIDTH, &kv) < 0)
        bail("no KV cache");
    bool good = true;
    int steps = 0;
    for (; steps < 20000 && good; steps++) {
        step(kv, &good);
        good &= same_story(kv);
    }
    ok(good, "%d random steps: every sequence keeps its keys, no page is lost", steps);
    for (int s = 0; s < SEQS; s++)
        attend_kv_close(kv, s);
    is_int(attend_kv_free_pages(kv), PAGES, "all pages are free at the end");
    attend_kv_free(kv);
}

static void test_refusals(attend_ctx *ctx)
{
    attend_kv *kv;
    int32_t slots[64];
    is_int(attend_kv_new(ctx, 0, 4, 1, 1, &kv), ATTEND_EINVAL, "no pages");
    is_int(attend_kv_new(ctx, INT32_MAX, 4, 1, 1, &kv), ATTEND_EINVAL, "slots past 2^31");
    if (attend_kv_new(ctx, 3, 4, 2, 2, &kv) < 0)
        bail("no KV cache");
    int a = attend_kv_open(kv), b = attend_kv_open(kv);
    ok(attend_kv_open(kv) == ATTEND_ELIMIT && *attend_kv_error(kv), "%s", attend_kv_error(kv));
    ok(attend_kv_extend(kv, a, 9, slots) == ATTEND_ELIMIT, "%s", attend_kv_error(kv));
    is_int(attend_kv_extend(kv, a, 8, slots), 0, "two pages");
    ok(attend_kv_extend(kv, b, 5, slots) == ATTEND_ENOMEM, "%s", attend_kv_error(kv));
    ok(attend_kv_extend(kv, 7, 1, slots) == ATTEND_EINVAL, "%s", attend_kv_error(kv));
    ok(attend_kv_truncate(kv, a, 9) == ATTEND_EINVAL, "%s", attend_kv_error(kv));
    attend_kv_free(kv);
}

/* ---- attention through pages ---- */

struct tensors {
    float q[SEQS * H * D], k[SEQS][MOST][G * D], v[SEQS][MOST][G * D];
    float kpool[PAGES * G * PAGE * D], vpool[PAGES * G * PAGE * D];
    float rows[2][SEQS * G * D], o[SEQS * H * D], lse[SEQS * H];
    int32_t slots[SEQS], table[SEQS * WIDTH], used[SEQS];
};

static float normal(void)
{
    return (float)draw(2001) / 1000.0f - 1.0f;
}

/* Row by row in doubles, over all keys of one sequence. */
static double worst_row(const struct tensors *t, int n, int s, int keys)
{
    double worst = 0;
    for (int h = 0; h < H; h++) {
        double w[MOST], top = -INFINITY, sum = 0;
        const float *q = t->q + (n * H + h) * D;
        for (int j = 0; j < keys; j++) {
            w[j] = 0;
            for (int d = 0; d < D; d++)
                w[j] += (double)q[d] * (double)t->k[s][j][h / (H / G) * D + d] / sqrt(D);
            top = fmax(top, w[j]);
        }
        for (int j = 0; j < keys; j++)
            sum += w[j] = exp(w[j] - top);
        for (int d = 0; d < D; d++) {
            double o = 0;
            for (int j = 0; j < keys; j++)
                o += w[j] / sum * (double)t->v[s][j][h / (H / G) * D + d];
            worst = fmax(worst, fabs(o - (double)t->o[(n * H + h) * D + d]));
        }
    }
    return worst;
}

/* One decoding step for n sequences: append a key each, attend. */
static attend_plan *decode_plan(attend_ctx *ctx, const char *device)
{
    attend_graph *g = attend_graph_new(ctx);
    int64_t nb = attend_graph_dim(g, "batch", 1, SEQS);
    attend_tensor q = attend_graph_input(g, "q", ATTEND_F32, ATTEND_SHAPE(nb, H, 1, D));
    attend_tensor slots = attend_graph_input(g, "slots", ATTEND_I32, ATTEND_SHAPE(nb, 1));
    attend_tensor kv[2];
    for (int i = 0; i < 2; i++) {
        attend_tensor pool_in = attend_graph_state(g, i ? "vpool" : "kpool", ATTEND_F32,
                                                   ATTEND_SHAPE(PAGES, G, PAGE, D));
        attend_tensor rows =
            attend_graph_input(g, i ? "v" : "k", ATTEND_F32, ATTEND_SHAPE(nb, G, 1, D));
        kv[i] = attend_graph_append(g, pool_in, rows, slots);
    }
    attend_attention_opts o;
    attend_attention_opts_init(&o);
    o.block_table = attend_graph_input(g, "table", ATTEND_I32, ATTEND_SHAPE(nb, WIDTH));
    o.mask.kv_used = attend_graph_input(g, "used", ATTEND_I32, ATTEND_SHAPE(nb));
    attend_graph_output(g, "o", attend_graph_attention(g, q, kv[0], kv[1], &o, NULL));
    attend_plan *plan = NULL;
    attend_compile_opts c;
    attend_compile_opts_init(&c);
    c.device = device;
    if (attend_compile(g, &c, &plan) < 0)
        diag("%s", attend_graph_error(g));
    attend_graph_free(g);
    return plan;
}

static int run(attend_exec *x, struct tensors *t, int n)
{
    const attend_binding b[] = {
        {.name = "batch",     .value = n                                   },
        { .name = "q",       .data = t->q,   .bytes = (int64_t)sizeof(float) * n * H * D},
        { .name = "k", .data = t->rows[0],   .bytes = (int64_t)sizeof(float) * n * G * D},
        { .name = "v", .data = t->rows[1],   .bytes = (int64_t)sizeof(float) * n * G * D},
        { .name = "slots",   .data = t->slots,         .bytes = (int64_t)sizeof(int32_t) * n},
        { .name = "kpool",   .data = t->kpool,                      .bytes = sizeof t->kpool},
        { .name = "vpool",   .data = t->vpool,                      .bytes = sizeof t->vpool},
        { .name = "table",   .data = t->table, .bytes = (int64_t)sizeof(int32_t) * n * WIDTH},
        { .name = "used",    .data = t->used,         .bytes = (int64_t)sizeof(int32_t) * n},
        { .name = "o",       .data = t->o,   .bytes = (int64_t)sizeof(float) * n * H * D},
    };
    int status = attend_bind(x, b, (int)(sizeof b / sizeof *b));
    if (status == 0)
        status = attend_run(x);
    if (status < 0)
        diag("%s", attend_exec_error(x));
    return status;
}

/* A batch that grows, forks, loses and changes sequences, on one plan and one exec. */
static void test_generation(attend_ctx *ctx, const char *device)
{
    static struct tensors t;
    attend_kv *kv;
    attend_exec *x = NULL;
    attend_plan *plan = decode_plan(ctx, device);
    if (!plan || attend_exec_new(plan, &x) < 0 ||
        attend_kv_new(ctx, PAGES, PAGE, SEQS, WIDTH, &kv) < 0)
        bail("cannot set up");
    memset(t.kpool, 0xff, sizeof t.kpool); /* NaN wherever no key was written */
    memset(t.vpool, 0xff, sizeof t.vpool);
    int length[SEQS] = {0}, live[SEQS], steps = 0;
    double worst = 0;
    bool is_open[SEQS] = {false}, good = true;
    is_open[attend_kv_open(kv)] = true;
    for (; steps < 60 && good; steps++) {
        if (steps % 7 == 3) { /* a fork shares all that its parent has */
            for (int s = 0, f; s < SEQS; s++)
                if (is_open[s] && length[s] && (f = attend_kv_fork(kv, s)) >= 0) {
                    is_open[f] = true;
                    length[f] = length[s];
                    memcpy(t.k[f], t.k[s], sizeof t.k[f]);
                    memcpy(t.v[f], t.v[s], sizeof t.v[f]);
                    break;
                }
        }
        int n = 0;
        for (int s = 0; s < SEQS; s++) {
            if (!is_open[s])
                continue;
            if (length[s] == MOST - 1 || attend_kv_extend(kv, s, 1, &t.slots[n]) < 0) {
                attend_kv_close(kv, s);
                is_open[s] = false;
                length[s] = 0;
                continue;
            }
            for (int d = 0; d < G * D; d++) {
                t.rows[0][n * G * D + d] = t.k[s][length[s]][d] = normal();
                t.rows[1][n * G * D + d] = t.v[s][length[s]][d] = normal();
            }
            t.used[n] = ++length[s];
            good &= attend_kv_table(kv, s, t.table + n * WIDTH) == 0;
            live[n++] = s;
        }
        if (n == 0) {
            is_open[attend_kv_open(kv)] = true;
            continue;
        }
        int32_t copies[2 * PAGES];
        int64_t ncopies = attend_kv_copies(kv, copies, PAGES), page = (int64_t)G * PAGE * D;
        for (int64_t i = 0; i < ncopies; i++) {
            memcpy(t.kpool + copies[2 * i + 1] * page, t.kpool + copies[2 * i] * page,
                   (size_t)page * 4);
            memcpy(t.vpool + copies[2 * i + 1] * page, t.vpool + copies[2 * i] * page,
                   (size_t)page * 4);
        }
        for (int i = 0; i < n * H * D; i++)
            t.q[i] = normal();
        good &= run(x, &t, n) == 0;
        for (int i = 0; i < n; i++)
            worst = fmax(worst, worst_row(&t, i, live[i], length[live[i]]));
    }
    /* 32 keys and 8 channels of numbers up to 1: sums of some 40 terms in f32 */
    ok(good && worst <= 40 * 0x1p-24 * 8, "%s: %d decoding steps of a changing batch, worst %.3g",
       device, steps, worst);
    attend_kv_free(kv);
    attend_exec_free(x);
    attend_plan_free(plan);
}

/* ---- a shared prefix, read once ---- */

enum { PREFIX = 19, SUFFIX = 9 };

static void test_merge(attend_ctx *ctx, const char *device)
{
    static float q[SEQS * H * D], pk[G * PREFIX * D], pv[G * PREFIX * D], sk[SEQS * G * SUFFIX * D],
        sv[SEQS * G * SUFFIX * D], whole_k[SEQS * G * (PREFIX + SUFFIX) * D],
        whole_v[SEQS * G * (PREFIX + SUFFIX) * D], o[2][SEQS * H * D], lse[2][SEQS * H];
    static int32_t used[SEQS] = {SUFFIX, 3, 0, 1, SUFFIX}, all[SEQS];
    const int perm[] = {2, 1, 0, 3};
    for (size_t i = 0; i < sizeof q / 4; i++)
        q[i] = normal();
    for (size_t i = 0; i < sizeof pk / 4; i++)
        pk[i] = normal(), pv[i] = normal();
    for (size_t i = 0; i < sizeof sk / 4; i++)
        sk[i] = normal(), sv[i] = normal();
    for (int b = 0; b < SEQS; b++) {
        all[b] = PREFIX + used[b];
        for (int g = 0; g < G; g++)
            for (int j = 0; j < PREFIX + SUFFIX; j++)
                for (int d = 0; d < D; d++) {
                    int to = ((b * G + g) * (PREFIX + SUFFIX) + j) * D + d;
                    int p = (g * PREFIX + j) * D + d,
                        s = ((b * G + g) * SUFFIX + j - PREFIX) * D + d;
                    whole_k[to] = j < PREFIX ? pk[p] : sk[s];
                    whole_v[to] = j < PREFIX ? pv[p] : sv[s];
                }
    }
    attend_graph *g = attend_graph_new(ctx);
    attend_tensor tq = attend_graph_input(g, "q", ATTEND_F32, ATTEND_SHAPE(SEQS, H, 1, D)), l1, l2,
                  l3, lm;
    attend_attention_opts opts, plain;
    attend_attention_opts_init(&opts);
    attend_attention_opts_init(&plain);
    opts.mask.kv_used = attend_graph_input(g, "used", ATTEND_I32, ATTEND_SHAPE(SEQS));
    attend_tensor o1 = attend_graph_attention(
        g, attend_graph_permute(g, tq, perm),
        attend_graph_const(g, "pk", ATTEND_F32, ATTEND_SHAPE(1, G, PREFIX, D), pk, sizeof pk),
        attend_graph_const(g, "pv", ATTEND_F32, ATTEND_SHAPE(1, G, PREFIX, D), pv, sizeof pv),
        &plain, &l1);
    attend_tensor o2 = attend_graph_attention(
        g, tq,
        attend_graph_const(g, "sk", ATTEND_F32, ATTEND_SHAPE(SEQS, G, SUFFIX, D), sk, sizeof sk),
        attend_graph_const(g, "sv", ATTEND_F32, ATTEND_SHAPE(SEQS, G, SUFFIX, D), sv, sizeof sv),
        &opts, &l2);
    const int perm3[] = {2, 1, 0};
    attend_tensor om = attend_graph_merge(g, attend_graph_permute(g, o1, perm),
                                          attend_graph_permute(g, l1, perm3), o2, l2, &lm);
    plain.mask.kv_used = attend_graph_input(g, "all", ATTEND_I32, ATTEND_SHAPE(SEQS));
    attend_tensor o3 = attend_graph_attention(
        g, tq,
        attend_graph_const(g, "k", ATTEND_F32, ATTEND_SHAPE(SEQS, G, PREFIX + SUFFIX, D), whole_k,
                           sizeof whole_k),
        attend_graph_const(g, "v", ATTEND_F32, ATTEND_SHAPE(SEQS, G, PREFIX + SUFFIX, D), whole_v,
                           sizeof whole_v),
        &plain, &l3);
    attend_graph_output(g, "o", om);
    attend_graph_output(g, "lse", lm);
    attend_graph_output(g, "want", o3);
    attend_graph_output(g, "want_lse", l3);
    attend_plan *plan;
    attend_exec *x;
    attend_compile_opts c;
    attend_compile_opts_init(&c);
    c.device = device;
    if (attend_compile(g, &c, &plan) < 0 || attend_exec_new(plan, &x) < 0)
        bail("%s", attend_graph_error(g));
    const attend_binding b[] = {
        {.name = "q",        .data = q,      .bytes = sizeof q     },
        {.name = "used",     .data = used,   .bytes = sizeof used  },
        {.name = "all",      .data = all,    .bytes = sizeof all   },
        {.name = "o",        .data = o[0],   .bytes = sizeof o[0]  },
        {.name = "want",     .data = o[1],   .bytes = sizeof o[1]  },
        {.name = "lse",      .data = lse[0], .bytes = sizeof lse[0]},
        {.name = "want_lse", .data = lse[1], .bytes = sizeof lse[1]},
    };
    double worst = 0;
    if (attend_bind(x, b, (int)(sizeof b / sizeof *b)) < 0 || attend_run(x) < 0)
        bail("%s", attend_exec_error(x));
    for (int i = 0; i < SEQS * H * D; i++)
        worst = fmax(worst, fabs((double)o[0][i] - (double)o[1][i]));
    for (int i = 0; i < SEQS * H; i++)
        worst = fmax(worst, fabs((double)lse[0][i] - (double)lse[1][i]) / 4);
    ok(worst <= 40 * 0x1p-24 * 8, "%s: a shared prefix, merged, equals the whole, worst %.3g",
       device, worst);
    attend_exec_free(x);
    attend_plan_free(plan);
    attend_graph_free(g);
}

int main(void)
{
    attend_ctx *ctx;
    attend_device_info d;
    if (attend_ctx_new(NULL, &ctx) < 0)
        bail("no context");
    test_life(ctx);
    test_refusals(ctx);
    for (int i = 0; attend_device_get(ctx, i, &d) == 0; i++)
        if (d.present) {
            test_generation(ctx, d.name);
            test_merge(ctx, d.name);
        }
    attend_ctx_free(ctx);
    return done_testing();
}
