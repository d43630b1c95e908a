/* SPDX-License-Identifier: MIT */
/* What the driver's entry points share: the lock, objects, status codes. */
#ifndef CUEMU_API_H
#define CUEMU_API_H

#include "emu.h"

#define EXPORT __attribute__((visibility("default")))

/* The CUresult values that are used. */
enum {
    OK = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    INVALID_DEVICE = 101,
    INVALID_CONTEXT = 201,
    NO_BINARY_FOR_GPU = 209,
    INVALID_PTX = 218,
    UNSUPPORTED_PTX_VERSION = 222,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    NOT_READY = 600,
    ILLEGAL_ADDRESS = 700,
    LAUNCH_OUT_OF_RESOURCES = 701,
    LAUNCH_TIMEOUT = 702,
    CONTEXT_IS_DESTROYED = 709,
    MISALIGNED_ADDRESS = 716,
    LAUNCH_FAILED = 719,
    UNKNOWN = 999
};

/* ---- api.c ---- */

enum { NEED_NOTHING, NEED_INIT, NEED_CONTEXT };
/* Every entry point begins with it: takes the lock, counts the call, gives the error to inject and
 * those that any call can give.  0: go on and return api_leave(status). */
int api_enter(const char *name, int needs);
int api_leave(int status);
uint64_t api_calls(void);
int api_misuse(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- api_context.c ---- */

struct context {
    int retained, sticky; /* sticky: the fault that ended it */
    struct module *modules;
    struct stream *streams; /* the legacy stream included */
    struct event *events;
    uint64_t serial;
};
extern _Thread_local struct context *current;
struct context *context_checked(void *handle); /* NULL: no live context */
int context_live_objects(const struct context *c, char *text, size_t size);

/* ---- api_module.c ---- */

struct function {
    struct module *module;
    const struct ptx_fn *fn;
    int dynamic_limit; /* MAX_DYNAMIC_SHARED_SIZE_BYTES */
};
struct module {
    struct context *context;
    struct ptx_module *ptx;
    struct function *fns;
    struct alloc **allocs; /* of ptx->vars */
    struct module *next;
};
void module_free(struct module *m);
struct function *function_checked(void *handle);

/* ---- api_stream.c ---- */

enum work_kind {
    WORK_COPY_IN,
    WORK_COPY_OUT,
    WORK_COPY,
    WORK_SET,
    WORK_LAUNCH,
    WORK_RECORD,
    WORK_WAIT
};
struct work {
    enum work_kind kind;
    uint64_t serial; /* order of the calls, over all streams */
    uint64_t to, from, size;
    void *host;
    const void *host_from;
    uint32_t value;
    int value_size;
    struct event *event;
    uint64_t event_serial; /* WORK_WAIT: the record to wait for, 0 none */
    struct launch *launch;
    struct work *next;
};
struct stream {
    struct context *context;
    bool blocking; /* waits for the legacy stream, and it for this */
    bool legacy;
    struct work *first, *last;
    struct stream *next;
};
struct event {
    struct context *context;
    bool timing;
    uint64_t recorded, done; /* serials of the last record asked for, and of the last that ran */
    double time;             /* milliseconds */
    struct event *next;
};
struct stream *stream_checked(void *handle); /* NULL handle: the legacy stream */
int stream_add(struct stream *s, struct work w);
int stream_drain(struct stream *s); /* 0 or the error of what ran */
int stream_drain_all(struct context *c);
bool stream_uses(struct context *c, uint64_t base, uint64_t size);
void stream_free(struct stream *s);

/* ---- api_launch.c ---- */

int launch_execute(struct launch *l); /* and frees it */
void launch_drop(struct launch *l);
extern struct stats last_stats;

#endif
