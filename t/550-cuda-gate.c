/* SPDX-License-Identifier: MIT */
/* The compile gate: NVRTC, with the ptxas in it, makes a cubin of each program that CUDA devices
 * are asked for most, for each architecture.  Nothing spills; registers, shared memory and the
 * stack (arrays that are indexed: they are in memory) stay within the budgets of
 * t/cuda-budgets.txt; the register file holds a block.  First the gate itself is tried, on logs
 * with spills.
 *
 * Arguments: architectures, names of variants, or "all"; without, sm_90 and only what heads of 64
 * channels run on most. -oFILE: a table of what was measured, to be checked in where a change is
 * meant. */
#include "cuda.h"
#include "emu.h"
#include "variants.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST 1000

/* What an SM has.  From the CUDA programming guide's table of technical specifications. */
static const struct arch {
    int cc, threads, blocks, shared; /* KiB */
} archs[] = {
    {75,  1024, 16, 64 },
    {80,  2048, 32, 164},
    {86,  1536, 16, 100},
    {89,  1536, 24, 100},
    {90,  2048, 32, 228},
    {100, 2048, 32, 228},
    {120, 1536, 24, 100},
};
#define REGISTERS 65536 /* of an SM */

struct use {
    char variant[32], kernel[32];
    int cc, threads, registers, shared, stack, spills;
};

static struct use budget[MOST];
static int nbudget;
static int budget_major, budget_minor; /* the NVRTC whose ptxas the budgets are of */
static bool other_compiler;            /* registers are another matter there; spills are not */
static FILE *table;

static void read_budgets(void)
{
    char line[200];
    FILE *f = fopen(BUDGETS, "r");
    if (!f)
        bail("%s cannot be read", BUDGETS);
    while (fgets(line, sizeof line, f) && nbudget < MOST) {
        struct use *b = &budget[nbudget];
        sscanf(line, "# Kernels of cuda/variants.c as ptxas of NVRTC %d.%d", &budget_major,
               &budget_minor);
        nbudget += sscanf(line, "%31s %31s %d %d %d %d %d", b->variant, b->kernel, &b->cc,
                          &b->threads, &b->registers, &b->shared, &b->stack) == 7;
    }
    fclose(f);
}

static const struct use *budget_of(const struct use *u)
{
    for (int i = 0; i < nbudget; i++)
        if (budget[i].cc == u->cc && !strcmp(budget[i].variant, u->variant) &&
            !strcmp(budget[i].kernel, u->kernel))
            return &budget[i];
    return NULL;
}

static int most(int have, int each)
{
    return each > 0 ? have / each : have;
}

static bool has_budgets(const char *variant, int cc)
{
    for (int i = 0; i < nbudget; i++)
        if (budget[i].cc == cc && !strcmp(budget[i].variant, variant))
            return true;
    return false;
}

/* Warps of an SM that has as many blocks as it can, of 100 that it has room for.  Registers are
 * given to warps by 256, shared memory with 1 KiB for each block from sm_80 on. */
static int occupancy(const struct arch *a, const struct use *u)
{
    int warps = (u->threads + 31) / 32;
    int each = (u->registers * 32 + 255) / 256 * 256;
    int blocks = a->blocks;
    int by_threads = most(a->threads, 32 * warps), by_registers = most(REGISTERS / each, warps);
    int by_shared = most(1024 * a->shared, u->shared + (a->cc >= 80 ? 1024 : 0));
    blocks = blocks < by_threads ? blocks : by_threads;
    blocks = blocks < by_registers ? blocks : by_registers;
    blocks = blocks < by_shared ? blocks : by_shared;
    return 100 * blocks * 32 * warps / a->threads;
}

static bool spares(const struct use *u)
{
    return u->spills == 0;
}

static void judge(const struct arch *a, const struct use *u)
{
    const struct use *b = budget_of(u);
    if (table)
        fprintf(table, "%-19s %-18s %4d %5d %5d %6d %6d %6d %5d\n", u->variant, u->kernel, u->cc,
                u->threads, u->registers, u->shared, u->stack, u->spills, occupancy(a, u));
    bool fits = u->threads > 0 &&
                (u->registers * 32 + 255) / 256 * 256 * ((u->threads + 31) / 32) <= REGISTERS;
    bool within = b && u->shared <= b->shared &&
                  (other_compiler || (u->registers <= b->registers && u->stack <= b->stack));
    if (!ok(spares(u) && fits && within, "%s sm_%d %s: %d registers, %d bytes shared", u->variant,
            u->cc, u->kernel, u->registers, u->shared))
        diag("spills %d bytes, stack %d bytes, %d threads; budget: %d registers, %d bytes shared, "
             "%d of stack%s",
             u->spills, u->stack, u->threads, b ? b->registers : 0, b ? b->shared : 0,
             b ? b->stack : 0, b ? "" : " (it has none)");
}

/* The threads of a kernel, which its PTX says. */
static int threads_of(const char *ptx, const char *kernel)
{
    char entry[64];
    snprintf(entry, sizeof entry, ".entry %s(", kernel);
    const char *p = strstr(ptx, entry), *end = p ? strchr(p, '{') : NULL;
    p = p ? strstr(p, ".maxntid ") : NULL;
    return p && p < end ? atoi(p + 9) : 0;
}

/* The number before `words` in a line that has them; else -1. */
static int number_before(const char *line, const char *words)
{
    const char *end = strstr(line, words), *p = end;
    while (p && p > line && strchr("0123456789", p[-1]))
        p--;
    return p < end ? atoi(p) : -1;
}

/* The log of ptxas -v: where each kernel begins, the stack and the spills of it and of functions
 * that it calls, what it used.  Returns how many kernels there are; -1 where something is missing,
 * is there twice, or belongs to no kernel: what is not understood is not taken for nothing. */
static int read_log(const char *log, struct use *of, int room)
{
    char line[400], name[32];
    int n = 0, properties = 0, frames = 0, used = 0;
    for (const char *p = log, *end; *p; p = *end ? end + 1 : end) {
        end = strchr(p, '\n');
        end = end ? end : p + strlen(p);
        snprintf(line, sizeof line, "%.*s", (int)(end - p), p);
        const char *begins = strstr(line, "Compiling entry function '");
        const char *function = strstr(line, "Function properties for ");
        const char *uses = strstr(line, ": Used ");
        int stack = number_before(line, " bytes stack frame");
        int stores = number_before(line, " bytes spill stores");
        int loads = number_before(line, " bytes spill loads");
        struct use *u = n > 0 ? &of[n - 1] : NULL;
        if (begins) {
            if ((u && (!properties || used != 1)) || n == room)
                return -1;
            of[n] = (struct use){0};
            if (sscanf(begins, "Compiling entry function '%31[^']'", of[n++].kernel) != 1)
                return -1;
            properties = frames = used = 0;
        } else if (function) {
            if (!u || frames != properties || sscanf(function + 24, "%31s", name) != 1)
                return -1;
            properties += properties || !strcmp(name, u->kernel); /* the kernel itself is first */
            if (!properties)
                return -1;
        } else if (strstr(line, "stack frame") || strstr(line, "spill")) {
            if (!u || ++frames != properties || stack < 0 || stores < 0 || loads < 0)
                return -1;
            u->stack = stack > u->stack ? stack : u->stack;
            u->spills += stores + loads;
        } else if (uses) {
            if (!u || used++ || sscanf(uses, ": Used %d registers", &u->registers) != 1)
                return -1;
            int shared = number_before(uses, " bytes smem");
            u->shared = shared > 0 ? shared : 0;
        }
    }
    return n > 0 && properties && frames == properties && used == 1 ? n : -1;
}

static int kernels_of(const char *ptx)
{
    int n = 0;
    for (const char *p = ptx; (p = strstr(p, ".entry ")); p++)
        n++;
    return n;
}

static void judge_all(const char *log, const char *ptx, const struct arch *a,
                      const struct at_cuda_variant *v)
{
    struct use use[32];
    int n = read_log(log, use, NELEM(use));
    if (!ok(n > 0 && n == kernels_of(ptx), "%s sm_%d: ptxas accounts for each kernel", v->name,
            a->cc)) {
        diag("%d of %d: %.2000s", n, kernels_of(ptx), log);
        return;
    }
    for (struct use *u = use; u < use + n; u++) {
        snprintf(u->variant, sizeof u->variant, "%s", v->name);
        u->cc = a->cc;
        u->threads = threads_of(ptx, u->kernel);
        if (strstr(u->kernel, "mma"))
            u->shared += v->shared + v->stage * (a->cc >= 80 ? 2 : 1);
        judge(a, u);
    }
}

/* ---- the gate itself, on logs as ptxas 13.0 writes them ---- */

static const char sound_log[] =
    "attend.cu(498): warning #177-D: function \"at_capture_int\" was declared but never "
    "referenced\n"
    "ptxas info    : 25 bytes gmem\n"
    "ptxas info    : Compiling entry function 'decode' for 'sm_90'\n"
    "ptxas info    : Function properties for decode\n"
    "ptxas         .     16 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n"
    "ptxas info    : Function properties for helper\n"
    "ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n"
    "ptxas info    : Used 80 registers, used 1 barriers, 16 bytes cumulative stack size, 9568 "
    "bytes smem\n"
    "ptxas info    : Compile time = 651.597 ms\n"
    "ptxas info    : Compiling entry function 'decode_merge' for 'sm_90'\n"
    "ptxas info    : Function properties for decode_merge\n"
    "ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n"
    "ptxas info    : Used 31 registers, used 0 barriers\n"
    "ptxas info    : Compile time = 65.187 ms\n";

/* The log with the n-th `old` (from 0) as `new`. */
static int read_changed(const char *old, int nth, const char *new, struct use *use)
{
    char text[sizeof sound_log + 80];
    const char *at = strstr(sound_log, old);
    while (at && nth-- > 0)
        at = strstr(at + 1, old);
    if (!at)
        bail("the log has no such %s", old);
    snprintf(text, sizeof text, "%.*s%s%s", (int)(at - sound_log), sound_log, new,
             at + strlen(old));
    return read_log(text, use, 2);
}

static void test_reading(void)
{
    struct use u[2];
    is_int(read_log(sound_log, u, 2), 2, "a log is read");
    ok(!strcmp(u[0].kernel, "decode") && u[0].registers == 80 && u[0].shared == 9568 &&
           u[0].stack == 16 && u[0].spills == 0,
       "its first kernel");
    ok(!strcmp(u[1].kernel, "decode_merge") && u[1].registers == 31 && u[1].shared == 0 &&
           u[1].stack == 0 && u[1].spills == 0,
       "its second kernel");
    ok(spares(&u[0]) && spares(&u[1]), "neither spills");
    is_int(read_changed("0 bytes spill stores", 0, "40 bytes spill stores", u), 2, "a store");
    ok(u[0].spills == 40 && !spares(&u[0]) && spares(&u[1]), "that spills fails its kernel");
    is_int(read_changed("0 bytes spill loads", 2, "8 bytes spill loads", u), 2, "a load");
    ok(u[1].spills == 8 && !spares(&u[1]) && spares(&u[0]), "that spills fails its kernel");
    is_int(read_changed("0 bytes spill loads", 1, "72 bytes spill loads", u), 2,
           "a called function");
    ok(u[0].spills == 72 && !spares(&u[0]), "that spills fails the kernel");
    static const char *const lost[] = {"Function properties for decode\n", " bytes spill stores",
                                       " bytes stack frame", ": Used ",
                                       "Compiling entry function '"};
    for (size_t i = 0; i < NELEM(lost); i++)
        is_int(read_changed(lost[i], 0, "?", u), -1, "a log without %.22s is refused", lost[i]);
    is_int(read_log("", u, 2), -1, "and one of nothing");
    is_int(read_log(sound_log, u, 1), -1, "and one of too many kernels");
}

static char *text_of(int (*size_of)(nvrtc_program, size_t *), int (*get)(nvrtc_program, char *),
                     nvrtc_program p)
{
    size_t size = 0;
    char *text = size_of(p, &size) ? NULL : calloc(1, size + 1);
    if (!text || get(p, text))
        bail("NVRTC gives no text");
    return text;
}

static void gate(const struct at_nvrtc *c, const struct at_cuda_variant *v, const struct arch *a)
{
    char arch[48], words[256];
    const char *option[16] = {arch, "--std=c++17", "-lineinfo", "--ptxas-options=-v"};
    struct at_gpu_source source = at_cuda_variant_source(v);
    char *text = at_gpu_program_text(&source);
    nvrtc_program p = NULL;
    int n = 4;
    snprintf(arch, sizeof arch, "--gpu-architecture=sm_%d", a->cc);
    snprintf(words, sizeof words, "%s", v->defines);
    for (char *at = words, *word; n < 16 && (word = strtok(at, " ")); at = NULL)
        option[n++] = word;
    if (!text || c->create(&p, text, "attend.cu", 0, NULL, NULL))
        bail("nvrtcCreateProgram failed");
    int failed = c->compile(p, n, option);
    char *log = text_of(c->log_size, c->log, p);
    if (!ok(!failed, "%s compiles for sm_%d", v->name, a->cc)) {
        diag("%.600s", log);
    } else {
        char *ptx = text_of(c->ptx_size, c->ptx, p);
        judge_all(log, ptx, a, v);
        free(ptx);
    }
    free(log);
    c->destroy(&p);
    attend_free(text);
}

static bool known(const struct at_nvrtc *c, int cc)
{
    int n = 0, arch[64];
    if (c->arch_count(&n) || n > 64 || c->archs(arch))
        return false;
    for (int i = 0; i < n; i++)
        if (arch[i] == cc)
            return true;
    return false;
}

int main(int argc, char **argv)
{
    const char *why;
    const struct at_nvrtc *c = emu_nvrtc(&why);
    test_reading();
    if (!c) {
        skip("kernels: %s", why);
        return done_testing();
    }
    int major = 0, minor = 0;
    read_budgets();
    other_compiler = c->version(&major, &minor) || major != budget_major || minor != budget_minor;
    if (other_compiler)
        diag("registers are not compared: budgets are of NVRTC %d.%d, this is %d.%d", budget_major,
             budget_minor, major, minor);
    for (int i = 1; i < argc; i++)
        if (!strncmp(argv[i], "-o", 2) && !(table = fopen(argv[i] + 2, "w")))
            bail("%s cannot be written", argv[i] + 2);
    for (size_t i = 0; i < NELEM(archs); i++)
        for (int n = 0; n < at_cuda_nvariants; n++) {
            const struct at_cuda_variant *v = &at_cuda_variants[n];
            bool quick = archs[i].cc == 90 && v->embed[0] && strstr(v->name, "d64") &&
                         !strstr(v->name, "r64");
            if (!emu_asked(argc, argv, archs[i].cc, v->name, quick) || v->capability > archs[i].cc)
                continue;
            if (known(c, archs[i].cc) && (table || has_budgets(v->name, archs[i].cc)))
                gate(c, v, &archs[i]);
            else if (known(c, archs[i].cc))
                skip("%s: there are no budgets for sm_%d", v->name, archs[i].cc);
            else
                skip("%s: this NVRTC does not know sm_%d", v->name, archs[i].cc);
        }
    if (table)
        fclose(table);
    return done_testing();
}
