/* SPDX-License-Identifier: MIT */
/* What the checkers say: one sentence each, counted, kept for the test and printed. */
#include "emu.h"

#include <stdarg.h>
#include <stdio.h>

static int count;
static enum fault_kind last_kind;
static char last[1200];

const char *fault_name(enum fault_kind k)
{
    static const char *const names[] = {
        "none",   "out of bounds", "use after free", "uninitialised", "misaligned",
        "race",   "async",         "convergence",    "deadlock",      "race between blocks",
        "launch", "API misuse",    "leak",           "trap",          "unsupported"};
    return names[k];
}

void report(enum fault_kind k, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    vsnprintf(last, sizeof last, format, ap);
    va_end(ap);
    last_kind = k;
    count++;
    if (!config.quiet)
        fprintf(stderr, "cuemu: %s: %s\n", fault_name(k), last);
    FILE *f = config.report ? fopen(config.report, "a") : NULL;
    if (f) {
        fprintf(f, "%s: %s\n", fault_name(k), last);
        fclose(f);
    }
}

int report_count(void)
{
    return count;
}

const char *report_last(void)
{
    return last;
}

enum fault_kind report_last_kind(void)
{
    return last_kind;
}

void report_reset(void)
{
    count = 0;
    last_kind = FAULT_NONE;
    last[0] = 0;
}
