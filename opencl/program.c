/* SPDX-License-Identifier: MIT */
/* Programs of OpenCL devices: from this context, from the disk, or compiled; and launches. */
#include <stdio.h>
#include <string.h>

#include "opencl.h"
#include "progcache.h"

#define OPTIONS "-cl-std=CL1.2"

/* ---- compiling ---- */

/* The first line of a build log that says "error", with the line of source that it names. */
static int build_failed(struct at_cl_device *d, cl_program p, cl_int code, const char *text,
                        const char *options, struct at_err *e)
{
    size_t size = 0;
    char name[48], line[160] = "", source[160] = "";
    d->cl->clGetProgramBuildInfo(p, d->id, CL_PROGRAM_BUILD_LOG, 0, NULL, &size);
    char *log = at_calloc(d->ctx, (int64_t)size + 1, 1);
    if (log)
        d->cl->clGetProgramBuildInfo(p, d->id, CL_PROGRAM_BUILD_LOG, size, log, NULL);
    const char *found = log ? strstr(log, "error") : NULL;
    while (found && found > log && found[-1] != '\n')
        found--;
    int number = 0;
    if (found)
        snprintf(line, sizeof line, "%.*s", (int)strcspn(found, "\n"), found);
    const char *colon = strchr(line, ':');
    if (colon && sscanf(colon, ":%d", &number) == 1 && number > 0) {
        const char *at = text;
        for (int n = 1; n < number && at; n++)
            at = strchr(at, '\n') ? strchr(at, '\n') + 1 : NULL;
        if (at)
            snprintf(source, sizeof source, "%.*s", (int)strcspn(at, "\n"), at);
    }
    if (log && log[0])
        at_log(d->ctx, "%s: build log: %.400s", d->device_name, log);
    at_free(d->ctx, log);
    return at_fail(e, ATTEND_EUNSUPPORTED, "%s: compiling with %s gave %s: %s%s%s", d->device_name,
                   options, at_cl_error_name(code, name), line[0] ? line : "no log",
                   source[0] ? " | " : "", source);
}

static cl_program from_disk(struct at_cl_device *d, const uint8_t key[32], const char *options)
{
    int64_t bytes;
    cl_int code = CL_SUCCESS, state = CL_SUCCESS;
    unsigned char *data = at_progcache_read(d->ctx, key, &bytes);
    if (!data)
        return NULL;
    size_t size = (size_t)bytes;
    const unsigned char *const_data = data;
    cl_program p =
        d->cl->clCreateProgramWithBinary(d->context, 1, &d->id, &size, &const_data, &state, &code);
    if (p && (code || state || d->cl->clBuildProgram(p, 1, &d->id, options, NULL, NULL))) {
        d->cl->clReleaseProgram(p);
        p = NULL;
    }
    at_free(d->ctx, data);
    return p;
}

static int compile(struct at_cl_device *d, const char *text, const char *options, cl_program *out,
                   struct at_err *e)
{
    cl_int code = CL_SUCCESS;
    cl_program p = d->cl->clCreateProgramWithSource(d->context, 1, &text, NULL, &code);
    if (!p)
        return at_cl_fail(d, code, "clCreateProgramWithSource", e);
    code = d->cl->clBuildProgram(p, 1, &d->id, options, NULL, NULL);
    if (code) {
        int status = build_failed(d, p, code, text, options, e);
        d->cl->clReleaseProgram(p);
        return status;
    }
    *out = p;
    return 0;
}

/* To the disk.  After kernels were made: some drivers compile only then. */
static void keep(struct at_cl_device *d, struct at_program *p)
{
    size_t size = 0;
    if (!p->fresh)
        return;
    p->fresh = false;
    if (d->cl->clGetProgramInfo(p->handle, CL_PROGRAM_BINARY_SIZES, sizeof size, &size, NULL) ||
        !size)
        return;
    unsigned char *data = at_alloc(d->ctx, (int64_t)size);
    if (data && !d->cl->clGetProgramInfo(p->handle, CL_PROGRAM_BINARIES, sizeof data, &data, NULL))
        at_progcache_write(d->ctx, p->key, data, (int64_t)size);
    at_free(d->ctx, data);
}

static int make(void *device, struct at_program *p, const char *text, const char *options,
                struct at_err *e)
{
    struct at_cl_device *d = device;
    cl_program made = from_disk(d, p->key, options);
    p->fresh = !made;
    int status = p->fresh ? compile(d, text, options, &made, e) : 0;
    p->handle = made;
    return status;
}

/* A kernel, once its needs were compared with what the device has: drivers do not always.  One that
 * was compiled for groups of some size is tried with them, even where Mesa's rusticl says that it
 * runs in smaller ones: it does run. */
static int find(void *device, struct at_program *p, struct at_kernel *k, struct at_err *e)
{
    struct at_cl_device *d = device;
    cl_int code = CL_SUCCESS;
    cl_ulong local = 0;
    size_t items = 0, made_for[3] = {0};
    k->handle = d->cl->clCreateKernel(p->handle, k->name, &code);
    if (!k->handle)
        return at_cl_fail(d, code, "clCreateKernel", e);
    d->cl->clGetKernelWorkGroupInfo(k->handle, d->id, CL_KERNEL_WORK_GROUP_SIZE, sizeof items,
                                    &items, NULL);
    d->cl->clGetKernelWorkGroupInfo(k->handle, d->id, CL_KERNEL_LOCAL_MEM_SIZE, sizeof local,
                                    &local, NULL);
    d->cl->clGetKernelWorkGroupInfo(k->handle, d->id, CL_KERNEL_COMPILE_WORK_GROUP_SIZE,
                                    sizeof made_for, made_for, NULL);
    k->items = at_max((int64_t)items, (int64_t)made_for[0]);
    if (local > (cl_ulong)d->gpu.local_bytes) {
        d->cl->clReleaseKernel(k->handle);
        return at_fail(e, ATTEND_EUNSUPPORTED,
                       "kernel %s wants %llu bytes of local memory, %s has %lld", k->name,
                       (unsigned long long)local, d->device_name, (long long)d->gpu.local_bytes);
    }
    keep(d, p);
    return 0;
}

int at_cl_kernel(const struct at_device *device, const struct at_gpu_source *source,
                 const char *name, void **kernel, struct at_err *e)
{
    static const struct at_program_maker maker = {make, find};
    struct at_cl_device *d = at_cl_device_of(device);
    uint8_t key[32];
    char options[sizeof OPTIONS + sizeof source->defines + 1];
    int status = at_cl_open(d, e);
    if (status < 0)
        return status;
    char *text = at_gpu_program_text(source);
    if (!text)
        return at_fail(e, ATTEND_ENOMEM, "no memory for a program");
    snprintf(options, sizeof options, "%s %s", OPTIONS, source->defines);
    at_program_key((const char *const[]){text, options, d->device_name, d->driver, d->version,
                                         d->platform_version},
                   6, key);
    at_os_mutex_lock(d->lock);
    status = at_program_kernel(d->ctx, &d->program, &maker, d, key, text, options, name, kernel, e);
    at_os_mutex_unlock(d->lock);
    attend_free(text);
    return status;
}

void at_cl_programs_free(struct at_cl_device *d)
{
    for (struct at_program *p = d->program, *next; p; p = next) {
        next = p->next;
        for (int i = 0; i < p->nkernel; i++)
            d->cl->clReleaseKernel(p->kernel[i].handle);
        d->cl->clReleaseProgram(p->handle);
        at_free(d->ctx, p);
    }
    d->program = NULL;
}

/* ---- launching ---- */

static cl_int set_args(const struct at_cl_device *d, cl_kernel k, const struct at_gpu_launch *l)
{
    cl_int code = d->cl->clSetKernelArg(k, 0, l->bytes, l->args);
    for (int i = 0; i < l->nbuffer && !code; i++) {
        cl_mem mem = l->buffer[i];
        code = d->cl->clSetKernelArg(k, (cl_uint)i + 1, sizeof mem, &mem);
    }
    return code;
}

int at_cl_launch(const struct at_device *device, void *stream, const struct at_gpu_launch *l,
                 struct at_err *e)
{
    struct at_cl_device *d = at_cl_device_of(device);
    const struct at_kernel *k = l->kernel;
    size_t global[3], local[3] = {(size_t)l->items, 1, 1};
    if (d->lost)
        return at_cl_usable(d, e);
    if (l->items > k->items)
        return at_fail(e, ATTEND_EUNSUPPORTED,
                       "%s: kernel %s runs in groups of at most %lld items, wants %d",
                       d->device_name, k->name, (long long)k->items, l->items);
    for (int i = 0; i < 3; i++) {
        if (l->groups[i] <= 0)
            return 0; /* nothing to do */
        global[i] = (size_t)l->groups[i] * local[i];
    }
    at_os_mutex_lock(d->lock); /* arguments are the kernel's until it is enqueued */
    cl_int code = set_args(d, k->handle, l);
    const char *what = code ? "clSetKernelArg" : "clEnqueueNDRangeKernel";
    if (!code)
        code =
            d->cl->clEnqueueNDRangeKernel(stream, k->handle, 3, NULL, global, local, 0, NULL, NULL);
    at_os_mutex_unlock(d->lock);
    if (!code)
        return 0;
    char where[96], name[48];
    snprintf(where, sizeof where, "%s of %s", what, k->name);
    if (code == CL_INVALID_WORK_GROUP_SIZE) /* another kernel may run */
        return at_fail(e, ATTEND_EUNSUPPORTED, "%s: %s in groups of %d items failed: %s",
                       d->device_name, where, l->items, at_cl_error_name(code, name));
    return at_cl_fail(d, code, where, e);
}
