/* SPDX-License-Identifier: MIT */
/* Weights from scores and what softmax_step left of them, of panels. */
#ifndef AT_K_WEIGHTS_H
#define AT_K_WEIGHTS_H

#include "k_math.h"

static void weights(float *st, int64_t j0, int64_t n, const float *lse, float scale)
{
    st += j0 * R;
    for (int64_t j = 0; j < n; j++, st += R)
        for (int v = 0; v < NV; v++) {
            V s = vload(st + v * VL),
              w = vexp(vfma(s, vset(scale), vsub(vzero(), vload(lse + v * VL))));
            vstore(st + v * VL, vsel(veq(s, vset(-INFINITY)), vzero(), w));
        }
}

/* The same exponential as softmax_step's, so that a row's shares sum to 1. */
static void shares(float *st, int64_t j0, int64_t n, const float *m, const float *by, float scale)
{
    struct unit u = unit_of(scale);
    st += j0 * R;
    for (int64_t j = 0; j < n; j++, st += R)
        for (int v = 0; v < NV; v++) {
            V s = vload(st + v * VL), w = vweight(vsub(s, vload(m + v * VL)), u);
            w = vmul(w, vload(by + v * VL));
            vstore(st + v * VL, vsel(veq(s, vset(-INFINITY)), vzero(), w));
        }
}

static int64_t next_above(const float *st, int64_t j, int64_t end, const float *floor)
{
    for (; j < end; j++)
        for (int v = 0; v < NV; v++)
            if (vany(vgt(vload(st + j * R + v * VL), vload(floor + v * VL))))
                return j;
    return end;
}

#endif
