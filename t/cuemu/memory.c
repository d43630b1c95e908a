/* SPDX-License-Identifier: MIT */
/* Device memory: allocations in a table sorted by address.  Addresses are not the host's and are
 * never used again, so that a pointer into freed memory is known for what it is. */
#include "emu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIRST 0x200000000000ull
#define RED_ZONE 4096ull /* at least, between allocations */

static struct alloc **table;
static int ntable, table_cap;
static uint64_t next_base = FIRST, used;

struct alloc *mem_new(uint64_t size, const void *owner, bool zero)
{
    if (!size || size > (config.memory << 20) || used + size > config.memory << 20)
        return NULL;
    if (ntable == table_cap) {
        int cap = table_cap ? 2 * table_cap : 64;
        struct alloc **bigger = realloc(table, (size_t)cap * sizeof *table);
        if (!bigger)
            return NULL;
        table = bigger;
        table_cap = cap;
    }
    struct alloc *a = calloc(1, sizeof *a);
    if (!a)
        return NULL;
    a->data = malloc(size);
    a->state = calloc(1, size);
    if (!a->data || !a->state) {
        free(a->data);
        free(a->state);
        free(a);
        return NULL;
    }
    memset(a->data, zero ? 0 : 0xff, size); /* 0xff: NaN in every floating-point type */
    if (zero)
        memset(a->state, 1, size);
    a->base = next_base;
    a->size = size;
    a->owner = owner;
    next_base += (size + 2 * RED_ZONE - 1) / RED_ZONE * RED_ZONE;
    used += size;
    table[ntable++] = a;
    return a;
}

void mem_free(struct alloc *a)
{
    free(a->data);
    free(a->state);
    free(a->writer);
    free(a->reader);
    a->data = a->state = NULL;
    a->writer = NULL;
    a->reader = NULL;
    a->freed = true;
    used -= a->size;
}

struct alloc *mem_find(uint64_t at, bool *inside)
{
    int low = 0, high = ntable; /* table[low - 1]->base <= at < table[high]->base */
    while (low < high) {
        int middle = (low + high) / 2;
        if (table[middle]->base <= at)
            low = middle + 1;
        else
            high = middle;
    }
    *inside = low > 0 && at - table[low - 1]->base < table[low - 1]->size;
    return low > 0 ? table[low - 1] : NULL;
}

struct alloc *mem_range(uint64_t at, uint64_t size)
{
    bool inside;
    struct alloc *a = mem_find(at, &inside);
    return a && inside && !a->freed && size <= a->size - (at - a->base) ? a : NULL;
}

uint64_t mem_used(void)
{
    return used;
}

int mem_each(int i, struct alloc **a)
{
    if (i >= ntable)
        return 0;
    *a = table[i];
    return 1;
}

/* Where an address lies, in words. */
void mem_describe(uint64_t at, char *buf, size_t size)
{
    bool inside;
    struct alloc *a = mem_find(at, &inside);
    if (!a || at - a->base > a->size + (1u << 20))
        snprintf(buf, size, "0x%llx, which is nowhere near an allocation", (unsigned long long)at);
    else if (inside)
        snprintf(buf, size, "0x%llx, byte %llu of %s of %llu bytes", (unsigned long long)at,
                 (unsigned long long)(at - a->base),
                 a->freed ? "a freed allocation" : "an allocation", (unsigned long long)a->size);
    else
        snprintf(buf, size, "0x%llx, %llu bytes past the end of %s of %llu bytes",
                 (unsigned long long)at, (unsigned long long)(at - a->base - a->size),
                 a->freed ? "a freed allocation" : "an allocation", (unsigned long long)a->size);
}

/* The context is gone: so is all that is known of its memory. */
void mem_forget(const void *owner)
{
    int kept = 0;
    for (int i = 0; i < ntable; i++) {
        if (table[i]->owner != owner) {
            table[kept++] = table[i];
            continue;
        }
        if (!table[i]->freed)
            mem_free(table[i]);
        free(table[i]);
    }
    ntable = kept;
}

void mem_forget_accesses(void)
{
    for (int i = 0; i < ntable; i++) {
        free(table[i]->writer);
        free(table[i]->reader);
        table[i]->writer = NULL;
        table[i]->reader = NULL;
    }
}
