/* SPDX-License-Identifier: MIT */
/* Which tables of micro-kernels can run here: what the build has, what the CPU and the system
 * allow, and what ATTEND_ISA leaves. */
#include "simd.h"

#include <string.h>

#include "../lib/env.h"
#include "../lib/os.h"

#if defined(__x86_64__)
#    include <cpuid.h>
#endif

extern const struct at_simd at_simd_scalar, at_simd_avx2, at_simd_avx512, at_simd_neon;

/* Each says why its instruction set cannot be used here, or NULL. */

static inline const char *nothing(void)
{
    return NULL;
}

static inline const char *not_built(void)
{
    return "not in this build";
}

#if defined(__x86_64__)

/* The state components that the system saves: SSE and AVX are bits 1 and 2, AVX-512 bits 5 to 7. */
static uint32_t saved_state(void)
{
    uint32_t a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
        return 0;
    __asm__("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    return a;
}

static inline const char *lacks_avx2(void)
{
    uint32_t a, b, c, d, need = bit_FMA | bit_AVX | bit_F16C;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & need) != need)
        return "the CPU lacks AVX, FMA or F16C";
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & bit_AVX2))
        return "the CPU lacks AVX2";
    return (saved_state() & 0x6) == 0x6 ? NULL : "the system does not save AVX registers";
}

static inline const char *lacks_avx512(void)
{
#    ifdef AT_SIMD_EMULATED /* t/simde */
    return NULL;
#    endif
    uint32_t a, b, c, d, need = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL;
    const char *why = lacks_avx2();
    if (why)
        return why;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (b & need) != need)
        return "the CPU lacks AVX-512 F, BW, DQ or VL";
    return (saved_state() & 0xe6) == 0xe6 ? NULL : "the system does not save AVX-512 registers";
}

static int has_dot(const struct at_simd *t)
{
    uint32_t a, b, c, d;
#    ifdef HAVE_SIMD_AVX512
    if (t == &at_simd_avx512)
        return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (c & 1u << 11); /* AVX512_VNNI */
#    endif
#    ifdef HAVE_SIMD_AVX2
    if (t == &at_simd_avx2)
        return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 4); /* AVX-VNNI */
#    endif
    return (void)t, 0;
}

#else

static int has_dot(const struct at_simd *t)
{
    return !strcmp(t->name, "neon") && at_os_cpu_has_dot();
}

#endif

/* Lowest first.  configure says which the compiler could make. */
static const struct {
    const char *name;
    const struct at_simd *table;
    const char *(*why_not)(void);
} isas[AT_SIMD_ISAS] = {
#ifdef HAVE_SIMD_SCALAR
    {"scalar", &at_simd_scalar, nothing     },
#else
    {"scalar", NULL, not_built},
#endif
#ifdef HAVE_SIMD_AVX2
    {"avx2",   &at_simd_avx2,   lacks_avx2  },
#else
    {"avx2", NULL, not_built},
#endif
#ifdef HAVE_SIMD_AVX512
    {"avx512", &at_simd_avx512, lacks_avx512},
#else
    {"avx512", NULL, not_built},
#endif
#ifdef HAVE_SIMD_NEON
    {"neon",   &at_simd_neon,   nothing     }, /* a part of every AArch64 */
#else
    {"neon", NULL, not_built},
#endif
};

const char *at_simd_unknown(void)
{
    const char *highest = at_env(AT_ENV_ISA);
    for (int n = 0; highest && n < AT_SIMD_ISAS; n++)
        if (!strcmp(highest, isas[n].name))
            return NULL;
    return highest;
}

void at_simd_list(struct at_simd_isa list[AT_SIMD_ISAS])
{
    const char *highest = at_env(AT_ENV_ISA);
    int masked = 0, unknown = at_simd_unknown() != NULL;
    for (int n = 0; n < AT_SIMD_ISAS; n++) {
        struct at_simd_isa *isa = &list[n];
        isa->name = isas[n].name;
        isa->why = masked         ? "above the one that ATTEND_ISA names"
                   : unknown && n ? "ATTEND_ISA names no instruction set"
                                  : isas[n].why_not();
        isa->table = isa->why ? NULL : isas[n].table;
        masked |= highest && !strcmp(highest, isa->name);
    }
}

const struct at_simd *at_simd_find(const char *name)
{
    struct at_simd_isa list[AT_SIMD_ISAS];
    at_simd_list(list);
    for (int n = 0; n < AT_SIMD_ISAS; n++)
        if (!strcmp(list[n].name, name))
            return list[n].table;
    return NULL;
}

const struct at_simd *at_simd_best(void)
{
    struct at_simd_isa list[AT_SIMD_ISAS];
    const struct at_simd *best = NULL;
    at_simd_list(list);
    for (int n = 0; n < AT_SIMD_ISAS; n++)
        if (list[n].table)
            best = list[n].table;
    return best;
}

/* The few rows of a and one score block; or slices (256 deep) of 24 panels of columns of b and 96
 * rows of a, and sums of 192 columns where c is stored smaller than f32. */
int64_t at_simd_matmul_floats(const struct at_simd *t, const struct at_matmul *mm)
{
    int few = mm->m < t->few_rows ? (int)mm->m : t->few_rows;
    if (at_simd_wants_acts(t, mm))
        return 0;
    if ((mm->m <= t->few_rows || mm->one_form) && !mm->b_is_kn && !mm->a_is_km && !mm->b_packed)
        return at_simd_dots_q_floats(few, mm->k) + at_simd_dots_block_floats(t, few);
    int64_t rows = mm->m < 4096 ? mm->m : 4096, depth = mm->k < 512 ? mm->k : 512;
    return 12 * t->rows_per_panel * 512 + at_simd_round(rows * depth, 16) +
           (mm->c_type == AT_ELEM_F32 ? 0 : rows * 192);
}

/* Whole groups of rows, of blocks with four bytes of scales (k_quant.h). */
int64_t at_simd_weights_bytes(const struct at_simd *t, enum at_elem type, int64_t n, int64_t k)
{
    return at_simd_round(n, t->vl) * ((k + 31) / 32) * (4 + (type == AT_ELEM_Q8_0 ? 32 : 16));
}

int64_t at_simd_acts_bytes(const struct at_matmul *mm)
{
    int64_t block = mm->int8 ? 32 + 3 * 4 : 32 * 4 + 4;
    return at_simd_round(mm->m * ((mm->k + 31) / 32) * block, 64);
}

enum at_int8 at_simd_int8(const struct at_simd *t)
{
    return has_dot(t) ? AT_INT8_DOT : AT_INT8;
}
