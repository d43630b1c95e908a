/* SPDX-License-Identifier: MIT */
/* What the two halves of the parser share: ptx_parse.c reads directives and scopes, ptx_bind.c
 * instructions. */
#ifndef CUEMU_PTX_PARSE_H
#define CUEMU_PTX_PARSE_H

#include "ptx.h"
#include "ptx_lex.h"

enum symbol_kind { SYM_REG, SYM_REGS, SYM_VAR, SYM_LABEL, SYM_TARGETS };

struct symbol {
    enum symbol_kind kind;
    const char *name; /* SYM_REGS: the prefix */
    size_t length;
    int scope;
    uint32_t off, count;
    uint8_t width;
    struct ptx_var *var;
    int at; /* SYM_LABEL: instruction; SYM_TARGETS: first entry of fn->table */
};

struct fixup { /* a label's place is known when the function ends */
    const char *name;
    size_t length;
    int scope, line;
    int ins, table; /* which operand o[ins_operand] of ins, or which table entry */
    int operand;
};

struct parser {
    struct ptx_lexer lx;
    struct ptx_module *m;
    struct ptx_fn *fn;
    struct symbol *sym;
    int nsym, sym_cap;
    int *scope_parent;
    int nscopes, scope; /* scope 0 is the module's, 1 the function's */
    struct fixup *fix;
    int nfix, fix_cap;
    int loc; /* current, or -1 */
    int ins_cap, vec_cap, const_cap, table_cap, loc_cap, reg_cap, call_cap;
    char *err;
    size_t nerr;
    bool failed;
};

/* Remembers the first error, with the line; the text ends for the lexer, so that loops end. */
void ptx_fail(struct parser *p, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
bool ptx_take(struct parser *p, const char *word); /* the word, if it comes next */
bool ptx_want(struct parser *p, const char *word);
int64_t ptx_want_int(struct parser *p);
/* The symbol of a name seen from the current scope; NULL if there is none. */
const struct symbol *ptx_lookup(const struct parser *p, const char *name, size_t length);
uint32_t ptx_new_slot(struct parser *p, uint8_t width);
uint8_t ptx_width_of(enum ptx_type t);
void *ptx_grow(void *items, int n, int *cap, size_t size);
/* One instruction up to its semicolon; the guard, if any, was read. */
void ptx_bind_instruction(struct parser *p, struct ptx_operand guard);
struct ptx_operand ptx_bind_guard(struct parser *p);

#endif
