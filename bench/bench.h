/* SPDX-License-Identifier: MIT */
/* Benchmarks of attention: the standard shapes, and one measurement, which asks the machine for its
 * ceilings right before it times a call, so that shares of them hold on machines that are noisy. */
#ifndef BENCH_H
#define BENCH_H

#include "core.h"
#include "simd/simd.h"

/* ---- shapes.c ---- */

struct bench_shape {
    const char *name, *what;
    const char *word; /* problem.h, in f32 */
};
extern const struct bench_shape bench_shapes[]; /* ends with a NULL name */

/* ---- measure.c ---- */

/* An exec that is bound and whose plan has one step of attention, and what a call of it comes to.
 */
struct bench_problem {
    attend_exec *exec;
    const char *device;
    const struct at_simd *kernels; /* of its device; NULL: not a CPU's, there are no ceilings */
    struct at_attn a;
    struct at_seq *seq;
    int64_t calls; /* in one measurement */
    double flops;  /* 2 multiply-adds a channel of a visible (row, key), counted exactly */
    double bytes;  /* of Q, K, V and O, each once; hidden ends of K and V are left out */
};

/* What one measurement gave: seconds of a call, and in the same moments the operations and bytes
 * that the machine does a second.  With serial: the same on the calling thread alone, else 0. */
struct bench_sample {
    double seconds, peak, read;
    double serial_seconds, serial_peak;
};

struct bench_clock {
    int64_t (*now)(void); /* nanoseconds */
    bool serial;          /* measures one thread beside all */
};

/* Runs the exec once and sets the number of calls.  Errors are the exec's. */
int bench_begin(struct bench_problem *p, attend_exec *exec);
int bench_measure(struct bench_problem *p, const struct bench_clock *c, struct bench_sample *s);
void bench_end(struct bench_problem *p); /* leaves the exec */

/* Operations a second of multiply-adds, on the threads of ctx or the calling one alone. */
double bench_peak(attend_ctx *ctx, const struct at_simd *t, bool serial, int64_t (*now)(void));
/* Seconds of one of many calls of a tiny problem: bind with all its bindings, or none, and run. */
double bench_call(attend_exec *exec, const attend_binding *bind, int nbind, int64_t (*now)(void));

/* Sorts x. */
double bench_median(double *x, int n);

#endif
