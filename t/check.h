/* SPDX-License-Identifier: MIT */
/* Problem words, run on a device and compared with the reference: what the tests of family 2 and
 * `attend check` have in common, so that a user runs the very checks that the tests run.  It looks
 * inside of the library for the reference's error bounds, which no public call gives. */
#ifndef T_CHECK_H
#define T_CHECK_H

#include "problem.h"

/* Words that together reach every feature of attention; NULL at the end. */
extern const char *const check_grid[];

/* One TAP result for the device that is named, or (NULL) for each that is present: the problem runs
 * on it, every element of its outputs is within the bound of at_ref_attention_bound, nothing is
 * written beside them, and a second run gives the same bits.  A failure says where, what was
 * wanted, and the command that replays it.  Returns whether all were good. */
bool check_word(attend_ctx *ctx, const char *device, const char *word);

/* Devices other than the CPU's own compile a program for each expression, in about a second. */
bool check_compiles(const char *device);
extern bool
    check_leaves_out_compilers; /* check_word(NULL) passes those devices over: false at first */

/* The bits of the outputs of a problem, as a hash; 0, and why on TAP, where it cannot run. */
uint64_t check_hash(attend_ctx *ctx, const char *device, const char *word);

/* A problem ready to run: inputs drawn, plan compiled, an exec with everything bound. */
struct check_ready {
    attend_plan *plan;
    attend_exec *exec;
    attend_binding bind[32]; /* what the exec was given */
    int nbind;
    struct check *inside;
};
/* NULL device: auto.  On failure r is as after check_done, and err has a sentence. */
int check_prepare(struct check_ready *r, attend_ctx *ctx, const char *device, const char *word,
                  char *err, size_t errlen);
void check_done(struct check_ready *r); /* a zeroed one is fine */

/* The graph of a problem: inputs q, k, v and what its options add, outputs o and lse. */
attend_graph *check_graph(attend_ctx *ctx, const struct at_problem *p);
/* How it asks to be compiled; the rest is as attend_compile_opts_init has it. */
void check_opts(attend_compile_opts *opts, const struct at_problem *p);

#endif
