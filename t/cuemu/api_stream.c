/* SPDX-License-Identifier: MIT */
/* Streams and events.  Work is queued and runs only when somebody waits for it, as late as possible
 * and no more of it than is waited for: who reads results too early, reuses a host buffer too early
 * or forgets an event between streams sees wrong numbers here, always. */
#include "api.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint64_t serials;
static uint64_t dice;

struct stream *stream_checked(void *handle)
{
    for (struct stream *s = current->streams; s; s = s->next) {
        if (handle ? s == handle : s->legacy)
            return s;
    }
    return NULL;
}

int stream_add(struct stream *s, struct work w)
{
    struct work *copy = malloc(sizeof *copy);
    if (!copy)
        return OUT_OF_MEMORY;
    w.serial = ++serials;
    w.next = NULL;
    *copy = w;
    if (s->last)
        s->last->next = copy;
    else
        s->first = copy;
    s->last = copy;
    if (w.kind == WORK_RECORD)
        w.event->recorded = w.serial;
    return OK;
}

/* ---- running ---- */

/* The legacy stream waits for all that blocking streams were given before, and they for it. */
static bool ready(const struct stream *s)
{
    const struct work *w = s->first;
    if (!w || (w->kind == WORK_WAIT && w->event_serial && w->event->done < w->event_serial))
        return false;
    for (const struct stream *o = s->context->streams; o; o = o->next) {
        bool ordered = s->legacy ? o->blocking : o->legacy && s->blocking;
        if (o != s && ordered && o->first && o->first->serial < w->serial)
            return false;
    }
    return true;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static int copy_device(const struct work *w)
{
    struct alloc *to = w->kind == WORK_COPY_OUT ? NULL : mem_range(w->to, w->size);
    struct alloc *from =
        w->kind == WORK_COPY_IN || w->kind == WORK_SET ? NULL : mem_range(w->from, w->size);
    bool needs_to = w->kind != WORK_COPY_OUT,
         needs_from = w->kind == WORK_COPY || w->kind == WORK_COPY_OUT;
    if (!w->size)
        return OK;
    if ((needs_to && !to) || (needs_from && !from))
        return api_misuse(ILLEGAL_ADDRESS,
                          "a queued copy to or from memory that was freed meanwhile");
    uint64_t t = to ? w->to - to->base : 0, f = from ? w->from - from->base : 0;
    switch (w->kind) {
    case WORK_COPY_IN:
        memcpy(to->data + t, w->host_from, w->size);
        memset(to->state + t, 1, w->size);
        break;
    case WORK_COPY_OUT:
        memcpy(w->host, from->data + f, w->size);
        break;
    case WORK_COPY:
        if (to == from && (t < f ? f - t : t - f) < w->size)
            return api_misuse(INVALID_VALUE, "a copy between ranges that overlap");
        memcpy(to->data + t, from->data + f, w->size);
        memcpy(to->state + t, from->state + f, w->size);
        break;
    default:
        for (uint64_t i = 0; i < w->size; i += (uint64_t)w->value_size)
            memcpy(to->data + t + i, &w->value, (size_t)w->value_size);
        memset(to->state + t, 1, w->size);
    }
    return OK;
}

static int run_first(struct stream *s)
{
    struct work *w = s->first;
    int status = OK;
    s->first = w->next;
    if (!s->first)
        s->last = NULL;
    if (s->context->sticky && w->kind == WORK_LAUNCH)
        launch_drop(w->launch);
    else if (w->kind == WORK_LAUNCH)
        status = launch_execute(w->launch);
    else if (w->kind == WORK_RECORD) {
        w->event->done = w->serial;
        w->event->time = now();
    } else if (w->kind != WORK_WAIT && !s->context->sticky)
        status = copy_device(w);
    free(w);
    if (status)
        s->context->sticky = status;
    return s->context->sticky;
}

static struct stream *pick(struct stream *wanted)
{
    struct stream *any = NULL;
    int n = 0;
    if (!config.seed && wanted && ready(wanted))
        return wanted;
    for (struct stream *s = current->streams; s; s = s->next) {
        if (!ready(s))
            continue;
        dice = dice * 6364136223846793005ull + config.seed;
        if ((dice >> 33) % (uint64_t)++n == 0)
            any = s;
    }
    return any;
}

/* Runs what there is until wanted has nothing left before serial `until`. */
static int run_until(struct stream *wanted, uint64_t until)
{
    while (wanted->first && wanted->first->serial <= until) {
        struct stream *s = pick(wanted);
        if (!s)
            return current->sticky =
                       api_misuse(LAUNCH_TIMEOUT, "streams wait for each other for ever");
        run_first(s);
    }
    return current->sticky;
}

int stream_drain(struct stream *s)
{
    return run_until(s, UINT64_MAX);
}

int stream_drain_all(struct context *c)
{
    struct context *was = current;
    current = c;
    int status = c->sticky;
    for (struct stream *s = c->streams; s; s = s->next)
        status = run_until(s, UINT64_MAX);
    current = was;
    return status;
}

/* Does queued work name memory of [base, base + size)?  Launches: any aligned word of the
 * parameters that is such an address. */
bool stream_uses(struct context *c, uint64_t base, uint64_t size)
{
    for (const struct stream *s = c->streams; s; s = s->next) {
        for (const struct work *w = s->first; w; w = w->next) {
            if ((w->to && w->to - base < size) || (w->from && w->from - base < size))
                return true;
            if (w->kind != WORK_LAUNCH)
                continue;
            for (uint32_t i = 0; i + 8 <= w->launch->fn->param_size; i += 8) {
                uint64_t p;
                memcpy(&p, w->launch->params + i, sizeof p);
                if (p - base < size)
                    return true;
            }
        }
    }
    return false;
}

void stream_free(struct stream *s)
{
    for (struct work *w = s->first, *next; w; w = next) {
        next = w->next;
        if (w->kind == WORK_LAUNCH)
            launch_drop(w->launch);
        free(w);
    }
    struct stream **at = &s->context->streams;
    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    free(s);
}

/* ---- entry points: streams ---- */

EXPORT int cuStreamCreate(void **stream, unsigned flags);
EXPORT int cuStreamCreate(void **stream, unsigned flags)
{
    int e = api_enter("cuStreamCreate", NEED_CONTEXT);
    if (e)
        return e;
    struct stream *s = calloc(1, sizeof *s);
    if (!s || flags > 1) {
        free(s);
        return api_leave(flags > 1 ? INVALID_VALUE : OUT_OF_MEMORY);
    }
    *s = (struct stream){.context = current, .blocking = flags == 0, .next = current->streams};
    current->streams = s;
    *stream = s;
    return api_leave(OK);
}

EXPORT int cuStreamDestroy_v2(void *stream);
EXPORT int cuStreamDestroy_v2(void *stream)
{
    int e = api_enter("cuStreamDestroy", NEED_CONTEXT);
    if (e)
        return e;
    struct stream *s = stream ? stream_checked(stream) : NULL;
    if (!s)
        return api_leave(api_misuse(INVALID_HANDLE, "cuStreamDestroy of what is no stream"));
    e = stream_drain(s);
    stream_free(s);
    return api_leave(e);
}

EXPORT int cuStreamSynchronize(void *stream);
EXPORT int cuStreamSynchronize(void *stream)
{
    int e = api_enter("cuStreamSynchronize", NEED_CONTEXT);
    if (e)
        return e;
    struct stream *s = stream_checked(stream);
    return api_leave(s ? stream_drain(s)
                       : api_misuse(INVALID_HANDLE, "cuStreamSynchronize of what is no stream"));
}

EXPORT int cuStreamGetCtx(void *stream, void **context);
EXPORT int cuStreamGetCtx(void *stream, void **context)
{
    int e = api_enter("cuStreamGetCtx", NEED_CONTEXT);
    if (e)
        return e;
    struct stream *s = stream_checked(stream);
    if (!s)
        return api_leave(api_misuse(INVALID_HANDLE, "cuStreamGetCtx of what is no stream"));
    *context = s->context;
    return api_leave(OK);
}

EXPORT int cuStreamQuery(void *stream);
EXPORT int cuStreamQuery(void *stream)
{
    int e = api_enter("cuStreamQuery", NEED_CONTEXT);
    if (e)
        return e;
    struct stream *s = stream_checked(stream);
    if (!s)
        return api_leave(api_misuse(INVALID_HANDLE, "cuStreamQuery of what is no stream"));
    if (!s->first)
        return api_leave(OK);
    e = run_until(s, s->first->serial); /* who polls sees progress, but not at once */
    return api_leave(e ? e : NOT_READY);
}

/* ---- entry points: events ---- */

static struct event *event_checked(void *handle)
{
    for (struct event *v = current->events; v; v = v->next) {
        if (v == handle)
            return v;
    }
    return NULL;
}

EXPORT int cuEventCreate(void **event, unsigned flags);
EXPORT int cuEventCreate(void **event, unsigned flags)
{
    int e = api_enter("cuEventCreate", NEED_CONTEXT);
    if (e)
        return e;
    struct event *v = calloc(1, sizeof *v);
    if (!v)
        return api_leave(OUT_OF_MEMORY);
    *v = (struct event){.context = current, .timing = !(flags & 2), .next = current->events};
    current->events = v;
    *event = v;
    return api_leave(OK);
}

static struct stream *stream_of_record(const struct event *v)
{
    for (struct stream *s = current->streams; s; s = s->next) {
        for (const struct work *w = s->first; w; w = w->next) {
            if (w->kind == WORK_RECORD && w->event == v && w->serial == v->recorded)
                return s;
        }
    }
    return NULL;
}

/* Work that names the event is done first. */
static void forget_event(struct event *v)
{
    for (struct stream *s = current->streams; s; s = s->next) {
        for (struct work *w = s->first; w; w = w->next) {
            if (w->event == v) {
                stream_drain(s);
                break;
            }
        }
    }
}

EXPORT int cuEventDestroy_v2(void *event);
EXPORT int cuEventDestroy_v2(void *event)
{
    int e = api_enter("cuEventDestroy", NEED_CONTEXT);
    if (e)
        return e;
    struct event *v = event_checked(event);
    if (!v)
        return api_leave(api_misuse(INVALID_HANDLE, "cuEventDestroy of what is no event"));
    forget_event(v);
    struct event **at = &current->events;
    while (*at != v)
        at = &(*at)->next;
    *at = v->next;
    free(v);
    return api_leave(OK);
}

EXPORT int cuEventRecord(void *event, void *stream);
EXPORT int cuEventRecord(void *event, void *stream)
{
    int e = api_enter("cuEventRecord", NEED_CONTEXT);
    if (e)
        return e;
    struct event *v = event_checked(event);
    struct stream *s = stream_checked(stream);
    if (!v || !s)
        return api_leave(
            api_misuse(INVALID_HANDLE, "cuEventRecord of what is no event or no stream"));
    return api_leave(stream_add(s, (struct work){.kind = WORK_RECORD, .event = v}));
}

EXPORT int cuStreamWaitEvent(void *stream, void *event, unsigned flags);
EXPORT int cuStreamWaitEvent(void *stream, void *event, unsigned flags)
{
    int e = api_enter("cuStreamWaitEvent", NEED_CONTEXT);
    if (e)
        return e;
    (void)flags;
    struct event *v = event_checked(event);
    struct stream *s = stream_checked(stream);
    if (!v || !s)
        return api_leave(
            api_misuse(INVALID_HANDLE, "cuStreamWaitEvent of what is no event or no stream"));
    return api_leave(
        stream_add(s, (struct work){.kind = WORK_WAIT, .event = v, .event_serial = v->recorded}));
}

EXPORT int cuEventQuery(void *event);
EXPORT int cuEventQuery(void *event)
{
    int e = api_enter("cuEventQuery", NEED_CONTEXT);
    if (e)
        return e;
    struct event *v = event_checked(event);
    if (!v)
        return api_leave(api_misuse(INVALID_HANDLE, "cuEventQuery of what is no event"));
    struct stream *s = stream_of_record(v);
    if (!s || v->done >= v->recorded)
        return api_leave(OK);
    e = run_until(s, s->first->serial);
    return api_leave(e ? e : NOT_READY);
}

EXPORT int cuEventSynchronize(void *event);
EXPORT int cuEventSynchronize(void *event)
{
    int e = api_enter("cuEventSynchronize", NEED_CONTEXT);
    if (e)
        return e;
    struct event *v = event_checked(event);
    if (!v)
        return api_leave(api_misuse(INVALID_HANDLE, "cuEventSynchronize of what is no event"));
    struct stream *s = stream_of_record(v);
    return api_leave(s ? run_until(s, v->recorded) : OK);
}

EXPORT int cuEventElapsedTime(float *ms, void *start, void *end);
EXPORT int cuEventElapsedTime(float *ms, void *start, void *end)
{
    int e = api_enter("cuEventElapsedTime", NEED_CONTEXT);
    if (e)
        return e;
    struct event *a = event_checked(start), *b = event_checked(end);
    if (!a || !b || !a->recorded || !b->recorded || !a->timing || !b->timing)
        return api_leave(api_misuse(
            INVALID_HANDLE, "cuEventElapsedTime of events that were not recorded with timing"));
    if (a->done < a->recorded || b->done < b->recorded)
        return api_leave(NOT_READY);
    *ms = (float)(b->time - a->time);
    return api_leave(OK);
}
