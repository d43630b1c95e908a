/* SPDX-License-Identifier: MIT */
/* One attention problem as kernels get it, forward or backward. */
#ifndef AT_GPU_PROBLEM_H
#define AT_GPU_PROBLEM_H

#include "gpu.h"

/* Sizes, from the ranges of the variant. */
struct at_gpu_sizes {
    int64_t seqs, rows, keys, groups, ratio, dk, dv;
};
struct at_gpu_sizes at_gpu_sizes_of(const attend_plan *plan, const struct at_step *s);

/* The expressions of s as kernel text, for the end of a program, and (where it is given) the
 * derivative of the score; "" where it has none, NULL where memory is out.  attend_free. */
char *at_gpu_problem_text(const attend_plan *plan, const struct at_step *s,
                          const struct at_expr *slope);

/* The argument block, but for o and whether there is an LSE. */
void at_gpu_problem_args(struct at_k_attn *k, const struct attend_exec *x, const struct at_step *s,
                         const struct at_attn *a);
/* Tensor t of the plan (-1: absent), of which v is a view. */
struct at_k_view at_gpu_problem_view(const struct attend_exec *x, int t, const struct at_view *v);

/* Sequences and captured tensors: bytes that a row books in s->state and in s->work; and, from
 * bind, written into that room of the state and from there to the device. */
int64_t at_gpu_table_bytes(const struct at_gpu_sizes *e);
int at_gpu_problem_table(struct attend_exec *x, const struct at_step *s, const struct at_attn *a,
                         const struct at_gpu_sizes *e, void *room, struct at_k_attn *k);

/* The buffers of AT_ATTN_INPUTS (score.cl); how many there are. */
int at_gpu_problem_buffers(const struct attend_exec *x, const struct at_step *s, void **to);

#endif
