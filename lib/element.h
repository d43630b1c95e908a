/* SPDX-License-Identifier: MIT */
/* One element of any type, as a number: read exactly, written with one rounding to nearest even. */
#ifndef AT_ELEMENT_H
#define AT_ELEMENT_H

#include <math.h>

#include "attend.h"
#include "half.h"
#include "quant.h"

/* x as an f32 whose last bit is set wherever bits were lost, so that rounding it once more, to a
 * shorter type, gives what rounding x at once would have. */
static inline float at_element_to_odd(double x)
{
    float f = (float)x;
    if ((double)f == x || isnan(x))
        return f;
    uint32_t bits = at_float_bits(f);
    if (fabs((double)f) > fabs(x)) /* also from infinity back to the largest */
        bits--;
    return at_float_from_bits(bits | 1);
}

/* Element `at` of data.  Of no quantised type: those go by blocks. */
static inline double at_element_get(attend_type type, const void *data, int64_t at)
{
    switch (type) {
    case ATTEND_F32:
        return (double)((const float *)data)[at];
    case ATTEND_F16:
        return (double)at_half_to_float(((const uint16_t *)data)[at]);
    case ATTEND_BF16:
        return (double)at_bf16_to_float(((const uint16_t *)data)[at]);
    case ATTEND_F64:
        return ((const double *)data)[at];
    case ATTEND_I8:
        return ((const int8_t *)data)[at];
    case ATTEND_I32:
        return ((const int32_t *)data)[at];
    case ATTEND_I64:
        return (double)((const int64_t *)data)[at];
    case ATTEND_U8:
        return ((const uint8_t *)data)[at];
    case ATTEND_F8:
        return (double)at_e4m3_to_float(((const uint8_t *)data)[at]);
    case ATTEND_BOOL:
        return ((const uint8_t *)data)[at] != 0;
    default:
        return (double)NAN;
    }
}

/* Of the floating types. */
static inline void at_element_set(attend_type type, void *data, int64_t at, double x)
{
    if (type == ATTEND_F32)
        ((float *)data)[at] = (float)x;
    else if (type == ATTEND_F16)
        ((uint16_t *)data)[at] = at_half_from_float(at_element_to_odd(x));
    else if (type == ATTEND_BF16)
        ((uint16_t *)data)[at] = at_bf16_from_float(at_element_to_odd(x));
    else if (type == ATTEND_F8)
        ((uint8_t *)data)[at] = at_e4m3_from_float(at_element_to_odd(x));
    else if (type == ATTEND_F64)
        ((double *)data)[at] = x;
}

/* n floats from, and to, the blocks of a quantised row that begin at data. */
static inline void at_element_from_blocks(attend_type type, const void *data, float *y, int64_t n)
{
    if (type == ATTEND_Q8_0)
        at_quant_from_q8_0(y, data, n);
    else if (type == ATTEND_Q4_0)
        at_quant_from_q4_0(y, data, n);
    else if (type == ATTEND_Q4_1)
        at_quant_from_q4_1(y, data, n);
}

static inline void at_element_to_blocks(attend_type type, void *data, const float *x, int64_t n)
{
    if (type == ATTEND_Q8_0)
        at_quant_q8_0(data, x, n);
    else if (type == ATTEND_Q4_0)
        at_quant_q4_0(data, x, n);
    else if (type == ATTEND_Q4_1)
        at_quant_q4_1(data, x, n);
}

#endif
