/* SPDX-License-Identifier: MIT */
/* The backward pass by tensor cores on the emulated device, architecture by architecture: its row
 * is taken, gradients are those of the reference, the checkers have nothing to report.  `slow` as
 * the argument runs all; a number after it, that architecture alone. */
#include "check_grads.h"
#include "emu.h"
#include "graph_help.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const f16_words[] = {"attention:f16:b1h4g2q70k150d64:causal-br", NULL};
static const char *const both_words[] = {"attention:f16:b1h4g2q70k150d64:causal-br",
                                         "attention:bf16:b1h2g1q40k70d48:mask-bool:nan", NULL};
static const struct words {
    int cc;
    const char *const *word; /* where not all are run */
} archs[] = {
    {75,  f16_words },
    {80,  both_words},
    {90,  NULL      },
    {100, NULL      },
    {120, NULL      }
};

/* Every option; head sizes that are no multiples of 16, or differ; rows at odd addresses. */
static const char *const all_f16[] = {
    "attention:f16:b1h1g1q1k1d1",
    "attention:f16:b1h2g1q0k5d8",
    "attention:f16:b1h2g1q12k0d8:sinks",
    "attention:f16:b1h4g2q133k265d64:causal-tl",
    "attention:f16:b1h4g4q133k265d64:causal-br",
    "attention:f16:b1h2g1q90k130d128:w30_5:br:nan",
    "attention:f16:b1h2g2q190k300d32:w30_5:br:nan",
    "attention:f16:b1h2g1q33k70d24v120",
    "attention:f16:b1h2g1q33k70d128v16",
    "attention:f16:b4h2g2q70k90d33v17:packed:causal-br:alibi:unaligned:nan",
    "attention:f16:b2h4g2q33k130d64:mask-bool:nan",
    "attention:f16:b2h4g2q33k130d64:mask-float:nan",
    "attention:f16:b2h4g2q129k129d80:causal-br:w15_0:sinks:alibi:cap20:mask-float:drop0.3",
    "attention:f16:b2h4g2q40k150d32:causal-br:xscore4:xmask9:nan",
    "attention:f16:b2h4g2q70k200d32:causal-br:layout16_64:nan",
    "attention:f16:b2h4g2q33k130d40:drop0.1",
    "attention:f16:b1h4g2q33k65d64:scale-0.25:causal-br",
    "attention:f16:b2h4g2q33k65d96:bshd:strided:causal-br",
    "attention:f16:b3h4g2q17k70d64:used:causal-off:nan",
    "attention:f16:b1h6g2q70k90d64:causal-br:deterministic",
    "attention:f16:b2h8g2q1k300d64:causal-br",
    "attention:f16:b3h4g2q2k300d128:packed:causal-br:unaligned",
    "attention:f16:b2h9g3q5k300d80:sinks:used:nan",
};
static const char *const all_bf16[] = {
    "attention:bf16:b1h4g2q133k265d64:causal-br",
    "attention:bf16:b1h2g1q90k130d128:w30_5:br:nan",
    "attention:bf16:b2h4g2q33k130d64:mask-bool:nan:drop0.3",
    "attention:bf16:b3h4g2q33k65d40:packed:strided:unaligned:causal-br",
    "attention:bf16:b2h8g2q1k300d128:causal-br:alibi:cap20",
};

static attend_ctx *open_device(int cc)
{
    attend_ctx *ctx;
    emu_open(cc);
    emu_close();
    emu_clear();
    if (attend_ctx_new(NULL, &ctx) < 0)
        bail("no context");
    return ctx;
}

static void close_device(attend_ctx *ctx, int cc)
{
    attend_ctx_free(ctx);
    if (!is_int(emu_reports(), 0, "sm_%d: nothing is reported", cc))
        diag("%s: %s", emu_kind(), emu_report());
}

/* Is the step of the gradients of the word's q, k and v given to tensor cores? */
static bool is_taken(attend_ctx *ctx, const char *word)
{
    static const char *const in[] = {"q", "k", "v"}, *const out[] = {"dq", "dk", "dv"};
    struct at_problem p;
    char err[320];
    attend_tensor o = {NULL, -1}, seed, wrt[3], grad[3];
    if (at_problem_parse(word, &p, err, sizeof err) < 0)
        bail("%s", err);
    attend_graph *g = check_graph(ctx, &p);
    for (int t = 0; t < g->ntensor; t++) {
        const char *name = g->tensor[t].name ? g->tensor[t].name : "";
        for (int k = 0; k < 3; k++)
            wrt[k] = strcmp(name, in[k]) ? wrt[k] : (attend_tensor){g, t};
        o = strcmp(name, "o") ? o : (attend_tensor){g, t};
    }
    seed = attend_graph_input(g, "seed", ATTEND_F32, attend_tensor_shape(o));
    if (attend_grad(g, &o, &seed, 1, wrt, 3, grad, NULL) < 0)
        bail("%s has no gradients", word);
    for (int k = 0; k < 3; k++)
        attend_graph_output(g, out[k], grad[k]);
    attend_plan *plan = help_compile(g, "cuda:0", 1);
    char *text = attend_plan_describe(plan, ATTEND_TEXT);
    const char *step = text ? strstr(text, "attention_grad") : NULL;
    bool taken = step && strstr(step, "-> cuda:0/mma");
    if (!taken)
        diag("%s", text);
    attend_free(text);
    attend_plan_free(plan);
    attend_graph_free(g);
    return taken;
}

static void test_word(attend_ctx *ctx, const char *word)
{
    struct check_grads want;
    if (check_gradients(ctx, "ref", word, &want) < 0)
        bail("%s has no gradients", word);
    check_same_gradients(ctx, "cuda:0", word, &want);
    check_grads_free(&want);
    ok(is_taken(ctx, word), "by mma: %s", word);
}

/* ---- one problem with a gradient of O that is not drawn ---- */

#define HEADS 2
#define ROWS 48
#define KEYS 80
#define D 32

struct numbers {
    uint16_t in[3][HEADS * KEYS * D];
    float dout[HEADS * ROWS * D], grad[3][HEADS * KEYS * D];
};

static void draw(attend_type type, struct numbers *n)
{
    static float x[HEADS * KEYS * D];
    uint64_t seed = 8;
    for (int k = 0; k < 3; k++) {
        help_normal(&seed, x, HEADS * KEYS * D);
        if (attend_convert(type, n->in[k], ATTEND_F32, x, HEADS * KEYS * D) < 0)
            bail("convert");
    }
    help_normal(&seed, n->dout, HEADS * ROWS * D);
}

/* Softmax by itself between products, each result rounded to the type. */
static attend_tensor unfused(attend_graph *g, attend_type type, const attend_tensor t[3])
{
    attend_tensor s = attend_graph_scale(g, attend_graph_matmul_nt(g, t[0], t[1]), 1 / sqrtf(D));
    attend_tensor p = attend_graph_softmax(g, attend_graph_cast(g, s, type));
    return attend_graph_matmul(g, attend_graph_cast(g, p, type), t[2]);
}

static attend_tensor fused(attend_graph *g, const attend_tensor t[3], bool causal)
{
    attend_attention_opts o;
    attend_attention_opts_init(&o);
    o.mask.causal = causal;
    o.mask.align = ATTEND_BOTTOM_RIGHT;
    return attend_graph_attention(g, t[0], t[1], t[2], &o, NULL);
}

enum form { UNFUSED, PLAIN, CAUSAL };

static void compute(attend_ctx *ctx, const char *device, attend_type type,
                    attend_precision precision, enum form form, struct numbers *n)
{
    static const char *const in[] = {"q", "k", "v"}, *const out[] = {"dq", "dk", "dv"};
    attend_graph *g = attend_graph_new(ctx);
    attend_plan *plan = NULL;
    attend_exec *x = NULL;
    attend_tensor t[3], grad[3];
    attend_binding bind[7];
    attend_grad_opts opts;
    attend_compile_opts c;
    attend_grad_opts_init(&opts);
    attend_compile_opts_init(&c);
    opts.fuse = form != UNFUSED;
    c.fuse = form != UNFUSED;
    c.device = device;
    c.precision = precision;
    for (int k = 0; k < 3; k++) {
        int rows = k ? KEYS : ROWS;
        t[k] = attend_graph_input(g, in[k], type, ATTEND_SHAPE(1, HEADS, rows, D));
        bind[k] = (attend_binding){in[k], n->in[k], HEADS * rows * D * 2, NULL, 0, 0};
        bind[3 + k] = (attend_binding){out[k], n->grad[k], HEADS * rows * D * 4, NULL, 0, 0};
    }
    attend_tensor seed = attend_graph_input(g, "do", ATTEND_F32, ATTEND_SHAPE(1, HEADS, ROWS, D));
    attend_tensor o = form == UNFUSED ? unfused(g, type, t) : fused(g, t, form == CAUSAL);
    bind[6] = (attend_binding){"do", n->dout, sizeof n->dout, NULL, 0, 0};
    if (attend_grad(g, &o, &seed, 1, t, 3, grad, &opts) < 0)
        bail("%s", attend_graph_error(g));
    for (int k = 0; k < 3; k++)
        attend_graph_output(g, out[k], grad[k]);
    if (attend_compile(g, &c, &plan) < 0 || attend_exec_new(plan, &x) < 0 ||
        attend_bind(x, bind, 7) < 0 || attend_run(x) < 0)
        bail("%s", x ? attend_exec_error(x) : attend_graph_error(g));
    attend_exec_free(x);
    attend_plan_free(plan);
    attend_graph_free(g);
}

static double farthest(const float *a, const float *b, int n)
{
    double far = 0;
    for (int i = 0; i < n; i++)
        far = fmax(far, isfinite(a[i]) ? fabs((double)a[i] - (double)b[i]) : (double)INFINITY);
    return far;
}

static double largest(const float *a, int n)
{
    static const float zeros[HEADS * KEYS * D];
    return farthest(a, zeros, n);
}

/* Roundings of f32 in one of these gradients: check_same_gradients. */
static const double roundings = 0x1p-24 * (ROWS + KEYS + 8 * D + 64);

/* FlashAttention's rule, with terms that hold an f32 and with one of 16 bits. */
static void test_rule(attend_ctx *ctx, attend_type type)
{
    static struct numbers truth, exact, one, apart;
    draw(type, &truth);
    exact = one = apart = truth;
    compute(ctx, "ref", type, ATTEND_EXACT, PLAIN, &truth);
    compute(ctx, "ref", type, ATTEND_EXACT, UNFUSED, &apart);
    compute(ctx, "cuda:0", type, ATTEND_EXACT, PLAIN, &exact);
    compute(ctx, "cuda:0", type, ATTEND_F16_P, PLAIN, &one);
    for (int k = 0; k < 3; k++) {
        int n = HEADS * (k ? KEYS : ROWS) * D;
        double a = farthest(exact.grad[k], truth.grad[k], n),
               b = farthest(one.grad[k], truth.grad[k], n);
        double c = farthest(apart.grad[k], truth.grad[k], n), most = largest(truth.grad[k], n);
        ok(a <= roundings * fmax(most, 4 * sqrt(D)) && b <= 3 * c && b > a,
           "%s, gradient %d of up to %.2g: off by %.1e, in one term by %.1e, unfused by %.1e",
           attend_type_name(type), k, most, a, b, c);
    }
}

/* Rows of dO from 2^-72 to 2^69: each row of dQ is as good as if it were alone; dK and dV are sums
 * of all. */
static void test_scales(attend_ctx *ctx, attend_type type)
{
    static struct numbers want, got;
    double worst = 0, most;
    draw(type, &want);
    for (int i = 0; i < HEADS * ROWS * D; i++)
        want.dout[i] = ldexpf(want.dout[i], i / D % ROWS * 3 - 72);
    got = want;
    compute(ctx, "ref", type, ATTEND_EXACT, CAUSAL, &want);
    compute(ctx, "cuda:0", type, ATTEND_EXACT, CAUSAL, &got);
    for (int r = 0; r < HEADS * ROWS; r++) {
        most = fmax(largest(want.grad[0] + r * D, D), ldexp(4 * sqrt(D), r % ROWS * 3 - 72));
        worst = fmax(worst, farthest(got.grad[0] + r * D, want.grad[0] + r * D, D) / most);
    }
    ok(worst <= roundings, "%s: rows of dO of all magnitudes, dQ off by %.1e of each, bound %.1e",
       attend_type_name(type), worst, roundings);
    for (int k = 1; k < 3; k++) {
        most = fmax(largest(want.grad[k], HEADS * KEYS * D), ldexp(4 * sqrt(D), ROWS * 3 - 75));
        worst = farthest(got.grad[k], want.grad[k], HEADS * KEYS * D) / most;
        ok(worst <= roundings, "%s: their sums, gradient %d, off by %.1e", attend_type_name(type),
           k, worst);
    }
}

/* A NaN in dO is in the gradients of the keys that its row sees, and of no others. */
static void test_nan(attend_ctx *ctx, attend_type type)
{
    static struct numbers want, got;
    const int row = 5, seen = KEYS - ROWS + row + 1, rest = (KEYS - seen) * D;
    draw(type, &want);
    got = want;
    got.dout[row * D + 3] = NAN;
    compute(ctx, "ref", type, ATTEND_EXACT, CAUSAL, &want);
    compute(ctx, "cuda:0", type, ATTEND_EXACT, CAUSAL, &got);
    for (int k = 1; k < 3; k++) {
        int none = 0;
        for (int j = 0; j < seen; j++)
            none += isnan(got.grad[k][j * D + 3]);
        is_int(none, seen, "%s: a NaN shows where it is seen, gradient %d", attend_type_name(type),
               k);
        ok(farthest(got.grad[k] + seen * D, want.grad[k] + seen * D, rest) <=
               roundings * 4 * sqrt(D),
           "%s: and nowhere else", attend_type_name(type));
    }
}

int main(int argc, char **argv)
{
    const char *why;
    bool slow = argc > 1 && !strcmp(argv[1], "slow");
    int only = argc > 2 ? atoi(argv[2]) : 0;
    if (!emu_nvrtc(&why))
        skip_all("%s", why);
    for (size_t i = 0; i < NELEM(archs); i++) {
        int cc = archs[i].cc;
        if (only ? only != cc : !slow && !archs[i].word)
            continue;
        attend_ctx *ctx = open_device(cc);
        for (const char *const *word = archs[i].word; word && *word && !slow; word++)
            test_word(ctx, *word);
        for (size_t n = 0; n < NELEM(all_f16) && slow; n++)
            test_word(ctx, all_f16[n]);
        for (size_t n = 0; n < NELEM(all_bf16) && slow && cc >= 80; n++)
            test_word(ctx, all_bf16[n]);
        for (attend_type type = ATTEND_F16; type <= (slow ? ATTEND_BF16 : ATTEND_F16) && cc == 80;
             type++)
            test_rule(ctx, type), test_scales(ctx, type), test_nan(ctx, type);
        close_device(ctx, cc);
    }
    return done_testing();
}
