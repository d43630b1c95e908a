/* SPDX-License-Identifier: MIT */
/* The small floats in plain C: f16 (IEEE 754 binary16), bf16 and fp8 e4m3 to and from f32.  To f32
 * is exact; from f32 rounds to nearest, ties to even.  NaN stays NaN, signs and infinities are
 * kept. */
#ifndef AT_HALF_H
#define AT_HALF_H

#include <stdint.h>
#include <string.h>

static inline uint32_t at_float_bits(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static inline float at_float_from_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline float at_half_to_float(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, rest = h & 0x7fff;
    if (rest >=
        0x7c00) /* infinity and NaN: the exponent becomes all ones, the payload moves along */
        return at_float_from_bits(sign | 0x7f800000 | (rest & 0x3ff) << 13);
    if (rest >= 0x400)
        return at_float_from_bits(sign | ((rest << 13) + ((127 - 15) << 23)));
    float subnormal = (float)rest * 0x1p-24f;
    return at_float_from_bits(sign | at_float_bits(subnormal));
}

static inline uint16_t at_half_from_float(float f)
{
    uint32_t bits = at_float_bits(f), rest = bits & 0x7fffffff;
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    if (rest > 0x7f800000) /* quiet, so that a payload of low bits does not turn into infinity */
        return (uint16_t)(sign | 0x7e00 | (rest >> 13 & 0x3ff));
    if (rest >= 0x477ff000) /* 65520, halfway past the largest */
        return sign | 0x7c00;
    if (rest < 0x38800000) { /* 2^-14: adding 0.5 rounds to a multiple of 2^-24 */
        uint32_t t = at_float_bits(at_float_from_bits(rest) + 0.5f);
        return (uint16_t)(sign | (t - 0x3f000000));
    }
    uint32_t odd = rest >> 13 & 1;
    return (uint16_t)(sign | ((rest - ((127 - 15) << 23) + 0xfff + odd) >> 13));
}

static inline float at_bf16_to_float(uint16_t h)
{
    return at_float_from_bits((uint32_t)h << 16);
}

static inline uint16_t at_bf16_from_float(float f)
{
    uint32_t bits = at_float_bits(f);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* fp8 e4m3 (the "fn" form): bias 7, no infinities, NaN is 0x7f and 0xff. */
static inline float at_e4m3_to_float(uint8_t e)
{
    uint32_t sign = (uint32_t)(e & 0x80) << 24, rest = e & 0x7f;
    if (rest == 0x7f)
        return at_float_from_bits(sign | 0x7fc00000);
    if (rest >= 8)
        return at_float_from_bits(sign | ((rest << 20) + ((127 - 7) << 23)));
    float subnormal = (float)rest * 0x1p-9f;
    return at_float_from_bits(sign | at_float_bits(subnormal));
}

/* What passes the largest, 448, becomes the largest: there is no infinity to become. */
static inline uint8_t at_e4m3_from_float(float f)
{
    uint32_t bits = at_float_bits(f), rest = bits & 0x7fffffff;
    uint8_t sign = (uint8_t)(bits >> 24 & 0x80);
    if (rest > 0x7f800000)
        return sign | 0x7f;
    if (rest > 0x43e00000)
        return sign | 0x7e;
    if (rest < 0x3c800000) { /* 2^-6: adding 2^14 rounds to a multiple of 2^-9 */
        uint32_t t = at_float_bits(at_float_from_bits(rest) + 0x1p14f);
        return (uint8_t)(sign | (t - 0x46800000));
    }
    uint32_t odd = rest >> 20 & 1;
    return (uint8_t)(sign | ((rest - ((127 - 7) << 23) + 0x7ffff + odd) >> 20));
}

#endif
