/* SPDX-License-Identifier: MIT */
/* Growable text.  It is made with malloc because it is handed to users, who have no context. */
#include "core.h"

#include <stdio.h>
#include <stdlib.h>

#define CEILING ((size_t)64 << 20) /* no plan or name is near it, so what is was made to be */

/* Room for `more` bytes and the terminator. */
static bool reserve(struct at_str *s, size_t more)
{
    if (more >= CEILING - s->len)
        return false;
    size_t need = s->len + more + 1;
    if (need <= s->cap)
        return true;
    size_t cap = s->cap ? s->cap : 256;
    while (cap < need)
        cap *= 2;
    char *text = realloc(s->text, cap);
    if (!text)
        return false;
    s->text = text;
    s->cap = cap;
    return true;
}

void at_str_add(struct at_str *s, const char *fmt, ...)
{
    if (s->failed)
        return;
    va_list ap;
    va_start(ap, fmt);
    int more = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (more < 0 || !reserve(s, (size_t)more)) {
        s->failed = true;
        return;
    }
    va_start(ap, fmt);
    vsnprintf(s->text + s->len, (size_t)more + 1, fmt, ap);
    va_end(ap);
    s->len += (size_t)more;
}

/* The length of the UTF-8 character at p, or 0 where there is none (RFC 3629: no surrogates,
 * nothing longer than needed, nothing above U+10FFFF). */
static int utf8_length(const unsigned char *p)
{
    int more = p[0] < 0x80   ? 0
               : p[0] < 0xc2 ? -1
               : p[0] < 0xe0 ? 1
               : p[0] < 0xf0 ? 2
               : p[0] < 0xf5 ? 3
                             : -1;
    for (int i = 1; i <= more; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
        (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
        return 0;
    return more + 1;
}

void at_str_json(struct at_str *s, const char *text)
{
    at_str_add(s, "\"");
    for (const unsigned char *p = (const unsigned char *)text; *p;) {
        int length = utf8_length(p);
        if (length == 0) /* not text: what a decoder shows in its place */
            at_str_add(s, "\\ufffd");
        else if (*p == '"' || *p == '\\')
            at_str_add(s, "\\%c", *p);
        else if (*p == '\n')
            at_str_add(s, "\\n");
        else if (*p < 0x20)
            at_str_add(s, "\\u%04x", *p);
        else
            at_str_add(s, "%.*s", length, (const char *)p);
        p += length ? length : 1;
    }
    at_str_add(s, "\"");
}
