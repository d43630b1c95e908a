/* SPDX-License-Identifier: MIT */
/* Integers of 32 and 64 bits. */
#include "emu.h"

#define LANES for (int i = 0; i < WARP; i++)

static bool is_signed(const struct ptx_ins *in)
{
    return ptx_type_class((enum ptx_type)in->type[0]) == 's';
}

static uint32_t reverse32(uint32_t v)
{
    uint32_t r = 0;
    for (int k = 0; k < 32; k++)
        r |= (v >> k & 1) << (31 - k);
    return r;
}

/* PTX ISA, bfe: the field is extended by its own top bit when signed; past the end by the source's.
 */
static uint64_t extract(uint64_t a, uint32_t pos, uint32_t len, int bits, bool sign)
{
    pos &= 0xff;
    len &= 0xff;
    uint64_t top = (uint64_t)(bits - 1), r = 0;
    uint64_t last = (uint64_t)pos + len - 1 < top ? (uint64_t)pos + len - 1 : top;
    uint64_t fill = sign && len ? a >> last & 1 : 0;
    for (uint64_t k = 0; k < (uint64_t)bits; k++) {
        uint64_t bit = k < len && pos + k <= top ? a >> (pos + k) & 1 : fill;
        r |= bit << k;
    }
    return r;
}

static uint64_t insert(uint64_t a, uint64_t b, uint32_t pos, uint32_t len, int bits)
{
    pos &= 0xff;
    len &= 0xff;
    for (uint32_t k = 0; k < len && pos + k < (uint32_t)bits; k++) {
        uint64_t at = 1ull << (pos + k);
        b = (b & ~at) | (a >> k & 1 ? at : 0);
    }
    return b;
}

/* The position of the top bit that differs from the sign, FULL when there is none. */
static uint32_t find_bit(uint64_t v, int bits, bool sign, bool shiftamt)
{
    if (sign && (v >> (bits - 1) & 1))
        v = ~v;
    if (bits == 32)
        v &= FULL;
    if (!v)
        return FULL;
    uint32_t at = 63u - (uint32_t)__builtin_clzll(v);
    return shiftamt ? (uint32_t)bits - 1 - at : at;
}

static uint32_t logic3(uint32_t a, uint32_t b, uint32_t c, uint32_t table)
{
    uint32_t r = 0;
    for (uint32_t k = 0; k < 8; k++) {
        if (table >> k & 1)
            r |= (k & 4 ? a : ~a) & (k & 2 ? b : ~b) & (k & 1 ? c : ~c);
    }
    return r;
}

static uint32_t permute(uint32_t a, uint32_t b, uint32_t c, int mode)
{
    static const uint8_t table[][4][4] = {
        {{0, 1, 2, 3}, {1, 2, 3, 4}, {2, 3, 4, 5}, {3, 4, 5, 6}}, /* f4e */
        {{0, 7, 6, 5}, {1, 0, 7, 6}, {2, 1, 0, 7}, {3, 2, 1, 0}}, /* b4e */
        {{0, 0, 0, 0}, {1, 1, 1, 1}, {2, 2, 2, 2}, {3, 3, 3, 3}}, /* rc8 */
        {{0, 1, 2, 3}, {1, 1, 2, 3}, {2, 2, 2, 3}, {3, 3, 3, 3}}, /* ecl */
        {{0, 0, 0, 0}, {0, 1, 1, 1}, {0, 1, 2, 2}, {0, 1, 2, 3}}, /* ecr */
        {{0, 1, 0, 1}, {2, 3, 2, 3}, {0, 1, 0, 1}, {2, 3, 2, 3}}, /* rc16 */
    };
    uint64_t bytes = (uint64_t)b << 32 | a;
    uint32_t r = 0;
    for (int k = 0; k < 4; k++) {
        uint32_t sel = mode ? table[mode - M_F4E][c & 3][k] : c >> (4 * k) & 15;
        uint32_t byte = (uint32_t)(bytes >> (8 * (sel & 7))) & 0xff;
        if (sel & 8)
            byte = byte & 0x80 ? 0xff : 0;
        r |= byte << (8 * k);
    }
    return r;
}

static uint32_t funnel(uint32_t a, uint32_t b, uint32_t c, bool left, bool clamp)
{
    uint32_t n = clamp ? (c < 32 ? c : 32) : c & 31;
    uint64_t both = (uint64_t)b << 32 | a;
    return left ? (uint32_t)((both << n) >> 32) : (uint32_t)(both >> n);
}

static int32_t dot4(const struct ptx_ins *in, uint32_t a, uint32_t b, uint32_t c)
{
    uint32_t sum = c;
    for (int k = 0; k < 4; k++) {
        uint32_t x = a >> (8 * k) & 0xff, y = b >> (8 * k) & 0xff;
        int32_t p = (in->type[0] == T_S32 ? (int32_t)(int8_t)x : (int32_t)x) *
                    (in->type[1] == T_S32 ? (int32_t)(int8_t)y : (int32_t)y);
        sum += (uint32_t)p;
    }
    return (int32_t)sum;
}

static int32_t dot2(const struct ptx_ins *in, uint32_t a, uint32_t b, uint32_t c)
{
    uint32_t sum = c, half = in->f[F_MODE] == M_HI ? 2 : 0;
    for (uint32_t k = 0; k < 2; k++) {
        uint32_t x = a >> (16 * k) & 0xffff, y = b >> (8 * (k + half)) & 0xff;
        int32_t p = (in->type[0] == T_S32 ? (int32_t)(int16_t)x : (int32_t)x) *
                    (in->type[1] == T_S32 ? (int32_t)(int8_t)y : (int32_t)y);
        sum += (uint32_t)p;
    }
    return (int32_t)sum;
}

static int32_t sign24(uint32_t v)
{
    return (int32_t)(v << 8) >> 8;
}

static uint32_t mul24(uint32_t a, uint32_t b, bool sign, bool high)
{
    if (sign) {
        int64_t p = (int64_t)sign24(a) * sign24(b);
        return (uint32_t)(high ? p >> 16 : p);
    }
    uint64_t p = (uint64_t)(a & 0xffffff) * (b & 0xffffff);
    return (uint32_t)(high ? p >> 16 : p);
}

static int32_t add_sat(int64_t v)
{
    return v > INT32_MAX ? INT32_MAX : v < INT32_MIN ? INT32_MIN : (int32_t)v;
}

/* Division by zero gives no fault in PTX; its result is unspecified: all ones here. */
static uint32_t divide(uint32_t a, uint32_t b, bool sign, bool rem)
{
    if (!b)
        return rem ? a : FULL;
    if (!sign)
        return rem ? a % b : a / b;
    int64_t x = (int32_t)a, y = (int32_t)b;
    return (uint32_t)(rem ? x % y : x / y);
}

static void products(const struct ptx_ins *in, struct slot *d, const struct slot *const s[4])
{
    const uint32_t *a = s[0]->u, *b = s[1]->u;
    bool sign = is_signed(in), add = in->op == OP_MAD;
    if (in->f[F_MODE] == M_WIDE) {
        if (sign)
            LANES d->sl[i] = (int64_t)(int32_t)a[i] * (int32_t)b[i];
        else
            LANES d->ul[i] = (uint64_t)a[i] * b[i];
        if (add)
            LANES d->ul[i] += s[2]->ul[i];
        return;
    }
    if (in->f[F_MODE] == M_HI && sign)
        LANES d->u[i] = (uint32_t)((int64_t)(int32_t)a[i] * (int32_t)b[i] >> 32);
    else if (in->f[F_MODE] == M_HI)
        LANES d->u[i] = (uint32_t)((uint64_t)a[i] * b[i] >> 32);
    else
        LANES d->u[i] = a[i] * b[i];
    if (add && in->f[F_SAT])
        LANES d->s[i] = add_sat((int64_t)d->s[i] + s[2]->s[i]);
    else if (add)
        LANES d->u[i] += s[2]->u[i];
}

void alu_int(const struct ptx_ins *in, struct slot *d, const struct slot *const s[4])
{
    const uint32_t *a = s[0]->u, *b = s[1] ? s[1]->u : a, *c = s[2] ? s[2]->u : a;
    const int32_t *sa = s[0]->s, *sb = s[1] ? s[1]->s : sa, *sc = s[2] ? s[2]->s : sa;
    bool sign = is_signed(in);
    int op = in->op;
    switch (op) {
    case OP_ADD:
        if (in->f[F_SAT])
            LANES d->s[i] = add_sat((int64_t)sa[i] + sb[i]);
        else
            LANES d->u[i] = a[i] + b[i];
        break;
    case OP_SUB:
        if (in->f[F_SAT])
            LANES d->s[i] = add_sat((int64_t)sa[i] - sb[i]);
        else
            LANES d->u[i] = a[i] - b[i];
        break;
    case OP_MUL:
    case OP_MAD:
        products(in, d, s);
        break;
    case OP_MUL24:
        LANES d->u[i] = mul24(a[i], b[i], sign, in->f[F_MODE] == M_HI);
        break;
    case OP_MAD24:
        LANES d->u[i] = mul24(a[i], b[i], sign, in->f[F_MODE] == M_HI) + c[i];
        break;
    case OP_DIV:
        LANES d->u[i] = divide(a[i], b[i], sign, false);
        break;
    case OP_REM:
        LANES d->u[i] = divide(a[i], b[i], sign, true);
        break;
    case OP_ABS:
        LANES d->u[i] = sa[i] < 0 ? 0 - a[i] : a[i];
        break;
    case OP_NEG:
        LANES d->u[i] = 0 - a[i];
        break;
    case OP_MIN:
    case OP_MAX: {
        bool max = op == OP_MAX;
        if (sign)
            LANES d->s[i] = (sa[i] < sb[i]) != max ? sa[i] : sb[i];
        else
            LANES d->u[i] = (a[i] < b[i]) != max ? a[i] : b[i];
        if (s[2] && sign)
            LANES d->s[i] = (d->s[i] < sc[i]) != max ? d->s[i] : sc[i];
        else if (s[2])
            LANES d->u[i] = (d->u[i] < c[i]) != max ? d->u[i] : c[i];
        if (in->f[F_RELU])
            LANES d->s[i] = d->s[i] > 0 ? d->s[i] : 0;
        break;
    }
    case OP_SAD:
        if (sign)
            LANES d->u[i] = c[i] + (sa[i] < sb[i] ? b[i] - a[i] : a[i] - b[i]);
        else
            LANES d->u[i] = c[i] + (a[i] < b[i] ? b[i] - a[i] : a[i] - b[i]);
        break;
    case OP_POPC:
        LANES d->u[i] = (uint32_t)__builtin_popcount(a[i]);
        break;
    case OP_CLZ:
        LANES d->u[i] = a[i] ? (uint32_t)__builtin_clz(a[i]) : 32;
        break;
    case OP_BFIND:
        LANES d->u[i] = find_bit(a[i], 32, sign, in->f[F_MODE] == M_SHIFTAMT);
        break;
    case OP_BREV:
        LANES d->u[i] = reverse32(a[i]);
        break;
    case OP_BFE:
        LANES d->u[i] = (uint32_t)extract(a[i], b[i], c[i], 32, sign);
        break;
    case OP_BFI:
        LANES d->u[i] = (uint32_t)insert(a[i], b[i], c[i], s[3]->u[i], 32);
        break;
    case OP_LOP3:
        LANES d->u[i] = logic3(a[i], b[i], c[i], s[3]->u[i]);
        break;
    case OP_BMSK:
        LANES
        {
            uint32_t at = in->f[F_MODE] == M_WRAP ? a[i] & 31 : a[i],
                     n = in->f[F_MODE] == M_WRAP ? b[i] & 31 : b[i];
            d->u[i] = at > 31 ? 0 : (uint32_t)((n > 31 ? FULL : (1ull << n) - 1) << at);
        }
        break;
    case OP_DP4A:
        LANES d->s[i] = dot4(in, a[i], b[i], c[i]);
        break;
    case OP_DP2A:
        LANES d->s[i] = dot2(in, a[i], b[i], c[i]);
        break;
    case OP_AND:
        LANES d->u[i] = a[i] & b[i];
        break;
    case OP_OR:
        LANES d->u[i] = a[i] | b[i];
        break;
    case OP_XOR:
        LANES d->u[i] = a[i] ^ b[i];
        break;
    case OP_NOT:
        LANES d->u[i] = ~a[i];
        break;
    case OP_CNOT:
        LANES d->u[i] = a[i] == 0;
        break;
    case OP_SHL:
        LANES d->u[i] = b[i] > 31 ? 0 : a[i] << b[i];
        break;
    case OP_SHR:
        if (sign)
            LANES d->s[i] = sa[i] >> (b[i] > 31 ? 31 : b[i]);
        else
            LANES d->u[i] = b[i] > 31 ? 0 : a[i] >> b[i];
        break;
    case OP_SHF:
        LANES d->u[i] = funnel(a[i], b[i], c[i], in->f[F_DIR] == D_LEFT, in->f[F_MODE] == M_CLAMP);
        break;
    case OP_PRMT:
        LANES d->u[i] = permute(a[i], b[i], c[i], in->f[F_MODE]);
        break;
    case OP_SLCT:
        LANES d->u[i] = (in->type[1] == T_F32 ? s[2]->f[i] >= 0 : sc[i] >= 0) ? a[i] : b[i];
        break;
    default:
        LANES d->u[i] = 0xdeadbeef;
    }
}

static uint64_t divide64(uint64_t a, uint64_t b, bool sign, bool rem)
{
    if (!b)
        return rem ? a : ~0ull;
    if (!sign)
        return rem ? a % b : a / b;
    if ((int64_t)b == -1) /* the one quotient that overflows */
        return rem ? 0 : 0 - a;
    return (uint64_t)(rem ? (int64_t)a % (int64_t)b : (int64_t)a / (int64_t)b);
}

static uint64_t high64(uint64_t a, uint64_t b, bool sign)
{
    if (sign)
        return (uint64_t)((__int128)(int64_t)a * (int64_t)b >> 64);
    return (uint64_t)((unsigned __int128)a * b >> 64);
}

void alu_long(const struct ptx_ins *in, struct slot *d, const struct slot *const s[4])
{
    const uint64_t *a = s[0]->ul, *b = s[1] ? s[1]->ul : a, *c = s[2] ? s[2]->ul : a;
    const int64_t *sa = s[0]->sl, *sb = s[1] ? s[1]->sl : sa;
    const uint32_t *n = s[1] ? s[1]->u : s[0]->u; /* a shift's amount is 32 bits */
    bool sign = is_signed(in);
    switch (in->op) {
    case OP_ADD:
        LANES d->ul[i] = a[i] + b[i];
        break;
    case OP_SUB:
        LANES d->ul[i] = a[i] - b[i];
        break;
    case OP_MUL:
        LANES d->ul[i] = in->f[F_MODE] == M_HI ? high64(a[i], b[i], sign) : a[i] * b[i];
        break;
    case OP_MAD:
        LANES d->ul[i] = (in->f[F_MODE] == M_HI ? high64(a[i], b[i], sign) : a[i] * b[i]) + c[i];
        break;
    case OP_DIV:
        LANES d->ul[i] = divide64(a[i], b[i], sign, false);
        break;
    case OP_REM:
        LANES d->ul[i] = divide64(a[i], b[i], sign, true);
        break;
    case OP_ABS:
        LANES d->ul[i] = sa[i] < 0 ? 0 - a[i] : a[i];
        break;
    case OP_NEG:
        LANES d->ul[i] = 0 - a[i];
        break;
    case OP_MIN:
        LANES d->ul[i] = (sign ? sa[i] < sb[i] : a[i] < b[i]) ? a[i] : b[i];
        break;
    case OP_MAX:
        LANES d->ul[i] = (sign ? sa[i] < sb[i] : a[i] < b[i]) ? b[i] : a[i];
        break;
    case OP_SAD:
        LANES d->ul[i] = c[i] + ((sign ? sa[i] < sb[i] : a[i] < b[i]) ? b[i] - a[i] : a[i] - b[i]);
        break;
    case OP_POPC:
        LANES d->u[i] = (uint32_t)__builtin_popcountll(a[i]);
        break;
    case OP_CLZ:
        LANES d->u[i] = a[i] ? (uint32_t)__builtin_clzll(a[i]) : 64;
        break;
    case OP_BFIND:
        LANES d->u[i] = find_bit(a[i], 64, sign, in->f[F_MODE] == M_SHIFTAMT);
        break;
    case OP_BREV:
        LANES d->ul[i] =
            (uint64_t)reverse32((uint32_t)a[i]) << 32 | reverse32((uint32_t)(a[i] >> 32));
        break;
    case OP_BFE:
        LANES d->ul[i] = extract(a[i], n[i], s[2]->u[i], 64, sign);
        break;
    case OP_BFI:
        LANES d->ul[i] = insert(a[i], b[i], s[2]->u[i], s[3]->u[i], 64);
        break;
    case OP_AND:
        LANES d->ul[i] = a[i] & b[i];
        break;
    case OP_OR:
        LANES d->ul[i] = a[i] | b[i];
        break;
    case OP_XOR:
        LANES d->ul[i] = a[i] ^ b[i];
        break;
    case OP_NOT:
        LANES d->ul[i] = ~a[i];
        break;
    case OP_CNOT:
        LANES d->ul[i] = a[i] == 0;
        break;
    case OP_SHL:
        LANES d->ul[i] = n[i] > 63 ? 0 : a[i] << n[i];
        break;
    case OP_SHR:
        if (sign)
            LANES d->sl[i] = sa[i] >> (n[i] > 63 ? 63 : n[i]);
        else
            LANES d->ul[i] = n[i] > 63 ? 0 : a[i] >> n[i];
        break;
    case OP_SLCT:
        LANES d->ul[i] = (in->type[1] == T_F32 ? s[2]->f[i] >= 0 : s[2]->s[i] >= 0) ? a[i] : b[i];
        break;
    default:
        LANES d->ul[i] = 0xdeadbeefdeadbeefu;
    }
}
