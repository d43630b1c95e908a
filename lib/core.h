/* SPDX-License-Identifier: MIT */
/* The internal types, sectioned by the .c that owns each.  Nothing here knows a device. */
#ifndef AT_CORE_H
#define AT_CORE_H

#include <stdarg.h>
#include <stdbool.h>

#include "attend.h"
#include "philox.h"

#define AT_MAX_IN 28
#define AT_USER_CAPTURES 8 /* tensors that the expressions of an attention index */
#define AT_MAX_CAPTURES 9  /* and a layout of blocks */
#define AT_MAX_OUT 16
#define AT_MAX_HEAD 576 /* the largest head size */
#define AT_MAX_VARIANTS 4
#define AT_ALIGN 64  /* of every buffer of ours, bytes */
#define AT_PLACE 256 /* of what lies in one buffer of a device, bytes */

#define AT_LEN(array) ((int)(sizeof(array) / sizeof((array)[0])))

static inline int64_t at_min(int64_t a, int64_t b)
{
    return a < b ? a : b;
}
static inline int64_t at_max(int64_t a, int64_t b)
{
    return a > b ? a : b;
}
static inline int64_t at_ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}
static inline int64_t at_round_up(int64_t a, int64_t b)
{
    return at_ceil_div(a, b) * b;
}

/* ---- err.c ---------------------------------------------------------------------------------- */

/* The status and sentence of an object.  The first error stays until it is cleared. */
struct at_err {
    int status;
    char text[480];
};
/* Records an error if there is none yet; returns the recorded status, so `return at_fail(...)`. */
int at_fail(struct at_err *e, int status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void at_err_clear(struct at_err *e);
/* A sentence into a caller's buffer, always terminated; returns status. */
int at_say(char *err, size_t errlen, int status, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* The caller's options, which begin with the size that the struct had when the caller was compiled,
 * over the defaults in own; NULL: none.  A struct that its _init never saw is an error. */
int at_opts_take(struct at_err *e, const char *name, void *own, size_t bytes, const void *opts);

/* ---- mem.c, str.c --------------------------------------------------------------------------- */

/* Aligned to AT_ALIGN and not cleared; NULL when memory is out or bytes < 0. */
void *at_alloc(attend_ctx *ctx, int64_t bytes);
void *at_calloc(attend_ctx *ctx, int64_t count, int64_t size); /* cleared; product checked */
void at_free(attend_ctx *ctx, void *p);
char *at_strdup(attend_ctx *ctx, const char *s);
/* Makes room for one more element in a growing array (cap doubles); false when memory is out. */
bool at_grow(attend_ctx *ctx, void **array, int *cap, int count, int64_t size);
/* a * b, or -1 where it would pass INT64_MAX or an operand is negative. */
int64_t at_mul_size(int64_t a, int64_t b);

/* Growable text with a ceiling.  A failed append leaves `failed` set and the text as it was. */
struct at_str {
    char *text; /* malloc; handed to the user, who calls attend_free */
    size_t len, cap;
    bool failed;
};
void at_str_add(struct at_str *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void at_str_json(struct at_str *s, const char *text); /* quoted and escaped */

/* ---- op.c: what operators there are -----------------------------------------------------------
 */

enum at_opcode {
    AT_MATMUL,
    AT_ADD,
    AT_MUL,
    AT_SCALE,
    AT_WHERE,
    AT_SELECT,
    AT_MASK,
    AT_SOFTMAX,
    AT_ATTENTION,
    AT_WEIGHTS,
    AT_MERGE,
    AT_RMS_NORM,
    AT_LAYER_NORM,
    AT_SILU,
    AT_SILU_MUL, /* silu(a) b, which canonicalisation makes of the two */
    AT_GELU,
    AT_GELU_TANH,
    AT_TANH,
    AT_SIGMOID,
    AT_RELU,
    AT_ERF,
    AT_POW,
    AT_ROPE,
    AT_GATHER,
    AT_APPEND,
    AT_CONCAT,
    AT_CAST,
    AT_COPY, /* to contiguous memory: before a reshape that no strides can express */
    AT_RESHAPE,
    AT_PERMUTE,
    AT_SLICE,
    AT_EXPAND,
    AT_SUM, /* from here on: what training needs (op_train.c) */
    AT_PAD,
    AT_CROSS_ENTROPY,
    AT_SQUARE_LOSS,
    AT_CLIP,
    AT_SGD,
    AT_ADAMW,
    AT_DELTA, /* of attention: rowsum(dO O) - dLSE */
    AT_ATTENTION_GRAD,
    AT_MASK_GRAD,
    AT_MERGE_GRAD,
    AT_FUNCTION_GRAD,
    AT_SOFTMAX_GRAD,
    AT_NORM_GRAD,
    AT_GATHER_GRAD,
    AT_CROSS_ENTROPY_GRAD,
    AT_SQUARE_LOSS_GRAD,
    AT_OP_COUNT
};

/* Does it write states?  Such nodes are needed whoever reads them. */
static inline bool at_op_writes(enum at_opcode op)
{
    return op == AT_APPEND || op == AT_SGD || op == AT_ADAMW;
}

/* Inputs of attention and mask, by place; an absent one is -1. */
enum at_attention_in {
    AT_IN_Q, /* of AT_MASK: the scores */
    AT_IN_K,
    AT_IN_V,
    AT_IN_LSE = AT_IN_V, /* of AT_WEIGHTS */
    AT_IN_BIAS,          /* float mask */
    AT_IN_MASK,          /* bool mask */
    AT_IN_KV_USED,
    AT_IN_Q_OFFSET,
    AT_IN_ALIBI,
    AT_IN_SINKS,
    AT_IN_Q_LENS,
    AT_IN_KV_LENS,
    AT_IN_TABLE,
    AT_IN_K_SCALE,
    AT_IN_V_SCALE,
    AT_IN_ADDITIVE,
    AT_IN_DRAW,
    AT_IN_CAPTURE, /* the first of AT_MAX_CAPTURES */
    AT_IN_COUNT = AT_IN_CAPTURE + AT_MAX_CAPTURES,
    AT_IN_GRAD_O =
        AT_IN_COUNT, /* of AT_ATTENTION_GRAD: dO, LSE and delta follow what attention had */
    AT_IN_GRAD_LSE,
    AT_IN_GRAD_DELTA,
    AT_IN_GRAD_COUNT
};

/* Outputs of AT_ATTENTION_GRAD, all f32; -1 where nobody asked. */
enum at_attention_out {
    AT_OUT_Q,
    AT_OUT_K,
    AT_OUT_V,
    AT_OUT_BIAS,
    AT_OUT_ALIBI,
    AT_OUT_SINKS,
    AT_OUT_ADDITIVE,
    AT_OUT_CAPTURE,
    AT_OUT_COUNT = AT_OUT_CAPTURE + AT_MAX_CAPTURES
};
/* The input that output k of AT_ATTENTION_GRAD is the gradient of. */
static inline int at_attention_in_of(int k)
{
    static const int in[] = {AT_IN_Q,     AT_IN_K,     AT_IN_V,       AT_IN_BIAS,
                             AT_IN_ALIBI, AT_IN_SINKS, AT_IN_ADDITIVE};
    return k < AT_OUT_CAPTURE ? in[k] : AT_IN_CAPTURE + k - AT_OUT_CAPTURE;
}

/* Affine visibility: never data. */
struct at_visible {
    bool causal;
    attend_align align;
    int64_t left, right; /* window; -1 is open */
};

union at_params {
    struct {
        bool b_rows; /* b is (..., n, k) */
    } matmul;
    struct {
        float factor;
    } scale;
    struct {
        float other;
    } where;
    struct {
        float exponent;
    } pow;
    struct {
        float eps;
        bool centred; /* of AT_NORM_GRAD: of layer_norm */
    } norm;
    struct {
        attend_rope_pairing pairing;
        int64_t dims;
        float base;
        bool back; /* by the negative angle: the gradient */
    } rope;
    struct {
        enum at_sum_mode { AT_SUM_ALL, AT_SUM_MEAN, AT_SUM_SQUARES } mode;
    } sum;
    struct {
        int axis;
        int64_t start;
    } pad;
    struct {
        enum at_opcode op; /* whose derivative */
        float exponent;
    } function;
    struct {
        float most;
    } clip;
    struct {
        float momentum, decay, beta1, beta2, eps;
    } update;
    struct {
        int axis;
    } concat;
    struct {
        attend_type type;
    } cast;
    struct {
        int perm[ATTEND_MAX_RANK];
    } permute;
    struct {
        int axis;
        int64_t start;
    } slice;
    struct at_attention { /* of AT_MASK: only `visible` */
        struct at_visible visible;
        float scale, softcap;
        const struct at_expr *score, *mask; /* owned by the graph; NULL: none */
        struct at_layout {      /* blocks, which `mask` loads from a capture of its own */
            int64_t rows, keys; /* of a block; 0: there is no layout */
            int capture;
        } layout;
        float dropout;
        uint32_t offset;
        uint64_t seed;
        unsigned grads;     /* of AT_ATTENTION_GRAD: bit k: output k is asked for */
        struct at_weights { /* of AT_WEIGHTS */
            attend_weights_mode mode;
            int64_t first, end, k, rows, cols;
        } weights;
    } attention;
};

/* ---- graph.c ----------------------------------------------------------------------------------
 */

enum at_class { AT_TEMP, AT_INPUT, AT_CONST, AT_STATE };

/* A named extent, and the linear forms mul * sym + add that operators make of one.  An extent in a
 * shape is >= 0, or -1 - (index of a form). */
struct at_sym {
    char *name;
    int64_t min, max;
};
struct at_form {
    int sym;
    int64_t mul, add;
};
struct at_dims {
    struct at_sym *sym;
    struct at_form *form;
    int nsym, cap_sym, nform, cap_form;
};
/* The value of an extent under the values of the symbols. */
int64_t at_dim_eval(const struct at_dims *dims, int64_t extent, const int64_t *sym);
int64_t at_dim_min(const struct at_dims *dims, int64_t extent);
int64_t at_dim_max(const struct at_dims *dims, int64_t extent);

struct at_tensor {
    attend_type type;
    enum at_class class;
    int rank;
    int64_t shape[ATTEND_MAX_RANK];
    int order[ATTEND_MAX_RANK]; /* axes from slowest to fastest in memory */
    unsigned joined; /* bit i: order[i] and order[i + 1] are one run of memory and may be merged */
    int unit;        /* the axis whose neighbours are neighbours in memory, or -1 */
    int node;        /* that makes it, or -1 */
    int of;          /* views and new versions of a state: the tensor whose memory this is, or -1 */
    int root;        /* the end of that chain; itself where `of` is -1 */
    int next_version; /* of a state: the tensor that superseded it, or -1 */
    int output; /* of a root: 1 + the index in graph->output of the result that is its memory */
    char *name; /* of inputs, constants, states and outputs */
    const void *data; /* of constants */
};

struct at_node {
    enum at_opcode op;
    int nin, nout;
    int in[AT_MAX_IN], out[AT_MAX_OUT];
    union at_params p;
    const char *label; /* in force when it was appended, or NULL */
    char *fused;       /* what it was made of, for the plan, or NULL */
    bool dead;         /* swallowed by a fusion, or nobody reads it */
};

struct attend_graph {
    attend_ctx *ctx;
    struct at_err err;
    bool refused; /* err is of a compile, which may be tried with other options */
    struct at_dims dims;
    struct at_tensor *tensor;
    struct at_node *node;
    int *output; /* tensor ids, whose names are those of the results */
    int ntensor, cap_tensor, nnode, cap_node, noutput, cap_output;
    const char *label; /* in force; owned by `labels` */
    char **labels;
    int nlabel, cap_label;
    struct at_expr **expr;
    int nexpr, cap_expr;
    char **note; /* what canonicalisation could not fuse, and why: for the plan */
    int nnote, cap_note;
};

/* Appends a node and infers its outputs; the first output's id, or a status. */
int at_graph_add(attend_graph *g, enum at_opcode op, const int *in, int nin,
                 const union at_params *p, const attend_shape *shape);
/* The tensor of a handle, or a status where it is not of this graph. */
int at_graph_use(attend_graph *g, attend_tensor t, const char *what);
/* The graph's own copy of an expression, or NULL when memory is out. */
struct at_expr *at_graph_expr(attend_graph *g, const struct at_expr *x);
/* A copy for a plan: constants' data and nothing else is shared. */
attend_graph *at_graph_copy(const attend_graph *g);
/* A fresh contiguous tensor, or a status.  shape may be that of another tensor of the graph. */
int at_graph_tensor(attend_graph *g, attend_type type, int rank, const int64_t *shape);
/* Is the last axis of tensor t one run of memory, whatever is bound? */
bool at_graph_has_rows(const attend_graph *g, int t);
/* Bytes of the largest that a shape can be, or -1.  Empty axes count as 1, so that strides fit too.
 */
int64_t at_graph_largest(const attend_graph *g, attend_type type, int rank, const int64_t *shape);
/* Is this an extent that a shape may have: a number, or a form of a dimension? */
bool at_graph_extent(const attend_graph *g, int64_t extent);
/* The extent mul * extent + add as a shape value. */
int64_t at_graph_form(attend_graph *g, int64_t extent, int64_t mul, int64_t add);
/* Records an error that begins with the node: "attention 'l3': ...". */
int at_graph_fail(attend_graph *g, const struct at_node *n, int status, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* "4 x 32 x tokens x 64"; into buf. */
const char *at_shape_text(const struct at_dims *dims, int rank, const int64_t *shape, char *buf,
                          size_t size);

/* ---- op.c: the table --------------------------------------------------------------------------
 */

struct attend_exec;
struct at_step;
struct at_grad; /* grad.h */

struct at_op {
    const char *name;
    int min_in, max_in;
    bool view; /* moves no data: resolved in bind, never a step */
    /* Checks inputs and makes node->out; `shape` is the argument of reshape, expand and slice. */
    int (*infer)(attend_graph *g, struct at_node *n, const attend_shape *shape);
    /* Multiply-adds count two.  sym: values of the symbols.  NULL: one per output element. */
    double (*flops)(const attend_graph *g, const struct at_node *n, const int64_t *sym);
    /* What it means, in plain C with double accumulators (ref.c).  NULL for views. */
    int (*ref)(struct attend_exec *x, const struct at_step *s);
    /* Appends the gradients of n's inputs, from those of its outputs (grad_ops.c).  NULL: none. */
    int (*grad)(struct at_grad *w, const struct at_node *n);
};
extern const struct at_op at_ops[AT_OP_COUNT];

/* ---- canon.c, validate.c ------------------------------------------------------------------------
 */

/* Composed attention becomes attention nodes, and, with gates, silu and mul one node; dead nodes are
 * marked.  Once per graph. */
int at_canon(attend_graph *g, bool fuse, bool gates);
/* The first half of it: attention nodes, nothing marked.  Before gradients are appended. */
int at_canon_fuse(attend_graph *g);
/* Whole-graph checks: versions of states, outputs, host-read inputs. */
int at_validate(attend_graph *g);

/* ---- visible.c, attn.c, blocks.c: one attention problem
 * ------------------------------------------------------ */

/* A tensor as kernels see it: real extents, strides in elements (blocks), an address. */
struct at_view {
    attend_type type;
    int rank;
    int64_t shape[ATTEND_MAX_RANK];
    int64_t stride[ATTEND_MAX_RANK];
    void *data;
};
static inline void *at_view_at(const struct at_view *v, int64_t elements)
{
    return (char *)v->data + elements * (int64_t)attend_type_size(v->type);
}

/* One sequence: nq query rows from row q0 of batch entry qb, nk visible keys from row k0 of kb. */
struct at_seq {
    int64_t qb, q0, nq;
    int64_t kb, k0, nk;
    int64_t off; /* row i stands at key position i + off */
};

/* The keys of rows [i0, i1): none outside [first, end) is visible to any of them, and every key in
 * [full_first, full_end) is visible to all of them, by affine visibility alone. */
struct at_keys {
    int64_t first, full_first, full_end, end;
};
struct at_keys at_key_range(const struct at_visible *v, const struct at_seq *s, int64_t i0,
                            int64_t i1);

/* Attention with everything resolved.  Views have rank 4, (B, H, S, D); a broadcast axis has stride
 * 0; packed tensors have B = 1.  Bias and mask are indexed [b, h, i, j] with the i and j of the
 * sequence; their data is NULL where absent, and so are alibi, sinks and lse.data. */
struct at_schedule; /* schedule.h */

struct at_attn {
    struct at_visible visible;
    float scale, softcap;
    int64_t nh, ng, dk, dv;
    struct at_view q, k, v, o, bias, mask;
    struct at_view lse;         /* (B, H, S) */
    const float *alibi, *sinks; /* [nh] */
    const float *additive;      /* [dk]: scores are additive, not q . k */
    struct at_dropout dropout;
    int64_t nseq, sums; /* sums: of packed sequences so many, without the rows of none; else -1 */
    const struct at_seq *seq;
    const int32_t
        *table; /* paged: k and v are (P, G, page, D); entry kb * table_stride + j / page */
    int64_t table_stride, page, pages;            /* pages: the most of a sequence */
    struct at_view k_scale, v_scale;              /* (P, G); P may be broadcast; no data: 1 */
    const struct at_expr *score_expr, *mask_expr; /* NULL: none */
    struct at_view capture[AT_MAX_CAPTURES];      /* what they index */
};
/* What a stored value of k or v, in entry `entry` of axis 0, is times. */
static inline float at_attn_scale(const struct at_view *scale, int64_t entry, int64_t g)
{
    return scale->data
               ? ((const float *)scale->data)[entry * scale->stride[0] + g * scale->stride[1]]
               : 1;
}
/* Where key j of a sequence lies in k and v: the index of axis 0 and of axis 2.  Returns how many
 * keys from j on follow each other there. */
static inline int64_t at_key_place(const struct at_attn *a, const struct at_seq *s, int64_t j,
                                   int64_t *entry, int64_t *row)
{
    *entry = s->kb;
    *row = s->k0 + j;
    if (!a->table)
        return s->nk - j;
    *entry = a->table[s->kb * a->table_stride + j / a->page];
    *row = j % a->page;
    return at_min(a->page - *row, s->nk - j);
}
/* Keys that there is room for, used or not; of sequences that are not packed. */
static inline int64_t at_attn_keys(const struct at_attn *a)
{
    return a->table ? a->page * a->pages : a->k.shape[2];
}
/* Keys that the weights of sequence n are of: all that there are, or of packed ones those in use.
 */
static inline int64_t at_weights_keys(const struct at_attn *a, int64_t n)
{
    return a->sums >= 0 ? a->seq[n].nk : at_attn_keys(a);
}
/* Result k of AT_WEIGHTS as (B, H, rows, keys), whatever axes it has: row i of sequence n is q0 + i
 * there, and key j is k0 + j. */
struct at_view at_weights_view(const struct attend_exec *x, const struct at_step *s, int k);
/* What comes before the items: rows that are wanted go into p, what no sequence has of a sum over
 * rows becomes 0 in *out, if that is given.  How many sequences there are to go through. */
int64_t at_weights_begin(const struct at_attn *a, struct at_weights *p, const struct at_view *out);
/* Pooled weights: where cell c of `cells` begins among n rows or keys, and the cell of one of them.
 */
static inline int64_t at_weights_edge(int64_t c, int64_t n, int64_t cells)
{
    return n / cells * c + n % cells * c / cells; /* floor(c n / cells) */
}
static inline int64_t at_weights_cell(int64_t j, int64_t n, int64_t cells)
{
    int64_t c = (int64_t)((double)j * (double)cells / (double)n); /* about */
    while (at_weights_edge(c + 1, n, cells) <= j)
        c++;
    while (at_weights_edge(c, n, cells) > j)
        c--;
    return c;
}
/* Fills a from the bound tensors of s; seq has room for at_attn_max_seqs.  Checks lengths, prefix
 * sums and offsets.  Also serves AT_MASK, where q is the scores, and AT_WEIGHTS, where lse is read
 * and v and o are not there. */
int at_attn_resolve(struct attend_exec *x, const struct at_step *s, struct at_attn *a,
                    struct at_seq *seq);
int64_t at_attn_max_seqs(const struct attend_plan *plan, const struct at_step *s);
/* Is what input k of s holds there to be read when it is bound? */
bool at_attn_sees(const struct attend_exec *x, const struct at_step *s, int k);
/* The problem of an AT_ATTENTION_GRAD.  Absent gradients have no data. */
struct at_attn_grad {
    struct at_attn a; /* a.lse is read, a.o is not there */
    struct at_view dout, delta;
    struct at_view dq, dk, dv, dbias, dalibi, dsinks, dadditive, dcapture[AT_MAX_CAPTURES];
};
int at_attn_grad_resolve(struct attend_exec *x, const struct at_step *s, struct at_attn_grad *d,
                         struct at_seq *seq);
/* What the bool mask and the mask expression of a leave of blocks of keys, as they can be seen now:
 * in the exec until the next bind, and shared by steps for which it is the same (blocks.c).  *out
 * is NULL where there is neither. */
void at_blocks_free(struct attend_exec *x);
int at_attn_blocks(struct attend_exec *x, const struct at_step *s, const struct at_attn *a,
                   const struct at_schedule **out);

/* ---- thread.c
 * ------------------------------------------------------------------------------------- */

struct at_pool;
int at_pool_new(attend_ctx *ctx, int threads, struct at_pool **out);
void at_pool_free(struct at_pool *pool);
void at_pool_for(void *pool, int64_t n, void (*fn)(void *arg, int64_t item, int slot), void *arg);

/* ---- context.c
 * -------------------------------------------------------------------------------------- */

struct at_device; /* backends/backend.h */

struct attend_ctx {
    attend_allocator mem;
    attend_executor exec;
    struct at_pool *pool; /* NULL where the caller gave an executor */
    int threads;
    void (*log)(void *arg, const char *line);
    void *log_arg;
    void (*trace)(void *arg, const attend_span *span);
    void *trace_arg;
    struct at_device *device; /* in the order of attend_device_get; it never moves */
    int ndevice, neager; /* neager: those of backends that are not lazy, known from the start */
    int chosen;          /* index of what "auto" takes */
    struct at_os_mutex *lock; /* of what follows, and of `device` while lazy backends are probed */
    bool complete;            /* lazy backends were probed */
    struct at_constant *constant; /* on devices: transfer.c */
    void *opencl, *cuda;          /* what the backends of these names found */
};
void at_log(attend_ctx *ctx, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---- plan.c, place.c, memplan.c
 * ---------------------------------------------------------------------- */

struct at_row; /* backends/backend.h */

struct at_range {
    int64_t min, max;
};

/* One operator, lowered.  Immutable once the plan is made. */
struct at_step {
    enum at_opcode op;
    int node; /* in plan->graph */
    int nin, nout;
    int in[AT_MAX_IN], out[AT_MAX_OUT]; /* tensors of the plan; -1: absent */
    const union at_params *p;
    const struct at_row *row;
    const struct at_device *device;
    struct at_range rows; /* the row dimension's range in this variant */
    int64_t scratch;      /* bytes a slot, set by row->prepare */
    int64_t state;        /* bytes in the exec, set by row->prepare */
    int64_t state_offset; /* given by the plan */
    int64_t work;         /* bytes in the exec's memory on the device, set by row->prepare ... */
    int64_t work_offset;  /* ... likewise */
    int64_t shared_work;  /* bytes there that it needs only while it runs */
    const void *packed;   /* what row->prepare made of constants, owned by the plan */
    char *why;            /* why better rows refused, or NULL */
};

struct at_variant {
    struct at_range rows;
    struct at_step *step;
    int nstep;
    int64_t *offset; /* per tensor: in the arena, or -1 */
    int64_t arena, scratch, state;
    int64_t work, shared_work; /* on the device */
    unsigned char *used; /* per root: AT_ON_HOST, AT_ON_DEVICE; NULL where all is on the host */
};
enum { AT_ON_HOST = 1, AT_ON_DEVICE = 2 };

/* Memory that prepare packs; freed with the plan.  Pieces lie in slabs, so that many small ones get
 * large pages too. */
struct at_packed {
    struct at_packed *next;
    void *data;
    int tensor; /* the constant that it was made of, or -1 */
    const struct at_row *row;
};
struct at_slab {
    struct at_slab *next;
    int64_t used, size; /* bytes; the first AT_ALIGN are this header */
};

struct attend_plan {
    attend_ctx *ctx;
    attend_graph *graph; /* a copy that is the plan's own; its tensors are the plan's */
    const struct at_device *device;
    bool deterministic;
    attend_precision precision;
    struct at_variant variant[AT_MAX_VARIANTS];
    int nvariant;
    struct at_packed *packed;
    struct at_constant **constant; /* per tensor: on the device; NULL where there is none */
    struct at_slab *slab;
};
/* The range of an extent of tensor t within a variant's row range. */
struct at_range at_plan_range(const attend_plan *plan, struct at_range rows, int t, int axis);
int at_place(attend_plan *plan, struct at_step *s, struct at_err *e);
/* Has the device any row of the operator? */
bool at_place_knows(const struct at_device *device, enum at_opcode op);
int at_memplan(attend_plan *plan, struct at_variant *v, struct at_err *e);
void *at_plan_pack(attend_plan *plan, int64_t bytes);
/* The same for what s->row makes of a constant alone, whichever variant comes first: *fresh says
 * that it is still to be made. */
void *at_plan_pack_once(attend_plan *plan, const struct at_step *s, int tensor, int64_t bytes,
                        bool *fresh);
const struct at_variant *at_plan_variant(const attend_plan *plan, int64_t rows);

/* ---- exec.c
 * -------------------------------------------------------------------------------------------- */

struct attend_exec {
    attend_plan *plan;
    attend_ctx *ctx;
    struct at_err err;
    int64_t *sym;           /* values of the dimensions; -1: not given */
    struct at_view *view;   /* per tensor of the plan */
    struct at_bound *bound; /* per tensor: what attend_bind was given */
    struct at_bound *old;   /* per name, and old_sym: as before a bind that fails */
    int64_t *old_sym;
    struct at_name *name; /* what may be bound */
    int nname;
    const struct at_variant *variant;   /* chosen by the last bind, NULL: not ready */
    const struct at_variant *scheduled; /* the one whose schedules `state` holds */
    char *arena, *scratch, *state;
    int64_t arena_bytes, scratch_bytes, state_bytes;
    struct at_transfer *transfer; /* NULL where the plan's device works in the host's memory */
    const volatile int *cancel;
    uint64_t runs;
    bool failed;                  /* a run failed: only a bind makes it usable again */
    struct at_blocks *blocks;     /* what irregular masks leave of blocks of keys: blocks.c */
    struct at_blocks **blocks_of; /* per node of the graph: those that it took last */
    struct at_contents {
        uint64_t bind, hash; /* in which bind it was hashed; 0: in none */
    } * contents;            /* per tensor of the plan: what masks are made of */
    uint64_t binds;          /* how many there were */
    int64_t schedules;       /* how often a list of work or of blocks was made: tests count it */
    _Atomic int fault;       /* a bad index was met in this run; the sentence is in err */
    const struct at_step *running;
    struct at_trace *trace; /* marks in the device's stream; NULL: none are wanted */
};

/* ---- trace.c: for attend_ctx_opts.trace; without one, nothing but the checks of that ---- */

int at_trace_new(struct attend_exec *x); /* after at_transfer_new */
void at_trace_free(struct attend_exec *x);
void at_trace_begin(struct attend_exec *x); /* of a run */
int64_t at_trace_open(struct attend_exec *x, const struct at_step *s);
void at_trace_close(struct attend_exec *x, const struct at_step *s, int64_t begin);
void at_trace_end(struct attend_exec *x); /* once the device is done */
/* Stands for fn in at_parallel: arg is a struct at_traced. */
struct at_traced {
    const struct attend_exec *x;
    void (*fn)(void *arg, int64_t item, int slot);
    void *arg;
};
void at_trace_item(void *arg, int64_t item, int slot);
/* ---- transfer.c ------------------------------------------------------------------------------ */

/* Where the bytes of a root tensor are, for an exec whose device has memory of its own. */
struct at_home {
    void *mem;               /* of the device; NULL: not used there */
    char *base;              /* what its view's address counts from, ... */
    int64_t offset;          /* ... which is this byte of mem */
    int64_t bytes;           /* of mem, where it was made for this tensor */
    void *wrapped;           /* the host memory that mem is, or NULL */
    bool owned;              /* mem is freed with the exec */
    bool shared;             /* device and host work in one memory */
    bool lent;               /* mem is what was bound; base mirrors it where the host needs it */
    bool gaps;               /* written, but not every byte of it */
    bool on_host, on_device; /* which copy is up to date */
};
#define AT_NOWHERE                                                                                 \
    ((char *)4096) /* stands for an arena that is only on the device: not NULL, never read */
struct at_transfer {
    const struct at_device *device;
    void *stream;
    void *arena, *work, *status_mem; /* on the device */
    int64_t arena_bytes, work_bytes;
    struct at_home *home; /* per tensor */
    struct at_mirror {
        void *data;
        int64_t bytes;
    } * mirror; /* per tensor: memory of the host for what is bound on the device */
    int32_t status[8];
    bool flying; /* work of the device may be under way */
};
int at_transfer_new(struct attend_exec *x);
/* Memory of the host that stands for memory of the device which was bound to a tensor. */
int at_transfer_mirror(struct attend_exec *x, int tensor, int64_t bytes, void **data);
void at_transfer_free(struct attend_exec *x);
/* Bind: memory for the chosen variant, then homes for what views name.  states: the contents of
 * bound states are taken anew. */
int at_transfer_reserve(struct attend_exec *x);
int at_transfer_bind(struct attend_exec *x);
void at_transfer_renew(struct attend_exec *x, int tensor);
/* Run: copies around a step, those at the end, and waiting for all of it. */
void at_transfer_begin(struct attend_exec *x);
int at_transfer_before(struct attend_exec *x, const struct at_step *s);
void at_transfer_after(struct attend_exec *x, const struct at_step *s);
int at_transfer_end(struct attend_exec *x);
int at_transfer_wait(struct attend_exec *x);
/* Which memory of the device tensor t of the plan is in, and where its view begins, in bytes. */
void *at_transfer_find(const struct attend_exec *x, int t, int64_t *offset);
/* Bytes that a view reaches over. */
int64_t at_view_span(const struct at_view *v);

/* Constants of a plan on its device, shared between the plans of a context. */
int at_constants_hold(struct attend_plan *plan, struct at_err *e);
void at_constants_drop(struct attend_plan *plan);

struct at_name {
    const char *name;
    int tensor, sym; /* one of them is -1 */
};
struct at_bound {
    bool given;
    void *data; /* of the host; where `mem` was bound, what mirrors it */
    int64_t bytes;
    void *mem; /* of the device, from byte `at` on */
    int64_t at;
    int64_t stride[ATTEND_MAX_RANK];
    bool strided;
};

/* The view of input k of s, which every step of that operator has; and of its first output. */
static inline const struct at_view *at_arg(const struct attend_exec *x, const struct at_step *s,
                                           int k)
{
    return &x->view[s->in[k]];
}
static inline const struct at_view *at_result(const struct attend_exec *x, const struct at_step *s)
{
    return &x->view[s->out[0]];
}
/* The view of input k of s, or NULL where it is absent. */
static inline const struct at_view *at_in(const struct attend_exec *x, const struct at_step *s,
                                          int k)
{
    return k < s->nin && s->in[k] >= 0 ? &x->view[s->in[k]] : NULL;
}
static inline const struct at_view *at_out(const struct attend_exec *x, const struct at_step *s,
                                           int k)
{
    return k < s->nout && s->out[k] >= 0 ? &x->view[s->out[k]] : NULL;
}
static inline void *at_step_state(const struct attend_exec *x, const struct at_step *s)
{
    return x->state + s->state_offset;
}
static inline void *at_slot_scratch(const struct attend_exec *x, int slot)
{
    return x->scratch + slot * x->variant->scratch;
}
/* fn over [0, n) on the context's threads; items after a cancel are skipped.  Returns 0, or
 * ATTEND_ECANCELLED. */
int at_parallel(struct attend_exec *x, int64_t n, void (*fn)(void *arg, int64_t item, int slot),
                void *arg);
/* An index met while running (gather, append, rope positions) that is out of its range: the first
 * is kept and the run fails with its sentence.  Safe from any thread. */
void at_exec_bad_index(struct attend_exec *x, const struct at_step *s, int64_t place, int64_t value,
                       int64_t limit);

#endif
