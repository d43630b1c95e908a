/* SPDX-License-Identifier: MIT */
/* The other operators on the CPU: how their rows are shared out over threads.  The arithmetic is
 * the block functions' (simd.h). */
#include <math.h>
#include <string.h>

#include "cpu.h"
#include "element.h"

/* ---- what the rows here take ---- */

static bool f32_rows(const attend_plan *plan, int t)
{
    return t < 0 || (plan->graph->tensor[t].type == ATTEND_F32 && at_cpu_has_rows(plan, t));
}

/* Every input and output is f32 with contiguous rows. */
static bool accepts_f32(const attend_plan *plan, const struct at_step *s, struct at_why *why)
{
    bool fine = plan->graph->tensor[s->out[0]].rank > 0;
    for (int k = 0; k < s->nin; k++)
        fine = fine && f32_rows(plan, s->in[k]);
    return at_need(why, fine && f32_rows(plan, s->out[0]),
                   "not all tensors are f32 with contiguous rows");
}

/* ---- walking rows ---- */

struct job {
    struct attend_exec *x;
    const struct at_step *s;
    const struct at_simd *t;
    const struct at_view *in[3], *out;
    int64_t rows, per_item;
    const float *table; /* of rope */
};

static int64_t row_count(const struct at_view *v)
{
    int64_t n = 1;
    for (int d = 0; d < v->rank - 1; d++)
        n *= v->shape[d];
    return n;
}

/* Element offset of row `row` of a tensor with out's leading axes, of v, which is right-aligned to
 * it and whose axes of extent 1 are repeated. */
static int64_t row_offset(const struct at_view *out, int64_t row, const struct at_view *v)
{
    int64_t offset = 0;
    for (int d = out->rank - 2; d >= 0; d--) {
        int64_t i = row % out->shape[d];
        int e = d - (out->rank - v->rank);
        row /= out->shape[d];
        if (e >= 0 && v->shape[e] != 1)
            offset += i * v->stride[e];
    }
    return offset;
}

static float *f32_row(const struct at_view *out, int64_t row, const struct at_view *v)
{
    return (float *)v->data + row_offset(out, row, v);
}

#define ITEM_BYTES                                                                                 \
    65536 /* of output in a work item: fits a core's cache, and is worth a hand-over */

static int each_row(struct attend_exec *x, const struct at_step *s,
                    void (*fn)(void *arg, int64_t item, int slot), double flops_an_element)
{
    struct job j = {.x = x, .s = s, .t = at_cpu_kernels(s), .out = at_result(x, s)};
    for (int k = 0; k < 3; k++)
        j.in[k] = at_in(x, s, k);
    int64_t width = j.out->shape[j.out->rank - 1];
    j.rows = width ? row_count(j.out) : 0;
    j.per_item = at_max(1, ITEM_BYTES / at_max(1, width * (int64_t)sizeof(float)));
    return at_cpu_items(x, at_ceil_div(j.rows, j.per_item),
                        flops_an_element * (double)j.rows * (double)width, fn, &j);
}

/* ---- elementwise ---- */

typedef void binary_fn(float *y, const float *a, const float *b, int64_t n);
typedef void unary_fn(float *y, const float *x, int64_t n);

static void binary_row(const struct job *j, binary_fn *fn, int64_t row)
{
    float *y = f32_row(j->out, row, j->out);
    const float *a = f32_row(j->out, row, j->in[0]), *b = f32_row(j->out, row, j->in[1]);
    int64_t n = j->out->shape[j->out->rank - 1];
    int64_t na = j->in[0]->rank ? j->in[0]->shape[j->in[0]->rank - 1] : 1;
    int64_t nb = j->in[1]->rank ? j->in[1]->shape[j->in[1]->rank - 1] : 1;
    if (na == nb) {
        fn(y, a, b, n);
        return;
    }
    const float *wide = na == 1 ? b : a, one = na == 1 ? *a : *b;
    for (int64_t i = 0; i < n; i++)
        y[i] = j->s->op == AT_ADD ? wide[i] + one : wide[i] * one;
}

static void binary_item(void *arg, int64_t item, int slot)
{
    const struct job *j = arg;
    binary_fn *fn = j->s->op == AT_ADD   ? j->t->add
                    : j->s->op == AT_MUL ? j->t->mul
                                         : j->t->silu_mul; /* whose rows are alike */
    (void)slot;
    for (int64_t r = item * j->per_item; r < at_min(j->rows, (item + 1) * j->per_item); r++)
        binary_row(j, fn, r);
}

static int run_binary(struct attend_exec *x, const struct at_step *s)
{
    return each_row(x, s, binary_item, s->op == AT_SILU_MUL ? 8 : 1);
}

static void unary_item(void *arg, int64_t item, int slot)
{
    const struct job *j = arg;
    int64_t n = j->out->shape[j->out->rank - 1];
    (void)slot;
    for (int64_t r = item * j->per_item; r < at_min(j->rows, (item + 1) * j->per_item); r++) {
        float *y = f32_row(j->out, r, j->out);
        const float *a = f32_row(j->out, r, j->in[0]);
        const float *w = j->in[1] ? j->in[1]->data : NULL, *b = j->in[2] ? j->in[2]->data : NULL;
        switch (j->s->op) {
        case AT_SCALE:
            j->t->scale(y, a, j->s->p->scale.factor, n);
            break;
        case AT_SILU:
            j->t->silu(y, a, n);
            break;
        case AT_GELU:
            j->t->gelu(y, a, n);
            break;
        case AT_GELU_TANH:
            j->t->gelu_tanh(y, a, n);
            break;
        case AT_TANH:
            j->t->tanh(y, a, n);
            break;
        case AT_SOFTMAX:
            j->t->softmax(y, a, n);
            break;
        case AT_RMS_NORM:
            j->t->rms_norm(y, a, w, n, j->s->p->norm.eps);
            break;
        default:
            j->t->layer_norm(y, a, w, b, n, j->s->p->norm.eps);
        }
    }
}

static int run_unary(struct attend_exec *x, const struct at_step *s)
{
    return each_row(x, s, unary_item, 8);
}

/* Those that no block function has: the C library's, in f32. */
static void function_item(void *arg, int64_t item, int slot)
{
    const struct job *j = arg;
    int64_t n = j->out->shape[j->out->rank - 1];
    float exponent = j->s->op == AT_POW ? j->s->p->pow.exponent : 0;
    (void)slot;
    for (int64_t r = item * j->per_item; r < at_min(j->rows, (item + 1) * j->per_item); r++) {
        float *y = f32_row(j->out, r, j->out);
        const float *a = f32_row(j->out, r, j->in[0]);
        for (int64_t i = 0; i < n; i++)
            y[i] = j->s->op == AT_SIGMOID ? 1 / (1 + expf(-a[i]))
                   : j->s->op == AT_RELU  ? (a[i] < 0 ? 0 : a[i]) /* NaN stays NaN */
                   : j->s->op == AT_ERF   ? erff(a[i])
                                          : powf(a[i], exponent);
    }
}

static int run_function(struct attend_exec *x, const struct at_step *s)
{
    return each_row(x, s, function_item, 20);
}

/* ---- choices: where, select ---- */

/* A condition and what is chosen from. */
static bool accepts_choice(const attend_plan *plan, const struct at_step *s, struct at_why *why)
{
    bool rows = plan->graph->tensor[s->out[0]].rank > 0 && at_cpu_has_rows(plan, s->in[0]) &&
                f32_rows(plan, s->out[0]);
    for (int k = 1; k < s->nin; k++)
        rows = rows && f32_rows(plan, s->in[k]);
    return at_need(why, rows, "not all tensors are f32 with contiguous rows");
}

/* Steps along a row: 0 where it is one element, which is repeated. */
static int64_t along(const struct at_view *v)
{
    return v->rank && v->shape[v->rank - 1] != 1;
}

static void choice_item(void *arg, int64_t item, int slot)
{
    const struct job *j = arg;
    int64_t n = j->out->shape[j->out->rank - 1], dc = along(j->in[0]), da = along(j->in[1]),
            db = j->in[2] ? along(j->in[2]) : 0;
    float other = j->s->op == AT_WHERE ? j->s->p->where.other : 0;
    (void)slot;
    for (int64_t r = item * j->per_item; r < at_min(j->rows, (item + 1) * j->per_item); r++) {
        float *y = f32_row(j->out, r, j->out);
        const uint8_t *cond = (const uint8_t *)j->in[0]->data + row_offset(j->out, r, j->in[0]);
        const float *a = f32_row(j->out, r, j->in[1]),
                    *b = j->in[2] ? f32_row(j->out, r, j->in[2]) : &other;
        for (int64_t i = 0; i < n; i++)
            y[i] = cond[i * dc] ? a[i * da] : b[i * db];
    }
}

static int run_choice(struct attend_exec *x, const struct at_step *s)
{
    return each_row(x, s, choice_item, 1);
}

/* ---- conversions and copies ---- */

static bool accepts_convert(const attend_plan *plan, const struct at_step *s, struct at_why *why)
{
    const struct at_tensor *a = &plan->graph->tensor[s->in[0]];
    return at_need(why,
                   a->rank > 0 && at_cpu_elem(a->type) >= 0 && at_cpu_has_rows(plan, s->in[0]) &&
                       at_cpu_has_rows(plan, s->out[0]),
                   "not rows of a floating or quantised type");
}

/* Copies are made of what no strides can express, so rows of the input may lie anyhow. */
static bool accepts_copy(const attend_plan *plan, const struct at_step *s, struct at_why *why)
{
    const struct at_tensor *a = &plan->graph->tensor[s->in[0]];
    bool plain = attend_type_block(a->type) == 1 || at_cpu_has_rows(plan, s->in[0]);
    return at_need(why, a->rank > 0 && plain && at_cpu_has_rows(plan, s->out[0]),
                   "a quantised row, or the result's, is not together in memory");
}

#define SPREAD(type)                                                                               \
    for (int64_t e = 0; e < n; e++)                                                                \
        ((type *)y)[e] = ((const type *)x)[e * stride];                                            \
    break

/* n elements of so many bytes that are `stride` apart. */
static void copy_spread(void *y, const void *x, int64_t stride, int64_t n, size_t size)
{
    switch (size) {
    case 1:
        SPREAD(uint8_t);
    case 2:
        SPREAD(uint16_t);
    case 4:
        SPREAD(uint32_t);
    default:
        SPREAD(uint64_t);
    }
}

static void copy_row(const struct at_view *a, void *y, const void *x, int64_t n)
{
    if (a->stride[a->rank - 1] == 1 || n == 1)
        memcpy(y, x, (size_t)attend_type_row_bytes(a->type, n));
    else
        copy_spread(y, x, a->stride[a->rank - 1], n, attend_type_size(a->type));
}

static void convert_item(void *arg, int64_t item, int slot)
{
    const struct job *j = arg;
    const struct at_view *a = j->in[0];
    int64_t n = j->out->shape[j->out->rank - 1];
    (void)slot;
    for (int64_t r = item * j->per_item; r < at_min(j->rows, (item + 1) * j->per_item); r++) {
        void *y = at_view_at(j->out, row_offset(j->out, r, j->out));
        const void *from = at_view_at(a, row_offset(j->out, r, a));
        if (a->type == j->out->type)
            copy_row(a, y, from, n);
        else
            j->t->convert(y, (enum at_elem)at_cpu_elem(j->out->type), from,
                          (enum at_elem)at_cpu_elem(a->type), n);
    }
}

static int run_convert(struct attend_exec *x, const struct at_step *s)
{
    return each_row(x, s, convert_item, 1);
}

/* ---- concat: each part's rows to their place ---- */

static bool accepts_concat(const attend_plan *plan, const struct at_step *s, struct at_why *why)
{
    bool rows = at_cpu_has_rows(plan, s->out[0]);
    for (int k = 0; k < s->nin; k++)
        rows = rows && at_cpu_has_rows(plan, s->in[k]);
    return at_need(why, rows, "not all tensors have contiguous rows");
}

/* A part to its place. */
static void concat_item(void *arg, int64_t item, int slot)
{
    const struct job *j = arg;
    const struct at_view *a = j->in[0], *to = j->out;
    size_t bytes = (size_t)attend_type_row_bytes(a->type, a->shape[a->rank - 1]);
    (void)slot;
    for (int64_t r = item * j->per_item; r < at_min(j->rows, (item + 1) * j->per_item); r++)
        memcpy(at_view_at(to, row_offset(a, r, to)), at_view_at(a, row_offset(a, r, a)), bytes);
}

static int run_concat(struct attend_exec *x, const struct at_step *s)
{
    const struct at_view *out = at_result(x, s);
    int axis = s->p->concat.axis, status = 0;
    int64_t at = 0;
    for (int k = 0; k < s->nin && status == 0; k++) {
        const struct at_view *a = at_arg(x, s, k);
        struct at_view place = *out;
        place.data = at_view_at(out, at * out->stride[axis]);
        place.shape[axis] = a->shape[axis];
        at += a->shape[axis];
        int64_t bytes = attend_type_row_bytes(a->type, a->shape[a->rank - 1]);
        struct job j = {.in = {a}, .out = &place, .rows = bytes ? row_count(a) : 0};
        j.per_item = at_max(1, ITEM_BYTES / at_max(1, bytes));
        status = at_cpu_items(x, at_ceil_div(j.rows, j.per_item), (double)(j.rows * bytes),
                              concat_item, &j);
    }
    return status;
}

/* ---- rope ---- */

static bool accepts_rope(const attend_plan *plan, const struct at_step *s, struct at_why *why)
{
    return at_need(why, f32_rows(plan, s->in[0]) && f32_rows(plan, s->out[0]),
                   "not f32 with contiguous rows");
}

/* Frequencies of the pairs are the plan's; a slot holds the cosines and sines of one position, as
 * the block functions want them. */
static int prepare_rope(attend_plan *plan, struct at_step *s, struct at_err *e)
{
    int64_t pairs = s->p->rope.dims / 2;
    double *frequency = at_plan_pack(plan, pairs * (int64_t)sizeof(double));
    if (!frequency)
        return at_fail(e, ATTEND_ENOMEM, "no memory for the frequencies of rope");
    for (int64_t p = 0; p < pairs; p++)
        frequency[p] = pow((double)s->p->rope.base, -2.0 * (double)p / (double)s->p->rope.dims);
    s->packed = frequency;
    s->scratch = 2 * at_round_up(2 * pairs, 16) * (int64_t)sizeof(float);
    return 0;
}

static int32_t position(const struct at_view *pos, int64_t b, int64_t i)
{
    const int32_t *p = pos->data;
    return pos->rank == 1 ? p[i * pos->stride[0]] : p[b * pos->stride[0] + i * pos->stride[1]];
}

/* The cosine and sine of each pair, or of each element of interleaved ones. */
static void turns(const struct job *j, double pos, float *cosine, float *sine)
{
    const struct at_view *factors = j->in[2];
    const double *frequency = j->s->packed;
    int64_t pairs = j->s->p->rope.dims / 2;
    bool half = j->s->p->rope.pairing == ATTEND_ROPE_HALF;
    for (int64_t p = 0; p < pairs; p++) {
        double angle = pos * frequency[p];
        if (factors)
            angle /= (double)((const float *)factors->data)[p * factors->stride[0]];
        float c = (float)cos(angle), s = (float)sin(j->s->p->rope.back ? -angle : angle);
        if (half) {
            cosine[p] = c;
            sine[p] = s;
        } else {
            cosine[2 * p] = cosine[2 * p + 1] = c;
            sine[2 * p] = -s;
            sine[2 * p + 1] = s;
        }
    }
}

static void rope_item(void *arg, int64_t item, int slot)
{
    const struct job *j = arg;
    const struct at_view *a = j->in[0], *y = j->out;
    int64_t b = item / a->shape[2], i = item % a->shape[2], pairs = j->s->p->rope.dims / 2;
    float *cosine = at_slot_scratch(j->x, slot), *sine = cosine + at_round_up(2 * pairs, 16);
    turns(j, position(j->in[1], b, i), cosine, sine);
    for (int64_t h = 0; h < a->shape[1]; h++) {
        const float *from =
            (const float *)a->data + b * a->stride[0] + h * a->stride[1] + i * a->stride[2];
        float *to = (float *)y->data + b * y->stride[0] + h * y->stride[1] + i * y->stride[2];
        if (j->s->p->rope.pairing == ATTEND_ROPE_HALF)
            j->t->rope_half(to, from, cosine, sine, pairs);
        else
            j->t->rope_interleaved(to, from, cosine, sine, 2 * pairs);
        memcpy(to + 2 * pairs, from + 2 * pairs, (size_t)(a->shape[3] - 2 * pairs) * sizeof *to);
    }
}

static int run_rope(struct attend_exec *x, const struct at_step *s)
{
    struct job j = {.x = x, .s = s, .t = at_cpu_kernels(s), .out = at_result(x, s)};
    for (int k = 0; k < 3; k++)
        j.in[k] = at_in(x, s, k);
    const int64_t *n = j.out->shape;
    return at_cpu_items(x, n[0] * n[2], 8.0 * (double)(n[0] * n[1] * n[2] * n[3]), rope_item, &j);
}

/* ---- rows by index ---- */

static bool accepts_gather(const attend_plan *plan, const struct at_step *s, struct at_why *why)
{
    return at_need(why, at_cpu_has_rows(plan, s->in[0]), "the table's rows are not contiguous");
}

static void gather_item(void *arg, int64_t item, int slot)
{
    const struct job *j = arg;
    const struct at_view *table = j->in[0], *index = j->in[1], *y = j->out;
    int64_t offset = 0, rest = item;
    (void)slot;
    for (int d = index->rank - 1; d >= 0; d--) {
        offset += rest % index->shape[d] * index->stride[d];
        rest /= index->shape[d];
    }
    int64_t row = ((const int32_t *)index->data)[offset];
    if (row < 0 || row >= table->shape[0]) {
        at_exec_bad_index(j->x, j->s, item, row, table->shape[0]);
        return;
    }
    j->t->convert(f32_row(y, item, y), AT_ELEM_F32, at_view_at(table, row * table->stride[0]),
                  (enum at_elem)at_cpu_elem(table->type), table->shape[1]);
}

static int run_gather(struct attend_exec *x, const struct at_step *s)
{
    struct job j = {.x = x, .s = s, .t = at_cpu_kernels(s), .out = at_result(x, s)};
    j.in[0] = at_arg(x, s, 0);
    j.in[1] = at_arg(x, s, 1);
    int64_t rows = j.out->shape[j.out->rank - 1] ? row_count(j.out) : 0;
    return at_cpu_items(x, rows, (double)rows * (double)j.out->shape[j.out->rank - 1], gather_item,
                        &j);
}

static bool accepts_append(const attend_plan *plan, const struct at_step *s, struct at_why *why)
{
    return at_need(why, at_cpu_has_rows(plan, s->in[0]) && at_cpu_has_rows(plan, s->in[1]),
                   "rows are not contiguous");
}

/* Row `from` of the appended rows, times `by`, to its place in the state.  Quantising is a small
 * part of a step, so the plain conversions do. */
static void store_row(const struct job *j, void *to, const void *from, float by)
{
    const struct at_view *pool = j->out, *rows = j->in[1];
    int64_t n = rows->shape[3];
    int type = at_cpu_elem(pool->type), from_type = at_cpu_elem(rows->type);
    if (type == AT_ELEM_F32 || type == AT_ELEM_F16 || type == AT_ELEM_BF16) {
        j->t->convert(to, (enum at_elem)type, from, (enum at_elem)from_type, n);
    } else if (pool->type == ATTEND_F8) {
        for (int64_t d = 0; d < n; d++)
            at_element_set(ATTEND_F8, to, d, at_element_get(rows->type, from, d) / (double)by);
    } else {
        float block[AT_QUANT_BLOCK];
        for (int64_t d = 0; d < n; d += AT_QUANT_BLOCK) {
            int64_t count = at_min(n - d, AT_QUANT_BLOCK);
            j->t->convert(block, AT_ELEM_F32,
                          (const char *)from + d * (int64_t)attend_type_size(rows->type),
                          (enum at_elem)from_type, count);
            at_element_to_blocks(
                pool->type, (char *)to + d / AT_QUANT_BLOCK * (int64_t)attend_type_size(pool->type),
                block, count);
        }
    }
}

static float append_scale(const struct at_view *scale, int64_t page, int64_t g)
{
    if (!scale)
        return 1;
    return ((const float *)scale->data)[(scale->shape[0] == 1 ? 0 : page) * scale->stride[0] +
                                        g * scale->stride[1]];
}

static void append_item(void *arg, int64_t item, int slot)
{
    const struct job *j = arg;
    const struct at_view *pool = j->out, *rows = j->in[1], *slots = j->in[2];
    int64_t b = item / rows->shape[2], i = item % rows->shape[2], page = pool->shape[2];
    int64_t to = ((const int32_t *)slots->data)[b * slots->stride[0] + i * slots->stride[1]];
    (void)slot;
    if (to == -1)
        return;
    if (to < 0 || to >= pool->shape[0] * page) {
        at_exec_bad_index(j->x, j->s, item, to, pool->shape[0] * page);
        return;
    }
    for (int64_t g = 0; g < rows->shape[1]; g++)
        store_row(j,
                  at_view_at(pool, to / page * pool->stride[0] + g * pool->stride[1] +
                                       to % page * pool->stride[2]),
                  at_view_at(rows, b * rows->stride[0] + g * rows->stride[1] + i * rows->stride[2]),
                  append_scale(at_in(j->x, j->s, 3), to / page, g));
}

static int run_append(struct attend_exec *x, const struct at_step *s)
{
    struct job j = {.x = x, .s = s, .t = at_cpu_kernels(s), .out = at_result(x, s)};
    for (int k = 0; k < 3; k++)
        j.in[k] = at_in(x, s, k);
    const int64_t *n = j.in[1]->shape;
    return at_cpu_items(x, n[0] * n[2], (double)(n[0] * n[1] * n[2] * n[3]), append_item, &j);
}

/* ---- the rows ---- */

#define F32_ROW(variable, op, run)                                                                 \
    const struct at_row variable = {"rows", op, accepts_f32, NULL, NULL, run}
F32_ROW(at_cpu_add, AT_ADD, run_binary);
F32_ROW(at_cpu_mul, AT_MUL, run_binary);
F32_ROW(at_cpu_scale, AT_SCALE, run_unary);
F32_ROW(at_cpu_silu, AT_SILU, run_unary);
F32_ROW(at_cpu_silu_mul, AT_SILU_MUL, run_binary);
F32_ROW(at_cpu_gelu, AT_GELU, run_unary);
F32_ROW(at_cpu_gelu_tanh, AT_GELU_TANH, run_unary);
F32_ROW(at_cpu_tanh, AT_TANH, run_unary);
F32_ROW(at_cpu_sigmoid, AT_SIGMOID, run_function);
F32_ROW(at_cpu_relu, AT_RELU, run_function);
F32_ROW(at_cpu_erf, AT_ERF, run_function);
F32_ROW(at_cpu_pow, AT_POW, run_function);
const struct at_row at_cpu_where = {"rows", AT_WHERE, accepts_choice, NULL, NULL, run_choice};
const struct at_row at_cpu_select = {"rows", AT_SELECT, accepts_choice, NULL, NULL, run_choice};
F32_ROW(at_cpu_softmax, AT_SOFTMAX, run_unary);
F32_ROW(at_cpu_rms_norm, AT_RMS_NORM, run_unary);
F32_ROW(at_cpu_layer_norm, AT_LAYER_NORM, run_unary);
const struct at_row at_cpu_cast = {"rows", AT_CAST, accepts_convert, NULL, NULL, run_convert};
const struct at_row at_cpu_copy = {"rows", AT_COPY, accepts_copy, NULL, NULL, run_convert};
const struct at_row at_cpu_concat = {"rows", AT_CONCAT, accepts_concat, NULL, NULL, run_concat};
const struct at_row at_cpu_rope = {"rows", AT_ROPE, accepts_rope, prepare_rope, NULL, run_rope};
const struct at_row at_cpu_gather = {"rows", AT_GATHER, accepts_gather, NULL, NULL, run_gather};
const struct at_row at_cpu_append = {"rows", AT_APPEND, accepts_append, NULL, NULL, run_append};
