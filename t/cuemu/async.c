/* SPDX-License-Identifier: MIT */
/* cp.async: a copy is under way from its issue to a wait of the lane that issued it.  Its bytes may
 * land at any time between, so they land at once (eager) or at the wait (lazy, the default); a
 * program that is right does not see which.  Until then nobody may read or write them. */
#include "emu.h"

#include <stdlib.h>
#include <string.h>

#define INIT 1
#define IN_FLIGHT 2

/* The bytes arrive: `from_size` of them are copied, the rest are zero. */
static void land(struct warp *w, const struct copy *c)
{
    uint8_t *to = w->block->shared + c->shared, *state = w->block->shared_state + c->shared;
    uint8_t was[16];
    memset(was, INIT, sizeof was);
    memset(to, 0, c->size);
    if (c->from_size) {
        struct alloc *a = mem_range(c->from, c->from_size);
        if (!a)
            warp_fault(w, c->ins, c->lane, FAULT_FREED,
                       "the source of an asynchronous copy is gone");
        memcpy(to, a->data + (c->from - a->base), c->from_size);
        memcpy(was, a->state + (c->from - a->base), c->from_size);
    }
    for (uint32_t i = 0; i < c->size; i++)
        state[i] = (was[i] & INIT) | (state[i] & IN_FLIGHT);
}

/* The lane's wait is over: its bytes are written, now, by this lane. */
static void finish(struct warp *w, const struct copy *c)
{
    if (!config.eager)
        land(w, c);
    uint8_t *state = w->block->shared_state + c->shared;
    for (uint32_t i = 0; i < c->size; i++)
        state[i] &= (uint8_t)~IN_FLIGHT;
    race_shared(w, c->ins, c->lane, c->shared, c->size, ACCESS_WRITE, false);
}

/* Finishes the copies of lanes in mask whose group is older than keep groups from the newest. */
static void wait(struct warp *w, uint32_t mask, uint32_t keep, bool uncommitted)
{
    int kept = 0;
    for (int i = 0; i < w->ncopies; i++) {
        struct copy c = w->copies[i];
        bool due =
            uncommitted || (c.group < w->commits[c.lane] && w->commits[c.lane] - c.group > keep);
        if ((mask >> c.lane & 1) && due)
            finish(w, &c);
        else
            w->copies[kept++] = c;
    }
    w->ncopies = kept;
}

void async_drop(struct warp *w, uint32_t mask)
{
    if (w->ncopies)
        wait(w, mask, 0, true);
}

static uint32_t operand(const struct warp *w, const struct ptx_operand *o, int lane)
{
    return slot_at(w->frame, o->off)->u[lane];
}

static void issue_lane(struct warp *w, const struct ptx_ins *in, int lane, uint64_t to,
                       uint64_t from, uint32_t size, uint32_t from_size)
{
    struct place p = access_place(w, in, SP_SHARED, lane, to, size, ACCESS_WRITE);
    for (uint32_t i = 0; i < size; i++) {
        if (p.state[i] & IN_FLIGHT)
            warp_fault(w, in, lane, FAULT_ASYNC,
                       "two asynchronous copies to shared byte %llu at a time",
                       (unsigned long long)to);
    }
    race_shared(w, in, lane, (uint32_t)to, size, ACCESS_WRITE, false);
    if (from & (size - 1))
        warp_fault(w, in, lane, FAULT_ALIGN,
                   "an asynchronous copy of %u bytes from global address 0x%llx", size,
                   (unsigned long long)from);
    if (from_size == size) {
        access_place(w, in, SP_GLOBAL, lane, from, size, ACCESS_READ);
    } else { /* a tail may have any length */
        for (uint32_t at = 0; at < from_size; at++)
            access_place(w, in, SP_GLOBAL, lane, from + at, 1, ACCESS_READ);
    }
    if (from_size && config.checks)
        blockrace_access(w, in, lane, w->block->launch->last, from, from_size, ACCESS_READ);
    if (w->ncopies == w->copy_cap) {
        w->copy_cap = w->copy_cap ? 2 * w->copy_cap : 256;
        w->copies = realloc(w->copies, (size_t)w->copy_cap * sizeof *w->copies);
        if (!w->copies)
            abort();
    }
    struct copy c = {(uint32_t)to, size, from_size, w->commits[lane], from, lane, in};
    w->copies[w->ncopies++] = c;
    memset(p.state, IN_FLIGHT, size);
    if (config.eager)
        land(w, &c);
    else
        memset(p.data, 0xff, size);
}

static void issue(struct warp *w, const struct ptx_ins *in, uint32_t mask)
{
    uint64_t to[WARP], from[WARP];
    uint32_t rest, size = operand(w, &in->o[2], 0);
    access_addresses(w, in, &in->o[0], SP_SHARED, mask, to, &rest);
    enum ptx_space space =
        access_addresses(w, in, &in->o[1], (enum ptx_space)in->f[F_TO], mask, from, &rest);
    if (rest || space != SP_GLOBAL)
        warp_fault(w, in, -1, FAULT_BOUNDS,
                   "an asynchronous copy whose source is not global memory");
    bool cg = in->f[F_CACHE] == 2;
    if (!(size == 16 || (!cg && (size == 4 || size == 8))))
        warp_fault(w, in, -1, FAULT_UNSUPPORTED, "an asynchronous copy of %u bytes", size);
    bool has_size = in->nin > 3;
    if (has_size)
        warp_need_defined(w, in, &in->o[3], mask, "the size of an asynchronous copy");
    for (int i = 0; i < WARP; i++) {
        if (!(mask >> i & 1))
            continue;
        uint32_t from_size = has_size ? operand(w, &in->o[3], i) : size;
        if (from_size > size)
            warp_fault(w, in, i, FAULT_BOUNDS, "an asynchronous copy of %u bytes to %u", from_size,
                       size);
        issue_lane(w, in, i, to[i], from[i], size, from_size);
    }
    stats_shared(&w->block->launch->stats, to, mask, (int)size);
    stats_global(&w->block->launch->stats, from, mask, (int)size);
}

void op_cp(struct warp *w, const struct ptx_ins *in, uint32_t mask)
{
    switch (in->f[F_GROUP]) {
    case 0:
        issue(w, in, mask);
        break;
    case 1:
        for (int i = 0; i < WARP; i++)
            w->commits[i] += mask >> i & 1;
        break;
    case 2:
        wait(w, mask, operand(w, &in->o[0], 0), false);
        break;
    default:
        wait(w, mask, 0, true);
    }
}
