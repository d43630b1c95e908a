/* SPDX-License-Identifier: MIT */
/* UTF-8, one character at a time. */
#ifndef AT_UTF8_H
#define AT_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* The character at p, of n > 0 bytes: its length in bytes with *code set; 0: the n bytes begin one
 * and end before its end; -k: the first k bytes can be no part of any. */
int at_utf8_next(const unsigned char *p, size_t n, uint32_t *code);

#endif
