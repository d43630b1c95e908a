/* SPDX-License-Identifier: MIT */
/* The micro-kernels of one instruction set: compiled once for each, with its flags and its
 * AT_SIMD_ISA_x.  Everything is static but the table, so that no code of a higher instruction set
 * can be linked where a lower one was meant. */
#if defined(AT_SIMD_ISA_AVX512)
#    include "vec_avx512.h"
#elif defined(AT_SIMD_ISA_AVX2)
#    include "vec_avx2.h"
#elif defined(AT_SIMD_ISA_NEON)
#    include "vec_neon.h"
#else
#    include "vec_scalar.h"
#endif

#include "k_attn.h"
#include "k_additive.h"
#include "k_bias.h"
#include "k_dropout.h"
#include "k_weights.h"
#include "k_dots.h"
#include "k_expr.h"
#include "k_quant.h"
#include "k_gemm.h"
#include "k_probe.h"
#include "k_rows.h"
#ifndef AT_NO_TRAINING
#    include "k_grad.h"
#    include "k_train.h"
#endif

extern const struct at_simd AT_SIMD_TABLE;

const struct at_simd AT_SIMD_TABLE = {
    .name = AT_SIMD_NAME,
    .vl = VL,
    .rows_per_panel = R,
    .keys_per_tile = TILE,
    .keys_per_block = KEYS,
    .dots_rows = DOTS_ROWS,
    .dots_keys = DOTS_KEYS,
    .few_rows = DOTS_ROWS,
    .packed_rows = PACKED_ROWS,
    .pack_q = pack_q,
    .pack_k = pack_k,
    .pack_v = pack_v,
    .scores = scores,
    .additive_pack_q = additive_pack_q,
    .additive_scores = additive_scores,
    .softmax_step = softmax_step,
    .scores_softmax = scores_softmax,
    .accumulate = accumulate,
    .bias = bias,
    .dropout = dropout,
    .weights = weights,
    .shares = shares,
    .next_above = next_above,
    .merge = merge,
    .finish = finish,
    .dots_pack_q = dots_pack_q,
    .dots_scores = dots_scores,
    .dots_softmax_step = dots_softmax_step,
    .dots_accumulate = dots_accumulate,
    .dots_merge = dots_merge,
    .dots_finish = dots_finish,
    .matmul = matmul,
    .pack_weights = pack_weights,
    .pack_acts = pack_acts,
    .convert = convert,
    .add = add,
    .mul = mul,
    .scale = scale,
    .silu = silu,
    .silu_mul = silu_mul,
    .gelu = gelu,
    .gelu_tanh = gelu_tanh,
    .tanh = tanh_row,
    .softmax = softmax,
    .rms_norm = rms_norm,
    .layer_norm = layer_norm,
    .rope_half = rope_half,
    .rope_interleaved = rope_interleaved,
    .expr = expr_run,
    .probe_fma = probe_fma,
    .probe_read = probe_read,
#ifndef AT_NO_TRAINING
    .back_group = BACK_GROUP,
    .back_block = BACK_KEYS,
    .bring = bring,
    .back_pack_rows = back_pack_rows,
    .back_weights = back_weights,
    .back_scores = back_scores,
    .back_combine = back_combine,
    .back_softcap = back_softcap,
    .back_keys = back_keys,
    .additive_back = additive_back,
    .back_store = back_store,
    .back_finish = back_finish,
    .dot = dot_row,
    .sum = sum_row,
    .lse = lse_row,
    .exp = exp_row,
    .function_grad = function_grad,
    .softmax_grad = softmax_grad,
    .norm_grad = norm_grad,
    .adamw = adamw,
#endif
};
