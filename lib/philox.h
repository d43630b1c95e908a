/* SPDX-License-Identifier: MIT */
/* Which weights dropout keeps: random bits that are a function of (seed, offset, b, h, i, j), so
 * that every device, every split of the work and the backward pass draw the same ones. */
#ifndef AT_PHILOX_H
#define AT_PHILOX_H

#include <stdint.h>

/* Philox 4x32-10 (Salmon, Moraes, Dror, Shaw 2011): `n` counters at once, word w of counter r in
 * c[w][r], become random words. */
#define AT_PHILOX_LANES 16
static inline void at_philox(uint64_t key, uint32_t c[4][AT_PHILOX_LANES], int n)
{
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    for (int round = 0; round < 10; round++) {
        for (int r = 0; r < n; r++) {
            uint64_t a = (uint64_t)0xd2511f53 * c[0][r], b = (uint64_t)0xcd9e8d57 * c[2][r];
            c[0][r] = (uint32_t)(b >> 32) ^ c[1][r] ^ k0;
            c[1][r] = (uint32_t)b;
            c[2][r] = (uint32_t)(a >> 32) ^ c[3][r] ^ k1;
            c[3][r] = (uint32_t)a;
        }
        k0 += 0x9e3779b9;
        k1 += 0xbb67ae85;
    }
}

struct at_dropout {
    uint64_t seed;
    uint32_t offset;
    uint32_t below; /* words under this are dropped: floor(p 2^32); 0: no dropout */
    float keep;     /* what kept weights are times: 1 / (1 - p) */
};
static inline struct at_dropout at_dropout_of(float p, uint64_t seed, uint32_t offset)
{
    struct at_dropout d = {seed, offset, (uint32_t)((double)p * 0x1p32),
                           (float)(1 / (1 - (double)p))};
    return d;
}

/* The factor of weight (i, j) of head bh = b * Hq + h: 0, or keep. */
static inline float at_dropout_factor(const struct at_dropout *d, uint32_t bh, uint32_t i,
                                      uint32_t j)
{
    uint32_t c[4][AT_PHILOX_LANES] = {{j / 4}, {i}, {bh}, {d->offset}};
    if (d->below == 0)
        return 1;
    at_philox(d->seed, c, 1);
    return c[j % 4][0] < d->below ? 0 : d->keep;
}

#endif
