/* SPDX-License-Identifier: MIT */
/* Run by the build: embed_ptx OUT NVRTC... writes a table of PTX (variants.h) of the programs that
 * CUDA devices are asked for most, each by the oldest of the compilers that knows its target.  What
 * is no NVRTC is passed over; without any, the table is empty. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda.h"
#include "variants.h"

#define COMPILERS 16

const struct at_cuda_ptx at_cuda_ptx[1]; /* of this program */

static const struct at_cuda_compiler *oldest(const struct at_cuda_compiler *c, int n,
                                             int capability)
{
    const struct at_cuda_compiler *best = NULL;
    for (int i = 0; i < n; i++)
        if (at_cuda_compiler_target(&c[i], capability) == capability &&
            (!best || c[i].version < best->version))
            best = &c[i];
    return best;
}

/* As a C string, without comments. */
static void print(FILE *f, const char *text)
{
    for (const char *line = text; *line; line += strcspn(line, "\n"), line += *line == '\n') {
        int n = (int)strcspn(line, "\n");
        if (!n || !strncmp(line, "//", 2))
            continue;
        fputs("     \"", f);
        for (int i = 0; i < n; i++) {
            if (line[i] == '"' || line[i] == '\\')
                fputc('\\', f);
            fputc(line[i] == '\t' ? ' ' : line[i], f);
        }
        fputs("\\n\"\n", f);
    }
}

static bool embed(FILE *f, const struct at_cuda_compiler *c, const struct at_cuda_variant *v,
                  int capability)
{
    static attend_ctx ctx; /* memory as libc has it, and no log */
    struct at_cuda_device d = {.ctx = &ctx, .compiler = c, .device_name = "embedding PTX"};
    struct at_gpu_source source = at_cuda_variant_source(v);
    struct at_err e = {0};
    char arch[24], *text = at_gpu_program_text(&source), *ptx = NULL;
    size_t bytes = 0;
    uint8_t key[32];
    snprintf(arch, sizeof arch, "compute_%d", capability);
    if (!text || at_cuda_compile(&d, text, source.defines, arch, &ptx, &bytes, &e) < 0) {
        fprintf(stderr, "embed_ptx: %s: %s\n", v->name, text ? e.text : "no memory");
        attend_free(text);
        return false;
    }
    at_program_key((const char *const[]){text, source.defines}, 2, key);
    fprintf(f, "    /* %s, by NVRTC %d.%d */\n    {{", v->name, c->version / 1000,
            c->version % 1000 / 10);
    for (int i = 0; i < 32; i++)
        fprintf(f, "%d%s", key[i], i < 31 ? "," : "");
    fprintf(f, "}, %d,\n", capability);
    print(f, ptx);
    fputs("    },\n", f);
    attend_free(text);
    at_free(&ctx, ptx);
    return true;
}

int main(int argc, char **argv)
{
    static struct at_cuda_compiler c[COMPILERS];
    int n = 0, count = 0;
    bool good = true;
    FILE *f = argc > 1 ? fopen(argv[1], "w") : NULL;
    if (!f) {
        fprintf(stderr, "embed_ptx: %s cannot be written\n", argc > 1 ? argv[1] : "nothing");
        return 1;
    }
    for (int i = 2; i < argc && n < COMPILERS; i++)
        n += at_cuda_compiler_open(&c[n], argv[i]);
    fputs("/* SPDX-License-Identifier: MIT */\n/* Made by cuda/embed_ptx.c. */\n#include "
          "\"variants.h\"\n\n"
          "const struct at_cuda_ptx at_cuda_ptx[] = {\n",
          f);
    for (int v = 0; v < at_cuda_nvariants; v++)
        for (int i = 0; i < 2; i++) {
            int capability = at_cuda_variants[v].embed[i];
            const struct at_cuda_compiler *by = capability ? oldest(c, n, capability) : NULL;
            if (by && good)
                count += good = embed(f, by, &at_cuda_variants[v], capability);
        }
    fputs("    {.text = NULL}\n};\n", f);
    good = !fclose(f) && good;
    printf("embedded PTX: %d programs%s\n", count, n ? "" : " (no NVRTC was found)");
    return !good;
}
