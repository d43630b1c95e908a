/* SPDX-License-Identifier: MIT */
/* What runs did and when, for the context's trace hook: steps as the host walks them, work items as
 * threads take them, and steps as a device's own clock saw them, between marks in its stream. */
#include "backends/backend.h"
#include "os.h"

/* Marks of the run under way: one before its first step, one after each step of the device. */
struct at_trace {
    int64_t origin; /* of the first mark, on the host's clock: the stream was idle */
    int n, room;
    struct {
        void *mark;
        const struct at_step *step; /* that ended there; NULL: the first */
    } at[];
};

static const struct at_memory *memory_of(const struct attend_exec *x)
{
    return x->transfer->device->memory;
}

int at_trace_new(struct attend_exec *x)
{
    int most = 0;
    for (int v = 0; v < x->plan->nvariant; v++)
        most = at_max(most, x->plan->variant[v].nstep);
    if (!x->ctx->trace || !x->transfer || !memory_of(x)->mark)
        return 0;
    struct at_trace *t = x->trace =
        at_calloc(x->ctx, 1, (int64_t)sizeof *t + (most + 1) * (int64_t)sizeof t->at[0]);
    if (!t)
        return ATTEND_ENOMEM;
    t->room = most + 1;
    return 0;
}

static void forget(struct attend_exec *x)
{
    struct at_trace *t = x->trace;
    for (int i = 0; i < t->n; i++)
        memory_of(x)->unmark(x->transfer->device, t->at[i].mark);
    t->n = 0;
}

void at_trace_free(struct attend_exec *x)
{
    if (x->trace)
        forget(x);
    at_free(x->ctx, x->trace);
    x->trace = NULL;
}

/* A mark that cannot be made is left out: the next one's span begins earlier. */
static void mark(struct attend_exec *x, const struct at_step *s)
{
    struct at_trace *t = x->trace;
    void *made =
        t->n < t->room ? memory_of(x)->mark(x->transfer->device, x->transfer->stream) : NULL;
    if (made) {
        t->at[t->n].mark = made;
        t->at[t->n++].step = s;
    }
}

static void tell(const struct attend_exec *x, const struct at_step *s, attend_span span)
{
    span.size = sizeof span;
    span.exec = x;
    span.step = (int)(s - x->variant->step);
    span.op = at_ops[s->op].name;
    span.label = x->plan->graph->node[s->node].label;
    span.device = s->device->name;
    span.row = s->row->name;
    x->ctx->trace(x->ctx->trace_arg, &span);
}

void at_trace_begin(struct attend_exec *x)
{
    if (!x->trace)
        return;
    forget(x);
    x->trace->origin = at_os_now();
    mark(x, NULL);
}

int64_t at_trace_open(struct attend_exec *x, const struct at_step *s)
{
    x->running = s;
    return x->ctx->trace ? at_os_now() : 0;
}

void at_trace_close(struct attend_exec *x, const struct at_step *s, int64_t begin)
{
    if (!x->ctx->trace)
        return;
    if (x->trace && s->device->memory)
        mark(x, s);
    tell(x, s,
         (attend_span){.kind = ATTEND_SPAN_STEP, .item = -1, .begin = begin, .end = at_os_now()});
}

void at_trace_item(void *arg, int64_t item, int slot)
{
    const struct at_traced *t = arg;
    int64_t begin = at_os_now();
    t->fn(t->arg, item, slot);
    tell(t->x, t->x->running,
         (attend_span){.kind = ATTEND_SPAN_ITEM,
                       .item = item,
                       .thread = slot,
                       .begin = begin,
                       .end = at_os_now()});
}

void at_trace_end(struct attend_exec *x)
{
    struct at_trace *t = x->trace;
    if (!t)
        return;
    for (int i = 1; i < t->n && x->variant; i++) {
        const struct at_device *d = x->transfer->device;
        int64_t from = memory_of(x)->elapsed(d, t->at[0].mark, t->at[i - 1].mark);
        int64_t to = memory_of(x)->elapsed(d, t->at[0].mark, t->at[i].mark);
        if (from >= 0 && to >= from)
            tell(x, t->at[i].step,
                 (attend_span){.kind = ATTEND_SPAN_DEVICE,
                               .item = -1,
                               .begin = t->origin + from,
                               .end = t->origin + to});
    }
    forget(x);
}
