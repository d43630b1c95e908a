/* SPDX-License-Identifier: MIT */
/* What the files of attention on the CPU share, with its weights and gradients: the list of work,
 * packed rows as lanes, keys as rows, and the scores of both, with all that is done to them. */
#ifndef AT_CPU_ATTN_H
#define AT_CPU_ATTN_H

#include "cpu.h"
#include "expr.h"
#include "schedule.h"

#define AT_MAX_LANES 64  /* rows of a panel, or of the dots shape */
#define AT_CPU_PANELS 32 /* most of one work item */

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

/* What bind leaves for run, in the exec; the arrays follow it. */
struct at_cpu_schedule {
    struct at_attn a;
    struct at_seq *seq;
    struct at_item *item; /* panels and chunks, the heaviest first */
    struct at_item *join; /* one for each (dots sequence, group): its chunks are merged */
    float *partial;       /* states of chunks, in the order of `join` */
    int64_t nitem, njoin, chunk, panels, nseq;
    double flops;
    bool valid, alone;                  /* alone: deterministic, an item is a query row */
    const struct at_schedule *blocks;   /* what masks leave of blocks of keys; NULL: all */
    const struct at_programs *programs; /* of the expressions; NULL: none */
    int64_t *key; /* of nseq sequences: packed rows and chunks that the items were made for */
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

/* Keys of w's group from j0 on, at most up to j1, as rows for the block functions: as many as
 * follow each other in memory, all of them unless they are paged. */
struct at_rows at_cpu_attn_key_rows(const struct at_attn *a, const struct at_view *v,
                                    const struct at_item *w, int64_t j0, int64_t j1);
/* The same, where the block functions know the type; f8 values are first made f32, in stage. */
struct at_rows at_cpu_attn_fetch(const struct at_attn *a, const struct at_view *v,
                                 const struct at_item *w, int64_t j0, int64_t j1, float *stage);
void at_cpu_attn_store_lse(const struct at_lanes *l, const struct at_attn *a,
                           const struct at_seq *q, const float *lse);

/* ---- scores ---- */

/* What masks leave of keys [j0, j1) to rows [i0, i1). */
enum at_cover at_cpu_attn_cover(const struct at_cpu_schedule *d, const struct at_item *w,
                                int64_t i0, int64_t i1, int64_t j0, int64_t j1);
/* Is there more to do to scores than to hide? */
bool at_cpu_attn_edits(const struct at_attn *a);
/* Scores of keys [from, to) of a block that begins at key j0, whose rows k and scores st are; -inf
 * where hidden; masks are looked at where they leave the keys partial.  One unit of a score is
 * worth at_cpu_attn_scale. */
void at_cpu_attn_scores(const struct at_simd *t, const struct at_attn *a, const struct at_item *w,
                        const struct at_lanes *l, const float *qp, const struct at_rows *k,
                        float *st, int64_t j0, int64_t from, int64_t to, enum at_cover mask);
/* Scores of keys [j0, j1), st at the first: softcap, ALiBi, bias, score expression, then what
 * hides: masks only where they leave the keys partial. */
void at_cpu_attn_edit(const struct at_simd *t, const struct at_attn *a, const struct at_item *w,
                      const struct at_lanes *l, float *st, int64_t j0, int64_t j1,
                      enum at_cover mask);
/* Weights of keys [j0, j1), the first at st, after the last softmax_step of their block. */
void at_cpu_attn_drop(const struct at_simd *t, const struct at_attn *a, const struct at_item *w,
                      const struct at_lanes *l, float *st, int64_t j0, int64_t j1);
/* Scores are q . k times the factor; the softmax does the rest of the scale. */
float at_cpu_attn_q_factor(const struct at_attn *a);
float at_cpu_attn_scale(const struct at_attn *a);

/* ---- an item, in the slot's scratch; steps is that of its programs ---- */

/* after: the item that comes next, or NULL. */
void at_cpu_panels_run(const struct at_simd *t, const struct at_cpu_schedule *d,
                       const struct at_item *w, const struct at_item *after, void *steps,
                       float *scratch);
/* A chunk; partial: where its state goes, NULL where it is the only one and ends the rows. */
void at_cpu_dots_chunk(const struct at_simd *t, const struct at_cpu_schedule *d,
                       const struct at_item *w, float *partial, void *steps, float *scratch);
/* merge: the chunks of w's rows, in order; their states are so many floats apart. */
void at_cpu_dots_join(const struct at_simd *t, const struct at_cpu_schedule *d,
                      const struct at_item *w, float *state, int64_t apart);
/* The heads of one query row, through all their chunks. */
void at_cpu_dots_alone(const struct at_simd *t, const struct at_cpu_schedule *d,
                       const struct at_item *w, void *steps, float *scratch);

#endif
