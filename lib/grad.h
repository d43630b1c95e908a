/* SPDX-License-Identifier: MIT */
/* The backward graph: the walk (grad.c), each operator's gradient (grad_ops.c), and the operators
 * that only training has (op_train.c). */
#ifndef AT_GRAD_H
#define AT_GRAD_H

#include "core.h"

/* One attend_grad at work.  Arrays are for the tensors that there were when it began. */
struct at_grad {
    attend_graph *g;
    int *of;       /* the gradient of each tensor so far, or -1 */
    bool *depends; /* does it depend on an input of attend_grad? */
    bool *keep;    /* recomputing: what need not be computed again */
    int *again;    /* and what was, or -1 */
    bool *joined;  /* have the slices of this tensor given what they have? */
    int ntensor, nnode;
    bool recompute;
};

/* What a gradient function may ask.  Handles are of w->g; after an error all of them do nothing. */
bool at_grad_wanted(const struct at_grad *w, const struct at_node *n, int k); /* of input k */
/* The gradient of output k of n, or no tensor where there is none. */
attend_tensor at_grad_out(const struct at_grad *w, const struct at_node *n, int k);
/* A tensor of the forward graph to be read: itself, or recomputed; and input or output k of n. */
attend_tensor at_grad_use(struct at_grad *w, int t);
attend_tensor at_grad_in(struct at_grad *w, const struct at_node *n, int k);
/* dy is (part of) the gradient of input k, perhaps of a shape that the input was broadcast to. */
void at_grad_give(struct at_grad *w, const struct at_node *n, int k, attend_tensor dy);
int at_grad_refuse(struct at_grad *w, const struct at_node *n, const char *why);
/* Appends a node; n is its inputs' count. */
attend_tensor at_grad_node(struct at_grad *w, enum at_opcode op, const attend_tensor *in, int n,
                           const union at_params *p);
/* What the slices of tensor t give it, when all of them have their gradients: one concatenation
 * where they are end to end, else a padded tensor each. */
void at_grad_join(struct at_grad *w, int t);
/* dy is (part of) the gradient of tensor t. */
void at_grad_give_to(struct at_grad *w, int t, attend_tensor dy);
/* f32 zeros that broadcast to anything. */
attend_tensor at_grad_zero(struct at_grad *w);

#define AT_GRAD_FN(name) int at_grad_##name(struct at_grad *w, const struct at_node *n)
AT_GRAD_FN(matmul);
AT_GRAD_FN(add);
AT_GRAD_FN(mul);
AT_GRAD_FN(scale);
AT_GRAD_FN(where);
AT_GRAD_FN(select);
AT_GRAD_FN(mask);
AT_GRAD_FN(softmax);
AT_GRAD_FN(attention);
AT_GRAD_FN(merge);
AT_GRAD_FN(norm);
AT_GRAD_FN(function);
AT_GRAD_FN(rope);
AT_GRAD_FN(gather);
AT_GRAD_FN(concat);
AT_GRAD_FN(same);
AT_GRAD_FN(reshape);
AT_GRAD_FN(permute);
AT_GRAD_FN(slice);
AT_GRAD_FN(expand);
AT_GRAD_FN(sum);
AT_GRAD_FN(pad);
AT_GRAD_FN(cross_entropy);
AT_GRAD_FN(square_loss);

#endif
