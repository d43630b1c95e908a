/* SPDX-License-Identifier: MIT */
/* What the kernels for CPUs share: vectors of AT_LANES floats, a tile of 6 columns by two vectors of rows
 * that stays in registers, and rows of tensors as f32. */
#if AT_LANES == 16
typedef float16 at_vec;
typedef int16 at_ivec;
#define at_vget(i, p) vload16(i, p)
#define at_vput(x, i, p) vstore16(x, i, p)
#define at_iget(i, p) vload16(i, p)
#define at_vec_bits(x) as_float16(x)
#define at_bits_vec(x) as_int16(x)
#else
typedef float8 at_vec;
typedef int8 at_ivec;
#define at_vget(i, p) vload8(i, p)
#define at_vput(x, i, p) vstore8(x, i, p)
#define at_iget(i, p) vload8(i, p)
#define at_vec_bits(x) as_float8(x)
#define at_bits_vec(x) as_int8(x)
#endif
#define AT_STRIP (2 * AT_LANES) /* rows of a tile */
#define AT_TILE 6               /* its columns */
#define AT_VMAX(a, b) ((a) > (b) ? (a) : (b)) /* b where one is NaN: one instruction, unlike fmax */

/* z += a[t][AT_STRIP] b[t bt + column bx] over t < nt. */
#define AT_TILE_STEP(k, bx)                                                                            \
    u = (at_vec)(p[k * bx]);                                                                       \
    z##k##0 = fma(a0, u, z##k##0);                                                                 \
    z##k##1 = fma(a1, u, z##k##1);
#define AT_TILE_LOOP(a, b, bx, bt, nt)                                                             \
    for (int t = 0; t < nt; t++) {                                                                 \
        at_vec a0 = at_vget(2 * t, a), a1 = at_vget(2 * t + 1, a), u;                              \
        const float *p = b + t * bt;                                                               \
        AT_TILE_STEP(0, bx)                                                                            \
        AT_TILE_STEP(1, bx)                                                                            \
        AT_TILE_STEP(2, bx)                                                                            \
        AT_TILE_STEP(3, bx)                                                                            \
        AT_TILE_STEP(4, bx)                                                                            \
        AT_TILE_STEP(5, bx)                                                                            \
    }
#define AT_TILE_FROM(x0, x1)                                                                       \
    at_vec z00 = x0, z01 = x1, z10 = x0, z11 = x1, z20 = x0, z21 = x1, z30 = x0, z31 = x1,         \
           z40 = x0, z41 = x1, z50 = x0, z51 = x1
#define AT_TILE_PUT(k, out)                                                                        \
    at_vput(z##k##0, 2 * k, out);                                                                  \
    at_vput(z##k##1, 2 * k + 1, out);

/* out[6][AT_STRIP] = the tile. */
AT_FN void at_tile(float *out, at_vec zero, const float *a, const float *b, int bx, int bt, int nt)
{
    AT_TILE_FROM(zero, zero);
    AT_TILE_LOOP(a, b, bx, bt, nt)
    AT_TILE_PUT(0, out)
    AT_TILE_PUT(1, out)
    AT_TILE_PUT(2, out)
    AT_TILE_PUT(3, out)
    AT_TILE_PUT(4, out)
    AT_TILE_PUT(5, out)
}

/* out = out by + the tile. */
#define AT_TILE_GET(k)                                                                             \
    z##k##0 = at_vget(2 * k, out) * by0;                                                           \
    z##k##1 = at_vget(2 * k + 1, out) * by1;
AT_FN void at_tile_add(float *out, at_vec by0, at_vec by1, const float *a, const float *b, int bx,
                       int bt, int nt)
{
    AT_TILE_FROM(by0, by1);
    AT_TILE_GET(0)
    AT_TILE_GET(1)
    AT_TILE_GET(2)
    AT_TILE_GET(3)
    AT_TILE_GET(4)
    AT_TILE_GET(5)
    AT_TILE_LOOP(a, b, bx, bt, nt)
    AT_TILE_PUT(0, out)
    AT_TILE_PUT(1, out)
    AT_TILE_PUT(2, out)
    AT_TILE_PUT(3, out)
    AT_TILE_PUT(4, out)
    AT_TILE_PUT(5, out)
}

/* 2^x for x <= 24 or so, at least 2^-126; NaN stays.  As simd/k_math.h has it. */
AT_FN at_vec at_vexp2(at_vec x)
{
    at_vec t = AT_VMAX((at_vec)(-126.0f), x), whole = t + 12582912.0f, f = t - (whole - 12582912.0f);
    at_vec p = fma(f, (at_vec)(1.5403513e-4f), (at_vec)(1.3390735e-3f));
    p = fma(p, f, (at_vec)(9.6182375e-3f));
    p = fma(p, f, (at_vec)(5.5503574e-2f));
    p = fma(p, f, (at_vec)(0.24022650f));
    p = fma(p, f, (at_vec)(0.69314719f));
    p = fma(p, f, (at_vec)(1.0f));
    return at_vec_bits(at_bits_vec(p) + (at_bits_vec(whole) << 23));
}

AT_FN at_vec at_vexp2_or_0(at_vec x) /* 0 where it would be less than 2^-126 */
{
    return x < -126.0f ? (at_vec)(0.0f) : at_vexp2(x);
}

AT_FN at_vec at_vweight(at_vec x) /* -0 for a hidden key */
{
    return x == -AT_INF ? (at_vec)(-0.0f) : at_vexp2_or_0(x);
}

AT_FN float at_vsum(at_vec x)
{
#if AT_LANES == 16
    float8 y = x.lo + x.hi;
#else
    float8 y = x;
#endif
    float4 z = y.lo + y.hi;
    return (z.x + z.z) + (z.y + z.w);
}

/* Columns [from, from + n) of a row that begins at element, or block, number `at`, times by; from is a
 * multiple of 32. */
AT_FN void at_stage(float *to, AT_GLOBAL const uchar *p, at_i64 at, int from, int n, int type, float by)
{
    int d = 0;
    if (type == AT_F32) {
        AT_GLOBAL const float *x = (AT_GLOBAL const float *)p + at + from;
        for (; d + 16 <= n; d += 16)
            vstore16(vload16(0, x + d) * by, 0, to + d);
    } else if (type == AT_F16) {
        AT_GLOBAL const half *x = (AT_GLOBAL const half *)p + at + from;
        for (; d + 16 <= n; d += 16)
            vstore16(vload_half16(0, x + d) * by, 0, to + d);
    } else if (type == AT_BF16) {
        AT_GLOBAL const ushort *x = (AT_GLOBAL const ushort *)p + at + from;
        for (; d + 16 <= n; d += 16)
            vstore16(as_float16(convert_uint16(vload16(0, x + d)) << 16) * by, 0, to + d);
    } else if (type == AT_Q8_0) {
        for (; d + 32 <= n; d += 32) {
            AT_GLOBAL const uchar *b = p + (at + (from + d) / 32) * 34;
            AT_GLOBAL const char *q = (AT_GLOBAL const char *)b + 2;
            float unit = at_half(b, 0) * by;
            vstore16(convert_float16(vload16(0, q)) * unit, 0, to + d);
            vstore16(convert_float16(vload16(1, q)) * unit, 0, to + d + 16);
        }
    } else if (type == AT_Q4_0 || type == AT_Q4_1) {
        for (; d + 32 <= n; d += 32) {
            AT_GLOBAL const uchar *b = p + (at + (from + d) / 32) * (type == AT_Q4_0 ? 18 : 20);
            uchar16 q = vload16(0, b + (type == AT_Q4_0 ? 2 : 4));
            float unit = at_half(b, 0) * by, low = type == AT_Q4_0 ? -8.0f * unit : at_half(b, 1) * by;
            vstore16(fma(convert_float16(q & (uchar16)(15)), (float16)(unit), (float16)(low)), 0, to + d);
            vstore16(fma(convert_float16(q >> (uchar16)(4)), (float16)(unit), (float16)(low)), 0, to + d + 16);
        }
    }
    for (; d < n; d++)
        to[d] = at_channel(p, at, from + d, type) * by;
}

AT_FN int at_has_odd(const float *v, int n) /* is one not finite? */
{
    at_ivec top = 0;
    int k, odd;
    for (k = 0; k + AT_LANES <= n; k += AT_LANES) {
        at_ivec bits = at_bits_vec(at_vget(0, v + k)) & 0x7fffffff;
        top = AT_VMAX(bits, top);
    }
    odd = any(top >= 0x7f800000);
    for (; k < n; k++)
        odd |= !(fabs(v[k]) < AT_INF);
    return odd;
}
