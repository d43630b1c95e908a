/* SPDX-License-Identifier: MIT */
/* Expressions by calls: parts are text that the graph owns, so a part can be used in several places
 * and mixed with text that was written, and there is one reader of expressions. */
#include "expr.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Takes s, a text that is done, into the graph. */
static const char *keep(attend_graph *g, struct at_str *s)
{
    char *copy = s->failed || !s->text ? NULL : at_strdup(g->ctx, s->text);
    free(s->text);
    if (!copy || !at_grow(g->ctx, (void **)&g->labels, &g->cap_label, g->nlabel, sizeof copy)) {
        at_free(g->ctx, copy);
        at_fail(&g->err, ATTEND_ENOMEM, "no memory for an expression");
        return NULL;
    }
    return g->labels[g->nlabel++] = copy;
}

const char *attend_expr_int(attend_graph *g, int64_t value)
{
    struct at_str s = {0};
    if (value == INT64_MIN) /* its magnitude is no integer */
        at_str_add(&s, "(%lld - 1)", (long long)(value + 1));
    else
        at_str_add(&s, "(%lld)", (long long)value);
    return keep(g, &s);
}

const char *attend_expr_float(attend_graph *g, double value)
{
    struct at_str s = {0};
    if (value != value)
        at_str_add(&s, "(inf - inf)");
    else if (value - value != 0)
        at_str_add(&s, value < 0 ? "(-inf)" : "inf");
    else
        at_str_add(&s, "(%.16e)", value);
    return keep(g, &s);
}

static bool is_word(const char *op)
{
    return (op[0] >= 'a' && op[0] <= 'z') || (op[0] >= 'A' && op[0] <= 'Z') || op[0] == '_';
}

static bool is_function(const char *op)
{
    static const char *const names[] = {"abs", "min",  "max",  "float", "exp",
                                        "log", "sqrt", "tanh", "floor"};
    bool found = false;
    for (int k = 0; k < AT_LEN(names); k++)
        found = found || !strcmp(op, names[k]);
    return found;
}

const char *attend_expr_call(attend_graph *g, const char *op, const char *const *args, int n)
{
    struct at_str s = {0};
    size_t length = 0;
    for (int k = 0; k < n; k++) {
        if (!args[k])
            return NULL;
        length += strlen(args[k]);
    }
    if (length > AT_EXPR_TEXT) { /* no expression may be that long */
        at_fail(&g->err, ATTEND_ELIMIT, "the arguments of '%s' in an expression are %zu bytes long",
                op, length);
        return NULL;
    }
    if (is_word(op)) {
        at_str_add(&s, "%s%c", op, is_function(op) ? '(' : '[');
        for (int k = 0; k < n; k++)
            at_str_add(&s, "%s%s", k ? ", " : "", args[k]);
        at_str_add(&s, "%c", is_function(op) ? ')' : ']');
    } else if (n == 1) {
        at_str_add(&s, "(%s%s)", op, args[0]);
    } else if (n == 2) {
        at_str_add(&s, "(%s %s %s)", args[0], op, args[1]);
    } else if (n == 3) {
        at_str_add(&s, "(%s ? %s : %s)", args[0], args[1], args[2]);
    } else {
        at_fail(&g->err, ATTEND_EINVAL, "'%s' in an expression has %d arguments", op, n);
        return NULL;
    }
    return keep(g, &s);
}
