/* SPDX-License-Identifier: MIT */
/* The text of an expression to nodes: one function a level of the grammar in expr.h, with types
 * checked as nodes are made.  The text may be hostile; its length, nesting and nodes are limited.
 */
#include "expr.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

struct parse {
    struct at_expr *x;
    const char *text, *at; /* the next token begins at `at` */
    int depth;
    bool failed;
    char *err;
    size_t errlen;
};

/* ---- errors ---- */

enum { SHOWN = 64 }; /* bytes of the text, around the place */

static int failv(struct parse *p, const char *place, const char *fmt, va_list ap)
{
    char sentence[192], shown[SHOWN + 1];
    if (p->failed)
        return -1;
    p->failed = true;
    vsnprintf(sentence, sizeof sentence, fmt, ap);
    size_t column = (size_t)(place - p->text),
           skip = column > SHOWN * 3 / 4 ? column - SHOWN / 2 : 0;
    snprintf(shown, sizeof shown, "%s", p->text + skip);
    for (char *c = shown; *c; c++)
        if ((unsigned char)*c < ' ' || (unsigned char)*c > '~') /* so that the caret stands right */
            *c = ' ';
    at_say(p->err, p->errlen, ATTEND_EINVAL, "%s expression: %s\n    %s\n    %*s^",
           p->x->score ? "score" : "mask", sentence, shown, (int)(column - skip), "");
    return -1;
}

static int fail(struct parse *p, const char *place, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static int fail(struct parse *p, const char *place, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    failv(p, place, fmt, ap);
    va_end(ap);
    return -1;
}

/* Every node passes here, to say that there was no room for it. */
static int made(struct parse *p, int node, const char *place)
{
    if (node < 0 && !p->failed)
        fail(p, place, "larger than %d operations or %d places where tensors are read",
             AT_EXPR_NODES, AT_EXPR_LOADS);
    return node;
}

/* ---- tokens ---- */

static void skip_blanks(struct parse *p)
{
    while (*p->at == ' ' || *p->at == '\t' || *p->at == '\n' || *p->at == '\r')
        p->at++;
}

/* Takes `token` if it comes next; a '<' is not the start of "<=", and so on. */
static bool take(struct parse *p, const char *token)
{
    size_t n = strlen(token);
    skip_blanks(p);
    if (strncmp(p->at, token, n) || (n == 1 && strchr("<>!=", *token) && p->at[1] == '='))
        return false;
    p->at += n;
    return true;
}

static bool word_char(char c)
{
    return c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static bool digit(char c)
{
    return c >= '0' && c <= '9';
}

static int expect(struct parse *p, const char *token)
{
    if (take(p, token))
        return 0;
    if (!*p->at)
        return fail(p, p->at, "'%s' is missing at the end", token);
    return fail(p, p->at, "'%s' is missing before '%c'", token,
                isprint((unsigned char)*p->at) ? *p->at : '?');
}

/* ---- types ---- */

static const char *type_name(enum at_expr_type type)
{
    static const char *const names[] = {"a condition", "an integer", "a float"};
    return names[type];
}

static enum at_expr_type type_of(const struct parse *p, int node)
{
    return p->x->node[node].type;
}

static bool want_number(struct parse *p, int node, const char *what, const char *place)
{
    if (node >= 0 && type_of(p, node) == AT_X_BOOL)
        return fail(p, place, "%s wants numbers, not a condition", what), false;
    return node >= 0;
}

static bool want_condition(struct parse *p, int node, const char *what, const char *place)
{
    if (node >= 0 && type_of(p, node) != AT_X_BOOL)
        return fail(p, place, "%s wants conditions, not %s", what, type_name(type_of(p, node))),
               false;
    return node >= 0;
}

/* Both as floats if one is. */
static void meet(struct parse *p, int *a, int *b)
{
    if (type_of(p, *a) == AT_X_FLOAT)
        *b = at_expr_as_float(p->x, *b);
    else if (type_of(p, *b) == AT_X_FLOAT)
        *a = at_expr_as_float(p->x, *a);
}

/* ---- the grammar ---- */

static int expression(struct parse *p);

static int number(struct parse *p)
{
    const char *start = p->at, *s = start;
    uint64_t mantissa = 0;
    bool large = false, real = false;
    int scale = 0, exponent = 0;
    for (; digit(*s) || (*s == '.' && !real); s++) {
        if (*s == '.') {
            real = true;
        } else if (mantissa > (UINT64_MAX - 9) / 10) {
            large = true; /* later digits are below the precision of a float */
            scale += !real;
        } else {
            mantissa = mantissa * 10 + (uint64_t)(*s - '0');
            scale -= real;
        }
    }
    if ((*s == 'e' || *s == 'E') &&
        (digit(s[1]) || ((s[1] == '+' || s[1] == '-') && digit(s[2])))) {
        bool negative = s[1] == '-';
        real = true;
        for (s += 1 + !digit(s[1]); digit(*s); s++)
            exponent = exponent < 9999 ? exponent * 10 + (*s - '0') : exponent;
        scale += negative ? -exponent : exponent;
    }
    p->at = s;
    if (word_char(*s))
        return fail(p, s, "'%c' stands inside a number", *s);
    if (!real) {
        if (large || mantissa > INT64_MAX)
            return fail(p, start, "integers end at %lld", (long long)INT64_MAX);
        return made(p, at_expr_int(p->x, (int64_t)mantissa), start);
    }
    if (!p->x->score)
        return fail(p, start, "a mask is made of integers and conditions, not floats");
    return made(p, at_expr_float(p->x, (double)mantissa * pow(10, scale)), start);
}

/* abs(x), max(a, b): `count` arguments follow a name and its parenthesis. */
static bool arguments(struct parse *p, int *arg, int count, const char *name, const char *place)
{
    for (int k = 0; k < count; k++) {
        if ((k > 0 && expect(p, ",") < 0) || (arg[k] = expression(p)) < 0)
            return false;
        if (!want_number(p, arg[k], name, place))
            return false;
    }
    return expect(p, ")") == 0;
}

static const struct function {
    const char *name;
    int count;
    enum at_expr_op op;
    bool floats; /* takes and gives floats */
} functions[] = {
    {"abs",   1, AT_X_ABS,      false},
    {"min",   2, AT_X_MIN,      false},
    {"max",   2, AT_X_MAX,      false},
    {"float", 1, AT_X_TO_FLOAT, true },
    {"exp",   1, AT_X_EXP,      true },
    {"log",   1, AT_X_LOG,      true },
    {"sqrt",  1, AT_X_SQRT,     true },
    {"tanh",  1, AT_X_TANH,     true },
    {"floor", 1, AT_X_FLOOR,    true },
};

static int call(struct parse *p, const struct function *f, const char *place)
{
    int arg[2];
    if (f->floats && !p->x->score)
        return fail(p, place, "%s gives a float, and a mask is made of integers and conditions",
                    f->name);
    if (expect(p, "(") < 0 || !arguments(p, arg, f->count, f->name, place))
        return -1;
    if (f->floats)
        arg[0] = at_expr_as_float(p->x, arg[0]);
    if (f->op == AT_X_TO_FLOAT)
        return made(p, arg[0], place);
    if (f->count == 1)
        return made(p, at_expr_op1(p->x, f->op, arg[0]), place);
    meet(p, &arg[0], &arg[1]);
    return made(p, at_expr_op2(p->x, f->op, arg[0], arg[1]), place);
}

static int load(struct parse *p, int capture, const char *place)
{
    const struct at_expr_capture *c = &p->x->capture[capture];
    int arg[AT_EXPR_RANK], n = 0;
    if (expect(p, "[") < 0)
        return -1;
    do {
        skip_blanks(p);
        const char *start = p->at;
        int index = expression(p);
        if (index < 0)
            return -1;
        if (type_of(p, index) != AT_X_INT)
            return fail(p, start, "an index of '%s' is %s, wants an integer", c->name,
                        type_name(type_of(p, index)));
        if (n < AT_EXPR_RANK)
            arg[n] = index;
        n++;
    } while (take(p, ","));
    if (expect(p, "]") < 0)
        return -1;
    if (n != c->rank)
        return fail(p, place, "'%s' has %d %s but %d %s", c->name, c->rank,
                    c->rank == 1 ? "axis" : "axes", n, n == 1 ? "index" : "indices");
    if (!p->x->score && (c->type == ATTEND_F32 || c->type == ATTEND_F16 || c->type == ATTEND_BF16))
        return fail(p, place, "'%s' is %s, and a mask is made of integers and conditions", c->name,
                    attend_type_name(c->type));
    return made(p, at_expr_load(p->x, capture, arg), place);
}

static int name(struct parse *p)
{
    static const char *const variables[] = {"score", "b", "h", "i", "j", "sq", "skv"};
    const char *place = p->at;
    while (word_char(*p->at))
        p->at++;
    int length = (int)(p->at - place);
#define IS(word) ((int)strlen(word) == length && !strncmp(place, word, (size_t)length))
    if (IS("score") && !p->x->score)
        return fail(p, place, "a mask does not depend on the score");
    for (int k = 0; k < AT_LEN(variables); k++)
        if (IS(variables[k]))
            return made(p, at_expr_variable(p->x, AT_X_SCORE + (enum at_expr_op)k), place);
    if (IS("true") || IS("false"))
        return made(p, at_expr_bool(p->x, IS("true")), place);
    if (IS("inf") && p->x->score)
        return made(p, at_expr_float(p->x, (double)INFINITY), place);
    for (int k = 0; k < AT_LEN(functions); k++)
        if (IS(functions[k].name))
            return call(p, &functions[k], place);
    for (int k = 0; k < p->x->ncapture; k++)
        if (IS(p->x->capture[k].name))
            return load(p, k, place);
#undef IS
    return fail(p, place, "'%.*s' is no variable, function or tensor given by name",
                length < AT_EXPR_NAME ? length : AT_EXPR_NAME, place);
}

static int primary(struct parse *p)
{
    skip_blanks(p);
    if (digit(*p->at) || (*p->at == '.' && digit(p->at[1])))
        return number(p);
    if (word_char(*p->at))
        return name(p);
    if (take(p, "(")) {
        int inner = expression(p);
        return inner < 0 || expect(p, ")") < 0 ? -1 : inner;
    }
    if (!*p->at)
        return fail(p, p->at, "the expression ends where a value is wanted");
    return fail(p, p->at, "'%c' stands where a value is wanted",
                isprint((unsigned char)*p->at) ? *p->at : '?');
}

/* Nesting is counted here and in `expression`, which every way down passes. */
static int unary(struct parse *p)
{
    skip_blanks(p);
    const char *place = p->at;
    char sign = take(p, "-") ? '-' : take(p, "!") ? '!' : take(p, "+") ? '+' : 0;
    if (!sign)
        return primary(p);
    if (++p->depth > AT_EXPR_DEPTH)
        return fail(p, place, "nested deeper than %d", AT_EXPR_DEPTH);
    int a = unary(p);
    p->depth--;
    if (sign == '!')
        return want_condition(p, a, "'!'", place) ? made(p, at_expr_op1(p->x, AT_X_NOT, a), place)
                                                  : -1;
    if (!want_number(p, a, sign == '-' ? "'-'" : "'+'", place))
        return -1;
    return sign == '+' ? a : made(p, at_expr_op1(p->x, AT_X_NEG, a), place);
}

static const struct binary {
    const char *token;
    int level; /* higher binds tighter */
    enum at_expr_op op;
    bool swap, negate;
} binaries[] = {
    {"||", 0, AT_X_OR,  false, false},
    {"&&", 1, AT_X_AND, false, false},
    {"==", 2, AT_X_EQ,  false, false},
    {"!=", 2, AT_X_EQ,  false, true },
    {"<=", 3, AT_X_LE,  false, false},
    {">=", 3, AT_X_LE,  true,  false},
    {"<",  3, AT_X_LT,  false, false},
    {">",  3, AT_X_LT,  true,  false},
    {"+",  4, AT_X_ADD, false, false},
    {"-",  4, AT_X_SUB, false, false},
    {"*",  5, AT_X_MUL, false, false},
    {"/",  5, AT_X_DIV, false, false},
    {"%",  5, AT_X_MOD, false, false},
};
enum { LEVELS = 6 };

/* Two conditions are equal when both or neither hold. */
static int equal_conditions(struct at_expr *x, int a, int b)
{
    return at_expr_select(x, a, b, at_expr_op1(x, AT_X_NOT, b));
}

static int combine(struct parse *p, const struct binary *o, int a, int b, const char *place)
{
    char what[8];
    snprintf(what, sizeof what, "'%s'", o->token);
    bool conditions = o->op == AT_X_EQ && type_of(p, a) == AT_X_BOOL && type_of(p, b) == AT_X_BOOL;
    if (o->level < 2) {
        if (!want_condition(p, a, what, place) || !want_condition(p, b, what, place))
            return -1;
    } else if (!conditions &&
               (!want_number(p, a, what, place) || !want_number(p, b, what, place))) {
        return -1;
    }
    meet(p, &a, &b);
    if (o->op == AT_X_MOD && a >= 0 && type_of(p, a) == AT_X_FLOAT)
        return fail(p, place, "'%%' wants integers");
    int c = conditions ? equal_conditions(p->x, a, b)
            : o->swap  ? at_expr_op2(p->x, o->op, b, a)
                       : at_expr_op2(p->x, o->op, a, b);
    return made(p, o->negate ? at_expr_op1(p->x, AT_X_NOT, c) : c, place);
}

static int binary(struct parse *p, int level)
{
    if (level == LEVELS)
        return unary(p);
    int a = binary(p, level + 1);
    while (a >= 0) {
        const struct binary *o = NULL;
        skip_blanks(p);
        const char *place = p->at;
        for (int k = 0; !o && k < AT_LEN(binaries); k++)
            if (binaries[k].level == level && take(p, binaries[k].token))
                o = &binaries[k];
        if (!o)
            return a;
        int b = binary(p, level + 1);
        a = b < 0 ? -1 : combine(p, o, a, b, place);
    }
    return -1;
}

static int conditional(struct parse *p)
{
    int c = binary(p, 0);
    skip_blanks(p);
    const char *place = p->at;
    if (c < 0 || !take(p, "?"))
        return c;
    if (!want_condition(p, c, "'?'", place))
        return -1;
    int a = expression(p);
    if (a < 0 || expect(p, ":") < 0)
        return -1;
    int b = expression(p);
    if (b < 0)
        return -1;
    if ((type_of(p, a) == AT_X_BOOL) != (type_of(p, b) == AT_X_BOOL))
        return fail(p, place, "one side of '?' is a condition and the other a number");
    meet(p, &a, &b);
    return made(p, at_expr_select(p->x, c, a, b), place);
}

static int expression(struct parse *p)
{
    if (++p->depth > AT_EXPR_DEPTH)
        return fail(p, p->at, "nested deeper than %d", AT_EXPR_DEPTH);
    int a = conditional(p);
    p->depth--;
    return a;
}

int at_expr_parse(struct at_expr *x, const char *text, char *err, size_t errlen)
{
    struct parse p = {.x = x, .text = text, .at = text, .err = err, .errlen = errlen};
    if (strlen(text) > AT_EXPR_TEXT)
        return at_say(err, errlen, ATTEND_ELIMIT, "%s expression: %zu bytes long, wants at most %d",
                      x->score ? "score" : "mask", strlen(text), AT_EXPR_TEXT);
    int root = expression(&p);
    skip_blanks(&p);
    if (root >= 0 && *p.at)
        root = fail(&p, p.at, "the expression is over here, but more follows");
    if (root >= 0 && x->score && type_of(&p, root) == AT_X_BOOL)
        root = fail(&p, text, "gives a condition, wants a number");
    if (root >= 0 && !x->score && type_of(&p, root) != AT_X_BOOL)
        root = fail(&p, text, "gives an integer, wants a condition");
    if (root >= 0)
        root = made(&p, x->score ? at_expr_as_float(x, root) : root, text);
    if (root < 0)
        return x->full ? ATTEND_ELIMIT : ATTEND_EINVAL;
    at_expr_finish(x, root);
    return 0;
}
