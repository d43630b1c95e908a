/* SPDX-License-Identifier: MIT */
#include "expr_random.h"

static void integer(const struct at_expr *x, uint64_t *seed, int depth, struct at_str *s);

/* Captures of a kind; -1 where there is none. */
static int find(const struct at_expr *x, uint64_t *seed, enum at_expr_type want)
{
    int found = -1, seen = 0;
    for (int k = 0; k < x->ncapture; k++) {
        attend_type t = x->capture[k].type;
        enum at_expr_type is = t == ATTEND_BOOL  ? AT_X_BOOL
                               : t <= ATTEND_F64 ? AT_X_FLOAT
                                                 : AT_X_INT;
        if (is == want && expr_pick(seed, ++seen) == 0)
            found = k;
    }
    return found;
}

static void capture(const struct at_expr *x, int c, uint64_t *seed, int depth, struct at_str *s)
{
    at_str_add(s, "%s[", x->capture[c].name);
    for (int k = 0; k < x->capture[c].rank; k++) {
        at_str_add(s, k ? ", " : "");
        integer(x, seed, depth - 1, s);
    }
    at_str_add(s, "]");
}

static void integer(const struct at_expr *x, uint64_t *seed, int depth, struct at_str *s)
{
    static const char *const leaf[] = {"i", "j", "i", "j", "b", "h", "sq", "skv"};
    static const char *const op[] = {"+", "-", "-", "*", "/", "%"};
    int c = find(x, seed, AT_X_INT), what = depth <= 0 ? expr_pick(seed, 10) : expr_pick(seed, 26);
    if (what < 8) {
        at_str_add(s, "%s", leaf[what]);
    } else if (what < 10 || (what < 13 && c < 0)) {
        at_str_add(s, "%d", expr_pick(seed, 4) ? expr_pick(seed, 20) - 5 : expr_pick(seed, 300));
    } else if (what < 13) {
        capture(x, c, seed, depth, s);
    } else if (what < 16) {
        at_str_add(s, what == 13 ? "abs(" : what == 14 ? "-(" : "+(");
        integer(x, seed, depth - 1, s);
        at_str_add(s, ")");
    } else if (what < 18) {
        at_str_add(s, what == 16 ? "min(" : "max(");
        integer(x, seed, depth - 1, s);
        at_str_add(s, ", ");
        integer(x, seed, depth - 1, s);
        at_str_add(s, ")");
    } else if (what < 20) {
        at_str_add(s, "(");
        expr_random_mask(x, seed, depth - 1, s);
        at_str_add(s, " ? ");
        integer(x, seed, depth - 1, s);
        at_str_add(s, " : ");
        integer(x, seed, depth - 1, s);
        at_str_add(s, ")");
    } else {
        at_str_add(s, "(");
        integer(x, seed, depth - 1, s);
        at_str_add(s, " %s ", op[what - 20]);
        integer(x, seed, depth - 1, s);
        at_str_add(s, ")");
    }
}

void expr_random_mask(const struct at_expr *x, uint64_t *seed, int depth, struct at_str *s)
{
    static const char *const op[] = {"<", "<=", ">", ">=", "<", "<=", "==", "!="};
    int c = find(x, seed, AT_X_BOOL), what = expr_pick(seed, depth <= 0 ? 8 : 14);
    if (what < 8) {
        integer(x, seed, depth - 1, s);
        at_str_add(s, " %s ", op[what]);
        integer(x, seed, depth - 1, s);
    } else if (what == 8) {
        at_str_add(s, "!(");
        expr_random_mask(x, seed, depth - 1, s);
        at_str_add(s, ")");
    } else if (what == 9 && c >= 0) {
        capture(x, c, seed, depth, s);
    } else {
        at_str_add(s, "(");
        expr_random_mask(x, seed, depth - 1, s);
        at_str_add(s, what < 12 ? ") && (" : what == 12 ? ") || (" : ") == (");
        expr_random_mask(x, seed, depth - 1, s);
        at_str_add(s, ")");
    }
}

void expr_random_score(const struct at_expr *x, uint64_t *seed, int depth, struct at_str *s)
{
    static const char *const call[] = {"abs", "tanh", "exp", "log", "sqrt", "floor", "float", "-"};
    static const char *const op[] = {"+", "-", "*", "+", "-", "*", "/"};
    int c = find(x, seed, AT_X_FLOAT), what = expr_pick(seed, depth <= 0 ? 6 : 24);
    if (what < 3) {
        at_str_add(s, "score");
    } else if (what == 3) {
        at_str_add(s, "%d.%d", expr_pick(seed, 3), expr_pick(seed, 100));
    } else if (what == 4 && c >= 0) {
        capture(x, c, seed, depth, s);
    } else if (what < 7) {
        at_str_add(s, "0.01*");
        integer(x, seed, depth - 1, s);
    } else if (what < 15) {
        at_str_add(s, "%s(", call[what - 7]);
        if (what == 10 || what == 11) /* log and sqrt of what is above 0 */
            at_str_add(s, "1 + abs(");
        if (what == 9) /* exp of what is small */
            at_str_add(s, "0.1*tanh(");
        expr_random_score(x, seed, depth - 1, s);
        at_str_add(s, what >= 9 && what <= 11 ? "))" : ")");
    } else if (what < 22) {
        at_str_add(s, "(");
        expr_random_score(x, seed, depth - 1, s);
        at_str_add(s, " %s ", op[what - 15]);
        if (what == 21) /* divided by what is not near 0 */
            at_str_add(s, "(2 + abs(");
        expr_random_score(x, seed, depth - 1, s);
        at_str_add(s, what == 21 ? ")))" : ")");
    } else if (what == 22) {
        at_str_add(s, "max(");
        expr_random_score(x, seed, depth - 1, s);
        at_str_add(s, ", ");
        expr_random_score(x, seed, depth - 1, s);
        at_str_add(s, ")");
    } else {
        at_str_add(s, "(");
        expr_random_mask(x, seed, depth - 1, s);
        at_str_add(s, " ? ");
        expr_random_score(x, seed, depth - 1, s);
        at_str_add(s, " : ");
        expr_random_score(x, seed, depth - 1, s);
        at_str_add(s, ")");
    }
}
