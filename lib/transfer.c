/* SPDX-License-Identifier: MIT */
/* Where the bytes of a run are: on the host, on a device that has memory of its own, or on both.
 * Rows know nothing of this: a step finds its inputs where it works.  A step that nothing on the
 * device can run works on the host, and only then something waits.
 *
 * Constants go to the device when a plan is made, inputs when a run first needs them, and what a
 * run wrote comes back at its end.  States stay on the device from run to run: what the caller
 * wrote in one meanwhile counts from the next bind that names it. */
#include <string.h>

#include "backends/backend.h"
#include "os.h"

/* ---- constants ---- */

struct at_constant {
    struct at_constant *next;
    const struct at_device *device;
    const void *data;
    int64_t bytes;
    void *mem;
    int holders;
};

static int make_constant(attend_ctx *ctx, const struct at_device *d, const void *data,
                         int64_t bytes, struct at_constant **out, struct at_err *e)
{
    const struct at_memory *m = d->memory;
    struct at_constant *c = at_calloc(ctx, 1, sizeof *c);
    void *host, *stream = NULL;
    memcpy(&host, &data, sizeof host); /* kernels only read it */
    if (!c)
        return at_fail(e, ATTEND_ENOMEM, "no memory for a plan");
    *c = (struct at_constant){.device = d, .data = data, .bytes = bytes};
    int status = m->wrap(d, host, bytes, &c->mem, e);
    if (status > 0) {
        status = m->alloc(d, bytes, &c->mem, e);
        if (status == 0)
            status = m->stream_new(d, &stream, e);
        if (status == 0)
            status = m->upload(d, stream, c->mem, 0, data, bytes, e);
        if (status == 0)
            status = m->finish(d, stream, e);
        m->stream_free(d, stream);
    }
    if (status < 0) {
        m->free(d, c->mem);
        at_free(ctx, c);
        return status;
    }
    *out = c;
    return 0;
}

static int hold(attend_plan *plan, int t, struct at_err *e)
{
    attend_ctx *ctx = plan->ctx;
    const struct at_tensor *x = &plan->graph->tensor[t];
    int64_t bytes = at_graph_largest(plan->graph, x->type, x->rank, x->shape);
    struct at_constant *c;
    for (c = ctx->constant; c; c = c->next)
        if (c->device == plan->device && c->data == x->data && c->bytes == bytes)
            break;
    if (!c) {
        int status = make_constant(ctx, plan->device, x->data, bytes, &c, e);
        if (status < 0)
            return status;
        c->next = ctx->constant;
        ctx->constant = c;
    }
    c->holders++;
    plan->constant[t] = c;
    return 0;
}

/* Is constant t used by a step of the device, in any variant? */
static bool wanted(const attend_plan *plan, int t)
{
    bool any = false;
    const struct at_tensor *x = &plan->graph->tensor[t];
    for (int i = 0; i < plan->nvariant && x->class == AT_CONST && x->root == t; i++)
        any = any || (plan->variant[i].used[t] & AT_ON_DEVICE);
    return any;
}

int at_constants_hold(attend_plan *plan, struct at_err *e)
{
    int n = plan->graph->ntensor, status = 0;
    plan->constant = at_calloc(plan->ctx, n, sizeof *plan->constant);
    if (!plan->constant)
        return at_fail(e, ATTEND_ENOMEM, "no memory for a plan of %d tensors", n);
    at_os_mutex_lock(plan->ctx->lock);
    for (int t = 0; t < n && status == 0; t++)
        if (wanted(plan, t))
            status = hold(plan, t, e);
    at_os_mutex_unlock(plan->ctx->lock);
    return status;
}

void at_constants_drop(attend_plan *plan)
{
    attend_ctx *ctx = plan->ctx;
    at_os_mutex_lock(ctx->lock);
    for (int t = 0; plan->constant && t < plan->graph->ntensor; t++)
        if (plan->constant[t])
            plan->constant[t]->holders--;
    for (struct at_constant **p = &ctx->constant, *c; (c = *p);) {
        if (c->holders > 0) {
            p = &c->next;
            continue;
        }
        *p = c->next;
        c->device->memory->free(c->device, c->mem);
        at_free(ctx, c);
    }
    at_os_mutex_unlock(ctx->lock);
    at_free(ctx, plan->constant);
}

/* ---- an exec's memory ---- */

int at_transfer_new(struct attend_exec *x)
{
    const struct at_device *d = x->plan->device;
    struct at_transfer *t = x->transfer = at_calloc(x->ctx, 1, sizeof *t);
    if (!t)
        return ATTEND_ENOMEM;
    t->device = d;
    t->home = at_calloc(x->ctx, x->plan->graph->ntensor, sizeof *t->home);
    t->mirror = at_calloc(x->ctx, x->plan->graph->ntensor, sizeof *t->mirror);
    if (!t->home || !t->mirror)
        return ATTEND_ENOMEM;
    int status = d->memory->stream_new(d, &t->stream, &x->err);
    if (status == 0)
        status = d->memory->alloc(d, sizeof t->status, &t->status_mem, &x->err);
    if (status == 0)
        status =
            d->memory->upload(d, t->stream, t->status_mem, 0, t->status, sizeof t->status, &x->err);
    t->flying = true;
    return status;
}

static void leave_home(struct at_transfer *t, struct at_home *h)
{
    if (h->owned)
        t->device->memory->free(t->device, h->mem);
    *h = (struct at_home){0};
}

void at_transfer_free(struct attend_exec *x)
{
    struct at_transfer *t = x->transfer;
    if (!t)
        return;
    const struct at_memory *m = t->device->memory;
    at_transfer_wait(x);
    for (int i = 0; t->home && i < x->plan->graph->ntensor; i++)
        leave_home(t, &t->home[i]);
    for (int i = 0; t->mirror && i < x->plan->graph->ntensor; i++)
        at_free(x->ctx, t->mirror[i].data);
    m->free(t->device, t->arena);
    m->free(t->device, t->work);
    m->free(t->device, t->status_mem);
    m->stream_free(t->device, t->stream);
    at_free(x->ctx, t->home);
    at_free(x->ctx, t->mirror);
    at_free(x->ctx, t);
    x->transfer = NULL;
}

int at_transfer_mirror(struct attend_exec *x, int tensor, int64_t bytes, void **data)
{
    struct at_mirror *m = &x->transfer->mirror[tensor];
    if (!m->data || m->bytes < bytes) {
        at_free(x->ctx, m->data);
        m->data = at_alloc(x->ctx, at_max(bytes, AT_ALIGN));
        m->bytes = m->data ? bytes : 0;
    }
    *data = m->data;
    return m->data ? 0
                   : at_fail(&x->err, ATTEND_ENOMEM,
                             "no memory for %lld bytes that mirror a device's", (long long)bytes);
}

static int grow(struct attend_exec *x, void **mem, int64_t *have, int64_t need)
{
    const struct at_device *d = x->transfer->device;
    if (*have >= need)
        return 0;
    d->memory->free(d, *mem);
    *mem = NULL;
    *have = 0;
    x->scheduled = NULL;
    int status = d->memory->alloc(d, need, mem, &x->err);
    *have = status < 0 ? 0 : need;
    return status;
}

int at_transfer_reserve(struct attend_exec *x)
{
    struct at_transfer *t = x->transfer;
    const struct at_variant *v = x->variant;
    int status = grow(x, &t->arena, &t->arena_bytes, v->arena);
    if (status == 0)
        status = grow(x, &t->work, &t->work_bytes, v->shared_work + v->work);
    x->scheduled = v;
    return status;
}

/* ---- homes ---- */

/* Are there bytes between the elements of a view? */
static bool has_gaps(const struct at_view *v)
{
    int64_t bytes = v->rank ? attend_type_row_bytes(v->type, v->shape[v->rank - 1])
                            : (int64_t)attend_type_size(v->type);
    for (int d = 0; d < v->rank - 1; d++)
        bytes *= v->shape[d];
    return bytes != at_view_span(v);
}

/* Memory on the device for what the caller bound: the caller's own where the device works there. */
static int move_in(struct attend_exec *x, struct at_home *h, const struct at_view *v, int64_t bytes)
{
    struct at_transfer *t = x->transfer;
    const struct at_memory *m = t->device->memory;
    int status = bytes > 0 ? m->wrap(t->device, v->data, bytes, &h->mem, &x->err) : 1;
    h->owned = true;
    h->bytes = bytes;
    h->shared = status == 0;
    h->wrapped = h->shared ? v->data : NULL;
    if (status > 0) /* kernels want some memory even where they use none */
        status = m->alloc(t->device, at_max(bytes, AT_ALIGN), &h->mem, &x->err);
    if (status < 0)
        *h = (struct at_home){0};
    return status;
}

static int bind_home(struct attend_exec *x, int id)
{
    struct at_home *h = &x->transfer->home[id];
    const struct at_tensor *tensor = &x->plan->graph->tensor[id];
    const struct at_view *v = &x->view[id];
    if (tensor->class == AT_CONST) {
        const struct at_constant *c = x->plan->constant[id];
        *h = (struct at_home){
            .mem = c ? c->mem : NULL, .base = v->data, .on_host = true, .on_device = true};
        return 0;
    }
    if (tensor->class == AT_TEMP && !tensor->output) {
        *h = (struct at_home){
            .mem = x->transfer->arena, .base = v->data, .offset = x->variant->offset[id]};
        return 0;
    }
    const struct at_bound *b = &x->bound[id];
    if (b->mem || h->lent)
        leave_home(x->transfer, h);
    if (b->mem) {
        *h = (struct at_home){
            .mem = b->mem, .base = v->data, .offset = b->at, .lent = true, .gaps = has_gaps(v)};
        return 0;
    }
    int64_t bytes = at_view_span(v);
    bool same = h->mem && h->bytes >= bytes && h->wrapped == (h->shared ? v->data : NULL);
    if (!same)
        leave_home(x->transfer, h);
    int status = same || !(x->variant->used[id] & AT_ON_DEVICE) ? 0 : move_in(x, h, v, bytes);
    h->base = v->data;
    h->gaps = has_gaps(v);
    return status;
}

void at_transfer_renew(struct attend_exec *x, int tensor)
{
    if (tensor >= 0)
        x->transfer->home[x->plan->graph->tensor[tensor].root].on_device = false;
}

void *at_transfer_find(const struct attend_exec *x, int t, int64_t *offset)
{
    const struct at_home *h = &x->transfer->home[x->plan->graph->tensor[t].root];
    *offset = h->offset + ((const char *)x->view[t].data - h->base);
    return h->mem;
}

/* ---- a run ---- */

void at_transfer_begin(struct attend_exec *x)
{
    const attend_graph *g = x->plan->graph;
    for (int t = 0; t < g->ntensor; t++) {
        struct at_home *h = &x->transfer->home[t];
        bool bound = g->tensor[t].class != AT_TEMP || g->tensor[t].output;
        bool kept = g->tensor[t].class == AT_STATE && h->on_device; /* or a constant: both are */
        if (g->tensor[t].root != t || g->tensor[t].class == AT_CONST)
            continue;
        h->on_host = bound && !h->lent;
        h->on_device = h->shared || h->lent || kept;
    }
}

/* Both copies of a root are the same after this, the one of `device` being there to be used. */
static int bring(struct attend_exec *x, int root, bool device)
{
    struct at_transfer *t = x->transfer;
    const struct at_memory *m = t->device->memory;
    struct at_home *h = &t->home[root];
    int64_t bytes = at_view_span(&x->view[root]);
    int status = 0;
    if (device ? h->on_device : h->on_host)
        return 0;
    if (bytes > 0 && device)
        status = m->upload(t->device, t->stream, h->mem, h->offset, h->base, bytes, &x->err);
    else if (bytes > 0)
        status = m->download(t->device, t->stream, h->base, h->mem, h->offset, bytes, &x->err);
    t->flying = true;
    h->on_host = h->on_device = true;
    return status;
}

static int finish(struct attend_exec *x)
{
    struct at_transfer *t = x->transfer;
    if (!t->flying)
        return 0;
    t->flying = false;
    return t->device->memory->finish(t->device, t->stream, &x->err);
}

/* Does binding look at what tensor t holds?  Lengths, tables and masks are of such types; what
 * expressions index may have any. */
static bool looked_at(const struct attend_exec *x, int t)
{
    attend_type type = x->plan->graph->tensor[t].type;
    bool any = attend_type_block(type) == 1 && type != ATTEND_F32 && type != ATTEND_F16 &&
               type != ATTEND_BF16 && type != ATTEND_F8;
    for (int i = 0; i < x->variant->nstep && !any; i++) {
        const struct at_step *s = &x->variant->step[i];
        for (int k = AT_IN_CAPTURE; k < s->nin && s->op == AT_ATTENTION; k++)
            any = any || (s->in[k] >= 0 && x->plan->graph->tensor[s->in[k]].root == t);
    }
    return any;
}

int at_transfer_bind(struct attend_exec *x)
{
    const attend_graph *g = x->plan->graph;
    int status = 0;
    for (int t = 0; t < g->ntensor && status == 0; t++) {
        struct at_home *h = &x->transfer->home[t];
        if (g->tensor[t].root != t || (g->tensor[t].node >= 0 && g->node[g->tensor[t].node].dead))
            continue;
        status = bind_home(x, t);
        h->on_host = h->on_host && !h->lent;
        if (status == 0 && h->lent && looked_at(x, t))
            status = bring(x, t, false);
    }
    return status == 0 ? finish(x) : status;
}

/* Writes that leave bytes as they were need those bytes; so does a copy back of all of them. */
static bool needs_old(const struct attend_exec *x, int root)
{
    const struct at_tensor *t = &x->plan->graph->tensor[root];
    return t->output && x->transfer->home[root].gaps;
}

int at_transfer_before(struct attend_exec *x, const struct at_step *s)
{
    const struct at_tensor *tensor = x->plan->graph->tensor;
    bool device = s->device->memory != NULL;
    int status = 0;
    for (int k = 0; k < s->nin && status == 0; k++)
        if (s->in[k] >= 0)
            status = bring(x, tensor[s->in[k]].root, device);
    for (int k = 0; k < s->nout && status == 0; k++)
        if (s->out[k] >= 0 && needs_old(x, tensor[s->out[k]].root))
            status = bring(x, tensor[s->out[k]].root, device);
    if (device) {
        x->transfer->flying = true;
        return status;
    }
    return status == 0 ? finish(x) : status;
}

void at_transfer_after(struct attend_exec *x, const struct at_step *s)
{
    bool device = s->device->memory != NULL;
    for (int k = 0; k < s->nout; k++) {
        if (s->out[k] < 0)
            continue;
        struct at_home *h = &x->transfer->home[x->plan->graph->tensor[s->out[k]].root];
        h->on_device = device || h->shared;
        h->on_host = !device || h->shared;
    }
}

int at_transfer_end(struct attend_exec *x)
{
    struct at_transfer *t = x->transfer;
    const attend_graph *g = x->plan->graph;
    int status = 0;
    for (int i = 0; i < g->ntensor && status == 0; i++)
        if (g->tensor[i].root == i && (g->tensor[i].output || g->tensor[i].class == AT_STATE) &&
            t->home[i].mem)
            status = bring(x, i, t->home[i].lent);
    if (status == 0 && t->flying)
        status = t->device->memory->download(t->device, t->stream, t->status, t->status_mem, 0,
                                             sizeof t->status, &x->err);
    return status;
}

/* The kernels' status words (kernel_args.h): taken, step, then three of 64 bits. */
static int judge(struct attend_exec *x)
{
    struct at_transfer *t = x->transfer;
    int64_t word[3];
    int32_t step = t->status[1];
    if (!t->status[0] || !x->variant)
        return 0;
    memcpy(word, t->status + 2, sizeof word);
    if (step >= 0 && step < x->variant->nstep)
        at_exec_bad_index(x, &x->variant->step[step], word[0], word[1], word[2]);
    memset(t->status, 0, sizeof t->status);
    t->flying = true;
    int status = t->device->memory->upload(t->device, t->stream, t->status_mem, 0, t->status,
                                           sizeof t->status, &x->err);
    if (status == 0)
        status = finish(x);
    return x->err.status ? x->err.status : status;
}

int at_transfer_wait(struct attend_exec *x)
{
    int status = finish(x);
    if (status == 0)
        at_trace_end(x);
    return status < 0 ? status : judge(x);
}
