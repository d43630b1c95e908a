/* SPDX-License-Identifier: MIT */
/* libFuzzer's target for expressions: text that is one is compiled, printed and differentiated, and
 * its intervals must hold its values; the rest is refused.  make check-fuzz */
#include "expr.h"

#include <stdlib.h>
#include <string.h>

enum { N = 40 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int32_t ids[N];
static uint8_t bits[N];
static float bias[N];
static const struct at_view views[] = {
    {.type = ATTEND_I32,  .rank = 1, .shape = {N},     .stride = {1},     .data = ids },
    {.type = ATTEND_BOOL, .rank = 2, .shape = {4, 10}, .stride = {10, 1}, .data = bits},
    {.type = ATTEND_F32,  .rank = 1, .shape = {N},     .stride = {1},     .data = bias},
};

static bool parse(struct at_expr *x, bool score, const char *text)
{
    static const char *const names[] = {"d", "t", "f"};
    char err[512];
    at_expr_init(x, score);
    for (int k = 0; k < AT_LEN(views); k++)
        if (at_expr_add_capture(x, names[k], views[k].type, views[k].rank, err, sizeof err) < 0)
            abort();
    err[0] = 0;
    bool good = at_expr_parse(x, text, err, sizeof err) == 0;
    if (!good && !err[0]) /* a refusal says why */
        abort();
    return good;
}

/* Values at the points of a small box are inside of what its intervals say. */
static void check_cover(const struct at_expr *x, const struct at_expr_box *box)
{
    enum at_cover cover = at_expr_cover(x, box);
    struct at_expr_point p = {.b = 1, .h = 2, .sq = N, .skv = N, .capture = views};
    for (p.i = box->i.lo; p.i <= box->i.hi; p.i++)
        for (p.j = box->j.lo; p.j <= box->j.hi; p.j++) {
            bool visible = at_expr_eval(x, &p, NULL) != 0;
            if (visible ? cover == AT_COVER_EMPTY : cover == AT_COVER_FULL)
                abort();
        }
}

static void use(const struct at_expr *x)
{
    static struct at_expr_program program;
    static struct at_expr slope;
    char err[512];
    struct at_str s = {0};
    struct at_expr_box box = {
        .b = {0, 1},
          .h = {0, 3},
          .i = {0, N},
          .j = {0, N},
          .sq = {0, N},
          .skv = {0, N}
    };
    (void)at_expr_compile(x, &box, &program, err, sizeof err);
    at_expr_print(x, AT_EXPR_OPENCL, &box, &s);
    free(s.text);
    for (int k = 0; k < x->n; k++)
        if (x->node[k].op == AT_X_SCORE)
            (void)at_expr_derivative(x, k, &slope);
    box.b = (struct at_interval){1, 1};
    box.h = (struct at_interval){2, 2};
    box.sq = box.skv = (struct at_interval){N, N};
    for (int64_t i = 0; i < N && !x->score; i += 13) {
        box.i = (struct at_interval){i, i + 3};
        box.j = (struct at_interval){i / 2, i / 2 + 5};
        check_cover(x, &box);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct at_expr x;
    char *text = malloc(size + 1);
    if (!text)
        return 0;
    memcpy(text, data, size);
    text[size] = 0;
    for (int k = 0; k < N; k++) {
        ids[k] = k / 7 - 2;
        bits[k] = k % 3 == 0;
        bias[k] = (float)k / 4;
    }
    if (parse(&x, false, text))
        use(&x);
    if (parse(&x, true, text))
        use(&x);
    free(text);
    return 0;
}
