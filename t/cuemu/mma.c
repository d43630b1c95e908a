/* SPDX-License-Identifier: MIT */
/* mma.sync: D = A B + C over fragments held by a warp.
 *
 * Lane L holds parts of row (group) L / 4 and columns from L % 4; the comments at each layout give
 * the PTX ISA's words for element i of a fragment.  Sums are in float, in order of k: hardware
 * rounds otherwise, so compare with a tolerance. */
#include "emu.h"

#include <string.h>

#define M_MAX 16
#define N_MAX 8
#define K_MAX 32

struct matrices {
    float a[M_MAX][K_MAX], b[K_MAX][N_MAX], c[M_MAX][N_MAX];
    int32_t ia[M_MAX][K_MAX], ib[K_MAX][N_MAX], ic[M_MAX][N_MAX];
};

struct shape {
    int m, n, k;
};

static struct shape shape_of(int s)
{
    static const struct shape shapes[] = {
        {0,  0, 0 },
        {16, 8, 4 },
        {16, 8, 8 },
        {16, 8, 16},
        {16, 8, 32},
        {8,  8, 16}
    };
    return shapes[s];
}

/* Elements of a 32-bit register. */
static int per_register(enum ptx_type t)
{
    return 32 / ptx_type_bits(t);
}

static float decode(uint32_t bits, int index, enum ptx_type t)
{
    switch (t) {
    case T_F16:
        return f16_to_float(bits >> (16 * index) & 0xffff);
    case T_BF16:
        return bf16_to_float(bits >> (16 * index) & 0xffff);
    case T_E4M3:
        return (float)fmt_decode(FMT_E4M3, bits >> (8 * index) & 0xff);
    case T_E5M2:
        return (float)fmt_decode(FMT_E5M2, bits >> (8 * index) & 0xff);
    default: { /* tf32: the low 13 bits are not looked at */
        float f;
        bits &= 0xffffe000u;
        memcpy(&f, &bits, sizeof f);
        return f;
    }
    }
}

/* The elements of a register of one lane. */
static void unpack(uint32_t bits, enum ptx_type t, float x[4])
{
    if (t == T_F16) {
        x[0] = f16_to_float(bits);
        x[1] = f16_to_float(bits >> 16);
        return;
    }
    for (int i = 0; i < per_register(t); i++)
        x[i] = decode(bits, i, t);
}

static int32_t decode_int(uint32_t bits, int index, enum ptx_type t)
{
    uint32_t byte = bits >> (8 * index) & 0xff;
    return t == T_S8 ? (int32_t)(int8_t)byte : (int32_t)byte;
}

struct fragment {
    const struct slot *reg[8];
    int n;
};

static struct fragment fragment_of(struct warp *w, const struct ptx_ins *in, int operand,
                                   uint32_t mask, int want)
{
    const struct ptx_operand *o = &in->o[operand], *e = &w->frame->fn->vec[o->off];
    struct fragment f = {.n = o->count};
    if (f.n != want)
        warp_fault(w, in, -1, FAULT_UNSUPPORTED, "operand %d of mma has %d registers, %d are due",
                   operand, f.n, want);
    for (int r = 0; r < f.n; r++) {
        f.reg[r] = slot_at(w->frame, e[r].off);
        if (operand)
            warp_need_defined(w, in, &e[r], mask, "a fragment of mma");
    }
    return f;
}

/* A (m x k, row).  Registers alternate between row group and group + 8 (where m is 16), then move
 * to the upper half of k; in a register lie consecutive columns from (L % 4) * elements. */
static void load_a(const struct fragment *f, struct shape s, enum ptx_type t, struct matrices *x,
                   bool is_int)
{
    int e = per_register(t), rows = s.m / 8;
    for (int r = 0; r < f->n; r++) {
        for (int lane = 0; lane < WARP; lane++) {
            int row = lane / 4 + 8 * (r % rows), column = lane % 4 * e + 4 * e * (r / rows);
            if (!is_int)
                unpack(f->reg[r]->u[lane], t, &x->a[row][column]);
            for (int i = 0; i < e && is_int; i++)
                x->ia[row][column + i] = decode_int(f->reg[r]->u[lane], i, t);
        }
    }
}

/* B (k x n, col): rows from (L % 4) * elements, column group; the next register is further down k.
 */
static void load_b(const struct fragment *f, enum ptx_type t, struct matrices *x, bool is_int)
{
    int e = per_register(t);
    for (int r = 0; r < f->n; r++) {
        for (int lane = 0; lane < WARP; lane++) {
            int row = lane % 4 * e + 4 * e * r;
            float part[4];
            if (!is_int)
                unpack(f->reg[r]->u[lane], t, part);
            for (int i = 0; i < e; i++) {
                if (is_int)
                    x->ib[row + i][lane / 4] = decode_int(f->reg[r]->u[lane], i, t);
                else
                    x->b[row + i][lane / 4] = part[i];
            }
        }
    }
}

/* C and D (m x n): columns (L % 4) * 2 and the next; 32-bit types have a register for each, f16 one
 * for both; the second half of the registers is row group + 8. */
static void load_c(const struct fragment *f, enum ptx_type t, struct matrices *x)
{
    for (int r = 0; r < f->n; r++) {
        for (int lane = 0; lane < WARP; lane++) {
            uint32_t bits = f->reg[r]->u[lane];
            int column = lane % 4 * 2;
            if (t == T_F16) {
                for (int i = 0; i < 2; i++)
                    x->c[lane / 4 + 8 * r][column + i] = decode(bits, i, t);
            } else if (t == T_F32) {
                x->c[lane / 4 + 8 * (r / 2)][column + r % 2] = f->reg[r]->f[lane];
            } else {
                x->ic[lane / 4 + 8 * (r / 2)][column + r % 2] = (int32_t)bits;
            }
        }
    }
}

static void store_d(struct warp *w, const struct ptx_ins *in, enum ptx_type t,
                    const struct matrices *x)
{
    const struct ptx_operand *o = &in->o[0], *e = &w->frame->fn->vec[o->off];
    for (int r = 0; r < o->count; r++) {
        if (e[r].kind == O_SINK)
            continue;
        struct slot *d = slot_at(w->frame, e[r].off);
        d->def = FULL;
        for (int lane = 0; lane < WARP; lane++) {
            int column = lane % 4 * 2;
            if (t == T_F16) {
                const float *c = &x->c[lane / 4 + 8 * r][column];
                d->u[lane] = f16_from_float(c[0]) | f16_from_float(c[1]) << 16;
            } else if (t == T_F32) {
                d->f[lane] = x->c[lane / 4 + 8 * (r / 2)][column + r % 2];
            } else {
                d->s[lane] = x->ic[lane / 4 + 8 * (r / 2)][column + r % 2];
            }
        }
    }
}

static void multiply(struct matrices *x, struct shape s)
{
    for (int i = 0; i < s.m; i++) {
        float sum[N_MAX];
        memcpy(sum, x->c[i], sizeof sum);
        for (int k = 0; k < s.k; k++) {
            for (int j = 0; j < N_MAX; j++)
                sum[j] += x->a[i][k] * x->b[k][j];
        }
        memcpy(x->c[i], sum, sizeof sum);
    }
}

static int32_t saturated(int64_t v)
{
    return v > INT32_MAX ? INT32_MAX : v < INT32_MIN ? INT32_MIN : (int32_t)v;
}

static void multiply_int(struct matrices *x, struct shape s, bool sat)
{
    for (int i = 0; i < s.m; i++) {
        for (int j = 0; j < s.n; j++) {
            int64_t sum = x->ic[i][j];
            for (int k = 0; k < s.k; k++)
                sum += (int64_t)x->ia[i][k] * x->ib[k][j];
            x->ic[i][j] = sat ? saturated(sum) : (int32_t)(uint32_t)(uint64_t)sum;
        }
    }
}

/* Which shapes each type of A has. */
static bool legal(const struct ptx_ins *in)
{
    int shape = in->f[F_SHAPE];
    enum ptx_type d = (enum ptx_type)in->type[0], a = (enum ptx_type)in->type[1];
    if (in->f[F_LAYOUT_A] != 1 || in->f[F_LAYOUT_B] != 2)
        return false;
    switch (a) {
    case T_F16:
        return (shape == SH_M16N8K8 || shape == SH_M16N8K16) && (d == T_F32 || d == T_F16) &&
               in->type[2] == T_F16;
    case T_BF16:
        return (shape == SH_M16N8K8 || shape == SH_M16N8K16) && d == T_F32 && in->type[2] == T_BF16;
    case T_TF32:
        return (shape == SH_M16N8K4 || shape == SH_M16N8K8) && d == T_F32 && in->type[2] == T_TF32;
    case T_E4M3:
    case T_E5M2:
        return shape == SH_M16N8K32 && d == T_F32 &&
               (in->type[2] == T_E4M3 || in->type[2] == T_E5M2);
    case T_S8:
    case T_U8:
        return (shape == SH_M8N8K16 || shape == SH_M16N8K16 || shape == SH_M16N8K32) &&
               d == T_S32 && (in->type[2] == T_S8 || in->type[2] == T_U8);
    default:
        return false;
    }
}

void op_mma(struct warp *w, const struct ptx_ins *in, uint32_t mask)
{
    enum ptx_type td = (enum ptx_type)in->type[0], ta = (enum ptx_type)in->type[1],
                  tb = (enum ptx_type)in->type[2], tc = (enum ptx_type)in->type[3];
    if (!legal(in))
        warp_fault(w, in, -1, FAULT_UNSUPPORTED, "mma of these types in this shape");
    if (mask != FULL)
        warp_fault(w, in, __builtin_ctz(~mask), FAULT_CONVERGENCE, "mma by lanes %08x of a warp",
                   mask);
    struct shape s = shape_of(in->f[F_SHAPE]);
    bool is_int = td == T_S32;
    struct matrices x;
    struct fragment a = fragment_of(w, in, 1, mask, s.m * s.k / WARP / per_register(ta));
    struct fragment b = fragment_of(w, in, 2, mask, s.k * s.n / WARP / per_register(tb));
    struct fragment c = fragment_of(w, in, 3, mask, s.m * s.n / WARP / (tc == T_F16 ? 2 : 1));
    fragment_of(w, in, 0, mask, s.m * s.n / WARP / (td == T_F16 ? 2 : 1));
    load_a(&a, s, ta, &x, is_int);
    load_b(&b, tb, &x, is_int);
    load_c(&c, tc, &x);
    if (is_int)
        multiply_int(&x, s, in->f[F_SAT]);
    else
        multiply(&x, s);
    store_d(w, in, td, &x);
    w->block->launch->stats.mma_flops += (uint64_t)(2 * s.m * s.n * s.k);
}
