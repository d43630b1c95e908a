/* SPDX-License-Identifier: MIT */
/* Instructions whose result in a lane follows from that lane's sources: chooses the family of the
 * type, merges the active lanes, and keeps account of which values are defined. */
#include "emu.h"

#include <math.h>
#include <string.h>

#define LANES for (int i = 0; i < WARP; i++)

static void merge(struct slot *d, const struct slot *r, uint32_t mask, uint8_t width)
{
    if (width == 1) {
        d->mask = (d->mask & ~mask) | (r->mask & mask);
    } else if (mask == FULL) {
        memcpy(d->u, r->u, width == 8 ? sizeof d->ul : sizeof d->u);
    } else if (width == 8) {
        LANES d->ul[i] = mask >> i & 1 ? r->ul[i] : d->ul[i];
    } else {
        LANES d->u[i] = mask >> i & 1 ? r->u[i] : d->u[i];
    }
}

static const struct slot *source(const struct frame *fr, const struct ptx_ins *in, int k)
{
    return slot_at(fr, in->o[in->nout + k].off);
}

/* Which lanes of all sources are defined. */
static uint32_t defined(const struct frame *fr, const struct ptx_ins *in, uint32_t *origin)
{
    uint32_t def = FULL;
    for (int k = 0; k < in->nin; k++) {
        const struct slot *s = source(fr, in, k);
        if (s->def != FULL && *origin == 0)
            *origin = s->origin;
        def &= s->def;
    }
    return def;
}

static void set_defined(struct slot *d, const struct ptx_ins *in, uint32_t mask, uint32_t def,
                        uint32_t origin)
{
    d->def = (d->def & ~mask) | (def & mask);
    if ((def & mask) != mask)
        d->origin = origin ? origin : (uint32_t)in->line;
}

static void finish(struct frame *fr, const struct ptx_ins *in, int out, const struct slot *r,
                   uint32_t mask)
{
    const struct ptx_operand *o = &in->o[out];
    uint32_t origin = 0, def = defined(fr, in, &origin);
    if (o->kind == O_SINK)
        return;
    struct slot *d = slot_at(fr, o->off);
    merge(d, r, mask, o->width);
    set_defined(d, in, mask, def, origin);
}

static uint32_t predicate(const struct frame *fr, const struct ptx_operand *o)
{
    uint32_t m = slot_at(fr, o->off)->mask;
    return o->negated ? ~m : m;
}

/* ---- mov: also packs and unpacks ---- */

static uint64_t lane_value(const struct slot *s, const struct ptx_operand *o, int lane)
{
    if (o->width == 1)
        return s->mask >> lane & 1;
    return o->width == 8 ? s->ul[lane] : s->u[lane];
}

static void put_value(struct slot *s, const struct ptx_operand *o, int lane, uint64_t v)
{
    if (o->width == 8)
        s->ul[lane] = v;
    else
        s->u[lane] = (uint32_t)v;
}

static void mov(struct frame *fr, const struct ptx_ins *in, uint32_t mask)
{
    const struct ptx_operand *d = &fr->fn->vec[in->o[0].off], *s = &fr->fn->vec[in->o[1].off];
    int nd = in->o[0].count, ns = in->o[1].count, bits = ptx_type_bits((enum ptx_type)in->type[0]);
    uint32_t def = FULL, origin = 0;
    for (int k = 0; k < ns; k++) {
        const struct slot *a = slot_at(fr, s[k].off);
        def &= a->def;
        if (a->def != FULL && !origin)
            origin = a->origin;
    }
    if (nd == 1 && ns == 1) {
        struct slot *to = slot_at(fr, d->off);
        struct slot r = *slot_at(fr, s->off);
        if (d->width == 1 && s->negated)
            r.mask = ~r.mask;
        if (d->width == 8 && s->width == 4)
            LANES r.ul[WARP - 1 - i] = r.u[WARP - 1 - i];
        merge(to, &r, mask, d->width);
        set_defined(to, in, mask, def, origin);
        return;
    }
    uint64_t whole[WARP] = {0};
    int from = bits / ns, to = bits / nd;
    for (int k = 0; k < ns; k++) {
        const struct slot *a = slot_at(fr, s[k].off);
        uint64_t part = from == 64 ? ~0ull : (1ull << from) - 1;
        LANES whole[i] |= (lane_value(a, &s[k], i) & part) << (k * from);
    }
    for (int k = 0; k < nd; k++) {
        if (d[k].kind == O_SINK)
            continue;
        struct slot *r = slot_at(fr, d[k].off);
        uint64_t part = to == 64 ? ~0ull : (1ull << to) - 1;
        LANES
        {
            if (mask >> i & 1)
                put_value(r, &d[k], i, whole[i] >> (k * to) & part);
        }
        set_defined(r, in, mask, def, origin);
    }
}

/* ---- predicates ---- */

static void logic(struct frame *fr, const struct ptx_ins *in, uint32_t mask)
{
    uint32_t a = predicate(fr, &in->o[1]), b = in->nin > 1 ? predicate(fr, &in->o[2]) : 0;
    struct slot r;
    r.mask = in->op == OP_AND ? a & b : in->op == OP_OR ? a | b : in->op == OP_XOR ? a ^ b : ~a;
    finish(fr, in, 0, &r, mask);
}

static uint32_t connect(const struct frame *fr, const struct ptx_ins *in, uint32_t cmp)
{
    if (!in->f[F_BOP] || in->nin < 3)
        return cmp;
    uint32_t c = predicate(fr, &in->o[in->nout + 2]);
    return in->f[F_BOP] == B_AND ? cmp & c : in->f[F_BOP] == B_OR ? cmp | c : cmp ^ c;
}

static void setp(struct frame *fr, const struct ptx_ins *in, uint32_t mask)
{
    enum ptx_type t = (enum ptx_type)in->type[0];
    const struct slot *a = source(fr, in, 0), *b = source(fr, in, 1);
    struct slot p, q;
    if (t == T_F16X2 || t == T_BF16X2) { /* p of the low halves, q of the high */
        struct slot ah, bh;
        enum ptx_type half = t == T_F16X2 ? T_F16 : T_BF16;
        LANES ah.u[i] = a->u[i] >> 16;
        LANES bh.u[i] = b->u[i] >> 16;
        p.mask = connect(fr, in, alu_compare(in, half, a, b));
        q.mask = connect(fr, in, alu_compare(in, half, &ah, &bh));
    } else {
        uint32_t cmp = alu_compare(in, t, a, b);
        p.mask = connect(fr, in, cmp);
        q.mask = connect(fr, in, ~cmp);
    }
    finish(fr, in, 0, &p, mask);
    if (in->o[1].kind == O_PRED)
        finish(fr, in, 1, &q, mask);
}

static void set(struct frame *fr, const struct ptx_ins *in, uint32_t mask)
{
    uint32_t m = connect(
        fr, in, alu_compare(in, (enum ptx_type)in->type[1], source(fr, in, 0), source(fr, in, 1)));
    struct slot r;
    uint32_t yes = in->type[0] == T_F32    ? 0x3f800000
                   : in->type[0] == T_F16  ? 0x3c00
                   : in->type[0] == T_BF16 ? 0x3f80
                                           : FULL;
    LANES r.u[i] = m >> i & 1 ? yes : 0;
    finish(fr, in, 0, &r, mask);
}

/* What is not selected need not be defined. */
static void selp(struct frame *fr, const struct ptx_ins *in, uint32_t mask)
{
    const struct slot *a = source(fr, in, 0), *b = source(fr, in, 1), *p = source(fr, in, 2);
    uint32_t m = predicate(fr, &in->o[3]);
    struct slot *d = slot_at(fr, in->o[0].off), r = *b;
    merge(&r, a, m, in->o[0].width);
    uint32_t def = p->def & ((m & a->def) | (~m & b->def));
    uint32_t origin = p->def != FULL ? p->origin : a->def != FULL ? a->origin : b->origin;
    merge(d, &r, mask, in->o[0].width);
    set_defined(d, in, mask, def, origin);
}

static void testp(struct frame *fr, const struct ptx_ins *in, uint32_t mask)
{
    const struct slot *a = source(fr, in, 0);
    struct slot r = {.mask = 0};
    LANES
    {
        double x = in->type[0] == T_F64 ? a->d[i] : (double)a->f[i];
        int class = in->type[0] == T_F64 ? fpclassify(a->d[i]) : fpclassify(a->f[i]);
        bool yes = false;
        switch (
            in->f[F_CMP]) { /* the words of testp share values with comparisons, see opcodes.c */
        case CMP_NE:
            yes = isfinite(x);
            break;
        case CMP_EQ:
            yes = isinf(x);
            break;
        case CMP_NUM:
            yes = !isnan(x);
            break;
        case CMP_NAN:
            yes = isnan(x);
            break;
        case CMP_GT:
            yes = class == FP_NORMAL;
            break;
        default:
            yes = class == FP_SUBNORMAL;
            break;
        }
        r.mask |= (uint32_t)yes << i;
    }
    finish(fr, in, 0, &r, mask);
}

/* ---- addresses ---- */

static void cvta(struct frame *fr, const struct ptx_ins *in, uint32_t mask)
{
    const struct slot *a = source(fr, in, 0);
    int space = in->f[F_SPACE];
    uint64_t base = space == SP_SHARED  ? SHARED_WINDOW
                    : space == SP_LOCAL ? LOCAL_WINDOW
                    : space == SP_PARAM ? PARAM_WINDOW
                                        : 0;
    struct slot r;
    LANES r.ul[i] = in->f[F_TO] ? a->ul[i] - base : a->ul[i] + base;
    finish(fr, in, 0, &r, mask);
}

static void isspacep(struct frame *fr, const struct ptx_ins *in, uint32_t mask)
{
    const struct slot *a = source(fr, in, 0);
    struct slot r = {.mask = 0};
    LANES
    {
        bool shared = a->ul[i] - SHARED_WINDOW < WINDOW_SIZE,
             local = a->ul[i] - LOCAL_WINDOW < WINDOW_SIZE,
             param = a->ul[i] - PARAM_WINDOW < WINDOW_SIZE;
        int s = in->f[F_SPACE];
        bool yes = s == SP_SHARED  ? shared
                   : s == SP_LOCAL ? local
                   : s == SP_PARAM ? param
                                   : !shared && !local && !param;
        r.mask |= (uint32_t)yes << i;
    }
    finish(fr, in, 0, &r, mask);
}

/* ---- carry: add.cc, addc, sub.cc, subc, mad.cc, madc ---- */

static void with_carry(struct frame *fr, const struct ptx_ins *in, uint32_t mask)
{
    int bits = ptx_type_bits((enum ptx_type)in->type[0]), op = in->op;
    bool product = op == OP_MAD || op == OP_MADC, minus = op == OP_SUB || op == OP_SUBC;
    bool takes = op == OP_ADDC || op == OP_SUBC || op == OP_MADC;
    bool is_signed = ptx_type_class((enum ptx_type)in->type[0]) == 's';
    const struct slot *a = source(fr, in, 0), *b = source(fr, in, 1),
                      *c = product ? source(fr, in, 2) : NULL;
    struct slot r, *carry = slot_at(fr, fr->fn->carry);
    uint32_t old = carry->mask, new = 0;
    LANES
    {
        unsigned __int128 x, y, limit = (unsigned __int128)1 << bits,
                                in_carry = takes && (old >> i & 1);
        uint64_t av = bits == 64 ? a->ul[i] : a->u[i], bv = bits == 64 ? b->ul[i] : b->u[i];
        if (product) {
            __int128 p = is_signed ? (bits == 64 ? (__int128)(int64_t)av * (int64_t)bv
                                                 : (__int128)(int32_t)av * (int32_t)bv)
                                   : (__int128)((unsigned __int128)av * bv);
            x = in->f[F_MODE] == M_HI ? (unsigned __int128)(p >> bits) & (limit - 1)
                                      : (unsigned __int128)p & (limit - 1);
            y = bits == 64 ? c->ul[i] : c->u[i];
        } else {
            x = av;
            y = bv;
        }
        unsigned __int128 sum = minus ? x - y - in_carry : x + y + in_carry;
        bool out = minus ? x < y + in_carry : sum >= limit;
        if (bits == 64)
            r.ul[i] = (uint64_t)sum;
        else
            r.u[i] = (uint32_t)sum;
        new |= (uint32_t)out << i;
    }
    if (in->f[F_CC]) {
        carry->mask = (carry->mask & ~mask) | (new &mask);
        carry->def |= mask;
    }
    finish(fr, in, 0, &r, mask);
}

/* ---- families ---- */

/* 16-bit integers are computed as 32-bit ones: extended before, cut after. */
static void extend(struct slot *to, const struct slot *from, bool is_signed)
{
    LANES to->u[i] = is_signed ? (uint32_t)(int32_t)(int16_t)from->u[i] : from->u[i] & 0xffff;
}

static void short_int(const struct ptx_ins *in, struct slot *r, const struct slot *const s[4])
{
    struct slot x[4];
    const struct slot *e[4];
    bool is_signed = ptx_type_class((enum ptx_type)in->type[0]) == 's';
    bool wide = in->f[F_MODE] == M_WIDE, shift = in->op == OP_SHL || in->op == OP_SHR;
    for (int k = 0; k < 4; k++) {
        e[k] = &x[k];
        if (s[k] && !(wide && k == 2) && !(shift && k == 1))
            extend(&x[k], s[k], is_signed);
        else
            e[k] = s[k];
    }
    if (wide || in->f[F_MODE] == M_HI) {
        LANES
        {
            uint32_t p = e[0]->u[i] * e[1]->u[i]; /* 16 x 16 bits never overflow */
            r->u[i] = wide ? p + (in->op == OP_MAD ? e[2]->u[i] : 0)
                           : (is_signed ? (uint32_t)((int32_t)p >> 16) : p >> 16) +
                                 (in->op == OP_MAD ? e[2]->u[i] : 0);
        }
        if (!wide)
            LANES r->u[i] &= 0xffff;
        return;
    }
    alu_int(in, r, e);
    LANES r->u[i] &= 0xffff;
}

/* f32x2: the lower and the upper float of a 64-bit register. */
static void pair_float(const struct ptx_ins *in, struct slot *r, const struct slot *const s[4])
{
    for (int half = 0; half < 2; half++) {
        struct slot x[3], y;
        const struct slot *e[4] = {NULL, NULL, NULL, NULL};
        for (int k = 0; k < 3 && s[k]; k++) {
            LANES x[k].u[i] = (uint32_t)(s[k]->ul[i] >> (32 * half));
            e[k] = &x[k];
        }
        alu_float(in, &y, e);
        LANES r->ul[i] = half ? r->ul[i] | (uint64_t)y.u[i] << 32 : y.u[i];
    }
}

static void arithmetic(struct frame *fr, const struct ptx_ins *in, uint32_t mask)
{
    const struct slot *s[4] = {NULL, NULL, NULL, NULL};
    enum ptx_type t = (enum ptx_type)in->type[0];
    struct slot r;
    for (int k = 0; k < in->nin && k < 4; k++)
        s[k] = source(fr, in, k);
    switch (t) {
    case T_F32:
        alu_float(in, &r, s);
        break;
    case T_F32X2:
        pair_float(in, &r, s);
        break;
    case T_F64:
        alu_double(in, &r, s);
        break;
    case T_F16:
    case T_F16X2:
    case T_BF16:
    case T_BF16X2:
        alu_half(in, &r, s);
        break;
    case T_U64:
    case T_S64:
    case T_B64:
        alu_long(in, &r, s);
        break;
    case T_U16:
    case T_S16:
    case T_B16:
        short_int(in, &r, s);
        break;
    default:
        alu_int(in, &r, s);
    }
    finish(fr, in, 0, &r, mask);
}

static void cvt(struct frame *fr, const struct ptx_ins *in, uint32_t mask)
{
    const struct slot *s[4] = {source(fr, in, 0), in->nin > 1 ? source(fr, in, 1) : NULL};
    struct slot r;
    alu_cvt(in, &r, s, in->o[0].width, in->o[1].width);
    finish(fr, in, 0, &r, mask);
}

void alu_run(struct frame *fr, const struct ptx_ins *in, uint32_t mask)
{
    switch ((enum ptx_op)in->op) {
    case OP_MOV:
        mov(fr, in, mask);
        return;
    case OP_SETP:
        setp(fr, in, mask);
        return;
    case OP_SET:
        set(fr, in, mask);
        return;
    case OP_SELP:
        selp(fr, in, mask);
        return;
    case OP_TESTP:
        testp(fr, in, mask);
        return;
    case OP_CVT:
        cvt(fr, in, mask);
        return;
    case OP_CVTA:
        cvta(fr, in, mask);
        return;
    case OP_ISSPACEP:
        isspacep(fr, in, mask);
        return;
    default:
        if (in->type[0] == T_PRED)
            logic(fr, in, mask);
        else if (in->f[F_CC] || in->op == OP_ADDC || in->op == OP_SUBC || in->op == OP_MADC)
            with_carry(fr, in, mask);
        else
            arithmetic(fr, in, mask);
    }
}
