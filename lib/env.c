/* SPDX-License-Identifier: MIT */
/* The only getenv of the tree. */
#include "env.h"

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
