/* SPDX-License-Identifier: MIT */
/* f16, bf16, tf32, e4m3 and e5m2: decoding is exact, encoding rounds a double once. */
#include "emu.h"

#include <math.h>
#include <string.h>

static const struct {
    int exponent, mantissa;
    bool infinity; /* e4m3 has none: its all-ones exponent holds numbers */
} formats[] = {
    {5, 10, true },
    {8, 7,  true },
    {8, 10, true },
    {4, 3,  false},
    {5, 2,  true }
};

static int bias_of(enum fmt f)
{
    return (1 << (formats[f].exponent - 1)) - 1;
}

/* tf32 lies in the upper 19 bits of a float, so its low 13 bits are dropped and put back here. */
static int shift_of(enum fmt f)
{
    return f == FMT_TF32 ? 13 : 0;
}

double fmt_decode(enum fmt f, uint32_t bits)
{
    bits >>= shift_of(f);
    int m = formats[f].mantissa, e = formats[f].exponent;
    int exponent = (int)(bits >> m & ((1u << e) - 1)), top = (1 << e) - 1;
    uint32_t fraction = bits & ((1u << m) - 1);
    double sign = bits >> (m + e) & 1 ? -1.0 : 1.0;
    if (exponent == top && formats[f].infinity)
        return fraction ? (double)NAN : sign * (double)INFINITY;
    if (exponent == top && fraction == (1u << m) - 1)
        return (double)NAN;
    if (!exponent)
        return sign * ldexp(fraction, 1 - bias_of(f) - m);
    return sign * ldexp((double)(fraction | 1u << m), exponent - bias_of(f) - m);
}

/* |x| in units of the last place, to an integer. */
static double round_units(double units, enum ptx_round round, bool negative)
{
    double down = floor(units), rest = units - down;
    switch (round) {
    case R_RZ:
        return down;
    case R_RM:
        return negative && rest > 0 ? down + 1 : down;
    case R_RP:
        return !negative && rest > 0 ? down + 1 : down;
    case R_RNA:
        return rest >= 0.5 ? down + 1 : down;
    default:
        return rest > 0.5 || (rest >= 0.5 && fmod(down, 2.0) > 0.5) ? down + 1 : down;
    }
}

uint32_t fmt_encode(enum fmt f, double x, enum ptx_round round, bool sat)
{
    int m = formats[f].mantissa, e = formats[f].exponent, bias = bias_of(f);
    uint32_t sign = signbit(x) ? 1u << (m + e) : 0, top = (1u << e) - 1;
    uint32_t infinity = formats[f].infinity ? top << m : (top << m) + ((1u << m) - 1);
    uint32_t largest = infinity - 1;
    if (x != x) /* all ones: the canonical NaN */
        return ((top << m) + ((1u << m) - 1)) << shift_of(f);
    double a = fabs(x);
    int at = a > 0 && a < (double)INFINITY ? ilogb(a) : 1 - bias;
    if (at < 1 - bias)
        at = 1 - bias;
    uint32_t bits = infinity;
    if (a < (double)INFINITY) {
        double units = round_units(ldexp(a, m - at), round, sign != 0);
        /* units below 2^m are subnormal: the arithmetic on the encoding carries by itself */
        double whole = units + (double)(((int64_t)at + bias - 1) * (1 << m));
        bits = whole > largest ? infinity : (uint32_t)whole;
        if (bits == infinity &&
            (sat || round == R_RZ || (round == R_RM && !sign) || (round == R_RP && sign)))
            bits = largest;
    } else if (sat) {
        bits = largest;
    }
    return (sign | bits) << shift_of(f);
}

float f16_table[65536];

__attribute__((constructor)) static void make_table(void)
{
    for (uint32_t i = 0; i < 65536; i++)
        f16_table[i] = (float)fmt_decode(FMT_F16, i);
}

/* To nearest, ties to even.  Adding 0.5 rounds what will be subnormal to multiples of 2^-24. */
uint32_t f16_from_float(float f)
{
    union {
        float f;
        uint32_t u;
    } v = {.f = f}, t;
    uint32_t sign = v.u >> 16 & 0x8000, rest = v.u & 0x7fffffff;
    if (rest > 0x7f800000)
        return 0x7fff;
    if (rest >= 0x477ff000)
        return sign | 0x7c00;
    if (rest < 0x38800000) {
        t.u = rest;
        t.f += 0.5f;
        return sign | (t.u - 0x3f000000);
    }
    return sign | (rest - (112u << 23) + 0xfff + (rest >> 13 & 1)) >> 13;
}
