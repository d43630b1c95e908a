/* SPDX-License-Identifier: MIT */
/* Device memory and copies.  A synchronous copy is work of the legacy stream that is waited for. */
#include "api.h"

#include <stdlib.h>
#include <string.h>

EXPORT int cuMemAlloc_v2(uint64_t *p, size_t size);
EXPORT int cuMemAlloc_v2(uint64_t *p, size_t size)
{
    int e = api_enter("cuMemAlloc", NEED_CONTEXT);
    if (e)
        return e;
    if (!size)
        return api_leave(INVALID_VALUE);
    struct alloc *a = mem_new(size, current, false);
    *p = a ? a->base : 0;
    return api_leave(a ? OK : OUT_OF_MEMORY);
}

static int free_memory(uint64_t p)
{
    bool inside;
    struct alloc *a = mem_find(p, &inside);
    if (!p)
        return OK;
    if (!a || a->base != p || a->owner != current || a->module_owned)
        return api_misuse(INVALID_VALUE, "cuMemFree of 0x%llx, which cuMemAlloc did not give",
                          (unsigned long long)p);
    if (a->freed)
        return api_misuse(INVALID_VALUE, "cuMemFree of 0x%llx for the second time",
                          (unsigned long long)p);
    if (stream_uses(current, a->base, a->size))
        api_misuse(OK, "cuMemFree of 0x%llx while queued work uses it", (unsigned long long)p);
    mem_free(a);
    return OK;
}

EXPORT int cuMemFree_v2(uint64_t p);
EXPORT int cuMemFree_v2(uint64_t p)
{
    int e = api_enter("cuMemFree", NEED_CONTEXT);
    return e ? e : api_leave(free_memory(p));
}

EXPORT int cuMemGetInfo_v2(size_t *available, size_t *total);
EXPORT int cuMemGetInfo_v2(size_t *available, size_t *total)
{
    int e = api_enter("cuMemGetInfo", NEED_CONTEXT);
    if (e)
        return e;
    *total = (size_t)config.memory << 20;
    *available = *total - mem_used();
    return api_leave(OK);
}

EXPORT int cuMemGetAddressRange_v2(uint64_t *base, size_t *size, uint64_t p);
EXPORT int cuMemGetAddressRange_v2(uint64_t *base, size_t *size, uint64_t p)
{
    int e = api_enter("cuMemGetAddressRange", NEED_CONTEXT);
    if (e)
        return e;
    struct alloc *a = mem_range(p, 1);
    if (!a)
        return api_leave(NOT_FOUND);
    if (base)
        *base = a->base;
    if (size)
        *size = a->size;
    return api_leave(OK);
}

EXPORT int cuMemHostAlloc(void **p, size_t size, unsigned flags);
EXPORT int cuMemHostAlloc(void **p, size_t size, unsigned flags)
{
    int e = api_enter("cuMemHostAlloc", NEED_CONTEXT);
    if (e)
        return e;
    (void)flags;
    *p = malloc(size);
    return api_leave(*p ? OK : OUT_OF_MEMORY);
}

EXPORT int cuMemFreeHost(void *p);
EXPORT int cuMemFreeHost(void *p)
{
    int e = api_enter("cuMemFreeHost", NEED_CONTEXT);
    if (e)
        return e;
    free(p);
    return api_leave(OK);
}

/* ---- copies ---- */

static int range_error(const char *what, uint64_t p, size_t size)
{
    if (!size || mem_range(p, size))
        return OK;
    char text[160];
    mem_describe(p, text, sizeof text);
    return api_misuse(INVALID_VALUE, "%s of %zu bytes at %s", what, size, text);
}

static int submit(void *stream, struct work w, bool wait)
{
    struct stream *s = stream_checked(stream);
    if (!s)
        return api_misuse(INVALID_HANDLE, "work for a stream that is not there");
    int e = stream_add(s, w);
    return !e && wait ? stream_drain(s) : e;
}

static int copy_in(uint64_t to, const void *from, size_t size, void *stream, bool wait)
{
    int e = range_error("a copy to the device", to, size);
    return e ? e
             : submit(
                   stream,
                   (struct work){.kind = WORK_COPY_IN, .to = to, .host_from = from, .size = size},
                   wait);
}

static int copy_out(void *to, uint64_t from, size_t size, void *stream, bool wait)
{
    int e = range_error("a copy from the device", from, size);
    return e ? e
             : submit(stream,
                      (struct work){.kind = WORK_COPY_OUT, .host = to, .from = from, .size = size},
                      wait);
}

static int copy(uint64_t to, uint64_t from, size_t size, void *stream)
{
    int e = range_error("a copy on the device to", to, size);
    if (!e)
        e = range_error("a copy on the device from", from, size);
    return e ? e
             : submit(stream,
                      (struct work){.kind = WORK_COPY, .to = to, .from = from, .size = size},
                      false);
}

static int set(uint64_t to, uint32_t value, int value_size, size_t n, void *stream)
{
    int e = range_error("a fill", to, n * (size_t)value_size);
    if (to % (unsigned)value_size)
        e = INVALID_VALUE;
    return e ? e
             : submit(stream,
                      (struct work){.kind = WORK_SET,
                                    .to = to,
                                    .value = value,
                                    .value_size = value_size,
                                    .size = n * (size_t)value_size},
                      false);
}

EXPORT int cuMemcpyHtoD_v2(uint64_t to, const void *from, size_t size);
EXPORT int cuMemcpyHtoD_v2(uint64_t to, const void *from, size_t size)
{
    int e = api_enter("cuMemcpyHtoD", NEED_CONTEXT);
    return e ? e : api_leave(copy_in(to, from, size, NULL, true));
}

EXPORT int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t size, void *stream);
EXPORT int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t size, void *stream)
{
    int e = api_enter("cuMemcpyHtoDAsync", NEED_CONTEXT);
    return e ? e : api_leave(copy_in(to, from, size, stream, false));
}

EXPORT int cuMemcpyDtoH_v2(void *to, uint64_t from, size_t size);
EXPORT int cuMemcpyDtoH_v2(void *to, uint64_t from, size_t size)
{
    int e = api_enter("cuMemcpyDtoH", NEED_CONTEXT);
    return e ? e : api_leave(copy_out(to, from, size, NULL, true));
}

EXPORT int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t size, void *stream);
EXPORT int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t size, void *stream)
{
    int e = api_enter("cuMemcpyDtoHAsync", NEED_CONTEXT);
    return e ? e : api_leave(copy_out(to, from, size, stream, false));
}

EXPORT int cuMemcpyDtoD_v2(uint64_t to, uint64_t from, size_t size);
EXPORT int cuMemcpyDtoD_v2(uint64_t to, uint64_t from, size_t size)
{
    int e = api_enter("cuMemcpyDtoD", NEED_CONTEXT);
    return e ? e : api_leave(copy(to, from, size, NULL));
}

EXPORT int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t size, void *stream);
EXPORT int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t size, void *stream)
{
    int e = api_enter("cuMemcpyDtoDAsync", NEED_CONTEXT);
    return e ? e : api_leave(copy(to, from, size, stream));
}

EXPORT int cuMemsetD8Async(uint64_t to, unsigned char value, size_t n, void *stream);
EXPORT int cuMemsetD8Async(uint64_t to, unsigned char value, size_t n, void *stream)
{
    int e = api_enter("cuMemsetD8Async", NEED_CONTEXT);
    return e ? e : api_leave(set(to, value, 1, n, stream));
}

EXPORT int cuMemsetD32Async(uint64_t to, unsigned value, size_t n, void *stream);
EXPORT int cuMemsetD32Async(uint64_t to, unsigned value, size_t n, void *stream)
{
    int e = api_enter("cuMemsetD32Async", NEED_CONTEXT);
    return e ? e : api_leave(set(to, value, 4, n, stream));
}
