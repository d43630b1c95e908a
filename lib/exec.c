/* SPDX-License-Identifier: MIT */
/* An exec: bind resolves, checks and schedules; run only walks the steps. */
#include <stdatomic.h>
#include <string.h>

#include "backends/backend.h"

/* ---- making ---- */

/* The list of what may be bound: dimensions, inputs, states and outputs. */
static int list_names(attend_exec *x)
{
    const attend_graph *g = x->plan->graph;
    x->name = at_calloc(x->ctx, g->dims.nsym + g->ntensor, sizeof *x->name);
    if (!x->name)
        return ATTEND_ENOMEM;
    for (int i = 0; i < g->dims.nsym; i++)
        x->name[x->nname++] = (struct at_name){g->dims.sym[i].name, -1, i};
    for (int t = 0; t < g->ntensor; t++)
        if (g->tensor[t].name && g->tensor[t].class != AT_CONST)
            x->name[x->nname++] = (struct at_name){g->tensor[t].name, t, -1};
    x->old = at_calloc(x->ctx, x->nname, sizeof *x->old);
    return x->old ? 0 : ATTEND_ENOMEM;
}

int attend_exec_new(attend_plan *plan, attend_exec **out)
{
    const attend_graph *g = plan->graph;
    attend_ctx *ctx = plan->ctx;
    *out = NULL;
    attend_exec *x = at_calloc(ctx, 1, sizeof *x);
    if (!x)
        return ATTEND_ENOMEM;
    x->plan = plan;
    x->ctx = ctx;
    x->sym = at_calloc(ctx, g->dims.nsym + 1, sizeof *x->sym);
    x->old_sym = at_calloc(ctx, g->dims.nsym + 1, sizeof *x->sym);
    x->view = at_calloc(ctx, g->ntensor, sizeof *x->view);
    x->bound = at_calloc(ctx, g->ntensor, sizeof *x->bound);
    x->blocks_of = at_calloc(ctx, g->nnode, sizeof *x->blocks_of);
    x->contents = at_calloc(ctx, g->ntensor, sizeof *x->contents);
    if (!x->sym || !x->old_sym || !x->view || !x->bound || !x->blocks_of || !x->contents ||
        list_names(x) < 0) {
        attend_exec_free(x);
        return ATTEND_ENOMEM;
    }
    for (int i = 0; i < g->dims.nsym; i++)
        x->sym[i] = g->dims.sym[i].min == g->dims.sym[i].max ? g->dims.sym[i].min : -1;
    int status = plan->device->memory ? at_transfer_new(x) : 0;
    if (status == 0)
        status = at_trace_new(x);
    if (status < 0) {
        attend_exec_free(x);
        return status;
    }
    *out = x;
    return 0;
}

void attend_exec_free(attend_exec *x)
{
    if (!x)
        return;
    attend_ctx *ctx = x->ctx;
    at_trace_free(x);
    at_transfer_free(x);
    at_free(ctx, x->sym);
    at_free(ctx, x->view);
    at_free(ctx, x->bound);
    at_free(ctx, x->old);
    at_free(ctx, x->old_sym);
    at_free(ctx, x->name);
    at_blocks_free(x);
    at_free(ctx, x->blocks_of);
    at_free(ctx, x->contents);
    at_free(ctx, x->arena);
    at_free(ctx, x->scratch);
    at_free(ctx, x->state);
    at_free(ctx, x);
}

const char *attend_exec_error(const attend_exec *x)
{
    return x ? x->err.text : "no exec";
}

void attend_exec_cancel(attend_exec *x, const volatile int *flag)
{
    x->cancel = flag;
}

/* ---- binding: names ---- */

/* Memory of the device.  Views count from memory of the host that mirrors it. */
static int take_device(attend_exec *x, const struct at_name *n, const attend_binding *b)
{
    const struct at_memory *m = x->transfer ? x->transfer->device->memory : NULL;
    const struct at_tensor *t = &x->plan->graph->tensor[n->tensor];
    struct at_bound *to = &x->bound[n->tensor];
    if (!m || !m->borrow)
        return at_fail(&x->err, ATTEND_EUNSUPPORTED,
                       "'%s' is bound to memory of a device, which %s does not take", n->name,
                       x->plan->device->name);
    if (b->value < 0 || b->value % (int64_t)attend_type_size(t->type))
        return at_fail(&x->err, ATTEND_EINVAL,
                       "'%s' is bound from byte %lld on, which is no multiple of %d", n->name,
                       (long long)b->value, (int)attend_type_size(t->type));
    int status = m->borrow(x->transfer->device, b->data, b->value, b->bytes, &x->err);
    if (status < 0)
        return status;
    to->mem = b->data;
    to->at = b->value;
    return at_transfer_mirror(x, n->tensor, b->bytes, &to->data);
}

static int take(attend_exec *x, const attend_binding *b)
{
    const attend_graph *g = x->plan->graph;
    const struct at_name *n = NULL;
    for (int i = 0; !n && b->name && i < x->nname; i++)
        if (!strcmp(x->name[i].name, b->name))
            n = &x->name[i];
    if (!n)
        return at_fail(&x->err, ATTEND_EINVAL, "the plan has nothing named '%s' to bind",
                       b->name ? b->name : "");
    if (n->sym >= 0) {
        const struct at_sym *s = &g->dims.sym[n->sym];
        if (b->data)
            return at_fail(&x->err, ATTEND_EINVAL,
                           "dimension '%s' is bound to memory, wants a value", n->name);
        if (b->value < s->min || b->value > s->max)
            return at_fail(&x->err, ATTEND_EINVAL, "dimension '%s' is %lld, wants %lld to %lld",
                           n->name, (long long)b->value, (long long)s->min, (long long)s->max);
        x->sym[n->sym] = b->value;
        return 0;
    }
    struct at_bound *to = &x->bound[n->tensor];
    const struct at_tensor *t = &g->tensor[n->tensor];
    if (b->bytes < 0 || (!b->data && b->bytes > 0))
        return at_fail(&x->err, ATTEND_EINVAL, "'%s' is bound to %lld bytes at no address", n->name,
                       (long long)b->bytes);
    size_t align = attend_type_block(t->type) > 1 ? sizeof(uint16_t) : attend_type_size(t->type);
    if (!b->on_device && (uintptr_t)b->data % align)
        return at_fail(&x->err, ATTEND_EINVAL,
                       "'%s' is bound to an address that is no multiple of %d", n->name,
                       (int)align);
    *to =
        (struct at_bound){.given = true, .data = b->data, .bytes = b->bytes, .strided = b->stride};
    if (b->on_device && b->data && take_device(x, n, b) < 0)
        return x->err.status;
    if (!b->stride)
        return 0;
    for (int d = 0; d < t->rank; d++) {
        to->stride[d] = b->stride[d];
        if (b->stride[d] < 0)
            return at_fail(&x->err, ATTEND_EINVAL, "'%s' has stride %lld on axis %d", n->name,
                           (long long)b->stride[d], d);
    }
    if (t->rank && b->stride[t->rank - 1] != 1)
        return at_fail(&x->err, ATTEND_EINVAL, "'%s' has stride %lld on its last axis, wants 1",
                       n->name, (long long)b->stride[t->rank - 1]);
    if (t->class == AT_TEMP && t->of >= 0) /* others read the memory in the order of the result */
        return at_fail(&x->err, ATTEND_EUNSUPPORTED,
                       "output '%s' is a view of a result: it can only be bound contiguous",
                       n->name);
    return 0;
}

/* ---- binding: views ---- */

/* Strides of a tensor that owns its memory, in the order of its axes in it. */
static void own_strides(const struct at_tensor *t, struct at_view *v)
{
    int64_t block = attend_type_block(t->type), stride = 1;
    for (int i = t->rank - 1; i >= 0; i--) {
        int d = t->order[i];
        v->stride[d] = stride;
        stride *= d == t->rank - 1 ? at_ceil_div(v->shape[d], block) : v->shape[d];
    }
}

/* Strides of a reshape: each new axis splits, or is part of, old axes that are one run of memory.
 */
static bool reshape_strides(const struct at_view *from, struct at_view *to)
{
    int64_t old_shape[ATTEND_MAX_RANK], old_stride[ATTEND_MAX_RANK];
    int n = 0, i = 0, j = 0;
    bool empty = false;
    for (int d = 0; d < from->rank; d++)
        if (from->shape[d] != 1) {
            empty |= from->shape[d] == 0;
            old_shape[n] = from->shape[d];
            old_stride[n++] = from->stride[d];
        }
    for (int d = 0; d < to->rank; d++)
        to->stride[d] = 1;
    if (empty)
        return true;
    while (i < n) {
        int i1 = i + 1, j1 = j;
        int64_t a = old_shape[i], b = 1;
        while (j1 < to->rank && (b < a || j1 == j))
            b *= to->shape[j1++];
        while (a != b) {
            if (a < b) {
                if (i1 == n || old_stride[i1 - 1] != old_shape[i1] * old_stride[i1])
                    return false;
                a *= old_shape[i1++];
            } else {
                if (j1 == to->rank)
                    return false;
                b *= to->shape[j1++];
            }
        }
        for (int k = i; k + 1 < i1; k++)
            if (old_stride[k] != old_shape[k + 1] * old_stride[k + 1])
                return false;
        int64_t stride = old_stride[i1 - 1];
        for (int d = j1 - 1; d >= j; d--) {
            to->stride[d] = stride;
            stride *= to->shape[d];
        }
        i = i1;
        j = j1;
    }
    return true;
}

static int cannot_keep(attend_exec *x)
{
    return at_fail(&x->err, ATTEND_EINVAL,
                   "an input or output is bound with strides that a reshape of it cannot keep");
}

static int resolve_view(attend_exec *x, const struct at_node *n, const struct at_view *from,
                        struct at_view *v)
{
    int64_t start;
    switch (n->op) {
    case AT_RESHAPE:
        if (!reshape_strides(from, v))
            return cannot_keep(x);
        break;
    case AT_PERMUTE:
        for (int d = 0; d < v->rank; d++)
            v->stride[d] = from->stride[n->p.permute.perm[d]];
        break;
    case AT_EXPAND:
        for (int d = 0; d < v->rank; d++)
            v->stride[d] = from->shape[d] == v->shape[d] ? from->stride[d] : 0;
        break;
    case AT_SLICE:
        memcpy(v->stride, from->stride, sizeof v->stride);
        start = n->p.slice.start;
        if (n->p.slice.axis == v->rank - 1)
            start /= attend_type_block(v->type);
        if (from->data)
            v->data = at_view_at(from, start * from->stride[n->p.slice.axis]);
        break;
    default: /* a new version of a state */
        memcpy(v->stride, from->stride, sizeof v->stride);
    }
    return 0;
}

/* Elements along axis d, or blocks. */
static int64_t steps(const struct at_view *v, int d)
{
    return d == v->rank - 1 ? at_ceil_div(v->shape[d], attend_type_block(v->type)) : v->shape[d];
}

/* INT64_MAX where a caller's strides pass that. */
int64_t at_view_span(const struct at_view *v)
{
    int64_t last = 0, reach, bytes;
    bool over = false;
    for (int d = 0; d < v->rank; d++) {
        if (v->shape[d] == 0)
            return 0;
        over = over || __builtin_mul_overflow(steps(v, d) - 1, v->stride[d], &reach) ||
               __builtin_add_overflow(last, reach, &last);
    }
    over = over || last == INT64_MAX ||
           __builtin_mul_overflow(last + 1, (int64_t)attend_type_size(v->type), &bytes);
    return over ? INT64_MAX : bytes;
}

/* Do two elements share memory?  Not if each stride passes what all smaller ones reach. */
static bool folds(const struct at_view *v)
{
    int64_t reach = 1;
    bool done[ATTEND_MAX_RANK] = {false};
    for (int i = 0; i < v->rank; i++) {
        int least = -1;
        for (int d = 0; d < v->rank; d++)
            if (!done[d] && (least < 0 || v->stride[d] < v->stride[least]))
                least = d;
        done[least] = true;
        if (steps(v, least) < 2)
            continue;
        if (v->stride[least] < reach)
            return true;
        reach += (steps(v, least) - 1) * v->stride[least];
    }
    return false;
}

/* The memory of a root: a constant's, the caller's, or a place in the arena. */
static int resolve_root(attend_exec *x, int id)
{
    const attend_graph *g = x->plan->graph;
    const struct at_tensor *t = &g->tensor[id];
    struct at_view *v = &x->view[id];
    own_strides(t, v);
    if (t->class == AT_CONST) {
        memcpy(&v->data, &t->data, sizeof v->data); /* never written: rows see it as an input */
        return 0;
    }
    int named = t->class == AT_TEMP ? (t->output ? g->output[t->output - 1] : -1) : id;
    if (named < 0) {
        char *arena = x->arena ? x->arena : AT_NOWHERE;
        v->data = x->variant->offset[id] < 0 ? NULL : arena + x->variant->offset[id];
        return 0;
    }
    const struct at_bound *b = &x->bound[named];
    if (b->strided)
        memcpy(v->stride, b->stride, sizeof v->stride);
    v->data = b->data;
    if (!b->given)
        return at_fail(&x->err, ATTEND_EINVAL, "'%s' is not bound", g->tensor[named].name);
    if (at_view_span(v) > b->bytes)
        return at_fail(&x->err, ATTEND_EINVAL, "'%s' needs %lld bytes but %lld are bound",
                       g->tensor[named].name, (long long)at_view_span(v), (long long)b->bytes);
    if (b->strided && t->class != AT_INPUT && at_view_span(v) > 0 && folds(v))
        return at_fail(&x->err, ATTEND_EINVAL,
                       "'%s' is written, but its strides put elements in one place",
                       g->tensor[named].name);
    return 0;
}

static int resolve_all(attend_exec *x)
{
    const attend_graph *g = x->plan->graph;
    for (int id = 0; id < g->ntensor; id++) {
        const struct at_tensor *t = &g->tensor[id];
        struct at_view *v = &x->view[id];
        if (t->node >= 0 && g->node[t->node].dead)
            continue;
        v->type = t->type;
        v->rank = t->rank;
        for (int d = 0; d < t->rank; d++)
            v->shape[d] = at_dim_eval(&g->dims, t->shape[d], x->sym);
        if (t->of >= 0) {
            v->data = x->view[t->of].data;
            if (resolve_view(x, &g->node[t->node], &x->view[t->of], v) < 0)
                return x->err.status;
        } else if (resolve_root(x, id) < 0) {
            return x->err.status;
        }
        if (t->unit >= 0 && v->shape[t->unit] > 1 && v->stride[t->unit] != 1)
            return cannot_keep(x); /* kernels were chosen for rows */
    }
    return 0;
}

static bool one_memory(const struct at_bound *a, const struct at_bound *b)
{
    return a->mem && a->mem == b->mem && a->at < b->at + b->bytes && b->at < a->at + a->bytes;
}

/* What is written must not be anything else's memory. */
static int check_overlap(attend_exec *x)
{
    const attend_graph *g = x->plan->graph;
    for (int i = 0; i < x->nname; i++) {
        int a = x->name[i].tensor;
        if (a < 0 || g->tensor[a].class == AT_INPUT)
            continue;
        const char *a0 = x->bound[a].data, *a1 = a0 + x->bound[a].bytes;
        for (int j = 0; j < x->nname; j++) {
            int b = x->name[j].tensor;
            if (b < 0 || b == a)
                continue;
            const char *b0 = x->bound[b].data, *b1 = b0 + x->bound[b].bytes;
            if ((a0 < b1 && b0 < a1) || one_memory(&x->bound[a], &x->bound[b]))
                return at_fail(&x->err, ATTEND_EINVAL,
                               "'%s' and '%s' are bound to memory that overlaps", x->name[i].name,
                               x->name[j].name);
        }
    }
    return 0;
}

/* Memory grows here and only here. */
static int reserve(attend_exec *x, char **p, int64_t *have, int64_t need, const char *what)
{
    if (need >= 0 && *have >= need)
        return 0;
    at_free(x->ctx, *p);
    *have = 0;
    x->scheduled = NULL;
    *p = at_alloc(x->ctx, need);
    if (!*p)
        return at_fail(&x->err, ATTEND_ENOMEM, "no memory for %lld bytes of %s", (long long)need,
                       what);
    *have = need;
    return 0;
}

/* Does the host need the arena? */
static bool host_arena(const attend_exec *x, const struct at_variant *v)
{
    bool any = !v->used;
    for (int t = 0; !any && t < x->plan->graph->ntensor; t++)
        any = v->offset[t] >= 0 && (v->used[t] & AT_ON_HOST);
    return any;
}

static int choose_variant(attend_exec *x)
{
    const attend_graph *g = x->plan->graph;
    for (int i = 0; i < g->dims.nsym; i++)
        if (x->sym[i] < 0)
            return at_fail(&x->err, ATTEND_EINVAL, "dimension '%s' is not given",
                           g->dims.sym[i].name);
    const struct at_variant *v = at_plan_variant(x->plan, g->dims.nsym ? x->sym[0] : 1);
    if ((host_arena(x, v) && reserve(x, &x->arena, &x->arena_bytes, v->arena, "arena") < 0) ||
        reserve(x, &x->scratch, &x->scratch_bytes, at_mul_size(v->scratch, x->ctx->exec.slots),
                "scratch") < 0 ||
        reserve(x, &x->state, &x->state_bytes, v->state, "schedules") < 0)
        return x->err.status;
    if (x->scheduled != v && v->state > 0) /* what another variant left there means nothing here */
        memset(x->state, 0, (size_t)v->state);
    x->variant = x->scheduled = v;
    return x->transfer ? at_transfer_reserve(x) : 0;
}

static int schedule(attend_exec *x)
{
    for (int i = 0; i < x->variant->nstep; i++) {
        const struct at_step *s = &x->variant->step[i];
        int status = s->row->bind ? s->row->bind(x, s) : 0;
        if (status < 0)
            return status;
    }
    return 0;
}

/* What a bind may change, kept aside (or brought back). */
static void save(attend_exec *x, bool back)
{
    size_t syms = (size_t)x->plan->graph->dims.nsym * sizeof *x->sym;
    memcpy(back ? x->sym : x->old_sym, back ? x->old_sym : x->sym, syms);
    for (int i = 0; i < x->nname; i++) {
        struct at_bound *b = x->name[i].tensor >= 0 ? &x->bound[x->name[i].tensor] : NULL;
        if (b && back) {
            *b = x->old[i];
            if (b->mem) /* mirrors may have grown */
                at_transfer_mirror(x, x->name[i].tensor, b->bytes, &b->data);
        } else if (b)
            x->old[i] = *b;
    }
}

/* Is memory bound to name number i here? */
static bool named(const attend_exec *x, int i, const attend_binding *binds, int n)
{
    bool found = false;
    for (int k = 0; k < n && x->name[i].tensor >= 0; k++)
        found = found || !strcmp(binds[k].name, x->name[i].name);
    return found;
}

int attend_bind(attend_exec *x, const attend_binding *binds, int n)
{
    int status = 0;
    if (x->transfer)
        at_transfer_wait(x); /* the memory of a run that nobody waited for */
    x->variant = NULL;
    x->failed = false;
    x->binds++;
    at_err_clear(&x->err);
    if (n > 0)
        save(x, false);
    for (int i = 0; i < n && status == 0; i++)
        status = take(x, &binds[i]);
    if (status == 0)
        status = choose_variant(x);
    if (status == 0)
        status = resolve_all(x);
    if (status == 0 && n > 0)
        status = check_overlap(x);
    for (int i = 0; x->transfer && status == 0 && i < x->nname; i++)
        if (n == 0 || named(x, i, binds, n))
            at_transfer_renew(x, x->name[i].tensor);
    if (status == 0 && x->transfer)
        status = at_transfer_bind(x);
    if (status == 0)
        status = schedule(x);
    if (status < 0)
        x->variant = NULL;
    if (status < 0 && n > 0)
        save(x, true);
    return status;
}

/* ---- running ---- */

static bool cancelled(const attend_exec *x)
{
    return x->cancel && __atomic_load_n(x->cancel, __ATOMIC_RELAXED);
}

static int run_step(attend_exec *x, const struct at_step *s)
{
    int64_t begin = at_trace_open(x, s);
    int status = x->transfer ? at_transfer_before(x, s) : 0;
    if (status == 0)
        status = s->row->run(x, s);
    if (status == 0 && x->transfer)
        at_transfer_after(x, s);
    at_trace_close(x, s, begin);
    return status;
}

static int walk(attend_exec *x)
{
    for (int i = 0; i < x->variant->nstep; i++) {
        const struct at_step *s = &x->variant->step[i];
        if (cancelled(x))
            return at_fail(&x->err, ATTEND_ECANCELLED, "cancelled before step %d of %d", i,
                           x->variant->nstep);
        int status = run_step(x, s);
        if (status == ATTEND_ECANCELLED)
            return at_fail(&x->err, status, "cancelled in step %d of %d", i, x->variant->nstep);
        if (status < 0)
            return at_fail(&x->err, status, "step %d (%s) failed", i, at_ops[s->op].name);
        if (atomic_load_explicit(&x->fault, memory_order_acquire))
            return x->err.status;
    }
    return x->transfer ? at_transfer_end(x) : 0;
}

int attend_submit(attend_exec *x, attend_fence *fence)
{
    if (x->transfer && !x->failed)
        x->failed = at_transfer_wait(x) < 0; /* one run at a time */
    *fence = (attend_fence){x, x->runs};
    if (x->failed)
        return ATTEND_ESTATE; /* the sentence of the failure stays */
    if (!x->variant)
        return x->err.status ? ATTEND_ESTATE
                             : at_fail(&x->err, ATTEND_ESTATE, "nothing is bound to this exec");
    atomic_store_explicit(&x->fault, 0, memory_order_relaxed);
    if (x->transfer)
        at_transfer_begin(x);
    at_trace_begin(x);
    int status = walk(x);
    if (status < 0 && x->transfer)
        at_transfer_wait(x); /* what was enqueued may still use the caller's memory */
    x->failed = status < 0;
    *fence = (attend_fence){x, ++x->runs};
    return status;
}

int attend_wait(attend_fence fence)
{
    attend_exec *x = fence.exec;
    if (fence.run != x->runs)
        return 0;
    if (x->transfer && !x->failed)
        x->failed = at_transfer_wait(x) < 0;
    return x->failed ? x->err.status : 0;
}

int attend_run(attend_exec *x)
{
    attend_fence fence;
    int status = attend_submit(x, &fence);
    return status < 0 ? status : attend_wait(fence);
}

struct guarded {
    void (*fn)(void *arg, int64_t item, int slot);
    void *arg;
    const volatile int *cancel;
    int skipped; /* some item was: the flag may be down again when all are done */
};

static void unless_cancelled(void *arg, int64_t item, int slot)
{
    struct guarded *g = arg;
    if (__atomic_load_n(g->cancel, __ATOMIC_RELAXED))
        __atomic_store_n(&g->skipped, 1, __ATOMIC_RELAXED);
    else
        g->fn(g->arg, item, slot);
}

int at_parallel(attend_exec *x, int64_t n, void (*fn)(void *arg, int64_t item, int slot), void *arg)
{
    const attend_executor *e = &x->ctx->exec;
    struct at_traced t = {x, fn, arg};
    if (x->ctx->trace) {
        fn = at_trace_item;
        arg = &t;
    }
    struct guarded g = {fn, arg, x->cancel, 0};
    if (x->cancel) {
        fn = unless_cancelled;
        arg = &g;
    }
    if (n == 1)
        fn(arg, 0, 0);
    else if (n > 1)
        e->parallel_for(e->arg, n, fn, arg);
    return g.skipped ? ATTEND_ECANCELLED : 0;
}

void at_exec_bad_index(attend_exec *x, const struct at_step *s, int64_t place, int64_t value,
                       int64_t limit)
{
    int none = 0;
    if (!atomic_compare_exchange_strong(&x->fault, &none, 1))
        return; /* another thread was first */
    const char *label = x->plan->graph->node[s->node].label;
    at_fail(&x->err, ATTEND_EINVAL, "%s%s%s%s: index %lld at place %lld is outside [0, %lld)",
            at_ops[s->op].name, label ? " '" : "", label ? label : "", label ? "'" : "",
            (long long)value, (long long)place, (long long)limit);
}
