/* SPDX-License-Identifier: MIT */
/* The only getenv of the tree. */
#include "env.h"

#include <stdio.h>
#include <stdlib.h>

static const struct {
    const char *name;
    const char *meaning;
} vars[] = {
#define ROW(name, meaning) {"ATTEND_" #name, meaning},
    AT_ENV_LIST(ROW)
#undef ROW
};

const char *at_env(enum at_env which)
{
    const char *value = getenv(vars[which].name);
    return value && *value ? value : NULL;
}

const char *at_env_name(enum at_env which)
{
    return vars[which].name;
}

const char *at_env_meaning(enum at_env which)
{
    return vars[which].meaning;
}

int at_env_caches(char *buf, size_t size)
{
    const char *caches = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (caches && caches[0] == '/')
        return snprintf(buf, size, "%s/attend", caches);
    return home && home[0] == '/' ? snprintf(buf, size, "%s/.cache/attend", home) : -1;
}
