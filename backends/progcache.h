/* SPDX-License-Identifier: MIT */
/* Compiled programs on disk, so that only the first process compiles.  A damaged binary makes
 * drivers abort, so nothing that is read is given away before its checksum was right; any defect is
 * as if the file were not there.  Files are written beside their place and renamed. */
#ifndef AT_PROGCACHE_H
#define AT_PROGCACHE_H

#include "core.h"
#include "sha256.h"

#define AT_PROGCACHE_MOST                                                                          \
    ((int64_t)256 << 20) /* bytes of the folder: the oldest go when it is passed */

/* The folder: ATTEND_CACHE, or `attend` where the user's caches are.  False where there is none. */
bool at_progcache_folder(char *buf, size_t size);
/* The program of a key (a SHA-256 of all that it depends on), from at_alloc; NULL where there is
 * none. */
void *at_progcache_read(attend_ctx *ctx, const uint8_t key[32], int64_t *bytes);
void at_progcache_write(attend_ctx *ctx, const uint8_t key[32], const void *data, int64_t bytes);

#endif
