/* SPDX-License-Identifier: MIT */
/* attend devices: what was found, and why the rest was not. */
#include "cmd.h"

#include <stdio.h>

static const struct cmd_flag flags[] = {
    {NULL, NULL, NULL, NULL}
};

static void print_text(const attend_device_info *d)
{
    printf("%s %-14s %s%s\n", d->chosen ? "*" : " ", d->name,
           d->present ? "" : "absent: ", d->detail);
}

static void print_json(const attend_device_info *d)
{
    printf("{\"name\": ");
    cmd_print_json(d->name);
    printf(", \"present\": %s, \"auto\": %s, \"detail\": ", d->present ? "true" : "false",
           d->chosen ? "true" : "false");
    cmd_print_json(d->detail);
    printf("}\n");
}

static int run(const struct cmd_line *l)
{
    attend_ctx *ctx;
    attend_device_info d;
    if (l->narg > 0)
        return cmd_wrong(l, "what is \"%s\"? This verb takes only flags", l->arg[0]);
    int status = cmd_context(l, &ctx);
    if (status != CMD_DONE)
        return status;
    for (int i = 0; attend_device_get(ctx, i, &d) == ATTEND_OK; i++)
        (cmd_has(l, "--json") ? print_json : print_text)(&d);
    attend_ctx_free(ctx);
    return CMD_DONE;
}

const struct cmd_verb cmd_devices = {
    "devices", "[flags]", "every backend and device: what it is, or why it is absent (*: auto)",
    flags,     run,       false,
};
