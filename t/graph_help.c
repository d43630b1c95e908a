/* SPDX-License-Identifier: MIT */
#include "graph_help.h"

#include <stdio.h>
#include <string.h>

uint64_t help_draw(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

int64_t help_below(uint64_t *state, int64_t n)
{
    return (int64_t)(help_draw(state) % (uint64_t)n);
}

void help_normal(uint64_t *state, float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        double sum = 0;
        for (int k = 0; k < 3; k++)
            sum += (double)(help_draw(state) >> 11) * 0x1p-53;
        x[i] = (float)(2 * sum - 3);
    }
}

attend_ctx *help_context(int threads)
{
    attend_ctx_opts o;
    attend_ctx *ctx;
    attend_ctx_opts_init(&o);
    o.threads = threads;
    if (attend_ctx_new(&o, &ctx) < 0)
        bail("no context");
    return ctx;
}

attend_plan *help_compile(attend_graph *g, const char *device, int fuse)
{
    attend_compile_opts o;
    attend_plan *plan;
    attend_compile_opts_init(&o);
    o.device = device;
    o.fuse = fuse;
    if (attend_compile(g, &o, &plan) < 0)
        bail("compile: %s", attend_graph_error(g));
    return plan;
}

bool help_holds(const char *text, const char *part, const char *name, ...)
{
    char full[200];
    va_list ap;
    va_start(ap, name);
    vsnprintf(full, sizeof full, name, ap);
    va_end(ap);
    bool good = text && strstr(text, part);
    if (!good)
        diag("got: %s\n# wanted in it: %s", text ? text : "(null)", part);
    return ok(good, "%s", full);
}
