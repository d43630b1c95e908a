/* SPDX-License-Identifier: MIT */
/* How each opcode is written: its operands, the modifiers it may have, the types it works on. */
#include "ptx.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    int bits;
    char class;
} types[T_COUNT] = {
#define PTX_TYPE_ROW(e, suffix, bits, class) {suffix, bits, class},
    PTX_TYPES(PTX_TYPE_ROW)
#undef PTX_TYPE_ROW
};

const char *ptx_type_name(enum ptx_type t)
{
    return types[t].name;
}

int ptx_type_bits(enum ptx_type t)
{
    return types[t].bits;
}

char ptx_type_class(enum ptx_type t)
{
    return types[t].class;
}

#define B(f) (1ull << (f))
#define ARITH (B(F_ROUND) | B(F_FTZ) | B(F_SAT) | B(F_CC) | B(F_RELU))
#define APPROX (B(F_APPROX) | B(F_ROUND) | B(F_FTZ))
#define MEMORY (B(F_SPACE) | B(F_VEC) | B(F_ORDER) | B(F_SCOPE) | B(F_CACHE) | B(F_HINT) | B(F_NC))
#define SYNC (B(F_SYNC) | B(F_ALIGNED))

/* Operands, a letter each.  Capital letters are not related to the small ones.
 *   d s    written, read, of type[0]      D S   the same, twice as wide under .wide
 *   U u    written, read, 32 bits         x     read, 64 bits
 *   p q    written, read predicate        P     written predicate or pair p|q
 *   b k    written of type[0], of 32 bits, with an optional predicate after |
 *   t      read, of type[1]               O     read of type[0], optional
 *   Q J T  optional: read predicate, read 32 bits, read of type[1]
 *   v w    written, read value: one register or a vector, each of type[0]
 *   M m    written, read vector of 32-bit registers
 *   a      address                        l     label or list of labels
 * A cache policy (.L2::cache_hint) follows these.  Types are those of type[0]; i is u and s. */
// clang-format off
static const struct ptx_opcode opcodes[] = {
    {"add", OP_ADD, "dss", ARITH, "i16 i32 i64 f16 f16x2 bf16 bf16x2 f32 f32x2 f64", 1},
    {"sub", OP_SUB, "dss", ARITH, "i16 i32 i64 f16 f16x2 bf16 bf16x2 f32 f32x2 f64", 1},
    {"mul", OP_MUL, "Dss", ARITH | B(F_MODE), "i16 i32 i64 f16 f16x2 bf16 bf16x2 f32 f32x2 f64", 1},
    {"mad", OP_MAD, "DssS", ARITH | B(F_MODE), "i16 i32 i64 f32 f64", 1},
    {"fma", OP_FMA, "dsss", ARITH, "f16 f16x2 bf16 bf16x2 f32 f32x2 f64", 1},
    {"div", OP_DIV, "dss", APPROX, "i16 i32 i64 f32 f64", 1},
    {"rem", OP_REM, "dss", 0, "i16 i32 i64", 1},
    {"abs", OP_ABS, "ds", B(F_FTZ), "s16 s32 s64 f16 f16x2 bf16 bf16x2 f32 f64", 1},
    {"neg", OP_NEG, "ds", B(F_FTZ), "s16 s32 s64 f16 f16x2 bf16 bf16x2 f32 f64", 1},
    {"min", OP_MIN, "dssO", B(F_FTZ) | B(F_NAN) | B(F_RELU), "i16 i32 i64 f16 f16x2 bf16 bf16x2 f32 f64", 1},
    {"max", OP_MAX, "dssO", B(F_FTZ) | B(F_NAN) | B(F_RELU), "i16 i32 i64 f16 f16x2 bf16 bf16x2 f32 f64", 1},
    {"sad", OP_SAD, "dsss", 0, "i16 i32 i64", 1},
    {"mul24", OP_MUL24, "dss", B(F_MODE), "i32", 1},
    {"mad24", OP_MAD24, "dsss", B(F_MODE), "i32", 1},
    {"addc", OP_ADDC, "dss", B(F_CC), "i32 i64", 1},
    {"subc", OP_SUBC, "dss", B(F_CC), "i32 i64", 1},
    {"madc", OP_MADC, "dsss", B(F_CC) | B(F_MODE), "i32 i64", 1},
    {"popc", OP_POPC, "Us", 0, "b32 b64", 1},
    {"clz", OP_CLZ, "Us", 0, "b32 b64", 1},
    {"bfind", OP_BFIND, "Us", B(F_MODE), "i32 i64", 1},
    {"brev", OP_BREV, "ds", 0, "b32 b64", 1},
    {"bfe", OP_BFE, "dsuu", 0, "i32 i64", 1},
    {"bfi", OP_BFI, "dssuu", 0, "b32 b64", 1},
    {"bmsk", OP_BMSK, "duu", B(F_MODE), "b32", 1},
    {"dp4a", OP_DP4A, "Uuuu", 0, "i32", 2},
    {"dp2a", OP_DP2A, "Uuuu", B(F_MODE), "i32", 2},
    {"and", OP_AND, "dss", 0, "pred b16 b32 b64", 1},
    {"or", OP_OR, "dss", 0, "pred b16 b32 b64", 1},
    {"xor", OP_XOR, "dss", 0, "pred b16 b32 b64", 1},
    {"not", OP_NOT, "ds", 0, "pred b16 b32 b64", 1},
    {"cnot", OP_CNOT, "ds", 0, "b16 b32 b64", 1},
    {"lop3", OP_LOP3, "dsssu", 0, "b32", 1},
    {"shl", OP_SHL, "dsu", 0, "b16 b32 b64", 1},
    {"shr", OP_SHR, "dsu", 0, "b16 b32 b64 i16 i32 i64", 1},
    {"shf", OP_SHF, "dssu", B(F_MODE) | B(F_DIR), "b32", 1},
    {"prmt", OP_PRMT, "dssu", B(F_MODE), "b32", 1},
    {"rcp", OP_RCP, "ds", APPROX, "f32 f64", 1},
    {"sqrt", OP_SQRT, "ds", APPROX, "f32 f64", 1},
    {"rsqrt", OP_RSQRT, "ds", APPROX, "f32 f64", 1},
    {"sin", OP_SIN, "ds", APPROX, "f32", 1},
    {"cos", OP_COS, "ds", APPROX, "f32", 1},
    {"lg2", OP_LG2, "ds", APPROX, "f32", 1},
    {"ex2", OP_EX2, "ds", APPROX, "f32 f16 f16x2 bf16 bf16x2", 1},
    {"tanh", OP_TANH, "ds", APPROX, "f32 f16 f16x2 bf16 bf16x2", 1},
    {"copysign", OP_COPYSIGN, "dss", 0, "f32 f64", 1},
    {"testp", OP_TESTP, "ps", B(F_CMP), "f32 f64", 1},
    {"set", OP_SET, "dttQ", B(F_CMP) | B(F_BOP) | B(F_FTZ), "u32 s32 f32 f16 f16x2 bf16 bf16x2", 2},
    {"setp", OP_SETP, "PssQ", B(F_CMP) | B(F_BOP) | B(F_FTZ), "b16 b32 b64 i16 i32 i64 f16 f16x2 bf16 bf16x2 f32 f64", 1},
    {"selp", OP_SELP, "dssq", 0, "b16 b32 b64 i16 i32 i64 f16 f16x2 bf16 bf16x2 f32 f64", 1},
    {"slct", OP_SLCT, "dsst", B(F_FTZ), "b16 b32 b64 i16 i32 i64 f32 f64", 2},
    {"mov", OP_MOV, "vw", 0, "pred b16 b32 b64 i16 i32 i64 f16 f16x2 bf16 bf16x2 f32 f64", 1},
    {"cvt", OP_CVT, "dtT", B(F_ROUND) | B(F_FTZ) | B(F_SAT) | B(F_RELU), "b16 b32 i8 i16 i32 i64 f16 f16x2 bf16 bf16x2 tf32 f32 f64 e4m3x2 e5m2x2", 2},
    {"cvta", OP_CVTA, "ds", B(F_TO) | B(F_SPACE), "u32 u64", 1},
    {"isspacep", OP_ISSPACEP, "px", B(F_SPACE), "", 0},
    {"ld", OP_LD, "va", MEMORY, "b8 b16 b32 b64 i8 i16 i32 i64 f32 f64 f16 bf16", 1},
    {"ldu", OP_LD, "va", MEMORY, "b8 b16 b32 b64 i8 i16 i32 i64 f32 f64", 1},
    {"st", OP_ST, "aw", MEMORY, "b8 b16 b32 b64 i8 i16 i32 i64 f32 f64 f16 bf16", 1},
    {"atom", OP_ATOM, "dasO", MEMORY | B(F_BOP) | B(F_NOFTZ), "b16 b32 b64 u32 u64 s32 s64 f16 f16x2 bf16 bf16x2 f32 f64", 1},
    {"red", OP_RED, "as", MEMORY | B(F_BOP) | B(F_NOFTZ), "b32 b64 u32 u64 s32 s64 f16 f16x2 bf16 bf16x2 f32 f64", 1},
    {"prefetch", OP_PREFETCH, "a", B(F_SPACE) | B(F_CACHE), "", 0},
    {"prefetchu", OP_PREFETCH, "a", B(F_CACHE), "", 0},
    {"membar", OP_MEMBAR, "", B(F_SCOPE), "", 0},
    {"fence", OP_FENCE, "", B(F_SCOPE) | B(F_ORDER), "", 0},
    {"cp", OP_CP, "", B(F_ASYNC) | B(F_CACHE) | B(F_HINT) | B(F_SPACE) | B(F_TO) | B(F_GROUP), "", 0},
    {"createpolicy", OP_CREATEPOLICY, "d", B(F_CACHE), "b64", 1},
    {"shfl", OP_SHFL, "bsuuu", SYNC | B(F_MODE), "b32", 1},
    {"vote", OP_VOTE, "dqu", SYNC | B(F_BOP), "pred b32", 1},
    {"match", OP_MATCH, "ksu", SYNC | B(F_BOP), "b32 b64", 1},
    {"redux", OP_REDUX, "dsu", SYNC | B(F_BOP), "b32 u32 s32", 1},
    {"activemask", OP_ACTIVEMASK, "d", 0, "b32", 1},
    {"elect", OP_ELECT, "ku", SYNC, "", 0},
    {"mma", OP_MMA, "Mmmm", SYNC | B(F_SHAPE) | B(F_LAYOUT_A) | B(F_LAYOUT_B) | B(F_SAT), "f32 f16 s32", 4},
    {"ldmatrix", OP_LDMATRIX, "Ma", SYNC | B(F_SHAPE) | B(F_NUM) | B(F_TRANS) | B(F_SPACE), "b16", 1},
    {"stmatrix", OP_STMATRIX, "am", SYNC | B(F_SHAPE) | B(F_NUM) | B(F_TRANS) | B(F_SPACE), "b16", 1},
    {"movmatrix", OP_MOVMATRIX, "Uu", SYNC | B(F_SHAPE) | B(F_TRANS), "b16", 1},
    {"bra", OP_BRA, "l", B(F_UNI), "", 0},
    {"brx", OP_BRX, "ul", B(F_UNI) | B(F_MODE), "", 0},
    {"call", OP_CALL, "", B(F_UNI), "", 0},
    {"ret", OP_RET, "", B(F_UNI), "", 0},
    {"exit", OP_EXIT, "", 0, "", 0},
    {"trap", OP_TRAP, "", 0, "", 0},
    {"bar", OP_BAR, "", B(F_SYNC) | B(F_DIR) | B(F_BOP) | B(F_SCOPE), "pred u32", 1},
    {"barrier", OP_BAR, "", SYNC | B(F_DIR) | B(F_BOP) | B(F_SCOPE), "pred u32", 1},
    {"nanosleep", OP_NANOSLEEP, "s", 0, "u32", 1},
    {"griddepcontrol", OP_GRIDDEP, "", B(F_GROUP), "", 0},
};

/* A word can mean different fields; the first one that the opcode has is meant. */
static const struct {
    const char *word;
    uint8_t field, value;
} modifiers[] = {
    {"rn", F_ROUND, R_RN}, {"rz", F_ROUND, R_RZ}, {"rm", F_ROUND, R_RM}, {"rp", F_ROUND, R_RP},
    {"rni", F_ROUND, R_RNI}, {"rzi", F_ROUND, R_RZI}, {"rmi", F_ROUND, R_RMI}, {"rpi", F_ROUND, R_RPI},
    {"rna", F_ROUND, R_RNA},
    {"approx", F_APPROX, 1}, {"full", F_APPROX, 2}, {"ftz", F_FTZ, 1}, {"sat", F_SAT, 1},
    {"satfinite", F_SAT, 2}, {"relu", F_RELU, 1}, {"NaN", F_NAN, 1},
    {"eq", F_CMP, CMP_EQ}, {"ne", F_CMP, CMP_NE}, {"lt", F_CMP, CMP_LT}, {"le", F_CMP, CMP_LE},
    {"gt", F_CMP, CMP_GT}, {"ge", F_CMP, CMP_GE}, {"lo", F_CMP, CMP_LO}, {"ls", F_CMP, CMP_LS},
    {"hi", F_CMP, CMP_HI}, {"hs", F_CMP, CMP_HS}, {"equ", F_CMP, CMP_EQU}, {"neu", F_CMP, CMP_NEU},
    {"ltu", F_CMP, CMP_LTU}, {"leu", F_CMP, CMP_LEU}, {"gtu", F_CMP, CMP_GTU}, {"geu", F_CMP, CMP_GEU},
    {"num", F_CMP, CMP_NUM}, {"nan", F_CMP, CMP_NAN},
    {"finite", F_CMP, CMP_NE}, {"infinite", F_CMP, CMP_EQ}, {"number", F_CMP, CMP_NUM},
    {"notanumber", F_CMP, CMP_NAN}, {"normal", F_CMP, CMP_GT}, {"subnormal", F_CMP, CMP_LT},
    {"and", F_BOP, B_AND}, {"or", F_BOP, B_OR}, {"xor", F_BOP, B_XOR}, {"add", F_BOP, B_ADD},
    {"min", F_BOP, B_MIN}, {"max", F_BOP, B_MAX}, {"inc", F_BOP, B_INC}, {"dec", F_BOP, B_DEC},
    {"exch", F_BOP, B_EXCH}, {"cas", F_BOP, B_CAS}, {"popc", F_BOP, B_POPC}, {"all", F_BOP, B_ALL},
    {"any", F_BOP, B_ANY}, {"uni", F_BOP, B_UNI}, {"ballot", F_BOP, B_BALLOT},
    {"lo", F_MODE, M_LO}, {"hi", F_MODE, M_HI}, {"wide", F_MODE, M_WIDE}, {"up", F_MODE, M_UP},
    {"down", F_MODE, M_DOWN}, {"bfly", F_MODE, M_BFLY}, {"idx", F_MODE, M_IDX},
    {"wrap", F_MODE, M_WRAP}, {"clamp", F_MODE, M_CLAMP}, {"f4e", F_MODE, M_F4E},
    {"b4e", F_MODE, M_B4E}, {"rc8", F_MODE, M_RC8}, {"ecl", F_MODE, M_ECL}, {"ecr", F_MODE, M_ECR},
    {"rc16", F_MODE, M_RC16}, {"shiftamt", F_MODE, M_SHIFTAMT},
    {"l", F_DIR, D_LEFT}, {"r", F_DIR, D_RIGHT}, {"warp", F_DIR, D_WARP}, {"arrive", F_DIR, D_ARRIVE},
    {"red", F_DIR, D_RED},
    {"to", F_TO, 1}, {"global", F_SPACE, SP_GLOBAL}, {"shared", F_SPACE, SP_SHARED},
    {"shared::cta", F_SPACE, SP_SHARED}, {"local", F_SPACE, SP_LOCAL}, {"param", F_SPACE, SP_PARAM},
    {"const", F_SPACE, SP_CONST},
    {"v2", F_VEC, 2}, {"v4", F_VEC, 4}, {"v8", F_VEC, 8},
    {"weak", F_ORDER, ORD_WEAK}, {"volatile", F_ORDER, ORD_VOLATILE}, {"relaxed", F_ORDER, ORD_RELAXED},
    {"acquire", F_ORDER, ORD_ACQUIRE}, {"release", F_ORDER, ORD_RELEASE},
    {"acq_rel", F_ORDER, ORD_ACQ_REL}, {"sc", F_ORDER, ORD_SC},
    {"cta", F_SCOPE, SC_CTA}, {"cluster", F_SCOPE, SC_CLUSTER}, {"gpu", F_SCOPE, SC_GPU},
    {"gl", F_SCOPE, SC_GPU}, {"sys", F_SCOPE, SC_SYS},
    {"ca", F_CACHE, 1}, {"cg", F_CACHE, 2}, {"cs", F_CACHE, 3}, {"lu", F_CACHE, 4}, {"cv", F_CACHE, 5},
    {"wb", F_CACHE, 6}, {"wt", F_CACHE, 7}, {"L1", F_CACHE, 8}, {"L2", F_CACHE, 8},
    {"L2::64B", F_CACHE, 9}, {"L2::128B", F_CACHE, 9}, {"L2::256B", F_CACHE, 9},
    {"L1::evict_normal", F_CACHE, 10}, {"L1::evict_unchanged", F_CACHE, 10},
    {"L1::evict_first", F_CACHE, 10}, {"L1::evict_last", F_CACHE, 10},
    {"L1::no_allocate", F_CACHE, 10}, {"L2::evict_first", F_CACHE, 10}, {"L2::evict_last", F_CACHE, 10},
    {"L2::evict_normal", F_CACHE, 10}, {"L2::evict_unchanged", F_CACHE, 10}, {"fractional", F_CACHE, 10},
    {"L2::cache_hint", F_HINT, 1}, {"nc", F_NC, 1}, {"cc", F_CC, 1}, {"sync", F_SYNC, 1},
    {"aligned", F_ALIGNED, 1}, {"uni", F_UNI, 1}, {"noftz", F_NOFTZ, 1},
    {"m16n8k4", F_SHAPE, SH_M16N8K4}, {"m16n8k8", F_SHAPE, SH_M16N8K8}, {"m16n8k16", F_SHAPE, SH_M16N8K16},
    {"m16n8k32", F_SHAPE, SH_M16N8K32}, {"m8n8k16", F_SHAPE, SH_M8N8K16}, {"m8n8", F_SHAPE, SH_M8N8},
    {"row", F_LAYOUT_A, 1}, {"col", F_LAYOUT_B, 2}, {"x1", F_NUM, 1}, {"x2", F_NUM, 2}, {"x4", F_NUM, 4},
    {"trans", F_TRANS, 1}, {"async", F_ASYNC, 1},
    {"commit_group", F_GROUP, 1}, {"wait_group", F_GROUP, 2}, {"wait_all", F_GROUP, 3},
    {"wait", F_GROUP, 4}, {"launch_dependents", F_GROUP, 5},
};
// clang-format on

const struct ptx_opcode *ptx_opcode_find(const char *name)
{
    for (size_t i = 0; i < sizeof opcodes / sizeof *opcodes; i++) {
        if (!strcmp(opcodes[i].name, name))
            return &opcodes[i];
    }
    return NULL;
}

const struct ptx_opcode *ptx_opcode_of(enum ptx_op op)
{
    for (size_t i = 0; i < sizeof opcodes / sizeof *opcodes; i++) {
        if (opcodes[i].op == op)
            return &opcodes[i];
    }
    return NULL;
}

const char *ptx_op_name(enum ptx_op op)
{
    const struct ptx_opcode *oc = ptx_opcode_of(op);
    return oc ? oc->name : "?";
}

bool ptx_modifier(const struct ptx_opcode *oc, const char *word, struct ptx_ins *ins, int *ntypes)
{
    for (int t = 1; t < T_COUNT; t++) {
        if (!strcmp(types[t].name, word)) {
            if (*ntypes >= oc->ntypes)
                return false;
            ins->type[(*ntypes)++] = (uint8_t)t;
            return true;
        }
    }
    for (size_t i = 0; i < sizeof modifiers / sizeof *modifiers; i++) {
        int field = modifiers[i].field;
        if (strcmp(modifiers[i].word, word) || !(oc->fields & B(field)))
            continue;
        if (field == F_SPACE && ins->f[F_SPACE] && oc->op == OP_CP)
            field = F_TO; /* cp.async.shared.global: where to, then where from */
        if (ins->f[field] && field != F_CACHE)
            return false;
        ins->f[field] = modifiers[i].value;
        return true;
    }
    return false;
}

/* Is type t one of `list`, such as "i32 f32"? */
static bool type_listed(const char *list, enum ptx_type t)
{
    char name[16], any[16];
    snprintf(name, sizeof name, "%s", types[t].name);
    snprintf(any, sizeof any, "%s", types[t].name);
    if (types[t].class == 'u' || types[t].class == 's')
        any[0] = 'i';
    while (*list) {
        size_t n = strcspn(list, " ");
        if ((strlen(name) == n && !strncmp(list, name, n)) ||
            (strlen(any) == n && !strncmp(list, any, n)))
            return true;
        list += n + (list[n] == ' ');
    }
    return false;
}

const char *ptx_check_types(const struct ptx_opcode *oc, const struct ptx_ins *ins, int ntypes)
{
    if (oc->ntypes && oc->op != OP_BAR && ntypes < oc->ntypes)
        return "a type is missing";
    if (ntypes && !type_listed(oc->types, ins->type[0]))
        return "the opcode does not work on this type";
    char class = ptx_type_class(ins->type[0]);
    bool integer = class == 'u' || class == 's';
    if ((oc->op == OP_MUL || oc->op == OP_MAD) && integer && !ins->f[F_MODE])
        return "an integer product needs .lo, .hi or .wide";
    if (ins->f[F_MODE] == M_WIDE && ptx_type_bits(ins->type[0]) == 64)
        return ".wide has no 128-bit result";
    if (oc->op == OP_FMA && !ins->f[F_ROUND])
        return "fma needs a rounding modifier";
    if ((oc->op == OP_SETP || oc->op == OP_SET) && !ins->f[F_CMP])
        return "a comparison is missing";
    if ((oc->op == OP_ATOM || oc->op == OP_RED || oc->op == OP_REDUX) && !ins->f[F_BOP])
        return "the operation is missing";
    if (integer && (ins->f[F_FTZ] || ins->f[F_APPROX]) && oc->op != OP_CVT && oc->op != OP_SET)
        return "a floating-point modifier on an integer operation";
    if (oc->op == OP_SHFL && (!ins->f[F_SYNC] || !ins->f[F_MODE]))
        return "shfl without .sync or its mode is not supported";
    return NULL;
}
