/* SPDX-License-Identifier: MIT */
/* A stream of the caller's that a CUDA device is used with. */
#include <stdio.h>

#include "cuda.h"

static struct at_cuda_device *find(attend_ctx *ctx, int index, const char **name)
{
    char want[sizeof((struct at_device *)0)->name];
    struct at_err e = {0};
    snprintf(want, sizeof want, "cuda:%d", index);
    const struct at_device *d = at_device_find(ctx, want, &e);
    if (!d || d->backend != &at_backend_cuda || !d->present) {
        at_log(ctx, "attend_ctx_use_cuda: there is no device %s that can be used", want);
        return NULL;
    }
    *name = d->name;
    return d->handle;
}

/* Is the stream of the context in which the device is used?  The device's is current. */
static int check(struct at_cuda_device *d, cu_stream stream, struct at_err *e)
{
    cu_context of = NULL;
    cu_result code = d->cu->stream_context(stream, &of);
    if (code)
        return at_cuda_fail(d, code, "cuStreamGetCtx", e);
    return of == d->context ? 0
                            : at_fail(e, ATTEND_EINVAL,
                                      "the stream is of another context than the primary one of %s",
                                      d->device_name);
}

int attend_ctx_use_cuda(attend_ctx *ctx, int index, void *stream, const char **device)
{
    struct at_cuda_entry entry;
    struct at_err e = {0};
    *device = NULL;
    struct at_cuda_device *d = find(ctx, index, device);
    if (!d)
        return ATTEND_EUNSUPPORTED;
    int status = at_cuda_enter(d, &entry, &e);
    if (status == 0)
        status = check(d, stream, &e);
    at_cuda_leave(d, &entry);
    if (status == 0) {
        at_os_mutex_lock(d->lock);
        if (d->streams) {
            status = at_fail(&e, ATTEND_ESTATE, "%s is in use already", d->device_name);
        } else {
            d->has_given = true;
            d->given = stream;
        }
        at_os_mutex_unlock(d->lock);
    }
    if (status < 0) {
        at_log(ctx, "attend_ctx_use_cuda: %s", e.text);
        *device = NULL;
    }
    return status;
}
