/* SPDX-License-Identifier: MIT */
/* Instructions of a whole warp against the PTX ISA: shuffles, votes, reductions, matrices.  What
 * each lane must get is written from the manual's formulas, element by element. */
#include "emu.h"
#include "half.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WARP 32

/* Runs `body`, in which %r0 to %r7 of each lane start with in[i][lane] and end in out[i][lane]; s
 * is 2048 bytes of shared memory, all set to 0; %lane is the lane, %p1 a predicate of in[0] & 1. */
static cu_result run(const char *body, uint32_t in[8][WARP], uint32_t out[8][WARP])
{
    static char text[8000];
    int n = snprintf(
        text, sizeof text,
        ".version 8.4\n.target sm_90\n.address_size 64\n.visible .entry k(.param .u64 pi, "
        ".param .u64 po)\n{\n.reg .pred %%p<4>; .reg .b32 %%r<8>, %%t<4>, %%lane; .reg .b64 "
        "%%i, %%o, %%w; .reg .b16 %%h<4>;\n.shared .align 16 .b8 s[2048];\n"
        "mov.u32 %%lane, %%laneid; ld.param.u64 %%i, [pi]; ld.param.u64 %%o, [po]; "
        "mul.wide.u32 %%w, %%lane, 4; add.u64 %%i, %%i, %%w; add.u64 %%o, %%o, %%w;\n"
        "mul.lo.u32 %%t0, %%lane, 64; mov.u32 %%t1, s; add.u32 %%t0, %%t0, %%t1; mov.u32 %%t1, "
        "0;\n");
    for (int i = 0; i < 64; i += 16)
        n += snprintf(text + n, sizeof text - (size_t)n,
                      "st.shared.v4.b32 [%%t0+%d], {%%t1, %%t1, %%t1, %%t1};\n", i);
    n += snprintf(text + n, sizeof text - (size_t)n, "bar.warp.sync 0xffffffff;\n");
    for (int i = 0; i < 8; i++)
        n += snprintf(text + n, sizeof text - (size_t)n, "ld.global.b32 %%r%d, [%%i+%d];\n", i,
                      128 * i);
    n += snprintf(text + n, sizeof text - (size_t)n,
                  "and.b32 %%t0, %%r0, 1; setp.ne.u32 %%p1, %%t0, 0;\n%s\n", body);
    for (int i = 0; i < 8; i++)
        n += snprintf(text + n, sizeof text - (size_t)n, "st.global.b32 [%%o+%d], %%r%d;\n",
                      128 * i, i);
    snprintf(text + n, sizeof text - (size_t)n, "ret;\n}\n");
    cu_module m = emu_load(text, NULL);
    if (!m)
        return -1;
    cu_deviceptr di = emu_upload(in, 8 * WARP * 4), po = emu_alloc(8 * WARP * 4);
    void *args[] = {&di, &po};
    cu_result r = emu_run(emu_function(m, "k"), 1, WARP, 0, args);
    if (!r)
        r = emu_download(out, po, 8 * WARP * 4);
    if (r) {
        diag("status %d: %s", r, emu_report());
        emu_fresh();
        return r;
    }
    emu_cu.mem_free(di);
    emu_cu.mem_free(po);
    emu_cu.module_unload(m);
    return r;
}

static uint32_t in[8][WARP], out[8][WARP];

static void fill(void)
{
    uint32_t x = 12345;
    for (int i = 0; i < 8; i++)
        for (int k = 0; k < WARP; k++)
            in[i][k] = x = x * 1664525 + 1013904223;
}

/* %r1 after the body is want[lane]. */
static void is_lanes(const char *body, const uint32_t want[WARP], const char *name)
{
    cu_result r = run(body, in, out);
    int wrong = -1;
    for (int k = WARP - 1; k >= 0; k--)
        wrong = out[1][k] == want[k] ? wrong : k;
    if (!ok(!r && wrong < 0, "%s", name) && wrong >= 0)
        diag("lane %d has %x, wants %x", wrong, out[1][wrong], want[wrong]);
}

/* ---- shuffles, votes, matches, reductions ---- */

static void test_exchanges(void)
{
    uint32_t want[WARP];
    for (int k = 0; k < WARP; k++)
        want[k] = in[0][k ^ 5];
    is_lanes("shfl.sync.bfly.b32 %r1, %r0, 5, 31, 0xffffffff;", want, "shfl.bfly");
    for (int k = 0; k < WARP; k++) /* c = 31: only lanes below the start are clamped */
        want[k] = k + 3 < WARP ? in[0][k + 3] : in[0][k];
    is_lanes("shfl.sync.down.b32 %r1, %r0, 3, 31, 0xffffffff;", want, "shfl.down");
    for (int k = 0; k < WARP; k++) /* up: c = 0 */
        want[k] = k - 3 >= 0 ? in[0][k - 3] : in[0][k];
    is_lanes("shfl.sync.up.b32 %r1, %r0, 3, 0, 0xffffffff;", want, "shfl.up");
    for (int k = 0; k < WARP;
         k++) /* segments of 8: c = (32 - 8) << 8 | 7 with a segment mask of 24 */
        want[k] = in[0][(k & 24) | 2];
    is_lanes("shfl.sync.idx.b32 %r1, %r0, 2, 0x181f, 0xffffffff;", want,
             "shfl.idx in segments of 8");
    for (int k = 0; k < WARP; k++)
        want[k] = (k & 7) + 4 < 8 ? in[0][k + 4] : in[0][k];
    is_lanes("shfl.sync.down.b32 %r1, %r0, 4, 0x181f, 0xffffffff;", want,
             "shfl.down in segments of 8");
    for (int k = 0; k < WARP; k++)
        want[k] = (k & 7) + 4 < 8;
    is_lanes("shfl.sync.down.b32 %r2|%p2, %r0, 4, 0x181f, 0xffffffff; selp.b32 %r1, 1, 0, %p2;",
             want, "its predicate");
    uint32_t odd = 0, sum = 0, least = 0xffffffff, all = 0;
    int32_t top = INT32_MIN;
    for (int k = 0; k < WARP; k++) {
        odd |= (in[0][k] & 1) << k;
        sum += in[0][k];
        least = in[0][k] < least ? in[0][k] : least;
        top = (int32_t)in[0][k] > top ? (int32_t)in[0][k] : top;
        all ^= in[0][k];
    }
#define SAME(value)                                                                                \
    for (int k = 0; k < WARP; k++)                                                                 \
        want[k] = (value);
    SAME(odd)
    is_lanes("vote.sync.ballot.b32 %r1, %p1, 0xffffffff;", want, "vote.ballot");
    SAME(~odd)
    is_lanes("vote.sync.ballot.b32 %r1, !%p1, 0xffffffff;", want, "vote.ballot of a negation");
    SAME(1)
    is_lanes("vote.sync.any.pred %p2, %p1, 0xffffffff; selp.b32 %r1, 1, 0, %p2;", want, "vote.any");
    SAME(0)
    is_lanes("vote.sync.all.pred %p2, %p1, 0xffffffff; selp.b32 %r1, 1, 0, %p2;", want, "vote.all");
    is_lanes("vote.sync.uni.pred %p2, %p1, 0xffffffff; selp.b32 %r1, 1, 0, %p2;", want, "vote.uni");
    SAME(sum)
    is_lanes("redux.sync.add.u32 %r1, %r0, 0xffffffff;", want, "redux.add");
    SAME(least)
    is_lanes("redux.sync.min.u32 %r1, %r0, 0xffffffff;", want, "redux.min.u32");
    SAME((uint32_t)top)
    is_lanes("redux.sync.max.s32 %r1, %r0, 0xffffffff;", want, "redux.max.s32");
    SAME(all)
    is_lanes("redux.sync.xor.b32 %r1, %r0, 0xffffffff;", want, "redux.xor");
    for (int k = 0; k < WARP; k++)
        want[k] = in[0][k] & 1 ? odd : ~odd;
    is_lanes("match.any.sync.b32 %r1, %t0, 0xffffffff;", want, "match.any");
    SAME(0)
    is_lanes("match.all.sync.b32 %r1|%p2, %t0, 0xffffffff;", want, "match.all");
    SAME(0xffffffff)
    is_lanes("activemask.b32 %r1;", want, "activemask");
    for (int k = 0; k < WARP; k++)
        want[k] = k == 0;
    is_lanes("elect.sync %r2|%p2, 0xffffffff; selp.b32 %r1, 1, 0, %p2;", want, "elect");
    SAME(WARP)
    is_lanes("atom.shared.add.u32 %r2, [s], 1; bar.sync 0; ld.shared.u32 %r1, [s];", want,
             "atom.add");
    for (int k = 0; k < WARP; k++) /* wraps after 9: 32 increments leave 2 */
        want[k] = 2;
    is_lanes("atom.shared.inc.u32 %r2, [s], 9; bar.sync 0; ld.shared.u32 %r1, [s];", want,
             "atom.inc");
    SAME(in[0][0])
    is_lanes("atom.shared.cas.b32 %r2, [s], 0, %r0; bar.sync 0; ld.shared.u32 %r1, [s];", want,
             "atom.cas: the first wins");
    SAME(1)
    is_lanes("mov.u32 %r1, 0; bar.red.or.pred %p2, 0, %p1; selp.b32 %r1, 1, 0, %p2;", want,
             "bar.red.or");
    SAME((uint32_t)__builtin_popcount(odd))
    is_lanes("bar.red.popc.u32 %r1, 0, %p1;", want, "bar.red.popc");
}

/* ---- matrices of 8 by 8 ---- */

static uint16_t element(int matrix, int row, int column)
{
    return (uint16_t)(matrix * 100 + row * 8 + column);
}

/* Row r of matrix m is at s + 128 m + 16 r; lane 8 m + r gives its address. */
#define STORE_ROWS                                                                                 \
    "mul.lo.u32 %t2, %lane, 16; mov.u32 %t1, s; add.u32 %t1, %t1, %t2;\n"                          \
    "st.shared.v4.b32 [%t1], {%r4, %r5, %r6, %r7}; bar.warp.sync 0xffffffff;\n"

static void test_matrices(void)
{
    for (int k = 0; k < WARP; k++)
        for (int i = 0; i < 4; i++)
            in[4 + i][k] = (uint32_t)element(k / 8, k % 8, 2 * i) |
                           (uint32_t)element(k / 8, k % 8, 2 * i + 1) << 16;
    for (int trans = 0; trans < 2; trans++) {
        char body[600];
        snprintf(body, sizeof body,
                 "%sldmatrix.sync.aligned.m8n8.x4%s.shared.b16 {%%r0, %%r1, %%r2, %%r3}, [%%t1];",
                 STORE_ROWS, trans ? ".trans" : "");
        cu_result r = run(body, in, out);
        int wrong = 0;
        for (int k = 0; k < WARP; k++)
            for (int m = 0; m < 4; m++) {
                uint16_t low = trans ? element(m, k % 4 * 2, k / 4) : element(m, k / 4, k % 4 * 2);
                uint16_t high =
                    trans ? element(m, k % 4 * 2 + 1, k / 4) : element(m, k / 4, k % 4 * 2 + 1);
                wrong += out[m][k] != ((uint32_t)low | (uint32_t)high << 16);
            }
        ok(!r && !wrong, "ldmatrix.x4%s", trans ? ".trans" : "");
        /* stmatrix puts back what ldmatrix gave, at the same addresses */
        snprintf(body, sizeof body,
                 "%sldmatrix.sync.aligned.m8n8.x4%s.shared.b16 {%%r0, %%r1, %%r2, %%r3}, [%%t1]; "
                 "bar.sync 0;\n"
                 "mov.b32 %%t3, 0; st.shared.v4.b32 [%%t1], {%%t3, %%t3, %%t3, %%t3}; bar.sync 0;\n"
                 "stmatrix.sync.aligned.m8n8.x4%s.shared.b16 [%%t1], {%%r0, %%r1, %%r2, %%r3}; "
                 "bar.sync 0;\n"
                 "ld.shared.v4.b32 {%%r4, %%r5, %%r6, %%r7}, [%%t1];",
                 STORE_ROWS, trans ? ".trans" : "", trans ? ".trans" : "");
        r = run(body, in, out);
        ok(!r && !memcmp(out[4], in[4], 4 * sizeof in[4]), "stmatrix.x4%s", trans ? ".trans" : "");
    }
    /* the fragment in in[0]: (row, column) is in lane 4 row + column / 2 */
    memcpy(in[0], in[4], sizeof in[0]);
    cu_result r = run("movmatrix.sync.aligned.m8n8.trans.b16 %r1, %r0;", in, out);
    int wrong = 0;
    for (int k = 0; k < WARP; k++)
        for (int i = 0; i < 2; i++) {
            int row = k % 4 * 2 + i, column = k / 4;
            uint16_t want = (uint16_t)(in[0][4 * row + column / 2] >> (16 * (column % 2)));
            wrong += (uint16_t)(out[1][k] >> (16 * i)) != want;
        }
    ok(!r && !wrong, "movmatrix.trans");
}

/* ---- mma: "Matrix Fragments for mma", element by element ---- */

struct mma {
    const char *text;
    int m, k, bits; /* of A and B; n is 8 */
    char kind;      /* h f16, b bf16, t tf32, s s8, u u8, e e4m3, f f16 with f16 sums */
};

/* Row and column of element i of A in a lane: the manual's formulas for each shape. */
static void place_a(const struct mma *x, int lane, int i, int *row, int *column)
{
    int group = lane >> 2, in_group = lane % 4;
    if (x->bits == 16) { /* m16n8k8: a0..a3; m16n8k16: a0..a7 */
        *row = x->k == 8 ? (i < 2 ? group : group + 8)
                         : ((i >= 0 && i < 2) || (i >= 4 && i < 6) ? group : group + 8);
        *column = in_group * 2 + (i & 1) + (i >= 4 ? 8 : 0);
    } else if (x->bits == 32) { /* m16n8k4: a0 a1; m16n8k8: a0..a3 */
        *row = i == 0 || i == 2 ? group : group + 8;
        *column = i < 2 ? in_group : in_group + 4;
    } else if (x->m == 8) {
        *row = group;
        *column = in_group * 4 + i;
    } else if (x->k == 16) {
        *row = i < 4 ? group : group + 8;
        *column = in_group * 4 + (i & 3);
    } else {
        *row = (i < 4) || (i >= 8 && i < 12) ? group : group + 8;
        *column = in_group * 4 + (i & 3) + (i < 8 ? 0 : 16);
    }
}

static void place_b(const struct mma *x, int lane, int i, int *row, int *column)
{
    int in_group = lane % 4;
    *column = lane >> 2;
    if (x->bits == 16)
        *row = in_group * 2 + (i & 1) + (i >= 2 ? 8 : 0);
    else if (x->bits == 32)
        *row = in_group + (i >= 1 ? 4 : 0);
    else
        *row = in_group * 4 + (i & 3) + (i < 4 ? 0 : 16);
}

static void place_c(int lane, int i, int *row, int *column)
{
    *row = i < 2 ? lane >> 2 : (lane >> 2) + 8;
    *column = lane % 4 * 2 + (i & 1);
}

/* Small whole numbers, so that every sum is exact whatever the order. */
static int number(int i, int j, int seed)
{
    return (i * 7 + j * 5 + seed) % 9 - 4;
}

static uint32_t encode(int v, char kind)
{
    static const uint8_t e4m3[] = {0x00, 0x38, 0x40, 0x44, 0x48}; /* 0 1 2 3 4 */
    switch (kind) {
    case 'h':
    case 'f':
        return at_half_from_float((float)v);
    case 'b':
        return at_bf16_from_float((float)v);
    case 't':
        return at_float_bits((float)v);
    case 'e':
        return e4m3[v < 0 ? -v : v] | (v < 0 ? 0x80u : 0);
    default:
        return (uint32_t)v & 0xff;
    }
}

static int value_of(int v, char kind)
{
    return kind == 'u' ? v & 0xff : v;
}

static void test_mma(const struct mma *x)
{
    int a[16][32], b[32][8], per = 32 / x->bits, na = x->m * x->k / WARP, nb = x->k * 8 / WARP,
                             nc = x->m * 8 / WARP;
    bool whole = x->kind == 's' || x->kind == 'u';
    int c_at = na / per + nb / per, wrong = 0;
    for (int i = 0; i < x->m; i++)
        for (int k = 0; k < x->k; k++)
            a[i][k] = number(i, k, 1);
    for (int k = 0; k < x->k; k++)
        for (int j = 0; j < 8; j++)
            b[k][j] = number(k, j, 2);
    memset(in, 0, sizeof in);
    uint32_t wide[10][WARP] = {{0}};
    for (int lane = 0; lane < WARP; lane++) {
        int row, column;
        for (int i = 0; i < na; i++) {
            place_a(x, lane, i, &row, &column);
            wide[i / per][lane] |= encode(a[row][column], x->kind) << (x->bits % 32 * (i % per));
        }
        for (int i = 0; i < nb; i++) {
            place_b(x, lane, i, &row, &column);
            wide[na / per + i / per][lane] |= encode(b[row][column], x->kind)
                                              << (x->bits % 32 * (i % per));
        }
        for (int i = 0; i < nc; i++) { /* where there is room: at most 8 registers go in */
            place_c(lane, i, &row, &column);
            uint32_t bits = whole ? (uint32_t)(row - column) : at_float_bits((float)(row - column));
            if (x->kind == 'f')
                wide[c_at + i / 2][lane] |= (uint32_t)at_half_from_float((float)(row - column))
                                            << (16 * (i % 2));
            else
                wide[c_at + i][lane] = bits;
        }
    }
    memcpy(in, wide, sizeof in);
    char body[900];
    int n = 0;
    for (int i = 8; i < c_at + (x->kind == 'f' ? nc / 2 : nc);
         i++) /* the ninth and tenth: made here */
        n += snprintf(body + n, sizeof body - (size_t)n,
                      ".reg .b32 %%x%d, %%y%d; shr.u32 %%x%d, %%lane, 2; add.u32 %%x%d, %%x%d, 8; "
                      "and.b32 %%y%d, "
                      "%%lane, 3; shl.b32 %%y%d, %%y%d, 1; add.u32 %%y%d, %%y%d, %d; sub.s32 "
                      "%%x%d, %%x%d, %%y%d; "
                      "%s\n",
                      i, i, i, i, i, i, i, i, i, i, i - 8, i, i, i,
                      whole    ? ""
                      : i == 8 ? "cvt.rn.f32.s32 %x8, %x8;"
                               : "cvt.rn.f32.s32 %x9, %x9;");
    snprintf(body + n, sizeof body - (size_t)n, "%s", x->text);
    cu_result r = run(body, in, out);
    for (int lane = 0; lane < WARP && !r; lane++)
        for (int i = 0; i < nc; i++) {
            int row, column, want;
            place_c(lane, i, &row, &column);
            want = row - column;
            for (int k = 0; k < x->k; k++)
                want += value_of(a[row][k], x->kind) * value_of(b[k][column], x->kind);
            if (x->kind == 'f')
                wrong += (double)at_half_to_float((uint16_t)(out[i / 2][lane] >> (16 * (i % 2)))) !=
                         want;
            else
                wrong += whole ? (int32_t)out[i][lane] != want
                               : (double)at_float_from_bits(out[i][lane]) != want;
        }
    if (!ok(!r && !wrong, "%.50s", x->text))
        diag("%d elements are wrong", wrong);
}

#define D4 " {%r0, %r1, %r2, %r3}, "
static const struct mma mmas[] = {
    {"mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32" D4
     "{%r0, %r1}, {%r2}, {%r3, %r4, %r5, %r6};",                                        16, 8,  16, 'h'},
    {"mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32" D4
     "{%r0, %r1, %r2, %r3}, {%r4, %r5}, {%r6, %r7, %x8, %x9};",                         16, 16, 16, 'h'},
    {"mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16 {%r0, %r1}, {%r0, %r1, %r2, %r3}, {%r4, "
     "%r5}, {%r6, %r7};",                                                               16, 16, 16, 'f'},
    {"mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32" D4
     "{%r0, %r1}, {%r2}, {%r3, %r4, %r5, %r6};",                                        16, 8,  16, 'b'},
    {"mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32" D4
     "{%r0, %r1, %r2, %r3}, {%r4, %r5}, {%r6, %r7, %x8, %x9};",                         16, 16, 16, 'b'},
    {"mma.sync.aligned.m16n8k4.row.col.f32.tf32.tf32.f32" D4
     "{%r0, %r1}, {%r2}, {%r3, %r4, %r5, %r6};",                                        16, 4,  32, 't'},
    {"mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32" D4
     "{%r0, %r1, %r2, %r3}, {%r4, %r5}, {%r6, %r7, %x8, %x9};",                         16, 8,  32, 't'},
    {"mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%r0, %r1}, {%r0}, {%r1}, {%r2, %r3};", 8,  16,
     8,                                                                                                  's'},
    {"mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32" D4
     "{%r0, %r1}, {%r2}, {%r3, %r4, %r5, %r6};",                                        16, 16, 8,  's'},
    {"mma.sync.aligned.m16n8k16.row.col.s32.u8.u8.s32" D4
     "{%r0, %r1}, {%r2}, {%r3, %r4, %r5, %r6};",                                        16, 16, 8,  'u'},
    {"mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32" D4
     "{%r0, %r1, %r2, %r3}, {%r4, %r5}, {%r6, %r7, %x8, %x9};",                         16, 32, 8,  's'},
    {"mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32" D4
     "{%r0, %r1, %r2, %r3}, {%r4, %r5}, {%r6, %r7, %x8, %x9};",                         16, 32, 8,  'e'},
};

int main(void)
{
    emu_open(90);
    fill();
    test_exchanges();
    test_matrices();
    for (size_t i = 0; i < NELEM(mmas); i++)
        test_mma(&mmas[i]);
    emu_close();
    is_int(emu_reports(), 0, "no report, and nothing leaked");
    return done_testing();
}
