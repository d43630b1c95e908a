/* SPDX-License-Identifier: MIT */
/* attend plan: what another verb would do, or the plan of a model or of a problem word. */
#include "check.h"
#include "model.h"

#include <string.h>

static const struct cmd_flag flags[] = {
    {"--dot",    NULL, "the plan as a graph for Graphviz",              NULL},
    {"--html",   NULL, "the plan as a page",                            NULL},
    MODEL_FLAGS,
    {"--tokens", "N",  "of a model: tokens fed at once, at most (512)", NULL},
    {NULL,       NULL, NULL,                                            NULL},
};

static int plan_graph(const struct cmd_line *l, attend_graph *g, attend_compile_opts *opts)
{
    attend_plan *plan;
    int status = cmd_compile_as(l, g, opts, &plan);
    if (status != CMD_DONE)
        return status;
    status = cmd_print_plan(l, plan);
    attend_plan_free(plan);
    return status;
}

static int plan_word(const struct cmd_line *l, const char *word)
{
    struct at_problem p;
    char err[320];
    attend_compile_opts opts;
    attend_ctx *ctx;
    if (at_problem_parse(word, &p, err, sizeof err) < 0)
        return cmd_wrong(l, "%s", err);
    int status = cmd_context(l, &ctx);
    if (status != CMD_DONE)
        return status;
    attend_graph *g = check_graph(ctx, &p);
    check_opts(&opts, &p);
    status = g ? plan_graph(l, g, &opts) : cmd_fail(l, NULL, "no memory");
    attend_graph_free(g);
    attend_ctx_free(ctx);
    return status;
}

static int plan_model(const struct cmd_line *l)
{
    int64_t tokens = 512;
    struct model m;
    if (!cmd_int(l, "--tokens", 1, INT32_MAX, &tokens))
        return CMD_WRONG;
    int status = model_open(&m, l);
    if (status == CMD_DONE)
        status = model_make(&m, "--tokens", cmd_has(l, "--tokens") ? tokens : 0, tokens);
    if (status == CMD_DONE)
        status = cmd_print_plan(l, attend_llama_plan(m.llama));
    model_close(&m);
    return status;
}

static int run(const struct cmd_line *l)
{
    if (cmd_has(l, "-m") && l->narg == 0)
        return plan_model(l);
    if (l->narg != 1 || cmd_has(l, "-m"))
        return cmd_wrong(l, "want a verb with its flags, -m with a model, or a problem such as "
                            "attention:f32:b1h8g8q128k128d64:causal-br");
    return plan_word(l, l->arg[0]);
}

const struct cmd_verb cmd_plan = {
    "plan",
    "VERB ... | -m MODEL.gguf | PROBLEM [flags]",
    "the lowered plan of another verb's command line, a model or a problem",
    flags,
    run,
    false,
};
