/* SPDX-License-Identifier: MIT */
/* Operators on rows of n elements: elementwise, softmax, norms, rotary positions. */
#ifndef AT_K_ROWS_H
#define AT_K_ROWS_H

#include "k_math.h"

enum unary { SILU, GELU, GELU_TANH, TANH };
enum binary { ADD, MUL, SILU_MUL };

INLINE V unary(enum unary op, V x)
{
    switch (op) {
    case SILU:
        return vsilu(x);
    case GELU:
        return vgelu(x);
    case GELU_TANH:
        return vgelu_tanh(x);
    default:
        return vtanh(x);
    }
}

INLINE V binary(enum binary op, V a, V b)
{
    switch (op) {
    case ADD:
        return vadd(a, b);
    case MUL:
        return vmul(a, b);
    default:
        return vmul(vsilu(a), b);
    }
}

INLINE void map(enum unary op, float *y, const float *x, int64_t n)
{
    int64_t e = 0;
    for (; e + VL <= n; e += VL)
        vstore(y + e, unary(op, vload(x + e)));
    if (e < n)
        vstore_n(y + e, unary(op, vload_n(x + e, (int)(n - e))), (int)(n - e));
}

INLINE void map2(enum binary op, float *y, const float *a, const float *b, int64_t n)
{
    int64_t e = 0;
    for (; e + VL <= n; e += VL)
        vstore(y + e, binary(op, vload(a + e), vload(b + e)));
    if (e < n) {
        int some = (int)(n - e);
        vstore_n(y + e, binary(op, vload_n(a + e, some), vload_n(b + e, some)), some);
    }
}

static void add(float *y, const float *a, const float *b, int64_t n)
{
    map2(ADD, y, a, b, n);
}
static void mul(float *y, const float *a, const float *b, int64_t n)
{
    map2(MUL, y, a, b, n);
}
static void silu_mul(float *y, const float *a, const float *b, int64_t n)
{
    map2(SILU_MUL, y, a, b, n);
}
static void silu(float *y, const float *x, int64_t n)
{
    map(SILU, y, x, n);
}
static void gelu(float *y, const float *x, int64_t n)
{
    map(GELU, y, x, n);
}
static void gelu_tanh(float *y, const float *x, int64_t n)
{
    map(GELU_TANH, y, x, n);
}
static void tanh_row(float *y, const float *x, int64_t n)
{
    map(TANH, y, x, n);
}

static void scale(float *y, const float *x, float by, int64_t n)
{
    scale_row(AT_ELEM_F32, y, x, by, n);
}

/* The last n < VL elements, the other lanes `fill`. */
INLINE V load_last(const float *x, int n, float fill)
{
    float t[VL];
    vstore(t, vset(fill));
    memcpy(t, x, (size_t)n * sizeof *t);
    return vload(t);
}

static void softmax(float *y, const float *x, int64_t n)
{
    int64_t whole = n / VL * VL;
    int some = (int)(n - whole);
    V best = vset(-INFINITY), sum = vzero(), last = load_last(x + whole, some, -INFINITY);
    for (int64_t e = 0; e < whole; e += VL)
        best = vmax(best, vload(x + e));
    float top = vtop(vmax(best, last));
    V m = vset(top == -INFINITY ? 0.0f : top);
    for (int64_t e = 0; e < whole; e += VL) {
        V p = vexp(vsub(vload(x + e), m));
        sum = vadd(sum, p);
        vstore(y + e, p);
    }
    last = vexp(vsub(last, m));
    float l = vsum(vadd(sum, last)), by = l == 0.0f ? 0.0f : 1.0f / l;
    vstore_n(y + whole, last, some);
    scale(y, y, by, n);
}

/* Sum of (x - mean)^2. */
static float squares(const float *x, float mean, int64_t n)
{
    V sum[4] = {vzero(), vzero(), vzero(), vzero()}, m = vset(mean);
    int64_t e = 0;
    for (; e + 4 * VL <= n; e += 4 * VL)
        for (int u = 0; u < 4; u++) {
            V c = vsub(vload(x + e + u * VL), m);
            sum[u] = vfma(c, c, sum[u]);
        }
    for (; e + VL <= n; e += VL) {
        V c = vsub(vload(x + e), m);
        sum[0] = vfma(c, c, sum[0]);
    }
    V c = vsub(load_last(x + e, (int)(n - e), mean), m);
    sum[0] = vfma(c, c, sum[0]);
    return vsum(vadd(vadd(sum[0], sum[1]), vadd(sum[2], sum[3])));
}

static float mean_of(const float *x, int64_t n)
{
    V sum = vzero();
    int64_t e = 0;
    for (; e + VL <= n; e += VL)
        sum = vadd(sum, vload(x + e));
    return vsum(vadd(sum, vload_n(x + e, (int)(n - e)))) / (float)n;
}

/* y = (x - mean) * by * w + bias */
static void norm_row(float *y, const float *x, float mean, float by, const float *w,
                     const float *bias, int64_t n)
{
    for (int64_t e = 0; e < n; e += VL) {
        int some = n - e < VL ? (int)(n - e) : VL;
        V v = some < VL ? vload_n(x + e, some) : vload(x + e);
        v = vmul(vsub(v, vset(mean)), vset(by));
        if (w)
            v = vmul(v, some < VL ? vload_n(w + e, some) : vload(w + e));
        if (bias)
            v = vadd(v, some < VL ? vload_n(bias + e, some) : vload(bias + e));
        if (some < VL)
            vstore_n(y + e, v, some);
        else
            vstore(y + e, v);
    }
}

static void rms_norm(float *y, const float *x, const float *w, int64_t n, float eps)
{
    float by = 1.0f / sqrtf(squares(x, 0.0f, n) / (float)n + eps);
    norm_row(y, x, 0.0f, by, w, NULL, n);
}

static void layer_norm(float *y, const float *x, const float *w, const float *bias, int64_t n,
                       float eps)
{
    float mean = mean_of(x, n);
    float by = 1.0f / sqrtf(squares(x, mean, n) / (float)n + eps);
    norm_row(y, x, mean, by, w, bias, n);
}

static void rope_half(float *y, const float *x, const float *cos, const float *sin, int64_t half)
{
    for (int64_t e = 0; e < half; e += VL) {
        int some = half - e < VL ? (int)(half - e) : VL;
        V c = vload_n(cos + e, 0), s = c, a = c, b = c;
        if (some == VL) {
            c = vload(cos + e), s = vload(sin + e), a = vload(x + e), b = vload(x + half + e);
            vstore(y + e, vfnma(b, s, vmul(a, c)));
            vstore(y + half + e, vfma(a, s, vmul(b, c)));
        } else {
            c = vload_n(cos + e, some), s = vload_n(sin + e, some);
            a = vload_n(x + e, some), b = vload_n(x + half + e, some);
            vstore_n(y + e, vfnma(b, s, vmul(a, c)), some);
            vstore_n(y + half + e, vfma(a, s, vmul(b, c)), some);
        }
    }
}

INLINE V turned(V x, V cos, V sin)
{
    return vfma(vswap(x), sin, vmul(x, cos));
}

static void rope_interleaved(float *y, const float *x, const float *cos, const float *sin,
                             int64_t n)
{
    int64_t e = 0;
    int some = (int)(n % VL);
    for (; e + VL <= n; e += VL)
        vstore(y + e, turned(vload(x + e), vload(cos + e), vload(sin + e)));
    if (some)
        vstore_n(y + e,
                 turned(vload_n(x + e, some), vload_n(cos + e, some), vload_n(sin + e, some)),
                 some);
}

/* Any type to a row of f32, f16 or bf16, through pieces that stay in L1. */
static void convert(void *y, enum at_elem ytype, const void *x, enum at_elem xtype, int64_t n)
{
    float piece[256];
    int64_t block = is_quantised(xtype) ? 32 : 1;
    for (int64_t e = 0; e < n; e += 256) {
        int64_t some = n - e < 256 ? n - e : 256;
        load_row(piece, xtype, (const char *)x + e / block * at_elem_size(xtype), some);
        store_row((char *)y + e * at_elem_size(ytype), ytype, piece, some);
    }
}

#endif
