/* SPDX-License-Identifier: MIT */
/* The primary context of the one device.  The last release destroys it, and says what was left. */
#include "api.h"

#include <stdio.h>
#include <stdlib.h>

_Thread_local struct context *current;
static struct context *primary;
static uint64_t serials;

struct context *context_checked(void *handle)
{
    return handle && handle == primary ? primary : NULL;
}

static int count_memory(const struct context *c)
{
    struct alloc *a;
    int n = 0;
    for (int i = 0; mem_each(i, &a); i++)
        n += a->owner == c && !a->freed && !a->module_owned;
    return n;
}

int context_live_objects(const struct context *c, char *text, size_t size)
{
    int memory = count_memory(c), modules = 0, streams = 0, events = 0;
    for (const struct module *m = c->modules; m; m = m->next)
        modules++;
    for (const struct stream *s = c->streams; s; s = s->next)
        streams += !s->legacy;
    for (const struct event *v = c->events; v; v = v->next)
        events++;
    snprintf(text, size, "%d allocations, %d modules, %d streams, %d events", memory, modules,
             streams, events);
    return memory + modules + streams + events;
}

static void destroy(struct context *c)
{
    char text[160];
    if (!c->sticky && !stream_drain_all(c) && context_live_objects(c, text, sizeof text))
        report(FAULT_LEAK, "the context was released with %s", text);
    while (c->streams)
        stream_free(c->streams);
    while (c->modules)
        module_free(c->modules);
    while (c->events) {
        struct event *next = c->events->next;
        free(c->events);
        c->events = next;
    }
    mem_forget(c);
    primary = NULL;
    free(c);
}

__attribute__((destructor)) static void at_exit(void)
{
    if (primary && !primary->sticky)
        report(FAULT_LEAK,
               "the program ended without releasing the primary context (%d times retained)",
               primary->retained);
}

EXPORT int cuDevicePrimaryCtxRetain(void **context, int device);
EXPORT int cuDevicePrimaryCtxRetain(void **context, int device)
{
    int e = api_enter("cuDevicePrimaryCtxRetain", NEED_INIT);
    if (e)
        return e;
    if (device)
        return api_leave(INVALID_DEVICE);
    if (!primary) {
        primary = calloc(1, sizeof *primary);
        struct stream *legacy = calloc(1, sizeof *legacy);
        if (!primary || !legacy)
            return api_leave(OUT_OF_MEMORY);
        *legacy = (struct stream){.context = primary, .legacy = true};
        primary->streams = legacy;
        primary->serial = ++serials;
    }
    primary->retained++;
    *context = primary;
    return api_leave(OK);
}

EXPORT int cuDevicePrimaryCtxRelease_v2(int device);
EXPORT int cuDevicePrimaryCtxRelease_v2(int device)
{
    int e = api_enter("cuDevicePrimaryCtxRelease", NEED_INIT);
    if (e)
        return e;
    if (device)
        return api_leave(INVALID_DEVICE);
    if (!primary)
        return api_leave(api_misuse(INVALID_CONTEXT,
                                    "the primary context is released more often than retained"));
    if (!--primary->retained)
        destroy(primary);
    return api_leave(OK);
}

EXPORT int cuDevicePrimaryCtxReset_v2(int device);
EXPORT int cuDevicePrimaryCtxReset_v2(int device)
{
    int e = api_enter("cuDevicePrimaryCtxReset", NEED_INIT);
    if (e)
        return e;
    if (primary) {
        primary->sticky =
            primary->sticky ? primary->sticky : UNKNOWN; /* nothing leaks: it is meant */
        destroy(primary);
    }
    return api_leave(device ? INVALID_DEVICE : OK);
}

EXPORT int cuCtxSetCurrent(void *context);
EXPORT int cuCtxSetCurrent(void *context)
{
    int e = api_enter("cuCtxSetCurrent", NEED_INIT);
    if (e)
        return e;
    if (context && !context_checked(context))
        return api_leave(
            api_misuse(INVALID_CONTEXT, "cuCtxSetCurrent of a context that is not there"));
    current = context;
    return api_leave(OK);
}

EXPORT int cuCtxGetCurrent(void **context);
EXPORT int cuCtxGetCurrent(void **context)
{
    int e = api_enter("cuCtxGetCurrent", NEED_INIT);
    if (e)
        return e;
    *context = context_checked(current);
    return api_leave(OK);
}

EXPORT int cuCtxGetDevice(int *device);
EXPORT int cuCtxGetDevice(int *device)
{
    int e = api_enter("cuCtxGetDevice", NEED_CONTEXT);
    if (e)
        return e;
    *device = 0;
    return api_leave(OK);
}

EXPORT int cuCtxSynchronize(void);
EXPORT int cuCtxSynchronize(void)
{
    int e = api_enter("cuCtxSynchronize", NEED_CONTEXT);
    return e ? e : api_leave(stream_drain_all(current));
}
