/* SPDX-License-Identifier: MIT */
/* The backend "ref": the definitions of lib/ref.c as one kernel row, on plain memory.  It takes
 * every operator of the table, so every plan can be made. */
#include <stdio.h>

#include "backend.h"
#include "ref.h"

static bool accepts(const attend_plan *plan, const struct at_step *s, struct at_why *why)
{
    (void)plan;
    (void)s;
    (void)why;
    return true;
}

static int run(struct attend_exec *x, const struct at_step *s)
{
    return at_ops[s->op].ref(x, s);
}

/* Is it one attention problem, which bind resolves? */
static bool resolves(const struct at_step *s)
{
    return s->op == AT_ATTENTION || s->op == AT_MASK || s->op == AT_WEIGHTS ||
           s->op == AT_MASK_GRAD;
}

static int weights_scratch(const attend_plan *plan, struct at_step *s, struct at_err *e)
{
    int axis = plan->graph->tensor[s->in[AT_IN_K]].rank == 3 ? 0 : 2;
    int64_t keys = at_plan_range(plan, s->rows, s->in[AT_IN_K], axis).max;
    if (s->in[AT_IN_TABLE] >= 0)
        keys = at_mul_size(keys, at_plan_range(plan, s->rows, s->in[AT_IN_TABLE], 1).max);
    s->scratch = at_ref_weights_scratch(&s->p->attention.weights, keys);
    if (s->scratch < 0)
        return at_fail(e, ATTEND_ELIMIT, "weights: %lld keys are too many", (long long)keys);
    return 0;
}

/* Scratch for matmul; for attention and mask the resolved problem lies in the exec: struct at_attn,
 * then its sequences. */
static int prepare(attend_plan *plan, struct at_step *s, struct at_err *e)
{
#ifndef AT_NO_TRAINING
    if (s->op == AT_ATTENTION_GRAD)
        return at_ref_attention_grad_prepare(plan, s, e);
#endif
    if (s->op == AT_NORM_GRAD || s->op == AT_GATHER_GRAD) { /* sums of a row, or of a column */
        int t = s->in[0], axis = s->op == AT_GATHER_GRAD ? 0 : plan->graph->tensor[t].rank - 1;
        s->scratch = at_plan_range(plan, s->rows, t, axis).max * (int64_t)sizeof(double);
    } else if (s->op == AT_MATMUL) {
        int a = s->in[0];
        int64_t k = at_plan_range(plan, s->rows, a, plan->graph->tensor[a].rank - 1).max;
        s->scratch = at_ref_matmul_scratch(k);
        if (s->scratch < 0)
            return at_fail(e, ATTEND_ELIMIT, "matmul: rows of %lld elements are too long",
                           (long long)k);
    } else if (resolves(s)) {
        s->state = (int64_t)sizeof(struct at_attn) +
                   at_attn_max_seqs(plan, s) * (int64_t)sizeof(struct at_seq);
    }
    return s->op == AT_WEIGHTS ? weights_scratch(plan, s, e) : 0;
}

static int bind(struct attend_exec *x, const struct at_step *s)
{
    struct at_attn *a = at_step_state(x, s);
#ifndef AT_NO_TRAINING
    if (s->op == AT_ATTENTION_GRAD)
        return at_ref_attention_grad_bind(x, s);
#endif
    if (!resolves(s))
        return 0;
    return at_attn_resolve(x, s, a, (struct at_seq *)(a + 1));
}

static const struct at_row any = {"ref", AT_ANY_OP, accepts, prepare, bind, run};
static const struct at_row *const rows[] = {&any, NULL};

static int probe(attend_ctx *ctx)
{
    struct at_device d = {.backend = &at_backend_ref, .present = true, .automatic = true};
    snprintf(d.name, sizeof d.name, "ref");
    snprintf(d.detail, sizeof d.detail, "plain C in double precision: what each operator means");
    return at_device_add(ctx, &d);
}

const struct at_backend at_backend_ref = {.name = "ref", .probe = probe, .rows = rows};
