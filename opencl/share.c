/* SPDX-License-Identifier: MIT */
/* OpenCL objects of the caller's: a context and a queue that a device is used with. */
#include "opencl.h"

struct given {
    cl_context context;
    cl_command_queue queue;
    cl_device_id device;
};

/* What is not given follows from the queue.  Says what is wrong, or NULL. */
static const char *complete(const struct at_cl *cl, struct given *g)
{
    cl_device_id list[64];
    cl_context of_queue = NULL;
    cl_bitfield properties = 0;
    size_t size = 0;
    if (!g->queue) {
        if (cl->clGetContextInfo(g->context, CL_CONTEXT_DEVICES, sizeof list, list, &size) || !size)
            return "clGetContextInfo tells no device of the context";
        g->device = list[0];
        return NULL;
    }
    if (cl->clGetCommandQueueInfo(g->queue, CL_QUEUE_DEVICE, sizeof g->device, &g->device, NULL) ||
        cl->clGetCommandQueueInfo(g->queue, CL_QUEUE_CONTEXT, sizeof of_queue, &of_queue, NULL) ||
        cl->clGetCommandQueueInfo(g->queue, CL_QUEUE_PROPERTIES, sizeof properties, &properties,
                                  NULL))
        return "clGetCommandQueueInfo fails for the queue";
    if (properties & CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE)
        return "the queue is out of order";
    if (g->context && g->context != of_queue)
        return "the queue is of another context";
    g->context = of_queue;
    return NULL;
}

static int use(struct at_cl_device *d, const struct given *g)
{
    int status = 0;
    at_os_mutex_lock(d->lock);
    if (d->context) {
        status = ATTEND_ESTATE;
    } else {
        d->cl->clRetainContext(g->context);
        if (g->queue)
            d->cl->clRetainCommandQueue(g->queue);
        d->context = g->context;
        d->given = g->queue;
        d->in_place = at_cl_try_in_place(d);
    }
    at_os_mutex_unlock(d->lock);
    return status;
}

int attend_ctx_use_opencl(attend_ctx *ctx, void *context, void *queue, const char **device)
{
    struct given g = {.context = context, .queue = queue};
    const char *wrong = context || queue ? NULL : "neither context nor queue is given";
    int n = attend_device_count(ctx); /* finds them */
    struct at_opencl *o = ctx->opencl;
    *device = NULL;
    if (!o || !o->ndevice)
        return ATTEND_EUNSUPPORTED;
    if (!wrong)
        wrong = complete(&o->cl, &g);
    if (wrong) {
        at_log(ctx, "attend_ctx_use_opencl: %s", wrong);
        return ATTEND_EINVAL;
    }
    for (int i = 0; i < n; i++) {
        struct at_cl_device *d = ctx->device[i].handle;
        if (ctx->device[i].backend != &at_backend_opencl || !ctx->device[i].present ||
            d->id != g.device)
            continue;
        *device = ctx->device[i].name;
        return use(d, &g);
    }
    at_log(ctx, "attend_ctx_use_opencl: the device is none of those that attend devices lists");
    return ATTEND_EUNSUPPORTED;
}
