/* SPDX-License-Identifier: MIT */
/* What the CPU's kernel rows share. */
#ifndef AT_CPU_H
#define AT_CPU_H

#include "backend.h"
#include "simd/simd.h"

/* The block functions of the device that a step was placed on. */
static inline const struct at_simd *at_cpu_kernels(const struct at_step *s)
{
    return s->device->kernels;
}

/* The element type of the block functions, or -1 where they have none. */
int at_cpu_elem(attend_type type);

/* Is the last axis of tensor t one run of memory, whatever is bound? */
bool at_cpu_has_rows(const attend_plan *plan, int t);

/* fn over the items on the context's threads, or on this one where flops say that waking others
 * costs more than it gives. */
int at_cpu_items(struct attend_exec *x, int64_t n, double flops,
                 void (*fn)(void *arg, int64_t item, int slot), void *arg);

/* ---- products ---- */

/* Is tensor t the transpose of rows, in the last two axes? */
bool at_cpu_is_turned(const attend_graph *g, int t);
/* Entries of the batch that c is, and the element offset of entry n of v, right-aligned to c. */
int64_t at_cpu_batches(const struct at_view *c);
int64_t at_cpu_batch_offset(const struct at_view *c, int64_t n, const struct at_view *v);
/* The step by our own kernel, on weights that were not packed. */
int at_cpu_product(struct attend_exec *x, const struct at_step *s);

extern const struct at_row at_cpu_attention, at_cpu_attention_grad, at_cpu_weights;
extern const struct at_row at_cpu_matmul, at_cpu_matmul_int8, at_cpu_matmul_blas, at_cpu_add,
    at_cpu_mul, at_cpu_scale, at_cpu_silu, at_cpu_silu_mul, at_cpu_gelu, at_cpu_gelu_tanh,
    at_cpu_tanh, at_cpu_softmax, at_cpu_rms_norm, at_cpu_layer_norm, at_cpu_rope, at_cpu_gather,
    at_cpu_append, at_cpu_concat, at_cpu_cast, at_cpu_copy, at_cpu_sigmoid, at_cpu_relu, at_cpu_erf,
    at_cpu_pow, at_cpu_where, at_cpu_select;
extern const struct at_row at_cpu_delta, at_cpu_sum, at_cpu_pad, at_cpu_cross_entropy,
    at_cpu_cross_entropy_grad, at_cpu_function_grad, at_cpu_softmax_grad, at_cpu_norm_grad,
    at_cpu_gather_grad, at_cpu_adamw;

#endif
