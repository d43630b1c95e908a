/* SPDX-License-Identifier: MIT */
/* The prelude: what makes the portable text both OpenCL C 1.2 and CUDA C.  kernel_args.h and the
 * expressions of the user follow it. */
#define AT_KERNEL_TEXT
#if defined(__OPENCL_VERSION__) || defined(__OPENCL_C_VERSION__)
typedef int at_i32;
typedef uint at_u32;
typedef long at_i64;
typedef ulong at_u64;
typedef char at_i8;
typedef float at_f32;
#define AT_KERNEL __kernel
#define AT_GROUP(n) __attribute__((reqd_work_group_size(n, 1, 1)))
#define AT_FN static inline
#define AT_GLOBAL __global
#define AT_SHARED __local
#define AT_LOCAL __local /* of a parameter */
#define AT_CONST __constant
#define AT_ITEM ((int)get_local_id(0))
#define AT_GROUP_X ((at_i64)get_group_id(0))
#define AT_GROUP_Y ((at_i64)get_group_id(1))
#define AT_GROUP_Z ((at_i64)get_group_id(2))
#define AT_BARRIER() barrier(CLK_LOCAL_MEM_FENCE)
#define AT_BARRIER_ALL() barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE)
#define AT_INF INFINITY
#define at_bits_float(x) as_float(x)
#define at_float_bits(x) as_uint(x)
#define at_take(p) atomic_cmpxchg(p, 0, 1)
#define at_mul_hi(a, b) mul_hi((at_u32)(a), (at_u32)(b))
AT_FN float at_half(AT_GLOBAL const uchar *p, at_i64 at)
{
    return vload_half(at, (AT_GLOBAL const half *)p);
}
AT_FN void at_put_half(AT_GLOBAL uchar *p, at_i64 at, float x)
{
    vstore_half_rte(x, at, (AT_GLOBAL half *)p);
}
#else
typedef int at_i32;
typedef unsigned at_u32;
typedef long long at_i64;
typedef unsigned long long at_u64;
typedef float at_f32;
typedef unsigned char uchar;
typedef signed char at_i8;
#define AT_KERNEL extern "C" __global__
#define AT_GROUP(n) __launch_bounds__(n, 1) /* else ptxas spills to have more groups at a time */
#define AT_FN static __device__ inline
#define AT_GLOBAL
#define AT_SHARED __shared__
#define AT_LOCAL
#define AT_CONST const
#define AT_ITEM ((int)threadIdx.x)
#define AT_GROUP_X ((at_i64)blockIdx.x)
#define AT_GROUP_Y ((at_i64)blockIdx.y)
#define AT_GROUP_Z ((at_i64)blockIdx.z)
#define AT_BARRIER() __syncthreads()
#define AT_BARRIER_ALL() __syncthreads()
#define AT_INF __int_as_float(0x7f800000)
#define at_bits_float(x) __uint_as_float(x)
#define at_float_bits(x) __float_as_uint(x)
#define at_take(p) atomicCAS(p, 0, 1)
#define at_mul_hi(a, b) __umulhi(a, b)
#define fma fmaf
#define fmax fmaxf
#define fabs fabsf
#define exp expf
#define exp2 exp2f
#define expm1 expm1f
#define log logf
#define tanh tanhf
#define sqrt sqrtf
#define rsqrt rsqrtf
#define erf erff
#define erfc erfcf
#define cos cosf
#define sin sinf
#define pow powf
#define rint rintf
#define fmin fminf
AT_FN float at_half(const uchar *p, at_i64 at)
{
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(((const unsigned short *)p)[at]));
    return x;
}
AT_FN void at_put_half(uchar *p, at_i64 at, float x)
{
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(((unsigned short *)p)[at]) : "f"(x));
}
#endif

/* ---- elements: the numbers of attend_type ---- */

#define AT_F32 0
#define AT_F16 1
#define AT_BF16 2
#define AT_I8 4
#define AT_I32 5
#define AT_I64 6
#define AT_U8 7
#define AT_BOOL 8
#define AT_Q8_0 9
#define AT_Q4_0 10
#define AT_Q4_1 11
#define AT_F8 12

AT_FN float at_bf16(at_u32 h)
{
    return at_bits_float(h << 16);
}

/* fp8 e4m3: bias 7, no infinities, NaN is 0x7f and 0xff. */
AT_FN float at_f8(at_u32 e)
{
    at_u32 sign = (e & 0x80) << 24, rest = e & 0x7f;
    float x = rest >= 8 ? at_bits_float((rest << 20) + ((at_u32)(127 - 7) << 23))
                        : (float)rest * 0.001953125f;
    if (rest == 0x7f)
        x = at_bits_float(0x7fc00000);
    return at_bits_float(sign | at_float_bits(x));
}

/* Element number `at` of p. */
AT_FN float at_load(AT_GLOBAL const uchar *p, at_i64 at, int type)
{
    switch (type) {
    case AT_F32:
        return ((AT_GLOBAL const float *)p)[at];
    case AT_F16:
        return at_half(p, at);
    case AT_BF16:
        return at_bf16(((AT_GLOBAL const unsigned short *)p)[at]);
    case AT_F8:
        return at_f8(p[at]);
    case AT_BOOL:
        return p[at] != 0 ? 1.0f : 0.0f;
    case AT_I32:
        return (float)((AT_GLOBAL const at_i32 *)p)[at];
    case AT_I64:
        return (float)((AT_GLOBAL const at_i64 *)p)[at];
    case AT_U8:
        return (float)p[at];
    default:
        return (float)((AT_GLOBAL const at_i8 *)p)[at];
    }
}

/* Channel d of a row that begins at element, or block, number `at`. */
AT_FN float at_channel(AT_GLOBAL const uchar *p, at_i64 at, int d, int type)
{
    if (type != AT_Q8_0 && type != AT_Q4_0 && type != AT_Q4_1)
        return at_load(p, at + d, type);
    at_i64 block = at + d / 32;
    int e = d % 32;
    if (type == AT_Q8_0) {
        AT_GLOBAL const uchar *b = p + block * 34;
        return at_half(b, 0) * (float)((AT_GLOBAL const at_i8 *)b)[2 + e];
    }
    AT_GLOBAL const uchar *b = p + block * (type == AT_Q4_0 ? 18 : 20);
    int q = (b[(type == AT_Q4_0 ? 2 : 4) + e % 16] >> (e / 16 * 4)) & 15;
    if (type == AT_Q4_0)
        return at_half(b, 0) * (float)(q - 8);
    return at_half(b, 0) * (float)q + at_half(b, 1);
}

AT_FN at_u32 at_bf16_of(float x)
{
    at_u32 bits = at_float_bits(x);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return bits >> 16 | 0x40;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

AT_FN at_u32 at_f8_of(float x)
{
    at_u32 bits = at_float_bits(x), rest = bits & 0x7fffffff, sign = bits >> 24 & 0x80;
    if (rest > 0x7f800000)
        return sign | 0x7f;
    if (rest > 0x43e00000)
        return sign | 0x7e;
    if (rest < 0x3c800000)
        return sign | (at_float_bits(at_bits_float(rest) + 16384.0f) - 0x46800000);
    return sign | ((rest - ((127 - 7) << 23) + 0x7ffff + (rest >> 20 & 1)) >> 20);
}

AT_FN void at_store(AT_GLOBAL uchar *p, at_i64 at, int type, float x)
{
    if (type == AT_F32)
        ((AT_GLOBAL float *)p)[at] = x;
    else if (type == AT_F16)
        at_put_half(p, at, x);
    else if (type == AT_BF16)
        ((AT_GLOBAL unsigned short *)p)[at] = (unsigned short)at_bf16_of(x);
    else
        p[at] = (uchar)at_f8_of(x);
}

/* ---- sums ---- */

/* The sum, or the largest, of what the items of a group have: a power of 2 of them.  Every item gets it. */
AT_FN float at_reduce(AT_LOCAL float *red, int items, float x, int largest)
{
    red[AT_ITEM] = x;
    for (int n = items / 2; n > 0; n /= 2) {
        AT_BARRIER();
        if (AT_ITEM < n)
            red[AT_ITEM] = largest ? fmax(red[AT_ITEM], red[AT_ITEM + n])
                                   : red[AT_ITEM] + red[AT_ITEM + n];
    }
    AT_BARRIER();
    x = red[0];
    AT_BARRIER();
    return x;
}

/* *sum + *rest grows by x, and loses less than f32 would. */
AT_FN void at_add(float *sum, float *rest, float x)
{
    float all = *sum + x;
    *rest += fabs(*sum) >= fabs(x) ? (*sum - all) + x : (x - all) + *sum;
    *sum = all;
}
