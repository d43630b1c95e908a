/* SPDX-License-Identifier: MIT */
/* Rows of n elements as training needs them: derivatives, losses, optimisers. */
#ifndef AT_K_TRAIN_H
#define AT_K_TRAIN_H

#include "k_rows.h"

/* Elements e .. e + VL of a row, the last ones filled up. */
INLINE V load_some(const float *x, int64_t e, int64_t n)
{
    return n - e < VL ? vload_n(x + e, (int)(n - e)) : vload(x + e);
}
INLINE void store_some(float *y, int64_t e, int64_t n, V v)
{
    if (n - e < VL)
        vstore_n(y + e, v, (int)(n - e));
    else
        vstore(y + e, v);
}

static float dot_row(const float *a, const float *b, int64_t n)
{
    V sum[4] = {vzero(), vzero(), vzero(), vzero()};
    int64_t e = 0;
    for (; e + 4 * VL <= n; e += 4 * VL)
        for (int u = 0; u < 4; u++)
            sum[u] = vfma(vload(a + e + u * VL), vload(b + e + u * VL), sum[u]);
    for (; e < n; e += VL)
        sum[0] = vfma(load_some(a, e, n), load_some(b, e, n), sum[0]);
    return vsum(vadd(vadd(sum[0], sum[1]), vadd(sum[2], sum[3])));
}

static float sum_row(const float *a, int64_t n)
{
    return mean_of(a, n) * (float)n;
}

/* ---- derivatives ---- */

/* s (1 + x (1 - s)) of a gate s(by) with d by / dx = slope */
INLINE V gate_slope(V x, V by, V slope)
{
    V s = vgate(vset(1.0f), by), rest = vsub(vset(1.0f), s);
    return vmul(s, vfma(vmul(x, slope), rest, vset(1.0f)));
}
INLINE V gelu_tanh_slope(V x)
{
    V xx = vmul(x, x), c = vset(1.59576912f);
    V by = vmul(vmul(x, c), vfma(xx, vset(0.044715f), vset(1.0f)));
    return gate_slope(x, by, vmul(c, vfma(xx, vset(3 * 0.044715f), vset(1.0f))));
}
/* Phi(x) + x phi(x); Phi is gelu's, over x */
INLINE V gelu_slope(V x)
{
    VM far = vgt(vabs(x), vset(1e-4f));
    V phi = vmul(vexp(vmul(vmul(x, x), vset(-0.5f))), vset(0.398942280f));
    V near = vfma(x, vset(0.398942280f), vset(0.5f));
    V big = vsel(far, vdiv(vgelu(x), vsel(far, x, vset(1.0f))), near);
    return vfma(x, phi, big);
}

INLINE V slope(enum at_simd_function f, V x)
{
    switch (f) {
    case AT_SIMD_SILU:
        return gate_slope(x, x, vset(1.0f));
    case AT_SIMD_GELU:
        return gelu_slope(x);
    case AT_SIMD_GELU_TANH:
        return gelu_tanh_slope(x);
    case AT_SIMD_TANH: {
        V t = vtanh(x);
        return vfnma(t, t, vset(1.0f));
    }
    case AT_SIMD_SIGMOID: {
        V s = vgate(vset(1.0f), x);
        return vmul(s, vsub(vset(1.0f), s));
    }
    default:
        return vsel(vgt(x, vzero()), vset(1.0f), vzero());
    }
}

INLINE void slopes(enum at_simd_function f, float *y, const float *x, const float *dy, int64_t n)
{
    for (int64_t e = 0; e < n; e += VL)
        store_some(y, e, n, vmul(slope(f, load_some(x, e, n)), load_some(dy, e, n)));
}

static void function_grad(enum at_simd_function f, float *y, const float *x, const float *dy,
                          int64_t n)
{
    switch (f) {
    case AT_SIMD_SILU:
        slopes(AT_SIMD_SILU, y, x, dy, n);
        break;
    case AT_SIMD_GELU:
        slopes(AT_SIMD_GELU, y, x, dy, n);
        break;
    case AT_SIMD_GELU_TANH:
        slopes(AT_SIMD_GELU_TANH, y, x, dy, n);
        break;
    case AT_SIMD_TANH:
        slopes(AT_SIMD_TANH, y, x, dy, n);
        break;
    case AT_SIMD_SIGMOID:
        slopes(AT_SIMD_SIGMOID, y, x, dy, n);
        break;
    default:
        slopes(AT_SIMD_RELU, y, x, dy, n);
    }
}

static void softmax_grad(float *dx, const float *y, const float *dy, int64_t n)
{
    V sum = vset(dot_row(y, dy, n));
    for (int64_t e = 0; e < n; e += VL)
        store_some(dx, e, n, vmul(load_some(y, e, n), vsub(load_some(dy, e, n), sum)));
}

/* With z = (x - mean) by and t = dy w: dx = (t - mean t - z mean(t z)) by; dw += dy z. */
static void norm_grad(float *dx, float *dw, const float *x, const float *w, const float *dy,
                      int64_t n, float eps, int centred)
{
    float mean = centred ? mean_of(x, n) : 0.0f;
    float by = 1.0f / sqrtf(squares(x, mean, n) / (float)n + eps);
    V m = vset(mean), b = vset(by), t1 = vzero(), tz = vzero();
    for (int64_t e = 0; e < n; e += VL) {
        V z = vmul(vsub(load_some(x, e, n), m), b), g = load_some(dy, e, n);
        V t = w ? vmul(g, load_some(w, e, n)) : g;
        if (dw)
            store_some(dw, e, n, vfma(g, z, load_some(dw, e, n)));
        t1 = vadd(t1, t);
        tz = vfma(t, z, tz);
    }
    V mean_t = vset(centred ? vsum(t1) / (float)n : 0.0f), mean_tz = vset(vsum(tz) / (float)n);
    for (int64_t e = 0; e < n; e += VL) {
        V z = vmul(vsub(load_some(x, e, n), m), b), t = load_some(dy, e, n);
        t = w ? vmul(t, load_some(w, e, n)) : t;
        store_some(dx, e, n, vmul(vfnma(z, mean_tz, vsub(t, mean_t)), b));
    }
}

/* ---- losses ---- */

static float lse_row(const float *x, int64_t n)
{
    V best = vset(-INFINITY), sum = vzero();
    for (int64_t e = 0; e < n; e += VL)
        best = vmax(best, n - e < VL ? load_last(x + e, (int)(n - e), -INFINITY) : vload(x + e));
    float top = vtop(best), base = top == -INFINITY ? 0.0f : top;
    for (int64_t e = 0; e < n; e += VL)
        sum = vadd(sum,
                   vexp(vsub(n - e < VL ? load_last(x + e, (int)(n - e), -INFINITY) : vload(x + e),
                             vset(base))));
    return base + logf(vsum(sum));
}

static void exp_row(float *y, const float *x, float less, float by, int64_t n)
{
    for (int64_t e = 0; e < n; e += VL)
        store_some(y, e, n, vmul(vexp(vsub(load_some(x, e, n), vset(less))), vset(by)));
}

/* ---- optimisers ---- */

static void adamw(float *w, float *m, float *v, const float *g, int64_t n,
                  const struct at_simd_adamw *p)
{
    V b1 = vset(p->beta1), b2 = vset(p->beta2), r1 = vset(1.0f - p->beta1),
      r2 = vset(1.0f - p->beta2);
    V rate = vset(p->rate * p->first), eps = vset(p->eps), second = vset(p->second);
    V keep = vset(1.0f - p->rate * p->decay), factor = vset(p->factor);
    for (int64_t e = 0; e < n; e += VL) {
        V gi = vmul(load_some(g, e, n), factor);
        V mi = vfma(load_some(m, e, n), b1, vmul(gi, r1));
        V vi = vfma(load_some(v, e, n), b2, vmul(vmul(gi, gi), r2));
        V step = vdiv(mi, vadd(vsqrt(vmul(vi, second)), eps));
        store_some(m, e, n, mi);
        store_some(v, e, n, vi);
        store_some(w, e, n, vfnma(rate, step, vmul(load_some(w, e, n), keep)));
    }
}

#endif
