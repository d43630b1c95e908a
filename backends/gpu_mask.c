/* SPDX-License-Identifier: MIT */
/* A mask by itself on devices, and its gradient: scores are a tensor, which attention's rows do not
 * have. */
#include <stdio.h>

#include "gpu_problem.h"

/* What bind leaves for run, in the exec; the sequences follow it, as the host and the device have
 * them, and then what is captured: nothing. */
struct masked {
    struct at_attn a;
    struct at_k_attn args;
};

static bool accepts(const attend_plan *plan, const struct at_step *s, struct at_why *why)
{
    struct at_gpu_sizes e = at_gpu_sizes_of(plan, s);
    return at_need(why, e.rows <= INT32_MAX / 2 && e.keys <= INT32_MAX / 2,
                   "more rows or keys than 31 bits count");
}

static int prepare(attend_plan *plan, struct at_step *s, struct at_err *e)
{
    char defines[24];
    snprintf(defines, sizeof defines, "-DAT_ITEMS=%d", at_gpu_of(s->device)->cpu ? 1 : 64);
    return at_gpu_problem_prepare(plan, s, 1u << AT_GPU_ATTN_MASK, defines, &s->row->name, 1,
                                  sizeof(struct masked), e);
}

static int bind(struct attend_exec *x, const struct at_step *s)
{
    struct at_gpu_sizes e = at_gpu_sizes_of(x->plan, s);
    struct masked *m = at_step_state(x, s);
    struct at_seq *seq = (struct at_seq *)((char *)m + at_round_up(sizeof *m, AT_ALIGN));
    int status = at_attn_resolve(x, s, &m->a, seq);
    if (status < 0)
        return status;
    at_gpu_problem_args(&m->args, x, s, &m->a);
    m->args.o = at_gpu_problem_view(x, s->out[0], &m->a.o);
    m->args.ng = m->args.nh;
    m->args.rows = (at_i32)m->a.q.shape[2];
    m->args.chunk = m->a.q.shape[3];
    return at_gpu_problem_table(x, s, &m->a, &e, seq + e.seqs, &m->args);
}

static int run(struct attend_exec *x, const struct at_step *s)
{
    const struct masked *m = at_step_state(x, s);
    struct at_gpu_launch l = {
        .kernel = ((const struct at_gpu_kernels *)s->packed)->kernel[0],
        .args = &m->args,
        .bytes = sizeof m->args,
        .groups = {m->a.nseq * m->a.nh * m->args.rows, 1, 1},
        .items = at_gpu_of(s->device)->cpu ? 1 : 64
    };
    int64_t at;
    l.buffer[0] = at_gpu_buffer(x, s->out[0], &at);
    l.nbuffer = 2 + at_gpu_problem_buffers(x, s, l.buffer + 2); /* no lse */
    return at_gpu_run(x, s, &l);
}

const struct at_row at_gpu_mask = {"mask", AT_MASK, accepts, prepare, bind, run};
const struct at_row at_gpu_mask_grad = {"mask_grad", AT_MASK_GRAD, accepts, prepare, bind, run};
