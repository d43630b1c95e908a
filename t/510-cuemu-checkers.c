/* SPDX-License-Identifier: MIT */
/* Each checker of the emulator sees the mistake it is for: mistakes planted in an attention kernel
 * that NVRTC compiles, and in small kernels written here as PTX.  What is right is not reported. */
#include "emu.h"
#include "emu_flash.h"
#include "half.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- small kernels ---- */

/* The body of a kernel of two warps with parameters px (global memory, 4096 bytes, the first 2048
 * zero, the rest never written) and n; shared array s of 1024 bytes. */
struct bug {
    const char *name, *kind, *body; /* kind: "" where nothing is wrong */
};

#define THREAD "mov.u32 %r1, %tid.x; ld.param.u64 %rd1, [px];\n"
/* %r2: the address in s of this thread's word; %r3: that of the other warp's */
#define WORDS                                                                                      \
    THREAD "mov.u32 %r9, s; shl.b32 %r2, %r1, 2; add.u32 %r2, %r2, %r9;\n"                         \
           "xor.b32 %r3, %r1, 32; shl.b32 %r3, %r3, 2; add.u32 %r3, %r3, %r9;\n"
#define LANES                                                                                      \
    THREAD "mov.u32 %r9, s; shl.b32 %r2, %r1, 2; add.u32 %r2, %r2, %r9;\n"                         \
           "xor.b32 %r3, %r1, 1; shl.b32 %r3, %r3, 2; add.u32 %r3, %r3, %r9;\n"
#define KEEP "mul.wide.u32 %rd2, %r1, 4; add.u64 %rd2, %rd2, %rd1; st.global.u32 [%rd2], %r4;\n"
#define FIRST_BLOCK "mov.u32 %r5, %ctaid.x; setp.eq.u32 %p1, %r5, 0;\n"

// clang-format off
static const struct bug bugs[] = {
    {"a store past the end of global memory", "out of bounds", THREAD "st.global.u32 [%rd1+4096], %r1;"},
    {"a load before its beginning", "out of bounds", THREAD "ld.global.u32 %r4, [%rd1-4];"},
    {"a load far from any memory", "out of bounds", "mov.b64 %rd1, 64; ld.global.u32 %r4, [%rd1];"},
    {"a store past the end of shared memory", "out of bounds", WORDS "st.shared.u32 [s+1024], %r1;"},
    {"a load past the end of the parameters", "out of bounds", "ld.param.u32 %r4, [px+16];"},
    {"a load past the end of local memory", "out of bounds", "ld.local.u32 %r4, [buf+16];"},
    {"a generic address in shared memory, past its end", "out of bounds", "cvta.shared.u64 %rd2, 1022; add.u64 %rd2, %rd2, 2; ld.u32 %r4, [%rd2];"},
    {"a store to constant memory", "out of bounds", "mov.u64 %rd2, table; st.global.u32 [%rd2], 1;"},
    {"a register that was never given a value, stored", "uninitialised", THREAD "add.u32 %r4, %r8, 1; " KEEP},
    {"and one that decides a branch", "uninitialised", THREAD "setp.eq.u32 %p1, %r8, 1; @%p1 bra L; L: ret;"},
    {"and one that is an address", "uninitialised", "ld.global.u32 %r4, [%rd3];"},
    {"one that is given a value on one path only", "uninitialised", THREAD "setp.lt.u32 %p1, %r1, 8; @%p1 mov.u32 %r4, 1; " KEEP},
    {"one that is selected away", "", THREAD "setp.lt.u32 %p1, %r1, 64; selp.b32 %r4, %r1, %r8, %p1; " KEEP},
    {"global memory that nobody wrote", "uninitialised", THREAD "ld.global.u32 %r4, [%rd1+2048]; add.u32 %r4, %r4, 1; " KEEP},
    {"shared memory that nobody wrote", "uninitialised", WORDS "ld.shared.u32 %r4, [%r2]; " KEEP},
    {"local memory that nobody wrote", "uninitialised", THREAD "ld.local.u32 %r4, [buf+4]; " KEEP},
    {"an atomic on memory that nobody wrote", "uninitialised", THREAD "atom.global.add.u32 %r4, [%rd1+2048], 1;"},
    {"a vector load that is misaligned", "misaligned", THREAD "ld.global.v2.u32 {%r4, %r5}, [%rd1+4];"},
    {"a shared store that is misaligned", "misaligned", WORDS "st.shared.u32 [s+2], %r1;"},
    {"another warp's word, with no barrier", "race", WORDS "st.shared.u32 [%r2], %r1; bar.sync 0; st.shared.u32 [%r2], %r1; ld.shared.u32 %r4, [%r3]; " KEEP},
    {"another warp's word, after a barrier", "", WORDS "st.shared.u32 [%r2], %r1; bar.sync 0; ld.shared.u32 %r4, [%r3]; " KEEP},
    {"a word that another warp has still to read", "race", WORDS "st.shared.u32 [%r2], %r1; bar.sync 0; ld.shared.u32 %r4, [%r3]; st.shared.u32 [%r2], %r4; " KEEP},
    {"the same with a second barrier", "", WORDS "st.shared.u32 [%r2], %r1; bar.sync 0; ld.shared.u32 %r4, [%r3]; bar.sync 0; st.shared.u32 [%r2], %r4; " KEEP},
    {"two warps write one word", "race", WORDS "st.shared.u32 [s], %r1;"},
    {"halves of one word by two warps", "", WORDS "shr.u32 %r4, %r1, 5; shl.b32 %r4, %r4, 1; add.u32 %r4, %r4, %r9; and.b32 %r5, %r1, 31; setp.eq.u32 %p1, %r5, 0; @%p1 st.shared.b16 [%r4], 7;"},
    {"another lane's word, with no bar.warp.sync", "race", LANES "st.shared.u32 [%r2], %r1; ld.shared.u32 %r4, [%r3]; " KEEP},
    {"another lane's word, after bar.warp.sync", "", LANES "st.shared.u32 [%r2], %r1; bar.warp.sync 0xffffffff; ld.shared.u32 %r4, [%r3]; " KEEP},
    {"lanes of one store, two values", "race", THREAD "setp.lt.u32 %p1, %r1, 2; @%p1 st.shared.u32 [s], %r1;"},
    {"named barriers: one warp arrives, one waits", "", WORDS "setp.lt.u32 %p1, %r1, 32; @!%p1 bra W; st.shared.u32 [%r2], %r1; bar.arrive 1, 64; ret; W: bar.sync 1, 64; ld.shared.u32 %r4, [%r3]; " KEEP},
    {"named barriers: the one that arrives reads", "race", WORDS "setp.lt.u32 %p1, %r1, 32; @!%p1 bra W; bar.arrive 1, 64; ld.shared.u32 %r4, [%r3]; ret; W: st.shared.u32 [%r2], %r1; bar.sync 1, 64;"},
    {"atomics of two warps", "", WORDS "setp.eq.u32 %p1, %r1, 0; @%p1 st.shared.u32 [s], 0; bar.sync 0; atom.shared.add.u32 %r4, [s], 1; " KEEP},
    {"an atomic and a plain store", "race", WORDS "setp.eq.u32 %p1, %r1, 0; @%p1 st.shared.u32 [s], 0; bar.sync 0; setp.lt.u32 %p1, %r1, 32; @%p1 atom.shared.add.u32 %r4, [s], 1; @!%p1 st.shared.u32 [s], 7;"},
    {"a barrier that half a warp reaches", "convergence", THREAD "and.b32 %r4, %r1, 1; setp.eq.u32 %p1, %r4, 0; @%p1 bra L; bar.sync 0; L: bar.sync 0;"},
    {"a barrier that one warp never reaches", "deadlock", THREAD "setp.lt.u32 %p1, %r1, 32; @%p1 bar.sync 1, 64; bar.sync 2, 64;"},
    {"a barrier after the other warp has left", "", THREAD "setp.lt.u32 %p1, %r1, 32; @%p1 ret; bar.sync 0;"},
    {"a barrier of 64 where another says 32", "convergence", THREAD "setp.lt.u32 %p1, %r1, 32; @%p1 bar.sync 1, 64; @!%p1 bar.sync 1, 96;"},
    {"a shuffle of half a warp with the mask of all", "convergence", THREAD "and.b32 %r4, %r1, 1; setp.eq.u32 %p1, %r4, 0; @%p1 shfl.sync.bfly.b32 %r4|%p2, %r1, 1, 31, 0xffffffff;"},
    {"a shuffle of half a warp with its own mask", "", THREAD "and.b32 %r4, %r1, 1; setp.eq.u32 %p1, %r4, 0; @%p1 shfl.sync.bfly.b32 %r4|%p2, %r1, 2, 31, 0x55555555;"},
    {"a shuffle that reads a lane outside", "convergence", THREAD "and.b32 %r4, %r1, 1; setp.eq.u32 %p1, %r4, 0; @%p1 shfl.sync.bfly.b32 %r4|%p2, %r1, 1, 31, 0x55555555;"},
    {"a vote by a lane outside its mask", "convergence", THREAD "setp.eq.u32 %p1, %r1, 0; vote.sync.ballot.b32 %r4, %p1, 0x0000ffff;"},
    {"an asynchronous copy that nobody waited for", "async", WORDS "cp.async.ca.shared.global [%r2], [%rd1], 4; cp.async.commit_group; ld.shared.u32 %r4, [%r2]; " KEEP},
    {"waited for, but committed by none", "async", WORDS "cp.async.ca.shared.global [%r2], [%rd1], 4; cp.async.wait_group 0; ld.shared.u32 %r4, [%r2]; " KEEP},
    {"one group too many left", "async", WORDS "cp.async.ca.shared.global [%r2], [%rd1], 4; cp.async.commit_group; cp.async.wait_group 1; ld.shared.u32 %r4, [%r2]; " KEEP},
    {"waited for", "", WORDS "cp.async.ca.shared.global [%r2], [%rd1], 4; cp.async.commit_group; cp.async.wait_group 0; ld.shared.u32 %r4, [%r2]; " KEEP},
    {"another warp's copy, waited for by that warp alone", "race", WORDS "cp.async.ca.shared.global [%r2], [%rd1], 4; cp.async.commit_group; setp.lt.u32 %p1, %r1, 32; @%p1 bra R; cp.async.wait_group 0; ret; R: cp.async.wait_all; bar.sync 3, 32; ld.shared.u32 %r4, [%r2]; ld.shared.u32 %r4, [%r3];"},
    {"two copies to one place", "async", WORDS "cp.async.ca.shared.global [%r2], [%rd1], 4; cp.async.ca.shared.global [%r2], [%rd1+4], 4; cp.async.wait_all;"},
    {"a copy from memory that ends", "out of bounds", WORDS "cp.async.cg.shared.global [s], [%rd1+4096], 16;"},
    {"a copy of nothing from there fills zeros", "", WORDS "cp.async.ca.shared.global [%r2], [%rd1+4096], 4, 0; cp.async.wait_all; ld.shared.u32 %r4, [%r2]; " KEEP},
    {"two blocks write one word", "race between blocks", THREAD "st.global.u32 [%rd1], 1;"},
    {"a block reads what another writes", "race between blocks", THREAD FIRST_BLOCK "@%p1 st.global.u32 [%rd1], 1; @!%p1 ld.global.u32 %r4, [%rd1];"},
    {"sums of two blocks by atomics", "", THREAD "red.global.add.u32 [%rd1], 1;"},
    {"the last block reads, told by an atomic after a fence", "", THREAD "mul.wide.u32 %rd2, %r1, 4; add.u64 %rd2, %rd2, %rd1; mov.u32 %r5, %ctaid.x; mul.wide.u32 %rd3, %r5, 512; add.u64 %rd2, %rd2, %rd3; st.global.u32 [%rd2+512], %r1; membar.gl; bar.sync 0; setp.eq.u32 %p1, %r1, 0; @!%p1 ret; atom.global.add.u32 %r4, [%rd1], 1; setp.eq.u32 %p1, %r4, 1; @!%p1 ret; ld.global.u32 %r6, [%rd1+512]; ld.global.u32 %r7, [%rd1+1024]; st.global.u32 [%rd1+4], %r6;"},
    {"the same without the fence", "race between blocks", THREAD "mul.wide.u32 %rd2, %r1, 4; add.u64 %rd2, %rd2, %rd1; mov.u32 %r5, %ctaid.x; mul.wide.u32 %rd3, %r5, 512; add.u64 %rd2, %rd2, %rd3; st.global.u32 [%rd2+512], %r1; bar.sync 0; setp.eq.u32 %p1, %r1, 0; @!%p1 ret; atom.global.add.u32 %r4, [%rd1], 1; setp.eq.u32 %p1, %r4, 1; @!%p1 ret; ld.global.u32 %r6, [%rd1+512]; ld.global.u32 %r7, [%rd1+1024];"},
    {"a loop without an end", "deadlock", "L: bra L;"},
    {"trap", "trap", "trap;"},
    {"mma by half a warp", "convergence", THREAD "mov.u32 %r4, 0; mov.f32 %f1, 0f00000000; setp.lt.u32 %p1, %r1, 48; @%p1 mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%f1, %f2, %f3, %f4}, {%r4, %r4}, {%r4}, {%f1, %f1, %f1, %f1};"},
    {"an undefined fragment of mma", "uninitialised", "mov.u32 %r4, 0; mov.f32 %f1, 0f00000000; mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%f1, %f2, %f3, %f4}, {%r4, %r8}, {%r4}, {%f1, %f1, %f1, %f1};"},
};
// clang-format on

static char *bug_text(const struct bug *b)
{
    size_t size = strlen(b->body) + 600;
    char *text = malloc(size);
    if (!text)
        bail("no memory");
    snprintf(text, size,
             ".version 8.0\n.target sm_80\n.address_size 64\n.const .align 4 .b8 table[4] = {1};\n"
             ".visible .entry k(.param .u64 px, .param .u64 n)\n{\n.reg .pred %%p<4>; .reg .b32 "
             "%%r<12>; "
             ".reg .b64 %%rd<8>; .reg .f32 %%f<8>;\n.shared .align 16 .b8 s[1024];\n"
             ".local .align 4 .b8 buf[16];\n%s\nret;\n}\n",
             b->body);
    return text;
}

static void test_bug(const struct bug *b)
{
    emu_open(80);
    char *text = bug_text(b);
    cu_module m = emu_load(text, NULL);
    cu_deviceptr x = emu_alloc(4096);
    emu_cu.set8(x, 0, 2048, NULL);
    uint64_t n = 0;
    void *args[] = {&x, &n};
    bool blocks = !strcmp(b->kind, "race between blocks") || strstr(b->name, "block");
    cu_result r = m ? emu_run(emu_function(m, "k"), blocks ? 2 : 1, 64, 0, args) : -1;
    bool good = *b->kind ? r > 0 && emu_reports() == 1 && !strcmp(emu_kind(), b->kind)
                         : r == 0 && emu_reports() == 0;
    if (*b->kind ? !ok(good, "%s: %s", b->kind, b->name) : !ok(good, "fine: %s", b->name))
        diag("status %d, %d reports: %s: %s", r, emu_reports(), emu_kind(), emu_report());
    free(text);
}

/* ---- an attention kernel ---- */

#define S 100
#define D 64

static double uniform(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (double)(*seed >> 40) * 0x1p-23 - 1;
}

/* Attention in doubles over the f16 inputs. */
static void reference(const uint16_t *q, const uint16_t *k, const uint16_t *v, double *o)
{
    for (int i = 0; i < S; i++) {
        double score[S], sum = 0, top = -1e30;
        for (int j = 0; j < S; j++) {
            double dot = 0;
            for (int d = 0; d < D; d++)
                dot +=
                    (double)at_half_to_float(q[i * D + d]) * (double)at_half_to_float(k[j * D + d]);
            score[j] = dot / 8;
            top = fmax(top, score[j]);
        }
        memset(o + i * D, 0, D * sizeof *o);
        for (int j = 0; j < S; j++) {
            double p = exp(score[j] - top);
            sum += p;
            for (int d = 0; d < D; d++)
                o[i * D + d] += p * (double)at_half_to_float(v[j * D + d]);
        }
        for (int d = 0; d < D; d++)
            o[i * D + d] /= sum;
    }
}

static uint16_t q[S * D], k[S * D], v[S * D];
static double want[S * D];

static char *flash_ptx(const struct at_nvrtc *c, const char *arch, int bug)
{
    char define[16], target[40];
    snprintf(define, sizeof define, "-DBUG=%d", bug);
    snprintf(target, sizeof target, "--gpu-architecture=compute_%s", arch);
    const char *options[] = {target, "-lineinfo", define, NULL};
    return emu_compile(c, emu_flash_text, options);
}

/* The largest difference, or a negative status. */
static double run_flash(const char *ptx)
{
    static float o[S * D];
    cu_module m = emu_load(ptx, NULL);
    cu_deviceptr dq = emu_upload(q, sizeof q), dk = emu_upload(k, sizeof k),
                 dv = emu_upload(v, sizeof v), out = emu_alloc(sizeof o);
    int n = S;
    float scale = 0.125f * 1.44269504f;
    void *args[] = {&dq, &dk, &dv, &out, &n, &scale};
    cu_result r = emu_run(emu_function(m, "flash"), (S + 63) / 64, 128, 0, args);
    double worst = 0;
    if (r || emu_download(o, out, sizeof o))
        return -1;
    for (int i = 0; i < S * D; i++)
        worst = fabs((double)o[i] - want[i]) <= worst ? worst : fabs((double)o[i] - want[i]);
    return worst;
}

/* P is rounded to f16 (2^-11 relative), so is nothing else that matters; |V| <= 1. */
#define BOUND 0x1p-10

static void test_right(const struct at_nvrtc *c)
{
    static const char *const modes[] = {"lazy", "eager"};
    char *ptx = flash_ptx(c, "80", 0);
    for (int mode = 0; mode < 2; mode++) {
        for (int seed = 0; seed < 3; seed++) {
            char text[16];
            snprintf(text, sizeof text, "%d", seed);
            emu_open(80);
            emu_set("CUEMU_ASYNC", modes[mode]);
            emu_set("CUEMU_SCHED", text);
            double worst = run_flash(ptx);
            if (!ok(worst >= 0 && worst <= BOUND && !emu_reports(),
                    "attention, %s, order %d: off by %.1e", modes[mode], seed, worst))
                diag("%s", emu_report());
        }
    }
    is_int((int64_t)emu_stat("mma"), 2 * 4 * 2 * 64,
           "mma instructions: 2 blocks, 4 warps, 2 tiles of 64");
    is_int((int64_t)emu_stat("mma_flops"), 2 * 4 * 2 * 64 * 4096, "their operations");
    emu_set("CUEMU_ASYNC", "lazy");
    emu_set("CUEMU_SCHED", "0");
    free(ptx);
}

static void test_planted(const struct at_nvrtc *c)
{
    static const struct {
        const char *name, *kind, *source;
    } list[] = {
        {"no barrier after the last use of a tile", "race",          "test.cu:"},
        {"no barrier after the wait",               "race",          "test.cu:"},
        {"one group of copies too many left",       "async",         "test.cu:"},
        {"rows past the end are stored",            "out of bounds", "test.cu:"},
        {"rows past the end are loaded",            "out of bounds", "test.cu:"},
        {"shared addresses 8 bytes off",            "misaligned",    "test.cu:"},
        {"fragments of B exchanged",                "numbers",       ""        },
        {"a barrier for half a warp",               "convergence",   "test.cu:"},
        {"rows of a tile that nobody loads",        "uninitialised", "test.cu:"},
        {"a shuffle in half of the lanes",          "convergence",   "test.cu:"},
    };
    for (int i = 0; i < (int)NELEM(list); i++) {
        emu_open(80);
        char *ptx = flash_ptx(c, "80", i + 1);
        double worst = run_flash(ptx);
        bool numbers = !strcmp(list[i].kind, "numbers");
        bool seen = numbers ? worst > 8 * BOUND
                            : emu_reports() == 1 && !strcmp(emu_kind(), list[i].kind) &&
                                  strstr(emu_report(), list[i].source) &&
                                  strstr(emu_report(), "PTX line");
        if (!ok(seen, "planted: %s (%s)", list[i].name, list[i].kind))
            diag("off by %g, %d reports: %s: %s", worst, emu_reports(), emu_kind(), emu_report());
        free(ptx);
    }
}

/* Without the swizzle the numbers are right and the banks conflict. */
static void test_conflicts(const struct at_nvrtc *c)
{
    char *with = flash_ptx(c, "80", 0), *without = flash_ptx(c, "80", 11);
    emu_open(80);
    ok(run_flash(with) >= 0, "with the swizzle");
    unsigned long long good = emu_stat("wavefronts"), ideal = emu_stat("wavefronts_ideal");
    double worst = run_flash(without);
    unsigned long long bad = emu_stat("wavefronts");
    ok(worst >= 0 && worst <= BOUND, "without it the numbers are right");
    is_int((int64_t)good, (int64_t)ideal, "with it no bank conflicts");
    ok(bad > 4 * ideal, "without it %llu wavefronts, not %llu", bad, ideal);
    free(with);
    free(without);
}

int main(void)
{
    const char *why;
    uint64_t seed = 1;
    emu_open(80);
    emu_set("CUEMU_LIMIT", "20000000");
    for (size_t i = 0; i < NELEM(bugs); i++)
        test_bug(&bugs[i]);
    const struct at_nvrtc *c = emu_nvrtc(&why);
    if (c) {
        for (int i = 0; i < S * D; i++) {
            q[i] = at_half_from_float((float)uniform(&seed));
            k[i] = at_half_from_float((float)uniform(&seed));
            v[i] = at_half_from_float((float)uniform(&seed));
        }
        reference(q, k, v, want);
        test_right(c);
        test_planted(c);
        test_conflicts(c);
    } else {
        skip("%s", why);
    }
    return done_testing();
}
