/* SPDX-License-Identifier: MIT */
/* Block formats: what lib/quant.c stores, and that every instruction set reads the same values. */
#include "kernel.h"

/* Largest error allowed by a block's own scale: half a step, and what rounding the scale (2^-11)
 * and the minimum to f16 takes from the ends. */
static double bound_of(enum at_elem type, const float *x, int64_t n)
{
    double low = INFINITY, top = -INFINITY, big = 0;
    for (int64_t e = 0; e < n; e++) {
        low = fmin(low, x[e]);
        top = fmax(top, x[e]);
        big = fmax(big, fabs(x[e]));
    }
    if (n < 32)
        low = fmin(low, 0), top = fmax(top, 0);
    double step = type == AT_ELEM_Q8_0   ? big / 127
                  : type == AT_ELEM_Q4_0 ? big / 8 * 2 /* one end has a step less */
                                         : (top - low) / 15;
    return 0.5 * step + big * 0x1p-10 +
           0x1p-24 * 127; /* a scale under 2^-14 is a multiple of 2^-24 */
}

static void test_errors(enum at_elem type)
{
    struct worst w = {0};
    float x[100], back[100];
    char row[4 * 100];
    for (int round = 0; round < 2000; round++) {
        int64_t n = 1 + pick(100);
        double size = exp2(uniform(-20, 12)), mean = round % 3 ? 0 : uniform(-3, 3) * size;
        for (int64_t e = 0; e < n; e++)
            back[e] = x[e] = (float)(uniform(-size, size) + mean);
        store_elems(row, type, back, n);
        for (int64_t e = 0; e < n; e++) {
            int64_t b = e / 32 * 32;
            compare(&w, back[e], x[e], bound_of(type, x + b, n - b < 32 ? n - b : 32), round, e);
        }
    }
    is_close(&w, "%s: within half a step (%.2f of the bound)", elem_name[type], w.share);
    x[40] = NAN;
    memcpy(back, x, sizeof x);
    store_elems(row, type, back, 64);
    bool good = true;
    for (int e = 0; e < 64; e++)
        good &= (isnan(back[e]) != 0) == (e >= 32);
    ok(good, "%s: NaN takes its block and no other", elem_name[type]);
    memset(x, 0, sizeof x);
    store_elems(row, type, x, 32);
    ok(x[0] == 0 && x[31] == 0, "%s: zeros", elem_name[type]);
}

static void test_layout(void)
{
    struct at_q4_0 a = {0x3c00, {0x21}};
    struct at_q4_1 b = {0x4000, 0xbc00, {0xf3}};
    struct at_q8_0 c = {
        0x3800, {-128, 127}
    };
    float x[32];
    at_quant_from_q4_0(x, &a, 32);
    ok(x[0] == -7 && x[16] == -6 && x[1] == -8, "q4_0: low nibbles first, less 8");
    at_quant_from_q4_1(x, &b, 32);
    ok(x[0] == 5 && x[16] == 29 && x[1] == -1, "q4_1: scale and minimum");
    at_quant_from_q8_0(x, &c, 32);
    ok(x[0] == -64 && x[1] == 63.5f, "q8_0: signed");
    ok(sizeof a == 18 && sizeof b == 20 && sizeof c == 34 && at_elem_size(AT_ELEM_Q4_0) == 18 &&
           at_elem_size(AT_ELEM_Q4_1) == 20 && at_elem_size(AT_ELEM_Q8_0) == 34,
       "sizes of blocks");
}

static void test_small_floats(void)
{
    ok(at_half_from_float(1.0f) == 0x3c00 && at_half_from_float(65519.0f) == 0x7bff &&
           at_half_from_float(65520.0f) == 0x7c00 && at_half_from_float(-0x1p-25f) == 0x8000 &&
           at_half_from_float(0x1.8p-25f) == 1 && at_half_from_float(0x1.ffcp-15f) == 0x3ff + 1,
       "f16 rounds to nearest at both ends");
    ok(isnan(at_half_to_float(at_half_from_float(at_float_from_bits(0x7f800001)))) &&
           isnan(at_bf16_to_float(at_bf16_from_float(at_float_from_bits(0xff800001)))),
       "NaN with a low payload stays NaN");
    ok(at_e4m3_to_float(0x38) == 1 && at_e4m3_to_float(0x7e) == 448 &&
           at_e4m3_to_float(0x81) == -0x1p-9f && at_e4m3_to_float(0x08) == 0x1p-6f &&
           isnan(at_e4m3_to_float(0xff)),
       "e4m3");
}

/* Random blocks of any bits; a NaN or infinite scale among them. */
static void test_read(const struct at_simd *t, enum at_elem type)
{
    enum { BLOCKS = 40 };
    int64_t size = at_elem_size(type), n = BLOCKS * 32 - 5;
    char *row = taken(BLOCKS * size, 2);
    float *want = taken_floats(n), *got = taken_floats(n);
    struct worst w = {0};
    for (int64_t e = 0; e < BLOCKS * size; e++)
        row[e] = (char)pick(256);
    for (int64_t b = 0; b < BLOCKS; b++) { /* moderate scales, but for the first */
        uint16_t d = at_half_from_float((float)uniform(-2, 2));
        if (b)
            memcpy(row + b * size, &d, 2);
        if (b && type == AT_ELEM_Q4_1)
            memcpy(row + b * size + 2, &d, 2);
    }
    memcpy(row, "\x00\x7e\x00\x7e", 4);
    switch (type) {
    case AT_ELEM_Q8_0:
        at_quant_from_q8_0(want, (const void *)row, n);
        break;
    case AT_ELEM_Q4_0:
        at_quant_from_q4_0(want, (const void *)row, n);
        break;
    default:
        at_quant_from_q4_1(want, (const void *)row, n);
    }
    t->convert(got, AT_ELEM_F32, row, type, n);
    for (int64_t e = 0; e < n; e++) /* 2 * 128 is the largest product; fused or not */
        compare(&w, got[e], want[e], type == AT_ELEM_Q4_1 ? 64 * UNIT : 1e-40, e, 0);
    is_close(&w, "%s: reads %s as quant.c does", t->name, elem_name[type]);
    ok(released(row, 2) & released(want, 0) & released(got, 0), "%s: nothing written around",
       t->name);
}

static void test_isa(const struct at_simd *t)
{
    for (int type = AT_ELEM_Q8_0; type < AT_ELEM_COUNT; type++)
        test_read(t, (enum at_elem)type);
}

int main(void)
{
    test_small_floats();
    test_layout();
    for (int type = AT_ELEM_Q8_0; type < AT_ELEM_COUNT; type++)
        test_errors((enum at_elem)type);
    each_isa(test_isa);
    return done_testing();
}
