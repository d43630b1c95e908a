/* SPDX-License-Identifier: MIT */
/* Matrix product against double: both forms, every type, ragged sizes, strides, and division into
 * parts, which must not change a bit.
 *
 * Bound: a sum of k products in any order is off by at most (k + 1) u sum |a b|, u = 2^-24; slices
 * of 512 add one rounding each; then the rounding to the type of c.  b is what its blocks hold, but
 * q4_1 may fuse d q + m or not: one more rounding. */
#include "kernel.h"

/* Up to more than two slices of k, more columns than one has, more rows than are packed at once. */
static const struct size {
    int64_t m, n, k;
} sizes[] = {
    {1,    1,   1   },
    {1,    130, 96  },
    {2,    33,  40  },
    {3,    17,  257 },
    {4,    64,  64  },
    {7,    5,   300 },
    {9,    50,  64  },
    {16,   31,  520 },
    {17,   1,   33  },
    {17,   40,  31  },
    {33,   65,  256 },
    {63,   257, 64  },
    {65,   300, 70  },
    {241,  100, 31  },
    {250,  33,  600 },
    {18,   400, 1030},
    {4100, 3,   33  },
    {5,    0,   3   },
    {0,    4,   3   },
    {3,    4,   0   },
    {30,   20,  0   },
};

static void fill(char *rows, float *x, enum at_elem type, int64_t n, int64_t width, int64_t stride)
{
    for (int64_t e = 0; e < n * width; e++)
        x[e] = (float)uniform(-1, 1);
    for (int64_t j = 0; j < n; j++)
        store_elems(rows + j * stride * at_elem_size(type), type, x + j * width, width);
}

static void check(const struct at_simd *t, const struct size *s, enum at_elem at, enum at_elem bt,
                  enum at_elem ct, int kn, int km)
{
    int64_t brows = kn ? s->k : s->n, bwidth = kn ? s->n : s->k;
    int64_t arows = km ? s->k : s->m, awidth = km ? s->m : s->k;
    struct at_matmul mm = {.m = s->m, .n = s->n, .k = s->k, .b_is_kn = kn, .a_is_km = km};
    struct worst w = {0};
    mm.a_type = at, mm.b_type = bt, mm.c_type = ct;
    mm.a_stride = awidth + 3, mm.b_stride = row_units(bt, bwidth) + 1, mm.c_stride = s->n + 2;
    int64_t boff = bt == AT_ELEM_F32 ? 4 : 2; /* the least that its elements allow */
    int64_t size = at_elem_size(ct), cbytes = s->m * mm.c_stride * size;
    char *a = taken(arows * mm.a_stride * at_elem_size(at), at_elem_size(at));
    char *b = taken(brows * mm.b_stride * at_elem_size(bt), boff);
    char *c = taken(cbytes, size), *parts = taken(cbytes, size);
    float *af = malloc((size_t)(s->m * s->k + 1) * 4), *bf = malloc((size_t)(s->n * s->k + 1) * 4);
    int64_t floats = at_simd_matmul_floats(t, &mm);
    float *scratch = taken_floats(floats);
    memset(a, 0xff, (size_t)(arows * mm.a_stride * at_elem_size(at))); /* NaN between the rows */
    memset(b, 0xff, (size_t)(brows * mm.b_stride * at_elem_size(bt)));
    memset(c, 0x33, (size_t)cbytes);
    memset(parts, 0x33, (size_t)cbytes);
    fill(a, af, at, arows, awidth, mm.a_stride);
    fill(b, bf, bt, brows, bwidth, mm.b_stride);
    mm.a = a, mm.b = b, mm.c = c;
    t->matmul(&mm, 0, s->m, 0, s->n, scratch);
    for (int64_t i = 0; i < s->m; i++)
        for (int64_t j = 0; j < s->n; j++) {
            double sum = 0, sizes_sum = 0;
            float got;
            for (int64_t x = 0; x < s->k; x++) {
                double ab = (double)af[km ? x * s->m + i : i * s->k + x] *
                            (double)bf[kn ? x * s->n + j : j * s->k + x];
                sum += ab;
                sizes_sum += fabs(ab);
            }
            t->convert(&got, AT_ELEM_F32, c + (i * mm.c_stride + j) * size, ct, 1);
            double type = ct == AT_ELEM_F16 ? 0x1p-11 : ct ? 0x1p-8 : 0;
            double bound = ((double)s->k + (double)s->k / 256 + 3) * UNIT * sizes_sum;
            compare(&w, got, sum, bound + type * fabs(sum) + 1e-37, i, j);
        }
    mm.c = parts;
    for (int64_t i = 0; i < s->m; i += 19)
        for (int64_t j = 0; j < s->n; j += 37)
            t->matmul(&mm, i, i + 19 < s->m ? i + 19 : s->m, j, j + 37 < s->n ? j + 37 : s->n,
                      scratch);
    bool same = !memcmp(c, parts, (size_t)cbytes); /* the gaps between rows of c too */
    bool clean = released(a, at_elem_size(at)) & released(b, boff) & released(c, size) &
                 released(parts, size) & released(scratch, 0);
    is_close(&w, "%s: %dx%dx%d %s %s%s %s: values", t->name, (int)s->m, (int)s->n, (int)s->k,
             elem_name[at], elem_name[bt],
             kn   ? km ? " km kn" : " kn"
             : km ? " km"
                  : "",
             elem_name[ct]);
    ok(same && clean, "%s: the same bits in parts, nothing written around", t->name);
    free(af), free(bf);
}

static void test_isa(const struct at_simd *t)
{
    for (size_t n = 0; n < NELEM(sizes); n++) {
        kernel_seed = 1234567 + n;
        for (int type = 0; type < AT_ELEM_COUNT; type++)
            check(t, &sizes[n], AT_ELEM_F32, (enum at_elem)type, AT_ELEM_F32, 0, 0);
        for (int type = 0; type <= AT_ELEM_BF16; type++) {
            check(t, &sizes[n], (enum at_elem)type, AT_ELEM_F32, (enum at_elem)type, 0, 0);
            check(t, &sizes[n], AT_ELEM_F32, (enum at_elem)type, AT_ELEM_F32, 1, 0);
            check(t, &sizes[n], (enum at_elem)type, AT_ELEM_F32, AT_ELEM_F32, type == 0, 1);
        }
        check(t, &sizes[n], AT_ELEM_F16, AT_ELEM_F16, AT_ELEM_F16, 1, 0);
    }
}

int main(void)
{
    each_isa(test_isa);
    return done_testing();
}
