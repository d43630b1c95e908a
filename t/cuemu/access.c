/* SPDX-License-Identifier: MIT */
/* From a lane's address to bytes, with every check on the way. */
#include "emu.h"

#include <string.h>

#define INIT 1 /* state of shared bytes */
#define IN_FLIGHT 2

static const char *const kind_names[] = {"read", "write", "atomic access"};
static const char *const space_names[] = {"generic", "global", "shared", "local", "param", "const"};

static enum ptx_space window_of(uint64_t addr)
{
    if (addr - SHARED_WINDOW < WINDOW_SIZE)
        return SP_SHARED;
    if (addr - LOCAL_WINDOW < WINDOW_SIZE)
        return SP_LOCAL;
    return addr - PARAM_WINDOW < WINDOW_SIZE ? SP_PARAM : SP_GLOBAL;
}

static uint64_t window_base(enum ptx_space s)
{
    return s == SP_SHARED  ? SHARED_WINDOW
           : s == SP_LOCAL ? LOCAL_WINDOW
           : s == SP_PARAM ? PARAM_WINDOW
                           : 0;
}

enum ptx_space access_addresses(struct warp *w, const struct ptx_ins *in,
                                const struct ptx_operand *o, enum ptx_space space, uint32_t mask,
                                uint64_t addr[WARP], uint32_t *rest)
{
    *rest = 0;
    if (!o->off) {
        for (int i = 0; i < WARP; i++)
            addr[i] = (uint64_t)o->disp;
        return space;
    }
    warp_need_defined(w, in, o, mask, "an address");
    const struct slot *s = slot_at(w->frame, o->off);
    for (int i = 0; i < WARP; i++)
        addr[i] = (o->width == 8 ? s->ul[i] : s->u[i]) + (uint64_t)o->disp;
    if (space == SP_SHARED && o->width == 4) {
        for (int i = 0; i < WARP; i++)
            addr[i] &= 0xffffffffu;
    }
    if (space != SP_NONE)
        return space;
    space = window_of(addr[__builtin_ctz(mask)]);
    for (int i = 0; i < WARP; i++) {
        if ((mask >> i & 1) && window_of(addr[i]) != space)
            *rest |= 1u << i;
        addr[i] -= window_base(space);
    }
    return space;
}

/* Finds the allocation of a global access, or ends the launch. */
static struct alloc *find_alloc(struct warp *w, const struct ptx_ins *in, int lane, uint64_t addr,
                                uint32_t bytes, enum access kind)
{
    struct launch *l = w->block->launch;
    struct alloc *a = l->last;
    if (a && addr - a->base < a->size && bytes <= a->size - (addr - a->base))
        return a;
    a = mem_range(addr, bytes);
    if (!a || a->owner != l->owner) {
        char text[160];
        bool inside;
        struct alloc *near = mem_find(addr, &inside);
        mem_describe(addr, text, sizeof text);
        warp_fault(w, in, lane, near && inside && near->freed ? FAULT_FREED : FAULT_BOUNDS,
                   "%s of %u bytes at %s%s", kind_names[kind], bytes, text,
                   a ? ", which is of another context" : "");
    }
    l->last = a;
    return a;
}

struct place access_place(struct warp *w, const struct ptx_ins *in, enum ptx_space space, int lane,
                          uint64_t addr, uint32_t bytes, enum access kind)
{
    const struct launch *l = w->block->launch;
    struct block *b = w->block;
    if (addr & (bytes - 1))
        warp_fault(w, in, lane, FAULT_ALIGN, "%s of %u bytes at %s address 0x%llx",
                   kind_names[kind], bytes, space_names[space], (unsigned long long)addr);
    uint64_t size;
    struct place p;
    switch (space) {
    case SP_SHARED:
        size = b->shared_size;
        p = (struct place){b->shared + addr, b->shared_state + addr};
        break;
    case SP_LOCAL:
        size = l->local_size;
        p = (struct place){w->local + (size_t)lane * size + addr,
                           w->local_state + (size_t)lane * size + addr};
        break;
    case SP_PARAM:
        size = l->fn->param_size;
        p = (struct place){(uint8_t *)(uintptr_t)l->params + addr,
                           (uint8_t *)(uintptr_t)l->param_state + addr};
        break;
    default: {
        struct alloc *a = find_alloc(w, in, lane, addr, bytes, kind);
        if (a->constant && kind != ACCESS_READ)
            warp_fault(w, in, lane, FAULT_BOUNDS, "%s of constant memory", kind_names[kind]);
        return (struct place){a->data + (addr - a->base), a->state + (addr - a->base)};
    }
    }
    if (addr > size || bytes > size - addr || (space == SP_PARAM && kind != ACCESS_READ))
        warp_fault(w, in, lane, FAULT_BOUNDS, "%s of %u bytes at %s byte %llu of %llu",
                   kind_names[kind], bytes, space_names[space], (unsigned long long)addr,
                   (unsigned long long)size);
    return p;
}

/* Has any byte the flag? / Have all?  Words of 8 at a time, where there are so many. */
static bool any(const uint8_t *state, uint32_t bytes, uint8_t flag)
{
    uint8_t seen = 0;
    if (bytes == 16) {
        uint64_t a, b;
        memcpy(&a, state, 8);
        memcpy(&b, state + 8, 8);
        return ((a | b) & 0x0101010101010101u * flag) != 0;
    }
    for (uint32_t i = 0; i < bytes; i++)
        seen |= state[i];
    return seen & flag;
}

static bool all(const uint8_t *state, uint32_t bytes, uint8_t flag)
{
    uint8_t seen = 0xff;
    if (bytes == 16) {
        uint64_t a, b, want = 0x0101010101010101u * flag;
        memcpy(&a, state, 8);
        memcpy(&b, state + 8, 8);
        return (a & b & want) == want;
    }
    for (uint32_t i = 0; i < bytes; i++)
        seen &= state[i];
    return seen & flag;
}

void access_note(struct warp *w, const struct ptx_ins *in, enum ptx_space space, int lane,
                 uint64_t addr, uint32_t bytes, enum access kind, struct place p, bool same_value)
{
    if (space == SP_SHARED) {
        if (any(p.state, bytes, IN_FLIGHT))
            warp_fault(w, in, lane, FAULT_ASYNC,
                       "%s of shared byte %llu, which an asynchronous copy is still to fill",
                       kind_names[kind], (unsigned long long)addr);
        race_shared(w, in, lane, (uint32_t)addr, bytes, kind, same_value);
    } else if (space == SP_GLOBAL && config.checks) {
        blockrace_access(w, in, lane, w->block->launch->last, addr, bytes, kind);
    }
    if (kind != ACCESS_READ)
        memset(p.state, INIT, bytes);
}

bool access_initialised(struct place p, uint32_t bytes)
{
    return all(p.state, bytes, INIT);
}
