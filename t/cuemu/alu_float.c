/* SPDX-License-Identifier: MIT */
/* f32, f64, the half types, and comparisons of everything.
 *
 * The .approx operations give the nearest float; hardware is allowed to be a few units off (PTX
 * ISA, "max relative error"), so tests must not ask for these bits. */
#include "emu.h"

#include <fenv.h>
#include <math.h>
#include <string.h>

#define LANES for (int i = 0; i < WARP; i++)

static int host_rounding(int r)
{
    return r == R_RZ   ? FE_TOWARDZERO
           : r == R_RM ? FE_DOWNWARD
           : r == R_RP ? FE_UPWARD
                       : FE_TONEAREST;
}

static float flush(float x)
{
    return fabsf(x) < 0x1p-126f ? copysignf(0, x) : x;
}

static float nan32(void)
{
    const uint32_t bits = 0x7fffffff;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static float least(float a, float b, bool max, bool keep_nan)
{
    if (isnan(a) || isnan(b)) {
        if (keep_nan || (isnan(a) && isnan(b)))
            return nan32();
        return isnan(a) ? b : a;
    }
    if (a == b) /* -0 is below +0 */
        return (signbit(a) != 0) != max ? a : b;
    return (a < b) != max ? a : b;
}

static double least_double(double a, double b, bool max)
{
    if (isnan(a) || isnan(b))
        return isnan(a) ? b : a;
    if (a == b)
        return (signbit(a) != 0) != max ? a : b;
    return (a < b) != max ? a : b;
}

/* PTX ISA, div.approx: between 2^126 and 2^128 the reciprocal of the divisor is flushed to 0. */
static float divide(float a, float b, int approx)
{
    if (approx == 1 && fabsf(b) > 0x1p126f && !isinf(b))
        return isinf(a) ? nan32() : copysignf(0, a) * copysignf(1, b);
    return a / b;
}

static void compute(const struct ptx_ins *in, float *d, const float *a, const float *b,
                    const float *c, bool three)
{
    switch (in->op) {
    case OP_ADD:
        LANES d[i] = a[i] + b[i];
        break;
    case OP_SUB:
        LANES d[i] = a[i] - b[i];
        break;
    case OP_MUL:
        LANES d[i] = a[i] * b[i];
        break;
    case OP_FMA:
    case OP_MAD:
        LANES d[i] = fmaf(a[i], b[i], c[i]);
        break;
    case OP_DIV:
        LANES d[i] = divide(a[i], b[i], in->f[F_APPROX]);
        break;
    case OP_ABS:
        LANES d[i] = fabsf(a[i]);
        break;
    case OP_NEG:
        LANES d[i] = -a[i];
        break;
    case OP_MIN:
    case OP_MAX:
        LANES d[i] = least(a[i], b[i], in->op == OP_MAX, in->f[F_NAN]);
        if (three)
            LANES d[i] = least(d[i], c[i], in->op == OP_MAX, in->f[F_NAN]);
        break;
    case OP_RCP:
        LANES d[i] = 1.0f / a[i];
        break;
    case OP_SQRT:
        LANES d[i] = sqrtf(a[i]);
        break;
    case OP_RSQRT:
        LANES d[i] = (float)(1.0 / sqrt((double)a[i]));
        break;
    case OP_SIN:
        LANES d[i] = sinf(a[i]);
        break;
    case OP_COS:
        LANES d[i] = cosf(a[i]);
        break;
    case OP_LG2:
        LANES d[i] = log2f(a[i]);
        break;
    case OP_EX2:
        LANES d[i] = exp2f(a[i]);
        break;
    case OP_TANH:
        LANES d[i] = tanhf(a[i]);
        break;
    case OP_COPYSIGN:
        LANES d[i] = copysignf(b[i], a[i]);
        break;
    default:
        LANES d[i] = nan32();
    }
}

void alu_float(const struct ptx_ins *in, struct slot *d, const struct slot *const s[4])
{
    const float *src[3];
    float flushed[3][WARP];
    for (int k = 0; k < 3; k++) {
        src[k] = s[k] ? s[k]->f : s[0]->f;
        if (in->f[F_FTZ] && s[k]) {
            LANES flushed[k][i] = flush(s[k]->f[i]);
            src[k] = flushed[k];
        }
    }
    if (in->op == OP_SLCT) {
        LANES d->u[i] =
            (in->type[1] == T_F32 ? src[2][i] >= 0 : s[2]->s[i] >= 0) ? s[0]->u[i] : s[1]->u[i];
        return;
    }
    int rounding = host_rounding(in->f[F_ROUND]);
    if (rounding != FE_TONEAREST)
        fesetround(rounding);
    compute(in, d->f, src[0], src[1], src[2], s[2] != NULL);
    if (rounding != FE_TONEAREST)
        fesetround(FE_TONEAREST);
    if (in->f[F_FTZ])
        LANES d->f[i] = flush(d->f[i]);
    if (in->f[F_SAT])
        LANES d->f[i] = d->f[i] > 0 ? (d->f[i] < 1 ? d->f[i] : 1) : 0; /* NaN becomes 0 */
}

void alu_double(const struct ptx_ins *in, struct slot *slot, const struct slot *const s[4])
{
    double *d = slot->d;
    const double *a = s[0]->d, *b = s[1] ? s[1]->d : a, *c = s[2] ? s[2]->d : a;
    int rounding = host_rounding(in->f[F_ROUND]);
    if (rounding != FE_TONEAREST)
        fesetround(rounding);
    switch (in->op) {
    case OP_ADD:
        LANES d[i] = a[i] + b[i];
        break;
    case OP_SUB:
        LANES d[i] = a[i] - b[i];
        break;
    case OP_MUL:
        LANES d[i] = a[i] * b[i];
        break;
    case OP_FMA:
    case OP_MAD:
        LANES d[i] = fma(a[i], b[i], c[i]);
        break;
    case OP_DIV:
        LANES d[i] = a[i] / b[i];
        break;
    case OP_ABS:
        LANES d[i] = fabs(a[i]);
        break;
    case OP_NEG:
        LANES d[i] = -a[i];
        break;
    case OP_MIN:
    case OP_MAX:
        LANES d[i] = least_double(a[i], b[i], in->op == OP_MAX);
        break;
    case OP_RCP:
        LANES d[i] = 1 / a[i];
        break;
    case OP_SQRT:
        LANES d[i] = sqrt(a[i]);
        break;
    case OP_RSQRT:
        LANES d[i] = 1 / sqrt(a[i]);
        break;
    case OP_COPYSIGN:
        LANES d[i] = copysign(b[i], a[i]);
        break;
    case OP_SLCT:
        LANES d[i] = (in->type[1] == T_F32 ? s[2]->f[i] >= 0 : s[2]->s[i] >= 0) ? a[i] : b[i];
        break;
    default:
        LANES d[i] = (double)nan32();
    }
    if (rounding != FE_TONEAREST)
        fesetround(FE_TONEAREST);
}

/* ---- halves ---- */

static uint32_t encode(bool bf16, double x)
{
    return fmt_encode(bf16 ? FMT_BF16 : FMT_F16, x, R_RN, false);
}

static float half_value(bool bf16, uint32_t h)
{
    return bf16 ? bf16_to_float(h & 0xffff) : f16_to_float(h);
}

/* a * b + c so that a later rounding to fewer bits is right: the last bit is sticky. */
static double fma_sticky(double a, double b, double c)
{
    double p = a * b, s = p + c; /* p is exact for halves */
    double back = s - p, rest = (p - (s - back)) + (c - back);
    uint64_t bits;
    memcpy(&bits, &s, sizeof bits);
    if (rest != 0 && !(bits & 1) && isfinite(s)) {
        bits += (rest > 0) == (s > 0) ? 1 : (uint64_t)-1;
        memcpy(&s, &bits, sizeof s);
    }
    return s;
}

static uint32_t half_bits(const struct ptx_ins *in, bool bf16, uint32_t a, uint32_t b, uint32_t c,
                          bool three)
{
    if (in->op == OP_NEG)
        return (a ^ 0x8000) & 0xffff;
    if (in->op == OP_ABS)
        return a & 0x7fff;
    float x = half_value(bf16, a), y = half_value(bf16, b), z = half_value(bf16, c);
    if (in->f[F_FTZ] && !bf16) { /* of f16, whose smallest normal number is 2^-14 */
        x = fabsf(x) < 0x1p-14f ? copysignf(0, x) : x;
        y = fabsf(y) < 0x1p-14f ? copysignf(0, y) : y;
        z = fabsf(z) < 0x1p-14f ? copysignf(0, z) : z;
    }
    double r;
    switch (in->op) {
    case OP_ADD:
        r = (double)x + (double)y;
        break;
    case OP_SUB:
        r = (double)x - (double)y;
        break;
    case OP_MUL:
        r = (double)x * (double)y;
        break;
    case OP_FMA:
        r = fma_sticky((double)x, (double)y, (double)z);
        break;
    case OP_MIN:
    case OP_MAX:
        r = (double)least(x, y, in->op == OP_MAX, in->f[F_NAN]);
        if (three)
            r = (double)least((float)r, z, in->op == OP_MAX, in->f[F_NAN]);
        break;
    case OP_EX2:
        r = (double)exp2f(x);
        break;
    case OP_TANH:
        r = (double)tanhf(x);
        break;
    default:
        r = (double)nan32();
    }
    if (in->f[F_SAT])
        r = r > 0 ? (r < 1 ? r : 1) : 0;
    if (in->f[F_RELU] && r < 0)
        r = 0;
    uint32_t h = encode(bf16, r);
    if (in->f[F_FTZ] && !bf16 && !(h & 0x7c00))
        h &= 0x8000;
    return h;
}

void alu_half(const struct ptx_ins *in, struct slot *d, const struct slot *const s[4])
{
    bool bf16 = in->type[0] == T_BF16 || in->type[0] == T_BF16X2;
    bool pair = in->type[0] == T_F16X2 || in->type[0] == T_BF16X2;
    const uint32_t *a = s[0]->u, *b = s[1] ? s[1]->u : a, *c = s[2] ? s[2]->u : a;
    LANES
    {
        d->u[i] = half_bits(in, bf16, a[i] & 0xffff, b[i] & 0xffff, c[i] & 0xffff, s[2] != NULL);
        if (pair)
            d->u[i] |= half_bits(in, bf16, a[i] >> 16, b[i] >> 16, c[i] >> 16, s[2] != NULL) << 16;
    }
}

/* ---- comparisons ---- */

static bool ordered(int cmp, int order)
{
    switch (cmp) { /* order: -1, 0, 1 */
    case CMP_EQ:
    case CMP_EQU:
        return order == 0;
    case CMP_NE:
    case CMP_NEU:
        return order != 0;
    case CMP_LT:
    case CMP_LTU:
    case CMP_LO:
        return order < 0;
    case CMP_LE:
    case CMP_LEU:
    case CMP_LS:
        return order <= 0;
    case CMP_GT:
    case CMP_GTU:
    case CMP_HI:
        return order > 0;
    case CMP_GE:
    case CMP_GEU:
    case CMP_HS:
        return order >= 0;
    default:
        return cmp == CMP_NUM;
    }
}

static bool compare_doubles(int cmp, double a, double b)
{
    if (isnan(a) || isnan(b))
        return (cmp >= CMP_EQU && cmp <= CMP_GEU) || cmp == CMP_NAN;
    return ordered(cmp, (a > b) - (a < b));
}

static double real(const struct slot *s, int i, enum ptx_type t, bool ftz)
{
    switch (t) {
    case T_F16:
        return (double)f16_to_float(s->u[i]);
    case T_BF16:
        return (double)bf16_to_float(s->u[i] & 0xffff);
    case T_F64:
        return s->d[i];
    default:
        return (double)(ftz ? flush(s->f[i]) : s->f[i]);
    }
}

static int int_order(const struct slot *a, const struct slot *b, int i, enum ptx_type t)
{
    switch (t) {
    case T_S64:
        return (a->sl[i] > b->sl[i]) - (a->sl[i] < b->sl[i]);
    case T_U64:
    case T_B64:
        return (a->ul[i] > b->ul[i]) - (a->ul[i] < b->ul[i]);
    case T_S32:
        return (a->s[i] > b->s[i]) - (a->s[i] < b->s[i]);
    case T_S16:
        return ((int16_t)a->u[i] > (int16_t)b->u[i]) - ((int16_t)a->u[i] < (int16_t)b->u[i]);
    case T_U16:
    case T_B16:
        return ((uint16_t)a->u[i] > (uint16_t)b->u[i]) - ((uint16_t)a->u[i] < (uint16_t)b->u[i]);
    default:
        return (a->u[i] > b->u[i]) - (a->u[i] < b->u[i]);
    }
}

uint32_t alu_compare(const struct ptx_ins *in, enum ptx_type t, const struct slot *a,
                     const struct slot *b)
{
    uint32_t m = 0;
    int cmp = in->f[F_CMP];
    bool is_real = t == T_F32 || t == T_F64 || t == T_F16 || t == T_BF16;
    for (int i = 0; i < WARP; i++) {
        bool yes =
            is_real ? compare_doubles(cmp, real(a, i, t, in->f[F_FTZ]), real(b, i, t, in->f[F_FTZ]))
                    : ordered(cmp, int_order(a, b, i, t));
        m |= (uint32_t)yes << i;
    }
    return m;
}
