/* SPDX-License-Identifier: MIT */
/* shfl, vote, match, redux, activemask, elect, bar.warp.sync: lanes exchange values.  All lanes
 * that the member mask names must be there; the rest of a warp need not. */
#include "emu.h"

/* The member mask, which the lanes must agree on, and which must be those that are here. */
static uint32_t members(struct warp *w, const struct ptx_ins *in, const struct ptx_operand *o,
                        uint32_t mask)
{
    warp_need_defined(w, in, o, mask, "a member mask");
    const struct slot *s = slot_at(w->frame, o->off);
    uint32_t m = s->u[__builtin_ctz(mask)];
    for (int i = 0; i < WARP; i++) {
        if (!(mask >> i & 1))
            continue;
        if (s->u[i] != m)
            warp_fault(w, in, i, FAULT_CONVERGENCE,
                       "lanes with different member masks %08x and %08x", m, s->u[i]);
        if (!(m >> i & 1))
            warp_fault(w, in, i, FAULT_CONVERGENCE, "a lane outside its own member mask %08x", m);
    }
    if (m & w->live & ~mask)
        warp_fault(w, in, __builtin_ctz(m & w->live & ~mask), FAULT_CONVERGENCE,
                   "the member mask %08x names lanes %08x, which are not here (lanes %08x are)", m,
                   m & w->live & ~mask, mask);
    return m;
}

static void give(struct frame *fr, const struct ptx_operand *o, int lane, uint32_t value,
                 bool defined, const struct ptx_ins *in)
{
    if (o->kind == O_SINK)
        return;
    struct slot *d = slot_at(fr, o->off);
    if (o->kind == O_PRED)
        d->mask = (d->mask & ~(1u << lane)) | (value ? 1u << lane : 0);
    else
        d->u[lane] = value;
    d->def = (d->def & ~(1u << lane)) | (defined ? 1u << lane : 0);
    if (!defined)
        d->origin = (uint32_t)in->line;
}

/* PTX ISA, shfl.sync: the lane to read from, and whether it is in range (the predicate). */
static int source_lane(int mode, int lane, uint32_t b, uint32_t c, bool *in_range)
{
    int bound = (int)(c & 31), segment = (int)(c >> 8 & 31), value = (int)(b & 31);
    int highest = (lane & segment) | (bound & ~segment), lowest = lane & segment, j;
    switch (mode) {
    case M_UP:
        j = lane - value;
        *in_range = j >= highest;
        break;
    case M_DOWN:
        j = lane + value;
        *in_range = j <= highest;
        break;
    case M_BFLY:
        j = lane ^ value;
        *in_range = j <= highest;
        break;
    default:
        j = lowest | (value & ~segment);
        *in_range = j <= highest;
    }
    return *in_range ? j : lane;
}

void op_shfl(struct warp *w, const struct ptx_ins *in, uint32_t mask)
{
    const struct ptx_operand *o = in->o;
    members(w, in, &o[5], mask);
    warp_need_defined(w, in, &o[3], mask, "the lane of a shuffle");
    warp_need_defined(w, in, &o[4], mask, "the bounds of a shuffle");
    const struct slot a = *slot_at(w->frame, o[2].off), *b = slot_at(w->frame, o[3].off),
                      *c = slot_at(w->frame, o[4].off);
    int from[WARP];
    bool in_range[WARP];
    for (int i = 0; i < WARP; i++)
        from[i] = source_lane(in->f[F_MODE], i, b->u[i], c->u[i], &in_range[i]);
    for (int i = 0; i < WARP; i++) {
        if (!(mask >> i & 1))
            continue;
        if (!(mask >> from[i] & 1))
            warp_fault(w, in, i, FAULT_CONVERGENCE, "a shuffle reads lane %d, which is not here",
                       from[i]);
        give(w->frame, &o[0], i, a.u[from[i]], a.def >> from[i] & 1, in);
        give(w->frame, &o[1], i, in_range[i], true, in);
    }
}

void op_vote(struct warp *w, const struct ptx_ins *in, uint32_t mask)
{
    uint32_t m = members(w, in, &in->o[2], mask) & mask;
    warp_need_defined(w, in, &in->o[1], mask, "the predicate of a vote");
    uint32_t p = slot_at(w->frame, in->o[1].off)->mask;
    p = (in->o[1].negated ? ~p : p) & m;
    uint32_t result = p;
    if (in->f[F_BOP] == B_ALL)
        result = p == m;
    else if (in->f[F_BOP] == B_ANY)
        result = p != 0;
    else if (in->f[F_BOP] == B_UNI)
        result = p == m || !p;
    for (int i = 0; i < WARP; i++) {
        if (mask >> i & 1)
            give(w->frame, &in->o[0], i, result, true, in);
    }
}

void op_match(struct warp *w, const struct ptx_ins *in, uint32_t mask)
{
    uint32_t m = members(w, in, &in->o[3], mask) & mask;
    warp_need_defined(w, in, &in->o[2], mask, "the value of a match");
    const struct slot a = *slot_at(w->frame, in->o[2].off);
    bool wide = in->o[2].width == 8, all = in->f[F_BOP] == B_ALL;
    for (int i = 0; i < WARP; i++) {
        if (!(mask >> i & 1))
            continue;
        uint32_t same = 0;
        for (int k = 0; k < WARP; k++) {
            if (m >> k & 1)
                same |= (uint32_t)(wide ? a.ul[k] == a.ul[i] : a.u[k] == a.u[i]) << k;
        }
        give(w->frame, &in->o[0], i, all ? (same == m ? m : 0) : same, true, in);
        give(w->frame, &in->o[1], i, same == m, true, in);
    }
}

void op_redux(struct warp *w, const struct ptx_ins *in, uint32_t mask)
{
    uint32_t m = members(w, in, &in->o[2], mask) & mask;
    warp_need_defined(w, in, &in->o[1], mask, "the value of a reduction");
    const struct slot *a = slot_at(w->frame, in->o[1].off);
    uint32_t r = a->u[__builtin_ctz(m)];
    bool is_signed = in->type[0] == T_S32;
    for (int i = __builtin_ctz(m) + 1; i < WARP; i++) {
        if (!(m >> i & 1))
            continue;
        uint32_t v = a->u[i];
        bool less = is_signed ? (int32_t)v < (int32_t)r : v < r;
        switch (in->f[F_BOP]) {
        case B_ADD:
            r += v;
            break;
        case B_MIN:
            r = less ? v : r;
            break;
        case B_MAX:
            r = less ? r : v;
            break;
        case B_AND:
            r &= v;
            break;
        case B_OR:
            r |= v;
            break;
        default:
            r ^= v;
        }
    }
    for (int i = 0; i < WARP; i++) {
        if (mask >> i & 1)
            give(w->frame, &in->o[0], i, r, true, in);
    }
}

void op_elect(struct warp *w, const struct ptx_ins *in, uint32_t mask)
{
    if (in->op == OP_ACTIVEMASK) {
        for (int i = 0; i < WARP; i++) {
            if (mask >> i & 1)
                give(w->frame, &in->o[0], i, mask, true, in);
        }
        return;
    }
    uint32_t m = members(w, in, &in->o[2], mask) & mask;
    for (int i = 0; i < WARP; i++) {
        if (!(mask >> i & 1))
            continue;
        give(w->frame, &in->o[0], i, (uint32_t)__builtin_ctz(m), true, in);
        give(w->frame, &in->o[1], i, i == __builtin_ctz(m), true, in);
    }
}

void op_sync_warp(struct warp *w, const struct ptx_ins *in, uint32_t mask)
{
    members(w, in, &in->o[0], mask);
    race_sync_warp(w);
}
