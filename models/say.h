/* SPDX-License-Identifier: MIT */
/* How a loader refuses: one sentence to the caller's buffer, and the status to return. */
#ifndef AT_SAY_H
#define AT_SAY_H

#include <stdarg.h>
#include <stdio.h>

__attribute__((format(printf, 4, 5))) static inline int at_say(char *err, size_t errlen, int status,
                                                               const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    if (errlen > 0)
        vsnprintf(err, errlen, fmt, ap);
    va_end(ap);
    return status;
}

#endif
