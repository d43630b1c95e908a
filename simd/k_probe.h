/* SPDX-License-Identifier: MIT */
/* What this instruction set can do at most on this machine: the ceilings that benchmarks quote. */
#ifndef AT_K_PROBE_H
#define AT_K_PROBE_H

#include "k_math.h"

#define PROBE_CHAINS (TILE * NV) /* as many accumulators as the micro-kernels keep */

static int64_t probe_fma(float *sink, int64_t rounds)
{
    V acc[PROBE_CHAINS], half = vset(0.5f), one = vset(1.0f);
    for (int c = 0; c < PROBE_CHAINS; c++)
        acc[c] = vset((float)c);
    for (int64_t i = 0; i < rounds; i++)
#pragma GCC unroll 64
        for (int c = 0; c < PROBE_CHAINS; c++)
            acc[c] = vfma(acc[c], half, one);
    for (int c = 1; c < PROBE_CHAINS; c++)
        acc[0] = vadd(acc[0], acc[c]);
    vstore(sink, acc[0]);
    return rounds * PROBE_CHAINS * VL * 2;
}

/* Bits are or-ed: no arithmetic, so any bits will do. */
static void probe_read(float *sink, const void *from, int64_t bytes)
{
    const float *x = from;
    int64_t n = bytes / (int64_t)sizeof *x, e = 0;
    V acc[4] = {vload(sink), vzero(), vzero(), vzero()};
    for (; e + 4 * VL <= n; e += 4 * VL)
        for (int c = 0; c < 4; c++)
            acc[c] = vor(acc[c], vload(x + e + c * VL));
    for (; e + VL <= n; e += VL)
        acc[0] = vor(acc[0], vload(x + e));
    vstore(sink, vor(vor(acc[0], acc[1]), vor(acc[2], acc[3])));
}

#endif
