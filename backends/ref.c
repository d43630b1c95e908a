/* SPDX-License-Identifier: MIT */
/* The backend "ref": the definitions of lib/ref.c as kernel rows, on plain memory.  They take
 * everything, so every plan can be made. */
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

static int matmul_prepare(attend_plan *plan, struct at_step *s, struct at_err *e)
{
    int a = s->in[0];
    int64_t k = at_plan_range(plan, s->rows, a, plan->graph->tensor[a].rank - 1).max;
    s->scratch = at_ref_matmul_scratch(k);
    if (s->scratch < 0)
        return at_fail(e, ATTEND_ELIMIT, "matmul: rows of %lld elements are too long",
                       (long long)k);
    return 0;
}

/* The resolved problem lies in the exec: struct at_attn, then its sequences. */
static int attn_prepare(attend_plan *plan, struct at_step *s, struct at_err *e)
{
    (void)e;
    int64_t seqs = at_attn_max_seqs(plan, s);
    s->state = (int64_t)sizeof(struct at_attn) + seqs * (int64_t)sizeof(struct at_seq);
    return 0;
}

static int attn_bind(struct attend_exec *x, const struct at_step *s)
{
    struct at_attn *a = at_step_state(x, s);
    return at_attn_resolve(x, s, a, (struct at_seq *)(a + 1));
}

/* clang-format off */
#define ROW(op, prepare, bind) &(const struct at_row){"ref", op, accepts, prepare, bind, run}

static const struct at_row *const rows[] = {
    ROW(AT_MATMUL, matmul_prepare, NULL),
    ROW(AT_ADD, NULL, NULL),
    ROW(AT_MUL, NULL, NULL),
    ROW(AT_SCALE, NULL, NULL),
    ROW(AT_WHERE, NULL, NULL),
    ROW(AT_SELECT, NULL, NULL),
    ROW(AT_MASK, attn_prepare, attn_bind),
    ROW(AT_SOFTMAX, NULL, NULL),
    ROW(AT_ATTENTION, attn_prepare, attn_bind),
    ROW(AT_RMS_NORM, NULL, NULL),
    ROW(AT_LAYER_NORM, NULL, NULL),
    ROW(AT_SILU, NULL, NULL),
    ROW(AT_GELU, NULL, NULL),
    ROW(AT_GELU_TANH, NULL, NULL),
    ROW(AT_TANH, NULL, NULL),
    ROW(AT_SIGMOID, NULL, NULL),
    ROW(AT_RELU, NULL, NULL),
    ROW(AT_ERF, NULL, NULL),
    ROW(AT_POW, NULL, NULL),
    ROW(AT_ROPE, NULL, NULL),
    ROW(AT_GATHER, NULL, NULL),
    ROW(AT_APPEND, NULL, NULL),
    ROW(AT_CONCAT, NULL, NULL),
    ROW(AT_CAST, NULL, NULL),
    ROW(AT_COPY, NULL, NULL),
    NULL,
};
/* clang-format on */

static int probe(attend_ctx *ctx)
{
    struct at_device d = {.backend = &at_backend_ref, .present = true, .automatic = true};
    snprintf(d.name, sizeof d.name, "ref");
    snprintf(d.detail, sizeof d.detail, "plain C in double precision: what each operator means");
    return at_device_add(ctx, &d);
}

const struct at_backend at_backend_ref = {"ref", probe, rows};
