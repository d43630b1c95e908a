/* SPDX-License-Identifier: MIT */
/* attend plan: what another verb would do, or the plan of a problem word. */
#include "check.h"
#include "cmd.h"

#include <string.h>

static const struct cmd_flag flags[] = {
    {"--dot", NULL, "the plan as a graph for Graphviz", NULL},
    {NULL,    NULL, NULL,                               NULL},
};

static int plan_graph(const struct cmd_line *l, attend_graph *g)
{
    attend_plan *plan;
    int status = cmd_compile(l, g, &plan);
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
    attend_ctx *ctx;
    if (at_problem_parse(word, &p, err, sizeof err) < 0)
        return cmd_wrong(l, "%s", err);
    int status = cmd_context(l, &ctx);
    if (status != CMD_DONE)
        return status;
    attend_graph *g = check_graph(ctx, &p);
    status = g ? plan_graph(l, g) : cmd_fail(l, NULL, "no memory");
    attend_graph_free(g);
    attend_ctx_free(ctx);
    return status;
}

static int run(const struct cmd_line *l)
{
    if (l->narg != 1)
        return cmd_wrong(l, "want a verb with its flags, or a problem such as "
                            "attention:f32:b1h8g8q128k128d64:causal-br");
    return plan_word(l, l->arg[0]);
}

const struct cmd_verb cmd_plan = {
    "plan",
    "VERB ... | PROBLEM [flags]",
    "the lowered plan of another verb's command line, instead of running it",
    flags,
    run,
    false,
};
