/* SPDX-License-Identifier: MIT */
/* One attention problem as kernels get it, forward or backward. */
#ifndef AT_GPU_PROBLEM_H
#define AT_GPU_PROBLEM_H

#include "gpu.h"

/* Sizes, from the ranges of the variant; of a mask by itself, every head is a group. */
struct at_gpu_sizes {
    int64_t seqs, rows, keys, groups, ratio, dk, dv;
};
struct at_gpu_sizes at_gpu_sizes_of(const attend_plan *plan, const struct at_step *s);

/* Is the gradient of captured tensor c wanted of s?  How many loads of its score expression read
 * such tensors? */
static inline bool at_gpu_gives(const struct at_step *s, int c)
{
    return AT_OUT_CAPTURE + c < s->nout && s->out[AT_OUT_CAPTURE + c] >= 0;
}
int at_gpu_loads(const struct at_step *s);

/* Channels that a kernel for heads of so many has room for: kernels are made for few of these. */
static inline int at_gpu_channels(int64_t d)
{
    return d <= 64 ? 64 : d <= 128 ? 128 : d <= 256 ? 256 : 576;
}

/* Kernels, with the expressions that s has; room in s->state for what bind leaves, `state` bytes,
 * then the sequences, and then the table, for which there is room in s->work, too. */
int at_gpu_problem_prepare(attend_plan *plan, struct at_step *s, unsigned files,
                           const char *defines, const char *const *names, int n, int64_t state,
                           struct at_err *e);

/* The expressions of s as kernel text, for the end of a program; those of a gradient, too.
 * attend_free(*out). */
int at_gpu_problem_text(const attend_plan *plan, const struct at_step *s, char **out,
                        struct at_err *e);

/* May more be done to scores than a scaling by a positive number?  What is compiled for tensor
 * cores depends on it; at_k_attn.edits says it of one run. */
bool at_gpu_problem_edits(const struct at_step *s);

/* The argument block, but for o and whether there is an LSE. */
void at_gpu_problem_args(struct at_k_attn *k, const struct attend_exec *x, const struct at_step *s,
                         const struct at_attn *a);
/* Tensor t of the plan (-1: absent), of which v is a view. */
struct at_k_view at_gpu_problem_view(const struct attend_exec *x, int t, const struct at_view *v);

/* The table, of sequences and captured tensors: from bind, into its room of the state and from
 * there to the device. */
int at_gpu_problem_table(struct attend_exec *x, const struct at_step *s, const struct at_attn *a,
                         const struct at_gpu_sizes *e, void *room, struct at_k_attn *k);

/* The buffers of AT_ATTN_INPUTS (score.cl); how many there are. */
int at_gpu_problem_buffers(const struct attend_exec *x, const struct at_step *s, void **to);

#endif
