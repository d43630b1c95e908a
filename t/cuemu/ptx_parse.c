/* SPDX-License-Identifier: MIT */
/* Directives, variables, functions and scopes of a PTX module. */
#include "ptx_parse.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void ptx_fail(struct parser *p, int line, const char *format, ...)
{
    if (!p->failed) {
        va_list ap;
        int n = snprintf(p->err, p->nerr, "PTX line %d: ", line);
        va_start(ap, format);
        if (n >= 0 && (size_t)n < p->nerr)
            vsnprintf(p->err + n, p->nerr - (size_t)n, format, ap);
        va_end(ap);
    }
    p->failed = true;
    p->lx.p = p->lx.end;
    p->lx.token = TOK_END;
}

char *ptx_copy_text(const char *s, size_t n)
{
    char *copy = malloc(n + 1);
    if (!copy)
        abort();
    memcpy(copy, s, n);
    copy[n] = 0;
    return copy;
}

/* Room for item n; a test asset that runs out of memory has nothing better to do than stop. */
void *ptx_grow(void *items, int n, int *cap, size_t size)
{
    if (n < *cap)
        return items;
    *cap = *cap ? *cap * 2 : 16;
    items = realloc(items, (size_t)*cap * size);
    if (!items)
        abort();
    return items;
}

bool ptx_take(struct parser *p, const char *word)
{
    bool is = ptx_lex_is(&p->lx, word);
    if (is)
        ptx_lex_next(&p->lx);
    return is;
}

bool ptx_want(struct parser *p, const char *word)
{
    if (ptx_take(p, word))
        return true;
    ptx_fail(p, p->lx.at_line, "'%s' expected before '%.*s'", word, (int)p->lx.length,
             p->lx.start ? p->lx.start : "");
    return false;
}

int64_t ptx_want_int(struct parser *p)
{
    bool minus = ptx_take(p, "-");
    int64_t v = (int64_t)p->lx.bits;
    if (p->lx.token != TOK_INT)
        ptx_fail(p, p->lx.at_line, "a number expected before '%.*s'", (int)p->lx.length,
                 p->lx.start);
    else
        ptx_lex_next(&p->lx);
    return minus ? -v : v;
}

uint8_t ptx_width_of(enum ptx_type t)
{
    return t == T_PRED ? 1 : ptx_type_bits(t) == 64 ? 8 : 4;
}

/* ---- symbols ---- */

static bool visible_from(const struct parser *p, int from, int scope)
{
    for (; from > scope; from = p->scope_parent[from])
        continue;
    return from == scope;
}

/* %r12 is in the range declared as %r<40>. */
static bool in_range(const struct symbol *s, const char *name, size_t length, uint32_t *index)
{
    if (length <= s->length || memcmp(name, s->name, s->length))
        return false;
    uint64_t n = 0;
    for (size_t i = s->length; i < length; i++) {
        if (name[i] < '0' || name[i] > '9')
            return false;
        n = n * 10 + (uint64_t)(name[i] - '0');
    }
    *index = (uint32_t)n;
    return n < s->count;
}

const struct symbol *ptx_lookup(const struct parser *p, const char *name, size_t length)
{
    static _Thread_local struct symbol one;
    for (int i = p->nsym - 1; i >= 0; i--) {
        const struct symbol *s = &p->sym[i];
        uint32_t index = 0;
        if (!visible_from(p, p->scope, s->scope))
            continue;
        if (s->kind == SYM_REGS && in_range(s, name, length, &index)) {
            one = *s;
            one.kind = SYM_REG;
            one.off = s->off + index * (s->width == 1 ? 16u : 8u + 32u * s->width);
            return &one;
        }
        if (s->kind != SYM_REGS && s->length == length && !memcmp(s->name, name, length))
            return s;
    }
    return NULL;
}

static struct symbol *add_symbol(struct parser *p, enum symbol_kind kind, const char *name,
                                 size_t length)
{
    p->sym = ptx_grow(p->sym, p->nsym, &p->sym_cap, sizeof *p->sym);
    struct symbol *s = &p->sym[p->nsym++];
    *s = (struct symbol){.kind = kind, .name = name, .length = length, .scope = p->scope};
    return s;
}

uint32_t ptx_new_slot(struct parser *p, uint8_t width)
{
    uint32_t off = p->fn->file_size;
    p->fn->file_size += width == 1 ? 16u : 8u + 32u * width;
    return off;
}

/* ---- variables ---- */

static enum ptx_type take_type(struct parser *p)
{
    if (p->lx.token == TOK_WORD && *p->lx.start == '.') {
        for (int t = 1; t < T_COUNT; t++) {
            const char *name = ptx_type_name((enum ptx_type)t);
            if (strlen(name) == p->lx.length - 1 &&
                !memcmp(name, p->lx.start + 1, p->lx.length - 1)) {
                ptx_lex_next(&p->lx);
                return (enum ptx_type)t;
            }
        }
    }
    return T_NONE;
}

/* One element of an initialiser, of `size` bytes at `at`. */
static void init_element(struct parser *p, struct ptx_var *v, enum ptx_type type, uint64_t at)
{
    uint64_t size = (uint64_t)ptx_type_bits(type) / 8, bits = 0;
    if (p->lx.token == TOK_FLOAT) {
        double d;
        memcpy(&d, &p->lx.bits, sizeof d);
        bits = p->lx.bits;
        if (size == 4) {
            float f = (float)d;
            uint32_t b;
            memcpy(&b, &f, sizeof b);
            bits = b;
        }
        ptx_lex_next(&p->lx);
    } else if (p->lx.token == TOK_WORD) {
        bool generic = ptx_take(p, "generic") && ptx_want(p, "(");
        v->refs = realloc(v->refs, (size_t)(v->nrefs + 1) * sizeof *v->refs);
        v->refs[v->nrefs] =
            (struct ptx_ref){.where = at, .name = ptx_copy_text(p->lx.start, p->lx.length)};
        ptx_lex_next(&p->lx);
        if (generic)
            ptx_want(p, ")");
        if (ptx_take(p, "+"))
            v->refs[v->nrefs].add = ptx_want_int(p);
        v->nrefs++;
        return;
    } else {
        bits = (uint64_t)ptx_want_int(p);
    }
    if (at + size > v->size)
        ptx_fail(p, p->lx.at_line, "'%s' has more initialisers than elements", v->name);
    else
        memcpy(v->init + at, &bits, size);
}

/* Nested braces are flattened; inner lists that are short are not known from compilers. */
static void init_list(struct parser *p, struct ptx_var *v, enum ptx_type type, uint64_t *at)
{
    if (!ptx_take(p, "{")) {
        init_element(p, v, type, *at);
        *at += (uint64_t)ptx_type_bits(type) / 8;
        return;
    }
    while (!p->failed && !ptx_take(p, "}")) {
        init_list(p, v, type, at);
        ptx_take(p, ",");
    }
}

static void place_local(struct ptx_var *v, uint32_t *size)
{
    v->at = (*size + v->align - 1) / v->align * v->align;
    *size = (uint32_t)(v->at + v->size);
}

/* After the space: .align 4 .b8 name[24] = {...}.  The terminator stays. */
static struct ptx_var *take_var(struct parser *p, enum ptx_space space)
{
    uint32_t align = 0;
    enum ptx_type type = T_NONE;
    uint64_t vec = 1;
    while (p->lx.token == TOK_WORD && *p->lx.start == '.' && type == T_NONE) {
        if (ptx_take(p, ".align"))
            align = (uint32_t)ptx_want_int(p);
        else if (ptx_take(p, ".v2"))
            vec = 2;
        else if (ptx_take(p, ".v4"))
            vec = 4;
        else if ((type = take_type(p)) == T_NONE) {
            ptx_fail(p, p->lx.at_line, "'%.*s' is not known here", (int)p->lx.length, p->lx.start);
            return NULL;
        }
    }
    uint32_t bytes = (uint32_t)ptx_type_bits(type) / 8 * (uint32_t)vec;
    /* kernel parameters: .ptr .global .align 16 */
    while (ptx_take(p, ".ptr") || ptx_take(p, ".global") || ptx_take(p, ".const") ||
           ptx_take(p, ".shared") || ptx_take(p, ".local") ||
           (ptx_take(p, ".align") && ptx_want_int(p) > 0))
        continue;
    if (p->lx.token != TOK_WORD || !bytes) {
        ptx_fail(p, p->lx.at_line, "a variable expected");
        return NULL;
    }
    struct ptx_var *v = calloc(1, sizeof *v);
    *v = (struct ptx_var){.name = ptx_copy_text(p->lx.start, p->lx.length),
                          .space = (uint8_t)space,
                          .align = align ? align : bytes,
                          .size = bytes};
    struct symbol *s = add_symbol(p, SYM_VAR, v->name, strlen(v->name));
    s->var = v;
    p->m->vars = realloc(p->m->vars, (size_t)(p->m->nvars + 1) * sizeof *p->m->vars);
    p->m->vars[p->m->nvars++] = v;
    ptx_lex_next(&p->lx);
    bool array = false;
    while (ptx_take(p, "[")) {
        int64_t n = ptx_lex_is(&p->lx, "]") ? 0 : ptx_want_int(p);
        ptx_want(p, "]");
        v->size *= (uint64_t)n;
        array = true;
    }
    if (ptx_take(p, "=") && !p->failed) {
        uint64_t at = 0;
        v->init = calloc(1, v->size ? v->size : 8);
        init_list(p, v, type, &at);
    }
    v->is_extern = array && !v->size;
    return v;
}

/* %r<12>, or %SP, or low, high */
static void take_regs(struct parser *p)
{
    enum ptx_type type = take_type(p);
    uint8_t width = ptx_width_of(type);
    if (type == T_NONE)
        ptx_fail(p, p->lx.at_line, "registers of type '%.*s' are not supported", (int)p->lx.length,
                 p->lx.start);
    do {
        struct symbol *s = add_symbol(p, SYM_REG, p->lx.start, p->lx.length);
        ptx_lex_next(&p->lx);
        s->width = width;
        s->count = 1;
        if (ptx_take(p, "<")) {
            s->kind = SYM_REGS;
            s->count = (uint32_t)ptx_want_int(p);
            ptx_want(p, ">");
        }
        s->off = p->fn->file_size;
        if (s->count > 1 << 20)
            ptx_fail(p, p->lx.at_line, "too many registers");
        for (uint32_t i = 0; i < s->count && !p->failed; i++) {
            char name[64];
            p->fn->reg_off = realloc(p->fn->reg_off, (size_t)(p->fn->nregs + 1) * sizeof(uint32_t));
            p->fn->reg_name = realloc(p->fn->reg_name, (size_t)(p->fn->nregs + 1) * sizeof(char *));
            int n = s->kind == SYM_REGS
                        ? snprintf(name, sizeof name, "%.*s%u", (int)s->length, s->name, i)
                        : snprintf(name, sizeof name, "%.*s", (int)s->length, s->name);
            p->fn->reg_name[p->fn->nregs] =
                ptx_copy_text(name, (size_t)n < sizeof name ? (size_t)n : sizeof name - 1);
            p->fn->reg_off[p->fn->nregs++] = ptx_new_slot(p, width);
        }
    } while (ptx_take(p, ","));
    ptx_want(p, ";");
}

/* ---- places in the source ---- */

static void take_file(struct parser *p)
{
    int64_t n = ptx_want_int(p);
    if (n < 0 || n > 4096 || p->lx.token != TOK_STRING) {
        ptx_fail(p, p->lx.at_line, "bad .file");
        return;
    }
    if (n >= p->m->nfiles) {
        p->m->files = realloc(p->m->files, (size_t)(n + 1) * sizeof(char *));
        while (p->m->nfiles <= n)
            p->m->files[p->m->nfiles++] = NULL;
    }
    free(p->m->files[n]);
    p->m->files[n] = ptx_copy_text(p->lx.start, p->lx.length);
    ptx_lex_next(&p->lx);
    while (ptx_take(p, ","))
        ptx_want_int(p);
}

static int add_loc(struct parser *p, int file, int line, int inlined_at)
{
    p->m->loc = ptx_grow(p->m->loc, p->m->nloc, &p->loc_cap, sizeof *p->m->loc);
    p->m->loc[p->m->nloc] = (struct ptx_loc){file, line, inlined_at};
    return p->m->nloc++;
}

/* .loc 2 449 9, function_name $L__info_string0, inlined_at 1 6 3 */
static void take_loc(struct parser *p)
{
    int file = (int)ptx_want_int(p), line = (int)ptx_want_int(p), call = -1;
    ptx_want_int(p);
    while (ptx_take(p, ",")) {
        if (ptx_take(p, "function_name")) {
            ptx_lex_next(&p->lx);
            if (ptx_take(p, "+"))
                ptx_want_int(p);
        } else if (ptx_take(p, "inlined_at")) {
            int f = (int)ptx_want_int(p), l = (int)ptx_want_int(p);
            ptx_want_int(p);
            call = add_loc(p, f, l, -1);
        } else {
            ptx_fail(p, p->lx.at_line, "bad .loc");
        }
    }
    p->loc = line ? add_loc(p, file, line, call) : -1;
}

static void skip_braces(struct parser *p)
{
    int depth = 0;
    do {
        depth += ptx_lex_is(&p->lx, "{") - ptx_lex_is(&p->lx, "}");
        if (p->lx.token == TOK_END)
            ptx_fail(p, p->lx.at_line, "'}' is missing");
        ptx_lex_next(&p->lx);
    } while (depth && !p->failed);
}

static void skip_section(struct parser *p)
{
    while (!ptx_lex_is(&p->lx, "{") && p->lx.token != TOK_END)
        ptx_lex_next(&p->lx);
    skip_braces(p);
}

/* ---- functions ---- */

static void open_scope(struct parser *p)
{
    p->scope_parent = realloc(p->scope_parent, (size_t)(p->nscopes + 1) * sizeof(int));
    p->scope_parent[p->nscopes] = p->nscopes ? p->scope : -1;
    p->scope = p->nscopes++;
}

static void add_label(struct parser *p, const char *name, size_t length)
{
    struct symbol *s = add_symbol(p, SYM_LABEL, name, length);
    s->at = p->fn->nins;
}

/* name: .branchtargets L1, L2; */
static void take_targets(struct parser *p, const char *name, size_t length)
{
    struct symbol *s = add_symbol(p, SYM_TARGETS, name, length);
    s->at = p->fn->ntable;
    do {
        s->count++;
        p->fix = ptx_grow(p->fix, p->nfix, &p->fix_cap, sizeof *p->fix);
        p->fix[p->nfix++] = (struct fixup){p->lx.start, p->lx.length,  p->scope, p->lx.at_line,
                                           -1,          p->fn->ntable, 0};
        p->fn->table = ptx_grow(p->fn->table, p->fn->ntable, &p->table_cap, sizeof *p->fn->table);
        p->fn->table[p->fn->ntable++] = -1;
        ptx_lex_next(&p->lx);
    } while (ptx_take(p, ","));
    ptx_want(p, ";");
}

static void resolve_labels(struct parser *p)
{
    for (int i = 0; i < p->nfix && !p->failed; i++) {
        const struct fixup *x = &p->fix[i];
        p->scope = x->scope;
        const struct symbol *s = ptx_lookup(p, x->name, x->length);
        if (!s || (s->kind != SYM_LABEL && s->kind != SYM_TARGETS)) {
            ptx_fail(p, x->line, "there is no label '%.*s'", (int)x->length, x->name);
        } else if (x->table >= 0) {
            p->fn->table[x->table] = s->at;
        } else {
            struct ptx_operand *o = &p->fn->ins[x->ins].o[x->operand];
            o->off = (uint32_t)s->at;
            o->disp = s->count;
        }
    }
    p->nfix = 0;
}

static void take_statement(struct parser *p)
{
    struct ptx_lexer *lx = &p->lx;
    if (ptx_take(p, "{")) {
        open_scope(p);
        return;
    }
    if (ptx_take(p, "}")) {
        p->scope = p->scope_parent[p->scope];
        return;
    }
    if (ptx_take(p, ";"))
        return;
    if (ptx_take(p, ".loc")) {
        take_loc(p);
        return;
    }
    if (ptx_take(p, ".pragma")) {
        while (!ptx_take(p, ";") && lx->token != TOK_END)
            ptx_lex_next(lx);
        return;
    }
    if (ptx_take(p, ".reg")) {
        take_regs(p);
        return;
    }
    bool shared = ptx_take(p, ".shared"), local = !shared && ptx_take(p, ".local");
    if (shared || local || ptx_take(p, ".param")) {
        /* parameters of calls live in the local frame */
        struct ptx_var *v = take_var(p, shared ? SP_SHARED : SP_LOCAL);
        if (v)
            place_local(v, shared ? &p->fn->shared_size : &p->fn->local_size);
        ptx_want(p, ";");
        return;
    }
    struct ptx_operand guard = {.kind = O_NONE};
    if (ptx_lex_is(lx, "@"))
        guard = ptx_bind_guard(p);
    if (lx->token == TOK_WORD && *lx->start == '.') {
        ptx_fail(p, lx->at_line, "directive '%.*s' is not known", (int)lx->length, lx->start);
        return;
    }
    if (guard.kind == O_NONE && lx->token == TOK_WORD) {
        struct ptx_lexer here = *lx;
        ptx_lex_next(lx);
        if (ptx_take(p, ":")) {
            if (ptx_take(p, ".branchtargets"))
                take_targets(p, here.start, here.length);
            else
                add_label(p, here.start, here.length);
            return;
        }
        *lx = here;
    }
    ptx_bind_instruction(p, guard);
}

static void take_dims(struct parser *p, int dims[3])
{
    for (int i = 0; i < 3; i++)
        dims[i] = 1;
    int i = 0;
    do {
        dims[i < 3 ? i : 2] = (int)ptx_want_int(p);
        i++;
    } while (ptx_take(p, ","));
}

/* Tuning directives between the parameters and the body. */
static void take_fn_directives(struct parser *p)
{
    while (p->lx.token == TOK_WORD && *p->lx.start == '.' && !p->failed) {
        int ignored[3];
        if (ptx_take(p, ".reqntid"))
            take_dims(p, p->fn->reqntid);
        else if (ptx_take(p, ".maxntid"))
            take_dims(p, p->fn->maxntid);
        else if (ptx_take(p, ".minnctapersm"))
            p->fn->minnctapersm = (int)ptx_want_int(p);
        else if (ptx_take(p, ".maxnreg"))
            take_dims(p, ignored);
        else if (ptx_take(p, ".noreturn"))
            continue;
        else if (ptx_take(p, ".pragma")) {
            while (!ptx_take(p, ";") && p->lx.token != TOK_END)
                ptx_lex_next(&p->lx);
        } else
            ptx_fail(p, p->lx.at_line, "directive '%.*s' is not supported", (int)p->lx.length,
                     p->lx.start);
    }
}

/* An entry's parameters are one block that all threads share; a function's are local variables. */
static struct ptx_var *take_param(struct parser *p)
{
    ptx_want(p, ".param");
    struct ptx_var *v = take_var(p, p->fn->is_entry ? SP_PARAM : SP_LOCAL);
    if (v)
        place_local(v, p->fn->is_entry ? &p->fn->param_size : &p->fn->local_size);
    return v;
}

static void take_params(struct parser *p)
{
    if (!ptx_take(p, "("))
        return;
    while (!p->failed && !ptx_take(p, ")")) {
        struct ptx_var *v = take_param(p);
        p->fn->params = realloc(p->fn->params, (size_t)(p->fn->nparams + 1) * sizeof(void *));
        p->fn->params[p->fn->nparams++] = v;
        ptx_take(p, ",");
    }
}

static void forget_scopes(struct parser *p)
{
    while (p->nsym && p->sym[p->nsym - 1].scope > 0)
        p->nsym--;
    p->nscopes = 1;
    p->scope = 0;
}

/* The module's shared variables that come before lie under the function's own. */
static uint32_t module_shared(const struct ptx_module *m)
{
    uint32_t size = 0;
    for (int i = 0; i < m->nvars; i++) {
        if (m->vars[i]->of_module)
            size = (uint32_t)(m->vars[i]->at + m->vars[i]->size);
    }
    return size;
}

static void take_function(struct parser *p, bool entry)
{
    struct ptx_fn *fn = calloc(1, sizeof *fn);
    fn->is_entry = entry;
    fn->file_size = 16; /* offset 0 is no slot */
    fn->shared_size = module_shared(p->m);
    p->fn = fn;
    p->ins_cap = p->vec_cap = p->const_cap = p->table_cap = p->call_cap = 0;
    p->loc = -1;
    open_scope(p);
    fn->carry = ptx_new_slot(p, 1);
    if (!entry && ptx_take(p, "(")) {
        fn->ret = take_param(p);
        ptx_want(p, ")");
    }
    fn->name = ptx_copy_text(p->lx.start, p->lx.length);
    if (p->lx.token != TOK_WORD)
        ptx_fail(p, p->lx.at_line, "a function's name expected");
    ptx_lex_next(&p->lx);
    take_params(p);
    take_fn_directives(p);
    p->m->fns = realloc(p->m->fns, (size_t)(p->m->nfns + 1) * sizeof(void *));
    p->m->fns[p->m->nfns++] = fn;
    if (ptx_take(p, ";")) { /* a declaration */
        forget_scopes(p);
        return;
    }
    int outer = p->scope;
    ptx_want(p, "{");
    open_scope(p);
    while (p->scope != outer && !p->failed) {
        if (p->lx.token == TOK_END)
            ptx_fail(p, p->lx.at_line, "the function has no end");
        else
            take_statement(p);
    }
    resolve_labels(p);
    forget_scopes(p);
    p->fn = NULL;
}

/* ---- the module ---- */

static void take_target(struct parser *p)
{
    int n = 0;
    char suffix[2] = "";
    char word[32] = "";
    snprintf(word, sizeof word, "%.*s", (int)p->lx.length, p->lx.start);
    if (sscanf(word, "sm_%d%1s", &n, suffix) < 1)
        ptx_fail(p, p->lx.at_line, "target '%s' is not known", word);
    p->m->target = n;
    p->m->target_suffix = suffix[0];
    ptx_lex_next(&p->lx);
    while (ptx_take(p, ","))
        ptx_lex_next(&p->lx);
}

static void take_version(struct parser *p)
{
    double v;
    memcpy(&v, &p->lx.bits, sizeof v);
    if (p->lx.token != TOK_FLOAT)
        ptx_fail(p, p->lx.at_line, "bad .version");
    p->m->version = (int)(v * 10 + 0.5);
    ptx_lex_next(&p->lx);
}

static void take_module_var(struct parser *p, enum ptx_space space)
{
    struct ptx_var *v = take_var(p, space);
    ptx_want(p, ";");
    if (!v || space != SP_SHARED || v->is_extern)
        return;
    uint32_t size = module_shared(p->m);
    place_local(v, &size);
    v->of_module = true;
}

static void take_toplevel(struct parser *p)
{
    if (ptx_take(p, ".version"))
        take_version(p);
    else if (ptx_take(p, ".target"))
        take_target(p);
    else if (ptx_take(p, ".address_size"))
        ptx_want_int(p);
    else if (ptx_take(p, ".file"))
        take_file(p);
    else if (ptx_take(p, ".section"))
        skip_section(p);
    else if (ptx_take(p, ".visible") || ptx_take(p, ".weak") || ptx_take(p, ".extern") ||
             ptx_take(p, ".common"))
        return;
    else if (ptx_take(p, ".entry"))
        take_function(p, true);
    else if (ptx_take(p, ".func"))
        take_function(p, false);
    else if (ptx_take(p, ".global"))
        take_module_var(p, SP_GLOBAL);
    else if (ptx_take(p, ".const"))
        take_module_var(p, SP_CONST);
    else if (ptx_take(p, ".shared"))
        take_module_var(p, SP_SHARED);
    else if (ptx_take(p, ".loc"))
        take_loc(p);
    else if (!ptx_take(p, ";"))
        ptx_fail(p, p->lx.at_line, "'%.*s' is not known here", (int)p->lx.length, p->lx.start);
}

/* Calls name functions that may come later. */
static void resolve_calls(struct parser *p)
{
    for (int i = 0; i < p->m->nfns; i++) {
        struct ptx_fn *fn = p->m->fns[i];
        for (int c = 0; c < fn->ncalls; c++) {
            struct ptx_call *call = &fn->calls[c];
            for (int k = 0; k < p->m->nfns; k++) {
                if (!strcmp(p->m->fns[k]->name, call->name) && p->m->fns[k]->nins)
                    call->fn = p->m->fns[k];
            }
        }
    }
}

struct ptx_module *ptx_parse(const char *text, size_t size, char *err, size_t nerr)
{
    struct ptx_module *m = calloc(1, sizeof *m);
    m->text = ptx_copy_text(text, size);
    struct parser p = {.m = m, .err = err, .nerr = nerr};
    if (nerr)
        *err = 0;
    ptx_lex_start(&p.lx, m->text, size);
    open_scope(&p);
    while (p.lx.token != TOK_END)
        take_toplevel(&p);
    if (!p.failed && (!m->version || !m->target))
        ptx_fail(&p, 1, ".version or .target is missing");
    resolve_calls(&p);
    free(p.sym);
    free(p.scope_parent);
    free(p.fix);
    if (p.failed) {
        ptx_free(m);
        return NULL;
    }
    return m;
}

static void free_fn(struct ptx_fn *fn)
{
    for (int i = 0; i < fn->nregs; i++)
        free(fn->reg_name[i]);
    for (int i = 0; i < fn->ncalls; i++)
        free(fn->calls[i].name);
    free(fn->reg_name);
    free(fn->reg_off);
    free(fn->calls);
    free(fn->ins);
    free(fn->vec);
    free(fn->table);
    free(fn->consts);
    free(fn->params);
    free(fn->name);
    free(fn);
}

void ptx_free(struct ptx_module *m)
{
    if (!m)
        return;
    for (int i = 0; i < m->nfns; i++)
        free_fn(m->fns[i]);
    for (int i = 0; i < m->nvars; i++) {
        for (int k = 0; k < m->vars[i]->nrefs; k++)
            free(m->vars[i]->refs[k].name);
        free(m->vars[i]->refs);
        free(m->vars[i]->init);
        free(m->vars[i]->name);
        free(m->vars[i]);
    }
    for (int i = 0; i < m->nfiles; i++)
        free(m->files[i]);
    free(m->fns);
    free(m->vars);
    free(m->files);
    free(m->loc);
    free(m->text);
    free(m);
}

void ptx_line_text(const struct ptx_module *m, int line, char *buf, size_t size)
{
    const char *p = m->text;
    for (int i = 1; i < line && p; i++) {
        p = strchr(p, '\n');
        p = p ? p + 1 : NULL;
    }
    if (!p)
        p = "";
    p += strspn(p, " \t");
    size_t n = strcspn(p, "\n"), at = 0;
    for (size_t i = 0; i < n && at + 1 < size; i++)
        buf[at++] = p[i] == '\t' ? ' ' : p[i];
    if (size)
        buf[at] = 0;
}

const char *ptx_reg_name(const struct ptx_fn *f, uint32_t off)
{
    for (int i = 0; i < f->nregs; i++) {
        if (f->reg_off[i] == off)
            return f->reg_name[i];
    }
    return "an operand";
}
