/* SPDX-License-Identifier: MIT */
/* Stands for AMD's device library where kernels are only compiled, to count registers: what OpenCL
 * C's functions come to, inline, as they are there.  Included after clang's declarations of them.
 */
#define get_local_id(d) ((size_t)__builtin_amdgcn_workitem_id_x())
#define get_group_id(d)                                                                            \
    ((size_t)((d) == 0   ? __builtin_amdgcn_workgroup_id_x()                                       \
              : (d) == 1 ? __builtin_amdgcn_workgroup_id_y()                                       \
                         : __builtin_amdgcn_workgroup_id_z()))
#define barrier(flags)                                                                             \
    (__builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup"), __builtin_amdgcn_s_barrier(),          \
     __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup"))
#define fma(a, b, c) __builtin_fmaf(a, b, c)
#define fmax(a, b) __builtin_fmaxf(a, b)
#define fmin(a, b) __builtin_fminf(a, b)
#define fabs(a) __builtin_fabsf(a)
#define rint(a) __builtin_rintf(a)
#define sqrt(a) __builtin_sqrtf(a)
#define exp2(a) __builtin_exp2f(a)
#define exp(a) __builtin_exp2f((a)*1.442695041f)
#define log(a) (__builtin_log2f(a) * 0.6931471806f)
#define tanh(a) amd_tanh(a)
#define mul_hi(a, b) ((uint)(((ulong)(a) * (ulong)(b)) >> 32))
#define vload_half(i, p) amd_load_half(p, i)
#define vstore_half_rte(x, i, p) amd_store_half(p, i, x)
static inline float amd_tanh(float a)
{
    float e = __builtin_exp2f(__builtin_fabsf(a) * 2.885390082f);
    return __builtin_copysignf(1.0f - 2.0f / (e + 1.0f), a);
}
#pragma OPENCL EXTENSION cl_khr_fp16 : enable
static inline float amd_load_half(const __global half *p, long i)
{
    return (float)p[i];
}
static inline void amd_store_half(__global half *p, long i, float x)
{
    p[i] = (half)x;
}
