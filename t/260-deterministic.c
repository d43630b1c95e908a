/* SPDX-License-Identifier: MIT */
/* Deterministic plans: a row of attention, and a row of a whole small model, has the same bits
 * alone, as one of many rows, and in a batch.  Without the option that is not promised; that a run
 * here would notice is seen by one that differs. */
#include "graph_help.h"
#include "setenv.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static attend_ctx *ctx;
static uint64_t seed = 20261124;

static attend_plan *compile(attend_graph *g, const char *device, int deterministic)
{
    attend_plan *plan;
    attend_compile_opts opts;
    attend_compile_opts_init(&opts);
    opts.device = device;
    opts.deterministic = deterministic;
    if (attend_compile(g, &opts, &plan) < 0)
        bail("%s", attend_graph_error(g));
    attend_graph_free(g);
    return plan;
}

static void run(attend_plan *plan, const attend_binding *bind, int n)
{
    attend_exec *e;
    if (attend_exec_new(plan, &e) < 0 || attend_bind(e, bind, n) < 0 || attend_run(e) < 0)
        bail("%s", e ? attend_exec_error(e) : "no exec");
    attend_exec_free(e);
    attend_plan_free(plan);
}

/* ---- attention: row i of sequence b by itself ---- */

enum { MOST_Q = 2 * 40 * 40 * 96, MOST_K = 2 * 2 * 1400 * 96 };
static float q[MOST_Q], k[MOST_K], v[MOST_K], o[MOST_Q], alibi[40], sinks[40];
static unsigned char kq[4 * MOST_K], vq[4 * MOST_K];
static uint8_t mask[40 * 1400];
static float bias[40 * 1400];

struct problem {
    int64_t nh, ng, nq, nk, d, off, left;
    attend_type type; /* of k and v */
    bool causal, masked, biased, capped, sloped, sunk, mask_expr, score_expr, additive;
};

static void draw(struct problem *p)
{
    static const attend_type types[] = {ATTEND_F32, ATTEND_F32, ATTEND_F16, ATTEND_Q8_0};
    static const int64_t keys[] = {1, 17, 64, 130, 257, 1100, 1400}, sizes[] = {8, 33, 64, 96};
    static const int64_t rows[] = {1, 3, 16, 17, 33, 40}, ratio[] = {1, 1, 2, 3, 7, 20};
    *p = (struct problem){.left = -1};
    p->ng = 1 + help_below(&seed, 2);
    p->nh = p->ng * ratio[help_below(&seed, 6)];
    p->nq = rows[help_below(&seed, 6)];
    p->nk = keys[help_below(&seed, 7)];
    p->d = sizes[help_below(&seed, 4)];
    p->off = help_below(&seed, p->nk + 3) - 2;
    p->left = help_below(&seed, 3) ? -1 : help_below(&seed, 60);
    p->type = types[help_below(&seed, 4)];
    bool *flags[] = {&p->causal, &p->masked, &p->biased,   &p->capped,
                     &p->sloped, &p->sunk,   &p->mask_expr};
    for (size_t f = 0; f < NELEM(flags); f++)
        *flags[f] = help_below(&seed, 3) == 0;
    p->additive = help_below(&seed, 10) == 0 && p->type != ATTEND_Q8_0 && p->nk < 200;
}

/* nb sequences of nq rows. */
static attend_plan *plan_of(const struct problem *p, int64_t nb, int64_t nq, const char *device,
                            int deterministic)
{
    attend_graph *g = attend_graph_new(ctx);
    attend_attention_opts a;
    attend_attention_opts_init(&a);
    a.mask.causal = p->causal;
    a.mask.window_left = p->left;
    a.mask.q_offset = attend_graph_input(g, "off", ATTEND_I32, ATTEND_SHAPE(nb));
    if (p->masked)
        a.mask.mask = attend_graph_input(g, "mask", ATTEND_BOOL, ATTEND_SHAPE(nq, p->nk));
    else if (p->biased)
        a.mask.mask = attend_graph_input(g, "mask", ATTEND_F32, ATTEND_SHAPE(nq, p->nk));
    if (p->sloped)
        a.alibi = attend_graph_input(g, "alibi", ATTEND_F32, ATTEND_SHAPE(p->nh));
    if (p->sunk)
        a.sinks = attend_graph_input(g, "sinks", ATTEND_F32, ATTEND_SHAPE(p->nh));
    if (p->additive)
        a.additive = attend_graph_input(g, "va", ATTEND_F32, ATTEND_SHAPE(p->d));
    a.softcap = p->capped ? 5 : 0;
    a.mask_expr = p->mask_expr ? "j % 13 < 9" : NULL;
    a.score = p->score_expr ? "score * 0.5 + 0.01 * j" : NULL;
    attend_tensor tq = attend_graph_input(g, "q", ATTEND_F32, ATTEND_SHAPE(nb, p->nh, nq, p->d)),
                  tk = attend_graph_input(g, "k", p->type, ATTEND_SHAPE(nb, p->ng, p->nk, p->d)),
                  tv = attend_graph_input(g, "v", p->type, ATTEND_SHAPE(nb, p->ng, p->nk, p->d));
    attend_graph_output(g, "o", attend_graph_attention(g, tq, tk, tv, &a, NULL));
    return compile(g, device, deterministic);
}

static void run_problem(const struct problem *p, int64_t nb, int64_t nq, int64_t b, int64_t i,
                        const float *queries, float *out, const char *device, int deterministic)
{
    int32_t off[2] = {(int32_t)(p->off + i), (int32_t)(p->off + i)};
    int64_t entry = p->ng * p->nk * attend_type_row_bytes(p->type, p->d), n = 0;
    int64_t row = nb * p->nh * nq * p->d * (int64_t)sizeof(float);
    attend_binding bind[9] = {
        {.name = "off", .data = off,                        .bytes = nb * (int64_t)sizeof *off},
        {.name = "q",   .data = (void *)(uintptr_t)queries, .bytes = row                      },
        {.name = "k",   .data = kq + b * entry,             .bytes = nb * entry               },
        {.name = "v",   .data = vq + b * entry,             .bytes = nb * entry               },
        {.name = "o",   .data = out,                        .bytes = row                      },
    };
    n = 5;
    if (p->masked)
        bind[n++] = (attend_binding){.name = "mask", .data = mask + i * p->nk, .bytes = nq * p->nk};
    else if (p->biased)
        bind[n++] =
            (attend_binding){.name = "mask", .data = bias + i * p->nk, .bytes = nq * p->nk * 4};
    if (p->sloped)
        bind[n++] = (attend_binding)HELP_DATA("alibi", alibi);
    if (p->sunk)
        bind[n++] = (attend_binding)HELP_DATA("sinks", sinks);
    if (p->additive)
        bind[n++] = (attend_binding){.name = "va", .data = q, .bytes = p->d * 4};
    run(plan_of(p, nb, nq, device, deterministic), bind, (int)n);
}

/* Rows of all heads at (b, i) of a result; the first that differs from the batch's, or -1. */
static bool same_alone(const struct problem *p, int64_t b, int64_t i, const char *device,
                       int deterministic)
{
    static float alone[40 * 96], row[40 * 96];
    for (int64_t h = 0; h < p->nh; h++)
        memcpy(row + h * p->d, q + ((b * p->nh + h) * p->nq + i) * p->d, (size_t)p->d * 4);
    run_problem(p, 1, 1, b, i, row, alone, device, deterministic);
    for (int64_t h = 0; h < p->nh; h++)
        if (memcmp(alone + h * p->d, o + ((b * p->nh + h) * p->nq + i) * p->d, (size_t)p->d * 4))
            return false;
    return true;
}

static void fill(const struct problem *p)
{
    int64_t rows = 2 * p->ng * p->nk, bytes = attend_type_row_bytes(p->type, p->d);
    help_normal(&seed, q, 2 * p->nh * p->nq * p->d);
    help_normal(&seed, k, rows * p->d);
    help_normal(&seed, v, rows * p->d);
    help_normal(&seed, alibi, 40);
    help_normal(&seed, sinks, 40);
    for (int64_t r = 0; r < rows; r++)
        if (attend_convert(p->type, kq + r * bytes, ATTEND_F32, k + r * p->d, p->d) < 0 ||
            attend_convert(p->type, vq + r * bytes, ATTEND_F32, v + r * p->d, p->d) < 0)
            bail("cannot convert");
    for (int64_t e = 0; e < p->nq * p->nk; e++) {
        mask[e] = help_below(&seed, 4) > 0;
        bias[e] = help_below(&seed, 4) ? (float)help_below(&seed, 9) / 4 : -INFINITY;
    }
}

/* How many of the rows that were tried have other bits alone. */
static int differ(const struct problem *p, const char *device, int deterministic)
{
    int wrong = 0;
    run_problem(p, 2, p->nq, 0, 0, q, o, device, deterministic);
    for (int64_t b = 0; b < 2; b++)
        for (int64_t i = 0; i < p->nq; i += 1 + p->nq / 3)
            wrong += !same_alone(p, b, i, device, deterministic);
    return wrong;
}

static void test_attention(const char *device, int problems)
{
    int wrong = 0, noticed = 0;
    for (int n = 0; n < problems; n++) {
        struct problem p;
        draw(&p);
        p.score_expr = n % 5 == 0;
        fill(&p);
        /* A row's offset grows with it; alone, it is given. */
        int bad = differ(&p, device, 1);
        if (bad && wrong++ < 3)
            diag("%s: h%d g%d q%d k%d d%d %s causal %d window %d masked %d bias %d cap %d alibi %d "
                 "sinks %d expr %d %d additive %d",
                 device, (int)p.nh, (int)p.ng, (int)p.nq, (int)p.nk, (int)p.d,
                 attend_type_name(p.type), p.causal, (int)p.left, p.masked, p.biased, p.capped,
                 p.sloped, p.sunk, p.mask_expr, p.score_expr, p.additive);
        if (n < 10)
            noticed += differ(&p, device, 0) > 0;
    }
    is_int(wrong, 0, "%s: rows of %d problems have the same bits alone and in a batch", device,
           problems);
    if (strcmp(device, "ref"))
        ok(noticed > 0, "%s: which they have not without the option", device);
}

/* ---- a small model: all rows at once, one at a time, some at a time ---- */

enum { NH = 4, NG = 2, D = 24, E = NH * D, F = 200, VOCAB = 301, LENGTH = 45, LAYERS = 2 };
static float embedding[VOCAB * E], wq[LAYERS][(NH + 2 * NG) * D * E], wo[LAYERS][E * E],
    up[LAYERS][F * E], down[LAYERS][E * F], gain[E], kn[E * 8];
static unsigned char quantised[LAYERS][F * (E + 32) * 2];
static float cache[2 * LAYERS][NG * LENGTH * D];
static float logits[LENGTH * VOCAB];

static attend_tensor weight(attend_graph *g, const char *name, const float *x, int64_t rows,
                            int64_t cols)
{
    return attend_graph_const(g, name, ATTEND_F32, ATTEND_SHAPE(rows, cols), x, rows * cols * 4);
}

static attend_tensor heads(attend_graph *g, attend_tensor x, int64_t n, int64_t rows)
{
    static const int perm[] = {0, 2, 1, 3};
    return attend_graph_permute(g, attend_graph_reshape(g, x, ATTEND_SHAPE(1, rows, n, D)), perm);
}

static attend_tensor keep(attend_graph *g, const char *name, attend_tensor x, attend_tensor slots)
{
    attend_tensor state = attend_graph_state(g, name, ATTEND_F32, ATTEND_SHAPE(1, NG, LENGTH, D));
    return attend_graph_append(g, state, x, slots);
}

static attend_tensor layer(attend_graph *g, attend_tensor x, int n, int64_t rows,
                           attend_tensor positions, attend_tensor slots,
                           const attend_attention_opts *a)
{
    static char names[2][LAYERS][8];
    attend_rope_opts rope;
    attend_rope_opts_init(&rope);
    rope.pairing = ATTEND_ROPE_HALF;
    for (int s = 0; s < 2; s++)
        snprintf(names[s][n], sizeof names[s][n], "%c%d", "kv"[s], n);
    attend_tensor norm = attend_graph_rms_norm(
        g, x, attend_graph_const(g, "gain", ATTEND_F32, ATTEND_SHAPE(E), gain, sizeof gain), 1e-5f);
    attend_tensor qkv =
        attend_graph_matmul_nt(g, norm, weight(g, "wq", wq[n], (NH + 2 * NG) * D, E));
    attend_tensor tq = heads(g, attend_graph_slice(g, qkv, 1, 0, NH * D), NH, rows),
                  tk = heads(g, attend_graph_slice(g, qkv, 1, NH * D, NG * D), NG, rows),
                  tv = heads(g, attend_graph_slice(g, qkv, 1, (NH + NG) * D, NG * D), NG, rows);
    tk = keep(g, names[0][n], attend_graph_rope(g, tk, positions, &rope), slots);
    tv = keep(g, names[1][n], tv, slots);
    attend_tensor y =
        attend_graph_attention(g, attend_graph_rope(g, tq, positions, &rope), tk, tv, a, NULL);
    static const int perm[] = {0, 2, 1, 3};
    y = attend_graph_reshape(g, attend_graph_permute(g, y, perm), ATTEND_SHAPE(rows, E));
    x = attend_graph_add(g, x, attend_graph_matmul_nt(g, y, weight(g, "wo", wo[n], E, E)));
    norm = attend_graph_layer_norm(g, x, attend_none(), attend_none(), 1e-5f);
    attend_tensor h = attend_graph_matmul_nt(
        g, norm,
        attend_graph_const(g, "up", n ? ATTEND_Q8_0 : ATTEND_F16, ATTEND_SHAPE(F, E), quantised[n],
                           F * attend_type_row_bytes(n ? ATTEND_Q8_0 : ATTEND_F16, E)));
    h = n ? attend_graph_silu(g, h) : attend_graph_gelu(g, h);
    return attend_graph_add(g, x, attend_graph_matmul_nt(g, h, weight(g, "down", down[n], E, F)));
}

static attend_plan *model(const char *device, int deterministic)
{
    attend_graph *g = attend_graph_new(ctx);
    int64_t rows = attend_graph_dim(g, "rows", 1, LENGTH);
    attend_tensor ids = attend_graph_input(g, "ids", ATTEND_I32, ATTEND_SHAPE(rows)),
                  positions = attend_graph_input(g, "positions", ATTEND_I32, ATTEND_SHAPE(1, rows)),
                  table = weight(g, "embedding", embedding, VOCAB, E);
    attend_attention_opts a;
    attend_attention_opts_init(&a);
    a.mask.causal = 1;
    a.mask.align = ATTEND_BOTTOM_RIGHT;
    a.mask.kv_used = attend_graph_input(g, "used", ATTEND_I32, ATTEND_SHAPE(1));
    attend_tensor x = attend_graph_gather(g, table, ids);
    for (int n = 0; n < LAYERS; n++)
        x = layer(g, x, n, rows, positions, positions, &a);
    x = attend_graph_matmul(g, x, weight(g, "kn", kn, E, 8)); /* b by columns */
    x = attend_graph_matmul_nt(g, x, weight(g, "head", embedding, VOCAB, 8));
    attend_graph_output(g, "logits", attend_graph_softmax(g, x));
    return compile(g, device, deterministic);
}

/* The rows of a text, `step` at a time. */
static void run_model(const char *device, int deterministic, int step, float *out)
{
    attend_plan *plan = model(device, deterministic);
    attend_exec *e;
    if (attend_exec_new(plan, &e) < 0)
        bail("no exec");
    for (int at = 0; at < LENGTH; at += step) {
        int32_t n = LENGTH - at < step ? LENGTH - at : step, used = at + n, ids[LENGTH],
                positions[LENGTH];
        for (int i = 0; i < n; i++) {
            positions[i] = at + i;
            ids[i] = (at + i) * 37 % VOCAB;
        }
        const attend_binding bind[] = {
            HELP_DIM("rows", n),
            {.name = "ids",       .data = ids,              .bytes = n * 4        },
            {.name = "positions", .data = positions,        .bytes = n * 4        },
            {.name = "used",      .data = &used,            .bytes = 4            },
            HELP_DATA("k0", cache[0]),
            HELP_DATA("v0", cache[1]),
            HELP_DATA("k1", cache[2]),
            HELP_DATA("v1", cache[3]),
            {.name = "logits",    .data = out + at * VOCAB, .bytes = n * VOCAB * 4}
        };
        if (attend_bind(e, bind, (int)NELEM(bind)) < 0 || attend_run(e) < 0)
            bail("%s", attend_exec_error(e));
    }
    attend_exec_free(e);
    attend_plan_free(plan);
}

static void test_model(const char *device)
{
    static float other[LENGTH * VOCAB];
    run_model(device, 1, LENGTH, logits);
    for (int step = 1; step < 40; step += step < 3 ? 2 : 14) {
        run_model(device, 1, step, other);
        is_mem(other, logits, sizeof logits, "%s: a model's rows, %d at a time", device, step);
    }
    if (strcmp(device, "ref") == 0)
        return;
    run_model(device, 0, LENGTH, logits);
    run_model(device, 0, 1, other);
    ok(memcmp(other, logits, sizeof logits) != 0, "%s: without the option they differ", device);
}

static void fill_model(void)
{
    help_normal(&seed, embedding, VOCAB * E);
    help_normal(&seed, gain, E);
    help_normal(&seed, kn, E * 8);
    for (int n = 0; n < LAYERS; n++) {
        help_normal(&seed, wq[n], (NH + 2 * NG) * D * E);
        help_normal(&seed, wo[n], E * E);
        help_normal(&seed, up[n], F * E);
        help_normal(&seed, down[n], E * F);
        attend_type type = n ? ATTEND_Q8_0 : ATTEND_F16;
        for (int r = 0; r < F; r++)
            if (attend_convert(type, quantised[n] + r * attend_type_row_bytes(type, E), ATTEND_F32,
                               up[n] + r * E, E) < 0)
                bail("cannot convert");
    }
}

/* ---- the environment ---- */

static void test_environment(void)
{
    attend_compile_opts opts;
    setenv("ATTEND_DETERMINISTIC", "1", 1);
    attend_compile_opts_init(&opts);
    is_int(opts.deterministic, 1, "ATTEND_DETERMINISTIC=1 makes it the default");
    setenv("ATTEND_DETERMINISTIC", "0", 1);
    attend_compile_opts_init(&opts);
    is_int(opts.deterministic, 0, "ATTEND_DETERMINISTIC=0 does not");
    unsetenv("ATTEND_DETERMINISTIC");
    attend_compile_opts_init(&opts);
    is_int(opts.deterministic, 0, "nor does nothing");
}

int main(void)
{
    attend_device_info d;
    ctx = help_context(2);
    fill_model();
    test_environment();
    for (int n = 0; attend_device_get(ctx, n, &d) == 0; n++) {
        if (!d.present || (strncmp(d.name, "simd", 4) && strcmp(d.name, "ref")))
            continue;
        test_attention(d.name, strcmp(d.name, "ref") ? 60 : 4);
        test_model(d.name);
    }
    attend_ctx_free(ctx);
    return done_testing();
}
