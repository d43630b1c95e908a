/* SPDX-License-Identifier: MIT */
/* Runs the attention kernel that t/triton_flash.py had Triton compile on the emulator, for t/940:
 *
 *     triton_run FILE.ptx SHARED-BYTES CC lazy|eager SEED
 *
 * Ends with 0 when the numbers are right and nothing was reported. */
#include "emu.h"
#include "half.h"
#include "os.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { H = 2, S = 128, D = 64, N = H * S * D };

static uint16_t q[N], k[N], v[N];
static float o[N];

static void draw(uint16_t *x, uint64_t *seed)
{
    for (int i = 0; i < N; i++) {
        *seed = *seed * 6364136223846793005u + 1442695040888963407u;
        x[i] = at_half_from_float((float)((double)(*seed >> 40) * 0x1p-22 - 2));
    }
}

/* The largest difference from attention in doubles. */
static double worst_of(void)
{
    double worst = 0;
    for (int row = 0; row < H * S; row++) {
        double p[S], sum = 0, want[D] = {0};
        const uint16_t *keys = k + row / S * S * D, *values = v + row / S * S * D;
        for (int j = 0; j < S; j++) {
            double dot = 0;
            for (int d = 0; d < D; d++)
                dot += (double)at_half_to_float(q[row * D + d]) *
                       (double)at_half_to_float(keys[j * D + d]);
            p[j] = exp(dot / 8);
            sum += p[j];
        }
        for (int j = 0; j < S; j++)
            for (int d = 0; d < D; d++)
                want[d] += p[j] / sum * (double)at_half_to_float(values[j * D + d]);
        for (int d = 0; d < D; d++) {
            double off = fabs((double)o[row * D + d] - want[d]);
            worst = off <= worst ? worst : off; /* NaN stays */
        }
    }
    return worst;
}

static cu_result launch(cu_function f, int shared)
{
    cu_deviceptr dq = emu_upload(q, sizeof q), dk = emu_upload(k, sizeof k),
                 dv = emu_upload(v, sizeof v), out = emu_alloc(sizeof o), none = 0;
    int length = S;
    float scale = 0.125f * 1.44269504f;
    void *args[] = {&dq, &dk, &dv, &out, &length, &scale, &none, &none};
    if (shared > 48 << 10)
        emu_cu.function_set(f, CU_FUNC_MAX_DYNAMIC, shared);
    cu_result r = emu_cu.launch(f, S / 64, H, 1, 128, 1, 1, (unsigned)shared, NULL, args, NULL);
    return r ? r : emu_download(o, out, sizeof o);
}

int main(int argc, char **argv)
{
    struct at_os_map map = {0};
    char err[200];
    uint64_t seed = 7;
    if (argc != 6 || at_os_map_file(&map, argv[1], err, sizeof err))
        bail("usage: triton_run FILE.ptx SHARED CC lazy|eager SEED");
    char *ptx = calloc(1, map.size + 1);
    memcpy(ptx, map.data, map.size);
    emu_open(atoi(argv[3]));
    emu_set("CUEMU_DRIVER", "14000"); /* Triton is ahead of the drivers */
    emu_set("CUEMU_ASYNC", argv[4]);
    emu_set("CUEMU_SCHED", argv[5]);
    draw(q, &seed);
    draw(k, &seed);
    draw(v, &seed);
    cu_result r = launch(emu_function(emu_load(ptx, NULL), "flash"), atoi(argv[2]));
    double worst = r ? (double)NAN : worst_of();
    /* P is rounded to f16, 2^-11 relative, and |V| <= 2; sums and exponentials are in f32. */
    bool good = worst <= 0x1p-9 && emu_reports() == 0;
    printf("# off by %.2e, %d reports, %llu warp instructions%s%s\n", worst, emu_reports(),
           emu_stat("instructions"), emu_reports() ? ": " : "", emu_reports() ? emu_report() : "");
    return !good;
}
