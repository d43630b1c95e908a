/* SPDX-License-Identifier: MIT */
/* One measurement of attention, beside the ceilings of the machine at that moment. */
#include "bench.h"
#include "gpu.h"

#include <math.h>
#include <stdlib.h>

#include "backends/backend.h"
#include "os.h"
#include "ref.h"

#define ENOUGH_NS 2000000 /* of one measurement */
#define MOST_CALLS 4096
#define PROBE_ITEMS 128 /* of the multiply-add probe on one thread, each some 10 us */
#define PROBE_ROUNDS 1500
#define READ_KEYS 1024 /* of an item of reading */
#define MOST_LANES 64  /* of a vector */

double bench_median(double *x, int n)
{
    for (int i = 1; i < n; i++) /* insertion: n is a dozen */
        for (int k = i; k > 0 && x[k] < x[k - 1]; k--) {
            double t = x[k];
            x[k] = x[k - 1];
            x[k - 1] = t;
        }
    return n == 0 ? 0 : (x[(n - 1) / 2] + x[n / 2]) / 2;
}

/* ---- multiply-adds ---- */

static void multiply_add(void *arg, int64_t item, int slot)
{
    const struct at_simd *t = arg;
    float sink[MOST_LANES];
    (void)item, (void)slot;
    t->probe_fma(sink, PROBE_ROUNDS);
}

static void on_this_thread(void *arg, int64_t n, void (*fn)(void *arg, int64_t item, int slot),
                           void *fn_arg)
{
    (void)arg;
    for (int64_t i = 0; i < n; i++)
        fn(fn_arg, i, 0);
}

double bench_peak(attend_ctx *ctx, const struct at_simd *t, bool serial, int64_t (*now)(void))
{
    attend_executor e = ctx->exec;
    float sink[MOST_LANES];
    int64_t items = (int64_t)PROBE_ITEMS * (serial ? 1 : ctx->threads);
    union {
        const struct at_simd *table;
        void *arg;
    } u = {t};
    if (serial)
        e.parallel_for = on_this_thread;
    e.parallel_for(e.arg, items / 8, multiply_add, u.arg); /* wakes threads */
    int64_t begin = now();
    e.parallel_for(e.arg, items, multiply_add, u.arg);
    double seconds = (double)(now() - begin) * 1e-9;
    return (double)t->probe_fma(sink, PROBE_ROUNDS) * (double)items / seconds;
}

/* ---- reading keys and values ---- */

/* Rows of one group that follow each other in memory. */
static void read_rows(const struct bench_problem *p, const struct at_view *v, int64_t offset,
                      int64_t rows)
{
    float sink[MOST_LANES] = {0};
    int64_t row = attend_type_row_bytes(v->type, v->shape[3]);
    int64_t step = v->stride[2] * (int64_t)attend_type_size(v->type);
    const char *from = at_view_at(v, offset);
    if (step == row)
        p->kernels->probe_read(sink, from, rows * row);
    else
        for (int64_t j = 0; j < rows; j++)
            p->kernels->probe_read(sink, from + j * step, row);
}

/* Keys [j0, j1) of group g. */
static void read_keys(const struct bench_problem *p, const struct at_seq *s, int64_t g, int64_t j0,
                      int64_t j1)
{
    int64_t entry, row, n;
    for (int64_t j = j0; j < j1; j += n) {
        n = at_min(at_key_place(&p->a, s, j, &entry, &row), j1 - j);
        for (int which = 0; which < 2; which++) {
            const struct at_view *v = which ? &p->a.v : &p->a.k;
            read_rows(p, v, entry * v->stride[0] + g * v->stride[1] + row * v->stride[2], n);
        }
    }
}

/* Which keys any row of a sequence sees. */
static struct at_keys seen(const struct bench_problem *p, int64_t n)
{
    return at_key_range(&p->a.visible, &p->seq[n], 0, p->seq[n].nq);
}

static int64_t items_of(const struct bench_problem *p)
{
    int64_t most = 1;
    for (int64_t n = 0; n < p->a.nseq; n++)
        most = at_max(most, at_ceil_div(p->seq[n].nk, READ_KEYS));
    return most;
}

static void read_item(void *arg, int64_t item, int slot)
{
    const struct bench_problem *p = arg;
    int64_t parts = items_of(p), part = item % parts, g = item / parts % p->a.ng;
    int64_t n = item / parts / p->a.ng, j0 = part * READ_KEYS;
    struct at_keys k = seen(p, n);
    (void)slot;
    read_keys(p, &p->seq[n], g, at_max(j0, k.first), at_min(j0 + READ_KEYS, k.end));
}

static double key_bytes(const struct bench_problem *p)
{
    double bytes = 0;
    double row = (double)attend_type_row_bytes(p->a.k.type, p->a.dk) +
                 (double)attend_type_row_bytes(p->a.v.type, p->a.dv);
    for (int64_t n = 0; n < p->a.nseq; n++)
        bytes += (double)(seen(p, n).end - seen(p, n).first) * (double)p->a.ng * row;
    return bytes;
}

/* Bytes a second of reading all keys and values that are seen, and nothing else. */
static double measure_read(struct bench_problem *p, int64_t (*now)(void))
{
    const attend_executor *e = &p->exec->ctx->exec;
    int64_t items = p->a.nseq * p->a.ng * items_of(p), begin = now(), times = 0;
    if (key_bytes(p) == 0)
        return 0;
    do {
        e->parallel_for(e->arg, items, read_item, p);
        times++;
    } while (now() - begin < ENOUGH_NS / 4);
    return key_bytes(p) * (double)times / ((double)(now() - begin) * 1e-9);
}

/* ---- what a call comes to ---- */

static int64_t keys_of_row(const struct bench_problem *p, int64_t n, int64_t h, int64_t i)
{
    struct at_keys k = at_key_range(&p->a.visible, &p->seq[n], i, i + 1);
    if (!p->a.mask.data && !p->a.mask_expr)
        return k.end - k.first;
    int64_t count = 0;
    struct at_ref_row r;
    at_ref_row_begin(&r, &p->a, n, h, i);
    for (int64_t j = k.first; j < k.end; j++)
        count += at_ref_added(&r, j) != -(double)INFINITY;
    return count;
}

static double pairs(const struct bench_problem *p)
{
    bool masked = p->a.mask.data || p->a.mask_expr; /* else all heads see the same */
    double count = 0;
    for (int64_t n = 0; n < p->a.nseq; n++)
        for (int64_t h = 0; h < (masked ? p->a.nh : 1); h++)
            for (int64_t i = 0; i < p->seq[n].nq; i++)
                count += (double)keys_of_row(p, n, h, i);
    return masked ? count : count * (double)p->a.nh;
}

static double row_bytes(const struct bench_problem *p)
{
    double rows = 0;
    for (int64_t n = 0; n < p->a.nseq; n++)
        rows += (double)p->seq[n].nq * (double)p->a.nh;
    return rows * ((double)attend_type_row_bytes(p->a.q.type, p->a.dk) +
                   (double)attend_type_row_bytes(p->a.o.type, p->a.dv));
}

/* ---- one problem ---- */

static const struct at_step *attention_step(const attend_exec *exec)
{
    for (int i = 0; i < exec->variant->nstep; i++)
        if (exec->variant->step[i].op == AT_ATTENTION)
            return &exec->variant->step[i];
    return NULL;
}

static int64_t time_calls(struct bench_problem *p, int64_t calls, int64_t (*now)(void), int *status)
{
    int64_t begin = now();
    for (int64_t i = 0; i < calls && *status == 0; i++)
        *status = attend_run(p->exec);
    return now() - begin;
}

int bench_begin(struct bench_problem *p, attend_exec *exec)
{
    const struct at_step *s = attention_step(exec);
    *p = (struct bench_problem){.exec = exec, .calls = 1};
    if (!s)
        return at_fail(&exec->err, ATTEND_EUNSUPPORTED, "there is no attention to measure");
    p->device = s->device->name;
    if (s->device->backend == &at_backend_simd)
        p->kernels = s->device->kernels;
    else if (s->device->memory && at_gpu_of(s->device)->cpu)
        p->kernels = at_simd_best(); /* the same machine, whoever compiles */
    p->seq = calloc((size_t)at_attn_max_seqs(exec->plan, s) + 1, sizeof *p->seq);
    if (!p->seq)
        return at_fail(&exec->err, ATTEND_ENOMEM, "no memory");
    int status = at_attn_resolve(exec, s, &p->a, p->seq);
    if (status == 0)
        status = attend_run(exec);
    if (status < 0)
        return status;
    p->flops = 2 * pairs(p) * (double)(p->a.dk + p->a.dv);
    p->bytes = key_bytes(p) + row_bytes(p);
    while (p->calls < MOST_CALLS && status == 0 &&
           time_calls(p, p->calls, at_os_now, &status) < ENOUGH_NS)
        p->calls *= 2;
    return status;
}

void bench_end(struct bench_problem *p)
{
    free(p->seq);
    *p = (struct bench_problem){0};
}

static int measure(struct bench_problem *p, bool serial, int64_t (*now)(void), double *peak,
                   double *seconds)
{
    int status = 0;
    *peak = p->kernels ? bench_peak(p->exec->ctx, p->kernels, serial, now) : 0;
    *seconds = (double)time_calls(p, p->calls, now, &status) * 1e-9 / (double)p->calls;
    return status;
}

/* The same plan, its items one after the other. */
static int measure_serial(struct bench_problem *p, int64_t (*now)(void), struct bench_sample *s)
{
    attend_ctx *ctx = p->exec->ctx;
    attend_executor all = ctx->exec;
    ctx->exec.parallel_for = on_this_thread;
    int status = measure(p, true, now, &s->serial_peak, &s->serial_seconds);
    ctx->exec = all;
    return status;
}

int bench_measure(struct bench_problem *p, const struct bench_clock *c, struct bench_sample *s)
{
    *s = (struct bench_sample){.read = p->kernels ? measure_read(p, c->now) : 0};
    int status = measure(p, false, c->now, &s->peak, &s->seconds);
    if (status == 0 && c->serial)
        status = measure_serial(p, c->now, s);
    return status;
}

double bench_call(attend_exec *exec, const attend_binding *bind, int nbind, int64_t (*now)(void))
{
    enum { CALLS = 1000, TIMES = 9 };
    double each[TIMES];
    for (int t = 0; t < TIMES; t++) {
        int64_t begin = now();
        for (int i = 0; i < CALLS; i++)
            if ((nbind > 0 && attend_bind(exec, bind, nbind) < 0) || attend_run(exec) < 0)
                return 0;
        each[t] = (double)(now() - begin) * 1e-9 / CALLS;
    }
    return bench_median(each, TIMES);
}
