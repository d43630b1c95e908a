/* SPDX-License-Identifier: MIT */
/* attend devices: what was found, and why the rest was not. */
#include "cmd.h"

#include <stdio.h>
#include <string.h>

static const struct cmd_flag flags[] = {
    {NULL, NULL, NULL, NULL}
};

/* How to get what is absent. */
static const char *hint(const attend_device_info *d)
{
    static const struct {
        const char *backend, *text;
    } hints[] = {
        {"opencl",
         "install a driver; on Debian pocl-opencl-icd for the CPU, else the one of the GPU: "
         "intel-opencl-icd, mesa-opencl-icd or nvidia-opencl-icd"        },
        {"cuda",
         "install NVIDIA's driver, and NVRTC, which compiles kernels: Debian's libnvrtc, or "
         "nvidia-cuda-nvrtc from PyPI with its folder in LD_LIBRARY_PATH"},
    };
    for (size_t i = 0; !d->present && i < sizeof hints / sizeof *hints; i++)
        if (strncmp(d->name, hints[i].backend, strlen(hints[i].backend)) == 0)
            return hints[i].text;
    return NULL;
}

static void print_text(const attend_device_info *d)
{
    printf("%s %-14s %s%s\n", d->chosen ? "*" : " ", d->name,
           d->present ? "" : "absent: ", d->detail);
    if (hint(d))
        printf("  %-14s to have it: %s\n", "", hint(d));
}

static void print_json(const attend_device_info *d)
{
    printf("{\"name\": ");
    cmd_print_json(d->name);
    printf(", \"present\": %s, \"auto\": %s, \"detail\": ", d->present ? "true" : "false",
           d->chosen ? "true" : "false");
    cmd_print_json(d->detail);
    if (hint(d)) {
        printf(", \"hint\": ");
        cmd_print_json(hint(d));
    }
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
