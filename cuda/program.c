/* SPDX-License-Identifier: MIT */
/* Programs of CUDA devices: from this context, from the disk, or compiled; and launches.
 *
 * A cubin for the exact architecture comes first, since any driver that knows the architecture
 * takes it; where the compiler does not know the architecture, or the device refuses the cubin,
 * PTX; and last the PTX that is embedded for some programs, where there is no compiler or it is too
 * new for the driver. */
#include <stdio.h>
#include <string.h>

#include "cuda.h"
#include "progcache.h"
#include "variants.h"

/* ---- compiling ---- */

static cu_result load(struct at_cuda_device *d, const void *image, struct at_program *p, char *log,
                      size_t size)
{
    int option[2] = {CU_JIT_ERROR_LOG, CU_JIT_ERROR_LOG_SIZE};
    void *value[2] = {log, (void *)(uintptr_t)size};
    cu_module m = NULL;
    log[0] = 0;
    cu_result code = d->cu->module_load(&m, image, 2, option, value);
    p->handle = m;
    return code;
}

/* The status of a module that the device was given; arch says what for. */
static int loaded(struct at_cuda_device *d, cu_result code, const char *arch, const char *log,
                  struct at_err *e)
{
    if (!code)
        return 0;
    if (code == CU_NO_BINARY_FOR_GPU || code == CU_INVALID_PTX ||
        code == CU_UNSUPPORTED_PTX_VERSION)
        return at_fail(e, ATTEND_EUNSUPPORTED, "%s takes no program for %s (%d): %.150s",
                       d->device_name, arch, code, log);
    return at_cuda_fail(d, code, "cuModuleLoadDataEx", e);
}

/* Compiles for an architecture and loads it; what was loaded goes to the disk. */
static int build(struct at_cuda_device *d, const char *text, const char *defines, const char *arch,
                 struct at_program *p, struct at_err *e)
{
    char *image = NULL, log[256], options[sizeof((struct at_gpu_source *)0)->defines + 16];
    size_t bytes = 0;
    snprintf(options, sizeof options, "-lineinfo %s", defines);
    int status = at_cuda_compile(d, text, options, arch, &image, &bytes, e);
    if (status < 0)
        return status;
    status = loaded(d, load(d, image, p, log, sizeof log), arch, log, e);
    if (status == 0)
        at_progcache_write(d->ctx, p->key, image, (int64_t)bytes);
    at_free(d->ctx, image);
    return status;
}

/* The embedded PTX of a program that suits the device best. */
static int embedded(struct at_cuda_device *d, const char *text, const char *defines,
                    struct at_program *p, struct at_err *e)
{
    const struct at_cuda_ptx *best = NULL;
    uint8_t key[32];
    char arch[48], log[256];
    at_program_key((const char *const[]){text, defines}, 2, key);
    for (const struct at_cuda_ptx *x = at_cuda_ptx; x->text; x++)
        if (!memcmp(x->key, key, sizeof key) && x->capability <= d->capability &&
            (!best || x->capability > best->capability))
            best = x;
    if (!best)
        return at_fail(e, ATTEND_EUNSUPPORTED,
                       "no NVRTC compiles it for %s, and it is not among the embedded programs",
                       d->device_name);
    snprintf(arch, sizeof arch, "compute_%d, embedded", best->capability);
    return loaded(d, load(d, best->text, p, log, sizeof log), arch, log, e);
}

static bool from_disk(struct at_cuda_device *d, struct at_program *p)
{
    int64_t bytes;
    char log[256];
    void *image = at_progcache_read(d->ctx, p->key, &bytes);
    bool good = image && !load(d, image, p, log, sizeof log);
    at_free(d->ctx, image);
    return good;
}

static int compile(struct at_cuda_device *d, const char *text, const char *defines,
                   struct at_program *p, struct at_err *e)
{
    char arch[24];
    int target = at_cuda_compiler_target(d->compiler, d->capability), status = ATTEND_EUNSUPPORTED;
    if (target == d->capability && !d->ptx_only) {
        snprintf(arch, sizeof arch, "sm_%d", target);
        struct at_err refused = {0};
        status = build(d, text, defines, arch, p, &refused);
        d->ptx_only = status == ATTEND_EUNSUPPORTED;
        if (status < 0 && !d->ptx_only)
            *e = refused;
    }
    if (status == ATTEND_EUNSUPPORTED && target) {
        snprintf(arch, sizeof arch, "compute_%d", target);
        status = build(d, text, defines, arch, p, e);
    }
    if (status != ATTEND_EUNSUPPORTED)
        return status;
    struct at_err none = {0};
    status = embedded(d, text, defines, p, &none);
    if (status < 0 && (status != ATTEND_EUNSUPPORTED || !target))
        *e = none; /* else what the compiler said */
    else if (status == 0)
        at_err_clear(e);
    return status;
}

static int make(void *device, struct at_program *p, const char *text, const char *defines,
                struct at_err *e)
{
    return from_disk(device, p) ? 0 : compile(device, text, defines, p, e);
}

static int find(void *device, struct at_program *p, struct at_kernel *k, struct at_err *e)
{
    struct at_cuda_device *d = device;
    cu_function f = NULL;
    int items = 0;
    cu_result code = d->cu->module_function(&f, p->handle, k->name);
    if (!code) /* CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK */
        code = d->cu->function_attribute(&items, 0, f);
    k->handle = f;
    k->items = items;
    return code ? at_cuda_fail(d, code, "cuModuleGetFunction", e) : 0;
}

int at_cuda_kernel(const struct at_device *device, const struct at_gpu_source *source,
                   const char *name, void **kernel, struct at_err *e)
{
    static const struct at_program_maker maker = {make, find};
    struct at_cuda_device *d = at_cuda_device_of(device);
    struct at_cuda_entry entry;
    uint8_t key[32];
    char versions[96];
    char *text = at_gpu_program_text(source);
    if (!text)
        return at_fail(e, ATTEND_ENOMEM, "no memory for a program");
    snprintf(versions, sizeof versions, "cuda %d %d %d", d->capability, d->driver,
             d->compiler->version);
    at_program_key((const char *const[]){text, source->defines, d->device_name, versions}, 4, key);
    int status = at_cuda_enter(d, &entry, e);
    if (status == 0) {
        at_os_mutex_lock(d->lock);
        status = at_program_kernel(d->ctx, &d->program, &maker, d, key, text, source->defines, name,
                                   kernel, e);
        at_os_mutex_unlock(d->lock);
    }
    at_cuda_leave(d, &entry);
    attend_free(text);
    return status;
}

void at_cuda_programs_free(struct at_cuda_device *d)
{
    for (struct at_program *p = d->program, *next; p; p = next) {
        next = p->next;
        d->cu->module_unload(p->handle);
        at_free(d->ctx, p);
    }
    d->program = NULL;
}

/* ---- launching ---- */

/* More shared memory than every kernel may have is asked for once. */
static int allow_local(struct at_cuda_device *d, struct at_kernel *k, int64_t bytes,
                       struct at_err *e)
{
    cu_result code = CU_SUCCESS;
    at_os_mutex_lock(d->lock);
    if (bytes > k->local_bytes) {
        code = d->cu->function_set(k->handle, CU_FUNC_MAX_DYNAMIC, (int)bytes);
        k->local_bytes = code ? k->local_bytes : bytes;
    }
    at_os_mutex_unlock(d->lock);
    return code ? at_cuda_fail(d, code, "cuFuncSetAttribute", e) : 0;
}

int at_cuda_launch(const struct at_device *device, void *stream, const struct at_gpu_launch *l,
                   struct at_err *e)
{
    struct at_cuda_device *d = at_cuda_device_of(device);
    struct at_cuda_entry entry;
    struct at_kernel *k = l->kernel;
    cu_deviceptr buffer[AT_GPU_BUFFERS];
    void *param[AT_GPU_BUFFERS + 1] = {(void *)(uintptr_t)l->args};
    unsigned grid[3];
    static const int64_t most[3] = {INT32_MAX, 65535, 65535};
    if (l->items > k->items)
        return at_fail(e, ATTEND_EUNSUPPORTED,
                       "%s: kernel %s runs in groups of at most %lld items, wants %d",
                       d->device_name, k->name, (long long)k->items, l->items);
    for (int i = 0; i < 3; i++) {
        if (l->groups[i] <= 0)
            return 0; /* nothing to do */
        if (l->groups[i] > most[i])
            return at_fail(e, ATTEND_ELIMIT,
                           "%s: kernel %s would have %lld groups along axis %d, at most %lld",
                           d->device_name, k->name, (long long)l->groups[i], i, (long long)most[i]);
        grid[i] = (unsigned)l->groups[i];
    }
    for (int i = 0; i < l->nbuffer; i++) {
        buffer[i] = (cu_deviceptr)(uintptr_t)l->buffer[i];
        param[i + 1] = &buffer[i];
    }
    int status = at_cuda_enter(d, &entry, e);
    if (status == 0)
        status = allow_local(d, k, l->local_bytes, e);
    if (status == 0) {
        cu_result code = d->cu->launch(k->handle, grid[0], grid[1], grid[2], (unsigned)l->items, 1,
                                       1, (unsigned)l->local_bytes, stream, param, NULL);
        char where[96];
        snprintf(where, sizeof where, "cuLaunchKernel of %s", k->name);
        status = code ? at_cuda_fail(d, code, where, e) : 0;
    }
    at_cuda_leave(d, &entry);
    return status;
}
