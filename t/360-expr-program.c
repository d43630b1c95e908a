/* SPDX-License-Identifier: MIT */
/* Programs of expressions on every instruction set against the reference evaluation: masks bit by
 * bit, scores within the error that the reference states. */
#include "expr_random.h"
#include "kernel.h"
#include "simd.h"

enum { NQ = 90, NK = 300, HEADS = 6 };
static int32_t ids[200];
static uint8_t bits[3 * 150];
static float bias[HEADS * 90];
static uint16_t halves[64];
static int64_t large[100];

static const struct at_view views[] = {
    {.type = ATTEND_I32,  .rank = 1, .shape = {200},       .stride = {1},      .data = ids   },
    {.type = ATTEND_BOOL, .rank = 2, .shape = {3, 150},    .stride = {150, 1}, .data = bits  },
    {.type = ATTEND_F32,  .rank = 2, .shape = {HEADS, 90}, .stride = {90, 1},  .data = bias  },
    {.type = ATTEND_F16,  .rank = 1, .shape = {32},        .stride = {2},      .data = halves},
    {.type = ATTEND_I64,  .rank = 1, .shape = {100},       .stride = {1},      .data = large },
};
static const char *const names[] = {"ids", "bits", "bias", "halves", "large"};

static void set_up(void)
{
    for (int k = 0; k < 200; k++)
        ids[k] = k / 30 - 2;
    for (int k = 0; k < 450; k++)
        bits[k] = (uint8_t)(k * 7 % 3);
    for (int k = 0; k < HEADS * 90; k++)
        bias[k] = (float)uniform(-2, 2);
    for (int k = 0; k < 64; k++)
        halves[k] = at_half_from_float((float)uniform(-2, 2));
    for (int k = 0; k < 100; k++)
        large[k] = (int64_t)uniform(-9e18, 9e18);
}

static void prepare(struct at_expr *x, bool score)
{
    at_expr_init(x, score);
    for (size_t k = 0; k < NELEM(views); k++)
        if ((score || (views[k].type != ATTEND_F32 && views[k].type != ATTEND_F16)) &&
            at_expr_add_capture(x, names[k], views[k].type, views[k].rank, NULL, 0) < 0)
            bail("capture %s", names[k]);
}

/* The views of x's captures, in its order. */
static void find_views(const struct at_expr *x, struct at_view *out)
{
    for (int c = 0; c < x->ncapture; c++)
        for (size_t k = 0; k < NELEM(views); k++)
            if (!strcmp(x->capture[c].name, names[k]))
                out[c] = views[k];
}

struct block {
    int64_t lanes, stride, keys, j0;
    int64_t i[AT_EXPR_LANES], h[AT_EXPR_LANES];
};

static void draw_block(struct block *b)
{
    static const int64_t strides[] = {1, 2, 4, 8, 16, 32, 64};
    b->stride = strides[pick(7)];
    b->lanes = b->stride - pick(b->stride) / 2;
    b->keys = 1 + pick(200);
    b->j0 = pick(NK - b->keys);
    for (int64_t r = 0; r < b->lanes; r++) {
        b->i[r] = pick(NQ);
        b->h[r] = pick(HEADS);
    }
}

/* One score after the program, and what the reference makes of it. */
static bool agrees(const struct at_expr *x, const struct at_expr_point *p, float before,
                   float after)
{
    double error, want = at_expr_eval(x, p, &error);
    if (!x->score)
        return want != 0 ? memcmp(&before, &after, 4) == 0 : isinf(after) && after < 0;
    if (isnan(want) || isnan(error) || isinf(error))
        return true; /* open, or a NaN that f32 need not have */
    double got = (double)after;
    return fabs(got - want) <= error + 2 * UNIT * fabs(want) + 1e-30 ||
           (fabs(want) > 1e38 && !isfinite(got));
}

static int64_t decided; /* scores that were compared with a finite bound */

static bool run(const struct at_simd *t, const struct at_expr *x, const struct at_expr_program *p)
{
    struct block b;
    struct at_view capture[AT_EXPR_CAPTURES];
    draw_block(&b);
    find_views(x, capture);
    float *st = taken_floats(b.keys * b.stride), *before = taken_floats(b.keys * b.stride);
    void *scratch = taken(p->scratch, 0);
    for (int64_t e = 0; e < b.keys * b.stride; e++)
        st[e] = before[e] = (float)uniform(-4, 4);
    const struct at_expr_block block = {
        .st = st,
        .stride = b.stride,
        .lanes = b.lanes,
        .j0 = b.j0,
        .keys = b.keys,
        .i = b.i,
        .h = b.h,
        .b = 1,
        .sq = NQ,
        .skv = NK,
        .capture = capture,
    };
    t->expr(p, &block, scratch);
    bool good = true;
    for (int64_t j = 0; j < b.keys; j++)
        for (int64_t r = 0; r < b.lanes; r++) {
            int64_t e = j * b.stride + r;
            struct at_expr_point at = {.score = (double)before[e],
                                       .b = 1,
                                       .h = b.h[r],
                                       .i = b.i[r],
                                       .j = b.j0 + j,
                                       .sq = NQ,
                                       .skv = NK,
                                       .capture = capture};
            if (!agrees(x, &at, before[e], st[e]) && good) {
                double error, want = at_expr_eval(x, &at, &error);
                diag("i %d j %d h %d score %.9g: %.9g, wants %.17g within %g", (int)at.i, (int)at.j,
                     (int)at.h, at.score, (double)st[e], want, error);
                good = false;
            }
        }
    decided += b.keys * b.lanes;
    good = released(st, 0) && good;
    good = released(before, 0) && good;
    return released(scratch, 0) && good;
}

static bool compile(struct at_expr *x, const char *text, struct at_expr_program *p)
{
    const struct at_expr_box box = {
        .b = {0, 1        },
        .h = {0, HEADS - 1},
        .i = {0, NQ - 1   },
        .j = {0, NK - 1   },
        .sq = {0, NQ       },
        .skv = {0, NK       }
    };
    char err[512];
    if (at_expr_parse(x, text, err, sizeof err) == 0 &&
        at_expr_compile(x, &box, p, err, sizeof err) == 0)
        return true;
    if (!strstr(err, "larger") && !strstr(err, "steps") && !strstr(err, "deeper"))
        ok(false, "%s", err);
    return false;
}

static void test_text(const struct at_simd *t, bool score, const char *text)
{
    static struct at_expr_program p;
    struct at_expr x;
    bool good = true;
    prepare(&x, score);
    if (!compile(&x, text, &p))
        return;
    for (int k = 0; k < 5; k++)
        good = run(t, &x, &p) && good;
    ok(good, "%s: %s", t->name, text);
}

static const char *const masks[] = {
    "j <= i",
    "true",
    "false",
    "b == 1",
    "h == 2",
    "j == 5",
    "i == 5",
    "i - j < 256 && j <= i",
    "ids[i] == ids[j]",
    "bits[h, j]",
    "bits[b, i + j]",
    "(i - j) % 4 == 0",
    "(i - j) / 7 == -1",
    "(j - i) % -(h - 3) > -2",
    "i / (h - 1) == 2",
    "i * 1000000 * 1000000 > j",
    "large[i] < large[j]",
    "large[i] % 1000 + j > 500",
    "large[j] / (h - 2) > 0",
    "large[ids[j] + 3] * 3 < 0",
    "abs(large[i]) > 10 == (min(i, j) < max(h, 4))",
    "ids[large[i]] == 0",
    "-large[i] < i",
    "(i < j ? large[i] : i) > 5",
};
static const char *const score_texts[] = {
    "score",
    "score * 2",
    "score + 0.5*abs(i-j)",
    "score + bias[h, i - j]",
    "3",
    "i",
    "large[j]",
    "tanh(score / 30) * 30",
    "exp(score)",
    "log(abs(score))",
    "log(float(i) - 5)",
    "sqrt(abs(score))",
    "floor(score * 3)",
    "floor(score * 100000000.0)",
    "j <= i ? score : -inf",
    "score + halves[j]",
    "min(score, 1) + max(score, float(j))",
    "1 / (2 + abs(score))",
    "-score",
    "score < 1 ? i : j",
    "score + log(0.0000000000000000000000000000000000000000001)",
    "exp(-j) * 3",
    "exp(float(j))",
};

static void test_random(const struct at_simd *t, int rounds)
{
    static struct at_expr_program p;
    int wrong = 0, n = 0;
    uint64_t seed = 11;
    for (int round = 0; round < rounds; round++) {
        struct at_expr x;
        struct at_str s = {0};
        bool score = round % 2 != 0;
        prepare(&x, score);
        (score ? expr_random_score : expr_random_mask)(&x, &seed, 2 + expr_pick(&seed, 4), &s);
        if (compile(&x, s.text, &p)) {
            n++;
            if (!run(t, &x, &p) && wrong++ < 3)
                diag("%s", s.text);
        }
        free(s.text);
    }
    is_int(wrong, 0, "%s: %d random expressions", t->name, n);
}

int main(void)
{
    struct at_simd_isa list[AT_SIMD_ISAS];
    set_up();
    at_simd_list(list);
    for (int k = 0; k < AT_SIMD_ISAS; k++) {
        if (!list[k].table) {
            skip("%s: %s", list[k].name, list[k].why);
            continue;
        }
        for (size_t e = 0; e < NELEM(masks); e++)
            test_text(list[k].table, false, masks[e]);
        for (size_t e = 0; e < NELEM(score_texts); e++)
            test_text(list[k].table, true, score_texts[e]);
        test_random(list[k].table, 400);
    }
    diag("%lld scores", (long long)decided);
    return done_testing();
}
