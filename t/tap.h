/* SPDX-License-Identifier: MIT */
/* The verbs of a test program, which prints TAP: ok and is_X give a result, skip says that
 * something this machine lacks was not tested, bail that the set-up is broken, diag helps a reader.
 *
 *     int main(void)
 *     {
 *         is_int(at_half_from_float(1.0f), 0x3c00, "1 as f16");
 *         return done_testing();
 *     }
 *
 * A result returns whether it was good, so that a test can stop or say more.  Names are printf
 * formats.  Functions are called by one thread. */
#ifndef T_TAP_H
#define T_TAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#    define TAP_FORMAT(f, a) __attribute__((format(printf, f, a)))
#    define TAP_NORETURN __attribute__((noreturn))
#else
#    define TAP_FORMAT(f, a)
#    define TAP_NORETURN
#endif

#define NELEM(a) (sizeof(a) / sizeof((a)[0]))

/* How many results will come; without it done_testing prints the plan. */
void plan(int count);

bool ok(bool good, const char *name, ...) TAP_FORMAT(2, 3);
bool is_int(int64_t got, int64_t want, const char *name, ...) TAP_FORMAT(3, 4);
bool is_str(const char *got, const char *want, const char *name, ...) TAP_FORMAT(3, 4);
/* |got - want| <= bound; two NaN agree, and so do equal infinities. */
bool is_float(double got, double want, double bound, const char *name, ...) TAP_FORMAT(4, 5);
bool is_mem(const void *got, const void *want, size_t size, const char *name, ...) TAP_FORMAT(4, 5);

void skip(const char *reason, ...) TAP_FORMAT(1, 2);                  /* one result */
void skip_all(const char *reason, ...) TAP_FORMAT(1, 2) TAP_NORETURN; /* before any result */
void bail(const char *reason, ...) TAP_FORMAT(1, 2) TAP_NORETURN;
void diag(const char *text, ...) TAP_FORMAT(1, 2);

/* The exit status of main: 0 when every result was good and there were as many as planned. */
int done_testing(void);

#endif
