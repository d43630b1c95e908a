/* SPDX-License-Identifier: MIT */
/* Linked into a test of another family, this makes it run on the emulated CUDA device (and the
 * reference) alone: architecture CUEMU_CC, 80 unless the build says otherwise. */
#include "env.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef CC
#    define CC 80
#endif

__attribute__((constructor)) static void choose(void)
{
    char cc[16];
    const char *emulator = at_env(AT_ENV_CUEMU);
    if (!emulator) {
        puts("1..0 # SKIP ATTEND_CUEMU does not name the emulator of CUDA's driver");
        exit(0);
    }
    const char *compiler = at_env(AT_ENV_LIBNVRTC);
    if (compiler && !strcmp(compiler, "none")) { /* what is embedded is not all of it */
        puts("1..0 # SKIP ATTEND_LIBNVRTC is none");
        exit(0);
    }
    snprintf(cc, sizeof cc, "%d", CC);
    setenv("ATTEND_LIBCUDA", emulator, 1);
    setenv("ATTEND_BACKEND", "cuda", 1);
    setenv("ATTEND_CACHE", "t/cuda.cache", 0);
    setenv("CUEMU_CC", cc, 0);
    setenv("CUEMU_SCHED", "1", 0);
}
