/* SPDX-License-Identifier: MIT */
/* Score and mask expressions: what users write about `score, b, h, i, j, sq, skv` and tensors of
 * theirs, as data.
 *
 * An expression is an array of nodes, arguments before their users, without duplicates, so whatever
 * walks it is one loop.  Three types: conditions, integers, floats.
 *
 *   - Integers are 64-bit and wrap; `/` and `%` floor (the remainder has the sign of the divisor);
 *     x / 0 and x % 0 are 0.  They never come from floats, so every backend computes the same ones.
 *     What is proved to fit is computed in 32 bits.
 *   - Floats are f32.  An integer that meets a float becomes one.  min(a, b) is a < b ? a : b and
 *     max(a, b) is a > b ? a : b, with NaN too.
 *   - A tensor indexed outside its extents reads as 0, or false.
 *
 * A mask expression is a condition made of integers and conditions alone; a score expression is a
 * float.  Grammar (precedence as in C, loosest first):
 *
 *     e:  e ? e : e   ||   &&   == !=   < <= > >=   + -   * / %   - ! +
 *         number  true  false  inf  NAME  NAME[e, e, e, e]  (e)
 *         abs(e) min(e, e) max(e, e) float(e) exp(e) log(e) sqrt(e) tanh(e) floor(e) */
#ifndef AT_EXPR_H
#define AT_EXPR_H

#include "core.h"

enum {
    AT_EXPR_NODES = 512, /* of an expression, and of a derivative */
    AT_EXPR_DEPTH = 64,  /* of nesting */
    AT_EXPR_TEXT = 4096, /* bytes */
    AT_EXPR_CAPTURES = AT_MAX_CAPTURES,
    AT_EXPR_LOADS = 32, /* different places where tensors are read */
    AT_EXPR_RANK = 4,   /* indices */
    AT_EXPR_NAME = 32   /* bytes of a name, with its end */
};

enum at_expr_type { AT_X_BOOL, AT_X_INT, AT_X_FLOAT };

enum at_expr_op {
    AT_X_NUMBER, /* value.i or value.f */
    AT_X_SCORE,  /* the variables, in this order */
    AT_X_B,
    AT_X_H,
    AT_X_I,
    AT_X_J,
    AT_X_SQ,
    AT_X_SKV,
    AT_X_LOAD, /* captured tensor number `capture` at arg[]; value.i is its number among loads */
    AT_X_NEG,  /* one argument */
    AT_X_ABS,
    AT_X_NOT,
    AT_X_TO_FLOAT,
    AT_X_EXP,
    AT_X_LOG,
    AT_X_SQRT,
    AT_X_TANH,
    AT_X_FLOOR,
    AT_X_ADD, /* two of one type */
    AT_X_SUB,
    AT_X_MUL,
    AT_X_DIV,
    AT_X_MOD,
    AT_X_MIN,
    AT_X_MAX,
    AT_X_LT, /* a > b is b < a, and a != b is !(a == b) */
    AT_X_LE,
    AT_X_EQ,
    AT_X_AND,
    AT_X_OR,
    AT_X_SELECT, /* arg[0] ? arg[1] : arg[2] */
    AT_X_OPS
};

struct at_expr_node {
    uint8_t op, type, nargs, capture;
    int16_t arg[AT_EXPR_RANK];
    union {
        int64_t i;
        double f; /* an f32 */
    } value;
};

/* A tensor that may be indexed: known when an expression is read, but for its extents. */
struct at_expr_capture {
    char name[AT_EXPR_NAME];
    attend_type type;
    int rank;
};

struct at_expr {
    bool score; /* of scores; else of masks */
    bool full;  /* a node found no room */
    int n, root, nload, ncapture;
    unsigned reads; /* bit op: that variable is read */
    struct at_expr_node node[AT_EXPR_NODES];
    int16_t load[AT_EXPR_LOADS]; /* nodes */
    struct at_expr_capture capture[AT_EXPR_CAPTURES];
};

/* ---- expr.c: building, with constants folded, and the reference evaluation ---- */

void at_expr_init(struct at_expr *x, bool score);
/* "" and 0 if the tensor may be captured; else a sentence's worth of why not, and a status. */
int at_expr_add_capture(struct at_expr *x, const char *name, attend_type type, int rank, char *err,
                        size_t errlen);
/* Each gives the node, or -1 where there is no room or an argument is -1.  Types must be right. */
int at_expr_bool(struct at_expr *x, bool value);
int at_expr_int(struct at_expr *x, int64_t value);
int at_expr_float(struct at_expr *x, double value); /* rounded to f32 */
int at_expr_variable(struct at_expr *x, enum at_expr_op op);
int at_expr_load(struct at_expr *x, int capture, const int *arg);
int at_expr_op1(struct at_expr *x, enum at_expr_op op, int a);
int at_expr_op2(struct at_expr *x, enum at_expr_op op, int a, int b);
int at_expr_select(struct at_expr *x, int c, int a, int b);
/* A captured bool tensor of blocks of rows by keys, whose axes are the last of (B, H, blocks of
 * rows, blocks of keys): its element for b, h, i and j.  Axes of extent 1 are broadcast, of B and H
 * and where a block is one row or key. */
int at_expr_blocks(struct at_expr *x, int capture, const int64_t *shape, int64_t rows,
                   int64_t keys);
/* As a float, converted if it is an integer. */
int at_expr_as_float(struct at_expr *x, int a);
/* Makes `root` the value, drops what it does not need, and fills `reads`. */
void at_expr_finish(struct at_expr *x, int root);
static inline bool at_expr_reads(const struct at_expr *x, enum at_expr_op variable)
{
    return (x->reads >> variable & 1) != 0;
}

/* One point, and the tensors: capture[c] has the rank that was declared. */
struct at_expr_point {
    double score, score_error; /* the latter bounds how far score may be off */
    int64_t b, h, i, j, sq, skv;
    const struct at_view *capture;
};
/* What the expression means: floats in double.  *error, where not NULL, receives how far a sound
 * f32 evaluation may be from it, given score_error; infinity where a comparison may go either way
 * in what an index depends on. */
double at_expr_eval(const struct at_expr *x, const struct at_expr_point *p, double *error);
/* An integer element, 0 or false outside. */
int64_t at_expr_load_int(const struct at_view *v, const int64_t *index);
double at_expr_load_float(const struct at_view *v, const int64_t *index);
/* Integer arithmetic as expressions have it: op is AT_X_ADD to AT_X_EQ. */
int64_t at_expr_int_op(enum at_expr_op op, int64_t a, int64_t b);

/* ---- expr_parse.c ---- */

/* Reads text into x, which at_expr_init and at_expr_add_capture prepared.  On failure a status, and
 * err receives a sentence, the text and a caret under the place. */
int at_expr_parse(struct at_expr *x, const char *text, char *err, size_t errlen);

/* ---- minmax.c: what values a captured tensor has in a box ---- */

struct at_interval {
    int64_t lo, hi; /* both included */
};

struct at_minmax;
/* Of the integers or conditions that load number `load` of x reads from v now, with cells of 64
 * along axes whose index depends on i or j.  NULL when memory is out. */
struct at_minmax *at_minmax_new(attend_ctx *ctx, const struct at_expr *x, int load,
                                const struct at_view *v);
void at_minmax_free(attend_ctx *ctx, struct at_minmax *m);
/* Every value at an index in the box is in the result; 0 is where the box leaves the extents. */
struct at_interval at_minmax_query(const struct at_minmax *m, const struct at_interval *index);
/* What a type can hold. */
struct at_interval at_minmax_of_type(attend_type type);

/* ---- expr_interval.c ---- */

/* A box of points; minmax[load], or minmax itself, may be NULL: nothing is known but the type. */
struct at_expr_box {
    struct at_interval b, h, i, j, sq, skv;
    struct at_minmax *const *minmax;
};
/* What each integer or condition can be anywhere in the box; floats are left alone. */
void at_expr_intervals(const struct at_expr *x, const struct at_expr_box *box,
                       struct at_interval *out);

enum at_cover { AT_COVER_EMPTY, AT_COVER_PARTIAL, AT_COVER_FULL };
/* Of a mask expression: EMPTY and FULL are certain. */
enum at_cover at_expr_cover(const struct at_expr *x, const struct at_expr_box *box);

/* ---- expr_vector.c: programs over blocks of scores; simd/k_expr.h runs them ---- */

enum {
    AT_EXPR_STRIP = 512, /* scores that an operation passes over: rows of this size stay in L1 */
    AT_EXPR_LANES = 64,  /* most lanes of a block */
    AT_EXPR_STEPS = 1024
};

/* What a row of values varies with: a bit each.  So keys and lanes are computed once each, and only
 * what depends on both once a score. */
enum at_vec_shape { AT_V_ONE = 0, AT_V_LANES = 1, AT_V_KEYS = 2, AT_V_FULL = 3 };
enum at_vec_width { AT_V_I32, AT_V_I64, AT_V_F32 }; /* conditions are I32: 0 or 1 */
enum {
    AT_V_WIDEN = AT_X_OPS, /* I32 to I64 */
    AT_V_SPREAD            /* to a shape with more bits */
};

struct at_vec_op {
    uint8_t op;          /* at_expr_op, or one of the two above */
    uint8_t width;       /* of the operands; of a load: of its result */
    uint8_t index_wide;  /* of a load: indices are I64 */
    uint8_t shape, from; /* of the result; of the operand of a spread */
    uint8_t capture, nargs;
    int32_t dst, arg[AT_EXPR_RANK]; /* bytes into scratch */
    union {
        int64_t i;
        double f;
    } value;
};

struct at_expr_program {
    bool score;
    int n, once; /* steps; how many of them come before the first strip, for the whole block */
    int32_t result;
    int64_t scratch; /* bytes that a run needs, aligned to AT_ALIGN */
    struct at_vec_op op[AT_EXPR_STEPS];
};

/* Where all variables lie in `box` (each with 0 in it), every run must stay.  0, or ATTEND_ELIMIT
 * with a sentence in err. */
int at_expr_compile(const struct at_expr *x, const struct at_expr_box *box,
                    struct at_expr_program *p, char *err, size_t errlen);

/* Scores st[key][lane] of keys [j0, j0 + keys): a score program replaces them, a mask program
 * makes hidden ones -INFINITY. */
struct at_expr_block {
    float *st;
    int64_t stride, lanes; /* lanes <= stride <= AT_EXPR_LANES; the others hold anything */
    int64_t j0, keys;
    const int64_t *i, *h; /* [lanes] */
    int64_t b, sq, skv;
    const struct at_view *capture;
};

/* ---- expr_diff.c ---- */

/* d x / d wrt into out, where wrt is a node of x: the score, or a load of a float tensor (whose
 * element is meant).  0, or ATTEND_ELIMIT where it would be too large. */
int at_expr_derivative(const struct at_expr *x, int wrt, struct at_expr *out);

/* ---- expr_print.c ---- */

enum at_expr_dialect { AT_EXPR_OPENCL, AT_EXPR_CUDA, AT_EXPR_C };
/* The body of a function of (float score, int b, int h, int i, int j, int sq, int skv), for
 * variables in the box; and the integer functions that bodies call. */
void at_expr_print(const struct at_expr *x, enum at_expr_dialect dialect,
                   const struct at_expr_box *box, struct at_str *s);
void at_expr_print_prelude(enum at_expr_dialect dialect, struct at_str *s);

#endif
