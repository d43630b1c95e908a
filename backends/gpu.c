/* SPDX-License-Identifier: MIT */
/* Programs put together from the portable text, and how rows find buffers and launch. */
#include "gpu.h"

#include <string.h>

#include "env.h"

/* ATTEND_KERNEL_EDIT: tests plant mistakes, and see that they are found. */
static void add_edited(struct at_str *s, const char *text)
{
    const char *edit = at_env(AT_ENV_KERNEL_EDIT), *to = edit ? strstr(edit, "=>") : NULL, *found;
    int64_t n = to ? to - edit : 0;
    char from[160];
    if (n <= 0 || n >= (int64_t)sizeof from) {
        at_str_add(s, "%s", text);
        return;
    }
    memcpy(from, edit, (size_t)n);
    from[n] = 0;
    for (; (found = strstr(text, from)); text = found + n)
        at_str_add(s, "%.*s%s", (int)(found - text), text, to + 2);
    at_str_add(s, "%s", text);
}

char *at_gpu_program_text(const struct at_gpu_source *source)
{
    struct at_str s = {0};
    for (int f = 0; f < AT_GPU_FILES; f++)
        if (f <= AT_GPU_ARGS || (source->files >> f & 1))
            add_edited(&s, at_gpu_text[f]);
    if (source->printed)
        at_str_add(&s, "%s", source->printed);
    if (!s.failed)
        return s.text;
    attend_free(s.text);
    return NULL;
}

int at_gpu_prepare(attend_plan *plan, struct at_step *s, const struct at_gpu_source *source,
                   const char *const *names, int n, int64_t bytes, struct at_err *e)
{
    const struct at_gpu *gpu = at_gpu_of(s->device);
    struct at_gpu_kernels *k = at_plan_pack(plan, bytes);
    int status = 0;
    if (!k)
        return at_fail(e, ATTEND_ENOMEM, "no memory for a plan");
    for (int i = 0; i < n && status == 0; i++)
        if (names[i])
            status = gpu->kernel(s->device, source, names[i], &k->kernel[i], e);
    s->packed = k;
    return status < 0 ? status : at_gpu_trial(plan, s, k->kernel[0], e);
}

void at_gpu_extents(const struct at_view *v, at_i64 n[6])
{
    for (int d = 0; d < 6; d++)
        n[d] = d < 6 - v->rank ? 1 : v->shape[d - (6 - v->rank)];
}

void at_gpu_strides(const struct at_view *v, at_i64 to[6])
{
    for (int d = 0; d < 6; d++) {
        int axis = d - (6 - v->rank);
        to[d] = axis < 0 || v->shape[axis] == 1 ? 0 : v->stride[axis];
    }
}

void *at_gpu_buffer(const struct attend_exec *x, int t, int64_t *at)
{
    int64_t offset;
    void *mem = at_transfer_find(x, t, &offset);
    *at = offset / (int64_t)attend_type_size(x->plan->graph->tensor[t].type);
    return mem;
}

int at_gpu_run(struct attend_exec *x, const struct at_step *s, const struct at_gpu_launch *l)
{
    return at_gpu_of(s->device)->launch(s->device, x->transfer->stream, l, &x->err);
}

bool at_gpu_on_cpu(const struct at_step *s, struct at_why *why)
{
    const char *only = at_env(AT_ENV_OPENCL_SHAPE);
    return at_need(why, at_gpu_of(s->device)->cpu, "the device is no CPU") &&
           at_need(why, !only || strstr(only, "cpu"), "ATTEND_OPENCL_SHAPE asks for another");
}

int at_gpu_step(const struct attend_exec *x, const struct at_step *s)
{
    return (int)(s - x->variant->step);
}

void *at_gpu_status(const struct attend_exec *x)
{
    return x->transfer->status_mem;
}

const struct at_row *const at_gpu_rows[] = {&at_gpu_decode_mma,
                                            &at_gpu_decode_cpu,
                                            &at_gpu_decode,
                                            &at_gpu_attn_mma,
                                            &at_gpu_attn_cpu,
                                            &at_gpu_attn_local,
                                            &at_gpu_attn_nolocal,
                                            &at_gpu_unfused,
                                            &at_gpu_weights,
                                            &at_gpu_library,
                                            &at_gpu_matvec_cpu,
                                            &at_gpu_matmul_cpu,
                                            &at_gpu_matvec,
                                            &at_gpu_matmul,
                                            &at_gpu_add,
                                            &at_gpu_mul,
                                            &at_gpu_scale,
                                            &at_gpu_where,
                                            &at_gpu_select,
                                            &at_gpu_silu,
                                            &at_gpu_silu_mul,
                                            &at_gpu_gelu,
                                            &at_gpu_gelu_tanh,
                                            &at_gpu_tanh,
                                            &at_gpu_sigmoid,
                                            &at_gpu_relu,
                                            &at_gpu_erf,
                                            &at_gpu_pow,
                                            &at_gpu_cast,
                                            &at_gpu_copy,
                                            &at_gpu_softmax,
                                            &at_gpu_rms_norm,
                                            &at_gpu_layer_norm,
                                            &at_gpu_rope,
                                            &at_gpu_gather,
                                            &at_gpu_append,
                                            &at_gpu_concat,
                                            &at_gpu_merge,
                                            &at_gpu_mask,
#ifndef AT_NO_TRAINING
                                            &at_gpu_back_cpu,
                                            &at_gpu_back_mma,
                                            &at_gpu_back_local,
                                            &at_gpu_delta,
                                            &at_gpu_function_grad,
                                            &at_gpu_clip,
                                            &at_gpu_pad,
                                            &at_gpu_sum,
                                            &at_gpu_square_loss,
                                            &at_gpu_square_loss_grad,
                                            &at_gpu_cross_entropy,
                                            &at_gpu_cross_entropy_grad,
                                            &at_gpu_sgd,
                                            &at_gpu_adamw,
                                            &at_gpu_softmax_grad,
                                            &at_gpu_norm_grad,
                                            &at_gpu_gather_grad,
                                            &at_gpu_mask_grad,
                                            &at_gpu_merge_grad,
#endif
                                            NULL};
