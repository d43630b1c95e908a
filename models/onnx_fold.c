/* SPDX-License-Identifier: MIT */
/* Integers worked out on the host: exported models compute shapes and indices from the shapes of
 * their inputs, with the operators that they use for tensors.  Everything is int64 in between. */
#include "onnx.h"

#include <string.h>

enum { MANY = 1 << 20 }; /* elements: what is folded is shapes and positions, not data */

static bool is_integer(attend_type type)
{
    return type == ATTEND_I64 || type == ATTEND_I32 || type == ATTEND_BOOL;
}

/* Integers of a known value. */
struct ints {
    attend_shape shape;
    int64_t count;
    int64_t *x;
};

static bool load(struct onnx_node *n, int k, struct ints *a)
{
    const struct onnx_value *v = n->in[k];
    a->shape = v->shape;
    a->count = at_onnx_count(&v->shape);
    a->x = at_onnx_alloc(n, a->count, sizeof *a->x);
    for (int64_t i = 0; a->x && i < a->count; i++)
        a->x[i] = at_onnx_integer(v, i);
    return a->x != NULL;
}

static struct ints make(struct onnx_node *n, attend_shape shape)
{
    struct ints a = {.shape = shape, .count = at_onnx_count(&shape)};
    for (int d = 0; d < shape.rank; d++)
        if (shape.dim[d] < 0)
            a.count = -1;
    if (a.count < 0 || a.count > MANY)
        at_onnx_fail(n, ATTEND_ELIMIT, "%lld integers; at most %d are worked out",
                     (long long)a.count, MANY);
    else
        a.x = at_onnx_alloc(n, a.count, sizeof *a.x);
    return a;
}

static void store(struct onnx_node *n, const struct ints *a, attend_type type)
{
    char *out = a->x ? at_onnx_alloc(n, a->count, (int64_t)attend_type_size(type)) : NULL;
    for (int64_t i = 0; out && i < a->count; i++) {
        if (type == ATTEND_I64)
            ((int64_t *)(void *)out)[i] = a->x[i];
        else if (type == ATTEND_I32)
            ((int32_t *)(void *)out)[i] = (int32_t)a->x[i];
        else
            out[i] = a->x[i] != 0;
    }
    if (out)
        at_onnx_give_known(n, 0, type, a->shape, out);
}

/* ---- elementwise, with broadcasting ---- */

static bool broadcast(const attend_shape *a, const attend_shape *b, attend_shape *out)
{
    out->rank = a->rank > b->rank ? a->rank : b->rank;
    for (int d = 1; d <= out->rank; d++) {
        int64_t x = d > a->rank ? 1 : a->dim[a->rank - d],
                y = d > b->rank ? 1 : b->dim[b->rank - d];
        if (x != y && x != 1 && y != 1)
            return false;
        out->dim[out->rank - d] = x == 1 ? y : x;
    }
    return true;
}

/* Element number `place` of `like` in a, which is broadcast to it. */
static int64_t element(const struct ints *a, const attend_shape *like, int64_t place)
{
    int64_t at = 0, step = 1;
    for (int d = 1; d <= like->rank; d++) {
        int64_t i = place % like->dim[like->rank - d];
        place /= like->dim[like->rank - d];
        if (d > a->shape.rank)
            break;
        at += a->shape.dim[a->shape.rank - d] == 1 ? 0 : i * step;
        step *= a->shape.dim[a->shape.rank - d];
    }
    return a->x[at];
}

/* Wraps around, as ONNX Runtime does; a quotient that does not exist is 0. */
static int64_t calculate(const char *op, int64_t x, int64_t y)
{
    uint64_t a = (uint64_t)x, b = (uint64_t)y;
    switch (*op) {
    case '+':
        return (int64_t)(a + b);
    case '-':
        return (int64_t)(a - b);
    case '*':
        return (int64_t)(a * b);
    case '/':
        return y == 0 ? 0 : y == -1 ? (int64_t)(0 - a) : x / y;
    case '&':
        return x && y;
    case '|':
        return x || y;
    case '<':
        return x < y || (op[1] && x == y);
    case '>':
        return x > y || (op[1] && x == y);
    default:
        return x == y;
    }
}

/* The operators of two inputs; those of the second kind give booleans. */
static const struct {
    const char *name, *op;
    bool boolean;
} binaries[] = {
    {"Add",            "+",  false},
    {"Sub",            "-",  false},
    {"Mul",            "*",  false},
    {"Div",            "/",  false},
    {"And",            "&",  true },
    {"Or",             "|",  true },
    {"Less",           "<",  true },
    {"LessOrEqual",    "<=", true },
    {"Greater",        ">",  true },
    {"GreaterOrEqual", ">=", true },
    {"Equal",          "=",  true },
};

static void fold_binary(struct onnx_node *n)
{
    struct ints a, b, c;
    attend_shape s;
    size_t k = 0;
    while (strcmp(binaries[k].name, n->op) != 0)
        k++;
    if (!load(n, 0, &a) || !load(n, 1, &b))
        return;
    if (!broadcast(&a.shape, &b.shape, &s)) {
        at_onnx_fail(n, ATTEND_EINVAL, "the shapes of its inputs do not fit");
        return;
    }
    c = make(n, s);
    for (int64_t i = 0; c.x && i < c.count; i++)
        c.x[i] = calculate(binaries[k].op, element(&a, &s, i), element(&b, &s, i));
    store(n, &c, binaries[k].boolean ? ATTEND_BOOL : n->in[0]->type);
}

static void fold_expand(struct onnx_node *n)
{
    struct ints a, y;
    int64_t dim[ONNX_MAX_INTS];
    attend_shape to = {0}, s;
    int rank = at_onnx_known(n, 1, dim);
    if (rank > ATTEND_MAX_RANK)
        at_onnx_fail(n, ATTEND_ELIMIT, "to rank %d; at most %d are supported", rank,
                     ATTEND_MAX_RANK);
    if (at_onnx_failed(n) || !load(n, 0, &a))
        return;
    for (to.rank = 0; to.rank < rank; to.rank++)
        to.dim[to.rank] = dim[to.rank];
    if (!broadcast(&a.shape, &to, &s)) {
        at_onnx_fail(n, ATTEND_EINVAL, "the shape does not fit");
        return;
    }
    y = make(n, s);
    for (int64_t i = 0; y.x && i < y.count; i++)
        y.x[i] = element(&a, &s, i);
    store(n, &y, n->in[0]->type);
}

static void fold_not(struct onnx_node *n)
{
    struct ints a;
    if (!load(n, 0, &a))
        return;
    for (int64_t i = 0; i < a.count; i++)
        a.x[i] = !a.x[i];
    store(n, &a, ATTEND_BOOL);
}

static void fold_where(struct onnx_node *n)
{
    struct ints c, a, b, y;
    attend_shape s, all;
    if (!load(n, 0, &c) || !load(n, 1, &a) || !load(n, 2, &b))
        return;
    if (!broadcast(&a.shape, &b.shape, &s) || !broadcast(&c.shape, &s, &all)) {
        at_onnx_fail(n, ATTEND_EINVAL, "the shapes of its inputs do not fit");
        return;
    }
    y = make(n, all);
    for (int64_t i = 0; y.x && i < y.count; i++)
        y.x[i] = element(element(&c, &all, i) ? &a : &b, &all, i);
    store(n, &y, n->in[1]->type);
}

static void fold_cast(struct onnx_node *n)
{
    struct ints a;
    int64_t to = at_onnx_int(n, "to", 0);
    attend_type type = to == 6 ? ATTEND_I32 : to == 9 ? ATTEND_BOOL : ATTEND_I64;
    if (load(n, 0, &a))
        store(n, &a, type);
}

/* ---- shapes and pieces ---- */

static void fold_shape(struct onnx_node *n)
{
    const attend_shape *s = &n->in[0]->shape;
    int64_t start = at_onnx_int(n, "start", 0), end = at_onnx_int(n, "end", s->rank);
    start = start < 0 ? start + s->rank : start;
    end = end < 0 ? end + s->rank : end;
    start = start < 0 ? 0 : start > s->rank ? s->rank : start;
    end = end < start ? start : end > s->rank ? s->rank : end;
    struct ints a = make(n, ATTEND_SHAPE(end - start));
    for (int64_t d = start; a.x && d < end; d++)
        a.x[d - start] = s->dim[d];
    store(n, &a, ATTEND_I64);
}

static void fold_constant_of_shape(struct onnx_node *n)
{
    struct onnx_value v = {.type = ATTEND_F32, .data = &(const float){0}};
    int64_t dim[ONNX_MAX_INTS];
    attend_shape s = {0};
    int rank = at_onnx_known(n, 0, dim);
    at_onnx_tensor(n, "value", &v);
    if (rank > ATTEND_MAX_RANK || (v.shape.rank && at_onnx_count(&v.shape) != 1))
        at_onnx_fail(n, ATTEND_ELIMIT, "to rank %d; at most %d are supported", rank,
                     ATTEND_MAX_RANK);
    if (at_onnx_failed(n))
        return;
    s.rank = rank;
    for (int d = 0; d < rank; d++) {
        s.dim[d] = dim[d];
        if (dim[d] < 0)
            at_onnx_fail(n, ATTEND_EINVAL, "an extent is %lld", (long long)dim[d]);
    }
    int64_t count = at_onnx_count(&s);
    size_t size = attend_type_size(v.type);
    char *out = at_onnx_failed(n) || count < 0 ? NULL : at_onnx_alloc(n, count, (int64_t)size);
    for (int64_t k = 0; out && k < count; k++)
        memcpy(out + (size_t)k * size, v.data, size);
    if (out)
        at_onnx_give_known(n, 0, v.type, s, out);
    else
        at_onnx_fail(n, ATTEND_ELIMIT, "%lld elements", (long long)count);
}

static void fold_range(struct onnx_node *n)
{
    int64_t start, limit, step, count = 0;
    if (!at_onnx_known_one(n, 0, &start) || !at_onnx_known_one(n, 1, &limit) ||
        !at_onnx_known_one(n, 2, &step))
        return;
    __int128 span = (__int128)limit - start;
    if (step == 0)
        at_onnx_fail(n, ATTEND_EINVAL, "the step is 0");
    else if ((span > 0) == (step > 0) && span != 0)
        span = (span + step - (step > 0 ? 1 : -1)) / step;
    else
        span = 0;
    if (step != 0)
        count = span > MANY ? MANY + 1 : (int64_t)span;
    struct ints a = make(n, ATTEND_SHAPE(count));
    for (int64_t i = 0; a.x && i < a.count; i++)
        a.x[i] = start + i * step;
    store(n, &a, n->in[0]->type);
}

/* Along axis 0 of vectors: enough for shapes. */
static void fold_concat(struct onnx_node *n)
{
    int64_t total = 0, at = 0;
    for (int k = 0; k < n->nin; k++) {
        total += at_onnx_count(&n->in[k]->shape);
        if (n->in[k]->shape.rank != 1) {
            at_onnx_fail(n, ATTEND_EUNSUPPORTED, "of integers of rank %d", n->in[k]->shape.rank);
            return;
        }
    }
    struct ints y = make(n, ATTEND_SHAPE(total)), a;
    for (int k = 0; y.x && k < n->nin && load(n, k, &a); k++)
        for (int64_t i = 0; i < a.count; i++)
            y.x[at++] = a.x[i];
    store(n, &y, n->in[0]->type);
}

static void fold_gather(struct onnx_node *n)
{
    struct ints a, index;
    if (!load(n, 0, &a) || !load(n, 1, &index))
        return;
    if (a.shape.rank != 1) {
        at_onnx_fail(n, ATTEND_EUNSUPPORTED, "of integers of rank %d", a.shape.rank);
        return;
    }
    struct ints y = make(n, index.shape);
    for (int64_t i = 0; y.x && i < y.count; i++) {
        int64_t k = index.x[i] < 0 ? index.x[i] + a.count : index.x[i];
        if (k < 0 || k >= a.count)
            at_onnx_fail(n, ATTEND_EINVAL, "index %lld of %lld", (long long)index.x[i],
                         (long long)a.count);
        else
            y.x[i] = a.x[k];
    }
    store(n, &y, n->in[0]->type);
}

static int64_t bound(int64_t x, int64_t count)
{
    x = x < 0 ? (x < -count ? 0 : x + count) : x;
    return x > count ? count : x;
}

static void fold_slice(struct onnx_node *n)
{
    int64_t start, end, step = 1, axis = 0;
    struct ints a;
    if (n->opset < 10 || n->nin < 3 || !at_onnx_known_one(n, 1, &start) ||
        !at_onnx_known_one(n, 2, &end) || n->in[0]->shape.rank != 1 || !load(n, 0, &a) ||
        (at_onnx_given(n, 3) && !at_onnx_known_one(n, 3, &axis)) ||
        (at_onnx_given(n, 4) && !at_onnx_known_one(n, 4, &step)) || step != 1) {
        at_onnx_fail(n, ATTEND_EUNSUPPORTED, "of integers other than in one run of a vector");
        return;
    }
    start = bound(start, a.count);
    end = bound(end, a.count);
    a.x += start;
    a.count = end > start ? end - start : 0;
    a.shape.dim[0] = a.count;
    store(n, &a, n->in[0]->type);
}

/* ---- which ---- */

static const struct {
    const char *name;
    void (*fold)(struct onnx_node *n);
    bool shape_only; /* the contents of its inputs do not matter */
} folds[] = {
    {"Shape",           fold_shape,             true },
    {"ConstantOfShape", fold_constant_of_shape, false},
    {"Range",           fold_range,             false},
    {"Expand",          fold_expand,            false},
    {"Not",             fold_not,               false},
    {"Where",           fold_where,             false},
    {"Concat",          fold_concat,            false},
    {"Gather",          fold_gather,            false},
    {"Slice",           fold_slice,             false},
    {"Cast",            fold_cast,              false},
};

/* Known integers, all of them and not too many. */
static bool all_known(const struct onnx_node *n)
{
    for (int k = 0; k < n->nin; k++) {
        const struct onnx_value *v = n->in[k];
        if (!v || !v->data || !is_integer(v->type) || at_onnx_count(&v->shape) > MANY)
            return false;
    }
    return true;
}

static bool casts_to_integer(struct onnx_node *n)
{
    int64_t to = at_onnx_int(n, "to", 0);
    return to == 6 || to == 7 || to == 9;
}

bool at_onnx_fold(struct onnx_node *n)
{
    if (n->proto->domain && strcmp(n->proto->domain, "com.microsoft") == 0)
        return false;
    for (size_t k = 0; k < sizeof binaries / sizeof *binaries; k++)
        if (strcmp(binaries[k].name, n->op) == 0 && all_known(n)) {
            fold_binary(n);
            return true;
        }
    for (size_t k = 0; k < sizeof folds / sizeof *folds; k++) {
        if (strcmp(folds[k].name, n->op) != 0)
            continue;
        if ((!folds[k].shape_only && !all_known(n)) ||
            (folds[k].fold == fold_cast && !casts_to_integer(n)))
            return false;
        folds[k].fold(n);
        return true;
    }
    return false;
}
