/* SPDX-License-Identifier: MIT */
/* Counters of a launch: exact and the same in every run, so tests can pin them. */
#include "emu.h"

#include <stdio.h>
#include <string.h>

/* Shared memory has 32 banks of 4 bytes.  Lanes are served a word each, in halves for 8 bytes, in
 * quarters for 16; a wavefront reads one word of each bank. */
void stats_shared(struct stats *s, const uint64_t addr[WARP], uint32_t mask, int bytes)
{
    int words = bytes > 4 ? bytes / 4 : 1, lanes = WARP / words;
    s->shared_bytes += (uint64_t)(__builtin_popcount(mask) * bytes);
    for (int first = 0; first < WARP; first += lanes) {
        uint32_t seen[32][WARP];
        uint8_t depth[32] = {0};
        int most = 0;
        for (int i = first; i < first + lanes; i++) {
            if (!(mask >> i & 1))
                continue;
            for (int k = 0; k < words; k++) {
                uint32_t word = (uint32_t)(addr[i] / 4) + (uint32_t)k;
                int bank = (int)(word % 32), j = 0;
                while (j < depth[bank] && seen[bank][j] != word)
                    j++;
                if (j == depth[bank])
                    seen[bank][depth[bank]++] = word;
                if (depth[bank] > most)
                    most = depth[bank];
            }
        }
        s->wavefronts += (uint64_t)most;
        s->wavefronts_ideal += most > 0;
    }
}

/* Sectors of 32 bytes that the lanes touch, and how few would hold that many bytes. */
void stats_global(struct stats *s, const uint64_t addr[WARP], uint32_t mask, int bytes)
{
    uint64_t seen[64];
    uint8_t taken[64] = {0};
    int n = 0, active = 0;
    for (int i = 0; i < WARP; i++) {
        if (!(mask >> i & 1))
            continue;
        uint64_t sector = addr[i] / 32;
        unsigned at = (unsigned)(sector * 0x9e3779b97f4a7c15ull >> 58);
        while (taken[at] && seen[at] != sector)
            at = (at + 1) % 64;
        n += !taken[at];
        taken[at] = 1;
        seen[at] = sector;
        active++;
    }
    s->sectors += (uint64_t)n;
    s->sectors_ideal += ((uint64_t)(active * bytes) + 31) / 32;
    s->global_bytes += (uint64_t)(active * bytes);
}

void stats_write(const char *file, const char *kernel, const struct stats *s)
{
    FILE *f = !strcmp(file, "-") ? stderr : fopen(file, "a");
    if (!f)
        return;
    fprintf(
        f,
        "%s instructions=%llu lanes=%llu divergent=%llu blocks=%llu barriers=%llu mufu=%llu "
        "mma_flops=%llu wavefronts=%llu/%llu shared_bytes=%llu sectors=%llu/%llu global_bytes=%llu",
        kernel, (unsigned long long)s->instructions, (unsigned long long)s->lanes,
        (unsigned long long)s->divergent, (unsigned long long)s->blocks,
        (unsigned long long)s->barriers, (unsigned long long)s->mufu,
        (unsigned long long)s->mma_flops, (unsigned long long)s->wavefronts,
        (unsigned long long)s->wavefronts_ideal, (unsigned long long)s->shared_bytes,
        (unsigned long long)s->sectors, (unsigned long long)s->sectors_ideal,
        (unsigned long long)s->global_bytes);
    for (int i = 0; i < OP_COUNT; i++) {
        if (s->op[i])
            fprintf(f, " %s=%llu", ptx_op_name((enum ptx_op)i), (unsigned long long)s->op[i]);
    }
    fputc('\n', f);
    if (f != stderr)
        fclose(f);
}
