/* SPDX-License-Identifier: MIT */
/* Random expressions as text, over tensors that a test declares. */
#ifndef T_EXPR_RANDOM_H
#define T_EXPR_RANDOM_H

#include <stdint.h>

#include "expr.h"

/* A seeded sequence (xorshift64*). */
static inline uint64_t expr_random(uint64_t *seed)
{
    uint64_t x = *seed;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *seed = x;
    return x * 0x2545f4914f6cdd1dULL;
}
static inline int expr_pick(uint64_t *seed, int n)
{
    return (int)(expr_random(seed) >> 33) % n;
}

/* Conditions over b, h, i, j, sq, skv and the captures of x, as deep as `depth`. */
void expr_random_mask(const struct at_expr *x, uint64_t *seed, int depth, struct at_str *s);
/* Floats over the score and all that. */
void expr_random_score(const struct at_expr *x, uint64_t *seed, int depth, struct at_str *s);

#endif
