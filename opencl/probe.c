/* SPDX-License-Identifier: MIT */
/* Finding OpenCL: the library, its platforms, their devices and what these can do. */
#include <stdio.h>
#include <string.h>

#include "env.h"
#include "opencl.h"

/* Where loaders live; the last but one are Android's vendors, which hide it from the usual path. */
static const char *const names[] = {"libOpenCL.so.1",
                                    "libOpenCL.so",
                                    "OpenCL.dll",
                                    "/vendor/lib64/libOpenCL.so",
                                    "/system/vendor/lib64/libOpenCL.so",
                                    "/vendor/lib/libOpenCL.so",
                                    "/System/Library/Frameworks/OpenCL.framework/OpenCL"};

static bool take_functions(struct at_opencl *o, char *why, size_t size)
{
#define TAKE(result, name, args)                                                                   \
    if (!at_os_lib_symbol(o->lib, #name, &o->cl.name)) {                                           \
        snprintf(why, size, "the OpenCL library has no " #name);                                   \
        return false;                                                                              \
    }
    AT_CL_LIST(TAKE)
#undef TAKE
    return true;
}

static bool load(struct at_opencl *o, char *why, size_t size)
{
    const char *asked = at_env(AT_ENV_LIBOPENCL);
    char err[256];
    int status = asked ? at_os_lib_open(&o->lib, asked, err, sizeof err) : -1;
    for (int i = 0; !asked && status < 0 && i < AT_LEN(names); i++)
        status = at_os_lib_open(&o->lib, names[i], err, sizeof err);
    if (status < 0) {
        if (asked)
            snprintf(why, size, "%s names no library: %.150s", at_env_name(AT_ENV_LIBOPENCL), err);
        else
            snprintf(why, size, "no OpenCL library was found (%s, for one)", names[0]);
        return false;
    }
    return take_functions(o, why, size);
}

/* ---- what a device is ---- */

static void text(const struct at_cl_device *d, cl_uint what, char *buf, size_t size)
{
    if (d->cl->clGetDeviceInfo(d->id, what, size, buf, NULL) != CL_SUCCESS)
        buf[0] = 0;
    buf[size - 1] = 0;
}

static void platform_text(const struct at_cl_device *d, cl_uint what, char *buf, size_t size)
{
    if (d->cl->clGetPlatformInfo(d->platform, what, size, buf, NULL) != CL_SUCCESS)
        buf[0] = 0;
    buf[size - 1] = 0;
}

static cl_ulong number(const struct at_cl_device *d, cl_uint what, size_t bytes)
{
    cl_ulong n = 0; /* little-endian: 32 bits fill the lower half */
    if (d->cl->clGetDeviceInfo(d->id, what, bytes, &n, NULL) != CL_SUCCESS)
        n = 0;
    return n;
}

static bool has(const struct at_cl_device *d, const char *extension)
{
    size_t size = 0, n = strlen(extension);
    bool found = false;
    if (d->cl->clGetDeviceInfo(d->id, CL_DEVICE_EXTENSIONS, 0, NULL, &size) != CL_SUCCESS)
        return false;
    char *all = at_calloc(d->ctx, (int64_t)size + 1, 1);
    if (all && d->cl->clGetDeviceInfo(d->id, CL_DEVICE_EXTENSIONS, size, all, NULL) == CL_SUCCESS)
        for (const char *p = all; (p = strstr(p, extension)); p += n)
            found = found || ((p == all || p[-1] == ' ') && (p[n] == ' ' || !p[n]));
    at_free(d->ctx, all);
    return found;
}

static void ask(struct at_cl_device *d)
{
    text(d, CL_DEVICE_NAME, d->device_name, sizeof d->device_name);
    text(d, CL_DRIVER_VERSION, d->driver, sizeof d->driver);
    text(d, CL_DEVICE_VERSION, d->version, sizeof d->version);
    platform_text(d, CL_PLATFORM_NAME, d->platform_name, sizeof d->platform_name);
    platform_text(d, CL_PLATFORM_VERSION, d->platform_version, sizeof d->platform_version);
    d->is_cpu = (number(d, CL_DEVICE_TYPE, 8) & CL_DEVICE_TYPE_CPU) != 0;
    d->units = (cl_uint)number(d, CL_DEVICE_MAX_COMPUTE_UNITS, 4);
    d->global_bytes = number(d, CL_DEVICE_GLOBAL_MEM_SIZE, 8);
    d->most_bytes = number(d, CL_DEVICE_MAX_MEM_ALLOC_SIZE, 8);
    d->fp16 = has(d, "cl_khr_fp16");
    d->fp64 = has(d, "cl_khr_fp64");
    d->subgroups = has(d, "cl_khr_subgroups") || has(d, "cl_intel_subgroups");
    d->dot = has(d, "cl_khr_integer_dot_product");
    d->gpu = (struct at_gpu){
        .dialect = AT_EXPR_OPENCL,
        .cpu = d->is_cpu,
        .lanes = number(d, CL_DEVICE_NATIVE_VECTOR_WIDTH_FLOAT, 4) >= 16 ? 16 : 8,
        .slow_local = strstr(d->device_name, "Mali") != NULL,
        .local_bytes = (int64_t)number(d, CL_DEVICE_LOCAL_MEM_SIZE, 8),
        .group_items = (int64_t)number(d, CL_DEVICE_MAX_WORK_GROUP_SIZE, sizeof(size_t)),
        .kernel = at_cl_kernel,
        .launch = at_cl_launch,
        .library = at_cl_library,
        .gemm = at_cl_gemm,
    };
}

/* Why a device is of no use, or NULL. */
static const char *useless(const struct at_cl_device *d)
{
    if (!number(d, CL_DEVICE_AVAILABLE, 4))
        return "it says that it is not available";
    if (!number(d, CL_DEVICE_COMPILER_AVAILABLE, 4))
        return "it has no compiler";
    if (!strncmp(d->version, "OpenCL 1.0", 10) || !strncmp(d->version, "OpenCL 1.1", 10))
        return "it is older than OpenCL 1.2";
    if (d->gpu.group_items < 64)
        return "its work-groups have fewer than 64 items";
    if (d->gpu.local_bytes < 16384)
        return "it has less than 16 KiB of local memory";
    return NULL;
}

static int add(attend_ctx *ctx, struct at_cl_device *d, int index)
{
    struct at_device out = {
        .backend = &at_backend_opencl, .kernels = &d->gpu, .handle = d, .memory = &at_cl_memory};
    const char *why = useless(d);
    snprintf(out.name, sizeof out.name, "opencl:%d", index);
    out.present = !why;
    snprintf(out.detail, sizeof out.detail,
             "%s: %.80s, %s, %u units, %.1f GiB, local %lld KiB, groups of %lld%s%s%s%s; %.24s%s%s",
             d->platform_name, d->device_name, d->is_cpu ? "CPU" : "device", d->units,
             (double)d->global_bytes / 0x1p30, (long long)d->gpu.local_bytes / 1024,
             (long long)d->gpu.group_items, d->fp16 ? ", fp16" : "", d->fp64 ? ", fp64" : "",
             d->subgroups ? ", subgroups" : "", d->dot ? ", dot" : "", d->version, why ? "; " : "",
             why ? why : "");
    return at_device_add(ctx, &out);
}

static int absent(attend_ctx *ctx, const char *why)
{
    struct at_device d = {.backend = &at_backend_opencl, .name = "opencl"};
    snprintf(d.detail, sizeof d.detail, "%s", why);
    return at_device_add(ctx, &d);
}

/* Why a platform must not be asked for its devices; NULL: it may.  PoCL ends the process where it
 * cannot see the processor's topology, as in a container without /sys. */
static const char *refuses(const struct at_opencl *o, cl_platform_id platform)
{
    char name[64] = "";
    o->cl.clGetPlatformInfo(platform, CL_PLATFORM_NAME, sizeof name - 1, name, NULL);
    return !strcmp(name, "Portable Computing Language") &&
                   !at_os_is_folder("/sys/devices/system/cpu")
               ? "PoCL would end the program: /sys is not mounted here"
               : NULL;
}

static int find_devices(attend_ctx *ctx, struct at_opencl *o)
{
    const char *why = "no OpenCL implementation has a device";
    cl_platform_id platform[16];
    cl_device_id id[16];
    cl_uint np = 0, nd = 0;
    int status = 0;
    cl_int code = o->cl.clGetPlatformIDs(AT_LEN(platform), platform, &np);
    if (code != CL_SUCCESS || np == 0)
        return absent(ctx, "the OpenCL loader knows no implementation (clGetPlatformIDs)");
    o->device = at_calloc(ctx, AT_MAX_DEVICES, sizeof *o->device);
    if (!o->device)
        return ATTEND_ENOMEM;
    for (cl_uint p = 0; p < np && p < AT_LEN(platform); p++) {
        const char *refusal = refuses(o, platform[p]);
        if (refusal) {
            why = refusal;
            continue;
        }
        if (o->cl.clGetDeviceIDs(platform[p], CL_DEVICE_TYPE_ALL, AT_LEN(id), id, &nd) !=
            CL_SUCCESS)
            continue;
        for (cl_uint i = 0; i < nd && i < AT_LEN(id) && o->ndevice < AT_MAX_DEVICES && status == 0;
             i++) {
            struct at_cl_device *d = &o->device[o->ndevice];
            *d = (struct at_cl_device){
                .cl = &o->cl, .ctx = ctx, .platform = platform[p], .id = id[i]};
            d->lock = at_os_mutex_new();
            if (!d->lock)
                return ATTEND_ENOMEM;
            ask(d);
            status = add(ctx, d, o->ndevice++);
        }
    }
    return status == 0 && o->ndevice == 0 ? absent(ctx, why) : status;
}

static int probe(attend_ctx *ctx)
{
    char why[240] = "";
    struct at_opencl *o = ctx->opencl = at_calloc(ctx, 1, sizeof *o);
    if (!o)
        return ATTEND_ENOMEM;
    return load(o, why, sizeof why) ? find_devices(ctx, o) : absent(ctx, why);
}

/* ---- opening and closing ---- */

int at_cl_open(struct at_cl_device *d, struct at_err *e)
{
    cl_int code = CL_SUCCESS;
    at_os_mutex_lock(d->lock);
    if (!d->context && !d->lost) {
        d->context = d->cl->clCreateContext(NULL, 1, &d->id, NULL, NULL, &code);
        if (d->context)
            d->in_place = at_cl_try_in_place(d);
    }
    bool lost = d->lost, open = d->context != NULL;
    at_os_mutex_unlock(d->lock);
    if (lost)
        return at_cl_usable(d, e);
    return open ? 0 : at_cl_fail(d, code, "clCreateContext", e);
}

static void leave(attend_ctx *ctx)
{
    struct at_opencl *o = ctx->opencl;
    if (!o)
        return;
    for (int i = 0; i < o->ndevice; i++) {
        struct at_cl_device *d = &o->device[i];
        at_cl_programs_free(d);
        at_cl_library_leave(d);
        if (d->given)
            o->cl.clReleaseCommandQueue(d->given);
        if (d->context)
            o->cl.clReleaseContext(d->context);
        at_os_mutex_free(d->lock);
    }
    at_os_lib_keep(o->lib); /* drivers leave threads behind: their code must stay */
    at_free(ctx, o->device);
    at_free(ctx, o);
    ctx->opencl = NULL;
}

const struct at_backend at_backend_opencl = {
    .name = "opencl", .probe = probe, .rows = at_gpu_rows, .leave = leave, .lazy = true};

/* ---- errors ---- */

const char *at_cl_error_name(cl_int code, char buf[48])
{
    static const struct {
        cl_int code;
        const char *name;
    } list[] = {
        {-1,  "CL_DEVICE_NOT_FOUND"             },
        {-2,  "CL_DEVICE_NOT_AVAILABLE"         },
        {-3,  "CL_COMPILER_NOT_AVAILABLE"       },
        {-4,  "CL_MEM_OBJECT_ALLOCATION_FAILURE"},
        {-5,  "CL_OUT_OF_RESOURCES"             },
        {-6,  "CL_OUT_OF_HOST_MEMORY"           },
        {-11, "CL_BUILD_PROGRAM_FAILURE"        },
        {-14, "CL_EXEC_STATUS_ERROR"            },
        {-30, "CL_INVALID_VALUE"                },
        {-36, "CL_INVALID_COMMAND_QUEUE"        },
        {-38, "CL_INVALID_MEM_OBJECT"           },
        {-42, "CL_INVALID_BINARY"               },
        {-43, "CL_INVALID_BUILD_OPTIONS"        },
        {-46, "CL_INVALID_KERNEL_NAME"          },
        {-51, "CL_INVALID_ARG_SIZE"             },
        {-52, "CL_INVALID_KERNEL_ARGS"          },
        {-54, "CL_INVALID_WORK_GROUP_SIZE"      },
        {-55, "CL_INVALID_WORK_ITEM_SIZE"       },
        {-61, "CL_INVALID_BUFFER_SIZE"          },
        {-63, "CL_INVALID_GLOBAL_WORK_SIZE"     },
    };
    const char *name = "error";
    for (int i = 0; i < AT_LEN(list); i++)
        if (list[i].code == code)
            name = list[i].name;
    snprintf(buf, 48, "%s (%d)", name, (int)code);
    return buf;
}

int at_cl_usable(const struct at_cl_device *d, struct at_err *e)
{
    return d->lost
               ? at_fail(e, ATTEND_EDEVICE, "%s was lost (%s): this context cannot use it any more",
                         d->device_name, d->lost_by)
               : 0;
}

int at_cl_fail(struct at_cl_device *d, cl_int code, const char *what, struct at_err *e)
{
    char name[48];
    bool lost = code == CL_OUT_OF_RESOURCES || code == CL_EXEC_STATUS_ERROR ||
                code == CL_INVALID_COMMAND_QUEUE;
    at_cl_error_name(code, name);
    if (code == CL_MEM_OBJECT_ALLOCATION_FAILURE || code == CL_OUT_OF_HOST_MEMORY)
        return at_fail(e, ATTEND_ENOMEM, "%s: %s is out of memory: %s", d->device_name, what, name);
    if (lost && !d->lost) {
        d->lost = true;
        snprintf(d->lost_by, sizeof d->lost_by, "%.60s failed: %s", what, name);
    }
    return at_fail(e, ATTEND_EDEVICE, "%s: %s failed: %s%s", d->device_name, what, name,
                   lost ? "; the device is lost to this context" : "");
}
