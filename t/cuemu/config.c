/* SPDX-License-Identifier: MIT */
/* Settings of the emulator, from variables CUEMU_x or from a test. */
#include "emu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct config config;

static const char *const names[] = {"CUEMU_CC",    "CUEMU_DRIVER", "CUEMU_ASYNC", "CUEMU_SCHED",
                                    "CUEMU_LIMIT", "CUEMU_MEMORY", "CUEMU_CHECK", "CUEMU_FAIL",
                                    "CUEMU_STATS", "CUEMU_REPORT", "CUEMU_QUIET"};

static void keep(char **to, const char *value)
{
    free(*to);
    *to = *value ? ptx_copy_text(value, strlen(value)) : NULL;
}

bool config_set(const char *name, const char *value)
{
    const char *v = value ? value : "";
    if (!strcmp(name, "CUEMU_CC"))
        config.cc = *v ? atoi(v) : 80;
    else if (!strcmp(name, "CUEMU_DRIVER"))
        config.driver = *v ? atoi(v) : 13000;
    else if (!strcmp(name, "CUEMU_ASYNC"))
        config.eager = !strcmp(v, "eager");
    else if (!strcmp(name, "CUEMU_SCHED"))
        config.seed = (uint32_t)strtoul(v, NULL, 0);
    else if (!strcmp(name, "CUEMU_LIMIT"))
        config.limit = *v ? strtoull(v, NULL, 0) : 2000000000u;
    else if (!strcmp(name, "CUEMU_MEMORY"))
        config.memory = *v ? strtoull(v, NULL, 0) : 16384;
    else if (!strcmp(name, "CUEMU_CHECK"))
        config.checks = strcmp(v, "0") != 0;
    else if (!strcmp(name, "CUEMU_FAIL"))
        keep(&config.fail, v);
    else if (!strcmp(name, "CUEMU_STATS"))
        keep(&config.stats, v);
    else if (!strcmp(name, "CUEMU_REPORT"))
        keep(&config.report, v);
    else if (!strcmp(name, "CUEMU_QUIET"))
        config.quiet = *v && strcmp(v, "0");
    else
        return false;
    return true;
}

void config_read(void)
{
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        config_set(names[i], getenv(names[i]));
}
