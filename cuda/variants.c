/* SPDX-License-Identifier: MIT */
/* The list of programs that CUDA devices are asked for most. */
#include "variants.h"

#include <stdio.h>

#define OPS (1u << AT_GPU_OPS)
#define ATTN(file) (1u << AT_GPU_SCORE | 1u << AT_GPU_ATTN_##file)
#define BACK (1u << AT_GPU_SCORE | 1u << AT_GPU_BACK | 1u << AT_GPU_ATTN_BACK)
#define WEIGHTS (ATTN(UNFUSED) | 1u << AT_GPU_ATTN_WEIGHTS)
#define MMA (ATTN(MMA) | 1u << AT_GPU_MMA)
#define DECODE (ATTN(DECODE) | 1u << AT_GPU_ATTN_MERGE)

/* AT_B is a type of attend.h by its number; AT_DV the channels that a group has.  r128, r64: rows
 * of a group; edits: masks by tensors and the like; split: keys over groups. */
// clang-format off
const struct at_cuda_variant at_cuda_variants[] = {
    {"ops",                      OPS,                      "-DAT_ITEMS=64",                     75, {75}, 0, 0},
    {"train",                    OPS | 1u << AT_GPU_TRAIN, "-DAT_ITEMS=64",                     75, {0},  0, 0},
    {"gemm-f32",                 1u << AT_GPU_GEMM,        "-DAT_B=0",                          75, {75}, 0, 0},
    {"gemm-f16",                 1u << AT_GPU_GEMM,        "-DAT_B=1",                          75, {75}, 0, 0},
    {"gemm-bf16",                1u << AT_GPU_GEMM,        "-DAT_B=2",                          75, {75}, 0, 0},
    {"gemm-q8_0",                1u << AT_GPU_GEMM,        "-DAT_B=9",                          75, {75}, 0, 0},
    {"gemm-q4_0",                1u << AT_GPU_GEMM,        "-DAT_B=10",                         75, {75}, 0, 0},
    {"gemm-q4_1",                1u << AT_GPU_GEMM,        "-DAT_B=11",                         75, {75}, 0, 0},
    {"local-d64",                ATTN(LOCAL),              "-DAT_DV=64",                        75, {75}, 0, 0},
    {"local-d128",               ATTN(LOCAL),              "-DAT_DV=128",                       75, {75}, 0, 0},
    {"decode-d64",               DECODE,                   "-DAT_DV=64",                        75, {75}, 0, 0},
    {"decode-d128",              DECODE,                   "-DAT_DV=128",                       75, {75}, 0, 0},
    {"nolocal",                  ATTN(NOLOCAL),            "",                                  75, {75}, 0, 0},
    {"unfused",                  ATTN(UNFUSED),            "",                                  75, {75}, 0, 0},
    {"weights",                  WEIGHTS,                  "-DAT_ITEMS=64",                     75, {0},  0, 0},
    {"mask",                     ATTN(MASK),               "-DAT_ITEMS=64",                     75, {0},  0, 0},
    {"mma-f16-d64-r128", MMA,
     "-DAT_DK=64 -DAT_DV=64 -DAT_WARPS=4 -DAT_ROWS=128 -DAT_KEYS=64 -DAT_TERMS=2",
     75, {75, 80}, 16384, 16384},
    {"mma-f16-d64-r64", MMA,
     "-DAT_DK=64 -DAT_DV=64 -DAT_WARPS=4 -DAT_ROWS=64 -DAT_KEYS=64 -DAT_TERMS=2",
     75, {75, 80}, 8192, 16384},
    {"mma-f16-d64-edits", MMA,
     "-DAT_DK=64 -DAT_DV=64 -DAT_WARPS=4 -DAT_ROWS=128 -DAT_KEYS=64 -DAT_TERMS=2 -DAT_EDITS",
     75, {0}, 16384, 16384},
    {"mma-f16-d64-split", MMA | 1u << AT_GPU_ATTN_MERGE,
     "-DAT_DK=64 -DAT_DV=64 -DAT_WARPS=1 -DAT_ROWS=16 -DAT_KEYS=64 -DAT_TERMS=2 -DAT_SPLIT -DAT_FEW=16",
     75, {75, 80}, 2048, 16384},
    {"mma-f16-d128-r128", MMA,
     "-DAT_DK=128 -DAT_DV=128 -DAT_WARPS=4 -DAT_ROWS=128 -DAT_KEYS=32 -DAT_TERMS=2",
     75, {75, 80}, 32768, 16384},
    {"mma-f16-d128-r64", MMA,
     "-DAT_DK=128 -DAT_DV=128 -DAT_WARPS=4 -DAT_ROWS=64 -DAT_KEYS=32 -DAT_TERMS=2",
     75, {75, 80}, 16384, 16384},
    {"mma-f16-d128-edits", MMA,
     "-DAT_DK=128 -DAT_DV=128 -DAT_WARPS=4 -DAT_ROWS=128 -DAT_KEYS=32 -DAT_TERMS=2 -DAT_EDITS",
     75, {0}, 32768, 16384},
    {"mma-f16-d128-split", MMA | 1u << AT_GPU_ATTN_MERGE,
     "-DAT_DK=128 -DAT_DV=128 -DAT_WARPS=1 -DAT_ROWS=16 -DAT_KEYS=32 -DAT_TERMS=2 -DAT_SPLIT -DAT_FEW=16",
     75, {75, 80}, 4096, 16384},
    {"mma-bf16-d64-r128", MMA,
     "-DAT_DK=64 -DAT_DV=64 -DAT_WARPS=4 -DAT_ROWS=128 -DAT_KEYS=64 -DAT_TERMS=3 -DAT_BF16_IN",
     80, {80}, 16384, 16384},
    {"mma-bf16-d64-r64", MMA,
     "-DAT_DK=64 -DAT_DV=64 -DAT_WARPS=4 -DAT_ROWS=64 -DAT_KEYS=64 -DAT_TERMS=3 -DAT_BF16_IN",
     80, {80}, 8192, 16384},
    {"mma-bf16-d64-edits", MMA,
     "-DAT_DK=64 -DAT_DV=64 -DAT_WARPS=4 -DAT_ROWS=128 -DAT_KEYS=64 -DAT_TERMS=3 -DAT_BF16_IN -DAT_EDITS",
     80, {0}, 16384, 16384},
    {"mma-bf16-d64-split", MMA | 1u << AT_GPU_ATTN_MERGE,
     "-DAT_DK=64 -DAT_DV=64 -DAT_WARPS=1 -DAT_ROWS=16 -DAT_KEYS=64 -DAT_TERMS=3 -DAT_SPLIT -DAT_FEW=16 -DAT_BF16_IN",
     80, {80}, 2048, 16384},
    {"mma-bf16-d128-r64", MMA,
     "-DAT_DK=128 -DAT_DV=128 -DAT_WARPS=4 -DAT_ROWS=64 -DAT_KEYS=32 -DAT_TERMS=3 -DAT_BF16_IN",
     80, {80}, 16384, 16384},
    {"mma-bf16-d128-edits", MMA,
     "-DAT_DK=128 -DAT_DV=128 -DAT_WARPS=4 -DAT_ROWS=64 -DAT_KEYS=32 -DAT_TERMS=3 -DAT_BF16_IN -DAT_EDITS",
     80, {0}, 16384, 16384},
    {"mma-bf16-d128-split", MMA | 1u << AT_GPU_ATTN_MERGE,
     "-DAT_DK=128 -DAT_DV=128 -DAT_WARPS=1 -DAT_ROWS=16 -DAT_KEYS=32 -DAT_TERMS=3 -DAT_SPLIT -DAT_FEW=16 -DAT_BF16_IN",
     80, {80}, 4096, 16384},
    {"mma-f16-d64-paged", MMA,
     "-DAT_DK=64 -DAT_DV=64 -DAT_WARPS=4 -DAT_ROWS=128 -DAT_KEYS=64 -DAT_TERMS=2 -DAT_PAGED",
     75, {0}, 16384, 16384},
    {"mma-f16-d128-paged", MMA,
     "-DAT_DK=128 -DAT_DV=128 -DAT_WARPS=4 -DAT_ROWS=128 -DAT_KEYS=32 -DAT_TERMS=2 -DAT_PAGED",
     75, {0}, 32768, 16384},
    {"mma-f16-d64-dropout", MMA,
     "-DAT_DK=64 -DAT_DV=64 -DAT_WARPS=4 -DAT_ROWS=64 -DAT_KEYS=64 -DAT_TERMS=2 -DAT_DROPOUT",
     75, {0}, 8192, 16384},
    {"mma-f16-d256-r64", MMA,
     "-DAT_DK=256 -DAT_DV=256 -DAT_WARPS=4 -DAT_ROWS=64 -DAT_KEYS=16 -DAT_TERMS=2",
     75, {0}, 32768, 16384},
    {"mma-bf16-d256-r64", MMA,
     "-DAT_DK=256 -DAT_DV=256 -DAT_WARPS=4 -DAT_ROWS=64 -DAT_KEYS=16 -DAT_TERMS=3 -DAT_BF16_IN",
     80, {0}, 32768, 16384},
    {"mma-tf32-d64-r128", MMA,
     "-DAT_DK=64 -DAT_DV=64 -DAT_WARPS=4 -DAT_ROWS=128 -DAT_KEYS=32 -DAT_TERMS=1 -DAT_TF32",
     80, {0}, 32768, 16384},
    {"mma-tf32-d64-r64", MMA,
     "-DAT_DK=64 -DAT_DV=64 -DAT_WARPS=4 -DAT_ROWS=64 -DAT_KEYS=32 -DAT_TERMS=1 -DAT_TF32",
     80, {0}, 16384, 16384},
    {"mma-tf32-d64-edits", MMA,
     "-DAT_DK=64 -DAT_DV=64 -DAT_WARPS=4 -DAT_ROWS=128 -DAT_KEYS=32 -DAT_TERMS=1 -DAT_TF32 -DAT_EDITS",
     80, {0}, 32768, 16384},
    {"mma-tf32-d64-split", MMA | 1u << AT_GPU_ATTN_MERGE,
     "-DAT_DK=64 -DAT_DV=64 -DAT_WARPS=1 -DAT_ROWS=16 -DAT_KEYS=32 -DAT_TERMS=1 -DAT_SPLIT -DAT_FEW=16 -DAT_TF32",
     80, {0}, 4096, 16384},
    {"mma-tf32-d128-r128", MMA,
     "-DAT_DK=128 -DAT_DV=128 -DAT_WARPS=4 -DAT_ROWS=128 -DAT_KEYS=16 -DAT_TERMS=1 -DAT_TF32",
     80, {0}, 65536, 16384},
    {"mma-tf32-d128-edits", MMA,
     "-DAT_DK=128 -DAT_DV=128 -DAT_WARPS=4 -DAT_ROWS=128 -DAT_KEYS=16 -DAT_TERMS=1 -DAT_TF32 -DAT_EDITS",
     80, {0}, 65536, 16384},
    {"mma-tf32-d128-split", MMA | 1u << AT_GPU_ATTN_MERGE,
     "-DAT_DK=128 -DAT_DV=128 -DAT_WARPS=1 -DAT_ROWS=16 -DAT_KEYS=16 -DAT_TERMS=1 -DAT_SPLIT -DAT_FEW=16 -DAT_TF32",
     80, {0}, 8192, 16384},
    {"back-d64",                 BACK,                     "-DAT_ITEMS=64 -DAT_DV=64",          75, {0},  0, 0},
    {"back-d128",                BACK,                     "-DAT_ITEMS=64 -DAT_DV=128",         75, {0},  0, 0},
};
// clang-format on
const int at_cuda_nvariants = AT_LEN(at_cuda_variants);

_Static_assert(ATTEND_F32 == 0 && ATTEND_BF16 == 2 && ATTEND_Q8_0 == 9 && ATTEND_Q4_1 == 11,
               "defines above name types by number");

struct at_gpu_source at_cuda_variant_source(const struct at_cuda_variant *v)
{
    struct at_gpu_source s = {.files = v->files,
                              .printed = v->files >> AT_GPU_SCORE & 1 ? "\n" : NULL};
    snprintf(s.defines, sizeof s.defines, "%s", v->defines);
    return s;
}
