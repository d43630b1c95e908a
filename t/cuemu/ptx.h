/* SPDX-License-Identifier: MIT */
/* A PTX module after parsing: variables, functions, instructions whose operands are places.
 *
 * Every operand that an instruction reads or writes (register, immediate, special register) is a
 * slot of the register file of one warp, known by its byte offset; see `struct slot` in warp.h. */
#ifndef CUEMU_PTX_H
#define CUEMU_PTX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* X(enumerator, suffix, bits, class): class p predicate, b bits, u unsigned, s signed, f float,
 * x packed or alternative floating-point. */
#define PTX_TYPES(X)                                                                               \
    X(NONE, "", 0, '-')                                                                            \
    X(PRED, "pred", 1, 'p')                                                                        \
    X(B8, "b8", 8, 'b')                                                                            \
    X(B16, "b16", 16, 'b')                                                                         \
    X(B32, "b32", 32, 'b')                                                                         \
    X(B64, "b64", 64, 'b')                                                                         \
    X(U8, "u8", 8, 'u')                                                                            \
    X(U16, "u16", 16, 'u')                                                                         \
    X(U32, "u32", 32, 'u')                                                                         \
    X(U64, "u64", 64, 'u')                                                                         \
    X(S8, "s8", 8, 's')                                                                            \
    X(S16, "s16", 16, 's')                                                                         \
    X(S32, "s32", 32, 's')                                                                         \
    X(S64, "s64", 64, 's')                                                                         \
    X(F16, "f16", 16, 'f')                                                                         \
    X(F32, "f32", 32, 'f')                                                                         \
    X(F64, "f64", 64, 'f')                                                                         \
    X(F16X2, "f16x2", 32, 'x')                                                                     \
    X(F32X2, "f32x2", 64, 'x')                                                                     \
    X(BF16, "bf16", 16, 'x')                                                                       \
    X(BF16X2, "bf16x2", 32, 'x')                                                                   \
    X(TF32, "tf32", 32, 'x')                                                                       \
    X(E4M3, "e4m3", 8, 'x')                                                                        \
    X(E5M2, "e5m2", 8, 'x')                                                                        \
    X(E4M3X2, "e4m3x2", 16, 'x')                                                                   \
    X(E5M2X2, "e5m2x2", 16, 'x')

enum ptx_type {
#define PTX_TYPE_ENUM(e, suffix, bits, class) T_##e,
    PTX_TYPES(PTX_TYPE_ENUM)
#undef PTX_TYPE_ENUM
        T_COUNT
};
const char *ptx_type_name(enum ptx_type t);
int ptx_type_bits(enum ptx_type t);
char ptx_type_class(enum ptx_type t);

/* What a modifier of an opcode says: one value per field, 0 when absent. */
enum ptx_field {
    F_ROUND,    /* enum ptx_round */
    F_APPROX,   /* .approx, .full */
    F_FTZ,      /* flush subnormals to zero */
    F_SAT,      /* .sat, .satfinite */
    F_RELU,     /* negative results become 0 */
    F_NAN,      /* min and max hand NaN on */
    F_CMP,      /* enum ptx_cmp */
    F_BOP,      /* enum ptx_bop: the operation of atom, red, redux, vote; the connective of setp */
    F_MODE,     /* .lo .hi .wide, .up .down .bfly .idx, .wrap .clamp, .f4e ...: enum ptx_mode */
    F_DIR,      /* shf .l .r, bar's .sync .arrive .red in one */
    F_SPACE,    /* enum ptx_space */
    F_TO,       /* cvta.to */
    F_VEC,      /* 2, 4, 8 */
    F_ORDER,    /* enum ptx_order */
    F_SCOPE,    /* .cta .gpu .sys .cluster */
    F_CACHE,    /* cache operators and hints, which change no value */
    F_HINT,     /* .L2::cache_hint: one more operand */
    F_NC,       /* ld.global.nc */
    F_CC,       /* sets the carry */
    F_SYNC,     /* .sync */
    F_ALIGNED,  /* .aligned */
    F_UNI,      /* .uni */
    F_NOFTZ,    /* .noftz */
    F_SHAPE,    /* enum ptx_shape */
    F_LAYOUT_A, /* .row = 1, .col = 2 */
    F_LAYOUT_B,
    F_NUM,   /* .x1 .x2 .x4 */
    F_TRANS, /* .trans */
    F_GROUP, /* cp.async: 0 a copy, 1 commit_group, 2 wait_group, 3 wait_all */
    F_KIND,  /* mma's .kind, fence's .proxy, what else is known but not simulated */
    F_ASYNC, /* cp.async */
    F_COUNT
};

enum ptx_round { R_NONE, R_RN, R_RZ, R_RM, R_RP, R_RNI, R_RZI, R_RMI, R_RPI, R_RNA };
enum ptx_cmp {
    CMP_NONE,
    CMP_EQ,
    CMP_NE,
    CMP_LT,
    CMP_LE,
    CMP_GT,
    CMP_GE,
    CMP_LO,
    CMP_LS,
    CMP_HI,
    CMP_HS,
    CMP_EQU,
    CMP_NEU,
    CMP_LTU,
    CMP_LEU,
    CMP_GTU,
    CMP_GEU,
    CMP_NUM,
    CMP_NAN
};
enum ptx_bop {
    B_NONE,
    B_AND,
    B_OR,
    B_XOR,
    B_ADD,
    B_MIN,
    B_MAX,
    B_INC,
    B_DEC,
    B_EXCH,
    B_CAS,
    B_POPC,
    B_ALL,
    B_ANY,
    B_UNI,
    B_BALLOT
};
enum ptx_mode {
    M_NONE,
    M_LO,
    M_HI,
    M_WIDE,
    M_UP,
    M_DOWN,
    M_BFLY,
    M_IDX,
    M_WRAP,
    M_CLAMP,
    M_F4E,
    M_B4E,
    M_RC8,
    M_ECL,
    M_ECR,
    M_RC16,
    M_SHIFTAMT
};
enum ptx_dir { D_NONE, D_LEFT, D_RIGHT, D_WARP, D_ARRIVE, D_RED };
enum ptx_space { SP_NONE, SP_GLOBAL, SP_SHARED, SP_LOCAL, SP_PARAM, SP_CONST, SP_REG };
enum ptx_order {
    ORD_NONE,
    ORD_WEAK,
    ORD_VOLATILE,
    ORD_RELAXED,
    ORD_ACQUIRE,
    ORD_RELEASE,
    ORD_ACQ_REL,
    ORD_SC
};
enum ptx_scope { SC_NONE, SC_CTA, SC_CLUSTER, SC_GPU, SC_SYS };
enum ptx_shape { SH_NONE, SH_M16N8K4, SH_M16N8K8, SH_M16N8K16, SH_M16N8K32, SH_M8N8K16, SH_M8N8 };

/* The opcodes; the table that says how each is written is in opcodes.c. */
enum ptx_op {
    /* pure: each active lane's result is a function of that lane's sources */
    OP_ADD,
    OP_SUB,
    OP_MUL,
    OP_MAD,
    OP_FMA,
    OP_DIV,
    OP_REM,
    OP_ABS,
    OP_NEG,
    OP_MIN,
    OP_MAX,
    OP_SAD,
    OP_MUL24,
    OP_MAD24,
    OP_ADDC,
    OP_SUBC,
    OP_MADC,
    OP_POPC,
    OP_CLZ,
    OP_BFIND,
    OP_BREV,
    OP_BFE,
    OP_BFI,
    OP_BMSK,
    OP_DP4A,
    OP_DP2A,
    OP_AND,
    OP_OR,
    OP_XOR,
    OP_NOT,
    OP_CNOT,
    OP_LOP3,
    OP_SHL,
    OP_SHR,
    OP_SHF,
    OP_PRMT,
    OP_RCP,
    OP_SQRT,
    OP_RSQRT,
    OP_SIN,
    OP_COS,
    OP_LG2,
    OP_EX2,
    OP_TANH,
    OP_COPYSIGN,
    OP_TESTP,
    OP_SET,
    OP_SETP,
    OP_SELP,
    OP_SLCT,
    OP_MOV,
    OP_CVT,
    OP_CVTA,
    OP_ISSPACEP,
    OP_LAST_PURE,
    /* memory */
    OP_LD,
    OP_ST,
    OP_ATOM,
    OP_RED,
    OP_PREFETCH,
    OP_MEMBAR,
    OP_FENCE,
    OP_CP,
    OP_CREATEPOLICY,
    /* lanes of a warp together */
    OP_SHFL,
    OP_VOTE,
    OP_MATCH,
    OP_REDUX,
    OP_ACTIVEMASK,
    OP_ELECT,
    OP_MMA,
    OP_LDMATRIX,
    OP_STMATRIX,
    OP_MOVMATRIX,
    /* control */
    OP_BRA,
    OP_BRX,
    OP_CALL,
    OP_RET,
    OP_EXIT,
    OP_TRAP,
    OP_BAR,
    OP_NANOSLEEP,
    OP_GRIDDEP,
    OP_COUNT
};

/* What an operand is after parsing. */
enum ptx_okind { O_NONE, O_SLOT, O_PRED, O_ADDR, O_VEC, O_LABEL, O_SINK };

struct ptx_operand {
    uint8_t kind;
    bool negated;  /* !p */
    uint8_t count; /* O_VEC: how many */
    uint8_t width; /* of the slot: 1 predicate, 4 or 8 bytes a lane; for O_VEC each element's */
    uint32_t off;  /* the slot; O_VEC: first index in fn->vec; O_ADDR: the base register, 0 none;
                      O_LABEL: instruction index, or the branch table */
    int64_t disp;  /* O_ADDR */
};

#define PTX_MAX_OPERANDS 6
struct ptx_ins {
    uint16_t op; /* enum ptx_op */
    uint8_t type[4], f[F_COUNT];
    uint8_t nout, nin; /* operands o[0 .. nout) are written, the next nin are read */
    struct ptx_operand o[PTX_MAX_OPERANDS], guard;
    int32_t line; /* of the PTX text */
    int32_t loc;  /* index into module->loc, -1 unknown */
};

/* A place in the CUDA source; inlined_at leads to the call that brought it there, -1 none. */
struct ptx_loc {
    int32_t file, line, inlined_at;
};

struct ptx_var {
    char *name;
    uint8_t space;  /* enum ptx_space */
    bool is_extern; /* dynamic shared memory: starts where the function's own ends */
    bool of_module; /* a shared variable outside functions */
    uint32_t align;
    uint64_t size;
    uint64_t at;   /* shared, local, param: offset; global, const: device address, set at load */
    uint8_t *init; /* NULL: zero */
    struct ptx_ref {
        uint64_t where;
        char *name;
        int64_t add;
    } * refs; /* addresses of other variables inside init */
    int nrefs;
};

struct ptx_const { /* a slot that starts with a value: an immediate, or the address of a variable */
    uint32_t off;
    uint8_t width;
    uint64_t value;
    const struct ptx_var *var; /* its address is added at load */
};

enum ptx_special {
    S_TID_X,
    S_TID_Y,
    S_TID_Z,
    S_NTID_X,
    S_NTID_Y,
    S_NTID_Z,
    S_CTAID_X,
    S_CTAID_Y,
    S_CTAID_Z,
    S_NCTAID_X,
    S_NCTAID_Y,
    S_NCTAID_Z,
    S_LANEID,
    S_WARPID,
    S_NWARPID,
    S_SMID,
    S_NSMID,
    S_GRIDID,
    S_LANEMASK_EQ,
    S_LANEMASK_LT,
    S_LANEMASK_LE,
    S_LANEMASK_GT,
    S_LANEMASK_GE,
    S_CLOCK,
    S_CLOCK64,
    S_GLOBALTIMER,
    S_DYNAMIC_SMEM,
    S_TOTAL_SMEM,
    S_WARPSZ,
    S_COUNT
};

struct ptx_fn {
    char *name;
    bool is_entry;
    struct ptx_ins *ins;
    int nins;
    struct ptx_operand *vec;
    int nvec;
    int32_t *table; /* branch targets of brx.idx, one list after another */
    int ntable;
    struct ptx_const *consts;
    int nconsts;
    uint32_t special[S_COUNT]; /* slot of each special register, 0 unused */
    uint32_t file_size;        /* bytes of one warp's register file */
    uint32_t carry;            /* the slot of the carry flag */
    uint32_t *reg_off;         /* for messages: which register a slot is */
    char **reg_name;
    int nregs;
    struct ptx_var **params; /* of a device function: variables of its local frame */
    int nparams;
    struct ptx_var *ret;
    uint32_t param_size, shared_size, local_size; /* static sizes */
    int reqntid[3], maxntid[3];
    int minnctapersm;
    struct ptx_call *calls;
    int ncalls;
};

/* A call of a device function: its parameters are variables in the local frames of both. */
struct ptx_call {
    char *name;
    struct ptx_fn *fn; /* NULL until the module is whole */
    struct ptx_var *ret, *args[32];
    int nargs;
};

struct ptx_module {
    char *text;            /* a copy; messages show its lines */
    int version, target;   /* 90 for .version 9.0; 80 for sm_80 */
    char target_suffix;    /* 'a', 'f' or 0 */
    struct ptx_var **vars; /* global, const and module-level shared */
    int nvars;
    struct ptx_fn **fns;
    int nfns;
    char **files; /* by .file number */
    int nfiles;
    struct ptx_loc *loc;
    int nloc;
};

/* Parses text[0 .. size).  NULL with a sentence that names the line. */
struct ptx_module *ptx_parse(const char *text, size_t size, char *err, size_t nerr);
void ptx_free(struct ptx_module *m);
char *ptx_copy_text(const char *s, size_t n); /* a string of n characters */
const char *ptx_op_name(enum ptx_op op);
/* The trimmed text of a line, for messages. */
void ptx_line_text(const struct ptx_module *m, int line, char *buf, size_t size);
const char *ptx_reg_name(const struct ptx_fn *f, uint32_t off);

/* ---- opcodes.c ---- */

struct ptx_opcode {
    const char *name;
    enum ptx_op op;
    const char *operands; /* see opcodes.c */
    uint64_t fields;      /* bit per enum ptx_field that may be given */
    const char *types;    /* classes and widths that type[0] may be; see opcodes.c */
    int ntypes;           /* how many types the opcode has at most */
};
const struct ptx_opcode *ptx_opcode_find(const char *name);
const struct ptx_opcode *ptx_opcode_of(enum ptx_op op);
/* Reads one modifier (without its dot) into ins; false when the opcode has no such modifier. */
bool ptx_modifier(const struct ptx_opcode *oc, const char *word, struct ptx_ins *ins, int *ntypes);
/* NULL when the types and modifiers make sense together, otherwise what is wrong. */
const char *ptx_check_types(const struct ptx_opcode *oc, const struct ptx_ins *ins, int ntypes);

/* ---- gates.c ---- */

/* The least PTX version and architecture for this instruction; NULL when the module has both,
 * otherwise a sentence. */
const char *ptx_gate(const struct ptx_ins *ins, int version, int target, char suffix, char *buf,
                     size_t size);

#endif
