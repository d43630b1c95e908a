/* SPDX-License-Identifier: MIT */
/* Building a graph: tensors, named extents, and appending nodes with the first error kept. */
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "expr.h"

/* ---- extents ---- */

static const struct at_form *form_of(const struct at_dims *dims, int64_t extent)
{
    return &dims->form[-1 - extent];
}

int64_t at_dim_eval(const struct at_dims *dims, int64_t extent, const int64_t *sym)
{
    if (extent >= 0)
        return extent;
    const struct at_form *f = form_of(dims, extent);
    return f->mul * sym[f->sym] + f->add;
}

int64_t at_dim_min(const struct at_dims *dims, int64_t extent)
{
    if (extent >= 0)
        return extent;
    const struct at_form *f = form_of(dims, extent);
    return f->mul * dims->sym[f->sym].min + f->add;
}

int64_t at_dim_max(const struct at_dims *dims, int64_t extent)
{
    if (extent >= 0)
        return extent;
    const struct at_form *f = form_of(dims, extent);
    return f->mul * dims->sym[f->sym].max + f->add;
}

/* The value of a form, equal ones sharing an index, so that equal extents are equal numbers. */
static int64_t intern(attend_graph *g, struct at_form f)
{
    for (int i = 0; i < g->dims.nform; i++) {
        const struct at_form *o = &g->dims.form[i];
        if (o->sym == f.sym && o->mul == f.mul && o->add == f.add)
            return -1 - i;
    }
    if (!at_grow(g->ctx, (void **)&g->dims.form, &g->dims.cap_form, g->dims.nform, sizeof f)) {
        at_fail(&g->err, ATTEND_ENOMEM, "no memory for the dimensions of a graph");
        return 0;
    }
    g->dims.form[g->dims.nform] = f;
    return -1 - g->dims.nform++;
}

int64_t at_graph_form(attend_graph *g, int64_t extent, int64_t mul, int64_t add)
{
    struct at_form f = {.sym = -1, .mul = 0, .add = extent};
    if (extent < 0)
        f = *form_of(&g->dims, extent);
    int64_t top = extent < 0 ? g->dims.sym[f.sym].max : 0, value, scaled;
    bool over =
        __builtin_mul_overflow(f.mul, mul, &f.mul) || __builtin_mul_overflow(f.add, mul, &f.add) ||
        __builtin_add_overflow(f.add, add, &f.add) || __builtin_mul_overflow(f.mul, top, &scaled) ||
        __builtin_add_overflow(scaled, f.add, &value);
    if (over) {
        at_fail(&g->err, ATTEND_ELIMIT, "an extent of the graph passes 2^63");
        return 0;
    }
    return f.sym < 0 || f.mul == 0 ? f.add : intern(g, f);
}

const char *at_shape_text(const struct at_dims *dims, int rank, const int64_t *shape, char *buf,
                          size_t size)
{
    size_t n = 0;
    buf[0] = 0;
    for (int d = 0; d < rank && n < size; d++) {
        const char *sep = d ? " x " : "";
        if (shape[d] >= 0) {
            n += (size_t)snprintf(buf + n, size - n, "%s%lld", sep, (long long)shape[d]);
            continue;
        }
        const struct at_form *f = form_of(dims, shape[d]);
        n += (size_t)snprintf(buf + n, size - n, "%s", sep);
        if (n < size && f->mul != 1)
            n += (size_t)snprintf(buf + n, size - n, "%lld ", (long long)f->mul);
        if (n < size)
            n += (size_t)snprintf(buf + n, size - n, "%s", dims->sym[f->sym].name);
        if (n < size && f->add)
            n += (size_t)snprintf(buf + n, size - n, "%+lld", (long long)f->add);
    }
    if (rank == 0)
        snprintf(buf, size, "scalar");
    return buf;
}

/* Dimensions, inputs, states and outputs are bound by name, so no two share one. */
static bool taken(const attend_graph *g, const char *name)
{
    for (int i = 0; i < g->dims.nsym; i++)
        if (!strcmp(g->dims.sym[i].name, name))
            return true;
    for (int i = 0; i < g->ntensor; i++)
        if (g->tensor[i].name && g->tensor[i].class != AT_CONST && !strcmp(g->tensor[i].name, name))
            return true;
    return false;
}

int64_t attend_graph_dim(attend_graph *g, const char *name, int64_t min, int64_t max)
{
    if (g->err.status)
        return 0;
    if (!name || !*name || min < 0 || max < min) {
        at_fail(&g->err, ATTEND_EINVAL, "dimension '%s': wants 0 <= min <= max, got %lld and %lld",
                name ? name : "", (long long)min, (long long)max);
        return 0;
    }
    if (taken(g, name)) {
        at_fail(&g->err, ATTEND_EINVAL, "dimension '%s': the name is taken", name);
        return 0;
    }
    struct at_sym s = {.name = at_strdup(g->ctx, name), .min = min, .max = max};
    if (!s.name ||
        !at_grow(g->ctx, (void **)&g->dims.sym, &g->dims.cap_sym, g->dims.nsym, sizeof s)) {
        at_free(g->ctx, s.name);
        at_fail(&g->err, ATTEND_ENOMEM, "no memory for the dimensions of a graph");
        return 0;
    }
    g->dims.sym[g->dims.nsym] = s;
    return intern(g, (struct at_form){.sym = g->dims.nsym++, .mul = 1, .add = 0});
}

/* ---- errors ---- */

int at_graph_fail(attend_graph *g, const struct at_node *n, int status, const char *fmt, ...)
{
    char what[384], where[64];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    if (n->label)
        snprintf(where, sizeof where, "'%s'", n->label);
    else
        snprintf(where, sizeof where, "%d",
                 n >= g->node && n < g->node + g->nnode ? (int)(n - g->node)
                                                        : g->nnode); /* one about to be appended */
    return at_fail(&g->err, status, "%s %s: %s", at_ops[n->op].name, where, what);
}

int at_graph_use(attend_graph *g, attend_tensor t, const char *what)
{
    if (g->err.status)
        return g->err.status;
    if (t.graph && t.graph != g)
        return at_fail(&g->err, ATTEND_EINVAL, "%s is a tensor of another graph", what);
    if (!t.graph || t.id < 0 || t.id >= g->ntensor)
        return at_fail(&g->err, ATTEND_EINVAL, "%s is no tensor", what);
    return t.id;
}

/* ---- tensors ---- */

bool at_graph_extent(const attend_graph *g, int64_t extent)
{
    return extent >= -(int64_t)g->dims.nform;
}

int64_t at_graph_largest(const attend_graph *g, attend_type type, int rank, const int64_t *shape)
{
    int64_t n =
        attend_type_row_bytes(type, rank ? at_max(1, at_dim_max(&g->dims, shape[rank - 1])) : 1);
    for (int d = 0; d < rank - 1; d++)
        n = at_mul_size(n, at_max(1, at_dim_max(&g->dims, shape[d])));
    return n;
}

int at_graph_tensor(attend_graph *g, attend_type type, int rank, const int64_t *extents)
{
    int64_t
        shape[ATTEND_MAX_RANK]; /* extents may be of a tensor, and tensors move when they grow */
    if (g->err.status)
        return g->err.status;
    for (int d = 0; d < rank; d++)
        shape[d] = extents[d];
    if (!at_grow(g->ctx, (void **)&g->tensor, &g->cap_tensor, g->ntensor, sizeof *g->tensor))
        return at_fail(&g->err, ATTEND_ENOMEM, "no memory for tensor %d of a graph", g->ntensor);
    int id = g->ntensor++;
    struct at_tensor *t = &g->tensor[id];
    memset(t, 0, sizeof *t);
    t->type = type;
    t->rank = rank;
    t->node = t->of = t->next_version = -1;
    t->root = id;
    t->joined = ~0u;
    t->unit = rank - 1;
    for (int d = 0; d < rank; d++) {
        t->shape[d] = shape[d];
        t->order[d] = d;
    }
    return id;
}

bool at_graph_has_rows(const attend_graph *g, int t)
{
    const struct at_tensor *x = &g->tensor[t];
    return x->rank == 0 || x->unit == x->rank - 1 || x->shape[x->rank - 1] == 1;
}

static attend_tensor handle(attend_graph *g, int id)
{
    return g->err.status || id < 0 ? attend_none() : (attend_tensor){g, id};
}

static int named(attend_graph *g, enum at_class class, const char *name, attend_type type,
                 attend_shape s)
{
    static const char *const kind[] = {"a temporary", "an input", "a constant", "a state"};
    char dims[128];
    if (g->err.status)
        return -1;
    if (!name || !*name)
        return at_fail(&g->err, ATTEND_EINVAL, "%s has no name", kind[class]);
    if (!attend_type_size(type))
        return at_fail(&g->err, ATTEND_EINVAL, "%s '%s': %d is no type", kind[class], name,
                       (int)type);
    if (s.rank < 0 || s.rank > ATTEND_MAX_RANK)
        return at_fail(&g->err, ATTEND_EINVAL, "%s '%s': rank %d, wants 0 to %d", kind[class], name,
                       s.rank, ATTEND_MAX_RANK);
    for (int d = 0; d < s.rank; d++)
        if (!at_graph_extent(g, s.dim[d]))
            return at_fail(&g->err, ATTEND_EINVAL, "%s '%s': extent %d is %lld", kind[class], name,
                           d, (long long)s.dim[d]);
    bool dynamic = false;
    for (int d = 0; d < s.rank; d++)
        dynamic |= s.dim[d] < 0;
    if (class == AT_CONST && dynamic)
        return at_fail(&g->err, ATTEND_EINVAL, "constant '%s' has a dynamic extent: %s", name,
                       at_shape_text(&g->dims, s.rank, s.dim, dims, sizeof dims));
    if (class != AT_CONST && taken(g, name))
        return at_fail(&g->err, ATTEND_EINVAL, "%s '%s': the name is taken", kind[class], name);
    if (at_graph_largest(g, type, s.rank, s.dim) < 0)
        return at_fail(&g->err, ATTEND_ELIMIT, "%s '%s', %s, would pass 2^63 bytes", kind[class],
                       name, at_shape_text(&g->dims, s.rank, s.dim, dims, sizeof dims));
    int id = at_graph_tensor(g, type, s.rank, s.dim);
    if (id < 0)
        return -1;
    g->tensor[id].class = class;
    g->tensor[id].name = at_strdup(g->ctx, name);
    if (!g->tensor[id].name)
        return at_fail(&g->err, ATTEND_ENOMEM, "no memory for the name '%s'", name);
    return id;
}

attend_tensor attend_graph_input(attend_graph *g, const char *name, attend_type type,
                                 attend_shape shape)
{
    return handle(g, named(g, AT_INPUT, name, type, shape));
}

attend_tensor attend_graph_state(attend_graph *g, const char *name, attend_type type,
                                 attend_shape shape)
{
    return handle(g, named(g, AT_STATE, name, type, shape));
}

attend_tensor attend_graph_const(attend_graph *g, const char *name, attend_type type,
                                 attend_shape shape, const void *data, int64_t bytes)
{
    int id = named(g, AT_CONST, name, type, shape);
    if (id < 0)
        return attend_none();
    int64_t need = at_graph_largest(g, type, shape.rank, shape.dim);
    for (int d = 0; d < shape.rank; d++)
        if (shape.dim[d] == 0)
            need = 0;
    if (bytes != need || (!data && need))
        at_fail(&g->err, ATTEND_EINVAL, "constant '%s' needs %lld bytes but %lld were given", name,
                (long long)need, data ? (long long)bytes : 0LL);
    g->tensor[id].data = data;
    return handle(g, id);
}

/* Can the caller's buffer be the memory of t itself?  Only if t is all of a temporary, in the order
 * of its axes, and nobody else has claimed it. */
static bool may_be_output(const attend_graph *g, const struct at_tensor *t)
{
    const struct at_tensor *root = &g->tensor[t->root];
    if (t->class != AT_TEMP || root->output)
        return false;
    for (int d = 0; d < t->rank; d++)
        if (t->order[d] != d || (d + 1 < t->rank && !(t->joined >> d & 1)))
            return false;
    for (; t != root; t = &g->tensor[t->of]) /* all of it, and once */
        if (g->node[t->node].op == AT_SLICE || g->node[t->node].op == AT_EXPAND)
            return false;
    return true;
}

void attend_graph_output(attend_graph *g, const char *name, attend_tensor h)
{
    int id = at_graph_use(g, h, "an output");
    if (id < 0)
        return;
    if (!name || !*name) {
        at_fail(&g->err, ATTEND_EINVAL, "an output has no name");
        return;
    }
    if (taken(g, name)) {
        at_fail(&g->err, ATTEND_EINVAL, "output '%s': the name is taken", name);
        return;
    }
    if (!may_be_output(g, &g->tensor[id]))
        id = at_graph_add(g, AT_COPY, &id, 1, NULL, NULL);
    if (id < 0)
        return;
    if (!at_grow(g->ctx, (void **)&g->output, &g->cap_output, g->noutput, sizeof(int)) ||
        !(g->tensor[id].name = at_strdup(g->ctx, name))) {
        at_fail(&g->err, ATTEND_ENOMEM, "no memory for output '%s'", name);
        return;
    }
    g->output[g->noutput++] = id;
    g->tensor[g->tensor[id].root].output = g->noutput;
}

attend_type attend_tensor_type(attend_tensor t)
{
    return t.graph && t.id >= 0 && t.id < t.graph->ntensor ? t.graph->tensor[t.id].type
                                                           : ATTEND_F32;
}

attend_shape attend_tensor_shape(attend_tensor t)
{
    attend_shape s = {0};
    if (t.graph && t.id >= 0 && t.id < t.graph->ntensor) {
        s.rank = t.graph->tensor[t.id].rank;
        memcpy(s.dim, t.graph->tensor[t.id].shape, sizeof s.dim);
    }
    return s;
}

/* ---- nodes ---- */

/* The latest version of the state under t that t looks at, or -1. */
static int superseded(const attend_graph *g, int t)
{
    for (; t >= 0; t = g->tensor[t].of) {
        const struct at_tensor *v = &g->tensor[t];
        if (v->class == AT_STATE && v->next_version >= 0)
            return t;
        if (v->node >= 0 && at_op_writes(g->node[v->node].op))
            return -1; /* a version of its own: what it superseded does not matter */
    }
    return -1;
}

int at_graph_add(attend_graph *g, enum at_opcode op, const int *in, int nin,
                 const union at_params *p, const attend_shape *shape)
{
    if (g->err.status)
        return g->err.status;
    if (!at_grow(g->ctx, (void **)&g->node, &g->cap_node, g->nnode, sizeof *g->node))
        return at_fail(&g->err, ATTEND_ENOMEM, "no memory for node %d of a graph", g->nnode);
    struct at_node *n = &g->node[g->nnode++];
    memset(n, 0, sizeof *n);
    n->op = op;
    n->label = g->label;
    n->nin = nin;
    if (p)
        n->p = *p;
    for (int k = 0; k < nin; k++) {
        n->in[k] = in[k];
        int old = in[k] < 0 ? -1 : superseded(g, in[k]);
        if (old >= 0)
            return at_graph_fail(g, n, ATTEND_EINVAL,
                                 "reads state '%s' as it was before a later write",
                                 g->tensor[g->tensor[old].root].name);
    }
    if (at_ops[op].infer(g, n, shape) < 0)
        return g->err.status;
    for (int k = 0; k < n->nout; k++)
        if (n->out[k] >= 0)
            g->tensor[n->out[k]].node = (int)(n - g->node);
    return n->out[0];
}

attend_graph *attend_graph_new(attend_ctx *ctx)
{
    attend_graph *g = at_calloc(ctx, 1, sizeof *g);
    if (g)
        g->ctx = ctx;
    return g;
}

void attend_graph_free(attend_graph *g)
{
    if (!g)
        return;
    attend_ctx *ctx = g->ctx;
    for (int i = 0; i < g->ntensor; i++)
        at_free(ctx, g->tensor[i].name);
    for (int i = 0; i < g->nnode; i++)
        at_free(ctx, g->node[i].fused);
    for (int i = 0; i < g->nnote; i++)
        at_free(ctx, g->note[i]);
    for (int i = 0; i < g->nlabel; i++)
        at_free(ctx, g->labels[i]);
    for (int i = 0; i < g->dims.nsym; i++)
        at_free(ctx, g->dims.sym[i].name);
    at_free(ctx, g->note);
    at_free(ctx, g->labels);
    for (int i = 0; i < g->nexpr; i++)
        at_free(ctx, g->expr[i]);
    at_free(ctx, g->expr);
    at_free(ctx, g->dims.sym);
    at_free(ctx, g->dims.form);
    at_free(ctx, g->tensor);
    at_free(ctx, g->node);
    at_free(ctx, g->output);
    at_free(ctx, g);
}

void attend_graph_label(attend_graph *g, const char *label)
{
    if (g->err.status)
        return;
    g->label = NULL;
    if (!label || !*label)
        return;
    for (int i = g->nlabel - 1; i >= 0 && i >= g->nlabel - 8; i--)
        if (!strcmp(g->labels[i], label)) {
            g->label = g->labels[i];
            return;
        }
    char *copy = at_strdup(g->ctx, label);
    if (!copy || !at_grow(g->ctx, (void **)&g->labels, &g->cap_label, g->nlabel, sizeof copy)) {
        at_free(g->ctx, copy);
        at_fail(&g->err, ATTEND_ENOMEM, "no memory for the label '%s'", label);
        return;
    }
    g->label = g->labels[g->nlabel++] = copy;
}

const char *attend_graph_error(const attend_graph *g)
{
    return g ? g->err.text : "no memory for a graph";
}

int attend_graph_status(const attend_graph *g)
{
    return g ? g->err.status : ATTEND_ENOMEM;
}

/* A copy of count elements, in an array with room for just them. */
static bool copy_array(attend_ctx *ctx, void **dst, int *cap, const void *src, int count,
                       size_t size)
{
    *cap = count;
    if (!count)
        return true;
    *dst = at_alloc(ctx, (int64_t)((size_t)count * size));
    if (*dst)
        memcpy(*dst, src, (size_t)count * size);
    return *dst != NULL;
}

static bool copy_strings(attend_ctx *ctx, char ***dst, int *cap, int *ncopied, char *const *src,
                         int n)
{
    *dst = at_calloc(ctx, n ? n : 1, sizeof **dst);
    *cap = n ? n : 1;
    for (int i = 0; *dst && i < n; i++, ++*ncopied)
        if (!((*dst)[i] = at_strdup(ctx, src[i])))
            return false;
    return *dst != NULL;
}

struct at_expr *at_graph_expr(attend_graph *g, const struct at_expr *x)
{
    struct at_expr *copy = at_alloc(g->ctx, sizeof *copy);
    if (!copy || !at_grow(g->ctx, (void **)&g->expr, &g->cap_expr, g->nexpr, sizeof copy)) {
        at_free(g->ctx, copy);
        return NULL;
    }
    *copy = *x;
    return g->expr[g->nexpr++] = copy;
}

/* The nodes of c, which still point to g's expressions, get copies. */
static bool copy_exprs(attend_graph *c, const attend_graph *g)
{
    for (int k = 0; k < g->nexpr; k++) {
        const struct at_expr *copy = at_graph_expr(c, g->expr[k]);
        if (!copy)
            return false;
        for (int i = 0; i < c->nnode; i++) {
            struct at_attention *p = &c->node[i].p.attention;
            if (c->node[i].op != AT_ATTENTION && c->node[i].op != AT_WEIGHTS &&
                c->node[i].op != AT_ATTENTION_GRAD)
                continue;
            if (p->score == g->expr[k])
                p->score = copy;
            if (p->mask == g->expr[k])
                p->mask = copy;
        }
    }
    return true;
}

attend_graph *at_graph_copy(const attend_graph *g)
{
    attend_ctx *ctx = g->ctx;
    attend_graph *c = attend_graph_new(ctx);
    if (!c)
        return NULL;
    bool ok = copy_array(ctx, (void **)&c->tensor, &c->cap_tensor, g->tensor, g->ntensor,
                         sizeof *g->tensor);
    for (int i = 0; ok && i < g->ntensor; i++, c->ntensor++)
        if (g->tensor[i].name)
            ok = (c->tensor[i].name = at_strdup(ctx, g->tensor[i].name)) != NULL;
    ok = ok && copy_strings(ctx, &c->labels, &c->cap_label, &c->nlabel, g->labels, g->nlabel) &&
         copy_strings(ctx, &c->note, &c->cap_note, &c->nnote, g->note, g->nnote) &&
         copy_array(ctx, (void **)&c->node, &c->cap_node, g->node, g->nnode, sizeof *g->node);
    for (int i = 0; ok && i < g->nnode; i++, c->nnode++) {
        struct at_node *n = &c->node[i];
        for (int k = 0; n->label && k < g->nlabel; k++)
            if (n->label == g->labels[k]) {
                n->label = c->labels[k];
                break;
            }
        if (g->node[i].fused)
            ok = (n->fused = at_strdup(ctx, g->node[i].fused)) != NULL;
    }
    ok = ok && copy_exprs(c, g);
    ok = ok &&
         copy_array(ctx, (void **)&c->output, &c->cap_output, g->output, g->noutput, sizeof(int));
    c->noutput = ok ? g->noutput : 0;
    ok = ok && copy_array(ctx, (void **)&c->dims.form, &c->dims.cap_form, g->dims.form,
                          g->dims.nform, sizeof *g->dims.form);
    c->dims.nform = ok ? g->dims.nform : 0;
    ok = ok && copy_array(ctx, (void **)&c->dims.sym, &c->dims.cap_sym, g->dims.sym, g->dims.nsym,
                          sizeof *g->dims.sym);
    for (int i = 0; ok && i < g->dims.nsym; i++, c->dims.nsym++)
        ok = (c->dims.sym[i].name = at_strdup(ctx, g->dims.sym[i].name)) != NULL;
    if (ok)
        return c;
    attend_graph_free(c);
    return NULL;
}
