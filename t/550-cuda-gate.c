/* SPDX-License-Identifier: MIT */
/* The compile gate: NVRTC, with the ptxas in it, makes a cubin of each program that CUDA devices
 * are asked for most, for each architecture.  Registers and shared memory stay within the budgets
 * of t/cuda-budgets.txt, nothing spills, and the register file holds a block.
 *
 * Arguments: architectures, or "all"; without, sm_90 and only what heads of 64 channels run on
 * most. -oFILE: a table of what was measured, to be checked in where a change is meant. */
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
        nbudget += sscanf(line, "%31s %31s %d %d %d %d", b->variant, b->kernel, &b->cc, &b->threads,
                          &b->registers, &b->shared) == 6;
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

static void judge(const struct arch *a, const struct use *u)
{
    const struct use *b = budget_of(u);
    if (table)
        fprintf(table, "%-18s %-18s %4d %5d %5d %6d %6d %6d %5d\n", u->variant, u->kernel, u->cc,
                u->threads, u->registers, u->shared, u->stack, u->spills, occupancy(a, u));
    bool fits = u->threads > 0 &&
                (u->registers * 32 + 255) / 256 * 256 * ((u->threads + 31) / 32) <= REGISTERS;
    bool within = b && (other_compiler || u->registers <= b->registers) && u->shared <= b->shared;
    if (!ok(u->spills == 0 && fits && within, "%s sm_%d %s: %d registers, %d bytes shared",
            u->variant, u->cc, u->kernel, u->registers, u->shared))
        diag("spills %d bytes, %d threads; budget: %d registers, %d bytes shared%s", u->spills,
             u->threads, b ? b->registers : 0, b ? b->shared : 0, b ? "" : " (it has none)");
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

/* The log of ptxas -v: for each kernel where it begins, its stack and spills, what it used. */
static int read_log(const char *log, const char *ptx, const struct arch *a,
                    const struct at_cuda_variant *v)
{
    int n = 0;
    for (const char *p = log; (p = strstr(p, "Compiling entry function '")); p++) {
        struct use u = {.cc = a->cc};
        int stores = 0, loads = 0;
        snprintf(u.variant, sizeof u.variant, "%s", v->name);
        const char *next = strstr(p + 1, "Compiling entry function '");
        if (sscanf(p, "Compiling entry function '%31[^']'", u.kernel) != 1)
            continue;
        const char *frame = strstr(p, "bytes stack frame"), *used = strstr(p, "Used ");
        while (frame && frame > p && frame[-1] != '\n')
            frame--;
        if (frame && (!next || frame < next))
            sscanf(frame, "%d bytes stack frame, %d bytes spill stores, %d bytes spill loads",
                   &u.stack, &stores, &loads);
        u.spills = stores + loads;
        u.threads = threads_of(ptx, u.kernel);
        if (!used || (next && used > next) ||
            sscanf(used, "Used %d registers", &u.registers) != 1) {
            ok(false, "%s sm_%d %s: ptxas says nothing", v->name, a->cc, u.kernel);
            continue;
        }
        const char *smem = strstr(used, " bytes smem"), *line = strchr(used, '\n');
        if (smem && (!line || smem < line)) {
            while (smem > used && smem[-1] != ' ')
                smem--;
            u.shared = atoi(smem);
        }
        u.shared += v->shared + v->stage * (a->cc >= 80 ? 2 : 1);
        judge(a, &u);
        n++;
    }
    return n;
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
        if (!read_log(log, ptx, a, v))
            ok(false, "%s sm_%d: ptxas said nothing: %.200s", v->name, a->cc, log);
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

static bool asked(int argc, char **argv, int cc, const struct at_cuda_variant *v)
{
    bool any = false;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "all") || atoi(argv[i]) == cc)
            return true;
        any = any || strncmp(argv[i], "-o", 2) != 0;
    }
    return !any && cc == 90 && v->embed[0] && strstr(v->name, "d64") && !strstr(v->name, "r64");
}

int main(int argc, char **argv)
{
    const char *why;
    const struct at_nvrtc *c = emu_nvrtc(&why);
    if (!c)
        skip_all("%s", why);
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
            if (!asked(argc, argv, archs[i].cc, v) || v->capability > archs[i].cc)
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
