/* SPDX-License-Identifier: MIT */
/* What attention on the CPU and its weights share: packed rows as lanes, keys as rows, and the
 * scores of both, with all that is done to them. */
#ifndef AT_CPU_ATTN_H
#define AT_CPU_ATTN_H

#include "cpu.h"
#include "expr.h"

#define AT_MAX_LANES 64 /* rows of a panel, or of the dots shape */

/* What prepare makes of the expressions. */
struct at_programs {
    struct at_expr_program score, mask;
    int64_t scratch; /* bytes, of either */
};

/* Packed rows of one sequence and KV group, which is what one thread takes at a time. */
struct at_item {
    int32_t seq, group;
    int64_t first,
        count; /* panels: packed rows / dots: the chunk, and the chunks of the sequence */
};

/* The lanes of a panel, or of the dots shape. */
struct at_lanes {
    int n;
    int64_t stride; /* of the score block */
    int64_t i[AT_MAX_LANES], h[AT_MAX_LANES];
    int64_t low[AT_MAX_LANES], high[AT_MAX_LANES]; /* keys that affine visibility leaves to it */
    const void *q[AT_MAX_LANES];
    void *o[AT_MAX_LANES]; /* NULL where there is no output */
    float sink[AT_MAX_LANES];
    const struct at_programs *programs; /* of the expressions; NULL: none */
    void *steps;                        /* their scratch */
};

/* Makes programs of the expressions of s, if it has any: s->packed, and scratch is added. */
int at_cpu_attn_programs(attend_plan *plan, struct at_step *s, struct at_err *e);

/* Query heads of a KV group. */
static inline int at_cpu_attn_ratio(const struct at_attn *a)
{
    return (int)(a->nh / a->ng);
}

/* Packed rows [first, first + n) of group g, in the first of `room` lanes. */
void at_cpu_attn_lanes(struct at_lanes *l, const struct at_attn *a, const struct at_seq *q,
                       int64_t g, int64_t first, int n, int room);

/* Floats of a panel's packed queries, and how they are packed. */
int64_t at_cpu_attn_q_floats(const struct at_simd *t, int64_t dk, bool additive);
void at_cpu_attn_pack_q(const struct at_simd *t, const struct at_attn *a, const struct at_lanes *l,
                        float *qp);

/* Keys [from, to) of w's group as f32 rows, of which the base is that of key j0: in place where
 * they lie so, or in buffer (at_simd_k_floats). */
struct at_rows at_cpu_attn_keys(const struct at_simd *t, const struct at_attn *a,
                                const struct at_item *w, int64_t j0, int64_t from, int64_t to,
                                float *buffer);

/* Scores of keys [from, to) of a block that begins at key j0, whose rows k and scores st are; -inf
 * where hidden.  One unit of a score is worth at_cpu_attn_scale. */
void at_cpu_attn_scores(const struct at_simd *t, const struct at_attn *a, const struct at_item *w,
                        const struct at_lanes *l, const float *qp, const struct at_rows *k,
                        float *st, int64_t j0, int64_t from, int64_t to);
float at_cpu_attn_scale(const struct at_attn *a);

#endif
