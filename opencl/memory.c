/* SPDX-License-Identifier: MIT */
/* Memory and queues of OpenCL devices.  Queues are in order. */
#include <stdint.h>
#include <string.h>

#include "env.h"
#include "opencl.h"

static int stream_new(const struct at_device *device, void **stream, struct at_err *e)
{
    struct at_cl_device *d = at_cl_device_of(device);
    cl_int code = CL_SUCCESS;
    int status = at_cl_open(d, e);
    *stream = NULL;
    if (status < 0)
        return status;
    if (d->given) {
        d->cl->clRetainCommandQueue(d->given);
        *stream = d->given;
        return 0;
    }
    *stream = d->cl->clCreateCommandQueue(d->context, d->id,
                                          d->ctx->trace ? CL_QUEUE_PROFILING_ENABLE : 0, &code);
    return *stream ? 0 : at_cl_fail(d, code, "clCreateCommandQueue", e);
}

static void stream_free(const struct at_device *device, void *stream)
{
    if (stream)
        at_cl_device_of(device)->cl->clReleaseCommandQueue(stream);
}

static int alloc(const struct at_device *device, int64_t bytes, void **mem, struct at_err *e)
{
    struct at_cl_device *d = at_cl_device_of(device);
    cl_int code = CL_SUCCESS;
    int status = at_cl_open(d, e);
    *mem = NULL;
    if (status < 0)
        return status;
    if ((cl_ulong)bytes > d->most_bytes)
        return at_fail(e, ATTEND_ENOMEM,
                       "%s: %lld bytes are wanted, but one buffer has at most %llu", d->device_name,
                       (long long)bytes, (unsigned long long)d->most_bytes);
    *mem =
        d->cl->clCreateBuffer(d->context, CL_MEM_READ_WRITE, (size_t)at_max(bytes, 1), NULL, &code);
    if (*mem)
        return 0;
    char name[48];
    return at_fail(e, ATTEND_ENOMEM, "%s: no memory for %lld bytes: %s", d->device_name,
                   (long long)bytes, at_cl_error_name(code, name));
}

static int wrap(const struct at_device *device, void *host, int64_t bytes, void **mem,
                struct at_err *e)
{
    struct at_cl_device *d = at_cl_device_of(device);
    cl_int code = CL_SUCCESS;
    int status = at_cl_open(d, e);
    *mem = NULL;
    if (status < 0)
        return status;
    if (d->in_place && bytes > 0 && (cl_ulong)bytes <= d->most_bytes)
        *mem = d->cl->clCreateBuffer(d->context, CL_MEM_READ_WRITE | CL_MEM_USE_HOST_PTR,
                                     (size_t)bytes, host, &code);
    return *mem ? 0 : 1;
}

static void mem_free(const struct at_device *device, void *mem)
{
    if (mem)
        at_cl_device_of(device)->cl->clReleaseMemObject(mem);
}

static int borrow(const struct at_device *device, void *mem, int64_t at, int64_t bytes,
                  struct at_err *e)
{
    struct at_cl_device *d = at_cl_device_of(device);
    cl_context context = NULL;
    size_t size = 0;
    int status = at_cl_open(d, e);
    if (status < 0)
        return status;
    cl_int code = d->cl->clGetMemObjectInfo(mem, CL_MEM_SIZE, sizeof size, &size, NULL);
    if (!code)
        code = d->cl->clGetMemObjectInfo(mem, CL_MEM_CONTEXT, sizeof context, &context, NULL);
    if (code)
        return at_cl_fail(d, code, "clGetMemObjectInfo", e);
    if (context != d->context)
        return at_fail(e, ATTEND_EINVAL,
                       "a cl_mem is of another OpenCL context than %s is used in: see "
                       "attend_ctx_use_opencl",
                       device->name);
    return (uint64_t)at + (uint64_t)bytes <= size
               ? 0
               : at_fail(e, ATTEND_EINVAL, "a cl_mem has %llu bytes, bytes %lld to %lld are bound",
                         (unsigned long long)size, (long long)at, (long long)(at + bytes));
}

static int upload(const struct at_device *device, void *stream, void *mem, int64_t offset,
                  const void *host, int64_t bytes, struct at_err *e)
{
    struct at_cl_device *d = at_cl_device_of(device);
    int status = at_cl_usable(d, e);
    if (status < 0)
        return status;
    cl_int code = d->cl->clEnqueueWriteBuffer(stream, mem, 0, (size_t)offset, (size_t)bytes, host,
                                              0, NULL, NULL);
    return code ? at_cl_fail(d, code, "clEnqueueWriteBuffer", e) : 0;
}

static int download(const struct at_device *device, void *stream, void *host, void *mem,
                    int64_t offset, int64_t bytes, struct at_err *e)
{
    struct at_cl_device *d = at_cl_device_of(device);
    int status = at_cl_usable(d, e);
    if (status < 0)
        return status;
    cl_int code = d->cl->clEnqueueReadBuffer(stream, mem, 0, (size_t)offset, (size_t)bytes, host, 0,
                                             NULL, NULL);
    return code ? at_cl_fail(d, code, "clEnqueueReadBuffer", e) : 0;
}

static int finish(const struct at_device *device, void *stream, struct at_err *e)
{
    struct at_cl_device *d = at_cl_device_of(device);
    int status = at_cl_usable(d, e);
    if (status < 0)
        return status;
    cl_int code = d->cl->clFinish(stream);
    return code ? at_cl_fail(d, code, "clFinish", e) : 0;
}

static void *mark(const struct at_device *device, void *stream)
{
    cl_event event = NULL;
    struct at_cl_device *d = at_cl_device_of(device);
    return d->cl->clEnqueueMarkerWithWaitList(stream, 0, NULL, &event) ? NULL : event;
}

/* A caller's queue may keep no times. */
static int64_t elapsed(const struct at_device *device, void *from, void *to)
{
    struct at_cl_device *d = at_cl_device_of(device);
    cl_ulong a, b;
    bool known =
        !d->cl->clGetEventProfilingInfo(from, CL_PROFILING_COMMAND_END, sizeof a, &a, NULL) &&
        !d->cl->clGetEventProfilingInfo(to, CL_PROFILING_COMMAND_END, sizeof b, &b, NULL);
    return known && b >= a ? (int64_t)(b - a) : -1;
}

static void unmark(const struct at_device *device, void *event)
{
    at_cl_device_of(device)->cl->clReleaseEvent(event);
}

const struct at_memory at_cl_memory = {.stream_new = stream_new,
                                       .stream_free = stream_free,
                                       .alloc = alloc,
                                       .wrap = wrap,
                                       .free = mem_free,
                                       .upload = upload,
                                       .download = download,
                                       .finish = finish,
                                       .borrow = borrow,
                                       .mark = mark,
                                       .elapsed = elapsed,
                                       .unmark = unmark};

/* Does the device see what the host writes into memory that a buffer was made of, and the host what
 * the device writes, without a map?  Only then nothing needs to be copied.  Asked of CPUs. */
bool at_cl_try_in_place(struct at_cl_device *d)
{
    enum { N = 4096 };
    const char *mode = at_env(AT_ENV_OPENCL_MEMORY);
    cl_int code = CL_SUCCESS;
    unsigned char *host = at_alloc(d->ctx, 2 * N), back[64] = {0};
    cl_command_queue q = NULL;
    cl_mem a = NULL, b = NULL;
    bool fine = d->is_cpu && host && !(mode && !strcmp(mode, "copy"));
    if (fine) {
        memset(host, 0, 2 * N);
        q = d->cl->clCreateCommandQueue(d->context, d->id, 0, &code);
        a = d->cl->clCreateBuffer(d->context, CL_MEM_READ_WRITE | CL_MEM_USE_HOST_PTR, N, host + 4,
                                  &code);
        b = d->cl->clCreateBuffer(d->context, CL_MEM_READ_WRITE | CL_MEM_USE_HOST_PTR, N - 64,
                                  host + N + 36, &code);
    }
    fine = fine && q && a && b;
    for (int round = 1; fine && round <= 2; round++) {
        memset(host + 4, round, 64);
        fine = d->cl->clEnqueueCopyBuffer(q, a, b, 0, 0, 64, 0, NULL, NULL) == CL_SUCCESS &&
               d->cl->clEnqueueReadBuffer(q, b, 0, 0, 64, back, 0, NULL, NULL) == CL_SUCCESS &&
               d->cl->clFinish(q) == CL_SUCCESS;
        for (int i = 0; i < 64; i++)
            fine = fine && back[i] == round && host[N + 36 + i] == round;
    }
    if (a)
        d->cl->clReleaseMemObject(a);
    if (b)
        d->cl->clReleaseMemObject(b);
    if (q)
        d->cl->clReleaseCommandQueue(q);
    at_free(d->ctx, host);
    return fine;
}
