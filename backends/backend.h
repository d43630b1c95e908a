/* SPDX-License-Identifier: MIT */
/* What a backend is: devices it finds, memory on them, and the kernel rows that run there. */
#ifndef AT_BACKEND_H
#define AT_BACKEND_H

#include "core.h"

/* Why a row refused a step, collected while accepts() runs. */
struct at_why {
    char text[256];
};
/* cond, noting `reason` where it is false: `return at_need(why, a, "...") && at_need(why, b, "...")`. */
bool at_need(struct at_why *why, bool cond, const char *reason);

/* A kernel row answers "can I?" and "do it" in one file.  Rows are ordered, best first; the
 * reference is last and takes everything. */
#define AT_ANY_OP AT_OP_COUNT
struct at_row {
    const char *name;
    enum at_opcode op; /* or AT_ANY_OP */
    /* May this row run s on its device, for every value in the ranges of the variant? */
    bool (*accepts)(const attend_plan *plan, const struct at_step *s, struct at_why *why);
    /* Once per plan and step: sets s->scratch, s->state, packs constants.  May be NULL. */
    int (*prepare)(attend_plan *plan, struct at_step *s, struct at_err *e);
    /* When bindings changed: checks what the host can see, fills at_step_state.  May be NULL. */
    int (*bind)(struct attend_exec *x, const struct at_step *s);
    /* Allocates nothing, compiles nothing, looks nothing up by name. */
    int (*run)(struct attend_exec *x, const struct at_step *s);
};

struct at_backend;

struct at_device {
    const struct at_backend *backend;
    char name[48], detail[160];
    bool present, automatic; /* automatic: "auto" may take it; the last such that is present wins */
    const void *kernels;     /* of the backend: for simd the table of block functions */
};

struct at_backend {
    const char *name;
    /* Adds its devices, present or not, by at_device_add. */
    int (*probe)(attend_ctx *ctx);
    const struct at_row *const *rows; /* NULL at the end */
};
int at_device_add(attend_ctx *ctx, const struct at_device *d);
/* The device that a user's name means (a name, or a prefix up to ':'), or NULL with a sentence. */
const struct at_device *at_device_find(attend_ctx *ctx, const char *name, struct at_err *e);

extern const struct at_backend at_backend_ref; /* ref.c */

/* All that are compiled in, the reference first, NULL at the end. */
extern const struct at_backend at_backend_ref, at_backend_simd;
extern const struct at_backend *const at_backends[];

#endif
