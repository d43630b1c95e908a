/* SPDX-License-Identifier: MIT */
/* The architectures that can be played: numbers of the "Technical Specifications per Compute
 * Capability" of the CUDA C++ Programming Guide, and of one product of each. */
#include "emu.h"

// clang-format off
static const struct arch archs[] = {
    /* cc, SMs, shared memory of an SM and of a block (opt-in), reserved, L2, registers, threads, blocks */
    {75, 40, 65536, 65536, 0, 4194304, 65536, 1024, 16, "cuemu Turing (sm_75)"},
    {80, 108, 167936, 166912, 1024, 41943040, 65536, 2048, 32, "cuemu Ampere (sm_80)"},
    {86, 84, 102400, 101376, 1024, 6291456, 65536, 1536, 16, "cuemu Ampere (sm_86)"},
    {89, 128, 102400, 101376, 1024, 75497472, 65536, 1536, 24, "cuemu Ada (sm_89)"},
    {90, 132, 233472, 232448, 1024, 52428800, 65536, 2048, 32, "cuemu Hopper (sm_90)"},
    {100, 148, 233472, 232448, 1024, 132120576, 65536, 2048, 32, "cuemu Blackwell (sm_100)"},
    {120, 170, 102400, 101376, 1024, 100663296, 65536, 1536, 24, "cuemu Blackwell (sm_120)"},
};
// clang-format on

const struct arch *arch_of(int cc)
{
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++) {
        if (archs[i].cc == cc)
            return &archs[i];
    }
    return NULL;
}

int arch_attribute(const struct arch *a, int attribute, int *value)
{
    switch (attribute) { /* CU_DEVICE_ATTRIBUTE_... */
    case 1:
        *value = 1024;
        return 0; /* MAX_THREADS_PER_BLOCK */
    case 2:
    case 3:
        *value = 1024;
        return 0; /* MAX_BLOCK_DIM_X, Y */
    case 4:
        *value = 64;
        return 0; /* MAX_BLOCK_DIM_Z */
    case 5:
        *value = 0x7fffffff;
        return 0; /* MAX_GRID_DIM_X */
    case 6:
    case 7:
        *value = 65535;
        return 0; /* MAX_GRID_DIM_Y, Z */
    case 8:
        *value = 49152;
        return 0; /* MAX_SHARED_MEMORY_PER_BLOCK */
    case 9:
        *value = 65536;
        return 0; /* TOTAL_CONSTANT_MEMORY */
    case 10:
        *value = WARP;
        return 0; /* WARP_SIZE */
    case 12:
        *value = a->regs_sm;
        return 0; /* MAX_REGISTERS_PER_BLOCK */
    case 13:
        *value = 1500000;
        return 0; /* CLOCK_RATE */
    case 14:
        *value = 512;
        return 0; /* TEXTURE_ALIGNMENT */
    case 15:
        *value = 1;
        return 0; /* GPU_OVERLAP */
    case 16:
        *value = a->sms;
        return 0; /* MULTIPROCESSOR_COUNT */
    case 18:
        *value = 0;
        return 0; /* INTEGRATED */
    case 31:
        *value = 1;
        return 0; /* CONCURRENT_KERNELS */
    case 38:
        *value = a->l2;
        return 0; /* L2_CACHE_SIZE */
    case 39:
        *value = a->threads_sm;
        return 0; /* MAX_THREADS_PER_MULTIPROCESSOR */
    case 40:
        *value = 2;
        return 0; /* ASYNC_ENGINE_COUNT */
    case 41:
        *value = 1;
        return 0; /* UNIFIED_ADDRESSING */
    case 75:
        *value = a->cc / 10;
        return 0; /* COMPUTE_CAPABILITY_MAJOR */
    case 76:
        *value = a->cc % 10;
        return 0; /* COMPUTE_CAPABILITY_MINOR */
    case 81:
        *value = a->smem_sm;
        return 0; /* MAX_SHARED_MEMORY_PER_MULTIPROCESSOR */
    case 82:
        *value = a->regs_sm;
        return 0; /* MAX_REGISTERS_PER_MULTIPROCESSOR */
    case 97:
        *value = a->smem_block_optin;
        return 0; /* MAX_SHARED_MEMORY_PER_BLOCK_OPTIN */
    case 106:
        *value = a->blocks_sm;
        return 0; /* MAX_BLOCKS_PER_MULTIPROCESSOR */
    case 111:
        *value = a->smem_reserved;
        return 0; /* RESERVED_SHARED_MEMORY_PER_BLOCK */
    case 115:
        *value = 0;
        return 0; /* MEMORY_POOLS_SUPPORTED: cuMemAllocAsync is absent */
    default:
        return 1;
    }
}

/* The newest PTX that the driver of a CUDA release knows ("Release Notes" of the PTX ISA). */
int ptx_version_of_driver(int driver)
{
    static const int table[][2] = {
        {13010, 91},
        {13000, 90},
        {12090, 88},
        {12080, 87},
        {12070, 86},
        {12050, 85},
        {12040, 84},
        {12030, 83},
        {12020, 82},
        {12010, 81},
        {12000, 80},
        {11080, 78},
        {11070, 77},
        {11060, 76},
        {11050, 75},
        {11040, 74},
        {11030, 73},
        {11020, 72},
        {11010, 71},
        {11000, 70}
    };
    if (driver > 13010)
        return 91 + (driver - 13010) / 10;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (driver >= table[i][0])
            return table[i][1];
    }
    return 65;
}
