/* SPDX-License-Identifier: MIT */
/* Each instruction of the emulator against the PTX ISA: its text, what goes in, what must come out.
 * Expected values were worked out from the manual's words, not from the emulator. */
#include "emu.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Operands of a row: D is written, A B C E are read; each has a class in `classes`, in that order:
 * r 32 bits, l 64 bits, h 16 bits, p predicate.  Where D is a predicate 1 or 0 is wanted. */
struct row {
    const char *text, *classes;
    uint64_t a, b, c, e, want;
};

#define F(x) 0x##x
#define NAN32 0x7fffffff

// clang-format off
static const struct row rows[] = {
    /* integer arithmetic */
    {"add.s32 D, A, B;", "rrr", 0x7fffffff, 1, 0, 0, 0x80000000},
    {"add.sat.s32 D, A, B;", "rrr", 0x7fffffff, 1, 0, 0, 0x7fffffff},
    {"add.u16 D, A, B;", "hhh", 0xffff, 2, 0, 0, 1},
    {"add.u64 D, A, B;", "lll", 0xffffffff, 1, 0, 0, 0x100000000},
    {"sub.s32 D, A, B;", "rrr", 3, 5, 0, 0, 0xfffffffe},
    {"sub.sat.s32 D, A, B;", "rrr", 0x80000000, 1, 0, 0, 0x80000000},
    {"mul.lo.s32 D, A, B;", "rrr", 0x10001, 0x10001, 0, 0, 0x20001},
    {"mul.hi.s32 D, A, B;", "rrr", 0xffffffff, 2, 0, 0, 0xffffffff},
    {"mul.hi.u32 D, A, B;", "rrr", 0xffffffff, 2, 0, 0, 1},
    {"mul.wide.s32 D, A, B;", "lrr", 0xffffffff, 3, 0, 0, 0xfffffffffffffffd},
    {"mul.wide.u32 D, A, B;", "lrr", 0xffffffff, 3, 0, 0, 0x2fffffffd},
    {"mul.wide.s16 D, A, B;", "rhh", 0xffff, 5, 0, 0, 0xfffffffb},
    {"mul.hi.u16 D, A, B;", "hhh", 0xffff, 0xffff, 0, 0, 0xfffe},
    {"mul.hi.u64 D, A, B;", "lll", ~0ull, ~0ull, 0, 0, 0xfffffffffffffffe},
    {"mul.hi.s64 D, A, B;", "lll", ~0ull, ~0ull, 0, 0, 0},
    {"mul.lo.u64 D, A, B;", "lll", 0x100000001, 0x100000001, 0, 0, 0x200000001},
    {"mad.lo.s32 D, A, B, C;", "rrrr", 5, 7, 0xffffffff, 0, 34},
    {"mad.hi.u32 D, A, B, C;", "rrrr", 0x80000000, 6, 10, 0, 13},
    {"mad.wide.s32 D, A, B, C;", "lrrl", 0xffffffff, 4, 2, 0, 0xfffffffffffffffe},
    {"mad.lo.u16 D, A, B, C;", "hhhh", 300, 300, 1, 0, 24465},
    {"mul24.lo.u32 D, A, B;", "rrr", 0xff000003, 0x01000005, 0, 0, 15},
    {"mad24.lo.s32 D, A, B, C;", "rrrr", 0x00ffffff, 7, 10, 0, 3},
    {"sad.s32 D, A, B, C;", "rrrr", 0xfffffffe, 5, 100, 0, 107},
    {"sad.u32 D, A, B, C;", "rrrr", 3, 10, 1, 0, 8},
    {"div.s32 D, A, B;", "rrr", 0xfffffff9, 2, 0, 0, 0xfffffffd},
    {"div.u32 D, A, B;", "rrr", 0xfffffff9, 2, 0, 0, 0x7ffffffc},
    {"rem.s32 D, A, B;", "rrr", 0xfffffff9, 2, 0, 0, 0xffffffff},
    {"rem.u64 D, A, B;", "lll", 1000000000007, 10, 0, 0, 7},
    {"div.s64 D, A, B;", "lll", 0xffffffffffffff9c, 7, 0, 0, 0xfffffffffffffff2},
    {"abs.s32 D, A;", "rr", 0xfffffff6, 0, 0, 0, 10},
    {"neg.s32 D, A;", "rr", 1, 0, 0, 0, 0xffffffff},
    {"neg.s64 D, A;", "ll", 1, 0, 0, 0, ~0ull},
    {"min.s32 D, A, B;", "rrr", 0xffffffff, 1, 0, 0, 0xffffffff},
    {"min.u32 D, A, B;", "rrr", 0xffffffff, 1, 0, 0, 1},
    {"max.s32 D, A, B;", "rrr", 0xffffffff, 1, 0, 0, 1},
    {"max.s64 D, A, B;", "lll", ~0ull, 1, 0, 0, 1},
    {"min.s16 D, A, B;", "hhh", 0x8000, 1, 0, 0, 0x8000},
    {"popc.b32 D, A;", "rr", 0xf0f0f0f1, 0, 0, 0, 17},
    {"popc.b64 D, A;", "rl", 0xf0f0f0f0f0f0f0f0, 0, 0, 0, 32},
    {"clz.b32 D, A;", "rr", 0x00010000, 0, 0, 0, 15},
    {"clz.b32 D, A;", "rr", 0, 0, 0, 0, 32},
    {"clz.b64 D, A;", "rl", 1, 0, 0, 0, 63},
    {"bfind.u32 D, A;", "rr", 0x00010000, 0, 0, 0, 16},
    {"bfind.s32 D, A;", "rr", 0xfffffffe, 0, 0, 0, 0},
    {"bfind.u32 D, A;", "rr", 0, 0, 0, 0, 0xffffffff},
    {"bfind.shiftamt.u32 D, A;", "rr", 0x00010000, 0, 0, 0, 15},
    {"brev.b32 D, A;", "rr", 0x00000001, 0, 0, 0, 0x80000000},
    {"brev.b64 D, A;", "ll", 2, 0, 0, 0, 0x4000000000000000},
    {"bfe.u32 D, A, B, C;", "rrrr", 0xabcd1234, 8, 8, 0, 0x12},
    {"bfe.s32 D, A, B, C;", "rrrr", 0x0000f000, 12, 4, 0, 0xffffffff},
    {"bfe.s32 D, A, B, C;", "rrrr", 0x80000000, 28, 8, 0, 0xfffffff8},
    {"bfe.u32 D, A, B, C;", "rrrr", 0xabcd1234, 0, 0, 0, 0},
    {"bfi.b32 D, A, B, C, E;", "rrrrr", 0xff, 0x12345678, 8, 8, 0x1234ff78},
    {"bfi.b32 D, A, B, C, E;", "rrrrr", 0xff, 0x12345678, 28, 8, 0xf2345678},
    {"dp4a.s32.s32 D, A, B, C;", "rrrr", 0x01ff02fe, 0x01010101, 10, 0, 10},
    {"dp4a.u32.u32 D, A, B, C;", "rrrr", 0x01ff02fe, 0x01010101, 0, 0, 512},
    {"dp2a.lo.s32.s32 D, A, B, C;", "rrrr", 0x0002ffff, 0x00000305, 1, 0, 2},
    /* carry */
    {"{ .reg .b32 t; add.cc.u32 t, A, B; addc.u32 D, C, 0; }", "rrrr", 0xffffffff, 1, 5, 0, 6},
    {"{ .reg .b32 t; sub.cc.u32 t, A, B; subc.u32 D, C, 0; }", "rrrr", 0, 1, 5, 0, 4},
    {"{ .reg .b32 t; sub.cc.u32 t, A, B; subc.u32 D, C, 0; }", "rrrr", 1, 1, 5, 0, 5},
    {"{ .reg .b32 t; mad.lo.cc.u32 t, A, B, C; madc.hi.u32 D, A, B, 0; }", "rrrr", 0xffffffff, 0xffffffff, 0xffffffff, 0, 0xffffffff},
    /* logic, shifts */
    {"and.b32 D, A, B;", "rrr", 0xff00ff00, 0x0ff00ff0, 0, 0, 0x0f000f00},
    {"or.b64 D, A, B;", "lll", 1, 0x8000000000000000, 0, 0, 0x8000000000000001},
    {"xor.b16 D, A, B;", "hhh", 0xffff, 0x00f0, 0, 0, 0xff0f},
    {"not.b32 D, A;", "rr", 0x0f0f0f0f, 0, 0, 0, 0xf0f0f0f0},
    {"cnot.b32 D, A;", "rr", 0, 0, 0, 0, 1},
    {"lop3.b32 D, A, B, C, 0x1a;", "rrrr", 0xf0f0f0f0, 0xcccccccc, 0xaaaaaaaa, 0, 0x1a1a1a1a & 0xffffffff},
    {"lop3.b32 D, A, B, C, 0xc0;", "rrrr", 0xff, 0x0f, 0, 0, 0x0f},
    {"lop3.b32 D, A, B, C, 0x96;", "rrrr", 0x5, 0x3, 0x9, 0, 0xf},
    {"shl.b32 D, A, B;", "rrr", 1, 31, 0, 0, 0x80000000},
    {"shl.b32 D, A, B;", "rrr", 1, 32, 0, 0, 0},
    {"shl.b64 D, A, B;", "llr", 1, 40, 0, 0, 1ull << 40},
    {"shr.u32 D, A, B;", "rrr", 0x80000000, 31, 0, 0, 1},
    {"shr.s32 D, A, B;", "rrr", 0x80000000, 40, 0, 0, 0xffffffff},
    {"shr.s16 D, A, B;", "hhr", 0x8000, 4, 0, 0, 0xf800},
    {"shr.u64 D, A, B;", "llr", 1ull << 63, 63, 0, 0, 1},
    {"shr.b32 D, A, B;", "rrr", 0x80000000, 4, 0, 0, 0x08000000},
    {"shf.l.wrap.b32 D, A, B, C;", "rrrr", 0x80000001, 0x00000003, 1, 0, 7},
    {"shf.r.wrap.b32 D, A, B, C;", "rrrr", 0x80000001, 0x00000003, 33, 0, 0xc0000000},
    {"shf.r.clamp.b32 D, A, B, C;", "rrrr", 0x80000001, 0x00000003, 40, 0, 3},
    {"shf.l.clamp.b32 D, A, B, C;", "rrrr", 0x80000001, 0x00000003, 40, 0, 0x80000001},
    {"prmt.b32 D, A, B, C;", "rrrr", 0x33221100, 0x77665544, 0x7531, 0, 0x77553311},
    {"prmt.b32 D, A, B, C;", "rrrr", 0x33228100, 0x77665544, 0x0009, 0, 0x000000ff},
    {"prmt.b32.f4e D, A, B, C;", "rrrr", 0x33221100, 0x77665544, 1, 0, 0x44332211},
    {"prmt.b32.b4e D, A, B, C;", "rrrr", 0x33221100, 0x77665544, 1, 0, 0x66770011},
    {"prmt.b32.rc8 D, A, B, C;", "rrrr", 0x33221100, 0x77665544, 2, 0, 0x22222222},
    {"prmt.b32.ecl D, A, B, C;", "rrrr", 0x33221100, 0x77665544, 1, 0, 0x33221111},
    {"prmt.b32.ecr D, A, B, C;", "rrrr", 0x33221100, 0x77665544, 1, 0, 0x11111100},
    {"prmt.b32.rc16 D, A, B, C;", "rrrr", 0x33221100, 0x77665544, 1, 0, 0x33223322},
    /* f32 */
    {"add.f32 D, A, B;", "rrr", F(3f800000), F(40000000), 0, 0, F(40400000)},
    {"add.rz.f32 D, A, B;", "rrr", F(3f800000), F(33ffffff), 0, 0, F(3f800000)},
    {"add.rn.f32 D, A, B;", "rrr", F(3f800000), F(33ffffff), 0, 0, F(3f800001)},
    {"add.rp.f32 D, A, B;", "rrr", F(3f800000), F(30000000), 0, 0, F(3f800001)},
    {"add.rm.f32 D, A, B;", "rrr", F(bf800000), F(b0000000), 0, 0, F(bf800001)},
    {"add.ftz.f32 D, A, B;", "rrr", F(00000001), F(80000002), 0, 0, 0},
    {"add.sat.f32 D, A, B;", "rrr", F(3f800000), F(40000000), 0, 0, F(3f800000)},
    {"mul.sat.f32 D, A, B;", "rrr", F(7fc00000), F(40000000), 0, 0, 0},
    {"sub.f32 D, A, B;", "rrr", F(3f800000), F(40000000), 0, 0, F(bf800000)},
    {"mul.f32 D, A, B;", "rrr", F(40000000), F(c0400000), 0, 0, F(c0c00000)},
    {"mul.ftz.f32 D, A, B;", "rrr", F(00800000), F(3f000000), 0, 0, 0},
    {"mul.f32 D, A, B;", "rrr", F(00800000), F(3f000000), 0, 0, F(00400000)},
    {"fma.rn.f32 D, A, B, C;", "rrrr", F(3f800001), F(3f800001), F(bf800002), 0, F(28800000)},
    {"fma.rz.f32 D, A, B, C;", "rrrr", F(3f800001), F(3f800001), F(00000000), 0, F(3f800002)},
    {"div.rn.f32 D, A, B;", "rrr", F(3f800000), F(40400000), 0, 0, F(3eaaaaab)},
    {"div.full.f32 D, A, B;", "rrr", F(40c00000), F(40000000), 0, 0, F(40400000)},
    {"abs.f32 D, A;", "rr", F(c0400000), 0, 0, 0, F(40400000)},
    {"neg.f32 D, A;", "rr", F(00000000), 0, 0, 0, F(80000000)},
    {"min.f32 D, A, B;", "rrr", F(7fc00000), F(3f800000), 0, 0, F(3f800000)},
    {"max.f32 D, A, B;", "rrr", F(7fc00000), F(7fc00001), 0, 0, NAN32},
    {"max.NaN.f32 D, A, B;", "rrr", F(7fc00000), F(3f800000), 0, 0, NAN32},
    {"max.f32 D, A, B;", "rrr", F(80000000), F(00000000), 0, 0, 0},
    {"min.f32 D, A, B;", "rrr", F(00000000), F(80000000), 0, 0, F(80000000)},
    {"rcp.rn.f32 D, A;", "rr", F(40800000), 0, 0, 0, F(3e800000)},
    {"rcp.approx.ftz.f32 D, A;", "rr", F(00000001), 0, 0, 0, F(7f800000)},
    {"sqrt.rn.f32 D, A;", "rr", F(40800000), 0, 0, 0, F(40000000)},
    {"rsqrt.approx.f32 D, A;", "rr", F(40800000), 0, 0, 0, F(3f000000)},
    {"ex2.approx.f32 D, A;", "rr", F(40400000), 0, 0, 0, F(41000000)},
    {"ex2.approx.f32 D, A;", "rr", F(ff800000), 0, 0, 0, 0},
    {"lg2.approx.f32 D, A;", "rr", F(41000000), 0, 0, 0, F(40400000)},
    {"lg2.approx.f32 D, A;", "rr", 0, 0, 0, 0, F(ff800000)},
    {"sin.approx.f32 D, A;", "rr", 0, 0, 0, 0, 0},
    {"cos.approx.f32 D, A;", "rr", 0, 0, 0, 0, F(3f800000)},
    {"tanh.approx.f32 D, A;", "rr", F(7f800000), 0, 0, 0, F(3f800000)},
    {"copysign.f32 D, A, B;", "rrr", F(80000000), F(40000000), 0, 0, F(c0000000)},
    {"testp.infinite.f32 D, A;", "pr", F(ff800000), 0, 0, 0, 1},
    {"testp.notanumber.f32 D, A;", "pr", F(7fc00000), 0, 0, 0, 1},
    {"testp.subnormal.f32 D, A;", "pr", F(00000001), 0, 0, 0, 1},
    {"testp.normal.f32 D, A;", "pr", F(00000001), 0, 0, 0, 0},
    {"add.f64 D, A, B;", "lll", F(3ff0000000000000), F(4000000000000000), 0, 0, F(4008000000000000)},
    {"fma.rn.f64 D, A, B, C;", "llll", F(4000000000000000), F(4008000000000000), F(3ff0000000000000), 0, F(401c000000000000)},
    /* halves */
    {"add.f16 D, A, B;", "hhh", 0x3c00, 0x1000, 0, 0, 0x3c00},
    {"add.f16 D, A, B;", "hhh", 0x3c00, 0x1001, 0, 0, 0x3c01},
    {"mul.f16x2 D, A, B;", "rrr", 0x40003c00, 0xc0004200, 0, 0, 0xc4004200},
    {"fma.rn.f16 D, A, B, C;", "hhhh", 0x3c01, 0x3c01, 0xbc02, 0, 0x0010},
    {"fma.rn.relu.f16 D, A, B, C;", "hhhh", 0x3c00, 0xc000, 0x3c00, 0, 0},
    {"fma.rn.bf16 D, A, B, C;", "hhhh", 0x3f80, 0x4000, 0x3f80, 0, 0x4040},
    {"neg.f16x2 D, A;", "rr", 0x3c00bc00, 0, 0, 0, 0xbc003c00},
    {"abs.bf16 D, A;", "hh", 0xbf80, 0, 0, 0, 0x3f80},
    {"max.f16 D, A, B;", "hhh", 0x7e00, 0x3c00, 0, 0, 0x3c00},
    {"max.NaN.f16x2 D, A, B;", "rrr", 0x7e003c00, 0x3c004000, 0, 0, 0x7fff4000},
    {"ex2.approx.f16 D, A;", "hh", 0x4000, 0, 0, 0, 0x4400},
    {"setp.gt.f16 D, A, B;", "phh", 0x4000, 0x3c00, 0, 0, 1},
    /* comparisons */
    {"setp.lt.s32 D, A, B;", "prr", 0xffffffff, 0, 0, 0, 1},
    {"setp.lt.u32 D, A, B;", "prr", 0xffffffff, 0, 0, 0, 0},
    {"setp.lo.u32 D, A, B;", "prr", 0, 1, 0, 0, 1},
    {"setp.hs.u32 D, A, B;", "prr", 1, 1, 0, 0, 1},
    {"setp.ge.s64 D, A, B;", "pll", ~0ull, 0, 0, 0, 0},
    {"setp.eq.s16 D, A, B;", "phh", 0xffff, 0xffff, 0, 0, 1},
    {"setp.gt.s16 D, A, B;", "phh", 0x8000, 1, 0, 0, 0},
    {"setp.ne.f32 D, A, B;", "prr", F(7fc00000), 0, 0, 0, 0},
    {"setp.neu.f32 D, A, B;", "prr", F(7fc00000), 0, 0, 0, 1},
    {"setp.ltu.f32 D, A, B;", "prr", F(7fc00000), 0, 0, 0, 1},
    {"setp.nan.f32 D, A, B;", "prr", F(7fc00000), 0, 0, 0, 1},
    {"setp.num.f32 D, A, B;", "prr", F(7fc00000), 0, 0, 0, 0},
    {"setp.eq.f32 D, A, B;", "prr", F(80000000), 0, 0, 0, 1},
    {"setp.eq.ftz.f32 D, A, B;", "prr", 1, 0, 0, 0, 1},
    {"setp.lt.and.s32 D, A, B, C;", "prrp", 1, 2, 0, 0, 0},
    {"setp.lt.or.s32 D, A, B, C;", "prrp", 3, 2, 1, 0, 1},
    {"setp.lt.xor.s32 D, A, B, !C;", "prrp", 1, 2, 1, 0, 1},
    {"{ .reg .pred t; setp.lt.s32 t|D, A, B; }", "prr", 3, 2, 0, 0, 1},
    {"set.lt.u32.s32 D, A, B;", "rrr", 1, 2, 0, 0, 0xffffffff},
    {"set.gt.f32.f32 D, A, B;", "rrr", F(40000000), F(3f800000), 0, 0, F(3f800000)},
    {"selp.b32 D, A, B, C;", "rrrp", 7, 8, 1, 0, 7},
    {"selp.b64 D, A, B, C;", "lllp", 7, 8, 0, 0, 8},
    {"slct.u32.s32 D, A, B, C;", "rrrr", 7, 8, 0xffffffff, 0, 8},
    {"slct.u32.f32 D, A, B, C;", "rrrr", 7, 8, F(80000000), 0, 7},
    {"and.pred D, A, B;", "ppp", 1, 0, 0, 0, 0},
    {"or.pred D, A, !B;", "ppp", 0, 0, 0, 0, 1},
    {"xor.pred D, A, B;", "ppp", 1, 1, 0, 0, 0},
    {"not.pred D, A;", "pp", 1, 0, 0, 0, 0},
    {"mov.pred D, A;", "pp", 1, 0, 0, 0, 1},
    /* moves, conversions */
    {"mov.b32 D, {A, B};", "rhh", 0x1234, 0x5678, 0, 0, 0x56781234},
    {"mov.b64 D, {A, B};", "lrr", 0x12345678, 0x9abcdef0, 0, 0, 0x9abcdef012345678},
    {"{ .reg .b16 t; mov.b32 {t, D}, A; }", "hr", 0x56781234, 0, 0, 0, 0x5678},
    {"{ .reg .b32 t; mov.b64 {D, t}, A; }", "rl", 0x9abcdef012345678, 0, 0, 0, 0x12345678},
    {"mov.b64 D, {A, A, B, B};", "lhh", 0x1111, 0x2222, 0, 0, 0x2222222211111111},
    {"mov.u32 D, 0x10;", "r", 0, 0, 0, 0, 16},
    {"mov.f32 D, 0fBF800000;", "r", 0, 0, 0, 0, F(bf800000)},
    {"mov.f64 D, 0d3FF0000000000000;", "l", 0, 0, 0, 0, F(3ff0000000000000)},
    {"mov.f32 D, 0f7FC00001;", "r", 0, 0, 0, 0, F(7fc00001)},
    {"cvt.u32.u16 D, A;", "rh", 0xffff, 0, 0, 0, 0xffff},
    {"cvt.s32.s16 D, A;", "rh", 0xffff, 0, 0, 0, 0xffffffff},
    {"cvt.s32.s8 D, A;", "rr", 0x80, 0, 0, 0, 0xffffff80},
    {"cvt.u16.u32 D, A;", "hr", 0x12345678, 0, 0, 0, 0x5678},
    {"cvt.u8.u32 D, A;", "rr", 0x12345678, 0, 0, 0, 0x78},
    {"cvt.sat.u8.s32 D, A;", "rr", 300, 0, 0, 0, 255},
    {"cvt.sat.s8.s32 D, A;", "rr", 0xffffff00, 0, 0, 0, 0xffffff80},
    {"cvt.sat.u32.s32 D, A;", "rr", 0xffffffff, 0, 0, 0, 0},
    {"cvt.u64.u32 D, A;", "lr", 0xffffffff, 0, 0, 0, 0xffffffff},
    {"cvt.s64.s32 D, A;", "lr", 0xffffffff, 0, 0, 0, ~0ull},
    {"cvt.u32.u64 D, A;", "rl", 0x1234567890, 0, 0, 0, 0x34567890},
    {"cvt.rn.f32.s32 D, A;", "rr", 16777217, 0, 0, 0, F(4b800000)},
    {"cvt.rp.f32.s32 D, A;", "rr", 16777217, 0, 0, 0, F(4b800001)},
    {"cvt.rn.f32.u64 D, A;", "rl", ~0ull, 0, 0, 0, F(5f800000)},
    {"cvt.rz.f32.u64 D, A;", "rl", ~0ull, 0, 0, 0, F(5f7fffff)},
    {"cvt.rzi.s32.f32 D, A;", "rr", F(c0200000), 0, 0, 0, 0xfffffffe},
    {"cvt.rni.s32.f32 D, A;", "rr", F(40200000), 0, 0, 0, 2},
    {"cvt.rmi.s32.f32 D, A;", "rr", F(c0200000), 0, 0, 0, 0xfffffffd},
    {"cvt.rpi.s32.f32 D, A;", "rr", F(40200000), 0, 0, 0, 3},
    {"cvt.rzi.s32.f32 D, A;", "rr", F(7f800000), 0, 0, 0, 0x7fffffff},
    {"cvt.rzi.u32.f32 D, A;", "rr", F(bf800000), 0, 0, 0, 0},
    {"cvt.rzi.s32.f32 D, A;", "rr", F(7fc00000), 0, 0, 0, 0},
    {"cvt.rzi.u64.f32 D, A;", "lr", F(5f000000), 0, 0, 0, 1ull << 63},
    {"cvt.rni.f32.f32 D, A;", "rr", F(40200000), 0, 0, 0, F(40000000)},
    {"cvt.rmi.f32.f32 D, A;", "rr", F(bf000000), 0, 0, 0, F(bf800000)},
    {"cvt.sat.f32.f32 D, A;", "rr", F(40200000), 0, 0, 0, F(3f800000)},
    {"cvt.f64.f32 D, A;", "lr", F(3fc00000), 0, 0, 0, F(3ff8000000000000)},
    {"cvt.rn.f32.f64 D, A;", "rl", F(3ff0000010000000), 0, 0, 0, F(3f800000)},
    {"cvt.rp.f32.f64 D, A;", "rl", F(3ff0000010000000), 0, 0, 0, F(3f800001)},
    {"cvt.f32.f16 D, A;", "rh", 0x0001, 0, 0, 0, F(33800000)},
    {"cvt.f32.f16 D, A;", "rh", 0xfc00, 0, 0, 0, F(ff800000)},
    {"cvt.rn.f16.f32 D, A;", "hr", F(3f802000), 0, 0, 0, 0x3c01},
    {"cvt.rn.f16.f32 D, A;", "hr", F(3f801000), 0, 0, 0, 0x3c00},
    {"cvt.rn.f16.f32 D, A;", "hr", F(477ff000), 0, 0, 0, 0x7c00},
    {"cvt.rz.f16.f32 D, A;", "hr", F(477ff000), 0, 0, 0, 0x7bff},
    {"cvt.rn.f16.f32 D, A;", "hr", F(33800000), 0, 0, 0, 0x0001},
    {"cvt.rn.bf16.f32 D, A;", "hr", F(3f808000), 0, 0, 0, 0x3f80},
    {"cvt.rn.bf16.f32 D, A;", "hr", F(3f818000), 0, 0, 0, 0x3f82},
    {"cvt.f32.bf16 D, A;", "rh", 0x3f82, 0, 0, 0, F(3f820000)},
    {"cvt.rn.relu.bf16.f32 D, A;", "hr", F(bf800000), 0, 0, 0, 0},
    {"cvt.rn.f16x2.f32 D, A, B;", "rrr", F(3f800000), F(40000000), 0, 0, 0x3c004000},
    {"cvt.rn.bf16x2.f32 D, A, B;", "rrr", F(3f800000), F(40000000), 0, 0, 0x3f804000},
    {"cvt.rna.tf32.f32 D, A;", "rr", F(3f801000), 0, 0, 0, F(3f802000)},
    {"cvt.rn.f16.s32 D, A;", "hr", 3, 0, 0, 0, 0x4200},
    {"cvt.rzi.s32.f16 D, A;", "rh", 0xc100, 0, 0, 0, 0xfffffffe},
    {"cvt.rn.satfinite.e4m3x2.f32 D, A, B;", "hrr", F(43e00000), F(3f800000), 0, 0, 0x7e38},
    {"cvt.rn.satfinite.e4m3x2.f32 D, A, B;", "hrr", F(7f800000), F(7fc00000), 0, 0, 0x7e7f},
    {"cvt.rn.satfinite.e5m2x2.f32 D, A, B;", "hrr", F(3f800000), F(47800000), 0, 0, 0x3c7b},
    {"cvt.rn.f16x2.e4m3x2 D, A;", "rh", 0x3801, 0, 0, 0, 0x3c001800},
    {"cvt.rn.f16x2.e5m2x2 D, A;", "rh", 0x3c01, 0, 0, 0, 0x3c000100},
};
// clang-format on

static const char *const reg_type[] = {"b32", "b64", "b16", "pred"};

static int class_index(char c)
{
    return (int)(strchr("rlhp", c) - "rlhp");
}

/* The text with D, A, B, C and E made registers. */
static void put_text(FILE *f, const char *text)
{
    for (const char *p = text; *p; p++) {
        bool alone = (p == text || strchr(" {!|", p[-1])) && strchr(" ,;}|", p[1]);
        if (alone && strchr("DABCE", *p))
            fprintf(f, "%%%c", *p | 32);
        else
            fputc(*p, f);
    }
}

/* A kernel per row: parameters a b c e as 64 bits, and where the result goes. */
static void put_row(FILE *f, const struct row *r, int n)
{
    const char names[] = "dabce";
    fprintf(
        f,
        ".visible .entry row%d(.param .u64 out, .param .u64 pa, .param .u64 pb, .param .u64 pc, "
        ".param .u64 pe)\n{\n.reg .b64 %%out, %%t; .reg .b16 %%z16;\n",
        n);
    for (int i = 0; r->classes[i]; i++)
        fprintf(f, ".reg .%s %%%c;\n", reg_type[class_index(r->classes[i])], names[i]);
    for (int i = 1; r->classes[i]; i++) {
        fprintf(f, "ld.param.u64 %%t, [p%c];\n", names[i]);
        switch (r->classes[i]) {
        case 'r':
            fprintf(f, "cvt.u32.u64 %%%c, %%t;\n", names[i]);
            break;
        case 'l':
            fprintf(f, "mov.b64 %%%c, %%t;\n", names[i]);
            break;
        case 'h':
            fprintf(f, "cvt.u16.u64 %%%c, %%t;\n", names[i]);
            break;
        default:
            fprintf(f, "setp.ne.u64 %%%c, %%t, 0;\n", names[i]);
        }
    }
    put_text(f, r->text);
    switch (r->classes[0]) {
    case 'r':
        fputs("\ncvt.u64.u32 %t, %d;\n", f);
        break;
    case 'l':
        fputs("\nmov.b64 %t, %d;\n", f);
        break;
    case 'h':
        fputs("\ncvt.u64.u16 %t, %d;\n", f);
        break;
    default:
        fputs("\nselp.b64 %t, 1, 0, %d;\n", f);
    }
    fputs("ld.param.u64 %out, [out];\nst.global.u64 [%out], %t;\nret;\n}\n", f);
}

static char *module_text(void)
{
    char *text = NULL;
    size_t size = 0;
    FILE *f = tmpfile();
    fputs(".version 9.0\n.target sm_90\n.address_size 64\n", f);
    for (size_t i = 0; i < NELEM(rows); i++)
        put_row(f, &rows[i], (int)i);
    size = (size_t)ftell(f);
    rewind(f);
    text = calloc(1, size + 1);
    if (!text || fread(text, 1, size, f) != size)
        bail("no memory");
    fclose(f);
    return text;
}

int main(void)
{
    emu_open(90);
    char *text = module_text();
    cu_module m = emu_load(text, NULL);
    if (!ok(m != NULL, "the rows are PTX"))
        return done_testing();
    cu_deviceptr out = emu_alloc(8);
    for (size_t i = 0; i < NELEM(rows); i++) {
        struct row r = rows[i];
        char name[16];
        uint64_t got = 0;
        snprintf(name, sizeof name, "row%d", (int)i);
        void *args[] = {&out, &r.a, &r.b, &r.c, &r.e};
        cu_result status = emu_run(emu_function(m, name), 1, 1, 0, args);
        if (!status)
            status = emu_download(&got, out, 8);
        if (!ok(!status && got == r.want, "%s", r.text))
            diag("%llx %llx %llx %llx gave %llx, want %llx (status %d)", (unsigned long long)r.a,
                 (unsigned long long)r.b, (unsigned long long)r.c, (unsigned long long)r.e,
                 (unsigned long long)got, (unsigned long long)r.want, status);
    }
    emu_cu.mem_free(out);
    emu_cu.module_unload(m);
    emu_close();
    is_int(emu_reports(), 0, "no report, and nothing leaked");
    free(text);
    return done_testing();
}
