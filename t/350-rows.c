/* SPDX-License-Identifier: MIT */
/* Operators on rows against double, at lengths around the vectors', off alignment, in place too.
 *
 * Bounds, u = 2^-24.  Elementwise: so many u of the result, given with each, where exponentials add
 * the rounding of their argument, u |argument|, relative.  Softmax of n: exp's 6 u and argument,
 * and n u for the sum.  Norms: n + 8 roundings of sums of positive terms, halved by the root, and
 * the mean's n u of mean |x|. */
/* What f32 gave beside what double says is the point here. */
#pragma GCC diagnostic ignored "-Wdouble-promotion"

#include "kernel.h"

static const int64_t lengths[] = {1,  2,  3,  4,  5,  7,  8,   9,   15,  16,
                                  17, 31, 33, 63, 64, 65, 127, 576, 1000};

static double silu(double x)
{
    return x / (1 + exp(-x));
}
static double gelu(double x)
{
    return 0.5 * x * erfc(-x / sqrt(2));
}
static double gelu_tanh(double x)
{
    double u = sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x);
    return x / (1 + exp(-2 * u));
}

struct unary {
    const char *name;
    double (*want)(double);
    double ulps, argument; /* the exponential's argument is at most `argument` * x^2 + 2 |x| */
};
static const struct unary unaries[] = {
    {"silu",      silu,      12, 0  },
    {"gelu",      gelu,      16, 0.5},
    {"gelu_tanh", gelu_tanh, 16, 1  },
    {"tanh",      tanh,      12, 0  },
};

static void call(const struct at_simd *t, size_t which, float *y, const float *x, int64_t n)
{
    (which == 0 ? t->silu : which == 1 ? t->gelu : which == 2 ? t->gelu_tanh : t->tanh)(y, x, n);
}

static void test_unary(const struct at_simd *t, size_t which)
{
    const struct unary *u = &unaries[which];
    struct worst w = {0};
    bool clean = true;
    for (size_t k = 0; k < NELEM(lengths); k++)
        for (int size = 0; size < 4; size++) {
            static const double sizes[] = {1e-4, 1, 6, 60};
            int64_t n = lengths[k];
            float *x = taken(n * 4, 4), *y = taken(n * 4, 8);
            for (int64_t e = 0; e < n; e++)
                x[e] = (float)uniform(-sizes[size], sizes[size]);
            call(t, which, y, x, n);
            for (int64_t e = 0; e < n; e++) {
                double want = u->want(x[e]), argument = u->argument * x[e] * x[e] + 2 * fabs(x[e]);
                double bound = (u->ulps + 3 * fmin(argument, 200)) * UNIT * fabs(want);
                compare(&w, y[e], want, bound + 1e-36, (int64_t)k, e);
            }
            clean &= released(x, 4) & released(y, 8);
        }
    is_close(&w, "%s: %s (%.2f of its bound)", t->name, u->name, w.share);
    float x[] = {0, -0.0f, NAN, INFINITY, -INFINITY, 1e30f, -1e30f, 88, -88, -104}, y[10];
    call(t, which, y, x, 10);
    bool tanh_row = u->want == tanh;
    ok(y[0] == 0 && y[1] == 0 && isnan(y[2]) && y[3] == (tanh_row ? 1 : INFINITY) &&
           y[5] == (tanh_row ? 1 : 1e30f) && (tanh_row ? y[4] == -1 && y[6] == -1 : y[6] == 0) &&
           y[7] == (tanh_row ? 1 : 88) && fabsf(y[8]) <= 1 && (tanh_row || fabsf(y[9]) < 1e-36f),
       "%s: %s of zeros, NaN, infinities and the far ends", t->name, u->name);
    ok(clean, "%s: %s: nothing written around", t->name, u->name);
}

static void test_elementwise(const struct at_simd *t)
{
    struct worst w = {0};
    bool clean = true;
    for (size_t k = 0; k < NELEM(lengths); k++) {
        int64_t n = lengths[k];
        float *a = taken(n * 4, 4), *b = taken(n * 4, 12), *y = taken(n * 4, 8);
        for (int64_t e = 0; e < n; e++)
            a[e] = (float)uniform(-4, 4), b[e] = (float)uniform(-4, 4);
        t->add(y, a, b, n);
        for (int64_t e = 0; e < n; e++)
            compare(&w, y[e], a[e] + b[e], 1e-40, n, e);
        t->mul(y, a, b, n);
        for (int64_t e = 0; e < n; e++)
            compare(&w, y[e], a[e] * b[e], 1e-40, n, e);
        t->scale(y, a, 0.3f, n);
        for (int64_t e = 0; e < n; e++)
            compare(&w, y[e], a[e] * 0.3f, 1e-40, n, e);
        t->silu_mul(y, a, b, n);
        for (int64_t e = 0; e < n; e++)
            compare(&w, y[e], silu(a[e]) * b[e], 40 * UNIT * fabs(silu(a[e]) * b[e]), n, e);
        memcpy(y, a, (size_t)n * 4);
        t->add(y, y, b, n); /* in place */
        for (int64_t e = 0; e < n; e++)
            compare(&w, y[e], a[e] + b[e], 1e-40, n, e);
        clean &= released(a, 4) & released(b, 12) & released(y, 8);
    }
    is_close(&w, "%s: add, mul, scale, silu_mul", t->name);
    ok(clean, "%s: nothing written around", t->name);
}

static void test_softmax(const struct at_simd *t)
{
    struct worst w = {0};
    bool clean = true, hidden = true;
    for (size_t k = 0; k < NELEM(lengths); k++) {
        int64_t n = lengths[k];
        float *x = taken(n * 4, 4), *y = taken(n * 4, 8);
        double sum = 0, top = -INFINITY;
        for (int64_t e = 0; e < n; e++) {
            x[e] = e % 5 == 4 ? -INFINITY : (float)uniform(-30, 30);
            top = fmax(top, x[e]);
        }
        for (int64_t e = 0; e < n; e++)
            sum += exp(x[e] - top);
        t->softmax(y, x, n);
        for (int64_t e = 0; e < n; e++) {
            double want = exp(x[e] - top) / sum;
            double share = (8 + 2 * 60 * 1.45 + (double)n) * UNIT;
            compare(&w, y[e], want, share * want + 1e-37, n, e);
            hidden &= x[e] > -INFINITY || y[e] == 0;
            x[e] = -INFINITY;
        }
        t->softmax(x, x, n); /* in place; nothing visible */
        for (int64_t e = 0; e < n; e++)
            hidden &= x[e] == 0;
        x[n / 2] = NAN;
        t->softmax(y, x, n);
        hidden &= isnan(y[0]) && isnan(y[n - 1]);
        clean &= released(x, 4) & released(y, 8);
    }
    is_close(&w, "%s: softmax", t->name);
    ok(hidden, "%s: -inf gives 0, a row of it zeros, NaN a row of NaN", t->name);
    ok(clean, "%s: nothing written around", t->name);
}

static void test_norms(const struct at_simd *t)
{
    struct worst rms = {0}, layer = {0};
    bool clean = true;
    for (size_t k = 0; k < NELEM(lengths); k++) {
        int64_t n = lengths[k];
        float *x = taken(n * 4, 4), *y = taken(n * 4, 8), *g = taken(n * 4, 12),
              *b = taken(n * 4, 4);
        double sq = 0, mean = 0, var = 0, size = 0, share = 0.5 * (double)(n + 12) * UNIT;
        for (int64_t e = 0; e < n; e++) {
            x[e] = (float)(uniform(-2, 2) + (k % 2 ? 3 : 0));
            g[e] = (float)uniform(-1, 1), b[e] = (float)uniform(-1, 1);
            sq += (double)x[e] * x[e];
            mean += x[e];
            size += fabs(x[e]);
        }
        mean /= (double)n;
        for (int64_t e = 0; e < n; e++)
            var += (x[e] - mean) * (x[e] - mean);
        double by = 1 / sqrt(sq / (double)n + 1e-5), lby = 1 / sqrt(var / (double)n + 1e-5);
        double moved = ((double)n + 2) * UNIT * size / (double)n; /* error of the mean */
        t->rms_norm(y, x, g, n, 1e-5f);
        for (int64_t e = 0; e < n; e++)
            compare(&rms, y[e], x[e] * by * g[e],
                    (share + 4 * UNIT) * fabs(x[e] * by * g[e]) + 1e-37, n, e);
        t->rms_norm(y, x, NULL, n, 1e-5f);
        for (int64_t e = 0; e < n; e++)
            compare(&rms, y[e], x[e] * by, (share + 4 * UNIT) * fabs(x[e] * by) + 1e-37, n, e);
        t->layer_norm(y, x, g, b, n, 1e-5f);
        for (int64_t e = 0; e < n; e++) {
            double z = (x[e] - mean) * lby, want = z * g[e] + b[e];
            double bound = (share + moved * moved * lby * lby + 6 * UNIT) * fabs(z * g[e]) +
                           (moved + UNIT * fabs(x[e])) * lby * fabs(g[e]) + UNIT * fabs(want);
            compare(&layer, y[e], want, bound + 1e-37, n, e);
        }
        clean &= released(x, 4) & released(y, 8) & released(g, 12) & released(b, 4);
    }
    is_close(&rms, "%s: rms_norm", t->name);
    is_close(&layer, "%s: layer_norm", t->name);
    ok(clean, "%s: nothing written around", t->name);
}

/* Pairs (i, i + half), or (2i, 2i + 1), whose cosines and sines are an element's. */
static void test_rope(const struct at_simd *t)
{
    struct worst w = {0};
    bool clean = true;
    for (size_t k = 0; k < NELEM(lengths); k++) {
        int64_t half = lengths[k], n = 2 * half;
        float *x = taken(n * 4, 4), *y = taken(n * 4, 8), *c = taken(half * 4, 12),
              *s = taken(half * 4, 4), *each_c = taken(n * 4, 8), *each_s = taken(n * 4, 12);
        for (int64_t e = 0; e < n; e++) {
            x[e] = (float)uniform(-2, 2);
            c[e / 2] = each_c[e] = (float)cos((double)(e / 2));
            s[e / 2] = (float)sin((double)(e / 2));
            each_s[e] = e % 2 ? s[e / 2] : -s[e / 2];
        }
        for (int pairs = 0; pairs < 4; pairs++) { /* half, interleaved; then both in place */
            int64_t far = pairs % 2 ? 1 : half, step = pairs % 2 ? 2 : 1;
            memcpy(y, x, (size_t)n * 4);
            if (pairs % 2)
                t->rope_interleaved(y, pairs < 2 ? x : y, each_c, each_s, n);
            else
                t->rope_half(y, pairs < 2 ? x : y, c, s, half);
            for (int64_t e = 0; e < half; e++) {
                double a = x[e * step], b = x[e * step + far];
                double size = 2 * UNIT * (fabs(a) + fabs(b)) + 1e-37;
                compare(&w, y[e * step], a * c[e] - b * s[e], size, n, e);
                compare(&w, y[e * step + far], b * c[e] + a * s[e], size, n, e + half);
            }
        }
        clean &= released(x, 4) & released(y, 8) & released(c, 12) & released(s, 4) &
                 released(each_c, 8) & released(each_s, 12);
    }
    is_close(&w, "%s: rope, both pairings", t->name);
    ok(clean, "%s: nothing written around", t->name);
}

static void test_isa(const struct at_simd *t)
{
    for (size_t n = 0; n < NELEM(unaries); n++)
        test_unary(t, n);
    test_elementwise(t);
    test_softmax(t);
    test_norms(t);
    test_rope(t);
}

int main(void)
{
    each_isa(test_isa);
    return done_testing();
}
