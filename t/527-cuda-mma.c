/* SPDX-License-Identifier: MIT */
/* Attention by tensor cores on the emulated device, architecture by architecture: their row is
 * taken, every element is within its bound, the checkers have nothing to report.  Most words are
 * `huge`: a wrong running maximum passes on small scores.  `slow` as the argument runs all; a
 * number after it, that architecture alone. */
#include "check.h"
#include "emu.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct words {
    int cc;
    const char *const *word;
};

static const char *const f16_words[] = {"attention:f16:b1h4g2q80k150d64:causal-br:huge:lse", NULL};
static const char *const both_words[] = {"attention:f16:b1h4g2q80k150d64:causal-br:huge:lse",
                                         "attention:f16:b2h9g3q1k300d80:sinks:used:huge:nan:lse",
                                         "attention:bf16:b1h2g1q40k70d128:mask-bool:nan:huge:lse",
                                         NULL};
static const char *const tf32_words[] = {"attention:f32:b1h4g2q80k150d64:causal-br:lse:tf32",
                                         "attention:f32:b1h2g1q1k300d80:used:nan:lse:tf32", NULL};
static const struct words quick[] = {
    {75,  f16_words },
    {80,  both_words},
    {90,  f16_words },
    {100, both_words},
    {120, f16_words }
};

/* Every option; head sizes that are no multiples of 16, or differ; rows at odd addresses. */
static const char *const all_words[] = {
    "attention:f16:b1h1g1q1k1d1:lse",
    "attention:f16:b1h2g1q0k5d8:lse",
    "attention:f16:b1h2g1q12k0d8:sinks:lse",
    "attention:f16:b1h4g2q133k265d64:causal-br:huge:lse",
    "attention:f16:b1h4g2q133k265d64:causal-tl:lse",
    "attention:f16:b1h2g1q90k130d128:w30_5:br:nan:huge:lse",
    "attention:f16:b1h2g1q200k130d256:causal-br:huge:lse",
    "attention:f16:b1h2g1q33k70d192v128:huge:lse",
    "attention:f16:b1h2g1q33k70d24v200:lse",
    "attention:f16:b4h2g2q70k90d33v17:packed:causal-br:alibi:unaligned:nan:lse",
    "attention:f16:b2h4g2q33k130d64:mask-bool:nan:lse",
    "attention:f16:b2h4g2q33k130d64:mask-float:nan:huge:lse",
    "attention:f16:b2h4g2q129k129d80:causal-br:w15_0:sinks:alibi:cap20:mask-float:drop0.3:lse",
    "attention:f16:b2h4g2q40k150d32:causal-br:xscore4:xmask9:mask-float:nan:lse",
    "attention:f16:b2h4g2q70k200d32:causal-br:layout16_64:nan:lse",
    "attention:f16:b3h4g2q33k130d40:page7:mask-bool:nan:lse",
    "attention:f16:b3h4g2q33k130d64:causal-br:w20_0:page16:ring:nan:lse",
    "attention:f16:b2h4g2q33k130d40:drop0.1:lse",
    "attention:f16:b1h4g2q33k65d64:scale-0.25:causal-br:lse",
    "attention:f16:b2h4g2q33k65d96:bshd:strided:causal-br:lse",
    "attention:f16:b3h4g2q17k70d64:used:causal-off:nan:lse",
    "attention:f16:b1h6g2q70k90d64:causal-br:deterministic:lse",
    "attention:f16:b2h8g2q1k700d64:causal-br:huge:lse",
    "attention:f16:b1h8g1q2k300d128:causal-br:w100_0:lse",
    "attention:f16:b3h4g2q5k130d40v200:causal-br:w20_0:page16:ring:nan:lse",
    "attention:f16:b2h8g2q1k1100d64:causal-br:drop0.5:mask-bool:nan:alibi:lse",
    "attention:f16:b1h2g1q3k0d8:sinks:lse",
    "attention:f16:b3h4g2q2k300d256:packed:causal-br:unaligned:lse",
};
static const char *const all_bf16[] = {
    "attention:bf16:b1h4g2q133k265d64:causal-br:huge:lse",
    "attention:bf16:b1h2g1q90k130d128:w30_5:br:nan:huge:lse",
    "attention:bf16:b1h2g1q70k130d256:causal-br:huge:lse",
    "attention:bf16:b2h4g2q33k130d64:mask-bool:nan:drop0.3:lse",
    "attention:bf16:b3h4g2q33k65d40:packed:strided:unaligned:causal-br:lse",
    "attention:bf16:b2h8g2q1k700d128:causal-br:huge:lse",
};

static const char *const all_tf32[] = {
    "attention:f32:b1h1g1q1k1d1:lse:tf32",
    "attention:f32:b1h2g1q12k0d8:sinks:lse:tf32",
    "attention:f32:b1h4g2q133k265d64:causal-br:lse:tf32",
    "attention:f32:b1h2g1q90k130d128:w30_5:br:nan:lse:tf32",
    "attention:f32:b1h2g1q33k70d24v100:lse:tf32",
    "attention:f32:b4h2g2q70k90d33v17:packed:causal-br:alibi:unaligned:nan:lse:tf32",
    "attention:f32:b2h4g2q33k130d64:mask-float:drop0.3:nan:lse:tf32",
    "attention:f32:b2h4g2q129k129d80:causal-br:w15_0:sinks:cap20:mask-bool:lse:tf32",
    "attention:f32:b3h4g2q33k130d40:page7:mask-bool:nan:lse:tf32",
    "attention:f32:b2h4g2q33k65d96:bshd:strided:causal-br:lse:tf32",
    "attention:f32:b2h8g2q1k700d64:causal-br:lse:tf32",
    "attention:f32:b3h4g2q5k130d40v100:causal-br:w20_0:page16:ring:nan:lse:tf32",
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

/* Whether mma, or decode_mma where rows are few, takes the word. */
static void test_taken(attend_ctx *ctx, const char *word, bool want)
{
    struct at_problem p;
    char err[320];
    attend_plan *plan = NULL;
    attend_compile_opts opts;
    if (at_problem_parse(word, &p, err, sizeof err) < 0)
        bail("%s", err);
    attend_graph *g = check_graph(ctx, &p);
    check_opts(&opts, &p);
    opts.device = "cuda:0";
    char *text =
        g && attend_compile(g, &opts, &plan) == 0 ? attend_plan_describe(plan, ATTEND_TEXT) : NULL;
    bool few = p.nq * (p.nh / p.ng) <= 16;
    bool taken = text && strstr(text, few ? "-> cuda:0/decode_mma" : "-> cuda:0/mma");
    if (!ok(text && taken == want, "%s mma: %s", want ? "by" : "not by", word))
        diag("%s", text ? text : g ? attend_graph_error(g) : "no graph");
    attend_free(text);
    attend_plan_free(plan);
    attend_graph_free(g);
}

static void test_word(attend_ctx *ctx, const char *word)
{
    check_word(ctx, "cuda:0", word);
    test_taken(ctx, word, true);
}

/* f32 where tf32 is allowed: sm_75 has none, so its kernels of f32 have the word. */
static void test_tf32(attend_ctx *ctx, int cc, bool slow)
{
    for (const char *const *word = tf32_words; *word && (slow || cc == 80 || cc == 90); word++) {
        check_word(ctx, "cuda:0", *word);
        test_taken(ctx, *word, cc >= 80);
    }
    for (size_t n = 0; n < NELEM(all_tf32) && slow && cc >= 80; n++)
        test_word(ctx, all_tf32[n]);
    if (cc == 80)
        test_taken(ctx, "attention:f32:b1h4g2q80k150d64:lse", false);
}

/* ---- values that are no numbers, which some rows see ---- */

#define ROWS 40
#define KEYS 70
#define D 16

static void run_as(attend_ctx *ctx, const char *device, attend_type type, float dropout,
                   attend_precision precision, void *q, void *k, void *v, float *o)
{
    const int64_t size = (int64_t)attend_type_size(type);
    attend_plan *plan = NULL;
    attend_exec *x = NULL;
    attend_attention_opts opts;
    attend_compile_opts c;
    attend_graph *g = attend_graph_new(ctx);
    attend_attention_opts_init(&opts);
    attend_compile_opts_init(&c);
    c.device = device;
    c.precision = precision;
    opts.mask.causal = true;
    opts.dropout = dropout;
    opts.mask.align = ATTEND_BOTTOM_RIGHT;
    attend_tensor tq = attend_graph_input(g, "q", type, ATTEND_SHAPE(1, 1, ROWS, D));
    attend_tensor tk = attend_graph_input(g, "k", type, ATTEND_SHAPE(1, 1, KEYS, D));
    attend_tensor tv = attend_graph_input(g, "v", type, ATTEND_SHAPE(1, 1, KEYS, D));
    attend_graph_output(g, "o", attend_graph_attention(g, tq, tk, tv, &opts, NULL));
    const attend_binding b[] = {
        {.name = "q", .data = q, .bytes = ROWS * D * size},
        {.name = "k", .data = k, .bytes = KEYS * D * size},
        {.name = "v", .data = v, .bytes = KEYS * D * size},
        {.name = "o", .data = o, .bytes = ROWS * D * 4   },
    };
    if (attend_compile(g, &c, &plan) < 0 || attend_exec_new(plan, &x) < 0 ||
        attend_bind(x, b, 4) < 0 || attend_run(x) < 0)
        bail("%s", x ? attend_exec_error(x) : attend_graph_error(g));
    attend_exec_free(x);
    attend_plan_free(plan);
    attend_graph_free(g);
}

static void run(attend_ctx *ctx, const char *device, float dropout, attend_precision precision,
                void *q, void *k, void *v, float *o)
{
    run_as(ctx, device, ATTEND_F16, dropout, precision, q, k, v, o);
}

/* Rows from 10 on see NaN in channel 3, from 15 on inf in channel 4, from 20 on -inf, too, in 4 and
 * 5: what each row sees, and nothing else, shows.  A weight that was dropped makes NaN of them. */
static void test_seen(attend_ctx *ctx, float dropout)
{
    static uint16_t q[ROWS * D], k[KEYS * D], v[KEYS * D];
    static float want[ROWS * D], got[ROWS * D];
    const int first = KEYS - ROWS;
    for (int i = 0; i < ROWS * D; i++)
        q[i] = (uint16_t)(0x3000 + i * 37 % 1024);
    for (int i = 0; i < KEYS * D; i++) {
        k[i] = (uint16_t)(0x3000 + i * 53 % 2048);
        v[i] = (uint16_t)(0x3800 + i * 29 % 1024);
    }
    v[(first + 10) * D + 3] = 0x7e00;
    v[(first + 15) * D + 4] = 0x7c00;
    v[(first + 20) * D + 4] = v[(first + 20) * D + 5] = 0xfc00;
    run(ctx, "ref", dropout, ATTEND_EXACT, q, k, v, want);
    run(ctx, "cuda:0", dropout, ATTEND_EXACT, q, k, v, got);
    int wrong = 0, strange = 0;
    for (int i = 0; i < ROWS * D; i++) {
        bool same = isnan(want[i])   ? isnan(got[i])
                    : isinf(want[i]) ? want[i] == got[i]
                                     : fabsf(want[i] - got[i]) < 1e-4f;
        strange += !isfinite(want[i]);
        if (!same && wrong++ == 0)
            diag("row %d channel %d: got %g, want %g", i / D, i % D, (double)got[i],
                 (double)want[i]);
    }
    is_int(wrong, 0, "infinities and NaN show where they are seen, dropout %g", (double)dropout);
    is_int(strange, 30 + 25 + 20, "and there are some");
}

/* One NaN that the first rows do not see, in each channel in turn: it is found wherever it is, and
 * kept from them. */
static void test_one(attend_ctx *ctx)
{
    static uint16_t q[ROWS * D], k[KEYS * D], v[KEYS * D];
    static float want[ROWS * D], got[ROWS * D];
    uint16_t *strange = v + (KEYS - ROWS + 20) * D;
    int wrong = 0, seen = 0;
    for (int i = 0; i < ROWS * D; i++)
        q[i] = (uint16_t)(0x3000 + i * 37 % 1024);
    for (int i = 0; i < KEYS * D; i++) {
        k[i] = (uint16_t)(0x3000 + i * 53 % 2048);
        v[i] = (uint16_t)(0x3800 + i * 29 % 1024);
    }
    for (int d = 0; d < D; d++) {
        uint16_t was = strange[d];
        strange[d] = 0x7e00;
        run(ctx, "ref", 0, ATTEND_EXACT, q, k, v, want);
        run(ctx, "cuda:0", 0, ATTEND_EXACT, q, k, v, got);
        strange[d] = was;
        for (int i = 0; i < ROWS * D; i++) {
            wrong += isnan(want[i]) ? !isnan(got[i]) : !(fabsf(want[i] - got[i]) < 1e-4f);
            seen += isnan(want[i]);
        }
    }
    is_int(wrong, 0, "one NaN, wherever it is, shows to those that see it");
    is_int(seen, D * (ROWS - 20), "which are so many");
}

/* With f16_p a weight is off by 2^-11 of itself, and values are below 1. */
static void test_half_weights(attend_ctx *ctx)
{
    static uint16_t q[ROWS * D], k[KEYS * D], v[KEYS * D];
    static float want[ROWS * D], exact[ROWS * D], got[ROWS * D];
    float worst = 0;
    for (int i = 0; i < ROWS * D; i++)
        q[i] = (uint16_t)(0x3000 + i * 37 % 1024);
    for (int i = 0; i < KEYS * D; i++) {
        k[i] = (uint16_t)(0x3000 + i * 53 % 2048);
        v[i] = (uint16_t)(0x3800 + i * 29 % 1024);
    }
    run(ctx, "ref", 0, ATTEND_EXACT, q, k, v, want);
    run(ctx, "cuda:0", 0, ATTEND_EXACT, q, k, v, exact);
    run(ctx, "cuda:0", 0, ATTEND_F16_P, q, k, v, got);
    for (int i = 0; i < ROWS * D; i++)
        worst = fmaxf(worst, fabsf(got[i] - want[i]));
    ok(worst <= 0x1p-11f + 1e-5f, "weights in f16 where f16_p asks for them: off by %g",
       (double)worst);
    ok(memcmp(exact, got, sizeof got) != 0, "and only there");
}

/* Inputs that tf32 holds, scores from -500 to 500 in each row: products are exact, a score is off
 * by some (D + 6) 2^-24 of 1000, a weight by 2^-11 of itself beside that, and values are at most 1.
 * Scores that do not fit the bound of words: there those of tf32 are off by too much to say
 * anything.  Rows see NaN and infinities as they do of f16. */
static void test_rounded(attend_ctx *ctx)
{
    static float q[ROWS * D], k[KEYS * D], v[KEYS * D], want[ROWS * D], got[ROWS * D],
        exact[ROWS * D];
    const float bound = 0x1p-11f + 2 * (D + 6) * 0x1p-24f * 1000;
    float worst = 0;
    int wrong = 0, strange = 0;
    for (int i = 0; i < ROWS * D; i++)
        q[i] = (float)(i * 37 % 1024 - 512) * 0x1p-5f;
    for (int i = 0; i < KEYS * D; i++) {
        k[i] = (float)(i * 53 % 1024 - 512) * 0x1p-6f;
        v[i] = (float)(i * 29 % 1024 - 512) * 0x1p-9f;
    }
    run_as(ctx, "ref", ATTEND_F32, 0, ATTEND_EXACT, q, k, v, want);
    run_as(ctx, "cuda:0", ATTEND_F32, 0, ATTEND_EXACT, q, k, v, exact);
    run_as(ctx, "cuda:0", ATTEND_F32, 0, ATTEND_TF32, q, k, v, got);
    for (int i = 0; i < ROWS * D; i++)
        worst = fmaxf(worst, fabsf(got[i] - want[i]));
    ok(worst <= bound, "tf32 of numbers that it holds: off by %g of %g", (double)worst,
       (double)bound);
    ok(memcmp(exact, got, sizeof got) != 0, "and not exact");
    v[(KEYS - ROWS + 10) * D + 3] = NAN;
    v[(KEYS - ROWS + 15) * D + 4] = INFINITY;
    for (int i = 0; i < ROWS * D; i++)
        q[i] *= 0x1p-6f; /* no weight is 0 */
    run_as(ctx, "ref", ATTEND_F32, 0, ATTEND_EXACT, q, k, v, want);
    run_as(ctx, "cuda:0", ATTEND_F32, 0, ATTEND_TF32, q, k, v, got);
    for (int i = 0; i < ROWS * D; i++) {
        bool same = isnan(want[i])   ? isnan(got[i])
                    : isinf(want[i]) ? want[i] == got[i]
                                     : fabsf(want[i] - got[i]) <= bound;
        wrong += !same;
        strange += !isfinite(want[i]);
    }
    is_int(wrong, 0, "what is no number shows where it is seen");
    ok(strange > 0, "which is in %d places", strange);
}

int main(int argc, char **argv)
{
    const char *why;
    bool slow = argc > 1 && !strcmp(argv[1], "slow");
    int only = argc > 2 ? atoi(argv[2]) : 0;
    if (!emu_nvrtc(&why))
        skip_all("%s", why);
    for (size_t i = 0; i < NELEM(quick); i++) {
        if (only && only != quick[i].cc)
            continue;
        attend_ctx *ctx = open_device(quick[i].cc);
        for (const char *const *word = quick[i].word; *word && !slow; word++)
            test_word(ctx, *word);
        for (size_t n = 0; n < NELEM(all_words) && slow; n++)
            test_word(ctx, all_words[n]);
        test_tf32(ctx, quick[i].cc, slow);
        for (size_t n = 0; n < NELEM(all_bf16) && slow && quick[i].cc >= 80; n++)
            test_word(ctx, all_bf16[n]);
        if (quick[i].cc == 80)
            test_seen(ctx, 0), test_seen(ctx, 0.5f), test_one(ctx), test_half_weights(ctx),
                test_rounded(ctx);
        close_device(ctx, quick[i].cc);
    }
    return done_testing();
}
