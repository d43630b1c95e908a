/* SPDX-License-Identifier: MIT */
/* What the files of operators, op_*.c, share, and what they give the table in op.c.  Each has, for
 * each of its operators, how it is appended (attend_graph_x) and what shapes it takes and makes
 * (at_infer_x); what it means is ref.c. */
#ifndef ATTEND_OP_H
#define ATTEND_OP_H

#include "core.h"

static inline const struct at_tensor *at_op_input(const attend_graph *g, const struct at_node *n,
                                                  int k)
{
    return &g->tensor[n->in[k]];
}

static inline bool at_op_is_float(attend_type t)
{
    return t == ATTEND_F32 || t == ATTEND_F16 || t == ATTEND_BF16;
}

static inline bool at_op_is_quantised(attend_type t)
{
    return attend_type_block(t) > 1;
}

/* Input k must be a float tensor of rank at least `rank`. */
int at_op_want_float(attend_graph *g, const struct at_node *n, int k, int rank);
int at_op_want_type(attend_graph *g, const struct at_node *n, int k, attend_type type,
                    const char *what);
/* The tensor must have just this shape. */
int at_op_want_shape(attend_graph *g, const struct at_node *n, int k, int rank,
                     const int64_t *shape, const char *what);
/* Makes output k. */
int at_op_result(attend_graph *g, struct at_node *n, attend_type type, int rank,
                 const int64_t *shape);
/* The result lies in memory as input k does, where they have one rank and rows stay rows, so that
 * views on both sides of an operator cancel out. */
void at_op_order_like(attend_graph *g, struct at_node *n, int k);
/* NumPy's rule over the leading axes; false where they differ. */
bool at_op_broadcast(const int64_t *a, int na, const int64_t *b, int nb, int64_t *out);
int at_op_misfit(attend_graph *g, const struct at_node *n, const struct at_tensor *a,
                 const struct at_tensor *b, const char *rule);
attend_tensor at_op_append(attend_graph *g, enum at_opcode op, const int *in, int nin,
                           const union at_params *p, const attend_shape *shape);
attend_tensor at_op_unary(attend_graph *g, enum at_opcode op, attend_tensor a,
                          const union at_params *p);
attend_tensor at_op_binary(attend_graph *g, enum at_opcode op, attend_tensor a, attend_tensor b,
                           const union at_params *p);
/* An optional input: -1 where there is none. */
int at_op_maybe(attend_graph *g, attend_tensor t, const char *what);
/* Scales of f8 values: one for each entry of axis 0, or for all, and head. */
int at_op_want_scale(attend_graph *g, struct at_node *n, int k, const struct at_tensor *of,
                     const char *what);
/* Of the extents of tensor t. */
double at_op_product(const attend_graph *g, int t, const int64_t *sym);

#define AT_INFER_FN(name)                                                                          \
    int at_infer_##name(attend_graph *g, struct at_node *n, const attend_shape *shape)
AT_INFER_FN(matmul);
AT_INFER_FN(binary);
AT_INFER_FN(unary);
AT_INFER_FN(where);
AT_INFER_FN(select);
AT_INFER_FN(cast);
AT_INFER_FN(rows);
AT_INFER_FN(norm);
AT_INFER_FN(rope);
AT_INFER_FN(gather);
AT_INFER_FN(append);
AT_INFER_FN(concat);
AT_INFER_FN(copy);
AT_INFER_FN(permute);
AT_INFER_FN(slice);
AT_INFER_FN(expand);
AT_INFER_FN(reshape);
AT_INFER_FN(mask);
AT_INFER_FN(attention);
AT_INFER_FN(merge);
AT_INFER_FN(like);
AT_INFER_FN(sum);
AT_INFER_FN(pad);
AT_INFER_FN(cross_entropy);
AT_INFER_FN(square_loss);
AT_INFER_FN(clip);
AT_INFER_FN(update);
AT_INFER_FN(delta);
AT_INFER_FN(attention_grad);
AT_INFER_FN(merge_grad);
AT_INFER_FN(norm_grad);
AT_INFER_FN(gather_grad);

#define AT_FLOPS_FN(name)                                                                          \
    double at_flops_##name(const attend_graph *g, const struct at_node *n, const int64_t *sym)
AT_FLOPS_FN(matmul);
AT_FLOPS_FN(attention);
AT_FLOPS_FN(weights);
AT_FLOPS_FN(attention_grad);

#endif
