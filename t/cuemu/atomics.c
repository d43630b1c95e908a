/* SPDX-License-Identifier: MIT */
/* atom and red: lanes one after another, each its read, operation and write. */
#include "emu.h"

#include <math.h>
#include <string.h>

static uint64_t operate_int(int op, uint64_t old, uint64_t b, uint64_t c, bool is_signed, int bits)
{
    int64_t so = (int64_t)(old << (64 - bits)) >> (64 - bits),
            sb = (int64_t)(b << (64 - bits)) >> (64 - bits);
    bool less = is_signed ? so < sb : old < b;
    switch (op) {
    case B_AND:
        return old & b;
    case B_OR:
        return old | b;
    case B_XOR:
        return old ^ b;
    case B_ADD:
        return old + b;
    case B_MIN:
        return less ? old : b;
    case B_MAX:
        return less ? b : old;
    case B_INC:
        return old >= b ? 0 : old + 1;
    case B_DEC:
        return old == 0 || old > b ? b : old - 1;
    case B_CAS:
        return old == b ? c : old;
    default:
        return b; /* exch */
    }
}

static float narrow(uint32_t bits, enum ptx_type t)
{
    return t == T_F16 || t == T_F16X2 ? f16_to_float(bits) : bf16_to_float(bits);
}

static uint32_t small_op(int op, uint32_t a, uint32_t b, enum ptx_type t)
{
    float x = narrow(a & 0xffff, t), y = narrow(b & 0xffff, t);
    float r = op == B_ADD ? x + y : op == B_MIN ? fminf(x, y) : fmaxf(x, y);
    enum fmt f = t == T_F16 || t == T_F16X2 ? FMT_F16 : FMT_BF16;
    return fmt_encode(f, (double)r, R_RN, false);
}

static uint64_t operate_float(int op, uint64_t old, uint64_t b, enum ptx_type t)
{
    if (t == T_F32) {
        uint32_t o32 = (uint32_t)old, b32 = (uint32_t)b;
        float x, y, r;
        memcpy(&x, &o32, sizeof x);
        memcpy(&y, &b32, sizeof y);
        r = x + y;
        memcpy(&o32, &r, sizeof r);
        return o32;
    }
    if (t == T_F64) {
        double x, y;
        memcpy(&x, &old, sizeof x);
        memcpy(&y, &b, sizeof y);
        x += y;
        memcpy(&old, &x, sizeof x);
        return old;
    }
    uint32_t low = small_op(op, (uint32_t)old, (uint32_t)b, t);
    if (t == T_F16 || t == T_BF16)
        return low;
    return low | small_op(op, (uint32_t)old >> 16, (uint32_t)b >> 16, t) << 16;
}

static uint64_t value_of(const struct warp *w, const struct ptx_operand *o, int lane)
{
    const struct slot *s = slot_at(w->frame, o->off);
    return o->width == 8 ? s->ul[lane] : s->u[lane];
}

/* One lane; what was there before. */
static uint64_t update(struct warp *w, const struct ptx_ins *in, enum ptx_space space, int lane,
                       uint64_t addr, const struct ptx_operand *b, const struct ptx_operand *c)
{
    enum ptx_type t = (enum ptx_type)in->type[0];
    int bits = ptx_type_bits(t);
    uint32_t bytes = (uint32_t)bits / 8;
    char class = ptx_type_class(t);
    struct place p = access_place(w, in, space, lane, addr, bytes, ACCESS_ATOMIC);
    if (!access_initialised(p, bytes))
        warp_fault(w, in, lane, FAULT_UNINIT,
                   "an atomic operation on memory that nobody has written");
    access_note(w, in, space, lane, addr, bytes, ACCESS_ATOMIC, p, false);
    uint64_t old = 0, now;
    memcpy(&old, p.data, bytes);
    if ((class == 'f' || class == 'x') && in->f[F_BOP] != B_EXCH && in->f[F_BOP] != B_CAS)
        now = operate_float(in->f[F_BOP], old, value_of(w, b, lane), t);
    else
        now = operate_int(in->f[F_BOP], old, value_of(w, b, lane), c ? value_of(w, c, lane) : 0,
                          class == 's', bits);
    memcpy(p.data, &now, bytes);
    return old;
}

static void synchronise(struct warp *w, const struct ptx_ins *in, enum ptx_space space,
                        const uint64_t addr[WARP], uint32_t mask)
{
    int order = in->f[F_ORDER];
    char class = ptx_type_class((enum ptx_type)in->type[0]);
    bool release = order == ORD_RELEASE || order == ORD_ACQ_REL || order == ORD_SC;
    if (space == SP_SHARED) {
        if (release)
            race_fence(w);
        race_sync_shared(w, true, true);
        if (order == ORD_ACQUIRE || order == ORD_ACQ_REL || order == ORD_SC)
            race_fence(w);
        return;
    }
    if (class == 'f' || class == 'x')
        return; /* sums, which nobody waits on */
    for (int i = 0; i < WARP; i++) {
        if (mask >> i & 1)
            blockrace_sync(w->block, addr[i], true, true, release);
    }
}

void op_atom(struct warp *w, const struct ptx_ins *in, uint32_t mask)
{
    const struct ptx_operand *a = &in->o[in->nout], *b = a + 1, *c = in->nin > 2 ? a + 2 : NULL;
    if (in->f[F_BOP] == B_CAS && !c)
        warp_fault(w, in, -1, FAULT_UNSUPPORTED, "cas without its third operand");
    warp_need_defined(w, in, b, mask, "an operand of an atomic operation");
    if (c)
        warp_need_defined(w, in, c, mask, "an operand of an atomic operation");
    uint32_t rest;
    for (; mask; mask = rest) {
        uint64_t addr[WARP];
        enum ptx_space space =
            access_addresses(w, in, a, (enum ptx_space)in->f[F_SPACE], mask, addr, &rest);
        uint32_t now = mask & ~rest;
        if (space != SP_GLOBAL && space != SP_SHARED)
            warp_fault(w, in, -1, FAULT_UNSUPPORTED,
                       "an atomic operation outside global and shared memory");
        synchronise(w, in, space, addr, now);
        for (int i = 0; i < WARP; i++) {
            if (!(now >> i & 1))
                continue;
            uint64_t old = update(w, in, space, i, addr[i], b, c);
            if (in->nout && in->o[0].kind == O_SLOT) {
                struct slot *d = slot_at(w->frame, in->o[0].off);
                if (in->o[0].width == 8)
                    d->ul[i] = old;
                else
                    d->u[i] = (uint32_t)old;
                d->def |= 1u << i;
            }
        }
        int bytes = ptx_type_bits((enum ptx_type)in->type[0]) / 8;
        if (space == SP_SHARED)
            stats_shared(&w->block->launch->stats, addr, now, bytes);
        else
            stats_global(&w->block->launch->stats, addr, now, bytes);
    }
}
