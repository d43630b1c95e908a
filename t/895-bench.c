/* SPDX-License-Identifier: MIT */
/* The program: `attend bench`.  Times are the machine's; what can be wrong is what they are divided
 * by: operations and bytes, counted here by hand. */
#include "attend.h"
#include "program.h"
#include "tap.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FOLDER "895-bench.tmp"
#define ONCE "--reps 1 --threads 1 --json "

/* The number after "key": in what the program said; -1 where there is none. */
static double number(const char *key)
{
    char quoted[40];
    snprintf(quoted, sizeof quoted, "\"%s\": ", key);
    const char *at = strstr(program_out, quoted);
    return at ? strtod(at + strlen(quoted), NULL) : -1;
}

static void counts(const char *args, double flops, double bytes)
{
    is_int(program_run("bench " ONCE "%s", args), 0, "bench %s", args);
    is_int((long long)number("flops"), (long long)flops, "operations");
    is_int((long long)number("bytes"), (long long)bytes, "bytes");
    ok(number("us") > 0 && number("gflops") > 0, "a time and a speed");
}

static void test_counts(void)
{
    counts("I", 4.0 * 4 * 16 * 16 * 32, 4.0 * 4 * 16 * 32 * 4);
    counts("attention:f32:b2h6g3q5k7d8v4", 2.0 * 2 * 6 * 5 * 7 * (8 + 4),
           4.0 * (2 * 6 * 5 + 2 * 3 * 7) * (8 + 4));
    counts("attention:f32:b1h1g1q6k6d1:causal-br", 4.0 * 21, 4.0 * 24);
    counts("attention:f32:b1h1g1q6k9d1:causal-br:w2_0", 4.0 * 18, 4.0 * (12 + 2 * 8));
    counts("attention:f32:b1h2g1q1k8d32 --kv-type q8_0", 4.0 * 2 * 8 * 32, 4.0 * 128 + 2 * 8 * 34);
}

static void write_file(const char *name, int64_t heads, int64_t rows, int64_t channels)
{
    float x[3 * 8 * 4] = {0};
    char path[60], err[200];
    attend_array a = {.type = ATTEND_F32,
                      .shape = ATTEND_SHAPE(1, heads, rows, channels),
                      .data = x,
                      .bytes = heads * rows * channels * (int64_t)sizeof *x};
    snprintf(path, sizeof path, FOLDER "/%s", name);
    if (attend_npy_write(path, &a, err, sizeof err) < 0)
        bail("%s", err);
}

#define FILES "--q q.npy --k k.npy --v k.npy "

static void test_files(void)
{
    write_file("q.npy", 2, 3, 4);
    write_file("k.npy", 1, 8, 4);
    counts(FILES, 4.0 * 2 * 3 * 8 * 4, 4.0 * (2 * 2 * 3 * 4 + 2 * 8 * 4));
    counts(FILES "--causal --align top-left", 4.0 * 2 * (1 + 2 + 3) * 4,
           4.0 * (2 * 2 * 3 * 4 + 2 * 3 * 4));
    counts(FILES "--mask-expr 'j % 2 == 0'", 4.0 * 2 * 3 * 4 * 4,
           4.0 * (2 * 2 * 3 * 4 + 2 * 8 * 4));
    counts("attention:f32:b1h1g1q6k6d1 --causal --align top-left", 4.0 * 21, 4.0 * 24);
    program_left("k.npy q.npy ");
    program_run("bench I --mask q.npy");
    program_said(2, "attend bench: --mask is for tensors from files: --q, --k and --v");
    program_run("bench I " FILES);
    program_said(2, "attend bench: what is \"I\"? Files follow flags, such as --q");
}

static void test_ceilings(void)
{
    program_run("bench " ONCE "--device simd I");
    ok(number("peak_gflops") > 0 && number("read_gbs") > 0, "a CPU's ceilings are measured");
    ok(number("one_thread_gflops") > 0, "and those of each instruction set");
    ok(number("call_us") > 0 && number("bind_call_us") >= number("call_us"),
       "what a call costs, and with a bind");
    program_run("bench --reps 2 --threads 2 --json --scaling I");
    ok(number("speedup") > 0 && number("peak_speedup") > 0, "--scaling");
    program_run("bench " ONCE "--device ref I");
    ok(number("us") > 0 && number("of_peak") == 0, "the reference has no ceilings");
}

static void test_names(void)
{
    is_int(program_run("bench --list"), 0, "--list");
    ok(strstr(program_out, "E32768 ") && strstr(program_out, "\nI "), "has the shapes");
    is_int(program_run("bench --reps 1 --threads 1 I --kv-type f32,q4_0"), 0, "two types");
    ok(strstr(program_out, " f32 ") && strstr(program_out, " q4_0 "), "have a line each");
    program_run("bench X");
    program_said(2, "attend bench: there is no shape \"X\"; --list has them, and a problem such as "
                    "attention:f32:b1h8g8q128k128d64 will do");
    program_run("bench I --kv-type f16,i7");
    program_said(2, "attend bench: --kv-type: \"i7\" is not one of f32, f16, bf16, q8_0, q4_0");
    program_run("bench I --dtype q8_0");
    program_said(2, "attend bench: --dtype: \"q8_0\" is not one of f32, f16, bf16");
    program_run("bench I --threads 2 --clock cpu");
    program_said(2, "attend bench: --clock cpu needs --threads 1: threads add up their time");
    program_run("bench I --reps 0");
    program_said(2, "attend bench: --reps: \"0\" is not a number from 1 to 99");
}

int main(void)
{
    program_init(FOLDER);
    test_counts();
    test_files();
    test_ceilings();
    test_names();
    program_fini();
    return done_testing();
}
