/* SPDX-License-Identifier: MIT */
/* Instructions: the opcode with its modifiers, then operands, bound to slots as the opcode's
 * pattern says (see opcodes.c). */
#include "ptx_parse.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum raw_kind { RAW_NAME, RAW_INT, RAW_FLOAT, RAW_VEC, RAW_ADDR, RAW_SINK };

struct raw { /* an operand as written */
    enum raw_kind kind;
    const char *name;
    size_t length;
    uint64_t bits;
    bool negated, single;
    int64_t disp;
    int n; /* elements of a vector */
    struct raw *elem;
    struct raw *pair; /* p|q */
};

struct bind {
    struct parser *p;
    struct ptx_ins *ins;
    const char *word; /* the opcode as written */
    int length, line;
    struct raw raw[10];
    int nraw, next; /* read, consumed */
    int nops;
};

static const char *const special_names[S_COUNT] = {"%tid.x",
                                                   "%tid.y",
                                                   "%tid.z",
                                                   "%ntid.x",
                                                   "%ntid.y",
                                                   "%ntid.z",
                                                   "%ctaid.x",
                                                   "%ctaid.y",
                                                   "%ctaid.z",
                                                   "%nctaid.x",
                                                   "%nctaid.y",
                                                   "%nctaid.z",
                                                   "%laneid",
                                                   "%warpid",
                                                   "%nwarpid",
                                                   "%smid",
                                                   "%nsmid",
                                                   "%gridid",
                                                   "%lanemask_eq",
                                                   "%lanemask_lt",
                                                   "%lanemask_le",
                                                   "%lanemask_gt",
                                                   "%lanemask_ge",
                                                   "%clock",
                                                   "%clock64",
                                                   "%globaltimer",
                                                   "%dynamic_smem_size",
                                                   "%total_smem_size",
                                                   "WARP_SZ"};

/* ---- reading ---- */

static void read_raw(struct parser *p, struct raw *r);

static void read_address(struct parser *p, struct raw *r)
{
    r->kind = RAW_ADDR;
    if (p->lx.token == TOK_WORD) {
        r->name = p->lx.start;
        r->length = p->lx.length;
        ptx_lex_next(&p->lx);
    } else {
        r->disp = ptx_want_int(p);
    }
    if (ptx_take(p, "+"))
        r->disp += ptx_want_int(p);
    else if (ptx_lex_is(&p->lx, "-"))
        r->disp += ptx_want_int(p);
    ptx_want(p, "]");
}

static void read_vector(struct parser *p, struct raw *r)
{
    r->kind = RAW_VEC;
    r->elem = calloc(8, sizeof *r->elem);
    do {
        if (r->n == 8)
            ptx_fail(p, p->lx.at_line, "a vector of more than 8");
        else
            read_raw(p, &r->elem[r->n++]);
    } while (ptx_take(p, ","));
    ptx_want(p, "}");
}

static void read_raw(struct parser *p, struct raw *r)
{
    *r = (struct raw){.negated = ptx_take(p, "!")};
    bool minus = ptx_take(p, "-");
    struct ptx_lexer *lx = &p->lx;
    if (ptx_take(p, "[")) {
        read_address(p, r);
    } else if (ptx_take(p, "{")) {
        read_vector(p, r);
    } else if (ptx_take(p, "_")) {
        r->kind = RAW_SINK;
    } else if (lx->token == TOK_INT || lx->token == TOK_FLOAT) {
        r->kind = lx->token == TOK_INT ? RAW_INT : RAW_FLOAT;
        r->bits = lx->bits;
        r->single = lx->single;
        if (minus)
            r->bits = r->kind == RAW_INT ? (uint64_t) - (int64_t)r->bits : r->bits ^ 1ull << 63;
        ptx_lex_next(lx);
    } else if (lx->token == TOK_WORD) {
        r->kind = RAW_NAME;
        r->name = lx->start;
        r->length = lx->length;
        ptx_lex_next(lx);
        if (ptx_take(p, "+"))
            r->disp = ptx_want_int(p);
    } else {
        ptx_fail(p, lx->at_line, "an operand expected before '%.*s'", (int)lx->length, lx->start);
    }
    if (ptx_take(p, "|")) {
        r->pair = calloc(1, sizeof *r->pair);
        read_raw(p, r->pair);
    }
}

static void free_raw(struct raw *r)
{
    for (int i = 0; i < r->n; i++)
        free_raw(&r->elem[i]);
    free(r->elem);
    if (r->pair)
        free_raw(r->pair);
    free(r->pair);
}

/* ---- slots ---- */

static struct ptx_operand slot_operand(uint8_t width, uint32_t off)
{
    return (struct ptx_operand){.kind = width == 1 ? O_PRED : O_SLOT, .width = width, .off = off};
}

static struct ptx_operand constant(struct parser *p, uint8_t width, uint64_t value,
                                   const struct ptx_var *var)
{
    struct ptx_fn *fn = p->fn;
    if (width == 4)
        value &= 0xffffffffu;
    for (int i = 0; i < fn->nconsts; i++) {
        const struct ptx_const *c = &fn->consts[i];
        if (c->width == width && c->value == value && c->var == var)
            return slot_operand(width, c->off);
    }
    fn->consts = ptx_grow(fn->consts, fn->nconsts, &p->const_cap, sizeof *fn->consts);
    uint32_t off = ptx_new_slot(p, width);
    fn->consts[fn->nconsts++] = (struct ptx_const){off, width, value, var};
    return slot_operand(width, off);
}

static bool special(struct parser *p, const struct raw *r, struct ptx_operand *o)
{
    for (int s = 0; s < S_COUNT; s++) {
        if (strlen(special_names[s]) != r->length || memcmp(special_names[s], r->name, r->length))
            continue;
        uint8_t width = s == S_CLOCK64 || s == S_GLOBALTIMER ? 8 : 4;
        if (!p->fn->special[s])
            p->fn->special[s] = ptx_new_slot(p, width);
        *o = slot_operand(width, p->fn->special[s]);
        return true;
    }
    return false;
}

static void bad_operand(struct bind *b, const char *what)
{
    ptx_fail(b->p, b->line, "'%.*s': %s", b->length, b->word, what);
}

static uint64_t immediate(struct bind *b, const struct raw *r, uint8_t width, enum ptx_type type)
{
    char class = ptx_type_class(type);
    if (r->kind == RAW_INT) {
        if (class == 'f' && width > 1 && ptx_type_bits(type) > 16)
            bad_operand(b, "an integer where a floating-point number is due");
        return r->bits;
    }
    if (width == 8)
        return r->bits;
    double d;
    memcpy(&d, &r->bits, sizeof d);
    float f = (float)d;
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if (d != d) /* the payload again */
        bits = (uint32_t)(r->bits >> 63) << 31 | 0x7f800000 | (uint32_t)(r->bits >> 29 & 0x7fffff);
    return bits;
}

/* An operand of one slot, `width` bytes a lane; width 0 takes whatever the register has. */
static struct ptx_operand one_slot(struct bind *b, const struct raw *r, uint8_t width,
                                   enum ptx_type type, bool written)
{
    struct parser *p = b->p;
    struct ptx_operand o = {.kind = O_SINK};
    if (r->kind == RAW_SINK) {
        if (!written)
            bad_operand(b, "'_' where a value is due");
        return o;
    }
    if (r->kind == RAW_INT || r->kind == RAW_FLOAT) {
        if (written)
            bad_operand(b, "a number where a register is due");
        return constant(p, width ? width : 4, immediate(b, r, width, type), NULL);
    }
    if (r->kind != RAW_NAME) {
        bad_operand(b, "a register is due here");
        return o;
    }
    const struct symbol *s = ptx_lookup(p, r->name, r->length);
    if (s && s->kind == SYM_REG) {
        if (width && s->width != width && (s->width == 1 || width == 1 || s->width < width))
            bad_operand(b, "a register of the wrong size");
        o = slot_operand(s->width, s->off);
        o.negated = r->negated;
    } else if (s && s->kind == SYM_VAR && !written) {
        o = constant(p, width ? width : 8, (uint64_t)r->disp, s->var);
    } else if (written || !special(p, r, &o)) {
        ptx_fail(p, b->line, "'%.*s' is not known here", (int)r->length, r->name);
    }
    return o;
}

static struct ptx_operand vector(struct bind *b, const struct raw *r, uint8_t width,
                                 enum ptx_type type, bool written)
{
    struct parser *p = b->p;
    int n = r->kind == RAW_VEC ? r->n : 1;
    struct ptx_operand elem[8], o = {.kind = O_VEC, .width = width, .count = (uint8_t)n};
    for (int i = 0; i < n; i++)
        elem[i] = one_slot(b, r->kind == RAW_VEC ? &r->elem[i] : r, width, type, written);
    o.off = (uint32_t)p->fn->nvec;
    for (int i = 0; i < n; i++) {
        p->fn->vec = ptx_grow(p->fn->vec, p->fn->nvec, &p->vec_cap, sizeof *p->fn->vec);
        p->fn->vec[p->fn->nvec++] = elem[i];
    }
    return o;
}

static struct ptx_operand address(struct bind *b, const struct raw *r)
{
    struct ptx_operand o = {.kind = O_ADDR, .disp = r->disp};
    if (r->kind != RAW_ADDR) {
        bad_operand(b, "an address in brackets is due here");
        return o;
    }
    if (!r->name)
        return o;
    const struct symbol *s = ptx_lookup(b->p, r->name, r->length);
    if (s && s->kind == SYM_REG && s->width >= 4) {
        o.off = s->off;
        o.width = s->width;
    } else if (s && s->kind == SYM_VAR) {
        if (b->ins->f[F_SPACE] == SP_PARAM && s->var->space == SP_LOCAL)
            b->ins->f[F_SPACE] = SP_LOCAL; /* a parameter of a call */
        struct ptx_operand c = constant(b->p, 8, 0, s->var);
        o.off = c.off;
        o.width = 8;
    } else {
        ptx_fail(b->p, b->line, "'%.*s' is not known here", (int)r->length, r->name);
    }
    return o;
}

static struct ptx_operand label(struct bind *b, const struct raw *r)
{
    struct parser *p = b->p;
    p->fix = ptx_grow(p->fix, p->nfix, &p->fix_cap, sizeof *p->fix);
    p->fix[p->nfix++] =
        (struct fixup){r->name, r->length, p->scope, b->line, p->fn->nins, -1, b->nops};
    if (r->kind != RAW_NAME)
        bad_operand(b, "a label is due here");
    return (struct ptx_operand){.kind = O_LABEL};
}

/* ---- patterns ---- */

static void put(struct bind *b, struct ptx_operand o, bool written)
{
    if (b->nops == PTX_MAX_OPERANDS) {
        bad_operand(b, "too many operands");
        return;
    }
    b->ins->o[b->nops++] = o;
    if (written)
        b->ins->nout++;
    else
        b->ins->nin++;
}

static const struct raw *next_raw(struct bind *b)
{
    static const struct raw none = {.kind = RAW_SINK};
    if (b->next < b->nraw)
        return &b->raw[b->next++];
    bad_operand(b, "an operand is missing");
    return &none;
}

static void put_pair(struct bind *b, const struct raw *r, uint8_t width, enum ptx_type type)
{
    put(b, one_slot(b, r, width, type, true), true);
    if (r->pair)
        put(b, one_slot(b, r->pair, 1, T_PRED, true), true);
    else
        put(b, (struct ptx_operand){.kind = O_SINK}, true);
}

/* mov packs a vector into a register, or the other way round: elements are parts of the type. */
static uint8_t value_width(const struct bind *b, const struct raw *r, enum ptx_type type)
{
    uint8_t width = ptx_width_of(type);
    bool part = b->ins->op == OP_MOV && r->kind == RAW_VEC;
    return part && width == 8 && r->n == 2 ? 4 : part && width == 8 ? 4 : width;
}

static void put_letter(struct bind *b, char letter)
{
    struct ptx_ins *ins = b->ins;
    enum ptx_type t0 = ins->type[0], t1 = ins->type[1];
    uint8_t w0 = ptx_width_of(t0), wide = w0;
    if (ins->f[F_MODE] == M_WIDE && ptx_type_bits(t0) == 32)
        wide = 8;
    if (strchr("OQJT", letter) && b->next == b->nraw - (ins->f[F_HINT] ? 1 : 0))
        return;
    const struct raw *r = next_raw(b);
    switch (letter) {
    case 'd':
        put(b, one_slot(b, r, w0, t0, true), true);
        break;
    case 's':
    case 'O':
        put(b, one_slot(b, r, w0, t0, false), false);
        break;
    case 'D':
        put(b, one_slot(b, r, wide, t0, true), true);
        break;
    case 'S':
        put(b, one_slot(b, r, wide, t0, false), false);
        break;
    case 'U':
        put(b, one_slot(b, r, 4, T_B32, true), true);
        break;
    case 'u':
    case 'J':
        put(b, one_slot(b, r, 4, T_B32, false), false);
        break;
    case 'x':
        put(b, one_slot(b, r, 8, T_B64, false), false);
        break;
    case 'p':
        put(b, one_slot(b, r, 1, T_PRED, true), true);
        break;
    case 'q':
    case 'Q':
        put(b, one_slot(b, r, 1, T_PRED, false), false);
        break;
    case 'P':
        put_pair(b, r, 1, T_PRED);
        break;
    case 'b':
        put_pair(b, r, w0, t0);
        break;
    case 'k':
        put_pair(b, r, 4, T_B32);
        break;
    case 't':
    case 'T':
        put(b, one_slot(b, r, ptx_width_of(t1), t1, false), false);
        break;
    case 'v':
        put(b, vector(b, r, value_width(b, r, t0), t0, true), true);
        break;
    case 'w':
        put(b, vector(b, r, value_width(b, r, t0), t0, false), false);
        break;
    case 'M':
        put(b, vector(b, r, 4, T_B32, true), true);
        break;
    case 'm':
        put(b, vector(b, r, 4, T_B32, false), false);
        break;
    case 'a':
        put(b, address(b, r), false);
        break;
    case 'l':
        put(b, label(b, r), false);
        break;
    default:
        bad_operand(b, "the table of opcodes has a bad pattern");
    }
}

/* Those whose operands depend on modifiers. */
static const char *pattern_of(const struct ptx_opcode *oc, const struct ptx_ins *ins)
{
    if (oc->op == OP_BAR) {
        if (ins->f[F_DIR] == D_WARP)
            return "u";
        if (ins->f[F_DIR] == D_RED)
            return "du?q";
        return ins->f[F_DIR] == D_ARRIVE ? "uu" : "uJ";
    }
    if (oc->op == OP_CP) {
        static const char *const groups[] = {"aauJ", "", "u", ""};
        return groups[ins->f[F_GROUP]];
    }
    if (oc->op == OP_CREATEPOLICY)
        return "df";
    return oc->operands;
}

static void put_operands(struct bind *b, const struct ptx_opcode *oc)
{
    const char *pattern = pattern_of(oc, b->ins);
    for (; *pattern && !b->p->failed; pattern++) {
        if (*pattern == 'f') { /* an immediate fraction, which changes no value */
            next_raw(b);
        } else if (*pattern == '?') { /* the count of bar.red, which may be missing */
            if (b->nraw == 4)
                put_letter(b, 'u');
            else
                put(b, constant(b->p, 4, 0, NULL), false);
        } else {
            put_letter(b, *pattern);
        }
    }
    if (b->ins->f[F_HINT] && !b->p->failed) {
        put_letter(b, 'x');
        b->ins->nin--; /* the policy is only looked at by the parser */
    }
    if (b->next < b->nraw)
        bad_operand(b, "an operand too many");
}

/* The word "ld.global.nc.f32" into opcode and modifiers. */
static const struct ptx_opcode *split_opcode(struct bind *b)
{
    char part[64];
    const char *word = b->word, *end = b->word + b->length;
    const struct ptx_opcode *oc = NULL;
    int ntypes = 0;
    while (word < end) {
        const char *dot = memchr(word, '.', (size_t)(end - word));
        snprintf(part, sizeof part, "%.*s", (int)((dot ? dot : end) - word), word);
        if (!oc) {
            oc = ptx_opcode_find(part);
            if (!oc) {
                ptx_fail(b->p, b->line, "opcode '%.*s' is not known", b->length, b->word);
                return NULL;
            }
            b->ins->op = (uint16_t)oc->op;
        } else if (!ptx_modifier(oc, part, b->ins, &ntypes)) {
            ptx_fail(b->p, b->line, "'%.*s': '.%s' is not known here", b->length, b->word, part);
            return NULL;
        }
        word = dot ? dot + 1 : end;
    }
    const char *wrong = ptx_check_types(oc, b->ins, ntypes);
    if (wrong)
        bad_operand(b, wrong);
    return oc;
}

static void check_gate(struct bind *b)
{
    char text[200];
    const struct ptx_module *m = b->p->m;
    const char *why = ptx_gate(b->ins, m->version, m->target, m->target_suffix, text, sizeof text);
    if (why)
        bad_operand(b, why);
}

/* ---- calls ---- */

static struct ptx_var *call_var(struct bind *b)
{
    struct parser *p = b->p;
    const struct symbol *s = ptx_lookup(p, p->lx.start, p->lx.length);
    if (!s || s->kind != SYM_VAR || s->var->space != SP_LOCAL) {
        bad_operand(b, "only .param variables can be passed");
        return NULL;
    }
    ptx_lex_next(&p->lx);
    return s->var;
}

/* call.uni (retval0), name, (param0, param1); */
static void bind_call(struct bind *b)
{
    struct parser *p = b->p;
    struct ptx_call call = {.ret = NULL};
    if (ptx_take(p, "(")) {
        call.ret = call_var(b);
        ptx_want(p, ")");
        ptx_want(p, ",");
    }
    call.name = ptx_copy_text(p->lx.start, p->lx.length);
    ptx_lex_next(&p->lx);
    if (ptx_take(p, ",") && ptx_want(p, "(")) {
        while (!p->failed && !ptx_take(p, ")")) {
            if (call.nargs == 32)
                bad_operand(b, "too many arguments");
            else
                call.args[call.nargs++] = call_var(b);
            ptx_take(p, ",");
        }
    }
    ptx_want(p, ";");
    p->fn->calls = ptx_grow(p->fn->calls, p->fn->ncalls, &p->call_cap, sizeof call);
    b->ins->o[0].off = (uint32_t)p->fn->ncalls;
    p->fn->calls[p->fn->ncalls++] = call;
}

struct ptx_operand ptx_bind_guard(struct parser *p)
{
    struct ptx_operand o = {.kind = O_NONE};
    ptx_want(p, "@");
    bool negated = ptx_take(p, "!");
    const struct symbol *s = ptx_lookup(p, p->lx.start, p->lx.length);
    if (!s || s->kind != SYM_REG || s->width != 1) {
        ptx_fail(p, p->lx.at_line, "'%.*s' is no predicate", (int)p->lx.length, p->lx.start);
        return o;
    }
    ptx_lex_next(&p->lx);
    o = slot_operand(1, s->off);
    o.negated = negated;
    return o;
}

void ptx_bind_instruction(struct parser *p, struct ptx_operand guard)
{
    struct ptx_ins ins = {.guard = guard, .line = p->lx.at_line, .loc = p->loc};
    struct bind b = {.p = p,
                     .ins = &ins,
                     .word = p->lx.start,
                     .length = (int)p->lx.length,
                     .line = p->lx.at_line};
    if (p->lx.token != TOK_WORD) {
        ptx_fail(p, p->lx.at_line, "an instruction expected before '%.*s'", (int)p->lx.length,
                 p->lx.start);
        return;
    }
    ptx_lex_next(&p->lx);
    const struct ptx_opcode *oc = split_opcode(&b);
    if (!oc || p->failed)
        return;
    if (oc->op == OP_CALL) {
        bind_call(&b);
    } else {
        while (!p->failed && !ptx_take(p, ";")) {
            if (b.nraw == (int)(sizeof b.raw / sizeof *b.raw))
                bad_operand(&b, "too many operands");
            else
                read_raw(p, &b.raw[b.nraw++]);
            if (!ptx_lex_is(&p->lx, ";"))
                ptx_want(p, ",");
        }
        if (!p->failed)
            put_operands(&b, oc);
    }
    if (!p->failed)
        check_gate(&b);
    for (int i = 0; i < b.nraw; i++)
        free_raw(&b.raw[i]);
    p->fn->ins = ptx_grow(p->fn->ins, p->fn->nins, &p->ins_cap, sizeof ins);
    p->fn->ins[p->fn->nins++] = ins;
}
