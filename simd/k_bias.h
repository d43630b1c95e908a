/* SPDX-License-Identifier: MIT */
/* What a caller gives for each (row, key) pair, a row at a time, joins a score block, which has it
 * key by key. */
#ifndef AT_K_BIAS_H
#define AT_K_BIAS_H

#include "k_math.h"

INLINE float pair(const struct at_pairs *p, int r, int64_t j)
{
    const char *row = p->row[r];
    if (p->type == AT_PAIR_BOOL)
        return ((const uint8_t *)row)[j * p->step] ? 0.0f : -INFINITY;
    if (p->type == AT_PAIR_F32)
        return ((const float *)(const void *)row)[j * p->step];
    uint16_t half = ((const uint16_t *)(const void *)row)[j * p->step];
    return p->type == AT_PAIR_F16 ? at_half_to_float(half) : at_bf16_to_float(half);
}

/* Keys j .. j + some of row r, one after the other; one function for all the places that need it.
 */
static __attribute__((noinline)) V single_pairs(const struct at_pairs *p, int r, int64_t j,
                                                int some)
{
    float t[VL] = {0};
    for (int e = 0; e < some; e++)
        t[e] = pair(p, r, j + e);
    return vload(t);
}

/* The same; where a vector of them lies in memory, at once. */
INLINE V pairs(enum at_pair type, const struct at_pairs *p, int r, int64_t j, int some)
{
    const void *row = p->row[r];
    if (some < VL || p->step != 1)
        return single_pairs(p, r, j, some);
    if (type == AT_PAIR_BOOL)
        return vsel(veq(vload_i8((const int8_t *)row + j), vzero()), vset(-INFINITY), vzero());
    if (type == AT_PAIR_F32)
        return vload((const float *)row + j);
    return type == AT_PAIR_F16 ? vload_f16((const uint16_t *)row + j)
                               : vload_bf16((const uint16_t *)row + j);
}

INLINE V biased(V s, V b)
{
    V none = vset(-INFINITY);
    return vsel(veq(b, none), none, vadd(s, b));
}

/* VL rows from r on, of a block that has room for so many. */
INLINE void bias_lanes(enum at_pair type, float *st, int64_t stride, int r, int n, int64_t keys,
                       const struct at_pairs *p)
{
    for (int64_t j = 0; j < keys; j += VL) {
        int some = keys - j < VL ? (int)(keys - j) : VL;
        V t[VL];
#pragma GCC unroll 16
        for (int e = 0; e < VL; e++)
            t[e] = r + e < n ? pairs(type, p, r + e, j, some) : vzero();
        vtranspose(t);
#pragma GCC unroll 16
        for (int e = 0; e < VL; e++)
            if (e < some) {
                float *s = st + (j + e) * stride + r;
                vstore(s, biased(vload(s), t[e]));
            }
    }
}

static void bias(float *st, int64_t stride, int n, int64_t keys, const struct at_pairs *p)
{
    int r = 0;
    for (; r < n && r + VL <= stride; r += VL)
        switch (p->type) {
        case AT_PAIR_BOOL:
            bias_lanes(AT_PAIR_BOOL, st, stride, r, n, keys, p);
            break;
        case AT_PAIR_F32:
            bias_lanes(AT_PAIR_F32, st, stride, r, n, keys, p);
            break;
        case AT_PAIR_F16:
            bias_lanes(AT_PAIR_F16, st, stride, r, n, keys, p);
            break;
        case AT_PAIR_BF16:
            bias_lanes(AT_PAIR_BF16, st, stride, r, n, keys, p);
        }
    for (; r < n; r++)
        for (int64_t j = 0; j < keys; j++) {
            float *s = st + j * stride + r, b = pair(p, r, j);
            *s = b == -INFINITY ? b : *s + b;
        }
}

#endif
