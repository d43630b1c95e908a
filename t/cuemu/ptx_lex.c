/* SPDX-License-Identifier: MIT */
#include "ptx_lex.h"

#include <stdlib.h>
#include <string.h>

static bool starts_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '$' || c == '%' ||
           c == '.';
}

static bool digit(char c)
{
    return c >= '0' && c <= '9';
}

static int hex_value(char c)
{
    if (digit(c))
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static void skip_blanks(struct ptx_lexer *lx)
{
    while (lx->p < lx->end) {
        char next = lx->p + 1 < lx->end ? lx->p[1] : 0;
        if (*lx->p == '\n') {
            lx->line++;
            lx->p++;
        } else if (*lx->p == ' ' || *lx->p == '\t' || *lx->p == '\r' || *lx->p == 0) {
            lx->p++;
        } else if (*lx->p == '/' && next == '/') {
            while (lx->p < lx->end && *lx->p != '\n')
                lx->p++;
        } else if (*lx->p == '/' && next == '*') {
            for (lx->p += 2; lx->p + 1 < lx->end && !(lx->p[0] == '*' && lx->p[1] == '/'); lx->p++)
                lx->line += *lx->p == '\n';
            lx->p = lx->p + 2 < lx->end ? lx->p + 2 : lx->end;
        } else {
            return;
        }
    }
}

/* Digits of `base` from p; where they end. */
static const char *digits(const char *p, const char *end, int base, uint64_t *value)
{
    for (*value = 0; p < end; p++) {
        int d = hex_value(*p);
        if (d < 0 || d >= base)
            break;
        *value = *value * (uint64_t)base + (uint64_t)d;
    }
    return p;
}

static void take_double(struct ptx_lexer *lx, double d)
{
    lx->token = TOK_FLOAT;
    memcpy(&lx->bits, &d, sizeof d);
}

/* 0f3F800000, 0d3FF0000000000000, 1.5, 0x10, 010, 0b11, 12U */
static void take_number(struct ptx_lexer *lx)
{
    const char *p = lx->p, *end = lx->end;
    char second = p + 1 < end ? (char)(p[1] | 32) : 0;
    lx->token = TOK_INT;
    lx->single = false;
    if (*p == '0' && (second == 'f' || second == 'd')) {
        lx->p = digits(p + 2, end, 16, &lx->bits);
        lx->token = TOK_FLOAT;
        if (second == 'f') {
            uint32_t bits = (uint32_t)lx->bits;
            float f;
            memcpy(&f, &bits, sizeof f);
            take_double(lx, (double)f);
            lx->single = true;
            if (f != f) /* keep the payload of a NaN */
                lx->bits = 0x7ff0000000000000u | (uint64_t)(bits >> 31) << 63 |
                           (uint64_t)(bits & 0x7fffff) << 29;
        }
        return;
    }
    if (*p == '0' && second == 'x') {
        p = digits(p + 2, end, 16, &lx->bits);
    } else if (*p == '0' && second == 'b') {
        p = digits(p + 2, end, 2, &lx->bits);
    } else {
        const char *q = p;
        while (q < end && digit(*q))
            q++;
        if (q < end && (*q == '.' || *q == 'e' || *q == 'E')) {
            char copy[64], *stop;
            size_t n = (size_t)(end - p) < sizeof copy - 1 ? (size_t)(end - p) : sizeof copy - 1;
            memcpy(copy, p, n);
            copy[n] = 0;
            take_double(lx, strtod(copy, &stop));
            lx->p = p + (stop - copy);
            return;
        }
        p = digits(p, end, *p == '0' ? 8 : 10, &lx->bits);
    }
    if (p < end && *p == 'U')
        p++;
    lx->p = p;
}

static void take_string(struct ptx_lexer *lx)
{
    lx->token = TOK_STRING;
    lx->start = ++lx->p;
    while (lx->p < lx->end && *lx->p != '"')
        lx->p += *lx->p == '\\' && lx->p + 1 < lx->end ? 2 : 1;
    lx->length = (size_t)(lx->p - lx->start);
    if (lx->p < lx->end)
        lx->p++;
}

static void take_word(struct ptx_lexer *lx)
{
    lx->token = TOK_WORD;
    while (lx->p < lx->end) {
        if (starts_word(*lx->p) || digit(*lx->p))
            lx->p++;
        else if (*lx->p == ':' && lx->p + 1 < lx->end && lx->p[1] == ':')
            lx->p += 2;
        else
            break;
    }
    lx->length = (size_t)(lx->p - lx->start);
}

void ptx_lex_start(struct ptx_lexer *lx, const char *text, size_t size)
{
    *lx = (struct ptx_lexer){.p = text, .end = text + size, .line = 1};
    ptx_lex_next(lx);
}

void ptx_lex_next(struct ptx_lexer *lx)
{
    skip_blanks(lx);
    lx->start = lx->p;
    lx->length = 0;
    lx->at_line = lx->line;
    lx->punct = 0;
    if (lx->p >= lx->end) {
        lx->token = TOK_END;
    } else if (starts_word(*lx->p)) {
        take_word(lx);
    } else if (digit(*lx->p)) {
        take_number(lx);
        lx->length = (size_t)(lx->p - lx->start);
    } else if (*lx->p == '"') {
        take_string(lx);
    } else {
        lx->token = strchr("{}[]()<>,;:|!+-=@*&", *lx->p) ? TOK_PUNCT : TOK_BAD;
        lx->punct = *lx->p++;
        lx->length = 1;
    }
}

bool ptx_lex_is(const struct ptx_lexer *lx, const char *word)
{
    return (lx->token == TOK_WORD || lx->token == TOK_PUNCT) && lx->length == strlen(word) &&
           !memcmp(lx->start, word, lx->length);
}
