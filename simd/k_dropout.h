/* SPDX-License-Identifier: MIT */
/* Dropout of a block of weights: four keys of sixteen rows at a time, which the compiler turns into
 * vectors. */
#ifndef AT_K_DROPOUT_H
#define AT_K_DROPOUT_H

#include "../lib/philox.h"
#include "simd.h"

static void dropout(float *st, int64_t stride, int n, int64_t j0, int64_t j1,
                    const struct at_dropout *d, const uint32_t *i, const uint32_t *bh)
{
    for (int r0 = 0; r0 < n; r0 += AT_PHILOX_LANES) {
        int some = n - r0 < AT_PHILOX_LANES ? n - r0 : AT_PHILOX_LANES;
        for (int64_t quad = j0 / 4; 4 * quad < j1; quad++) {
            uint32_t c[4][AT_PHILOX_LANES] = {{0}};
            for (int r = 0; r < some; r++) {
                c[0][r] = (uint32_t)quad;
                c[1][r] = i[r0 + r];
                c[2][r] = bh[r0 + r];
                c[3][r] = d->offset;
            }
            at_philox(d->seed, c, AT_PHILOX_LANES);
            for (int w = 0; w < 4; w++) {
                float *row = st + (4 * quad + w - j0) * stride + r0;
                for (int r = 0; r < some && 4 * quad + w >= j0 && 4 * quad + w < j1; r++)
                    row[r] *= c[w][r] < d->below ? 0.0f : d->keep;
            }
        }
    }
}

#endif
