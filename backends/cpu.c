/* SPDX-License-Identifier: MIT */
/* The CPU as a backend: a device for each instruction set, and the rows that run on all of them. */
#include "cpu.h"

#include <stdio.h>

int at_cpu_elem(attend_type type)
{
    switch (type) {
    case ATTEND_F32:
        return AT_ELEM_F32;
    case ATTEND_F16:
        return AT_ELEM_F16;
    case ATTEND_BF16:
        return AT_ELEM_BF16;
#ifndef AT_NO_QUANTISED
    case ATTEND_Q8_0:
        return AT_ELEM_Q8_0;
    case ATTEND_Q4_0:
        return AT_ELEM_Q4_0;
    case ATTEND_Q4_1:
        return AT_ELEM_Q4_1;
#endif
    default:
        return -1;
    }
}

bool at_cpu_has_rows(const attend_plan *plan, int t)
{
    return at_graph_has_rows(plan->graph, t);
}

/* Under this much work a wake-up costs more than a second thread saves. */
#define SMALL_FLOPS 1e6

int at_cpu_items(struct attend_exec *x, int64_t n, double flops,
                 void (*fn)(void *arg, int64_t item, int slot), void *arg)
{
    if (flops >= SMALL_FLOPS && n > 1)
        return at_parallel(x, n, fn, arg);
    for (int64_t i = 0; i < n; i++)
        fn(arg, i, 0);
    return 0;
}

static int probe(attend_ctx *ctx)
{
    struct at_simd_isa list[AT_SIMD_ISAS];
    const char *unknown = at_simd_unknown();
    if (unknown) {
        at_log(ctx, "ATTEND_ISA is '%s', which is none of scalar, avx2, avx512, neon", unknown);
        return ATTEND_EINVAL;
    }
    at_simd_list(list);
    for (int i = 0; i < AT_SIMD_ISAS; i++) {
        struct at_device d = {.backend = &at_backend_simd,
                              .present = list[i].table != NULL,
                              .automatic = true,
                              .kernels = list[i].table};
        snprintf(d.name, sizeof d.name, "simd:%s", list[i].name);
        if (d.present)
            snprintf(d.detail, sizeof d.detail, "CPU, %d floats in a vector, %d thread%s",
                     list[i].table->vl, ctx->threads, ctx->threads == 1 ? "" : "s");
        else
            snprintf(d.detail, sizeof d.detail, "%s", list[i].why);
        int status = at_device_add(ctx, &d);
        if (status < 0)
            return status;
    }
    return 0;
}

static const struct at_row *const rows[] = {&at_cpu_attention,
                                            &at_cpu_weights,
                                            &at_cpu_matmul_int8,
                                            &at_cpu_matmul_blas,
                                            &at_cpu_matmul,
                                            &at_cpu_add,
                                            &at_cpu_mul,
                                            &at_cpu_scale,
                                            &at_cpu_silu,
                                            &at_cpu_silu_mul,
                                            &at_cpu_gelu,
                                            &at_cpu_gelu_tanh,
                                            &at_cpu_tanh,
                                            &at_cpu_softmax,
                                            &at_cpu_rms_norm,
                                            &at_cpu_layer_norm,
                                            &at_cpu_rope,
                                            &at_cpu_gather,
                                            &at_cpu_append,
                                            &at_cpu_concat,
                                            &at_cpu_cast,
                                            &at_cpu_copy,
                                            &at_cpu_sigmoid,
                                            &at_cpu_relu,
                                            &at_cpu_erf,
                                            &at_cpu_pow,
                                            &at_cpu_where,
                                            &at_cpu_select,
#ifndef AT_NO_TRAINING
                                            &at_cpu_attention_grad,
                                            &at_cpu_delta,
                                            &at_cpu_sum,
                                            &at_cpu_pad,
                                            &at_cpu_cross_entropy,
                                            &at_cpu_cross_entropy_grad,
                                            &at_cpu_function_grad,
                                            &at_cpu_softmax_grad,
                                            &at_cpu_norm_grad,
                                            &at_cpu_gather_grad,
                                            &at_cpu_adamw,
#endif
                                            NULL};

const struct at_backend at_backend_simd = {.name = "simd", .probe = probe, .rows = rows};
