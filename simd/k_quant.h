/* SPDX-License-Identifier: MIT */
/* Dot products of quantised rows with f32 rows.  The scales of a run of blocks are converted first, all
 * together, so that in the loop a scale is a broadcast from memory. */
#ifndef AT_K_QUANT_H
#define AT_K_QUANT_H

#include "k_math.h"

#define RUN 16 /* blocks whose scales are converted at once */

/* scales[2 i] = d and scales[2 i + 1] = m (of q4_1) of n <= RUN blocks from `block` on. */
INLINE void load_scales(enum at_elem type, float scales[2 * RUN], const void *row, int64_t block,
                        int64_t n)
{
    uint16_t half[2 * RUN];
    const char *from = (const char *)row + block * at_elem_size(type);
    if (n < RUN)
        memset(half, 0, sizeof half);
    for (int64_t i = 0; i < n; i++, from += at_elem_size(type))
        memcpy(half + 2 * i, from, type == AT_ELEM_Q4_1 ? 4 : 2);
#pragma GCC unroll 8
    for (int e = 0; e < 2 * RUN; e += VL)
        vstore(scales + e, vload_f16(half + e));
}

/* z[x * rt + r] += q[r] . key x over channels [d0, d1), for VL / rt keys of rt rows; d0 is a multiple
 * of 32.  Rows of q are `padded` apart and hold zeros past the last channel. */
INLINE void dots_blocks(enum at_elem type, int rt, V z[VL], const float *qd, int64_t padded,
                        const char *const row[VL], int64_t d0, int64_t d1)
{
    const int kt = VL / rt;
    float scales[VL][2 * RUN];
    int64_t end = (d1 + 31) / 32;
    for (int64_t b0 = d0 / 32; b0 < end; b0 += RUN) {
        int64_t n = end - b0 < RUN ? end - b0 : RUN;
        for (int x = 0; x < kt; x++)
            load_scales(type, scales[x], row[x], b0, n);
        for (int64_t i = 0; i < n; i++)
#pragma GCC unroll 16
            for (int x = 0; x < kt; x++) {
                const float *q = qd + (b0 + i) * 32;
                V w[32 / VL];
                load_block(type, w, row[x], b0 + i, vset(scales[x][2 * i]),
                           vset(scales[x][2 * i + 1]));
#pragma GCC unroll 16
                for (int r = 0; r < rt; r++)
#pragma GCC unroll 8
                    for (int e = 0; e < 32; e += VL)
                        z[x * rt + r] = vfma(w[e / VL], vload(q + r * padded + e), z[x * rt + r]);
            }
    }
}

#endif
