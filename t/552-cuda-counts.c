/* SPDX-License-Identifier: MIT */
/* What kernels do on the emulated device for 256 keys more:
 * instructions of the PTX, of tensor cores among them, wavefronts of shared memory and sectors of
 * global memory, beside how few would do.  It is the difference of two runs, so what is not in the
 * main loop drops out; the numbers are exact, and t/cuda-counts.txt has them.  More than it says is
 * a failure.
 *
 * Arguments: architectures, names of variants, or "all"; without, sm_80 and few kernels.  -oFILE: a
 * table of what was counted, to be checked in where a change is meant. */
#include "check_grads.h"
#include "emu.h"
#include "setenv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST 600
#define KEYS 256
#define STATS "t/cuda-counts.stats"

struct counts {
    char variant[32], kernel[32];
    int cc;
    long long instructions, mma, wavefronts, few_wavefronts, sectors, few_sectors;
};

/* # is the number of keys.  Variants of the compile gate:
 * what else a word asks for (decode_merge) is counted with it. */
static const struct shape {
    const char *variant, *word, *only; /* ATTEND_OPENCL_SHAPE */
    int capability, quick, grads;
} shapes[] = {
    {"local-d64",           "attention:f32:b1h1g1q32k#d64",            "",            75, 1, 0},
    {"local-d128",          "attention:f32:b1h1g1q32k#d128",           "",            75, 0, 0},
    {"decode-d64",          "attention:f32:b1h8g1q1k#d64",             "",            75, 1, 0},
    {"decode-d128",         "attention:f32:b1h8g1q1k#d128",            "",            75, 0, 0},
    {"nolocal",             "attention:f32:b1h1g1q64k#d64",            "gpu_nolocal", 75, 0, 0},
    {"unfused",             "attention:f32:b1h1g1q32k#d64",            "unfused",     75, 0, 0},
    {"mma-f16-d64-r128",    "attention:f16:b1h1g1q128k#d64",           "",            75, 1, 0},
    {"mma-f16-d64-r64",     "attention:f16:b1h1g1q64k#d64",            "",            75, 0, 0},
    {"mma-f16-d64-edits",   "attention:f16:b1h1g1q128k#d64:alibi:br",  "",            75, 0, 0},
    {"mma-f16-d64-split",   "attention:f16:b1h16g1q1k#d64",            "",            75, 1, 0},
    {"mma-f16-d64-paged",   "attention:f16:b1h1g1q128k#d64:page16",    "",            75, 0, 0},
    {"mma-f16-d64-dropout", "attention:f16:b1h1g1q64k#d64:drop0.1",    "",            75, 0, 0},
    {"mma-f16-d128-r128",   "attention:f16:b1h1g1q128k#d128",          "",            75, 1, 0},
    {"mma-f16-d128-r64",    "attention:f16:b1h1g1q64k#d128",           "",            75, 0, 0},
    {"mma-f16-d128-edits",  "attention:f16:b1h1g1q128k#d128:alibi:br", "",            75, 0, 0},
    {"mma-f16-d128-split",  "attention:f16:b1h16g1q1k#d128",           "",            75, 0, 0},
    {"mma-f16-d128-paged",  "attention:f16:b1h1g1q128k#d128:page16",   "",            75, 0, 0},
    {"mma-f16-d256-r64",    "attention:f16:b1h1g1q64k#d256",           "",            75, 0, 0},
    {"mma-bf16-d64-r128",   "attention:bf16:b1h1g1q128k#d64",          "",            80, 0, 0},
    {"mma-bf16-d64-r64",    "attention:bf16:b1h1g1q64k#d64",           "",            80, 0, 0},
    {"mma-bf16-d64-edits",  "attention:bf16:b1h1g1q128k#d64:alibi:br", "",            80, 0, 0},
    {"mma-bf16-d64-split",  "attention:bf16:b1h16g1q1k#d64",           "",            80, 0, 0},
    {"mma-bf16-d128-r64",   "attention:bf16:b1h1g1q64k#d128",          "",            80, 0, 0},
    {"mma-bf16-d128-edits", "attention:bf16:b1h1g1q64k#d128:alibi:br", "",            80, 0, 0},
    {"mma-bf16-d128-split", "attention:bf16:b1h16g1q1k#d128",          "",            80, 0, 0},
    {"mma-bf16-d256-r64",   "attention:bf16:b1h1g1q64k#d256",          "",            80, 0, 0},
    {"mma-tf32-d64-r128",   "attention:f32:b1h1g1q128k#d64:tf32",      "",            80, 0, 0},
    {"mma-tf32-d64-r64",    "attention:f32:b1h1g1q64k#d64:tf32",       "",            80, 0, 0},
    {"mma-tf32-d64-edits",  "attention:f32:b1h1g1q128k#d64:cap9:tf32", "",            80, 0, 0},
    {"mma-tf32-d64-split",  "attention:f32:b1h16g1q1k#d64:tf32",       "",            80, 0, 0},
    {"mma-tf32-d128-r128",  "attention:f32:b1h1g1q128k#d128:tf32",     "",            80, 0, 0},
    {"mma-tf32-d128-edits", "attention:f32:b1h1g1q99k#d128:cap9:tf32", "",            80, 0, 0},
    {"mma-tf32-d128-split", "attention:f32:b1h16g1q1k#d128:tf32",      "",            80, 0, 0},
    {"back-d64",            "attention:f32:b1h1g1q32k#d64",            "",            75, 0, 1},
    {"back-d128",           "attention:f32:b1h1g1q32k#d128",           "",            75, 0, 1},
    {"back-f16-d64",        "attention:f16:b1h1g1q64k#d64",            "",            75, 1, 1},
    {"back-f16-d64-edits",  "attention:f16:b1h1g1q64k#d64:cap50",      "",            75, 0, 1},
    {"back-f16-d64-drop",   "attention:f16:b1h1g1q64k#d64:drop0.1",    "",            75, 0, 1},
    {"back-f16-d128",       "attention:f16:b1h1g1q64k#d128",           "",            75, 0, 1},
    {"back-bf16-d64",       "attention:bf16:b1h1g1q64k#d64",           "",            80, 0, 1},
    {"back-bf16-d128",      "attention:bf16:b1h1g1q64k#d128",          "",            80, 0, 1},
};

static struct counts budget[MOST];
static int nbudget;
static bool other_compiler; /* than the one that the budgets are of */
static FILE *table;

static void read_budgets(const struct at_nvrtc *c)
{
    char line[200];
    int major = 0, minor = 0, of_major = -1, of_minor = -1;
    FILE *f = fopen(COUNTS, "r");
    if (!f)
        bail("%s cannot be read", COUNTS);
    while (fgets(line, sizeof line, f) && nbudget < MOST) {
        struct counts *b = &budget[nbudget];
        sscanf(line, "# What kernels do for 256 keys, as NVRTC %d.%d", &of_major, &of_minor);
        nbudget += sscanf(line, "%31s %31s %d %lld %lld %*s %lld %lld %lld %lld", b->variant,
                          b->kernel, &b->cc, &b->instructions, &b->mma, &b->wavefronts,
                          &b->few_wavefronts, &b->sectors, &b->few_sectors) == 9;
    }
    fclose(f);
    other_compiler = c->version(&major, &minor) || major != of_major || minor != of_minor;
    if (other_compiler)
        diag("counts are not compared: the table is of NVRTC %d.%d, this is %d.%d", of_major,
             of_minor, major, minor);
}

/* ---- counting ---- */

static void add_line(char *line, struct counts *c, int *n)
{
    char *word = strtok(line, " \n");
    int i = 0;
    while (i < *n && strcmp(c[i].kernel, word))
        i++;
    if (i == 16)
        bail("more than 16 kernels");
    if (i == *n) {
        c[(*n)++] = (struct counts){0};
        snprintf(c[i].kernel, sizeof c[i].kernel, "%s", word);
    }
    while ((word = strtok(NULL, " \n"))) {
        long long x, least = 0;
        char name[32];
        if (sscanf(word, "%31[^=]=%lld/%lld", name, &x, &least) < 2)
            continue;
        if (!strcmp(name, "instructions"))
            c[i].instructions += x;
        else if (!strcmp(name, "mma"))
            c[i].mma += x;
        else if (!strcmp(name, "wavefronts"))
            c[i].wavefronts += x, c[i].few_wavefronts += least;
        else if (!strcmp(name, "sectors"))
            c[i].sectors += x, c[i].few_sectors += least;
    }
}

/* Kernels that a run of the word launches, at most 16; how many. */
static int count(attend_ctx *ctx, const struct shape *s, int keys, struct counts *c)
{
    char word[96], err[320], line[2000];
    struct check_ready ready;
    struct check_grads grads;
    int n = 0;
    const char *at = strchr(s->word, '#');
    snprintf(word, sizeof word, "%.*s%d%s", (int)(at - s->word), s->word, keys, at + 1);
    setenv("ATTEND_OPENCL_SHAPE", s->only, 1);
    if (!*s->only)
        unsetenv("ATTEND_OPENCL_SHAPE");
    remove(STATS);
    if (s->grads) {
        if (check_gradients(ctx, "cuda:0", word, &grads) == 0) /* trials of its kernels, if any */
            check_grads_free(&grads);
        emu_set("CUEMU_STATS", STATS);
        if (check_gradients(ctx, "cuda:0", word, &grads) < 0)
            bail("%s: no gradients", word);
        check_grads_free(&grads);
    } else {
        if (check_prepare(&ready, ctx, "cuda:0", word, err, sizeof err) < 0)
            bail("%s", err);
        emu_set("CUEMU_STATS", STATS);
        if (attend_run(ready.exec) < 0)
            bail("%s", attend_exec_error(ready.exec));
        check_done(&ready);
    }
    emu_set("CUEMU_STATS", "");
    FILE *f = fopen(STATS, "r");
    while (f && fgets(line, sizeof line, f))
        add_line(line, c, &n);
    if (f)
        fclose(f);
    return n;
}

static void judge(const struct counts *u)
{
    const struct counts *b = NULL;
    for (int i = 0; i < nbudget; i++)
        if (budget[i].cc == u->cc && !strcmp(budget[i].variant, u->variant) &&
            !strcmp(budget[i].kernel, u->kernel))
            b = &budget[i];
    if (table)
        fprintf(table, "%-19s %-18s %4d %8lld %6lld %8.2f %8lld %8lld %8lld %8lld\n", u->variant,
                u->kernel, u->cc, u->instructions, u->mma,
                u->mma ? (double)u->instructions / (double)u->mma : 0.0, u->wavefronts,
                u->few_wavefronts, u->sectors, u->few_sectors);
    bool within = other_compiler || (b && u->instructions <= b->instructions && u->mma == b->mma &&
                                     u->wavefronts <= b->wavefronts && u->sectors <= b->sectors);
    if (!ok(within,
            "%s sm_%d %s: %lld instructions, %lld by tensor cores, %lld wavefronts, %lld sectors",
            u->variant, u->cc, u->kernel, u->instructions, u->mma, u->wavefronts, u->sectors))
        diag("the table has %lld, %lld, %lld, %lld%s", b ? b->instructions : 0, b ? b->mma : 0,
             b ? b->wavefronts : 0, b ? b->sectors : 0, b ? "" : " (no line)");
}

static void compare(attend_ctx *ctx, const struct shape *s, int cc)
{
    struct counts less[16], more[16];
    int n = count(ctx, s, KEYS, less), m = count(ctx, s, 2 * KEYS, more);
    if (!ok(n > 0 && n == m, "%s sm_%d: its kernels run", s->variant, cc))
        diag("%d of %d", n, m);
    for (int i = 0; i < n && i < m; i++) {
        struct counts *u = &more[i];
        const struct counts *l = &less[i];
        if (strcmp(u->kernel, l->kernel))
            bail("%s, then %s", l->kernel, u->kernel);
        snprintf(u->variant, sizeof u->variant, "%s", s->variant);
        u->cc = cc;
        u->instructions -= l->instructions;
        u->mma -= l->mma;
        u->wavefronts -= l->wavefronts;
        u->few_wavefronts -= l->few_wavefronts;
        u->sectors -= l->sectors;
        u->few_sectors -= l->few_sectors;
        judge(u);
    }
}

int main(int argc, char **argv)
{
    static const int archs[] = {75, 80, 100}; /* up to 90 as 80; 120 as 100 */
    const char *why;
    const struct at_nvrtc *c = emu_nvrtc(&why);
    if (!c)
        skip_all("%s", why);
    read_budgets(c);
    for (int i = 1; i < argc; i++)
        if (!strncmp(argv[i], "-o", 2) && !(table = fopen(argv[i] + 2, "w")))
            bail("%s cannot be written", argv[i] + 2);
    for (size_t i = 0; i < NELEM(archs); i++) {
        attend_ctx *ctx = NULL;
        for (const struct shape *s = shapes; s < shapes + NELEM(shapes); s++) {
            if (!emu_asked(argc, argv, archs[i], s->variant, archs[i] == 80 && s->quick) ||
                s->capability > archs[i])
                continue;
            if (!ctx) {
                emu_open(archs[i]);
                emu_close();
                emu_clear();
                if (attend_ctx_new(NULL, &ctx) < 0)
                    bail("no context");
            }
            compare(ctx, s, archs[i]);
        }
        if (ctx) {
            attend_ctx_free(ctx);
            if (!is_int(emu_reports(), 0, "sm_%d: nothing is reported", archs[i]))
                diag("%s: %s", emu_kind(), emu_report());
        }
    }
    remove(STATS);
    if (table)
        fclose(table);
    return done_testing();
}
