/* SPDX-License-Identifier: MIT */
/* Which architecture and which version of PTX an instruction needs, from the "PTX ISA Notes" and
 * "Target ISA Notes" of each instruction.  The PTX version of a module says only what its text may
 * hold, so a compiler for an old architecture can let through (inside inline assembly) what
 * hardware has not. */
#include "ptx.h"

#include <stdio.h>
#include <string.h>

struct gate {
    enum ptx_op op;
    int8_t field; /* -1 any, else that field must have this value (ANY: any but 0) */
    uint8_t value;
    int8_t type; /* 0 any, else some type of the instruction must be this */
    int version, target;
    const char *what;
};
#define ANY 255

// clang-format off
static const struct gate gates[] = {
    {OP_CP, F_ASYNC, 1, 0, 70, 80, "cp.async"},
    {OP_REDUX, -1, 0, 0, 70, 80, "redux.sync"},
    {OP_LDMATRIX, -1, 0, 0, 65, 75, "ldmatrix"},
    {OP_STMATRIX, -1, 0, 0, 78, 90, "stmatrix"},
    {OP_MOVMATRIX, -1, 0, 0, 78, 75, "movmatrix"},
    {OP_ELECT, -1, 0, 0, 80, 90, "elect.sync"},
    {OP_GRIDDEP, -1, 0, 0, 78, 90, "griddepcontrol"},
    {OP_CREATEPOLICY, -1, 0, 0, 74, 80, "createpolicy"},
    {OP_BMSK, -1, 0, 0, 76, 70, "bmsk"},
    {OP_NANOSLEEP, -1, 0, 0, 63, 70, "nanosleep"},
    {OP_TANH, -1, 0, 0, 70, 75, "tanh"},
    {OP_TANH, -1, 0, T_BF16, 78, 90, "tanh.bf16"},
    {OP_TANH, -1, 0, T_BF16X2, 78, 90, "tanh.bf16x2"},
    {OP_EX2, -1, 0, T_F16, 70, 75, "ex2.f16"},
    {OP_EX2, -1, 0, T_F16X2, 70, 75, "ex2.f16x2"},
    {OP_EX2, -1, 0, T_BF16, 78, 90, "ex2.bf16"},
    {OP_EX2, -1, 0, T_BF16X2, 78, 90, "ex2.bf16x2"},
    {OP_ADD, -1, 0, T_BF16, 78, 90, "add.bf16"}, {OP_ADD, -1, 0, T_BF16X2, 78, 90, "add.bf16x2"},
    {OP_SUB, -1, 0, T_BF16, 78, 90, "sub.bf16"}, {OP_SUB, -1, 0, T_BF16X2, 78, 90, "sub.bf16x2"},
    {OP_MUL, -1, 0, T_BF16, 78, 90, "mul.bf16"}, {OP_MUL, -1, 0, T_BF16X2, 78, 90, "mul.bf16x2"},
    {OP_FMA, -1, 0, T_BF16, 70, 80, "fma.bf16"}, {OP_FMA, -1, 0, T_BF16X2, 70, 80, "fma.bf16x2"},
    {OP_FMA, F_RELU, 1, 0, 70, 80, "fma.relu"},
    {OP_ADD, -1, 0, T_F32X2, 86, 100, "add.f32x2"}, {OP_SUB, -1, 0, T_F32X2, 86, 100, "sub.f32x2"},
    {OP_MUL, -1, 0, T_F32X2, 86, 100, "mul.f32x2"}, {OP_FMA, -1, 0, T_F32X2, 86, 100, "fma.f32x2"},
    {OP_ABS, -1, 0, T_BF16, 70, 80, "abs.bf16"}, {OP_ABS, -1, 0, T_BF16X2, 70, 80, "abs.bf16x2"},
    {OP_NEG, -1, 0, T_BF16, 70, 80, "neg.bf16"}, {OP_NEG, -1, 0, T_BF16X2, 70, 80, "neg.bf16x2"},
    {OP_MIN, -1, 0, T_F16, 70, 80, "min.f16"}, {OP_MIN, -1, 0, T_F16X2, 70, 80, "min.f16x2"},
    {OP_MAX, -1, 0, T_F16, 70, 80, "max.f16"}, {OP_MAX, -1, 0, T_F16X2, 70, 80, "max.f16x2"},
    {OP_MIN, -1, 0, T_BF16, 70, 80, "min.bf16"}, {OP_MIN, -1, 0, T_BF16X2, 70, 80, "min.bf16x2"},
    {OP_MAX, -1, 0, T_BF16, 70, 80, "max.bf16"}, {OP_MAX, -1, 0, T_BF16X2, 70, 80, "max.bf16x2"},
    {OP_MIN, F_NAN, 1, T_F32, 70, 80, "min.NaN.f32"}, {OP_MAX, F_NAN, 1, T_F32, 70, 80, "max.NaN.f32"},
    {OP_MIN, F_RELU, 1, T_S32, 80, 90, "min.relu.s32"}, {OP_MAX, F_RELU, 1, T_S32, 80, 90, "max.relu.s32"},
    {OP_SETP, -1, 0, T_BF16, 78, 90, "setp.bf16"}, {OP_SETP, -1, 0, T_BF16X2, 78, 90, "setp.bf16x2"},
    {OP_SET, -1, 0, T_BF16, 78, 90, "set.bf16"}, {OP_SET, -1, 0, T_BF16X2, 78, 90, "set.bf16x2"},
    {OP_CVT, -1, 0, T_BF16, 70, 80, "cvt with bf16"}, {OP_CVT, -1, 0, T_BF16X2, 70, 80, "cvt to bf16x2"},
    {OP_CVT, -1, 0, T_F16X2, 70, 80, "cvt to f16x2"}, {OP_CVT, -1, 0, T_TF32, 70, 80, "cvt to tf32"},
    {OP_CVT, -1, 0, T_E4M3X2, 81, 89, "cvt with e4m3x2"}, {OP_CVT, -1, 0, T_E5M2X2, 81, 89, "cvt with e5m2x2"},
    {OP_CVT, F_RELU, 1, 0, 70, 80, "cvt.relu"},
    {OP_ATOM, -1, 0, T_BF16, 78, 90, "atom.bf16"}, {OP_ATOM, -1, 0, T_BF16X2, 78, 90, "atom.bf16x2"},
    {OP_RED, -1, 0, T_BF16, 78, 90, "red.bf16"}, {OP_RED, -1, 0, T_BF16X2, 78, 90, "red.bf16x2"},
    {OP_ATOM, F_VEC, ANY, 0, 81, 90, "vector atom"}, {OP_RED, F_VEC, ANY, 0, 81, 90, "vector red"},
    {OP_LD, F_VEC, 8, 0, 88, 100, "ld.v8"}, {OP_ST, F_VEC, 8, 0, 88, 100, "st.v8"},
    {OP_LD, F_HINT, 1, 0, 74, 80, "a cache hint"}, {OP_ST, F_HINT, 1, 0, 74, 80, "a cache hint"},
    {OP_FENCE, F_SCOPE, SC_CLUSTER, 0, 78, 90, "the cluster scope"},
    {OP_MMA, -1, 0, 0, 65, 75, "mma of these shapes"},
    {OP_MMA, F_SHAPE, SH_M16N8K16, 0, 70, 80, "mma.m16n8k16"},
    {OP_MMA, F_SHAPE, SH_M16N8K32, 0, 70, 80, "mma.m16n8k32"},
    {OP_MMA, F_SHAPE, SH_M16N8K4, 0, 70, 80, "mma.m16n8k4"},
    {OP_MMA, -1, 0, T_BF16, 70, 80, "mma with bf16"}, {OP_MMA, -1, 0, T_TF32, 70, 80, "mma with tf32"},
    {OP_MMA, -1, 0, T_E4M3, 84, 89, "mma with e4m3"}, {OP_MMA, -1, 0, T_E5M2, 84, 89, "mma with e5m2"},
};
// clang-format on

static bool has_type(const struct ptx_ins *ins, int type)
{
    for (int i = 0; i < 4; i++) {
        if (ins->type[i] == type)
            return true;
    }
    return false;
}

static bool matches(const struct gate *g, const struct ptx_ins *ins)
{
    if (g->op != ins->op || (g->type && !has_type(ins, g->type)))
        return false;
    if (g->field < 0)
        return true;
    int value = ins->f[g->field];
    return g->value == ANY ? value != 0 : value == g->value;
}

/* Three operands of min and max. */
static bool three_inputs(const struct ptx_ins *ins)
{
    return (ins->op == OP_MIN || ins->op == OP_MAX) && ins->nin == 3;
}

/* bf16 from f32 is older than from anything else. */
static bool wide_bf16_cvt(const struct ptx_ins *ins)
{
    if (ins->op != OP_CVT || !has_type(ins, T_BF16))
        return false;
    int other = ins->type[0] == T_BF16 ? ins->type[1] : ins->type[0];
    return other != T_F32 && other != T_BF16;
}

const char *ptx_gate(const struct ptx_ins *ins, int version, int target, char suffix, char *buf,
                     size_t size)
{
    (void)suffix; /* nothing that needs sm_90a and the like is known yet */
    struct gate wanted = {.what = NULL};
    for (size_t i = 0; i < sizeof gates / sizeof *gates; i++) {
        if (matches(&gates[i], ins) &&
            (gates[i].version > version || gates[i].target > target || 0))
            wanted = gates[i];
    }
    if (three_inputs(ins) && (version < 88 || target < 100))
        wanted = (struct gate){.version = 88, .target = 100, .what = "min and max of three"};
    if (wide_bf16_cvt(ins) && (version < 78 || target < 90))
        wanted = (struct gate){.version = 78, .target = 90, .what = "cvt of bf16 and this type"};
    if (!wanted.what)
        return NULL;
    snprintf(buf, size,
             "%s requires .target sm_%d and .version %d.%d, the module has sm_%d and %d.%d",
             wanted.what, wanted.target, wanted.version / 10, wanted.version % 10, target,
             version / 10, version % 10);
    return buf;
}
