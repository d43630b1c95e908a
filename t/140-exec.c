/* SPDX-License-Identifier: MIT */
/* Execs: what bind refuses and says, what run refuses, what a run must not do. */
#include "graph_help.h"
#include "os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- a graph with one of each class: rows of x are appended to a cache, which is attended ---- */

enum { NH = 2, NG = 1, ROOM = 40, D = 16, MOST = 8 };

static float x[MOST * NH * D], cache[2][ROOM * NG * D], y[MOST * NH * D];
static int32_t slots[MOST], used[1];

static attend_graph *decoder(attend_ctx *ctx)
{
    attend_graph *g = attend_graph_new(ctx);
    int64_t n = attend_graph_dim(g, "n", 1, MOST);
    attend_tensor q = attend_graph_input(g, "x", ATTEND_F32, ATTEND_SHAPE(1, NH, n, D));
    attend_tensor to = attend_graph_input(g, "slots", ATTEND_I32, ATTEND_SHAPE(1, n));
    attend_tensor kv[2], row = attend_graph_slice(g, q, 1, 0, NG);
    for (int i = 0; i < 2; i++) {
        kv[i] = attend_graph_state(g, i ? "v" : "k", ATTEND_F32, ATTEND_SHAPE(1, NG, ROOM, D));
        attend_graph_label(g, i ? "store v" : "store k");
        kv[i] = attend_graph_append(g, kv[i], row, to);
    }
    attend_attention_opts o;
    attend_attention_opts_init(&o);
    o.mask.causal = 1;
    o.mask.align = ATTEND_BOTTOM_RIGHT;
    o.mask.kv_used = attend_graph_input(g, "used", ATTEND_I32, ATTEND_SHAPE(1));
    attend_graph_label(g, "look");
    attend_graph_output(g, "y", attend_graph_attention(g, q, kv[0], kv[1], &o, NULL));
    return g;
}

#define ALL_BUT_N                                                                                  \
    HELP_DATA("x", x), HELP_DATA("slots", slots), HELP_DATA("used", used), HELP_DATA("y", y),      \
        HELP_DATA("k", cache[0]), HELP_DATA("v", cache[1])

static attend_exec *new_exec(attend_plan *plan)
{
    attend_exec *e;
    if (attend_exec_new(plan, &e) < 0)
        bail("no exec");
    return e;
}

/* Rows [from, from + n) of a sequence; the state of the exec is as bind left it. */
static int bind_step(attend_exec *e, int from, int n, bool all)
{
    attend_binding bind[] = {HELP_DIM("n", n), ALL_BUT_N};
    for (int i = 0; i < n; i++)
        slots[i] = from + i;
    used[0] = from + n;
    return attend_bind(e, bind, all ? (int)NELEM(bind) : 1);
}

/* ---- bindings that are refused ---- */

static const int64_t short_rows[] = {999, NH *D, 8, 1}, wide_last[] = {64, 32, 16, 2};
static const int64_t backwards[] = {64, -32, 16, 1}, far_rows[] = {1, 1, INT64_MAX / 2, 1};
static const int64_t one_place[] = {0, 0, D, 1};

/* clang-format off */
static const struct bad_binding {
    int64_t n; /* the dimension that is bound before it */
    attend_binding b;
    const char *says;
} bad_bindings[] = {
    {3, HELP_DATA("z", x), "nothing named 'z' to bind"},
    {3, {.data = x, .bytes = 4}, "nothing named '' to bind"},
    {3, HELP_DIM("n", 0), "dimension 'n' is 0, wants 1 to 8"},
    {3, HELP_DIM("n", 9), "dimension 'n' is 9, wants 1 to 8"},
    {3, HELP_DATA("n", x),"dimension 'n' is bound to memory, wants a value"},
    {3,{.name = "x", .bytes = 64}, "'x' is bound to 64 bytes at no address"},
    {3, {.name = "x", .data = x, .bytes = -1}, "'x' is bound to -1 bytes at no address"},
    {3, {.name = "x", .data = x, .bytes = 4}, "'x' needs 384 bytes but 4 are bound"},
    {3, {.name = "x"}, "'x' needs 384 bytes but 0 are bound"},
    {3, {.name = "x", .data = (char *)x + 1, .bytes = 1000}, "'x' is bound to an address that is no multiple of 4"},
    {3, {.name = "x", .data = x, .bytes = sizeof x, .stride = wide_last}, "'x' has stride 2 on its last axis, wants 1"},
    {3, {.name = "x", .data = x, .bytes = sizeof x, .stride = backwards}, "'x' has stride -32 on axis 1"},
    {3, {.name = "x", .data = x, .bytes = sizeof x, .stride = far_rows}, "'x' needs 9223372036854775807 bytes but 1024 are bound"},
    {2, {.name = "x", .data = x, .bytes = 200, .stride = short_rows}, "'x' needs 224 bytes but 200 are bound"},
    {3, {.name = "y", .data = y, .bytes = sizeof y, .stride = one_place}, "'y' is written, but its strides put elements in one place"},
    {3, {.name = "y", .data = x, .bytes = sizeof x}, "'y' and 'x' are bound to memory that overlaps"},
    {1, {.name = "y", .data = cache[0] + 3, .bytes = sizeof y}, "are bound to memory that overlaps"},
    {1, HELP_DATA("k", cache[1]), "are bound to memory that overlaps"},
    {1, {.name = "used", .data = (int32_t[]){ROOM + 1}, .bytes = 4}, "attention 'look': kv_used[0] is 41, outside [0, 40]"},
    {1, {.name = "used", .data = (int32_t[]){-1}, .bytes = 4}, "attention 'look': kv_used[0] is -1, outside [0, 40]"},
};
/* clang-format on */

/* Each is refused with its sentence, stops runs, and leaves the bindings that were there. */
static void refused_bindings(attend_plan *plan, const char *device)
{
    attend_exec *e = new_exec(plan);
    help_holds(attend_run(e) == ATTEND_ESTATE ? attend_exec_error(e) : "", "nothing is bound",
               "%s: no run before a bind", device);
    attend_binding none[] = {ALL_BUT_N};
    help_holds(attend_bind(e, none, (int)NELEM(none)) < 0 ? attend_exec_error(e) : "",
               "dimension 'n' is not given", "%s: a dimension is missing", device);
    attend_binding only[] = {HELP_DIM("n", 3)};
    help_holds(attend_bind(e, only, 1) < 0 ? attend_exec_error(e) : "", "is not bound",
               "%s: a failed bind binds nothing", device);
    for (size_t i = 0; i < NELEM(bad_bindings); i++) {
        const struct bad_binding *c = &bad_bindings[i];
        attend_binding two[] = {HELP_DIM("n", c->n), c->b};
        if (bind_step(e, 0, 3, true) < 0)
            bail("bind: %s", attend_exec_error(e));
        help_holds(attend_bind(e, two, 2) == ATTEND_EINVAL ? attend_exec_error(e) : "taken",
                   c->says, "%s: binding %d", device, (int)i);
        is_int(attend_run(e), ATTEND_ESTATE, "%s: no run after that", device);
        ok(attend_bind(e, NULL, 0) == 0 && e->sym[0] == 3 && attend_run(e) == 0,
           "%s: the old bindings are there still", device);
    }
    attend_exec_free(e);
}

/* ---- indices that are met while running ---- */

static void bad_slots(attend_plan *plan, const char *device)
{
    static const int32_t bad[] = {ROOM, -2, INT32_MAX, INT32_MIN};
    attend_exec *e = new_exec(plan);
    char want[100];
    for (size_t i = 0; i < NELEM(bad); i++) {
        memset(cache, 0, sizeof cache);
        if (bind_step(e, 0, 3, true) < 0)
            bail("bind: %s", attend_exec_error(e));
        slots[1] = bad[i];
        snprintf(want, sizeof want, "append 'store k': index %d at place 1 is outside [0, 40)",
                 bad[i]);
        is_int(attend_run(e), ATTEND_EINVAL, "%s: slot %d", device, bad[i]);
        is_str(attend_exec_error(e), want, "%s: its sentence", device);
        is_int(attend_run(e), ATTEND_ESTATE, "%s: no run until a bind", device);
        is_str(attend_exec_error(e), want, "%s: the sentence stays", device);
    }
    memset(cache, 0, sizeof cache);
    if (bind_step(e, 0, 3, true) < 0)
        bail("bind: %s", attend_exec_error(e));
    slots[1] = -1;
    is_int(attend_run(e), 0, "%s: slot -1 is fine", device);
    static const float zero[D] = {0};
    ok(!memcmp(cache[0], x, sizeof zero) && !memcmp(cache[0] + D, zero, sizeof zero) &&
           !memcmp(cache[0] + 2 * D, x + 2 * D, sizeof zero),
       "%s: and writes nothing", device);
    attend_exec_free(e);
}

static void bad_rows(attend_ctx *ctx, const char *device)
{
    float table[5 * 3] = {0}, out[4 * 3];
    int32_t index[4] = {0, 4, 5, -1};
    attend_graph *g = attend_graph_new(ctx);
    attend_tensor t = attend_graph_input(g, "table", ATTEND_F32, ATTEND_SHAPE(5, 3));
    attend_tensor i = attend_graph_input(g, "index", ATTEND_I32, ATTEND_SHAPE(2, 2));
    attend_graph_output(g, "out", attend_graph_gather(g, t, i));
    attend_plan *plan = help_compile(g, device, 1);
    attend_exec *e = new_exec(plan);
    attend_binding bind[] = {HELP_DATA("table", table), HELP_DATA("index", index),
                             HELP_DATA("out", out)};
    is_int(attend_bind(e, bind, 3), 0, "%s: gather is bound", device);
    is_int(attend_run(e), ATTEND_EINVAL, "%s: and fails", device);
    const char *error = attend_exec_error(e); /* threads may meet either first */
    ok(!strcmp(error, "gather: index 5 at place 2 is outside [0, 5)") ||
           !strcmp(error, "gather: index -1 at place 3 is outside [0, 5)"),
       "%s: %s", device, error);
    index[2] = index[3] = 1;
    ok(attend_bind(e, NULL, 0) == 0 && attend_run(e) == 0, "%s: and runs once that is mended",
       device);
    attend_exec_free(e);
    attend_plan_free(plan);
    attend_graph_free(g);
}

/* ---- lengths, schedules ---- */

static void one_row(attend_exec *e, int at, float *out)
{
    if (bind_step(e, at, 1, false) < 0 || attend_run(e) < 0)
        bail("step %d: %s", at, attend_exec_error(e));
    memcpy(out, y, NH * D * sizeof *y);
}

/* Token by token is what all at once gives, and no step but the first schedules anything. */
static void decoding(attend_plan *plan, const char *device)
{
    static float all[NH * MOST * D], row[NH * D];
    attend_exec *e = new_exec(plan);
    memset(cache, 0xff, sizeof cache); /* NaN where nothing was stored */
    if (bind_step(e, 0, MOST, true) < 0 || attend_run(e) < 0)
        bail("%s", attend_exec_error(e));
    memcpy(all, y, sizeof all);
    memset(cache, 0xff, sizeof cache);
    float kept[MOST * NH * D];
    memcpy(kept, x, sizeof kept);
    int64_t schedules = 0;
    bool same = true;
    for (int i = 0; i < MOST; i++) {
        for (int h = 0; h < NH; h++)
            memcpy(x + h * D, kept + (h * MOST + i) * D, D * sizeof *x);
        one_row(e, i, row);
        if (i == 0)
            schedules = e->schedules;
        for (int c = 0; c < NH * D; c++) {
            float d = row[c] - all[(c / D * MOST + i) * D + c % D];
            same = same && d < 1e-5f && d > -1e-5f;
        }
    }
    ok(same, "%s: token by token is as all at once", device);
    is_int(e->schedules, schedules, "%s: keys that grow within a chunk schedule nothing", device);
    ok(attend_bind(e, NULL, 0) == 0 && e->schedules == schedules,
       "%s: nor does a bind that changes nothing", device);
    memcpy(x, kept, sizeof kept);
    attend_exec_free(e);
}

/* Sequences that go away must take their work with them. */
static void fewer_sequences(attend_ctx *ctx, const char *device)
{
    enum { B = 4, S = 3 };
    static float q[B * S * D], o[B * S * D];
    attend_graph *g = attend_graph_new(ctx);
    int64_t b = attend_graph_dim(g, "b", 0, B);
    attend_tensor t = attend_graph_input(g, "q", ATTEND_F32, ATTEND_SHAPE(b, 1, S, D));
    attend_graph_output(g, "o", attend_graph_attention(g, t, t, t, NULL, NULL));
    attend_plan *plan = help_compile(g, device, 1);
    attend_exec *e = new_exec(plan);
    uint64_t r = 7;
    help_normal(&r, q, B * S * D);
    for (int n = B; n >= 0; n--) {
        attend_binding bind[] = {
            HELP_DIM("b", n),
            {.name = "q", .data = q, .bytes = n * S * D * (int64_t)sizeof *q},
            {.name = "o", .data = o, .bytes = n * S * D * (int64_t)sizeof *o}
        };
        memset(o, 0xff, sizeof o);
        int status = attend_bind(e, bind, 3);
        if (status == 0)
            status = attend_run(e);
        bool clean = true;
        for (size_t i = (size_t)n * S * D * sizeof *o; i < sizeof o; i++)
            clean = clean && ((unsigned char *)o)[i] == 0xff;
        ok(status == 0 && clean && (n == 0 || o[0] == o[0]), "%s: %d sequences%s", device, n,
           attend_exec_error(e));
    }
    attend_exec_free(e);
    attend_plan_free(plan);
    attend_graph_free(g);
}

/* ---- cancelling ---- */

static void cancelling(attend_plan *plan, const char *device)
{
    attend_exec *e = new_exec(plan);
    attend_fence fence;
    int flag = 1;
    if (bind_step(e, 0, MOST, true) < 0)
        bail("%s", attend_exec_error(e));
    attend_exec_cancel(e, &flag);
    is_int(attend_run(e), ATTEND_ECANCELLED, "%s: a cancelled run", device);
    help_holds(attend_exec_error(e), "cancelled before step 0", "%s: its sentence", device);
    is_int(attend_run(e), ATTEND_ESTATE, "%s: has failed", device);
    flag = 0;
    ok(attend_bind(e, NULL, 0) == 0 && attend_run(e) == 0, "%s: and may be bound again", device);
    attend_exec_cancel(e, NULL);
    ok(attend_submit(e, &fence) == 0 && attend_wait(fence) == 0, "%s: submit and wait", device);
    attend_exec_free(e);
}

/* ---- strides: the same result, from and to memory with gaps ---- */

static void strided(attend_ctx *ctx, const char *device)
{
    enum { B = 2, H = 3, S = 5, C = 4, GAP = 3 };
    static float in[B * H * S * C], out[B * H * S * C], wide_in[B * H * S * (C + GAP)],
        wide_out[B * H * S * (C + GAP)];
    attend_graph *g = attend_graph_new(ctx);
    attend_tensor t = attend_graph_input(g, "in", ATTEND_F32, ATTEND_SHAPE(B, H, S, C));
    attend_graph_output(g, "out", attend_graph_softmax(g, attend_graph_scale(g, t, 2)));
    attend_plan *plan = help_compile(g, device, 1);
    attend_exec *e = new_exec(plan);
    uint64_t r = 3;
    help_normal(&r, in, B * H * S * C);
    attend_binding plain[] = {HELP_DATA("in", in), HELP_DATA("out", out)};
    /* memory in the order (B, S, H, C), with a gap after each row */
    const int64_t stride[] = {S * H * (C + GAP), C + GAP, H * (C + GAP), 1};
    const attend_binding gaps[] = {
        {.name = "in",
         .data = wide_in,
         .bytes = (int64_t)sizeof wide_in - GAP * 4,
         .stride = stride},
        {.name = "out",
         .data = wide_out,
         .bytes = (int64_t)sizeof wide_out - GAP * 4,
         .stride = stride}
    };
    memset(wide_in, 0xff, sizeof wide_in);
    memset(wide_out, 0xff, sizeof wide_out);
    for (int i = 0; i < B * H * S * C; i++)
        wide_in[i / C / S / H * stride[0] + i / C / S % H * stride[1] + i / C % S * stride[2] +
                i % C] = in[i];
    ok(attend_bind(e, plain, 2) == 0 && attend_run(e) == 0, "%s: plain", device);
    ok(attend_bind(e, gaps, 2) == 0 && attend_run(e) == 0, "%s: with gaps%s", device,
       attend_exec_error(e));
    bool same = true, clean = true;
    for (int i = 0; i < B * H * S * C; i++)
        same = same && out[i] == wide_out[i / C / S / H * stride[0] + i / C / S % H * stride[1] +
                                          i / C % S * stride[2] + i % C];
    for (int i = 0; i < B * H * S; i++)
        for (int c = C; c < C + GAP; c++)
            clean = clean && wide_out[i * (C + GAP) + c] != wide_out[i * (C + GAP) + c];
    ok(same, "%s: the same result", device);
    ok(clean, "%s: and gaps as they were", device);
    attend_exec_free(e);
    attend_plan_free(plan);
    attend_graph_free(g);
}

/* ---- a run allocates nothing ---- */

static int64_t allocations;

static void *count_alloc(void *arg, size_t bytes, size_t align)
{
    (void)arg;
    allocations++;
    return at_os_alloc(align, bytes);
}

static void count_free(void *arg, void *p, size_t bytes)
{
    (void)arg;
    (void)bytes;
    allocations++;
    at_os_free(p);
}

static void no_allocation(int threads, const char *device)
{
    attend_ctx_opts o;
    attend_ctx *ctx;
    attend_ctx_opts_init(&o);
    o.threads = threads;
    o.allocator = (attend_allocator){count_alloc, count_free, NULL};
    if (attend_ctx_new(&o, &ctx) < 0)
        bail("no context");
    attend_graph *g = decoder(ctx);
    attend_plan *plan = help_compile(g, device, 1);
    attend_exec *e = new_exec(plan);
    int64_t before = -1;
    for (int from = 0; from + 1 < ROOM; from++) {
        if (bind_step(e, from, 1, from == 0) < 0)
            bail("%s", attend_exec_error(e));
        if (from == 0)
            before = allocations;
        if (attend_run(e) < 0)
            bail("%s", attend_exec_error(e));
    }
    is_int(allocations, before, "%s: %d threads: no run allocates, nor do binds that grow nothing",
           device, threads);
    attend_exec_free(e);
    attend_plan_free(plan);
    attend_graph_free(g);
    attend_ctx_free(ctx);
}

int main(void)
{
    static const char *const devices[] = {"ref", "simd"};
    uint64_t r = 140;
    help_normal(&r, x, (int64_t)NELEM(x));
    attend_ctx *ctx = help_context(2);
    for (size_t d = 0; d < NELEM(devices); d++) {
        attend_graph *g = decoder(ctx);
        attend_plan *plan = help_compile(g, devices[d], 1);
        refused_bindings(plan, devices[d]);
        bad_slots(plan, devices[d]);
        bad_rows(ctx, devices[d]);
        decoding(plan, devices[d]);
        fewer_sequences(ctx, devices[d]);
        cancelling(plan, devices[d]);
        strided(ctx, devices[d]);
        no_allocation(1, devices[d]);
        no_allocation(3, devices[d]);
        attend_plan_free(plan);
        attend_graph_free(g);
    }
    attend_ctx_free(ctx);
    return done_testing();
}
