/* SPDX-License-Identifier: MIT */
/* UTF-8 read strictly (no overlong forms, no surrogates), whole or as it arrives. */
#include "utf8.h"
#include "models.h"

#include <string.h>

/* How many bytes follow a first byte; -1: it cannot be one. */
static int followers(unsigned char first)
{
    if (first < 0x80)
        return 0;
    if (first < 0xc2 || first > 0xf4)
        return -1;
    return first < 0xe0 ? 1 : first < 0xf0 ? 2 : 3;
}

int at_utf8_next(const unsigned char *p, size_t n, uint32_t *code)
{
    int more = followers(p[0]);
    if (more < 0)
        return -1;
    /* Only the second byte's range depends on the first (Unicode, table 3-7). */
    unsigned low = p[0] == 0xe0 ? 0xa0 : p[0] == 0xf0 ? 0x90 : 0x80;
    unsigned high = p[0] == 0xed ? 0x9f : p[0] == 0xf4 ? 0x8f : 0xbf;
    uint32_t c = more ? p[0] & (0x3fu >> more) : p[0];
    for (int i = 1; i <= more; i++, low = 0x80, high = 0xbf) {
        if ((size_t)i >= n)
            return 0;
        if (p[i] < low || p[i] > high)
            return -i;
        c = c << 6 | (p[i] & 0x3fu);
    }
    *code = c;
    return more + 1;
}

static char *replace(char *out)
{
    memcpy(out, "\xef\xbf\xbd", 3);
    return out + 3;
}

size_t attend_utf8_push(attend_utf8 *u, const char *bytes, size_t n, char *out)
{
    char *to = out;
    for (size_t i = 0; i < n; i++) {
        uint32_t code;
        int got;
        u->held[u->count++] = (unsigned char)bytes[i];
        /* Bytes come singly, so only the last can be wrong; then it may begin another. */
        while (u->count > 0 && (got = at_utf8_next(u->held, (size_t)u->count, &code)) != 0) {
            int used = got > 0 ? got : -got;
            if (got > 0) {
                memcpy(to, u->held, (size_t)used);
                to += used;
            } else {
                to = replace(to);
            }
            u->count -= used;
            memmove(u->held, u->held + used, (size_t)u->count);
        }
    }
    if (n == 0 && u->count > 0) {
        to = replace(to);
        u->count = 0;
    }
    return (size_t)(to - out);
}
