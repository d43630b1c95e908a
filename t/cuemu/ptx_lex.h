/* SPDX-License-Identifier: MIT */
/* Words of PTX text.  A word holds its dots and double colons ("ld.global.nc.f32", "%tid.x",
 * ".u32", "L2::128B" inside an opcode), which is how PTX is spaced in practice. */
#ifndef CUEMU_PTX_LEX_H
#define CUEMU_PTX_LEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum ptx_token { TOK_END, TOK_WORD, TOK_INT, TOK_FLOAT, TOK_STRING, TOK_PUNCT, TOK_BAD };

struct ptx_lexer {
    const char *p, *end;
    int line;
    /* the current token */
    enum ptx_token token;
    const char *start;
    size_t length;
    int at_line;
    char punct;
    uint64_t bits; /* TOK_INT: the value; TOK_FLOAT: the bits of a double */
    bool single;   /* TOK_FLOAT: written 0f, so exactly a float */
};

void ptx_lex_start(struct ptx_lexer *lx, const char *text, size_t size);
void ptx_lex_next(struct ptx_lexer *lx);
bool ptx_lex_is(const struct ptx_lexer *lx, const char *word); /* this word, or punctuation */

#endif
