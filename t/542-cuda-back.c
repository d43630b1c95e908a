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
        close_device(ctx, cc);
    }
    return done_testing();
}
