/* SPDX-License-Identifier: MIT */
/* Expressions: what they mean, what is refused and how, folding, and that intervals hold every
 * point. */
#include "expr_random.h"
#include "tap.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int32_t doc_data[] = {0, 0, 0, 1, 1, 1, 1, 2};
static uint8_t tree_data[] = {1, 0, 0, 1, 1, 0, 1, 0, 1};
static float bias_data[] = {0.5f, 1.5f, -2.0f};

static const struct at_view views[] = {
    {.type = ATTEND_I32,  .rank = 1, .shape = {8},    .stride = {1},    .data = doc_data },
    {.type = ATTEND_BOOL, .rank = 2, .shape = {3, 3}, .stride = {3, 1}, .data = tree_data},
    {.type = ATTEND_F32,  .rank = 1, .shape = {3},    .stride = {1},    .data = bias_data},
};
static const char *const names[] = {"doc", "tree", "bias"};

static void prepare(struct at_expr *x, bool score)
{
    at_expr_init(x, score);
    for (size_t k = 0; k < NELEM(views); k++)
        if (at_expr_add_capture(x, names[k], views[k].type, views[k].rank, NULL, 0) < 0)
            bail("capture %s", names[k]);
}

static bool parse(struct at_expr *x, bool score, const char *text)
{
    char err[512];
    prepare(x, score);
    if (at_expr_parse(x, text, err, sizeof err) == 0)
        return true;
    diag("%s", err);
    return ok(false, "\"%s\" is read", text);
}

/* At b 1, h 2, i 3, j 5, sq 7, skv 8, score 0.5. */
static double at_point(const struct at_expr *x)
{
    struct at_expr_point p = {
        .score = 0.5, .b = 1, .h = 2, .i = 3, .j = 5, .sq = 7, .skv = 8, .capture = views};
    return at_expr_eval(x, &p, NULL);
}

static const struct {
    const char *text;
    double want;
} scores[] = {
    {"score",                                             0.5      },
    {"score + 0.5*abs(i-j)",                              1.5      },
    {"i / 2",                                             1        },
    {"(i - j) / 4",                                       -1       },
    {"(i - j) % 4",                                       2        },
    {"(i - j) % -4",                                      -2       },
    {"(i - j) % (b - 1)",                                 0        },
    {"i / (b - 1) + 4",                                   4        },
    {"i / 2.0",                                           1.5      },
    {"1 ? 2 : 3",                                         NAN      }, /* refused below */
    {"i < j ? 1 : 2.5",                                   1        },
    {"i > j ? 1 : 2.5",                                   2.5      },
    {"-i + +j - -h",                                      4        },
    {"2 + 3 * 4 - 1",                                     13       },
    {"10 - 4 - 3",                                        3        },
    {"100 / 10 / 2",                                      5        },
    {"1 < 2 == 2 < 3 ? 1 : 0",                            1        },
    {"true && false || true ? 1 : 0",                     1        },
    {"!(i < j) ? 1 : 0",                                  0        },
    {"i != j ? 1 : 0",                                    1        },
    {"i >= 3 && j <= 5 ? 1 : 0",                          1        },
    {"false ? 1 : true ? 2 : 3",                          2        },
    {"min(i, j) * 10 + max(h, b)",                        32       },
    {"min(i, 0.5)",                                       0.5      },
    {"abs(i - j) + abs(-0.25)",                           2.25     },
    {"float(i) / 2",                                      1.5      },
    {"floor(1.7) + floor(-1.2)",                          -1       },
    {"exp(0) + log(1) + sqrt(4) + tanh(0)",               3        },
    {"1e2 + .5 + 2.5E-1",                                 100.75   },
    {"b + h*10 + i*100 + j*1000 + sq*10000 + skv*100000", 875321   },
    {"bias[h]",                                           -2       },
    {"bias[h + 1]",                                       0        }, /* outside */
    {"bias[-b]",                                          0        },
    {"doc[i] + 10 * doc[sq]",                             21       },
    {"tree[h, b] ? 1 : 2",                                2        },
    {"tree[h, h] ? 1 : 2",                                1        },
    {"tree[h, 3] ? 1 : 2",                                2        },
    {"9223372036854775807 + b < 0 ? 1 : 2",               1        }, /* integers wrap */
    {"1000000 * 1000000 == 1000000000000 ? 1 : 2",        1        },
    {"i > j ? score : -inf",                              -INFINITY},
    {" score\t+ 1 ",                                      1.5      },
};

static void test_values(void)
{
    struct at_expr x;
    for (size_t k = 0; k < NELEM(scores); k++)
        if (!isnan(scores[k].want) && parse(&x, true, scores[k].text))
            is_float(at_point(&x), scores[k].want, 1e-12, "%s", scores[k].text);
}

static const struct {
    bool score;
    const char *text, *says;
    int caret; /* column, or -1 */
} refused[] = {
    {false, "",                        "ends where a value is wanted",          0 },
    {false, "j <",                     "ends where a value is wanted",          3 },
    {false, "j <= k",                  "'k' is no variable",                    5 },
    {false, "i",                       "gives an integer, wants a condition",   0 },
    {true,  "i < j",                   "gives a condition, wants a number",     0 },
    {false, "j <= i && score > 0",     "does not depend on the score",          10},
    {false, "j < 0.5",                 "integers and conditions, not floats",   4 },
    {false, "exp(i) < 2",              "exp gives a float",                     0 },
    {false, "bias[h] < 2",             "'bias' is f32",                         0 },
    {false, "i && j < 3",              "'&&' wants conditions, not an integer", 2 },
    {false, "!i",                      "'!' wants conditions, not an integer",  0 },
    {false, "(i < j) + 1 < 2",         "'+' wants numbers",                     8 },
    {false, "i < j < 3",               "'<' wants numbers",                     6 },
    {false, "i < j ? 1 : 2",           "gives an integer",                      0 },
    {false, "i < j ? i < 2 : 1",       "one side of '?'",                       6 },
    {false, "i ? true : false",        "'?' wants conditions",                  2 },
    {false, "doc[i, j] == 1",          "'doc' has 1 axis but 2 indices",        0 },
    {false, "tree[i]",                 "'tree' has 2 axes but 1 index",         0 },
    {false, "tree[i, j < 2]",          "an index of 'tree' is a condition",     8 },
    {false, "doc i == 1",              "'[' is missing before 'i'",             4 },
    {false, "doc[i == 1",              "wants an integer",                      4 },
    {false, "doc[i",                   "']' is missing at the end",             5 },
    {false, "(i < j",                  "')' is missing at the end",             6 },
    {false, "i < j)",                  "more follows",                          5 },
    {false, "i < j k",                 "more follows",                          6 },
    {false, "i = j",                   "more follows",                          2 },
    {false, "i & j",                   "more follows",                          2 },
    {false, "i < $",                   "'$' stands where a value is wanted",    4 },
    {false, "i < 3x",                  "'x' stands inside a number",            5 },
    {false, "i < 9223372036854775808", "integers end at",                       4 },
    {true,  "1.5 % 2",                 "'%' wants integers",                    4 },
    {true,  "min(1)",                  "',' is missing",                        5 },
    {true,  "tanh(1, 2)",              "')' is missing",                        6 },
    {true,  "tanh",                    "'(' is missing at the end",             4 },
    {true,  "1 ? 2 : 3",               "'?' wants conditions",                  2 },
    {true,  "exp(i < j)",              "exp wants numbers",                     0 },
    {true,  "1.2.3",                   "more follows",                          3 },
};

static void test_refusals(void)
{
    struct at_expr x;
    char err[512];
    for (size_t k = 0; k < NELEM(refused); k++) {
        prepare(&x, refused[k].score);
        err[0] = 0;
        int status = at_expr_parse(&x, refused[k].text, err, sizeof err);
        const char *last = strrchr(err, '\n');
        if (!ok(status == ATTEND_EINVAL && strstr(err, refused[k].says) && last &&
                    (int)strlen(last) == 1 + 4 + refused[k].caret + 1,
                "refused: \"%s\"", refused[k].text))
            diag("%s", err);
    }
}

static char *repeat(const char *start, const char *part, int n, const char *end)
{
    struct at_str s = {0};
    at_str_add(&s, "%s", start);
    for (int k = 0; k < n; k++)
        at_str_add(&s, "%s", part);
    at_str_add(&s, "%s", end);
    return s.text;
}

static void refuse_long(char *text, int status, const char *says)
{
    struct at_expr x;
    char err[512] = "";
    prepare(&x, true);
    is_int(at_expr_parse(&x, text, err, sizeof err), status, "limit: %s", says);
    if (!ok(strstr(err, says) != NULL, "its sentence"))
        diag("%s", err);
    free(text);
}

static void test_limits(void)
{
    struct at_expr x;
    struct at_str many = {0};
    char err[512];
    refuse_long(repeat("1", " ", AT_EXPR_TEXT, ""), ATTEND_ELIMIT, "bytes long");
    refuse_long(repeat("", "(", 1000, "1"), ATTEND_EINVAL, "nested deeper than 64");
    refuse_long(repeat("", "-", 1000, "1"), ATTEND_EINVAL, "nested deeper than 64");
    refuse_long(repeat("", "!", 1000, "true"), ATTEND_EINVAL, "nested deeper than 64");
    refuse_long(repeat("", "true?1:", 1000 / 2, "1"), ATTEND_EINVAL, "nested deeper than 64");
    at_str_add(&many, "i");
    for (int k = 0; k < 400; k++)
        at_str_add(&many, "*j+%d", k + 2);
    refuse_long(many.text, ATTEND_ELIMIT, "larger than 512 operations");
    many = (struct at_str){0};
    at_str_add(&many, "bias[0]");
    for (int k = 1; k < 40; k++)
        at_str_add(&many, "+bias[%d]", k);
    refuse_long(many.text, ATTEND_ELIMIT, "32 places");

    at_expr_init(&x, true);
    ok(at_expr_add_capture(&x, "sq", ATTEND_F32, 1, err, sizeof err) < 0 && strstr(err, "taken"),
       "a tensor cannot be named sq");
    ok(at_expr_add_capture(&x, "2x", ATTEND_F32, 1, err, sizeof err) < 0, "nor 2x");
    ok(at_expr_add_capture(&x, "", ATTEND_F32, 1, err, sizeof err) < 0, "nor nothing");
    ok(at_expr_add_capture(&x, "x", ATTEND_F32, 5, err, sizeof err) < 0 && strstr(err, "5 axes"),
       "a tensor of 5 axes");
    ok(at_expr_add_capture(&x, "x", ATTEND_Q8_0, 1, err, sizeof err) < 0 && strstr(err, "q8_0"),
       "a quantised tensor");
    ok(at_expr_add_capture(&x, "x", ATTEND_F32, 1, err, sizeof err) == 0 &&
           at_expr_add_capture(&x, "x", ATTEND_F32, 1, err, sizeof err) < 0,
       "two of one name");
}

static void test_folding(void)
{
    struct at_expr x;
    if (parse(&x, true, "score*(2+3*4) + (i-i) + (true && 1 < 2 ? 0.5 : exp(score))"))
        is_int(x.n, 5, "constants are folded: score, 14, their product, 0.5, a sum");
    if (parse(&x, true, "(i+j)*(i+j) + (i+j)"))
        is_int(x.n, 6, "what is written twice is computed once");
    if (parse(&x, false, "j <= i && true"))
        ok(x.reads == ((1u << AT_X_I) | (1u << AT_X_J) | (1u << AT_X_LE)), "what is read");
    if (parse(&x, false, "1 < 2"))
        ok(x.n == 1 && x.reads == 1, "a constant condition");
}

/* ---- intervals against points ---- */

static int32_t ids[200];
static uint8_t bits[3 * 150];
static const struct at_view data[] = {
    {.type = ATTEND_I32,  .rank = 1, .shape = {200},    .stride = {1},      .data = ids },
    {.type = ATTEND_BOOL, .rank = 2, .shape = {3, 150}, .stride = {150, 1}, .data = bits},
};

static struct at_interval span(uint64_t *seed, int64_t limit)
{
    int64_t lo = expr_pick(seed, (int)limit);
    return (struct at_interval){lo, at_min(limit - 1, lo + expr_pick(seed, 40))};
}

/* Every point of a box has its value in the intervals; counts boxes that were decided. */
static bool holds(const struct at_expr *x, const struct at_expr_box *box, int *decided)
{
    enum at_cover cover = at_expr_cover(x, box);
    *decided += cover != AT_COVER_PARTIAL;
    struct at_expr_point p = {
        .b = box->b.lo, .h = box->h.lo, .sq = 180, .skv = 210, .capture = data};
    bool good = true;
    for (p.h = box->h.lo; p.h <= box->h.hi; p.h++)
        for (p.i = box->i.lo; p.i <= box->i.hi; p.i++)
            for (p.j = box->j.lo; p.j <= box->j.hi; p.j++) {
                bool visible = at_expr_eval(x, &p, NULL) != 0;
                good = good && !(visible && cover == AT_COVER_EMPTY) &&
                       !(!visible && cover == AT_COVER_FULL);
            }
    return good;
}

static void test_intervals(uint64_t seed)
{
    attend_ctx *ctx;
    int decided = 0, boxes = 0, wrong = 0;
    if (attend_ctx_new(NULL, &ctx) < 0)
        bail("no context");
    for (int k = 0; k < 200; k++)
        ids[k] = k / 30 - (k > 150);
    for (int k = 0; k < 450; k++)
        bits[k] = k % 150 < 70;
    for (int round = 0; round < 400; round++) {
        struct at_expr x;
        struct at_str s = {0};
        struct at_minmax *minmax[AT_EXPR_LOADS];
        char err[512];
        at_expr_init(&x, false);
        if (at_expr_add_capture(&x, "id", ATTEND_I32, 1, err, sizeof err) < 0 ||
            at_expr_add_capture(&x, "bit", ATTEND_BOOL, 2, err, sizeof err) < 0)
            bail("%s", err);
        expr_random_mask(&x, &seed, 1 + expr_pick(&seed, 4), &s);
        if (at_expr_parse(&x, s.text, err, sizeof err) < 0) {
            if (!strstr(err, "larger"))
                ok(false, "%s", err);
            free(s.text);
            continue;
        }
        for (int k = 0; k < x.nload; k++)
            minmax[k] = at_minmax_new(ctx, &x, k, &data[x.node[x.load[k]].capture]);
        for (int k = 0; k < 8; k++) {
            struct at_expr_box box = {
                .b = {1,   1  },
                  .sq = {180, 180},
                  .skv = {210, 210},
                  .minmax = k % 4 ? minmax : NULL
            };
            box.h = (struct at_interval){0, expr_pick(&seed, 2)};
            box.i = span(&seed, 180);
            box.j = span(&seed, 210);
            boxes++;
            if (!holds(&x, &box, &decided) && wrong++ == 0)
                diag("%s in i %d..%d j %d..%d", s.text, (int)box.i.lo, (int)box.i.hi, (int)box.j.lo,
                     (int)box.j.hi);
        }
        for (int k = 0; k < x.nload; k++)
            at_minmax_free(ctx, minmax[k]);
        free(s.text);
    }
    is_int(wrong, 0, "intervals hold every point of %d boxes", boxes);
    ok(decided > boxes / 3, "%d of them were decided without points", decided);
    attend_ctx_free(ctx);
}

/* f32 beside double: no further than the error that is stated. */
static void test_error(void)
{
    struct at_expr x;
    struct at_expr_point p = {.score = 3, .score_error = 0.001, .capture = views};
    double error;
    if (parse(&x, true, "2*score"))
        is_float((at_expr_eval(&x, &p, &error), error), 0.002, 1e-6, "2*score: twice the error");
    if (parse(&x, true, "score*score"))
        is_float((at_expr_eval(&x, &p, &error), error), 0.006, 1e-5, "score*score: six times");
    if (parse(&x, true, "score < 3.0005 ? 1 : 2"))
        is_float((at_expr_eval(&x, &p, &error), error), 1, 0, "an open comparison");
    if (parse(&x, true, "score < 3.0015 ? 1 : 2"))
        is_float((at_expr_eval(&x, &p, &error), error), 0, 0, "a certain comparison");
    if (parse(&x, true, "1/(score-3)"))
        ok((at_expr_eval(&x, &p, &error), isinf(error)), "a pole");
}

int main(void)
{
    test_values();
    test_refusals();
    test_limits();
    test_folding();
    test_intervals(1);
    test_error();
    return done_testing();
}
