/* SPDX-License-Identifier: MIT */
/* What every kernel stands on: the list of instruction sets, exp2, conversions of all small floats.
 */
#include "attend.h"
#include "env.h"
#include "kernel.h"
#include "setenv.h"

#include <stdio.h>

static const float ln_2 = 0.693147182f; /* a unit of score is worth one power of two */

/* softmax_step of a panel whose reference is 0 stores 2^score. */
static void test_exp2(const struct at_simd *t)
{
    int64_t n = t->rows_per_panel, keys = t->keys_per_block;
    float *st = taken_floats(at_simd_block_floats(t));
    float *state = taken_floats(at_simd_state_floats(t, 1));
    double *x = malloc((size_t)(n * keys) * sizeof *x);
    struct worst w = {0};
    for (int round = 0; round < 8; round++) {
        memset(state, 0, (size_t)at_simd_state_floats(t, 1) * 4);
        for (int64_t r = 0; r < n; r++)
            state[n + r] = 1.0f; /* l: something was seen, so that the reference stays 0 */
        for (int64_t e = 0; e < n * keys; e++)
            x[e] = st[e] = (float)(round ? uniform(-126, 24) : uniform(-2, 2));
        st[0] = (float)(x[0] = 0);
        t->softmax_step(st, 0, keys, state, 1, ln_2);
        for (int64_t e = 0; e < n * keys; e++)
            compare(&w, st[e], exp2(x[e]), 2 * 0x1p-23 * exp2(floor(x[e])), e, round);
    }
    is_close(&w, "%s: exp2 within 2 ulp", t->name);
    diag("%s: worst exp2 error %.2f ulp", t->name, 2 * w.share);

    memset(state, 0, (size_t)at_simd_state_floats(t, 1) * 4);
    for (int64_t r = 0; r < n; r++)
        state[n + r] = 1.0f;
    static const float in[] = {0, 1, -1, 23, -126, -127, -1e30f, -INFINITY, NAN, INFINITY};
    for (size_t e = 0; e < NELEM(in); e++)
        for (int64_t r = 0; r < n; r++)
            st[e * (size_t)n + (size_t)r] = r == (int64_t)e % n || e < 8 ? in[e] : 0;
    t->softmax_step(st, 0, 8, state, 1, ln_2);
    bool good = true;
    static const float out[] = {1, 2, 0.5f, 0x1p23f, 0x1p-126f, 0, 0, -0.0f};
    for (size_t e = 0; e < 8; e++)
        for (int64_t r = 0; r < n; r++)
            good &= st[e * (size_t)n + (size_t)r] == out[e];
    good &= signbit(st[7 * n]) && !signbit(st[6 * n]);
    ok(good, "%s: exp2 of whole numbers is exact, far below 0 is 0, hidden is -0", t->name);
    ok(released(st, 0) & released(state, 0), "%s: nothing written around", t->name);
    free(x);
}

static void test_convert(const struct at_simd *t)
{
    enum { COUNT = 65536 };
    uint16_t *h = malloc(COUNT * 2), *back = malloc(COUNT * 2);
    float *f = malloc(COUNT * 4);
    for (int type = AT_ELEM_F16; type <= AT_ELEM_BF16; type++) {
        int bad = 0, bad_back = 0, bad_round = 0;
        for (int e = 0; e < COUNT; e++)
            h[e] = (uint16_t)e;
        t->convert(f, AT_ELEM_F32, h, (enum at_elem)type, COUNT);
        t->convert(back, (enum at_elem)type, f, AT_ELEM_F32, COUNT);
        for (int e = 0; e < COUNT; e++) {
            float want = type == AT_ELEM_F16 ? at_half_to_float(h[e]) : at_bf16_to_float(h[e]);
            bad += isnan(want) ? !isnan(f[e]) : at_float_bits(f[e]) != at_float_bits(want);
            bad_back += !isnan(want) && back[e] != h[e];
        }
        is_int(bad, 0, "%s: every %s to f32", t->name, elem_name[type]);
        is_int(bad_back, 0, "%s: and back", t->name);
        for (int e = 0; e < COUNT; e++) { /* all exponents; ties and their neighbours */
            uint32_t bits = (uint32_t)uniform(0, 0x1p32);
            f[e] =
                at_float_from_bits(e % 4 ? bits : (bits & 0xffff8000) | (bits & 0x1000) | (e & 4));
        }
        t->convert(back, (enum at_elem)type, f, AT_ELEM_F32, COUNT);
        for (int e = 0; e < COUNT; e++) {
            uint16_t want =
                type == AT_ELEM_F16 ? at_half_from_float(f[e]) : at_bf16_from_float(f[e]);
            float value =
                type == AT_ELEM_F16 ? at_half_to_float(back[e]) : at_bf16_to_float(back[e]);
            bad_round += isnan(f[e]) ? !isnan(value) : back[e] != want;
        }
        is_int(bad_round, 0, "%s: f32 to %s rounds to nearest, NaN stays", t->name,
               elem_name[type]);
    }
    free(h), free(back), free(f);
}

/* What benchmarks take for the machine's ceilings. */
static void test_probes(const struct at_simd *t)
{
    float sink[64] = {0};
    uint32_t bits[64 + 7], all = 0, got = 0;
    int64_t once = t->probe_fma(sink, 1);
    ok(once > 0 && t->probe_fma(sink, 10) == 10 * once, "%s: multiply-adds are counted", t->name);
    ok(isfinite(sink[0]) && sink[0] > 0, "%s: and done", t->name);
    int n = (64 + 7) / t->vl * t->vl; /* whole vectors */
    for (int e = 0; e < 64 + 7; e++)
        bits[e] = e % 9 == 0 ? 1u << e % 31 : 0;
    for (int e = 0; e < n; e++)
        all |= bits[e];
    memset(sink, 0, sizeof sink);
    t->probe_read(sink, bits, sizeof bits);
    for (int e = 0; e < t->vl; e++)
        got |= at_float_bits(sink[e]);
    is_int(got, all, "%s: every whole vector is read", t->name);
}

static void test_isa(const struct at_simd *t)
{
    diag("%s: vectors of %d, panels of %d rows, tiles of %d keys", t->name, t->vl,
         t->rows_per_panel, t->keys_per_tile);
    ok(t->keys_per_block % 48 == 0 && t->rows_per_panel % t->vl == 0, "%s: sizes", t->name);
    ok(at_simd_find(t->name) == t, "%s: found by name", t->name);
    test_exp2(t);
    test_convert(t);
    test_probes(t);
}

static void keep_line(void *arg, const char *line)
{
    snprintf(arg, 256, "%s", line);
}

/* A slip in the name must not turn into another instruction set without a word. */
static void test_unknown(void)
{
    const char *was = at_env(AT_ENV_ISA);
    char *kept = was ? strdup(was) : NULL, said[256] = "";
    attend_ctx *ctx = NULL;
    attend_ctx_opts opts;
    attend_ctx_opts_init(&opts);
    opts.threads = 1;
    opts.log = keep_line;
    opts.log_arg = said;
    setenv("ATTEND_ISA", "avx3", 1);
    is_int(attend_ctx_new(&opts, &ctx), ATTEND_EINVAL, "ATTEND_ISA=avx3 is refused");
    ok(strstr(said, "'avx3'") && strstr(said, "avx512"), "with what it may be");
    diag("%s", said);
    ok(!strcmp(at_simd_best()->name, "scalar"), "and masks every set but the lowest");
    setenv("ATTEND_ISA", "scalar", 1);
    ok(!at_simd_unknown(), "ATTEND_ISA=scalar is known");
    if (kept)
        setenv("ATTEND_ISA", kept, 1);
    else
        unsetenv("ATTEND_ISA");
    free(kept);
}

int main(void)
{
    test_unknown();
    ok(at_simd_best() != NULL, "there is always a table");
    ok(at_simd_find("no such thing") == NULL, "an unknown name is not found");
    each_isa(test_isa);
    return done_testing();
}
