/* SPDX-License-Identifier: MIT */
/* cvt: a number from one type to another.  Float to integer clamps to the range and makes NaN 0;
 * integer to integer wraps unless .sat. */
#include "emu.h"

#include <fenv.h>
#include <math.h>

#define LANES for (int i = 0; i < WARP; i++)

static bool is_small(enum ptx_type t, enum fmt *f)
{
    switch (t) {
    case T_F16:
    case T_F16X2:
        *f = FMT_F16;
        return true;
    case T_BF16:
    case T_BF16X2:
        *f = FMT_BF16;
        return true;
    case T_TF32:
        *f = FMT_TF32;
        return true;
    case T_E4M3X2:
        *f = FMT_E4M3;
        return true;
    case T_E5M2X2:
        *f = FMT_E5M2;
        return true;
    default:
        return false;
    }
}

static bool is_real(enum ptx_type t)
{
    enum fmt f;
    return t == T_F32 || t == T_F64 || is_small(t, &f);
}

static double flush(double x)
{
    return fabs(x) < 0x1p-126 ? copysign(0, x) : x;
}

static double read_real(const struct slot *s, int i, enum ptx_type t, bool ftz)
{
    enum fmt f;
    if (t == T_F64)
        return s->d[i];
    if (is_small(t, &f))
        return fmt_decode(f, t == T_TF32 ? s->u[i] : s->u[i] & 0xffff);
    return ftz ? flush((double)s->f[i]) : (double)s->f[i];
}

/* An integer source, sign- or zero-extended to 64 bits from its type. */
static uint64_t read_int(const struct slot *s, int i, enum ptx_type t, int width)
{
    uint64_t v = width == 8 ? s->ul[i] : s->u[i];
    int bits = ptx_type_bits(t);
    if (bits == 64)
        return v;
    if (ptx_type_class(t) == 's')
        return (uint64_t)((int64_t)(v << (64 - bits)) >> (64 - bits));
    return v & ((1ull << bits) - 1);
}

static double to_whole(double x, int round)
{
    switch (round) {
    case R_RZI:
    case R_RZ:
        return trunc(x);
    case R_RMI:
    case R_RM:
        return floor(x);
    case R_RPI:
    case R_RP:
        return ceil(x);
    default:
        return nearbyint(x);
    }
}

static void write_int(struct slot *d, int i, uint64_t v, enum ptx_type t, int width)
{
    int bits = ptx_type_bits(t);
    if (bits < 64 && ptx_type_class(t) == 's')
        v = (uint64_t)((int64_t)(v << (64 - bits)) >> (64 - bits));
    else if (bits < 64)
        v &= (1ull << bits) - 1;
    if (width == 8)
        d->ul[i] = v;
    else
        d->u[i] = bits == 16 ? (uint32_t)v & 0xffff : (uint32_t)v;
}

static uint64_t real_to_int(double x, enum ptx_type t)
{
    int bits = ptx_type_bits(t);
    if (isnan(x))
        return 0;
    if (ptx_type_class(t) == 's') {
        double limit = ldexp(1, bits - 1);
        if (x >= limit)
            return (1ull << (bits - 1)) - 1;
        return x < -limit ? (uint64_t)1 << (bits - 1) : (uint64_t)(int64_t)x;
    }
    if (x <= 0)
        return 0;
    if (x >= ldexp(1, bits))
        return bits == 64 ? ~0ull : (1ull << bits) - 1;
    return (uint64_t)x;
}

static uint64_t clamp_int(uint64_t v, bool from_signed, enum ptx_type t)
{
    int bits = ptx_type_bits(t);
    bool negative = from_signed && (int64_t)v < 0;
    if (ptx_type_class(t) == 's') {
        int64_t high = (int64_t)((1ull << (bits - 1)) - 1);
        if (negative)
            return (int64_t)v < -high - 1 ? (uint64_t)(-high - 1) : v;
        return v > (uint64_t)high ? (uint64_t)high : v;
    }
    uint64_t high = bits == 64 ? ~0ull : (1ull << bits) - 1;
    return negative ? 0 : v > high ? high : v;
}

/* What a real becomes in type t; the fraction saturates to [0, 1] under .sat. */
static void write_real(const struct ptx_ins *in, struct slot *d, int i, double x, enum ptx_type t)
{
    enum fmt f;
    if (in->f[F_SAT] == 1)
        x = x > 0 ? (x < 1 ? x : 1) : 0;
    if (in->f[F_RELU])
        x = x > 0 || isnan(x) ? x : 0;
    if (t == T_F64) {
        d->d[i] = x;
    } else if (is_small(t, &f)) {
        enum ptx_round r = (enum ptx_round)(in->f[F_ROUND] ? in->f[F_ROUND] : R_RN);
        d->u[i] = fmt_encode(f, x, r, in->f[F_SAT] == 2);
    } else {
        int r = in->f[F_ROUND];
        fesetround(r == R_RZ   ? FE_TOWARDZERO
                   : r == R_RM ? FE_DOWNWARD
                   : r == R_RP ? FE_UPWARD
                               : FE_TONEAREST);
        volatile float y = (float)x;
        fesetround(FE_TONEAREST);
        d->f[i] = in->f[F_FTZ] ? (float)flush((double)y) : y;
    }
}

static void int_to_real(const struct ptx_ins *in, struct slot *d, int i, uint64_t v,
                        enum ptx_type from)
{
    bool is_signed = ptx_type_class(from) == 's';
    int r = in->f[F_ROUND];
    if (in->type[0] == T_F32 || in->type[0] == T_F64) { /* round once, from all 64 bits */
        fesetround(r == R_RZ   ? FE_TOWARDZERO
                   : r == R_RM ? FE_DOWNWARD
                   : r == R_RP ? FE_UPWARD
                               : FE_TONEAREST);
        volatile uint64_t bits = v;
        if (in->type[0] == T_F32)
            d->f[i] = is_signed ? (float)(int64_t)bits : (float)bits;
        else
            d->d[i] = is_signed ? (double)(int64_t)bits : (double)bits;
        fesetround(FE_TONEAREST);
    } else {
        write_real(in, d, i, is_signed ? (double)(int64_t)v : (double)v,
                   (enum ptx_type)in->type[0]);
    }
}

/* f16x2, bf16x2, e4m3x2 and e5m2x2: two numbers in a register; the first source is the upper one.
 */
static bool packed(const struct ptx_ins *in, struct slot *d, const struct slot *const s[4])
{
    enum ptx_type to = (enum ptx_type)in->type[0], from = (enum ptx_type)in->type[1];
    bool pair_to = to == T_F16X2 || to == T_BF16X2 || to == T_E4M3X2 || to == T_E5M2X2;
    if (!pair_to)
        return false;
    int half_to = ptx_type_bits(to) / 2, half_from = ptx_type_bits(from) / 2;
    LANES
    {
        double high, low;
        enum fmt f = FMT_F16;
        if (s[1]) {
            high = read_real(s[0], i, from, in->f[F_FTZ]);
            low = read_real(s[1], i, from, in->f[F_FTZ]);
        } else {
            is_small(from, &f);
            low = fmt_decode(f, s[0]->u[i] & ((1u << half_from) - 1));
            high = fmt_decode(f, s[0]->u[i] >> half_from & ((1u << half_from) - 1));
        }
        struct slot pair;
        write_real(in, &pair, 0, low, to);
        write_real(in, &pair, 1, high, to);
        d->u[i] = pair.u[0] | pair.u[1] << half_to;
    }
    return true;
}

/* Those that inner loops are full of. */
static bool quick(const struct ptx_ins *in, struct slot *d, const struct slot *const s[4], int w0,
                  int w1)
{
    enum ptx_type to = (enum ptx_type)in->type[0], from = (enum ptx_type)in->type[1];
    bool plain = !in->f[F_SAT] && !in->f[F_FTZ] && !in->f[F_RELU];
    if (!plain)
        return false;
    if (to == T_F32 && from == T_F16)
        LANES d->f[i] = f16_to_float(s[0]->u[i]);
    else if (to == T_F32 && from == T_BF16)
        LANES d->f[i] = bf16_to_float(s[0]->u[i] & 0xffff);
    else if (to == T_F16 && from == T_F32 && in->f[F_ROUND] == R_RN)
        LANES d->u[i] = f16_from_float(s[0]->f[i]);
    else if (to == T_F16X2 && from == T_F32 && in->f[F_ROUND] == R_RN && s[1])
        LANES d->u[i] = f16_from_float(s[1]->f[i]) | f16_from_float(s[0]->f[i]) << 16;
    else if ((to == T_U64 || to == T_S64) && from == T_S32 && w0 == 8 && w1 == 4)
        LANES d->sl[i] = s[0]->s[i];
    else if ((to == T_U64 || to == T_S64) && from == T_U32 && w0 == 8 && w1 == 4)
        LANES d->ul[i] = s[0]->u[i];
    else if ((to == T_U32 || to == T_S32) && (from == T_U64 || from == T_S64) && w0 == 4)
        LANES d->u[i] = (uint32_t)s[0]->ul[i];
    else if (to == T_F32 && from == T_S32 && in->f[F_ROUND] == R_RN)
        LANES d->f[i] = (float)s[0]->s[i];
    else if (to == T_F32 && from == T_U32 && in->f[F_ROUND] == R_RN)
        LANES d->f[i] = (float)s[0]->u[i];
    else
        return false;
    return true;
}

void alu_cvt(const struct ptx_ins *in, struct slot *d, const struct slot *const s[4], int wide0,
             int wide1)
{
    enum ptx_type to = (enum ptx_type)in->type[0], from = (enum ptx_type)in->type[1];
    if (quick(in, d, s, wide0, wide1) || packed(in, d, s))
        return;
    bool from_real = is_real(from), to_real = is_real(to);
    LANES
    {
        if (from_real) {
            double x = read_real(s[0], i, from, in->f[F_FTZ]);
            int r = in->f[F_ROUND];
            if (!to_real)
                write_int(d, i, real_to_int(to_whole(x, r), to), to, wide0);
            else
                write_real(in, d, i, r >= R_RNI && r <= R_RPI ? to_whole(x, r) : x, to);
        } else {
            uint64_t v = read_int(s[0], i, from, wide1);
            if (to_real)
                int_to_real(in, d, i, v, from);
            else
                write_int(d, i, in->f[F_SAT] ? clamp_int(v, ptx_type_class(from) == 's', to) : v,
                          to, wide0);
        }
    }
}
