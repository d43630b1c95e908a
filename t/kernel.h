/* SPDX-License-Identifier: MIT */
/* What the tests of the micro-kernels share: seeded numbers, exact-size buffers between canaries,
 * and the instruction sets of this machine, lowest first. */
#ifndef T_KERNEL_H
#define T_KERNEL_H

#include "half.h"
#include "os.h"
#include "quant.h"
#include "simd.h"
#include "tap.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define UNIT 0x1p-24 /* the rounding error of one f32 operation, relative */

static uint64_t kernel_seed = 1;

static inline double uniform(double lo, double hi)
{
    kernel_seed ^= kernel_seed << 13;
    kernel_seed ^= kernel_seed >> 7;
    kernel_seed ^= kernel_seed << 17;
    return lo + (hi - lo) * (double)(kernel_seed >> 11) * 0x1p-53;
}

static inline int64_t pick(int64_t n)
{
    return (int64_t)uniform(0, (double)n);
}

/* n bytes, `offset` past a 64-byte boundary, between canaries that released() looks at. */
static inline void *taken(int64_t n, int64_t offset)
{
    char *p = at_os_alloc(64, (size_t)(n + offset + 256 + 63) / 64 * 64);
    if (!p)
        bail("no memory");
    memset(p, 0x5a, (size_t)(n + offset + 256 + 63) / 64 * 64);
    memcpy(p, &n, sizeof n);
    memcpy(p + 8, &offset, sizeof offset);
    return p + 128 + offset;
}

static inline float *taken_floats(int64_t n)
{
    return taken(n * 4, 0);
}

/* Frees what taken() gave; whether the bytes around it are as they were. */
static inline bool released(void *at, int64_t offset)
{
    char *p = (char *)at - 128 - offset;
    int64_t n;
    bool clean = true;
    memcpy(&n, p, sizeof n);
    for (int64_t e = 16; e < 128 + offset; e++)
        clean &= p[e] == 0x5a;
    for (int64_t e = 0; e < 64; e++)
        clean &= ((char *)at)[n + e] == 0x5a;
    at_os_free(p);
    return clean;
}

static const char *const elem_name[] = {"f32", "f16", "bf16", "q8_0", "q4_0", "q4_1"};

/* n floats to a row of the type; x becomes what the row holds. */
static inline void store_elems(void *row, enum at_elem type, float *x, int64_t n)
{
    switch (type) {
    case AT_ELEM_F32:
        memcpy(row, x, (size_t)n * 4);
        break;
    case AT_ELEM_F16:
        at_quant_f16(row, x, n);
        at_quant_from_f16(x, row, n);
        break;
    case AT_ELEM_BF16:
        at_quant_bf16(row, x, n);
        at_quant_from_bf16(x, row, n);
        break;
    case AT_ELEM_Q8_0:
        at_quant_q8_0(row, x, n);
        at_quant_from_q8_0(x, row, n);
        break;
    case AT_ELEM_Q4_0:
        at_quant_q4_0(row, x, n);
        at_quant_from_q4_0(x, row, n);
        break;
    default:
        at_quant_q4_1(row, x, n);
        at_quant_from_q4_1(x, row, n);
    }
}

/* Elements, or blocks, of a row of n. */
static inline int64_t row_units(enum at_elem type, int64_t n)
{
    return type >= AT_ELEM_Q8_0 ? (n + 31) / 32 : n;
}

/* Runs the test on each instruction set that this machine has; the others are skipped by name. */
static inline void each_isa(void (*test)(const struct at_simd *t))
{
    struct at_simd_isa list[AT_SIMD_ISAS];
    at_simd_list(list);
    for (int n = 0; n < AT_SIMD_ISAS; n++) {
        if (list[n].table)
            test(list[n].table);
        else
            skip("%s: %s", list[n].name, list[n].why);
    }
}

/* The worst element of a comparison, as a share of its bound. */
struct worst {
    double share, got, want, bound;
    int64_t at[2];
};
static inline void compare(struct worst *w, double got, double want, double bound, int64_t a,
                           int64_t b)
{
    double share = fabs(got - want) / bound;
    if (got == want || (isnan(got) && isnan(want)))
        share = 0;
    else if (!(share >= 0))
        share = INFINITY;
    if (share > w->share)
        *w = (struct worst){
            share, got, want, bound, {a, b}
        };
}
/* A result: every compared element was within its bound. */
#define is_close(w, ...)                                                                           \
    (ok((w)->share <= 1, __VA_ARGS__)                                                              \
         ? (void)0                                                                                 \
         : diag("at [%d, %d] got %.9g, want %.9g, bound %.3g", (int)(w)->at[0], (int)(w)->at[1],   \
                (w)->got, (w)->want, (w)->bound))

#endif
