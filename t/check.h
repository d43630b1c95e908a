/* SPDX-License-Identifier: MIT */
/* Problem words, run on a device and compared with the reference: what the tests of family 2 and
 * `attend check` have in common, so that a user runs the very checks that the tests run.  It looks
 * inside of the library for the reference's error bounds, which no public call gives. */
#ifndef T_CHECK_H
#define T_CHECK_H

#include "problem.h"

/* Words that together reach every feature of attention; NULL at the end. */
extern const char *const check_grid[];

/* One TAP result: the problem runs on the device, every element of its outputs is within the bound
 * of at_ref_attention_bound, nothing is written beside them, and a second run gives the same bits.
 * A failure says where, what was wanted, and the command that replays it. */
bool check_word(attend_ctx *ctx, const char *device, const char *word);

/* check_word for each word on each device that is present, or on the one that is named. */
void check_words(attend_ctx *ctx, const char *device, const char *const *words);

/* The graph of a problem: inputs q, k, v and what its options add, outputs o and lse. */
attend_graph *check_graph(attend_ctx *ctx, const struct at_problem *p);

#endif
