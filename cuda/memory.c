/* SPDX-License-Identifier: MIT */
/* Memory and streams of CUDA devices.  Memory that is freed is kept for the next that asks for
 * about as much: cuMemAlloc and cuMemFree are slow, and the latter waits for the whole device. */
#include <stdint.h>
#include <string.h>

#include "cuda.h"

#define GRAIN 512 /* bytes: what is asked for is rounded up to it */

struct at_cuda_block {
    struct at_cuda_block *next;
    cu_deviceptr at;
    int64_t bytes;
    bool used;
};

static void *handle_of(cu_deviceptr p)
{
    return (void *)(uintptr_t)p;
}

static cu_deviceptr pointer_of(const void *mem)
{
    return (cu_deviceptr)(uintptr_t)mem;
}

/* ---- streams ---- */

static int stream_new(const struct at_device *device, void **stream, struct at_err *e)
{
    struct at_cuda_device *d = at_cuda_device_of(device);
    struct at_cuda_entry entry;
    cu_stream s = NULL;
    *stream = NULL;
    int status = at_cuda_enter(d, &entry, e);
    at_os_mutex_lock(d->lock);
    bool given = d->has_given;
    d->streams++;
    at_os_mutex_unlock(d->lock);
    if (status == 0 && given) {
        *stream = d->given;
    } else if (status == 0) {
        cu_result code = d->cu->stream_create(&s, CU_STREAM_NON_BLOCKING);
        if (code)
            status = at_cuda_fail(d, code, "cuStreamCreate", e);
        else
            *stream = s;
    }
    at_cuda_leave(d, &entry);
    return status;
}

static void stream_free(const struct at_device *device, void *stream)
{
    struct at_cuda_device *d = at_cuda_device_of(device);
    struct at_cuda_entry entry;
    if (stream && !d->has_given && at_cuda_enter_last(d, &entry)) {
        d->cu->stream_destroy(stream);
        at_cuda_leave(d, &entry);
    }
}

/* ---- memory ---- */

/* The smallest free block that is not much too large. */
static struct at_cuda_block *reuse(struct at_cuda_device *d, int64_t bytes)
{
    struct at_cuda_block *best = NULL;
    for (struct at_cuda_block *b = d->block; b; b = b->next)
        if (!b->used && b->bytes >= bytes && b->bytes / 2 <= bytes &&
            (!best || b->bytes < best->bytes))
            best = b;
    return best;
}

/* Gives unused blocks back; whether there were any. */
static bool trim(struct at_cuda_device *d)
{
    bool any = false;
    for (struct at_cuda_block **at = &d->block; *at;) {
        struct at_cuda_block *b = *at;
        if (b->used) {
            at = &b->next;
            continue;
        }
        *at = b->next;
        d->cu->mem_free(b->at);
        at_free(d->ctx, b);
        any = true;
    }
    return any;
}

static cu_result new_block(struct at_cuda_device *d, int64_t bytes, struct at_cuda_block **out)
{
    struct at_cuda_block *b = at_calloc(d->ctx, 1, sizeof *b);
    if (!b)
        return CU_OUT_OF_MEMORY;
    cu_result code = d->cu->mem_alloc(&b->at, (size_t)bytes);
    if (code == CU_OUT_OF_MEMORY && trim(d))
        code = d->cu->mem_alloc(&b->at, (size_t)bytes);
    if (code) {
        at_free(d->ctx, b);
        return code;
    }
    b->bytes = bytes;
    b->next = d->block;
    d->block = *out = b;
    return CU_SUCCESS;
}

static int alloc(const struct at_device *device, int64_t bytes, void **mem, struct at_err *e)
{
    struct at_cuda_device *d = at_cuda_device_of(device);
    struct at_cuda_entry entry;
    cu_result code = CU_SUCCESS;
    *mem = NULL;
    int status = at_cuda_enter(d, &entry, e);
    if (status < 0) {
        at_cuda_leave(d, &entry);
        return status;
    }
    int64_t want = (at_max(bytes, 1) + GRAIN - 1) / GRAIN * GRAIN;
    at_os_mutex_lock(d->lock);
    struct at_cuda_block *b = reuse(d, want);
    if (!b)
        code = new_block(d, want, &b);
    if (b) {
        b->used = true;
        *mem = handle_of(b->at);
    }
    at_os_mutex_unlock(d->lock);
    at_cuda_leave(d, &entry);
    if (b)
        return 0;
    if (code == CU_OUT_OF_MEMORY)
        return at_fail(e, ATTEND_ENOMEM, "%s: no memory for %lld bytes", d->device_name,
                       (long long)bytes);
    return at_cuda_fail(d, code, "cuMemAlloc", e);
}

/* Memory of the host is not used in place. */
static int wrap(const struct at_device *device, void *host, int64_t bytes, void **mem,
                struct at_err *e)
{
    (void)device, (void)host, (void)bytes, (void)e;
    *mem = NULL;
    return 1;
}

/* Pointers of the caller's: within an allocation, and aligned as kernels expect of a base. */
static int borrow(const struct at_device *device, void *mem, int64_t at, int64_t bytes,
                  struct at_err *e)
{
    struct at_cuda_device *d = at_cuda_device_of(device);
    struct at_cuda_entry entry;
    cu_deviceptr base = 0, p = pointer_of(mem);
    size_t size = 0;
    if (p % 16)
        return at_fail(e, ATTEND_EINVAL,
                       "device pointer 0x%llx is no multiple of 16: bind where the memory begins, "
                       "and give the offset beside it",
                       (unsigned long long)p);
    int status = at_cuda_enter(d, &entry, e);
    cu_result code = status < 0 ? CU_SUCCESS : d->cu->mem_range(&base, &size, p);
    at_cuda_leave(d, &entry);
    if (status < 0)
        return status;
    if (code == CU_NOT_FOUND || code == CU_INVALID_VALUE)
        return at_fail(e, ATTEND_EINVAL, "0x%llx points to no memory of %s", (unsigned long long)p,
                       device->name);
    if (code)
        return at_cuda_fail(d, code, "cuMemGetAddressRange", e);
    return p - base + (uint64_t)at + (uint64_t)bytes <= size
               ? 0
               : at_fail(e, ATTEND_EINVAL,
                         "the memory at 0x%llx has %llu bytes, bytes %lld to %lld are bound",
                         (unsigned long long)p, (unsigned long long)(size - (p - base)),
                         (long long)at, (long long)(at + bytes));
}

/* Another stream may get the block next, so what may still use it is waited for. */
static void mem_free(const struct at_device *device, void *mem)
{
    struct at_cuda_device *d = at_cuda_device_of(device);
    struct at_cuda_entry entry;
    if (!mem)
        return;
    if (at_cuda_enter_last(d, &entry)) {
        d->cu->synchronize();
        at_cuda_leave(d, &entry);
    }
    at_os_mutex_lock(d->lock);
    for (struct at_cuda_block *b = d->block; b; b = b->next)
        if (b->at == pointer_of(mem))
            b->used = false;
    at_os_mutex_unlock(d->lock);
}

void at_cuda_blocks_free(struct at_cuda_device *d)
{
    for (struct at_cuda_block *b = d->block; b; b = b->next)
        b->used = false;
    trim(d);
}

/* ---- copies ---- */

static int upload(const struct at_device *device, void *stream, void *mem, int64_t offset,
                  const void *host, int64_t bytes, struct at_err *e)
{
    struct at_cuda_device *d = at_cuda_device_of(device);
    struct at_cuda_entry entry;
    int status = at_cuda_enter(d, &entry, e);
    if (status == 0) {
        cu_result code =
            d->cu->copy_in(pointer_of(mem) + (cu_deviceptr)offset, host, (size_t)bytes, stream);
        status = code ? at_cuda_fail(d, code, "cuMemcpyHtoDAsync", e) : 0;
    }
    at_cuda_leave(d, &entry);
    return status;
}

static int download(const struct at_device *device, void *stream, void *host, void *mem,
                    int64_t offset, int64_t bytes, struct at_err *e)
{
    struct at_cuda_device *d = at_cuda_device_of(device);
    struct at_cuda_entry entry;
    int status = at_cuda_enter(d, &entry, e);
    if (status == 0) {
        cu_result code =
            d->cu->copy_out(host, pointer_of(mem) + (cu_deviceptr)offset, (size_t)bytes, stream);
        status = code ? at_cuda_fail(d, code, "cuMemcpyDtoHAsync", e) : 0;
    }
    at_cuda_leave(d, &entry);
    return status;
}

static int finish(const struct at_device *device, void *stream, struct at_err *e)
{
    struct at_cuda_device *d = at_cuda_device_of(device);
    struct at_cuda_entry entry;
    int status = at_cuda_enter(d, &entry, e);
    if (status == 0) {
        cu_result code = d->cu->stream_synchronize(stream);
        status = code ? at_cuda_fail(d, code, "cuStreamSynchronize", e) : 0;
    }
    at_cuda_leave(d, &entry);
    return status;
}

/* ---- marks ---- */

static void *mark(const struct at_device *device, void *stream)
{
    struct at_cuda_device *d = at_cuda_device_of(device);
    struct at_cuda_entry entry;
    struct at_err e;
    cu_event event = NULL;
    if (at_cuda_enter(d, &entry, &e) == 0 && !d->cu->event_create(&event, 0) &&
        d->cu->event_record(event, stream)) {
        d->cu->event_destroy(event);
        event = NULL;
    }
    at_cuda_leave(d, &entry);
    return event;
}

static int64_t elapsed(const struct at_device *device, void *from, void *to)
{
    struct at_cuda_device *d = at_cuda_device_of(device);
    struct at_cuda_entry entry;
    struct at_err e;
    float ms = 0;
    bool known = at_cuda_enter(d, &entry, &e) == 0 && !d->cu->event_elapsed(&ms, from, to);
    at_cuda_leave(d, &entry);
    return known ? (int64_t)((double)ms * 1e6) : -1;
}

static void unmark(const struct at_device *device, void *event)
{
    struct at_cuda_device *d = at_cuda_device_of(device);
    struct at_cuda_entry entry;
    if (at_cuda_enter_last(d, &entry)) {
        d->cu->event_destroy(event);
        at_cuda_leave(d, &entry);
    }
}

const struct at_memory at_cuda_memory = {.stream_new = stream_new,
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
