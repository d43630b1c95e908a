/* SPDX-License-Identifier: MIT */
/* Block formats of quantised rows, laid out as in GGUF: 32 elements a block, f16 scale d. */
#ifndef AT_QUANT_H
#define AT_QUANT_H

#include <stdint.h>

#define AT_QUANT_BLOCK 32

struct at_q8_0 { /* x = d * q */
    uint16_t d;
    int8_t q[32];
};
struct at_q4_0 { /* x = d * (q - 8); low nibbles are elements 0..15, high ones 16..31 */
    uint16_t d;
    uint8_t q[16];
};
struct at_q4_1 { /* x = d * q + m; nibbles as above */
    uint16_t d, m;
    uint8_t q[16];
};

/* A row of n floats to ceil(n / 32) blocks, the last padded with zeros, and back to n floats.
 * Quantised to the nearest step of the stored (rounded) scale: the error is at most half a step,
 * and a full one for the extreme value of q4_0.  A block that holds NaN, infinity or a value whose
 * scale f16 cannot hold becomes NaN. */
void at_quant_q8_0(struct at_q8_0 *y, const float *x, int64_t n);
void at_quant_q4_0(struct at_q4_0 *y, const float *x, int64_t n);
void at_quant_q4_1(struct at_q4_1 *y, const float *x, int64_t n);
void at_quant_from_q8_0(float *y, const struct at_q8_0 *x, int64_t n);
void at_quant_from_q4_0(float *y, const struct at_q4_0 *x, int64_t n);
void at_quant_from_q4_1(float *y, const struct at_q4_1 *x, int64_t n);

/* Rows of f16 and bf16. */
void at_quant_f16(uint16_t *y, const float *x, int64_t n);
void at_quant_bf16(uint16_t *y, const float *x, int64_t n);
void at_quant_from_f16(float *y, const uint16_t *x, int64_t n);
void at_quant_from_bf16(float *y, const uint16_t *x, int64_t n);

#endif
