/* SPDX-License-Identifier: MIT */
/* In place of share.c where CUDA is left out. */
#include "attend.h"

int attend_ctx_use_cuda(attend_ctx *ctx, int index, void *stream, const char **device)
{
    (void)ctx, (void)index, (void)stream;
    *device = NULL;
    return ATTEND_EUNSUPPORTED;
}
