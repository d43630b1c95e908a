/* SPDX-License-Identifier: MIT */
/* Finding CUDA: the driver, its devices and what these can do. */
#include <stdio.h>
#include <string.h>

#include "cuda.h"
#include "variants.h"
#include "env.h"

static const char *const names[] = {"libcuda.so.1", "libcuda.so", "nvcuda.dll"};

static bool take_functions(struct at_cuda *c, char *why, size_t size)
{
#define TAKE(name, symbol, args)                                                                   \
    if (!at_os_lib_symbol(c->lib, #symbol, &c->cu.name)) {                                         \
        snprintf(why, size, "the CUDA driver has no " #symbol);                                    \
        return false;                                                                              \
    }
    AT_CU_LIST(TAKE)
#undef TAKE
    return true;
}

static bool load(struct at_cuda *c, char *why, size_t size)
{
    const char *asked = at_env(AT_ENV_LIBCUDA);
    char err[256];
    int status = asked ? at_os_lib_open(&c->lib, asked, err, sizeof err) : -1;
    for (int i = 0; !asked && status < 0 && i < AT_LEN(names); i++)
        status = at_os_lib_open(&c->lib, names[i], err, sizeof err);
    if (status < 0) {
        if (asked)
            snprintf(why, size, "%s names no library: %.150s", at_env_name(AT_ENV_LIBCUDA), err);
        else
            snprintf(why, size, "no CUDA driver was found (%s, for one)", names[0]);
        return false;
    }
    return take_functions(c, why, size);
}

/* ---- errors ---- */

static const char *error_name(const struct at_cu *cu, cu_result code)
{
    const char *name = NULL;
    return !cu->error_name(code, &name) && name ? name : "an unknown error";
}

/* After these the context answers nothing else any more. */
static bool fatal(cu_result code)
{
    return code >= CU_ILLEGAL_ADDRESS && code < 800 && code != 701 && code != 704 && code != 705;
}

int at_cuda_fail(struct at_cuda_device *d, cu_result code, const char *what, struct at_err *e)
{
    const char *name = error_name(d->cu, code);
    if (code == CU_OUT_OF_MEMORY)
        return at_fail(e, ATTEND_ENOMEM, "%s: %s is out of memory", d->device_name, what);
    if (fatal(code))
        d->lost = true;
    return at_fail(e, ATTEND_EDEVICE, "%s: %s failed: %s (%d)%s", d->device_name, what, name, code,
                   fatal(code) ? "; the device is lost to this context" : "");
}

/* ---- what a device is ---- */

static int attribute(const struct at_cuda_device *d, int which)
{
    int value = 0;
    return d->cu->device_attribute(&value, which, d->id) ? 0 : value;
}

static void ask(struct at_cuda_device *d)
{
    if (d->cu->device_name(d->device_name, (int)sizeof d->device_name, d->id))
        strcpy(d->device_name, "a device without a name");
    if (d->cu->device_memory(&d->global_bytes, d->id))
        d->global_bytes = 0;
    d->capability = 10 * attribute(d, CU_CAPABILITY_MAJOR) + attribute(d, CU_CAPABILITY_MINOR);
    d->units = attribute(d, CU_MULTIPROCESSORS);
    d->gpu = (struct at_gpu){
        .dialect = AT_EXPR_CUDA,
        .local_bytes = attribute(d, CU_MAX_SHARED_PER_BLOCK),
        .group_items = attribute(d, CU_MAX_THREADS_PER_BLOCK),
        .tensor_cores = d->capability,
        .most_local_bytes = attribute(d, CU_MAX_SHARED_OPTIN),
        .kernel = at_cuda_kernel,
        .launch = at_cuda_launch,
        .library = at_cuda_library,
        .gemm = at_cuda_gemm,
    };
}

/* Why a device is of no use, or NULL. */
static const char *useless(const struct at_cuda_device *d)
{
    if (d->capability < 75)
        return "it is older than Turing (7.5)";
    if (attribute(d, CU_WARP_SIZE) != 32)
        return "its warps have not 32 lanes";
    if (!d->compiler->lib)
        return at_cuda_ptx[0].text ? NULL : d->compiler->why;
    if (!at_cuda_compiler_target(d->compiler, d->capability))
        return "the compiler that was found knows no architecture that it runs";
    return NULL;
}

static int add(attend_ctx *ctx, struct at_cuda_device *d, int index)
{
    struct at_device out = {
        .backend = &at_backend_cuda, .kernels = &d->gpu, .handle = d, .memory = &at_cuda_memory};
    const char *why = useless(d);
    char nvrtc[32];
    snprintf(out.name, sizeof out.name, "cuda:%d", index);
    out.present = !why;
    if (d->compiler->lib)
        snprintf(nvrtc, sizeof nvrtc, "NVRTC %d.%d", d->compiler->version / 1000,
                 d->compiler->version % 1000 / 10);
    else
        snprintf(nvrtc, sizeof nvrtc, "no NVRTC, %s embedded PTX",
                 at_cuda_ptx[0].text ? "but" : "and no");
    snprintf(
        out.detail, sizeof out.detail,
        "%.80s, compute capability %d.%d, %d units, %.1f GiB, driver for CUDA %d.%d, %s%s%.100s",
        d->device_name, d->capability / 10, d->capability % 10, d->units,
        (double)d->global_bytes / 0x1p30, d->driver / 1000, d->driver % 1000 / 10, nvrtc,
        why ? "; " : "", why ? why : "");
    return at_device_add(ctx, &out);
}

static int absent(attend_ctx *ctx, const char *why)
{
    struct at_device d = {.backend = &at_backend_cuda, .name = "cuda"};
    snprintf(d.detail, sizeof d.detail, "%s", why);
    return at_device_add(ctx, &d);
}

static int find_devices(attend_ctx *ctx, struct at_cuda *c)
{
    char why[160];
    int n = 0, driver = 0, status = 0;
    cu_result code = c->cu.init(0);
    if (!code)
        code = c->cu.driver_version(&driver);
    if (!code)
        code = c->cu.device_count(&n);
    if (code || n < 1) {
        snprintf(why, sizeof why, "the CUDA driver has no device: %s (%d)",
                 code ? error_name(&c->cu, code) : "it counts none", code);
        return absent(ctx, why);
    }
    c->device = at_calloc(ctx, AT_MAX_DEVICES, sizeof *c->device);
    if (!c->device)
        return ATTEND_ENOMEM;
    at_cuda_compiler_find(&c->compiler, driver);
    for (int i = 0; i < n && i < AT_MAX_DEVICES && status == 0; i++) {
        struct at_cuda_device *d = &c->device[i];
        *d = (struct at_cuda_device){
            .cu = &c->cu, .compiler = &c->compiler, .ctx = ctx, .driver = driver};
        d->lock = at_os_mutex_new();
        d->blas_lock = at_os_mutex_new();
        c->ndevice++;
        if (!d->lock || !d->blas_lock)
            return ATTEND_ENOMEM;
        if (c->cu.device_get(&d->id, i))
            continue;
        ask(d);
        status = add(ctx, d, i);
    }
    return status;
}

static int probe(attend_ctx *ctx)
{
    char why[240] = "";
    struct at_cuda *c = ctx->cuda = at_calloc(ctx, 1, sizeof *c);
    if (!c)
        return ATTEND_ENOMEM;
    return load(c, why, sizeof why) ? find_devices(ctx, c) : absent(ctx, why);
}

/* ---- opening and closing ---- */

int at_cuda_open(struct at_cuda_device *d, struct at_err *e)
{
    cu_result code = CU_SUCCESS;
    at_os_mutex_lock(d->lock);
    if (!d->context && !d->lost)
        code = d->cu->context_retain(&d->context, d->id);
    if (code)
        d->context = NULL;
    bool lost = d->lost;
    at_os_mutex_unlock(d->lock);
    if (lost)
        return at_fail(e, ATTEND_EDEVICE, "%s was lost: this context cannot use it any more",
                       d->device_name);
    return code ? at_cuda_fail(d, code, "cuDevicePrimaryCtxRetain", e) : 0;
}

int at_cuda_enter(struct at_cuda_device *d, struct at_cuda_entry *entry, struct at_err *e)
{
    *entry = (struct at_cuda_entry){.changed = false};
    int status = at_cuda_open(d, e);
    if (status < 0)
        return status;
    cu_result code = d->cu->context_get(&entry->before);
    if (!code && entry->before != d->context) {
        code = d->cu->context_set(d->context);
        entry->changed = !code;
    }
    return code ? at_cuda_fail(d, code, "cuCtxSetCurrent", e) : 0;
}

bool at_cuda_enter_last(struct at_cuda_device *d, struct at_cuda_entry *entry)
{
    *entry = (struct at_cuda_entry){.changed = true};
    if (d->cu->context_get(&entry->before))
        entry->before = NULL;
    return d->context && (!d->cu->context_set(d->context) || !d->cu->context_set(d->context));
}

void at_cuda_leave(struct at_cuda_device *d, const struct at_cuda_entry *entry)
{
    if (entry->changed)
        d->cu->context_set(entry->before);
}

static void close_device(struct at_cuda_device *d)
{
    struct at_cuda_entry entry;
    if (d->context && at_cuda_enter_last(d, &entry)) {
        at_cuda_library_free(d);
        at_cuda_programs_free(d);
        at_cuda_blocks_free(d);
        at_cuda_leave(d, &entry);
    }
    if (d->context)
        d->cu->context_release(d->id);
    at_os_mutex_free(d->blas_lock);
    at_os_mutex_free(d->lock);
}

static void leave(attend_ctx *ctx)
{
    struct at_cuda *c = ctx->cuda;
    if (!c)
        return;
    for (int i = 0; i < c->ndevice; i++)
        close_device(&c->device[i]);
    at_os_lib_keep(c->compiler.lib); /* both leave threads behind: their code must stay */
    at_os_lib_keep(c->lib);
    at_free(ctx, c->device);
    at_free(ctx, c);
    ctx->cuda = NULL;
}

const struct at_backend at_backend_cuda = {
    .name = "cuda", .probe = probe, .rows = at_gpu_rows, .leave = leave, .lazy = true};
