/* SPDX-License-Identifier: MIT */
/* Cuts text into the words that byte-level BPE works in, by Unicode categories (utf8proc). */
#include "words.h"
#include "utf8.h"

#include <stdint.h>
#include <string.h>
#ifdef HAVE_UTF8PROC
#    include <utf8proc.h>
#endif

/* What the rules below tell apart.  STOP is the end of the text, or a number: numbers are cut out
 * first, so that no word reaches over one. */
enum kind { STOP, LETTER, SPACE, OTHER };

static bool is_space(uint32_t c) /* Unicode's White_Space */
{
    return (c >= 9 && c <= 13) || c == 32 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
           c == 0x205f || c == 0x3000;
}

bool at_words_known(void)
{
#ifdef HAVE_UTF8PROC
    return true;
#else
    return false;
#endif
}

static enum kind kind_of(uint32_t c)
{
    if (is_space(c))
        return SPACE;
#ifdef HAVE_UTF8PROC
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)c);
    if (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO)
        return LETTER;
    if (category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO)
        return STOP;
#endif
    return OTHER;
}

/* The kind of the character at p, and its length (0 at the end). */
static enum kind kind_at(const unsigned char *p, size_t n, size_t *length)
{
    uint32_t c = 0;
    int got = n > 0 ? at_utf8_next(p, n, &c) : 0;
    *length = n == 0 ? 0 : got > 0 ? (size_t)got : 1; /* 1: a user-defined token cut a character */
    return n == 0 ? STOP : kind_of(c);
}

/* 's 't 're 've 'm 'll 'd at p: its length, or 0. */
static size_t contraction(const unsigned char *p, size_t n)
{
    static const char *const tails[] = {"s", "t", "m", "d", "re", "ve", "ll"};
    for (size_t i = 0; i < sizeof(tails) / sizeof(*tails); i++) {
        size_t tail = strlen(tails[i]);
        if (n > tail && p[0] == '\'' && memcmp(p + 1, tails[i], tail) == 0)
            return tail + 1;
    }
    return 0;
}

/* The end of the characters of kind c, never STOP, from p + at on. */
static size_t run_of(enum kind c, const unsigned char *p, size_t n, size_t at)
{
    size_t length;
    while (kind_at(p + at, n - at, &length) == c)
        at += length;
    return at;
}

/* Spaces belong to what follows them, but only the last one does; at a STOP they stay together. */
static size_t spaces(const unsigned char *p, size_t n)
{
    size_t at = 0, last = 0, length;
    enum kind c;
    while ((c = kind_at(p + at, n - at, &length)) == SPACE) {
        last = at;
        at += length;
    }
    return c == STOP || last == 0 ? at : last;
}

/* \p{N} first, then, between numbers, GPT-2's
 *     's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ */
size_t at_words_next(const unsigned char *p, size_t n)
{
    size_t length, after, short_form = contraction(p, n);
    enum kind c = kind_at(p, n, &length);
    if (c == STOP)
        return length;
    if (short_form)
        return short_form;
    if (c != SPACE)
        return run_of(c, p, n, length);
    enum kind next = kind_at(p + length, n - length, &after);
    if (p[0] == ' ' && (next == LETTER || next == OTHER))
        return run_of(next, p, n, length + after);
    return spaces(p, n);
}
