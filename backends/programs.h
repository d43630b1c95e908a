/* SPDX-License-Identifier: MIT */
/* The programs that a device has compiled, and their kernels: one list a device, which its backend
 * locks.  Compiling, loading and looking up are the backend's. */
#ifndef AT_PROGRAMS_H
#define AT_PROGRAMS_H

#include "core.h"

#define AT_PROGRAM_KERNELS 20 /* most of a program */

struct at_kernel {
    char name[32];
    uint8_t program[32]; /* its key */
    _Atomic int trial;   /* of gpu_trial.c */
    void *handle;
    int64_t items;       /* the most of a group */
    int64_t local_bytes; /* of CUDA: what a launch may ask for now */
};

struct at_program {
    struct at_program *next;
    uint8_t key[32]; /* a SHA-256 of all that it depends on, as on the disk (progcache.h) */
    void *handle;
    bool fresh; /* compiled here, and not yet on the disk */
    struct at_kernel kernel[AT_PROGRAM_KERNELS];
    int nkernel;
};

struct at_program_maker {
    /* Sets p->handle, from the disk or the text. */
    int (*make)(void *device, struct at_program *p, const char *text, const char *options,
                struct at_err *e);
    /* Sets the handle and items of the kernel that k->name says. */
    int (*find)(void *device, struct at_program *p, struct at_kernel *k, struct at_err *e);
};

/* What a program depends on, each part with where it ends. */
void at_program_key(const char *const *part, int n, uint8_t key[32]);

/* The kernel of the program of a key, made where the list has none.  It lives as long as the list,
 * which the caller frees. */
int at_program_kernel(attend_ctx *ctx, struct at_program **list,
                      const struct at_program_maker *maker, void *device, const uint8_t key[32],
                      const char *text, const char *options, const char *name, void **kernel,
                      struct at_err *e);

#endif
