/* SPDX-License-Identifier: MIT */
/* Gradients of problem words: what check.h is for forward passes. */
#ifndef T_CHECK_GRADS_H
#define T_CHECK_GRADS_H

#include "check.h"

#define CHECK_GRADS 7

/* dq, dk, dv, and of the mask, slopes, sinks and additive vector those that are there. */
struct check_grads {
    float *of[CHECK_GRADS];
    int64_t size[CHECK_GRADS];
    double by[CHECK_GRADS]; /* how many times the gradient of a score is in it: slopes, distances */
    int n;
};

/* With a drawn gradient of O.  0, or what attend_grad said no with; bails where a run fails.
 * Freed by check_grads_free. */
int check_gradients(attend_ctx *ctx, const char *device, const char *word, struct check_grads *out);
void check_grads_free(struct check_grads *g);
/* One TAP result: a device's are those of the reference, within roundings. */
bool check_same_gradients(attend_ctx *ctx, const char *device, const char *word,
                          const struct check_grads *want);
/* For a word each device that is present; or, where gradients of it are refused, that it is so and
 * by a sentence. */
void check_gradients_of(attend_ctx *ctx, const char *word);

#endif
