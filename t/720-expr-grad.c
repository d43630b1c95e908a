/* SPDX-License-Identifier: MIT */
/* Derivatives of drawn score expressions, by the score and by what they load, against differences
 * of their values in double: the slope between x - h and x + h is the derivative but for the third
 * order, of which 4/3 of what halving h changes is a bound.  Where the slopes to both sides differ
 * there is a corner, which has no derivative to compare. */
#include "expr_random.h"
#include "tap.h"

#include <math.h>
#include <string.h>

enum { EXPRESSIONS = 1000, POINTS = 12, ROWS = 3, COLUMNS = 64 };
#define STEP 0x1p-12

static float rel[ROWS * COLUMNS];
static int32_t doc[COLUMNS];
static uint8_t bits[ROWS * COLUMNS];
static const struct at_view views[] = {
    {.type = ATTEND_I32,  .rank = 1, .shape = {COLUMNS},       .stride = {1},          .data = doc},
    {.type = ATTEND_BOOL,
     .rank = 2,
     .shape = {ROWS, COLUMNS},
     .stride = {COLUMNS, 1},
     .data = bits                                                                                 },
    {.type = ATTEND_F32,  .rank = 2, .shape = {ROWS, COLUMNS}, .stride = {COLUMNS, 1}, .data = rel},
};

static double value(const struct at_expr *x, struct at_expr_point p)
{
    return at_expr_eval(x, &p, NULL);
}

/* Which element a load reads at p, or -1: outside. */
static int64_t element(const struct at_expr *x, int load, struct at_expr_point p)
{
    const struct at_expr_node *n = &x->node[x->load[load]];
    const struct at_view *v = &views[n->capture];
    int64_t at = 0;
    for (int k = 0; k < n->nargs; k++) {
        struct at_expr index = *x;
        at_expr_finish(&index, n->arg[k]);
        int64_t i = (int64_t)value(&index, p);
        if (i < 0 || i >= v->shape[k])
            return -1;
        at = at * v->shape[k] + i;
    }
    return at;
}

struct tally {
    int compared, corners, undefined, wrong;
};

/* f at -h, -h/2, 0, h/2, h; d: the derivative. */
static void judge(struct tally *t, const double f[5], double d, const char *text)
{
    double right = (f[4] - f[2]) / STEP, left = (f[2] - f[0]) / STEP, most = 0;
    for (int k = 0; k < 5; k++)
        most = fmax(most, fabs(f[k]));
    if (!isfinite(right) || !isfinite(left) || !isfinite(d) || most > 1e12) {
        t->undefined++;
        return;
    }
    double wide = (f[4] - f[0]) / (2 * STEP), narrow = (f[3] - f[1]) / STEP;
    if (fabs(right - left) > 1e-2 * (1 + fabs(right) + fabs(left))) {
        t->corners++;
        return;
    }
    t->compared++;
    double bound = 1.5 * fabs(wide - narrow) + 8 * most * 0x1p-52 / STEP + fabs(d) * 0x1p-20;
    if (fabs(narrow - d) > bound && !t->wrong++)
        diag("%s: %g by differences, derivative %g, bound %g", text, narrow, d, bound);
}

static void by_score(struct tally *t, const struct at_expr *x, const struct at_expr *d,
                     struct at_expr_point p, const char *text)
{
    double f[5], s = p.score, slope = value(d, p);
    for (int k = 0; k < 5; k++) {
        p.score = s + (k - 2) * STEP / 2;
        f[k] = value(x, p);
    }
    judge(t, f, slope, text);
}

/* All loads that read one element take part. */
static void by_load(struct tally *t, const struct at_expr *x, int load, struct at_expr_point p,
                    const char *text)
{
    int64_t at = element(x, load, p);
    double f[5], slope = 0;
    if (at < 0)
        return;
    for (int l = 0; l < x->nload; l++) {
        struct at_expr d;
        if (x->node[x->load[l]].capture != x->node[x->load[load]].capture || element(x, l, p) != at)
            continue;
        if (at_expr_derivative(x, x->load[l], &d) < 0)
            return;
        slope += value(&d, p);
    }
    float kept = rel[at];
    for (int k = 0; k < 5; k++) {
        rel[at] = kept + (float)((k - 2) * STEP / 2); /* exact: both are multiples of 2^-13 */
        f[k] = value(x, p);
    }
    rel[at] = kept;
    judge(t, f, slope, text);
}

int main(void)
{
    struct tally score = {0}, loads = {0};
    uint64_t seed = 0x1234567;
    for (int e = 0; e < COLUMNS; e++)
        doc[e] = e / 20;
    for (int e = 0; e < ROWS * COLUMNS; e++) {
        bits[e] = (uint8_t)(e / 7 % 2);
        rel[e] = (float)(expr_pick(&seed, 4096) - 2048) / 1024 + 0x1p-11f;
    }
    for (int n = 0; n < EXPRESSIONS; n++) {
        struct at_str text = {0};
        struct at_expr x, d;
        char err[320];
        int by = -1;
        at_expr_init(&x, true);
        if (at_expr_add_capture(&x, "doc", ATTEND_I32, 1, NULL, 0) < 0 ||
            at_expr_add_capture(&x, "bits", ATTEND_BOOL, 2, NULL, 0) < 0 ||
            at_expr_add_capture(&x, "rel", ATTEND_F32, 2, NULL, 0) < 0)
            bail("captures");
        expr_random_score(&x, &seed, 1 + n % 4, &text);
        if (text.failed || at_expr_parse(&x, text.text, err, sizeof err) < 0)
            bail("%s", err);
        for (int k = 0; k < x.n; k++)
            by = x.node[k].op == AT_X_SCORE ? k : by;
        bool derived = by >= 0 && at_expr_derivative(&x, by, &d) == 0;
        for (int k = 0; k < POINTS; k++) {
            struct at_expr_point p = {.score = (expr_pick(&seed, 8192) - 4096) / 1000.0 + 1e-4,
                                      .b = expr_pick(&seed, 2),
                                      .h = expr_pick(&seed, ROWS),
                                      .i = expr_pick(&seed, COLUMNS),
                                      .j = expr_pick(&seed, COLUMNS),
                                      .sq = COLUMNS,
                                      .skv = COLUMNS,
                                      .capture = views};
            if (derived)
                by_score(&score, &x, &d, p, text.text);
            for (int l = 0; l < x.nload; l++)
                if (x.capture[x.node[x.load[l]].capture].type == ATTEND_F32)
                    by_load(&loads, &x, l, p, text.text);
        }
        attend_free(text.text);
    }
    const struct tally *all[] = {&score, &loads};
    for (int k = 0; k < 2; k++) {
        ok(all[k]->wrong == 0, "by %s: %d points agree, %d are corners, %d undefined",
           k ? "loads" : "the score", all[k]->compared, all[k]->corners, all[k]->undefined);
        ok(all[k]->compared > 500 && 10 * all[k]->corners < all[k]->compared,
           "that is most of them");
    }
    return done_testing();
}
