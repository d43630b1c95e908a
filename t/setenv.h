/* SPDX-License-Identifier: MIT */
/* setenv and unsetenv, which POSIX has. */
#ifndef T_SETENV_H
#define T_SETENV_H

#include <stdlib.h>

#ifdef _WIN32
static inline int setenv(const char *name, const char *value, int replace)
{
    (void)replace; /* always asked for */
    return _putenv_s(name, value);
}

static inline int unsetenv(const char *name)
{
    return _putenv_s(name, "");
}
#endif

#endif
