/* SPDX-License-Identifier: MIT */
/* Checked allocation through the context's allocator.  That wants to be told the size when memory
 * is given back, so a block remembers its own, in the AT_ALIGN bytes before it. */
#include "core.h"
#include "os.h"

#include <stdlib.h>
#include <string.h>

#define LARGE ((size_t)2 << 20) /* from here on whole pages, for which large ones are asked */

static void *libc_alloc(size_t bytes)
{
    if (bytes >= LARGE)
        return at_os_alloc_pages(bytes);
    return at_os_alloc(AT_ALIGN, bytes);
}

static void libc_free(void *p, size_t bytes)
{
    if (bytes >= LARGE)
        at_os_free_pages(p);
    else
        at_os_free(p);
}

void *at_alloc(attend_ctx *ctx, int64_t bytes)
{
    if (bytes < 0 || (uint64_t)bytes > SIZE_MAX - 2 * AT_ALIGN)
        return NULL;
    const attend_allocator *mem = &ctx->mem;
    size_t size = (size_t)bytes + AT_ALIGN;
    char *block = mem->alloc ? mem->alloc(mem->arg, size, AT_ALIGN) : libc_alloc(size);
    if (!block)
        return NULL;
    memcpy(block, &size, sizeof size);
    return block + AT_ALIGN;
}

void *at_calloc(attend_ctx *ctx, int64_t count, int64_t size)
{
    int64_t bytes = at_mul_size(count, size);
    void *p = at_alloc(ctx, bytes);
    return p ? memset(p, 0, (size_t)bytes) : NULL;
}

void at_free(attend_ctx *ctx, void *p)
{
    if (!p)
        return;
    const attend_allocator *mem = &ctx->mem;
    char *block = (char *)p - AT_ALIGN;
    size_t size;
    memcpy(&size, block, sizeof size);
    if (mem->alloc)
        mem->free(mem->arg, block, size);
    else
        libc_free(block, size);
}

char *at_strdup(attend_ctx *ctx, const char *s)
{
    size_t size = strlen(s) + 1;
    char *copy = at_alloc(ctx, (int64_t)size);
    return copy ? memcpy(copy, s, size) : NULL;
}

bool at_grow(attend_ctx *ctx, void **array, int *cap, int count, int64_t size)
{
    if (count < *cap)
        return true;
    if (*cap > INT32_MAX / 2)
        return false;
    int larger = *cap ? 2 * *cap : 8;
    void *p = at_alloc(ctx, at_mul_size(larger, size));
    if (!p)
        return false;
    if (count > 0)
        memcpy(p, *array, (size_t)(count * size));
    at_free(ctx, *array);
    *array = p;
    *cap = larger;
    return true;
}

int64_t at_mul_size(int64_t a, int64_t b)
{
    if (a < 0 || b < 0 || (b > 0 && a > INT64_MAX / b))
        return -1;
    return a * b;
}

void attend_free(void *p)
{
    free(p);
}
