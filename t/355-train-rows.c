/* SPDX-License-Identifier: MIT */
/* The rows of training against double, at lengths around those of vectors: sums, derivatives,
 * gradients of softmax and norms, AdamW.  Bounds, u = 2^-24: a sum of n products is off by (n + 4)
 * u of the sum of their magnitudes; the functions by a few ulp of what they are made of, which are
 * at most 3 here. */
#include "kernel.h"

#include <math.h>

enum { MOST = 300 };
static const int lengths[] = {1, 2, 7, 8, 15, 16, 17, 33, 64, 100, MOST};

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

static double slope(enum at_simd_function f, double x)
{
    double t, u;
    switch (f) {
    case AT_SIMD_SILU:
        return sigmoid(x) * (1 + x * (1 - sigmoid(x)));
    case AT_SIMD_GELU:
        return 0.5 * erfc(-x * sqrt(0.5)) + x * exp(-x * x / 2) * 0.39894228040143267794;
    case AT_SIMD_GELU_TANH:
        u = 0.79788456080286535588 * (x + 0.044715 * x * x * x), t = tanh(u);
        return 0.5 * (1 + t) +
               0.5 * x * (1 - t * t) * 0.79788456080286535588 * (1 + 3 * 0.044715 * x * x);
    case AT_SIMD_TANH:
        return 1 - tanh(x) * tanh(x);
    case AT_SIMD_SIGMOID:
        return sigmoid(x) * (1 - sigmoid(x));
    default:
        return x > 0;
    }
}

static void fill(float *x, int n, double size)
{
    for (int e = 0; e < n; e++)
        x[e] = (float)uniform(-size, size);
}

static float a[MOST], b[MOST], w[MOST];

static void test_sums(const struct at_simd *t, int n)
{
    struct worst sums = {0}, powers = {0};
    double dot = 0, dots = 0, sum = 0, size = 0, most = 0, lse = 0;
    float *y = taken_floats(n);
    for (int e = 0; e < n; e++) {
        dot += (double)a[e] * (double)b[e];
        dots += fabs((double)a[e] * (double)b[e]);
        sum += (double)a[e];
        size += fabs((double)a[e]);
        lse += exp((double)a[e]);
        most = fmax(most, fabs((double)a[e]));
    }
    compare(&sums, (double)t->dot(a, b, n), dot, (n + 4) * UNIT * dots, 0, 0);
    compare(&sums, (double)t->sum(a, n), sum, (n + 8) * UNIT * size, 1, 0);
    compare(&sums, (double)t->lse(a, n), log(lse), (n + 16) * UNIT * (1 + most), 2, 0);
    is_close(&sums, "%s, %d: dot, sum, lse", t->name, n);
    t->exp(y, a, 0.5f, 2, n);
    for (int e = 0; e < n; e++) {
        double want = 2 * exp((double)a[e] - 0.5);
        compare(&powers, (double)y[e], want, 12 * UNIT * want * (1 + most), e, 0);
    }
    is_close(&powers, "%s, %d: exp", t->name, n);
    ok(released(y, 0), "%s, %d: nothing beside", t->name, n);
}

static void test_slopes(const struct at_simd *t, int n)
{
    static const char *const names[] = {"silu", "gelu", "gelu_tanh", "tanh", "sigmoid", "relu"};
    for (int f = 0; f < AT_SIMD_FUNCTIONS; f++) {
        struct worst worst = {0};
        float *y = taken_floats(n);
        t->function_grad((enum at_simd_function)f, y, a, b, n);
        for (int e = 0; e < n; e++) {
            double want = slope((enum at_simd_function)f, (double)a[e]) * (double)b[e];
            compare(&worst, (double)y[e], want, 64 * UNIT * fabs((double)b[e]) + 1e-38, e, 0);
        }
        is_close(&worst, "%s, %d: slope of %s", t->name, n, names[f]);
        ok(released(y, 0), "%s, %d: nothing beside", t->name, n);
    }
}

static void test_softmax(const struct at_simd *t, int n)
{
    struct worst worst = {0};
    float *dx = taken_floats(n), p[MOST] = {0};
    double sum = 0, dot = 0, size = 0;
    for (int e = 0; e < n; e++)
        sum += exp((double)a[e]);
    for (int e = 0; e < n; e++) {
        p[e] = (float)(exp((double)a[e]) / sum);
        dot += (double)p[e] * (double)b[e];
        size += fabs((double)p[e] * (double)b[e]);
    }
    t->softmax_grad(dx, p, b, n);
    for (int e = 0; e < n; e++) {
        double want = (double)p[e] * ((double)b[e] - dot);
        compare(&worst, (double)dx[e], want,
                (n + 6) * UNIT * (double)p[e] * (fabs((double)b[e]) + size) + 1e-38, e, 0);
    }
    is_close(&worst, "%s, %d: softmax", t->name, n);
    ok(released(dx, 0), "%s, %d: nothing beside", t->name, n);
}

/* t - mean t - z mean(t z) over d; each mean is a sum of n terms, z at most sqrt n. */
static void test_norm(const struct at_simd *t, int n, int centred)
{
    struct worst worst = {0}, weights = {0};
    float *dx = taken_floats(n), *dw = taken_floats(n);
    double mean = 0, square = 0, t1 = 0, tz = 0, most = 0;
    for (int e = 0; e < n; e++)
        mean += centred ? (double)a[e] / n : 0;
    for (int e = 0; e < n; e++)
        square += ((double)a[e] - mean) * ((double)a[e] - mean) / n;
    double d = sqrt(square + (double)1e-3f);
    for (int e = 0; e < n; e++) {
        double z = ((double)a[e] - mean) / d, g = (double)b[e] * (double)w[e];
        t1 += centred ? g / n : 0;
        tz += g * z / n;
        most = fmax(most, fabs(g) * (1 + fabs(z)));
        dw[e] = 1;
    }
    t->norm_grad(dx, dw, a, w, b, n, 1e-3f, centred);
    for (int e = 0; e < n; e++) {
        double z = ((double)a[e] - mean) / d, g = (double)b[e] * (double)w[e];
        compare(&worst, (double)dx[e], (g - t1 - z * tz) / d,
                (3 * n + 40) * UNIT * most * (1 + fabs(z)) / d * (1 + most), e, 0);
        compare(&weights, (double)dw[e], 1 + (double)b[e] * z,
                (n + 20) * UNIT * (1 + fabs((double)b[e]) * (3 / d + fabs(z))), e, 0);
    }
    is_close(&worst, "%s, %d: gradient of %s", t->name, n, centred ? "layer_norm" : "rms_norm");
    is_close(&weights, "%s, %d: and of its weights", t->name, n);
    ok(released(dx, 0) && released(dw, 0), "%s, %d: nothing beside", t->name, n);
}

static void test_adamw(const struct at_simd *t, int n)
{
    struct worst worst = {0};
    const struct at_simd_adamw p = {.rate = 0.1f,
                                    .decay = 0.01f,
                                    .beta1 = 0.9f,
                                    .beta2 = 0.99f,
                                    .eps = 1e-8f,
                                    .first = 2,
                                    .second = 3,
                                    .factor = 0.5f};
    float *wt = taken_floats(n), *m = taken_floats(n), *v = taken_floats(n);
    for (int e = 0; e < n; e++) {
        wt[e] = w[e];
        m[e] = 0.1f * b[e];
        v[e] = 0.01f + b[e] * b[e];
    }
    t->adamw(wt, m, v, a, n, &p);
    for (int e = 0; e < n; e++) {
        double g = 0.5 * (double)a[e], b1 = (double)0.9f, b2 = (double)0.99f;
        double mt = b1 * (double)(0.1f * b[e]) + (1 - b1) * g;
        double vt = b2 * (double)(0.01f + b[e] * b[e]) + (1 - b2) * g * g;
        double step = mt * 2 / (sqrt(vt * 3) + 1e-8) + (double)0.01f * (double)w[e];
        /* 1 - beta in f32 is off by 2^-24 of 1 */
        compare(&worst, (double)m[e], mt, 8 * UNIT * 3, e, 0);
        compare(&worst, (double)v[e], vt, 8 * UNIT * 10, e, 1);
        compare(&worst, (double)wt[e], (double)w[e] - (double)0.1f * step,
                64 * UNIT * (fabs((double)w[e]) + fabs(step)) + 1e-7, e, 2);
    }
    is_close(&worst, "%s, %d: adamw", t->name, n);
    ok(released(wt, 0) && released(m, 0) && released(v, 0), "%s, %d: nothing beside", t->name, n);
}

static void test_isa(const struct at_simd *t)
{
    for (size_t k = 0; k < sizeof lengths / sizeof *lengths; k++) {
        int n = lengths[k];
        fill(a, n, 3);
        fill(b, n, 3);
        fill(w, n, 2);
        test_sums(t, n);
        test_slopes(t, n);
        test_softmax(t, n);
        test_norm(t, n, 0);
        test_norm(t, n, 1);
        test_adamw(t, n);
    }
}

int main(void)
{
    each_isa(test_isa);
    return done_testing();
}
