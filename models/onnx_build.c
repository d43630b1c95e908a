/* SPDX-License-Identifier: MIT */
/* The walk over the nodes of an ONNX model that makes a graph: values by name, and what builders of
 * operators use of a node.  What each operator becomes is onnx_ops.c, onnx_attn.c and onnx_fold.c.
 */
#include "onnx.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* ---- building: values by name ---- */

struct onnx_build {
    attend_onnx *m;
    attend_graph *g;
    int status; /* the first error */
    struct onnx_say say;
    struct onnx_value *value; /* all of the model, in the order of appearance */
    int nvalue, cap;
    int *slot; /* open addressing: indices of value, or -1 */
    uint32_t mask;
};

static uint32_t hash(const char *s)
{
    uint32_t h = 2166136261u; /* FNV-1a */
    for (; *s; s++)
        h = (h ^ (unsigned char)*s) * 16777619u;
    return h;
}

/* The slot that holds the name, or the free one where it belongs. */
static int *find_slot(const struct onnx_build *b, const char *name)
{
    uint32_t k = hash(name) & b->mask;
    while (b->slot[k] >= 0 && strcmp(b->value[b->slot[k]].name, name) != 0)
        k = (k + 1) & b->mask;
    return &b->slot[k];
}

static struct onnx_value *find_value(const struct onnx_build *b, const char *name)
{
    int k = *find_slot(b, name);
    return k < 0 ? NULL : &b->value[k];
}

static void add_value(struct onnx_build *b, const struct onnx_value *v)
{
    int *slot = find_slot(b, v->name);
    if (b->status)
        return;
    if (!*v->name || *slot >= 0) {
        b->status = at_say(b->say.err, b->say.errlen, ATTEND_EFORMAT, "%s '%.80s'",
                           *v->name ? "two values have the name" : "a value has no name", v->name);
        return;
    }
    *slot = b->nvalue;
    b->value[b->nvalue++] = *v;
}

/* As many values as the model names. */
static int make_table(struct onnx_build *b)
{
    const AtOnnx__Graph *g = b->m->proto->graph;
    int64_t count = (int64_t)b->m->ninput + b->m->nconstant;
    for (size_t k = 0; k < g->n_node; k++)
        count += (int64_t)g->node[k]->n_output;
    int64_t slots = 16;
    while (slots < 2 * count)
        slots *= 2;
    if (count > INT32_MAX / 4)
        return at_say(b->say.err, b->say.errlen, ATTEND_ELIMIT, "the model has %lld values",
                      (long long)count);
    b->mask = (uint32_t)(slots - 1);
    b->value = calloc((size_t)count + 1, sizeof *b->value);
    b->slot = malloc((size_t)slots * sizeof *b->slot);
    if (!b->value || !b->slot)
        return at_say(b->say.err, b->say.errlen, ATTEND_ENOMEM, "no memory for %lld values",
                      (long long)count);
    memset(b->slot, -1, (size_t)slots * sizeof *b->slot);
    return 0;
}

/* "2 x 3"; -1 is "?" */
static const char *shape_text(const attend_shape *s, char buf[128])
{
    size_t n = 0;
    snprintf(buf, 128, "a scalar");
    for (int d = 0; d < s->rank; d++)
        n += (size_t)(s->dim[d] < 0 ? snprintf(buf + n, 128 - n, "%s?", d ? " x " : "")
                                    : snprintf(buf + n, 128 - n, "%s%lld", d ? " x " : "",
                                               (long long)s->dim[d]));
    return buf;
}

/* The type that a graph has for one of ONNX's; -1: none. */
static int graph_type(attend_type type)
{
    return type == ATTEND_F64                       ? ATTEND_F32
           : type == ATTEND_I64                     ? ATTEND_I32
           : type == ATTEND_I8 || type == ATTEND_U8 ? -1
                                                    : (int)type;
}

static int check_input(const struct onnx_build *b, int i, const attend_array *a)
{
    const attend_onnx_info *want = &b->m->input[i];
    char got[128], model[128];
    bool fits = a->shape.rank >= 0 && a->shape.rank <= ATTEND_MAX_RANK &&
                (want->shape.rank < 0 || a->shape.rank == want->shape.rank);
    if (a->type != want->type)
        return at_say(b->say.err, b->say.errlen, ATTEND_EINVAL,
                      "input '%.80s' is %s, the model wants %s", want->name,
                      attend_type_name(a->type), attend_type_name(want->type));
    for (int d = 0; fits && d < a->shape.rank; d++)
        fits = a->shape.dim[d] >= 0 && (want->shape.rank < 0 || want->shape.dim[d] < 0 ||
                                        want->shape.dim[d] == a->shape.dim[d]);
    if (!fits)
        return at_say(b->say.err, b->say.errlen, ATTEND_EINVAL,
                      "input '%.80s' is %s, the model wants %s", want->name,
                      a->shape.rank < 0 || a->shape.rank > ATTEND_MAX_RANK
                          ? "of no rank"
                          : shape_text(&a->shape, got),
                      want->shape.rank < 0 ? "any shape" : shape_text(&want->shape, model));
    if (!a->data && graph_type(a->type) < 0)
        return at_say(b->say.err, b->say.errlen, ATTEND_EUNSUPPORTED,
                      "input '%.80s' is %s and its values are not given", want->name,
                      attend_type_name(a->type));
    return 0;
}

static int add_input(struct onnx_build *b, int i, const attend_array *a)
{
    struct onnx_value v = {b->m->input[i].name, a->type, a->shape, attend_none(), NULL};
    int status = check_input(b, i, a);
    if (status < 0)
        return status;
    if (a->data) {
        int64_t count = at_onnx_count(&a->shape);
        void *copy =
            count < 0 ? NULL : at_onnx_keep(b->m, count, (int64_t)attend_type_size(a->type));
        if (!copy)
            return at_say(b->say.err, b->say.errlen, ATTEND_ENOMEM, "no memory for input '%.80s'",
                          v.name);
        memcpy(copy, a->data, (size_t)count * attend_type_size(a->type));
        v.data = copy;
    } else {
        v.t = attend_graph_input(b->g, v.name, (attend_type)graph_type(a->type), a->shape);
    }
    add_value(b, &v);
    return b->status;
}

/* ---- building: errors and memory of nodes ---- */

void at_onnx_fail(struct onnx_node *n, int status, const char *fmt, ...)
{
    char what[320];
    va_list ap;
    if (n->b->status)
        return;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    n->b->status = at_say(n->b->say.err, n->b->say.errlen, status, "node '%.80s' (%.40s): %s",
                          n->name, n->op, what);
}

bool at_onnx_failed(const struct onnx_node *n)
{
    return n->b->status || attend_graph_status(n->g) < 0;
}

void *at_onnx_alloc(struct onnx_node *n, int64_t count, int64_t size)
{
    void *p = at_onnx_keep(n->b->m, count, size);
    if (!p)
        at_onnx_fail(n, ATTEND_ENOMEM, "no memory for %lld elements", (long long)count);
    return p;
}

/* ---- building: attributes ---- */

static const AtOnnx__Attribute *attribute(const struct onnx_node *n, const char *name)
{
    for (size_t k = 0; k < n->proto->n_attribute; k++)
        if (strcmp(at_onnx_text(n->proto->attribute[k]->name), name) == 0)
            return n->proto->attribute[k];
    return NULL;
}

/* The attribute if it is there and of a type (0, of old files: not said). */
static const AtOnnx__Attribute *typed(struct onnx_node *n, const char *name, int type)
{
    const AtOnnx__Attribute *a = attribute(n, name);
    if (a && a->type && a->type != type) {
        at_onnx_fail(n, ATTEND_EFORMAT, "attribute %s is of type %d, wants %d", name, (int)a->type,
                     type);
        return NULL;
    }
    return a;
}

bool at_onnx_has_attribute(const struct onnx_node *n, const char *name)
{
    return attribute(n, name) != NULL;
}

int64_t at_onnx_int(struct onnx_node *n, const char *name, int64_t absent)
{
    const AtOnnx__Attribute *a = typed(n, name, 2);
    return a ? a->i : absent;
}

float at_onnx_float(struct onnx_node *n, const char *name, float absent)
{
    const AtOnnx__Attribute *a = typed(n, name, 1);
    return a ? a->f : absent;
}

int at_onnx_ints(struct onnx_node *n, const char *name, int64_t *out)
{
    const AtOnnx__Attribute *a = typed(n, name, 7);
    if (!a)
        return -1;
    if (a->n_ints > ONNX_MAX_INTS) {
        at_onnx_fail(n, ATTEND_ELIMIT, "attribute %s has %zu numbers; at most %d are supported",
                     name, a->n_ints, ONNX_MAX_INTS);
        return -1;
    }
    for (size_t k = 0; k < a->n_ints; k++)
        out[k] = a->ints[k];
    return (int)a->n_ints;
}

bool at_onnx_says(struct onnx_node *n, const char *name, const char *want, bool absent)
{
    const AtOnnx__Attribute *a = typed(n, name, 3);
    return a ? a->s.len == strlen(want) && memcmp(a->s.data, want, a->s.len) == 0 : absent;
}

bool at_onnx_tensor(struct onnx_node *n, const char *name, struct onnx_value *out)
{
    char why[320] = "";
    const AtOnnx__Attribute *a = typed(n, name, 4);
    if (!a || !a->t)
        return false;
    *out = (struct onnx_value){.t = attend_none()};
    int status = at_onnx_read_tensor(n->b->m, a->t, out, &(struct onnx_say){why, sizeof why});
    if (status < 0)
        at_onnx_fail(n, status, "attribute %s: %s", name, why);
    return status == 0;
}

/* ---- building: inputs ---- */

static const void *converted(struct onnx_node *n, const struct onnx_value *v, attend_type type)
{
    int64_t count = at_onnx_count(&v->shape);
    void *to = at_onnx_alloc(n, count, (int64_t)attend_type_size(type));
    if (!to)
        return NULL;
    if (type == ATTEND_F32) {
        if (attend_convert(ATTEND_F32, to, v->type, v->data, count) < 0)
            at_onnx_fail(n, ATTEND_EUNSUPPORTED, "'%.80s' cannot be converted to f32", v->name);
        return to;
    }
    for (int64_t k = 0; k < count; k++) {
        int64_t x = at_onnx_integer(v, k);
        if (x < INT32_MIN || x > INT32_MAX) {
            at_onnx_fail(n, ATTEND_ELIMIT, "'%.80s' has the value %lld, which is no int32", v->name,
                         (long long)x);
            return NULL;
        }
        ((int32_t *)to)[k] = (int32_t)x;
    }
    return to;
}

attend_tensor at_onnx_value_tensor(struct onnx_node *n, struct onnx_value *v)
{
    if (v->t.graph || at_onnx_failed(n))
        return v->t;
    int type = graph_type(v->type);
    const void *data = v->data;
    if (type < 0)
        at_onnx_fail(n, ATTEND_EUNSUPPORTED, "'%.80s' is %s, which graphs do not have", v->name,
                     attend_type_name(v->type));
    else if ((attend_type)type != v->type)
        data = converted(n, v, (attend_type)type);
    if (!at_onnx_failed(n))
        v->t = at_onnx_const(n, (attend_type)type, v->shape, data);
    return v->t;
}

attend_tensor at_onnx_use(struct onnx_node *n, int k)
{
    return at_onnx_value_tensor(n, n->in[k]);
}

attend_tensor at_onnx_use_rounded(struct onnx_node *n, int k)
{
    int type = graph_type(n->in[k]->type);
    attend_tensor t = at_onnx_use(n, k);
    return at_onnx_failed(n) ? t : at_onnx_cast(n, t, (attend_type)type);
}

double at_onnx_number(const struct onnx_value *v, int64_t i)
{
    const char *at = (const char *)v->data + (size_t)i * attend_type_size(v->type);
    double x = 0;
    if (v->type == ATTEND_BOOL)
        return *at != 0;
    return attend_convert(ATTEND_F64, &x, v->type, at, 1) < 0 ? 0 : x;
}

int64_t at_onnx_integer(const struct onnx_value *v, int64_t i)
{
    switch (v->type) {
    case ATTEND_I64:
        return ((const int64_t *)v->data)[i];
    case ATTEND_I32:
        return ((const int32_t *)v->data)[i];
    case ATTEND_I8:
        return ((const int8_t *)v->data)[i];
    case ATTEND_U8:
        return ((const uint8_t *)v->data)[i];
    default: /* bool */
        return ((const uint8_t *)v->data)[i] != 0;
    }
}

int at_onnx_known(struct onnx_node *n, int k, int64_t *out)
{
    const struct onnx_value *v = n->in[k];
    int64_t count = at_onnx_count(&v->shape);
    bool integer = v->type == ATTEND_I64 || v->type == ATTEND_I32;
    if (!integer)
        at_onnx_fail(n, ATTEND_EFORMAT, "'%.80s' is %s, wants integers", v->name,
                     attend_type_name(v->type));
    else if (!v->data)
        at_onnx_fail(n, ATTEND_EUNSUPPORTED,
                     "'%.80s' is not known before the run, which this operator needs", v->name);
    else if (count > ONNX_MAX_INTS)
        at_onnx_fail(n, ATTEND_ELIMIT, "'%.80s' has %lld numbers; at most %d are supported",
                     v->name, (long long)count, ONNX_MAX_INTS);
    if (!integer || !v->data || count > ONNX_MAX_INTS)
        return -1;
    for (int64_t i = 0; i < count; i++)
        out[i] = at_onnx_integer(v, i);
    return (int)count;
}

bool at_onnx_known_one(struct onnx_node *n, int k, int64_t *out)
{
    int64_t all[ONNX_MAX_INTS];
    int count = at_onnx_known(n, k, all);
    if (count >= 0 && count != 1)
        at_onnx_fail(n, ATTEND_EINVAL, "'%.80s' has %d numbers, wants one", n->in[k]->name, count);
    if (count == 1)
        *out = all[0];
    return count == 1;
}

/* ---- building: outputs and constants ---- */

static void give(struct onnx_node *n, int k, struct onnx_value *v)
{
    if (at_onnx_failed(n) || !at_onnx_wanted(n, k))
        return;
    v->name = n->proto->output[k];
    add_value(n->b, v);
}

void at_onnx_give(struct onnx_node *n, int k, attend_tensor t, attend_type type)
{
    give(n, k, &(struct onnx_value){.type = type, .shape = attend_tensor_shape(t), .t = t});
}

void at_onnx_give_known(struct onnx_node *n, int k, attend_type type, attend_shape shape,
                        const void *data)
{
    give(n, k, &(struct onnx_value){NULL, type, shape, attend_none(), data});
}

void at_onnx_give_reshaped(struct onnx_node *n, int k, attend_shape shape)
{
    const struct onnx_value *v = n->in[0];
    char from[128], to[128];
    if (at_onnx_count(&shape) != at_onnx_count(&v->shape))
        at_onnx_fail(n, ATTEND_EINVAL, "%s cannot become %s", shape_text(&v->shape, from),
                     shape_text(&shape, to));
    else if (v->data)
        at_onnx_give_known(n, k, v->type, shape, v->data);
    else
        at_onnx_give(n, k, attend_graph_reshape(n->g, at_onnx_use(n, 0), shape), v->type);
}

int at_onnx_axis(struct onnx_node *n, int64_t axis, int rank)
{
    if (axis >= -rank && axis < rank)
        return (int)(axis < 0 ? axis + rank : axis);
    at_onnx_fail(n, ATTEND_EINVAL, "axis %lld of a tensor of rank %d", (long long)axis, rank);
    return 0;
}

attend_tensor at_onnx_const(struct onnx_node *n, attend_type type, attend_shape shape,
                            const void *data)
{
    return attend_graph_const(n->g, n->name, type, shape, data,
                              at_onnx_count(&shape) * (int64_t)attend_type_size(type));
}

attend_tensor at_onnx_fill(struct onnx_node *n, attend_type type, attend_shape shape, double x)
{
    int64_t count = at_onnx_count(&shape);
    size_t size = attend_type_size(type);
    char one[8] = "";
    char *data = at_onnx_alloc(n, count, (int64_t)size);
    if (!data)
        return attend_none();
    if (type == ATTEND_I32)
        memcpy(one, &(int32_t){(int32_t)x}, sizeof(int32_t));
    else if (type == ATTEND_BOOL)
        one[0] = x != 0;
    else if (attend_convert(type, one, ATTEND_F64, &x, 1) < 0)
        at_onnx_fail(n, ATTEND_EUNSUPPORTED, "no constant of type %s", attend_type_name(type));
    for (int64_t k = 0; k < count; k++)
        memcpy(data + (size_t)k * size, one, size);
    return at_onnx_const(n, type, shape, data);
}

/* ---- building: nodes ---- */

/* The row of the node's operator, or NULL with the reason recorded. */
static const struct onnx_op *find_op(struct onnx_node *n)
{
    const char *domain = at_onnx_text(n->proto->domain);
    bool own = at_onnx_own_domain(domain), microsoft = strcmp(domain, "com.microsoft") == 0;
    const struct onnx_op *op = own         ? at_onnx_ops
                               : microsoft ? at_onnx_microsoft_ops
                                           : &(const struct onnx_op){0};
    n->opset = own ? n->b->m->opset : microsoft ? n->b->m->microsoft : 0;
    while (op->name && strcmp(op->name, n->op) != 0)
        op++;
    if (!op->name)
        at_onnx_fail(n, ATTEND_EUNSUPPORTED, "operator '%.40s'%s%.40s is not supported", n->op,
                     own ? "" : " of ", own ? "" : domain);
    else if (n->opset < op->since || (op->until && n->opset > op->until))
        at_onnx_fail(n, ATTEND_EUNSUPPORTED,
                     op->until ? "opset %lld, supported are %lld to %lld"
                               : "opset %lld, supported are those from %lld on",
                     (long long)n->opset, (long long)op->since, (long long)op->until);
    return op->name && !n->b->status ? op : NULL;
}

static void find_inputs(struct onnx_node *n, const struct onnx_op *op)
{
    if (n->nin > ONNX_MAX_IN || n->nin > op->max_in || n->nout > op->max_out) {
        at_onnx_fail(n, ATTEND_EFORMAT, "%d inputs and %d outputs; at most %d and %d are supported",
                     n->nin, n->nout, op->max_in, op->max_out);
        return;
    }
    for (int k = 0; k < n->nin; k++) {
        const char *name = n->proto->input[k];
        n->in[k] = *name ? find_value(n->b, name) : NULL;
        if (*name && !n->in[k])
            at_onnx_fail(n, ATTEND_EFORMAT, "it reads '%.80s', which nothing before it makes",
                         name);
    }
    for (int k = 0; k < op->min_in; k++)
        if (!at_onnx_given(n, k))
            at_onnx_fail(n, ATTEND_EFORMAT, "input %d is missing", k);
}

static void build_node(struct onnx_build *b, const AtOnnx__Node *proto)
{
    struct onnx_node n = {.b = b,
                          .g = b->g,
                          .proto = proto,
                          .op = at_onnx_text(proto->op_type),
                          .name = at_onnx_text(proto->name),
                          .nin = (int)proto->n_input,
                          .nout = (int)proto->n_output};
    if (!*n.name)
        n.name = n.nout > 0 ? proto->output[0] : "?";
    const struct onnx_op *op = find_op(&n);
    if (op)
        find_inputs(&n, op);
    if (b->status)
        return;
    attend_graph_label(b->g, n.name);
    if (!at_onnx_fold(&n) && !b->status)
        op->build(&n);
    if (!b->status && attend_graph_status(b->g) < 0)
        at_onnx_fail(&n, attend_graph_status(b->g), "%s", attend_graph_error(b->g));
    for (int k = 0; k < n.nout && !b->status; k++)
        if (at_onnx_wanted(&n, k) && !find_value(b, proto->output[k]))
            at_onnx_fail(&n, ATTEND_EUNSUPPORTED, "output %d is not supported", k);
}

static int finish_output(struct onnx_build *b, int i, attend_array *out)
{
    const attend_onnx_info *info = &b->m->output[i];
    struct onnx_node n = {.b = b, .g = b->g, .op = "output", .name = info->name};
    struct onnx_value *v = find_value(b, info->name);
    if (!v) {
        at_onnx_fail(&n, ATTEND_EFORMAT, "nothing makes it");
        return b->status;
    }
    *out = (attend_array){.type = v->type, .shape = v->shape};
    if (v->type != info->type) {
        at_onnx_fail(&n, ATTEND_EFORMAT, "it is %s but declared as %s", attend_type_name(v->type),
                     attend_type_name(info->type));
    } else if (v->data) {
        out->data = (void *)(uintptr_t)v->data; /* read only, as the header says */
        out->bytes = at_onnx_count(&v->shape) * (int64_t)attend_type_size(v->type);
    } else {
        attend_graph_output(b->g, v->name,
                            at_onnx_cast(&n, v->t, (attend_type)graph_type(v->type)));
    }
    if (!b->status && attend_graph_status(b->g) < 0)
        at_onnx_fail(&n, attend_graph_status(b->g), "%s", attend_graph_error(b->g));
    return b->status;
}

static int build_all(struct onnx_build *b, const attend_array *inputs, attend_array *outputs)
{
    const AtOnnx__Graph *g = b->m->proto->graph;
    int status = make_table(b);
    for (int i = 0; i < b->m->ninput && status == 0; i++)
        status = add_input(b, i, &inputs[i]);
    b->status = status;
    for (int k = 0; k < b->m->nconstant && !b->status; k++)
        add_value(b, &b->m->constant[k]);
    for (size_t k = 0; k < g->n_node && !b->status; k++)
        build_node(b, g->node[k]);
    attend_graph_label(b->g, NULL);
    for (int i = 0; i < b->m->noutput && !b->status; i++)
        finish_output(b, i, &outputs[i]);
    return b->status;
}

int attend_onnx_build(attend_onnx *m, attend_graph *g, const attend_array *inputs,
                      attend_array *outputs, char *err, size_t errlen)
{
    struct onnx_build b = {
        .m = m, .g = g, .say = {err, errlen}
    };
    int status = build_all(&b, inputs, outputs);
    free(b.value);
    free(b.slot);
    return status;
}
