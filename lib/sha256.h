/* SPDX-License-Identifier: MIT */
/* SHA-256 (FIPS 180-4). */
#ifndef AT_SHA256_H
#define AT_SHA256_H

#include <stddef.h>
#include <stdint.h>

struct at_sha256 {
    uint32_t h[8];
    uint64_t bytes;
    uint8_t block[64];
};
void at_sha256_begin(struct at_sha256 *s);
void at_sha256_add(struct at_sha256 *s, const void *data, size_t size);
void at_sha256_end(struct at_sha256 *s, uint8_t digest[32]);

#endif
