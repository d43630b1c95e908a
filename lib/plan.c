/* SPDX-License-Identifier: MIT */
/* attend_compile: the passes in order, once for each range of the row dimension; and printing a
 * plan. */
#include <string.h>

#include "backends/backend.h"
#include "env.h"

void attend_compile_opts_init(attend_compile_opts *opts)
{
    const char *value = at_env(AT_ENV_DETERMINISTIC);
    *opts = (attend_compile_opts){
        .size = sizeof *opts, .fuse = 1, .deterministic = value && strcmp(value, "0") != 0};
}

struct at_range at_plan_range(const attend_plan *plan, struct at_range rows, int t, int axis)
{
    const struct at_dims *dims = &plan->graph->dims;
    int64_t extent = plan->graph->tensor[t].shape[axis];
    if (extent >= 0)
        return (struct at_range){extent, extent};
    const struct at_form *f = &dims->form[-1 - extent];
    struct at_range r = {dims->sym[f->sym].min, dims->sym[f->sym].max};
    if (f->sym == 0)
        r = rows;
    return (struct at_range){f->mul * r.min + f->add, f->mul * r.max + f->add};
}

/* Room at the end of the newest slab, or of a new one, twice as large as the one before. */
static void *from_slab(attend_plan *plan, int64_t bytes)
{
    const int64_t least = 4096, most = (int64_t)64 << 20;
    struct at_slab *s = plan->slab;
    if (bytes > INT64_MAX / 2)
        return NULL;
    bytes = at_round_up(bytes, AT_ALIGN);
    if (!s || bytes > s->size - s->used) {
        int64_t size = at_max(s ? at_min(2 * s->size, most) : least, bytes + AT_ALIGN);
        s = at_alloc(plan->ctx, size);
        if (!s)
            return NULL;
        *s = (struct at_slab){plan->slab, AT_ALIGN, size};
        plan->slab = s;
    }
    void *p = (char *)s + s->used;
    s->used += bytes;
    return p;
}

static void *pack(attend_plan *plan, int tensor, const struct at_row *row, int64_t bytes)
{
    struct at_packed *p = at_alloc(plan->ctx, sizeof *p);
    void *data = p ? from_slab(plan, bytes) : NULL;
    if (!data) {
        at_free(plan->ctx, p);
        return NULL;
    }
    *p = (struct at_packed){plan->packed, data, tensor, row};
    plan->packed = p;
    return data;
}

void *at_plan_pack(attend_plan *plan, int64_t bytes)
{
    return pack(plan, -1, NULL, bytes);
}

void *at_plan_pack_once(attend_plan *plan, const struct at_step *s, int tensor, int64_t bytes,
                        bool *fresh)
{
    *fresh = false;
    for (const struct at_packed *p = plan->packed; p; p = p->next)
        if (p->tensor == tensor && p->row == s->row)
            return p->data;
    *fresh = true;
    return pack(plan, tensor, s->row, bytes);
}

const struct at_variant *at_plan_variant(const attend_plan *plan, int64_t rows)
{
    for (int i = 0; i < plan->nvariant; i++)
        if (rows <= plan->variant[i].rows.max)
            return &plan->variant[i];
    return &plan->variant[plan->nvariant - 1];
}

/* Ranges of rows that want kernels of their own: a decoding step, a few rows (drafts, small
 * batches), a short prompt, a long one. */
static void split_rows(attend_plan *plan)
{
    static const int64_t upto[AT_MAX_VARIANTS] = {1, 16, 256, INT64_MAX};
    const struct at_dims *dims = &plan->graph->dims;
    struct at_range all = {1, 1};
    if (dims->nsym)
        all = (struct at_range){dims->sym[0].min, dims->sym[0].max};
    int64_t from = all.min;
    for (int i = 0; i < AT_MAX_VARIANTS; i++) {
        int64_t to = at_min(upto[i], all.max);
        if (to < from)
            continue;
        plan->variant[plan->nvariant++].rows = (struct at_range){from, to};
        if (to == all.max)
            break;
        from = to + 1;
    }
}

static int add_step(attend_plan *plan, struct at_variant *v, int node, struct at_err *e)
{
    const struct at_node *n = &plan->graph->node[node];
    struct at_step *s = &v->step[v->nstep++];
    *s = (struct at_step){
        .op = n->op, .node = node, .nin = n->nin, .nout = n->nout, .p = &n->p, .rows = v->rows};
    memcpy(s->in, n->in, sizeof s->in);
    memcpy(s->out, n->out, sizeof s->out);
    int status = at_place(plan, s, e);
    if (status < 0)
        return status;
    if (s->state > INT64_MAX - AT_ALIGN - v->state || s->scratch > INT64_MAX - AT_ALIGN)
        return at_fail(e, ATTEND_ELIMIT, "the work memory of %s would pass 2^63 bytes",
                       at_ops[s->op].name);
    s->state_offset = v->state;
    v->state += at_round_up(s->state, AT_ALIGN);
    if (s->work > INT64_MAX / 4 || v->work > INT64_MAX / 4 || s->shared_work > INT64_MAX / 4)
        return at_fail(e, ATTEND_ELIMIT, "the work memory of %s would pass 2^61 bytes",
                       at_ops[s->op].name);
    s->work_offset = v->work;
    v->work += at_round_up(s->work, AT_PLACE);
    v->shared_work = at_max(v->shared_work, at_round_up(s->shared_work, AT_PLACE));
    v->scratch = at_max(v->scratch, at_round_up(s->scratch, AT_ALIGN));
    return 0;
}

/* Which roots the steps of the device use, and which those that fell to the host. */
static int note_uses(attend_plan *plan, struct at_variant *v, struct at_err *e)
{
    const attend_graph *g = plan->graph;
    v->used = at_calloc(plan->ctx, g->ntensor + 1, sizeof *v->used);
    if (!v->used)
        return at_fail(e, ATTEND_ENOMEM, "no memory for a plan of %d tensors", g->ntensor);
    for (int i = 0; i < v->nstep; i++) {
        const struct at_step *s = &v->step[i];
        for (int k = 0; k < s->nin + s->nout; k++) {
            int t = k < s->nin ? s->in[k] : s->out[k - s->nin];
            if (t >= 0)
                v->used[g->tensor[t].root] |= s->device->memory ? AT_ON_DEVICE : AT_ON_HOST;
        }
    }
    return 0;
}

static int lower(attend_plan *plan, struct at_variant *v, struct at_err *e)
{
    const attend_graph *g = plan->graph;
    v->step = at_calloc(plan->ctx, g->nnode + 1, sizeof *v->step);
    if (!v->step)
        return at_fail(e, ATTEND_ENOMEM, "no memory for a plan of %d nodes", g->nnode);
    for (int i = 0; i < g->nnode; i++)
        if (!g->node[i].dead && !at_ops[g->node[i].op].view) {
            int status = add_step(plan, v, i, e);
            if (status < 0)
                return status;
        }
    int status = plan->device->memory ? note_uses(plan, v, e) : 0;
    return status < 0 ? status : at_memplan(plan, v, e);
}

static int compile(attend_plan *plan, bool fuse, struct at_err *e)
{
    int status = at_canon(plan->graph, fuse, at_place_knows(plan->device, AT_SILU_MUL));
    if (status < 0)
        return at_fail(e, status, "%s", plan->graph->err.text);
    split_rows(plan);
    for (int i = 0; i < plan->nvariant && status == 0; i++)
        status = lower(plan, &plan->variant[i], e);
    if (status == 0 && plan->device->memory)
        status = at_constants_hold(plan, e);
    return status;
}

static int make_plan(attend_graph *g, const attend_compile_opts *o, attend_plan **out)
{
    if (at_validate(g) < 0)
        return g->err.status;
    if ((unsigned)o->precision > ATTEND_F16_P)
        return at_fail(&g->err, ATTEND_EINVAL, "the precision is %d, want 0 to 3",
                       (int)o->precision);
    const struct at_device *device = at_device_find(g->ctx, o->device, &g->err);
    if (!device)
        return g->err.status;
    attend_plan *plan = at_calloc(g->ctx, 1, sizeof *plan);
    if (plan) {
        plan->ctx = g->ctx;
        plan->device = device;
        plan->deterministic = o->deterministic != 0;
        plan->precision = o->precision;
        plan->graph = at_graph_copy(g);
    }
    int status = plan && plan->graph ? compile(plan, o->fuse != 0, &g->err)
                                     : at_fail(&g->err, ATTEND_ENOMEM, "no memory for a plan");
    if (status < 0) {
        attend_plan_free(plan);
        return status;
    }
    *out = plan;
    return 0;
}

int attend_compile(attend_graph *g, const attend_compile_opts *opts, attend_plan **out)
{
    attend_compile_opts o;
    *out = NULL;
    if (!g)
        return ATTEND_ENOMEM;
    attend_compile_opts_init(&o);
    if (g->refused)
        at_err_clear(&g->err);
    else if (g->err.status)
        return g->err.status;
    g->refused = at_opts_take(&g->err, "attend_compile_opts", &o, sizeof o, opts) < 0 ||
                 make_plan(g, &o, out) < 0;
    return g->err.status;
}

void attend_plan_free(attend_plan *plan)
{
    if (!plan)
        return;
    for (int i = 0; i < plan->nvariant; i++) {
        struct at_variant *v = &plan->variant[i];
        for (int k = 0; k < v->nstep; k++)
            at_free(plan->ctx, v->step[k].why);
        at_free(plan->ctx, v->step);
        at_free(plan->ctx, v->offset);
        at_free(plan->ctx, v->used);
    }
    at_constants_drop(plan);
    for (struct at_packed *p = plan->packed, *next; p; p = next) {
        next = p->next;
        at_free(plan->ctx, p);
    }
    for (struct at_slab *slab = plan->slab, *next; slab; slab = next) {
        next = slab->next;
        at_free(plan->ctx, slab);
    }
    attend_graph_free(plan->graph);
    at_free(plan->ctx, plan);
}

int attend_plan_steps(const attend_plan *plan, int64_t rows)
{
    return at_plan_variant(plan, rows)->nstep;
}

int64_t attend_plan_arena_bytes(const attend_plan *plan, int64_t rows)
{
    return at_plan_variant(plan, rows)->arena;
}

/* ---- printing ---- */

/* The word of a step: "attention:f32 1 x 9 x tokens x 64". */
static void add_word(struct at_str *s, const attend_plan *plan, const struct at_step *st)
{
    const attend_graph *g = plan->graph;
    char shape[128];
    const struct at_tensor *out = &g->tensor[st->out[0]];
    at_str_add(s, "%s %s [%s]", at_ops[st->op].name,
               attend_type_name(g->tensor[st->in[st->op == AT_MATMUL ? 1 : 0]].type),
               at_shape_text(&g->dims, out->rank, out->shape, shape, sizeof shape));
    if (st->op == AT_ATTENTION) {
        const struct at_tensor *k = &g->tensor[st->in[AT_IN_K]];
        at_str_add(s, " k %s [%s]", attend_type_name(k->type),
                   at_shape_text(&g->dims, k->rank, k->shape, shape, sizeof shape));
        at_str_add(s, "%s", st->p->attention.visible.causal ? " causal" : "");
    }
}

/* Flops and bytes of a step at the top of the variant's ranges. */
static void step_cost(const attend_plan *plan, const struct at_variant *v, const struct at_step *st,
                      const int64_t *sym, double *flops, double *bytes)
{
    const attend_graph *g = plan->graph;
    const struct at_node *n = &g->node[st->node];
    *flops = 0;
    *bytes = 0;
    for (int k = 0; k < st->nin + st->nout; k++) {
        int t = k < st->nin ? st->in[k] : st->out[k - st->nin];
        if (t < 0)
            continue;
        double size = 1;
        for (int d = 0; d < g->tensor[t].rank; d++)
            size *= (double)at_plan_range(plan, v->rows, t, d).max;
        *bytes += size * (double)attend_type_size(g->tensor[t].type) /
                  (double)attend_type_block(g->tensor[t].type);
        if (k == st->nin)
            *flops = at_ops[st->op].flops ? at_ops[st->op].flops(g, n, sym) : size;
    }
}

static void add_text(struct at_str *s, const attend_plan *plan, const struct at_variant *v,
                     const int64_t *sym)
{
    at_str_add(s, "rows %lld to %lld: %d steps, arena %lld bytes, scratch %lld bytes a thread\n",
               (long long)v->rows.min, (long long)v->rows.max, v->nstep, (long long)v->arena,
               (long long)v->scratch);
    for (int i = 0; i < v->nstep; i++) {
        const struct at_step *st = &v->step[i];
        const struct at_node *n = &plan->graph->node[st->node];
        double flops, bytes;
        step_cost(plan, v, st, sym, &flops, &bytes);
        at_str_add(s, "%4d  %-10s ", i, n->label ? n->label : "");
        add_word(s, plan, st);
        at_str_add(s, " -> %s/%s  %.3g flop %.3g byte", st->device->name, st->row->name, flops,
                   bytes);
        if (n->fused)
            at_str_add(s, "  fused: %s", n->fused);
        if (st->why)
            at_str_add(s, "  (%s)", st->why);
        if (plan->device->memory && !st->device->memory)
            at_str_add(s, "  on the host: what it reads and writes is copied");
        at_str_add(s, "\n");
    }
}

static void add_json(struct at_str *s, const attend_plan *plan, const struct at_variant *v,
                     const int64_t *sym)
{
    at_str_add(
        s, "{\"rows\": [%lld, %lld], \"arena_bytes\": %lld, \"scratch_bytes\": %lld, \"steps\": [",
        (long long)v->rows.min, (long long)v->rows.max, (long long)v->arena, (long long)v->scratch);
    for (int i = 0; i < v->nstep; i++) {
        const struct at_step *st = &v->step[i];
        const struct at_node *n = &plan->graph->node[st->node];
        struct at_str word = {0};
        double flops, bytes;
        step_cost(plan, v, st, sym, &flops, &bytes);
        add_word(&word, plan, st);
        s->failed |= word.failed;
        at_str_add(s, "%s{\"op\": \"%s\", \"word\": ", i ? ", " : "", at_ops[st->op].name);
        at_str_json(s, word.text ? word.text : "");
        attend_free(word.text);
        at_str_add(s, ", \"label\": ");
        at_str_json(s, n->label ? n->label : "");
        at_str_add(s,
                   ", \"device\": \"%s\", \"kernel\": \"%s\", \"flops\": %.17g, \"bytes\": %.17g, "
                   "\"fused\": ",
                   st->device->name, st->row->name, flops, bytes);
        at_str_json(s, n->fused ? n->fused : "");
        at_str_add(s, ", \"refused\": ");
        at_str_json(s, st->why ? st->why : "");
        at_str_add(s, "}");
    }
    at_str_add(s, "]}");
}

/* The step whose output is the memory of tensor t, or -1. */
static int maker(const attend_plan *plan, const struct at_variant *v, int before, int t)
{
    int root = t < 0 ? -1 : plan->graph->tensor[t].root;
    for (int i = before - 1; root >= 0 && i >= 0; i--)
        for (int k = 0; k < v->step[i].nout; k++)
            if (plan->graph->tensor[v->step[i].out[k]].root == root)
                return i;
    return -1;
}

static void add_dot(struct at_str *s, const attend_plan *plan, const struct at_variant *v)
{
    at_str_add(s, "digraph plan {\n  node [shape=box];\n");
    for (int i = 0; i < v->nstep; i++) {
        const struct at_step *st = &v->step[i];
        struct at_str word = {0};
        add_word(&word, plan, st);
        at_str_add(&word, "\n%s/%s", st->device->name, st->row->name);
        s->failed |= word.failed;
        at_str_add(s, "  s%d [label=", i);
        at_str_json(s, word.text ? word.text : "");
        attend_free(word.text);
        at_str_add(s, "];\n");
        for (int k = 0; k < st->nin; k++) {
            int from = maker(plan, v, i, st->in[k]);
            const struct at_tensor *t = st->in[k] >= 0 ? &plan->graph->tensor[st->in[k]] : NULL;
            if (from >= 0)
                at_str_add(s, "  s%d -> s%d;\n", from, i);
            else if (t && plan->graph->tensor[t->root].name && t->class != AT_CONST) {
                at_str_add(s, "  ");
                at_str_json(s, plan->graph->tensor[t->root].name);
                at_str_add(s, " -> s%d;\n", i);
            }
        }
    }
    at_str_add(s, "}\n");
}

char *attend_plan_describe(const attend_plan *plan, attend_format format)
{
    struct at_str s = {0};
    const attend_graph *g = plan->graph;
    int64_t *sym = at_calloc(plan->ctx, g->dims.nsym + 1, sizeof *sym);
    if (!sym)
        return NULL;
    for (int i = 0; i < g->dims.nsym; i++)
        sym[i] = g->dims.sym[i].max;
    if (format == ATTEND_JSON)
        at_str_add(&s, "{\"device\": \"%s\", \"variants\": [", plan->device->name);
    else if (format == ATTEND_TEXT)
        at_str_add(&s, "device %s (%s)\n", plan->device->name, plan->device->detail);
    int first = format == ATTEND_DOT ? plan->nvariant - 1 : 0; /* one graph is enough to look at */
    for (int i = first; i < plan->nvariant; i++) {
        const struct at_variant *v = &plan->variant[i];
        sym[0] = g->dims.nsym ? v->rows.max : 0;
        if (format == ATTEND_JSON && i)
            at_str_add(&s, ", ");
        if (format == ATTEND_JSON)
            add_json(&s, plan, v, sym);
        else if (format == ATTEND_DOT)
            add_dot(&s, plan, v);
        else
            add_text(&s, plan, v, sym);
    }
    if (format == ATTEND_JSON)
        at_str_add(&s, "], \"notes\": [");
    for (int i = 0; i < g->nnote && format != ATTEND_DOT; i++) {
        if (format == ATTEND_TEXT) {
            at_str_add(&s, "not fused: %s\n", g->note[i]);
        } else {
            at_str_add(&s, "%s", i ? ", " : "");
            at_str_json(&s, g->note[i]);
        }
    }
    if (format == ATTEND_JSON)
        at_str_add(&s, "]}\n");
    at_free(plan->ctx, sym);
    if (!s.failed)
        return s.text;
    attend_free(s.text);
    return NULL;
}
