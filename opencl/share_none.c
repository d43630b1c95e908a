/* SPDX-License-Identifier: MIT */
/* In place of share.c where OpenCL is left out. */
#include "attend.h"

int attend_ctx_use_opencl(attend_ctx *ctx, void *context, void *queue, const char **device)
{
    (void)ctx, (void)context, (void)queue;
    *device = NULL;
    return ATTEND_EUNSUPPORTED;
}
