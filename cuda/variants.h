/* SPDX-License-Identifier: MIT */
/* The programs that CUDA devices are asked for most: what is embedded as PTX, and what the compile
 * gate measures (t/550-cuda-gate.c). */
#ifndef AT_CUDA_VARIANTS_H
#define AT_CUDA_VARIANTS_H

#include "gpu.h"

struct at_cuda_variant {
    const char *name;
    unsigned files; /* as struct at_gpu_source has them */
    const char *defines;
    int capability;    /* the least that it runs on */
    int embed[2];      /* what PTX is embedded for; 0: nothing */
    int shared, stage; /* dynamic, bytes: of a group, and of each stage, two from sm_80 on */
};
extern const struct at_cuda_variant at_cuda_variants[];
extern const int at_cuda_nvariants;

/* The program as rows ask for it, without expressions of the user. */
struct at_gpu_source at_cuda_variant_source(const struct at_cuda_variant *v);

/* PTX that the build has made of them, for devices without NVRTC; the last has no text.  The oldest
 * compiler that knows a target has made it, since drivers refuse PTX that is newer than they are.
 */
struct at_cuda_ptx {
    uint8_t key[32]; /* at_program_key of text and defines */
    int capability;  /* of the devices it runs on, the least */
    const char *text;
};
extern const struct at_cuda_ptx at_cuda_ptx[];

#endif
