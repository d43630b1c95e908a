/* SPDX-License-Identifier: MIT */
/* attend_convert: a row of elements from one type to another. */
#include <string.h>

#include "core.h"
#include "element.h"

static bool is_type(attend_type t)
{
    return (unsigned)t < ATTEND_TYPE_COUNT;
}

static bool is_quantised(attend_type t)
{
    return attend_type_block(t) > 1;
}

static bool is_integer(attend_type t)
{
    return t == ATTEND_I8 || t == ATTEND_I32 || t == ATTEND_I64 || t == ATTEND_U8 ||
           t == ATTEND_BOOL;
}

/* An integer of more bits than a double holds, those lost standing in the last one that is kept, so
 * that f32 and shorter types are rounded as if from the integer. */
static double from_i64(int64_t v)
{
    bool fits = v >= -((int64_t)1 << 53) && v <= (int64_t)1 << 53;
    return (double)(fits || !(v & 1023) ? v : (v & ~(int64_t)1023) | 1024);
}

/* At most a block of elements, as doubles. */
static void get(attend_type type, const void *src, int64_t at, double *x, int64_t n, bool to_f64)
{
    const char *blocks = (const char *)src + at / AT_QUANT_BLOCK * (int64_t)attend_type_size(type);
    float y[AT_QUANT_BLOCK];
    if (is_quantised(type)) {
        at_element_from_blocks(type, blocks, y, n);
        for (int64_t k = 0; k < n; k++)
            x[k] = (double)y[k];
    } else if (type == ATTEND_I64 && !to_f64) {
        for (int64_t k = 0; k < n; k++)
            x[k] = from_i64(((const int64_t *)src)[at + k]);
    } else {
        for (int64_t k = 0; k < n; k++)
            x[k] = at_element_get(type, src, at + k);
    }
}

static void set(attend_type type, void *dst, int64_t at, const double *x, int64_t n)
{
    char *blocks = (char *)dst + at / AT_QUANT_BLOCK * (int64_t)attend_type_size(type);
    float y[AT_QUANT_BLOCK];
    if (is_quantised(type)) {
        for (int64_t k = 0; k < n; k++)
            y[k] = (float)x[k];
        at_element_to_blocks(type, blocks, y, n);
    } else {
        for (int64_t k = 0; k < n; k++)
            at_element_set(type, dst, at + k, x[k]);
    }
}

int attend_convert(attend_type dst_type, void *dst, attend_type src_type, const void *src,
                   int64_t n)
{
    double x[AT_QUANT_BLOCK];
    if (!is_type(dst_type) || !is_type(src_type) || n < 0 ||
        (is_integer(dst_type) && dst_type != src_type))
        return ATTEND_EINVAL;
    if (n > 0 && dst_type == src_type) {
        memmove(dst, src, (size_t)attend_type_row_bytes(src_type, n));
        return 0;
    }
    for (int64_t at = 0; at < n; at += AT_QUANT_BLOCK) {
        int64_t count = at_min(n - at, AT_QUANT_BLOCK);
        get(src_type, src, at, x, count, dst_type == ATTEND_F64);
        set(dst_type, dst, at, x, count);
    }
    return 0;
}
