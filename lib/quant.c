/* SPDX-License-Identifier: MIT */
/* Rows of small types in plain C: what each block format means. */
#include "quant.h"

#include <math.h>

#include "half.h"

/* Copies up to 32 elements, zero-padded; returns whether all are finite. */
static int load_block(float *b, const float *x, int64_t n)
{
    int finite = 1;
    for (int e = 0; e < AT_QUANT_BLOCK; e++) {
        b[e] = e < n ? x[e] : 0.0f;
        finite &= isfinite(b[e]) != 0;
    }
    return finite;
}

/* The f16 that is stored for scale d: NaN where it overflows. */
static uint16_t store_scale(float d, int finite)
{
    uint16_t h = at_half_from_float(d);
    return finite && (h & 0x7c00) != 0x7c00 ? h : 0x7e00;
}

/* The nearest integer to x / d within [lo, hi]; 0 where d is 0 or NaN. */
static int step(float x, uint16_t d, int lo, int hi)
{
    float scale = at_half_to_float(d);
    float q = scale != 0.0f && scale == scale ? x / scale : 0.0f;
    return (int)lrintf(fminf(fmaxf(q, (float)lo), (float)hi));
}

void at_quant_q8_0(struct at_q8_0 *y, const float *x, int64_t n)
{
    for (; n > 0; n -= AT_QUANT_BLOCK, x += AT_QUANT_BLOCK, y++) {
        float b[AT_QUANT_BLOCK], top = 0.0f;
        int finite = load_block(b, x, n);
        for (int e = 0; e < AT_QUANT_BLOCK; e++)
            top = fmaxf(top, fabsf(b[e]));
        y->d = store_scale(top / 127.0f, finite);
        for (int e = 0; e < AT_QUANT_BLOCK; e++)
            y->q[e] = (int8_t)step(b[e], y->d, -127, 127);
    }
}

void at_quant_q4_0(struct at_q4_0 *y, const float *x, int64_t n)
{
    for (; n > 0; n -= AT_QUANT_BLOCK, x += AT_QUANT_BLOCK, y++) {
        float b[AT_QUANT_BLOCK], top = 0.0f; /* top: the value of the largest magnitude, signed */
        int finite = load_block(b, x, n);
        for (int e = 0; e < AT_QUANT_BLOCK; e++)
            if (fabsf(b[e]) > fabsf(top))
                top = b[e];
        y->d = store_scale(top / -8.0f, finite); /* so that it is exactly step -8 */
        for (int e = 0; e < 16; e++)
            y->q[e] =
                (uint8_t)((step(b[e], y->d, -8, 7) + 8) | (step(b[e + 16], y->d, -8, 7) + 8) << 4);
    }
}

void at_quant_q4_1(struct at_q4_1 *y, const float *x, int64_t n)
{
    for (; n > 0; n -= AT_QUANT_BLOCK, x += AT_QUANT_BLOCK, y++) {
        float b[AT_QUANT_BLOCK], low = INFINITY, top = -INFINITY;
        int finite = load_block(b, x, n);
        for (int e = 0; e < AT_QUANT_BLOCK; e++) {
            low = fminf(low, b[e]);
            top = fmaxf(top, b[e]);
        }
        y->m = store_scale(low, finite);
        low = at_half_to_float(y->m);
        y->d = store_scale((top - low) / 15.0f, finite);
        for (int e = 0; e < 16; e++)
            y->q[e] =
                (uint8_t)(step(b[e] - low, y->d, 0, 15) | step(b[e + 16] - low, y->d, 0, 15) << 4);
    }
}

void at_quant_from_q8_0(float *y, const struct at_q8_0 *x, int64_t n)
{
    for (int64_t e = 0; e < n; e++) {
        const struct at_q8_0 *b = x + e / 32;
        y[e] = at_half_to_float(b->d) * (float)b->q[e % 32];
    }
}

static int nibble(const uint8_t *q, int64_t e)
{
    return e < 16 ? q[e] & 15 : q[e - 16] >> 4;
}

void at_quant_from_q4_0(float *y, const struct at_q4_0 *x, int64_t n)
{
    for (int64_t e = 0; e < n; e++) {
        const struct at_q4_0 *b = x + e / 32;
        y[e] = at_half_to_float(b->d) * (float)(nibble(b->q, e % 32) - 8);
    }
}

void at_quant_from_q4_1(float *y, const struct at_q4_1 *x, int64_t n)
{
    for (int64_t e = 0; e < n; e++) {
        const struct at_q4_1 *b = x + e / 32;
        y[e] = at_half_to_float(b->d) * (float)nibble(b->q, e % 32) + at_half_to_float(b->m);
    }
}

void at_quant_f16(uint16_t *y, const float *x, int64_t n)
{
    for (int64_t e = 0; e < n; e++)
        y[e] = at_half_from_float(x[e]);
}

void at_quant_bf16(uint16_t *y, const float *x, int64_t n)
{
    for (int64_t e = 0; e < n; e++)
        y[e] = at_bf16_from_float(x[e]);
}

void at_quant_from_f16(float *y, const uint16_t *x, int64_t n)
{
    for (int64_t e = 0; e < n; e++)
        y[e] = at_half_to_float(x[e]);
}

void at_quant_from_bf16(float *y, const uint16_t *x, int64_t n)
{
    for (int64_t e = 0; e < n; e++)
        y[e] = at_bf16_to_float(x[e]);
}
