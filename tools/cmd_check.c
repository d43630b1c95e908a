/* SPDX-License-Identifier: MIT */
/* attend check: every device against the reference, on the standard grid or on the given words. */
#include "check.h"
#include "cmd.h"
#include "tap.h"

static const struct cmd_flag flags[] = {
    {NULL, NULL, NULL, NULL}
};

static int run(const struct cmd_line *l)
{
    attend_ctx *ctx;
    int status = cmd_context(l, &ctx);
    if (status != CMD_DONE)
        return status;
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
