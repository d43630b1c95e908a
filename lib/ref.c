/* SPDX-License-Identifier: MIT */
/* What operators on rows mean: each is a loop over the rows of its output's last axis, whose
 * elements are read and written one at a time, of any type and stride.  Only matmul, where the time
 * goes, copies rows to memory of its own. */
#include <math.h>
#include <string.h>

#include "ref.h"

static int64_t index_at(const struct at_view *v, int64_t at)
{
    return ((const int32_t *)v->data)[at];
}

/* ---- rows ---- */

/* n elements of the last axis: element k is at `at` + k * step. */
struct row {
    const struct at_view *v;
    int64_t at, step, n;
};

static double at(const struct row *r, int64_t k)
{
    return at_ref_get(r->v, r->at + k * r->step);
}

static void put(const struct row *r, int64_t k, double x)
{
    at_ref_set(r->v, r->at + k * r->step, x);
}

int64_t at_ref_offset(const struct at_view *v, const struct at_view *like, int64_t place, int skip)
{
    int64_t sum = 0;
    for (int d = like->rank - 1 - skip; d >= 0; d--) {
        int e = d - (like->rank - v->rank);
        if (e >= 0 && v->shape[e] != 1)
            sum += place % like->shape[d] * v->stride[e];
        place /= like->shape[d];
    }
    return sum;
}

int64_t at_ref_places(const struct at_view *v, int skip)
{
    int64_t n = 1;
    for (int d = 0; d < v->rank - skip; d++)
        n *= v->shape[d];
    return n;
}

/* Row number `r` of `like` as v has it. */
static struct row row_of(const struct at_view *v, const struct at_view *like, int64_t r)
{
    struct row row = {.v = v, .at = at_ref_offset(v, like, r, 1), .n = 1};
    if (like->rank > 0)
        row.n = like->shape[like->rank - 1];
    if (v->rank > 0 && v->shape[v->rank - 1] != 1)
        row.step = v->stride[v->rank - 1];
    return row;
}

static bool quantised(const struct at_view *v)
{
    return attend_type_block(v->type) > 1;
}

void at_ref_load(const struct at_view *v, int64_t at, int64_t step, int64_t n, double *x,
                 int64_t gap)
{
    float y[AT_QUANT_BLOCK];
    for (int64_t k = 0; !quantised(v) && k < n; k++)
        x[k * gap] = at_ref_get(v, at + k * step);
    for (int64_t k = 0; quantised(v) && k < n; k += AT_QUANT_BLOCK) {
        int64_t some = at_min(n - k, AT_QUANT_BLOCK);
        at_element_from_blocks(v->type, at_view_at(v, at + k / AT_QUANT_BLOCK), y, some);
        for (int64_t e = 0; e < some; e++)
            x[(k + e) * gap] = (double)y[e];
    }
}

/* to = from, where one or both are quantised: block by block. */
static void move_blocks(const struct row *to, const struct row *from)
{
    float x[AT_QUANT_BLOCK];
    for (int64_t k = 0; k < to->n; k += AT_QUANT_BLOCK) {
        int64_t n = at_min(to->n - k, AT_QUANT_BLOCK), block = k / AT_QUANT_BLOCK;
        if (quantised(from->v))
            at_element_from_blocks(from->v->type, at_view_at(from->v, from->at + block), x, n);
        else
            for (int64_t e = 0; e < n; e++)
                x[e] = (float)at(from, k + e);
        if (quantised(to->v))
            at_element_to_blocks(to->v->type, at_view_at(to->v, to->at + block), x, n);
        else
            for (int64_t e = 0; e < n; e++)
                put(to, k + e, (double)x[e]);
    }
}

/* to = from, converted to the type of `to`; equal types move bits, so that integers and the payload
 * of NaN stay what they are. */
static void move(const struct row *to, const struct row *from)
{
    bool same = to->v->type == from->v->type, blocks = quantised(to->v) || quantised(from->v);
    size_t size = attend_type_size(to->v->type);
    if (same && blocks)
        memcpy(at_view_at(to->v, to->at), at_view_at(from->v, from->at),
               (size_t)at_ceil_div(to->n, AT_QUANT_BLOCK) * size);
    else if (blocks)
        move_blocks(to, from);
    else if (same)
        for (int64_t k = 0; k < to->n; k++)
            memcpy(at_view_at(to->v, to->at + k * to->step),
                   at_view_at(from->v, from->at + k * from->step), size);
    else
        for (int64_t k = 0; k < to->n; k++)
            put(to, k, at(from, k));
}

/* ---- steps over rows ---- */

/* A step at work: `row` is called for each row of out, with in[k] NULL where absent. */
struct job {
    struct attend_exec *x;
    const struct at_step *s;
    const struct at_view *in[AT_MAX_IN], *out;
    void (*row)(const struct job *job, int64_t r);
    double (*fn)(double); /* of elementwise functions */
};

static struct job job_of(struct attend_exec *x, const struct at_step *s)
{
    struct job job = {.x = x, .s = s, .out = at_out(x, s, 0)};
    for (int k = 0; k < s->nin; k++)
        job.in[k] = at_in(x, s, k);
    return job;
}

static void one_row(void *arg, int64_t item, int slot)
{
    const struct job *job = arg;
    (void)slot;
    job->row(job, item);
}

static int each_row(struct attend_exec *x, const struct at_step *s,
                    void (*row)(const struct job *job, int64_t r))
{
    struct job job = job_of(x, s);
    job.row = row;
    return at_parallel(x, at_ref_places(job.out, job.out->rank > 0), one_row, &job);
}

/* Row r of the output, and of input k as it is broadcast to the output. */
static struct row out_row(const struct job *job, int64_t r)
{
    return row_of(job->out, job->out, r);
}

static struct row in_row(const struct job *job, int k, int64_t r)
{
    return row_of(job->in[k], job->out, r);
}

/* ---- matmul ---- */

/* A work item is a block of at most ROWS x COLS of the output.  Its rows of a lie in memory as
 * [panel][k][LANES], lanes past the last row being 0, so that LANES sums run side by side, each in
 * the order of k; each row (or column) of b is read once. */
enum { LANES = 8, ROWS = 32, COLS = 64 };

int64_t at_ref_matmul_scratch(int64_t k)
{
    return at_mul_size(k, (ROWS + 1) * (int64_t)sizeof(double));
}

struct matmul {
    struct attend_exec *x;
    const struct at_view *a, *b, *c;
    bool b_rows;
    int64_t m, n, k, row_blocks, col_blocks;
};

/* sum[r] = a's lane r times b, in the order of k. */
static void dot_panel(const double *restrict a, const double *restrict b, int64_t nk,
                      double *restrict sum)
{
    double s[LANES] = {0};
    for (int64_t k = 0; k < nk; k++)
#pragma GCC unroll 8 /* keeps s in registers: five times as fast */
        for (int r = 0; r < LANES; r++)
            s[r] += a[k * LANES + r] * b[k];
    memcpy(sum, s, sizeof s);
}

static void matmul_block(void *arg, int64_t item, int slot)
{
    const struct matmul *p = arg;
    const struct at_view *a = p->a, *b = p->b, *c = p->c;
    int64_t n0 = item % p->col_blocks * COLS, m0 = item / p->col_blocks % p->row_blocks * ROWS;
    int64_t batch = item / p->col_blocks / p->row_blocks;
    int64_t n1 = at_min(n0 + COLS, p->n), rows = at_min(ROWS, p->m - m0);
    int64_t a0 = at_ref_offset(a, c, batch, 2), b0 = at_ref_offset(b, c, batch, 2),
            c0 = at_ref_offset(c, c, batch, 2);
    double *pa = at_slot_scratch(p->x, slot); /* [ROWS / LANES][k][LANES] */
    double *pb = pa + ROWS * p->k;            /* [k] */

    memset(pa, 0, (size_t)(at_round_up(rows, LANES) * p->k) * sizeof *pa);
    for (int64_t r = 0; r < rows; r++) {
        struct row row = {a, a0 + (m0 + r) * a->stride[a->rank - 2], a->stride[a->rank - 1], p->k};
        at_ref_load(row.v, row.at, row.step, row.n, pa + r / LANES * LANES * p->k + r % LANES,
                    LANES);
    }
    int along_n = b->rank - (p->b_rows ? 2 : 1), along_k = b->rank - (p->b_rows ? 1 : 2);
    for (int64_t n = n0; n < n1; n++) {
        struct row row = {b, b0 + n * b->stride[along_n], b->stride[along_k], p->k};
        at_ref_load(row.v, row.at, row.step, row.n, pb, 1);
        for (int64_t r0 = 0; r0 < rows; r0 += LANES) {
            double sum[LANES];
            dot_panel(pa + r0 * p->k, pb, p->k, sum);
            for (int64_t r = r0; r < at_min(r0 + LANES, rows); r++)
                at_ref_set(c, c0 + (m0 + r) * c->stride[c->rank - 2] + n * c->stride[c->rank - 1],
                           sum[r - r0]);
        }
    }
}

/* c[..., m, n] = sum_k a[..., m, k] b[..., k, n], or b[..., n, k] */
int at_ref_matmul(struct attend_exec *x, const struct at_step *s)
{
    struct matmul p = {.x = x, .a = &x->view[s->in[0]], .b = &x->view[s->in[1]]};
    p.c = &x->view[s->out[0]];
    p.b_rows = s->p->matmul.b_rows;
    p.m = p.c->shape[p.c->rank - 2];
    p.n = p.c->shape[p.c->rank - 1];
    p.k = p.a->shape[p.a->rank - 1];
    p.row_blocks = at_ceil_div(p.m, ROWS);
    p.col_blocks = at_ceil_div(p.n, COLS);
    return at_parallel(x, at_ref_places(p.c, 2) * p.row_blocks * p.col_blocks, matmul_block, &p);
}

/* ---- elementwise ---- */

static void add_row(const struct job *job, int64_t r)
{
    struct row y = out_row(job, r), a = in_row(job, 0, r), b = in_row(job, 1, r);
    for (int64_t k = 0; k < y.n; k++)
        put(&y, k, at(&a, k) + at(&b, k));
}

int at_ref_add(struct attend_exec *x, const struct at_step *s)
{
    return each_row(x, s, add_row);
}

static void mul_row(const struct job *job, int64_t r)
{
    struct row y = out_row(job, r), a = in_row(job, 0, r), b = in_row(job, 1, r);
    for (int64_t k = 0; k < y.n; k++)
        put(&y, k, at(&a, k) * at(&b, k));
}

int at_ref_mul(struct attend_exec *x, const struct at_step *s)
{
    return each_row(x, s, mul_row);
}

static void scale_row(const struct job *job, int64_t r)
{
    struct row y = out_row(job, r), a = in_row(job, 0, r);
    for (int64_t k = 0; k < y.n; k++)
        put(&y, k, at(&a, k) * (double)job->s->p->scale.factor);
}

int at_ref_scale(struct attend_exec *x, const struct at_step *s)
{
    return each_row(x, s, scale_row);
}

static void where_row(const struct job *job, int64_t r)
{
    struct row y = out_row(job, r), cond = in_row(job, 0, r), a = in_row(job, 1, r);
    for (int64_t k = 0; k < y.n; k++)
        put(&y, k, at(&cond, k) != 0 ? at(&a, k) : (double)job->s->p->where.other);
}

int at_ref_where(struct attend_exec *x, const struct at_step *s)
{
    return each_row(x, s, where_row);
}

static void select_row(const struct job *job, int64_t r)
{
    struct row y = out_row(job, r), cond = in_row(job, 0, r), a = in_row(job, 1, r),
               b = in_row(job, 2, r);
    for (int64_t k = 0; k < y.n; k++)
        put(&y, k, at(&cond, k) != 0 ? at(&a, k) : at(&b, k));
}

int at_ref_select(struct attend_exec *x, const struct at_step *s)
{
    return each_row(x, s, select_row);
}

static void pow_row(const struct job *job, int64_t r)
{
    struct row y = out_row(job, r), a = in_row(job, 0, r);
    for (int64_t k = 0; k < y.n; k++)
        put(&y, k, pow(at(&a, k), (double)job->s->p->pow.exponent));
}

int at_ref_pow(struct attend_exec *x, const struct at_step *s)
{
    return each_row(x, s, pow_row);
}

static void function_row(const struct job *job, int64_t r)
{
    struct row y = out_row(job, r), a = in_row(job, 0, r);
    for (int64_t k = 0; k < y.n; k++)
        put(&y, k, job->fn(at(&a, k)));
}

static int each_element(struct attend_exec *x, const struct at_step *s, double (*fn)(double))
{
    struct job job = job_of(x, s);
    job.row = function_row;
    job.fn = fn;
    return at_parallel(x, at_ref_places(job.out, job.out->rank > 0), one_row, &job);
}

static double silu(double a)
{
    return a / (1 + exp(-a));
}

int at_ref_silu(struct attend_exec *x, const struct at_step *s)
{
    return each_element(x, s, silu);
}

static void silu_mul_row(const struct job *job, int64_t r)
{
    struct row y = out_row(job, r), a = in_row(job, 0, r), b = in_row(job, 1, r);
    for (int64_t k = 0; k < y.n; k++)
        put(&y, k, silu(at(&a, k)) * at(&b, k));
}

int at_ref_silu_mul(struct attend_exec *x, const struct at_step *s)
{
    return each_row(x, s, silu_mul_row);
}

/* a Phi(a), with Phi(a) = erfc(-a / sqrt 2) / 2, which keeps its digits where a is far below 0. */
static double gelu(double a)
{
    return a * 0.5 * erfc(-a * 0.70710678118654752440);
}

int at_ref_gelu(struct attend_exec *x, const struct at_step *s)
{
    return each_element(x, s, gelu);
}

/* a (1 + tanh(sqrt(2 / pi) (a + 0.044715 a^3))) / 2 */
static double gelu_tanh(double a)
{
    return 0.5 * a * (1 + tanh(0.79788456080286535588 * (a + 0.044715 * a * a * a)));
}

int at_ref_gelu_tanh(struct attend_exec *x, const struct at_step *s)
{
    return each_element(x, s, gelu_tanh);
}

int at_ref_tanh(struct attend_exec *x, const struct at_step *s)
{
    return each_element(x, s, tanh);
}

static double sigmoid(double a)
{
    return 1 / (1 + exp(-a));
}

int at_ref_sigmoid(struct attend_exec *x, const struct at_step *s)
{
    return each_element(x, s, sigmoid);
}

static double relu(double a)
{
    return a < 0 ? 0 : a; /* NaN stays NaN */
}

int at_ref_relu(struct attend_exec *x, const struct at_step *s)
{
    return each_element(x, s, relu);
}

int at_ref_erf(struct attend_exec *x, const struct at_step *s)
{
    return each_element(x, s, erf);
}

/* ---- along the last axis ---- */

/* exp(a - max) / sum, and 0 for a row of -inf. */
static void softmax_row(const struct job *job, int64_t r)
{
    struct row y = out_row(job, r), a = in_row(job, 0, r);
    double max = -(double)INFINITY, sum = 0;
    for (int64_t k = 0; k < y.n; k++)
        max = at(&a, k) > max ? at(&a, k) : max;
    for (int64_t k = 0; k < y.n; k++)
        sum += at(&a, k) == -(double)INFINITY ? 0 : exp(at(&a, k) - max);
    for (int64_t k = 0; k < y.n; k++)
        put(&y, k, sum == 0 ? 0 : exp(at(&a, k) - max) / sum);
}

int at_ref_softmax(struct attend_exec *x, const struct at_step *s)
{
    return each_row(x, s, softmax_row);
}

/* The k-th element of a [D] parameter, or what stands for an absent one. */
static double param(const struct at_view *v, int64_t k, double absent)
{
    return v ? at_ref_get(v, k * v->stride[0]) : absent;
}

/* a / sqrt(mean(a^2) + eps) * weight */
static void rms_norm_row(const struct job *job, int64_t r)
{
    struct row y = out_row(job, r), a = in_row(job, 0, r);
    double sum = 0;
    for (int64_t k = 0; k < y.n; k++)
        sum += at(&a, k) * at(&a, k);
    double rms = sqrt(sum / (double)y.n + (double)job->s->p->norm.eps);
    for (int64_t k = 0; k < y.n; k++)
        put(&y, k, at(&a, k) / rms * param(job->in[1], k, 1));
}

int at_ref_rms_norm(struct attend_exec *x, const struct at_step *s)
{
    return each_row(x, s, rms_norm_row);
}

/* (a - mean) / sqrt(variance + eps) * weight + bias */
static void layer_norm_row(const struct job *job, int64_t r)
{
    struct row y = out_row(job, r), a = in_row(job, 0, r);
    double mean = 0, variance = 0;
    for (int64_t k = 0; k < y.n; k++)
        mean += at(&a, k) / (double)y.n;
    for (int64_t k = 0; k < y.n; k++)
        variance += (at(&a, k) - mean) * (at(&a, k) - mean) / (double)y.n;
    double deviation = sqrt(variance + (double)job->s->p->norm.eps);
    for (int64_t k = 0; k < y.n; k++)
        put(&y, k,
            (at(&a, k) - mean) / deviation * param(job->in[1], k, 1) + param(job->in[2], k, 0));
}

int at_ref_layer_norm(struct attend_exec *x, const struct at_step *s)
{
    return each_row(x, s, layer_norm_row);
}

/* The position of row r of (B, H, S, D): positions are (S) or (B, S). */
static int64_t position_of(const struct at_view *pos, const struct at_view *like, int64_t r)
{
    int64_t i = r % like->shape[2], b = r / (like->shape[1] * like->shape[2]);
    return index_at(pos,
                    pos->rank == 1 ? i * pos->stride[0] : b * pos->stride[0] + i * pos->stride[1]);
}

/* Turns the pair (c, d) by an angle; channels past `dims` stay. */
static void rope_row(const struct job *job, int64_t r)
{
    struct row y = out_row(job, r), a = in_row(job, 0, r);
    double pos = (double)position_of(job->in[1], job->out, r);
    double base = (double)job->s->p->rope.base;
    int64_t dims = job->s->p->rope.dims;
    bool half = job->s->p->rope.pairing == ATTEND_ROPE_HALF;
    double turn = job->s->p->rope.back ? -1 : 1;
    for (int64_t p = 0; p < dims / 2; p++) {
        int64_t c = half ? p : 2 * p, d = half ? p + dims / 2 : 2 * p + 1;
        double angle =
            turn * pos * pow(base, -2 * (double)p / (double)dims) / param(job->in[2], p, 1);
        double ac = at(&a, c), ad = at(&a, d);
        put(&y, c, ac * cos(angle) - ad * sin(angle));
        put(&y, d, ac * sin(angle) + ad * cos(angle));
    }
    for (int64_t c = dims; c < y.n; c++)
        put(&y, c, at(&a, c));
}

int at_ref_rope(struct attend_exec *x, const struct at_step *s)
{
    return each_row(x, s, rope_row);
}

/* ---- rows by index ---- */

/* out[..., :] = table[index[...], :] */
static void gather_row(const struct job *job, int64_t r)
{
    const struct at_view *table = job->in[0], *index = job->in[1];
    int64_t k = index_at(index, at_ref_offset(index, index, r, 0));
    struct row y = out_row(job, r);
    if (k < 0 || k >= table->shape[0]) {
        at_exec_bad_index(job->x, job->s, r, k, table->shape[0]);
        return;
    }
    struct row from = {table, k * table->stride[0], table->stride[1], y.n};
    move(&y, &from);
}

int at_ref_gather(struct attend_exec *x, const struct at_step *s)
{
    return each_row(x, s, gather_row);
}

/* state[p, g, r, :] = rows[b, g, i, :] where slots[b, i] = p * page + r.  On one thread: equal
 * slots then leave a whole row. */
/* The quotient is rounded once, to the stored type. */
static void move_scaled(const struct row *to, const struct row *from, const struct at_view *scale,
                        int64_t entry, int64_t g)
{
    double by = 1;
    if (scale)
        by = (double)((const float *)
                          scale->data)[(scale->shape[0] == 1 ? 0 : entry) * scale->stride[0] +
                                       g * scale->stride[1]];
    for (int64_t k = 0; k < to->n; k++)
        put(to, k, at(from, k) / by);
}

int at_ref_append(struct attend_exec *x, const struct at_step *s)
{
    const struct at_view *state = &x->view[s->out[0]], *rows = &x->view[s->in[1]];
    const struct at_view *slots = &x->view[s->in[2]];
    int64_t page = state->shape[2], limit = state->shape[0] * page;
    for (int64_t place = 0; place < at_ref_places(slots, 0); place++) {
        int64_t slot = index_at(slots, at_ref_offset(slots, slots, place, 0));
        int64_t b = place / slots->shape[1], i = place % slots->shape[1];
        if (slot == -1)
            continue;
        if (slot < 0 || slot >= limit) {
            at_exec_bad_index(x, s, place, slot, limit);
            continue;
        }
        for (int64_t g = 0; g < rows->shape[1]; g++) {
            struct row from = {rows,
                               b * rows->stride[0] + g * rows->stride[1] + i * rows->stride[2],
                               rows->stride[3], rows->shape[3]};
            struct row to = {state,
                             slot / page * state->stride[0] + g * state->stride[1] +
                                 slot % page * state->stride[2],
                             state->stride[3], state->shape[3]};
            if (state->type == ATTEND_F8)
                move_scaled(&to, &from, at_in(x, s, 3), slot / page, g);
            else
                move(&to, &from);
        }
    }
    return 0;
}

/* ---- copies ---- */

static void move_row(const struct job *job, int64_t r)
{
    struct row y = out_row(job, r), a = in_row(job, 0, r);
    move(&y, &a);
}

int at_ref_cast(struct attend_exec *x, const struct at_step *s)
{
    return each_row(x, s, move_row);
}

int at_ref_copy(struct attend_exec *x, const struct at_step *s)
{
    return each_row(x, s, move_row);
}

/* Each part is copied to its place in the output: a view of it that starts further on. */
int at_ref_concat(struct attend_exec *x, const struct at_step *s)
{
    int axis = s->p->concat.axis, status = 0;
    int64_t start = 0;
    for (int k = 0; k < s->nin && status == 0; k++) {
        struct job job = job_of(x, s);
        struct at_view place = *job.out;
        place.shape[axis] = job.in[k]->shape[axis];
        place.data = at_view_at(job.out, start * job.out->stride[axis]);
        start += place.shape[axis];
        job.in[0] = job.in[k];
        job.out = &place;
        job.row = move_row;
        status = at_parallel(x, at_ref_places(&place, 1), one_row, &job);
    }
    return status;
}
