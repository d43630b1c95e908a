/* SPDX-License-Identifier: MIT */
/* Irregular visibility as data: per block of 64 query rows, runs of blocks of 64 keys that are not
 * empty, each full or partial.
 *
 * Its sources are mask expressions; a dense bool mask is one too, that loads one element, and a
 * block-sparse layout is part of one (op_attn.c).  A block counts as full or partial for the
 * sources alone: what causality, windows and lengths hide is the kernel's affair (at_key_range),
 * but blocks that they hide wholly are not listed.  Partial is always a safe answer. */
#ifndef AT_SCHEDULE_H
#define AT_SCHEDULE_H

#include "expr.h"

enum { AT_BLOCK = 64 }; /* rows, and keys */

/* A mask over tensors as they are now. */
struct at_source {
    const struct at_expr *x;
    struct at_minmax *minmax[AT_EXPR_LOADS]; /* NULL: not known */
};
/* capture[c].data may be NULL: a tensor whose contents cannot be seen now. */
int at_source_init(attend_ctx *ctx, struct at_source *s, const struct at_expr *x,
                   const struct at_view *capture);
void at_source_fini(attend_ctx *ctx, struct at_source *s);

/* mask[b, h, i, j] as an expression over one capture, a bool tensor of that shape: (B or 1, H or 1,
 * Sq or 1, Skv or 1). */
void at_source_of_mask(struct at_expr *x, const int64_t *shape);

struct at_run {
    int32_t first, end; /* blocks of keys */
    bool full;
};

/* The runs of block row r are run[start[r]] to run[start[r + 1] - 1]. */
struct at_block_list {
    int64_t nq, nk, off, b, h; /* what it was made for; b, h: -1 where it does not matter */
    int64_t rows, start;       /* block rows; where theirs begin in at_schedule.start */
};

struct at_schedule {
    attend_ctx *ctx;
    struct at_block_list *list;
    int32_t *of; /* list of (sequence, head) */
    int64_t *start;
    struct at_run *run;
    int nlist, cap_list, nof, cap_of, nstart, cap_start, nrun, cap_run;
    int64_t heads;     /* 1 where no source reads h */
    int64_t evaluated; /* boxes that the sources were asked about, in the last build */
};

/* Lists for every sequence and head, sharing those that are equal.  Keeps memory from build to
 * build; the first begins with zeros and ctx. */
int at_schedule_build(struct at_schedule *d, const struct at_visible *v, const struct at_seq *seq,
                      int64_t nseq, int64_t nh, const struct at_source *const *src, int nsrc);
void at_schedule_free(struct at_schedule *d);

static inline const struct at_block_list *at_schedule_list(const struct at_schedule *d, int64_t n,
                                                           int64_t h)
{
    return &d->list[d->of[n * d->heads + (d->heads > 1 ? h : 0)]];
}
/* Of keys [j0, j1) and rows [i0, i1) of sequence n, for heads [h0, h1); none empty. */
enum at_cover at_schedule_cover(const struct at_schedule *d, int64_t n, int64_t h0, int64_t h1,
                                int64_t i0, int64_t i1, int64_t j0, int64_t j1);

#endif
