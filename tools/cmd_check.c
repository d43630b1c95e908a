/* SPDX-License-Identifier: MIT */
/* attend check: every device against the reference, on the standard grid or on the given words. */
#include "check.h"
#include "cmd.h"
#include "tap.h"

static const struct cmd_flag flags[] = {
    {NULL, NULL, NULL, NULL}
};

/* A device that is not here is said once, not by every problem. */
static int find_device(const struct cmd_line *l, attend_ctx *ctx)
{
    attend_graph *g = attend_graph_new(ctx);
    attend_compile_opts opts;
    attend_plan *plan = NULL;
    int status = CMD_DONE;
    attend_compile_opts_init(&opts);
    opts.device = cmd_value(l, "--device");
    attend_graph_output(
        g, "y", attend_graph_silu(g, attend_graph_input(g, "x", ATTEND_F32, ATTEND_SHAPE(1))));
    if (attend_compile(g, &opts, &plan) < 0)
        status = cmd_fail(l, NULL, "%s", attend_graph_error(g));
    attend_plan_free(plan);
    attend_graph_free(g);
    return status;
}

static int run(const struct cmd_line *l)
{
    attend_ctx *ctx;
    int status = cmd_context(l, &ctx);
    if (status == CMD_DONE && cmd_has(l, "--device"))
        status = find_device(l, ctx);
    if (status != CMD_DONE) {
        attend_ctx_free(ctx);
        return status;
    }
    for (const char *const *word = l->narg ? l->arg : check_grid; *word; word++)
        check_word(ctx, cmd_value(l, "--device"), *word);
    attend_ctx_free(ctx);
    return done_testing() == 0 ? CMD_DONE : CMD_FAILED;
}

const struct cmd_verb cmd_check = {
    "check",
    "[WORD...] [flags]",
    "every device against the reference, over a grid of problems; TAP",
    flags,
    run,
    false,
};
