/* SPDX-License-Identifier: MIT */
/* Expressions as C text, compiled and run by the compiler that is here, against the reference
 * evaluation; and derivatives against differences. */
#include "expr_random.h"
#include "tap.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { POINTS = 40, COUNT = 40 };

static int32_t ids[] = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8};
static float bias[] = {0.5f, -1.5f, 2.25f, -0.125f, 3.0f};
static int64_t large[] = {INT64_MAX, -5000000000, 7, INT64_MIN};
static const struct at_view views[] = {
    {.type = ATTEND_I32, .rank = 1, .shape = {12}, .stride = {1}, .data = ids  },
    {.type = ATTEND_I64, .rank = 1, .shape = {4},  .stride = {1}, .data = large},
    {.type = ATTEND_F32, .rank = 1, .shape = {5},  .stride = {1}, .data = bias },
};
static const char *const names[] = {"ids", "large", "bias"};
static const struct at_expr_box box = {
    .b = {0, 1 },
      .h = {0, 3 },
      .i = {0, 20},
      .j = {0, 20},
      .sq = {0, 21},
      .skv = {0, 21}
};

static struct at_expr_point point(int k)
{
    return (struct at_expr_point){.score = 0.37 * k - 5,
                                  .b = k % 2,
                                  .h = k % 4,
                                  .i = k * 7 % 21,
                                  .j = k * 5 % 21,
                                  .sq = 21,
                                  .skv = 20,
                                  .capture = views};
}

static void prepare(struct at_expr *x, bool score)
{
    at_expr_init(x, score);
    for (int c = 0; c < (score ? 3 : 2); c++)
        if (at_expr_add_capture(x, names[c], views[c].type, 1, NULL, 0) < 0)
            bail("capture");
}

/* ---- text ---- */

static const char head[] =
    "#include <math.h>\n"
    "#include <stdio.h>\n"
    "static const int ids[] = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8};\n"
    "static const float bias[] = {0.5f, -1.5f, 2.25f, -0.125f, 3.0f};\n"
    "static const long long large[] = {9223372036854775807, -5000000000, 7,\n"
    "                                  -9223372036854775807 - 1};\n"
    "static inline int at_load_ids(long long e)\n"
    "{ return e < 0 || e >= 12 ? 0 : ids[e]; }\n"
    "static inline float at_load_bias(long long e)\n"
    "{ return e < 0 || e >= 5 ? 0 : bias[e]; }\n"
    "static inline long long at_load_large(long long e)\n"
    "{ return e < 0 || e >= 4 ? 0 : large[e]; }\n";

static void add_function(struct at_str *s, const struct at_expr *x, int k)
{
    at_str_add(s, "static %s f%d(float score, int b, int h, int i, int j, int sq, int skv)\n{\n",
               x->score ? "float" : "int", k);
    at_expr_print(x, AT_EXPR_C, &box, s);
    at_str_add(s, "}\n");
}

static void add_main(struct at_str *s, int n)
{
    at_str_add(s, "int main(void)\n{\n    for (int k = 0; k < %d; k++) {\n", POINTS);
    for (int k = 0; k < n; k++)
        at_str_add(s,
                   "        printf(\"%%a\\n\", (double)f%d((float)(0.37 * k - 5), k %% 2, k %% 4, "
                   "k * 7 %% 21, k * 5 %% 21, 21, 20));\n",
                   k);
    at_str_add(s, "    }\n    return 0;\n}\n");
}

/* Compiles and runs the text; a stream of what it prints, or NULL where there is no compiler. */
static FILE *run(const char *text, char *name, size_t size)
{
    char command[1024];
    snprintf(name, size, "./expr-code-XXXXXX");
    int fd = mkstemp(name);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "w");
    if (!f || fputs(text, f) < 0 || fclose(f) != 0)
        bail("cannot write %s", name);
    snprintf(command, sizeof command,
             "cc -x c -std=gnu11 -O1 -w -ffp-contract=off -o '%s.run' '%s' -lm 2>/dev/null", name,
             name);
    int status = system(command);
    snprintf(command, sizeof command, "'%s.run'", name);
    return status == 0 ? popen(command, "r") : NULL;
}

static void compare(FILE *out, const struct at_expr *x, int n)
{
    int wrong = 0;
    for (int k = 0; k < POINTS; k++)
        for (int e = 0; e < n; e++) {
            struct at_expr_point p = point(k);
            double error, got;
            p.score = (double)(float)p.score;
            double want = at_expr_eval(&x[e], &p, &error);
            if (fscanf(out, "%la", &got) != 1)
                bail("the compiled text printed too little");
            bool good = x[e].score ? isnan(want) || !(fabs(got - want) > error + 1e-6 * fabs(want))
                                   : (got != 0) == (want != 0);
            if (!good && wrong++ < 3)
                diag("expression %d at point %d: %.9g, wants %.9g within %g", e, k, got, want,
                     error);
        }
    is_int(wrong, 0, "%d expressions as C at %d points", n, POINTS);
}

static void test_text(void)
{
    static struct at_expr x[COUNT];
    static const char *const fixed[] = {
        "large[h] * 3 > large[b] - 1", "large[h] / (h - 2) % 1000 == 0",
        "-large[h] < abs(large[b])",   "(i - j) / (h - 2) > 1 || (i - j) % -3 == -1",
        "i * 2147483647 * 3 - j < 0",
    };
    struct at_str s = {0};
    uint64_t seed = 17;
    char name[256], err[512];
    int n = 0;
    at_str_add(&s, "%s", head);
    at_expr_print_prelude(AT_EXPR_C, &s);
    for (int tries = 0; n < COUNT && tries < 10 * COUNT; tries++) {
        struct at_str text = {0};
        bool score = n % 2 && n >= (int)NELEM(fixed);
        prepare(&x[n], score);
        if (n < (int)NELEM(fixed))
            at_str_add(&text, "%s", fixed[n]);
        else
            (score ? expr_random_score : expr_random_mask)(&x[n], &seed, 3, &text);
        if (at_expr_parse(&x[n], text.text, err, sizeof err) == 0) {
            add_function(&s, &x[n], n);
            n++;
        }
        free(text.text);
    }
    add_main(&s, n);
    FILE *out = run(s.text, name, sizeof name);
    if (out) {
        compare(out, x, n);
        pclose(out);
    } else {
        skip("no compiler to compile the text with");
    }
    remove(name);
    strncat(name, ".run", sizeof name - strlen(name) - 1);
    remove(name);
    free(s.text);
}

static void test_dialects(void)
{
    struct at_expr x;
    struct at_str s = {0};
    prepare(&x, true);
    if (at_expr_parse(&x, "i > j ? tanh(score) + bias[i - j] : -inf", NULL, 0) < 0)
        bail("an expression");
    at_expr_print(&x, AT_EXPR_OPENCL, &box, &s);
    is_str(s.text,
           "    int t0 = i;\n    int t1 = j;\n    int t2 = t1 < t0;\n    float t3 = score;\n"
           "    float t4 = tanh(t3);\n    int t5 = t0 - t1;\n    float t6 = at_load_bias(t5);\n"
           "    float t7 = t4 + t6;\n    float t8 = -INFINITY;\n    float t9 = t2 ? t7 : t8;\n"
           "    return t9;\n",
           "as OpenCL C");
    free(s.text);
    s = (struct at_str){0};
    at_expr_print(&x, AT_EXPR_CUDA, &box, &s);
    ok(strstr(s.text, "tanhf(t3)") && strstr(s.text, "-__int_as_float(0x7f800000)"), "as CUDA C++");
    free(s.text);
}

/* ---- derivatives ---- */

static const char *const smooth[] = {
    "score",
    "3",
    "score * score - 2 * score",
    "exp(score / 4)",
    "tanh(score) * 3",
    "log(score*score + 1)",
    "sqrt(score * score + 1)",
    "1 / (score * score + 2)",
    "abs(score)",
    "min(score, 2) + max(score * 2, 1)",
    "i > j ? score * i : j - score",
    "floor(score)",
    "-score + bias[h] * score",
    "tanh(score / 30) * 30 + bias[h] * bias[h]",
};

static void test_score_derivative(void)
{
    for (size_t e = 0; e < NELEM(smooth); e++) {
        struct at_expr x, d;
        double worst = 0;
        prepare(&x, true);
        if (at_expr_parse(&x, smooth[e], NULL, 0) < 0)
            bail("%s", smooth[e]);
        int wrt = -1;
        for (int k = 0; k < x.n; k++)
            wrt = x.node[k].op == AT_X_SCORE ? k : wrt;
        is_int(at_expr_derivative(&x, wrt, &d), 0, "d(%s)", smooth[e]);
        for (int k = 0; k < POINTS; k++) {
            struct at_expr_point p = point(k), low = p, high = p;
            p.score += 0.0312; /* off the corners */
            low.score = p.score - 1e-5;
            high.score = p.score + 1e-5;
            double slope = (at_expr_eval(&x, &high, NULL) - at_expr_eval(&x, &low, NULL)) / 2e-5;
            worst = fmax(worst, fabs(slope - at_expr_eval(&d, &p, NULL)));
        }
        ok(worst < 1e-5, "it is the slope: off by %g", worst);
    }
}

static void test_load_derivative(void)
{
    struct at_expr x, d;
    prepare(&x, true);
    if (at_expr_parse(&x, "score * bias[h] + tanh(bias[h]) + bias[b]", NULL, 0) < 0)
        bail("an expression");
    is_int(x.nload, 2, "two loads");
    is_int(at_expr_derivative(&x, x.load[0], &d), 0, "by bias[h]");
    struct at_expr_point p = point(6);
    double t = tanh(2.25);
    is_float(at_expr_eval(&d, &p, NULL), p.score + 1 - t * t, 1e-12, "score + 1 - tanh^2");
    is_int(at_expr_derivative(&x, x.load[1], &d), 0, "by bias[b]");
    is_float(at_expr_eval(&d, &p, NULL), 1, 0, "1");
}

int main(void)
{
    test_text();
    test_dialects();
    test_score_derivative();
    test_load_derivative();
    return done_testing();
}
