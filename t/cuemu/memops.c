/* SPDX-License-Identifier: MIT */
/* ld and st. */
#include "emu.h"

#include <string.h>

/* Elements of a vector operand, or the operand itself. */
static int elements(const struct warp *w, const struct ptx_operand *o, const struct ptx_operand **e)
{
    *e = &w->frame->fn->vec[o->off];
    return o->count;
}

static void put_lane(struct slot *s, uint8_t width, int lane, uint64_t bits, enum ptx_type type)
{
    int n = ptx_type_bits(type);
    if (n < 64 && ptx_type_class(type) == 's')
        bits = (uint64_t)((int64_t)(bits << (64 - n)) >> (64 - n));
    if (width == 8)
        s->ul[lane] = bits;
    else
        s->u[lane] = n == 16 ? (uint32_t)bits & 0xffff : (uint32_t)bits;
}

static bool is_sync_order(int order)
{
    return order == ORD_VOLATILE || order == ORD_RELAXED || order == ORD_ACQUIRE ||
           order == ORD_RELEASE || order == ORD_SC || order == ORD_ACQ_REL;
}

/* Volatile and ordered accesses hand on what came before, see race.c and blockrace.c. */
static void synchronise(struct warp *w, const struct ptx_ins *in, enum ptx_space space,
                        const uint64_t addr[WARP], uint32_t mask, bool write)
{
    int order = in->f[F_ORDER];
    if (space == SP_SHARED) {
        if (order == ORD_RELEASE)
            race_fence(w);
        race_sync_shared(w, !write, write);
        if (order == ORD_ACQUIRE)
            race_fence(w);
        return;
    }
    for (int i = 0; i < WARP && space == SP_GLOBAL; i++) {
        if (mask >> i & 1)
            blockrace_sync(w->block, addr[i], !write, write, order == ORD_RELEASE);
    }
}

static void count(struct warp *w, enum ptx_space space, const uint64_t addr[WARP], uint32_t mask,
                  uint32_t bytes)
{
    if (space == SP_SHARED)
        stats_shared(&w->block->launch->stats, addr, mask, (int)bytes);
    else if (space == SP_GLOBAL)
        stats_global(&w->block->launch->stats, addr, mask, (int)bytes);
}

static void load_lane(struct warp *w, const struct ptx_ins *in, enum ptx_space space, int lane,
                      uint64_t addr, uint32_t size, enum access kind)
{
    const struct ptx_operand *e;
    int n = elements(w, &in->o[0], &e);
    struct place p = access_place(w, in, space, lane, addr, size * (uint32_t)n, kind);
    access_note(w, in, space, lane, addr, size * (uint32_t)n,
                kind == ACCESS_WRITE ? ACCESS_READ : kind, p, false);
    for (int k = 0; k < n; k++) {
        if (e[k].kind == O_SINK)
            continue;
        struct slot *s = slot_at(w->frame, e[k].off);
        uint64_t bits = 0;
        struct place part = {p.data + (uint32_t)k * size, p.state + (uint32_t)k * size};
        memcpy(&bits, part.data, size);
        put_lane(s, e[k].width, lane, bits, (enum ptx_type)in->type[0]);
        if (access_initialised(part, size)) {
            s->def |= 1u << lane;
        } else {
            s->def &= ~(1u << lane);
            s->origin = (uint32_t)in->line;
        }
    }
}

/* Parameters are the same for all lanes and not checked for races. */
static void load_param(struct warp *w, const struct ptx_ins *in, uint64_t addr, uint32_t size,
                       uint32_t mask)
{
    const struct ptx_operand *e;
    int n = elements(w, &in->o[0], &e), first = __builtin_ctz(mask);
    struct place p = access_place(w, in, SP_PARAM, first, addr, size * (uint32_t)n, ACCESS_READ);
    for (int k = 0; k < n; k++) {
        uint64_t bits = 0;
        memcpy(&bits, p.data + (uint32_t)k * size, size);
        if (e[k].kind == O_SINK)
            continue;
        struct slot *s = slot_at(w->frame, e[k].off);
        for (int i = 0; i < WARP; i++) {
            if (mask >> i & 1)
                put_lane(s, e[k].width, i, bits, (enum ptx_type)in->type[0]);
        }
        s->def |= mask;
    }
}

static bool uniform(const uint64_t addr[WARP], uint32_t mask)
{
    uint64_t first = addr[__builtin_ctz(mask)];
    for (int i = 0; i < WARP; i++) {
        if ((mask >> i & 1) && addr[i] != first)
            return false;
    }
    return true;
}

void op_ld(struct warp *w, const struct ptx_ins *in, uint32_t mask)
{
    uint32_t size = (uint32_t)ptx_type_bits((enum ptx_type)in->type[0]) / 8, rest;
    enum ptx_space space = (enum ptx_space)in->f[F_SPACE];
    bool sync = is_sync_order(in->f[F_ORDER]);
    for (; mask; mask = rest) {
        uint64_t addr[WARP];
        space =
            access_addresses(w, in, &in->o[1], (enum ptx_space)in->f[F_SPACE], mask, addr, &rest);
        uint32_t now = mask & ~rest;
        if (space == SP_PARAM && uniform(addr, now)) {
            load_param(w, in, addr[__builtin_ctz(now)], size, now);
            continue;
        }
        for (int i = 0; i < WARP; i++) {
            if (now >> i & 1)
                load_lane(w, in, space, i, addr[i], size, ACCESS_READ);
        }
        if (sync)
            synchronise(w, in, space, addr, now, false);
        count(w, space, addr, now, size * in->o[0].count);
    }
}

static uint64_t lane_bits(const struct slot *s, uint8_t width, int lane)
{
    return width == 8 ? s->ul[lane] : s->u[lane];
}

/* The bytes of a lane; false when some of them are undefined. */
static bool gather_lane(struct warp *w, const struct ptx_ins *in, int lane, uint32_t size,
                        uint8_t *to)
{
    const struct ptx_operand *e;
    int n = elements(w, &in->o[1], &e);
    bool defined = true;
    for (int k = 0; k < n; k++) {
        const struct slot *s = slot_at(w->frame, e[k].off);
        uint64_t bits = lane_bits(s, e[k].width, lane);
        memcpy(to + (uint32_t)k * size, &bits, size);
        defined &= s->def >> lane & 1;
    }
    return defined;
}

static void need_values(struct warp *w, const struct ptx_ins *in, uint32_t mask)
{
    const struct ptx_operand *e;
    int n = elements(w, &in->o[1], &e);
    for (int k = 0; k < n; k++)
        warp_need_defined(w, in, &e[k], mask, "a value stored to global memory");
}

static void store_lane(struct warp *w, const struct ptx_ins *in, enum ptx_space space, int lane,
                       uint64_t addr, uint32_t size, enum access kind)
{
    uint32_t bytes = size * in->o[1].count;
    uint8_t data[64];
    struct place p = access_place(w, in, space, lane, addr, bytes, ACCESS_WRITE);
    bool defined = gather_lane(w, in, lane, size, data);
    bool same = access_initialised(p, bytes) && !memcmp(p.data, data, bytes);
    access_note(w, in, space, lane, addr, bytes, kind, p, same);
    memcpy(p.data, data, bytes);
    if (!defined)
        memset(p.state, 0, bytes);
}

void op_st(struct warp *w, const struct ptx_ins *in, uint32_t mask)
{
    uint32_t size = (uint32_t)ptx_type_bits((enum ptx_type)in->type[0]) / 8, rest;
    bool sync = is_sync_order(in->f[F_ORDER]);
    for (; mask; mask = rest) {
        uint64_t addr[WARP];
        enum ptx_space space =
            access_addresses(w, in, &in->o[0], (enum ptx_space)in->f[F_SPACE], mask, addr, &rest);
        uint32_t now = mask & ~rest;
        if (space == SP_GLOBAL)
            need_values(w, in, now);
        if (sync)
            synchronise(w, in, space, addr, now, true);
        for (int i = 0; i < WARP; i++) {
            if (now >> i & 1)
                store_lane(w, in, space, i, addr[i], size, sync ? ACCESS_ATOMIC : ACCESS_WRITE);
        }
        count(w, space, addr, now, size * in->o[1].count);
    }
}
