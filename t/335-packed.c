/* SPDX-License-Identifier: MIT */
/* Products with packed weights against double: with activations as they are, and as integers, by
 * every way that this CPU has; every number of rows; ragged sizes; parts, which must not change a
 * bit; and rows, whose bits must not depend on how many there are.
 *
 * Bounds.  A weight is d n + c, n a small integer and c, with floats, the value in the middle of
 * its block (q4_1; else 0), with integers the lowest; so a sum of k products is off by at most (k +
 * 4) u sum |a| (|b| + 2 |c|), u = 2^-24, of activations as they are or as they were rounded. */
#include "kernel.h"

static const struct size {
    int64_t m, n, k;
} sizes[] = {
    {1,   1,   1  },
    {1,   130, 96 },
    {2,   33,  40 },
    {3,   17,  257},
    {4,   64,  64 },
    {7,   5,   300},
    {9,   50,  64 },
    {16,  31,  520},
    {17,  1,   33 },
    {26,  40,  31 },
    {33,  65,  256},
    {63,  257, 64 },
    {241, 100, 31 },
    {250, 33,  600},
    {5,   0,   3  },
    {0,   4,   3  },
    {3,   4,   0  },
};

struct problem {
    const struct at_simd *t;
    struct at_matmul mm;
    float *a, *b;           /* what their rows hold */
    float *middle, *lowest; /* of the block of each element of b */
    char *rows, *arows;
    void *packed;
};

static void fill_weights(struct problem *p)
{
    enum at_elem type = p->mm.b_type;
    int64_t n = p->mm.n, k = p->mm.k, units = row_units(type, k);
    for (int64_t j = 0; j < n; j++) {
        char *row = p->rows + j * units * at_elem_size(type);
        for (int64_t e = 0; e < k; e++)
            p->b[j * k + e] = (float)uniform(-1, 1.5);
        store_elems(row, type, p->b + j * k, k);
        for (int64_t e = 0; e < k; e++) {
            const struct at_q4_1 *block = (const struct at_q4_1 *)(const void *)row + e / 32;
            bool has = type == AT_ELEM_Q4_1;
            float low = has ? at_half_to_float(block->m) : 0;
            p->lowest[j * k + e] = low;
            p->middle[j * k + e] = has ? low + 8 * at_half_to_float(block->d) : 0;
        }
    }
    struct at_rows w = {p->rows, units, n, k, type};
    p->t->pack_weights(p->packed, &w);
}

/* As the contract says: the nearest of -127 .. 127 times a scale for each 32. */
static void round_acts(float *a, int64_t k)
{
    for (int64_t e = 0; e < k; e += 32) {
        float top = 0;
        for (int64_t i = e; i < k && i < e + 32; i++)
            top = fmaxf(top, fabsf(a[i]));
        for (int64_t i = e; i < k && i < e + 32; i++)
            a[i] = top > 0 ? top / 127.0f * rintf(a[i] * (127.0f / top)) : 0;
    }
}

static void run(struct problem *p, void *c, int64_t istep, int64_t nstep)
{
    const int64_t floats = at_simd_matmul_floats(p->t, &p->mm);
    float *scratch = taken_floats(floats);
    bool acts = at_simd_wants_acts(p->t, &p->mm);
    int64_t bytes = acts ? at_simd_acts_bytes(&p->mm) : 0;
    p->mm.x = taken(bytes, 0);
    p->mm.c = c;
    for (int64_t i = 0; acts && i < p->mm.m; i += istep)
        p->t->pack_acts(&p->mm, i, i + istep < p->mm.m ? i + istep : p->mm.m);
    for (int64_t i = 0; i < p->mm.m; i += istep)
        for (int64_t n = 0; n < p->mm.n; n += nstep)
            p->t->matmul(&p->mm, i, i + istep < p->mm.m ? i + istep : p->mm.m, n,
                         n + nstep < p->mm.n ? n + nstep : p->mm.n, scratch);
    ok(released(scratch, 0) & released(p->mm.x, 0), "%s: scratch has the size that is stated",
       p->t->name);
}

/* Values of c, whose activations were `a`, or were rounded to them. */
static void compare_all(struct problem *p, const char *c, const float *a, const char *what)
{
    struct worst w = {0};
    int64_t k = p->mm.k, size = at_elem_size(p->mm.c_type);
    for (int64_t i = 0; i < p->mm.m; i++)
        for (int64_t j = 0; j < p->mm.n; j++) {
            double sum = 0, sizes_sum = 0;
            float got;
            for (int64_t e = 0; e < k; e++) {
                double b = p->b[j * k + e], x = a[i * k + e];
                double low = p->lowest[j * k + e], middle = p->middle[j * k + e];
                sum += x * b;
                sizes_sum += fabs(x) * (fabs(b) + 2 * fabs(p->mm.int8 ? low : middle));
            }
            p->t->convert(&got, AT_ELEM_F32, c + (i * p->mm.c_stride + j) * size, p->mm.c_type, 1);
            double type = p->mm.c_type == AT_ELEM_F16 ? 0x1p-11 : p->mm.c_type ? 0x1p-8 : 0;
            double bound = ((double)k + 4) * UNIT * sizes_sum + type * fabs(sum) + 1e-37;
            compare(&w, got, sum, bound, i, j);
        }
    is_close(&w, "%s: %dx%dx%d %s %s %s: %s", p->t->name, (int)p->mm.m, (int)p->mm.n, (int)k,
             elem_name[p->mm.a_type], elem_name[p->mm.b_type], elem_name[p->mm.c_type], what);
}

/* The last row of activations alone gives the bits that it gave among the others. */
static void check_alone(struct problem *p, const char *c)
{
    int64_t size = at_elem_size(p->mm.c_type), last = p->mm.m - 1;
    struct problem one = *p;
    if (last < 1 || !at_simd_wants_acts(p->t, &p->mm))
        return;
    one.mm.m = 1;
    one.mm.a = (const char *)p->mm.a + last * p->mm.a_stride * at_elem_size(p->mm.a_type);
    char *row = taken(p->mm.n * size, 0);
    run(&one, row, 1, 64);
    ok(!memcmp(row, c + last * p->mm.c_stride * size, (size_t)(p->mm.n * size)),
       "%s: the last of %d rows, alone", p->t->name, (int)p->mm.m);
    released(row, 0);
}

static void check_int8(struct problem *p, enum at_int8 int8, const char *what)
{
    int64_t m = p->mm.m, k = p->mm.k, size = at_elem_size(p->mm.c_type);
    int64_t bytes = m * p->mm.c_stride * size;
    float *a = malloc((size_t)(m * k + 1) * 4);
    char *c = taken(bytes, size), *parts = taken(bytes, size);
    memset(c, 0x33, (size_t)bytes);
    memset(parts, 0x33, (size_t)bytes);
    memcpy(a, p->a, (size_t)(m * k) * 4);
    for (int64_t i = 0; int8 && i < m; i++)
        round_acts(a + i * k, k);
    p->mm.int8 = int8;
    run(p, c, m, p->mm.n);
    compare_all(p, c, a, what);
    run(p, parts, 19, 32);
    ok(!memcmp(c, parts, (size_t)bytes), "%s: the same bits in parts", p->t->name);
    check_alone(p, c);
    ok(released(c, size) & released(parts, size), "%s: nothing written around", p->t->name);
    free(a);
}

static void check(const struct at_simd *t, const struct size *s, enum at_elem type,
                  enum at_elem other)
{
    struct problem p = {.t = t};
    int64_t units = row_units(type, s->k), bytes = at_simd_weights_bytes(t, type, s->n, s->k);
    p.mm = (struct at_matmul){.m = s->m,
                              .n = s->n,
                              .k = s->k,
                              .a_stride = s->k + 3,
                              .c_stride = s->n + 2,
                              .a_type = other,
                              .b_type = type,
                              .c_type = other,
                              .b_packed = 1};
    p.a = malloc((size_t)(s->m * s->k + 1) * 4), p.b = malloc((size_t)(s->n * s->k + 1) * 4);
    p.middle = malloc((size_t)(s->n * s->k + 1) * 4);
    p.lowest = malloc((size_t)(s->n * s->k + 1) * 4);
    p.rows = taken(s->n * units * at_elem_size(type), 0);
    p.arows = taken(s->m * p.mm.a_stride * at_elem_size(other), at_elem_size(other));
    p.packed = taken(bytes, 0);
    memset(p.arows, 0xff, (size_t)(s->m * p.mm.a_stride * at_elem_size(other)));
    fill_weights(&p);
    for (int64_t e = 0; e < s->m * s->k; e++)
        p.a[e] = (float)uniform(-1, 1);
    for (int64_t i = 0; i < s->m; i++)
        store_elems(p.arows + i * p.mm.a_stride * at_elem_size(other), other, p.a + i * s->k, s->k);
    p.mm.a = p.arows, p.mm.b = p.packed;
    check_int8(&p, AT_INT8_NO, "floats");
    check_int8(&p, AT_INT8, "integers");
    if (at_simd_int8(t) == AT_INT8_DOT)
        check_int8(&p, AT_INT8_DOT, "dot products");
    ok(released(p.packed, 0), "%s: packed weights have the size that is stated", t->name);
    released(p.rows, 0), released(p.arows, at_elem_size(other));
    free(p.a), free(p.b), free(p.middle), free(p.lowest);
}

/* Weights and activations at the ends of what they can be: no sum may wrap. */
static void check_extremes(const struct at_simd *t)
{
    enum { N = 20, K = 64 };
    struct at_q8_0 rows[N][K / 32];
    float a[K], c[N], *scratch = taken_floats(at_simd_weights_bytes(t, AT_ELEM_Q8_0, N, K) / 4);
    float x[1024];
    for (int n = 0; n < N; n++)
        for (int e = 0; e < K; e++) {
            rows[n][e / 32].d = at_half_from_float(1);
            rows[n][e / 32].q[e % 32] = n % 2 ? -128 : 127;
            a[e] = -127;
        }
    struct at_rows w = {rows, K / 32, N, K, AT_ELEM_Q8_0};
    t->pack_weights(scratch, &w);
    struct at_matmul mm = {.m = 1,
                           .n = N,
                           .k = K,
                           .a = a,
                           .b = scratch,
                           .c = c,
                           .x = x,
                           .b_packed = 1,
                           .b_type = AT_ELEM_Q8_0,
                           .a_stride = K,
                           .c_stride = N};
    for (mm.int8 = AT_INT8; mm.int8 <= at_simd_int8(t); mm.int8++) {
        a[5] = -127;
        t->pack_acts(&mm, 0, 1);
        t->matmul(&mm, 0, 1, 0, N, NULL);
        ok(c[0] == -127.f * 127 * K && c[1] == 127.f * 128 * K && c[19] == c[1],
           "%s: sums of the largest do not wrap", t->name);
        a[5] = NAN;
        t->pack_acts(&mm, 0, 1);
        t->matmul(&mm, 0, 1, 0, N, NULL);
        ok(isnan(c[0]) && isnan(c[19]), "%s: a NaN is not lost", t->name);
    }
    released(scratch, 0);
}

static void test_isa(const struct at_simd *t)
{
    for (size_t n = 0; n < NELEM(sizes); n++) {
        kernel_seed = 7654321 + n;
        for (int type = AT_ELEM_Q8_0; type <= AT_ELEM_Q4_1; type++)
            check(t, &sizes[n], (enum at_elem)type, AT_ELEM_F32);
        check(t, &sizes[n], AT_ELEM_Q4_1, n % 2 ? AT_ELEM_F16 : AT_ELEM_BF16);
    }
    check_extremes(t);
}

int main(void)
{
    each_isa(test_isa);
    return done_testing();
}
