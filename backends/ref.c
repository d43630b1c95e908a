/* SPDX-License-Identifier: MIT */
/* The backend "ref": the definitions of lib/ref.c as one kernel row, on plain memory.  It takes every
 * operator of the table, so every plan can be made. */
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

/* Scratch for matmul; for attention and mask the resolved problem lies in the exec: struct at_attn,
 * then its sequences. */
static int prepare(attend_plan *plan, struct at_step *s, struct at_err *e)
{
    if (s->op == AT_MATMUL) {
        int a = s->in[0];
        int64_t k = at_plan_range(plan, s->rows, a, plan->graph->tensor[a].rank - 1).max;
        s->scratch = at_ref_matmul_scratch(k);
        if (s->scratch < 0)
            return at_fail(e, ATTEND_ELIMIT, "matmul: rows of %lld elements are too long",
                           (long long)k);
    } else if (s->op == AT_ATTENTION || s->op == AT_MASK) {
        s->state = (int64_t)sizeof(struct at_attn) +
                   at_attn_max_seqs(plan, s) * (int64_t)sizeof(struct at_seq);
    }
    return 0;
}

static int bind(struct attend_exec *x, const struct at_step *s)
{
    struct at_attn *a = at_step_state(x, s);
    if (s->op != AT_ATTENTION && s->op != AT_MASK)
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

const struct at_backend at_backend_ref = {"ref", probe, rows};
