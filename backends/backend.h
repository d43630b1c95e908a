/* SPDX-License-Identifier: MIT */
/* What a backend is: devices it finds, memory on them, and the kernel rows that run there. */
#ifndef AT_BACKEND_H
#define AT_BACKEND_H

#include "core.h"

/* Why a row refused a step, collected while accepts() runs. */
struct at_why {
    char text[256];
};
/* cond, noting `reason` where it is false: `return at_need(why, a, "...") && at_need(why, b,
 * "...")`. */
bool at_need(struct at_why *why, bool cond, const char *reason);

/* A kernel row answers "can I?" and "do it" in one file.  Rows are ordered, best first; the
 * reference is last and takes everything. */
#define AT_ANY_OP AT_OP_COUNT
struct at_row {
    const char *name;
    enum at_opcode op; /* or AT_ANY_OP */
    /* May this row run s on its device, for every value in the ranges of the variant?  One for a
     * precision that the plan was not asked for refuses without a word. */
    bool (*accepts)(const attend_plan *plan, const struct at_step *s, struct at_why *why);
    /* Once per plan and step: sets s->scratch, s->state, packs constants.  ATTEND_EUNSUPPORTED: the
     * row cannot after all, and the next is asked.  May be NULL. */
    int (*prepare)(attend_plan *plan, struct at_step *s, struct at_err *e);
    /* When bindings changed: checks what the host can see, fills at_step_state.  May be NULL. */
    int (*bind)(struct attend_exec *x, const struct at_step *s);
    /* Allocates nothing, compiles nothing, looks nothing up by name. */
    int (*run)(struct attend_exec *x, const struct at_step *s);
};

struct at_backend;
struct at_device;

/* Memory of a device's own, and the queue of work in order that each exec has there, its stream.
 * What is enqueued is done when finish returns; host memory that it names belongs to the stream
 * until then. Handles are the backend's.  Statuses as everywhere, the sentence in *e. */
struct at_memory {
    int (*stream_new)(const struct at_device *d, void **stream, struct at_err *e);
    void (*stream_free)(const struct at_device *d, void *stream);
    int (*alloc)(const struct at_device *d, int64_t bytes, void **mem, struct at_err *e);
    /* Memory of the host that the device uses in place; 1 where it cannot, and *mem is NULL. */
    int (*wrap)(const struct at_device *d, void *host, int64_t bytes, void **mem, struct at_err *e);
    void (*free)(const struct at_device *d, void *mem);
    int (*upload)(const struct at_device *d, void *stream, void *mem, int64_t offset,
                  const void *host, int64_t bytes, struct at_err *e);
    int (*download)(const struct at_device *d, void *stream, void *host, void *mem, int64_t offset,
                    int64_t bytes, struct at_err *e);
    int (*finish)(const struct at_device *d, void *stream, struct at_err *e);
    /* May kernels use these bytes of memory that the caller made?  NULL: of no such memory. */
    int (*borrow)(const struct at_device *d, void *mem, int64_t at, int64_t bytes,
                  struct at_err *e);
    /* A place in the stream, for traces, or NULL; `elapsed` gives the nanoseconds from one to a
     * later one once the stream is finished, -1: unknown. */
    void *(*mark)(const struct at_device *d, void *stream);
    int64_t (*elapsed)(const struct at_device *d, void *from, void *to);
    void (*unmark)(const struct at_device *d, void *mark);
};

#define AT_MAX_DEVICES 64 /* of a context */
struct at_device {
    const struct at_backend *backend;
    char name[48], detail[320];
    bool present, automatic; /* automatic: "auto" may take it; the last such that is present wins */
    const void *kernels;     /* of the backend: for simd the table of block functions */
    void *handle;            /* of the backend */
    const struct at_memory *memory; /* NULL: it works in the host's */
};

struct at_backend {
    const char *name;
    /* Adds its devices, present or not, by at_device_add. */
    int (*probe)(attend_ctx *ctx);
    const struct at_row *const *rows; /* NULL at the end */
    /* Frees what probe left in the context.  May be NULL. */
    void (*leave)(attend_ctx *ctx);
    /* Found only when somebody lists devices or names one of it: "auto" never takes them, and what
     * takes no such device does not load its libraries. */
    bool lazy;
};
int at_device_add(attend_ctx *ctx, const struct at_device *d);
/* The device that a user's name means (a name, or a prefix up to ':'), or NULL with a sentence. */
const struct at_device *at_device_find(attend_ctx *ctx, const char *name, struct at_err *e);

/* All that are compiled in, the reference first, NULL at the end. */
extern const struct at_backend at_backend_ref, at_backend_simd, at_backend_opencl, at_backend_cuda;
extern const struct at_backend *const at_backends[];

#endif
